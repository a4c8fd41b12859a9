//! The chunked coding, read incrementally: framing bytes are skipped in place, data is not copied.

use super::field::{Field, FieldId, Span, is_aliased_framing};
use super::framing::MAX_BODY;
use super::head::{Resume, diagnose_fields, line_end};
use super::limits::{HARD_MAX_FIELDS, Limits};
use super::refusal::Refusal;
use super::trailer::may_pass;

/// Bytes of the trailers of one body; hyper's bound.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Bytes of the extensions of one chunk. No extension is in use; signatures of 64-128 bytes (AWS)
/// are the longest known.
const MAX_EXTENSION_BYTES: u32 = 256;

/// Bytes of all extensions of one body; hyper's bound. Without it, one byte of data may drag
/// hundreds along for ever.
const MAX_EXTENSION_TOTAL: u32 = 16 * 1024;

/// Hexadecimal digits of 2^64 - 1; more can only be leading zeros or an overflow.
const MAX_SIZE_DIGITS: u8 = 16;

/// What the next bytes of a chunked body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Drop `skip` bytes; the rest of the buffer must be seen again with more behind it.
    NeedMore {
        /// Framing bytes done with.
        skip: usize,
    },
    /// Drop `skip` bytes, then take `len` bytes of data; the decoder counts both as consumed.
    Data {
        /// Framing bytes before the data.
        skip: usize,
        /// Bytes of data in the buffer, never 0.
        len: usize,
    },
    /// The body and its trailers end after `skip` bytes. [`ChunkDecoder::trailers`] are spans of
    /// the buffer just given.
    End {
        /// Framing and trailer bytes, all consumed.
        skip: usize,
    },
}

/// The line before a chunk of some length: hexadecimal digits and CRLF, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct SizeLine {
    /// Filled from the end: 16 digits and CRLF.
    bytes: [u8; 18],
    start: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// White space after the size: an extension must follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// Decodes one chunked body; `reset` prepares it for the next. It allocates for trailers only.
#[derive(Debug)]
pub struct ChunkDecoder {
    limits: Limits,
    state: State,
    digits: u8,
    /// The size while its digits are read, then the data bytes to come.
    left: u64,
    extension: u32,
    extension_total: u32,
    resume: Resume,
    trailers: Vec<Field>,
}

// === impl SizeLine ===

impl SizeLine {
    /// The line for a chunk of `len` bytes. A chunk of 0 would end the body, so what has no bytes
    /// is not sent as a chunk.
    #[inline]
    #[must_use]
    pub fn new(len: u64) -> Self {
        let mut bytes = *b"0000000000000000\r\n";
        let mut start = 16;
        let mut left = len;
        for (i, digit) in bytes.iter_mut().enumerate().take(16).rev() {
            *digit = b"0123456789abcdef"[(left & 15) as usize];
            start = i as u8;
            left >>= 4;
            if left == 0 {
                break;
            }
        }
        Self { bytes, start }
    }

    /// Its bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start as usize..).unwrap_or_default()
    }
}

// === impl ChunkDecoder ===

