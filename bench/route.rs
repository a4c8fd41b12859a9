//! How long is one route lookup, and does it grow with the number of routes?
//!
//! `cargo bench --bench route`: nanoseconds per `RouteTable::find`, the median of rounds, one line
//! per mix, one column per number of routes. Every lookup asks for another route in a shuffled
//! order, so the table is as cold as its size makes it. (An unanchored regex is the one matcher whose
//! cost grows with its number in one host; see the module docs of `route`.)

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use isobar::base::clock::Clock;
use isobar::base::rng::Rng;
use isobar::route::{
    HeaderLookup, HostPattern, PathPattern, Request, RouteTable, Rule, ValuePattern,
};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Odd, so that there is a median; many, because on a busy machine most of them are interrupted.
const ROUNDS: usize = 151;
/// Per round: about 1 ms, below a scheduler's slice and far above the clock's resolution.
const LOOKUPS: usize = 10_000;
/// Different requests asked in turn: more than routes, and a shuffle of them.
const ASKS: usize = 16_384;

#[derive(Debug)]
struct Headers(HeaderMap);

impl HeaderLookup for Headers {
    fn any(&self, name: &str, f: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.get_all(name).iter().any(|value| f(value.as_bytes()))
    }
}

/// A question: route number `n` of `of`, and the host and path that ask for it.
struct Mix {
    name: &'static str,
    rule: fn(n: usize) -> Rule,
    ask: fn(n: usize) -> (String, String),
}

const MIXES: [Mix; 9] = [
    Mix {
        name: "exact hosts",
        rule: |n| Rule {
            hosts: vec![exact(n)],
            ..Rule::default()
        },
        ask: |n| (host(n), "/index.html".into()),
    },
    Mix {
        name: "exact hosts, 10 prefixes each",
        rule: |n| Rule {
            hosts: vec![exact(n / 10)],
            path: Some(prefix(n % 10)),
            ..Rule::default()
        },
        ask: |n| {
            (
                host(n / 10),
                format!("/api/v1/resource-{}/items/42", n % 10),
            )
        },
    },
    Mix {
        name: "one host, exact paths",
        rule: |n| Rule {
            hosts: vec![exact(0)],
            path: Some(PathPattern::Exact(format!("/api/v1/resource-{n}/items"))),
            ..Rule::default()
        },
        ask: |n| (host(0), format!("/api/v1/resource-{n}/items")),
    },
    Mix {
        name: "one host, prefixes",
        rule: |n| Rule {
            hosts: vec![exact(0)],
            path: Some(prefix(n)),
            ..Rule::default()
        },
        ask: |n| (host(0), format!("/api/v1/resource-{n}/items/42")),
    },
    Mix {
        name: "wildcard hosts",
        rule: |n| Rule {
            hosts: vec![HostPattern::Wildcard(host(n))],
            ..Rule::default()
        },
        ask: |n| (format!("shop.{}", host(n)), "/index.html".into()),
    },
    Mix {
        name: "exact hosts, 1 regex each",
        rule: |n| Rule {
            hosts: vec![exact(n)],
            path: Some(regex("^/u/[0-9]+$")),
            ..Rule::default()
        },
        ask: |n| (host(n), format!("/u/{n}")),
    },
    Mix {
        name: "one host, anchored regexes",
        rule: |n| Rule {
            hosts: vec![exact(0)],
            path: Some(regex(&format!("^/api/resource-{n}/[0-9]+$"))),
            ..Rule::default()
        },
        ask: |n| (host(0), format!("/api/resource-{n}/42")),
    },
    Mix {
        name: "hosts by 10: method, header, query",
        rule: |n| Rule {
            hosts: vec![exact(n / 10)],
            path: Some(prefix(n % 10)),
            methods: vec![Method::GET],
            headers: vec![(HeaderName::from_static("x-tenant"), ValuePattern::Present)],
            query: vec![("debug".into(), ValuePattern::Exact("1".into()))],
            ..Rule::default()
        },
        ask: |n| {
            (
                host(n / 10),
                format!("/api/v1/resource-{}/items/42", n % 10),
            )
        },
    },
    Mix {
        name: "unknown hosts (421)",
        rule: |n| Rule {
            hosts: vec![exact(n)],
            ..Rule::default()
        },
        ask: |n| (format!("{}.invalid", host(n)), "/".into()),
    },
];

fn main() {
    print!("{:<36}", "ns per lookup among");
    for size in SIZES {
        print!("{size:>9}");
    }
    println!();
    for mix in &MIXES {
        print!("{:<36}", mix.name);
        for size in SIZES {
            print!("{:>9.0}", measure(mix, size));
        }
        println!();
    }
}

fn measure(mix: &Mix, size: usize) -> f64 {
    let rules = (0..size).map(|n| ((mix.rule)(n), n)).collect();
    let table = RouteTable::build(&[Arc::from("web")], rules);
    let mut rng = Rng::new(1);
    let asks: Vec<(String, String)> = (0..ASKS).map(|_| (mix.ask)(rng.below(size))).collect();
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("acme"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    let headers = Headers(headers);

    let clock = Clock::start();
    let mut asked = asks.iter().cycle();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = clock.now();
            for (host, path) in asked.by_ref().take(LOOKUPS) {
                let request = Request {
                    listener: 0,
                    host,
                    path,
                    query: Some("page=2&debug=1"),
                    method: "GET",
                    client: None,
                    headers: &headers,
                };
                let _ = black_box(table.find(black_box(&request)));
            }
            (clock.now() - start) as f64 / LOOKUPS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn host(n: usize) -> String {
    format!("tenant-{n}.apps.example.com")
}

fn exact(n: usize) -> HostPattern {
    HostPattern::Exact(host(n))
}

fn prefix(n: usize) -> PathPattern {
    PathPattern::Prefix(format!("/api/v1/resource-{n}"))
}

fn regex(pattern: &str) -> PathPattern {
    PathPattern::Regex(regex::Regex::new(pattern).expect("a valid pattern"))
}
