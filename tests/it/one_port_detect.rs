//! One port for everything: HTTP, TLS and what is neither, told apart by what their clients say first.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use isobar::telemetry::reason::Reason;

use crate::support::DEADLINE;
use crate::support::certs::{Ca, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::h2::{self, H2Client};
use crate::support::hello::{Beat, alert};
use crate::support::origin::{self, Origin};
use crate::support::tcp::{Came, End, Endpoint, upstreams};
use crate::support::tls::Offer;
use crate::support::watched::{Watched, expect_answer};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A listener for HTTP over TLS, with these further keys, and who there is besides.
fn https(ca: &Ca, origin: &Origin, other: &Endpoint, more: &str) -> Watched {
    Watched::start(
        &format!(
            "upstream = \"app\"\n{}\n{more}",
            listener_tls(&[&ca.server()], "")
        ),
        &upstreams(&[("app", origin.addr()), ("other", other.addr())]),
    )
}

#[test]
fn http_in_clear_text_is_served_beside_tls_if_it_may_be() {
    let (ca, origin, other) = (Ca::new(), Origin::named("a"), Endpoint::new());
    let proxy = https(&ca, &origin, &other, "detect = { http = true }");
    let mut client = proxy.connect();
    assert_eq!(client.request("GET", "/").text(), "a");
    assert_eq!(client.request("OPTIONS", "*").status(), 200);
    let mut client = Client::secure(proxy.addr(), &Offer::trusting(&ca), "localhost");
    assert_eq!(client.request("GET", "/").text(), "a");
    h2::run(async {
        let client = H2Client::connect(proxy.addr()).await;
        assert_eq!(client.get("/").await.text(), "a");
    });
    // A piece at a time.
    let mut client = proxy.connect();
    client.send_byte_by_byte(GET);
    assert_eq!(client.response().text(), "a");

    // It is answered, readably, where it may not be, whatever else is told apart.
    let through = "passthrough = { sni = \"x.test\", upstream = \"other\" }";
    for more in ["", through, "detect = { other = \"other\" }"] {
        let proxy = https(&ca, &origin, &other, more);
        for said in [GET, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut client = proxy.connect();
            client.send(said);
            expect_answer(&client.response(), Reason::PlainHttp);
            client.expect_closed();
        }
        let mut client = Client::secure(proxy.addr(), &Offer::trusting(&ca), "localhost");
        assert_eq!(client.request("GET", "/").text(), "a");
        assert!(other.is_quiet());
    }
}

#[test]
fn what_is_neither_tls_nor_http_goes_to_other() {
    let (ca, origin, other) = (Ca::new(), Origin::named("a"), Endpoint::new());
    let detect = "detect = { http = true, other = \"other\", timeout = \"1h\" }";
    let proxy = https(&ca, &origin, &other, detect);
    for said in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"GETTING on\n",
        b"get / HTTP/1.1\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\x10\x0f\0\x04MQTT",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x17\x03\x03\0\x10",
        b"\xff",
    ] {
        let mut client = End::connect(proxy.addr());
        client.send(said);
        let mut server = other.accept();
        assert_eq!(server.exactly(said.len()), said);
        client.talks_to(&mut server);
        drop(client);
        assert_eq!(server.next(), Came::End);
    }
    let mut client = proxy.connect();
    assert_eq!(client.request("GET", "/").text(), "a");
    let lines = proxy.await_log("all of them", |lines| lines.len() >= 9);
    let to_other = lines.iter().filter(|line| line["upstream"] == "other");
    assert_eq!(to_other.count(), 8, "{lines:#?}");
}

#[test]
fn who_waits_to_be_spoken_to_goes_to_other_in_time() {
    let (ca, origin, other) = (Ca::new(), Origin::named("a"), Endpoint::new());
    let detect = "detect = { http = true, other = \"other\", timeout = \"200ms\" }";
    let proxy = https(&ca, &origin, &other, detect);
    // A word that may become HTTP, or TLS, and does not.
    for said in ["", "G", "GET", "GET ", "\x16", "\x16\x03"] {
        let mut client = End::connect(proxy.addr());
        client.send(said);
        let mut server = other.accept();
        server.send("220 ready\r\n");
        assert_eq!(client.exactly(11), b"220 ready\r\n");
        client.send("more");
        let all = format!("{said}more");
        assert_eq!(server.exactly(all.len()), all.as_bytes());
    }
    // One that ends has no more time to wait.
    let proxy = https(
        &ca,
        &origin,
        &other,
        "detect = { http = true, other = \"other\", timeout = \"1h\" }",
    );
    for said in ["G", "GET", "\x16"] {
        let mut client = End::connect(proxy.addr());
        client.send(said);
        client.end();
        let mut server = other.accept();
        assert_eq!(server.read_to_end(), said.as_bytes());
        server.send("answer");
        server.end();
        assert_eq!(client.read_to_end(), b"answer");
    }
    // Or has said nothing at all.
    let client = End::connect(proxy.addr());
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    eventually("its end", || proxy.proxy.connections() == [0]);
    assert!(other.is_quiet());
}

