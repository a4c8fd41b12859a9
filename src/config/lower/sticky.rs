//! `[upstreams.NAME.sticky]`

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use super::super::diagnostic::Diagnostic;
use super::super::model::Sticky;
use super::super::node::Located;
use super::super::reader::Table;
use super::super::secret;
use super::headers;

pub(super) fn lower(table: Table<'_>) -> Sticky {
    let mut sticky = Sticky {
        cookie: "isobar".to_owned(),
        secure: false,
        ttl: None,
        secret_file: None,
    };
    if let Some(cookie) = table.require("cookie").and_then(|n| n.text()) {
        // RFC 6265 section 4.1.1: a cookie name is a token.
        if !cookie.is_empty() && cookie.bytes().all(headers::is_token_byte) {
            (*cookie).clone_into(&mut sticky.cookie);
        } else {
            let message = format!("`{}` is not a cookie name", cookie.escape_debug());
            let d = Diagnostic::error("bad-cookie", cookie.at, message);
            table
                .report
                .push(d.help("letters, digits and !#$%&'*+-.^_`|~"));
        }
    }
    sticky.secure = table.flag("secure").unwrap_or(sticky.secure);
    if let Some(ttl) = table.timeout("ttl") {
        if ttl.value < Duration::from_secs(1) || ttl.subsec_millis() != 0 {
            let d = Diagnostic::error("out-of-range", ttl.at, "`ttl` must be whole seconds");
            table.report.push(d.help(
                "a cookie's Max-Age counts seconds; without `ttl` it lasts the browser's session",
            ));
        }
        sticky.ttl = Some(*ttl);
    }
    sticky.secret_file = table
        .text("secret_file")
        .map(|text| secret_file(text, &table));
    table.finish();
    sticky
}

/// The path, which leads to a secret or was reported.
pub(super) fn secret_file(text: Located<'_, &str>, table: &Table<'_>) -> PathBuf {
    let help = "make it, for the user that isobar runs as alone: \
                (umask 077; head -c 32 /dev/urandom | base64 > FILE)";
    file_of_secrets(text, "secret_file", help, table)
}

/// [`secret_file`] under any key, with what helps to make one.
pub(super) fn file_of_secrets(
    text: Located<'_, &str>,
    key: &str,
    help: &str,
    table: &Table<'_>,
) -> PathBuf {
    let path = text.at.source.folder().join(*text);
    let problem = if text.is_empty() || text.contains('\0') {
        Some("it is no path".to_owned())
    } else {
        secret::read(&path).err().map(|e| match e.source() {
            Some(cause) => format!("{e}: {cause}"),
            None => e.to_string(),
        })
    };
    if let Some(problem) = problem {
        let shown = path.display().to_string();
        let message = format!(
            "`{key}` of {}: `{}`: {problem}",
            table.what,
            shown.escape_debug()
        );
        let d = Diagnostic::error("bad-secret-file", text.at, message);
        table.report.push(d.help(help));
    }
    path
}
