//! Two peers compare what they know, and each gets what it lacks.
//!
//! ```text
//! begins                                        is asked
//! Groups (64 sums)                     ->
//!                                      <-       Same, or Buckets (of each group that differs, 64 sums)
//! Facts of the buckets that differ     ->       merges them
//! merges them                          <-       Facts of these buckets that the other lacks or has older
//! ```
//! What differs in one fact costs both some dozen facts and two round trips. What does not fit one comparison is
//! left to the next one, which begins with another bucket ([`Comparison::begin`]'s `turn`), so that a bucket
//! in which two peers never agree cannot keep them from the rest.
//!
//! To look ([`Aim::Look`]) is the same with nothing told by whoever began, everything told by whoever was
//! asked, and nobody merging.

mod message;

pub use message::{
    MAX_MESSAGE, MAX_MESSAGES, MAX_TOLD_BYTES, MAX_TOLD_FACTS, Message, NotAMessage,
};

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::base::hash::hash;
use crate::fleet::fact::{Fact, Key};
use crate::fleet::stamp::Stamp;

use super::digest::{BUCKETS, BUCKETS_OF_GROUP, GROUPS, bucket_of, hash_of};
use super::{Facts, Hashed};
use message::Packer;

/// One side of a comparison.
#[derive(Debug)]
pub struct Comparison {
    stage: Stage,
    heard: Heard,
    is_cut: bool,
}

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To show people what differs.
    Look,
    /// To know the same.
    Share,
}

/// What comes of a message.
#[derive(Debug, Default)]
pub struct Step {
    /// To be sent, in this order; before the end of the comparison, if this is it.
    pub send: Vec<Message>,
    /// To be merged, after a look at the stamps; before the next message is taken.
    pub received: Vec<Fact>,
    /// What differs, in the order of keys: at the end of a look, for whoever began it.
    pub differences: Vec<Difference>,
    /// How far it is.
    pub end: End,
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The other side has something to say.
    #[default]
    NotYet,
    /// It is over; what was to be sent is sent, and nothing more comes.
    Over,
    /// It is over, but not everything fitted: another one is due.
    Cut,
}

/// Two peers know different things of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of what.
    pub key: Key,
    /// What this peer knows.
    pub here: Option<Fact>,
    /// What the other one knows.
    pub there: Option<Fact>,
}

/// The other side does not keep to the rules; the comparison is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// A message whose numbers cannot be: of sums, groups or buckets.
    #[error("its numbers of groups or buckets cannot be")]
    Shape,
    /// More facts or messages than one comparison has.
    #[error(
        "it tells more than {MAX_TOLD_FACTS} facts or {MAX_MESSAGES} messages in one comparison"
    )]
    TooMuch,
    /// A message that may not come now.
    #[error("it sends a message that may not come now")]
    Unexpected,
}

#[derive(Debug)]
enum Stage {
    /// Began, and told its groups.
    Began {
        aim: Aim,
        turn: u64,
    },
    /// Began, and told its facts of buckets that differ; those that it is not yet told in return.
    Told(BTreeSet<u16>),
    /// Began to look, and asked for buckets.
    Looks {
        left: BTreeSet<u16>,
        done: BTreeSet<u16>,
        theirs: BTreeMap<Key, Fact>,
    },
    /// Is asked, and has not heard anything.
    Waits,
    /// Is asked, and told its buckets; what it heard since.
    Listens {
        aim: Aim,
        named: Vec<u16>,
        is_named: BTreeSet<u16>,
        /// By the hash of the key: when it was said, and the hash of the fact.
        known: BTreeMap<u64, (Stamp, u64)>,
    },
    Over,
}

#[derive(Debug, Default)]
struct Heard {
    messages: usize,
    facts: usize,
}

// === impl Comparison ===

impl Comparison {
    /// Begins one. `turn` is another number for each comparison, at random or counted.
    pub fn begin(facts: &Facts, aim: Aim, turn: u64) -> (Self, Message) {
        let message = Message::Groups {
            sums: facts.groups().to_vec(),
            look: aim == Aim::Look,
        };
        (Self::at(Stage::Began { aim, turn }), message)
    }

    /// Answers one.
    pub fn answer() -> Self {
        Self::at(Stage::Waits)
    }

