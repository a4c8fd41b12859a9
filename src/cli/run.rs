//! `isobar run`: load, start, say so, serve until told to stop.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Access;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::base::clock::Clock;
use crate::base::systemd::{self, Notifier};
use crate::config::watch::Watch;
use crate::config::{self, Config, Listener, Loaded, Problems, Serves};
use crate::listener::handover::Inherited;
use crate::runtime::privileges::{self, PrivilegesError};
use crate::server::{Order, Server, Shutdown, StartError};
use crate::telemetry::history::Trigger;
use crate::telemetry::log::{self, LogFormat};

use super::banner;
use super::upgrade::{self, Handed, Successor};

const OK: u8 = 0;
const FAILED: u8 = 1;
const IO: u8 = 2;

/// What `run` is told, by whomever.
#[derive(Debug)]
enum Told {
    Reload(Trigger),
    Reopen,
    Stop,
    Upgrade,
    /// systemd wants to hear from us.
    Watchdog,
}

/// What tells it.
struct Ears {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    reopen: Signal,
    upgrade: Signal,
    orders: Option<mpsc::Receiver<Order>>,
    changes: mpsc::Receiver<()>,
    watchdog: Option<tokio::time::Interval>,
}

/// A running program.
struct Running {
    runtime: Runtime,
    ears: Ears,
    server: Server,
    notifier: Option<Notifier>,
    /// Held here alone: dropped, it watches no more.
    watch: Option<Arc<Watch>>,
}

/// Changes of files that wait to be looked at: one stands for all.
const CHANGES: usize = 1;

/// Serves a file.
pub(super) fn file(path: &Path, watch: bool) -> u8 {
    serve(config::load(path), watch)
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
    serve(config::parse(COMMAND_LINE, &text), false)
}

/// The name of the file that there is not.
const COMMAND_LINE: &str = "(command line)";

fn serve(loaded: Result<Loaded, Problems>, watch: bool) -> u8 {
    // The predecessor waits for a word, whatever becomes of this process.
    let handed = match upgrade::inherit() {
        Ok(handed) => handed,
        Err(why) => {
            say(&format!("error: the predecessor does not hand over: {why}"));
            return FAILED;
        }
    };
    let (inherited, predecessor) = match handed {
        Some(Handed {
            inherited,
            predecessor,
        }) => (Some(inherited), Some(predecessor)),
        // Before anything else is opened: these descriptors are known by their numbers.
        None => match activated() {
            Ok(inherited) => (inherited, None),
            Err(why) => {
                say(&format!("error: {why}"));
                return FAILED;
            }
        },
    };
    let started = loaded
        .map_err(|problems| match &problems {
            Problems::Invalid(_) => (problems.to_string(), FAILED),
            Problems::Io { source, .. } => (format!("error: {problems}: {source}"), IO),
        })
        .and_then(|loaded| {
            let running = start(&loaded, inherited, watch)?;
            Ok((loaded, running))
        });
    let (loaded, running) = match started {
        Ok(started) => started,
        Err((text, code)) => {
            if let Some(predecessor) = predecessor {
                predecessor.failed(&text);
            }
            say(&text);
            return code;
        }
    };
    if let Some(predecessor) = predecessor {
        if let Err(why) = predecessor.ready() {
            tracing::error!("the predecessor goes on: {why}");
            return FAILED;
        }
        running.server.own_files();
    }
    say(&banner::banner(&loaded.config, &running.server));
    running.tell_systemd(|to| to.ready("serving"));
    running.follow()
}

