//! The proxy under test, in this very process, through the embedding API.
//!
//! The one file that knows that API: a change there is followed here, not in every test.

use std::net::SocketAddr;

use super::client::Client;
use isobar::base::addr::EndpointAddr;
use isobar::config::{Config, PortZero};
use isobar::server::{Operations, ReloadError, Server, StartError};
use isobar::upstream::overrides::{Change, Verb};

/// A running proxy; dropping it drains and stops it.
#[derive(Debug)]
pub struct Proxy {
    server: Option<Server>,
}

// === impl Proxy ===

impl Proxy {
    /// Starts it with this configuration; `bind = "127.0.0.1:0"` gives each test its own port.
    #[track_caller]
    pub fn start(toml: &str) -> Self {
        let config = Self::parse(toml);
        let server = Server::start(&config).unwrap_or_else(|e| panic!("start: {e}\n{toml}"));
        Self {
            server: Some(server),
        }
    }

    /// The same where it may rightly fail.
    #[track_caller]
    pub fn try_start(toml: &str) -> Result<Self, StartError> {
        Server::start(&Self::parse(toml)).map(|server| Self {
            server: Some(server),
        })
    }

    /// One listener `web` over these endpoints in turn, one worker; `more` is further TOML, and its
    /// first lines belong to the upstream `app`.
    #[track_caller]
    pub fn over(endpoints: &[SocketAddr], more: &str) -> Self {
        Self::start(&Self::config_over(endpoints, more))
    }

    /// The same, and HTTP/1 only: the preface of HTTP/2 is a refused request like any other.
    #[track_caller]
    pub fn over_h1(endpoints: &[SocketAddr]) -> Self {
        let config = Self::config_over(endpoints, "");
        let listener = "[listeners.web]\n";
        Self::start(&config.replace(listener, &format!("{listener}http2 = \"off\"\n")))
    }

    /// The configuration of [`Proxy::over`].
    pub fn config_over(endpoints: &[SocketAddr], more: &str) -> String {
        let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
        format!(
            "[process]\nworkers = 1\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
             [listeners.web]\nbind = \"127.0.0.1:0\"\nupstream = \"app\"\n\n\
             [upstreams.app]\nbalance = \"round_robin\"\nendpoints = [{}]\n{more}\n",
            endpoints.join(", ")
        )
    }

    /// Where the listener `web` listens.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        self.listener("web")
    }

    /// Where the listener of that name listens.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.server()
            .local_addr(name)
            .unwrap_or_else(|| panic!("no listener `{name}`"))
    }

    /// Every address that the listener of that name listens on, in the order of its `bind`.
    pub fn listeners(&self, name: &str) -> Vec<SocketAddr> {
        self.server().local_addrs(name)
    }

    /// Replaces its configuration while it runs.
    #[track_caller]
    pub fn reload(&self, toml: &str) {
        self.try_reload(toml)
            .unwrap_or_else(|e| panic!("reload: {e}\n{toml}"));
    }

    /// The same where it may rightly fail.
    #[track_caller]
    pub fn try_reload(&self, toml: &str) -> Result<(), ReloadError> {
        self.server().reload(&Self::parse(toml))
    }

    /// Client connections of each worker.
    pub fn connections(&self) -> Vec<usize> {
        self.server().connections()
    }

    /// What an operator would say of an endpoint of the upstream `app`.
    #[track_caller]
    pub fn change(&self, endpoint: SocketAddr, verb: Verb) {
        let change = Change {
            upstream: "app".into(),
            endpoint: EndpointAddr::Ip(endpoint),
            verb,
            owner: "test".to_owned(),
            reason: String::new(),
            expires_unix_ms: None,
        };
        self.operations().change(change).unwrap();
    }

    /// What operators can ask of it.
    pub fn operations(&self) -> Operations {
        self.server().operations()
    }

    /// Where `/metrics` is.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.server()
            .admin_addr()
            .expect("an [admin] bind in the test's configuration")
    }

    /// The value of one series of `/metrics`, named with its labels as printed; 0 if absent.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        Client::metric(self.admin(), series)
    }

    /// Drains and stops; returns when all is over.
    pub fn shutdown(mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }

    #[track_caller]
    fn parse(toml: &str) -> Config {
        isobar::config::parse_with("test.toml", toml, PortZero::Allowed)
            .unwrap_or_else(|e| panic!("the test's configuration: {e}\n{toml}"))
            .config
    }

    fn server(&self) -> &Server {
        self.server
            .as_ref()
            .expect("invariant: only shutdown takes it, and consumes self")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}
