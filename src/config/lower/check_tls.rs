//! `[upstreams.NAME.health.tls]`

use crate::base::tls::ClientSetup;

use super::super::model::CheckTls;
use super::super::node::Node;
use super::trust::{Clients, Trusted};

/// Reads `true`, `false` or the table; `None` = no TLS, or what was reported.
pub(super) fn lower(
    node: Node<'_>,
    what: &str,
    protocol: &[u8],
    clients: &Clients,
) -> Option<CheckTls> {
    let trusted = if node.is_table() {
        let table = node.table(format!("`tls` of {what}"), "upstreams.*.health.tls")?;
        let trusted = Trusted::read(&table);
        table.finish();
        trusted?
    } else if node.flag()? {
        Trusted::default()
    } else {
        return None;
    };
    let setup = ClientSetup {
        trust: trusted.trust(),
        protocols: &[protocol],
        identity: None,
        pins: &[],
    };
    match clients.get(&setup) {
        Ok(client) => Some(CheckTls {
            server_name: trusted.server_name,
            ca: trusted.path,
            verify: !trusted.is_insecure,
            client,
            of_upstream: false,
        }),
        Err(error) => {
            trusted.refuse(&error, node, what);
            None
        }
    }
}
