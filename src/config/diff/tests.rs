//! Plans: what is found, and how it is shown.

use serde_json::{Value as Json, json};

use super::super::parse;
use super::*;

const BASE: &str = "
    [listeners.web]
    bind = ':8080'
    [listeners.internal]
    bind = ['127.0.0.1:81', '127.0.0.1:82']
    upstream = 'app'
    [[routes]]
    name = 'api'
    path = '/api/*'
    upstream = 'app'
    [[routes]]
    path = '/'
    redirect = { to = '/api' }
    [upstreams.app]
    endpoints = ['10.0.0.1:80', '10.0.0.2:80']
";

/// Beside the reference, whose `ca` is there.
const NAME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/t.toml");

fn config(text: &str) -> Config {
    parse(NAME, text)
        .unwrap_or_else(|p| panic!("{p}\n{text}"))
        .config
}

/// The plan from [`BASE`] to it with each `(from, to)` replaced.
fn plan(edits: &[(&str, &str)]) -> Diff {
    let mut text = BASE.to_owned();
    for (from, to) in edits {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replace(from, to);
    }
    diff(&config(BASE), &config(&text))
}

fn between(old: &str, new: &str) -> Diff {
    diff(&config(old), &config(new))
}

/// What is shown below the summary.
fn lines(diff: &Diff) -> Vec<String> {
    let text = diff.to_string();
    text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn equal_configurations_need_nothing() {
    let same = plan(&[]);
    assert!(same.is_empty());
    assert_eq!(same.changes().count(), 0);
    assert_eq!(same.to_string(), "plan: nothing changes; 11 unchanged");
    let every_file = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).unwrap();
    for entry in every_file {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let same = between(&text, &text);
            assert!(same.is_empty(), "{}: {same}", path.display());
        }
    }
}

#[test]
fn a_plan_reads_like_this() {
    let mut plan = plan(&[
        (
            "bind = ':8080'",
            "bind = ':8080'\nmax_connections = 30000\nforwarding = { via = 'a' }",
        ),
        (
            "'10.0.0.1:80', '10.0.0.2:80'",
            "{ address = '10.0.0.1:80', weight = 3 }, '10.0.0.4:80', '10.0.0.3:80'",
        ),
        ("path = '/'\n", "path = '/old'\n"),
    ]);
    plan.with_connections(&mut |object| {
        assert!(
            matches!(object, Object::Endpoint { .. } | Object::Route { .. }),
            "{object:?}"
        );
        matches!(object, Object::Endpoint { .. }).then_some(12)
    });
    let expected = "\
plan: 1 listener changed, 1 route added, 1 removed, 1 endpoint changed, 2 added, 1 drained; 7 unchanged
  ~ listener web               max_connections: 20000 -> 30000
                               forwarding.via: none -> a
  + route /old
  - route /
  ~ endpoint app 10.0.0.1:80   weight: 1 -> 3
  + endpoint app 10.0.0.4:80
  + endpoint app 10.0.0.3:80
  - endpoint app 10.0.0.2:80   drains 12 connections";
    assert_eq!(plan.to_string(), expected);
    assert_eq!(
        plan.summary(),
        "1 listener changed, 1 route added, 1 removed, 1 endpoint changed, 2 added, 1 drained; 7 unchanged"
    );
    let everything = plan.render(Verbosity::Everything).to_string();
    assert!(
        everything.contains("\n  = listener internal\n"),
        "{everything}"
    );
    assert_eq!(everything.lines().count(), 16);
}

