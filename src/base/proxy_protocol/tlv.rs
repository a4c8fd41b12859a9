//! What version 2 says beside addresses: types, lengths and values.

use super::{Malformed, V2_MAX};

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const NETNS: u8 = 0x30;

/// Most bytes of a unique id (section 2.2.5).
const MAX_UNIQUE_ID: usize = 128;

/// Bytes before the TLVs within that about TLS: a byte of flags, and how verification went.
const SSL_FIXED: usize = 5;

/// What is kept of a header's TLVs, and what is written into one: all but checksums, padding and the
/// names of network namespaces, which mean something on one host only. Types that we do not know stay as
/// they came, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// As on the wire.
    bytes: Vec<u8>,
}

/// What the TLV about TLS says of a client's connection, see [`Tlvs::set_ssl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'s> {
    /// Such as `TLSv1.3`.
    pub version: &'s str,
    /// Such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<&'s str>,
    /// What the client proved itself with.
    pub certificate: Certificate,
    /// The Common Name in its certificate.
    pub common_name: Option<&'s str>,
}

/// A client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// It has none.
    Absent,
    /// It has one that was not verified.
    Unverified,
    /// It has one that was verified.
    Verified,
}

/// What [`read`] finds.
pub(super) struct Found {
    pub(super) tlvs: Tlvs,
    /// Where in the bytes the value of the checksum begins.
    pub(super) crc32c: Option<usize>,
}

/// Reads the TLVs that `bytes` are made of.
pub(super) fn read(bytes: &[u8]) -> Result<Found, Malformed> {
    let mut kept = Vec::new();
    let mut crc32c = None;
    /// Of these there is one.
    const SINGLE: [u8; 5] = [ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL];
    let mut seen = [false; SINGLE.len()];
    let mut at = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (tlv, after) = split(rest).ok_or(Malformed::TlvOverrun)?;
        let single = SINGLE.iter().zip(&mut seen).find(|(k, _)| **k == tlv.kind);
        if let Some((_, seen)) = single
            && std::mem::replace(seen, true)
        {
            return Err(Malformed::TlvRepeated(tlv.kind));
        }
        let wrong_length = Malformed::TlvLength {
            kind: tlv.kind,
            len: tlv.value.len(),
        };
        match tlv.kind {
            CRC32C if tlv.value.len() != 4 => return Err(wrong_length),
            CRC32C => crc32c = Some(at + 3),
            UNIQUE_ID if tlv.value.len() > MAX_UNIQUE_ID => return Err(wrong_length),
            SSL if !is_ssl(tlv.value) => return Err(Malformed::Ssl),
            NETNS | NOOP => {}
            _ => kept.extend_from_slice(tlv.whole),
        }
        at += tlv.whole.len();
        rest = after;
    }
    Ok(Found {
        tlvs: Tlvs { bytes: kept },
        crc32c,
    })
}

struct Tlv<'b> {
    kind: u8,
    value: &'b [u8],
    whole: &'b [u8],
}

/// The first TLV and what is behind it.
fn split(bytes: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let value = rest.get(..len)?;
    let (whole, after) = bytes.split_at_checked(3 + len)?;
    let tlv = Tlv {
        kind: *kind,
        value,
        whole,
    };
    Some((tlv, after))
}

fn is_ssl(value: &[u8]) -> bool {
    let Some(mut rest) = value.get(SSL_FIXED..) else {
        return false;
    };
    while !rest.is_empty() {
        let Some((_, after)) = split(rest) else {
            return false;
        };
        rest = after;
    }
    true
}

// === impl Tlvs ===

impl Tlvs {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is spoken, as ALPN names it.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.find(ALPN)
    }

    /// The name that the client asked for; nobody has checked what it is.
    pub fn authority(&self) -> Option<&[u8]> {
        self.find(AUTHORITY)
    }

    /// What tells the connection from all others, at most 128 bytes.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.find(UNIQUE_ID)
    }

    /// What is said of TLS: a byte of flags, four of verification, TLVs.
    pub fn ssl(&self) -> Option<&[u8]> {
        self.find(SSL)
    }

    /// All that is kept: types and values.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (tlv, after) = split(rest)?;
            rest = after;
            Some((tlv.kind, tlv.value))
        })
    }

    /// Says what is spoken, instead of what was said of it. A value that no header can hold is not
    /// said; the same holds for the others.
    pub fn set_alpn(&mut self, protocol: &[u8]) {
        self.set(ALPN, protocol);
    }

    /// Says which name the client asked for.
    pub fn set_authority(&mut self, name: &[u8]) {
        self.set(AUTHORITY, name);
    }

    /// Says what tells the connection from all others; more than 128 bytes are not said.
    pub fn set_unique_id(&mut self, id: &[u8]) {
        self.remove(UNIQUE_ID);
        if id.len() <= MAX_UNIQUE_ID {
            self.set(UNIQUE_ID, id);
        }
    }

    /// Says how the client's TLS is.
    pub fn set_ssl(&mut self, ssl: &Ssl<'_>) {
        // PP2_CLIENT_SSL, PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS; 0 = verified.
        let (flags, verification) = match ssl.certificate {
            Certificate::Absent => (0x01, 1_u32),
            Certificate::Unverified => (0x07, 1),
            Certificate::Verified => (0x07, 0),
        };
        let mut value = vec![flags];
        value.extend_from_slice(&verification.to_be_bytes());
        put(&mut value, SSL_VERSION, ssl.version.as_bytes());
        for (kind, text) in [(SSL_CN, ssl.common_name), (SSL_CIPHER, ssl.cipher)] {
            if let Some(text) = text {
                put(&mut value, kind, text.as_bytes());
            }
        }
        self.set(SSL, &value);
    }

    /// The TLVs that fit into `bytes`, without the first that does not and those behind it.
    pub(super) fn within(&self, bytes: usize) -> &[u8] {
        let mut rest = self.bytes.as_slice();
        let mut end = 0;
        while let Some((tlv, after)) = split(rest) {
            if end + tlv.whole.len() > bytes {
                break;
            }
            end += tlv.whole.len();
            rest = after;
        }
        &self.bytes[..end]
    }

    fn find(&self, kind: u8) -> Option<&[u8]> {
        let (_, value) = self.iter().find(|(is, _)| *is == kind)?;
        Some(value)
    }

    fn set(&mut self, kind: u8, value: &[u8]) {
        self.remove(kind);
        put(&mut self.bytes, kind, value);
    }

    fn remove(&mut self, kind: u8) {
        if self.find(kind).is_none() {
            return;
        }
        let mut kept = Vec::with_capacity(self.bytes.len());
        for (is, value) in self.iter().filter(|(is, _)| *is != kind) {
            put(&mut kept, is, value);
        }
        self.bytes = kept;
    }
}

/// Appends a TLV, but one that alone is more than a header.
fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if value.len() >= V2_MAX {
        return;
    }
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}
