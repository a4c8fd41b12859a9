//! Changed files are noticed, whatever way they were saved.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};

use isobar::config::watch::Watch;
use isobar::config::{Problems, load};

use super::support::{deadline, remaining};

/// A folder, a configuration in it, and what the watch reports of it.
struct Watched {
    /// Before the folder: its removal is nothing to report.
    watch: Watch,
    folder: PathBuf,
    main: PathBuf,
    /// For each report, the hash of what could be loaded then.
    reports: Receiver<Option<u64>>,
    _guard: tempfile::TempDir,
}

impl Watched {
    /// `prepare` fills the folder; the main file is `isobar.toml` in it.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let guard = tempfile::tempdir().unwrap();
        let folder = guard.path().to_owned();
        prepare(&folder);
        let main = folder.join("isobar.toml");
        let (sender, reports) = channel();
        let watch = Watch::start(&main, hash(&main).unwrap(), {
            let main = main.clone();
            move || sender.send(hash(&main)).unwrap()
        });
        Self {
            watch: watch.unwrap(),
            folder,
            main,
            reports,
            _guard: guard,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Awaits the report of what the files hold now.
    #[track_caller]
    fn reported(&self, what: &str) {
        let now = hash(&self.main);
        let end = deadline();
        while self.reports.recv_timeout(remaining(end, what)) != Ok(now) {}
    }
}

/// What a reload would find; `None`: nothing that can be served.
fn hash(main: &Path) -> Option<u64> {
    match load(main) {
        Ok(loaded) => Some(loaded.hash),
        Err(Problems::Invalid(_) | Problems::Io { .. }) => None,
    }
}

fn text(upstream: &str) -> String {
    format!(
        "include = ['conf.d/*.toml']\n[listeners.web]\nbind = ':80'\nupstream = '{upstream}'\n\
         [upstreams.{upstream}]\nendpoints = ['10.0.0.1:1']\n"
    )
}

/// Another upstream, for an included file.
fn part(upstream: &str) -> String {
    format!("[upstreams.{upstream}]\nendpoints = ['10.0.0.2:1']\n")
}

fn plain() -> Watched {
    Watched::new(|folder| fs::write(folder.join("isobar.toml"), text("a")).unwrap())
}

#[test]
fn truncated_and_written() {
    let watched = plain();
    for name in ["b", "c"] {
        fs::write(&watched.main, text(name)).unwrap();
        watched.reported(name);
    }
}

#[test]
fn written_anew_and_renamed_as_editors_do() {
    let watched = plain();
    for name in ["b", "c"] {
        // vim with backupcopy=no: the old file becomes the backup, a new one takes the name.
        fs::rename(&watched.main, watched.path("isobar.toml~")).unwrap();
        fs::write(&watched.main, text(name)).unwrap();
        fs::remove_file(watched.path("isobar.toml~")).unwrap();
        watched.reported(name);
    }
    for name in ["d", "e"] {
        // Most others: a temporary file is moved over the old one.
        fs::write(watched.path(".isobar.toml.tmp"), text(name)).unwrap();
        fs::rename(watched.path(".isobar.toml.tmp"), &watched.main).unwrap();
        watched.reported(name);
    }
}

#[test]
fn deleted_and_created_again() {
    let watched = plain();
    let kept = hash(&watched.main);
    for round in ["once", "twice"] {
        fs::remove_file(&watched.main).unwrap();
        watched.reported(round);
        fs::write(&watched.main, text("a")).unwrap();
        assert_eq!(hash(&watched.main), kept);
        watched.reported(round);
    }
}

#[test]
fn half_written_and_then_the_rest() {
    let watched = plain();
    let whole = text("b");
    let (half, _) = whole.split_once(":80'").unwrap();
    fs::write(&watched.main, half).unwrap();
    assert_eq!(hash(&watched.main), None, "a text that does not end");
    watched.reported("half of it");
    fs::write(&watched.main, &whole).unwrap();
    watched.reported("all of it");
}

#[test]
fn kubernetes_swaps_the_link_to_a_folder() {
    let mount = |folder: &Path, dated: &str, name: &str| {
        fs::create_dir(folder.join(dated)).unwrap();
        fs::write(folder.join(dated).join("isobar.toml"), text(name)).unwrap();
        // As the kubelet's atomic writer: a new link, moved over the old one.
        symlink(dated, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let watched = Watched::new(|folder| {
        mount(folder, "..2026_01", "a");
        symlink("..data/isobar.toml", folder.join("isobar.toml")).unwrap();
    });
    for (old, new, name) in [
        ("..2026_01", "..2026_02", "b"),
        ("..2026_02", "..2026_03", "c"),
    ] {
        mount(&watched.folder, new, name);
        fs::remove_dir_all(watched.path(old)).unwrap();
        watched.reported(name);
    }
}

#[test]
fn link_followed_to_a_file_that_is_edited_in_place() {
    let far = tempfile::tempdir().unwrap();
    let target = far.path().join("real.toml");
    fs::write(&target, text("a")).unwrap();
    let watched = Watched::new(|folder| symlink(&target, folder.join("isobar.toml")).unwrap());
    for name in ["b", "c"] {
        fs::write(&target, text(name)).unwrap();
        watched.reported(name);
    }
    // The link goes elsewhere: there it is followed from now on.
    let other = far.path().join("other.toml");
    fs::write(&other, text("d")).unwrap();
    symlink(&other, watched.path("new")).unwrap();
    fs::rename(watched.path("new"), &watched.main).unwrap();
    watched.reported("another target");
    fs::write(&other, text("e")).unwrap();
    watched.reported("the other target edited");
}

#[test]
fn included_folder_that_appears_later_and_its_files() {
    let watched = plain();
    fs::create_dir(watched.path("conf.d")).unwrap();
    fs::write(watched.path("conf.d/one.toml"), part("one")).unwrap();
    watched.reported("folder with a file");
    fs::write(watched.path("conf.d/two.toml"), part("two")).unwrap();
    watched.reported("second file");
    fs::write(watched.path("conf.d/two.toml"), part("zwei")).unwrap();
    watched.reported("second file edited");
    fs::remove_file(watched.path("conf.d/one.toml")).unwrap();
    watched.reported("first file removed");
    fs::remove_dir_all(watched.path("conf.d")).unwrap();
    watched.reported("folder removed");
    fs::create_dir(watched.path("conf.d")).unwrap();
    fs::write(watched.path("conf.d/three.toml"), part("three")).unwrap();
    watched.reported("folder is back");
}

#[test]
fn folder_replaced_as_a_whole() {
    let guard = tempfile::tempdir().unwrap();
    let make = |name: &str, upstream: &str| {
        let folder = guard.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("part.toml"), part(upstream)).unwrap();
        folder
    };
    let live = make("live", "one");
    let watched = Watched::new(|folder| {
        let main = text("a").replace("conf.d/*.toml", live.join("*.toml").to_str().unwrap());
        fs::write(folder.join("isobar.toml"), main).unwrap();
    });
    for (old, new, name) in [("old1", "new1", "two"), ("old2", "new2", "three")] {
        let new = make(new, name);
        fs::rename(&live, guard.path().join(old)).unwrap();
        fs::rename(&new, &live).unwrap();
        watched.reported("folder replaced");
        fs::write(live.join("more.toml"), part(&format!("more-{name}"))).unwrap();
        watched.reported("file in the new folder");
    }
}

#[test]
fn change_between_load_and_watch_is_not_lost() {
    let guard = tempfile::tempdir().unwrap();
    let main = guard.path().join("isobar.toml");
    fs::write(&main, text("a")).unwrap();
    let loaded = hash(&main).unwrap();
    fs::write(&main, text("b")).unwrap();
    let (sender, reports) = channel();
    let watch = Watch::start(&main, loaded, move || {
        let _ = sender.send(());
    });
    let _watch = watch.unwrap();
    reports.recv_timeout(remaining(deadline(), "b")).unwrap();
}

#[test]
fn what_was_loaded_is_no_change_and_what_it_replaced_is() {
    let watched = plain();
    fs::write(&watched.main, text("b")).unwrap();
    watched.reported("b");
    // As if the reload had found the file as it was before: the difference is a change again.
    fs::write(&watched.main, text("c")).unwrap();
    watched.reported("c");
    watched.watch.loaded(1);
    watched.reported("c is not what was loaded");
}

#[test]
fn watch_may_be_dropped_by_its_own_report() {
    let guard = tempfile::tempdir().unwrap();
    let main = guard.path().join("isobar.toml");
    fs::write(&main, text("a")).unwrap();
    let slot = Arc::new(Mutex::new(None::<Watch>));
    let (sender, dropped) = channel();
    let watch = Watch::start(&main, hash(&main).unwrap(), {
        let slot = slot.clone();
        move || {
            drop(slot.lock().unwrap().take());
            let _ = sender.send(());
        }
    });
    *slot.lock().unwrap() = Some(watch.unwrap());
    fs::write(&main, text("b")).unwrap();
    dropped.recv_timeout(remaining(deadline(), "b")).unwrap();
    // The sender goes with the thread, which therefore ended.
    let end = dropped.recv_timeout(remaining(deadline(), "end of the thread"));
    assert_eq!(end, Err(RecvTimeoutError::Disconnected));
}
