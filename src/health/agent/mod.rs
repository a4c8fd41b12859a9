//! Endpoints that speak for themselves: what they say ([`line`](mod@line)), and asking their agents.

pub mod line;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::base::addr::EndpointAddr;
use crate::config::{AgentSpec, Name};
use crate::upstream::Endpoint;
use crate::upstream::said::Words;

use super::probe::{Failure, quoted, read_until, tcp};
use line::MAX_LINE;

/// An endpoint has spoken of itself.
#[derive(Debug)]
pub struct Heard {
    /// Its upstream.
    pub upstream: Name,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What it said.
    pub words: Words,
    /// Where it said so, and how, for people.
    pub why: String,
}

/// What an agent answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) words: Words,
    /// The line as it came, fit for a log line.
    pub(super) line: String,
    /// The first word that means nothing.
    pub(super) unknown: Option<String>,
}

/// Asks the agent of the endpoint at `addr` once, for at most `spec.timeout`. Dropping the future
/// closes the connection.
///
/// # Errors
/// Why there is no answer; nothing that the endpoint has said before changes by that.
pub(super) async fn ask(spec: &AgentSpec, addr: &EndpointAddr) -> Result<Answer, Failure> {
    let late = |what| Failure::Timeout {
        what,
        after: spec.timeout,
    };
    let (EndpointAddr::Ip(addr), Some(port)) = (addr, spec.port) else {
        let why = "an agent is asked at a port, and this endpoint has none";
        return Err(Failure::Protocol(why.to_owned()));
    };
    let asked = async {
        let stream = tcp(SocketAddr::new(addr.ip(), port.get())).await?;
        converse(spec.send.as_deref(), stream).await
    };
    timeout(spec.timeout, asked)
        .await
        .map_err(|_| late("no line"))?
}

/// What the agent at the other end says.
async fn converse(
    send: Option<&str>,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Answer, Failure> {
    if let Some(send) = send {
        let sent = stream.write_all(send.as_bytes()).await;
        sent.map_err(|_| Failure::Closed)?;
    }
    read_until(&mut stream, "the line of an agent", |answer| {
        let Some(line) = line::first(answer) else {
            return if answer.len() > MAX_LINE {
                Err(Failure::Protocol("its line is too long".to_owned()))
            } else {
                Ok(None)
            };
        };
        let understood = line::parse(line);
        Ok(Some(Answer {
            words: understood.words,
            line: quoted(line),
            unknown: understood.unknown.map(quoted),
        }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;
    use crate::telemetry::metrics::cells::CheckResult;
    use crate::upstream::said::Said;

    /// What is understood of an agent that says this, then ends the connection; and what it was
    /// asked.
    fn of(send: Option<&str>, says: &[u8]) -> (Result<Answer, Failure>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(1 << 16);
            let agent = async {
                theirs.write_all(says).await.unwrap();
                theirs.shutdown().await.unwrap();
                let mut asked = String::new();
                theirs.read_to_string(&mut asked).await.unwrap();
                asked
            };
            tokio::join!(converse(send, ours), agent)
        })
    }

    #[test]
    fn a_line_is_an_answer_when_it_has_ended() {
        let (answer, asked) = of(Some("app\n"), b"drain 75% # soon\r\nmore");
        let answer = answer.unwrap();
        assert_eq!(asked, "app\n");
        assert_eq!(Said::default().with(&answer.words).to_string(), "drain 75%");
        assert_eq!(answer.line, "drain 75% # soon");
        assert_eq!(answer.unknown, None);
        let whole = b"maxconn:30\n";
        for cut in 0..whole.len() {
            let (answer, asked) = of(None, &whole[..cut]);
            assert_eq!(answer.unwrap_err().result(), CheckResult::Closed, "{cut}");
            assert_eq!(asked, "");
        }
    }

    #[test]
    fn what_is_no_agent_is_told_from_one() {
        let (answer, _) = of(None, b"\x1b[2J up\n");
        let answer = answer.unwrap();
        assert_eq!(answer.unknown.unwrap(), "\\u{1b}[2J");
        assert_eq!(answer.line, "\\u{1b}[2J up");
        let (answer, _) = of(None, &[b'x'; 3000]);
        assert_eq!(answer.unwrap_err().result(), CheckResult::Protocol);
    }
}
