//! Both directions at once: early answers, echoes, half-closes, backpressure.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::client::Client;
use crate::support::eventually::stalled;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step, pattern};
use crate::support::proxy::Proxy;

/// What the kernel holds at most between a sender and a receiver that takes nothing: 4 MiB in each
/// of two send buffers, 32 MiB in the proxy's receive buffer (the largest `tcp_rmem` that systems
/// set), 1 MiB in the pipe. A proxy that reads all it can get holds all of it.
const HELD_MAX: usize = 48 << 20;

const LARGE: usize = 64 << 20;

/// Writes on a thread of its own; the counter tells how many bytes the kernel has taken.
#[expect(clippy::unwrap_used, reason = "test code outside #[test] functions")]
fn write_aside(client: &Client, bytes: Vec<u8>) -> (JoinHandle<bool>, Arc<AtomicUsize>) {
    let mut stream = client.stream().try_clone().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let thread = std::thread::spawn(move || {
        for piece in bytes.chunks(64 * 1024) {
            if stream.write_all(piece).is_err() {
                return false;
            }
            // SeqCst: a test's counter, nothing to save.
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        true
    });
    (thread, taken)
}

const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n";

#[test]
fn early_answer_arrives_while_the_client_still_uploads() {
    let origin = Origin::always(vec![
        Step::ReadSome(1000),
        Step::Send(origin::response(413, "too much")),
        Step::AwaitClose,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(UPLOAD);
    client.send(pattern(0, 70_000));
    let response = client.response();
    assert_eq!(
        (response.status(), response.text().as_str()),
        (413, "too much")
    );
    assert_eq!(response.field("connection"), Some("close"));
    // It finishes its upload: nobody resets it, and it sees the end.
    client.send(pattern(70_000, 2_000_000));
    client.finish();
    assert_eq!(client.read_to_end(), b"");
    origin.await_open(0);
}

#[test]
fn client_that_reads_only_after_its_upload_gets_the_early_answer() {
    for end in [Step::AwaitClose, Step::Close, Step::Reset] {
        let origin = Origin::always(vec![
            Step::ReadSome(1000),
            Step::Send(origin::response(413, "too much")),
            end,
        ]);
        let proxy = Proxy::over(&[origin.addr()], "");
        let mut client = Client::connect(proxy.addr());
        client.send(UPLOAD);
        client.send(pattern(0, 8_000_000));
        let response = client.response();
        assert_eq!(
            (response.status(), response.text().as_str()),
            (413, "too much")
        );
        // The endpoint may have been quick enough to take it all: then the connection stays.
        client.finish();
        assert_eq!(client.read_to_end(), b"", "FIN, no reset");
    }
}

#[test]
fn early_answer_to_a_chunked_upload_arrives() {
    let origin = Origin::always(vec![
        Step::ReadSome(10),
        Step::Send(origin::response(400, "no")),
        Step::Close,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..500 {
        client.send("1000\r\n");
        client.send(pattern(0, 4096));
        client.send("\r\n");
    }
    assert_eq!(client.response().text(), "no");
    client.finish();
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn large_early_answer_arrives_whole() {
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec()),
        Step::Fill(3_000_000),
        Step::AwaitClose,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(UPLOAD);
    client.send(pattern(0, 100_000));
    let response = client.response();
    assert!(response.body.data == pattern(0, 3_000_000));
    client.finish();
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn upload_that_ends_early_is_told_to_an_endpoint_that_has_begun_to_answer() {
    // The client has seen the head of its answer and gives its upload up: an endpoint that
    // waits for the rest must hear of it, and what it then says still arrives.
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab".to_vec()),
        Step::AwaitClose,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(2), b"ab");
    client.finish();
    assert_eq!(origin.await_done(0).rest, b"hello");
    // It closed two bytes short: no complete answer.
    assert_eq!(client.broken(), crate::support::wire::Broken::Reset);
}

#[test]
fn endpoint_echoes_more_than_all_buffers_while_the_upload_goes_on() {
    let size = 40 << 20;
    let origin = Origin::always(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        Step::Echo,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut body = Vec::new();
    for at in (0..size).step_by(1 << 20) {
        body.extend_from_slice(b"100000\r\n");
        body.extend_from_slice(&pattern(at, 1 << 20));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\nX-End: yes\r\n\r\n");
    let (writer, _) = write_aside(&client, body);
    let response = client.response();
    assert!(response.body.data == pattern(0, size));
    assert_eq!(
        response.body.trailers,
        [("X-End".to_owned(), "yes".to_owned())]
    );
    assert_eq!(writer.join().ok(), Some(true));
}

#[test]
fn half_close_behind_a_request_keeps_its_response() {
    let gate = Gate::new();
    let origin = Origin::always(vec![
        Step::ReadBody,
        Step::Pass(gate.clone()),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec()),
        Step::Fill(1_000_000),
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut get = Client::connect(proxy.addr());
    get.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    get.finish();
    let mut post = Client::connect(proxy.addr());
    post.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
    post.finish();
    gate.await_reached(2);
    gate.open();
    for client in [&mut get, &mut post] {
        let response = client.response();
        assert!(response.body.data == pattern(0, 1_000_000));
        assert_eq!(client.read_to_end(), b"");
    }
}

#[track_caller]
fn download_blocks_the_endpoint(head: &str, version: &str) {
    let origin = Origin::always(vec![
        Step::Send(head.as_bytes().to_vec()),
        Step::Fill(LARGE),
        Step::Close,
    ]);
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect_narrow(proxy.addr());
    client.send(format!("GET / HTTP/{version}\r\nHost: t\r\n\r\n"));
    origin.await_requests(1);
    let held = stalled("the endpoint to be blocked", || origin.requests()[0].filled);
    assert!(held < HELD_MAX, "{held} bytes lie between");
    let response = client.response();
    assert!(response.body.data == pattern(0, LARGE));
}

#[test]
fn download_by_length_waits_for_the_reader() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    download_blocks_the_endpoint(&head, "1.1");
}

#[test]
fn download_until_close_waits_for_the_reader() {
    download_blocks_the_endpoint("HTTP/1.1 200 OK\r\n\r\n", "1.1");
    download_blocks_the_endpoint("HTTP/1.1 200 OK\r\n\r\n", "1.0");
}

#[test]
fn upload_waits_for_the_endpoint() {
    let gate = Gate::new();
    let steps = vec![
        Step::Pass(gate.clone()),
        Step::ReadBody,
        Step::Send(origin::response(200, "ok")),
    ];
    let origin = Origin::build(move |_| steps.clone()).narrow().start();
    let proxy = Proxy::over(&[origin.addr()], "");
    let chunk = format!("{LARGE:x}\r\n");
    let length = LARGE.to_string();
    for (field, value, before, after) in [
        ("Content-Length", length.as_str(), "", ""),
        (
            "Transfer-Encoding",
            "chunked",
            chunk.as_str(),
            "\r\n0\r\n\r\n",
        ),
    ] {
        let mut client = Client::connect(proxy.addr());
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: t\r\n{field}: {value}\r\n\r\n{before}"
        ));
        let mut bytes = pattern(0, LARGE);
        bytes.extend_from_slice(after.as_bytes());
        let (writer, taken) = write_aside(&client, bytes);
        if before.is_empty() {
            let held = stalled("the client to be blocked", || taken.load(Ordering::SeqCst));
            assert!(held < HELD_MAX, "{held} bytes lie between");
            gate.open();
        }
        assert_eq!(client.response().text(), "ok");
        assert_eq!(writer.join().ok(), Some(true));
    }
    for n in 0..2 {
        assert!(origin.await_done(n).body.data == pattern(0, LARGE));
    }
}
