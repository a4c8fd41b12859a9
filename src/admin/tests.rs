//! Real sockets, a raw client.

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::serve::serve_with;
use super::*;
use crate::telemetry::metrics::registry::Registry;

/// A hung test fails after this.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    addr: SocketAddr,
    state: AdminState,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Bed {
    fn new(header_timeout: Duration) -> Self {
        let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let registry = Arc::new(Registry::new(2));
        let state = AdminState {
            registry,
            readiness: Arc::default(),
        };
        let stop = CancellationToken::new();
        let serving = serve_with(listener, state.clone(), stop.clone(), header_timeout);
        let mut set = tokio::task::JoinSet::new();
        set.spawn(serving);
        let server =
            tokio::task::spawn_local(async move { set.join_next().await.unwrap().unwrap() });
        Self {
            addr,
            state,
            stop,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// One request on a connection of its own: status, head, body.
    async fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = read_to_end(&mut stream).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].parse().unwrap(),
            head.to_ascii_lowercase(),
            body.to_owned(),
        )
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text))
        .await
        .expect("in time")
        .unwrap();
    text
}

/// A current-thread runtime, as the control plane has.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn metrics_are_served_as_prometheus_wants_them() {
    run(async {
        let bed = Bed::new(PATIENCE);
        bed.state.registry.listener("web").worker(1).accepts.add(3);
        let (status, head, body) = bed.ask("GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(body.contains("\nisobar_listener_accepts_total{listener=\"web\"} 3\n"));
        let (status, head, body) = bed.ask("HEAD", "/metrics?x=1").await;
        assert_eq!((status, body.as_str()), (200, ""));
        assert!(head.contains("content-length: "), "{head}");
    });
}

#[test]
fn readiness_follows_the_state() {
    run(async {
        let bed = Bed::new(PATIENCE);
        let readyz = async || {
            let (status, _, body) = bed.ask("GET", "/readyz").await;
            (status, body)
        };
        assert_eq!(readyz().await, (503, "starting\n".to_owned()));
        bed.state
            .readiness
            .set(crate::runtime::readiness::Ready::Ready);
        assert_eq!(readyz().await, (200, "ready\n".to_owned()));
        bed.state
            .readiness
            .set(crate::runtime::readiness::Ready::Draining);
        assert_eq!(readyz().await, (503, "draining\n".to_owned()));
        assert_eq!(bed.ask("GET", "/livez").await.0, 200, "alive all the while");
    });
}

#[test]
fn everything_else_is_refused() {
    run(async {
        let bed = Bed::new(PATIENCE);
        assert!(bed.ask("GET", "/").await.2.contains("/metrics"));
        assert_eq!(bed.ask("GET", "/metrics/").await.0, 404);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let (status, head, _) = bed.ask(method, "/metrics").await;
            assert_eq!(status, 405);
            assert!(head.contains("allow: get, head"), "{head}");
        }
        let mut stream = bed.connect().await;
        stream
            .write_all(b"\x16\x03\x01 not http\r\n\r\n")
            .await
            .unwrap();
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400"));
    });
}

#[test]
fn connection_is_kept_alive_between_scrapes() {
    run(async {
        let bed = Bed::new(PATIENCE);
        let mut stream = bed.connect().await;
        for _ in 0..3 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut text = Vec::new();
            while !text.ends_with(b"\r\n\r\nok\n") {
                let n = timeout(PATIENCE, stream.read_buf(&mut text))
                    .await
                    .expect("in time");
                assert_ne!(n.unwrap(), 0, "closed");
            }
        }
    });
}

#[test]
fn silent_and_slow_clients_are_cut() {
    run(async {
        let bed = Bed::new(Duration::from_millis(50));
        let mut silent = bed.connect().await;
        let mut slow = bed.connect().await;
        slow.write_all(b"GET /livez HTTP/1.1\r\nhost:")
            .await
            .unwrap();
        let mut idle = bed.connect().await;
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(!read_to_end(&mut silent).await.contains("200"));
        assert!(!read_to_end(&mut slow).await.contains("200"));
        assert!(read_to_end(&mut idle).await.starts_with("HTTP/1.1 200"));
    });
}

/// Connections above the bound wait; when the silent ones are cut, their turn comes.
#[test]
fn connections_above_the_bound_wait_for_a_place() {
    run(async {
        let bed = Bed::new(Duration::from_millis(200));
        let mut silent = Vec::new();
        for _ in 0..64 {
            silent.push(bed.connect().await);
        }
        let (status, ..) = timeout(PATIENCE, bed.ask("GET", "/livez"))
            .await
            .expect("in time");
        assert_eq!(status, 200);
    });
}

#[test]
fn more_scrapes_at_once_than_allowed_are_shed_and_the_rest_answered() {
    run(async {
        let bed = Bed::new(PATIENCE);
        // A scrape waits for the registry's lock, which this test holds: all are in flight at once.
        let registry = Arc::clone(&bed.state.registry);
        registry.route("a");
        let (held, holding) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            registry.retain(|_| {
                held.send(()).unwrap();
                released.recv().unwrap();
                true
            });
        });
        holding.recv().unwrap();
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let mut stream = bed.connect().await;
            answers.spawn(async move {
                let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                read_to_end(&mut stream).await
            });
        }
        for _ in 0..3 {
            let shed = answers.join_next().await.unwrap().unwrap();
            assert!(shed.starts_with("HTTP/1.1 503"), "{shed}");
        }
        assert_eq!(
            bed.ask("GET", "/livez").await.0,
            200,
            "liveness does not wait for scrapes"
        );
        release.send(()).unwrap();
        holder.join().unwrap();
        while let Some(answer) = answers.join_next().await {
            assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
        }
    });
}

#[test]
fn stop_ends_it_and_frees_the_port() {
    run(async {
        let bed = Bed::new(PATIENCE);
        let mut idle = bed.connect().await;
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        bed.stop.cancel();
        timeout(PATIENCE, bed.server)
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        assert!(
            read_to_end(&mut idle).await.ends_with("ok\n"),
            "closed after its answer"
        );
        assert!(TcpStream::connect(bed.addr).await.is_err());
    });
}
