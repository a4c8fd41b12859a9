//! What the checker does in a fleet; as the other tests, real sockets and no waiting for time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::net::TcpListener;

use super::super::duty::Phase;
use super::tests::{block_on, eventually, refusing, spec, target};
use super::*;
use crate::config::InitState;
use crate::telemetry::metrics::cells::CheckResult;
use crate::upstream::{Health, Since};

const PROBER: Role = Role::Prober {
    phase: Phase(0),
    is_ruled: true,
};
const SPARED: Role = Role::Spared { is_ruled: true };

/// What a fleet says, and what was handed on.
struct Fleet {
    duty: watch::Sender<Arc<Duty>>,
    at_once: mpsc::Sender<(Name, EndpointAddr)>,
    targets: watch::Sender<Targets>,
    taken: mpsc::UnboundedReceiver<Findings>,
    known: watch::Receiver<bool>,
}

fn duty(roles: &[(&Target, Role)]) -> Arc<Duty> {
    let roles = roles
        .iter()
        .map(|(t, role)| (t.endpoint.addr.clone(), *role));
    Arc::new(Duty::Shared(HashMap::from([(
        "app".into(),
        roles.collect(),
    )])))
}

/// Runs a checker in a fleet until `script` has ended.
async fn run(roles: &[(&Target, Role)], script: impl AsyncFnOnce(Fleet)) {
    let targets: Vec<_> = roles
        .iter()
        .map(|(target, _)| Target::clone(target))
        .collect();
    let (targets, of_targets) = watch::channel(Targets::from(targets));
    let (duty, of_duty) = watch::channel(duty(roles));
    let of_writer = duty.subscribe();
    let (at_once, asked) = mpsc::channel(16);
    let (to, taken) = mpsc::unbounded_channel();
    let (tell, known) = watch::channel(false);
    let hand_on = move |findings: &mut Findings| {
        let findings = std::mem::take(findings);
        for verdict in &findings.verdicts {
            // As the one writer does, which knows the roles.
            let is_down = verdict.health == Health::Down;
            let since = Since {
                at_unix_ms: 0,
                why: verdict.why.clone(),
            };
            verdict.endpoint.set_down_here(is_down.then_some(since));
            if of_writer
                .borrow()
                .role("app", &verdict.endpoint.addr)
                .judges()
            {
                verdict.endpoint.set_health(verdict.health);
            }
        }
        // A script that has ended hears no more.
        let _ = to.send(findings);
    };
    let checker = Checker::new(1).sharing(of_duty, asked);
    let tell = move || {
        tell.send_replace(true);
    };
    let checking = checker.run(of_targets, hand_on, tell);
    let fleet = Fleet {
        duty,
        at_once,
        targets,
        taken,
        known,
    };
    tokio::select! {
        () = checking => unreachable!("a checker never ends by itself"),
        ended = tokio::time::timeout(Duration::from_secs(60), script(fleet)) => {
            ended.expect("within a minute");
        }
    }
}

fn count(target: &Target, result: CheckResult) -> u64 {
    target.endpoint.cells.control().checks(result).value()
}

#[test]
fn what_others_ask_is_not_asked_and_goes_on_from_what_is_known() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spec = HealthSpec::clone(&spec(3, InitState::FullyUp));
        spec.rise = 2;
        let spec = Arc::new(spec);
        let spared = target(listener.local_addr().unwrap(), &spec);
        let alone = target(listener.local_addr().unwrap(), &spec);
        let (_socket, addr) = refusing([127, 0, 7, 90]);
        let alone = Target {
            endpoint: target(addr, &spec).endpoint,
            ..alone
        };
        // As the fleet has found.
        spared.endpoint.set_health(Health::Down);
        run(
            &[(&spared, SPARED), (&alone, Role::Alone)],
            async |mut fleet| {
                let first = fleet.taken.recv().await.unwrap();
                assert!(Arc::ptr_eq(&first.verdicts[0].endpoint, &alone.endpoint));
                eventually(|| count(&alone, CheckResult::Connect) > 5).await;
                assert_eq!(count(&spared, CheckResult::Ok), 0);
                // It is this one's to ask: it is down until `rise` checks have passed.
                fleet.duty.send_replace(duty(&[(&spared, Role::Alone)]));
                let found = fleet.taken.recv().await.unwrap();
                let [verdict] = &found.verdicts[..] else {
                    unreachable!("{found:?}");
                };
                assert_eq!(verdict.health, Health::Up);
                assert_eq!(verdict.why, "2 tcp checks in a row passed");
                assert_eq!(verdict.by, Found::Here);
                // And no more: but one may be under way.
                fleet.duty.send_replace(duty(&[(&spared, SPARED)]));
                let before = count(&spared, CheckResult::Ok);
                let reached = count(&alone, CheckResult::Connect);
                eventually(|| count(&alone, CheckResult::Connect) > reached + 5).await;
                assert!(count(&spared, CheckResult::Ok) <= before + 1);
            },
        )
        .await;
    });
}

