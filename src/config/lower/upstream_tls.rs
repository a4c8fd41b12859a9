//! `protocol`, `max_streams` and `tls` of `[upstreams.NAME]`

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::base::addr::EndpointAddr;
use data_encoding::BASE64;

use crate::base::tls::{ClientSetup, TlsClient, TrustError};

use super::super::diagnostic::Diagnostic;
use super::super::model::{CheckTls, Endpoint, Protocol, Upstream, UpstreamTls};
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::certificates::Pair;
use super::http2;
use super::trust::{Clients, Trusted};

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("h1", Protocol::H1),
    ("h2", Protocol::H2),
    ("auto", Protocol::Auto),
];

/// What other programs call the keys of `tls`.
const ALIASES: Aliases = &[
    ("alpn", "`protocol`, of the upstream"),
    ("ca-file", "`ca`"),
    ("caFile", "`ca`"),
    ("ca_file", "`ca`"),
    ("certFile", "`cert`"),
    ("cert_file", "`cert`"),
    ("client_cert", "`cert`"),
    ("client_key", "`key`"),
    ("crt", "`cert`"),
    ("insecureSkipVerify", "`insecure`"),
    ("insecure_skip_verify", "`insecure`"),
    ("keyFile", "`key`"),
    ("key_file", "`key`"),
    ("pinned_public_key", "`pin`"),
    ("pins", "`pin`"),
    ("proxy_ssl_certificate", "`cert`"),
    ("proxy_ssl_certificate_key", "`key`"),
    ("proxy_ssl_name", "`server_name`"),
    ("proxy_ssl_trusted_certificate", "`ca`"),
    ("proxy_ssl_verify", VERIFIES),
    ("rootCAs", "`ca`"),
    ("serverName", "`server_name`"),
    ("sni", "`server_name`"),
    ("ssl_certificate", "`cert`"),
    ("ssl_certificate_key", "`key`"),
    ("ssl_verify", VERIFIES),
    ("verify", VERIFIES),
    ("verify_mode", VERIFIES),
    ("verifyhost", "`server_name`"),
];

const VERIFIES: &str = "nothing: it always verifies, unless you write insecure = true";

/// How a pin is written: the hash's name, then so much base64.
const PIN: (&str, usize) = ("sha256/", 44);

/// What clients to the endpoints are made of; checks have one of their own.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    clients: &'a Clients,
    trusted: Trusted<'a>,
    identity: Option<(Arc<CertifiedKey>, (PathBuf, PathBuf))>,
    pins: Vec<[u8; 32]>,
}

/// Reads the three keys; `None` = no TLS, or what was reported.
pub(super) fn lower<'a>(
    table: &Table<'a>,
    u: &mut Upstream,
    clients: &'a Clients,
) -> Option<Draft<'a>> {
    let protocol = table.get("protocol");
    if let Some(node) = protocol {
        u.protocol = self::protocol(node, table).unwrap_or(u.protocol);
    }
    if let Some(n) = table.bounded(
        "max_streams",
        1..=http2::MAX_STREAMS,
        "100 is what most servers allow; above, another connection is made",
    ) {
        u.max_streams = NonZeroU32::new(*n as u32).unwrap_or(u.max_streams);
        if u.protocol == Protocol::H1 {
            let message = format!("`max_streams` does nothing: {} speaks HTTP/1.1", table.what);
            let d = Diagnostic::warning("no-effect", n.at, message);
            let help = "a connection of HTTP/1.1 has one exchange at a time; protocol = \"h2\" has \
                        streams";
            table.report.push(d.help(help));
        }
    }
    let node = table.get("tls");
    let is_off = node.is_none_or(|node| node.as_bool() == Some(false));
    if let Some(protocol) = protocol.filter(|_| is_off && u.protocol == Protocol::Auto) {
        let message = format!("protocol `auto` of {} needs `tls`", table.what);
        let d = protocol.error("needs-tls", message);
        let help = "the two agree on it in TLS (ALPN): add tls = true, or say what endpoints speak in \
                    clear text, protocol = \"h2\" or \"h1\"";
        table.report.push(d.help(help));
    }
    let node = node?;
    let draft = draft(node, table, &u.endpoints, clients)?;
    let protocols: &[&[u8]] = match u.protocol {
        Protocol::Auto => &[b"h2", b"http/1.1"],
        Protocol::H1 => &[b"http/1.1"],
        Protocol::H2 => &[b"h2"],
    };
    match draft.client(protocols) {
        Ok(client) => {
            u.tls = Some(Arc::new(UpstreamTls {
                server_name: draft.trusted.server_name.clone(),
                ca: draft.trusted.path.clone(),
                identity: draft.identity.as_ref().map(|(_, files)| files.clone()),
                pins: draft.pins.clone(),
                verify: !draft.trusted.is_insecure,
                client,
            }));
            Some(draft)
        }
        Err(error) => {
            draft.trusted.refuse(&error, node, &table.what);
            None
        }
    }
}

