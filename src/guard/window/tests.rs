use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const S: Nanos = 1_000_000_000;
const LENGTH: Nanos = 10 * S;

fn counts(total: u32, failures: u32) -> Counts {
    Counts { total, failures }
}

#[test]
fn it_counts_the_bucket_of_now_and_the_nine_before() {
    let window = Window::new(LENGTH);
    assert_eq!(window.counts(0), counts(0, 0));
    window.observe(true, 0);
    window.observe(false, S - 1);
    window.observe(false, S);
    assert_eq!(window.counts(S), counts(3, 1));
    assert_eq!(window.counts(LENGTH - 1), counts(3, 1));
    assert_eq!(window.counts(LENGTH), counts(1, 0), "the first bucket left");
    assert_eq!(window.counts(11 * S), counts(0, 0));
}

#[test]
fn what_is_later_than_now_is_not_counted() {
    let window = Window::new(LENGTH);
    window.observe(true, 21 * S);
    assert_eq!(window.counts(20 * S), counts(0, 0));
    assert_eq!(window.counts(11 * S), counts(0, 0), "the same slot");
    assert_eq!(window.counts(21 * S), counts(1, 1));
}

#[test]
fn a_late_observation_counts_in_its_own_bucket_or_not_at_all() {
    let window = Window::new(LENGTH);
    window.observe(false, 25 * S);
    window.observe(true, 24 * S);
    assert_eq!(window.counts(25 * S), counts(2, 1));
    window.observe(true, 15 * S);
    assert_eq!(window.counts(25 * S), counts(2, 1), "its slot is taken");
    assert_eq!(window.counts(24 * S), counts(1, 1));
}

#[test]
fn a_reset_forgets_everything_at_any_time() {
    for lap in [0, 1, LAP_MASK - AHEAD, LAP_MASK, LAP_MASK + 1] {
        let window = Window::new(LENGTH);
        let now = lap * LENGTH + 3 * S;
        window.observe(true, now);
        assert_eq!(window.counts(now), counts(1, 1), "lap {lap}");
        window.reset();
        assert_eq!(window.counts(now), counts(0, 0), "lap {lap}");
        window.observe(false, now);
        assert_eq!(window.counts(now), counts(1, 0), "lap {lap}");
    }
}

/// Laps are kept modulo 2^20: what is quiet for long must be heard again, at the latest after
/// the few laps that count as ahead.
#[test]
fn after_any_quiet_time_it_counts_again() {
    for quiet in [1, 2, LAP_MASK / 2, LAP_MASK / 2 + 1, LAP_MASK - AHEAD] {
        let window = Window::new(LENGTH);
        window.observe(true, 5 * LENGTH);
        let now = (5 + quiet) * LENGTH;
        assert_eq!(window.counts(now), counts(0, 0), "quiet for {quiet} laps");
        window.observe(false, now);
        assert_eq!(window.counts(now), counts(1, 0), "quiet for {quiet} laps");
    }
    let window = Window::new(LENGTH);
    window.observe(true, 5 * LENGTH);
    let end_of_ahead = (5 + LAP_MASK + 1 + 1) * LENGTH;
    window.observe(false, end_of_ahead);
    assert_eq!(window.counts(end_of_ahead), counts(1, 0));
}

#[test]
fn a_full_bucket_is_halved_and_its_share_stays() {
    let window = Window::new(LENGTH);
    let word = pack(0, FULL - 1, FULL / 4);
    window.buckets[0].store(word, Ordering::Relaxed);
    window.observe(true, 0);
    assert_eq!(window.counts(0), counts(FULL as u32, FULL as u32 / 4 + 1));
    window.observe(true, 0);
    let half = FULL as u32 / 2;
    assert_eq!(window.counts(0), counts(half + 1, FULL as u32 / 8 + 1));
    // All failed: failures never exceed requests.
    window.buckets[0].store(pack(0, FULL + 1, FULL + 1), Ordering::Relaxed);
    window.observe(true, 0);
    assert_eq!(window.counts(0), counts(half + 1, half + 1));
}

