//! The command line: arguments in, exit code out.

mod banner;
mod check;
mod run;
mod schema;
mod upgrade;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// A load-balancing reverse proxy.
#[derive(Debug, Parser)]
#[command(
    name = "isobar",
    version,
    about = "A load-balancing reverse proxy: one process, one TOML file, no lost requests.",
    after_help = "\
Try it:
  isobar run config/quickstart.toml          a balancer over three demonstration endpoints
  isobar run --listen :8080 --to 127.0.0.1:3000 --to 127.0.0.1:3001

Exit codes: 0 ok, 1 the configuration is invalid or the server could not start, 2 wrong usage or a
file that cannot be read.",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check configuration files: every problem at once, with its place and what to do.
    #[command(
        after_help = "Exit codes: 0 every file is valid, 1 at least one is not (or has warnings, with \
                            --deny-warnings), 2 a file cannot be read."
    )]
    Check {
        /// Files to check, each with what it includes.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How problems are written.
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
        /// Take warnings for errors: exit code 1.
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Serve a configuration file, or the endpoints given by --to.
    #[command(after_help = "\
Signals: TERM, QUIT, INT drain and end (a second one cuts); HUP reloads the configuration; USR1
reopens log files; USR2 replaces the binary without losing a request.

Exit codes: 0 drained, 1 invalid configuration, could not start, or cut, 2 usage or I/O.")]
    Run {
        /// The configuration file.
        #[arg(conflicts_with = "to", required_unless_present = "to")]
        file: Option<PathBuf>,
        /// Without a file: where to listen, such as :8080 or 127.0.0.1:8080.
        #[arg(long, default_value = ":8080", conflicts_with = "file")]
        listen: String,
        /// Without a file: an endpoint, such as 127.0.0.1:3000; once for each.
        #[arg(long, value_name = "ADDRESS")]
        to: Vec<String>,
        /// Reload by itself when a file of the configuration changes, as `process.watch = true`.
        #[arg(long, conflicts_with = "to")]
        watch: bool,
    },
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// One JSON array.
    Json,
    /// For people.
    Text,
}

/// A wrong command line, or a file that cannot be read.
const USAGE: u8 = 2;

/// Runs the program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream is right for each.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let stdout = &mut std::io::stdout().lock() as &mut dyn Write;
    ExitCode::from(match cli.command {
        Command::Check {
            files,
            format,
            deny_warnings,
        } => {
            let format = match format {
                OutputFormat::Json => check::Format::Json,
                OutputFormat::Text => check::Format::Text,
            };
            let warnings = if deny_warnings {
                check::Warnings::Denied
            } else {
                check::Warnings::Allowed
            };
            check::check(&files, format, warnings, stdout)
        }
        Command::Run {
            file: Some(file),
            watch,
            ..
        } => run::file(&file, watch),
        Command::Run {
            file: None,
            listen,
            to,
            ..
        } => run::to(&listen, &to),
        Command::Schema => schema::schema(stdout),
    })
}
