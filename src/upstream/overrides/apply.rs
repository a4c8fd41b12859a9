//! Applying what an operator asks for, and ending what has expired.

use crate::balance::PolicyKind;
use crate::config::{self, Config};
use crate::telemetry::history::utc;

use super::{
    AdminState, Applied, By, Change, Effective, Expired, Field, Ground, MAX_ENTRIES, MAX_OWNER,
    MAX_REASON, MAX_WEIGHT, Membership, Overrides, Part, Parts, Refused, Said, Verb,
    effective_members, is_usable,
};

// === impl Overrides ===

impl Overrides {
    /// Does what an operator asks for, or nothing. `config` is what is served now.
    ///
    /// # Errors
    /// [`Refused`]; the set is unchanged.
    pub fn apply(
        &mut self,
        change: Change,
        config: &Config,
        now_unix_ms: u64,
    ) -> Result<Applied, Refused> {
        check(&change, now_unix_ms)?;
        let found = config.upstreams.iter().find(|u| u.name == change.upstream);
        let Some(spec) = found else {
            return Err(Refused::UnknownUpstream {
                upstream: change.upstream,
            });
        };
        let ground = Ground::of(spec, self, &change.endpoint);
        let current = self.entry(&spec.name, &change.endpoint);
        let before = ground.effective(current);
        let next = decide(&change, spec, &ground, current, now_unix_ms)?;
        let dropped = dropped(&change, current);
        if current.is_none() && !next.is_empty() && self.len() >= MAX_ENTRIES {
            return Err(Refused::Full);
        }
        let after = ground.effective(Some(&next));
        let (listed, registered) = (ground.listed, ground.registered.map(|r| r.by.clone()));
        let until = change.expires_unix_ms.filter(|_| match change.verb {
            Verb::Clear | Verb::Undrain => false,
            Verb::Add { .. } | Verb::Disable | Verb::Drain | Verb::Remove | Verb::SetWeight(_) => {
                !next.is_empty()
            }
        });
        self.put(&spec.name, &change.endpoint, next);
        self.speak(&spec.name, &change.endpoint, speaks_of(change.verb));
        let mut notes = notes(&change, spec, listed, self);
        if change.verb == Verb::Remove
            && let Some(registered) = registered
        {
            notes.push(format!(
                "it is {registered}, and stays out all the same until it is added again"
            ));
        }
        notes.extend(dropped);
        Ok(Applied {
            text: describe(&change, before, after, until),
            upstream: spec.name.clone(),
            endpoint: change.endpoint,
            before,
            after,
            notes,
        })
    }

    /// Ends what has expired by `now_unix_ms`, in order of upstream, endpoint and part. What was said
    /// of an added endpoint ends with its addition.
    pub fn expire(&mut self, now_unix_ms: u64) -> Vec<Expired> {
        let mut expired = Vec::new();
        let fleet = &self.fleet;
        self.upstreams.retain(|upstream, endpoints| {
            endpoints.retain(|endpoint, parts| {
                let ended = |(part, by): (Part, &By)| Expired {
                    upstream: upstream.clone(),
                    endpoint: endpoint.clone(),
                    part,
                    text: format!(
                        "upstream `{upstream}`, endpoint {endpoint}: {} by {by} has expired",
                        parts.words(part),
                    ),
                };
                let over = parts.said().filter(|(_, by)| by.has_expired(now_unix_ms));
                expired.extend(over.map(ended));
                let has_joined = parts.joins();
                let is_over = |by: &By| by.has_expired(now_unix_ms);
                parts.member.take_if(|said| is_over(&said.by));
                parts.state.take_if(|said| is_over(&said.by));
                parts.weight.take_if(|said| is_over(&said.by));
                // In a fleet it may be a member without it.
                let is_gone = has_joined && !parts.joins() && !fleet.contains_key(upstream);
                !is_gone && !parts.is_empty()
            });
            !endpoints.is_empty()
        });
        expired
    }

