//! Sticky cookies, and exchanges in flight that must be counted back to 0 however they end.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::time::Duration;

use isobar::balance::sticky::Keyring;

use crate::support::client::{Client, Response};
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;
use crate::support::unreachable::Refusing;
use crate::support::{deadline, remaining};

/// A request with this Cookie field; none if empty.
fn with_cookie(proxy: &Proxy, cookie: &str) -> Response {
    let mut client = Client::connect(proxy.addr());
    let field = match cookie {
        "" => String::new(),
        value => format!("Cookie: {value}\r\n"),
    };
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{field}\r\n"));
    client.response()
}

/// The `name=value` of the cookie that was set.
fn pair(response: &Response) -> String {
    let set = response.field("set-cookie").expect("a cookie");
    set.split(';').next().unwrap().to_owned()
}

fn three() -> Vec<Origin> {
    ["a", "b", "c"].map(Origin::named).into()
}

fn addrs(origins: &[Origin]) -> Vec<std::net::SocketAddr> {
    origins.iter().map(Origin::addr).collect()
}

const STICKY: &str = "sticky = { cookie = \"lb\" }";

#[test]
fn cookie_is_set_once_and_honoured() {
    let origins = three();
    let proxy = Proxy::over(&addrs(&origins), STICKY);
    for _ in 0..3 {
        let first = with_cookie(&proxy, "");
        let cookie = pair(&first);
        for header in [
            cookie.clone(),
            format!("a=b; {cookie}; lbx=1"),
            format!("a=b;{cookie}"),
        ] {
            for _ in 0..3 {
                let again = with_cookie(&proxy, &header);
                assert_eq!(again.text(), first.text(), "{header}");
                assert_eq!(again.field("set-cookie"), None, "it has one already");
            }
        }
    }
}

#[test]
fn clients_without_a_cookie_are_balanced() {
    let origins = three();
    let proxy = Proxy::over(&addrs(&origins), STICKY);
    let seen: String = (0..6).map(|_| with_cookie(&proxy, "").text()).collect();
    assert_eq!(seen, "abcabc");
}

#[test]
fn cookie_has_the_attributes_of_the_configuration() {
    let origins = three();
    for (sticky, attributes) in [
        ("{ cookie = \"lb\" }", "; Path=/; HttpOnly; SameSite=Lax"),
        (
            "{ cookie = \"lb\", secure = true, ttl = \"1h\" }",
            "; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600",
        ),
    ] {
        let proxy = Proxy::over(&addrs(&origins), &format!("sticky = {sticky}"));
        let response = with_cookie(&proxy, "");
        let set = response.field("set-cookie").unwrap();
        let (value, rest) = set.split_at(set.find(';').unwrap());
        assert_eq!(rest, attributes);
        let value = value.strip_prefix("lb=").unwrap();
        assert!(
            value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit()),
            "{value}"
        );
    }
}

#[test]
fn endpoint_s_own_cookies_stay_beside_ours() {
    let origin = Origin::always(origin::raw(
        "HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nSet-Cookie: two=2\r\nContent-Length: 0\r\n\r\n",
    ));
    let proxy = Proxy::over(&[origin.addr()], STICKY);
    let response = with_cookie(&proxy, "");
    let all = response.head.all("set-cookie");
    assert_eq!(all[..2], ["own=1", "two=2"]);
    assert!(all.len() == 3 && all[2].starts_with("lb="), "{all:?}");
}

#[test]
fn garbage_in_the_cookie_is_harmless_and_replaced() {
    let origins = three();
    let proxy = Proxy::over(&addrs(&origins), STICKY);
    let good = pair(&with_cookie(&proxy, ""));
    for garbage in [
        "lb=",
        "lb",
        "lb=\"quoted\"",
        "lb=0000000000000000",
        "lb=+123456789abcdef",
        "lb=ffffffffffffffffffffffffffffffffff",
        "lb=\u{e9}\u{fffd}",
        ";;;=;lb=;",
        &good.to_uppercase().replace("LB", "lb").replace('0', "o"),
        &good.replace("lb=", "LB="),
    ] {
        let response = with_cookie(&proxy, garbage);
        assert_eq!(response.status(), 200, "{garbage}");
        assert_eq!(
            pair(&response).len(),
            good.len(),
            "{garbage}: a new one is set"
        );
    }
}

#[test]
fn cookie_of_an_endpoint_that_is_gone_is_replaced() {
    let origins = three();
    let before = Proxy::over(&addrs(&origins), STICKY);
    let cookies: Vec<(String, String)> = (0..3)
        .map(|_| with_cookie(&before, ""))
        .map(|r| (r.text(), pair(&r)))
        .collect();
    let after = Proxy::over(&addrs(&origins)[..2], STICKY);
    for (name, cookie) in cookies {
        let response = with_cookie(&after, &cookie);
        assert_eq!(response.status(), 200);
        if name == "c" {
            assert_ne!(pair(&response), cookie);
        } else {
            assert_eq!(response.text(), name, "the same on another proxy");
            assert_eq!(response.field("set-cookie"), None);
        }
    }
}

