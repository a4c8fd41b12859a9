//! Cookie stickiness: the value that names an endpoint, and the way back from it.
//!
//! The value is the stable hash of the endpoint's name: the same on every proxy and after every
//! restart, with nothing to store. It is no secret: who can guess the address can check the guess.

use super::Member;
use crate::base::hash::hash;

/// Cookie value of a member: 16 hexadecimal digits.
pub fn cookie_value(member: &Member) -> String {
    format!("{:016x}", hash(member.name.as_bytes()))
}

/// Appends the same to `out`: nothing is allocated if there is room.
pub fn write_cookie_value(member: &Member, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{:016x}", hash(member.name.as_bytes()));
}

/// The way from cookie values to ready members; built with each generation.
#[derive(Debug)]
pub struct StickyIndex {
    /// Sorted by hash.
    ready: Box<[(u64, u32)]>,
}

// === impl StickyIndex ===

impl StickyIndex {
    /// Indexes every ready member, those of weight 0 too: weight 0 stops new clients, and one that
    /// holds the cookie is not new. Of equal names the first is meant.
    pub fn new(members: &[Member], ready: &[bool]) -> Self {
        let mut list: Vec<(u64, u32)> = members
            .iter()
            .zip(ready)
            .enumerate()
            .filter(|(_, (_, is_ready))| **is_ready)
            .map(|(i, (member, _))| (hash(member.name.as_bytes()), i as u32))
            .collect();
        list.sort_unstable();
        list.dedup_by_key(|(value, _)| *value);
        Self { ready: list.into() }
    }

    /// The ready member with this cookie value; `None` for a foreign or garbled value, or when the
    /// member is gone or not ready: the policy then picks and a new cookie is set.
    pub fn lookup(&self, value: &[u8]) -> Option<usize> {
        // Exactly what `cookie_value` writes: `from_str_radix` alone would take "+" and upper case.
        let is_ours =
            value.len() == 16 && value.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ours {
            return None;
        }
        let wanted = u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()?;
        let at = self
            .ready
            .binary_search_by_key(&wanted, |&(hash, _)| hash)
            .ok()?;
        Some(self.ready[at].1 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::fixture::members;

    #[test]
    fn a_cookie_finds_its_ready_member_and_no_other() {
        let set = members(&[1, 0, 1]);
        let index = StickyIndex::new(&set, &[true, true, false]);
        assert_eq!(index.lookup(cookie_value(&set[0]).as_bytes()), Some(0));
        assert_eq!(
            index.lookup(cookie_value(&set[1]).as_bytes()),
            Some(1),
            "weight 0 keeps its own"
        );
        assert_eq!(
            index.lookup(cookie_value(&set[2]).as_bytes()),
            None,
            "draining or down"
        );
    }

    #[test]
    fn values_are_stable() {
        let member = Member {
            name: "10.0.0.1:80".into(),
            weight: 1,
        };
        assert_eq!(cookie_value(&member), "0bdac9db975d9f08");
        let mut out = b"a=".to_vec();
        write_cookie_value(&member, &mut out);
        assert_eq!(out, b"a=0bdac9db975d9f08");
    }

    #[test]
    fn garbage_finds_nobody() {
        let set = members(&[1]);
        let index = StickyIndex::new(&set, &[true]);
        let upper = cookie_value(&set[0]).to_uppercase();
        for value in [
            &b""[..],
            b"0",
            b"+bdac9db975d9f08",
            b"\xff\xff",
            &[b'g'; 16],
            upper.as_bytes(),
        ] {
            assert_eq!(index.lookup(value), None);
        }
    }

    #[test]
    fn of_equal_names_the_first_ready_is_meant() {
        let mut set = members(&[1, 1]);
        set[1].name = set[0].name.clone();
        let value = cookie_value(&set[0]);
        assert_eq!(
            StickyIndex::new(&set, &[true, true]).lookup(value.as_bytes()),
            Some(0)
        );
        assert_eq!(
            StickyIndex::new(&set, &[false, true]).lookup(value.as_bytes()),
            Some(1)
        );
    }
}
