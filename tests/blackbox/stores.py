"""A real Redis and a real MongoDB-protocol server for tests: starts, kills, stalls and reads them.

They are started by scripts/servers and end with this program, however it ends: their supervisor
watches it, and the kernel ends the servers with their supervisor. With DAMSO_TEST_REDIS_URL and
DAMSO_TEST_MONGODB_URI in the environment the tests run against those servers instead, in key
prefixes and databases of their own; what would kill or stall them is skipped then.

    stores = Stores().start()                  # one pair for many tests
    stores.fresh_namespace()                   # an empty prefix and an empty database each
    server = context.start(config=stores.config())
    ...
    stores.stop()

The keys are under stores.prefix in stores.redis(), the collections in stores.mongo().
"""
import atexit
import contextlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import pymongo
import redis

from harness import Failure, Skip

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / 'scripts' / 'servers'
START_SECONDS_MAX = 900         # the first start on a machine makes the chroot and the gateway
COMMAND_SECONDS_MAX = 120
CLIENT_TIMEOUT_SECONDS = 10
STALL_PASSES_MAX = 100


def servers(*words, seconds=COMMAND_SECONDS_MAX, check=True):
    """Runs scripts/servers to its end: (exit code, stdout, stderr); Failure if it refuses."""
    done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode != 0:
        raise Failure(f'scripts/servers {" ".join(map(str, words))}: {done.stderr.strip()}')
    return done.returncode, done.stdout, done.stderr


def with_database(uri, database):
    """The URI with another database in its path, and the accounts still where they were: their
    database is the one in the path unless authSource names it, and admin if there is none."""
    found = re.fullmatch(r'(mongodb(?:\+srv)?://)([^/?]+)(?:/([^?]*))?(?:\?(.*))?', uri)
    if not found:
        raise Failure('DAMSO_TEST_MONGODB_URI is no mongodb:// or mongodb+srv:// URI')
    scheme, hosts, old, options = found.groups()
    if '@' in hosts and not re.search(r'(^|&)authSource=', options or '', re.IGNORECASE):
        options = f'{options}&' if options else ''
        options += f'authSource={old or "admin"}'
    return f'{scheme}{hosts}/{urllib.parse.quote(database)}' + (f'?{options}' if options else '')


