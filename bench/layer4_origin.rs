//! The endpoints of the layer-4 jobs of `bench/compare.py`: what does a proxy cost that reads nothing?
//!
//! `layer4_origin tcp|udp ANSWER_BYTES PORT…`, started by the script: each port of loopback answers
//! messages of 64 bytes, all on one thread. With answers of 64 bytes the message goes back as it came;
//! with more, every message is answered by so many bytes, which leave by sendfile(2) and are copied
//! nowhere. It waits by epoll itself, without a runtime, because it shares a core with the load.
//! Without ports it ends at once.

#![expect(
    clippy::unwrap_used,
    reason = "the endpoint of a bench: what cannot go on stops"
)]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

/// Of every request of the load.
const MESSAGE_BYTES: usize = 64;

/// Datagrams of one call: as many as there are flows, and some.
const BATCH: usize = 128;

fn main() {
    // `cargo bench` and `cargo test --benches` hand over flags of theirs, and no ports.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, answer_bytes, ports @ ..] = args.as_slice() else {
        return;
    };
    let ports = ports.iter().map(|p| p.parse().unwrap());
    match kind.as_str() {
        "tcp" => Streams::new(answer_bytes.parse().unwrap(), ports).serve(),
        "udp" => datagrams(ports.collect()),
        other => panic!("{other}: neither tcp nor udp"),
    }
}

// === tcp ===

/// Listeners and connections by descriptor, which is also what epoll knows them by.
struct Streams {
    epoll: OwnedFd,
    open: Vec<Option<Open>>,
    answer_bytes: u64,
    /// What answers are sent from.
    body: File,
}

enum Open {
    Listener(TcpListener),
    Connection { socket: OwnedFd, owed: u64 },
}

// === impl Streams ===

impl Streams {
    fn new(answer_bytes: u64, ports: impl Iterator<Item = u16>) -> Self {
        let mut body = File::from(memfd_create("body", MemfdFlags::CLOEXEC).unwrap());
        let pattern = b"isobar. ".iter().copied().cycle();
        let bytes: Vec<u8> = pattern.take(answer_bytes as usize).collect();
        body.write_all(&bytes).unwrap();
        let mut streams = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC).unwrap(),
            open: Vec::new(),
            answer_bytes,
            body,
        };
        for port in ports {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            // Connections have it from here; Nagle would hold back the end of a large answer.
            rustix::net::sockopt::set_tcp_nodelay(&listener, true).unwrap();
            listener.set_nonblocking(true).unwrap();
            streams.watch(
                listener.as_raw_fd(),
                EventFlags::IN,
                Open::Listener(listener),
            );
        }
        streams
    }

    fn watch(&mut self, fd: i32, flags: EventFlags, open: Open) {
        let fd = fd as usize;
        match &open {
            Open::Listener(l) => epoll::add(&self.epoll, l, EventData::new_u64(fd as u64), flags),
            Open::Connection { socket, .. } => {
                epoll::add(&self.epoll, socket, EventData::new_u64(fd as u64), flags)
            }
        }
        .unwrap();
        if self.open.len() <= fd {
            self.open.resize_with(fd + 1, || None);
        }
        self.open[fd] = Some(open);
    }

    fn serve(mut self) {
        let mut events = Vec::with_capacity(1024);
        loop {
            wait(&self.epoll, &mut events);
            for event in events.drain(..) {
                self.ready(event.data.u64() as usize);
            }
        }
    }

    fn ready(&mut self, fd: usize) {
        match &mut self.open[fd] {
            Some(Open::Listener(listener)) => {
                // One of them: level-triggered, so a call that finds none is saved.
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let Ok(socket) = accept_with(listener, flags) else {
                    return;
                };
                let flags = if self.answer_bytes == MESSAGE_BYTES as u64 {
                    EventFlags::IN
                } else {
                    EventFlags::IN | EventFlags::OUT | EventFlags::ET
                };
                self.watch(
                    socket.as_raw_fd(),
                    flags,
                    Open::Connection { socket, owed: 0 },
                );
            }
            Some(Open::Connection { socket, owed }) => {
                let goes_on = if self.answer_bytes == MESSAGE_BYTES as u64 {
                    echo(socket)
                } else {
                    answer(socket, owed, self.answer_bytes, &self.body)
                };
                if !goes_on {
                    // Closed, it is off the list of epoll too.
                    self.open[fd] = None;
                }
            }
            None => {}
        }
    }
}

/// One read, one write; level-triggered. False: the client is done.
fn echo(socket: &OwnedFd) -> bool {
    let mut buffer = [0; 16 * MESSAGE_BYTES];
    match recv(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((_, 0)) => false,
        Ok((_, n)) => send(socket, &buffer[..n], SendFlags::NOSIGNAL) == Ok(n),
        Err(e) => e == Errno::AGAIN,
    }
}

/// Takes messages and sends what is owed for them until the socket has no more; edge-triggered.
fn answer(socket: &OwnedFd, owed: &mut u64, answer_bytes: u64, body: &File) -> bool {
    loop {
        while *owed > 0 {
            let mut from = answer_bytes - *owed;
            match sendfile(socket, body, Some(&mut from), *owed as usize) {
                Ok(0) => return false,
                Ok(n) => *owed -= n as u64,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        // One message at a time: a client has one outstanding, and a half of one never comes alone.
        let mut message = [0; MESSAGE_BYTES];
        match recv(socket, &mut message[..], RecvFlags::empty()) {
            Ok((_, 0)) => return false,
            Ok(_) => *owed = answer_bytes,
            Err(e) => return e == Errno::AGAIN,
        }
    }
}

// === udp ===

/// All that have come by now in one call, and back in one more.
fn datagrams(ports: Vec<u16>) {
    let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let sockets: Vec<UdpSocket> = ports
        .into_iter()
        .map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap())
        .collect();
    for (i, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true).unwrap();
        epoll::add(&epoll, socket, EventData::new_u64(i as u64), EventFlags::IN).unwrap();
    }
    let mut buffers = vec![[0; 2048]; BATCH];
    let mut events = Vec::with_capacity(16);
    loop {
        wait(&epoll, &mut events);
        for event in events.drain(..) {
            echo_batch(&sockets[event.data.u64() as usize], &mut buffers);
        }
    }
}

fn echo_batch(socket: &UdpSocket, buffers: &mut [[u8; 2048]]) {
    let fd = socket.as_fd().as_raw_fd();
    let came: Vec<(usize, Option<SockaddrStorage>)> = {
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        match recvmmsg(fd, &mut headers, slices.iter_mut(), MsgFlags::empty(), None) {
            Ok(all) => all.map(|m| (m.bytes, m.address)).collect(),
            // Nothing there, or the answer to a datagram that found nobody.
            Err(_) => return,
        }
    };
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(came.len(), None);
    let slices: Vec<_> = came
        .iter()
        .zip(&*buffers)
        .map(|((n, _), b)| [IoSlice::new(&b[..*n])])
        .collect();
    let to: Vec<_> = came.iter().map(|(_, address)| *address).collect();
    // What does not fit is lost, as datagrams are; the load counts it.
    let _ = sendmmsg(fd, &mut headers, slices.iter(), to, [], MsgFlags::empty());
}

fn wait(epoll: &OwnedFd, events: &mut Vec<Event>) {
    match epoll::wait(epoll, rustix::buffer::spare_capacity(events), None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => panic!("epoll: {e}"),
    }
}
