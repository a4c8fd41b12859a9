//! A network of many peers in one test, under a virtual clock: latency, loss, duplication, reordering, partitions,
//! machines that stand still, clocks that are wrong, crashes and restarts.
//!
//! A peer is a [`Machine`]: it is handed what arrives and the time, and says what it sends. The [`Net`] owns all
//! of them and one heap of events; whatever depends on chance depends on its seed. One second of a thousand idle
//! peers is some two thousand datagrams.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::{Clock, Nanos, nanos};

mod event;
mod members;
mod net;
mod peers;
mod streams;
mod tests;

pub(crate) use self::net::{Net, Weather};
/// What the clocks of one machine show; no other machine shares the first.
pub(crate) use crate::fleet::Now;

/// One peer.
pub(crate) trait Machine {
    /// A datagram has arrived.
    fn datagram(&mut self, from: SocketAddr, bytes: &[u8], clock: Now);

    /// When it wants to be woken next, by its own monotonic clock.
    fn wake_at(&self) -> Option<Nanos>;

    /// That time has come.
    fn wake(&mut self, clock: Now);

    /// The next of what it sends; asked for after each other call until there is nothing.
    fn poll(&mut self) -> Option<Sent>;

    /// Something happened to a stream. A machine that never dials has none.
    fn stream(&mut self, heard: Heard<'_>, clock: Now) {
        if let Heard::Accepted { from, .. } = heard {
            panic!("{from} dialled a machine without streams at {}", clock.now);
        }
    }
}

/// A stream between two machines, by the number that both have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link(pub(crate) u64);

/// What a machine sends.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// A datagram.
    Datagram { to: SocketAddr, bytes: Vec<u8> },
    /// A stream is wanted; `token` comes back with the answer.
    Dial { to: SocketAddr, token: u64 },
    /// A message on a stream; arrives whole, once and in order, or the stream breaks.
    Message { link: Link, bytes: Vec<u8> },
    /// A stream is done with. The other side hears [`Heard::Closed`] after all that was sent before.
    Close { link: Link },
}

/// What happens to a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard<'a> {
    /// The one that this machine dialled is there.
    Opened { link: Link, token: u64 },
    /// The one that this machine dialled cannot be had.
    Failed { token: u64 },
    /// Another machine dialled this one.
    Accepted { link: Link, from: SocketAddr },
    /// A message.
    Message { link: Link, bytes: &'a [u8] },
    /// Closed by the other side, or broken: nothing more comes, nothing more goes.
    Closed { link: Link },
}

/// Seeds `1..=few`, `1..=many` of a long run (`ISOBAR_LONG_SIM=1`, see tests/README.md), or the one of `ISOBAR_SEED`;
/// each is printed before its run, and how far a long run has come, past what libtest captures. What has failed is
/// named with the command that repeats it.
pub(crate) fn each_seed(few: u64, many: u64, mut run: impl FnMut(u64)) {
    let wanted = std::env::var("ISOBAR_SEED").ok();
    let seeds = match wanted.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None if is_long() => 1..=many,
        None => 1..=few,
    };
    let last = *seeds.end();
    let clock = Clock::start();
    let began = clock.now();
    let mut said_at = began;
    for seed in seeds {
        eprintln!("ISOBAR_SEED={seed}");
        let replay = Replay { seed };
        run(seed);
        drop(replay);
        let now = clock.now();
        if is_long() && (seed == last || now >= said_at + nanos(PROGRESS)) {
            said_at = now;
            let passed = Duration::from_nanos(now - began);
            say(&format!(
                "{}: seed {seed} of {last} passed, {passed:.0?}",
                name()
            ));
        }
    }
}

/// This is a run of everything, `tests/run --all`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("ISOBAR_LONG_SIM").is_some()
}

/// Lines of a long run that nobody waits for in vain.
const PROGRESS: Duration = Duration::from_secs(20);

/// Says how to repeat a seed that failed.
struct Replay {
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let long = if is_long() { "ISOBAR_LONG_SIM=1 " } else { "" };
            let (seed, name) = (self.seed, name());
            say(&format!(
                "to repeat it: {long}ISOBAR_SEED={seed} cargo test --profile sim --lib {name} -- --exact"
            ));
        }
    }
}

/// The test that runs here: libtest calls its thread so.
fn name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("fleet::sim").to_owned()
}

/// A line on standard error, also where a test passes.
fn say(line: &str) {
    // Who reads it may have gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}
