//! A connection as a shell has it: the server speaks first, then nobody for long, and it outlives every
//! reload; clients that vanish are found by TCP keepalive.

use std::net::SocketAddr;

use crate::support::eventually::eventually;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, Endpoint};

fn config(endpoints: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("'{e}'")).collect();
    format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n[listeners.web]\nbind = \
         '127.0.0.1:0'\nprotocol = 'tcp'\nupstream = 'app'\nidle_timeout = 'none'\ngrace = \
         '1h'\n[upstreams.app]\nendpoints = [{}]\n{more}\n",
        endpoints.join(", ")
    )
}

#[test]
fn a_silent_connection_outlives_reloads_and_the_end_of_its_endpoint_in_the_file() {
    let (endpoint, next) = (Endpoint::new(), Endpoint::new());
    let proxy = Proxy::start(&config(&[endpoint.addr()], ""));
    let (mut client, mut server) = endpoint.join(&proxy);
    server.send("SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(client.exactly(21), b"SSH-2.0-OpenSSH_9.2\r\n");
    for round in 0..5 {
        let more = format!("connect_timeout = '{}s'", 2 + round);
        proxy.reload(&config(&[endpoint.addr()], &more));
    }
    client.talks_to(&mut server);
    // Its endpoint is not in the file any more: it drains, and this one may take its time.
    proxy.reload(&config(&[next.addr()], ""));
    let (mut other, mut new) = next.join(&proxy);
    other.talks_to(&mut new);
    client.talks_to(&mut server);
    server.end();
    assert_eq!(client.next(), Came::End);
    client.end();
    assert_eq!(server.next(), Came::End);
    eventually("one connection is left", || proxy.connections() == [1]);
}

#[test]
fn clients_that_vanish_are_looked_for() {
    let endpoint = Endpoint::new();
    let proxy = Proxy::start(&config(&[endpoint.addr()], ""));
    let (mut client, mut server) = endpoint.join(&proxy);
    client.talks_to(&mut server);
    // proc_net_tcp(5): the proxy's side of the connection, and 2 in the field of timers is keepalive.
    let ends = (proxy.addr().port(), client.0.local_addr().unwrap().port());
    let local = format!("0100007F:{:04X} 0100007F:{:04X}", ends.0, ends.1);
    eventually("the keepalive timer", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&local));
        let timer = line.and_then(|line| line.split_whitespace().nth(5));
        timer.is_some_and(|timer| timer.starts_with("02:"))
    });
}
