//! Cookie stickiness: the value that names an endpoint, and the way back from it.
//!
//! With a secret the value is a MAC of what the endpoint is (RFC 2104, HMAC with SHA-256): the same on
//! every proxy that has the secret and after every restart, with nothing to store; it tells nobody
//! the address, and nobody else can make one. Without a secret it is the stable hash of the
//! endpoint's name: who can guess the address can choose the endpoint.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Member;
use crate::base::hash::hash;

/// The secrets of an upstream's cookies; none: they are not signed. The first signs; what the others
/// have signed is understood, so that a secret can be replaced while clients hold cookies.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring(Box<[Box<[u8]>]>);

/// A cookie's value, for one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieValue {
    bits: u128,
    /// Hexadecimal digits.
    digits: usize,
}

/// The way from cookie values to ready members, and from members to values; built with each
/// generation.
#[derive(Debug, Default)]
pub struct StickyIndex {
    /// Sorted by value.
    ready: Box<[(u128, u32)]>,
    /// Of each member, ready or not, one after the other.
    values: Values,
    /// Values of each member.
    keys: usize,
    /// Of each value.
    digits: usize,
}

/// What the keys of a keyring make of each member, in their order: `values[i * keys + k]`.
type Values = Arc<[u128]>;

/// Apart from whatever else may once be signed with the same secret.
const PURPOSE: &[u8] = b"isobar sticky 1";

/// Half of the MAC: 128 bits cannot be guessed, and a cookie travels with every request.
const SIGNED_DIGITS: usize = 32;

/// A 64-bit hash.
const HASHED_DIGITS: usize = 16;

// === impl Keyring ===

impl Keyring {
    /// A keyring of these secrets.
    pub fn new(secrets: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// The value that is set for an endpoint of `upstream`.
    pub fn value(&self, upstream: &str, endpoint: &str) -> CookieValue {
        let first = self.0.first().map(|key| &**key);
        CookieValue {
            bits: value(first, upstream, endpoint),
            digits: self.digits(),
        }
    }

    const fn digits(&self) -> usize {
        if self.0.is_empty() {
            HASHED_DIGITS
        } else {
            SIGNED_DIGITS
        }
    }

    /// Values for each member.
    fn len(&self) -> usize {
        self.0.len().max(1)
    }

    fn values(&self, upstream: &str, members: &[Member]) -> Values {
        let of_member = |member: &Member| -> Vec<u128> {
            match &*self.0 {
                [] => vec![value(None, upstream, &member.name)],
                keys => keys
                    .iter()
                    .map(|key| value(Some(key), upstream, &member.name))
                    .collect(),
            }
        };
        members.iter().flat_map(of_member).collect()
    }
}

/// How many secrets, never what they are.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.0.len())
    }
}

fn value(key: Option<&[u8]>, upstream: &str, endpoint: &str) -> u128 {
    let Some(key) = key else {
        return hash(endpoint.as_bytes()).into();
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .expect("invariant: HMAC takes keys of any length (RFC 2104 section 2)");
    // Names have no NUL: no two pairs are the same bytes.
    for part in [PURPOSE, b"\0", upstream.as_bytes(), b"\0"] {
        mac.update(part);
    }
    mac.update(endpoint.as_bytes());
    let bytes = mac.finalize().into_bytes();
    let front = bytes.iter().take(SIGNED_DIGITS / 2);
    front.fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

// === impl CookieValue ===

impl CookieValue {
    /// Appends it to `out`: nothing is allocated if there is room.
    pub fn write_to(self, out: &mut Vec<u8>) {
        use std::io::Write as _;
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{self}");
    }
}

impl fmt::Display for CookieValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.bits, width = self.digits)
    }
}

// === impl StickyIndex ===

impl StickyIndex {
    /// Indexes every ready member, those of weight 0 too: weight 0 stops new clients, and one that
    /// holds the cookie is not new. Of equal names the first is meant. `before` is the index of the
    /// generation before with its members, if it had the same keyring: where they are the same, so
    /// are their values, and 10,000 MACs are not made anew because one endpoint fell ill.
    pub fn new(
        keyring: &Keyring,
        upstream: &str,
        members: &[Member],
        ready: &[bool],
        before: Option<(&Self, &[Member])>,
    ) -> Self {
        let same_names = |known: &[Member]| {
            known.len() == members.len() && known.iter().zip(members).all(|(a, b)| a.name == b.name)
        };
        let keys = keyring.len();
        let before = before.filter(|(index, known)| {
            same_names(known) && index.values.len() == members.len() * keys
        });
        let values = match before {
            Some((index, _)) => index.values.clone(),
            None => keyring.values(upstream, members),
        };
        let mut list: Vec<(u128, u32)> = values
            .iter()
            .enumerate()
            .map(|(i, value)| (*value, (i / keys) as u32))
            .filter(|(_, i)| ready.get(*i as usize) == Some(&true))
            .collect();
        list.sort_unstable();
        list.dedup_by_key(|(value, _)| *value);
        Self {
            ready: list.into(),
            values,
            keys,
            digits: keyring.digits(),
        }
    }

    /// The ready member with this cookie value; `None` for a foreign or garbled value, or when the
    /// member is gone or not ready: the policy then picks and a new cookie is set.
    pub fn lookup(&self, value: &[u8]) -> Option<usize> {
        // Exactly what was written: `from_str_radix` alone would take "+" and upper case.
        let is_ours = value.len() == self.digits
            && value.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ours {
            return None;
        }
        let wanted = u128::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()?;
        let at = self
            .ready
            .binary_search_by_key(&wanted, |&(value, _)| value)
            .ok()?;
        Some(self.ready[at].1 as usize)
    }

