//! What a connection begins with, before anything is served on it: whom it comes from, and what it speaks.
//!
//! ```text
//! 1 the PROXY protocol, if its listener takes it: from those whom it names, and then always
//! 2 TLS or not, for whom, and what it offers, if its listener tells connections apart
//!   -> passed through, opened here, served as HTTP, passed on as something else
//! 3 TLS, if it ends here                         -> handshake.rs
//! ```
//!
//! The first bytes are looked at where they lie, in the kernel, and only a header of the PROXY protocol is
//! taken: whoever serves the connection then reads all that its client sent.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::base::clock::{Nanos, nanos};
use crate::base::proxy_protocol::{self, Parsed, Transport, V2_MAX};
use crate::base::tls::{ClientHello, HELLO_MAX, Peeked, alert, looks_like_http, peek};
use crate::config::{Detect, Passthrough, ProxyProtocol, Serves};
use crate::route::HostPattern;
use crate::telemetry::reason::Reason;
use crate::upstream::Upstream;

use super::flow::{self, FlowExchange};
use super::h1::{Conn, Greeted, Next};
use super::handshake::handshake;
use super::pump::Start;
use super::snapshot::ListenerPlan;
use super::tcp::{self, Passage};
use super::worker::{Phase, Worker};

/// What a connection turned out to begin with.
enum Begins {
    Tls(ClientHello),
    Http,
    /// Nothing, for as long as is waited.
    Nothing,
    Other,
    /// TLS that is none; why.
    Broken(&'static str),
}

/// What becomes of a connection.
enum Verdict {
    /// It is passed on as it is.
    Pass(Passage),
    /// Its listener serves it as it always does.
    Serve,
    /// It speaks HTTP without TLS, and may.
    ClearText,
    /// It is closed; why, and which alert its client is told.
    Refuse(Reason, String, Option<u8>),
}

/// Why a wait for first bytes ended without them.
enum Unheard {
    Late,
    Gone,
}

/// Alerts (RFC 8446 section 6).
const DECODE_ERROR: u8 = 50;
const UNRECOGNIZED_NAME: u8 = 112;

/// Whether connections of `listener` are served by what they begin with.
pub(super) fn is_needed(listener: &ListenerPlan) -> bool {
    listener.tls.is_some() || listener.spec.proxy_protocol.is_some() || tells_apart(listener)
}

/// Whether the first bytes decide what becomes of a connection.
pub(super) fn tells_apart(listener: &ListenerPlan) -> bool {
    !listener.layer4.passthrough.is_empty() || listener.spec.detect.is_some()
}

/// Finds out what a connection is: itself, and what is to become of it. `None` = there is nobody left.
pub(super) async fn greet(
    mut conn: Conn,
    worker: Rc<Worker>,
    listener: Arc<ListenerPlan>,
) -> Greeted {
    if let Some(spec) = &listener.spec.proxy_protocol
        && let Err(why) = Box::pin(take_header(&mut conn, &worker, spec)).await
    {
        refuse(conn, &worker, &listener, Reason::ProxyProtocol, &why);
        return None;
    }
    if !tells_apart(&listener) {
        return Box::pin(serve(conn, worker, &listener)).await;
    }
    let begins = match Box::pin(look(&mut conn, &worker, &listener)).await {
        Ok(begins) => begins,
        Err(Unheard::Gone) => return None,
        Err(Unheard::Late) => Begins::Nothing,
    };
    match decide(&listener, begins) {
        Verdict::Pass(passage) => Some((conn, Next::Passage(Box::new(passage)))),
        Verdict::Serve => Box::pin(serve(conn, worker, &listener)).await,
        Verdict::ClearText => Some(await_request(conn, &worker, &listener)),
        Verdict::Refuse(reason, why, description) => {
            if let Some(description) = description {
                // Whether it hears it or not, it is closed.
                let _ = conn.stream.write_now(&alert(description));
            }
            refuse(conn, &worker, &listener, reason, &why);
            None
        }
    }
}

/// What becomes of a connection that begins like this.
fn decide(listener: &ListenerPlan, begins: Begins) -> Verdict {
    let serves_http = matches!(listener.spec.serves, Serves::Http);
    let takes_clear_text = serves_http
        && (listener.tls.is_none() || listener.spec.detect.as_ref().is_some_and(|d| d.http));
    match begins {
        Begins::Tls(hello) => decide_tls(listener, hello),
        Begins::Http if takes_clear_text => Verdict::ClearText,
        // A port that speaks TLS says so itself.
        Begins::Http if serves_http => Verdict::Serve,
        Begins::Nothing | Begins::Http | Begins::Other => {
            if let Some(upstream) = other(listener) {
                return Verdict::Pass(Passage::new(upstream, None, Start::Copying));
            }
            let (reason, why) = match begins {
                Begins::Nothing => (Reason::HeaderTimeout, "it said nothing in time"),
                // As what it is not, for the client to be told.
                _ if serves_http => return Verdict::Serve,
                _ => (
                    Reason::UnknownProtocol,
                    "it begins with nothing that is served here",
                ),
            };
            Verdict::Refuse(reason, why.to_owned(), None)
        }
        Begins::Broken(why) => Verdict::Refuse(
            Reason::UnknownProtocol,
            format!("its ClientHello is wrong: {why}"),
            Some(DECODE_ERROR),
        ),
    }
}

fn decide_tls(listener: &ListenerPlan, hello: ClientHello) -> Verdict {
    let to = match through(listener, &hello) {
        None if listener.tls.is_some() => return Verdict::Serve,
        found => found.or(listener.layer4.upstream.as_ref()),
    };
    if let Some(upstream) = to {
        return Verdict::Pass(Passage::new(upstream, hello.server_name, Start::Splicing));
    }
    let asked = hello.server_name.as_deref().unwrap_or("no name");
    let why = format!("`passthrough` has nothing for {asked}");
    Verdict::Refuse(Reason::Misdirected, why, Some(UNRECOGNIZED_NAME))
}

/// What its listener speaks, from the first byte on.
async fn serve(conn: Conn, worker: Rc<Worker>, listener: &ListenerPlan) -> Greeted {
    let (conn, next) = if let Some(tls) = &listener.tls {
        handshake(conn, worker, tls.clone()).await?
    } else {
        await_request(conn, &worker, listener)
    };
    match (&listener.layer4.upstream, next) {
        (Some(upstream), Next::Idle) => {
            let passage = Passage::new(upstream, None, Start::Copying);
            Some((conn, Next::Passage(Box::new(passage))))
        }
        (_, next) => Some((conn, next)),
    }
}

fn await_request(conn: Conn, worker: &Worker, listener: &ListenerPlan) -> (Conn, Next) {
    let deadline = worker.clock.now() + listener.header_timeout;
    conn.timer.arm(deadline);
    (conn, Next::Idle)
}

/// Whom what is neither TLS nor HTTP goes to.
fn other(listener: &ListenerPlan) -> Option<&Arc<Upstream>> {
    let layer4 = &listener.layer4;
    // TLS that ends here is for the upstream; what comes without is not, unless it is said.
    let default = layer4.upstream.as_ref().filter(|_| listener.tls.is_none());
    layer4.other.as_ref().or(default)
}

/// Whom TLS goes to that is not opened here.
fn through<'l>(listener: &'l ListenerPlan, hello: &ClientHello) -> Option<&'l Arc<Upstream>> {
    let entries = listener.layer4.passthrough.iter();
    let mut matching = entries.filter(|(entry, _)| fits(entry, hello));
    matching.next().map(|(_, upstream)| upstream)
}

