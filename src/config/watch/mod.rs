//! Notices that the files of a configuration have changed.
//!
//! Whatever way they are saved: editors write a new file and rename it, tools truncate and write,
//! Kubernetes swaps a symlink to a folder (`..data`). So folders are watched, not files, those of
//! every symlink on the way too (`folders`), and what counts is the text: once the folders have
//! been quiet for a moment (`decide`), the configuration is read as [`load`](super::load) reads it,
//! and a change is reported if its hash is another one. A file half written may be reported: the
//! reload refuses it, and the rest of it is the next change.
//!
//! Not seen: changes made on another machine (NFS), and a single file mounted into a container
//! (mount its folder).

mod decide;
mod folders;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;

use super::diagnostic::Report;
use super::include;
use super::source::{self, Source};
use crate::base::clock::Clock;
use decide::{Debounce, Known};
use folders::Folders;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why files are not watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// One of the folders cannot be watched.
    #[error("folder {} cannot be watched", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: notify::Error,
    },
    /// The system has no watch to give.
    #[error("files cannot be watched (fs.inotify.max_user_instances may be too low)")]
    Start(#[source] notify::Error),
    /// The thread cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug)]
struct State {
    debounce: Debounce,
    known: Known,
    folders: Folders,
    /// Watched folders to which something happened: what is at their paths may be others now.
    moved: BTreeSet<PathBuf>,
    is_stopped: bool,
}

/// The folders that the system watches for us.
#[derive(Debug)]
struct Eyes {
    watcher: RecommendedWatcher,
    /// With the device and number of each, to know it again.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Those that could not be watched, and of which that was said.
    blind: BTreeSet<PathBuf>,
}

/// The configuration as its files are now.
#[derive(Debug)]
struct Seen {
    /// `None`: the main file cannot be read.
    hash: Option<u64>,
    folders: Folders,
}

// === impl Watch ===

impl Watch {
    /// Watches the configuration of file `main`, of which `hash` was loaded
    /// ([`Loaded::hash`](super::Loaded::hash)). `on_change` is called on a thread of its own
    /// (`isobar-watch`) whenever the text is another one than the last that was loaded or reported;
    /// so for a text that is refused it is called once, and again when the old text is back.
    ///
    /// # Errors
    /// [`WatchError`]; then nothing is watched.
    pub fn start(
        main: &Path,
        hash: u64,
        on_change: impl FnMut() + Send + 'static,
    ) -> Result<Self, WatchError> {
        let main = main.to_owned();
        let seen = look(&main);
        let clock = Clock::start();
        let mut debounce = Debounce::default();
        // The files may have changed between their reading and the first watch: look once more.
        debounce.touch(clock.now());
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::new(State {
                debounce,
                known: Known::new(hash),
                folders: seen.folders.clone(),
                moved: BTreeSet::new(),
                is_stopped: false,
            }),
            woken: Condvar::new(),
        });
        let mut eyes = Eyes::open(&shared)?;
        if let Some((path, source)) = eyes.follow(&seen.folders).1.into_iter().next() {
            return Err(WatchError::Folder { path, source });
        }
        let thread = std::thread::Builder::new()
            .name("isobar-watch".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.run(&main, eyes, on_change)
            })
            .map_err(WatchError::Thread)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Says that the text with this hash was loaded, for whatever reason (a reload by signal):
    /// then it is no change. New files of it are watched.
    pub fn loaded(&self, hash: u64) {
        let mut state = self.shared.lock();
        state.known = Known::new(hash);
        state.debounce.touch(self.shared.clock.now());
        self.shared.woken.notify_one();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.take()
            // `on_change` may own the watch: a thread cannot await itself.
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of `on_change` has been printed.
            let _ = thread.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock that leaves the state torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the system says, on its thread.
    fn notice(&self, event: &notify::Result<notify::Event>) {
        let mut state = self.lock();
        let State { folders, moved, .. } = &mut *state;
        let concerns = match event {
            Ok(event) if event.need_rescan() => true,
            // Nobody changes a file by opening it, and we open them all ourselves.
            Ok(event) if matches!(event.kind, EventKind::Access(kind) if !is_written(kind)) => {
                false
            }
            Ok(event) => {
                moved.extend(event.paths.iter().filter(|p| folders.is_one(p)).cloned());
                event.paths.iter().any(|p| folders.concerns(p))
            }
            // Events may be lost: look.
            Err(_) => true,
        };
        if concerns {
            state.debounce.touch(self.clock.now());
            self.woken.notify_one();
        }
    }

    fn run(&self, main: &Path, mut eyes: Eyes, mut on_change: impl FnMut()) {
        while let Some(moved) = self.quiet() {
            let seen = look(main);
            // Before the folders are watched: their events are sifted by it.
            self.lock().folders = seen.folders.clone();
            for path in moved {
                eyes.forget(&path);
            }
            let (is_new, failures) = eyes.follow(&seen.folders);
            for (path, error) in failures {
                if eyes.blind.insert(path.clone()) {
                    tracing::warn!(folder = %path.display(), %error, "changes are not seen there");
                }
            }
            let is_change = {
                let mut state = self.lock();
                if is_new {
                    // It may have changed after it was read and before it was watched.
                    state.debounce.touch(self.clock.now());
                }
                state.known.notice(seen.hash)
            };
            if is_change {
                on_change();
            }
        }
    }

    /// Waits until something happened and then nothing; `None`: stopped.
    fn quiet(&self) -> Option<BTreeSet<PathBuf>> {
        let mut state = self.lock();
        loop {
            if state.is_stopped {
                return None;
            }
            let now = self.clock.now();
            state = match state.debounce.due() {
                None => self
                    .woken
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now => {
                    let wait = Duration::from_nanos(due - now);
                    let waited = self.woken.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    state.debounce.clear();
                    return Some(std::mem::take(&mut state.moved));
                }
            };
        }
    }
}

