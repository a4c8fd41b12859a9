//! Where the system refuses splice(2), as filters of containers may, what is bulk is copied, and arrives.

use std::path::PathBuf;

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::origin::{self, Origin, pattern};
use crate::support::running::{Running, config};
use crate::support::tcp::{Came, End, Endpoint};
use crate::support::{need, not_run};

const NO_SPLICE: &str = include_str!("support/no_splice.py");

const SIZE: usize = 3_000_001;

/// What runs [`NO_SPLICE`]; `None` where it cannot refuse anything, after having said so.
fn refusing() -> Option<PathBuf> {
    let python = need("python3")?;
    let (status, said) = Tool::run(&python, &["-c", NO_SPLICE, "/bin/true"]);
    if !status.success() {
        not_run(&format!("no filters of system calls here: {}", said.trim()));
        return None;
    }
    Some(python)
}

/// Nothing was spliced, and so many bytes were copied.
#[track_caller]
fn expect_copied(running: &Running, bytes: usize) {
    let moved = |way: &str| running.metric(&format!("isobar_relayed_bytes_total{{way=\"{way}\"}}"));
    eventually("all bytes in the metrics", || {
        moved("copy") as usize == bytes
    });
    assert_eq!(moved("splice") as usize, 0);
}

#[test]
fn bodies_are_copied_where_splice_is_refused() {
    let Some(python) = refusing() else { return };
    let origin = Origin::start(|r| {
        if r.head.method() == "PUT" {
            origin::reply(200, "ok")
        } else {
            origin::filled(SIZE)
        }
    });
    let toml = format!(
        "[process]\nworkers = 1\n[admin]\nbind = 'ADMIN'\n[listeners.web]\nbind = 'WEB'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{}']\n",
        origin.addr()
    );
    let running = Running::start_by(&python, &["-c", NO_SPLICE], &toml);
    let mut client = Client::connect(running.web);
    for _ in 0..2 {
        assert!(client.request("GET", "/").body.data == pattern(0, SIZE));
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: {SIZE}\r\n\r\n"
        ));
        client.send(pattern(0, SIZE));
        assert_eq!(client.response().text(), "ok");
    }
    let puts = origin.requests();
    let mut puts = puts.iter().filter(|r| r.head.method() == "PUT");
    assert!(puts.all(|r| r.body.data == pattern(0, SIZE)));
    expect_copied(&running, 2 * (2 * SIZE + 2));
}

#[test]
fn flows_are_copied_where_splice_is_refused() {
    let Some(python) = refusing() else { return };
    let endpoint = Endpoint::new();
    let toml = config(endpoint.addr(), "", "");
    let running = Running::start_by(&python, &["-c", NO_SPLICE], &toml);
    let all = pattern(0, SIZE);
    for _ in 0..2 {
        let mut client = End::connect(running.web);
        let mut server = endpoint.accept();
        // Bulk in both directions at once, and again.
        for _ in 0..2 {
            let senders = [&client, &server].map(|end| End::new(end.0.try_clone().unwrap()));
            std::thread::scope(|scope| {
                for mut sender in senders {
                    let all = &all;
                    scope.spawn(move || sender.send(all));
                }
                let reading = scope.spawn(|| assert!(client.exactly(SIZE) == all));
                assert!(server.exactly(SIZE) == all);
                reading.join().unwrap();
            });
        }
        client.end();
        assert_eq!(server.next(), Came::End);
        server.end();
        assert_eq!(client.next(), Came::End);
    }
    expect_copied(&running, 2 * 4 * SIZE);
    eventually("their records", || running.flows("ok") == 2);
}
