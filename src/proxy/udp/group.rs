//! The sockets of one address, one a worker.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// Sockets of an address that is given up, whose own flows have all ended.
///
/// The kernel spreads what comes among the sockets of an address, by a hash and how many they are. Were one closed
/// before the others, datagrams of flows that still go on would come to workers who do not know them. So they stay
/// open, unread, and are closed when the last loop of the address drops this.
#[derive(Debug, Default)]
pub struct Group {
    parked: Mutex<Vec<OwnedFd>>,
}

// === impl Group ===

impl Group {
    /// Keeps `socket` open until nobody has this any more.
    pub(super) fn park(&self, socket: OwnedFd) {
        let parked = self.parked.lock();
        parked.unwrap_or_else(PoisonError::into_inner).push(socket);
    }
}
