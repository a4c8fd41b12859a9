//! The control API: JSON over HTTP on a Unix socket, for `isobar status`, `drain` and the like.
//!
//! ```text
//! connections  ->  peer (who)  ->  route (what)  ->  call (checked)  ->  lane (how many, how long)
//!                                                                  ->  run (done)  -> JSON | Problem
//! ```
//! What there is to ask is in `route.rs` and, for clients, in `openapi.json`, which a test keeps in
//! step. Whoever may use the socket can send traffic anywhere: see `peer.rs`.

mod call;
mod lane;
mod peer;
pub(super) mod problem;
pub(super) mod route;
mod run;

pub(crate) use route::encoded;

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use socket2::{Domain, SockAddr, Socket as Socket2, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::addr::BindAddr;
use crate::base::clock::Clock;
use crate::config::Config;
use crate::listener::handover::{Entry, Inherited, Kind};
use crate::listener::{BindError, Bound, bind_unix_with_mode};
use crate::runtime::operate::Operations;

use self::call::{Call, Given};
use self::lane::Lane;
use self::peer::{Allowed, Peer, server_uid};
use self::problem::Problem;
use self::run::Reply;
use super::connections::{self, Door, HEADER_TIMEOUT, Standing};

/// Largest body: the longest reason fits three hundred times.
const MAX_BODY: usize = 64 * 1024;

/// For the body of a request, once its head is there: all of them fit one segment.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions at once: some people, a dashboard, scripts that wait for a drain.
const READS: usize = 8;

/// Changes at once: they wait for each other anyway, and a queue that is longer than this is a
/// script that runs wild.
const CHANGES: usize = 4;

/// For one call, its wait for the one before included: a configuration of 10,000 routes is read and
/// swapped in a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The bound socket. When this is dropped, its file is removed, unless somebody listens there still:
/// a predecessor, a successor, or a [`Handle`].
#[derive(Debug)]
pub struct Socket {
    /// Closed before the file is looked at: fields are dropped in this order.
    listener: std::os::unix::net::UnixListener,
    file: File,
    allowed: Allowed,
}

/// What a successor needs of a socket.
#[derive(Debug)]
pub struct Handle {
    listener: std::os::unix::net::UnixListener,
    addr: BindAddr,
}

/// The file of a socket that several processes of an upgrade may hold: the last one removes it,
/// whichever that is, the successor that did not come up included.
#[derive(Debug)]
struct File(PathBuf);

/// Binds the socket that the configuration names, or takes it over; `None` if it names none. Clients
/// that connect from here on wait for [`serve`].
///
/// # Errors
/// The file cannot be made, or a live process listens there.
pub fn bind(
    config: &Config,
    inherited: Option<&mut Inherited>,
) -> Result<Option<Socket>, BindError> {
    let Some(path) = &config.admin.socket else {
        return Ok(None);
    };
    let server = server_uid(config.process.user.as_deref());
    let allowed = Allowed::new(&config.admin.allow_uids, server);
    let addr = BindAddr::Unix(path.clone());
    let taken = inherited.and_then(|i| i.bind(Kind::AdminUnix, &addr, 1));
    let taken = taken.transpose()?.map(Bound::into_parts);
    let (listener, file) = match taken {
        Some((mut sockets, Some(file))) if !sockets.is_empty() => {
            // Who is let in may have changed with the configuration. What makes this fail (a file
            // that is gone) leaves a socket that nobody finds, which is no reason not to serve.
            let mode = Permissions::from_mode(allowed.mode());
            if let Err(error) = std::fs::set_permissions(path, mode) {
                tracing::warn!(%error, "the mode of the control socket {} is as before", path.display());
            }
            (sockets.swap_remove(0).into(), file)
        }
        Some(_) | None => bind_unix_with_mode(path, allowed.mode())?,
    };
    // To whom it belongs says who may connect: the user that this process becomes, too. Without it
    // root can, so there is no reason not to serve.
    if let Err(error) = chown(path, Some(server), None) {
        tracing::warn!(%error, "the control socket {} belongs to root", path.display());
    }
    // Its rules are those of listeners, which know when they are the last.
    file.keep();
    Ok(Some(Socket {
        listener,
        file: File(path.clone()),
        allowed,
    }))
}

/// Serves until `stop` is cancelled, then lets answers in flight end and drops the socket. Cancel
/// safe: dropping it closes every connection.
///
/// # Errors
/// The socket cannot be used on this runtime; a failed accept or connection is none.
pub async fn serve(
    socket: Socket,
    operations: Operations,
    stop: CancellationToken,
) -> io::Result<()> {
    let Socket {
        listener,
        file: _file,
        allowed,
    } = socket;
    let door = Control {
        listener: UnixListener::from_std(listener)?,
        allowed,
        operations,
        reads: Lane::new(READS, CALL_TIMEOUT),
        changes: Lane::new(CHANGES, CALL_TIMEOUT),
    };
    connections::serve(door, stop, HEADER_TIMEOUT).await;
    Ok(())
}

type Outcome = Result<Reply, Problem>;

struct Control {
    listener: UnixListener,
    allowed: Allowed,
    operations: Operations,
    reads: Lane<Outcome>,
    changes: Lane<Outcome>,
}

// === impl Socket ===

impl Socket {
    /// A handle of it.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn handle(&self) -> io::Result<Handle> {
        Ok(Handle {
            listener: self.listener.try_clone()?,
            addr: BindAddr::Unix(self.file.0.clone()),
        })
    }
}

