//! One port for everything: by the name that a client asks for TLS goes on unopened, or ends here.

use std::net::{SocketAddr, TcpStream};

use isobar::telemetry::reason::Reason;
use rustls::HandshakeKind;

use crate::support::binary::free_port;
use crate::support::certs::{Ca, Issued, Wanted, listener_tls};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::h2::{self, H2Client, Identity};
use crate::support::hello::alert;
use crate::support::need;
use crate::support::openssl::{Tool, s_client};
use crate::support::origin::{Origin, reply, until_close};
use crate::support::tcp::{Came, End, Endpoint, upstreams};
use crate::support::tls::{Offer, V12, V13, server};
use crate::support::watched::Watched;

/// An origin over TLS that answers with `name`, which is also the name in its certificate.
fn secured(ca: &Ca, name: &'static str, clients: Option<&Ca>) -> Origin {
    let own = ca.issue(&Wanted::server(&[name]));
    let versions = [V13[0], V12[0]];
    Origin::build(move |_| reply(200, name))
        .tls(server(&own, &versions, clients))
        .start()
}

#[test]
fn the_first_entry_that_fits_takes_a_connection_whole() {
    let ca = Ca::new();
    let names = ["exact", "wild", "acme", "h2", "rest", "any"];
    let endpoints = names.map(|name| (name, Endpoint::new()));
    let proxy = Watched::start(
        "protocol = \"tcp\"\n\
         passthrough = [\n\
         { sni = \"Exact.test\", upstream = \"exact\" },\n\
         { sni = [\"*.wild.test\", \"second.test\"], upstream = \"wild\" },\n\
         { alpn = \"acme-tls/1\", upstream = \"acme\" },\n\
         { sni = \"*.order.test\", alpn = [\"x\", \"h2\"], upstream = \"h2\" },\n\
         { sni = \"*.order.test\", upstream = \"rest\" },\n\
         { upstream = \"any\" } ]",
        &upstreams(&endpoints.each_ref().map(|(name, e)| (*name, e.addr()))),
    );
    let both: &[&str] = &["http/1.1", "h2"];
    let cases = [
        ("exact.test", both, "exact"),
        ("EXACT.TEST", &[], "exact"),
        ("a.exact.test", &[], "any"),
        ("a.wild.test", &[], "wild"),
        ("a.b.wild.test", both, "wild"),
        ("wild.test", &[], "any"),
        ("awild.test", &[], "any"),
        ("second.test", &[], "wild"),
        ("second.test", &["acme-tls/1"], "wild"),
        ("other.test", &["acme-tls/1"], "acme"),
        ("a.order.test", both, "h2"),
        ("a.order.test", &["http/1.1"], "rest"),
        ("a.order.test", &[], "rest"),
        ("127.0.0.1", &[], "any"),
        ("127.0.0.1", &["acme-tls/1"], "acme"),
    ];
    for (name, alpn, to) in cases {
        let hello = Offer::build(&ca).alpn(alpn).done().hello(name);
        let mut client = End::connect(proxy.addr());
        client.send(&hello);
        let (_, endpoint) = endpoints.iter().find(|(name, _)| *name == to).unwrap();
        let mut server = endpoint.accept();
        assert!(server.exactly(hello.len()) == hello, "{name} {alpn:?}");
        client.talks_to(&mut server);
        assert!(endpoints.iter().all(|(_, e)| e.is_quiet()), "{name}");
        drop((client, server));
    }
    let lines = proxy.log(cases.len());
    for (line, (name, _, to)) in lines.iter().zip(cases) {
        let asked = if name == "127.0.0.1" { "" } else { name };
        let told = line["host"].as_str().unwrap_or_default();
        assert_eq!(told, asked.to_lowercase(), "{line}");
        assert_eq!(line["upstream"], to, "{line}");
        assert_eq!(line["protocol"], "TCP", "{line}");
        assert_eq!(line["bytes_out"], 4, "{line}");
    }
    proxy.await_metric("isobar_upstream_exchanges_total{upstream=\"wild\"}", 4.0);
}

