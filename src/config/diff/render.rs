//! Plans as people and programs read them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};
use toml::Value;

use super::super::diagnostic::printable;
use super::{BindingChange, Change, Counts, Diff, FieldChange, Item, Kind, Object};

/// What of a plan is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// What changes; the rest is only counted.
    #[default]
    Changes,
    /// Every thing.
    Everything,
}

/// A plan on its way out: text through `Display` (several lines, the last without its end), JSON
/// through `Serialize` (an object with `counts` by kind and `items`).
#[derive(Clone, Copy, Debug)]
pub struct Rendered<'a> {
    diff: &'a Diff,
    verbosity: Verbosity,
}

/// Longest value that is shown, in characters.
const MAX_VALUE: usize = 120;

/// Widest column of names, in characters: longer ones push their line out.
const MAX_COLUMN: usize = 48;

// === impl Diff ===

impl Diff {
    /// To be shown.
    pub fn render(&self, verbosity: Verbosity) -> Rendered<'_> {
        Rendered {
            diff: self,
            verbosity,
        }
    }

    /// One line: `1 listener changed, 2 endpoints added, 1 drained; 40 unchanged`.
    pub fn summary(&self) -> String {
        let counts = self.counts();
        let mut parts = Vec::new();
        for (kind, counts) in &counts {
            let mut named = false;
            for (count, word) in counts.words(*kind) {
                if count > 0 {
                    parts.push(kind.phrase(count, word, named));
                    named = true;
                }
            }
        }
        let unchanged: usize = counts.values().map(|c| c.unchanged).sum();
        let changes = if parts.is_empty() {
            "nothing changes".to_owned()
        } else {
            parts.join(", ")
        };
        match unchanged {
            0 => changes,
            n => format!("{changes}; {n} unchanged"),
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(Verbosity::Changes).fmt(f)
    }
}

impl Serialize for Diff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.render(Verbosity::Changes).serialize(serializer)
    }
}

// === impl Rendered ===

impl<'a> Rendered<'a> {
    fn items(&self) -> impl Iterator<Item = &'a Item> {
        let all = self.verbosity == Verbosity::Everything;
        self.diff
            .items
            .iter()
            .filter(move |item| all || !item.is_unchanged())
    }
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan: {}", self.diff.summary())?;
        let width = self
            .items()
            .map(|item| label(&item.object).chars().count())
            .filter(|width| *width <= MAX_COLUMN)
            .max()
            .unwrap_or(0);
        for item in self.items() {
            let label = label(&item.object);
            let mut first = format!("  {} {label:width$}", item.change.mark());
            let indent = first.chars().count();
            for line in details(item) {
                write!(f, "\n{first}   {line}")?;
                first = " ".repeat(indent);
            }
            if !first.trim().is_empty() {
                write!(f, "\n{}", first.trim_end())?;
            }
        }
        Ok(())
    }
}

impl Serialize for Rendered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Plan<'a> {
            counts: BTreeMap<Kind, Counts>,
            items: Vec<&'a Item>,
        }
        Plan {
            counts: self.diff.counts(),
            items: self.items().collect(),
        }
        .serialize(serializer)
    }
}

// === impl Kind ===

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Admin => "admin",
            Self::Log => "log",
            Self::Fleet => "fleet",
            Self::Listener => "listener",
            Self::RouteOrder => "route order",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Endpoint => "endpoint",
        }
    }

    /// `2 endpoints added`; `1 drained` when the noun was said just before.
    fn phrase(self, count: usize, word: &str, named: bool) -> String {
        let noun = self.noun();
        match self {
            Self::Process | Self::Admin | Self::Log | Self::Fleet | Self::RouteOrder if named => {
                word.to_owned()
            }
            Self::Process | Self::Admin | Self::Log | Self::Fleet | Self::RouteOrder => {
                format!("{noun} {word}")
            }
            Self::Listener | Self::Route | Self::Upstream | Self::Endpoint if named => {
                format!("{count} {word}")
            }
            Self::Listener | Self::Route | Self::Upstream | Self::Endpoint => {
                let plural = if count == 1 { "" } else { "s" };
                format!("{count} {noun}{plural} {word}")
            }
        }
    }
}

// === impl Counts ===

