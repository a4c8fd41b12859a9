//! What the keys of TLS and HTTP/2 amount to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::base::tls::TlsVersion;
use crate::config::diff::diff;
use crate::config::effective::{effective, effective_toml};
use crate::config::{
    Config, HealthSpec, Http2, Listener, ListenerTls, Loaded, Protocol, Upstream, UpstreamTls,
    parse,
};

/// A folder with `ca.pem`, `site.pem`, `site.key`, `other.pem`, `other.key`.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(TempDir::new().unwrap());
        files.renew_ca();
        for name in ["site", "other"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![format!("{name}.example")]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let cert = params.self_signed(&key).unwrap();
            files.write(&format!("{name}.pem"), &cert.pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        files
    }

    fn renew_ca(&self) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write("ca.pem", &ca.pem());
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        let hidden = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, hidden).unwrap();
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn load(&self, text: &str) -> Loaded {
        let name = self.folder().join("t.toml");
        parse(name.to_str().unwrap(), text).unwrap_or_else(|p| panic!("{p}\n{text}"))
    }

    fn listener(&self, keys: &str) -> Listener {
        let text = format!("[listeners.a]\nbind = ':1'\n{keys}\n");
        self.load(&text).config.listeners.remove(0)
    }

    fn listener_tls(&self, keys: &str) -> Arc<ListenerTls> {
        let tls = self.listener(&format!("[listeners.a.tls]\n{PAIR}\n{keys}"));
        tls.tls.unwrap()
    }

    fn upstream(&self, keys: &str) -> Upstream {
        self.config(keys).upstreams.remove(0)
    }

    fn config(&self, keys: &str) -> Config {
        let text = format!("[upstreams.a]\nendpoints = ['127.0.0.1:1']\n{keys}\n");
        self.load(&text).config
    }

    /// The codes of what is warned of.
    fn warnings(&self, keys: &str) -> Vec<&'static str> {
        let text = format!(
            "[listeners.a]\nbind = ':1'\nupstream = 'a'\n[upstreams.a]\nendpoints = \
             ['127.0.0.1:1']\n[listeners.a.tls]\n{keys}\n"
        );
        let loaded = self.load(&text);
        loaded.warnings.iter().map(|w| w.code).collect()
    }
}

const PAIR: &str = "certificates = [{ cert = 'site.pem', key = 'site.key' }]";

fn http2(files: &Files, value: &str) -> Option<Http2> {
    files.listener(&format!("http2 = {value}")).http2
}

#[test]
fn http2_is_on_by_itself() {
    let files = Files::new();
    let plain = files.listener("");
    assert_eq!(plain.http2, Some(Http2::default()));
    assert_eq!((plain.tls, plain.max_connection_age), (None, None));
    assert_eq!(http2(&files, "{}"), Some(Http2::default()));
    assert_eq!(http2(&files, "'off'"), None);
}

#[test]
fn a_connections_window_is_that_of_its_streams() {
    let files = Files::new();
    let of = |value| http2(&files, value).unwrap().connection_window;
    assert_eq!(of("{ max_streams = 10 }"), 10 * 128 * 1024);
    assert_eq!(of("{ connection_window = 'auto' }"), 100 * 128 * 1024);
    assert_eq!(of("{ connection_window = '128KiB' }"), 128 * 1024);
    // RFC 9113 sections 6.9.1 and 6.9.2.
    let least = "{ max_streams = 1, stream_window = '16KiB' }";
    assert_eq!(of(least), 64 * 1024);
    let most = "{ max_streams = 10000, stream_window = '16MiB' }";
    assert_eq!(of(most), (1 << 31) - 1);
}

#[test]
fn connections_may_live_for_ever_or_not() {
    let files = Files::new();
    let of = |value: &str| {
        let key = format!("max_connection_age = '{value}'");
        files.listener(&key).max_connection_age.map(|d| d.as_secs())
    };
    assert_eq!(of("off"), None);
    assert_eq!(of("1s"), Some(1));
    assert_eq!(of("30d"), Some(30 * 86_400));
}

