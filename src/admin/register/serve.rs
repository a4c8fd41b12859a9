//! The registration server on its TCP address.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::admin::api::problem::Problem;
use crate::admin::api::read_body;
use crate::admin::api::route::matched;
use crate::admin::connections::{self, Door, HEADER_TIMEOUT, Standing};
use crate::base::addr::EndpointAddr;
use crate::base::clock::Clock;

use super::registrar::{RegisterError, Registrar, Wish};
use super::rules::{Rules, Shown};
use super::wish;

/// Largest body: the three things that a registration says fit twenty times.
const MAX_BODY: usize = 4096;

const ENDPOINT: &str = "/v1/upstreams/{upstream}/endpoints/{address}";
const UPSTREAM: &str = "/v1/upstreams/{upstream}";

/// What the registration server works with.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Who takes registrations.
    pub registrar: Arc<dyn Registrar>,
    /// Under which rules; whoever reloads stores new ones here.
    pub rules: Arc<ArcSwap<Rules>>,
}

struct Tcp {
    listener: TcpListener,
    desk: Desk,
    clock: Clock,
}

/// Serves until `stop` is cancelled, then lets answers in flight end. Cancel safe: dropping it closes every
/// connection.
///
/// # Errors
/// The listener cannot be used on this runtime; a failed accept or connection is none.
pub async fn serve(
    listener: StdTcpListener,
    desk: Desk,
    stop: CancellationToken,
) -> io::Result<()> {
    serve_with(listener, desk, stop, HEADER_TIMEOUT).await
}

pub(super) async fn serve_with(
    listener: StdTcpListener,
    desk: Desk,
    stop: CancellationToken,
    header_timeout: Duration,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let door = Tcp {
        listener: TcpListener::from_std(listener)?,
        desk,
        clock: Clock::start(),
    };
    connections::serve(door, stop, header_timeout).await;
    Ok(())
}

// === impl Tcp ===

impl Door for Tcp {
    type Stream = TcpStream;
    type Client = SocketAddr;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    /// Each request shows its token.
    fn standing(&self, _client: SocketAddr) -> Standing {
        Standing::Allowed
    }

    async fn answer(
        &self,
        client: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        match self.outcome(client, request).await {
            Ok((status, body)) => reply(status, &body),
            Err(refusal) => refusal.into_response(),
        }
    }
}

type Outcome = Result<(StatusCode, Value), Box<Refusal>>;

/// A refusal, with what goes into the head of its answer.
#[derive(Debug)]
struct Refusal {
    problem: Problem,
    /// Seconds.
    retry_after: Option<u64>,
    is_challenge: bool,
}

impl Tcp {
    async fn outcome(&self, client: SocketAddr, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        // 1 who: before anything is said about what there is
        let rules = self.desk.rules.load_full();
        let token = bearer(&head.headers);
        let Some(shown) = token.and_then(|token| rules.find(token)) else {
            let detail = match token {
                None => "show a token: `Authorization: Bearer TOKEN`",
                Some(_) => "the token is none of `token_file` in `fleet.register`",
            };
            tracing::debug!(%client, "registration: {detail}");
            return Err(Box::new(Refusal::challenge(detail)));
        };
        // 2 what
        let path = head.uri.path();
        let query = head.uri.query().unwrap_or_default();
        if let Some(parts) = matched(ENDPOINT, path)
            && let [upstream, address] = &*parts
        {
            let address = || wish::address(address, client);
            return match head.method {
                Method::PUT => {
                    let endpoint = address()?;
                    let body = read_body(&head.headers, body, MAX_BODY).await?;
                    let wish = wish::read(upstream, endpoint, query, &body, rules.max_ttl())?;
                    self.register(wish, &rules, shown)
                }
                Method::DELETE => self.deregister(upstream, &address()?),
                _ => Err(Problem::method(&[Method::PUT, Method::DELETE]).into()),
            };
        }
        if let Some(parts) = matched(UPSTREAM, path)
            && let [upstream] = &*parts
        {
            return match head.method {
                Method::GET | Method::HEAD => {
                    let members = self.desk.registrar.members(upstream)?;
                    let body = json!({ "upstream": upstream, "members": members });
                    Ok((StatusCode::OK, body))
                }
                _ => Err(Problem::method(&[Method::GET, Method::HEAD]).into()),
            };
        }
        let detail = format!("nothing here; there are PUT and DELETE {ENDPOINT}, GET {UPSTREAM}");
        Err(Problem::new(StatusCode::NOT_FOUND, "path", detail).into())
    }

    fn register(&self, wish: Wish, rules: &Rules, shown: Shown) -> Outcome {
        let registrar = &self.desk.registrar;
        if !registrar.is_registered(&wish.upstream, &wish.endpoint)
            && let Err(wait) = rules.admit(shown, self.clock.now())
        {
            let detail = "more than 100 new registrations a second with this token; renewals are not counted";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate", detail);
            return Err(Box::new(Refusal {
                // Whole seconds, and not too early.
                retry_after: Some(wait.as_secs() + 1),
                ..problem.into()
            }));
        }
        let (upstream, endpoint) = (wish.upstream.clone(), wish.endpoint.to_string());
        let ttl = wish.ttl;
        let registration = registrar.register(wish)?;
        let status = if registration.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let body = json!({
            "upstream": &*upstream,
            "endpoint": endpoint,
            "ttl_seconds": ttl.as_secs_f64(),
            "renew_seconds": ttl.as_secs_f64() / 3.0,
            "registrar": registration.registrar,
        });
        Ok((status, body))
    }

    fn deregister(&self, upstream: &str, endpoint: &EndpointAddr) -> Outcome {
        let was_there = self.desk.registrar.deregister(upstream, endpoint)?;
        if !was_there {
            let detail = format!(
                "{endpoint} has not registered for upstream `{}` at this peer; it may have at another one",
                upstream.escape_debug()
            );
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-registered", detail).into());
        }
        let body = json!({ "upstream": upstream, "endpoint": endpoint.to_string() });
        Ok((StatusCode::OK, body))
    }
}

/// The token that a request shows. The name of the scheme is matched without case: RFC 9110 section 11.1.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    // Two are none: which of them would be meant?
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(format!("{body:#}\n").into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

// === impl Refusal ===

impl Refusal {
    fn challenge(detail: &str) -> Self {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "token", detail);
        Self {
            is_challenge: true,
            ..problem.into()
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = self.problem.into_response();
        let headers = response.headers_mut();
        if self.is_challenge {
            let challenge = HeaderValue::from_static("Bearer realm=\"isobar\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Problem> for Box<Refusal> {
    fn from(problem: Problem) -> Self {
        Self::new(problem.into())
    }
}

impl From<RegisterError> for Box<Refusal> {
    fn from(error: RegisterError) -> Self {
        Self::new(error.into())
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            retry_after: None,
            is_challenge: false,
        }
    }
}

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        let (status, code) = match error {
            RegisterError::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            RegisterError::NotDynamic { .. } => (StatusCode::CONFLICT, "not-dynamic"),
            RegisterError::Unready { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
            RegisterError::UnknownUpstream { .. } => (StatusCode::NOT_FOUND, "unknown-upstream"),
            RegisterError::Weight { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "weight"),
        };
        Problem::new(status, code, error.to_string()).into()
    }
}
