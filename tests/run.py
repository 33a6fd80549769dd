#!/usr/bin/python3
"""Builds and runs every test of the tree, one step after another; scripts/test calls it.

A step is one command with a bound on its time. Most close with `N passed, N failed, N skipped`,
which is added up; a step without that counts as one test. A step that ends badly counts as failed
at least once, whatever it printed. The output of each is kept in build/test-logs/STEP.log.
"""
import argparse
import atexit
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / 'build' / 'test-logs'
SERVERS = ROOT / 'scripts' / 'servers'
PYTHON = '/usr/bin/python3'         # Debian's: the one that has python3-websockets and selenium
CLOSING = re.compile(r'^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$', re.MULTILINE)
NODE_COUNT = re.compile(r'^\S+ (pass|fail|skipped|cancelled|todo) (\d+)\s*$', re.MULTILINE)
TAIL_LINES = 40
FUZZ_SECONDS = 12
# These run against the sanitizers' build too; the others measure time or memory, or take too long.
UNDER_ASAN = ('protocol', 'rooms', 'wrong_input', 'idempotency', 'hostile')
# Freed memory is held back for so long that a use of it shows; this test counts memory, so less.
ASAN_SMALL = 'strict_string_checks=1:quarantine_size_mb=1:thread_local_quarantine_size_kb=64'
OVER_STORES = ('protocol', 'rooms', 'idempotency')
IN_QUICK = ('kill', 'protocol', 'rooms')
SANITIZERS = {
    'ASAN_OPTIONS': 'strict_string_checks=1:detect_stack_use_after_return=0',
    'UBSAN_OPTIONS': 'print_stacktrace=1',
    'TSAN_OPTIONS': 'halt_on_error=1:second_deadlock_stack=1',
}


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return f'{self.passed} passed, {self.failed} failed, {self.skipped} skipped'


class Step:
    """One command. `needs`: build directories; `tools`: programs without which it is skipped;
    `stores`: it is given a Redis and a MongoDB-protocol server that run beside it."""

    def __init__(self, name, command, seconds, *, needs=(), tools=(), env=None, count=None,
                 quick=False, stores=False):
        self.name, self.command, self.seconds = name, [str(word) for word in command], seconds
        self.needs, self.tools, self.env, self.quick = needs, tools, env or {}, quick
        self.stores = stores
        self.count = count or count_one


def last_closing(text):
    found = CLOSING.findall(text)
    return Counts(*(int(number or 0) for number in found[-1])) if found else None


def count_one(_text, code):
    """For a command that says nothing countable."""
    return Counts(passed=int(code == 0))


def count_closing(text, _code):
    """For a program that closes with its counts; one that says none, or nothing ran, failed."""
    counts = last_closing(text)
    if counts is None or counts.passed + counts.failed + counts.skipped == 0:
        return Counts(failed=1)
    return counts


def count_node(text, _code):
    found = {word: int(number) for word, number in NODE_COUNT.findall(text)}
    return Counts(found.get('pass', 0), found.get('fail', 0) + found.get('cancelled', 0),
                  found.get('skipped', 0) + found.get('todo', 0))


def count_meson(directory):
    """Sums what each test program of a meson run said of its own functions."""
    def count(_text, _code):
        counts = Counts()
        log = ROOT / directory / 'meson-logs' / 'testlog.json'
        for record in log.read_text().splitlines() if log.exists() else ():
            test = json.loads(record)
            said = last_closing(test.get('stdout', ''))
            if test['result'] == 'OK':
                counts.add(said or Counts(passed=1))
            elif test['result'] == 'SKIP':
                print(f'    skip {test["name"]}: it says that it cannot run here')
                counts.skipped += 1
            else:
                counts.failed += max(1, said.failed if said else 1)
        return counts
    return count


def meson_test(name, directory, *words, quick=False, stores=True):
    log = ROOT / directory / 'meson-logs' / 'testlog.json'
    log.unlink(missing_ok=True)     # a run that never begins must not be counted by the last one
    return Step(name, ['meson', 'test', '-C', directory, '--no-rebuild', '--num-processes', '2',
                       '--print-errorlogs', *words],
                1200, needs=(directory,), count=count_meson(directory), quick=quick, stores=stores)


