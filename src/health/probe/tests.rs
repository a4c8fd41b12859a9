//! Each protocol against what an endpoint may say, at every cut of it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::config::{BodyPattern, HttpCheck};

/// What `check` makes of an endpoint that says these bytes when it is asked (a mail server: at once),
/// then ends the connection.
fn of(check: &Check, says: &[u8]) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = duplex(1 << 16);
        let addr = EndpointAddr::Ip("10.0.0.1:80".parse().unwrap());
        let endpoint = async {
            if *check != Check::Smtp {
                let _ = theirs.read(&mut [0; 512]).await;
            }
            // It may have heard enough, and be gone.
            let _ = theirs.write_all(says).await;
            let _ = theirs.shutdown().await;
            let mut asked = Vec::new();
            let _ = theirs.read_to_end(&mut asked).await;
        };
        let (answer, ()) = tokio::join!(ask(check, &addr, ours), endpoint);
        answer
    })
}

fn class(check: &Check, says: &[u8]) -> CheckResult {
    of(check, says)
        .err()
        .map_or(CheckResult::Ok, |f| f.result())
}

#[test]
fn redis_answers() {
    let class = |says: &str| class(&Check::Redis, says.as_bytes());
    assert_eq!(class("+PONG\r\n"), CheckResult::Ok);
    assert_eq!(
        class("-NOAUTH Authentication required.\r\n"),
        CheckResult::Ok
    );
    for cut in ["", "+", "+PONG", "+PONG\r", "-", "-LOAD"] {
        assert_eq!(class(cut), CheckResult::Closed, "{cut:?}");
    }
    for wrong in [
        "-LOADING data\r\n",
        "+PANG\r\n",
        "HTTP/1.1 400\r\n",
        "\r\n",
        "$",
    ] {
        assert_eq!(class(wrong), CheckResult::Protocol, "{wrong:?}");
    }
    let why = of(&Check::Redis, b"-LOADING Redis is \x1bloading\r\n").unwrap_err();
    assert_eq!(why.to_string(), "LOADING Redis is \\u{1b}loading");
    let long = format!("-{}", "x".repeat(9000));
    assert_eq!(class(&long), CheckResult::Protocol);
}

#[test]
fn postgres_answers() {
    let class = |says: &[u8]| class(&Check::Postgres, says);
    let error = |code: &str, text: &str| {
        let fields = format!("SFATAL\0C{code}\0M{text}\0\0");
        let length = (fields.len() as u32 + 4).to_be_bytes();
        [b"E", &length[..], fields.as_bytes()].concat()
    };
    assert_eq!(class(b"R\0\0\0\x08\0\0\0\x0a"), CheckResult::Ok);
    assert_eq!(class(&error("28000", "no such role")), CheckResult::Ok);
    assert_eq!(class(&error("3D000", "no such database")), CheckResult::Ok);
    let starting = error("57P03", "the database system is starting up");
    assert_eq!(
        of(&Check::Postgres, &starting).unwrap_err().to_string(),
        "the database system is starting up (57P03)"
    );
    assert_eq!(class(&error("53300", "too many")), CheckResult::Protocol);
    for cut in 0..starting.len() {
        assert_eq!(class(&starting[..cut]), CheckResult::Closed, "{cut}");
    }
    assert_eq!(class(b"HTTP/1.1 400"), CheckResult::Protocol);
    assert_eq!(class(b"E\0\0\0\0junk"), CheckResult::Protocol);
    assert_eq!(class(b"E\xff\xff\xff\xffjunk"), CheckResult::Closed);
}

/// A mail server that greets with one text and answers EHLO with another.
fn smtp(greeting: &str, answer: &str) -> CheckResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = duplex(1024);
        let addr = EndpointAddr::Ip("10.0.0.1:25".parse().unwrap());
        let endpoint = async {
            theirs.write_all(greeting.as_bytes()).await.unwrap();
            let mut asked = [0; 512];
            let read = theirs.read(&mut asked).await.unwrap();
            if asked[..read].starts_with(b"EHLO ") {
                theirs.write_all(answer.as_bytes()).await.unwrap();
            }
            theirs.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&Check::Smtp, &addr, ours), endpoint);
        answer.err().map_or(CheckResult::Ok, |f| f.result())
    })
}

