//! One direction of an exchange: body bytes from a source to a destination, re-framed on the way.
//!
//! A [`Flow`] owns no buffer and no socket; it is polled with both. Each direction has one bounded
//! buffer: nothing is read while bytes wait to be written, so a slow reader slows the sender down.
//! Heads and chunk framing go through `out`, body bytes are written from where they were read.

use std::io;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use crate::base::buffer::Buffer;
use crate::base::stream::{Channel, Stream};
use crate::http1::{Chunk, ChunkDecoder, Refusal, may_be_trailer};

use super::splice::{Pipe, Pipes, SPLICE_MIN, Side, Spliced};
use super::trailers::Trailers;

/// How the source says where the body ends.
#[derive(Debug)]
pub(super) enum Reader<'p> {
    /// Chunked, and which of the trailers pass.
    Chunked(ChunkDecoder, Trailers<'p>),
    /// Everything has been read.
    Done,
    /// This many bytes are still to come.
    Length(u64),
    /// The source tells beside the bytes; which of the trailers pass; and, if its head told a length, how many
    /// bytes of it are still to come. The stream counts them too: here it is what the destination was told.
    Streamed(Trailers<'p>, Option<u64>),
    /// The body ends with the stream.
    UntilClose,
}

/// How the destination is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Chunked.
    Chunked,
    /// By Content-Length or the end of the connection: the bytes as they are.
    Raw,
    /// Beside the bytes.
    Streamed,
}

