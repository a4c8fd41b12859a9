//! Datagrams of the listening socket by the batch: one recvmmsg for those that wait, one sendmmsg for
//! the answers of one turn.
//!
//! The two calls are nix's, which was here already and wraps them without `unsafe` on our side;
//! rustix has no recvmmsg, and quinn-udp sends one datagram (or one train of GSO) a call and forbids
//! fragments on every socket that it touches, which is right for QUIC and wrong for a large answer
//! of DNS.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg,
};

/// Room for datagrams, lent to one turn of one socket at a time: a worker has one.
#[derive(Debug)]
pub struct Slots {
    bytes: Vec<u8>,
}

/// What belongs to one listening socket: headers of both calls.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where the socket is bound.
    bound: SocketAddr,
    receiving: MultiHeaders<SockaddrStorage>,
    sending: MultiHeaders<SockaddrStorage>,
    /// What was received.
    pub(super) received: Vec<Received>,
    /// What is to be sent.
    pending: Vec<Answer>,
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Where it lies.
    pub slot: usize,
    /// Who sent it; IPv4 is IPv4, whatever the socket.
    pub peer: SocketAddr,
    /// Our address that it was sent to, where the socket has more than one.
    pub local: Option<IpAddr>,
    /// Its length.
    pub len: usize,
}

/// A datagram to a client, in a slot.
#[derive(Clone, Copy, Debug)]
struct Answer {
    slot: usize,
    len: usize,
    to: SocketAddr,
    from: Option<IpAddr>,
}

/// What became of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Datagrams that went out.
    pub out: u64,
    /// Those for which the socket had no room.
    pub full: u64,
    /// Those that the system refused.
    pub refused: u64,
}

/// Datagrams of one system call. Half of what a call costs is the call when datagrams are small; from
/// 32 on a datagram's part of it is under 1 %.
pub(super) const BATCH: usize = 32;

/// The longest datagram: what UDP over IPv4 carries is 65,507 bytes, over IPv6 65,527 (without jumbograms).
pub(super) const LONGEST: usize = 65_535;

/// From one slot to the next. Datagrams are short as a rule, and slots that lie a multiple of 4 KiB apart
/// would fight for the same few lines of the cache. 32 of them are 2 MiB of addresses, of which only
/// the pages are real that a datagram has touched.
const STRIDE: usize = 65_536 + 64;

// === impl Slots ===

impl Default for Slots {
    fn default() -> Self {
        Self {
            bytes: vec![0; BATCH * STRIDE],
        }
    }
}

impl Slots {
    /// The first `len` bytes of slot `index`.
    pub(super) fn get(&self, index: usize, len: usize) -> &[u8] {
        &self.bytes[index * STRIDE..][..len]
    }

    /// All of slot `index`.
    pub(super) fn get_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[index * STRIDE..][..LONGEST]
    }
}

// === impl Batch ===

impl Batch {
    /// For a socket that is bound to `bound`.
    pub(super) fn new(bound: SocketAddr) -> Self {
        // Exactly as large as the one message: what is left over would be read as a broken second one.
        let control = bound.ip().is_unspecified().then(|| match bound {
            SocketAddr::V4(_) => nix::cmsg_space!(in_pktinfo),
            SocketAddr::V6(_) => nix::cmsg_space!(in6_pktinfo),
        });
        Self {
            bound,
            receiving: MultiHeaders::preallocate(BATCH, control.clone()),
            sending: MultiHeaders::preallocate(BATCH, control),
            received: Vec::with_capacity(BATCH),
            pending: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what waits, one batch at most, into the first slots. Whether that was all.
    pub(super) fn receive(&mut self, socket: impl AsFd, slots: &mut Slots) -> io::Result<bool> {
        self.received.clear();
        let mut rooms = slots.bytes.chunks_exact_mut(STRIDE);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let room = rooms.next().unwrap_or_default();
            let end = room.len().min(LONGEST);
            [IoSliceMut::new(&mut room[..end])]
        });
        let fd = socket.as_fd().as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let mut is_bare = false;
        let mut count = 0;
        for message in recvmmsg(fd, &mut self.receiving, slices.iter_mut(), flags, None)? {
            let slot = count;
            count += 1;
            let mut local = None;
            if let Ok(controls) = message.cmsgs() {
                for control in controls {
                    local = local.or(local_of(&control));
                }
            }
            is_bare |= local.is_none();
            // An address of another family than the socket's does not come.
            let Some(peer) = message.address.as_ref().and_then(socket_addr) else {
                continue;
            };
            self.received.push(Received {
                slot,
                peer,
                local,
                len: message.bytes,
            });
        }
        if is_bare && self.bound.ip().is_unspecified() {
            // The kernel notes in a header how much of its room it used; nix would offer only that the
            // next time.
            *self = Self {
                received: std::mem::take(&mut self.received),
                pending: std::mem::take(&mut self.pending),
                ..Self::new(self.bound)
            };
        }
        Ok(count < BATCH)
    }

    /// Slots that are free for answers: from the index given on.
    pub(super) fn free(&self) -> usize {
        self.pending.len()
    }

