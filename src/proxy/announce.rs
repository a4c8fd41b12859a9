//! What an endpoint is told of a client at the beginning of its connection: the PROXY protocol, outwards.

use crate::base::proxy_protocol::{
    Addresses, Certificate, Ssl, Tlvs, Transport, write_v1, write_v2,
};
use crate::base::stream::Stream;
use crate::config::{self, ProxyVersion};

use super::h1::Conn;

/// The header for a connection on behalf of `conn`; empty = the endpoint is told nothing.
pub(super) fn announce(conn: &Conn, spec: &config::Upstream) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(version) = spec.send_proxy_protocol else {
        return out;
    };
    let told = conn.proxied.as_deref();
    // What came with a header of its own is told on: that is whom it is about.
    let addresses = match told {
        Some(header) => header.addresses,
        None => None,
    };
    let addresses = addresses.or_else(|| {
        Some(Addresses {
            source: conn.peer?,
            destination: conn.stream.local_addr()?,
        })
    });
    match version {
        ProxyVersion::V1 => write_v1(&mut out, addresses.as_ref()),
        ProxyVersion::V2 => {
            let mut tlvs = told.map_or_else(Tlvs::default, |header| header.tlvs.clone());
            if let Stream::Tls(tls) = &conn.stream {
                if let Some(protocol) = tls.protocol() {
                    tlvs.set_alpn(protocol);
                }
                let session = tls.session();
                let cipher = session.negotiated_cipher_suite();
                let cipher = cipher.map(|suite| format!("{:?}", suite.suite()));
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
            write_v2(&mut out, Transport::Stream, addresses.as_ref(), &tlvs);
        }
    }
    out
}
