//! Real sockets, a raw client, and a registrar that remembers what it was asked.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::serve::serve_with;
use super::*;
use crate::base::addr::EndpointAddr;
use crate::config;

/// A hung test fails after this.
const PATIENCE: Duration = Duration::from_secs(60);

const TOKEN: &str = "a token of 24 characters";
const OLD_TOKEN: &str = "the token of last summer";

/// Knows `app` (dynamic) and `fixed` (not).
#[derive(Debug, Default)]
struct Fake {
    registered: Mutex<BTreeMap<String, Wish>>,
    unready: Mutex<Option<&'static str>>,
}

struct Bed {
    addr: SocketAddr,
    fake: Arc<Fake>,
    rules: Arc<ArcSwap<Rules>>,
    register: config::Register,
    stop: CancellationToken,
    server: JoinSet<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Fake {
    fn find(&self, upstream: &str) -> Result<(), RegisterError> {
        if let Some(why) = *self.unready.lock().unwrap() {
            return Err(RegisterError::Unready { why });
        }
        let upstream: config::Name = upstream.into();
        match &*upstream {
            "app" => Ok(()),
            "fixed" => Err(RegisterError::NotDynamic { upstream }),
            _ => Err(RegisterError::UnknownUpstream { upstream }),
        }
    }
}

impl Registrar for Fake {
    fn register(&self, wish: Wish) -> Result<Registration, RegisterError> {
        self.find(&wish.upstream)?;
        let mut registered = self.registered.lock().unwrap();
        let before = registered.insert(wish.endpoint.to_string(), wish);
        Ok(Registration {
            registrar: "00000000000000aa".to_owned(),
            is_new: before.is_none(),
        })
    }

    fn is_registered(&self, _upstream: &str, endpoint: &EndpointAddr) -> bool {
        let registered = self.registered.lock().unwrap();
        registered.contains_key(&endpoint.to_string())
    }

    fn deregister(&self, upstream: &str, endpoint: &EndpointAddr) -> Result<bool, RegisterError> {
        self.find(upstream)?;
        let mut registered = self.registered.lock().unwrap();
        Ok(registered.remove(&endpoint.to_string()).is_some())
    }

    fn members(&self, upstream: &str) -> Result<Vec<MemberView>, RegisterError> {
        self.find(upstream)?;
        let registered = self.registered.lock().unwrap();
        let members = registered.values().map(|wish| MemberView {
            endpoint: wish.endpoint.to_string(),
            weight: wish.weight,
            state: "active".to_owned(),
            origin: "registered".to_owned(),
        });
        Ok(members.collect())
    }
}

impl Bed {
    fn new() -> Self {
        Self::with(PATIENCE)
    }

    fn with(header_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("tokens");
        std::fs::write(&token_file, format!("{TOKEN}\n{OLD_TOKEN}\n")).unwrap();
        let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let register = config::Register {
            bind: addr,
            token_file,
            max_ttl: Duration::from_secs(60),
        };
        let rules = Arc::new(ArcSwap::from_pointee(Rules::read(&register).unwrap()));
        let fake = Arc::<Fake>::default();
        let desk = Desk {
            registrar: fake.clone(),
            rules: rules.clone(),
        };
        let stop = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve_with(listener, desk, stop.clone(), header_timeout));
        Self {
            addr,
            fake,
            rules,
            register,
            stop,
            server,
            _folder: folder,
        }
    }

    /// One request on a connection of its own, as it is.
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .expect("in time")
            .unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    fn wish(&self, endpoint: &str) -> Wish {
        self.fake.registered.lock().unwrap()[endpoint].clone()
    }
}

/// A current-thread runtime, as the control plane has.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

const ENDPOINT: &str = "/v1/upstreams/app/endpoints/10.0.0.9:8080";

