//! Connections of TCP in a process that may open nothing more.

use std::time::Duration;

use crate::support::eventually::eventually;
use crate::support::now;
use crate::support::origin::pattern;
use crate::support::running::Running;
use crate::support::tcp::{End, Endpoint};

fn over(endpoint: &Endpoint) -> Running {
    Running::over(endpoint.addr(), "", "")
}

fn join(running: &Running, endpoint: &Endpoint) -> (End, End) {
    let client = End::connect(running.web);
    (client, endpoint.accept())
}

#[test]
fn who_comes_waits_and_who_is_there_goes_on() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let (mut client, mut server) = join(&running, &endpoint);
    client.talks_to(&mut server);
    running.limit_descriptors(Some(3));
    let mut waiting: Vec<End> = (0..5).map(|_| End::connect(running.web)).collect();
    for end in &mut waiting {
        end.send("here");
    }
    let (cpu, end) = (running.cpu(), now() + Duration::from_secs(1));
    eventually("time passes", || now() >= end);
    let used = running.cpu() - cpu;
    assert!(used <= 30, "{used} hundredths of a second in vain");
    assert!(endpoint.is_quiet());
    for _ in 0..20 {
        client.talks_to(&mut server);
    }
    running.limit_descriptors(None);
    for _ in &waiting {
        let mut server = endpoint.accept();
        assert_eq!(server.exactly(4), b"here");
    }
    let errors = running.metric("isobar_listener_accept_errors_total{listener=\"web\"}");
    assert!(errors >= 1.0);
    client.talks_to(&mut server);
}

/// The one descriptor that is left is for the client.
#[test]
fn an_endpoint_is_not_blamed_for_what_the_process_lacks() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    // Both workers have one: neither is still about to open what it has for good.
    let (mut client, mut server) = join(&running, &endpoint);
    let mut second = join(&running, &endpoint);
    client.talks_to(&mut server);
    second.0.talks_to(&mut second.1);
    let folder = format!("/proc/{}/fd", running.isobar.pid());
    for _ in 0..8 {
        let open = std::fs::read_dir(&folder).unwrap().flatten();
        let open: Vec<String> = open.map(|f| f.file_name().into_string().unwrap()).collect();
        let free = (0u64..1 << 20)
            .find(|n| !open.contains(&n.to_string()))
            .unwrap();
        running.limit_descriptors(Some(free + 1));
        End::connect_to_be_reset(running.web);
        running.limit_descriptors(None);
    }
    client.talks_to(&mut server);
    let (mut next, mut its) = join(&running, &endpoint);
    next.talks_to(&mut its);
    let refusals = "isobar_listener_refusals_total{listener=\"web\",reason=\"unreachable\"}";
    assert_eq!(running.metric(refusals), 8.0);
    let failures = "isobar_upstream_connect_failures_total{upstream=\"app\",reason=\"local\"}";
    assert_eq!(running.metric(failures), 8.0);
    assert_eq!(running.flows("failed"), 8);
}

#[test]
fn bulk_is_copied_where_there_are_no_pipes() {
    let endpoint = Endpoint::new();
    let running = over(&endpoint);
    let pairs = [(); 2].map(|()| join(&running, &endpoint));
    running.limit_descriptors(Some(3));
    let all = pattern(0, 4 << 20);
    for (mut client, server) in pairs {
        let mut writer = End(client.0.try_clone().unwrap());
        let up = all.clone();
        let sending = std::thread::spawn(move || {
            writer.send(up);
            writer.end();
        });
        let down = all.clone();
        let answering = std::thread::spawn(move || {
            let mut server = server;
            assert!(server.read_to_end() == down, "other bytes");
            server.send(down);
        });
        assert!(client.read_to_end() == all, "other bytes");
        sending.join().unwrap();
        answering.join().unwrap();
    }
    running.limit_descriptors(None);
    eventually("their records", || running.flows("ok") == 2);
    let moved = |way| running.metric(&format!("isobar_relayed_bytes_total{{way=\"{way}\"}}"));
    assert_eq!(moved("splice"), 0.0);
    assert_eq!(moved("copy"), 16.0 * f64::from(1 << 20));
}
