//! What an endpoint is told of a client at the beginning of its connection: the PROXY protocol, outwards.

use std::net::SocketAddr;

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
    let Header {
        addresses, tlvs, ..
    } = known(&conn.stream, conn.peer, conn.proxied.as_deref());
    match version {
        ProxyVersion::V1 => write_v1(&mut out, addresses.as_ref()),
        ProxyVersion::V2 => write_v2(&mut out, Transport::Stream, addresses.as_ref(), &tlvs),
    }
    out
}

/// All that is known of the client of a connection: what a header said of it, which is told on as it is,
/// and its TLS, if that ends here.
pub(super) fn known(stream: &Stream, peer: Option<SocketAddr>, told: Option<&Header>) -> Header {
    let addresses = told.and_then(|header| header.addresses).or_else(|| {
        Some(Addresses {
            source: peer?,
            destination: stream.local_addr()?,
        })
    });
    let mut tlvs = told.map_or_else(Tlvs::default, |header| header.tlvs.clone());
    if let Stream::Tls(tls) = stream {
        tell_tls(&mut tlvs, tls);
    }
    Header {
        len: 0,
        version: Version::V2,
        addresses,
        tlvs,
    }
}

fn tell_tls(tlvs: &mut Tlvs, tls: &TlsStream) {
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
