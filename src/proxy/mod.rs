//! Moving requests and responses: the data path.

mod announce;
mod answer;
mod attempt;
mod await_head;
mod blame;
mod body;
mod dial;
mod exchange;
mod flow;
mod forwarded;
mod greet;
mod grpc;
mod h1;
mod h2;
mod handshake;
mod headers;
mod hedge;
mod http;
pub mod limit;
mod opening;
mod owed;
mod pair;
mod pipeline;
mod pump;
mod queue;
mod read_head;
mod redirect;
mod relay;
mod respond;
mod retry;
mod scratch;
pub mod snapshot;
mod splice;
mod stick;
mod target;
mod tcp;
mod trailers;
mod turn_away;
pub mod udp;
mod upgrade;
mod upload;
mod worker;

#[cfg(test)]
mod simulated;

pub use greet::passes_on;
pub use h1::{Conn, serve};
pub use turn_away::turn_away;
pub use worker::{Phase, Worker};
