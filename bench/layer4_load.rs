//! The load of the layer-4 jobs of `bench/compare.py`: what does a proxy cost that reads nothing?
//!
//! `layer4_load tcp|udp|connect PORT CLIENTS COUNT ANSWER_BYTES`, started by the script: clients, each
//! with one message of 64 bytes outstanding, send COUNT of them in all and wait for as many answers.
//! `tcp` keeps its connections, `connect` makes one for each message, `udp` has a socket, and so a
//! flow, a client. An answer of 64 bytes must be the message itself; longer ones are counted, not looked
//! at, and dropped in the kernel without a copy. One thread that waits by epoll itself, because it
//! shares a core with the endpoints, which must be faster than the proxies. Without arguments it
//! ends at once.

#![expect(clippy::print_stdout, reason = "its figures are its output")]
#![expect(clippy::disallowed_methods, reason = "a load reads the clock itself")]
#![expect(
    clippy::unwrap_used,
    reason = "the load of a bench: what cannot go on stops"
)]

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Of every request.
const MESSAGE_BYTES: usize = 64;

/// Of one read of a large answer: more than a socket ever holds.
const READ_BYTES: usize = 8 << 20;

/// So long without any answer, datagrams are sent again; longer than a proxy that shares its core with
/// a compiler is ever silent.
const LOST_AFTER: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// So many times in a row without any answer, and the run is over.
const SILENT: usize = 10;

/// So many connections that broke or were refused, and the run is over.
const ENOUGH: usize = 100;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Connect,
    Udp,
}

struct Load {
    kind: Kind,
    proxy: SocketAddr,
    answer_bytes: usize,
    count: usize,
    epoll: OwnedFd,
    clients: Vec<Client>,
    sent: usize,
    seen: Seen,
    /// Times in a row that nothing came.
    silent: usize,
    buffer: Vec<u8>,
}

struct Client {
    socket: Option<OwnedFd>,
    message: [u8; MESSAGE_BYTES],
    /// Bytes of the answer so far.
    got: usize,
    asked: Instant,
    is_waiting: bool,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    bytes: usize,
    connect: usize,
    broken: usize,
    lost: usize,
    /// An answer that is not the message.
    wrong: usize,
}

fn main() {
    // `cargo bench` and `cargo test --benches` hand over flags of theirs.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, port, clients, count, answer_bytes] = args.as_slice() else {
        return;
    };
    let kind = match kind.as_str() {
        "tcp" => Kind::Tcp,
        "connect" => Kind::Connect,
        "udp" => Kind::Udp,
        other => panic!("{other}: not tcp, connect or udp"),
    };
    let count = count.parse().unwrap();
    let mut load = Load {
        kind,
        proxy: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())),
        answer_bytes: answer_bytes.parse().unwrap(),
        count,
        epoll: epoll::create(CreateFlags::CLOEXEC).unwrap(),
        clients: Vec::new(),
        sent: 0,
        seen: Seen {
            latencies: Vec::with_capacity(count),
            ..Seen::default()
        },
        silent: 0,
        buffer: vec![0; READ_BYTES],
    };
    load.clients = (0..clients.parse::<usize>().unwrap().min(count))
        .map(|_| Client {
            socket: None,
            message: [b'.'; MESSAGE_BYTES],
            got: 0,
            asked: Instant::now(),
            is_waiting: false,
        })
        .collect();
    let begin = Instant::now();
    for i in 0..load.clients.len() {
        load.ask(i);
    }
    load.run();
    load.seen.print(begin.elapsed());
}

// === impl Load ===

