//! Two connections joined, whatever is spoken on them: one direction of it.
//!
//! A quiet direction holds no buffer and no pipe: it waits for readability first, borrows from the
//! worker, and gives back once everything that was read has been written. Small messages are copied (a
//! read and a write, and no third call: a short read tells that there is no more); bulk goes through a
//! pipe inside the kernel, for as long as it is bulk.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use crate::base::buffer::Buffer;
use crate::base::socket::Socket;
use crate::base::stream::Stream;

use super::splice::{Pipe, SPLICE_MIN, Side, Spliced};
use super::worker::Worker;

/// One direction of two connections that are joined.
#[derive(Debug)]
pub(super) struct Pump {
    buffer: Buffer,
    pipe: Option<Pipe>,
    /// Whether the next bytes go through a pipe.
    is_bulk: bool,
    /// How it began.
    pub start: Start,
    /// The reactor was asked to tell of its source, and has not: what was last asked for still holds.
    is_awaited: bool,
    /// Its source has ended; what was read is still to be written.
    has_ended: bool,
    /// Its source's end was passed on.
    pub is_done: bool,
    /// It ended because its destination hears no more: having said all it had to say, it closed.
    pub is_deaf: bool,
    /// Bytes that were written.
    pub moved: u64,
    /// Those of them that went through a pipe.
    pub spliced: u64,
}

/// How two connections begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With messages, as it seems: bulk must show itself.
    Copying,
    /// In the kernel at once, and again as soon as more comes than a buffer holds: nobody here looks at
    /// the bytes.
    Splicing,
}

/// A turn of a pipe that moves less is no bulk: reading what is there would have done it.
const BULK_TURN: u64 = 16 * 1024;

// === impl Pump ===

impl Pump {
    /// A direction; `first` was read of its source already.
    pub(super) fn new(first: Buffer, start: Start) -> Self {
        Self {
            buffer: first,
            pipe: None,
            is_bulk: start == Start::Splicing,
            start,
            is_awaited: false,
            has_ended: false,
            is_done: false,
            is_deaf: false,
            moved: 0,
            spliced: 0,
        }
    }

