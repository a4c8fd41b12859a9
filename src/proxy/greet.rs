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
//! taken: whoever serves the connection then reads all that its client sent. A buffer is lent for the look
//! alone: a client that says nothing, or a little, costs its task and its socket.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::base::clock::nanos;
use crate::base::proxy_protocol::{self, Parsed, Transport, V2_MAX};
use crate::base::tls::{ClientHello, Peeked, alert, looks_like_http, peek};
use crate::config::{Detect, Passthrough, ProxyProtocol, Serves};
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
    /// Nothing that says what it is, for as long as is waited.
    Nothing,
    /// A part of a ClientHello, for as long as is waited.
    Unfinished,
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
    /// It is closed.
    Refuse(Refusal),
}

/// Why a connection is closed.
struct Refusal {
    reason: Reason,
    why: String,
    /// The name that it asked for.
    name: Option<String>,
    /// The alert that its client is told.
    alert: Option<u8>,
}

/// Why a wait for first bytes ended without enough of them.
enum Unheard {
    /// Time is up.
    Late,
    /// Its listener closes.
    Closing,
    /// Its client says no more.
    Ended,
    /// The connection is no more.
    Gone(io::Error),
}

/// Alerts (RFC 8446 section 6).
const DECODE_ERROR: u8 = 50;
const UNRECOGNIZED_NAME: u8 = 112;

/// Whether connections of `listener` are served by what they begin with.
pub(super) fn is_needed(listener: &ListenerPlan) -> bool {
    listener.tls.is_some() || listener.spec.proxy_protocol.is_some() || tells_apart(listener)
}

/// Whether connections of `listener` are passed on as they are, whatever they begin with.
pub fn passes_on(listener: &ListenerPlan) -> bool {
    listener.layer4.upstream.is_some() && !is_needed(listener)
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
        && let Err(why) = take_header(&mut conn, &worker, spec).await
    {
        let refusal = Refusal::new(Reason::ProxyProtocol, why);
        return refuse(conn, &worker, &listener, refusal);
    }
    if !tells_apart(&listener) {
        return Box::pin(serve(conn, worker, &listener)).await;
    }
    let begins = look(&mut conn, &worker, &listener).await?;
    match decide(&listener, begins) {
        Verdict::Pass(passage) => Some((conn, Next::Passage(Box::new(passage)))),
        Verdict::Serve => Box::pin(serve(conn, worker, &listener)).await,
        Verdict::ClearText => Some(await_request(conn, &worker, &listener)),
        Verdict::Refuse(refusal) => refuse(conn, &worker, &listener, refusal),
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
                return Verdict::Pass(Passage::looked_at(upstream, None, Start::Copying));
            }
            let (reason, why) = match begins {
                Begins::Nothing => (
                    Reason::HeaderTimeout,
                    "it did not say in time what it speaks",
                ),
                // As what it is not, for the client to be told.
                _ if serves_http => return Verdict::Serve,
                _ => (
                    Reason::UnknownProtocol,
                    "it begins with nothing that is served here",
                ),
            };
            Verdict::Refuse(Refusal::new(reason, why))
        }
        Begins::Unfinished => {
            let why = "its ClientHello was not complete in time";
            Verdict::Refuse(Refusal::new(Reason::HeaderTimeout, why))
        }
        Begins::Broken(why) => Verdict::Refuse(Refusal {
            alert: Some(DECODE_ERROR),
            ..Refusal::new(
                Reason::UnknownProtocol,
                format!("its ClientHello is wrong: {why}"),
            )
        }),
    }
}

fn decide_tls(listener: &ListenerPlan, hello: ClientHello) -> Verdict {
    let to = match through(listener, &hello) {
        None if listener.tls.is_some() => return Verdict::Serve,
        found => found.or(listener.layer4.upstream.as_ref()),
    };
    if let Some(upstream) = to {
        let name = hello.server_name;
        return Verdict::Pass(Passage::looked_at(upstream, name, Start::Splicing));
    }
    let asked = hello.server_name.as_deref().unwrap_or("no name");
    let why = format!("`passthrough` has nothing for {asked}");
    Verdict::Refuse(Refusal {
        name: hello.server_name,
        alert: Some(UNRECOGNIZED_NAME),
        ..Refusal::new(Reason::Misdirected, why)
    })
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
            let passage = Passage::new(upstream);
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
    let has_name = |name: &str| entry.sni.iter().any(|pattern| pattern.covers(name));
    let has_sni = entry.sni.is_empty() || hello.server_name.as_deref().is_some_and(has_name);
    let offers = |protocol: &String| hello.alpn.iter().any(|a| a == protocol.as_bytes());
    has_sni && (entry.alpn.is_empty() || entry.alpn.iter().any(offers))
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
    let mut known = 0;
    let found = poll_fn(|cx| {
        poll_first(
            cx,
            conn,
            worker,
            V2_MAX,
            &mut known,
            |bytes, _| match proxy_protocol::parse(bytes, Transport::Stream) {
                Ok(Parsed::More(_)) => None,
                Ok(Parsed::Header(header)) => Some(Ok(header)),
                Err(malformed) => Some(Err(malformed.to_string())),
            },
        )
    })
    .await;
    let header = found.unwrap_or_else(|unheard| {
        Err(match unheard {
            Unheard::Late => "the header did not come in time".to_owned(),
            Unheard::Closing => "the listener is closing".to_owned(),
            Unheard::Ended => "it ended within the header".to_owned(),
            Unheard::Gone(e) => format!("it has gone: {e}"),
        })
    })?;
    let taken = conn.stream.take_peeked(header.len);
    taken.map_err(|e| format!("it has gone: {e}"))?;
    if known == header.len {
        // It came alone, and what it announces waits for its acknowledgement.
        conn.stream.acknowledge();
    }
    if let Some(addresses) = header.addresses {
        conn.peer = Some(addresses.source);
    }
    conn.proxied = Some(Rc::from(header));
    Ok(())
}

