#!/usr/bin/python3
"""Guarantee 1 of redis+mongodb: kill -9 between any two steps from the journal to the last one
loses nothing, stores nothing twice, mixes nothing up: in memory, in the API, straight in MongoDB.

Method: a build with the test seams (DAMSOD_SEAMS, default build-asan/damsod) kills itself when a
named point is passed for the n-th time. The points are read from the sources, so that a new one is
covered or the test is red; each is met the 1st, the 2nd and a random time, one kill after the
other on one data directory with load running, and then everything is judged by stores_check. That
a point was reached is proved by the process: it ended by SIGKILL, and nobody here sent it. Then
the faults that come with a kill: the disk is lost, or a store is away.
"""
import asyncio
import collections
import http.client
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import sys
import time

import websockets

import server as server_module
from client import Rest, new_id, off_loop, token_for, user
from harness import Failure, expect, run, same
from load import Receiver
from stores import Stores
from stores_check import (Book, BookSender, backlog, check_everything, check_mongo_room,
                          check_redis_empty, check_resends, generations, metric, mongo_prefix,
                          read_api, redis_lists, redis_records, same_events, wait_drained,
                          wait_metric, wait_stores, wait_until)

server_module.DAMSOD = os.environ.get('DAMSOD_SEAMS',
                                      str(server_module.REPOSITORY / 'build-asan' / 'damsod'))
SOURCES = ('core', 'fileio', 'persist', 'shard')
POINT = re.compile(r'\bfailpoint\("([a-z_.]+)"\)')
TIMES_MAX = collections.defaultdict(lambda: 20, {'take.before': 400, 'drain.before': 4,
                                                 'drain.after': 4})
ONCE_A_CONNECTION = 'drain.'    # passed again only after Redis had to be connected again
ROOMS, SENDERS, RECEIVERS = 3, 3, 1
POINT_SECONDS_MAX = 15          # until an armed server has died
GONE_SECONDS = 20
AGAIN_SECONDS = 0.02
QUIET_SECONDS = 0.2
LOAD_SECONDS = 0.25
AWAY_SECONDS = 1.5              # of load without a store
RESTARTS, RESTARTS_QUICK = 4, 2
SETTLE_SECONDS = 30
OWNER = 'receiver0'             # makes the rooms
JOURNAL = {'segment_bytes': '1m', 'bytes_max': '64m', 'buffer_bytes': '256k'}
SMALL = {'flush_messages': 20, 'flush_interval': '150ms'}
ENDS = (OSError, EOFError, http.client.HTTPException, websockets.WebSocketException,
        asyncio.TimeoutError)
SEQ_OFFSET = 24                 # of a record: core/record.h


def points_in_sources():
    found = set()
    for folder in SOURCES:
        for path in (server_module.REPOSITORY / folder).rglob('*.c'):
            found.update(POINT.findall(path.read_text()))
    expect(len(found) >= 10, f'too few points in the sources: {sorted(found)}')
    return sorted(found)


class Watcher(Receiver):
    """A Receiver for a server that may be gone at any moment, or cannot load a room yet."""

    async def take(self, server, asked, frame, now):
        if frame['type'] == 'error' and frame['code'] == 'unavailable':
            raise ConnectionError('the room cannot be loaded yet')
        await super().take(server, asked, frame, now)

    async def fetch(self, server, room, after, upto):
        try:
            await super().fetch(server, room, after, upto)
        except http.client.HTTPException:
            pass                                    # killed meanwhile: asked again on resume


