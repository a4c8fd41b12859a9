use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};
use std::thread;

use super::*;
use crate::base::rng::Rng;

const S: Nanos = 1_000_000_000;
const OPEN_FOR: Nanos = 5 * S;

fn breaker(trials: u32) -> Breaker {
    Breaker::new(Settings {
        ratio: Some(Ratio {
            above: 0.5,
            min_requests: 4,
            window: 10 * S,
        }),
        open_for: OPEN_FOR,
        trials: NonZeroU32::new(trials).unwrap(),
    })
}

fn closed(breaker: &Breaker, now: Nanos) -> Pass {
    match breaker.admit(now) {
        Admit::Closed(pass) => pass,
        other => panic!("not closed at {now}: {other:?}"),
    }
}

fn trial(breaker: &Breaker, now: Nanos) -> (Pass, Option<Change>) {
    match breaker.admit(now) {
        Admit::Trial(pass, change) => (pass, change),
        other => panic!("no trial at {now}: {other:?}"),
    }
}

fn refused(breaker: &Breaker, now: Nanos) -> Nanos {
    match breaker.admit(now) {
        Admit::Refused { retry_after } => retry_after,
        other => panic!("not refused at {now}: {other:?}"),
    }
}

/// Opens a closed breaker with four failures at `now`.
fn open(breaker: &Breaker, now: Nanos) {
    let changes: Vec<_> = (0..4)
        .map(|_| breaker.observe(closed(breaker, now), true, now))
        .collect();
    let opened = Change::Opened(Counts {
        total: 4,
        failures: 4,
    });
    assert_eq!(changes, [None, None, None, Some(opened)]);
}

#[test]
fn it_opens_above_its_ratio_and_refuses_with_the_time_left() {
    let breaker = breaker(1);
    for failed in [true, false, false, true] {
        assert_eq!(breaker.observe(closed(&breaker, 0), failed, 0), None);
    }
    assert_eq!(breaker.state(0), State::Closed);
    let change = breaker.observe(closed(&breaker, S), true, S);
    let counts = Counts {
        total: 5,
        failures: 3,
    };
    assert_eq!(change, Some(Change::Opened(counts)));
    assert_eq!(breaker.state(S), State::Open);
    assert_eq!(refused(&breaker, S), OPEN_FOR);
    assert_eq!(refused(&breaker, S + OPEN_FOR - 1), 1);
    assert_eq!(breaker.state(S + OPEN_FOR), State::HalfOpen);
}

#[test]
fn without_a_ratio_it_stays_closed() {
    let breaker = Breaker::new(Settings {
        ratio: None,
        open_for: OPEN_FOR,
        trials: NonZeroU32::MIN,
    });
    for _ in 0..100 {
        assert_eq!(breaker.observe(closed(&breaker, 0), true, 0), None);
    }
}

#[test]
fn all_trials_must_succeed_and_no_more_are_let_through() {
    let breaker = breaker(3);
    open(&breaker, 0);
    let (first, change) = trial(&breaker, OPEN_FOR);
    assert_eq!(change, Some(Change::HalfOpened));
    let (second, change) = trial(&breaker, OPEN_FOR);
    assert_eq!(change, None);
    assert_eq!(breaker.observe(first, false, OPEN_FOR), None);
    let (third, _) = trial(&breaker, OPEN_FOR);
    assert_eq!(refused(&breaker, OPEN_FOR + S), OPEN_FOR - S);
    assert_eq!(breaker.observe(second, false, OPEN_FOR), None);
    assert_eq!(
        refused(&breaker, OPEN_FOR),
        OPEN_FOR,
        "all places are taken"
    );
    assert_eq!(breaker.state(OPEN_FOR), State::HalfOpen);
    let change = breaker.observe(third, false, OPEN_FOR);
    assert_eq!(change, Some(Change::Closed));
    assert_eq!(breaker.state(OPEN_FOR), State::Closed);
    closed(&breaker, OPEN_FOR);
}

#[test]
fn one_failed_trial_opens_it_for_as_long_again() {
    let breaker = breaker(2);
    open(&breaker, 0);
    let (first, _) = trial(&breaker, OPEN_FOR);
    let (second, _) = trial(&breaker, OPEN_FOR);
    let now = OPEN_FOR + S;
    assert_eq!(breaker.observe(first, true, now), Some(Change::Reopened));
    assert_eq!(breaker.state(now), State::Open);
    assert_eq!(refused(&breaker, now), OPEN_FOR);
    // The other one is of a time that is over, also when the next trials run.
    assert_eq!(breaker.observe(second, true, now), None);
    let (again, change) = trial(&breaker, now + OPEN_FOR);
    assert_eq!(change, Some(Change::HalfOpened));
    assert_eq!(breaker.observe(second, true, now + OPEN_FOR), None);
    assert_eq!(breaker.observe(second, false, now + OPEN_FOR), None);
    assert_eq!(breaker.observe(again, false, now + OPEN_FOR), None);
    let (last, _) = trial(&breaker, now + OPEN_FOR);
    let change = breaker.observe(last, false, now + OPEN_FOR);
    assert_eq!(change, Some(Change::Closed));
}

