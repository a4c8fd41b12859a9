//! What the keys of layer 4 amount to, and whether they read back.

use std::time::Duration;

use crate::base::addr::BindAddr;
use crate::config::diff::{Change, diff};
use crate::config::effective::effective_toml;
use crate::config::{
    Config, Detect, FlowKey, LimitKey, Listener, OnDown, ProxyVersion, Serves, TcpSpec, UdpSpec,
    Upstream, parse,
};
use crate::route::HostPattern;

const UPSTREAMS: &str = "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n[upstreams.b]\nendpoints = \
                         ['127.0.0.1:2']\n";

fn config(text: &str) -> Config {
    parse("t.toml", text)
        .unwrap_or_else(|p| panic!("{p}\n{text}"))
        .config
}

fn listener(keys: &str) -> Listener {
    let text = format!("[listeners.l]\nbind = ':1'\n{keys}\n{UPSTREAMS}");
    config(&text).listeners.remove(0)
}

fn tcp(keys: &str) -> TcpSpec {
    match listener(&format!("protocol = 'tcp'\n{keys}")).serves {
        Serves::Tcp(spec) => spec,
        other => panic!("{other:?}"),
    }
}

fn udp(keys: &str) -> UdpSpec {
    match listener(&format!("protocol = 'udp'\nupstream = 'a'\n{keys}")).serves {
        Serves::Udp(spec) => spec,
        other => panic!("{other:?}"),
    }
}

fn upstream(keys: &str) -> Upstream {
    let text = format!("[upstreams.a]\nendpoints = ['127.0.0.1:1']\n{keys}\n");
    config(&text).upstreams.remove(0)
}

/// The codes of what is reported.
fn codes(text: &str) -> Vec<&'static str> {
    match parse("t.toml", text) {
        Ok(loaded) => loaded.warnings.iter().map(|d| d.code).collect(),
        Err(problems) => problems.diagnostics().iter().map(|d| d.code).collect(),
    }
}

#[test]
fn a_listener_speaks_http_unless_it_says_otherwise() {
    let plain = listener("upstream = 'a'");
    assert_eq!(plain.serves, Serves::Http);
    assert_eq!(listener("protocol = 'http'\nupstream = 'a'"), plain);
    assert_eq!((plain.proxy_protocol, plain.grace), (None, None));
    assert!(plain.passthrough.is_empty() && plain.detect.is_none());
}