class Roamer:
    """A user who joins and leaves rooms for good, so that members change with the messages."""

    def __init__(self, name, rooms, rng):
        self.name, self.rooms, self.random = name, rooms, rng
        self.known = {}                             # room -> is a member; None: unanswered
        self.changes, self.resting, self.only_rest = 0, False, False

    async def session(self, server):
        rest = Rest(server, token_for(server, self.name), seconds=10)
        try:
            while not self.only_rest:
                room = self.random.choice(self.rooms)
                verb = self.random.choice(('join', 'leave'))
                before, self.known[room] = self.known.get(room), None
                answer = await off_loop(rest.post, f'/v1/rooms/{room}/{verb}')
                if answer.status in (200, 204):
                    self.known[room] = verb == 'join'
                    self.changes += self.known[room] != before
                elif answer.status in (403, 404, 409, 503):
                    self.known[room] = before if answer.status != 503 else None
                else:
                    raise Failure(f'{verb} {room}: {answer}')
                await asyncio.sleep(0.01)
            self.resting = True
        finally:
            rest.close()


class Crowd:
    """The users of some rooms and what they saw, over any number of kills."""

    def __init__(self, rng, count=ROOMS):
        self.rooms = [new_id('room') for _ in range(count)]
        self.book = Book()
        self.senders = [BookSender(self.book, f'sender{n}', self.rooms, keyed=n / (SENDERS - 1),
                                   rng=rng) for n in range(SENDERS)]
        self.receivers = [Watcher(self.book, f'receiver{n}', self.rooms)
                          for n in range(RECEIVERS)]
        self.roamer = Roamer('roamer', self.rooms, rng)
        self.tasks = []

    def make_rooms(self, server):
        maker = user(server, OWNER)
        for room in self.rooms:
            maker.make_room(room)
        maker.close()

    async def live(self, client, server):
        """Sessions until the process is gone; a connection that ends before is made anew."""
        while server.process.poll() is None:
            try:
                await client.session(server)
            except ENDS:
                pass
            except Failure as failure:
                if "'code': 'unavailable'" not in str(failure):     # nobody is known to it yet
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    def go(self, server):
        self.tasks = [asyncio.create_task(self.live(client, server))
                      for client in (*self.senders, *self.receivers, self.roamer)]

    async def gone(self):
        """After the server's end: all sessions end by themselves, or with what they found."""
        await asyncio.wait_for(asyncio.gather(*self.tasks), GONE_SECONDS)

    def look(self):
        """One that failed ends the wait of whoever calls this."""
        for task in self.tasks:
            if task.done():
                task.result()

    def acked(self):
        return sum(sender.acked for sender in self.senders)

    async def until(self, fact, seconds, what):
        deadline = time.monotonic() + seconds
        while not fact():
            self.look()
            expect(time.monotonic() < deadline, f'{what}: not within {seconds} s')
            await asyncio.sleep(0.005)

    async def until_all_work(self, seconds=15):
        before = {sender.name: sender.acked for sender in self.senders}
        await self.until(lambda: all(s.acked > before[s.name] for s in self.senders)
                         and all(len(r.joined) == len(self.rooms) for r in self.receivers)
                         and self.roamer.changes, seconds, 'acks for all')

    async def load(self, server, seconds=LOAD_SECONDS):
        """Users at work for so long; they stay at it."""
        self.go(server)
        await self.until_all_work()
        await asyncio.sleep(seconds)
        self.look()

    async def rest(self):
        """Nothing new is sent, and all that was is answered."""
        for sender in self.senders:
            sender.only_repeat = True
        self.roamer.only_rest = True
        await self.until(lambda: self.roamer.resting and not any(s.open for s in self.senders),
                         10, 'the last answers')

    async def kill(self, server):
        expect(server.process.poll() is None, f'damsod ended by itself: {server.said()}')
        server.kill()
        await self.gone()

    async def settle(self, server, stores, *, redis=True, resends=True):
        """Repeats what is open, lets the receivers catch up, and judges all of it."""
        last_fault = time.monotonic()
        for sender in self.senders:
            sender.only_repeat = True
            await asyncio.wait_for(sender.session(server), SETTLE_SECONDS)
            expect(not sender.pending, f'{sender.name} still has {len(sender.pending)} open')
        tasks = [asyncio.create_task(self.live(r, server)) for r in self.receivers]
        members = [(r.name, room) for r in self.receivers for room in self.rooms]
        try:
            early = await off_loop(read_api, server, self.rooms, OWNER)     # on its way still
            for receiver in self.receivers:
                for room in self.rooms:
                    await receiver.complete(room, len(early[room]))
            histories = await off_loop(
                check_everything, server, stores, self.book, self.rooms, reader=OWNER,
                members=members, last_fault=last_fault, redis=redis)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        same_logs(histories, early, 'the log once it was stored, against before')
        self.check_roamer(stores)
        if resends and any(told[3] for told in self.book.texts.values()):
            await off_loop(check_resends, server, self.book, count=10)
        return histories

    def check_roamer(self, stores):
        """What was answered last is what MongoDB says of him."""
        for room, inside in self.roamer.known.items():
            if inside is not None:
                found = stores.mongo().members.find_one({'_id': f'{room}/{self.roamer.name}'})
                same(found is not None and found['role'] != 0, inside,
                     f'whether {self.roamer.name} is a member of {room}')


