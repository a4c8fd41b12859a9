//! One peer's view of shared health: which endpoints it asks, and what the votes say of each.

use std::collections::hash_map::Entry::Vacant;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::base::addr::EndpointAddr;
use crate::base::clock::{Nanos, nanos};
use crate::config::Name;
use crate::fleet::id::PeerId;
use crate::health::duty::{Duty, Phase, Role, Roles};
use crate::health::schedule::SPREAD;

use super::assign::{Roster, subject};
use super::confirm::{Confirms, FLOOR_SHARE};
use super::verdict::{Ruling, verdict};
use super::{Cast, Changes, Ruled, Subject};

/// The state of one peer. Whoever drives it says what has changed, then asks what follows from that
/// ([`Duties::update`]); what is said in between is taken together.
#[derive(Debug)]
pub struct Duties {
    me: PeerId,
    /// How many peers ask each endpoint.
    k: usize,
    roster: Roster,
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
    /// A role has changed since the duty was told.
    is_untold: bool,
}

#[derive(Debug)]
struct Entry {
    subject: Subject,
    hash: u64,
    /// `None` = to be chosen.
    probers: Option<Vec<PeerId>>,
    ruling: Ruling,
    /// What the fleet says is to be told even if it is what it was.
    is_untold: bool,
    role: Role,
    /// Since others are to ask and too few have voted: until when they are waited for.
    waits_until: Option<Nanos>,
    confirms: Confirms,
    is_dirty: bool,
}

/// What a first check may take besides its place in the spread and its time-out: that its prober hears of a change of
/// peers later than others, and its vote on its way.
const SLACK: Duration = Duration::from_secs(2);

// === impl Duties ===

impl Duties {
    /// The state of peer `me`, who knows of nobody and nothing yet. `k` peers ask each endpoint; below 2 there is
    /// nothing to be shared.
    pub fn new(me: PeerId, k: usize) -> Self {
        Self {
            me,
            k,
            roster: Roster::default(),
            entries: Vec::new(),
            index: HashMap::new(),
            dirty: Vec::new(),
            is_stale: false,
            retract: Vec::new(),
            waiting: BTreeSet::new(),
            is_untold: true,
        }
    }

    /// `k` is another one.
    pub fn set_k(&mut self, k: usize) {
        self.is_stale |= self.k != k;
        self.k = k;
    }

