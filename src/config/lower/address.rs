//! Addresses: where listeners bind, where endpoints are, which networks are meant.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::base::addr::{BindAddr, EndpointAddr};

use super::super::PortZero;
use super::super::diagnostic::{Diagnostic, Report};
use super::super::node::{Located, Node};

/// A bound address with its place.
pub(super) type Bind<'a> = Located<'a, BindAddr>;

/// Longest path of a Unix socket: `sun_path` has 108 bytes and ends with a NUL (unix(7)).
const MAX_UNIX_PATH: usize = 107;

const NAMES_LATER: &str = "write an IP address; names come with \
    `source = { kind = \"dns\", … }` in a later version";

/// `":8080"`, `"127.0.0.1:8080"`, `"unix:/run/isobar/web.sock"`.
pub(super) fn bind<'a>(
    text: Located<'a, &'a str>,
    report: &Report,
    port_zero: PortZero,
) -> Option<Bind<'a>> {
    const FORMS: &str =
        "write \":8080\", \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/run/web.sock\"";
    let bad = |message: String| Diagnostic::error("bad-address", text.at, message);
    let addr = match unix(text, report) {
        Err(()) => return None,
        Ok(Some(path)) => BindAddr::Unix(path),
        Ok(None) => match read(*text) {
            Read::Ip(addr) => BindAddr::Ip(addr),
            Read::Port(port) => BindAddr::Any(port),
            Read::BarePort(port) => {
                let d = bad(format!("`{}` is not an address to listen on", *text));
                report.push(d.help(format!("did you mean \":{port}\"?")));
                return None;
            }
            Read::NoPort(ip) => {
                let d = bad(format!("`{}` has no port", *text));
                report.push(d.help(format!("did you mean \"{}\"?", SocketAddr::new(ip, 8080))));
                return None;
            }
            Read::Name => {
                let d = bad(format!(
                    "`{}` is a name: a listener needs an address",
                    *text
                ));
                report.push(d.help(instead_of_name(*text)));
                return None;
            }
            Read::Url | Read::Nonsense => {
                let d = bad(format!("`{}` is not an address to listen on", *text));
                let port = text.strip_prefix("*:").and_then(|p| p.parse::<u16>().ok());
                report.push(match port {
                    Some(port) => d.help(format!("did you mean \":{port}\"?")),
                    None => d.help(FORMS),
                });
                return None;
            }
        },
    };
    if port_zero == PortZero::Refused
        && matches!(&addr, BindAddr::Any(0)) | matches!(&addr, BindAddr::Ip(a) if a.port() == 0)
    {
        let d = Diagnostic::error("port-zero", text.at, format!("`{}` has port 0", *text));
        report.push(d.help("choose a port from 1 to 65535"));
        return None;
    }
    Some(Located {
        value: addr,
        at: text.at,
    })
}

/// What to write where somebody named a machine: a name is looked up at one moment and may mean another
/// address, or two, at the next.
fn instead_of_name(text: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "8080"));
    if host.eq_ignore_ascii_case("localhost") {
        return format!(
            "it may mean two addresses: write \"127.0.0.1:{port}\", \"[::1]:{port}\", or a list of both"
        );
    }
    format!(
        "a name can mean another address tomorrow: write \":{port}\" for every address of this machine \
         (IPv4 and IPv6), or one of them, such as \"192.0.2.1:{port}\" or \"[2001:db8::1]:{port}\""
    )
}

/// `admin.bind`: one IP address and port.
pub(super) fn admin(node: Node<'_>, port_zero: PortZero) -> Option<(SocketAddr, Bind<'_>)> {
    let text = node.text()?;
    let bound = bind(text, node.report, port_zero)?;
    let (what, help) = match &bound.value {
        BindAddr::Ip(addr) => return Some((*addr, bound)),
        BindAddr::Any(port) => (
            "names no address",
            format!(
                "say who may see it: \"127.0.0.1:{port}\" (this machine), \"0.0.0.0:{port}\" (everyone)"
            ),
        ),
        BindAddr::Unix(_) => ("is a Unix socket", "write \"127.0.0.1:9090\"".to_owned()),
    };
    let message = format!("`bind` of `admin`: `{}` {what}", *text);
    node.report
        .push(node.error("bad-address", message).help(help));
    None
}

