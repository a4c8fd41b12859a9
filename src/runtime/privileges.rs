//! Giving up root: `process.user`, once everything is bound.
//!
//! The C library applies the change to every thread of the process, so it does not matter which
//! threads run already; it comes before the first connection is accepted all the same.
//!
//! What goes with root is every capability: a listener below port 1024 that a later reload adds
//! cannot be bound, and says so ([`BindError::Permission`](crate::listener::BindError)). Who needs
//! that starts isobar as an ordinary user with `CAP_NET_BIND_SERVICE`, as the unit file under
//! `config/systemd/` does; then `process.user` is not needed. An upgrade is not affected: the
//! successor inherits the sockets.

use std::ffi::CString;
use std::io;

use nix::unistd::{
    Gid, Uid, User, getgrouplist, getresgid, getresuid, setgroups, setresgid, setresuid,
};
use thiserror::Error;

/// What became of the privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// This process is the user already, and not root.
    Already,
    /// It was root, and is the user from now on.
    Now {
        /// The user's number.
        uid: u32,
        /// Of its main group.
        gid: u32,
    },
}

/// Why the process is still who it was, unless said otherwise.
#[derive(Debug, Error)]
pub enum PrivilegesError {
    /// The look-up failed: for another reason than that the user is not there.
    #[error("user `{user}` cannot be looked up")]
    LookUp {
        /// The user.
        user: String,
        /// What the system said.
        source: io::Error,
    },
    /// Only root can become somebody else. Serving goes on: a warning.
    #[error(
        "not started as root, so `process.user = \"{user}\"` has no effect: this is user {uid}"
    )]
    NotRoot {
        /// The user.
        user: String,
        /// Who it is instead.
        uid: u32,
    },
    /// The system refused one of the steps: the process may be half the user and must end.
    #[error("cannot become user `{user}`")]
    Refused {
        /// The user.
        user: String,
        /// What the system said.
        source: io::Error,
    },
    /// No such user.
    #[error(
        "there is no user `{user}`: create it (`useradd --system {user}`), or change process.user"
    )]
    Unknown {
        /// The user.
        user: String,
    },
}

/// Turns this process, all its threads, into `user` with its groups, for good.
///
/// # Errors
/// [`PrivilegesError`]; after `Refused` the process must end, after the others it is as before.
pub fn drop_to(user: &str) -> Result<Dropped, PrivilegesError> {
    let named = || user.to_owned();
    let found = User::from_name(user).map_err(|e| PrivilegesError::LookUp {
        user: named(),
        source: e.into(),
    })?;
    let Some(found) = found else {
        return Err(PrivilegesError::Unknown { user: named() });
    };
    let is = Uid::effective();
    if !is.is_root() {
        if is == found.uid {
            return Ok(Dropped::Already);
        }
        return Err(PrivilegesError::NotRoot {
            user: named(),
            uid: is.as_raw(),
        });
    }
    become_user(&found).map_err(|source| PrivilegesError::Refused {
        user: named(),
        source,
    })?;
    Ok(Dropped::Now {
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    })
}

/// Groups first, while the right to change them is there; the user last, all three identities: a
/// saved one would be a way back.
fn become_user(user: &User) -> io::Result<()> {
    let (uid, gid) = (user.uid, user.gid);
    let name = CString::new(user.name.as_str())?;
    let groups: Vec<Gid> = getgrouplist(&name, gid)?;
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Believed only when seen: a process that is still root in part would be a hole.
    let (uids, gids) = (getresuid()?, getresgid()?);
    let is_done = [uids.real, uids.effective, uids.saved] == [uid; 3]
        && [gids.real, gids.effective, gids.saved] == [gid; 3];
    if !is_done || (!uid.is_root() && setresuid(uid, Uid::from_raw(0), uid).is_ok()) {
        return Err(io::Error::other("the system kept some of root's rights"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_user_is_named() {
        let error = drop_to("no-such-user-isobar").unwrap_err();
        assert!(matches!(error, PrivilegesError::Unknown { .. }));
        assert_eq!(
            error.to_string(),
            "there is no user `no-such-user-isobar`: create it \
             (`useradd --system no-such-user-isobar`), or change process.user"
        );
    }

    #[test]
    fn name_with_a_zero_byte_is_no_user() {
        assert!(drop_to("a\0b").is_err());
    }
}
