//! Network namespaces of a test's own, with links between them as it likes.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::openssl::Tool;
use super::{need, not_run};

/// Some namespaces, which go when this is dropped.
#[derive(Debug)]
pub struct Namespaces {
    ip: PathBuf,
    names: Vec<String>,
}

// === impl Namespaces ===

impl Namespaces {
    /// One for each of `ends`, in each of which only loopback is up, and what `wire` adds. `test` tells those of one
    /// process apart. `None` where this process may not, after having said so.
    pub fn build(
        test: &str,
        ends: &[&str],
        wire: impl FnOnce(&Self) -> Result<(), String>,
    ) -> Option<Self> {
        let ip = need("ip")?;
        let name = |end: &&str| format!("isobar-{}-{test}-{end}", std::process::id());
        let names = ends.iter().map(name).collect();
        let spaces = Self { ip, names };
        match spaces.add().and_then(|()| wire(&spaces)) {
            Ok(()) => Some(spaces),
            Err(why) => {
                not_run(&format!("no network namespaces here: {why}"));
                None
            }
        }
    }

    fn add(&self) -> Result<(), String> {
        for name in &self.names {
            self.ip(&["netns", "add", name])?;
            self.ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// The program `ip`.
    pub fn program(&self) -> &Path {
        &self.ip
    }

    /// The name of the one for `ends[end]`.
    pub fn name(&self, end: usize) -> &str {
        &self.names[end]
    }

    /// Runs `ip` with these arguments.
    pub fn ip(&self, args: &[&str]) -> Result<(), String> {
        let (status, said) = Tool::run(&self.ip, args);
        if status.success() {
            Ok(())
        } else {
            Err(format!("ip {}: {}", args.join(" "), said.trim()))
        }
    }

    /// Takes this thread there, and those that it will start.
    #[track_caller]
    pub fn enter(&self, end: usize) {
        // Where `ip` has them.
        let file = File::open(format!("/var/run/netns/{}", self.names[end])).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // Not all may be there.
            let _ = self.ip(&["netns", "del", name]);
        }
    }
}
