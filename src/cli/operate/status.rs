//! `status`: the server at a glance, and its history.

use std::io::Write;

use serde_json::Value;

use crate::telemetry::history::utc;

use super::client::Client;
use super::table::{Table, visible};
use super::views::{Config, Event, History, Listener, Status};
use super::{Failure, Show};

pub(super) fn status(client: &Client, show: Show, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = client.get("/v1/status")?;
    if show.json {
        return Ok(write!(out, "{}", answer.text())?);
    }
    let status: Status = answer.read()?;
    writeln!(
        out,
        "isobar {}: {}, process {}, up {}, {}",
        status.version,
        status.state,
        status.pid,
        lasting(status.uptime_seconds),
        plural(status.workers as u64, "worker"),
    )?;
    config(&status.config, out)?;
    let mut listeners = Table::new(&["LISTENER", "ADDRESSES", "CONNECTIONS", "PROTOCOL"]);
    for listener in &status.listeners {
        listeners.row([
            listener.name.clone(),
            listener.addresses.join(" "),
            listener.connections.to_string(),
            protocol(listener),
        ]);
    }
    write!(out, "\n{listeners}")?;
    certificates(&status.listeners, out)?;
    let mut upstreams = Table::new(&["UPSTREAM", "ENDPOINTS", "READY", "DOWN", "IN FLIGHT"]);
    for upstream in &status.upstreams {
        upstreams.row([
            upstream.name.clone(),
            upstream.endpoints.to_string(),
            upstream.ready.to_string(),
            upstream.down.to_string(),
            upstream.in_flight.to_string(),
        ]);
    }
    write!(out, "\n{upstreams}")?;
    for upstream in status.upstreams.iter().filter(|u| u.failing_open) {
        let name = visible(&upstream.name);
        writeln!(
            out,
            "\n{name} fails open: no endpoint is up, so all are used"
        )?;
    }
    if status.overrides > 0 {
        let what = plural(status.overrides as u64, "endpoint");
        writeln!(out, "\noperators override {what}: `isobar get upstreams`")?;
    }
    let leaving = &status.leaving;
    if leaving.listeners + leaving.endpoints > 0 {
        writeln!(
            out,
            "\nleaving: {}, {}",
            plural(leaving.listeners as u64, "listener"),
            plural(leaving.endpoints as u64, "endpoint")
        )?;
    }
    Ok(())
}

/// `http`, `tcp -> db`
fn protocol(listener: &Listener) -> String {
    match &listener.upstream {
        Some(upstream) => format!("{} -> {upstream}", listener.protocol),
        None => listener.protocol.clone(),
    }
}

fn certificates(listeners: &[Listener], out: &mut dyn Write) -> Result<(), Failure> {
    if listeners.iter().all(|l| l.certificates.is_empty()) {
        return Ok(());
    }
    let mut table = Table::new(&["LISTENER", "CERTIFICATE", "KEY", "UNTIL", "SHA-256"]);
    for listener in listeners {
        for certificate in &listener.certificates {
            let names = match certificate.names.as_slice() {
                [] => certificate.subject.clone(),
                [name] => name.clone(),
                [name, more @ ..] => format!("{name} +{}", more.len()),
            };
            table.row([
                listener.name.clone(),
                names,
                certificate.key.clone(),
                utc(certificate.not_after_unix_ms.max(0) as u64),
                certificate.fingerprint.chars().take(16).collect(),
            ]);
        }
    }
    write!(out, "\n{table}")?;
    for listener in listeners {
        if listener.certificates.iter().any(|c| c.renewal_failing) {
            writeln!(
                out,
                "\nthe certificate files of {} have changed and cannot be served; those of before are: \
                 `isobar history` says why",
                visible(&listener.name)
            )?;
        }
    }
    Ok(())
}

fn config(config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(
        out,
        "configuration {} of this process, loaded {}, hash {}",
        config.version,
        utc(config.loaded_at_unix_ms),
        config.hash
    )?;
    for file in &config.files {
        writeln!(out, "  {}", visible(file))?;
    }
    if !config.needs_restart.is_empty() {
        let keys = config.needs_restart.join(", ");
        writeln!(out, "a restart is needed for: {keys}")?;
    }
    if let Some(error) = &config.last_error {
        writeln!(
            out,
            "the reload of {} was refused; this configuration serves on:",
            utc(error.at_unix_ms)
        )?;
        for line in error.text.trim_end().lines() {
            writeln!(out, "{}", format!("  {}", visible(line)).trim_end())?;
        }
    }
    Ok(())
}