    /// The first `len` bytes of the first free slot are an answer.
    pub(super) fn push(&mut self, len: usize, to: SocketAddr, from: Option<IpAddr>) {
        self.pending.push(Answer {
            slot: self.pending.len(),
            len,
            to,
            from,
        });
    }

    /// Whether no slot is free.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() == BATCH
    }

    /// Sends the answers. One that cannot be sent is dropped, as a router would, and keeps nobody else
    /// back.
    pub(super) fn flush(&mut self, socket: impl AsFd, slots: &Slots) -> Sent {
        let mut sent = Sent::default();
        let mut at = 0;
        while at < self.pending.len() {
            // The control message is the same for all of one call.
            let from = self.pending[at].from;
            let same = self.pending[at..].iter().take_while(|a| a.from == from);
            let end = at + same.count();
            match self.send(&socket, slots, at..end) {
                // Never nothing without an error.
                Ok(count) => {
                    sent.out += count as u64;
                    at += count.max(1);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let is_full = error.kind() == io::ErrorKind::WouldBlock
                        || error.raw_os_error() == Some(nix::libc::ENOBUFS);
                    if is_full {
                        sent.full += 1;
                    } else {
                        sent.refused += 1;
                        tracing::debug!(%error, to = %self.pending[at].to, "answer dropped");
                    }
                    at += 1;
                }
            }
        }
        self.pending.clear();
        sent
    }

    fn send(
        &mut self,
        socket: &impl AsFd,
        slots: &Slots,
        range: std::ops::Range<usize>,
    ) -> io::Result<usize> {
        let answers = &self.pending[range];
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|i| {
            let answer = answers.get(i);
            [IoSlice::new(
                answer.map_or(&[], |a| slots.get(a.slot, a.len)),
            )]
        });
        let v6 = self.bound.is_ipv6();
        let addrs: [Option<SockaddrStorage>; BATCH] =
            std::array::from_fn(|i| answers.get(i).map(|a| storage(a.to, v6)));
        let from = answers.first().and_then(|a| a.from);
        let fd = socket.as_fd().as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let (slices, addrs) = (&slices[..answers.len()], &addrs[..answers.len()]);
        let headers = &mut self.sending;
        let sent = match (self.bound, from) {
            (SocketAddr::V4(bound), from) if bound.ip().is_unspecified() => {
                let info = [in_pktinfo {
                    // Any interface: the route decides, as for an unbound socket.
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr {
                        s_addr: v4(from).to_bits().to_be(),
                    },
                    ipi_addr: in_addr { s_addr: 0 },
                }];
                let control = [ControlMessage::Ipv4PacketInfo(&info[0])];
                sendmmsg(fd, headers, slices, addrs, &control[..], flags)?.count()
            }
            (SocketAddr::V6(bound), from) if bound.ip().is_unspecified() => {
                let info = [in6_pktinfo {
                    ipi6_addr: in6_addr {
                        s6_addr: v6_of(from).octets(),
                    },
                    ipi6_ifindex: 0,
                }];
                let control = [ControlMessage::Ipv6PacketInfo(&info[0])];
                sendmmsg(fd, headers, slices, addrs, &control[..], flags)?.count()
            }
            _ => {
                let none: [ControlMessage<'_>; 0] = [];
                sendmmsg(fd, headers, slices, addrs, &none[..], flags)?.count()
            }
        };
        Ok(sent)
    }
}

/// The address that a datagram was sent to; of one to all on a network (IPv4) ours there, from which it can be
/// answered (ip(7): `ipi_spec_dst`).
fn local_of(control: &ControlMessageOwned) -> Option<IpAddr> {
    match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let ip = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
            Some(IpAddr::V4(ip))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical())
        }
        _ => None,
    }
}

fn socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    let v6 = SocketAddrV6::from(*storage.as_sockaddr_in6()?);
    Some(match v6.ip().to_ipv4_mapped() {
        Some(ip) => SocketAddr::V4(SocketAddrV4::new(ip, v6.port())),
        None => SocketAddr::V6(v6),
    })
}

/// `addr` as a socket of IPv6, or of IPv4, takes it.
fn storage(addr: SocketAddr, is_v6: bool) -> SockaddrStorage {
    match addr {
        SocketAddr::V4(v4) if is_v6 => {
            SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
        }
        SocketAddr::V4(v4) => v4.into(),
        SocketAddr::V6(v6) => v6.into(),
    }
}

/// "Unspecified" lets the route choose.
fn v4(from: Option<IpAddr>) -> Ipv4Addr {
    match from {
        Some(IpAddr::V4(ip)) => ip,
        Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
    }
}

