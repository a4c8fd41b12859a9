//! What request and response heads share: resuming, line ends, Connection, hop-by-hop marks.

use super::field::{Field, FieldId, elements, is_tchar};
use super::limits::{HARD_MAX_FIELDS, Limits, MAX_CONNECTION_OPTIONS};
use super::refusal::Refusal;

/// The versions that this codec speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: closes unless asked to keep alive, no transfer codings, Host optional.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// Whether a head is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed: call again with the same bytes and more behind them.
    Partial,
    /// `head_len()` bytes of the buffer are the head.
    Complete,
}

/// Remembers how much of a partial head was looked at, so that a head fed byte by byte costs
/// O(n): a parse is tried at first, when the first line ends, when the head ends, and whenever
/// the buffer has doubled (which finds garbage early).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resume {
    scanned: u32,
    tried: u32,
    has_line: bool,
}

/// One bit for each field of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldSet([u64; HARD_MAX_FIELDS / 64]);

/// What the Connection fields ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// An option that may be a field name.
    named: bool,
    count: usize,
}

// === impl Resume ===

impl Resume {
    /// Whether a parse of `buf` can bring news; `buf` begins with what was seen before.
    #[inline]
    pub(super) fn is_due(&mut self, buf: &[u8], limits: &Limits) -> bool {
        if self.tried == 0 && !buf.is_empty() {
            self.tried = buf.len() as u32;
            self.scanned = self.tried;
            return true;
        }
        self.is_due_again(buf, limits)
    }

    #[cold]
    fn is_due_again(&mut self, buf: &[u8], limits: &Limits) -> bool {
        if buf.len() < self.scanned as usize {
            // Not the buffer we know: begin again.
            *self = Self::default();
        }
        // Three bytes back: "\r\n\r" may have been the end of what was there.
        let from = (self.scanned as usize).saturating_sub(3);
        let new = buf.get(from..).unwrap_or_default();
        let mut due = buf.len() >= limits.max_head_bytes
            || buf.len() >= 2 * (self.tried as usize)
            || is_head_end(new);
        if !self.has_line && new.contains(&b'\n') {
            self.has_line = true;
            due = true;
        }
        self.scanned = buf.len() as u32;
        if due {
            self.tried = buf.len() as u32;
        }
        due && !buf.is_empty()
    }
}

/// Whether a line in `bytes` begins with a line end: the head is over, or a bare CR or LF must be
/// refused.
fn is_head_end(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| b == b'\n') {
        rest = &rest[at + 1..];
        if matches!(rest, [b'\n', ..] | [b'\r', _, ..]) {
            return true;
        }
    }
    false
}

// === impl FieldSet ===

impl FieldSet {
    #[inline]
    pub(super) fn insert(&mut self, i: usize) {
        if let Some(word) = self.0.get_mut(i / 64) {
            *word |= 1 << (i % 64);
        }
    }

    #[inline]
    pub(super) fn contains(&self, i: usize) -> bool {
        self.0
            .get(i / 64)
            .is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}

// === impl Options ===

impl Options {
    /// Takes in one Connection value. Options are compared whole, so a quoted or otherwise broken
    /// one is an unknown name and does nothing.
    pub(super) fn note(&mut self, value: &[u8]) {
        // The common whole values, without walking the list.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            self.count += 1;
            return;
        }
        // Options are tokens, hence ASCII. Parsers that read fields as text drop the whole value
        // and with it a keep-alive or a close that others see: closing suits both.
        self.close |= !value.is_ascii();
        for option in elements(value) {
            self.count += 1;
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() {
                self.named = true;
            }
        }
    }

    /// RFC 9112 section 9.3: close wins; 1.1 persists, 1.0 when asked to.
    #[inline]
    pub(super) fn is_persistent(&self, version: Version) -> bool {
        !self.close
            && match version {
                Version::Http10 => self.keep_alive,
                Version::Http11 => true,
            }
    }

