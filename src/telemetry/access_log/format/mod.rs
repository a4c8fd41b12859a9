//! An [`Entry`] as a line: json, combined, common, text.
//!
//! Every text is clipped, so that a line has a bound and the worst one fits a buffer. Nothing here
//! allocates once the buffer is there.

use super::entry::Entry;
use super::escape::{self, WORST};
use super::stamp::Stamp;
use super::{BUFFER_BYTES, Format};
use crate::base::clock::Nanos;
use crate::base::decimal::{push_integer, push_ip, push_socket};

/// Formats lines of one format.
#[derive(Debug)]
pub(super) struct Formatter {
    format: Format,
    stamp: Stamp,
}

/// What is kept of each text. Together `WORST` times these and [`FIXED`] fit a buffer.
const MAX_NAME: usize = 256;
const MAX_METHOD: usize = 64;
const MAX_HOST: usize = 512;
const MAX_TARGET: usize = 4096;
const MAX_USER_AGENT: usize = 1024;
const MAX_REFERER: usize = 2048;
const MAX_REQUEST_ID: usize = 256;
const MAX_PROTOCOL: usize = 16;

/// Keys, punctuation, numbers, two addresses, words and clip marks of the longest line: 705 bytes
/// of JSON with every field there (a test has it), rounded up.
const FIXED: usize = 768;

const _: () = assert!(
    FIXED
        + WORST
            * (4 * MAX_NAME
                + MAX_METHOD
                + MAX_HOST
                + MAX_TARGET
                + MAX_USER_AGENT
                + MAX_REFERER
                + MAX_REQUEST_ID
                + MAX_PROTOCOL)
        <= BUFFER_BYTES
);

/// Ends a clipped text.
const CLIPPED: &[u8] = b"...";

// === impl Formatter ===

impl Formatter {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            stamp: Stamp::new(format),
        }
    }

    /// No line of `entry` is longer.
    #[inline]
    pub(super) fn bound(entry: &Entry<'_>) -> usize {
        let texts = entry.listener.len().min(MAX_NAME)
            + entry.route.len().min(MAX_NAME)
            + entry.upstream.len().min(MAX_NAME)
            + entry.endpoint.len().min(MAX_NAME)
            + entry.method.len().min(MAX_METHOD)
            + entry.host.len().min(MAX_HOST)
            + entry.target.len().min(MAX_TARGET)
            + entry.user_agent.len().min(MAX_USER_AGENT)
            + entry.referer.len().min(MAX_REFERER)
            + entry.request_id.len().min(MAX_REQUEST_ID)
            + entry.protocol.len().min(MAX_PROTOCOL);
        FIXED + WORST * texts
    }

    /// Appends the line of `entry`, its newline included.
    pub(super) fn write(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self.format {
            Format::Combined => self.combined(entry, out),
            Format::Common => self.common(entry, out),
            Format::Json => self.json(entry, out),
            Format::Text => self.text(entry, out),
        }
        out.push(b'\n');
    }

    fn json(&mut self, e: &Entry<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        self.stamp.write(e.unix_nanos, out);
        out.extend_from_slice(b"\",\"status\":");
        push_integer(out, u64::from(e.shown_status()));
        out.extend_from_slice(b",\"outcome\":\"");
        out.extend_from_slice(e.ending.as_str().as_bytes());
        out.extend_from_slice(b"\",\"phase\":\"");
        out.extend_from_slice(e.phase.as_str().as_bytes());
        out.push(b'"');
        if let Some(reason) = e.reason {
            out.extend_from_slice(b",\"reason\":\"");
            out.extend_from_slice(reason.as_str().as_bytes());
            out.extend_from_slice(b"\",\"who\":\"");
            out.extend_from_slice(reason.who().as_str().as_bytes());
            out.push(b'"');
        }
        if let Some(client) = e.client {
            out.extend_from_slice(b",\"client\":\"");
            push_ip(out, client);
            out.push(b'"');
        }
        if let Some(peer) = e.peer {
            out.extend_from_slice(b",\"peer\":\"");
            push_socket(out, peer);
            out.push(b'"');
        }
        string(b",\"listener\":\"", e.listener.as_bytes(), MAX_NAME, out);
        string(b",\"method\":\"", e.method, MAX_METHOD, out);
        string(b",\"host\":\"", e.host, MAX_HOST, out);
        string(b",\"target\":\"", e.target, MAX_TARGET, out);
        string(
            b",\"protocol\":\"",
            e.protocol.as_bytes(),
            MAX_PROTOCOL,
            out,
        );
        string(b",\"route\":\"", e.route.as_bytes(), MAX_NAME, out);
        string(b",\"upstream\":\"", e.upstream.as_bytes(), MAX_NAME, out);
        string(b",\"endpoint\":\"", e.endpoint.as_bytes(), MAX_NAME, out);
        out.extend_from_slice(b",\"attempts\":");
        push_integer(out, u64::from(e.attempts));
        out.extend_from_slice(b",\"bytes_in\":");
        push_integer(out, e.bytes_in);
        out.extend_from_slice(b",\"bytes_out\":");
        push_integer(out, e.bytes_out);
        moment(b",\"head_ms\":", e.timings.head, out);
        moment(b",\"picked_ms\":", e.timings.picked, out);
        moment(b",\"connected_ms\":", e.timings.connected, out);
        moment(b",\"first_byte_ms\":", e.timings.first_byte, out);
        moment(b",\"total_ms\":", Some(e.timings.total), out);
        if e.tunnel {
            out.extend_from_slice(b",\"tunnel\":true");
        }
        string(b",\"request_id\":\"", e.request_id, MAX_REQUEST_ID, out);
        string(b",\"user_agent\":\"", e.user_agent, MAX_USER_AGENT, out);
        string(b",\"referer\":\"", e.referer, MAX_REFERER, out);
        out.push(b'}');
    }

    /// `%h %l %u %t "%r" %>s %b` of Apache's mod_log_config.
    fn common(&mut self, e: &Entry<'_>, out: &mut Vec<u8>) {
        match e.client {
            Some(client) => push_ip(out, client),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" - - [");
        self.stamp.write(e.unix_nanos, out);
        out.extend_from_slice(b"] \"");
        request_line(e, out);
        out.extend_from_slice(b"\" ");
        status(e.shown_status(), out);
        out.push(b' ');
        match e.bytes_out {
            0 => out.push(b'-'),
            n => push_integer(out, n),
        }
    }

    /// Common, then `"%{Referer}i" "%{User-agent}i"`.
    fn combined(&mut self, e: &Entry<'_>, out: &mut Vec<u8>) {
        self.common(e, out);
        for (text, max) in [(e.referer, MAX_REFERER), (e.user_agent, MAX_USER_AGENT)] {
            out.extend_from_slice(b" \"");
            if text.is_empty() {
                out.push(b'-');
            }
            clip(text, max, out, escape::apache);
            out.push(b'"');
        }
    }

    fn text(&mut self, e: &Entry<'_>, out: &mut Vec<u8>) {
        self.stamp.write(e.unix_nanos, out);
        out.push(b' ');
        match e.client {
            Some(client) => push_ip(out, client),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" \"");
        match e.protocol {
            // There is no request in it; who reads this looks for what it is.
            "TCP" | "UDP" => out.extend_from_slice(e.protocol.as_bytes()),
            _ => request_line(e, out),
        }
        out.extend_from_slice(b"\" ");
        status(e.shown_status(), out);
        out.push(b' ');
        milliseconds(e.timings.total, out);
        out.extend_from_slice(b"ms outcome=");
        out.extend_from_slice(e.ending.as_str().as_bytes());
        out.extend_from_slice(b" phase=");
        out.extend_from_slice(e.phase.as_str().as_bytes());
        if let Some(reason) = e.reason {
            out.extend_from_slice(b" reason=");
            out.extend_from_slice(reason.as_str().as_bytes());
            out.extend_from_slice(b" who=");
            out.extend_from_slice(reason.who().as_str().as_bytes());
        }
        pair(b" host=", e.host, MAX_HOST, out);
        pair(b" listener=", e.listener.as_bytes(), MAX_NAME, out);
        pair(b" route=", e.route.as_bytes(), MAX_NAME, out);
        pair(b" upstream=", e.upstream.as_bytes(), MAX_NAME, out);
        pair(b" endpoint=", e.endpoint.as_bytes(), MAX_NAME, out);
        out.extend_from_slice(b" attempts=");
        push_integer(out, u64::from(e.attempts));
        out.extend_from_slice(b" bytes_in=");
        push_integer(out, e.bytes_in);
        out.extend_from_slice(b" bytes_out=");
        push_integer(out, e.bytes_out);
        moment(b" first_byte_ms=", e.timings.first_byte, out);
        if e.tunnel {
            out.extend_from_slice(b" tunnel=true");
        }
        pair(b" request_id=", e.request_id, MAX_REQUEST_ID, out);
    }
}

