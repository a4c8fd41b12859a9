//! Handovers within one process, over real socketpairs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use socket2::{SockFilter, SockRef};

use super::*;
use crate::listener::{Bound, bind};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(10);

/// Long enough for nothing to happen in.
const SHORT: Duration = Duration::from_millis(20);

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

fn entry(kind: Kind, addr: impl std::fmt::Display + Copy, count: usize) -> Entry {
    Entry {
        kind,
        name: "web".to_owned(),
        addr: addr.to_string(),
        count,
        kept: 0,
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Sends and receives in one thread: everything here fits the buffer of a socketpair.
fn hand(sockets: Vec<Entry>, fds: &[BorrowedFd<'_>]) -> Result<Inherited, HandoverError> {
    let (ours, theirs) = pair();
    send(&ours, &Manifest::new(3, sockets), fds, LONG).unwrap();
    receive(&theirs, LONG)
}

/// What `receive` makes of these bytes, after which the stream is closed.
fn of_bytes(bytes: &[u8]) -> HandoverError {
    let (mut ours, theirs) = pair();
    ours.write_all(bytes).unwrap();
    drop(ours);
    receive(&theirs, LONG).unwrap_err()
}

fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame
}

fn ip(addr: SocketAddr) -> BindAddr {
    BindAddr::Ip(addr)
}

// === descriptors ===

#[test]
fn connection_in_the_queue_is_accepted_by_the_successor() {
    let (listener, addr) = listener();
    let mut client = TcpStream::connect(addr).unwrap();
    client.write_all(b"before").unwrap();
    let mut inherited = hand(vec![entry(Kind::Tcp, addr, 1)], &[listener.as_fd()]).unwrap();
    // The predecessor's copy goes: the queue lives on in the other one.
    drop(listener);
    let mut late = TcpStream::connect(addr).unwrap();
    late.write_all(b"behind").unwrap();
    let [fd]: [OwnedFd; 1] = (inherited.take(Kind::Tcp, &ip(addr)).unwrap())
        .try_into()
        .unwrap();
    let successor = TcpListener::from(fd);
    for expected in [b"before", b"behind"] {
        let (mut accepted, _) = successor.accept().unwrap();
        let mut text = [0; 6];
        accepted.read_exact(&mut text).unwrap();
        assert_eq!(&text, expected);
        accepted.write_all(b"hello").unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
}

#[test]
fn every_kind_arrives_at_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let control = folder.path().join("control.sock");
    let admin_unix = UnixListener::bind(&control).unwrap();
    let (tcp, tcp_addr) = listener();
    let (admin, admin_addr) = listener();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_addr = udp.local_addr().unwrap();
    let sockets = vec![
        entry(Kind::Unix, &BindAddr::Unix(path.clone()), 1),
        entry(Kind::Tcp, tcp_addr, 2),
        entry(Kind::Udp, udp_addr, 1),
        entry(Kind::AdminTcp, admin_addr, 1),
        entry(Kind::AdminUnix, &BindAddr::Unix(control.clone()), 1),
    ];
    let fds = [
        unix.as_fd(),
        tcp.as_fd(),
        tcp.as_fd(),
        udp.as_fd(),
        admin.as_fd(),
        admin_unix.as_fd(),
    ];
    let mut inherited = hand(sockets.clone(), &fds).unwrap();
    assert_eq!(inherited.predecessor(), Some((std::process::id(), 3)));
    assert!(inherited.left().eq(&sockets));
    let mut count = |kind, addr| inherited.take(kind, &addr).map(|fds| fds.len());
    assert_eq!(count(Kind::Tcp, ip(admin_addr)), None, "it is the admin's");
    assert_eq!(count(Kind::Tcp, BindAddr::Unix(path.clone())), None);
    assert_eq!(count(Kind::Tcp, ip(tcp_addr)), Some(2));
    assert_eq!(count(Kind::Tcp, ip(tcp_addr)), None, "taken");
    assert_eq!(count(Kind::Udp, ip(udp_addr)), Some(1));
    assert_eq!(count(Kind::Unix, BindAddr::Unix(path)), Some(1));
    assert_eq!(count(Kind::AdminTcp, ip(admin_addr)), Some(1));
    let left: Vec<_> = inherited.left().map(|e| e.kind).collect();
    assert_eq!(left, [Kind::AdminUnix]);
}

#[test]
fn more_than_one_batch_arrives_whole_and_closed_on_exec() {
    let (listener, addr) = listener();
    let fds = vec![listener.as_fd(); 260];
    let mut inherited = hand(vec![entry(Kind::Tcp, addr, 260)], &fds).unwrap();
    let fds = inherited.take(Kind::Tcp, &ip(addr)).unwrap();
    assert_eq!(fds.len(), 260);
    let flags = rustix::io::fcntl_getfd(&fds[259]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn nothing_to_hand_over_is_a_handover() {
    let inherited = hand(Vec::new(), &[]).unwrap();
    assert_eq!(inherited.left().count(), 0);
}

#[test]
fn port_that_the_kernel_chose_goes_with_port_zero() {
    let held = bind(&BindAddr::Any(0), 1).unwrap();
    let addr = held.addr().unwrap();
    let (fds, _) = held.into_parts();
    let sockets = vec![entry(Kind::Tcp, &BindAddr::Any(0), 1)];
    let mut inherited = hand(sockets, &[fds[0].as_fd()]).unwrap();
    assert!(inherited.take(Kind::Tcp, &BindAddr::Any(1)).is_none());
    let bound = inherited.bind(Kind::Tcp, &BindAddr::Any(0), 1);
    assert_eq!(bound.unwrap().unwrap().addr(), Some(addr));
}

// === wrong descriptors ===

#[track_caller]
fn refused(entry: Entry, fd: BorrowedFd<'_>, because: &str) {
    match hand(vec![entry], &[fd]).unwrap_err() {
        HandoverError::Socket { why, .. } => assert!(why.contains(because), "{why}"),
        other => panic!("{other}"),
    }
}

#[test]
fn socket_that_does_not_listen_is_refused() {
    let (_listener, addr) = listener();
    let client = TcpStream::connect(addr).unwrap();
    let own = client.local_addr().unwrap();
    refused(
        entry(Kind::Tcp, own, 1),
        client.as_fd(),
        "the socket does not listen",
    );
    let (left, _right) = pair();
    let unix = entry(Kind::Unix, "unix:/x", 1);
    refused(unix, left.as_fd(), "a Unix socket without a path");
}

#[test]
fn descriptor_of_something_else_is_refused() {
    let file = tempfile::tempfile().unwrap();
    refused(
        entry(Kind::Tcp, "127.0.0.1:1", 1),
        file.as_fd(),
        "not a socket",
    );
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = udp.local_addr().unwrap();
    refused(
        entry(Kind::Tcp, addr, 1),
        udp.as_fd(),
        "it is a Udp socket, not a Tcp one",
    );
}

#[test]
fn socket_of_another_address_is_refused() {
    let (listener, addr) = listener();
    let other = SocketAddr::new(addr.ip(), addr.port() ^ 1);
    let why = format!("the socket is bound to {addr}");
    refused(entry(Kind::Tcp, other, 1), listener.as_fd(), &why);
    refused(
        entry(Kind::Tcp, &BindAddr::Any(addr.port()), 1),
        listener.as_fd(),
        &why,
    );
    refused(
        entry(Kind::Tcp, "somewhere", 1),
        listener.as_fd(),
        "its address is not one",
    );
}

#[test]
fn sockets_of_two_addresses_are_not_one_listener() {
    let ((a, _), (b, _)) = (listener(), listener());
    let sockets = vec![entry(Kind::Tcp, "127.0.0.1:0", 2)];
    let error = hand(sockets, &[a.as_fd(), b.as_fd()]).unwrap_err();
    assert!(error.to_string().contains("different addresses"), "{error}");
}

// === a broken sender ===

#[test]
fn truncated_handovers_are_closed_ones() {
    let (listener, addr) = listener();
    let manifest = Manifest::new(0, vec![entry(Kind::Tcp, addr, 1)]);
    let whole = frame(b'M', &serde_json::to_vec(&manifest).unwrap());
    // Every length, the whole manifest without its descriptors too.
    for end in 0..=whole.len() {
        let error = of_bytes(&whole[..end]);
        assert!(matches!(error, HandoverError::Closed), "{end}: {error}");
    }
    drop(listener);
}

#[test]
fn garbage_is_not_understood() {
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x00\xf4\x01".to_vec(),
        frame(b'M', b"{"),
        frame(b'M', b"\"version 1\""),
        frame(b'M', b"{\"version\":1}"),
        frame(b'M', b"\xff\xfe"),
        frame(b'R', b""),
        frame(b'S', b"changed my mind"),
        // A descriptor's byte without the descriptor.
        [
            frame(
                b'M',
                br#"{"version":1,"pid":1,"generation":0,"sockets":[{"kind":"tcp","name":"a","addr":":1","count":1}]}"#,
            ),
            vec![1],
        ]
        .concat(),
    ] {
        let error = of_bytes(&bytes);
        let is_so = match &error {
            HandoverError::Malformed { .. } => true,
            // "GET / HTTP": a message, with a length of 1.1 GB.
            HandoverError::TooLarge { count, .. } => bytes[0] == b'G' && *count > 1 << 30,
            _ => false,
        };
        assert!(is_so, "{error}");
    }
}

#[test]
fn another_version_is_named() {
    let error = of_bytes(&frame(b'M', b"{\"version\":2,\"what\":[]}"));
    assert!(matches!(error, HandoverError::Version { theirs: 2 }));
}

#[test]
fn too_much_is_refused_before_it_is_read() {
    let mut header = vec![b'M'];
    header.extend(((1 << 20) + 1_u32).to_be_bytes());
    assert!(matches!(
        of_bytes(&header),
        HandoverError::TooLarge {
            count: 1_048_577,
            ..
        }
    ));
    for counts in [[4096, 1], [usize::MAX, usize::MAX]] {
        let [a, b] = counts;
        let sockets = vec![entry(Kind::Tcp, ":1", a), entry(Kind::Tcp, ":2", b)];
        let manifest = serde_json::to_vec(&Manifest::new(0, sockets)).unwrap();
        assert!(matches!(
            of_bytes(&frame(b'M', &manifest)),
            HandoverError::TooLarge { .. }
        ));
    }
}

#[test]
fn manifest_that_contradicts_itself_is_refused_by_both_ends() {
    let (listener, addr) = listener();
    let fd = listener.as_fd();
    let none = vec![entry(Kind::Tcp, addr, 0)];
    let twice = vec![entry(Kind::Tcp, addr, 1), entry(Kind::Tcp, addr, 1)];
    let mut kept = vec![entry(Kind::Tcp, addr, 1)];
    kept[0].kept = 2;
    let (ours, _theirs) = pair();
    for (sockets, fds) in [(none, vec![]), (twice, vec![fd, fd]), (kept, vec![fd])] {
        let manifest = Manifest::new(0, sockets);
        let error = send(&ours, &manifest, &fds, LONG).unwrap_err();
        assert!(matches!(error, HandoverError::Malformed { .. }), "{error}");
        let error = of_bytes(&frame(b'M', &serde_json::to_vec(&manifest).unwrap()));
        assert!(matches!(error, HandoverError::Malformed { .. }), "{error}");
    }
    let one = Manifest::new(0, vec![entry(Kind::Tcp, addr, 1)]);
    assert!(send(&ours, &one, &[fd, fd], LONG).is_err());
}

// === deadlines ===

#[test]
fn silent_sender_is_given_up() {
    let (_ours, theirs) = pair();
    let error = receive(&theirs, SHORT).unwrap_err();
    assert!(matches!(error, HandoverError::Deadline { after: SHORT }));
}

#[test]
fn sender_that_stops_half_way_is_given_up() {
    let (mut ours, theirs) = pair();
    ours.write_all(&frame(b'M', b"{}")[..6]).unwrap();
    let error = receive(&theirs, SHORT).unwrap_err();
    assert!(matches!(error, HandoverError::Deadline { .. }));
}

#[test]
fn receiver_that_does_not_read_is_given_up() {
    let (ours, _theirs) = pair();
    // More than the buffers of a socketpair hold.
    let name = "x".repeat(900_000);
    let mut entry = entry(Kind::Tcp, ":1", 1);
    entry.name = name;
    let (listener, _) = listener();
    let manifest = Manifest::new(0, vec![entry]);
    let error = send(&ours, &manifest, &[listener.as_fd()], SHORT).unwrap_err();
    assert!(matches!(error, HandoverError::Deadline { .. }), "{error}");
}

#[test]
fn receiver_that_is_gone_is_an_error_and_no_signal() {
    let (ours, theirs) = pair();
    drop(theirs);
    let error = send(&ours, &Manifest::new(0, Vec::new()), &[], LONG).unwrap_err();
    assert!(matches!(error, HandoverError::Closed), "{error}");
}

#[test]
fn stream_that_was_nonblocking_waits_all_the_same() {
    let (ours, theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        let hearer = scope.spawn(|| hear(&theirs, LONG).unwrap());
        say(&ours, &Message::Go, LONG).unwrap();
        assert_eq!(hearer.join().unwrap(), Message::Go);
    });
}

// === messages ===

#[test]
fn messages_arrive_in_order_after_the_descriptors() {
    let (listener, addr) = listener();
    let (ours, theirs) = pair();
    let manifest = Manifest::new(0, vec![entry(Kind::Tcp, addr, 1)]);
    send(&ours, &manifest, &[listener.as_fd()], LONG).unwrap();
    say(&ours, &Message::Go, LONG).unwrap();
    say(&ours, &Message::Stop("too late".to_owned()), LONG).unwrap();
    assert_eq!(receive(&theirs, LONG).unwrap().left().count(), 1);
    assert_eq!(hear(&theirs, LONG).unwrap(), Message::Go);
    assert_eq!(
        hear(&theirs, LONG).unwrap(),
        Message::Stop("too late".to_owned())
    );
    let failed = Message::Failed("web.toml:3: what?\n".to_owned());
    for message in [Message::Ready, failed] {
        say(&theirs, &message, LONG).unwrap();
        assert_eq!(hear(&ours, LONG).unwrap(), message);
    }
    drop(theirs);
    assert!(matches!(hear(&ours, LONG), Err(HandoverError::Closed)));
}

#[test]
fn long_reason_is_cut_between_characters() {
    let (ours, theirs) = pair();
    // Two bytes each, after one of one: the limit is in the middle of one of them.
    let text = format!("x{}", "é".repeat(40_000));
    say(&ours, &Message::Failed(text.clone()), LONG).unwrap();
    match hear(&theirs, LONG).unwrap() {
        Message::Failed(cut) => {
            assert_eq!(cut.len(), MAX_TEXT_BYTES - 1);
            assert!(text.starts_with(&cut));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_message_is_not_understood() {
    for bytes in [frame(b'M', b"{}"), frame(b'x', b""), vec![0; 5]] {
        let (mut ours, theirs) = pair();
        ours.write_all(&bytes).unwrap();
        let error = hear(&theirs, LONG).unwrap_err();
        assert!(matches!(error, HandoverError::Malformed { .. }), "{error}");
    }
    let (mut ours, theirs) = pair();
    ours.write_all(b"F\x00\x01\x00\x01").unwrap();
    let error = hear(&theirs, LONG).unwrap_err();
    assert!(matches!(error, HandoverError::TooLarge { .. }), "{error}");
}

// === binding ===

/// Connects until every one of the sockets has accepted.
fn each_accepts(addr: SocketAddr, sockets: &[TcpListener]) {
    let mut has_accepted = vec![false; sockets.len()];
    // The kernel spreads by a hash of the addresses: 1000 ports of a client miss one of 4 sockets
    // once in 10^124.
    for _ in 0..1000 {
        let _client = TcpStream::connect(addr).unwrap();
        for (socket, has) in sockets.iter().zip(&mut has_accepted) {
            *has |= socket.accept().is_ok();
        }
        if has_accepted.iter().all(|has| *has) {
            return;
        }
    }
    panic!("{has_accepted:?}");
}

#[test]
fn workers_without_an_inherited_socket_get_new_ones_of_the_same_port() {
    for text in ["127.0.0.1:0", "[::1]:0", ":0"] {
        let configured = parsed(text);
        let Ok(first) = bind(&configured, 2) else {
            // No IPv6 on this machine.
            continue;
        };
        let addr = first.addr().unwrap();
        let (fds, _) = first.into_parts();
        let sockets = vec![entry(Kind::Tcp, &configured, 2)];
        let mut inherited = hand(sockets, &[fds[0].as_fd(), fds[1].as_fd()]).unwrap();
        drop(fds);
        match inherited.bind(Kind::Tcp, &configured, 4).unwrap().unwrap() {
            Bound::Tcp {
                addr: bound,
                sockets,
                ..
            } => {
                assert_eq!(bound, addr);
                assert_eq!(sockets.len(), 4);
                let to = if addr.ip().is_unspecified() {
                    SocketAddr::new([127, 0, 0, 1].into(), addr.port())
                } else {
                    addr
                };
                each_accepts(to, &sockets);
            }
            Bound::Udp { .. } | Bound::Unix { .. } => panic!("not TCP"),
        }
    }
}

/// Who shares a socket for datagrams has some of those of each flow.
#[test]
fn a_socket_for_datagrams_that_cannot_be_shared_is_one_workers() {
    let configured = parsed("127.0.0.1:0");
    let first = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = first.local_addr().unwrap();
    // A neighbour that shares its address by another option keeps everybody out, as another user's would.
    let neighbour =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    SockRef::from(&first).set_reuse_address(true).unwrap();
    neighbour.set_reuse_address(true).unwrap();
    neighbour.bind(&addr.into()).unwrap();
    let sockets = vec![entry(Kind::Udp, &configured, 1)];
    let mut inherited = hand(sockets, &[first.as_fd()]).unwrap();
    let bound = inherited.bind(Kind::Udp, &configured, 4).unwrap().unwrap();
    assert_eq!(bound.addr(), Some(addr));
    assert_eq!(bound.into_parts().0.len(), 1);
}

fn parsed(text: &str) -> BindAddr {
    match text {
        ":0" => BindAddr::Any(0),
        ip => BindAddr::Ip(ip.parse().unwrap()),
    }
}

#[test]
fn sockets_beyond_the_workers_all_come_back() {
    let configured = parsed("127.0.0.1:0");
    let (fds, _) = bind(&configured, 3).unwrap().into_parts();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut inherited = hand(vec![entry(Kind::Tcp, &configured, 3)], &fds).unwrap();
    let bound = inherited.bind(Kind::Tcp, &configured, 1).unwrap().unwrap();
    assert_eq!(bound.into_parts().0.len(), 3);
    assert!(inherited.bind(Kind::Tcp, &configured, 1).is_none());
}

#[test]
fn unix_socket_is_shared_and_its_file_goes_with_the_successor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let configured = BindAddr::Unix(path.clone());
    let (fds, file) = bind(&configured, 1).unwrap().into_parts();
    let sockets = vec![entry(Kind::Unix, &configured, 1)];
    let fails = hand(sockets.clone(), &[fds[0].as_fd()])
        .unwrap()
        .bind(Kind::Unix, &configured, 1);
    drop(fails.unwrap().unwrap());
    assert!(path.exists(), "a successor that does not come up leaves it");
    let mut inherited = hand(sockets, &[fds[0].as_fd()]).unwrap();
    let file = file.unwrap();
    file.keep();
    drop((fds, file));
    assert!(path.exists(), "the predecessor left it");
    let bound = inherited.bind(Kind::Unix, &configured, 3).unwrap().unwrap();
    let (fds, file) = bound.into_parts();
    assert_eq!(fds.len(), 3);
    let client = UnixStream::connect(&path).unwrap();
    let [.., last] = <[OwnedFd; 3]>::try_from(fds).unwrap();
    drop(UnixListener::from(last).accept().unwrap());
    file.as_ref().unwrap().own();
    drop((client, file));
    assert!(!path.exists(), "the successor removed it");
}

// === systemd ===

#[test]
fn activated_sockets_serve_listeners_and_admin_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let ((web, web_addr), (admin, admin_addr)) = (listener(), listener());
    let any = bind(&BindAddr::Any(0), 1).unwrap();
    let any_addr = any.addr().unwrap();
    let any_fd = any.into_parts().0.remove(0);
    let given: Vec<(OwnedFd, String)> = vec![
        (web.into(), "web".to_owned()),
        (unix.into(), "unknown".to_owned()),
        (admin.into(), "admin".to_owned()),
        (any_fd, "any".to_owned()),
    ];
    let mut inherited = Inherited::activated(given).unwrap();
    assert_eq!(inherited.predecessor(), None);
    let admin = inherited.bind(Kind::AdminTcp, &ip(admin_addr), 1);
    assert_eq!(admin.unwrap().unwrap().addr(), Some(admin_addr));
    let web = inherited.bind(Kind::Tcp, &ip(web_addr), 2);
    assert_eq!(web.unwrap().unwrap().addr(), Some(web_addr));
    if any_addr.is_ipv6() {
        let any = inherited.take(Kind::Tcp, &BindAddr::Any(any_addr.port()));
        assert_eq!(any.unwrap().len(), 1);
    }
    let unix = inherited.bind(Kind::Unix, &BindAddr::Unix(path.clone()), 1);
    drop(unix.unwrap().unwrap().into_parts());
    assert!(path.exists(), "the file is systemd's");
}

#[test]
fn activated_connection_is_refused() {
    let (_listener, addr) = listener();
    let client = TcpStream::connect(addr).unwrap();
    let error = Inherited::activated(vec![(client.into(), "web".to_owned())]).unwrap_err();
    assert!(error.to_string().contains("does not listen"), "{error}");
}

/// Versions before this one left such a filter on the socket that systemd keeps.
#[test]
fn activated_socket_with_a_closed_entrance_is_opened() {
    let (listener, addr) = listener();
    let nothing = [SockFilter::new(0x06, 0, 0, 0)]; // ret: drop
    if SockRef::from(&listener).attach_filter(&nothing).is_err() {
        // Sandboxes may forbid filters.
        return;
    }
    let given = vec![(listener.into(), "web".to_owned())];
    let mut inherited = Inherited::activated(given).unwrap();
    let bound = inherited.bind(Kind::Tcp, &ip(addr), 1).unwrap().unwrap();
    TcpStream::connect_timeout(&addr, LONG).unwrap();
    drop(bound);
}

#[test]
fn what_systemd_keeps_is_known_to_every_successor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let configured = BindAddr::Unix(path.clone());
    let unix = UnixListener::bind(&path).unwrap();
    let (tcp, addr) = listener();
    let mut sockets = vec![entry(Kind::Unix, &configured, 1), entry(Kind::Tcp, addr, 2)];
    for entry in &mut sockets {
        entry.kept = 1;
    }
    let fds = [unix.as_fd(), tcp.as_fd(), tcp.as_fd()];
    let mut inherited = hand(sockets, &fds).unwrap();
    let bound = inherited.bind(Kind::Tcp, &ip(addr), 2).unwrap().unwrap();
    assert_eq!(bound.kept(), 1);
    let bound = inherited.bind(Kind::Unix, &configured, 2).unwrap().unwrap();
    assert_eq!(bound.kept(), 2, "of one socket");
    let (_fds, file) = bound.into_parts();
    file.as_ref().unwrap().own();
    drop(file);
    assert!(path.exists(), "the file is systemd's");
}

#[test]
fn manifest_of_a_version_that_kept_no_count_of_kept_sockets_is_read() {
    let text = r#"{"kind":"tcp","name":"web","addr":":80","count":2}"#;
    let entry: Entry = serde_json::from_str(text).unwrap();
    assert_eq!(entry.kept, 0);
}
