//! What the server says is what people are shown, word for word.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::runtime::views::{
    AsideView, AsideWordView, DifferenceView, DutiesView, FleetDiffView, FleetView, HeldView,
    KnownView, MemberCounts, MemberView, QuarantineView, SyncView, TrafficView,
};

use super::*;

const NOW: u64 = 1_795_270_000_000;

/// What a client makes of it.
fn sent<T: DeserializeOwned>(view: &impl Serialize) -> T {
    serde_json::from_str(&serde_json::to_string(view).unwrap()).unwrap()
}

fn shown(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn fleet() -> FleetView {
    let traffic = |bytes, messages| TrafficView { bytes, messages };
    FleetView {
        name: "edge".to_owned(),
        peer: "00000000000000ab".to_owned(),
        address: "10.0.0.5:7946".to_owned(),
        members: MemberCounts {
            alive: 4,
            suspect: 1,
            down: 0,
            left: 0,
        },
        facts: BTreeMap::from([
            ("override", 2),
            ("peer", 5),
            ("registration", 1),
            ("vote", 12),
        ]),
        tombstones: 3,
        digest: "548bcc0bf844d1cc".to_owned(),
        sent: BTreeMap::from([
            ("facts", traffic(512, 4)),
            ("membership", traffic(1_572_864, 9000)),
        ]),
        received: BTreeMap::from([
            ("membership", traffic(1536, 20)),
            ("sync", traffic(3_435_973_836, 6)),
        ]),
        dirty: 1,
        lag_ms: Some(120),
        last_sync: Some(SyncView {
            peer: "00000000000000cd".to_owned(),
            at_unix_ms: NOW - 3_400,
            facts_sent: 1,
            facts_received: 4,
        }),
        duties: DutiesView { mine: 24, of: 40 },
        ..FleetView::default()
    }
}

#[test]
fn a_quiet_fleet_fits_a_glance() {
    let view: views::Fleet = sent(&fleet());
    assert_eq!(
        shown(|out| show::status(&view, NOW, out)),
        "\
fleet edge: this is peer 00000000000000ab at 10.0.0.5:7946
5 peers: 4 alive, 1 suspect, 0 down, 0 left
knows 2 overrides, 5 peers, 1 registration, 12 votes, 3 tombstones; digest 548bcc0bf844d1cc
1 fact still to be pushed, the newest came after 120 ms
compared with peer 00000000000000cd 3 s ago: 1 fact sent, 4 received
checks 24 of 40 endpoints

TRAFFIC     SENT     MESSAGES  RECEIVED  MESSAGES
facts       512 B           4  0 B              0
membership  1.5 MiB      9000  1.5 KiB         20
sync        0 B             0  3.2 GiB          6
"
    );
}

#[test]
fn what_is_wrong_is_told_with_what_it_means() {
    let mut fleet = fleet();
    fleet.members.alive = 1;
    fleet.members.suspect = 0;
    fleet.facts.clear();
    (fleet.lag_ms, fleet.last_sync) = (None, None);
    fleet.held.push(HeldView {
        upstream: "app".to_owned(),
        endpoint: "10.0.0.12:8000".to_owned(),
        what: "drain".to_owned(),
        by: "00000000000000cd".to_owned(),
        since_unix_ms: NOW - 90_000,
    });
    fleet.learning = true;
    fleet.aside = Some(AsideView {
        count: 3,
        since_unix_ms: NOW - 172_800_000,
        words: vec![AsideWordView {
            upstream: "app".to_owned(),
            endpoint: "10.0.0.7:8000".to_owned(),
            what: "drain (uid:0: kernel update)".to_owned(),
        }],
    });
    fleet.quarantined = 7;
    fleet.quarantine.push(QuarantineView {
        what: "vote app 10.0.0.12:8000".to_owned(),
        from: "00000000000000cd".to_owned(),
        why: "its writer\u{1b}[2J is another".to_owned(),
        at_unix_ms: NOW,
    });
    fleet.refused = BTreeMap::from([("forged", 3), ("key", 0), ("replayed", 1)]);
    let skews = [("00000000000000cd", -4_250), ("00000000000000ef", 20)];
    fleet.clock_skew_ms = skews.map(|(peer, ms)| (peer.to_owned(), ms)).into();
    fleet.stall_seconds = 12.04;
    let view: views::Fleet = sent(&fleet);
    let text = shown(|out| show::status(&view, NOW, out));
    let (head, tables) = text.split_once("\n\n").unwrap();
    assert_eq!(
        head,
        "\
fleet edge: this is peer 00000000000000ab at 10.0.0.5:7946
1 peer: 1 alive, 0 suspect, 0 down, 0 left
it is alone: all it does is as without a fleet
knows 3 tombstones; digest 548bcc0bf844d1cc
1 fact still to be pushed, none has come yet
compared with nobody yet
checks 24 of 40 endpoints
has not come to its work for 12.0 s in all: is this machine overloaded?
the clock of peer 00000000000000cd is 4.2 s behind
is still learning what the others know: until then `guard.max_remove` bounds no weights and no additions"
    );
    let (_, tables) = tables.split_once("datagrams").unwrap();
    assert_eq!(
        tables,
        " not listened to: 3 forged, 1 replayed

UPSTREAM  ENDPOINT       HOLDS HERE ALONE
app       10.0.0.7:8000  drain (uid:0: kernel update)
and 2 more
3 words of operators kept aside: this peer was last here 2026-11-19T14:06:40Z, which is longer ago than the \
fleet remembers what is taken back; it is decided once it has met others

UPSTREAM  ENDPOINT        HELD BACK  SAID BY           FOR
app       10.0.0.12:8000  drain      00000000000000cd  1 min
what one peer says took away too much at once (`guard.max_remove`): it holds when another peer says it \
too, or checks find the endpoint down

NOT TAKEN                FROM              AT                    WHY
vote app 10.0.0.12:8000  00000000000000cd  2026-11-21T14:06:40Z  its writer [2J is another
7 facts in all not taken since the start
"
    );
}

fn member(peer: &str, state: &'static str) -> MemberView {
    MemberView {
        peer: peer.to_owned(),
        address: "10.0.0.5:7946".to_owned(),
        state,
        this: false,
        zone: Some("a".to_owned()),
        version: Some("0.1.0".to_owned()),
        config: Some("548bcc0bf844d1cc".to_owned()),
        since_unix_ms: NOW - 3_600_000,
        last_contact_ms: Some(740),
        skew_ms: Some(12),
    }
}

#[test]
fn peers_are_rows() {
    let all = [
        MemberView {
            this: true,
            last_contact_ms: None,
            skew_ms: None,
            ..member("00000000000000ab", "alive")
        },
        member("00000000000000cd", "suspect"),
        MemberView {
            zone: None,
            version: None,
            config: None,
            last_contact_ms: None,
            skew_ms: Some(-90_000),
            ..member("00000000000000ef", "down")
        },
    ];
    let views: Vec<views::Member> = sent(&all);
    assert_eq!(
        shown(|out| show::members(&views, NOW, out)),
        "\
PEER              ADDRESS        STATE    FOR        ZONE  VERSION  CONFIGURATION     HEARD OF    CLOCK
00000000000000ab  10.0.0.5:7946  alive    1 h 0 min  a     0.1.0    548bcc0bf844d1cc  this peer   -
00000000000000cd  10.0.0.5:7946  suspect  1 h 0 min  a     0.1.0    548bcc0bf844d1cc  740 ms ago  12 ms ahead
00000000000000ef  10.0.0.5:7946  down     1 h 0 min  -     -        -                 never       1 min behind
"
    );
}

#[test]
fn peers_that_serve_different_files_are_told() {
    let all = |state| {
        let other = MemberView {
            config: Some("0000000000000001".to_owned()),
            ..member("00000000000000cd", state)
        };
        let views: Vec<views::Member> = sent(&[member("00000000000000ab", "alive"), other]);
        shown(|out| show::members(&views, NOW, out))
    };
    assert!(all("alive").ends_with(
        "\nthey serve 2 configurations: peers whose checks of an endpoint differ do not vote on it \
         together\n"
    ));
    assert!(!all("down").contains("they serve"));
}

#[test]
fn what_two_peers_know_differently_stands_side_by_side() {
    let mut view = FleetDiffView {
        peer: "00000000000000cd".to_owned(),
        address: "10.0.0.6:7946".to_owned(),
        equal: true,
        ours: 21,
        theirs: 21,
        differences: Vec::new(),
        more: 0,
    };
    let text = |view: &FleetDiffView| {
        let diff: views::Diff = sent(view);
        shown(|out| show::diff(&diff, out))
    };
    assert_eq!(
        text(&view),
        "knows the same as peer 00000000000000cd at 10.0.0.6:7946: 21 facts\n"
    );
    (view.equal, view.theirs, view.more) = (false, 20, 9);
    view.differences.push(DifferenceView {
        fact: "override app 10.0.0.1:80 state".to_owned(),
        ours: Some(KnownView {
            what: "drain".to_owned(),
            origin: "00000000000000ab".to_owned(),
            at_unix_ms: NOW,
        }),
        theirs: None,
    });
    assert_eq!(
        text(&view),
        "\
FACT                            HERE                                               THERE
override app 10.0.0.1:80 state  drain (by 00000000000000ab, 2026-11-21T14:06:40Z)  -
and 9 more

knows 21 facts, peer 00000000000000cd at 10.0.0.6:7946 20
"
    );
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.key");
    let keygen = |file: Option<PathBuf>| {
        let mut out = Vec::new();
        let done = run(Command::Keygen { file }, &mut out);
        (done, String::from_utf8(out).unwrap())
    };
    let (done, text) = keygen(Some(path.clone()));
    done.unwrap();
    let shown = path.display();
    assert_eq!(
        text,
        format!(
            "{shown} is made, for its owner alone (mode 600).\n\
             Copy it to every peer, for the user that isobar runs as there, and name it in its file:\n\n  \
             [fleet]\n  secret_file = \"{shown}\"\n"
        )
    );
    let made = std::fs::read_to_string(&path).unwrap();
    assert_eq!((made.len(), made.lines().count()), (65, 1));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(crate::config::secret::read(&path).unwrap().len(), 1);
    let (again, _) = keygen(Some(path.clone()));
    let Err(Failure::Refused(why)) = again else {
        panic!("{again:?}");
    };
    assert!(
        why.contains("is there already, and is not overwritten"),
        "{why}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), made);
    let (nowhere, _) = keygen(Some(folder.path().join("a/b")));
    assert!(matches!(nowhere, Err(Failure::Refused(_))));
    // Nothing else: it is appended to files, and piped.
    let (done, first) = keygen(None);
    done.unwrap();
    assert_eq!((first.len(), first.trim_end().len()), (65, 64));
    assert_ne!(keygen(None).1, first);
}

#[test]
fn sizes_and_times_have_the_unit_that_says_enough() {
    let view = |bytes| {
        let mut fleet = fleet();
        let traffic = TrafficView { bytes, messages: 0 };
        (fleet.sent, fleet.received) = (BTreeMap::from([("facts", traffic)]), BTreeMap::new());
        let view: views::Fleet = sent(&fleet);
        let text = shown(|out| show::status(&view, NOW, out));
        let line = text.lines().last().unwrap().to_owned();
        line.split_whitespace()
            .skip(1)
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (bytes, wanted) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (u64::MAX, "16777216.0 TiB"),
    ] {
        assert_eq!(view(bytes), wanted);
    }
}
