"""Processes of the rig: started pinned to one core, measured, and stopped by pid whatever happens."""

import atexit
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import time

# prctl(PR_SET_PDEATHSIG): a killed script leaves no server behind. SIGTERM, not SIGKILL, because
# nginx's master passes it on to its workers.
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)

# Ports are taken below Linux's ephemeral range (32768 and up by default), where no client socket
# of the load can sit on one between the probe and the server's own bind.
PORTS = range(20000, 32000)

# Two for each of 6,000 proxied connections, pipes to splice with, and room.
DESCRIPTORS = 20000

START_SECONDS = 20
STOP_SECONDS = 5

RUNNING = []


class RigError(Exception):
    """Something of the rig does not work; the message says what and what to do."""


class Process:
    """One server under test or of the rig, with its descendants (nginx has a master and a worker)."""

    def __init__(self, name, argv, core, out_path, env=None):
        self.name = name
        self.out_path = out_path
        out = open(out_path, "ab")
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=open(out_path + ".err", "ab"),
            preexec_fn=lambda: prepare_child(core), env=env)
        RUNNING.append(self)

    def wait_listening(self, port, kind=socket.SOCK_STREAM):
        """Returns once `port` accepts; a process that ended first is an error with its own words."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise RigError(f"{self.name} ended with {self.popen.returncode} before it listened:\n"
                               f"{self.last_words()}")
            if is_bound(port) if kind == socket.SOCK_DGRAM else accepts(port):
                return
            time.sleep(0.02)
        raise RigError(f"{self.name} does not listen on port {port} after {START_SECONDS} s:\n"
                       f"{self.last_words()}")

    def last_words(self):
        text = ""
        for path in (self.out_path, self.out_path + ".err"):
            with open(path, errors="replace") as f:
                text += f.read()[-2000:]
        return text.strip()

    def pids(self):
        """This process and all below it."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = stat_fields(entry)
                if fields:
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        found, todo = [], [self.popen.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += parents.get(pid, [])
        return found

    def cpu(self):
        """CPU so far: (ns in all, user ticks, system ticks).

        The first is the kernel's process CPU clock: the scheduler's own nanoseconds, the sum of
        every thread's /proc/PID/task/*/schedstat, with threads that have ended and without the
        tick's delay for one that runs now. The split is of /proc/PID/stat.
        """
        total, user, system = 0, 0, 0
        for pid in self.pids():
            # The kernel's encoding of a process's CPU clock (CPUCLOCK_SCHED = 2), as
            # clock_getcpuclockid(3) makes it.
            total += time.clock_gettime_ns((~pid << 3) | 2)
            fields = stat_fields(pid)
            user += int(fields[11])
            system += int(fields[12])
        return total, user, system

    def memory(self):
        """KiB: {'rss', 'pss', 'private'} summed over the processes."""
        sums = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup") as f:
                for line in f:
                    key, _, rest = line.partition(":")
                    if key in sums:
                        sums[key] += int(rest.split()[0])
        return {"rss": sums["Rss"], "pss": sums["Pss"],
                "private": sums["Private_Clean"] + sums["Private_Dirty"]}

    def stop(self, how=signal.SIGTERM):
        if self in RUNNING:
            RUNNING.remove(self)
        if self.popen.poll() is not None:
            return
        below = self.pids()
        self.popen.send_signal(how)
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.popen.wait()


def busy_ticks(cores):
    """Clock ticks in which these cores did anything at all, for anyone."""
    total = 0
    with open("/proc/stat") as f:
        for line in f:
            name, *numbers = line.split()
            if name in [f"cpu{core}" for core in cores]:
                idle, iowait = int(numbers[3]), int(numbers[4])
                total += sum(int(n) for n in numbers[:8]) - idle - iowait
    return total


def stop_all():
    for process in list(reversed(RUNNING)):
        process.stop()


atexit.register(stop_all)


def prepare_child(core):
    """Between fork and exec: die with the script, stay on one core, own enough descriptors."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Ctrl-C is the script's to handle: it stops its children itself, in order.
    os.setpgid(0, 0)
    os.sched_setaffinity(0, {core})
    raise_descriptor_limit()


def raise_descriptor_limit():
    """Soft limit up to the hard one, and the hard one up too where we may; returns what is in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if os.geteuid() == 0 and hard < DESCRIPTORS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
            return DESCRIPTORS
        except (ValueError, OSError):
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def stat_fields(pid):
    """/proc/PID/stat after the command's name (which may hold spaces): field 0 is the state."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def is_bound(port):
    """Nobody answers for a UDP socket but the kernel's own list: state 07, no peer."""
    with open("/proc/net/udp") as f:
        return any(fields[1].endswith(f":{port:04X}") and fields[3] == "07"
                   for fields in (line.split() for line in f))


TAKEN = set()


def free_port():
    """A port of 127.0.0.1 that nothing listens on and this run has not handed out yet."""
    for port in random.sample(PORTS, len(PORTS)):
        if port in TAKEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        TAKEN.add(port)
        return port
    raise RigError(f"no free port in {PORTS}")
