//! HTTP/1.1 as bytes on one socket: read a head, read a body by its framing, before a deadline.
//!
//! Deliberately not isobar's codec: a fault there must not hide itself here. It is lenient where a
//! test wants to see what was sent, and panics where it could only guess.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustls::Connection;

use super::DEADLINE;

/// A start line with its fields, and the exact bytes they came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// As received, the empty line included.
    pub raw: Vec<u8>,
    /// Without the line's end.
    pub start: String,
    /// In order, names in their own case, values trimmed.
    pub fields: Vec<(String, String)>,
}

/// How the length of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// `Content-Length`, or none at all (0).
    Length(u64),
    /// All until the peer closes.
    UntilClose,
}

/// A body as it was framed and as it was meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The bytes on the wire: with chunk lines and trailers.
    pub raw: Vec<u8>,
    /// The content.
    pub data: Vec<u8>,
    /// Fields after the last chunk.
    pub trailers: Vec<(String, String)>,
}

/// Why a read brought nothing whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// FIN, over TLS close_notify; what had come until then is kept.
    Closed(Vec<u8>),
    /// RST.
    Reset,
    /// The time given is over.
    TimedOut,
    /// TLS failed, by an alert or before it; why.
    Tls(String),
    /// FIN without close_notify over TLS; what had come until then is kept.
    Truncated(Vec<u8>),
}

/// A socket with what was read too far.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    tls: Option<Box<Connection>>,
    buffer: Vec<u8>,
}

// === impl Wire ===

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream,
            tls: None,
            buffer: Vec::new(),
        }
    }

    /// Over TLS; the handshake follows.
    pub fn secured(stream: TcpStream, tls: impl Into<Connection>) -> Self {
        Self {
            tls: Some(Box::new(tls.into())),
            ..Self::new(stream)
        }
    }

    /// The handshake of a connection over TLS.
    pub fn shake(&mut self, end: Instant) -> Result<(), Broken> {
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            let mut early = Vec::new();
            self.read_tls(end, &mut early)?;
            self.buffer.extend(early);
        }
        // Its last words.
        self.flush().map_err(|_| Broken::Reset)
    }

    pub fn tls(&mut self) -> Option<&mut Connection> {
        self.tls.as_deref_mut()
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.stream.write_all(bytes);
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = tls.writer().write(rest)?;
            rest = &rest[n..];
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }

    /// What TLS itself has to say.
    pub fn flush(&mut self) -> std::io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }

    /// FIN: nothing more is sent, reading goes on.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // The peer may have gone already, which is as good.
        let _ = self.flush();
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// RST instead of FIN.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// A head, empty line included.
    pub fn head(&mut self, end: Instant) -> Result<Head, Broken> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Head::parse(self.take(at + 4)));
            }
            self.fill(end)?;
        }
    }

    /// A body; one cut off is `Broken`, with the content so far in `Closed`.
    pub fn body(&mut self, framing: Framing, end: Instant) -> Result<Body, Broken> {
        match framing {
            Framing::Length(n) => {
                let data = self.exactly(n as usize, end)?;
                Ok(Body {
                    raw: data.clone(),
                    data,
                    trailers: Vec::new(),
                })
            }
            Framing::UntilClose => {
                let data = self.read_to_end(end)?;
                Ok(Body {
                    raw: data.clone(),
                    data,
                    trailers: Vec::new(),
                })
            }
            Framing::Chunked => self.chunked(end),
        }
    }

    /// Everything until FIN.
    pub fn read_to_end(&mut self, end: Instant) -> Result<Vec<u8>, Broken> {
        loop {
            match self.fill(end) {
                Ok(()) => {}
                Err(Broken::Closed(all)) => return Ok(all),
                Err(other) => return Err(other),
            }
        }
    }

    /// `n` bytes.
    pub fn exactly(&mut self, n: usize, end: Instant) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < n {
            self.fill(end)?;
        }
        Ok(self.take(n))
    }

    /// Whatever is there, at least one byte.
    pub fn some(&mut self, end: Instant) -> Result<Vec<u8>, Broken> {
        if self.buffer.is_empty() {
            self.fill(end)?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    fn chunked(&mut self, end: Instant) -> Result<Body, Broken> {
        let mut body = Body::default();
        loop {
            let line = self.line(end).map_err(|b| b.after(&body.data))?;
            body.raw.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let digits = text.split([';', '\r']).next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16)
                .unwrap_or_else(|_| panic!("not a chunk's size: {text:?}"));
            if size == 0 {
                break;
            }
            let chunk = self
                .exactly(size + 2, end)
                .map_err(|b| b.after(&body.data))?;
            assert!(
                chunk.ends_with(b"\r\n"),
                "chunk without its line's end: {chunk:?}"
            );
            body.data.extend_from_slice(&chunk[..size]);
            body.raw.extend_from_slice(&chunk);
        }
        loop {
            let line = self.line(end).map_err(|b| b.after(&body.data))?;
            body.raw.extend_from_slice(&line);
            if line == b"\r\n" {
                return Ok(body);
            }
            body.trailers.push(field(&String::from_utf8_lossy(&line)));
        }
    }

    fn line(&mut self, end: Instant) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                return Ok(self.take(at + 2));
            }
            self.fill(end)?;
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(n);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn fill(&mut self, end: Instant) -> Result<(), Broken> {
        let mut more = Vec::new();
        let read = match self.tls {
            Some(_) => self.read_tls(end, &mut more),
            None => read(&mut self.stream, end, &mut more),
        };
        self.buffer.extend(more);
        match read {
            Ok(()) => Ok(()),
            Err(Broken::Closed(_)) => Err(Broken::Closed(std::mem::take(&mut self.buffer))),
            Err(Broken::Truncated(_)) => Err(Broken::Truncated(std::mem::take(&mut self.buffer))),
            Err(other) => Err(other),
        }
    }

    /// Some plaintext, or, in a handshake, a step of it.
    fn read_tls(&mut self, end: Instant, into: &mut Vec<u8>) -> Result<(), Broken> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let was_handshaking = tls.is_handshaking();
        let mut piece = vec![0; 64 * 1024];
        loop {
            match tls.reader().read(&mut piece) {
                Ok(0) => return Err(Broken::Closed(Vec::new())),
                Ok(n) => {
                    into.extend_from_slice(&piece[..n]);
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                    return Err(Broken::Truncated(Vec::new()));
                }
                Err(_) => return Err(Broken::Reset),
            }
            if was_handshaking && !tls.is_handshaking() {
                return Ok(());
            }
            while tls.wants_write() {
                tls.write_tls(&mut self.stream).map_err(|_| Broken::Reset)?;
            }
            let mut cipher = Vec::new();
            match read(&mut self.stream, end, &mut cipher) {
                // The session learns of the end, and says whether it may.
                Ok(()) | Err(Broken::Closed(_)) => {}
                Err(other) => return Err(other),
            }
            let mut rest = &*cipher;
            loop {
                let n = tls.read_tls(&mut rest).map_err(|_| Broken::Reset)?;
                if let Err(error) = tls.process_new_packets() {
                    let _ = tls.write_tls(&mut self.stream);
                    return Err(Broken::Tls(error.to_string()));
                }
                // It takes no more while it is full.
                while let Ok(n @ 1..) = tls.reader().read(&mut piece) {
                    into.extend_from_slice(&piece[..n]);
                }
                if rest.is_empty() || n == 0 {
                    break;
                }
            }
            if !into.is_empty() {
                return Ok(());
            }
            if cipher.is_empty() && tls.is_handshaking() {
                return Err(Broken::Truncated(Vec::new()));
            }
        }
    }
}

