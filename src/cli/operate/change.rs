//! `set`, `drain`, `undrain`, `clear`, `add`, `remove`: what operators say of an endpoint.

use std::io::Write;

use http::Method;
use serde_json::{Map, Value};

use crate::admin::api::encoded;

use super::client::{Answer, Client};
use super::target::{Endpoint, Setting};
use super::views::Applied;
use super::{Expiry, Failure, Said, Show};

/// Who says it, why and for how long, as the API takes it.
pub(super) type Words = Map<String, Value>;

pub(super) fn words(said: &Said, expiry: &Expiry) -> Words {
    let given = [
        ("expires_in", &expiry.expires),
        ("owner", &said.owner),
        ("reason", &said.reason),
    ];
    given
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())))
        .collect()
}

pub(super) fn set(
    client: &Client,
    endpoint: &Endpoint,
    setting: Setting,
    words: Words,
    show: Show,
    out: &mut dyn Write,
) -> Result<Applied, Failure> {
    let mut body = words;
    match setting {
        Setting::State(state) => body.insert("state".to_owned(), state.into()),
        Setting::Weight(weight) => body.insert("weight".to_owned(), weight.into()),
    };
    let answer = client.ask(Method::PATCH, &endpoint.path(), Some(&body.into()))?;
    tell(&answer, show, out)?;
    answer.read()
}

pub(super) fn clear(
    client: &Client,
    endpoint: &Endpoint,
    words: &Words,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let path = format!("{}/override{}", endpoint.path(), query(words));
    tell(&client.ask(Method::DELETE, &path, None)?, show, out)
}

pub(super) fn add(
    client: &Client,
    endpoint: &Endpoint,
    weight: Option<u32>,
    words: Words,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut body = words;
    body.insert("address".to_owned(), endpoint.address.clone().into());
    if let Some(weight) = weight {
        body.insert("weight".to_owned(), weight.into());
    }
    let path = format!("/v1/upstreams/{}/endpoints", encoded(&endpoint.upstream));
    tell(&client.post(&path, Some(&body.into()))?, show, out)
}

pub(super) fn remove(
    client: &Client,
    endpoint: &Endpoint,
    words: &Words,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let path = format!("{}{}", endpoint.path(), query(words));
    tell(&client.ask(Method::DELETE, &path, None)?, show, out)
}

/// What DELETE takes in the place of a body.
fn query(words: &Words) -> String {
    let pairs = words.iter().filter_map(|(name, value)| {
        let value = encoded(value.as_str()?);
        Some(format!("{name}={value}"))
    });
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

fn tell(answer: &Answer, show: Show, out: &mut dyn Write) -> Result<(), Failure> {
    if show.json {
        return Ok(write!(out, "{}", answer.text())?);
    }
    let applied: Applied = answer.read()?;
    writeln!(out, "{}", applied.text)?;
    for note in &applied.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