    /// The live peers, this one included, and where each stands.
    pub fn set_peers(&mut self, peers: &[(PeerId, Option<Name>)]) {
        self.roster = Roster::new(peers);
        self.is_stale = true;
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
            if let Some(until) = entry.waits_until {
                self.waiting.insert((until, at));
            }
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
        for at in 0..self.entries.len() {
            let entry = &mut self.entries[at];
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
        let probers = entry.probers();
        let votes = probers.iter().filter_map(|prober| {
            let cast = votes(&entry.subject, *prober)?;
            (cast.check == entry.subject.check).then_some((*prober, cast))
        });
        let votes: Vec<_> = votes.collect();
        if entry.is_doubted(self.me, &votes, now) {
            let name = (
                entry.subject.upstream.clone(),
                entry.subject.endpoint.clone(),
            );
            changes.confirm.push(name);
        }
        changes.rulings.extend(entry.rule(&votes));
        if let Some(until) = entry.waits_until {
            self.waiting.remove(&(until, at));
        }
        let role = entry.next_role(self.me, now);
        if let Some(until) = entry.waits_until
            && until > now
        {
            self.waiting.insert((until, at));
        }
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

// === impl Entry ===

impl Entry {
    fn new(of: Subject) -> Self {
        Self {
            hash: subject(&of.upstream, &of.endpoint),
            subject: of,
            probers: None,
            ruling: Ruling::TooFew,
            is_untold: true,
            role: Role::Alone,
            waits_until: None,
            confirms: Confirms::default(),
            is_dirty: true,
        }
    }

    /// The same endpoint, checked as `subject` says from now on.
    fn with(self, subject: Subject) -> Self {
        let stays = self.subject.zone == subject.zone;
        Self {
            probers: self.probers.filter(|_| stays),
            subject,
            is_untold: true,
            is_dirty: true,
            ..self
        }
    }

    fn probers(&self) -> &[PeerId] {
        self.probers.as_deref().unwrap_or_default()
    }

    /// Below two there is nothing to be shared.
    fn choose(&self, k: usize, roster: &Roster) -> Vec<PeerId> {
        if k < 2 {
            return Vec::new();
        }
        roster.probers(k, self.hash, self.subject.zone.as_deref())
    }

    /// Whether a fellow has found it dead that passes by this peer's own vote, and that is a reason to ask now.
    fn is_doubted(&mut self, me: PeerId, votes: &[(PeerId, Cast<'_>)], now: Nanos) -> bool {
        let passes = votes.iter().any(|(of, vote)| *of == me && vote.passed);
        let floor = nanos(self.subject.interval) / Nanos::from(FLOOR_SHARE);
        let mut is_doubted = false;
        for (fellow, vote) in votes.iter().filter(|(of, vote)| *of != me && !vote.passed) {
            // Who has not voted yet is about to ask by himself.
            is_doubted |= if passes {
                self.confirms.hear(*fellow, vote.stamp, now, floor)
            } else {
                self.confirms.note(*fellow, vote.stamp);
                false
            };
        }
        is_doubted
    }

    /// Takes the votes in; what the fleet says of the endpoint, if that is news.
    fn rule(&mut self, votes: &[(PeerId, Cast<'_>)]) -> Option<Ruled> {
        let find = |prober| {
            let vote = votes.iter().find(|(of, _)| *of == prober);
            vote.map(|(_, vote)| vote.passed)
        };
        let ruling = verdict(self.probers(), find);
        let before = std::mem::replace(&mut self.ruling, ruling);
        let is_told_anew = std::mem::take(&mut self.is_untold) && ruling.health().is_some();
        let is_news = std::mem::discriminant(&before) != std::mem::discriminant(&ruling);
        (is_news || is_told_anew).then(|| self.ruled(votes))
    }

    fn ruled(&self, votes: &[(PeerId, Cast<'_>)]) -> Ruled {
        let side = match self.ruling {
            Ruling::Down { .. } => Some(false),
            Ruling::Up { .. } => Some(true),
            Ruling::TooFew | Ruling::Undecided => None,
        };
        let mut of_side: Vec<_> = votes
            .iter()
            .filter(|(_, vote)| Some(vote.passed) == side)
            .collect();
        of_side.sort_by_key(|(_, vote)| vote.stamp);
        let why = match of_side.last() {
            Some((_, vote)) if !vote.why.is_empty() => format!("{}: {}", self.ruling, vote.why),
            Some(_) | None => self.ruling.to_string(),
        };
        Ruled {
            upstream: self.subject.upstream.clone(),
            endpoint: self.subject.endpoint.clone(),
            ruling: self.ruling,
            by: of_side.iter().map(|(of, _)| *of).collect(),
            why,
        }
    }

    /// What this peer does from now on; says until when it waits for others.
    fn next_role(&mut self, me: PeerId, now: Nanos) -> Role {
        let probers = self.probers();
        let is_ruled = self.ruling != Ruling::TooFew;
        let (count, rank) = (probers.len(), probers.iter().position(|of| *of == me));
        if count < 2 {
            self.waits_until = None;
            return Role::Alone;
        }
        if let Some(rank) = rank {
            self.waits_until = None;
            // Evenly apart, whatever chance would make of k places in an interval.
            let apart = u64::MAX / count as u64;
            let phase = Phase(self.hash.wrapping_add(apart.wrapping_mul(rank as u64)));
            return Role::Prober { phase, is_ruled };
        }
        if is_ruled {
            self.waits_until = None;
            return Role::Spared { is_ruled };
        }
        let patience = self.subject.interval.min(SPREAD) + self.subject.timeout + SLACK;
        let until = *self
            .waits_until
            .get_or_insert(now.saturating_add(nanos(patience)));
        if until > now {
            Role::Spared { is_ruled }
        } else {
            Role::Alone
        }
    }
}
