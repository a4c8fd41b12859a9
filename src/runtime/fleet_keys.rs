//! The fleet's secret, and the secrets that follow from it, so that what one peer hands out (sticky cookies,
//! session tickets) is known at every other.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::Fleet;
use crate::config::secret::{self, Secret};
use crate::fleet::seal::Keyring;

pub use super::secret_file::Unreadable;

/// Why there is no keyring.
#[derive(Debug, Error)]
pub enum FleetKeyError {
    /// Two lines of the file that cannot be told apart on the wire; a chance of one in 4e9.
    #[error("two secrets of the fleet in {} have the same id: change one of them", .path.display())]
    Alike {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no secret.
    #[error("the secret of the fleet in {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Unreadable,
    },
}

/// What cookies are signed with.
pub(super) const COOKIES: &str = "sticky cookies";

/// What tickets are made with.
pub(super) const TICKETS: &str = "session tickets";

/// Reads the keyring of a fleet. Blocks for the file.
///
/// # Errors
/// [`FleetKeyError`].
pub fn keyring(fleet: &Fleet) -> Result<Keyring, FleetKeyError> {
    let path = || fleet.secret_file.clone();
    let secrets = secret::read(&fleet.secret_file).map_err(|source| FleetKeyError::Read {
        path: path(),
        source: Unreadable(source),
    })?;
    let secrets = secrets.into_iter().map(Secret::into_bytes);
    // A file has at least one, and no more than fit.
    Keyring::new(&fleet.name, secrets).ok_or_else(|| FleetKeyError::Alike { path: path() })
}

/// Secrets for `purpose`, that of the line in use first.
///
/// # Errors
/// [`FleetKeyError`].
pub(super) fn derived(fleet: &Fleet, purpose: &str) -> Result<Vec<Box<[u8]>>, FleetKeyError> {
    Ok(keyring(fleet)?.derive(purpose))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn fleet(name: &str, secret_file: &Path) -> Fleet {
        Fleet {
            name: name.into(),
            bind: "127.0.0.1:7946".parse().unwrap(),
            advertise: None,
            seeds: Vec::new(),
            secret_file: secret_file.to_owned(),
            state_dir: None,
            zone: None,
            probers: 3,
            max_remove: 0.5,
            max_clock_skew: Duration::from_secs(5),
            register: None,
        }
    }

    #[test]
    fn every_purpose_and_every_fleet_has_secrets_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        std::fs::write(&path, "the secret of now\nthe secret of before\n").unwrap();
        let of = |name: &str, purpose: &str| derived(&fleet(name, &path), purpose).unwrap();
        let cookies = of("edge", COOKIES);
        assert_eq!(cookies.len(), 2, "both lines, the first in use");
        assert_eq!(of("edge", COOKIES), cookies);
        assert_ne!(of("edge", TICKETS), cookies);
        assert_ne!(of("core", COOKIES), cookies);
        std::fs::write(&path, "the secret of before\n").unwrap();
        assert_eq!(of("edge", COOKIES), cookies[1..]);
        std::fs::write(&path, "short\n").unwrap();
        let error = derived(&fleet("edge", &path), COOKIES).unwrap_err();
        let text = format!(
            "the secret of the fleet in {}: its line 1 has 5 bytes, and a secret at least 16",
            path.display()
        );
        assert_eq!(error.to_string(), text);
    }
}
