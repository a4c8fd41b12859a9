//! `first`: the first ready endpoint in the order of the configuration; the others are its spares.

use super::ready::Ready;
use super::{Ask, Balancer, Member};

/// The head of the ready list.
#[derive(Debug)]
pub(super) struct First {
    ready: Ready,
}

// === impl First ===

impl First {
    /// The order is that of `members`.
    pub(super) fn new(members: &[Member], ready: &[bool]) -> Self {
        Self {
            ready: Ready::new(members, ready),
        }
    }
}

impl Balancer for First {
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        if self.ready.is_empty() {
            return None;
        }
        let position = self
            .ready
            .untried_from(0, |index| ask.tried.contains(&index));
        Some(self.ready.index(position.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use crate::balance::PolicyKind::First;
    use crate::balance::fixture::Bench;

    #[test]
    fn spares_follow_in_order() {
        let mut bench = Bench::new(First, &[1, 0, 1, 1]);
        assert_eq!(bench.picks(3), [0, 0, 0]);
        assert_eq!(bench.pick_after(&[0]), Some(2));
        bench.set_ready(0, false);
        assert_eq!(bench.picks(2), [2, 2]);
        assert_eq!(
            bench.pick_after(&[3, 2]),
            Some(2),
            "all tried: the first again"
        );
    }
}
