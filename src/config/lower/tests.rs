//! What the keys of health and resilience amount to, word for word.

use std::time::Duration;

use crate::config::{
    Adaptive, Config, FailureRatio, Hedge, LimitKey, Mode, Outlier, Queue, Retry, Route, Upstream,
    parse,
};

fn config(text: &str) -> Config {
    parse("t.toml", text)
        .unwrap_or_else(|p| panic!("{p}\n{text}"))
        .config
}

fn route(keys: &str) -> Route {
    let text =
        format!("[[routes]]\nupstream = 'a'\n{keys}\n[upstreams.a]\nendpoints = ['127.0.0.1:1']\n");
    config(&text).routes.remove(0)
}

fn upstream(keys: &str) -> Upstream {
    let text = format!("[upstreams.a]\nendpoints = ['127.0.0.1:1']\n{keys}\n");
    config(&text).upstreams.remove(0)
}

/// The codes of what is reported for an upstream with these keys.
fn codes(keys: &str) -> Vec<&'static str> {
    let text = format!(
        "[listeners.l]\nbind = ':1'\nupstream = 'a'\n[upstreams.a]\nendpoints = \
         ['127.0.0.1:1']\n{keys}\n"
    );
    match parse("t.toml", &text) {
        Ok(loaded) => loaded.warnings.iter().map(|d| d.code).collect(),
        Err(problems) => problems.diagnostics().iter().map(|d| d.code).collect(),
    }
}

#[test]
fn retries_have_quiet_defaults() {
    assert_eq!(route("").retry, Retry::default());
    assert_eq!(route("retry = {}").retry, Retry::default());
    let off = route("retry = 'off'").retry;
    assert_eq!(off.attempts, 1);
    assert_eq!(off.on, Retry::default().on);
    let timed = route("retry = { per_try_timeout = '2s' }").retry;
    assert!(timed.on.timeout, "a limit of an attempt is for another one");
    assert_eq!(timed.per_try_timeout, Some(Duration::from_secs(2)));
    let said = route("retry = { per_try_timeout = '2s', on = 'connect' }").retry;
    assert!(!said.on.timeout && !said.on.reset && said.on.connect);
}

#[test]
fn conditions_are_sorted_and_said_once() {
    let on = route(
        "retry = { on = ['5xx', 429, '502', 'grpc-unavailable', 'grpc-14', 'grpc-cancelled'] }",
    )
    .retry
    .on;
    assert_eq!(on.statuses, [429, 500, 502, 503, 504]);
    assert_eq!(on.grpc, [1, 14]);
    assert!(!on.connect && !on.reset && !on.timeout);
}

#[test]
fn hedges_go_by_time_or_percentile() {
    let of = |text: &str| {
        route(&format!("retry = {{ hedge_after = '{text}' }}"))
            .retry
            .hedge
    };
    assert_eq!(of("off"), Hedge::Off);
    assert_eq!(of("50ms"), Hedge::After(Duration::from_millis(50)));
    assert_eq!(of("p50"), Hedge::Percentile(50));
    assert_eq!(of("p99"), Hedge::Percentile(99));
}

#[test]
fn rate_limits_are_one_or_several() {
    assert!(route("").rate_limits.is_empty());
    let one = route("rate_limit = { rate = 7 }").rate_limits;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].key, LimitKey::Client);
    assert_eq!((one[0].rate, one[0].burst), (7, 7));
    assert_eq!(one[0].per, Duration::from_secs(1));
    assert_eq!((one[0].mode, one[0].max_keys), (Mode::Enforce, 100_000));
    let two = route(
        "rate_limit = [{ rate = 1, key = 'route' }, { rate = 9, key = 'cookie:sid', burst = 1, \
         mode = 'observe' }]",
    )
    .rate_limits;
    assert_eq!(two[0].key, LimitKey::Route);
    assert_eq!(two[1].key, LimitKey::Cookie("sid".to_owned()));
    assert_eq!((two[1].burst, two[1].mode), (1, Mode::Observe));
}

#[test]
fn limits_hold_where_isobar_answers_itself() {
    let text = "[listeners.l]\nbind = ':1'\n[[routes]]\nrespond = {}\nmax_concurrent = { limit = \
                5, mode = 'observe' }\nrate_limit = { rate = 1 }";
    let loaded = parse("t.toml", text).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, []);
    let max = loaded.config.routes[0].max_concurrent.unwrap();
    assert_eq!((max.limit.get(), max.mode), (5, Mode::Observe));
    assert_eq!(loaded.config.routes[0].rate_limits.len(), 1);
}

#[test]
fn an_upstream_that_says_nothing_only_avoids_what_nobody_reaches() {
    let u = upstream("");
    assert_eq!(u.outlier, Outlier::unconfigured());
    assert_eq!((u.breaker, u.adaptive, u.slow_start), (None, None, None));
    assert_eq!((u.max_connections, u.retry_floor), (None, 10));
    assert_eq!(u.queue, Queue::default());
    assert_eq!(u.endpoints[0].priority, 0);
    assert_eq!(u.endpoints[0].zone, None);
}

