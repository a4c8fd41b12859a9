//! `isobar check FILE…`

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::{self, Diagnostic, Loaded, Problems};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// One array of objects: `file`, `line`, `column`, `end`, `severity`, `code`, `message`, `help`.
    Json,
    /// For people.
    #[default]
    Text,
}

/// What warnings do to the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Warnings {
    /// Nothing.
    #[default]
    Allowed,
    /// The same as errors.
    Denied,
}

/// Every file is well (warnings included, unless they are denied).
pub(super) const OK: u8 = 0;
/// At least one file is wrong, or has warnings that are denied.
pub(super) const INVALID: u8 = 1;
/// A file cannot be read, or `out` cannot be written.
pub(super) const FAILED: u8 = 2;

/// Checks each file (with what it includes) and writes what is to be said; returns the exit code:
/// [`OK`], [`INVALID`] or [`FAILED`], the highest of all files.
pub(super) fn check(
    files: &[PathBuf],
    format: Format,
    warnings: Warnings,
    out: &mut dyn Write,
) -> u8 {
    let results: Vec<_> = files
        .iter()
        .map(|file| (file, config::load(file)))
        .collect();
    let codes = results.iter().map(|(_, result)| match result {
        Ok(loaded) if warnings == Warnings::Denied && !loaded.warnings.is_empty() => INVALID,
        Ok(_) => OK,
        Err(Problems::Invalid(_)) => INVALID,
        Err(Problems::Io { .. }) => FAILED,
    });
    let code = codes.max().unwrap_or(OK);
    let written = match format {
        Format::Json => write_json(&results, out),
        Format::Text => results
            .iter()
            .try_for_each(|(file, result)| write_text(file, result, out)),
    };
    if written.and_then(|()| out.flush()).is_ok() {
        code
    } else {
        FAILED
    }
}

type Checked<'a> = (&'a PathBuf, Result<Loaded, Problems>);

fn write_text(
    file: &Path,
    result: &Result<Loaded, Problems>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let file = file.display();
    match result {
        Ok(Loaded {
            config, warnings, ..
        }) => {
            for warning in warnings {
                writeln!(out, "{warning}")?;
            }
            let (l, r, u) = (
                config.listeners.len(),
                config.routes.len(),
                config.upstreams.len(),
            );
            write!(out, "{file}: ok ({}", plural(l, "listener"))?;
            write!(out, ", {}, {}", plural(r, "route"), plural(u, "upstream"))?;
            if !warnings.is_empty() {
                write!(out, "; {}", plural(warnings.len(), "warning"))?;
            }
            writeln!(out, ")")
        }
        Err(problems @ Problems::Invalid(_)) => writeln!(out, "{problems}\n"),
        Err(Problems::Io { source, .. }) => writeln!(out, "error: cannot read {file}: {source}"),
    }
}

fn write_json(results: &[Checked<'_>], out: &mut dyn Write) -> io::Result<()> {
    let mut all = Vec::new();
    for (file, result) in results {
        match result {
            Ok(loaded) => all.extend(loaded.warnings.iter().map(Diagnostic::to_json)),
            Err(Problems::Invalid(found)) => all.extend(found.iter().map(Diagnostic::to_json)),
            Err(Problems::Io { source, .. }) => all.push(json!({
                "file": file.display().to_string(),
                "line": null,
                "column": null,
                "end": null,
                "severity": "error",
                "code": "io",
                "message": source.to_string(),
                "help": null,
            })),
        }
    }
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)
}

fn plural(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &str)], format: Format) -> (u8, String) {
        run_with(files, format, Warnings::Allowed)
    }

    fn run_with(files: &[(&str, &str)], format: Format, warnings: Warnings) -> (u8, String) {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = files
            .iter()
            .map(|(name, text)| {
                let path = folder.path().join(name);
                if !text.is_empty() {
                    std::fs::write(&path, text).unwrap();
                }
                path
            })
            .collect();
        let mut out = Vec::new();
        let code = check(&paths, format, warnings, &mut out);
        let text = String::from_utf8(out).unwrap();
        (
            code,
            text.replace(&folder.path().display().to_string(), "DIR"),
        )
    }

    const GOOD: &str = "[listeners.web]\nbind = ':80'\nupstream = 'a'\n[upstreams.a]\nendpoints = ['10.0.0.1:1']\n";
    const BAD: &str = "[listenerz.web]\n";

    #[test]
    fn exit_code_is_the_worst_of_all_files() {
        assert_eq!(run(&[("a.toml", GOOD)], Format::Text).0, OK);
        assert_eq!(
            run(&[("a.toml", GOOD), ("b.toml", BAD)], Format::Text).0,
            INVALID
        );
        assert_eq!(
            run(&[("none.toml", ""), ("b.toml", BAD)], Format::Text).0,
            FAILED
        );
    }

    #[test]
    fn denied_warnings_change_the_exit_code_alone() {
        let doubtful = GOOD.to_owned() + "[upstreams.b]\nendpoints = ['10.0.0.1:1']\n";
        let files = [("a.toml", GOOD), ("b.toml", &doubtful)];
        for format in [Format::Text, Format::Json] {
            let (code, said) = run(&files, format);
            assert_eq!(code, OK);
            assert_eq!(
                run_with(&files, format, Warnings::Denied),
                (INVALID, said.clone())
            );
            assert!(
                said.contains("warning") && !said.contains("error"),
                "{said}"
            );
        }
        assert_eq!(
            run_with(&[("a.toml", GOOD)], Format::Text, Warnings::Denied).0,
            OK
        );
        let worse = [("b.toml", doubtful.as_str()), ("none.toml", "")];
        assert_eq!(run_with(&worse, Format::Text, Warnings::Denied).0, FAILED);
    }

    #[test]
    fn a_good_file_gets_one_line() {
        let (_, text) = run(&[("a.toml", GOOD)], Format::Text);
        assert_eq!(text, "DIR/a.toml: ok (1 listener, 1 route, 1 upstream)\n");
    }

    #[test]
    fn json_is_one_array_with_places() {
        let (code, text) = run(&[("b.toml", BAD), ("none.toml", "")], Format::Json);
        assert_eq!(code, FAILED);
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(all[0]["file"], "DIR/b.toml");
        assert_eq!((&all[0]["line"], &all[0]["column"]), (&json!(1), &json!(2)));
        assert_eq!(all[0]["end"], json!({ "line": 1, "column": 11 }));
        assert_eq!(all[0]["severity"], "error");
        assert_eq!(all[0]["code"], "unknown-key");
        assert_eq!(all[0]["help"], "did you mean `listeners`?");
        assert_eq!(all[1]["code"], "io");
        assert_eq!(all.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_closed_pipe_is_a_failure_not_a_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(
            check(
                &["/nonexistent".into()],
                Format::Text,
                Warnings::Allowed,
                &mut Closed
            ),
            FAILED
        );
        assert_eq!(
            check(
                &["/nonexistent".into()],
                Format::Json,
                Warnings::Allowed,
                &mut Closed
            ),
            FAILED
        );
    }
}
