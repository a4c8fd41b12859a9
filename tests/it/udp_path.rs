//! Datagrams too long for the path to their endpoint, in network namespaces: a router tells of it, as of nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::proxy::Proxy;
use crate::support::udp::{UdpClient, UdpOrigin};
use crate::support::{need, not_run};

/// Three namespaces in a row: ours, a router's, and behind it the endpoint's, to which the way is narrow. They go
/// when this is dropped.
struct Path {
    ip: PathBuf,
    names: [String; 3],
}

/// What passes the second half of the way, headers included; the first half has 1500. The least that IPv6 allows.
const NARROW: &str = "1280";

const HERE: usize = 0;
const ROUTER: usize = 1;
const THERE: usize = 2;

// === impl Path ===

impl Path {
    /// `None` where this process may not, after having said so.
    fn build() -> Option<Self> {
        let ip = need("ip")?;
        let name = |what: &str| format!("isobar-{}-path-{what}", std::process::id());
        let names = ["here", "router", "there"].map(name);
        let path = Self { ip, names };
        match path.wire() {
            Ok(()) => Some(path),
            Err(why) => {
                not_run(&format!("no network namespaces here: {why}"));
                None
            }
        }
    }

    fn wire(&self) -> Result<(), String> {
        let names = &self.names;
        for name in names {
            self.ip(&format!("netns add {name}"))?;
            self.ip(&format!("-n {name} link set lo up"))?;
        }
        for (end, mtu) in [(HERE, "1500"), (THERE, NARROW)] {
            let (of, router) = (&names[end], &names[ROUTER]);
            self.ip(&format!(
                "-n {router} link add to{end} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {of}"
            ))?;
            // No time for the detection of duplicates.
            for (of, device, host) in [(router, format!("to{end}"), 1), (of, "eth0".into(), 2)] {
                self.ip(&format!(
                    "-n {of} addr add 10.98.{end}.{host}/24 dev {device}"
                ))?;
                self.ip(&format!(
                    "-n {of} addr add fd00:98:{end}::{host}/64 dev {device} nodad"
                ))?;
                self.ip(&format!("-n {of} link set {device} up"))?;
            }
            self.ip(&format!("-n {of} route add default via 10.98.{end}.1"))?;
            self.ip(&format!(
                "-n {of} -6 route add default via fd00:98:{end}::1"
            ))?;
        }
        let forwarding = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
        for file in forwarding.map(|name| format!("/proc/sys/net/{name}")) {
            let set = format!("echo 1 >{file}");
            let router = &names[ROUTER];
            self.run(&["netns", "exec", router, "sh", "-c", &set])?;
        }
        Ok(())
    }

    /// A line of words.
    fn ip(&self, line: &str) -> Result<(), String> {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn run(&self, args: &[&str]) -> Result<(), String> {
        let (status, said) = Tool::run(&self.ip, args);
        if status.success() {
            Ok(())
        } else {
            Err(format!("ip {}: {}", args.join(" "), said.trim()))
        }
    }

    /// Takes this thread there, and those that it will start.
    #[track_caller]
    fn enter(&self, end: usize) {
        let file = File::open(format!("/run/netns/{}", self.names[end])).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        for name in &self.names {
            // Not all may be there.
            let _ = self.ip(&format!("netns del {name}"));
        }
    }
}

/// The first datagram that is too long is lost, as on any path; it is counted, its flow goes on, and the endpoint is
/// none the worse for it. The next are cut to what passes, and arrive.
#[test]
fn a_path_that_takes_less_is_not_the_endpoints_failure() {
    let Some(path) = Path::build() else { return };
    let test = std::thread::spawn(move || {
        for endpoint in ["10.98.2.2", "fd00:98:2::2"] {
            let endpoint = SocketAddr::new(endpoint.parse::<IpAddr>().unwrap(), 0);
            path.enter(THERE);
            let origin = UdpOrigin::at(endpoint, |data| vec![data.to_vec()]);
            path.enter(HERE);
            let proxy = Proxy::start(&format!(
                "[process]\nworkers = 1\ngrace = \"0s\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
                 [listeners.web]\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n\
                 [upstreams.app]\nendpoints = [\"{}\"]\n",
                origin.addr()
            ));
            let client = UdpClient::new(proxy.addr());
            assert_eq!(client.ask("short"), "short");
            // Fits the first half of the way, and not the second.
            let long = "x".repeat(1400);
            client.send(&long);
            let dropped =
                "isobar_udp_dropped_datagrams_total{listener=\"web\",reason=\"too_long\"}";
            eventually("the router's word", || proxy.metric(dropped) == 1.0);
            assert_eq!(client.ask(&long), long);
            assert_eq!(client.ask("short"), "short");
            assert_eq!(origin.seen().len(), 3);
            // A failure would have left the endpoint, and come back from another port.
            assert_eq!(origin.senders().len(), 1);
            assert_eq!(proxy.metric("isobar_udp_flows{listener=\"web\"}"), 1.0);
        }
    });
    if let Err(panic) = test.join() {
        std::panic::resume_unwind(panic);
    }
}
