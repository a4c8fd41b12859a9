"""System calls per request: at layer 4 nearly all of a proxy's time is the kernel's.

strace makes each call a hundred times dearer, so the load is always ahead and every wake-up finds all
connections ready: calls that wait (epoll_wait) are fewer than in a timed run, all others are as they are.
"""

import os
import re
import signal
import subprocess
import time

from .process import RigError, prepare_child

# Of a run's length: the load is the timed one, shorter where its count can be.
SHARE = 0.25

ATTACH_SECONDS = 10


def measure(rig, peer, job):
    """{call: {"calls": per request, "failed": per request}}, the most frequent first."""
    out = os.path.join(rig.work, f"{peer.name}.strace")
    pids = [str(pid) for pid in peer.process.pids()]
    argv = [rig.strace, "-c", "-f", "-q", "-o", out]
    for pid in pids:
        argv += ["-p", pid]
    tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE,
                              preexec_fn=lambda: prepare_child(rig.load_core))
    try:
        wait_traced(tracer, pids)
        done = rig.run_load(peer, job, SHARE if job.layer4 else 1)
        # Ends of connections are part of the work.
        time.sleep(0.2)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(ATTACH_SECONDS)
    # Under strace a datagram may well be late; one that was lost is sent again.
    if done["errors"] - done.get("lost", 0):
        raise RigError(f"{peer.name} under strace: {done}")
    return table(out, done["requests"])


def wait_traced(tracer, pids):
    """Until every thread has its tracer."""
    deadline = time.monotonic() + ATTACH_SECONDS
    while time.monotonic() < deadline:
        if tracer.poll() is not None:
            raise RigError(f"strace: {tracer.stderr.read().decode(errors='replace')}")
        tasks = [f"/proc/{pid}/task/{t}/status" for pid in pids for t in os.listdir(f"/proc/{pid}/task")]
        if all(is_traced(task) for task in tasks):
            return
        time.sleep(0.02)
    raise RigError("strace does not attach")


def is_traced(path):
    with open(path) as f:
        return re.search(r"^TracerPid:\s+[1-9]", f.read(), re.M) is not None


def table(path, requests):
    counts = {}
    with open(path) as f:
        for row in f:
            # % time, seconds, usecs/call, calls, errors (or nothing), name
            fields = row.split()
            if len(fields) in (5, 6) and re.fullmatch(r"[\d.]+", fields[0]) and fields[-1] != "total":
                failed = int(fields[4]) if len(fields) == 6 else 0
                counts[fields[-1]] = {"calls": int(fields[3]) / requests, "failed": failed / requests}
    if not counts:
        raise RigError(f"strace counted nothing in {path}")
    return dict(sorted(counts.items(), key=lambda item: -item[1]["calls"]))


def line(counts):
    """What is seen at least once in a hundred requests."""
    words = []
    for name, c in counts.items():
        if c["calls"] >= 0.01:
            failed = f" ({c['failed']:.2f})" if c["failed"] >= 0.01 else ""
            words.append(f"{name} {c['calls']:.2f}{failed}")
    return f"{sum(c['calls'] for c in counts.values()):.2f}: " + ", ".join(words)
