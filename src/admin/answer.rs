//! Requests to answers: no socket in here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::runtime::readiness::{Readiness, Ready};
use crate::telemetry::metrics::registry::Registry;
use crate::telemetry::metrics::scrape::CONTENT_TYPE;

/// Scrapes at once; more are refused with 503. Two Prometheus servers (the usual pair) may meet.
const SCRAPES: usize = 2;

/// A scrape of 10,000 endpoints takes a fraction of a second; Prometheus gives up after ten.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const INDEX: &str = "isobar\n\n/metrics  Prometheus metrics\n/livez    the process turns\n\
                     /readyz   the process wants traffic\n";

/// Answers requests; cheap to clone, clones share the limit of scrapes.
#[derive(Clone)]
pub(super) struct Answers {
    readiness: Arc<Readiness>,
    scrape: BoxCloneSyncService<(), String, BoxError>,
}

// === impl Answers ===

impl Answers {
    pub(super) fn new(registry: Arc<Registry>, readiness: Arc<Readiness>) -> Self {
        let scrape = ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(SCRAPES)
            .timeout(SCRAPE_TIMEOUT)
            .service_fn(move |()| {
                let registry = Arc::clone(&registry);
                // On a thread of its own: summing and encoding must not hold up probes.
                tokio::task::spawn_blocking(move || registry.scrape())
            });
        Self {
            readiness,
            scrape: BoxCloneSyncService::new(scrape),
        }
    }

    /// The answer to one request; its body, if any, is not read.
    pub(super) async fn answer<B>(self, request: Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "read-only: GET or HEAD\n");
            refusal
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/" => text(StatusCode::OK, INDEX),
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/metrics" => self.metrics().await,
            "/readyz" => self.readyz(),
            _ => text(
                StatusCode::NOT_FOUND,
                "nothing here; / lists what there is\n",
            ),
        }
    }

    async fn metrics(self) -> Response<Full<Bytes>> {
        match self.scrape.oneshot(()).await {
            Ok(body) => {
                let mut response = text(StatusCode::OK, body);
                let kind = HeaderValue::from_static(CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("cannot scrape now: {error}\n"),
            ),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let state = self.readiness.state();
        let status = match state {
            Ready::Ready => StatusCode::OK,
            Ready::Draining | Ready::Starting => StatusCode::SERVICE_UNAVAILABLE,
        };
        // The first line is for machines.
        let note = self.readiness.noted();
        let note = note.map_or(String::new(), |note| format!("{note}\n"));
        text(status, format!("{}\n{note}", state.as_str()))
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, TEXT);
    // A cached readiness would be a lie.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
