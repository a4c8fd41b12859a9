//! Active checks: what they find decides who gets requests.
//!
//! On a busy machine a check of a good endpoint may fail for want of a processor. No test minds: what
//! is awaited is asked again, and what must never happen (a request to an endpoint that is down for
//! good) does not depend on time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use isobar::base::addr::EndpointAddr;
use isobar::base::clock::Clock;
use isobar::upstream::overrides::{Change, Verb};

use crate::support::client::Client;
use crate::support::eventually::{eventually, stalled};
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::unreachable::Refusing;

/// Checks that notice soon; a good endpoint has twice this time to answer, on a busy machine too.
const SOON: &str = "interval = '300ms', timeout = '300ms', rise = 1, fall = 2";

/// Checks under which an endpoint has to earn its requests, and then keeps them: 50 s of failures in
/// a row take it down.
const EARNED: &str =
    "interval = '50ms', timeout = '50ms', rise = 1, fall = 1000, init_state = 'fully-down'";

/// An endpoint that names itself to requests and answers checks as its switch says.
struct Switched {
    origin: Origin,
    is_well: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Switched {
    fn new(name: &'static str, is_well: bool) -> Self {
        let switch = Arc::new(AtomicBool::new(is_well));
        let checks = Arc::new(AtomicUsize::new(0));
        let (is_well, counted) = (switch.clone(), checks.clone());
        let origin = Origin::start(move |request| {
            if !request.head.start.contains("/healthz") {
                return origin::reply(200, name);
            }
            counted.fetch_add(1, Ordering::Relaxed);
            if is_well.load(Ordering::Relaxed) {
                origin::reply(200, "well")
            } else {
                origin::reply(500, "sick")
            }
        });
        Self {
            origin,
            is_well: switch,
            checks,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.origin.addr()
    }

    fn set(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::Relaxed);
    }

    /// Waits until it was checked some more times.
    fn await_checks(&self, n: usize) {
        let before = self.checks.load(Ordering::Relaxed);
        eventually("more checks", || {
            self.checks.load(Ordering::Relaxed) >= before + n
        });
    }
}

fn http(more: &str) -> String {
    format!("health = {{ check = 'http', path = '/healthz', {more} }}")
}

fn healthy(proxy: &Proxy, endpoint: SocketAddr) -> f64 {
    proxy.metric(&format!(
        "isobar_endpoint_healthy{{upstream=\"app\",endpoint=\"{endpoint}\"}}"
    ))
}

fn checks(proxy: &Proxy, endpoint: SocketAddr, result: &str) -> f64 {
    proxy.metric(&format!(
        "isobar_health_checks_total{{upstream=\"app\",endpoint=\"{endpoint}\",result=\"{result}\"}}"
    ))
}

/// Waits until an endpoint is `up` or `down`, and until that is in force.
fn await_health(proxy: &Proxy, endpoint: SocketAddr, word: &str) {
    let operations = proxy.operations();
    let endpoint = EndpointAddr::Ip(endpoint);
    eventually(&format!("{endpoint} is {word}"), || {
        let upstreams = operations.upstreams();
        let mut all = upstreams.iter().flat_map(|u| &u.endpoints);
        all.any(|e| {
            let health = e.observed.as_ref().map(|o| o.health);
            e.layers.endpoint == endpoint && health == Some(word)
        })
    });
    // Whoever changed it held the lock until all of it was done; so did we, now.
    operations.status();
}

/// Asks until `name` has answered that often; nobody but it may answer with anything but 503.
fn only(proxy: &Proxy, name: &str, times: usize) {
    let mut answers = 0;
    eventually(&format!("{times} answers of {name}"), || {
        let answer = Client::get(proxy.addr(), "/");
        if answer.status() != 503 {
            assert_eq!(answer.text(), name);
            answers += 1;
        }
        answers >= times
    });
}

/// Asks until `name` has answered.
fn sometimes(proxy: &Proxy, name: &str) {
    eventually(&format!("an answer of {name}"), || {
        Client::get(proxy.addr(), "/").text() == name
    });
}

#[test]
fn endpoint_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (one, two) = (Switched::new("one", true), Switched::new("two", true));
    let proxy = Proxy::over(&[one.addr(), two.addr()], &http(SOON));
    sometimes(&proxy, "one");
    sometimes(&proxy, "two");
    one.set(false);
    await_health(&proxy, one.addr(), "down");
    only(&proxy, "two", 20);
    eventually("checks that fail", || {
        checks(&proxy, one.addr(), "status") >= 1.0
    });
    one.set(true);
    await_health(&proxy, one.addr(), "up");
    sometimes(&proxy, "one");
}

