//! Files of certificates, keys, CAs and revocation lists: what is wrong with them now, and soon

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::sign::CertifiedKey;

use crate::base::tls::{
    CertificateError, CertificateFacts, CertificateFiles, Loaded, Wrong, read_cas, read_crls,
    read_pair,
};
use crate::telemetry::history::utc;

use super::super::diagnostic::Diagnostic;
use super::super::node::{Located, Node};
use super::super::reader::Table;

/// A path, relative to the folder of the file that holds it.
pub(super) fn path(text: Located<'_, &str>) -> PathBuf {
    text.at.source.folder().join(*text)
}

/// A certificate with its key, where each is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) cert: Located<'a, &'a str>,
    pub(super) key: Located<'a, &'a str>,
    pub(super) ocsp: Option<Located<'a, &'a str>>,
}

// === impl Pair ===

impl Pair<'_> {
    pub(super) fn files(&self) -> CertificateFiles {
        CertificateFiles {
            cert: path(self.cert),
            key: path(self.key),
            ocsp: self.ocsp.map(path),
        }
    }

    /// Reads the files of `table`; what is wrong is reported.
    pub(super) fn check(&self, table: &Table<'_>) -> Option<(Arc<CertifiedKey>, CertificateFacts)> {
        let files = self.files();
        match read_pair(&files) {
            Ok(Loaded { key, facts }) => {
                self.warn(&files, &facts, table);
                Some((key, facts))
            }
            Err(error) => {
                let (at, word) = match self.ocsp {
                    Some(ocsp) if files.ocsp.as_deref() == Some(error.file()) => (ocsp.at, "ocsp"),
                    _ if error.file() == files.key => (self.key.at, "key"),
                    _ => (self.cert.at, "cert"),
                };
                let message = format!("`{word}` of {}: {error}", table.what);
                let d = Diagnostic::error("bad-certificate", at, message);
                table.report.push(located(d, &error));
                None
            }
        }
    }

    fn warn(&self, files: &CertificateFiles, facts: &CertificateFacts, table: &Table<'_>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        let whose = named(facts);
        if facts.not_after < now {
            let message = format!(
                "the certificate of {whose} expired on {}",
                date(facts.not_after)
            );
            let d = Diagnostic::warning("certificate-expired", self.cert.at, message);
            let help =
                "whoever verifies it refuses it: renew it, it is read again when its file changes";
            table.report.push(d.help(help));
        } else if facts.not_before > now {
            let message = format!(
                "the certificate of {whose} is not valid before {}",
                date(facts.not_before)
            );
            let d = Diagnostic::warning("certificate-not-yet-valid", self.cert.at, message);
            let help =
                "whoever verifies it refuses it until then; is the clock of this machine right?";
            table.report.push(d.help(help));
        }
        if let Some(number) = facts.unlinked {
            let message = format!(
                "certificate {number} in {} did not issue the one before it",
                files.cert.display()
            );
            let d = Diagnostic::warning("certificate-order", self.cert.at, message);
            let help = "many verify a chain only in its order: the server's own certificate, then who \
                        issued it, and so on";
            table.report.push(d.help(help));
        }
        let mode = std::fs::metadata(&files.key).map_or(0, |found| found.permissions().mode());
        if mode & 0o004 != 0 {
            let message = format!(
                "everybody on this machine can read the key {} (its mode is {:03o})",
                files.key.display(),
                mode & 0o777
            );
            let d = Diagnostic::warning("key-readable", self.key.at, message);
            let help = "who has the key can pretend to be you: chmod 600, for the user that isobar runs as";
            table.report.push(d.help(help));
        }
    }
}

/// With help on where files are looked for; what else is wrong with one tells its remedy itself.
fn located(d: Diagnostic, error: &CertificateError) -> Diagnostic {
    match error.wrong() {
        Wrong::Io(_) | Wrong::NotAFile => {
            d.help("name a file; a relative path starts at the folder of this one")
        }
        _ => d,
    }
}

/// Whose certificate it is: its first names, or its subject.
pub(super) fn named(facts: &CertificateFacts) -> String {
    /// Enough to recognise one of many.
    const SHOWN: usize = 3;
    if facts.names.is_empty() {
        return format!("`{}`", facts.subject.escape_debug());
    }
    let mut text = String::new();
    for (i, name) in facts.names.iter().take(SHOWN).enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}`{}`", name.escape_debug());
    }
    if facts.names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

/// The day, UTC.
fn date(unix: i64) -> String {
    let moment = utc(u64::try_from(unix).unwrap_or(0).saturating_mul(1000));
    moment.split('T').next().unwrap_or_default().to_owned()
}

/// What a list of files holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Cas,
    Crls,
}

/// Files of CAs or of revocation lists, one or more: each is read once to tell what is wrong with it.
pub(super) fn list(node: Node<'_>, table: &Table<'_>, listed: Listed) -> Vec<PathBuf> {
    let key = node.key;
    if node.list_is_empty() {
        let d = node.error(
            "empty-list",
            format!("`{key}` of {} is an empty list", table.what),
        );
        let help = format!("leave `{key}` out, or name a file");
        table.report.push(d.help(help));
    }
    let mut paths = Vec::new();
    for text in node.one_or_more() {
        let path = path(text);
        let read = match listed {
            Listed::Cas => read_cas(&path).map(drop),
            Listed::Crls => read_crls(&path).map(drop),
        };
        if let Err(error) = read {
            let message = format!("`{key}` of {}: {error}", table.what);
            let code = match listed {
                Listed::Cas => "bad-ca",
                Listed::Crls => "bad-crl",
            };
            let d = Diagnostic::error(code, text.at, message);
            table.report.push(located(d, &error));
        }
        paths.push(path);
    }
    paths
}
