//! isobar inside another program: parse a configuration, start, serve a request, shut down.
//!
//!     cargo run --example embed

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

use isobar::config::{self, PortZero};
use isobar::server::{Server, Shutdown};

// A file may not say port 0 (nobody would find the server); a program may, and asks afterwards.
const CONFIG: &str = r#"
[listeners.web]
bind = "127.0.0.1:0"
upstream = "app"

[upstreams.app]
endpoints = ["127.0.0.1:3000"]

[[routes]]
path = "/hello"
respond = { body = "hello from isobar\n" }
"#;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let loaded = config::parse_with("embed.rs", CONFIG, PortZero::Allowed)?;
    let server = Server::start(&loaded.config)?;
    let addr = server.local_addr("web").ok_or("no listener `web`")?;

    let mut client = TcpStream::connect(addr)?;
    client.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    client.read_to_string(&mut response)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{response}")?;

    match server.shutdown() {
        Shutdown::Clean => writeln!(out, "every exchange was finished")?,
        Shutdown::Cut => writeln!(out, "something was cut")?,
    }
    Ok(())
}
