//! Sticky cookies that are signed: what they survive, and who cannot make one.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::path::Path;

use isobar::balance::sticky::Keyring;
use isobar::upstream::overrides::Verb;

use crate::support::client::{Client, Response};
use crate::support::eventually::eventually;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Step};
use crate::support::proxy::Proxy;

const SECRET: &str = "a secret of thirty-two characters";
const OLDER: &str = "the secret of the year before it";

/// A request with this cookie; none if empty.
fn ask(proxy: &Proxy, cookie: &str) -> Response {
    let mut client = Client::connect(proxy.addr());
    let field = match cookie {
        "" => String::new(),
        pair => format!("Cookie: {pair}\r\n"),
    };
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{field}\r\n"));
    client.response()
}

/// The `name=value` that was set, if one was.
fn set(response: &Response) -> Option<String> {
    let set = response.field("set-cookie")?;
    Some(set.split(';').next().unwrap().to_owned())
}

/// Asks without a cookie until `name` has answered: its cookie.
fn cookie_of(proxy: &Proxy, name: &str) -> String {
    // In turn: a round and a half is enough, whatever came before.
    let mut answers = (0..10).map(|_| ask(proxy, ""));
    let answer = answers.find(|answer| answer.text() == name).unwrap();
    set(&answer).unwrap()
}

/// It is served by `name`, and keeps its cookie.
#[track_caller]
fn assert_stuck(proxy: &Proxy, cookie: &str, name: &str) {
    for _ in 0..5 {
        let answer = ask(proxy, cookie);
        assert_eq!((answer.status(), &*answer.text()), (200, name), "{cookie}");
        assert_eq!(set(&answer), None, "{cookie}");
    }
}

/// It is nobody's cookie: clients are served in turn, and given one.
#[track_caller]
fn assert_ignored(proxy: &Proxy, cookie: &str) {
    let mut seen = String::new();
    for _ in 0..4 {
        let answer = ask(proxy, cookie);
        assert_eq!(answer.status(), 200, "{cookie}");
        let new = set(&answer).unwrap_or_else(|| panic!("{cookie}: no new one"));
        assert_ne!(new, cookie);
        seen += &answer.text();
    }
    assert!(seen.contains('a') && seen.contains('b'), "{cookie}: {seen}");
}

fn two() -> (Origin, Origin) {
    (Origin::named("a"), Origin::named("b"))
}

/// The configuration over `endpoints` with the secret in `file`.
fn with_secret(endpoints: &[&Origin], file: &Path, more: &str) -> String {
    let addrs: Vec<SocketAddr> = endpoints.iter().map(|o| o.addr()).collect();
    let sticky = format!(
        "sticky = {{ cookie = 'lb', secret_file = '{}' }}\n{more}",
        file.display()
    );
    Proxy::config_over(&addrs, &sticky)
}

/// The same with a key of the proxy's own in `folder`.
fn with_own_key(endpoints: &[&Origin], folder: &Path, sticky: &str) -> String {
    let addrs: Vec<SocketAddr> = endpoints.iter().map(|o| o.addr()).collect();
    let state = format!("[process]\nstate_dir = '{}'", folder.display());
    Proxy::config_over(&addrs, sticky).replace("[process]", &state)
}

fn secret_file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

