//! The PROXY protocol, versions 1 and 2, as bytes: who a connection or a datagram really comes from.
//!
//! Written after HAProxy's proxy-protocol.txt (sections 2.1 and 2.2). Whose header is believed is not
//! decided here: the text says to take it from known senders only, and then to require it.
//!
//! | file | what is there |
//! |---|---|
//! | `tlv` | what version 2 says beside addresses |
//! | `v1` | one line of text |
//! | `v2` | bytes |

mod tlv;
mod v1;
mod v2;

use std::net::SocketAddr;

use thiserror::Error;

pub use tlv::{Certificate, Ssl, Tlvs};
pub use v1::{V1_MAX, write_v1};
pub use v2::{V2_MAX, write_v2};

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of it, to be consumed.
    pub len: usize,
    /// How it was written.
    pub version: Version,
    /// Who is connected to whom; `None` = LOCAL, UNKNOWN, UNSPEC or AF_UNIX: the connection's own
    /// addresses hold.
    pub addresses: Option<Addresses>,
    /// What it says besides; empty in version 1.
    pub tlvs: Tlvs,
}

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// Who is connected to whom. A header's IPv4-mapped IPv6 addresses are given as the IPv4 addresses that
/// they are, so that networks and hashes see one client under one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// What bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// At least this many bytes are needed in all, always more than there are. Never of a datagram,
    /// to which nothing comes.
    More(usize),
    /// A header, and perhaps bytes behind it.
    Header(Box<Header>),
}

/// What carries a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The beginning of each datagram; version 2 only.
    Datagram,
    /// The beginning of a connection.
    Stream,
}

/// Why bytes are no header that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The addresses of its family do not fit into its length.
    #[error("its length is {len} bytes, and addresses of its family take {needed}")]
    AddressesCut {
        /// What it says follows its first 16 bytes.
        len: usize,
        /// What the addresses take.
        needed: usize,
    },
    /// Neither LOCAL nor PROXY.
    #[error("its command is {0}, and 0 (LOCAL) and 1 (PROXY) are known")]
    Command(u8),
    /// The checksum is of other bytes.
    #[error("its CRC32c is {told:08x}, and that of its bytes is {found:08x}")]
    Crc32c {
        /// What it says.
        told: u32,
        /// What is right.
        found: u32,
    },
    /// A datagram that ends within it.
    #[error("the datagram ends after {len} bytes, and at least {needed} are needed")]
    CutShort {
        /// The datagram's length.
        len: usize,
        /// Least length of a datagram that begins alike.
        needed: usize,
    },
    /// An address family that does not exist.
    #[error("its address family is {0}, and 0 to 3 are known")]
    Family(u8),
    /// Something else than a header.
    #[error("what came is no PROXY protocol header")]
    NotProxy,
    /// The TLS that a TLV tells of is not whole.
    #[error("its TLV about TLS (type 0x20) is not well-formed")]
    Ssl,
    /// A TLV whose value cannot have this length.
    #[error("its TLV of type {kind:#04x} has {len} bytes")]
    TlvLength {
        /// Its type.
        kind: u8,
        /// Its length.
        len: usize,
    },
    /// A TLV that says it reaches over the header's end, or fewer bytes than a TLV has.
    #[error("its last TLV reaches over its end")]
    TlvOverrun,
    /// Two TLVs of a type of which there is one.
    #[error("it has more than one TLV of type {0:#04x}")]
    TlvRepeated(u8),
    /// More than is taken.
    #[error("it is {len} bytes long, and at most {limit} are taken")]
    TooLong {
        /// Bytes of the whole header.
        len: usize,
        /// [`V2_MAX`].
        limit: usize,
    },
    /// A transport protocol that does not exist.
    #[error("its transport protocol is {0}, and 0 to 2 are known")]
    Transport(u8),
    /// A connection's header that tells of datagrams, or the other way round. The text has receivers
    /// fall back to the connection's own addresses; that would take the sender for its clients.
    #[error("it tells of another transport protocol than the one that it came by")]
    TransportMismatch,
    /// An address that is not one, or not of the family that the line names.
    #[error("its line names an address that is none of its family")]
    V1Address,
    /// Not TCP4, TCP6 or UNKNOWN.
    #[error("its line names neither TCP4 nor TCP6 nor UNKNOWN")]
    V1Family,
    /// More or fewer words than addresses and ports are, or more than a space between two.
    #[error("its line is not of six words with a space between two")]
    V1Fields,
    /// CR or LF alone.
    #[error("its line has a CR or LF alone")]
    V1LineEnd,
    /// Not a number from 0 to 65535, or one with zeros in front.
    #[error("its line names a port that is none")]
    V1Port,
    /// No end of the line where the longest one ends.
    #[error("its line has no end within {V1_MAX} bytes")]
    V1TooLong,
    /// Neither 1 (text) nor 2.
    #[error("its version is {0}, and after these bytes only 2 is known")]
    Version(u8),
}

/// Reads the header that `bytes` begin with. What can begin none is refused at its first byte.
///
/// # Errors
/// Why it is none, or none that is taken.
pub fn parse(bytes: &[u8], transport: Transport) -> Result<Parsed, Malformed> {
    let parsed = match (transport, bytes.first()) {
        // The shorter of the two versions' shortest headers, "PROXY UNKNOWN\r\n".
        (Transport::Stream, None) => Parsed::More(v1::SHORTEST),
        (Transport::Stream, Some(b'P')) => v1::parse(bytes)?,
        (Transport::Datagram | Transport::Stream, _) => v2::parse(bytes, transport)?,
    };
    match (transport, parsed) {
        (Transport::Datagram, Parsed::More(needed)) => Err(Malformed::CutShort {
            len: bytes.len(),
            needed,
        }),
        (_, parsed) => Ok(parsed),
    }
}

// === impl Addresses ===

impl Addresses {
    /// The same with IPv4-mapped IPv6 addresses as IPv4, and nothing that only this host knows (scopes).
    fn canonical(self) -> Self {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Self {
            source: canonical(self.source),
            destination: canonical(self.destination),
        }
    }
}

#[cfg(test)]
mod tests;