#[test]
fn a_listener_with_a_certificate_has_safe_defaults() {
    let files = Files::new();
    let tls = files.listener_tls("");
    assert_eq!(tls.server.min_version, TlsVersion::V12);
    assert_eq!(tls.server.alpn, [&b"h2"[..], b"http/1.1"].map(Box::from));
    assert_eq!(tls.server.client_auth, None);
    assert!(tls.tickets && tls.ticket_secret_file.is_none());
    assert_eq!(tls.handshake_timeout.as_secs(), 10);
    let pair = &tls.server.certificates[0];
    assert_eq!(pair.cert, files.folder().join("site.pem"));
    assert_eq!(pair.key, files.folder().join("site.key"));
    for off in ["early_data = 'off'", "early_data = false"] {
        assert_eq!(files.listener_tls(off), tls);
    }
    let old = files.listener(&format!("http2 = 'off'\n[listeners.a.tls]\n{PAIR}"));
    let alpn = &old.tls.unwrap().server.alpn;
    assert_eq!(*alpn, [Box::from(&b"http/1.1"[..])]);
}

#[test]
fn clients_with_certificates_are_asked_for_them() {
    let files = Files::new();
    let auth = |keys: &str| files.listener_tls(keys).server.client_auth.clone().unwrap();
    let plain = auth("client_ca = 'ca.pem'");
    assert!(plain.required && plain.crls.is_empty());
    assert_eq!(plain.cas, [files.folder().join("ca.pem")]);
    let more = auth("client_ca = ['ca.pem', 'site.pem']\nclient_auth = 'request'");
    assert!(!more.required);
    assert_eq!(more.cas.len(), 2);
}

#[test]
fn tickets_are_on_off_or_of_a_secret() {
    let files = Files::new();
    files.write("secret", "correct horse battery staple");
    let of = |value: &str| {
        let tls = files.listener_tls(&format!("tickets = {value}"));
        (tls.tickets, tls.ticket_secret_file.is_some())
    };
    assert_eq!(of("true"), (true, false));
    assert_eq!(of("false"), (false, false));
    assert_eq!(of("{ secret_file = 'secret' }"), (true, true));
}

#[test]
fn what_is_wrong_with_a_certificate_without_breaking_it_is_warned_of() {
    let files = Files::new();
    assert_eq!(files.warnings(PAIR), [""; 0]);
    let twice = "certificates = [{ cert = 'site.pem', key = 'site.key' }, { cert = 'other.pem', key \
                 = 'other.key' }, { cert = 'site.pem', key = 'site.key' }]";
    assert_eq!(files.warnings(twice), ["certificate-twice"]);
    let chain = ["site.pem", "other.pem"].map(|name| {
        let path = files.folder().join(name);
        std::fs::read_to_string(path).unwrap()
    });
    files.write("chain.pem", &chain.concat());
    let order = "certificates = [{ cert = 'chain.pem', key = 'site.key' }]";
    assert_eq!(files.warnings(order), ["certificate-order"]);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(files.folder().join("site.key"), open).unwrap();
    assert_eq!(files.warnings(PAIR), ["key-readable"]);
}

fn tls(upstream: &Upstream) -> &UpstreamTls {
    upstream.tls.as_deref().unwrap()
}

#[test]
fn protocols_of_endpoints_are_offered_in_tls() {
    let files = Files::new();
    let plain = files.upstream("");
    assert_eq!((plain.protocol, plain.tls), (Protocol::H1, None));
    assert_eq!(plain.max_streams.get(), 100);
    for (word, protocol, alpn) in [
        ("h1", Protocol::H1, &["http/1.1"][..]),
        ("h2", Protocol::H2, &["h2"]),
        ("auto", Protocol::Auto, &["h2", "http/1.1"]),
    ] {
        let upstream = files.upstream(&format!("protocol = '{word}'\ntls = {{ ca = 'ca.pem' }}"));
        assert_eq!(upstream.protocol, protocol);
        let offered = &tls(&upstream).client.config().alpn_protocols;
        let alpn: Vec<_> = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        assert_eq!(*offered, alpn, "{word}");
    }
    assert_eq!(files.upstream("protocol = 'h2'").tls, None);
    assert_eq!(files.upstream("tls = false").tls, None);
}