def same_logs(got, wanted, what):
    for room, events in wanted.items():
        same_events(got[room], events, f'{what}, {room}')


class Chain:
    """One data directory and one name space, killed at one point after the other."""

    def __init__(self, context, stores, rng, **persist):
        stores.fresh_namespace()
        self.stores, self.random = stores, rng
        self.redis = persist.get('cache') != 'none'
        self.server = context.server(shards=2, config={
            **stores.config(**SMALL, **persist), 'journal': JOURNAL})
        self.log = self.server.directory / 'points'
        self.crowd, self.kills, self.early = None, 0, 0
        self.totals, self.histories = collections.Counter(), {}

    def arm(self, point=None, times=0):
        self.server.env = {'DAMSO_KILL_LOG': str(self.log)}
        if point:
            self.server.env['DAMSO_KILL'] = f'{point}:{times}'

    def write_config(self, **persist):
        """For the next start."""
        self.server.config_file.write_text(server_module.config_text(
            {**self.stores.config(**persist), 'journal': JOURNAL}))

    def passed(self):
        return set(self.log.read_text().split()) if self.log.exists() else set()

    async def begin(self):
        self.arm()
        self.server.start()
        wait_stores(self.server, redis=self.redis or None, mongodb=True)

    async def new_crowd(self):
        """New rooms under load, and a first kill -9: the next start has something to mend."""
        self.crowd = Crowd(self.random)
        await off_loop(self.crowd.make_rooms, self.server)
        await self.crowd.load(self.server)
        await self.crowd.kill(self.server)

    async def die_at(self, point, times):
        """Load until the server has killed itself at the point; that it did is checked."""
        self.arm(point, times)
        process = self.server.spawn().process
        try:
            await self.server.ready_soon(POINT_SECONDS_MAX)
            self.crowd.go(self.server)
        except server_module.ServerDied:
            self.early += 1                         # passed before it was ready: a recovery's
        deadline = time.monotonic() + POINT_SECONDS_MAX
        while process.poll() is None and time.monotonic() < deadline:
            self.crowd.look()
            if point.startswith(ONCE_A_CONNECTION):
                await self.break_redis()
            await asyncio.sleep(0.005)
        reached = process.poll() is not None
        self.server.kill()
        await self.crowd.gone()
        self.crowd.tasks = []
        expect(reached, f'{point} was not passed {times} times in {POINT_SECONDS_MAX} s')
        same(process.returncode, -signal.SIGKILL,
             f'end of damsod at {point}:{times} ({self.server.said()})')
        self.kills += 1

    async def break_redis(self):
        """Once damsod uses Redis, its connections end: it has to connect and drain again."""
        try:
            if await off_loop(metric, self.server, 'damso_redis_up') == 1:
                self.stores.redis().execute_command('CLIENT', 'KILL', 'TYPE', 'normal')
        except ENDS:
            pass                                    # it is dead, or not ready yet

    async def judge(self):
        """A start without any kill, then all checks."""
        self.arm()
        await self.server.spawn().ready_soon()
        histories = await self.crowd.settle(self.server, self.stores, redis=self.redis)
        self.histories.update(histories)
        self.totals['events'] += sum(len(events) for events in histories.values())
        self.totals['acked'] += self.crowd.acked()
        self.totals['repeated'] += sum(s.repeats for s in self.crowd.senders)
        self.totals['duplicates'] += sum(s.duplicates for s in self.crowd.senders)
        self.totals['members'] += self.crowd.roamer.changes

    async def stop_and_start(self):
        """A clean stop, and a start that has to read all from MongoDB: all rooms are as judged."""
        same(await off_loop(self.server.stop, 30), 0, 'exit of a clean stop')
        await self.server.spawn().ready_soon()
        found = await off_loop(read_api, self.server, list(self.histories), OWNER)
        same_logs(found, self.histories, 'the log after a clean stop')

    def said(self):
        return (f'{self.kills} kills ({self.early} before the server was ready), '
                + ', '.join(f'{count} {what}' for what, count in self.totals.items()))


