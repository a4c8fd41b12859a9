//! One end of a connection that is told anything, whole and in pieces, while its streams are read, written and
//! let go: what it says does not depend on the pieces, of windows nothing is lost and nothing given twice, and
//! what it says is what the protocol allows. A module of `http2`, whose machine is its own.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use crate::base::buffer::Buffer;

use super::frame::{self, Code, FIRST_WINDOW, HEADER, Header, MAX_FRAME, PREFACE, flag, kind};
use super::hpack::Decoder;
use super::mux::{End, Key, Limits, Mux, Role, StreamError};

/// Smaller than what holds without settings on the stream, and larger on the connection.
const LIMITS: Limits = Limits {
    stream_window: 20_000,
    connection_window: 100_000,
    max_streams: 6,
    max_head: 2048,
};

/// Bytes of bodies that one input brings or has sent at most, so that it takes no second.
const BODIES: usize = 1 << 19;

const REQUESTS: [&str; 5] = [
    "GET /g HTTP/1.1\r\nHost: t\r\n\r\n",
    "HEAD /h HTTP/1.1\r\nHost: t\r\nCookie: a=b\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /l HTTP/1.1\r\nContent-Length: 5000\r\nX-A: b\r\n\r\n",
    "GET /w HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
];

const RESPONSES: [&str; 5] = [
    "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 103 \r\nLink: x\r\n\r\n",
    "HTTP/1.1 200 \r\nContent-Length: 5000\r\nSet-Cookie: a\r\n\r\n",
    "HTTP/1.1 101 \r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 304 \r\n\r\n",
];

pub fn drive(data: &[u8]) {
    let [first, piece, bytes @ ..] = data else {
        return;
    };
    let role = if first & 1 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let mut both = Both::new(role, usize::from(*piece) + 1);
    let mut input = Input(bytes);
    while let Some(step) = input.byte() {
        both.step(step, &mut input);
    }
    both.leave(first & 2 != 0);
}

/// What is left of the input.
struct Input<'a>(&'a [u8]);

/// The same connection twice.
struct Both {
    role: Role,
    /// Takes all that comes from one step to the next at once.
    whole: Side,
    /// Takes it in pieces.
    cut: Side,
    piece: usize,
    /// What is to come before the next step.
    batch: Vec<u8>,
    /// What comes behind it, after the step.
    late: Vec<u8>,
    held: Vec<Key>,
    /// What the two say may differ from here on.
    is_apart: bool,
    bodies: usize,
}

/// One connection, and what is known of it from without.
struct Side {
    role: Role,
    mux: Mux,
    incoming: Frames,
    ledger: Ledger,
    /// All that was sent.
    said: Vec<u8>,
    /// Bytes that were read of all streams.
    read: usize,
    /// What is free was made known.
    is_probed: bool,
}

/// Frames found in bytes.
#[derive(Default)]
struct Frames {
    partial: Vec<u8>,
    is_headed: bool,
}

/// What came and was granted, what went and was allowed.
#[derive(Default)]
struct Ledger {
    came: i64,
    came_on: HashMap<u32, i64>,
    heads: usize,
    /// The highest stream, made odd.
    last: u32,
    is_in_block: bool,
    allowed: i64,
}

// === impl Input ===

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> usize {
        self.byte().unwrap_or_default().into()
    }

    fn bytes(&mut self) -> &'a [u8] {
        let n = self.number().min(self.0.len());
        let (bytes, rest) = self.0.split_at(n);
        self.0 = rest;
        bytes
    }
}

// === impl Both ===

impl Both {
    fn new(role: Role, piece: usize) -> Self {
        let mut both = Self {
            role,
            whole: Side::new(role),
            cut: Side::new(role),
            piece,
            batch: Vec::new(),
            late: Vec::new(),
            held: Vec::new(),
            is_apart: false,
            bodies: 0,
        };
        if role == Role::Server {
            both.whole.mux.receive(PREFACE);
            both.cut.mux.receive(PREFACE);
        }
        // It is a frame as others are.
        frame::settings(&mut both.batch, &[]);
        both
    }