/// Everything between a checked configuration and the first request; or why not, and the exit code.
fn start(
    loaded: &Loaded,
    inherited: Option<Inherited>,
    watch: bool,
) -> Result<Running, (String, u8)> {
    let io = |what: &str, error: &dyn std::fmt::Display| (format!("error: {what}: {error}"), IO);
    for warning in &loaded.warnings {
        say(&warning.to_string());
    }
    // An embedding program may have its own subscriber; ours then stays away.
    let level = log::init(loaded.config.log.level, LogFormat::Text).ok();
    raise_descriptor_limit();
    if let Some(warning) = want_of_descriptors(&loaded.config, descriptor_limit()) {
        tracing::warn!("{warning}");
    }
    take_small_pages();
    let env = |name: &str| std::env::var(name).ok();
    let pid = std::process::id();
    let notifier = Notifier::new(&env).map_err(|e| io("NOTIFY_SOCKET", &e))?;
    let watchdog = systemd::watchdog_interval(&env, pid).map_err(|e| io("WATCHDOG_USEC", &e))?;
    // Signals first: one that comes while the listeners are being bound is not lost.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| io("cannot start", &e))?;
    let (changed, changes) = mpsc::channel(CHANGES);
    let mut ears = {
        let _entered = runtime.enter();
        Ears::new(changes, watchdog).map_err(|e| io("cannot listen for signals", &e))?
    };
    let main = loaded
        .files
        .first()
        .filter(|file| file.as_os_str() != COMMAND_LINE);
    // Before the server: one that has begun to serve a predecessor's sockets must not fail.
    let watch = match main {
        Some(main) if watch || loaded.config.process.watch => {
            let report = move || {
                // Full: a look is due anyway.
                let _ = changed.try_send(());
            };
            let watch = Watch::start(main, loaded.hash, report);
            Some(Arc::new(
                watch.map_err(|error| (format!("error: {error}"), FAILED))?,
            ))
        }
        _ => None,
    };
    let mut builder = Server::builder(&loaded.config);
    if let Some(inherited) = inherited {
        builder = builder.inherit(inherited);
    }
    let mut server = builder
        .start()
        .map_err(|error| (not_started(&error), FAILED))?;
    if let Some(user) = &loaded.config.process.user {
        match privileges::drop_to(user) {
            Ok(_) => {}
            Err(error @ PrivilegesError::NotRoot { .. }) => tracing::warn!("{error}"),
            Err(error) => return Err((format!("error: {error}"), FAILED)),
        }
    }
    if let Some(folder) = &loaded.config.process.state_dir
        && let Err(error) = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
    {
        // Not an error: what is served does not depend on it. But an operator's first word will.
        let folder = folder.display();
        tracing::warn!(%folder, %error, "process.state_dir is of no use: overrides are refused");
    }
    ears.orders = server.take_orders();
    if let Some(watch) = watch.as_ref().map(Arc::downgrade) {
        // A reload by signal or by an operator is no change that the watch has to report.
        server.operations().follow_reloads(move |hash| {
            if let Some(watch) = watch.upgrade() {
                watch.loaded(hash);
            }
        });
    }
    if let Some(level) = level {
        server.operations().follow_level(level);
    }
    if main.is_some() {
        server.operations().set_source(loaded);
    }
    Ok(Running {
        runtime,
        ears,
        server,
        notifier,
        watch,
    })
}

/// Sockets that systemd bound for us.
fn activated() -> Result<Option<Inherited>, String> {
    let env = |name: &str| std::env::var(name).ok();
    let descriptors = systemd::listen_fds(&env, std::process::id()).map_err(|e| e.to_string())?;
    if descriptors.is_empty() {
        return Ok(None);
    }
    let inherited = Inherited::activated(descriptors).map_err(|e| e.to_string())?;
    Ok(Some(inherited))
}

// === impl Running ===

impl Running {
    /// Follows what it is told until the end; the exit code.
    fn follow(mut self) -> u8 {
        loop {
            match self.runtime.block_on(self.ears.next()) {
                Told::Reload(trigger) => self.reload(trigger),
                Told::Reopen => self.server.reopen_logs(),
                Told::Stop => return self.stop(None),
                Told::Upgrade => {
                    if let Some(successor) = self.upgrade() {
                        return self.stop(Some(successor));
                    }
                }
                Told::Watchdog => self.tell_systemd(Notifier::watchdog),
            }
        }
    }

