//! Values with units as users write them: durations, sizes, ratios. Text to value and back.
//!
//! - Durations: whole numbers with `ms`, `s`, `m`, `h` or `d`, larger units first: `"250ms"`, `"5s"`,
//!   `"1m30s"`. Resolution one millisecond, at most 365 days. A number without a unit is an error.
//! - Sizes: one whole number with `B`, `kB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB`
//!   (powers of 1024): `"64KiB"`, `"10MB"`. At most 2^53 bytes, what every JSON reader keeps exact.
//! - Ratios: `0.25` or `"25%"`, from 0 to 1.

use std::fmt::Write as _;
use std::time::Duration;

/// Longest duration: a year. Longer ones are typing errors, and sums of deadlines cannot overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(365 * 86_400);

/// Largest size: 2^53 bytes (8 PiB).
pub const MAX_SIZE: u64 = 1 << 53;

/// Milliseconds of each unit, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Bytes of each unit; printing takes the first that divides.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

/// Why a text is not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// `1.5s`
    #[error("has a fraction")]
    Fraction,
    /// Digits without a unit.
    #[error("has no unit")]
    NoUnit,
    /// Does not begin with a digit.
    #[error("is not a number with a unit")]
    NotANumber,
    /// `1s1m`, `1s1s`
    #[error("has its units out of order")]
    Order,
    /// Outside 0-1.
    #[error("is not between 0 and 1 (0% and 100%)")]
    RatioRange,
    /// Above the limit of the kind.
    #[error("is larger than {0}")]
    TooLarge(&'static str),
    /// A unit that is not known.
    #[error("has the unknown unit `{0}`")]
    Unit(String),
}

/// Reads a duration.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const LIMIT: UnitError = UnitError::TooLarge("365d");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(UnitError::Empty);
    }
    let mut total = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (count, unit, tail) = number_and_unit(rest)?;
        let index = DURATION_UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(|| UnitError::Unit(clip(unit)))?;
        if index < next_unit {
            return Err(UnitError::Order);
        }
        next_unit = index + 1;
        let ms = count
            .and_then(|n| n.checked_mul(DURATION_UNITS[index].1))
            .ok_or(LIMIT)?;
        total = total.checked_add(ms).ok_or(LIMIT)?;
        rest = tail;
    }
    let duration = Duration::from_millis(total);
    if duration > MAX_DURATION {
        Err(LIMIT)
    } else {
        Ok(duration)
    }
}

/// Writes a duration so that [`parse_duration`] reads the same, to the millisecond.
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, ms) in DURATION_UNITS {
        let count = left / ms;
        left %= ms;
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(out, "{count}{unit}");
        }
    }
    out
}

/// Reads a size in bytes.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    const LIMIT: UnitError = UnitError::TooLarge("8 PiB");
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let (count, unit, tail) = number_and_unit(text)?;
    let bytes = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit && tail.is_empty());
    let Some((_, bytes)) = bytes else {
        let unit = text
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start();
        return Err(UnitError::Unit(clip(unit)));
    };
    let size = count.and_then(|n| n.checked_mul(*bytes)).ok_or(LIMIT)?;
    if size > MAX_SIZE {
        Err(LIMIT)
    } else {
        Ok(size)
    }
}

/// Writes a size so that [`parse_size`] reads the same.
pub fn format_size(bytes: u64) -> String {
    let unit = SIZE_UNITS
        .iter()
        .find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    let (unit, size) = unit.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

/// Reads a ratio written as text: `"20%"` or `"0.2"`.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_ratio(text: &str) -> Result<f64, UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let (number, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let value: f64 = number.parse().map_err(|_| UnitError::NotANumber)?;
    ratio(value / scale)
}

/// Checks a ratio given as a number.
///
/// # Errors
/// [`UnitError::RatioRange`], for NaN too.
pub fn ratio(value: f64) -> Result<f64, UnitError> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(UnitError::RatioRange)
    }
}

/// Writes a ratio so that [`parse_ratio`] reads the same.
pub fn format_ratio(ratio: f64) -> String {
    format!("{ratio}")
}

/// Splits `12msREST` into the number (`None` when it does not fit), the unit and the rest.
fn number_and_unit(text: &str) -> Result<(Option<u64>, &str, &str), UnitError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NotANumber);
    }
    let rest = rest.trim_start();
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let letters = rest
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(if rest.is_empty() {
            UnitError::NoUnit
        } else {
            UnitError::Unit(clip(rest))
        });
    }
    Ok((number.parse().ok(), unit, tail.trim_start()))
}

