//! What is known of one target, and what an answer makes of it.

use std::sync::Arc;

use crate::base::clock::{Nanos, nanos};
use crate::base::rng::Rng;
use crate::config::{HealthSpec, InitState};
use crate::telemetry::metrics::cells::CheckResult;
use crate::upstream::{Endpoint, Health, LastCheck, Proof};

use super::super::agent::{Answer, Heard};
use super::super::ballot::Ballot;
use super::super::check_hash::check_hash;
use super::super::duty::Role;
use super::super::probe::Failure;
use super::super::schedule;
use super::super::threshold::{Evidence, Threshold};
use super::{Ask, Findings, Found, Target, Verdict, Vote};

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) target: Target,
    /// Of agents always [`Role::Alone`].
    pub(super) role: Role,
    pub(super) due: Due,
    state: State,
    /// It has answered, or failed to, at least once.
    was_asked: bool,
}

/// When it is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Then. `later` = it is asked out of turn, and when it was to be asked.
    At { at: Nanos, later: Option<Nanos> },
    /// Others ask it.
    Never,
    /// It is being asked. `is_doubted` = and is to be asked again at once.
    Now {
        later: Option<Nanos>,
        is_doubted: bool,
    },
}

/// What a change of its role asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It begins to be asked.
    Begins,
    /// Nothing.
    GoesOn,
}

#[derive(Debug)]
enum State {
    /// What is wrong with its agent, as the log has it.
    Agent(Option<CheckResult>),
    Check(Checked),
}

#[derive(Debug)]
struct Checked {
    /// What this process makes of it, by `rise` and `fall`.
    threshold: Threshold,
    /// What it says to its fleet, where it is asked for one.
    ballot: Ballot,
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
    pub(super) fn new(target: &Target, role: Role, old: Option<Self>, is_pending: bool) -> Self {
        let state = match &target.ask {
            Ask::Agent(_) => State::Agent(None),
            Ask::Check(spec) => {
                let found = target.endpoint.health();
                let threshold = match old.map(|old| old.state) {
                    // What it is it stays; what it takes to change that is counted anew.
                    Some(State::Check(old)) if is_pending => {
                        Threshold::kept(spec, old.threshold.health())
                    }
                    Some(_) => known(spec, &target.endpoint, found),
                    None => match Threshold::new(spec) {
                        fresh if fresh.health() == found => fresh,
                        // It was known before it became a target (again).
                        _ => known(spec, &target.endpoint, found),
                    },
                };
                State::Check(Checked {
                    threshold,
                    ballot: Ballot::new(threshold),
                    row: 0,
                    last: None,
                })
            }
        };
        Self {
            target: target.clone(),
            role,
            due: Due::Never,
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
                old == new
                    && (checked.threshold.health() == target.endpoint.health()
                        || is_pending
                        || !self.role.judges())
            }
            (Ask::Agent(old), Ask::Agent(new), _) => old == new,
            (Ask::Agent(_) | Ask::Check(_), _, _) => false,
        }
    }

    /// Takes its role from the fleet. What is known of it goes on; what it takes to change that is counted anew
    /// where what is found here begins to hold. `is_pending`: what was found of it has not been handed on.
    pub(super) fn play(&mut self, role: Role, is_pending: bool, votes: &mut Vec<Vote>) -> Turn {
        let before = std::mem::replace(&mut self.role, role);
        let (Ask::Check(spec), State::Check(checked)) = (&self.target.ask, &mut self.state) else {
            return Turn::GoesOn;
        };
        let begins = role.asks() && !before.asks();
        if begins || (role.judges() && !before.judges()) {
            checked.threshold = if begins || !is_pending {
                let endpoint = &self.target.endpoint;
                known(spec, endpoint, endpoint.health())
            } else {
                // That will hold as soon as it is.
                Threshold::kept(spec, checked.threshold.health())
            };
        }
        if begins {
            checked.ballot = Ballot::new(checked.threshold);
            (checked.row, checked.last) = (0, None);
            self.was_asked = false;
        } else if role.votes() && !before.votes() {
            // It was asked before: that counts from now on.
            let vote = checked.vote(&self.target, spec, None);
            votes.extend(vote);
        }
        match self.due {
            Due::Never if begins => Turn::Begins,
            Due::At { .. } if !role.asks() => {
                self.due = Due::Never;
                Turn::GoesOn
            }
            // What is being asked is told what it is when the answer comes.
            Due::At { .. } | Due::Never | Due::Now { .. } => Turn::GoesOn,
        }
    }

    /// A fellow has found it dead: whether it is to be asked now, out of turn.
    pub(super) fn doubt(&mut self, now: Nanos) -> bool {
        match self.due {
            // It is about to be asked.
            Due::At { at, .. } if at <= now => false,
            Due::At { at, later } => {
                let later = later.or(Some(at));
                self.due = Due::At { at: now, later };
                true
            }
            Due::Never => false,
            // This question may have been put before it died.
            Due::Now { later, .. } => {
                self.due = Due::Now {
                    later,
                    is_doubted: true,
                };
                false
            }
        }
    }

    /// It was asked: when it is asked again, by its interval at `next`. A question out of turn moves no other.
    pub(super) fn next(&mut self, next: Nanos, now: Nanos) -> Option<Nanos> {
        let (later, is_doubted) = match self.due {
            Due::Now { later, is_doubted } => (later, is_doubted),
            Due::At { .. } | Due::Never => (None, false),
        };
        if !self.role.asks() {
            self.due = Due::Never;
            return None;
        }
        let regular = later.unwrap_or(next).max(now);
        let (at, later) = if is_doubted && self.role.votes() {
            (now, Some(regular))
        } else {
            (regular, None)
        };
        self.due = Due::At { at, later };
        Some(at)
    }

    /// Whether traffic stands in for the check that is due: of an endpoint that is up, and proved
    /// well within the last interval.
    pub(super) fn is_proved(&self, now: Nanos) -> bool {
        let (Ask::Check(spec), State::Check(checked)) = (&self.target.ask, &self.state) else {
            return false;
        };
        let is_up = match self.role {
            Role::Prober { is_ruled: true, .. } => checked.ballot.cast() == Some(true),
            Role::Alone | Role::Prober { .. } | Role::Spared { .. } => {
                checked.threshold.health() == Health::Up
            }
        };
        let is_young = |at: Nanos| at.saturating_add(nanos(spec.interval)) > now;
        spec.traffic && is_up && self.target.endpoint.well_at().is_some_and(is_young)
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
                checked.judge(&self.target, self.role, spec, &result, findings);
            }
            (Outcome::Proved, Ask::Check(spec), State::Check(checked)) => {
                // It is up already: this only ends a row of failures.
                checked.judge(&self.target, self.role, spec, &Ok(()), findings);
            }
            (Outcome::Agent(_) | Outcome::Check(_) | Outcome::Proved, _, _) => {}
        }
    }

    /// The time from the beginning of this question, at `unix` (nanoseconds since 1970), to the next.
    pub(super) fn wait(&self, unix: impl FnOnce() -> Nanos, rng: &mut Rng) -> Nanos {
        let health = self.target.endpoint.health();
        match (&self.target.ask, &self.state, self.role) {
            (Ask::Check(spec), State::Check(_), Role::Prober { phase, .. }) => {
                schedule::next_in_phase(spec, health, phase, unix())
            }
            (Ask::Check(spec), State::Check(checked), _) => {
                schedule::next(spec, checked.threshold.health(), rng)
            }
            (Ask::Check(spec), State::Agent(_), _) => schedule::next(spec, Health::Up, rng),
            (Ask::Agent(spec), _, _) => schedule::next_agent(spec, rng),
        }
    }
}

