//! HTTPS that passes through to nginx servers with certificates of their own, beside TLS that ends here,
//! at one port; curl in front.

use std::path::Path;

use crate::support;
use crate::support::certs::{Ca, Wanted, listener_tls};
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::origin::{Origin, mirror};
use crate::support::proxy::Proxy;

/// An nginx with a server a name, each on a socket of its own; ends with its test.
#[expect(
    clippy::unwrap_used,
    reason = "a helper of tests: failing is its report"
)]
fn nginx(program: &Path, folder: &Path, names: &[(&str, &Ca)]) -> Tool {
    let mut servers = String::new();
    for (name, ca) in names {
        let cert = ca.issue(&Wanted::server(&[name]));
        servers += &format!(
            "server {{ listen unix:{}/{name}.sock ssl; ssl_certificate {}; ssl_certificate_key {}; \
             return 200 'from {name}'; }}\n",
            folder.display(),
            cert.cert.display(),
            cert.key.display()
        );
    }
    let folder = folder.display();
    let text = format!(
        "daemon off;\nmaster_process off;\nerror_log stderr;\npid {folder}/pid;\nevents {{}}\nhttp \
         {{\naccess_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path \
         {folder}/proxy;\nfastcgi_temp_path {folder}/fastcgi;\nuwsgi_temp_path \
         {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n{servers}}}\n"
    );
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, text).unwrap();
    Tool::start(program, &["-c", &file, "-e", "stderr"])
}

#[test]
fn each_name_is_answered_by_whoever_has_its_certificate() {
    let (Some(program), Some(curl)) = (support::need("nginx"), support::need("curl")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // One CA each: whose certificate it was cannot be mistaken.
    let (a, b, own) = (Ca::named("a"), Ca::named("b"), Ca::named("own"));
    let _nginx = nginx(&program, folder.path(), &[("a.test", &a), ("b.test", &b)]);
    for name in ["a.test", "b.test"] {
        let socket = folder.path().join(format!("{name}.sock"));
        eventually("nginx listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }
    let origin = Origin::always(mirror());
    let cert = own.issue(&Wanted::server(&["own.test"]));
    let proxy = Proxy::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = '127.0.0.1:0'\nupstream = \
         'app'\npassthrough = [{{ sni = 'a.test', upstream = 'a' }}, {{ sni = 'b.test', alpn = \
         'http/1.1', upstream = 'b' }}]\n{}\n[upstreams.app]\nendpoints = ['{}']\n[upstreams.a]\n\
         endpoints = ['unix:{}/a.test.sock']\n[upstreams.b]\nendpoints = ['unix:{}/b.test.sock']\n",
        listener_tls(&[&cert], ""),
        origin.addr(),
        folder.path().display(),
        folder.path().display()
    ));
    let port = proxy.addr().port();
    let ask = |name: &str, ca: &Ca, more: &[&str]| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let ca = ca.folder().join("ca.pem").display().to_string();
        let url = format!("https://{name}:{port}/");
        let args = [
            &["-sS", "--resolve", &resolve, "--cacert", &ca],
            more,
            &[&url],
        ]
        .concat();
        let (status, said) = Tool::run(&curl, &args);
        (status.success(), said)
    };
    let http1 = ["--http1.1"];
    assert_eq!(ask("a.test", &a, &[]), (true, "from a.test".to_owned()));
    assert_eq!(ask("b.test", &b, &http1), (true, "from b.test".to_owned()));
    let (is_ok, said) = ask("own.test", &own, &[]);
    assert!(is_ok, "{said}");
    assert_eq!(
        origin.await_done(0).head.field("x-forwarded-proto"),
        Some("https")
    );
    // Who does not offer what is asked for does not pass, and meets a certificate of another name.
    assert!(!ask("b.test", &b, &["--no-alpn"]).0);
    assert!(!ask("a.test", &b, &[]).0);
}
