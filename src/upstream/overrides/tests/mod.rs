//! What the tests of overrides share; one file for each thing that overrides do.

mod apply;
mod heed;
mod layers;
mod reconcile;
mod store;

use super::*;
use crate::config::Config;

/// 2026-11-21T15:04:05Z
pub(super) const NOW: u64 = 1_795_273_445_000;

pub(super) const A: &str = "10.0.0.1:80";
pub(super) const B: &str = "10.0.0.2:80";
pub(super) const NEW: &str = "10.0.0.9:80";

/// An upstream `app` that is fixed, and `pool` that is dynamic, each with A (weight 1) and B
/// (weight 2).
pub(super) fn config() -> Config {
    let list = format!("['{A}', {{ address = '{B}', weight = 2 }}]");
    written(&format!(
        "[upstreams.app]\nbalance = 'weighted'\nendpoints = {list}\n\
         [upstreams.pool]\ndynamic = true\nendpoints = {list}\n"
    ))
}

/// A configuration with these upstreams.
pub(super) fn written(upstreams: &str) -> Config {
    let text = format!("[listeners.web]\nbind = ':8080'\nupstream = 'app'\n{upstreams}");
    match config::parse("test", &text) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}\n{text}"),
    }
}

pub(super) fn addr(text: &str) -> EndpointAddr {
    address(text).unwrap()
}

/// Somebody who says something now, without a reason and for good.
pub(super) fn by(owner: &str) -> By {
    By {
        owner: owner.to_owned(),
        reason: String::new(),
        since_unix_ms: NOW,
        expires_unix_ms: None,
    }
}

/// A wish of `uid:0` without reason and expiry.
pub(super) fn wish(upstream: &str, endpoint: &str, verb: Verb) -> Change {
    Change {
        upstream: upstream.into(),
        endpoint: addr(endpoint),
        verb,
        owner: "uid:0".to_owned(),
        reason: String::new(),
        expires_unix_ms: None,
    }
}

/// Overrides after these wishes over [`config`], each a second after the one before.
pub(super) fn after(wishes: &[(&str, &str, Verb)]) -> Overrides {
    let (config, mut overrides) = (config(), Overrides::default());
    for (i, (upstream, endpoint, verb)) in wishes.iter().enumerate() {
        let change = wish(upstream, endpoint, *verb);
        overrides
            .apply(change, &config, NOW + i as u64 * 1000)
            .unwrap();
    }
    overrides
}

/// `addr weight state origin` of every member.
pub(super) fn members(upstream: &str, overrides: &Overrides, config: &Config) -> Vec<String> {
    let spec = config
        .upstreams
        .iter()
        .find(|u| &*u.name == upstream)
        .unwrap();
    effective_members(spec, overrides)
        .iter()
        .map(|m| {
            let origin = match m.origin {
                Origin::File => "file",
                Origin::Operator => "operator",
                Origin::Registered => "registered",
            };
            format!(
                "{} {} {} {origin}",
                m.addr,
                m.weight,
                AdminState::word(m.state)
            )
        })
        .collect()
}