#[test]
fn endpoints_are_verified_in_the_way_that_is_written() {
    let files = Files::new();
    let base64 = data_encoding::BASE64.encode(&[7; 32]);
    let keys = format!(
        "tls = {{ server_name = 'app.internal', ca = 'ca.pem', cert = 'site.pem', key = \
         'site.key', pin = 'sha256/{base64}' }}"
    );
    let upstream = files.upstream(&keys);
    let full = tls(&upstream);
    assert_eq!(full.server_name.as_deref(), Some("app.internal"));
    assert_eq!(full.ca, Some(files.folder().join("ca.pem")));
    assert_eq!(full.pins, [[7; 32]]);
    assert!(full.verify && full.identity.is_some());
    assert_eq!(upstream, files.upstream(&keys));
    let insecure = files.upstream("tls = { insecure = true }");
    assert!(!tls(&insecure).verify);
}

#[test]
fn upstreams_that_trust_the_same_share_what_it_takes() {
    let files = Files::new();
    let text = "[upstreams.a]\nendpoints = ['127.0.0.1:1']\ntls = { ca = 'ca.pem' }\n[upstreams.b]\n\
                endpoints = ['127.0.0.1:2']\ntls = { ca = 'ca.pem', server_name = 'b' }\nhealth = { \
                check = 'http' }\n[upstreams.c]\nendpoints = ['127.0.0.1:3']\nprotocol = \
                'h2'\ntls = { ca = 'ca.pem' }\n";
    let upstreams = files.load(text).config.upstreams;
    let [a, b, c] = [0, 1, 2].map(|i| tls(&upstreams[i]).client.config());
    let check = health(&upstreams[1]).tls.as_ref().unwrap().client.config();
    assert!(Arc::ptr_eq(a, b) && Arc::ptr_eq(b, check));
    assert!(!Arc::ptr_eq(a, c), "it speaks another protocol");
}

#[test]
fn a_unix_socket_needs_a_name_unless_nothing_is_verified() {
    let files = Files::new();
    let of = |tls: &str| {
        let text = format!("[upstreams.a]\nendpoints = ['unix:/a']\ntls = {tls}\n");
        let name = files.folder().join("t.toml");
        let problems = match parse(name.to_str().unwrap(), &text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.diagnostics().to_vec(),
        };
        let errors = problems.into_iter().map(|d| d.code);
        errors
            .filter(|code| *code == "no-server-name")
            .collect::<Vec<_>>()
    };
    assert_eq!(of("{ ca = 'ca.pem' }"), ["no-server-name"]);
    assert_eq!(of("{ ca = 'ca.pem', server_name = 'app' }"), [""; 0]);
    assert_eq!(of("{ insecure = true }"), [""; 0]);
}

fn health(upstream: &Upstream) -> &HealthSpec {
    upstream.health.as_deref().unwrap()
}

#[test]
fn checks_speak_tls_as_their_upstream_does() {
    let files = Files::new();
    let of = |health: &str| {
        files.upstream(&format!(
            "health = {health}\n[upstreams.a.tls]\nserver_name = 'app'\nca = 'ca.pem'\ncert = \
             'site.pem'\nkey = 'site.key'"
        ))
    };
    let http = of("{ check = 'http' }");
    let check = health(&http).tls.as_ref().unwrap();
    assert!(check.of_upstream && check.verify);
    assert_eq!(check.server_name.as_deref(), Some("app"));
    let config = check.client.config();
    assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    assert!(config.client_auth_cert_resolver.has_certs());
    let grpc = of("{ check = 'grpc' }");
    let check = health(&grpc).tls.as_ref().unwrap();
    assert_eq!(check.client.config().alpn_protocols, [b"h2"]);
    for without in [
        "{ check = 'tcp' }",
        "{ check = 'http', tls = false }",
        "{ check = 'http', port = 9000 }",
    ] {
        assert_eq!(health(&of(without)).tls, None, "{without}");
    }
    let own = of("{ check = 'http', tls = { ca = 'ca.pem' } }");
    let check = health(&own).tls.as_ref().unwrap();
    assert!(!check.of_upstream);
    assert_eq!(check.server_name, None);
}

