//! Where the secrets of session tickets come from: a file that the configuration names, the fleet's secret,
//! a file of this program's own, `ticket.key` in `state_dir`, or chance, for as long as the process lives.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::base::tls::TicketSecrets;
use crate::config::secret;
use crate::config::{Config, Fleet, Name};

use super::fleet_keys::{self, FleetKeyError, TICKETS};
pub use super::secret_file::Unreadable;
use super::secret_file::{make_once, random};

/// The secrets of listeners; who is not among them resumes no sessions.
pub type TicketKeys = HashMap<Name, TicketSecrets>;

/// Reads secrets of tickets, at the start and with each reload.
#[derive(Debug)]
pub struct TicketKeyReader {
    /// That of the start: a reload does not move it.
    state_dir: Option<PathBuf>,
    /// The program's own, once read or drawn, for all listeners: what a session must not cross is kept
    /// apart by the keys that are derived from it.
    own: Option<TicketSecrets>,
}

/// Why there are no secrets.
#[derive(Debug, Error)]
pub enum TicketKeyError {
    /// They follow from the fleet's secret, which cannot be had.
    #[error(transparent)]
    Fleet(#[from] FleetKeyError),
    /// The program's own cannot be made.
    #[error(
        "a key for session tickets cannot be written to {}; `state_dir` must exist, have room, and be writable for the user that isobar runs as, or give `tls.tickets.secret_file`",
        .path.display()
    )]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no randomness to be had.
    #[error("the system gives no random bytes for the key of session tickets")]
    Random(#[source] io::Error),
    /// A file holds none.
    #[error("the secret of the session tickets of listener `{listener}` in {}: {source}", .path.display())]
    Read {
        /// Which needs it.
        listener: Name,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Unreadable,
    },
}

const FILE: &str = "ticket.key";

// === impl TicketKeyReader ===

impl TicketKeyReader {
    /// Reads for a process with this `state_dir`.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self {
            state_dir: state_dir.map(Path::to_owned),
            own: None,
        }
    }

    /// The secrets of all listeners that resume sessions. Blocks for the files.
    ///
    /// # Errors
    /// [`TicketKeyError`]: one of them cannot be had.
    pub fn read(&mut self, config: &Config) -> Result<TicketKeys, TicketKeyError> {
        let mut keys = TicketKeys::new();
        let mut shared = None;
        for listener in &config.listeners {
            let Some(tls) = listener.tls.as_deref().filter(|tls| tls.tickets) else {
                continue;
            };
            let name = &listener.name;
            let secrets = match (&tls.ticket_secret_file, &config.fleet, &self.own) {
                (Some(path), _, _) => read(path, name)?,
                (None, Some(fleet), _) => match &shared {
                    Some(shared) => TicketSecrets::clone(shared),
                    None => shared.insert(of_fleet(fleet)?).clone(),
                },
                (None, None, Some(own)) => own.clone(),
                (None, None, None) => {
                    let own = self.make(name)?;
                    self.own = Some(own.clone());
                    own
                }
            };
            keys.insert(name.clone(), secrets);
        }
        Ok(keys)
    }

    fn make(&self, listener: &Name) -> Result<TicketSecrets, TicketKeyError> {
        if let Some(folder) = &self.state_dir {
            let path = make_once(folder, FILE).map_err(|source| TicketKeyError::Make {
                path: folder.join(FILE),
                source,
            })?;
            return read(&path, listener);
        }
        let drawn: Box<[u8]> = random().map_err(TicketKeyError::Random)?.into();
        Ok(TicketSecrets::new([drawn]).expect("invariant: there is one"))
    }
}

fn of_fleet(fleet: &Fleet) -> Result<TicketSecrets, FleetKeyError> {
    let secrets = fleet_keys::derived(fleet, TICKETS)?;
    Ok(TicketSecrets::new(secrets).expect("invariant: a keyring has at least one"))
}

