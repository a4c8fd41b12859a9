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

mod peering;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState, api};
use crate::balance::{Balancer, Factory, Member};
use crate::base::clock::{Clock, nanos};
use crate::base::tls::CertificateError;
use crate::config::{Config, Name};
use crate::listener::handover::{Entry, Inherited, Kind, Manifest};
use crate::listener::{BindError, Bound, Spread, bind};
use crate::proxy::Worker;
use crate::proxy::snapshot::{Published, Snapshot};
use crate::runtime::access::{self, Access};
use crate::runtime::certificates;
use crate::runtime::compile::{Compiler, FromFiles, Known};
use crate::runtime::control::Peering;
use crate::runtime::fleet::FleetError;
pub use crate::runtime::live::ReloadError;
use crate::runtime::live::{Live, Parts, wanted};
pub use crate::runtime::operate::{Operations, Order};
use crate::runtime::readiness::{Readiness, Ready};
use crate::runtime::sockets::Sockets;
use crate::runtime::sticky_keys::{StickyKeyError, StickyKeys};
use crate::runtime::ticket_keys::{TicketKeyError, TicketKeyReader};
use crate::runtime::worker::Heir;
use crate::runtime::workers::{COMMANDS, Workers};
use crate::runtime::{control, operate, worker};
use crate::telemetry::access_log::Target;
use crate::telemetry::history::{Cause, Timeline, What};
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::Signals;
use crate::upstream::overrides::{OpenError, Overrides, Reconciled, Store};

/// A running server. Dropping it cuts what is in flight; [`Server::shutdown`] drains first.
#[derive(Debug)]
pub struct Server {
    live: Arc<Mutex<Live>>,
    published: Arc<Published>,
    admin: Option<SocketAddr>,
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
    spread: Spread,
    control: Option<JoinHandle<()>>,
    stop: CancellationToken,
    operations: Operations,
    orders: Option<mpsc::Receiver<Order>>,
    /// The admin address, for a successor.
    admin_handle: Option<(String, OwnedFd)>,
    /// The control socket, for a successor.
    control_handle: Option<api::Handle>,
    /// Ends what serves operators; a child of `stop`.
    stop_serving: CancellationToken,
    /// Ends the part in the fleet; a child of `stop`.
    stop_fleet: CancellationToken,
    /// How many processes handed these sockets on before.
    generation: u64,
}

/// A server before it starts: what a configuration file cannot say.
#[derive(Debug)]
#[must_use]
pub struct Builder<'a> {
    config: &'a Config,
    balancers: BTreeMap<String, Factory>,
    inherited: Option<Inherited>,
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
    /// The overrides of the process before cannot be read.
    #[error(transparent)]
    Overrides(OpenError),
    /// What sticky cookies are signed with cannot be read, or made.
    #[error(transparent)]
    StickyKey(StickyKeyError),
    /// It cannot be a peer of its fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A thread or its runtime cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
    /// What session tickets are made with cannot be read, or made.
    #[error(transparent)]
    TicketKey(TicketKeyError),
    /// A certificate, or what comes with it, cannot be served.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// The listener.
        listener: Name,
        /// Which file, and what is wrong with it.
        source: CertificateError,
    },
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

