//! One table of each part of the model.
//!
//! Every struct is taken apart by name, without `..`: a new field of the model does not compile
//! before it stands here.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use toml::{Table, Value};

use crate::balance::{Policy, PolicyKind};
use crate::route::{HostPattern, PathPattern, Rule, ValuePattern};

use super::super::model::{
    AccessFormat, AccessLog, Action, Admin, AgentSpec, BodyPattern, Check, Endpoint, Fleet,
    GrpcCheck, HashKey, HeaderEdits, HealthSpec, HttpCheck, Keepalive, Log, LogTarget, MysqlCheck,
    OnDown, Process, ProxyVersion, Queue, Register, Rewrite, Route, Seed, Sticky, Upstream,
    UpstreamTls, WhenUnhealthy,
};
use super::super::units::format_duration;
use super::{resilience, tls};

/// Puts keys in the order in which they are written.
pub(super) trait Put {
    fn put(&mut self, key: &str, value: impl Into<Value>);

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_list(&mut self, key: &str, values: Vec<Value>) {
        if !values.is_empty() {
            self.put(key, values);
        }
    }

    fn put_table(&mut self, key: &str, table: Table) {
        if !table.is_empty() {
            self.put(key, table);
        }
    }
}

impl Put for Table {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.insert(key.to_owned(), value.into());
    }
}

/// The table `[process]`.
pub(in super::super) fn process(process: &Process) -> Table {
    let Process {
        workers,
        grace,
        user,
        state_dir,
        watch,
        zone,
    } = process;
    let mut table = Table::new();
    table.put(
        "workers",
        workers.map_or(Value::from("auto"), |n| Value::from(n.get() as i64)),
    );
    table.put("grace", duration(*grace));
    table.put_some("user", user.as_deref());
    table.put_some("state_dir", state_dir.as_deref().map(path));
    table.put("watch", *watch);
    table.put_some("zone", zone.as_deref());
    table
}

/// The table `[admin]`.
pub(in super::super) fn admin(admin: &Admin) -> Table {
    let Admin {
        bind,
        socket,
        allow_uids,
    } = admin;
    let mut table = Table::new();
    table.put_some("bind", bind.map(|addr| addr.to_string()));
    table.put_some("socket", socket.as_deref().map(path));
    // An empty list would be an error: it reads like "nobody".
    table.put_some(
        "allow_uids",
        (!allow_uids.is_empty()).then(|| allow_uids.clone()),
    );
    table
}

/// The table `[log]`.
pub(in super::super) fn log(log: &Log) -> Table {
    let Log { level, access } = log;
    let mut table = Table::new();
    table.put("level", level.as_str().to_ascii_lowercase());
    match access {
        None => table.put("access", "off"),
        Some(log) => table.put("access", access_log(log)),
    }
    table
}

/// The table `[fleet]`.
pub(in super::super) fn fleet(fleet: &Fleet) -> Table {
    let Fleet {
        name,
        bind,
        advertise,
        seeds,
        secret_file,
        state_dir,
        zone,
        probers,
        max_remove,
        max_clock_skew,
        register,
    } = fleet;
    let mut table = Table::new();
    table.put("name", &**name);
    table.put("bind", bind.to_string());
    table.put_some("advertise", advertise.map(|addr| addr.to_string()));
    let seeds = seeds.iter().map(|seed| match seed {
        Seed::Addr(addr) => Value::from(addr.to_string()),
        Seed::Dns { name, port } => Value::from(format!("dns:{name}:{port}")),
    });
    table.put("seeds", Value::Array(seeds.collect()));
    table.put("secret_file", path(secret_file));
    table.put_some("state_dir", state_dir.as_deref().map(path));
    table.put_some("zone", zone.as_deref());
    let mut health = Table::new();
    health.put("probers", i64::from(*probers));
    table.put("health", health);
    let mut guard = Table::new();
    guard.put("max_remove", *max_remove);
    guard.put("max_clock_skew", duration(*max_clock_skew));
    table.put("guard", guard);
    table.put_some(
        "register",
        register.as_ref().map(|register| {
            let Register {
                bind,
                token_file,
                max_ttl,
            } = register;
            let mut table = Table::new();
            table.put("bind", bind.to_string());
            table.put("token_file", path(token_file));
            table.put("max_ttl", duration(*max_ttl));
            table
        }),
    );
    table
}