#[test]
fn every_change_is_in_the_history_with_its_reason() {
    let one = Switched::new("one", true);
    let proxy = Proxy::over(&[one.addr()], &http(SOON));
    let told = |from: &str, to: &str, why: &str| {
        let change = format!(
            "endpoint {} of upstream `app`: {from} -> {to}: ",
            one.addr()
        );
        let events = proxy.operations().latest(1000).events;
        events
            .iter()
            .any(|e| e.text.starts_with(&change) && e.text.contains(why))
    };
    // It may happen to be down when it is switched off: then the next time.
    eventually("the endpoint went down for its status", || {
        one.set(true);
        await_health(&proxy, one.addr(), "up");
        one.set(false);
        await_health(&proxy, one.addr(), "down");
        told("up", "down", "status 500") && told("down", "up", "1 http check passed")
    });
}

#[test]
fn whatever_is_wrong_with_an_endpoint_it_never_comes_up() {
    let half = "HTTP/1.1 200 OK\r\nContent-Le";
    let half_body = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nwell";
    let refusing = Refusing::new();
    let scripts: Vec<(&str, Vec<Step>)> = vec![
        ("timeout", vec![Step::AwaitClose]),
        ("status", origin::reply(500, "well")),
        ("status", origin::reply(404, "well")),
        ("body", origin::reply(200, "sick")),
        ("closed", vec![Step::Send(half.into()), Step::Close]),
        ("closed", vec![Step::Send(half_body.into()), Step::Close]),
        ("closed", vec![Step::Reset]),
        ("protocol", origin::raw("SSH-2.0-OpenSSH\r\n\r\n")),
    ];
    let well = Switched::new("well", true);
    let sick: Vec<_> = scripts
        .into_iter()
        .map(|(result, steps)| (result, Origin::always(steps)))
        .collect();
    let mut endpoints = vec![well.addr(), refusing.addr];
    endpoints.extend(sick.iter().map(|(_, origin)| origin.addr()));
    let checks_of = format!("{EARNED}, expect = {{ body = 'well' }}");
    let proxy = Proxy::over(&endpoints, &http(&checks_of));
    await_health(&proxy, well.addr(), "up");
    for (result, origin) in &sick {
        eventually(result, || checks(&proxy, origin.addr(), result) >= 2.0);
    }
    eventually("refused", || {
        checks(&proxy, refusing.addr, "connect") >= 2.0
    });
    only(&proxy, "well", 20);
    for (_, origin) in &sick {
        assert_eq!(healthy(&proxy, origin.addr()), 0.0);
        assert_eq!(checks(&proxy, origin.addr(), "ok"), 0.0);
    }
    assert_eq!(healthy(&proxy, well.addr()), 1.0);
}

#[test]
fn tcp_checks_want_a_connection_and_no_more() {
    let (silent, refusing) = (Origin::always(vec![Step::AwaitClose]), Refusing::new());
    let proxy = Proxy::over(
        &[silent.addr(), refusing.addr],
        &format!("health = {{ check = 'tcp', {EARNED} }}"),
    );
    await_health(&proxy, silent.addr(), "up");
    eventually("refused", || {
        checks(&proxy, refusing.addr, "connect") >= 2.0
    });
    assert_eq!(healthy(&proxy, refusing.addr), 0.0);
}

#[test]
fn without_a_healthy_endpoint_it_fails_closed_or_open_as_told() {
    for (word, is_open) in [("fail_closed", false), ("fail_open", true)] {
        let (one, two) = (Switched::new("one", true), Switched::new("two", true));
        let more = format!("when_unhealthy = '{word}'\n{}", http(SOON));
        let proxy = Proxy::over(&[one.addr(), two.addr()], &more);
        one.set(false);
        two.set(false);
        await_health(&proxy, one.addr(), "down");
        await_health(&proxy, two.addr(), "down");
        let failing_open = "isobar_upstream_failing_open{upstream=\"app\"}";
        if is_open {
            eventually("failing open", || proxy.metric(failing_open) == 1.0);
            let answers: Vec<_> = (0..4)
                .map(|_| Client::get(proxy.addr(), "/").text())
                .collect();
            for name in ["one", "two"] {
                let of = answers.iter().filter(|a| *a == name).count();
                assert_eq!(of, 2, "{answers:?}");
            }
        } else {
            eventually("503", || Client::get(proxy.addr(), "/").status() == 503);
            for _ in 0..10 {
                assert_eq!(Client::get(proxy.addr(), "/").status(), 503);
            }
            assert_eq!(proxy.metric(failing_open), 0.0);
        }
        two.set(true);
        await_health(&proxy, two.addr(), "up");
        if is_open {
            // While `two` misses a check, `one` is used again: ask until it is left alone.
            eventually("nothing open any more", || {
                proxy.metric(failing_open) == 0.0
            });
            sometimes(&proxy, "two");
        } else {
            only(&proxy, "two", 10);
        }
    }
}