/// Orders that wait for the process: one is enough to end it.
const ORDERS: usize = 4;

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
            inherited: None,
        }
    }

    fn start_with(
        config: &Config,
        balancers: &BTreeMap<String, Factory>,
        mut inherited: Option<Inherited>,
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
        let generation = inherited
            .as_ref()
            .and_then(Inherited::predecessor)
            .map_or(0, |(_, generation)| generation + 1);
        let mut sockets = Sockets::default();
        let prepared = sockets
            .prepare(&config.listeners, workers, inherited.as_mut())
            .map_err(|(name, source)| StartError::Listener { name, source })?;
        let admin = match config.admin.bind {
            Some(addr) => {
                let addr = crate::base::addr::BindAddr::Ip(addr);
                let bound = inherited
                    .as_mut()
                    .and_then(|inherited| inherited.bind(Kind::AdminTcp, &addr, 1))
                    .unwrap_or_else(|| bind(&addr, 1));
                Some(bound.map_err(StartError::Admin)?)
            }
            None => None,
        };
        let control = api::bind(config, inherited.as_mut()).map_err(StartError::Admin)?;
        let settings = access::settings(config);
        let (access, logs) = Access::start(settings.clone(), &registry).map_err(|source| {
            let to = match settings.map(|settings| settings.target) {
                Some(Target::File(path)) => path.display().to_string(),
                Some(Target::Stderr) => "on standard error".to_owned(),
                Some(Target::Stdout) | None => "on standard output".to_owned(),
            };
            StartError::AccessLog { to, source }
        })?;
        let (signals, signalled) = Signals::channel();
        let mut compiler = Compiler::new(balancers.clone(), registry.clone(), signals, seed);
        let known = Known::new();
        let (store, mut overrides) = stored(config)?;
        let peer = peering::begin_with(config, generation, &registry, &mut overrides)?;
        let told = overrides.reconcile(None, config);
        let mut sticky_keys = StickyKeys::new(config.process.state_dir.as_deref());
        let keyrings = sticky_keys.read(config).map_err(StartError::StickyKey)?;
        let mut ticket_keys = TicketKeyReader::new(config.process.state_dir.as_deref());
        let tickets = ticket_keys.read(config).map_err(StartError::TicketKey)?;
        let tls = certificates::prepare(config, None, &tickets)
            .map_err(|(listener, source)| StartError::Tls { listener, source })?;
        let files = FromFiles { keyrings, tls };
        let snapshot = compiler.compile(config, &prepared.slots, None, &known, &files, |spec| {
            wanted(spec, &overrides)
        });
        certificates::settle(&snapshot, &tickets, &registry);
        let published = Arc::new(Published::new(snapshot));

        let (spread, handed) = Spread::new(workers);
        let readiness = Arc::new(Readiness::default());
        let timeline = Timeline::default();
        let stop = CancellationToken::new();
        let mut threads = Workers::default();
        for (index, (log, handed)) in logs.into_iter().zip(handed).enumerate() {
            let (commands, inbox) = mpsc::channel(COMMANDS);
            let (spread, published) = (spread.clone(), published.clone());
            let cells = registry.worker_cells();
            let make = move || {
                Worker::new(
                    index,
                    clock,
                    published,
                    cells,
                    log,
                    seed.wrapping_add(index as u64 + 1),
                )
            };
            let thread = std::thread::Builder::new()
                .name(format!("isobar-{index}"))
                .spawn(move || worker::run(make, spread, handed, inbox))
                .map_err(StartError::Thread)?;
            threads.add(commands, thread);
        }
        sockets.commit(prepared, &threads);
        let live = Live::new(Parts {
            config: Arc::new(config.clone()),
            published: published.clone(),
            registry: registry.clone(),
            compiler,
            sticky_keys,
            ticket_keys,
            sockets,
            workers: threads,
            access,
            overrides,
            store,
            fleet: peer.as_ref().map(|peer| peer.begun.fleet.clone()),
            timeline: timeline.clone(),
        });
        let live = Arc::new(Mutex::new(live));
        let (orders, taken) = mpsc::channel(ORDERS);
        let operations = Operations::new(operate::Parts {
            live: live.clone(),
            published: published.clone(),
            readiness: readiness.clone(),
            timeline: timeline.clone(),
            cells: registry.config(),
            orders,
        });
        let cause = match generation {
            0 => Cause::Start,
            _ => Cause::Upgrade,
        };
        record_start(&operations, &timeline, &cause, told);
        let mut server = Self {
            live: live.clone(),
            published: published.clone(),
            admin: admin.as_ref().and_then(Bound::addr),
            readiness: readiness.clone(),
            registry: registry.clone(),
            spread,
            control: None,
            stop: stop.clone(),
            operations,
            orders: Some(taken),
            admin_handle: None,
            control_handle: None,
            stop_serving: stop.child_token(),
            stop_fleet: stop.child_token(),
            generation,
        };
        let admin = admin.and_then(|bound| bound.into_parts().0.into_iter().next());
        let admin = admin.map(std::net::TcpListener::from);
        server.admin_handle = match (&admin, config.admin.bind) {
            (Some(listener), Some(addr)) => {
                let copy = listener.try_clone().map_err(StartError::Thread)?;
                Some((addr.to_string(), copy.into()))
            }
            _ => None,
        };
        let state = AdminState {
            registry,
            readiness: readiness.clone(),
        };
        if let Some(socket) = &control {
            server.control_handle = Some(socket.handle().map_err(StartError::Thread)?);
        }
        let operations = server.operations.clone();
        let serving = serving(
            admin,
            state,
            control,
            operations,
            server.stop_serving.clone(),
        );
        let mut counter = None;
        let peering = peer.map(|peer| {
            let fleet = peer.begun.fleet;
            counter = peer.counter.map(|counter| (counter, fleet.clone()));
            Peering {
                fleet,
                sockets: peer.sockets,
                orders: peer.begun.orders,
                stop: server.stop_fleet.clone(),
            }
        });
        let stop_fleet = server.stop_fleet.clone();
        let serving = async move {
            let registering = async {
                if let Some((counter, fleet)) = counter {
                    counter.serve(fleet, published, stop_fleet).await;
                }
            };
            tokio::join!(serving, registering);
        };
        let control = control::start(
            serving,
            live,
            signalled,
            readiness.clone(),
            peering,
            seed,
            stop,
        );
        server.control = Some(control.map_err(StartError::Thread)?);
        // A successor has the traffic already, and nobody else would answer.
        if generation > 0 || server.live().targets().borrow().is_empty() {
            readiness.set_known();
        }
        Ok(server)
    }

    /// Replaces the configuration while traffic flows. All or nothing: what is the same in both is
    /// not touched, what is removed drains for its `grace`. Blocks for the time it takes to
    /// build the new tables.
    ///
    /// # Errors
    /// What cannot be had (an address, the log file); then the old configuration serves on.
    pub fn reload(&self, config: &Config) -> Result<(), ReloadError> {
        self.live().reload(config.clone()).map(|_| ())
    }

    /// The first address that listener `name` is bound to, with its real port.
    pub fn local_addr(&self, name: &str) -> Option<SocketAddr> {
        self.local_addrs(name).first().copied()
    }

    /// Every IP address that listener `name` is bound to, in the order of its `bind`.
    pub fn local_addrs(&self, name: &str) -> Vec<SocketAddr> {
        self.live().sockets().addrs(name)
    }

    /// The address of metrics and readiness.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Client connections of each worker.
    pub fn connections(&self) -> Vec<usize> {
        self.spread.loads()
    }

    /// What operators can ask of this server.
    pub fn operations(&self) -> Operations {
        self.operations.clone()
    }

    /// What operators ask of the process: to drain, to upgrade. `None` = taken already; while nobody
    /// takes them, such orders are refused.
    pub fn take_orders(&mut self) -> Option<mpsc::Receiver<Order>> {
        let taken = self.orders.take()?;
        self.operations.orders_are_taken();
        Some(taken)
    }

    /// The metrics.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The configuration that is served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot.load_full()
    }

    /// How long a drain may take before it cuts: that of the most patient listener.
    pub fn grace(&self) -> Duration {
        let live = self.live();
        let graces = live.graces().into_iter().map(|(_, grace)| grace);
        graces.max().unwrap_or(live.config().process.grace)
    }

    /// Opens the access log's file anew (after a rotation).
    pub fn reopen_logs(&self) {
        self.live().reopen_logs();
    }

    /// Begins to drain, and returns at once: not ready any more; no connection is begun, those
    /// whose handshake was under way are served; every answer from now on closes its connection;
    /// idle connections are closed after a last call of 100 ms (a quarter of `process.grace`, if
    /// that is less). A client that is sending requests meets an answer with `Connection: close`,
    /// never a connection closed under its request. Only one that has said nothing for the time of
    /// the last call can be sending its next request in the very moment of the close, and has to
    /// repeat it (RFC 9112 section 9.3.1).
    pub fn drain(&self) {
        self.drain_for(Heir::Nobody);
    }

    fn drain_for(&self, heir: Heir) {
        self.readiness.set(Ready::Draining);
        self.live().drain(heir);
        // Others take over what it did for them, or a successor does.
        self.stop_fleet.cancel();
    }

    /// What a successor needs to listen in this one's place: copies of every listening descriptor,
    /// in the order of the manifest. Until [`Server::thaw`], nothing may change the server.
    ///
    /// # Errors
    /// There are no descriptors left for the copies.
    pub fn hand_over(&self) -> io::Result<(Manifest, Vec<OwnedFd>)> {
        let mut live = self.live();
        let mut entries = Vec::new();
        let mut descriptors = Vec::new();
        for (entry, copies) in live.handles()? {
            entries.push(entry);
            descriptors.extend(copies);
        }
        if let Some((addr, handle)) = &self.admin_handle {
            entries.push(Entry {
                kind: Kind::AdminTcp,
                name: "admin".to_owned(),
                addr: addr.clone(),
                count: 1,
                // Its entrance is never closed.
                kept: 0,
            });
            descriptors.push(handle.try_clone()?);
        }
        if let Some(handle) = &self.control_handle {
            let (entry, descriptor) = handle.copy()?;
            entries.push(entry);
            descriptors.push(descriptor);
        }
        live.freeze(true);
        Ok((Manifest::new(self.generation, entries), descriptors))
    }

    /// The predecessor has given its word that all is ours ([`Builder::inherit`]): from now on the
    /// files of Unix sockets are removed when this server ends.
    pub fn own_files(&self) {
        self.live().sockets().own_files();
    }

    /// Whether what operators say is kept for the next process (`process.state_dir`).
    pub fn keeps_overrides(&self) -> bool {
        self.live().config().process.state_dir.is_some()
    }

    /// The successor did not start: all goes on here.
    pub fn thaw(&self) {
        self.live().freeze(false);
    }

    /// Whether every worker has finished.
    pub fn is_drained(&self) -> bool {
        self.live().workers().have_ended()
    }

    /// Drains for at most `process.grace`, then cuts; a listener with a `grace` of its own has that.
    /// Blocks.
    pub fn shutdown(self) -> Shutdown {
        self.shutdown_unless(|_| false)
    }

    /// The same, cutting early once `is_urgent` says so. Blocks.
    pub fn shutdown_unless(self, is_urgent: impl FnMut(&Self) -> bool) -> Shutdown {
        self.end(Heir::Nobody, is_urgent)
    }

    /// The same after a successor has taken the sockets over ([`Server::hand_over`]): accepts
    /// nothing more, refuses nothing, leaves the files of Unix sockets.
    pub fn succeed(mut self, is_urgent: impl FnMut(&Self) -> bool) -> Shutdown {
        self.admin_handle = None;
        // What comes to its admin address and control socket asks for the successor.
        self.control_handle = None;
        self.stop_serving.cancel();
        self.end(Heir::Successor, is_urgent)
    }

    fn end(mut self, heir: Heir, mut is_urgent: impl FnMut(&Self) -> bool) -> Shutdown {
        self.drain_for(heir);
        let clock = Clock::start();
        let began = clock.now();
        let grace = self.grace().max(self.live().leaving_for());
        let deadline = began.saturating_add(nanos(grace));
        let mut graces = self.live().graces();
        let mut ended = Shutdown::Clean;
        while !self.is_drained() {
            let now = clock.now();
            if is_urgent(&self) || now >= deadline {
                ended = Shutdown::Cut;
                break;
            }
            graces.retain(|(slot, grace)| {
                let is_over = now >= began.saturating_add(nanos(*grace));
                if is_over
                    && self
                        .live()
                        .sockets()
                        .slot(*slot)
                        .is_some_and(|(_, open)| open > 0)
                {
                    self.live().cut_listener(*slot);
                    ended = Shutdown::Cut;
                }
                !is_over
            });
            std::thread::park_timeout(DRAIN_POLL);
        }
        self.stop();
        ended
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic while it was held leaves a configuration that is published whole: go on with it.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts what is left, ends the threads, writes the last log lines.
    fn stop(&mut self) {
        self.readiness.set(Ready::Draining);
        self.live().stop();
        // Before what serves the control socket ends: the last one removes its file.
        self.control_handle = None;
        self.stop.cancel();
        if let Some(control) = self.control.take() {
            let _ = control.join();
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

    /// Takes listening sockets from here in the place of new ones: a predecessor's, or systemd's.
    pub fn inherit(mut self, sockets: Inherited) -> Self {
        self.inherited = Some(sockets);
        self
    }

    /// Starts it, as [`Server::start`] does.
    ///
    /// # Errors
    /// Those of [`Server::start`], and [`StartError::UnknownUpstream`].
    pub fn start(self) -> Result<Server, StartError> {
        Server::start_with(self.config, &self.balancers, self.inherited)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves operators, at what there is for them, until `stop`.
async fn serving(
    admin: Option<std::net::TcpListener>,
    state: AdminState,
    control: Option<api::Socket>,
    operations: Operations,
    stop: CancellationToken,
) {
    let metrics = async {
        if let Some(listener) = admin
            && let Err(error) = admin::serve(listener, state, stop.clone()).await
        {
            tracing::error!(%error, "metrics and readiness are not served");
        }
    };
    let control = async {
        if let Some(socket) = control
            && let Err(error) = api::serve(socket, operations, stop.clone()).await
        {
            tracing::error!(%error, "the control socket is not served");
        }
    };
    tokio::join!(metrics, control);
}

/// Opens the overrides of the process before, if there is a place for them.
fn stored(config: &Config) -> Result<(Option<Store>, Overrides), StartError> {
    let Some(folder) = &config.process.state_dir else {
        return Ok((None, Overrides::default()));
    };
    let opened = Store::open(folder).map_err(StartError::Overrides)?;
    if let Some(aside) = &opened.set_aside {
        tracing::error!("{aside}");
    }
    Ok((Some(opened.store), opened.overrides))
}

/// Puts the start into the timeline, and which overrides of the process before still hold.
fn record_start(
    operations: &Operations,
    timeline: &Timeline,
    cause: &Cause,
    told: Vec<Reconciled>,
) {
    let now = operations.started_unix_ms();
    let state = "started".to_owned();
    let text = format!("isobar {} started", env!("CARGO_PKG_VERSION"));
    timeline.record(now, cause.clone(), What::Process { state }, text);
    for said in told {
        tracing::info!("{}", said.text);
        let what = What::of_override(&said.upstream, &said.endpoint);
        timeline.record(now, cause.clone(), what, said.text);
    }
}

/// A seed that differs between processes: std's own per-process random keys, hashed.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
