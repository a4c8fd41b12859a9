use std::sync::Barrier;
use std::sync::atomic::AtomicU32;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const S: Nanos = 1_000_000_000;

fn settings(failures: u32, connects: u32) -> Settings {
    Settings {
        failures: NonZeroU32::new(failures),
        connects: NonZeroU32::new(connects),
        ratio: None,
    }
}

fn ratio(above: f64, min_requests: u32) -> Settings {
    Settings {
        ratio: Some(Ratio {
            above,
            min_requests,
            window: 10 * S,
        }),
        ..Settings::default()
    }
}

/// What each observation gives, all at time 0.
fn trips(record: &Record, observed: &[Observed]) -> Vec<Option<Trip>> {
    observed.iter().map(|o| record.observe(*o, 0)).collect()
}

use Observed::{ConnectFailed, Failed, Ok as Fine};

#[test]
fn failures_in_a_row_trip_and_the_next_trip_needs_as_many() {
    let record = Record::new(settings(3, 0));
    let trip = Some(Trip::Failures(3));
    assert_eq!(
        trips(&record, &[Failed; 6]),
        [None, None, trip, None, None, trip]
    );
}

#[test]
fn a_success_ends_both_rows() {
    let record = Record::new(settings(2, 2));
    let observed = [
        Failed,
        Fine,
        Failed,
        Fine,
        ConnectFailed,
        Fine,
        ConnectFailed,
    ];
    assert_eq!(trips(&record, &observed), [None; 7]);
    assert_eq!(record.observe(ConnectFailed, 0), Some(Trip::Connects(2)));
}

#[test]
fn a_failed_connect_is_not_in_the_row_of_the_endpoint_and_does_not_end_it() {
    let record = Record::new(settings(2, 3));
    let observed = [Failed, ConnectFailed, ConnectFailed];
    assert_eq!(trips(&record, &observed), [None; 3]);
    assert_eq!(record.observe(Failed, 0), Some(Trip::Failures(2)));
}

#[test]
fn a_connect_ends_the_row_of_connects_alone() {
    let record = Record::new(settings(2, 2));
    assert_eq!(trips(&record, &[Failed, ConnectFailed]), [None; 2]);
    record.connected();
    assert_eq!(record.observe(ConnectFailed, 0), None);
    assert_eq!(record.observe(Failed, 0), Some(Trip::Failures(2)));
}

#[test]
fn an_answer_that_is_a_failure_ends_the_row_of_connects() {
    let record = Record::new(settings(9, 2));
    let observed = [ConnectFailed, Failed, ConnectFailed, Failed];
    assert_eq!(trips(&record, &observed), [None; 4]);
}

#[test]
fn a_trip_uses_up_the_evidence_of_every_kind() {
    let record = Record::new(Settings {
        failures: NonZeroU32::new(4),
        connects: NonZeroU32::new(2),
        ..ratio(0.5, 6)
    });
    // Connects trip; 3 failures and both connects are gone from the rows and from the window.
    let observed = [Failed, Failed, Failed, ConnectFailed, ConnectFailed];
    assert_eq!(trips(&record, &observed)[4], Some(Trip::Connects(2)));
    assert_eq!(trips(&record, &[Failed; 3]), [None; 3]);
    assert_eq!(record.observe(Failed, 0), Some(Trip::Failures(4)));
}

#[test]
fn a_share_of_both_kinds_trips() {
    let record = Record::new(ratio(0.5, 6));
    let observed = [Fine, Failed, ConnectFailed, Fine, Failed];
    assert_eq!(trips(&record, &observed), [None; 5], "5 requests");
    assert_eq!(record.observe(Fine, 0), None, "3 of 6");
    assert_eq!(
        record.observe(ConnectFailed, 0),
        Some(Trip::Ratio(Counts {
            total: 7,
            failures: 4
        }))
    );
    assert_eq!(trips(&record, &[Failed; 5]), [None; 5], "of 6 anew");
    assert!(record.observe(Failed, 0).is_some());
}

#[test]
fn a_share_is_of_the_latest_time() {
    let record = Record::new(ratio(0.5, 2));
    assert_eq!(record.observe(Failed, 0), None);
    assert_eq!(record.observe(Failed, 10 * S), None);
    assert!(record.observe(Failed, 19 * S).is_some());
}

