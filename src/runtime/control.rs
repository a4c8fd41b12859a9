//! The control thread: everything that is not traffic.

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};

/// Starts the control thread; it ends when `stop` is cancelled.
pub fn start(
    admin: Option<TcpListener>,
    state: AdminState,
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
                match admin {
                    Some(listener) => {
                        if let Err(error) = admin::serve(listener, state, stop).await {
                            tracing::error!(%error, "metrics and readiness are not served");
                        }
                    }
                    None => stop.cancelled().await,
                }
            });
        })
}
