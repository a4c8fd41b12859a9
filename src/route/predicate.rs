//! What a rule asks beside host, path and client: methods, headers, query parameters.

use std::borrow::Cow;

use super::{Request, Rule, ValuePattern};

/// Why a rule whose host and path fit is not the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The rule is for other listeners.
    Listener,
    /// `path_regex` does not match.
    Regex,
    /// The method is not in the list.
    Method,
    /// This matcher of the rule's `headers` does not hold.
    Header(usize),
    /// This matcher of the rule's `query` does not hold.
    Query(usize),
    /// No network holds the client.
    Client,
}

/// Everything [`check`] asks of a rule: rules with equal keys give equal answers.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct CheckKey<'a> {
    methods: Vec<&'a str>,
    headers: Vec<(&'a str, PatternKey<'a>)>,
    query: Vec<(&'a str, PatternKey<'a>)>,
}

#[derive(PartialEq, Eq, Hash)]
enum PatternKey<'a> {
    Exact(&'a str),
    Present,
    Regex(&'a str),
}

// === impl CheckKey ===

impl<'a> CheckKey<'a> {
    /// `None` when `rule` asks nothing.
    pub(super) fn of_rule(rule: &'a Rule) -> Option<Self> {
        let key = Self {
            methods: rule.methods.iter().map(http::Method::as_str).collect(),
            headers: rule
                .headers
                .iter()
                .map(|(name, p)| (name.as_str(), p.key()))
                .collect(),
            query: rule
                .query
                .iter()
                .map(|(name, p)| (name.as_str(), p.key()))
                .collect(),
        };
        let asks = !(key.methods.is_empty() && key.headers.is_empty() && key.query.is_empty());
        asks.then_some(key)
    }
}

/// Checks methods, headers and query of `rule`, in this order, up to the first that fails.
pub(super) fn check(rule: &Rule, request: &Request<'_>) -> Result<(), Lost> {
    if !rule.methods.is_empty() && !rule.methods.iter().any(|m| m.as_str() == request.method) {
        return Err(Lost::Method);
    }
    for (index, (name, pattern)) in rule.headers.iter().enumerate() {
        if !request
            .headers
            .any(name.as_str(), &mut |value| pattern.matches(value))
        {
            return Err(Lost::Header(index));
        }
    }
    for (index, (name, pattern)) in rule.query.iter().enumerate() {
        if !query_has(request.query.unwrap_or_default(), name, pattern) {
            return Err(Lost::Query(index));
        }
    }
    Ok(())
}

// === impl ValuePattern ===

impl ValuePattern {
    fn key(&self) -> PatternKey<'_> {
        match self {
            Self::Exact(value) => PatternKey::Exact(value),
            Self::Present => PatternKey::Present,
            Self::Regex(regex) => PatternKey::Regex(regex.as_str()),
        }
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => expected.as_bytes() == value,
            Self::Present => true,
            Self::Regex(regex) => {
                std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value))
            }
        }
    }

    /// [`Self::matches`] on a value still percent-encoded.
    fn matches_encoded(&self, raw: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => decode(raw).eq(expected.bytes()),
            Self::Present => true,
            Self::Regex(_) => self.matches(&decoded(raw)),
        }
    }

    /// Whether every value that `other` matches is matched by this pattern: told only when it is
    /// plain to see.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, _) => true,
            (_, Self::Exact(value)) => self.matches(value.as_bytes()),
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Exact(_), Self::Present | Self::Regex(_)) => false,
            (Self::Regex(_), Self::Present) => false,
        }
    }
}

/// Whether any parameter called `name` matches.
fn query_has(query: &str, name: &str, pattern: &ValuePattern) -> bool {
    query
        .as_bytes()
        .split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .any(|pair| {
            let mut halves = pair.splitn(2, |&byte| byte == b'=');
            let key = halves.next().unwrap_or_default();
            let value = halves.next().unwrap_or_default();
            decode(key).eq(name.bytes()) && pattern.matches_encoded(value)
        })
}

/// The bytes of a form-encoded string: `+` is a space, `%41` is `A`, a broken escape stays itself.
fn decode(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        Some(if byte == b'+' { b' ' } else { byte })
    })
}

/// The decoded string in one piece, copied only when something is encoded; bounded by the limit on
/// the request's head.
fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        Cow::Owned(decode(raw).collect())
    } else {
        Cow::Borrowed(raw)
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(value: &str) -> ValuePattern {
        ValuePattern::Exact(value.into())
    }

    fn regex(pattern: &str) -> ValuePattern {
        ValuePattern::Regex(regex::Regex::new(pattern).unwrap())
    }

    #[test]
    fn query_names_and_values_are_compared_decoded() {
        for query in [
            "a+b=c%26d",
            "x=1&a%20b=c%26d",
            "&&a+b=no&a+b=c&a+b=c%26d",
            "%61+b=%63%26d",
        ] {
            assert!(query_has(query, "a b", &exact("c&d")), "{query}");
        }
        for query in ["", "a b", "a+b=c", "a+b=c&d", "a+B=c%26d", "a=b=c%26d"] {
            assert!(!query_has(query, "a b", &exact("c&d")), "{query}");
        }
    }

    #[test]
    fn parameters_without_value_are_present_and_empty() {
        for query in ["debug", "debug=", "x=1&debug", "debug&x"] {
            assert!(query_has(query, "debug", &ValuePattern::Present), "{query}");
            assert!(query_has(query, "debug", &exact("")), "{query}");
        }
        assert!(!query_has("debugger=1", "debug", &ValuePattern::Present));
        assert!(!query_has("a&&b", "", &ValuePattern::Present));
        assert!(query_has("=v", "", &exact("v")));
        assert!(query_has("a=b=c", "a", &exact("b=c")));
    }

    #[test]
    fn broken_escapes_stand_for_themselves() {
        assert!(query_has("a=100%", "a", &exact("100%")));
        assert!(query_has("a=%4", "a", &exact("%4")));
        assert!(query_has("a=%zz%41", "a", &exact("%zzA")));
        assert!(query_has("a=%%41", "a", &exact("%A")));
    }

    #[test]
    fn regexes_see_the_decoded_value_and_only_text() {
        assert!(query_has("a=x%2By", "a", &regex("^x\\+y$")));
        assert!(query_has("a=xy", "a", &regex("^xy$")));
        assert!(!query_has("a=%ff", "a", &regex("")));
        assert!(query_has("a=%ff", "a", &ValuePattern::Present));
        assert!(!regex("").matches(b"\xff"));
    }

    #[test]
    fn covers_only_what_is_plain() {
        assert!(ValuePattern::Present.covers(&regex("a")));
        assert!(ValuePattern::Present.covers(&ValuePattern::Present));
        assert!(regex("^a").covers(&exact("ab")) && !regex("^a").covers(&exact("b")));
        assert!(regex("^a").covers(&regex("^a")) && !regex("^a").covers(&regex("^ab")));
        assert!(exact("a").covers(&exact("a")) && !exact("a").covers(&exact("b")));
        assert!(!exact("a").covers(&ValuePattern::Present));
        assert!(!regex("").covers(&ValuePattern::Present));
    }
}
