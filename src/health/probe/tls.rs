//! TLS beneath a check.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use crate::base::addr::EndpointAddr;
use crate::base::tls::{in_words, server_name};
use crate::config::{Check, CheckTls};

use super::Failure;

/// Agrees on TLS with the endpoint at `addr`.
pub(super) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &CheckTls,
    check: &Check,
    addr: &EndpointAddr,
    stream: S,
) -> Result<TlsStream<S>, Failure> {
    let name = name(tls, check, addr);
    let agreed = tls.client.connect(name.clone(), stream).await;
    agreed.map_err(|error| in_words(&error, &name).map_or(Failure::Closed, Failure::Tls))
}

/// Who the endpoint must be: as told, or the Host of the request, or its address.
fn name(tls: &CheckTls, check: &Check, addr: &EndpointAddr) -> ServerName<'static> {
    let host = match check {
        Check::Grpc(check) => check.host.as_ref(),
        Check::Http(check) => check.host.as_ref(),
        Check::Mysql(_) | Check::Postgres | Check::Redis | Check::Smtp | Check::Tcp => None,
    };
    let host = host
        .and_then(|host| host.to_str().ok()?.parse::<http::uri::Authority>().ok())
        .map(|authority| authority.host().to_owned());
    let told = tls.server_name.clone().or(host);
    let told = told.and_then(|told| server_name(&told).ok());
    told.unwrap_or_else(|| match addr {
        EndpointAddr::Ip(addr) => ServerName::IpAddress(addr.ip().into()),
        EndpointAddr::Unix(_) => ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tls::{TlsClient, Trust};
    use crate::config::GrpcCheck;

    #[test]
    fn the_name_is_that_told_or_that_of_the_request_or_the_address() {
        let tls = |name: Option<&str>| CheckTls {
            server_name: name.map(str::to_owned),
            ca: None,
            verify: false,
            client: TlsClient::trusting(Trust::Anybody, &[]).unwrap(),
            of_upstream: false,
        };
        let grpc = |host: &'static str| {
            Check::Grpc(GrpcCheck {
                service: String::new(),
                host: Some(http::HeaderValue::from_static(host)),
            })
        };
        let addr = EndpointAddr::Ip("[::1]:443".parse().unwrap());
        let of = |told: Option<&str>, check: &Check| {
            name(&tls(told), check, &addr).to_str().into_owned()
        };
        assert_eq!(of(Some("a.example"), &grpc("b.example")), "a.example");
        assert_eq!(of(None, &grpc("b.example:8443")), "b.example");
        assert_eq!(of(None, &grpc("[::2]:8443")), "::2");
        assert_eq!(of(None, &Check::Tcp), "::1");
    }
}
