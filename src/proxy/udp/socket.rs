//! Sockets to endpoints, and what their errors mean.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::base::addr::EndpointAddr;
use crate::telemetry::metrics::cells::DatagramDrop;
use crate::upstream;

/// Why a datagram was not sent, if it is not the endpoint's doing.
pub(super) fn unsent(errno: Errno) -> Option<DatagramDrop> {
    match errno {
        Errno::MSGSIZE => Some(DatagramDrop::TooLong),
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Some(DatagramDrop::SendBuffer),
        Errno::PERM | Errno::ACCESS => Some(DatagramDrop::Refused),
        _ => None,
    }
}

/// A socket that speaks with `addr` only: the kernel drops what others send, tells of ICMP errors, and
/// finds the route once.
pub(super) fn socket_to(addr: &EndpointAddr) -> Result<OwnedFd, Errno> {
    let EndpointAddr::Ip(addr) = addr else {
        return Err(Errno::AFNOSUPPORT);
    };
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, addr)?;
    Ok(socket)
}

/// Whether we lack something: says nothing of the endpoint. A connect of UDP takes a port of ours, and with none
/// left gives EAGAIN; there is one pool of them whatever the destination (`udp_lib_get_port` of Linux). EADDRNOTAVAIL
/// it gives where there is no address to send from: of IPv6 where that is turned off.
pub(super) fn is_local(errno: Errno) -> bool {
    match errno {
        Errno::AGAIN | Errno::ADDRINUSE => true,
        Errno::ADDRNOTAVAIL => false,
        _ => upstream::is_local(&errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::is_local;

    /// EAGAIN was taken for the endpoint's failure: a flood that had all ports ejected every endpoint.
    #[test]
    fn want_of_ports_and_descriptors_is_ours() {
        for errno in [Errno::AGAIN, Errno::ADDRINUSE, Errno::MFILE] {
            assert!(is_local(errno), "{errno}");
        }
        for errno in [
            Errno::NETUNREACH,
            Errno::HOSTUNREACH,
            Errno::CONNREFUSED,
            Errno::ADDRNOTAVAIL,
        ] {
            assert!(!is_local(errno), "{errno}");
        }
    }
}
