//! Binding sockets for datagrams: one a worker, so that the kernel keeps a flow with one of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{Bound, Sharing, Stack};

/// What is asked for to hold datagrams that wait to be read: 5,000 small ones (each takes 768 bytes of
/// it), the burst of half a tick at 100,000 a second. The kernel cuts it to net.core.rmem_max (212,992 by
/// default): raise that one where datagrams are lost (`RcvbufErrors` of `nstat`).
const RECEIVE_BUFFER: usize = 4 << 20;

/// Binds `addr` for `workers` workers.
pub(super) fn bind_ip(
    addr: SocketAddr,
    workers: usize,
    stack: Stack,
    sharing: Sharing,
) -> io::Result<Bound> {
    let mut addr = addr;
    let mut sockets: Vec<Socket> = Vec::with_capacity(workers);
    for i in 0..workers.max(1) {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(stack == Stack::Own)?;
        }
        if i > 0 || sharing == Sharing::WithOurselves {
            socket.set_reuse_port(true)?;
        }
        // No SO_REUSEADDR: with UDP it lets two programs have the same address.
        socket.bind(&addr.into())?;
        if i == 0 {
            // The first socket binds WITHOUT the option: a port that another program holds is refused.
            socket.set_reuse_port(true)?;
            addr = socket.local_addr()?.as_socket().unwrap_or(addr);
        }
        tune(&socket, addr.ip())?;
        sockets.push(socket);
    }
    Ok(bound(addr, sockets))
}

/// Sockets that are bound to `addr` already, made up to `workers`: see
/// [`Inherited::bind`](super::handover::Inherited::bind).
pub(super) fn adopt(
    addr: SocketAddr,
    inherited: Vec<OwnedFd>,
    workers: usize,
) -> io::Result<Bound> {
    let mut sockets: Vec<Socket> = inherited.into_iter().map(Into::into).collect();
    for socket in &sockets {
        tune(socket, addr.ip())?;
    }
    let count = sockets.len();
    if count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for i in count..workers {
        let another = match share_port(addr, &sockets[0]) {
            Ok(socket) => socket,
            // Any error: a handle of an inherited socket serves as well, only less evenly.
            Err(_) => sockets[i % count].try_clone()?,
        };
        sockets.push(another);
    }
    Ok(bound(addr, sockets))
}

fn bound(addr: SocketAddr, sockets: Vec<Socket>) -> Bound {
    Bound::Udp {
        addr,
        sockets: sockets.into_iter().map(Into::into).collect(),
    }
}

/// A new socket at the address of `first`.
fn share_port(addr: SocketAddr, first: &Socket) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    first.set_reuse_port(true)?;
    socket.set_reuse_port(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(first.only_v6()?)?;
    }
    socket.bind(&addr.into())?;
    tune(&socket, addr.ip())?;
    Ok(socket)
}

fn tune(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Best effort: a smaller one works as well, until there is a burst.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    // An answer must come from the address that the client has sent to; bound to all of them, only the
    // datagram itself tells which one that was. Of both stacks IPv6 tells, for IPv4 too.
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::base::addr::BindAddr;
    use crate::listener::{BindError, Bound, bind_udp, bind_udp_beside};

    fn local() -> BindAddr {
        BindAddr::Ip("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn every_worker_gets_a_socket_of_one_port() {
        let bound = bind_udp(&local(), 3).unwrap();
        let Bound::Udp { addr, sockets } = &bound else {
            panic!("not UDP")
        };
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|s| s.local_addr().unwrap() == *addr));
    }

    #[test]
    fn a_port_in_use_is_an_error_even_if_its_holder_would_share() {
        let held = bind_udp(&local(), 2).unwrap();
        let addr = BindAddr::Ip(held.addr().unwrap());
        let again = bind_udp(&addr, 2);
        assert!(matches!(again, Err(BindError::InUse { .. })), "{again:?}");
        assert!(bind_udp_beside(&addr, 2).is_ok());
    }
}
