//! Bytes over TLS: rustls decides and encrypts, the buffers are ours.
//!
//! rustls' unbuffered API works on memory that the caller gives it, so an idle connection holds none:
//! ciphertext is read into a buffer that the worker lends, decrypted there and given back once it is
//! empty; plaintext is encrypted into another one, which stays only while the kernel takes no more.
//! Both are large enough for several records, so that bulk data costs one system call per 64 KiB.
//!
//! What [`TlsStream::poll_write`] has taken is with the kernel when it says so: until then it answers
//! `Pending`, and the caller comes back with the same bytes (as OpenSSL's `SSL_write` wants it). So
//! nothing is ever left behind for a flush that nobody calls.

use std::fmt;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::io::ReadBuf;

use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ServerConfig};

use crate::base::buffer::{Buffer, BufferPool};
use crate::base::stream::Stream;

use super::gate::Gate;

/// A TLS connection over a socket.
pub struct TlsStream {
    socket: Stream,
    session: Session,
    memory: Memory,
    /// How many bytes of the caller's plaintext `outgoing` ends with; told once they are out.
    sealed: usize,
    /// The last read filled its buffer: more is coming.
    is_bulk: bool,
    /// The other end has said all that it will say.
    has_ended: bool,
    /// What it says is TLS.
    has_begun: bool,
    /// The session has failed. It must not be asked again, but for the alert that it has left to send:
    /// it would look for messages that it knows of in what has come.
    has_failed: bool,
    /// close_notify has gone out, or is about to.
    has_said_goodbye: bool,
}

/// What a connection has borrowed: most of the time nothing.
struct Memory {
    buffers: Rc<RecordBuffers>,
    /// Ciphertext that was read and is not decrypted yet: less than a record.
    incoming: Buffer,
    /// Plaintext for which the reader had no room.
    plain: Buffer,
    /// Ciphertext that the kernel has not taken yet.
    outgoing: Buffer,
}

enum Session {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// The buffers that one worker lends to its TLS connections.
#[derive(Debug)]
pub struct RecordBuffers {
    one: BufferPool,
    many: BufferPool,
}

/// What a step of the session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Both ends have closed their directions; from now on it is always this.
    Closed,
    /// There was plaintext.
    Plain,
    /// Something is to be sent.
    Encoded,
    /// Nothing, until there is more ciphertext.
    Starved,
    /// The same, and the handshake is behind us.
    Ready,
    /// The other end has closed its direction; said once.
    End,
}

/// A record: header, 16 KiB of plaintext, and what a cipher may add (RFC 8446 section 5.2: 256).
const RECORD: usize = 5 + PLAINTEXT + 256;

/// The content type of a record with which every connection begins (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// Most plaintext in a record (RFC 8446 section 5.1).
const PLAINTEXT: usize = 16 * 1024;

/// What our ciphers add to a record at most: header, explicit nonce of TLS 1.2, content type, tag.
const OVERHEAD: usize = 5 + 8 + 1 + 16;

/// Records in a larger buffer: one system call for 64 KiB; past it the data leave the L2 cache
/// between the cipher and the socket.
const MANY: usize = 4;

/// Larger buffers that may be lent at once, 8 MiB a worker: beyond, records go one by one.
const MANY_MAX: usize = 128;

/// Idle buffers kept of each size.
const KEEP: usize = 128;

/// A handshake message that spans records stays until it is whole; rustls bounds it at 64 KiB.
const HANDSHAKE_MAX: usize = 0xffff + 5 * 16 + RECORD;

// === impl RecordBuffers ===

impl RecordBuffers {
    fn take(&self, bytes: usize) -> Buffer {
        if bytes > PLAINTEXT && self.many.lent() < MANY_MAX {
            self.many.take()
        } else {
            self.one.take()
        }
    }

    fn put(&self, buffer: &mut Buffer) {
        let buffer = std::mem::replace(buffer, Buffer::none());
        if buffer.capacity() > RECORD {
            self.many.put(buffer);
        } else {
            self.one.put(buffer);
        }
    }

    /// Gives half of the idle ones back.
    pub fn shrink(&self) {
        self.one.shrink();
        self.many.shrink();
    }

    /// How many are lent.
    pub fn lent(&self) -> usize {
        self.one.lent() + self.many.lent()
    }

    /// How many lie idle.
    pub fn spare(&self) -> usize {
        self.one.spare() + self.many.spare()
    }
}