#[test]
fn all_of_it_reads_back_and_no_file_is_shown() {
    let files = Files::new();
    files.write("secret", "correct horse battery staple");
    let base64 = data_encoding::BASE64.encode(&[7; 32]);
    let texts = [
        format!(
            "[listeners.a]\nbind = ':1'\nupstream = 'a'\nmax_connection_age = '1h'\nhttp2 = {{ \
             max_streams = 10000, stream_window = '16MiB', max_pings = 7 }}\n[listeners.a.tls]\n\
             {PAIR}\nmin_version = '1.3'\nalpn = 'http/1.1'\nclient_ca = 'ca.pem'\nclient_auth = \
             'request'\nclient_headers = {{ subject = 'X-S', fingerprint = 'x-f', certificate = \
             'x-c' }}\ntickets = {{ secret_file = 'secret' }}\nhandshake_timeout = '3s'\n\
             [upstreams.a]\nendpoints = ['127.0.0.1:1']\nprotocol = 'auto'\nmax_streams = \
             9\nhealth = {{ check = 'http' }}\ntls = {{ server_name = 'app', ca = 'ca.pem', cert = \
             'site.pem', key = 'site.key', pin = ['sha256/{base64}'], insecure = true }}"
        ),
        format!(
            "[listeners.a]\nbind = ':1'\nupstream = 'a'\nhttp2 = 'off'\n[listeners.a.tls]\n\
             {PAIR}\ntickets = false\n[upstreams.a]\nendpoints = ['127.0.0.1:1']\nprotocol = \
             'h2'\nhealth = {{ check = 'grpc', tls = false }}\ntls = {{ ca = 'ca.pem' }}\n\
             [upstreams.b]\nendpoints = ['127.0.0.1:1']\ntls = {{ ca = 'ca.pem' }}\nhealth = {{ \
             check = 'http', port = 9 }}\n[upstreams.c]\nendpoints = ['127.0.0.1:1']\ntls = {{ ca \
             = 'ca.pem' }}\nhealth = {{ check = 'http', tls = {{ ca = 'ca.pem' }} }}\n\
             [upstreams.d]\nendpoints = ['127.0.0.1:1']\nhealth = {{ check = 'http', tls = {{ \
             insecure = true }} }}"
        ),
    ];
    let key = std::fs::read_to_string(files.folder().join("site.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    for text in texts {
        let config = files.load(&text).config;
        let written = effective_toml(&config);
        let again = files.load(&written).config;
        assert_eq!(again, config, "{written}");
        assert_eq!(effective_toml(&again), written);
        assert!(diff(&config, &again).is_empty());
        let json = effective(&config).to_string();
        for hidden in [line, "BEGIN", "battery"] {
            assert!(!written.contains(hidden) && !json.contains(hidden));
        }
        assert!(written.contains("site.key"));
    }
}

#[test]
fn tls_changes_while_it_runs() {
    let files = Files::new();
    let of = |tls: &str| {
        let text = format!("[listeners.a]\nbind = ':1'\n[listeners.a.tls]\n{tls}\n");
        files.load(&text).config
    };
    let old = of(PAIR);
    let plan = diff(&old, &of(&PAIR.replace("site", "other"))).to_string();
    assert!(plan.contains("tls.certificates"), "{plan}");
    assert!(
        !plan.contains("restart") && !plan.contains("rebind"),
        "{plan}"
    );
}

#[test]
fn new_content_of_the_same_files_is_a_change() {
    let files = Files::new();
    let keys = "tls = { ca = 'ca.pem' }\nhealth = { check = 'http', tls = { ca = 'ca.pem' } }";
    let old = files.config(keys);
    assert!(diff(&old, &files.config(keys)).is_empty());
    files.renew_ca();
    let new = files.config(keys);
    assert_ne!(old, new);
    let plan = diff(&old, &new).to_string();
    assert!(plan.contains(" tls.files"), "{plan}");
    assert!(plan.contains("health.tls.files"), "{plan}");
}
