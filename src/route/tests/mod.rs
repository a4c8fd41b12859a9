//! The table as a whole: `corners` names each promise of the module docs, `model` compares with a
//! naive reference.

mod corners;
mod model;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{
    HeaderLookup, HostPattern, Miss, PathPattern, Request, RouteTable, Rule, ValuePattern,
};

/// The real type of the data path, behind the trait.
#[derive(Clone, Debug, Default)]
struct Headers(HeaderMap);

impl HeaderLookup for Headers {
    fn any(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.get_all(name).iter().any(|value| f(value.as_bytes()))
    }
}

/// An owned request.
#[derive(Clone, Debug, Default)]
struct Ask {
    listener: usize,
    host: String,
    path: String,
    query: Option<String>,
    method: String,
    client: Option<IpAddr>,
    headers: Headers,
}

impl Ask {
    fn get(host: &str, path: &str) -> Self {
        Self {
            host: host.into(),
            path: path.into(),
            method: "GET".into(),
            ..Self::default()
        }
    }

    fn method(self, method: &str) -> Self {
        Self {
            method: method.into(),
            ..self
        }
    }

    fn query(self, query: &str) -> Self {
        Self {
            query: Some(query.into()),
            ..self
        }
    }

    fn client(self, client: &str) -> Self {
        Self {
            client: Some(client.parse().unwrap()),
            ..self
        }
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.0.append(HeaderName::from_static(name), value);
        self
    }

    fn listener(self, listener: usize) -> Self {
        Self { listener, ..self }
    }

    fn request(&self) -> Request<'_> {
        Request {
            listener: self.listener,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            client: self.client,
            headers: &self.headers,
        }
    }
}

/// `h` is `*`, `*.suffix` or exact, as in a file.
fn hosts(hosts: &[&str]) -> Vec<HostPattern> {
    let pattern = |host: &&str| match host.strip_prefix("*.") {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact((*host).into()),
    };
    hosts.iter().map(pattern).collect()
}

/// `~regex`, `/prefix/*`, `/exact`, or empty for none.
fn path(path: &str) -> Option<PathPattern> {
    if path.is_empty() {
        None
    } else if let Some(regex) = path.strip_prefix('~') {
        Some(PathPattern::Regex(regex::Regex::new(regex).unwrap()))
    } else if let Some(prefix) = path.strip_suffix("/*") {
        Some(PathPattern::Prefix(prefix.into()))
    } else {
        Some(PathPattern::Exact(path.into()))
    }
}

/// `~regex`, empty for present, or exact.
fn value(value: &str) -> ValuePattern {
    match value.strip_prefix('~') {
        Some(regex) => ValuePattern::Regex(regex::Regex::new(regex).unwrap()),
        None if value.is_empty() => ValuePattern::Present,
        None => ValuePattern::Exact(value.into()),
    }
}

fn rule(host: &[&str], at: &str) -> Rule {
    Rule {
        hosts: hosts(host),
        path: path(at),
        ..Rule::default()
    }
}

fn methods(list: &[&str]) -> Vec<Method> {
    list.iter().map(|method| method.parse().unwrap()).collect()
}

fn listeners() -> Vec<Arc<str>> {
    ["web", "tls", "admin"].map(Arc::from).to_vec()
}

/// The action of a rule is its index, so that a mix-up would show.
fn table(rules: &[Rule]) -> RouteTable<usize> {
    RouteTable::build(&listeners(), rules.iter().cloned().zip(0..).collect())
}

fn find(table: &RouteTable<usize>, ask: &Ask) -> Result<usize, Miss> {
    let found = table.find(&ask.request());
    if let Ok(found) = &found {
        assert_eq!(*found.action, found.index);
    }
    assert_eq!(
        table.explain(&ask.request()).outcome,
        found.map(|found| found.index)
    );
    found.map(|found| found.index)
}
