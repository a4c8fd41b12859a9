//! The loader as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::*;

/// The files that come with isobar load without a word.
#[test]
fn every_sample_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let loaded = load(&path).unwrap_or_else(|p| panic!("{p}"));
            // git keeps no mode that would hide the key of the examples.
            let unexpected = loaded.warnings.iter().filter(|w| w.code != "key-readable");
            let warnings: Vec<_> = unexpected.map(ToString::to_string).collect();
            assert!(warnings.is_empty(), "{}", warnings.join("\n"));
            seen += 1;
        }
    }
    assert!(seen >= 1);
}

#[test]
fn smallest_useful_file() {
    let text = "
        [listeners.web]
        bind = ':8080'
        upstream = 'app'
        [upstreams.app]
        endpoints = ['127.0.0.1:3000', '127.0.0.1:3001']
    ";
    let loaded = parse("isobar.toml", text).unwrap_or_else(|p| panic!("{p}"));
    assert!(loaded.warnings.is_empty());
    let config = loaded.config;
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(&*config.routes[0].name, "web");
    assert_eq!(config.routes[0].action, Action::Upstream("app".into()));
    assert_eq!(config.upstreams[0].endpoints.len(), 2);
}

#[test]
fn listeners_and_upstreams_keep_file_order() {
    let text = "
        [listeners.z]
        bind = ':1'
        upstream = 'b'
        [listeners.a]
        bind = ':2'
        upstream = 'a'
        [upstreams.b]
        endpoints = ['127.0.0.1:1']
        [upstreams.a]
        endpoints = ['127.0.0.1:1']
    ";
    let config = parse("t", text).unwrap_or_else(|p| panic!("{p}")).config;
    let names: Vec<_> = config.listeners.iter().map(|l| &*l.name).collect();
    assert_eq!(names, ["z", "a"]);
    assert_eq!(&*config.upstreams[0].name, "b");
}

#[test]
fn live_settings_have_quiet_defaults() {
    let config = parse("t", "").unwrap_or_else(|p| panic!("{p}")).config;
    assert_eq!(
        (&config.process.user, &config.process.state_dir),
        (&None, &None)
    );
    assert!(!config.process.watch);
    assert_eq!(config.admin.socket, None);
    assert_eq!(config.admin.allow_uids, [0u32; 0]);
}

#[test]
fn live_settings_are_read() {
    let text = "
        [process]
        user = 'isobar'
        state_dir = 'state'
        watch = true
        [admin]
        socket = 'run/admin.sock'
        allow_uids = [0, 1000]
        [listeners.web]
        bind = ':8080'
        upstream = 'shared'
        [upstreams.shared]
        dynamic = true
        endpoints = []
    ";
    let loaded = parse("etc/isobar.toml", text).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.warnings, []);
    let Config { process, admin, .. } = &loaded.config;
    assert_eq!(process.user.as_deref(), Some("isobar"));
    assert_eq!(process.state_dir.as_deref(), Some(Path::new("etc/state")));
    assert!(process.watch);
    assert_eq!(
        admin.socket.as_deref(),
        Some(Path::new("etc/run/admin.sock"))
    );
    assert_eq!(admin.allow_uids, [0, 1000]);
    assert!(loaded.config.upstreams[0].dynamic);
}

#[test]
fn health_has_the_defaults_of_the_reference() {
    let of = |health: &str| {
        let text = format!(
            "[listeners.a]\nbind = ':1'\nupstream = 'a'\n[upstreams.a]\nendpoints = \
             ['127.0.0.1:1']\nhealth = {{ {health} }}"
        );
        let config = parse("t.toml", &text).unwrap_or_else(|p| panic!("{p}"));
        HealthSpec::clone(config.config.upstreams[0].health.as_ref().unwrap())
    };
    let tcp = of("check = 'tcp'");
    assert_eq!(tcp.check, Check::Tcp);
    assert_eq!(tcp.interval, Duration::from_secs(2));
    assert_eq!(tcp.down_interval, tcp.interval);
    assert_eq!(tcp.timeout, Duration::from_secs(1));
    assert_eq!((tcp.rise, tcp.fall, tcp.jitter), (2, 3, 0.2));
    assert_eq!((tcp.port, tcp.init_state), (None, InitState::Up));
    let quick = of("check = 'http', interval = '50ms'");
    assert_eq!(quick.timeout, quick.interval, "never longer than it");
    let Check::Http(http) = quick.check else {
        panic!("{quick:?}");
    };
    assert_eq!((&*http.path, http.method.as_str()), ("/", "GET"));
    assert_eq!((http.status, http.body), (vec![(200, 399)], None));
    let pattern = of("check = 'http', expect = { status = '204', body = '~^ok' }");
    let Check::Http(http) = pattern.check else {
        panic!("{pattern:?}");
    };
    assert_eq!(http.status, [(204, 204)]);
    assert!(matches!(http.body, Some(BodyPattern::Regex(r)) if r.as_str() == "^ok"));
}

