//! What `[fleet]` amounts to, and what it may not say.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::config::diff::{Item, diff};
use crate::config::{
    Config, Diagnostic, Fleet, Loaded, PortZero, Problems, Seed, load, parse_with,
};

const UPSTREAM: &str =
    "\n[listeners.l]\nbind = ':1'\nupstream = 'a'\n[upstreams.a]\ndynamic = true\n";

/// A folder with a secret, `key`, and a configuration in it.
fn loaded(before: &str, keys: &str) -> Result<Loaded, Problems> {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("{before}\n[fleet]\nsecret_file = 'key'\n{keys}\n{UPSTREAM}");
    let main = folder.path().join("isobar.toml");
    std::fs::write(&main, text).unwrap();
    load(&main)
}

/// The fleet of a configuration that says nothing else.
fn fleet(keys: &str) -> Fleet {
    let loaded = loaded("", &format!("name = 'edge'\nstate_dir = 'state'\n{keys}"))
        .unwrap_or_else(|p| panic!("{p}\n{keys}"));
    assert_eq!(loaded.warnings, [], "{keys}");
    Fleet::clone(&loaded.config.fleet.unwrap())
}

/// What is reported of these keys: "code: message / help".
fn said(keys: &str) -> Vec<String> {
    let keys = format!("name = 'edge'\nstate_dir = 'state'\n{keys}");
    let found: Vec<Diagnostic> = match loaded("", &keys) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.diagnostics().to_vec(),
    };
    let line = |d: &Diagnostic| {
        let help = d.help.as_deref().unwrap_or("-");
        format!("{}: {} / {help}", d.code, d.message)
    };
    found.iter().map(line).collect()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn it_has_quiet_defaults() {
    let f = fleet("bind = '10.0.0.5:7946'");
    assert_eq!(&*f.name, "edge");
    assert_eq!(f.bind, addr("10.0.0.5:7946"));
    assert_eq!((f.advertise, &f.seeds[..]), (None, &[][..]));
    assert!(f.secret_file.ends_with("key"));
    assert!(f.state_dir.unwrap().ends_with("state"));
    assert_eq!((f.zone, f.probers, f.max_remove), (None, 3, 0.5));
    assert_eq!(
        (f.max_clock_skew, f.register),
        (Duration::from_secs(5), None)
    );
}

#[test]
fn what_is_said_of_the_process_holds_unless_the_fleet_says_otherwise() {
    let of = |keys: &str| {
        let before = "[process]\nstate_dir = '/p'\nzone = 'b'";
        let keys = format!("name = 'edge'\nbind = '10.0.0.5:7946'\n{keys}");
        let loaded = loaded(before, &keys).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(loaded.warnings, []);
        let fleet = loaded.config.fleet.unwrap();
        (
            fleet.state_dir.clone(),
            fleet.zone.as_deref().map(str::to_owned),
        )
    };
    let path = |text: &str| Some(Path::new(text).to_owned());
    assert_eq!(of(""), (path("/p"), Some("b".to_owned())));
    let own = of("state_dir = '/f'\nzone = 'c'");
    assert_eq!(own, (path("/f"), Some("c".to_owned())));
}

#[test]
fn every_key_is_read() {
    let f = fleet(
        "bind = ':7946'\nadvertise = '[2001:db8::5]:7946'\n\
         seeds = ['10.0.0.6:7946', 'dns:isobar.internal:7947', 'dns:a_b-1.:1']\nzone = 'a'\n\
         health = { probers = 0 }\nguard = { max_remove = '100%', max_clock_skew = '100ms' }\n\
         register = { bind = ':7950', token_file = 'key', max_ttl = '1d' }",
    );
    assert_eq!(f.bind, addr("[::]:7946"));
    assert_eq!(f.advertise, Some(addr("[2001:db8::5]:7946")));
    let dns = |name: &str, port| Seed::Dns {
        name: name.to_owned(),
        port,
    };
    let seeds = [
        Seed::Addr(addr("10.0.0.6:7946")),
        dns("isobar.internal", 7947),
        dns("a_b-1.", 1),
    ];
    assert_eq!(f.seeds, seeds);
    assert_eq!((f.zone.as_deref(), f.probers), (Some("a"), 0));
    assert_eq!(
        (f.max_remove, f.max_clock_skew),
        (1.0, Duration::from_millis(100))
    );
    let register = f.register.unwrap();
    assert_eq!(register.bind, addr("[::]:7950"));
    assert!(register.token_file.ends_with("key"));
    assert_eq!(register.max_ttl, Duration::from_secs(86_400));
    // One of the two kinds of addresses alone.
    let v4 = fleet("bind = '0.0.0.0:7946'\nseeds = '10.0.0.6:7946'");
    assert_eq!((v4.bind, v4.advertise), (addr("0.0.0.0:7946"), None));
}

