//! What is said of one endpoint, each thing by itself: the form in which peers tell each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::addr::EndpointAddr;

use super::{AdminState, By, Field, Held, Overrides, Said};

/// All that is said of one endpoint. Parts do not know of each other: of a fleet, one operator may say that it
/// leaves while another one says that it drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// That it joins or leaves; without a meaning where an upstream is not `dynamic`. `None` = the file and
    /// registrations alone say who is a member.
    pub member: Option<Said<Membership>>,
    /// `None` = active.
    pub state: Option<Said<AdminState>>,
    /// `None` = the weight of the file, of the addition or of the registration.
    pub weight: Option<Said<u32>>,
}

/// What is said of whether an endpoint is a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It joins, with this weight.
    Joins(u32),
    /// It leaves, whoever else says that it is one.
    Leaves,
}

/// What is said, in one word; which of them fit which [`Field`] is clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It joins, with this weight.
    Joins(u32),
    /// It leaves, though the file lists it.
    Leaves,
    /// It drains.
    Drain,
    /// It gets nothing.
    Disable,
    /// It has this weight.
    Weight(u32),
}

/// One part that is new, and what it says now; `None` = nothing any more.
pub type Changed = (Field, Option<(Word, By)>);

// === impl Word ===

impl Word {
    /// Which part it speaks of.
    pub const fn field(self) -> Field {
        match self {
            Self::Joins(_) | Self::Leaves => Field::Member,
            Self::Drain | Self::Disable => Field::State,
            Self::Weight(_) => Field::Weight,
        }
    }

    /// Whether an endpoint of which it is said takes no new picks.
    pub const fn takes_away(self) -> bool {
        match self {
            Self::Leaves | Self::Drain | Self::Disable | Self::Weight(0) => true,
            Self::Joins(_) | Self::Weight(_) => false,
        }
    }
}

/// `drain`, `weight 5`, `the removal`
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joins(weight) => write!(f, "the addition with weight {weight}"),
            Self::Leaves => f.write_str("the removal"),
            Self::Drain => f.write_str("drain"),
            Self::Disable => f.write_str("disable"),
            Self::Weight(weight) => write!(f, "weight {weight}"),
        }
    }
}

impl From<Membership> for Word {
    fn from(membership: Membership) -> Self {
        match membership {
            Membership::Joins(weight) => Self::Joins(weight),
            Membership::Leaves => Self::Leaves,
        }
    }
}

impl From<AdminState> for Word {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Disable => Self::Disable,
            AdminState::Drain => Self::Drain,
        }
    }
}

// === impl Parts ===

impl Parts {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.member.is_none() && self.state.is_none() && self.weight.is_none()
    }

    /// One part as a word.
    pub fn word(&self, field: Field) -> Option<(Word, &By)> {
        match field {
            Field::Member => {
                let said = self.member.as_ref()?;
                Some((said.value.into(), &said.by))
            }
            Field::State => {
                let said = self.state.as_ref()?;
                Some((said.value.into(), &said.by))
            }
            Field::Weight => {
                let said = self.weight.as_ref()?;
                Some((Word::Weight(said.value), &said.by))
            }
        }
    }

    /// Takes in a word in its place.
    pub fn say(&mut self, word: Word, by: By) {
        match word {
            Word::Joins(weight) => {
                let value = Membership::Joins(weight);
                self.member = Some(Said { value, by });
            }
            Word::Leaves => {
                let value = Membership::Leaves;
                self.member = Some(Said { value, by });
            }
            Word::Drain => {
                let value = AdminState::Drain;
                self.state = Some(Said { value, by });
            }
            Word::Disable => {
                let value = AdminState::Disable;
                self.state = Some(Said { value, by });
            }
            Word::Weight(value) => self.weight = Some(Said { value, by }),
        }
    }
}

// === impl Field ===

impl Field {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Member, Self::State, Self::Weight];
}

// === impl Overrides ===

impl Overrides {
    /// What is said of one endpoint, each thing by itself.
    pub fn parts(&self, upstream: &str, endpoint: &EndpointAddr) -> Parts {
        self.entry(upstream, endpoint).cloned().unwrap_or_default()
    }
}

/// What an operator's change to one endpoint has made new, for the fleet to hear. What was held back of what the
/// fleet says ([`Held`]) and is no more, is new as well: the operator has taken it back.
pub fn changed_parts(
    before: &Overrides,
    after: &Overrides,
    upstream: &str,
    endpoint: &EndpointAddr,
) -> Vec<Changed> {
    let (was, is) = (
        before.parts(upstream, endpoint),
        after.parts(upstream, endpoint),
    );
    let (held, holds) = (
        before.held(upstream, endpoint),
        after.held(upstream, endpoint),
    );
    let is_new = |field: &Field| {
        let has = |all: &[Held]| all.iter().any(|h| h.word.field() == *field);
        was.word(*field) != is.word(*field) || has(held) && !has(holds)
    };
    let fields = Field::ALL.into_iter().filter(is_new);
    fields
        .map(|field| (field, is.word(field).map(|(word, by)| (word, by.clone()))))
        .collect()
}
