//! Every header at every cut, every refusal, and what is written read again.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// The header that `bytes` are, after all their beginnings have asked for more, and with other bytes
/// behind it.
fn read(bytes: &[u8], transport: Transport) -> Header {
    for cut in 0..bytes.len() {
        match (transport, parse(&bytes[..cut], transport)) {
            (Transport::Stream, Ok(Parsed::More(needed))) => {
                assert!(needed > cut && needed <= bytes.len(), "{needed} at {cut}");
            }
            (Transport::Datagram, Err(Malformed::CutShort { len, needed })) => {
                assert!(len == cut && needed > cut && needed <= bytes.len());
            }
            (_, other) => panic!("{other:?} at {cut}"),
        }
    }
    let followed = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    let Ok(Parsed::Header(header)) = parse(&followed, transport) else {
        panic!("{:?}", parse(&followed, transport));
    };
    assert_eq!(header.len, bytes.len());
    assert_eq!(
        parse(bytes, transport),
        Ok(Parsed::Header(header.clone())),
        "alone"
    );
    *header
}

fn stream(bytes: &[u8]) -> Header {
    read(bytes, Transport::Stream)
}

fn refusal(bytes: &[u8]) -> Malformed {
    match parse(bytes, Transport::Stream) {
        Err(malformed) => malformed,
        Ok(parsed) => panic!("{parsed:?}"),
    }
}

/// A header of version 2 with these bytes 13 and 14, and this behind its length.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend_from_slice(&[command, family]);
    bytes.extend_from_slice(&(block.len() as u16).to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

const INET: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

/// TCP over IPv4 and these TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[INET, tlvs].concat())
}

#[test]
fn v1_lines() {
    let header = stream(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    assert_eq!(header.version, Version::V1);
    assert!(header.tlvs.is_empty());
    let told = addresses("192.168.0.1:56324", "192.168.0.11:443");
    assert_eq!(header.addresses, Some(told));
    for (line, told) in [
        (
            "TCP4 255.255.255.255 0.0.0.0 65535 0",
            addresses("255.255.255.255:65535", "0.0.0.0:0"),
        ),
        (
            "TCP6 2001:DB8::1 ::1 1 2",
            addresses("[2001:db8::1]:1", "[::1]:2"),
        ),
        (
            "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0:0:0:0:0:0:0:0 65535 65535",
            addresses(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[::]:65535",
            ),
        ),
        (
            "TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2",
            addresses("192.0.2.1:1", "192.0.2.2:2"),
        ),
    ] {
        let header = stream(format!("PROXY {line}\r\n").as_bytes());
        assert_eq!(header.addresses, Some(told), "{line}");
    }
    let ffff = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {ffff} {ffff} 65535 65535\r\n");
    assert_eq!(longest.len(), V1_MAX);
    for unknown in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN \r\n",
        "PROXY UNKNOWN what \0ever\r\n",
        &longest,
    ] {
        assert_eq!(stream(unknown.as_bytes()).addresses, None, "{unknown:?}");
    }
}

#[test]
fn v1_refusals() {
    use Malformed::*;
    for (line, why) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", V1LineEnd),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n", V1LineEnd),
        ("PROXY TCP4 192.0.2.1\n192.0.2.2 1 2\r\n", V1LineEnd),
        ("PROXY UNKNOWN\n\r\n", V1LineEnd),
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", V1Family),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", V1Family),
        ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", V1Family),
        ("PROXY UNKNOWNS\r\n", V1Family),
        ("PROXY \r\n", V1Family),
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", V1Family),
        ("PROXY / HTTP/1.1\r\n", V1Family),
        ("PROXY TCP4\r\n", V1Fields),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", V1Fields),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", V1Fields),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", V1Fields),
        ("PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n", V1Fields),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", V1Fields),
        ("PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n", V1Fields),
        ("PROXY TCP4 ::1 ::2 1 2\r\n", V1Address),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", V1Address),
        ("PROXY TCP4 192.0.2.1 ::2 1 2\r\n", V1Address),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", V1Address),
        ("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", V1Address),
        ("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", V1Address),
        ("PROXY TCP4 0xc0.0.2.1 192.0.2.2 1 2\r\n", V1Address),
        ("PROXY TCP4 a.example 192.0.2.2 1 2\r\n", V1Address),
        ("PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", V1Address),
        ("PROXY TCP6 [::1] ::2 1 2\r\n", V1Address),
        ("PROXY TCP6 ::1::2 ::2 1 2\r\n", V1Address),
        ("PROXY TCP6 00001::1 ::2 1 2\r\n", V1Address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", V1Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 00\r\n", V1Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", V1Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", V1Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", V1Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 99999999\r\n", V1Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 a\r\n", V1Port),
    ] {
        assert_eq!(refusal(line.as_bytes()), why, "{line:?}");
    }
    let not_text = b"PROXY TCP4 192.0.2.\xff 192.0.2.2 1 2\r\n";
    assert_eq!(refusal(not_text), V1Address);
}

