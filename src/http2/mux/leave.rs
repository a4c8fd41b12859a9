//! How a connection ends (RFC 9113 sections 5.4 and 6.8).

use crate::http2::frame::{self, Code};

use super::stream::{Key, StreamError};
use super::{End, Mux, Role};

/// What we have said of the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Goodbye {
    #[default]
    Unsaid,
    /// That it comes; what the other end had sent before it heard of that is taken.
    Announced,
    /// That nothing more is taken.
    Final,
}

/// The highest stream there may be: all are taken.
const ALL: u32 = u32::MAX >> 1;

/// Payload of the PING whose answer says that the other end has heard of the end.
const FAREWELL: [u8; 8] = *b"farewell";

// === impl Goodbye ===

impl Goodbye {
    pub(super) fn is_final(self) -> bool {
        self == Self::Final
    }
}

impl Mux {
    /// Says that the connection ends once what is under way is done, and takes what the other end sends
    /// until it has heard of that.
    pub(in crate::http2) fn leave(&mut self) {
        if self.our_goodbye == Goodbye::Unsaid && self.end.is_none() {
            self.our_goodbye = Goodbye::Announced;
            frame::goaway(&mut self.out, ALL, Code::NO_ERROR);
            frame::ping(&mut self.out, FAREWELL, 0);
            self.touch();
        }
    }

    pub(super) fn pong(&mut self, payload: [u8; 8]) {
        if payload == FAREWELL && self.our_goodbye == Goodbye::Announced {
            self.our_goodbye = Goodbye::Final;
            frame::goaway(&mut self.out, self.last_theirs, Code::NO_ERROR);
            self.touch();
        }
    }

    /// Says why the connection ends at once.
    pub(super) fn say_goodbye_for(&mut self, code: Code) {
        self.our_goodbye = Goodbye::Final;
        frame::goaway(&mut self.out, self.last_theirs, code);
        self.touch();
    }

    /// Nobody opens streams on it any more.
    pub(in crate::http2) fn retire(&mut self) {
        if self.our_goodbye == Goodbye::Unsaid && self.end.is_none() {
            self.say_goodbye_for(Code::NO_ERROR);
            // Who waits to open a stream here is told to go elsewhere.
            self.opened_up();
        }
    }

    /// Whether nothing is left but to send what waits, and to close.
    pub(super) fn wants_to_end(&self) -> bool {
        let is_told = self.our_goodbye.is_final()
            || self.role == Role::Client && self.their_goodbye.is_some();
        is_told && self.streams.open() == 0
    }

    /// Nothing comes any more, and nothing goes.
    pub(in crate::http2) fn over(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        for key in std::mem::take(&mut self.accepted) {
            self.forget(key);
        }
        for key in self.streams.keys() {
            let stream = &mut self.streams[key];
            // What has come whole may be read to its end.
            stream.fail(StreamError::Ended);
            self.streams.close(key);
        }
        self.opened_up();
        self.touch();
    }

    /// How it ended, once it has; what waits is still to be sent.
    pub(in crate::http2) fn end(&self) -> Option<End> {
        self.end.or(self.wants_to_end().then_some(End::Well))
    }

    /// Whether no more streams can be opened.
    pub(in crate::http2) fn takes_no_more(&self) -> bool {
        self.end.is_some()
            || self.their_goodbye.is_some()
            || self.our_goodbye != Goodbye::Unsaid
            || self.next_ours > ALL
    }

    /// Streams that the other end allows.
    pub(in crate::http2) fn allowed(&self) -> u32 {
        self.theirs.max_streams
    }

    /// How the stream has ended, if before its time.
    pub(in crate::http2) fn error(&self, key: Key) -> Option<StreamError> {
        self.streams[key].error
    }

    /// The next stream that the other end has opened.
    pub(in crate::http2) fn accept(&mut self) -> Option<Key> {
        self.accepted.pop_front()
    }
}
