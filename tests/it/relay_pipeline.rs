//! Several requests on one connection, however their bytes are cut.

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

/// Answers with the target, a space and the request's content.
fn telling() -> Origin {
    Origin::always(vec![Step::ReadBody, Step::Mirror])
}

/// The request's target and the raw body, out of a mirrored request.
fn told(text: &str) -> (String, String) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let target = head.split(' ').nth(1).unwrap_or_default();
    (target.to_owned(), body.to_owned())
}

#[test]
fn requests_of_one_write_are_answered_in_order() {
    let origin = telling();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let all: Vec<String> = (0..50)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"))
        .collect();
    client.send(all.concat());
    for n in 0..50 {
        let text = client.response().text();
        assert_eq!(told(&text), (format!("/{n}"), String::new()));
    }
    assert_eq!(origin.accepted(), 1);
}

const MIXED: &str = "POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello\
     GET /b HTTP/1.1\r\nHost: t\r\n\r\n\
     POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX-T: v\r\n\r\n\
     HEAD /d HTTP/1.1\r\nHost: t\r\n\r\n\
     PUT /e HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n\
     \r\nGET /f HTTP/1.1\r\nHost: t\r\n\r\n";

#[track_caller]
fn expect_mixed(client: &mut Client, origin: &Origin, round: usize) {
    for (method, target, content) in [
        ("POST", "/a", "hello"),
        ("GET", "/b", ""),
        ("POST", "/c", "abcd"),
        ("HEAD", "/d", ""),
        ("PUT", "/e", ""),
        ("GET", "/f", ""),
    ] {
        let response = client.response_to(method);
        assert_eq!(response.status(), 200);
        let n = 6 * round + (target.as_bytes()[1] - b'a') as usize;
        let seen = origin.await_done(n);
        assert_eq!((seen.head.method(), seen.head.target()), (method, target));
        assert_eq!(
            String::from_utf8_lossy(&seen.body.data),
            content,
            "{target}"
        );
        if method != "HEAD" {
            assert_eq!(told(&response.text()).0, target);
        }
        if target == "/c" {
            assert_eq!(seen.body.trailers, [("X-T".to_owned(), "v".to_owned())]);
        }
    }
}

#[test]
fn bodies_between_pipelined_requests_end_where_they_end() {
    // A mirrored HEAD would send a body that must not be there.
    let origin = head_aware();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send(MIXED);
    expect_mixed(&mut client, &origin, 0);
    client.send_byte_by_byte(MIXED);
    expect_mixed(&mut client, &origin, 1);
}

#[test]
fn cut_between_any_two_bytes_changes_nothing() {
    let origin = head_aware();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    for cut in 1..MIXED.len() {
        client.send_split(MIXED, &[cut]);
        expect_mixed(&mut client, &origin, cut - 1);
    }
}

fn head_aware() -> Origin {
    Origin::start(|r| match r.head.method() {
        "HEAD" => origin::raw("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"),
        _ => vec![Step::ReadBody, Step::Mirror],
    })
}

#[test]
fn half_closed_pipeline_is_answered_to_its_end() {
    let origin = telling();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET /1 HTTP/1.1\r\nHost: t\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\nGET /3 HT");
    client.finish();
    assert_eq!(told(&client.response().text()).0, "/1");
    assert_eq!(told(&client.response().text()).0, "/2");
    assert_eq!(client.read_to_end(), b"", "the half request gets no answer");
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn too_deep_a_pipeline_ends_with_a_clean_close() {
    let origin = telling();
    let config = Proxy::config_over(&[origin.addr()], "").replace(
        "upstream = \"app\"",
        "upstream = \"app\"\nmax_pipelined = 3",
    );
    let proxy = Proxy::start(&config);
    let mut client = Client::connect(proxy.addr());
    let all: Vec<String> = (0..2000)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"))
        .collect();
    client.send(all.concat());
    for n in 0..3 {
        let response = client.response();
        assert_eq!(told(&response.text()).0, format!("/{n}"));
        let last = (n == 2).then_some("close");
        assert_eq!(response.field("connection"), last);
    }
    client.finish();
    assert_eq!(client.read_to_end(), b"", "FIN, no reset");
    assert_eq!(origin.requests().len(), 3);
    // One after the other is no pipeline.
    let mut client = Client::connect(proxy.addr());
    for _ in 0..7 {
        assert_eq!(client.request("GET", "/").status(), 200);
    }
}

#[test]
fn pipelined_requests_larger_than_the_buffer_all_arrive() {
    let origin = telling();
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    let body = "b".repeat(5000);
    let filler = "f".repeat(3000);
    let all: Vec<String> = (0..20)
        .map(|n| {
            format!(
                "POST /{n} HTTP/1.1\r\nHost: t\r\nX-F: {filler}\r\nContent-Length: 5000\r\n\r\n{body}"
            )
        })
        .collect();
    client.send(all.concat());
    for n in 0..20 {
        assert_eq!(
            told(&client.response().text()),
            (format!("/{n}"), body.clone())
        );
    }
}

/// Seen red: the count went on as long as the buffer never ran dry, and such a client was cut off
/// after `max_pipelined` requests in all.
#[test]
fn client_that_is_always_one_ahead_is_not_cut_off() {
    const REQUESTS: usize = 40;
    let gates: Vec<Gate> = (0..REQUESTS).map(|_| Gate::new()).collect();
    let origin = Origin::start({
        let gates = gates.clone();
        move |request| {
            let n: usize = request.head.target()[1..].parse().unwrap();
            let mut steps = vec![Step::ReadBody, Step::Pass(gates[n].clone())];
            steps.extend(origin::reply(200, "a").pop());
            steps
        }
    });
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n\
         max_pipelined = 2\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    ));
    let mut client = Client::connect(proxy.addr());
    let ask = |client: &mut Client, n: usize| {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
    };
    ask(&mut client, 0);
    for (n, gate) in gates.iter().enumerate() {
        // The next one is on its way before this one is answered.
        origin.await_requests(n + 1);
        if n + 1 < REQUESTS {
            ask(&mut client, n + 1);
        }
        gate.open();
        let response = client.response();
        assert_eq!(
            (response.status(), response.field("connection")),
            (200, None)
        );
    }
}
