//! How much may be sent where a client may be.

/// What may be sent to a place that a client may have moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// So many bytes.
    Bytes(usize),
    /// Anything: the client was there.
    All,
}

/// Bytes to an address where nobody has shown to be, for one from there: RFC 9000 section 8.
const AMPLIFICATION: usize = 3;

// === impl Allowance ===

impl Allowance {
    /// What it is after `len` bytes came from there: RFC 9000 section 8.2 allows three times as many.
    pub(super) fn add(self, len: usize) -> Self {
        match self {
            Self::Bytes(left) => {
                Self::Bytes(left.saturating_add(len.saturating_mul(AMPLIFICATION)))
            }
            Self::All => Self::All,
        }
    }

    /// What is left of it after `len` bytes; `None` = it is less than those.
    pub(super) fn take(self, len: usize) -> Option<Self> {
        match self {
            Self::Bytes(left) => left.checked_sub(len).map(Self::Bytes),
            Self::All => Some(Self::All),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Allowance;

    #[test]
    fn three_bytes_may_go_for_one_that_came() {
        let none = Allowance::Bytes(0);
        assert_eq!(none.take(1), None);
        let some = none.add(100);
        assert_eq!(some, Allowance::Bytes(300));
        assert_eq!(some.take(300), Some(none));
        assert_eq!(some.take(301), None);
        assert_eq!(
            some.take(200).map(|left| left.add(1)),
            Some(Allowance::Bytes(103))
        );
        assert_eq!(Allowance::All.take(usize::MAX), Some(Allowance::All));
    }
}
