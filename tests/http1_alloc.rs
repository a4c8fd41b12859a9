//! A steady HTTP/1 connection allocates nothing in the codec: heads both ways, and chunks.

use std::alloc::System;

use http::Method;
use isobar::http1::{
    Chunk, ChunkDecoder, Limits, Progress, RequestBody, RequestHead, ResponseHead,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: &[&[u8]] = &[
    b"GET /a/b?c=d HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nAccept: */*\r\n\
      Connection: keep-alive\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
    b"GET http://a.example:80/ HTTP/1.1\r\nHost: a.example\r\nConnection: x-a, close\r\nX-A: 1\r\n\r\n",
    b"PROPFIND-OTHER / HTTP/1.1\r\nHost: [::1]:8080\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
];

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5, 5\r\n\
    Connection: keep-alive, x-a\r\nX-A: 1\r\n\r\n";

const BODY: &[u8] = b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";

fn main() {
    let limits = Limits::default();
    let mut request = RequestHead::new();
    let mut response = ResponseHead::new();
    let mut chunks = ChunkDecoder::new(&limits);
    let mut accepted = 0;
    let mut data = 0;
    let region = Region::new(ALLOCATOR);
    for _ in 0..1000 {
        for bytes in REQUESTS {
            // In two reads, as slow clients do.
            let half = bytes.len() / 2;
            let _ = request.parse(bytes.get(..half).unwrap_or_default(), &limits);
            if request.parse(bytes, &limits) == Ok(Progress::Complete) {
                accepted += usize::from(request.host(bytes).is_some());
                accepted += usize::from(request.body == RequestBody::Chunked);
            }
        }
        let progress = response.parse(RESPONSE, &limits, &Method::GET);
        accepted += usize::from(progress == Ok(Progress::Complete));
        chunks.reset();
        let mut at = 0;
        while let Ok(Chunk::Data { skip, len }) = chunks.decode(BODY.get(at..).unwrap_or_default())
        {
            at += skip + len;
            data += len;
        }
    }
    let stats = region.change();
    assert_eq!((accepted, data), (5000, 11_000));
    assert_eq!(
        (stats.allocations, stats.reallocations),
        (0, 0),
        "{stats:?}"
    );
}
