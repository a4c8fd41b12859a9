//! The task of a peer: what comes, what is due, what is new, and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Nanos, nanos};

use super::seeds::resolve;
use super::shell::Shell;
use super::{Fleet, Sockets, meter};

/// Before it is looked again whether a reload has been built.
const BUSY: Duration = Duration::from_millis(5);

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the metrics are written: more often than anybody scrapes.
const METER_EVERY: Duration = Duration::from_secs(1);

/// How often what is known is saved, if it has changed.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// How often names of seeds are asked for while somebody is there, and while nobody is.
const RESOLVE_EVERY: Duration = Duration::from_secs(60);
const RESOLVE_ALONE: Duration = Duration::from_secs(5);

/// How often a successor tries to bind what the process before it still holds.
const SUCCEED_EVERY: Duration = Duration::from_millis(20);

/// Runs until `stop`, then tells the others that this peer goes (if nobody takes its place) and saves what it
/// knows. `hand_on` takes in what is new here; `false` = something else is busy with what is live, and it is to be
/// asked again. A fault of the peer (see `guard`) ends its part before that, of which `ended` is told; then too this
/// returns at `stop`. Cancel safe: what is lost then is that farewell.
pub async fn run(
    fleet: Fleet,
    sockets: Option<Sockets>,
    hand_on: impl FnMut() -> bool,
    ended: impl FnOnce(String),
    stop: CancellationToken,
) {
    let bound = if let Some(sockets) = sockets {
        Some(sockets)
    } else {
        tokio::select! {
            bound = succeed(&fleet) => Some(bound),
            () = stop.cancelled() => None,
        }
    };
    let Some(bound) = bound else {
        return;
    };
    let (udp, tcp) = match bound.into_tokio() {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(%error, "fleet: its sockets cannot be used, this peer is alone");
            return stop.cancelled().await;
        }
    };
    take_part(&fleet, udp, tcp, hand_on, &stop).await;
    // The others ask no more for this process, which has still to know whom its clients can be sent to.
    fleet.0.duty.send_replace(Arc::default());
    if let Some(why) = fleet.stopped() {
        ended(why);
        stop.cancelled().await;
    }
}

/// Until `stop`, or until the peer has ended by a fault; what was bound is let go.
async fn take_part(
    fleet: &Fleet,
    udp: UdpSocket,
    tcp: TcpListener,
    mut hand_on: impl FnMut() -> bool,
    stop: &CancellationToken,
) {
    let (events, mut inbox) = mpsc::channel(64);
    let mut shell = Shell::new(fleet.clone(), udp, events);
    meter::begin(&fleet.0.cells);
    let mut next_meter = 0;
    let mut hand_on_at = 0;
    let mut accept_at = 0;
    // At once: who it is, if it is new.
    let mut next_save = 0;
    let mut saving: JoinSet<()> = JoinSet::new();
    let mut next_resolve = 0;
    let mut resolving: JoinSet<Vec<SocketAddr>> = JoinSet::new();
    loop {
        // 1 what waits, before the clock is looked at
        let is_full = shell.read();
        // 2 what is due
        let now = fleet.now();
        fleet.with(|state| {
            if state.peer.wake_at() <= now.now {
                state.peer.wake(now);
            }
        });
        // 3 what it wants
        shell.act();
        fleet.answer_looks();
        // 4 what is new
        let mut is_busy = false;
        if now.now >= hand_on_at {
            let began = fleet.now().now;
            is_busy = fleet.has_news() && !hand_on();
            let ended = fleet.now().now;
            // Members of a large upstream take milliseconds to build: at most a fifth of the time.
            hand_on_at = ended.saturating_add(4 * ended.saturating_sub(began));
        }
        if now.now >= next_meter {
            next_meter = now.now.saturating_add(nanos(METER_EVERY));
            fleet.with(|state| meter::write(&fleet.0.cells, &state.peer, now));
        }
        if saving.is_empty() && (now.now >= next_save || fleet.state().is_to_be_saved) {
            next_save = now.now.saturating_add(nanos(SAVE_EVERY));
            fleet.state().is_to_be_saved = false;
            let fleet = fleet.clone();
            saving.spawn_blocking(move || fleet.save());
        }
        if resolving.is_empty() && (now.now >= next_resolve || fleet.state().is_to_be_resolved) {
            fleet.state().is_to_be_resolved = false;
            let is_alone = fleet.state().peer.live().is_empty();
            let every = if is_alone {
                RESOLVE_ALONE
            } else {
                RESOLVE_EVERY
            };
            next_resolve = now.now.saturating_add(nanos(every));
            resolving.spawn(resolve(fleet.wanted().seeds.clone()));
        }
        // 5 until there is more
        let Some(at) = fleet.with(|state| state.peer.wake_at()) else {
            return;
        };
        // What is being saved ends, and that wakes this.
        let next_save_at = if saving.is_empty() {
            next_save
        } else {
            Nanos::MAX
        };
        let at = at
            .min(next_save_at)
            .min(next_meter)
            .min(next_resolve.max(now.now + 1));
        let mut wait = Duration::from_nanos(at.saturating_sub(fleet.now().now));
        if is_busy {
            wait = wait.min(BUSY);
        } else if fleet.has_news() {
            let after = hand_on_at.saturating_sub(fleet.now().now);
            wait = wait.min(Duration::from_nanos(after).max(BUSY));
        }
        let now = fleet.now().now;
        if accept_at > now {
            wait = wait.min(Duration::from_nanos(accept_at - now));
        }
        if is_full {
            // Others on this thread, checks among them, have their turn, however much comes.
            tokio::task::yield_now().await;
        }
        let notified = fleet.0.wake.notified();
        // Each arm may be dropped: all of them are cancel-safe.
        tokio::select! {
            _ = shell.udp.readable() => {}
            accepted = tcp.accept(), if accept_at <= now => match accepted {
                Ok((stream, from)) => shell.accept(stream, from),
                // No descriptors are left, most likely: asked again at once it would say so again.
                Err(_) => accept_at = now.saturating_add(nanos(PAUSE)),
            },
            Some(event) = inbox.recv() => shell.heed(event),
            Some(_) = shell.tasks.join_next() => {}
            Some(_) = saving.join_next() => {}
            Some(found) = resolving.join_next() => {
                // Where nothing is found, those from before are still the best guess.
                if let Ok(seeds) = found && !seeds.is_empty() {
                    let now = fleet.now();
                    fleet.with(|state| state.peer.set_seeds(seeds, now));
                }
            }
            () = notified => {}
            () = sleep(wait) => {}
            () = stop.cancelled() => break,
        }
        while let Ok(event) = inbox.try_recv() {
            shell.heed(event);
        }
    }
    if !fleet.is_frozen() {
        let now = fleet.now();
        fleet.with(|state| state.peer.leave(now));
        shell.act();
    }
    fleet.save();
}

/// Binds when the process before has let go. Cancel safe.
async fn succeed(fleet: &Fleet) -> Sockets {
    loop {
        // What is said here meanwhile is told when there is somebody to tell.
        match Sockets::bind(fleet.0.spec.bind) {
            Ok(sockets) => return sockets,
            Err(_in_use) => sleep(SUCCEED_EVERY).await,
        }
    }
}
