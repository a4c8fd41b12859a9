//! `fleet`: the fleet as one of its peers knows it, and a secret for a new one.

mod keygen;
mod show;
#[cfg(test)]
mod tests;
mod views;

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use crate::admin::api::encoded;
use crate::base::clock::Clock;

use super::client::Client;
use super::{Failure, Place, Show};

/// The commands.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Make a secret for a fleet: the same file goes to every peer.
    #[command(after_help = "\
Whoever has the secret can send your traffic anywhere. A file is made for its owner alone, and never
overwritten. Tokens for `fleet.register` are made the same way.

To replace a secret without a gap, reload every peer after each step:
  1  add a line made by `isobar fleet keygen` to the end of the file, the same at every peer
  2  move that line to the top
  3  remove the old line

Exit codes: 0 made, 1 the file is there already, or cannot be made.")]
    Keygen {
        /// Where to. Without it the secret goes to standard output.
        file: Option<PathBuf>,
    },
    /// Show the fleet: peers, facts, what they cost, what is held back or was not taken.
    #[command(after_help = "\
Examples:
  isobar fleet status
  isobar fleet status --json | jq .digest      the same at peers that know the same

Exit codes: 0 shown, 1 the server has no [fleet], 2 no server there.")]
    Status {
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Show the peers: where they are, in what state, what they serve.
    #[command(after_help = "Exit codes: 0 shown, 1 the server has no [fleet], 2 no server there.")]
    Members {
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Compare what this peer knows with what another knows.
    #[command(after_help = "\
What was said a moment ago may be on its way: what differs for longer than half a minute does not
come through.

Exit codes: 0 they know the same, 1 they do not, or cannot be compared, 2 no server there.")]
    Diff {
        /// The other: its id or its address, as `isobar fleet members` shows them.
        peer: String,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
}

pub(super) fn run(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Keygen { file: None } => keygen::print(out),
        Command::Keygen { file: Some(file) } => keygen::make(&file, out),
        Command::Status { show, place } => {
            let answer = Client::new(&place.into())?.get("/v1/fleet")?;
            if show.json {
                return Ok(write!(out, "{}", answer.text())?);
            }
            Ok(show::status(&answer.read()?, now(), out)?)
        }
        Command::Members { show, place } => {
            let answer = Client::new(&place.into())?.get("/v1/fleet/members")?;
            if show.json {
                return Ok(write!(out, "{}", answer.text())?);
            }
            let members: Vec<views::Member> = answer.read()?;
            Ok(show::members(&members, now(), out)?)
        }
        Command::Diff { peer, show, place } => {
            let path = format!("/v1/fleet/diff?peer={}", encoded(&peer));
            let answer = Client::new(&place.into())?.get(&path)?;
            let diff: views::Diff = answer.read()?;
            if show.json {
                write!(out, "{}", answer.text())?;
            } else {
                show::diff(&diff, out)?;
            }
            if diff.equal {
                Ok(())
            } else {
                Err(Failure::Differ)
            }
        }
    }
}

fn now() -> u64 {
    Clock::start().unix_ms()
}
