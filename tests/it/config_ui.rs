//! What the loader says about wrong files, word for word.
//!
//! `ui/NAME.toml` (or `ui/NAME/main.toml`, with the files it includes) has problems; `NAME.stderr`
//! beside it holds how they are shown. To accept a new rendering, delete the `.stderr` files that
//! change and run the test once: it writes them and fails; look at the difference, then commit it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use isobar::config::{self, Problems};

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ui")
}

/// (name, main file), sorted.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases: Vec<_> = fs::read_dir(ui())
        .expect("tests/it/ui is there")
        .map(|entry| entry.expect("a folder that can be read").path())
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            if path.is_dir() {
                // `tls` holds files that the cases name.
                let main = path.join("main.toml");
                return main.is_file().then_some((name, main));
            }
            (path.extension()? == "toml").then_some((name, path))
        })
        .collect();
    cases.sort();
    cases
}

/// All problems as a terminal shows them, without the folder of this machine.
fn rendered(path: &Path) -> String {
    let text = match config::load(path) {
        Ok(loaded) => loaded
            .warnings
            .iter()
            .fold(String::new(), |all, w| all + &w.to_string() + "\n"),
        Err(problems @ Problems::Invalid(_)) => format!("{problems}\n"),
        Err(problems @ Problems::Io { .. }) => panic!("{}: {problems}", path.display()),
    };
    text.replace(&format!("{}/", ui().display()), "")
}

/// Hides the keys as an operator would: git does not keep modes, and whether everybody may read a key
/// is one of the things that are warned of.
fn hide_keys() {
    for entry in fs::read_dir(ui().join("tls")).expect("tests/it/ui/tls is there") {
        let path = entry.expect("a folder that can be read").path();
        if path.extension().is_some_and(|e| e == "key") {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
        }
    }
}

#[test]
fn every_problem_is_shown_as_recorded() {
    hide_keys();
    let mut wrong = Vec::new();
    let cases = cases();
    for (name, path) in &cases {
        let found = rendered(path);
        assert!(!found.is_empty(), "{name}: no problem was found");
        let golden = ui().join(format!("{name}.stderr"));
        match fs::read_to_string(&golden) {
            Ok(expected) if expected == found => {}
            Ok(expected) => wrong.push(format!(
                "{name}: differs; delete {name}.stderr to accept\n--- recorded\n{expected}\n--- now\n{found}"
            )),
            Err(_) => {
                fs::write(&golden, &found).unwrap();
                wrong.push(format!("{name}: {name}.stderr written; look at it and commit it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
}

/// Nobody has to fix one problem to see the next.
#[test]
fn ten_problems_are_reported_in_one_go() {
    let text = fs::read_to_string(ui().join("ten_at_once.toml")).unwrap();
    let problems = config::parse("ten_at_once.toml", &text).unwrap_err();
    let found = problems.diagnostics();
    let lines: Vec<_> = found
        .iter()
        .map(|d| text.lines().nth(d.place.line - 1).unwrap())
        .collect();
    assert_eq!(found.len(), 10, "{problems}");
    for (number, line) in (1..).zip(&lines) {
        assert!(line.contains(&format!("# {number}:")), "{number} at {line}");
    }
    let mut codes: Vec<_> = found.iter().map(|d| d.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 10, "ten kinds: {codes:?}");
}
