//! Flow control: one that does not read stalls nobody but itself.

use crate::support::eventually::stalled;
use crate::support::h2::{H2Client, read_all, request, run, within};
use crate::support::h2_origin::{Exchange, H2Origin};
use crate::support::origin::{self, Origin, pattern};
use crate::support::proxy::Proxy;

const TO_H2: &str = "protocol = 'h2'";
const BIG: usize = 8 * 1024 * 1024;

/// Responses that nobody reads, on the client's connection and on the endpoint's; others pass.
#[test]
fn reader_that_stops_stalls_no_other() {
    let h1 = Origin::start(|request| match request.head.target() {
        "/big" => origin::filled(BIG),
        _ => origin::reply(200, "small"),
    });
    let h2 = H2Origin::start(|mut exchange: Exchange| async move {
        if exchange.seen.path != "/big" {
            return exchange.reply("small").await;
        }
        exchange.read().await;
        exchange.head(200, &[]);
        exchange.data(&pattern(0, BIG)).await;
        exchange.end();
    });
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), TO_H2)] {
        let proxy = Proxy::over(&[addr], more);
        run(async {
            // The client's own windows: 64 KiB a stream, as much as it likes in all.
            let mut settings = h2::client::Builder::new();
            settings.initial_connection_window_size(64 << 20);
            let client = H2Client::connect_with(proxy.addr(), &settings).await;
            let mut unread = Vec::new();
            for _ in 0..5 {
                let asked = request("GET", "/big").body(()).unwrap();
                let (response, send) = client.open(asked, true).await.unwrap();
                let response = within("a response", response).await.unwrap();
                unread.push((response.into_body(), send));
            }
            for _ in 0..20 {
                assert_eq!(client.get("/small").await.text(), "small");
            }
            // Another client, over the same connection to the endpoint.
            let other = H2Client::connect(proxy.addr()).await;
            assert_eq!(other.get("/small").await.text(), "small");
            for (mut recv, _send) in unread {
                assert!(read_all(&mut recv).await.unwrap().0 == pattern(0, BIG));
            }
        });
    }
    assert_eq!(h2.accepted(), 1);
}

/// An endpoint that does not read one upload: others pass, and the proxy holds little of it.
#[test]
fn endpoint_that_does_not_read_stalls_no_other_upload() {
    let origin = H2Origin::start(|mut exchange: Exchange| async move {
        if exchange.seen.path == "/stuck" {
            exchange.await_reset().await;
        } else {
            exchange.read().await;
            exchange.reply("done").await;
        }
    });
    let proxy = Proxy::over(&[origin.addr()], TO_H2);
    run(async {
        let client = H2Client::connect(proxy.addr()).await;
        let asked = request("POST", "/stuck").body(()).unwrap();
        let (_response, mut stuck) = client.open(asked, false).await.unwrap();
        // As far as the windows go, which end long before this.
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let progress = sent.clone();
        let upload = crate::support::h2::spawn(async move {
            for from in (0..BIG).step_by(16 * 1024) {
                let piece = pattern(from, 16 * 1024);
                if crate::support::h2::send_all(&mut stuck, &piece, false)
                    .await
                    .is_err()
                {
                    return;
                }
                progress.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        let held = stalled("the upload stands still", || {
            sent.load(std::sync::atomic::Ordering::Relaxed)
        });
        assert!(
            held < 1024 * 1024,
            "{held} bytes were taken of a stuck upload"
        );
        for _ in 0..5 {
            let asked = request("POST", "/").body(()).unwrap();
            let answer = client.exchange(asked, &pattern(0, 10_000)).await.unwrap();
            assert_eq!(answer.text(), "done");
        }
        upload.abort();
    });
}
