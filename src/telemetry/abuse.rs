//! What ends a connection of HTTP/2 because its client abuses it: one enum for the metrics and the log.

use std::fmt;

/// How a client abuses its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Abuse {
    /// A header block in too many pieces, or in empty ones (CVE-2024-27316).
    Continuation,
    /// Frames that move nothing: empty DATA and HEADERS, PRIORITY, unknown types, acknowledgements
    /// of nothing, WINDOW_UPDATE that nothing explains (CVE-2019-9513, -9518).
    IdleFrames,
    /// PING (CVE-2019-9512).
    Pings,
    /// Streams that it makes us reset (MadeYouReset, CVE-2025-8671).
    ProvokedResets,
    /// Streams that it opens and cancels (rapid reset, CVE-2023-44487).
    Resets,
    /// SETTINGS (CVE-2019-9515).
    Settings,
}

// === impl Abuse ===

impl Abuse {
    /// Every kind, in the order of its [`index`](Self::index).
    pub const ALL: [Self; 6] = [
        Self::Continuation,
        Self::IdleFrames,
        Self::Pings,
        Self::ProvokedResets,
        Self::Resets,
        Self::Settings,
    ];

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::IdleFrames => "idle_frames",
            Self::Pings => "ping",
            Self::ProvokedResets => "provoked_reset",
            Self::Resets => "rapid_reset",
            Self::Settings => "settings",
        }
    }
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_place_and_word() {
        let mut words = HashSet::new();
        for (i, abuse) in Abuse::ALL.into_iter().enumerate() {
            assert_eq!(abuse.index(), i);
            assert!(words.insert(abuse.as_str()), "{abuse} twice");
        }
        assert_eq!(
            Abuse::Settings.index() + 1,
            Abuse::ALL.len(),
            "ALL holds the last one"
        );
    }
}
