//! One connection of HTTP/2 as a machine without sockets: bytes that came go in, bytes to send come out,
//! and its streams are read and written in between (RFC 9113). Pure.
//!
//! # What bounds it
//! - What a stream has received and nobody has read: its window, and that of the connection for all.
//! - What waits to be sent: [`OUT_FULL`] of bodies, and as much again of answers to what the other end says;
//!   above that nothing more is taken in ([`Mux::is_stuffed`]).
//! - A header block: [`BLOCK_MAX`] bytes in [`CONTINUATIONS`] pieces; its text, the limit of heads.
//! - Streams: those that the limit allows, and as many again that are over for the other end and that
//!   somebody here still has.
//!
//! How *often* the other end may do what costs it nothing is counted by its caller
//! (`proxy::h2::meter`), by time.
//!
//! | file | decides |
//! |---|---|
//! | `stream` | one stream, and where all of them are kept |
//! | `receive` | frames found in bytes, and what each does |
//! | `heads` | header blocks: new streams, responses, trailers |
//! | `read` | what the reader of a stream gets |
//! | `write` | what its writer may send |
//! | `leave` | how a connection ends |

mod heads;
mod leave;
mod read;
mod receive;
mod stream;
#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;
use std::task::{Context, Waker};

use super::frame::{self, Code, FIRST_WINDOW, MAX_FRAME, setting};
use super::head::{Line, RequestText};
use super::hpack::{Decoder, Encoder};
use receive::Input;
use stream::Streams;

pub(super) use stream::Key;
pub use stream::StreamError;
pub(super) use write::AskError;

/// Bytes of bodies that wait to be sent at most, and then one frame more: some four frames, so that one
/// system call takes many and a socket that is full makes its writers wait soon.
const OUT_FULL: usize = 64 * 1024;

/// Memory of that which a connection keeps that has streams and sends no more than this at once.
const OUT_KEPT: usize = 8 * 1024;

/// Largest header block: as frames hold it. The text that it makes is bounded by itself.
const BLOCK_MAX: usize = 256 * 1024;

/// Most pieces of a header block behind its first.
const CONTINUATIONS: u32 = 32;

/// Streams that were reset here whose late frames are no error, at least; else as many as may be open: the
/// frames of all of them may be on their way.
const RESETS_REMEMBERED: usize = 128;

/// The table of HPACK that the other end may fill (RFC 9113 section 6.5.2: what it is from the begin).
const TABLE: usize = 4096;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Streams are opened by the other end.
    Server,
    /// They are opened here.
    Client,
}

/// What we let the other end do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes on a stream before they are read.
    pub stream_window: u32,
    /// The same on the connection as a whole.
    pub connection_window: u32,
    /// Streams that are open at once.
    pub max_streams: u32,
    /// Bytes of a head, as text.
    pub max_head: usize,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As was agreed, or the other end has closed it.
    Well,
    /// It broke a rule, and was told so.
    Fault(Code),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Mux {
    role: Role,
    limits: Limits,
    /// What makes keys of WebSockets.
    salt: u64,

    // What comes.
    input: Input,
    /// A frame that has come in part.
    partial: Vec<u8>,
    block: Option<heads::Block>,
    decoder: Decoder,
    request: RequestText,
    /// Our settings are known to the other end.
    is_acknowledged: bool,
    /// The other end's SETTINGS have come.
    has_settings: bool,
    /// The highest stream that the other end has opened.
    last_theirs: u32,
    /// Those that were reset here and that it may not know of yet.
    given_up: VecDeque<u32>,
    /// New streams that nobody has taken yet.
    accepted: VecDeque<Key>,
    window_in: i64,
    freed: u32,
    /// Moves with what comes on any stream.
    heard: u64,

    // What goes.
    theirs: Theirs,
    encoder: Encoder,
    lines: Vec<Line>,
    out: Vec<u8>,
    out_sent: usize,
    window_out: i64,
    next_ours: u32,
    /// Those that wait for room, or for the connection's window.
    blocked: VecDeque<(Key, u32)>,
    /// How often those that waited were told that there is room, from 1 on.
    turn: u32,
    /// How many were, the last time.
    woken: usize,
    /// Who waits to open a stream, or to learn what the other end allows.
    opening: Vec<Waker>,

    streams: Streams,
    /// Streams that a client has: more than are open.
    held: u32,
    /// Whoever moves the bytes.
    driver: Option<Waker>,
    /// There is something for it to do.
    is_due: bool,
    /// What the other end said goodbye with.
    their_goodbye: Option<Code>,
    our_goodbye: leave::Goodbye,
    end: Option<End>,
}

