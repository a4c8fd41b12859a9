//! A balancing policy of your own; this one takes the second ready endpoint.
//!
//!     cargo run --example custom_balancer

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use isobar::balance::{Ask, Balancer, Member};
use isobar::config::{self, PortZero};
use isobar::server::Server;

/// Picks the second endpoint that is ready, the first where there is no second, and another one
/// than those already tried while there is any.
#[derive(Debug)]
struct Second {
    ready: Vec<usize>,
}

impl Second {
    fn build(members: &[Member], ready: &[bool]) -> Arc<dyn Balancer> {
        let ready = (0..members.len()).filter(|&i| ready[i]).collect();
        Arc::new(Self { ready })
    }
}

impl Balancer for Second {
    // Called for every exchange by every worker at once: no lock, no allocation.
    fn pick(&self, ask: &mut Ask<'_>) -> Option<usize> {
        let in_order = self.ready.iter().skip(1).chain(self.ready.first());
        let untried = in_order.clone().find(|i| !ask.tried.contains(i));
        untried.or_else(|| in_order.clone().next()).copied()
    }
}

/// Two listeners that answer by themselves, and one in front of them.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let names = ["one", "two"];
    let toml = names.map(|name| {
        format!(
            "[listeners.{name}]\nbind = '127.0.0.1:0'\n\
             [[routes]]\nlisteners = ['{name}']\nrespond = {{ body = '{name}' }}\n"
        )
    });
    let endpoints = config::parse_with("endpoints", &toml.concat(), PortZero::Allowed)?;
    let endpoints = Server::start(&endpoints.config)?;
    let addrs = names.map(|name| endpoints.local_addr(name));
    let [Some(one), Some(two)] = addrs else {
        return Err("an endpoint does not listen".into());
    };
    let toml = format!(
        "[listeners.web]\nbind = '127.0.0.1:0'\nupstream = 'app'\n[upstreams.app]\nendpoints = ['{one}', '{two}']\n"
    );
    let front = config::parse_with("front", &toml, PortZero::Allowed)?;
    let front = Server::builder(&front.config)
        .balancer("app", Second::build)
        .start()?;
    let web = front.local_addr("web").ok_or("no listener `web`")?;
    for _ in 0..3 {
        writeln!(std::io::stdout(), "answered by {}", get(web)?)?;
    }
    front.shutdown();
    endpoints.shutdown();
    Ok(())
}

fn get(addr: SocketAddr) -> Result<String, Box<dyn Error>> {
    let mut client = TcpStream::connect(addr)?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    client.read_to_string(&mut response)?;
    let (_, body) = response.split_once("\r\n\r\n").ok_or("no response")?;
    Ok(body.to_owned())
}
