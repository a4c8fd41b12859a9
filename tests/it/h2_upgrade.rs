//! Replacing the binary under clients of HTTP/2: no request is lost.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use h2::Reason;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::binary::{Binary, free_port};
use crate::support::eventually::eventually;
use crate::support::h2::{H2Client, read, request, run, spawn, within};
use crate::support::h2_origin::H2Origin;

/// What the program left behind.
struct Successors<'b>(&'b Binary);

impl Successors<'_> {
    fn pids(&self) -> Vec<Pid> {
        let output = self.0.output();
        let lines = output.lines().filter(|l| l.contains("successor serves"));
        lines
            .filter_map(|line| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok())
            .filter_map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Successors<'_> {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Asks one request after the other until told to stop, on a new connection whenever the old one says
/// that it takes no more. Every request that was sent must be answered.
async fn ask_on(web: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let client = H2Client::connect(web).await;
        while !stop.load(Ordering::Relaxed) {
            let asked = request("POST", "/").body(()).unwrap();
            let answer = match client.open(asked, true).await {
                Ok((response, _send)) => within("a response", response).await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(response) => {
                    let answer = read(response).await.unwrap();
                    assert_eq!(
                        (answer.status.as_u16(), answer.text().as_str()),
                        (200, "one")
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Err(error) => error,
            };
            // RFC 9113 section 6.8: what is above the last stream that was named was not touched.
            assert!(error.is_go_away(), "{error:?}");
            assert_eq!(error.reason(), Some(Reason::NO_ERROR), "{error:?}");
            break;
        }
    }
}

#[test]
fn clients_of_http2_lose_nothing() {
    let origin = H2Origin::named("one");
    let web = free_port();
    let isobar = Binary::start(&format!(
        "[process]\nworkers = 2\ngrace = '20s'\n[listeners.web]\nbind = '127.0.0.1:{web}'\n\
         upstream = 'app'\n[upstreams.app]\nendpoints = ['{}']\nprotocol = 'h2'\n",
        origin.addr()
    ));
    isobar.await_line("try: curl");
    let successors = Successors(&isobar);
    let web = SocketAddr::from(([127, 0, 0, 1], web));
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    run(async {
        let clients: Vec<_> = (0..8)
            .map(|_| spawn(ask_on(web, stop.clone(), answered.clone())))
            .collect();
        let more = || {
            let before = answered.load(Ordering::Relaxed);
            eventually("requests go on", || {
                answered.load(Ordering::Relaxed) > before + 50
            });
        };
        more();
        isobar.signal(Signal::USR2);
        eventually("a successor that serves", || successors.pids().len() == 1);
        more();
        kill_process(successors.pids()[0], Signal::USR2).unwrap();
        eventually("another successor that serves", || {
            successors.pids().len() == 2
        });
        more();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
    });
}