fn is_from(spec: &ProxyProtocol, peer: IpAddr) -> bool {
    spec.from.iter().any(|network| network.contains(&peer))
}

/// Shows `judge` the first bytes, at most `most` of them and whether there is no room for more, each time
/// that there are more than `known`, until it has seen enough.
fn poll_first<T>(
    cx: &mut Context<'_>,
    conn: &mut Conn,
    worker: &Worker,
    most: usize,
    known: &mut usize,
    mut judge: impl FnMut(&[u8], bool) -> Option<T>,
) -> Poll<Result<T, Unheard>> {
    // Most wait here for their client: no buffer is held meanwhile.
    while conn.stream.poll_readable(cx).is_ready() {
        let mut bytes = worker.buffers.take();
        let room = bytes.spare();
        let most = most.min(room.len());
        let polled = conn.stream.poll_peek(cx, &mut room[..most], *known);
        let seen = match polled {
            Poll::Ready(Ok(n)) if n > *known => {
                *known = n;
                match judge(&room[..n], n == most) {
                    Some(judged) => Some(Ok(judged)),
                    // What is there now says nothing new; more must come.
                    None if n < most => None,
                    None => Some(Err(Unheard::Ended)),
                }
            }
            Poll::Ready(Ok(_)) => Some(Err(Unheard::Ended)),
            Poll::Ready(Err(e)) => Some(Err(Unheard::Gone(e))),
            Poll::Pending => None,
        };
        worker.buffers.put(bytes);
        if let Some(seen) = seen {
            return Poll::Ready(seen);
        }
    }
    if conn.timer.has_expired(cx) {
        return Poll::Ready(Err(Unheard::Late));
    }
    if conn.life.phase() >= Phase::Draining {
        return Poll::Ready(Err(Unheard::Closing));
    }
    Poll::Pending
}

/// Looks at what the connection begins with, for as long as `detect.timeout` says. `None` = there is nobody
/// left.
async fn look(conn: &mut Conn, worker: &Worker, listener: &ListenerPlan) -> Option<Begins> {
    let timeout = match &listener.spec.detect {
        Some(detect) => nanos(detect.timeout),
        None => nanos(Detect::default().timeout),
    };
    let began = worker.clock.now();
    let whole = began + timeout.max(listener.header_timeout);
    // Without anybody else who may be meant a client has the time that it has anyway.
    conn.timer.arm(match other(listener) {
        Some(_) => began + timeout,
        None => whole,
    });
    let mut known = 0;
    let mut is_tls = false;
    let found = poll_fn(|cx| {
        let was_tls = is_tls;
        let polled = poll_first(
            cx,
            conn,
            worker,
            usize::MAX,
            &mut known,
            |bytes, is_full| {
                let begins = tell(bytes, is_full);
                is_tls = begins.is_none() && is_record(bytes);
                begins
            },
        );
        if polled.is_pending() && is_tls && !was_tls {
            // What it is has been told. The rest of it is nobody else's, however late.
            conn.timer.arm(whole);
        }
        polled
    })
    .await;
    match found {
        Ok(begins) => Some(begins),
        Err(Unheard::Late) if is_tls => Some(Begins::Unfinished),
        Err(Unheard::Late) => Some(Begins::Nothing),
        Err(Unheard::Ended) if is_tls => Some(Begins::Broken("it ended within it")),
        Err(Unheard::Ended) if known > 0 => Some(Begins::Other),
        Err(Unheard::Ended | Unheard::Closing | Unheard::Gone(_)) => None,
    }
}

/// Whether `bytes`, which may yet be a ClientHello, are so many that nothing else begins with them.
fn is_record(bytes: &[u8]) -> bool {
    matches!(bytes, [22, 3, _, ..])
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
fn refuse(conn: Conn, worker: &Worker, listener: &Arc<ListenerPlan>, refusal: Refusal) -> Greeted {
    let Refusal {
        reason,
        why,
        name,
        alert: description,
    } = refusal;
    let now = worker.clock.now();
    if worker.may_log(now) {
        let client = conn.peer.map(tracing::field::display::<SocketAddr>);
        tracing::info!(
            listener = %listener.spec.name, client, reason = reason.as_str(), why,
            "a connection was refused"
        );
    }
    let mut x = FlowExchange::begin(listener.clone(), flow::Transport::Tcp, conn.peer, now);
    x.name = name.map(Into::into);
    let is_told =
        description.is_some_and(|description| conn.stream.write_now(&alert(description)).is_ok());
    if !is_told {
        tcp::refuse(conn, worker, x, reason);
        return None;
    }
    x.reason = Some(reason);
    x.record(worker, now);
    // The reset for what is not read would cost it the alert.
    Some((conn, Next::Linger))
}

// === impl Refusal ===

impl Refusal {
    fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self {
            reason,
            why: why.into(),
            name: None,
            alert: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What a connection costs that says nothing, beside its task: a client may have thousands of them.
    #[test]
    fn waiting_for_first_bytes_takes_little_memory() {
        let greeting = size(greet);
        assert!(greeting <= 3 * size_of::<Conn>(), "{greeting}");
        assert!(greeting <= 512, "{greeting}, {}", size_of::<Conn>());
    }
}
