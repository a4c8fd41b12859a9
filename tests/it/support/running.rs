//! The real program in front of connections that a test plays, and what the system says of its process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use super::binary::{Binary, free_port, program};
use super::client::Client;
use super::eventually::eventually;

/// A running isobar; `web` is its listener, if its file has one there.
#[derive(Debug)]
pub struct Running {
    pub isobar: Binary,
    pub web: SocketAddr,
    pub admin: SocketAddr,
    pub file: PathBuf,
}

// === impl Running ===

impl Running {
    /// Serves `toml`, in which `WEB` and `ADMIN` stand for addresses.
    #[track_caller]
    pub fn start(toml: &str) -> Self {
        Self::launch(toml, |file, folder| Binary::spawn(&["run", file], folder))
    }

    /// The same run by another program, whose arguments end with isobar's own command line.
    #[track_caller]
    pub fn start_by(runner: &Path, args: &[&str], toml: &str) -> Self {
        let isobar = program().to_string_lossy();
        Self::launch(toml, |file, folder| {
            let args = [args, &[&*isobar, "run", file]].concat();
            Binary::spawn_at(runner, &args, folder)
        })
    }

    #[track_caller]
    fn launch(toml: &str, run: impl FnOnce(&str, tempfile::TempDir) -> Binary) -> Self {
        let [web, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("isobar.toml");
        let toml = place(toml, web, admin);
        std::fs::write(&file, toml).unwrap();
        let isobar = run(&file.to_string_lossy(), folder);
        isobar.await_line("stop with Ctrl-C");
        Self {
            isobar,
            web,
            admin,
            file,
        }
    }

    /// One listener of TCP over `endpoint`; `listener` and `upstream` are further lines of theirs.
    #[track_caller]
    pub fn over(endpoint: SocketAddr, listener: &str, upstream: &str) -> Self {
        Self::start(&config(endpoint, listener, upstream))
    }

    /// The value of one series of `/metrics`, named with its labels as printed; 0 if absent.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        Client::metric(self.admin, series)
    }

    /// Flows of the listener `web` that ended so.
    #[track_caller]
    pub fn flows(&self, outcome: &str) -> usize {
        let name = "isobar_listener_flows_total";
        self.metric(&format!("{name}{{listener=\"web\",outcome=\"{outcome}\"}}")) as usize
    }

    /// Connections of the listener `web`.
    #[track_caller]
    pub fn connections(&self) -> usize {
        self.metric("isobar_listener_connections{listener=\"web\"}") as usize
    }

    /// Has it read another file, and waits until it serves that.
    #[track_caller]
    pub fn reload(&self, toml: &str) {
        let series = "isobar_config_reloads_total{result=\"ok\"}";
        let before = self.metric(series);
        // As editors do: a whole file appears at once.
        let new = self.file.with_extension("new");
        std::fs::write(&new, place(toml, self.web, self.admin)).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
        self.isobar.signal(Signal::HUP);
        eventually("a reload", || self.metric(series) > before);
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.isobar.pid());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Its open pipes, both ends counted.
    pub fn pipes(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.isobar.pid());
        let fds = std::fs::read_dir(folder).unwrap().flatten();
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().starts_with("pipe:"))
            .count()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> f64 {
        let status = format!("/proc/{}/status", self.isobar.pid());
        let status = std::fs::read_to_string(status).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// CPU that it has used, in hundredths of a second (proc(5): utime and stime of stat, in clock
    /// ticks, which Linux shows as 100 a second).
    pub fn cpu(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.isobar.pid())).unwrap();
        // Its name may have blanks; fields 14 and 15, counted from 1.
        let (_, after) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = after.split(' ').collect();
        [11, 12]
            .map(|i: usize| fields[i].parse::<u64>().unwrap())
            .iter()
            .sum()
    }

    /// How many descriptors it may have from now on; `None` = as many as at first.
    pub fn limit_descriptors(&self, most: Option<u64>) {
        let pid = Pid::from_raw(self.isobar.pid() as i32);
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = most.or(maximum);
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    }
}

/// See [`Running::over`].
pub fn config(endpoint: SocketAddr, listener: &str, upstream: &str) -> String {
    format!(
        "[process]\nworkers = 2\n[admin]\nbind = 'ADMIN'\n\
         [listeners.web]\nbind = 'WEB'\nprotocol = 'tcp'\nupstream = 'app'\n{listener}\n\
         [upstreams.app]\nendpoints = ['{endpoint}']\n{upstream}\n"
    )
}

fn place(toml: &str, web: SocketAddr, admin: SocketAddr) -> String {
    toml.replace("WEB", &web.to_string())
        .replace("ADMIN", &admin.to_string())
}
