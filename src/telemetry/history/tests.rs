use super::*;

/// 2026-11-21T15:04:05Z
const NOW: u64 = 1_795_273_445_042;

fn started() -> (Cause, What) {
    let state = "started".to_owned();
    (Cause::Start, What::Process { state })
}

fn filled(history: &mut History, count: u64) {
    for i in 1..=count {
        let (cause, what) = started();
        history.record(NOW + i, cause, what, format!("event {i}"));
    }
}

fn numbers(page: &Page) -> Vec<u64> {
    page.events.iter().map(|e| e.seq).collect()
}

#[test]
fn empty_history_answers() {
    let history = History::default();
    let nothing = Page {
        events: Vec::new(),
        missed: 0,
        last: 0,
    };
    assert_eq!(history.since(0, 10), nothing);
    assert_eq!(history.since(u64::MAX, 10), nothing);
    assert_eq!(history.latest(10), nothing);
}

#[test]
fn count_is_bounded_and_the_oldest_go() {
    let mut history = History::new(3, DEFAULT_BYTES);
    filled(&mut history, 5);
    let page = history.since(0, 10);
    assert_eq!(
        (numbers(&page), page.missed, page.last),
        (vec![3, 4, 5], 2, 5)
    );
}

#[test]
fn since_pages_without_gap_or_repeat() {
    let mut history = History::new(7, DEFAULT_BYTES);
    filled(&mut history, 10);
    let (mut seen, mut seq) = (Vec::new(), 0);
    loop {
        let page = history.since(seq, 3);
        let Some(last) = page.events.last() else {
            break;
        };
        seq = last.seq;
        seen.extend(numbers(&page));
    }
    assert_eq!(seen, [4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(history.since(2, 0).missed, 1);
    assert_eq!(history.since(3, 1).missed, 0);
    assert!(history.since(10, 5).events.is_empty());
    assert!(history.since(99, 5).events.is_empty());
}

#[test]
fn latest_is_the_end_oldest_first() {
    let mut history = History::new(4, DEFAULT_BYTES);
    filled(&mut history, 6);
    let page = history.latest(2);
    assert_eq!((numbers(&page), page.missed), (vec![5, 6], 2));
    assert_eq!(numbers(&history.latest(100)), [3, 4, 5, 6]);
}

#[test]
fn bytes_are_bounded_whatever_the_texts() {
    let mut history = History::new(usize::MAX, 10_000);
    for i in 0..200 {
        let long = "é".repeat(100_000);
        let cause = Cause::Operator {
            owner: long.clone(),
            reason: long.clone(),
        };
        let what = What::Endpoint {
            upstream: long.clone(),
            endpoint: long.clone(),
            from: long.clone(),
            to: long.clone(),
        };
        history.record(NOW + i, cause, what, long);
        let exact: usize = history.events.iter().map(Event::bytes).sum();
        assert_eq!(history.bytes, exact);
        assert!(exact <= 10_000);
    }
    // Six words of 256 bytes, a text of 512, and the event.
    let most = 6 * MAX_WORD + MAX_TEXT + size_of::<Event>();
    assert_eq!(history.events.len(), 10_000 / (most - 7));
    assert!(history.events.iter().all(|e| e.bytes() <= most));
}

#[test]
fn nothing_fits_into_no_bytes() {
    let mut history = History::new(10, 0);
    filled(&mut history, 3);
    let page = history.since(0, 10);
    assert_eq!((numbers(&page), page.missed, page.last), (vec![], 3, 3));
}

#[test]
fn text_is_cut_between_characters() {
    for (text, expected) in [
        ("a".repeat(512), "a".repeat(512)),
        ("a".repeat(513), format!("{}…", "a".repeat(509))),
        ("é".repeat(300), format!("{}…", "é".repeat(254))),
    ] {
        let mut history = History::default();
        let (cause, what) = started();
        history.record(NOW, cause, what, text);
        assert_eq!(history.latest(1).events[0].text, expected);
    }
}

#[test]
fn line_names_time_cause_and_who() {
    let line = |cause, text: &str| {
        let mut history = History::default();
        let (_, what) = started();
        history.record(NOW, cause, what, text.to_owned());
        history.latest(1).events[0].to_string()
    };
    let hash = 0xfeed;
    for (cause, text, expected) in [
        (
            Cause::Start,
            "isobar started",
            "2026-11-21T15:04:05Z  start     isobar started",
        ),
        (
            Cause::Fleet {
                peers: "000000000000feed".to_owned(),
            },
            "up -> down (found by 000000000000feed)",
            "2026-11-21T15:04:05Z  fleet     up -> down (found by 000000000000feed)",
        ),
        (
            Cause::Operator {
                owner: "uid:0".to_owned(),
                reason: "deploy\u{1b}[2J".to_owned(),
            },
            "active -> drain",
            "2026-11-21T15:04:05Z  operator  active -> drain (by uid:0: deploy [2J)",
        ),
        (
            Cause::Operator {
                owner: "ci".to_owned(),
                reason: String::new(),
            },
            "two\nlines",
            "2026-11-21T15:04:05Z  operator  two lines (by ci)",
        ),
        (
            Cause::Reload {
                trigger: Trigger::Admin(1000),
                hash,
            },
            "2 upstreams changed",
            "2026-11-21T15:04:05Z  reload    2 upstreams changed (by uid:1000, hash 000000000000feed)",
        ),
        (
            Cause::Reload {
                trigger: Trigger::Watch,
                hash,
            },
            "nothing changed",
            "2026-11-21T15:04:05Z  reload    nothing changed (by watch, hash 000000000000feed)",
        ),
    ] {
        assert_eq!(line(cause, text), expected);
    }
}

#[test]
fn fleet_names_its_peers() {
    let peers = "00000000000000a1, 00000000000000b2".to_owned();
    let cause = serde_json::to_value(Cause::Fleet { peers }).unwrap();
    let expected = serde_json::json!({
        "kind": "fleet",
        "peers": "00000000000000a1, 00000000000000b2",
    });
    assert_eq!(cause, expected);
}

#[test]
fn json_has_names_a_reader_can_rely_on() {
    let mut history = History::default();
    let cause = Cause::Reload {
        trigger: Trigger::Admin(7),
        hash: u64::MAX,
    };
    let counts = "1 route added".to_owned();
    history.record(NOW, cause, What::Config { counts }, "reloaded".to_owned());
    let cause = Cause::Reload {
        trigger: Trigger::Signal,
        hash: 1,
    };
    history.record(NOW, cause, What::ConfigRefused, "refused".to_owned());
    let page = serde_json::to_value(history.since(0, 10)).unwrap();
    assert_eq!(
        page,
        serde_json::json!({
            "events": [
                {
                    "seq": 1,
                    "at_unix_ms": NOW,
                    "cause": {
                        "kind": "reload",
                        "trigger": { "admin": 7 },
                        "hash": "ffffffffffffffff",
                    },
                    "what": { "kind": "config", "counts": "1 route added" },
                    "text": "reloaded",
                },
                {
                    "seq": 2,
                    "at_unix_ms": NOW,
                    "cause": {
                        "kind": "reload",
                        "trigger": "signal",
                        "hash": "0000000000000001",
                    },
                    "what": { "kind": "config_refused" },
                    "text": "refused",
                },
            ],
            "missed": 0,
            "last": 2,
        })
    );
}

#[test]
fn clones_of_a_timeline_are_one() {
    let timeline = Timeline::default();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let timeline = timeline.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    let (cause, what) = started();
                    timeline.record(NOW, cause, what, String::new());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let page = timeline.since(0, usize::MAX);
    assert_eq!(numbers(&page), (1..=400).collect::<Vec<_>>());
    assert_eq!(timeline.latest(1).events[0].seq, 400);
}

/// Values of `date -u -d @N`.
#[test]
fn known_moments() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399_999, "2000-02-28T23:59:59Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (1_795_231_995_042, "2026-11-21T03:33:15Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(utc(ms), text);
    }
    // Text from a file: any number must have a date, not a panic.
    assert!(utc(u64::MAX).ends_with('Z'));
}
