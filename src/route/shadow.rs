//! Rules that can never win, because one other rule always wins first.
//!
//! Found: every pair in which the winner's hosts, listeners, methods, networks and path include
//! the loser's, each of its header and query matchers follows from one of the loser's, and nothing
//! in the order puts the loser first. That covers duplicates, and `x-a = "1"` after `x-a = ""`.
//! Not found: a rule covered only by several others together, or by a regex that happens to match
//! everything the rule does. Whatever is told is true.

use std::collections::HashMap;

use super::client::canonical;
use super::host::HostKey;
use super::{PathPattern, RouteTable, Rule, ValuePattern};

/// A rule that never answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Index of the rule that never answers.
    pub rule: usize,
    /// Index of the first rule that matches whenever it does and always comes before it.
    pub by: usize,
}

/// What two rules must share before a closer look.
#[derive(PartialEq, Eq, Hash)]
struct GroupKey<'a> {
    host: &'a HostKey,
    path: PathKey<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PathKey<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
    Any,
}

/// The path of the one that may shadow, against the other's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathRelation {
    Same,
    /// It matches as much and is more specific: `/*` against no path.
    Above,
}

// === impl RouteTable ===

impl<A> RouteTable<A> {
    /// Rules that can never answer, in file order. Quadratic in the rules that share host and path.
    pub fn shadowed(&self) -> Vec<Shadow> {
        let hosts: Vec<Vec<HostKey>> = self
            .rules
            .iter()
            .map(|rule| HostKey::of_rule(&rule.hosts))
            .collect();
        let mut groups: HashMap<GroupKey<'_>, Vec<usize>> = HashMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for host in &hosts[index] {
                let key = GroupKey {
                    host,
                    path: PathKey::of_rule(rule),
                };
                groups.entry(key).or_default().push(index);
            }
        }
        let candidates = |host, path| groups.get(&GroupKey { host, path }).into_iter().flatten();

        let mut shadows = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            // Whoever shadows has all of the rule's hosts, so the first one too.
            let Some(host) = hosts[index].first() else {
                continue;
            };
            let path = PathKey::of_rule(rule);
            let equals = candidates(host, path).map(|&by| (by, PathRelation::Same));
            let above = (path == PathKey::Any)
                .then(|| candidates(host, PathKey::Prefix("")))
                .into_iter()
                .flatten()
                .map(|&by| (by, PathRelation::Above));
            let by = equals
                .chain(above)
                .filter(|&(by, _)| by != index && contains_all(&hosts[by], &hosts[index]))
                .filter(|&(by, relation)| wins((by, &self.rules[by]), (index, rule), relation))
                .map(|(by, _)| by)
                .min();
            shadows.extend(by.map(|by| Shadow { rule: index, by }));
        }
        shadows
    }
}

// === impl PathKey ===

impl<'a> PathKey<'a> {
    fn of_rule(rule: &'a Rule) -> Self {
        match &rule.path {
            Some(PathPattern::Exact(path)) => Self::Exact(path),
            Some(PathPattern::Prefix(path)) => Self::Prefix(path),
            Some(PathPattern::Regex(regex)) => Self::Regex(regex.as_str()),
            None => Self::Any,
        }
    }
}

/// Whether `by`, whose hosts and path cover those of `rule`, matches whenever `rule` does and never
/// ranks behind it.
fn wins((i, by): (usize, &Rule), (j, rule): (usize, &Rule), path: PathRelation) -> bool {
    let covers = covers_list(&by.listeners, &rule.listeners)
        && covers_list(&by.methods, &rule.methods)
        && covers_matchers(&by.headers, &rule.headers)
        && covers_matchers(&by.query, &rule.query)
        && covers_clients(by, rule);
    if !covers || path == PathRelation::Above {
        return covers;
    }
    // Covering means asking no more than `rule`; ranking first means asking no less. With networks
    // on both sides the client's longest one decides: `by` must have each of the rule's.
    i < j
        && by.methods.is_empty() == rule.methods.is_empty()
        && by.headers.len() >= rule.headers.len()
        && by.query.len() >= rule.query.len()
        && rule.clients.iter().all(|&network| {
            by.clients
                .iter()
                .any(|&other| canonical(other) == canonical(network))
        })
}

/// An empty list stands for everything.
fn covers_list<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && contains_all(wide, narrow))
}

fn contains_all<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    narrow.iter().all(|item| wide.contains(item))
}

/// Each wide matcher follows from some narrow one of the same name.
fn covers_matchers<N: PartialEq>(wide: &[(N, ValuePattern)], narrow: &[(N, ValuePattern)]) -> bool {
    wide.iter().all(|(name, pattern)| {
        narrow
            .iter()
            .any(|(other, asked)| other == name && pattern.covers(asked))
    })
}

fn covers_clients(wide: &Rule, narrow: &Rule) -> bool {
    wide.clients.is_empty()
        || (!narrow.clients.is_empty()
            && narrow.clients.iter().all(|&network| {
                wide.clients
                    .iter()
                    .any(|&other| canonical(other).contains(&canonical(network)))
            }))
}
