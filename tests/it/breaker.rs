//! The breaker of an upstream: opens by failures, tries again, closes; opens by what is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use isobar::telemetry::history::Cause;
use isobar::telemetry::reason::Reason;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::now;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::watched::{Watched, expect_answer};

const STATE: &str = "isobar_upstream_breaker_state{upstream=\"app\"}";
const OPENED: &str = "isobar_upstream_breaker_opened_total{upstream=\"app\"}";
const REFUSED: &str = "isobar_http_refusals_total{route=\"web\",reason=\"breaker\"}";

/// An origin that answers with a status that can be changed; to /held once the gate is open.
fn switched(gate: &Gate) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let (read, gate) = (status.clone(), gate.clone());
    let origin = Origin::start(move |request| {
        let answer = Step::Send(origin::response(read.load(Ordering::SeqCst), "a"));
        match request.head.target() {
            "/held" => vec![Step::Pass(gate.clone()), answer],
            _ => vec![answer],
        }
    });
    (origin, status)
}

fn asking(proxy: &Proxy, target: &str) -> Client {
    let mut client = Client::connect(proxy.addr());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
    client
}

/// Waits until so much time has passed.
fn pass(time: Duration) {
    let end = now() + time;
    eventually("time passes", || now() >= end);
}

/// What the timeline says of the breaker, oldest first.
fn told(proxy: &Proxy) -> Vec<String> {
    let mut events = proxy.operations().latest(1000).events;
    events.sort_by_key(|event| event.seq);
    let of_breaker = events.into_iter().filter(|e| e.cause == Cause::Breaker);
    of_breaker.map(|e| e.text).collect()
}

#[test]
fn opens_after_failures_and_answers_at_once() {
    let (origin, status) = switched(&Gate::new());
    let breaker =
        "breaker = { failure_ratio = '50%', min_requests = 4, window = '1h', open_for = '10m' }";
    let watched = Watched::over(origin.addr(), "", breaker);
    for _ in 0..2 {
        assert_eq!(Client::get(watched.addr(), "/").status(), 200);
    }
    assert_eq!(watched.proxy.metric(STATE), 0.0);
    status.store(500, Ordering::SeqCst);
    // Above one half: the third failure of five.
    for _ in 0..3 {
        assert_eq!(Client::get(watched.addr(), "/").status(), 500);
    }
    let mut refused = asking(&watched.proxy, "/");
    let answer = refused.response();
    expect_answer(&answer, Reason::Breaker);
    let after = answer.field("retry-after").and_then(|v| v.parse().ok());
    assert!(
        after.is_some_and(|s: u32| (500..=600).contains(&s)),
        "{after:?}"
    );
    let line = watched.expect_recorded(Reason::Breaker, Some("web"));
    assert_eq!(
        (&line["status"], line["endpoint"].is_string()),
        (&503.into(), false)
    );
    assert_eq!(origin.requests().len(), 5, "it is left alone");
    watched.await_metric(STATE, 2.0);
    watched.await_metric(OPENED, 1.0);
    eventually("it is told", || !told(&watched.proxy).is_empty());
    let told = told(&watched.proxy);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("breaker of upstream `app`: closed -> open"),
        "{told:?}"
    );
}

#[test]
fn tries_again_and_closes_when_it_is_answered() {
    let (origin, status) = switched(&Gate::new());
    let open_for = Duration::from_millis(100);
    let breaker =
        "breaker = { failure_ratio = '50%', min_requests = 1, open_for = '100ms', trials = 1 }";
    let proxy = Proxy::over(&[origin.addr()], breaker);
    status.store(500, Ordering::SeqCst);
    assert_eq!(Client::get(proxy.addr(), "/").status(), 500);
    // A trial that fails opens it again.
    pass(open_for);
    assert_eq!(Client::get(proxy.addr(), "/").status(), 500);
    eventually("it is open again", || told(&proxy).len() == 3);
    assert_eq!(origin.requests().len(), 2);
    status.store(200, Ordering::SeqCst);
    pass(open_for);
    // A trial counts if it is answered within `open_for`: on a slow machine it takes another.
    eventually("it is closed", || {
        Client::get(proxy.addr(), "/");
        told(&proxy).len() == 5
    });
    for _ in 0..3 {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    }
    let told = told(&proxy);
    for (text, wanted) in told.iter().zip([
        "closed -> open",
        "open -> half-open",
        "half-open -> open",
        "open -> half-open",
        "half-open -> closed",
    ]) {
        let begins = format!("breaker of upstream `app`: {wanted}");
        assert!(text.starts_with(&begins), "{text} is not {wanted}");
    }
    assert_eq!(proxy.metric(STATE), 0.0);
    assert_eq!(proxy.metric(OPENED), 2.0);
}