#[test]
fn tls_goes_through_beside_tls_that_ends_here() {
    let (ca, other) = (Identity::new(), Ca::new());
    let origin = Origin::named("ends here");
    let through = secured(&other, "through.test", None);
    let proxy = Watched::start(
        &format!(
            "upstream = \"app\"\n{}\n\
             passthrough = {{ sni = \"through.test\", upstream = \"through\" }}",
            ca.listener()
        ),
        &upstreams(&[("app", origin.addr()), ("through", through.addr())]),
    );
    for versions in [V12, V13] {
        let offer = Offer::of(&other, versions);
        let mut client = Client::secure(proxy.addr(), &offer, "through.test");
        assert_eq!(client.request("GET", "/").text(), "through.test");
    }
    h2::run(async {
        let client = H2Client::connect_tls(proxy.addr(), &ca).await;
        assert_eq!(client.get("/").await.text(), "ends here");
    });
    let (Some(curl), port) = (need("curl"), proxy.addr().port()) else {
        return;
    };
    let cert = ca.cert();
    let cases = [
        ("localhost", "--http1.1", &*cert, "ends here 1.1"),
        ("localhost", "--http2", &*cert, "ends here 2"),
        ("through.test", "--http2", &*other.file, "through.test 1.1"),
    ];
    for (name, version, trusted, wanted) in cases {
        let args = [
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            version,
            "--cacert",
            &trusted.to_string_lossy(),
            "--resolve",
            &format!("{name}:{port}:127.0.0.1"),
            "--write-out",
            " %{http_version}",
            &format!("https://{name}:{port}/"),
        ];
        let (status, said) = Tool::run(&curl, &args);
        assert!(status.success() && said == wanted, "{name}: {said}");
    }
    let handshakes = "isobar_tls_handshakes_total{listener=\"web\",result=\"full\"}";
    proxy.await_metric(handshakes, 3.0);
    let lines = proxy.await_log("three that went through", |lines| {
        lines.iter().filter(|l| l["upstream"] == "through").count() == 3
    });
    for line in lines.iter().filter(|line| line["upstream"] == "through") {
        assert_eq!(line["host"], "through.test", "{line}");
        assert_eq!(line["endpoint"], through.addr().to_string(), "{line}");
    }
}

#[test]
fn tcp_listeners_open_what_nobody_else_is_asked_for() {
    let (ca, other) = (Ca::new(), Ca::new());
    let through = secured(&other, "through.test", None);
    let plain = Origin::named("opened here");
    let proxy = Watched::start(
        &format!(
            "protocol = \"tcp\"\nupstream = \"plain\"\n{}\n\
             passthrough = {{ sni = \"through.test\", upstream = \"through\" }}",
            listener_tls(&[&ca.server()], "")
        ),
        &upstreams(&[("plain", plain.addr()), ("through", through.addr())]),
    );
    let mut client = Client::secure(proxy.addr(), &Offer::trusting(&ca), "localhost");
    assert_eq!(client.request("GET", "/").text(), "opened here");
    let mut client = Client::secure(proxy.addr(), &Offer::trusting(&other), "through.test");
    assert_eq!(client.request("GET", "/").text(), "through.test");
    // Whoever comes without TLS does not get in where TLS is opened.
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    client.expect_closed();
    proxy.expect_recorded(Reason::UnknownProtocol, None);
}

#[test]
fn clients_show_their_certificates_to_the_endpoint() {
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let through = secured(&ca, "through.test", Some(&clients));
    let proxy = Watched::start(
        "protocol = \"tcp\"\npassthrough = { sni = \"*.test\", upstream = \"through\" }",
        &upstreams(&[("through", through.addr())]),
    );
    let alice = clients.issue(&Wanted::client("alice"));
    for versions in [V12, V13] {
        let offer = Offer::build(&ca).versions(versions).own(&alice).done();
        let mut client = Client::secure(proxy.addr(), &offer, "through.test");
        assert_eq!(client.request("GET", "/").text(), "through.test");
    }
}

