//! Connections of TCP over other ends than IPv4: Unix sockets, IPv6, both stacks on one port.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside #[test] functions: a panic is the report"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::DEADLINE;
use crate::support::eventually::eventually;
use crate::support::not_run;
use crate::support::origin::pattern;
use crate::support::proxy::Proxy;
use crate::support::tcp::{Came, End};

/// Either kind of socket, for what both can.
trait Half: Read + Write + Send + Sized + 'static {
    fn end(&self);
    fn twin(&self) -> Self;
    fn bound(self) -> Self;
}

impl Half for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn bound(self) -> Self {
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        self.set_write_timeout(Some(DEADLINE)).unwrap();
        self
    }
}

impl Half for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn bound(self) -> Self {
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        self.set_write_timeout(Some(DEADLINE)).unwrap();
        self
    }
}

fn proxy(bind: &str, endpoint: &str) -> Proxy {
    Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '{bind}'\nprotocol = 'tcp'\nupstream = 'app'\n\
         [upstreams.app]\nendpoints = ['{endpoint}']\n"
    ))
}

fn unix(folder: &Path, name: &str) -> String {
    format!("unix:{}", folder.join(name).display())
}

/// Words, bulk in both directions, and the ends of both directions one after the other.
fn talk<A: Half, B: Half>(one: A, other: B) {
    const BULK: usize = 4 << 20;
    let (mut one, mut other) = (one.bound(), other.bound());
    let mut word = [0; 4];
    for _ in 0..5 {
        one.write_all(b"over").unwrap();
        other.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"over");
        other.write_all(b"back").unwrap();
        one.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"back");
    }
    let all = pattern(0, BULK);
    let writers = [
        {
            let (mut one, all) = (one.twin(), all.clone());
            std::thread::spawn(move || {
                one.write_all(&all).unwrap();
                one.end();
            })
        },
        {
            let (mut other, all) = (other.twin(), all.clone());
            std::thread::spawn(move || other.write_all(&all).unwrap())
        },
    ];
    let mut received = vec![0; BULK];
    let reading = {
        let (mut other, all) = (other.twin(), all.clone());
        std::thread::spawn(move || {
            let mut received = Vec::new();
            other.read_to_end(&mut received).unwrap();
            assert!(received == all, "other bytes");
        })
    };
    one.read_exact(&mut received).unwrap();
    assert!(received == all, "other bytes");
    reading.join().unwrap();
    for writer in writers {
        writer.join().unwrap();
    }
    // One direction has ended, and the other goes on.
    other.write_all(b"late").unwrap();
    one.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"late");
    other.end();
    assert_eq!(one.read(&mut word).unwrap(), 0);
}

fn expect_one(proxy: &Proxy, way: &str, flows: f64) {
    let ended = "isobar_listener_flows_total{listener=\"web\",outcome=\"ok\"}";
    eventually("its record", || proxy.metric(ended) == flows);
    let moved = proxy.metric(&format!("isobar_relayed_bytes_total{{way=\"{way}\"}}"));
    assert!(moved > 6e6, "{moved} bytes by {way}");
}

#[test]
fn unix_sockets_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = UnixListener::bind(folder.path().join("app")).unwrap();
    let proxy = proxy(&unix(folder.path(), "web"), &unix(folder.path(), "app"));
    for n in 1..=3 {
        let client = UnixStream::connect(folder.path().join("web")).unwrap();
        let (server, _) = endpoint.accept().unwrap();
        talk(client, server);
        expect_one(&proxy, "copy", f64::from(n));
    }
    assert_eq!(
        proxy.metric("isobar_relayed_bytes_total{way=\"splice\"}"),
        0.0
    );
}

#[test]
fn a_client_with_an_abstract_address() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = UnixListener::bind(folder.path().join("app")).unwrap();
    let proxy = proxy(&unix(folder.path(), "web"), &unix(folder.path(), "app"));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let name = format!("\0isobar-test-{}", std::process::id());
    socket.bind(&SockAddr::unix(name).unwrap()).unwrap();
    let web = SockAddr::unix(folder.path().join("web")).unwrap();
    socket.connect(&web).unwrap();
    let (server, _) = endpoint.accept().unwrap();
    talk(UnixStream::from(socket), server);
    expect_one(&proxy, "copy", 1.0);
}

#[test]
fn tcp_in_front_of_a_unix_socket_and_behind_one() {
    let folder = tempfile::tempdir().unwrap();
    let behind = UnixListener::bind(folder.path().join("app")).unwrap();
    let proxy_in_front = proxy("127.0.0.1:0", &unix(folder.path(), "app"));
    let client = TcpStream::connect(proxy_in_front.addr()).unwrap();
    let (server, _) = behind.accept().unwrap();
    talk(client, server);
    expect_one(&proxy_in_front, "copy", 1.0);

    let behind = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = behind.local_addr().unwrap().to_string();
    let proxy_behind = proxy(&unix(folder.path(), "web"), &addr);
    let client = UnixStream::connect(folder.path().join("web")).unwrap();
    let (server, _) = behind.accept().unwrap();
    talk(client, server);
    expect_one(&proxy_behind, "copy", 1.0);
}

