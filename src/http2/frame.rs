//! Frames (RFC 9113 sections 4 and 6): their headers, and those of them that we write; pure.

use std::fmt::{self, Display, Formatter};

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;

/// Largest payload that either side takes: the least that section 4.2 allows, and nobody gains by more.
pub(super) const MAX_FRAME: usize = 16 * 1024;

/// Largest window (section 6.9.1).
pub(super) const MAX_WINDOW: i64 = (1 << 31) - 1;

/// The window that everything begins with (section 6.9.2).
pub(super) const FIRST_WINDOW: u32 = 65_535;

/// What a client begins with (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What kind of frame it is.
pub(super) mod kind {
    pub(in crate::http2) const DATA: u8 = 0;
    pub(in crate::http2) const HEADERS: u8 = 1;
    pub(in crate::http2) const PRIORITY: u8 = 2;
    pub(in crate::http2) const RST_STREAM: u8 = 3;
    pub(in crate::http2) const SETTINGS: u8 = 4;
    pub(in crate::http2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::http2) const PING: u8 = 6;
    pub(in crate::http2) const GOAWAY: u8 = 7;
    pub(in crate::http2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::http2) const CONTINUATION: u8 = 9;
}

/// Flags, of those kinds that have them.
pub(super) mod flag {
    pub(in crate::http2) const ACK: u8 = 0x1;
    pub(in crate::http2) const END_STREAM: u8 = 0x1;
    pub(in crate::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2) const PADDED: u8 = 0x8;
    pub(in crate::http2) const PRIORITY: u8 = 0x20;
}

/// Settings (section 6.5.2, RFC 8441 section 3).
pub(super) mod setting {
    pub(in crate::http2) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in crate::http2) const ENABLE_PUSH: u16 = 2;
    pub(in crate::http2) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::http2) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in crate::http2) const MAX_FRAME_SIZE: u16 = 5;
    pub(in crate::http2) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(in crate::http2) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Why a stream or a connection ends (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the payload.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

// === impl Code ===

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0x0);
    /// What came has no place in the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// The other end failed.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More came than the window lets pass.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// A frame for a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame of the wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// Nothing was done with the stream.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// It is not wanted any more.
    pub const CANCEL: Self = Self(0x8);
    /// HPACK is out of step.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The other end costs too much.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

impl Display for Code {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            code => return write!(f, "code {code:#x}"),
        })
    }
}

// === impl Header ===

impl Header {
    #[inline]
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            // The highest bit is reserved.
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
        }
    }

    #[inline]
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

// === writing ===

/// Writes the header of a frame of `length` bytes.
#[inline]
pub(super) fn begin(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let header = Header {
        length: length as u32,
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&header.to_bytes());
}

pub(super) fn settings(out: &mut Vec<u8>, values: &[(u16, u32)]) {
    begin(out, 6 * values.len(), kind::SETTINGS, 0, 0);
    for (id, value) in values {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn settings_ack(out: &mut Vec<u8>) {
    begin(out, 0, kind::SETTINGS, flag::ACK, 0);
}

pub(super) fn ping(out: &mut Vec<u8>, payload: [u8; 8], flags: u8) {
    begin(out, 8, kind::PING, flags, 0);
    out.extend_from_slice(&payload);
}

pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    begin(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(super) fn reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    begin(out, 4, kind::RST_STREAM, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    begin(out, 8, kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_nine_bytes_and_its_highest_bit_is_reserved() {
        let bytes = [0x01, 0x02, 0x03, 4, 5, 0xff, 0xff, 0xff, 0xfe];
        let header = Header::parse(&bytes);
        assert_eq!((header.length, header.kind, header.flags), (0x010203, 4, 5));
        assert_eq!(header.stream, 0x7fff_fffe);
        assert_eq!(Header::parse(&header.to_bytes()), header);
    }

    #[test]
    fn frames_are_as_long_as_they_say() {
        let mut out = Vec::new();
        let writers: [fn(&mut Vec<u8>); 6] = [
            |out| {
                settings(
                    out,
                    &[(setting::ENABLE_PUSH, 0), (setting::MAX_FRAME_SIZE, 16384)],
                );
            },
            settings_ack,
            |out| ping(out, [7; 8], flag::ACK),
            |out| window_update(out, 3, 1),
            |out| reset(out, 5, Code::CANCEL),
            |out| goaway(out, 7, Code::NO_ERROR),
        ];
        for write in writers {
            out.clear();
            write(&mut out);
            let (header, payload) = out.split_first_chunk::<HEADER>().unwrap();
            assert_eq!(Header::parse(header).length as usize, payload.len());
        }
    }

    #[test]
    fn codes_have_the_names_of_section_7() {
        assert_eq!(Code::ENHANCE_YOUR_CALM.to_string(), "ENHANCE_YOUR_CALM");
        assert_eq!(Code(0x1234).to_string(), "code 0x1234");
    }
}
