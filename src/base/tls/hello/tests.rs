//! ClientHellos of rustls, whole and in pieces, and what no client should send.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// The bytes with which a client of rustls begins.
fn client(name: &str, alpn: &[&[u8]], groups: Groups) -> Vec<u8> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = match groups {
        Groups::Classic => vec![aws_lc_rs::kx_group::X25519],
        Groups::PostQuantum => vec![aws_lc_rs::kx_group::X25519MLKEM768],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|&protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[derive(Clone, Copy)]
enum Groups {
    Classic,
    PostQuantum,
}

/// The message in `records`.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let Some((header, rest)) = records.split_first_chunk::<5>() {
        let (fragment, after) = rest.split_at(u16::from_be_bytes([header[3], header[4]]) as usize);
        message.extend_from_slice(fragment);
        records = after;
    }
    message
}

/// `message` in records of `len` bytes.
fn in_records(message: &[u8], len: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let mut record = vec![22, 3, 1];
        record.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
        record.extend_from_slice(fragment);
        record
    };
    message.chunks(len).flat_map(record).collect()
}

/// What whole `bytes` are, once all their beginnings have been seen to be beginnings.
fn whole(bytes: &[u8]) -> ClientHello {
    for cut in 0..bytes.len() {
        assert_eq!(peek(&bytes[..cut], false), Peeked::More, "{cut}");
    }
    assert_eq!(peek(&bytes[..bytes.len() - 1], true), Peeked::TooLong);
    match peek(bytes, true) {
        Peeked::Client(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn asks(server_name: Option<&str>, alpn: &[&[u8]]) -> ClientHello {
    ClientHello {
        server_name: server_name.map(str::to_owned),
        alpn: alpn.iter().map(|&protocol| protocol.to_vec()).collect(),
        has_ech: false,
    }
}

#[test]
fn what_clients_ask_for() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (name, told) in [
        ("a.example.com", Some("a.example.com")),
        ("A.Example.COM", Some("a.example.com")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("_x._tcp.example", Some("_x._tcp.example")),
        ("localhost", Some("localhost")),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
    ] {
        for alpn in [&[][..], both] {
            let bytes = client(name, alpn, Groups::Classic);
            assert!(bytes.len() < 512);
            assert_eq!(whole(&bytes), asks(told, alpn), "{name}");
        }
    }
    let large = client("a.example", both, Groups::PostQuantum);
    assert!(large.len() > 1200, "{}", large.len());
    assert_eq!(whole(&large), asks(Some("a.example"), both));
}

#[test]
fn a_hello_may_be_cut_into_records_anywhere() {
    let small = client("a.example", &[b"h2"], Groups::Classic);
    let wanted = asks(Some("a.example"), &[b"h2"]);
    let message = message(&small);
    for len in 1..message.len() {
        let records = in_records(&message, len);
        assert_eq!(whole(&records), wanted, "records of {len}");
    }
    let large = client("a.example", &[b"h2"], Groups::PostQuantum);
    let large = self::message(&large);
    for len in [1, 2, 3, 4, 5, 100, 536, 1000] {
        let records = in_records(&large, len);
        assert_eq!(peek(&records, false), Peeked::Client(wanted.clone()));
    }
}

#[test]
fn what_follows_is_not_looked_at() {
    let mut bytes = client("a.example", &[], Groups::Classic);
    let wanted = Peeked::Client(asks(Some("a.example"), &[]));
    bytes.extend_from_slice(b"\x17\x03\x03\xff\xffdata of TLS 1.3");
    assert_eq!(peek(&bytes, false), wanted);
    let mut message = message(&client("a.example", &[], Groups::Classic));
    message.extend_from_slice(b"another message");
    assert_eq!(peek(&in_records(&message, 9999), false), wanted);
}

/// A ClientHello with these extensions.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut body = b"\x03\x03".to_vec();
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(b"\0\0\x02\x13\x01\x01\0");
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(extensions);
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 0];
    message.extend_from_slice(&(body.len() as u16).to_be_bytes());
    message.extend_from_slice(body);
    in_records(&message, 1 << 14)
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut extension = kind.to_be_bytes().to_vec();
    extension.extend_from_slice(&(data.len() as u16).to_be_bytes());
    extension.extend_from_slice(data);
    extension
}

/// An extension `server_name` with these names and types.
fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, name) in names {
        list.push(*kind);
        list.extend_from_slice(&(name.len() as u16).to_be_bytes());
        list.extend_from_slice(name);
    }
    let mut data = (list.len() as u16).to_be_bytes().to_vec();
    data.extend_from_slice(&list);
    extension(0, &data)
}

