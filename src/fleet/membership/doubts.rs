//! Suspicions that nobody follows up any longer.
//!
//! Who suspects a peer sets a timer, and says that it is down when that ends. Foca drops the timer with its own
//! identity (others held *it* to be down), and who heard of the suspicion from it never had one. The suspect
//! refutes what it hears; if that got lost it is suspected for ever, though it answers every probe: those carry
//! the life of it that is suspected. So after a while the doubt is over, and the next probe decides.

use std::collections::BTreeMap;

use foca::{Incarnation, Member, State};

use super::Membership;
use super::identity::{Identity, LEFT};
use super::settings::config;
use crate::base::clock::{Nanos, nanos};

/// Who is suspected in which of its foca's incarnations, and since when at least.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<(Identity, Incarnation), Nanos>);

/// A suspicion that is followed up has ended after one of its times, or after two if the timer was late.
const TIMES: u32 = 3;

impl Membership {
    /// Ends what is no more than a memory of a suspicion; looked at whenever it looks around.
    pub(super) fn end_doubts(&mut self, now: Nanos) {
        let suspects = self.foca.iter_members();
        let suspects = suspects.filter(|m| m.state() == State::Suspect);
        let before = std::mem::take(&mut self.doubts.0);
        let since = suspects.map(|m| {
            let doubt = (*m.id(), m.incarnation());
            (doubt, before.get(&doubt).copied().unwrap_or(now))
        });
        self.doubts.0 = since.collect();
        let lasts = nanos(config(self.size, self.payload).suspect_to_down_after * TIMES);
        let is_over = |since: &Nanos| now.saturating_sub(*since) > lasts;
        let over = self.doubts.0.iter().filter(|(_, since)| is_over(since));
        // As if it had refuted. If it has not and is suspected again it hears of an incarnation that it has not
        // had yet, and refutes that one.
        let next = |incarnation: Incarnation| incarnation.saturating_add(1).min(LEFT - 1);
        let trusted: Vec<_> = over
            .map(|((id, incarnation), _)| Member::new(*id, next(*incarnation), State::Alive))
            .collect();
        if !trusted.is_empty() {
            let result = self
                .foca
                .apply_many(trusted.into_iter(), false, &mut self.effects);
            self.took(&result, now);
        }
    }
}
