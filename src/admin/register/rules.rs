//! Who may register, how often, and for how long.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use thiserror::Error;

use crate::base::clock::Nanos;
use crate::config::{self, secret};
use crate::guard::gcra::{Rate, Tat};

/// New registrations a second that one token is good for, and as many at once: a rack that starts, and no flood for
/// the fleet, which hears of each.
const NEW_A_SECOND: u32 = 100;

/// What holds for registrations; read anew when the configuration is.
pub struct Rules {
    /// The longest lifetime that may be asked for.
    max_ttl: Duration,
    tokens: Vec<Box<[u8]>>,
    rate: Rate,
    /// By place of the token.
    arrivals: Mutex<BTreeMap<usize, Tat>>,
}

/// The tokens cannot be read.
#[derive(Debug, Error)]
#[error("the tokens of registrations in {} cannot be used: {why}", .path.display())]
pub struct TokenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// Which of the tokens was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown(usize);

// === impl Rules ===

impl Rules {
    /// What the configuration asks for; reads the file of tokens.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(register: &config::Register) -> Result<Self, TokenError> {
        let path = &register.token_file;
        let secrets = secret::read(path).map_err(|error| TokenError {
            path: path.clone(),
            why: error.to_string(),
        })?;
        Ok(Self {
            max_ttl: register.max_ttl,
            tokens: secrets
                .into_iter()
                .map(secret::Secret::into_bytes)
                .collect(),
            rate: Rate::new(NEW_A_SECOND, Duration::from_secs(1), NEW_A_SECOND),
            arrivals: Mutex::default(),
        })
    }

    pub(super) fn max_ttl(&self) -> Duration {
        self.max_ttl
    }

    /// Which token this is. Takes as long for one as for none; only its length shows.
    pub(super) fn find(&self, token: &[u8]) -> Option<Shown> {
        let mut found = None;
        for (place, known) in self.tokens.iter().enumerate() {
            if verify_slices_are_equal(known, token).is_ok() {
                found = Some(Shown(place));
            }
        }
        found
    }

    /// Whether one more may register that was not, or how long until it may.
    pub(super) fn admit(&self, shown: Shown, now: Nanos) -> Result<(), Duration> {
        // Poisoned by nobody: nothing in here panics while it is held.
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let arrival = arrivals.entry(shown.0).or_default();
        match self.rate.decide(*arrival, now) {
            Ok(next) => {
                *arrival = next;
                Ok(())
            }
            Err(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.len();
        write!(f, "Rules({tokens} tokens, at most {:?})", self.max_ttl)
    }
}
