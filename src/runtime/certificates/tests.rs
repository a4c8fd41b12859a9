use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::*;
use crate::base::tls::fixture::Ca;
use crate::base::tls::{KeyKind, ServerSpec, TicketSecrets, TlsVersion};
use crate::config::{ClientHeaders, ListenerTls};
use crate::runtime::compile::{Compiler, FromFiles, Known};
use crate::upstream::Signals;

/// A configuration of two listeners, one with TLS, and what is published of it.
struct Running {
    ca: Ca,
    config: Config,
    registry: Arc<Registry>,
    compiler: Compiler,
    timeline: Timeline,
}

impl Running {
    fn new() -> Self {
        let text = "[listeners.clear]\nbind = '127.0.0.1:1'\nupstream = 'app'\n\
             [listeners.web]\nbind = '127.0.0.1:3'\nupstream = 'app'\n\
             [upstreams.app]\nendpoints = ['127.0.0.1:2']\n";
        let mut config = crate::config::parse("test", text).unwrap().config;
        let ca = Ca::new("a CA");
        let ecdsa = ca.files("a", &ca.issue(&["a.test", "b.test"], KeyKind::Ecdsa));
        let rsa = ca.files("b", &ca.issue(&["a.test"], KeyKind::Rsa));
        let tls = ListenerTls {
            server: ServerSpec {
                certificates: vec![ecdsa, rsa],
                client_auth: None,
                min_version: TlsVersion::V12,
                alpn: Vec::new(),
            },
            tickets: true,
            ticket_secret_file: None,
            handshake_timeout: Duration::from_secs(10),
            client_headers: ClientHeaders::default(),
        };
        for listener in &mut config.listeners {
            listener.tls = (&*listener.name == "web").then(|| Arc::new(tls.clone()));
        }
        let registry = Arc::new(Registry::new(1));
        let (signals, _) = Signals::channel();
        Self {
            compiler: Compiler::new(BTreeMap::new(), registry.clone(), signals, 1),
            ca,
            config,
            registry,
            timeline: Timeline::default(),
        }
    }

    fn compile(&mut self, tls: TlsServers, before: Option<&Snapshot>) -> Snapshot {
        let files = FromFiles {
            tls,
            ..FromFiles::default()
        };
        let slots = [0, 1];
        self.compiler
            .compile(&self.config, &slots, before, &Known::new(), &files, |_| {
                Vec::new()
            })
    }

    fn tls(&mut self, change: impl Fn(&mut ListenerTls)) {
        for listener in &mut self.config.listeners {
            if let Some(tls) = &mut listener.tls {
                change(Arc::make_mut(tls));
            }
        }
    }

    fn metric(&self, line: &str) -> bool {
        self.registry.scrape().contains(&format!("\n{line}\n"))
    }

    fn said(&self) -> Vec<String> {
        let events = self.timeline.latest(100).events;
        events.into_iter().map(|event| event.text).collect()
    }
}

fn keys(secret: &str) -> TicketKeys {
    let secrets = TicketSecrets::new([secret.as_bytes().into()]).unwrap();
    TicketKeys::from([("web".into(), secrets)])
}

