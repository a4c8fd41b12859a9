//! The walk of `find`, told: every candidate and why it lost.

use std::fmt;
use std::ops::ControlFlow;

use super::order::Rank;
use super::table::{PathFit, Seen};
use super::{HostLevel, Lost, Miss, PathLevel, Request, RouteTable, Step};

/// What the table did with a request.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Every rule whose host and path fit (regexes: may fit), the most specific first. A rule with
    /// several hosts may appear once for each. The winner's further appearances are left out.
    pub candidates: Vec<Candidate>,
    /// The winner's index, as [`RouteTable::find`] gives it.
    pub outcome: Result<usize, Miss>,
}

/// One rule that was considered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The rule's index.
    pub rule: usize,
    /// How its host fits.
    pub host: HostLevel,
    /// How its path fits.
    pub path: PathLevel,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Chosen,
    /// It does not match.
    Lost(Lost),
    /// It matches, but the chosen rule is more specific at this step of the order.
    Outranked(Step),
}

// === impl RouteTable ===

impl<A> RouteTable<A> {
    /// The walk of [`RouteTable::find`], continued past the winner and told. Allocates: for people.
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let mut known = false;
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut chosen: Option<(usize, (HostLevel, PathLevel, Rank))> = None;
        let flow = self.walk::<()>(request, &mut known, |seen| {
            let rule = seen.entry.rule as usize;
            let (host, path) = (seen.host, path_level(&seen, request.path));
            let fit = (host, path, self.rank(&seen));
            let verdict = match (seen.verdict, chosen) {
                (_, Some((winner, _))) if winner == rule => return ControlFlow::Continue(()),
                (Err(lost), _) => Verdict::Lost(lost),
                (Ok(()), Some((_, first))) => Verdict::Outranked(Step::between(first, fit)),
                (Ok(()), None) => {
                    chosen = Some((rule, fit));
                    Verdict::Chosen
                }
            };
            let candidate = Candidate {
                rule,
                host,
                path,
                verdict,
            };
            // A rule with networks is met once for each prefix length: tell the best of them.
            let same = candidates.iter().position(|told| {
                seen.entry.network.is_some()
                    && (told.rule, told.host, told.path) == (rule, host, path)
            });
            match same {
                None => candidates.push(candidate),
                Some(_) if matches!(verdict, Verdict::Lost(_)) => {}
                Some(told) if matches!(candidates[told].verdict, Verdict::Lost(_)) => {
                    candidates.remove(told);
                    candidates.push(candidate);
                }
                Some(_) => {}
            }
            ControlFlow::Continue(())
        });
        debug_assert!(flow.is_continue());
        let outcome = chosen.map(|(rule, _)| rule).ok_or(Miss::of(known));
        Explanation {
            candidates,
            outcome,
        }
    }

    fn rank(&self, seen: &Seen<'_>) -> Rank {
        let network = seen
            .entry
            .network
            .map(|group| self.networks[group as usize].length());
        Rank::of_rule(&self.rules[seen.entry.rule as usize], network)
    }
}

fn path_level(seen: &Seen<'_>, path: &str) -> PathLevel {
    match seen.path {
        PathFit::Exact => PathLevel::Exact,
        PathFit::Regex => PathLevel::Regex,
        PathFit::Prefix(bytes) => {
            PathLevel::prefix(path.as_bytes().get(..bytes).unwrap_or_default())
        }
        PathFit::Any => PathLevel::Any,
    }
}

// === impl Display ===

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Lost(lost) => lost.fmt(f),
            Self::Outranked(step) => write!(f, "matches, but {step}"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener => f.write_str("is for other listeners"),
            Self::Regex => f.write_str("path_regex does not match"),
            Self::Method => f.write_str("method is not in its list"),
            Self::Header(index) => write!(f, "header matcher {} does not hold", index + 1),
            Self::Query(index) => write!(f, "query matcher {} does not hold", index + 1),
            Self::Client => f.write_str("client is in none of its networks"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the chosen host is more specific",
            Self::Path => "the chosen path is more specific",
            Self::Method => "the chosen route names methods",
            Self::Headers => "the chosen route has more header matchers",
            Self::Query => "the chosen route has more query matchers",
            Self::Client => "the chosen route has a longer network",
            Self::FileOrder => "the chosen route comes first in the file",
        })
    }
}

impl fmt::Display for HostLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact host"),
            Self::Wildcard { labels } => write!(f, "wildcard of {labels} labels"),
            Self::Any => f.write_str("any host"),
        }
    }
}

impl fmt::Display for PathLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact path"),
            Self::Regex => f.write_str("path_regex"),
            Self::Prefix { segments } => write!(f, "prefix of {segments} segments"),
            Self::Any => f.write_str("any path"),
        }
    }
}
