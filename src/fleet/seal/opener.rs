//! Opening datagrams: each is taken once, of whom has the secret.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::{Nanos, nanos};
use crate::fleet::id::PeerId;

use super::Refusal;
use super::cipher::{Cipher, TAG_BYTES};
use super::datagram::{
    HEADER_BYTES, Header, INNER_BYTES, Kind, MAX_DATAGRAM, Session, cipher, take,
};
use super::keyring::{KeyId, Keyring};
use super::window::Window;

/// Opens what others send.
#[derive(Debug)]
pub struct Opener {
    keyring: Keyring,
    own: PeerId,
    /// Only of who has shown to have the secret: nobody else can fill it.
    sessions: BTreeMap<(PeerId, Session), Known>,
    /// When those that fell silent were last looked for.
    swept: Nanos,
    /// Where datagrams are opened: a forged one costs no memory.
    scratch: Vec<u8>,
}

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who.
    pub sender: PeerId,
    /// In which run of its process.
    pub session: Session,
    /// What it is about.
    pub kind: Kind,
    /// What its clock said, in milliseconds since 1970.
    pub unix_ms: u64,
    /// It was sent after all that was heard of this session: no recording, if anything was heard.
    pub is_latest: bool,
    /// What it says.
    pub payload: Vec<u8>,
}

/// A session that was heard.
#[derive(Debug)]
struct Known {
    window: Window,
    key: KeyId,
    /// Derived once; `None` since the keyring was replaced.
    cipher: Option<Cipher>,
    /// When it was last heard.
    heard: Nanos,
}

/// Four restarts an hour of each of 1,000 peers. About 1 KB each.
const MAX_SESSIONS: usize = 4096;

/// A session that was silent for so long has ended: foca alone speaks every second.
const MAX_SILENCE: Duration = Duration::from_secs(60 * 60);

/// How often those are looked for, at most, and only when a new one comes.
const SWEEP: Duration = Duration::from_secs(60);

// === impl Opener ===

impl Opener {
    /// Listens for the peer `own`, to all others.
    pub fn new(keyring: Keyring, own: PeerId) -> Self {
        Self {
            keyring,
            own,
            sessions: BTreeMap::new(),
            swept: 0,
            scratch: Vec::with_capacity(MAX_DATAGRAM),
        }
    }

    /// Goes on with other secrets; what was heard before is not heard again.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.keyring = keyring;
        for known in self.sessions.values_mut() {
            known.cipher = None;
        }
    }

    /// How many sessions are remembered.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What is in a datagram. Whoever gets it compares `unix_ms` with its own clock: what was recorded before this
    /// process started, or of a session that was forgotten, is not known to be old here.
    ///
    /// # Errors
    /// See [`Refusal`]; then nothing has changed, but that one of [`Refusal::Kind`] is not heard again.
    pub fn open(&mut self, datagram: &[u8], now: Nanos) -> Result<Opened, Refusal> {
        let (header, sealed) = Header::parse(datagram)?;
        if header.fleet != self.keyring.fleet() {
            return Err(Refusal::Fleet);
        }
        let key = self.keyring.find(header.key)?;
        let id = (header.sender, header.session);
        let known = self.sessions.get_mut(&id);
        // Before the work of opening it; nothing is noted before that.
        if known
            .as_ref()
            .is_some_and(|k| !k.window.is_new(header.counter))
        {
            return Err(Refusal::Replayed);
        }
        let mut derived = None;
        let cached = known.as_ref().filter(|k| k.key == header.key);
        let cipher = match cached.and_then(|k| k.cipher.as_ref()) {
            Some(cipher) => cipher,
            None => &*derived.insert(cipher(key, header.sender, header.session)),
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(sealed);
        let aad = &datagram[..HEADER_BYTES];
        let opened = cipher.open(header.counter, aad, &mut self.scratch);
        let mut payload = opened.ok_or(Refusal::Forged)?;
        if header.sender == self.own {
            return Err(Refusal::Own);
        }
        let [kind] = take(&mut payload)?;
        let unix_ms = u64::from_be_bytes(take(&mut payload)?);
        let payload = payload.to_vec();
        debug_assert_eq!(payload.len() + INNER_BYTES + TAG_BYTES, sealed.len());

        let known = if let Some(known) = known {
            known
        } else {
            make_room(&mut self.sessions, &mut self.swept, now);
            self.sessions.entry(id).or_insert_with(|| Known {
                window: Window::new(),
                key: header.key,
                cipher: None,
                heard: now,
            })
        };
        let is_latest = known.window.is_latest(header.counter);
        known.window.hear(header.counter);
        known.heard = now;
        if derived.is_some() {
            known.key = header.key;
            known.cipher = derived;
        }
        Ok(Opened {
            sender: header.sender,
            session: header.session,
            kind: Kind::try_from(kind)?,
            unix_ms,
            is_latest,
            payload,
        })
    }
}

/// Room for one more session: those that fell silent go, and if there are none, the one that was silent longest.
fn make_room(sessions: &mut BTreeMap<(PeerId, Session), Known>, swept: &mut Nanos, now: Nanos) {
    let is_full = sessions.len() >= MAX_SESSIONS;
    if is_full || now.saturating_sub(*swept) >= nanos(SWEEP) {
        *swept = now;
        sessions.retain(|_, known| now.saturating_sub(known.heard) < nanos(MAX_SILENCE));
    }
    if sessions.len() >= MAX_SESSIONS {
        let oldest = sessions.iter().min_by_key(|(_, known)| known.heard);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            sessions.remove(&id);
        }
    }
}
