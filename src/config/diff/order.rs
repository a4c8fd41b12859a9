//! Whether another order of routes decides otherwise.
//!
//! The order in the file decides only between routes that are equally specific and can match one
//! request (see [`crate::route`]). Told is a pair of routes, with equal matchers before and after,
//! whose order is now the other way round. It is not proved that a request meets both: two regular
//! expressions on one host count as able to, and so do different header values.

use std::collections::HashMap;

use crate::route::{HostPattern, PathPattern, Rule};

use super::super::model::{Name, Route};
use super::FieldChange;

/// Pairs that are looked at before it is taken for granted that some pair decides: 10,000 regular
/// expressions in another order have fifty million.
const MAX_PAIRS: usize = 100_000;

/// What two routes share if only their order can decide: host, and ranks of the other matchers.
#[derive(PartialEq, Eq, Hash)]
struct Rank<'a> {
    host: Option<&'a HostPattern>,
    path: PathRank<'a>,
    has_methods: bool,
    headers: usize,
    query: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PathRank<'a> {
    Exact(&'a str),
    /// All regular expressions of a host are equals.
    Regex,
    Prefix(&'a str),
    Any,
}

/// A route that stays: where it was, and what it matches.
#[derive(Clone, Copy)]
struct Kept<'a> {
    before: usize,
    name: &'a Name,
    rule: &'a Rule,
}

/// The first pair whose order decides and is another.
pub(super) fn change(old: &[Route], new: &[Route]) -> Option<FieldChange> {
    let places: HashMap<&Name, usize> = old.iter().enumerate().map(|(i, r)| (&r.name, i)).collect();
    let kept: Vec<Kept<'_>> = new
        .iter()
        .filter_map(|route| {
            let before = *places.get(&route.name)?;
            (old[before].rule == route.rule).then_some(Kept {
                before,
                name: &route.name,
                rule: &route.rule,
            })
        })
        .collect();
    if kept.is_sorted_by_key(|route| route.before) {
        return None;
    }
    let mut index: HashMap<Rank<'_>, usize> = HashMap::new();
    let mut groups: Vec<Vec<Kept<'_>>> = Vec::new();
    for &route in &kept {
        for rank in Rank::of_rule(route.rule) {
            let group = *index.entry(rank).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(route);
        }
    }
    let (first, second) = groups.iter().find_map(|group| turned(group))?;
    let text = |a: &Name, b: &Name| Some(format!("{a} before {b}"));
    Some(FieldChange {
        path: "order".to_owned(),
        old: text(second.name, first.name),
        new: text(first.name, second.name),
    })
}

/// Two routes, in their new order, that were the other way round and can match one request.
fn turned<'a>(group: &[Kept<'a>]) -> Option<(Kept<'a>, Kept<'a>)> {
    if group.is_sorted_by_key(|route| route.before) {
        return None;
    }
    let mut last = None;
    let pairs = group
        .iter()
        .enumerate()
        .flat_map(|(i, first)| group[i + 1..].iter().map(move |second| (*first, *second)));
    for (first, second) in pairs.take(MAX_PAIRS) {
        if first.before > second.before {
            if meet(first.rule, second.rule) {
                return Some((first, second));
            }
            last = Some((first, second));
        }
    }
    // All pairs were seen, unless the group has more.
    let pairs = group.len() * (group.len() - 1) / 2;
    last.filter(|_| pairs > MAX_PAIRS)
}

/// Whether one request may match both, as far as lists tell, and no network decides between them.
fn meet(a: &Rule, b: &Rule) -> bool {
    let both_none = a.clients.is_empty() && b.clients.is_empty();
    share(&a.listeners, &b.listeners)
        && share(&a.methods, &b.methods)
        // Of different networks that hold a client, the longer one decides.
        && (both_none || a.clients.iter().any(|network| b.clients.contains(network)))
}

/// An empty list stands for everything.
fn share<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|item| b.contains(item))
}

// === impl Rank ===

impl<'a> Rank<'a> {
    /// One for each host.
    fn of_rule(rule: &'a Rule) -> impl Iterator<Item = Self> {
        let none = rule.hosts.is_empty().then_some(None);
        let path = match &rule.path {
            Some(PathPattern::Exact(path)) => PathRank::Exact(path),
            Some(PathPattern::Regex(_)) => PathRank::Regex,
            Some(PathPattern::Prefix(path)) => PathRank::Prefix(path),
            None => PathRank::Any,
        };
        none.into_iter()
            .chain(rule.hosts.iter().map(Some))
            .map(move |host| Self {
                host,
                path,
                has_methods: !rule.methods.is_empty(),
                headers: rule.headers.len(),
                query: rule.query.len(),
            })
    }
}
