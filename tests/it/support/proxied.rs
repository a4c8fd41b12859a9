//! Headers of the PROXY protocol, written and read by hand.

use std::net::{IpAddr, SocketAddr};

use super::tcp::End;

/// 192.0.2.7:4711 to 198.51.100.1:443, as in a header of version 2.
pub const INET: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];

/// [2001:db8::7]:4711 to [2001:db8::1]:443.
pub const INET6: &[u8] = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x67\x01\xbb";

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

const CRC32C: u8 = 0x03;

/// What a header said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `v1` or `v2`.
    pub version: &'static str,
    /// `None` = UNKNOWN or LOCAL.
    pub source: Option<SocketAddr>,
    pub destination: Option<SocketAddr>,
    /// Without the checksum, which is right.
    pub tlvs: Vec<(u8, Vec<u8>)>,
}

/// A header of version 2: version and command, family and transport, addresses, TLVs.
pub fn header(command: u8, family: u8, addresses: &[u8], tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut block = addresses.to_vec();
    for (kind, value) in tlvs {
        block.push(*kind);
        block.extend_from_slice(&(value.len() as u16).to_be_bytes());
        block.extend_from_slice(value);
    }
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&(block.len() as u16).to_be_bytes());
    header.extend_from_slice(&block);
    header
}

/// The same with a checksum at its end.
pub fn checked(command: u8, family: u8, addresses: &[u8], tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let tlvs = [tlvs, &[(CRC32C, &[0; 4])]].concat();
    let mut header = header(command, family, addresses, &tlvs);
    let at = header.len() - 4;
    let checksum = crc32c(&header).to_be_bytes();
    header[at..].copy_from_slice(&checksum);
    header
}

/// By its definition (RFC 3720, appendix B.4): a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}

/// The header that a connection begins with.
#[track_caller]
pub fn told(end: &mut End) -> Told {
    match end.exactly(1)[..] {
        [b'P'] => line(end),
        _ => bytes(end),
    }
}

/// The head of a request, to its empty line.
#[track_caller]
pub fn head(end: &mut End) -> String {
    until(end, b"\r\n\r\n")
}

#[track_caller]
fn until(end: &mut End, ending: &[u8]) -> String {
    let mut text = Vec::new();
    while !text.ends_with(ending) {
        text.extend(end.exactly(1));
    }
    String::from_utf8(text).unwrap()
}

#[track_caller]
fn line(end: &mut End) -> Told {
    let line = until(end, b"\r\n");
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let (source, destination) = match words[..] {
        ["ROXY", "UNKNOWN"] => (None, None),
        ["ROXY", family, source, destination, from, to] => {
            let at = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().unwrap();
                assert_eq!(family, if ip.is_ipv4() { "TCP4" } else { "TCP6" });
                Some(SocketAddr::new(ip, port.parse().unwrap()))
            };
            (at(source, from), at(destination, to))
        }
        _ => panic!("P{line:?}"),
    };
    Told {
        version: "v1",
        source,
        destination,
        tlvs: Vec::new(),
    }
}

#[track_caller]
fn bytes(end: &mut End) -> Told {
    let mut header = SIGNATURE[..1].to_vec();
    header.extend(end.exactly(15));
    assert_eq!(header[..12], *SIGNATURE);
    let length = u16::from_be_bytes([header[14], header[15]]);
    let block = end.exactly(length.into());
    header.extend(&block);

    let (command, family) = (header[12], header[13]);
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let (source, destination, mut rest) = match (command, family) {
        (0x20, 0x00) => (None, None, &block[..]),
        (0x21, 0x11) => {
            let ip = |at: usize| IpAddr::from(*block[at..].first_chunk::<4>().unwrap());
            let source = SocketAddr::new(ip(0), port(8));
            let destination = SocketAddr::new(ip(4), port(10));
            (Some(source), Some(destination), &block[12..])
        }
        (0x21, 0x21) => {
            let ip = |at: usize| IpAddr::from(*block[at..].first_chunk::<16>().unwrap());
            let source = SocketAddr::new(ip(0), port(32));
            let destination = SocketAddr::new(ip(16), port(34));
            (Some(source), Some(destination), &block[36..])
        }
        _ => panic!("command and family {command:#x} {family:#x}"),
    };
    let mut tlvs = Vec::new();
    let mut is_checked = false;
    while let [kind, high, low, after @ ..] = rest {
        let (value, after) = after.split_at(u16::from_be_bytes([*high, *low]).into());
        if *kind == CRC32C {
            let at = header.len() - after.len() - 4;
            let mut zeroed = header.clone();
            zeroed[at..at + 4].fill(0);
            assert_eq!(value, crc32c(&zeroed).to_be_bytes());
            is_checked = true;
        } else {
            tlvs.push((*kind, value.to_vec()));
        }
        rest = after;
    }
    assert!(rest.is_empty(), "half a TLV: {rest:?}");
    assert!(is_checked, "no checksum in {header:?}");
    Told {
        version: "v2",
        source,
        destination,
        tlvs,
    }
}

// === impl Told ===

impl Told {
    /// The value of the only TLV of that type.
    #[track_caller]
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        let mut all = self.tlvs.iter().filter(|(is, _)| *is == kind);
        let first = all.next()?;
        assert!(all.next().is_none(), "{kind:#x} is there more than once");
        Some(&first.1)
    }
}
