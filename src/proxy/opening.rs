//! What a client has said by the time that an endpoint is connected for it.
//!
//! It is taken before the connect rather than behind it, where it would be the next thing to be read: a
//! connection on which something waits to be said costs two segments less ([`crate::base::socket::Socket::connect`]).

use std::io;

use crate::base::buffer::Buffer;

use super::h1::Conn;
use super::pump::Start;
use super::tcp::Passage;
use super::worker::Worker;

/// The first words of a client, for its endpoint.
#[derive(Debug)]
pub(super) struct Opening {
    bytes: Buffer,
    source: Source,
}

/// Where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Wherever: nobody has looked.
    Unheard,
    /// In the kernel, where they were looked at. The reactor was told that they are known while more was waited
    /// for, and does not tell of them again.
    Known,
    /// In the kernel, for a pipe.
    Piped,
    /// Here, or there were none.
    Here,
}

// === impl Opening ===

impl Opening {
    pub(super) fn new(conn: &Conn, passage: &Passage) -> Self {
        let source = match passage.start {
            Start::Splicing => Source::Piped,
            // What is not encrypted yet may say nothing for now.
            Start::Copying if conn.stream.is_encrypted() => Source::Here,
            Start::Copying if passage.is_looked_at => Source::Known,
            Start::Copying => Source::Unheard,
        };
        Self {
            bytes: Buffer::none(),
            source,
        }
    }

    /// Takes what is there, before a connect; unless so many wait for one that their buffers would be more than
    /// is kept anyway.
    ///
    /// # Errors
    /// Its client has reset the connection.
    pub(super) fn hear(&mut self, conn: &mut Conn, worker: &Worker) -> io::Result<()> {
        if matches!(self.source, Source::Unheard | Source::Known) && worker.buffers.is_ample() {
            self.take(conn, worker)?;
        }
        Ok(())
    }

    /// Whether something waits to be said.
    pub(super) fn has_spoken(&self) -> bool {
        self.source == Source::Piped || self.is_held()
    }

    /// Whether it was taken, so that it is seen no more by who looks at the connection.
    pub(super) fn is_held(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// What is to be passed on first.
    ///
    /// # Errors
    /// Its client has reset the connection.
    pub(super) fn into_bytes(mut self, conn: &mut Conn, worker: &Worker) -> io::Result<Buffer> {
        if self.source == Source::Known {
            self.take(conn, worker)?;
        }
        Ok(self.bytes)
    }

    /// Nobody hears it.
    pub(super) fn release(self, worker: &Worker) {
        worker.buffers.put(self.bytes);
    }

    fn take(&mut self, conn: &mut Conn, worker: &Worker) -> io::Result<()> {
        let mut buffer = worker.buffers.take();
        let read = if self.source == Source::Known {
            conn.stream.read_now(buffer.spare())
        } else {
            conn.stream.try_read(buffer.spare())
        };
        self.source = Source::Here;
        match read {
            Ok(n) if n > 0 => {
                buffer.commit(n);
                self.bytes = buffer;
                return Ok(());
            }
            // An end is told again and again.
            Ok(_) => worker.buffers.put(buffer),
            Err(e) => {
                worker.buffers.put(buffer);
                // A reset is told once.
                if e.kind() != io::ErrorKind::WouldBlock {
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}