/// `admin.socket`: the path of a Unix socket, without `unix:`.
pub(super) fn socket(node: Node<'_>) -> Option<(PathBuf, Bind<'_>)> {
    let text = node.text()?;
    let bad = |message: String| {
        let d = node.error("bad-path", message);
        let help = "write the path of a file, such as \"/run/isobar/admin.sock\"";
        node.report.push(d.help(help));
        None
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let message = format!("`socket` of `admin`: `{}` is not a path", *text);
        let help = format!("did you mean \"{path}\"?");
        node.report.push(node.error("bad-path", message).help(help));
        return None;
    }
    let path = Path::new(*text);
    if path.file_name().is_none() || text.ends_with('/') {
        let message = format!(
            "`socket` of `admin`: `{}` names no file",
            text.escape_debug()
        );
        return bad(message);
    }
    let path = match fitting(&text) {
        Ok(path) => path,
        Err(message) => return bad(message),
    };
    let bind = Located {
        value: BindAddr::Unix(path.clone()),
        at: text.at,
    };
    Some((path, bind))
}

/// An endpoint: `"10.0.0.11:8000"`, `"unix:/run/app.sock"`.
pub(super) fn endpoint<'a>(
    text: Located<'a, &'a str>,
    report: &Report,
) -> Option<Located<'a, EndpointAddr>> {
    let bad = |message: String| Diagnostic::error("bad-address", text.at, message);
    let addr = match unix(text, report) {
        Err(()) => return None,
        Ok(Some(path)) => EndpointAddr::Unix(path),
        Ok(None) => match read(*text) {
            Read::Ip(addr) if addr.port() == 0 => {
                let d = Diagnostic::error("port-zero", text.at, format!("`{}` has port 0", *text));
                report.push(d.help("an endpoint needs the port it listens on"));
                return None;
            }
            Read::Ip(addr) if addr.ip().is_unspecified() => {
                let d = bad(format!(
                    "`{}` is every address, not one to connect to",
                    *text
                ));
                let local = SocketAddr::new([127, 0, 0, 1].into(), addr.port());
                report.push(d.help(format!("for this machine, write \"{local}\"")));
                return None;
            }
            Read::Ip(addr) => EndpointAddr::Ip(addr),
            Read::Port(port) | Read::BarePort(port) => {
                let d = bad(format!("`{}` has no host", *text));
                report.push(d.help(format!("for this machine, write \"127.0.0.1:{port}\"")));
                return None;
            }
            Read::NoPort(ip) => {
                let d = bad(format!("`{}` has no port", *text));
                report.push(d.help(format!("did you mean \"{}\"?", SocketAddr::new(ip, 80))));
                return None;
            }
            Read::Name => {
                let message = format!("`{}` is a name: an endpoint needs an address", *text);
                report.push(bad(message).help(NAMES_LATER));
                return None;
            }
            Read::Url => {
                let d = bad(format!("`{}` is a URL: an endpoint is an address", *text));
                report.push(d.help("write host and port alone, such as \"127.0.0.1:3000\""));
                return None;
            }
            Read::Nonsense => {
                let d = bad(format!("`{}` is not the address of an endpoint", *text));
                report.push(
                    d.help("write \"127.0.0.1:3000\", \"[::1]:3000\" or \"unix:/run/app.sock\""),
                );
                return None;
            }
        },
    };
    Some(Located {
        value: addr,
        at: text.at,
    })
}

/// A network in CIDR form, or one address.
pub(super) fn network(text: Located<'_, &str>, report: &Report) -> Option<IpNet> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(IpNet::from(ip));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        let message = format!("`{}` is not a network", *text);
        let d = Diagnostic::error("bad-network", text.at, message);
        report.push(d.help("write \"10.0.0.0/8\", \"2001:db8::/32\" or one address"));
        return None;
    };
    let trunc = net.trunc();
    if trunc != net {
        let message = format!("`{net}` has bits set after its prefix");
        let d = Diagnostic::warning("network-bits", text.at, message);
        report.push(d.help(format!("it means `{trunc}`")));
    }
    Some(trunc)
}