impl Counts {
    fn words(&self, kind: Kind) -> [(usize, &'static str); 5] {
        let removed = if drains(kind) { "drained" } else { "removed" };
        [
            (self.changed, "changed"),
            (self.rebind, "rebound"),
            (self.added, "added"),
            (self.removed, removed),
            (self.needs_restart, "needing a restart"),
        ]
    }
}

// === impl Change ===

impl Change {
    fn mark(&self) -> char {
        match self {
            Self::Added => '+',
            Self::Changed { .. } | Self::Rebind { .. } => '~',
            Self::NeedsRestart { .. } => '!',
            Self::Removed => '-',
            Self::Unchanged => '=',
        }
    }
}

/// Whether connections belong to such a thing.
fn drains(kind: Kind) -> bool {
    match kind {
        Kind::Listener | Kind::Endpoint => true,
        Kind::Process
        | Kind::Admin
        | Kind::Log
        | Kind::Fleet
        | Kind::RouteOrder
        | Kind::Route
        | Kind::Upstream => false,
    }
}

/// `listener web`, `endpoint app 10.0.0.4:80`
fn label(object: &Object) -> String {
    let noun = object.kind().noun();
    printable(&match object {
        Object::Process | Object::Admin | Object::Log | Object::Fleet | Object::RouteOrder => {
            noun.to_owned()
        }
        Object::Listener { name } | Object::Route { name } | Object::Upstream { name } => {
            format!("{noun} {name}")
        }
        Object::Endpoint { upstream, address } => format!("{noun} {upstream} {address}"),
    })
}

/// What is said of one item, line by line.
fn details(item: &Item) -> Vec<String> {
    let drained = item.connections.map(|n| {
        let plural = if n == 1 { "" } else { "s" };
        format!("drains {n} connection{plural}")
    });
    match &item.change {
        Change::Added | Change::Unchanged => Vec::new(),
        Change::Changed { what } if item.object == Object::RouteOrder => {
            what.iter().map(sides).collect()
        }
        Change::Changed { what } => what.iter().map(field).collect(),
        Change::NeedsRestart { what } => what
            .iter()
            .map(|change| field(change) + " (needs a restart)")
            .collect(),
        Change::Rebind {
            addresses, what, ..
        } => {
            let mut lines: Vec<_> = addresses
                .iter()
                .map(|binding| {
                    let address = printable(&binding.address.to_string());
                    match binding.change {
                        BindingChange::Added => format!("binds {address}"),
                        BindingChange::Kept => format!("keeps {address}"),
                        BindingChange::Removed => format!("leaves {address}"),
                    }
                })
                .collect();
            lines.extend(drained);
            lines.extend(what.iter().map(field));
            lines
        }
        Change::Removed if drains(item.object.kind()) => {
            vec![drained.unwrap_or_else(|| "drains".to_owned())]
        }
        Change::Removed => drained.into_iter().collect(),
    }
}

fn field(change: &FieldChange) -> String {
    format!("{}: {}", printable(&change.path), sides(change))
}

fn sides(change: &FieldChange) -> String {
    let side = |value: &Option<String>| value.as_deref().map_or("none".to_owned(), printable);
    format!("{} -> {}", side(&change.old), side(&change.new))
}

/// A value on one line, without quotes where none are needed; long ones are cut.
pub(super) fn text(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    let count = text.chars().count();
    if count > MAX_VALUE {
        let kept: String = text.chars().take(MAX_VALUE).collect();
        text = format!("{kept}… ({count} characters)");
    }
    text
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::String(s) if is_plain(s) => out.push_str(s),
        Value::String(s) => {
            let _ = write!(out, "{s:?}");
        }
        Value::Array(all) => {
            out.push('[');
            for (index, value) in all.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_value(out, value);
            }
            out.push(']');
        }
        Value::Table(table) => {
            out.push('{');
            for (index, (key, value)) in table.iter().enumerate() {
                let _ = write!(out, "{}{key} = ", if index == 0 { " " } else { ", " });
                write_value(out, value);
            }
            out.push_str(" }");
        }
        Value::Boolean(_) | Value::Datetime(_) | Value::Float(_) | Value::Integer(_) => {
            let _ = write!(out, "{value}");
        }
    }
}

/// Whether a text can stand without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"'`,[]{}=".contains(&b))
}