impl Load {
    fn run(&mut self) {
        let mut events = Vec::with_capacity(1024);
        while self.seen.latencies.len() < self.count {
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, Some(&LOST_AFTER)) {
                Ok(0) => self.nothing_came(),
                Ok(_) => self.silent = 0,
                Err(Errno::INTR) => {}
                Err(e) => panic!("epoll: {e}"),
            }
            for event in events.drain(..) {
                self.ready(event.data.u64() as usize);
            }
            if self.seen.connect + self.seen.broken > ENOUGH {
                return;
            }
            if self.silent == SILENT {
                let waiting = self.clients.iter().filter(|c| c.is_waiting).count();
                self.seen.lost += waiting;
                return;
            }
        }
    }

    /// The next message of a client, unless all have been sent.
    fn ask(&mut self, i: usize) {
        if self.sent == self.count {
            return;
        }
        self.sent += 1;
        let client = &mut self.clients[i];
        // The number in front tells a late answer from the one that is waited for.
        client.message[..8].copy_from_slice(&(self.sent as u64).to_le_bytes());
        client.asked = Instant::now();
        client.got = 0;
        client.is_waiting = true;
        self.send(i);
    }

    fn send(&mut self, i: usize) {
        if self.clients[i].socket.is_none() && !self.connect(i) {
            return;
        }
        let client = &mut self.clients[i];
        let socket = client.socket.as_ref().expect("invariant: connected above");
        if send(socket, &client.message, SendFlags::NOSIGNAL).is_err() {
            self.broke(i);
        }
    }

    fn connect(&mut self, i: usize) -> bool {
        // Blocking, which on loopback it does not: the handshake is over when the call is.
        let socket: OwnedFd = if self.kind == Kind::Udp {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            socket.connect(self.proxy).unwrap();
            socket.into()
        } else if let Ok(socket) = TcpStream::connect(self.proxy) {
            socket.into()
        } else {
            self.seen.connect += 1;
            return false;
        };
        // Level-triggered: one read an answer, none that finds nothing.
        epoll::add(
            &self.epoll,
            &socket,
            EventData::new_u64(i as u64),
            EventFlags::IN,
        )
        .unwrap();
        self.clients[i].socket = Some(socket);
        true
    }

    fn ready(&mut self, i: usize) {
        let client = &mut self.clients[i];
        let Some(socket) = &client.socket else {
            return;
        };
        let left = self.answer_bytes - client.got;
        // With TRUNC, TCP drops what would be copied.
        let flags = if self.answer_bytes > MESSAGE_BYTES {
            RecvFlags::TRUNC | RecvFlags::DONTWAIT
        } else {
            RecvFlags::DONTWAIT
        };
        let n = match recv(socket, &mut self.buffer[..left.clamp(1, READ_BYTES)], flags) {
            Ok((_, n)) if n > 0 => n,
            Err(Errno::AGAIN) => return,
            Ok(_) | Err(_) => return self.broke(i),
        };
        self.seen.bytes += n;
        if self.answer_bytes == MESSAGE_BYTES
            && self.buffer[..n] != client.message[client.got..client.got + n]
        {
            // Of datagrams, the answer to one that was sent twice.
            self.seen.wrong += usize::from(self.kind != Kind::Udp);
            return;
        }
        client.got += n;
        if client.got < self.answer_bytes {
            return;
        }
        client.is_waiting = false;
        self.seen.latencies.push(client.asked.elapsed());
        if self.kind == Kind::Connect {
            client.socket = None;
        }
        self.ask(i);
    }

    /// A connection that ended, or nobody there for a datagram: counted, and asked again.
    fn broke(&mut self, i: usize) {
        self.seen.broken += 1;
        self.clients[i].socket = None;
        self.clients[i].got = 0;
        if self.seen.broken <= ENOUGH && self.clients[i].is_waiting {
            self.send(i);
        }
    }

    /// Datagrams are lost, and connections that were refused made anew; a stream only waits.
    fn nothing_came(&mut self) {
        self.silent += 1;
        for i in 0..self.clients.len() {
            let client = &self.clients[i];
            if !client.is_waiting {
                continue;
            }
            if self.kind == Kind::Udp {
                self.seen.lost += 1;
                self.send(i);
            } else if client.socket.is_none() {
                self.send(i);
            }
        }
    }
}

// === impl Seen ===

impl Seen {
    fn print(mut self, took: Duration) {
        self.latencies.sort_unstable();
        let at = |share: usize| {
            let latency = self.latencies.get(self.latencies.len() * share / 100);
            latency.map_or(0, Duration::as_micros)
        };
        println!(
            "JSON {{\"requests\": {}, \"bytes\": {}, \"duration_us\": {}, \"p50_us\": {}, \
             \"p99_us\": {}, \"connect\": {}, \"broken\": {}, \"lost\": {}, \"wrong\": {}}}",
            self.latencies.len(),
            self.bytes,
            took.as_micros(),
            at(50),
            at(99),
            self.connect,
            self.broken,
            self.lost,
            self.wrong,
        );
    }
}