impl Default for RecordBuffers {
    fn default() -> Self {
        Self {
            one: BufferPool::new(RECORD, KEEP),
            many: BufferPool::new(MANY * RECORD, KEEP),
        }
    }
}

// === impl Session ===

impl Session {
    fn common(&self) -> &CommonState {
        match self {
            Self::Client(session) => session,
            Self::Server(session) => session,
        }
    }
}

// === impl TlsStream ===

impl TlsStream {
    /// The server's end of a connection that has just been accepted.
    ///
    /// # Errors
    /// The configuration cannot be served.
    pub fn server(
        socket: Stream,
        config: Arc<ServerConfig>,
        buffers: Rc<RecordBuffers>,
    ) -> Result<Self, Error> {
        let session = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(
            socket,
            Session::Server(Box::new(session)),
            buffers,
        ))
    }

    /// The client's end of a connection to a server that must be `name`.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn client(
        socket: Stream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        buffers: Rc<RecordBuffers>,
    ) -> Result<Self, Error> {
        let session = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(
            socket,
            Session::Client(Box::new(session)),
            buffers,
        ))
    }

    fn new(socket: Stream, session: Session, buffers: Rc<RecordBuffers>) -> Self {
        Self {
            socket,
            session,
            memory: Memory {
                buffers,
                incoming: Buffer::none(),
                plain: Buffer::none(),
                outgoing: Buffer::none(),
            },
            sealed: 0,
            is_bulk: false,
            has_ended: false,
            has_begun: false,
            has_failed: false,
            has_said_goodbye: false,
        }
    }

    /// Moves the handshake on; ready when it is done and all of it was sent. `gate` bounds what
    /// handshakes cost the worker in one turn.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>, gate: &Gate) -> Poll<io::Result<()>> {
        loop {
            // What does not begin as TLS is not answered as such, so that it can be in its own words.
            if matches!(self.session, Session::Server(_))
                && let Some(&first) = self.memory.incoming.filled().first()
                && !self.has_begun
            {
                if first != HANDSHAKE {
                    let error = Error::InvalidMessage(InvalidMessage::InvalidContentType);
                    return Poll::Ready(Err(broken(error)));
                }
                self.has_begun = true;
            }
            // A server has nothing to do before it is told something.
            if !self.memory.incoming.is_empty() || matches!(self.session, Session::Client(_)) {
                let entered = ready!(gate.poll_enter(cx));
                let stepped = self.settle(cx);
                drop(entered);
                if stepped? == Step::Ready && !self.session.common().is_handshaking() {
                    ready!(self.poll_flush(cx))?;
                    return Poll::Ready(Ok(()));
                }
                // What we say is on its way while the other end thinks.
                ready!(self.poll_flush(cx))?;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What a client has said that was not dealt with: all of it, if it was no TLS from the start.
    pub fn first_bytes(&self) -> &[u8] {
        self.memory.incoming.filled()
    }

    /// The socket of a client that speaks no TLS.
    pub fn into_socket(self) -> Stream {
        self.socket
    }

    /// What was agreed on.
    pub fn session(&self) -> &CommonState {
        self.session.common()
    }

    /// The other end's certificates, its own first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.common().peer_certificates()
    }

    /// The protocol agreed on by ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.common().alpn_protocol()
    }

    /// The socket below.
    pub fn socket(&self) -> &Stream {
        &self.socket
    }

    /// See [`Stream::poll_read`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        self.poll_read_into(cx, &mut Target::Buffer(into))
    }

    /// The same for libraries.
    pub fn poll_read_buf(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(self.poll_read_into(cx, &mut Target::Read(into)));
        Poll::Ready(read.map(|_| ()))
    }

    fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Target<'_, '_>,
    ) -> Poll<io::Result<usize>> {
        if into.room() == 0 {
            return Poll::Ready(Ok(0));
        }
        loop {
            if !self.memory.plain.is_empty() {
                let n = into.push(self.memory.plain.filled());
                self.memory.plain.consume(n);
                if self.memory.plain.is_empty() {
                    self.memory.buffers.put(&mut self.memory.plain);
                }
                return Poll::Ready(Ok(n));
            }
            let before = into.room();
            if !self.memory.incoming.is_empty() {
                // One record after the other, while there is room.
                while self.memory.plain.is_empty() {
                    match self.step(Some(into), None) {
                        Ok(Step::Plain | Step::Encoded) if !self.memory.incoming.is_empty() => {}
                        Ok(Step::Closed | Step::End) => {
                            self.has_ended = true;
                            break;
                        }
                        Ok(_) => break,
                        Err(error) => return Poll::Ready(Err(self.alert(cx, error))),
                    }
                }
                if self.memory.incoming.is_empty() {
                    self.memory.buffers.put(&mut self.memory.incoming);
                }
                // An answer of the protocol itself (a new key): if it cannot go now, it goes before
                // the next bytes that are written.
                if !self.memory.outgoing.is_empty()
                    && let Poll::Ready(Err(error)) = self.poll_flush(cx)
                {
                    return Poll::Ready(Err(error));
                }
            }
            if into.room() < before {
                return Poll::Ready(Ok(before - into.room()));
            }
            if self.has_ended {
                return Poll::Ready(Ok(0));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    self.has_ended = true;
                    // A client may just go, the framing of its request says whether it was whole. A
                    // server whose response ends with the connection must say that it does, or anyone
                    // on the way could cut it.
                    return Poll::Ready(match self.session {
                        Session::Server(_) => Ok(0),
                        Session::Client(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                    });
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The same, to be changed.
    pub fn socket_mut(&mut self) -> &mut Stream {
        &mut self.socket
    }

    /// See [`Stream::poll_readable`]: it may be a false alarm, because not all that TLS sends is data.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.memory.plain.is_empty() || self.has_ended {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_readable(cx)
    }

    /// Encrypts and writes `slices`, in their order; see the module about what `Pending` asks of the
    /// caller.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        if self.sealed == 0 {
            let total = slices.iter().map(|slice| slice.len()).sum();
            if total == 0 {
                return Poll::Ready(Ok(0));
            }
            self.memory.outgoing = self.memory.buffers.take(total);
            if let Err(error) = self.seal(slices) {
                self.memory.buffers.put(&mut self.memory.outgoing);
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(std::mem::take(&mut self.sealed)))
    }

    /// Says close_notify, and waits until the kernel has it. Ready too when it cannot be said any more.
    pub fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_said_goodbye && !self.session.common().is_handshaking() {
            if self.memory.outgoing.is_none() {
                self.memory.outgoing = self.memory.buffers.take(0);
            } else if ready!(self.poll_flush(cx)).is_err() {
                return Poll::Ready(());
            } else {
                self.memory.outgoing = self.memory.buffers.take(0);
            }
            self.has_said_goodbye = true;
            // Empty plaintext stands for the alert.
            while let Ok(Step::Plain | Step::Encoded | Step::End) = self.step(None, Some(&[])) {}
        }
        self.poll_flush(cx).map(|_| ())
    }

    /// Ends our direction: close_notify, then FIN, as far as the kernel takes them at once.
    pub fn shutdown_write(&mut self) {
        self.say_goodbye();
        self.socket.shutdown_write();
    }

    /// Says close_notify, if it can be said at once: without it the other end cannot tell an end from
    /// a cut.
    pub fn say_goodbye(&mut self) {
        if self.session.common().is_handshaking() || self.sealed > 0 {
            return;
        }
        if self.memory.outgoing.is_none() {
            self.memory.outgoing = self.memory.buffers.take(0);
        }
        // Empty plaintext stands for the alert.
        while let Ok(Step::Plain | Step::Encoded | Step::End) = self.step(None, Some(&[])) {}
        if let Ok(n) = self.socket.write_now(self.memory.outgoing.filled()) {
            self.memory.outgoing.consume(n);
        }
        self.memory.buffers.put(&mut self.memory.outgoing);
    }

    /// Whether an idle connection must not be used again: it has ended, or there is data that nobody
    /// asked for. What else came (session tickets) is dealt with on the way.
    pub fn is_stale(&mut self) -> bool {
        if self.has_ended || !self.memory.plain.is_empty() {
            return true;
        }
        loop {
            if self.memory.incoming.is_none() {
                self.memory.incoming = self.memory.buffers.take(0);
            }
            self.memory.incoming.compact();
            match self.socket.try_read(self.memory.incoming.spare()) {
                Ok(n) if n > 0 => self.memory.incoming.commit(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.memory.incoming.is_empty() {
                        self.memory.buffers.put(&mut self.memory.incoming);
                    }
                    return false;
                }
                _ => return true,
            }
            loop {
                match self.step(None, None) {
                    Ok(Step::Encoded) => {}
                    Ok(Step::Starved | Step::Ready) => break,
                    Ok(Step::Closed | Step::Plain | Step::End) | Err(_) => return true,
                }
            }
        }
    }

    /// Reads ciphertext: how many bytes, 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.memory.incoming.is_none() {
            // Wait without a buffer.
            ready!(self.socket.poll_readable(cx))?;
            let wanted = if self.is_bulk { MANY * PLAINTEXT } else { 0 };
            self.memory.incoming = self.memory.buffers.take(wanted);
        }
        self.memory.incoming.compact();
        if self.memory.incoming.spare().is_empty() {
            if self.memory.incoming.capacity() >= HANDSHAKE_MAX {
                let why = "a handshake message is longer than 64 KiB";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            let doubled = (2 * self.memory.incoming.capacity()).min(HANDSHAKE_MAX);
            self.memory.incoming.grow(doubled);
        }
        let read = self.socket.poll_read(cx, &mut self.memory.incoming);
        if let Poll::Ready(Ok(_)) = read {
            self.is_bulk = self.memory.incoming.spare().is_empty();
        }
        if self.memory.incoming.is_empty() {
            self.memory.buffers.put(&mut self.memory.incoming);
        }
        read
    }

    /// Writes what is encrypted; ready when the kernel has all of it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.memory.outgoing.is_empty() {
            match ready!(self.socket.poll_write(cx, self.memory.outgoing.filled())) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.memory.outgoing.consume(n),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !self.memory.outgoing.is_none() {
            self.memory.buffers.put(&mut self.memory.outgoing);
        }
        Poll::Ready(Ok(()))
    }

    /// Steps until there is nothing left to do; plaintext goes to `plain`.
    fn settle(&mut self, cx: &mut Context<'_>) -> io::Result<Step> {
        loop {
            match self.step(None, None) {
                Ok(Step::Plain | Step::Encoded) => {}
                Ok(Step::End) => self.has_ended = true,
                Ok(step) => {
                    if self.memory.incoming.is_empty() && !self.memory.incoming.is_none() {
                        self.memory.buffers.put(&mut self.memory.incoming);
                    }
                    return Ok(step);
                }
                Err(error) => return Err(self.alert(cx, error)),
            }
        }
    }

    /// One step of the session. Plaintext goes to `into`, as much as fits, and the rest to `plain`; when
    /// nothing else is to be done, `seal` is encrypted into `outgoing`, which has room for it.
    fn step(
        &mut self,
        into: Option<&mut Target<'_, '_>>,
        seal: Option<&[u8]>,
    ) -> Result<Step, Error> {
        if self.has_failed && !self.session.common().wants_write() {
            return Err(Error::HandshakeNotComplete);
        }
        let mut sinks = Sinks {
            into,
            seal,
            plain: &mut self.memory.plain,
            outgoing: &mut self.memory.outgoing,
            buffers: &self.memory.buffers,
        };
        let incoming = self.memory.incoming.filled_mut();
        let (discard, step) = match &mut self.session {
            Session::Client(session) => handle(session.process_tls_records(incoming), &mut sinks),
            Session::Server(session) => handle(session.process_tls_records(incoming), &mut sinks),
        };
        self.memory.incoming.consume(discard);
        self.has_failed |= step.is_err();
        step
    }

    /// Encrypts as much of `slices` as there is room for in `outgoing`.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let sealed = loop {
                // Asked anew each time: what comes first takes of it too.
                let room = room_for(self.memory.outgoing.spare().len());
                let bytes = &slice[..slice.len().min(room)];
                if bytes.is_empty() {
                    return Ok(());
                }
                match self.step(None, Some(bytes)).map_err(broken)? {
                    Step::Ready => break bytes.len(),
                    // Something that was read comes first; it is kept for the reader.
                    Step::End => self.has_ended = true,
                    Step::Plain | Step::Encoded => {}
                    Step::Closed | Step::Starved => {
                        return Err(io::ErrorKind::NotConnected.into());
                    }
                }
            };
            self.sealed += sealed;
            if sealed < slice.len() {
                break;
            }
        }
        Ok(())
    }

    /// After an error: the alert that tells the other end of it goes out, if it can at once.
    fn alert(&mut self, cx: &mut Context<'_>, error: Error) -> io::Error {
        while let Ok(Step::Plain | Step::Encoded) = self.step(None, None) {}
        let _ = self.poll_flush(cx);
        broken(error)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for buffer in [&mut self.incoming, &mut self.plain, &mut self.outgoing] {
            if !buffer.is_none() {
                self.buffers.put(buffer);
            }
        }
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Where a reader wants its plaintext.
enum Target<'t, 'r> {
    Buffer(&'t mut Buffer),
    Read(&'t mut ReadBuf<'r>),
}

/// Where a step leaves what it made.
struct Sinks<'a, 't, 'r> {
    into: Option<&'a mut Target<'t, 'r>>,
    /// What is to be encrypted; nothing at all stands for close_notify.
    seal: Option<&'a [u8]>,
    plain: &'a mut Buffer,
    outgoing: &'a mut Buffer,
    buffers: &'a RecordBuffers,
}

/// Does what a state of the session asks for. How many bytes of ciphertext it used, and what came of
/// it.
fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    sinks: &mut Sinks<'_, '_, '_>,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        sinks.take(record.payload);
                    }
                    Err(error) => return (discard, Err(error)),
                }
            }
            Step::Plain
        }
        ConnectionState::EncodeTlsData(mut data) => {
            if sinks.outgoing.is_none() {
                *sinks.outgoing = sinks.buffers.take(0);
            }
            loop {
                match data.encode(sinks.outgoing.spare()) {
                    Ok(n) => {
                        sinks.outgoing.commit(n);
                        break Step::Encoded;
                    }
                    Err(EncodeError::InsufficientSize(needed)) => {
                        // Certificates of a handshake: bounded by our own files.
                        let len = sinks.outgoing.len();
                        sinks.outgoing.compact();
                        sinks.outgoing.grow(len + needed.required_size);
                    }
                    Err(EncodeError::AlreadyEncoded) => break Step::Encoded,
                }
            }
        }
        ConnectionState::TransmitTlsData(data) => {
            // It is in `outgoing`, which is sent in order.
            data.done();
            Step::Encoded
        }
        ConnectionState::BlockedHandshake => Step::Starved,
        ConnectionState::WriteTraffic(mut traffic) => {
            let out = sinks.outgoing.spare();
            let sealed = match sinks.seal {
                None => Ok(0),
                Some([]) => traffic.queue_close_notify(out),
                Some(bytes) => traffic.encrypt(bytes, out),
            };
            match sealed {
                Ok(n) => sinks.outgoing.commit(n),
                Err(EncryptError::InsufficientSize(_)) => {
                    let why = "a record is larger than planned".to_owned();
                    return (discard, Err(Error::General(why)));
                }
                Err(EncryptError::EncryptExhausted) => {
                    return (discard, Err(Error::EncryptError));
                }
            }
            Step::Ready
        }
        ConnectionState::PeerClosed => Step::End,
        ConnectionState::Closed => Step::Closed,
        // Early data are never allowed.
        _ => return (discard, Err(Error::General("unexpected state".to_owned()))),
    };
    (discard, Ok(step))
}