/// Whatever is there.
fn read(stream: &mut TcpStream, end: Instant, into: &mut Vec<u8>) -> Result<(), Broken> {
    // A socket's time limit of zero would mean none.
    let left = end
        .saturating_duration_since(super::now())
        .max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).unwrap();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Err(Broken::Closed(Vec::new())),
            Ok(n) => {
                into.extend_from_slice(&piece[..n]);
                return Ok(());
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Broken::TimedOut);
            }
            Err(_) => return Err(Broken::Reset),
        }
    }
}

// === impl Head ===

impl Head {
    pub fn parse(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter(|l| !l.is_empty()).map(field).collect();
        Self { raw, start, fields }
    }

    /// The first word of a request line.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The second word of a request line.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of a status line.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {:?}", self.start))
    }

    /// The value of the only field of that name; two are a fault of the test or of the proxy.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` is there more than once: {all:?}");
        all.first().copied()
    }

    /// Every value of that name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// RFC 9112 section 6.3 for a request.
    pub fn request_framing(&self) -> Framing {
        self.declared_framing().unwrap_or(Framing::Length(0))
    }

    /// RFC 9112 section 6.3 for the answer to `method`.
    pub fn response_framing(&self, method: &str) -> Framing {
        let status = self.status();
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::Length(0);
        }
        self.declared_framing().unwrap_or(Framing::UntilClose)
    }

    fn declared_framing(&self) -> Option<Framing> {
        if self
            .all("transfer-encoding")
            .iter()
            .any(|v| v.eq_ignore_ascii_case("chunked"))
        {
            return Some(Framing::Chunked);
        }
        let length = self.all("content-length").first()?.parse();
        Some(Framing::Length(
            length.expect("a Content-Length that is a number"),
        ))
    }
}

// === impl Broken ===

impl Broken {
    /// With what had been decoded before.
    fn after(self, data: &[u8]) -> Self {
        match self {
            Self::Closed(rest) => Self::Closed([data, &rest].concat()),
            Self::Truncated(rest) => Self::Truncated([data, &rest].concat()),
            Self::Reset | Self::TimedOut | Self::Tls(_) => self,
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