#[test]
fn cookie_survives_reload_restart_and_another_isobar_with_the_secret() {
    let (a, b) = two();
    let (_folder, file) = secret_file(SECRET);
    let toml = with_secret(&[&a, &b], &file, "");
    let proxy = Proxy::start(&toml);
    let (of_a, of_b) = (cookie_of(&proxy, "a"), cookie_of(&proxy, "b"));
    let value = of_a.strip_prefix("lb=").unwrap();
    assert!(value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_stuck(&proxy, &of_a, "a");
    // Another order, another policy, another member.
    let c = Origin::named("c");
    let other = with_secret(&[&c, &b, &a], &file, "max_connections = 5");
    proxy.reload(&other);
    assert_stuck(&proxy, &of_a, "a");
    assert_stuck(&proxy, &of_b, "b");
    // One beside it, and one after it.
    let fleet = Proxy::start(&toml);
    assert_stuck(&fleet, &of_a, "a");
    proxy.shutdown();
    let next = Proxy::start(&other);
    assert_stuck(&next, &of_a, "a");
    assert_stuck(&next, &of_b, "b");
}

#[test]
fn own_key_survives_a_restart_and_is_no_other_s() {
    let (a, b) = two();
    let folder = tempfile::tempdir().unwrap();
    let sticky = "sticky = { cookie = 'lb' }";
    let toml = with_own_key(&[&a, &b], folder.path(), sticky);
    let proxy = Proxy::start(&toml);
    let of_a = cookie_of(&proxy, "a");
    assert_eq!(of_a.len(), "lb=".len() + 32);
    proxy.reload(&with_own_key(
        &[&b, &a],
        folder.path(),
        "sticky = { cookie = 'lb', ttl = '1h' }",
    ));
    assert_stuck(&proxy, &of_a, "a");
    proxy.shutdown();
    assert_stuck(&Proxy::start(&toml), &of_a, "a");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Proxy::start(&with_own_key(&[&a, &b], elsewhere.path(), sticky));
    assert_ignored(&other, &of_a);
}

#[test]
fn who_has_no_secret_cannot_choose_an_endpoint() {
    let (a, b) = two();
    let (_folder, file) = secret_file(SECRET);
    let proxy = Proxy::start(&with_secret(&[&a, &b], &file, ""));
    let good = cookie_of(&proxy, "a");
    let addr = a.addr().to_string();
    let unsigned = Keyring::default().value("app", &addr);
    let keyring = |secret: &str| Keyring::new([secret.as_bytes().into()]);
    let ours = keyring(SECRET);
    assert_eq!(good, format!("lb={}", ours.value("app", &addr)));
    for forged in [
        unsigned.to_string(),
        format!("{unsigned}{unsigned}"),
        keyring(OLDER).value("app", &addr).to_string(),
        // Signed, for somebody else.
        ours.value("other", &addr).to_string(),
        ours.value("app", "127.0.0.1:1").to_string(),
        good[3..].to_uppercase(),
        good[3..34].to_owned(),
        format!("{}0", &good[3..]),
        "0".repeat(32),
        "\u{e9}".repeat(16),
        String::new(),
    ] {
        assert_ignored(&proxy, &format!("lb={forged}"));
    }
    assert_stuck(&proxy, &good, "a");
}

#[test]
fn secret_is_replaced_while_clients_hold_cookies() {
    let (a, b) = two();
    let (_folder, file) = secret_file(OLDER);
    let toml = with_secret(&[&a, &b], &file, "");
    let proxy = Proxy::start(&toml);
    let old = cookie_of(&proxy, "a");
    std::fs::write(&file, format!("{SECRET}\n{OLDER}\n")).unwrap();
    proxy.reload(&toml);
    assert_stuck(&proxy, &old, "a");
    let new = cookie_of(&proxy, "a");
    assert_ne!(new, old, "the first line signs");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    proxy.reload(&toml);
    assert_ignored(&proxy, &old);
    assert_stuck(&proxy, &new, "a");
}

#[test]
fn reload_that_finds_no_secret_changes_nothing() {
    let (a, b) = two();
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&with_own_key(&[&a, &b], folder.path(), ""));
    let key = folder.path().join("sticky.key");
    std::fs::write(&key, "short\n").unwrap();
    let sticky = with_own_key(&[&a, &b], folder.path(), "sticky = { cookie = 'lb' }");
    let error = proxy.try_reload(&sticky).unwrap_err().to_string();
    assert!(
        error.contains("line 1 has 5 bytes") && error.contains("upstream `app`"),
        "{error}"
    );
    assert_eq!(set(&ask(&proxy, "")), None, "the old one serves on");
    std::fs::remove_file(&key).unwrap();
    proxy.reload(&sticky);
    assert_stuck(&proxy, &cookie_of(&proxy, "b"), "b");
    let error =
        Proxy::try_start(&sticky.replace("state_dir = '", "state_dir = '/nowhere")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a key for sticky cookies cannot be written"),
        "{error}"
    );
}

#[test]
fn endpoint_that_is_gone_gives_its_clients_away() {
    let (a, b) = two();
    let (_folder, file) = secret_file(SECRET);
    let proxy = Proxy::start(&with_secret(&[&a, &b], &file, ""));
    let of_b = cookie_of(&proxy, "b");
    proxy.reload(&with_secret(&[&a], &file, ""));
    let answer = ask(&proxy, &of_b);
    assert_eq!(answer.text(), "a");
    let new = set(&answer).unwrap();
    assert_ne!(new, of_b);
    assert_stuck(&proxy, &new, "a");
    proxy.reload(&with_secret(&[&a, &b], &file, ""));
    assert_stuck(&proxy, &of_b, "b");
    assert_stuck(&proxy, &new, "a");
}

#[test]
fn drained_endpoint_keeps_who_holds_its_cookie_and_a_disabled_one_nobody() {
    let (a, b) = two();
    let (_folder, file) = secret_file(SECRET);
    let proxy = Proxy::start(&with_secret(&[&a, &b], &file, ""));
    let (of_a, of_b) = (cookie_of(&proxy, "a"), cookie_of(&proxy, "b"));
    proxy.change(a.addr(), Verb::Drain);
    assert_stuck(&proxy, &of_a, "a");
    for _ in 0..6 {
        let answer = ask(&proxy, "");
        assert_eq!((&*answer.text(), set(&answer)), ("b", Some(of_b.clone())));
    }
    proxy.change(a.addr(), Verb::Disable);
    let answer = ask(&proxy, &of_a);
    assert_eq!((&*answer.text(), set(&answer)), ("b", Some(of_b)));
    proxy.change(a.addr(), Verb::Undrain);
    assert_stuck(&proxy, &of_a, "a");
}

#[test]
fn endpoint_without_room_lends_its_client_and_gets_it_back() {
    let gate = Gate::new();
    let a = Origin::start({
        let gate = gate.clone();
        move |request| match request.head.target() {
            "/slow" => vec![
                Step::Pass(gate.clone()),
                Step::Send(origin::response(200, "a")),
            ],
            _ => origin::reply(200, "a"),
        }
    });
    let b = Origin::named("b");
    let (_folder, file) = secret_file(SECRET);
    let proxy = Proxy::start(&with_secret(&[&a, &b], &file, "max_connections = 1"));
    let of_a = cookie_of(&proxy, "a");
    let mut slow = Client::connect(proxy.addr());
    slow.send(format!(
        "GET /slow HTTP/1.1\r\nHost: t\r\nCookie: {of_a}\r\n\r\n"
    ));
    gate.await_reached(1);
    // Served elsewhere this time, and none the wiser.
    assert_stuck(&proxy, &of_a, "b");
    gate.open();
    assert_eq!(slow.response().text(), "a");
    eventually("it is back", || {
        let answer = ask(&proxy, &of_a);
        assert_eq!(set(&answer), None);
        answer.text() == "a"
    });
}