#[test]
fn a_forgotten_trial_frees_its_place() {
    let breaker = breaker(1);
    open(&breaker, 0);
    for round in 0..5 {
        let (pass, change) = trial(&breaker, OPEN_FOR);
        assert_eq!(change.is_some(), round == 0, "half-open is told once");
        refused(&breaker, OPEN_FOR);
        breaker.forget(pass);
        breaker.forget(pass);
    }
    let (pass, _) = trial(&breaker, OPEN_FOR);
    let change = breaker.observe(pass, false, OPEN_FOR);
    assert_eq!(change, Some(Change::Closed));
    // Nothing is forgotten of another time.
    breaker.forget(pass);
    breaker.forget(closed(&breaker, OPEN_FOR));
    open(&breaker, OPEN_FOR);
}

#[test]
fn a_lost_trial_loses_its_place_after_a_while() {
    let breaker = breaker(2);
    open(&breaker, 0);
    let start = OPEN_FOR;
    let (lost, _) = trial(&breaker, start);
    let (slow, _) = trial(&breaker, start + S);
    assert_eq!(refused(&breaker, start + 2 * S), OPEN_FOR - 2 * S);
    let (third, change) = trial(&breaker, start + OPEN_FOR);
    assert_eq!(change, None);
    assert_eq!(
        refused(&breaker, start + OPEN_FOR),
        S,
        "the slow one's place"
    );
    // What comes too late does not help to close it.
    assert_eq!(breaker.observe(lost, false, start + OPEN_FOR), None);
    assert_eq!(breaker.observe(slow, false, start + OPEN_FOR + S), None);
    assert_eq!(breaker.observe(third, false, start + OPEN_FOR + S), None);
    let (fourth, _) = trial(&breaker, start + OPEN_FOR + S);
    let change = breaker.observe(fourth, false, start + OPEN_FOR + S);
    assert_eq!(change, Some(Change::Closed));
}

#[test]
fn a_trial_that_fails_late_still_opens_it() {
    let breaker = breaker(1);
    open(&breaker, 0);
    let (hung, _) = trial(&breaker, OPEN_FOR);
    let (next, _) = trial(&breaker, 3 * OPEN_FOR);
    let change = breaker.observe(hung, true, 3 * OPEN_FOR);
    assert_eq!(change, Some(Change::Reopened));
    assert_eq!(breaker.observe(next, false, 3 * OPEN_FOR), None);
    assert_eq!(refused(&breaker, 3 * OPEN_FOR), OPEN_FOR);
}

#[test]
fn stragglers_change_nothing() {
    let breaker = breaker(1);
    let stragglers: Vec<_> = (0..50).map(|_| closed(&breaker, 0)).collect();
    let report = |now| {
        for pass in &stragglers[..20] {
            assert_eq!(breaker.observe(*pass, true, now), None);
            assert_eq!(breaker.observe(*pass, false, now), None);
        }
    };
    open(&breaker, 0);
    report(1);
    assert_eq!(refused(&breaker, 1), OPEN_FOR - 1);
    let (pass, _) = trial(&breaker, OPEN_FOR);
    report(OPEN_FOR);
    assert_eq!(breaker.state(OPEN_FOR), State::HalfOpen);
    let change = breaker.observe(pass, false, OPEN_FOR);
    assert_eq!(change, Some(Change::Closed));
    // Seen in the field as a breaker that opens again when the time-outs of the outage arrive.
    report(OPEN_FOR);
    open(&breaker, OPEN_FOR);
}

#[test]
fn closing_begins_with_an_empty_window() {
    let breaker = breaker(1);
    open(&breaker, 0);
    let (pass, _) = trial(&breaker, OPEN_FOR);
    assert!(breaker.observe(pass, false, OPEN_FOR).is_some());
    // Four anew, though the four of before are still of the last 10 s.
    open(&breaker, OPEN_FOR);
}

#[test]
fn a_clock_that_is_a_little_behind_does_no_harm() {
    let breaker = breaker(1);
    open(&breaker, 10 * S);
    assert_eq!(refused(&breaker, 9 * S), OPEN_FOR + S);
    let (pass, _) = trial(&breaker, 15 * S);
    refused(&breaker, 14 * S);
    let change = breaker.observe(pass, false, 14 * S);
    assert_eq!(change, Some(Change::Closed));
    closed(&breaker, 13 * S);
}

#[test]
fn odd_times_do_not_overflow() {
    let forever = Breaker::new(Settings {
        open_for: Nanos::MAX,
        ..breaker(1).settings
    });
    open(&forever, S);
    assert_eq!(refused(&forever, S), Nanos::MAX - S);
    let at_once = Breaker::new(Settings {
        open_for: 0,
        ..breaker(1).settings
    });
    open(&at_once, S);
    let (pass, _) = trial(&at_once, S);
    assert_eq!(at_once.observe(pass, true, S), Some(Change::Reopened));
}

