//! The gRPC endpoint of `bench/compare.py`: what does a proxy cost between two HTTP/2 sides?
//!
//! `grpc_origin PORT…`, started by the script: HTTP/2 in clear text by prior knowledge on each port
//! of loopback, all on one thread; a unary echo, which answers any path with the message that came,
//! and `grpc-status: 0` in the trailers. Without ports it ends at once.

#![expect(
    clippy::unwrap_used,
    reason = "the endpoint of a bench: what cannot go on stops"
)]

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};

/// What one connection may have in flight: the streams of all clients at once, were the proxy to
/// send them all down one connection.
const STREAMS: u32 = 256;

fn main() {
    // `cargo bench` and `cargo test --benches` hand over flags of theirs, and no ports.
    let ports: Vec<u16> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    if ports.is_empty() {
        return;
    }
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let mut serving = tokio::task::JoinSet::new();
        for port in ports {
            let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            serving.spawn(listen(listener));
        }
        serving.join_next().await;
    });
}

async fn listen(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        Handle::current().spawn(serve(stream));
    }
}

/// One connection until it ends, however it ends.
async fn serve(stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(1 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        Handle::current().spawn(async move {
            // A stream that its client gave up.
            let _ = echo(request, respond).await;
        });
    }
}

async fn echo(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let head = Response::builder()
        .header("content-type", HeaderValue::from_static("application/grpc"))
        .body(())
        .expect("invariant: a status and a constant field");
    let mut answer = respond.send_response(head, false)?;
    answer.send_data(message.freeze(), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    answer.send_trailers(trailers)
}
