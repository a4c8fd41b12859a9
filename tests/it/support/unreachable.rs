//! Endpoints that nobody answers at: one refuses, one never completes a handshake.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connections to `addr` are refused for as long as this lives: the port is bound, so nobody else
/// can take it, and nothing listens.
#[derive(Debug)]
pub struct Refusing {
    pub addr: SocketAddr,
    _socket: Socket,
}

/// Connections to `addr` hang in the handshake: the queue of a listener that accepts none is full.
#[derive(Debug)]
pub struct Blackhole {
    pub addr: SocketAddr,
    _socket: Socket,
    _queued: Vec<TcpStream>,
}

impl Refusing {
    pub fn new() -> Self {
        let (socket, addr) = bound();
        Self {
            addr,
            _socket: socket,
        }
    }
}

impl Blackhole {
    pub fn new() -> Self {
        let (socket, addr) = bound();
        socket.listen(0).unwrap();
        let mut queued = Vec::new();
        // A queue of length 0 still holds one or two; a SYN beyond it gets no answer. 200 ms is
        // what a handshake on loopback never takes, so one that long proves the queue full.
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            queued.push(stream);
            assert!(queued.len() < 64, "the queue of {addr} does not fill");
        }
        Self {
            addr,
            _socket: socket,
            _queued: queued,
        }
    }
}

fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn refusing_port_refuses() {
        let error = TcpStream::connect(Refusing::new().addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn blackhole_never_completes_a_handshake() {
        let hole = Blackhole::new();
        let error = TcpStream::connect_timeout(&hole.addr, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