// === impl Target ===

impl Target<'_, '_> {
    fn room(&mut self) -> usize {
        match self {
            Self::Buffer(buffer) => buffer.spare().len(),
            Self::Read(buffer) => buffer.remaining(),
        }
    }

    /// Appends what fits: how much.
    fn push(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Buffer(buffer) => buffer.push(bytes),
            Self::Read(buffer) => {
                let n = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..n]);
                n
            }
        }
    }
}

// === impl Sinks ===

impl Sinks<'_, '_, '_> {
    fn take(&mut self, payload: &[u8]) {
        // What came before goes first.
        let n = match &mut self.into {
            Some(into) if self.plain.is_empty() => into.push(payload),
            _ => 0,
        };
        let rest = &payload[n..];
        if rest.is_empty() {
            return;
        }
        if self.plain.is_none() {
            *self.plain = self.buffers.take(rest.len());
        }
        if self.plain.spare().len() < rest.len() {
            // Bounded by the ciphertext in one buffer.
            self.plain.compact();
            self.plain.grow(self.plain.len() + rest.len());
        }
        self.plain.push(rest);
    }
}

/// How much plaintext surely fits into `bytes` of records.
fn room_for(bytes: usize) -> usize {
    let whole = bytes / (PLAINTEXT + OVERHEAD);
    let rest = bytes % (PLAINTEXT + OVERHEAD);
    whole * PLAINTEXT + rest.saturating_sub(OVERHEAD)
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
