//! Secrets in files of their own: the first line of one, whatever it is used for.
//!
//! The configuration holds paths, so that no secret is shown or compared. `lower` reads each file
//! once to tell what is wrong with it; who needs the secret reads it again when it is needed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What a secret file holds; never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<[u8]>);

/// Why a file holds no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// A file of something else.
    #[error("its first line is longer than {MAX_BYTES} bytes")]
    Long,
    /// A folder, a pipe, a device: reading it might never end.
    #[error("it is not a file")]
    NotAFile,
    /// Nobody has to be clever to guess it.
    #[error("its first line has {bytes} bytes, and a secret at least {MIN_BYTES}")]
    Short {
        /// How many it has.
        bytes: usize,
    },
}

/// 128 bits if every bit counts: what no search comes through.
const MIN_BYTES: usize = 16;

/// Far more than any key has; a log or an image is found out.
const MAX_BYTES: usize = 4096;

/// The first line of a file, without its end.
///
/// # Errors
/// See [`SecretError`].
pub(crate) fn read(path: &Path) -> Result<Secret, SecretError> {
    if !std::fs::metadata(path).map_err(SecretError::Io)?.is_file() {
        return Err(SecretError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 2).read_to_end(&mut bytes))
        .map_err(SecretError::Io)?;
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.len() {
        bytes if bytes < MIN_BYTES => Err(SecretError::Short { bytes }),
        bytes if bytes > MAX_BYTES => Err(SecretError::Long),
        _ => Ok(Secret(line.into())),
    }
}

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_of_a_file_is_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let of = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let secret = of(b"0123456789abcdef\r\nthe key of last year\n").unwrap();
        assert_eq!(&*secret.0, b"0123456789abcdef");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(of(&[b'x'; MAX_BYTES]).unwrap().0.len(), MAX_BYTES);
        let long = of(&[b'x'; MAX_BYTES + 1]);
        assert!(matches!(long, Err(SecretError::Long)));
        for short in [&b""[..], b"\n0123456789abcdef", b"0123456789abcde\n"] {
            assert!(matches!(of(short), Err(SecretError::Short { .. })));
        }
        assert!(matches!(read(folder.path()), Err(SecretError::NotAFile)));
        let gone = folder.path().join("gone");
        assert!(matches!(read(&gone), Err(SecretError::Io(_))));
    }
}