/// A JSON member, or nothing for an empty text. Always inlined: a key of known length is stored, one of
/// any length is a call.
#[inline(always)]
fn string(key: &[u8], text: &[u8], max: usize, out: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    clip(text, max, out, escape::json);
    out.push(b'"');
}

/// `key=value`, or nothing for an empty text.
fn pair(key: &[u8], text: &[u8], max: usize, out: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    clip(text, max, out, escape::token);
}

#[inline]
fn clip(text: &[u8], max: usize, out: &mut Vec<u8>, escape: impl Fn(&[u8], &mut Vec<u8>)) {
    match text.get(..max) {
        Some(head) if text.len() > max => {
            escape(head, out);
            out.extend_from_slice(CLIPPED);
        }
        _ => escape(text, out),
    }
}

/// `METHOD target protocol`; `-` when no head was read, as Apache has it. A space within method or
/// target is escaped: the line always has the parts it shows.
fn request_line(e: &Entry<'_>, out: &mut Vec<u8>) {
    if e.method.is_empty() {
        out.push(b'-');
        return;
    }
    clip(e.method, MAX_METHOD, out, escape::token);
    out.push(b' ');
    clip(e.target, MAX_TARGET, out, escape::token);
    if !e.protocol.is_empty() {
        out.push(b' ');
        clip(e.protocol.as_bytes(), MAX_PROTOCOL, out, escape::token);
    }
}

/// Three digits, `000` when there was no response: what parsers of the Apache formats expect.
fn status(status: u16, out: &mut Vec<u8>) {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status)]);
}

#[inline(always)]
fn moment(key: &[u8], at: Option<Nanos>, out: &mut Vec<u8>) {
    let Some(at) = at else { return };
    out.extend_from_slice(key);
    milliseconds(at, out);
}

/// Milliseconds with three decimals.
#[inline]
fn milliseconds(nanos: Nanos, out: &mut Vec<u8>) {
    let us = nanos / 1000;
    push_integer(out, us / 1000);
    let rest = (us % 1000) as u32;
    let digit = |n: u32| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

#[cfg(test)]
mod tests;
