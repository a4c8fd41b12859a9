//! Rules that can never win, because one other rule always wins first.
//!
//! Found: every pair in which the winner's hosts, listeners, methods, networks and path include
//! the loser's, each of its header and query matchers follows from one of the loser's, and nothing
//! in the order puts the loser first. That covers duplicates, and `x-a = "1"` after `x-a = ""`.
//! Not found: a rule covered only by several others together, or by a regex that happens to match
//! everything the rule does. Whatever is told is true.

use std::collections::HashMap;

use ipnet::IpNet;

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

/// What two rules must share before a closer look: host, path, and something that the winner asks.
#[derive(PartialEq, Eq, Hash)]
struct GroupKey<'a> {
    host: &'a HostKey,
    path: PathKey<'a>,
    asked: Asked<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PathKey<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
    Any,
}

/// One thing that a rule asks of a request. Whoever shadows a rule asks only what that rule asks too
/// (or less of it), so it is found under the rule's own matchers; each is entered under the rarest
/// thing it asks, so that thousands of rules on one path are not compared with one another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Asked<'a> {
    HeaderIs(&'a str, &'a str),
    /// A header matcher that is no plain value: what it covers has the name in common.
    Header(&'a str),
    QueryIs(&'a str, &'a str),
    Query(&'a str),
    Network(IpNet),
    Method(&'a str),
    Listener(&'a str),
    Nothing,
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
    /// Rules that can never answer, in file order. Quadratic only in the rules that share host, path
    /// and everything else that they ask.
    pub fn shadowed(&self) -> Vec<Shadow> {
        let hosts: Vec<Vec<HostKey>> = self
            .rules
            .iter()
            .map(|rule| HostKey::of_rule(&rule.hosts))
            .collect();
        let mut common: HashMap<Asked<'_>, usize> = HashMap::new();
        for list in self.rules.iter().flat_map(Asked::lists_of_rule) {
            for asked in list {
                *common.entry(asked).or_insert(0) += 1;
            }
        }
        // Indices in each group ascend.
        let mut groups: HashMap<GroupKey<'_>, Vec<usize>> = HashMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for host in &hosts[index] {
                for asked in Asked::rarest_of_rule(rule, &common) {
                    let path = PathKey::of_rule(rule);
                    let key = GroupKey { host, path, asked };
                    groups.entry(key).or_default().push(index);
                }
            }
        }

        let mut shadows = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            // Whoever shadows has all of the rule's hosts, so the first one too.
            let Some(host) = hosts[index].first() else {
                continue;
            };
            let path = PathKey::of_rule(rule);
            let mut first: Option<usize> = None;
            let mut search = |path, relation| {
                for asked in Asked::of_cover(rule, relation) {
                    let group = groups.get(&GroupKey { host, path, asked });
                    let end = match relation {
                        PathRelation::Same => index,
                        PathRelation::Above => usize::MAX,
                    };
                    let end = first.unwrap_or(end);
                    let found = group
                        .into_iter()
                        .flatten()
                        .take_while(|&&by| by < end)
                        .find(|&&by| {
                            contains_all(&hosts[by], &hosts[index])
                                && wins((by, &self.rules[by]), (index, rule), relation)
                        });
                    first = found.copied().or(first);
                }
            };
            search(path, PathRelation::Same);
            if path == PathKey::Any {
                search(PathKey::Prefix(""), PathRelation::Above);
            }
            shadows.extend(first.map(|by| Shadow { rule: index, by }));
        }
        shadows
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// What a rule asks: of each list, a request (or a rule that this one covers) has one at least.
    fn lists_of_rule(rule: &'a Rule) -> Vec<Vec<Self>> {
        let mut lists: Vec<Vec<Self>> = Vec::new();
        lists.extend(rule.headers.iter().map(|(name, pattern)| match pattern {
            ValuePattern::Exact(value) => vec![Self::HeaderIs(name.as_str(), value)],
            ValuePattern::Present | ValuePattern::Regex(_) => vec![Self::Header(name.as_str())],
        }));
        lists.extend(rule.query.iter().map(|(name, pattern)| match pattern {
            ValuePattern::Exact(value) => vec![Self::QueryIs(name, value)],
            ValuePattern::Present | ValuePattern::Regex(_) => vec![Self::Query(name)],
        }));
        let networks = rule.clients.iter().map(|&n| Self::Network(canonical(n)));
        lists.push(networks.collect());
        lists.push(
            rule.methods
                .iter()
                .map(|m| Self::Method(m.as_str()))
                .collect(),
        );
        lists.push(rule.listeners.iter().map(|l| Self::Listener(l)).collect());
        lists.retain(|list| !list.is_empty());
        lists
    }

    /// The list whose most common part is the rarest.
    fn rarest_of_rule(rule: &'a Rule, common: &HashMap<Self, usize>) -> Vec<Self> {
        let most = |list: &Vec<Self>| list.iter().filter_map(|a| common.get(a)).max().copied();
        let rarest = Self::lists_of_rule(rule).into_iter().min_by_key(most);
        rarest.unwrap_or_else(|| vec![Self::Nothing])
    }

    /// Where everything is entered that may cover `rule`.
    fn of_cover(rule: &'a Rule, relation: PathRelation) -> Vec<Self> {
        let mut found = vec![Self::Nothing];
        for (name, pattern) in &rule.headers {
            found.push(Self::Header(name.as_str()));
            if let ValuePattern::Exact(value) = pattern {
                found.push(Self::HeaderIs(name.as_str(), value));
            }
        }
        for (name, pattern) in &rule.query {
            found.push(Self::Query(name));
            if let ValuePattern::Exact(value) = pattern {
                found.push(Self::QueryIs(name, value));
            }
        }
        // A list covers all of the rule's, so the first one too.
        if let Some(&network) = rule.clients.first() {
            let network = canonical(network);
            found.push(Self::Network(network));
            if relation == PathRelation::Above {
                let wider = std::iter::successors(network.supernet(), IpNet::supernet);
                found.extend(wider.map(Self::Network));
            }
        }
        found.extend(rule.methods.first().map(|m| Self::Method(m.as_str())));
        found.extend(rule.listeners.first().map(|l| Self::Listener(l)));
        found
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

#[cfg(test)]
impl<A> RouteTable<A> {
    /// [`RouteTable::shadowed`] without an index: every rule against every other.
    pub(super) fn shadowed_by_search(&self) -> Vec<Shadow> {
        let hosts: Vec<Vec<HostKey>> = self
            .rules
            .iter()
            .map(|rule| HostKey::of_rule(&rule.hosts))
            .collect();
        let shadow = |rule: usize| {
            let path = PathKey::of_rule(&self.rules[rule]);
            let by = (0..self.rules.len()).find(|&by| {
                let relation = match (PathKey::of_rule(&self.rules[by]), path) {
                    (above, path) if above == path => PathRelation::Same,
                    (PathKey::Prefix(""), PathKey::Any) => PathRelation::Above,
                    _ => return false,
                };
                by != rule
                    && contains_all(&hosts[by], &hosts[rule])
                    && wins((by, &self.rules[by]), (rule, &self.rules[rule]), relation)
            })?;
            Some(Shadow { rule, by })
        };
        (0..self.rules.len()).filter_map(shadow).collect()
    }
}