    /// A frame, or something that is done with what came.
    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        match step % 32 {
            // Frames of unknown kinds, too.
            kind @ 0..=10 => {
                let (flags, stream) = (input.byte().unwrap_or_default(), input.number());
                let payload = input.bytes();
                self.frame(kind, flags, stream, payload);
            }
            11 => {
                self.batch.append(&mut self.late);
                self.batch.extend_from_slice(input.bytes());
            }
            12 | 13 => {
                let (stream, length) = (input.number(), input.number() * 64);
                self.bodies += length;
                if self.bodies <= BODIES {
                    let flags = step >> 7 | if step % 2 == 1 { flag::PADDED } else { 0 };
                    self.frame(kind::DATA, flags, stream, &vec![step; length]);
                }
            }
            // What would be another frame's without them.
            14 => self.frame(kind::SETTINGS, flag::ACK, 0, &[]),
            15 => {
                let (flags, stream) = (step >> 5 | flag::END_HEADERS, input.number());
                // GET, https, / and a field that comes again; or 200.
                let start: &[u8] = match self.role {
                    Role::Server => b"\x82\x87\x84\x41\x01t",
                    Role::Client => b"\x88",
                };
                let block = [start, input.bytes()].concat();
                self.frame(kind::HEADERS, flags & 5, stream, &block);
            }
            // The next step is in the midst of a frame.
            31 => {
                let n = input.number() + 64 * input.number();
                let at = self.batch.len().saturating_sub(n);
                if self.late.is_empty() {
                    self.late = self.batch.split_off(at);
                }
            }
            step => {
                self.pass();
                self.act(step, input);
                self.compare();
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: usize, payload: &[u8]) {
        self.batch.append(&mut self.late);
        frame::begin(&mut self.batch, payload.len(), kind, flags, stream as u32);
        self.batch.extend_from_slice(payload);
    }

    /// What waits comes.
    fn pass(&mut self) {
        if self.whole.mux.is_stuffed() || self.cut.mux.is_stuffed() {
            self.send(usize::MAX);
        }
        let batch = std::mem::take(&mut self.batch);
        self.whole.receive(&batch, batch.len().max(1));
        self.cut.receive(&batch, self.piece);
        self.compare();
    }

    fn act(&mut self, step: u8, input: &mut Input<'_>) {
        if step <= 18 {
            return self.begin(input.number());
        }
        if step == 19 {
            return self.send(input.number() * 256);
        }
        if step == 20 {
            return self.close(input.number());
        }
        if self.held.is_empty() {
            return;
        }
        let place = input.number() % self.held.len();
        let key = self.held[place];
        match step {
            21..=23 => self.read(key, input.number() * 64 + 1),
            24 => self.trailers(key),
            25 if self.role == Role::Server => self.reply(key, input.number()),
            25..=27 => self.write(key, input.number() * 128),
            28 => {
                let finish = |side: &mut Side| side.mux.finish(key, None).is_ok();
                self.same(finish);
            }
            29 => self.each(|side| {
                if !side.mux.has_ended(key) {
                    side.mux.give_up(key, Code::INTERNAL_ERROR);
                }
            }),
            _ => {
                self.held.swap_remove(place);
                self.each(|side| side.mux.release(key));
            }
        }
    }

    fn begin(&mut self, which: usize) {
        let key = match self.role {
            Role::Server => self.same(|side| side.mux.accept()),
            Role::Client => {
                let text = REQUESTS[which % REQUESTS.len()].as_bytes();
                self.same(|side| {
                    let mut cx = Context::from_waker(Waker::noop());
                    match side.mux.poll_ask(&mut cx, text, "test", which & 128 != 0) {
                        Poll::Ready(Ok((key, end))) => {
                            assert_eq!(end, text.len());
                            Some(key)
                        }
                        Poll::Ready(Err(_)) | Poll::Pending => None,
                    }
                })
            }
        };
        self.held.extend(key);
    }

    fn close(&mut self, how: usize) {
        self.each(|side| match how % 16 {
            0 => side.mux.leave(),
            1 => side.mux.retire(),
            2 => side.mux.over(End::Well),
            // What it was asked at the goodbye.
            _ => {}
        });
        if how % 16 == 3 {
            self.frame(kind::PING, flag::ACK, 0, b"farewell");
        }
    }

    fn read(&mut self, key: Key, capacity: usize) {
        let whole = self.whole.read(key, capacity);
        let cut = self.cut.read(key, capacity);
        // Of a body that is longer than was said comes what fits into it; what that is, the pieces decide.
        let is_given = self.whole.mux.error(key) == Some(StreamError::Given(Code::PROTOCOL_ERROR));
        if whole != cut && is_given {
            self.is_apart = true;
        }
        assert!(self.is_apart || whole == cut, "{whole:?}, {cut:?}");
    }

    fn trailers(&mut self, key: Key) {
        let apart = self.is_apart;
        let whole = self.whole.mux.take_end(key);
        let cut = self.cut.mux.take_end(key);
        assert!(apart || whole == cut);
        if let Some(trailers) = whole.filter(|_| !apart) {
            // As an echo they are sound.
            self.same(|side| side.mux.finish(key, Some(&trailers)).is_ok());
        }
    }

    fn reply(&mut self, key: Key, which: usize) {
        let text = RESPONSES[which % RESPONSES.len()].as_bytes();
        self.same(|side| {
            if side.mux.has_begun(key) {
                return None;
            }
            side.mux.reply(key, text, which & 128 != 0).ok()
        });
    }

    fn write(&mut self, key: Key, length: usize) {
        self.bodies += length;
        if self.bodies > BODIES {
            return;
        }
        let body = vec![b'w'; length];
        self.same(|side| {
            if !side.mux.has_begun(key) {
                return Some(0);
            }
            let mut cx = Context::from_waker(Waker::noop());
            match side.mux.poll_write(key, &mut cx, &body) {
                Poll::Ready(done) => done.ok(),
                Poll::Pending => Some(usize::MAX),
            }
        });
    }

    /// So much of what is to be sent is.
    fn send(&mut self, n: usize) {
        self.whole.send(n);
        self.cut.send(n);
    }

    fn each(&mut self, act: impl Fn(&mut Side)) {
        act(&mut self.whole);
        act(&mut self.cut);
    }

    /// What comes of both the same.
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, act: impl Fn(&mut Side) -> T) -> T {
        let (whole, cut) = (act(&mut self.whole), act(&mut self.cut));
        assert!(self.is_apart || whole == cut, "{whole:?}, {cut:?}");
        whole
    }

