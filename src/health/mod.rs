//! Active checks of endpoints, and what they say of themselves ([`agent`]).
//!
//! [`threshold`] (what a row of results means) and [`schedule`] (when the next check is due) are
//! pure; [`probe`] asks an endpoint once, one file a protocol; [`checker`] is the shell that runs
//! them on the control runtime and hands on what has changed. In a fleet [`duty`] says who is asked by whom, and
//! what is found becomes a vote ([`ballot`]). This module sees `upstream`, never
//! the other way round: an endpoint only bears what was found of it.

pub mod agent;
pub mod ballot;
pub mod check_hash;
pub mod checker;
pub mod duty;
pub mod probe;
pub mod schedule;
pub mod threshold;
