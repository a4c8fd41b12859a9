//! Numbers and addresses as decimal text. The standard formatter costs ten times as much, and a
//! request writes a dozen of them.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The text of one octet.
#[derive(Clone, Copy)]
struct Octet {
    /// The digits, a dot, padding: four bytes are one store, whatever the number of digits.
    text: [u8; 4],
    /// How many digits.
    digits: u8,
}

/// 256 x 5 bytes: twenty cache lines, of which an address uses a few.
const OCTETS: [Octet; 256] = octets();

const fn octets() -> [Octet; 256] {
    const fn digit(n: usize) -> u8 {
        b'0' + (n % 10) as u8
    }
    let mut table = [Octet {
        text: [b'.'; 4],
        digits: 0,
    }; 256];
    let mut n = 0;
    while n < 256 {
        let (h, t, u) = (digit(n / 100), digit(n / 10), digit(n));
        let (text, digits) = match n {
            0..10 => ([u, b'.', b'.', b'.'], 1),
            10..100 => ([t, u, b'.', b'.'], 2),
            _ => ([h, t, u, b'.'], 3),
        };
        table[n] = Octet { text, digits };
        n += 1;
    }
    table
}

/// Appends a number.
#[inline]
pub fn push_integer(out: &mut Vec<u8>, n: u64) {
    match OCTETS.get(usize::try_from(n).unwrap_or(usize::MAX)) {
        Some(octet) => {
            let start = out.len();
            out.extend_from_slice(&octet.text);
            out.truncate(start + usize::from(octet.digits));
        }
        None => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
    }
}

/// Appends an address, IPv6 as RFC 5952 has it.
#[inline]
pub fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => push_ipv4(out, ip),
        IpAddr::V6(ip) => write!(out, "{ip}").expect("invariant: writing to a Vec cannot fail"),
    }
}

/// Appends an address and port, IPv6 in brackets.
#[inline]
pub fn push_socket(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr {
        SocketAddr::V4(addr) => {
            push_ipv4(out, *addr.ip());
            out.push(b':');
            push_integer(out, u64::from(addr.port()));
        }
        SocketAddr::V6(addr) => {
            write!(out, "{addr}").expect("invariant: writing to a Vec cannot fail");
        }
    }
}

fn push_ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    let mut text = [0; 16];
    let mut end = 0;
    for n in ip.octets() {
        let octet = OCTETS[usize::from(n)];
        text[end..end + 4].copy_from_slice(&octet.text);
        end += usize::from(octet.digits) + 1;
    }
    // The whole array is appended, which is one store, and what is too much taken back.
    let start = out.len();
    out.extend_from_slice(&text);
    out.truncate(start + end - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before ".to_vec();
        push(&mut out);
        String::from_utf8(out.split_off(7)).unwrap()
    }

    #[test]
    fn numbers_are_as_the_standard_library_writes_them() {
        for n in (0..70_000).chain([u64::from(u32::MAX), u64::MAX]) {
            assert_eq!(text(|out| push_integer(out, n)), n.to_string());
        }
    }

    #[test]
    fn addresses_are_as_the_standard_library_writes_them() {
        for n in 0..=255 {
            let ip = IpAddr::from([n, 255 - n, n / 3, n / 20]);
            assert_eq!(text(|out| push_ip(out, ip)), ip.to_string());
            let addr = SocketAddr::new(ip, u16::from(n) * 257);
            assert_eq!(text(|out| push_socket(out, addr)), addr.to_string());
        }
        for addr in ["[::1]:80", "[2001:db8::7]:65535", "[::ffff:10.0.0.1]:1"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(text(|out| push_ip(out, addr.ip())), addr.ip().to_string());
            assert_eq!(text(|out| push_socket(out, addr)), addr.to_string());
        }
    }
}
