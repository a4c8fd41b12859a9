//! Routes end to end: which route answers. Each route here answers with its own name.

use std::net::{IpAddr, Ipv4Addr};

use crate::support::client::{Client, Response};
use crate::support::proxy::Proxy;

/// One listener `web` and these routes: TOML of the matchers, and the name that is answered.
fn routed(routes: &[(&str, &str)]) -> Proxy {
    let routes: Vec<String> = routes
        .iter()
        .map(|(matchers, name)| {
            format!(
                "[[routes]]\nname = \"{name}\"\n{matchers}\nrespond = {{ body = \"{name}\" }}\n"
            )
        })
        .collect();
    Proxy::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = \"127.0.0.1:0\"\n{}",
        routes.concat()
    ))
}

/// Sends this head, without its last empty line.
fn ask(proxy: &Proxy, head: &str) -> Response {
    let mut client = Client::connect(proxy.addr());
    client.send(format!("{}\r\n\r\n", head.replace('\n', "\r\n")));
    client.response()
}

/// Each request is answered by the route of that name, or with that status.
#[track_caller]
fn answered(proxy: &Proxy, expected: &[(&str, &str)]) {
    for (head, name) in expected {
        let response = ask(proxy, head);
        match name.parse::<u16>() {
            Ok(status) => assert_eq!(response.status(), status, "{head}"),
            Err(_) => assert_eq!(
                (response.text().as_str(), response.status()),
                (*name, 200),
                "{head}"
            ),
        }
    }
}

#[test]
fn exact_host_before_longer_wildcard_before_shorter_before_any() {
    let proxy = routed(&[
        ("", "any"),
        ("host = \"*.example.com\"", "wild"),
        ("host = \"*.a.example.com\"", "deep"),
        ("host = \"x.a.example.com\"", "exact"),
    ]);
    answered(
        &proxy,
        &[
            ("GET / HTTP/1.1\nHost: x.a.example.com", "exact"),
            ("GET / HTTP/1.1\nHost: X.A.Example.COM", "exact"),
            ("GET / HTTP/1.1\nHost: x.a.example.com.", "exact"),
            ("GET / HTTP/1.1\nHost: x.a.example.com:8080", "exact"),
            ("GET / HTTP/1.1\nHost: x.a.example.com.:80", "exact"),
            ("GET / HTTP/1.1\nHost: y.a.example.com", "deep"),
            ("GET / HTTP/1.1\nHost: z.y.a.example.com", "deep"),
            ("GET / HTTP/1.1\nHost: a.example.com", "wild"),
            ("GET / HTTP/1.1\nHost: q.b.example.com", "wild"),
            ("GET / HTTP/1.1\nHost: example.com", "any"),
            ("GET / HTTP/1.1\nHost: notexample.com", "any"),
            ("GET / HTTP/1.1\nHost: [::1]:8080", "any"),
            ("GET / HTTP/1.0", "any"),
        ],
    );
}

#[test]
fn absolute_target_s_host_is_the_host() {
    let proxy = routed(&[("host = \"a.test\"", "a"), ("host = \"b.test\"", "b")]);
    answered(
        &proxy,
        &[
            ("GET http://a.test/ HTTP/1.1\nHost: a.test", "a"),
            ("GET http://b.test:80 HTTP/1.1\nHost: b.test:80", "b"),
        ],
    );
}

#[test]
fn unknown_host_is_misdirected_and_unknown_path_is_not_found() {
    let proxy = routed(&[
        ("host = \"a.test\"\npath = \"/x\"", "x"),
        ("host = [\"b.test\", \"*.b.test\"]", "b"),
    ]);
    answered(
        &proxy,
        &[
            ("GET /x HTTP/1.1\nHost: a.test", "x"),
            ("GET /y HTTP/1.1\nHost: a.test", "404"),
            ("GET /x HTTP/1.1\nHost: c.test", "421"),
            ("GET /x HTTP/1.1\nHost: 127.0.0.1", "421"),
            ("GET /y HTTP/1.1\nHost: q.b.test", "b"),
        ],
    );
    let response = ask(&proxy, "GET /y HTTP/1.1\nHost: a.test");
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .ends_with("details=\"no_route\"")
    );
    let response = ask(&proxy, "GET /y HTTP/1.1\nHost: c.test");
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .ends_with("details=\"misdirected\"")
    );
}

