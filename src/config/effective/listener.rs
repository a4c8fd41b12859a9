//! The table of a listener: of HTTP, TCP or UDP.

use http::HeaderName;
use toml::{Table, Value};

use super::super::model::{
    Detect, FlowKey, Forwarding, Listener, Passthrough, ProxyProtocol, Serves, TcpSpec, UdpSpec,
};
use super::super::units::format_size;
use super::tables::{Put as _, duration, host, texts};
use super::{resilience, tls};

/// A table `[listeners.NAME]`, without the shorthand `upstream` of HTTP.
pub(in super::super) fn listener(listener: &Listener) -> Table {
    let Listener {
        name: _,
        bind,
        serves,
        proxy_protocol,
        passthrough,
        detect,
        grace,
        max_connections,
        // What only requests have.
        header_timeout: _,
        keepalive_timeout: _,
        idle_timeout: _,
        max_header_bytes: _,
        max_headers: _,
        max_body_bytes: _,
        max_pipelined: _,
        trusted_proxies: _,
        forwarding: _,
        http2: _,
        max_connection_age: _,
        tls: server_tls,
    } = listener;
    let mut table = Table::new();
    table.put("bind", texts(bind));
    table.put("protocol", serves.as_str());
    match serves {
        Serves::Http => {
            // An empty list says the default, none.
            table.put("trusted_proxies", texts(&listener.trusted_proxies));
            table.put("max_connections", *max_connections);
            of_requests(listener, &mut table);
        }
        Serves::Tcp(spec) => {
            tcp(spec, &mut table);
            table.put("max_connections", *max_connections);
        }
        Serves::Udp(spec) => udp(spec, &mut table),
    }
    table.put_some("grace", grace.map(duration));
    if let Some(ProxyProtocol { from, timeout }) = proxy_protocol {
        let mut told = Table::new();
        told.put_list("from", texts(from));
        if !matches!(serves, Serves::Udp(_)) {
            told.put("timeout", duration(*timeout));
        }
        table.put("proxy_protocol", told);
    }
    let entries = passthrough.iter().map(|entry| {
        let Passthrough {
            sni,
            alpn,
            upstream,
        } = entry;
        let mut table = Table::new();
        table.put_list("sni", sni.iter().map(host).collect());
        table.put_list("alpn", texts(alpn));
        table.put("upstream", &**upstream);
        Value::Table(table)
    });
    table.put_list("passthrough", entries.collect());
    if let Some(Detect {
        http,
        other,
        timeout,
    }) = detect
    {
        let mut told = Table::new();
        told.put("http", *http);
        told.put_some("other", other.as_deref());
        told.put("timeout", duration(*timeout));
        table.put("detect", told);
    }
    table.put_some("tls", server_tls.as_deref().map(tls::listener_tls));
    table
}

fn of_requests(listener: &Listener, table: &mut Table) {
    let Listener {
        name: _,
        bind: _,
        serves: _,
        proxy_protocol: _,
        passthrough: _,
        detect: _,
        grace: _,
        max_connections: _,
        header_timeout,
        keepalive_timeout,
        idle_timeout,
        max_header_bytes,
        max_headers,
        max_body_bytes,
        max_pipelined,
        trusted_proxies: _,
        forwarding,
        http2,
        max_connection_age,
        tls: _,
    } = listener;
    let Forwarding {
        x_forwarded,
        forwarded,
        via,
        request_id,
    } = forwarding;
    table.put("header_timeout", duration(*header_timeout));
    table.put("keepalive_timeout", duration(*keepalive_timeout));
    table.put("idle_timeout", duration(*idle_timeout));
    table.put("max_header_bytes", format_size(*max_header_bytes as u64));
    table.put("max_headers", *max_headers as i64);
    table.put(
        "max_body_bytes",
        max_body_bytes.map_or_else(|| "none".to_owned(), format_size),
    );
    table.put("max_pipelined", *max_pipelined);
    let mut told = Table::new();
    told.put("x_forwarded", *x_forwarded);
    told.put("forwarded", *forwarded);
    told.put_some("via", via.as_deref());
    told.put(
        "request_id",
        request_id.as_ref().map_or("off", HeaderName::as_str),
    );
    table.put("forwarding", told);
    table.put(
        "max_connection_age",
        max_connection_age.map_or_else(|| "off".to_owned(), duration),
    );
    table.put("http2", tls::http2(http2.as_ref()));
}

fn tcp(spec: &TcpSpec, table: &mut Table) {
    let TcpSpec {
        upstream,
        idle_timeout,
        half_close_timeout,
        rate_limits,
    } = spec;
    table.put_some("upstream", upstream.as_deref());
    table.put(
        "idle_timeout",
        idle_timeout.map_or_else(|| "none".to_owned(), duration),
    );
    table.put("half_close_timeout", duration(*half_close_timeout));
    table.put_some(
        "rate_limit",
        resilience::rate_limits(rate_limits, "listener"),
    );
}

fn udp(spec: &UdpSpec, table: &mut Table) {
    let UdpSpec {
        upstream,
        flow,
        idle_timeout,
        responses,
        max_flows,
        max_flows_per_client,
        rate_limits,
    } = spec;
    table.put("upstream", &**upstream);
    match flow {
        FlowKey::Client => table.put("flow", "client"),
        FlowKey::Quic { length } => {
            let mut of = Table::new();
            of.put("quic", i64::from(*length));
            table.put("flow", of);
        }
    }
    table.put("idle_timeout", duration(*idle_timeout));
    table.put_some("responses", responses.map(std::num::NonZeroU32::get));
    table.put("max_flows", max_flows.get());
    table.put("max_flows_per_client", max_flows_per_client.get());
    table.put_some(
        "rate_limit",
        resilience::rate_limits(rate_limits, "listener"),
    );
}