class Stores:
    """One Redis and one MongoDB, and the part of them that the current test has for itself.

    `keep`: Redis writes its log, so that its data survive kill_redis() and start_redis(), and
    MongoDB's survive stop() and start(). Without it, Redis comes back empty.
    """

    def __init__(self, *, keep=False):
        self.keep = keep
        self.redis_url = os.environ.get('DAMSO_TEST_REDIS_URL')
        self.mongodb_uri = os.environ.get('DAMSO_TEST_MONGODB_URI')
        self.ours = not (self.redis_url or self.mongodb_uri)
        if not self.ours and not (self.redis_url and self.mongodb_uri):
            raise Failure('DAMSO_TEST_REDIS_URL and DAMSO_TEST_MONGODB_URI go together')
        self.directory = None
        self.redis_client, self.mongo_client = None, None
        self.namespaces, self.timers = [], []
        self.prefix, self.database = None, None

    # The pair.

    def start(self):
        """Returns when both answer; seconds, or a minute or two the first time on a machine."""
        if self.ours:
            self.directory = self.directory or tempfile.mkdtemp(prefix='damso-stores-')
            words = ['start', '--data', self.data(), '--until', os.getpid()]
            atexit.register(self.stop)
            _, said, _ = servers(*words, *([] if self.keep else ['--temporary']),
                                 seconds=START_SECONDS_MAX)
            found = dict(re.findall(r'^(redis_url|mongodb_uri) = (\S+)$', said, re.MULTILINE))
            self.redis_url, self.mongodb_uri = found['redis_url'], found['mongodb_uri']
        if not self.namespaces:
            self.fresh_namespace()
        return self

    def stop(self, *, remove=True):
        """Leaves nothing: no process, no directory, nothing in a user's own servers. With
        remove=False the data stay for another start()."""
        atexit.unregister(self.stop)
        for timer in self.timers:
            timer.cancel()
        if not self.ours:
            for namespace in list(self.namespaces):
                self.drop_namespace(*namespace)
        self.forget_clients()
        if self.ours and self.directory:
            servers('stop', '--data', self.data(), check=False)
            if remove:
                self.remove_directory()
                self.directory, self.namespaces = None, []

    def data(self):
        return self.directory

    def remove_directory(self):
        if os.geteuid() == 0:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            subprocess.run(['sudo', 'rm', '-rf', '--one-file-system', self.directory], check=False)

    def status(self):
        """What scripts/servers status --json says: pids, ports, CPU seconds."""
        self.need_ours()
        return json.loads(servers('status', '--json', '--data', self.data(), check=False)[1])

    def need_ours(self):
        if not self.ours:
            raise Skip('the servers are those of DAMSO_TEST_*: they are not killed or stalled')

    # Name spaces: many tests, one pair.

    def fresh_namespace(self):
        """From here on an empty prefix and an empty database; returns both."""
        name = f'{os.getpid()}-{len(self.namespaces)}-{secrets.token_hex(4)}'
        self.prefix, self.database = f'damso-test-{name}:', f'damso_test_{name.replace("-", "_")}'
        self.namespaces.append((self.prefix, self.database))
        return self.prefix, self.database

    def drop_namespace(self, prefix=None, database=None):
        """Removes every key and collection of the current one, or of that given."""
        prefix, database = prefix or self.prefix, database or self.database
        client = self.redis()
        for key in list(client.scan_iter(f'{prefix}*', count=1000)):
            client.unlink(key)
        self.mongo().client.drop_database(database)
        with contextlib.suppress(ValueError):
            self.namespaces.remove((prefix, database))

    # What damsod is told.

    def config(self, **more):
        """The section for server.Server(config=...); `more` are further keys of [persist]."""
        return {'persist': {'mode': 'redis+mongodb', 'redis_url': self.redis_url,
                            'redis_prefix': self.prefix,
                            'mongodb_uri': with_database(self.mongodb_uri, self.database), **more}}

    def config_lines(self, **more):
        """The same as text of a configuration file."""
        keys = self.config(**more)['persist']
        return '[persist]\n' + ''.join(f'{key} = {value}\n' for key, value in keys.items())

    # The stores as a user sees them.

    def redis(self):
        """A client; keys and values are bytes."""
        if self.redis_client is None:
            self.redis_client = redis.Redis.from_url(
                self.redis_url, socket_timeout=CLIENT_TIMEOUT_SECONDS,
                socket_connect_timeout=CLIENT_TIMEOUT_SECONDS)
        return self.redis_client

    def mongo(self):
        """The current name space's database."""
        if self.mongo_client is None:
            wait_ms = CLIENT_TIMEOUT_SECONDS * 1000
            self.mongo_client = pymongo.MongoClient(
                with_database(self.mongodb_uri, self.database), connectTimeoutMS=wait_ms,
                socketTimeoutMS=wait_ms, serverSelectionTimeoutMS=wait_ms)
        return self.mongo_client[self.database]

    def forget_clients(self):
        for client in (self.redis_client, self.mongo_client):
            if client is not None:
                client.close()
        self.redis_client, self.mongo_client = None, None

    # Faults. Each returns when it has happened; each start when the server answers.

    def kill(self, name):
        """kill -9 of a server with all its processes."""
        self.need_ours()
        servers('kill', name, '--data', self.data())

    def revive(self, name, *words):
        """The same server on the same port, as it was left."""
        self.need_ours()
        servers('revive', name, *words, '--data', self.data())

    def kill_redis(self):
        self.kill('redis')

    def start_redis(self, *, empty=False):
        self.revive('redis', *(['--empty'] if empty else []))

    def kill_postgres(self):
        self.kill('postgres')

    def start_postgres(self):
        self.revive('postgres')

    def kill_gateway(self):
        self.kill('mongodb')

    def start_gateway(self):
        self.revive('mongodb')

    def stall(self, name, seconds=None):
        """SIGSTOP: connections stay open and nothing answers. Without `seconds` until
        proceed(name); with it, this returns at once and a thread lets it proceed."""
        self.need_ours()
        stopped = []
        for _ in range(STALL_PASSES_MAX):       # what forked meanwhile is in the next pass
            pids = self.status()['servers'][name]['pids']
            if pids == stopped:
                break
            send(pids, signal.SIGSTOP)
            stopped = pids
        if not stopped:
            raise Failure(f'{name} is not running, there is nothing to stall')
        if seconds is not None:
            timer = threading.Timer(seconds, send, (stopped[::-1], signal.SIGCONT))
            timer.daemon = True
            self.timers.append(timer)
            timer.start()

    def proceed(self, name):
        """The end of a stall; nothing to a server that is not stalled."""
        send(self.status()['servers'][name]['pids'][::-1], signal.SIGCONT)

    def stall_redis(self, seconds=None):
        self.stall('redis', seconds)

    def stall_postgres(self, seconds=None):
        self.stall('postgres', seconds)

    def stall_gateway(self, seconds=None):
        self.stall('mongodb', seconds)

    # Figures.

    def cpu_seconds(self, which):
        """User and system time so far of 'redis', 'postgres', 'gateway', or of 'mongodb', which
        is the last two. A server that was started again counts from its start."""
        status = self.status()['servers']
        parts = {'gateway': ('mongodb',), 'mongodb': ('mongodb', 'postgres')}.get(which, (which,))
        return sum(status[part]['cpu_seconds'] for part in parts)


def send(pids, number):
    """A signal to each that is still there; the servers are root's, as sudo's tests are not."""
    for pid in pids if os.geteuid() == 0 else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    if os.geteuid() != 0 and pids:
        subprocess.run(['sudo', 'kill', f'-{int(number)}', *map(str, pids)], check=False,
                       stderr=subprocess.DEVNULL)


def gone(pids, seconds=10):
    """True once none of the processes is there or all are zombies; False at the time-out."""
    deadline = time.monotonic() + seconds
    while True:
        alive = []
        for pid in pids:
            with contextlib.suppress(OSError):
                stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
                if stat.rpartition(')')[2].split()[0] not in 'ZX':
                    alive.append(pid)
        if not alive:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
