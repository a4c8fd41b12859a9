//! What an endpoint says of itself: by its agent's line, or in a response header.
//!
//! Words in, a small value out, kept in one atomic of the [`Endpoint`](super::Endpoint). What an
//! endpoint never spoke of is as configured; only the endpoint takes back what it said.

use std::fmt;
use std::num::NonZeroU32;

use super::Admits;

/// What an endpoint says of itself, all in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Share of the configured weight that it wants, in percent, at most [`Said::MAX_PERCENT`]; with
    /// 0 it drains.
    pub weight_percent: u16,
    /// Whom it wants to serve.
    pub admin: Admin,
    /// It says that it is down, whatever checks find.
    pub is_down: bool,
    /// Exchanges that it wants in flight at most; `None` = as configured.
    pub max_connections: Option<NonZeroU32>,
}

/// Whom an endpoint wants to serve, in HAProxy's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Admin {
    /// Everybody.
    #[default]
    Ready,
    /// Only who holds its sticky cookie.
    Drain,
    /// Nobody.
    Maint,
}

/// What one line says; `None` = it does not speak of that, which stays as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// See [`Said::weight_percent`].
    pub weight_percent: Option<u16>,
    /// See [`Said::admin`].
    pub admin: Option<Admin>,
    /// See [`Said::is_down`].
    pub is_down: Option<bool>,
    /// See [`Said::max_connections`]; `Some(0)` takes back what was said.
    pub max_connections: Option<u32>,
}

/// The weights of members (configured, said), in proportion. As configured while nobody wants
/// another share; else in lowest terms and at most [`MAX_WEIGHT`], so that 75 % of 1 beside 1 is 3
/// beside 4. Whoever is above 0 stays so.
pub fn weights(members: &[(u32, Said)]) -> Vec<u32> {
    if members.iter().all(|(_, said)| said.weight_percent == 100) {
        return members.iter().map(|(weight, _)| *weight).collect();
    }
    let wanted: Vec<u64> = members
        .iter()
        .map(|(weight, said)| u64::from(*weight) * u64::from(said.weight_percent))
        .collect();
    let divisor = wanted.iter().copied().fold(0, gcd).max(1);
    let most = wanted.iter().copied().max().unwrap_or(0) / divisor;
    wanted
        .iter()
        .map(|wanted| match wanted / divisor {
            0 => 0,
            weight if most <= u64::from(MAX_WEIGHT) => weight as u32,
            weight => {
                let scaled = u128::from(weight) * u128::from(MAX_WEIGHT) / u128::from(most);
                (scaled as u32).max(1)
            }
        })
        .collect()
}

/// Largest weight after scaling, as in the file: tables of the hash policies grow with it.
pub const MAX_WEIGHT: u32 = 1000;

// === impl Said ===

impl Said {
    /// HAProxy's bound: 256 times the configured weight.
    pub const MAX_PERCENT: u16 = 25_600;

    /// What holds after a line.
    #[must_use]
    pub fn with(self, words: &Words) -> Self {
        Self {
            weight_percent: words.weight_percent.map_or(self.weight_percent, |percent| {
                percent.min(Self::MAX_PERCENT)
            }),
            admin: words.admin.unwrap_or(self.admin),
            is_down: words.is_down.unwrap_or(self.is_down),
            max_connections: words
                .max_connections
                .map_or(self.max_connections, NonZeroU32::new),
        }
    }

    /// Whom it serves where an operator says `configured`: the stricter word wins.
    pub fn admits(self, configured: Admits) -> Admits {
        let own = match self.admin {
            _ if self.is_down => Admits::Nobody,
            Admin::Maint => Admits::Nobody,
            Admin::Drain => Admits::Sticky,
            Admin::Ready if self.weight_percent == 0 => Admits::Sticky,
            Admin::Ready => Admits::All,
        };
        match (own, configured) {
            (Admits::Nobody, _) | (_, Admits::Nobody) => Admits::Nobody,
            (Admits::Sticky, _) | (_, Admits::Sticky) => Admits::Sticky,
            (Admits::All, Admits::All) => Admits::All,
        }
    }

    /// Its limit of exchanges in flight where the file says `configured`.
    pub fn limit(self, configured: Option<NonZeroU32>) -> Option<NonZeroU32> {
        self.max_connections.or(configured)
    }

    /// Bits 0-31 the connections, 32-47 the percent, 48-49 the admin word, 50 down.
    pub(super) fn pack(self) -> u64 {
        u64::from(self.max_connections.map_or(0, NonZeroU32::get))
            | u64::from(self.weight_percent) << 32
            | (self.admin as u64) << 48
            | u64::from(self.is_down) << 50
    }

    /// What [`Said::pack`] made.
    pub(super) fn unpack(bits: u64) -> Self {
        Self {
            weight_percent: (bits >> 32) as u16,
            admin: match bits >> 48 & 3 {
                1 => Admin::Drain,
                2 => Admin::Maint,
                _ => Admin::Ready,
            },
            is_down: bits >> 50 & 1 == 1,
            max_connections: NonZeroU32::new(bits as u32),
        }
    }
}

