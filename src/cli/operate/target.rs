//! What a command is about, as people write it: `upstream/app`, `app/10.0.0.1:80`.

use std::str::FromStr;

use crate::admin::api::encoded;

/// `UPSTREAM/ADDRESS`, or as `get` has it `endpoint/UPSTREAM/ADDRESS`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Endpoint {
    pub(super) upstream: String,
    pub(super) address: String,
}

/// What `get` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Thing {
    Config,
    Endpoint(Endpoint),
    Upstream(String),
    Upstreams,
}

/// What `set` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Setting {
    State(&'static str),
    Weight(u32),
}

// === impl Endpoint ===

impl Endpoint {
    /// Its path in the API.
    pub(super) fn path(&self) -> String {
        let (upstream, address) = (encoded(&self.upstream), encoded(&self.address));
        format!("/v1/upstreams/{upstream}/endpoints/{address}")
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("endpoint/").and_then(split);
        let endpoint = rest.or_else(|| split(text));
        endpoint.ok_or_else(|| "write UPSTREAM/ADDRESS, such as app/10.0.0.1:80".to_owned())
    }
}

/// Names have neither a slash nor a colon; addresses of Unix sockets have both.
fn split(text: &str) -> Option<Endpoint> {
    let (upstream, address) = text.split_once('/')?;
    let is_one = !upstream.is_empty() && !upstream.contains(':') && !address.is_empty();
    is_one.then(|| Endpoint {
        upstream: upstream.to_owned(),
        address: address.to_owned(),
    })
}

// === impl Thing ===

impl FromStr for Thing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None if text == "config" => Ok(Self::Config),
            None if text == "upstreams" => Ok(Self::Upstreams),
            Some(("upstream", name)) if !name.is_empty() && !name.contains('/') => {
                Ok(Self::Upstream(name.to_owned()))
            }
            Some(("endpoint", rest)) => rest.parse().map(Self::Endpoint),
            Some(_) | None => {
                let usage = "write config, upstreams, upstream/NAME or endpoint/UPSTREAM/ADDRESS";
                Err(usage.to_owned())
            }
        }
    }
}

// === impl Setting ===

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || "write weight=NUMBER, state=active, state=drain or state=disable".to_owned();
        match text.split_once('=').ok_or_else(usage)? {
            ("state", "active") => Ok(Self::State("active")),
            ("state", "disable") => Ok(Self::State("disable")),
            ("state", "drain") => Ok(Self::State("drain")),
            ("weight", number) => number.parse().map(Self::Weight).map_err(|_| usage()),
            (_, _) => Err(usage()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_every_kind_are_read() {
        for (text, path) in [
            ("app/10.0.0.1:80", "/v1/upstreams/app/endpoints/10.0.0.1:80"),
            ("app/[::1]:80", "/v1/upstreams/app/endpoints/%5B::1%5D:80"),
            (
                "a.b-c_d/unix:/run/a b.sock",
                "/v1/upstreams/a.b-c_d/endpoints/unix:%2Frun%2Fa%20b.sock",
            ),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.path(), path);
            let thing: Thing = format!("endpoint/{text}").parse().unwrap();
            assert_eq!(thing, Thing::Endpoint(endpoint.clone()));
            assert_eq!(format!("endpoint/{text}").parse(), Ok(endpoint));
        }
        // An upstream may have that name.
        let endpoint: Endpoint = "endpoint/unix:/run/a".parse().unwrap();
        assert_eq!(
            (endpoint.upstream.as_str(), endpoint.address.as_str()),
            ("endpoint", "unix:/run/a")
        );
        for text in ["", "app", "app/", "/10.0.0.1:80", "10.0.0.1:80"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn things_and_settings_are_read_or_refused() {
        assert_eq!("config".parse(), Ok(Thing::Config));
        assert_eq!("upstreams".parse(), Ok(Thing::Upstreams));
        assert_eq!("upstream/app".parse(), Ok(Thing::Upstream("app".into())));
        for text in [
            "",
            "upstream",
            "upstream/",
            "upstream/a/b",
            "route/x",
            "endpoint/a",
        ] {
            assert!(text.parse::<Thing>().is_err(), "{text}");
        }
        assert_eq!("weight=5".parse(), Ok(Setting::Weight(5)));
        assert_eq!("state=drain".parse(), Ok(Setting::State("drain")));
        for text in [
            "weight",
            "weight=",
            "weight=-1",
            "weight=x",
            "state=up",
            "colour=red",
        ] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
    }
}