fn fits(entry: &Passthrough, hello: &ClientHello) -> bool {
    let has_name = |name: &str| entry.sni.iter().any(|pattern| names(pattern, name));
    let has_sni = entry.sni.is_empty() || hello.server_name.as_deref().is_some_and(has_name);
    let offers = |protocol: &String| hello.alpn.iter().any(|a| a == protocol.as_bytes());
    has_sni && (entry.alpn.is_empty() || entry.alpn.iter().any(offers))
}

/// Whether `pattern` is for `name`, which is in lower case and has no final dot.
fn names(pattern: &HostPattern, name: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => exact.trim_end_matches('.').eq_ignore_ascii_case(name),
        HostPattern::Wildcard(suffix) => {
            let suffix = suffix.trim_end_matches('.');
            let Some(front) = name.len().checked_sub(suffix.len()) else {
                return false;
            };
            let (labels, rest) = name.split_at(front);
            suffix.is_empty()
                || (labels.len() > 1 && labels.ends_with('.') && rest.eq_ignore_ascii_case(suffix))
        }
    }
}

/// Takes the header of the PROXY protocol from the connection, whose peer is from then on who it says.
async fn take_header(conn: &mut Conn, worker: &Worker, spec: &ProxyProtocol) -> Result<(), String> {
    if let Some(peer) = conn.peer
        && !is_from(spec, peer.ip())
    {
        return Err(format!("{} is not in `proxy_protocol.from`", peer.ip()));
    }
    let now = worker.clock.now();
    conn.timer.arm(now + nanos(spec.timeout));
    let mut bytes = worker.buffers.take();
    let mut needed = 1;
    let found = poll_fn(|cx| {
        loop {
            let room = bytes.spare();
            let most = room.len().min(V2_MAX);
            let known = needed - 1;
            match conn.stream.poll_peek(cx, &mut room[..most], known) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(format!("it has gone: {e}"))),
                Poll::Ready(Ok(n)) if n <= known => {
                    return Poll::Ready(Err("it ended within the header".to_owned()));
                }
                Poll::Ready(Ok(n)) => {
                    match proxy_protocol::parse(&room[..n], Transport::Stream) {
                        // What is there now says nothing new; more must come.
                        Ok(Parsed::More(_)) => needed = n + 1,
                        Ok(Parsed::Header(header)) => return Poll::Ready(Ok(header)),
                        Err(malformed) => return Poll::Ready(Err(malformed.to_string())),
                    }
                }
            }
        }
        match waited(conn, cx) {
            Some(Unheard::Late) => Poll::Ready(Err("the header did not come in time".to_owned())),
            Some(Unheard::Gone) => Poll::Ready(Err("the listener is closing".to_owned())),
            None => Poll::Pending,
        }
    })
    .await;
    worker.buffers.put(bytes);
    let header = found?;
    let taken = conn.stream.take_peeked(header.len);
    taken.map_err(|e| format!("it has gone: {e}"))?;
    if let Some(addresses) = header.addresses {
        conn.peer = Some(addresses.source);
    }
    conn.proxied = Some(Rc::from(header));
    Ok(())
}

