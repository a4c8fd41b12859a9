//! Endpoints that speak for themselves, in a field of their responses.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::sync::{Arc, Mutex};

use isobar::telemetry::history::Cause;

use crate::support::client::{Client, Response};
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

/// An origin that says something of itself with each response; nothing if empty.
struct Speaker {
    origin: Origin,
    says: Arc<Mutex<String>>,
}

impl Speaker {
    fn new(name: &'static str, says: &str) -> Self {
        let says = Arc::new(Mutex::new(says.to_owned()));
        let line = says.clone();
        let origin = Origin::start(move |_| {
            let field = match &**line.lock().unwrap() {
                "" => String::new(),
                line => format!("X-Agent: {line}\r\n"),
            };
            let length = name.len();
            let head = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {length}\r\n\r\n");
            origin::raw(head + name)
        });
        Self { origin, says }
    }

    fn say(&self, line: &str) {
        line.clone_into(&mut self.says.lock().unwrap());
    }
}

/// Both endpoints, and more for the upstream.
fn config(endpoints: &[&Origin], more: &str) -> String {
    let addrs: Vec<_> = endpoints.iter().map(|o| o.addr()).collect();
    Proxy::config_over(&addrs, more)
}

const AGENT: &str = "agent = { header = 'x-agent' }\nsticky = { cookie = 'lb' }";

fn ask(proxy: &Proxy, cookie: &str) -> Response {
    let mut client = Client::connect(proxy.addr());
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n"
    ));
    let answer = client.response();
    assert_eq!(answer.field("x-agent"), None, "it is for the proxy alone");
    answer
}