#[test]
fn items_are_of_the_new_order_and_removed_ones_last() {
    let plan = between(
        "[upstreams.a]\nendpoints = ['10.0.0.1:1']\n[upstreams.b]\nendpoints = ['10.0.0.1:1']\n[upstreams.c]\nendpoints = ['10.0.0.1:1']",
        "[upstreams.d]\nendpoints = ['10.0.0.1:1']\n[upstreams.c]\nendpoints = ['10.0.0.1:1']",
    );
    let upstreams: Vec<_> = plan
        .items
        .iter()
        .filter_map(|item| match &item.object {
            Object::Upstream { name } => Some((&**name, item.change.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(
        upstreams,
        [
            ("d", Change::Added),
            ("c", Change::Unchanged),
            ("a", Change::Removed),
            ("b", Change::Removed)
        ]
    );
    let counts = plan.counts();
    let expected = Counts {
        added: 1,
        removed: 2,
        unchanged: 1,
        ..Counts::default()
    };
    assert_eq!(
        (counts[&Kind::Upstream], counts[&Kind::Endpoint]),
        (expected, expected)
    );
}

#[test]
fn a_listener_with_another_name_is_another_listener() {
    let plan = plan(&[("[listeners.web]", "[listeners.front]")]);
    assert_eq!(
        lines(&plan),
        ["  + listener front", "  - listener web     drains"]
    );
}

#[test]
fn addresses_of_a_listener_are_told_apart() {
    let mut plan = plan(&[(
        "bind = ['127.0.0.1:81', '127.0.0.1:82']",
        "bind = ['127.0.0.1:83', '127.0.0.1:82']\nmax_headers = 50",
    )]);
    plan.with_connections(&mut |_| Some(1));
    assert_eq!(
        lines(&plan),
        [
            "  ~ listener internal   binds 127.0.0.1:83",
            "                        keeps 127.0.0.1:82",
            "                        leaves 127.0.0.1:81",
            "                        drains 1 connection",
            "                        max_headers: 100 -> 50",
        ]
    );
    let Change::Rebind { from, to, .. } = &plan.changes().next().unwrap().change else {
        panic!("{plan}");
    };
    assert_eq!((from.len(), to.len()), (2, 2));
}

#[test]
fn another_order_of_addresses_binds_nothing() {
    let plan = plan(&[(
        "['127.0.0.1:81', '127.0.0.1:82']",
        "['127.0.0.1:82', '127.0.0.1:81']",
    )]);
    let change = &plan.changes().next().unwrap().change;
    assert!(matches!(change, Change::Changed { .. }), "{change:?}");
}

#[test]
fn an_added_address_drains_nothing() {
    let mut plan = plan(&[("bind = ':8080'", "bind = [':8080', ':8081']")]);
    plan.with_connections(&mut |object| panic!("{object:?} loses nothing"));
    assert_eq!(
        lines(&plan),
        [
            "  ~ listener web   keeps :8080",
            "                   binds :8081"
        ]
    );
}

#[test]
fn what_a_process_cannot_change_needs_a_restart() {
    let new = "
        [process]
        workers = 4
        user = 'www'
        state_dir = '/s'
        grace = '10s'
        watch = true
        [admin]
        bind = '127.0.0.1:9'
        socket = '/a.sock'
        allow_uids = [7]
        [log]
        level = 'debug'
        access = { to = 'stderr' }
    ";
    let plan = between("", new);
    assert_eq!(
        plan.summary(),
        "process changed, needing a restart, admin changed, needing a restart, log changed"
    );
    assert_eq!(
        lines(&plan),
        [
            "  ~ process   grace: 30s -> 10s",
            "              watch: false -> true",
            "  ! process   workers: auto -> 4 (needs a restart)",
            "              user: none -> www (needs a restart)",
            "              state_dir: none -> /s (needs a restart)",
            "  ~ admin     allow_uids: none -> [7]",
            "  ! admin     bind: none -> 127.0.0.1:9 (needs a restart)",
            "              socket: none -> /a.sock (needs a restart)",
            "  ~ log       level: info -> debug",
            "              access: off -> { format = json, to = stderr, sample = 1.0 }",
        ]
    );
}

#[test]
fn an_upstream_and_its_endpoints_are_things_apart() {
    let added = plan(&[("'10.0.0.2:80'", "'10.0.0.2:80', '10.0.0.3:80'")]);
    assert_eq!(lines(&added), ["  + endpoint app 10.0.0.3:80"]);
    let policy = plan(&[(
        "endpoints = [",
        "balance = { policy = 'maglev', key = 'path' }\ndynamic = true\nendpoints = [",
    )]);
    assert_eq!(
        lines(&policy),
        [
            "  ~ upstream app   dynamic: false -> true",
            "                   balance: least_request -> { policy = maglev, key = path }",
        ]
    );
    let gone = between("[upstreams.a]\nendpoints = ['unix:/a']", "");
    assert_eq!(
        lines(&gone),
        ["  - upstream a", "  - endpoint a unix:/a   drains"]
    );
}

#[test]
fn the_order_of_endpoints_that_stay_is_told() {
    let old = "[upstreams.a]\nendpoints = ['10.0.0.1:1', '10.0.0.2:1', '10.0.0.3:1', '10.0.0.4:1', '10.0.0.5:1', '10.0.0.6:1']";
    let new = "[upstreams.a]\nendpoints = ['10.0.0.1:1', '10.0.0.3:1', '10.0.0.9:1', '10.0.0.2:1', '10.0.0.4:1', '10.0.0.5:1']";
    assert_eq!(
        lines(&between(old, new)),
        [
            "  ~ upstream a              endpoints.order: 10.0.0.2:1, 10.0.0.3:1, 10.0.0.4:1, … -> 10.0.0.3:1, 10.0.0.2:1, 10.0.0.4:1, …",
            "  + endpoint a 10.0.0.9:1",
            "  - endpoint a 10.0.0.6:1   drains",
        ]
    );
    // One in front of others, or gone from among them, turns nothing round.
    let less = "[upstreams.a]\nendpoints = ['10.0.0.8:1', '10.0.0.1:1', '10.0.0.3:1', '10.0.0.4:1', '10.0.0.5:1', '10.0.0.6:1']";
    assert_eq!(
        lines(&between(old, less)),
        [
            "  + endpoint a 10.0.0.8:1",
            "  - endpoint a 10.0.0.2:1   drains",
        ]
    );
}

#[test]
fn keys_of_routes_are_compared_one_by_one() {
    let plan = plan(&[(
        "path = '/api/*'\n    upstream = 'app'",
        "path_regex = '^/api'\nheader = { x-a = '~b c', x-b = '' }\nrespond = { body = \"a\\n\\u001b\" }",
    )]);
    assert_eq!(
        lines(&plan),
        [
            "  ~ route api   path_regex: none -> ^/api",
            "                header: none -> { x-a = \"~b c\", x-b = \"\" }",
            "                respond: none -> { status = 200, body = \"a\\n\\u{1b}\", content_type = \"text/plain; charset=utf-8\" }",
            "                path: /api/* -> none",
            "                upstream: app -> none",
            "                retry: { attempts = 3, on = [connect, reset], budget = 0.2, hedge_after = off, body = 64KiB } -> none",
        ]
    );
}

#[test]
fn limits_and_tiers_are_compared_key_by_key() {
    let route = plan(&[(
        "path = '/api/*'",
        "path = '/api/*'\nretry = { attempts = 2, on = ['connect', 502] }\nrate_limit = { rate = 5 }\nmax_concurrent = 7",
    )]);
    assert_eq!(
        lines(&route),
        [
            "  ~ route api   retry.attempts: 3 -> 2",
            "                retry.on: [connect, reset] -> [connect, 502]",
            "                rate_limit: none -> { key = client, rate = 5, per = 1s, burst = 5, mode = enforce, max_keys = 100000 }",
            "                max_concurrent: none -> 7",
        ]
    );
    let upstream = plan(&[
        (
            "endpoints = [",
            "outlier = { consecutive_connect_failures = 4 }\nbreaker = { max_in_flight = 9 }\nretry_floor = 1\nmax_connections = 3\nendpoints = [",
        ),
        (
            "'10.0.0.1:80',",
            "{ address = '10.0.0.1:80', backup = true },",
        ),
    ]);
    assert_eq!(
        lines(&upstream),
        [
            "  ~ upstream app               max_connections: none -> 3",
            "                               queue: none -> { length = 1000, timeout = 2s }",
            "                               outlier.consecutive_failures: 0 -> 5",
            "                               outlier.consecutive_connect_failures: 3 -> 4",
            "                               breaker: none -> { max_in_flight = 9, mode = enforce }",
            "                               retry_floor: 10 -> 1",
            "  ~ endpoint app 10.0.0.1:80   backup: none -> true",
            "                               priority: 0 -> none",
        ]
    );
    assert_eq!(
        lines(&between("", "[process]\nzone = 'a'")),
        ["  ~ process   zone: none -> a"]
    );
}

#[test]
fn long_values_are_cut() {
    let route = |body: &str| format!("[[routes]]\nname = 'a'\nrespond = {{ body = '{body}' }}");
    let plan = between(&route("x"), &route(&"y".repeat(10_000)));
    let line = &lines(&plan)[0];
    assert!(line.ends_with("yyy… (10000 characters)"), "{line}");
    assert!(line.len() < 200, "{line}");
}

/// Routes `a` and `b` with these matchers, in one order and in the other.
fn swapped(a: &str, b: &str) -> Diff {
    let route = |name: &str, matchers: &str| {
        format!("[[routes]]\nname = '{name}'\n{matchers}\nrespond = {{}}\n")
    };
    let listeners = "[listeners.l]\nbind = ':1'\n[listeners.m]\nbind = ':2'\n";
    between(
        &(listeners.to_owned() + &route("a", a) + &route("b", b)),
        &(listeners.to_owned() + &route("b", b) + &route("a", a)),
    )
}

#[test]
fn an_order_of_routes_that_decides_is_told_once() {
    for (a, b) in [
        ("", ""),
        ("path = '/a'", "path = '/a'"),
        ("path_regex = '^/a'", "path_regex = 'b$'"),
        ("host = ['x', 'y']", "host = ['y', 'z']"),
        ("header = { a = '1' }", "header = { b = '1' }"),
        ("method = ['GET', 'PUT']", "method = 'GET'"),
        ("listeners = 'l'", ""),
        (
            "client = ['10.0.0.0/8', '11.0.0.0/8']",
            "client = '10.0.0.0/8'",
        ),
    ] {
        let plan = swapped(a, b);
        assert_eq!(
            plan.summary(),
            "route order changed; 7 unchanged",
            "{a} | {b}"
        );
        assert_eq!(
            lines(&plan),
            ["  ~ route order   a before b -> b before a"],
            "{a} | {b}"
        );
    }
    let many: Vec<_> = (0..20)
        .map(|i| format!("[[routes]]\nname = 'r{i}'\nrespond = {{}}\n"))
        .collect();
    let back: String = many.iter().rev().cloned().collect();
    assert_eq!(between(&many.concat(), &back).changes().count(), 1);
}

#[test]
fn an_order_of_routes_that_decides_nothing_is_no_change() {
    for (a, b) in [
        ("path = '/a'", "path = '/b'"),
        ("path = '/a'", "path = '/a/*'"),
        ("host = 'x'", "host = 'y'"),
        ("host = 'x'", ""),
        ("header = { a = '1' }", ""),
        ("method = 'GET'", "method = 'PUT'"),
        ("method = 'GET'", ""),
        ("listeners = 'l'", "listeners = 'm'"),
        ("client = '10.0.0.0/8'", "client = '10.0.0.0/9'"),
        ("client = '10.0.0.0/8'", ""),
    ] {
        let plan = swapped(a, b);
        assert!(plan.is_empty(), "{a} | {b}: {plan}");
    }
}

#[test]
fn a_huge_group_in_another_order_is_told_without_counting_it_out() {
    // No two of them share a method: every pair would have to be looked at to know that.
    let route = |i: usize| format!("[[routes]]\nname = 'r{i}'\nmethod = 'M{i}'\nrespond = {{}}\n");
    let small = |n: usize, back: bool| -> String {
        if back {
            (0..n).rev().map(route).collect()
        } else {
            (0..n).map(route).collect()
        }
    };
    assert!(between(&small(20, false), &small(20, true)).is_empty());
    let plan = between(&small(500, false), &small(500, true));
    assert_eq!(plan.summary(), "route order changed; 503 unchanged");
}

#[test]
fn the_order_of_listeners_and_upstreams_means_nothing() {
    let one =
        "[listeners.a]\nbind = ':1'\nupstream = 'x'\n[upstreams.x]\nendpoints = ['10.0.0.1:1']\n";
    let two =
        "[listeners.b]\nbind = ':2'\nupstream = 'y'\n[upstreams.y]\nendpoints = ['10.0.0.1:1']\n";
    let (old, new) = (
        config(&(one.to_owned() + two)),
        config(&(two.to_owned() + one)),
    );
    assert_ne!(old, new);
    assert!(diff(&old, &new).is_empty());
}

#[test]
fn programs_read_stable_names() {
    let mut plan = plan(&[
        ("bind = ':8080'", "bind = ':8081'"),
        ("name = 'api'", "name = 'api'\ntimeout = '5s'"),
        ("'10.0.0.1:80', ", ""),
    ]);
    plan.with_connections(&mut |_| Some(3));
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(
        json["items"],
        json!([
            {
                "kind": "listener", "name": "web", "change": "rebind",
                "from": [":8080"], "to": [":8081"],
                "addresses": [
                    { "address": ":8081", "change": "added" },
                    { "address": ":8080", "change": "removed" },
                ],
                "what": [], "connections": 3,
            },
            {
                "kind": "route", "name": "api", "change": "changed",
                "what": [{ "path": "timeout", "old": null, "new": "5s" }], "connections": null,
            },
            {
                "kind": "endpoint", "upstream": "app", "address": "10.0.0.1:80",
                "change": "removed", "connections": 3,
            },
        ])
    );
    assert_eq!(
        json["counts"]["endpoint"],
        json!({ "added": 0, "changed": 0, "needs_restart": 0, "rebind": 0, "removed": 1, "unchanged": 1 })
    );
    let everything = serde_json::to_value(plan.render(Verbosity::Everything)).unwrap();
    let items = everything["items"].as_array().map(Vec::len);
    assert_eq!(items, Some(plan.items.len()));
    assert_eq!(everything["items"][0]["change"], Json::from("unchanged"));
    let restart = between("", "[process]\nworkers = 1");
    let restart = serde_json::to_value(&restart).unwrap();
    assert_eq!(restart["items"][0]["change"], "needs_restart");
    assert_eq!(restart["items"][0]["kind"], "process");
}

/// Whatever differs in the model is told: no part of it is forgotten.
#[test]
fn every_key_of_the_reference_makes_a_difference() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/isobar.toml");
    let text = std::fs::read_to_string(folder).unwrap();
    let old = config(&text);
    let mut tried = 0;
    for (number, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        // Another value of the same form, or none at all.
        let other = match value {
            "true" => format!("{key} = false"),
            "false" => format!("{key} = true"),
            v if v.parse::<u64>().is_ok() => format!("{key} = {}", v.parse::<u64>().unwrap() - 1),
            _ => String::new(),
        };
        let edited: Vec<_> = text
            .lines()
            .enumerate()
            .map(|(n, l)| if n == number { &*other } else { l })
            .collect();
        let Ok(loaded) = parse(NAME, &edited.join("\n")) else {
            continue;
        };
        tried += 1;
        assert_eq!(
            diff(&old, &loaded.config).is_empty(),
            old == loaded.config,
            "{line}"
        );
    }
    assert!(tried > 40, "{tried}");
}