#[test]
fn smtp_answers() {
    let hello = "250-mail\r\n250-SIZE\r\n250 HELP\r\n";
    assert_eq!(smtp("220 mail\r\n", hello), CheckResult::Ok);
    assert_eq!(
        smtp("220-mail\r\n220 of ours\n", "250 ok\r\n"),
        CheckResult::Ok
    );
    for cut in 0..hello.len() - 1 {
        assert_eq!(smtp("220 mail\r\n", &hello[..cut]), CheckResult::Closed);
    }
    assert_eq!(smtp("220 mail\r\n", "502 what?\r\n"), CheckResult::Protocol);
    for wrong in ["554 no\r\n", "421 later\r\n", "\n", "SSH-2.0-x\r\n"] {
        assert_eq!(class(&Check::Smtp, wrong.as_bytes()), CheckResult::Protocol);
    }
    for cut in ["", "220", "220-mail\r\n", "220 mail"] {
        assert_eq!(class(&Check::Smtp, cut.as_bytes()), CheckResult::Closed);
    }
}

#[test]
fn http_answers() {
    let check = |status: (u16, u16), body: Option<BodyPattern>| {
        Check::Http(HttpCheck {
            path: "/healthz?deep=1".to_owned(),
            method: ::http::Method::GET,
            host: None,
            headers: Vec::new(),
            status: vec![status],
            body,
        })
    };
    let any = check((200, 299), None);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    assert_eq!(class(&any, ok.as_bytes()), CheckResult::Ok);
    for cut in 0..ok.find("\r\n\r\n").unwrap() + 4 {
        let class = class(&any, &ok.as_bytes()[..cut]);
        assert_eq!(class, CheckResult::Closed, "half a head: {cut}");
    }
    let failed = of(&any, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").unwrap_err();
    assert_eq!(failed.to_string(), "status 500");
    assert_eq!(
        class(&any, b"\x00\xff garbage\r\n\r\n"),
        CheckResult::Protocol
    );
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(60_000));
    assert_eq!(class(&any, endless.as_bytes()), CheckResult::Protocol);

    let fine = check((200, 299), Some(BodyPattern::Contains("in".to_owned())));
    assert_eq!(class(&fine, ok.as_bytes()), CheckResult::Ok);
    assert_eq!(
        class(&fine, &ok.as_bytes()[..ok.len() - 1]),
        CheckResult::Closed,
        "half a body"
    );
    assert_eq!(
        class(&fine, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsick"),
        CheckResult::Body
    );
    let whole = regex::Regex::new("^fine$").unwrap();
    let whole = check((200, 200), Some(BodyPattern::Regex(whole)));
    assert_eq!(class(&whole, ok.as_bytes()), CheckResult::Ok);
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n";
    assert_eq!(class(&whole, chunked.as_bytes()), CheckResult::Ok);
    // A body without end is looked at so far and no further.
    let filler = "x".repeat(1 << 17);
    let far = format!("HTTP/1.1 200 OK\r\n\r\n{filler}in");
    assert_eq!(class(&fine, far.as_bytes()), CheckResult::Body);
}

#[test]
fn port_replaces_that_of_the_endpoint() {
    let mut spec = HealthSpec {
        check: Check::Tcp,
        interval: Duration::from_secs(1),
        down_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        jitter: 0.0,
        port: std::num::NonZeroU16::new(9000),
        init_state: crate::config::InitState::Up,
        traffic: false,
    };
    let addr = |text: &str| EndpointAddr::Ip(text.parse().unwrap());
    let unix = EndpointAddr::Unix("/run/a.sock".into());
    assert_eq!(target(&spec, &addr("[::1]:80")), addr("[::1]:9000"));
    assert_eq!(target(&spec, &unix), unix);
    spec.port = None;
    assert_eq!(target(&spec, &addr("[::1]:80")), addr("[::1]:80"));
}
