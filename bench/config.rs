//! How long does a large configuration take: to check, to compile its routes, to plan a change, to
//! write out? 10,000 routes and 10,000 endpoints; a reload is to take less than a second with all.
//!
//! `cargo bench --bench config`: milliseconds of CPU time, the median of rounds, one line per shape, one column
//! per step. `check` is reading a text, with all warnings; `build` the route table; `same` and
//! `all` are plans to an equal configuration and to one in which every route and endpoint changes;
//! `write` is the effective configuration as text. The shapes below the first three are hostile:
//! many problems, or many routes that only a close look tells apart.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use isobar::config::diff::diff;
use isobar::config::effective::effective_toml;
use isobar::config::{Config, parse};
use isobar::route::RouteTable;
use rustix::time::{ClockId, clock_gettime};

const SIZE: usize = 10_000;
/// Odd, so that there is a median.
const ROUNDS: usize = 5;

/// A way to write the `n`-th route and upstream.
struct Shape {
    name: &'static str,
    route: fn(n: usize) -> String,
    upstreams: usize,
}

const SHAPES: [Shape; 8] = [
    Shape {
        name: "a host a route, one upstream",
        route: |n| format!("host = 'h{n}.example.com'\npath = '/v1/*'\nupstream = 'u0'"),
        upstreams: 1,
    },
    Shape {
        name: "a path a route, 1,000 upstreams",
        route: |n| {
            format!(
                "path = '/api/{n}/*'\nmethod = ['GET', 'PUT']\nupstream = 'u{}'",
                n % 1000
            )
        },
        upstreams: 1000,
    },
    Shape {
        name: "a regex a route, 10,000 upstreams",
        route: |n| format!("path_regex = '^/users/{n}/[0-9]+$'\nupstream = 'u{n}'"),
        upstreams: SIZE,
    },
    Shape {
        name: "one path, told apart by a header",
        route: |n| format!("path = '/v1/*'\nheader = {{ x-tenant = 't{n}' }}\nupstream = 'u0'"),
        upstreams: 1,
    },
    Shape {
        name: "one path, told apart by a network",
        route: |n| {
            let (a, b) = (n / 256, n % 256);
            format!("path = '/v1/*'\nclient = '10.{a}.{b}.0/24'\nupstream = 'u0'")
        },
        upstreams: 1,
    },
    Shape {
        name: "all alike: every route but one shadowed",
        route: |_| "path = '/v1/*'\nupstream = 'u0'".to_owned(),
        upstreams: 1,
    },
    Shape {
        name: "every reference misspelt",
        route: |n| format!("path = '/v1/{n}'\nupstream = 'upstram{n}'"),
        upstreams: SIZE,
    },
    Shape {
        name: "every key misspelt",
        route: |n| format!("pth = '/v1/{n}'\nupsteam = 'u0'"),
        upstreams: 1,
    },
];

fn main() {
    println!("{SIZE} routes, {SIZE} endpoints; ms");
    print!("{:<42}", "");
    for step in ["check", "build", "same", "all", "write"] {
        print!("{step:>9}");
    }
    println!();
    for shape in SHAPES {
        let (text, other) = (shape.text("2s", 1), shape.text("3s", 2));
        let mut figures = vec![median(|| parse("bench.toml", &text).is_ok())];
        if let (Ok(old), Ok(new)) = (parse("bench.toml", &text), parse("bench.toml", &other)) {
            let (old, new) = (old.config, new.config);
            let same = old.clone();
            figures.push(median(|| build(&old)));
            figures.push(median(|| diff(&old, &same).is_empty()));
            figures.push(median(|| diff(&old, &new).changes().count()));
            figures.push(median(|| effective_toml(&old).len()));
        }
        print!("{:<42}", shape.name);
        for figure in figures {
            print!("{:>9.1}", figure.as_secs_f64() * 1000.0);
        }
        println!();
    }
}

impl Shape {
    fn text(&self, timeout: &str, weight: u32) -> String {
        let mut text = "[listeners.web]\nbind = ':8080'\n".to_owned();
        let each = SIZE / self.upstreams;
        for u in 0..self.upstreams {
            let _ = write!(text, "[upstreams.u{u}]\nendpoints = [");
            for e in u * each..(u + 1) * each {
                let (a, b) = (e / 256, e % 256);
                let _ = write!(
                    text,
                    "{{ address = '10.0.{a}.{b}:80', weight = {weight} }},"
                );
            }
            text += "]\n";
        }
        for n in 0..SIZE {
            let _ = write!(
                text,
                "[[routes]]\n{}\ntimeout = '{timeout}'\n",
                (self.route)(n)
            );
        }
        text
    }
}

fn build(config: &Config) -> RouteTable<usize> {
    let listeners: Vec<_> = config.listeners.iter().map(|l| l.name.clone()).collect();
    let rules = config.routes.iter().map(|r| r.rule.clone());
    RouteTable::build(&listeners, rules.zip(0..).collect())
}

fn median<T>(mut step: impl FnMut() -> T) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = cpu_time();
            black_box(step());
            cpu_time().saturating_sub(start)
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

/// Of this process, so that a busy machine makes no difference: every step has one thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
