//! Version 2: bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

use super::tlv::{self, CRC32C, Found};
use super::{Addresses, Header, Malformed, Parsed, Tlvs, Transport, Version};

/// Most bytes of a header, all included. The format allows 65,551; the text says that one "is always
/// smaller than an MSS", and nginx takes as many as here (NGX_PROXY_PROTOCOL_MAX_HEADER). What we
/// write is never longer.
pub const V2_MAX: usize = 4096;

/// Bytes before addresses: signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// Two addresses and two ports of IPv4.
const INET: usize = 12;
/// Two addresses and two ports of IPv6.
const INET6: usize = 36;
/// Two paths of Unix sockets.
const UNIX: usize = 216;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// CRC32c is the checksum of iSCSI (RFC 3720) and SCTP (RFC 4960, appendix B).
static CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Reads a header.
pub(super) fn parse(bytes: &[u8], transport: Transport) -> Result<Parsed, Malformed> {
    if bytes.iter().zip(SIGNATURE).any(|(is, wanted)| is != wanted) {
        return Err(Malformed::NotProxy);
    }
    // A byte that is wrong is refused when it comes, not when those behind it do.
    let Some(command) = bytes.get(12).map(|byte| command(*byte)).transpose()? else {
        return Ok(Parsed::More(FIXED));
    };
    let Some(byte) = bytes.get(13) else {
        return Ok(Parsed::More(FIXED));
    };
    let family = match command {
        Command::Proxy => family(*byte, transport)?,
        // "discard the protocol block including the family which is ignored"
        Command::Local => Family::Unspecified,
    };
    let Some([high, low]) = bytes.get(14..FIXED) else {
        return Ok(Parsed::More(FIXED));
    };
    let block = usize::from(u16::from_be_bytes([*high, *low]));
    let len = FIXED + block;
    if len > V2_MAX {
        return Err(Malformed::TooLong { len, limit: V2_MAX });
    }
    let needed = match family {
        Family::Inet => INET,
        Family::Inet6 => INET6,
        Family::Unix => UNIX,
        Family::Unspecified => 0,
    };
    if block < needed {
        return Err(Malformed::AddressesCut { len: block, needed });
    }
    let Some(header) = bytes.get(..len) else {
        return Ok(Parsed::More(len));
    };
    let (addresses, rest) = header[FIXED..].split_at(needed);
    let tlvs = match family {
        Family::Inet | Family::Inet6 | Family::Unix => {
            let Found { tlvs, crc32c } = tlv::read(rest)?;
            if let Some(crc32c) = crc32c {
                check(header, FIXED + needed + crc32c)?;
            }
            tlvs
        }
        // Where addresses of an unknown kind end, and TLVs begin, nobody can say.
        Family::Unspecified => Tlvs::default(),
    };
    Ok(Parsed::Header(Box::new(Header {
        len,
        version: Version::V2,
        addresses: read_addresses(addresses).map(Addresses::canonical),
        tlvs,
    })))
}

enum Command {
    Local,
    Proxy,
}

fn command(byte: u8) -> Result<Command, Malformed> {
    match (byte >> 4, byte & 0x0f) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, command) => Err(Malformed::Command(command)),
        (version, _) => Err(Malformed::Version(version)),
    }
}

#[derive(Clone, Copy)]
enum Family {
    Inet,
    Inet6,
    Unix,
    /// Of addresses or of the transport.
    Unspecified,
}

fn family(byte: u8, transport: Transport) -> Result<Family, Malformed> {
    let family = match byte >> 4 {
        0 => Family::Unspecified,
        1 => Family::Inet,
        2 => Family::Inet6,
        3 => Family::Unix,
        family => return Err(Malformed::Family(family)),
    };
    match (byte & 0x0f, transport) {
        (0, _) => Ok(Family::Unspecified),
        (1, Transport::Stream) | (2, Transport::Datagram) => Ok(family),
        // Without addresses there is nothing to be wrong about.
        (1 | 2, _) if byte >> 4 == 0 => Ok(Family::Unspecified),
        (1 | 2, _) => Err(Malformed::TransportMismatch),
        (transport, _) => Err(Malformed::Transport(transport)),
    }
}

/// Addresses by their length, which differs in each family; `None` of families without any.
fn read_addresses(bytes: &[u8]) -> Option<Addresses> {
    fn read<const N: usize>(bytes: &[u8]) -> Option<Addresses>
    where
        IpAddr: From<[u8; N]>,
    {
        let (source, rest) = bytes.split_first_chunk::<N>()?;
        let (destination, ports) = rest.split_first_chunk::<N>()?;
        let (source_port, ports) = ports.split_first_chunk::<2>()?;
        let (destination_port, _) = ports.split_first_chunk::<2>()?;
        Some(Addresses {
            source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
            destination: SocketAddr::new(
                (*destination).into(),
                u16::from_be_bytes(*destination_port),
            ),
        })
    }
    match bytes.len() {
        INET => read::<4>(bytes),
        INET6 => read::<16>(bytes),
        _ => None,
    }
}

/// Checks `header`, whose checksum is at `at`.
fn check(header: &[u8], at: usize) -> Result<(), Malformed> {
    let value = header.get(at..).and_then(|rest| rest.first_chunk::<4>());
    let told = u32::from_be_bytes(*value.expect("invariant: at is where a value of four bytes is"));
    let found = checksum(header, at);
    if told == found {
        Ok(())
    } else {
        Err(Malformed::Crc32c { told, found })
    }
}

/// The checksum of `header` with zeros at `at`, where the checksum is.
fn checksum(header: &[u8], at: usize) -> u32 {
    let mut digest = CHECKSUM.digest();
    let (before, rest) = header.split_at(at);
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(rest.get(4..).unwrap_or_default());
    digest.finalize()
}

/// Appends a header with a checksum. `None` is LOCAL; IPv4-mapped IPv6 addresses are IPv4 addresses
/// where both are, and IPv4 beside IPv6 is written mapped. TLVs that do not fit into [`V2_MAX`] are left
/// out, the last ones first.
pub fn write_v2(
    out: &mut Vec<u8>,
    transport: Transport,
    addresses: Option<&Addresses>,
    tlvs: &Tlvs,
) {
    let begin = out.len();
    out.extend_from_slice(SIGNATURE);
    out.push(if addresses.is_some() { 0x21 } else { 0x20 });
    let transport = match transport {
        Transport::Datagram => 2,
        Transport::Stream => 1,
    };
    // Family and length are known when addresses are.
    out.extend_from_slice(&[0; 3]);
    let family = addresses.map_or(0, |addresses| {
        let Addresses {
            source,
            destination,
        } = addresses.canonical();
        let family = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
                0x10
            }
            (source, destination) => {
                out.extend_from_slice(&mapped(source).octets());
                out.extend_from_slice(&mapped(destination).octets());
                0x20
            }
        };
        out.extend_from_slice(&source.port().to_be_bytes());
        out.extend_from_slice(&destination.port().to_be_bytes());
        family | transport
    });
    // A TLV of the checksum is three bytes and four.
    let left = V2_MAX - (out.len() - begin) - 7;
    out.extend_from_slice(tlvs.within(left));
    out.extend_from_slice(&[CRC32C, 0, 4]);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);

    let header = &mut out[begin..];
    header[13] = family;
    let block = (header.len() - FIXED) as u16;
    header[14..FIXED].copy_from_slice(&block.to_be_bytes());
    let at = at - begin;
    let checksum = checksum(header, at);
    header[at..].copy_from_slice(&checksum.to_be_bytes());
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
