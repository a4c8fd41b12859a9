//! Many handshakes at once: all of them are made, and who is in is served on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::certs::{Ca, listener_tls};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::scaled;
use crate::support::tls::{BOTH, Offer};
use crate::support::watched::Watched;

#[test]
fn storm_of_handshakes_does_not_stall_live_requests() {
    let (ca, origin) = (Ca::new(), Origin::named("a"));
    let tls = listener_tls(&[&ca.server()], ", handshake_timeout = '60s'");
    let proxy = Watched::over(origin.addr(), &tls, "connect_timeout = '20s'");
    let addr = proxy.addr();
    let mut live = Client::secure(addr, &Offer::trusting(&ca), "localhost");
    assert_eq!(live.request("GET", "/").text(), "a");
    let storm = scaled(500, 3_000);
    let threads = 10;
    let done = Arc::new(AtomicUsize::new(0));
    let all: Vec<JoinHandle<()>> = (0..threads)
        .map(|_| {
            // Without a store of sessions each handshake is a full one.
            let mut config = (*Offer::of(&ca, BOTH).config).clone();
            config.resumption = rustls::client::Resumption::disabled();
            let offer = Offer {
                config: Arc::new(config),
            };
            let done = done.clone();
            std::thread::spawn(move || {
                // All connections first, so that the handshakes come together.
                let clients: Vec<Client> = (0..storm / threads)
                    .map(|_| Client::connect(addr))
                    .collect();
                for client in clients {
                    let mut client = client.into_secure(&offer, "localhost").unwrap();
                    assert_eq!(client.request("GET", "/").text(), "a");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut answered = 0;
    while !all.iter().all(JoinHandle::is_finished) {
        assert_eq!(live.request("GET", "/").text(), "a");
        answered += 1;
    }
    for thread in all {
        thread.join().unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), storm);
    assert!(answered > 1);
    let full = "isobar_tls_handshakes_total{listener=\"web\",result=\"full\"}";
    proxy.await_metric(full, (storm + 1) as f64);
}
