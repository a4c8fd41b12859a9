//! Addresses as users write them: where to listen, where an endpoint is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindAddr {
    /// `":8080"`: every address of the machine, IPv6 and IPv4 (dual stack where the system has IPv6).
    Any(u16),
    /// `"127.0.0.1:8080"`, `"[::1]:8080"`.
    Ip(SocketAddr),
    /// `"unix:/run/isobar/web.sock"`.
    Unix(PathBuf),
}

/// Where an endpoint is: an address that needs no look-up (names come with discovery).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndpointAddr {
    /// An IP address and port.
    Ip(SocketAddr),
    /// `"unix:/run/app.sock"`.
    Unix(PathBuf),
}

/// The address that a peer is known by: on a dual-stack socket those of IPv4 look like IPv6 (RFC 4291 section
/// 2.5.5.2), and networks, limits and hashes are to see one client under one address.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        // With its scope.
        IpAddr::V6(_) => addr,
    }
}

// === impl BindAddr ===

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, ":{port}"),
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl EndpointAddr ===

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
