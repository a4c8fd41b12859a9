//! Hosts to buckets: a hash of exact names, a hash of wildcard suffixes, the hostless rest.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::HostPattern;

/// A DNS name has 255 octets on the wire (RFC 1035 section 2.3.4), so at most 253 characters and
/// a final dot; longer names exist only in attacks.
pub const HOST_BYTES_MAX: usize = 255;

/// How closely a rule's host fits; the smaller, the more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostLevel {
    /// The name itself.
    Exact,
    /// A wildcard with this many labels after `*.`.
    Wildcard {
        /// 2 for `*.example.com`.
        labels: usize,
    },
    /// The rule has no host.
    Any,
}

/// A host pattern, folded: what buckets are keyed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostKey {
    Exact(Box<[u8]>),
    Wildcard(Box<[u8]>),
    Any,
}

/// From hosts to bucket numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct HostTable {
    exact: HashMap<Box<[u8]>, u32>,
    wildcard: HashMap<Box<[u8]>, u32>,
    /// Bit `n` is set when a wildcard has `n` labels: one lookup for each count that exists, so an
    /// attacker's host of 127 labels costs no more than the configured wildcards do.
    wildcard_labels: u128,
    any: Option<u32>,
}

// === impl HostKey ===

impl HostKey {
    /// The keys of a rule, each once. No patterns at all is [`HostKey::Any`].
    pub(super) fn of_rule(patterns: &[HostPattern]) -> Vec<Self> {
        if patterns.is_empty() {
            return vec![Self::Any];
        }
        let mut seen = HashSet::new();
        patterns
            .iter()
            .map(Self::of_pattern)
            .filter(|key| seen.insert(key.clone()))
            .collect()
    }

    fn of_pattern(pattern: &HostPattern) -> Self {
        let fold = |name: &str| without_dot(name).to_ascii_lowercase().into_bytes().into();
        match pattern {
            HostPattern::Exact(name) => Self::Exact(fold(name)),
            HostPattern::Wildcard(suffix) if without_dot(suffix).is_empty() => Self::Any,
            HostPattern::Wildcard(suffix) => Self::Wildcard(fold(suffix)),
        }
    }
}

// === impl HostPattern ===

impl HostPattern {
    /// Whether `host` is one of its names, as the table finds them: without regard to case and a final dot.
    pub fn covers(&self, host: &str) -> bool {
        let host = without_dot(host);
        match self {
            Self::Exact(name) => without_dot(name).eq_ignore_ascii_case(host),
            Self::Wildcard(suffix) => {
                let suffix = without_dot(suffix).as_bytes();
                let split = host.len().checked_sub(suffix.len());
                let split = split.map(|at| host.as_bytes().split_at(at));
                // One label or more in front of the dot.
                let has_labels = |front: &[u8]| front.len() > 1 && front.ends_with(b".");
                suffix.is_empty()
                    || split.is_some_and(|(front, rest)| {
                        has_labels(front) && rest.eq_ignore_ascii_case(suffix)
                    })
            }
        }
    }
}

// === impl HostTable ===

impl HostTable {
    /// The bucket of `key`; `next` becomes its number when it has none yet.
    pub(super) fn bucket(&mut self, key: HostKey, next: u32) -> u32 {
        match key {
            HostKey::Exact(name) => *self.exact.entry(name).or_insert(next),
            HostKey::Wildcard(suffix) => {
                // More labels than bits cannot be: 255 bytes hold 128 labels, one is the star's.
                self.wildcard_labels |= 1u128.checked_shl(labels(&suffix)).unwrap_or(0);
                *self.wildcard.entry(suffix).or_insert(next)
            }
            HostKey::Any => *self.any.get_or_insert(next),
        }
    }