#[test]
fn checks_begin_with_the_header_of_their_upstream_but_at_a_port_of_their_own() {
    let of = |health: &str| {
        let text = format!(
            "[listeners.a]\nbind = ':1'\nupstream = 'a'\n[upstreams.a]\nendpoints = \
             ['127.0.0.1:1']\nsend_proxy_protocol = 'v1'\nhealth = {{ {health} }}"
        );
        let config = parse("t.toml", &text).unwrap_or_else(|p| panic!("{p}"));
        let health = config.config.upstreams[0].health.as_ref().unwrap();
        health.send_proxy_protocol
    };
    assert_eq!(of("check = 'tcp'"), Some(ProxyVersion::V1));
    assert_eq!(of("check = 'tcp', port = 9000"), None);
}

#[test]
fn equal_texts_are_equal_configurations() {
    let of = |text: &str| parse("t", text).unwrap_or_else(|p| panic!("{p}")).config;
    let text = sample("routes.toml");
    assert_eq!(of(&text), of(&text));
    let regex = "[[routes]]\npath_regex = '^/a$'\nheader = { x = '~b' }\nrespond = {}";
    assert_eq!(of(regex), of(regex));
    assert_ne!(of(regex), of(&regex.replace("/a", "/b")));
    assert_ne!(of(regex), of(&regex.replace("~b", "~c")));
}

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The keys of each kind of table, as the schema has them: `upstreams.*.balance` -> `policy`, …
fn schema_keys() -> BTreeMap<String, BTreeSet<String>> {
    fn walk(root: &Value, node: &Value, kind: &str, keys: &mut BTreeMap<String, BTreeSet<String>>) {
        if let Some(name) = node["$ref"]
            .as_str()
            .and_then(|r| r.strip_prefix("#/$defs/"))
        {
            walk(root, &root["$defs"][name], kind, keys);
        }
        for any in ["anyOf", "oneOf"] {
            for branch in node[any].as_array().into_iter().flatten() {
                walk(root, branch, kind, keys);
            }
        }
        walk_some(root, &node["items"], kind, keys);
        walk_some(
            root,
            &node["additionalProperties"],
            &format!("{kind}.*"),
            keys,
        );
        for (key, value) in node["properties"].as_object().into_iter().flatten() {
            keys.entry(kind.to_owned()).or_default().insert(key.clone());
            let below = if kind.is_empty() {
                key.clone()
            } else {
                format!("{kind}.{key}")
            };
            walk(root, value, &below, keys);
        }
    }
    fn walk_some(
        root: &Value,
        node: &Value,
        kind: &str,
        keys: &mut BTreeMap<String, BTreeSet<String>>,
    ) {
        if node.is_object() {
            walk(root, node, kind, keys);
        }
    }
    let root: Value = serde_json::from_str(&schema()).unwrap();
    let mut keys = BTreeMap::new();
    walk(&root, &root, "", &mut keys);
    keys
}

/// What the loader reads, the schema has, and the other way round.
#[test]
fn schema_and_loader_know_the_same_keys() {
    let report = Report::default();
    // A table that stands in a comment of the reference.
    let tickets = "[listeners.more.tls.tickets]\nsecret_file = 'ticket.key'\n";
    let text = sample("isobar.toml") + tickets;
    let source = [Source::new(Path::new("isobar.toml"), text)];
    lower::lower(&source, &report, PortZero::Refused).unwrap();
    let read: BTreeMap<String, BTreeSet<String>> = report
        .keys()
        .iter()
        .map(|(kind, keys)| {
            (
                (*kind).to_owned(),
                keys.iter().map(ToString::to_string).collect(),
            )
        })
        .collect();
    assert_eq!(read, schema_keys());
}

