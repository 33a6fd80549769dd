#!/usr/bin/python3
"""Guarantee 2 of persist.mode = redis+mongodb: whatever becomes of Redis, acks go on, fan-out is as
quick as before, memory is bounded, and within 10 s of the fault's end everything is caught up.

Method: users talk in several rooms all the while, and somebody watches /metrics, /readyz and the
process's memory ten times a second. After a quiet time the fault comes; every test proves by what
was seen of it that it did. Then the load ends, and what was acked is compared by checker.py with
the history over REST, with that after a kill -9 of damsod, and with MongoDB's own documents.

Figures of latency are of this machine, and the client's share in them is the larger one: they are
compared with the same run before the fault, never with a number for all machines.
"""
import asyncio
import contextlib
import random
import re
import socket
import subprocess
import sys
import time
import urllib.parse
from typing import NamedTuple

import redis

from checker import Invoke, Ok, Recv
from client import Rest, new_id, off_loop, token_for, user
from harness import Failure, expect, run, same
from load import Receiver
from server import die_with_parent, run_once
from stores import Stores
from stores_check import (Book, BookSender, check_clients, check_mongo, check_resends, is_dense,
                          parse_metrics, read_api, wait_drained)
from wire import RedisWire, make_certificates

ROOMS, SENDERS, RECEIVERS = 3, 6, 2
PAUSE_SECONDS, SIZES = 0.03, (10, 100, 100, 500, 2000)
BEFORE_SECONDS, AFTER_SECONDS = 1.5, 1.0
DOWN_SECONDS, DOWN_SECONDS_FULL, STALL_SECONDS = 8, 30, 10
CAUGHT_UP_SECONDS = 10
WATCH_SECONDS, RESENDS = 0.1, 20
# A p99 of up to 0.23 s was seen on a shared machine of two cores before any fault; a wait for Redis
# would show as its time-out of 2 s.
P99_ALLOWANCE_SECONDS, ACK_GAP_SECONDS = 0.25, 1.0
RSS_GROWTH_MAX = 96 << 20           # the load alone touches 42 MiB of planned memory in 32 s
PENDING_BYTES_MAX = 24 << 20        # persist.flush_bytes is 16 MiB, and what is in a job
AWAY, THERE = 'Redis is away', 'Redis is there'
REFILLED = 'Redis does not have what it was given'
LASTING = (':owner', ':probe')     # of our keys
SECRET, ANOTHER = 'Pa55-of-the-test', 'An0ther-of-the-test'
PERSIST = {'flush_interval': '1s'}
ROOMS_CONFIG = {'log_bytes': '128k'}   # little in memory: old pages come from the stores

the_stores = []


def stores():
    """One pair of servers for the file, with its own name space for each test."""
    if not the_stores:
        the_stores.append(Stores(keep=True).start())
    the_stores[0].fresh_namespace()
    return the_stores[0]


class Sample(NamedTuple):
    """What an operator sees of damsod between two moments."""
    t: float
    done: float
    status: int
    ready: str
    metrics: dict
    rss: int

    def value(self, name):
        return self.metrics[f'damso_{name}']

    def is_up(self):
        return self.ready == 'ready' and self.value('redis_up') == self.value('mongodb_up') == 1


def look(server):
    rest, begun = Rest(server), time.monotonic()
    try:
        ready = rest.get('/readyz')
        text = rest.get('/metrics').body.decode()
    finally:
        rest.close()
    return Sample(begun, time.monotonic(), ready.status, ready.body.decode().strip(),
                  parse_metrics(text), server.rss())


