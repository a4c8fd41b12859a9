//! Real programs that speak TLS, as processes: `openssl s_client`, `openssl s_server`, curl, nginx.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{deadline, remaining};

/// A program that runs; killed when dropped.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Standard output and error as they came, and how many of the two have ended.
    state: Mutex<(Vec<u8>, usize)>,
    changed: Condvar,
}

/// Asks for `/` and for the connection to end, so that the client ends too.
pub const ASK: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// `openssl s_client` to `addr` that asks for `/`, to its end: what it said.
#[track_caller]
pub fn s_client(openssl: &Path, addr: SocketAddr, args: &[&str]) -> String {
    let mut tool = open(openssl, addr, args);
    tool.try_send(ASK);
    tool.wait();
    tool.output()
}

/// `openssl s_client` to `addr` that waits to be told what to send.
#[track_caller]
pub fn open(openssl: &Path, addr: SocketAddr, args: &[&str]) -> Tool {
    let addr = addr.to_string();
    let all = [&["s_client", "-connect", &addr], args].concat();
    Tool::start(openssl, &all)
}

// === impl Tool ===

impl Tool {
    #[track_caller]
    pub fn start(program: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let said = Arc::new(Said::default());
        said.collect(child.stdout.take().unwrap());
        said.collect(child.stderr.take().unwrap());
        Self {
            input: child.stdin.take(),
            child,
            said,
        }
    }

    /// To its end: whether it was well, and what it said.
    #[track_caller]
    pub fn run(program: &Path, args: &[impl AsRef<std::ffi::OsStr>]) -> (ExitStatus, String) {
        let mut tool = Self::start(program, args);
        tool.input = None;
        let status = tool.wait();
        (status, tool.output())
    }

    /// To its standard input; nothing if it has gone.
    pub fn try_send(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            let _ = input
                .write_all(text.as_bytes())
                .and_then(|()| input.flush());
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.said.state.lock().unwrap().0).into_owned()
    }

    /// Waits until it has said this.
    #[track_caller]
    pub fn await_text(&self, needle: &str) {
        self.await_times(needle, 1);
    }

    /// The same, so many times.
    #[track_caller]
    pub fn await_times(&self, needle: &str, times: usize) {
        let end = deadline();
        let mut state = self.said.state.lock().unwrap();
        loop {
            let text = String::from_utf8_lossy(&state.0).into_owned();
            if text.matches(needle).count() >= times {
                return;
            }
            assert!(state.1 < 2, "it ended without `{needle}`; it said:\n{text}");
            let what = format!("`{needle}`, {times} times; so far:\n{text}");
            state = self
                .said
                .changed
                .wait_timeout(state, remaining(end, &what))
                .unwrap()
                .0;
        }
    }

    /// Waits for its end, and for all that it says until then.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = deadline();
        let mut state = self.said.state.lock().unwrap();
        while state.1 < 2 {
            let what = format!(
                "the end of a program; so far:\n{}",
                String::from_utf8_lossy(&state.0)
            );
            state = self
                .said
                .changed
                .wait_timeout(state, remaining(end, &what))
                .unwrap()
                .0;
        }
        drop(state);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            let left = remaining(end, "the exit code of a program");
            std::thread::park_timeout(left.min(Duration::from_millis(5)));
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said.state.lock();
            let said = said.unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!("it said:\n{}", String::from_utf8_lossy(&said.0));
        }
    }
}

// === impl Said ===

impl Said {
    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let said = Arc::clone(self);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                said.state.lock().unwrap().0.extend_from_slice(&piece[..n]);
                said.changed.notify_all();
            }
            said.state.lock().unwrap().1 += 1;
            said.changed.notify_all();
        });
    }
}
