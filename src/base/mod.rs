//! What every floor may use: addresses, buffers, clocks, deadlines, decimal text, files that are written whole, names without their case, one stable hash, one
//! keyed hash, one generator of random numbers, the load of an endpoint, the PROXY protocol, the words of
//! systemd, Unix sockets whose queue is full.

pub mod addr;
pub mod buffer;
pub mod clock;
pub mod coroutine;
pub mod decimal;
pub mod file;
pub mod fold;
pub mod hash;
pub mod load;
pub mod proxy_protocol;
pub mod reactor;
pub mod rng;
pub mod siphash;
pub mod socket;
pub mod stream;
pub mod systemd;
pub mod timer;
pub mod tls;
pub mod unix;
