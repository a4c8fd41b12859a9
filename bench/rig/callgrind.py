"""Instructions per request: what timing is too noisy for, counted by valgrind's callgrind.

User space only; the kernel's share (the larger one) is not in it. Each peer runs twice, with N and
with 2N requests: the difference has neither start-up nor shutdown in it.
"""

import os
import re
import signal

from . import load
from .process import RigError

# So many connections in lock step (those of the job, with all its streams, over HTTP/2): a request on
# each, then the answers of all, which gives every peer the same full batches of ready sockets
# whatever its speed under valgrind.
CONNECTIONS = 16


def measure(peer, rig, job, requests):
    """Instructions per request, and the two totals they come from."""
    batch = connections(job) * max(1, job.streams)
    rounds = max(1, requests // batch)
    once = run(peer, rig, job, rounds)
    twice = run(peer, rig, job, 2 * rounds)
    return {"per_request": (twice - once) / (rounds * batch), "n": once, "2n": twice}


def connections(job):
    return job.connections if job.streams else CONNECTIONS


def run(peer, rig, job, rounds):
    out = os.path.join(rig.work, f"{peer.name}.callgrind")
    rig.wrapper = [rig.valgrind, "--tool=callgrind", f"--callgrind-out-file={out}"]
    peer.start(rig, job)
    try:
        clients = [load.connect(peer.port, job, rig.tls, timeout=60)
                   for _ in range(connections(job))]
        at_once = [job.streams] if job.streams else []
        for _ in range(rounds):
            for client in clients:
                client.ask(*at_once)
            for client in clients:
                client.answer(*at_once)
        for client in clients:
            client.close()
    except (RigError, OSError) as e:
        raise RigError(f"{peer.name}: {e}")
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
