//! `fleet keygen`: 256 random bits.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::rand;

use crate::fleet::seal;

use super::Failure;

/// To standard output, and nothing else: it may be a pipe.
pub(super) fn print(out: &mut dyn Write) -> Result<(), Failure> {
    Ok(out.write_all(secret()?.as_bytes())?)
}

/// To a file that is not there yet.
pub(super) fn make(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let secret = secret()?;
    let shown = path.display();
    write(path, &secret).map_err(|error| {
        Failure::Refused(match error.kind() {
            ErrorKind::AlreadyExists => format!(
                "{shown} is there already, and is not overwritten: to replace a secret, add a line \
                 to it (`isobar fleet keygen --help`)"
            ),
            _ => format!("{shown} cannot be made: {error}"),
        })
    })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    writeln!(
        out,
        "{shown} is made, for its owner alone (mode 600).\n\
         Copy it to every peer, for the user that isobar runs as there, and name it in its file:\n\n  \
         [fleet]\n  secret_file = {:?}",
        absolute.display().to_string()
    )?;
    Ok(())
}

fn secret() -> Result<String, Failure> {
    let mut random = [0; 32];
    rand::fill(&mut random)
        .map_err(|_| Failure::Refused("the system gives no random bytes".to_owned()))?;
    Ok(seal::keygen(random))
}

/// Whole or not at all.
fn write(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file
        .write_all(secret.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a secret is none; who removed it in between has done what is wanted.
        let _ = fs::remove_file(path);
    }
    written
}
