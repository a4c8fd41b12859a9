//! Where the fields of a head stand in its text, as the rest of the program writes it.

/// One field: where its name stands, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http2) struct Line {
    name: (u32, u32),
    value: (u32, u32),
}

// === impl Line ===

impl Line {
    pub(super) fn name<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        part(text, self.name)
    }

    pub(super) fn value<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        part(text, self.value)
    }
}

/// The first line of `text` and, into `lines`, its fields; and where the head ends. `None` if it is not
/// whole.
pub(super) fn split<'t>(text: &'t [u8], lines: &mut Vec<Line>) -> Option<(&'t [u8], usize)> {
    lines.clear();
    let first = find_crlf(text)?;
    let mut at = first + 2;
    loop {
        let rest = text.get(at..)?;
        // Names are short: looking byte by byte costs less than setting out to search.
        let name = rest.iter().position(|&b| b == b':' || b == b'\r')?;
        if rest[name] == b'\r' {
            let is_end = name == 0 && rest.get(1) == Some(&b'\n');
            return is_end.then_some((&text[..first], at + 2));
        }
        let end = name + find_crlf(&rest[name..])?;
        let trimmed = rest[name + 1..end].trim_ascii_start();
        let from = at + end - trimmed.len();
        let value = trimmed.trim_ascii_end();
        let to = from + value.len();
        // What we write is sound; what is not must not leave here even so.
        if name == 0 || memchr::memchr2(b'\n', 0, value).is_some() {
            return None;
        }
        lines.push(Line {
            name: (at as u32, (at + name) as u32),
            value: (from as u32, to as u32),
        });
        at += end + 2;
    }
}

fn part(text: &[u8], (from, to): (u32, u32)) -> &[u8] {
    text.get(from as usize..to as usize).unwrap_or_default()
}

/// Where the line at the front of `text` ends; in what we write no CR stands alone.
fn find_crlf(text: &[u8]) -> Option<usize> {
    memchr::memchr(b'\r', text).filter(|&at| text.get(at + 1) == Some(&b'\n'))
}
