//! Problems in a configuration: what, where, why, and what to write instead.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

use super::source::At;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be served.
    Error,
    /// Allowed, but probably not meant.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// A stable short name of the kind of problem, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong: names the thing and the value.
    pub message: String,
    /// Where.
    pub place: Place,
    /// The other places that take part (the first definition of a duplicate).
    pub related: Vec<Place>,
    /// What to do.
    pub help: Option<String>,
}

/// A piece of a file, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as opened.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Line of the first character after the piece.
    pub end_line: usize,
    /// Its column.
    pub end_column: usize,
    /// The piece in bytes of the file.
    pub span: Range<usize>,
    /// Written beside the underline; may be empty.
    pub label: String,
    /// What is shown of the first line.
    excerpt: Excerpt,
}

/// The part of a line that is shown, and what of it is underlined, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    before: usize,
    width: usize,
}

/// Collects problems while a configuration is lowered.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
    dropped: Cell<bool>,
    keys: RefCell<BTreeMap<&'static str, BTreeSet<&'static str>>>,
}

/// Most errors, and most warnings, that are kept: nobody reads more, and a file of one long line
/// must not turn into gigabytes of messages.
const MAX_PROBLEMS: usize = 1000;

/// Longest message, label or help, in characters: they quote the file.
const MAX_MESSAGE: usize = 400;

/// Longest piece of a source line that is printed; the window moves to the underlined part.
const WINDOW: usize = 160;

/// Renders all, with a summary line.
pub(super) fn render_all(all: &[Diagnostic], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for diagnostic in all {
        writeln!(f, "{diagnostic}")?;
    }
    let (errors, warnings) = count(all);
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    match (errors, warnings) {
        (0, w) => write!(f, "{w} warning{}", plural(w)),
        (e, 0) => write!(f, "{e} error{}", plural(e)),
        (e, w) => write!(f, "{e} error{}, {w} warning{}", plural(e), plural(w)),
    }
}

/// How many errors and warnings.
pub fn count(all: &[Diagnostic]) -> (usize, usize) {
    let errors = all.iter().filter(|d| d.severity == Severity::Error).count();
    (errors, all.len() - errors)
}

// === impl Diagnostic ===

impl Diagnostic {
    pub(super) fn error(code: &'static str, at: At<'_>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, at, &message.into())
    }

    pub(super) fn warning(code: &'static str, at: At<'_>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, at, &message.into())
    }

    fn new(severity: Severity, code: &'static str, at: At<'_>, message: &str) -> Self {
        let message = clip(message);
        let place = Place::new(at, String::new());
        Self {
            severity,
            code,
            message,
            place,
            related: Vec::new(),
            help: None,
        }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.place.label = clip(&label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(clip(&help.into()));
        self
    }

    pub(super) fn related(mut self, at: At<'_>, label: impl Into<String>) -> Self {
        self.related.push(Place::new(at, label.into()));
        self
    }

    /// As an object for tools: `file`, `line`, `column`, `end`, `severity`, `code`, `message`, …
    pub fn to_json(&self) -> serde_json::Value {
        let place = |p: &Place| {
            serde_json::json!({
                "file": p.file.display().to_string(),
                "line": p.line,
                "column": p.column,
                "end": { "line": p.end_line, "column": p.end_column },
                "span": [p.span.start, p.span.end],
                "label": p.label,
            })
        };
        let mut object = place(&self.place);
        object["severity"] = serde_json::json!(self.severity);
        object["code"] = self.code.into();
        object["message"] = self.message.clone().into();
        object["help"] = self.help.clone().into();
        object["related"] = self.related.iter().map(place).collect();
        object
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, printable(&self.message))?;
        let lines = self.related.iter().map(|p| p.line).chain([self.place.line]);
        let gutter = lines.max().unwrap_or(1).to_string().len();
        self.place.render(f, gutter, "-->", '^')?;
        for place in &self.related {
            place.render(f, gutter, ":::", '-')?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "{:gutter$} = help: {}", "", printable(help))?;
        }
        Ok(())
    }
}

// === impl Place ===