fn with_name(name: &[u8]) -> Peeked {
    peek(&with_extensions(&names(&[(0, name)])), false)
}

#[test]
fn names_are_valid_or_refused() {
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
    for (name, told) in [
        ("Example.com.", Some("example.com")),
        (&longest, Some(longest.as_str())),
        ("1.2.3.4", None),
        ("::1", None),
        ("::ffff:1.2.3.4", None),
    ] {
        let hello = asks(told, &[]);
        assert_eq!(with_name(name.as_bytes()), Peeked::Client(hello), "{name}");
    }
    let too_long = format!("x{longest}");
    for garbage in [
        "",
        ".",
        "a..b",
        ".a",
        "-a.b",
        "a-.b",
        "*.example.com",
        "a b",
        "a\0.example",
        "a.example:443",
        "[::1]",
        "1.2.3",
        "a/../b",
        "b\u{fc}cher.example",
        &too_long,
    ] {
        let refused = Peeked::Malformed("its ClientHello asks for a name that is none");
        assert_eq!(with_name(garbage.as_bytes()), refused, "{garbage:?}");
    }
    assert!(matches!(with_name(b"a\xff.example"), Peeked::Malformed(_)));
}

#[test]
fn there_is_one_name() {
    let of = |list: &[(u8, &[u8])]| peek(&with_extensions(&names(list)), false);
    let two = Peeked::Malformed("its ClientHello asks for two names");
    assert_eq!(of(&[(0, b"a.example"), (0, b"b.example")]), two);
    assert_eq!(of(&[(0, b"a.example"), (0, b"a.example")]), two);
    let one = Peeked::Client(asks(Some("a.example"), &[]));
    assert_eq!(of(&[(0, b"a.example"), (7, b"other")]), one);
    let none = Peeked::Client(asks(None, &[]));
    assert_eq!(of(&[(7, b"other"), (0, b"a.example")]), none);
}

#[test]
fn extensions() {
    let of = |extensions: &[&[u8]]| peek(&with_extensions(&extensions.concat()), false);
    let name = names(&[(0, b"outer.example")]);
    let ech = extension(0xfe0d, b"\0whatever");
    let wanted = ClientHello {
        has_ech: true,
        ..asks(Some("outer.example"), &[])
    };
    assert_eq!(of(&[&ech, &name]), Peeked::Client(wanted));

    // GREASE (RFC 8701): unknown extensions and protocols.
    let grease = [extension(0x0a0a, b""), extension(0x1a1a, b"\0")].concat();
    let alpn = extension(16, b"\0\x06\x02\x0a\x0a\x02h2");
    let wanted = asks(Some("outer.example"), &[b"\x0a\x0a", b"h2"]);
    assert_eq!(of(&[&grease, &name, &alpn]), Peeked::Client(wanted));
    assert_eq!(of(&[]), Peeked::Client(asks(None, &[])));

    let twice = Peeked::Malformed("its ClientHello has an extension twice");
    for extension in [&name, &alpn, &ech, &grease] {
        assert_eq!(of(&[extension, &[0, 5, 0, 0], extension]), twice);
    }

    let length = Peeked::Malformed("a length in its ClientHello is wrong");
    for data in [
        &b""[..],
        b"\0",
        b"\0\0",
        b"\0\x01\0",
        b"\0\x03\0\0\x01",
        b"\0\x04\0\0\x01a!",
        b"\0\x05\0\0\x01a",
    ] {
        assert_eq!(of(&[&extension(0, data)]), length, "{data:?}");
    }
    for data in [
        &b""[..],
        b"\0\0",
        b"\0\x01\0",
        b"\0\x02\x02h",
        b"\0\x03\x02h2!",
        b"\0\x04\x02h2\0",
    ] {
        assert_eq!(of(&[&extension(16, data)]), length, "{data:?}");
    }
    assert_eq!(of(&[b"\0"]), length);
    assert_eq!(of(&[b"\0\x05\0\x01"]), length);
}

