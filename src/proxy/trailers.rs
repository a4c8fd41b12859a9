//! Which trailers of one message pass: what its head may not carry on, its trailers may not either.
//!
//! What no trailer may say ([`may_be_trailer`](crate::http1::may_be_trailer)) is dropped before. Here go
//! the names that this listener and this route take out of heads: otherwise a client would say behind its
//! body what it may not say before it, to programs that merge trailers into the head.

use http::HeaderName;

use crate::config::{self, ClientHeaders, HeaderEdits};
use crate::http1::{Field, FieldId};

use super::{forwarded, headers};

/// The rules for the trailers of one message.
#[derive(Debug)]
pub(super) struct Trailers<'p> {
    edits: &'p HeaderEdits,
    direction: Direction,
    /// The values of the head's Connection fields, if they name any other field: RFC 9110 section
    /// 7.6.1 takes those away from trailers too. Copied, because a head need not outlive its body;
    /// empty, and so without memory, but for such rare heads.
    named: Vec<u8>,
}

#[derive(Debug)]
enum Direction {
    Request {
        /// The field that bears the request id.
        request_id: Option<HeaderName>,
        /// Those that speak of the client's certificate, if there are any.
        proof: Option<Box<ClientHeaders>>,
    },
    Response {
        /// The field that is for this proxy alone.
        hidden: Option<HeaderName>,
    },
}

// === impl Trailers ===

impl<'p> Trailers<'p> {
    /// Of a request with these fields.
    pub(super) fn of_request(
        edits: &'p HeaderEdits,
        listener: &config::Listener,
        fields: &[Field],
        buf: &[u8],
    ) -> Self {
        let request_id = listener.forwarding.request_id.clone();
        let proof = listener.tls.as_ref().map(|tls| &tls.client_headers);
        let proof = proof.filter(|told| told.names().next().is_some());
        let proof = proof.map(|names| Box::new(names.clone()));
        Self {
            edits,
            direction: Direction::Request { request_id, proof },
            named: named(fields, buf),
        }
    }

    /// Of a response with these fields.
    pub(super) fn of_response(
        edits: &'p HeaderEdits,
        hidden: Option<&HeaderName>,
        fields: &[Field],
        buf: &[u8],
    ) -> Self {
        let hidden = hidden.cloned();
        Self {
            edits,
            direction: Direction::Response { hidden },
            named: named(fields, buf),
        }
    }

    /// Whether a trailer of this name, which the codec lets pass, goes on.
    pub(super) fn pass(&self, name: &[u8]) -> bool {
        let is_taken = match &self.direction {
            Direction::Request { request_id, proof } => {
                let is_id = |n: &HeaderName| forwarded::is_folded(name, n.as_str());
                // Even a trusted proxy speaks for clients in heads only.
                forwarded::is_claim(name, false)
                    || proof
                        .as_ref()
                        .is_some_and(|p| headers::speaks_of_proof(p, name))
                    || request_id.as_ref().is_some_and(is_id)
                    || self.edits.replaces_folded(name)
            }
            Direction::Response { hidden } => {
                let is_it = |n: &HeaderName| name.eq_ignore_ascii_case(n.as_str().as_bytes());
                hidden.as_ref().is_some_and(is_it) || self.edits.replaces(name)
            }
        };
        !is_taken && !options(&self.named).any(|option| option.eq_ignore_ascii_case(name))
    }
}

/// The values of the Connection fields, joined, if any of their options may name a field.
fn named(fields: &[Field], buf: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields.iter().filter(|f| f.id == FieldId::Connection) {
        let value = field.value.of(buf);
        let names = |option: &[u8]| {
            let usual: [&[u8]; 4] = [b"close", b"keep-alive", b"te", b"upgrade"];
            !usual.iter().any(|u| option.eq_ignore_ascii_case(u))
        };
        if options(value).any(names) {
            out.extend_from_slice(value);
            out.push(b',');
        }
    }
    out
}

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    parts.filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::http1::{Limits, RequestHead};

    use super::*;

    fn listener() -> config::Listener {
        let text = "[listeners.a]\nbind = '127.0.0.1:1'\nupstream = 'b'\n[upstreams.b]\nendpoints = ['127.0.0.1:2']";
        let config = config::parse("a", text).unwrap().config;
        config.listeners.into_iter().next().unwrap()
    }

    fn passing(edits: &HeaderEdits, fields: &str, names: &[&str]) -> Vec<String> {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::new();
        head.parse(&text, &Limits::default()).unwrap();
        let id = HeaderName::from_static("x-id");
        let mut listener = listener();
        listener.forwarding.request_id = Some(id.clone());
        let trailers = Trailers::of_request(edits, &listener, &head.fields, &text);
        let pass = |name: &&&str| trailers.pass(name.as_bytes());
        names.iter().filter(pass).map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn names_that_the_head_may_not_have_do_not_pass_in_any_spelling() {
        let edits = HeaderEdits {
            set: vec![("x-set".parse().unwrap(), "v".parse().unwrap())],
            add: vec![("x-add".parse().unwrap(), "v".parse().unwrap())],
            remove: vec!["x-env-user".parse().unwrap()],
        };
        let names = [
            "X-Id",
            "x_id",
            "X-Set",
            "X-Add",
            "X_Env_User",
            "x-env-user",
            "x_forwarded_for",
            "x-sum",
        ];
        assert_eq!(passing(&edits, "", &names), ["X-Add", "x-sum"]);
    }

    #[test]
    fn names_in_connection_do_not_pass() {
        let edits = HeaderEdits::default();
        let fields = "Connection: close, X-Hop\r\nConnection: te\r\nConnection: ,x-two ,\r\n";
        let names = ["x-hop", "X-Two", "close", "x-end"];
        assert_eq!(passing(&edits, fields, &names), ["x-end"]);
        let usual = "Connection: keep-alive, TE\r\n";
        assert_eq!(passing(&edits, usual, &names), names);
    }

    #[test]
    fn a_response_answers_to_its_own_edits_alone() {
        let edits = HeaderEdits {
            remove: vec!["x-secret".parse().unwrap()],
            ..HeaderEdits::default()
        };
        let trailers = Trailers::of_response(&edits, None, &[], b"");
        assert!(!trailers.pass(b"X-Secret"));
        assert!(trailers.pass(b"x_secret"), "no browser folds names");
        assert!(trailers.pass(b"x-sum"));
    }
}