#[test]
fn endpoint_registers_renews_and_leaves() {
    run(async {
        let bed = Bed::new();
        let new = bed.ask("PUT", ENDPOINT, "").await;
        assert_eq!(new.status, 201);
        assert!(
            new.head.contains("content-type: application/json"),
            "{}",
            new.head
        );
        assert_eq!(
            new.body,
            json!({
                "upstream": "app",
                "endpoint": "10.0.0.9:8080",
                "ttl_seconds": 30.0,
                "renew_seconds": 10.0,
                "registrar": "00000000000000aa",
            })
        );
        let wish = bed.wish("10.0.0.9:8080");
        assert_eq!(
            (wish.weight, wish.zone, wish.ttl),
            (1, None, Duration::from_secs(30))
        );
        let again = bed.ask("PUT", ENDPOINT, "").await;
        assert_eq!((again.status, &again.body), (200, &new.body));
        let members = bed.ask("GET", "/v1/upstreams/app", "").await;
        assert_eq!(
            (members.status, members.body),
            (
                200,
                json!({
                    "upstream": "app",
                    "members": [{
                        "endpoint": "10.0.0.9:8080",
                        "weight": 1,
                        "state": "active",
                        "origin": "registered",
                    }],
                })
            )
        );
        let gone = bed.ask("DELETE", ENDPOINT, "").await;
        assert_eq!(
            (gone.status, gone.body),
            (
                200,
                json!({ "upstream": "app", "endpoint": "10.0.0.9:8080" })
            )
        );
        let twice = bed.ask("DELETE", ENDPOINT, "").await;
        assert_eq!(
            (twice.status, &twice.body["code"]),
            (404, &json!("not-registered"))
        );
    });
}

