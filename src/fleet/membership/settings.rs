//! How foca is set.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

/// A header names up to three peers, some 40 bytes each.
pub(super) const SHORTEST: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// A fleet of up to as many is treated as one of as many.
pub(super) const SMALLEST: u32 = 8;

/// For a fleet of `size`.
pub(super) fn config(size: u32, payload: NonZeroUsize) -> Config {
    let of = |size: u32| Config::new_lan(NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN));
    Config {
        max_packet_size: payload,
        // Who has just begun knows a few of many, and news cost nothing when there are none.
        max_transmissions: of(size.max(1000)).max_transmissions,
        remove_down_after: Some(DOWN_FOR),
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: KNOCK_EVERY,
            num_members: const { NonZeroUsize::new(2).unwrap() },
        }),
        ..of(size)
    }
}

/// One in two that are gone comes back within this time after it is reachable: with foca's 65 s a split of half
/// an hour would heal in minutes.
const KNOCK_EVERY: Duration = Duration::from_secs(5);

/// How long it is known that a life is over, as facts are (`fact::GC_AFTER`); at most this many, some 400 kB: a
/// fleet of a thousand that is replaced four times a day.
pub(super) const DOWN_FOR: Duration = Duration::from_secs(24 * 3600);
pub(super) const MAX_DOWN: usize = 4096;
