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
            if !matches!(check, Check::Mysql(_) | Check::Smtp) {
                let _ = theirs.read(&mut [0; 512]).await;
            }
            // It may have heard enough, and be gone.
            let _ = theirs.write_all(says).await;
            let _ = theirs.shutdown().await;
            let mut asked = Vec::new();
            let _ = theirs.read_to_end(&mut asked).await;
        };
        let (answer, ()) = tokio::join!(speak(check, Scheme::Http, &addr, ours), endpoint);
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
        let (answer, ()) = tokio::join!(speak(&Check::Smtp, Scheme::Http, &addr, ours), endpoint);
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

fn spec(check: Check) -> HealthSpec {
    HealthSpec {
        check,
        interval: Duration::from_secs(1),
        down_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        jitter: 0.0,
        port: None,
        init_state: crate::config::InitState::Up,
        traffic: false,
        tls: None,
        send_proxy_protocol: None,
    }
}

/// The first `N` bytes that a check says to an endpoint which says nothing.
fn begins<const N: usize>(spec: &HealthSpec) -> [u8; N] {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = duplex(1 << 16);
        let addr = EndpointAddr::Ip("10.0.0.1:80".parse().unwrap());
        let endpoint = async {
            let mut heard = [0; N];
            theirs.read_exact(&mut heard).await.unwrap();
            drop(theirs);
            heard
        };
        tokio::join!(ask(spec, &addr, ours), endpoint).1
    })
}

#[test]
fn a_check_begins_with_a_header_that_tells_of_no_client() {
    let mut redis = spec(Check::Redis);
    assert_eq!(&begins(&redis), b"*1\r\n$4\r\nPING\r\n");
    redis.send_proxy_protocol = Some(ProxyVersion::V1);
    assert_eq!(&begins(&redis), b"PROXY UNKNOWN\r\n*1\r\n$4\r\nPING\r\n");
    redis.send_proxy_protocol = Some(ProxyVersion::V2);
    // LOCAL, no family, a TLV of seven bytes: CRC32c.
    const LOCAL: &[u8; 16] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x07";
    let said: [u8; 37] = begins(&redis);
    assert_eq!(&said[..16], LOCAL);
    assert_eq!(&said[16..19], b"\x03\0\x04");
    assert_eq!(&said[23..], b"*1\r\n$4\r\nPING\r\n");
    // Who only connects has said it too, and who waits for a greeting.
    for check in [Check::Tcp, Check::Smtp, Check::Postgres] {
        let mut spec = spec(check);
        spec.send_proxy_protocol = Some(ProxyVersion::V2);
        assert_eq!(&begins(&spec), LOCAL);
    }
}

#[test]
fn the_header_comes_before_tls() {
    let mut http = spec(Check::Grpc(crate::config::GrpcCheck::default()));
    http.tls = Some(crate::config::CheckTls {
        server_name: None,
        ca: None,
        verify: false,
        client: crate::base::tls::TlsClient::trusting(crate::base::tls::Trust::Anybody, &[])
            .unwrap(),
        of_upstream: false,
    });
    http.send_proxy_protocol = Some(ProxyVersion::V1);
    assert_eq!(&begins(&http), b"PROXY UNKNOWN\r\n\x16\x03");
}

#[test]
fn port_replaces_that_of_the_endpoint() {
    let mut spec = spec(Check::Tcp);
    spec.port = std::num::NonZeroU16::new(9000);
    let addr = |text: &str| EndpointAddr::Ip(text.parse().unwrap());
    let unix = EndpointAddr::Unix("/run/a.sock".into());
    assert_eq!(target(&spec, &addr("[::1]:80")), addr("[::1]:9000"));
    assert_eq!(target(&spec, &unix), unix);
    spec.port = None;
    assert_eq!(target(&spec, &addr("[::1]:80")), addr("[::1]:80"));
}