def wishes(point, rng, quick):
    """Which time the point is to be met."""
    some = rng.randint(3, TIMES_MAX[point])
    return (rng.choice((1, 2, some)),) if quick else (1, 2, some)


def shared_stores(context):
    """One pair of servers for all tests of the file; run() ends it."""
    if not hasattr(context, 'stores'):
        context.stores = Stores().start()
    context.stores.need_ours()
    return context.stores


def rng_for(context, name):
    context.note(f'seed {context.args.seed}')
    return random.Random(f'{context.args.seed} {name}')


async def kill_at_points(context, chain, points):
    """Every point, one after the other; quick: several before a verdict."""
    chosen = [p for p in points if context.args.point in p]
    a_verdict = 4 if context.quick else 1
    for first in range(0, len(chosen), a_verdict):
        await chain.new_crowd()
        tried = []
        try:
            for point in chosen[first:first + a_verdict]:
                for times in wishes(point, chain.random, context.quick):
                    tried.append(f'{point}:{times}')
                    await chain.die_at(point, times)
            await chain.judge()
        except Exception as error:
            raise Failure(f'after {" ".join(tried)}: {error or type(error).__name__}') from error
    await chain.stop_and_start()
    context.note(chain.said())


async def no_point_of_the_way_loses_anything(context):
    points = points_in_sources()
    chain = Chain(context, shared_stores(context), rng_for(context, 'redis'))
    await chain.begin()
    await kill_at_points(context, chain, points)
    if not context.args.point:
        same(sorted(chain.passed()), points, 'points passed against those in the sources')


async def no_point_without_redis_loses_anything(context):
    points = points_in_sources()
    chain = Chain(context, shared_stores(context), rng_for(context, 'none'), cache='none')
    await chain.begin()
    await chain.new_crowd()
    await chain.judge()
    passed = sorted(chain.passed())
    expect(len(passed) >= 4, f'only {passed} are passed without Redis')
    expect(not set(passed) - set(points), f'{passed} are not all in the sources')
    await kill_at_points(context, chain, passed)
    check_redis_empty(chain.stores)


def record_seqs(stores):
    """room -> seqs of the records that lie in Redis."""
    found = collections.defaultdict(set)
    for key in (key for key in redis_lists(stores) if b'{' in key):
        room = re.search(rb'\{(.*)\}', key)[1].decode()
        for record in stores.redis().lrange(key, 0, -1):
            found[room].add(struct.unpack_from('<Q', record, SEQ_OFFSET)[0])
    return found


def tops_in_stores(stores, rooms):
    """room -> the last seq up to which MongoDB and Redis together have no hole."""
    waiting, tops = record_seqs(stores), {}
    for room in rooms:
        seqs = waiting[room] | {d['seq'] for d in stores.mongo().events.find({'room_id': room})}
        tops[room] = next(seq for seq in range(1, len(seqs) + 2) if seq not in seqs) - 1
    return tops


