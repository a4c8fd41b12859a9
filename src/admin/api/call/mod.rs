//! A request, checked: what is asked for, with its parameters. Pure.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::addr::EndpointAddr;
use crate::config::units::parse_duration;
use crate::upstream::overrides::{self, Change, Verb};

use super::peer::Peer;
use super::problem::Problem;
use super::route::{Found, Operation, query_names, query_value};

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Call {
    Change(Change),
    Config(ConfigFormat),
    Drain,
    Endpoint(String, EndpointAddr),
    Fleet,
    FleetDiff(String),
    FleetMembers,
    History { since: Option<u64>, limit: usize },
    Index,
    OpenApi,
    Plan(Option<PathBuf>),
    Reload,
    Status,
    Upgrade,
    Upstream(String),
    Upstreams,
}

/// How the configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConfigFormat {
    Json,
    Toml,
}

/// Events in one answer, unless the client says otherwise.
const HISTORY_LIMIT: usize = 100;

/// The body of a PATCH of an endpoint: one thing, said by somebody.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    weight: Option<u32>,
    state: Option<StateWord>,
    owner: Option<String>,
    reason: Option<String>,
    expires_in: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateWord {
    Active,
    Disable,
    Drain,
}

/// The body of a POST to the endpoints of an upstream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    address: String,
    weight: Option<u32>,
    owner: Option<String>,
    reason: Option<String>,
    expires_in: Option<String>,
}

/// The body of a POST to the plan; none is an empty one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanBody {
    file: Option<PathBuf>,
}

/// The body of what has no parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

/// Who asks, why and for how long.
#[derive(Debug, Default)]
struct Said {
    owner: Option<String>,
    reason: Option<String>,
    expires_in: Option<String>,
}

/// A request without its line: what [`Call::read`] looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

// === impl Call ===

impl Call {
    /// Checks a request. `now_unix_ms` is what `expires_in` counts from.
    pub(super) fn read(
        found: Found,
        given: Given<'_>,
        peer: Peer,
        now_unix_ms: u64,
    ) -> Result<Self, Problem> {
        let mut parts = found.parts.into_iter();
        // The route has as many as its operation takes.
        let mut part = || parts.next().unwrap_or_default();
        Ok(match found.operation {
            Operation::Add => {
                let upstream = part();
                let body: AddBody = required(given)?;
                let verb = Verb::Add {
                    weight: body.weight,
                };
                let said = Said {
                    owner: body.owner,
                    reason: body.reason,
                    expires_in: body.expires_in,
                };
                said.change(&upstream, &body.address, verb, peer, now_unix_ms)?
            }
            Operation::Change => {
                let (upstream, address) = (part(), part());
                let body: ChangeBody = required(given)?;
                let verb = match (body.weight, body.state) {
                    (Some(weight), None) => Verb::SetWeight(weight),
                    (None, Some(StateWord::Active)) => Verb::Undrain,
                    (None, Some(StateWord::Disable)) => Verb::Disable,
                    (None, Some(StateWord::Drain)) => Verb::Drain,
                    (None, None) | (Some(_), Some(_)) => {
                        return Err(invalid("give either `weight` or `state`"));
                    }
                };
                let said = Said {
                    owner: body.owner,
                    reason: body.reason,
                    expires_in: body.expires_in,
                };
                said.change(&upstream, &address, verb, peer, now_unix_ms)?
            }
            Operation::Clear => {
                let (upstream, address) = (part(), part());
                let said = Said::of_query(given.query, &["owner", "reason"])?;
                said.change(&upstream, &address, Verb::Clear, peer, now_unix_ms)?
            }
            Operation::Config => Self::Config(wanted_format(given.headers)),
            Operation::Drain => optional(given).map(|NoBody {}| Self::Drain)?,
            Operation::Endpoint => Self::Endpoint(part(), endpoint(&part())?),
            Operation::Fleet => Self::Fleet,
            Operation::FleetDiff => {
                known(given.query, &["peer"])?;
                let peer = query_value(given.query, "peer").filter(|peer| !peer.is_empty());
                Self::FleetDiff(peer.ok_or_else(|| {
                    let detail = "`peer` says whom to compare with: its id or its address";
                    Problem::new(StatusCode::BAD_REQUEST, "query", detail)
                })?)
            }
            Operation::FleetMembers => Self::FleetMembers,
            Operation::History => {
                known(given.query, &["limit", "since"])?;
                let limit: Option<usize> = number(given.query, "limit")?;
                Self::History {
                    since: number(given.query, "since")?,
                    limit: limit.unwrap_or(HISTORY_LIMIT),
                }
            }
            Operation::Index => Self::Index,
            Operation::OpenApi => Self::OpenApi,
            Operation::Plan => {
                let PlanBody { file } = optional(given)?;
                if file.as_ref().is_some_and(|f| !f.is_absolute()) {
                    return Err(invalid("`file` is not an absolute path"));
                }
                if file.is_some() && !peer.may_read_as_server() {
                    return Err(Problem::new(
                        StatusCode::FORBIDDEN,
                        "not-your-file",
                        "the server reads files with its own rights, and diagnostics quote them: \
                         only root and the user of the server may name one",
                    ));
                }
                Self::Plan(file)
            }
            Operation::Reload => optional(given).map(|NoBody {}| Self::Reload)?,
            Operation::Remove => {
                let (upstream, address) = (part(), part());
                let said = Said::of_query(given.query, &["owner", "reason", "expires_in"])?;
                said.change(&upstream, &address, Verb::Remove, peer, now_unix_ms)?
            }
            Operation::Status => Self::Status,
            Operation::Upgrade => optional(given).map(|NoBody {}| Self::Upgrade)?,
            Operation::Upstream => Self::Upstream(part()),
            Operation::Upstreams => Self::Upstreams,
        })
    }

