//! Threads: one worker runtime a core, one for the control plane; and the compiler that makes what
//! they serve.

pub mod compile;
pub mod control;
pub mod privileges;
pub mod worker;