fn access_log(log: &AccessLog) -> Table {
    let AccessLog { format, to, sample } = log;
    let mut table = Table::new();
    let word = match format {
        AccessFormat::Combined => "combined",
        AccessFormat::Common => "common",
        AccessFormat::Json => "json",
        AccessFormat::Text => "text",
    };
    table.put("format", word);
    match to {
        LogTarget::File(file) => table.put("to", path(file)),
        LogTarget::Stderr => table.put("to", "stderr"),
        LogTarget::Stdout => table.put("to", "stdout"),
    }
    table.put("sample", *sample);
    table
}

/// A table `[[routes]]`, without its name.
pub(in super::super) fn route(route: &Route) -> Table {
    let Route {
        name: _,
        rule,
        action,
        timeout,
        rewrite,
        request_headers,
        response_headers,
        retry,
        rate_limits,
        max_concurrent,
    } = route;
    let Rule {
        listeners,
        hosts,
        path,
        methods,
        headers,
        query,
        clients,
    } = rule;
    let mut table = Table::new();
    table.put_list("listeners", texts(listeners));
    table.put_list("host", hosts.iter().map(host).collect());
    match path {
        Some(PathPattern::Exact(path)) => table.put("path", path.as_str()),
        Some(PathPattern::Prefix(path)) => table.put("path", format!("{path}/*")),
        Some(PathPattern::Regex(regex)) => table.put("path_regex", regex.as_str()),
        None => {}
    }
    table.put_list("method", texts(methods));
    table.put_table("header", patterns(headers, HeaderName::as_str));
    table.put_table("query", patterns(query, String::as_str));
    table.put_list("client", texts(clients));
    match action {
        Action::Redirect { to, status } => {
            let mut redirect = Table::new();
            redirect.put("to", to.as_str());
            redirect.put("status", i64::from(status.as_u16()));
            table.put("redirect", redirect);
        }
        Action::Respond {
            status,
            body,
            content_type,
        } => {
            let mut respond = Table::new();
            respond.put("status", i64::from(status.as_u16()));
            respond.put("body", body.as_str());
            respond.put("content_type", field(content_type));
            table.put("respond", respond);
        }
        Action::Split(shares) => {
            let shares = shares.iter().map(|(name, weight)| {
                let mut share = Table::new();
                share.put("upstream", &**name);
                share.put("weight", *weight);
                Value::Table(share)
            });
            table.put("split", Value::Array(shares.collect()));
        }
        Action::Upstream(name) => table.put("upstream", &**name),
    }
    table.put_some("timeout", timeout.map(duration));
    table.put_some("retry", resilience::retry(retry, action));
    table.put_some("rate_limit", resilience::rate_limits(rate_limits, "route"));
    table.put_some(
        "max_concurrent",
        max_concurrent.map(resilience::max_concurrent),
    );
    let Rewrite {
        strip_prefix,
        add_prefix,
        host,
    } = rewrite;
    let mut changes = Table::new();
    changes.put_some("strip_prefix", strip_prefix.as_deref());
    changes.put_some("add_prefix", add_prefix.as_deref());
    changes.put_some("host", host.as_ref().map(field));
    table.put_table("rewrite", changes);
    table.put_table("request_headers", edits(request_headers));
    table.put_table("response_headers", edits(response_headers));
    table
}