fn read(path: &Path, listener: &Name) -> Result<TicketSecrets, TicketKeyError> {
    let secrets = secret::read(path).map_err(|source| TicketKeyError::Read {
        listener: listener.clone(),
        path: path.to_owned(),
        source: Unreadable(source),
    })?;
    let secrets = secrets.into_iter().map(secret::Secret::into_bytes);
    Ok(TicketSecrets::new(secrets).expect("invariant: secret::read gives at least one"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::fleet_keys::tests::fleet;
    use super::*;
    use crate::base::tls::{ServerSpec, TlsVersion};
    use crate::config::ListenerTls;

    fn config(tickets: bool, file: Option<&Path>) -> Config {
        let text = "[listeners.web]\nbind = '127.0.0.1:1'\nupstream = 'app'\n\
             [listeners.more]\nbind = '127.0.0.1:3'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['127.0.0.1:2']\n";
        let mut config = crate::config::parse("test", text).unwrap().config;
        let tls = Arc::new(ListenerTls {
            server: ServerSpec {
                certificates: Vec::new(),
                client_auth: None,
                min_version: TlsVersion::V12,
                alpn: Vec::new(),
            },
            tickets,
            ticket_secret_file: file.map(Path::to_owned),
            handshake_timeout: Duration::from_secs(10),
            client_headers: crate::config::ClientHeaders::default(),
        });
        for listener in &mut config.listeners {
            listener.tls = Some(tls.clone());
        }
        config
    }

    #[test]
    fn own_secret_is_made_once_and_shared_by_all_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(true, None);
        let mut reader = TicketKeyReader::new(Some(folder.path()));
        let first = reader.read(&config).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(first["web"], first["more"]);
        let path = folder.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut next = TicketKeyReader::new(Some(folder.path()));
        assert_eq!(next.read(&config).unwrap(), first, "after a restart");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn without_a_place_the_secret_lives_as_long_as_the_process() {
        let config = config(true, None);
        let mut reader = TicketKeyReader::new(None);
        let first = reader.read(&config).unwrap();
        assert_eq!(reader.read(&config).unwrap(), first);
        assert_ne!(TicketKeyReader::new(None).read(&config).unwrap(), first);
    }

    #[test]
    fn file_of_the_configuration_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        fs::write(&path, "a secret for tickets\n").unwrap();
        let config = config(true, Some(&path));
        let mut reader = TicketKeyReader::new(Some(folder.path()));
        let first = reader.read(&config).unwrap();
        assert_eq!(TicketKeyReader::new(None).read(&config).unwrap(), first);
        fs::write(&path, "a newer one for tickets\na secret for tickets\n").unwrap();
        assert_ne!(reader.read(&config).unwrap(), first);
        fs::write(&path, "short\n").unwrap();
        let error = reader.read(&config).unwrap_err().to_string();
        let text = format!(
            "the secret of the session tickets of listener `web` in {}: \
             its line 1 has 5 bytes, and a secret at least 16",
            path.display()
        );
        assert_eq!(error, text);
        assert!(!folder.path().join(FILE).exists());
    }

    #[test]
    fn sessions_of_a_fleet_are_resumed_at_every_peer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        fs::write(&path, "the secret of the fleet\n").unwrap();
        let with = |mut config: Config| {
            config.fleet = Some(fleet("edge", &path).into());
            config
        };
        let read = |config: &Config, state_dir: Option<&Path>| {
            TicketKeyReader::new(state_dir).read(config).unwrap()
        };
        let edge = with(config(true, None));
        let ours = read(&edge, Some(folder.path()));
        assert_eq!(ours["web"], ours["more"]);
        assert_eq!(read(&edge, None), ours, "another peer, without state");
        assert!(!folder.path().join(FILE).exists());
        assert_ne!(read(&config(true, None), Some(folder.path())), ours);
        // What the listener names wins.
        let own = folder.path().join("own");
        fs::write(&own, "a secret for tickets\n").unwrap();
        let named = config(true, Some(&own));
        assert_eq!(read(&with(named.clone()), None), read(&named, None));
        fs::write(
            &path,
            "the next one of the fleet\nthe secret of the fleet\n",
        )
        .unwrap();
        assert_ne!(read(&edge, None), ours, "read each time");
        fs::write(&path, "short\n").unwrap();
        let error = TicketKeyReader::new(None).read(&edge).unwrap_err();
        assert!(matches!(error, TicketKeyError::Fleet(_)), "{error}");
        assert!(read(&with(config(false, None)), None).is_empty());
    }

    #[test]
    fn nothing_is_made_for_who_does_not_need_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = TicketKeyReader::new(Some(folder.path()));
        assert!(reader.read(&config(false, None)).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = folder.path().join("missing");
        let error = TicketKeyReader::new(Some(&missing)).read(&config(true, None));
        assert!(matches!(error, Err(TicketKeyError::Make { .. })));
    }
}
