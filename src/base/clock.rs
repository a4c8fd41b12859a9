//! The one place that reads the clocks; everything pure takes the time as an argument.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a monotonic clock whose zero is arbitrary: what the data path carries as a time.
pub type Nanos = u64;

/// The clocks of this machine; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock(());

// === impl Clock ===

impl Clock {
    /// The clocks.
    pub fn start() -> Self {
        Self(())
    }

    /// The monotonic time (wraps after 584 years of uptime). Read directly: `Instant` would be
    /// subtracted from another one at a cost that shows, five times a request.
    #[inline]
    pub fn now(&self) -> Nanos {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    /// What to add to [`Clock::now`] for nanoseconds since 1970; moves as the wall clock is set.
    pub fn unix_offset(&self) -> u64 {
        // A clock before 1970 reads as 1970.
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        unix.map_or(0, |d| d.as_nanos() as u64)
            .wrapping_sub(self.now())
    }

    /// Milliseconds since 1970; a clock before 1970 reads as 1970.
    pub fn unix_ms(&self) -> u64 {
        self.now().wrapping_add(self.unix_offset()) / 1_000_000
    }
}

/// `duration` in [`Nanos`], saturating.
pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
