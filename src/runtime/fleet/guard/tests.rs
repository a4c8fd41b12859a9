use std::time::Duration;

use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::config::parse;
use crate::telemetry::metrics::registry::Registry;
use crate::upstream::overrides::{By, Word};

/// What a test may wait for.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bed {
    fleet: Fleet,
    sockets: Option<Sockets>,
    orders: Orders,
}

fn upstream(name: &str) -> String {
    format!("[upstreams.{name}]\nendpoints = ['127.0.0.1:9']\n")
}

fn bed(folder: &std::path::Path, seeds: &[&Bed]) -> Bed {
    let secret = folder.join("fleet.key");
    std::fs::write(
        &secret,
        "c2ltdWxhdGVkIHNlY3JldCBvZiBhIGZsZWV0IG9mIHRlc3Rz\n",
    )
    .unwrap();
    let seeds: Vec<String> = seeds
        .iter()
        .map(|seed| format!("'{}'", seed.fleet.state().peer.addr()))
        .collect();
    let text = format!(
        "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n{}[fleet]\nname = 'test'\nbind = '127.0.0.1:7946'\n\
         secret_file = '{}'\nseeds = [{}]\n",
        upstream("app"),
        secret.display(),
        seeds.join(", ")
    );
    let config = parse("test.toml", &text).unwrap().config;
    let spec = config.fleet.clone().unwrap();
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = sockets.addr().unwrap();
    let begun = begin(spec, addr, &Registry::new(1)).unwrap();
    Bed {
        fleet: begun.fleet,
        sockets: Some(sockets),
        orders: begun.orders,
    }
}

fn endpoint() -> EndpointAddr {
    EndpointAddr::Ip("127.0.0.1:9".parse().unwrap())
}

/// A drain, by somebody.
fn drain(fleet: &Fleet, upstream: &str) {
    let by = By {
        owner: "uid:0".to_owned(),
        reason: String::new(),
        since_unix_ms: fleet.now().unix_ms,
        expires_unix_ms: None,
    };
    let said = vec![(crate::fleet::fact::Part::State, Some((Word::Drain, by)))];
    fleet.say(&upstream.into(), &endpoint(), said);
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// As the control thread has them.
fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A fact that one of them has a fault about: without the guard the control thread of every peer that hears of it
/// would end.
#[test]
fn fault_of_the_peer_ends_the_fleet_and_nothing_else() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut one = bed(folder.path(), &[]);
        let mut other = bed(folder.path(), &[&one]);
        let stop = CancellationToken::new();
        let (told, mut said) = mpsc::channel(2);
        let mut tasks = tokio::task::JoinSet::new();
        for bed in [&mut one, &mut other] {
            let told = told.clone();
            tasks.spawn_local(run(
                bed.fleet.clone(),
                bed.sockets.take(),
                || true,
                move |why| told.try_send(why).unwrap(),
                stop.clone(),
            ));
        }
        let knows = |bed: &Bed, count: usize| bed.fleet.state().peer.live().len() == count;
        until("they meet", || knows(&one, 1) && knows(&other, 1)).await;
        let roles = crate::health::duty::Roles::new();
        other
            .fleet
            .0
            .duty
            .send_replace(Arc::new(Duty::Shared(roles)));

        drain(&one.fleet, "panics-in-tests");
        let why = said.recv().await.unwrap();
        assert!(why.contains("asked for by a test"), "{why}");
        assert_eq!(other.fleet.stopped(), Some(why));
        assert_eq!(other.fleet.0.cells.stopped.value(), 1);
        // It asks all endpoints itself again, and whoever asks it for something hears that, not a panic.
        assert_eq!(**other.orders.duty.borrow(), Duty::Everybody);
        let config = parse(
            "test.toml",
            &format!(
                "[listeners.web]\nbind = ':8080'\nupstream = 'app'\n{}",
                upstream("app")
            ),
        );
        let spec = config.unwrap().config.upstreams[0].clone();
        assert!(other.fleet.told(&spec, &|_| Seen::Unknown).is_none());
        assert!(other.fleet.news().is_empty());
        drain(&other.fleet, "app");
        assert!(other.fleet.view().stopped.is_some());
        // The one that said it has no fault about it, and sees that the other is gone.
        assert_eq!(one.fleet.stopped(), None);
        until("the other is missed", || knows(&one, 0)).await;
        drain(&one.fleet, "app");
        assert!(one.fleet.told(&spec, &|_| Seen::Unknown).is_some());

        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(one.fleet.stopped(), None);
    });
}