    fn compare(&mut self) {
        if self.is_apart {
            return;
        }
        if self.whole.mux.unsent() != self.cut.mux.unsent() {
            // A body that was longer than was said is free at once, or once it was read: by the pieces.
            let (whole, has_fault) = self.whole.said_without_windows();
            let (cut, _) = self.cut.said_without_windows();
            assert!(has_fault && whole == cut, "{whole:?}, {cut:?}");
            self.is_apart = true;
        }
        assert_eq!(self.whole.mux.end(), self.cut.mux.end());
    }

    /// All is let go.
    fn leave(mut self, is_read: bool) {
        self.pass();
        for key in std::mem::take(&mut self.held) {
            if is_read {
                self.read(key, 1 << 20);
            }
            self.each(|side| side.mux.release(key));
            self.compare();
        }
        self.batch.append(&mut self.late);
        self.pass();
        while let Some(key) = self.same(|side| side.mux.accept()) {
            self.each(|side| side.mux.release(key));
        }
        self.compare();
        self.each(|side| {
            side.send(usize::MAX);
            side.probe();
            side.check();
        });
    }
}

// === impl Side ===

impl Side {
    fn new(role: Role) -> Self {
        Self {
            role,
            mux: Mux::new(role, LIMITS, 7),
            incoming: Frames::default(),
            ledger: Ledger {
                allowed: FIRST_WINDOW.into(),
                ..Ledger::default()
            },
            said: Vec::new(),
            read: 0,
            is_probed: false,
        }
    }

