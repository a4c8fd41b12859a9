//! ClientHellos as peeked: no panic; cut into records anywhere they say the same; what rustls takes too is
//! understood as rustls understands it.
#![no_main]

use isobar::base::tls::{ClientHello, Peeked, looks_like_http, peek};
use rustls::server::Acceptor;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, bytes @ ..] = data else { return };
    // What was decided stays decided when more comes.
    let mut decided = None;
    for len in 0..=bytes.len().min(64) {
        let now = looks_like_http(&bytes[..len]);
        assert!(decided.is_none() || decided == now);
        decided = now;
    }
    assert!(decided.is_some() || bytes.len() < 41);

    let Peeked::Client(hello) = peek(bytes, false) else {
        return;
    };
    assert!(matches!(peek(bytes, true), Peeked::Client(_)));
    let mut pieces = Vec::new();
    for fragment in message(bytes).chunks(1 + usize::from(*first)) {
        pieces.extend_from_slice(&[22, 3, 1, 0, 0]);
        let at = pieces.len();
        pieces[at - 2..].copy_from_slice(&(fragment.len() as u16).to_be_bytes());
        pieces.extend_from_slice(fragment);
    }
    assert_eq!(peek(&pieces, false), Peeked::Client(hello.clone()));
    if let Some((name, alpn)) = of_rustls(bytes) {
        let ClientHello {
            server_name,
            alpn: protocols,
            has_ech: _,
        } = hello;
        assert_eq!((server_name, protocols), (name, alpn));
    }
});

/// The first message, out of whole records and the beginning of one.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let Some(([kind, _, _, high, low], rest)) = records.split_first_chunk::<5>() {
        if *kind != 22 {
            break;
        }
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        message.extend_from_slice(&rest[..len]);
        records = &rest[len..];
    }
    let len = u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize;
    message.truncate(4 + len);
    message
}

fn of_rustls(bytes: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = Acceptor::default();
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
