//! Published clients of HTTP/2: curl, nghttp, h2load.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::path::Path;
use std::process::Command;

use crate::support::h2::Identity;
use crate::support::h2_origin::H2Origin;
use crate::support::need;
use crate::support::origin::{self, Origin, pattern};
use crate::support::watched::Watched;

/// What it printed; its end must be a good one.
#[track_caller]
fn output(program: &Path, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{text}{error}");
    text + &error
}

#[test]
fn curl_gets_the_version_that_it_asks_for() {
    let Some(curl) = need("curl") else {
        return;
    };
    let identity = Identity::new();
    let origin = Origin::named("one");
    let plain = Watched::over(origin.addr(), "", "");
    let secure = Watched::over(origin.addr(), &identity.listener(), "");
    let urls = [
        format!("http://{}/", plain.addr()),
        format!("https://localhost:{}/", secure.addr().port()),
    ];
    let ca = identity.cert().display().to_string();
    // An upgrade of HTTP/1.1 to HTTP/2 is no longer offered (RFC 9113 section 3.1): it goes on as it is.
    for (url, version, wanted) in [
        (&urls[0], "--http1.1", "1.1"),
        (&urls[0], "--http2", "1.1"),
        (&urls[0], "--http2-prior-knowledge", "2"),
        (&urls[1], "--http1.1", "1.1"),
        (&urls[1], "--http2", "2"),
    ] {
        let told = [
            "-sS",
            "--max-time",
            "20",
            "-w",
            " %{http_version} %{response_code}",
        ];
        let asked = [&told[..], &["--cacert", &ca, version, url]].concat();
        assert_eq!(
            output(&curl, &asked),
            format!("one {wanted} 200"),
            "{url} {version}"
        );
    }
}

/// Up and down with a body, over TLS, many URLs on one connection.
#[test]
fn curl_sends_and_receives_bodies() {
    let Some(curl) = need("curl") else {
        return;
    };
    let identity = Identity::new();
    let origin = Origin::start(|_| origin::filled(3_000_000));
    let proxy = Watched::over(origin.addr(), &identity.listener(), "");
    let folder = tempfile::tempdir().unwrap();
    let (up, down) = (folder.path().join("up"), folder.path().join("down"));
    std::fs::write(&up, pattern(0, 3_000_000)).unwrap();
    let ca = identity.cert().display().to_string();
    let url = format!("https://localhost:{}/", proxy.addr().port());
    let data = format!("@{}", up.display());
    let down_arg = down.display().to_string();
    let args = ["-sS", "--http2", "--max-time", "25", "--cacert", &ca];
    let body = ["--data-binary", &data, "-o", &down_arg, &url];
    output(&curl, &[&args[..], &body].concat());
    assert!(std::fs::read(&down).unwrap() == pattern(0, 3_000_000));
    assert!(origin.await_done(0).body.data == pattern(0, 3_000_000));
}

#[test]
fn h2load_is_served_without_a_failure() {
    let Some(h2load) = need("h2load") else {
        return;
    };
    let identity = Identity::new();
    let h1 = Origin::named("one");
    let h2 = H2Origin::named("two");
    for (addr, more) in [(h1.addr(), ""), (h2.addr(), "protocol = 'h2'")] {
        for listener in [String::new(), identity.listener()] {
            let proxy = Watched::over(addr, &listener, more);
            let scheme = if listener.is_empty() { "http" } else { "https" };
            let url = format!("{scheme}://localhost:{}/", proxy.addr().port());
            let told = output(&h2load, &["-n", "1000", "-c", "4", "-m", "20", &url]);
            let wanted = "1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout";
            assert!(told.contains(wanted), "{told}");
            proxy.await_metric(
                "isobar_http_requests_total{route=\"web\",protocol=\"h2\",code_class=\"2xx\"}",
                1000.0,
            );
            proxy.await_metric("isobar_http_requests_in_flight{route=\"web\"}", 0.0);
        }
    }
}

/// Strict about what it is sent: it says so if the proxy breaks a rule.
#[test]
fn nghttp_finds_no_fault() {
    let Some(nghttp) = need("nghttp") else {
        return;
    };
    let origin = Origin::start(|_| origin::chunked(&["one"], &[("X-Sum", "1")]));
    let proxy = Watched::over(origin.addr(), "", "");
    let url = format!("http://{}/", proxy.addr());
    let told = output(&nghttp, &["-v", "--timeout=20", &url]);
    for needle in [
        ":status: 200",
        "x-sum: 1",
        "SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1",
    ] {
        assert!(told.contains(needle), "{needle} in\n{told}");
    }
    for fault in ["[ERROR", "INVALID", "PROTOCOL_ERROR"] {
        assert!(!told.contains(fault), "{told}");
    }
}
