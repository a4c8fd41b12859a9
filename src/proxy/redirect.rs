//! The Location of a redirect, out of its template.

use crate::http1::RequestHead;

/// Fills a redirect's template. A path that the client chose must not turn a redirect within the
/// site into one to another host: `//evil.example`, or `/\evil.example` to a browser, so only one
/// slash stays in front unless the template itself has two.
pub(super) fn expand(
    out: &mut String,
    template: &str,
    path: &str,
    rest: &str,
    head: &RequestHead,
    buf: &[u8],
) {
    let mut left = template;
    while let Some(open) = left.find('{') {
        out.push_str(&left[..open]);
        left = &left[open..];
        let Some(close) = left.find('}') else { break };
        match &left[..=close] {
            "{rest}" => push_path(out, rest),
            "{path}" => push_path(out, path),
            "{host}" => out.push_str(head.host(buf).unwrap_or_default()),
            "{query}" => {
                if let Some(query) = head.query(buf) {
                    out.push('?');
                    out.push_str(query);
                }
            }
            other => out.push_str(other),
        }
        left = &left[close + 1..];
    }
    out.push_str(left);
    // A client's `//other.example/` would lead to another host (RFC 3986 section 4.2); browsers
    // read a backslash as a slash.
    if !template.starts_with("//")
        && let Some(rest) = out.strip_prefix('/')
    {
        let spare = rest.len() - rest.trim_start_matches(['/', '\\']).len();
        out.replace_range(1..=spare, "");
    }
}

/// A path begins with a slash or is empty, so that what follows a template's host can never make
/// that host longer (`https://example.com{rest}` with `.evil.example`). Routing already gives no
/// other rest, but OPTIONS may ask for `*`.
fn push_path(out: &mut String, path: &str) {
    if !path.is_empty() && !path.starts_with('/') {
        out.push('/');
    }
    out.push_str(path);
}
