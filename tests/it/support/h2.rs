//! A client of HTTP/2 on the `h2` crate, over clear text or TLS: streams as a test wants them, each
//! wait with a deadline.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::request::Builder as RequestBuilder;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::DEADLINE;

/// Runs a test's client to its end, within the deadline. Its connections move on a thread of their
/// own, so the test may block in between.
#[track_caller]
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(DEADLINE * 2, test).await });
    runtime.shutdown_background();
    done.unwrap_or_else(|_| panic!("the clients of HTTP/2 were not done in time"))
}

/// Beside the test, on the client's thread.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// `wait`, or a panic that says what was awaited.
#[track_caller]
pub fn within<T>(what: &str, wait: impl Future<Output = T>) -> impl Future<Output = T> {
    let what = format!("not within {DEADLINE:?}: {what}");
    async move {
        let done = tokio::time::timeout(DEADLINE, wait).await;
        done.unwrap_or_else(|_| panic!("{what}"))
    }
}

/// One connection. Clones share it.
#[derive(Clone, Debug)]
pub struct H2Client {
    send: SendRequest<Bytes>,
    ended: Arc<Mutex<Option<Moving>>>,
}

/// What moves a connection's frames, to its end.
type Moving = JoinHandle<Result<(), h2::Error>>;

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// A certificate that signs itself, for `localhost` and 127.0.0.1, with its files.
#[derive(Debug)]
pub struct Identity {
    folder: tempfile::TempDir,
    der: CertificateDer<'static>,
    key: Vec<u8>,
}

/// A request for `path` of the host `test`.
pub fn request(method: &str, path: &str) -> RequestBuilder {
    Request::builder()
        .method(method)
        .uri(format!("http://test{path}"))
}

/// Fields as a map.
pub fn fields(list: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

/// The value of the only field of that name, as text.
#[track_caller]
pub fn field<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    assert!(all.next().is_none(), "`{name}` is there more than once");
    Some(first.to_str().unwrap())
}

/// Sends `bytes` as the window lets, and the end of the stream if `is_all`.
pub async fn send_all(
    stream: &mut SendStream<Bytes>,
    bytes: &[u8],
    is_all: bool,
) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(bytes);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        // `None`: the stream is closed; sending says why.
        let room = room.transpose()?.unwrap_or(1).min(rest.len());
        let piece = rest.split_to(room);
        stream.send_data(piece, false)?;
    }
    if is_all {
        stream.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

/// The next bytes of a body, its window opened again; `None` at the end.
pub async fn next(recv: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let chunk = within("bytes of a body", recv.data()).await?;
    if let Ok(chunk) = &chunk {
        let _ = recv.flow_control().release_capacity(chunk.len());
    }
    Some(chunk)
}

/// A body and its trailers to the end.
pub async fn read_all(recv: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = next(recv).await {
        body.extend_from_slice(&chunk?);
    }
    Ok((body, within("trailers", recv.trailers()).await?))
}

/// A response to its end.
pub async fn read(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (parts, mut recv) = response.into_parts();
    let (body, trailers) = read_all(&mut recv).await?;
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
        trailers,
    })
}

// === impl H2Client ===

impl H2Client {
    /// By prior knowledge.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, &Builder::new()).await
    }

    /// The same with settings.
    pub async fn connect_with(addr: SocketAddr, settings: &Builder) -> Self {
        Self::over(tcp(addr).await, settings).await
    }

    /// By ALPN, over TLS.
    pub async fn connect_tls(addr: SocketAddr, identity: &Identity) -> Self {
        Self::over_tls(tcp(addr).await, identity).await
    }

    /// The same over a connection on which nothing of TLS was said yet.
    pub async fn over_tls(stream: TcpStream, identity: &Identity) -> Self {
        let connector = tokio_rustls::TlsConnector::from(identity.client(&[b"h2"]));
        let name = ServerName::try_from("localhost").unwrap();
        let shaken = connector.connect(name, stream);
        let stream = within("a handshake", shaken).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream, &Builder::new()).await
    }

    /// Over a stream on which nothing of HTTP/2 was said yet.
    pub async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        settings: &Builder,
    ) -> Self {
        let shaken = within("HTTP/2's preface", settings.handshake(io)).await;
        let (send, connection) = shaken.unwrap();
        Self {
            send,
            ended: Arc::new(Mutex::new(Some(tokio::spawn(connection)))),
        }
    }

    /// A stream; `is_whole` = its head is all of it.
    pub async fn open(
        &self,
        request: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let ready = self.send.clone().ready();
        within("room for a stream", ready)
            .await?
            .send_request(request, is_whole)
    }

    /// A request with a body, and its response.
    pub async fn exchange(&self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        let (response, mut send) = self.open(request, body.is_empty()).await?;
        let upload = async {
            if !body.is_empty() {
                // One that answers early need not read it.
                let _ = send_all(&mut send, body, true).await;
            }
        };
        let answer = async { read(within("a response", response).await?).await };
        tokio::join!(upload, answer).1
    }

    pub async fn try_get(&self, path: &str) -> Result<Answer, h2::Error> {
        self.exchange(request("GET", path).body(()).unwrap(), b"")
            .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap()
    }

    /// Waits until the other side has said that an extended CONNECT is welcome.
    pub async fn allows_extended_connect(&self) {
        // It comes with the first SETTINGS, before the answer to anything.
        while !self.send.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    }

    /// The error that a new stream meets once a GOAWAY has come.
    pub async fn await_goaway(&self) -> h2::Error {
        within("a GOAWAY", async {
            loop {
                match self.send.clone().ready().await {
                    Err(error) => return error,
                    Ok(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }

    /// How the connection ended.
    pub async fn ended(&self) -> Result<(), h2::Error> {
        let task = self.ended.lock().unwrap().take().expect("asked once");
        within("the connection's end", task).await.unwrap()
    }
}

async fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = within("a connect", TcpStream::connect(addr)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

// === impl Answer ===

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    #[track_caller]
    pub fn trailer(&self, name: &str) -> Option<&str> {
        field(self.trailers.as_ref()?, name)
    }
}

// === impl Identity ===

impl Identity {
    pub fn new() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("site.pem"), made.cert.pem()).unwrap();
        let key = folder.path().join("site.key");
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        rustix::fs::chmod(&key, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        Self {
            folder,
            der: made.cert.der().clone(),
            key: made.signing_key.serialize_der(),
        }
    }

    /// The certificate's file, which is its own authority.
    pub fn cert(&self) -> PathBuf {
        self.path("site.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.path("site.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }

    /// The table `tls` of a listener.
    pub fn listener(&self) -> String {
        format!(
            "tls = {{ certificates = [{{ cert = '{}', key = '{}' }}] }}",
            self.cert().display(),
            self.key().display()
        )
    }

    /// The key `tls` of an upstream whose endpoints have it.
    pub fn upstream(&self) -> String {
        format!(
            "tls = {{ server_name = 'localhost', ca = '{}' }}",
            self.cert().display()
        )
    }

    fn client(&self, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    /// For a server that agrees on one of these.
    pub fn server(&self, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }
}