#[test]
fn a_line_of_version_1_ends_within_its_bound() {
    let unended = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    for len in 0..=V1_MAX - 2 {
        let parsed = parse(&unended[..len], Transport::Stream);
        assert!(matches!(parsed, Ok(Parsed::More(_))), "{len}: {parsed:?}");
    }
    for len in V1_MAX - 1..unended.len() {
        assert_eq!(refusal(&unended[..len]), Malformed::V1TooLong, "{len}");
    }
    let mut late = unended[..V1_MAX - 1].to_vec();
    late.extend_from_slice(b"\r\n");
    for len in V1_MAX - 1..=late.len() {
        assert_eq!(refusal(&late[..len]), Malformed::V1TooLong, "{len}");
    }
}

#[test]
fn what_is_no_header_is_refused_at_the_first_byte_that_tells() {
    assert_eq!(parse(b"", Transport::Stream), Ok(Parsed::More(15)));
    for byte in 0..=u8::MAX {
        let parsed = parse(&[byte], Transport::Stream);
        let is_possible = matches!(byte, b'P' | b'\r');
        assert_eq!(parsed.is_ok(), is_possible, "{byte:#x}");
    }
    for (bytes, len) in [
        (b"POST / HTTP/1.1\r\n".as_slice(), 2),
        (b"PRI * HTTP/2.0\r\n", 3),
        (b"PROXY\r\n", 6),
        (b"PROXYTCP4", 6),
        (b"\r\n\r\n\r\n", 5),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
    ] {
        assert!(parse(&bytes[..len - 1], Transport::Stream).is_ok());
        assert_eq!(refusal(&bytes[..len]), Malformed::NotProxy, "{bytes:?}");
        assert_eq!(refusal(bytes), Malformed::NotProxy, "{bytes:?}");
    }
}

