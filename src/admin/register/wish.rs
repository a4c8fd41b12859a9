//! What a request asks for, read and checked.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::admin::api::problem::Problem;
use crate::admin::api::route::{query_names, query_value};
use crate::base::addr::{EndpointAddr, canonical};
use crate::config::units::{format_duration, parse_duration};
use crate::upstream::overrides::{self, MAX_WEIGHT};

use super::registrar::Wish;

/// Where nothing is said: three renewals of ten seconds, each of which may fail once.
const USUAL_TTL: Duration = Duration::from_secs(30);

/// Renewals more often than three a second say nothing that checks would not.
const MIN_TTL: Duration = Duration::from_secs(1);

/// Longest name of a zone, in bytes: as the file has it.
const MAX_ZONE: usize = 128;

/// The body of a registration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    weight: Option<u32>,
    zone: Option<String>,
    ttl: Option<String>,
}

/// Reads a registration of `endpoint`.
pub(super) fn read(
    upstream: &str,
    endpoint: EndpointAddr,
    query: &str,
    body: &[u8],
    max_ttl: Duration,
) -> Result<Wish, Problem> {
    let body: Body = if body.is_empty() {
        Body::default()
    } else {
        serde_json::from_slice(body).map_err(|error| {
            let detail = format!(
                "the body is not what a registration says ({error}); write {{\"weight\": 5, \"zone\": \"a\", \"ttl\": \"30s\"}}"
            );
            Problem::new(StatusCode::BAD_REQUEST, "body", detail)
        })?
    };
    for name in query_names(query) {
        let is_twice = match name {
            "ttl" => body.ttl.is_some(),
            "weight" => body.weight.is_some(),
            "zone" => body.zone.is_some(),
            _ => {
                let name: String = name.chars().take(40).collect();
                let detail = format!(
                    "unknown parameter `{}`; there are `ttl`, `weight`, `zone`",
                    name.escape_debug()
                );
                return Err(Problem::new(StatusCode::BAD_REQUEST, "query", detail));
            }
        };
        if is_twice {
            let detail = format!("`{name}` is in the query and in the body; say it once");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "query", detail));
        }
    }
    let weight = match query_value(query, "weight") {
        None => body.weight.unwrap_or(1),
        Some(text) => text.parse().map_err(|_| weight(&text))?,
    };
    if weight > MAX_WEIGHT {
        return Err(self::weight(&weight.to_string()));
    }
    let zone = query_value(query, "zone").or(body.zone);
    if let Some(zone) = &zone
        && (zone.is_empty() || zone.len() > MAX_ZONE || !zone.chars().all(is_of_name))
    {
        let detail = format!(
            "`zone` is a name of 1 to {MAX_ZONE} letters, digits, `_`, `.` and `-`, as in the file"
        );
        return Err(unprocessable("zone", detail));
    }
    let ttl = match query_value(query, "ttl").or(body.ttl) {
        None => USUAL_TTL.min(max_ttl),
        Some(text) => {
            let ttl = parse_duration(&text).map_err(|error| {
                unprocessable("ttl", format!("`ttl` {error}; write it as \"30s\""))
            })?;
            if ttl < MIN_TTL || ttl > max_ttl {
                let detail = format!(
                    "`ttl` is {}; this peer takes from {} to {} (`max_ttl` in `fleet.register`)",
                    format_duration(ttl),
                    format_duration(MIN_TTL),
                    format_duration(max_ttl)
                );
                return Err(unprocessable("ttl", detail));
            }
            ttl
        }
    };
    Ok(Wish {
        upstream: upstream.into(),
        endpoint,
        weight,
        zone: zone.map(Into::into),
        ttl,
    })
}

/// Reads the address of an endpoint that a request from `client` names.
pub(super) fn address(text: &str, client: SocketAddr) -> Result<EndpointAddr, Problem> {
    let text = match text.strip_prefix("self:") {
        // A port and nothing else: `+80` is one for `parse`.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => match port.parse() {
            Ok(port) => SocketAddr::new(canonical(client).ip(), port).to_string(),
            Err(_) => text.to_owned(),
        },
        Some(_) | None => text.to_owned(),
    };
    match overrides::address(&text) {
        Ok(addr @ EndpointAddr::Ip(_)) => Ok(addr),
        Ok(EndpointAddr::Unix(_)) => {
            let detail = "an endpoint registers with an address that every peer reaches; a Unix socket is none";
            Err(unprocessable("address", detail.to_owned()))
        }
        Err(refused) => {
            let detail = format!("{refused}, or `self:80` for the address that you come from");
            Err(unprocessable("address", detail))
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

fn weight(text: &str) -> Problem {
    let text: String = text.chars().take(40).collect();
    let text = text.escape_debug();
    let detail = format!("`weight` is `{text}`; a weight is a share from 0 to {MAX_WEIGHT}");
    unprocessable("weight", detail)
}

fn unprocessable(code: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
}
