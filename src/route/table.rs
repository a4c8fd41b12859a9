//! The table and its one walk, which `find` and `explain` share.

use std::ops::{ControlFlow, Range};

use super::client::NetworkGroup;
use super::host::HostTable;
use super::listeners::{ListenerSet, ListenerSets};
use super::path::{Hit, NodeId, Radix};
use super::steps::PathRegexes;
use super::{HostLevel, Lost, Request, Rule, predicate};

/// Rules compiled for lookup, each with its action. The order is the module's first section.
#[derive(Clone, Debug)]
pub struct RouteTable<A> {
    pub(super) rules: Vec<Rule>,
    pub(super) actions: Vec<A>,
    pub(super) listeners: ListenerSets,
    pub(super) hosts: HostTable,
    pub(super) buckets: Vec<Bucket>,
    /// Values are indices of `leaves`.
    pub(super) paths: Radix,
    pub(super) leaves: Vec<Leaf>,
    /// Keyed by the literals that regexes start with; values are indices of `regex_leaves`.
    pub(super) starts: Radix,
    pub(super) regex_leaves: Vec<Span>,
    /// Each distinct text once: a pattern that many hosts share stays in the cache.
    pub(super) regexes: PathRegexes,
    pub(super) entries: Vec<Entry>,
    pub(super) networks: Vec<NetworkGroup>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Match<'t, 'r, A> {
    /// The winner's action.
    pub action: &'t A,
    /// The winner's index in the rules given to [`RouteTable::build`].
    pub index: usize,
    /// What follows a matched prefix: empty or from its `/` on (for `/*`, the whole path). Empty
    /// for exact paths, regexes and rules without a path.
    pub rest: &'r str,
}

// By hand: references are copied whatever the action is.
impl<A> Clone for Match<'_, '_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Match<'_, '_, A> {}

/// Why no rule answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// No rule of this listener covers the host: 421.
    #[error("no route of this listener covers the host")]
    NoHost,
    /// Rules cover the host, none of them this request: 404.
    #[error("no route matches")]
    NoRoute,
}

/// All rules of one host pattern.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Every listener for which the host is known.
    pub(super) listeners: ListenerSet,
    pub(super) paths: Option<NodeId>,
    pub(super) starts: Option<NodeId>,
    /// Rules without a path.
    pub(super) any: Span,
}

/// A run of `entries`, in order.
pub(super) type Span = Range<u32>;

/// The rules of one path of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) exact: Span,
    pub(super) prefix: Span,
}

/// One rule in one leaf.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) rule: u32,
    pub(super) listeners: ListenerSet,
    /// Index of `regexes`: the path.
    pub(super) regex: Option<u32>,
    /// Index of `networks`.
    pub(super) network: Option<u32>,
    /// Place among the rules of the same host: orders regexes that start differently.
    pub(super) place: u32,
    /// The first rule that asks for the same methods, headers and query: what thousands of rules
    /// share (`GET`) is read from one place and stays in the cache. `None` asks nothing.
    pub(super) checks: Option<u32>,
}

/// How an entry was reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum PathFit {
    Exact,
    Regex,
    /// By a prefix of this many bytes.
    Prefix(usize),
    Any,
}

/// One candidate as the walk meets it.
#[derive(Debug)]
pub(super) struct Seen<'t> {
    pub(super) entry: &'t Entry,
    pub(super) host: HostLevel,
    pub(super) path: PathFit,
    pub(super) verdict: Result<(), Lost>,
}

// === impl RouteTable ===