def last_tops(stores, rooms):
    """tops_in_stores() once what a dead damsod had sent is done with: Redis closes its connections
    when it has read them to their end, and MongoDB has nothing new any more."""
    wait_until(lambda: len(stores.redis().client_list()) == 1, 10, 'damsod is gone from Redis')
    seen = []

    def look():
        seen.append(tops_in_stores(stores, rooms))
        time.sleep(QUIET_SECONDS)
        return len(seen) > 1 and seen[-1] == seen[-2]

    wait_until(look, 10, 'the stores are quiet')
    return seen[-1]


async def lose_the_disk(chain):
    """kill -9, and the data directory is gone; what is in the stores is what is left."""
    chain.server.kill()
    await chain.crowd.gone()
    tops, waiting = last_tops(chain.stores, chain.crowd.rooms), redis_records(chain.stores)
    expect(waiting > 0, 'nothing lay in Redis when the disk was lost')
    shutil.rmtree(chain.server.data)
    chain.write_config(**SMALL)
    return tops, waiting


async def take_over(chain, tops):
    """A start with an empty data directory: MongoDB has all that the stores had."""
    await chain.server.spawn().ready_soon()
    wait_stores(chain.server, redis=True, mongodb=True)
    await off_loop(wait_drained, chain.server, chain.stores)
    expect('took over from Redis records=' in chain.server.said(1 << 20),
           f'no word of a takeover: {chain.server.said()}')
    book = chain.crowd.book
    same({room: mongo_prefix(chain.stores, room, book) for room in chain.crowd.rooms}, tops,
         'the last seq of each room in MongoDB')
    histories = await off_loop(read_api, chain.server, chain.crowd.rooms, OWNER)
    same({room: len(events) for room, events in histories.items()}, tops, 'events of the API')


async def what_was_in_redis_outlives_the_disk(context):
    chain = Chain(context, shared_stores(context), rng_for(context, 'disk'))
    chain.write_config(flush_messages=300, flush_interval='1m')
    await chain.begin()
    chain.crowd = crowd = Crowd(chain.random)
    await off_loop(crowd.make_rooms, chain.server)
    await crowd.load(chain.server, 1.0)
    await crowd.rest()
    await quiet_in_redis(chain)
    tops, waiting = await lose_the_disk(chain)
    highest = {room: max((e.seq for e in crowd.book.events if getattr(e, 'room', None) == room
                          and hasattr(e, 'seq')), default=0) for room in crowd.rooms}
    for room in crowd.rooms:
        expect(tops[room] >= highest[room],
               f'{room}: the stores have {tops[room]}, a client saw {highest[room]}')
    await take_over(chain, tops)
    await goes_on(chain, tops)
    context.note(f'{waiting} of {sum(tops.values())} events were only in Redis')


async def quiet_in_redis(chain):
    """Waits until all that is acked is in Redis or MongoDB, before the interval has passed."""
    def acked():
        tops = collections.Counter()
        for room, seq in ((chain.crowd.book.texts[mid][0], seq)
                          for mid, seq in chain.crowd.book.acks().items()):
            tops[room] = max(tops[room], seq)
        return tops

    await chain.crowd.until(
        lambda: all(tops_in_stores(chain.stores, [room])[room] >= seq
                    for room, seq in acked().items()), 5, 'all that is acked in the stores')


async def goes_on(chain, tops):
    """Sends after it continue the logs where they end."""
    sayer = user(chain.server, 'sender0')
    for room in chain.crowd.rooms:
        answer = await off_loop(sayer.say, room, 'after it')
        same((answer.status, answer.json().get('seq')), (201, tops[room] + 1), f'say in {room}')
    sayer.close()
    await off_loop(wait_drained, chain.server, chain.stores)
    for room in chain.crowd.rooms:
        check_mongo_room(chain.stores, room)