    fn reload(&self, trigger: Trigger) {
        self.tell_systemd(|to| to.reloading(Clock::start()));
        // What was wrong is in the log, in `status` and in the metrics.
        let served = self.server.operations().reload(trigger);
        let status = match served {
            Ok(_) => "serving",
            Err(_) => "serving the configuration before the last reload, which was refused",
        };
        self.tell_systemd(|to| to.ready(status));
    }

    /// Starts a successor and leaves all to it: its process; `None` = it did not come up, and all is
    /// as before.
    fn upgrade(&mut self) -> Option<u32> {
        tracing::info!("upgrade: starting a successor");
        let overrides = self.server.operations().status().overrides;
        if overrides > 0 && !self.server.keeps_overrides() {
            tracing::warn!(
                overrides,
                "upgrade: without process.state_dir the successor does not know what operators said"
            );
        }
        let taken_over = self.start_successor().and_then(|successor| {
            let pid = successor.pid();
            // Before it says anything: systemd may listen to the main process only.
            self.tell_systemd(|to| to.main_pid(pid));
            // As long as it has not heard this, there is somebody to go back to.
            successor.go().inspect_err(|_| {
                self.tell_systemd(|to| to.main_pid(std::process::id()));
            })?;
            Ok(pid)
        });
        match taken_over {
            Ok(pid) => Some(pid),
            Err(why) => {
                self.server.operations().upgrade_failed(&why);
                tracing::error!("upgrade: {why}; this process serves on");
                self.server.thaw();
                None
            }
        }
    }

    /// Waits for a successor to come up, on a thread of its own: the watchdog is fed meanwhile, and
    /// logs are reopened. What else is told waits until it is clear who serves.
    fn start_successor(&mut self) -> Result<Successor, String> {
        let (done, mut outcome) = oneshot::channel();
        let server = &self.server;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Nobody listens only if this thread of ours has panicked.
                let _ = done.send(upgrade::start(server));
            });
            loop {
                let told = self.runtime.block_on(async {
                    // Both are cancel-safe: what was told, or has come out, is still there.
                    tokio::select! {
                        outcome = &mut outcome => Err(outcome),
                        told = self.ears.next_while_upgrading() => Ok(told),
                    }
                });
                match told {
                    Ok(Told::Reopen) => server.reopen_logs(),
                    Ok(_) => {
                        if let Some(notifier) = &self.notifier {
                            let _ = notifier.watchdog();
                        }
                    }
                    Err(outcome) => {
                        return outcome.unwrap_or_else(|_| Err("the upgrade broke off".to_owned()));
                    }
                }
            }
        })
    }

    /// Ends, for nobody or for a successor that serves.
    fn stop(mut self, successor: Option<u32>) -> u8 {
        // A change of the files is the successor's business, or nobody's.
        self.watch = None;
        let grace = self.server.grace();
        if let Some(pid) = successor {
            tracing::info!(pid, ?grace, "upgrade: the successor serves; draining");
        } else {
            tracing::info!(?grace, "draining; a second signal cuts");
            self.tell_systemd(|to| to.stopping("draining"));
        }
        let Self {
            runtime,
            mut ears,
            server,
            ..
        } = self;
        // Nobody waits for an order any more.
        ears.orders = None;
        let mut urgent = |server: &Server| {
            loop {
                let told = runtime.block_on(async {
                    tokio::select! {
                        biased; // what was told is asked for; ready() only keeps the question short
                        told = ears.next() => Some(told),
                        () = std::future::ready(()) => None,
                    }
                });
                match told {
                    Some(Told::Stop) => return true,
                    Some(Told::Reopen) => server.reopen_logs(),
                    Some(Told::Reload(_) | Told::Upgrade) => {
                        tracing::warn!("draining: it is too late for that");
                    }
                    Some(Told::Watchdog) => {}
                    None => return false,
                }
            }
        };
        let ended = if successor.is_some() {
            // A signal that came while the successor started is the first one, not the second.
            let _ = urgent(&server);
            server.succeed(urgent)
        } else {
            server.shutdown_unless(urgent)
        };
        match ended {
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

    fn tell_systemd(&self, tell: impl Fn(&Notifier) -> std::io::Result<()>) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = tell(notifier)
        {
            tracing::warn!(%error, "systemd does not hear us");
        }
    }
}