#[test]
fn bodies_that_are_none() {
    let length = Peeked::Malformed("a length in its ClientHello is wrong");
    let good = message(&with_extensions(&names(&[(0, b"a.example")])))[4..].to_vec();
    // Version, random, session, suites and compression end at 41: without extensions.
    for cut in (0..good.len()).filter(|cut| *cut != 41) {
        assert_eq!(peek(&framed(&good[..cut]), false), length, "{cut}");
    }
    let none = Peeked::Client(asks(None, &[]));
    assert_eq!(peek(&framed(&good[..41]), false), none);
    let longer = [&good[..], b"\0"].concat();
    assert_eq!(peek(&framed(&longer), false), length);
    let random = [&[3, 3][..], &[7; 32]].concat();
    for fields in [
        &[&[33][..], &[0; 33], b"\0\x02\x13\x01\x01\0"].concat()[..],
        b"\0\0\0\x01\0",
        b"\0\0\x03\x13\x01\0\x01\0",
        b"\0\0\x02\x13\x01\0",
    ] {
        let body = [&random, fields].concat();
        assert_eq!(peek(&framed(&body), false), length, "{fields:?}");
    }
}

#[test]
fn what_is_not_tls() {
    for byte in (0..=u8::MAX).filter(|byte| *byte != 22) {
        assert_eq!(peek(&[byte], false), Peeked::NotTls, "{byte}");
    }
    for bytes in [
        &b"\x16\x02"[..],
        b"\x16\x04\x01",
        b"\x16\x03\x05",
        b"\x16 is SYN",
        // A ClientHello as SSL 2.0 has it, which offers 3.1.
        b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10",
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
    ] {
        assert_eq!(peek(bytes, false), Peeked::NotTls, "{bytes:?}");
    }
    let first = Peeked::Malformed("its first message is no ClientHello");
    for kind in [0, 2, 11, 20, 0xff] {
        assert_eq!(peek(&[22, 3, 1, 0, 1, kind], false), first);
    }
    let length = Peeked::Malformed("the length of a record is wrong");
    assert_eq!(peek(b"\x16\x03\x01\0\0", false), length);
    assert_eq!(peek(b"\x16\x03\x01\x40\x01", false), length);
    assert_eq!(peek(b"\x16\x03\x01\x40\0", false), Peeked::More);
    // Another record in the middle of a hello.
    let mut mixed = in_records(b"\x01\0\x01\0abc", 100);
    mixed.push(23);
    assert_eq!(peek(&mixed, false), Peeked::NotTls);
}

