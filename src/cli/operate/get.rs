//! `get`: a part of the server in full.

use std::io::Write;

use super::client::Client;
use super::status::{lasting, plural};
use super::table::{Table, visible};
use super::target::Thing;
use super::views::{Endpoint, Observed, Operator, Upstream};
use super::{Failure, Show};
use crate::admin::api::encoded;
use crate::base::clock::Clock;

pub(super) fn get(
    client: &Client,
    thing: &Thing,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = match thing {
        Thing::Config if show.json => client.get_json("/v1/config")?,
        Thing::Config => client.get("/v1/config")?,
        Thing::Endpoint(endpoint) => client.get(&endpoint.path())?,
        Thing::Upstream(name) => client.get(&format!("/v1/upstreams/{}", encoded(name)))?,
        Thing::Upstreams => client.get("/v1/upstreams")?,
    };
    match thing {
        _ if show.json => Ok(write!(out, "{}", answer.text())?),
        Thing::Config => Ok(write!(out, "{}", answer.text())?),
        Thing::Endpoint(name) => endpoint(&name.upstream, &answer.read()?, out),
        Thing::Upstream(_) => upstream(&answer.read()?, out),
        Thing::Upstreams => {
            let upstreams: Vec<Upstream> = answer.read()?;
            for (i, one) in upstreams.iter().enumerate() {
                if i > 0 {
                    writeln!(out)?;
                }
                upstream(one, out)?;
            }
            Ok(())
        }
    }
}

/// A table with a row for each endpoint: what holds, what file and operator say, what is seen. Below
/// it, why, for endpoints of which an operator says something.
fn upstream(upstream: &Upstream, out: &mut dyn Write) -> Result<(), Failure> {
    let dynamic = if upstream.dynamic { ", dynamic" } else { "" };
    let failing_open = if upstream.failing_open {
        ", failing open: no endpoint is up, so all are used"
    } else {
        ""
    };
    let endpoints = plural(upstream.endpoints.len() as u64, "endpoint");
    let breaker = match upstream.breaker.as_deref() {
        None | Some("closed") => String::new(),
        Some(state) => format!(", breaker {state}"),
    };
    let waiting = match upstream.waiting {
        0 => String::new(),
        n => format!(", {n} waiting for an endpoint with room"),
    };
    writeln!(
        out,
        "upstream {}: {}{dynamic}, {endpoints}{failing_open}{breaker}{waiting}",
        upstream.name, upstream.policy
    )?;
    let mut table = Table::new(&[
        "ENDPOINT",
        "STATE",
        "WEIGHT",
        "FILE SAYS",
        "OPERATOR SAYS",
        "HEALTH",
        "READY",
        "IN FLIGHT",
        "CONNECTIONS",
        "REQUESTS",
    ]);
    for endpoint in &upstream.endpoints {
        let effective = endpoint.effective.as_ref();
        let observed = endpoint.observed.as_ref();
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        table.row([
            endpoint.address.clone(),
            effective.map_or("no member".to_owned(), |e| e.state.clone()),
            or_dash(effective.map(|e| e.weight.to_string())),
            file_says(endpoint),
            operator_says(endpoint.operator.as_ref()),
            or_dash(observed.map(|o| o.health.clone())),
            or_dash(observed.map(|o| yes_or_no(o.ready).to_owned())),
            or_dash(observed.map(|o| o.in_flight.to_string())),
            or_dash(observed.map(|o| o.connections.to_string())),
            or_dash(observed.map(|o| o.requests.values().sum::<u64>().to_string())),
        ]);
    }
    write!(out, "{table}")?;
    let now = Clock::start().unix_ms();
    for (i, (endpoint, line)) in upstream
        .endpoints
        .iter()
        .flat_map(|e| {
            let observed = e.observed.iter();
            let lines = observed.flat_map(|o| [unwell(o, now), ejected(o, now), says(o)]);
            lines.flatten().map(move |line| (e, line))
        })
        .enumerate()
    {
        if i == 0 {
            writeln!(out, "health")?;
        }
        let line = format!("{} {line}", endpoint.address);
        writeln!(out, "  {}", visible(&line))?;
    }
    let said = upstream.endpoints.iter().filter(|e| e.operator.is_some());
    for (i, endpoint) in said.enumerate() {
        if i == 0 {
            writeln!(out, "who wins")?;
        }
        for verdict in endpoint.wins.iter().filter(|v| v.layer == "operator") {
            let (name, field) = (&endpoint.address, &verdict.field);
            let line = format!("{name} {field}: the operator, {}", verdict.why);
            writeln!(out, "  {}", visible(&line))?;
        }
    }
    Ok(())
}

