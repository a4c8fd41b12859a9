//! The tables of TLS and HTTP/2: paths as they were resolved, never what is in the files.

use http::HeaderName;
use toml::{Table, Value};

use data_encoding::BASE64;

use crate::base::tls::{CertificateFiles, ClientAuth, ServerSpec};

use super::super::model::Check;
use super::super::model::{
    CheckTls, ClientHeaders, HealthSpec, Http2, ListenerTls, Protocol, Upstream, UpstreamTls,
};
use super::super::units::format_size;
use super::tables::{Put as _, duration, path};

/// `http2` of a listener.
pub(super) fn http2(http2: Option<&Http2>) -> Value {
    let Some(http2) = http2 else {
        return Value::from("off");
    };
    let Http2 {
        max_streams,
        stream_window,
        connection_window,
        max_resets,
        max_pings,
        max_settings,
        max_idle_frames,
    } = http2;
    let mut table = Table::new();
    table.put("max_streams", max_streams.get());
    table.put("stream_window", format_size(u64::from(*stream_window)));
    table.put(
        "connection_window",
        format_size(u64::from(*connection_window)),
    );
    table.put("max_resets", *max_resets);
    table.put("max_pings", *max_pings);
    table.put("max_settings", *max_settings);
    table.put("max_idle_frames", *max_idle_frames);
    Value::Table(table)
}

/// `tls` of a listener.
pub(super) fn listener_tls(tls: &ListenerTls) -> Table {
    let ListenerTls {
        server,
        tickets,
        ticket_secret_file,
        handshake_timeout,
        client_headers,
    } = tls;
    let ServerSpec {
        certificates,
        client_auth,
        min_version,
        alpn,
    } = server;
    let mut table = Table::new();
    let pairs = certificates.iter().map(|files| {
        let CertificateFiles { cert, key, ocsp } = files;
        let mut table = Table::new();
        table.put("cert", path(cert));
        table.put("key", path(key));
        table.put_some("ocsp", ocsp.as_deref().map(path));
        Value::Table(table)
    });
    table.put("certificates", Value::Array(pairs.collect()));
    table.put("min_version", min_version.as_str());
    let protocols = alpn
        .iter()
        .map(|protocol| Value::from(String::from_utf8_lossy(protocol).into_owned()));
    // An empty list would be an error: it reads like "nobody".
    table.put_list("alpn", protocols.collect());
    if let Some(ClientAuth {
        cas,
        crls,
        required,
    }) = client_auth
    {
        let files = |all: &[std::path::PathBuf]| all.iter().map(|p| path(p).into()).collect();
        table.put_list("client_ca", files(cas));
        table.put("client_auth", if *required { "require" } else { "request" });
        table.put_list("client_crl", files(crls));
    }
    let ClientHeaders {
        certificate,
        fingerprint,
        subject,
    } = client_headers;
    let mut told = Table::new();
    told.put_some("subject", subject.as_ref().map(HeaderName::as_str));
    told.put_some("fingerprint", fingerprint.as_ref().map(HeaderName::as_str));
    told.put_some("certificate", certificate.as_ref().map(HeaderName::as_str));
    table.put_table("client_headers", told);
    match ticket_secret_file {
        Some(file) if *tickets => {
            let mut tickets = Table::new();
            tickets.put("secret_file", path(file));
            table.put("tickets", tickets);
        }
        Some(_) | None => table.put("tickets", *tickets),
    }
    table.put("handshake_timeout", duration(*handshake_timeout));
    table
}

/// `protocol`, `max_streams` and `tls` of an upstream.
pub(super) fn upstream(upstream: &Upstream, table: &mut Table) {
    let word = match upstream.protocol {
        Protocol::Auto => "auto",
        Protocol::H1 => "h1",
        Protocol::H2 => "h2",
    };
    table.put("protocol", word);
    // With HTTP/1.1 there are no streams.
    if upstream.protocol != Protocol::H1 {
        table.put("max_streams", upstream.max_streams.get());
    }
    let Some(tls) = upstream.tls.as_deref() else {
        return;
    };
    let UpstreamTls {
        server_name,
        ca,
        identity,
        pins,
        verify,
        client: _,
    } = tls;
    let mut shown = Table::new();
    shown.put_some("server_name", server_name.as_deref());
    shown.put_some("ca", ca.as_deref().map(path));
    if let Some((cert, key)) = identity {
        shown.put("cert", path(cert));
        shown.put("key", path(key));
    }
    let pins = pins
        .iter()
        .map(|pin| Value::from(format!("sha256/{}", BASE64.encode(pin))));
    shown.put_list("pin", pins.collect());
    shown.put("insecure", !*verify);
    table.put("tls", shown);
}

/// `tls` of `health`, unless it is as the upstream's, which nothing says.
pub(super) fn check_tls(health: &HealthSpec, of_upstream: Option<&UpstreamTls>) -> Option<Value> {
    let Some(tls) = &health.tls else {
        let inherits = matches!(health.check, Check::Grpc(_) | Check::Http(_))
            && health.port.is_none()
            && of_upstream.is_some();
        return inherits.then_some(Value::from(false));
    };
    let CheckTls {
        server_name,
        ca,
        verify,
        client: _,
        of_upstream,
    } = tls;
    if *of_upstream {
        return None;
    }
    let mut table = Table::new();
    table.put_some("server_name", server_name.as_deref());
    table.put_some("ca", ca.as_deref().map(path));
    table.put("insecure", !*verify);
    Some(Value::Table(table))
}
