//! Which files make up a configuration: the main one and what it includes.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Report};
use super::node::Node;
use super::reader::Table;
use super::source::{At, Source};

/// Includes of includes: enough for a folder of folders, few enough to read.
const MAX_DEPTH: usize = 8;

/// Files altogether: a pattern on the wrong folder must not read a disk.
const MAX_FILES: usize = 10_000;

/// The main file and all included ones, in the order of reading. A file whose syntax is wrong
/// includes nothing (`lower` reports it).
pub(super) fn gather(main: Source, report: &Report) -> Vec<Source> {
    // Identities of what was read: the system is asked once for each path, and not for each pair.
    let mut seen: HashMap<PathBuf, usize> = HashMap::from([(identity(&main.path), 0)]);
    let mut sources = vec![main];
    // Which file each came from: cycles are refused along this chain, diamonds are read once.
    let mut parents: Vec<Option<usize>> = vec![None];
    let mut next = 0;
    while next < sources.len() {
        let mut found = Vec::new();
        for (pattern, at) in patterns(&sources[next], report) {
            for path in expand(&pattern, at, report) {
                let chain = || std::iter::successors(Some(next), |&i| parents[i]);
                let identity = identity(&path);
                if let Some(&i) = seen.get(&identity) {
                    if chain().any(|above| above == i) {
                        let file = sources[i].path.display();
                        let message = format!("`{file}` includes itself");
                        report.push(Diagnostic::error("include-cycle", at, message));
                    }
                    // Else it was read already, by way of another file or pattern.
                } else if chain().count() > MAX_DEPTH {
                    let message = format!("includes are nested deeper than {MAX_DEPTH}");
                    report.push(Diagnostic::error("include-depth", at, message));
                } else if sources.len() + found.len() >= MAX_FILES {
                    let message = format!("more than {MAX_FILES} included files");
                    report.push(Diagnostic::error("include-depth", at, message));
                    break;
                } else {
                    match Source::read(&path) {
                        Ok(source) => {
                            seen.insert(identity, sources.len() + found.len());
                            found.push(source);
                        }
                        Err(e) => report.push(unreadable(at, &path, &e)),
                    }
                }
            }
        }
        parents.extend(found.iter().map(|_| Some(next)));
        sources.append(&mut found);
        next += 1;
    }
    sources
}

/// Where the files are that `source` includes, or would be if they were there: paths with `*` in the
/// last part, if anywhere. None while its syntax is wrong.
pub(super) fn places(source: &Source) -> Vec<PathBuf> {
    // Problems are reported when the files are read.
    let report = Report::default();
    let patterns = patterns(source, &report);
    let place = |(pattern, at): (String, At<'_>)| at.source.folder().join(pattern);
    patterns.into_iter().map(place).collect()
}

/// The strings of `include`.
fn patterns<'a>(source: &'a Source, report: &Report) -> Vec<(String, At<'a>)> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        return Vec::new();
    }
    let at = source.at(0..0);
    let root = Table::new(report, at, "the file".to_owned(), "", document.get_ref());
    let Some(include) = root.get("include") else {
        return Vec::new();
    };
    let strings: Vec<_> = include
        .list()
        .unwrap_or_default()
        .iter()
        .filter_map(Node::text)
        .collect();
    // `At` borrows from the source, not from the document that dies here.
    strings
        .iter()
        .map(|s| (s.value.to_owned(), source.at(s.at.start..s.at.end)))
        .collect()
}

/// The files that one string stands for, sorted.
fn expand(pattern: &str, at: At<'_>, report: &Report) -> Vec<PathBuf> {
    let path = at.source.folder().join(pattern);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        let message = format!("`include` of `{pattern}`: not a file name");
        report.push(Diagnostic::error("include-pattern", at, message));
        return Vec::new();
    };
    if Path::new(pattern)
        .parent()
        .is_some_and(|p| p.to_string_lossy().contains('*'))
    {
        let message = format!("`include` of `{pattern}`: `*` only works in the last part");
        let help = "list the folders one by one: include = [\"a/*.toml\", \"b/*.toml\"]";
        report.push(Diagnostic::error("include-pattern", at, message).help(help));
        return Vec::new();
    }
    if !name.contains('*') {
        return vec![path];
    }
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // A pattern without a match is fine: `conf.d` may not exist yet.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            report.push(unreadable(at, folder, &e));
            return Vec::new();
        }
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let file = entry.file_name();
            // As in a shell, `*` leaves hidden files alone (editors' lock and swap files).
            file.to_str()
                .is_some_and(|f| matches(name, f) && f.starts_with('.') == name.starts_with('.'))
        })
        .map(|entry| path.with_file_name(entry.file_name()))
        .collect();
    found.sort();
    found
}

fn unreadable(at: At<'_>, path: &Path, e: &std::io::Error) -> Diagnostic {
    Diagnostic::error(
        "include-unreadable",
        at,
        format!("cannot read `{}`: {e}", path.display()),
    )
    .help("paths are relative to the folder of the including file")
}

/// The same for every path of one file; lexical when the system cannot say.
fn identity(path: &Path) -> PathBuf {
    let lexical = || path.components().filter(not_dot).collect();
    path.canonicalize().unwrap_or_else(|_| lexical())
}

fn not_dot(component: &Component<'_>) -> bool {
    !matches!(component, Component::CurDir)
}

/// Whether `name` fits `pattern`, in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pattern.rsplit('*').next().filter(|_| pattern.contains('*')) else {
        return rest.is_empty();
    };
    let Some(middle) = rest.strip_suffix(last) else {
        return false;
    };
    rest = middle;
    let count = pattern.matches('*').count();
    // Leftmost matches are enough: what is left over goes to the next `*`.
    for part in parts.take(count - 1) {
        let Some(i) = rest.find(part) else {
            return false;
        };
        rest = &rest[i + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_run() {
        assert!(matches("*.toml", "a.toml"));
        assert!(matches("*.toml", ".toml"));
        assert!(!matches("*.toml", "a.tomlx"));
        assert!(!matches("a*a", "a"));
        assert!(matches("a*a", "aa"));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert!(!matches("a*b*c", "a-c"));
        assert!(matches("*", ""));
        assert!(matches("**", "x"));
        assert!(!matches("a", "ab"));
        assert!(matches("a", "a"));
        assert!(matches("*ab*ab", "abab"));
        assert!(!matches("*ab*ab", "ab"));
    }
}
