//! What hyper makes of the same bytes: what we accept, it must accept and understand alike.
//!
//! The fuzz target `differential` includes this file, hence `super::codec`.
//!
//! Exceptions, all of them: none for requests. For responses: interim ones (1xx) and tunnels,
//! which hyper's client does not hand out, are not compared.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::codec::{
    Chunk, ChunkDecoder, Limits, Progress, RequestBody, RequestHead, ResponseBody, ResponseHead,
    Version as OurVersion,
};

/// One message, as either parser understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method or status.
    subject: String,
    version: Version,
    authority: Option<String>,
    path: String,
    query: Option<String>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// Panics unless hyper's server sees each request that we accept in `bytes`, alike and in order.
/// How many that were.
pub(crate) fn check_requests(bytes: &[u8], limits: &Limits) -> usize {
    let ours = our_requests(bytes, limits);
    if ours.is_empty() {
        return 0;
    }
    let theirs = block_on(hyper_requests(bytes));
    for (i, own) in ours.iter().enumerate() {
        let text = String::from_utf8_lossy(bytes);
        let Some(other) = theirs.get(i) else {
            panic!("hyper does not accept message {i} of {text:?} ({bytes:?}): {own:?}");
        };
        check(own, other, &text);
    }
    ours.len()
}

/// The same for the response to `method` at the begin of `bytes`, which end the connection.
pub(crate) fn check_response(bytes: &[u8], limits: &Limits, method: &Method) -> bool {
    let Some(own) = our_response(bytes, limits, method) else {
        return false;
    };
    let text = String::from_utf8_lossy(bytes);
    let Some(other) = block_on(hyper_response(bytes, method)) else {
        panic!("hyper does not accept {text:?} ({bytes:?}): {own:?}");
    };
    check(&own, &other, &text);
    true
}

fn check(own: &Seen, other: &Seen, text: &str) {
    for trailer in &own.trailers {
        assert!(other.trailers.contains(trailer), "{trailer:?} of {text:?}");
    }
    let own = Seen {
        trailers: other.trailers.clone(),
        ..own.clone()
    };
    assert_eq!(own, *other, "{text:?}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers").block_on(future)
}

/// Sorted by name, as hyper's map does not keep the order between names; Content-Length is left
/// out, as hyper merges equal ones and we keep one list element.
fn sorted<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
        .filter(|(name, _)| name != "content-length")
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn map(fields: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    sorted(
        fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    )
}

// === impl hyper ===

async fn hyper_requests(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let log = Rc::clone(&seen);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let log = Rc::clone(&log);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let trailers = body.trailers().map(map).unwrap_or_default();
                log.borrow_mut().push(Seen {
                    subject: parts.method.to_string(),
                    version: parts.version,
                    authority: parts.uri.authority().map(ToString::to_string),
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().map(ToOwned::to_owned),
                    fields: map(&parts.headers),
                    body: body.to_bytes().to_vec(),
                    trailers,
                });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(256)
        .serve_connection(TokioIo::new(server), service);
    let talk = async {
        // Either may fail once hyper has refused the rest.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
    };
    let (_, ()) = tokio::join!(serve, talk);
    seen.take()
}

async fn hyper_response(bytes: &[u8], method: &Method) -> Option<Seen> {
    let (mut server, client) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(256)
        .handshake(TokioIo::new(client))
        .await
        .ok()?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method.clone();
    let exchange = async move {
        let response = sender.send_request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?;
        let trailers = body.trailers().map(map).unwrap_or_default();
        Some(Seen {
            subject: parts.status.as_str().to_owned(),
            version: parts.version,
            authority: None,
            path: String::new(),
            query: None,
            fields: map(&parts.headers),
            body: body.to_bytes().to_vec(),
            trailers,
        })
    };
    let talk = async {
        // The request first, or its answer is unexpected.
        let mut request = [0; 4096];
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            match server.read(&mut request).await {
                Ok(n) if n > 0 => got.extend(request.iter().take(n)),
                Ok(_) | Err(_) => return,
            }
        }
        let _ = server.write_all(bytes).await;
        let _ = server.shutdown().await;
    };
    tokio::join!(exchange, connection, talk).0
}

// === impl isobar ===

fn version(version: OurVersion) -> Version {
    match version {
        OurVersion::Http10 => Version::HTTP_10,
        OurVersion::Http11 => Version::HTTP_11,
    }
}

/// The requests we accept, up to one after which the connection is no longer ours.
fn our_requests(mut bytes: &[u8], limits: &Limits) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut head = RequestHead::new();
    while let Ok(Progress::Complete) = head.parse(bytes, limits) {
        let rest = &bytes[head.head_len()..];
        let Some((body, trailers, used)) = (match head.body {
            RequestBody::None => Some((Vec::new(), Vec::new(), 0)),
            RequestBody::Length(n) => sized(rest, n),
            RequestBody::Chunked => chunked(rest, limits),
        }) else {
            break;
        };
        let is_origin = head.target(bytes).starts_with('/') || head.target(bytes) == "*";
        let authority = head.authority(bytes).filter(|_| !is_origin);
        let fields = head.fields.iter();
        all.push(Seen {
            subject: head.method.to_string(),
            version: version(head.version),
            authority: authority.map(ToOwned::to_owned),
            path: head.path(bytes).to_owned(),
            query: head.query(bytes).map(ToOwned::to_owned),
            fields: sorted(fields.map(|f| (f.name.text(bytes), f.value.of(bytes)))),
            body,
            trailers,
        });
        if !head.keep_alive || head.upgrade || head.method == Method::CONNECT {
            break;
        }
        bytes = &rest[used..];
    }
    all
}

fn our_response(bytes: &[u8], limits: &Limits, method: &Method) -> Option<Seen> {
    let mut head = ResponseHead::new();
    if head.parse(bytes, limits, method) != Ok(Progress::Complete)
        || head.status.is_informational()
        || (*method == Method::CONNECT && head.status.is_success())
    {
        return None;
    }
    let rest = &bytes[head.head_len()..];
    let (body, trailers, _) = match head.body {
        ResponseBody::None => (Vec::new(), Vec::new(), 0),
        ResponseBody::Length(n) => sized(rest, n)?,
        ResponseBody::Chunked => chunked(rest, limits)?,
        ResponseBody::UntilClose => (rest.to_vec(), Vec::new(), rest.len()),
    };
    Some(Seen {
        subject: head.status.as_str().to_owned(),
        version: version(head.version),
        authority: None,
        path: String::new(),
        query: None,
        fields: sorted(
            head.fields
                .iter()
                .map(|f| (f.name.text(bytes), f.value.of(bytes))),
        ),
        body,
        trailers,
    })
}

type Body = (Vec<u8>, Vec<(String, Vec<u8>)>, usize);

fn sized(rest: &[u8], n: u64) -> Option<Body> {
    let body = rest.get(..usize::try_from(n).ok()?)?;
    Some((body.to_vec(), Vec::new(), body.len()))
}

fn chunked(rest: &[u8], limits: &Limits) -> Option<Body> {
    let mut chunks = ChunkDecoder::new(limits);
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let buf = rest.get(at..)?;
        match chunks.decode(buf).ok()? {
            Chunk::NeedMore { .. } => return None,
            Chunk::Data { skip, len } => {
                body.extend_from_slice(buf.get(skip..skip + len)?);
                at += skip + len;
            }
            Chunk::End { skip } => {
                let trailers = chunks.trailers().iter();
                let trailers = sorted(trailers.map(|f| (f.name.text(buf), f.value.of(buf))));
                return Some((body, trailers, at + skip));
            }
        }
    }
}