    /// Calls `visit` with the buckets that cover `host`, the most specific first, until it breaks.
    #[inline]
    pub(super) fn walk<B>(
        &self,
        host: &str,
        mut visit: impl FnMut(HostLevel, u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let host = without_dot(host).as_bytes();
        let mut buffer = [0; HOST_BYTES_MAX];
        // An empty or overlong host goes straight to the rules without a host.
        if let Some(folded) = buffer.get_mut(..host.len())
            && !host.is_empty()
        {
            folded.copy_from_slice(host);
            folded.make_ascii_lowercase();
            if let Some(&bucket) = self.exact.get(&*folded) {
                visit(HostLevel::Exact, bucket)?;
            }
            if self.wildcard_labels != 0 {
                self.walk_wildcards(folded, &mut visit)?;
            }
        }
        match self.any {
            Some(bucket) => visit(HostLevel::Any, bucket),
            None => ControlFlow::Continue(()),
        }
    }

    fn walk_wildcards<B>(
        &self,
        folded: &[u8],
        visit: &mut impl FnMut(HostLevel, u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut after = labels(folded);
        for (dot, _) in folded.iter().enumerate().filter(|&(_, &byte)| byte == b'.') {
            after -= 1;
            // A leading dot has no label in front of it.
            let exists = self
                .wildcard_labels
                .checked_shr(after)
                .is_some_and(|bits| bits & 1 == 1);
            if dot > 0
                && exists
                && let Some(&bucket) = self.wildcard.get(&folded[dot + 1..])
            {
                visit(
                    HostLevel::Wildcard {
                        labels: after as usize,
                    },
                    bucket,
                )?;
            }
        }
        ControlFlow::Continue(())
    }
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Labels of a name; at most 256 for 255 bytes.
fn labels(name: &[u8]) -> u32 {
    name.split(|&byte| byte == b'.').count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[HostPattern]) -> HostTable {
        let mut table = HostTable::default();
        for (next, key) in HostKey::of_rule(patterns).into_iter().enumerate() {
            table.bucket(key, next as u32);
        }
        table
    }

    fn buckets(table: &HostTable, host: &str) -> Vec<u32> {
        let mut seen = Vec::new();
        let _ = table.walk::<()>(host, |_, bucket| {
            seen.push(bucket);
            ControlFlow::Continue(())
        });
        seen
    }

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.into())
    }

    #[test]
    fn one_pattern_covers_what_a_table_of_it_finds() {
        let names = [
            "a.test",
            "A.TEST.",
            "b.a.test",
            "c.b.A.test.",
            ".a.test",
            "xa.test",
            "test",
            "",
        ];
        for pattern in [
            exact("a.test"),
            exact("A.test."),
            wildcard("a.test"),
            wildcard(""),
        ] {
            let table = table(std::slice::from_ref(&pattern));
            for host in names {
                let found = !buckets(&table, host).is_empty();
                assert_eq!(pattern.covers(host), found, "{pattern:?} {host}");
            }
        }
    }

    fn wildcard(name: &str) -> HostPattern {
        HostPattern::Wildcard(name.into())
    }

    #[test]
    fn exact_comes_before_longer_wildcards_before_shorter_before_any() {
        let table = table(&[
            wildcard("com"),
            exact("a.b.example.com"),
            wildcard("example.com"),
            wildcard(""),
            wildcard("b.example.com"),
        ]);
        assert_eq!(buckets(&table, "a.b.example.com"), [1, 4, 2, 0, 3]);
        assert_eq!(buckets(&table, "x.b.example.com"), [4, 2, 0, 3]);
        assert_eq!(buckets(&table, "b.example.com"), [2, 0, 3]);
        assert_eq!(buckets(&table, "com"), [3]);
    }

    #[test]
    fn case_and_one_trailing_dot_are_folded_on_both_sides() {
        let table = table(&[exact("Example.COM."), wildcard("EXAMPLE.org.")]);
        assert_eq!(buckets(&table, "eXample.com"), [0]);
        assert_eq!(buckets(&table, "example.com."), [0]);
        assert_eq!(buckets(&table, "example.com.."), [0u32; 0]);
        assert_eq!(buckets(&table, "A.example.ORG."), [1]);
    }

    #[test]
    fn wildcard_needs_a_label_in_front() {
        let table = table(&[wildcard("example.com")]);
        assert_eq!(buckets(&table, "example.com"), [0u32; 0]);
        assert_eq!(buckets(&table, ".example.com"), [0u32; 0]);
        assert_eq!(buckets(&table, "badexample.com"), [0u32; 0]);
        assert_eq!(buckets(&table, "a.b.example.com"), [0]);
    }

    #[test]
    fn ipv6_literal_matches_as_text() {
        let table = table(&[exact("[::1]"), exact("[FE80::A]")]);
        assert_eq!(buckets(&table, "[::1]"), [0]);
        assert_eq!(buckets(&table, "[fe80::a]"), [1]);
        assert_eq!(buckets(&table, "[0::1]"), [0u32; 0]);
    }

    #[test]
    fn hosts_at_and_above_the_limit() {
        let long = |bytes: usize| format!("{}.example.com", "a".repeat(bytes - 12));
        let table = table(&[
            exact(&long(255)),
            exact(&long(256)),
            wildcard("example.com"),
            wildcard(""),
        ]);
        assert_eq!(buckets(&table, &long(255)), [0, 2, 3]);
        assert_eq!(buckets(&table, &long(256)), [3]);
        assert_eq!(buckets(&table, ""), [3]);
        assert_eq!(buckets(&table, "."), [3]);
        assert_eq!(buckets(&table, &".".repeat(255)), [3]);
    }

    #[test]
    fn a_rules_equal_hosts_count_once() {
        assert_eq!(
            HostKey::of_rule(&[exact("a"), exact("A."), wildcard("a")]).len(),
            2
        );
        assert_eq!(HostKey::of_rule(&[]), [HostKey::Any]);
    }
}