impl<A> RouteTable<A> {
    /// The most specific rule that matches.
    ///
    /// # Errors
    /// [`Miss`] says whether the host was known.
    #[inline]
    pub fn find<'t, 'r>(&'t self, request: &Request<'r>) -> Result<Match<'t, 'r, A>, Miss> {
        let mut known = false;
        let flow = self.walk(request, &mut known, |seen| match seen.verdict {
            Ok(()) => ControlFlow::Break((seen.entry.rule as usize, seen.path)),
            Err(_) => ControlFlow::Continue(()),
        });
        let ControlFlow::Break((index, path)) = flow else {
            return Err(Miss::of(known));
        };
        let rest = match path {
            PathFit::Prefix(bytes) => request.path.get(bytes..).unwrap_or_default(),
            PathFit::Exact | PathFit::Regex | PathFit::Any => "",
        };
        Ok(Match {
            action: &self.actions[index],
            index,
            rest,
        })
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Calls `visit` with every candidate whose host and path fit, the most specific first, until
    /// it breaks; sets `known` when a rule of the listener covers the host.
    #[inline]
    pub(super) fn walk<'t, B>(
        &'t self,
        request: &Request<'_>,
        known: &mut bool,
        mut visit: impl FnMut(Seen<'t>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.hosts.walk(request.host, |host, bucket| {
            let bucket = &self.buckets[bucket as usize];
            if !self.listeners.contains(bucket.listeners, request.listener) {
                return ControlFlow::Continue(());
            }
            *known = true;
            self.walk_paths(bucket, request, |entry, path| {
                let verdict = self.check(entry, request);
                visit(Seen {
                    entry,
                    host,
                    path,
                    verdict,
                })
            })
        })
    }

    /// The candidates of one host: exact path, regexes, prefixes from the longest, no path.
    #[inline]
    fn walk_paths<'t, B>(
        &'t self,
        bucket: &'t Bucket,
        request: &Request<'_>,
        mut visit: impl FnMut(&'t Entry, PathFit) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let path = request.path.as_bytes();
        let mut deepest = None;
        if let Some(root) = bucket.paths {
            self.paths.descend(root, path, |hit| deepest = Some(hit));
        }
        if let Some(hit) = deepest
            && hit.depth == path.len()
        {
            for entry in self.span(&self.leaves[hit.value as usize].exact) {
                visit(entry, PathFit::Exact)?;
            }
        }
        if let Some(root) = bucket.starts {
            self.walk_regexes(root, path, |entry| visit(entry, PathFit::Regex))?;
        }
        while let Some(hit) = deepest {
            if hit.ends_segment(path) {
                for entry in self.span(&self.leaves[hit.value as usize].prefix) {
                    visit(entry, PathFit::Prefix(hit.depth))?;
                }
            }
            deepest = self.paths.up(hit);
        }
        for entry in self.span(&bucket.any) {
            visit(entry, PathFit::Any)?;
        }
        ControlFlow::Continue(())
    }

    /// Regexes whose literal start fits. The lists met on the way down are each in order; this
    /// merges them by `place` without a buffer: each turn takes the least place not yet taken.
    fn walk_regexes<'t, B>(
        &'t self,
        root: NodeId,
        path: &[u8],
        mut visit: impl FnMut(&'t Entry) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut deepest: Option<Hit> = None;
        self.starts.descend(root, path, |hit| deepest = Some(hit));
        let mut least = 0;
        loop {
            let mut next: Option<&'t Entry> = None;
            let mut list = deepest;
            while let Some(hit) = list {
                let entries = self.span(&self.regex_leaves[hit.value as usize]);
                let first = entries.partition_point(|entry| entry.place < least);
                if let Some(entry) = entries.get(first)
                    && next.is_none_or(|best| entry.place < best.place)
                {
                    next = Some(entry);
                }
                list = self.starts.up(hit);
            }
            let Some(entry) = next else {
                return ControlFlow::Continue(());
            };
            visit(entry)?;
            least = entry.place + 1;
        }
    }

    #[inline]
    fn check(&self, entry: &Entry, request: &Request<'_>) -> Result<(), Lost> {
        if !self.listeners.contains(entry.listeners, request.listener) {
            return Err(Lost::Listener);
        }
        if let Some(regex) = entry.regex
            && !self.regexes.is_match(regex, request.path)
        {
            return Err(Lost::Regex);
        }
        if let Some(rule) = entry.checks {
            predicate::check(&self.rules[rule as usize], request)?;
        }
        let Some(network) = entry.network else {
            return Ok(());
        };
        match request.client {
            Some(client) if self.networks[network as usize].contains(client) => Ok(()),
            Some(_) | None => Err(Lost::Client),
        }
    }

    #[inline]
    fn span(&self, span: &Span) -> &[Entry] {
        &self.entries[span.start as usize..span.end as usize]
    }
}

// === impl Miss ===

impl Miss {
    pub(super) fn of(known: bool) -> Self {
        if known { Self::NoRoute } else { Self::NoHost }
    }
}
