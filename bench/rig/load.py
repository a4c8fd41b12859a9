"""The load: wrk for the timed jobs, plain sockets for validation and for idle connections."""

import json
import os
import socket
import subprocess

from .process import RigError, prepare_child

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
    def __init__(self, binary, work, core):
        self.binary = binary
        self.work = work
        self.core = core

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
                "-s", script, f"http://127.0.0.1:{port}{job.path}"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=seconds + 60,
                              preexec_fn=lambda: prepare_child(self.core))
        text = done.stdout.decode(errors="replace")
        lines = [l for l in text.splitlines() if l.startswith("JSON ")]
        if done.returncode != 0 or not lines:
            raise RigError(f"{' '.join(argv)} ended with {done.returncode}:\n{text}")
        result = json.loads(lines[0][5:])
        result["errors"] = sum(
            result[k] for k in ("status", "connect", "read", "write", "timeout"))
        return result


class Answer:
    def __init__(self, status, head, body_bytes):
        self.status = status
        self.head = head
        self.body_bytes = body_bytes


def exchange(sock, path, body_bytes=0):
    """One GET (or POST) on a kept connection; answers must bear a Content-Length."""
    if body_bytes:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {body_bytes}\r\n\r\n"
                     .encode() + b"u" * body_bytes)
    else:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    return read_answer(sock)


def read_answer(sock):
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
    return Answer(int(lines[0].split()[1]), head, got)


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def validate(name, port, job):
    """Two answers on one connection, each with the status and the size that the job expects."""
    with connect(port) as sock:
        for _ in range(2):
            answer = exchange(sock, job.path, job.upload_bytes)
            if answer.status != 200 or answer.body_bytes != job.answer_bytes:
                raise RigError(
                    f"{name}: {job.path} answered {answer.status} with {answer.body_bytes} bytes, "
                    f"expected 200 with {job.answer_bytes}; its head:\n{answer.head.decode('latin-1')}")
