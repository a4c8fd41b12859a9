//! Plain connections: the test plays the client and the endpoint, and sees every end and reset.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::proxy::Proxy;
use super::{DEADLINE, deadline, remaining};

/// An endpoint that the test accepts for.
#[derive(Debug)]
pub struct Endpoint(TcpListener);

/// One end of a connection.
#[derive(Debug)]
pub struct End(pub TcpStream);

/// How a connection went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// These bytes.
    Bytes(Vec<u8>),
    /// FIN.
    End,
    /// RST.
    Reset,
}

// === impl Endpoint ===

impl Endpoint {
    pub fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection, within the deadline.
    #[track_caller]
    pub fn accept(&self) -> End {
        self.0.set_nonblocking(true).unwrap();
        let end = deadline();
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return End::new(stream);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let left = remaining(end, "a connection to the endpoint");
                    std::thread::park_timeout(left.min(Duration::from_millis(2)));
                }
                Err(e) => panic!("accept: {e}"),
            }
        }
    }

    /// One that waits to be accepted, if there is one.
    pub fn waiting(&self) -> Option<End> {
        self.0.set_nonblocking(true).unwrap();
        let (stream, _) = self.0.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        Some(End::new(stream))
    }

    /// Whether nobody waits to be accepted.
    pub fn is_quiet(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        matches!(self.0.accept(), Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// A client through the proxy, and its other end here.
    #[track_caller]
    pub fn join(&self, proxy: &Proxy) -> (End, End) {
        let client = End::connect(proxy.addr());
        (client, self.accept())
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::new()
    }
}

// === impl End ===

impl End {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    #[track_caller]
    pub fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).unwrap())
    }

    /// A client that is reset before it says anything: the connect itself may hear of it.
    #[track_caller]
    pub fn connect_to_be_reset(to: SocketAddr) {
        expect_reset(TcpStream::connect(to));
    }

    /// The same from an address of its own.
    #[track_caller]
    pub fn connect_from_to_be_reset(from: &str, to: SocketAddr) {
        expect_reset(connect_from(from, to));
    }

    /// A client with that address of its own.
    #[track_caller]
    pub fn connect_from(from: &str, to: SocketAddr) -> Self {
        Self::new(connect_from(from, to).unwrap())
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// What comes next.
    #[track_caller]
    pub fn next(&mut self) -> Came {
        let mut bytes = vec![0; 64 * 1024];
        match self.0.read(&mut bytes) {
            Ok(0) => Came::End,
            Ok(n) => Came::Bytes(bytes[..n].to_vec()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Came::Reset,
            Err(e) => panic!("nothing came: {e}"),
        }
    }

    /// Exactly so many bytes.
    #[track_caller]
    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// All until the end.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Ends our direction.
    pub fn end(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes it with a reset.
    pub fn reset(self) {
        let zero = Some(Duration::ZERO);
        SockRef::from(&self.0).set_linger(zero).unwrap();
    }

    /// Sends `bytes` there and reads them here: the connection stands.
    #[track_caller]
    pub fn talks_to(&mut self, other: &mut Self) {
        self.send("over");
        assert_eq!(other.exactly(4), b"over");
        other.send("back");
        assert_eq!(self.exactly(4), b"back");
    }
}

fn connect_from(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

#[track_caller]
fn expect_reset(connected: io::Result<TcpStream>) {
    match connected {
        Ok(stream) => assert_eq!(End::new(stream).next(), Came::Reset),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
    }
}

/// `[upstreams.NAME]` of one endpoint each.
pub fn upstreams(named: &[(&str, SocketAddr)]) -> String {
    let table = |(name, addr): &(&str, SocketAddr)| {
        format!("[upstreams.{name}]\nendpoints = [\"{addr}\"]\n\n")
    };
    named.iter().map(table).collect()
}
