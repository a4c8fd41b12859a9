//! Calls to answers. Everything here may block: see [`super::lane`].

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use crate::config::{Diagnostic, Problems};
use crate::runtime::live::ChangeError;
use crate::runtime::operate::{FleetDiffError, Operations, Order, OrderError, ReloadFailure};
use crate::telemetry::history::Trigger;
use crate::upstream::overrides::{Change, Refused, Verb};

use super::call::{Call, ConfigFormat};
use super::peer::Peer;
use super::problem::Problem;
use super::route::{ROUTES, encoded};

/// The description for clients, OpenAPI 3.1.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const TOML: HeaderValue = HeaderValue::from_static("application/toml");

/// An answer that is no refusal.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    kind: HeaderValue,
    body: Bytes,
    location: Option<String>,
}

/// Does what is asked for.
pub(super) fn run(call: Call, operations: &Operations, peer: Peer) -> Result<Reply, Problem> {
    match call {
        Call::Change(change) => changed(operations, change),
        Call::Config(format) => config(&operations.config(), format),
        Call::Drain => ordered(operations, Order::Drain),
        Call::Endpoint(name, address) => {
            let view = operations.upstream(&name).ok_or_else(|| unknown(&name))?;
            let mut endpoints = view.endpoints.into_iter();
            let found = endpoints.find(|e| e.layers.endpoint == address);
            let refused = || Refused::UnknownEndpoint {
                upstream: name.as_str().into(),
                endpoint: address,
            };
            Reply::json(&found.ok_or_else(|| refused_change(&refused()))?)
        }
        Call::Fleet => Reply::json(&operations.fleet_status().ok_or_else(no_fleet)?),
        Call::FleetDiff(peer) => {
            let compared = operations.fleet_diff(&peer);
            Reply::json(&compared.map_err(|error| not_compared(&error))?)
        }
        Call::FleetMembers => Reply::json(&operations.fleet_members().ok_or_else(no_fleet)?),
        Call::History { since, limit } => Reply::json(&match since {
            Some(since) => operations.history(since, limit),
            None => operations.latest(limit),
        }),
        Call::Index => Ok(Reply::new(TEXT, index())),
        Call::OpenApi => Ok(Reply::new(JSON, OPENAPI)),
        Call::Plan(None) => Reply::json(
            &operations
                .plan()
                .map_err(|failure| refused_reload(&failure))?,
        ),
        Call::Plan(Some(file)) => Reply::json(
            &operations
                .plan_file(&file)
                .map_err(|failure| refused_reload(&failure))?,
        ),
        Call::Reload => {
            let trigger = Trigger::Admin(peer.uid);
            Reply::json(
                &operations
                    .reload(trigger)
                    .map_err(|failure| refused_reload(&failure))?,
            )
        }
        Call::Status => Reply::json(&operations.status()),
        Call::Upgrade => ordered(operations, Order::Upgrade),
        Call::Upstream(name) => {
            let view = operations.upstream(&name);
            Reply::json(&view.ok_or_else(|| unknown(&name))?)
        }
        Call::Upstreams => Reply::json(&operations.upstreams()),
    }
}

fn changed(operations: &Operations, change: Change) -> Result<Reply, Problem> {
    let is_new = matches!(change.verb, Verb::Add { .. });
    let location = format!(
        "/v1/upstreams/{}/endpoints/{}",
        encoded(&change.upstream),
        encoded(&change.endpoint.to_string())
    );
    let applied = operations.change(change).map_err(|error| match error {
        ChangeError::Busy => {
            let detail = error.to_string();
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
        }
        ChangeError::Refused(refused) => refused_change(&refused),
        ChangeError::Save(error) => {
            let detail = chain(&error);
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-saved", detail)
        }
        ChangeError::Untold { .. } => {
            let detail = error.to_string();
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-told", detail)
        }
    })?;
    let reply = Reply::json(&applied)?;
    Ok(if is_new {
        Reply {
            location: Some(location),
            ..reply.with(StatusCode::CREATED)
        }
    } else {
        reply
    })
}

fn config(toml: &str, format: ConfigFormat) -> Result<Reply, Problem> {
    match format {
        ConfigFormat::Json => {
            let value: toml::Value = toml::from_str(toml).map_err(|error| bug(&error))?;
            Reply::json(&value)
        }
        ConfigFormat::Toml => Ok(Reply::new(TOML, toml.to_owned())),
    }
}

