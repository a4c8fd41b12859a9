//! Counts the frames of a client's connection and says when they are an abuse; pure.
//!
//! The machine of a connection (`http2::mux`) bounds the memory that a client can take, and not the work: each frame below
//! costs a client nothing and us a walk through its state, a reply, or a request to an endpoint. So
//! all bytes that come pass here before it takes them, and all that go pass here too, because what
//! we sent explains much of what comes. Only the nine bytes of each frame's header (RFC 9113 section
//! 4.1) and at most four of its payload are looked at; nothing is kept of them and nothing allocated.
//!
//! # What is counted
//! | kind | what costs one | what gives one back |
//! |---|---|---|
//! | `Resets` | RST_STREAM that comes | an answer that we have sent whole |
//! | `ProvokedResets` | RST_STREAM that we send for a fault of the client's | |
//! | `Settings` | SETTINGS, not an acknowledgement | |
//! | `Pings` | PING, not an acknowledgement | a DATA frame that we send |
//! | `IdleFrames` | a frame that moves nothing and that nothing explains | |
//!
//! Each is a token bucket: as many at once as the configuration says, and a thirtieth of that every
//! second (nghttp2 lets 1,000 resets pass, and 33 a second).
//! - *Answers give resets back*, so that a busy proxy or gRPC client may cancel every second request
//!   of its one connection for ever, as Envoy lets it (more than half is too many there, too);
//!   a client that only cancels gets the bucket and no more.
//! - *DATA gives pings back*: gRPC estimates its bandwidth by a PING after DATA has come, again and
//!   again, one at a time; over loopback that is thousands a second.
//! - *What explains an idle frame*: see [`EXPLAINED_BY_FRAME`] and [`EXPLAINED_BYTES`]. Explanations
//!   do not expire, for a client that reads late updates its windows late, and are bounded by what we
//!   sent and what it opened.
//!
//! A header block has no budget but bounds of its own: [`CONTINUATIONS`], and none of them empty. A
//! frame too large, out of place or malformed is for the machine to refuse.

use crate::base::clock::Nanos;
use crate::config::Http2;
use crate::telemetry::abuse::Abuse;

/// Of one connection with a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameMeter {
    incoming: Walker,
    outgoing: Walker,
    resets: Budget,
    provoked: Budget,
    settings: Budget,
    pings: Budget,
    idle: Budget,
    /// Resets that we sent since bytes came last: they are taken then, when there is a `now`.
    provoked_since: u32,
    /// So many more idle frames are as they should be.
    explained: u32,
    /// Streams that were opened with a body to come: each may end by an empty DATA frame.
    ends_due: u32,
    /// The highest stream that the client opened.
    last_stream: u32,
    /// When the header block began that is not whole yet.
    block_since: Option<Nanos>,
    /// Its CONTINUATION frames.
    block_frames: u32,
    /// The frame that is passing is its last.
    block_ends: bool,
    /// The kind of the frame that came last.
    last_kind: u8,
}

/// A token bucket as one time (GCRA): `back_at` is when all that was taken will be back. A full bucket
/// is back after [`PERIOD`], whatever the burst, so `interval` is all there is to know: 16 bytes, and
/// unlike `guard::gcra` it can be given back to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Budget {
    /// Until one comes back.
    interval: Nanos,
    back_at: Nanos,
}

/// Finds frames in a stream of bytes that is cut anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Walker {
    /// Bytes to pass over: the rest of a payload.
    skip: u32,
    /// The header and the first bytes of the payload, if they came in pieces; else zeros.
    gathered: [u8; HEADER + FIRST],
    filled: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    length: u32,
    stream: u32,
    /// Of its payload, as far as [`first_bytes`] asks for them.
    first: [u8; FIRST],
}

/// A bucket is full again after so long: nghttp2's 1,000 and 33 a second.
const PERIOD: Nanos = 30 * 1_000_000_000;

/// Most CONTINUATION frames in a header block: with frames of 16 KiB, the smallest maximum that RFC
/// 9113 section 4.2 knows, they carry 272 KiB, more than any `max_header_bytes` of use.
const CONTINUATIONS: u32 = 16;

/// So many idle frames are explained by each DATA frame of ours (WINDOW_UPDATE of the stream and of
/// the connection, twice, for clients that open the window by halves), and by each stream that the
/// client opens (WINDOW_UPDATE, PRIORITY or PRIORITY_UPDATE, as browsers do, and again on a change).
const EXPLAINED_BY_FRAME: u32 = 4;

/// And one more by so many bytes of our DATA: Go's client updates both windows after every 4 KiB that
/// its program has read.
const EXPLAINED_BYTES: u32 = 2048;