def p99(values):
    expect(len(values) > 100, f'only {len(values)} deliveries: no figure')
    return sorted(values)[len(values) * 99 // 100]


class Run:
    """One damsod, its users, its stores, and what was seen of them."""

    def __init__(self, context, pair, client=None, redis_url=None, env=None, **persist):
        self.context, self.pair, self.client = context, pair, client
        config = {**pair.config(**{**PERSIST, **persist}), 'rooms': ROOMS_CONFIG}
        if redis_url:
            config['persist']['redis_url'] = redis_url
        self.server = context.server(config=config, env=env)
        self.rooms = [new_id('room') for _ in range(ROOMS)]
        self.record, self.samples, self.tasks = Book(), [], []
        self.senders = [BookSender(self.record, f'sender{n}', self.rooms, keyed=0.5, sizes=SIZES,
                                   pause=PAUSE_SECONDS, rng=random.Random(n))
                        for n in range(SENDERS)]
        self.receivers = [Receiver(self.record, f'receiver{n}', self.rooms)
                          for n in range(RECEIVERS)]
        self.loaded = self.began = self.ended = None

    # Before the fault.

    async def start(self, *, up=True):
        """Serves; with `up`, with both stores."""
        await self.server.spawn().ready_soon()
        await self.when(Sample.is_up if up else lambda s: s.value('mongodb_up') == 1, 15,
                        f'the stores at the start: {self.server.said()}')
        await off_loop(self.make_rooms)
        return self

    def make_rooms(self):
        rest = user(self.server, 'receiver0')
        for room in self.rooms:
            rest.make_room(room)
        rest.close()
        for client in self.senders + self.receivers[1:]:
            rest = user(self.server, client.name)
            for room in self.rooms:
                same(rest.post(f'/v1/rooms/{room}/join').status, 200, f'{client.name} joins')
            rest.close()

    async def load(self, seconds=BEFORE_SECONDS):
        """All users at work, for so long without a fault."""
        for sender in self.senders:
            sender.is_member = True
        self.tasks = [asyncio.create_task(client.session(self.server))
                      for client in self.receivers + self.senders]
        self.tasks.append(asyncio.create_task(self.watch()))
        await self.until(lambda: all(s.acked for s in self.senders)
                         and all(r.joined == set(self.rooms) for r in self.receivers), 15, 'load')
        self.loaded = time.monotonic()
        await self.go_on(seconds)
        return self

    async def watch(self):
        while True:
            self.samples.append(await off_loop(look, self.server))
            await asyncio.sleep(WATCH_SECONDS)

    # Waiting, always with an eye on the clients.

    def look_at_clients(self):
        for task in self.tasks:
            if task.done():
                task.result()
                raise Failure('a client was disconnected')

    async def until(self, fact, seconds, why):
        deadline = time.monotonic() + seconds
        while not fact():
            self.look_at_clients()
            expect(time.monotonic() < deadline, f'not within {seconds} s: {why}')
            await asyncio.sleep(0.01)

    async def when(self, fact, seconds, why):
        """Waits until an operator sees it, from now on."""
        deadline = time.monotonic() + seconds
        while True:
            sample = await off_loop(look, self.server)
            self.samples.append(sample)
            if fact(sample):
                return sample
            self.look_at_clients()
            expect(time.monotonic() < deadline, f'not within {seconds} s: {why}')
            await asyncio.sleep(0.03)

    async def go_on(self, seconds):
        """Time passes, and every user gets acks in it."""
        acked = [sender.acked for sender in self.senders]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look_at_clients()
            await asyncio.sleep(0.05)
        for sender, before in zip(self.senders, acked):
            expect(sender.acked > before, f'{sender.name} got no ack in {seconds} s')

    # The fault.

    @contextlib.contextmanager
    def fault(self):
        """It begins and ends with this block."""
        self.began = time.monotonic()
        yield
        self.ended = time.monotonic()

    async def is_away(self, seconds=5):
        """Redis is seen to be away, and nothing but that is wrong."""
        await self.when(lambda s: (s.ready, s.value('redis_up'), s.value('mongodb_up')) ==
                        ('degraded', 0, 1), seconds, 'degraded, by Redis alone')

    async def stays_away(self, seconds):
        """For so long users notice nothing, and damsod does not take Redis for usable."""
        begin = time.monotonic()
        await self.go_on(seconds)
        seen = [s for s in self.samples if s.t > begin]
        expect(seen, 'nobody looked')
        same({(s.status, s.ready, s.value('redis_up'), s.value('mongodb_up')) for s in seen},
             {(200, 'degraded', 0, 1)}, 'status, /readyz, redis_up and mongodb_up while it is away')

    async def is_refilled(self, count=1, seconds=5):
        """The journal had to hand over again, so often at least."""
        before = [s for s in self.samples if s.done <= self.began][-1]
        count += before.value('persist_resets_total')
        await self.when(lambda s: s.value('persist_resets_total') >= count, seconds,
                        'persist_resets_total')

    async def is_caught_up(self):
        """Up again, and what came meanwhile is stored; the load has not paused for it."""
        usual = max(s.value('persist_pending_messages') for s in self.samples
                    if self.loaded < s.t <= self.began)
        usual_bytes = max(s.value('journal_backlog_bytes') for s in self.samples
                          if self.loaded < s.t <= self.began)
        left = self.ended + CAUGHT_UP_SECONDS - time.monotonic()
        sample = await self.when(
            lambda s: s.is_up() and s.value('persist_pending_messages') <= 2 * usual + 500
            and s.value('journal_backlog_bytes') <= 2 * usual_bytes + (1 << 20),
            left, f'{CAUGHT_UP_SECONDS} s after the fault: up and caught up')
        self.context.note(f'caught up after {sample.t - self.ended:.1f} s')
        await self.go_on(AFTER_SECONDS)
        await off_loop(self.reads_all)

    def reads_all(self):
        """While the load goes on: memory, Redis and MongoDB together are one log without a hole."""
        rest = Rest(self.server, token_for(self.server, 'receiver0'))
        for room in self.rooms:
            acked = max((receiver.last[room] for receiver in self.receivers), default=0)
            seqs = [event['seq'] for event in rest.history(room)]
            is_dense(seqs, f'{room} under load')
            expect(len(seqs) >= acked, f'{room} has {len(seqs)} events, {acked} were received')
        rest.close()

    # Afterwards.

    async def finish(self, *, away=1, there=2, keys=LASTING):
        """Ends the load and checks all of it. away, there: lines of the log, over the whole run."""
        for sender in self.senders:
            sender.only_repeat = True
        await asyncio.wait_for(asyncio.gather(*self.tasks[RECEIVERS:-1]), 30)
        self.tasks.pop().cancel()
        del self.tasks[RECEIVERS:]
        left = max(5.0, self.ended + CAUGHT_UP_SECONDS - time.monotonic())
        await off_loop(wait_drained, self.server, seconds=left)
        histories = await off_loop(read_api, self.server, self.rooms, 'receiver0')
        for receiver in self.receivers:
            for room in self.rooms:
                await receiver.complete(room, len(histories[room]))
        members = [(r.name, room) for r in self.receivers for room in self.rooms]
        check_clients(self.record, histories, members, self.ended)
        same(sum(sender.refused for sender in self.senders), 0, 'sends refused')
        await off_loop(check_mongo, self.pair, histories)
        await off_loop(check_resends, self.server, self.record, count=RESENDS)
        self.leaves_no_list(keys)
        self.log_says(away, there)
        self.latencies()
        self.memory()
        self.no_secret(SECRET)
        self.server.kill()
        await asyncio.gather(*self.tasks)
        await self.server.spawn().ready_soon()
        await self.when(lambda s: s.value('mongodb_up') == 1, 15, 'mongodb_up after kill -9')
        again = await off_loop(read_api, self.server, self.rooms, 'receiver0')
        expect(again == histories, 'the history is another one after kill -9')
        self.no_secret(SECRET)

    def leaves_no_list(self, keys):
        """What is stored is gone from Redis; the owner keys stay for a week."""
        left = [key.decode() for key in self.redis().scan_iter(f'{self.pair.prefix}*')]
        same([key for key in left if not any(part in key for part in keys)], [], 'keys left')

    def redis(self):
        return self.client or self.pair.redis()

    def said(self):
        return self.server.stderr.read_text()

    def log_says(self, away, there):
        counts = (self.said().count(AWAY), self.said().count(THERE))
        expect(counts == (away, there),
               f'the log says {counts} times that Redis went and came, wanted {(away, there)}')

    def latencies(self):
        """Fan-out and acks, before and from the fault's begin until all was well again."""
        sent = {e.mid: e.t for e in self.record.events if isinstance(e, Invoke)}
        before, during, acks = [], [], []
        end = max(self.ended, self.began + 1.0)
        for event in self.record.events:
            if isinstance(event, Recv) and event.mid in sent and 'history' not in event.conn:
                if self.loaded <= sent[event.mid] < self.began:
                    before.append(event.t - sent[event.mid])
                elif self.began <= sent[event.mid] < end:
                    during.append(event.t - sent[event.mid])
            elif isinstance(event, Ok) and self.began <= event.t <= end:
                acks.append(event.t)
        usual, late = p99(before), p99(during)
        acks = [self.began, *sorted(acks), end]
        gap = max(b - a for a, b in zip(acks, acks[1:]))
        self.context.note(f'fan-out p99 {usual * 1e3:.0f} ms before, {late * 1e3:.0f} ms with it; '
                          f'longest time without an ack {gap * 1e3:.0f} ms; {len(acks)} acks')
        expect(late <= 2 * usual + P99_ALLOWANCE_SECONDS,
               f'fan-out p99 {late:.3f} s with the fault, {usual:.3f} s before')
        expect(gap <= ACK_GAP_SECONDS, f'{gap:.2f} s without an ack')

    def memory(self):
        """Of damsod, and what waits in it; and nobody was ever told that it is not ready."""
        usual = max(s.rss for s in self.samples if s.t <= self.began)
        most = max(s.rss for s in self.samples)
        pending = max(s.value('persist_pending_bytes') for s in self.samples)
        self.context.note(f'RSS +{(most - usual) >> 20} MiB')
        expect(most - usual <= RSS_GROWTH_MAX, f'RSS {usual >> 20} MiB before, {most >> 20} MiB')
        expect(pending <= PENDING_BYTES_MAX, f'{pending} bytes pending')
        same({s.status for s in self.samples}, {200}, 'GET /readyz')

    def no_secret(self, *secrets):
        """Neither in a line of the log nor in /metrics or the answer to a wrong request."""
        texts = {f'{kind} {n}': (self.server.directory / f'{kind}.{n}').read_text()
                 for kind in ('stdout', 'stderr') for n in range(1, self.server.starts + 1)}
        rest = Rest(self.server, token_for(self.server, 'receiver0'))
        for path in ('/metrics', '/readyz', '/v1/rooms/none/messages', '/v1/search?q=' + SECRET[:1],
                     '/openapi.json'):
            texts[path] = rest.get(path).body.decode('utf-8', 'replace')
        rest.close()
        for where, text in texts.items():
            for secret in secrets:
                expect(secret not in text and urllib.parse.quote(secret) not in text,
                       f'the secret stands in {where}')


async def loaded(context, **options):
    pair = stores()
    pair.need_ours()
    return await (await Run(context, pair, **options).start()).load()


# Redis as a process.


async def killed(context, seconds, *, empty):
    test = await loaded(context)
    before = test.redis().info()['run_id']
    with test.fault():
        await off_loop(test.pair.kill_redis)
        await test.is_away()
        await test.stays_away(seconds)
        await off_loop(test.pair.start_redis, empty=empty)
    expect(test.redis().info()['run_id'] != before, 'Redis is the one of before')
    await test.is_caught_up()
    await test.finish()


async def redis_may_be_killed_and_come_back_empty(context):
    await killed(context, DOWN_SECONDS_FULL if context.args.full else
                 3 if context.quick else DOWN_SECONDS, empty=True)


async def redis_may_be_killed_and_come_back_with_what_it_had(context):
    await killed(context, 2, empty=False)


async def redis_may_stand_still(context):
    test = await loaded(context)
    seconds = 4 if context.quick else STALL_SECONDS
    with test.fault():
        await off_loop(test.pair.stall_redis)
        try:
            await test.is_away()
            await test.stays_away(max(0.5, test.began + seconds - time.monotonic()))
        finally:
            await off_loop(test.pair.proceed, 'redis')
    await test.is_caught_up()
    await test.finish()


async def redis_may_be_full(context):
    test = await loaded(context)
    client = test.redis()
    context.cleanup(lambda: client.config_set('maxmemory', 0))
    for number in range(32):
        client.set(f'somebody-else:{number}', b'x' * (1 << 20))
    refusals = full_refusals(client)
    with test.fault():
        client.config_set('maxmemory', 24 << 20)
        await test.is_away()
        await test.stays_away(4)
        expect(full_refusals(client) > refusals, 'Redis has refused nothing')
        client.config_set('maxmemory', 0)
    expect('maxmemory' in test.said(), 'the log does not say why')
    await test.is_caught_up()
    context.note(f'{full_refusals(client) - refusals} commands refused')
    client.delete(*(f'somebody-else:{number}' for number in range(32)))
    await test.finish()


def full_refusals(client):
    """How often Redis has said OOM since its start."""
    return int(client.info('errorstats').get('errorstat_OOM', 'count=0').partition('=')[2])


async def redis_may_take_no_writes(context):
    test = await loaded(context)
    client = test.redis()
    context.cleanup(lambda: client.replicaof('NO', 'ONE'))
    with test.fault():
        client.replicaof('127.0.0.1', 1)        # nobody is there; it serves what it has, read-only
        await test.is_away()
        await test.stays_away(4)
        same(client.info('replication')['role'], 'slave', 'what Redis says it is')
        client.replicaof('NO', 'ONE')
    await test.is_caught_up()
    await test.finish()


# The connection.


async def through_wire(context):
    pair = stores()
    address = urllib.parse.urlsplit(pair.redis_url)
    wire = RedisWire(target=(address.hostname, address.port))
    context.cleanup(wire.stop)
    return wire, await (await Run(context, pair, redis_url=wire.url()).start()).load()


async def a_connection_may_be_half_closed(context):
    wire, test = await through_wire(context)
    with test.fault():
        expect(await off_loop(wire.half_close) > 0, 'no connection to half-close')
        await test.is_refilled()
    await test.is_caught_up()
    await test.finish()


async def one_fault_of_the_wire(context, arm):
    wire, test = await through_wire(context)
    with test.fault():
        fault = arm(wire)
        await test.until(lambda: fault.hits == 1, 5, 'the fault')
        await test.is_refilled()
    await test.is_caught_up()
    await test.finish()


async def a_reply_may_be_garbage(context):
    await one_fault_of_the_wire(context, lambda wire: wire.inject(b'HTTP/1.1 400 Bad Request\r\n'))


async def a_reply_may_be_truncated(context):
    await one_fault_of_the_wire(context, RedisWire.truncate_reply)


async def connections_may_be_killed(context):
    test = await loaded(context)
    with test.fault():
        for _ in range(3):
            before = test.samples[-1].value('persist_resets_total')
            killed_now = test.redis().client_kill_filter(_type='normal', skipme=True)
            expect(killed_now > 0, 'CLIENT KILL found nobody')
            await test.when(lambda s, b=before: s.is_up() and s.value('persist_resets_total') > b,
                            CAUGHT_UP_SECONDS, 'Redis used again')
            await test.until(lambda: len(test.redis().client_list()) > 1, 5, 'a connection')
    await test.is_caught_up()
    away = test.said().count(AWAY)
    expect(1 <= away <= 3, f'{away} times away after three times CLIENT KILL')
    await test.finish(away=away, there=away + 1)


# Our keys, and somebody else at them.


def key(test, room, name):
    return f'{test.pair.prefix}{{{room}}}:{name}'


async def a_list_with_messages(test, room):
    """Waits until the room's log holds some."""
    client, name = test.redis(), key(test, room, 'log')
    await test.until(lambda: client.type(name) == b'list' and client.llen(name) > 3, 5,
                     f'messages in {name}')
    return name


async def the_log_may_be_of_another_type(context):
    test = await loaded(context)
    client = test.redis()
    with test.fault():
        for number, make in enumerate((lambda pipe, name: pipe.set(name, 'not a list'),
                                       lambda pipe, name: pipe.hset(name, 'a', 'hash'))):
            name = await a_list_with_messages(test, test.rooms[number])
            with client.pipeline(transaction=True) as pipe:
                pipe.delete(name)
                make(pipe, name)
                same(pipe.execute()[0], 1, f'{name} removed')
            await test.is_refilled(number + 1)
            await test.go_on(1.0)               # so that the next one is a fault of its own
    await test.is_caught_up()
    foreign = list(client.scan_iter(f'{test.pair.prefix}*:foreign:*'))
    expect(len(foreign) == 2, f'what was not ours must be kept under another name: {foreign}')
    expect(REFILLED in test.said(), 'the log does not say that Redis lost something')
    await test.finish(away=0, there=1, keys=(*LASTING, ':foreign:'))


async def the_owner_key_may_be_of_another_type(context):
    test = await loaded(context)
    client = test.redis()
    ours = client.get(key(test, test.rooms[0], 'owner'))
    expect(ours.isdigit(), f'the owner is {ours}')
    with test.fault():
        for room, make in zip(test.rooms, (lambda pipe, name: pipe.rpush(name, 'a list'),
                                           lambda pipe, name: pipe.hset(name, 'a', 'hash'),
                                           lambda pipe, name: pipe.set(name, 'no number'))):
            with client.pipeline(transaction=True) as pipe:
                pipe.delete(key(test, room, 'owner'))
                make(pipe, key(test, room, 'owner'))
                same(pipe.execute()[0], 1, f'owner keys of {room} removed')
        await test.until(lambda: all(client.type(key(test, room, 'owner')) == b'string' and
                                     client.get(key(test, room, 'owner')) == ours
                                     for room in test.rooms), 5, 'the owner keys as they were')
    await test.is_caught_up()
    # What lay in a log that is not known to be ours is put by; the journal has all of it.
    await test.finish(away=0, there=1, keys=(*LASTING, ':log:orphan:'))


async def a_frozen_key_may_go_or_be_of_another_type(context):
    test = await loaded(context)
    client, pattern = test.redis(), f'{test.pair.prefix}*:flush:*'
    with test.fault():
        await off_loop(test.pair.stall_postgres)        # so that a frozen list stays to be met
        try:
            await test.until(lambda: next(client.scan_iter(pattern, count=1000), None), 8,
                             'a frozen list')
            frozen = list(client.scan_iter(pattern, count=1000))
            for number, name in enumerate(frozen):
                same(client.delete(name), 1, f'{name} removed')
                if number % 2 == 0:
                    client.set(name, 'not a list')
        finally:
            await off_loop(test.pair.proceed, 'postgres')
        await test.go_on(0.5)
    await test.is_caught_up()
    context.note(f'{len(frozen)} frozen lists')
    ours_no_more = [name.decode() for name in frozen if client.type(name) == b'string']
    same(len(ours_no_more), (len(frozen) + 1) // 2, 'strings of somebody else, left alone')
    await test.finish(away=0, there=1, keys=(*LASTING, *ours_no_more))


async def the_name_of_the_next_frozen_key_may_be_taken(context):
    test = await loaded(context)
    client, room = test.redis(), test.rooms[0]
    owner = client.get(key(test, room, 'owner')).decode()
    await test.until(lambda: list(client.scan_iter(f'{test.pair.prefix}*:flush:*', count=1000)),
                     10, 'a frozen list')
    found = [name.decode() for name in client.scan_iter(f'{test.pair.prefix}*:flush:*')]
    latest = max((int(name.rpartition('.')[2]) for name in found), default=0)
    with test.fault():
        taken = [key(test, room, f'flush:{owner}.{n}') for n in range(latest + 1, latest + 61)]
        for name in taken:
            client.setnx(name, 'in the way')
        await test.is_refilled(seconds=8)
        client.delete(*taken)
    await test.is_caught_up()
    await test.finish(away=0, there=1)


async def a_list_may_be_deleted(context):
    test = await loaded(context)
    with test.fault():
        name = await a_list_with_messages(test, test.rooms[0])
        same(test.redis().delete(name), 1, 'lists deleted')
        await test.is_refilled()
    await test.is_caught_up()
    expect(REFILLED in test.said(), 'the log does not say that Redis lost something')
    await test.finish(away=0, there=1)


async def everything_may_be_deleted(context):
    test = await loaded(context)
    with test.fault():
        await a_list_with_messages(test, test.rooms[0])
        test.redis().flushall()
        await test.is_refilled()
    await test.is_caught_up()
    await test.finish(away=0, there=1)


async def scripts_may_be_flushed(context):
    test = await loaded(context)
    client = test.redis()
    with test.fault():
        for _ in range(4):
            loads = client.info('commandstats')['cmdstat_script|load']['calls']
            client.script_flush()
            await test.until(lambda: client.info('commandstats')['cmdstat_script|load']['calls']
                             > loads, 5, 'the scripts loaded again')
            await test.go_on(0.2)
    await test.is_caught_up()
    await test.finish(away=0, there=1)


# Passwords, rights, TLS: servers of the test's own, beside the pair's MongoDB.


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class OwnRedis:
    """A redis-server with the options of one test."""

    def __init__(self, context, *options, client=None):
        self.directory, self.port = context.directory(), free_port()
        self.client_options = client or {'port': self.port}
        self.options = [str(option).format(port=self.port, at=self.directory)
                        for option in options or ('--port', '{port}')]
        self.log = self.directory / 'log'
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(
                ['redis-server', *self.options, '--save', '', '--dir', self.directory],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        context.cleanup(self.stop)
        deadline = time.monotonic() + 10
        while not re.search('eady to accept connections', self.log.read_text()):
            expect(self.process.poll() is None and time.monotonic() < deadline,
                   f'redis-server: {self.log.read_text()[-500:]}')
            time.sleep(0.02)

    def stop(self):
        self.process.kill()
        self.process.wait(10)

    def client(self, **options):
        return redis.Redis(**{'host': '127.0.0.1', **self.client_options, **options})

    def url(self, secret='', scheme='redis'):
        return f'{scheme}://{secret}127.0.0.1:{self.port}/0'


async def works(test):
    """Load through this Redis, checked as after a fault; that it is used is seen in it."""
    await test.load(0.5)
    with test.fault():
        await a_list_with_messages(test, test.rooms[0])
        await test.go_on(1.0)
    await test.is_caught_up()


async def mended(test, mend, *texts):
    """The start found something wrong with Redis: it serves all the same, its log names what is to
    be done, and once that is done Redis is used without a restart."""
    await test.start(up=False)
    await test.is_away()
    for text in texts:
        expect(text in test.said(), f'{text!r} is not said: {test.said()}')
    await test.load()
    same(test.samples[-1].ready, 'degraded', 'GET /readyz')
    with test.fault():
        await test.go_on(0.5)
        mend()
    await test.is_caught_up()
    await a_list_with_messages(test, test.rooms[0])
    await test.finish(away=1, there=1)


async def the_password_may_change(context):
    own = OwnRedis(context, '--port', '{port}', '--requirepass', SECRET)
    client = own.client(password=SECRET)
    test = Run(context, stores(), client=client, redis_url=own.url(f':{SECRET}@'))
    await (await test.start()).load()
    admin = own.client(password=ANOTHER)
    with test.fault():
        client.config_set('requirepass', ANOTHER)
        expect(admin.client_kill_filter(_type='normal', skipme=True) > 0, 'nobody was connected')
        await test.is_away()
        await test.stays_away(2)
        admin.config_set('requirepass', SECRET)
    expect(re.search('WRONGPASS|password', test.said()), f'no word of why: {test.said()}')
    await test.is_caught_up()
    test.no_secret(SECRET, ANOTHER)
    await test.finish()


async def a_wrong_password_at_the_start_is_said_and_mended(context):
    own = OwnRedis(context, '--port', '{port}', '--requirepass', 'the-right-one')
    client = own.client(password='the-right-one')
    test = Run(context, stores(), client=own.client(password=SECRET),
                  redis_url=own.url(f':{SECRET}@'))
    await mended(test, lambda: client.config_set('requirepass', SECRET), AWAY, 'WRONGPASS')


async def a_policy_that_deletes_is_refused_with_what_mends_it(context):
    own = OwnRedis(context, '--port', '{port}', '--maxmemory-policy', 'allkeys-lru')
    test = Run(context, stores(), client=own.client(), redis_url=own.url())
    await mended(test, lambda: own.client().config_set('maxmemory-policy', 'noeviction'),
                 AWAY, 'CONFIG SET maxmemory-policy noeviction', 'allkeys-lru')


async def a_user_without_rights_is_said_and_mended(context):
    own = OwnRedis(context, '--port', '{port}', '--user', 'chat', 'on', f'>{SECRET}', '~*', '&*',
                   '+ping', '+info')
    test = Run(context, stores(), client=own.client(), redis_url=own.url(f'chat:{SECRET}@'))
    await mended(test, lambda: own.client().execute_command('ACL', 'SETUSER', 'chat', '+@all'),
                 AWAY, 'NOPERM')


async def tls_works_with_the_right_authority_only(context):
    good = make_certificates(context.directory())
    wrong = make_certificates(context.directory())
    options = ('--port', '0', '--tls-port', '{port}', '--tls-cert-file', good.server,
               '--tls-key-file', good.server_key, '--tls-ca-cert-file', good.ca,
               '--tls-auth-clients', 'no', '--requirepass', SECRET)
    own = OwnRedis(context, *options)
    client = own.client(ssl=True, ssl_ca_certs=str(good.ca), password=SECRET)
    url = own.url(f':{SECRET}@', scheme='rediss')
    test = Run(context, stores(), client=client, redis_url=url, redis_ca_file=wrong.ca)
    await test.start(up=False)
    await test.is_away()
    expect('certificate' in test.said(), f'not a word of the certificate: {test.said()}')
    same(client.dbsize(), 0, 'keys in a Redis that is not to be trusted')
    test.no_secret(SECRET)
    same(test.server.stop(), 0, 'exit')
    test = Run(context, stores(), client=client, redis_url=url, redis_ca_file=good.ca)
    await test.start()
    await works(test)
    await test.finish(away=0, there=1)


async def a_socket_file_and_a_secret_in_a_file_work(context):
    own = OwnRedis(context, '--port', '0', '--unixsocket', '{at}/redis.sock', '--requirepass',
                   SECRET)
    client = redis.Redis(unix_socket_path=str(own.directory / 'redis.sock'), password=SECRET)
    secret = own.directory / 'redis_url'
    secret.write_text(f'unix://:{SECRET}@{own.directory}/redis.sock\n')
    secret.chmod(0o644)
    config = {'persist': {'mode': 'redis+mongodb', 'redis_url': f'file:{secret}'}}
    refused(context, config, 'redis_url', str(secret), 'chmod')
    secret.chmod(0o600)
    test = Run(context, stores(), client=client, redis_url=f'file:{secret}')
    await test.start()
    await works(test)
    await test.finish(away=0, there=1)


async def a_secret_in_a_credential_works(context):
    own = OwnRedis(context, '--port', '{port}', '--requirepass', SECRET)
    credentials = own.directory / 'credentials'
    credentials.mkdir(mode=0o700)
    (credentials / 'redis').write_text(own.url(f':{SECRET}@'))
    (credentials / 'redis').chmod(0o400)
    config = {'persist': {'mode': 'redis+mongodb', 'redis_url': 'credential:redis'}}
    refused(context, config, 'redis_url', 'CREDENTIALS_DIRECTORY')
    test = Run(context, stores(), client=own.client(password=SECRET), redis_url='credential:redis',
                  env={'CREDENTIALS_DIRECTORY': str(credentials)})
    await test.start()
    await works(test)
    await test.finish(away=0, there=1)


def refused(context, config, *texts):
    """damsod ends at once and says why, without the secret."""
    directory = context.directory()
    server = context.server(directory=directory, config=config)
    code, out, err = run_once(server.command()[1:])
    context.servers.remove(server)
    expect(code not in (0, None), f'exit {code}')
    for text in texts:
        expect(text in err, f'{text!r} is not said: {err}')
    expect(SECRET not in out + err, 'the secret is said')


TESTS = [redis_may_be_killed_and_come_back_empty,
         redis_may_be_killed_and_come_back_with_what_it_had, redis_may_stand_still,
         redis_may_be_full, redis_may_take_no_writes, a_connection_may_be_half_closed,
         a_reply_may_be_garbage, a_reply_may_be_truncated, connections_may_be_killed,
         the_log_may_be_of_another_type, the_owner_key_may_be_of_another_type,
         a_frozen_key_may_go_or_be_of_another_type, the_name_of_the_next_frozen_key_may_be_taken,
         a_list_may_be_deleted, everything_may_be_deleted, scripts_may_be_flushed,
         the_password_may_change, a_wrong_password_at_the_start_is_said_and_mended,
         a_policy_that_deletes_is_refused_with_what_mends_it,
         a_user_without_rights_is_said_and_mended, tls_works_with_the_right_authority_only,
         a_socket_file_and_a_secret_in_a_file_work, a_secret_in_a_credential_works]
QUICK = [redis_may_be_killed_and_come_back_empty, the_log_may_be_of_another_type]

if __name__ == '__main__':
    run(QUICK if '--quick' in sys.argv else TESTS, seconds=420, seconds_quick=60,
        arguments={'--full': {'action': 'store_true', 'help': 'Redis is down for 30 s, not 8'}})
