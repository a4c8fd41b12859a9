//! One TOML value with its place: typed getters that record what is wrong.
//!
//! A getter returns `None` for a bad value, which has then been reported: the caller may use any
//! stand-in and go on.

use std::ops::{Deref, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Report};
use super::reader::Table;
use super::source::{At, Source};
use super::suggest::closest;
use super::units::{self, UnitError};

/// A value, the key it was found under, and where both are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub(super) report: &'a Report,
    pub(super) key: &'a str,
    pub(super) at: At<'a>,
    value: &'a DeValue<'a>,
    /// One of a list: `key` is that of the list.
    element: bool,
}

/// A value with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<'a, T> {
    pub(super) value: T,
    pub(super) at: At<'a>,
}

// === impl Located ===

impl<T> Deref for Located<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    pub(super) fn new(
        report: &'a Report,
        key: &'a str,
        at: At<'a>,
        value: &'a DeValue<'a>,
    ) -> Self {
        Self {
            report,
            key,
            at,
            value,
            element: false,
        }
    }

    pub(super) fn source(&self) -> &'a Source {
        self.at.source
    }

    pub(super) fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.at, message)
    }

    /// What was found, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self.value {
            DeValue::Array(_) => "a list",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Integer(_) => "an integer",
            DeValue::String(_) => "a string",
            DeValue::Table(_) => "a table",
        }
    }

    /// Reports a value of the wrong type.
    pub(super) fn mismatch(&self, wanted: &str) -> Diagnostic {
        let each = if self.element { "each of " } else { "" };
        let message = format!(
            "{each}`{}` must be {wanted}, not {}",
            self.key,
            self.type_name()
        );
        self.error("wrong-type", message)
            .label(format!("expected {wanted}"))
    }

    pub(super) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub(super) fn as_integer(&self) -> Option<u64> {
        let integer = self.value.as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    pub(super) fn as_str(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// How many values there are: of one that is no list, one.
    pub(super) fn list_length(&self) -> usize {
        self.value.as_array().map_or(1, |a| a.len())
    }

    pub(super) fn list_is_empty(&self) -> bool {
        self.value.as_array().is_some_and(|a| a.is_empty())
    }

    /// A string inside a table, before the table is read in order.
    pub(super) fn peek(&self, key: &str) -> Option<&'a str> {
        self.value.as_table()?.get(key)?.get_ref().as_str()
    }

    pub(super) fn located<T>(&self, value: T) -> Located<'a, T> {
        Located { value, at: self.at }
    }

    pub(super) fn text(&self) -> Option<Located<'a, &'a str>> {
        let Some(text) = self.value.as_str() else {
            self.report.push(self.mismatch("a string"));
            return None;
        };
        Some(self.located(text))
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.value.as_bool();
        if flag.is_none() {
            self.report.push(self.mismatch("true or false"));
        }
        flag
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<Located<'a, u64>> {
        self.bounded(range, None)
    }

    /// [`Node::integer`], with what helps to choose one within the range.
    pub(super) fn bounded(
        &self,
        range: RangeInclusive<u64>,
        help: Option<&str>,
    ) -> Option<Located<'a, u64>> {
        let Some(integer) = self.value.as_integer() else {
            self.report.push(self.mismatch("an integer"));
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(n) if range.contains(&n) => Some(self.located(n)),
            _ => {
                let (low, high) = range.into_inner();
                let message = format!("`{}` must be from {low} to {high}", self.key);
                let d = self.error("out-of-range", message);
                self.report.push(match help {
                    Some(help) => d.help(help),
                    None => d,
                });
                None
            }
        }
    }

    /// A number, whole or not.
    pub(super) fn number(&self) -> Option<f64> {
        let parsed = match self.value {
            DeValue::Float(f) => f.as_str().parse().ok(),
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
                .ok()
                .map(|i| i as f64),
            _ => None,
        };
        if parsed.is_none() {
            self.report.push(self.mismatch("a number"));
        }
        parsed
    }

    pub(super) fn duration(&self) -> Option<Located<'a, Duration>> {
        const HELP: &str = "write a duration such as \"250ms\", \"30s\" or \"1m30s\"";
        let Some(text) = self.value.as_str() else {
            let help = self.with_unit("s").unwrap_or_else(|| HELP.to_owned());
            self.report.push(self.mismatch("a duration").help(help));
            return None;
        };
        self.unit(text, "a duration", units::parse_duration(text), HELP)
    }

    pub(super) fn size(&self) -> Option<Located<'a, u64>> {
        const HELP: &str = "write a size such as \"512B\", \"64KiB\" or \"10MB\"";
        let Some(text) = self.value.as_str() else {
            let help = self.with_unit("B").unwrap_or_else(|| HELP.to_owned());
            self.report.push(self.mismatch("a size").help(help));
            return None;
        };
        self.unit(text, "a size", units::parse_size(text), HELP)
    }

    pub(super) fn ratio(&self) -> Option<Located<'a, f64>> {
        const HELP: &str = "write a number from 0.0 to 1.0, or a percentage such as \"20%\"";
        if let Some(text) = self.value.as_str() {
            return self.unit(text, "a ratio", units::parse_ratio(text), HELP);
        }
        let number = self.number()?;
        self.unit(&number.to_string(), "a ratio", units::ratio(number), HELP)
    }

    fn unit<T>(
        &self,
        text: &str,
        wanted: &str,
        parsed: Result<T, UnitError>,
        help: &str,
    ) -> Option<Located<'a, T>> {
        match parsed {
            Ok(value) => Some(self.located(value)),
            Err(e) => {
                let message = format!("`{}` must be {wanted}: `{text}` {e}", self.key);
                self.report.push(self.error("bad-unit", message).help(help));
                None
            }
        }
    }

    /// The correction of a bare number.
    fn with_unit(&self, unit: &str) -> Option<String> {
        let integer = self.value.as_integer()?;
        (integer.radix() == 10).then(|| format!("write \"{}{unit}\"", integer.as_str()))
    }

    /// A table of kind `kind`.
    pub(super) fn table(&self, what: String, kind: &'static str) -> Option<Table<'a>> {
        let Some(entries) = self.value.as_table() else {
            self.report.push(self.mismatch("a table"));
            return None;
        };
        Some(Table::new(self.report, self.at, what, kind, entries))
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> Option<Vec<Node<'a>>> {
        let Some(array) = self.value.as_array() else {
            self.report.push(self.mismatch("a list"));
            return None;
        };
        let source = self.source();
        let element = |v: &'a Spanned<DeValue<'a>>| Node {
            at: source.at(v.span()),
            value: v.get_ref(),
            element: true,
            ..*self
        };
        Some(array.iter().map(element).collect())
    }

    /// A string, or a list of strings.
    pub(super) fn one_or_more(&self) -> Vec<Located<'a, &'a str>> {
        match self.value {
            DeValue::String(_) => self.text().into_iter().collect(),
            DeValue::Array(_) => self
                .list()
                .unwrap_or_default()
                .iter()
                .filter_map(Node::text)
                .collect(),
            _ => {
                self.report
                    .push(self.mismatch("a string or a list of strings"));
                Vec::new()
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, known: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == *text) {
            return Some(*value);
        }
        let words = || known.iter().map(|(word, _)| *word);
        let message = format!("`{}` cannot be `{}`", self.key, *text);
        let help = match closest(&text, words()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", quote_all(words())),
        };
        self.report
            .push(self.error("unknown-value", message).help(help));
        None
    }
}

/// `a`, `b`, `c`
pub(super) fn quote_all<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words
        .map(|w| format!("`{w}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The report of something that the contract names and this version lacks.
pub(super) fn not_available(at: At<'_>, what: &str, help: &str) -> Diagnostic {
    Diagnostic::error(
        "not-available",
        at,
        format!("{what} is not available in this version of isobar"),
    )
    .help(help)
}
