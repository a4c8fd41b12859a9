//! What an endpoint is told of a client at the beginning of its connection: the PROXY protocol, outwards.

use std::net::SocketAddr;

use crate::base::addr::canonical;
use crate::base::proxy_protocol::{
    Addresses, Certificate, Header, Ssl, Tlvs, Transport, Version, write_v1, write_v2,
};
use crate::base::stream::Stream;
use crate::base::tls::TlsStream;
use crate::config::{self, ProxyVersion};

use super::h1::Conn;

/// The header for a connection on behalf of `conn`; empty = the endpoint is told nothing.
pub(super) fn announce(conn: &Conn, spec: &config::Upstream) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(version) = spec.send_proxy_protocol else {
        return out;
    };
    let told = origin(&conn.stream, conn.peer, conn.proxied.as_deref());
    match version {
        ProxyVersion::V1 => write_v1(&mut out, told.addresses.as_ref()),
        ProxyVersion::V2 => {
            let addresses = told.addresses.as_ref();
            write_v2(&mut out, Transport::Stream, addresses, &told.tlvs);
        }
    }
    out
}

/// Who is connected to whom, and how: what a header told that came with the connection, which is whom it is
/// about, and what was agreed on here.
pub(super) fn origin(stream: &Stream, peer: Option<SocketAddr>, told: Option<&Header>) -> Header {
    let addresses = told.and_then(|header| header.addresses).or_else(|| {
        Some(Addresses {
            source: peer?,
            destination: canonical(stream.local_addr()?),
        })
    });
    let mut tlvs = told.map_or_else(Tlvs::default, |header| header.tlvs.clone());
    if let Stream::Tls(tls) = stream {
        describe(tls, &mut tlvs);
    }
    Header {
        len: 0,
        version: Version::V2,
        addresses,
        tlvs,
    }
}

/// Tells of the TLS that ends here.
fn describe(tls: &TlsStream, tlvs: &mut Tlvs) {
    if let Some(protocol) = tls.protocol() {
        tlvs.set_alpn(protocol);
    }
    let session = tls.session();
    let cipher = session.negotiated_cipher_suite();
    // rustls' own names of TLS 1.3's suites have its number in them.
    let cipher = cipher.map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
    tlvs.set_ssl(&Ssl {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: cipher.as_deref(),
        // One that is not verified does not get through the handshake.
        certificate: match tls.peer_certificates() {
            Some([_, ..]) => Certificate::Verified,
            _ => Certificate::Absent,
        },
        common_name: None,
    });
}
