"""Runs the test functions of one file: a line a test, a closing line, no server left behind.

A test is a function (plain or async) that takes a Context; its name is the sentence it proves.
It passes by returning, fails by any exception, and is skipped by raising Skip with the reason.
"""
import argparse
import asyncio
import inspect
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

import server as server_module


HERE = pathlib.Path(__file__).parent


class Skip(Exception):
    """This machine or this build cannot run the test; the text says why."""


class Failure(Exception):
    """What was promised did not hold."""


class OutOfTime(BaseException):
    """The whole file took longer than its bound."""


def expect(fact, text):
    if not fact:
        raise Failure(text)


def same(got, wanted, what):
    if got != wanted:
        raise Failure(f'{what}: got {got!r}, wanted {wanted!r}')


class Context:
    """What a test may use: options, directories and servers that are cleaned up for it."""

    def __init__(self, args):
        self.args, self.quick = args, args.quick
        self.servers, self.directories, self.notes = [], [], []
        self.cleanups = []
        self.shared = None

    def directory(self):
        path = pathlib.Path(tempfile.mkdtemp(prefix='damso-blackbox-'))
        self.directories.append(path)
        return path

    def server(self, **options):
        """A server of this test alone, not started yet."""
        server = server_module.Server(options.pop('directory', None) or self.directory(), **options)
        self.servers.append(server)
        return server

    def start(self, **options):
        return self.server(**options).start()

    def shared_server(self, **options):
        """One server for all tests of a file that ask for it: started once, again if it died."""
        if self.shared is None or self.shared.process.poll() is not None:
            path = pathlib.Path(tempfile.mkdtemp(prefix='damso-blackbox-'))
            self.shared = server_module.Server(path, **options).start()
        return self.shared

    def note(self, text):
        """A figure or remark, printed behind the test's line."""
        self.notes.append(text)

    def cleanup(self, function):
        """Runs when the test is over, before its directories go; last come, first run."""
        self.cleanups.append(function)

    def died(self):
        """What servers said that ended by themselves; empty if none did."""
        servers = self.servers + ([self.shared] if self.shared else [])
        return [f'damsod ended by itself with {s.process.returncode}: {s.said()}'
                for s in servers if s.process and s.has_died()]

    def end_test(self):
        for server in self.servers:
            server.kill()
        for function in reversed(self.cleanups):
            function()
        if not self.args.keep:
            for path in self.directories:
                shutil.rmtree(path, ignore_errors=True)
        self.servers, self.directories, self.notes, self.cleanups = [], [], [], []

    def end_file(self):
        if self.shared:
            self.shared.kill()
            if not self.args.keep:
                shutil.rmtree(self.shared.directory, ignore_errors=True)


async def quietly(test, context):
    """Runs an async test; what its tasks raise while it is already failing is not printed."""
    if not context.args.trace:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _what: None)
    await test(context)


def run_test(test, context):
    """'ok', 'FAIL' or 'skip', and the reason of the last two."""
    try:
        if inspect.iscoroutinefunction(test):
            asyncio.run(quietly(test, context))
        else:
            test(context)
        died = context.died()
        return ('FAIL', died[0]) if died else ('ok', '')
    except Skip as skip:
        return 'skip', str(skip)
    except Exception as error:
        if context.args.trace:
            traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)
        ours = [f for f in where if pathlib.Path(f.filename).parent == HERE
                and f.filename != __file__] or where
        place = f'{pathlib.Path(ours[-1].filename).name}:{ours[-1].lineno}'
        text = str(error) if isinstance(error, Failure) else f'{type(error).__name__}: {error}'
        return 'FAIL', '\n    '.join([f'{text} ({place})', *context.died()])


def start_clock(seconds):
    def on_alarm(_number, _frame):
        # A test stuck in a blocking call gets no second chance: this alarm ends the program.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        raise OutOfTime

    def on_signal(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_signal)
    signal.alarm(seconds)


def parse(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true', help='the short form, for every change')
    parser.add_argument('--only', default='', help='run tests whose name contains this')
    parser.add_argument('--keep', action='store_true', help='keep directories and server output')
    parser.add_argument('--trace', action='store_true', help='print the trace of each failure')
    for name, options in (arguments or {}).items():
        parser.add_argument(name, **options)
    return parser.parse_args()


def run(tests, *, seconds, seconds_quick=None, arguments=None, needs_server=True):
    """Runs the tests in order and ends the program: 1 if any failed, else 0."""
    args = parse(arguments)
    context = Context(args)
    counts = {'ok': 0, 'FAIL': 0, 'skip': 0}
    chosen = [t for t in tests if args.only in t.__name__]
    start_clock(seconds_quick if args.quick and seconds_quick else seconds)
    if needs_server and not os.access(server_module.DAMSOD, os.X_OK):
        print(f'no damsod at {server_module.DAMSOD}: build it, or set DAMSOD')
        print(f'0 passed, {len(chosen)} failed, 0 skipped')
        sys.exit(1)
    test = None
    try:
        for test in chosen:
            begin = time.monotonic()
            verdict, why = run_test(test, context)
            counts[verdict] += 1
            took = f'{time.monotonic() - begin:.1f}s'
            notes = ''.join(f'; {n}' for n in context.notes)
            print(f'ok {test.__name__} {took}{notes}' if verdict == 'ok'
                  else f'{verdict} {test.__name__}: {why}{notes}', flush=True)
            context.end_test()
    except OutOfTime:
        counts['FAIL'] += 1
        print(f'FAIL {test.__name__}: the file ran out of its time', flush=True)
    finally:
        context.end_test()
        context.end_file()
    print(f'{counts["ok"]} passed, {counts["FAIL"]} failed, {counts["skip"]} skipped', flush=True)
    sys.exit(1 if counts['FAIL'] else 0)
