//! Connecting to a Unix socket whose queue may be full.
//!
//! A blocking connect(2) waits for room there. One that does not block says `EAGAIN` at once, and no event
//! tells of room that is made later, so all that is left is to ask again.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::sleep;

/// Before it is asked for the second time: a server that takes 1,000 connections a second has made room
/// for five.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Each pause is twice the one before, up to this: 1,000 who wait ask 25,000 times a second, which is a
/// tenth of a core at the 4 us of socket(2), connect(2) and close(2); and still at least twice within a
/// tick of the timers, so that no deadline passes without a try.
const LAST_PAUSE: Duration = Duration::from_millis(40);

/// Connects to the socket at `path`, and while its queue is full waits for room: the caller bounds how
/// long. Cancel-safe: dropping the future closes the socket.
///
/// # Errors
/// Whatever else connect(2) says.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            connected => return connected,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::time::timeout;

    use super::*;

    /// Far above what a busy machine needs.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A listener with a queue of its shortest, and those who fill it.
    fn full(path: &Path) -> (UnixListener, Vec<Socket>) {
        let address = SockAddr::unix(path).unwrap();
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(1).unwrap();
        let mut queued = Vec::new();
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            match socket.connect(&address) {
                Ok(()) => queued.push(socket),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return (listener.into(), queued);
                }
                Err(e) => panic!("connect: {e}"),
            }
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.sock");
        let (listener, queued) = full(&path);
        // For longer than several pauses.
        let waited = timeout(4 * LAST_PAUSE, connect(&path)).await;
        assert!(waited.is_err(), "{waited:?}");
        let mut connecting = Box::pin(connect(&path));
        let at_once = timeout(Duration::ZERO, &mut connecting).await;
        assert!(at_once.is_err(), "{at_once:?}");
        for _ in queued {
            listener.accept().unwrap();
        }
        timeout(PATIENCE, connecting).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nothing_else_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone.sock");
        let refused = |wanted| {
            let connecting = timeout(PATIENCE, connect(&path));
            async move { assert_eq!(connecting.await.unwrap().unwrap_err().kind(), wanted) }
        };
        refused(io::ErrorKind::NotFound).await;
        drop(UnixListener::bind(&path).unwrap());
        refused(io::ErrorKind::ConnectionRefused).await;
    }
}
