"""The load: wrk, h2load and programs of ours for the timed jobs; sockets of Python's for validation,
for idle connections and for callgrind."""

import json
import os
import re
import socket
import subprocess

from .h2 import Http2Client
from .process import RigError, prepare_child
from .tls import CIPHER, GROUP

# wrk's own table rounds to three digits; its `done` hook has the numbers. It defines neither
# `request` nor `response`, which would cost wrk a Lua call for each.
WRK_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON {"requests": %d, "bytes": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect, e.read, e.write, e.timeout))
end
"""


class Wrk:
    """HTTP/1.1, plain or over TLS; `env` names the configuration of its OpenSSL."""

    def __init__(self, binary, work, core, env):
        self.binary = binary
        self.work = work
        self.core = core
        self.env = env

    def run(self, port, job, seconds):
        """One run: wrk's own counts, errors in all under `errors`."""
        script = os.path.join(self.work, f"wrk-{job.name}.lua")
        with open(script, "w") as f:
            f.write(WRK_DONE)
            if job.upload_bytes:
                f.write(f'wrk.method = "POST"\nwrk.body = string.rep("u", {job.upload_bytes})\n')
            if job.close:
                f.write('wrk.headers["Connection"] = "close"\n')
        argv = [self.binary, "-t1", f"-c{job.connections}", f"-d{seconds}s", "--timeout", "10s",
                "-s", script, f"{job.scheme()}://127.0.0.1:{port}{job.path}"]
        text = finished(argv, seconds, self.core, self.env)
        result = json_line(argv, text)
        result["errors"] = sum(
            result[k] for k in ("status", "connect", "read", "write", "timeout"))
        return result


class H2load:
    """HTTP/2 over TLS. It has no percentiles, so neither have its rows."""

    def __init__(self, binary, work, core):
        self.binary = binary
        self.work = work
        self.core = core

    def run(self, port, job, seconds):
        argv = [self.binary, "-t1", f"-c{job.connections}", f"-m{job.streams}", f"-D{seconds}",
                f"--tls13-ciphers={CIPHER}", f"--groups={GROUP}", "--npn-list=h2"]
        argv += grpc_arguments(job, self.work)
        argv.append(f"https://127.0.0.1:{port}{job.path}")
        text = finished(argv, seconds, self.core)
        counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, "
                           r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
        good = re.search(r"status codes: (\d+) 2xx", text)
        took = re.search(r"finished in ([\d.]+)(s|ms|us)", text)
        read = re.search(r"traffic: \S+ \((\d+)\) total", text)
        agreed = re.search(r"Application protocol: h2$", text, re.M)
        if not (counts and good and took and read and agreed):
            raise RigError(f"{' '.join(argv)}:\n{text}")
        requests, _, failed, _, _ = (int(n) for n in counts.groups())
        unit = {"s": 1e6, "ms": 1e3, "us": 1}[took.group(2)]
        # `failed` has those that errored and those too late in it, `2xx` what had another status.
        return {"requests": requests, "bytes": int(read.group(1)),
                "duration_us": float(took.group(1)) * unit,
                "errors": failed + max(0, requests - failed - int(good.group(1)))}


class Handshakes:
    """A TLS connection a request: bench/handshakes.rs."""

    def __init__(self, binary, core):
        self.binary = binary
        self.core = core

    def run(self, port, job, seconds):
        argv = [self.binary, str(port), job.path, str(job.answer_bytes), str(seconds),
                str(job.connections), "resumed" if job.resume else "full", CIPHER]
        result = json_line(argv, finished(argv, seconds, self.core))
        result["errors"] = sum(result[k] for k in ("status", "connect", "broken", "kind"))
        return result


class Layer4:
    """A fixed number of messages that the proxy does not look into: bench/layer4_load.rs."""

    def __init__(self, binary, core):
        self.binary = binary
        self.core = core

    def run(self, port, job, seconds):
        argv = [self.binary, job.layer4, str(port), str(job.connections),
                str(int(job.pace * seconds)), str(job.answer_bytes)]
        result = json_line(argv, finished(argv, seconds, self.core))
        result["errors"] = sum(result[k] for k in ("connect", "broken", "lost", "wrong"))
        return result


