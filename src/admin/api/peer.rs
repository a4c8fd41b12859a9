//! Who is at the other end of the socket, as the kernel says.

use std::io;

use nix::unistd::User;
use rustix::process::geteuid;
use tokio::net::UnixStream;

/// A process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its effective user when it connected.
    pub(super) uid: u32,
    /// Its id, if the kernel told; it may be another process's by now.
    pub(super) pid: Option<i32>,
}

/// Who may use the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    uids: Vec<u32>,
    /// The user of the server, to whom the file belongs.
    server: u32,
}

// === impl Peer ===

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            pid: credentials.pid(),
        })
    }

    /// Whether it could read whatever this process can read.
    pub(super) fn may_read_as_server(self) -> bool {
        self.uid == 0 || self.uid == own_uid()
    }
}

// === impl Allowed ===

impl Allowed {
    /// `uids`, or root and the user that the server runs as if there are none.
    pub(super) fn new(uids: &[u32], server: u32) -> Self {
        let uids = match uids {
            [] => vec![0, server],
            uids => uids.to_vec(),
        };
        Self { uids, server }
    }

    pub(super) fn has(&self, peer: Peer) -> bool {
        self.uids.contains(&peer.uid)
    }

    /// The mode of the socket's file, which belongs to the user of the server. Connecting takes the
    /// right to write. 0600 lets in that user, and root, whom no mode keeps out. Other users can
    /// only be let in together with everybody: then [`has`](Self::has) is the guard, and the mode of
    /// the folder.
    pub(super) fn mode(&self) -> u32 {
        let is_usual = |uid: &u32| *uid == 0 || *uid == self.server;
        if self.uids.iter().all(is_usual) {
            0o600
        } else {
            0o666
        }
    }
}

/// The user that this process runs as: `user` from when it gives up root, which is after the start.
/// One that cannot be found is an error then, and not here.
pub(super) fn server_uid(user: Option<&str>) -> u32 {
    let own = own_uid();
    match user {
        Some(user) if own == 0 => {
            let found = User::from_name(user).ok().flatten();
            found.map_or(own, |found| found.uid.as_raw())
        }
        Some(_) | None => own,
    }
}

fn own_uid() -> u32 {
    geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user that the server runs as, in these tests.
    const SERVER: u32 = 100;

    fn peer(uid: u32) -> Peer {
        Peer { uid, pid: None }
    }

    #[test]
    fn nobody_named_is_root_and_the_server() {
        let allowed = Allowed::new(&[], SERVER);
        assert!(allowed.has(peer(0)) && allowed.has(peer(SERVER)));
        assert!(!allowed.has(peer(SERVER + 1)));
        assert_eq!(allowed.mode(), 0o600);
    }

    #[test]
    fn the_file_is_open_only_if_another_user_is_allowed() {
        for (uids, mode) in [
            (&[0][..], 0o600),
            (&[0, SERVER], 0o600),
            (&[SERVER, 7], 0o666),
            (&[7], 0o666),
        ] {
            assert_eq!(Allowed::new(uids, SERVER).mode(), mode, "{uids:?}");
        }
        let only_other = Allowed::new(&[7], SERVER);
        assert!(only_other.has(peer(7)));
        assert!(!only_other.has(peer(SERVER)) && !only_other.has(peer(0)));
    }

    #[test]
    fn a_user_that_is_not_there_is_nobody_else() {
        assert_eq!(server_uid(None), own_uid());
        assert_eq!(server_uid(Some("no-such-user-isobar")), own_uid());
    }
}
