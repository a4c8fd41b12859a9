//! Moving body bytes from socket to socket inside the kernel (splice(2) through a pipe).
//!
//! Rules learned from others' hangs: a pipe belongs to one flow and its fill is counted here, so
//! that EAGAIN is never ambiguous (the pipe is always emptied before the next fill: EAGAIN on the
//! filling side can then only mean that the socket is empty, or stands at the mark of urgent data,
//! which a peek tells apart, and clearing the reactor's readiness is right). A pipe slot may hold more
//! than its nominal size, so nothing here asserts a capacity. Where the system refuses splice(2) everything is
//! copied: `isobar_relayed_bytes_total{way="copy"}` tells.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;

use crate::base::socket::Socket;

/// From this many body bytes to come splicing pays: below, the copy of what arrives in one or two
/// reads costs less than the second system call (bench/README.md, "splice").
pub(super) const SPLICE_MIN: u64 = 64 * 1024;

/// Asked of the kernel for each pipe; unprivileged users may go to /proc/sys/fs/pipe-max-size
/// (1 MiB by default) and 64 MiB in total, past which new pipes shrink and still work.
const PIPE_SIZE: usize = 1024 * 1024;

/// Bytes moved before other tasks get their turn.
const TURN: usize = 4 * 1024 * 1024;

/// Idle pipes a worker keeps: 16 x 1 MiB of the user's 64 MiB, held only as reservations.
const KEEP: usize = 16;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    /// The system does not splice: asking again would be a call in vain for every body.
    is_refused: Cell<bool>,
}

/// A pipe and how many bytes it holds.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

/// How a turn of splicing ended.
#[derive(Debug)]
pub enum Spliced {
    /// Everything asked for has been written.
    Done,
    /// The source ended first.
    SourceEnded,
    /// There is more, and splice(2) does not get to it: what comes next is to be read.
    Marked,
    /// The system does not splice at all (see [`Pipes::refuse`]): everything is to be read.
    Refused,
}

/// Which side failed, or which is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Read,
    /// The destination.
    Write,
}

/// Whether a source that splice(2) finds empty, or ended, is not: it never passes the mark of urgent data
/// (`tcp_read_sock` of Linux), tells of an end once the FIN is there, and the bytes behind the mark would be lost.
/// A read does pass it. (Or bytes have come this instant: then they are read as well.)
fn has_more(from: &Socket) -> bool {
    let peeked = recv(from, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Ok((_, 1..)))
}

/// Whether it is asked again: once the socket is ready, or at once where a signal came in between.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whether splice(2) itself was refused, by a container's filter of system calls (EPERM, or ENOSYS) or by a
/// system that has it for files alone (EINVAL). No socket's own failure looks like these, and no byte was taken.
fn is_refusal(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::PERM | Errno::NOSYS | Errno::INVAL))
}

// === impl Pipes ===

impl Pipes {
    /// An empty pipe, or `None` where the system gives none (then bodies are copied).
    pub fn take(&self) -> Option<Pipe> {
        if self.is_refused.get() {
            return None;
        }
        if let Some(pipe) = self.idle.borrow_mut().pop() {
            return Some(pipe);
        }
        let flags = PipeFlags::NONBLOCK | PipeFlags::CLOEXEC;
        let (read, write) = rustix::pipe::pipe_with(flags).ok()?;
        // Best effort: a smaller pipe only means more turns.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        Some(Pipe {
            read,
            write,
            held: 0,
        })
    }

    /// Gives no pipe from now on, to nobody: the system was seen to refuse what they are for.
    pub fn refuse(&self) {
        self.is_refused.set(true);
        self.idle.borrow_mut().clear();
    }

    /// Takes an empty pipe back; one that still holds bytes of a broken flow is closed.
    pub fn put(&self, pipe: Pipe) {
        let mut idle = self.idle.borrow_mut();
        if pipe.held == 0 && idle.len() < KEEP && !self.is_refused.get() {
            idle.push(pipe);
        }
    }
}

// === impl Pipe ===

impl Pipe {
    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves up to `left` bytes (counted down) from `from` to `to`. `moved` grows with every byte
    /// written, `waits` says which side a `Pending` waits for.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        left: &mut u64,
        moved: &mut u64,
        waits: &mut Side,
    ) -> Poll<Result<Spliced, (Side, io::Error)>> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let mut turn = 0;
        loop {
            while self.held > 0 {
                *waits = Side::Write;
                ready!(to.poll_write_ready(cx)).map_err(|e| (Side::Write, e))?;
                let held = self.held;
                let wrote = to.try_io(Interest::WRITABLE, || {
                    Ok(rustix::pipe::splice(
                        &self.read, None, to, None, held, flags,
                    )?)
                });
                match wrote {
                    Ok(0) => {
                        return Poll::Ready(Err((Side::Write, io::ErrorKind::WriteZero.into())));
                    }
                    Ok(n) => {
                        self.held -= n;
                        *moved += n as u64;
                        turn += n;
                    }
                    Err(e) if is_passing(&e) => {}
                    Err(e) => return Poll::Ready(Err((Side::Write, e))),
                }
            }
            if *left == 0 {
                return Poll::Ready(Ok(Spliced::Done));
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            *waits = Side::Read;
            ready!(from.poll_read_ready(cx)).map_err(|e| (Side::Read, e))?;
            let want = usize::try_from(*left).unwrap_or(usize::MAX).min(PIPE_SIZE);
            let read = from.try_io(Interest::READABLE, || {
                let read = rustix::pipe::splice(from, None, &self.write, None, want, flags);
                match read {
                    Ok(0) | Err(Errno::AGAIN) if has_more(from) => Ok(None),
                    read => Ok(Some(read?)),
                }
            });
            match read {
                Ok(None) => return Poll::Ready(Ok(Spliced::Marked)),
                Ok(Some(0)) => return Poll::Ready(Ok(Spliced::SourceEnded)),
                Ok(Some(n)) => {
                    self.held += n;
                    *left -= n as u64;
                }
                Err(e) if is_passing(&e) => {}
                Err(e) if is_refusal(&e) => return Poll::Ready(Ok(Spliced::Refused)),
                Err(e) => return Poll::Ready(Err((Side::Read, e))),
            }
        }
    }
}