/// Whether two listeners cannot have both addresses. An explicit `[::]` is IPv6 only.
pub(super) fn conflict(a: &BindAddr, b: &BindAddr) -> bool {
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match (a, b) {
        (BindAddr::Unix(a), BindAddr::Unix(b)) => a == b,
        (BindAddr::Unix(_), _) | (_, BindAddr::Unix(_)) => false,
        (BindAddr::Any(0), _) | (_, BindAddr::Any(0)) => false,
        (BindAddr::Any(a), BindAddr::Any(b)) => a == b,
        (BindAddr::Any(port), BindAddr::Ip(addr)) | (BindAddr::Ip(addr), BindAddr::Any(port)) => {
            *port == addr.port()
        }
        (BindAddr::Ip(a), BindAddr::Ip(b)) => {
            let every = |ip: IpAddr| ip.is_unspecified() && (ip == any || ip.is_ipv4());
            a.port() == b.port()
                && a.port() != 0
                && a.is_ipv4() == b.is_ipv4()
                && (a.ip() == b.ip() || every(a.ip()) || every(b.ip()))
        }
    }
}

/// What a text that is not `unix:` looks like.
pub(super) enum Read {
    Ip(SocketAddr),
    /// `:8080`
    Port(u16),
    /// `8080`
    BarePort(u16),
    NoPort(IpAddr),
    Name,
    Url,
    Nonsense,
}

pub(super) fn read(text: &str) -> Read {
    if let Ok(addr) = text.parse() {
        return Read::Ip(addr);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Read::NoPort(ip);
    }
    if text.contains("://") {
        return Read::Url;
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    match port.parse::<u16>() {
        Ok(port) if host.is_empty() => return Read::Port(port),
        Ok(_) => {}
        Err(_) if port.is_empty() && !text.contains(':') => {
            if let Ok(port) = text.parse() {
                return Read::BarePort(port);
            }
        }
        Err(_) => return Read::Nonsense,
    }
    let name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // 999.1.1.1 and 10.0.0 are slips of an address, not names.
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !host.is_empty() && host.chars().all(name) && !numeric {
        Read::Name
    } else {
        Read::Nonsense
    }
}

/// The path after `unix:`, relative ones from the folder of the file.
fn unix(text: Located<'_, &str>, report: &Report) -> Result<Option<PathBuf>, ()> {
    let Some(path) = text.strip_prefix("unix:") else {
        return Ok(None);
    };
    let message = if path.is_empty() {
        "`unix:` has no path".to_owned()
    } else {
        let path = Located {
            value: path,
            at: text.at,
        };
        match fitting(&path) {
            Ok(path) => return Ok(Some(path)),
            Err(message) => message,
        }
    };
    let d = Diagnostic::error("bad-address", text.at, message);
    report.push(d.help("write \"unix:/run/isobar/web.sock\""));
    Err(())
}

/// The path of a Unix socket, from the folder of the file; what is wrong if none can have it.
fn fitting(path: &Located<'_, &str>) -> Result<PathBuf, String> {
    if path.contains('\0') {
        return Err("the path of a Unix socket cannot contain NUL".to_owned());
    }
    let path = path.at.source.folder().join(Path::new(path.value));
    let length = path.as_os_str().len();
    if length > MAX_UNIX_PATH {
        return Err(format!(
            "the path of a Unix socket has {length} bytes; at most {MAX_UNIX_PATH} fit"
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_those_of_the_system() {
        let a = |s: &str| match s.strip_prefix(':') {
            Some(port) => BindAddr::Any(port.parse().unwrap()),
            None => BindAddr::Ip(s.parse().unwrap()),
        };
        for (x, y, expected) in [
            (":80", ":80", true),
            (":80", ":81", false),
            (":80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            (":0", ":0", false),
        ] {
            assert_eq!(conflict(&a(x), &a(y)), expected, "{x} {y}");
            assert_eq!(conflict(&a(y), &a(x)), expected, "{y} {x}");
        }
    }
}