    /// When [`expire`](Self::expire) has something to do next, in milliseconds since 1970.
    pub fn next_expiry(&self) -> Option<u64> {
        let entries = self.upstreams.values().flat_map(|e| e.values());
        let parts = entries.flat_map(Parts::said);
        parts.filter_map(|(_, by)| by.expires_unix_ms).min()
    }
}

/// The parts that a verb speaks of.
fn speaks_of(verb: Verb) -> &'static [Field] {
    match verb {
        Verb::Add { .. } | Verb::Clear | Verb::Remove => &Field::ALL,
        Verb::Disable | Verb::Drain | Verb::Undrain => &[Field::State],
        Verb::SetWeight(_) => &[Field::Weight],
    }
}

/// The bounds of a change, before anybody asks what it is about.
fn check(change: &Change, now_unix_ms: u64) -> Result<(), Refused> {
    check_texts(&change.owner, &change.reason)?;
    if let Some(expires_unix_ms) = change.expires_unix_ms
        && expires_unix_ms <= now_unix_ms
    {
        return Err(Refused::Expiry {
            expires_unix_ms,
            now_unix_ms,
        });
    }
    let (Verb::Add { weight: Some(w) } | Verb::SetWeight(w)) = change.verb else {
        return Ok(());
    };
    if w > MAX_WEIGHT {
        return Err(Refused::Weight { weight: w });
    }
    Ok(())
}

/// The bounds of what an operator writes.
pub(super) fn check_texts(owner: &str, reason: &str) -> Result<(), Refused> {
    if owner.is_empty() {
        return Err(Refused::NoOwner);
    }
    for (what, text, max) in [("owner", owner, MAX_OWNER), ("reason", reason, MAX_REASON)] {
        if text.len() > max {
            let bytes = text.len();
            return Err(Refused::TooLong { what, bytes });
        }
        // They are shown on terminals and in logs, one line each.
        if text.contains(char::is_control) {
            return Err(Refused::ControlCharacter { what });
        }
    }
    Ok(())
}

/// What is said of the endpoint after the change.
fn decide(
    change: &Change,
    spec: &config::Upstream,
    ground: &Ground<'_>,
    current: Option<&Parts>,
    now_unix_ms: u64,
) -> Result<Parts, Refused> {
    let upstream = || spec.name.clone();
    let endpoint = || change.endpoint.clone();
    let unknown = || Refused::UnknownEndpoint {
        upstream: upstream(),
        endpoint: endpoint(),
    };
    let by = || By {
        owner: change.owner.clone(),
        reason: change.reason.clone(),
        since_unix_ms: now_unix_ms,
        expires_unix_ms: change.expires_unix_ms,
    };
    let is_member = ground.effective(current).is_some();
    let leaves = current.and_then(Parts::leaves);
    let parts = current.cloned().unwrap_or_default();
    // Of members only: what is said of them besides.
    let said = || match leaves {
        _ if is_member => Ok(parts.clone()),
        Some(by) => Err(Refused::Removed {
            upstream: upstream(),
            endpoint: endpoint(),
            by: by.to_string(),
        }),
        None => Err(unknown()),
    };
    let member = |value| {
        let by = by();
        Parts {
            member: Some(Said { value, by }),
            ..Parts::default()
        }
    };
    let state = |value| {
        let by = by();
        let state = Some(Said { value, by });
        Ok(Parts { state, ..said()? })
    };
    match change.verb {
        Verb::Add { .. } | Verb::Remove if !spec.dynamic => Err(Refused::NotDynamic {
            upstream: upstream(),
        }),
        Verb::Add { .. } if is_member => Err(Refused::AlreadyThere {
            upstream: upstream(),
            endpoint: endpoint(),
        }),
        Verb::Add { weight } => match ground.weight() {
            // The endpoint that was removed comes back, with a weight of its own if it has one.
            Some(own) => {
                let weight = weight.filter(|w| *w != own);
                let weight = weight.map(|value| Said { value, by: by() });
                Ok(Parts {
                    weight,
                    ..Parts::default()
                })
            }
            None if !is_usable(&change.endpoint) => Err(Refused::Address {
                text: change.endpoint.to_string().escape_debug().to_string(),
            }),
            None => Ok(member(Membership::Joins(weight.unwrap_or(1)))),
        },
        Verb::Clear if ground.weight().is_none() && current.is_none() => Err(unknown()),
        Verb::Clear => Ok(Parts {
            member: parts.member.filter(|_| current.is_some_and(Parts::joins)),
            ..Parts::default()
        }),
        Verb::Disable => state(AdminState::Disable),
        Verb::Drain => state(AdminState::Drain),
        Verb::Remove if !is_member && leaves.is_none() => Err(unknown()),
        // Nobody but an operator says that it is a member.
        Verb::Remove if is_member && ground.weight().is_none() => Ok(Parts::default()),
        Verb::Remove => Ok(member(Membership::Leaves)),
        Verb::SetWeight(value) => {
            let by = by();
            let weight = Some(Said { value, by });
            Ok(Parts { weight, ..said()? })
        }
        Verb::Undrain => Ok(Parts {
            state: None,
            ..said()?
        }),
    }
}