#[test]
fn miss_leaves_the_connection_open() {
    let proxy = routed(&[("path = \"/x\"", "x")]);
    let mut client = Client::connect(proxy.addr());
    assert_eq!(client.request("GET", "/y").status(), 404);
    assert_eq!(client.request("GET", "/x").text(), "x");
}

#[test]
fn exact_path_before_regex_before_longer_prefix_before_shorter() {
    let proxy = routed(&[
        ("path = \"/*\"", "root"),
        ("path = \"/v1/*\"", "v1"),
        ("path = \"/v1/users/*\"", "users"),
        ("path = \"/v1/users\"", "exact"),
        ("path_regex = \"^/v1/users/[0-9]+$\"", "number"),
    ]);
    answered(
        &proxy,
        &[
            ("GET /v1/users HTTP/1.1\nHost: t", "exact"),
            ("GET /v1/users?q=/v1 HTTP/1.1\nHost: t", "exact"),
            ("GET /v1/users/ HTTP/1.1\nHost: t", "users"),
            ("GET /v1/users/17 HTTP/1.1\nHost: t", "number"),
            ("GET /v1/users/17/x HTTP/1.1\nHost: t", "users"),
            ("GET /v1/usersx HTTP/1.1\nHost: t", "v1"),
            ("GET /v1 HTTP/1.1\nHost: t", "v1"),
            ("GET /v1x HTTP/1.1\nHost: t", "root"),
            ("GET /V1/users HTTP/1.1\nHost: t", "root"),
            ("GET / HTTP/1.1\nHost: t", "root"),
            ("OPTIONS * HTTP/1.1\nHost: t", "root"),
        ],
    );
}

#[test]
fn dots_do_not_lead_around_a_route() {
    let proxy = routed(&[
        ("path = \"/*\"", "public"),
        ("path = \"/admin/*\"", "admin"),
    ]);
    answered(
        &proxy,
        &[
            ("GET /x/../admin/y HTTP/1.1\nHost: t", "admin"),
            ("GET /./admin HTTP/1.1\nHost: t", "admin"),
            ("GET /x/%2e%2e/admin HTTP/1.1\nHost: t", "admin"),
            ("GET /admin/../x HTTP/1.1\nHost: t", "public"),
        ],
    );
}

#[test]
fn more_matchers_are_more_specific() {
    let proxy = routed(&[
        ("", "any"),
        ("method = [\"POST\", \"PUT\"]", "method"),
        (
            "method = \"POST\"\nheader = { x-a = \"1\" }",
            "method-header",
        ),
        ("header = { x-a = \"1\" }", "header"),
        ("header = { x-a = \"1\", x-b = \"\" }", "two-headers"),
        ("query = { debug = \"\" }", "query"),
    ]);
    answered(
        &proxy,
        &[
            ("GET / HTTP/1.1\nHost: t", "any"),
            ("POST / HTTP/1.1\nHost: t\nContent-Length: 0", "method"),
            ("PUT / HTTP/1.1\nHost: t\nContent-Length: 0", "method"),
            (
                "POST / HTTP/1.1\nHost: t\nX-A: 1\nContent-Length: 0",
                "method-header",
            ),
            ("GET / HTTP/1.1\nHost: t\nX-A: 1", "header"),
            ("GET / HTTP/1.1\nHost: t\nX-A: 2", "any"),
            (
                "GET / HTTP/1.1\nHost: t\nx-a: 1\nx-b: anything",
                "two-headers",
            ),
            ("GET /?debug HTTP/1.1\nHost: t", "query"),
            ("GET /?a=b&debug=1 HTTP/1.1\nHost: t", "query"),
            ("GET /?debugx=1 HTTP/1.1\nHost: t", "any"),
            ("GET /?debug HTTP/1.1\nHost: t\nX-A: 1", "header"),
        ],
    );
}

#[test]
fn header_is_matched_exactly_by_regex_or_by_presence() {
    let proxy = routed(&[
        ("path = \"/exact\"\nheader = { x-k = \"Value\" }", "exact"),
        (
            "path = \"/regex\"\nheader = { x-k = \"~^v[0-9]+$\" }",
            "regex",
        ),
        ("path = \"/present\"\nheader = { x-k = \"\" }", "present"),
    ]);
    answered(
        &proxy,
        &[
            ("GET /exact HTTP/1.1\nHost: t\nX-K: Value", "exact"),
            ("GET /exact HTTP/1.1\nHost: t\nX-K: no\nX-K: Value", "exact"),
            ("GET /exact HTTP/1.1\nHost: t\nX-K: value", "404"),
            ("GET /exact HTTP/1.1\nHost: t", "404"),
            ("GET /regex HTTP/1.1\nHost: t\nX-K: v42", "regex"),
            ("GET /regex HTTP/1.1\nHost: t\nX-K: v42x", "404"),
            ("GET /present HTTP/1.1\nHost: t\nX-K:", "present"),
            ("GET /present HTTP/1.1\nHost: t\nX-K: any", "present"),
            ("GET /present HTTP/1.1\nHost: t", "404"),
        ],
    );
}

