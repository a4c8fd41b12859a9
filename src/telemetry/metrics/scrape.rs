//! A scrape: sums the cells and encodes the text format (version 0.0.4), through the `prometheus`
//! crate's model and encoder.
//!
//! One family after the other, in batches: the crate's model of a sample takes ten times the memory
//! of its line, so ten thousand endpoints at once would cost far more than the answer itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::cell::{BOUNDS, HistogramSum, PerWorker};
use super::cells::{
    ConfigCells, ListenerCells, LogWriterCells, RouteCells, UpstreamCells, WorkerCells,
};
use super::families::{FAMILIES, Family, Kind, Read};
use super::fleet::FleetCells;
use super::process::ProcessStats;
use super::registry::{ByName, Certificates, Endpoint, Registry, Upstream};

/// The content type of [`Registry::scrape`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Samples encoded at once: 1024 of the crate's model are about half a megabyte.
const BATCH: usize = 1024;

/// What a scrape reads: taken under the registry's lock, read without it.
pub(super) struct View {
    pub(super) workers: Arc<PerWorker<WorkerCells>>,
    pub(super) log_writer: Arc<LogWriterCells>,
    pub(super) config: Arc<ConfigCells>,
    pub(super) process: Option<ProcessStats>,
    certificates: ByName<Certificates>,
    fleet: Option<Arc<FleetCells>>,
    listeners: ByName<PerWorker<ListenerCells>>,
    routes: ByName<PerWorker<RouteCells>>,
    upstreams: BTreeMap<Arc<str>, Upstream>,
}

/// Takes the samples of one family.
pub(super) struct Samples<'a> {
    family: &'a Family,
    /// Values of the labels that name the object; the family's other labels follow them.
    object: Vec<String>,
    batch: Vec<Metric>,
    is_begun: bool,
    scratch: String,
    out: &'a mut String,
    count: u64,
}

// === impl Registry ===

impl Registry {
    /// Everything there is, as text. Takes milliseconds with a thousand endpoints, not for a
    /// thread that serves.
    pub fn scrape(&self) -> String {
        let view = self.view();
        let mut out = String::new();
        let mut series = 0;
        for family in FAMILIES {
            series += view.collect(family, &mut out, series);
        }
        out
    }

    fn view(&self) -> View {
        let mut objects = self.lock();
        objects.upstreams.values_mut().for_each(Upstream::settle);
        View {
            workers: self.worker_cells(),
            log_writer: self.log_writer(),
            config: self.config(),
            process: ProcessStats::read().ok(),
            certificates: objects.certificates.clone(),
            fleet: objects.fleet.clone(),
            listeners: objects.listeners.clone(),
            routes: objects.routes.clone(),
            upstreams: objects.upstreams.clone(),
        }
    }
}

// === impl View ===

impl View {
    /// Appends one family to `out`; returns how many samples it had. `before`: those of the
    /// families before it.
    fn collect(&self, family: &Family, out: &mut String, before: u64) -> u64 {
        let mut to = Samples {
            family,
            object: Vec::new(),
            batch: Vec::new(),
            is_begun: false,
            scratch: String::new(),
            out,
            count: 0,
        };
        match family.read {
            Read::Server(read) => read(self, &mut to),
            Read::Fleet(read) => {
                if let Some(cells) = &self.fleet {
                    read(cells, &mut to);
                }
            }
            Read::Series => to.gauge(&[], before as f64),
            Read::Worker(read) => {
                // The last set is the control plane's, which serves nothing.
                let workers = self.workers.iter().count() - 1;
                for (i, cells) in self.workers.iter().take(workers).enumerate() {
                    read(cells, to.of(&[i.to_string()]));
                }
            }
            Read::Listener(read) => {
                self.listeners
                    .iter()
                    .for_each(|(name, cells)| read(cells, to.of(&[name])));
            }
            Read::Tls(read) => {
                for (name, certificates) in &self.certificates {
                    if let Some(cells) = self.listeners.get(name) {
                        read(certificates, cells, to.of(&[name]));
                    }
                }
            }
            Read::Route(read) => {
                self.routes
                    .iter()
                    .for_each(|(name, cells)| read(cells, to.of(&[name])));
            }
            Read::Upstream(read) => {
                self.upstreams
                    .iter()
                    .for_each(|(name, upstream)| read(upstream, to.of(&[name])));
            }
            Read::Endpoint(read) => {
                for (name, upstream) in &self.upstreams {
                    for (endpoint, cells) in &upstream.endpoints {
                        read(cells, to.of(&[name, endpoint]));
                    }
                }
            }
        }
        to.encode();
        to.count
    }
}

