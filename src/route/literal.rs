//! The bytes with which every match of a path regex must start, so that most paths never run it.

use regex_syntax::hir::{Hir, HirKind, Look};

/// The literal after a leading `^`; empty when there is none. `^/u/[0-9]+$` gives `/u/`.
pub(super) fn leading_literal(regex: &regex::Regex) -> Vec<u8> {
    let mut literal = Vec::new();
    if let Ok(hir) = regex_syntax::parse(regex.as_str())
        && let HirKind::Concat(parts) = hir.kind()
        && let [start, rest @ ..] = &**parts
        && matches!(start.kind(), HirKind::Look(Look::Start))
    {
        rest.iter().all(|part| gather(part, &mut literal));
    }
    literal
}

/// Appends what `part` must start with; true when that is the whole of it. The parser limits the
/// nesting (250 levels), so the recursion is bounded.
fn gather(part: &Hir, literal: &mut Vec<u8>) -> bool {
    match part.kind() {
        HirKind::Literal(bytes) => {
            literal.extend_from_slice(&bytes.0);
            true
        }
        HirKind::Capture(capture) => gather(&capture.sub, literal),
        HirKind::Concat(parts) => parts.iter().all(|part| gather(part, literal)),
        HirKind::Empty => true,
        HirKind::Alternation(_) | HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_patterns_as_people_write_them() {
        for (pattern, literal) in [
            ("^/u/[0-9]+$", "/u/"),
            ("^/health$", "/health"),
            ("^/a(/b)(/c|/d)", "/a/b"),
            ("^(/api/.*)$", "/api/"),
            ("^/files/v1\\.0/", "/files/v1.0/"),
            ("^/ab?c", "/a"),
            ("^/a*", "/"),
            ("\\A/x", "/x"),
            ("^/é", "/é"),
            // No literal can be promised:
            ("/u/[0-9]+", ""),
            ("^/a|/b", ""),
            ("(?i)^/Abc", "/"),
            ("(?m)^/a", ""),
            ("^", ""),
            ("", ""),
            ("\\.(png|jpg)$", ""),
        ] {
            let regex = regex::Regex::new(pattern).unwrap();
            assert_eq!(leading_literal(&regex), literal.as_bytes(), "{pattern}");
        }
    }
}
