//! A way between peers that a test closes: what comes for a peer at the relay's address goes on to it, or is lost.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In front of one peer, for UDP and TCP at one port. What that peer sends goes by the relays of the others.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    is_udp_open: AtomicBool,
    is_tcp_open: AtomicBool,
    is_over: AtomicBool,
}

// === impl Relay ===

impl Relay {
    /// An open one to the peer that listens at `to`.
    #[track_caller]
    pub fn to(to: SocketAddr) -> Self {
        let (udp, tcp) = both();
        let addr = udp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            is_udp_open: AtomicBool::new(true),
            is_tcp_open: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
        });
        let of_udp = shared.clone();
        std::thread::spawn(move || of_udp.datagrams(&udp));
        let of_tcp = shared.clone();
        std::thread::spawn(move || of_tcp.streams(&tcp));
        Self { addr, shared }
    }

    /// Where the others are to reach that peer.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether datagrams pass from now on, and new streams.
    pub fn open(&self, udp: bool, tcp: bool) {
        self.shared.is_udp_open.store(udp, Ordering::SeqCst);
        self.shared.is_tcp_open.store(tcp, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // It waits for somebody to come.
        let _ = TcpStream::connect(self.addr);
    }
}

// === impl Shared ===

impl Shared {
    fn datagrams(&self, udp: &UdpSocket) {
        udp.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut buffer = [0; 2048];
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok((n, _)) = udp.recv_from(&mut buffer) else {
                continue;
            };
            if self.is_udp_open.load(Ordering::SeqCst) {
                // UDP may lose it.
                let _ = udp.send_to(&buffer[..n], self.to);
            }
        }
    }

    fn streams(&self, tcp: &TcpListener) {
        for stream in tcp.incoming().map_while(Result::ok) {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            if !self.is_tcp_open.load(Ordering::SeqCst) {
                continue;
            }
            let Ok(onward) = TcpStream::connect(self.to) else {
                continue;
            };
            let back = (onward.try_clone().unwrap(), stream.try_clone().unwrap());
            std::thread::spawn(move || copy(stream, onward));
            std::thread::spawn(move || copy(back.0, back.1));
        }
    }
}

/// UDP and TCP at one port of loopback.
#[track_caller]
fn both() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for UDP and TCP");
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