#[test]
fn prober_says_its_vote_once_and_rules_nothing_but_what_it_does_itself() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = target(listener.local_addr().unwrap(), &spec(1, InitState::Up));
        let (_socket, addr) = refusing([127, 0, 7, 91]);
        let dead = target(addr, &spec(3, InitState::FullyUp));
        run(&[(&well, PROBER), (&dead, PROBER)], async |mut fleet| {
            let (mut votes, mut verdicts) = (Vec::new(), Vec::new());
            while votes.len() < 2 || verdicts.is_empty() {
                let found = fleet.taken.recv().await.unwrap();
                votes.extend(found.votes);
                verdicts.extend(found.verdicts);
            }
            // One failure is a vote; `fall` of them are enough for itself, whatever the others find.
            // It is found again and again until it is taken in, which on a busy machine is a check later.
            let verdict = &verdicts[0];
            let of_dead = |v: &Verdict| Arc::ptr_eq(&v.endpoint, &dead.endpoint);
            assert!(verdicts.iter().all(of_dead));
            let found = (verdict.health, &verdict.by);
            assert_eq!(found, (Health::Down, &Found::Here));
            assert!(
                verdict.why.starts_with("3 tcp checks in a row failed"),
                "{}",
                verdict.why
            );
            let found = (dead.endpoint.health(), dead.endpoint.verdict());
            assert_eq!(found, (Health::Down, Health::Up));
            votes.sort_by_key(|vote| vote.passed);
            let [no, yes] = &votes[..] else {
                unreachable!("{votes:?}");
            };
            assert!(Arc::ptr_eq(&no.endpoint, &dead.endpoint) && !no.passed);
            assert!(no.why.starts_with("connect failed: "), "{}", no.why);
            assert!(Arc::ptr_eq(&yes.endpoint, &well.endpoint) && yes.passed);
            assert_eq!(yes.why, "1 tcp check passed");
            let Ask::Check(asked) = &well.ask else {
                unreachable!("it is a check");
            };
            assert_eq!(yes.check, super::super::check_hash::check_hash(asked));
            eventually(|| count(&dead, CheckResult::Connect) > 5).await;
            assert!(fleet.taken.try_recv().is_err(), "nothing is new");
            // Nobody says any more that it finds it down: then it says so again.
            dead.endpoint.set_down_here(None);
            let found = fleet.taken.recv().await.unwrap();
            assert_eq!(found.verdicts[0].health, Health::Down);
            assert!(found.votes.is_empty(), "it is what it was");
        })
        .await;
    });
}

/// Too few have voted, and then enough: what is found here holds, and then for this process alone.
#[test]
fn what_is_found_here_holds_while_too_few_have_voted() {
    block_on(async {
        let (socket, addr) = refusing([127, 0, 7, 95]);
        let one = target(addr, &spec(3, InitState::FullyUp));
        let unruled = Role::Prober {
            phase: Phase(0),
            is_ruled: false,
        };
        run(&[(&one, unruled)], async |mut fleet| {
            let mut found = Findings::default();
            while found.verdicts.is_empty() {
                found = fleet.taken.recv().await.unwrap();
            }
            assert_eq!(found.verdicts[0].health, Health::Down);
            assert_eq!(one.endpoint.verdict(), Health::Down);
            // The others find it well: it stays down here, and is found well here when it is.
            one.endpoint.set_health(Health::Up);
            fleet.duty.send_replace(duty(&[(&one, PROBER)]));
            let before = count(&one, CheckResult::Connect);
            eventually(|| count(&one, CheckResult::Connect) > before + 5).await;
            assert_eq!(one.endpoint.health(), Health::Down);
            assert!(fleet.taken.try_recv().is_err(), "nothing is new");
            socket.listen(16).unwrap();
            let found = fleet.taken.recv().await.unwrap();
            assert_eq!(found.verdicts[0].health, Health::Up);
            assert_eq!(one.endpoint.health(), Health::Up);
        })
        .await;
    });
}