// === impl Samples ===

impl Samples<'_> {
    /// What follows is about this object.
    fn of<const N: usize>(&mut self, object: &[impl AsRef<str>; N]) -> &mut Self {
        self.object.clear();
        self.object
            .extend(object.iter().map(|value| value.as_ref().to_owned()));
        self
    }

    pub(super) fn counter(&mut self, labels: &[&str], value: u64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.push(labels, metric);
    }

    /// A counter of nanoseconds, shown in seconds.
    pub(super) fn seconds(&mut self, labels: &[&str], nanos: u64) {
        self.seconds_total(labels, nanos as f64 / 1e9);
    }

    /// A counter of seconds.
    pub(super) fn seconds_total(&mut self, labels: &[&str], seconds: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(seconds);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.push(labels, metric);
    }

    pub(super) fn gauge(&mut self, labels: &[&str], value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::default();
        metric.set_gauge(gauge);
        self.push(labels, metric);
    }

    pub(super) fn histogram(&mut self, total: &HistogramSum) {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (&bound, &count) in BOUNDS.iter().zip(&total.buckets) {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e9);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        // Counted from the same reads as the buckets: `+Inf` and `_count` never disagree.
        histogram.set_sample_count(total.count());
        histogram.set_sample_sum(total.sum as f64 / 1e9);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        // Buckets, +Inf, sum, count: one is counted by `push`.
        self.count += BOUNDS.len() as u64 + 2;
        self.push(&[], metric);
    }

    fn push(&mut self, labels: &[&str], mut metric: Metric) {
        debug_assert_eq!(self.object.len() + labels.len(), self.family.labels.len());
        let values = self
            .object
            .iter()
            .map(String::as_str)
            .chain(labels.iter().copied());
        let pair = |(&name, value): (&&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        metric.set_label(self.family.labels.iter().zip(values).map(pair).collect());
        self.batch.push(metric);
        self.count += 1;
        if self.batch.len() >= BATCH {
            self.encode();
        }
    }

    /// Appends the batch to the answer. A family without samples leaves no trace.
    fn encode(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(match self.family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(std::mem::take(&mut self.batch));
        self.scratch.clear();
        TextEncoder::new()
            .encode_utf8(&[family], &mut self.scratch)
            .expect("invariant: a family with a name and samples, written to a String");
        // Only the first batch of a family brings its HELP and TYPE lines.
        let body = if std::mem::replace(&mut self.is_begun, true) {
            self.scratch.splitn(3, '\n').nth(2).unwrap_or_default()
        } else {
            self.scratch.as_str()
        };
        self.out.push_str(body);
    }
}

/// The sum of a histogram over all workers.
pub(super) fn sum_of<T>(
    cells: &PerWorker<T>,
    of: impl Fn(&T) -> &super::cell::Histogram,
) -> HistogramSum {
    let mut total = HistogramSum::default();
    cells.iter().for_each(|cells| of(cells).add_to(&mut total));
    total
}

/// The sum of a gauge over all workers. One that is read while a connection changes hands may be
/// off by it, even below zero: shown as zero.
pub(super) fn gauge_of<T>(cells: &PerWorker<T>, of: impl Fn(&T) -> &super::cell::Gauge) -> f64 {
    (cells.sum(|cells| of(cells).value() as u64) as i64).max(0) as f64
}

impl Endpoint {
    pub(super) fn in_flight(&self) -> f64 {
        f64::from(
            self.load
                .in_flight
                .load(std::sync::atomic::Ordering::Relaxed),
        )
    }
}

impl Upstream {
    pub(super) fn cells(&self) -> &PerWorker<UpstreamCells> {
        &self.cells
    }
}
