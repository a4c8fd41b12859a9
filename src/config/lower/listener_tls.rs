//! `[listeners.NAME.tls]`

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::base::tls::{CertificateFacts, ClientAuth, ServerSpec, TlsVersion};

use super::super::diagnostic::Diagnostic;
use super::super::model::{ClientHeaders, Http2, ListenerTls};
use super::super::node::{Located, Node};
use super::super::reader::{Aliases, Table};
use super::certificates::{self, Listed, Pair, named};
use super::process::set;
use super::{headers, sticky};

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

/// Whether a client without a certificate is refused.
const CLIENT_AUTH: [(&str, bool); 2] = [("require", true), ("request", false)];

/// What other programs call the keys.
const ALIASES: Aliases = &[
    ("0rtt", "`early_data`"),
    ("allow_0rtt", "`early_data`"),
    ("ca", "`client_ca`"),
    ("ca-file", "`client_ca`"),
    ("caFiles", "`client_ca`"),
    ("ca_file", "`client_ca`"),
    ("cert", PAIRS),
    ("certFile", PAIRS),
    ("cert_file", PAIRS),
    ("certificate", PAIRS),
    ("cipher_suites", NO_CIPHERS),
    ("ciphers", NO_CIPHERS),
    ("clientAuth", "`client_ca`, and `client_auth`"),
    ("client_verify", "`client_auth`"),
    ("crl", "`client_crl`"),
    ("crl-file", "`client_crl`"),
    ("crl_file", "`client_crl`"),
    ("crt", PAIRS),
    ("key", PAIRS),
    ("keyFile", PAIRS),
    ("key_file", PAIRS),
    ("minVersion", "`min_version`"),
    ("min_tls_version", "`min_version`"),
    ("mtls", "`client_ca`"),
    ("ocsp", "`ocsp`, in `certificates`"),
    ("protocols", "`min_version`, or `alpn`"),
    ("session_tickets", "`tickets`"),
    ("sni", NO_SNI),
    ("server_name", NO_SNI),
    ("ssl_certificate", PAIRS),
    ("ssl_certificate_key", PAIRS),
    ("ssl_ciphers", NO_CIPHERS),
    ("ssl_client_certificate", "`client_ca`"),
    ("ssl_crl", "`client_crl`"),
    ("ssl_early_data", "`early_data`"),
    ("ssl_min_ver", "`min_version`"),
    ("ssl_protocols", "`min_version`"),
    ("ssl_session_ticket_key", "`secret_file`, in `tickets`"),
    ("ssl_session_tickets", "`tickets`"),
    ("ssl_stapling_file", "`ocsp`, in `certificates`"),
    ("ssl_verify_client", "`client_auth`"),
    ("verify", "`client_auth`"),
    ("verify_client", "`client_auth`"),
    ("verify_mode", "`client_auth`"),
    ("zero_rtt", "`early_data`"),
];

const PAIRS: &str = "certificates = [{ cert = \"site.pem\", key = \"site.key\" }]";

const NO_CIPHERS: &str =
    "nothing: each suite that it speaks is safe, and `min_version` does the rest";

const NO_SNI: &str = "nothing: a client gets the certificate that has the name it asks for";

/// The same in an entry of `certificates`.
const PAIR_ALIASES: Aliases = &[
    ("certFile", "`cert`"),
    ("cert_file", "`cert`"),
    ("certificate", "`cert`"),
    ("certificate_file", "`cert`"),
    (
        "chain",
        "`cert`: the whole chain, the server's own certificate first",
    ),
    ("crt", "`cert`"),
    ("keyFile", "`key`"),
    ("key_file", "`key`"),
    ("ocsp_staple", "`ocsp`"),
    ("private_key", "`key`"),
    ("sni", NO_SNI),
    ("ssl_certificate", "`cert`"),
    ("ssl_certificate_key", "`key`"),
    ("stapling", "`ocsp`"),
];

/// HTTP/2 and HTTP/1.1 in TLS (RFC 7301, RFC 9113 section 3.2).
const H2: &str = "h2";
const H1: &str = "http/1.1";

/// What is spoken in TLS.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inside<'a> {
    /// HTTP, and HTTP/2 if it is on.
    Http(Option<&'a Http2>),
    /// What clients and endpoints agree on.
    Bytes,
}

/// Longest protocol: RFC 7301 section 3.1 gives its length one byte.
const MAX_ALPN: usize = 255;

