//! What bounds a connection of HTTP/2 that is no flood: time, memory, and the limits as configured.

use std::time::Duration;

use super::h2_abuse::{Scene, resident};
use super::support::binary::{Binary, free_port};
use super::support::client::Client;
use super::support::eventually::{eventually, stalled};
use super::support::h2raw::{
    ACK, END_STREAM, ENHANCE_YOUR_CALM, H2, HEADERS, NO_ERROR, PING, Stream, data, frame, get,
    headers, ping, request, reset, settings,
};
use super::support::origin::{self, Origin};
use super::support::proxy::Proxy;
use super::support::unreachable::Blackhole;
use super::support::watched::Watched;
use super::support::{deadline, remaining};

// === time ===

/// A head whose end does not come: without END_HEADERS, and in the middle of its frame.
#[test]
fn header_block_without_an_end_is_given_header_timeout() {
    // So long that nobody else is late on a busy machine.
    let mut scene = Scene::new("header_timeout = '2s'");
    let whole = headers(1, END_STREAM, get("/slow"));
    let open = frame(HEADERS, END_STREAM, 1, get("/slow"));
    let mut clients = [scene.connect(), scene.connect()];
    // Which would be the rest of the frame, or in the middle of the block.
    for client in &mut clients {
        client.acknowledges = false;
    }
    clients[0].send(open);
    clients[1].send(&whole[..whole.len() - 1]);
    for client in &mut clients {
        assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM));
    }
    let refusals = "isobar_listener_refusals_total{listener=\"web\",reason=\"header_timeout\"}";
    scene.watched.await_metric(refusals, 2.0);
    scene.serves();
    assert!(scene.asked().is_empty());
    scene.expect_no_abuse();
}

#[test]
fn upload_that_stops_ends_after_idle_timeout() {
    let mut scene = Scene::new("idle_timeout = '500ms'");
    let mut client = scene.connect();
    let stream = client.stream();
    let length = [("content-length", "10")];
    client.send(headers(stream, 0, request("POST", "/upload", &length)));
    client.send(data(stream, 0, "half"));
    let answer = client.answer(stream);
    assert_eq!(answer.status, Some(408), "{answer:?}");
    scene.serves();
    // It is the stream's end, and not the connection's.
    assert_eq!(client.get("/after").status, Some(200));
}

/// Each byte is progress, which idle limits look at: the route's deadline does not.
#[test]
fn upload_byte_after_byte_ends_at_the_deadline() {
    let origin = Origin::always(origin::reply(200, "ok"));
    let watched = Watched::start(
        "",
        &format!(
            "[[routes]]\nname = 'slow'\npath = '/slow'\nupstream = 'app'\n\
             timeout = '500ms'\n[[routes]]\nname = 'rest'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['{}']\n",
            origin.addr()
        ),
    );
    let mut bystander = H2::connect(watched.addr());
    let mut client = H2::connect(watched.addr());
    let stream = client.stream();
    client.send(headers(stream, 0, request("POST", "/slow", &[])));
    let end = deadline();
    while client.seen(stream) == Stream::default() {
        let _ = remaining(end, "the end of an upload that never ends");
        client.send(data(stream, 0, "x"));
        client.listen(Duration::from_millis(10));
        assert_eq!(bystander.get("/ok").status, Some(200));
    }
    let answer = client.answer(stream);
    assert_eq!(answer.status, Some(504), "{answer:?}");
    assert_eq!(client.get("/ok").status, Some(200));
}

/// A burst of small frames is no abuse, however small the windows are.
#[test]
fn bytes_one_by_one_come_through() {
    let mut scene = Scene::new("http2 = { stream_window = '64KiB', connection_window = '64KiB' }");
    let mut client = scene.connect();
    let length = [("content-length", "2000")];
    let mut bytes = headers(1, 0, request("POST", "/upload", &length));
    for n in 1..=2000 {
        bytes.extend(data(1, u8::from(n == 2000), "x"));
    }
    client.send(bytes);
    assert_eq!(client.answer(1).status, Some(200));
    let requests = scene.origin.requests();
    let upload = requests.iter().find(|r| r.head.target() == "/upload");
    assert_eq!(upload.map(|r| r.body.data.len()), Some(2000));
    scene.serves();
    scene.expect_no_abuse();
}

/// Those that nobody takes cost no more than they bring: the window bounds them, and the connection serves on.
#[test]
fn bytes_one_by_one_that_nobody_takes_are_bounded_by_the_window() {
    let hole = Blackhole::new();
    let origin = Origin::named("a");
    let watched = Watched::start(
        "http2 = { stream_window = '64KiB', connection_window = '64KiB' }",
        &format!(
            "[[routes]]\nname = 'hole'\npath = '/hole'\nupstream = 'hole'\n\
             [[routes]]\nname = 'rest'\nupstream = 'app'\n\
             [upstreams.hole]\nendpoints = ['{}']\nconnect_timeout = '1h'\n\
             [upstreams.app]\nendpoints = ['{}']\n",
            hole.addr,
            origin.addr()
        ),
    );
    let mut client = H2::connect(watched.addr());
    let stream = client.stream();
    client.send(headers(stream, 0, request("POST", "/hole", &[])));
    let few = data(stream, 0, "x").repeat(1000);
    for _ in 0..65 {
        client.send(&few);
    }
    assert_eq!(client.get("/ok").status, Some(200));
    assert_eq!(client.seen(stream), Stream::default());
    let series = "isobar_http2_abuse_total{listener=\"web\",kind=\"idle_frames\"}";
    watched.await_metric(series, 0.0);
}