fn endpoint(upstream: &str, endpoint: &Endpoint, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "endpoint {} of upstream {upstream}", endpoint.address)?;
    let holds = match &endpoint.effective {
        Some(effective) => format!("{}, weight {}", effective.state, effective.weight),
        None => "no member".to_owned(),
    };
    let seen = match &endpoint.observed {
        Some(observed) => {
            let outcomes = observed.requests.iter().filter(|(_, n)| **n > 0);
            let outcomes: Vec<String> = outcomes.map(|(word, n)| format!("{n} {word}")).collect();
            let requests = if outcomes.is_empty() {
                "no requests yet".to_owned()
            } else {
                format!("requests: {}", outcomes.join(", "))
            };
            let ready = if observed.ready { "ready" } else { "not ready" };
            let connections = plural(observed.connections.unsigned_abs(), "connection");
            format!(
                "{ready}, {} in flight, {connections}, {requests}",
                observed.in_flight
            )
        }
        None => "-".to_owned(),
    };
    let mut layers = Table::new(&["LAYER", "SAYS"]);
    layers.row(["file".to_owned(), file_says(endpoint)]);
    layers.row([
        "operator".to_owned(),
        operator_says(endpoint.operator.as_ref()),
    ]);
    layers.row(["observed".to_owned(), seen]);
    if let Some(observed) = &endpoint.observed {
        let now = Clock::start().unix_ms();
        layers.row(["health".to_owned(), health(observed, now)]);
        layers.row(["last check".to_owned(), last_check(observed, now)]);
        if let Some(ejected) = ejected(observed, now) {
            layers.row(["requests".to_owned(), ejected]);
        }
        layers.row([
            "itself".to_owned(),
            observed.says.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    layers.row(["in effect".to_owned(), holds]);
    write!(out, "\n{layers}\n")?;
    let mut verdicts = Table::new(&["FIELD", "WINS", "WHY"]);
    for verdict in &endpoint.wins {
        verdicts.row([
            verdict.field.clone(),
            verdict.layer.clone(),
            verdict.why.clone(),
        ]);
    }
    Ok(write!(out, "{verdicts}")?)
}

/// Why an endpoint is down: `down for 3 min: 3 http checks in a row failed, the last with: …`.
fn unwell(observed: &Observed, now: u64) -> Option<String> {
    (observed.health == "down").then(|| health(observed, now))
}

/// Since when an endpoint is what it is, and why.
fn health(observed: &Observed, now: u64) -> String {
    let word = &observed.health;
    match &observed.since {
        Some(since) => {
            let ago = lasting(now.saturating_sub(since.at_unix_ms) / 1000);
            format!("{word} for {ago}: {}", since.why)
        }
        None if word == "unchecked" => word.clone(),
        None => format!("{word}: taken for it until its checks say otherwise"),
    }
}

/// For how long, and for what, an endpoint is left alone.
fn ejected(observed: &Observed, now: u64) -> Option<String> {
    let ejected = observed.ejected.as_ref()?;
    let left = lasting(ejected.until_unix_ms.saturating_sub(now).div_ceil(1000));
    Some(format!("ejected for another {left}: {}", ejected.why))
}

fn says(observed: &Observed) -> Option<String> {
    let says = observed.says.as_deref()?;
    Some(format!("says of itself: {says}"))
}

fn last_check(observed: &Observed, now: u64) -> String {
    let Some(check) = &observed.last_check else {
        return match &observed.checked_by[..] {
            [] => "-".to_owned(),
            peers => format!("not made here: peers {} make them", peers.join(", ")),
        };
    };
    let ago = lasting(now.saturating_sub(check.at_unix_ms) / 1000);
    let result = match (&check.text, &*check.result) {
        (Some(text), _) => format!("failed: {text}"),
        (None, "traffic") => "not made: an answer to a client proved it well".to_owned(),
        (None, _) => "passed".to_owned(),
    };
    format!("{result} ({ago} ago, took {} ms)", check.took_ms)
}

fn file_says(endpoint: &Endpoint) -> String {
    match &endpoint.file {
        Some(file) => format!("weight {}", file.weight),
        None => "not listed".to_owned(),
    }
}

fn operator_says(operator: Option<&Operator>) -> String {
    let Some(operator) = operator else {
        return "-".to_owned();
    };
    let said = [
        operator
            .added
            .as_ref()
            .map(|s| format!("added, weight {}", s.value)),
        operator.removed.as_ref().map(|_| "removed".to_owned()),
        operator.state.as_ref().map(|s| s.value.clone()),
        operator
            .weight
            .as_ref()
            .map(|s| format!("weight {}", s.value)),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    said.join(", ")
}

fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(more: &str) -> Observed {
        let text = format!(
            r#"{{"ready": false, "in_flight": 0, "connections": 0, "requests": {{}}, {more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn it_is_told_why_an_endpoint_is_down_and_since_when() {
        let now = 1_000_000;
        let down = observed(
            r#""health": "down", "says": "drain 75%",
               "since": {"at_unix_ms": 820000, "why": "3 http checks in a row failed, the last with: status 503"},
               "last_check": {"at_unix_ms": 999000, "result": "status", "text": "status 500", "took_ms": 4}"#,
        );
        assert_eq!(
            unwell(&down, now).unwrap(),
            "down for 3 min: 3 http checks in a row failed, the last with: status 503"
        );
        assert_eq!(says(&down).unwrap(), "says of itself: drain 75%");
        assert_eq!(
            last_check(&down, now),
            "failed: status 500 (1 s ago, took 4 ms)"
        );
        let fresh = observed(r#""health": "down""#);
        assert_eq!(
            unwell(&fresh, now).unwrap(),
            "down: taken for it until its checks say otherwise"
        );
        assert_eq!(last_check(&fresh, now), "-");
        let shared = observed(r#""health": "up", "checked_by": ["a1", "b2"]"#);
        assert_eq!(
            last_check(&shared, now),
            "not made here: peers a1, b2 make them"
        );
        let busy = observed(
            r#""health": "up",
               "last_check": {"at_unix_ms": 999000, "result": "traffic", "text": null, "took_ms": 0}"#,
        );
        assert_eq!(unwell(&busy, now), None);
        assert!(last_check(&busy, now).starts_with("not made: an answer to a client"));
        // A server of the version before says none of it.
        assert_eq!(
            health(&observed(r#""health": "unchecked""#), now),
            "unchecked"
        );
    }
}