/// Bytes as section 2.2 lays them out, written by hand.
#[test]
fn v2_bytes() {
    let header = stream(
        b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C\
          \xC0\x00\x02\x01\xC6\x33\x64\x02\xDC\x04\x01\xBB",
    );
    assert_eq!((header.len, header.version), (28, Version::V2));
    let told = addresses("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(header.addresses, Some(told));
    assert!(header.tlvs.is_empty());

    let inet6 = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x00\x01\xff\xff";
    let told = addresses("[2001:db8::1]:1", "[2001:db8::2]:65535");
    assert_eq!(stream(&v2(0x21, 0x21, inet6)).addresses, Some(told));
    let datagram = read(&v2(0x21, 0x22, inet6), Transport::Datagram);
    assert_eq!(datagram.addresses, Some(told));
    let datagram = read(&v2(0x21, 0x12, INET), Transport::Datagram);
    let told = addresses("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(datagram.addresses, Some(told));

    let inet6_of_inet = b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xC0\x00\x02\x01\
        \0\0\0\0\0\0\0\0\0\0\xff\xff\xC6\x33\x64\x02\xDC\x04\x01\xBB";
    assert_eq!(stream(&v2(0x21, 0x21, inet6_of_inet)).addresses, Some(told));
}

#[test]
fn headers_without_addresses() {
    let unix = [&[b'/'; 216][..], b"\xe0\0\x01x"].concat();
    let header = stream(&v2(0x21, 0x31, &unix));
    assert_eq!(header.addresses, None);
    assert_eq!(header.tlvs.iter().collect::<Vec<_>>(), [(0xe0, &b"x"[..])]);
    let header = read(&v2(0x21, 0x32, &unix), Transport::Datagram);
    assert_eq!(header.addresses, None);

    // LOCAL: whatever family it names, whatever follows.
    for family in [0x00, 0x11, 0x12, 0x21, 0x31, 0xff] {
        for block in [&b""[..], INET, b"junk", &[0xff; 300]] {
            let header = stream(&v2(0x20, family, block));
            assert_eq!((header.addresses, header.tlvs.is_empty()), (None, true));
        }
    }
    // UNSPEC, of addresses or of the transport.
    for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
        let block = [0xff; 216];
        let header = stream(&v2(0x21, family, &block));
        assert_eq!((header.addresses, header.tlvs.is_empty()), (None, true));
    }
}

#[test]
fn v2_refusals() {
    use Malformed::*;
    assert_eq!(refusal(&v2(0x22, 0x11, INET)), Command(2));
    assert_eq!(refusal(&v2(0x2f, 0x11, INET)), Command(15));
    for version in [0, 1, 3, 15] {
        let bytes = v2(version << 4 | 1, 0x11, INET);
        assert_eq!(refusal(&bytes), Version(version));
        assert_eq!(refusal(&bytes[..13]), Version(version), "at once");
    }
    for family in 4..16 {
        let bytes = v2(0x21, family << 4 | 1, &[0; 216]);
        assert_eq!(refusal(&bytes), Family(family));
        assert_eq!(refusal(&bytes[..14]), Family(family), "at once");
    }
    for transport in 3..16 {
        assert_eq!(
            refusal(&v2(0x21, 0x10 | transport, INET)),
            Transport(transport)
        );
    }
    assert_eq!(refusal(&v2(0x21, 0x12, INET)), TransportMismatch);
    assert_eq!(refusal(&v2(0x21, 0x32, &[0; 216])), TransportMismatch);
    for family in [0x11, 0x21, 0x31] {
        let bytes = v2(0x21, family, &[0; 216]);
        assert_eq!(
            parse(&bytes, super::Transport::Datagram),
            Err(TransportMismatch)
        );
    }
    for (family, needed) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
        for len in [0, 1, needed - 1] {
            let bytes = v2(0x21, family, &vec![0; len]);
            assert_eq!(refusal(&bytes), AddressesCut { len, needed });
            assert_eq!(refusal(&bytes[..16]), AddressesCut { len, needed });
        }
    }
    let too_long = v2(0x21, 0x11, &[0; V2_MAX - 15]);
    let limit = V2_MAX;
    let len = V2_MAX + 1;
    assert_eq!(refusal(&too_long), TooLong { len, limit });
    assert_eq!(refusal(&too_long[..16]), TooLong { len, limit }, "at once");
    assert_eq!(
        refusal(&v2(0x20, 0, &[0; V2_MAX - 15])),
        TooLong { len, limit }
    );
    let local = v2(0x20, 0, &[0; V2_MAX - 16]);
    assert!(parse(&local, super::Transport::Stream).is_ok());
}

#[test]
fn datagrams_hold_their_header_whole_and_none_of_text() {
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    assert_eq!(parse(line, Transport::Datagram), Err(Malformed::NotProxy));
    assert_eq!(
        parse(b"", Transport::Datagram),
        Err(Malformed::CutShort { len: 0, needed: 16 })
    );
}

#[test]
fn tlvs_are_kept_but_checksums_padding_and_namespaces() {
    let ssl = [
        &b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x01a\x23\0\x00"[..],
        b"\x24\0\x01x\x25\0\x01y\xee\0\0",
    ]
    .concat();
    let bytes = with_tlvs(
        &[
            b"\x01\0\x02h2\x02\0\x09a.example\x04\0\x03\0\0\0\x05\0\x03\0id",
            &[&[0x20, 0, ssl.len() as u8][..], &ssl].concat()[..],
            b"\x30\0\x04blue\xe0\0\x01x\xe0\0\x01y\xff\0\0\x06\0\x01z\x04\0\0",
        ]
        .concat(),
    );
    let header = stream(&bytes);
    let tlvs = &header.tlvs;
    assert_eq!(tlvs.alpn(), Some(&b"h2"[..]));
    assert_eq!(tlvs.authority(), Some(&b"a.example"[..]));
    assert_eq!(tlvs.unique_id(), Some(&b"\0id"[..]));
    assert_eq!(tlvs.ssl(), Some(&ssl[..]));
    let kinds: Vec<u8> = tlvs.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [0x01, 0x02, 0x05, 0x20, 0xe0, 0xe0, 0xff, 0x06]);
    assert!(!tlvs.is_empty());

    let mut written = Vec::new();
    write_v2(
        &mut written,
        Transport::Stream,
        header.addresses.as_ref(),
        tlvs,
    );
    let again = stream(&written);
    assert_eq!(
        (again.addresses, again.tlvs),
        (header.addresses, header.tlvs)
    );
}