// === impl Checked ===

impl Checked {
    /// Takes a result in: a verdict, if that changes what the endpoint is for this process, and a vote, if that is
    /// another one.
    fn judge(
        &mut self,
        target: &Target,
        role: Role,
        spec: &Arc<HealthSpec>,
        result: &Result<(), Failure>,
        findings: &mut Findings,
    ) {
        let evidence = match result {
            Ok(()) => Evidence::Passed,
            Err(Failure::Local(_)) => return,
            Err(_) => Evidence::Failed,
        };
        self.row = match self.last.replace(evidence) {
            Some(last) if last == evidence => self.row.saturating_add(1),
            Some(_) | None => 1,
        };
        let failure = result.as_ref().err();
        if self.ballot.observe(evidence).is_some() && role.votes() {
            findings.votes.extend(self.vote(target, spec, failure));
        }
        if !role.asks() {
            return;
        }
        let is_other = self.threshold.observe(evidence).is_some();
        let health = self.threshold.health();
        if (health, evidence) == (Health::Up, Evidence::Passed) {
            target.endpoint.found_up();
        }
        // What was found and waits to be handed on is not found again by each check until then.
        let waits = |findings: &Findings| {
            let mut found = findings.verdicts.iter().rev();
            let last = found.find(|v| Arc::ptr_eq(&v.endpoint, &target.endpoint));
            last.is_some_and(|v| v.health == health)
        };
        let is_due = is_other
            || (role.votes() && is_to_be_told(target, health, evidence) && !waits(findings));
        if !is_due {
            return;
        }
        let checks = self.checks(spec);
        let why = match failure {
            None => format!("{checks} passed"),
            Some(failure) => format!("{checks} failed, the last with: {failure}"),
        };
        findings.verdicts.push(Verdict {
            upstream: target.upstream.clone(),
            endpoint: target.endpoint.clone(),
            health,
            why,
            by: Found::Here,
        });
    }

    /// What is said to the fleet; `None` = there is nothing to be said yet.
    fn vote(&self, target: &Target, spec: &HealthSpec, failure: Option<&Failure>) -> Option<Vote> {
        let passed = self.ballot.cast()?;
        let why = match failure {
            Some(failure) => failure.to_string(),
            None if passed => format!("{} passed", self.checks(spec)),
            None => format!("a {} check failed", spec.check.as_str()),
        };
        Some(Vote {
            upstream: target.upstream.clone(),
            endpoint: target.endpoint.clone(),
            check: check_hash(spec),
            passed,
            why,
        })
    }

    /// How many in a row, for people.
    fn checks(&self, spec: &HealthSpec) -> String {
        let check = spec.check.as_str();
        match self.row {
            1 => format!("1 {check} check"),
            n => format!("{n} {check} checks in a row"),
        }
    }
}

/// The state of an endpoint that is known to be `health`. Who is down only because nobody has found it up yet is let
/// in by the first check.
fn known(spec: &HealthSpec, endpoint: &Endpoint, health: Health) -> Threshold {
    if health == Health::Down && endpoint.proof() == Proof::Awaited {
        Threshold::begun(spec, InitState::Down)
    } else {
        Threshold::kept(spec, health)
    }
}

/// Whether something else is known of whether this process's own checks find an endpoint down than they do: that it
/// was down before it was asked here is no finding of this process, that it fails then is.
fn is_to_be_told(target: &Target, health: Health, evidence: Evidence) -> bool {
    let is_down_here = target.endpoint.is_down_here();
    match (health, evidence) {
        (Health::Down, Evidence::Failed) => !is_down_here,
        (Health::Down, Evidence::Passed) => false,
        (Health::Unchecked | Health::Up, _) => is_down_here,
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
