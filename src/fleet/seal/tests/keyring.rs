//! Secrets, and what follows from them.

use super::*;
use crate::config::secret::{self, Secret};

#[test]
fn keyring_has_one_to_eight_secrets() {
    let of = |n: usize| {
        Keyring::new(
            "isobar",
            (0..n).map(|i| format!("secret {i}").into_bytes().into()),
        )
    };
    assert_eq!(of(0), None);
    for n in 1..=8 {
        assert_eq!(of(n).unwrap().derive("").len(), n);
    }
    assert_eq!(of(9), None);
}

#[test]
fn secret_that_comes_twice_counts_once() {
    assert_eq!(ring(&[NEW, OLD, NEW]), ring(&[NEW, OLD]));
    assert_ne!(ring(&[NEW, OLD]), ring(&[OLD, NEW]));
    assert_ne!(ring(&[NEW, OLD]), ring(&[NEW]));
}

#[test]
fn two_secrets_of_one_id_are_no_keyring() {
    // Found by trying: two of 35,360 meet in 32 bits, once in seven times.
    let [one, other] = COLLISION;
    assert!(Keyring::new("isobar", [one.as_bytes().into()]).is_some());
    let both = Keyring::new("isobar", [one.as_bytes().into(), other.as_bytes().into()]);
    assert_eq!(both, None);
    assert!(Keyring::new("other", [one.as_bytes().into(), other.as_bytes().into()]).is_some());
}

const COLLISION: [&str; 2] = ["a secret of a test 18390", "a secret of a test 35359"];

#[test]
fn name_of_the_fleet_is_in_all_that_follows() {
    let (one, other) = (ring_of("one", &[NEW]), ring_of("other", &[NEW]));
    assert_ne!(one, other);
    assert_ne!(one.fleet(), other.fleet());
    assert_ne!(one.primary().id(), other.primary().id());
    assert_ne!(one.derive("x"), other.derive("x"));
    // Nothing is taken from the end of one and put before the other.
    let a = Keyring::new("fleet a", [b" secret of a test".as_slice().into()]).unwrap();
    let b = Keyring::new("fleet a ", [b"secret of a test".as_slice().into()]).unwrap();
    assert_ne!(a.derive("x"), b.derive("x"));
    assert!(Keyring::new("", [b"secret".as_slice().into()]).is_some());
}

#[test]
fn each_secret_and_purpose_derives_its_own_32_bytes() {
    let derived = ring(&[NEW, OLD]).derive("sticky cookies");
    assert_eq!(derived.len(), 2);
    assert_eq!(
        derived,
        ring(&[NEW, OLD]).derive("sticky cookies"),
        "at every peer"
    );
    assert_eq!(derived[..1], ring(&[NEW]).derive("sticky cookies"));
    assert_eq!(derived[1..], ring(&[OLD]).derive("sticky cookies"));
    let mut all: Vec<Box<[u8]>> = derived;
    all.extend(ring(&[NEW, OLD]).derive("session tickets"));
    all.extend(ring(&[NEW, OLD]).derive(""));
    assert!(all.iter().all(|d| d.len() == 32));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6);
}

#[test]
fn keys_are_those_of_the_description() {
    // By Python's `hmac` and `cryptography`, from the text of this module.
    let keyring = ring(&["0123456789abcdef"]);
    assert_eq!(hex(&keyring.fleet()), "5badf422");
    assert_eq!(hex(&keyring.primary().id()), "f8243a93");
    assert_eq!(
        hex(&keyring.derive("sticky cookies")[0]),
        "b3a12d4c96dda563f69352c682265caa49858bc9a9fcbff6852c0c5ea073fabd"
    );
}

#[test]
fn keygen_writes_a_line_that_a_secret_file_takes() {
    let mut random = [0; 32];
    random[0] = 0xfe;
    random[31] = 0x01;
    let line = keygen(random);
    assert_eq!(line, format!("fe{}01\n", "0".repeat(60)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.key");
    std::fs::write(&path, line + &keygen([7; 32])).unwrap();
    let secrets = secret::read(&path).unwrap();
    let keyring = Keyring::new("isobar", secrets.into_iter().map(Secret::into_bytes));
    assert_eq!(keyring.unwrap().derive("").len(), 2);
}
