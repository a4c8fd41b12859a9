//! The path that is matched is the path that is forwarded: dot segments are resolved first.
//!
//! RFC 3986 sections 5.2.4 and 6.2.2: `.` and `..` segments are resolved, and `%2e` is a dot.
//! A proxy that matches `/public/../admin` as `/public/*` and forwards it to a server that resolves
//! it lets a client choose its own route. Clients resolve dots themselves, so this costs a scan.

/// The path with its dot segments resolved, written to `scratch`; `None` = it has none (the usual
/// case: use it as it is).
pub(super) fn resolve_dots<'s>(path: &str, scratch: &'s mut String) -> Option<&'s str> {
    if !may_have_dots(path.as_bytes()) {
        return None;
    }
    scratch.clear();
    let mut found = false;
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match dots(segment) {
            0 => {
                scratch.push('/');
                scratch.push_str(segment);
                continue;
            }
            1 => {}
            _ => scratch.truncate(scratch.rfind('/').unwrap_or(0)),
        }
        found = true;
        if is_last {
            scratch.push('/');
        }
    }
    if !found {
        return None;
    }
    if scratch.is_empty() {
        scratch.push('/');
    }
    Some(scratch)
}

/// 1 for `.`, 2 for `..`, in any spelling; 0 for a segment that is neither.
fn dots(segment: &str) -> usize {
    let mut rest = segment;
    for n in 0..3 {
        if rest.is_empty() {
            return n;
        }
        let Some(next) = rest
            .strip_prefix('.')
            .or_else(|| rest.strip_prefix("%2e"))
            .or_else(|| rest.strip_prefix("%2E"))
        else {
            return 0;
        };
        rest = next;
    }
    0
}

fn may_have_dots(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"/." || pair == b"/%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(path: &str) -> String {
        let mut scratch = String::new();
        resolve_dots(path, &mut scratch).map_or_else(|| path.to_owned(), str::to_owned)
    }

    #[test]
    fn rfc_3986_section_5_2_4() {
        assert_eq!(resolved("/a/b/c/./../../g"), "/a/g");
        assert_eq!(resolved("/a/.."), "/");
        assert_eq!(resolved("/a/b/.."), "/a/");
        assert_eq!(resolved("/a/b/."), "/a/b/");
        assert_eq!(resolved("/../../x"), "/x");
        assert_eq!(resolved("/.."), "/");
    }

    #[test]
    fn percent_encoded_dots_are_dots() {
        assert_eq!(resolved("/public/%2e%2E/admin"), "/admin");
        assert_eq!(resolved("/public/.%2e/admin"), "/admin");
        assert_eq!(resolved("/a/%2e"), "/a/");
    }

    #[test]
    fn other_paths_stay() {
        for path in [
            "/",
            "/a/b",
            "/.well-known/x",
            "/a/...",
            "/a/..b",
            "/a//b",
            "/%2f/..x",
            "/%20",
        ] {
            assert_eq!(resolved(path), path);
        }
        assert_eq!(resolved("/a//../b"), "/a/b");
    }
}
