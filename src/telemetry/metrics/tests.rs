//! What a scrape says, read back by a strict parser of the text format.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::cell::BOUNDS;
use super::cells::{
    CheckResult, CodeClass, ConnectFailure, DatagramDrop, EndpointOutcome, FlowEnd, PoolOutcome,
    Protocol, RetryReason,
};
use super::families::{FAMILIES, Kind};
use super::fleet::{MemberState, SyncResult, Traffic, VerdictTo};
use super::registry::{Certificates, Object, Registry};
use crate::base::load::Load;
use crate::base::tls::{Handshake, TlsVersion};
use crate::telemetry::reason::Reason;

type Labels = BTreeMap<String, String>;

/// A scrape, parsed: every rule of the text format 0.0.4 that it breaks panics.
#[derive(Debug, Default)]
struct Scrape {
    /// Name and type, in order.
    families: Vec<(String, String)>,
    samples: HashMap<(String, Labels), f64>,
}

impl Scrape {
    fn of(registry: &Registry) -> Self {
        Self::parse(&registry.scrape())
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut help = None;
        let mut seen = HashSet::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').expect("help text");
                assert!(
                    !words.is_empty() && help.replace(name.to_owned()).is_none(),
                    "{line}"
                );
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(help.take().as_deref(), Some(name), "HELP before TYPE, once");
                assert!(seen.insert(name.to_owned()), "{name} twice");
                scrape.families.push((name.to_owned(), kind.to_owned()));
            } else {
                scrape.sample(line);
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').expect("}"))),
            None => (series, Labels::new()),
        };
        let (family, kind) = self.families.last().expect("TYPE before samples");
        let suffix = name
            .strip_prefix(family.as_str())
            .expect("samples follow their family");
        match kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        if kind != "gauge" {
            assert!(value >= 0.0 && value.is_finite(), "{line}");
        }
        let old = self.samples.insert((name.to_owned(), labels), value);
        assert_eq!(old, None, "{line}: series twice");
    }

    fn check_histograms(&self) {
        for (name, kind) in &self.families {
            if kind != "histogram" {
                continue;
            }
            let mut by_object: HashMap<Labels, Vec<(f64, f64)>> = HashMap::new();
            for ((sample, labels), &count) in &self.samples {
                if *sample == format!("{name}_bucket") {
                    let mut object = labels.clone();
                    let le: f64 = object.remove("le").expect("le").parse().expect("a bound");
                    by_object.entry(object).or_default().push((le, count));
                }
            }
            for (object, mut buckets) in by_object {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(
                    buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                    "{name}"
                );
                let last = buckets.last().expect("buckets");
                assert_eq!(last.0, f64::INFINITY);
                let count = self.samples[&(format!("{name}_count"), object.clone())];
                assert_eq!(last.1, count);
                assert!(self.samples.contains_key(&(format!("{name}_sum"), object)));
            }
        }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

fn parse_labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    loop {
        let (name, rest) = text.split_once("=\"").expect("name=\"");
        let plain = |c: char| c == '_' || c.is_ascii_lowercase();
        assert!(!name.is_empty() && name.chars().all(plain), "{name}");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("closing quote") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().expect("escaped").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert_eq!(labels.insert(name.to_owned(), value), None, "label twice");
        let Some(more) = rest[end + 1..].strip_prefix(',') else {
            assert_eq!(&rest[end + 1..], "");
            return labels;
        };
        text = more;
    }
}

