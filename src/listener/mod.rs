//! Listeners: bound sockets, connections spread over the workers, and sockets handed to a
//! successor process.

mod accept;
mod datagram;
pub mod handover;
mod socket;

pub(crate) use accept::{ACCEPT_PAUSE, is_transient};
pub use accept::{Acceptor, Handed, Spread};
pub use socket::{
    BindError, Bound, SocketFile, bind, bind_beside, bind_udp, bind_udp_beside, bind_unix_with_mode,
};
