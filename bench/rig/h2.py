"""A client of HTTP/2 that knows just enough to wait: for idle connections, callgrind and validation.

It sends literals and reads no field but :status, so there is no HPACK state to keep. RFC 9113, 7541.
"""

import struct

from .process import RigError
from .tls import NAME

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INDEXED_STATUS_200 = 0x88


class Http2Client:
    """Requests of one job over one connection, several at a time."""

    def __init__(self, sock, job):
        self.sock = sock
        self.job = job
        self.next_stream = 1
        self.data = b""
        self.block = request_block(job)
        # A connection window that no job here uses up: no update of it is ever due.
        window = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65535))
        self.sock.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + window)
        while True:
            kind, flags, _, _ = self.receive()
            if kind == SETTINGS and not flags & ACK:
                break

    def ask(self, requests=1):
        out = b""
        for _ in range(requests):
            if self.job.message:
                out += frame(HEADERS, END_HEADERS, self.next_stream, self.block)
                out += frame(DATA, END_STREAM, self.next_stream, self.job.message)
            else:
                out += frame(HEADERS, END_HEADERS | END_STREAM, self.next_stream, self.block)
            self.next_stream += 2
        self.sock.sendall(out)

    def answer(self, requests=1):
        """Reads as many answers to their end; one that is not as the job expects is an error."""
        sizes, done = {}, 0
        while done < requests:
            kind, flags, stream, payload = self.receive()
            if kind == HEADERS:
                if flags & (PADDED | PRIORITY):
                    raise RigError("an answer with padding: h2.py cannot read it")
                # The second one of a stream is trailers.
                if stream not in sizes and status_byte(payload) != INDEXED_STATUS_200:
                    raise RigError(f"an answer that is not 200: field block {payload[:40].hex()}")
                sizes.setdefault(stream, 0)
            elif kind == DATA:
                sizes[stream] = sizes.get(stream, 0) + len(payload)
            elif kind in (RST_STREAM, GOAWAY):
                raise RigError(f"answered by frame {kind}: {payload.hex()}")
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                done += 1
                if sizes.pop(stream) != self.job.answer_bytes:
                    raise RigError(f"{self.job.path}: an answer is not {self.job.answer_bytes} bytes")

    def close(self):
        self.sock.close()

    def receive(self):
        """One frame; settings and pings are answered on the way."""
        head = self.take(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
        payload = self.take(length)
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.sock.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return kind, flags, stream, payload

    def take(self, size):
        while len(self.data) < size:
            more = self.sock.recv(65536)
            if not more:
                raise RigError("connection closed inside HTTP/2")
            self.data += more
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def request_block(job):
    """RFC 7541: indices into the static table, values as literals that nobody indexes."""
    method, https = (0x83 if job.message else 0x82), 0x87
    block = bytes([method, https]) + b"\x04" + text(job.path) + b"\x01" + text(NAME)
    if job.message:
        # content-type is entry 31, which in four bits is 15 and 16 more.
        block += b"\x0f\x10" + text("application/grpc") + b"\x00" + text("te") + text("trailers")
    return block


def text(value):
    return bytes([len(value)]) + value.encode()


def status_byte(block):
    """The first field's first byte, behind changes of the table's size (001xxxxx)."""
    at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        at += 1
        if block[at - 1] & 0x1F == 0x1F:
            while block[at] & 0x80:
                at += 1
            at += 1
    return block[at] if at < len(block) else None
