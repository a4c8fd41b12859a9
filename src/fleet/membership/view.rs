//! Who is there, by peer: foca's list goes by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use foca::OwnedNotification;

use super::identity::Identity;
use crate::fleet::id::PeerId;

/// All lives that foca holds to be active, and what has changed since it was last asked.
#[derive(Debug)]
pub(super) struct View {
    /// Whose view it is; its own lives are not in it.
    own: PeerId,
    /// Greatest last: by when a life began, then by address.
    lives: BTreeMap<PeerId, BTreeSet<(u64, SocketAddr)>>,
    /// Who changed, and who it was before.
    before: BTreeMap<PeerId, Option<Identity>>,
}

/// One peer's change from one call into foca to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up(Identity),
    Renewed { from: Identity, to: Identity },
    Down(Identity),
}

// === impl View ===

impl View {
    pub(super) fn of(own: PeerId) -> Self {
        Self {
            own,
            lives: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    /// The life of `peer` that counts.
    pub(super) fn life(&self, peer: PeerId) -> Option<Identity> {
        let (incarnation, addr) = *self.lives.get(&peer)?.last()?;
        Some(Identity {
            peer,
            addr,
            incarnation,
        })
    }

    /// How many peers there are.
    pub(super) fn len(&self) -> usize {
        self.lives.len()
    }

    pub(super) fn note(&mut self, note: &OwnedNotification<Identity>) {
        match note {
            OwnedNotification::MemberUp(id) => self.add(*id),
            OwnedNotification::MemberDown(id) => self.remove(*id),
            // Whether both are active or both are not; if not so, an up or a down follows.
            OwnedNotification::Rename(from, to) if self.has(*from) => {
                self.remove(*from);
                self.add(*to);
            }
            OwnedNotification::Rename(..)
            | OwnedNotification::Active
            | OwnedNotification::Idle
            | OwnedNotification::Defunct
            | OwnedNotification::Rejoin(_) => {}
        }
    }

    /// What all that was noted comes to.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let before = std::mem::take(&mut self.before);
        let changes =
            before
                .into_iter()
                .filter_map(|(peer, before)| match (before, self.life(peer)) {
                    (None, Some(now)) => Some(Change::Up(now)),
                    (Some(before), None) => Some(Change::Down(before)),
                    (Some(from), Some(to)) if from != to => Some(Change::Renewed { from, to }),
                    (Some(_), Some(_)) | (None, None) => None,
                });
        changes.collect()
    }

    fn has(&self, id: Identity) -> bool {
        let lives = self.lives.get(&id.peer);
        lives.is_some_and(|lives| lives.contains(&(id.incarnation, id.addr)))
    }

    fn add(&mut self, id: Identity) {
        if id.peer == self.own {
            return;
        }
        self.keep_before(id.peer);
        let lives = self.lives.entry(id.peer).or_default();
        lives.insert((id.incarnation, id.addr));
    }

    fn remove(&mut self, id: Identity) {
        self.keep_before(id.peer);
        if let Some(lives) = self.lives.get_mut(&id.peer) {
            lives.remove(&(id.incarnation, id.addr));
            if lives.is_empty() {
                self.lives.remove(&id.peer);
            }
        }
    }

    fn keep_before(&mut self, peer: PeerId) {
        if !self.before.contains_key(&peer) {
            let life = self.life(peer);
            self.before.insert(peer, life);
        }
    }
}
