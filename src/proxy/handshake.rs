//! The TLS handshake with a client: before it nothing is said, and after it the protocol is known.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls::{HandshakeKind, ProtocolVersion};

use crate::base::buffer::Buffer;
use crate::base::clock::nanos;
use crate::base::stream::Stream;
use crate::base::tls::{
    Handshake, TlsServer, TlsStream, TlsVersion, failure_in_words, handshake_failure, identity,
};
use crate::config::Serves;
use crate::telemetry::reason::Reason;

use super::h1::{Conn, Greeted, Next};
use super::turn_away;
use super::worker::{Phase, Worker};

/// The protocol's name in ALPN (RFC 9113 section 3.1).
const H2: &[u8] = b"h2";

/// Agrees on TLS with a client: the connection, and what is to become of it; [`Next::Idle`] = its
/// requests are awaited. `None` = there is nobody left.
pub(super) async fn handshake(conn: Conn, worker: Rc<Worker>, tls: Arc<TlsServer>) -> Greeted {
    let snapshot = worker.snapshot_for(conn.life.slot)?;
    let listener = snapshot.listener(conn.life.slot)?;
    let spec = listener.spec.tls.as_ref()?;
    let cells = listener.cells.worker(worker.index);
    let began = worker.clock.now();
    conn.timer.arm(began + nanos(spec.handshake_timeout));
    let Conn {
        stream,
        timer,
        peer,
        life,
        ended,
        expires,
        identity: _,
        proxied,
    } = conn;
    let stream = TlsStream::server(stream, tls.config(), worker.records.clone());
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(%error, listener = %listener.spec.name, "TLS cannot be served");
            return None;
        }
    };
    let shaken = poll_fn(|cx| {
        if let Poll::Ready(shaken) = stream.poll_handshake(cx, &worker.gate) {
            return Poll::Ready(shaken.map_err(|error| failure(&error)));
        }
        if timer.has_expired(cx) {
            let words = "it took longer than `handshake_timeout`".to_owned();
            return Poll::Ready(Err((Handshake::Timeout, words)));
        }
        if life.phase() >= Phase::Draining {
            let words = "the listener is closing".to_owned();
            return Poll::Ready(Err((Handshake::Closed, words)));
        }
        Poll::Pending
    })
    .await;
    let now = worker.clock.now();
    let mut conn = Conn {
        stream: Stream::Tls(Box::new(stream)),
        timer,
        peer,
        life,
        ended,
        expires,
        identity: None,
        proxied,
    };
    let Stream::Tls(stream) = &conn.stream else {
        return None;
    };
    if let Err((kind, words)) = shaken {
        cells.handshakes(kind).inc();
        // A port that is open to the world sees many of these.
        if worker.may_log(now) {
            let peer = conn.peer.map(tracing::field::display);
            tracing::info!(
                listener = %listener.spec.name, client = peer, result = kind.as_str(), why = %words,
                "TLS handshake failed"
            );
        }
        let is_alerted = matches!(
            kind,
            Handshake::Certificate
                | Handshake::NoProtocol
                | Handshake::Protocol
                | Handshake::Version
        );
        let speaks_http = matches!(listener.spec.serves, Serves::Http)
            && kind == Handshake::Plaintext
            && stream
                .first_bytes()
                .first()
                .is_some_and(u8::is_ascii_uppercase);
        if !speaks_http && !is_alerted {
            return None;
        }
        let Stream::Tls(stream) = conn.stream else {
            return None;
        };
        conn.stream = stream.into_socket();
        if is_alerted {
            // A client of TLS 1.3 that we refuse has sent its request already; the reset for what is
            // not read would cost it the alert, and with it the reason.
            return Some((conn, Next::Linger));
        }
        let told = turn_away::tell(&conn, &worker, snapshot.clone(), Reason::PlainHttp, true);
        return told.then_some((conn, Next::Linger));
    }
    let session = stream.session();
    cells
        .handshakes(
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                Handshake::Resumed
            } else {
                Handshake::Full
            },
        )
        .inc();
    cells.handshake_duration.observe(now.saturating_sub(began));
    let is_13 = session.protocol_version() != Some(ProtocolVersion::TLSv1_2);
    cells
        .tls_connections(if is_13 {
            TlsVersion::V13
        } else {
            TlsVersion::V12
        })
        .inc();
    let speaks_h2 = listener.spec.http2.is_some() && stream.protocol() == Some(H2);
    let are_told = spec.client_headers.names().next().is_some();
    if are_told && let Some(chain) = stream.peer_certificates() {
        conn.identity = identity(chain).map(Rc::new);
    }
    if is_13 && !tls.has_tickets() {
        // The client had the last word, and a ticket would have answered it.
        conn.stream.acknowledge();
    }
    conn.timer.arm(now + listener.header_timeout);
    let next = if speaks_h2 {
        Next::Http2(Box::new(Buffer::none()))
    } else {
        Next::Idle
    };
    Some((conn, next))
}

fn failure(error: &io::Error) -> (Handshake, String) {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
    {
        Some(error) => (handshake_failure(error), failure_in_words(error)),
        None => (Handshake::Closed, format!("the client has gone: {error}")),
    }
}
