//! Path regexes that need no regex machine: literals and runs of characters, one after the other.
//!
//! `^/u/[0-9]+/edit$` and its like are most of what people write. Such a pattern is a list of steps,
//! each of which takes as much as it can and never has to give any back, because what follows a run
//! cannot begin with a character of the run. A step is twelve bytes and a class is shared, where a
//! machine of the regex crate is kilobytes: among thousands of patterns that is a microsecond.
//!
//! Steps are decided for ASCII paths alone, where a character is a byte; the regex itself has the
//! others.

use std::collections::HashMap;
use std::ops::Range;

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Regexes by number, each run by its steps where it has any.
#[derive(Clone, Debug, Default)]
pub(super) struct PathRegexes {
    /// The steps of each, a run of `steps`; `None` = the regex decides.
    plain: Vec<Option<Range<u32>>>,
    steps: Vec<Step>,
    literals: Vec<u8>,
    /// Distinct ones.
    classes: Vec<AsciiSet>,
    regexes: Vec<Regex>,
}

#[derive(Clone, Debug)]
enum Step {
    /// These bytes of `literals`.
    Literal(Range<u32>),
    /// Characters of a class, as many as there are up to a bound.
    Run { class: u16, least: u16, most: u16 },
    /// The end of the path.
    End,
}

/// A set of ASCII characters, a bit each.
type AsciiSet = u128;

/// A part of a pattern, on its way to a [`Step`].
#[derive(Debug)]
enum Part {
    Literal(Vec<u8>),
    Run {
        set: AsciiSet,
        least: u16,
        most: u16,
    },
    End,
}

/// No bound on a run: paths are shorter (they come in a head of 64 KiB at most), and a longer one is
/// the regex's.
const MANY: u16 = u16::MAX;

// === impl PathRegexes ===

impl PathRegexes {
    /// `regexes`, by their numbers.
    pub(super) fn new(regexes: Vec<Regex>) -> Self {
        let mut this = Self::default();
        let mut known = HashMap::new();
        for regex in &regexes {
            let plain = parts(regex).and_then(|parts| this.push(&parts, &mut known));
            this.plain.push(plain);
        }
        this.regexes = regexes;
        this
    }

    /// Whether the regex at `index` matches `path`.
    #[inline]
    pub(super) fn is_match(&self, index: u32, path: &str) -> bool {
        let index = index as usize;
        match &self.plain[index] {
            Some(steps) if path.is_ascii() && path.len() < usize::from(MANY) => {
                self.takes(steps, path.as_bytes())
            }
            Some(_) | None => self.regexes[index].is_match(path),
        }
    }

    fn takes(&self, steps: &Range<u32>, mut rest: &[u8]) -> bool {
        for step in &self.steps[steps.start as usize..steps.end as usize] {
            match step {
                Step::Literal(at) => {
                    let literal = &self.literals[at.start as usize..at.end as usize];
                    match rest.strip_prefix(literal) {
                        Some(after) => rest = after,
                        None => return false,
                    }
                }
                Step::Run { class, least, most } => {
                    let set = self.classes[usize::from(*class)];
                    let taken = rest
                        .iter()
                        .take(usize::from(*most))
                        .take_while(|&&byte| set >> byte & 1 == 1)
                        .count();
                    if taken < usize::from(*least) {
                        return false;
                    }
                    rest = &rest[taken..];
                }
                Step::End => return rest.is_empty(),
            }
        }
        true
    }

    /// `None` when there are more classes than a number has room for.
    fn push(&mut self, parts: &[Part], known: &mut HashMap<AsciiSet, u16>) -> Option<Range<u32>> {
        let start = self.steps.len() as u32;
        for part in parts {
            let step = match *part {
                Part::Literal(ref bytes) => {
                    let at = self.literals.len() as u32;
                    self.literals.extend_from_slice(bytes);
                    Step::Literal(at..self.literals.len() as u32)
                }
                Part::Run { set, least, most } => {
                    let class = if let Some(&class) = known.get(&set) {
                        class
                    } else {
                        let class = u16::try_from(self.classes.len()).ok()?;
                        self.classes.push(set);
                        known.insert(set, class);
                        class
                    };
                    Step::Run { class, least, most }
                }
                Part::End => Step::End,
            };
            self.steps.push(step);
        }
        Some(start..self.steps.len() as u32)
    }
}

// === impl Part ===

impl Part {
    /// What a path must go on with to take this part, and whether it may take nothing of it.
    fn first(&self) -> (AsciiSet, bool) {
        match self {
            Self::Literal(bytes) => (bytes.first().map_or(0, |&byte| 1 << byte), false),
            Self::Run { set, least, .. } => (*set, *least == 0),
            Self::End => (0, false),
        }
    }
}

/// The parts of an anchored pattern, if it has no others and no part can want a character that the
/// one before has taken.
fn parts(regex: &Regex) -> Option<Vec<Part>> {
    let hir = regex_syntax::parse(regex.as_str()).ok()?;
    let HirKind::Concat(all) = hir.kind() else {
        return None;
    };
    let [start, rest @ ..] = &**all else {
        return None;
    };
    if !matches!(start.kind(), HirKind::Look(Look::Start)) {
        return None;
    }
    let mut parts = Vec::new();
    rest.iter().try_for_each(|hir| gather(hir, &mut parts))?;
    // Behind an end nothing but another one can match.
    let end = parts.iter().position(|part| matches!(part, Part::End));
    if end.is_some_and(|end| end + 1 < parts.len()) {
        return None;
    }
    (0..parts.len())
        .all(|i| is_decided(&parts[i], &parts[i + 1..]))
        .then_some(parts)
}