#[test]
fn a_default_takes_what_passthrough_does_not() {
    let (a, default) = (Endpoint::new(), Endpoint::new());
    let all = upstreams(&[("a", a.addr()), ("default", default.addr())]);
    let offer = Offer::trusting(&Ca::new());
    let passthrough = "protocol = \"tcp\"\npassthrough = { sni = \"a.test\", upstream = \"a\" }";
    let with_default = |timeout: &str| {
        let detect = format!("detect = {{ timeout = \"{timeout}\" }}");
        let listener = format!("{passthrough}\nupstream = \"default\"\n{detect}");
        Watched::start(&listener, &all)
    };
    let proxy = with_default("1h");
    let cases = [
        (offer.hello("a.test"), &a),
        (offer.hello("b.test"), &default),
        (offer.hello("127.0.0.1"), &default),
        (b"GET / HTTP/1.1\r\n".to_vec(), &default),
        (b"SSH-2.0-x\r\n".to_vec(), &default),
    ];
    for (said, to) in cases {
        let mut client = End::connect(proxy.addr());
        client.send(&said);
        let mut server = to.accept();
        assert!(server.exactly(said.len()) == said);
        client.talks_to(&mut server);
    }
    let proxy = with_default("200ms");
    let (mut client, mut server) = default.join(&proxy.proxy);
    client.talks_to(&mut server);
    // Without one they are refused; whoever speaks TLS is told why.
    for said in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x\r\n", b"\0\x01"] {
        let proxy = Watched::start(passthrough, &all);
        let mut client = End::connect(proxy.addr());
        client.send(said);
        assert_eq!(client.next(), Came::Reset);
        proxy.expect_recorded(Reason::UnknownProtocol, None);
    }
    let proxy = Watched::start(passthrough, &all);
    let mut client = End::connect(proxy.addr());
    client.send(offer.hello("b.test"));
    assert_eq!(client.next(), alert(112));
    assert_eq!(client.next(), Came::End);
    proxy.expect_recorded(Reason::Misdirected, None);
    assert!(a.is_quiet() && default.is_quiet());
}

#[test]
fn sockets_in_the_file_system_are_no_different() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in");
    let ca = Ca::new();
    let (origin, endpoint) = (Origin::always(origin::mirror()), Endpoint::new());
    let config = format!(
        "[process]\nworkers = 1\n\n[listeners.web]\nbind = \"unix:{}\"\nupstream = \"app\"\n\
         passthrough = {{ sni = \"*.test\", upstream = \"through\" }}\n\n{}",
        path.display(),
        upstreams(&[("app", origin.addr()), ("through", endpoint.addr())])
    );
    let _proxy = crate::support::proxy::Proxy::start(&config);
    let connect = || {
        let client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    };
    let mut client = connect();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let hello = Offer::trusting(&ca).hello("a.test");
    // Each write takes room of its own there until it is read, so there may not be hundreds.
    for piece in [hello.len() / 50, 100, hello.len()] {
        let mut client = connect();
        for piece in hello.chunks(piece) {
            client.write_all(piece).unwrap();
        }
        let mut server = endpoint.accept();
        assert!(server.exactly(hello.len()) == hello);
        server.send("back");
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"back");
        drop(client);
        assert_eq!(server.next(), Came::End);
    }
}

#[test]
fn the_header_of_the_proxy_protocol_comes_before_all_of_it() {
    let ca = Ca::new();
    let own = ca.issue(&Wanted::server(&["through.test"]));
    let through = Origin::build(|_| origin::reply(200, "through"))
        .tls(crate::support::tls::server(
            &own,
            crate::support::tls::BOTH,
            None,
        ))
        .start();
    let (origin, endpoint) = (Origin::named("here"), Endpoint::new());
    let proxy = Watched::start(
        &format!(
            "upstream = \"app\"\n{}\nproxy_protocol = {{ from = [\"127.0.0.1\"] }}\n\
             detect = {{ http = true }}\npassthrough = [\n\
             {{ sni = \"through.test\", upstream = \"through\" }},\n\
             {{ sni = \"raw.test\", upstream = \"raw\" }} ]",
            listener_tls(&[&ca.server()], "")
        ),
        &upstreams(&[
            ("app", origin.addr()),
            ("through", through.addr()),
            ("raw", endpoint.addr()),
        ]),
    );
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let offer = Offer::trusting(&ca);
    // Apart.
    for (name, wanted) in [("through.test", "through"), ("localhost", "here")] {
        let mut client = proxy.connect();
        client.send(v1);
        let mut client = client.into_secure(&offer, name).unwrap();
        assert_eq!(client.request("GET", "/").text(), wanted);
    }
    // In one segment.
    let hello = offer.hello("raw.test");
    let mut client = End::connect(proxy.addr());
    client.send([&v1[..], &hello, b"early"].concat());
    let mut server = endpoint.accept();
    assert!(server.exactly(hello.len()) == hello);
    assert_eq!(server.exactly(5), b"early");
    client.talks_to(&mut server);
    let mut clear = End::connect(proxy.addr());
    clear.send([&v1[..], GET.as_bytes()].concat());
    assert!(matches!(clear.next(), Came::Bytes(b) if b.starts_with(b"HTTP/1.1 200 ")));
    drop((client, server, clear));
    let lines = proxy.await_log("four", |lines| lines.len() >= 4);
    assert!(
        lines.iter().all(|l| l["client"] == "192.0.2.7"),
        "{lines:#?}"
    );
    let raw = lines.iter().find(|line| line["upstream"] == "raw").unwrap();
    assert_eq!(raw["host"], "raw.test", "{raw}");
    // Without it nobody gets in, whatever comes.
    for said in [&hello[..], GET.as_bytes()] {
        let mut client = End::connect(proxy.addr());
        client.send(said);
        assert_eq!(client.next(), Came::Reset);
    }
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"proxy_protocol\"}";
    proxy.await_metric(refused, 2.0);
    assert!(endpoint.is_quiet());
}

