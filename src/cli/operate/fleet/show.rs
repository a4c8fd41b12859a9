//! The fleet for people. `now` is that of the client, in milliseconds since 1970.

use std::collections::BTreeSet;
use std::io::{self, Write};

use crate::telemetry::history::utc;

use super::super::status::{lasting, plural};
use super::super::table::{Table, visible};
use super::views::{Diff, Fleet, Known, Member};

/// Clocks that are off by less are not worth a line.
const SKEW_SHOWN_MS: u64 = 500;

pub(super) fn status(fleet: &Fleet, now: u64, out: &mut dyn Write) -> io::Result<()> {
    let Fleet { name, peer, .. } = fleet;
    let (name, address) = (visible(name), visible(&fleet.address));
    writeln!(out, "fleet {name}: this is peer {peer} at {address}")?;
    if let Some(why) = &fleet.stopped {
        writeln!(
            out,
            "it has ended here by a fault of isobar: {}; all below is as it was then. Report it, and restart \
             the process to take part again",
            visible(why)
        )?;
    }
    let members = &fleet.members;
    let all = members.alive + members.suspect + members.down + members.left;
    writeln!(
        out,
        "{}: {} alive, {} suspect, {} down, {} left",
        plural(all, "peer"),
        members.alive,
        members.suspect,
        members.down,
        members.left
    )?;
    if members.alive == 1 {
        writeln!(out, "it is alone: all it does is as without a fleet")?;
    }
    knowledge(fleet, now, out)?;
    let duties = &fleet.duties;
    writeln!(
        out,
        "checks {} of {}",
        duties.mine,
        plural(duties.of, "endpoint")
    )?;
    if fleet.stall_seconds > 0.0 {
        writeln!(
            out,
            "has not come to its work for {:.1} s in all: is this machine overloaded?",
            fleet.stall_seconds
        )?;
    }
    for (peer, skew) in &fleet.clock_skew_ms {
        if skew.unsigned_abs() >= SKEW_SHOWN_MS {
            let peer = visible(peer);
            writeln!(out, "the clock of peer {peer} is {}", ahead(*skew))?;
        }
    }
    if fleet.learning {
        writeln!(
            out,
            "is still learning what the others know: until then `guard.max_remove` bounds no weights and no additions"
        )?;
    }
    traffic(fleet, out)?;
    aside(fleet, out)?;
    held(fleet, now, out)?;
    quarantine(fleet, out)
}

/// What it knows, and how fresh that is.
fn knowledge(fleet: &Fleet, now: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut facts: Vec<String> = fleet
        .facts
        .iter()
        .map(|(kind, count)| plural(*count, &visible(kind)))
        .collect();
    facts.push(plural(fleet.tombstones, "tombstone"));
    writeln!(
        out,
        "knows {}; digest {}",
        facts.join(", "),
        visible(&fleet.digest)
    )?;
    let lag = match fleet.lag_ms {
        Some(lag) => format!("the newest came after {}", milliseconds(lag)),
        None => "none has come yet".to_owned(),
    };
    writeln!(
        out,
        "{} still to be pushed, {lag}",
        plural(fleet.dirty, "fact")
    )?;
    match &fleet.last_sync {
        Some(sync) => {
            let ago = lasting(now.saturating_sub(sync.at_unix_ms) / 1000);
            let peer = visible(&sync.peer);
            let (sent, received) = (sync.facts_sent, sync.facts_received);
            writeln!(
                out,
                "compared with peer {peer} {ago} ago: {} sent, {received} received",
                plural(sent, "fact")
            )
        }
        None => writeln!(out, "compared with nobody yet"),
    }
}

fn traffic(fleet: &Fleet, out: &mut dyn Write) -> io::Result<()> {
    let kinds: BTreeSet<&String> = fleet.sent.keys().chain(fleet.received.keys()).collect();
    let mut table = Table::new(&["TRAFFIC", "SENT", "MESSAGES", "RECEIVED", "MESSAGES"]);
    for kind in kinds {
        let sent = fleet.sent.get(kind).copied().unwrap_or_default();
        let received = fleet.received.get(kind).copied().unwrap_or_default();
        table.row([
            kind.clone(),
            bytes(sent.bytes),
            sent.messages.to_string(),
            bytes(received.bytes),
            received.messages.to_string(),
        ]);
    }
    write!(out, "\n{table}")?;
    let refused = fleet.refused.iter().filter(|(_, count)| **count > 0);
    let refused: Vec<String> = refused
        .map(|(reason, count)| format!("{count} {}", visible(reason)))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    writeln!(out, "datagrams not listened to: {}", refused.join(", "))
}

