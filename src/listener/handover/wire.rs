//! Frames and descriptors over the stream, within a deadline.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use super::HandoverError;
use crate::base::clock::{Clock, Nanos, nanos};

/// Descriptors of one message: the kernel's limit (`SCM_MAX_FD` in include/net/scm.h).
const BATCH: usize = 253;

/// Tag and length.
const HEADER: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tag {
    Failed,
    Go,
    Manifest,
    Ready,
    Stop,
}

/// The stream for one step of the handover.
#[derive(Debug)]
pub(super) struct Wire<'a> {
    stream: &'a UnixStream,
    within: Duration,
    clock: Clock,
    end: Nanos,
}

// === impl Tag ===

impl Tag {
    fn byte(self) -> u8 {
        match self {
            Self::Failed => b'F',
            Self::Go => b'G',
            Self::Manifest => b'M',
            Self::Ready => b'R',
            Self::Stop => b'S',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Failed,
            Self::Go,
            Self::Manifest,
            Self::Ready,
            Self::Stop,
        ];
        all.into_iter().find(|tag| tag.byte() == byte)
    }
}

// === impl Wire ===

impl<'a> Wire<'a> {
    pub(super) fn new(stream: &'a UnixStream, within: Duration) -> Result<Self, HandoverError> {
        // The deadline is the socket's own time-out, which needs a stream that waits.
        stream.set_nonblocking(false).map_err(HandoverError::Io)?;
        let clock = Clock::start();
        Ok(Self {
            stream,
            within,
            clock,
            end: clock.now().saturating_add(nanos(within)),
        })
    }

    pub(super) fn write_frame(
        &mut self,
        tag: Tag,
        payload: &[u8],
        max: usize,
    ) -> Result<(), HandoverError> {
        if payload.len() > max {
            return Err(HandoverError::TooLarge {
                what: "bytes",
                count: payload.len(),
                max,
            });
        }
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.push(tag.byte());
        // No payload comes near 4 GiB: `max` is far below.
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            self.stream
                .set_write_timeout(Some(self.left()?))
                .map_err(HandoverError::Io)?;
            match send(self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(n) => rest = &rest[n.min(rest.len())..],
                Err(e) => again(e)?,
            }
        }
        Ok(())
    }

    /// The next frame; `max` says how long one of its kind may be.
    pub(super) fn read_frame(
        &mut self,
        max: impl Fn(Tag) -> usize,
    ) -> Result<(Tag, Vec<u8>), HandoverError> {
        let mut header = [0; HEADER];
        self.read(&mut header)?;
        let [tag, length @ ..] = header;
        let Some(tag) = Tag::of(tag) else {
            let what = format!("a frame with tag {tag:#04x}");
            return Err(HandoverError::Malformed { what });
        };
        let (count, max) = (u32::from_be_bytes(length) as usize, max(tag));
        if count > max {
            return Err(HandoverError::TooLarge {
                what: "bytes",
                count,
                max,
            });
        }
        let mut payload = vec![0; count];
        self.read(&mut payload)?;
        Ok((tag, payload))
    }

    pub(super) fn write_descriptors(
        &mut self,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        for batch in descriptors.chunks(BATCH) {
            loop {
                self.stream
                    .set_write_timeout(Some(self.left()?))
                    .map_err(HandoverError::Io)?;
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fits = control.push(SendAncillaryMessage::ScmRights(batch));
                debug_assert!(fits, "the space is that of a whole batch");
                // One byte: a stream never splits it, so the descriptors travel exactly once.
                let byte = [batch.len() as u8];
                let data = [IoSlice::new(&byte)];
                match sendmsg(self.stream, &data, &mut control, SendFlags::NOSIGNAL) {
                    Ok(_) => break,
                    Err(e) => again(e)?,
                }
            }
        }
        Ok(())
    }

    pub(super) fn read_descriptors(&mut self, count: usize) -> Result<Vec<OwnedFd>, HandoverError> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            self.stream
                .set_read_timeout(Some(self.left()?))
                .map_err(HandoverError::Io)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut data = [IoSliceMut::new(&mut byte)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = match recvmsg(self.stream, &mut data, &mut control, flags) {
                Ok(message) => message,
                Err(e) => {
                    again(e)?;
                    continue;
                }
            };
            let before = all.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    all.extend(fds);
                }
            }
            let arrived = all.len() - before;
            if message.bytes == 0 {
                return Err(HandoverError::Closed);
            }
            if message.flags.contains(ReturnFlags::CTRUNC) {
                return Err(HandoverError::Truncated);
            }
            if arrived == 0 || arrived != byte[0] as usize || all.len() > count {
                let (said, so_far) = (byte[0], all.len());
                let what = format!(
                    "a batch of {said} came with {arrived} descriptors ({so_far} of {count})"
                );
                return Err(HandoverError::Malformed { what });
            }
        }
        Ok(all)
    }

    fn read(&mut self, mut rest: &mut [u8]) -> Result<(), HandoverError> {
        while !rest.is_empty() {
            self.stream
                .set_read_timeout(Some(self.left()?))
                .map_err(HandoverError::Io)?;
            match recv(self.stream, &mut *rest, RecvFlags::empty()) {
                Ok((0, _)) => return Err(HandoverError::Closed),
                Ok((n, _)) => rest = &mut rest[n..],
                Err(e) => again(e)?,
            }
        }
        Ok(())
    }

    /// What is left of the time: at least a microsecond, because zero means "for ever" to a socket.
    fn left(&self) -> Result<Duration, HandoverError> {
        let left = self.end.saturating_sub(self.clock.now());
        if left == 0 {
            return Err(HandoverError::Deadline { after: self.within });
        }
        Ok(Duration::from_nanos(left).max(Duration::from_micros(1)))
    }
}

/// An error after which the deadline decides whether to go on.
fn again(error: Errno) -> Result<(), HandoverError> {
    match error {
        // The socket's time-out; and a signal.
        Errno::AGAIN | Errno::INTR => Ok(()),
        Errno::PIPE | Errno::CONNRESET => Err(HandoverError::Closed),
        error => Err(HandoverError::Io(io::Error::from(error))),
    }
}
