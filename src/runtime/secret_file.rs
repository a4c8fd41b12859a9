//! Secret files of this program's own in `state_dir`: made when they are first needed, and once.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

use crate::base::file::flush_folder;
use crate::config::secret::SecretError;
use crate::fleet::seal::keygen;

/// What is wrong with a file of secrets.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unreadable(#[source] pub(super) SecretError);

/// Makes `folder/name` if nothing is there. What is in it counts then, whoever wrote it.
///
/// # Errors
/// What the system said; then there is no file.
pub(super) fn make_once(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let path = folder.join(name);
    // Somebody's link to nowhere is there too: it is read, which says what is wrong.
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => make(folder, name, &path)?,
        _ => {}
    }
    Ok(path)
}

/// 256 random bits.
///
/// # Errors
/// The kernel has not gathered enough at boot.
pub(super) fn random() -> io::Result<[u8; 32]> {
    let mut key = [0_u8; 32];
    // Up to 256 bytes come whole once the kernel has gathered enough at boot: getrandom(2).
    let count = getrandom(&mut key, GetRandomFlags::empty())?;
    if count != key.len() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(key)
}

/// Makes the file: whole or not at all, and never in the place of another.
fn make(folder: &Path, name: &str, path: &Path) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let made = write(&temporary, folder).and_then(|()| match fs::hard_link(&temporary, path) {
        // Another process was quicker: its key is as good.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // A file system without links. Nobody else is at it: an upgrade's first process has made the
        // file before it has a second.
        Err(_) => fs::rename(&temporary, path),
        Ok(()) => Ok(()),
    });
    // Renamed or not written it is not there; if it cannot be removed, the next one takes it.
    let _ = fs::remove_file(&temporary);
    made?;
    flush_folder(folder)
}

/// 256 random bits as a line of text: an operator may copy it to other machines.
fn write(path: &Path, folder: &Path) -> io::Result<()> {
    let line = keygen(random()?);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // Root, before it becomes `process.user`: the file is for whoever owns the folder.
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(folder)?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
