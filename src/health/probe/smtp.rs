//! The greeting of a mail server and its answer to EHLO (RFC 5321 sections 3.1 and 4.2).

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Failure, quoted, read_until};

/// Waits for 220, says EHLO, waits for 250, says QUIT.
pub(super) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Failure> {
    reply(&mut stream, b"220").await?;
    let hello = b"EHLO isobar.invalid\r\n";
    stream.write_all(hello).await.map_err(|_| Failure::Closed)?;
    reply(&mut stream, b"250").await?;
    // Best effort: the answer is there.
    let _ = stream.write_all(b"QUIT\r\n").await;
    Ok(())
}

/// Reads a reply to its last line, which has a space after the code.
async fn reply(stream: &mut (impl AsyncRead + Unpin), code: &[u8]) -> Result<(), Failure> {
    read_until(stream, "SMTP", |answer| {
        let mut rest = answer;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line = &rest[..end];
            if !line.starts_with(code) {
                return Err(Failure::Protocol(quoted(line)));
            }
            if line.get(code.len()) != Some(&b'-') {
                return Ok(Some(()));
            }
            rest = &rest[end + 1..];
        }
        Ok(None)
    })
    .await
}
