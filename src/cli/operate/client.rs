//! A client of the admin socket: one request, one answer, each with a deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::{Failure, config_socket};

/// Where a server listens unless somebody says otherwise.
pub(super) const DEFAULT_SOCKET: &str = "/run/isobar/admin.sock";

/// The variable that names the socket.
pub(super) const SOCKET_VARIABLE: &str = "ISOBAR_SOCKET";

/// For an answer: longer than the server gives a call, so that its own word of that arrives.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Largest answer: 10,000 endpoints in all their layers take some ten MB.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A way to a server; connects for each request anew.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    socket: PathBuf,
}

/// An answer that is no refusal, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    body: Bytes,
}

/// What `problem+json` says.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
}

/// The command line's way to name the socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Where {
    pub(super) socket: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
}

// === impl Client ===

impl Client {
    /// A client of the socket that is named, or of the usual one.
    pub(super) fn new(place: &Where) -> Result<Self, Failure> {
        let socket = match (&place.socket, &place.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(config)) => config_socket(config)?,
            (None, None) => std::env::var_os(SOCKET_VARIABLE)
                .filter(|path| !path.is_empty())
                .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from),
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::Unreached(format!("cannot start: {e}")))?;
        Ok(Self { runtime, socket })
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, None)
    }

    /// The same as JSON, of what the server has in two forms.
    pub(super) fn get_json(&self, path: &str) -> Result<Answer, Failure> {
        let accept = HeaderValue::from_static("application/json");
        self.asking(Method::GET, path, None, Some(accept))
    }

    pub(super) fn post(&self, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.ask(Method::POST, path, body)
    }

    /// One request. A refusal is [`Failure::Refused`] with what the server says of it.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        self.asking(method, path, body, None)
    }

    fn asking(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let asked = async {
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|error| self.unreached(&error))?;
            let request = request(method, path, body, accept)
                .map_err(|error| Failure::Unreached(format!("cannot ask: {error}")))?;
            let answered = timeout(ANSWER_TIMEOUT, exchange(stream, request)).await;
            match answered {
                Ok(answered) => answered.map_err(|error| {
                    let at = self.socket.display();
                    Failure::Unreached(format!("no answer at {at}: {error}"))
                }),
                Err(_elapsed) => Err(Failure::Unreached(format!(
                    "no answer within {} s; what was asked for may still be done: \
                     `isobar status` tells",
                    ANSWER_TIMEOUT.as_secs()
                ))),
            }
        };
        let (status, body) = self.runtime.block_on(asked)?;
        if status.is_success() {
            return Ok(Answer { body });
        }
        Err(Failure::Refused(
            match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => problem.detail,
                Err(_) => format!("the server answered {status}"),
            },
        ))
    }

    /// Waits, on the clock of the client's runtime.
    pub(super) fn pause(&self, time: Duration) {
        self.runtime.block_on(async { sleep(time).await });
    }

    fn unreached(&self, error: &io::Error) -> Failure {
        let path = self.socket.display();
        Failure::Unreached(match error.kind() {
            io::ErrorKind::NotFound => format!(
                "there is no socket {path}: is isobar running, with `socket = \"{path}\"` in \
                 [admin]? --socket, --config or {SOCKET_VARIABLE} names another"
            ),
            io::ErrorKind::ConnectionRefused => format!(
                "nobody listens at {path}: the isobar that made it has ended; --socket, --config \
                 or {SOCKET_VARIABLE} names another"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "no permission to connect to {path}: be root or the user that isobar runs as, or \
                 have your user id in `allow_uids` in [admin]"
            ),
            _ => format!("cannot connect to {path}: {error}"),
        })
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn request(
    method: Method,
    path: &str,
    body: Option<&Value>,
    accept: Option<HeaderValue>,
) -> Result<Request<Full<Bytes>>, Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "isobar")
        .header(header::CONNECTION, "close");
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    let body = match body {
        None => Bytes::new(),
        Some(body) => {
            let kind = HeaderValue::from_static("application/json");
            request = request.header(header::CONTENT_TYPE, kind);
            serde_json::to_vec(body)?.into()
        }
    };
    Ok(request.body(Full::new(body))?)
}

/// Status and body of the answer.
async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answered);
    tokio::select! {
        answered = &mut answered => answered,
        // The connection may end in the same moment in which the answer is whole: then the answer
        // holds, or its own error, which says more.
        _ended = connection => answered.await,
    }
}

// === impl Answer ===

impl Answer {
    /// As it came.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What of it `T` knows.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::Unreached(format!(
                "the answer is not understood ({error}); is the server of another version? --json \
                 shows it as it came"
            ))
        })
    }
}

/// The absolute path of a file, which the server is to read.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|e| Failure::Unreached(format!("cannot find {}: {e}", path.display())))
}
