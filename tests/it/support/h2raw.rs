//! A raw HTTP/2 client: sends the frames a test says, valid or not, and keeps what comes.
//!
//! Deliberately without the `h2` crate and isobar's own machine: neither must decide what a client can do.
//! It tells the server that its header table is empty (RFC 7541 section 4.2), so that a status can be
//! read without the state of a decoder.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{DEADLINE, deadline, now, remaining};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113 section 6.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

// RFC 9113 section 7.
pub const NO_ERROR: u32 = 0x0;
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const FLOW_CONTROL_ERROR: u32 = 0x3;
pub const STREAM_CLOSED: u32 = 0x5;
pub const FRAME_SIZE_ERROR: u32 = 0x6;
pub const REFUSED_STREAM: u32 = 0x7;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// One connection.
#[derive(Debug)]
pub struct H2 {
    io: Box<dyn Io>,
    /// Another handle of the same socket: for its time limits.
    socket: TcpStream,
    buffer: Vec<u8>,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    /// The code of the last GOAWAY.
    pub goaway: Option<u32>,
    /// FIN or RST has come.
    pub is_closed: bool,
    /// SETTINGS have come.
    pub has_settings: bool,
    /// Whether DATA is answered by WINDOW_UPDATE.
    pub opens_windows: bool,
    /// Whether SETTINGS and PING are acknowledged.
    pub acknowledges: bool,
}

/// What came on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The final one.
    pub status: Option<u16>,
    pub body: Vec<u8>,
    pub is_ended: bool,
    /// The code of its RST_STREAM.
    pub reset: Option<u32>,
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

trait Io: Read + Write + std::fmt::Debug {}

impl<T: Read + Write + std::fmt::Debug> Io for T {}

// === frames ===

pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A whole block in one frame.
pub fn headers(stream: u32, flags: u8, block: impl AsRef<[u8]>) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, block)
}

/// A whole block in as many frames as it needs.
pub fn long_headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16 * 1024).peekable();
    let mut bytes = Vec::new();
    let (mut kind, mut flags) = (HEADERS, flags);
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= END_HEADERS;
        }
        bytes.extend(frame(kind, flags, stream, piece));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

pub fn data(stream: u32, flags: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in pairs {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, payload)
}

pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, [7; 8])
}

// === HPACK ===

/// Fields as literals without indexing, names and values as they are (RFC 7541 section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        literal(&mut bytes, 0x00, name.as_ref(), value.as_ref());
    }
    bytes
}

/// The pseudo-header fields of a GET.
pub fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[])
}

/// A request to `test` with these further fields.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "test"),
        (":path", path),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}

/// An entry of the dynamic table (section 6.2.1), then so many references to it (index 62): one byte
/// each for `name` and `value` again.
pub fn bomb(name: &str, value: &[u8], references: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    literal(&mut bytes, 0x40, name.as_bytes(), value);
    bytes.resize(bytes.len() + references, 0x80 | 0x3e);
    bytes
}

fn literal(bytes: &mut Vec<u8>, representation: u8, name: &[u8], value: &[u8]) {
    bytes.push(representation);
    for text in [name, value] {
        integer(bytes, text.len());
        bytes.extend_from_slice(text);
    }
}

