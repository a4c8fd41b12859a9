//! Endpoints and clients of UDP.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::DEADLINE;

/// An endpoint on a thread of its own: says its name, or what the test's function makes of a datagram.
#[derive(Debug)]
pub struct UdpOrigin {
    addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Datagrams that came: from where, and what.
type Seen = Vec<(SocketAddr, Vec<u8>)>;

/// A client with a port of its own.
#[derive(Debug)]
pub struct UdpClient {
    pub socket: UdpSocket,
    proxy: SocketAddr,
}

/// How often an endpoint looks whether it is over, and a client whether it should ask again.
const LOOK: Duration = Duration::from_millis(20);

// === impl UdpOrigin ===

impl UdpOrigin {
    /// Answers each datagram with `name`, a colon and the datagram.
    #[track_caller]
    pub fn named(name: &'static str) -> Self {
        Self::start(move |data| vec![[name.as_bytes(), b":", data].concat()])
    }

    /// Answers each datagram with those that `answers` makes of it.
    #[track_caller]
    pub fn start(answers: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answers)
    }

    /// The same at this address.
    #[track_caller]
    pub fn at(
        addr: SocketAddr,
        mut answers: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(addr).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let addr = socket.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (noted, over) = (seen.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !over.load(Ordering::Relaxed) {
                // A time-out; or a client that has gone (ICMP).
                let Ok((n, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                noted.lock().unwrap().push((from, buffer[..n].to_vec()));
                for answer in answers(&buffer[..n]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            addr,
            seen,
            is_over,
            thread: Some(thread),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All datagrams so far: from where, and what.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Where the datagrams came from, each once.
    pub fn senders(&self) -> Vec<SocketAddr> {
        let mut senders: Vec<_> = self.seen().into_iter().map(|(from, _)| from).collect();
        senders.sort_unstable();
        senders.dedup();
        senders
    }
}

impl Drop for UdpOrigin {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl UdpClient ===

impl UdpClient {
    /// A client of `proxy`, at the loopback address of its family.
    #[track_caller]
    pub fn new(proxy: SocketAddr) -> Self {
        let own = if proxy.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        Self::at(own.parse().unwrap(), proxy)
    }

    /// So many of them, all at once: the port of one that has gone may be the next one's, and both are one
    /// flow then (one run in a hundred of 40 clients, each gone before the next).
    #[track_caller]
    pub fn many(clients: usize, proxy: SocketAddr) -> Vec<Self> {
        (0..clients).map(|_| Self::new(proxy)).collect()
    }

    /// The same as `new`, at this address.
    #[track_caller]
    pub fn at(own: SocketAddr, proxy: SocketAddr) -> Self {
        let socket = UdpSocket::bind(own).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, proxy }
    }

    #[track_caller]
    pub fn send(&self, data: impl AsRef<[u8]>) {
        self.socket.send_to(data.as_ref(), self.proxy).unwrap();
    }

    /// The next answer, as text.
    #[track_caller]
    pub fn receive(&self) -> String {
        String::from_utf8(self.receive_from().0).unwrap()
    }

    /// The next answer, and where it came from.
    #[track_caller]
    pub fn receive_from(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 70_000];
        let (n, from) = self.socket.recv_from(&mut buffer).unwrap();
        buffer.truncate(n);
        (buffer, from)
    }

    /// What is answered to `data`.
    #[track_caller]
    pub fn ask(&self, data: &str) -> String {
        self.send(data);
        self.receive()
    }

    /// An answer that is there already, or comes within a moment.
    #[track_caller]
    pub fn receive_soon(&self) -> Option<String> {
        self.socket.set_read_timeout(Some(LOOK)).unwrap();
        let mut buffer = vec![0; 70_000];
        let answer = match self.socket.recv(&mut buffer) {
            Ok(n) => Some(String::from_utf8(buffer[..n].to_vec()).unwrap()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("{e}"),
        };
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        answer
    }

    /// Asks until there is an answer, as clients of UDP do.
    #[track_caller]
    pub fn ask_until_answered(&self, data: &str) -> String {
        let mut answer = None;
        super::eventually::eventually("an answer", || {
            self.send(data);
            answer = self.receive_soon();
            answer.is_some()
        });
        answer.unwrap()
    }
}
