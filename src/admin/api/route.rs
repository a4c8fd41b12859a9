//! Paths and methods: which operation a request asks for. The one list of what there is.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Change,
    Clear,
    Config,
    Drain,
    Endpoint,
    Fleet,
    FleetDiff,
    FleetMembers,
    History,
    Index,
    OpenApi,
    Plan,
    Reload,
    Remove,
    Status,
    Upgrade,
    Upstream,
    Upstreams,
}

/// Every route: method, path with `{…}` for a part that is the client's, operation.
pub(super) const ROUTES: &[(Method, &str, Operation)] = &[
    (Method::GET, "/", Operation::Index),
    (Method::GET, "/v1/config", Operation::Config),
    (Method::POST, "/v1/drain", Operation::Drain),
    (Method::GET, "/v1/fleet", Operation::Fleet),
    (Method::GET, "/v1/fleet/diff", Operation::FleetDiff),
    (Method::GET, "/v1/fleet/members", Operation::FleetMembers),
    (Method::GET, "/v1/history", Operation::History),
    (Method::GET, "/v1/openapi.json", Operation::OpenApi),
    (Method::POST, "/v1/plan", Operation::Plan),
    (Method::POST, "/v1/reload", Operation::Reload),
    (Method::GET, "/v1/status", Operation::Status),
    (Method::POST, "/v1/upgrade", Operation::Upgrade),
    (Method::GET, "/v1/upstreams", Operation::Upstreams),
    (Method::GET, "/v1/upstreams/{name}", Operation::Upstream),
    (
        Method::POST,
        "/v1/upstreams/{name}/endpoints",
        Operation::Add,
    ),
    (
        Method::GET,
        "/v1/upstreams/{name}/endpoints/{address}",
        Operation::Endpoint,
    ),
    (
        Method::PATCH,
        "/v1/upstreams/{name}/endpoints/{address}",
        Operation::Change,
    ),
    (
        Method::DELETE,
        "/v1/upstreams/{name}/endpoints/{address}",
        Operation::Remove,
    ),
    (
        Method::DELETE,
        "/v1/upstreams/{name}/endpoints/{address}/override",
        Operation::Clear,
    ),
];

/// A request that has a place: what it asks for, and the parts of its path that stand for `{…}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) operation: Operation,
    /// Decoded, in their order.
    pub(super) parts: Vec<String>,
}

/// Why a request has no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// There is something at this path, for these methods.
    Method(Vec<Method>),
    /// There is nothing at this path.
    Path,
}

/// Which operation a request asks for. HEAD is GET, as RFC 9110 section 9.3.2 has it.
pub(super) fn find(method: &Method, path: &str) -> Result<Found, Miss> {
    let method = match *method {
        Method::HEAD => &Method::GET,
        _ => method,
    };
    let mut allowed = Vec::new();
    for (wanted, template, operation) in ROUTES {
        let Some(parts) = matched(template, path) else {
            continue;
        };
        if wanted == method {
            let operation = *operation;
            return Ok(Found { operation, parts });
        }
        allowed.push(wanted.clone());
        if wanted == Method::GET {
            allowed.push(Method::HEAD);
        }
    }
    Err(if allowed.is_empty() {
        Miss::Path
    } else {
        Miss::Method(allowed)
    })
}

/// The parts of `path` that stand for `{…}` in `template`, decoded; `None` if it does not match, or
/// what stands there is empty or no UTF-8.
pub(in crate::admin) fn matched(template: &str, path: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parts),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => {
                let part = percent_decode_str(given).decode_utf8().ok()?;
                if part.is_empty() {
                    return None;
                }
                parts.push(part.into_owned());
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            (_, _) => return None,
        }
    }
}

/// The value of one name in a query (`a=1&b=2`), decoded as forms are: `+` is a space.
pub(in crate::admin) fn query_value(query: &str, name: &str) -> Option<String> {
    let value = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))?;
    let value = value.replace('+', " ");
    let value = percent_decode_str(&value).decode_utf8_lossy();
    Some(value.into_owned())
}

/// The names in a query.
pub(in crate::admin) fn query_names(query: &str) -> impl Iterator<Item = &str> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
}

/// What RFC 3986 section 2.3 leaves as it is, and `:`, which is plain in a path (section 3.3) and
/// in most addresses.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b':')
    .remove(b'_')
    .remove(b'~');

/// `text` as a part of a path or a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str) -> (Operation, Vec<String>) {
        let found = find(method, path).unwrap();
        (found.operation, found.parts)
    }

    #[test]
    fn every_route_is_found_at_its_own_path() {
        for (method, template, operation) in ROUTES {
            let path = template
                .replace("{name}", "app")
                .replace("{address}", "10.0.0.1:80");
            assert_eq!(found(method, &path).0, *operation, "{path}");
        }
    }

    #[test]
    fn parts_are_decoded_once_and_slashes_in_them_are_no_separators() {
        for address in ["unix:/run/a b.sock", "[::1]:80", "100%", "%2F", "ä/…"] {
            let path = format!("/v1/upstreams/app/endpoints/{}/override", encoded(address));
            let (operation, parts) = found(&Method::DELETE, &path);
            assert_eq!(operation, Operation::Clear);
            assert_eq!(parts, ["app", address], "{path}");
        }
    }

    #[test]
    fn other_paths_are_nowhere_and_other_methods_are_told_the_right_ones() {
        for path in [
            "",
            "*",
            "/v1",
            "/v1/",
            "/v1/status/",
            "//v1/status",
            "/v1/upstreams/",
            "/v1/upstreams//endpoints",
            "/v1/upstreams/%FF",
            "/v1/upstreams/a/endpoints/b/override/c",
            "/metrics",
        ] {
            assert_eq!(find(&Method::GET, path), Err(Miss::Path), "{path}");
        }
        assert_eq!(
            find(&Method::PUT, "/v1/upstreams/a/endpoints/b"),
            Err(Miss::Method(vec![
                Method::GET,
                Method::HEAD,
                Method::PATCH,
                Method::DELETE
            ]))
        );
        assert_eq!(
            find(&Method::POST, "/v1/status"),
            Err(Miss::Method(vec![Method::GET, Method::HEAD]))
        );
        assert_eq!(found(&Method::HEAD, "/v1/status").0, Operation::Status);
    }

    #[test]
    fn queries_are_read_as_forms_write_them() {
        let query = "limit=5&reason=two+words%21&empty=&flag";
        assert_eq!(query_value(query, "limit").as_deref(), Some("5"));
        assert_eq!(query_value(query, "reason").as_deref(), Some("two words!"));
        assert_eq!(query_value(query, "empty").as_deref(), Some(""));
        assert_eq!(query_value(query, "flag"), None);
        let names: Vec<_> = query_names(query).collect();
        assert_eq!(names, ["limit", "reason", "empty", "flag"]);
        assert_eq!(query_names("").count(), 0);
    }
}