/// What the other end lets us do.
#[derive(Clone, Copy, Debug)]
struct Theirs {
    window: u32,
    max_frame: usize,
    max_streams: u32,
    /// It knows the CONNECT of RFC 8441.
    connects: bool,
}

// === impl Mux ===

impl Mux {
    /// A connection that begins now. `salt` is not the same twice.
    pub(super) fn new(role: Role, limits: Limits, salt: u64) -> Self {
        let mut mux = Self {
            role,
            limits,
            salt,
            input: match role {
                Role::Server => Input::Preface(0),
                Role::Client => Input::Frame,
            },
            partial: Vec::new(),
            block: None,
            decoder: Decoder::new(TABLE),
            request: RequestText::default(),
            is_acknowledged: false,
            has_settings: false,
            last_theirs: 0,
            given_up: VecDeque::new(),
            accepted: VecDeque::new(),
            window_in: FIRST_WINDOW.into(),
            freed: 0,
            heard: 0,
            theirs: Theirs {
                window: FIRST_WINDOW,
                max_frame: MAX_FRAME,
                // Until it says what it allows: fewer it should not (RFC 9113 section 6.5.2).
                max_streams: 100,
                connects: false,
            },
            encoder: Encoder::new(),
            lines: Vec::new(),
            out: Vec::new(),
            out_sent: 0,
            window_out: FIRST_WINDOW.into(),
            next_ours: 1,
            blocked: VecDeque::new(),
            turn: 1,
            woken: 0,
            opening: Vec::new(),
            streams: Streams::default(),
            held: 0,
            driver: None,
            is_due: true,
            their_goodbye: None,
            our_goodbye: leave::Goodbye::default(),
            end: None,
        };
        mux.greet();
        mux
    }

    /// What either end begins with.
    fn greet(&mut self) {
        let window = (setting::INITIAL_WINDOW_SIZE, self.limits.stream_window);
        let head = (setting::MAX_HEADER_LIST_SIZE, self.limits.max_head as u32);
        match self.role {
            Role::Server => {
                let streams = (setting::MAX_CONCURRENT_STREAMS, self.limits.max_streams);
                let connects = (setting::ENABLE_CONNECT_PROTOCOL, 1);
                frame::settings(&mut self.out, &[streams, window, head, connects]);
            }
            Role::Client => {
                self.out.extend_from_slice(frame::PREFACE);
                frame::settings(&mut self.out, &[(setting::ENABLE_PUSH, 0), window, head]);
            }
        }
        // Below the first window it cannot be told to be: then it is as large as that.
        let more = self.limits.connection_window.saturating_sub(FIRST_WINDOW);
        if more > 0 {
            frame::window_update(&mut self.out, 0, more);
            self.window_in += i64::from(more);
        }
    }

    /// Remembers whom to wake when there is something to send, or to be said.
    pub(super) fn attend(&mut self, cx: &Context<'_>) {
        self.is_due = false;
        match &self.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.driver = Some(cx.waker().clone()),
        }
    }

    /// There is something to send.
    #[inline]
    fn touch(&mut self) {
        if !std::mem::replace(&mut self.is_due, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    // === what is to be sent ===

    /// What is to be sent next.
    pub(super) fn unsent(&self) -> &[u8] {
        self.out.get(self.out_sent..).unwrap_or_default()
    }

    /// So much of it was sent.
    pub(super) fn sent(&mut self, n: usize) {
        self.out_sent += n;
        let left = self.out.len().saturating_sub(self.out_sent);
        if left == 0 {
            // An idle connection holds no buffer, and one that says little no large one.
            let is_large = self.out.capacity() > OUT_KEPT && self.out.len() <= OUT_KEPT;
            if self.streams.len() == 0 || is_large {
                self.out = Vec::new();
            }
            self.out.clear();
            self.out_sent = 0;
        } else if self.out_sent >= left {
            // What was sent goes, even where there is always more: a byte is moved once on average.
            self.out.drain(..self.out_sent);
            self.out_sent = 0;
        }
        self.unblock();
        if left < OUT_FULL {
            self.opened_up();
        }
    }

    fn pending(&self) -> usize {
        self.out.len() - self.out_sent
    }

    /// Whether so much waits to be sent that nothing more is to be taken in. Bodies alone never fill it:
    /// an end that reads slowly may well go on sending.
    pub(super) fn is_stuffed(&self) -> bool {
        self.pending() > 2 * OUT_FULL + MAX_FRAME
    }

    /// Moves with what comes on any stream.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }
}
