//! Upstreams: named sets of endpoints, the connections to them, and the receipts of what they do.
//!
//! [`Upstream`] and [`Endpoint`] are shared by all workers; [`LocalUpstream`] is one worker's view
//! with its idle connections. Only the in-flight counts cross workers on the request path.

mod connect;
mod endpoint;
mod idle_limit;
mod local;
mod members;
pub mod overrides;
mod pool;
pub mod said;
mod ticket;

pub use connect::{ConnectError, connect};
pub use endpoint::{Endpoint, Health, LastCheck, Since};
pub use idle_limit::IdleLimit;
pub use local::{LocalEndpoint, LocalUpstream};
pub use members::{Admits, Members, Seat, Upstream};
pub use pool::{Checkout, Connection, Pool, Reuse};
pub use ticket::Ticket;