/// What a grpc check makes of a server that answers so: head fields, messages, trailers.
fn grpc(
    head: &'static [(&'static str, &'static str)],
    messages: &'static [&'static [u8]],
    trailers: &'static [(&'static str, &'static str)],
) -> (Result<(), Failure>, String) {
    use ::http::{HeaderMap, HeaderName, HeaderValue, Response};
    let check = Check::Grpc(crate::config::GrpcCheck {
        service: "a.B".to_owned(),
        host: None,
    });
    let fields = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
        let pairs = pairs.iter().copied();
        pairs
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, theirs) = duplex(1 << 16);
        let addr = EndpointAddr::Ip("10.0.0.1:80".parse().unwrap());
        let endpoint = async {
            let mut connection = h2::server::handshake(theirs).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let (parts, mut body) = request.into_parts();
            // The rest of what moves the connection.
            let driven = async { while connection.accept().await.is_some() {} };
            let answered = async {
                let mut asked = Vec::new();
                while let Some(data) = body.data().await {
                    asked.extend_from_slice(&data.unwrap());
                }
                let mut response = Response::new(());
                *response.headers_mut() = fields(head);
                let is_over = messages.is_empty() && trailers.is_empty();
                let mut out = respond.send_response(response, is_over).unwrap();
                for message in messages {
                    out.send_data(::bytes::Bytes::from_static(message), false)
                        .unwrap();
                }
                if !is_over {
                    out.send_trailers(fields(trailers)).unwrap();
                }
                asked
            };
            let (asked, ()) = tokio::join!(answered, driven);
            format!("{} {} {:?}", parts.method, parts.uri, asked)
        };
        tokio::join!(speak(&check, Scheme::Http, &addr, ours), endpoint)
    })
}

#[test]
fn grpc_answers() {
    const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];
    const DONE: &[(&str, &str)] = &[("grpc-status", "0")];
    let (answer, asked) = grpc(GRPC, &[b"\0\0\0\0\x02\x08\x01"], DONE);
    answer.unwrap();
    assert_eq!(
        asked,
        "POST http://10.0.0.1:80/grpc.health.v1.Health/Check [0, 0, 0, 0, 5, 10, 3, 97, 46, 66]"
    );
    // In pieces, and without a status at the end: the message is what counts.
    let (answer, _) = grpc(GRPC, &[b"\0\0\0", b"\0\x02\x08", b"\x01"], &[]);
    answer.unwrap();
    let says = |head, messages, trailers| {
        let failure = grpc(head, messages, trailers).0.unwrap_err();
        (failure.result(), failure.to_string())
    };
    let unwell = |text: &str| (CheckResult::Status, text.to_owned());
    assert_eq!(
        says(GRPC, &[b"\0\0\0\0\x02\x08\x02"], DONE),
        unwell("it says NOT_SERVING")
    );
    assert_eq!(
        says(GRPC, &[b"\0\0\0\0\0"], DONE),
        unwell("it says UNKNOWN")
    );
    assert_eq!(
        says(GRPC, &[b"\0\0\0\0\x02\x08\x03"], DONE),
        unwell("it says SERVICE_UNKNOWN")
    );
    // An error in the head alone, and one at the end.
    const UNKNOWN: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-status", "5")];
    assert_eq!(says(UNKNOWN, &[], &[]), unwell("it knows no service `a.B`"));
    assert_eq!(
        says(GRPC, &[], &[("grpc-status", "12")]),
        unwell("it does not offer grpc.health.v1.Health")
    );
    assert_eq!(
        says(
            GRPC,
            &[],
            &[("grpc-status", "14"), ("grpc-message", "busy")]
        ),
        unwell("grpc-status 14: busy")
    );
    let protocol = |text: &str| (CheckResult::Protocol, text.to_owned());
    assert_eq!(
        says(&[("content-type", "text/html")], &[b"hello"], &[]),
        protocol("the answer is not gRPC")
    );
    assert_eq!(
        says(GRPC, &[b"hello"], DONE),
        protocol("the answer is no HealthCheckResponse")
    );
}