// === impl Eyes ===

impl Eyes {
    fn open(shared: &Arc<Shared>) -> Result<Self, WatchError> {
        let shared = shared.clone();
        let watcher = notify::recommended_watcher(move |event| shared.notice(&event));
        Ok(Self {
            watcher: watcher.map_err(WatchError::Start)?,
            watched: BTreeMap::new(),
            blind: BTreeSet::new(),
        })
    }

    /// Watches these folders and no others; whether one is new, and which could not be watched.
    fn follow(&mut self, folders: &Folders) -> (bool, Vec<(PathBuf, notify::Error)>) {
        let mut failures = Vec::new();
        let mut is_new = false;
        let all: Vec<PathBuf> = self.watched.keys().cloned().collect();
        for path in all.iter().filter(|p| !folders.is_one(p)) {
            self.forget(path);
        }
        for path in folders.paths() {
            // A folder that is gone by now: its parent's event comes, or came.
            let Ok(metadata) = path.metadata() else {
                self.forget(path);
                is_new = true;
                continue;
            };
            let id = (metadata.dev(), metadata.ino());
            if self.watched.get(path) == Some(&id) {
                continue;
            }
            self.forget(path);
            match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.to_owned(), id);
                    self.blind.remove(path);
                    is_new = true;
                }
                Err(error) => failures.push((path.to_owned(), error)),
            }
        }
        (is_new, failures)
    }

    fn forget(&mut self, path: &Path) {
        if self.watched.remove(path).is_some() {
            // The system may have dropped it already, with the folder.
            let _ = self.watcher.unwatch(path);
        }
    }
}

fn is_written(kind: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    matches!(kind, AccessKind::Close(AccessMode::Write))
}

/// Reads the configuration as `load` does, for its hash and its folders only.
fn look(main: &Path) -> Seen {
    let mut folders = Folders::default();
    folders.add_file(main);
    let Ok(source) = Source::read(main) else {
        return Seen {
            hash: None,
            folders,
        };
    };
    let sources = include::gather(source, &Report::default());
    for source in &sources {
        folders.add_file(&source.path);
        for place in include::places(source) {
            folders.add_pattern(&place);
        }
    }
    Seen {
        hash: Some(source::hash(&sources)),
        folders,
    }
}