fn not_started(error: &StartError) -> String {
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let line = cause.to_string();
        if !text.contains(&line) {
            let _ = write!(text, ": {line}");
        }
        source = cause.source();
    }
    text
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

fn descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current
}

/// Descriptors that flows of UDP should leave to all else: connections, files, listening sockets.
const RESERVE: u64 = 1024;

/// What is to be said of a limit of open files (`None` = none) that flows of UDP alone may reach.
fn want_of_descriptors(config: &Config, limit: Option<u64>) -> Option<String> {
    let limit = limit?;
    let flows = |listener: &Listener| match &listener.serves {
        Serves::Udp(spec) => u64::from(spec.max_flows.get()),
        Serves::Http | Serves::Tcp(_) => 0,
    };
    let flows: u64 = config.listeners.iter().map(flows).sum();
    (flows > 0 && flows.saturating_add(RESERVE) > limit).then(|| {
        format!(
            "flows of UDP may take {flows} descriptors (the sum of `max_flows`), and {limit} are all there \
             are: with fewer than {RESERVE} left, connections are refused; lower `max_flows`, or raise the \
             limit of open files (systemd: LimitNOFILE=)"
        )
    })
}

/// A huge page is resident as a whole whatever is used of it, and memory grows by 2 MiB at a time;
/// the heap of a proxy is a few MiB, for which small pages cost no time that could be measured.
/// (The allocator asks for none itself: its feature `no_thp`. This is for systems that give them
/// unasked.)
fn take_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

// === impl Ears ===

impl Ears {
    fn new(changes: mpsc::Receiver<()>, watchdog: Option<Duration>) -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
            orders: None,
            changes,
            // Twice as often as asked, as sd_watchdog_enabled(3) advises.
            watchdog: watchdog.map(|every| tokio::time::interval(every / 2)),
        })
    }

    /// The next one that does not wait for the end of an upgrade. Cancel-safe.
    async fn next_while_upgrading(&mut self) -> Told {
        tokio::select! {
            _ = self.reopen.recv() => Told::Reopen,
            () = tick(&mut self.watchdog) => Told::Watchdog,
        }
    }

    /// The next one. Cancel-safe: what came stays until it is received.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.quit.recv() => Told::Stop,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload(Trigger::Signal),
            _ = self.reopen.recv() => Told::Reopen,
            _ = self.upgrade.recv() => Told::Upgrade,
            Some(()) = self.changes.recv() => Told::Reload(Trigger::Watch),
            Some(order) = order(&mut self.orders) => match order {
                Order::Drain => Told::Stop,
                Order::Upgrade => Told::Upgrade,
            },
            () = tick(&mut self.watchdog) => Told::Watchdog,
        }
    }
}

/// The next order; `None` = there will be none.
async fn order(orders: &mut Option<mpsc::Receiver<Order>>) -> Option<Order> {
    orders.as_mut()?.recv().await
}

/// The next beat of the watchdog; never without one.
async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::want_of_descriptors;

    #[test]
    fn flows_that_may_take_all_descriptors_are_told_of() {
        let text = "[listeners.a]\nprotocol = 'udp'\nbind = ':53'\nupstream = 'u'\nmax_flows = 1000\n\
                    [listeners.b]\nprotocol = 'udp'\nbind = ':54'\nupstream = 'u'\nmax_flows = 500\n\
                    [upstreams.u]\nendpoints = ['127.0.0.1:1']\n";
        let config = crate::config::parse("test", text).unwrap().config;
        assert_eq!(want_of_descriptors(&config, None), None);
        assert_eq!(want_of_descriptors(&config, Some(2524)), None);
        let warning = want_of_descriptors(&config, Some(2523)).unwrap();
        assert!(warning.contains("may take 1500 descriptors"), "{warning}");
    }
}