impl Place {
    fn new(at: At<'_>, label: String) -> Self {
        let (line, column) = at.source.position(at.start);
        let (end_line, end_column) = at.source.position(at.end);
        Self {
            file: at.source.path.clone(),
            line,
            column,
            end_line,
            end_column,
            span: at.start..at.end,
            label,
            excerpt: Excerpt::new(at, line),
        }
    }

    fn render(
        &self,
        f: &mut fmt::Formatter<'_>,
        gutter: usize,
        arrow: &str,
        mark: char,
    ) -> fmt::Result {
        let file = printable(&self.file.display().to_string());
        writeln!(
            f,
            "{:gutter$}{arrow} {file}:{}:{}",
            "", self.line, self.column
        )?;
        let Excerpt {
            text,
            before,
            width,
        } = &self.excerpt;
        let marks: String = std::iter::repeat_n(mark, *width).collect();
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{:gutter$} | {}", self.line, text.trim_end())?;
        let label = printable(&self.label);
        let line = format!("{:gutter$} | {:before$}{marks} {label}", "", "");
        writeln!(f, "{}", line.trim_end())
    }
}

// === impl Excerpt ===

impl Excerpt {
    /// Of the line (from 1) on which `at` begins.
    fn new(at: At<'_>, line: usize) -> Self {
        let line = at.source.span_of(line);
        let start = at.start.min(line.end);
        let end = at.end.clamp(start, line.end);
        let piece = |from: usize, to: usize| at.source.text.get(from..to).unwrap_or("");
        let width = at.source.characters(start..end);
        let from = if at.source.characters(line.start..end) > WINDOW {
            let before = piece(line.start, start);
            let back = before.char_indices().rev().take(WINDOW / 4).last();
            back.map_or(start, |(i, _)| line.start + i)
        } else {
            line.start
        };
        let mut before = at.source.characters(from..start);
        let left = WINDOW.saturating_sub(before).max(1);
        let shown: String = piece(from, line.end).chars().take(WINDOW).collect();
        let mut text = printable(&shown);
        if at.source.characters(from..line.end) > WINDOW {
            text.push('…');
        }
        if from > line.start {
            text.insert(0, '…');
            before += 1;
        }
        Self {
            text,
            before,
            width: width.clamp(1, left),
        }
    }
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Text of a file on its way to a terminal: no control characters (a tab is one space wide).
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

// === impl Report ===

impl Report {
    pub(super) fn push(&self, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        let errors = self.errors.get();
        let count = match diagnostic.severity {
            Severity::Error => errors,
            Severity::Warning => found.len() - errors,
        };
        if count >= MAX_PROBLEMS {
            self.dropped.set(true);
            return;
        }
        if diagnostic.severity == Severity::Error {
            self.errors.set(errors + 1);
        }
        found.push(diagnostic);
    }

    /// Notes that tables of `kind` have `key`: what the schema is compared with.
    pub(super) fn knows(&self, kind: &'static str, key: &'static str) {
        self.keys.borrow_mut().entry(kind).or_default().insert(key);
    }

    /// Every key that was asked for, by kind of table.
    #[cfg(test)]
    pub(super) fn keys(&self) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        self.keys.borrow().clone()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors.get() > 0
    }

    /// Whether no more errors are kept: what only makes them better may be left out.
    pub(super) fn is_full(&self) -> bool {
        self.errors.get() >= MAX_PROBLEMS
    }

    /// All problems: by position, files in the order of their first problem.
    pub(super) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        let mut files: HashMap<PathBuf, usize> = HashMap::new();
        for d in &found {
            let next = files.len();
            files.entry(d.place.file.clone()).or_insert(next);
        }
        found.sort_by_key(|d| {
            let file = files.get(&d.place.file);
            (
                file.copied(),
                d.place.span.start,
                d.place.span.end,
                d.severity,
            )
        });
        found.dedup();
        if let (true, Some(last)) = (self.dropped.get(), found.last()) {
            let message = format!("more than {MAX_PROBLEMS} problems: the others are left out");
            let code = "too-many-problems";
            found.push(Diagnostic {
                code,
                message,
                related: Vec::new(),
                help: None,
                ..last.clone()
            });
        }
        found
    }
}