/// Reads `tls`; `None` = clear text, or no usable certificate, which was reported.
pub(super) fn lower(listener: &Table<'_>, inside: Inside<'_>) -> Option<Arc<ListenerTls>> {
    let node = listener.get("tls")?;
    if !node.is_table() {
        let help = format!("write tls = {{ {PAIRS} }}; for clear text, leave it out");
        listener.report.push(node.mismatch("a table").help(help));
        return None;
    }
    let table = node.table(format!("`tls` of {}", listener.what), "listeners.*.tls")?;
    table.known_as(ALIASES);
    let certificates = pairs(&table);
    let mut tls = ListenerTls {
        server: ServerSpec {
            certificates: certificates.iter().map(Pair::files).collect(),
            client_auth: client_auth(&table),
            min_version: TlsVersion::V12,
            alpn: match inside {
                Inside::Http(http2) => alpn(&table, http2),
                Inside::Bytes => any_alpn(&table),
            },
        },
        tickets: true,
        ticket_secret_file: None,
        // What a head may take; handshakes of phones far away take two seconds.
        handshake_timeout: Duration::from_secs(10),
        client_headers: ClientHeaders::default(),
    };
    if let Some(node) = table.get("min_version") {
        tls.server.min_version = min_version(node, &table).unwrap_or(TlsVersion::V12);
    }
    if let Some(node) = table.get("tickets") {
        tickets(node, &table, &mut tls);
    }
    set(
        &mut tls.handshake_timeout,
        table.timeout("handshake_timeout"),
    );
    let told = table.get("client_headers");
    if let (Some(node), Inside::Bytes) = (told, inside) {
        let message = format!(
            "`client_headers` of {} works with protocol `http`",
            table.what
        );
        let d = node.error("wrong-protocol", message);
        let help = "there are no requests to put fields into: send_proxy_protocol = \"v2\", in the \
                    upstream, tells endpoints of TLS and of the client's name";
        table.report.push(d.help(help));
    } else if let Some(node) = told {
        tls.client_headers = client_headers(node, &table);
        if !table.has("client_ca") {
            let message = format!("`client_headers` of {} does nothing", table.what);
            let d = Diagnostic::warning("no-effect", node.at, message);
            let help =
                "no client is asked for a certificate: `client_ca` names who may vouch for them";
            table.report.push(d.help(help));
        }
    }
    if let Some(node) = table.get("early_data") {
        early_data(node, &table);
    }
    table.finish();
    (!certificates.is_empty()).then(|| Arc::new(tls))
}

/// `certificates`, each read once.
fn pairs<'a>(tls: &Table<'a>) -> Vec<Pair<'a>> {
    let Some(node) = tls.require("certificates") else {
        return Vec::new();
    };
    if !node.is_list() {
        let help = format!("write {PAIRS}");
        tls.report
            .push(node.mismatch("a list of tables").help(help));
        return Vec::new();
    }
    if node.list_is_empty() {
        let d = node.error("empty-list", format!("{} has no certificates", tls.what));
        tls.report.push(d.help(format!("write {PAIRS}")));
    }
    let mut found = Vec::new();
    let mut known: Vec<(Pair<'a>, CertificateFacts)> = Vec::new();
    for (number, node) in (1..).zip(node.list().unwrap_or_default()) {
        let what = format!("certificate {number} of {}", tls.what);
        let Some(table) = node.table(what, "listeners.*.tls.certificates") else {
            continue;
        };
        table.known_as(PAIR_ALIASES);
        let cert = table.require("cert").and_then(|node| node.text());
        let key = table.require("key").and_then(|node| node.text());
        let ocsp = table.text("ocsp");
        if let (Some(cert), Some(key)) = (cert, key) {
            let pair = Pair { cert, key, ocsp };
            if let Some((_, facts)) = pair.check(&table) {
                twice(&pair, &facts, &known, tls);
                known.push((pair, facts));
            }
            found.push(pair);
        }
        table.finish();
    }
    found
}