/// A word, which people may know under another name.
fn protocol(node: Node<'_>, table: &Table<'_>) -> Option<Protocol> {
    let other = match node.as_str() {
        Some("http/1.1" | "http1" | "http" | "http/1" | "http1.1") => Some("isobar calls it `h1`"),
        Some("http2" | "http/2" | "h2c" | "grpc") => Some("isobar calls it `h2`"),
        Some("https") => Some("write tls = true, and protocol = \"h1\", \"h2\" or \"auto\""),
        Some(_) | None => None,
    };
    let Some(help) = other else {
        return node.word(&PROTOCOLS);
    };
    let word = node.as_str().unwrap_or_default();
    let message = format!("`protocol` cannot be `{word}`");
    table
        .report
        .push(node.error("unknown-value", message).help(help));
    None
}

fn draft<'a>(
    node: Node<'a>,
    upstream: &Table<'_>,
    endpoints: &[Endpoint],
    clients: &'a Clients,
) -> Option<Draft<'a>> {
    if !node.is_table() {
        let Some(on) = node.as_bool() else {
            let d = node.mismatch("true, false or a table");
            let help =
                "write tls = true, or tls = { server_name = \"app.internal\", ca = \"ca.pem\" }";
            upstream.report.push(d.help(help));
            return None;
        };
        if !on {
            return None;
        }
        nameless(node, upstream, endpoints);
        return Some(Draft {
            clients,
            trusted: Trusted::default(),
            identity: None,
            pins: Vec::new(),
        });
    }
    let table = node.table(format!("`tls` of {}", upstream.what), "upstreams.*.tls")?;
    table.known_as(ALIASES);
    let trusted = Trusted::read(&table);
    let identity = identity(&table);
    let pins = table
        .get("pin")
        .map_or_else(Vec::new, |node| pins(node, &table));
    if !table.has("server_name") && trusted.as_ref().is_some_and(|t| !t.is_insecure) {
        nameless(node, upstream, endpoints);
    }
    table.finish();
    Some(Draft {
        clients,
        trusted: trusted?,
        identity,
        pins,
    })
}

/// Reports an endpoint whose certificate could have no name to verify.
fn nameless(node: Node<'_>, upstream: &Table<'_>, endpoints: &[Endpoint]) {
    let unix = |e: &&Endpoint| matches!(e.addr, EndpointAddr::Unix(_));
    if let Some(endpoint) = endpoints.iter().find(unix) {
        let message = format!(
            "`tls` of {}: there is no name to verify at `{}`",
            upstream.what, endpoint.addr
        );
        let d = node.error("no-server-name", message);
        let help = "a Unix socket has no address that a certificate could have: say which name it \
                    has, tls = { server_name = \"app.internal\" }";
        upstream.report.push(d.help(help));
    }
}

/// `cert` and `key`, which belong together.
fn identity(table: &Table<'_>) -> Option<(Arc<CertifiedKey>, (PathBuf, PathBuf))> {
    let (cert, key) = (table.get("cert"), table.get("key"));
    let alone = match (cert, key) {
        (Some(cert), None) => Some((cert, "key", "app.key")),
        (None, Some(key)) => Some((key, "cert", "app.pem")),
        _ => None,
    };
    if let Some((node, other, file)) = alone {
        let message = format!("{} has `{}` and no `{other}`", table.what, node.key);
        let d = node.error("missing-key", message);
        let help = format!("a certificate needs its key: add {other} = \"{file}\"");
        table.report.push(d.help(help));
    }
    let pair = Pair {
        cert: cert?.text()?,
        key: key?.text()?,
        ocsp: None,
    };
    let (key, _) = pair.check(table)?;
    let files = pair.files();
    Some((key, (files.cert, files.key)))
}

/// One or more hashes of public keys.
fn pins(node: Node<'_>, table: &Table<'_>) -> Vec<[u8; 32]> {
    if node.list_is_empty() {
        let d = node.error(
            "empty-list",
            format!("`pin` of {} is an empty list", table.what),
        );
        let help = "leave it out: a key would have to be among none";
        table.report.push(d.help(help));
    }
    let pin = |text: Located<'_, &str>| {
        let (hash, length) = PIN;
        let bytes = text
            .strip_prefix(hash)
            .filter(|base64| base64.len() == length)
            .and_then(|base64| BASE64.decode(base64.as_bytes()).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        if bytes.is_none() {
            let message = format!("`{}` is no pin", text.escape_debug());
            let d = Diagnostic::error("bad-pin", text.at, message);
            let help = "write \"sha256/\" and 44 characters of base64, the hash of the public key: \
                        openssl x509 -in CERT -noout -pubkey | openssl pkey -pubin -outform der | \
                        openssl dgst -sha256 -binary | base64";
            table.report.push(d.help(help));
        }
        bytes
    };
    node.one_or_more().into_iter().filter_map(pin).collect()
}

// === impl Draft ===

impl Draft<'_> {
    /// A client that offers these protocols.
    fn client(&self, protocols: &[&[u8]]) -> Result<TlsClient, TrustError> {
        self.clients.get(&ClientSetup {
            trust: self.trusted.trust(),
            protocols,
            identity: self.identity.as_ref().map(|(key, _)| key.clone()),
            pins: &self.pins,
        })
    }

    /// The same for checks that offer `protocol`.
    pub(super) fn for_checks(&self, protocol: &[u8]) -> Option<CheckTls> {
        // What can be wrong was reported when the upstream's own client was made.
        let client = self.client(&[protocol]).ok()?;
        Some(CheckTls {
            server_name: self.trusted.server_name.clone(),
            ca: self.trusted.path.clone(),
            verify: !self.trusted.is_insecure,
            client,
            of_upstream: true,
        })
    }
}
