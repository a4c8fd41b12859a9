//! A raw HTTP/1.1 client: sends the bytes a test says, reads what comes, with a deadline.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection};
use socket2::{Domain, Socket, Type};

use super::tls::Offer;
use super::wire::{Body, Broken, Head, Wire};
use super::{DEADLINE, deadline};

/// One connection.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

/// A final response with the 1xx before it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub informational: Vec<Head>,
    pub head: Head,
    pub body: Body,
}

// === impl Client ===

impl Client {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).unwrap_or_else(|e| panic!("connect to {addr}: {e}"))
    }

    /// Where the other side may rightly refuse, or reset before `connect` has returned.
    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
        Ok(Self {
            wire: Wire::new(stream),
        })
    }

    /// From a given source address: 127.0.0.2 is a client other than 127.0.0.1.
    #[track_caller]
    pub fn connect_from(local: IpAddr, addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
        socket
            .connect_timeout(&addr.into(), DEADLINE)
            .unwrap_or_else(|e| panic!("connect from {local} to {addr}: {e}"));
        Self {
            wire: Wire::new(socket.into()),
        }
    }

    /// One whose kernel takes little unread: a slow reader.
    #[track_caller]
    pub fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        // Before the handshake, which fixes the window's scale.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket
            .connect_timeout(&addr.into(), DEADLINE)
            .unwrap_or_else(|e| panic!("connect to {addr}: {e}"));
        Self {
            wire: Wire::new(socket.into()),
        }
    }

    /// Over TLS, to a server called so, the handshake done.
    #[track_caller]
    pub fn secure(addr: SocketAddr, offer: &Offer, name: &str) -> Self {
        Self::try_secure(addr, offer, name)
            .unwrap_or_else(|b| panic!("TLS with {addr} as {name}: {b:?}"))
    }

    /// The same where the two may rightly not agree. In TLS 1.3 a client is done before the server
    /// has seen its certificate.
    pub fn try_secure(addr: SocketAddr, offer: &Offer, name: &str) -> Result<Self, Broken> {
        let client = Self::connect(addr);
        client.into_secure(offer, name)
    }

    /// TLS on a connection that has said nothing yet.
    pub fn into_secure(self, offer: &Offer, name: &str) -> Result<Self, Broken> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(offer.config.clone(), name).unwrap();
        let stream = self.wire.stream().try_clone().unwrap();
        let mut wire = Wire::secured(stream, tls);
        wire.shake(deadline())?;
        Ok(Self { wire })
    }

    /// The session of a connection over TLS.
    #[track_caller]
    pub fn tls(&mut self) -> &mut Connection {
        self.wire.tls().expect("a connection over TLS")
    }

    /// New keys, of both ends (TLS 1.3); `false` = the other end has closed.
    pub fn try_new_keys(&mut self) -> bool {
        self.tls().refresh_traffic_keys().is_ok() && self.wire.flush().is_ok()
    }

    /// One connection, one request, its response.
    #[track_caller]
    pub fn get(addr: SocketAddr, target: &str) -> Response {
        Self::connect(addr).request("GET", target)
    }

    /// The value of one series of `/metrics` at `admin`, named with its labels as printed; 0 if absent.
    #[track_caller]
    pub fn metric(admin: SocketAddr, series: &str) -> f64 {
        let text = Self::get(admin, "/metrics").text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Sends a plain request with `Host: test` and reads its response; the connection stays.
    #[track_caller]
    pub fn request(&mut self, method: &str, target: &str) -> Response {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response_to(method)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire
            .send(bytes.as_ref())
            .unwrap_or_else(|e| panic!("send: {e}"));
    }

    /// Like `send`, where the other side may rightly have closed: `false` if it had.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes.as_ref()).is_ok()
    }

    /// In pieces, cut before each of the ascending positions `at`, each its own write (no Nagle).
    /// The kernel may still join them for a slow reader.
    #[track_caller]
    pub fn send_split(&mut self, bytes: impl AsRef<[u8]>, at: &[usize]) {
        let mut rest = bytes.as_ref();
        let mut done = 0;
        for &cut in at {
            let (piece, after) = rest.split_at((cut - done).min(rest.len()));
            self.send(piece);
            done += piece.len();
            rest = after;
        }
        self.send(rest);
    }

    #[track_caller]
    pub fn send_byte_by_byte(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// FIN; reading goes on.
    pub fn finish(&mut self) {
        self.wire.finish();
    }

    /// RST.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// The response to a request other than HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The next final response, with the 1xx before it; 101 is final.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        let end = deadline();
        let mut informational = Vec::new();
        loop {
            let head = self
                .wire
                .head(end)
                .unwrap_or_else(|b| panic!("awaiting a head: {b:?}"));
            if head.status() < 200 && head.status() != 101 {
                informational.push(head);
                continue;
            }
            let framing = head.response_framing(method);
            let body = self.wire.body(framing, end).unwrap_or_else(|b| {
                panic!("awaiting the body ({framing:?}) of {:?}: {b:?}", head.start)
            });
            return Response {
                informational,
                head,
                body,
            };
        }
    }

    /// Only the next head, a 1xx too; its body stays to be read.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        self.wire
            .head(deadline())
            .unwrap_or_else(|b| panic!("awaiting a head: {b:?}"))
    }

    /// `n` bytes as they are.
    #[track_caller]
    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        self.wire
            .exactly(n, deadline())
            .unwrap_or_else(|b| panic!("awaiting {n} bytes: {b:?}"))
    }

    /// All until FIN.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.wire
            .read_to_end(deadline())
            .unwrap_or_else(|b| panic!("awaiting the end: {b:?}"))
    }

    /// The connection ends, by FIN or RST, and nothing comes before.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        match self.wire.some(deadline()) {
            Err(Broken::Closed(_) | Broken::Reset) => {}
            Err(Broken::TimedOut) => panic!("still open after {DEADLINE:?}"),
            Err(other) => panic!("not the end of a connection: {other:?}"),
            Ok(bytes) => {
                panic!(
                    "bytes where the end was due: {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }

    /// The other side has ended: it says nothing more, whatever is sent to it.
    #[track_caller]
    pub fn expect_closed_after_sending(&mut self, bytes: &str) {
        self.try_send(bytes);
        self.finish();
        self.expect_closed();
    }

    /// How the connection ends, with what comes until then.
    #[track_caller]
    pub fn broken(&mut self) -> Broken {
        match self.wire.read_to_end(deadline()) {
            Ok(bytes) => Broken::Closed(bytes),
            Err(Broken::TimedOut) => panic!("still open after {DEADLINE:?}"),
            Err(other) => other,
        }
    }

    /// Whatever is there, at least one byte.
    pub fn some(&mut self) -> Result<Vec<u8>, Broken> {
        self.wire.some(deadline())
    }

    /// Whether the other end has closed, or does so within `time`.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        !matches!(
            self.wire.some(super::now() + time),
            Ok(_) | Err(Broken::TimedOut)
        )
    }

    /// All until the end, or how else it ends.
    pub fn broken_or_all(&mut self) -> Result<Vec<u8>, Broken> {
        self.wire.read_to_end(deadline())
    }

    /// The end in whatever way, with all that came before it.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.wire.some(deadline()) {
                Ok(more) => all.extend_from_slice(&more),
                Err(Broken::Closed(_) | Broken::Reset | Broken::Truncated(_) | Broken::Tls(_)) => {
                    return all;
                }
                Err(Broken::TimedOut) => panic!("still open after {DEADLINE:?}"),
            }
        }
    }

    /// Nothing comes within `time`: for what must NOT happen, so keep it short; it can only miss a
    /// fault, never invent one.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        match self.wire.some(super::now() + time) {
            Err(Broken::TimedOut) => {}
            other => panic!("expected silence, got {other:?}"),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.wire.stream().local_addr().unwrap()
    }

    pub fn stream(&self) -> &TcpStream {
        self.wire.stream()
    }
}

// === impl Response ===

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The only field of that name.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.data).into_owned()
    }
}