#[test]
fn cookie_of_an_endpoint_that_refuses_is_replaced() {
    let refusing = Refusing::new();
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[refusing.addr, origin.addr()], STICKY);
    let stuck = Keyring::default().value("app", &refusing.addr.to_string());
    let response = with_cookie(&proxy, &format!("lb={stuck}"));
    assert_eq!(response.text(), "a");
    assert_ne!(pair(&response), format!("lb={stuck}"));
    let again = with_cookie(&proxy, &pair(&response));
    assert_eq!(
        (again.text().as_str(), again.field("set-cookie")),
        ("a", None)
    );
}

// === in flight ===

/// The three gauges that count exchanges, each of which must come back to 0.
fn in_flight(proxy: &Proxy, origin: &Origin) -> [f64; 3] {
    [
        format!(
            "isobar_endpoint_in_flight{{upstream=\"app\",endpoint=\"{}\"}}",
            origin.addr()
        ),
        "isobar_upstream_in_flight{upstream=\"app\"}".to_owned(),
        "isobar_http_requests_in_flight{route=\"web\"}".to_owned(),
    ]
    .map(|series| proxy.metric(&series))
}

#[track_caller]
fn await_in_flight(proxy: &Proxy, origin: &Origin, n: f64) {
    let end = deadline();
    while in_flight(proxy, origin) != [n; 3] {
        let what = format!("{n} in flight: {:?}", in_flight(proxy, origin));
        std::thread::park_timeout(remaining(end, &what).min(Duration::from_millis(5)));
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// Runs `steps` behind a gate: one exchange is in flight, then `end` and the gate end it.
fn counted(steps: Vec<Step>, more: &str, end: impl FnOnce(Client, &Gate)) {
    let gate = Gate::new();
    let mut all = vec![Step::ReadBody, Step::Pass(gate.clone())];
    all.extend(steps);
    let origin = Origin::always(all);
    let proxy = Proxy::over(&[origin.addr()], more);
    let mut client = Client::connect(proxy.addr());
    client.send(GET);
    gate.await_reached(1);
    await_in_flight(&proxy, &origin, 1.0);
    end(client, &gate);
    await_in_flight(&proxy, &origin, 0.0);
    gate.open();
}

#[test]
fn nothing_is_in_flight_after_a_response() {
    counted(
        vec![Step::Send(origin::response(200, "x"))],
        "",
        |mut client, gate| {
            gate.open();
            assert_eq!(client.response().status(), 200);
        },
    );
}

#[test]
fn nothing_is_in_flight_after_the_client_reset() {
    counted(vec![Step::AwaitClose], "", |client, _| client.reset());
}

#[test]
fn nothing_is_in_flight_after_the_endpoint_died() {
    for steps in [
        vec![Step::Reset],
        vec![Step::Close],
        vec![Step::Send(b"garbage\r\n\r\n".to_vec()), Step::Close],
    ] {
        counted(steps, "", |mut client, gate| {
            gate.open();
            assert_eq!(client.response().status(), 502);
        });
    }
}

#[test]
fn nothing_is_in_flight_after_a_body_that_was_cut() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec();
    counted(
        vec![Step::Send(head), Step::Close],
        "",
        |mut client, gate| {
            gate.open();
            assert_eq!(client.head().status(), 200);
            client.until_closed();
        },
    );
}

#[test]
fn nothing_is_in_flight_after_a_timeout() {
    counted(vec![], "idle_timeout = \"200ms\"", |mut client, _| {
        assert_eq!(client.response().status(), 504);
    });
}

#[test]
fn tunnel_is_in_flight_for_as_long_as_it_is_open() {
    let origin = Origin::always(origin::tunnel());
    let proxy = Proxy::over(&[origin.addr()], "");
    let mut client = Client::connect(proxy.addr());
    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
    await_in_flight(&proxy, &origin, 1.0);
    client.finish();
    assert_eq!(client.read_to_end(), b"");
    await_in_flight(&proxy, &origin, 0.0);
}

#[test]
fn refused_endpoint_has_nothing_in_flight() {
    let refusing = Refusing::new();
    let origin = Origin::named("a");
    let proxy = Proxy::over(&[refusing.addr, origin.addr()], "");
    for _ in 0..4 {
        assert_eq!(Client::get(proxy.addr(), "/").text(), "a");
    }
    await_in_flight(&proxy, &origin, 0.0);
    let series = format!(
        "isobar_endpoint_in_flight{{upstream=\"app\",endpoint=\"{}\"}}",
        refusing.addr
    );
    assert_eq!(proxy.metric(&series), 0.0);
}