def blackbox_steps(quick):
    """A step a file of tests/blackbox, first as it is released, then under ASan."""
    files = sorted(ROOT.glob('tests/blackbox/test_*.py'))
    for directory, chosen in (('build', None), ('build-asan', UNDER_ASAN)):
        for path in files:
            topic = path.stem.removeprefix('test_')
            if chosen is None or topic in chosen:
                suffix = '' if chosen is None else ' asan'
                yield Step(
                    topic + suffix, [PYTHON, path] + (['--quick'] if quick else []), 900,
                    needs=(directory,), tools=('python3-websockets',), count=count_closing,
                    env={'DAMSOD': str(ROOT / directory / 'damsod'),
                         'DAMSOD_SEAMS': str(ROOT / 'build-asan' / 'damsod'),
                         **({'ASAN_OPTIONS': ASAN_SMALL} if topic == 'wrong_input' else {})},
                    quick=chosen is None and topic in IN_QUICK)


def c_files():
    rooms = ('core', 'fileio', 'persist', 'shard', 'bench', 'tests')
    return sorted(p for room in rooms for p in (ROOT / room).glob('**/*.[ch]'))


def steps_of(quick):
    """Everything, in the order in which it runs: what fails soonest comes first."""
    product = [p for p in c_files() if p.suffix == '.c' and not p.is_relative_to(ROOT / 'tests')]
    yield Step('clang-format', ['clang-format-14', '--dry-run', '-Werror', *c_files()], 120,
               tools=('clang-format-14',), quick=True)
    # What talks to real stores takes minutes under a sanitizer; the black-box tests are quicker.
    yield meson_test('unit asan', 'build-asan', *(['--no-suite', 'stores'] if quick else []),
                     quick=True, stores=not quick)
    yield meson_test('unit', 'build', '--no-suite', 'tree')
    yield meson_test('unit tsan', 'build-tsan', '--suite', 'threads')
    web = sorted(ROOT.glob('tests/web/test_*.mjs'))
    yield Step('web modules', ['node', '--test', *web], 120, tools=('node',), count=count_node,
               quick=True)
    yield from blackbox_steps(quick)
    # The same tests on Redis and MongoDB.
    for topic in OVER_STORES if not quick else ():
        yield Step(topic + ' stores', [PYTHON, ROOT / f'tests/blackbox/test_{topic}.py', '--quick'],
                   600, needs=('build',), tools=('python3-websockets',), count=count_closing,
                   stores=True, env={'DAMSOD': str(ROOT / 'build' / 'damsod'),
                                     'DAMSO_TEST_PERSIST': 'redis+mongodb'})
    # Four shards in one process: what the mesh's rings guard is seen here by the sanitizer.
    yield Step('rooms tsan', [PYTHON, ROOT / 'tests/blackbox/test_rooms.py', '--quick'], 900,
               needs=('build-tsan',), tools=('python3-websockets',), count=count_closing,
               env={'DAMSOD': str(ROOT / 'build-tsan' / 'damsod')})
    for path in sorted(ROOT.glob('tests/web/test_*.py')):
        yield Step('browser', [PYTHON, path], 300, needs=('build',), count=count_closing,
                   tools=('python3-selenium', 'chromium', 'chromedriver'),
                   env={'DAMSOD': str(ROOT / 'build' / 'damsod')})
    yield Step('mutations', ['sh', ROOT / 'scripts/mutate.sh'], 900, count=count_closing)
    yield Step('fuzz', [ROOT / 'scripts/fuzz', FUZZ_SECONDS], 900, count=count_closing)
    yield Step('service', ['sh', ROOT / 'tests/shard/test_systemd.sh', ROOT / 'build' / 'damsod'],
               120, needs=('build',), count=count_closing)
    yield Step('clang-tidy', [ROOT / 'scripts/clang-tidy', *product], 1200, needs=('build-fuzz',),
               tools=('clang-tidy-14',))


def lacking(tool):
    """Why this machine cannot run what needs the tool; None if it can."""
    tool = str(tool)
    if tool.startswith('/'):
        return None if os.path.exists(tool) else f'there is no {os.path.relpath(tool, ROOT)}'
    if tool.startswith('python3-'):
        found = subprocess.run([PYTHON, '-c', f'import {tool.removeprefix("python3-")}'],
                               capture_output=True, check=False).returncode == 0
        return None if found else f'{tool} is not installed'
    return None if shutil.which(tool) else f'{tool} is not installed'


class Run:
    """Runs commands one at a time; whatever ends the run ends the command and its children."""

    def __init__(self):
        self.process = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.on_signal)

    def on_signal(self, number, _frame):
        self.end()
        sys.exit(128 + number)

    def end(self):
        """Asks the command's process group to stop, then stops it."""
        for number, wait in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            if self.process is None or self.process.poll() is not None:
                return
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(wait)
            except subprocess.TimeoutExpired:
                continue

    def command(self, words, seconds, log, env):
        """Exit code, output and whether it ran out of its time."""
        with open(log, 'wb') as out:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**os.environ, **SANITIZERS, **env}, start_new_session=True)
            late = False
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                late = True
                self.end()
        return self.process.returncode, log.read_text(errors='replace'), late


