//! Moving requests and responses: the data path.

mod attempt;
mod body;
mod exchange;
mod forwarded;
mod h1;
mod headers;
mod http;
mod pipeline;
mod relay;
mod respond;
pub mod snapshot;
mod splice;
mod stick;
mod target;
mod trailers;
mod turn_away;
mod upgrade;
mod worker;

pub use h1::{Conn, serve};
pub use turn_away::turn_away;
pub use worker::{Phase, Worker};