/// Warns of a certificate that nobody gets, because one before it is always chosen.
fn twice(
    pair: &Pair<'_>,
    facts: &CertificateFacts,
    known: &[(Pair<'_>, CertificateFacts)],
    tls: &Table<'_>,
) {
    let names = |facts: &CertificateFacts| {
        let mut names = facts.names.clone();
        names.sort_unstable();
        names
    };
    let first = known
        .iter()
        .find(|(_, before)| before.kind == facts.kind && names(before) == names(facts));
    if let Some((first, _)) = first {
        let message = format!(
            "this certificate of {} is never used: one before it has the same names and the same \
             kind of key",
            named(facts)
        );
        let d = Diagnostic::warning("certificate-twice", pair.cert.at, message);
        let d = d.related(first.cert.at, "this one is used");
        let help = "remove one; RSA and ECDSA may stand side by side";
        tls.report.push(d.help(help));
    }
}

/// `client_ca`, `client_crl` and `client_auth`
fn client_auth(table: &Table<'_>) -> Option<ClientAuth> {
    let cas = table.get("client_ca");
    let crls = table.get("client_crl");
    let auth = table.get("client_auth");
    let Some(node) = cas else {
        for needs in [crls, auth].into_iter().flatten() {
            let message = format!("`{}` of {} needs `client_ca`", needs.key, table.what);
            let d = needs.error("needs-client-ca", message);
            let help = "write client_ca = \"clients.pem\": the CAs that may vouch for clients";
            table.report.push(d.help(help));
        }
        return None;
    };
    let required = auth.and_then(|node| {
        if node.as_str() == Some("optional") {
            let d = node.error("unknown-value", "`client_auth` cannot be `optional`");
            table.report.push(d.help("isobar calls it `request`"));
            return None;
        }
        node.word(&CLIENT_AUTH)
    });
    Some(ClientAuth {
        cas: certificates::list(node, table, Listed::Cas),
        crls: crls.map_or_else(Vec::new, |node| {
            certificates::list(node, table, Listed::Crls)
        }),
        required: required.unwrap_or(true),
    })
}

fn min_version(node: Node<'_>, table: &Table<'_>) -> Option<TlsVersion> {
    if !node.is_string() {
        let d = node.mismatch("a version");
        table
            .report
            .push(d.help("write \"1.2\" or \"1.3\", in quotes"));
        return None;
    }
    let text = node.text()?;
    let bare = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let old = ["1.0", "1.1", "1", "3.0", "3", "2"].contains(&bare);
    if old && !VERSIONS.iter().any(|(word, _)| *word == *text) {
        let message = format!("`min_version` cannot be `{}`", text.escape_debug());
        let d = node.error("unknown-value", message);
        let help = "\"1.2\" is the oldest there is: those before it are broken (RFC 8996)";
        table.report.push(d.help(help));
        return None;
    }
    node.word(&VERSIONS)
}

/// A subset of what there is, the preferred one first.
fn alpn(table: &Table<'_>, http2: Option<&Http2>) -> Vec<Box<[u8]>> {
    let of = |words: &[&str]| words.iter().map(|w| w.as_bytes().into()).collect();
    let usual = match http2 {
        Some(_) => of(&[H2, H1]),
        None => of(&[H1]),
    };
    let Some(node) = table.get("alpn") else {
        return usual;
    };
    if node.list_is_empty() {
        let d = node.error(
            "empty-list",
            format!("`alpn` of {} is an empty list", table.what),
        );
        let help = "leave it out for [\"h2\", \"http/1.1\"]: with an empty list no client that asks \
                    would be served";
        table.report.push(d.help(help));
    }
    let mut found: Vec<Located<'_, &str>> = Vec::new();
    for text in node.one_or_more() {
        let wrong = |code, message: String, help: &str| {
            table
                .report
                .push(Diagnostic::error(code, text.at, message).help(help));
        };
        match *text {
            H2 if http2.is_none() => wrong(
                "needs-http2",
                format!("`alpn` of {} has \"h2\", and `http2` is off", table.what),
                "leave \"h2\" out, or remove http2 = \"off\"",
            ),
            H1 | H2 if found.iter().any(|before| **before == *text) => wrong(
                "duplicate-value",
                format!("`alpn` of {} has \"{}\" twice", table.what, *text),
                "once is enough: the first that a client knows is spoken",
            ),
            H1 | H2 => found.push(text),
            other => {
                let help = match other {
                    "h3" => "HTTP/3 is not spoken; \"h2\" and \"http/1.1\" are",
                    "http/1.0" | "http1.1" | "http/1" | "h1" | "http1" => {
                        "did you mean \"http/1.1\"?"
                    }
                    "http/2" | "http2" | "h2c" => "did you mean \"h2\"?",
                    _ => "one of \"h2\" and \"http/1.1\"",
                };
                let message = format!("`alpn` cannot be `{}`", other.escape_debug());
                wrong("unknown-value", message, help);
            }
        }
    }
    if found.is_empty() {
        return usual;
    }
    found.iter().map(|text| text.as_bytes().into()).collect()
}

/// Whatever clients may ask for; none = whoever asks is let in without an answer.
fn any_alpn(table: &Table<'_>) -> Vec<Box<[u8]>> {
    let Some(node) = table.get("alpn") else {
        return Vec::new();
    };
    if node.list_is_empty() {
        let message = format!("`alpn` of {} is an empty list", table.what);
        let help = "leave it out: then it does not matter what clients offer";
        table
            .report
            .push(node.error("empty-list", message).help(help));
    }
    let mut found: Vec<Located<'_, &str>> = Vec::new();
    for text in node.one_or_more() {
        let wrong = |code, message: String, help: &str| {
            table
                .report
                .push(Diagnostic::error(code, text.at, message).help(help));
        };
        if !(1..=MAX_ALPN).contains(&text.len()) {
            wrong(
                "bad-alpn",
                format!(
                    "a protocol in `alpn` has from 1 to {MAX_ALPN} bytes, this one {}",
                    text.len()
                ),
                "write it as it is registered (RFC 7301): \"postgresql\", \"mqtt\", \"imap\"",
            );
        } else if found.iter().any(|before| **before == *text) {
            wrong(
                "duplicate-value",
                format!("`alpn` of {} has \"{}\" twice", table.what, *text),
                "once is enough: the first that a client knows is spoken",
            );
        } else {
            found.push(text);
        }
    }
    found.iter().map(|text| text.as_bytes().into()).collect()
}

/// `true`, `false`, or where the secret is.
fn tickets(node: Node<'_>, tls: &Table<'_>, found: &mut ListenerTls) {
    if let Some(on) = node.as_bool() {
        found.tickets = on;
        return;
    }
    if !node.is_table() {
        let d = node.mismatch("true, false or a table");
        let help = "write tickets = true, or tickets = { secret_file = \"ticket.key\" }";
        tls.report.push(d.help(help));
        return;
    }
    let what = format!("`tickets` of {}", tls.what);
    let Some(table) = node.table(what, "listeners.*.tls.tickets") else {
        return;
    };
    table.known_as(&[
        ("file", "`secret_file`"),
        ("key", "`secret_file`"),
        ("keys", "`secret_file`"),
    ]);
    found.ticket_secret_file = table
        .text("secret_file")
        .map(|text| sticky::secret_file(text, &table));
    table.finish();
}

fn client_headers(node: Node<'_>, tls: &Table<'_>) -> ClientHeaders {
    let mut found = ClientHeaders::default();
    let what = format!("`client_headers` of {}", tls.what);
    let Some(table) = node.table(what, "listeners.*.tls.client_headers") else {
        return found;
    };
    let mut seen: Vec<Located<'_, HeaderName>> = Vec::new();
    for (key, slot) in [
        ("subject", &mut found.subject),
        ("fingerprint", &mut found.fingerprint),
        ("certificate", &mut found.certificate),
    ] {
        let Some(text) = table.text(key) else {
            continue;
        };
        let Some(name) = headers::name(text, headers::Side::Response, table.report) else {
            continue;
        };
        if is_ours(&name) {
            let message = format!("`{name}` has another meaning");
            let d = Diagnostic::error("reserved-header", text.at, message);
            let help = format!("give it a name of its own, such as \"x-client-{key}\"");
            table.report.push(d.help(help));
            continue;
        }
        if let Some(first) = seen.iter().find(|before| before.value == name) {
            let message = format!("{} says two things in `{name}`", table.what);
            let d = Diagnostic::error("duplicate-header", text.at, message);
            let d = d.related(first.at, "first given here");
            let help = format!("give each a name of its own, such as \"x-client-{key}\"");
            table.report.push(d.help(help));
        }
        seen.push(Located {
            value: name.clone(),
            at: text.at,
        });
        *slot = Some(name);
    }
    table.finish();
    found
}

/// Whether a field means something to every server, or is written by `forwarding`.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-")
        || [
            "accept",
            "authorization",
            "content-type",
            "cookie",
            "date",
            "forwarded",
            "host",
            "referer",
            "user-agent",
            "via",
            "x-real-ip",
            "x-request-id",
        ]
        .contains(&name)
}

/// There is no early data: whoever has seen it can send it again, and what opens tickets without
/// remembering them cannot tell.
fn early_data(node: Node<'_>, table: &Table<'_>) {
    if node.as_str() == Some("off") || node.as_bool() == Some(false) {
        return;
    }
    let message = format!("{} cannot take early data (0-RTT)", table.what);
    let d = node.error("no-early-data", message);
    let help = "whoever records it can send it again, and with tickets that no server remembers a \
                replay cannot be told: it is never accepted; leave `early_data` out, or write \"off\"";
    table.report.push(d.help(help));
}
