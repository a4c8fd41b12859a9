//! What facts mean at one peer: who is a member, and what holds of it. Pure.
//!
//! ```text
//! facts of an upstream ─┬─ expired words are passed over
//!                       ├─ registrations of peers that are gone end after a while   (orphans)
//!                       └─ what one peer takes away has effect up to its share      (brake)
//!                                                     -> Told -> upstream::overrides
//! ```
//! A registrar keeps the leases of those that registered with it ([`Leases`]), and says only that they came, and
//! that they went.

mod brake;
mod footing;
mod leases;
mod orphans;
mod seen;
mod told;

pub use brake::{Brake, Braked, SETTLES};
pub use leases::{CHANGES_A_SECOND, EVERY, Full, Lease, Leases, MAX_LEASES, Renewal, Terms};
pub use orphans::Orphans;
pub use seen::Seen;
pub use told::{Sight, Standing, told};
