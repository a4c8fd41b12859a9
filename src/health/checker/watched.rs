//! What is known of one target, and what an answer makes of it.

use std::sync::Arc;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::HealthSpec;
use crate::telemetry::metrics::cells::CheckResult;
use crate::upstream::{Health, LastCheck};

use super::super::agent::{Answer, Heard};
use super::super::probe::Failure;
use super::super::schedule;
use super::super::threshold::{Evidence, Threshold};
use super::{Ask, Findings, Target, Verdict};

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) target: Target,
    state: State,
    /// It has answered, or failed to, at least once.
    was_asked: bool,
}

#[derive(Debug)]
enum State {
    /// What is wrong with its agent, as the log has it.
    Agent(Option<CheckResult>),
    Check(Checked),
}

#[derive(Debug)]
struct Checked {
    threshold: Threshold,
    /// Results of the same kind in a row.
    row: u32,
    last: Option<Evidence>,
}

/// How a question went.
#[derive(Debug)]
pub(super) enum Outcome {
    Agent(Result<Answer, Failure>),
    Check(Result<(), Failure>),
    /// It was not asked: an answer to a client proves it well.
    Proved,
}

// === impl Watched ===

impl Watched {
    /// A target that begins to be asked, or is asked otherwise than before (`old`, of the same
    /// endpoint). `is_pending`: what was found of it has not been handed on.
    pub(super) fn new(target: &Target, old: Option<Self>, is_pending: bool) -> Self {
        let state = match &target.ask {
            Ask::Agent(_) => State::Agent(None),
            Ask::Check(spec) => {
                let found = target.endpoint.health();
                let threshold = match old.map(|old| old.state) {
                    // What it is it stays; what it takes to change that is counted anew.
                    Some(State::Check(old)) if is_pending => {
                        Threshold::kept(spec, old.threshold.health())
                    }
                    Some(_) => Threshold::kept(spec, found),
                    None => match Threshold::new(spec) {
                        fresh if fresh.health() == found => fresh,
                        // It was known before it became a target (again).
                        _ => Threshold::kept(spec, found),
                    },
                };
                State::Check(Checked {
                    threshold,
                    row: 0,
                    last: None,
                })
            }
        };
        Self {
            target: target.clone(),
            state,
            was_asked: false,
        }
    }

    /// Whether `target`, of the same endpoint, is asked the same: then all that is known still holds.
    pub(super) fn goes_on(&self, target: &Target, is_pending: bool) -> bool {
        match (&self.target.ask, &target.ask, &self.state) {
            // That it is something else than what was found, and nobody is about to be told so: it
            // was without checks for a moment.
            (Ask::Check(old), Ask::Check(new), State::Check(checked)) => {
                old == new && (checked.threshold.health() == target.endpoint.health() || is_pending)
            }
            (Ask::Agent(old), Ask::Agent(new), _) => old == new,
            (Ask::Agent(_) | Ask::Check(_), _, _) => false,
        }
    }

    /// Whether traffic stands in for the check that is due: of an endpoint that is up, and proved
    /// well within the last interval.
    pub(super) fn is_proved(&self, now: Nanos) -> bool {
        let (Ask::Check(spec), State::Check(checked)) = (&self.target.ask, &self.state) else {
            return false;
        };
        let is_young = |at: Nanos| at.saturating_add(nanos(spec.interval)) > now;
        spec.traffic
            && checked.threshold.health() == Health::Up
            && self.target.endpoint.well_at().is_some_and(is_young)
    }

    /// Whether it is known what it is: it was asked, and is not on its way up.
    pub(super) fn is_known(&self) -> bool {
        self.was_asked
            && match &self.state {
                State::Agent(_) => true,
                State::Check(checked) => {
                    checked.threshold.health() == Health::Up
                        || checked.last != Some(Evidence::Passed)
                }
            }
    }

    /// Counts an answer, and notes it for whoever looks.
    pub(super) fn note(&self, outcome: &Outcome, unix_ms: u64, took: Nanos) {
        let endpoint = &self.target.endpoint;
        let cells = endpoint.cells.control();
        let (result, text) = match outcome {
            Outcome::Agent(answer) => {
                cells.agent_checks(class(answer)).inc();
                return;
            }
            Outcome::Check(result) => {
                let text = result.as_ref().err().map(ToString::to_string);
                (class(result), text)
            }
            Outcome::Proved => (CheckResult::Traffic, None),
        };
        cells.checks(result).inc();
        endpoint.set_last_check(LastCheck {
            at_unix_ms: unix_ms,
            took_ms: took / 1_000_000,
            result,
            text,
        });
    }

