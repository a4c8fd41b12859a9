//! The control thread: everything that is not traffic.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};
use crate::health::checker::Checker;

use super::live::Live;

/// Starts the control thread; it ends when `stop` is cancelled.
pub fn start(
    admin: Option<TcpListener>,
    state: AdminState,
    live: Arc<Mutex<Live>>,
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
                let serving = async {
                    match admin {
                        Some(listener) => {
                            if let Err(error) = admin::serve(listener, state, stop.clone()).await {
                                tracing::error!(%error, "metrics and readiness are not served");
                            }
                        }
                        None => stop.cancelled().await,
                    }
                };
                let targets = live
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .targets();
                let judged = live.clone();
                let checking = Checker::new(seed).run(targets, move |verdicts| {
                    let mut live = match judged.try_lock() {
                        Ok(live) => live,
                        // A panic while it was held leaves a configuration that is published whole.
                        Err(TryLockError::Poisoned(error)) => error.into_inner(),
                        // A reload, for as long as it builds: they are offered again.
                        Err(TryLockError::WouldBlock) => return,
                    };
                    live.judge(std::mem::take(verdicts));
                });
                // The latter two never end by themselves, and may be dropped at any of their waits.
                tokio::select! {
                    () = serving => {}
                    () = keep(live) => {}
                    () = checking => {}
                }
            });
        })
}

/// Housekeeping of what runs: drains end, and what had its time is cut, at most this much late.
const KEEP: Duration = Duration::from_millis(250);

async fn keep(live: Arc<Mutex<Live>>) {
    let mut interval = tokio::time::interval(KEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A reload holds the lock for as long as it builds: then there is a next time, and probes
        // and scrapes on this thread do not wait for it.
        if let Ok(mut live) = live.try_lock() {
            live.advance();
        }
    }
}
