//! What is written is read back to the same.

use std::path::{Path, PathBuf};

use super::super::{PortZero, load, parse, parse_with};
use super::*;

fn of(text: &str) -> Config {
    parse_with("t.toml", text, PortZero::Allowed)
        .unwrap_or_else(|p| panic!("{p}\n{text}"))
        .config
}

fn assert_reads_back(config: &Config) {
    let text = effective_toml(config);
    let again = of(&text);
    assert_eq!(&again, config, "{text}");
    assert_eq!(effective_toml(&again), text);
}

#[test]
fn every_sample_reads_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        assert_reads_back(&load(&file).unwrap_or_else(|p| panic!("{p}")).config);
    }
}

#[test]
fn odd_texts_read_back() {
    let upstreams = "[upstreams.a]\nendpoints = ['10.0.0.1:1', { address = 'unix:/a', weight = 0 }]\n[upstreams.'b.c']\ndynamic = true\nbalance = { policy = 'maglev', key = 'query:a b', bounded_load = 2 }\n";
    let long = format!("{0}.{0}.{0}", "x".repeat(60));
    for text in [
        String::new(),
        "[listeners.z]\nbind = [':1', 'unix:w.sock']\nupstream = 'a'\n[listeners.'y.y']\nbind = '[::1]:0'\nupstream = 'b.c'".to_owned(),
        // Written out, in the order of listeners and in another.
        "[listeners.z]\nbind = ':1'\n[listeners.y]\nbind = ':2'\n[[routes]]\nname = 'z'\nlisteners = 'z'\nupstream = 'a'\n[[routes]]\nname = 'y'\nlisteners = 'y'\nupstream = 'a'".to_owned(),
        "[listeners.z]\nbind = ':1'\n[listeners.y]\nbind = ':2'\n[[routes]]\nname = 'y'\nlisteners = 'y'\nupstream = 'a'\n[[routes]]\nname = 'z'\nlisteners = 'z'\nupstream = 'a'".to_owned(),
        "[listeners.z]\nbind = ':1'\nupstream = 'a'\n[[routes]]\nname = 'y'\nlisteners = 'z'\nupstream = 'a'".to_owned(),
        "[[routes]]\npath = '/*'\nheader = { x-A = 'a\\\"', X-a = '~^\\d', x-a = '' }\nquery = { '' = '', 'é \"' = \"\\u001b\\n\" }\nupstream = 'a'".to_owned(),
        "[[routes]]\nrespond = { body = \"'''\\\"\\\"\\\"\\r\\n\\t\\u007f\" }\nresponse_headers = { add = { A = ['1', '2'], b = '3' }, set = { c = \"'\\\"\" } }".to_owned(),
        "[[routes]]\npath = '/a'\nupstream = 'a'\n[[routes]]\npath = '/a'\nmethod = 'GET'\nupstream = 'a'\n[[routes]]\npath = '/a'\nupstream = 'a'".to_owned(),
        format!("[[routes]]\nhost = '{long}'\nupstream = 'a'\n[[routes]]\nhost = '{long}'\npath = '/b'\nupstream = 'a'\n[[routes]]\nhost = '{long}'\npath = '/c'\nupstream = 'a'"),
        "[process]\nzone = 'z'\n[[routes]]\nupstream = 'a'\nretry = 'off'\nmax_concurrent = 1\n[[routes]]\npath = '/b'\nrespond = {}\nretry = { attempts = 1, on = 'grpc-16', body = '0B' }\nmax_concurrent = { limit = 2, mode = 'observe' }\n[upstreams.c]\noutlier = 'off'\nbreaker = { max_in_flight = 1, mode = 'observe' }\nqueue = { length = 0 }\nendpoints = [{ address = '10.0.0.1:1', zone = 'z' }, { address = '10.0.0.2:1', backup = true }]".to_owned(),
        "[[routes]]\nsplit = [{ upstream = 'a' }]\nretry = { on = ['5xx', 429, 'grpc-2', 'grpc-unavailable', 'timeout'], per_try_timeout = '1s', hedge_after = 'p99', budget = 0 }\nrate_limit = [{ rate = 1 }, { key = 'header:X-A', rate = 2, per = '1m', mode = 'observe' }]\n[[routes]]\npath = '/b'\nupstream = 'a'\nretry = { on = [], hedge_after = '1ms' }\nrate_limit = { rate = 3, key = 'cookie:c', burst = 9, max_keys = 1 }\n[upstreams.c]\noutlier = { consecutive_failures = 0, consecutive_connect_failures = 0, failure_ratio = {}, eject_for = '10m' }\nbreaker = { trials = 1, max_pending = 3 }\nadaptive_concurrency = { max = 2 }\nretry_floor = 0\nslow_start = '1h'\nmax_connections = 1\nendpoints = [{ address = '10.0.0.2:1', priority = 15 }]".to_owned(),
        "[process]\nworkers = 3\ngrace = '0s'\n[log]\nlevel = 'trace'\naccess = { to = './stdout', sample = '33%' }".to_owned(),
    ] {
        assert_reads_back(&of(&(text + "\n" + upstreams)));
    }
}

#[test]
fn defaults_are_filled_in() {
    let text = "[defaults]\nidle_timeout = '9s'\n[listeners.web]\nbind = ':8080'\nupstream = 'app'\n[upstreams.app]\nendpoints = ['127.0.0.1:3000']\n";
    let expected = r#"[process]
workers = "auto"
grace = "30s"
watch = false

[admin]

[log]
level = "info"
access = "off"

[listeners.web]
bind = [":8080"]
protocol = "http"
trusted_proxies = []
max_connections = 20000
header_timeout = "10s"
keepalive_timeout = "1m15s"
idle_timeout = "1m"
max_header_bytes = "32KiB"
max_headers = 100
max_body_bytes = "none"
max_pipelined = 256
forwarding = { x_forwarded = true, forwarded = false, request_id = "x-request-id" }
max_connection_age = "off"
http2 = { max_streams = 100, stream_window = "128KiB", connection_window = "12800KiB", max_resets = 1000, max_pings = 1000, max_settings = 100, max_idle_frames = 1000 }
upstream = "app"

[upstreams.app]
endpoints = [{ address = "127.0.0.1:3000", weight = 1, priority = 0 }]
dynamic = false
balance = "least_request"
protocol = "h1"
connect_timeout = "1s"
idle_timeout = "9s"
keepalive = { idle_timeout = "55s", max_idle = 256 }
outlier = { consecutive_failures = 0, consecutive_connect_failures = 3, eject_for = "10s", max_eject = "5m", max_ejected = 0.5, mode = "enforce" }
retry_floor = 10
when_unhealthy = "fail_closed"
"#;
    assert_eq!(effective_toml(&of(text)), expected);
}

#[test]
fn json_has_the_order_of_the_file() {
    let text = "[listeners.z]\nbind = ':1'\nupstream = 'b'\n[listeners.a]\nbind = ':2'\nupstream = 'b'\n[upstreams.b]\nendpoints = ['10.0.0.1:1']\n";
    let config = parse("t", text).unwrap_or_else(|p| panic!("{p}")).config;
    let json = serde_json::to_string(&effective(&config)).unwrap();
    let at = |piece: &str| {
        json.find(piece)
            .unwrap_or_else(|| panic!("{piece}: {json}"))
    };
    assert!(at("\"process\"") < at("\"z\"") && at("\"z\"") < at("\"a\""));
}