def finished(argv, seconds, core, env=None):
    """What a load of so many seconds printed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=seconds + 60, env=env,
                          preexec_fn=lambda: prepare_child(core))
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RigError(f"{' '.join(argv)} ended with {done.returncode}:\n{text}")
    return text


def json_line(argv, text):
    lines = [l for l in text.splitlines() if l.startswith("JSON ")]
    if not lines:
        raise RigError(f"{' '.join(argv)} printed no counts:\n{text}")
    return json.loads(lines[0][5:])


def grpc_arguments(job, work):
    """For h2load and nghttp: the request of a unary call."""
    if not job.message:
        return []
    path = os.path.join(work, f"{job.name}.message")
    with open(path, "wb") as f:
        f.write(job.message)
    return ["-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers"]


class Http1Client:
    """Requests of one job over one kept connection; answers must bear a Content-Length."""

    def __init__(self, sock, job):
        self.sock = sock
        self.job = job
        body = job.upload_bytes
        self.request = (f"POST {job.path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {body}\r\n\r\n"
                        .encode() + b"u" * body if body else
                        f"GET {job.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())

    def ask(self):
        self.sock.sendall(self.request)

    def answer(self):
        """Reads one answer to its end; one that is not as the job expects is an error."""
        status, head, got = read_answer(self.sock)
        if status != 200 or got != self.job.answer_bytes:
            raise RigError(
                f"{self.job.path} answered {status} with {got} bytes, expected 200 with "
                f"{self.job.answer_bytes}; its head:\n{head.decode('latin-1')}")

    def close(self):
        self.sock.close()


class MessageClient:
    """Messages of 64 bytes over one socket; an answer is the message, or so many bytes of a pattern."""

    def __init__(self, sock, job):
        self.sock = sock
        self.size = job.answer_bytes
        self.asked = 0
        self.message = b""

    def ask(self):
        self.asked += 1
        self.message = (b"%08d" % self.asked) * 8
        self.sock.sendall(self.message)

    def answer(self):
        got = b""
        while len(got) < self.size:
            more = self.sock.recv(1 << 20)
            if not more:
                raise RigError(f"connection closed after {len(got)} of {self.size} bytes")
            got += more
        pattern = self.message if self.size == len(self.message) else b"isobar. "
        if got != pattern * (self.size // len(pattern)):
            raise RigError(f"an answer of {len(got)} bytes is not as expected: {got[:100]!r}")

    def close(self):
        self.sock.close()


def read_answer(sock):
    """(status, head, body bytes)"""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise RigError(f"connection closed inside a head: {data[:200]!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    length = None
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if key.lower() == "content-length":
            length = int(value)
    if length is None:
        raise RigError(f"answer without Content-Length: {head[:300]!r}")
    got = len(rest)
    while got < length:
        more = sock.recv(min(1 << 20, length - got))
        if not more:
            raise RigError(f"connection closed after {got} of {length} body bytes")
        got += len(more)
    return int(lines[0].split()[1]), head, got


def connect(port, job, tls, timeout=10):
    """A client of what the job speaks, hands shaken."""
    if job.layer4 == "udp":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(timeout)
        sock.connect(("127.0.0.1", port))
        return MessageClient(sock, job)
    sock = socket.create_connection(("127.0.0.1", port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if job.layer4:
        return MessageClient(sock, job)
    if job.tls:
        sock = tls.wrap(sock, "h2" if job.streams else "http/1.1")
    return Http2Client(sock, job) if job.streams else Http1Client(sock, job)


def validate(rig, peer, job):
    """Two answers on one connection, each with the status and the size that the job expects."""
    try:
        client = connect(peer.port, job, rig.tls)
        for _ in range(2):
            client.ask()
            client.answer()
        client.close()
        if job.message:
            validate_grpc(rig, peer, job)
    except (RigError, OSError) as e:
        raise RigError(f"{peer.name}: {e}\n{peer.process.last_words()}")


def validate_grpc(rig, peer, job):
    """The call's status is in the trailers, which h2.py does not read."""
    text = finished([rig.nghttp, "-v", "--no-dep", *grpc_arguments(job, rig.work),
                     f"https://127.0.0.1:{peer.port}{job.path}"], 1, rig.load_core)
    if not re.search(r"grpc-status: 0\b", re.sub(r"\x1b\[[\d;]*m", "", text)):
        raise RigError(f"no `grpc-status: 0` in the trailers:\n{text}")
