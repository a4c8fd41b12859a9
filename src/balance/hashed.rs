//! What ring, maglev and rendezvous share: a table of slots, each owned by a member.
//!
//! A key's hash names a slot. The owners are chosen over ALL members, so that a member that goes and
//! comes back moves its own keys only; beside them stands the same table with every slot of an
//! unready owner given to its next choice, so that a pick reads one entry and skips nobody.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use super::bound::Bound;
use super::ready::{Ready, in_flight};
use super::{Ask, Balancer, Member};
use crate::base::hash::{hash, mix};
use crate::base::load::Load;

/// Slots a pick walks past members that are tried or full before it looks through the whole list:
/// enough to pass 1,000 slots of one heavy member, and still below 1 us.
const MAX_WALK: usize = 1024;

/// A way to give slots to members.
pub(super) trait Table: Debug + Send + Sync + Sized + 'static {
    /// Builds the table; `previous` may save work but never changes the result.
    fn build(entries: &[Entry<'_>], members: usize, previous: Option<&Self>) -> Self;

    /// Member index by slot.
    fn owners(&self) -> &Arc<[u32]>;

    /// The slot of a key; below the number of owners unless there are none.
    fn slot(&self, key: &[u8]) -> usize;

    /// The owners with every slot of a non-candidate given to its next choice: here the next slot
    /// of a candidate, in a circle. `is_candidate` has a flag for every member.
    fn resolve(&self, ready: &Ready, is_candidate: &[bool]) -> Arc<[u32]> {
        step_on(self.owners(), ready, is_candidate)
    }
}

/// A member as tables see it: independent of its place in the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Index in the members.
    pub(super) index: u32,
    /// `host:port`.
    pub(super) name: &'a str,
    /// 0 for the first member of a name, 1 for the second ..: equal names must not own equal slots.
    pub(super) ordinal: u32,
    /// Above 0.
    pub(super) weight: u32,
}

/// A hash policy over one table.
#[derive(Debug)]
pub(super) struct Hashed<T> {
    basis: Arc<Basis<T>>,
    /// Member index by slot, candidates only; empty when nobody is ready.
    resolved: Arc<[u32]>,
    ready: Ready,
    bound: Option<Bound>,
}

/// The table and what it was built from; kept while members and weights stay.
#[derive(Debug)]
struct Basis<T> {
    members: Box<[Member]>,
    table: T,
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// Every member with a weight above 0, ordered by identity: tables come out the same whatever
    /// the order of the configuration or of discovery.
    fn list(members: &'a [Member]) -> Vec<Self> {
        let mut entries: Vec<Self> = members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.weight > 0)
            .map(|(i, member)| Self {
                index: i as u32,
                name: &member.name,
                ordinal: 0,
                weight: member.weight,
            })
            .collect();
        entries.sort_by_key(|entry| (entry.name, entry.weight, entry.index));
        for i in 1..entries.len() {
            if entries[i].name == entries[i - 1].name {
                entries[i].ordinal = entries[i - 1].ordinal + 1;
            }
        }
        entries
    }

    /// Stable hash of the identity.
    pub(super) fn seed(&self) -> u64 {
        match self.ordinal {
            0 => hash(self.name.as_bytes()),
            nth => mix(hash(self.name.as_bytes()) ^ u64::from(nth)),
        }
    }
}

// === impl Hashed ===

impl<T: Table> Hashed<T> {
    /// Takes over the table of `previous` when members and weights are the same.
    pub(super) fn new(
        members: &[Member],
        ready_flags: &[bool],
        bounded_load: Option<f64>,
        previous: Option<&Self>,
    ) -> Self {
        let ready = Ready::new(members, ready_flags);
        let mut is_candidate = vec![false; members.len()];
        for &index in ready.indices() {
            is_candidate[index as usize] = true;
        }
        // When every ready member has weight 0 each counts as 1, in the table too.
        let has_weight = ready
            .indices()
            .iter()
            .any(|&i| members[i as usize].weight > 0);
        let floor = u32::from(!has_weight);
        let counted = |m: &Member| Member {
            name: m.name.clone(),
            weight: m.weight.max(floor),
        };
        let same =
            |basis: &Basis<T>| {
                basis.members.len() == members.len()
                    && basis.members.iter().zip(members).all(|(old, new)| {
                        old.weight == new.weight.max(floor) && old.name == new.name
                    })
            };
        let basis = match previous {
            Some(previous) if same(&previous.basis) => Arc::clone(&previous.basis),
            _ => {
                let members: Box<[Member]> = members.iter().map(counted).collect();
                let table = T::build(
                    &Entry::list(&members),
                    members.len(),
                    previous.map(|p| &p.basis.table),
                );
                Arc::new(Basis { members, table })
            }
        };
        let resolved = if ready.is_empty() {
            Arc::default()
        } else {
            basis.table.resolve(&ready, &is_candidate)
        };
        let bound = bounded_load.map(|factor| Bound::new(factor, &ready, members.len()));
        Self {
            basis,
            resolved,
            ready,
            bound,
        }
    }

