//! What endpoints are told of the client, by whom it is believed, and what nobody can inject.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;

use crate::support::client::{Client, Response};
use crate::support::origin::{self, Origin, Request};
use crate::support::proxy::Proxy;
use crate::support::watched::Watched;

/// 127.0.0.2 is trusted, 127.0.0.1 is not.
const TRUSTED: &str = "trusted_proxies = [\"127.0.0.2/32\", \"10.0.0.0/8\"]";
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Everything that says who the client is.
const CLAIMS: &str = "X-Forwarded-For: 198.51.100.7, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: claimed.example\r\nX-Forwarded-Port: 444\r\n\
                      X-Real-IP: 198.51.100.7\r\nForwarded: for=198.51.100.7;proto=https\r\n\
                      X-Forwarded-Prefix: /claimed\r\nX-Forwarded-Server: claimed\r\n\
                      X-Request-Id: claimed-id\r\n";

/// Sends one request with `fields` from `from` and returns what the endpoint saw of it.
#[track_caller]
fn seen(origin: &Origin, proxy: &Proxy, from: IpAddr, fields: &str) -> Request {
    let n = origin.requests().len();
    let mut client = Client::connect_from(from, proxy.addr());
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a.example:81\r\n{fields}\r\n"
    ));
    assert_eq!(client.response().status(), 200);
    origin.await_done(n)
}

#[test]
fn claims_of_strangers_are_replaced() {
    let origin = Origin::named("a");
    let listener = format!("{TRUSTED}\nforwarding = {{ forwarded = true }}");
    let watched = Watched::over(origin.addr(), &listener, "");
    let head = seen(&origin, &watched.proxy, STRANGER, CLAIMS).head;
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.field("x-forwarded-proto"), Some("http"));
    assert_eq!(head.field("x-forwarded-host"), Some("a.example:81"));
    assert_eq!(
        head.field("forwarded"),
        Some("for=127.0.0.1;host=\"a.example:81\";proto=http")
    );
    for name in [
        "x-forwarded-port",
        "x-real-ip",
        "x-forwarded-prefix",
        "x-forwarded-server",
    ] {
        assert_eq!(head.field(name), None, "{name}");
    }
    let id = head.field("x-request-id").unwrap();
    assert_eq!(id.len(), 32, "{id}");
    let line = &watched.log(1)[0];
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["request_id"], id);
}

#[test]
fn claims_of_trusted_proxies_are_extended() {
    let origin = Origin::named("a");
    let listener = format!("{TRUSTED}\nforwarding = {{ forwarded = true }}");
    let watched = Watched::over(origin.addr(), &listener, "");
    let head = seen(&origin, &watched.proxy, PROXY, CLAIMS).head;
    assert_eq!(
        head.field("x-forwarded-for"),
        Some("198.51.100.7, 10.1.1.1, 127.0.0.2")
    );
    assert_eq!(head.field("x-forwarded-proto"), Some("https"));
    assert_eq!(head.field("x-forwarded-host"), Some("claimed.example"));
    assert_eq!(head.field("x-forwarded-port"), Some("444"));
    assert_eq!(head.field("x-forwarded-prefix"), Some("/claimed"));
    assert_eq!(head.field("x-real-ip"), Some("198.51.100.7"));
    assert_eq!(
        head.field("forwarded"),
        Some("for=198.51.100.7;proto=https, for=127.0.0.2;host=\"a.example:81\";proto=http")
    );
    assert_eq!(head.field("x-request-id"), Some("claimed-id"));
    let line = &watched.log(1)[0];
    assert_eq!(line["client"], "198.51.100.7");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.2:"));
    assert_eq!(line["request_id"], "claimed-id");
}