#[test]
fn a_panic_that_held_the_lock_leaves_a_breaker() {
    let breaker = breaker(1);
    thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let _phase = breaker.phase.lock();
            // Like a panic, without its message among the output of the tests.
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(holder.join().is_err());
    });
    assert!(breaker.phase.is_poisoned());
    open(&breaker, 0);
    trial(&breaker, OPEN_FOR);
}

#[test]
fn changes_are_words_for_people() {
    let counts = Counts {
        total: 20,
        failures: 12,
    };
    let words = [
        (Change::Opened(counts), "open: 12 of 20 requests failed"),
        (Change::HalfOpened, "half-open: trials go"),
        (Change::Closed, "closed: all trials succeeded"),
        (Change::Reopened, "open: a trial failed"),
    ];
    for (change, text) in words {
        assert_eq!(change.to_string(), text);
    }
    let gauge = [State::Closed, State::HalfOpen, State::Open].map(|s| s as u8);
    assert_eq!(gauge, [0, 1, 2]);
}

/// Random attempts, some lost and some forgotten: changes come in their order, trials stay within
/// their bound, and once the upstream is well the breaker closes.
#[test]
fn any_history_ends_closed_when_the_upstream_is_well() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let trials = 1 + rng.below(4) as u32;
        let breaker = breaker(trials);
        let mut running: Vec<(Pass, Nanos)> = Vec::new();
        let mut now = 0;
        let mut state = State::Closed;
        let mut follow = |change: Option<Change>| {
            let Some(change) = change else { return };
            let (before, after) = match change {
                Change::Opened(_) => (State::Closed, State::Open),
                Change::HalfOpened => (State::Open, State::HalfOpen),
                Change::Closed => (State::HalfOpen, State::Closed),
                Change::Reopened => (State::HalfOpen, State::Open),
            };
            assert_eq!(state, before, "{change:?}, seed {seed}");
            state = after;
        };
        for step in 0..3_000 {
            now += rng.below(S as usize / 5) as u64;
            let is_well = step >= 2_500;
            match breaker.admit(now) {
                Admit::Closed(pass) => running.push((pass, now)),
                Admit::Trial(pass, change) => {
                    follow(change);
                    running.push((pass, now));
                }
                Admit::Refused { retry_after } => {
                    assert!((1..=OPEN_FOR).contains(&retry_after), "seed {seed}");
                }
            }
            let in_place = running
                .iter()
                .filter(|(pass, since)| pass.is_trial() && now - since < OPEN_FOR)
                .filter(|(pass, _)| pass.era == breaker.era.load(Ordering::Relaxed));
            assert!(in_place.count() <= trials as usize, "seed {seed}");
            if running.is_empty() || rng.below(3) == 0 {
                continue;
            }
            let (pass, _) = running.swap_remove(rng.below(running.len()));
            match rng.below(10) {
                0 => {}
                1 => breaker.forget(pass),
                _ => follow(breaker.observe(pass, !is_well && rng.below(3) > 0, now)),
            }
        }
        // Those that still run succeed or are lost; new ones succeed at once.
        for _ in 0..=trials {
            now += OPEN_FOR;
            if let Admit::Trial(pass, change) = breaker.admit(now) {
                follow(change);
                follow(breaker.observe(pass, false, now));
            }
        }
        assert_eq!(breaker.state(now), State::Closed, "seed {seed}");
    }
}

#[test]
fn threads_open_it_once_and_hold_the_bound_of_trials() {
    const THREADS: u64 = 4;
    const TRIALS: i64 = 3;
    let breaker = breaker(TRIALS as u32);
    let opened = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    if let Admit::Closed(pass) = breaker.admit(0)
                        && breaker.observe(pass, true, 0).is_some()
                    {
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(opened.into_inner(), 1);

    let (at_once, half_opened) = (AtomicI64::new(0), AtomicU32::new(0));
    let exceeded = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let Admit::Trial(pass, change) = breaker.admit(OPEN_FOR) else {
                        continue;
                    };
                    half_opened.fetch_add(u32::from(change.is_some()), Ordering::Relaxed);
                    let now_running = at_once.fetch_add(1, Ordering::Relaxed) + 1;
                    exceeded.fetch_or(now_running > TRIALS, Ordering::Relaxed);
                    at_once.fetch_sub(1, Ordering::Relaxed);
                    breaker.forget(pass);
                }
            });
        }
    });
    assert!(!exceeded.into_inner());
    assert_eq!(half_opened.into_inner(), 1);
    assert_eq!(breaker.state(OPEN_FOR), State::HalfOpen);

    let closed = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Admit::Trial(pass, _) = breaker.admit(OPEN_FOR) {
                    let change = breaker.observe(pass, false, OPEN_FOR);
                    closed.fetch_add(u32::from(change.is_some()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(closed.into_inner(), 1);
}
