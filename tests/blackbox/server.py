"""Starts, watches, kills and restarts damsod; knows of it only its command line and /proc.

Every server is started from the main thread with a parent-death signal, so that none outlives a
test program, not even one that is killed itself.

DAMSO_TEST_PERSIST=redis+mongodb in the environment runs whatever a test starts in that mode: each
data directory has a key prefix and a database of its own, kept over its restarts, on the servers
of DAMSO_TEST_REDIS_URL and DAMSO_TEST_MONGODB_URI, or else on a pair started for the test program.
"""
import asyncio
import atexit
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DAMSOD = os.environ.get('DAMSOD', str(REPOSITORY / 'build' / 'damsod'))
READY = re.compile(rb'^damsod: ready at (http://[^:/\s]+:(\d+))\s*$', re.MULTILINE)
PERSIST = os.environ.get('DAMSO_TEST_PERSIST', 'embedded')
READY_SECONDS_MAX = 20.0   # for a sanitizer build on a busy machine; tests have bounds of their own
POLL_SECONDS = 0.004
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class ServerDied(Exception):
    """damsod ended when it should have served."""


def die_with_parent():
    """Runs in the child before exec: the kernel kills it when the test program ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def config_text(sections):
    """The INI text of {'limits': {'text_bytes': '16k'}}."""
    lines = []
    for section, keys in sections.items():
        lines.append(f'[{section}]')
        lines += [f'{key} = {value}' for key, value in keys.items()]
    return '\n'.join(lines) + '\n'


class SharedStores:
    """The Redis and MongoDB behind DAMSO_TEST_PERSIST, from the first server on to our end."""

    def __init__(self):
        self.stores, self.sections = None, {}

    def sections_of(self, data):
        """The configuration of the name space that belongs to a data directory."""
        if self.stores is None:
            import stores       # it imports the harness, which imports this
            self.stores = stores.Stores().start()
            if not self.stores.ours:
                atexit.register(self.stores.stop)   # drops what we made there
        key = str(pathlib.Path(data).resolve())
        if key not in self.sections:
            self.stores.fresh_namespace()
            self.sections[key] = self.stores.config()
        return self.sections[key]


shared_stores = SharedStores()


def in_mode(persist, config, data):
    """The configuration with the persist section of that mode; what the test says of it stays."""
    if persist == 'embedded' or 'mode' in (config or {}).get('persist', {}):
        return config
    if persist != 'redis+mongodb':
        raise ValueError(f'DAMSO_TEST_PERSIST is {persist!r}: embedded or redis+mongodb')
    sections = dict(config or {})
    sections['persist'] = {**shared_stores.sections_of(data)['persist'],
                           **sections.get('persist', {})}
    return sections


class Server:
    """One data directory and the damsod that serves it, through any number of restarts.

    `wrap` is a command put in front (prlimit, setpriv); `before_exec` runs in the child; `persist`
    is the mode of a configuration that names none.
    """

    def __init__(self, directory, *, data=None, shards=1, port=0, config=None, env=None, wrap=(),
                 arguments=(), before_exec=None, persist=PERSIST):
        self.directory = pathlib.Path(directory)
        self.data = pathlib.Path(data) if data else self.directory / 'data'
        config = in_mode(persist, config, self.data)
        self.shards, self.port_asked, self.env = shards, port, env or {}
        self.wrap, self.arguments, self.before_exec = list(wrap), list(arguments), before_exec
        self.config_file = None
        if config is not None:
            self.config_file = self.directory / 'damsod.conf'
            self.config_file.write_text(config_text(config))
        self.process, self.address, self.port = None, None, None
        self.starts = 0
        self.expected_to_run = False

    def command(self):
        command = self.wrap + [DAMSOD]
        if self.config_file:
            command += ['--config', str(self.config_file)]
        if self.port_asked is not None:
            command += ['--port', str(self.port_asked)]
        command += ['--data', str(self.data)]
        if self.shards is not None:
            command += ['--shards', str(self.shards)]
        return command + self.arguments

    def spawn(self):
        """Starts the process and returns at once; wait_ready() or ready_soon() comes next."""
        def prepare():
            die_with_parent()
            if self.before_exec:
                self.before_exec()

        self.starts += 1
        self.stdout = self.directory / f'stdout.{self.starts}'
        self.stderr = self.directory / f'stderr.{self.starts}'
        with open(self.stdout, 'wb') as out, open(self.stderr, 'wb') as err:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env={**os.environ, **self.env}, preexec_fn=prepare, start_new_session=True)
        self.address, self.port = None, None
        self.expected_to_run = True
        return self

    def is_ready(self):
        """True once the ready line is out; ServerDied if the process ended before it."""
        if self.address:
            return True
        code = self.process.poll()
        found = READY.search(self.stdout.read_bytes())
        if found:
            self.address, self.port = found[1].decode(), int(found[2])
            return True
        if code is not None:
            self.expected_to_run = False
            raise ServerDied(f'damsod ended with {code} before it was ready: {self.said()}')
        return False

    def wait_ready(self, seconds=READY_SECONDS_MAX):
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise ServerDied(f'damsod was not ready within {seconds} s: {self.said()}')
            time.sleep(POLL_SECONDS)
        return self

    async def ready_soon(self, seconds=READY_SECONDS_MAX):
        """wait_ready() for callers inside an event loop."""
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise ServerDied(f'damsod was not ready within {seconds} s: {self.said()}')
            await asyncio.sleep(POLL_SECONDS)
        return self

    def start(self, seconds=READY_SECONDS_MAX):
        return self.spawn().wait_ready(seconds)

    def kill(self):
        """kill -9: nothing of the process runs after this. Returns when it is gone."""
        self.expected_to_run = False
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        return self.process.wait(10) if self.process else None

    def terminate(self):
        """Asks for a clean stop and returns at once; wait() gives the exit code."""
        self.expected_to_run = False
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds=10):
        """The exit code; subprocess.TimeoutExpired if it does not end in time."""
        self.expected_to_run = False
        return self.process.wait(seconds)

    def stop(self, seconds=10):
        self.terminate()
        return self.wait(seconds)

    def has_died(self):
        """True if the process ended without being asked to."""
        return self.expected_to_run and self.process.poll() is not None

    def said(self, bytes_max=2000):
        """The end of stderr, or a sanitizer's report from its first line: for failed tests."""
        text = self.stderr.read_bytes().decode('utf-8', 'replace').strip()
        report = re.search(r'^.*(ERROR: \w+Sanitizer|runtime error:)', text, re.MULTILINE)
        if report:
            return text[report.start():report.start() + bytes_max]
        return text[-bytes_max:] or '(nothing on stderr)'

    def key(self):
        """The HMAC key for tokens: the 64 characters of DATA/jwt.key, as they are."""
        return (self.data / 'jwt.key').read_text().strip().encode()

    def status(self, field):
        """A kB field of /proc/PID/status, in bytes."""
        text = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(rf'^{field}:\s+(\d+) kB', text, re.MULTILINE)[1]) * 1024

    def rss(self):
        return self.status('VmRSS')

    def descriptors(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))


def run_once(arguments, *, env=None, before_exec=None, seconds=10):
    """Runs damsod to its end, for what only prints or fails: (exit code, stdout, stderr)."""
    def prepare():
        die_with_parent()
        if before_exec:
            before_exec()

    done = subprocess.run([DAMSOD, *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, env={**os.environ, **(env or {})},
                          preexec_fn=prepare, timeout=seconds, check=False)
    return (done.returncode, done.stdout.decode('utf-8', 'replace'),
            done.stderr.decode('utf-8', 'replace'))
