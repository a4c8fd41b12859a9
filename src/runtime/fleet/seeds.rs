//! Where the seeds are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Seed;

/// For all names together.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses taken of names.
const MAX_SEEDS: usize = 256;

/// The addresses of seeds. Cancel safe.
pub(super) async fn resolve(seeds: Vec<Seed>) -> Vec<SocketAddr> {
    let mut found = BTreeSet::new();
    let mut asking = JoinSet::new();
    for seed in seeds {
        match seed {
            Seed::Addr(addr) => {
                found.insert(addr);
            }
            Seed::Dns { name, port } => {
                asking.spawn(async move {
                    let addrs = tokio::net::lookup_host((name.as_str(), port)).await;
                    let addrs = addrs.map(Iterator::collect::<Vec<_>>);
                    addrs.inspect_err(
                        |error| tracing::debug!(name, %error, "fleet: seed cannot be resolved"),
                    )
                });
            }
        }
    }
    // What was found in time will do: one server that is silent keeps nobody from the other names.
    let answers = async {
        while let Some(answer) = asking.join_next().await {
            found.extend(answer.into_iter().flatten().flatten());
        }
    };
    let _ = timeout(RESOLVE_TIMEOUT, answers).await;
    found.into_iter().take(MAX_SEEDS).collect()
}