#[test]
fn tlv_refusals() {
    use Malformed::*;
    let long_id = [&[0x05, 0, 129][..], &[0; 129]].concat();
    for (tlvs, why) in [
        (&b"\x01"[..], TlvOverrun),
        (b"\x01\0", TlvOverrun),
        (b"\x01\0\x01", TlvOverrun),
        (b"\xe0\xff\xff", TlvOverrun),
        (b"\x04\0\0\x04\0\x01", TlvOverrun),
        (b"\x01\0\x01x\x01\0\x01x", TlvRepeated(1)),
        (b"\x02\0\0\x02\0\0", TlvRepeated(2)),
        (b"\x05\0\0\x05\0\0", TlvRepeated(5)),
        (b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0", TlvRepeated(3)),
        (
            b"\x20\0\x05\0\0\0\0\0\x20\0\x05\0\0\0\0\0",
            TlvRepeated(0x20),
        ),
        (b"\x03\0\x03\0\0\0", TlvLength { kind: 3, len: 3 }),
        (b"\x03\0\x05\0\0\0\0\0", TlvLength { kind: 3, len: 5 }),
        (&long_id, TlvLength { kind: 5, len: 129 }),
        (b"\x20\0\x04\0\0\0\0", Ssl),
        (b"\x20\0\x06\0\0\0\0\0\x21", Ssl),
        (b"\x20\0\x08\0\0\0\0\0\x21\0\x01", Ssl),
    ] {
        assert_eq!(refusal(&with_tlvs(tlvs)), why, "{tlvs:?}");
    }
}

/// CRC32c by its definition (RFC 3720, appendix B.4): a bit at a time.
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

#[test]
fn a_checksum_is_checked_wherever_it_is() {
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, appendix B.4");
    for (before, after) in [
        (&b""[..], &b""[..]),
        (b"\x01\0\x02h2", b""),
        (b"", b"\x04\0\0\xe0\0\x01x"),
        (b"\xe1\0\x01x", b"\x02\0\x01a"),
    ] {
        let tlvs = [before, b"\x03\0\x04\0\0\0\0", after].concat();
        let mut bytes = with_tlvs(&tlvs);
        let at = 28 + before.len() + 3;
        let right = crc32c(&bytes);
        bytes[at..at + 4].copy_from_slice(&right.to_be_bytes());
        let header = stream(&bytes);
        assert!(header.tlvs.iter().all(|(kind, _)| kind != 3));
        // Addresses and the checksum itself; another type of TLV would be no checksum at all.
        for flip in (16..28).chain(at..at + 4) {
            let mut flipped = bytes.clone();
            flipped[flip] ^= 0x40;
            let refusal = refusal(&flipped);
            assert!(matches!(refusal, Malformed::Crc32c { .. }), "{flip}");
        }
    }
}

#[test]
fn what_version_1_writes() {
    let written = |addresses: Option<&Addresses>| {
        let mut out = b"before ".to_vec();
        write_v1(&mut out, addresses);
        String::from_utf8(out.split_off(7)).unwrap()
    };
    assert_eq!(written(None), "PROXY UNKNOWN\r\n");
    for (source, destination, line) in [
        (
            "192.168.0.1:56324",
            "192.168.0.11:443",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        ),
        (
            "[2001:db8::1]:1",
            "[::1]:65535",
            "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
        ),
        (
            "[::ffff:192.0.2.1]:1",
            "[::ffff:192.0.2.2]:2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        ),
        (
            "[::ffff:192.0.2.1]:1",
            "192.0.2.2:2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        ),
        ("192.0.2.1:1", "[::1]:2", "PROXY UNKNOWN\r\n"),
        (
            "[fe80::1%3]:1",
            "[fe80::2%3]:2",
            "PROXY TCP6 fe80::1 fe80::2 1 2\r\n",
        ),
    ] {
        assert_eq!(written(Some(&addresses(source, destination))), line);
    }
}

#[test]
fn what_version_2_writes() {
    let none = Tlvs::default();
    let mut out = b"before".to_vec();
    let told = addresses("192.0.2.1:56324", "198.51.100.2:443");
    write_v2(&mut out, Transport::Stream, Some(&told), &none);
    let header = &out[6..];
    let mut wanted = with_tlvs(b"\x03\0\x04\0\0\0\0");
    let right = crc32c(&wanted).to_be_bytes();
    wanted[31..].copy_from_slice(&right);
    assert_eq!(header, wanted);

    let mut local = Vec::new();
    write_v2(&mut local, Transport::Stream, None, &none);
    assert_eq!(local[12..19], [0x20, 0x00, 0, 7, 3, 0, 4]);
    assert_eq!(stream(&local).addresses, None);

    let bytes = |source: &str, destination: &str, transport| {
        let mut out = Vec::new();
        write_v2(
            &mut out,
            transport,
            Some(&addresses(source, destination)),
            &none,
        );
        out
    };
    let mapped = bytes(
        "[::ffff:192.0.2.1]:56324",
        "[::ffff:198.51.100.2]:443",
        Transport::Datagram,
    );
    assert_eq!(
        (mapped[12], mapped[13], &mapped[16..28]),
        (0x21, 0x12, INET)
    );
    let mixed = bytes("192.0.2.1:1", "[2001:db8::2]:2", Transport::Stream);
    assert_eq!(mixed[13], 0x21);
    let told = addresses("192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(stream(&mixed).addresses, Some(told));
}

#[test]
fn what_is_set_replaces_what_was_told() {
    let told = with_tlvs(b"\x01\0\x02h2\xe0\0\x01x\x02\0\x01a\x05\0\x01i\x20\0\x05\0\0\0\0\0");
    let mut tlvs = stream(&told).tlvs;
    tlvs.set_alpn(b"http/1.1");
    tlvs.set_authority(b"b.example");
    tlvs.set_unique_id(&[7; 128]);
    tlvs.set_ssl(&Ssl {
        version: "TLSv1.3",
        cipher: Some("TLS_AES_128_GCM_SHA256"),
        certificate: Certificate::Verified,
        common_name: Some("client"),
    });
    assert_eq!(tlvs.alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(tlvs.authority(), Some(&b"b.example"[..]));
    assert_eq!(tlvs.unique_id(), Some(&[7; 128][..]));
    let ssl = b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x06client\x23\0\x16TLS_AES_128_GCM_SHA256";
    assert_eq!(tlvs.ssl(), Some(&ssl[..]));
    let kinds: Vec<u8> = tlvs.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [0xe0, 0x01, 0x02, 0x05, 0x20]);

    tlvs.set_ssl(&Ssl {
        version: "TLSv1.2",
        cipher: None,
        certificate: Certificate::Absent,
        common_name: None,
    });
    assert_eq!(tlvs.ssl(), Some(&b"\x01\0\0\0\x01\x21\0\x07TLSv1.2"[..]));
    tlvs.set_unique_id(&[7; 129]);
    assert_eq!(tlvs.unique_id(), None, "rather none than half of one");
    tlvs.set_alpn(&vec![b'x'; 70_000]);
    assert_eq!(tlvs.alpn(), None);
}

#[test]
fn what_is_written_is_never_longer_than_what_is_taken() {
    let mut tlvs = Tlvs::default();
    let room = V2_MAX - 16 - 36 - 7;
    tlvs.set_alpn(b"h2");
    tlvs.set_authority(&vec![b'a'; room - 3 - 2 - 3]);
    let told = addresses("[2001:db8::1]:1", "[2001:db8::2]:2");
    let header = |tlvs: &Tlvs| {
        let mut out = Vec::new();
        write_v2(&mut out, Transport::Stream, Some(&told), tlvs);
        out
    };
    let full = header(&tlvs);
    assert_eq!(full.len(), V2_MAX);
    assert_eq!(stream(&full).tlvs, tlvs);
    tlvs.set_unique_id(b"x");
    assert_eq!(stream(&header(&tlvs)).tlvs.unique_id(), None);
    tlvs.set_authority(&vec![b'a'; room]);
    let least = stream(&header(&tlvs)).tlvs;
    assert_eq!((least.alpn(), least.authority()), (Some(&b"h2"[..]), None));
}

#[test]
fn reasons_are_plain_words() {
    let said = |bytes: &[u8]| refusal(bytes).to_string();
    assert_eq!(said(b"GET"), "what came is no PROXY protocol header");
    assert_eq!(
        said(&v2(0x21, 0x11, &[0; 5000])),
        "it is 5016 bytes long, and at most 4096 are taken"
    );
    assert_eq!(
        said(&with_tlvs(b"\x03\0\x01x")),
        "its TLV of type 0x03 has 1 bytes"
    );
    assert_eq!(
        said(&v2(0x21, 0x11, &[0; 11])),
        "its length is 11 bytes, and addresses of its family take 12"
    );
}

fn any_pair() -> impl Strategy<Value = Addresses> {
    let pair = prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(s, d)| (IpAddr::from(s), IpAddr::from(d))),
        any::<([u8; 16], [u8; 16])>().prop_map(|(s, d)| (IpAddr::from(s), IpAddr::from(d))),
    ];
    (pair, any::<(u16, u16)>()).prop_map(|((source, destination), (from, to))| {
        Addresses {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        }
        .canonical()
    })
}

fn any_tlvs() -> impl Strategy<Value = Tlvs> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let custom = proptest::collection::vec((0xe0..=0xff_u8, bytes(40)), 0..5);
    let single = proptest::option::of(bytes(128));
    (single.clone(), single.clone(), single, custom).prop_map(|(alpn, authority, id, custom)| {
        let mut block = Vec::new();
        for (kind, value) in custom {
            block.extend_from_slice(&[kind, 0, value.len() as u8]);
            block.extend_from_slice(&value);
        }
        let Ok(Parsed::Header(header)) = parse(&with_tlvs(&block), Transport::Stream) else {
            panic!("custom TLVs");
        };
        let mut tlvs = header.tlvs;
        if let Some(alpn) = alpn {
            tlvs.set_alpn(&alpn);
        }
        if let Some(authority) = authority {
            tlvs.set_authority(&authority);
        }
        if let Some(id) = id {
            tlvs.set_unique_id(&id);
        }
        tlvs
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(told in any_pair(), tlvs in any_tlvs()) {
        let mut line = Vec::new();
        write_v1(&mut line, Some(&told));
        let header = stream(&line);
        let is_one_family = told.source.is_ipv4() == told.destination.is_ipv4();
        prop_assert_eq!(header.addresses, is_one_family.then_some(told));
        for transport in [Transport::Stream, Transport::Datagram] {
            let mut bytes = Vec::new();
            write_v2(&mut bytes, transport, Some(&told), &tlvs);
            let header = read(&bytes, transport);
            prop_assert_eq!(header.addresses, Some(told));
            prop_assert_eq!(&header.tlvs, &tlvs);
            let mut local = Vec::new();
            write_v2(&mut local, transport, None, &tlvs);
            prop_assert_eq!(read(&local, transport).addresses, None);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        command in any::<u8>(),
        family in any::<u8>(),
        block in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        for bytes in [v2(command, family, &block), v2(0x21, 0x11, &block), block] {
            for transport in [Transport::Stream, Transport::Datagram] {
                match parse(&bytes, transport) {
                    Ok(Parsed::More(needed)) => prop_assert!(needed > bytes.len()),
                    Ok(Parsed::Header(header)) => prop_assert!(header.len <= bytes.len()),
                    Err(malformed) => prop_assert!(!malformed.to_string().is_empty()),
                }
            }
        }
    }

    #[test]
    fn any_line_is_read_without_panic(said in "[A-Z0-9a-f:. \r\n]{0,120}") {
        let line = format!("PROXY {said}\r\n");
        if let Ok(Parsed::Header(header)) = parse(line.as_bytes(), Transport::Stream) {
            prop_assert!(header.len <= V1_MAX);
        }
    }
}
