//! A real Mosquitto behind listeners of TCP, in clear text and with TLS that ends here, with its own
//! clients in front.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::support;
use crate::support::certs::{Ca, Wanted, listener_tls};
use crate::support::eventually::eventually;
use crate::support::openssl::Tool;
use crate::support::proxy::Proxy;

/// A broker on a socket in `folder`; ends with its test.
#[expect(
    clippy::unwrap_used,
    reason = "a helper of tests: failing is its report"
)]
fn broker(program: &Path, folder: &Path) -> Tool {
    let file = folder.join("mosquitto.conf");
    // As root it would become another user, who may not make the socket.
    let text = format!(
        "listener 0 {}\nallow_anonymous true\nuser root\n",
        folder.join("mqtt.sock").display()
    );
    std::fs::write(&file, text).unwrap();
    Tool::start(program, &[Path::new("-v"), Path::new("-c"), &file])
}

/// Each listener has an address of its own: a reload knows sockets by what `bind` says.
fn config(folder: &Path, tls: &str, more: &str) -> String {
    format!(
        "[process]\nworkers = 1\n[listeners.web]\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\nupstream \
         = 'app'\n[listeners.tls]\nbind = '127.0.0.2:0'\nprotocol = 'tcp'\nupstream = \
         'app'\n{tls}\n[upstreams.app]\nendpoints = ['unix:{}']\nhealth = {{ check = 'tcp', interval \
         = '100ms', timeout = '100ms', rise = 1, init_state = 'fully-down' }}\n{more}\n",
        folder.join("mqtt.sock").display()
    )
}

#[test]
fn subscribers_outlive_reloads_in_clear_text_and_tls() {
    let (Some(mosquitto), Some(publish), Some(subscribe)) = (
        support::need("mosquitto"),
        support::need("mosquitto_pub"),
        support::need("mosquitto_sub"),
    ) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let ca = Ca::new();
    let cert = ca.issue(&Wanted::server(&["127.0.0.2"]));
    let tls = listener_tls(&[&cert], ", alpn = 'mqtt'");
    let broker = broker(&mosquitto, folder.path());
    let proxy = Proxy::start(&config(folder.path(), &tls, ""));
    eventually("the check passes", || {
        let view = proxy.operations().upstream("app").unwrap();
        view.endpoints[0].observed.as_ref().is_some_and(|o| o.ready)
    });
    let (plain, secret) = (proxy.listener("web"), proxy.listener("tls"));
    let ca_file = ca.folder().join("ca.pem").display().to_string();
    let over_tls = ["--cafile", &ca_file, "--tls-alpn", "mqtt"];
    let to = |addr: SocketAddr, args: &[&str]| -> Vec<String> {
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        let all = [&["-h", &host, "-p", &port, "-q", "1"], args].concat();
        all.iter().map(|arg| (*arg).to_owned()).collect()
    };
    // They end with the second message: before, nobody sees what they have written.
    let all = ["-t", "house/#", "-v", "-C", "2"];
    let mut one = Tool::start(&subscribe, &to(plain, &all));
    let mut other = Tool::start(&subscribe, &to(secret, &[&all[..], &over_tls].concat()));
    broker.await_times("Sending SUBACK", 2);
    for more in ["connect_timeout = '2s'", ""] {
        proxy.reload(&config(folder.path(), &tls, more));
    }
    let say = |addr: SocketAddr, message: &str, more: &[&str]| {
        let args = to(addr, &[&["-t", "house/door", "-m", message], more].concat());
        let (status, said) = Tool::run(&publish, &args);
        assert!(status.success(), "{said}");
    };
    say(plain, "open", &[]);
    say(secret, "shut", &over_tls);
    for subscriber in [&mut one, &mut other] {
        assert!(subscriber.wait().success());
        let heard = subscriber.output();
        assert!(
            heard.contains("house/door open") && heard.contains("house/door shut"),
            "{heard}"
        );
    }
}
