//! What an endpoint is to who looks at the facts.

/// What an endpoint is here, before what is said now has effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// A member that checks find down.
    Down,
    /// A member that is to have no picks before a check has found it up.
    Held,
    /// A member that is taken for well: no check has found it up yet, or nobody checks it.
    Taken,
    /// No member, or one without weight.
    #[default]
    Unknown,
    /// A member that checks have found up.
    Up,
}

// === impl Seen ===

impl Seen {
    /// Whether it takes nothing from anybody to take it away.
    pub(super) const fn is_down(self) -> bool {
        match self {
            Self::Down | Self::Held => true,
            Self::Taken | Self::Unknown | Self::Up => false,
        }
    }

    /// Whether it is served, or was until checks found it down: it is not new.
    pub(super) const fn is_old(self) -> bool {
        match self {
            Self::Down | Self::Taken | Self::Up => true,
            Self::Held | Self::Unknown => false,
        }
    }
}