class Stores:
    """The real servers of scripts/servers, from the first step that wants them to our end."""

    def __init__(self):
        self.data, self.env = None, None

    def start(self):
        """The environment that names them; {}: they do not start here, and tests say so."""
        if self.env is None:
            self.data = tempfile.mkdtemp(prefix='damso-test-stores-')
            began = time.monotonic()
            done = subprocess.run(
                [SERVERS, 'start', '--data', self.data, '--temporary', '--until',
                 str(os.getpid())], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=1200, check=False)
            found = dict(re.findall(r'^(redis_url|mongodb_uri) = (\S+)$', done.stdout,
                                    re.MULTILINE))
            self.env = {'DAMSO_TEST_REDIS_URL': found['redis_url'],
                        'DAMSO_TEST_MONGODB_URI': found['mongodb_uri']} if found else {}
            line('servers', 'started' if found else 'FAILED', time.monotonic() - began)
            if not found:
                print(indented(done.stderr))
        return self.env

    def stop(self):
        if self.data:
            subprocess.run([SERVERS, 'stop', '--data', self.data], capture_output=True,
                           timeout=120, check=False)
            shutil.rmtree(self.data, ignore_errors=True)


def line(name, verdict, seconds):
    print(f'{name:<24} {verdict}  ({seconds:.1f} s)', flush=True)


def build(run, directory):
    """None, or why the directory could not be built."""
    began = time.monotonic()
    log = LOGS / f'{directory}.log'
    code, text, _ = run.command([str(ROOT / 'scripts/build'), directory], 1200, log, {})
    line(f'build {directory}', 'built' if code == 0 else 'FAILED', time.monotonic() - began)
    if code != 0:
        print(indented(text))
    return code == 0


def indented(text):
    """The end of an output, without the lines of what went well."""
    lines = [one for one in text.rstrip().splitlines() if not re.match(r' *ok\b', one)]
    lines = lines[-TAIL_LINES:]
    return '\n'.join('    | ' + one for one in lines)


def run_step(run, step, broken, stores):
    began = time.monotonic()
    why = next((f'{d} could not be built' for d in step.needs if d in broken), None)
    why = why or next(filter(None, map(lacking, step.tools)), None)
    if why:
        line(step.name, f'skip: {why}', 0.0)
        return Counts(skipped=1)
    log = LOGS / (step.name.replace(' ', '-') + '.log')
    given = stores.start() if step.stores else {}
    code, text, late = run.command(step.command, step.seconds, log, {**given, **step.env})
    counts = step.count(text, code)
    if code != 0 or late:
        counts.failed = max(counts.failed, 1)
    line(step.name, str(counts), time.monotonic() - began)
    for skipped in re.findall(r'^skip(?:ped)? .*', text, re.MULTILINE):
        print(f'    {skipped}')
    if counts.failed:
        if late:
            print(f'    ended after its {step.seconds} s')
        failures = re.findall(r'^ *(?:FAIL(?:ED)?|not ok)\b.*', text, re.MULTILINE)
        for failure in failures if len(text.splitlines()) > TAIL_LINES else ():
            print(f'    {failure}')
        if text.strip():
            print(indented(text))
        print(f'    all of it: {log.relative_to(ROOT)}', flush=True)
    return counts


def parse():
    parser = argparse.ArgumentParser(prog='scripts/test', description='Runs every test.')
    parser.add_argument('--quick', action='store_true', help='the short form, within 3 minutes')
    parser.add_argument('--only', default='', metavar='TEXT',
                        help='only steps whose name contains this; --list names them')
    parser.add_argument('--list', action='store_true', help='print the steps and end')
    return parser.parse_args()


def main():
    args = parse()
    chosen = [step for step in steps_of(args.quick)
              if args.only in step.name and (step.quick or not args.quick)]
    if args.list:
        print('\n'.join(step.name for step in chosen))
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    run, total, broken, began = Run(), Counts(), set(), time.monotonic()
    stores = Stores()
    atexit.register(stores.stop)
    for directory in dict.fromkeys(need for step in chosen for need in step.needs):
        if not build(run, directory):
            broken.add(directory)
            total.failed += 1
    for step in chosen:
        total.add(run_step(run, step, broken, stores))
    print(f'{(time.monotonic() - began) / 60:.1f} minutes')
    print(total)
    return 1 if total.failed or not total.passed else 0


sys.exit(main())
