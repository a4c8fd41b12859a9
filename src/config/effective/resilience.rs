//! The tables of what is tried again, limited and given a rest.

use std::num::NonZeroU32;

use toml::{Table, Value};

use super::super::lower::GRPC;
use super::super::model::{
    Action, Adaptive, Breaker, FailureRatio, Hedge, LimitKey, MaxConcurrent, Mode, Outlier, Queue,
    RateLimit, Retry, RetryOn,
};
use super::super::units::{format_duration, format_size};
use super::tables::Put as _;

/// `retry`; `None` where no endpoint is asked and nothing was said.
pub(super) fn retry(retry: &Retry, action: &Action) -> Option<Value> {
    let asks = match action {
        Action::Split(_) | Action::Upstream(_) => true,
        Action::Redirect { .. } | Action::Respond { .. } => false,
    };
    if !asks && *retry == Retry::default() {
        return None;
    }
    let Retry {
        attempts,
        on,
        budget,
        per_try_timeout,
        hedge,
        body,
    } = retry;
    let off = Retry {
        attempts: 1,
        ..Retry::default()
    };
    if *retry == off {
        return Some(Value::from("off"));
    }
    let mut table = Table::new();
    table.put("attempts", *attempts);
    table.put("on", retry_on(on));
    table.put("budget", *budget);
    table.put_some("per_try_timeout", per_try_timeout.map(format_duration));
    let after = match hedge {
        Hedge::After(after) => format_duration(*after),
        Hedge::Percentile(percentile) => format!("p{percentile}"),
        Hedge::Off => "off".to_owned(),
    };
    table.put("hedge_after", after);
    table.put("body", format_size(*body as u64));
    Some(Value::Table(table))
}

fn retry_on(on: &RetryOn) -> Vec<Value> {
    let RetryOn {
        connect,
        reset,
        timeout,
        statuses,
        grpc,
    } = on;
    let mut words = Vec::new();
    for (word, on) in [("connect", connect), ("reset", reset), ("timeout", timeout)] {
        if *on {
            words.push(Value::from(word));
        }
    }
    words.extend(statuses.iter().map(|s| Value::from(s.to_string())));
    words.extend(grpc.iter().map(|code| {
        let word = GRPC.iter().find(|(_, known)| known == code);
        word.map_or_else(
            || Value::from(format!("grpc-{code}")),
            |(word, _)| Value::from(*word),
        )
    }));
    words
}

/// `rate_limit`: one as a table, several as a list; `all` is the key that counts everybody together.
pub(super) fn rate_limits(limits: &[RateLimit], all: &str) -> Option<Value> {
    match limits {
        [] => None,
        [limit] => Some(Value::Table(rate_limit(limit, all))),
        limits => {
            let limits = limits
                .iter()
                .map(|limit| Value::Table(rate_limit(limit, all)));
            Some(Value::Array(limits.collect()))
        }
    }
}

fn rate_limit(limit: &RateLimit, all: &str) -> Table {
    let RateLimit {
        key,
        rate,
        per,
        burst,
        mode,
        max_keys,
    } = limit;
    let mut table = Table::new();
    let word = match key {
        LimitKey::Client => "client".to_owned(),
        LimitKey::Cookie(name) => format!("cookie:{name}"),
        LimitKey::Header(name) => format!("header:{name}"),
        LimitKey::Route => all.to_owned(),
    };
    table.put("key", word);
    table.put("rate", *rate);
    table.put("per", format_duration(*per));
    table.put("burst", *burst);
    table.put("mode", mode_word(*mode));
    table.put("max_keys", *max_keys);
    table
}

/// `max_concurrent`
pub(super) fn max_concurrent(max: MaxConcurrent) -> Value {
    let MaxConcurrent { limit, mode } = max;
    match mode {
        Mode::Enforce => Value::from(limit.get()),
        Mode::Observe => {
            let mut table = Table::new();
            table.put("limit", limit.get());
            table.put("mode", mode_word(mode));
            Value::Table(table)
        }
    }
}

/// `queue`
pub(super) fn queue(queue: Queue) -> Table {
    let Queue { length, timeout } = queue;
    let mut table = Table::new();
    table.put("length", length);
    table.put("timeout", format_duration(timeout));
    table
}

/// `adaptive_concurrency`
pub(super) fn adaptive(adaptive: Adaptive) -> Table {
    let Adaptive { min, max } = adaptive;
    let mut table = Table::new();
    table.put("min", min.get());
    table.put("max", max.get());
    table
}

/// `outlier`
pub(super) fn outlier(outlier: &Outlier) -> Value {
    if *outlier == Outlier::off() {
        return Value::from("off");
    }
    let Outlier {
        consecutive_failures,
        consecutive_connect_failures,
        failure_ratio,
        eject_for,
        max_eject,
        max_ejected,
        mode,
    } = outlier;
    let mut table = Table::new();
    let or_zero = |count: &Option<NonZeroU32>| count.map_or(0, NonZeroU32::get);
    table.put("consecutive_failures", or_zero(consecutive_failures));
    let connect = or_zero(consecutive_connect_failures);
    table.put("consecutive_connect_failures", connect);
    if let Some(FailureRatio {
        above,
        min_requests,
        window,
    }) = failure_ratio
    {
        let mut ratio = Table::new();
        ratio.put("above", *above);
        ratio.put("min_requests", *min_requests);
        ratio.put("window", format_duration(*window));
        table.put("failure_ratio", ratio);
    }
    table.put("eject_for", format_duration(*eject_for));
    table.put("max_eject", format_duration(*max_eject));
    table.put("max_ejected", *max_ejected);
    table.put("mode", mode_word(*mode));
    Value::Table(table)
}

/// `breaker`. What opens and closes it by failures is left out where it does not count them: given,
/// it would.
pub(super) fn breaker(breaker: &Breaker) -> Table {
    let Breaker {
        failure_ratio,
        open_for,
        trials,
        max_pending,
        max_in_flight,
        mode,
    } = breaker;
    let mut table = Table::new();
    if let Some(FailureRatio {
        above,
        min_requests,
        window,
    }) = failure_ratio
    {
        table.put("failure_ratio", *above);
        table.put("min_requests", *min_requests);
        table.put("window", format_duration(*window));
        table.put("open_for", format_duration(*open_for));
        table.put("trials", trials.get());
    }
    table.put_some("max_pending", max_pending.map(u32::from));
    table.put_some("max_in_flight", max_in_flight.map(u32::from));
    table.put("mode", mode_word(*mode));
    table
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}
