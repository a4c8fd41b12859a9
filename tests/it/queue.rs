//! `max_connections` of endpoints, and the line in front of an upstream that has no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isobar::telemetry::reason::Reason;
use isobar::upstream::overrides::Verb;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::now;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::watched::{Watched, expect_answer};

/// Nobody gives up while a slow machine is slow.
const PATIENT: &str = "max_connections = 1\nqueue = { timeout = '60s' }";

const QUEUED: &str = "isobar_upstream_queue_length{upstream=\"app\"}";

/// Answers `name`; to /held once the gate is open.
fn held(name: &'static str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |request| {
        let answer = Step::Send(origin::response(200, name));
        match request.head.target() {
            "/held" => vec![Step::Pass(gate.clone()), answer],
            _ => vec![answer],
        }
    })
}

/// A client that has asked for `target`.
fn asking(proxy: &Proxy, target: &str) -> Client {
    let mut client = Client::connect(proxy.addr());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
    client
}

/// One that holds the only place there is.
fn holding(proxy: &Proxy, origin: &Origin) -> Client {
    let before = origin.requests().len();
    let client = asking(proxy, "/held");
    origin.await_requests(before + 1);
    client
}

/// One more that waits.
fn waiting(proxy: &Proxy, target: &str) -> Client {
    let before = proxy.metric(QUEUED);
    let client = asking(proxy, target);
    eventually("it waits", || proxy.metric(QUEUED) == before + 1.0);
    client
}

/// Waits until so much time has passed.
fn pass(time: Duration) {
    let end = now() + time;
    eventually("time passes", || now() >= end);
}

fn in_flight(proxy: &Proxy, origin: &Origin) -> f64 {
    proxy.metric(&format!(
        "isobar_endpoint_in_flight{{upstream=\"app\",endpoint=\"{}\"}}",
        origin.addr()
    ))
}

#[test]
fn max_connections_is_exact_across_workers_and_nobody_is_lost() {
    const LIMIT: usize = 3;
    let counts: Vec<[Arc<AtomicUsize>; 2]> = (0..2).map(|_| <[_; 2]>::default()).collect();
    let origins: Vec<Origin> = counts
        .iter()
        .map(|[busy, most]| {
            let (busy, most) = (busy.clone(), most.clone());
            Origin::start(move |_| {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Long enough to meet others.
                for _ in 0..50 {
                    std::thread::yield_now();
                }
                // Before the answer: the place may be another's as soon as that is out.
                busy.fetch_sub(1, Ordering::SeqCst);
                origin::reply(200, "a")
            })
        })
        .collect();
    let addrs: Vec<_> = origins.iter().map(Origin::addr).collect();
    let more = format!("max_connections = {LIMIT}\nqueue = {{ timeout = '60s' }}");
    let mut all_waited = 0.0;
    for policy in ["round_robin", "least_request", "random"] {
        let toml = Proxy::config_over(&addrs, &more)
            .replace("workers = 1", "workers = 3")
            .replace("round_robin", policy);
        let proxy = Proxy::start(&toml);
        let addr = proxy.addr();
        let clients: Vec<_> = (0..24)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(addr);
                    for _ in 0..25 {
                        assert_eq!(client.request("GET", "/").status(), 200);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        assert_eq!(proxy.metric(QUEUED), 0.0);
        let waited = "isobar_upstream_queue_wait_seconds_count{upstream=\"app\"}";
        all_waited += proxy.metric(waited);
    }
    assert!(all_waited > 0.0, "24 clients, 6 places");
    for [_, most] in &counts {
        assert!(most.load(Ordering::SeqCst) <= LIMIT, "{most:?}");
    }
    let asked: usize = origins.iter().map(|o| o.requests().len()).sum();
    assert_eq!(asked, 3 * 24 * 25);
}

#[test]
fn a_freed_place_goes_to_who_waits() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let proxy = Proxy::over(&[origin.addr()], PATIENT);
    let mut holder = holding(&proxy, &origin);
    let mut waiters: Vec<_> = (0..3).map(|_| waiting(&proxy, "/")).collect();
    assert_eq!(origin.requests().len(), 1);
    gate.open();
    for client in [&mut holder].into_iter().chain(&mut waiters) {
        assert_eq!(client.response().text(), "a");
    }
    eventually("nobody waits", || proxy.metric(QUEUED) == 0.0);
    let waited = "isobar_upstream_queue_wait_seconds_count{upstream=\"app\"}";
    assert_eq!(proxy.metric(waited), 3.0);
}

