"""Instructions per request: what timing is too noisy for, counted by valgrind's callgrind.

User space only; the kernel's share (the larger one) is not in it. Each peer runs twice, with N and
with 2N requests: the difference has neither start-up nor shutdown in it.
"""

import os
import re
import signal

from . import load
from .process import RigError

# So many connections in lock step: a request on each, then the answers of all, which gives every
# peer the same full batches of ready sockets whatever its speed under valgrind.
CONNECTIONS = 16


def measure(peer, rig, job, requests):
    """Instructions per request, and the two totals they come from."""
    rounds = max(1, requests // CONNECTIONS)
    once = run(peer, rig, job, rounds)
    twice = run(peer, rig, job, 2 * rounds)
    return {"per_request": (twice - once) / (rounds * CONNECTIONS), "n": once, "2n": twice}


def run(peer, rig, job, rounds):
    out = os.path.join(rig.work, f"{peer.name}.callgrind")
    rig.wrapper = [rig.valgrind, "--tool=callgrind", f"--callgrind-out-file={out}"]
    peer.start(rig)
    try:
        socks = [load.connect(peer.port) for _ in range(CONNECTIONS)]
        request = f"GET {job.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        for sock in socks:
            sock.settimeout(60)
        for _ in range(rounds):
            for sock in socks:
                sock.sendall(request)
            for sock in socks:
                answer = load.read_answer(sock)
                if answer.status != 200 or answer.body_bytes != job.answer_bytes:
                    raise RigError(f"{peer.name}: {answer.status}, {answer.body_bytes} bytes")
        for sock in socks:
            sock.close()
    finally:
        # valgrind writes its totals as the program ends by itself, and is slow at it.
        peer.process.popen.send_signal(signal.SIGTERM)
        peer.process.popen.wait(120)
        peer.process.stop()
        rig.wrapper = []
    words = peer.process.last_words()
    found = re.findall(r"Collected : (\d+)", words)
    if not found:
        raise RigError(f"{peer.name}: callgrind printed no total:\n{words}")
    return int(found[-1])