    fn receive(&mut self, bytes: &[u8], piece: usize) {
        let before = self.mux.unsent().len();
        for piece in bytes.chunks(piece) {
            self.mux.receive(piece);
            let ledger = &mut self.ledger;
            self.incoming
                .push(piece, |h, payload| ledger.take(h, payload));
        }
        // Every answer is to a frame, which is not much smaller.
        let answers = self.mux.unsent().len() - before;
        assert!(answers <= 4 * bytes.len() + 64, "{answers}");
    }

    /// What is there, and whether more may come or none does.
    fn read(&mut self, key: Key, capacity: usize) -> (Vec<u8>, Option<bool>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = Buffer::with_capacity(capacity);
        let is_readable = matches!(self.mux.poll_readable(key, &mut cx), Poll::Ready(Ok(())));
        let state = match self.mux.poll_read(key, &mut cx, &mut buffer) {
            Poll::Ready(read) => Some(read.is_ok()),
            Poll::Pending => None,
        };
        assert_eq!(is_readable, state == Some(true));
        self.read += buffer.len();
        (buffer.filled().to_vec(), state)
    }

    fn send(&mut self, n: usize) {
        let unsent = self.mux.unsent();
        let n = n.min(unsent.len());
        self.said.extend_from_slice(&unsent[..n]);
        self.mux.sent(n);
    }

    /// All frames that were said or will be but those of windows; whether one says that a stream was at fault.
    fn said_without_windows(&self) -> (Vec<(Header, Vec<u8>)>, bool) {
        let mut all = Vec::new();
        let said = [&self.said, self.mux.unsent()].concat();
        let said = said.strip_prefix(PREFACE).unwrap_or(&said);
        Frames::default().push(said, |header, payload| {
            let payload = payload.filter(|_| header.kind != kind::WINDOW_UPDATE);
            all.extend(payload.map(|payload| (header, payload.to_vec())));
        });
        let fault = Code::PROTOCOL_ERROR.0.to_be_bytes();
        let has_fault = all
            .iter()
            .any(|(header, payload)| header.kind == kind::RST_STREAM && *payload == fault);
        (all, has_fault)
    }

    /// With no stream left: late DATA, which is free at once, until the window is opened by all that is free.
    /// That is all that came then.
    fn probe(&mut self) {
        let ledger = &self.ledger;
        let is_between = self.incoming.partial.is_empty() && !ledger.is_in_block;
        if self.mux.end().is_some() || !is_between || ledger.came == 0 || ledger.last >= 1 << 30 {
            return;
        }
        let mut bytes = Vec::new();
        let id = match self.role {
            Role::Client => 1,
            Role::Server => {
                let id = ledger.last + 2;
                let block = b"\x82\x87\x84";
                frame::begin(
                    &mut bytes,
                    block.len(),
                    kind::HEADERS,
                    flag::END_HEADERS,
                    id,
                );
                bytes.extend_from_slice(block);
                self.receive(&bytes, bytes.len());
                if let Some(key) = self.mux.accept() {
                    self.mux.release(key);
                }
                self.send(usize::MAX);
                id
            }
        };
        bytes.clear();
        frame::begin(&mut bytes, 1000, kind::DATA, 0, id);
        bytes.resize(HEADER + 1000, 0);
        while self.mux.unsent().is_empty() {
            self.receive(&bytes, bytes.len());
        }
        self.send(usize::MAX);
        assert_eq!(self.mux.end(), None);
        self.is_probed = true;
    }

