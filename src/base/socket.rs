//! Reading from sockets of TCP and writing to them without a detour: the calls as the kernel has them (those of
//! libc are points where a thread can be cancelled, which is two atomic operations each), and the reactor told
//! of the outcome in the same step.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there into the room that `lend` gives; that is asked for only if the reactor has told of
/// something. `Ok(0)` is the end. `WouldBlock`: nothing is there, and who waits for more has yet to say so.
pub fn recv<'a>(socket: &TcpStream, lend: impl FnOnce() -> &'a mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    let read = socket.try_io(Interest::READABLE, || {
        let into = lend();
        let (n, _) = rustix::net::recv(socket, &mut *into, RecvFlags::empty())?;
        got = n;
        // A short read tells that there is no more (epoll(7)), so that the next one is not tried.
        if 0 < n && n < into.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    if got > 0 { Ok(got) } else { read }
}

/// Writes what is taken of `bytes`. After `Pending` the same bytes are to be written again.
pub fn poll_send(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        let mut sent = 0;
        let written = socket.try_io(Interest::WRITABLE, || {
            sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?;
            // One that was cut short found the kernel's buffer full.
            if 0 < sent && sent < bytes.len() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(sent)
        });
        match written {
            _ if sent > 0 => return Poll::Ready(Ok(sent)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                ready!(socket.poll_write_ready(cx))?;
            }
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (accepted.unwrap().0, client.unwrap())
    }

    /// What is read once something is there, and how often room was asked for.
    async fn read(socket: &TcpStream, room: usize) -> (io::Result<Vec<u8>>, usize) {
        let (mut bytes, mut asked) = (vec![0; room], 0);
        let read = poll_fn(|cx| {
            loop {
                let into = &mut bytes[..];
                let read = recv(socket, || {
                    asked += 1;
                    into
                });
                match read {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        ready!(socket.poll_read_ready(cx))?;
                    }
                    read => return Poll::Ready(read),
                }
            }
        });
        let read = read.await;
        (read.map(|n| bytes[..n].to_vec()), asked)
    }

    #[tokio::test]
    async fn a_short_read_is_the_last_until_more_comes() {
        let (here, mut there) = pair().await;
        there.write_all(b"some words").await.unwrap();
        assert_eq!(read(&here, 4).await.0.unwrap(), b"some");
        // Full: there may be more.
        assert_eq!(read(&here, 64).await.0.unwrap(), b" words");
        let nothing = recv(&here, || panic!("nothing was told of"));
        assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        there.write_all(b"more").await.unwrap();
        assert_eq!(read(&here, 64).await.0.unwrap(), b"more");
    }

    #[tokio::test]
    async fn an_end_is_told_again_and_again_and_a_reset_once() {
        let (here, mut there) = pair().await;
        there.write_all(b"last").await.unwrap();
        there.shutdown().await.unwrap();
        assert_eq!(read(&here, 64).await.0.unwrap(), b"last");
        assert_eq!(read(&here, 64).await.0.unwrap(), b"");
        assert_eq!(read(&here, 64).await.0.unwrap(), b"");
        let (here, there) = pair().await;
        there.set_zero_linger().unwrap();
        drop(there);
        let reset = read(&here, 64).await.0.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_is_not_taken_is_written_once_there_is_room() {
        let (here, mut there) = pair().await;
        let said: Vec<u8> = (0..8 << 20).map(|n| (n % 251) as u8).collect();
        let writing = async {
            let mut left = &said[..];
            while !left.is_empty() {
                let n = poll_fn(|cx| poll_send(&here, cx, left)).await.unwrap();
                left = &left[n..];
            }
        };
        let mut heard = vec![0; said.len()];
        let ((), read) = tokio::join!(writing, there.read_exact(&mut heard));
        read.unwrap();
        assert_eq!(heard, said);
        drop(there);
        let gone = poll_fn(|cx| {
            loop {
                match ready!(poll_send(&here, cx, b"x")) {
                    // The reset of the first is on its way.
                    Ok(_) => {}
                    Err(e) => return Poll::Ready(e.kind()),
                }
            }
        });
        let gone = gone.await;
        assert!(matches!(gone, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{gone:?}");
    }
}