#[test]
fn outliers_are_judged_by_what_is_given() {
    let off = upstream("outlier = 'off'").outlier;
    assert_eq!(off, Outlier::off());
    assert_eq!(off.consecutive_connect_failures, None);
    let table = upstream("outlier = {}").outlier;
    let count = |n: Option<std::num::NonZeroU32>| n.map(std::num::NonZeroU32::get);
    assert_eq!(count(table.consecutive_failures), Some(5));
    assert_eq!(count(table.consecutive_connect_failures), Some(3));
    assert_eq!(table.failure_ratio, None);
    let zero = upstream("outlier = { consecutive_failures = 0, failure_ratio = {} }").outlier;
    assert_eq!(zero.consecutive_failures, None);
    let ratio = FailureRatio {
        above: 0.5,
        min_requests: 20,
        window: Duration::from_secs(10),
    };
    assert_eq!(zero.failure_ratio, Some(ratio));
    // What is given moves the default of the other.
    let long = upstream("outlier = { eject_for = '10m' }").outlier;
    assert_eq!(long.max_eject, Duration::from_secs(600));
    let short = upstream("outlier = { max_eject = '3s' }").outlier;
    assert_eq!(short.eject_for, Duration::from_secs(3));
}

#[test]
fn a_breaker_counts_failures_unless_only_limits_are_given() {
    let of = |keys: &str| {
        upstream(&format!("breaker = {{ {keys} }}"))
            .breaker
            .unwrap()
    };
    let plain = of("");
    assert_eq!(plain.failure_ratio.unwrap().min_requests, 50);
    assert_eq!(plain.open_for, Duration::from_secs(5));
    assert_eq!(plain.trials.get(), 3);
    let limits = of("max_in_flight = 9, mode = 'observe'");
    assert_eq!((limits.failure_ratio, limits.mode), (None, Mode::Observe));
    assert_eq!(limits.max_in_flight.unwrap().get(), 9);
    let both = of("max_in_flight = 9, open_for = '1s'");
    assert!((both.failure_ratio.unwrap().above - 0.5).abs() < 1e-9);
    let share = of("failure_ratio = '60%', window = '1m'");
    assert!((share.failure_ratio.unwrap().above - 0.6).abs() < 1e-9);
    assert_eq!(share.failure_ratio.unwrap().window, Duration::from_secs(60));
}

#[test]
fn bounds_of_adaptive_concurrency_make_room_for_each_other() {
    let of = |value: &str| {
        let adaptive = upstream(&format!("adaptive_concurrency = {value}")).adaptive;
        adaptive.map(|Adaptive { min, max }| (min.get(), max.get()))
    };
    assert_eq!(of("false"), None);
    assert_eq!(of("true"), Some((3, 1000)));
    assert_eq!(of("{ max = 2 }"), Some((2, 2)));
    assert_eq!(of("{ min = 5000 }"), Some((5000, 5000)));
}

#[test]
fn what_cannot_matter_is_said() {
    for quiet in [
        "",
        "max_connections = 1\nqueue = {}",
        "adaptive_concurrency = true\nqueue = {}\nbreaker = { max_pending = 1 }",
        "slow_start = '1s'",
    ] {
        assert_eq!(codes(quiet), [""; 0], "{quiet}");
    }
    for idle in [
        "queue = {}",
        "breaker = { max_pending = 1 }",
        "max_connections = 1\nqueue = { length = 1 }\nbreaker = { max_pending = 2 }",
        "slow_start = '1s'\nbalance = 'maglev'",
        "slow_start = '1s'\nbalance = 'first'",
        "outlier = { max_ejected = 0 }",
        "outlier = { consecutive_failures = 0, consecutive_connect_failures = 0 }",
    ] {
        assert_eq!(codes(idle), ["no-effect"], "{idle}");
    }
}

#[test]
fn endpoints_have_tiers_and_zones() {
    let text = "[process]\nzone = 'b'\n[upstreams.a]\nendpoints = ['127.0.0.1:1', { address = \
                '127.0.0.1:2', backup = true }, { address = '127.0.0.1:3', priority = 15, zone = \
                'b' }, { address = '127.0.0.1:4', backup = false }]";
    let config = config(text);
    assert_eq!(config.process.zone.as_deref(), Some("b"));
    let tiers: Vec<_> = config.upstreams[0]
        .endpoints
        .iter()
        .map(|e| (e.priority, e.zone.as_deref()))
        .collect();
    assert_eq!(
        tiers,
        [
            (0, None),
            (crate::config::Endpoint::BACKUP, None),
            (15, Some("b")),
            (0, None)
        ]
    );
}

#[test]
fn a_secret_is_read_and_only_its_path_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "correct horse battery staple";
    std::fs::write(folder.path().join("key"), secret).unwrap();
    let main = folder.path().join("isobar.toml");
    let text = "[listeners.l]\nbind = ':1'\nupstream = 'a'\n[upstreams.a]\nendpoints = \
                ['127.0.0.1:1']\nsticky = { cookie = 'c', secret_file = 'key' }";
    std::fs::write(&main, text).unwrap();
    let loaded = crate::config::load(&main).unwrap_or_else(|p| panic!("{p}"));
    let sticky = loaded.config.upstreams[0].sticky.as_ref().unwrap();
    assert_eq!(sticky.secret_file, Some(folder.path().join("key")));
    let shown = crate::config::effective::effective_toml(&loaded.config);
    assert!(shown.contains("secret_file = ") && !shown.contains(secret));
    assert!(!format!("{loaded:?}").contains(secret));
}