#[test]
fn terms_are_in_the_query_or_in_the_body() {
    run(async {
        let bed = Bed::new();
        let terms = |wish: Wish| {
            (
                wish.weight,
                wish.zone.map(|z| z.to_string()),
                wish.ttl.as_millis(),
            )
        };
        let query = format!("{ENDPOINT}?ttl=45s&weight=5&zone=a");
        assert_eq!(bed.ask("PUT", &query, "").await.body["ttl_seconds"], 45.0);
        assert_eq!(
            terms(bed.wish("10.0.0.9:8080")),
            (5, Some("a".to_owned()), 45_000)
        );
        let body = r#"{"weight": 0, "zone": "b.1", "ttl": "1s"}"#;
        assert_eq!(bed.ask("PUT", ENDPOINT, body).await.status, 200);
        assert_eq!(
            terms(bed.wish("10.0.0.9:8080")),
            (0, Some("b.1".to_owned()), 1000)
        );
        let both = bed
            .ask("PUT", &format!("{ENDPOINT}?ttl=2s"), r#"{"weight": 7}"#)
            .await;
        assert_eq!(both.status, 200);
        assert_eq!(terms(bed.wish("10.0.0.9:8080")), (7, None, 2000));
        let v6 = "/v1/upstreams/app/endpoints/%5Bfd00::9%5D:80";
        assert_eq!(bed.ask("PUT", v6, "").await.status, 201);
        assert_eq!(bed.wish("[fd00::9]:80").weight, 1);
    });
}

#[test]
fn who_does_not_know_its_address_says_self() {
    run(async {
        let bed = Bed::new();
        let path = "/v1/upstreams/app/endpoints/self:8080";
        let answer = bed.ask("PUT", path, "").await;
        assert_eq!(
            (answer.status, &answer.body["endpoint"]),
            (201, &json!("127.0.0.1:8080"))
        );
        assert_eq!(bed.ask("DELETE", path, "").await.status, 200);
        for port in ["", "0", "+80", "65536", "80:80", "http"] {
            let answer = bed
                .ask(
                    "PUT",
                    &format!("/v1/upstreams/app/endpoints/self:{port}"),
                    "",
                )
                .await;
            assert_eq!(answer.status, 422, "{port}");
        }
    });
}

#[test]
fn who_shows_no_token_is_told_nothing() {
    run(async {
        let bed = Bed::new();
        for authorization in [
            "",
            "authorization: Bearer\r\n",
            "authorization: Bearer \r\n",
            "authorization: Bearer a token of 24 characterS\r\n",
            "authorization: Bearer a token of 24 character\r\n",
            "authorization: Basic a token of 24 characters\r\n",
            "authorization: Bearer a token of 24 characters\r\nauthorization: Bearer a token of 24 characters\r\n",
        ] {
            for path in [ENDPOINT, "/v1/upstreams/none/endpoints/x", "/"] {
                let request = format!(
                    "PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{authorization}\r\n"
                );
                let answer = bed.raw(&request).await;
                assert_eq!(
                    (answer.status, &answer.body["code"]),
                    (401, &json!("token")),
                    "{authorization}"
                );
                assert!(
                    answer
                        .head
                        .contains("www-authenticate: bearer realm=\"isobar\""),
                    "{}",
                    answer.head
                );
            }
        }
        assert!(bed.fake.registered.lock().unwrap().is_empty());
        // Any of the lines will do, and the name of the scheme has no case.
        let request = format!(
            "PUT {ENDPOINT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: bearer {OLD_TOKEN}\r\n\r\n"
        );
        assert_eq!(bed.raw(&request).await.status, 201);
    });
}

#[test]
fn tokens_and_limits_are_those_of_the_last_reload() {
    run(async {
        let mut bed = Bed::new();
        std::fs::write(&bed.register.token_file, "quite another token\n").unwrap();
        assert_eq!(
            bed.ask("PUT", ENDPOINT, "").await.status,
            201,
            "not read again by itself"
        );
        bed.register.max_ttl = Duration::from_secs(20);
        bed.rules
            .store(Arc::new(Rules::read(&bed.register).unwrap()));
        assert_eq!(bed.ask("PUT", ENDPOINT, "").await.status, 401);
        let request = format!(
            "PUT {ENDPOINT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer quite another token\r\n\r\n"
        );
        assert_eq!(bed.raw(&request).await.body["ttl_seconds"], 20.0);
        std::fs::write(&bed.register.token_file, "short\n").unwrap();
        let error = Rules::read(&bed.register).unwrap_err().to_string();
        assert!(
            error.ends_with("its line 1 has 5 bytes, and a secret at least 16"),
            "{error}"
        );
        assert_eq!(
            format!("{:?}", bed.rules.load()),
            "Rules(1 tokens, at most 20s)"
        );
    });
}

#[test]
fn refusals_teach() {
    run(async {
        let bed = Bed::new();
        let long = format!("{ENDPOINT}?zone={}", "z".repeat(129));
        let cases = [
            (
                "PUT",
                "/v1/upstreams/none/endpoints/10.0.0.9:80",
                "",
                404,
                "unknown-upstream",
                "there is no upstream `none`",
            ),
            (
                "PUT",
                "/v1/upstreams/fixed/endpoints/10.0.0.9:80",
                "",
                409,
                "not-dynamic",
                "upstream `fixed` is not dynamic: set `dynamic = true` in the file that this peer serves",
            ),
            (
                "PUT",
                "/v1/upstreams/app/endpoints/app:80",
                "",
                422,
                "address",
                "`app:80` is not the address of an endpoint; write `10.0.0.1:80`, `[::1]:80` or `unix:/run/app.sock`, or `self:80` for the address that you come from",
            ),
            (
                "PUT",
                "/v1/upstreams/app/endpoints/unix:%2Frun%2Fa.sock",
                "",
                422,
                "address",
                "an endpoint registers with an address that every peer reaches; a Unix socket is none",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?ttl=61s"),
                "",
                422,
                "ttl",
                "`ttl` is 1m1s; this peer takes from 1s to 1m (`max_ttl` in `fleet.register`)",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?ttl=999ms"),
                "",
                422,
                "ttl",
                "`ttl` is 999ms; this peer takes from 1s to 1m (`max_ttl` in `fleet.register`)",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?ttl=30"),
                "",
                422,
                "ttl",
                "`ttl` has no unit; write it as \"30s\"",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?weight=1001"),
                "",
                422,
                "weight",
                "`weight` is `1001`; a weight is a share from 0 to 1000",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?weight=-1"),
                "",
                422,
                "weight",
                "`weight` is `-1`; a weight is a share from 0 to 1000",
            ),
            (
                "PUT",
                ENDPOINT,
                r#"{"weight": 1001}"#,
                422,
                "weight",
                "`weight` is `1001`; a weight is a share from 0 to 1000",
            ),
            (
                "PUT",
                &long,
                "",
                422,
                "zone",
                "`zone` is a name of 1 to 128 letters, digits, `_`, `.` and `-`, as in the file",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?wieght=1"),
                "",
                400,
                "query",
                "unknown parameter `wieght`; there are `ttl`, `weight`, `zone`",
            ),
            (
                "PUT",
                &format!("{ENDPOINT}?weight=1"),
                r#"{"weight": 1}"#,
                400,
                "query",
                "`weight` is in the query and in the body; say it once",
            ),
            (
                "GET",
                "/v1",
                "",
                404,
                "path",
                "nothing here; there are PUT and DELETE /v1/upstreams/{upstream}/endpoints/{address}, GET /v1/upstreams/{upstream}",
            ),
            ("GET", ENDPOINT, "", 405, "method", "only PUT, DELETE here"),
            (
                "PUT",
                "/v1/upstreams/app",
                "",
                405,
                "method",
                "only GET, HEAD here",
            ),
        ];
        for (method, path, body, status, code, detail) in cases {
            let answer = bed.ask(method, path, body).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.body["code"], code, "{path}");
            assert_eq!(answer.body["detail"], detail, "{path}");
        }
        for body in ["{", "[]", r#"{"weight": "5"}"#, r#"{"tll": "5s"}"#] {
            let answer = bed.ask("PUT", ENDPOINT, body).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (400, &json!("body")),
                "{body}"
            );
        }
        let large = format!("{{\"zone\": \"{}\"}}", "z".repeat(4096));
        let answer = bed.ask("PUT", ENDPOINT, &large).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (413, &json!("too-large"))
        );
        assert!(bed.fake.registered.lock().unwrap().is_empty());
    });
}