    /// The first member from `slot` on that is untried and has room; else the least loaded untried
    /// one; `None` when all were tried. `total` is what is in flight over all.
    #[cold]
    fn walk(&self, slot: usize, ask: &Ask<'_>, total: u64) -> Option<usize> {
        let has_room = |index: usize| {
            self.bound
                .as_ref()
                .is_none_or(|b| b.has_room(index, in_flight(ask.loads, index), total))
        };
        let mut before = None;
        let (head, tail) = self.resolved.split_at(slot);
        for &owner in tail.iter().chain(head).take(MAX_WALK) {
            let index = owner as usize;
            if before.replace(owner) != Some(owner)
                && !ask.tried.contains(&index)
                && has_room(index)
            {
                return Some(index);
            }
        }
        least_loaded(&self.ready, ask.loads, ask.tried)
    }
}

impl<T: Table> Balancer for Hashed<T> {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        if self.resolved.is_empty() {
            return None;
        }
        let slot = match ask.key {
            Some(key) => self.basis.table.slot(key),
            // No key: a random slot, so that keyless traffic is spread as keys are.
            None => ask.rng.below(self.resolved.len()),
        };
        let owner = self.resolved[slot] as usize;
        let is_tried = !ask.tried.is_empty() && ask.tried.contains(&owner);
        let Some(bound) = &self.bound else {
            return if is_tried {
                self.walk(slot, ask, 0).or(Some(owner))
            } else {
                Some(owner)
            };
        };
        let look = bound.look(&self.ready, ask.loads);
        let has_room = bound.has_room(owner, in_flight(ask.loads, owner), look.total);
        let picked = if has_room && !is_tried {
            owner
        } else {
            self.walk(slot, ask, look.total).unwrap_or(owner)
        };
        bound.settle(&look, picked, in_flight(ask.loads, picked) + 1);
        Some(picked)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

/// The untried candidate with the fewest (in flight + 1) / weight.
fn least_loaded(ready: &Ready, loads: &[Arc<Load>], tried: &[usize]) -> Option<usize> {
    (0..ready.len())
        .filter(|&position| !tried.contains(&ready.index(position)))
        .min_by(|&a, &b| {
            let load = |p: usize| u64::from(in_flight(loads, ready.index(p))) + 1;
            let (weight_a, weight_b) = (ready.weight(a), ready.weight(b));
            (load(a) * u64::from(weight_b)).cmp(&(load(b) * u64::from(weight_a)))
        })
        .map(|position| ready.index(position))
}

/// See [`Table::resolve`].
pub(super) fn step_on(owners: &Arc<[u32]>, ready: &Ready, is_candidate: &[bool]) -> Arc<[u32]> {
    let stays = |owner: u32| is_candidate[owner as usize];
    if owners.iter().all(|&owner| stays(owner)) && !owners.is_empty() {
        return Arc::clone(owners);
    }
    let Some(first) = owners.iter().copied().find(|&owner| stays(owner)) else {
        // No candidate owns a slot (more members than slots): all take turns.
        let slots = owners.len().max(ready.len());
        return (0..slots)
            .map(|slot| ready.index(slot % ready.len()) as u32)
            .collect();
    };
    let mut resolved: Vec<u32> = owners.to_vec();
    let mut next = first;
    for owner in resolved.iter_mut().rev() {
        if stays(*owner) {
            next = *owner;
        } else {
            *owner = next;
        }
    }
    resolved.into()
}
