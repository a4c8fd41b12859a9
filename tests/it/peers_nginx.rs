//! Against a real nginx: the same keys must reach the same endpoints.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of a test: failing is their report, and they wait by the clock"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isobar::balance::{Ask, Member, Policy, PolicyKind, build};
use isobar::base::load::Load;
use isobar::base::rng::Rng;

const KEYS: u32 = 10_000;

/// Five servers of uneven weight, one of them down: also checks where the keys of an unready
/// endpoint go.
const WEIGHTS: [u32; 5] = [1, 3, 1, 2, 1];
const DOWN: usize = 2;

#[test]
fn ring_hash_maps_ten_thousand_keys_as_nginx_does() {
    let Some(nginx) = installed("nginx") else {
        return not_run(
            "ring_hash_maps_ten_thousand_keys_as_nginx_does",
            "nginx is not installed",
        );
    };
    let names: Vec<String> = WEIGHTS.iter().map(|_| serve_own_name()).collect();
    let members: Vec<Member> = names
        .iter()
        .zip(WEIGHTS)
        .map(|(name, weight)| Member {
            name: name.as_str().into(),
            weight,
        })
        .collect();

    for down in [None, Some(DOWN)] {
        let ready: Vec<bool> = (0..members.len()).map(|i| Some(i) != down).collect();
        let policy = Policy {
            kind: PolicyKind::RingHash,
            bounded_load: None,
        };
        let balancer = build(&policy, &members, &ready, None, 0);
        let loads: Vec<Arc<Load>> = members.iter().map(|_| Arc::default()).collect();
        let mut rng = Rng::new(0);

        let directory = tempfile::tempdir().unwrap();
        let _running = start(&nginx, directory.path(), &members, down);
        let mut client = connect(&directory.path().join("front"));
        for key in 0..KEYS {
            let key = format!("user-{key}");
            let theirs = ask_for(&mut client, &key);
            let mut ask = Ask {
                loads: &loads,
                key: Some(key.as_bytes()),
                tried: &[],
                now: 0,
                rng: &mut rng,
            };
            let ours = balancer.pick(&mut ask).unwrap();
            assert_eq!(names[ours], theirs, "key {key}, down: {down:?}");
        }
    }
}

/// Kills the process when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(nginx: &str, directory: &Path, members: &[Member], down: Option<usize>) -> Running {
    let mut servers = String::new();
    for (i, member) in members.iter().enumerate() {
        let state = if Some(i) == down { " down" } else { "" };
        servers += &format!("server {} weight={}{state};\n", member.name, member.weight);
    }
    let dir = directory.display();
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
         events {{ worker_connections 256; }}
         http {{
           access_log off; keepalive_requests 1000000;
           client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
           uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
           upstream servers {{ hash $arg_key consistent; {servers} keepalive 16; }}
           server {{ listen unix:{dir}/front;
             location / {{ proxy_pass http://servers; proxy_http_version 1.1;
               proxy_set_header Connection ''; }} }} }}"
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let child = Command::new(nginx)
        .args(["-e".as_ref(), directory.join("error.log").as_os_str()])
        .args([
            "-p".as_ref(),
            directory.as_os_str(),
            "-c".as_ref(),
            path.as_os_str(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Running(child)
}

/// Connects as soon as nginx listens.
fn connect(socket: &Path) -> BufReader<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                return BufReader::new(stream);
            }
            Err(error) => assert!(Instant::now() < deadline, "nginx does not listen: {error}"),
        }
        std::thread::yield_now();
    }
}

/// The body of the answer: the name of the server that gave it.
fn ask_for(client: &mut BufReader<UnixStream>, key: &str) -> String {
    write!(
        client.get_mut(),
        "GET /?key={key} HTTP/1.1\r\nHost: test\r\n\r\n"
    )
    .unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(
            client.read_line(&mut line).unwrap() > 0,
            "nginx closed at {key}"
        );
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// A server that answers its own address for as long as the test process lives.
fn serve_own_name() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream);
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line == "\r\n" && lines.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    name
}

/// Where a program is, if it is.
fn installed(program: &str) -> Option<String> {
    // Servers live in sbin, which is not in every user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|directory| format!("{directory}/{program}"))
        .find(|file| Path::new(file).is_file())
}

/// Says so past the harness's capture (it takes `print!`, not a write to the stream), in a form that
/// `tests/run` can count.
fn not_run(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN {test}: {why}");
}
