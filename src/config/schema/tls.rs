//! TLS and HTTP/2, on either side.

use schemars::JsonSchema;

use super::{Duration, Off, OneOrMore, Size};

/// How clients speak TLS. Files are read again when they change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ListenerTls {
    /// Certificates with their keys. A client gets the one that has the name it asks for (exact, then
    /// wildcard), else the first.
    #[schemars(length(min = 1))]
    certificates: Vec<Certificate>,
    /// The oldest version spoken.
    #[schemars(extend("default" = "1.2"))]
    min_version: Option<Version>,
    /// Protocols, the preferred one first. http: "h2" and "http/1.1"; default both, without "h2" if
    /// `http2` is off. tcp: any; default none, and it does not matter what clients offer.
    alpn: Option<Protocols>,
    /// File or files of the CAs that may vouch for clients (PEM). Default: no client is asked.
    client_ca: Option<OneOrMore>,
    /// Whether a client without a certificate is refused.
    #[schemars(extend("default" = "require"))]
    client_auth: Option<ClientAuth>,
    /// File or files of revocation lists (PEM): with any, each CA in a client's chain must have one.
    /// Default: none.
    client_crl: Option<OneOrMore>,
    /// Request fields that tell endpoints of the client's certificate. Default: none.
    client_headers: Option<ClientHeaders>,
    /// Whether sessions are resumed by tickets, or where the secret for their keys is.
    #[schemars(extend("default" = true))]
    tickets: Option<Tickets>,
    /// From the accept to the end of the handshake.
    #[schemars(extend("default" = "10s"))]
    handshake_timeout: Option<Duration>,
    /// Early data (0-RTT) is never accepted: "off".
    #[schemars(extend("default" = "off"))]
    early_data: Option<EarlyData>,
}

/// A certificate with its key.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Certificate {
    /// File of the chain (PEM), the server's own certificate first.
    cert: String,
    /// File of its private key (PEM).
    key: String,
    /// File of an OCSP response (DER) that is sent along. Default: none.
    ocsp: Option<String>,
}

#[derive(JsonSchema)]
enum Version {
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Protocols {
    One(Alpn),
    More(#[schemars(length(min = 1))] Vec<Alpn>),
}

/// A protocol as it is registered (RFC 7301).
#[derive(JsonSchema)]
struct Alpn(#[schemars(length(min = 1, max = 255))] String);

/// Whether a client without a certificate is refused; one with a bad one always is.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum ClientAuth {
    /// It is.
    Require,
    /// It is not.
    Request,
}

/// Request fields about the client's certificate; whatever clients send under these names is removed.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ClientHeaders {
    /// Name of the field with its subject (RFC 4514): CN=alice,O=Example.
    subject: Option<String>,
    /// Name of the field with its SHA-256, in lower-case hex.
    fingerprint: Option<String>,
    /// Name of the field with the certificate itself (RFC 9440), by custom "client-cert".
    certificate: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Tickets {
    Switch(bool),
    Table(TicketTable),
}

/// Sessions are resumed by tickets.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TicketTable {
    /// File whose first line (16 bytes or more) makes the keys: the same for all isobars of a fleet.
    /// Tickets of further lines are understood. Default: a secret in `state_dir`, or one for the life
    /// of the process.
    secret_file: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum EarlyData {
    Off(Off),
    No(#[schemars(extend("const" = false))] bool),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Http2OrOff {
    Http2(Http2),
    Off(Off),
}

/// HTTP/2: by ALPN in TLS, by prior knowledge in clear text.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Http2 {
    /// Most streams that a client may have open at once.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    max_streams: Option<u32>,
    /// Bytes that a client may send on a stream before they are read, 16KiB to 16MiB.
    #[schemars(extend("default" = "128KiB"))]
    stream_window: Option<Size>,
    /// The same on the connection as a whole, 64KiB to 2GiB - 1; "auto" is `max_streams` times
    /// `stream_window`.
    #[schemars(extend("default" = "auto"))]
    connection_window: Option<SizeOrAuto>,
    /// Streams that a client may cancel at once; a thirtieth of it comes back every second.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1000))]
    max_resets: Option<u32>,
    /// PING frames, in the same way.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1000))]
    max_pings: Option<u32>,
    /// SETTINGS frames, in the same way.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 100))]
    max_settings: Option<u32>,
    /// Frames that move nothing, in the same way.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1000))]
    max_idle_frames: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum SizeOrAuto {
    Auto(super::Auto),
    Size(Size),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum DurationOrOff {
    Off(Off),
    Duration(Duration),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum UpstreamProtocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2: by ALPN with `tls`, by prior knowledge without.
    H2,
    /// HTTP/2 where the endpoint agrees to it, HTTP/1.1 otherwise: needs `tls`.
    Auto,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum UpstreamTls {
    Switch(bool),
    Table(UpstreamTlsTable),
}

/// How endpoints speak TLS. Files are read when the configuration is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct UpstreamTlsTable {
    /// The name that certificates must have and SNI tells. Default: the endpoint's address.
    server_name: Option<String>,
    /// File of the CAs that are trusted (PEM). Default: those of the system.
    ca: Option<String>,
    /// File of the certificate that this proxy shows to endpoints that ask (PEM). Default: none.
    cert: Option<String>,
    /// File of its private key (PEM).
    key: Option<String>,
    /// Public keys of which an endpoint must have one: "sha256/" and base64, or a list. Default: any.
    pin: Option<Pins>,
    /// Takes every certificate.
    #[schemars(extend("default" = false))]
    insecure: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Pins {
    One(Pin),
    More(#[schemars(length(min = 1))] Vec<Pin>),
}

/// "sha256/" and the base64 of the hash of a SubjectPublicKeyInfo.
#[derive(JsonSchema)]
struct Pin(#[schemars(regex(pattern = r"^sha256/[A-Za-z0-9+/]{43}=$"))] String);
