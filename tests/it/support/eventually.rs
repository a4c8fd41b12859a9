//! Waiting for what can only be asked: counters, metrics, progress of other threads.

use std::time::Duration;

use super::{deadline, remaining};

/// Asks every 5 ms until `is_so`, within the deadline.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = deadline();
    while !is_so() {
        pause(remaining(end, what).min(Duration::from_millis(5)));
    }
}

/// Waits until `progress` has stood still for 400 ms, and returns where it stands. A loaded machine
/// can stop it early: a fault may then be missed, none is invented.
#[track_caller]
pub fn stalled(what: &str, progress: impl Fn() -> usize) -> usize {
    let end = deadline();
    let (mut last, mut still) = (progress(), 0);
    while still < 20 {
        pause(remaining(end, what).min(Duration::from_millis(20)));
        let now = progress();
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
    }
    last
}

fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