/// A table `[upstreams.NAME]`, without its endpoints.
pub(in super::super) fn upstream(upstream: &Upstream) -> Table {
    let Upstream {
        name: _,
        endpoints: _,
        dynamic,
        policy,
        hash_key,
        sticky,
        connect_timeout,
        idle_timeout,
        keepalive,
        health,
        when_unhealthy,
        agent,
        outlier,
        breaker,
        retry_floor,
        max_connections,
        queue,
        adaptive,
        slow_start,
        protocol: _,
        tls,
        max_streams: _,
        send_proxy_protocol,
        on_down,
    } = upstream;
    let mut table = Table::new();
    table.put("dynamic", *dynamic);
    table.put("balance", balance(policy, hash_key));
    if let Some(Sticky {
        cookie,
        secure,
        ttl,
        secret_file,
    }) = sticky
    {
        let mut sticky = Table::new();
        sticky.put("cookie", cookie.as_str());
        sticky.put("secure", *secure);
        sticky.put_some("ttl", ttl.map(duration));
        sticky.put_some("secret_file", secret_file.as_deref().map(path));
        table.put("sticky", sticky);
    }
    tls::upstream(upstream, &mut table);
    table.put_some(
        "send_proxy_protocol",
        send_proxy_protocol.map(|version| match version {
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        }),
    );
    table.put("connect_timeout", duration(*connect_timeout));
    table.put("idle_timeout", duration(*idle_timeout));
    let Keepalive {
        idle_timeout,
        max_idle,
    } = keepalive;
    let mut kept = Table::new();
    kept.put("idle_timeout", duration(*idle_timeout));
    kept.put("max_idle", *max_idle);
    table.put("keepalive", kept);
    table.put_some("max_connections", max_connections.map(NonZeroU32::get));
    // Nobody waits where nothing is limited.
    if max_connections.is_some() || adaptive.is_some() || *queue != Queue::default() {
        table.put("queue", resilience::queue(*queue));
    }
    table.put_some("adaptive_concurrency", adaptive.map(resilience::adaptive));
    table.put_some("slow_start", slow_start.map(duration));
    table.put("outlier", resilience::outlier(outlier));
    table.put_some("breaker", breaker.as_ref().map(resilience::breaker));
    table.put("retry_floor", *retry_floor);
    table.put_some(
        "health",
        health
            .as_deref()
            .map(|health| health_spec(health, tls.as_deref())),
    );
    table.put_some("agent", agent.as_deref().map(agent_spec));
    let word = match when_unhealthy {
        WhenUnhealthy::FailClosed => "fail_closed",
        WhenUnhealthy::FailOpen => "fail_open",
    };
    table.put("when_unhealthy", word);
    // Without checks nobody takes an endpoint down.
    if health.is_some() || agent.is_some() || *on_down != OnDown::Keep {
        let word = match on_down {
            OnDown::Close => "close",
            OnDown::Keep => "keep",
        };
        table.put("on_down", word);
    }
    table
}

fn health_spec(health: &HealthSpec, of_upstream: Option<&UpstreamTls>) -> Table {
    let HealthSpec {
        check,
        interval,
        down_interval,
        timeout,
        rise,
        fall,
        jitter,
        port,
        init_state,
        traffic,
        tls: _,
        // As the upstream's.
        send_proxy_protocol: _,
    } = health;
    let mut table = Table::new();
    table.put("check", check.as_str());
    match check {
        Check::Grpc(GrpcCheck { service, host }) => {
            table.put("service", service.as_str());
            table.put_some("host", host.as_ref().map(field));
        }
        Check::Http(http) => http_check(http, &mut table),
        Check::Mysql(MysqlCheck { user }) => table.put_some("user", user.as_deref()),
        Check::Postgres | Check::Redis | Check::Smtp | Check::Tcp => {}
    }
    table.put("interval", duration(*interval));
    table.put("down_interval", duration(*down_interval));
    table.put("timeout", duration(*timeout));
    table.put("rise", *rise);
    table.put("fall", *fall);
    table.put("jitter", *jitter);
    table.put_some("port", port.map(|port| i64::from(port.get())));
    table.put("init_state", init_state.as_str());
    table.put("traffic", *traffic);
    table.put_some("tls", tls::check_tls(health, of_upstream));
    table
}

fn agent_spec(agent: &AgentSpec) -> Table {
    let AgentSpec {
        port,
        send,
        interval,
        timeout,
        header,
    } = agent;
    let mut table = Table::new();
    if let Some(port) = port {
        table.put("port", i64::from(port.get()));
        table.put_some("send", send.as_deref());
        table.put("interval", duration(*interval));
        table.put("timeout", duration(*timeout));
    }
    table.put_some("header", header.as_ref().map(HeaderName::as_str));
    table
}

fn http_check(check: &HttpCheck, table: &mut Table) {
    let HttpCheck {
        path,
        method,
        host,
        headers,
        status,
        body,
    } = check;
    table.put("path", path.as_str());
    table.put("method", method.as_str());
    table.put_some("host", host.as_ref().map(field));
    let mut fields = Table::new();
    for (name, value) in headers {
        fields.put(name.as_str(), field(value));
    }
    table.put_table("headers", fields);
    let mut expect = Table::new();
    let ranges = status.iter().map(|(low, high)| {
        Value::from(if low == high {
            low.to_string()
        } else {
            format!("{low}-{high}")
        })
    });
    expect.put("status", Value::Array(ranges.collect()));
    expect.put_some(
        "body",
        body.as_ref().map(|body| match body {
            BodyPattern::Contains(text) => text.clone(),
            BodyPattern::Regex(regex) => format!("~{}", regex.as_str()),
        }),
    );
    table.put("expect", expect);
}

