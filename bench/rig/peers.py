"""The peers and their configurations: one worker, four endpoints in turn, keep-alive to them.

Equal means: the same work is asked of each (turns, reuse of endpoint connections, forwarded-for,
counters that a scrape can read, a line for each request in a file), and where a peer offers
several ways to do it, it gets the one that costs it least. Over TLS: 1.3 alone, tickets, HTTP/2 and
HTTP/1.1 offered by ALPN, one certificate; its cipher and key exchange are the load's to say.
"""

import os
import re
import socket
import subprocess

from .process import Process, RigError, free_port

ENDPOINTS = 4

# Idle connections to the endpoints that nginx keeps, which has to be told: more than any job has
# requests at once (8 connections x 16 streams).
KEPT = 256

# No peer may close a connection on its own during a run.
FOREVER = 1_000_000_000


class Origin:
    """nginx on four ports: what stands behind every peer."""

    SIZES = {"small": 128, "64k": 64 * 1024, "8m": 8 * 1024 * 1024}

    def __init__(self, nginx, work, core, workers):
        self.ports = [free_port() for _ in range(ENDPOINTS)]
        root = os.path.join(work, "origin")
        os.makedirs(root)
        for name, size in self.SIZES.items():
            with open(os.path.join(root, name), "wb") as f:
                f.write(b"isobar. " * (size // 8))
        small = "x" * self.SIZES["small"]
        listens = "\n    ".join(f"listen 127.0.0.1:{p} backlog=4096;" for p in self.ports)
        conf = f"""
{nginx_main(work, "origin", workers)}
http {{
  {nginx_temp(work)}
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache max=16 inactive=1h;
  open_file_cache_valid 1h;
  keepalive_timeout 1h;
  keepalive_requests {FOREVER};
  client_max_body_size 0;
  server {{
    {listens}
    root {root};
    default_type application/octet-stream;
    location = /small {{ return 200 "{small}"; }}
    location = /upload {{ return 200 "{small}"; }}
  }}
}}
"""
        self.process = start_nginx(nginx, work, "origin", conf, core)
        self.process.wait_listening(self.ports[0])


class GrpcOrigin:
    """bench/grpc_origin.rs: HTTP/2 in clear text, a unary echo."""

    def __init__(self, binary, work, core):
        self.ports = [free_port() for _ in range(ENDPOINTS)]
        self.process = Process("grpc_origin", [binary, *map(str, self.ports)], core,
                               os.path.join(work, "grpc_origin.out"))
        for port in self.ports:
            self.process.wait_listening(port)


class Layer4Origin:
    """bench/layer4_origin.rs: an echo, or so many bytes for each message, over TCP or UDP."""

    def __init__(self, binary, work, core, job):
        name = f"origin-{job.origin()}"
        self.ports = [free_port() for _ in range(ENDPOINTS)]
        protocol, _, size = job.origin().partition("-")
        argv = [binary, protocol, size, *map(str, self.ports)]
        self.process = Process(name, argv, core, os.path.join(work, f"{name}.out"))
        for port in self.ports:
            self.process.wait_listening(port, socket_kind(job))


class Peer:
    """A proxy under test: `start` makes `process` and `port`, for what one job needs."""

    name = "?"
    env = None

    def __init__(self):
        self.process = None
        self.port = None

    def start(self, rig, job):
        self.port = free_port()
        argv, out = self.command(rig, job)
        self.process = Process(self.name, rig.wrapper + argv, rig.proxy_core, out, self.env)
        self.process.wait_listening(self.port, socket_kind(job))

    def path(self, rig, suffix):
        return os.path.join(rig.work, f"{self.name}{suffix}")

    def write(self, rig, suffix, text):
        path = self.path(rig, suffix)
        with open(path, "w") as f:
            f.write(text)
        return path


class Isobar(Peer):
    name = "isobar"

    def __init__(self, binary):
        super().__init__()
        self.binary = binary

    def version(self):
        return first_line([self.binary, "--version"])

    def command(self, rig, job):
        log = "" if rig.no_log else (
            f'access = {{ format = "json", to = "{self.path(rig, ".access.log")}" }}')
        endpoints = ", ".join(f'"127.0.0.1:{p}"' for p in rig.endpoints(job))
        serves = {"": "", "udp": 'protocol = "udp"\nidle_timeout = "1h"'}.get(
            job.layer4, 'protocol = "tcp"')
        tls = f"""
[listeners.web.tls]
certificates = [{{ cert = "{rig.tls.cert}", key = "{rig.tls.key}" }}]
min_version = "1.3"
""" if job.tls else ""
        protocol = 'protocol = "h2"' if job.message else ""
        conf = self.write(rig, ".toml", f"""
[process]
workers = 1

[admin]
bind = "127.0.0.1:{free_port()}"

[log]
{log}

[listeners.web]
bind = "127.0.0.1:{self.port}"
upstream = "app"
{serves}
{tls}
[upstreams.app]
endpoints = [{endpoints}]
balance = "round_robin"
{protocol}
""")
        return [self.binary, "run", conf], self.path(rig, ".out")


class Haproxy(Peer):
    """Variants share a binary: `splice` asks for splice(2) in both directions, always ("splice") or
    when HAProxy thinks it right ("auto").

    Over HTTP "auto" is of no use: under it 2.6 and 2.8 do not splice one byte of these bodies (strace
    shows recvfrom and sendto alone), with splice-response they do.
    """

    def __init__(self, name, binary, splice=""):
        super().__init__()
        self.name = name + (f"+{splice}" if splice else "")
        self.binary = binary
        self.splice = splice
        # A HAProxy out of a wheel brings the libraries that it was linked with.
        libraries = os.path.join(os.path.dirname(binary), "lib")
        if os.path.exists(os.path.join(libraries, "libcrypto.so.3")):
            self.env = {**os.environ, "LD_LIBRARY_PATH": libraries}

    def version(self):
        return first_line([self.binary, "-v"], self.env)

    def command(self, rig, job):
        ring, log_target, log_option = haproxy_log(self, rig)
        proto = " proto h2" if job.message else ""
        servers = "\n  ".join(
            f"server s{i} 127.0.0.1:{p}{proto}" for i, p in enumerate(rig.endpoints(job)))
        # `curves` because HAProxy's own default may be P-256 alone.
        tls = (f" ssl crt {rig.tls.both} ssl-min-ver TLSv1.3 curves X25519:P-256 alpn h2,http/1.1"
               if job.tls else "")
        metrics = "stats enable"
        if "prometheus" in run_text([self.binary, "-vv"], self.env).lower():
            metrics = "http-request use-service prometheus-exporter if { path /metrics }"
        splice = {"": "", "auto": "option splice-auto",
                  "splice": "option splice-response\n  option splice-request"}[self.splice]
        if job.layer4:
            serves = "mode tcp"
            log_option = log_option.replace("httplog", "tcplog")
        else:
            serves = "mode http\n  option forwardfor\n  http-reuse always"
        conf = self.write(rig, ".cfg", f"""
global
  nbthread 1
  maxconn {rig.connections}
  maxpipes 256
  {log_target}
{ring}
defaults
  {serves}
  {log_option}
  {splice}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
frontend web
  bind 127.0.0.1:{self.port}{tls}
  default_backend app
frontend metrics
  mode http
  bind 127.0.0.1:{free_port()}
  no log
  {metrics}
backend app
  balance roundrobin
  {servers}
""")
        # stdout IS the access log with `log stdout`: the file is that of the redirection.
        return [self.binary, "-db", "-f", conf], self.path(rig, ".access.log")


def haproxy_log(peer, rig):
    """How HAProxy gets its lines to a file: (a section, `log` of global, options of defaults).

    `stdout` is one writev(2) to the page cache a request, in the proxy itself. `unix` is a datagram
    to a syslog daemon: dearer for HAProxy (README.md, "Logs"), and the daemon's CPU comes on top.
    `ring` is memory mapped from a file: the cheapest, but it keeps only the last lines, so it is
    not what the others are asked to do.
    """
    if rig.no_log:
        return "", "", ""
    targets = {"stdout": "stdout format raw", "unix": f"{rig.syslog_path} format rfc3164",
               "ring": "ring@lines"}
    ring = ""
    if rig.haproxy_log == "ring":
        ring = f"ring lines\n  format raw\n  size 67108864\n  backing-file {peer.path(rig, '.ring')}"
    return ring, f"log {targets[rig.haproxy_log]} local0", "log global\n  option httplog"


class Nginx(Peer):
    name = "nginx"

    def __init__(self, binary):
        super().__init__()
        self.binary = binary

    def version(self):
        return run_text([self.binary, "-v"]).strip()

    def command(self, rig, job):
        # Lines are gathered in memory and written when 64 KiB are full: nginx's cheapest.
        form = "lines" if job.layer4 else "combined"
        log = "off" if rig.no_log else f"{self.path(rig, '.access.log')} {form} buffer=64k flush=1s"
        servers = "\n    ".join(f"server 127.0.0.1:{p};" for p in rig.endpoints(job))
        tls = f"""
    ssl_certificate {rig.tls.cert};
    ssl_certificate_key {rig.tls.key};
    ssl_protocols TLSv1.3;
    ssl_session_tickets on;""" if job.tls else ""
        listen = " ssl http2" if job.tls else ""
        passing = """
      grpc_pass grpc://app;
      grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;""" if job.message else """
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      # Bodies stream: without these nginx would write large ones to disk first.
      proxy_max_temp_file_size 0;
      proxy_request_buffering off;"""
        conf = f"""
{nginx_main(rig.work, self.name, 1)}
http {{
  {nginx_temp(rig.work)}
  access_log {log};
  sendfile on;
  keepalive_timeout 1h;
  keepalive_requests {FOREVER};
  client_max_body_size 0;
  upstream app {{
    {servers}
    keepalive {KEPT};
    keepalive_requests {FOREVER};
    keepalive_timeout 1h;
  }}
  server {{
    listen 127.0.0.1:{self.port}{listen} backlog=4096;{tls}
    location / {{{passing}
    }}
  }}
  server {{
    listen 127.0.0.1:{free_port()};
    access_log off;
    location / {{ stub_status; }}
  }}
}}
"""
        if job.layer4:
            conf = nginx_stream(self, rig, job, log, servers)
        path = self.write(rig, ".conf", conf)
        return nginx_argv(self.binary, rig.work, path, rig.wrapper), self.path(rig, ".out")


def socket_kind(job):
    return socket.SOCK_DGRAM if job.layer4 == "udp" else socket.SOCK_STREAM


# === nginx, as origin and as peer ===


def nginx_stream(peer, rig, job, log, servers):
    """Layer 4: a module of its own, which Debian builds as a file to be loaded."""
    words = run_text([peer.binary, "-V"])
    found = re.search(r"--modules-path=(\S+)", words)
    module = ""
    if "--with-stream=dynamic" in words and found:
        module = os.path.join(found.group(1), "ngx_stream_module.so")
        if not os.path.exists(module):
            raise RigError(f"{module} is not there: apt-get install libnginx-mod-stream")
        module = f"load_module {module};"
    udp = " udp" if job.layer4 == "udp" else " backlog=4096"
    return f"""
{module}
{nginx_main(rig.work, peer.name, 1)}
stream {{
  log_format lines '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received '
                   '$session_time "$upstream_addr"';
  access_log {log};
  upstream app {{
    {servers}
  }}
  server {{
    listen 127.0.0.1:{peer.port}{udp};
    proxy_timeout 1h;
    proxy_pass app;
  }}
}}
"""


def nginx_main(work, name, workers):
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{user}
daemon off;
worker_processes {workers};
worker_rlimit_nofile 16384;
pid {work}/{name}.pid;
error_log {work}/{name}.error.log warn;
events {{ worker_connections 8192; }}"""


def nginx_temp(work):
    return "\n  ".join(
        f"{kind}_temp_path {work}/nginx-temp-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


def nginx_argv(binary, work, conf, wrapper=()):
    # Under valgrind one process is counted, so nginx has to be one.
    alone = ["-g", "master_process off;"] if wrapper else []
    return [binary, "-p", work, "-e", f"{work}/nginx.start.log", "-c", conf] + alone


def start_nginx(binary, work, name, conf, core):
    path = os.path.join(work, f"{name}.conf")
    with open(path, "w") as f:
        f.write(conf)
    return Process(name, nginx_argv(binary, work, path), core, os.path.join(work, f"{name}.out"))


# === versions ===


def run_text(argv, env=None):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=20, env=env)
    return done.stdout.decode(errors="replace")


def first_line(argv, env=None):
    return (run_text(argv, env).strip().splitlines() or ["?"])[0]


def haproxy_short(binary):
    """`haproxy-2.6` from the binary's own words."""
    found = re.search(r"version (\d+\.\d+)", first_line([binary, "-v"]))
    return f"haproxy-{found.group(1)}" if found else "haproxy"