#[test]
fn what_is_no_http2_is_no_grpc() {
    let check = Check::Grpc(crate::config::GrpcCheck::default());
    let http1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let failure = of(&check, http1).unwrap_err();
    assert_eq!(failure.to_string(), "the answer is not HTTP/2");
    assert_eq!(class(&check, b""), CheckResult::Closed);
}

fn mysql_packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    [&length[..3], &[number], payload].concat()
}

/// What a server says first: version 10, then what does not matter here.
fn mysql_greeting() -> Vec<u8> {
    mysql_packet(0, b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0")
}

#[test]
fn mysql_greetings() {
    let none = Check::Mysql(crate::config::MysqlCheck::default());
    let greeting = mysql_greeting();
    assert_eq!(class(&none, &greeting), CheckResult::Ok);
    for cut in 0..greeting.len() {
        assert_eq!(class(&none, &greeting[..cut]), CheckResult::Closed, "{cut}");
    }
    let full = mysql_packet(0, b"\xff\x10\x04Too many connections");
    let failure = of(&none, &full).unwrap_err();
    assert_eq!(failure.to_string(), "Too many connections (1040)");
    for wrong in [
        mysql_packet(0, b"\x09old"),
        mysql_packet(0, b""),
        b"SSH-2.0-OpenSSH\r\n".to_vec(),
        mysql_packet(0, b"\xff\x10"),
    ] {
        assert_eq!(class(&none, &wrong), CheckResult::Protocol, "{wrong:?}");
    }
}

/// What a check with a user makes of a server that says these packets, and all that it sent.
fn mysql_login(answers: &[Vec<u8>]) -> (Result<(), Failure>, Vec<u8>) {
    let check = Check::Mysql(crate::config::MysqlCheck {
        user: Some("isobar".to_owned()),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (ours, mut theirs) = duplex(1 << 16);
        let addr = EndpointAddr::Ip("10.0.0.1:3306".parse().unwrap());
        let endpoint = async {
            let mut heard = Vec::new();
            theirs.write_all(&mysql_greeting()).await.unwrap();
            for answer in answers {
                let mut some = [0; 512];
                let read = theirs.read(&mut some).await.unwrap();
                heard.extend_from_slice(&some[..read]);
                theirs.write_all(answer).await.unwrap();
            }
            theirs.shutdown().await.unwrap();
            theirs.read_to_end(&mut heard).await.unwrap();
            heard
        };
        tokio::join!(speak(&check, Scheme::Http, &addr, ours), endpoint)
    })
}

#[test]
fn mysql_logins() {
    let ok = mysql_packet(2, b"\0\0\0\x02\0\0\0");
    let (answer, heard) = mysql_login(&[ok]);
    answer.unwrap();
    assert_eq!(heard[3], 1, "the number after the greeting's");
    assert_eq!(
        &heard[36..],
        b"isobar\0\0mysql_native_password\0\x01\0\0\0\x01"
    );
    // Who is refused was answered.
    let denied = mysql_packet(2, b"\xff\x15\x04#28000Access denied for user 'isobar'");
    mysql_login(std::slice::from_ref(&denied)).0.unwrap();
    let switch = mysql_packet(2, b"\xfecaching_sha2_password\0aaaaaaaaaaaaaaaaaaaa\0");
    let (answer, heard) = mysql_login(&[switch.clone(), denied]);
    answer.unwrap();
    assert!(heard.ends_with(b"\x01\0\0\x03\0"), "no password: {heard:?}");
    // It asks on: it is alive.
    mysql_login(&[switch, mysql_packet(4, b"\x01\x04")])
        .0
        .unwrap();
    let full = mysql_packet(2, b"\xff\x10\x04#08004Too many connections");
    let failure = mysql_login(&[full]).0.unwrap_err();
    assert_eq!(failure.to_string(), "Too many connections (1040)");
    assert_eq!(
        mysql_login(&[]).0.unwrap_err().result(),
        CheckResult::Closed
    );
}
