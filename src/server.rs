//! A server: what an embedding program starts, asks and stops. The `isobar` command is one of them.
//!
//! ```no_run
//! let toml = "[listeners.web]\nbind = '127.0.0.1:8080'\nupstream = 'app'\n\
//!             [upstreams.app]\nendpoints = ['127.0.0.1:3000']\n";
//! let loaded = isobar::config::parse("example", toml)?;
//! let server = isobar::server::Server::start(&loaded.config)?;
//! println!("{:?}", server.local_addr("web"));
//! server.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a policy of your own: [`Server::builder`] and `examples/custom_balancer.rs`; whole programs
//! are `examples/embed.rs` and that one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminState, Readiness, Ready};
use crate::balance::{Balancer, Factory, Member};
use crate::base::clock::Clock;
use crate::config::{AccessFormat, Config, LogTarget, Name};
use crate::listener::{BindError, Bound, SocketFile, Spread, bind};
use crate::proxy::Worker;
use crate::proxy::snapshot::Snapshot;
use crate::runtime::worker::{Command, Listening, SocketKind};
use crate::runtime::{compile, control, worker};
use crate::telemetry::access_log::{AccessLog, Format, Settings, Target};
use crate::telemetry::metrics::registry::Registry;

/// A running server. Dropping it cuts what is in flight; [`Server::shutdown`] drains first.
#[derive(Debug)]
pub struct Server {
    grace: Duration,
    listeners: Vec<(Name, Vec<SocketAddr>)>,
    /// Removed when this goes.
    files: Vec<SocketFile>,
    admin: Option<SocketAddr>,
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
    spread: Spread,
    snapshot: Arc<ArcSwap<Snapshot>>,
    workers: Vec<WorkerThread>,
    control: Option<JoinHandle<()>>,
    access: Option<AccessLog>,
    stop: CancellationToken,
}

/// A server before it starts: what a configuration file cannot say.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder<'a> {
    config: &'a Config,
    balancers: BTreeMap<String, Factory>,
}

/// Why a server did not start. Nothing is left bound or running.
#[derive(Debug, Error)]
pub enum StartError {
    /// The access log cannot be written.
    #[error("the access log {to} cannot be opened")]
    AccessLog {
        /// Where it was to go.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// The admin address cannot be bound.
    #[error("admin: {0}")]
    Admin(BindError),
    /// A listener cannot be bound.
    #[error("listener `{name}`: {source}")]
    Listener {
        /// The listener.
        name: Name,
        /// Why.
        source: BindError,
    },
    /// A thread or its runtime cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
    /// A balancer was given for an upstream that the configuration does not have.
    #[error("no upstream `{name}` for the balancer given; the configuration has {known}")]
    UnknownUpstream {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Everything in flight was finished.
    Clean,
    /// Some of it was cut when the time was up, or a second request to stop came.
    Cut,
}

#[derive(Debug)]
struct WorkerThread {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<io::Result<()>>,
}

/// Commands waiting for a worker: a server sends one a listener and two more.
const COMMANDS: usize = 1024;

/// What is still written of the access log after the last exchange.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How long, while draining, what is already on its way may arrive: the end of a handshake, the next
/// request on a connection in use. A round trip across a continent.
const LAST_CALL: Duration = Duration::from_millis(100);

/// How often a drain looks whether the workers are done.
const DRAIN_POLL: Duration = Duration::from_millis(5);

// === impl Server ===

impl Server {
    /// Binds every listener, then starts the workers: connections are served when this returns.
    ///
    /// # Errors
    /// Whatever cannot be had; then nothing stays bound or running.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::builder(config).start()
    }

    /// A server of `config` to which things are added that no file can say.
    pub fn builder(config: &Config) -> Builder<'_> {
        Builder {
            config,
            balancers: BTreeMap::new(),
        }
    }

