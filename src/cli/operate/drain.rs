//! `drain --wait`: until nothing is in flight, or the deadline.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::base::clock::{Clock, nanos};
use crate::config::units::format_duration;

use super::client::Client;
use super::target::Endpoint;
use super::views::{self, Applied};
use super::{Failure, Show};

/// Between two looks: short against any deadline, long against what a look costs.
const LOOK: Duration = Duration::from_millis(100);

/// How many looks in a row must find nothing: a worker that picked the endpoint in the moment of the
/// drain counts its exchange right after.
const QUIET_LOOKS: u32 = 2;

pub(super) fn wait(
    client: &Client,
    endpoint: &Endpoint,
    applied: &Applied,
    deadline: Duration,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let clock = Clock::start();
    let begun = clock.now();
    let end = begun.saturating_add(nanos(deadline));
    // As the server writes it, so that its sentences and ours name the same thing.
    let name = format!("{}/{}", endpoint.upstream, applied.endpoint);
    let mut progress = Progress::new();
    let mut quiet = 0;
    loop {
        let in_flight = in_flight(client, endpoint)?;
        quiet = if in_flight == 0 { quiet + 1 } else { 0 };
        let now = clock.now();
        if quiet == QUIET_LOOKS {
            progress.clear();
            if !show.json {
                let took = Duration::from_nanos(now - begun);
                writeln!(
                    out,
                    "{name}: nothing in flight, drained after {:.1} s",
                    took.as_secs_f64()
                )?;
            }
            return Ok(());
        }
        if now >= end {
            progress.clear();
            return Err(Failure::Refused(format!(
                "{name}: still {in_flight} in flight after {}; it stays drained, `isobar undrain \
                 {name}` takes that back",
                format_duration(deadline)
            )));
        }
        let left = Duration::from_nanos(end - now);
        progress.say(&format!(
            "{name}: {in_flight} in flight, {} s left",
            left.as_secs()
        ));
        client.pause(LOOK.min(left));
    }
}

/// Exchanges in flight there; none if it is no member any more.
fn in_flight(client: &Client, endpoint: &Endpoint) -> Result<u64, Failure> {
    let view: views::Endpoint = client.get(&endpoint.path())?.read()?;
    Ok(view.observed.map_or(0, |observed| observed.in_flight))
}

/// One line that is written over and over, where there is a terminal.
struct Progress {
    is_shown: bool,
}

// === impl Progress ===

impl Progress {
    fn new() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
        }
    }

    fn say(&mut self, text: &str) {
        if self.is_shown {
            // To the start of the line, and what was there is erased (ECMA-48, EL).
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn clear(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