/// Why a body could not be moved.
#[derive(Debug, Error)]
pub(super) enum FlowError {
    /// The source could not be read.
    #[error("reading the body failed")]
    Read(#[source] io::Error),
    /// The body is not as long as its head says.
    #[error("the body is not as long as its head says")]
    Length,
    /// The source's framing is broken.
    #[error("the body's framing is broken")]
    Refused(Refusal),
    /// The body is longer than the limit.
    #[error("the body is longer than allowed")]
    TooLarge,
    /// The source ended in mid-body.
    #[error("the body ended early")]
    Truncated,
    /// The destination could not be written.
    #[error("writing the body failed")]
    Write(#[source] io::Error),
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Flow<'p> {
    reader: Reader<'p>,
    framing: Framing,
    /// Bytes of the buffer before this one are the message's head and stay.
    base: usize,
    /// The first byte of the buffer that was not dealt with.
    cursor: usize,
    /// Body bytes at `cursor` that are to be written as they are, after `out`.
    raw: usize,
    /// The CRLF that ends the chunk of those bytes is owed.
    owes_crlf: bool,
    /// How much of `out` has been written.
    out_at: usize,
    /// Most body bytes allowed.
    limit: u64,
    /// Body bytes moved (framing not counted).
    pub body_bytes: u64,
    /// Bytes the destination's kernel has taken.
    pub written: u64,
    /// Moves whenever anything moves: what an idle deadline looks at.
    pub progress: u64,
    /// The side that the last `Pending` waits for.
    pub waits: Side,
    /// Whether all of the body that was read is still in the buffer, so that it can be sent again.
    rewindable: bool,
    /// Most body bytes that the buffer grows for, to keep it so.
    keep: usize,
    pipe: Option<Pipe>,
    /// Body bytes that went through a pipe.
    pub spliced: u64,
    /// What is to be told with the end of the body.
    trailers: Option<Box<HeaderMap>>,
    /// The source has told the end of its body: it does so once, and a body that is sent again has it again.
    has_end: bool,
    /// The trailers that it told with it, if there were any.
    end: Option<Box<HeaderMap>>,
    /// The end was told.
    has_told: bool,
}

/// Body bytes up to this size are copied into the chunk framing; larger ones are written from
/// where they lie (two slices in one call), which costs less than the copy.
const COPY_MAX: usize = 1024;

/// Room in `out` for framing and copied bytes before they are written.
const OUT_MAX: usize = 16 * 1024;

// === impl Flow ===

impl<'p> Flow<'p> {
    /// A flow whose body starts at `base` of its buffer. `out` may already hold a head. A length
    /// is compared with the limit by the caller, before anything is sent; here it bounds bodies
    /// whose length is not known.
    pub(super) fn new(reader: Reader<'p>, framing: Framing, base: usize, limit: u64) -> Self {
        Self {
            rewindable: !matches!(reader, Reader::UntilClose),
            keep: 0,
            reader,
            framing,
            base,
            cursor: base,
            raw: 0,
            owes_crlf: false,
            out_at: 0,
            limit,
            body_bytes: 0,
            written: 0,
            progress: 0,
            waits: Side::Read,
            pipe: None,
            spliced: 0,
            trailers: None,
            has_end: false,
            end: None,
            has_told: false,
        }
    }

    /// A flow whose body, up to `keep` bytes of it, stays in the buffer to be sent again. One that is
    /// known to be longer is not kept at all.
    pub(super) fn kept(mut self, keep: usize) -> Self {
        let fits = match &self.reader {
            Reader::Length(n) => *n <= keep as u64,
            Reader::Chunked(..) | Reader::Streamed(..) => true,
            Reader::Done | Reader::UntilClose => false,
        };
        self.keep = if fits { keep } else { 0 };
        self
    }

    /// How the destination is told where the body ends, before anything was sent there.
    pub(super) fn frame(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// A flow that will never be sent again.
    pub(super) fn once(mut self) -> Self {
        self.rewindable = false;
        self
    }

    /// Whether the whole body has been read from the source.
    pub(super) fn has_read_all(&self) -> bool {
        matches!(self.reader, Reader::Done | Reader::Length(0))
    }

    /// Body bytes that the source still owes, where its framing tells.
    pub(super) fn left(&self) -> Option<u64> {
        match &self.reader {
            Reader::Done => Some(0),
            Reader::Length(n) => Some(*n),
            Reader::Chunked(..) | Reader::Streamed(..) | Reader::UntilClose => None,
        }
    }

    /// The first byte of the buffer behind what this flow has taken.
    pub(super) fn cursor(&self) -> usize {
        self.cursor + self.raw
    }

    /// Whether the body sent so far can be sent again, to another connection.
    pub(super) fn can_rewind(&self) -> bool {
        self.rewindable
    }

    /// Starts again from the body's first byte, with a reader as the first one was; `out` holds the
    /// head again. Only after [`Flow::can_rewind`].
    pub(super) fn rewind(&mut self, reader: Reader<'p>) {
        self.reader = reader;
        self.cursor = self.base;
        self.raw = 0;
        self.owes_crlf = false;
        self.out_at = 0;
        self.body_bytes = 0;
        self.written = 0;
        self.trailers = None;
        self.has_told = false;
    }

    /// Returns what was borrowed.
    pub(super) fn release(&mut self, pipes: &Pipes) {
        if let Some(pipe) = self.pipe.take() {
            pipes.put(pipe);
        }
    }

    /// Moves what can be moved; ready when the whole body has been written. After `Pending`,
    /// [`Flow::waits`] says which side is waited for and `cx` is woken by it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        buffer: &mut Buffer,
        to: &mut Stream,
        out: &mut Vec<u8>,
        pipes: &Pipes,
    ) -> Poll<Result<(), FlowError>> {
        loop {
            // What has been read is laid out first, so that a head leaves together with the body
            // bytes that came with it: one system call and one segment, not two.
            if self.raw == 0 {
                if self.owes_crlf {
                    self.fresh(out).extend_from_slice(b"\r\n");
                    self.owes_crlf = false;
                }
                // Once there is a pipe, it says when the body has been written: with nothing left to
                // read it may still hold the end.
                if self.pipe.is_none() {
                    self.take(buffer, out)?;
                }
                // Both sides tell their ends beside the bytes: the last bytes can say that they are.
                if self.framing == Framing::Streamed && self.cursor() == buffer.len() {
                    self.has_streamed_end(from, out)?;
                }
            }
            if self.framing == Framing::Streamed
                && self.raw > 0
                && self.out_at == out.len()
                && matches!(self.reader, Reader::Done)
                && self.trailers.is_none()
                && let Some(channel) = to.channel()
            {
                channel.ends_after(self.raw as u64);
            }
            if self.out_at < out.len() || self.raw > 0 {
                self.waits = Side::Write;
                let raw = &buffer.filled()[self.cursor..self.cursor + self.raw];
                match to.poll_write_two(cx, &out[self.out_at..], raw) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(FlowError::Write(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(n)) => self.wrote(n, out.len()),
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(FlowError::Write(e))),
                }
                continue;
            }
            if matches!(self.reader, Reader::Done) {
                return Poll::Ready(self.tell_end(to));
            }
            if self.has_streamed_end(from, out)? {
                continue;
            }
            if let (Stream::Tcp(from), Stream::Tcp(to)) = (&*from, &*to)
                && (self.pipe.is_some() || self.may_splice())
            {
                if self.pipe.is_none() {
                    self.pipe = pipes.take();
                }
                if let Some(pipe) = &mut self.pipe {
                    let mut unbounded = u64::MAX;
                    let left = match &mut self.reader {
                        Reader::Length(n) => n,
                        Reader::Chunked(..)
                        | Reader::Done
                        | Reader::Streamed(..)
                        | Reader::UntilClose => &mut unbounded,
                    };
                    let (mut moved, mut waits) = (0, self.waits);
                    let polled = pipe.poll(cx, from, to, left, &mut moved, &mut waits);
                    self.waits = waits;
                    self.body_bytes += moved;
                    self.spliced += moved;
                    self.written += moved;
                    self.progress += moved;
                    self.rewindable = false;
                    match polled {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(Spliced::Done)) => self.reader = Reader::Done,
                        Poll::Ready(Ok(Spliced::SourceEnded)) => self.ended(out)?,
                        // It is empty, and what is read now is taken from the buffer.
                        Poll::Ready(Ok(Spliced::Marked)) => self.release(pipes),
                        Poll::Ready(Ok(Spliced::Refused)) => {
                            pipes.refuse();
                            self.release(pipes);
                        }
                        Poll::Ready(Err((Side::Read, e))) => {
                            return Poll::Ready(Err(FlowError::Read(e)));
                        }
                        Poll::Ready(Err((Side::Write, e))) => {
                            return Poll::Ready(Err(FlowError::Write(e)));
                        }
                    }
                    if self.pipe.is_some() {
                        continue;
                    }
                }
            }
            self.waits = Side::Read;
            self.make_room(buffer);
            match from.poll_read(cx, buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.ended(out)?,
                Poll::Ready(Ok(n)) => self.progress += n as u64,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(FlowError::Read(e))),
            }
        }
    }

    /// Takes body bytes that were read, as many as are to be written next.
    fn take(&mut self, buffer: &Buffer, out: &mut Vec<u8>) -> Result<(), FlowError> {
        loop {
            let available = buffer.len() - self.cursor;
            match &mut self.reader {
                Reader::Done => return Ok(()),
                Reader::Length(0) => {
                    self.reader = Reader::Done;
                    return Ok(());
                }
                Reader::Length(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                    *left -= n as u64;
                    if n > 0 {
                        self.emit(n, buffer, out)?;
                    }
                    return Ok(());
                }
                Reader::Streamed(_, left) => {
                    if let Some(left) = left {
                        // More than was said, and the destination would take it for another message.
                        *left = left
                            .checked_sub(available as u64)
                            .ok_or(FlowError::Length)?;
                    }
                    if available > 0 {
                        self.emit(available, buffer, out)?;
                    }
                    return Ok(());
                }
                Reader::UntilClose => {
                    if available > 0 {
                        self.emit(available, buffer, out)?;
                    }
                    return Ok(());
                }
                Reader::Chunked(decoder, _) => {
                    let chunk = decoder.decode(&buffer.filled()[self.cursor..]);
                    match chunk.map_err(FlowError::Refused)? {
                        Chunk::NeedMore { skip } => {
                            self.cursor += skip;
                            return Ok(());
                        }
                        Chunk::Data { skip, len } => {
                            self.cursor += skip;
                            if self.emit(len, buffer, out)? {
                                return Ok(());
                            }
                        }
                        Chunk::End { skip, .. } => {
                            self.end_chunks(skip, buffer, out);
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// The chunked body ended; its trailers, if the destination understands them, end it there too.
    fn end_chunks(&mut self, skip: usize, buffer: &Buffer, out: &mut Vec<u8>) {
        let from = self.cursor;
        self.cursor += skip;
        let read = std::mem::replace(&mut self.reader, Reader::Done);
        let Reader::Chunked(decoder, trailers) = read else {
            return;
        };
        let seen = &buffer.filled()[from..from + skip];
        let fields = decoder.trailers().iter();
        let fields = fields.map(|field| (field.name.of(seen), field.value.of(seen)));
        self.end_with(fields.filter(|(name, _)| trailers.pass(name)), out);
    }

    /// Whether the source has told the end of its body; then it is the end here too.
    fn has_streamed_end(
        &mut self,
        from: &mut Stream,
        out: &mut Vec<u8>,
    ) -> Result<bool, FlowError> {
        let Reader::Streamed(..) = &self.reader else {
            return Ok(false);
        };
        if !self.has_end {
            let Some(end) = from.channel().and_then(Channel::take_end) else {
                return Ok(false);
            };
            self.has_end = true;
            self.end = (!end.is_empty()).then(|| Box::new(end));
        }
        let end = self.end.as_deref().cloned().unwrap_or_default();
        let read = std::mem::replace(&mut self.reader, Reader::Done);
        let Reader::Streamed(trailers, left) = read else {
            return Ok(true);
        };
        if left.is_some_and(|left| left > 0) {
            return Err(FlowError::Length);
        }
        let passes = |name: &HeaderName| {
            let name = name.as_str().as_bytes();
            may_be_trailer(name) && trailers.pass(name)
        };
        if self.framing == Framing::Streamed {
            let mut passed = HeaderMap::new();
            for (name, value) in end.iter().filter(|(name, _)| passes(name)) {
                // Copied: it may be a part of all that was read with it, and outlive that in a table.
                if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
                    copy.set_sensitive(value.is_sensitive());
                    passed.append(name, copy);
                }
            }
            self.trailers = (!passed.is_empty()).then(|| Box::new(passed));
        } else {
            let fields = end.iter().filter(|(name, _)| passes(name));
            self.end_with(
                fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
                out,
            );
        }
        Ok(true)
    }

    /// Ends the body at the destination with these trailers, if it understands them.
    fn end_with<'f>(
        &mut self,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        out: &mut Vec<u8>,
    ) {
        match self.framing {
            Framing::Raw => {}
            Framing::Chunked => {
                let out = self.fresh(out);
                out.extend_from_slice(b"0\r\n");
                for (name, value) in fields {
                    out.extend_from_slice(name);
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"\r\n");
            }
            Framing::Streamed => {
                let fields = fields.filter_map(|(name, value)| {
                    let name = HeaderName::from_bytes(name).ok()?;
                    Some((name, HeaderValue::from_bytes(value).ok()?))
                });
                let mut trailers = HeaderMap::new();
                for (name, value) in fields {
                    trailers.append(name, value);
                }
                self.trailers = (!trailers.is_empty()).then(|| Box::new(trailers));
            }
        }
    }

    /// Everything was written: tells a destination so that learns it beside the bytes.
    fn tell_end(&mut self, to: &mut Stream) -> Result<(), FlowError> {
        if self.framing == Framing::Streamed
            && !self.has_told
            && let Some(channel) = to.channel()
        {
            self.has_told = true;
            let trailers = self.trailers.take().map(|trailers| *trailers);
            channel.finish(trailers).map_err(FlowError::Write)?;
        }
        Ok(())
    }

    /// Lays `n` body bytes at the cursor out for writing; whether they must be written before more
    /// can be taken.
    fn emit(&mut self, n: usize, buffer: &Buffer, out: &mut Vec<u8>) -> Result<bool, FlowError> {
        self.body_bytes += n as u64;
        if self.body_bytes > self.limit {
            return Err(FlowError::TooLarge);
        }
        match self.framing {
            // A small body is copied behind its head: a plain write costs less than a gathering
            // one. (What may have to be sent again stays where it is.)
            Framing::Raw if n <= COPY_MAX && self.out_at < out.len() && !self.rewindable => {
                out.extend_from_slice(&buffer.filled()[self.cursor..self.cursor + n]);
                self.cursor += n;
                Ok(true)
            }
            Framing::Raw | Framing::Streamed => {
                self.raw = n;
                Ok(true)
            }
            Framing::Chunked => {
                let out = self.fresh(out);
                push_hex(out, n);
                if n <= COPY_MAX {
                    out.extend_from_slice(&buffer.filled()[self.cursor..self.cursor + n]);
                    out.extend_from_slice(b"\r\n");
                    let full = out.len() >= OUT_MAX;
                    self.cursor += n;
                    Ok(full)
                } else {
                    self.raw = n;
                    self.owes_crlf = true;
                    Ok(true)
                }
            }
        }
    }

    fn wrote(&mut self, n: usize, out_len: usize) {
        self.written += n as u64;
        self.progress += n as u64;
        let head = n.min(out_len - self.out_at);
        self.out_at += head;
        self.cursor += n - head;
        self.raw -= n - head;
    }

    /// The source's stream ended.
    fn ended(&mut self, out: &mut Vec<u8>) -> Result<(), FlowError> {
        match self.reader {
            Reader::UntilClose => {
                self.reader = Reader::Done;
                self.end_with(std::iter::empty(), out);
                Ok(())
            }
            // It tells so itself.
            Reader::Streamed(..) => Ok(()),
            Reader::Chunked(..) | Reader::Done | Reader::Length(_) => Err(FlowError::Truncated),
        }
    }

    /// `out`, emptied if all of it was written.
    fn fresh<'o>(&mut self, out: &'o mut Vec<u8>) -> &'o mut Vec<u8> {
        if self.out_at == out.len() {
            out.clear();
            self.out_at = 0;
        }
        out
    }

    fn make_room(&mut self, buffer: &mut Buffer) {
        if self.rewindable && buffer.len() - self.base < self.keep {
            if buffer.spare().is_empty() {
                // Doubled, so that a body of any size is copied twice at most.
                buffer.grow(2 * buffer.capacity());
            }
        } else if self.cursor == buffer.len() && self.cursor > self.base {
            buffer.truncate(self.base);
            self.cursor = self.base;
            self.rewindable = false;
        } else if buffer.spare().is_empty() {
            // Framing that does not fit behind the head: move it up to the head's end.
            buffer.close_gap(self.base, self.cursor);
            self.cursor = self.base;
            self.rewindable = false;
            if buffer.spare().is_empty() {
                // A trailer section larger than the room behind the head; the decoder's own limit
                // on it bounds this growth.
                buffer.grow(buffer.capacity() + OUT_MAX);
            }
        }
    }

    fn may_splice(&self) -> bool {
        let bulk = match &self.reader {
            Reader::Length(n) => *n >= SPLICE_MIN && self.keep == 0,
            // A stream of small messages is not bulk: wait until it has shown to be.
            Reader::UntilClose => self.body_bytes >= SPLICE_MIN,
            Reader::Chunked(..) | Reader::Done | Reader::Streamed(..) => false,
        };
        bulk && self.framing == Framing::Raw
    }
}

/// `n` in hex and CRLF: a chunk's first line.
fn push_hex(out: &mut Vec<u8>, n: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - n.leading_zeros()).div_ceil(4).max(1);
    for i in (0..digits).rev() {
        out.push(DIGITS[(n >> (4 * i)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}