#[test]
fn while_trials_run_others_are_refused() {
    let origin = Origin::start(|request| match request.head.target() {
        "/held" => vec![Step::AwaitClose],
        _ => origin::reply(500, "a"),
    });
    let open_for = Duration::from_secs(1);
    let breaker =
        "breaker = { failure_ratio = '50%', min_requests = 1, open_for = '1s', trials = 2 }";
    let proxy = Proxy::over(&[origin.addr()], breaker);
    assert_eq!(Client::get(proxy.addr(), "/").status(), 500);
    // A trial keeps its place for `open_for`: a machine that is slower than that tries again.
    eventually("three refusals while two trials ran", || {
        pass(open_for);
        let began = now();
        let before = origin.requests().len();
        let trials = [asking(&proxy, "/held"), asking(&proxy, "/held")];
        origin.await_requests(before + 2);
        let answers: Vec<_> = (0..3).map(|_| Client::get(proxy.addr(), "/")).collect();
        let was_quick = now() < began + open_for;
        if was_quick {
            for answer in &answers {
                expect_answer(answer, Reason::Breaker);
                assert_eq!(answer.field("retry-after"), Some("1"));
            }
            eventually("it is half-open", || proxy.metric(STATE) == 1.0);
        }
        trials.into_iter().for_each(Client::reset);
        was_quick
    });
}

#[test]
fn connects_that_fail_count_and_clients_that_go_do_not() {
    let origin = Origin::always(vec![Step::AwaitClose]);
    let breaker =
        "breaker = { failure_ratio = '50%', min_requests = 2, window = '1h', open_for = '10m' }";
    let proxy = Proxy::over(&[origin.addr()], breaker);
    for n in 1..=5 {
        let client = asking(&proxy, "/");
        origin.await_requests(n);
        client.reset();
    }
    let in_flight = "isobar_upstream_in_flight{upstream=\"app\"}";
    eventually("all are gone", || proxy.metric(in_flight) == 0.0);
    assert_eq!(proxy.metric(STATE), 0.0);
    let refusing = crate::support::unreachable::Refusing::new();
    let proxy = Proxy::over(&[refusing.addr], breaker);
    for _ in 0..2 {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 502);
    }
    expect_answer(&Client::get(proxy.addr(), "/"), Reason::Breaker);
}

#[test]
fn max_in_flight_bounds_what_the_upstream_has_to_do() {
    let gate = Gate::new();
    let (origin, _) = switched(&gate);
    let proxy = Proxy::over(&[origin.addr()], "breaker = { max_in_flight = 2 }");
    let mut held: Vec<_> = (0..2).map(|_| asking(&proxy, "/held")).collect();
    gate.await_reached(2);
    let refused = Client::get(proxy.addr(), "/");
    expect_answer(&refused, Reason::Breaker);
    assert_eq!(refused.field("retry-after"), Some("1"));
    gate.open();
    for client in &mut held {
        assert_eq!(client.response().status(), 200);
    }
    eventually("there is room", || {
        Client::get(proxy.addr(), "/").status() == 200
    });
    assert_eq!(proxy.metric(STATE), 0.0, "full is not failing");
}

#[test]
fn max_pending_bounds_who_waits() {
    let gate = Gate::new();
    let (origin, _) = switched(&gate);
    let more = "max_connections = 1\nqueue = { timeout = '60s' }\nbreaker = { max_pending = 1 }";
    let proxy = Proxy::over(&[origin.addr()], more);
    let mut held = asking(&proxy, "/held");
    gate.await_reached(1);
    let mut waiter = asking(&proxy, "/");
    let queued = "isobar_upstream_queue_length{upstream=\"app\"}";
    eventually("it waits", || proxy.metric(queued) == 1.0);
    expect_answer(&Client::get(proxy.addr(), "/"), Reason::Breaker);
    gate.open();
    for client in [&mut held, &mut waiter] {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(proxy.metric(REFUSED), 1.0);
}

#[test]
fn observe_counts_and_refuses_nobody() {
    let (origin, status) = switched(&Gate::new());
    let breaker =
        "breaker = { failure_ratio = '50%', min_requests = 1, open_for = '10m', mode = 'observe' }";
    let proxy = Proxy::over(&[origin.addr()], breaker);
    status.store(500, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 500);
    }
    let observed = "isobar_upstream_breaker_observed_total{upstream=\"app\"}";
    assert_eq!(proxy.metric(observed), 4.0);
    assert_eq!(proxy.metric(REFUSED), 0.0);
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn state_outlives_a_reload_of_other_things() {
    let (origin, status) = switched(&Gate::new());
    let breaker = "breaker = { failure_ratio = '50%', min_requests = 1, open_for = '10m' }";
    let proxy = Proxy::over(&[origin.addr()], breaker);
    status.store(500, Ordering::SeqCst);
    assert_eq!(Client::get(proxy.addr(), "/").status(), 500);
    status.store(200, Ordering::SeqCst);
    let more = format!("connect_timeout = '2s'\n{breaker}");
    proxy.reload(&Proxy::config_over(&[origin.addr()], &more));
    expect_answer(&Client::get(proxy.addr(), "/"), Reason::Breaker);
    // Another breaker knows nothing yet.
    let other = breaker.replace("10m", "9m");
    proxy.reload(&Proxy::config_over(&[origin.addr()], &other));
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    eventually("it is closed", || proxy.metric(STATE) == 0.0);
}