/// Two workers, one object of each kind, every cell moved by each worker.
fn busy() -> (Registry, Arc<Load>) {
    let registry = Registry::new(2);
    let load = Arc::new(Load::default());
    for i in 0..2 {
        let n = 10u64.pow(i as u32);
        let workers = registry.worker_cells();
        let worker = workers.worker(i);
        worker.connections.add(n);
        worker.requests.add(n);
        worker.busy.store(n * 1_500_000_000);
        worker.log_dropped.add(n);
        worker.spliced_bytes.add(n);
        let listeners = registry.listener("web");
        let listener = listeners.worker(i);
        listener.accepts.add(n);
        listener.refusals.of(Reason::ConnectionsLimit).add(n);
        listener.handshakes(Handshake::Resumed).add(n);
        listener.tls_connections(TlsVersion::V13).add(n);
        listener.handshake_duration.observe(n * 1_000_000);
        listeners.control().failed_renewals.store(5);
        listener.received_datagrams.add(n);
        listener.open_flows.add(n);
        listener.flow_ends(FlowEnd::Limit).add(n);
        listener.dropped_datagrams(DatagramDrop::TooLong).add(n);
        let certificates = Certificates {
            expiries: vec![("a.test".to_owned(), 1_800_000_000)],
            is_failing: true,
        };
        registry.set_certificates("web", Some(certificates));
        let routes = registry.route("api");
        let route = routes.worker(i);
        route.requests(Protocol::H1, CodeClass::Success).add(n);
        route.duration.observe(n * 1_000_000);
        route.refusals.of(Reason::Deadline).add(n);
        route.observed.of(Reason::RateLimit).add(n);
        let upstreams = registry.upstream("app");
        let upstream = upstreams.worker(i);
        upstream.pool(PoolOutcome::Reused).add(n);
        upstream.connect_failures(ConnectFailure::Refused).add(n);
        upstream.retries(RetryReason::Status).add(n);
        let endpoints = registry.endpoint("app", "10.0.0.1:80", &load);
        let endpoint = endpoints.worker(i);
        endpoint.requests(EndpointOutcome::Ok).add(n);
        endpoint.connections.add(n);
        endpoints.control().health.set(2);
        endpoints.control().ejections.store(1);
        let checks = endpoints.control().checks(CheckResult::Timeout);
        checks.store(3);
        let asked = endpoints.control().agent_checks(CheckResult::Ok);
        asked.store(4);
    }
    load.in_flight.store(3, Relaxed);
    let fleet = registry.fleet();
    fleet.members(MemberState::Alive).set(5);
    fleet.sent(Traffic::Sync).add(700);
    fleet.received(Traffic::Facts).add(70);
    fleet.syncs(SyncResult::Equal).inc();
    fleet.verdicts(VerdictTo::Down).add(2);
    fleet.facts.set("vote", 12);
    fleet.datagrams_refused.begin(["forged", "replayed"]);
    fleet.datagrams_refused.add("forged", 3);
    fleet.facts_refused.add("origin", 1);
    fleet.last_sync_unix_ms.set(1_800_000_000_500);
    fleet.lag_ms.set(120);
    fleet.stall.add(1_500_000_000);
    (registry, load)
}

#[test]
fn every_family_is_there_with_its_type_labels_and_no_other() {
    let (registry, _load) = busy();
    let scrape = Scrape::of(&registry);
    let families: Vec<_> = FAMILIES
        .iter()
        .map(|family| {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            (family.name.to_owned(), kind.to_owned())
        })
        .collect();
    assert_eq!(scrape.families, families);
    for family in FAMILIES {
        assert_eq!(
            family.kind == Kind::Counter,
            family.name.ends_with("_total"),
            "{family:?}"
        );
        assert!(family.name.starts_with("isobar_") || family.name.starts_with("process_"));
        let expected: HashSet<_> = family.labels.iter().map(|&l| l.to_owned()).collect();
        let own = [family.name.to_owned(), format!("{}_count", family.name)];
        for ((_, labels), _) in scrape
            .samples
            .iter()
            .filter(|((name, _), _)| own.contains(name))
        {
            assert_eq!(
                labels.keys().cloned().collect::<HashSet<_>>(),
                expected,
                "{family:?}"
            );
        }
    }
}

