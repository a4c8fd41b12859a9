//! The startup of a PostgreSQL connection (frontend/backend protocol 3.0, "Start-up").

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Failure, quoted, read_until};

/// Length, version 3.0, then parameters.
const STARTUP: &[u8] = b"\x00\x00\x00\x46\x00\x03\x00\x00user\0isobar\0database\0postgres\0application_name\0isobar-health\0\0";

/// Terminate.
const GOODBYE: &[u8] = b"X\x00\x00\x00\x04";

/// Introduces itself as user `isobar`. A server that asks who we are, or refuses that user, takes
/// connections: it is well. One that is starting, stopping or full says so.
pub(super) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Failure> {
    stream
        .write_all(STARTUP)
        .await
        .map_err(|_| Failure::Closed)?;
    read_until(&mut stream, "PostgreSQL", |answer| {
        match answer.first() {
            // An authentication request, or that protocol options were not understood.
            Some(b'R' | b'v') => Ok(Some(())),
            Some(b'E') => error(answer),
            _ => Err(Failure::Protocol("the answer is not PostgreSQL".to_owned())),
        }
    })
    .await?;
    // Best effort: the answer is there.
    let _ = stream.write_all(GOODBYE).await;
    Ok(())
}

/// An `ErrorResponse`: fields of a type byte and a text that ends with NUL.
fn error(answer: &[u8]) -> Result<Option<()>, Failure> {
    let Some(length) = answer.get(1..5).and_then(|b| <[u8; 4]>::try_from(b).ok()) else {
        return Ok(None);
    };
    let end = 1usize.saturating_add(u32::from_be_bytes(length) as usize);
    let Some(fields) = answer.get(5..end) else {
        return if end < 5 {
            Err(Failure::Protocol("the answer is not PostgreSQL".to_owned()))
        } else {
            Ok(None)
        };
    };
    let field = |kind: u8| {
        fields
            .split(|b| *b == 0)
            .find_map(|f| f.strip_prefix(&[kind]))
            .unwrap_or_default()
    };
    // Appendix A: classes 28 (who you are) and 3D (which database) are about us, not the server.
    match field(b'C') {
        [b'2', b'8', ..] | [b'3', b'D', ..] => Ok(Some(())),
        code => Err(Failure::Protocol(format!(
            "{} ({})",
            quoted(field(b'M')),
            quoted(code)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_says_its_own_length() {
        assert_eq!(STARTUP[..4], (STARTUP.len() as u32).to_be_bytes());
    }
}