    /// Whether it changes anything: such calls are logged, and have a lane of their own.
    pub(super) fn is_change(&self) -> bool {
        match self {
            Self::Change(_) | Self::Drain | Self::Reload | Self::Upgrade => true,
            Self::Config(_)
            | Self::Endpoint(..)
            | Self::Fleet
            | Self::FleetDiff(_)
            | Self::FleetMembers
            | Self::History { .. }
            | Self::Index
            | Self::OpenApi
            | Self::Plan(_)
            | Self::Status
            | Self::Upstream(_)
            | Self::Upstreams => false,
        }
    }
}

// === impl Said ===

impl Said {
    fn of_query(query: &str, names: &[&str]) -> Result<Self, Problem> {
        known(query, names)?;
        Ok(Self {
            owner: query_value(query, "owner"),
            reason: query_value(query, "reason"),
            expires_in: query_value(query, "expires_in"),
        })
    }

    fn change(
        self,
        upstream: &str,
        address: &str,
        verb: Verb,
        peer: Peer,
        now_unix_ms: u64,
    ) -> Result<Call, Problem> {
        let endpoint = endpoint(address)?;
        let expires_unix_ms = match self.expires_in {
            None => None,
            Some(text) => {
                let lasts = parse_duration(&text).map_err(|error| {
                    invalid(&format!("`expires_in`: {error}; write it as \"10m\""))
                })?;
                Some(now_unix_ms.saturating_add(milliseconds(lasts)))
            }
        };
        let owner = match self.owner {
            Some(name) if !name.is_empty() => format!("{name} (uid:{})", peer.uid),
            Some(_) | None => format!("uid:{}", peer.uid),
        };
        Ok(Call::Change(Change {
            upstream: upstream.into(),
            endpoint,
            verb,
            owner,
            reason: self.reason.unwrap_or_default(),
            expires_unix_ms,
        }))
    }
}

fn endpoint(address: &str) -> Result<EndpointAddr, Problem> {
    overrides::address(address).map_err(|refused| {
        let detail = refused.to_string();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "address", detail)
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn invalid(detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
}

/// A query with nothing in it but these names: a misspelt one must not be ignored.
fn known(query: &str, names: &[&str]) -> Result<(), Problem> {
    match query_names(query).find(|name| !names.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let names = names.join("`, `");
            let name: String = name.chars().take(40).collect();
            Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "query",
                format!(
                    "unknown parameter `{}`; there are `{names}`",
                    name.escape_debug()
                ),
            ))
        }
    }
}

fn number<T: std::str::FromStr>(query: &str, name: &str) -> Result<Option<T>, Problem> {
    let Some(text) = query_value(query, name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let detail = format!("`{name}` is not a number from 0 up");
        Problem::new(StatusCode::BAD_REQUEST, "query", detail)
    })
}

fn optional<T: Default + DeserializeOwned>(given: Given<'_>) -> Result<T, Problem> {
    if given.body.is_empty() {
        return Ok(T::default());
    }
    required(given)
}

fn required<T: DeserializeOwned>(given: Given<'_>) -> Result<T, Problem> {
    let kind = given.headers.get(header::CONTENT_TYPE);
    let kind = kind.map_or(Some(""), |v| v.to_str().ok());
    let kind = kind.and_then(|k| k.split(';').next());
    if !kind.is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "the body is to be JSON, and to say so: `Content-Type: application/json`",
        ));
    }
    serde_json::from_slice(given.body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => invalid(&error.to_string()),
        serde_json::error::Category::Eof
        | serde_json::error::Category::Io
        | serde_json::error::Category::Syntax => Problem::new(
            StatusCode::BAD_REQUEST,
            "json",
            format!("the body is no JSON: {error}"),
        ),
    })
}

/// TOML, unless JSON is asked for by name.
fn wanted_format(headers: &HeaderMap) -> ConfigFormat {
    let accept = headers.get_all(header::ACCEPT);
    let mut kinds = accept
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    if kinds.any(|kind| kind.eq_ignore_ascii_case("application/json")) {
        ConfigFormat::Json
    } else {
        ConfigFormat::Toml
    }
}

#[cfg(test)]
mod tests;