#[test]
fn after_a_tenth_of_a_second_the_latest_is_served_first() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let proxy = Proxy::over(&[origin.addr()], PATIENT);
    let mut holder = holding(&proxy, &origin);
    let mut clients: Vec<_> = ["/1", "/2", "/3"].map(|t| waiting(&proxy, t)).into();
    pass(Duration::from_millis(150));
    clients.push(waiting(&proxy, "/4"));
    gate.open();
    assert_eq!(holder.response().status(), 200);
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    let served: Vec<String> = origin
        .requests()
        .iter()
        .map(|r| r.head.target().to_owned())
        .collect();
    assert_eq!(served, ["/held", "/4", "/3", "/2", "/1"]);
}

#[test]
fn a_full_line_turns_one_away_and_no_more() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let upstream = "max_connections = 1\nqueue = { length = 2, timeout = '60s' }";
    let watched = Watched::over(origin.addr(), "", upstream);
    let mut holder = holding(&watched.proxy, &origin);
    let mut clients: Vec<_> = (0..2).map(|_| waiting(&watched.proxy, "/")).collect();
    // The new one, or under overload the oldest.
    clients.push(asking(&watched.proxy, "/"));
    let line = watched.expect_recorded(Reason::QueueFull, Some("web"));
    assert_eq!(
        (&line["status"], &line["phase"]),
        (&503.into(), &"queue".into())
    );
    gate.open();
    assert_eq!(holder.response().status(), 200);
    let answers: Vec<_> = clients.iter_mut().map(Client::response).collect();
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status() == 200);
    assert_eq!((served.len(), refused.len()), (2, 1));
    expect_answer(refused[0], Reason::QueueFull);
    assert_eq!(refused[0].field("retry-after"), Some("1"));
}

#[test]
fn who_has_waited_for_the_timeout_is_told_so() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let upstream = "max_connections = 1\nqueue = { timeout = '50ms' }";
    let watched = Watched::over(origin.addr(), "", upstream);
    let mut holder = holding(&watched.proxy, &origin);
    let mut late = asking(&watched.proxy, "/");
    let answer = late.response();
    expect_answer(&answer, Reason::QueueTimeout);
    assert_eq!(answer.field("retry-after"), Some("1"));
    let line = watched.expect_recorded(Reason::QueueTimeout, Some("web"));
    assert_eq!(
        (&line["status"], &line["phase"]),
        (&503.into(), &"queue".into())
    );
    assert_eq!(origin.requests().len(), 1);
    // The connection is as good as before, and nothing is left of its wait.
    gate.open();
    assert_eq!(holder.response().status(), 200);
    watched.await_metric(QUEUED, 0.0);
    eventually("there is room again", || {
        in_flight(&watched.proxy, &origin) == 0.0
    });
    assert_eq!(late.request("GET", "/").status(), 200);
}

#[test]
fn deadline_of_the_route_ends_a_wait_too() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let more = format!(
        "[[routes]]\nname = 'web'\npath = '/short'\nupstream = 'app'\ntimeout = '50ms'\n\
         [[routes]]\nname = 'held'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{}']\n{PATIENT}",
        origin.addr()
    );
    let watched = Watched::start("", &more);
    let mut holder = holding(&watched.proxy, &origin);
    let mut late = asking(&watched.proxy, "/short");
    watched.expect_refusal(&mut late, Reason::Deadline, Some("web"));
    watched.await_metric(QUEUED, 0.0);
    gate.open();
    assert_eq!(holder.response().status(), 200);
}

