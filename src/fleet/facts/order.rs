//! Which of two facts with one key holds.
//!
//! The later stamp. Stamps of one peer are all different, those of two peers may be equal; then it is
//! 1. the stricter value: what takes an endpoint away wins over what gives it, as two operators would settle it;
//! 2. the larger origin;
//! 3. the larger encoding, which only a peer that says two things under one stamp can bring about.
//!
//! This is a total order of facts, and the greatest of a set is the same in whatever order one looks: merging is
//! commutative, associative and idempotent.

use std::cmp::Ordering;

use crate::fleet::fact::{Fact, Value, Word};

/// Whether `fact` holds where `held` did, which has the same key.
pub fn supersedes(fact: &Fact, held: &Fact) -> bool {
    let rank = |fact: &Fact| (fact.stamp, strictness(&fact.value), fact.origin);
    rank(fact)
        .cmp(&rank(held))
        .then_with(|| encoded(&fact.value).cmp(&encoded(&held.value)))
        == Ordering::Greater
}

/// How strict a value is. From the strictest: gone, disabled, drains, leaves, a weight (of two the smaller),
/// joins (of two weights the smaller), a vote that fails, one that passes, a registration (of two weights the
/// smaller), what a peer says of itself.
///
/// Only values of one kind of key ever meet; the one row is easier to state than one for each.
pub fn strictness(value: &Value) -> (u8, u32) {
    let light = |weight: u32| u32::MAX - weight;
    match value {
        Value::Gone => (9, 0),
        Value::Said { word, .. } => match word {
            Word::Disable => (8, 0),
            Word::Drain => (7, 0),
            Word::Leaves => (6, 0),
            Word::Weight(weight) => (5, light(*weight)),
            Word::Joins(weight) => (4, light(*weight)),
        },
        Value::Vote { passed: false, .. } => (3, 0),
        Value::Vote { passed: true, .. } => (2, 0),
        Value::Registered { weight, .. } => (1, light(*weight)),
        Value::Peer(_) => (0, 0),
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    // Values that were checked can be encoded: no part of them refuses to be.
    postcard::to_allocvec(value).unwrap_or_default()
}
