//! Where the secrets of sticky cookies come from: a file that the configuration names, the fleet's secret,
//! or a file of this program's own, `sticky.key` in `state_dir`, made when it is first needed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::balance::sticky::Keyring;
use crate::config::secret;
use crate::config::{Config, Name};

use super::fleet_keys::{self, COOKIES, FleetKeyError};
pub use super::secret_file::Unreadable;
use super::secret_file::make_once;

/// The keyrings of upstreams; who is not among them signs no cookies.
pub type Keyrings = HashMap<Name, Keyring>;

/// Reads keyrings, at the start and with each reload.
#[derive(Debug)]
pub struct StickyKeys {
    /// That of the start, as for overrides: a reload does not move it.
    state_dir: Option<PathBuf>,
    /// The program's own, once read: it does not change, and whoever gave up root may not be able to
    /// read it again.
    own: Option<Keyring>,
}

/// Why there are no secrets. No cookie is signed with another one in their place.
#[derive(Debug, Error)]
pub enum StickyKeyError {
    /// They follow from the fleet's secret, which cannot be had.
    #[error(transparent)]
    Fleet(#[from] FleetKeyError),
    /// The program's own cannot be made.
    #[error(
        "a key for sticky cookies cannot be written to {}; `state_dir` must exist, have room, and be writable for the user that isobar runs as, or give `sticky.secret_file`",
        .path.display()
    )]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds none.
    #[error("the secret of the sticky cookies of upstream `{upstream}` in {}: {source}", .path.display())]
    Read {
        /// Which needs it.
        upstream: Name,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Unreadable,
    },
}

const FILE: &str = "sticky.key";

// === impl StickyKeys ===

impl StickyKeys {
    /// Reads for a process with this `state_dir`.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self {
            state_dir: state_dir.map(Path::to_owned),
            own: None,
        }
    }

    /// The keyrings of all upstreams that have sticky cookies. Blocks for the files.
    ///
    /// # Errors
    /// [`StickyKeyError`]: one of them cannot be had.
    pub fn read(&mut self, config: &Config) -> Result<Keyrings, StickyKeyError> {
        let mut keyrings = Keyrings::new();
        // All upstreams of all peers have the same: cookies are told apart by the upstream's name.
        let mut shared = None;
        for upstream in &config.upstreams {
            let Some(sticky) = &upstream.sticky else {
                continue;
            };
            let keyring = match (&sticky.secret_file, &config.fleet, &self.state_dir) {
                (Some(path), _, _) => Some(read(path, &upstream.name)?),
                (None, Some(fleet), _) => {
                    if shared.is_none() {
                        shared = Some(Keyring::new(fleet_keys::derived(fleet, COOKIES)?));
                    }
                    shared.clone()
                }
                (None, None, Some(folder)) => {
                    if self.own.is_none() {
                        self.own = Some(read_or_make(folder, &upstream.name)?);
                    }
                    self.own.clone()
                }
                (None, None, None) => None,
            };
            if let Some(keyring) = keyring {
                keyrings.insert(upstream.name.clone(), keyring);
            }
        }
        Ok(keyrings)
    }
}

fn read(path: &Path, upstream: &Name) -> Result<Keyring, StickyKeyError> {
    let secrets = secret::read(path).map_err(|source| StickyKeyError::Read {
        upstream: upstream.clone(),
        path: path.to_owned(),
        source: Unreadable(source),
    })?;
    Ok(Keyring::new(
        secrets.into_iter().map(secret::Secret::into_bytes),
    ))
}