#[test]
fn sessions_go_on_at_the_endpoint() {
    let ca = Ca::new();
    let through = secured(&ca, "through.test", None);
    let proxy = Watched::start(
        "protocol = \"tcp\"\npassthrough = { upstream = \"through\" }",
        &upstreams(&[("through", through.addr())]),
    );
    for versions in [V12, V13] {
        let offer = Offer::of(&ca, versions);
        for wanted in [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ] {
            let mut client = Client::secure(proxy.addr(), &offer, "through.test");
            // The ticket of TLS 1.3 comes before the answer.
            assert_eq!(client.request("GET", "/").status(), 200);
            assert_eq!(client.tls().handshake_kind(), Some(wanted));
        }
    }
}

/// `openssl s_server` that shows `first`, and to who asks for its name `second`.
fn s_server(openssl: &std::path::Path, first: &Issued, second: &Issued) -> (Tool, SocketAddr) {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let args = [
        "s_server".to_owned(),
        "-accept".to_owned(),
        addr.to_string(),
        "-www".to_owned(),
        "-cert".to_owned(),
        path(&first.cert),
        "-key".to_owned(),
        path(&first.key),
        "-servername".to_owned(),
        "two.openssl.test".to_owned(),
        "-cert2".to_owned(),
        path(&second.cert),
        "-key2".to_owned(),
        path(&second.key),
    ];
    let tool = Tool::start(openssl, &args);
    tool.await_text("ACCEPT");
    (tool, addr)
}

/// nginx with two certificates, each of which says its name.
fn nginx(program: &std::path::Path, ca: &Ca, own: [&Issued; 2]) -> (Tool, SocketAddr) {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let dir = ca.folder().display();
    let server = |(n, own): (&str, &Issued)| {
        format!(
            "server {{ listen {addr} ssl http2; server_name {n}.nginx.test;
               ssl_certificate {}; ssl_certificate_key {};
               ssl_protocols TLSv1.2 TLSv1.3;
               location / {{ return 200 'nginx {n} $server_protocol'; }} }}",
            own.cert.display(),
            own.key.display()
        )
    };
    let servers: String = ["one", "two"].into_iter().zip(own).map(server).collect();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr info;
         events {{ worker_connections 256; }}
         http {{
           access_log off;
           client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
           uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
           {servers} }}"
    );
    let file = ca.write("nginx.conf", config);
    let (dir, file) = (dir.to_string(), file.to_string_lossy());
    let tool = Tool::start(program, &["-e", "stderr", "-p", &dir, "-c", &file]);
    eventually("nginx listens", || TcpStream::connect(addr).is_ok());
    (tool, addr)
}

#[test]
fn real_servers_show_the_certificate_that_was_asked_for() {
    let (Some(openssl), Some(program), Some(curl)) = (need("openssl"), need("nginx"), need("curl"))
    else {
        return;
    };
    let ca = Ca::new();
    let names = [
        "one.openssl.test",
        "two.openssl.test",
        "one.nginx.test",
        "two.nginx.test",
    ];
    let own = names.map(|name| ca.issue(&Wanted::server(&[name]).subject(name)));
    let (_openssl, of_openssl) = s_server(&openssl, &own[0], &own[1]);
    let (_nginx, of_nginx) = nginx(&program, &ca, [&own[2], &own[3]]);
    let proxy = Watched::start(
        "protocol = \"tcp\"\npassthrough = [\n\
         { sni = \"*.openssl.test\", upstream = \"openssl\" },\n\
         { sni = \"*.nginx.test\", upstream = \"nginx\" } ]",
        &upstreams(&[("openssl", of_openssl), ("nginx", of_nginx)]),
    );
    let trusted = ca.file.to_string_lossy();
    for name in names {
        for version in ["-tls1_2", "-tls1_3"] {
            let args = [
                version,
                "-servername",
                name,
                "-CAfile",
                &trusted,
                "-verify_hostname",
                name,
            ];
            let said = s_client(&openssl, proxy.addr(), &args);
            assert!(said.contains(&format!("subject=CN = {name}")), "{said}");
            assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
            assert!(said.contains("200 "), "{said}");
        }
        let port = proxy.addr().port();
        let args = [
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--http2",
            "--cacert",
            &trusted,
            "--resolve",
            &format!("{name}:{port}:127.0.0.1"),
            &format!("https://{name}:{port}/"),
        ];
        let (status, said) = Tool::run(&curl, &args);
        assert!(status.success(), "{name}: {said}");
        if let Some(which) = name.strip_suffix(".nginx.test") {
            assert_eq!(said, format!("nginx {which} HTTP/2.0"));
        }
    }
}

