//! Sockets for datagrams: one a worker, so that the kernel keeps a flow with one of them.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

/// What is asked for to hold datagrams that wait to be read: 5,000 small ones (each takes 768 bytes of
/// it), the burst of half a tick at 100,000 a second. The kernel cuts it to net.core.rmem_max (212,992 by
/// default): raise that one where datagrams are lost (`RcvbufErrors` of `nstat`).
const RECEIVE_BUFFER: usize = 4 << 20;

/// What sockets for datagrams at `ip` need, beside what those of connections have in common with them.
pub(super) fn tune(socket: &Socket, ip: IpAddr) -> io::Result<()> {
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