    /// Takes an answer in; what it changes is found.
    pub(super) fn judge(&mut self, outcome: Outcome, findings: &mut Findings) {
        self.was_asked = true;
        match (outcome, &self.target.ask, &mut self.state) {
            (Outcome::Agent(answer), _, State::Agent(trouble)) => {
                let found = hear(&self.target, answer, trouble);
                findings.heard.extend(found);
            }
            (Outcome::Check(result), Ask::Check(spec), State::Check(checked)) => {
                let found = checked.judge(&self.target, spec, result);
                findings.verdicts.extend(found);
            }
            (Outcome::Proved, Ask::Check(spec), State::Check(checked)) => {
                // It is up already: this only ends a row of failures.
                let found = checked.judge(&self.target, spec, Ok(()));
                findings.verdicts.extend(found);
            }
            (Outcome::Agent(_) | Outcome::Check(_) | Outcome::Proved, _, _) => {}
        }
    }

    /// The time from the beginning of this question to the next.
    pub(super) fn wait(&self, rng: &mut Rng) -> Nanos {
        match (&self.target.ask, &self.state) {
            (Ask::Check(spec), State::Check(checked)) => {
                schedule::next(spec, checked.threshold.health(), rng)
            }
            (Ask::Check(spec), State::Agent(_)) => schedule::next(spec, Health::Up, rng),
            (Ask::Agent(spec), _) => schedule::next_agent(spec, rng),
        }
    }
}

// === impl Checked ===

impl Checked {
    /// Takes a result in; a verdict, if that changes what the endpoint is.
    fn judge(
        &mut self,
        target: &Target,
        spec: &Arc<HealthSpec>,
        result: Result<(), Failure>,
    ) -> Option<Verdict> {
        let evidence = match &result {
            Ok(()) => Evidence::Passed,
            Err(Failure::Local(_)) => return None,
            Err(_) => Evidence::Failed,
        };
        self.row = match self.last.replace(evidence) {
            Some(last) if last == evidence => self.row.saturating_add(1),
            Some(_) | None => 1,
        };
        let health = self.threshold.observe(evidence)?;
        let check = spec.check.as_str();
        let checks = match self.row {
            1 => format!("1 {check} check"),
            n => format!("{n} {check} checks in a row"),
        };
        let why = match result {
            Ok(()) => format!("{checks} passed"),
            Err(failure) => format!("{checks} failed, the last with: {failure}"),
        };
        Some(Verdict {
            upstream: target.upstream.clone(),
            endpoint: target.endpoint.clone(),
            health,
            why,
        })
    }
}

/// What an agent's answer changes. That an agent is silent changes nothing, and is told once; so is
/// that it says what means nothing.
fn hear(
    target: &Target,
    answer: Result<Answer, Failure>,
    trouble: &mut Option<CheckResult>,
) -> Option<Heard> {
    let result = match &answer {
        Ok(answer) if answer.unknown.is_some() => Some(CheckResult::Protocol),
        Ok(_) => None,
        Err(failure) => Some(failure.result()),
    };
    let before = std::mem::replace(trouble, result);
    let (endpoint, upstream) = (&target.endpoint.name, &target.upstream);
    if before != result {
        let agent = format!("agent of endpoint {endpoint} of upstream `{upstream}`");
        match &answer {
            Err(failure) => {
                tracing::warn!("{agent}: {failure}; what it said of itself before still holds");
            }
            Ok(Answer {
                unknown: Some(word),
                ..
            }) => tracing::warn!("{agent}: `{word}` is no word of the protocol"),
            Ok(_) => tracing::info!("{agent}: answers again"),
        }
    }
    let Answer { words, line, .. } = answer.ok()?;
    let said = target.endpoint.said();
    (said.with(&words) != said).then(|| Heard {
        upstream: target.upstream.clone(),
        endpoint: target.endpoint.clone(),
        words,
        why: format!("its agent says `{line}`"),
    })
}

fn class<T>(result: &Result<T, Failure>) -> CheckResult {
    result
        .as_ref()
        .err()
        .map_or(CheckResult::Ok, Failure::result)
}