    /// The value to set for member `index`.
    pub fn value(&self, index: usize) -> Option<CookieValue> {
        Some(CookieValue {
            // Of its values the first is the one that is signed with today's secret.
            bits: *self.values.get(index * self.keys)?,
            digits: self.digits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::fixture::members;

    fn keyring(secrets: &[&str]) -> Keyring {
        Keyring::new(secrets.iter().map(|s| s.as_bytes().into()))
    }

    fn index(keyring: &Keyring, members: &[Member], ready: &[bool]) -> StickyIndex {
        StickyIndex::new(keyring, "app", members, ready, None)
    }

    fn text(keyring: &Keyring, member: &Member) -> String {
        keyring.value("app", &member.name).to_string()
    }

    const OLD: &str = "a secret of old times";
    const NEW: &str = "the secret of today";

    #[test]
    fn a_cookie_finds_its_ready_member_and_no_other() {
        let set = members(&[1, 0, 1]);
        for keyring in [keyring(&[]), keyring(&[NEW]), keyring(&[NEW, OLD])] {
            let index = index(&keyring, &set, &[true, true, false]);
            let found = |i: usize| index.lookup(text(&keyring, &set[i]).as_bytes());
            assert_eq!(found(0), Some(0));
            assert_eq!(found(1), Some(1), "weight 0 keeps its own");
            assert_eq!(found(2), None, "draining or down");
            for (i, member) in set.iter().enumerate() {
                let value = keyring.value("app", &member.name);
                assert_eq!(index.value(i), Some(value));
            }
        }
    }

    #[test]
    fn values_are_stable() {
        let value = |keyring: &Keyring| keyring.value("app", "10.0.0.1:80");
        assert_eq!(value(&keyring(&[])).to_string(), "0bdac9db975d9f08");
        // printf 'isobar sticky 1\0app\0%s' 10.0.0.1:80 | openssl dgst -sha256 -hmac "$NEW"
        let signed = value(&keyring(&[NEW, OLD]));
        assert_eq!(signed.to_string(), "5064ed11c45f913cce53c42373604a16");
        let mut out = b"a=".to_vec();
        signed.write_to(&mut out);
        assert_eq!(out, format!("a={signed}").as_bytes());
        assert_ne!(signed, keyring(&[NEW]).value("other", "10.0.0.1:80"));
        assert_ne!(signed, keyring(&[OLD]).value("app", "10.0.0.1:80"));
    }

    #[test]
    fn what_an_older_secret_signed_is_understood() {
        let set = members(&[1, 1]);
        let old = text(&keyring(&[OLD]), &set[1]);
        let both = keyring(&[NEW, OLD]);
        let found = |keyring: &Keyring| {
            let index = index(keyring, &set, &[true, true]);
            index.lookup(old.as_bytes())
        };
        assert_eq!(found(&both), Some(1));
        assert_eq!(found(&keyring(&[NEW])), None);
        assert_eq!(found(&keyring(&[])), None);
        assert_ne!(text(&both, &set[1]), old, "the first signs");
        assert_eq!(format!("{both:?}"), "Keyring(2)", "no secret is printed");
    }

    #[test]
    fn cookies_of_another_upstream_find_nobody() {
        let set = members(&[1]);
        let keyring = keyring(&[NEW]);
        let foreign = keyring.value("other", &set[0].name).to_string();
        let index = index(&keyring, &set, &[true]);
        assert_eq!(index.lookup(foreign.as_bytes()), None);
    }

    #[test]
    fn values_of_the_generation_before_are_kept_for_the_same_members() {
        let set = members(&[1, 1]);
        let keyring = keyring(&[NEW, OLD]);
        let first = index(&keyring, &set, &[true, true]);
        let next = |set: &[Member]| {
            let before = Some((&first, &members(&[5, 5])[..]));
            StickyIndex::new(&keyring, "app", set, &vec![true; set.len()], before)
        };
        assert!(Arc::ptr_eq(&next(&set).values, &first.values));
        let mut other = set.clone();
        other[1].name = "elsewhere".into();
        let next = next(&other);
        assert_eq!(next.lookup(text(&keyring, &other[1]).as_bytes()), Some(1));
        assert_eq!(next.lookup(text(&keyring, &set[1]).as_bytes()), None);
    }

    #[test]
    fn garbage_finds_nobody() {
        let set = members(&[1]);
        for keyring in [keyring(&[]), keyring(&[NEW])] {
            let index = index(&keyring, &set, &[true]);
            let good = text(&keyring, &set[0]);
            let digits = good.len();
            for value in [
                String::new(),
                "0".to_owned(),
                "0".repeat(digits),
                "g".repeat(digits),
                "f".repeat(digits * 2),
                format!("+{}", &good[1..]),
                format!("0{good}"),
                good[1..].to_owned(),
                good.to_uppercase(),
            ] {
                assert_eq!(index.lookup(value.as_bytes()), None, "{value}");
            }
            assert_eq!(index.lookup(&vec![0xff; digits]), None);
        }
        assert_eq!(StickyIndex::default().lookup(b""), None);
        assert_eq!(StickyIndex::default().value(0), None);
    }

    #[test]
    fn of_equal_names_the_first_ready_is_meant() {
        let mut set = members(&[1, 1]);
        set[1].name = set[0].name.clone();
        let keyring = keyring(&[NEW]);
        let value = text(&keyring, &set[0]);
        let found = |ready: &[bool]| index(&keyring, &set, ready).lookup(value.as_bytes());
        assert_eq!(found(&[true, true]), Some(0));
        assert_eq!(found(&[false, true]), Some(1));
    }
}
