//! What TLS towards endpoints has in common: `server_name`, `ca` and `insecure`, of upstreams and of
//! checks

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::base::tls::{ClientSetup, TlsClient, Trust, TrustError, server_name};

use super::super::diagnostic::Diagnostic;
use super::super::node::{Located, Node};
use super::super::reader::Table;

/// Largest file of CAs: that of a system has 250 KB.
const MAX_CA_BYTES: u64 = 4 << 20;

/// The clients of a configuration: whoever is set up in the same way has the same. A thousand upstreams
/// that trust the system's CAs read and hold these once.
#[derive(Debug, Default)]
pub(super) struct Clients(RefCell<HashMap<[u8; 32], TlsClient>>);

// === impl Clients ===

impl Clients {
    pub(super) fn get(&self, setup: &ClientSetup<'_>) -> Result<TlsClient, TrustError> {
        let digest = setup.digest();
        if let Some(made) = self.0.borrow().get(&digest) {
            return Ok(made.clone());
        }
        let made = TlsClient::new(setup)?;
        self.0.borrow_mut().insert(digest, made.clone());
        Ok(made)
    }
}

/// Whom it is to be, and who says so.
#[derive(Debug, Default)]
pub(super) struct Trusted<'a> {
    pub(super) server_name: Option<String>,
    ca: Option<Located<'a, &'a str>>,
    /// `ca`, where it is.
    pub(super) path: Option<PathBuf>,
    pem: Option<Vec<u8>>,
    pub(super) is_insecure: bool,
}

// === impl Trusted ===

impl<'a> Trusted<'a> {
    /// Reads the three keys; `None` = `ca` cannot be read, which was reported.
    pub(super) fn read(table: &Table<'a>) -> Option<Self> {
        let server_name = name(table);
        let ca = table.text("ca");
        let insecure = table.get("insecure");
        let is_insecure = insecure.and_then(|node| node.flag()).unwrap_or(false);
        if let Some(insecure) = insecure.filter(|_| is_insecure) {
            let (message, help) = if table.has("pin") {
                (
                    "takes every certificate of a pinned key",
                    "`pin` alone decides: names, dates and who vouches for them do not count",
                )
            } else {
                (
                    "takes every certificate",
                    "whoever answers at that address is taken for the endpoint; `ca` names who may \
                     vouch for it",
                )
            };
            let message = format!("{} {message}", table.what);
            let d = Diagnostic::warning("insecure", insecure.at, message);
            table.report.push(d.help(help));
        }
        let path = ca.map(|ca| ca.at.source.folder().join(Path::new(*ca)));
        let pem = match (&ca, &path) {
            (Some(ca), Some(path)) => Some(read(ca, path, table)),
            _ => None,
        };
        Some(Self {
            server_name,
            ca,
            path,
            pem: match pem {
                Some(pem) => Some(pem?),
                None => None,
            },
            is_insecure,
        })
    }

    pub(super) fn trust(&self) -> Trust<'_> {
        match &self.pem {
            _ if self.is_insecure => Trust::Anybody,
            Some(pem) => Trust::Cas(pem),
            None => Trust::System,
        }
    }

    /// Reports that no client can be made of it; `node` is `tls` of `what`.
    pub(super) fn refuse(&self, error: &TrustError, node: Node<'_>, what: &str) {
        let at = self.ca.map_or(node.at, |ca| ca.at);
        let (message, help) = match (error, &self.path) {
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

fn read(ca: &Located<'_, &str>, path: &Path, table: &Table<'_>) -> Option<Vec<u8>> {
    let mut pem = Vec::new();
    let read = fs::metadata(path)
        .and_then(|found| {
            // A pipe would be waited for.
            if !found.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            let file = File::open(path)?;
            file.take(MAX_CA_BYTES + 1).read_to_end(&mut pem)
        })
        .map_err(|error| error.to_string())
        .and_then(|n| match n as u64 {
            0..=MAX_CA_BYTES => Ok(()),
            _ => Err("larger than 4 MiB".to_owned()),
        });
    if let Err(why) = read {
        let message = format!("cannot read `ca`: {}: {why}", path.display());
        let d = Diagnostic::error("cannot-read", ca.at, message);
        let help = "a relative path starts at the folder of this file";
        table.report.push(d.help(help));
        return None;
    }
    Some(pem)
}
