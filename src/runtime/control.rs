//! The control thread: everything that is not traffic.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::health::checker::{Checker, Findings};
use crate::upstream::Signal;

use super::fleet::{self, Fleet, Orders, Sockets};
use super::live::Live;
use super::readiness::Readiness;

/// What makes this process a peer.
#[derive(Debug)]
pub struct Peering {
    /// It.
    pub fleet: Fleet,
    /// Its sockets; `None` = the process before has them yet.
    pub sockets: Option<Sockets>,
    /// What tells the checker.
    pub orders: Orders,
    /// Ends it: the server drains, and others take over.
    pub stop: CancellationToken,
}

/// Starts the control thread: it serves operators and keeps house until `stop` is cancelled and
/// `serving` has ended. As soon as it is known which endpoints are well, `readiness` is told.
pub fn start(
    serving: impl Future<Output = ()> + Send + 'static,
    live: Arc<Mutex<Live>>,
    signals: mpsc::Receiver<Signal>,
    readiness: Arc<Readiness>,
    peering: Option<Peering>,
    seed: u64,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name("isobar-control".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let served = async {
                    // Ends before `stop` where a successor serves operators.
                    serving.await;
                    stop.cancelled().await;
                };
                let targets = live
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .targets();
                let judged = live.clone();
                let hand_on = move |findings: &mut Findings| {
                    let mut live = match judged.try_lock() {
                        Ok(live) => live,
                        // A panic while it was held leaves a configuration that is published whole.
                        Err(TryLockError::Poisoned(error)) => error.into_inner(),
                        // A reload, for as long as it builds: they are offered again.
                        Err(TryLockError::WouldBlock) => return,
                    };
                    live.judge(std::mem::take(&mut findings.verdicts));
                    live.vote(std::mem::take(&mut findings.votes));
                    live.hear(&std::mem::take(&mut findings.heard));
                };
                let ended = {
                    let readiness = readiness.clone();
                    move |why| readiness.note(format!("the fleet has ended here: {why}"))
                };
                let known = move || readiness.set_known();
                let mut checker = Checker::new(seed);
                let gossip = peering.map(|peering| {
                    let Peering {
                        fleet,
                        sockets,
                        orders,
                        stop,
                    } = peering;
                    checker = std::mem::replace(&mut checker, Checker::new(seed))
                        .sharing(orders.duty, orders.at_once);
                    let live = live.clone();
                    let hand_on = move || {
                        match live.try_lock() {
                            Ok(mut live) => live.heed_fleet(),
                            Err(TryLockError::Poisoned(error)) => error.into_inner().heed_fleet(),
                            Err(TryLockError::WouldBlock) => return false,
                        }
                        true
                    };
                    fleet::run(fleet, sockets, hand_on, ended, stop)
                });
                let gossip = async {
                    match gossip {
                        Some(gossip) => gossip.await,
                        None => stop.cancelled().await,
                    }
                };
                let served = async {
                    // The last words of a peer are said before the thread ends.
                    tokio::join!(served, gossip);
                };
                let checking = checker.run(targets, hand_on, known);
                // The others never end by themselves, and may be dropped at any of their waits.
                tokio::select! {
                    () = served => {}
                    () = keep(live.clone()) => {}
                    () = heed(live, signals) => {}
                    () = checking => {}
                }
            });
        })
}

/// Takes in what workers find out.
async fn heed(live: Arc<Mutex<Live>>, mut signals: mpsc::Receiver<Signal>) {
    /// As many as are taken in together: each upstream publishes once for all of them.
    const BATCH: usize = 256;
    let mut batch = Vec::new();
    loop {
        if signals.recv_many(&mut batch, BATCH).await == 0 {
            // No worker is left.
            return std::future::pending().await;
        }
        loop {
            match live.try_lock() {
                Ok(mut live) => {
                    live.heed(std::mem::take(&mut batch));
                    break;
                }
                Err(TryLockError::Poisoned(error)) => {
                    error.into_inner().heed(std::mem::take(&mut batch));
                    break;
                }
                // A reload, for as long as it builds.
                Err(TryLockError::WouldBlock) => tokio::time::sleep(BUSY).await,
            }
        }
        // An endpoint that says something else of itself with each response is heard 50 times a second,
        // as checks are.
        tokio::time::sleep(GATHER).await;
    }
}

/// What comes within this time is taken in together.
const GATHER: Duration = Duration::from_millis(20);

/// Before it is looked again whether a reload has been built.
const BUSY: Duration = Duration::from_millis(5);

/// Housekeeping of what runs: drains end, and what had its time is cut, at most this much late.
const KEEP: Duration = Duration::from_millis(250);

async fn keep(live: Arc<Mutex<Live>>) {
    let mut interval = tokio::time::interval(KEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A reload holds the lock for as long as it builds: then there is a next time, and probes
        // and scrapes on this thread do not wait for it.
        match live.try_lock() {
            Ok(mut live) => live.advance(),
            // A panic while it was held leaves a configuration that is published whole.
            Err(TryLockError::Poisoned(error)) => error.into_inner().advance(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}