impl ChunkDecoder {
    /// A decoder at the begin of a body. Of `limits` only `max_fields` matters: it bounds the
    /// trailers.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let limits = Limits {
            max_head_bytes: MAX_TRAILER_BYTES,
            ..*limits
        };
        Self {
            limits,
            state: State::Size,
            digits: 0,
            left: 0,
            extension: 0,
            extension_total: 0,
            resume: Resume::default(),
            trailers: Vec::new(),
        }
    }

    /// Back to the begin of a body.
    pub fn reset(&mut self) {
        self.state = State::Size;
        self.digits = 0;
        self.left = 0;
        self.extension = 0;
        self.extension_total = 0;
        self.resume = Resume::default();
        self.trailers.clear();
    }

    /// Reads on; `buf` begins with the first byte not consumed before. Many chunks in one buffer
    /// take one call each.
    ///
    /// # Errors
    /// The coding is broken: the connection cannot be used further, nor can the decoder.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Chunk, Refusal> {
        let mut skip = 0;
        loop {
            match self.state {
                State::Data if self.left == 0 => self.state = State::DataCr,
                State::Data if skip == buf.len() => return Ok(Chunk::NeedMore { skip }),
                State::Data => {
                    let available = (buf.len() - skip) as u64;
                    let len = self.left.min(available);
                    self.left -= len;
                    return Ok(Chunk::Data {
                        skip,
                        len: len as usize,
                    });
                }
                State::Trailers => return self.end(buf, skip),
                State::End => return Ok(Chunk::End { skip }),
                State::Size
                | State::Space
                | State::Extension
                | State::SizeLf
                | State::DataCr
                | State::DataLf => {
                    let Some(&b) = buf.get(skip) else {
                        return Ok(Chunk::NeedMore { skip });
                    };
                    self.step(b)?;
                    skip += 1;
                }
            }
        }
    }

    /// One framing byte.
    #[inline]
    fn step(&mut self, b: u8) -> Result<(), Refusal> {
        self.state = match (self.state, b) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = if b <= b'9' {
                    b - b'0'
                } else {
                    (b | 0x20) - b'a' + 10
                };
                self.digits += 1;
                if self.digits > MAX_SIZE_DIGITS || self.left > MAX_BODY >> 4 {
                    return Err(Refusal::ChunkTooLarge);
                }
                self.left = self.left << 4 | u64::from(digit);
                State::Size
            }
            (State::Size, _) if self.digits == 0 && b != b'\n' => return Err(Refusal::BadChunk),
            (State::Size | State::Extension, b'\r') => {
                self.digits = 0;
                self.extension = 0;
                State::SizeLf
            }
            (State::Size | State::Space | State::Extension, b'\n') => {
                return Err(Refusal::BareLf);
            }
            (State::Size | State::Space, b';') => self.extend(State::Extension)?,
            (State::Size | State::Space, b' ' | b'\t') => self.extend(State::Space)?,
            (State::Extension, b'\t' | b' '..=b'~') => self.extend(State::Extension)?,
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataCr, b'\n') => return Err(Refusal::BareLf),
            (State::DataLf, b'\n') => State::Size,
            (State::SizeLf | State::DataLf, _) => return Err(Refusal::BareCr),
            (
                State::Size
                | State::Space
                | State::Extension
                | State::DataCr
                | State::Data
                | State::Trailers
                | State::End,
                _,
            ) => return Err(Refusal::BadChunk),
        };
        Ok(())
    }

    /// Counts a byte of an extension.
    fn extend(&mut self, state: State) -> Result<State, Refusal> {
        self.extension += 1;
        self.extension_total += 1;
        if self.extension > MAX_EXTENSION_BYTES || self.extension_total > MAX_EXTENSION_TOTAL {
            return Err(Refusal::ChunkExtensionTooLong);
        }
        Ok(state)
    }

    /// The trailers, which begin at `skip`, and the empty line.
    fn end(&mut self, buf: &[u8], skip: usize) -> Result<Chunk, Refusal> {
        let section = buf.get(skip..).unwrap_or_default();
        if let [] | [b'\r' | b'\n', ..] = section {
            return Ok(match line_end(section, 0, Refusal::BadChunk)? {
                None => Chunk::NeedMore { skip },
                Some(len) => {
                    self.state = State::End;
                    Chunk::End { skip: skip + len }
                }
            });
        }
        if !self.resume.is_due(section, &self.limits) {
            return Ok(Chunk::NeedMore { skip });
        }
        let window = &section[..section.len().min(MAX_TRAILER_BYTES)];
        let mut scratch = [httparse::EMPTY_HEADER; HARD_MAX_FIELDS];
        let scratch = scratch.get_mut(..self.limits.fields()).unwrap_or_default();
        match httparse::parse_headers(window, scratch) {
            Ok(httparse::Status::Partial) if window.len() < MAX_TRAILER_BYTES => {
                Ok(Chunk::NeedMore { skip })
            }
            Ok(httparse::Status::Partial) => Err(Refusal::TrailersTooLong),
            Ok(httparse::Status::Complete((len, fields))) => {
                self.keep(buf, skip, len, fields)?;
                self.state = State::End;
                Ok(Chunk::End { skip: skip + len })
            }
            Err(error) => Err(diagnose_fields(window, 0, &self.limits, error)),
        }
    }

    /// Keeps the trailers that may be forwarded (RFC 9110 section 6.5.1): those that decide where
    /// a message ends or goes are an attack and refused, the others are dropped.
    fn keep(
        &mut self,
        buf: &[u8],
        start: usize,
        len: usize,
        fields: &[httparse::Header<'_>],
    ) -> Result<(), Refusal> {
        let is_crlf = |next: usize| buf.get(next.wrapping_sub(2)) == Some(&b'\r');
        let end = start + len;
        let mut strict = is_crlf(end) && is_crlf(end - 2);
        let mut forbidden = false;
        for (i, header) in fields.iter().enumerate() {
            let name = Span::locate(buf, header.name.as_bytes());
            strict &= i == 0 || is_crlf(name.start as usize);
            let id = FieldId::of(header.name.as_bytes());
            forbidden |= matches!(
                id,
                FieldId::ContentLength | FieldId::TransferEncoding | FieldId::Host
            ) || is_aliased_framing(header.name.as_bytes());
            if may_pass(id, header.name.as_bytes()) {
                self.trailers.push(Field {
                    name,
                    value: Span::locate(buf, header.value),
                    id,
                });
            }
        }
        match (strict, forbidden) {
            (false, _) => Err(Refusal::BareLf),
            (true, true) => Err(Refusal::ForbiddenTrailer),
            (true, false) => Ok(()),
        }
    }

    /// The trailers to forward, once [`Chunk::End`] came; spans of the buffer given to that call.
    #[must_use]
    pub fn trailers(&self) -> &[Field] {
        &self.trailers
    }

    /// Whether [`Chunk::End`] came.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// Data bytes of the current chunk that have not been in a buffer yet: they may be moved
    /// another way (splice) and then told with [`Self::advance`].
    #[must_use]
    pub fn data_left(&self) -> u64 {
        if self.state == State::Data {
            self.left
        } else {
            0
        }
    }

    /// Says that `n` bytes of data passed by another way; no more than [`Self::data_left`] count.
    pub fn advance(&mut self, n: u64) {
        if self.state == State::Data {
            self.left = self.left.saturating_sub(n);
        }
    }
}
