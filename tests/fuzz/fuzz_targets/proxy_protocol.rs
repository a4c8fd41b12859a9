//! Headers of the PROXY protocol: no panic, what is asked for beyond the bytes is bounded, and what is
//! read is read again of the bytes that say the same.
#![no_main]

use isobar::base::proxy_protocol::{
    Parsed, Transport, V1_MAX, V2_MAX, Version, parse, write_v1, write_v2,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [first, bytes @ ..] = data else { return };
    let transport = if first & 1 == 0 {
        Transport::Stream
    } else {
        Transport::Datagram
    };
    let header = match parse(bytes, transport) {
        Ok(Parsed::Header(header)) => header,
        Ok(Parsed::More(needed)) => {
            assert!(needed > bytes.len() && needed <= V2_MAX);
            return;
        }
        Err(malformed) => {
            assert!(!malformed.to_string().is_empty());
            return;
        }
    };
    let most = match header.version {
        Version::V1 => V1_MAX,
        Version::V2 => V2_MAX,
    };
    assert!(header.len <= most);
    // Its beginnings ask for more, and what follows changes nothing.
    let cut = usize::from(*first) % header.len;
    match (transport, parse(&bytes[..cut], transport)) {
        (Transport::Stream, Ok(Parsed::More(needed))) => assert!(needed > cut),
        (Transport::Datagram, Err(_)) => {}
        (_, other) => panic!("{other:?} of {cut} bytes"),
    }
    let alone = parse(&bytes[..header.len], transport);
    assert_eq!(alone, Ok(Parsed::Header(header.clone())));

    let Some(told) = header.addresses else { return };
    let mut written = Vec::new();
    write_v2(&mut written, transport, Some(&told), &header.tlvs);
    let Ok(Parsed::Header(again)) = parse(&written, transport) else {
        panic!("what is written is refused");
    };
    assert_eq!(again.addresses, Some(told));
    if written.len() < V2_MAX - 7 {
        assert_eq!(again.tlvs, header.tlvs);
    }
    written.clear();
    write_v1(&mut written, Some(&told));
    let Ok(Parsed::Header(again)) = parse(&written, Transport::Stream) else {
        panic!("what is written is refused");
    };
    let is_one_family = told.source.is_ipv4() == told.destination.is_ipv4();
    assert_eq!(again.addresses, is_one_family.then_some(told));
});
