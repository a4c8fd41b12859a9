//! Upstreams: named sets of endpoints, the connections to them, and the receipts of what they do.
//!
//! [`Upstream`] and [`Endpoint`] are shared by all workers; [`LocalUpstream`] is one worker's view
//! with its idle connections. Only the in-flight counts cross workers on the request path.

mod connect;
mod endpoint;
mod groups;
mod guarded;
mod idle_limit;
mod links;
mod local;
mod members;
pub mod overrides;
mod picking;
mod plain;
mod pool;
pub mod said;
mod ticket;
mod tried;
mod waiting;

pub use connect::{ConnectError, Means, Purpose, is_local, open};
pub use endpoint::{Ejection, Endpoint, Health, LastCheck, Proof, Since};
pub use groups::Tier;
pub use guarded::{Admission, SOON, Signal, Signals};
pub use idle_limit::IdleLimit;
pub use links::Links;
pub use local::{LocalEndpoint, LocalUpstream, Picked};
pub use members::{Admits, Making, Members, Seat, Upstream};
pub use plain::open_plain;
pub use pool::{Checkout, Connection, Pool, Reuse};
pub use ticket::{Seen, Ticket};
pub use tried::Tried;
pub use waiting::{Called, Waiter, Waiting};
