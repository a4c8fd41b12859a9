//! The secrets of the fleet, and what follows from them.
//!
//! Of each secret HKDF-SHA256 (RFC 5869) makes a root, with the name of the fleet in the salt: two fleets that
//! share a secret by mistake share no key. Everything else is expanded from the root under a label of its own,
//! so that no use says anything of another. Nothing is stretched: a secret that people make up can be guessed by
//! whoever sees one datagram; [`keygen`] makes one that cannot.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use crate::base::hash::hash;

use super::Refusal;
use super::cipher::Cipher;

/// The secrets of a fleet: the first seals, all are accepted. Never printed; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    fleet: FleetHash,
    keys: Arc<[Key]>,
}

/// What follows from one secret.
pub(super) struct Key {
    /// Says which secret it is and nothing of it; its beginning is the id.
    fingerprint: [u8; 32],
    root: Prk,
}

/// Names a secret on the wire, so that none is tried in vain.
pub(super) type KeyId = [u8; 4];

/// Names a fleet on the wire. Collisions do no harm: the keys differ all the same.
pub(super) type FleetHash = [u8; 4];

/// As many as a file has lines: `config::secret`.
const MAX_KEYS: usize = 8;

/// Changed with the format, so that no version reads the other's.
const SALT: &[u8] = b"isobar fleet 1 ";

/// A line for the secret file: 256 random bits in hexadecimal digits.
pub fn keygen(random: [u8; 32]) -> String {
    let mut line: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    line.push('\n');
    line
}

// === impl Keyring ===

impl Keyring {
    /// The secrets of the fleet `name`, the primary one first; one that comes twice counts once. `None` if there
    /// is none, or more than 8, or if two of them have the same 32 bits of id (one pair in 4e9: change one).
    pub fn new(name: &str, secrets: impl IntoIterator<Item = Box<[u8]>>) -> Option<Self> {
        let salt = Salt::new(HKDF_SHA256, &[SALT, name.as_bytes()].concat());
        let mut keys: Vec<Key> = Vec::new();
        for (nth, secret) in secrets.into_iter().enumerate() {
            if nth == MAX_KEYS {
                return None;
            }
            let key = Key::new(&salt, &secret);
            match keys.iter().find(|k| k.id() == key.id()) {
                Some(known) if *known == key => {}
                Some(_) => return None,
                None => keys.push(key),
            }
        }
        let [fleet @ .., _, _, _, _] = hash(name.as_bytes()).to_be_bytes();
        (!keys.is_empty()).then(|| Self {
            fleet,
            keys: keys.into(),
        })
    }

    /// 32 bytes of every secret for a purpose, of the primary one first: whoever has the secrets has them too,
    /// and they say nothing of the secrets or of each other.
    pub fn derive(&self, purpose: &str) -> Vec<Box<[u8]>> {
        let info = [&b"use "[..], purpose.as_bytes()];
        let derived = self.keys.iter().map(|key| key.expand(&info).into());
        derived.collect()
    }

    pub(super) fn fleet(&self) -> FleetHash {
        self.fleet
    }

    /// The one that seals.
    pub(super) fn primary(&self) -> &Key {
        &self.keys[0]
    }

    /// The one with this id.
    pub(super) fn find(&self, id: KeyId) -> Result<&Key, Refusal> {
        let key = self.keys.iter().find(|key| key.id() == id);
        key.ok_or(Refusal::Key)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.keys.len())
    }
}

// === impl Key ===

impl Key {
    fn new(salt: &Salt, secret: &[u8]) -> Self {
        // The library extracts again at each use of what `extract` returns; this is done once.
        let root = expand(&salt.extract(secret), &[b"root"]);
        let root = Prk::new_less_safe(HKDF_SHA256, &root);
        Self {
            fingerprint: expand(&root, &[b"key id"]),
            root,
        }
    }

    pub(super) fn id(&self) -> KeyId {
        let [id @ .., _, _, _, _] = self.fingerprint.as_chunks::<8>().0[0];
        id
    }

    /// The key of a label and what follows it; parts after it are of fixed length, or the last.
    pub(super) fn cipher(&self, info: &[&[u8]]) -> Cipher {
        Cipher::new(&self.expand(info))
    }

    fn expand(&self, info: &[&[u8]]) -> [u8; 32] {
        expand(&self.root, info)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Key {}

fn expand(key: &Prk, info: &[&[u8]]) -> [u8; 32] {
    let mut bytes = [0; 32];
    key.expand(info, Bytes32)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("invariant: 32 bytes are asked for, and HKDF-SHA256 gives up to 8,160");
    bytes
}

/// The length of what is derived, as the library wants to be told.
struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}
