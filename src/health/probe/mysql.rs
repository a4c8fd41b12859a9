//! The greeting of a MySQL server (protocol 10), and a login without a password if there is a user.
//!
//! A connection that ends before a login is an interrupted one to the server: after
//! `max_connect_errors` of them in a row it blocks our address. A login resets that count, and one
//! that is refused does not add to it. That is why HAProxy's `mysql-check` has its `user`.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::MysqlCheck;

use super::{Failure, MAX_ANSWER, quoted};

/// CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x8_0000;

/// Largest packet that we would take.
const MAX_PACKET: u32 = 1 << 24;

/// utf8mb3_general_ci, which every version knows.
const CHARSET: u8 = 33;

/// COM_QUIT.
const QUIT: &[u8] = b"\x01\0\0\0\x01";

/// First bytes of packets.
const OK: u8 = 0;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;
const PROTOCOL_10: u8 = 10;

/// Errors that are about our user, besides those of class 28: such a server takes connections.
const ABOUT_US: [u16; 5] = [
    1251, // it wants another protocol of passwords
    1862, // the password has expired
    3118, // the account is locked
    3159, // it wants TLS
    4151, // the account is locked (MariaDB)
];

/// Reads the greeting; with a user, logs in and out.
pub(super) async fn ask(
    check: &MysqlCheck,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), Failure> {
    let (_, greeting) = packet(&mut stream).await?;
    match greeting.first() {
        Some(&PROTOCOL_10) => {}
        Some(&ERROR) => return Err(error(&greeting).1),
        _ => return Err(Failure::Protocol("the greeting is not MySQL".to_owned())),
    }
    let Some(user) = &check.user else {
        // Best effort: the answer is there. It says that we go on purpose.
        let _ = stream.write_all(QUIT).await;
        return Ok(());
    };
    send(&mut stream, 1, &login(user)).await?;
    let (mut number, mut answer) = packet(&mut stream).await?;
    if answer.first() == Some(&SWITCH) {
        send(&mut stream, number.wrapping_add(1), no_password(&answer)).await?;
        (number, answer) = packet(&mut stream).await?;
    }
    match answer.first() {
        Some(&OK) => {
            let _ = stream.write_all(QUIT).await;
            Ok(())
        }
        Some(&ERROR) => match error(&answer) {
            (Whose::Ours, _) => Ok(()),
            (Whose::Theirs, failure) => Err(failure),
        },
        // It goes on asking who we are: it takes connections.
        Some(_) if number > 1 => Ok(()),
        _ => Err(Failure::Protocol("the answer is not MySQL".to_owned())),
    }
}

/// HandshakeResponse41, with an empty password.
fn login(user: &str) -> Vec<u8> {
    let mut login = Vec::with_capacity(64 + user.len());
    login.extend_from_slice(&CAPABILITIES.to_le_bytes());
    login.extend_from_slice(&MAX_PACKET.to_le_bytes());
    login.push(CHARSET);
    login.extend_from_slice(&[0; 23]);
    login.extend_from_slice(user.as_bytes());
    // The end of the name, then a password of no bytes.
    login.extend_from_slice(b"\0\0mysql_native_password\0");
    login
}

/// What stands for no password in the method that the server switches to.
fn no_password(switch: &[u8]) -> &'static [u8] {
    let method = switch[1..].split(|b| *b == 0).next().unwrap_or_default();
    if method.starts_with(b"caching_sha2") || method.starts_with(b"sha256") {
        b"\0"
    } else {
        b""
    }
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    number: u8,
    payload: &[u8],
) -> Result<(), Failure> {
    let length = (payload.len() as u32).to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], number];
    packet.extend_from_slice(payload);
    stream.write_all(&packet).await.map_err(|_| Failure::Closed)
}

/// The number and the payload of the next packet.
async fn packet(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>), Failure> {
    let mut head = [0; 4];
    let read = stream.read_exact(&mut head).await;
    read.map_err(|_| Failure::Closed)?;
    let [low, middle, high, number] = head;
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    if length == 0 || length > MAX_ANSWER {
        return Err(Failure::Protocol("the greeting is not MySQL".to_owned()));
    }
    let mut payload = vec![0; length];
    let read = stream.read_exact(&mut payload).await;
    read.map_err(|_| Failure::Closed)?;
    Ok((number, payload))
}

/// Whom an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Theirs,
}

/// An ERR packet: its number, a state that begins with `#` (not before the login), its text.
fn error(packet: &[u8]) -> (Whose, Failure) {
    let [_, low, high, rest @ ..] = packet else {
        let failure = Failure::Protocol("the answer is not MySQL".to_owned());
        return (Whose::Theirs, failure);
    };
    let code = u16::from_le_bytes([*low, *high]);
    let (state, text) = match rest {
        [b'#', state @ ..] => state.split_at(state.len().min(5)),
        text => (&b""[..], text),
    };
    let whose = if state.starts_with(b"28") || ABOUT_US.contains(&code) {
        Whose::Ours
    } else {
        Whose::Theirs
    };
    let failure = Failure::Protocol(format!("{} ({code})", quoted(text)));
    (whose, failure)
}
