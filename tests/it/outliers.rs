//! Passive checks: who is ejected for what requests say, who sees it, and when it is used again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::binary::{Binary, free_port, run};
use crate::support::child::Server;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::now;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

/// An endpoint that answers as its switch says: 200 with its name, or 500.
struct Switched {
    origin: Origin,
    is_well: Arc<AtomicBool>,
}

impl Switched {
    fn new(name: &'static str, is_well: bool) -> Self {
        let switch = Arc::new(AtomicBool::new(is_well));
        let is_well = switch.clone();
        let origin = Origin::start(move |_| {
            if is_well.load(Ordering::SeqCst) {
                origin::reply(200, name)
            } else {
                origin::reply(500, name)
            }
        });
        Self {
            origin,
            is_well: switch,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.origin.addr()
    }
}

fn gauge(proxy: &Proxy, endpoint: SocketAddr) -> f64 {
    proxy.metric(&format!(
        "isobar_endpoint_ejected{{upstream=\"app\",endpoint=\"{endpoint}\"}}"
    ))
}

fn ejections(proxy: &Proxy, endpoint: SocketAddr, result: &str) -> f64 {
    proxy.metric(&format!(
        "isobar_endpoint_ejections_total{{upstream=\"app\",endpoint=\"{endpoint}\",result=\"{result}\"}}"
    ))
}

/// What is told of changes of this endpoint, in order.
fn told(proxy: &Proxy, endpoint: SocketAddr) -> Vec<String> {
    let subject = format!("endpoint {endpoint} of upstream `app`: ");
    let events = proxy.operations().latest(1000).events;
    let texts = events.iter().filter_map(|e| e.text.strip_prefix(&subject));
    texts.map(ToOwned::to_owned).collect()
}

/// Waits until an event has begun to be in force: whoever made it held the lock until all was done.
#[track_caller]
fn await_told(proxy: &Proxy, endpoint: SocketAddr, text: &str) {
    eventually(text, || told(proxy, endpoint).iter().any(|t| t == text));
    proxy.operations().status();
}

#[test]
fn five_server_errors_in_a_row_eject_until_the_time_is_over() {
    let sick = Switched::new("sick", false);
    let [one, two] = ["one", "two"].map(|name| Switched::new(name, true));
    let proxy = Proxy::over(
        &[sick.addr(), one.addr(), two.addr()],
        "[upstreams.app.outlier]\neject_for = '3s'",
    );
    let mut client = Client::connect(proxy.addr());
    // In turn: each third is the sick one's.
    for n in 0..12 {
        let status = client.request("GET", "/").status();
        assert_eq!(status, if n % 3 == 0 { 500 } else { 200 }, "{n}");
    }
    assert_eq!(told(&proxy, sick.addr()), [] as [String; 0]);
    let before = now();
    assert_eq!(client.request("GET", "/").status(), 500);
    let ejected = "ready -> ejected for 3s: 5 failures in a row";
    await_told(&proxy, sick.addr(), ejected);
    let is_ejected = gauge(&proxy, sick.addr());
    let answers = [(); 6].map(|()| client.request("GET", "/").status());
    // On a machine that stood still its time may be over.
    if before.elapsed() < Duration::from_secs(3) {
        assert_eq!(is_ejected, 1.0);
        assert_eq!(answers, [200; 6]);
        assert_eq!(sick.origin.requests().len(), 5);
    }
    sick.is_well.store(true, Ordering::SeqCst);
    eventually("it is used again", || {
        client.request("GET", "/").text() == "sick"
    });
    eprintln!(
        "used again {:?} after its ejection for 3 s",
        before.elapsed()
    );
    await_told(&proxy, sick.addr(), "ejected -> ready: its time is over");
    assert_eq!(told(&proxy, sick.addr())[0], ejected);
    assert_eq!(gauge(&proxy, sick.addr()), 0.0);
    assert_eq!(ejections(&proxy, sick.addr(), "ejected"), 1.0);
    // In turn again: it has its share.
    let answers: Vec<String> = (0..30).map(|_| client.request("GET", "/").text()).collect();
    let of_sick = answers.iter().filter(|name| *name == "sick").count();
    assert_eq!(of_sick, 10, "{answers:?}");
}

#[test]
fn a_success_in_between_keeps_it() {
    let sick = Origin::start(|r| match r.head.target() {
        "/good" => origin::reply(200, "sick"),
        _ => origin::reply(500, "sick"),
    });
    let well = Origin::named("well");
    let proxy = Proxy::over(
        &[sick.addr(), well.addr()],
        "[upstreams.app.outlier]\neject_for = '1m'",
    );
    let mut client = Client::connect(proxy.addr());
    for _ in 0..5 {
        for target in ["/bad", "/bad", "/bad", "/bad", "/good"] {
            for _ in 0..2 {
                client.request("GET", target);
            }
        }
    }
    assert_eq!(sick.requests().len(), 25);
    assert_eq!(told(&proxy, sick.addr()), [] as [String; 0]);
}

#[test]
fn each_ejection_is_twice_as_long() {
    let (sick, well) = (Switched::new("sick", false), Switched::new("well", true));
    let proxy = Proxy::over(
        &[sick.addr(), well.addr()],
        "[upstreams.app.outlier]\nconsecutive_failures = 1\neject_for = '500ms'\nmax_eject = '2s'",
    );
    let mut client = Client::connect(proxy.addr());
    for length in ["500ms", "1s", "2s"] {
        eventually(length, || {
            client.request("GET", "/");
            let text = format!("ready -> ejected for {length}: 1 failure");
            told(&proxy, sick.addr()).contains(&text)
        });
    }
}

#[test]
fn no_more_than_max_ejected_are_ejected_at_once() {
    let sick = [(); 2].map(|()| Switched::new("sick", false));
    let well = [(); 2].map(|()| Switched::new("well", true));
    let addrs = [&sick[0], &sick[1], &well[0], &well[1]].map(Switched::addr);
    let proxy = Proxy::over(
        &addrs,
        "[upstreams.app.outlier]\neject_for = '5m'\nmax_ejected = '25%'",
    );
    let mut client = Client::connect(proxy.addr());
    let sum = |result| {
        let of = |s: &Switched| ejections(&proxy, s.addr(), result);
        of(&sick[0]) + of(&sick[1])
    };
    eventually("one is ejected, and one is spared", || {
        client.request("GET", "/");
        sum("ejected") == 1.0 && sum("spared") >= 1.0
    });
    let is_ejected = sick.each_ref().map(|s| gauge(&proxy, s.addr()) == 1.0);
    assert_ne!(is_ejected[0], is_ejected[1]);
    let spared = &sick[usize::from(is_ejected[0])];
    let before = spared.origin.requests().len();
    for _ in 0..9 {
        client.request("GET", "/");
    }
    assert_eq!(
        spared.origin.requests().len(),
        before + 3,
        "it has its share"
    );
    assert_eq!(sum("ejected"), 1.0);
}

#[test]
fn last_endpoint_that_is_ready_is_never_ejected() {
    let sick = [(); 2].map(|()| Switched::new("sick", false));
    let proxy = Proxy::over(
        &[sick[0].addr(), sick[1].addr()],
        "[upstreams.app.outlier]\neject_for = '5m'\nmax_ejected = '100%'",
    );
    let mut client = Client::connect(proxy.addr());
    let spared = || {
        sick.each_ref()
            .map(|s| ejections(&proxy, s.addr(), "spared"))
    };
    eventually("one of them is spared", || {
        assert_eq!(client.request("GET", "/").status(), 500);
        spared().iter().any(|n| *n >= 1.0)
    });
    let ejected = sick.each_ref().map(|s| gauge(&proxy, s.addr()));
    assert_eq!(ejected.iter().sum::<f64>(), 1.0);
}

#[test]
fn observing_counts_and_ejects_nobody() {
    let (sick, well) = (Switched::new("sick", false), Switched::new("well", true));
    let proxy = Proxy::over(
        &[sick.addr(), well.addr()],
        "[upstreams.app.outlier]\nmode = 'observe'",
    );
    let mut client = Client::connect(proxy.addr());
    let mut asked = 0_usize;
    eventually("it would be ejected", || {
        client.request("GET", "/");
        asked += 1;
        ejections(&proxy, sick.addr(), "spared") >= 2.0
    });
    assert_eq!(gauge(&proxy, sick.addr()), 0.0);
    assert_eq!(ejections(&proxy, sick.addr(), "ejected"), 0.0);
    assert_eq!(sick.origin.requests().len(), asked.div_ceil(2));
    assert_eq!(told(&proxy, sick.addr()), [] as [String; 0]);
}

#[test]
fn without_the_table_server_errors_eject_nobody() {
    let (sick, well) = (Switched::new("sick", false), Switched::new("well", true));
    let proxy = Proxy::over(&[sick.addr(), well.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for _ in 0..60 {
        client.request("GET", "/");
    }
    assert_eq!(sick.origin.requests().len(), 30);
    assert_eq!(ejections(&proxy, sick.addr(), "ejected"), 0.0);
}

#[test]
fn connects_that_fail_eject_and_a_server_that_came_back_is_used_again() {
    let (mut dead, well) = (Server::dead("back"), Origin::named("well"));
    let proxy = Proxy::over(
        &[dead.addr(), well.addr()],
        "[upstreams.app.outlier]\neject_for = '1s'",
    );
    let mut client = Client::connect(proxy.addr());
    let failures = || {
        proxy.metric("isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"refused\"}")
    };
    let ejected = "ready -> ejected for 1s: 3 failed connects in a row";
    eventually("its ejection", || {
        // A connect that fails costs the client nothing.
        assert_eq!(client.request("GET", "/").text(), "well");
        failures() >= 3.0 || !told(&proxy, dead.addr()).is_empty()
    });
    await_told(&proxy, dead.addr(), ejected);
    dead.restart();
    eventually("it is used again", || {
        client.request("GET", "/").text() == "back"
    });
    await_told(&proxy, dead.addr(), "ejected -> ready: its time is over");
}

#[test]
fn connects_that_fail_eject_by_default_and_the_log_and_operators_are_told() {
    let (dead, well) = (Server::dead("dead"), Origin::named("well"));
    let web: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let isobar = Binary::start(&format!(
        "[process]\nworkers = 1\n[admin]\nsocket = 'admin.sock'\n\
         [listeners.web]\nbind = '{web}'\nupstream = 'app'\n\
         [upstreams.app]\nbalance = 'round_robin'\nendpoints = ['{}', '{}']\n",
        dead.addr(),
        well.addr()
    ));
    isobar.await_line("stop with Ctrl-C");
    let mut client = Client::connect(web);
    for _ in 0..6 {
        assert_eq!(client.request("GET", "/").text(), "well");
    }
    let text = format!(
        "endpoint {} of upstream `app`: ready -> ejected for 10s: 3 failed connects in a row",
        dead.addr()
    );
    let line = isobar.await_line(&text);
    assert!(line.contains("WARN"), "{line}");
    let socket = isobar.folder.path().join("admin.sock");
    let socket = socket.to_string_lossy();
    let history = run(&["status", "--history", "--socket", &socket]);
    let history = String::from_utf8(history.stdout).unwrap();
    let event = history.lines().find(|line| line.contains(&text));
    let event = event.unwrap_or_else(|| panic!("{history}"));
    assert!(event.contains("  outlier "), "{event}");
}

/// The configuration of endpoints with these further keys.
fn keyed(endpoints: &[(SocketAddr, &str)], more: &str) -> String {
    let list: Vec<String> = endpoints
        .iter()
        .map(|(addr, keys)| format!("{{ address = '{addr}'{keys} }}"))
        .collect();
    format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nbalance = 'round_robin'\nendpoints = [{}]\n{more}\n",
        list.join(", ")
    )
}

/// One of weight 0 takes nothing: it is no help, and the only one that serves is not ejected for it.
#[test]
fn an_endpoint_of_weight_0_is_no_other_to_fall_back_on() {
    let (sick, drained) = (Switched::new("sick", false), Switched::new("drained", true));
    let endpoints = [(sick.addr(), ""), (drained.addr(), ", weight = 0")];
    let proxy = Proxy::start(&keyed(
        &endpoints,
        "[upstreams.app.outlier]\neject_for = '5m'\nmax_ejected = '100%'",
    ));
    let mut client = Client::connect(proxy.addr());
    eventually("it is spared", || {
        assert_eq!(client.request("GET", "/").text(), "sick");
        ejections(&proxy, sick.addr(), "spared") >= 1.0
    });
    assert_eq!(gauge(&proxy, sick.addr()), 0.0);
    assert_eq!(drained.origin.requests().len(), 0);
}

/// A good head is half of an answer: one that breaks off each of its bodies fails each time.
#[test]
fn bodies_that_break_off_eject_too() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let breaks = Origin::always(vec![Step::Send(head.into()), Step::Reset]);
    let well = Switched::new("well", true);
    let endpoints = [(breaks.addr(), ""), (well.addr(), "")];
    let proxy = Proxy::start(&keyed(
        &endpoints,
        "[upstreams.app.outlier]\neject_for = '5m'",
    ));
    eventually("it is ejected", || {
        let mut client = Client::connect(proxy.addr());
        client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        client.until_closed();
        gauge(&proxy, breaks.addr()) == 1.0
    });
}

/// Slow is not broken, and a client that leaves is nobody's fault: neither counts, however often.
#[test]
fn neither_slowness_nor_clients_that_leave_eject() {
    let gate = Gate::new();
    let late = gate.clone();
    let slow = Origin::start(move |request| {
        let mut steps = Vec::new();
        if request.head.start.contains("/slow") {
            steps.push(Step::Pass(late.clone()));
        }
        steps.extend(origin::reply(200, "slow"));
        steps
    });
    let endpoints = [(slow.addr(), "")];
    let proxy = Proxy::start(&keyed(
        &endpoints,
        "outlier = { consecutive_failures = 1, consecutive_connect_failures = 1, failure_ratio = \
         { above = '1%', min_requests = 1 } }",
    ));
    for n in 1..=5 {
        let mut client = Client::connect(proxy.addr());
        client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
        slow.await_requests(n);
        client.reset();
    }
    let cancelled = format!(
        "isobar_endpoint_requests_total{{upstream=\"app\",endpoint=\"{}\",outcome=\"cancelled\"}}",
        slow.addr()
    );
    eventually("all five are counted", || proxy.metric(&cancelled) == 5.0);
    gate.open();
    assert_eq!(Client::get(proxy.addr(), "/").text(), "slow");
    // Nobody was told anything: the control thread has heard all there is once it has answered.
    proxy.operations().status();
    assert_eq!(ejections(&proxy, slow.addr(), "spared"), 0.0);
    assert_eq!(told(&proxy, slow.addr()), [] as [String; 0]);
}
