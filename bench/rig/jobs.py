"""The questions: what a load asks of every peer, and how it is counted."""

from dataclasses import dataclass

from .peers import Origin


@dataclass
class Job:
    """One question. `by_bytes`: requests are counted by bytes read, for bodies so large that those
    in flight at the end are a share of the whole. `twins`: ways to splice that HAProxy is measured
    with besides. `streams` of each connection: HTTP/2. `message`: a gRPC call with it, to endpoints
    that speak HTTP/2. `handshakes`: a TLS connection a request. `layer4`: "tcp", "connect" or "udp",
    messages of 64 bytes that no proxy looks into, `pace` of them for each second asked for."""

    name: str
    question: str
    path: str
    answer_bytes: int
    connections: int
    close: bool = False
    by_bytes: bool = False
    twins: tuple = ()
    upload_bytes: int = 0
    tls: bool = False
    streams: int = 0
    message: bytes = b""
    handshakes: bool = False
    resume: bool = False
    layer4: str = ""
    pace: int = 0

    def scheme(self):
        return "https" if self.tls else "http"

    def load(self):
        """The name of the program in `Rig.loads`."""
        if self.layer4:
            return "layer4"
        return "handshakes" if self.handshakes else "h2load" if self.streams else "wrk"

    def origin(self):
        """The name of its endpoints in `Rig.origins`."""
        if self.layer4:
            return f"{'udp' if self.layer4 == 'udp' else 'tcp'}-{self.answer_bytes}"
        return "grpc" if self.message else "http"


# A gRPC message: not compressed, 32 bytes of payload behind a length of 32 bits.
MESSAGE = b"\0" + (32).to_bytes(4, "big") + b"isobar. " * 4

SIZES = Origin.SIZES
JOBS = {j.name: j for j in (
    Job("small", "keep-alive, 128-byte answers, 64 connections", "/small", SIZES["small"], 64),
    Job("64k", "keep-alive, 64 KiB answers, 32 connections", "/64k", SIZES["64k"], 32,
        twins=("splice",)),
    Job("8m", "keep-alive, 8 MiB answers, 4 connections", "/8m", SIZES["8m"], 4, by_bytes=True,
        twins=("splice",)),
    Job("connect", "a new client connection per request, 128-byte answers, 32 at a time", "/small",
        SIZES["small"], 32, close=True),
    Job("upload", "keep-alive, 64 KiB request bodies, 128-byte answers, 16 connections", "/upload",
        SIZES["small"], 16, upload_bytes=64 * 1024),
    Job("tls", "TLS 1.3, keep-alive, 128-byte answers, 64 connections", "/small", SIZES["small"], 64,
        tls=True),
    Job("tls-h2", "TLS 1.3, HTTP/2, 128-byte answers, 8 connections x 16 streams", "/small",
        SIZES["small"], 8, tls=True, streams=16),
    Job("tls-8m", "TLS 1.3, keep-alive, 8 MiB answers, 4 connections", "/8m", SIZES["8m"], 4,
        tls=True, by_bytes=True),
    Job("handshake", "TLS 1.3, a full handshake (P-256) for each request, 128-byte answers, 32 at a "
        "time", "/small", SIZES["small"], 32, tls=True, close=True, handshakes=True),
    Job("resume", "TLS 1.3, a resumed handshake for each request, 128-byte answers, 32 at a time",
        "/small", SIZES["small"], 32, tls=True, close=True, handshakes=True, resume=True),
    Job("grpc", "gRPC, unary echo of 32 bytes, HTTP/2 over TLS 1.3, 8 connections x 16 streams, "
        "HTTP/2 to the endpoints", "/bench.Echo/Unary", len(MESSAGE), 8, tls=True, streams=16,
        message=MESSAGE),
    Job("tcp-small", "TCP, messages of 64 bytes echoed, one outstanding on each of 64 connections", "",
        64, 64, layer4="tcp", pace=60_000, twins=("auto",)),
    Job("tcp-connect", "TCP, a connection for each message of 64 bytes echoed, 32 at a time", "", 64,
        32, layer4="connect", pace=10_000, twins=("auto",)),
    Job("tcp-8m", "TCP, 8 MiB for each message of 64 bytes, 4 connections", "", 8 << 20, 4,
        layer4="tcp", pace=400, twins=("auto", "splice")),
    Job("udp-echo", "UDP, datagrams of 64 bytes echoed, one outstanding in each of 100 flows", "", 64,
        100, layer4="udp", pace=60_000),
)}
# What the connections that wait have done before.
IDLE = {"idle": JOBS["small"], "tls-idle": JOBS["tls"], "h2-idle": JOBS["tls-h2"],
        "tcp-idle": JOBS["tcp-small"]}
IDLE_CONNECTIONS = {"idle": 5000, "tls-idle": 3000, "h2-idle": 3000, "tcp-idle": 3000}
IDLE_WORDS = {"idle": "", "tls-idle": " over TLS 1.3", "h2-idle": " over HTTP/2 and TLS 1.3",
              "tcp-idle": " of an endpoint's over TCP, which it keeps"}
DIRECT = "direct"
DEFAULT_JOBS = ["small", "64k", "8m", "connect", "idle"]
TLS_JOBS = ["tls", "tls-h2", "tls-8m", "handshake", "resume", "grpc", "tls-idle", "h2-idle"]
LAYER4_JOBS = ["tcp-small", "tcp-connect", "tcp-8m", "udp-echo", "tcp-idle"]
