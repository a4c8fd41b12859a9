//! When something was said: a hybrid logical clock.
//!
//! Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases", 2014: the wall clock while it goes forward, and a counter where it does not, so that
//! whatever is said after something was heard bears a later stamp than it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Milliseconds since 1970 in the upper 48 bits (until the year 10889), a counter in the lower 16.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Stamp(pub u64);

/// Gives stamps, each later than all that it gave or saw before.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Stamp,
}

/// A stamp is of a time that is yet to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("its clock is {}.{:03} s ahead", .by_ms / 1000, .by_ms % 1000)]
pub struct Ahead {
    /// How far.
    pub by_ms: u64,
}

const COUNTER_BITS: u32 = 16;

// === impl Stamp ===

impl Stamp {
    /// The first stamp of a millisecond since 1970.
    pub const fn at(unix_ms: u64) -> Self {
        Self(unix_ms << COUNTER_BITS)
    }

    /// The same, as if it had been given so much earlier.
    #[must_use]
    pub const fn earlier(self, by_ms: u64) -> Self {
        Self(self.0.saturating_sub(Self::at(by_ms).0))
    }

    /// Its time in milliseconds since 1970.
    pub const fn unix_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.unix_ms(), self.0 & 0xffff)
    }
}

// === impl HybridClock ===

impl HybridClock {
    /// A stamp for what is said now. A counter that is full borrows from the millisecond to come.
    pub fn next(&mut self, unix_ms: u64) -> Stamp {
        let next = self.last.0.saturating_add(1);
        self.last = Stamp::at(unix_ms).max(Stamp(next));
        self.last
    }

    /// Takes note of a stamp that was heard.
    ///
    /// # Errors
    /// It is further ahead than `max_skew`; then it is as if it had not been heard.
    pub fn hear(&mut self, stamp: Stamp, unix_ms: u64, max_skew: Duration) -> Result<(), Ahead> {
        let by_ms = stamp.unix_ms().saturating_sub(unix_ms);
        if u128::from(by_ms) > max_skew.as_millis() {
            return Err(Ahead { by_ms });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(5);

    #[test]
    fn stamps_grow_though_the_clock_stands_or_goes_back() {
        let mut clock = HybridClock::default();
        let mut last = Stamp::default();
        for unix_ms in [1000, 1000, 1001, 900, 900, 1001, 1002] {
            let stamp = clock.next(unix_ms);
            assert!(stamp > last);
            last = stamp;
        }
        assert_eq!(last, Stamp::at(1002));
        for _ in 0..70_000 {
            let stamp = clock.next(1002);
            assert!(stamp > last);
            last = stamp;
        }
        assert_eq!(last.unix_ms(), 1003, "a full counter borrows");
    }

    #[test]
    fn what_is_said_after_something_was_heard_is_later_than_it() {
        let mut clock = HybridClock::default();
        let heard = Stamp::at(6000);
        clock.hear(heard, 1000, SKEW).unwrap();
        assert!(clock.next(1000) > heard);
    }

    #[test]
    fn who_is_too_far_ahead_is_not_heard() {
        let mut clock = HybridClock::default();
        let by_ms = 5001;
        assert_eq!(
            clock.hear(Stamp::at(6001), 1000, SKEW),
            Err(Ahead { by_ms })
        );
        assert_eq!(clock.next(1000), Stamp::at(1000));
        assert_eq!(Ahead { by_ms }.to_string(), "its clock is 5.001 s ahead");
    }
}