#[test]
fn nothing_configured_never_trips() {
    let record = Record::new(Settings::default());
    assert_eq!(trips(&record, &[Failed; 100]), [None; 100]);
    assert_eq!(trips(&record, &[ConnectFailed; 100]), [None; 100]);
    let connects_only = Record::new(settings(0, 1));
    assert_eq!(trips(&connects_only, &[Failed; 100]), [None; 100]);
}

#[test]
fn a_reset_forgets_everything() {
    let record = Record::new(Settings {
        ratio: ratio(0.1, 2).ratio,
        ..settings(2, 2)
    });
    assert_eq!(record.observe(Failed, 0), None);
    record.reset();
    assert_eq!(record.observe(ConnectFailed, 0), None);
    record.reset();
    assert_eq!(record.observe(Failed, 0), None);
}

#[test]
fn counts_stop_at_their_greatest() {
    let record = Record::new(settings(0, 0));
    record.rows.store(u64::MAX, Ordering::Relaxed);
    record.observe(ConnectFailed, 0);
    assert_eq!(record.rows.load(Ordering::Relaxed), u64::MAX);
    record.observe(Failed, 0);
    assert_eq!(record.rows.load(Ordering::Relaxed), u64::from(u32::MAX));
}

#[test]
fn trips_are_words_for_people() {
    let counts = Counts {
        total: 20,
        failures: 12,
    };
    let words = [
        (Trip::Failures(1), "1 failure"),
        (Trip::Failures(5), "5 failures in a row"),
        (Trip::Connects(1), "1 failed connect"),
        (Trip::Connects(3), "3 failed connects in a row"),
        (Trip::Ratio(counts), "12 of 20 requests failed"),
    ];
    for (trip, text) in words {
        assert_eq!(trip.to_string(), text);
    }
}