/// Section 5.1 with a prefix of seven bits.
fn integer(bytes: &mut Vec<u8>, n: usize) {
    if n < 127 {
        return bytes.push(n as u8);
    }
    bytes.push(127);
    let mut rest = n - 127;
    while rest >= 128 {
        bytes.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The status in a block of a server that has no dynamic table; `None` = these are trailers.
fn status(block: &[u8]) -> Option<u16> {
    // Updates of the table's size, to 0, come first (section 6.3).
    let at = block.iter().position(|b| b & 0xe0 != 0x20)?;
    let block = &block[at..];
    // Appendix A: the static table.
    match *block.first()? {
        0x88 => return Some(200),
        0x89 => return Some(204),
        0x8a => return Some(206),
        0x8b => return Some(304),
        0x8c => return Some(400),
        0x8d => return Some(404),
        0x8e => return Some(500),
        // A literal whose name is that of entry 8 to 14.
        b if matches!(b & 0x0f, 8..=14) && matches!(b & 0xf0, 0x00 | 0x10 | 0x40) => {}
        _ => return None,
    }
    let length = *block.get(1)?;
    let text = block.get(2..2 + usize::from(length & 0x7f))?;
    let digits = match length & 0x80 {
        0 => String::from_utf8_lossy(text).into_owned(),
        _ => huffman_digits(text),
    };
    digits.parse().ok()
}

/// Appendix B, for digits only: three codes of five bits, seven of six.
fn huffman_digits(bytes: &[u8]) -> String {
    let mut bits = bytes
        .iter()
        .flat_map(|b| (0..8).rev().map(move |i| u32::from(b >> i & 1)));
    let mut digits = String::new();
    loop {
        let mut code = 0;
        for n in 1..=6 {
            let Some(bit) = bits.next() else {
                return digits;
            };
            code = code << 1 | bit;
            let digit = match (n, code) {
                (5, 0..=2) => code,
                (6, 25..=31) => code - 25 + 3,
                _ => continue,
            };
            digits.push_str(&digit.to_string());
            break;
        }
    }
}

// === impl H2 ===

impl H2 {
    /// In clear text, by prior knowledge.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, &[])
    }

    /// The same with further SETTINGS.
    #[track_caller]
    pub fn connect_with(addr: SocketAddr, more: &[(u16, u32)]) -> Self {
        let socket = tcp(addr);
        let io = Box::new(socket.try_clone().unwrap());
        Self::begin(io, socket, more)
    }

    /// Under TLS; `config` names `h2` as its protocol.
    #[track_caller]
    pub fn connect_tls(addr: SocketAddr, name: &'static str, config: ClientConfig) -> Self {
        let socket = tcp(addr);
        let name = ServerName::try_from(name).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut io = socket.try_clone().unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut io)
                .unwrap_or_else(|e| panic!("handshake: {e}"));
        }
        assert_eq!(tls.alpn_protocol(), Some(b"h2".as_slice()));
        Self::begin(Box::new(StreamOwned::new(tls, io)), socket, &[])
    }

    #[track_caller]
    fn begin(io: Box<dyn Io>, socket: TcpStream, more: &[(u16, u32)]) -> Self {
        let mut client = Self {
            io,
            socket,
            buffer: Vec::new(),
            next_stream: 1,
            streams: HashMap::new(),
            goaway: None,
            is_closed: false,
            has_settings: false,
            opens_windows: true,
            acknowledges: true,
        };
        // SETTINGS_HEADER_TABLE_SIZE 0.
        let pairs = [&[(1, 0)], more].concat();
        client.send([PREFACE, &settings(&pairs)].concat());
        client
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes), "the connection is closed");
    }

    /// Where the other side may rightly have closed: `false` if it had.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.io
            .write_all(bytes.as_ref())
            .and_then(|()| self.io.flush())
            .is_ok()
    }

    /// The next stream of this client's.
    pub fn stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends a GET and does not wait.
    #[track_caller]
    pub fn open(&mut self, path: &str) -> u32 {
        let stream = self.stream();
        self.send(headers(stream, END_STREAM, get(path)));
        stream
    }

    /// Sends a GET and waits for the answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Stream {
        let stream = self.open(path);
        self.answer(stream)
    }

    /// What has come on that stream.
    pub fn seen(&self, stream: u32) -> Stream {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Waits until that stream is over, by its end, a reset, or with the connection.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> Stream {
        self.read_until(&format!("the end of stream {stream}"), |client| {
            let seen = client.seen(stream);
            seen.is_ended || seen.reset.is_some()
        });
        self.seen(stream)
    }

    /// Waits until the connection is over; the code of its GOAWAY.
    #[track_caller]
    pub fn end(&mut self) -> Option<u32> {
        self.read_until("the end of the connection", |_| false);
        self.goaway
    }

    /// Reads until `done`, or the connection is over.
    #[track_caller]
    pub fn read_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = deadline();
        while !done(self) && !self.is_closed {
            self.frame(end, what);
        }
    }

    /// Takes in what comes within this time.
    #[track_caller]
    pub fn listen(&mut self, time: Duration) {
        let end = now() + time;
        while !self.is_closed && now() < end {
            match self.next_frame(end.saturating_duration_since(now())) {
                Ok(Some(frame)) => self.take(frame),
                Ok(None) => self.is_closed = true,
                Err(_) => {}
            }
        }
    }

    /// Takes in the next frame.
    #[track_caller]
    fn frame(&mut self, end: Instant, what: &str) {
        loop {
            match self.next_frame(remaining(end, what)) {
                Ok(Some(frame)) => return self.take(frame),
                Ok(None) => {
                    self.is_closed = true;
                    return;
                }
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        let stream = self.streams.entry(frame.stream).or_default();
        match frame.kind {
            DATA => {
                stream.body.extend_from_slice(&frame.payload);
                stream.is_ended |= frame.flags & END_STREAM != 0;
                let n = frame.payload.len() as u32;
                if self.opens_windows && n > 0 {
                    let both = [window_update(0, n), window_update(frame.stream, n)];
                    self.try_send(both.concat());
                }
            }
            HEADERS => {
                if let Some(status) = status(&frame.payload).filter(|s| *s >= 200) {
                    stream.status = Some(status);
                }
                stream.is_ended |= frame.flags & END_STREAM != 0;
            }
            RST_STREAM => stream.reset = Some(number(&frame.payload)),
            SETTINGS if frame.flags & ACK == 0 => {
                self.has_settings = true;
                if self.acknowledges {
                    self.try_send(self::frame(SETTINGS, ACK, 0, []));
                }
            }
            GOAWAY => self.goaway = Some(number(&frame.payload[4..])),
            PING if self.acknowledges && frame.flags & ACK == 0 => {
                self.try_send(self::frame(PING, ACK, 0, frame.payload));
            }
            _ => {}
        }
    }

    /// `None` = FIN or RST; an error = nothing for so long.
    fn next_frame(&mut self, wait: Duration) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some((header, rest)) = self.buffer.split_first_chunk::<9>() {
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                if rest.len() >= length {
                    let frame = Frame {
                        kind: header[3],
                        flags: header[4],
                        stream: number(&header[5..]) & (u32::MAX >> 1),
                        payload: rest[..length].to_vec(),
                    };
                    self.buffer.drain(..9 + length);
                    return Ok(Some(frame));
                }
            }
            let wait = wait.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            let mut piece = [0; 16 * 1024];
            match self.io.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
                    ) =>
                {
                    return Err(e);
                }
                Err(_) => return Ok(None),
            }
        }
    }
}

