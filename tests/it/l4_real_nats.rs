//! A real NATS server behind a listener of TCP, with a client that speaks its protocol: the server
//! speaks first, and a subscription outlives reloads.

use std::path::Path;

use tempfile::TempDir;

use crate::support;
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::proxy::Proxy;
use crate::support::tcp::End;

/// A client of the text protocol.
struct Nats(End);

impl Nats {
    #[track_caller]
    fn connect(proxy: &Proxy) -> Self {
        let mut client = Self(End::connect(proxy.addr()));
        let info = client.line();
        assert!(info.starts_with("INFO {"), "{info}");
        client.send("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        client.ping();
        client
    }

    #[track_caller]
    fn send(&mut self, text: &str) {
        self.0.send(text);
    }

    /// One line, byte by byte: nothing behind it is taken.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.0.exactly(1));
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// What was sent before has been heard. The server pings, too.
    #[track_caller]
    fn ping(&mut self) {
        self.send("PING\r\n");
        assert_eq!(self.next(), "PONG");
    }

    /// The next line that is no ping of the server.
    #[track_caller]
    fn next(&mut self) -> String {
        loop {
            match self.line().as_str() {
                "PING" => self.send("PONG\r\n"),
                line => return line.to_owned(),
            }
        }
    }
}

/// The address in the file that the server writes once it listens.
fn address_in(folder: &Path) -> Option<String> {
    let mut entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let file = entries.find(|e| e.path().extension().is_some_and(|e| e == "ports"))?;
    let ports: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file.path()).ok()?).ok()?;
    let url = ports["nats"][0].as_str()?;
    Some(url.strip_prefix("nats://")?.to_owned())
}

fn config(endpoint: &str, more: &str) -> String {
    format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream \
         = 'app'\n[upstreams.app]\nendpoints = ['{endpoint}']\n{more}\n"
    )
}

#[test]
fn a_subscription_outlives_reloads() {
    let Some(server) = support::need("nats-server") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    let args = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", &path];
    let _server = Tool::start(&server, &args);
    let mut endpoint = None;
    eventually("the server listens", || {
        endpoint = address_in(folder.path());
        endpoint.is_some()
    });
    let endpoint = endpoint.unwrap();
    let proxy = Proxy::start(&config(&endpoint, ""));
    let mut subscriber = Nats::connect(&proxy);
    subscriber.send("SUB news.* 7\r\n");
    subscriber.ping();
    for more in ["connect_timeout = '2s'", "balance = 'first'", ""] {
        proxy.reload(&config(&endpoint, more));
        let mut publisher = Nats::connect(&proxy);
        publisher.send("PUB news.today 5\r\nhello\r\n");
        publisher.ping();
        assert_eq!(subscriber.next(), "MSG news.today 7 5");
        assert_eq!(subscriber.next(), "hello");
    }
}