    /// Takes a message of the other side. `facts` are those of now: they may have changed since the last one.
    ///
    /// # Errors
    /// [`Broken`]; the comparison is over, and whatever comes after that is [`Broken::Unexpected`].
    pub fn take(&mut self, message: Message, facts: &Facts) -> Result<Step, Broken> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        match (stage, message) {
            (Stage::Waits, Message::Groups { sums, look }) => self.list(&sums, look, facts),
            (Stage::Began { .. }, Message::Same) => Ok(self.over(Step::default())),
            (Stage::Began { aim, turn }, Message::Buckets { sums }) => {
                let mut differing = differing(&sums, facts)?;
                if !differing.is_empty() {
                    let start = turn % differing.len() as u64;
                    differing.rotate_left(start as usize);
                }
                Ok(match aim {
                    Aim::Look => self.ask(differing),
                    Aim::Share => self.tell(&differing, facts, turn),
                })
            }
            (
                stage @ (Stage::Told(_) | Stage::Looks { .. } | Stage::Listens { .. }),
                Message::Facts {
                    buckets,
                    facts: told,
                    more,
                },
            ) => {
                self.heard.messages += 1;
                self.heard.facts += told.len();
                if self.heard.messages > MAX_MESSAGES || self.heard.facts > MAX_TOLD_FACTS {
                    return Err(Broken::TooMuch);
                }
                self.hear(stage, &buckets, told, more, facts)
            }
            (
                Stage::Began { .. }
                | Stage::Told(_)
                | Stage::Looks { .. }
                | Stage::Waits
                | Stage::Listens { .. }
                | Stage::Over,
                Message::Groups { .. }
                | Message::Same
                | Message::Buckets { .. }
                | Message::Facts { .. },
            ) => Err(Broken::Unexpected),
        }
    }

    /// Whether nothing is to come any more.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    fn at(stage: Stage) -> Self {
        Self {
            stage,
            heard: Heard::default(),
            is_cut: false,
        }
    }

    /// The one that is asked tells its buckets.
    fn list(&mut self, theirs: &[u64], look: bool, facts: &Facts) -> Result<Step, Broken> {
        if theirs.len() != GROUPS {
            return Err(Broken::Shape);
        }
        let ours = facts.groups();
        let differing = (0..GROUPS).filter(|&g| theirs.get(g) != ours.get(g));
        let sums = differing.map(|g| (g as u8, facts.buckets(g).to_vec()));
        let sums: Vec<_> = sums.collect();
        if sums.is_empty() {
            return Ok(self.over(Step {
                send: vec![Message::Same],
                ..Step::default()
            }));
        }
        self.stage = Stage::Listens {
            aim: if look { Aim::Look } else { Aim::Share },
            named: Vec::new(),
            is_named: BTreeSet::new(),
            known: BTreeMap::new(),
        };
        Ok(Step {
            send: vec![Message::Buckets { sums }],
            ..Step::default()
        })
    }

    /// The one that began tells its facts of as many buckets as fit.
    fn tell(&mut self, buckets: &[u16], facts: &Facts, turn: u64) -> Step {
        let mut packer = Packer::default();
        let mut told = BTreeSet::new();
        for &bucket in buckets {
            let held = facts.hashed_in_bucket(bucket);
            let bytes = held.clone().map(|held| usize::from(held.len)).sum();
            if packer.has_room(held.len(), bytes) {
                held.for_each(|held| packer.put(held));
                packer.end_bucket(bucket);
                told.insert(bucket);
                continue;
            }
            self.is_cut = true;
            if packer.is_empty() {
                // Nobody has so many but who chose the names for it. Of such a bucket nothing can be asked,
                // as it is not told whole, but a part can be told, each time another one.
                let start = (turn % held.len().max(1) as u64) as usize;
                let turned = held.clone().skip(start).chain(held.take(start));
                for held in turned {
                    if !packer.has_room(1, usize::from(held.len)) {
                        break;
                    }
                    packer.put(held);
                }
            }
            break;
        }
        self.stage = Stage::Told(told);
        Step {
            send: packer.finish(),
            ..Step::default()
        }
    }

    /// The one that began to look names the buckets that differ.
    fn ask(&mut self, buckets: Vec<u16>) -> Step {
        self.stage = Stage::Looks {
            left: buckets.iter().copied().collect(),
            done: BTreeSet::new(),
            theirs: BTreeMap::new(),
        };
        Step {
            send: vec![Message::Facts {
                buckets,
                facts: Vec::new(),
                more: false,
            }],
            ..Step::default()
        }
    }

    fn hear(
        &mut self,
        stage: Stage,
        buckets: &[u16],
        told: Vec<Fact>,
        more: bool,
        facts: &Facts,
    ) -> Result<Step, Broken> {
        match stage {
            Stage::Told(mut left) => {
                if !buckets.iter().all(|bucket| left.remove(bucket)) {
                    return Err(Broken::Shape);
                }
                let step = Step {
                    received: told,
                    ..Step::default()
                };
                if more {
                    self.stage = Stage::Told(left);
                    return Ok(step);
                }
                self.is_cut |= !left.is_empty();
                Ok(self.over(step))
            }
            Stage::Looks {
                mut left,
                mut done,
                mut theirs,
            } => {
                // Facts come before the end of their bucket is named, or with it.
                if !told.iter().all(|f| left.contains(&bucket_of(&f.key)))
                    || !buckets.iter().all(|bucket| left.remove(bucket))
                {
                    return Err(Broken::Shape);
                }
                done.extend(buckets);
                theirs.extend(told.into_iter().map(|fact| (fact.key.clone(), fact)));
                if more {
                    self.stage = Stage::Looks { left, done, theirs };
                    return Ok(Step::default());
                }
                self.is_cut |= !left.is_empty();
                Ok(self.over(Step {
                    differences: differences(&done, theirs, facts),
                    ..Step::default()
                }))
            }
            Stage::Listens {
                aim,
                mut named,
                mut is_named,
                mut known,
            } => {
                let is_bucket = |bucket: &u16| usize::from(*bucket) < BUCKETS;
                if !buckets.iter().all(|b| is_bucket(b) && is_named.insert(*b)) {
                    return Err(Broken::Shape);
                }
                if aim == Aim::Look && !told.is_empty() {
                    return Err(Broken::Unexpected);
                }
                named.extend(buckets);
                known.extend(told.iter().map(|fact| {
                    let hash = hash(&postcard::to_allocvec(fact).unwrap_or_default());
                    (hash_of(&fact.key), (fact.stamp, hash))
                }));
                let step = Step {
                    received: told,
                    ..Step::default()
                };
                if more {
                    self.stage = Stage::Listens {
                        aim,
                        named,
                        is_named,
                        known,
                    };
                    return Ok(step);
                }
                let send = self.reply(aim, &named, &known, facts);
                Ok(self.over(Step { send, ..step }))
            }
            Stage::Began { .. } | Stage::Waits | Stage::Over => Err(Broken::Unexpected),
        }
    }

    /// The one that was asked tells what the other lacks, as much as fits.
    fn reply(
        &mut self,
        aim: Aim,
        named: &[u16],
        known: &BTreeMap<u64, (Stamp, u64)>,
        facts: &Facts,
    ) -> Vec<Message> {
        let is_lacking = |held: &Hashed| match known.get(&hash_of(&held.fact.key)) {
            // Of two with one stamp it is quicker to tell than to find out which one holds.
            Some((stamp, hash)) => held.fact.stamp >= *stamp && held.hash != *hash,
            None => true,
        };
        let mut packer = Packer::default();
        'all: for &bucket in named {
            for held in facts.hashed_in_bucket(bucket) {
                if aim == Aim::Share && !is_lacking(held) {
                    continue;
                }
                if !packer.has_room(1, usize::from(held.len)) {
                    self.is_cut = true;
                    break 'all;
                }
                packer.put(held);
            }
            packer.end_bucket(bucket);
        }
        packer.finish()
    }

    fn over(&mut self, step: Step) -> Step {
        self.stage = Stage::Over;
        let end = if self.is_cut { End::Cut } else { End::Over };
        Step { end, ..step }
    }
}