/// The cookie of whoever answers.
fn cookie(answer: &Response) -> String {
    let set = answer.field("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// What isobar has it that the endpoint in that place says.
fn says(proxy: &Proxy, place: usize) -> Option<String> {
    let view = proxy.operations().upstream("app").unwrap();
    let observed = view.endpoints[place].observed.as_ref().unwrap();
    observed.says.clone()
}

/// Asks, with a cookie or without, until isobar has heard it.
#[track_caller]
fn await_says(proxy: &Proxy, cookie: &str, wanted: Option<&str>) {
    eventually(&format!("it says {wanted:?}"), || {
        ask(proxy, cookie);
        says(proxy, 0).as_deref() == wanted
    });
    // Whoever heard it held the lock until it was in force; so did we, now.
    proxy.operations().status();
}

#[test]
fn endpoint_drains_itself_and_comes_back_by_what_its_clients_hear() {
    let (a, b) = (Speaker::new("a", "ready"), Speaker::new("b", ""));
    let proxy = Proxy::start(&config(&[&a.origin, &b.origin], AGENT));
    let answers: Vec<_> = (0..2).map(|_| ask(&proxy, "")).collect();
    let of_a = cookie(answers.iter().find(|r| r.text() == "a").unwrap());
    a.say("drain # a new release");
    await_says(&proxy, &of_a, Some("drain"));
    for _ in 0..10 {
        assert_eq!(ask(&proxy, "").text(), "b", "nobody new");
        assert_eq!(ask(&proxy, &of_a).text(), "a", "who holds its cookie stays");
    }
    a.say("ready");
    await_says(&proxy, &of_a, None);
    let new: String = (0..10).map(|_| ask(&proxy, "").text()).collect();
    assert_eq!(new.matches('a').count(), 5, "{new}");
    a.say("down # disk full");
    await_says(&proxy, &of_a, Some("down"));
    assert_eq!(ask(&proxy, &of_a).text(), "b");
    let events = proxy.operations().latest(100).events;
    let told: Vec<_> = events.iter().filter(|e| e.cause == Cause::Agent).collect();
    assert_eq!(told.len(), 3, "each change once: {told:?}");
    let last = told.iter().map(|e| &e.text).find(|t| t.contains("down"));
    assert_eq!(
        *last.unwrap(),
        format!(
            "endpoint {} of upstream `app` says of itself: ready -> down: \
             its response says `down # disk full`",
            a.origin.addr()
        )
    );
}

#[test]
fn endpoint_asks_for_less() {
    let (a, b) = (Speaker::new("a", "50%"), Speaker::new("b", ""));
    let toml = config(&[&a.origin, &b.origin], AGENT);
    // In turn, but by weight.
    let proxy = Proxy::start(&toml.replace("round_robin", "weighted"));
    await_says(&proxy, "", Some("50%"));
    let seen: String = (0..30).map(|_| ask(&proxy, "").text()).collect();
    let share = seen.matches('a').count();
    assert!((9..=11).contains(&share), "a third of {seen}");
    a.say("100%");
    await_says(&proxy, "", None);
    let seen: String = (0..30).map(|_| ask(&proxy, "").text()).collect();
    let share = seen.matches('a').count();
    assert!((14..=16).contains(&share), "half of {seen}");
}

#[test]
fn endpoint_limits_what_is_in_flight() {
    let gate = Gate::new();
    let origin = Origin::start({
        let gate = gate.clone();
        move |request| {
            let answer = "HTTP/1.1 200 OK\r\nX-Agent: maxconn:1\r\nContent-Length: 0\r\n\r\n";
            let answer = Step::Send(answer.as_bytes().to_vec());
            match request.head.target() {
                "/slow" => vec![Step::Pass(gate.clone()), answer],
                _ => vec![answer],
            }
        }
    });
    let more = "agent = { header = 'x-agent' }\nqueue = { length = 0 }";
    let proxy = Proxy::start(&config(&[&origin], more));
    eventually("its limit is known", || {
        assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
        says(&proxy, 0).as_deref() == Some("maxconn:1")
    });
    proxy.operations().status();
    let in_flight = format!(
        "isobar_endpoint_in_flight{{upstream=\"app\",endpoint=\"{}\"}}",
        origin.addr()
    );
    // The one before may have its place for a moment yet.
    eventually("it is free", || proxy.metric(&in_flight) == 0.0);
    let mut slow = Client::connect(proxy.addr());
    slow.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    gate.await_reached(1);
    let refused = Client::get(proxy.addr(), "/");
    assert_eq!(refused.status(), 503);
    let status = refused.field("proxy-status").unwrap();
    assert!(status.contains("endpoints_limit"), "{status}");
    gate.open();
    assert_eq!(slow.response().status(), 200);
}

#[test]
fn what_means_nothing_or_is_too_long_changes_nothing() {
    let long = format!("{} drain", "x".repeat(1100));
    for line in [
        "banana",
        "drainage",
        "-5%",
        "maxconn:many",
        "# drain",
        &long,
    ] {
        let a = Speaker::new("a", line);
        let proxy = Proxy::start(&config(&[&a.origin], AGENT));
        for _ in 0..5 {
            assert_eq!(ask(&proxy, "").status(), 200, "{line}");
        }
        // What was sent before is heard before.
        a.say("75%");
        await_says(&proxy, "", Some("75%"));
        let events = proxy.operations().latest(100).events;
        let told = events.iter().filter(|e| e.cause == Cause::Agent);
        assert_eq!(told.count(), 1, "{line}");
    }
}

#[test]
fn nothing_is_believed_where_nobody_listens() {
    let a = Speaker::new("a", "down");
    let proxy = Proxy::start(&config(&[&a.origin], ""));
    for _ in 0..5 {
        let answer = Client::get(proxy.addr(), "/");
        assert_eq!(
            (answer.status(), answer.field("x-agent")),
            (200, Some("down"))
        );
    }
    // Another field than the one that is listened to.
    let other = "agent = { header = 'x-other' }";
    proxy.reload(&config(&[&a.origin], other));
    for _ in 0..5 {
        let answer = Client::get(proxy.addr(), "/");
        assert_eq!(
            (answer.status(), answer.field("x-agent")),
            (200, Some("down"))
        );
    }
    proxy.operations().status();
    assert_eq!(says(&proxy, 0), None);
}

#[test]
fn who_is_not_listened_to_any_more_is_forgotten_and_heard_anew() {
    let a = Speaker::new("a", "50%");
    let proxy = Proxy::start(&config(&[&a.origin], AGENT));
    await_says(&proxy, "", Some("50%"));
    proxy.reload(&config(&[&a.origin], ""));
    assert_eq!(says(&proxy, 0), None);
    // It says the same as before: news all the same.
    proxy.reload(&config(&[&a.origin], AGENT));
    await_says(&proxy, "", Some("50%"));
}

#[test]
fn the_field_reaches_no_client_in_whatever_part_of_a_response() {
    let head = "HTTP/1.1 103 Early Hints\r\nX-AGENT: drain\r\nLink: </a>\r\n\r\n\
                HTTP/1.1 200 OK\r\nx-agent: 75%\r\nx-own: 1\r\nX-Agent: 50%\r\n\
                Transfer-Encoding: chunked\r\nTrailer: x-agent\r\n\r\n\
                1\r\na\r\n0\r\nx-agent: down\r\nx-sum: 1\r\n\r\n";
    let origin = Origin::always(origin::raw(head));
    let proxy = Proxy::start(&config(&[&origin], AGENT));
    let mut client = Client::connect(proxy.addr());
    let answer = client.request("GET", "/");
    assert_eq!(answer.informational.len(), 1);
    assert_eq!(answer.informational[0].field("x-agent"), None);
    assert_eq!(answer.informational[0].field("link"), Some("</a>"));
    assert_eq!(answer.field("x-agent"), None);
    assert_eq!(answer.field("x-own"), Some("1"));
    let trailers = String::from_utf8_lossy(&answer.body.raw).to_ascii_lowercase();
    assert!(
        trailers.contains("x-sum") && !trailers.contains("x-agent"),
        "{trailers}"
    );
    // The first of two counts; interim responses and trailers say nothing.
    eventually("it is heard", || says(&proxy, 0).as_deref() == Some("75%"));
}

#[test]
fn what_is_said_with_a_101_or_an_error_counts_too() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nX-Agent: 75%\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        "HTTP/1.1 500 Oh\r\nX-Agent: 75%\r\nContent-Length: 0\r\n\r\n",
    ] {
        let origin = Origin::always(vec![
            Step::Send(answer.as_bytes().to_vec()),
            Step::AwaitClose,
        ]);
        let proxy = Proxy::start(&config(&[&origin], AGENT));
        let mut client = Client::connect(proxy.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.head().field("x-agent"), None);
        eventually("it is heard", || says(&proxy, 0).as_deref() == Some("75%"));
    }
}
