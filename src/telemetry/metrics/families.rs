//! The table of all that is exposed: name, labels, meaning, and how it is read from the cells.
//!
//! Times are in seconds and sizes in bytes; counters end in `_total`. Sums over any label make
//! sense, save over the labels of gauges that count workers' or states' shares of different things.

use super::cell::PerWorker;
use super::cells::{
    CheckResult, CodeClass, ConnectFailure, DatagramDrop, EndpointOutcome, FlowEnd, ListenerCells,
    PoolClose, PoolOutcome, Protocol, RetryReason, RouteCells, WorkerCells,
};
use super::fleet::{FleetCells, MemberState, SyncResult, Traffic, VerdictTo, Words};
use super::registry::{Certificates, Endpoint, Upstream};
use super::scrape::{Samples, View, gauge_of, sum_of};
use crate::base::tls::{Handshake, TlsVersion};
use crate::telemetry::abuse::Abuse;
use crate::telemetry::access_log::Ending;
use crate::telemetry::reason::Reason;

/// One family of series.
#[derive(Debug)]
pub struct Family {
    /// The metric's name.
    pub name: &'static str,
    /// What its numbers do.
    pub kind: Kind,
    /// Names of the labels, those of the object first.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
    pub(super) read: Read,
}

/// What a number does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// Of what, and how.
pub(super) enum Read {
    Endpoint(fn(&Endpoint, &mut Samples<'_>)),
    Fleet(fn(&FleetCells, &mut Samples<'_>)),
    Listener(fn(&PerWorker<ListenerCells>, &mut Samples<'_>)),
    Route(fn(&PerWorker<RouteCells>, &mut Samples<'_>)),
    /// How many samples there were.
    Series,
    Server(fn(&View, &mut Samples<'_>)),
    /// Of listeners that speak TLS.
    Tls(fn(&Certificates, &PerWorker<ListenerCells>, &mut Samples<'_>)),
    Upstream(fn(&Upstream, &mut Samples<'_>)),
    Worker(fn(&WorkerCells, &mut Samples<'_>)),
}

const LISTENER: &[&str] = &["listener"];
const ROUTE: &[&str] = &["route"];
const UPSTREAM: &[&str] = &["upstream"];
const ENDPOINT: &[&str] = &["upstream", "endpoint"];
const WORKER: &[&str] = &["worker"];

/// Every family, in the order of a scrape.
pub const FAMILIES: &[Family] = &[
    // ── the process ──────────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_build_info",
        kind: Kind::Gauge,
        labels: &["version"],
        help: "1, labelled with the version of the program.",
        read: Read::Server(|_, to| to.gauge(&[env!("CARGO_PKG_VERSION")], 1.0)),
    },
    Family {
        name: "isobar_workers",
        kind: Kind::Gauge,
        labels: &[],
        help: "Worker threads.",
        read: Read::Server(|view, to| to.gauge(&[], (view.workers.iter().count() - 1) as f64)),
    },
    Family {
        name: "isobar_worker_connections",
        kind: Kind::Gauge,
        labels: WORKER,
        help: "Client connections a worker serves.",
        read: Read::Worker(|c, to| to.gauge(&[], c.connections.value() as f64)),
    },
    Family {
        name: "isobar_worker_requests_total",
        kind: Kind::Counter,
        labels: WORKER,
        help: "Requests a worker has read.",
        read: Read::Worker(|c, to| to.counter(&[], c.requests.value())),
    },
    Family {
        name: "isobar_worker_busy_seconds_total",
        kind: Kind::Counter,
        labels: WORKER,
        help: "Time a worker spent on its tasks; the rest it slept or asked the kernel for events.",
        read: Read::Worker(|c, to| to.seconds(&[], c.busy.value())),
    },
    Family {
        name: "isobar_worker_parks_total",
        kind: Kind::Counter,
        labels: WORKER,
        help: "Times a worker went to sleep for lack of work.",
        read: Read::Worker(|c, to| to.counter(&[], c.parks.value())),
    },
    Family {
        name: "isobar_buffers",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "I/O buffers of all workers: in_use, or spare (kept for reuse).",
        read: Read::Server(|view, to| {
            to.gauge(&["in_use"], gauge_of(&view.workers, |c| &c.buffers_in_use));
            to.gauge(&["spare"], gauge_of(&view.workers, |c| &c.buffers_spare));
        }),
    },
    Family {
        name: "isobar_tunnels",
        kind: Kind::Gauge,
        labels: &[],
        help: "Upgraded connections (WebSocket and the like) open.",
        read: Read::Server(|view, to| to.gauge(&[], gauge_of(&view.workers, |c| &c.tunnels))),
    },
    Family {
        name: "isobar_tunnels_opened_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Connections upgraded.",
        read: Read::Server(|view, to| {
            to.counter(&[], view.workers.sum(|c| c.tunnels_total.value()));
        }),
    },
    Family {
        name: "isobar_relayed_bytes_total",
        kind: Kind::Counter,
        labels: &["way"],
        help: "Body and tunnel bytes relayed: copy (through a buffer) or splice (in the kernel).",
        read: Read::Server(|view, to| {
            to.counter(&["copy"], view.workers.sum(|c| c.copied_bytes.value()));
            to.counter(&["splice"], view.workers.sum(|c| c.spliced_bytes.value()));
        }),
    },
    Family {
        name: "isobar_access_log_lines_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Access-log lines: written, dropped (the writer was behind) or lost (a write failed).",
        read: Read::Server(|view, to| {
            to.counter(&["written"], view.log_writer.lines.value());
            to.counter(&["dropped"], view.workers.sum(|c| c.log_dropped.value()));
            to.counter(&["lost"], view.log_writer.lost_lines.value());
        }),
    },
    Family {
        name: "isobar_access_log_written_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Bytes written to the access log.",
        read: Read::Server(|view, to| to.counter(&[], view.log_writer.bytes.value())),
    },
    Family {
        name: "isobar_access_log_errors_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Failed writes and reopens of the access log.",
        read: Read::Server(|view, to| to.counter(&[], view.log_writer.errors.value())),
    },
    // ── the configuration ────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_config_reloads_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Attempts to replace the configuration: ok, or refused (the old one serves on).",
        read: Read::Server(|view, to| {
            to.counter(&["ok"], view.config.reloads.value());
            to.counter(&["refused"], view.config.refused.value());
        }),
    },
    Family {
        name: "isobar_config_last_reload_successful",
        kind: Kind::Gauge,
        labels: &[],
        help: "0 after a reload was refused, until one succeeds: the files are not what is served.",
        read: Read::Server(|view, to| to.gauge(&[], f64::from(view.config.is_last_good()))),
    },
    Family {
        name: "isobar_config_last_reload_success_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the configuration that is served was loaded.",
        read: Read::Server(|view, to| to.gauge(&[], view.config.loaded_at_seconds())),
    },
    // ── the fleet; absent without one ───────────────────────────────────────────────────────
    Family {
        name: "isobar_fleet_members",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Peers, this one among those that are alive: alive, suspect (no answer lately), down or left (it said so).",
        read: Read::Fleet(|c, to| {
            for one in MemberState::ALL {
                to.gauge(&[one.as_str()], c.members(one).value() as f64);
            }
        }),
    },
    Family {
        name: "isobar_fleet_facts",
        kind: Kind::Gauge,
        labels: &["kind"],
        help: "Facts that are known, by kind.",
        read: Read::Fleet(|c, to| words(&c.facts, |word, n| to.gauge(&[word], n as f64))),
    },
    Family {
        name: "isobar_fleet_sent_bytes_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Bytes sent to peers, without headers of UDP and TCP: membership, facts (pushed) or sync (compared).",
        read: Read::Fleet(|c, to| {
            for one in Traffic::ALL {
                to.counter(&[one.as_str()], c.sent(one).value());
            }
        }),
    },
    Family {
        name: "isobar_fleet_received_bytes_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Bytes of peers that were understood.",
        read: Read::Fleet(|c, to| {
            for one in Traffic::ALL {
                to.counter(&[one.as_str()], c.received(one).value());
            }
        }),
    },
    Family {
        name: "isobar_fleet_datagrams_refused_total",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "Datagrams that were not listened to: anybody may have sent them.",
        read: Read::Fleet(|c, to| words(&c.datagrams_refused, |word, n| to.counter(&[word], n))),
    },
    Family {
        name: "isobar_fleet_facts_refused_total",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "Facts that were not taken, by what is wrong with them.",
        read: Read::Fleet(|c, to| words(&c.facts_refused, |word, n| to.counter(&[word], n))),
    },
    Family {
        name: "isobar_fleet_facts_merged_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Facts of other peers that said something new.",
        read: Read::Fleet(|c, to| to.counter(&[], c.facts_merged.value())),
    },
    Family {
        name: "isobar_fleet_quarantined_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Facts that were put aside: `isobar fleet status` shows the last of them.",
        read: Read::Fleet(|c, to| to.counter(&[], c.quarantined.value())),
    },
    Family {
        name: "isobar_fleet_syncs_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Comparisons of all that is known with another peer: equal, different (facts were exchanged) or failed.",
        read: Read::Fleet(|c, to| {
            for one in SyncResult::ALL {
                to.counter(&[one.as_str()], c.syncs(one).value());
            }
        }),
    },
    Family {
        name: "isobar_fleet_last_sync_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When all that is known was last compared with another peer; absent before.",
        read: Read::Fleet(|c, to| {
            let at = c.last_sync_unix_ms.value();
            if at > 0 {
                to.gauge(&[], at as f64 / 1000.0);
            }
        }),
    },
    Family {
        name: "isobar_fleet_lag_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "How old the newest fact of another peer was when it came.",
        read: Read::Fleet(|c, to| to.gauge(&[], c.lag_ms.value() as f64 / 1000.0)),
    },
    Family {
        name: "isobar_fleet_stopped",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 after a fault of isobar has ended the fleet for this process: it serves on, alone with what it knew.",
        read: Read::Fleet(|c, to| to.gauge(&[], c.stopped.value() as f64)),
    },
    Family {
        name: "isobar_fleet_brake_held",
        kind: Kind::Gauge,
        labels: &[],
        help: "What is said and has no effect, as one peer would take too much away at once.",
        read: Read::Fleet(|c, to| to.gauge(&[], c.brake_held.value() as f64)),
    },
    Family {
        name: "isobar_fleet_verdicts_total",
        kind: Kind::Counter,
        labels: &["to"],
        help: "Endpoints that the majority of those who check them has called up or down anew.",
        read: Read::Fleet(|c, to| {
            for one in VerdictTo::ALL {
                to.counter(&[one.as_str()], c.verdicts(one).value());
            }
        }),
    },
    Family {
        name: "isobar_fleet_duties",
        kind: Kind::Gauge,
        labels: &[],
        help: "Endpoints that this peer checks.",
        read: Read::Fleet(|c, to| to.gauge(&[], c.duties.value() as f64)),
    },
    Family {
        name: "isobar_fleet_registrations",
        kind: Kind::Gauge,
        labels: &[],
        help: "Endpoints that are registered at this peer.",
        read: Read::Fleet(|c, to| to.gauge(&[], c.registrations.value() as f64)),
    },
    Family {
        name: "isobar_fleet_stall_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "For how long this peer did not come to its work for the fleet, as far as that was noticed.",
        read: Read::Fleet(|c, to| to.seconds(&[], c.stall.value())),
    },
    // ── listeners ────────────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_listener_connections",
        kind: Kind::Gauge,
        labels: LISTENER,
        help: "Client connections open.",
        read: Read::Listener(|c, to| to.gauge(&[], gauge_of(c, |c| &c.connections))),
    },
    Family {
        name: "isobar_listener_accepts_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Client connections accepted.",
        read: Read::Listener(|c, to| to.counter(&[], c.sum(|c| c.accepts.value()))),
    },
    Family {
        name: "isobar_listener_accept_errors_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Failed accepts: out of file descriptors or memory.",
        read: Read::Listener(|c, to| to.counter(&[], c.sum(|c| c.accept_errors.value()))),
    },
    Family {
        name: "isobar_listener_handoffs_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Accepted connections given to a less loaded worker.",
        read: Read::Listener(|c, to| to.counter(&[], c.sum(|c| c.handoffs.value()))),
    },
    Family {
        name: "isobar_listener_requests_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Requests whose head was read.",
        read: Read::Listener(|c, to| to.counter(&[], c.sum(|c| c.requests.value()))),
    },
    Family {
        name: "isobar_listener_refusals_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Connections and requests refused before a route was known, by reason.",
        read: Read::Listener(|c, to| {
            for reason in Reason::ALL {
                to.counter(&[reason.as_str()], c.sum(|c| c.refusals.of(reason).value()));
            }
        }),
    },
    Family {
        name: "isobar_http2_abuse_total",
        kind: Kind::Counter,
        labels: &["listener", "kind"],
        help: "Connections of HTTP/2 that were ended because they were abused, by kind.",
        read: Read::Listener(|c, to| {
            for abuse in Abuse::ALL {
                to.counter(&[abuse.as_str()], c.sum(|c| c.abuses(abuse).value()));
            }
        }),
    },
    Family {
        name: "isobar_listener_received_bytes_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Bytes read from clients, heads included.",
        read: Read::Listener(|c, to| to.counter(&[], c.sum(|c| c.received_bytes.value()))),
    },
    Family {
        name: "isobar_listener_sent_bytes_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Bytes written to clients, heads included.",
        read: Read::Listener(|c, to| to.counter(&[], c.sum(|c| c.sent_bytes.value()))),
    },
    Family {
        name: "isobar_listener_flows_total",
        kind: Kind::Counter,
        labels: &["listener", "outcome"],
        help: "Connections of TCP and flows of UDP that ended, by how: ok, cancelled (by the client), \
               failed (the endpoint, a deadline) or refused.",
        read: Read::Listener(|c, to| {
            for ending in Ending::ALL {
                to.counter(&[ending.as_str()], c.sum(|c| c.flows(ending).value()));
            }
        }),
    },
    Family {
        name: "isobar_listener_flow_duration_seconds",
        kind: Kind::Histogram,
        labels: LISTENER,
        help: "Connections of TCP and flows of UDP: from the first sign of one to its end.",
        read: Read::Listener(|c, to| to.histogram(&sum_of(c, |c| &c.flow_duration))),
    },
    Family {
        name: "isobar_listener_observed_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Connections of TCP and flows of UDP that a limit with mode = \"observe\" would have refused.",
        read: Read::Listener(|c, to| {
            let counted = [Reason::RateLimit];
            for reason in counted {
                to.counter(&[reason.as_str()], c.sum(|c| c.observed.of(reason).value()));
            }
        }),
    },
    // ── UDP ──────────────────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_udp_flows",
        kind: Kind::Gauge,
        labels: LISTENER,
        help: "Flows of UDP open. The series of UDP begin with a listener's first datagram.",
        read: Read::Listener(|c, to| {
            if has_datagrams(c) {
                to.gauge(&[], gauge_of(c, |c| &c.open_flows));
            }
        }),
    },
    Family {
        name: "isobar_udp_flow_ends_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Flows of UDP that ended: idle, responses (all were answered), limit and client_limit \
               (max_flows, max_flows_per_client: the quietest had to go), stopped (drained or cut).",
        read: Read::Listener(|c, to| {
            for end in FlowEnd::ALL.into_iter().filter(|_| has_datagrams(c)) {
                to.counter(&[end.as_str()], c.sum(|c| c.flow_ends(end).value()));
            }
        }),
    },
    Family {
        name: "isobar_udp_received_datagrams_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Datagrams of clients.",
        read: Read::Listener(|c, to| {
            if has_datagrams(c) {
                to.counter(&[], c.sum(|c| c.received_datagrams.value()));
            }
        }),
    },
    Family {
        name: "isobar_udp_sent_datagrams_total",
        kind: Kind::Counter,
        labels: LISTENER,
        help: "Datagrams that clients were sent.",
        read: Read::Listener(|c, to| {
            if has_datagrams(c) {
                to.counter(&[], c.sum(|c| c.sent_datagrams.value()));
            }
        }),
    },
    Family {
        name: "isobar_udp_dropped_datagrams_total",
        kind: Kind::Counter,
        labels: &["listener", "reason"],
        help: "Datagrams of either side that were not passed on, by reason; a series begins with its \
               first.",
        read: Read::Listener(|c, to| {
            for why in DatagramDrop::ALL {
                match c.sum(|c| c.dropped_datagrams(why).value()) {
                    0 => {}
                    n => to.counter(&[why.as_str()], n),
                }
            }
        }),
    },
    // ── TLS of listeners ─────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_tls_handshakes_total",
        kind: Kind::Counter,
        labels: &["listener", "result"],
        help: "TLS handshakes with clients, by how they ended: full and resumed succeeded.",
        read: Read::Tls(|_, c, to| {
            for ending in Handshake::ALL {
                to.counter(&[ending.as_str()], c.sum(|c| c.handshakes(ending).value()));
            }
        }),
    },
    Family {
        name: "isobar_tls_handshake_duration_seconds",
        kind: Kind::Histogram,
        labels: LISTENER,
        help: "TLS handshakes that succeeded: from the accept to the end.",
        read: Read::Tls(|_, c, to| to.histogram(&sum_of(c, |c| &c.handshake_duration))),
    },
    Family {
        name: "isobar_tls_connections_total",
        kind: Kind::Counter,
        labels: &["listener", "version"],
        help: "TLS connections with clients, by version.",
        read: Read::Tls(|_, c, to| {
            for version in TlsVersion::ALL {
                to.counter(
                    &[version.as_str()],
                    c.sum(|c| c.tls_connections(version).value()),
                );
            }
        }),
    },
    Family {
        name: "isobar_tls_certificate_not_after_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["listener", "certificate"],
        help: "Until when a certificate that is served holds, in seconds since 1970, by its first \
               name; of several for one name the first to expire.",
        read: Read::Tls(|certificates, _, to| {
            for (name, not_after) in &certificates.expiries {
                to.gauge(&[name], *not_after as f64);
            }
        }),
    },
    Family {
        name: "isobar_tls_certificate_renewal_failing",
        kind: Kind::Gauge,
        labels: LISTENER,
        help: "1 while the files of certificates cannot be served and those of before are.",
        read: Read::Tls(|certificates, _, to| {
            to.gauge(&[], f64::from(u8::from(certificates.is_failing)));
        }),
    },
    Family {
        name: "isobar_tls_certificate_renewals_total",
        kind: Kind::Counter,
        labels: &["listener", "result"],
        help: "Changes of the files of certificates: served (ok), or not whole (failed).",
        read: Read::Tls(|_, c, to| {
            to.counter(&["ok"], c.control().renewals.value());
            to.counter(&["failed"], c.control().failed_renewals.value());
        }),
    },
    // ── routes ───────────────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_http_requests_total",
        kind: Kind::Counter,
        labels: &["route", "protocol", "code_class"],
        help: "Exchanges ended, by the client's protocol and the class of the final status; none: \
               no response was sent.",
        read: Read::Route(|c, to| {
            for protocol in Protocol::ALL {
                for class in CodeClass::ALL {
                    let n = c.sum(|c| c.requests(protocol, class).value());
                    to.counter(&[protocol.as_str(), class.as_str()], n);
                }
            }
        }),
    },
    Family {
        name: "isobar_http_requests_in_flight",
        kind: Kind::Gauge,
        labels: ROUTE,
        help: "Exchanges begun and not ended.",
        read: Read::Route(|c, to| to.gauge(&[], gauge_of(c, |c| &c.in_flight))),
    },
    Family {
        name: "isobar_http_request_duration_seconds",
        kind: Kind::Histogram,
        labels: ROUTE,
        help: "From the first byte of the request to the last byte of the response.",
        read: Read::Route(|c, to| to.histogram(&sum_of(c, |c| &c.duration))),
    },
    Family {
        name: "isobar_http_response_start_seconds",
        kind: Kind::Histogram,
        labels: ROUTE,
        help: "From the first byte of the request to the first byte of the response.",
        read: Read::Route(|c, to| to.histogram(&sum_of(c, |c| &c.response_start))),
    },
    Family {
        name: "isobar_http_refusals_total",
        kind: Kind::Counter,
        labels: &["route", "reason"],
        help: "Exchanges refused or failed by the proxy, by reason; a series begins with its first.",
        read: Read::Route(|c, to| {
            for reason in Reason::ALL {
                // With ten thousand routes the zeros would be most of the answer.
                match c.sum(|c| c.refusals.of(reason).value()) {
                    0 => {}
                    n => to.counter(&[reason.as_str()], n),
                }
            }
        }),
    },
    Family {
        name: "isobar_http_observed_refusals_total",
        kind: Kind::Counter,
        labels: &["route", "reason"],
        help: "Exchanges that a limit with mode \"observe\" let pass and \"enforce\" would refuse.",
        read: Read::Route(|c, to| {
            for reason in Reason::ALL {
                match c.sum(|c| c.observed.of(reason).value()) {
                    0 => {}
                    n => to.counter(&[reason.as_str()], n),
                }
            }
        }),
    },
    Family {
        name: "isobar_http_request_body_bytes_total",
        kind: Kind::Counter,
        labels: ROUTE,
        help: "Body bytes received from clients.",
        read: Read::Route(|c, to| to.counter(&[], c.sum(|c| c.request_body_bytes.value()))),
    },
    Family {
        name: "isobar_http_response_body_bytes_total",
        kind: Kind::Counter,
        labels: ROUTE,
        help: "Body bytes sent to clients.",
        read: Read::Route(|c, to| to.counter(&[], c.sum(|c| c.response_body_bytes.value()))),
    },
    // ── upstreams ────────────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_upstream_endpoints",
        kind: Kind::Gauge,
        labels: UPSTREAM,
        help: "Endpoints that are members.",
        read: Read::Upstream(|u, to| to.gauge(&[], u.endpoints.len() as f64)),
    },
    Family {
        name: "isobar_upstream_requests_total",
        kind: Kind::Counter,
        labels: &["upstream", "outcome"],
        help: "Attempts at all endpoints by outcome, endpoints that have left included.",
        read: Read::Upstream(|u, to| {
            for outcome in EndpointOutcome::ALL {
                to.counter(&[outcome.as_str()], u.requests(outcome));
            }
        }),
    },
    Family {
        name: "isobar_upstream_in_flight",
        kind: Kind::Gauge,
        labels: UPSTREAM,
        help: "Exchanges in flight at all endpoints.",
        read: Read::Upstream(|u, to| to.gauge(&[], u.in_flight() as f64)),
    },
    Family {
        name: "isobar_upstream_connect_duration_seconds",
        kind: Kind::Histogram,
        labels: UPSTREAM,
        help: "Time successful connects took.",
        read: Read::Upstream(|u, to| to.histogram(&sum_of(u.cells(), |c| &c.connect_duration))),
    },
    Family {
        name: "isobar_upstream_connect_failures_total",
        kind: Kind::Counter,
        labels: &["upstream", "reason"],
        help: "Connects that failed; local: out of ports, descriptors or memory.",
        read: Read::Upstream(|u, to| {
            for failure in ConnectFailure::ALL {
                let n = u.cells().sum(|c| c.connect_failures(failure).value());
                to.counter(&[failure.as_str()], n);
            }
        }),
    },
    Family {
        name: "isobar_upstream_response_start_seconds",
        kind: Kind::Histogram,
        labels: UPSTREAM,
        help: "From the request's head being sent to the first byte of the endpoint's response.",
        read: Read::Upstream(|u, to| to.histogram(&sum_of(u.cells(), |c| &c.response_start))),
    },
    Family {
        name: "isobar_upstream_pool_total",
        kind: Kind::Counter,
        labels: &["upstream", "result"],
        help: "Check-outs: reused, fresh (a new connection), stale (an idle one found closed; \
               another follows).",
        read: Read::Upstream(|u, to| {
            for outcome in PoolOutcome::ALL {
                to.counter(
                    &[outcome.as_str()],
                    u.cells().sum(|c| c.pool(outcome).value()),
                );
            }
        }),
    },
    Family {
        name: "isobar_upstream_pool_closes_total",
        kind: Kind::Counter,
        labels: &["upstream", "reason"],
        help: "Idle connections closed: dead (by the endpoint), expired, full (max_idle), removed.",
        read: Read::Upstream(|u, to| {
            for close in PoolClose::ALL {
                to.counter(
                    &[close.as_str()],
                    u.cells().sum(|c| c.pool_closes(close).value()),
                );
            }
        }),
    },
    Family {
        name: "isobar_upstream_replays_total",
        kind: Kind::Counter,
        labels: UPSTREAM,
        help: "Requests sent again because a reused connection was dead.",
        read: Read::Upstream(|u, to| to.counter(&[], u.cells().sum(|c| c.replays.value()))),
    },
    Family {
        name: "isobar_upstream_retries_total",
        kind: Kind::Counter,
        labels: &["upstream", "reason"],
        help: "Further attempts, by what was wrong with the one before.",
        read: Read::Upstream(|u, to| {
            for reason in RetryReason::ALL {
                to.counter(
                    &[reason.as_str()],
                    u.cells().sum(|c| c.retries(reason).value()),
                );
            }
        }),
    },
    Family {
        name: "isobar_upstream_retry_budget_refusals_total",
        kind: Kind::Counter,
        labels: UPSTREAM,
        help: "Retries and hedges that were wanted and not in the budget.",
        read: Read::Upstream(|u, to| {
            to.counter(&[], u.cells().sum(|c| c.budget_refusals.value()));
        }),
    },
    Family {
        name: "isobar_upstream_hedges_total",
        kind: Kind::Counter,
        labels: &["upstream", "result"],
        help: "Second attempts beside a first one: those that answered first (won), and the rest (lost).",
        read: Read::Upstream(|u, to| {
            let won = u.cells().sum(|c| c.hedges_won.value());
            let all = u.cells().sum(|c| c.hedges.value());
            to.counter(&["won"], won);
            to.counter(&["lost"], all.saturating_sub(won));
        }),
    },
    Family {
        name: "isobar_upstream_exchanges_total",
        kind: Kind::Counter,
        labels: UPSTREAM,
        help: "Exchanges begun; attempts are counted by endpoint.",
        read: Read::Upstream(|u, to| to.counter(&[], u.cells().sum(|c| c.exchanges.value()))),
    },
    Family {
        name: "isobar_upstream_queue_length",
        kind: Kind::Gauge,
        labels: UPSTREAM,
        help: "Exchanges that wait because every endpoint has its most.",
        read: Read::Upstream(|u, to| to.gauge(&[], gauge_of(u.cells(), |c| &c.queued))),
    },
    Family {
        name: "isobar_upstream_queue_wait_seconds",
        kind: Kind::Histogram,
        labels: UPSTREAM,
        help: "How long exchanges waited for an endpoint with room, of those that got one.",
        read: Read::Upstream(|u, to| to.histogram(&sum_of(u.cells(), |c| &c.queue_wait))),
    },
    Family {
        name: "isobar_upstream_breaker_state",
        kind: Kind::Gauge,
        labels: UPSTREAM,
        help: "0: closed (or there is none); 1: half-open, trials; 2: open.",
        read: Read::Upstream(|u, to| to.gauge(&[], gauge_of(u.cells(), |c| &c.breaker))),
    },
    Family {
        name: "isobar_upstream_breaker_opened_total",
        kind: Kind::Counter,
        labels: UPSTREAM,
        help: "Times the breaker opened.",
        read: Read::Upstream(|u, to| to.counter(&[], u.cells().sum(|c| c.breaker_opened.value()))),
    },
    Family {
        name: "isobar_upstream_breaker_observed_total",
        kind: Kind::Counter,
        labels: UPSTREAM,
        help: "Exchanges that a breaker with mode \"observe\" let pass and \"enforce\" would refuse.",
        read: Read::Upstream(|u, to| {
            to.counter(&[], u.cells().sum(|c| c.breaker_observed.value()));
        }),
    },
    Family {
        name: "isobar_upstream_no_endpoint_total",
        kind: Kind::Counter,
        labels: UPSTREAM,
        help: "Picks that found no endpoint ready.",
        read: Read::Upstream(|u, to| to.counter(&[], u.cells().sum(|c| c.no_endpoint.value()))),
    },
    Family {
        name: "isobar_upstream_failing_open",
        kind: Kind::Gauge,
        labels: UPSTREAM,
        help: "1 while endpoints that are down are used because none is up.",
        read: Read::Upstream(|u, to| to.gauge(&[], gauge_of(u.cells(), |c| &c.failing_open))),
    },
    Family {
        name: "isobar_upstream_failing_closed",
        kind: Kind::Gauge,
        labels: UPSTREAM,
        help: "1 while it has endpoints and none of them is ready: requests are answered 503.",
        read: Read::Upstream(|u, to| to.gauge(&[], gauge_of(u.cells(), |c| &c.failing_closed))),
    },
    // ── endpoints ────────────────────────────────────────────────────────────────────────────
    Family {
        name: "isobar_endpoint_requests_total",
        kind: Kind::Counter,
        labels: &["upstream", "endpoint", "outcome"],
        help: "Attempts by outcome.",
        read: Read::Endpoint(|e, to| {
            for outcome in EndpointOutcome::ALL {
                to.counter(
                    &[outcome.as_str()],
                    e.cells.sum(|c| c.requests(outcome).value()),
                );
            }
        }),
    },
    Family {
        name: "isobar_endpoint_in_flight",
        kind: Kind::Gauge,
        labels: ENDPOINT,
        help: "Exchanges in flight.",
        read: Read::Endpoint(|e, to| to.gauge(&[], e.in_flight())),
    },
    Family {
        name: "isobar_endpoint_connections",
        kind: Kind::Gauge,
        labels: ENDPOINT,
        help: "Connections open, idle ones included.",
        read: Read::Endpoint(|e, to| to.gauge(&[], gauge_of(&e.cells, |c| &c.connections))),
    },
    Family {
        name: "isobar_endpoint_idle_connections",
        kind: Kind::Gauge,
        labels: ENDPOINT,
        help: "Connections idle in the pool.",
        read: Read::Endpoint(|e, to| to.gauge(&[], gauge_of(&e.cells, |c| &c.idle_connections))),
    },
    Family {
        name: "isobar_endpoint_connects_total",
        kind: Kind::Counter,
        labels: ENDPOINT,
        help: "Connections made.",
        read: Read::Endpoint(|e, to| to.counter(&[], e.cells.sum(|c| c.connects.value()))),
    },
    Family {
        name: "isobar_endpoint_sent_bytes_total",
        kind: Kind::Counter,
        labels: ENDPOINT,
        help: "Bytes written to the endpoint, heads included.",
        read: Read::Endpoint(|e, to| to.counter(&[], e.cells.sum(|c| c.sent_bytes.value()))),
    },
    Family {
        name: "isobar_endpoint_received_bytes_total",
        kind: Kind::Counter,
        labels: ENDPOINT,
        help: "Bytes read from the endpoint, heads included.",
        read: Read::Endpoint(|e, to| to.counter(&[], e.cells.sum(|c| c.received_bytes.value()))),
    },
    Family {
        name: "isobar_endpoint_healthy",
        kind: Kind::Gauge,
        labels: ENDPOINT,
        help: "1: active checks found it up; 0: down; absent: it is not checked.",
        read: Read::Endpoint(|e, to| {
            let health = e.cells.control().health.value();
            if health > 0 {
                to.gauge(&[], (health - 1) as f64);
            }
        }),
    },
    Family {
        name: "isobar_endpoint_ejected",
        kind: Kind::Gauge,
        labels: ENDPOINT,
        help: "1 while it is left alone for what requests say of it.",
        read: Read::Endpoint(|e, to| to.gauge(&[], e.cells.control().ejected.value() as f64)),
    },
    Family {
        name: "isobar_endpoint_ejections_total",
        kind: Kind::Counter,
        labels: &["upstream", "endpoint", "result"],
        help: "Times requests spoke against it: it was ejected, or spared (too many are, or mode is \"observe\"); a series begins with its first.",
        read: Read::Endpoint(|e, to| {
            let cells = e.cells.control();
            for (result, count) in [
                ("ejected", &cells.ejections),
                ("spared", &cells.ejections_spared),
            ] {
                if count.value() > 0 {
                    to.counter(&[result], count.value());
                }
            }
        }),
    },
    Family {
        name: "isobar_health_checks_total",
        kind: Kind::Counter,
        labels: &["upstream", "endpoint", "result"],
        help: "Active checks by result; a series begins with its first.",
        read: Read::Endpoint(|e, to| {
            for result in CheckResult::ALL {
                match e.cells.control().checks(result).value() {
                    0 => {}
                    n => to.counter(&[result.as_str()], n),
                }
            }
        }),
    },
    Family {
        name: "isobar_agent_checks_total",
        kind: Kind::Counter,
        labels: &["upstream", "endpoint", "result"],
        help: "Questions to the endpoint's agent by result; a series begins with its first.",
        read: Read::Endpoint(|e, to| {
            for result in CheckResult::ALL {
                match e.cells.control().agent_checks(result).value() {
                    0 => {}
                    n => to.counter(&[result.as_str()], n),
                }
            }
        }),
    },
    // ── the process, under the names every Prometheus client uses ────────────────────────────
    Family {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "User and system CPU time.",
        read: Read::Server(|view, to| {
            if let Some(process) = &view.process {
                to.seconds_total(&[], process.cpu_seconds);
            }
        }),
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Resident memory.",
        read: Read::Server(|view, to| {
            if let Some(process) = &view.process {
                to.gauge(&[], process.resident_bytes as f64);
            }
        }),
    },
    Family {
        name: "process_virtual_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Virtual memory.",
        read: Read::Server(|view, to| {
            if let Some(process) = &view.process {
                to.gauge(&[], process.virtual_bytes as f64);
            }
        }),
    },
    Family {
        name: "process_open_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Open file descriptors.",
        read: Read::Server(|view, to| {
            if let Some(process) = &view.process {
                to.gauge(&[], process.open_fds as f64);
            }
        }),
    },
    Family {
        name: "process_max_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "The limit of open file descriptors; absent when there is none.",
        read: Read::Server(|view, to| {
            if let Some(max) = view.process.as_ref().and_then(|process| process.max_fds) {
                to.gauge(&[], max as f64);
            }
        }),
    },
    Family {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Start of the process, in seconds since 1970.",
        read: Read::Server(|view, to| {
            if let Some(process) = &view.process {
                to.gauge(&[], process.start_time_seconds);
            }
        }),
    },
    Family {
        name: "process_threads",
        kind: Kind::Gauge,
        labels: &[],
        help: "Threads.",
        read: Read::Server(|view, to| {
            if let Some(process) = &view.process {
                to.gauge(&[], process.threads as f64);
            }
        }),
    },
    Family {
        name: "isobar_metrics_series",
        kind: Kind::Gauge,
        labels: &[],
        help: "Samples of this answer, this one not counted.",
        read: Read::Series,
    },
];

fn words(words: &Words, mut show: impl FnMut(&str, u64)) {
    for (word, n) in words.all() {
        show(word, n);
    }
}

/// Whether it is a listener of UDP that was sent something.
fn has_datagrams(cells: &PerWorker<ListenerCells>) -> bool {
    cells.sum(|c| c.received_datagrams.value()) > 0
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Endpoint(_) => "Endpoint",
            Self::Fleet(_) => "Fleet",
            Self::Listener(_) => "Listener",
            Self::Route(_) => "Route",
            Self::Series => "Series",
            Self::Server(_) => "Server",
            Self::Tls(_) => "Tls",
            Self::Upstream(_) => "Upstream",
            Self::Worker(_) => "Worker",
        })
    }
}
