//! Session tickets (RFC 8446 section 4.6.1, RFC 5077) whose keys follow from a secret and the time, so
//! that whoever has the secret resumes the session: other workers, the next process, another machine.
//!
//! A ticket is the number of its epoch (4 bytes, big endian), a random nonce (12), and the session
//! under AES-256-GCM with its tag (16). The key is HKDF-SHA256 of the secret (RFC 5869; the salt is
//! fixed, info = epoch and context); the additional data are format, epoch and context.
//!
//! Nonces are 96 random bits, made by the library in the call that uses them. Two of n collide with
//! probability n² / 2^97: a fleet that makes 10,000 tickets a second makes 4.3e8 in an epoch, and has
//! one chance in 8e11 that two of them share a nonce. (NIST SP 800-38D section 8.3 allows 2^32, at
//! one in 2^32.)

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

/// What the keys of tickets follow from: the secret in use, and those of before it, whose tickets are
/// still taken. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecrets(Arc<[Box<[u8]>]>);

/// What a session must not cross: a ticket of one context is noise in another.
pub(super) type Context = [u8; 32];

/// Makes and takes the tickets of a server.
pub(super) struct Ticketer {
    context: Context,
    clock: Arc<dyn TimeProvider>,
    keys: ArcSwap<Keys>,
}

/// The keys of the epochs around one, derived once.
struct Keys {
    secrets: TicketSecrets,
    epoch: u32,
    /// For each secret those of the epoch before, of this and of the next; `None` = the library cannot.
    by_secret: Option<Box<[[RandomizedNonceKey; 3]]>>,
}

/// How long a key makes tickets. Each is taken for one epoch more, so a ticket lives for 12 to 24 hours;
/// whoever steals a key of TLS 1.2 tickets reads no more than that of the past.
const EPOCH_SECONDS: u64 = 12 * 60 * 60;

/// Changed with the format, so that no version reads the other's.
const FORMAT: &[u8] = b"isobar ticket 1";

const EPOCH_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A session holds the client's chain of certificates; what a client would have to send back with each
/// first message has an end somewhere.
const MAX_PLAIN_BYTES: usize = 16 * 1024;

// === impl TicketSecrets ===

impl TicketSecrets {
    /// The first makes tickets; `None` if there is none.
    pub fn new(secrets: impl IntoIterator<Item = Box<[u8]>>) -> Option<Self> {
        let secrets: Arc<[_]> = secrets.into_iter().collect();
        (!secrets.is_empty()).then_some(Self(secrets))
    }
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecrets({})", self.0.len())
    }
}

// === impl Ticketer ===

impl Ticketer {
    /// Tickets of `context` by `clock`.
    pub(super) fn new(
        secrets: TicketSecrets,
        context: Context,
        clock: Arc<dyn TimeProvider>,
    ) -> Self {
        let epoch = epoch(&*clock).unwrap_or(0);
        let keys = Keys::new(secrets, epoch, &context);
        Self {
            context,
            clock,
            keys: ArcSwap::from_pointee(keys),
        }
    }

    /// What its sessions must not cross.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// What its keys follow from.
    pub(super) fn secrets(&self) -> TicketSecrets {
        self.keys.load().secrets.clone()
    }

    /// Goes on with these. Tickets of a secret that is not among them are worth nothing from now on:
    /// their clients make a full handshake.
    pub(super) fn set_secrets(&self, secrets: &TicketSecrets) {
        self.keys.rcu(|keys| {
            if keys.secrets == *secrets {
                return keys.clone();
            }
            Arc::new(Keys::new(secrets.clone(), keys.epoch, &self.context))
        });
    }

    /// The keys of now.
    fn keys(&self) -> Option<Arc<Keys>> {
        let epoch = epoch(&*self.clock)?;
        let keys = self.keys.load();
        if keys.epoch == epoch {
            // Not the guard: one must not be held while others are derived.
            return Some(Arc::clone(&keys));
        }
        drop(keys);
        // Every worker may come here at once, twice a day; whoever stores last has the same keys.
        self.keys.rcu(|keys| {
            if keys.epoch == epoch {
                return keys.clone();
            }
            Arc::new(Keys::new(keys.secrets.clone(), epoch, &self.context))
        });
        Some(self.keys.load_full())
    }