async def a_log_that_lost_its_end_says_so(context):
    """The disk is lost under load: what was acked and was not in Redis yet is gone, as the README
    says. Then seqs are used again, and the room must have another epoch."""
    chain = Chain(context, shared_stores(context), rng_for(context, 'epoch'))
    await chain.begin()
    chain.crowd = crowd = Crowd(chain.random)
    await off_loop(crowd.make_rooms, chain.server)
    await crowd.load(chain.server, 0.5)
    chain.stores.stall_redis()                      # the journal is ahead of Redis from here on
    try:
        acked = crowd.acked()
        await crowd.until(lambda: crowd.acked() > acked + 100, 10, 'acks while Redis stands')
        chain.server.kill()
        await crowd.gone()
    finally:
        chain.stores.proceed('redis')
    tops = last_tops(chain.stores, crowd.rooms)
    shutil.rmtree(chain.server.data)
    await chain.server.spawn().ready_soon()
    wait_stores(chain.server, redis=True, mongodb=True)
    await off_loop(wait_drained, chain.server, chain.stores)
    same({room: mongo_prefix(chain.stores, room, crowd.book) for room in crowd.rooms}, tops,
         'the last seq of each room in MongoDB')
    lost = [room for mid, seq in crowd.book.acks().items()
            for room in (crowd.book.texts[mid][0],) if seq > tops[room]]
    expect(lost, 'no acked message was lost: nothing was proved')
    context.note(f'{len(lost)} acked messages went with the disk')
    rest = Rest(chain.server, token_for(chain.server, OWNER))
    for room in sorted(set(lost)):
        epoch = rest.get(f'/v1/rooms/{room}/messages?limit=1').json()['epoch']
        expect(epoch != crowd.book.epochs[room],
               f'{room} lost the end of its log and still has the epoch {epoch}')
    rest.close()


async def load_without(chain, *away, crowd=None):
    """Load, then these stores are killed; acks go on, and damsod notices."""
    if crowd is None:
        crowd = Crowd(chain.random)
        await off_loop(crowd.make_rooms, chain.server)
    chain.crowd = crowd
    await crowd.load(chain.server, 0.5)
    for name in away:
        await off_loop(chain.stores.kill, name)
    await off_loop(wait_metric, chain.server, 'damso_mongodb_up', lambda v: v == 0, 20)
    if 'redis' in away:
        await off_loop(wait_metric, chain.server, 'damso_redis_up', lambda v: v == 0, 20)
    acked = crowd.acked()
    await asyncio.sleep(AWAY_SECONDS)
    crowd.look()
    expect(crowd.acked() > acked, f'no acks while {away} were away')
    waiting = await off_loop(backlog, chain.server)
    expect(waiting.get('damso_journal_backlog_bytes', 0) > 0, f'no backlog: {waiting}')
    return crowd.acked() - acked


async def a_kill_while_mongodb_is_away_loses_nothing(context):
    chain = Chain(context, shared_stores(context), rng_for(context, 'mongodb'))
    await chain.begin()
    try:
        acked = await load_without(chain, 'mongodb')
        await chain.crowd.kill(chain.server)
    finally:
        chain.stores.start_gateway()
    waiting = redis_records(chain.stores)
    expect(waiting > 0, 'nothing waited in Redis')
    await chain.judge()
    context.note(f'{acked} acked without MongoDB, {waiting} records waited in Redis')


async def a_kill_while_both_are_away_loses_nothing(context):
    chain = Chain(context, shared_stores(context), rng_for(context, 'both'))
    await chain.begin()
    try:
        acked = await load_without(chain, 'mongodb', 'redis')
        await chain.crowd.kill(chain.server)
    finally:
        chain.stores.start_redis(empty=True)
        chain.stores.start_gateway()
    same(redis_records(chain.stores), 0, 'records in a Redis that came back empty')
    await chain.judge()
    context.note(f'{acked} acked without a store')