#[test]
fn client_that_goes_leaves_the_line() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let watched = Watched::over(origin.addr(), "", PATIENT);
    let mut holder = holding(&watched.proxy, &origin);
    let gone = waiting(&watched.proxy, "/gone");
    let mut stays = waiting(&watched.proxy, "/stays");
    gone.reset();
    watched.await_metric(QUEUED, 1.0);
    let line = watched.expect_recorded(Reason::ClientGone, Some("web"));
    assert_eq!(line["phase"], "queue");
    gate.open();
    assert_eq!(holder.response().status(), 200);
    assert_eq!(stays.response().status(), 200);
    let asked = origin.requests();
    assert!(asked.iter().all(|r| r.head.target() != "/gone"));
}

#[test]
fn without_a_line_the_answer_comes_at_once() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let upstream = "max_connections = 1\nqueue = { length = 0 }";
    let watched = Watched::over(origin.addr(), "", upstream);
    let mut holder = holding(&watched.proxy, &origin);
    let mut refused = asking(&watched.proxy, "/");
    let answer = refused.response();
    expect_answer(&answer, Reason::EndpointsLimit);
    assert_eq!(answer.field("retry-after"), Some("1"));
    watched.expect_recorded(Reason::EndpointsLimit, Some("web"));
    gate.open();
    assert_eq!(holder.response().status(), 200);
}

#[test]
fn place_of_a_client_that_aborts_goes_to_who_waits() {
    let origin = Origin::start(|request| match request.head.target() {
        "/held" => vec![Step::AwaitClose],
        _ => origin::reply(200, "a"),
    });
    let proxy = Proxy::over(&[origin.addr()], PATIENT);
    let holder = holding(&proxy, &origin);
    let mut waiter = waiting(&proxy, "/");
    holder.reset();
    assert_eq!(waiter.response().text(), "a");
}

#[test]
fn tunnel_holds_its_place_at_the_endpoint() {
    let origin = Origin::start(|request| match request.head.field("upgrade") {
        Some(_) => origin::tunnel(),
        None => origin::reply(200, "a"),
    });
    let proxy = Proxy::over(&[origin.addr()], PATIENT);
    let mut tunnel = Client::connect(proxy.addr());
    tunnel.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(tunnel.head().status(), 101);
    let mut waiter = waiting(&proxy, "/");
    tunnel.send("ping");
    assert_eq!(tunnel.exactly(4), b"ping");
    assert_eq!(proxy.metric(QUEUED), 1.0);
    tunnel.finish();
    assert_eq!(tunnel.read_to_end(), b"");
    assert_eq!(waiter.response().text(), "a");
}

#[test]
fn room_that_operators_make_goes_to_those_who_wait() {
    let gate = Gate::new();
    let (a, b) = (held("a", &gate), held("b", &gate));
    let proxy = Proxy::over(&[a.addr()], &format!("dynamic = true\n{PATIENT}"));
    let mut holder = holding(&proxy, &a);
    let mut waiters: Vec<_> = (0..2).map(|_| waiting(&proxy, "/")).collect();
    proxy.change(b.addr(), Verb::Add { weight: None });
    for client in &mut waiters {
        assert_eq!(client.response().text(), "b");
    }
    // Disabled, it makes no room; enabled again it does.
    proxy.change(b.addr(), Verb::Disable);
    let mut waiter = waiting(&proxy, "/");
    proxy.change(b.addr(), Verb::Undrain);
    assert_eq!(waiter.response().text(), "b");
    gate.open();
    assert_eq!(holder.response().text(), "a");
}