#[test]
fn values_are_sums_over_workers() {
    let (registry, _load) = busy();
    let scrape = Scrape::of(&registry);
    let is = |name, labels: &[(&str, &str)], value| {
        assert_eq!(scrape.value(name, labels), Some(value), "{name} {labels:?}");
    };
    is(
        "isobar_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    is("isobar_workers", &[], 2.0);
    is("isobar_worker_connections", &[("worker", "1")], 10.0);
    is("isobar_worker_busy_seconds_total", &[("worker", "0")], 1.5);
    assert_eq!(
        scrape.value("isobar_worker_connections", &[("worker", "2")],),
        None
    );
    is("isobar_relayed_bytes_total", &[("way", "splice")], 11.0);
    is(
        "isobar_access_log_lines_total",
        &[("result", "dropped")],
        11.0,
    );
    is(
        "isobar_listener_accepts_total",
        &[("listener", "web")],
        11.0,
    );
    let resumed = [("listener", "web"), ("result", "resumed")];
    is("isobar_tls_handshakes_total", &resumed, 11.0);
    let newest = [("listener", "web"), ("version", "1.3")];
    is("isobar_tls_connections_total", &newest, 11.0);
    let web = [("listener", "web")];
    is("isobar_tls_handshake_duration_seconds_count", &web, 2.0);
    is("isobar_tls_certificate_renewal_failing", &web, 1.0);
    let failed = [web[0], ("result", "failed")];
    is("isobar_tls_certificate_renewals_total", &failed, 5.0);
    let expiry = "isobar_tls_certificate_not_after_timestamp_seconds";
    let certificate = [web[0], ("certificate", "a.test")];
    is(expiry, &certificate, 1_800_000_000.0);
    is("isobar_udp_flows", &web, 11.0);
    is("isobar_udp_received_datagrams_total", &web, 11.0);
    let limit = [("listener", "web"), ("reason", "limit")];
    is("isobar_udp_flow_ends_total", &limit, 11.0);
    let long = [("listener", "web"), ("reason", "too_long")];
    is("isobar_udp_dropped_datagrams_total", &long, 11.0);
    let refused = [("listener", "web"), ("reason", "connections_limit")];
    is("isobar_listener_refusals_total", &refused, 11.0);
    let requests = [("route", "api"), ("protocol", "h1"), ("code_class", "2xx")];
    is("isobar_http_requests_total", &requests, 11.0);
    is(
        "isobar_http_request_duration_seconds_count",
        &[("route", "api")],
        2.0,
    );
    is(
        "isobar_http_request_duration_seconds_sum",
        &[("route", "api")],
        0.011,
    );
    let bucket = |le| [("route", "api"), ("le", le)];
    is(
        "isobar_http_request_duration_seconds_bucket",
        &bucket("0.0005"),
        0.0,
    );
    is(
        "isobar_http_request_duration_seconds_bucket",
        &bucket("0.001"),
        1.0,
    );
    is(
        "isobar_http_request_duration_seconds_bucket",
        &bucket("0.01"),
        2.0,
    );
    is(
        "isobar_http_refusals_total",
        &[("route", "api"), ("reason", "deadline")],
        11.0,
    );
    is(
        "isobar_upstream_requests_total",
        &[("upstream", "app"), ("outcome", "ok")],
        11.0,
    );
    is("isobar_upstream_in_flight", &[("upstream", "app")], 3.0);
    is(
        "isobar_upstream_pool_total",
        &[("upstream", "app"), ("result", "reused")],
        11.0,
    );
    is(
        "isobar_upstream_retries_total",
        &[("upstream", "app"), ("reason", "status")],
        11.0,
    );
    let endpoint = [("upstream", "app"), ("endpoint", "10.0.0.1:80")];
    is("isobar_endpoint_connections", &endpoint, 11.0);
    is("isobar_endpoint_in_flight", &endpoint, 3.0);
    is("isobar_endpoint_healthy", &endpoint, 1.0);
    let late = [endpoint[0], endpoint[1], ("result", "timeout")];
    is("isobar_health_checks_total", &late, 3.0);
    let answered = [
        ("upstream", "app"),
        ("endpoint", "10.0.0.1:80"),
        ("result", "ok"),
    ];
    is("isobar_agent_checks_total", &answered, 4.0);
    let own = scrape.value("isobar_metrics_series", &[]).unwrap();
    assert_eq!(own as usize, scrape.samples.len() - 1);
}

#[test]
fn a_fleet_is_shown_where_there_is_one() {
    let (registry, _load) = busy();
    let scrape = Scrape::of(&registry);
    let is = |name, labels: &[(&str, &str)], value| {
        assert_eq!(scrape.value(name, labels), Some(value), "{name} {labels:?}");
    };
    is("isobar_fleet_members", &[("state", "alive")], 5.0);
    is("isobar_fleet_members", &[("state", "suspect")], 0.0);
    is("isobar_fleet_facts", &[("kind", "vote")], 12.0);
    is("isobar_fleet_sent_bytes_total", &[("kind", "sync")], 700.0);
    is(
        "isobar_fleet_received_bytes_total",
        &[("kind", "facts")],
        70.0,
    );
    let refused = "isobar_fleet_datagrams_refused_total";
    is(refused, &[("reason", "forged")], 3.0);
    is(refused, &[("reason", "replayed")], 0.0);
    is(
        "isobar_fleet_facts_refused_total",
        &[("reason", "origin")],
        1.0,
    );
    is("isobar_fleet_syncs_total", &[("result", "equal")], 1.0);
    is(
        "isobar_fleet_last_sync_timestamp_seconds",
        &[],
        1_800_000_000.5,
    );
    is("isobar_fleet_lag_seconds", &[], 0.12);
    is("isobar_fleet_verdicts_total", &[("to", "down")], 2.0);
    is("isobar_fleet_stall_seconds_total", &[], 1.5);
    // A server without a fleet never asks for the cells.
    let alone = Scrape::of(&Registry::new(1));
    let fleet = |(name, _): &(String, String)| name.starts_with("isobar_fleet_");
    assert!(!alone.families.iter().any(fleet));
    let new = Registry::new(1);
    new.fleet();
    let last = "isobar_fleet_last_sync_timestamp_seconds";
    assert_eq!(Scrape::of(&new).value(last, &[]), None, "there was none");
}

/// No more traffic, in whatever shape, makes a new series: the label values are the closed sets of
/// the enums and the names given at creation.
#[test]
fn series_come_from_names_and_enums_only() {
    let (registry, _load) = busy();
    let route = registry.route("api");
    for reason in Reason::ALL {
        route.worker(0).refusals.of(reason).inc();
    }
    let before: HashSet<_> = Scrape::of(&registry).samples.into_keys().collect();
    for status in 0..=u16::MAX {
        route
            .worker(1)
            .requests(Protocol::H2, CodeClass::of(status))
            .inc();
        let endpoint = registry.endpoint("app", "10.0.0.1:80", &Arc::default());
        endpoint
            .worker(1)
            .requests(EndpointOutcome::of(status))
            .inc();
    }
    let after: HashSet<_> = Scrape::of(&registry).samples.into_keys().collect();
    assert_eq!(before, after);
}

#[test]
fn what_is_removed_disappears_and_sums_never_fall() {
    let (registry, load) = busy();
    registry.endpoint("app", "10.0.0.2:80", &load);
    registry.retain(|object| match object {
        Object::Endpoint { endpoint, .. } => endpoint == "10.0.0.2:80",
        Object::Listener(_) => false,
        Object::Route(_) | Object::Upstream(_) => true,
    });
    let scrape = Scrape::of(&registry);
    assert!(
        !scrape
            .samples
            .keys()
            .any(|(_, l)| l.get("endpoint").is_some_and(|e| e == "10.0.0.1:80"))
    );
    assert!(
        !scrape
            .samples
            .keys()
            .any(|(_, l)| l.contains_key("listener"))
    );
    let ok = [("upstream", "app"), ("outcome", "ok")];
    assert_eq!(
        scrape.value("isobar_upstream_requests_total", &ok),
        Some(11.0)
    );
    assert_eq!(
        scrape.value("isobar_upstream_endpoints", &[("upstream", "app")]),
        Some(1.0)
    );
}

/// Names are what people write: quotes, backslashes, newlines and all.
#[test]
fn names_are_escaped() {
    let registry = Registry::new(1);
    registry
        .route("a \"b\" \\ c\nd é")
        .worker(0)
        .in_flight
        .inc();
    let scrape = Scrape::of(&registry);
    let labels = [("route", "a \"b\" \\ c\nd é")];
    assert_eq!(
        scrape.value("isobar_http_requests_in_flight", &labels),
        Some(1.0)
    );
}

#[test]
fn gauge_below_zero_for_a_moment_shows_as_zero() {
    let registry = Registry::new(1);
    registry.listener("web").worker(0).connections.dec();
    let scrape = Scrape::of(&registry);
    assert_eq!(
        scrape.value("isobar_listener_connections", &[("listener", "web")]),
        Some(0.0)
    );
}

/// Ten thousand endpoints: every sample of them, and the answer stays within 16 MiB (there is one
/// answer in memory and one batch of the crate's model).
#[test]
fn ten_thousand_endpoints_fit() {
    let registry = Registry::new(2);
    let load = Arc::new(Load::default());
    for i in 0..10_000 {
        let endpoint = format!("10.0.{}.{}:8080", i / 256, i % 256);
        registry
            .endpoint("app", &endpoint, &load)
            .worker(i % 2)
            .connects
            .inc();
    }
    let text = registry.scrape();
    assert!(text.len() < 16 << 20, "{} bytes", text.len());
    let scrape = Scrape::parse(&text);
    let of_endpoints = scrape
        .samples
        .keys()
        .filter(|(_, l)| l.contains_key("endpoint"))
        .count();
    assert_eq!(of_endpoints, 10_000 * 14);
}

#[test]
fn bounds_are_shown_as_decimals() {
    let registry = Registry::new(1);
    registry.route("api");
    let text = registry.scrape();
    let shown = |le: &str| {
        text.contains(&format!(
            "request_duration_seconds_bucket{{route=\"api\",le=\"{le}\"}} 0\n"
        ))
    };
    for bound in BOUNDS {
        assert!(shown(&(bound as f64 / 1e9).to_string()));
    }
    assert!(shown("0.0001") && shown("2.5") && shown("120") && shown("+Inf"));
}