    fn start_with(
        config: &Config,
        balancers: &BTreeMap<String, Factory>,
    ) -> Result<Self, StartError> {
        for name in balancers.keys() {
            if !config.upstreams.iter().any(|u| *u.name == **name) {
                let known: Vec<_> = config.upstreams.iter().map(|u| &*u.name).collect();
                return Err(StartError::UnknownUpstream {
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = config.process.workers.map_or(cores, usize::from);
        let clock = Clock::start();
        let seed = random_seed();
        let registry = Arc::new(Registry::new(workers));
        let snapshot = compile::compile(config, balancers, &registry, seed);
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));

        let mut bound = Vec::new();
        for (slot, listener) in config.listeners.iter().enumerate() {
            let open = Arc::new(AtomicUsize::new(0));
            for addr in &listener.bind {
                let sockets = bind(addr, workers).map_err(|source| StartError::Listener {
                    name: listener.name.clone(),
                    source,
                })?;
                bound.push((slot, open.clone(), sockets));
            }
        }
        let admin = match config.admin.bind {
            Some(addr) => {
                let addr = crate::base::addr::BindAddr::Ip(addr);
                Some(bind(&addr, 1).map_err(StartError::Admin)?)
            }
            None => None,
        };
        let (access, logs) = match access_settings(config) {
            Some(settings) => {
                let (log, ends) = AccessLog::start(&settings, &registry).map_err(|source| {
                    let to = match &settings.target {
                        Target::File(path) => path.display().to_string(),
                        Target::Stderr => "on standard error".to_owned(),
                        Target::Stdout => "on standard output".to_owned(),
                    };
                    StartError::AccessLog { to, source }
                })?;
                (Some(log), ends.into_iter().map(Some).collect())
            }
            None => (None, (0..workers).map(|_| None).collect::<Vec<_>>()),
        };

        let (spread, handed) = Spread::new(workers);
        let readiness = Arc::new(Readiness::default());
        let stop = CancellationToken::new();
        let mut server = Self {
            grace: config.process.grace,
            listeners: Vec::new(),
            files: Vec::new(),
            admin: admin.as_ref().and_then(Bound::addr),
            readiness: readiness.clone(),
            registry: registry.clone(),
            spread: spread.clone(),
            snapshot: snapshot.clone(),
            workers: Vec::new(),
            control: None,
            access,
            stop: stop.clone(),
        };
        for (index, (log, handed)) in logs.into_iter().zip(handed).enumerate() {
            let (commands, inbox) = mpsc::channel(COMMANDS);
            let (spread, snapshot) = (spread.clone(), snapshot.clone());
            let cells = registry.worker_cells();
            let make = move || {
                Worker::new(
                    index,
                    clock,
                    snapshot,
                    cells,
                    log,
                    seed.wrapping_add(index as u64 + 1),
                )
            };
            let thread = std::thread::Builder::new()
                .name(format!("isobar-{index}"))
                .spawn(move || worker::run(make, spread, handed, inbox))
                .map_err(StartError::Thread)?;
            server.workers.push(WorkerThread { commands, thread });
        }
        for listener in &config.listeners {
            server.listeners.push((listener.name.clone(), Vec::new()));
        }
        for (slot, open, sockets) in bound {
            server.listen(slot, &open, sockets);
        }
        let admin = admin.and_then(|bound| bound.into_parts().0.into_iter().next());
        let admin = admin.map(std::net::TcpListener::from);
        let state = AdminState {
            registry,
            readiness: readiness.clone(),
        };
        server.control = Some(control::start(admin, state, stop).map_err(StartError::Thread)?);
        readiness.set(Ready::Ready);
        Ok(server)
    }

    /// The first address that listener `name` is bound to, with its real port.
    pub fn local_addr(&self, name: &str) -> Option<SocketAddr> {
        let (_, addrs) = self.listeners.iter().find(|(n, _)| &**n == name)?;
        addrs.first().copied()
    }

    /// Every IP address that listener `name` is bound to, in the order of its `bind`.
    pub fn local_addrs(&self, name: &str) -> &[SocketAddr] {
        let found = self.listeners.iter().find(|(n, _)| &**n == name);
        found.map_or(&[], |(_, addrs)| addrs)
    }

    /// The address of metrics and readiness.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Client connections of each worker.
    pub fn connections(&self) -> Vec<usize> {
        self.spread.loads()
    }

    /// The metrics.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The configuration that is served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Opens the access log's file anew (after a rotation).
    pub fn reopen_logs(&self) {
        if let Some(access) = &self.access {
            access.reopen();
        }
    }

    /// Begins to drain, and returns at once: not ready any more; no connection is begun, those
    /// whose handshake was under way are served; every answer from now on closes its connection;
    /// idle connections are closed after a last call of 100 ms (a quarter of `process.grace`, if
    /// that is less). A client that is sending requests meets an answer with `Connection: close`,
    /// never a connection closed under its request. Only one that has said nothing for the time of
    /// the last call can be sending its next request in the very moment of the close, and has to
    /// repeat it (RFC 9112 section 9.3.1).
    pub fn drain(&self) {
        self.readiness.set(Ready::Draining);
        for file in &self.files {
            // Nobody new finds it; a connection made in the instant of closing would be reset.
            file.remove();
        }
        let last_call = LAST_CALL.min(self.grace / 4);
        self.tell(|| Command::Drain { last_call });
    }

    /// Whether every worker has finished.
    pub fn is_drained(&self) -> bool {
        self.workers.iter().all(|w| w.thread.is_finished())
    }

    /// Drains for at most `process.grace`, then cuts. Blocks.
    pub fn shutdown(self) -> Shutdown {
        self.shutdown_unless(|| false)
    }

    /// The same, cutting early once `is_urgent` says so. Blocks.
    pub fn shutdown_unless(mut self, mut is_urgent: impl FnMut() -> bool) -> Shutdown {
        self.drain();
        let clock = Clock::start();
        let deadline = clock.now() + crate::base::clock::nanos(self.grace);
        let mut ended = Shutdown::Clean;
        while !self.is_drained() {
            if is_urgent() || clock.now() >= deadline {
                ended = Shutdown::Cut;
                break;
            }
            std::thread::park_timeout(DRAIN_POLL);
        }
        self.stop();
        ended
    }

    fn listen(&mut self, slot: usize, open: &Arc<AtomicUsize>, bound: Bound) {
        let kind = match &bound {
            Bound::Tcp { addr, .. } => {
                self.listeners[slot].1.push(*addr);
                SocketKind::Tcp
            }
            Bound::Unix { .. } => SocketKind::Unix,
        };
        let (sockets, file) = bound.into_parts();
        self.files.extend(file);
        for (worker, fd) in self.workers.iter().zip(sockets) {
            let fd: OwnedFd = fd;
            let listening = Listening {
                fd,
                kind,
                slot,
                open: open.clone(),
            };
            // A worker that is gone has said why; its share of connections is refused.
            let _ = worker.commands.blocking_send(Command::Listen(listening));
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            // A full queue or a finished worker: it is ending already.
            let _ = worker.commands.try_send(command());
        }
    }

    /// Cuts what is left, ends the threads, writes the last log lines.
    fn stop(&mut self) {
        self.readiness.set(Ready::Draining);
        self.tell(|| Command::Cut);
        for worker in self.workers.drain(..) {
            drop(worker.commands);
            match worker.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
                Err(_) => tracing::error!("a worker panicked; its connections were lost"),
            }
        }
        self.stop.cancel();
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        self.files.clear();
        if let Some(access) = self.access.take()
            && let Err(error) = access.shutdown(LOG_PATIENCE)
        {
            tracing::warn!(%error, "the last lines of the access log may be missing");
        }
    }
}

// === impl Builder ===

impl Builder<'_> {
    /// Lets `make` build the balancers of that upstream, in the place of the policy that the
    /// configuration names: called with the members and which of them may be picked, whenever
    /// either changes. The last one given for a name holds.
    pub fn balancer(
        mut self,
        upstream: &str,
        make: impl Fn(&[Member], &[bool]) -> Arc<dyn Balancer> + Send + Sync + 'static,
    ) -> Self {
        let factory = Factory::new(make);
        self.balancers.insert(upstream.to_owned(), factory);
        self
    }

    /// Starts it, as [`Server::start`] does.
    ///
    /// # Errors
    /// Those of [`Server::start`], and [`StartError::UnknownUpstream`].
    pub fn start(self) -> Result<Server, StartError> {
        Server::start_with(self.config, &self.balancers)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn access_settings(config: &Config) -> Option<Settings> {
    let access = config.log.access.as_ref()?;
    Some(Settings {
        format: match access.format {
            AccessFormat::Combined => Format::Combined,
            AccessFormat::Common => Format::Common,
            AccessFormat::Json => Format::Json,
            AccessFormat::Text => Format::Text,
        },
        target: match &access.to {
            LogTarget::File(path) => Target::File(path.clone()),
            LogTarget::Stderr => Target::Stderr,
            LogTarget::Stdout => Target::Stdout,
        },
        sample: access.sample,
    })
}

/// A seed that differs between processes: std's own per-process random keys, hashed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