/// CGI and WSGI make `HTTP_X_FORWARDED_FOR` of both spellings: whoever sends the one with
/// underscores speaks for another address. Seen red.
#[test]
fn names_that_fold_into_ours_reach_no_endpoint_whoever_sends_them() {
    let origin = Origin::named("a");
    let watched = Watched::start(
        TRUSTED,
        &format!(
            "[[routes]]\nupstream = \"app\"\n\
             request_headers = {{ set = {{ x-env = \"prod\" }}, remove = [\"x-secret\"] }}\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            origin.addr()
        ),
    );
    let names = [
        "x_forwarded_for",
        "X_Forwarded-For",
        "X-Forwarded_Proto",
        "x_forwarded_host",
        "X_Forwarded_Port",
        "x_forwarded_prefix",
        "X_Real_IP",
        "x_request_id",
        "X_Env",
        "x_secret",
    ];
    let fields: String = names.map(|n| format!("{n}: forged\r\n")).concat();
    for from in [STRANGER, PROXY] {
        let head = seen(
            &origin,
            &watched.proxy,
            from,
            &format!("{fields}my_own: kept\r\n"),
        )
        .head;
        for name in names {
            assert_eq!(head.all(name), [""; 0], "{name} from {from}");
        }
        assert_eq!(head.field("my_own"), Some("kept"));
        assert_eq!(head.field("x-env"), Some("prod"));
    }
}

#[test]
fn connection_cannot_strip_what_is_told_of_the_client() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), TRUSTED, "");
    let fields = "Connection: x-forwarded-for, x-forwarded-proto, x-request-id, x-own\r\n\
                  X-Own: 1\r\n";
    let head = seen(&origin, &watched.proxy, STRANGER, fields).head;
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.field("x-forwarded-proto"), Some("http"));
    assert!(head.field("x-request-id").is_some());
    assert_eq!(head.field("x-own"), None);
}

#[test]
fn switched_off_nothing_is_told_and_nothing_of_strangers_passes() {
    let origin = Origin::named("a");
    let listener =
        format!("{TRUSTED}\nforwarding = {{ x_forwarded = false, request_id = \"off\" }}");
    let watched = Watched::over(origin.addr(), &listener, "");
    let head = seen(&origin, &watched.proxy, STRANGER, CLAIMS).head;
    let told = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-forwarded") || name == "forwarded" || name == "x-real-ip"
    };
    let names: Vec<&String> = head.fields.iter().map(|(n, _)| n).collect();
    assert!(!names.iter().any(|n| told(n)), "{names:?}");
    // Without a request id of ours the client's is a field like any other.
    assert_eq!(head.field("x-request-id"), Some("claimed-id"));
    // What a trusted proxy says passes as it is.
    let head = seen(&origin, &watched.proxy, PROXY, CLAIMS).head;
    assert_eq!(
        head.field("x-forwarded-for"),
        Some("198.51.100.7, 10.1.1.1")
    );
    assert_eq!(
        head.field("forwarded"),
        Some("for=198.51.100.7;proto=https")
    );
}

#[test]
fn via_is_added_both_ways_and_keeps_what_was_there() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 0\r\n\r\n",
    ));
    let watched = Watched::over(origin.addr(), "forwarding = { via = \"isobar\" }", "");
    let mut client = watched.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nVia: 1.1 outer\r\n\r\n");
    assert_eq!(
        client.response().field("via"),
        Some("1.1 inner, 1.1 isobar")
    );
    let head = origin.await_done(0).head;
    assert_eq!(head.field("via"), Some("1.1 outer, 1.0 isobar"));
}

#[test]
fn request_ids_are_unique_and_named_as_configured() {
    let origin = Origin::named("a");
    let listener = "forwarding = { request_id = \"x-trace\" }";
    let watched = Watched::over(origin.addr(), listener, "");
    let mut ids: Vec<String> = (0..50)
        .map(|_| {
            let head = seen(&origin, &watched.proxy, STRANGER, "X-Trace: mine\r\n").head;
            head.field("x-trace").unwrap().to_owned()
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[test]
fn request_id_of_a_trusted_proxy_that_is_no_word_is_replaced() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), TRUSTED, "");
    for id in ["two words", "tab\there", "\u{e4}", "", &"x".repeat(65)] {
        let fields = format!("X-Request-Id: {id}\r\n");
        let head = seen(&origin, &watched.proxy, PROXY, &fields).head;
        let own = head.field("x-request-id").unwrap();
        assert_eq!(own.len(), 32, "{id:?}: {own}");
    }
}