fn describe(
    change: &Change,
    before: Option<Effective>,
    after: Option<Effective>,
    until: Option<u64>,
) -> String {
    let mut parts = Vec::new();
    match (before, after) {
        (None, None) => parts.push("not a member, as before".to_owned()),
        (None, Some(after)) => parts.push(format!("joins with weight {}", after.weight)),
        (Some(_), None) => parts.push("leaves".to_owned()),
        (Some(before), Some(after)) => {
            if before.weight != after.weight {
                parts.push(format!("weight {} -> {}", before.weight, after.weight));
            }
            if before.state != after.state {
                let (from, to) = (
                    AdminState::word(before.state),
                    AdminState::word(after.state),
                );
                parts.push(format!("{from} -> {to}"));
            }
            if parts.is_empty() {
                let (weight, state) = (after.weight, AdminState::word(after.state));
                parts.push(format!("weight {weight}, {state}, as before"));
            }
        }
    }
    let mut text = format!(
        "upstream `{}`, endpoint {}: {}",
        change.upstream,
        change.endpoint,
        parts.join(", ")
    );
    if let Some(end) = until {
        text.push_str(&format!(", until {}", utc(end)));
    }
    text
}

/// What a removal takes with it: an endpoint that comes back starts without it.
fn dropped(change: &Change, current: Option<&Parts>) -> Vec<String> {
    let Some(parts) = current.filter(|_| change.verb == Verb::Remove) else {
        return Vec::new();
    };
    parts
        .said()
        .filter(|(part, _)| matches!(part, Part::State | Part::Weight))
        .map(|(part, by)| format!("{} by {by} is dropped with it", parts.words(part)))
        .collect()
}

/// What the operator should know: effects that differ from what the verb promises.
fn notes(
    change: &Change,
    spec: &config::Upstream,
    listed: Option<u32>,
    overrides: &Overrides,
) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &spec.name;
    if let Verb::SetWeight(weight)
    | Verb::Add {
        weight: Some(weight),
    } = change.verb
    {
        if let PolicyKind::RoundRobin | PolicyKind::First = spec.policy.kind {
            notes.push(format!(
                "the policy of upstream `{name}` ignores weights; `balance = \"weighted\"` takes turns by weight"
            ));
        }
        if listed == Some(weight) && !overrides.is_fleets(name) {
            notes.push(format!(
                "the file says weight {weight} too: the next reload drops the override as redundant"
            ));
        }
    }
    let is_added = overrides
        .entry(name, &change.endpoint)
        .is_some_and(Parts::joins);
    if change.verb == Verb::Clear && is_added {
        notes.push("the endpoint was added by an operator and stays; remove it to end that".into());
    }
    let members = effective_members(spec, overrides);
    let mut open = members.iter().filter(|m| m.state.is_none()).peekable();
    if open.peek().is_none() {
        notes.push(format!(
            "no endpoint of upstream `{name}` takes new picks: new requests get 503"
        ));
    } else if open.all(|m| m.weight == 0) {
        notes.push(format!(
            "every active endpoint of upstream `{name}` has weight 0: they share evenly"
        ));
    }
    notes
}