fn aside(fleet: &Fleet, out: &mut dyn Write) -> io::Result<()> {
    let Some(aside) = &fleet.aside else {
        return Ok(());
    };
    let mut table = Table::new(&["UPSTREAM", "ENDPOINT", "HOLDS HERE ALONE"]);
    for word in &aside.words {
        table.row([
            word.upstream.clone(),
            word.endpoint.clone(),
            word.what.clone(),
        ]);
    }
    let shown = if aside.words.is_empty() {
        String::new()
    } else {
        table.to_string()
    };
    let more = match aside.count.saturating_sub(aside.words.len() as u64) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    writeln!(
        out,
        "\n{shown}{more}{} of operators kept aside: this peer was last here {}, which is longer ago than the fleet \
         remembers what is taken back; it is decided once it has met others",
        plural(aside.count, "word"),
        utc(aside.since_unix_ms)
    )
}

fn held(fleet: &Fleet, now: u64, out: &mut dyn Write) -> io::Result<()> {
    if fleet.held.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["UPSTREAM", "ENDPOINT", "HELD BACK", "SAID BY", "FOR"]);
    for held in &fleet.held {
        table.row([
            held.upstream.clone(),
            held.endpoint.clone(),
            held.what.clone(),
            held.by.clone(),
            lasting(now.saturating_sub(held.since_unix_ms) / 1000),
        ]);
    }
    writeln!(
        out,
        "\n{table}what one peer says took away too much at once (`guard.max_remove`): it holds when \
         another peer says it too, or checks find the endpoint down"
    )
}

fn quarantine(fleet: &Fleet, out: &mut dyn Write) -> io::Result<()> {
    if fleet.quarantined == 0 {
        return Ok(());
    }
    let mut table = Table::new(&["NOT TAKEN", "FROM", "AT", "WHY"]);
    for one in &fleet.quarantine {
        table.row([
            one.what.clone(),
            one.from.clone(),
            utc(one.at_unix_ms),
            one.why.clone(),
        ]);
    }
    let all = plural(fleet.quarantined, "fact");
    writeln!(out, "\n{table}{all} in all not taken since the start")
}

pub(super) fn members(members: &[Member], now: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        "PEER",
        "ADDRESS",
        "STATE",
        "FOR",
        "ZONE",
        "VERSION",
        "CONFIGURATION",
        "HEARD OF",
        "CLOCK",
    ]);
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    for member in members {
        let heard = match member.last_contact_ms {
            _ if member.this => "this peer".to_owned(),
            Some(ago) => format!("{} ago", milliseconds(ago)),
            None => "never".to_owned(),
        };
        table.row([
            member.peer.clone(),
            member.address.clone(),
            member.state.clone(),
            lasting(now.saturating_sub(member.since_unix_ms) / 1000),
            or_dash(member.zone.clone()),
            or_dash(member.version.clone()),
            or_dash(member.config.clone()),
            heard,
            or_dash(member.skew_ms.map(ahead)),
        ]);
    }
    write!(out, "{table}")?;
    let configs: BTreeSet<&str> = members
        .iter()
        .filter(|member| !matches!(&*member.state, "down" | "left"))
        .filter_map(|member| member.config.as_deref())
        .collect();
    if configs.len() > 1 {
        writeln!(
            out,
            "\nthey serve {} configurations: peers whose checks of an endpoint differ do not vote on it \
             together",
            configs.len()
        )?;
    }
    Ok(())
}

pub(super) fn diff(diff: &Diff, out: &mut dyn Write) -> io::Result<()> {
    let (peer, address) = (visible(&diff.peer), visible(&diff.address));
    if diff.equal {
        let facts = plural(diff.ours, "fact");
        return writeln!(out, "knows the same as peer {peer} at {address}: {facts}");
    }
    let mut table = Table::new(&["FACT", "HERE", "THERE"]);
    for difference in &diff.differences {
        table.row([
            difference.fact.clone(),
            known(difference.ours.as_ref()),
            known(difference.theirs.as_ref()),
        ]);
    }
    write!(out, "{table}")?;
    if diff.more > 0 {
        writeln!(out, "and {} more", diff.more)?;
    }
    writeln!(
        out,
        "\nknows {}, peer {peer} at {address} {}",
        plural(diff.ours, "fact"),
        diff.theirs
    )
}

/// `drain (by 00000000000000ab, 2026-11-22T05:00:00Z)`
fn known(known: Option<&Known>) -> String {
    known.map_or("-".to_owned(), |known| {
        let at = utc(known.at_unix_ms);
        format!("{} (by {}, {at})", known.what, known.origin)
    })
}

/// `12 ms ahead`, `1.5 s behind`
fn ahead(skew_ms: i64) -> String {
    let word = if skew_ms < 0 { "behind" } else { "ahead" };
    format!("{} {word}", milliseconds(skew_ms.unsigned_abs()))
}

/// `12 ms`, `1.5 s`, and in whole units from a minute on.
fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => lasting(ms / 1000),
    }
}

/// `512 B`, `1.5 KiB`, `3.2 GiB`
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}