/// TCP at `bind`, whose names below `test` go to this endpoint.
fn tcp(bind: &str, name: &str, to: &Endpoint) -> String {
    format!(
        "[process]\nworkers = 1\ngrace = \"20s\"\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
         [listeners.{name}]\nbind = \"{bind}\"\nprotocol = \"tcp\"\n\
         passthrough = {{ sni = \"*.test\", upstream = \"tls\" }}\n\
         detect = {{ timeout = \"1h\" }}\n\n{}",
        upstreams(&[("tls", to.addr())])
    )
}

#[test]
fn a_reload_leaves_alone_whoever_is_being_told_apart() {
    let (a, b) = (Endpoint::new(), Endpoint::new());
    let offer = Offer::trusting(&Ca::new());
    let hello = offer.hello("a.test");
    let before = tcp("127.0.0.1:0", "web", &a);
    let after = before.replace("upstream = \"tls\"", "upstream = \"new\"")
        + &upstreams(&[("new", b.addr())]);
    let proxy = crate::support::proxy::Proxy::start(&before);
    let mut silent = End::connect(proxy.addr());
    let mut begun = End::connect(proxy.addr());
    begun.send(&hello[..100]);
    eventually("both", || proxy.connections() == [2]);
    proxy.reload(&after);
    // They came when it was as it was; what comes now goes by what it is.
    silent.send(&hello);
    let mut server = a.accept();
    assert!(server.exactly(hello.len()) == hello);
    silent.talks_to(&mut server);
    begun.send(&hello[100..]);
    let mut server = a.accept();
    assert!(server.exactly(hello.len()) == hello);
    begun.talks_to(&mut server);
    let mut new = End::connect(proxy.addr());
    new.send(&hello);
    let mut server = b.accept();
    assert!(server.exactly(hello.len()) == hello);
    new.talks_to(&mut server);
}

#[test]
fn whoever_has_not_said_what_it_is_goes_with_its_listener() {
    let a = Endpoint::new();
    let hello = Offer::trusting(&Ca::new()).hello("a.test");
    let config = tcp("127.0.0.1:0", "web", &a);
    for is_removed in [true, false] {
        let proxy = crate::support::proxy::Proxy::start(&config);
        let (mut joined, mut silent, mut begun) = (
            End::connect(proxy.addr()),
            End::connect(proxy.addr()),
            End::connect(proxy.addr()),
        );
        begun.send(&hello[..100]);
        joined.send(&hello);
        let mut server = a.accept();
        assert!(server.exactly(hello.len()) == hello);
        eventually("all of them", || proxy.connections() == [3]);
        let ending = if is_removed {
            proxy.reload(&tcp("127.0.0.1:0", "other", &a));
            None
        } else {
            Some(std::thread::spawn(move || proxy.shutdown()))
        };
        assert!(matches!(silent.next(), Came::End | Came::Reset));
        assert!(matches!(begun.next(), Came::End | Came::Reset));
        // The one that is served goes on, and ends by itself.
        joined.talks_to(&mut server);
        drop((joined, server));
        if let Some(ending) = ending {
            ending.join().unwrap();
        }
        assert!(a.is_quiet());
    }
}

#[test]
fn what_ends_here_is_seen_while_others_are_told_apart() {
    let (ca, origin, other) = (Ca::new(), Origin::named("a"), Endpoint::new());
    let more = "detect = { other = \"other\", timeout = \"1h\" }\n\
                passthrough = { sni = \"*.test\", upstream = \"other\" }";
    let proxy = https(&ca, &origin, &other, more);
    let offer = Offer::trusting(&ca);
    let mut beat = Beat::new(&proxy, &other, &offer, "a.test");
    // TLS that ends here, a few bytes at a time.
    let mut client = End::connect(proxy.addr());
    for piece in offer.hello("localhost").chunks(100) {
        client.send(piece);
        beat.pass();
    }
    // A ServerHello.
    assert!(matches!(client.next(), Came::Bytes(b) if b.starts_with(&[22, 3, 3])));
    assert!(other.is_quiet());
}
