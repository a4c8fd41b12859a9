//! Version 1: one line of text.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Addresses, Header, Malformed, Parsed, Tlvs, Version};

/// Most bytes of a line, CRLF included (section 2.1, "worst case").
pub const V1_MAX: usize = 107;

/// Bytes of "PROXY UNKNOWN\r\n", the shortest line.
pub(super) const SHORTEST: usize = 15;

const BEGIN: &[u8] = b"PROXY ";

/// Reads a line.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.iter().zip(BEGIN).any(|(is, wanted)| is != wanted) {
        return Err(Malformed::NotProxy);
    }
    let within = bytes.get(..V1_MAX).unwrap_or(bytes);
    let Some(end) = within.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        // CRLF is to come.
        let needed = SHORTEST.max(bytes.len() + 2);
        if needed > V1_MAX {
            return Err(Malformed::V1TooLong);
        }
        return Ok(Parsed::More(needed));
    };
    match (within.get(end), within.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), None) if end + 1 >= V1_MAX => return Err(Malformed::V1TooLong),
        (Some(b'\r'), None) => return Ok(Parsed::More(SHORTEST.max(end + 2))),
        _ => return Err(Malformed::V1LineEnd),
    }
    let said = within.get(BEGIN.len()..end).unwrap_or_default();
    Ok(Parsed::Header(Box::new(Header {
        len: end + 2,
        version: Version::V1,
        addresses: addresses(said)?,
        tlvs: Tlvs::default(),
    })))
}

/// What is between "PROXY " and CRLF.
fn addresses(said: &[u8]) -> Result<Option<Addresses>, Malformed> {
    let family = said.split(|b| *b == b' ').next().unwrap_or_default();
    let read: fn(&str) -> Option<IpAddr> = match family {
        b"TCP4" => |text| Ipv4Addr::from_str(text).ok().map(IpAddr::V4),
        b"TCP6" => |text| Ipv6Addr::from_str(text).ok().map(IpAddr::V6),
        // Whatever follows is to be ignored.
        b"UNKNOWN" => return Ok(None),
        _ => return Err(Malformed::V1Family),
    };
    let said = std::str::from_utf8(said).map_err(|_| Malformed::V1Address)?;
    // Two spaces in a row make an empty word.
    let words: Vec<&str> = said.split(' ').collect();
    let [_, source, destination, source_port, destination_port] = words[..] else {
        return Err(Malformed::V1Fields);
    };
    if words.iter().any(|word| word.is_empty()) {
        return Err(Malformed::V1Fields);
    }
    let (source, destination) = (read(source), read(destination));
    let (source, destination) = source.zip(destination).ok_or(Malformed::V1Address)?;
    let addresses = Addresses {
        source: SocketAddr::new(source, port(source_port)?),
        destination: SocketAddr::new(destination, port(destination_port)?),
    };
    Ok(Some(addresses.canonical()))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    let has_zero_in_front = text.len() > 1 && text.starts_with('0');
    if !is_plain || has_zero_in_front {
        return Err(Malformed::V1Port);
    }
    text.parse().map_err(|_| Malformed::V1Port)
}

/// Appends a line. `None` and addresses of two families are UNKNOWN; IPv4-mapped IPv6 addresses are
/// IPv4 addresses.
pub fn write_v1(out: &mut Vec<u8>, addresses: Option<&Addresses>) {
    let line = addresses.and_then(|addresses| {
        let Addresses {
            source,
            destination,
        } = addresses.canonical();
        let family = match (source, destination) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
            (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
            _ => return None,
        };
        let mut line = String::with_capacity(V1_MAX);
        let (from, to) = (source.ip(), destination.ip());
        let (from_port, to_port) = (source.port(), destination.port());
        write!(line, "PROXY {family} {from} {to} {from_port} {to_port}\r\n").ok()?;
        Some(line)
    });
    match line {
        Some(line) => out.extend_from_slice(line.as_bytes()),
        None => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
    }
}
