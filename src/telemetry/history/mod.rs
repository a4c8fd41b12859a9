//! The history of a process: a bounded timeline of what changed, when, and by whose doing.
//!
//! [`History`] is pure and takes `now`; [`Timeline`] is the same behind a lock, for the several
//! writers of a server. Both bounds hold always: at most so many events, at most so many bytes, the
//! oldest go first. Sequence numbers start at 1 in each process and never repeat in it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Events kept by default: 200 reloads that touch five endpoints each.
pub const DEFAULT_EVENTS: usize = 1000;

/// Bytes kept by default. An event of usual texts takes some 400 bytes: the count binds first, this
/// bound is for texts that somebody else chose (reasons, diagnostics).
pub const DEFAULT_BYTES: usize = 1024 * 1024;

/// Longest text of an event: the first diagnostic of a refused configuration fits; the rest is in
/// the log.
pub const MAX_TEXT: usize = 512;

/// Longest name, owner or reason: what configuration and overrides allow.
const MAX_WORD: usize = 256;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its number in this process, from 1.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// By whose doing.
    pub cause: Cause,
    /// To what.
    pub what: What,
    /// One sentence for people.
    pub text: String,
}

/// By whose doing something changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// What an endpoint says of itself.
    Agent,
    /// A breaker opened or closed.
    Breaker,
    /// An override reached its end.
    Expiry,
    /// Files beside the configuration changed: certificates.
    Files,
    /// Peers of the fleet, by what they found when they checked.
    Fleet {
        /// Whose votes decided: their names, comma-separated.
        peers: String,
    },
    /// Somebody with access to the admin socket.
    Operator {
        /// `uid:0`, or the name that was given.
        owner: String,
        /// Why, in the operator's words; may be empty.
        reason: String,
    },
    /// Passive detection from real traffic.
    Outlier,
    /// An active check.
    Probe,
    /// A configuration was read anew.
    Reload {
        /// What asked for it.
        trigger: Trigger,
        /// Hash of the texts of all files, as `isobar status` shows it.
        #[serde(serialize_with = "hexadecimal")]
        hash: u64,
    },
    /// A source of members, by its name.
    Source {
        /// Its name.
        name: String,
    },
    /// The process started.
    Start,
    /// The binary was replaced.
    Upgrade,
}

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The admin socket, by this user.
    Admin(u32),
    /// SIGHUP.
    Signal,
    /// A watched file changed.
    Watch,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// Certificates of a listener were renewed, or could not be.
    Certificates {
        /// The listener's name.
        listener: String,
    },
    /// A configuration is served.
    Config {
        /// How much of it is new: "1 listener added, 2 upstreams changed".
        counts: String,
    },
    /// A configuration was refused; the one before serves on.
    ConfigRefused,
    /// An endpoint changed its state.
    Endpoint {
        /// The upstream's name.
        upstream: String,
        /// The endpoint's address.
        endpoint: String,
        /// The state before.
        from: String,
        /// The state since.
        to: String,
    },
    /// What an operator says of an endpoint changed, was kept or was dropped.
    Override {
        /// The upstream's name.
        upstream: String,
        /// The endpoint's address.
        endpoint: String,
    },
    /// The process itself.
    Process {
        /// What it does now: `started`, `draining`, `handed over`.
        state: String,
    },
    /// The breaker of an upstream changed its state.
    Upstream {
        /// The upstream's name.
        upstream: String,
        /// The state before.
        from: String,
        /// The state since.
        to: String,
    },
}

/// The timeline.
#[derive(Debug)]
pub struct History {
    events: VecDeque<Event>,
    last: u64,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

/// An answer of [`History::since`] or [`History::latest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Event>,
    /// How many events after the number asked for were dropped before anybody asked.
    pub missed: u64,
    /// The newest number of this process: smaller than the one asked for means another process.
    pub last: u64,
}

/// A [`History`] with several writers: clones are the same timeline.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Mutex<History>>);

// === impl What ===

impl What {
    /// What operators say of an endpoint.
    pub fn of_override(upstream: &str, endpoint: &impl fmt::Display) -> Self {
        Self::Override {
            upstream: upstream.to_owned(),
            endpoint: endpoint.to_string(),
        }
    }
}

// === impl Event ===

impl Event {
    /// What it takes in memory: a bound, not what the allocator says.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.cause.bytes() + self.what.bytes()
    }
}

/// One line: time, cause, text, and for an operator who and why. Control characters, which a
/// terminal would obey, are shown as spaces.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 8: `operator`, the longest of the causes.
        let (time, word) = (utc(self.at_unix_ms), self.cause.word());
        write!(f, "{time}  {word:8}  {}", Visible(&self.text))?;
        match &self.cause {
            Cause::Operator { owner, reason } if reason.is_empty() => {
                write!(f, " (by {})", Visible(owner))
            }
            Cause::Operator { owner, reason } => {
                write!(f, " (by {}: {})", Visible(owner), Visible(reason))
            }
            Cause::Reload { trigger, hash } => write!(f, " (by {trigger}, hash {hash:016x})"),
            Cause::Source { name } => write!(f, " (by {})", Visible(name)),
            Cause::Agent
            | Cause::Breaker
            | Cause::Expiry
            | Cause::Files
            // The text names them.
            | Cause::Fleet { .. }
            | Cause::Outlier
            | Cause::Probe
            | Cause::Start
            | Cause::Upgrade => Ok(()),
        }
    }
}

// === impl Cause ===

