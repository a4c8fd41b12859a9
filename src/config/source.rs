//! One configuration text: where it came from, and how offsets become lines and columns.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Largest configuration file: far above any hand-written one (a route takes about 200 bytes, so
/// this is 80,000 of them), small enough that a wrong path (a log, a device) is refused at once.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A text with its name.
#[derive(Debug)]
pub(super) struct Source {
    /// As given, or joined to the folder of the including file.
    pub(super) path: PathBuf,
    /// The text.
    pub(super) text: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    /// How many characters begin before each multiple of [`STRIDE`]: a column costs the same
    /// wherever it is, even on one line of megabytes with a problem at every word.
    characters: Vec<usize>,
}

/// Bytes between two counts of characters.
const STRIDE: usize = 1024;

/// A piece of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) source: &'a Source,
    pub(super) start: usize,
    pub(super) end: usize,
}

// === impl Source ===

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(i, _)| i + 1))
            .collect();
        let mut seen = 0;
        let mut characters = Vec::with_capacity(text.len() / STRIDE + 1);
        for chunk in text.as_bytes().chunks(STRIDE) {
            characters.push(seen);
            seen += starts(chunk);
        }
        characters.push(seen);
        Self {
            path: path.to_owned(),
            text,
            lines,
            characters,
        }
    }

    /// Reads a file of bounded size.
    ///
    /// # Errors
    /// What the system says; `InvalidData` for a file that is too large or not UTF-8.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "larger than 16 MiB",
            ));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("not UTF-8 at byte {at}"),
            )
        })?;
        Ok(Self::new(path, text))
    }

    /// The folder that relative paths in this file start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Line and column, both from 1; columns count characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|&start| start <= offset).max(1);
        (line, self.characters(self.span_of(line).start..offset) + 1)
    }

    /// The text of a line (from 1) without its end.
    pub(super) fn line(&self, line: usize) -> &str {
        self.text.get(self.span_of(line)).unwrap_or("")
    }

    /// Where a line (from 1) is, without its end.
    pub(super) fn span_of(&self, line: usize) -> Range<usize> {
        let start = self
            .lines
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(self.text.len());
        let end = self
            .lines
            .get(line)
            .map_or(self.text.len(), |next| next - 1)
            .max(start);
        let crlf = end > start && self.text.as_bytes().get(end - 1) == Some(&b'\r');
        start..end - usize::from(crlf)
    }

    /// How many characters a piece has.
    pub(super) fn characters(&self, span: Range<usize>) -> usize {
        let before = |offset: usize| {
            let chunk = offset / STRIDE;
            let rest = self
                .text
                .as_bytes()
                .get(chunk * STRIDE..offset)
                .unwrap_or(&[]);
            self.characters.get(chunk).copied().unwrap_or(0) + starts(rest)
        };
        before(span.end).saturating_sub(before(span.start))
    }

    /// Whether the text from `offset` on begins with `c`.
    pub(super) fn starts_with(&self, offset: usize, c: char) -> bool {
        self.text
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(c))
    }

    /// A piece of this text; offsets outside of it are moved to its end.
    pub(super) fn at(&self, span: Range<usize>) -> At<'_> {
        let start = self.floor(span.start);
        At {
            source: self,
            start,
            end: self.floor(span.end).max(start),
        }
    }

    /// The nearest character boundary at or before `offset`.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// How many characters begin in these bytes of UTF-8: those that are not continuations.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b & 0xc0 != 0x80).count()
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; offset basis and prime as published), over the texts.
pub(super) fn hash(sources: &[Source]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for source in sources {
        // A byte that no UTF-8 text contains, so that moving a line between files changes the hash.
        for &byte in source.text.as_bytes().iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source::new(Path::new("t"), "añb\r\nc\n\nd".to_owned());
        let all: Vec<_> = (0..=source.text.len())
            .map(|i| source.position(i))
            .collect();
        // The second byte of ñ belongs to it; the end of a line is one column after it.
        let expected = [
            (1, 1),
            (1, 2),
            (1, 2),
            (1, 3),
            (1, 4),
            (1, 5),
            (2, 1),
            (2, 2),
            (3, 1),
            (4, 1),
            (4, 2),
        ];
        assert_eq!(all, expected);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|n| source.line(n)),
            ["añb", "c", "", "d", ""]
        );
        assert_eq!(source.position(1000), (4, 2));
    }

    #[test]
    fn columns_are_right_far_into_a_line() {
        let source = Source::new(Path::new("t"), "é".repeat(5000) + "\n" + &"x".repeat(5000));
        assert_eq!(source.position(2 * 4321), (1, 4322));
        assert_eq!(source.position(10_001 + 4321), (2, 4322));
    }
}