/// Keeps messages short whatever the file holds.
fn clip(text: &str) -> String {
    text.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let ms = |n| Ok(Duration::from_millis(n));
        assert_eq!(parse_duration("250ms"), ms(250));
        assert_eq!(parse_duration("5s"), ms(5000));
        assert_eq!(parse_duration("1m30s"), ms(90_000));
        assert_eq!(parse_duration("1h 15m"), ms(4_500_000));
        assert_eq!(parse_duration("0s"), ms(0));
        assert_eq!(parse_duration("365d"), Ok(MAX_DURATION));
        assert_eq!(parse_duration("366d"), Err(UnitError::TooLarge("365d")));
        assert_eq!(
            parse_duration("99999999999999999999s"),
            Err(UnitError::TooLarge("365d"))
        );
        assert_eq!(
            parse_duration("18446744073709551615d"),
            Err(UnitError::TooLarge("365d"))
        );
        assert_eq!(parse_duration("30"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration(" "), Err(UnitError::Empty));
        assert_eq!(parse_duration("s"), Err(UnitError::NotANumber));
        assert_eq!(parse_duration("-5s"), Err(UnitError::NotANumber));
        assert_eq!(parse_duration("1.5s"), Err(UnitError::Fraction));
        assert_eq!(parse_duration("30s1m"), Err(UnitError::Order));
        assert_eq!(parse_duration("1s1s"), Err(UnitError::Order));
        assert_eq!(
            parse_duration("5sec"),
            Err(UnitError::Unit("sec".to_owned()))
        );
        assert_eq!(parse_duration("5s!"), Err(UnitError::NotANumber));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("0B"), Ok(0));
        assert_eq!(parse_size("1 MiB"), Ok(1 << 20));
        assert_eq!(parse_size("8388608GiB"), Ok(MAX_SIZE));
        assert_eq!(parse_size("8388609GiB"), Err(UnitError::TooLarge("8 PiB")));
        assert_eq!(
            parse_size("99999999999999999999B"),
            Err(UnitError::TooLarge("8 PiB"))
        );
        assert_eq!(parse_size("64"), Err(UnitError::NoUnit));
        assert_eq!(parse_size("64k"), Err(UnitError::Unit("k".to_owned())));
        assert_eq!(parse_size("1MiB1"), Err(UnitError::Unit("MiB1".to_owned())));
        assert_eq!(parse_size("1.5MB"), Err(UnitError::Fraction));
        assert_eq!(format_size(65_536), "64KiB");
        assert_eq!(format_size(10_000_000), "10MB");
        assert_eq!(format_size(1001), "1001B");
        assert_eq!(format_size(0), "0B");
    }

    #[test]
    fn ratios() {
        assert_eq!(parse_ratio("20%"), Ok(0.2));
        assert_eq!(parse_ratio("0.5"), Ok(0.5));
        assert_eq!(parse_ratio("100 %"), Ok(1.0));
        assert_eq!(parse_ratio("101%"), Err(UnitError::RatioRange));
        assert_eq!(parse_ratio("-1%"), Err(UnitError::RatioRange));
        assert_eq!(parse_ratio("NaN"), Err(UnitError::RatioRange));
        assert_eq!(parse_ratio("inf"), Err(UnitError::RatioRange));
        assert_eq!(parse_ratio("half"), Err(UnitError::NotANumber));
        assert_eq!(ratio(f64::NAN), Err(UnitError::RatioRange));
    }

    proptest! {
        #[test]
        fn printed_durations_read_back(ms in 0u64..=365 * 86_400_000) {
            let d = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(d)), Ok(d));
        }

        #[test]
        fn printed_sizes_read_back(bytes in 0u64..=MAX_SIZE, shift in 0u32..50) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn printed_ratios_read_back(r in 0.0f64..=1.0) {
            prop_assert_eq!(parse_ratio(&format_ratio(r)), Ok(r));
        }

        #[test]
        fn junk_is_an_error_not_a_panic(text in "\\PC*", number in "[0-9]{0,25}[a-zA-Z% .é]{0,6}") {
            for text in [text.as_str(), number.as_str()] {
                if let Ok(d) = parse_duration(text) { prop_assert!(d <= MAX_DURATION); }
                if let Ok(s) = parse_size(text) { prop_assert!(s <= MAX_SIZE); }
                if let Ok(r) = parse_ratio(text) { prop_assert!((0.0..=1.0).contains(&r)); }
            }
        }
    }
}