#[test]
fn ten_full_buckets_do_not_overflow() {
    let window = Window::new(LENGTH);
    for bucket in &window.buckets {
        let word = pack(0, COUNT_MASK, COUNT_MASK);
        bucket.store(word, Ordering::Relaxed);
    }
    let most = 10 * COUNT_MASK as u32;
    assert_eq!(window.counts(LENGTH - 1), counts(most, most));
}

#[test]
fn lengths_that_ten_does_not_divide_are_rounded_up() {
    for (length, width) in [
        (0, 1),
        (1, 1),
        (10, 1),
        (11, 2),
        (Nanos::MAX, Nanos::MAX / 10 + 1),
    ] {
        let window = Window::new(length);
        assert_eq!(window.width, width);
        window.observe(true, Nanos::MAX);
        assert_eq!(window.counts(Nanos::MAX), counts(1, 1));
    }
}

#[test]
fn a_ratio_wants_enough_requests_and_more_than_its_share() {
    let ratio = Ratio {
        above: 0.5,
        min_requests: 10,
        window: LENGTH,
    };
    assert!(!ratio.is_exceeded_by(counts(9, 9)));
    assert!(!ratio.is_exceeded_by(counts(10, 5)));
    assert!(ratio.is_exceeded_by(counts(10, 6)));
    let never = Ratio {
        above: 1.0,
        ..ratio
    };
    assert!(!never.is_exceeded_by(counts(10, 10)));
    let any = Ratio {
        above: 0.0,
        min_requests: 0,
        window: LENGTH,
    };
    assert!(!any.is_exceeded_by(counts(0, 0)));
    assert!(any.is_exceeded_by(counts(1, 1)));
}

#[test]
fn threads_lose_no_count() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let window = Window::new(LENGTH);
    // A lap other than the first, so that the threads race to roll the buckets over as well.
    let start = 7 * LENGTH;
    for slot in 0..10 {
        window.observe(true, start - LENGTH + slot * S);
    }
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let window = &window;
            scope.spawn(move || {
                for i in 0..EACH {
                    let now = start + (i + thread) % 10 * S;
                    window.observe(i % 4 == 0, now);
                }
            });
        }
    });
    let sum = (THREADS * EACH) as u32;
    assert_eq!(window.counts(start + 9 * S), counts(sum, sum / 4));
}

/// Every observation by itself, the module docs read aloud.
#[derive(Default)]
struct Model {
    seen: Vec<(u64, bool)>,
}

impl Model {
    fn observe(&mut self, failed: bool, epoch: u64) {
        let same_slot = |other: u64| other % BUCKETS == epoch % BUCKETS;
        if self.seen.iter().any(|&(e, _)| same_slot(e) && e > epoch) {
            return;
        }
        self.seen.retain(|&(e, _)| !same_slot(e) || e == epoch);
        self.seen.push((epoch, failed));
    }

    fn counts(&self, epoch: u64) -> Counts {
        let last = || {
            self.seen
                .iter()
                .filter(|(e, _)| *e <= epoch && e + BUCKETS > epoch)
        };
        counts(
            last().count() as u32,
            last().filter(|(_, failed)| *failed).count() as u32,
        )
    }
}

proptest! {
    #[test]
    fn it_agrees_with_the_model(
        length in 1..5_000u64,
        start in 0..1_000_000u64,
        // How far time goes on, mostly little, and how far this thread is behind, in thousandths
        // of the length.
        steps in vec(
            (
                any::<bool>(),
                prop_oneof![0..100u64, 0..3_000u64],
                prop_oneof![Just(0u64), 0..200u64, 0..3_000u64],
            ),
            1..200,
        ),
    ) {
        let window = Window::new(length);
        let mut model = Model::default();
        let mut latest = start;
        for (failed, forward, behind) in steps {
            latest += forward * length / 1_000;
            let now = latest.saturating_sub(behind * length / 1_000);
            let epoch = now / window.width;
            window.observe(failed, now);
            model.observe(failed, epoch);
            prop_assert_eq!(window.counts(now), model.counts(epoch));
        }
    }
}
