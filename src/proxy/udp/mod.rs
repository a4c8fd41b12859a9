//! Datagrams.

mod flows;
mod key;
mod quic;