/// Tells the process itself, which follows when it comes to it: 202.
fn ordered(operations: &Operations, order: Order) -> Result<Reply, Problem> {
    operations.order(order).map_err(|error| {
        let (status, code) = match error {
            OrderError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            OrderError::NotTaken => (StatusCode::CONFLICT, "not-taken"),
        };
        Problem::new(status, code, error.to_string())
    })?;
    let word = match order {
        Order::Drain => "drain",
        Order::Upgrade => "upgrade",
    };
    Ok(Reply::json(&json!({ "ordered": word }))?.with(StatusCode::ACCEPTED))
}

fn index() -> String {
    let mut text = String::from("isobar\n\n");
    for (method, path, _) in ROUTES {
        text.push_str(&format!("{:<6}  {path}\n", method.as_str()));
    }
    text
}

fn no_fleet() -> Problem {
    not_compared(&FleetDiffError::NoFleet)
}

fn not_compared(error: &FleetDiffError) -> Problem {
    let (status, code) = match error {
        FleetDiffError::NoFleet => (StatusCode::NOT_FOUND, "no-fleet"),
        FleetDiffError::Own(_) => (StatusCode::CONFLICT, "own-peer"),
        FleetDiffError::UnknownPeer(_) => (StatusCode::NOT_FOUND, "unknown-peer"),
        FleetDiffError::Unreached { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unreached-peer"),
    };
    Problem::new(status, code, error.to_string())
}

fn unknown(upstream: &str) -> Problem {
    refused_change(&Refused::UnknownUpstream {
        upstream: upstream.into(),
    })
}

fn refused_change(refused: &Refused) -> Problem {
    let (status, code) = match refused {
        Refused::Address { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "address"),
        Refused::AlreadyThere { .. } => (StatusCode::CONFLICT, "already-there"),
        Refused::ControlCharacter { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Refused::Expiry { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "expiry"),
        Refused::Full => (StatusCode::CONFLICT, "full"),
        Refused::NotDynamic { .. } => (StatusCode::CONFLICT, "not-dynamic"),
        Refused::NoOwner => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Refused::Removed { .. } => (StatusCode::CONFLICT, "removed"),
        Refused::TooLong { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "too-long"),
        Refused::UnknownEndpoint { .. } => (StatusCode::NOT_FOUND, "unknown-endpoint"),
        Refused::UnknownUpstream { .. } => (StatusCode::NOT_FOUND, "unknown-upstream"),
        Refused::Weight { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "weight"),
    };
    Problem::new(status, code, refused.to_string())
}

fn refused_reload(failure: &ReloadFailure) -> Problem {
    let (status, code, diagnostics) = match failure {
        ReloadFailure::Invalid(Problems::Invalid(found)) => {
            let found = found.iter().map(Diagnostic::to_json).collect();
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid-config", found)
        }
        ReloadFailure::Invalid(Problems::Io { .. }) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unreadable", Vec::new())
        }
        ReloadFailure::NoFile => (StatusCode::CONFLICT, "no-file", Vec::new()),
        ReloadFailure::Unavailable(_) => (StatusCode::CONFLICT, "unavailable", Vec::new()),
    };
    let detail = match failure {
        ReloadFailure::Invalid(problems) => chain(problems),
        ReloadFailure::NoFile | ReloadFailure::Unavailable(_) => chain(failure),
    };
    Problem::new(status, code, detail).with_diagnostics(diagnostics)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        // Some say their cause themselves.
        if !text.contains(&line) {
            text.push_str(&format!(": {line}"));
        }
        source = cause.source();
    }
    text
}

fn bug(error: &dyn std::error::Error) -> Problem {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(
        status,
        "bug",
        format!("an answer cannot be written: {error}"),
    )
}

// === impl Reply ===

impl Reply {
    fn new(kind: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            kind,
            body: body.into(),
            location: None,
        }
    }

    fn json(value: &impl Serialize) -> Result<Self, Problem> {
        let mut body = serde_json::to_vec_pretty(value).map_err(|error| bug(&error))?;
        body.push(b'\n');
        Ok(Self::new(JSON, body))
    }

    fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let location = self.location.and_then(|l| HeaderValue::from_str(&l).ok());
        if let Some(location) = location {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
