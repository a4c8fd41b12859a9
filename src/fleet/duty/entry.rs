//! What one peer knows of one endpoint's shared health. Pure.

use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::id::PeerId;
use crate::health::duty::{Phase, Role};
use crate::health::schedule::SPREAD;

use super::assign::{Roster, Step, subject};
use super::confirm::{Confirms, FLOOR_SHARE};
use super::verdict::{Ruling, verdict};
use super::{Cast, Ruled, Subject};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) hash: u64,
    /// `None` = to be chosen.
    pub(super) probers: Option<Vec<PeerId>>,
    pub(super) ruling: Ruling,
    /// What the fleet says is to be told even if it is what it was.
    pub(super) is_untold: bool,
    pub(super) role: Role,
    /// Since others are to ask and too few have voted: until when they are waited for.
    pub(super) waits_until: Option<Nanos>,
    /// Votes from before their peers went away do not count: when the first of them does again.
    pub(super) settles_at: Option<Nanos>,
    pub(super) confirms: Confirms,
    pub(super) is_dirty: bool,
}

/// What a first check may take besides its place in the spread and its time-out: that its prober hears of a change of
/// peers later than others, and its vote on its way.
const SLACK: Duration = Duration::from_secs(2);

// === impl Entry ===

impl Entry {
    pub(super) fn new(of: Subject) -> Self {
        Self {
            hash: subject(&of.upstream, &of.endpoint),
            subject: of,
            probers: None,
            ruling: Ruling::TooFew,
            is_untold: true,
            role: Role::Alone,
            waits_until: None,
            settles_at: None,
            confirms: Confirms::default(),
            is_dirty: true,
        }
    }

    /// The same endpoint, checked as `subject` says from now on.
    pub(super) fn with(self, subject: Subject) -> Self {
        let stays = self.subject.zone == subject.zone;
        Self {
            probers: self.probers.filter(|_| stays),
            subject,
            is_untold: true,
            is_dirty: true,
            ..self
        }
    }

    /// When it is to be judged again though nothing is said.
    pub(super) fn wakes_at(&self) -> impl Iterator<Item = Nanos> + use<> {
        [self.waits_until, self.settles_at].into_iter().flatten()
    }

    pub(super) fn probers(&self) -> &[PeerId] {
        self.probers.as_deref().unwrap_or_default()
    }

    /// Below two there is nothing to be shared.
    pub(super) fn choose(&self, k: usize, roster: &Roster) -> Vec<PeerId> {
        if k < 2 {
            return Vec::new();
        }
        roster.probers(k, self.hash, self.subject.zone.as_deref())
    }

    /// Whether its probers may be others after `step`.
    pub(super) fn is_moved_by(&self, step: &Step) -> bool {
        let zone = self.subject.zone.as_deref();
        let probers = self.probers.as_deref();
        probers.is_none_or(|probers| step.moves(probers, self.hash, zone))
    }

    /// Whether a fellow has found it dead that passes by this peer's own vote, and that is a reason to ask now.
    pub(super) fn is_doubted(
        &mut self,
        me: PeerId,
        votes: &[(PeerId, Cast<'_>)],
        now: Nanos,
    ) -> bool {
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
    pub(super) fn rule(&mut self, votes: &[(PeerId, Cast<'_>)]) -> Option<Ruled> {
        let find = |prober| {
            let vote = votes.iter().find(|(of, _)| *of == prober);
            vote.map(|(_, vote)| vote.passed)
        };
        let ruling = match verdict(self.probers(), find) {
            // Those who came back are about to say.
            Ruling::TooFew if self.settles_at.is_some() => self.ruling,
            ruling => ruling,
        };
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
    pub(super) fn next_role(&mut self, me: PeerId, now: Nanos) -> Role {
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