    /// Moves what can be moved; always for the same task. The end of the source is passed on as the end of
    /// this direction only (half-close), unless `is_last`: then both connections are about to be closed, which
    /// says it too.
    ///
    /// # Errors
    /// Which side failed, and how.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        from: &mut Stream,
        to: &mut Stream,
        is_last: bool,
    ) -> Result<(), (Side, io::Error)> {
        if self.is_done {
            return Ok(());
        }
        match self.advance(cx, worker, from, to) {
            Poll::Ready(Ok(())) => {
                self.is_done = true;
                // TLS tells an end from a cut, and a stream of HTTP/2 has no other way.
                if !is_last || !matches!(to, Stream::Tcp(_) | Stream::Unix(_)) {
                    to.shutdown_write();
                }
            }
            Poll::Ready(Err((Side::Write, e))) if e.kind() == io::ErrorKind::BrokenPipe => {
                // Not a reset: its FIN came before, and what it sent until then is still on its way in
                // the other direction.
                self.is_done = true;
                self.is_deaf = true;
            }
            Poll::Ready(Err(failed)) => return Err(failed),
            Poll::Pending => {}
        }
        self.rest(worker);
        Ok(())
    }

    /// Ready when the source has ended and everything was written.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<Result<(), (Side, io::Error)>> {
        loop {
            while !self.buffer.is_empty() {
                let written = match &mut *to {
                    Stream::Tcp(to) => to.poll_send(cx, self.buffer.filled()),
                    to => to.poll_write(cx, self.buffer.filled()),
                };
                match written {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err((Side::Write, io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(n)) => {
                        self.buffer.consume(n);
                        self.moved += n as u64;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err((Side::Write, e))),
                }
            }
            if self.has_ended {
                // The last of it may have filled the kernel's buffer, and then there is no room for this.
                if let Stream::Tls(to) = to
                    && to.poll_goodbye(cx).is_pending()
                {
                    return Poll::Pending;
                }
                return Poll::Ready(Ok(()));
            }
            let may_splice = self.is_bulk || self.pipe.is_some();
            if let Stream::Tcp(source) = &*from
                && !(may_splice && matches!(to, Stream::Tcp(_)))
            {
                ready!(self.poll_message(cx, worker, source))?;
                continue;
            }
            self.is_awaited = false;
            if self.pipe.is_none() && self.buffer.is_none() {
                match from.poll_readable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err((Side::Read, e))),
                    Poll::Ready(Ok(())) => {}
                }
            }
            if may_splice
                && let (Stream::Tcp(from), Stream::Tcp(to)) = (&*from, &*to)
                && let Some(pipe) = self.pipe.take().or_else(|| worker.pipes.take())
            {
                let pipe = self.pipe.insert(pipe);
                let before = self.moved;
                let (mut left, mut waits) = (u64::MAX, Side::Read);
                let polled = pipe.poll(cx, from, to, &mut left, &mut self.moved, &mut waits);
                let turn = self.moved - before;
                self.spliced += turn;
                match polled {
                    Poll::Pending => {
                        let is_small = (1..BULK_TURN).contains(&turn);
                        self.is_bulk &= waits == Side::Write || !is_small;
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Spliced::Done | Spliced::SourceEnded)) => {
                        return Poll::Ready(Ok(()));
                    }
                    // Read below.
                    Poll::Ready(Ok(Spliced::Marked)) => {}
                    Poll::Ready(Ok(Spliced::Refused)) => {
                        self.pipe = None;
                        worker.pipes.refuse();
                    }
                    Poll::Ready(Err(failed)) => return Poll::Ready(Err(failed)),
                }
            }
            if self.buffer.is_none() {
                self.buffer = worker.buffers.take();
            }
            match from.poll_read(cx, &mut self.buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) => self.note_read(n),
                Poll::Ready(Err(e)) => return Poll::Ready(Err((Side::Read, e))),
            }
        }
    }

    /// Reads what has come by `from`, or its end.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        from: &Socket,
    ) -> Poll<Result<(), (Side, io::Error)>> {
        let (buffer, is_awaited) = (&mut self.buffer, &mut self.is_awaited);
        let read = from.recv(|| {
            *is_awaited = false;
            if buffer.is_none() {
                *buffer = worker.buffers.take();
            }
            buffer.spare()
        });
        match read {
            Ok(n) => {
                self.buffer.commit(n);
                self.note_read(n);
                // One who sends faster than is read must leave others their turn.
                if self.buffer.spare().is_empty() {
                    ready!(coop::poll_proceed(cx)).made_progress();
                }
                Poll::Ready(Ok(()))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // Asking costs more than all that was done here when it was the other side that woke us.
                if self.is_awaited {
                    return Poll::Pending;
                }
                // A task that has used up its turn is woken again, and nothing was asked for.
                let is_asked = coop::has_budget_remaining();
                let polled = from.poll_read_ready(cx);
                self.is_awaited = is_asked && polled.is_pending();
                polled.map_err(|e| (Side::Read, e))
            }
            Err(e) => Poll::Ready(Err((Side::Read, e))),
        }
    }

    /// Notes that `n` bytes were read into the buffer, which held none.
    fn note_read(&mut self, n: usize) {
        if n == 0 {
            self.has_ended = true;
            return;
        }
        let is_full = self.buffer.spare().is_empty();
        self.is_bulk = is_full && (self.start == Start::Splicing || self.moved >= SPLICE_MIN);
    }

    /// Gives back what nothing lies in.
    fn rest(&mut self, worker: &Worker) {
        if (self.is_done || self.buffer.is_empty()) && !self.buffer.is_none() {
            let buffer = std::mem::replace(&mut self.buffer, Buffer::none());
            worker.buffers.put(buffer);
        }
        let is_done = self.is_done;
        if let Some(pipe) = self.pipe.take_if(|pipe| is_done || pipe.is_empty()) {
            worker.pipes.put(pipe);
        }
    }

    /// Whether bytes that were read are still to be written.
    pub(super) fn holds_bytes(&self) -> bool {
        !self.buffer.is_empty() || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    /// Ends it: nobody hears what it would bring.
    pub(super) fn give_up(&mut self, worker: &Worker) {
        self.is_deaf = true;
        self.release(worker);
    }

    /// Gives everything back.
    pub(super) fn release(&mut self, worker: &Worker) {
        self.is_done = true;
        self.rest(worker);
    }
}