fn v6_of(from: Option<IpAddr>) -> Ipv6Addr {
    match from {
        Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
        Some(IpAddr::V6(ip)) => ip,
        None => Ipv6Addr::UNSPECIFIED,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::base::addr::BindAddr;
    use crate::listener::{Bound, bind_udp};

    fn bind(addr: &BindAddr) -> (UdpSocket, Batch) {
        let bound = bind_udp(addr, 1).unwrap();
        let Bound::Udp { addr, mut sockets } = bound else {
            panic!("not UDP")
        };
        (sockets.remove(0), Batch::new(addr))
    }

    fn client(ip: &str) -> UdpSocket {
        let client = UdpSocket::bind((ip, 0)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        client
    }

    /// Loopback delivers before `send` returns.
    fn echo(server: &UdpSocket, batch: &mut Batch, slots: &mut Slots) -> (Vec<Received>, Sent) {
        batch.receive(server, slots).unwrap();
        let received = batch.received.clone();
        for got in &received {
            batch.push(got.len, got.peer, got.local);
        }
        let sent = batch.flush(server, slots);
        (received, sent)
    }

    #[test]
    fn a_batch_comes_and_goes_in_two_calls() {
        let (server, mut batch) = bind(&BindAddr::Ip("127.0.0.1:0".parse().unwrap()));
        let mut slots = Slots::default();
        let clients: Vec<UdpSocket> = (0..40).map(|_| client("127.0.0.1")).collect();
        for (i, client) in clients.iter().enumerate() {
            let text = vec![i as u8; i];
            client.send_to(&text, server.local_addr().unwrap()).unwrap();
        }
        let (received, sent) = echo(&server, &mut batch, &mut slots);
        assert_eq!(received.len(), BATCH);
        assert_eq!(sent.out, BATCH as u64);
        assert!(received.iter().all(|got| got.local.is_none()));
        let (received, _) = echo(&server, &mut batch, &mut slots);
        assert_eq!(received.len(), 40 - BATCH);
        for (i, client) in clients.iter().enumerate() {
            let mut answer = [0; 99];
            assert_eq!(client.recv(&mut answer).unwrap(), i, "empty ones too");
            assert!(answer[..i].iter().all(|b| *b == i as u8));
        }
        let error = batch.receive(&server, &mut slots).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        let (server, mut batch) = bind(&BindAddr::Any(0));
        let port = server.local_addr().unwrap().port();
        let mut slots = Slots::default();
        let client = client("127.0.0.1");
        for _ in 0..3 {
            for ip in ["127.0.0.2", "127.0.0.1", "127.1.2.3"] {
                client.send_to(ip.as_bytes(), (ip, port)).unwrap();
            }
            let (received, sent) = echo(&server, &mut batch, &mut slots);
            assert_eq!(sent.out, 3);
            assert_eq!(received[0].local, Some("127.0.0.2".parse().unwrap()));
            assert_eq!(received[0].peer, client.local_addr().unwrap());
            for ip in ["127.0.0.2", "127.0.0.1", "127.1.2.3"] {
                let mut answer = [0; 99];
                let (n, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!(from, SocketAddr::new(ip.parse().unwrap(), port));
                assert_eq!(&answer[..n], ip.as_bytes());
            }
        }
    }

    #[test]
    fn a_socket_of_ipv4_alone_answers_from_the_address_that_was_asked() {
        let (server, mut batch) = bind(&BindAddr::Ip("0.0.0.0:0".parse().unwrap()));
        let port = server.local_addr().unwrap().port();
        let mut slots = Slots::default();
        let client = client("127.0.0.1");
        client.send_to(b"x", ("127.0.0.9", port)).unwrap();
        echo(&server, &mut batch, &mut slots);
        let (_, from) = client.recv_from(&mut [0; 9]).unwrap();
        assert_eq!(from, SocketAddr::new("127.0.0.9".parse().unwrap(), port));
    }

    #[test]
    fn the_longest_datagrams_come_whole() {
        let (server, mut batch) = bind(&BindAddr::Ip("127.0.0.1:0".parse().unwrap()));
        let mut slots = Slots::default();
        let client = client("127.0.0.1");
        let text: Vec<u8> = (0..65_507u32).map(|i| (i % 251) as u8).collect();
        client.send_to(&text, server.local_addr().unwrap()).unwrap();
        let (received, _) = echo(&server, &mut batch, &mut slots);
        assert_eq!(received[0].len, 65_507);
        let mut answer = vec![0; 70_000];
        let n = client.recv(&mut answer).unwrap();
        assert_eq!(answer[..n], text);
    }

    #[test]
    fn an_answer_that_cannot_be_sent_keeps_nobody_back() {
        let (server, mut batch) = bind(&BindAddr::Ip("127.0.0.1:0".parse().unwrap()));
        let slots = Slots::default();
        let client = client("127.0.0.1");
        let to = client.local_addr().unwrap();
        batch.push(1, to, None);
        // Nobody can be sent to at port 0.
        batch.push(1, "127.0.0.1:0".parse().unwrap(), None);
        batch.push(1, to, None);
        let sent = batch.flush(&server, &slots);
        assert_eq!((sent.out, sent.refused, sent.full), (2, 1, 0));
        assert_eq!(client.recv(&mut [0; 9]).unwrap(), 1);
        assert_eq!(client.recv(&mut [0; 9]).unwrap(), 1);
    }
}
