//! PING (Redis serialization protocol).

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Failure, quoted, read_until};

/// Says PING. A server that wants a password first is well: it answers. One that is loading its data
/// set, or is a replica without its master, says so with another error, and is not.
pub(super) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Failure> {
    stream
        .write_all(b"*1\r\n$4\r\nPING\r\n")
        .await
        .map_err(|_| Failure::Closed)?;
    read_until(&mut stream, "Redis", |answer| {
        let wanted = [&b"+PONG\r\n"[..], b"-NOAUTH "];
        if wanted.iter().any(|wanted| answer.starts_with(wanted)) {
            return Ok(Some(()));
        }
        let is_possible = wanted.iter().any(|wanted| wanted.starts_with(answer));
        let is_error = answer.first() == Some(&b'-');
        match answer.iter().position(|b| *b == b'\n') {
            Some(end) if is_error => Err(Failure::Protocol(quoted(&answer[1..end]))),
            None if is_possible || is_error => Ok(None),
            _ => Err(Failure::Protocol("the answer is not PONG".to_owned())),
        }
    })
    .await
}