/// Whether taking all that `part` can is right, whatever comes.
fn is_decided(part: &Part, after: &[Part]) -> bool {
    let Part::Run { set, least, most } = part else {
        return true;
    };
    if least == most {
        return true;
    }
    for next in after {
        let (first, may_be_empty) = next.first();
        if set & first != 0 {
            return false;
        }
        if !may_be_empty {
            break;
        }
    }
    true
}

/// Appends the parts of `hir`; `None` when it has another kind of part. The parser limits the nesting
/// (250 levels), so the recursion is bounded.
fn gather(hir: &Hir, parts: &mut Vec<Part>) -> Option<()> {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) if literal.0.is_ascii() => match parts.last_mut() {
            Some(Part::Literal(bytes)) => bytes.extend_from_slice(&literal.0),
            _ => parts.push(Part::Literal(literal.0.to_vec())),
        },
        HirKind::Class(class) => parts.push(Part::Run {
            set: ascii(class),
            least: 1,
            most: 1,
        }),
        HirKind::Look(Look::End) => parts.push(Part::End),
        HirKind::Repetition(repetition) => {
            let set = match repetition.sub.kind() {
                HirKind::Class(class) => ascii(class),
                HirKind::Literal(literal) if literal.0.is_ascii() && literal.0.len() == 1 => {
                    1 << literal.0[0]
                }
                _ => return None,
            };
            parts.push(Part::Run {
                set,
                least: u16::try_from(repetition.min).ok()?,
                most: repetition
                    .max
                    .map_or(Some(MANY), |max| u16::try_from(max).ok())?,
            });
        }
        HirKind::Capture(capture) => gather(&capture.sub, parts)?,
        HirKind::Concat(all) => all.iter().try_for_each(|hir| gather(hir, parts))?,
        HirKind::Literal(_) | HirKind::Look(_) | HirKind::Alternation(_) => return None,
    }
    Some(())
}

/// The ASCII characters of a class: no others come.
fn ascii(class: &Class) -> AsciiSet {
    let mut set = 0;
    let mut add = |start: u32, end: u32| {
        for character in start..=end.min(0x7f) {
            set |= 1 << character;
        }
    };
    match class {
        Class::Bytes(class) => class
            .iter()
            .for_each(|range| add(range.start().into(), range.end().into())),
        Class::Unicode(class) => class
            .iter()
            .for_each(|range| add(range.start().into(), range.end().into())),
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn one(pattern: &str) -> PathRegexes {
        PathRegexes::new(vec![Regex::new(pattern).unwrap()])
    }

    fn is_plain(pattern: &str) -> bool {
        one(pattern).plain[0].is_some()
    }

    #[test]
    fn patterns_as_people_write_them_are_plain() {
        for pattern in [
            "^/health$",
            "^/u/[0-9]+$",
            r"^/u/\d+/edit$",
            "^/api/v[12]/",
            "^/static/[^.]+\\.css$",
            "^/([a-z]{2})(?:-[A-Z]{2})/$",
            "^/files/(.*)$",
            "(?i)^/download/[^/]*$",
            "^/a?b*c+$",
            "^/x",
        ] {
            assert!(is_plain(pattern), "{pattern}");
        }
    }

    #[test]
    fn what_steps_cannot_decide_is_left_to_the_regex() {
        for pattern in [
            "/u/[0-9]+",        // anywhere
            "^/a|/b",           // a choice
            "^/(a|bc)/",        // a choice
            "^/[a-z]+z$",       // the run would take the z
            "^/[a-z]*[0-9]*a$", // and here too, past what may be empty
            "^/(a/)*$",         // a repeated group
            r"^/a\b",           // a look
            "^/é",              // not ASCII
            "(?m)^/a$",         // lines
            "^",
            "",
        ] {
            assert!(!is_plain(pattern), "{pattern}");
        }
    }

    /// Patterns of random parts, against paths of the few characters that they speak of.
    #[test]
    fn steps_decide_as_the_regex_does() {
        const PARTS: [&str; 22] = [
            "/",
            "a",
            "b",
            "ab",
            "[ab]",
            "[^/]",
            "[^/]+",
            "[ab]+",
            "a*",
            "b?",
            "[ab]{2}",
            "[ab]{1,2}",
            ".",
            ".*",
            "(a)",
            "(?:b/)",
            "[ab]+?",
            "[^a]*",
            r"\d",
            r"\d+",
            "(?i)B",
            "$",
        ];
        const CHARACTERS: [&str; 8] = ["/", "/", "a", "b", "B", "1", "é", "\n"];
        let seed = 5;
        let mut rng = Rng::new(seed);
        let (mut plain, mut matched) = (0, 0);
        for _ in 0..4_000 {
            let pattern = (0..=rng.below(5)).fold(String::from("^/"), |text, _| {
                text + PARTS[rng.below(PARTS.len())]
            });
            let Ok(regex) = Regex::new(&pattern) else {
                continue;
            };
            let ours = PathRegexes::new(vec![regex.clone()]);
            plain += usize::from(ours.plain[0].is_some());
            for _ in 0..40 {
                let path = (0..rng.below(6)).fold(String::from("/"), |text, _| {
                    text + CHARACTERS[rng.below(CHARACTERS.len())]
                });
                let expected = regex.is_match(&path);
                matched += usize::from(expected);
                assert_eq!(
                    ours.is_match(0, &path),
                    expected,
                    "{pattern} on {path:?}, seed {seed}"
                );
            }
        }
        assert!(plain > 1_000 && matched > 10_000, "{plain} {matched}");
    }

    #[test]
    fn paths_longer_than_a_step_can_count_are_the_regexs() {
        let path = format!("/{}", "a".repeat(70_000));
        assert!(one("^/a*$").is_match(0, &path));
        assert!(!one("^/a*b").is_match(0, &path));
    }
}
