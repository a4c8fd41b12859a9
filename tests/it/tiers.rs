//! Backups, priorities and zones, as checks find endpoints well or not.
//!
//! On a busy machine a check of a good endpoint may fail now and then: what is awaited is asked again,
//! and what must not happen is asserted of endpoints whose checks cannot fail in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::{self, Origin};
use crate::support::proxy::Proxy;

/// An endpoint that names itself to requests and answers checks as its switch says.
struct Switched {
    origin: Origin,
    is_well: Arc<AtomicBool>,
}

impl Switched {
    fn new(name: &'static str) -> Self {
        let is_well = Arc::new(AtomicBool::new(true));
        let switch = is_well.clone();
        let origin = Origin::start(move |request| match request.head.target() {
            "/healthz" if switch.load(Ordering::SeqCst) => origin::reply(200, "well"),
            "/healthz" => origin::reply(500, "sick"),
            _ => origin::reply(200, name),
        });
        Self { origin, is_well }
    }

    fn addr(&self) -> SocketAddr {
        self.origin.addr()
    }

    fn set(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::SeqCst);
    }
}

/// A proxy over endpoints with these keys, all of them checked.
fn proxy(endpoints: &[(&Switched, &str)], process: &str) -> Proxy {
    let list: Vec<String> = endpoints
        .iter()
        .map(|(e, keys)| format!("{{ address = '{}'{keys} }}", e.addr()))
        .collect();
    Proxy::start(&format!(
        "[process]\nworkers = 1\n{process}\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n\
         [upstreams.app]\nbalance = 'round_robin'\nendpoints = [{}]\n\
         health = {{ check = 'http', path = '/healthz', interval = '200ms', timeout = '200ms', \
                     rise = 1, fall = 2 }}\n",
        list.join(", ")
    ))
}

/// Who answers so many requests in a row, each name once, in order.
fn who(proxy: &Proxy, n: usize) -> String {
    let mut names: Vec<String> = (0..n)
        .map(|_| Client::get(proxy.addr(), "/").text())
        .collect();
    names.sort();
    names.dedup();
    names.concat()
}

/// Waits until those and nobody else answer.
#[track_caller]
fn await_who(proxy: &Proxy, wanted: &str) {
    eventually(&format!("{wanted} answer, and nobody else"), || {
        who(proxy, 12) == wanted
    });
}

#[test]
fn backup_is_used_while_those_before_it_are_down() {
    let (a, b, c) = (Switched::new("a"), Switched::new("b"), Switched::new("c"));
    let proxy = proxy(&[(&a, ""), (&b, ""), (&c, ", backup = true")], "");
    await_who(&proxy, "ab");
    a.set(false);
    b.set(false);
    await_who(&proxy, "c");
    a.set(true);
    b.set(true);
    await_who(&proxy, "ab");
}

#[test]
fn priorities_are_used_one_after_the_other() {
    let (a, b, c) = (Switched::new("a"), Switched::new("b"), Switched::new("c"));
    let endpoints = [(&a, ""), (&b, ", priority = 1"), (&c, ", priority = 2")];
    let proxy = proxy(&endpoints, "");
    await_who(&proxy, "a");
    a.set(false);
    await_who(&proxy, "b");
    b.set(false);
    await_who(&proxy, "c");
    // Back in any order: the first that is well is used.
    a.set(true);
    await_who(&proxy, "a");
    b.set(true);
    a.set(false);
    await_who(&proxy, "b");
}

#[test]
fn own_zone_is_preferred_while_it_is_well() {
    let (a, b, c) = (Switched::new("a"), Switched::new("b"), Switched::new("c"));
    // One without a zone is near to everybody.
    let endpoints = [(&a, ", zone = 'here'"), (&b, ""), (&c, ", zone = 'there'")];
    let proxy = proxy(&endpoints, "zone = 'here'");
    await_who(&proxy, "ab");
    a.set(false);
    b.set(false);
    await_who(&proxy, "c");
    a.set(true);
    b.set(true);
    await_who(&proxy, "ab");
}

#[test]
fn zones_are_all_alike_to_a_process_without_one() {
    let (a, b) = (Switched::new("a"), Switched::new("b"));
    let endpoints = [(&a, ", zone = 'here'"), (&b, ", zone = 'there'")];
    await_who(&proxy(&endpoints, ""), "ab");
}

/// Without a ready endpoint requests get 503, and operators are told that this is so, and when it ends.
#[test]
fn failing_closed_is_told() {
    let a = Switched::new("a");
    let proxy = proxy(&[(&a, "")], "");
    let gauge = "isobar_upstream_failing_closed{upstream=\"app\"}";
    await_who(&proxy, "a");
    a.set(false);
    eventually("it fails closed", || proxy.metric(gauge) == 1.0);
    eventually("requests are told so", || {
        let refused = Client::get(proxy.addr(), "/");
        refused.status() == 503 && refused.field("retry-after") == Some("1")
    });
    a.set(true);
    eventually("it serves again", || proxy.metric(gauge) == 0.0);
    await_who(&proxy, "a");
}