#[test]
fn peer_that_is_not_ready_says_when_to_try_again() {
    run(async {
        let bed = Bed::new();
        *bed.fake.unready.lock().unwrap() = Some("it is draining");
        for (method, path) in [
            ("PUT", ENDPOINT),
            ("DELETE", ENDPOINT),
            ("GET", "/v1/upstreams/app"),
        ] {
            let answer = bed.ask(method, path, "").await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (503, &json!("unready"))
            );
            assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
            assert_eq!(
                answer.body["detail"],
                "this peer takes no registrations now: it is draining"
            );
        }
    });
}

/// A clock of its own: the server's would give tokens back while a busy machine makes it wait.
#[test]
fn new_registrations_have_a_rate_for_each_token() {
    let bed = tempfile::tempdir().unwrap();
    let token_file = bed.path().join("tokens");
    std::fs::write(&token_file, format!("{TOKEN}\n{OLD_TOKEN}\n")).unwrap();
    let register = config::Register {
        bind: "127.0.0.1:0".parse().unwrap(),
        token_file,
        max_ttl: Duration::from_secs(60),
    };
    let rules = Rules::read(&register).unwrap();
    let (token, old) = (
        rules.find(TOKEN.as_bytes()).unwrap(),
        rules.find(OLD_TOKEN.as_bytes()).unwrap(),
    );
    assert_ne!(token, old);
    assert_eq!(rules.find(b""), None);
    for _ in 0..100 {
        assert_eq!(rules.admit(token, 5_000_000_000), Ok(()));
    }
    assert_eq!(
        rules.admit(token, 5_000_000_000),
        Err(Duration::from_millis(10))
    );
    assert_eq!(rules.admit(old, 5_000_000_000), Ok(()));
    assert_eq!(rules.admit(token, 5_010_000_000), Ok(()));
    assert!(rules.admit(token, 5_010_000_000).is_err());
}

/// More than the rate at once; those that are registered renew all the same.
#[test]
fn flood_of_new_ones_is_refused_and_renewals_are_not() {
    run(async {
        let bed = Bed::new();
        assert_eq!(bed.ask("PUT", ENDPOINT, "").await.status, 201);
        let rules = bed.rules.load_full();
        let shown = rules.find(TOKEN.as_bytes()).unwrap();
        // An hour's worth, as if they had come at once.
        let now = crate::base::clock::Clock::start().now() + 3_600_000_000_000;
        for _ in 0..100 {
            rules.admit(shown, now).unwrap();
        }
        let other = bed
            .ask("PUT", "/v1/upstreams/app/endpoints/10.0.0.8:80", "")
            .await;
        assert_eq!((other.status, &other.body["code"]), (429, &json!("rate")));
        assert!(other.head.contains("retry-after: 3"), "{}", other.head);
        assert_eq!(bed.ask("PUT", ENDPOINT, "").await.status, 200);
    });
}

#[test]
fn silent_clients_are_cut_and_stop_ends_it() {
    run(async {
        let mut bed = Bed::with(Duration::from_millis(50));
        let mut silent = TcpStream::connect(bed.addr).await.unwrap();
        silent.write_all(b"PUT / HTTP/1.1\r\nhost:").await.unwrap();
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, silent.read_to_end(&mut rest)).await;
        end.expect("in time").unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 2"));
        bed.stop.cancel();
        let ended = timeout(PATIENCE, bed.server.join_next())
            .await
            .expect("in time");
        ended.unwrap().unwrap().unwrap();
        assert!(TcpStream::connect(bed.addr).await.is_err());
    });
}
