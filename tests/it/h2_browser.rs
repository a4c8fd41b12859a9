//! A browser over HTTP/2: a page with what belongs to it, and a WebSocket on the same connection.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::support::binary::Binary;
use crate::support::gate::Gate;
use crate::support::h2::Identity;
use crate::support::watched::Watched;
use crate::support::wire::Wire;
use crate::support::{deadline, need};

/// The picture comes last: when the script has had its echo and said so. Only then has the page loaded,
/// which is when the browser prints it.
const PAGE: &str = "<!doctype html><html><body><p id=said>nothing</p>\
    <img src='/last.svg'><script src='/page.js'></script></body></html>";
const SCRIPT: &str = "const ws = new WebSocket(`wss://${location.host}/ws`);\n\
    ws.onopen = () => ws.send('echo of the page');\n\
    ws.onerror = () => document.getElementById('said').textContent = 'error';\n\
    ws.onmessage = (event) => {\n\
      document.getElementById('said').textContent = 'heard ' + event.data;\n\
      fetch('/heard');\n\
    };\n";
const PICTURE: &str = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>";

/// The site: each connection on a thread of its own.
fn site() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let heard = Gate::new();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let heard = heard.clone();
            std::thread::spawn(move || serve(Wire::new(stream), &heard));
        }
    });
    addr
}

fn serve(mut wire: Wire, heard: &Gate) {
    while let Ok(head) = wire.head(deadline()) {
        let (kind, body) = match head.target() {
            "/" => ("text/html", PAGE),
            "/page.js" => ("text/javascript", SCRIPT),
            "/last.svg" => {
                heard.pass();
                ("image/svg+xml", PICTURE)
            }
            "/heard" => {
                heard.open();
                ("text/plain", "")
            }
            "/ws" => return echo(wire, head.field("sec-websocket-key").unwrap()),
            _ => ("text/plain", ""),
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if wire.send(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// One WebSocket whose messages are small (RFC 6455 section 5.2).
fn echo(mut wire: Wire, key: &str) {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let accept = data_encoding::BASE64.encode(accept.as_ref());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let mut out = head.into_bytes();
    while wire.send(&out).is_ok() {
        let Ok(front) = wire.exactly(6, deadline()) else {
            return;
        };
        let length = usize::from(front[1] & 127);
        assert!(length < 126, "a small message");
        let Ok(masked) = wire.exactly(length, deadline()) else {
            return;
        };
        out = vec![front[0], length as u8];
        let mask = front[2..6].iter().cycle();
        out.extend(masked.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    }
}

#[test]
fn chromium_loads_a_page_and_opens_a_websocket() {
    let Some(chromium) = need("chromium") else {
        return;
    };
    let identity = Identity::new();
    let proxy = Watched::over(site(), &identity.listener(), "");
    let folder = tempfile::tempdir().unwrap();
    let profile = format!("--user-data-dir={}", folder.path().display());
    let url = format!("https://localhost:{}/", proxy.addr().port());
    let mut browser = Binary::spawn_at(
        &chromium,
        &[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
            &profile,
            "--dump-dom",
            &url,
        ],
        folder,
    );
    assert!(browser.wait().success());
    browser.await_line("heard echo of the page");
    // The socket is closed with the browser, which is when its line is written.
    let is_socket = |line: &serde_json::Value| line["status"] == 101;
    let log = proxy.await_log("the WebSocket", |lines| lines.iter().any(is_socket));
    for line in &log {
        assert_eq!(line["protocol"], "HTTP/2.0", "{line}");
    }
    for target in ["/", "/page.js", "/last.svg", "/ws", "/heard"] {
        assert!(
            log.iter().any(|l| l["target"] == target),
            "{target}: {log:#?}"
        );
    }
    proxy.await_metric("isobar_tunnels", 0.0);
}
