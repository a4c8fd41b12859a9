//! `[upstreams.NAME.health.tls]`

use std::io::Read as _;
use std::path::Path;

use crate::base::tls::{TlsClient, Trust, TrustError, server_name};

use super::super::diagnostic::Diagnostic;
use super::super::model::CheckTls;
use super::super::node::{Located, Node};
use super::super::reader::Table;

/// Largest file of CAs: that of a system has 250 KB.
const MAX_CA_BYTES: u64 = 4 << 20;

/// Reads `true`, `false` or the table; `None` = no TLS, or what was reported.
pub(super) fn lower(node: Node<'_>, what: &str, protocol: &[u8]) -> Option<CheckTls> {
    let mut server_name = None;
    let mut ca: Option<Located<'_, &str>> = None;
    let mut is_insecure = false;
    if node.is_table() {
        let table = node.table(format!("`tls` of {what}"), "upstreams.*.health.tls")?;
        server_name = name(&table);
        ca = table.text("ca");
        let insecure = table.get("insecure");
        is_insecure = insecure.and_then(|node| node.flag()).unwrap_or(false);
        if let Some(insecure) = insecure.filter(|_| is_insecure) {
            let message = format!("{} takes every certificate", table.what);
            let d = Diagnostic::warning("insecure", insecure.at, message);
            let help = "whoever answers at that address is taken for the endpoint; `ca` names who \
                        may vouch for it";
            table.report.push(d.help(help));
        }
        table.finish();
    } else if !node.flag()? {
        return None;
    }
    let path = ca.map(|ca| node.source().folder().join(Path::new(*ca)));
    let pem = match (&ca, &path) {
        (Some(ca), Some(path)) => Some(read(ca, path, node)?),
        _ => None,
    };
    let trust = match &pem {
        _ if is_insecure => Trust::Anybody,
        Some(pem) => Trust::Cas(pem),
        None => Trust::System,
    };
    match TlsClient::trusting(trust, &[protocol]) {
        Ok(client) => Some(CheckTls {
            server_name,
            ca: path,
            verify: !is_insecure,
            client,
        }),
        Err(error) => {
            let at = ca.map_or(node.at, |ca| ca.at);
            let (message, help) = match (&error, &path) {
                (TrustError::NoneOnSystem, _) | (_, None) => (
                    format!("`tls` of {what}: {error}"),
                    "install them (package ca-certificates), or name a file: ca = \"ca.pem\"",
                ),
                (_, Some(path)) => (
                    format!("`ca` of {what}: {}: {error}", path.display()),
                    "name a file of certificates in PEM: `-----BEGIN CERTIFICATE-----`",
                ),
            };
            let d = Diagnostic::error("bad-ca", at, message);
            node.report.push(d.help(help));
            None
        }
    }
}

fn name(table: &Table<'_>) -> Option<String> {
    let text = table.text("server_name")?;
    if server_name(&text).is_err() {
        let message = format!("`{}` is no name of a server", text.escape_debug());
        let d = Diagnostic::error("bad-server-name", text.at, message);
        let help = "write a DNS name or an IP address, as the certificate has it, without a port";
        table.report.push(d.help(help));
        return None;
    }
    Some((*text).to_owned())
}

fn read(ca: &Located<'_, &str>, path: &Path, node: Node<'_>) -> Option<Vec<u8>> {
    let mut pem = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_CA_BYTES + 1).read_to_end(&mut pem))
        .map_err(|error| error.to_string())
        .and_then(|n| match n as u64 {
            0..=MAX_CA_BYTES => Ok(()),
            _ => Err("larger than 4 MiB".to_owned()),
        });
    if let Err(why) = read {
        let message = format!("cannot read `ca`: {}: {why}", path.display());
        let d = Diagnostic::error("cannot-read", ca.at, message);
        let help = "a relative path starts at the folder of this file";
        node.report.push(d.help(help));
        return None;
    }
    Some(pem)
}