#[test]
fn routes_match_the_client_that_is_believed() {
    let inside = Origin::named("inside");
    let outside = Origin::named("outside");
    let watched = Watched::start(
        TRUSTED,
        &format!(
            "[[routes]]\nclient = [\"198.51.100.0/24\"]\nupstream = \"inside\"\n\
             [[routes]]\nupstream = \"outside\"\n\
             [upstreams.inside]\nendpoints = [\"{}\"]\n\
             [upstreams.outside]\nendpoints = [\"{}\"]\n",
            inside.addr(),
            outside.addr()
        ),
    );
    let answer = |from| {
        let mut client = Client::connect_from(from, watched.addr());
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{CLAIMS}\r\n"));
        client.response().text()
    };
    assert_eq!(answer(PROXY), "inside");
    assert_eq!(answer(STRANGER), "outside");
}

#[test]
fn ipv6_clients_are_told_as_such() {
    let origin = Origin::named("a");
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"[::1]:0\"\nupstream = \"app\"\n\
         forwarding = {{ forwarded = true }}\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    ));
    assert_eq!(Client::get(proxy.addr(), "/").text(), "a");
    let head = origin.await_done(0).head;
    assert_eq!(head.field("x-forwarded-for"), Some("::1"));
    assert_eq!(
        head.field("forwarded"),
        Some("for=\"[::1]\";host=test;proto=http")
    );
}

#[test]
fn unix_listener_serves_and_names_no_client() {
    let origin = Origin::named("a");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"unix:{}\"\nupstream = \"app\"\n\
         forwarding = {{ forwarded = true }}\n[upstreams.app]\nendpoints = [\"{}\"]\n",
        path.display(),
        origin.addr()
    ));
    let mut client = UnixStream::connect(&path).unwrap();
    client
        .write_all(
            b"GET / HTTP/1.1\r\nHost: u\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\na"),
        "{answer}"
    );
    let head = origin.await_done(0).head;
    assert_eq!(head.field("x-forwarded-for"), None);
    assert_eq!(
        head.field("forwarded"),
        Some("for=unknown;host=u;proto=http")
    );
    proxy.shutdown();
    assert!(!path.exists(), "its file goes with it");
}

// === injection ===

/// A redirect to the template `to` of `target`, on the path `/old/*`.
fn redirected(to: &str, target: &str) -> Response {
    let watched = Watched::start(
        "",
        &format!("[[routes]]\npath = \"/old/*\"\nredirect = {{ to = \"{to}\" }}\n"),
    );
    Client::get(watched.addr(), target)
}

#[test]
fn redirect_copies_escapes_and_undoes_none() {
    let to = "https://n.example{path}{query}";
    let response = redirected(to, "/old/a%0d%0aSet-Cookie:%20x=1?b=%0d%0a");
    assert_eq!(
        response.field("location"),
        Some("https://n.example/old/a%0d%0aSet-Cookie:%20x=1?b=%0d%0a")
    );
    assert_eq!(response.field("set-cookie"), None);
    assert_eq!(response.status(), 307);
}

/// `//evil.example` is a reference to another host (RFC 3986 section 4.2). Seen red.
#[test]
fn redirect_within_the_site_stays_within_the_site() {
    for (target, location) in [
        ("/old/x", "/x"),
        ("/old//evil.example/x", "/evil.example/x"),
        ("/old///evil.example", "/evil.example"),
        ("/old/\\\\evil.example", "/evil.example"),
    ] {
        let response = redirected("{rest}", target);
        assert_eq!(response.field("location"), Some(location), "{target}");
    }
    let response = redirected("https://n.example{rest}", "/old//x");
    assert_eq!(response.field("location"), Some("https://n.example//x"));
}

