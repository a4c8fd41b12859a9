//! When to look, and whether what is seen is a change.

use crate::base::clock::Nanos;

/// Quiet for this long: an editor's several steps of one save, a tool's several files.
const QUIET: Nanos = 100_000_000;

/// Looked at after this long, even if it is never quiet (a log in the same folder).
const AT_MOST: Nanos = 1_000_000_000;

/// Many events, one look.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    /// The first event and the last one that were not looked at.
    pending: Option<(Nanos, Nanos)>,
}

/// The hash of the text that needs no report: `None` = there was none to read.
#[derive(Debug)]
pub(super) struct Known(Option<u64>);

// === impl Debounce ===

impl Debounce {
    pub(super) fn touch(&mut self, now: Nanos) {
        let first = self.pending.map_or(now, |(first, _)| first);
        self.pending = Some((first, now));
    }

    /// When to look; `None`: nothing happened.
    pub(super) fn due(&self) -> Option<Nanos> {
        let (first, last) = self.pending?;
        Some((last + QUIET).min(first + AT_MOST))
    }

    pub(super) fn clear(&mut self) {
        self.pending = None;
    }
}

// === impl Known ===

impl Known {
    pub(super) fn new(hash: u64) -> Self {
        Self(Some(hash))
    }

    /// Whether what is seen is to be reported; from then on it is known.
    pub(super) fn notice(&mut self, seen: Option<u64>) -> bool {
        let is_change = self.0 != seen;
        self.0 = seen;
        is_change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn nothing_happened_nothing_is_due() {
        assert_eq!(Debounce::default().due(), None);
    }

    #[test]
    fn every_event_puts_the_look_off_until_it_is_quiet() {
        let mut debounce = Debounce::default();
        debounce.touch(0);
        assert_eq!(debounce.due(), Some(100 * MS));
        debounce.touch(60 * MS);
        assert_eq!(debounce.due(), Some(160 * MS));
        debounce.clear();
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn folder_that_is_never_quiet_is_looked_at_after_a_second() {
        let mut debounce = Debounce::default();
        for at in (0..2000).step_by(50) {
            debounce.touch(at * MS);
        }
        assert_eq!(debounce.due(), Some(1000 * MS));
        debounce.clear();
        debounce.touch(2000 * MS);
        assert_eq!(debounce.due(), Some(2100 * MS), "counted anew");
    }

    #[test]
    fn only_another_text_is_a_change_and_each_is_reported_once() {
        let mut known = Known::new(7);
        assert!(!known.notice(Some(7)), "touched, or saved as it was");
        assert!(known.notice(Some(8)));
        assert!(!known.notice(Some(8)), "refused, and nothing new since");
        assert!(known.notice(None), "deleted");
        assert!(!known.notice(None));
        assert!(
            known.notice(Some(7)),
            "put back: what serves is in the file"
        );
    }
}
