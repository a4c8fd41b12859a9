//! Metrics: per-worker cells, summed at scrape.
//!
//! Each worker writes cells of its own with plain loads and stores, so an exchange pays a few
//! nanoseconds, takes no lock, hashes no label and allocates nothing. Whoever needs a cell resolves
//! it by name once, when a configuration is compiled, and keeps the `Arc`. Labels come from
//! configured names and from the enums of [`cells`] and [`reason`](super::reason), never from
//! traffic: the number of series is known from the configuration.
//!
//! [`families`] is the table of everything that is exposed.

pub mod cell;
pub mod cells;
pub mod families;
pub mod fleet;
pub mod process;
pub mod registry;
pub mod scrape;

#[cfg(test)]
mod tests;