/// The buckets whose sums differ, in order.
fn differing(theirs: &[(u8, Vec<u64>)], facts: &Facts) -> Result<Vec<u16>, Broken> {
    let is_ascending = theirs.windows(2).all(|w| w[0].0 < w[1].0);
    let is_shaped = |(group, sums): &(u8, Vec<u64>)| {
        usize::from(*group) < GROUPS && sums.len() == BUCKETS_OF_GROUP
    };
    if theirs.is_empty() || !is_ascending || !theirs.iter().all(is_shaped) {
        return Err(Broken::Shape);
    }
    let of_group = |(group, sums): &(u8, Vec<u64>)| {
        let first = u16::from(*group) * BUCKETS_OF_GROUP as u16;
        let ours = facts.buckets(usize::from(*group));
        let pairs = (first..).zip(sums.clone().into_iter().zip(ours));
        pairs.filter(|(_, (a, b))| a != b).map(|(bucket, _)| bucket)
    };
    Ok(theirs.iter().flat_map(of_group).collect())
}

fn differences(
    buckets: &BTreeSet<u16>,
    mut theirs: BTreeMap<Key, Fact>,
    facts: &Facts,
) -> Vec<Difference> {
    let mut all = Vec::new();
    for here in buckets.iter().flat_map(|&bucket| facts.in_bucket(bucket)) {
        let there = theirs.remove(&here.key);
        if there.as_ref() != Some(here) {
            all.push(Difference {
                key: here.key.clone(),
                here: Some(here.clone()),
                there,
            });
        }
    }
    // Of a bucket that was cut, who knows what would have come.
    let left = theirs.into_values();
    let left = left.filter(|there| buckets.contains(&bucket_of(&there.key)));
    all.extend(left.map(|there| Difference {
        key: there.key.clone(),
        here: None,
        there: Some(there),
    }));
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all
}
