//! Commands to a running server, over its admin socket.
//!
//! Exit codes: 0 done; 1 refused, invalid, different, or a deadline has passed; 2 wrong usage, or no
//! server there.

mod change;
mod client;
mod drain;
mod fleet;
mod get;
mod plan;
mod status;
mod table;
mod target;
mod views;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config::units::parse_duration;
use crate::config::{self, Problems};

use super::check::Format;

use self::client::{Client, Where};
use self::target::{Endpoint, Setting, Thing};

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the running server: state, configuration, listeners, upstreams.
    #[command(after_help = "\
Examples:
  isobar status
  isobar status --history 50      the last 50 changes, with cause and time
  isobar status --json | jq .config.hash")]
    Status {
        /// Show the last N changes instead, with time, cause and who asked for them.
        #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20")]
        history: Option<usize>,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Show a part of the running server in full.
    #[command(after_help = "\
What can be shown:
  config                      the configuration served, every default filled in
  upstreams                   every upstream with its endpoints
  upstream/NAME               one upstream: what the file says of each endpoint, what operators
                              say, what the workers see, and which of them wins
  endpoint/UPSTREAM/ADDRESS   the same for one endpoint")]
    Get {
        /// config, upstreams, upstream/NAME or endpoint/UPSTREAM/ADDRESS.
        #[arg(value_name = "WHAT")]
        thing: Thing,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Set the weight or the state of an endpoint, over what the file says.
    #[command(after_help = "\
It holds through reloads and, with `state_dir`, restarts, until it expires or is taken back
(`isobar clear`).

Examples:
  isobar set app/10.0.0.1:80 weight=5 --expires 10m
  isobar set app/10.0.0.1:80 state=drain --reason 'kernel update'")]
    Set {
        /// UPSTREAM/ADDRESS, such as app/10.0.0.1:80.
        #[arg(value_name = "UPSTREAM/ADDRESS")]
        endpoint: Endpoint,
        /// weight=0 to 1000; state=active, drain (no new picks) or disable (no picks at all).
        setting: Setting,
        #[command(flatten)]
        expiry: Expiry,
        #[command(flatten)]
        said: Said,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Give an endpoint no new requests; those in flight finish.
    #[command(after_help = "\
Clients that stick to the endpoint may still come until their sessions end; --disable turns them
away too. `isobar undrain` takes the drain back.

With --wait it returns when nothing is in flight (exit code 0), or when the deadline has passed
(exit code 1): the endpoint stays drained then.

Example:
  isobar drain app/10.0.0.1:80 --wait --deadline 5m && ssh 10.0.0.1 reboot")]
    Drain {
        /// UPSTREAM/ADDRESS, such as app/10.0.0.1:80.
        #[arg(value_name = "UPSTREAM/ADDRESS")]
        endpoint: Endpoint,
        /// Wait until nothing is in flight there.
        #[arg(long)]
        wait: bool,
        /// How long to wait at most.
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s", requires = "wait")]
        deadline: Duration,
        /// No picks at all, not even for clients that stick to it.
        #[arg(long)]
        disable: bool,
        #[command(flatten)]
        expiry: Expiry,
        #[command(flatten)]
        said: Said,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Give a drained or disabled endpoint requests again.
    Undrain {
        /// UPSTREAM/ADDRESS, such as app/10.0.0.1:80.
        #[arg(value_name = "UPSTREAM/ADDRESS")]
        endpoint: Endpoint,
        #[command(flatten)]
        said: Said,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Take back all that operators say of an endpoint: the file alone speaks again.
    ///
    /// An endpoint that was added stays, with the weight of its addition: `isobar remove` ends that.
    Clear {
        /// UPSTREAM/ADDRESS, such as app/10.0.0.1:80.
        #[arg(value_name = "UPSTREAM/ADDRESS")]
        endpoint: Endpoint,
        #[command(flatten)]
        said: Said,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Add an endpoint to an upstream with `dynamic = true`.
    Add {
        /// The upstream's name.
        upstream: String,
        /// Its address: 10.0.0.1:80, [::1]:80 or unix:/run/app.sock.
        address: String,
        /// Its share, 0 to 1000. Default: that of the file, or 1.
        #[arg(long)]
        weight: Option<u32>,
        #[command(flatten)]
        expiry: Expiry,
        #[command(flatten)]
        said: Said,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Remove an endpoint from an upstream with `dynamic = true`; what is in flight finishes.
    Remove {
        /// The upstream's name.
        upstream: String,
        /// Its address: 10.0.0.1:80, [::1]:80 or unix:/run/app.sock.
        address: String,
        #[command(flatten)]
        expiry: Expiry,
        #[command(flatten)]
        said: Said,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Show the fleet, compare peers, make a secret for a new one.
    Fleet {
        #[command(subcommand)]
        command: fleet::Command,
    },
    /// Serve what the configuration files say now, without losing a request.
    #[command(after_help = "\
All or nothing: with an error, every diagnostic is printed and the old configuration serves
on. What did not change is not touched: its connections stay.

Exit codes: 0 reloaded (or planned), 1 refused, 2 no server there.")]
    Reload {
        /// Only say what it would do.
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
    /// Replace the running program by the binary that is now in its place, without losing a request.
    ///
    /// The new process takes over the listening sockets; the old one finishes what it has in flight.
    /// One that fails to start leaves the old one serving.
    Upgrade {
        #[command(flatten)]
        show: Show,
        #[command(flatten)]
        place: Place,
    },
}

/// How results are shown.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Show {
    /// Print what the server answers, as it came: JSON.
    #[arg(long)]
    json: bool,
}

/// Which server is meant.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// Its admin socket. Default: $ISOBAR_SOCKET, or /run/isobar/admin.sock.
    #[arg(long, value_name = "PATH", help_heading = "Which server")]
    socket: Option<PathBuf>,
    /// Its configuration file: the `socket` in [admin] there is meant.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "socket",
        help_heading = "Which server"
    )]
    config: Option<PathBuf>,
}

/// Who says something, and why.
#[derive(Clone, Debug, Args)]
pub(super) struct Said {
    /// Why: shown by `isobar get` and in the history.
    #[arg(long, value_name = "TEXT", help_heading = "For the record")]
    reason: Option<String>,
    /// A name beside your user id.
    #[arg(long, value_name = "NAME", help_heading = "For the record")]
    owner: Option<String>,
}

/// For how long something is said.
#[derive(Clone, Debug, Args)]
pub(super) struct Expiry {
    /// Take it back after this time, such as 10m. Default: never.
    #[arg(long, value_name = "TIME", value_parser = is_duration, help_heading = "For the record")]
    expires: Option<String>,
}

/// Why a command did not do what it is for.
#[derive(Debug)]
enum Failure {
    /// Two that were compared differ, which was shown.
    Differ,
    /// The result cannot be written.
    Output(io::Error),
    /// The server refuses, or a deadline has passed.
    Refused(String),
    /// There is no server, or none that answers.
    Unreached(String),
}

const DONE: u8 = 0;
const REFUSED: u8 = 1;
const UNREACHED: u8 = 2;

/// Runs a command; returns the exit code.
pub(super) fn run(command: Command, out: &mut dyn Write) -> u8 {
    let done = execute(command, out);
    end(done, out)
}

/// Says what the server would change to serve `file`; returns the exit code.
pub(super) fn diff(file: &Path, format: Format, place: Place, out: &mut dyn Write) -> u8 {
    let show = Show {
        json: format == Format::Json,
    };
    let client = Client::new(&place.into());
    let done = client.and_then(|client| plan::plan(&client, Some(file), show, out));
    end(done, out)
}

fn end(done: Result<(), Failure>, out: &mut dyn Write) -> u8 {
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => DONE,
        Err(failure) => {
            let (code, text) = match failure {
                Failure::Differ => return REFUSED,
                // Whoever read it has seen enough: `isobar get upstreams | head`.
                Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return DONE,
                Failure::Output(error) => (UNREACHED, format!("cannot write: {error}")),
                Failure::Refused(text) => (REFUSED, text),
                Failure::Unreached(text) => (UNREACHED, text),
            };
            // Diagnostics of a configuration say what they are themselves.
            let label = if text.starts_with("error") || text.starts_with("warning") {
                ""
            } else {
                "error: "
            };
            let _ = writeln!(io::stderr(), "{label}{}", text.trim_end());
            code
        }
    }
}

fn execute(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Status {
            history,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            match history {
                None => status::status(&client, show, out),
                Some(limit) => status::history(&client, limit, show, out),
            }
        }
        Command::Get { thing, show, place } => {
            get::get(&Client::new(&place.into())?, &thing, show, out)
        }
        Command::Set {
            endpoint,
            setting,
            expiry,
            said,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            let words = change::words(&said, &expiry);
            change::set(&client, &endpoint, setting, words, show, out).map(|_| ())
        }
        Command::Drain {
            endpoint,
            wait,
            deadline,
            disable,
            expiry,
            said,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            let words = change::words(&said, &expiry);
            let state = if disable { "disable" } else { "drain" };
            let setting = Setting::State(state);
            let applied = change::set(&client, &endpoint, setting, words, show, out)?;
            if wait {
                out.flush()?;
                drain::wait(&client, &endpoint, &applied, deadline, show, out)?;
            }
            Ok(())
        }
        Command::Undrain {
            endpoint,
            said,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            let words = change::words(&said, &Expiry { expires: None });
            let setting = Setting::State("active");
            change::set(&client, &endpoint, setting, words, show, out).map(|_| ())
        }
        Command::Clear {
            endpoint,
            said,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            let words = change::words(&said, &Expiry { expires: None });
            change::clear(&client, &endpoint, &words, show, out)
        }
        Command::Add {
            upstream,
            address,
            weight,
            expiry,
            said,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            let endpoint = Endpoint { upstream, address };
            let words = change::words(&said, &expiry);
            change::add(&client, &endpoint, weight, words, show, out)
        }
        Command::Remove {
            upstream,
            address,
            expiry,
            said,
            show,
            place,
        } => {
            let client = Client::new(&place.into())?;
            let endpoint = Endpoint { upstream, address };
            let words = change::words(&said, &expiry);
            change::remove(&client, &endpoint, &words, show, out)
        }
        Command::Fleet { command } => fleet::run(command, out),
        Command::Reload { plan, show, place } => {
            let client = Client::new(&place.into())?;
            if plan {
                plan::plan(&client, None, show, out)
            } else {
                plan::reload(&client, show, out)
            }
        }
        Command::Upgrade { show, place } => {
            let client = Client::new(&place.into())?;
            let answer = client.post("/v1/upgrade", None)?;
            if show.json {
                write!(out, "{}", answer.text())?;
            } else {
                writeln!(
                    out,
                    "upgrade ordered: `isobar status --history` tells how it went"
                )?;
            }
            Ok(())
        }
    }
}

/// The socket that a configuration file names.
fn config_socket(file: &Path) -> Result<PathBuf, Failure> {
    let path = file.display();
    let loaded = config::load(file).map_err(|problems| match problems {
        Problems::Invalid(_) => Failure::Refused(problems.to_string()),
        Problems::Io { source, .. } => Failure::Unreached(format!("cannot read {path}: {source}")),
    })?;
    loaded.config.admin.socket.ok_or_else(|| {
        Failure::Unreached(format!(
            "{path} has no `socket` in [admin]: set one, such as \"{}\", and restart isobar",
            client::DEFAULT_SOCKET
        ))
    })
}

/// A duration, as the server will read it.
fn is_duration(text: &str) -> Result<String, String> {
    parse_duration(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

impl From<Place> for Where {
    fn from(place: Place) -> Self {
        Self {
            socket: place.socket,
            config: place.config,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