#[test]
fn who_asks_for_no_name_goes_where_none_is_needed() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let ca = Ca::new();
    let here = ca.issue(&Wanted::server(&["localhost"]).subject("here"));
    let there = ca.issue(&Wanted::server(&["any.test"]).subject("there"));
    let origin = Origin::named("here");
    let through = Origin::build(|_| until_close("there"))
        .tls(server(&there, &[V13[0], V12[0]], None))
        .start();
    let all = upstreams(&[("app", origin.addr()), ("through", through.addr())]);
    let tls = listener_tls(&[&here], "");
    let named = "passthrough = { sni = \"*.test\", upstream = \"through\" }";
    let any = "passthrough = { upstream = \"through\" }";
    let http = "upstream = \"app\"";
    let cases = [
        (format!("{http}\n{tls}\n{any}"), "subject=CN = there"),
        (format!("{http}\n{tls}\n{named}"), "subject=CN = here"),
        (format!("{http}\n{named}"), "SSL alert number 112"),
        (
            format!("protocol = \"tcp\"\n{named}"),
            "SSL alert number 112",
        ),
    ];
    for (listener, wanted) in cases {
        let proxy = Watched::start(&listener, &all);
        for args in [
            &["-noservername"][..],
            &["-noservername", "-tls1_2"],
            &["-servername", "127.0.0.1"],
        ] {
            let said = s_client(&openssl, proxy.addr(), args);
            assert!(said.contains(wanted), "{listener}\n{said}");
        }
        if wanted.contains("alert") {
            let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"misdirected\"}";
            proxy.await_metric(refused, 3.0);
        }
    }
}

/// The reset for what is not read would take the alert along, or come in its place.
#[test]
fn a_name_that_nobody_has_is_told_so_however_much_comes_with_it() {
    let ca = Ca::new();
    let endpoint = Endpoint::new();
    let proxy = Watched::start(
        "protocol = \"tcp\"\npassthrough = { sni = \"a.test\", upstream = \"a\" }",
        &upstreams(&[("a", endpoint.addr())]),
    );
    let mut client = End::connect(proxy.addr());
    let mut bytes = Offer::trusting(&ca).hello("b.test");
    bytes.resize(bytes.len() + 200_000, b'x');
    client.send(&bytes);
    assert_eq!(client.next(), alert(112));
    client.send("more");
    assert_eq!(client.next(), Came::End);
    let line = proxy.expect_recorded(Reason::Misdirected, None);
    assert_eq!(line["host"], "b.test", "{line}");
    assert!(endpoint.is_quiet());
}

#[test]
fn an_encrypted_hello_goes_by_its_outer_name() {
    let ca = Ca::new();
    let through = secured(&ca, "outer.test", None);
    let proxy = Watched::start(
        "protocol = \"tcp\"\npassthrough = { sni = \"outer.test\", upstream = \"through\" }",
        &upstreams(&[("through", through.addr())]),
    );
    let offer = Offer::with_grease(&ca);
    let extension = [0xfe, 0x0d];
    assert!(
        offer
            .hello("outer.test")
            .windows(2)
            .any(|pair| pair == extension)
    );
    let mut client = Client::secure(proxy.addr(), &offer, "outer.test");
    assert_eq!(client.request("GET", "/").text(), "outer.test");
    drop(client);
    let line = &proxy.log(1)[0];
    assert_eq!(line["host"], "outer.test", "{line}");
}
