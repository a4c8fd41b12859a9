//! What foca wants done, noted while it runs; and its source of chance.

use std::convert::Infallible;
use std::time::Duration;

use foca::{Notification, OwnedNotification, Runtime, Timer};

use super::identity::Identity;
use crate::base::rng::Rng;

/// Filled by one call into foca, emptied after it.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) sends: Vec<(Identity, Vec<u8>)>,
    pub(super) timers: Vec<(Timer<Identity>, Duration)>,
    pub(super) notes: Vec<OwnedNotification<Identity>>,
}

/// Our generator, as foca knows generators.
#[derive(Debug)]
pub(super) struct Chance(pub(super) Rng);

// === impl Effects ===

impl Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.notes.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

// === impl Chance ===

impl rand_core::TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            let bytes = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}