#[test]
fn server_of_an_unchanged_listener_is_taken_over() {
    let mut running = Running::new();
    let keys = keys("a secret of a test");
    let first = prepare(&running.config, None, &keys).unwrap();
    assert_eq!(first.len(), 1);
    let one = first["web"].clone();
    let snapshot = running.compile(first, None);
    let plans: Vec<_> = snapshot.listeners.iter().flatten().collect();
    let has_tls = |plan: &&Arc<ListenerPlan>| plan.tls.is_some();
    assert_eq!(plans.iter().filter(|plan| has_tls(plan)).count(), 1);

    let again = prepare(&running.config, Some(&snapshot), &keys).unwrap();
    assert!(Arc::ptr_eq(&again["web"], &one));
    // The rest of `tls` is not the server's business.
    running.tls(|tls| tls.handshake_timeout = Duration::from_secs(1));
    let again = prepare(&running.config, Some(&snapshot), &keys).unwrap();
    assert!(Arc::ptr_eq(&again["web"], &one));
    let without = prepare(&running.config, Some(&snapshot), &TicketKeys::new()).unwrap();
    assert!(!Arc::ptr_eq(&without["web"], &one) && !without["web"].has_tickets());
    running.tls(|tls| tls.server.min_version = TlsVersion::V13);
    let other = prepare(&running.config, Some(&snapshot), &keys).unwrap();
    assert!(!Arc::ptr_eq(&other["web"], &one));

    running.ca.write("b.key", "no key");
    let (listener, error) = prepare(&running.config, Some(&snapshot), &keys).unwrap_err();
    assert_eq!(&*listener, "web");
    assert!(error.file().ends_with("b.key"), "{error}");
    // What does not change is not read: it serves on, and the watch complains.
    running.tls(|tls| tls.server.min_version = TlsVersion::V12);
    prepare(&running.config, Some(&snapshot), &keys).unwrap();
}

#[test]
fn what_is_served_is_shown_and_watched() {
    let mut running = Running::new();
    let servers = prepare(&running.config, None, &keys("a secret of a test")).unwrap();
    let server = servers["web"].clone();
    let snapshot = running.compile(servers, None);
    settle(&snapshot, &keys("another secret"), &running.registry);
    let not_after = server.facts()[0].not_after as f64;
    let expiry = format!(
        "isobar_tls_certificate_not_after_timestamp_seconds\
         {{listener=\"web\",certificate=\"a.test\"}} {not_after}"
    );
    assert!(running.metric(&expiry), "{expiry}");
    let failing = "isobar_tls_certificate_renewal_failing{listener=\"web\"}";
    assert!(running.metric(&format!("{failing} 0")));

    let mut watch = CertificateWatch::new();
    assert!(!watch.is_due());
    let mut look = || watch.look(&snapshot, &running.registry, &running.timeline);
    look();
    assert_eq!(running.said(), Vec::<String>::new());

    let next = running.ca.issue(&["new.test", "b.test"], KeyKind::Ecdsa);
    running.ca.write("a.pem", &next.cert);
    look();
    look();
    let [failure] = running.said().try_into().unwrap();
    let words = "listener `web`: its certificate files have changed and cannot be served; those of \
         before are served on: ";
    assert!(failure.starts_with(words), "{failure}");
    assert!(failure.contains("does not belong to the certificate"));
    assert!(running.metric(&format!("{failing} 1")));
    let renewals = "isobar_tls_certificate_renewals_total{listener=\"web\",result=";
    assert!(running.metric(&format!("{renewals}\"failed\"}} 1")));
    assert_eq!(server.facts()[0].names, ["a.test", "b.test"]);

    running.ca.write("a.key", &next.key);
    look();
    look();
    let [_, renewed] = running.said().try_into().unwrap();
    let words = "listener `web`: certificates renewed: new.test, b.test until 4096-01-01T00:00:00Z; \
         a.test until 4096-01-01T00:00:00Z";
    assert_eq!(renewed, words);
    assert!(running.metric(&format!("{failing} 0")));
    assert!(running.metric(&format!("{renewals}\"ok\"}} 1")));
    assert!(
        running
            .registry
            .scrape()
            .contains("certificate=\"new.test\"")
    );
    let chain = &server.facts()[0].fingerprint;
    let served = crate::base::tls::identity(&[CertificateDer::from(next.der)]).unwrap();
    assert_eq!(*served.fingerprint, data_encoding::HEXLOWER.encode(chain));

    // It speaks clear text from now on.
    let clear = running.compile(TlsServers::new(), Some(&snapshot));
    settle(&clear, &TicketKeys::new(), &running.registry);
    assert!(!running.registry.scrape().contains("isobar_tls_"));
}