/// A Unix socket knows no reset; that its client is gone is told all the same.
#[test]
fn a_unix_client_that_dies_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = endpoint.local_addr().unwrap().to_string();
    let proxy = proxy(&unix(folder.path(), "web"), &addr);
    let mut client = UnixStream::connect(folder.path().join("web")).unwrap();
    let mut server = End::new(endpoint.accept().unwrap().0);
    client.write_all(b"word").unwrap();
    assert_eq!(server.exactly(4), b"word");
    server.send("never read");
    eventually("it is there", || {
        let mut byte = [0];
        rustix::net::recv(&client, &mut byte[..], rustix::net::RecvFlags::PEEK).is_ok()
    });
    drop(client);
    assert!(matches!(server.next(), Came::End | Came::Reset));
    drop(server);
    eventually("no connection", || proxy.connections() == [0]);
}

#[test]
fn ipv6_on_both_sides() {
    let Ok(endpoint) = TcpListener::bind("[::1]:0") else {
        return not_run("there is no IPv6");
    };
    let proxy = proxy("[::1]:0", &endpoint.local_addr().unwrap().to_string());
    let client = TcpStream::connect(proxy.addr()).unwrap();
    let (server, _) = endpoint.accept().unwrap();
    talk(client, server);
    expect_one(&proxy, "splice", 1.0);
}

#[test]
fn one_port_serves_both_stacks() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = proxy(":0", &endpoint.local_addr().unwrap().to_string());
    let port = proxy.addr().port();
    let mut addrs = vec![SocketAddr::from(([127, 0, 0, 1], port))];
    if TcpListener::bind("[::1]:0").is_ok() {
        addrs.push(format!("[::1]:{port}").parse().unwrap());
    } else {
        not_run("there is no IPv6: one stack alone is tried");
    }
    for (n, addr) in (1..).zip(addrs) {
        let client = TcpStream::connect(addr).unwrap();
        let (server, _) = endpoint.accept().unwrap();
        talk(client, server);
        expect_one(&proxy, "splice", f64::from(n));
    }
}

/// A listener on a Unix socket whose queue is full, and those in it.
fn full(path: &Path) -> (UnixListener, Vec<UnixStream>) {
    let address = SockAddr::unix(path).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(1).unwrap();
    // Of accept(2).
    listener.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut queued = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => queued.push(socket.into()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return (listener.into(), queued),
            Err(e) => panic!("connect: {e}"),
        }
    }
}

/// One listener over the Unix socket `path`; `upstream` are further lines of its table.
fn over(path: &Path, listener: &str, upstream: &str) -> Proxy {
    Proxy::start(&format!(
        "[process]\nworkers = 1\n[admin]\nbind = '127.0.0.1:0'\n\
         [listeners.web]\nbind = '127.0.0.1:0'\n{listener}\n\
         [upstreams.app]\nendpoints = ['unix:{}']\n{upstream}\n",
        path.display()
    ))
}

const AS_BYTES: &str = "protocol = 'tcp'\nupstream = 'app'";
const AS_REQUESTS: &str = "[[routes]]\nname = 'all'\nupstream = 'app'";

fn failed_connects(proxy: &Proxy, reason: &str) -> f64 {
    let name = "isobar_upstream_connect_failures_total";
    proxy.metric(&format!("{name}{{upstream=\"app\",reason=\"{reason}\"}}"))
}

fn is_ejected(proxy: &Proxy, path: &Path) -> bool {
    let name = "isobar_endpoint_ejected";
    let endpoint = path.display();
    proxy.metric(&format!(
        "{name}{{upstream=\"app\",endpoint=\"unix:{endpoint}\"}}"
    )) > 0.0
}

/// A connect that does not block fails at once where the queue of a Unix socket is full. That was taken for
/// an endpoint that is down, and three in a row ejected it.
#[test]
fn a_unix_endpoint_whose_queue_is_full_is_waited_for() {
    const CLIENTS: usize = 12;
    for (listener, question, answer) in [
        (AS_BYTES, "word", "here"),
        (
            AS_REQUESTS,
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app");
        let (endpoint, queued) = full(&path);
        let proxy = over(&path, listener, "connect_timeout = '60s'");
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = End::connect(proxy.addr());
            client.send(question);
            clients.push(client);
        }
        eventually("all of them", || proxy.connections() == [CLIENTS]);
        for _ in queued {
            endpoint.accept().unwrap();
        }
        let mut servers = Vec::new();
        for _ in 0..CLIENTS {
            let mut server = endpoint.accept().unwrap().0.bound();
            let mut first = [0; 4];
            server.read_exact(&mut first).unwrap();
            assert_eq!(first, question.as_bytes()[..4]);
            server.write_all(answer.as_bytes()).unwrap();
            servers.push(server);
        }
        for mut client in clients {
            assert_eq!(client.exactly(4), answer.as_bytes()[..4]);
        }
        for reason in ["refused", "timeout", "unreachable", "local"] {
            assert_eq!(failed_connects(&proxy, reason), 0.0, "{reason}");
        }
        assert!(!is_ejected(&proxy, &path));
    }
}

#[test]
fn a_unix_endpoint_whose_queue_stays_full_is_too_late() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app");
    let (_endpoint, _queued) = full(&path);
    let proxy = over(&path, AS_BYTES, "connect_timeout = '300ms'");
    let mut client = End::connect(proxy.addr());
    assert_eq!(client.next(), Came::Reset);
    let refused = "isobar_listener_refusals_total{listener=\"web\",reason=\"connect_timeout\"}";
    eventually("its reason", || proxy.metric(refused) == 1.0);
    assert_eq!(failed_connects(&proxy, "timeout"), 1.0);
}
