//! A raw client of the control socket: bytes in, one answer out, with a deadline.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{DEADLINE, deadline, remaining};

/// Where a server's control socket is.
#[derive(Clone, Debug)]
pub struct Control {
    pub path: PathBuf,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

// === impl Control ===

impl Control {
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
        }
    }

    #[track_caller]
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path)
            .unwrap_or_else(|e| panic!("connect to {}: {e}", self.path.display()));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "")
    }

    /// The JSON of an answer that must be a 200.
    #[track_caller]
    pub fn json(&self, target: &str) -> Value {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        answer.json()
    }

    /// With a body, as JSON, if it is not empty.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        let kind = match body {
            "" => "",
            _ => "content-type: application/json\r\n",
        };
        self.send(&format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{kind}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// These bytes on a connection of their own, then all that comes.
    #[track_caller]
    pub fn send(&self, bytes: &str) -> Answer {
        let mut stream = self.connect();
        // It may have been answered, and closed, before it was whole.
        let _ = stream.write_all(bytes.as_bytes());
        Answer::read(&mut stream)
    }

    /// These bytes and the end of what is sent.
    #[track_caller]
    pub fn send_and_finish(&self, bytes: &str) -> Answer {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        Answer::read(&mut stream)
    }
}

// === impl Answer ===

impl Answer {
    /// All that comes until the end, which is an answer or nothing.
    #[track_caller]
    pub fn read(stream: &mut UnixStream) -> Self {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        let end = deadline();
        loop {
            stream
                .set_read_timeout(Some(remaining(end, "the end of an answer")))
                .unwrap();
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => all.extend_from_slice(&piece[..n]),
                // Closed with something of ours unread, after its answer.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(e) => panic!("awaiting an answer: {e}"),
            }
        }
        let text = String::from_utf8(all).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert_eq!(text, "", "half a head");
            return Self {
                status: 0,
                head: String::new(),
                body: String::new(),
            };
        };
        Self {
            status: head[9..12].parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Status and `code` of a problem.
    #[track_caller]
    pub fn problem(&self) -> (u16, String) {
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{} {}",
            self.head,
            self.body
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["type"], "about:blank");
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}
