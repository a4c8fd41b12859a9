//! Reload of the real program: by signal and by watching its files, and what a bad edit does.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::support::binary::{Binary, free_port};
use crate::support::client::Client;
use crate::support::eventually::eventually;
use crate::support::origin::{self, Origin};

struct Running {
    isobar: Binary,
    web: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
}

impl Running {
    /// Serves `toml`, in which `WEB` and `ADMIN` stand for addresses.
    fn start(toml: &str, more: &[&str]) -> Self {
        let [web, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("isobar.toml");
        let toml = toml
            .replace("WEB", &web.to_string())
            .replace("ADMIN", &admin.to_string());
        std::fs::write(&file, toml).unwrap();
        let text = file.to_string_lossy().into_owned();
        let args: Vec<&str> = ["run", &text].iter().chain(more).copied().collect();
        let isobar = Binary::spawn(&args, folder);
        isobar.await_line("try: curl");
        Self {
            isobar,
            web,
            admin,
            file,
        }
    }

    fn write(&self, toml: &str) {
        let toml = toml
            .replace("WEB", &self.web.to_string())
            .replace("ADMIN", &self.admin.to_string());
        // As editors do: a whole file appears at once.
        let new = self.file.with_extension("new");
        std::fs::write(&new, toml).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    fn metric(&self, series: &str) -> f64 {
        let text = Client::get(self.admin, "/metrics").text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    fn reloads(&self, result: &str) -> f64 {
        self.metric(&format!(
            "isobar_config_reloads_total{{result=\"{result}\"}}"
        ))
    }

    /// Sends SIGHUP and waits until the configuration is served.
    #[track_caller]
    fn reload(&self, toml: &str) {
        let before = self.reloads("ok");
        self.write(toml);
        self.isobar.signal(Signal::HUP);
        eventually("a reload", || self.reloads("ok") > before);
    }

    /// Resident memory in KiB.
    fn resident(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.isobar.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn over(endpoint: &Origin) -> String {
    format!(
        "[process]\nworkers = 2\n[admin]\nbind = 'ADMIN'\n[listeners.web]\nbind = 'WEB'\n\
         upstream = 'app'\n[upstreams.app]\nendpoints = ['{}']\n",
        endpoint.addr()
    )
}

#[test]
fn hangup_reloads_and_bad_files_change_nothing() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let running = Running::start(&over(&one), &[]);
    let mut kept = Client::connect(running.web);
    assert_eq!(kept.request("GET", "/").text(), "one");
    running.reload(&over(&two));
    assert_eq!(kept.request("GET", "/").text(), "two");
    assert_eq!(running.metric("isobar_config_last_reload_successful"), 1.0);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!(
        "{}[listeners.more]\nbind = '{}'\nupstream = 'app'\n",
        over(&one),
        taken.local_addr().unwrap()
    );
    let bad: [(&str, &str); 5] = [
        ("syntax", "[listeners.web\n"),
        ("type", "[listeners.web]\nbind = 5\n"),
        ("half written", &over(&one)[..over(&one).len() / 2]),
        ("empty", ""),
        ("port in use", &in_use),
    ];
    for (n, (what, toml)) in bad.iter().enumerate() {
        running.write(toml);
        running.isobar.signal(Signal::HUP);
        eventually(what, || running.reloads("refused") == (n + 1) as f64);
        assert_eq!(running.metric("isobar_config_last_reload_successful"), 0.0);
        assert_eq!(kept.request("GET", "/").text(), "two", "{what}");
        assert_eq!(Client::get(running.web, "/").text(), "two", "{what}");
    }
    std::fs::remove_file(&running.file).unwrap();
    running.isobar.signal(Signal::HUP);
    eventually("file vanished", || running.reloads("refused") == 6.0);
    assert_eq!(kept.request("GET", "/").text(), "two");
    for said in ["is in use", "cannot read", "expected"] {
        running.isobar.await_line(said);
    }
    running.reload(&over(&one));
    assert_eq!(kept.request("GET", "/").text(), "one");
    assert_eq!(running.metric("isobar_config_last_reload_successful"), 1.0);
}

#[test]
fn watched_file_is_reloaded_when_it_changes() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let running = Running::start(&over(&one), &["--watch"]);
    let mut kept = Client::connect(running.web);
    assert_eq!(kept.request("GET", "/").text(), "one");
    running.write(&over(&two));
    eventually("the change is served", || {
        kept.request("GET", "/").text() == "two"
    });
    // A file that cannot be served is refused once, and the next good one is taken.
    running.write("nonsense = 1\n");
    eventually("a refusal", || running.reloads("refused") >= 1.0);
    assert_eq!(kept.request("GET", "/").text(), "two");
    running.write(&over(&one));
    eventually("the next change is served", || {
        kept.request("GET", "/").text() == "one"
    });
}

/// As Kubernetes changes a mounted volume. The library that watches used to warn of each folder that
/// was gone.
#[test]
fn volume_that_is_swapped_is_reloaded_without_a_warning() {
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let version = |name: &str| {
        std::fs::create_dir(root.join(name)).unwrap();
        let toml = format!(
            "[listeners.web]\nbind = '{web}'\n[[routes]]\nrespond = {{ body = '{name}' }}\n"
        );
        std::fs::write(root.join(name).join("isobar.toml"), toml).unwrap();
        symlink(name, root.join("..new")).unwrap();
        std::fs::rename(root.join("..new"), root.join("..data")).unwrap();
    };
    version("..1");
    let file = root.join("isobar.toml");
    symlink("..data/isobar.toml", &file).unwrap();
    let isobar = Binary::spawn(&["run", &file.to_string_lossy(), "--watch"], folder);
    isobar.await_line("try: curl");
    for [old, new] in [["..1", "..2"], ["..2", "..3"]] {
        version(new);
        std::fs::remove_dir_all(root.join(old)).unwrap();
        eventually("the new volume is served", || {
            Client::get(web, "/").text() == new
        });
    }
    let said = isobar.output();
    assert!(!said.contains("watch"), "{said}");
}

const ASK: &str =
    "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// The promise: 200 reloads of upstream B, and upstream A does not notice. Memory does not grow:
/// at most 10 KiB a reload, by Theil and Sen's slope: the median of the slopes between any two of
/// the 200. What leaks grows everywhere; a step of a megabyte, which the allocator takes now and
/// then, hardly moves it. 100 reloads before them fill what is kept (buffers, allocator pages).
#[test]
fn two_hundred_reloads_of_b_leave_a_alone() {
    let a = Origin::start(|request| {
        if request.head.start.contains("/ws") {
            origin::tunnel()
        } else {
            origin::reply(200, "a")
        }
    });
    let b = Origin::named("b");
    let config = |n: usize| {
        let policy = ["round_robin", "least_request", "ring_hash", "maglev"][n % 4];
        let more: Vec<String> = (0..n % 7)
            .map(|i| format!("'127.0.0.9:{}'", 7000 + i))
            .collect();
        let key = if n % 4 >= 2 { ", key = 'path'" } else { "" };
        format!(
            "[process]\nworkers = 2\n[admin]\nbind = 'ADMIN'\n[listeners.web]\nbind = 'WEB'\n\
             [[routes]]\npath = '/b/*'\nupstream = 'b'\n[[routes]]\nupstream = 'a'\n\
             [upstreams.a]\nendpoints = ['{}']\n\
             [upstreams.b]\nbalance = {{ policy = '{policy}'{key} }}\nendpoints = ['{}', {}]\n",
            a.addr(),
            b.addr(),
            more.join(", "),
        )
    };
    let running = Running::start(&config(0), &[]);
    let web = running.web;
    let mut tunnels: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = Client::connect(web);
            client.send(ASK);
            assert_eq!(client.head().status(), 101);
            client
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                // One connection for the whole test: it is not closed either.
                let mut client = Client::connect(web);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.request("GET", "/a").text(), "a");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut resident = Vec::new();
    for n in 1..=300 {
        running.reload(&config(n));
        let tunnel = &mut tunnels[n % 200];
        tunnel.send("ping");
        assert_eq!(tunnel.exactly(4), b"ping");
        resident.push(running.resident());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    for tunnel in &mut tunnels {
        tunnel.send("ping");
        assert_eq!(tunnel.exactly(4), b"ping");
    }
    let slope = slope(&resident[100..]);
    println!(
        "300 reloads, {} requests, 200 tunnels: none lost; {:.0} KiB resident, {slope:.2} KiB a reload",
        served.load(Ordering::Relaxed),
        resident[299],
    );
    assert!(slope <= 10.0, "{slope} KiB a reload: {resident:?}");
}

/// The median of the slopes between any two of `values`.
fn slope(values: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (i, a) in values.iter().enumerate() {
        for (j, b) in values.iter().enumerate().skip(i + 1) {
            slopes.push((b - a) / (j - i) as f64);
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes[slopes.len() / 2]
}