fn tcp(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&addr, DEADLINE)
        .unwrap_or_else(|e| panic!("connect to {addr}: {e}"));
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, appendices C.5.1 and C.6.1: "302", as it is and in Huffman's code.
    #[test]
    fn status_is_read_from_a_block() {
        assert_eq!(status(b"\x88\x00"), Some(200));
        assert_eq!(status(b"\x48\x03302\x58"), Some(302));
        assert_eq!(status(b"\x48\x82\x64\x02\x58"), Some(302));
        assert_eq!(status(b"\x20\x08\x03431"), Some(431));
        assert_eq!(status(b"\x00\x03foo\x03bar"), None);
    }

    /// Against the `h2` crate: what it sends is understood, what it answers is read.
    #[test]
    fn h2_understands_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let mut server = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = server.accept().await {
                    let status = request.uri().path()[1..].parse::<u16>().unwrap();
                    let head = http::Response::builder().status(status).body(()).unwrap();
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data(vec![b'x'; 100_000].into(), true).unwrap();
                }
            });
        });
        let mut client = H2::connect(addr);
        for status in [200, 404, 431, 502, 678, 999] {
            let answer = client.get(&format!("/{status}"));
            assert_eq!(answer.status, Some(status));
            assert_eq!(answer.body.len(), 100_000);
            assert!(answer.is_ended);
        }
        client.send(window_update(0, u32::MAX >> 1));
        assert_eq!(client.end(), Some(FLOW_CONTROL_ERROR));
        server.join().unwrap();
    }
}