#[test]
fn query_is_compared_decoded() {
    let proxy = routed(&[
        ("query = { name = \"a b\" }", "decoded"),
        ("query = { n = \"~^[0-9]+$\" }", "regex"),
    ]);
    answered(
        &proxy,
        &[
            ("GET /?name=a%20b HTTP/1.1\nHost: t", "decoded"),
            ("GET /?x&n%61me=a+b HTTP/1.1\nHost: t", "decoded"),
            ("GET /?name=a HTTP/1.1\nHost: t", "404"),
            ("GET /?n=12 HTTP/1.1\nHost: t", "regex"),
            ("GET /?n=1x HTTP/1.1\nHost: t", "404"),
        ],
    );
}

#[test]
fn client_s_longest_network_wins() {
    let proxy = routed(&[
        ("", "any"),
        ("client = \"127.0.0.0/16\"", "wide"),
        ("client = [\"10.0.0.0/8\", \"127.0.0.2/32\"]", "one"),
    ]);
    for (local, name) in [
        (Ipv4Addr::LOCALHOST, "wide"),
        (Ipv4Addr::new(127, 0, 0, 2), "one"),
        (Ipv4Addr::new(127, 1, 0, 1), "any"),
    ] {
        let mut client = Client::connect_from(IpAddr::V4(local), proxy.addr());
        // Not a trusted proxy: what it claims is nothing.
        client.send("GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n");
        assert_eq!(client.response().text(), name, "{local}");
    }
}

#[test]
fn client_behind_a_trusted_proxy_is_the_one_it_names() {
    let proxy = Proxy::start(
        "[listeners.web]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = \"127.0.0.0/8\"\n\
         [[routes]]\nclient = \"10.0.0.0/8\"\nrespond = { body = \"inside\" }\n\
         [[routes]]\nrespond = { body = \"outside\" }\n",
    );
    for (told, name) in [("10.1.2.3", "inside"), ("192.0.2.1", "outside")] {
        let head = format!("GET / HTTP/1.1\nHost: t\nX-Forwarded-For: {told}");
        assert_eq!(ask(&proxy, &head).text(), name);
    }
}

#[test]
fn route_of_one_listener_is_not_seen_by_another() {
    let proxy = Proxy::start(
        "[listeners.one]\nbind = \"127.0.0.1:0\"\n[listeners.two]\nbind = \"127.0.0.1:0\"\n\
         [listeners.three]\nbind = \"127.0.0.1:0\"\n\
         [[routes]]\nlisteners = \"one\"\nrespond = { body = \"only one\" }\n\
         [[routes]]\nlisteners = [\"one\", \"two\"]\npath = \"/both\"\nrespond = { body = \"both\" }\n\
         [[routes]]\npath = \"/all\"\nrespond = { body = \"all\" }\n",
    );
    for (listener, target, expected) in [
        ("one", "/", "only one"),
        ("one", "/both", "both"),
        ("one", "/all", "all"),
        ("two", "/both", "both"),
        ("two", "/all", "all"),
        ("three", "/all", "all"),
    ] {
        let response = Client::get(proxy.listener(listener), target);
        assert_eq!(response.text(), expected, "{listener} {target}");
    }
    for (listener, target) in [("two", "/"), ("three", "/"), ("three", "/both")] {
        assert_eq!(Client::get(proxy.listener(listener), target).status(), 404);
    }
}

#[test]
fn rules_of_a_wildcard_catch_what_the_exact_host_leaves() {
    let proxy = routed(&[
        ("host = \"shop.test\"\npath = \"/x\"", "shop"),
        ("host = \"*.test\"", "wild"),
        ("path = \"/y\"", "any"),
    ]);
    answered(
        &proxy,
        &[
            ("GET /x HTTP/1.1\nHost: shop.test", "shop"),
            ("GET /y HTTP/1.1\nHost: shop.test", "wild"),
            ("GET /y HTTP/1.1\nHost: other", "any"),
        ],
    );
}
