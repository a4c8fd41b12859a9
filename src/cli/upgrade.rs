//! Replacing the binary: the predecessor starts a successor, hands its listening sockets over, and
//! drains once the successor serves. Nothing is refused, nothing is lost, and a successor that does
//! not come up changes nothing. The course of it: [`crate::listener::handover`].

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::base::systemd;
use crate::listener::handover::{self, Inherited, Message};
use crate::server::Server;

/// A successor that serves, and waits for our word.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    stream: UnixStream,
}

/// How a successor was started.
#[derive(Debug)]
pub(super) struct Handed {
    /// The sockets.
    pub(super) inherited: Inherited,
    /// The way to the predecessor.
    pub(super) predecessor: Predecessor,
}

/// The way to the predecessor.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

/// Time for a successor to come up: to check 10,000 routes takes a second, a machine that is busy
/// ten times that, a cold disk some more.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Time for what is only written and read: the other process is there and waits for it.
const SAY_WITHIN: Duration = Duration::from_secs(10);

/// Starts a successor: the same program (as it is on disk now) with the same arguments.
///
/// # Errors
/// Why there is none, for people; this process serves on as before. Blocks for as long as a
/// successor may take to come up.
pub(super) fn start(server: &Server) -> Result<Successor, String> {
    // By the name that it was started with: a link that was changed leads to the new version, where
    // the path of the running program would lead to the old one.
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| OsString::from("isobar"));
    let (ours, theirs) = UnixStream::pair().map_err(|e| format!("no socket pair: {e}"))?;
    let (manifest, descriptors) = server
        .hand_over()
        .map_err(|e| format!("the listening sockets cannot be copied: {e}"))?;
    let mut command = Command::new(&program);
    for name in systemd::OF_ONE_PROCESS {
        command.env_remove(name);
    }
    command
        .args(args)
        .env(handover::ENV, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    let child = command
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    // The command holds the other end too: without this its close would not be seen.
    drop(command);
    let mut successor = Successor {
        child,
        stream: ours,
    };
    let fds: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let stream = &successor.stream;
    let heard = handover::send(stream, &manifest, &fds, SAY_WITHIN)
        .and_then(|()| handover::hear(stream, READY_WITHIN));
    match heard {
        Ok(Message::Ready) => Ok(successor),
        Ok(Message::Failed(why)) => Err(successor.end(&why)),
        Ok(Message::Go | Message::Stop(_)) => Err(successor.end("it does not speak as it should")),
        Err(error) => Err(successor.end(&error.to_string())),
    }
}

/// What a predecessor hands to this process; `None` = there is no predecessor.
///
/// # Errors
/// There is one, and it does not hand over.
pub(super) fn inherit() -> Result<Option<Handed>, String> {
    if std::env::var_os(handover::ENV).is_none() {
        return Ok(None);
    }
    let stream = handover::from_stdin().map_err(|e| e.to_string())?;
    let inherited = handover::receive(&stream, SAY_WITHIN).map_err(|e| e.to_string())?;
    Ok(Some(Handed {
        inherited,
        predecessor: Predecessor(stream),
    }))
}

// === impl Successor ===

impl Successor {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it that all is its own now.
    ///
    /// # Errors
    /// It has ended meanwhile.
    pub(super) fn go(mut self) -> Result<(), String> {
        handover::say(&self.stream, &Message::Go, SAY_WITHIN)
            .map_err(|error| self.end(&error.to_string()))
    }

    /// Ends it; the reason in words.
    fn end(&mut self, why: &str) -> String {
        let stop = Message::Stop(why.to_owned());
        let _ = handover::say(&self.stream, &stop, SAY_WITHIN);
        // It was told, but may not hear any more; it has served nothing that is not served here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        format!("process {} did not take over: {why}", self.child.id())
    }
}

// === impl Predecessor ===

impl Predecessor {
    /// This process serves: waits for the word that all is its own.
    ///
    /// One that is gone without a word, or says nothing for ten seconds, has left all to us: else
    /// nobody would serve.
    ///
    /// # Errors
    /// The predecessor goes on itself.
    pub(super) fn ready(&self) -> Result<(), String> {
        handover::say(&self.0, &Message::Ready, SAY_WITHIN).map_err(|e| e.to_string())?;
        match handover::hear(&self.0, SAY_WITHIN) {
            Ok(Message::Go) => Ok(()),
            Ok(Message::Stop(why)) => Err(why),
            Ok(Message::Failed(_) | Message::Ready) => Err("unexpected word".to_owned()),
            Err(error) => {
                tracing::warn!("upgrade: no word from the predecessor: {error}; serving on");
                Ok(())
            }
        }
    }

    /// This process cannot serve.
    pub(super) fn failed(&self, why: &str) {
        let _ = handover::say(&self.0, &Message::Failed(why.to_owned()), SAY_WITHIN);
    }
}
