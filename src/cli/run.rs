//! `isobar run`: load, start, say so, serve until told to stop.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Loaded, Problems};
use crate::server::{Server, Shutdown, StartError};
use crate::telemetry::log::{self, LogFormat};

use super::banner;

const OK: u8 = 0;
const FAILED: u8 = 1;
const IO: u8 = 2;

/// The signals that `run` follows.
struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    reopen: Signal,
}

enum Told {
    Reopen,
    Stop,
}

/// Serves a file.
pub(super) fn file(path: &Path) -> u8 {
    match config::load(path) {
        Ok(loaded) => serve(&loaded),
        Err(problems) => refuse(&problems),
    }
}

/// Serves endpoints given on the command line.
pub(super) fn to(listen: &str, to: &[String]) -> u8 {
    let mut text = String::new();
    // TOML strings are quoted as Rust's are, for what an address may hold; the loader checks them.
    let _ = writeln!(
        text,
        "[listeners.web]\nbind = {listen:?}\nupstream = \"app\""
    );
    let _ = writeln!(text, "[upstreams.app]\nendpoints = {to:?}");
    match config::parse("(command line)", &text) {
        Ok(loaded) => serve(&loaded),
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &Problems) -> u8 {
    say(&problems.to_string());
    match problems {
        Problems::Invalid(_) => FAILED,
        Problems::Io { .. } => IO,
    }
}

fn serve(loaded: &Loaded) -> u8 {
    for warning in &loaded.warnings {
        say(&warning.to_string());
    }
    // An embedding program may have its own subscriber; ours then stays away.
    let _ = log::init(loaded.config.log.level, LogFormat::Text);
    raise_descriptor_limit();
    take_small_pages();
    // Signals first: one that comes while the listeners are being bound is not lost.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed("cannot start", &error),
    };
    let signals = {
        let _entered = runtime.enter();
        Signals::new()
    };
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return failed("cannot listen for signals", &error),
    };
    let server = match Server::start(&loaded.config) {
        Ok(server) => server,
        Err(error) => return not_started(&error),
    };
    say(&banner::banner(&loaded.config, &server));
    while matches!(runtime.block_on(signals.next()), Told::Reopen) {
        server.reopen_logs();
    }
    tracing::info!(grace = ?loaded.config.process.grace, "draining; a second signal cuts");
    let mut again = || {
        runtime.block_on(async {
            tokio::select! {
                biased; // the signal is what is asked for; ready() only makes the question short
                told = signals.next() => matches!(told, Told::Stop),
                () = std::future::ready(()) => false,
            }
        })
    };
    match server.shutdown_unless(&mut again) {
        Shutdown::Clean => {
            tracing::info!("drained");
            OK
        }
        Shutdown::Cut => {
            tracing::warn!("not everything in flight was finished; it was cut");
            FAILED
        }
    }
}

fn not_started(error: &StartError) -> u8 {
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let line = cause.to_string();
        if !text.contains(&line) {
            let _ = write!(text, ": {line}");
        }
        source = cause.source();
    }
    say(&text);
    FAILED
}

fn failed(what: &str, error: &std::io::Error) -> u8 {
    say(&format!("error: {what}: {error}"));
    IO
}

/// To people: standard error, so that an access log on standard output stays clean.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// A proxy holds two descriptors an exchange; the usual soft limit of 1,024 is for interactive
/// programs, and raising it to the hard limit needs no privilege.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// A huge page is resident as a whole whatever is used of it, and memory grows by 2 MiB at a time;
/// the heap of a proxy is a few MiB, for which small pages cost no time that could be measured.
/// (The allocator asks for none itself: its feature `no_thp`. This is for systems that give them
/// unasked.)
fn take_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

// === impl Signals ===

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one. Cancel-safe: a signal that came stays until it is received.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.quit.recv() => Told::Stop,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.reopen.recv() => Told::Reopen,
        }
    }
}
