"""Scripted servers and fault proxies for the stores' tests: the door; wire_*.py is behind it.

    wire = MongoWire(target=('127.0.0.1', 27017))       # a proxy; without a target, a server
    rule = wire.on('insert', error(10107, 'NotWritablePrimary'), collection='messages', times=2)
    ...                                                 # run the client against wire.uri('damso')
    rule.wait_hits(2)                                   # the fault did happen
    same(wire.seen('insert')[-1].documents, 200, 'documents of the last bulk')
    wire.stop()

    redis = RedisWire(target=('127.0.0.1', 6379))
    fault = redis.inject_error("OOM command not allowed when used memory > 'maxmemory'.")
    redis.wait_for(lambda: fault.hits == 1)

Every fault is counted where it happens, before the client can notice it: a test that does not look
at the count proves nothing.
"""
import pathlib
import ssl
import subprocess
from typing import NamedTuple

from wire_mongo import MongoWire
from wire_redis import RedisWire
from wire_rules import (applied, apply_then_drop, delay, drop_before, error, half_then_drop, reply,
                        stall, write_concern_error, write_errors)

__all__ = ['Certificates', 'MongoWire', 'RedisWire', 'applied', 'apply_then_drop', 'delay',
           'drop_before', 'error', 'half_then_drop', 'make_certificates', 'reply', 'stall',
           'write_concern_error', 'write_errors']

DAYS_VALID = '2'
CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
SERVER_EXTENSIONS = """basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth
"""


class Certificates(NamedTuple):
    """Paths of PEM files. A client trusts `ca`; the server shows `server` by `server_key`."""
    ca: pathlib.Path
    server: pathlib.Path
    server_key: pathlib.Path

    def context(self):
        """What MongoWire and RedisWire take as tls."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        return context


def make_certificates(directory):
    """An authority, and a certificate of its making for 127.0.0.1 and localhost."""
    at = pathlib.Path(directory)
    (at / 'server.ext').write_text(SERVER_EXTENSIONS)

    def openssl(*arguments):
        subprocess.run(['openssl', *map(str, arguments)], cwd=at, check=True, timeout=30,
                       stdin=subprocess.DEVNULL, capture_output=True)

    openssl('req', '-x509', *CURVE, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', DAYS_VALID,
            '-subj', '/CN=damso test authority')
    openssl('req', *CURVE, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=localhost')
    openssl('x509', '-req', '-in', 'server.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key',
            '-CAcreateserial', '-out', 'server.pem', '-days', DAYS_VALID, '-extfile', 'server.ext')
    return Certificates(at / 'ca.pem', at / 'server.pem', at / 'server.key')