#[test]
fn connections_are_patient_and_bounded() {
    let plain = tcp("upstream = 'a'");
    assert_eq!(plain.upstream.as_deref(), Some("a"));
    assert_eq!(plain.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(plain.half_close_timeout, Duration::from_secs(300));
    assert!(plain.rate_limits.is_empty());
    let said = tcp("upstream = 'a'\nidle_timeout = 'none'\nhalf_close_timeout = '1s'");
    assert_eq!(said.idle_timeout, None);
    assert_eq!(said.half_close_timeout, Duration::from_secs(1));
    let l = listener("protocol = 'tcp'\nupstream = 'a'\nmax_connections = 7\ngrace = '0s'");
    assert_eq!((l.max_connections, l.grace), (7, Some(Duration::ZERO)));
    assert_eq!((l.http2, l.tls), (None, None));
}

#[test]
fn flows_are_short_and_bounded() {
    let plain = udp("");
    assert_eq!((&*plain.upstream, plain.flow), ("a", FlowKey::Client));
    assert_eq!(plain.idle_timeout, Duration::from_secs(30));
    assert_eq!(plain.responses, None);
    assert_eq!(plain.max_flows.get(), 65_536);
    assert_eq!(plain.max_flows_per_client.get(), 4096);
    assert_eq!(udp("responses = 1").responses.unwrap().get(), 1);
    let few = udp("max_flows = 10");
    assert_eq!(few.max_flows_per_client.get(), 10, "never more than all");
}

#[test]
fn connection_ids_have_eight_bytes_unless_told() {
    assert_eq!(udp("flow = 'client'").flow, FlowKey::Client);
    assert_eq!(udp("flow = 'quic'").flow, FlowKey::Quic { length: 8 });
    assert_eq!(
        udp("flow = { quic = 20 }").flow,
        FlowKey::Quic { length: 20 }
    );
    assert_eq!(udp("flow = { quic = 1 }").flow, FlowKey::Quic { length: 1 });
}

#[test]
fn new_connections_are_limited_by_client_or_together() {
    let limits = tcp(
        "upstream = 'a'\nrate_limit = [{ rate = 1 }, { key = 'listener', rate = 9, burst = 20 }]",
    )
    .rate_limits;
    assert_eq!(limits[0].key, LimitKey::Client);
    assert_eq!(limits[1].key, LimitKey::Route);
    assert_eq!((limits[1].rate, limits[1].burst), (9, 20));
    assert_eq!(udp("rate_limit = { rate = 3 }").rate_limits[0].rate, 3);
}

#[test]
fn connections_pass_through_by_what_they_ask_for() {
    let l = listener(
        "protocol = 'tcp'\npassthrough = [{ sni = ['A.example', '*.B.example'], alpn = 'h2', \
         upstream = 'a' }, { upstream = 'b' }]",
    );
    let Serves::Tcp(spec) = &l.serves else {
        panic!("{l:?}");
    };
    assert_eq!(spec.upstream, None);
    let first = &l.passthrough[0];
    assert_eq!(
        first.sni,
        [
            HostPattern::Exact("a.example".to_owned()),
            HostPattern::Wildcard("b.example".to_owned())
        ]
    );
    assert_eq!(
        (&first.alpn[..], &*first.upstream),
        (&["h2".to_owned()][..], "a")
    );
    let last = &l.passthrough[1];
    assert!(last.sni.is_empty() && last.alpn.is_empty());
    assert_eq!(&*last.upstream, "b");
    let one = listener("upstream = 'a'\npassthrough = { upstream = 'b' }");
    assert_eq!((one.serves, one.passthrough.len()), (Serves::Http, 1));
}

#[test]
fn a_port_may_speak_several_things() {
    let l = listener(
        "upstream = 'a'\npassthrough = { sni = 'x.example', upstream = 'a' }\ndetect = { other = \
         'b' }",
    );
    let expected = Detect {
        http: false,
        other: Some("b".into()),
        timeout: Duration::from_secs(3),
    };
    assert_eq!(l.detect, Some(expected));
    let said = listener("upstream = 'a'\ndetect = { other = 'b', timeout = '1s' }");
    assert_eq!(said.detect.unwrap().timeout, Duration::from_secs(1));
}

#[test]
fn the_proxy_protocol_is_taken_from_those_who_are_named() {
    let of =
        |value: &str| listener(&format!("upstream = 'a'\nproxy_protocol = {value}")).proxy_protocol;
    let one = of("{ from = '10.0.0.1' }").unwrap();
    assert_eq!(one.from, ["10.0.0.1/32".parse().unwrap()]);
    assert_eq!(one.timeout, Duration::from_secs(3));
    let more = of("{ from = ['10.0.0.0/8', '::1'], timeout = '9s' }").unwrap();
    assert_eq!((more.from.len(), more.timeout.as_secs()), (2, 9));
    assert_eq!(of("'off'"), None);
    assert_eq!(of("false"), None);
    let text = format!(
        "[listeners.l]\nbind = 'unix:/a'\nupstream = 'a'\nproxy_protocol = {{}}\n{UPSTREAMS}"
    );
    let unix = config(&text).listeners.remove(0);
    assert!(matches!(unix.bind[0], BindAddr::Unix(_)));
    assert!(unix.proxy_protocol.unwrap().from.is_empty());
}

#[test]
fn a_connection_that_tells_of_a_client_is_not_kept_for_another() {
    let plain = upstream("");
    assert_eq!(
        (plain.send_proxy_protocol, plain.on_down),
        (None, OnDown::Keep)
    );
    assert_eq!(plain.keepalive.max_idle, 256);
    for (word, version) in [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)] {
        let told = upstream(&format!("send_proxy_protocol = '{word}'"));
        assert_eq!(told.send_proxy_protocol, Some(version));
        assert_eq!(told.keepalive.max_idle, 0);
    }
    assert_eq!(upstream("send_proxy_protocol = 'off'"), plain);
    let close = upstream("on_down = 'close'\nhealth = { check = 'tcp' }");
    assert_eq!(close.on_down, OnDown::Close);
}

#[test]
fn tcp_and_udp_may_share_a_port_and_http_and_tcp_may_not() {
    let of = |first: &str, second: &str| {
        codes(&format!(
            "[listeners.l]\nbind = ':53'\nprotocol = '{first}'\nupstream = 'a'\n[listeners.m]\n\
             bind = '127.0.0.1:53'\nprotocol = '{second}'\nupstream = 'b'\n{UPSTREAMS}"
        ))
    };
    assert_eq!(of("tcp", "udp"), [""; 0]);
    assert_eq!(of("http", "udp"), [""; 0]);
    assert_eq!(of("udp", "udp"), ["bind-conflict"]);
    assert_eq!(of("tcp", "tcp"), ["bind-conflict"]);
    assert_eq!(of("http", "tcp"), ["bind-conflict"]);
}