// === impl Handle ===

impl Handle {
    /// A copy of the descriptor for a successor, and what it is.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn copy(&self) -> io::Result<(Entry, OwnedFd)> {
        let entry = Entry {
            kind: Kind::AdminUnix,
            name: "admin".to_owned(),
            addr: self.addr.to_string(),
            count: 1,
            // Whether its file goes is found out when it closes.
            kept: 0,
        };
        Ok((entry, self.listener.try_clone()?.into()))
    }
}

// === impl File ===

impl Drop for File {
    fn drop(&mut self) {
        let is_dead = || -> io::Result<bool> {
            let socket = Socket2::new(Domain::UNIX, Type::STREAM, None)?;
            // A full queue would make it wait; that is a sign of life as well.
            socket.set_nonblocking(true)?;
            let connected = socket.connect(&SockAddr::unix(&self.0)?);
            Ok(connected.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused))
        };
        if is_dead().unwrap_or(false) {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

// === impl Control ===

impl Door for Control {
    type Stream = UnixStream;
    type Client = Peer;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _unnamed) = self.listener.accept().await?;
        let peer = Peer::of(&stream)?;
        Ok((stream, peer))
    }

    fn standing(&self, peer: Peer) -> Standing {
        if self.allowed.has(peer) {
            Standing::Allowed
        } else {
            Standing::Refused
        }
    }

    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.outcome(peer, request).await {
            Ok(reply) => reply.into_response(),
            Err(problem) => problem.into_response(),
        }
    }
}

impl Control {
    async fn outcome(&self, peer: Peer, request: Request<Incoming>) -> Outcome {
        // 1 who
        if !self.allowed.has(peer) {
            tracing::warn!(
                peer.uid,
                peer.pid,
                method = %request.method(),
                path = request.uri().path(),
                "admin socket: user is not allowed"
            );
            let detail = format!(
                "user {} may not use this socket; `allow_uids` in [admin] says who may",
                peer.uid
            );
            return Err(Problem::new(StatusCode::FORBIDDEN, "uid", detail));
        }
        // 2 what
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let found = route::find(&head.method, path).map_err(|miss| match miss {
            route::Miss::Method(allowed) => Problem::method(&allowed),
            route::Miss::Path => Problem::new(
                StatusCode::NOT_FOUND,
                "path",
                "nothing here; / lists what there is",
            ),
        })?;
        // 3 how
        let body = read_body(&head.headers, body, MAX_BODY).await?;
        let given = Given {
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            body: &body,
        };
        let call = Call::read(found, given, peer, Clock::start().unix_ms())?;
        // 4 done
        let is_change = call.is_change();
        let lane = if is_change {
            &self.changes
        } else {
            &self.reads
        };
        let operations = self.operations.clone();
        let outcome = lane.run(move || run::run(call, &operations, peer)).await;
        let outcome = outcome.and_then(|outcome| outcome);
        if is_change {
            let (status, code) = match &outcome {
                Ok(reply) => (reply.status(), "done"),
                Err(problem) => (problem.status(), problem.code()),
            };
            tracing::info!(
                peer.uid,
                peer.pid,
                method = %head.method,
                path,
                status = status.as_u16(),
                "admin socket: {code}"
            );
        }
        outcome
    }
}

/// The body, if it has at most `max` bytes and comes in time.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Incoming,
    max: usize,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body may have {max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    };
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|n| n > max as u64) {
        return Err(too_large());
    }
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body",
            "the body is cut short, or its framing is wrong",
        )),
        Err(_elapsed) => {
            let detail = format!("the body did not come within {BODY_TIMEOUT:?}");
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", detail))
        }
    }
}

#[cfg(test)]
mod tests;