#[test]
fn a_hello_has_a_bound() {
    let of = |len: usize| {
        let [_, high, middle, low] = (len as u32).to_be_bytes();
        peek(&in_records(&[1, high, middle, low], 100), false)
    };
    assert_eq!(of(HELLO_MAX - 4), Peeked::More);
    assert_eq!(of(HELLO_MAX - 3), Peeked::TooLong);
    assert_eq!(of(0x00ff_ffff), Peeked::TooLong);
    assert_eq!(peek(b"", true), Peeked::TooLong);

    let most = HELLO_MAX - 4 - 41 - 2 - 4;
    let wanted = Peeked::Client(asks(None, &[]));
    let padded = with_extensions(&extension(21, &vec![0; most]));
    assert_eq!(peek(&padded, true), wanted);
    let in_pieces = in_records(&message(&padded), 7);
    assert_eq!(peek(&in_pieces, true), wanted);
    let longer = with_extensions(&extension(21, &vec![0; most + 1]));
    assert_eq!(peek(&longer, false), Peeked::TooLong);
}

#[test]
fn http_is_told_from_other_protocols() {
    for http in [
        "GET / HTTP/1.1\r\n",
        "POST /x HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\n",
        "GET http://a.example/ HTTP/1.1\r\n",
        "GET HTTPS://a.example/ HTTP/1.1\r\n",
        "M-SEARCH * HTTP/1.1\r\n",
        "UPDATEREDIRECTREF /x HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let is = |len: usize| looks_like_http(&http.as_bytes()[..len]);
        let told = (0..=http.len()).find(|len| is(*len).is_some()).unwrap();
        assert!(told <= 41, "{http}");
        for len in told..=http.len() {
            assert_eq!(is(len), Some(true), "{http} {len}");
        }
    }
    let long = "A".repeat(33);
    for other in [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        "EHLO mail.example\r\n",
        "HELO httpd.example\r\n",
        "HELP http\r\n",
        "NICK somebody\r\n",
        "USER a b c :d\r\n",
        "get / HTTP/1.1\r\n",
        "GET\t/ HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "GET\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "PING\r\n",
        "\x16\x03\x01",
        "\0\0\0\x08\x04\u{d2}\x16\x2f",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        &long,
    ] {
        let is = |len: usize| looks_like_http(&other.as_bytes()[..len]);
        assert_eq!(is(other.len()), Some(false), "{other:?}");
        assert!((0..other.len()).all(|len| is(len) != Some(true)));
    }
    assert_eq!(looks_like_http(b""), None);
    assert_eq!(looks_like_http(&[b'A'; 32]), None);
}

#[test]
fn an_alert_is_understood() {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = false;
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    client.read_tls(&mut &alert(112)[..]).unwrap();
    assert_eq!(
        client.process_new_packets().unwrap_err(),
        rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName)
    );
}

/// Whether rustls, as a server, takes the hello, and the name that it finds there.
fn of_rustls(bytes: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec);
            let name = hello.server_name().map(str::to_ascii_lowercase);
            let name = name.map(|name| name.strip_suffix('.').unwrap_or(&name).to_owned());
            return Some((name, alpn.collect()));
        }
    }
    None
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = (peek(&bytes, false), looks_like_http(&bytes));
        bytes.splice(0..0, *b"\x16\x03\x01\0\x80\x01\0\0\x7c\x03\x03");
        let _ = peek(&bytes, true);
    }

    /// What rustls takes, we take and understand alike; else a name could be passed on that rustls
    /// would serve.
    #[test]
    fn what_rustls_takes_of_mutated_hellos_is_understood_alike(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        len in 1..400_usize,
    ) {
        let extensions = [
            names(&[(0, b"a.example")]),
            extension(16, b"\0\x0c\x02h2\x08http/1.1"),
            extension(10, b"\0\x02\0\x1d"),
            extension(13, b"\0\x02\x04\x03"),
        ]
        .concat();
        let mut message = message(&with_extensions(&extensions));
        for (index, byte) in changes {
            let at = index.index(message.len());
            message[at] = byte;
        }
        let bytes = in_records(&message, len);
        if let Some(told) = of_rustls(&bytes) {
            match peek(&bytes, false) {
                Peeked::Client(hello) => prop_assert_eq!((hello.server_name, hello.alpn), told),
                other => prop_assert!(false, "{:?}, and {:?}", other, told),
            }
        }
    }
}