/// What was down before it was asked here is no finding of this process until it fails here.
#[test]
fn prober_that_finds_dead_what_was_dead_holds_it_down_though_others_find_it_well() {
    block_on(async {
        let (_socket, addr) = refusing([127, 0, 7, 96]);
        let dead = target(addr, &spec(3, InitState::FullyDown));
        assert_eq!(dead.endpoint.health(), Health::Down);
        run(&[(&dead, PROBER)], async |mut fleet| {
            let found = fleet.taken.recv().await.unwrap();
            assert_eq!(found.verdicts[0].health, Health::Down);
            assert!(!found.votes[0].passed);
            dead.endpoint.set_health(Health::Up);
            assert_eq!(dead.endpoint.health(), Health::Down);
            // Others ask it: what was found here is not handed on any more, and what they find holds.
            fleet.duty.send_replace(duty(&[(&dead, SPARED)]));
            dead.endpoint.set_down_here(None);
            let (_socket, addr) = refusing([127, 0, 7, 97]);
            let other = target(addr, &spec(1, InitState::Up));
            let both = Targets::from([dead.clone(), other.clone()]);
            fleet.targets.send_replace(both);
            let found = fleet.taken.recv().await.unwrap();
            assert!(Arc::ptr_eq(&found.verdicts[0].endpoint, &other.endpoint));
            assert_eq!(dead.endpoint.health(), Health::Up);
        })
        .await;
    });
}

/// A lone peer has asked before others come: what it knows is a vote at once.
#[test]
fn what_was_found_alone_is_a_vote_when_others_come() {
    block_on(async {
        let (_socket, addr) = refusing([127, 0, 7, 92]);
        let dead = target(addr, &spec(1, InitState::Up));
        run(&[(&dead, Role::Alone)], async |mut fleet| {
            let found = fleet.taken.recv().await.unwrap();
            assert_eq!((found.verdicts.len(), found.votes.len()), (1, 0));
            fleet.duty.send_replace(duty(&[(&dead, PROBER)]));
            let found = fleet.taken.recv().await.unwrap();
            assert_eq!((found.verdicts.len(), found.votes.len()), (0, 1));
            assert!(!found.votes[0].passed);
        })
        .await;
    });
}

#[test]
fn who_is_doubted_is_asked_at_once() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rare = |traffic| {
            let mut spec = HealthSpec::clone(&spec(1, InitState::Up));
            spec.interval = Duration::from_secs(3600);
            spec.down_interval = spec.interval;
            spec.traffic = traffic;
            Arc::new(spec)
        };
        let mine = target(listener.local_addr().unwrap(), &rare(true));
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spared = target(other.local_addr().unwrap(), &rare(false));
        run(&[(&mine, PROBER), (&spared, SPARED)], async |mut fleet| {
            eventually(|| count(&mine, CheckResult::Ok) == 1).await;
            // Traffic that proves it well does not count against a doubt.
            mine.endpoint.proved_well(Clock::start().now());
            for asked in 2..5 {
                for of in [&spared, &mine] {
                    let name = (of.upstream.clone(), of.endpoint.addr.clone());
                    fleet.at_once.send(name).await.unwrap();
                }
                eventually(|| count(&mine, CheckResult::Ok) == asked).await;
            }
            assert_eq!(count(&spared, CheckResult::Ok), 0);
            assert_eq!(fleet.taken.recv().await.unwrap().votes.len(), 1);
            assert!(fleet.taken.try_recv().is_err(), "it passes as before");
        })
        .await;
    });
}

#[test]
fn without_anybody_to_say_more_everybody_is_asked() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spared = target(listener.local_addr().unwrap(), &spec(1, InitState::Up));
        let waits = Role::Spared { is_ruled: false };
        run(&[(&spared, waits)], async |fleet| {
            let Fleet {
                duty,
                targets: _targets,
                known,
                ..
            } = fleet;
            assert!(!*known.borrow(), "nobody has said what it is");
            drop(duty);
            eventually(|| count(&spared, CheckResult::Ok) > 2).await;
            eventually(|| *known.borrow()).await;
        })
        .await;
    });
}

#[test]
fn what_the_fleet_has_ruled_is_known() {
    block_on(async {
        let (_socket, addr) = refusing([127, 0, 7, 93]);
        let one = target(addr, &spec(1, InitState::Up));
        let waits = Role::Spared { is_ruled: false };
        run(&[(&one, waits)], async |mut fleet| {
            assert!(!*fleet.known.borrow());
            fleet.duty.send_replace(duty(&[(&one, SPARED)]));
            fleet.known.changed().await.unwrap();
            assert_eq!(count(&one, CheckResult::Connect), 0);
        })
        .await;
        run(&[(&one, SPARED)], async |fleet| {
            eventually(|| *fleet.known.borrow()).await;
        })
        .await;
    });
}

#[test]
fn verdict_of_the_fleet_names_its_peers() {
    let spec = spec(1, InitState::Up);
    let target = target(([127, 0, 7, 94], 1).into(), &spec);
    let verdict = |by| Verdict {
        upstream: target.upstream.clone(),
        endpoint: target.endpoint.clone(),
        health: Health::Down,
        why: "2 of 3 peers: connection refused".to_owned(),
        by,
    };
    let told = verdict(Found::Fleet("a1, b2".to_owned())).told();
    assert_eq!(told, "2 of 3 peers: connection refused (found by a1, b2)");
    assert_eq!(
        verdict(Found::Here).told(),
        "2 of 3 peers: connection refused"
    );
}