#[test]
fn new_endpoints_are_what_init_state_says() {
    for (state, status) in [
        ("up", 200),
        ("fully-up", 200),
        ("down", 503),
        ("fully-down", 503),
    ] {
        let one = Switched::new("one", true);
        // Where checks go nobody answers: for a minute it is not known what it is.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let slow =
            format!("interval = '1h', timeout = '1m', init_state = '{state}', port = {port}");
        let proxy = Proxy::over(&[one.addr()], &http(&slow));
        assert_eq!(Client::get(proxy.addr(), "/").status(), status, "{state}");
        drop(proxy);
        if state == "down" {
            // One check that passes is enough.
            let slow = format!("interval = '1h', timeout = '1m', init_state = '{state}'");
            let proxy = Proxy::over(&[one.addr()], &http(&slow));
            await_health(&proxy, one.addr(), "up");
            only(&proxy, "one", 3);
        }
    }
}

#[test]
fn readiness_waits_for_the_first_checks() {
    let one = Switched::new("one", true);
    // Where checks go nobody answers, until the test does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let slow = format!("interval = '1h', timeout = '1m', init_state = 'down', port = {port}");
    let proxy = Proxy::over(&[one.addr()], &http(&slow));
    let ready = || Client::get(proxy.admin(), "/readyz");
    let (clock, began) = (Clock::start(), Clock::start().now());
    let first = ready();
    // Nobody is waited for longer than ten seconds, which may pass on a busy machine.
    if clock.now() - began < 8_000_000_000 {
        assert_eq!((first.status(), &*first.text()), (503, "starting\n"));
    }
    let (mut check, _) = silent.accept().unwrap();
    // An answer before the question would be none.
    let mut asked = [0; 1024];
    assert!(std::io::Read::read(&mut check, &mut asked).unwrap() > 0);
    std::io::Write::write_all(&mut check, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    eventually("ready", || ready().status() == 200);
    only(&proxy, "one", 1);
    // A server without checks is ready when it has started.
    let proxy = Proxy::over(&[one.addr()], "");
    assert_eq!(Client::get(proxy.admin(), "/readyz").status(), 200);
}

#[test]
fn views_say_what_the_last_check_was_and_why_it_is_down() {
    let one = Switched::new("one", false);
    let proxy = Proxy::over(&[one.addr()], &http(SOON));
    await_health(&proxy, one.addr(), "down");
    let observed = || {
        let view = proxy.operations().upstream("app").unwrap();
        view.endpoints[0].observed.clone().unwrap()
    };
    eventually("a check that failed for its status", || {
        let last = observed().last_check.unwrap();
        last.result == "status" && last.text.as_deref() == Some("status 500")
    });
    let since = observed().since.unwrap();
    assert!(since.at_unix_ms > 0 && since.why.contains("failed, the last with: "));
    proxy.reload(&Proxy::config_over(&[one.addr()], ""));
    assert!(observed().since.is_none(), "nobody checks it");
}

#[test]
fn state_of_what_stays_survives_a_reload() {
    let (sick, well) = (Switched::new("sick", false), Switched::new("well", true));
    let third = Switched::new("third", true);
    let proxy = Proxy::over(&[sick.addr(), well.addr()], &http(SOON));
    await_health(&proxy, sick.addr(), "down");
    // Another endpoint; other checks; another policy: `init_state` is up, and means new ones.
    let slow = "interval = '1h', timeout = '1s'";
    for (endpoints, more) in [
        (vec![sick.addr(), well.addr(), third.addr()], http(SOON)),
        (vec![sick.addr(), well.addr()], http(slow)),
        (
            vec![sick.addr(), well.addr()],
            http(slow) + "\nconnect_timeout = '3s'",
        ),
    ] {
        proxy.reload(&Proxy::config_over(&endpoints, &more));
        for _ in 0..6 {
            assert_ne!(Client::get(proxy.addr(), "/").text(), "sick");
        }
        assert_eq!(healthy(&proxy, sick.addr()), 0.0);
    }
    // Checks that end take what they found with them.
    proxy.reload(&Proxy::config_over(&[sick.addr(), well.addr()], ""));
    sometimes(&proxy, "sick");
    let series = format!("endpoint=\"{}\"", sick.addr());
    let text = Client::get(proxy.admin(), "/metrics").text();
    let gauge = |line: &str| line.starts_with("isobar_endpoint_healthy") && line.contains(&series);
    assert!(!text.lines().any(gauge), "nobody checks it");
    // Checks that begin do not take down what served until now.
    proxy.reload(&Proxy::config_over(
        &[sick.addr(), well.addr()],
        &http(&format!("{slow}, init_state = 'fully-down'")),
    ));
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
}

#[test]
fn checks_stop_when_the_configuration_has_none() {
    let one = Switched::new("one", true);
    let proxy = Proxy::over(&[one.addr()], &http(SOON));
    one.await_checks(2);
    proxy.reload(&Proxy::config_over(&[one.addr()], ""));
    stalled("the last checks", || one.checks.load(Ordering::Relaxed));
    proxy.reload(&Proxy::config_over(&[one.addr()], &http(SOON)));
    one.await_checks(2);
}

#[test]
fn checks_may_have_a_port_of_their_own() {
    let (server, health) = (Origin::named("server"), Switched::new("health", false));
    let more = http(&format!("{SOON}, port = {}", health.addr().port()));
    let proxy = Proxy::over(&[server.addr()], &more);
    await_health(&proxy, server.addr(), "down");
    assert_eq!(Client::get(proxy.addr(), "/").status(), 503);
    health.set(true);
    only(&proxy, "server", 3);
    assert!(
        server
            .requests()
            .iter()
            .all(|r| !r.head.start.contains("healthz"))
    );
}

#[test]
fn http_checks_ask_as_they_are_told() {
    let origin = Origin::named("ok");
    let asked = "method = 'OPTIONS', host = 'app.internal', headers = { x-check = 'yes' }";
    let proxy = Proxy::over(&[origin.addr()], &http(&format!("{SOON}, {asked}")));
    let request = &origin.await_requests(1)[0];
    assert_eq!(request.head.start, "OPTIONS /healthz HTTP/1.1");
    let field = |name| request.head.field(name);
    assert_eq!(field("host"), Some("app.internal"));
    assert_eq!(field("x-check"), Some("yes"));
    assert_eq!(field("connection"), Some("close"));
    drop(proxy);
}

#[test]
fn idle_connections_to_what_is_down_are_closed() {
    let one = Switched::new("one", true);
    let proxy = Proxy::over(&[one.addr()], &http(SOON));
    let idle = format!(
        "isobar_endpoint_idle_connections{{upstream=\"app\",endpoint=\"{}\"}}",
        one.addr()
    );
    sometimes(&proxy, "one");
    one.set(false);
    eventually("idle connections are closed", || {
        proxy.metric("isobar_upstream_pool_closes_total{upstream=\"app\",reason=\"removed\"}")
            >= 1.0
            && proxy.metric(&idle) == 0.0
    });
}

#[test]
fn sticky_client_leaves_an_endpoint_that_is_down() {
    let (one, two) = (Switched::new("one", true), Switched::new("two", true));
    let more = format!("sticky = {{ cookie = 's' }}\n{}", http(SOON));
    let proxy = Proxy::over(&[one.addr(), two.addr()], &more);
    let mut cookie = String::new();
    eventually("a cookie of `one`", || {
        let answer = Client::get(proxy.addr(), "/");
        let set = answer.field("set-cookie").unwrap_or_default();
        set.split(';')
            .next()
            .unwrap_or_default()
            .clone_into(&mut cookie);
        answer.text() == "one"
    });
    let ask = || {
        let mut client = Client::connect(proxy.addr());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n"
        ));
        client.response()
    };
    one.set(false);
    await_health(&proxy, one.addr(), "down");
    for _ in 0..10 {
        assert_ne!(ask().text(), "one");
    }
    one.set(true);
    eventually("it is back where it was", || ask().text() == "one");
}

#[test]
fn an_operator_comes_before_a_check() {
    let (one, two) = (Switched::new("one", true), Switched::new("two", true));
    let proxy = Proxy::over(
        &[one.addr(), two.addr()],
        &http(EARNED).replace("fully-down", "fully-up"),
    );
    one.await_checks(2);
    let change = Change {
        upstream: "app".into(),
        endpoint: EndpointAddr::Ip(one.addr()),
        verb: Verb::Disable,
        owner: "test".to_owned(),
        reason: String::new(),
        expires_unix_ms: None,
    };
    proxy.operations().change(change).unwrap();
    one.await_checks(3);
    only(&proxy, "two", 10);
    assert_eq!(healthy(&proxy, one.addr()), 1.0, "checked all the same");
}