/// "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" (RFC 9113 section 3.4), which the machine checks.
const PREFACE: u32 = 24;

const HEADER: usize = 9;
const FIRST: usize = 4;

// RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

// === impl FrameMeter ===

impl FrameMeter {
    /// For a connection that begins now, with the client's preface.
    pub(crate) fn new(limits: &Http2, now: Nanos) -> Self {
        Self {
            incoming: Walker {
                skip: PREFACE,
                ..Walker::default()
            },
            outgoing: Walker::default(),
            resets: Budget::new(limits.max_resets, now),
            provoked: Budget::new(limits.max_resets, now),
            settings: Budget::new(limits.max_settings, now),
            pings: Budget::new(limits.max_pings, now),
            idle: Budget::new(limits.max_idle_frames, now),
            provoked_since: 0,
            explained: 0,
            ends_due: 0,
            last_stream: 0,
            block_since: None,
            block_frames: 0,
            block_ends: false,
            last_kind: DATA,
        }
    }

    /// Counts what came, which ends anywhere.
    ///
    /// # Errors
    /// The first abuse; what follows it was not looked at, and the connection is to be ended.
    pub(crate) fn received(&mut self, mut bytes: &[u8], now: Nanos) -> Result<(), Abuse> {
        let provoked = std::mem::take(&mut self.provoked_since);
        self.provoked.take(provoked, now, Abuse::ProvokedResets)?;
        while let Some(frame) = self.incoming.next(&mut bytes) {
            self.end_block();
            self.count(&frame, now)?;
        }
        if self.incoming.skip == 0 {
            self.end_block();
        }
        Ok(())
    }

    /// Counts what we sent, which ends anywhere.
    pub(crate) fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.outgoing.next(&mut bytes) {
            match frame.kind {
                DATA => {
                    self.explain(EXPLAINED_BY_FRAME + frame.length / EXPLAINED_BYTES);
                    self.pings.give_back();
                    if frame.has(END_STREAM) {
                        self.resets.give_back();
                    }
                }
                HEADERS if frame.has(END_STREAM) => self.resets.give_back(),
                RST_STREAM if frame.is_for_a_fault() => {
                    self.provoked_since = self.provoked_since.saturating_add(1);
                }
                // Each will be acknowledged.
                SETTINGS | PING if !frame.has(ACK) => self.explain(1),
                _ => {}
            }
        }
    }

    /// When the header block began that is not whole yet: a client may take `header_timeout` for it.
    pub(crate) fn header_block_since(&self) -> Option<Nanos> {
        self.block_since
    }

    /// What the frame that came last abuses, if it does: for what the machine finds too much before
    /// it is that here (small frames that nobody reads, streams cancelled before they were looked at).
    pub(crate) fn suspect(&self) -> Abuse {
        match self.last_kind {
            HEADERS | RST_STREAM => Abuse::Resets,
            SETTINGS => Abuse::Settings,
            PING => Abuse::Pings,
            CONTINUATION => Abuse::Continuation,
            _ => Abuse::IdleFrames,
        }
    }

    fn count(&mut self, frame: &Frame, now: Nanos) -> Result<(), Abuse> {
        self.last_kind = frame.kind;
        match frame.kind {
            DATA => {
                let is_due = frame.has(END_STREAM) && self.ends_due > 0;
                if is_due {
                    self.ends_due -= 1;
                }
                if frame.content() == 0 && !is_due {
                    return self.idle(now);
                }
            }
            HEADERS => {
                self.block_since = Some(now);
                self.block_frames = 0;
                self.block_ends = frame.has(END_HEADERS);
                if frame.content() == 0 {
                    return self.idle(now);
                }
                if frame.stream > self.last_stream {
                    self.last_stream = frame.stream;
                    self.explain(EXPLAINED_BY_FRAME);
                    if !frame.has(END_STREAM) {
                        self.ends_due = self.ends_due.saturating_add(1);
                    }
                } else if frame.has(END_STREAM) {
                    // Trailers.
                    self.ends_due = self.ends_due.saturating_sub(1);
                }
            }
            RST_STREAM => return self.resets.take(1, now, Abuse::Resets),
            SETTINGS if !frame.has(ACK) => return self.settings.take(1, now, Abuse::Settings),
            PING if !frame.has(ACK) => return self.pings.take(1, now, Abuse::Pings),
            CONTINUATION => {
                self.block_frames += 1;
                self.block_ends = frame.has(END_HEADERS);
                if self.block_frames > CONTINUATIONS || frame.length == 0 && !self.block_ends {
                    return Err(Abuse::Continuation);
                }
                if frame.length == 0 {
                    return self.idle(now);
                }
            }
            // PRIORITY, acknowledgements, WINDOW_UPDATE, GOAWAY, types that we do not know.
            _ => return self.idle(now),
        }
        Ok(())
    }

    fn idle(&mut self, now: Nanos) -> Result<(), Abuse> {
        if self.explained > 0 {
            self.explained -= 1;
            return Ok(());
        }
        self.idle.take(1, now, Abuse::IdleFrames)
    }

    fn explain(&mut self, frames: u32) {
        self.explained = self.explained.saturating_add(frames);
    }

    /// The frame before has passed whole.
    fn end_block(&mut self) {
        if self.block_ends {
            self.block_ends = false;
            self.block_since = None;
        }
    }
}