/// config/isobar.toml is the reference: every key stands in it, not only in a comment.
#[test]
fn the_reference_file_has_every_key() {
    fn walk(kind: &str, node: &Value, keys: &mut BTreeMap<String, BTreeSet<String>>) {
        if let Some(list) = node.as_array() {
            for element in list {
                walk(kind, element, keys);
            }
        }
        for (key, value) in node.as_object().into_iter().flatten() {
            let named = ["listeners", "upstreams"].contains(&kind);
            let below = match (kind, named) {
                ("", _) => key.clone(),
                (kind, true) => format!("{kind}.*"),
                (kind, false) => format!("{kind}.{key}"),
            };
            if !named {
                keys.entry(kind.to_owned()).or_default().insert(key.clone());
            }
            walk(&below, value, keys);
        }
    }
    let file: Value = toml::from_str(&sample("isobar.toml")).unwrap();
    let mut present = BTreeMap::new();
    walk("", &file, &mut present);
    // Files that must be there: no sample can bring a secret along, or a word of a CA on a certificate.
    let commented = [
        ("upstreams.*.sticky", "secret_file", "# secret_file = "),
        (
            "listeners.*.tls.tickets",
            "secret_file",
            "# tickets = { secret_file = ",
        ),
        ("listeners.*.tls.certificates", "ocsp", ", ocsp = "),
    ];
    for (_, _, text) in commented {
        assert!(sample("isobar.toml").contains(text), "{text}");
    }
    let is_commented = |kind: &str, key: &str| commented.iter().any(|c| (c.0, c.1) == (kind, key));
    for (kind, keys) in schema_keys() {
        let present = present.remove(&kind).unwrap_or_default();
        let missing: Vec<_> = keys
            .difference(&present)
            .filter(|key| !is_commented(&kind, key))
            .collect();
        assert!(
            missing.is_empty(),
            "config/isobar.toml lacks {missing:?} in `{kind}`"
        );
    }
}

