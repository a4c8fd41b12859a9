//! Which folders to watch for a file, and which names in them matter.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Symlinks on one way: the kernel's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Folders by their real paths (absolute, without symlinks).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folders {
    names: BTreeMap<PathBuf, Names>,
}

/// What matters in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    Some(BTreeSet<OsString>),
}

// === impl Folders ===

impl Folders {
    /// What may change which file `path` is, or what is in it: the folder that it is in, that of
    /// every symlink on the way, and for a part that does not exist the folder where it would be.
    pub(super) fn add_file(&mut self, path: &Path) {
        self.walk(path, |name| Names::Some([name.to_owned()].into()));
    }

    /// The same, for every file of a folder if the last part of `path` holds a `*`.
    pub(super) fn add_pattern(&mut self, path: &Path) {
        let is_pattern = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().contains(&b'*'));
        if !is_pattern {
            self.add_file(path);
            return;
        }
        self.walk(path, |_| Names::All);
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.names.keys().map(PathBuf::as_path)
    }

    pub(super) fn is_one(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    /// Whether something that happened to `path` matters.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        if self.is_one(path) {
            return true;
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        match self.names.get(folder) {
            Some(Names::All) => true,
            Some(Names::Some(names)) => names.contains(name),
            None => false,
        }
    }

    /// Follows `path` from the root, as the kernel would.
    fn walk(&mut self, path: &Path, last: impl Fn(&OsStr) -> Names) {
        // Only without a current folder: then nothing relative can be read either.
        let Ok(path) = std::path::absolute(path) else {
            return;
        };
        let mut real = PathBuf::from("/");
        let mut rest = parts(&path);
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                real.pop();
                continue;
            }
            if rest.is_empty() {
                self.note(&real, last(&name));
            }
            let here = real.join(&name);
            match here.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => {
                    self.note(&real, Names::Some([name].into()));
                    links += 1;
                    // A link that changes right now, or one that leads to itself.
                    let Some(target) = here.read_link().ok().filter(|_| links <= MAX_LINKS) else {
                        return;
                    };
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    let mut through = parts(&target);
                    through.append(&mut rest);
                    rest = through;
                }
                Ok(_) => real = here,
                Err(_) => {
                    // It may appear.
                    self.note(&real, Names::Some([name].into()));
                    return;
                }
            }
        }
    }

    fn note(&mut self, folder: &Path, names: Names) {
        match self.names.entry(folder.to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert(names);
            }
            Entry::Occupied(mut known) => match (known.get_mut(), names) {
                (Names::Some(known), Names::Some(more)) => known.extend(more),
                (Names::All, Names::All | Names::Some(_)) => {}
                (known @ Names::Some(_), Names::All) => *known = Names::All,
            },
        }
    }
}

/// The parts of a path that lead on.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::CurDir | Component::Prefix(_) | Component::RootDir => None,
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A real folder (the temporary one may be behind a symlink itself).
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let guard = tempfile::tempdir().unwrap();
        let path = guard.path().canonicalize().unwrap();
        (guard, path)
    }

    fn of_file(path: &Path) -> Folders {
        let mut folders = Folders::default();
        folders.add_file(path);
        folders
    }

    fn of_pattern(path: &Path) -> Folders {
        let mut folders = Folders::default();
        folders.add_pattern(path);
        folders
    }

    fn expected(all: &[(&Path, &[&str])]) -> Folders {
        let names = |names: &[&str]| Names::Some(names.iter().map(OsString::from).collect());
        Folders {
            names: all
                .iter()
                .map(|(path, some)| (path.to_path_buf(), names(some)))
                .collect(),
        }
    }

    #[test]
    fn plain_file_is_watched_by_its_folder() {
        let (_guard, at) = folder();
        let file = at.join("isobar.toml");
        fs::write(&file, "").unwrap();
        let folders = of_file(&file);
        assert_eq!(folders, expected(&[(&at, &["isobar.toml"])]));
        assert!(folders.concerns(&file));
        assert!(folders.concerns(&at), "the folder itself");
        assert!(!folders.concerns(&at.join("isobar.toml~")));
        assert!(!folders.concerns(Path::new("/")));
        fs::remove_file(&file).unwrap();
        assert_eq!(of_file(&file), folders, "it may come back");
    }

    #[test]
    fn kubernetes_links_are_watched_with_what_they_lead_to() {
        let (_guard, at) = folder();
        let dated = at.join("..2026_01");
        fs::create_dir(&dated).unwrap();
        fs::write(dated.join("isobar.toml"), "").unwrap();
        symlink("..2026_01", at.join("..data")).unwrap();
        symlink("..data/isobar.toml", at.join("isobar.toml")).unwrap();
        let folders = of_file(&at.join("isobar.toml"));
        let wanted = expected(&[
            (&at, &["..data", "isobar.toml"]),
            (&dated, &["isobar.toml"]),
        ]);
        assert_eq!(folders, wanted);
    }

    #[test]
    fn link_to_a_folder_far_away_is_watched_there_too() {
        let (_guard, at) = folder();
        let (_other, far) = folder();
        fs::create_dir(far.join("v1")).unwrap();
        fs::write(far.join("v1/isobar.toml"), "").unwrap();
        symlink(far.join("v1"), at.join("current")).unwrap();
        let folders = of_file(&at.join("x/../current/./isobar.toml"));
        // `x` does not exist, and the kernel would not go through it.
        assert_eq!(folders, expected(&[(&at, &["x"])]));
        fs::create_dir(at.join("x")).unwrap();
        let folders = of_file(&at.join("x/../current/./isobar.toml"));
        let there = far.join("v1");
        let wanted = expected(&[(&at, &["current"]), (&there, &["isobar.toml"])]);
        assert_eq!(folders, wanted);
    }

    #[test]
    fn folder_that_does_not_exist_yet_is_awaited_in_its_parent() {
        let (_guard, at) = folder();
        let pattern = at.join("conf.d/sites/*.toml");
        assert_eq!(of_pattern(&pattern), expected(&[(&at, &["conf.d"])]));
        fs::create_dir(at.join("conf.d")).unwrap();
        let wanted = expected(&[(&at.join("conf.d"), &["sites"])]);
        assert_eq!(of_pattern(&pattern), wanted);
        fs::create_dir(at.join("conf.d/sites")).unwrap();
        let folders = of_pattern(&pattern);
        assert!(folders.concerns(&at.join("conf.d/sites/new.toml")));
        assert!(!folders.concerns(&at.join("conf.d/other.toml")));
        assert!(folders.paths().eq([at.join("conf.d/sites")]));
    }

    #[test]
    fn pattern_and_file_in_one_folder_are_all_of_it() {
        let (_guard, at) = folder();
        for order in [[true, false], [false, true]] {
            let mut folders = Folders::default();
            for is_file in order {
                if is_file {
                    folders.add_file(&at.join("isobar.toml"));
                } else {
                    folders.add_pattern(&at.join("*.toml"));
                }
            }
            assert!(folders.concerns(&at.join("new.toml")));
        }
        let one = of_pattern(&at.join("one.toml"));
        assert!(!one.concerns(&at.join("new.toml")), "no pattern");
    }

    #[test]
    fn link_to_itself_ends() {
        let (_guard, at) = folder();
        symlink("b", at.join("a")).unwrap();
        symlink("a", at.join("b")).unwrap();
        assert_eq!(of_file(&at.join("a")), expected(&[(&at, &["a", "b"])]));
    }
}