// === impl Budget ===

impl Budget {
    /// `burst` at once. Exact below 170,000 (the root of PERIOD), where the interval's rounding adds
    /// up to less than one; 0 lets nothing pass.
    fn new(burst: u32, now: Nanos) -> Self {
        Self {
            interval: PERIOD.checked_div(burst.into()).unwrap_or(PERIOD + 1),
            back_at: now,
        }
    }

    fn take(&mut self, n: u32, now: Nanos, abuse: Abuse) -> Result<(), Abuse> {
        let taken = self.interval.saturating_mul(n.into());
        self.back_at = self.back_at.max(now).saturating_add(taken);
        if self.back_at - now > PERIOD {
            return Err(abuse);
        }
        Ok(())
    }

    /// Never above the burst: a time that has passed counts as now.
    fn give_back(&mut self) {
        self.back_at = self.back_at.saturating_sub(self.interval);
    }
}

// === impl Walker ===

impl Walker {
    /// The next frame whose header has come, with those of its first bytes that are asked for; the
    /// rest of it is passed over by the next call. `bytes` is empty once there is none.
    #[inline]
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = bytes.len().min(self.skip as usize);
        *bytes = &bytes[skipped..];
        self.skip -= skipped as u32;
        if bytes.is_empty() {
            return None;
        }
        // Nothing was gathered, and here is a whole header: the usual case.
        if self.filled == 0
            && let Some((header, rest)) = bytes.split_first_chunk::<HEADER>()
        {
            let mut frame = Frame::parse(header);
            let n = frame.first_bytes();
            if let Some(first) = rest.get(..n) {
                frame.first[..n].copy_from_slice(first);
                *bytes = rest;
                self.skip = frame.length;
                return Some(frame);
            }
        }
        self.gather(bytes)
    }

    fn gather(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        while let Some((byte, rest)) = bytes.split_first() {
            self.gathered[self.filled] = *byte;
            self.filled += 1;
            *bytes = rest;
            if self.filled < HEADER {
                continue;
            }
            let (header, first) = self
                .gathered
                .split_first_chunk::<HEADER>()
                .expect("invariant: longer than a header");
            let mut frame = Frame::parse(header);
            if self.filled == HEADER + frame.first_bytes() {
                frame.first.copy_from_slice(first);
                self.skip = frame.length - frame.first_bytes() as u32;
                self.gathered = [0; HEADER + FIRST];
                self.filled = 0;
                return Some(frame);
            }
        }
        None
    }
}

// === impl Frame ===

impl Frame {
    fn parse(header: &[u8; HEADER]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *header;
        Self {
            kind,
            flags,
            length: u32::from_be_bytes([0, l0, l1, l2]),
            // The highest bit is reserved.
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
            first: [0; FIRST],
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How much of the payload is looked at: the length of the padding, the code of a reset.
    fn first_bytes(&self) -> usize {
        let n = match self.kind {
            DATA | HEADERS if self.has(PADDED) => 1,
            RST_STREAM => FIRST as u32,
            _ => 0,
        };
        n.min(self.length) as usize
    }

    /// Bytes of DATA or HEADERS without padding and priority.
    fn content(&self) -> u32 {
        let padding = if self.has(PADDED) {
            1 + u32::from(self.first[0])
        } else {
            0
        };
        let priority = if self.kind == HEADERS && self.has(PRIORITY) {
            5
        } else {
            0
        };
        self.length.saturating_sub(padding + priority)
    }

    /// Whether a reset of ours is the client's doing. Not so: NO_ERROR (it was answered before it had
    /// sent all), INTERNAL_ERROR, CANCEL, CONNECT_ERROR (the endpoint failed), HTTP_1_1_REQUIRED.
    fn is_for_a_fault(&self) -> bool {
        !matches!(u32::from_be_bytes(self.first), 0x0 | 0x2 | 0x8 | 0xa | 0xd)
    }
}

#[cfg(test)]
mod tests;