fn is_from(spec: &ProxyProtocol, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    spec.from.iter().any(|network| network.contains(&peer))
}

/// Whether a wait for first bytes is over.
fn waited(conn: &Conn, cx: &std::task::Context<'_>) -> Option<Unheard> {
    if conn.timer.has_expired(cx) {
        return Some(Unheard::Late);
    }
    (conn.life.phase() >= Phase::Draining).then_some(Unheard::Gone)
}

/// Looks at what the connection begins with, for as long as `detect.timeout` says.
async fn look(
    conn: &mut Conn,
    worker: &Worker,
    listener: &ListenerPlan,
) -> Result<Begins, Unheard> {
    let timeout = match &listener.spec.detect {
        Some(detect) => detect.timeout,
        None => Detect::default().timeout,
    };
    // Without anybody else who may be meant a client has the time that it has anyway.
    let patience: Nanos = match other(listener) {
        Some(_) => nanos(timeout),
        None => nanos(timeout).max(listener.header_timeout),
    };
    conn.timer.arm(worker.clock.now() + patience);
    let mut bytes = worker.buffers.take();
    let mut known = 0;
    let found = poll_fn(|cx| {
        loop {
            let room = bytes.spare();
            let most = room.len().min(HELLO_MAX);
            match conn.stream.poll_peek(cx, &mut room[..most], known) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Unheard::Gone)),
                // All that will come: what it is must be seen by that.
                Poll::Ready(Ok(n)) if n <= known => {
                    let begins = if n == 0 {
                        Err(Unheard::Gone)
                    } else {
                        Ok(Begins::Other)
                    };
                    return Poll::Ready(begins);
                }
                Poll::Ready(Ok(n)) => {
                    known = n;
                    match tell(&room[..n], n == most) {
                        Some(begins) => return Poll::Ready(Ok(begins)),
                        None if n == most => return Poll::Ready(Ok(Begins::Other)),
                        None => {}
                    }
                }
            }
        }
        match waited(conn, cx) {
            // A word that is not finished is no HTTP and no TLS.
            Some(Unheard::Late) if known > 0 && other(listener).is_some() => {
                Poll::Ready(Ok(Begins::Other))
            }
            Some(unheard) => Poll::Ready(Err(unheard)),
            None => Poll::Pending,
        }
    })
    .await;
    worker.buffers.put(bytes);
    found
}

/// What `bytes` are the beginning of; `None` = more of them are needed.
fn tell(bytes: &[u8], is_full: bool) -> Option<Begins> {
    match peek(bytes, is_full) {
        Peeked::More => None,
        Peeked::Client(hello) => Some(Begins::Tls(hello)),
        Peeked::NotTls if looks_like_http(bytes)? => Some(Begins::Http),
        Peeked::NotTls => Some(Begins::Other),
        Peeked::Malformed(why) => Some(Begins::Broken(why)),
        Peeked::TooLong => Some(Begins::Broken("it is longer than 16 KiB")),
    }
}

/// Ends a connection that is not served, and tells why where somebody looks.
fn refuse(conn: Conn, worker: &Worker, listener: &Arc<ListenerPlan>, reason: Reason, why: &str) {
    let now = worker.clock.now();
    if worker.may_log(now) {
        let client = conn.peer.map(tracing::field::display::<SocketAddr>);
        tracing::info!(
            listener = %listener.spec.name, client, reason = reason.as_str(), why,
            "a connection was refused"
        );
    }
    let x = FlowExchange::begin(listener.clone(), flow::Transport::Tcp, conn.peer, now);
    tcp::refuse(conn, worker, x, reason);
}
