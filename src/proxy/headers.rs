//! Heads on their way through: every head is written anew from what was understood of it.
//!
//! Names keep their case and order; hop-by-hop fields end here (RFC 9110 section 7.6.1), except
//! what an upgrade needs.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method};

use crate::base::tls::ClientIdentity;
use crate::config::{ClientHeaders, Forwarding, HeaderEdits, Rewrite};
use crate::http1::{Field, FieldId, RequestBody, RequestHead, ResponseHead};

use super::forwarded::{self, Client};

/// What is told to the endpoint beside what the client said.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    /// The path to forward, dots resolved, not rewritten.
    pub path: &'a str,
    /// The query.
    pub query: Option<&'a str>,
    /// Changes to the target and Host.
    pub rewrite: &'a Rewrite,
    /// Edits of fields.
    pub edits: &'a HeaderEdits,
    /// What the listener forwards.
    pub forwarding: &'a Forwarding,
    /// The peer of the connection.
    pub peer: Option<IpAddr>,
    /// Who sent the request.
    pub client: Client,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The request's id.
    pub request_id: &'a [u8],
    /// What is told of the client's certificate, and that, if it has shown one.
    pub proof: Option<(&'a ClientHeaders, Option<&'a ClientIdentity>)>,
}

/// How a response goes out.
#[derive(Debug)]
pub(super) struct ResponseContext<'a> {
    /// Edits of fields.
    pub edits: &'a HeaderEdits,
    /// How its body is framed.
    pub body: ResponseFraming,
    /// Whether the connection closes after it.
    pub close: bool,
    /// Whether an HTTP/1.0 client must be told that it stays.
    pub keep_alive_10: bool,
    /// A 101: Connection and Upgrade pass.
    pub upgrade: bool,
    /// `Via` pseudonym.
    pub via: Option<&'a str>,
    /// A `Set-Cookie` value of ours.
    pub cookie: Option<&'a [u8]>,
    /// The field in which endpoints speak to this proxy alone.
    pub hidden: Option<&'a HeaderName>,
}

/// The framing fields of an outgoing response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFraming {
    /// Its Content-Length, if any, passes as it is.
    AsIs,
    /// Chunked, whatever it was.
    Chunked,
    /// None, and the head is to say so.
    Empty,
    /// By the end of the connection: no framing field.
    UntilClose,
}

/// Writes the head of the request that goes to an endpoint.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    buf: &[u8],
    cx: &RequestContext<'_>,
) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    write_target(out, head, cx);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    match &cx.rewrite.host {
        Some(host) => out.extend_from_slice(host.as_bytes()),
        // HTTP/1.0 may have none; HTTP/1.1 must have the field (RFC 9112 section 3.2).
        None => out.extend_from_slice(head.authority_bytes(buf)),
    }
    out.extend_from_slice(b"\r\n");

    let keeps_forwarding = cx.client.is_trusted;
    let has_edits = !cx.edits.is_empty();
    let request_id = cx.forwarding.request_id.as_ref();
    for (i, field) in head.fields.iter().enumerate() {
        if head.is_hop_by_hop(i) {
            continue;
        }
        let skip = match field.id {
            FieldId::Host => true,
            FieldId::Other => {
                let name = field.name.of(buf);
                forwarded::is_claim(name, keeps_forwarding)
                    || request_id.is_some_and(|n| forwarded::is_folded(name, n.as_str()))
            }
            FieldId::XRequestId => request_id.is_some_and(|n| n.as_str() == "x-request-id"),
            // Rewritten below, joined into one line.
            FieldId::XForwardedFor => !keeps_forwarding || cx.forwarding.x_forwarded,
            FieldId::Forwarded => !keeps_forwarding || cx.forwarding.forwarded,
            FieldId::Via => cx.forwarding.via.is_some(),
            FieldId::Expect => !head.expect_continue,
            id => !keeps_forwarding && forwarded::is_forwarding_field(id),
        };
        // Nobody says them of himself.
        let is_proof = cx
            .proof
            .is_some_and(|(names, _)| speaks_of_proof(names, field.name.of(buf)));
        if !skip && !is_proof && (!has_edits || !cx.edits.replaces_folded(field.name.of(buf))) {
            write_field(out, field, buf);
        }
    }
    if head.body == RequestBody::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if head.upgrade {
        write_upgrade(out, head.get(buf, FieldId::Upgrade));
    }
    if cx.forwarding.x_forwarded {
        forwarded::write_x_forwarded(out, cx.peer, cx.client, head, buf, cx.scheme);
    }
    if cx.forwarding.forwarded {
        forwarded::write_forwarded(out, cx.peer, cx.client, head, buf, cx.scheme);
    }
    if let Some(pseudonym) = &cx.forwarding.via {
        write_via(out, &head.fields, buf, version_of(head), pseudonym);
    }
    if let Some(name) = request_id {
        write_pair(out, name, cx.request_id);
    }
    if let Some((names, Some(identity))) = cx.proof {
        let fields = [
            (&names.subject, &identity.subject),
            (&names.fingerprint, &identity.fingerprint),
            (&names.certificate, &identity.certificate),
        ];
        for (name, value) in fields {
            if let Some(name) = name {
                write_pair(out, name, value.as_bytes());
            }
        }
    }
    write_edits(out, cx.edits);
    out.extend_from_slice(b"\r\n");
}

