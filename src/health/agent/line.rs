//! The line in which an endpoint speaks of itself: HAProxy's agent-check protocol (configuration
//! manual, `agent-check`; `tcpcheck_agent_expect_reply` in its `tcpcheck.c`). Pure.
//!
//! Words in any order, between spaces, tabs or commas; case does not matter; of two of a kind the
//! later one holds. `#` at the beginning of a word begins a description for people.
//!
//! | word | meaning |
//! |---|---|
//! | `75%` | this share of the configured weight |
//! | `maxconn:30` | so many exchanges in flight at most; 0 takes that back |
//! | `ready`, `drain`, `maint` | whom it serves: everybody, who holds its cookie, nobody |
//! | `up`, `down`, `fail`, `failed`, `stopped` | whether it is well |

use crate::upstream::said::{Admin, Said, Words};

/// Most bytes of a line that are looked at.
pub const MAX_LINE: usize = 1024;

/// A line, understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line<'a> {
    /// What it says.
    pub words: Words,
    /// What follows `#`; not trusted to be text.
    pub description: &'a [u8],
    /// The first word that is none of the protocol; the others hold.
    pub unknown: Option<&'a [u8]>,
}

/// The first line of `bytes`, without its end; `None` = its end has not come: half a word may be
/// another word.
pub fn first(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n'))?;
    Some(&bytes[..end])
}

/// Reads a line, or the value of a header: what is after its first line end, or after
/// [`MAX_LINE`] bytes, is not looked at.
pub fn parse(line: &[u8]) -> Line<'_> {
    let line = first(line).unwrap_or(line);
    let mut rest = &line[..line.len().min(MAX_LINE)];
    let mut found = Line::default();
    loop {
        rest = skip(rest);
        match rest {
            [] => return found,
            [b'#', description @ ..] => {
                found.description = description.trim_ascii();
                return found;
            }
            _ => {}
        }
        let end = rest.iter().position(|b| is_space(*b));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        if found.words.take(word).is_none() {
            found.unknown = found.unknown.or(Some(word));
        }
    }
}

fn skip(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|b| !is_space(*b));
    &bytes[begin.unwrap_or(bytes.len())..]
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b',')
}

/// Digits, at most `max`; more is `max`, as HAProxy has it.
fn number(digits: &[u8], max: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |n, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(n.saturating_mul(10).saturating_add(digit).min(max))
    })
}

// === impl Words ===

impl Words {
    /// Takes a word in; `None` = it is none of the protocol.
    fn take(&mut self, word: &[u8]) -> Option<()> {
        let is = |this: &str| word.eq_ignore_ascii_case(this.as_bytes());
        if let Some(digits) = word.strip_suffix(b"%") {
            let percent = number(digits, u32::from(Said::MAX_PERCENT))?;
            self.weight_percent = Some(percent as u16);
            return Some(());
        }
        if let Some((name, digits)) = word.split_at_checked(MAXCONN.len())
            && name.eq_ignore_ascii_case(MAXCONN)
        {
            self.max_connections = Some(number(digits, u32::MAX)?);
            return Some(());
        }
        for admin in [Admin::Ready, Admin::Drain, Admin::Maint] {
            if is(admin.as_str()) {
                self.admin = Some(admin);
                return Some(());
            }
        }
        self.is_down = match word {
            _ if is("up") => Some(false),
            _ if ["down", "fail", "failed", "stopped"].into_iter().any(is) => Some(true),
            _ => return None,
        };
        Some(())
    }
}

const MAXCONN: &[u8] = b"maxconn:";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn said(line: &str) -> String {
        let line = parse(line.as_bytes());
        let mut text = Said::default().with(&line.words).to_string();
        if !line.description.is_empty() {
            text += &format!(" #{}", String::from_utf8_lossy(line.description));
        }
        if let Some(unknown) = line.unknown {
            text += &format!(" ?{}", String::from_utf8_lossy(unknown));
        }
        text
    }

    #[test]
    fn words_of_the_manual() {
        for (line, wanted) in [
            ("75%", "75%"),
            ("0%", "0%"),
            ("100%", "ready"),
            ("99999999999999999999%", "25600%"),
            ("maxconn:30", "maxconn:30"),
            ("MaxConn:99999999999", "maxconn:4294967295"),
            ("maxconn:0", "ready"),
            ("drain", "drain"),
            ("MAINT", "maint"),
            ("down", "down"),
            ("fail", "down"),
            ("failed", "down"),
            ("stopped", "down"),
            ("up ready 75%", "75%"),
            ("ready,up,\t50%\tmaxconn:7 ", "50% maxconn:7"),
            // The last of its kind holds.
            ("drain maint 10% 20% down up", "maint 20%"),
            ("down #  disk full, up soon ", "down #disk full, up soon"),
            ("#drain", "ready #drain"),
            ("", "ready"),
            (" ,\t, ", "ready"),
        ] {
            assert_eq!(said(line), wanted, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_word_is_told_and_the_others_hold() {
        for (line, wanted) in [
            ("banana 75% apple", "75% ?banana"),
            ("%", "ready ?%"),
            ("-1%", "ready ?-1%"),
            ("+5%", "ready ?+5%"),
            ("7 5%", "5% ?7"),
            ("75%%", "ready ?75%%"),
            ("maxconn:", "ready ?maxconn:"),
            ("maxconn:-3 drain", "drain ?maxconn:-3"),
            ("maxconn: 30", "ready ?maxconn:"),
            ("maxconn", "ready ?maxconn"),
            ("down#why", "ready ?down#why"),
            ("\u{e9}t\u{e9}", "ready ?\u{e9}t\u{e9}"),
        ] {
            assert_eq!(said(line), wanted, "{line:?}");
        }
    }

    #[test]
    fn only_the_first_line_and_only_a_whole_one() {
        assert_eq!(first(b"maxconn:3"), None);
        assert_eq!(first(b"maxconn:30\nup"), Some(&b"maxconn:30"[..]));
        assert_eq!(first(b"up\r\ndown"), Some(&b"up"[..]));
        assert_eq!(first(b"\n"), Some(&b""[..]));
        assert_eq!(said("up\ndown"), "ready");
        assert_eq!(said("\rdown"), "ready");
    }

    #[test]
    fn a_long_line_is_read_so_far() {
        let mut line = " ".repeat(MAX_LINE - 4);
        line += "down maint";
        assert_eq!(said(&line), "down");
    }

    #[test]
    fn nothing_panics() {
        let mut rng = Rng::new(0xa6e7);
        let parts: [&[u8]; 12] = [
            b"up",
            b"down",
            b"%",
            b"75",
            b"maxconn:",
            b"#",
            b" ",
            b",",
            b"\n",
            b"\xff\0",
            b"drain",
            b"ready",
        ];
        for _ in 0..20_000 {
            let line: Vec<u8> = (0..rng.below(8))
                .flat_map(|_| parts[rng.below(parts.len())])
                .copied()
                .collect();
            let found = parse(&line);
            let said = Said::default().with(&found.words);
            // What is said in words is understood as said.
            let text = said.to_string();
            assert_eq!(Said::default().with(&parse(text.as_bytes()).words), said);
        }
    }
}