    fn aad(&self, epoch: u32) -> Aad<[u8; FORMAT.len() + EPOCH_BYTES + 32]> {
        let mut aad = [0; FORMAT.len() + EPOCH_BYTES + 32];
        aad[..FORMAT.len()].copy_from_slice(FORMAT);
        aad[FORMAT.len()..][..EPOCH_BYTES].copy_from_slice(&epoch.to_be_bytes());
        aad[FORMAT.len() + EPOCH_BYTES..].copy_from_slice(&self.context);
        Aad::from(aad)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// In seconds.
    fn lifetime(&self) -> u32 {
        EPOCH_SECONDS as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > MAX_PLAIN_BYTES {
            return None;
        }
        let keys = self.keys()?;
        let [_, key, _] = keys.by_secret.as_ref()?.first()?;
        let mut sealed = Vec::with_capacity(plain.len() + TAG_BYTES);
        sealed.extend_from_slice(plain);
        let nonce = key
            .seal_in_place_append_tag(self.aad(keys.epoch), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(EPOCH_BYTES + NONCE_BYTES + sealed.len());
        ticket.extend_from_slice(&keys.epoch.to_be_bytes());
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if sealed.len() < TAG_BYTES || sealed.len() > MAX_PLAIN_BYTES + TAG_BYTES {
            return None;
        }
        let epoch = u32::from_be_bytes(*epoch);
        let keys = self.keys()?;
        // 0, 1 or 2: the clocks of a fleet, and of a machine before and after it was set, may differ.
        let at = usize::try_from(i64::from(epoch) - i64::from(keys.epoch) + 1).ok()?;
        keys.by_secret.as_ref()?.iter().find_map(|of_secret| {
            // What failed may have been written over.
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = of_secret
                .get(at)?
                .open_in_place(nonce, self.aad(epoch), &mut plain)
                .ok()?;
            let len = opened.len();
            plain.truncate(len);
            Some(plain)
        })
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

fn epoch(clock: &dyn TimeProvider) -> Option<u32> {
    u32::try_from(clock.current_time()?.as_secs() / EPOCH_SECONDS).ok()
}

// === impl Keys ===

impl Keys {
    fn new(secrets: TicketSecrets, epoch: u32, context: &Context) -> Self {
        let salt = Salt::new(HKDF_SHA256, FORMAT);
        let derive = |secret: &[u8], epoch: u32| {
            let mut bytes = [0; 32];
            salt.extract(secret)
                .expand(&[&epoch.to_be_bytes(), context], Key)
                .and_then(|okm| okm.fill(&mut bytes))
                .ok()?;
            RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()
        };
        let by_secret = secrets.0.iter().map(|secret| {
            Some([
                // At the end of time the three meet; nothing is read that was not written.
                derive(secret, epoch.saturating_sub(1))?,
                derive(secret, epoch)?,
                derive(secret, epoch.saturating_add(1))?,
            ])
        });
        Self {
            by_secret: by_secret.collect(),
            secrets,
            epoch,
        }
    }
}

/// The length of a key, as the library wants to be told.
struct Key;

impl KeyType for Key {
    fn len(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    /// A day in 2026.
    const NOW: u64 = 1_790_000_000;

    #[derive(Debug)]
    struct Hands(AtomicU64);

    impl TimeProvider for Hands {
        fn current_time(&self) -> Option<UnixTime> {
            let seconds = self.0.load(Ordering::Relaxed);
            Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        }
    }

    fn secrets(all: &[&str]) -> TicketSecrets {
        TicketSecrets::new(all.iter().map(|s| s.as_bytes().into())).unwrap()
    }

    fn ticketer(all: &[&str], context: u8) -> (Ticketer, Arc<Hands>) {
        let hands = Arc::new(Hands(AtomicU64::new(NOW)));
        let ticketer = Ticketer::new(secrets(all), [context; 32], hands.clone());
        (ticketer, hands)
    }

    #[test]
    fn whoever_has_the_secret_reads_the_ticket() {
        let (one, _) = ticketer(&["a secret of a test"], 1);
        let (other, _) = ticketer(&["a secret of a test"], 1);
        for plain in [&b""[..], b"a session", &[7; MAX_PLAIN_BYTES]] {
            let ticket = one.encrypt(plain).unwrap();
            assert_eq!(ticket.len(), 4 + 12 + plain.len() + 16);
            assert_eq!(ticket[..4], (NOW / (12 * 3600)).to_be_bytes()[4..]);
            assert_eq!(other.decrypt(&ticket).as_deref(), Some(plain));
            assert_ne!(one.encrypt(plain).unwrap(), ticket, "another nonce");
        }
        assert_eq!(one.encrypt(&[7; MAX_PLAIN_BYTES + 1]), None);
        assert_eq!((one.enabled(), one.lifetime()), (true, 12 * 3600));
        let (stranger, _) = ticketer(&["a secret of others"], 1);
        assert_eq!(stranger.decrypt(&one.encrypt(b"a session").unwrap()), None);
    }

    #[test]
    fn session_does_not_cross_contexts() {
        let (open, _) = ticketer(&["a secret of a test"], 1);
        let (with_certificates, _) = ticketer(&["a secret of a test"], 2);
        let ticket = open.encrypt(b"a session").unwrap();
        assert_eq!(with_certificates.decrypt(&ticket), None);
        assert!(open.decrypt(&ticket).is_some());
    }

    #[test]
    fn ticket_is_taken_in_its_epoch_and_the_ones_around_it() {
        let (maker, at_maker) = ticketer(&["a secret of a test"], 1);
        let (taker, at_taker) = ticketer(&["a secret of a test"], 1);
        let first = NOW / EPOCH_SECONDS * EPOCH_SECONDS;
        at_maker.0.store(first, Ordering::Relaxed);
        let ticket = maker.encrypt(b"a session").unwrap();
        let taken = |seconds| {
            at_taker.0.store(seconds, Ordering::Relaxed);
            taker.decrypt(&ticket).is_some()
        };
        for (seconds, is_taken) in [
            (first, true),
            (first + EPOCH_SECONDS, true),
            (first + 2 * EPOCH_SECONDS - 1, true),
            (first + 2 * EPOCH_SECONDS, false),
            // A clock that is behind.
            (first - 1, true),
            (first - EPOCH_SECONDS, true),
            (first - EPOCH_SECONDS - 1, false),
            (0, false),
            (u64::MAX, false),
            (first, true),
        ] {
            assert_eq!(taken(seconds), is_taken, "{seconds}");
        }
        at_maker
            .0
            .store(first + EPOCH_SECONDS - 1, Ordering::Relaxed);
        let last = maker.encrypt(b"").unwrap();
        at_maker.0.store(first + EPOCH_SECONDS, Ordering::Relaxed);
        let next = maker.encrypt(b"").unwrap();
        assert_eq!(last[..4], ticket[..4]);
        assert_ne!(next[..4], ticket[..4]);
        assert!(maker.decrypt(&last).is_some());
    }

    #[test]
    fn old_secrets_are_read_and_not_written() {
        let (old, _) = ticketer(&["secret of last year"], 1);
        let (both, _) = ticketer(&["secret of this year", "secret of last year"], 1);
        let (new, _) = ticketer(&["secret of this year"], 1);
        let of_old = old.encrypt(b"a session").unwrap();
        let of_both = both.encrypt(b"a session").unwrap();
        assert!(both.decrypt(&of_old).is_some());
        assert!(new.decrypt(&of_both).is_some());
        assert_eq!(old.decrypt(&of_both), None);
        assert_eq!(new.decrypt(&of_old), None);
        // While it runs.
        old.set_secrets(&secrets(&["secret of this year", "secret of last year"]));
        assert!(old.decrypt(&of_old).is_some() && old.decrypt(&of_both).is_some());
        old.set_secrets(&secrets(&["secret of this year"]));
        assert_eq!(old.decrypt(&of_old), None);
        assert!(new.decrypt(&old.encrypt(b"").unwrap()).is_some());
    }

    #[test]
    fn anything_else_is_refused() {
        let (ticketer, _) = ticketer(&["a secret of a test"], 1);
        let ticket = ticketer.encrypt(b"a session").unwrap();
        for i in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[i] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "byte {i}");
            assert_eq!(ticketer.decrypt(&ticket[..i]), None, "{i} bytes");
        }
        let mut longer = ticket.clone();
        longer.push(0);
        assert_eq!(ticketer.decrypt(&longer), None);
        let mut huge = ticket;
        huge.resize(1 << 20, 0);
        assert_eq!(ticketer.decrypt(&huge), None);
    }

    #[test]
    fn secrets_are_never_printed() {
        let secrets = secrets(&["one", "other"]);
        assert_eq!(format!("{secrets:?}"), "TicketSecrets(2)");
        let (ticketer, _) = ticketer(&["hidden"], 1);
        assert_eq!(format!("{ticketer:?}"), "Ticketer { .. }");
        assert_eq!(TicketSecrets::new([]), None);
    }
}
