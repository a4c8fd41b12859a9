//! From rules in file order to the table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use regex::Regex;

use super::client::NetworkGroup;
use super::host::{HostKey, HostTable};
use super::listeners::{ListenerSet, ListenerSets};
use super::literal::leading_literal;
use super::order::Rank;
use super::path::{NodeId, Radix};
use super::predicate::CheckKey;
use super::steps::PathRegexes;
use super::table::{Bucket, Entry, Leaf, RouteTable, Span};
use super::{PathPattern, Rule};

/// An entry on its way to its bucket, with what sorts it.
struct Draft {
    rank: Rank,
    entry: Entry,
}

/// The drafts of one bucket by path, each list in order.
#[derive(Default)]
struct Sorted<'a> {
    /// Exact and prefix rules by key.
    paths: BTreeMap<&'a [u8], (Vec<Entry>, Vec<Entry>)>,
    /// Regexes by the literal they start with.
    starts: BTreeMap<&'a [u8], Vec<Entry>>,
    any: Vec<Entry>,
}

// === impl RouteTable ===

impl<A> RouteTable<A> {
    /// Compiles `rules`, given in file order. `listeners` are the names that [`Rule::listeners`]
    /// speaks of; [`super::Request::listener`] is an index into them. A rule that names only
    /// unknown listeners matches nothing.
    pub fn build(listeners: &[Arc<str>], rules: Vec<(Rule, A)>) -> Self {
        let (rules, actions): (Vec<Rule>, Vec<A>) = rules.into_iter().unzip();
        let mut table = Self {
            rules: Vec::new(),
            actions,
            listeners: ListenerSets::new(listeners),
            hosts: HostTable::default(),
            buckets: Vec::new(),
            paths: Radix::default(),
            leaves: Vec::new(),
            starts: Radix::default(),
            regex_leaves: Vec::new(),
            regexes: PathRegexes::default(),
            entries: Vec::new(),
            networks: Vec::new(),
        };
        let mut regexes = Vec::new();
        let buckets = table.draft(&rules, &mut regexes);
        let literals: Vec<Vec<u8>> = regexes.iter().map(leading_literal).collect();
        table.regexes = PathRegexes::new(regexes);
        for mut drafts in buckets {
            drafts.sort_by_key(|draft| (Reverse(draft.rank), draft.entry.rule));
            table.add_bucket(&rules, &literals, drafts);
        }
        table.rules = rules;
        table
    }

    /// The drafts of each bucket; the distinct path regexes go to `regexes`.
    fn draft(&mut self, rules: &[Rule], regexes: &mut Vec<Regex>) -> Vec<Vec<Draft>> {
        let mut buckets: Vec<Vec<Draft>> = Vec::new();
        let mut texts: HashMap<&str, u32> = HashMap::new();
        let mut checks_of: HashMap<CheckKey<'_>, u32> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let listeners = self.listeners.of_rule(&rule.listeners);
            let regex = match &rule.path {
                Some(PathPattern::Regex(regex)) => {
                    Some(*texts.entry(regex.as_str()).or_insert_with(|| {
                        regexes.push(regex.clone());
                        regexes.len() as u32 - 1
                    }))
                }
                Some(PathPattern::Exact(_) | PathPattern::Prefix(_)) | None => None,
            };
            let checks =
                CheckKey::of_rule(rule).map(|key| *checks_of.entry(key).or_insert(index as u32));
            let first = self.networks.len() as u32;
            self.networks.extend(NetworkGroup::of_rule(&rule.clients));
            let mut networks: Vec<Option<u32>> =
                (first..self.networks.len() as u32).map(Some).collect();
            if networks.is_empty() {
                networks.push(None);
            }
            for key in HostKey::of_rule(&rule.hosts) {
                let bucket = self.hosts.bucket(key, buckets.len() as u32) as usize;
                if bucket == buckets.len() {
                    buckets.push(Vec::new());
                }
                buckets[bucket].extend(networks.iter().map(|&network| {
                    let length = network.map(|group| self.networks[group as usize].length());
                    let rank = Rank::of_rule(rule, length);
                    let rule = index as u32;
                    Draft {
                        rank,
                        entry: Entry {
                            rule,
                            listeners,
                            regex,
                            network,
                            place: 0,
                            checks,
                        },
                    }
                }));
            }
        }
        buckets
    }

    fn add_bucket(&mut self, rules: &[Rule], literals: &[Vec<u8>], drafts: Vec<Draft>) {
        let mut listeners: Option<ListenerSet> = None;
        let mut sorted = Sorted::default();
        for (place, draft) in drafts.into_iter().enumerate() {
            let entry = Entry {
                place: place as u32,
                ..draft.entry
            };
            let more = entry.listeners;
            listeners = Some(listeners.map_or(more, |set| self.listeners.union(set, more)));
            let list = match (&rules[entry.rule as usize].path, entry.regex) {
                (Some(PathPattern::Exact(path)), _) => {
                    &mut sorted.paths.entry(path.as_bytes()).or_default().0
                }
                (Some(PathPattern::Prefix(path)), _) => {
                    &mut sorted.paths.entry(path.as_bytes()).or_default().1
                }
                (Some(PathPattern::Regex(_)), Some(regex)) => {
                    sorted.starts.entry(&literals[regex as usize]).or_default()
                }
                (Some(PathPattern::Regex(_)) | None, _) => &mut sorted.any,
            };
            list.push(entry);
        }

        let mut keys = Vec::with_capacity(sorted.paths.len());
        for (path, (exact, prefix)) in sorted.paths {
            keys.push((path, self.leaves.len() as u32));
            let leaf = Leaf {
                exact: self.add_span(exact),
                prefix: self.add_span(prefix),
            };
            self.leaves.push(leaf);
        }
        let paths = plant(&mut self.paths, &keys);

        let mut keys = Vec::with_capacity(sorted.starts.len());
        for (literal, entries) in sorted.starts {
            keys.push((literal, self.regex_leaves.len() as u32));
            let span = self.add_span(entries);
            self.regex_leaves.push(span);
        }
        let starts = plant(&mut self.starts, &keys);

        let any = self.add_span(sorted.any);
        let listeners = listeners.unwrap_or(ListenerSet::ALL);
        self.buckets.push(Bucket {
            listeners,
            paths,
            starts,
            any,
        });
    }

    fn add_span(&mut self, entries: Vec<Entry>) -> Span {
        let start = self.entries.len() as u32;
        self.entries.extend(entries);
        start..self.entries.len() as u32
    }
}

fn plant(radix: &mut Radix, keys: &[(&[u8], u32)]) -> Option<NodeId> {
    (!keys.is_empty()).then(|| radix.plant(keys))
}