impl Cause {
    /// The word in lines for people.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Breaker => "breaker",
            Self::Expiry => "expiry",
            Self::Files => "files",
            Self::Fleet { .. } => "fleet",
            Self::Operator { .. } => "operator",
            Self::Outlier => "outlier",
            Self::Probe => "probe",
            Self::Reload { .. } => "reload",
            Self::Source { .. } => "source",
            Self::Start => "start",
            Self::Upgrade => "upgrade",
        }
    }

    fn clip(&mut self) {
        match self {
            Self::Operator { owner, reason } => {
                clip(owner, MAX_WORD);
                clip(reason, MAX_WORD);
            }
            Self::Fleet { peers } => clip(peers, MAX_WORD),
            Self::Source { name } => clip(name, MAX_WORD),
            Self::Agent
            | Self::Breaker
            | Self::Expiry
            | Self::Files
            | Self::Outlier
            | Self::Probe
            | Self::Reload { .. }
            | Self::Start
            | Self::Upgrade => {}
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Operator { owner, reason } => owner.len() + reason.len(),
            Self::Fleet { peers } => peers.len(),
            Self::Source { name } => name.len(),
            Self::Agent
            | Self::Breaker
            | Self::Expiry
            | Self::Files
            | Self::Outlier
            | Self::Probe
            | Self::Reload { .. }
            | Self::Start
            | Self::Upgrade => 0,
        }
    }
}

// === impl Trigger ===

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(uid) => write!(f, "uid:{uid}"),
            Self::Signal => f.write_str("SIGHUP"),
            Self::Watch => f.write_str("watch"),
        }
    }
}

// === impl What ===

impl What {
    fn clip(&mut self) {
        match self {
            Self::Certificates { listener } => clip(listener, MAX_WORD),
            Self::Config { counts } => clip(counts, MAX_TEXT),
            Self::ConfigRefused => {}
            Self::Endpoint {
                upstream,
                endpoint,
                from,
                to,
            } => {
                for word in [upstream, endpoint, from, to] {
                    clip(word, MAX_WORD);
                }
            }
            Self::Override { upstream, endpoint } => {
                clip(upstream, MAX_WORD);
                clip(endpoint, MAX_WORD);
            }
            Self::Process { state } => clip(state, MAX_WORD),
            Self::Upstream { upstream, from, to } => {
                for word in [upstream, from, to] {
                    clip(word, MAX_WORD);
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Certificates { listener } => listener.len(),
            Self::Config { counts } => counts.len(),
            Self::ConfigRefused => 0,
            Self::Endpoint {
                upstream,
                endpoint,
                from,
                to,
            } => upstream.len() + endpoint.len() + from.len() + to.len(),
            Self::Override { upstream, endpoint } => upstream.len() + endpoint.len(),
            Self::Process { state } => state.len(),
            Self::Upstream { upstream, from, to } => upstream.len() + from.len() + to.len(),
        }
    }
}

// === impl History ===

impl History {
    /// A history of at most `max_events` events in at most `max_bytes`.
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Self {
            events: VecDeque::new(),
            last: 0,
            bytes: 0,
            max_events,
            max_bytes,
        }
    }

    /// Keeps an event and returns its number. Texts longer than their bound are cut, and end in `…`.
    pub fn record(&mut self, now_unix_ms: u64, cause: Cause, what: What, text: String) -> u64 {
        self.last += 1;
        let mut event = Event {
            seq: self.last,
            at_unix_ms: now_unix_ms,
            cause,
            what,
            text,
        };
        event.cause.clip();
        event.what.clip();
        clip(&mut event.text, MAX_TEXT);
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
        }
        self.last
    }

    /// The oldest `limit` events with a number above `seq`: 0 asks for all, the number of the last
    /// event seen for what came since.
    pub fn since(&self, seq: u64, limit: usize) -> Page {
        // Numbers are consecutive: the first kept one tells where the wanted one is.
        let first = self.events.front().map_or(self.last + 1, |e| e.seq);
        let wanted = seq.saturating_add(1);
        let skip = usize::try_from(wanted.saturating_sub(first)).unwrap_or(usize::MAX);
        let events = self.events.iter().skip(skip).take(limit);
        Page {
            events: events.cloned().collect(),
            missed: first.saturating_sub(wanted),
            last: self.last,
        }
    }

    /// The newest `limit` events; `missed` counts the older ones that are no longer kept.
    pub fn latest(&self, limit: usize) -> Page {
        let kept = self.events.len();
        let events = self.events.iter().skip(kept.saturating_sub(limit));
        Page {
            events: events.cloned().collect(),
            missed: self.last - kept as u64,
            last: self.last,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new(DEFAULT_EVENTS, DEFAULT_BYTES)
    }
}

// === impl Timeline ===

impl Timeline {
    /// As [`History::record`].
    pub fn record(&self, now_unix_ms: u64, cause: Cause, what: What, text: String) -> u64 {
        self.lock().record(now_unix_ms, cause, what, text)
    }

    /// As [`History::since`].
    pub fn since(&self, seq: u64, limit: usize) -> Page {
        self.lock().since(seq, limit)
    }

    /// As [`History::latest`].
    pub fn latest(&self, limit: usize) -> Page {
        self.lock().latest(limit)
    }

    /// A writer that panicked left a whole event or none: the history behind it is still true.
    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A moment as people read it, UTC: `2026-11-21T15:04:05Z`.
///
/// The date is H. Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms", 2013),
/// for days not before 1970, variables as there.
pub fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A text without control characters.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.split(char::is_control).enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// Cuts `text` to `max` bytes, the `…` that says so included, never inside a character; gives back
/// what it does not need.
fn clip(text: &mut String, max: usize) {
    const CUT: &str = "…";
    if text.len() > max {
        let mut end = max - CUT.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(CUT);
    }
    text.shrink_to_fit();
}

/// 16 digits: JSON's numbers lose integers above 2^53 in most readers.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference to the field"
)]
pub(crate) fn hexadecimal<S: serde::Serializer>(
    hash: &u64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

#[cfg(test)]
mod tests;
