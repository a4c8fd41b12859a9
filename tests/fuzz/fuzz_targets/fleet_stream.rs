//! Streams of the fleet: no panic, greetings are read as they are written, and of a stream in any pieces, changed
//! anywhere, comes what was sealed up to there and nothing else.
#![no_main]

use isobar::fleet::id::PeerId;
use isobar::fleet::seal::{Greeting, Keyring, StreamOpen, StreamSeal};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let secret = b"a secret of a test".as_slice().into();
    let keyring = Keyring::new("isobar", [secret]).expect("a secret is a keyring");
    if let Some(bytes) = data.first_chunk()
        && let Ok(greeting) = Greeting::parse(bytes, &keyring)
    {
        assert_eq!(greeting.to_bytes(), *bytes);
    }
    let (_, mut open) = stream(&keyring);
    open.push(data);
    while let Ok(Some(_)) = open.next_record() {
        panic!("a forgery is taken");
    }

    // Where it is changed and how, where it is cut, and the records as their lengths.
    let [at_high, at_low, change, cut, lengths @ ..] = data else {
        return;
    };
    let (mut seal, mut open) = stream(&keyring);
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for length in lengths.iter().take(16) {
        let plain = vec![*length; usize::from(*length) * 4];
        assert_eq!(seal.seal(&plain, &mut bytes), Ok(()));
        ends.push((bytes.len(), plain));
    }
    if bytes.is_empty() {
        return;
    }
    let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % bytes.len();
    bytes[at] ^= change;
    let mut got = Vec::new();
    let mut end = Ok(None);
    for piece in bytes.chunks(usize::from(*cut).max(1) * 8) {
        open.push(piece);
        loop {
            end = open.next_record();
            match &end {
                Ok(Some(record)) => got.push(record.clone()),
                _ => break,
            }
        }
    }
    let good = ends.iter().filter(|(end, _)| *change == 0 || *end <= at);
    assert!(got.iter().eq(good.map(|(_, plain)| plain)));
    // A length that became longer waits for its bytes.
    assert!(*change == 0 || end.is_err() || !open.is_whole());
});

/// There, of who connected; what the other opens.
fn stream(keyring: &Keyring) -> (StreamSeal, StreamOpen) {
    let first = Greeting::first(keyring, PeerId(1), [1; 32]);
    let answer = first.answer(PeerId(2), [2; 32]);
    let there = first.connected(&answer, keyring).expect("they are two");
    let back = answer.accepted(&first, keyring).expect("they are two");
    (there.0, back.1)
}