impl Default for Said {
    /// An endpoint that never spoke.
    fn default() -> Self {
        Self {
            weight_percent: 100,
            admin: Admin::Ready,
            is_down: false,
            max_connections: None,
        }
    }
}

/// The words that would say so: `drain 75% maxconn:30`; `ready` if there is nothing to say.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin = match self.admin {
            Admin::Ready if *self != Self::default() => None,
            admin => Some(admin.as_str().to_owned()),
        };
        let percent = (self.weight_percent != 100).then(|| format!("{}%", self.weight_percent));
        let limit = self.max_connections.map(|n| format!("maxconn:{n}"));
        let down = self.is_down.then(|| "down".to_owned());
        let words: Vec<_> = [down, admin, percent, limit]
            .into_iter()
            .flatten()
            .collect();
        f.write_str(&words.join(" "))
    }
}

// === impl Admin ===

impl Admin {
    /// HAProxy's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(weight_percent: u16) -> Said {
        Said {
            weight_percent,
            ..Said::default()
        }
    }

    #[test]
    fn packing_keeps_everything() {
        let mut all = Vec::new();
        for weight_percent in [0, 1, 100, Said::MAX_PERCENT, u16::MAX] {
            for admin in [Admin::Ready, Admin::Drain, Admin::Maint] {
                for is_down in [false, true] {
                    for max in [0, 1, u32::MAX] {
                        all.push(Said {
                            weight_percent,
                            admin,
                            is_down,
                            max_connections: NonZeroU32::new(max),
                        });
                    }
                }
            }
        }
        assert!(all.iter().all(|said| Said::unpack(said.pack()) == *said));
    }

    #[test]
    fn a_line_changes_only_what_it_speaks_of() {
        let drained = Said::default().with(&Words {
            admin: Some(Admin::Drain),
            max_connections: Some(30),
            ..Words::default()
        });
        let heavy = drained.with(&Words {
            weight_percent: Some(u16::MAX),
            is_down: Some(true),
            ..Words::default()
        });
        assert_eq!(heavy.admin, Admin::Drain);
        assert_eq!(heavy.weight_percent, Said::MAX_PERCENT);
        assert_eq!(heavy.to_string(), "down drain 25600% maxconn:30");
        let back = heavy.with(&Words {
            weight_percent: Some(100),
            admin: Some(Admin::Ready),
            is_down: Some(false),
            max_connections: Some(0),
        });
        assert_eq!(back, Said::default());
        assert_eq!(back.to_string(), "ready");
        assert_eq!(back.with(&Words::default()), back);
    }

    #[test]
    fn the_stricter_word_wins() {
        use Admits::{All, Nobody, Sticky};
        let admin = |admin| Said {
            admin,
            ..Said::default()
        };
        let down = Said {
            is_down: true,
            ..Said::default()
        };
        for (said, own) in [
            (Said::default(), All),
            (admin(Admin::Drain), Sticky),
            (percent(0), Sticky),
            (admin(Admin::Maint), Nobody),
            (down, Nobody),
        ] {
            let after = [All, Sticky, Nobody].map(|configured| said.admits(configured));
            let wanted = match own {
                All => [All, Sticky, Nobody],
                Sticky => [Sticky, Sticky, Nobody],
                Nobody => [Nobody; 3],
            };
            assert_eq!(after, wanted, "{said}");
        }
    }

    #[test]
    fn weights_are_in_proportion_and_in_lowest_terms() {
        let all = |pairs: &[(u32, u16)]| {
            let members: Vec<_> = pairs.iter().map(|(w, p)| (*w, percent(*p))).collect();
            weights(&members)
        };
        assert_eq!(all(&[]), [0; 0]);
        // As configured, not reduced: tables built for them stay the same.
        assert_eq!(all(&[(2, 100), (4, 100)]), [2, 4]);
        assert_eq!(all(&[(1, 75), (1, 100)]), [3, 4]);
        assert_eq!(all(&[(1, 50), (1, 100), (2, 100)]), [1, 2, 4]);
        assert_eq!(all(&[(1, 0), (1, 100)]), [0, 1]);
        assert_eq!(all(&[(1, 0), (0, 100)]), [0, 0]);
        // Nobody who wants something ends with nothing.
        assert_eq!(all(&[(1, 1), (1000, 25_600)]), [1, 1000]);
        assert_eq!(all(&[(1000, 100), (997, 99)]), [1000, 987]);
    }

    #[test]
    fn its_own_limit_replaces_the_configured_one() {
        let ten = NonZeroU32::new(10);
        assert_eq!(Said::default().limit(ten), ten);
        let said = Said {
            max_connections: NonZeroU32::new(3),
            ..Said::default()
        };
        assert_eq!(said.limit(ten), NonZeroU32::new(3));
        assert_eq!(said.limit(None), NonZeroU32::new(3));
    }
}