    /// Marks the fields that Connection names away.
    #[inline]
    pub(super) fn mark(
        &self,
        buf: &[u8],
        fields: &[Field],
        hop: &mut FieldSet,
    ) -> Result<(), Refusal> {
        if self.count > MAX_CONNECTION_OPTIONS {
            return Err(Refusal::TooManyConnectionOptions);
        }
        if self.named {
            mark_named(buf, fields, hop);
        }
        Ok(())
    }
}

#[cold]
fn mark_named(buf: &[u8], fields: &[Field], hop: &mut FieldSet) {
    for connection in fields.iter().filter(|f| f.id == FieldId::Connection) {
        for option in elements(connection.value.of(buf)) {
            for (i, field) in fields.iter().enumerate() {
                let name = field.name.of(buf);
                if name.eq_ignore_ascii_case(option) && field.id.is_removable(name) {
                    hop.insert(i);
                }
            }
        }
    }
}

/// How the line that ends at `at` ends: where the next begins, or what is wrong. `None` when the
/// bytes do not reach that far; `other` when there is something else than a line end.
pub(super) fn line_end(bytes: &[u8], at: usize, other: Refusal) -> Result<Option<usize>, Refusal> {
    match bytes.get(at..).unwrap_or_default() {
        [b'\r', b'\n', ..] => Ok(Some(at + 2)),
        [] | [b'\r'] => Ok(None),
        [b'\r', ..] => Err(Refusal::BareCr),
        [b'\n', ..] => Err(Refusal::BareLf),
        _ => Err(other),
    }
}

/// What is wrong with the field lines from `at` on: the first error in reading order, which is
/// not the parser's, as that takes bare LFs for good. Only called when something is wrong.
#[cold]
pub(super) fn diagnose_fields(
    bytes: &[u8],
    mut at: usize,
    limits: &Limits,
    error: httparse::Error,
) -> Refusal {
    for _ in 0..=limits.fields() {
        let line = bytes.get(at..).unwrap_or_default();
        match line {
            [b' ' | b'\t', ..] => return Refusal::ObsFold,
            [b'\r' | b'\n', ..] => match line_end(bytes, at, Refusal::BareCr) {
                Err(refusal) => return refusal,
                Ok(_) => break,
            },
            _ => {}
        }
        let name = line
            .iter()
            .position(|&b| !is_tchar(b))
            .unwrap_or(line.len());
        match line.get(name..).unwrap_or_default() {
            [] => break,
            [b':', ..] if name > 0 => {}
            [b' ' | b'\t', ..] if name > 0 => return Refusal::SpaceBeforeColon,
            _ => return Refusal::BadFieldName,
        }
        let is_text = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
        let Some(end) = line.iter().position(|&b| !is_text(b)) else {
            break;
        };
        match line_end(bytes, at + end, Refusal::BadFieldValue) {
            Err(refusal) => return refusal,
            Ok(None) => break,
            Ok(Some(next)) => at = next,
        }
    }
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::HeaderValue => Refusal::BadFieldValue,
        httparse::Error::NewLine => Refusal::BareCr,
        httparse::Error::HeaderName
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => Refusal::BadFieldName,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_fed_byte_by_byte_is_tried_a_few_times_only() {
        let limits = Limits::default();
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(4000));
        let bytes = head.as_bytes();
        let mut resume = Resume::default();
        let tries = (1..=bytes.len())
            .filter(|&n| resume.is_due(bytes.get(..n).unwrap(), &limits))
            .count();
        // log2(24,018) = 14.6 doublings, the first line, the end.
        assert!(tries <= 18, "{tries}");
    }

    #[test]
    fn another_buffer_is_noticed_when_it_is_shorter() {
        let limits = Limits::default();
        let mut resume = Resume::default();
        assert!(resume.is_due(b"GET / HTTP/1.1\r\nX", &limits));
        assert!(resume.is_due(b"GET", &limits));
    }

    #[test]
    fn a_field_set_takes_every_index() {
        let mut set = FieldSet::default();
        for i in [0, 63, 64, HARD_MAX_FIELDS - 1, HARD_MAX_FIELDS, usize::MAX] {
            assert!(!set.contains(i));
            set.insert(i);
            assert_eq!(set.contains(i), i < HARD_MAX_FIELDS);
        }
    }
}
