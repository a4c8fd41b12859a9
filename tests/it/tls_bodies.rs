//! Large bodies over TLS: whole, right to the byte, through narrow sockets and slow readers.

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::need;
use crate::support::openssl::Tool;
use crate::support::origin::{self, Origin, Request, pattern};
use crate::support::proxy::Proxy;
use crate::support::tls::{Offer, V12, V13, server};

const VERSIONS: [&[&rustls::SupportedProtocolVersion]; 2] = [V12, V13];

/// No multiple of a record, nor of a buffer.
const SIZE: usize = 8 * 1024 * 1024 + 12_345;

/// The same through narrow sockets, where each piece waits for the one before.
const NARROW: usize = 1024 * 1024 + 12_345;

/// What an endpoint is told and answers: a body, or the hash of the one that came.
fn serve(request: &Request) -> Vec<origin::Step> {
    match (request.head.method(), request.head.target()) {
        ("GET", "/chunked") => {
            let body = pattern(0, NARROW);
            let mut out = b"HTTP/1.1 200 Test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(10_007) {
                out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\n\r\n");
            origin::raw(out)
        }
        ("GET", "/narrow") => origin::filled(NARROW),
        ("GET", _) => origin::filled(SIZE),
        _ => origin::reply(200, "stored"),
    }
}

/// Both sides over TLS, or the listener alone.
fn start(is_tls_upstream: bool, is_narrow: bool) -> (Ca, Origin, Proxy) {
    let ca = Ca::new();
    let own = ca.server();
    let mut origin = Origin::build(serve);
    if is_narrow {
        origin = origin.narrow();
    }
    if is_tls_upstream {
        origin = origin.tls(server(&own, &[&rustls::version::TLS13], None));
    }
    let origin = origin.start();
    let upstream = if is_tls_upstream {
        format!(
            "connect_timeout = '20s'\ntls = {{ ca = '{}' }}",
            ca.file.display()
        )
    } else {
        String::new()
    };
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n{}\n\
         [upstreams.app]\nendpoints = ['{}']\n{upstream}\n",
        listener_tls(&[&own], ""),
        origin.addr()
    ));
    (ca, origin, proxy)
}

fn upload(size: usize) -> Vec<u8> {
    let body = pattern(7, size);
    let head = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n");
    [head.as_bytes(), &body].concat()
}

/// Equal, without millions of bytes in the message.
#[track_caller]
fn same(what: &[u8], wanted: &[u8]) {
    assert_eq!(what.len(), wanted.len());
    assert!(what == wanted, "another content");
}

#[test]
fn responses_and_uploads_are_whole_in_each_version() {
    for is_tls_upstream in [false, true] {
        let (ca, origin, proxy) = start(is_tls_upstream, false);
        for (n, versions) in VERSIONS.into_iter().enumerate() {
            let offer = Offer::of(&ca, versions);
            let mut client = Client::secure(proxy.addr(), &offer, "localhost");
            for (target, size) in [("/", SIZE), ("/chunked", NARROW)] {
                let response = client.request("GET", target);
                same(&response.body.data, &pattern(0, size));
            }
            client.send(upload(SIZE));
            assert_eq!(client.response().text(), "stored");
            let request = origin.await_done(3 * n + 2);
            same(&request.body.data, &pattern(7, SIZE));
        }
    }
}

#[test]
fn slow_reader_with_a_narrow_socket_gets_all_of_it() {
    for is_tls_upstream in [false, true] {
        let (ca, _origin, proxy) = start(is_tls_upstream, false);
        for versions in VERSIONS {
            let client = Client::connect_narrow(proxy.addr());
            let offer = Offer::of(&ca, versions);
            let mut client = client.into_secure(&offer, "localhost").unwrap();
            client.send("GET /narrow HTTP/1.1\r\nHost: t\r\n\r\n");
            let head = client.head();
            assert_eq!(head.status(), 200);
            // A little at a time; the kernel's window opens and closes all the while.
            let mut all = Vec::new();
            while all.len() < NARROW {
                let n = (NARROW - all.len()).min(50_021);
                all.extend(client.exactly(n));
            }
            same(&all, &pattern(0, NARROW));
            assert_eq!(client.request("HEAD", "/x").status(), 200);
        }
    }
}

#[test]
fn upload_to_a_narrow_endpoint_arrives_whole() {
    for is_tls_upstream in [false, true] {
        let (ca, origin, proxy) = start(is_tls_upstream, true);
        for (n, versions) in VERSIONS.into_iter().enumerate() {
            let offer = Offer::of(&ca, versions);
            let mut client = Client::secure(proxy.addr(), &offer, "localhost");
            let upload = upload(NARROW);
            // Records of all sizes.
            for (i, piece) in upload.chunks(16_411).enumerate() {
                client.send(&piece[..piece.len().min(i % 7)]);
                client.send(&piece[piece.len().min(i % 7)..]);
            }
            assert_eq!(client.response().text(), "stored");
            same(&origin.await_done(n).body.data, &pattern(7, NARROW));
        }
    }
}

#[test]
fn client_that_has_said_all_gets_all_of_it() {
    for is_tls_upstream in [false, true] {
        let (ca, _origin, proxy) = start(is_tls_upstream, false);
        for versions in VERSIONS {
            let client = Client::connect_narrow(proxy.addr());
            let offer = Offer::of(&ca, versions);
            let mut client = client.into_secure(&offer, "localhost").unwrap();
            client.send("GET /narrow HTTP/1.1\r\nHost: t\r\n\r\n");
            // close_notify and FIN, while the answer is on its way.
            client.finish();
            same(&client.response().body.data, &pattern(0, NARROW));
            client.expect_closed();
        }
    }
}

#[test]
fn curl_sends_and_gets_what_it_should() {
    let Some(curl) = need("curl") else {
        return;
    };
    let (ca, origin, proxy) = start(true, false);
    let url = format!("https://localhost:{}/", proxy.addr().port());
    let cacert = ca.file.to_string_lossy();
    let got = ca.folder().join("got");
    let sent = ca.write("sent", pattern(7, SIZE));
    let (got_path, sent_path) = (got.to_string_lossy(), format!("@{}", sent.display()));
    let mut n = 0;
    for how in ["--http1.1", "--http2"] {
        let common = [
            "-sS",
            "--max-time",
            "28",
            "-4",
            "--noproxy",
            "*",
            "--cacert",
            &*cacert,
            how,
        ];
        let args = [&common[..], &["-o", &*got_path, &*url]].concat();
        let (status, said) = Tool::run(&curl, &args);
        assert!(status.success(), "{said}");
        same(&std::fs::read(&got).unwrap(), &pattern(0, SIZE));
        let args = [&common[..], &["--data-binary", &*sent_path, &*url]].concat();
        let (status, said) = Tool::run(&curl, &args);
        assert!(status.success(), "{said}");
        assert_eq!(said, "stored");
        n += 2;
        same(&origin.await_done(n - 1).body.data, &pattern(7, SIZE));
    }
}
