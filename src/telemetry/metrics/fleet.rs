//! What is counted of the fleet. One writer: the task that speaks with the other peers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cell::{Counter, Gauge};

/// The fleet as this peer knows it.
#[derive(Debug, Default)]
pub struct FleetCells {
    members: [Gauge; MemberState::ALL.len()],
    sent: [Counter; Traffic::ALL.len()],
    received: [Counter; Traffic::ALL.len()],
    syncs: [Counter; SyncResult::ALL.len()],
    verdicts: [Counter; VerdictTo::ALL.len()],
    /// Facts that are known, by kind: set all at once.
    pub facts: Words,
    /// Facts that were not taken, by what is wrong with them.
    pub facts_refused: Words,
    /// Datagrams that were not listened to, by reason.
    pub datagrams_refused: Words,
    /// Facts of others that said something new.
    pub facts_merged: Counter,
    /// Facts that were put aside to be looked at.
    pub quarantined: Counter,
    /// When what is known was last compared with another peer's, in milliseconds since 1970; 0 = never.
    pub last_sync_unix_ms: Gauge,
    /// How old the newest fact of another peer was when it came, in milliseconds.
    pub lag_ms: Gauge,
    /// What is said and has no effect, as it would take too much away at once.
    pub brake_held: Gauge,
    /// 1 = a fault of this program has ended its part in the fleet.
    pub stopped: Gauge,
    /// Endpoints that this peer checks.
    pub duties: Gauge,
    /// Endpoints that are registered at this peer.
    pub registrations: Gauge,
    /// For how long the task did not come to its work, in nanoseconds.
    pub stall: Counter,
}

/// What a peer is, as far as others can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It was found not to answer any more, and is not forgotten yet.
    Down,
    /// It said that it goes, and is not forgotten yet.
    Left,
    /// It has not answered lately.
    Suspect,
}

/// What bytes between peers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Traffic {
    /// New facts, pushed.
    Facts,
    /// Who is there.
    Membership,
    /// Comparing what is known, over TCP.
    Sync,
}

/// How a comparison with another peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncResult {
    /// Facts were exchanged.
    Different,
    /// Both knew the same.
    Equal,
    /// It broke off.
    Failed,
}

/// What the majority of those who check an endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VerdictTo {
    /// That it is down.
    Down,
    /// That it is up.
    Up,
}

/// Numbers by the words of an enum that is defined above this floor: label values, so never anything that
/// comes from traffic.
#[derive(Debug, Default)]
pub struct Words(Mutex<BTreeMap<&'static str, u64>>);

// === impl FleetCells ===

impl FleetCells {
    /// Peers of this state, this one among those that are alive.
    pub fn members(&self, state: MemberState) -> &Gauge {
        &self.members[state as usize]
    }

    /// Bytes sent, without headers of UDP and TCP.
    pub fn sent(&self, traffic: Traffic) -> &Counter {
        &self.sent[traffic as usize]
    }

    /// Bytes received and understood.
    pub fn received(&self, traffic: Traffic) -> &Counter {
        &self.received[traffic as usize]
    }

    /// Comparisons that ended so.
    pub fn syncs(&self, result: SyncResult) -> &Counter {
        &self.syncs[result as usize]
    }

    /// Endpoints of which the majority has changed its mind.
    pub fn verdicts(&self, to: VerdictTo) -> &Counter {
        &self.verdicts[to as usize]
    }
}

// === impl Words ===

impl Words {
    /// Shows these as 0 until they are counted: a rate needs a point to begin at.
    pub fn begin(&self, words: impl IntoIterator<Item = &'static str>) {
        let mut counts = self.lock();
        for word in words {
            counts.entry(word).or_default();
        }
    }

    /// Adds `n` to a word.
    pub fn add(&self, word: &'static str, n: u64) {
        let mut counts = self.lock();
        let count = counts.entry(word).or_default();
        *count = count.wrapping_add(n);
    }

    /// Replaces the number of a word.
    pub fn set(&self, word: &'static str, n: u64) {
        self.lock().insert(word, n);
    }

    /// All of them, sorted.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        // Numbers have no state that a panic could leave half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl MemberState ===

impl MemberState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Down, Self::Left, Self::Suspect];

    /// As the label has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Down => "down",
            Self::Left => "left",
            Self::Suspect => "suspect",
        }
    }
}

// === impl Traffic ===

impl Traffic {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Facts, Self::Membership, Self::Sync];

    /// As the label has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Membership => "membership",
            Self::Sync => "sync",
        }
    }
}

// === impl SyncResult ===

impl SyncResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Different, Self::Equal, Self::Failed];

    /// As the label has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Equal => "equal",
            Self::Failed => "failed",
        }
    }
}

// === impl VerdictTo ===

impl VerdictTo {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Down, Self::Up];

    /// As the label has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}