#[test]
fn of_threads_that_race_one_gets_the_trip() {
    const THREADS: u32 = 4;
    let by = [
        settings(THREADS, 0),
        ratio(0.5, THREADS),
        Settings {
            ratio: ratio(0.5, THREADS).ratio,
            ..settings(THREADS, 0)
        },
    ];
    for settings in by {
        for _ in 0..200 {
            let record = Record::new(settings);
            let (start, trips) = (Barrier::new(THREADS as usize), AtomicU32::new(0));
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        if record.observe(Failed, 0).is_some() {
                            trips.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(trips.into_inner(), 1, "{settings:?}");
        }
    }
}

#[test]
fn evidence_that_several_threads_saw_is_used_once() {
    const THREADS: u32 = 4;
    for settings in [settings(1, 0), ratio(0.5, 1)] {
        let record = Record::new(settings);
        let trips = AtomicU32::new(0);
        thread::scope(|scope| {
            let verdict = record.verdict.lock().unwrap();
            for _ in 0..THREADS {
                scope.spawn(|| {
                    if record.observe(Failed, 0).is_some() {
                        trips.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // Each has enough for a trip before any may have it.
            while failures(record.rows.load(Ordering::Relaxed)) < THREADS {
                thread::yield_now();
            }
            drop(verdict);
        });
        assert_eq!(trips.into_inner(), 1, "{settings:?}");
    }
}

#[test]
fn threads_never_get_more_trips_than_there_is_evidence() {
    const THREADS: u32 = 4;
    const EACH: u32 = 10_000;
    let record = Record::new(settings(10, 0));
    let trips = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    if record.observe(Failed, 0).is_some() {
                        trips.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let trips = trips.into_inner();
    assert!((1..=THREADS * EACH / 10).contains(&trips), "{trips}");
}

proptest! {
    /// The rows against the rules read aloud.
    #[test]
    fn rows_agree_with_the_model(
        limits in (0..6u32, 0..6u32),
        observed in vec(prop_oneof![Just(Fine), Just(Failed), Just(ConnectFailed)], 0..100),
    ) {
        let record = Record::new(settings(limits.0, limits.1));
        let (mut failures, mut connects) = (0, 0);
        for observed in observed {
            match observed {
                Fine => (failures, connects) = (0, 0),
                Failed => (failures, connects) = (failures + 1, 0),
                ConnectFailed => connects += 1,
            }
            let expected = if limits.0 > 0 && failures >= limits.0 {
                Some(Trip::Failures(failures))
            } else if limits.1 > 0 && connects >= limits.1 {
                Some(Trip::Connects(connects))
            } else {
                None
            };
            if expected.is_some() {
                (failures, connects) = (0, 0);
            }
            prop_assert_eq!(record.observe(observed, 0), expected);
        }
    }
}

// --- Sentences ---

#[test]
fn each_further_ejection_is_twice_as_long_up_to_the_longest() {
    let mut sentence = Sentence::default();
    let mut now = 5 * S;
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        assert!(!sentence.is_ejected(now));
        let until = sentence.begin(now, 10 * S, 300 * S);
        assert_eq!(until, now + seconds * S);
        assert!(sentence.is_ejected(until - 1) && !sentence.is_ejected(until));
        now = until + 10 * S - 1;
    }
}

#[test]
fn each_time_that_it_was_well_forgets_one_doubling() {
    let mut sentence = Sentence::default();
    let mut now = 0;
    for _ in 0..4 {
        now = sentence.begin(now, 10 * S, 300 * S);
    }
    // The next would be 160 s; well for two and a half times 10 s: 40 s.
    now += 25 * S;
    assert_eq!(sentence.begin(now, 10 * S, 300 * S), now + 40 * S);
    now += 40 * S + 1_000 * S;
    assert_eq!(sentence.begin(now, 10 * S, 300 * S), now + 10 * S);
    // However often it was ejected at the longest: from 300 s (doubled five times) 50 s to the base.
    for _ in 0..50 {
        now = sentence.begin(now, 10 * S, 300 * S);
    }
    now += 50 * S;
    assert_eq!(sentence.begin(now, 10 * S, 300 * S), now + 10 * S);
}

#[test]
fn while_it_is_ejected_nothing_makes_it_longer() {
    let mut sentence = Sentence::default();
    let until = sentence.begin(0, 10 * S, 300 * S);
    let before = sentence;
    assert_eq!(sentence.begin(5 * S, 10 * S, 300 * S), until);
    assert_eq!(sentence, before);
}

#[test]
fn a_check_that_passes_ends_it_and_the_next_is_still_longer() {
    let mut sentence = Sentence::default();
    sentence.begin(0, 10 * S, 300 * S);
    sentence.end(3 * S);
    assert!(!sentence.is_ejected(3 * S));
    assert_eq!(sentence.begin(4 * S, 10 * S, 300 * S), 24 * S);
    sentence.end(100 * S);
    assert_eq!(sentence.until, 24 * S, "it had ended before");
}

#[test]
fn odd_settings_give_a_sentence() {
    let mut none = Sentence::default();
    assert_eq!(none.begin(7, 0, 300 * S), 7);
    assert_eq!(none.begin(7, 0, 300 * S), 7);
    let mut short = Sentence::default();
    assert_eq!(short.begin(0, 10 * S, 3 * S), 3 * S, "the longest wins");
    let mut long = Sentence::default();
    for _ in 0..100 {
        long.begin(long.until, 1, Nanos::MAX);
    }
    assert_eq!(long.until, Nanos::MAX);
    // Settings that a reload changed hold from the next one on.
    let mut changed = Sentence::default();
    changed.begin(0, 10 * S, 300 * S);
    assert_eq!(changed.begin(10 * S, S, 300 * S), 12 * S);
}

#[test]
fn at_least_one_may_be_ejected_and_never_the_last_ready_one() {
    // total, share, how many one after the other, all being ready at first.
    let rows = [
        (0, 0.5, 0),
        (1, 0.5, 0),
        (1, 1.0, 0),
        (2, 0.0, 1),
        (2, 0.1, 1),
        (2, 0.5, 1),
        (2, 1.0, 1),
        (3, 0.1, 1),
        (3, 0.5, 1),
        (3, 0.7, 2),
        (3, 1.0, 2),
        (10, 0.1, 1),
        (10, 0.3, 3),
        (10, 0.5, 5),
        (10, 0.99, 9),
        (10, 1.0, 9),
        (10, f64::NAN, 1),
    ];
    for (total, share, expected) in rows {
        let mut ejected = 0;
        while may_eject(ejected, total - ejected, total, share) {
            ejected += 1;
        }
        assert_eq!(ejected, expected, "{total} hosts, {share}");
    }
    assert!(!may_eject(0, 1, 10, 1.0), "nine are down");
    assert!(!may_eject(0, 0, 10, 1.0));
    assert!(may_eject(0, 2, 10, 0.1));
}

#[test]
fn whole_percentages_are_exact() {
    for total in 2..=300 {
        for percent in 0..=100 {
            let most = (total * percent / 100).max(1);
            let share = percent as f64 / 100.0;
            assert!(
                may_eject(most - 1, total, total, share),
                "{total}, {percent} %"
            );
            assert!(
                !may_eject(most, total, total, share),
                "{total}, {percent} %"
            );
        }
    }
}
