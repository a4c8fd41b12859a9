//! The PROXY protocol with programs that others wrote: nginx and HAProxy are told by us, HAProxy and curl tell
//! us.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use crate::support::binary::free_port;
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::need;
use crate::support::openssl::Tool;
use crate::support::origin::{self, Origin};
use crate::support::proxy::Proxy;

/// One listener `web` over this endpoint; `listener` and `upstream` are further lines of theirs.
fn config(endpoint: SocketAddr, listener: &str, upstream: &str) -> String {
    format!(
        "[process]\nworkers = 1\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n{listener}\n\n\
         [upstreams.app]\nendpoints = [\"{endpoint}\"]\nconnect_timeout = \"20s\"\n{upstream}\n"
    )
}

const FROM: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"] }";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// nginx that takes headers, and answers with what it was told.
fn nginx(program: &Path, folder: &Path) -> (Tool, SocketAddr) {
    let addr = local(free_port());
    let dir = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr info;
         events {{ worker_connections 256; }}
         http {{
           access_log off;
           client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
           uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
           server {{ listen {addr} proxy_protocol;
             location / {{
               return 200 '$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port'; }} }} }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let (dir, file) = (dir.to_string(), file.to_string_lossy().into_owned());
    let tool = Tool::start(program, &["-e", "stderr", "-p", &dir, "-c", &file]);
    eventually("nginx listens", || TcpStream::connect(addr).is_ok());
    (tool, addr)
}

/// HAProxy with these sections, once it listens at `addr`.
fn haproxy(program: &Path, folder: &Path, addr: SocketAddr, sections: &str) -> Tool {
    let config = format!(
        "global\n  maxconn 100\n\ndefaults\n  mode http\n  timeout connect 20s\n  timeout client 30s\n  \
         timeout server 30s\n\n{sections}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let tool = Tool::start(program, &["-db", "-f", &file.to_string_lossy()]);
    eventually("HAProxy listens", || TcpStream::connect(addr).is_ok());
    tool
}

/// A section of HAProxy that takes headers at `addr`, and answers with what it was told.
fn taking(addr: SocketAddr) -> String {
    format!(
        "frontend taking\n  bind {addr} accept-proxy\n  http-request return status 200 content-type \
         text/plain lf-string \"%[src] %[src_port] %[dst_port] %[fc_pp_unique_id]\"\n\n"
    )
}

/// Who asks is whom `endpoint` is told of, whatever is spoken here; and it takes what checks say.
fn expect_told(endpoint: SocketAddr) {
    for listener in ["", "protocol = \"tcp\""] {
        for version in ["v1", "v2"] {
            let upstream = format!(
                "send_proxy_protocol = \"{version}\"\nhealth = {{ check = \"http\", interval = \"1s\", \
                 rise = 1, init_state = \"fully-down\" }}"
            );
            let proxy = Proxy::start(&config(endpoint, listener, &upstream));
            let up = format!("isobar_endpoint_healthy{{upstream=\"app\",endpoint=\"{endpoint}\"}}");
            eventually("a check passes", || proxy.metric(&up) == 1.0);
            let from = IpAddr::from([127, 0, 0, 9]);
            let mut client = Client::connect_from(from, proxy.addr());
            for _ in 0..2 {
                let told = client.request("GET", "/").text();
                let (ours, here) = (client.local_addr(), proxy.addr().port());
                let wanted = format!("{from} {} {here}", ours.port());
                assert_eq!(told.trim_end(), wanted, "{listener:?} {version}");
            }
        }
    }
}

#[test]
fn nginx_is_told() {
    let Some(program) = need("nginx") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (_nginx, addr) = nginx(&program, folder.path());
    expect_told(addr);
}

#[test]
fn haproxy_is_told() {
    let Some(program) = need("haproxy") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let addr = local(free_port());
    let _haproxy = haproxy(&program, folder.path(), addr, &taking(addr));
    expect_told(addr);
}

#[test]
fn haproxy_tells() {
    let Some(program) = need("haproxy") else {
        return;
    };
    for sends in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c",
    ] {
        let origin = Origin::always(origin::mirror());
        let proxy = Proxy::start(&config(origin.addr(), FROM, ""));
        let folder = tempfile::tempdir().unwrap();
        let front = local(free_port());
        let sections = format!(
            "listen front\n  bind {front}\n  server isobar {} {sends}\n",
            proxy.addr()
        );
        let _haproxy = haproxy(&program, folder.path(), front, &sections);
        let from = IpAddr::from([127, 0, 0, 9]);
        let response = Client::connect_from(from, front).request("GET", "/");
        assert_eq!(response.status(), 200, "{sends}");
        let request = origin.await_done(0);
        let told = request.head.field("x-forwarded-for");
        assert_eq!(told, Some("127.0.0.9"), "{sends}");
    }
}

#[test]
fn what_haproxy_tells_haproxy_is_told() {
    let Some(program) = need("haproxy") else {
        return;
    };
    for listener in ["", "protocol = \"tcp\""] {
        let (front, back) = (local(free_port()), local(free_port()));
        let upstream = "send_proxy_protocol = \"v2\"";
        let proxy = Proxy::start(&config(back, &format!("{listener}\n{FROM}"), upstream));
        let sections = format!(
            "{}frontend front\n  bind {front}\n  unique-id-format one-of-a-kind\n  default_backend \
             isobar\n\nbackend isobar\n  server isobar {} send-proxy-v2 proxy-v2-options \
             crc32c,unique-id\n",
            taking(back),
            proxy.addr()
        );
        let folder = tempfile::tempdir().unwrap();
        let _haproxy = haproxy(&program, folder.path(), front, &sections);
        let from = IpAddr::from([127, 0, 0, 9]);
        let mut client = Client::connect_from(from, front);
        let told = client.request("GET", "/").text();
        let (ours, there) = (client.local_addr(), front.port());
        assert_eq!(
            told.trim_end(),
            format!("{from} {} {there} one-of-a-kind", ours.port())
        );
    }
}

#[test]
fn curl_tells() {
    let Some(curl) = need("curl") else {
        return;
    };
    let origin = Origin::always(origin::mirror());
    for http2 in ["--http1.1", "--http2-prior-knowledge"] {
        let proxy = Proxy::start(&config(origin.addr(), FROM, ""));
        let url = format!("http://{}/", proxy.addr());
        let args = [
            "-sS",
            "--interface",
            "127.0.0.9",
            "--haproxy-protocol",
            http2,
            &url,
        ];
        let (status, said) = Tool::run(&curl, &args);
        assert!(status.success(), "{http2}: {said}");
        let said = said.to_lowercase();
        assert!(said.contains("x-forwarded-for: 127.0.0.9\r\n"), "{said}");
    }
}
