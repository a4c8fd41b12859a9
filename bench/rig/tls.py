"""TLS of the rig: one certificate for every peer, one cipher and one key exchange for every load."""

import os
import subprocess

from .process import RigError

NAME = "bench.test"

# What browsers ask for first. With a certificate on P-256 and X25519 as the one group, nothing is
# left to negotiate: no peer wins by a cheaper choice. (The hybrid with ML-KEM is not in OpenSSL 3.0.)
CIPHER = "TLS_AES_128_GCM_SHA256"
GROUP = "X25519"

# Read by every load that uses OpenSSL (wrk and Python have no options for it).
CLIENT_CONF = f"""
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = load
[load]
MinProtocol = TLSv1.3
Ciphersuites = {CIPHER}
Groups = {GROUP}
"""


class Tls:
    def __init__(self, openssl, work):
        self.cert = os.path.join(work, "site.pem")
        self.key = os.path.join(work, "site.key")
        # HAProxy reads both from one file.
        self.both = os.path.join(work, "site.both.pem")
        made = subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
             "-days", "2", "-out", self.cert, "-keyout", self.key],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        if made.returncode != 0:
            raise RigError(f"openssl makes no certificate:\n{made.stdout.decode(errors='replace')}")
        with open(self.both, "w") as both:
            for path in (self.cert, self.key):
                with open(path) as f:
                    both.write(f.read())
        conf = os.path.join(work, "openssl.cnf")
        with open(conf, "w") as f:
            f.write(CLIENT_CONF)
        self.env = {**os.environ, "OPENSSL_CONF": conf}
        self.contexts = {}
        # OpenSSL reads its configuration once, as Python's module is first imported: not before
        # here, and no child but a load may inherit the variable.
        before = os.environ.get("OPENSSL_CONF")
        os.environ["OPENSSL_CONF"] = conf
        try:
            import ssl
            for alpn in ("h2", "http/1.1"):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                context.set_alpn_protocols([alpn])
                self.contexts[alpn] = context
        finally:
            if before is None:
                del os.environ["OPENSSL_CONF"]
            else:
                os.environ["OPENSSL_CONF"] = before

    def wrap(self, sock, alpn):
        """The handshake, and that it agreed on what is measured."""
        try:
            tls = self.contexts[alpn].wrap_socket(sock, server_hostname=NAME)
        except OSError as e:
            raise RigError(f"TLS handshake: {e}")
        agreed = (tls.version(), tls.cipher()[0], tls.selected_alpn_protocol())
        if agreed != ("TLSv1.3", CIPHER, alpn):
            raise RigError(f"TLS handshake agreed on {agreed}")
        return tls
