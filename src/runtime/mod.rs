//! Threads: one worker runtime a core, one for the control plane; the compiler that makes what they
//! serve, and the one place that changes it while it is served.

pub mod access;
pub mod certificates;
pub mod compile;
pub mod control;
pub mod ejections;
pub mod fleet;
pub mod fleet_keys;
pub mod leaving;
pub mod live;
pub mod operate;
pub mod privileges;
pub mod readiness;
mod secret_file;
pub mod sockets;
pub mod sticky_keys;
pub mod ticket_keys;
pub mod views;
pub mod worker;
pub mod workers;