/// Whether a field of this name speaks of the client's certificate, to endpoints that take `_` for `-`
/// too.
pub(super) fn speaks_of_proof(names: &ClientHeaders, name: &[u8]) -> bool {
    names
        .names()
        .any(|ours| forwarded::is_folded(name, ours.as_str()))
}

/// Writes the head of the response that goes to the client.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    buf: &[u8],
    cx: &ResponseContext<'_>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason(buf));
    out.extend_from_slice(b"\r\n");
    let has_edits = !cx.edits.is_empty();
    for (i, field) in head.fields.iter().enumerate() {
        if head.is_hop_by_hop(i) {
            continue;
        }
        let skip = match field.id {
            FieldId::ContentLength => cx.body != ResponseFraming::AsIs,
            FieldId::Via => cx.via.is_some(),
            _ => cx.hidden.is_some_and(|hidden| {
                let name = field.name.of(buf);
                name.eq_ignore_ascii_case(hidden.as_str().as_bytes())
            }),
        };
        if !skip && (!has_edits || !cx.edits.replaces(field.name.of(buf))) {
            write_field(out, field, buf);
        }
    }
    match cx.body {
        ResponseFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        ResponseFraming::Empty => out.extend_from_slice(b"Content-Length: 0\r\n"),
        ResponseFraming::AsIs | ResponseFraming::UntilClose => {}
    }
    if let Some(pseudonym) = cx.via {
        write_via(out, &head.fields, buf, "1.1", pseudonym);
    }
    if let Some(cookie) = cx.cookie {
        out.extend_from_slice(b"Set-Cookie: ");
        out.extend_from_slice(cookie);
        out.extend_from_slice(b"\r\n");
    }
    write_edits(out, cx.edits);
    if cx.upgrade {
        write_upgrade(out, head.get(buf, FieldId::Upgrade));
    } else if cx.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if cx.keep_alive_10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The Content-Type-less head of an interim response: all its end-to-end fields.
pub(super) fn write_interim(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    buf: &[u8],
    hidden: Option<&HeaderName>,
) {
    let none = HeaderEdits::default();
    let cx = ResponseContext {
        edits: &none,
        body: ResponseFraming::UntilClose,
        close: false,
        keep_alive_10: false,
        upgrade: false,
        via: None,
        cookie: None,
        hidden,
    };
    write_response(out, head, buf, &cx);
}

/// Whether a request with this method may be sent twice (RFC 9110 section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

fn write_target(out: &mut Vec<u8>, head: &RequestHead, cx: &RequestContext<'_>) {
    if head.is_asterisk() {
        out.push(b'*');
        return;
    }
    let mut path = cx.path;
    if let Some(prefix) = &cx.rewrite.strip_prefix {
        // On a segment boundary only: `/v1` of `/v1x` stays.
        if let Some(rest) = path.strip_prefix(prefix.trim_end_matches('/'))
            && (rest.is_empty() || rest.starts_with('/'))
        {
            path = rest;
        }
    }
    if let Some(prefix) = &cx.rewrite.add_prefix {
        out.extend_from_slice(prefix.trim_end_matches('/').as_bytes());
    }
    if !path.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
    if let Some(query) = cx.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

fn write_field(out: &mut Vec<u8>, field: &Field, buf: &[u8]) {
    out.extend_from_slice(field.name.of(buf));
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value.of(buf));
    out.extend_from_slice(b"\r\n");
}

fn write_pair(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_edits(out: &mut Vec<u8>, edits: &HeaderEdits) {
    for (name, value) in edits.set.iter().chain(&edits.add) {
        write_pair(out, name, HeaderValue::as_bytes(value));
    }
}

fn write_upgrade(out: &mut Vec<u8>, protocol: Option<&[u8]>) {
    out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
    out.extend_from_slice(protocol.unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

fn write_via(out: &mut Vec<u8>, fields: &[Field], buf: &[u8], version: &str, pseudonym: &str) {
    out.extend_from_slice(b"Via: ");
    for field in fields.iter().filter(|f| f.id == FieldId::Via) {
        out.extend_from_slice(field.value.of(buf));
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(version.as_bytes());
    out.push(b' ');
    out.extend_from_slice(pseudonym.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn version_of(head: &RequestHead) -> &'static str {
    match head.version {
        crate::http1::Version::Http10 => "1.0",
        crate::http1::Version::Http11 => "1.1",
    }
}

// === impl HeaderEdits ===

impl HeaderEdits {
    /// Whether there is nothing to edit.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a field that came with the message is dropped: removed, or set anew.
    pub(super) fn replaces(&self, name: &[u8]) -> bool {
        let is = |n: &HeaderName| n.as_str().as_bytes().eq_ignore_ascii_case(name);
        self.remove.iter().any(is) || self.set.iter().any(|(n, _)| is(n))
    }

    /// The same for a request, whose recipient may take `x_env` for `x-env`: a client must not
    /// get past a removal, or beside a value that is set, by another spelling.
    pub(super) fn replaces_folded(&self, name: &[u8]) -> bool {
        let is = |n: &HeaderName| forwarded::is_folded(name, n.as_str());
        self.remove.iter().any(is) || self.set.iter().any(|(n, _)| is(n))
    }
}
