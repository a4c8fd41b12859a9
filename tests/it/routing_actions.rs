//! What a route does: rewrites, header edits, redirects, fixed responses.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use crate::support::client::{Client, Response};
use crate::support::origin::{self, Origin, Request};
use crate::support::proxy::Proxy;

/// One route with these settings to an origin that mirrors; the request as it came there.
fn forwarded(route: &str, head: &str) -> Request {
    let origin = Origin::always(origin::mirror());
    let proxy = over(&origin, route);
    assert_eq!(ask(&proxy, head).status(), 200, "{head}");
    origin.await_done(0)
}

fn over(origin: &Origin, route: &str) -> Proxy {
    Proxy::start(&format!(
        "[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\n{route}\nupstream = \"app\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        origin.addr()
    ))
}

fn answering(route: &str) -> Proxy {
    Proxy::start(&format!(
        "[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\n{route}\n"
    ))
}

fn ask(proxy: &Proxy, head: &str) -> Response {
    let method = head.split(' ').next().unwrap();
    let mut client = Client::connect(proxy.addr());
    client.send(format!("{}\r\n\r\n", head.replace('\n', "\r\n")));
    client.response_to(method)
}

#[test]
fn prefix_is_stripped_by_whole_segments() {
    for (target, expected) in [
        ("/v1/users?q=1", "/users?q=1"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1x", "/v1x"),
        ("/v2/v1/x", "/v2/v1/x"),
        ("/v1?q", "/?q"),
        ("/v1//x", "//x"),
    ] {
        let seen = forwarded(
            "rewrite = { strip_prefix = \"/v1\" }",
            &format!("GET {target} HTTP/1.1\nHost: t"),
        );
        assert_eq!(seen.head.target(), expected, "{target}");
    }
}

#[test]
fn prefix_is_added_after_stripping() {
    for (rewrite, target, expected) in [
        ("add_prefix = \"/api\"", "/x?q", "/api/x?q"),
        ("add_prefix = \"/api\"", "/", "/api/"),
        (
            "strip_prefix = \"/v1\", add_prefix = \"/api\"",
            "/v1/x",
            "/api/x",
        ),
        (
            "strip_prefix = \"/v1\", add_prefix = \"/api\"",
            "/v1",
            "/api/",
        ),
    ] {
        let seen = forwarded(
            &format!("rewrite = {{ {rewrite} }}"),
            &format!("GET {target} HTTP/1.1\nHost: t"),
        );
        assert_eq!(seen.head.target(), expected, "{rewrite} {target}");
    }
}

#[test]
fn host_goes_through_unless_it_is_rewritten() {
    let seen = forwarded("", "GET / HTTP/1.1\nHost: Site.test:8080");
    assert_eq!(seen.head.field("host"), Some("Site.test:8080"));
    let seen = forwarded(
        "rewrite = { host = \"app.internal\" }",
        "GET / HTTP/1.1\nHost: site.test",
    );
    assert_eq!(seen.head.field("host"), Some("app.internal"));
    assert_eq!(seen.head.field("x-forwarded-host"), Some("site.test"));
}

#[test]
fn request_headers_are_removed_set_and_added() {
    let edits = "request_headers = { remove = [\"x-secret\"], \
                 set = { x-env = \"prod\", x-new = \"1\" }, add = { x-tag = [\"edge\", \"one\"] } }";
    let seen = forwarded(
        edits,
        "GET / HTTP/1.1\nHost: t\nX-Secret: a\nx-secret: b\nX-Env: test\nX-Env: dev\nX-Tag: mine\n\
         X-Stays: yes",
    );
    assert_eq!(seen.head.all("x-secret"), [""; 0]);
    assert_eq!(seen.head.all("x-env"), ["prod"]);
    assert_eq!(seen.head.all("x-new"), ["1"]);
    assert_eq!(seen.head.all("x-tag"), ["mine", "edge", "one"]);
    assert_eq!(seen.head.all("x-stays"), ["yes"]);
}

#[test]
fn response_headers_are_removed_set_and_added() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-Env: a\r\nX-Env: b\r\nVary: accept\r\n\
         Content-Length: 0\r\n\r\n",
    ));
    let edits = "response_headers = { remove = [\"server\"], set = { x-env = \"prod\", \
                 strict-transport-security = \"max-age=1\" }, add = { vary = \"origin\" } }";
    let response = ask(&over(&origin, edits), "GET / HTTP/1.1\nHost: t");
    assert_eq!(response.head.all("server"), [""; 0]);
    assert_eq!(response.head.all("x-env"), ["prod"]);
    assert_eq!(
        response.head.all("strict-transport-security"),
        ["max-age=1"]
    );
    assert_eq!(response.head.all("vary"), ["accept", "origin"]);
}

/// Seen red: what the route set stood beside what isobar had written itself.
#[test]
fn response_headers_edit_answers_of_our_own_too() {
    let proxy = answering(
        "respond = { body = \"{}\" }\n\
         response_headers = { set = { content-type = \"application/json\", x-a = \"1\" } }",
    );
    let response = ask(&proxy, "GET / HTTP/1.1\nHost: t");
    assert_eq!(response.head.all("content-type"), ["application/json"]);
    assert_eq!(response.head.all("x-a"), ["1"]);
    let proxy =
        answering("respond = { body = \"x\" }\nresponse_headers = { remove = [\"content-type\"] }");
    let response = ask(&proxy, "GET / HTTP/1.1\nHost: t");
    assert_eq!(response.head.all("content-type"), [""; 0]);
}