#[test]
fn port_zero_is_for_those_who_can_ask_which_one_it_became() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "0123456789abcdef\n").unwrap();
    let name = folder.path().join("t.toml").display().to_string();
    let text = "[fleet]\nname = 'a'\nbind = '127.0.0.1:0'\nsecret_file = 'key'\n";
    let of = |port_zero| parse_with(&name, text, port_zero);
    let fleet = of(PortZero::Allowed).unwrap().config.fleet.unwrap();
    assert_eq!(fleet.bind, addr("127.0.0.1:0"));
    let refused = of(PortZero::Refused).unwrap_err();
    assert!(
        refused.diagnostics().iter().any(|d| d.code == "port-zero"),
        "{refused}"
    );
}

#[test]
fn nobody_has_to_guess_what_is_wrong_with_an_address() {
    for (keys, wanted) in [
        (
            "bind = ':7946'",
            "unreachable-peer: `fleet` binds every address, and has neither `advertise` nor `seeds`: \
             nobody could find it / say where the others reach it: advertise = \"10.0.0.5:7946\"; or \
             whom to ask: seeds = [\"10.0.0.6:7946\"]",
        ),
        (
            "bind = '0.0.0.0:7000'\nseeds = []",
            "unreachable-peer: `fleet` binds every address, and has neither `advertise` nor `seeds`: \
             nobody could find it / say where the others reach it: advertise = \"10.0.0.5:7000\"; or \
             whom to ask: seeds = [\"10.0.0.6:7000\"]",
        ),
        (
            "bind = '127.0.0.1:7946'\nadvertise = '10.0.0.5:7946'",
            "unreachable-peer: `advertise` is 10.0.0.5:7946, but `fleet` binds 127.0.0.1:7946: only this \
             machine reaches that / write bind = \"0.0.0.0:7946\"",
        ),
        (
            "bind = ':7946'\nadvertise = '0.0.0.0:7946'",
            "bad-address: `advertise` `0.0.0.0:7946` is every address, not one to connect to / write one \
             of the machine's own, such as \"10.0.0.5:7946\"",
        ),
        (
            "bind = ':7946'\nadvertise = '10.0.0.5:0'",
            "port-zero: `advertise` `10.0.0.5:0` has port 0 / peers need the port that it listens on",
        ),
        (
            "bind = ':7946'\nadvertise = 'peer1.internal:7946'",
            "bad-address: `advertise` `peer1.internal:7946` is a name: the others are told an address / \
             write one of the machine's own, such as \"10.0.0.5:7946\"",
        ),
        (
            "bind = 'unix:/run/fleet.sock'",
            "bad-address: `bind` of `fleet` is a Unix socket / others come to it by network: write \
             \"10.0.0.5:7946\" or \":7946\"",
        ),
        (
            "bind = '10.0.0.5:7946'\nregister = { bind = 'unix:/x', token_file = 'key' }",
            "bad-address: `bind` of `register` of `fleet` is a Unix socket / others come to it by \
             network: write \"10.0.0.5:7946\" or \":7946\"",
        ),
        (
            "bind = ':1'\nadvertise = '10.0.0.5:1'",
            "bind-conflict: `:1` cannot be bound: `:1` has it already / -",
        ),
        (
            "bind = '[::]:7946'\nadvertise = '10.0.0.5:1'\nregister = { bind = '10.0.0.5:7946', \
             token_file = 'key' }",
            "bind-conflict: `10.0.0.5:7946` cannot be bound: `:7946` has it already / -",
        ),
    ] {
        assert_eq!(said(keys), [wanted], "{keys}");
    }
}

