//! One stream between two peers, over TCP: greeting, then sealed records. What they say is `fleet::peer`'s
//! concern; here bytes become records, and every wait ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{error::Elapsed, timeout};

use crate::fleet::facts::compare::MAX_MESSAGES;
use crate::fleet::id::PeerId;
use crate::fleet::peer::StreamId;
use crate::fleet::seal::{Greeting, Keyring, NotSealed, Refusal, StreamOpen, StreamSeal};

/// What becomes of a stream.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody connected, and says that he is this peer. Nothing proves it before his first record.
    Accepted {
        /// Who.
        peer: PeerId,
        /// For what is to be sent, and for the stream's name.
        link: Link,
    },
    /// The other side answered.
    Opened {
        /// Which.
        stream: StreamId,
        /// Who.
        peer: PeerId,
    },
    /// A record came.
    Message {
        /// On which.
        stream: StreamId,
        /// What.
        bytes: Vec<u8>,
    },
    /// It has ended, or never began.
    Closed {
        /// Which.
        stream: StreamId,
    },
}

/// The way to the task of a stream.
#[derive(Debug)]
pub(super) struct Link {
    /// What is to be sent; it ends when this is dropped, after what was sent before.
    pub(super) outbox: mpsc::Sender<Vec<u8>>,
    /// Where to say its name; who drops it wants no stream.
    pub(super) name: oneshot::Sender<StreamId>,
}

/// Why a stream ended.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    /// Nobody takes it any more.
    #[error("this peer wants no stream now")]
    Refused,
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side has another secret, fleet or version, or none.
    #[error(transparent)]
    Seal(#[from] Refusal),
    /// It cannot be sent.
    #[error(transparent)]
    Send(#[from] NotSealed),
    /// It took too long.
    #[error("the other side said nothing for {SILENCE:?}")]
    Silent,
}

/// For each wait: a record of 64 KiB takes half a second at 1 Mb/s.
const SILENCE: Duration = Duration::from_secs(5);

/// For all of it: 1,000,000 bytes a second move a whole store in less.
const WHOLE: Duration = Duration::from_secs(60);

/// Until who connected has shown that he has the secret.
const UNPROVEN: Duration = Duration::from_secs(5);

/// Records that wait to be sent: all that one comparison says, which is handed over at once.
pub(super) const OUTBOX: usize = MAX_MESSAGES + 8;

/// Connects, and carries records until it ends. Cancel safe: dropping it ends the stream.
pub(super) async fn dial(
    stream: StreamId,
    to: SocketAddr,
    keyring: Keyring,
    greeting: Greeting,
    outbox: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<Event>,
) {
    let carried = timeout(WHOLE, async {
        let mut tcp = timeout(SILENCE, TcpStream::connect(to)).await??;
        tcp.set_nodelay(true)?;
        timeout(SILENCE, tcp.write_all(&greeting.to_bytes())).await??;
        let answer = hear(&mut tcp, &keyring).await?;
        let (seal, open) = greeting.connected(&answer, &keyring)?;
        let peer = answer.sender();
        if events.send(Event::Opened { stream, peer }).await.is_err() {
            return Err(StreamError::Refused);
        }
        carry(stream, tcp, seal, open, outbox, &events).await
    });
    end(stream, to, carried.await, &events).await;
}

/// Answers who connected, and carries records until it ends. Cancel safe: dropping it ends the stream.
pub(super) async fn answer(
    mut tcp: TcpStream,
    from: SocketAddr,
    keyring: Keyring,
    me: PeerId,
    random: [u8; 32],
    events: mpsc::Sender<Event>,
) {
    let greeted = async {
        tcp.set_nodelay(true)?;
        let first = hear(&mut tcp, &keyring).await?;
        let greeting = first.answer(me, random);
        timeout(SILENCE, tcp.write_all(&greeting.to_bytes())).await??;
        let (seal, mut open) = greeting.accepted(&first, &keyring)?;
        // The first record proves the secret: before it nobody is told.
        let mut buffer = vec![0; READ];
        let record = next(&mut tcp, &mut open, &mut buffer).await?;
        let Some(record) = record else {
            return Err(StreamError::Refused);
        };
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let (name, named) = oneshot::channel();
        let link = Link { outbox, name };
        let peer = first.sender();
        let told = events.send(Event::Accepted { peer, link }).await;
        let (Ok(()), Ok(stream)) = (told, named.await) else {
            return Err(StreamError::Refused);
        };
        Ok((stream, seal, open, inbox, record))
    };
    let (stream, seal, open, inbox, bytes) = match timeout(UNPROVEN, greeted).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "fleet: stream refused"),
        Err(Elapsed { .. }) => return,
    };
    // Nobody listens any more when the server ends.
    let _ = events.send(Event::Message { stream, bytes }).await;
    let carried = timeout(WHOLE, carry(stream, tcp, seal, open, inbox, &events)).await;
    end(stream, from, carried, &events).await;
}

/// How much is read at once.
const READ: usize = 16 * 1024;

async fn end(
    stream: StreamId,
    with: SocketAddr,
    carried: Result<Result<(), StreamError>, Elapsed>,
    events: &mpsc::Sender<Event>,
) {
    let carried = carried.unwrap_or(Err(StreamError::Silent));
    if let Err(error) = carried {
        tracing::debug!(%with, %error, "fleet: stream ended");
    }
    let _ = events.send(Event::Closed { stream }).await;
}

async fn hear(tcp: &mut TcpStream, keyring: &Keyring) -> Result<Greeting, StreamError> {
    let mut bytes = [0; Greeting::BYTES];
    timeout(SILENCE, tcp.read_exact(&mut bytes)).await??;
    Ok(Greeting::parse(&bytes, keyring)?)
}

/// The next record; `None` = the other side has ended the stream.
async fn next(
    tcp: &mut (impl tokio::io::AsyncRead + Unpin),
    open: &mut StreamOpen,
    buffer: &mut [u8],
) -> Result<Option<Vec<u8>>, StreamError> {
    loop {
        if let Some(record) = open.next_record()? {
            return Ok(Some(record));
        }
        let count = timeout(SILENCE, tcp.read(buffer)).await??;
        if count == 0 {
            return Ok(None);
        }
        open.push(&buffer[..count]);
    }
}

/// Records in both directions until one side ends it.
async fn carry(
    stream: StreamId,
    mut tcp: TcpStream,
    mut seal: StreamSeal,
    mut open: StreamOpen,
    mut outbox: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<Event>,
) -> Result<(), StreamError> {
    let (mut reader, mut writer) = tcp.split();
    let writing = async {
        let mut sealed = Vec::new();
        while let Some(record) = outbox.recv().await {
            sealed.clear();
            seal.seal(&record, &mut sealed)?;
            timeout(SILENCE, writer.write_all(&sealed)).await??;
        }
        writer.shutdown().await?;
        Ok::<_, StreamError>(())
    };
    let reading = async {
        let mut buffer = vec![0; READ];
        while let Some(bytes) = next(&mut reader, &mut open, &mut buffer).await? {
            if events.send(Event::Message { stream, bytes }).await.is_err() {
                break;
            }
        }
        // Who has nothing more to say to it drops the outbox, and the writing ends.
        let _ = events.send(Event::Closed { stream }).await;
        Ok::<_, StreamError>(())
    };
    // Who has said all waits for the other's end, so that nothing of it is reset.
    tokio::try_join!(writing, reading).map(|((), ())| ())
}

impl From<Elapsed> for StreamError {
    fn from(_: Elapsed) -> Self {
        Self::Silent
    }
}
