//! Listeners: bound sockets, connections spread over the workers, and sockets handed to a
//! successor process.

mod accept;
pub mod handover;
mod socket;

pub(crate) use accept::{ACCEPT_PAUSE, is_transient};
pub use accept::{Acceptor, Handed, Spread};
pub use socket::{BindError, Bound, SocketFile, bind, bind_beside};