/// Who acknowledges nothing is told that it ends, and is not waited for.
#[test]
fn client_that_acknowledges_nothing_does_not_hold_up_a_drain() {
    let origin = Origin::always(origin::reply(200, "ok"));
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\ngrace = '10m'\n[listeners.web]\nbind = '127.0.0.1:0'\n\
         upstream = 'app'\n[upstreams.app]\nendpoints = ['{}']\n",
        origin.addr()
    ));
    let mut silent = H2::connect(proxy.addr());
    silent.acknowledges = false;
    assert_eq!(silent.get("/ok").status, Some(200));
    let mut idle = H2::connect(proxy.addr());
    idle.acknowledges = false;
    idle.read_until("its SETTINGS", |c| c.has_settings);
    let end = deadline();
    let draining = std::thread::spawn(move || proxy.shutdown());
    assert_eq!(silent.end(), Some(NO_ERROR));
    assert_eq!(idle.end(), Some(NO_ERROR));
    eventually("the end of the drain", || draining.is_finished());
    let _ = remaining(end, "a drain within the farewell");
}

// === memory ===

/// A hundred streams that nobody reads hold a buffer each at most; `idle_timeout` ends them.
#[test]
fn streams_that_nobody_reads_hold_little() {
    let origin = Origin::start(|request| match request.head.target() {
        "/big" => origin::filled(4 << 20),
        _ => origin::reply(200, "ok"),
    });
    let web = free_port();
    let isobar = Binary::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = '127.0.0.1:{web}'\nupstream = 'app'\n\
         idle_timeout = '2s'\n[upstreams.app]\nendpoints = ['{}']\n",
        origin.addr()
    ));
    let addr = ([127, 0, 0, 1], web).into();
    eventually("isobar listens", || Client::try_connect(addr).is_ok());
    let mut bystander = H2::connect(addr);
    assert_eq!(bystander.get("/ok").status, Some(200));
    let before = resident(&isobar);
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let mut client = H2::connect_with(addr, &[(4, 0)]);
    client.opens_windows = false;
    let streams: Vec<u32> = (0..100).map(|_| client.open("/big")).collect();
    let filled = || origin.requests().iter().map(|r| r.filled).sum();
    stalled("what the kernels take", filled);
    let during = resident(&isobar);
    // KiB: a buffer of 16 KiB for each, as much again for all else, and what an allocator keeps.
    assert!(
        during < before + 100 * 32 + 4096,
        "{before} KiB, then {during} KiB"
    );
    assert_eq!(bystander.get("/ok").status, Some(200));
    for stream in streams {
        let seen = client.answer(stream);
        assert!(seen.reset.is_some(), "{seen:?}");
        assert_eq!(seen.body.len(), 0);
    }
    assert_eq!(bystander.get("/ok").status, Some(200));
}

// === limits as configured ===

/// `n` of them pass, and one more does not.
#[track_caller]
fn expect_limit(listener: &str, kind: &str, n: u32, make: impl Fn(u32) -> Vec<u8>) {
    let mut scene = Scene::new(listener);
    let some = |n: u32| (0..n).flat_map(|i| make(2 * i + 1)).collect::<Vec<u8>>();
    let mut client = scene.connect();
    client.send(some(n));
    client.send(headers(9999, END_STREAM, get("/ok")));
    let answer = client.answer(9999);
    assert_eq!(answer.status, Some(200), "{kind}: {answer:?}");
    scene.expect_no_abuse();
    let mut client = scene.connect();
    client.send(some(n + 1));
    scene.expect_abuse(client, kind);
}

#[test]
fn resets_pass_as_often_as_configured() {
    expect_limit("http2 = { max_resets = 5 }", "rapid_reset", 5, |stream| {
        let open = headers(stream, END_STREAM, get("/silent"));
        [open, reset(stream, 8)].concat()
    });
}

#[test]
fn pings_pass_as_often_as_configured() {
    expect_limit("http2 = { max_pings = 3 }", "ping", 3, |_| ping());
}

#[test]
fn settings_pass_as_often_as_configured() {
    // The first are those that every client begins with.
    expect_limit("http2 = { max_settings = 4 }", "settings", 3, |_| {
        settings(&[])
    });
}

/// Of frames that move nothing, a few are explained: SETTINGS of ours, which are acknowledged.
#[test]
fn idle_frames_pass_as_often_as_configured() {
    let idle = |_| frame(PING, ACK, 0, [0; 8]);
    let few = |n: u32| (0..n).flat_map(idle).collect::<Vec<u8>>();
    for (limit, n, is_abuse) in [(100, 100, false), (100, 120, true), (10, 30, true)] {
        let mut scene = Scene::new(&format!("http2 = {{ max_idle_frames = {limit} }}"));
        let mut client = scene.connect();
        client.send(few(n));
        if is_abuse {
            scene.expect_abuse(client, "idle_frames");
        } else {
            assert_eq!(client.get("/ok").status, Some(200));
            scene.expect_no_abuse();
        }
    }
}

#[test]
fn streams_are_refused_beyond_the_limit_as_configured() {
    let mut scene = Scene::new("http2 = { max_streams = 2 }");
    let mut client = scene.connect();
    let open = [client.open("/silent"), client.open("/silent")];
    let beyond = client.open("/silent");
    assert!(client.answer(beyond).reset.is_some());
    for stream in open {
        assert_eq!(client.seen(stream).reset, None);
        client.send(reset(stream, 8));
    }
    assert_eq!(client.get("/ok").status, Some(200));
    scene.serves();
}
