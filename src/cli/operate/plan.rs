//! `reload` and plans: what a configuration would change, or has.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::client::{Answer, Client, absolute};
use super::views::Plan;
use super::{Failure, Show};

/// What it would do to reload, or to serve `file` instead.
pub(super) fn plan(
    client: &Client,
    file: Option<&Path>,
    show: Show,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let body = match file {
        None => json!({}),
        // The server has a folder of its own.
        Some(file) => json!({ "file": absolute(file)? }),
    };
    tell(
        &client.post("/v1/plan", Some(&body))?,
        Tense::Future,
        show,
        out,
    )
}

pub(super) fn reload(client: &Client, show: Show, out: &mut dyn Write) -> Result<(), Failure> {
    tell(&client.post("/v1/reload", None)?, Tense::Past, show, out)
}

#[derive(Clone, Copy, PartialEq)]
enum Tense {
    Future,
    Past,
}

fn tell(answer: &Answer, tense: Tense, show: Show, out: &mut dyn Write) -> Result<(), Failure> {
    if show.json {
        return Ok(write!(out, "{}", answer.text())?);
    }
    let plan: Plan = answer.read()?;
    for warning in &plan.warnings {
        writeln!(out, "{warning}")?;
    }
    let text = plan.text.trim_end();
    // The same text tells both.
    match text.strip_prefix("plan: ") {
        Some(rest) if tense == Tense::Past => writeln!(out, "reloaded: {rest}")?,
        Some(_) | None => writeln!(out, "{text}")?,
    }
    Ok(())
}
