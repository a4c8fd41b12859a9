//! Real sockets on loopback; nothing waits for time, only for what checks find.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpListener;

use super::super::threshold::Threshold;
use super::*;
use crate::config::{Check, InitState};
use crate::telemetry::metrics::cells::CheckResult;
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::{Health, Proof};

pub(super) fn spec(fall: u32, init_state: InitState) -> Arc<HealthSpec> {
    Arc::new(HealthSpec {
        interval: Duration::from_millis(10),
        down_interval: Duration::from_millis(10),
        timeout: Duration::from_secs(10),
        rise: 1,
        fall,
        jitter: 0.0,
        init_state,
        ..HealthSpec::usual(Check::Tcp)
    })
}

pub(super) fn target(addr: SocketAddr, spec: &Arc<HealthSpec>) -> Target {
    let registry = Registry::new(1);
    let endpoint = Endpoint::new(EndpointAddr::Ip(addr), "app", &registry);
    endpoint.set_health(Threshold::new(spec).health());
    Target {
        upstream: "app".into(),
        endpoint: Arc::new(endpoint),
        ask: Ask::Check(spec.clone()),
    }
}

/// An address that refuses: bound, so that nobody else gets it, and nobody listens.
pub(super) fn refusing(host: [u8; 4]) -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Runs a checker until `script` has ended. `verdicts` is what was handed on, batch by batch;
/// `accepts` says whether a batch is taken now.
async fn run(
    targets: watch::Receiver<Targets>,
    accepts: impl Fn(&[Verdict]) -> bool,
    until: impl AsyncFnOnce(Rc<RefCell<Vec<Vec<Verdict>>>>),
) {
    let taken = Rc::new(RefCell::new(Vec::new()));
    let to = taken.clone();
    let hand_on = move |findings: &mut Findings| {
        if accepts(&findings.verdicts) {
            // As the one writer does.
            for verdict in &findings.verdicts {
                verdict.endpoint.set_health(verdict.health);
            }
            to.borrow_mut().push(std::mem::take(&mut findings.verdicts));
        }
    };
    let checking = Checker::new(1).run(targets, hand_on, || {});
    tokio::select! {
        () = checking => unreachable!("a checker never ends by itself"),
        ended = tokio::time::timeout(Duration::from_secs(60), until(taken)) => {
            ended.expect("within a minute");
        }
    }
}

pub(super) async fn eventually(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

#[test]
fn what_is_not_taken_is_offered_again_with_what_came_since() {
    block_on(async {
        let spec = spec(1, InitState::Up);
        let refusing: Vec<_> = (1..=50).map(|n| refusing([127, 0, 7, n])).collect();
        let targets: Targets = refusing.iter().map(|(_, a)| target(*a, &spec)).collect();
        let (_sender, receiver) = watch::channel(targets);
        let are_all = |verdicts: &[Verdict]| verdicts.len() == 50;
        run(receiver, are_all, async |taken| {
            eventually(|| !taken.borrow().is_empty()).await;
            let taken = taken.borrow();
            assert_eq!(taken.len(), 1, "one batch");
            for verdict in &taken[0] {
                assert_eq!(verdict.health, Health::Down);
                assert!(
                    verdict
                        .why
                        .starts_with("1 tcp check failed, the last with: connect failed"),
                    "{}",
                    verdict.why
                );
            }
        })
        .await;
    });
}

#[test]
fn state_stays_with_the_endpoint_and_goes_with_it() {
    block_on(async {
        let (_socket, addr) = refusing([127, 0, 7, 60]);
        let up = spec(2, InitState::Up);
        let one = target(addr, &up);
        let (sender, receiver) = watch::channel(Targets::from([one.clone()]));
        let count = |target: &Target| {
            let cells = target.endpoint.cells.control();
            cells.checks(CheckResult::Connect).value()
        };
        run(
            receiver,
            |_| true,
            async |taken| {
                eventually(|| taken.borrow().len() == 1).await;
                // Another spec, the same endpoint: down it is, and nothing is told twice.
                let again = Target {
                    ask: Ask::Check(spec(3, InitState::FullyUp)),
                    ..one.clone()
                };
                sender.send_replace(Targets::from([again]));
                let before = count(&one);
                eventually(|| count(&one) > before + 5).await;
                assert_eq!(taken.borrow().len(), 1);
                // Without checks for a moment, too short to be seen: it is what it is said to be.
                one.endpoint.set_health(Health::Up);
                sender.send_replace(Targets::from([one.clone()]));
                eventually(|| taken.borrow().len() == 2).await;
                // Another endpoint at the same address: it starts as `init_state` says.
                let other = target(addr, &up);
                sender.send_replace(Targets::from([other.clone()]));
                eventually(|| taken.borrow().len() == 3).await;
                assert!(Arc::ptr_eq(&taken.borrow()[2][0].endpoint, &other.endpoint));
                let before = count(&one);
                let reached = count(&other);
                eventually(|| count(&other) > reached + 5).await;
                assert!(count(&one) <= before + 1, "one may have been under way");
            },
        )
        .await;
    });
}

/// An endpoint that accepts and one that does not, side by side: the one never delays the other.
#[test]
fn silence_delays_nobody_else() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spec = spec(1, InitState::FullyDown);
        let well = target(listener.local_addr().unwrap(), &spec);
        // Redis checks of a listener that never answers: each lasts for its whole time-out.
        let mut patient = HealthSpec::clone(&spec);
        patient.check = Check::Redis;
        patient.timeout = Duration::from_secs(3600);
        let silent = Target {
            upstream: "other".into(),
            ask: Ask::Check(Arc::new(patient)),
            ..target(listener.local_addr().unwrap(), &spec)
        };
        let (_sender, receiver) = watch::channel(Targets::from([silent, well.clone()]));
        run(
            receiver,
            |_| true,
            async |taken| {
                let cells = well.endpoint.cells.control();
                eventually(|| cells.checks(CheckResult::Ok).value() >= 10).await;
                assert_eq!(taken.borrow().len(), 1);
                assert_eq!(taken.borrow()[0][0].why, "1 tcp check passed");
            },
        )
        .await;
    });
}