async def runs_without_mongodb(context, chain):
    """Restarts while MongoDB is away, every other one without Redis too: the journals stay."""
    most = 0
    for number in range(RESTARTS_QUICK if context.quick else RESTARTS):
        without_redis = number % 2 == 1
        if without_redis:
            await off_loop(chain.stores.kill, 'redis')
        await chain.server.spawn().ready_soon()
        chain.crowd.go(chain.server)
        same(await off_loop(metric, chain.server, 'damso_mongodb_up'), 0, 'damso_mongodb_up')
        await asyncio.sleep(chain.random.uniform(0.1, 0.5))
        kept = generations(chain.server)
        expect(len(kept) >= most > 0 or kept and not most, f'journals of earlier runs: {kept}, '
                                                           f'there were {most}')
        most = len(kept)
        await chain.crowd.kill(chain.server)
        if without_redis:
            await off_loop(chain.stores.start_redis, empty=True)
    return most


async def revive_all(chain):
    for name in [n for n, s in chain.stores.status()['servers'].items() if not s['pids']]:
        await off_loop(chain.stores.revive, name)


async def a_journal_waits_for_mongodb_through_many_starts(context):
    """No start without MongoDB loses the journal of an earlier run, or drops it."""
    chain = Chain(context, shared_stores(context), rng_for(context, 'starts'))
    await chain.begin()
    try:
        acked = await load_without(chain, 'mongodb')
        await chain.crowd.kill(chain.server)
        most = await runs_without_mongodb(context, chain)
    finally:
        await revive_all(chain)
    await chain.judge()
    same(generations(chain.server), [], 'journals of earlier runs after the end')
    context.note(f'{acked} acked without MongoDB, {most} journals waited')


async def journals_that_cannot_be_dropped_do_no_harm(context):
    """damsod can drop no journal while what is not its own lies in DATA/journal.dropped: so run
    after run leaves one. Every start hands all of them over again; they go once they can."""
    chain = Chain(context, shared_stores(context), rng_for(context, 'generations'))
    await chain.begin()
    obstacle = pathlib.Path(chain.server.data) / 'journal.dropped' / 'in-the-way'
    obstacle.mkdir(parents=True)
    (obstacle / 'file').touch()
    chain.crowd = crowd = Crowd(chain.random)
    await off_loop(crowd.make_rooms, chain.server)
    for number in range(RESTARTS_QUICK if context.quick else RESTARTS):
        await crowd.load(chain.server)
        same(len(generations(chain.server)), number, 'journals of earlier runs')
        await crowd.kill(chain.server)
        await chain.server.spawn().ready_soon()
    try:
        acked = await load_without(chain, 'mongodb', crowd=crowd)
        await crowd.kill(chain.server)
    finally:
        await revive_all(chain)
    await chain.server.spawn().ready_soon()
    wait_stores(chain.server, redis=True, mongodb=True)
    most = len(generations(chain.server))
    expect(most > 1, f'{most} journals of earlier runs')
    shutil.rmtree(obstacle)
    histories = await crowd.settle(chain.server, chain.stores)
    same(generations(chain.server), [], 'journals of earlier runs after the end')
    context.note(f'{acked} acked without MongoDB, {most} journals waited, '
                 f'{sum(len(events) for events in histories.values())} events')


TESTS = [no_point_of_the_way_loses_anything, no_point_without_redis_loses_anything,
         what_was_in_redis_outlives_the_disk, a_log_that_lost_its_end_says_so,
         a_kill_while_mongodb_is_away_loses_nothing, a_kill_while_both_are_away_loses_nothing,
         a_journal_waits_for_mongodb_through_many_starts,
         journals_that_cannot_be_dropped_do_no_harm]

TESTS_QUICK = [no_point_of_the_way_loses_anything, what_was_in_redis_outlives_the_disk,
               a_kill_while_both_are_away_loses_nothing]

if __name__ == '__main__':
    run(TESTS_QUICK if '--quick' in sys.argv else TESTS, seconds=420, seconds_quick=120, arguments={
        '--point': {'default': '', 'help': 'only points whose name contains this'},
        '--seed': {'type': int, 'default': random.SystemRandom().randrange(1 << 31),
                   'help': 'repeats the random times of an earlier run'}})