#[test]
fn redirect_fills_its_template() {
    for (matcher, to, target, expected) in [
        (
            "path = \"/old/*\"",
            "https://example.com/new{rest}{query}",
            "/old/a/b?q=1&r",
            "https://example.com/new/a/b?q=1&r",
        ),
        ("path = \"/old/*\"", "/new{rest}{query}", "/old", "/new"),
        ("path = \"/old/*\"", "/new{rest}", "/old/?q", "/new/"),
        ("path = \"/old\"", "/new{rest}", "/old", "/new"),
        (
            "",
            "https://{host}{path}{query}",
            "/a%20b?x=%2F",
            "https://site.test/a%20b?x=%2F",
        ),
        ("", "https://www.{host}/", "/x", "https://www.site.test/"),
        ("", "/plain", "/x?q", "/plain"),
        ("", "{path}", "/x/../y", "/y"),
    ] {
        let proxy = answering(&format!("{matcher}\nredirect = {{ to = \"{to}\" }}"));
        let response = ask(
            &proxy,
            &format!("GET {target} HTTP/1.1\nHost: site.test:8080"),
        );
        assert_eq!(response.status(), 307, "{to} {target}");
        assert_eq!(response.field("location"), Some(expected), "{to} {target}");
        assert_eq!(response.text(), "");
    }
}

/// `//other.test/` in Location is a path on another host (RFC 3986 section 4.2), and browsers read
/// a backslash as a slash. Seen red.
#[test]
fn redirect_by_path_alone_never_leads_to_another_host() {
    for (matcher, to, target, expected) in [
        ("", "{path}", "//other.test/x", "/other.test/x"),
        (
            "path = \"/old/*\"",
            "{rest}{query}",
            "/old//other.test/x?q",
            "/other.test/x?q",
        ),
        (
            "path = \"/old/*\"",
            "{rest}",
            "/old////other.test",
            "/other.test",
        ),
        ("path = \"/old/*\"", "{rest}", "/old/a//b", "/a//b"),
    ] {
        let proxy = answering(&format!("{matcher}\nredirect = {{ to = \"{to}\" }}"));
        let response = ask(&proxy, &format!("GET {target} HTTP/1.1\nHost: site.test"));
        assert_eq!(response.field("location"), Some(expected), "{to} {target}");
    }
}

/// Routing gives a rest that is empty or begins with a slash; `*` is the one path that does neither,
/// and behind a host it would be part of it.
#[test]
fn what_follows_a_host_in_a_redirect_begins_with_a_slash() {
    for (matcher, to, request, expected) in [
        (
            "",
            "https://site.test{path}",
            "OPTIONS *",
            "https://site.test/*",
        ),
        (
            "path = \"/old/*\"",
            "https://site.test{rest}",
            "GET /old.other.test/x",
            "",
        ),
        (
            "path = \"/old/*\"",
            "https://site.test{rest}",
            "GET /old/.other.test/x",
            "https://site.test/.other.test/x",
        ),
        (
            "path = \"/*\"",
            "https://site.test{rest}",
            "GET /.other.test",
            "https://site.test/.other.test",
        ),
        (
            "path_regex = \"/old.*\"",
            "https://site.test{rest}",
            "GET /old.other.test",
            "https://site.test",
        ),
    ] {
        let proxy = answering(&format!("{matcher}\nredirect = {{ to = \"{to}\" }}"));
        let response = ask(&proxy, &format!("{request} HTTP/1.1\nHost: site.test"));
        let location = response.field("location").unwrap_or_default();
        assert_eq!(location, expected, "{to} {request}");
    }
}

#[test]
fn redirect_has_the_status_of_the_configuration() {
    for status in [301, 302, 303, 307, 308] {
        let proxy = answering(&format!("redirect = {{ to = \"/x\", status = {status} }}"));
        let mut client = Client::connect(proxy.addr());
        for method in ["GET", "HEAD", "DELETE"] {
            let response = client.request(method, "/");
            assert_eq!(response.status(), status, "{method}");
            assert_eq!(response.field("location"), Some("/x"));
        }
    }
}

#[test]
fn fixed_response_is_what_the_configuration_says() {
    let proxy =
        answering("respond = { status = 503, body = \"later\\n\", content_type = \"text/html\" }");
    let response = ask(&proxy, "GET /any HTTP/1.1\nHost: t");
    assert_eq!(
        (response.status(), response.text().as_str()),
        (503, "later\n")
    );
    assert_eq!(response.field("content-type"), Some("text/html"));
    assert_eq!(response.field("content-length"), Some("6"));
    assert_eq!(response.field("connection"), None);
}

#[test]
fn fixed_response_to_head_is_its_head_alone() {
    let proxy = answering("respond = { body = \"hello\" }");
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2 {
        let response = client.request("HEAD", "/");
        assert_eq!(
            (response.status(), response.field("content-length")),
            (200, Some("5"))
        );
        assert_eq!(
            client.request("GET", "/").text(),
            "hello",
            "nothing came behind the head"
        );
    }
}

#[test]
fn fixed_response_to_an_upload_ends_the_connection() {
    let proxy = answering("respond = { body = \"no\" }");
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response();
    assert_eq!(
        (response.status(), response.field("connection")),
        (200, Some("close"))
    );
    client.finish();
    client.expect_closed();
}