/// One of `endpoints`, without its address.
pub(in super::super) fn endpoint(endpoint: &Endpoint) -> Table {
    let Endpoint {
        addr: _,
        weight,
        priority,
        zone,
    } = endpoint;
    let mut table = Table::new();
    table.put("weight", *weight);
    if *priority == Endpoint::BACKUP {
        table.put("backup", true);
    } else {
        table.put("priority", i64::from(*priority));
    }
    table.put_some("zone", zone.as_deref());
    table
}

/// A host, as a file has it.
pub(super) fn host(pattern: &HostPattern) -> Value {
    Value::from(match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(host) => format!("*.{host}"),
    })
}

fn balance(policy: &Policy, hash_key: &HashKey) -> Value {
    let Policy { kind, bounded_load } = policy;
    let (word, hashes) = match kind {
        PolicyKind::RoundRobin => ("round_robin", false),
        PolicyKind::Weighted => ("weighted", false),
        PolicyKind::Random => ("random", false),
        PolicyKind::LeastRequest => ("least_request", false),
        PolicyKind::PeakEwma => ("peak_ewma", false),
        PolicyKind::RingHash => ("ring_hash", true),
        PolicyKind::Maglev => ("maglev", true),
        PolicyKind::Rendezvous => ("rendezvous", true),
        PolicyKind::First => ("first", false),
    };
    if !hashes {
        return Value::from(word);
    }
    let mut table = Table::new();
    table.put("policy", word);
    let key = match hash_key {
        HashKey::Client => "client".to_owned(),
        HashKey::Cookie(name) => format!("cookie:{name}"),
        HashKey::Header(name) => format!("header:{name}"),
        HashKey::Host => "host".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Query(name) => format!("query:{name}"),
    };
    table.put("key", key);
    table.put_some("bounded_load", *bounded_load);
    Value::Table(table)
}

/// `header` and `query`. The names of header fields may come again in another case.
fn patterns<N>(all: &[(N, ValuePattern)], name: impl Fn(&N) -> &str) -> Table {
    let mut table = Table::new();
    for (key, pattern) in all {
        let text = match pattern {
            ValuePattern::Exact(text) => text.clone(),
            ValuePattern::Present => String::new(),
            ValuePattern::Regex(regex) => format!("~{}", regex.as_str()),
        };
        let mut spelling = name(key).to_owned();
        for number in 1u32.. {
            if !table.contains_key(&spelling) {
                break;
            }
            spelling = respelt(name(key), number);
        }
        table.put(&spelling, text);
    }
    table
}

/// The name with those letters in upper case whose bits are set in `number`.
fn respelt(name: &str, number: u32) -> String {
    let mut letters = 0;
    let respell = |c: char| {
        let upper = c.is_ascii_alphabetic() && number >> letters & 1 == 1;
        letters = (letters + u32::from(c.is_ascii_alphabetic())).min(u32::BITS - 1);
        if upper { c.to_ascii_uppercase() } else { c }
    };
    name.chars().map(respell).collect()
}

fn edits(edits: &HeaderEdits) -> Table {
    let HeaderEdits { set, add, remove } = edits;
    let mut table = Table::new();
    table.put_list("remove", texts(remove));
    let mut fields = Table::new();
    for (name, value) in set {
        fields.put(name.as_str(), field(value));
    }
    table.put_table("set", fields);
    let mut fields = Table::new();
    for (name, value) in add {
        let slot = fields
            .entry(name.as_str())
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = slot {
            values.push(Value::from(field(value)));
        }
    }
    table.put_table("add", fields);
    table
}

pub(super) fn duration(duration: Duration) -> String {
    format_duration(duration)
}

pub(super) fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A field value; those of the loader are ASCII.
fn field(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

pub(super) fn texts<T: ToString>(all: &[T]) -> Vec<Value> {
    all.iter().map(|t| Value::from(t.to_string())).collect()
}
