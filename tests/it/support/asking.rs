//! Clients that ask many proxies all the time, and retry nothing: who loses a request is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::Client;
use super::eventually::eventually;

/// Two clients of each proxy: one on a connection that it keeps, one on a new one for each request.
#[derive(Debug)]
pub struct Asking {
    clients: Vec<Asker>,
}

#[derive(Debug)]
struct Asker {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<String>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    answers: AtomicUsize,
}

/// A pause between two requests: the load is to be concurrent, not heavy, as others test too.
const PAUSE: Duration = Duration::from_millis(10);

// === impl Asking ===

impl Asking {
    pub fn start(proxies: &[SocketAddr]) -> Self {
        let clients = proxies.iter().flat_map(|&proxy| {
            [true, false].map(|is_kept| {
                let shared = Arc::new(Shared::default());
                let theirs = shared.clone();
                let thread = std::thread::spawn(move || ask(&theirs, proxy, is_kept));
                Asker { shared, thread }
            })
        });
        Self {
            clients: clients.collect(),
        }
    }

    /// Waits until every client has had so many more answers.
    #[track_caller]
    pub fn await_more(&self, answers: usize) {
        let had = |client: &Asker| client.shared.answers.load(Ordering::SeqCst);
        let wanted: Vec<usize> = self.clients.iter().map(|c| had(c) + answers).collect();
        eventually("more answers", || {
            let mut both = self.clients.iter().zip(&wanted);
            both.all(|(client, wanted)| had(client) >= *wanted || client.thread.is_finished())
        });
    }

    /// How many were answered, and all that was not as it should be.
    #[track_caller]
    pub fn end(self) -> (usize, Vec<String>) {
        for client in &self.clients {
            client.shared.is_over.store(true, Ordering::SeqCst);
        }
        let (mut answers, mut failures) = (0, Vec::new());
        for client in self.clients {
            failures.extend(client.thread.join().unwrap());
            answers += client.shared.answers.load(Ordering::SeqCst);
        }
        (answers, failures)
    }
}

fn ask(shared: &Shared, proxy: SocketAddr, is_kept: bool) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = None;
    while !shared.is_over.load(Ordering::SeqCst) {
        let mut client = match connection.take() {
            Some(client) => client,
            None => match Client::try_connect(proxy) {
                Ok(client) => client,
                Err(e) => {
                    failures.push(format!("{proxy}: {e}"));
                    break;
                }
            },
        };
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let response = client.response();
        if response.status() != 200 {
            failures.push(format!(
                "{proxy}: {} {}",
                response.status(),
                response.text()
            ));
        }
        shared.answers.fetch_add(1, Ordering::SeqCst);
        let is_open = response.field("connection") != Some("close");
        connection = (is_kept && is_open).then_some(client);
        std::thread::park_timeout(PAUSE);
    }
    failures
}