#[test]
fn traffic_stands_in_for_checks_of_what_is_up() {
    block_on(async {
        let spec = |traffic, init_state| {
            let spec = HealthSpec::clone(&spec(1, init_state));
            // Long, so that what is proved now is young whenever the check comes.
            let interval = Duration::from_secs(3600);
            Arc::new(HealthSpec {
                interval,
                traffic,
                ..spec
            })
        };
        let held: Vec<_> = (70..74).map(|n| refusing([127, 0, 7, n])).collect();
        let [proved, down, unproved, told] = [
            target(held[0].1, &spec(true, InitState::Up)),
            target(held[1].1, &spec(true, InitState::Down)),
            target(held[2].1, &spec(true, InitState::Up)),
            target(held[3].1, &spec(false, InitState::Up)),
        ];
        let now = Clock::start().now();
        for target in [&proved, &down, &told] {
            target.endpoint.proved_well(now);
        }
        let all = [&proved, &down, &unproved, &told].map(Target::clone);
        let (_sender, receiver) = watch::channel(Targets::from(all));
        let count = |target: &Target, result| {
            let cells = target.endpoint.cells.control();
            cells.checks(result).value()
        };
        run(
            receiver,
            |_| true,
            async |taken| {
                eventually(|| count(&proved, CheckResult::Traffic) == 1).await;
                for asked in [&down, &unproved, &told] {
                    eventually(|| count(asked, CheckResult::Connect) >= 1).await;
                    assert_eq!(count(asked, CheckResult::Traffic), 0);
                }
                assert_eq!(count(&proved, CheckResult::Connect), 0);
                let last = proved.endpoint.last_check().unwrap();
                assert_eq!((last.result, &last.text), (CheckResult::Traffic, &None));
                // Up before, down since; it was not taken for down because of the others.
                eventually(|| taken.borrow().iter().flatten().count() == 2).await;
                assert_eq!(proved.endpoint.health(), Health::Up);
            },
        )
        .await;
    });
}

/// What is waited for: an answer, and for those on their way up that they are.
#[test]
fn it_is_known_what_all_are_when_each_has_answered() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut rising = HealthSpec::clone(&spec(1, InitState::FullyDown));
        rising.rise = 3;
        let rising = target(listener.local_addr().unwrap(), &Arc::new(rising));
        let (_socket, refusing) = refusing([127, 0, 7, 80]);
        let dead = target(refusing, &spec(1, InitState::Up));
        let (_sender, receiver) = watch::channel(Targets::from([rising.clone(), dead.clone()]));
        let known = Rc::new(RefCell::new(None));
        let seen = known.clone();
        let hand_on = |findings: &mut Findings| {
            for verdict in findings.verdicts.drain(..) {
                verdict.endpoint.set_health(verdict.health);
            }
        };
        let healths = [rising.endpoint.clone(), dead.endpoint.clone()];
        let tell = move || *seen.borrow_mut() = Some(healths.map(|e| e.health()));
        tokio::select! {
            () = Checker::new(1).run(receiver, hand_on, tell) => unreachable!("it never ends"),
            () = eventually(|| known.borrow().is_some()) => {}
        }
        assert_eq!(*known.borrow(), Some([Health::Up, Health::Down]));
    });
}

/// One peer of the fleet has added more than it may: the first check decides, whatever `rise` and `init_state` say.
#[test]
fn who_is_to_be_found_up_first_is_let_in_by_the_first_check() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut slow = HealthSpec::clone(&spec(3, InitState::Up));
        slow.rise = 3;
        let slow = Arc::new(slow);
        let addr = listener.local_addr().unwrap();
        let (awaited, taken_for_well) = (target(addr, &slow), target(addr, &slow));
        assert!(awaited.endpoint.await_proof());
        awaited.endpoint.set_health(Health::Down);
        let other = Target {
            upstream: "other".into(),
            ..taken_for_well.clone()
        };
        let (_sender, receiver) = watch::channel(Targets::from([awaited.clone(), other]));
        run(
            receiver,
            |_| true,
            async |taken| {
                // Without a word: it was up before.
                eventually(|| taken_for_well.endpoint.proof() == Proof::Found).await;
                eventually(|| !taken.borrow().is_empty()).await;
                let taken = taken.borrow();
                assert_eq!(taken[0][0].why, "1 tcp check passed");
                assert_eq!(taken[0].len(), 1);
                assert_eq!(awaited.endpoint.proof(), Proof::Found);
            },
        )
        .await;
    });
}
