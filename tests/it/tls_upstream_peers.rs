//! TLS to real servers: `openssl s_server` and nginx.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::support::binary::free_port;
use crate::support::certs::{Ca, Wanted};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::need;
use crate::support::openssl::Tool;
use crate::support::proxy::Proxy;

/// nginx over TLS that answers with the version of HTTP it was asked by, and who asked.
fn nginx(program: &Path, ca: &Ca, more: &str) -> (Tool, SocketAddr) {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let own = ca.server();
    let dir = ca.folder().display();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr info;
         events {{ worker_connections 256; }}
         http {{
           access_log off;
           client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
           uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
           server {{ listen {addr} ssl {more};
             location / {{
               return 200 '$server_protocol $connection $ssl_client_verify $ssl_session_reused'; }} }} }}",
        more = more.replace(
            "OWN",
            &format!(
                "ssl_certificate {}; ssl_certificate_key {}",
                own.cert.display(),
                own.key.display()
            )
        )
    );
    let file = ca.write("nginx.conf", config);
    let args = [
        "-e",
        "stderr",
        "-p",
        &dir.to_string(),
        "-c",
        &file.to_string_lossy(),
    ];
    let tool = Tool::start(program, &args);
    eventually("nginx listens", || TcpStream::connect(addr).is_ok());
    (tool, addr)
}

fn over(addr: SocketAddr, ca: &Ca, upstream: &str, tls: &str) -> Proxy {
    Proxy::over(
        &[addr],
        &format!(
            "{upstream}\nconnect_timeout = '20s'\ntls = {{ ca = '{}'{tls} }}",
            ca.file.display()
        ),
    )
}

#[test]
fn nginx_is_asked_by_the_protocol_that_was_agreed_on() {
    let Some(program) = need("nginx") else {
        return;
    };
    let ca = Ca::new();
    let (_both, both) = nginx(&program, &ca, "http2; OWN");
    let other = Ca::new();
    let (_one, one) = nginx(&program, &other, "; OWN");
    let cases = [
        (both, &ca, "", "HTTP/1.1"),
        (both, &ca, "protocol = 'auto'", "HTTP/2.0"),
        (both, &ca, "protocol = 'h2'", "HTTP/2.0"),
        (one, &other, "", "HTTP/1.1"),
        (one, &other, "protocol = 'auto'", "HTTP/1.1"),
    ];
    for (addr, ca, upstream, version) in cases {
        let proxy = over(addr, ca, upstream, "");
        let mut connections = Vec::new();
        for _ in 0..5 {
            let response = Client::get(proxy.addr(), "/");
            assert_eq!(response.status(), 200, "{upstream}: {}", response.text());
            let text = response.text();
            let mut words = text.split(' ');
            assert_eq!(words.next(), Some(version), "{upstream}");
            connections.push(words.next().unwrap().to_owned());
        }
        connections.dedup();
        assert_eq!(connections.len(), 1, "one connection for all");
    }
    // It does not speak HTTP/2, and nothing else is wanted.
    let proxy = over(one, &other, "protocol = 'h2'", "");
    let response = Client::get(proxy.addr(), "/");
    assert_eq!(response.status(), 502);
    assert_eq!(
        response.field("proxy-status"),
        Some("isobar; error=tls_protocol_error; details=\"endpoint_tls\"")
    );
}

#[test]
fn nginx_sees_our_certificate() {
    let Some(program) = need("nginx") else {
        return;
    };
    let (ca, clients) = (Ca::new(), Ca::named("clients"));
    let verify = format!(
        "; OWN; ssl_verify_client optional; ssl_client_certificate {}",
        clients.file.display()
    );
    let (_nginx, addr) = nginx(&program, &ca, &verify);
    let me = clients.issue(&Wanted::client("proxy"));
    let own = format!(
        ", cert = '{}', key = '{}'",
        me.cert.display(),
        me.key.display()
    );
    for (own, verified) in [(&*own, "SUCCESS"), ("", "NONE")] {
        let proxy = over(addr, &ca, "", own);
        let text = Client::get(proxy.addr(), "/").text();
        assert_eq!(text.split(' ').nth(2), Some(verified), "{text}");
    }
}

#[test]
fn new_connections_resume_their_sessions() {
    let Some(program) = need("nginx") else {
        return;
    };
    let ca = Ca::new();
    let (_nginx, addr) = nginx(&program, &ca, "; OWN; keepalive_timeout 0");
    let proxy = over(addr, &ca, "", "");
    let reused: Vec<bool> = (0..4)
        .map(|_| {
            let text = Client::get(proxy.addr(), "/").text();
            text.ends_with('r')
        })
        .collect();
    assert_eq!(reused, [false, true, true, true]);
}

#[test]
fn openssl_serves_in_each_version() {
    let Some(openssl) = need("openssl") else {
        return;
    };
    let ca = Ca::new();
    let own = ca.server();
    for version in ["-tls1_2", "-tls1_3"] {
        let port = free_port().to_string();
        let (cert, key) = (own.cert.to_string_lossy(), own.key.to_string_lossy());
        let args = [
            "s_server", "-accept", &*port, "-cert", &*cert, "-key", &*key, version, "-www",
        ];
        let server = Tool::start(&openssl, &args);
        server.await_text("ACCEPT");
        let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        let proxy = over(addr, &ca, "", "");
        for _ in 0..3 {
            // It ends its answer with the connection.
            let response = Client::get(proxy.addr(), "/");
            assert_eq!(response.status(), 200);
            let name = version.replace("-tls1_", "TLSv1.");
            assert!(response.text().contains(&name), "{}", response.text());
        }
    }
}
