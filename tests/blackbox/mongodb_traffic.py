"""Load for tests that do something to MongoDB: clients in a thread of their own, damso-bench, and
the few calls and log lines that such tests have in common.

    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire))
    with Traffic(server, stores) as traffic:
        ...                                     # faults; the clients go on
        traffic.check()                         # clients, API, MongoDB and Redis say the same
"""
import asyncio
import json
import random
import re
import subprocess
import threading
import time

from client import Rest, new_id, token_for, user
from harness import Failure, expect, same
from load import Receiver
from server import REPOSITORY
from stores import Stores
from stores_check import Book, BookSender, check_everything, wait_stores, wait_until
from wire import MongoWire

BENCH, RATE = REPOSITORY / 'build' / 'damso-bench', 20_000
AWAY, THERE = 'MongoDB is away', 'MongoDB is there'
# Faults are seen soon, and batches are small and many, so that faults hit in the middle of things.
SOON = {'flush_interval': '100ms', 'store_timeout': '2s', 'store_connect': '500ms'}
pair = []


def fresh(_context):
    """The file's servers, with a name space of this test's own."""
    if not pair:
        pair.append(Stores().start())
    stores = pair[0]
    stores.fresh_namespace()
    return stores


def with_wire(context, *, database=True, **options):
    """A wire before the real server, and the stores behind it."""
    stores = fresh(context)
    stores.need_ours()
    host, port = re.match(r'mongodb://([^:/]+):(\d+)', stores.mongodb_uri).groups()
    wire = MongoWire(target=(host, int(port)), **options)
    context.cleanup(wire.stop)
    return stores, wire


def settings(stores, wire=None, *, options='', sections=None, **more):
    """The server's configuration; through the wire if there is one."""
    if wire:
        more['mongodb_uri'] = wire.uri(stores.database, options)
    return {**stores.config(**{**SOON, **more}), **(sections or {})}


def lines(server, *texts):
    """Lines of the log that hold all of the texts."""
    return [line for line in server.stderr.read_text(errors='replace').splitlines()
            if all(text in line for text in texts)]


def readiness(server):
    rest = Rest(server)
    try:
        answer = rest.get('/readyz')
        return answer.status, answer.body.decode().strip()
    finally:
        rest.close()


def acked_in(traffic, seconds):
    """Acks of the next so many seconds."""
    before = traffic.acked()
    time.sleep(seconds)
    return traffic.acked() - before


class Traffic:
    """Senders and receivers in an event loop of their own thread, so that tests read from top to
    bottom: `with Traffic(...) as traffic`, faults inside, traffic.check() at the end."""

    def __init__(self, server, stores, *, rooms=4, senders=3, seed=None, pause=0.02):
        self.server, self.stores = server, stores
        self.rooms = [new_id('room') for _ in range(rooms)]
        self.book = Book()
        rng = random.Random(seed)
        self.senders = [BookSender(self.book, f'sender{n}', self.rooms, keyed=n / 2, rng=rng,
                                   pause=pause) for n in range(senders)]
        self.receivers = [Receiver(self.book, f'receiver{n}', self.rooms) for n in range(2)]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.sending, self.receiving = [], []

    def __enter__(self):
        maker = user(self.server, 'receiver0')
        for room in self.rooms:
            maker.make_room(room)
        maker.close()
        self.thread.start()
        self.sending = [self.run(s.session(self.server)) for s in self.senders]
        self.receiving = [self.run(r.session(self.server)) for r in self.receivers]
        wait_until(lambda: self.alive() and self.acked() > 100, 20, 'a hundred acks at the start')
        return self

    def __exit__(self, _kind, _error, _trace):
        self.loop.set_exception_handler(lambda _loop, _what: None)
        self.run(self.end()).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def end(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=10) if tasks else None

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def acked(self):
        return sum(sender.acked for sender in self.senders)

    def alive(self):
        """True; Failure if a client has ended, which none of them may while the server runs."""
        for future in self.sending + self.receiving:
            if future.done():
                future.result()
                raise Failure('a client lost its connection')
        return True

    def goes_on(self, seconds=0.3):
        """Acks come, none is refused: whatever MongoDB does, that is the journal's to promise."""
        self.alive()
        same(sum(sender.refused for sender in self.senders), 0, 'sends that were refused')
        expect(acked_in(self, seconds) > 0, f'no ack within {seconds} s')

    def rest_of_it(self):
        """No new sends; returns when all have their answer."""
        for sender in self.senders:
            sender.only_repeat = True
        for future in self.sending:
            future.result(30)
        same(sum(sender.refused for sender in self.senders), 0, 'sends that were refused')

    def check(self, *, drain_seconds=60, quarantined=0):
        """Ends the sends and holds everything against everything: the histories."""
        self.alive()
        self.rest_of_it()
        last = time.monotonic()
        top = Rest(self.server, token_for(self.server, 'receiver0'))
        for room in self.rooms:
            seq = top.get(f'/v1/rooms/{room}/messages?limit=1').json()['last_seq']
            for receiver in self.receivers:
                self.run(receiver.complete(room, seq)).result(40)
        top.close()
        members = [(r.name, room) for r in self.receivers for room in self.rooms]
        return check_everything(self.server, self.stores, self.book, self.rooms,
                                reader='receiver0', members=members, last_fault=last,
                                drain_seconds=drain_seconds, quarantined=quarantined)


def goes_away(server, traffic, seconds=15):
    """MongoDB is away by damsod's account, which serves on."""
    wait_stores(server, mongodb=False, seconds=seconds)
    same(readiness(server), (200, 'degraded'), 'GET /readyz while MongoDB is away')
    traffic.goes_on()


def comes_back(server, seconds=15):
    wait_stores(server, mongodb=True, seconds=seconds)


# What users do.


def new_room(server):
    room = new_id('room')
    user(server, 'maker').make_room(room)
    return room


def say_all(server, room, count, who='speaker'):
    """(seq, text) of so many messages."""
    rest = user(server, who)
    said = []
    for number in range(count):
        answer = rest.say(room, f'm{number} in {room}')
        expect(answer.status == 201, f'message {number}: {answer}')
        said.append((answer.json()['seq'], answer.json()['text']))
    rest.close()
    return said


def reads_all(server, room, said):
    rest = user(server, 'reader')
    events = rest.history(room)
    rest.close()
    same([(e['seq'], e['text']) for e in events if e['type'] == 'message'], said,
         f'messages of {room} in the history')


class Bench:
    """damso-bench: a steady rate, which Python cannot make; it checks what it sends by itself."""

    def __init__(self, server, seconds):
        if not BENCH.exists():
            raise Failure(f'no {BENCH}: the load comes from it')
        self.process = subprocess.Popen(
            [BENCH, 'rooms', '--url', server.address, '--key', server.data / 'jwt.key',
             '--rate', str(RATE), '--connections', '20', '--rooms', '20', '--senders', '20',
             '--duration', str(seconds), '--warmup', '0', '--tail', '20', '--json'],
            stdout=subprocess.PIPE, text=True)

    def result(self, seconds):
        said = self.process.communicate(timeout=seconds)[0]
        expect(said.strip(), f'damso-bench ended with {self.process.returncode} and no word')
        return json.loads(said.splitlines()[-1])

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
