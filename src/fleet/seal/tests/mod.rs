//! Who may speak, to the last corner.

mod anything;
mod datagram;
mod keyring;
mod stream;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::id::PeerId;

use super::*;

const NOW: Nanos = 1_000_000_000_000;
const UNIX_MS: u64 = 1_700_000_000_000;

const OLD: &str = "the secret of last year";
const NEW: &str = "the secret of this year";

/// Of the fleet "isobar".
fn ring(secrets: &[&str]) -> Keyring {
    ring_of("isobar", secrets)
}

fn ring_of(name: &str, secrets: &[&str]) -> Keyring {
    Keyring::new(name, secrets.iter().map(|s| s.as_bytes().into())).unwrap()
}

/// A peer that speaks, in one session of it.
fn sealer(secrets: &[&str], sender: u64, session: u64) -> Sealer {
    Sealer::new(&ring(secrets), PeerId(sender), session.to_be_bytes())
}

/// Peer 0 listens.
fn opener(secrets: &[&str]) -> Opener {
    Opener::new(ring(secrets), PeerId(0))
}

fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer
        .seal(Kind::Facts, UNIX_MS, payload, &mut out)
        .unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_refusal_has_a_word_of_its_own() {
    let all = [
        Refusal::Fleet,
        Refusal::Forged,
        Refusal::Key,
        Refusal::Kind(9),
        Refusal::Long,
        Refusal::Own,
        Refusal::Replayed,
        Refusal::Short,
        Refusal::Version(2),
    ];
    let words: std::collections::BTreeSet<_> = all.iter().map(|r| r.as_str()).collect();
    assert_eq!(words.len(), all.len());
    for (refusal, text) in [
        (
            Refusal::Kind(9),
            "its kind, 9, is not known to this version",
        ),
        (
            Refusal::Version(1),
            "it is of version 1, and this peer speaks version 2",
        ),
    ] {
        assert_eq!(refusal.to_string(), text);
    }
}

#[test]
fn no_key_is_printed() {
    let keyring = ring(&[NEW, OLD]);
    assert_eq!(format!("{keyring:?}"), "Keyring(2)");
    let mut printed = format!("{:?}", sealer(&[NEW], 1, 1));
    let mut opener = opener(&[NEW]);
    opener
        .open(&sealed(&mut sealer(&[NEW], 1, 1), b""), NOW)
        .unwrap();
    printed += &format!("{opener:?}");
    assert!(printed.contains("Cipher(…)"), "{printed}");
    assert!(!printed.contains("Key {"), "{printed}");
}