    /// At the end, with all said and no stream left.
    fn check(&self) {
        let ledger = &self.ledger;
        let first = i64::from(LIMITS.connection_window - FIRST_WINDOW);
        let (mut granted, mut sent) = (-first, 0);
        let mut granted_on: HashMap<u32, i64> = HashMap::new();
        let mut decoder = Decoder::new(4096);
        let mut block = Vec::new();
        let said = self.said.strip_prefix(PREFACE).unwrap_or(&self.said);
        let mut frames = Frames::default();
        frames.push(said, |header, payload| {
            let Some(payload) = payload else { return };
            assert!(payload.len() <= MAX_FRAME);
            match header.kind {
                kind::DATA => sent += payload.len() as i64,
                kind::WINDOW_UPDATE => {
                    let bytes = payload.try_into().expect("four bytes");
                    let n = i64::from(u32::from_be_bytes(bytes));
                    assert!((1..=i64::from(u32::MAX >> 1)).contains(&n));
                    match header.stream {
                        0 => granted += n,
                        id => *granted_on.entry(id).or_default() += n,
                    }
                }
                kind::HEADERS | kind::CONTINUATION => {
                    block.extend_from_slice(payload);
                    if header.has(flag::END_HEADERS) {
                        let decoded = decoder.decode(&block, |field| assert!(field.is_sound));
                        assert_eq!(decoded, Ok(()));
                        block.clear();
                    }
                }
                kind => assert!(matches!(
                    kind,
                    kind::RST_STREAM | kind::SETTINGS | kind::PING | kind::GOAWAY
                )),
            }
        });
        assert!(frames.partial.is_empty() && block.is_empty());
        assert!(sent <= ledger.allowed, "{sent} of {}", ledger.allowed);
        assert!(granted <= ledger.came, "{granted} of {}", ledger.came);
        for (id, granted) in granted_on {
            assert!(Some(&granted) <= ledger.came_on.get(&id), "{id}");
        }
        if self.mux.end().is_none() {
            // What nobody has any more is free, but less than is worth a frame.
            let kept = ledger.came - granted;
            let most = LIMITS.connection_window / 2;
            assert!(kept < most.into(), "{kept} of {most}");
            assert!(!self.is_probed || kept == 0, "{kept}");
        }
        // A head ends behind its limit by a field at most, which is in the table or in the block; an authority
        // stands in it twice.
        let most = ledger.came as usize + ledger.heads * 2 * (LIMITS.max_head + 16 * 1024);
        assert!(self.read <= most, "{} of {most}", self.read);
    }
}

// === impl Frames ===

impl Frames {
    /// Hands on each frame when its header is there, and again when it is whole.
    fn push(&mut self, bytes: &[u8], mut with: impl FnMut(Header, Option<&[u8]>)) {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(first) = self.partial[at..].first_chunk::<HEADER>() {
            let header = Header::parse(first);
            if !std::mem::replace(&mut self.is_headed, true) {
                with(header, None);
            }
            let start = at + HEADER;
            let end = start + header.length as usize;
            let Some(payload) = self.partial.get(start..end) else {
                break;
            };
            with(header, Some(payload));
            self.is_headed = false;
            at = end;
        }
        self.partial.drain(..at);
    }
}

// === impl Ledger ===

impl Ledger {
    fn take(&mut self, header: Header, payload: Option<&[u8]>) {
        match (header.kind, payload) {
            (kind::DATA, None) => {
                self.came += i64::from(header.length);
                *self.came_on.entry(header.stream).or_default() += i64::from(header.length);
            }
            (kind::HEADERS | kind::CONTINUATION, None) => {
                self.heads += 1;
                self.last = self.last.max(header.stream | 1);
                self.is_in_block = !header.has(flag::END_HEADERS);
            }
            (kind::WINDOW_UPDATE, Some(payload)) if header.stream == 0 => {
                if let Ok(bytes) = payload.try_into() {
                    self.allowed += i64::from(u32::from_be_bytes(bytes) & (u32::MAX >> 1));
                }
            }
            _ => {}
        }
    }
}