#[test]
fn listeners_of_layer_4_make_no_routes() {
    let text = format!(
        "[listeners.l]\nbind = ':1'\nprotocol = 'tcp'\nupstream = 'a'\n[listeners.m]\nbind = \
         ':1'\nprotocol = 'udp'\nupstream = 'b'\n{UPSTREAMS}"
    );
    assert_eq!(config(&text).routes, []);
    assert_eq!(codes(&text), [""; 0], "both upstreams are used");
    // A route may bear the name of such a listener.
    let named = format!(
        "[listeners.l]\nbind = ':1'\nprotocol = 'tcp'\nupstream = 'a'\n[listeners.w]\nbind = \
         ':2'\n[[routes]]\nname = 'l'\nupstream = 'b'\n{UPSTREAMS}"
    );
    assert_eq!(codes(&named), [""; 0]);
}

#[test]
fn what_leads_on_is_used() {
    let text = format!(
        "[listeners.l]\nbind = ':1'\nprotocol = 'tcp'\npassthrough = {{ sni = 'x.example', \
         upstream = 'a' }}\ndetect = {{ other = 'b' }}\n{UPSTREAMS}"
    );
    assert_eq!(codes(&text), [""; 0]);
}

#[test]
fn all_of_it_reads_back() {
    for text in [
        "[listeners.l]\nbind = [':1', 'unix:/a']\nprotocol = 'tcp'\nupstream = 'a'\nidle_timeout = \
         'none'\nhalf_close_timeout = '1s'\nmax_connections = 5\ngrace = '1h'\nproxy_protocol = { \
         from = '10.0.0.0/8' }\nrate_limit = [{ rate = 1 }, { key = 'listener', rate = 2 \
         }]\npassthrough = [{ sni = ['x.example', '*.y.example'], alpn = ['h2', 'é'], upstream = 'b' \
         }, { upstream = 'a' }]\ndetect = { other = 'b' }",
        "[listeners.l]\nbind = 'unix:/a'\nprotocol = 'tcp'\nproxy_protocol = {}\npassthrough = { \
         upstream = 'b' }\n[listeners.m]\nbind = ':1'\nupstream = 'a'\nproxy_protocol = { from = \
         '::/0' }\ngrace = '0s'\npassthrough = { sni = 'x.example', upstream = 'b' }\ndetect = {}",
        "[listeners.l]\nbind = ':53'\nprotocol = 'udp'\nupstream = 'a'\nresponses = \
         1\nidle_timeout = '5s'\nmax_flows = 9\nproxy_protocol = { from = ['10.0.0.1'] \
         }\nrate_limit = { key = 'listener', rate = 2 }\n[listeners.m]\nbind = ':53'\nprotocol = \
         'tcp'\nupstream = 'a'\n[listeners.n]\nbind = ':443'\nprotocol = 'udp'\nupstream = \
         'b'\nflow = { quic = 20 }\nmax_flows_per_client = 1",
    ] {
        let ends = "send_proxy_protocol = 'v2'\non_down = 'close'\nhealth = { check = 'tcp' }\n";
        let first = config(&format!("{text}\n{UPSTREAMS}{ends}"));
        let written = effective_toml(&first);
        let again = config(&written);
        assert_eq!(again, first, "{written}");
        assert_eq!(effective_toml(&again), written);
        assert!(diff(&first, &again).is_empty());
    }
}

#[test]
fn changes_are_told_key_by_key() {
    let of = |keys: &str| config(&format!("[listeners.l]\nbind = ':1'\n{keys}\n{UPSTREAMS}"));
    let plan = |old: &str, new: &str| diff(&of(old), &of(new)).to_string();
    let tcp = "protocol = 'tcp'\nupstream = 'a'";
    let other = plan(tcp, "protocol = 'tcp'\nupstream = 'b'\nidle_timeout = '1s'");
    assert!(other.contains("upstream: a -> b"), "{other}");
    assert!(other.contains("idle_timeout: 1h -> 1s"), "{other}");
    let opened = plan(tcp, "protocol = 'tcp'\npassthrough = { upstream = 'a' }");
    assert!(opened.contains("passthrough"), "{opened}");
    let http = plan(tcp, "upstream = 'a'");
    assert!(http.contains("protocol: tcp -> http"), "{http}");
    assert!(!http.contains("binds"), "the socket stays: {http}");
}

#[test]
fn a_port_of_udp_is_another_than_that_of_tcp() {
    let of = |word: &str| {
        config(&format!(
            "[listeners.l]\nbind = ':1'\nprotocol = '{word}'\nupstream = 'a'\n{UPSTREAMS}"
        ))
    };
    let plan = diff(&of("tcp"), &of("udp"));
    let changes: Vec<_> = plan.changes().collect();
    assert_eq!(changes.len(), 1);
    assert!(matches!(changes[0].change, Change::Rebind { .. }));
    let text = plan.to_string();
    assert!(
        text.contains("binds :1") && text.contains("leaves :1"),
        "{text}"
    );
    assert!(!text.contains("keeps"), "{text}");
}
