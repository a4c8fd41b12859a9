//! A typed view of a TOML table that keeps spans, records every problem and goes on.
//!
//! A getter returns `None` both for an absent key and for a bad value: the latter has been
//! reported, so the caller may use any stand-in.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Report};
use super::node::{Located, Node, not_available, quote_all};
use super::source::At;
use super::suggest::closest;

/// A table being read; says which keys it did not know when it is finished.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) report: &'a Report,
    /// Where to point when a key is missing.
    pub(super) at: At<'a>,
    /// For messages: "upstream `app`".
    pub(super) what: String,
    /// The kind of table in the schema: `upstreams.*`.
    kind: &'static str,
    entries: &'a DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
    /// Keys of the contract that are not built yet.
    later: RefCell<Vec<&'static str>>,
    aliases: Cell<Aliases>,
}

/// What other programs call keys, and what stands for each here, as it is written in a message.
pub(super) type Aliases = &'static [(&'static str, &'static str)];

// === impl Table ===

impl<'a> Table<'a> {
    /// A view of `entries`; `at` is what stands for the whole table.
    pub(super) fn new(
        report: &'a Report,
        at: At<'a>,
        what: String,
        kind: &'static str,
        entries: &'a DeTable<'a>,
    ) -> Self {
        Self {
            report,
            at,
            what,
            kind,
            entries,
            asked: RefCell::default(),
            later: RefCell::default(),
            aliases: Cell::default(),
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &'static str) -> Option<Node<'a>> {
        self.asked.borrow_mut().push(key);
        self.report.knows(self.kind, key);
        let (found, value) = self.entries.get_key_value(key)?;
        Some(self.node(found, value))
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &'static str) -> Option<Node<'a>> {
        let node = self.get(key);
        if node.is_none() {
            self.report.push(
                Diagnostic::error(
                    "missing-key",
                    self.at,
                    format!("{} has no `{key}`", self.what),
                )
                .label(format!("`{key}` is required")),
            );
        }
        node
    }

    /// Whether a key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// [`Table::require`], unless one of `others` stands in for it.
    pub(super) fn require_unless(&self, key: &'static str, others: &[&str]) -> Option<Node<'a>> {
        if others.iter().any(|other| self.entries.contains_key(*other)) {
            return self.get(key);
        }
        self.require(key)
    }

    /// A key of the contract that this version does not build yet.
    pub(super) fn later(&self, key: &'static str, help: &str) {
        self.later.borrow_mut().push(key);
        if let Some((found, _)) = self.entries.get_key_value(key) {
            let at = self.at.source.at(found.span());
            self.report
                .push(not_available(at, &format!("`{key}`"), help));
        }
    }

    /// What people who come from other programs may write.
    pub(super) fn known_as(&self, aliases: Aliases) {
        self.aliases.set(aliases);
    }

    /// All entries in file order: tables whose keys are names.
    pub(super) fn entries(&self) -> Vec<(Located<'a, &'a str>, Node<'a>)> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| {
                let at = self.at.source.at(key.span());
                (
                    Located {
                        value: &**key.get_ref(),
                        at,
                    },
                    self.node(key, value),
                )
            })
            .collect();
        all.sort_by_key(|(key, _)| key.at.start);
        all
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if asked.contains(&name) || self.later.borrow().contains(&name) {
                continue;
            }
            let at = self.at.source.at(key.span());
            let message = format!("unknown key `{name}` in {}", self.what);
            let unknown = Diagnostic::error("unknown-key", at, message);
            if self.report.is_full() {
                self.report.push(unknown);
                continue;
            }
            let alias = self.aliases.get().iter().find(|(word, _)| *word == name);
            let help = if let Some((_, ours)) = alias {
                format!("isobar calls it {ours}")
            } else if let Some(near) = closest(name, asked.iter().copied()) {
                format!("did you mean `{near}`?")
            } else {
                let known: BTreeSet<_> = asked.iter().copied().collect();
                format!("known keys: {}", quote_all(known.into_iter()))
            };
            self.report.push(unknown.help(help));
        }
    }

    fn node(
        &self,
        key: &'a Spanned<std::borrow::Cow<'a, str>>,
        v: &'a Spanned<DeValue<'a>>,
    ) -> Node<'a> {
        let at = match v.get_ref() {
            // A table under a header has no text of its own: its key stands for it.
            DeValue::Table(_) if !self.at.source.starts_with(v.span().start, '{') => key.span(),
            _ => v.span(),
        };
        Node::new(
            self.report,
            key.get_ref(),
            self.at.source.at(at),
            v.get_ref(),
        )
    }

    // --- typed getters ---

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.flag()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Located<'a, &'a str>> {
        self.get(key)?.text()
    }

    pub(super) fn integer(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Located<'a, u64>> {
        self.get(key)?.integer(range)
    }

    /// [`Table::integer`], with what helps to choose one within the range.
    pub(super) fn bounded(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        help: &str,
    ) -> Option<Located<'a, u64>> {
        self.get(key)?.bounded(range, Some(help))
    }

    /// A duration above zero.
    pub(super) fn timeout(&self, key: &'static str) -> Option<Located<'a, Duration>> {
        let node = self.get(key)?;
        let duration = node.duration()?;
        if duration.is_zero() {
            let message = format!("`{key}` of {} must be longer than zero", self.what);
            self.report
                .push(Diagnostic::error("zero-timeout", node.at, message));
            return None;
        }
        Some(duration)
    }

    /// A sub-table of kind `kind`.
    pub(super) fn table(&self, key: &'static str, kind: &'static str) -> Option<Table<'a>> {
        let what = if self.kind.is_empty() {
            format!("`{key}`")
        } else {
            format!("`{key}` of {}", self.what)
        };
        self.get(key)?.table(what, kind)
    }
}
