//! Files that are written whole, and set aside where they cannot be understood.
//!
//! Put in place by a rename, so that a reader (the next process of an upgrade, or the one after a power cut)
//! sees what was there before or what is there now, never a half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Which step of [`replace`] failed.
#[derive(Debug)]
pub enum Unsaved {
    /// The writing: the file is as before.
    Written(io::Error),
    /// The flush of the folder: the file is the new one, but after a power cut it may be that of before.
    Flushed(io::Error),
}

/// Reads a file, at most one byte more than `max_bytes`, so that the caller sees that there was more.
///
/// # Errors
/// What the system said.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file, readable for its owner alone. Blocks for two flushes of the disk: not for the thread of a
/// worker.
///
/// # Errors
/// [`Unsaved`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Unsaved> {
    let invalid = || Unsaved::Written(ErrorKind::InvalidInput.into());
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid());
    };
    // Two processes meet here during an upgrade: each has a file of its own until the rename.
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = folder.join(temporary);
    if let Err(e) = write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path)) {
        // What is half written helps nobody; if it cannot be removed, the next one takes its place.
        let _ = fs::remove_file(&temporary);
        return Err(Unsaved::Written(e));
    }
    flush_folder(folder).map_err(Unsaved::Flushed)
}

/// Flushes what files are in a folder, where its file system can. Blocks for the disk.
///
/// # Errors
/// What the system said.
pub fn flush_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot flush folders: fsync(2).
        Err(e) if e.kind() != ErrorKind::InvalidInput => Err(e),
        _ => Ok(()),
    }
}

/// Renames to the first free of `NAME.bad`, `NAME.bad.2`, …
///
/// # Errors
/// What the system said, or that a hundred are there.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    // A hundred damaged files that nobody looked at: more would hide the first.
    for n in 1..=100 {
        let mut name = path.as_os_str().to_owned();
        name.push(".bad");
        if n > 1 {
            name.push(format!(".{n}"));
        }
        // Only this process, in its start, puts files here: the name cannot be taken in between.
        match fs::symlink_metadata(&name) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::rename(path, &name)?;
                return Ok(name.into());
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(
        ErrorKind::AlreadyExists,
        "there are a hundred files set aside already",
    ))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