fn read_or_make(folder: &Path, upstream: &Name) -> Result<Keyring, StickyKeyError> {
    let path = make_once(folder, FILE).map_err(|source| StickyKeyError::Make {
        path: folder.join(FILE),
        source,
    })?;
    read(&path, upstream)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::super::fleet_keys::tests::fleet;
    use super::*;

    fn config(sticky: &str) -> Config {
        let text = format!(
            "[listeners.web]\nbind = '127.0.0.1:1'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['127.0.0.1:2']\n{sticky}\n"
        );
        crate::config::parse("test", &text).unwrap().config
    }

    const STICKY: &str = "sticky = { cookie = 'lb' }";

    #[test]
    fn own_key_is_made_once_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(STICKY);
        let mut keys = StickyKeys::new(Some(folder.path()));
        let first = keys.read(&config).unwrap();
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), &text[64..]), (65, "\n"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut next = StickyKeys::new(Some(folder.path()));
        assert_eq!(next.read(&config).unwrap(), first, "after a restart");
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        fs::remove_file(&path).unwrap();
        assert_eq!(keys.read(&config).unwrap(), first, "while it runs");
        let elsewhere = tempfile::tempdir().unwrap();
        let mut other = StickyKeys::new(Some(elsewhere.path()));
        assert_ne!(other.read(&config).unwrap(), first);
    }

    #[test]
    fn own_key_belongs_to_the_owner_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            // Whom a process that was started as root becomes.
            std::os::unix::fs::chown(folder.path(), Some(12_345), Some(12_345)).unwrap();
        }
        let mut keys = StickyKeys::new(Some(folder.path()));
        keys.read(&config(STICKY)).unwrap();
        let wanted = fs::metadata(folder.path()).unwrap();
        let key = fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!((key.uid(), key.gid()), (wanted.uid(), wanted.gid()));
    }

    #[test]
    fn cookies_of_a_fleet_are_known_at_every_peer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        fs::write(&path, "the secret of the fleet\n").unwrap();
        let with = |mut config: Config, name: &str| {
            config.fleet = Some(fleet(name, &path).into());
            config
        };
        let read = |config: &Config, state_dir: Option<&Path>| {
            StickyKeys::new(state_dir).read(config).unwrap()
        };
        let alone = config(STICKY);
        let edge = with(alone.clone(), "edge");
        let ours = read(&edge, Some(folder.path()));
        assert_eq!(read(&edge, None), ours, "another peer, without state");
        assert_eq!(ours.len(), 1);
        assert!(!folder.path().join(FILE).exists());
        assert_ne!(read(&with(alone.clone(), "core"), None), ours);
        assert_ne!(read(&alone, Some(folder.path())), ours);
        assert!(read(&alone, None).is_empty(), "without a fleet as before");
        // What the upstream names wins.
        let own = folder.path().join("own.key");
        fs::write(&own, "a secret of their own\n").unwrap();
        let named = format!(
            "sticky = {{ cookie = 'lb', secret_file = '{}' }}",
            own.display()
        );
        let named = config(&named);
        assert_eq!(read(&with(named.clone(), "edge"), None), read(&named, None));
        assert_ne!(read(&named, None), ours);
        // A secret that is replaced: what the old one signed is known as long as its line is there.
        fs::write(
            &path,
            "the next one of the fleet\nthe secret of the fleet\n",
        )
        .unwrap();
        let next = read(&edge, None);
        let value = |keyrings: &Keyrings| keyrings["app"].value("app", "127.0.0.1:2");
        assert_ne!(value(&next), value(&ours));
        fs::write(
            &path,
            "the secret of the fleet\nthe next one of the fleet\n",
        )
        .unwrap();
        assert_eq!(value(&read(&edge, None)), value(&ours), "the first signs");
        fs::remove_file(&path).unwrap();
        let error = StickyKeys::new(None).read(&edge).unwrap_err();
        assert!(matches!(
            error,
            StickyKeyError::Fleet(FleetKeyError::Read { .. })
        ));
        assert!(
            read(&with(config(""), "edge"), None).is_empty(),
            "not read for nothing"
        );
    }

    #[test]
    fn nothing_is_made_for_who_does_not_need_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = StickyKeys::new(Some(folder.path()));
        assert!(keys.read(&config("")).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut keys = StickyKeys::new(None);
        assert!(keys.read(&config(STICKY)).unwrap().is_empty(), "no key");
    }

    #[test]
    fn what_is_in_the_way_is_told_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "short\n").unwrap();
        let error = StickyKeys::new(Some(folder.path()))
            .read(&config(STICKY))
            .unwrap_err();
        let text = format!(
            "the secret of the sticky cookies of upstream `app` in {}: \
             its line 1 has 5 bytes, and a secret at least 16",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read(&path).unwrap(), b"short\n");
        let missing = folder.path().join("missing");
        let error = StickyKeys::new(Some(&missing))
            .read(&config(STICKY))
            .unwrap_err();
        assert!(matches!(error, StickyKeyError::Make { .. }), "{error}");
    }
}