#[test]
fn host_with_a_line_end_or_a_path_never_gets_into_a_redirect() {
    for host in [
        "a\r\n Set-Cookie: x=1",
        "a/../b",
        "a b",
        "a\rb",
        "a\nb",
        "a@b",
    ] {
        let watched = Watched::start("", "[[routes]]\nredirect = { to = \"https://{host}/\" }\n");
        let mut client = watched.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status(), 400, "{host:?}");
        assert_eq!(response.field("location"), None);
    }
}

#[test]
fn sticky_cookie_is_ours_whatever_the_client_sends() {
    let origin = Origin::named("a");
    let watched = Watched::over(origin.addr(), "", "sticky = { cookie = \"isobar\" }");
    for cookie in [
        "isobar=evil\tx",
        "isobar=\u{e4}",
        "isobar=",
        "isobar=a; isobar=b",
    ] {
        let mut client = watched.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"
        ));
        let response = client.response();
        let set = response.field("set-cookie").unwrap();
        let value = set
            .strip_prefix("isobar=")
            .unwrap()
            .split(';')
            .next()
            .unwrap();
        assert!(
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{set}"
        );
    }
}

/// Seen red: a claim with underscores, the request id under another name and what the route removes
/// or sets went on as trailers, which many programs merge into the head.
#[test]
fn trailers_cannot_say_what_the_head_may_not() {
    let origin = Origin::always(origin::reply(200, "a"));
    let watched = Watched::start(
        &format!("{TRUSTED}\nforwarding = {{ request_id = \"x-id\" }}"),
        &format!(
            "[[routes]]\nupstream = \"app\"\n\
             request_headers = {{ remove = [\"x-secret\"], set = {{ x-env = \"prod\" }} }}\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            origin.addr()
        ),
    );
    let claims = CLAIMS.replace('-', "_");
    let trailers = format!(
        "X-Sum: 1\r\n{CLAIMS}{claims}Via: 1.1 forged\r\nAuthorization: Basic YTpi\r\n\
         Cookie: a=b\r\nContent-Type: text/html\r\nIf-Match: x\r\nConnection: close\r\n\
         X-Id: forged\r\nX_Id: forged\r\nX-Secret: s\r\nx_secret: s\r\nX-Env: test\r\n\
         X-Hop: h\r\nX-Last: 2\r\n"
    );
    for from in [STRANGER, PROXY] {
        let n = origin.requests().len();
        let mut client = Client::connect_from(from, watched.addr());
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nTransfer-Encoding: chunked\r\n\
             \r\n2\r\nab\r\n0\r\n{trailers}\r\n"
        ));
        assert_eq!(client.response().status(), 200);
        let seen = origin.await_done(n);
        assert_eq!(seen.body.data, b"ab");
        let names: Vec<&str> = seen.body.trailers.iter().map(|(n, _)| &**n).collect();
        assert_eq!(names, ["X-Sum", "X-Last"], "from {from}");
    }
}

/// Seen red likewise: what a route removes from responses came behind their bodies.
#[test]
fn response_trailers_cannot_say_what_the_route_removes() {
    let origin = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nTransfer-Encoding: chunked\r\n\r\n";
        let trailers = "X-Secret: s\r\nX-Env: test\r\nSet-Cookie: a=b\r\nX-Hop: h\r\nX-Sum: 1\r\n";
        origin::raw(format!("{head}2\r\nab\r\n0\r\n{trailers}\r\n"))
    });
    let watched = Watched::start(
        "",
        &format!(
            "[[routes]]\nupstream = \"app\"\n\
             response_headers = {{ remove = [\"x-secret\"], set = {{ x-env = \"prod\" }} }}\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            origin.addr()
        ),
    );
    let response = watched.connect().request("GET", "/");
    assert_eq!(response.field("x-env"), Some("prod"));
    assert_eq!(
        response.body.trailers,
        [("X-Sum".to_owned(), "1".to_owned())]
    );
}
