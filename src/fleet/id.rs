//! Who a peer is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The identity of a peer: 64 random bits, drawn once and kept in its `state_dir`. Sixteen hexadecimal digits
/// for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerId(pub u64);

/// A text is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a peer is named by 16 hexadecimal digits, as `isobar fleet members` shows them")]
pub struct NotAPeer;

// === impl PeerId ===

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for PeerId {
    type Err = NotAPeer;

    fn from_str(text: &str) -> Result<Self, NotAPeer> {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(NotAPeer);
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NotAPeer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_leads_back() {
        for id in [0, 1, 0xfeed, u64::MAX] {
            let text = PeerId(id).to_string();
            assert_eq!(text.len(), 16);
            assert_eq!(text.parse(), Ok(PeerId(id)));
        }
        for text in [
            "",
            "1",
            "00000000000000001",
            "+000000000000001",
            "000000000000000G",
            "000000000000000A",
        ] {
            assert_eq!(text.parse::<PeerId>(), Err(NotAPeer), "{text}");
        }
    }
}