#[test]
fn seeds_are_addresses_or_names_that_say_so() {
    let of = |seed: &str| said(&format!("bind = '10.0.0.5:7946'\nseeds = ['{seed}']")).remove(0);
    for (seed, wanted) in [
        (
            "10.0.0.6",
            "the seed `10.0.0.6` has no port / did you mean \"10.0.0.6:7946\"?",
        ),
        (
            "peer2:7946",
            "the seed `peer2:7946` is a name / did you mean \"dns:peer2:7946\"?",
        ),
        (
            "peer2",
            "the seed `peer2` is a name / did you mean \"dns:peer2:7946\"?",
        ),
        (
            ":7946",
            "the seed `:7946` has no address / write one that peers reach, such as \"10.0.0.5:7946\"",
        ),
        (
            "224.0.0.1:7946",
            "the seed `224.0.0.1:7946` is a multicast address / peers speak to one another one by one: \
             write the address of one",
        ),
        (
            "http://10.0.0.6",
            "the seed `http://10.0.0.6` is not the address of a peer / write \"10.0.0.6:7946\", \
             \"[2001:db8::6]:7946\" or \"dns:isobar.internal:7946\"",
        ),
        (
            "dns:a.b",
            "the seed `dns:a.b` has no port / did you mean \"dns:a.b:7946\"?",
        ),
        (
            "dns:a.b:",
            "the seed `dns:a.b:` has no port / did you mean \"dns:a.b:7946\"?",
        ),
        (
            "dns:a.b:x",
            "the seed `dns:a.b:x` has the port `x` / ports are 1 to 65535",
        ),
        (
            "dns:a.b:0",
            "the seed `dns:a.b:0` has the port `0` / ports are 1 to 65535",
        ),
        (
            "dns:10.0.0.6:7946",
            "the seed `dns:10.0.0.6:7946` is an address, not a name / did you mean \"10.0.0.6:7946\"?",
        ),
        (
            "dns:a..b:1",
            "the seed `dns:a..b:1` has no name that DNS knows / write \"dns:isobar.internal:7946\"",
        ),
        (
            "dns::1",
            "the seed `dns::1` has no name that DNS knows / write \"dns:isobar.internal:7946\"",
        ),
    ] {
        assert_eq!(of(seed), format!("bad-address: {wanted}"));
    }
    assert!(of("10.0.0.6:0").starts_with("port-zero: the seed `10.0.0.6:0` has port 0"));
    let list = |n: usize| {
        let seeds: Vec<String> = (0..n).map(|i| format!("'10.0.0.6:{}'", 7000 + i)).collect();
        format!("bind = '10.0.0.5:7946'\nseeds = [{}]", seeds.join(", "))
    };
    assert_eq!(fleet(&list(64)).seeds.len(), 64);
    let many = said(&list(65)).remove(0);
    assert!(
        many.starts_with("too-many: `seeds` of `fleet` has 65 addresses; at most 64"),
        "{many}"
    );
}

#[test]
fn numbers_have_bounds() {
    for (keys, wanted) in [
        (
            "health = { probers = 10 }",
            "`probers` must be from 0 to 9 / 3 outvote one that is wrong; 0 lets each peer check every \
             endpoint for itself",
        ),
        (
            "guard = { max_remove = 0 }",
            "`max_remove` must be from 1% to 100% / what one peer says may always take one endpoint away; \
             \"50%\" lets it take half",
        ),
        (
            "guard = { max_clock_skew = '1h' }",
            "`max_clock_skew` must be from 100ms to 10m / -",
        ),
        (
            "guard = { max_clock_skew = '99ms' }",
            "`max_clock_skew` must be from 100ms to 10m / -",
        ),
        (
            "register = { bind = '10.0.0.5:1', token_file = 'key', max_ttl = '25h' }",
            "`max_ttl` must be from 1s to 1d / -",
        ),
    ] {
        let found = said(&format!("bind = '10.0.0.5:7946'\n{keys}"));
        assert!(
            found.contains(&format!("out-of-range: {wanted}")),
            "{found:?}"
        );
    }
    assert_eq!(
        fleet("bind = '10.0.0.5:7946'\nguard.max_remove = '1%'").max_remove,
        0.01
    );
}