/// Seen red: who waited went by the limits of the configuration under which it had begun, and
/// nobody behind it got past it.
#[test]
fn room_that_a_reload_makes_goes_to_those_who_wait() {
    let gate = Gate::new();
    let (a, b) = (held("a", &gate), held("b", &gate));
    let proxy = Proxy::over(&[a.addr()], PATIENT);
    let mut holder = holding(&proxy, &a);
    // A limit that was raised.
    let mut waiter = waiting(&proxy, "/");
    let raised = PATIENT.replace("max_connections = 1", "max_connections = 2");
    proxy.reload(&Proxy::config_over(&[a.addr()], &raised));
    assert_eq!(waiter.response().text(), "a");
    // One that is gone.
    let mut second = holding(&proxy, &a);
    let mut waiter = waiting(&proxy, "/");
    let none = "queue = { timeout = '60s' }";
    proxy.reload(&Proxy::config_over(&[a.addr()], none));
    assert_eq!(waiter.response().text(), "a");
    // An endpoint more; those in flight at the first count as before.
    proxy.reload(&Proxy::config_over(&[a.addr()], PATIENT));
    let mut waiter = waiting(&proxy, "/");
    proxy.reload(&Proxy::config_over(&[a.addr(), b.addr()], PATIENT));
    assert_eq!(waiter.response().text(), "b");
    gate.open();
    for client in [&mut holder, &mut second] {
        assert_eq!(client.response().text(), "a");
    }
    eventually("nobody waits", || proxy.metric(QUEUED) == 0.0);
}

#[test]
fn who_waits_for_endpoints_that_all_go_is_told_so() {
    let gate = Gate::new();
    let a = held("a", &gate);
    let proxy = Proxy::over(&[a.addr()], PATIENT);
    let mut holder = holding(&proxy, &a);
    let mut waiters: Vec<_> = (0..3).map(|_| waiting(&proxy, "/")).collect();
    proxy.change(a.addr(), Verb::Disable);
    for client in &mut waiters {
        expect_answer(&client.response(), Reason::NoEndpoint);
    }
    gate.open();
    assert_eq!(holder.response().text(), "a", "what is in flight ends");
    assert_eq!(proxy.metric(QUEUED), 0.0);
}

#[test]
fn sticky_client_waits_its_turn_and_gets_its_endpoint() {
    let (gate, other) = (Gate::new(), Gate::new());
    let (a, b) = (held("a", &gate), held("b", &other));
    let more = format!("sticky = {{ cookie = 'lb' }}\n{PATIENT}");
    let proxy = Proxy::over(&[a.addr(), b.addr()], &more);
    // Both endpoints are held: `a` first.
    let mut of_a = holding(&proxy, &a);
    let mut of_b = asking(&proxy, "/held");
    b.await_requests(1);
    let cookie = isobar::balance::sticky::Keyring::default().value("app", &a.addr().to_string());
    let mut stuck = Client::connect(proxy.addr());
    stuck.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\nCookie: lb={cookie}\r\n\r\n"
    ));
    eventually("it waits", || proxy.metric(QUEUED) == 1.0);
    gate.open();
    let answer = stuck.response();
    assert_eq!((&*answer.text(), answer.field("set-cookie")), ("a", None));
    assert_eq!(of_a.response().text(), "a");
    other.open();
    assert_eq!(of_b.response().text(), "b");
}

/// Who may not be asked is not asked either when the others are full: one of weight 0, and a backup.
#[test]
fn full_endpoints_do_not_spill_to_those_that_serve_nobody() {
    let gate = Gate::new();
    let origin = held("a", &gate);
    let others = [held("b", &gate), held("c", &gate)];
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\n{PATIENT}\nendpoints = ['{}', {{ address = '{}', weight = 0 }}, \
         {{ address = '{}', backup = true }}]\n",
        origin.addr(),
        others[0].addr(),
        others[1].addr()
    ));
    let mut holder = holding(&proxy, &origin);
    let mut waits = waiting(&proxy, "/");
    gate.open();
    assert_eq!(holder.response().text(), "a");
    assert_eq!(waits.response().text(), "a");
    assert!(others.iter().all(|o| o.requests().is_empty()));
}
