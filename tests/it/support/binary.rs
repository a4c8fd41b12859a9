//! The real binary as a child process: for the command line, signals and exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{deadline, remaining};

/// A running isobar; killed when dropped.
#[derive(Debug)]
pub struct Binary {
    child: Child,
    said: Arc<Said>,
    /// Holds the configuration, and is the place for log files and sockets.
    pub folder: tempfile::TempDir,
}

#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// For `sh -c`: runs its arguments, and its standard input is a socket from systemd, called `web`.
pub const ACTIVATE: &str =
    "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$@\"";

/// A port that is free now, for the real program, whose files may not say 0. Below the range that
/// the kernel takes ports for outgoing connections from (32,768 up), so that no parallel test gets
/// it by accident; never the same one twice.
#[track_caller]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at once begin at different places.
    let start = (std::process::id() % 100) as u16 * 100;
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20,000 and 30,000");
}

/// Runs to the end: `check`, `schema`, `--help`, wrong usage.
#[track_caller]
pub fn run(args: &[&str]) -> Output {
    let mut child = command(args).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut err = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || read_all(&mut err));
    let stdout = read_all(&mut out);
    let stderr = reader.join().unwrap();
    let status = wait(&mut child, &format!("the end of isobar {}", args.join(" ")));
    Output {
        status,
        stdout,
        stderr,
    }
}

// === impl Binary ===

impl Binary {
    /// `isobar run FILE`, with `toml` in the file.
    #[track_caller]
    pub fn start(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("isobar.toml");
        std::fs::File::create(&file)
            .unwrap()
            .write_all(toml.as_bytes())
            .unwrap();
        Self::spawn(&["run", &file.to_string_lossy()], folder)
    }

    /// `isobar ARGS…`, with a folder for its files.
    #[track_caller]
    pub fn spawn(args: &[&str], folder: tempfile::TempDir) -> Self {
        Self::watch(command(args), folder)
    }

    /// The same with another path to the program: a link, say, that the test will change.
    #[track_caller]
    pub fn spawn_at(program: &Path, args: &[&str], folder: tempfile::TempDir) -> Self {
        Self::watch(piped(Command::new(program), args), folder)
    }

    /// `isobar ARGS…` with a socket as systemd gives it: it is descriptor 3, and the process is told so.
    #[track_caller]
    pub fn activated(socket: OwnedFd, args: &[&str], folder: tempfile::TempDir) -> Self {
        let mut command = piped(Command::new("sh"), &["-c", ACTIVATE, "sh"]);
        command.arg(program()).args(args).stdin(socket);
        Self::watch(command, folder)
    }

    fn watch(mut command: Command, folder: tempfile::TempDir) -> Self {
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Said::default());
        said.collect(child.stdout.take().unwrap());
        said.collect(child.stderr.take().unwrap());
        Self {
            child,
            said,
            folder,
        }
    }

    /// What it has written so far, standard output and error as they came.
    pub fn output(&self) -> String {
        // A wait that failed has panicked with the lock held, and a drop wants to show what was said.
        let lines = self.said.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits for a line that contains `needle`.
    #[track_caller]
    pub fn await_line(&self, needle: &str) -> String {
        let end = deadline();
        let mut lines = self.said.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|l| l.contains(needle)) {
                return line.clone();
            }
            let what = format!("a line with `{needle}`; so far:\n{}", lines.join("\n"));
            lines = self
                .said
                .changed
                .wait_timeout(lines, remaining(end, &what))
                .unwrap()
                .0;
        }
    }

    /// The address at the end of the line that contains `needle`: how a test learns a port 0.
    #[track_caller]
    pub fn await_addr(&self, needle: &str) -> SocketAddr {
        let line = self.await_line(needle);
        addr_in(&line).unwrap_or_else(|| panic!("no address in {line:?}"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("isobar to end; it said:\n{}", self.output());
        wait(&mut self.child, &what)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("isobar said:\n{}", self.output());
        }
    }
}

// === impl Said ===

impl Said {
    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let said = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                said.lines.lock().unwrap().push(line);
                said.changed.notify_all();
            }
        });
    }
}

fn command(args: &[&str]) -> Command {
    piped(Command::new(program()), args)
}

/// The path of the program.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_isobar"))
}

fn piped(mut command: Command, args: &[&str]) -> Command {
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn wait(child: &mut Child, what: &str) -> ExitStatus {
    // The standard library waits for a child without limit or not at all: so ask, every 5 ms.
    let end = deadline();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if super::now() >= end {
            // Nothing that outlives its test: the panic below would leave it.
            let _ = child.kill();
            let _ = child.wait();
        }
        std::thread::park_timeout(remaining(end, what).min(Duration::from_millis(5)));
    }
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

/// The last word of `line` that is an address, whatever quotes or commas surround it.
fn addr_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| c.is_whitespace() || "\"'(),;=/{}".contains(c))
        .rev()
        .find_map(|word| word.trim_end_matches('.').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Binary {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Binary::watch(command, tempfile::tempdir().unwrap())
    }

    #[test]
    fn lines_signals_and_exit_codes_are_seen() {
        // `wait` lets the trap run at once; the child of the shell goes with it.
        let mut child = shell(
            "tail -f /dev/null & trap 'kill $!; echo bye >&2; exit 7' TERM; echo ready; wait",
        );
        child.await_line("ready");
        assert!(child.is_running());
        child.signal(Signal::TERM);
        assert_eq!(child.wait().code(), Some(7));
        child.await_line("bye");
    }

    #[test]
    fn run_returns_both_outputs_and_the_status() {
        assert_eq!(run(&["--help"]).status.code(), Some(0));
    }

    #[test]
    fn address_is_found_in_a_line() {
        let want = "127.0.0.1:4711".parse().ok();
        assert_eq!(
            addr_in("listener web listens on http://127.0.0.1:4711/"),
            want
        );
        assert_eq!(
            addr_in(r#"{"listener":"web","addr":"127.0.0.1:4711"}"#),
            want
        );
        assert_eq!(
            addr_in(r#"INFO listening listener="web" addr=127.0.0.1:4711"#),
            want
        );
        assert_eq!(addr_in("no address"), None);
    }
}
