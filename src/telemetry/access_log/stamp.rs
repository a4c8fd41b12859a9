//! Timestamps as text, UTC: the part down to the second is made once a second.

use super::Format;

/// The text of the last second asked for.
#[derive(Debug)]
pub(super) struct Stamp {
    second: Option<u64>,
    text: Vec<u8>,
    style: Style,
}

#[derive(Clone, Copy, Debug)]
enum Style {
    /// `21/Nov/2026:03:33:15 +0000`, Apache's `%t` without brackets.
    Apache,
    /// RFC 3339 with milliseconds: `2026-11-21T03:33:15.042Z`.
    Rfc3339,
}

/// A moment as a calendar shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

// === impl Stamp ===

impl Stamp {
    pub(super) fn new(format: Format) -> Self {
        let style = match format {
            Format::Combined | Format::Common => Style::Apache,
            Format::Json | Format::Text => Style::Rfc3339,
        };
        Self {
            second: None,
            text: Vec::with_capacity(32),
            style,
        }
    }

    #[inline]
    pub(super) fn write(&mut self, unix_nanos: u64, out: &mut Vec<u8>) {
        let second = unix_nanos / 1_000_000_000;
        if self.second != Some(second) {
            self.render(second);
        }
        out.extend_from_slice(&self.text);
        if let Style::Rfc3339 = self.style {
            let ms = (unix_nanos / 1_000_000 % 1000) as u32;
            let digit = |n: u32| b'0' + (n % 10) as u8;
            out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
        }
    }

    #[cold]
    fn render(&mut self, unix: u64) {
        use std::io::Write;
        self.second = Some(unix);
        self.text.clear();
        let Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = Civil::of(unix);
        let done = match self.style {
            Style::Apache => {
                let month = MONTHS[(month - 1) as usize];
                write!(
                    self.text,
                    "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000"
                )
            }
            Style::Rfc3339 => {
                write!(
                    self.text,
                    "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
                )
            }
        };
        done.expect("invariant: writing to a Vec cannot fail");
    }
}

// === impl Civil ===

impl Civil {
    /// The proleptic Gregorian date of a Unix time: H. Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms" (2013), `civil_from_days`, for days not before 1970. Variables as there.
    fn of(unix: u64) -> Self {
        let (days, rest) = (unix / 86_400, unix % 86_400);
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Self {
            year: yoe + era * 400 + u64::from(month <= 2),
            month,
            day: doy - (153 * mp + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(format: Format, unix_nanos: u64) -> String {
        let mut out = Vec::new();
        Stamp::new(format).write(unix_nanos, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Values of `date -u -d @N`.
    #[test]
    fn known_moments() {
        let known = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (1_795_231_995_042_000_000, "2026-11-21T03:33:15.042Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709Z"),
        ];
        for (nanos, text) in known {
            assert_eq!(stamp(Format::Json, nanos), text);
        }
        assert_eq!(
            stamp(Format::Combined, 971_211_336_000_000_000),
            "10/Oct/2000:20:55:36 +0000",
            "the moment of the example in Apache's mod_log_config documentation"
        );
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = Civil::of(0);
        for day in 1..230_000 {
            let next = Civil::of(day * 86_400);
            let same_month =
                (next.year, next.month, next.day) == (last.year, last.month, last.day + 1);
            let next_month = next.day == 1
                && last.day >= 28
                && (next.year * 12 + next.month) == (last.year * 12 + last.month + 1);
            assert!(same_month != next_month, "{last:?} -> {next:?}");
            last = next;
        }
    }

    #[test]
    fn cached_second_is_left_when_time_steps_back() {
        let mut stamp = Stamp::new(Format::Text);
        let mut out = Vec::new();
        for second in [5, 5, 4] {
            stamp.write(second * 1_000_000_000, &mut out);
        }
        let five = "1970-01-01T00:00:05.000Z";
        let four = "1970-01-01T00:00:04.000Z";
        assert_eq!(out, format!("{five}{five}{four}").into_bytes());
    }
}
