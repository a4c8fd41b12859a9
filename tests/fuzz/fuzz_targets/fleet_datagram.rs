//! Datagrams of the fleet: no panic, nothing is opened that was not sealed, and each once, in any order.
#![no_main]

use std::collections::HashSet;

use isobar::fleet::id::PeerId;
use isobar::fleet::seal::{Keyring, Kind, MAX_PAYLOAD, Opener, Sealer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let secrets = [
        b"a secret of a test".as_slice().into(),
        b"one of before".as_slice().into(),
    ];
    let keyring = Keyring::new("isobar", secrets).expect("two secrets are a keyring");
    let mut opener = Opener::new(keyring.clone(), PeerId(0));
    assert!(opener.open(data, 0).is_err(), "a forgery is taken");
    assert_eq!(opener.sessions(), 0);

    let mut all = Vec::new();
    for session in [1, 2] {
        let mut sealer = Sealer::new(&keyring, PeerId(7), [session; 8]);
        for n in 0..4_usize {
            let mut datagram = Vec::new();
            let payload = &data[..data.len().min(MAX_PAYLOAD).min(n * 100)];
            let sealed = sealer.seal(Kind::Facts, n as u64, payload, &mut datagram);
            assert_eq!(sealed, Ok(()));
            all.push(datagram);
        }
    }
    // Three bytes a turn: which, where it is changed, and how.
    let mut heard = HashSet::new();
    for (now, turn) in (0..).zip(data.chunks_exact(3)) {
        let which = usize::from(turn[0]) % all.len();
        let mut datagram = all[which].clone();
        let at = usize::from(turn[1]) * datagram.len() / 256;
        datagram[at] ^= turn[2];
        let is_new = turn[2] == 0 && heard.insert(which);
        assert_eq!(opener.open(&datagram, now).is_ok(), is_new);
    }
    assert!(opener.sessions() <= 2);
});