pub(super) fn history(
    client: &Client,
    limit: usize,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = client.get(&format!("/v1/history?limit={limit}"))?;
    if show.json {
        return Ok(write!(out, "{}", answer.text())?);
    }
    let history: History = answer.read()?;
    if history.missed > 0 {
        writeln!(
            out,
            "({} older ones are not kept)",
            plural(history.missed, "event")
        )?;
    }
    for event in &history.events {
        writeln!(out, "{}", line(event))?;
    }
    Ok(())
}

/// One event in one line. Of a text with several (diagnostics, which quote a file), the first and
/// where it points; `status` has the rest.
fn line(event: &Event) -> String {
    let cause = &event.cause;
    let text: Vec<&str> = event.text.lines().map(str::trim).take(2).collect();
    let (time, text) = (utc(event.at_unix_ms), text.join(" "));
    let mut line = format!("{time}  {:8}  {text}", cause.kind);
    let by = match (&cause.owner, &cause.trigger) {
        (Some(owner), _) => Some(owner.clone()),
        (None, Some(Value::String(word))) => Some(word.clone()),
        (None, Some(trigger)) => trigger["admin"].as_u64().map(|uid| format!("uid:{uid}")),
        (None, None) => None,
    };
    match (by, cause.reason.as_deref()) {
        (Some(by), Some("") | None) => line.push_str(&format!(" (by {by})")),
        (Some(by), Some(reason)) => line.push_str(&format!(" (by {by}: {reason})")),
        (None, _) => {}
    }
    visible(&line)
}

/// `5 s`, `2 min`, `3 h 12 min`, `4 d 5 h`: two units say enough.
pub(super) fn lasting(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

pub(super) fn plural(n: u64, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_said_in_two_units() {
        let said = [59, 60, 3_599, 3_600, 11_530, 86_399, 86_400, 363_600].map(lasting);
        assert_eq!(
            said,
            [
                "59 s",
                "1 min",
                "59 min",
                "1 h 0 min",
                "3 h 12 min",
                "23 h 59 min",
                "1 d 0 h",
                "4 d 5 h"
            ]
        );
    }

    #[test]
    fn a_listener_of_layer_4_tells_whom_it_leads_to() {
        let shown = |more: &str| {
            let text = format!(r#"{{"name": "a", "addresses": [], "connections": 0{more}}}"#);
            protocol(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(shown(""), "http", "a process of before layer 4");
        assert_eq!(shown(r#", "protocol": "http""#), "http");
        assert_eq!(
            shown(r#", "protocol": "udp", "upstream": "dns""#),
            "udp -> dns"
        );
    }

    #[test]
    fn certificates_are_listed_where_there_are_any() {
        let shown = |certificates: &str| {
            let text =
                format!(r#"[{{"name": "web", "addresses": [], "connections": 0{certificates}}}]"#);
            let listeners: Vec<Listener> = serde_json::from_str(&text).unwrap();
            let mut out = Vec::new();
            super::certificates(&listeners, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(""), "");
        let certificate = r#", "certificates": [{"names": ["a.test", "b.test"], "subject": "CN=a",
            "key": "ecdsa", "not_after_unix_ms": 1800000000000, "fingerprint": "0123456789abcdef01",
            "renewal_failing": true}]"#;
        let text = shown(certificate);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let wanted = [
            "web",
            "a.test",
            "+1",
            "ecdsa",
            "2027-01-15T08:00:00Z",
            "0123456789abcdef",
        ];
        assert_eq!(words, wanted);
        assert!(lines[2].contains("`isobar history` says why"), "{text}");
    }

    #[test]
    fn an_event_is_one_line_with_who_and_why() {
        let event = |cause: &str| {
            let text = format!(
                r#"{{"seq": 1, "at_unix_ms": 0, "cause": {cause}, "what": {{}}, "text": "a\n  b\nc"}}"#
            );
            line(&serde_json::from_str(&text).unwrap())
        };
        assert_eq!(
            event(r#"{"kind": "operator", "owner": "uid:0", "reason": "why"}"#),
            "1970-01-01T00:00:00Z  operator  a b (by uid:0: why)"
        );
        assert_eq!(
            event(r#"{"kind": "reload", "trigger": {"admin": 5}, "hash": "0"}"#),
            "1970-01-01T00:00:00Z  reload    a b (by uid:5)"
        );
        assert_eq!(
            event(r#"{"kind": "reload", "trigger": "signal", "hash": "0"}"#),
            "1970-01-01T00:00:00Z  reload    a b (by signal)"
        );
        assert_eq!(
            event(r#"{"kind": "start"}"#),
            "1970-01-01T00:00:00Z  start     a b"
        );
    }
}