/// A validator of the part of JSON Schema that ours uses: the first violation, with its place.
fn violation(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|r| r.strip_prefix("#/$defs/"))
        && let Some(v) = violation(root, &root["$defs"][name], value, at)
    {
        return Some(v);
    }
    for any in ["anyOf", "oneOf"] {
        if let Some(branches) = schema[any].as_array() {
            let wrong: Vec<_> = branches
                .iter()
                .filter_map(|b| violation(root, b, value, at))
                .collect();
            if wrong.len() == branches.len() {
                return Some(wrong.join(" / "));
            }
        }
    }
    let of_type = |t: &str| match t {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("unknown type {other} in the schema"),
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(t) => vec![t],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|t| of_type(t)) {
        return Some(format!("{at}: {value} is none of {types:?}"));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        return Some(format!("{at}: {value} is none of {known:?}"));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        return Some(format!("{at}: {value} is not {}", schema["const"]));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        return Some(format!("{at}: {text} does not match {pattern}"));
    }
    if let Some(n) = value.as_f64()
        && (schema["minimum"].as_f64().is_some_and(|min| n < min)
            || schema["exclusiveMinimum"]
                .as_f64()
                .is_some_and(|min| n <= min)
            || schema["maximum"].as_f64().is_some_and(|max| n > max))
    {
        return Some(format!("{at}: {n} is out of range"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.is_object() && value.get(required.as_str().unwrap()).is_none() {
            return Some(format!("{at}: no {required}"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        let found = match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => Some(format!("{at}: unknown key")),
            (Value::Null, Value::Null) => None,
            (Value::Null, more) => violation(root, more, value, &at),
            (known, _) => violation(root, known, value, &at),
        };
        if found.is_some() {
            return found;
        }
    }
    if schema["items"].is_object() {
        return value
            .as_array()?
            .iter()
            .find_map(|v| violation(root, &schema["items"], v, at));
    }
    None
}

#[test]
fn samples_satisfy_the_schema() {
    let root: Value = serde_json::from_str(&schema()).unwrap();
    for name in [
        "isobar",
        "quickstart",
        "weighted",
        "sticky",
        "hash",
        "routes",
        "limits",
        "resilience",
        "tls",
        "dns",
        "kafka",
        "mqtt",
        "nats",
        "passthrough",
        "postgres",
        "rabbitmq",
        "redis",
        "smtp",
        "fleet",
    ] {
        let value: Value = toml::from_str(&sample(&format!("{name}.toml"))).unwrap();
        assert_eq!(violation(&root, &root, &value, name), None);
    }
    for bad in [
        "blance = 1",
        "[process]\ngrace = 30",
        "[process]\nworkers = 'many'",
        "[listeners.a]\nbind = ':1'\nmax_headers = 0",
        "[listeners.a]\nprotocol = 'http'",
        "[upstreams.a]\nendpoints = []\nbalance = 'least_conn'",
        "[upstreams.a]\nendpoints = []\nbalance = { policy = 'maglev', bounded_load = 1.0 }",
        "[[routes]]\nredirect = { to = '/', status = 200 }",
        "[[routes]]\nrespond = {}\nretry = { attempts = 11 }",
        "[[routes]]\nrespond = {}\nretry = 'never'",
        "[[routes]]\nrespond = {}\nretry = { on = ['200'] }",
        "[[routes]]\nrespond = {}\nrate_limit = { per = '1s' }",
        "[[routes]]\nrespond = {}\nmax_concurrent = 0",
        "[upstreams.a]\nendpoints = []\nqueue = { size = 1 }",
        "[upstreams.a]\nendpoints = []\noutlier = { failure_ratio = '50%' }",
        "[upstreams.a]\nendpoints = []\nbreaker = 'off'",
        "[upstreams.a]\nendpoints = [{ address = '10.0.0.1:1', priority = 16 }]",
        "[upstreams.a]\nendpoints = []\nsend_proxy_protocol = 'v3'",
        "[upstreams.a]\nendpoints = []\non_down = 'drop'",
        "[listeners.a]\nbind = ':1'\nprotocol = 'quic'",
        "[listeners.a]\nbind = ':1'\nprotocol = 'udp'\nflow = { quic = 21 }",
        "[listeners.a]\nbind = ':1'\nprotocol = 'tcp'\nrate_limit = { key = 'route', rate = 1 }",
        "[listeners.a]\nbind = ':1'\nproxy_protocol = true",
        "[listeners.a]\nbind = ':1'\npassthrough = [{ sni = 'a.example' }]",
        "[fleet]\nname = 'a'\nbind = '10.0.0.1:1'",
        "[fleet]\nname = 'a'\nbind = '10.0.0.1:1'\nsecret_file = 'x'\nhealth = { probers = 10 }",
        "[fleet]\nname = 'a'\nbind = '10.0.0.1:1'\nsecret_file = 'x'\nguard = { max_remove = 2 }",
    ] {
        let value: Value = toml::from_str(bad).unwrap();
        assert!(violation(&root, &root, &value, "").is_some(), "{bad}");
        assert!(parse("bad.toml", bad).is_err(), "{bad}");
    }
}

/// Nothing in a text may panic or hang: every sample and every bad file, mutated.
#[test]
fn mutated_texts_never_panic() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in ["config", "tests/it/ui"] {
        for entry in std::fs::read_dir(manifest.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    texts.sort();
    let pieces: Vec<&str> = texts
        .iter()
        .flat_map(|t| t.split_inclusive(['\n', ' ', '=']))
        .collect();
    let seed = 0x1505_ba55_u64;
    let mut state = seed;
    let mut below = |n: usize| {
        // xorshift64 (Marsaglia 2003): a mutation needs no better.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n.max(1) as u64) as usize
    };
    let odd = [
        "\0",
        "\u{1b}",
        "é",
        "\u{feff}",
        "\"",
        "'''",
        "[[",
        "{",
        "}",
        "]",
        "=",
        ".",
        "-9e999",
        "nan",
        "2020-01-01",
    ];
    for round in 0..3000 {
        let mut text = texts[below(texts.len())].clone();
        for _ in 0..=below(4) {
            let mut at = || {
                let mut at = below(text.len() + 1);
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let (from, to) = (at(), at());
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 40));
            let to = (to..=text.len())
                .find(|&i| text.is_char_boundary(i))
                .unwrap();
            match below(3) {
                0 => text.replace_range(from..to, ""),
                1 => text.insert_str(from, pieces[below(pieces.len())]),
                _ => text.replace_range(from..to, odd[below(odd.len())]),
            }
        }
        // Rendering is part of it. The round is told by the message of a panic inside.
        let outcome = std::panic::catch_unwind(|| match parse("fuzz.toml", &text) {
            Ok(loaded) => format!("{:?}", loaded.warnings),
            Err(problems) => {
                assert!(!problems.diagnostics().is_empty());
                format!(
                    "{problems}{:?}",
                    problems
                        .diagnostics()
                        .iter()
                        .map(Diagnostic::to_json)
                        .collect::<Vec<_>>()
                )
            }
        });
        assert!(outcome.is_ok(), "seed {seed:#x}, round {round}:\n{text}");
    }
}

/// Depth and length that a parser might answer with a stack overflow or minutes of work.
#[test]
fn monstrous_texts_are_refused() {
    let many = |s: &str| s.repeat(100_000);
    for text in [
        format!("include = {}", many("[")),
        format!("include = {}", many("{a=")),
        format!("{}a = 1", many("a.")),
        format!("[{}a]", many("a.")),
        format!("listeners.{} = 1", many("x")),
        many("[listeners.a]\n"),
        many("a = 1\n"),
        many("[[routes]]\n"),
        format!("[[routes]]\npath_regex = '{}'", many("(")),
        format!("[[routes]]\nhost = '{}'", many("a.")),
        format!("[upstreams.a]\nendpoints = [{}]", many("'a:1', ")),
        format!("[upstreams.a]\nendpoints = [{}]", many("'10.0.0.1:1', ")),
        format!("[listeners.a]\nbind = '{}'", many("é")),
        (0..100_000).fold(String::new(), |all, i| {
            all + &format!("a{} = 1\n", i % 50_000)
        }),
        format!("[process]\nworkers = {}", many("9")),
        format!("[process]\ngrace = '{}'", many("9")),
    ] {
        let problems = parse("monster.toml", &text).unwrap_err();
        let count = problems.diagnostics().len();
        assert!((1..=2001).contains(&count), "{count}");
        assert!(problems.to_string().len() < 2_000_000);
    }
}
