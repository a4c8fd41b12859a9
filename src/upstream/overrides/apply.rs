//! Applying what an operator asks for, and ending what has expired.

use crate::balance::PolicyKind;
use crate::config::{self, Config};
use crate::telemetry::history::utc;

use super::{
    AdminState, Applied, By, Change, Effective, Entry, Expired, MAX_ENTRIES, MAX_OWNER, MAX_REASON,
    MAX_WEIGHT, Override, Overrides, Part, Refused, Said, Verb, effective, effective_members,
    is_usable, listed,
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
        let listed = listed(spec, &change.endpoint);
        let current = self.entry(&spec.name, &change.endpoint);
        let before = effective(listed, current);
        let next = decide(&change, spec, listed, current, now_unix_ms)?;
        let dropped = dropped(&change, current);
        if current.is_none() && next.is_some() && self.len() >= MAX_ENTRIES {
            return Err(Refused::Full);
        }
        let after = effective(listed, next.as_ref());
        let until = change.expires_unix_ms.filter(|_| match change.verb {
            Verb::Clear | Verb::Undrain => false,
            Verb::Add { .. } | Verb::Disable | Verb::Drain | Verb::Remove | Verb::SetWeight(_) => {
                next.is_some()
            }
        });
        self.put(&spec.name, &change.endpoint, next);
        let mut notes = notes(&change, spec, listed, self);
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
        self.upstreams.retain(|upstream, endpoints| {
            endpoints.retain(|endpoint, entry| {
                let ended = |part| Expired {
                    upstream: upstream.clone(),
                    endpoint: endpoint.clone(),
                    part,
                    text: format!(
                        "upstream `{upstream}`, endpoint {endpoint}: {} by {} has expired",
                        entry.words(part),
                        entry
                            .parts()
                            .find(|(p, _)| *p == part)
                            .map_or(String::new(), |(_, by)| by.to_string()),
                    ),
                };
                let parts = entry.parts().filter(|(_, by)| by.has_expired(now_unix_ms));
                expired.extend(parts.map(|(part, _)| ended(part)));
                let live = |by: &By| !by.has_expired(now_unix_ms);
                match entry {
                    Entry::Added { weight, over } => {
                        keep(over, live);
                        live(&weight.by)
                    }
                    Entry::Over(over) => {
                        keep(over, live);
                        !over.is_empty()
                    }
                    Entry::Removed(by) => live(by),
                }
            });
            !endpoints.is_empty()
        });
        expired
    }

    /// When [`expire`](Self::expire) has something to do next, in milliseconds since 1970.
    pub fn next_expiry(&self) -> Option<u64> {
        let entries = self.upstreams.values().flat_map(|e| e.values());
        let parts = entries.flat_map(Entry::parts);
        parts.filter_map(|(_, by)| by.expires_unix_ms).min()
    }
}

fn keep(over: &mut Override, live: impl Fn(&By) -> bool) {
    over.state.take_if(|said| !live(&said.by));
    over.weight.take_if(|said| !live(&said.by));
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
    listed: Option<u32>,
    current: Option<&Entry>,
    now_unix_ms: u64,
) -> Result<Option<Entry>, Refused> {
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
    // A member, and what is said of it beside an addition.
    let over = || match current {
        Some(Entry::Added { over, .. }) => Ok(over.clone()),
        Some(Entry::Over(over)) if listed.is_some() => Ok(over.clone()),
        None if listed.is_some() => Ok(Override::default()),
        Some(Entry::Removed(by)) => Err(Refused::Removed {
            upstream: upstream(),
            endpoint: endpoint(),
            by: by.to_string(),
        }),
        Some(Entry::Over(_)) | None => Err(unknown()),
    };
    let with = |over: Override| match current {
        Some(Entry::Added { weight, .. }) => Some(Entry::Added {
            weight: weight.clone(),
            over,
        }),
        Some(Entry::Over(_) | Entry::Removed(_)) | None => Entry::over(over),
    };
    let state = |value| {
        let by = by();
        let state = Some(Said { value, by });
        Ok(with(Override { state, ..over()? }))
    };
    match change.verb {
        Verb::Add { .. } | Verb::Remove if !spec.dynamic => Err(Refused::NotDynamic {
            upstream: upstream(),
        }),
        Verb::Add { weight } => match (listed, current) {
            (_, Some(Entry::Added { .. })) | (Some(_), Some(Entry::Over(_)) | None) => {
                Err(Refused::AlreadyThere {
                    upstream: upstream(),
                    endpoint: endpoint(),
                })
            }
            // The file's endpoint comes back, with a weight of its own if it has one.
            (Some(file), Some(Entry::Removed(_))) => {
                let weight = weight.filter(|w| *w != file);
                let weight = weight.map(|value| Said { value, by: by() });
                Ok(Entry::over(Override {
                    state: None,
                    weight,
                }))
            }
            (None, Some(Entry::Over(_) | Entry::Removed(_)) | None) => {
                if !is_usable(&change.endpoint) {
                    return Err(Refused::Address {
                        text: change.endpoint.to_string().escape_debug().to_string(),
                    });
                }
                let value = weight.unwrap_or(1);
                Ok(Some(Entry::Added {
                    weight: Said { value, by: by() },
                    over: Override::default(),
                }))
            }
        },
        Verb::Clear => match (listed, current) {
            (None, None) => Err(unknown()),
            (_, Some(Entry::Added { .. })) => Ok(with(Override::default())),
            (_, Some(Entry::Over(_) | Entry::Removed(_)) | None) => Ok(None),
        },
        Verb::Disable => state(AdminState::Disable),
        Verb::Drain => state(AdminState::Drain),
        Verb::Remove => match (listed, current) {
            (None, Some(Entry::Added { .. })) => Ok(None),
            (Some(_), _) => Ok(Some(Entry::Removed(by()))),
            (None, Some(Entry::Over(_) | Entry::Removed(_)) | None) => Err(unknown()),
        },
        Verb::SetWeight(value) => {
            let by = by();
            let weight = Some(Said { value, by });
            Ok(with(Override { weight, ..over()? }))
        }
        Verb::Undrain => Ok(with(Override {
            state: None,
            ..over()?
        })),
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
fn dropped(change: &Change, current: Option<&Entry>) -> Vec<String> {
    let Some(entry) = current.filter(|_| change.verb == Verb::Remove) else {
        return Vec::new();
    };
    entry
        .parts()
        .filter(|(part, _)| matches!(part, Part::State | Part::Weight))
        .map(|(part, by)| format!("{} by {by} is dropped with it", entry.words(part)))
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
        if listed == Some(weight) {
            notes.push(format!(
                "the file says weight {weight} too: the next reload drops the override as redundant"
            ));
        }
    }
    let is_added = overrides
        .entry(name, &change.endpoint)
        .is_some_and(|e| e.parts().any(|(part, _)| part == Part::Added));
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
