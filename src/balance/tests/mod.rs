//! What papers and other proxies publish about these policies, reproduced.

mod disruption;
mod papers;
mod queues;
mod shares;
