//! One peer's view of shared health: which endpoints it asks, and what the votes say of each.

use std::collections::hash_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Nanos, nanos};
use crate::config::Name;
use crate::fleet::id::PeerId;
use crate::fleet::stamp::Stamp;
use crate::health::duty::{Duty, Role, Roles};

use super::assign::Roster;
use super::entry::Entry;
use super::verdict::Ruling;
use super::{Cast, Changes, Subject};

/// The state of one peer. Whoever drives it says what has changed, then asks what follows from that
/// ([`Duties::update`]); what is said in between is taken together.
#[derive(Debug)]
pub struct Duties {
    me: PeerId,
    /// How many peers ask each endpoint.
    k: usize,
    roster: Roster,
    /// The one that probers were last chosen of.
    chosen_of: Roster,
    entries: Vec<Entry>,
    index: HashMap<Name, HashMap<EndpointAddr, usize>>,
    /// Entries to be judged again, each once.
    dirty: Vec<usize>,
    /// The peers have changed since the probers were chosen.
    is_stale: bool,
    /// Votes given up since the last update.
    retract: Vec<(Name, EndpointAddr)>,
    /// Entries that wait for others to vote, by when that ends.
    waiting: BTreeSet<(Nanos, usize)>,
    /// Peers that came lately.
    came: BTreeMap<PeerId, Came>,
    /// A role has changed since the duty was told.
    is_untold: bool,
}

/// When a peer came, and from when on it says what it finds.
#[derive(Clone, Copy, Debug)]
struct Came {
    at: Nanos,
    since: Stamp,
}

/// How long a vote from before its peer came does not count: it may have said something else since, and that is heard
/// by then. Between two comparisons there are 12 s at most, and what one of them finds is pushed to all within a
/// second; who has just started has asked by then.
pub(super) const SETTLE: Duration = Duration::from_secs(13);

// === impl Duties ===

impl Duties {
    /// The state of peer `me`, who knows of nobody and nothing yet. `k` peers ask each endpoint; below 2 there is
    /// nothing to be shared.
    pub fn new(me: PeerId, k: usize) -> Self {
        Self {
            me,
            k,
            roster: Roster::default(),
            chosen_of: Roster::default(),
            entries: Vec::new(),
            index: HashMap::new(),
            dirty: Vec::new(),
            is_stale: false,
            retract: Vec::new(),
            waiting: BTreeSet::new(),
            came: BTreeMap::new(),
            is_untold: true,
        }
    }

    /// `k` is another one.
    pub fn set_k(&mut self, k: usize) {
        if self.k != k {
            self.k = k;
            self.is_stale = true;
            // Of nobody nothing is kept.
            self.chosen_of = Roster::default();
        }
    }

    /// The live peers, this one included, and where each stands.
    pub fn set_peers(&mut self, peers: &[(PeerId, Option<Name>)]) {
        self.roster = Roster::new(peers);
        self.is_stale = true;
    }

    /// A peer is there that was not, or that has begun anew: what it found before `since` counts for nothing until it
    /// says so again, or until it would have said something else (13 s). What the fleet says of an endpoint stays
    /// meanwhile, if the others who ask it are too few.
    pub fn came(&mut self, peer: PeerId, since: Stamp, now: Nanos) {
        let before = self.came.get(&peer).map(|came| came.since);
        let since = before.map_or(since, |before| before.max(since));
        self.came.insert(peer, Came { at: now, since });
    }

    /// All endpoints that are checked; who was there before keeps his state. What the fleet says of each is told
    /// anew: whoever changes the set may have made the endpoints anew.
    pub fn set_subjects(&mut self, subjects: impl IntoIterator<Item = Subject>) {
        let mut before: Vec<Option<Entry>> = std::mem::take(&mut self.entries)
            .into_iter()
            .map(Some)
            .collect();
        let places = std::mem::take(&mut self.index);
        self.dirty.clear();
        self.waiting.clear();
        for subject in subjects {
            let at = self.entries.len();
            let of_upstream = self.index.entry(subject.upstream.clone()).or_default();
            let Vacant(place) = of_upstream.entry(subject.endpoint.clone()) else {
                continue;
            };
            place.insert(at);
            let old = places
                .get(&subject.upstream)
                .and_then(|places| places.get(&subject.endpoint))
                .and_then(|place| before[*place].take());
            let entry = match old {
                Some(old) => old.with(subject),
                None => Entry::new(subject),
            };
            let times = entry.wakes_at();
            self.waiting.extend(times.map(|until| (until, at)));
            self.dirty.push(at);
            self.entries.push(entry);
        }
        let gone = before.into_iter().flatten().filter(|e| e.role.votes());
        let names = gone.map(|e| (e.subject.upstream, e.subject.endpoint));
        self.retract.extend(names);
        self.is_untold = true;
    }

    /// A vote on an endpoint was cast, changed or taken back; whoever's it is.
    pub fn heard(&mut self, upstream: &str, endpoint: &EndpointAddr) {
        if let Some(at) = self.place(upstream, endpoint) {
            self.touch(at);
        }
    }

