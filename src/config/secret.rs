//! Secrets in files of their own: a secret a line. The first is in use; the others were, and what
//! they signed still holds.
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
    #[error("it has more than {MAX_BYTES} bytes")]
    Long,
    /// More than anybody rotates.
    #[error("it has more than {MAX_SECRETS} lines")]
    Many,
    /// A folder, a pipe, a device: reading it might never end.
    #[error("it is not a file")]
    NotAFile,
    /// Nobody has to be clever to guess it.
    #[error("its line {line} has {bytes} bytes, and a secret at least {MIN_BYTES}")]
    Short {
        /// From 1.
        line: usize,
        /// How many it has.
        bytes: usize,
    },
}

/// 128 bits if every bit counts: what no search comes through.
const MIN_BYTES: usize = 16;

/// Far more than any keys have; a log or an image is found out.
const MAX_BYTES: usize = 16 * 1024;

/// The one in use, and those of the months before.
const MAX_SECRETS: usize = 8;

/// The lines of a file, without their ends: at least one. Empty ones after the first are passed over.
///
/// # Errors
/// See [`SecretError`].
pub(crate) fn read(path: &Path) -> Result<Vec<Secret>, SecretError> {
    if !std::fs::metadata(path).map_err(SecretError::Io)?.is_file() {
        return Err(SecretError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(SecretError::Io)?;
    if bytes.len() > MAX_BYTES {
        return Err(SecretError::Long);
    }
    let lines = bytes.split(|&b| b == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut secrets = Vec::new();
    for (line, secret) in (1..).zip(lines) {
        let bytes = secret.len();
        match bytes {
            0 if line > 1 => {}
            0..MIN_BYTES => return Err(SecretError::Short { line, bytes }),
            _ if secrets.len() == MAX_SECRETS => return Err(SecretError::Many),
            _ => secrets.push(Secret(secret.into())),
        }
    }
    Ok(secrets)
}

// === impl Secret ===

impl Secret {
    /// The secret itself.
    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_file_is_a_secret_and_the_first_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let of = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let secrets = of(b"0123456789abcdef\r\nthe key of last year\n\n").unwrap();
        let known: Vec<&[u8]> = secrets.iter().map(|s| &*s.0).collect();
        assert_eq!(known, [&b"0123456789abcdef"[..], b"the key of last year"]);
        assert_eq!(format!("{secrets:?}"), "[Secret(…), Secret(…)]");
        assert_eq!(of(&vec![b'x'; MAX_BYTES]).unwrap()[0].0.len(), MAX_BYTES);
        let long = of(&vec![b'x'; MAX_BYTES + 1]);
        assert!(matches!(long, Err(SecretError::Long)));
        let lines = |n| b"0123456789abcdef\n".repeat(n);
        assert_eq!(of(&lines(MAX_SECRETS)).unwrap().len(), MAX_SECRETS);
        let many = of(&lines(MAX_SECRETS + 1));
        assert!(matches!(many, Err(SecretError::Many)));
        for short in [&b""[..], b"\n0123456789abcdef", b"0123456789abcde\n"] {
            assert!(matches!(of(short), Err(SecretError::Short { line: 1, .. })));
        }
        let short = of(b"0123456789abcdef\n\nshort\n").unwrap_err();
        let text = "its line 3 has 5 bytes, and a secret at least 16";
        assert_eq!(short.to_string(), text);
        assert!(matches!(read(folder.path()), Err(SecretError::NotAFile)));
        let gone = folder.path().join("gone");
        assert!(matches!(read(&gone), Err(SecretError::Io(_))));
    }
}
