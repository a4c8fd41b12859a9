//! isobar in another program: the examples run, a balancer from outside decides.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use isobar::balance::{Ask, Balancer};
use isobar::config::{self, PortZero};
use isobar::server::{Server, Shutdown, StartError};

use super::support::client::Client;
use super::support::origin::Origin;
use super::support::proxy::Proxy;

#[path = "../../examples/custom_balancer.rs"]
mod custom_balancer;
#[path = "../../examples/embed.rs"]
mod program;

#[test]
fn examples_run() {
    program::main().unwrap();
    custom_balancer::main().unwrap();
}

/// Always the last one, counting how often it was asked.
#[derive(Debug)]
struct Last {
    index: usize,
    asked: Arc<AtomicUsize>,
}

impl Balancer for Last {
    fn pick(&self, _: &mut Ask<'_>) -> Option<usize> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Some(self.index)
    }
}

#[test]
fn balancer_given_for_an_upstream_picks_in_the_place_of_its_policy() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let toml = Proxy::config_over(&[a.addr(), b.addr()], "");
    let config = config::parse_with("t", &toml, PortZero::Allowed)
        .unwrap()
        .config;
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = Server::builder(&config)
        .balancer("app", {
            let (asked, seen) = (asked.clone(), seen.clone());
            move |members, ready| {
                let names: Vec<String> = members.iter().map(|m| m.name.to_string()).collect();
                seen.lock().unwrap().push((names, ready.to_vec()));
                let asked = asked.clone();
                Arc::new(Last {
                    index: members.len() - 1,
                    asked,
                })
            }
        })
        .start()
        .unwrap();
    let web = server.local_addr("web").unwrap();
    for _ in 0..4 {
        assert_eq!(Client::get(web, "/").text(), "b");
    }
    assert_eq!(server.shutdown(), Shutdown::Clean);
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    assert_eq!(a.requests().len(), 0);
    let names = [&a, &b].map(|o| o.addr().to_string()).to_vec();
    assert_eq!(*seen.lock().unwrap(), [(names, vec![true, true])]);
}

#[test]
fn balancer_for_an_unknown_upstream_is_refused_by_name() {
    let toml = Proxy::config_over(&["127.0.0.1:1".parse().unwrap()], "");
    let config = config::parse_with("t", &toml, PortZero::Allowed)
        .unwrap()
        .config;
    let error = Server::builder(&config)
        .balancer("api", |_, _| panic!("built for nobody"))
        .start()
        .unwrap_err();
    assert!(matches!(&error, StartError::UnknownUpstream { name, .. } if name == "api"));
    assert_eq!(
        error.to_string(),
        "no upstream `api` for the balancer given; the configuration has app"
    );
}
