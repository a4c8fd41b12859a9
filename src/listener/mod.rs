//! Listeners: bound sockets, and connections spread over the workers.

mod accept;
mod socket;

pub(crate) use accept::{ACCEPT_PAUSE, is_transient};
pub use accept::{Acceptor, Handed, Spread};
pub use socket::{BindError, Bound, Sharing, SocketFile, bind};
