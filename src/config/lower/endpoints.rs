//! `endpoints` of `[upstreams.NAME]`

use std::collections::HashMap;

use crate::base::addr::EndpointAddr;

use super::super::diagnostic::Diagnostic;
use super::super::model::Endpoint;
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::super::source::At;
use super::{address, check_name, reference};

/// Weights are shares: 1000 tells 0.1 % apart, and bounds the tables of the hash policies.
const MAX_WEIGHT: u64 = 1000;

/// Tiers above the first: more than anybody can tell apart.
const MAX_PRIORITY: u64 = 15;

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("disabled", "weight = 0"),
    ("down", "weight = 0"),
    ("host", "`address`, with the port"),
    ("max_conns", "`max_connections`, of the upstream"),
    (
        "max_fails",
        "`consecutive_failures`, in `outlier` of the upstream",
    ),
    ("maxconn", "`max_connections`, of the upstream"),
    ("port", "`address`: the host and the port"),
    ("tier", "`priority`"),
    ("url", "`address`, a host and a port"),
];

/// Whether all endpoints stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Members {
    Given,
    /// `dynamic`: a list that is empty, or missing, may be meant.
    MayCome,
}

pub(super) fn lower<'a>(table: &Table<'a>, members: Members) -> Vec<Located<'a, Endpoint>> {
    let node = match members {
        Members::Given => table.require_unless("endpoints", &["source"]),
        Members::MayCome => table.get("endpoints"),
    };
    let Some(node) = node else {
        return Vec::new();
    };
    let mut found: Vec<Located<'a, Endpoint>> = Vec::new();
    let mut first: HashMap<EndpointAddr, At<'a>> = HashMap::new();
    let nodes = node.list().unwrap_or_default();
    if node.list_is_empty() && members == Members::Given {
        let message = format!("{} has no endpoints: every request gets 503", table.what);
        let d = Diagnostic::warning("no-endpoints", node.at, message);
        table
            .report
            .push(d.help("give it one, such as \"127.0.0.1:3000\""));
    }
    for node in &nodes {
        let Some(endpoint) = endpoint(table, *node) else {
            continue;
        };
        if let Some(before) = first.insert(endpoint.addr.clone(), endpoint.at) {
            let message = format!("{} has the endpoint `{}` twice", table.what, endpoint.addr);
            table.report.push(
                Diagnostic::error("duplicate-endpoint", endpoint.at, message)
                    .related(before, "given here before")
                    .help("to give it a larger share, write { address = \"…\", weight = 2 }"),
            );
        }
        found.push(endpoint);
    }
    if !found.is_empty() && found.len() == nodes.len() && found.iter().all(|e| e.weight == 0) {
        let message = format!("{} has weight 0 on every endpoint", table.what);
        let d = node.error("zero-weights", message);
        table
            .report
            .push(d.help("set one weight above 0, or remove the endpoints"));
    }
    found
}

fn endpoint<'a>(upstream: &Table<'a>, node: Node<'a>) -> Option<Located<'a, Endpoint>> {
    if node.is_string() {
        let addr = address::endpoint(node.text()?, node.report)?;
        return Some(Located {
            value: Endpoint {
                addr: addr.value,
                weight: 1,
                priority: 0,
                zone: None,
            },
            at: addr.at,
        });
    }
    if !node.is_table() {
        let help = "write \"127.0.0.1:3000\" or { address = \"127.0.0.1:3000\", weight = 2 }";
        node.report
            .push(node.mismatch("an address or a table").help(help));
        return None;
    }
    let table = node.table(
        format!("an endpoint of {}", upstream.what),
        "upstreams.*.endpoints",
    )?;
    table.known_as(ALIASES);
    let addr = table.require("address").and_then(|n| n.text());
    let weight = table.integer("weight", 0..=MAX_WEIGHT);
    let zone = table.text("zone");
    if let Some(zone) = zone {
        check_name(zone, table.report);
    }
    let priority = priority(&table);
    let report = table.report;
    table.finish();
    let addr = address::endpoint(addr?, report)?;
    let weight = weight.map_or(1, |w| *w as u32);
    Some(Located {
        value: Endpoint {
            addr: addr.value,
            weight,
            priority,
            zone: zone.map(|zone| reference(zone).value),
        },
        at: addr.at,
    })
}

/// `priority`, or `backup`, which comes after all of them.
fn priority(table: &Table<'_>) -> u8 {
    let (priority, backup) = (table.get("priority"), table.get("backup"));
    if let (Some(priority), Some(backup)) = (priority, backup) {
        let message = format!("{} has both `priority` and `backup`", table.what);
        let d = Diagnostic::error("two-tiers", backup.at, message)
            .related(priority.at, "the other one");
        table
            .report
            .push(d.help("keep one: a backup comes after every priority"));
    }
    let backup = backup.and_then(|node| node.flag()).unwrap_or(false);
    priority
        .and_then(|node| node.bounded(0..=MAX_PRIORITY, Some("0 is used first, then 1, and so on")))
        .map_or(if backup { Endpoint::BACKUP } else { 0 }, |n| *n as u8)
}
