//! `isobar schema`

use std::io::Write;

/// Writes the JSON Schema of configuration files; returns the exit code: 0, or 2 when `out` fails.
pub(super) fn schema(out: &mut dyn Write) -> u8 {
    let written = out
        .write_all(crate::config::schema().as_bytes())
        .and_then(|()| out.flush());
    if written.is_ok() { 0 } else { 2 }
}