    /// What follows from all that was said since the last time. `votes` looks a vote up.
    pub fn update<'f>(
        &mut self,
        now: Nanos,
        votes: impl Fn(&Subject, PeerId) -> Option<Cast<'f>>,
    ) -> Changes {
        if std::mem::take(&mut self.is_stale) {
            self.choose_all();
        }
        self.came.retain(|_, came| came.settles_at() > now);
        // In order, so that an entry is there once: those whose time to wait is over, by the clock.
        while let Some((until, at)) = self.waiting.first().copied()
            && until <= now
        {
            self.waiting.remove(&(until, at));
            self.touch(at);
        }
        let mut changes = Changes {
            retract: std::mem::take(&mut self.retract),
            ..Changes::default()
        };
        for at in std::mem::take(&mut self.dirty) {
            self.judge(at, now, &votes, &mut changes);
        }
        if std::mem::take(&mut self.is_untold) {
            changes.duty = Some(Arc::new(self.duty()));
        }
        changes
    }

    /// When [`Duties::update`] is due though nothing is said.
    pub fn next_due(&self) -> Option<Nanos> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Whether something was said since the last update.
    pub fn is_due(&self) -> bool {
        self.is_stale || self.is_untold || !self.dirty.is_empty() || !self.retract.is_empty()
    }

    /// What this peer does about an endpoint; `None` = it is not checked.
    pub fn role(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<Role> {
        Some(self.entry(upstream, endpoint)?.role)
    }

    /// What the fleet said of an endpoint last; `None` = it is not checked.
    pub fn ruling(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<Ruling> {
        Some(self.entry(upstream, endpoint)?.ruling)
    }

    /// Who asks an endpoint, as of the last update: whom a vote on it is sent to at once.
    pub fn probers(&self, upstream: &str, endpoint: &EndpointAddr) -> &[PeerId] {
        let entry = self.entry(upstream, endpoint);
        entry.map_or(&[], Entry::probers)
    }

    /// How many endpoints this peer asks for others.
    pub fn mine(&self) -> usize {
        let voted = self.entries.iter().filter(|entry| entry.role.votes());
        voted.count()
    }

    /// How many endpoints are checked.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn place(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<usize> {
        self.index.get(upstream)?.get(endpoint).copied()
    }

    fn entry(&self, upstream: &str, endpoint: &EndpointAddr) -> Option<&Entry> {
        self.entries.get(self.place(upstream, endpoint)?)
    }

    fn touch(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        if !std::mem::replace(&mut entry.is_dirty, true) {
            self.dirty.push(at);
        }
    }

    /// Chooses the probers of all endpoints; those with others than before are to be judged again.
    fn choose_all(&mut self) {
        let step = self.chosen_of.step(&self.roster, self.k);
        self.chosen_of = self.roster.clone();
        for at in 0..self.entries.len() {
            let entry = &mut self.entries[at];
            if !entry.is_moved_by(&step) {
                continue;
            }
            let probers = entry.choose(self.k, &self.roster);
            if entry.probers.as_ref() != Some(&probers) {
                entry.confirms.retain(&probers);
                entry.probers = Some(probers);
                self.touch(at);
            }
        }
    }

    fn judge<'f>(
        &mut self,
        at: usize,
        now: Nanos,
        votes: &impl Fn(&Subject, PeerId) -> Option<Cast<'f>>,
        changes: &mut Changes,
    ) {
        let entry = &mut self.entries[at];
        entry.is_dirty = false;
        if entry.probers.is_none() {
            entry.probers = Some(entry.choose(self.k, &self.roster));
        }
        for until in entry.wakes_at() {
            self.waiting.remove(&(until, at));
        }
        let probers = entry.probers();
        let votes = probers.iter().filter_map(|prober| {
            let cast = votes(&entry.subject, *prober)?;
            (cast.check == entry.subject.check).then_some((*prober, cast))
        });
        let mut votes: Vec<_> = votes.collect();
        let is_old = |(prober, cast): &(PeerId, Cast<'_>)| {
            let came = self.came.get(prober);
            came.filter(|came| cast.stamp < came.since)
        };
        let old = votes.iter().filter_map(is_old);
        entry.settles_at = old.map(Came::settles_at).min();
        votes.retain(|vote| is_old(vote).is_none());
        if entry.is_doubted(self.me, &votes, now) {
            let name = (
                entry.subject.upstream.clone(),
                entry.subject.endpoint.clone(),
            );
            changes.confirm.push(name);
        }
        changes.rulings.extend(entry.rule(&votes));
        let role = entry.next_role(self.me, now);
        let times = entry.wakes_at().filter(|until| *until > now);
        self.waiting.extend(times.map(|until| (until, at)));
        let before = std::mem::replace(&mut entry.role, role);
        if before.votes() && !role.votes() {
            let subject = &entry.subject;
            let name = (subject.upstream.clone(), subject.endpoint.clone());
            changes.retract.push(name);
        }
        self.is_untold |= before != role;
    }

    fn duty(&self) -> Duty {
        let mut roles = Roles::with_capacity(self.index.len());
        for (upstream, places) in &self.index {
            let of_upstream = places
                .iter()
                .map(|(endpoint, at)| (endpoint.clone(), self.entries[*at].role));
            roles.insert(upstream.clone(), of_upstream.collect());
        }
        Duty::Shared(roles)
    }
}

// === impl Came ===

impl Came {
    fn settles_at(&self) -> Nanos {
        self.at.saturating_add(nanos(SETTLE))
    }
}
