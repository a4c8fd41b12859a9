//! A request, answered as expected. hyper's client: what it accepts as HTTP/1 is well.

use std::error::Error;
use std::io;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::addr::EndpointAddr;
use crate::config::{BodyPattern, HttpCheck};

use super::Failure;

/// Largest head of an answer: twice what servers send with many cookies.
const MAX_HEAD: usize = 16 * 1024;

/// Most of a body that is looked at.
const MAX_BODY: usize = 64 * 1024;

/// Sends the request and judges the response.
pub(super) async fn ask(
    check: &HttpCheck,
    addr: &EndpointAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
) -> Result<(), Failure> {
    let request = request(check, addr)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| failure(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        judge(check, response.map_err(|error| failure(&error))?).await
    };
    // The connection's own end is seen by the exchange, as its error or as the end of the body.
    let connection = async {
        let _ = connection.await;
        std::future::pending().await
    };
    // Neither is used again: the one that is dropped takes nothing with it.
    tokio::select! {
        judged = exchange => judged,
        never = connection => never,
    }
}

fn request(check: &HttpCheck, addr: &EndpointAddr) -> Result<Request<Empty<Bytes>>, Failure> {
    // `lower` has parsed both.
    let uri: Uri = check.path.parse().map_err(invalid)?;
    let host = match (&check.host, addr) {
        (Some(host), _) => host.clone(),
        (None, EndpointAddr::Ip(addr)) => {
            HeaderValue::from_str(&addr.to_string()).map_err(invalid)?
        }
        (None, EndpointAddr::Unix(_)) => HeaderValue::from_static("localhost"),
    };
    let mut fields = HeaderMap::new();
    fields.insert(HOST, host);
    fields.insert(USER_AGENT, HeaderValue::from_static("isobar-health"));
    for (name, value) in &check.headers {
        fields.insert(name, value.clone());
    }
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut request = Request::new(Empty::new());
    *request.method_mut() = check.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = fields;
    Ok(request)
}

async fn judge(check: &HttpCheck, response: http::Response<Incoming>) -> Result<(), Failure> {
    let status = response.status().as_u16();
    let is_well = |(low, high): &(u16, u16)| (*low..=*high).contains(&status);
    if !check.status.iter().any(is_well) {
        return Err(Failure::Status(status));
    }
    let Some(pattern) = &check.body else {
        return Ok(());
    };
    let mut body = response.into_body();
    let mut read: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failure(&error))?;
        if let Ok(data) = frame.into_data() {
            let room = MAX_BODY - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if read.len() == MAX_BODY {
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&read);
    let holds = match pattern {
        BodyPattern::Contains(part) => text.contains(part.as_str()),
        BodyPattern::Regex(regex) => regex.is_match(&text),
    };
    if holds { Ok(()) } else { Err(Failure::Body) }
}

/// What hyper's error says of the endpoint: that it ended the connection, or does not speak HTTP.
fn failure(error: &hyper::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        match this.downcast_ref::<hyper::Error>() {
            Some(this) if this.is_parse() => break,
            Some(this) if this.is_incomplete_message() || this.is_closed() => {
                return Failure::Closed;
            }
            // The connection was gone before the request was.
            Some(this) if this.is_canceled() && this.source().is_none() => return Failure::Closed,
            None if this.is::<io::Error>() => return Failure::Closed,
            // Bytes that nobody asked for among them: a server that speaks first.
            Some(_) | None => cause = this.source(),
        }
    }
    Failure::Protocol("the answer is not HTTP/1".to_owned())
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure::Protocol(format!("the request cannot be written: {error}"))
}
