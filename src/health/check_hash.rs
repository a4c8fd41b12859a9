//! What a check asks, as one number: peers vote with each other on what they ask alike.

use std::os::unix::ffi::OsStrExt;

use crate::base::hash::hash;
use crate::config::{
    BodyPattern, Check, CheckTls, GrpcCheck, HealthSpec, HttpCheck, MysqlCheck, ProxyVersion,
};

/// The hash of what decides whether a check of an endpoint passes, and a vote with it: what is asked and expected,
/// where and how it is connected to, `timeout` and `rise`. Neither what decides when it is asked (`interval`,
/// `down_interval`, `jitter`, `traffic`), nor what one process makes of it alone (`fall`, `init_state`), nor what
/// is in the files of CAs: those of the system differ from machine to machine. The same in every process of a version.
pub fn check_hash(spec: &HealthSpec) -> u64 {
    let HealthSpec {
        check,
        interval: _,
        down_interval: _,
        timeout,
        rise,
        fall: _,
        jitter: _,
        port,
        init_state: _,
        traffic: _,
        tls,
        send_proxy_protocol,
    } = spec;
    let mut bytes = Bytes::default();
    bytes.check(check);
    bytes.raw(&timeout.as_nanos().to_be_bytes());
    bytes.raw(&rise.to_be_bytes());
    bytes.raw(&port.map_or(0, std::num::NonZeroU16::get).to_be_bytes());
    bytes.option(tls.as_ref(), Bytes::tls);
    bytes.raw(&[match send_proxy_protocol {
        None => 0,
        Some(ProxyVersion::V1) => 1,
        Some(ProxyVersion::V2) => 2,
    }]);
    hash(&bytes.0)
}

/// Fields one after the other: those of variable length begin with it, so that no two specs are the same bytes.
#[derive(Default)]
struct Bytes(Vec<u8>);

// === impl Bytes ===

impl Bytes {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, bytes: &[u8]) {
        self.raw(&(bytes.len() as u64).to_be_bytes());
        self.raw(bytes);
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.raw(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn check(&mut self, check: &Check) {
        self.text(check.as_str().as_bytes());
        match check {
            Check::Grpc(GrpcCheck { service, host }) => {
                self.text(service.as_bytes());
                self.option(host.as_ref(), |b, host| b.text(host.as_bytes()));
            }
            Check::Http(check) => self.http(check),
            Check::Mysql(MysqlCheck { user }) => {
                self.option(user.as_ref(), |b, user| b.text(user.as_bytes()));
            }
            Check::Postgres | Check::Redis | Check::Smtp | Check::Tcp => {}
        }
    }

    fn http(&mut self, check: &HttpCheck) {
        let HttpCheck {
            path,
            method,
            host,
            headers,
            status,
            body,
        } = check;
        self.text(path.as_bytes());
        self.text(method.as_str().as_bytes());
        self.option(host.as_ref(), |b, host| b.text(host.as_bytes()));
        self.raw(&(headers.len() as u64).to_be_bytes());
        for (name, value) in headers {
            self.text(name.as_str().as_bytes());
            self.text(value.as_bytes());
        }
        self.raw(&(status.len() as u64).to_be_bytes());
        for (from, to) in status {
            self.raw(&from.to_be_bytes());
            self.raw(&to.to_be_bytes());
        }
        self.option(body.as_ref(), |b, body| match body {
            BodyPattern::Contains(text) => {
                b.raw(&[0]);
                b.text(text.as_bytes());
            }
            BodyPattern::Regex(regex) => {
                b.raw(&[1]);
                b.text(regex.as_str().as_bytes());
            }
        });
    }

    fn tls(&mut self, tls: &CheckTls) {
        let CheckTls {
            server_name,
            ca,
            verify,
            client: _,
            of_upstream,
        } = tls;
        self.option(server_name.as_ref(), |b, name| b.text(name.as_bytes()));
        self.option(ca.as_ref(), |b, ca| b.text(ca.as_os_str().as_bytes()));
        self.raw(&[u8::from(*verify), u8::from(*of_upstream)]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::num::NonZeroU16;
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::config::InitState;

    fn spec() -> HealthSpec {
        HealthSpec {
            check: Check::Tcp,
            interval: Duration::from_secs(5),
            down_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            jitter: 0.0,
            port: None,
            init_state: InitState::Up,
            traffic: false,
            tls: None,
            send_proxy_protocol: None,
        }
    }

    fn http(path: &str, method: Method, body: Option<BodyPattern>) -> Check {
        Check::Http(HttpCheck {
            path: path.to_owned(),
            method,
            host: None,
            headers: Vec::new(),
            status: vec![(200, 399)],
            body,
        })
    }

    /// Peers of one version with one file agree, and those before and after a restart.
    #[test]
    fn values_do_not_change() {
        assert_eq!(check_hash(&spec()), TCP);
        let check = http("/", Method::GET, None);
        assert_eq!(check_hash(&HealthSpec { check, ..spec() }), HTTP);
    }

    const TCP: u64 = 0x7f0b_c338_8d10_3850;
    const HTTP: u64 = 0xb5b7_06db_fcbf_a000;

    #[test]
    fn what_only_says_when_is_not_in_it() {
        let other = HealthSpec {
            interval: Duration::from_secs(1),
            down_interval: Duration::from_secs(2),
            fall: 9,
            jitter: 0.5,
            init_state: InitState::FullyDown,
            traffic: true,
            ..spec()
        };
        assert_eq!(check_hash(&other), check_hash(&spec()));
    }

    #[test]
    fn what_decides_how_it_ends_is() {
        let with = |change: fn(&mut HealthSpec)| {
            let mut spec = spec();
            change(&mut spec);
            check_hash(&spec)
        };
        let contains = || Some(BodyPattern::Contains("ok".to_owned()));
        let regex = Some(BodyPattern::Regex(regex::Regex::new("ok").unwrap()));
        let of = |check| check_hash(&HealthSpec { check, ..spec() });
        let mysql = |user: Option<&str>| {
            let user = user.map(str::to_owned);
            of(Check::Mysql(MysqlCheck { user }))
        };
        let all = [
            with(|_| {}),
            with(|s| s.timeout = Duration::from_millis(500)),
            with(|s| s.rise = 1),
            with(|s| s.port = NonZeroU16::new(81)),
            with(|s| s.send_proxy_protocol = Some(ProxyVersion::V1)),
            with(|s| s.send_proxy_protocol = Some(ProxyVersion::V2)),
            with(|s| s.check = Check::Redis),
            with(|s| s.check = Check::Grpc(GrpcCheck::default())),
            of(http("/", Method::GET, None)),
            of(http("/a", Method::GET, None)),
            of(http("/", Method::HEAD, None)),
            of(http("/", Method::GET, contains())),
            of(http("/", Method::GET, regex)),
            mysql(None),
            mysql(Some("")),
            mysql(Some("me")),
        ];
        assert_eq!(HashSet::from(all).len(), all.len());
    }
}