#[test]
fn who_reads_the_secret_is_warned_of_and_a_peer_that_forgets() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "0123456789abcdef\n").unwrap();
    let main = folder.path().join("isobar.toml");
    let text = format!(
        "[fleet]\nname = 'a'\nbind = '10.0.0.5:7946'\nsecret_file = 'key'\n\
         register = {{ bind = '10.0.0.5:7947', token_file = 'key' }}\n{UPSTREAM}"
    );
    std::fs::write(
        &main,
        text.replace("dynamic = true", "endpoints = ['10.0.0.9:1']"),
    )
    .unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = load(&main).unwrap_or_else(|p| panic!("{p}"));
    let mut codes: Vec<_> = loaded.warnings.iter().map(|d| d.code).collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        ["fleet-forgets", "key-readable", "key-readable", "no-effect"]
    );
    let said = |code: &str| {
        let found = loaded.warnings.iter().find(|d| d.code == code).unwrap();
        found.message.clone()
    };
    let readable = format!(
        "everybody on this machine can read the secret {} (its mode is 644)",
        key.display()
    );
    assert_eq!(said("key-readable"), readable);
    assert_eq!(
        said("fleet-forgets"),
        "`fleet` has no `state_dir`: after each start it is a new peer and has forgotten the fleet"
    );
    assert_eq!(
        said("no-effect"),
        "`register` of `fleet` does nothing: no upstream has `dynamic = true`"
    );
    // The secret is nowhere in what is kept of the configuration.
    assert!(!format!("{loaded:?}").contains("0123456789abcdef"));
}

#[test]
fn what_hangs_on_sockets_and_identity_waits_for_a_restart() {
    let of = |keys: &str| -> Config {
        let keys = format!("name = 'edge'\nstate_dir = '/s'\n{keys}");
        let mut config = loaded("", &keys).unwrap_or_else(|p| panic!("{p}")).config;
        // Each stands in a folder of its own.
        let mut fleet = Fleet::clone(&config.fleet.unwrap());
        fleet.secret_file = "/key".into();
        config.fleet = Some(fleet.into());
        config
    };
    let old = of("bind = '10.0.0.5:7946'");
    assert!(diff(&old, &old).is_empty());
    let new = of(
        "bind = '10.0.0.5:7946'\nhealth.probers = 5\nseeds = ['dns:a:1']\nguard.max_remove = '10%'",
    );
    let changed = diff(&old, &new).to_string();
    assert!(!changed.contains("restart"), "{changed}");
    for what in [
        "seeds: [] -> [dns:a:1]",
        "health.probers: 3 -> 5",
        "guard.max_remove: 0.5 -> 0.1",
    ] {
        assert!(changed.contains(what), "{changed}");
    }
    let new = of("bind = '10.0.0.5:7947'\nhealth.probers = 5");
    let moved = diff(&old, &new).to_string();
    assert!(
        moved.contains("bind: 10.0.0.5:7946 -> 10.0.0.5:7947 (needs a restart)"),
        "{moved}"
    );
    assert!(!moved.contains("5 (needs a restart)"), "{moved}");
    let without = Config {
        fleet: None,
        ..old.clone()
    };
    assert!(
        diff(&without, &without)
            .items
            .iter()
            .all(Item::is_unchanged)
    );
    let comes = diff(&without, &old).to_string();
    assert!(
        comes.ends_with("  ! fleet   name: none -> edge (needs a restart)"),
        "{comes}"
    );
    let goes = diff(&old, &without).to_string();
    assert!(
        goes.ends_with("  ! fleet   name: edge -> none (needs a restart)"),
        "{goes}"
    );
}
