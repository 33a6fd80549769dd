#!/usr/bin/python3
"""Guarantee 6: under random faults of damsod, Redis, MongoDB and what lies between them nothing is
lost, twice, out of order or read wrongly, and memory stays flat.

Method: the faults are drawn from the seed before the run: decks of all kinds, shuffled, so that
each kind comes as often as the others. They hit damsod, the Redis side and the MongoDB side, and
may overlap, one of each side at a time. Meanwhile senders, receivers and guests who join and leave
go on, and readers ask for random pages of history: an answered page must be right, `unavailable` is
allowed. In the end everything is held against everything, as in stores_check.py.
"""
import asyncio
import collections
import contextlib
import http.client
import random
import time

from checker import Ok
from client import Rest, new_id, off_loop, token_for
from harness import Failure, expect, run, same
from load import mid_of
from stores import with_database
from stores_check import (Book, check_resends, metrics, redis_lists, wait_drained, wait_stores,
                          wait_until)
from test_stores_down import Load, bring_back, pair, wait_ready
from wire import (MongoWire, RedisWire, apply_then_drop, delay, drop_before, error, half_then_drop,
                  write_concern_error)

SETTINGS = {'flush_messages': 20, 'flush_interval': '150ms', 'store_connect': '500ms',
            'redis_timeout': '500ms', 'store_timeout': '2s', 'ring_bytes': '2m'}
HOLD_SECONDS, REST_SECONDS = (0.2, 1.2), (0.1, 0.9)
HIT_SECONDS = 4                 # for a fault on the wire to meet what it is for
READY_SECONDS = 15
SETTLE_SECONDS = 60
PAGE_MAX = 200
RSS_SHARE_MAX, RSS_SLACK = 0.15, 16 << 20
WARM_SECONDS = 6                # of each damsod, before its memory counts
ERRORS = ((10107, 'NotWritablePrimary'), (189, 'PrimarySteppedDown'),
          (11600, 'InterruptedAtShutdown'), (91, 'ShutdownInProgress'))


class PlacedBook(Book):
    """A Book that knows at once which message was acked for which place."""

    def __init__(self):
        super().__init__()
        self.places, self.top = {}, collections.defaultdict(int)

    def add(self, event):
        super().add(event)
        if isinstance(event, Ok):
            room = self.texts[event.mid][0]
            self.places[room, event.seq] = event.mid
            self.top[room] = max(self.top[room], event.seq)


# What happens meanwhile.


class Readers:
    """Ask for random pages, and hold each answer against what was acked."""

    def __init__(self, run_of, count=2):
        self.run, self.count = run_of, count
        self.answered, self.refused, self.lost, self.events = 0, 0, 0, 0
        self.slowest = 0.0

    async def read(self, number):
        rng = random.Random(f'{self.run.seed} reader {number}')
        while not self.run.over:
            await self.one(rng)
            await asyncio.sleep(rng.uniform(0, 0.03))

    async def one(self, rng):
        book, server = self.run.load.book, self.run.server
        room, order = rng.choice(self.run.load.rooms), rng.choice(('asc', 'desc'))
        top, limit = book.top[room], rng.choice((1, 10, 50, PAGE_MAX))
        cursor = rng.randint(0, top) if rng.random() < 0.5 else max(0, top - rng.randint(0, 30))
        name = 'after_seq' if order == 'asc' else 'before_seq'
        where = f'{name}={cursor + (order == "desc")}&' if order == 'asc' or cursor else ''
        path = f'/v1/rooms/{room}/messages?{where}order={order}&limit={limit}'
        process, begin = server.process, time.monotonic()
        try:
            if server.port is None:
                return
            answer = await off_loop(self.ask, server, path)
        except (OSError, http.client.HTTPException) as fault:
            took = time.monotonic() - begin
            same_one = process is server.process and process.poll() is None
            expect(not (isinstance(fault, TimeoutError) and same_one),
                   f'{path} had no answer after {took:.1f} s')
            self.lost += 1
            return
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if (answer.status, answer.code()) == (503, 'unavailable'):
            self.refused += 1
            return
        same(answer.status, 200, f'{path}: {answer}')
        first = cursor + 1 if order == 'asc' else cursor if where else None
        self.judge(path, answer.json(), book, room, order, first, limit, top)

    @staticmethod
    def ask(server, path):
        rest = Rest(server, token_for(server, 'owner'))
        try:
            return rest.get(path)
        finally:
            rest.close()

    def judge(self, path, page, book, room, order, first, limit, top):
        """No gap, no duplicate, the right end, and under each seq what was acked for it."""
        seqs, last = [event['seq'] for event in page['events']], page['last_seq']
        step = 1 if order == 'asc' else -1
        first = last if first is None else first
        expect(last >= top, f'{path}: last_seq {last}, though {top} was acked before')
        expect(len(seqs) <= limit, f'{path}: {len(seqs)} events')
        if 1 <= first <= last:
            expect(seqs, f'{path}: nothing, last_seq {last}')
            wanted = range(first, first + step * len(seqs), step)
            wrong = next(((g, w) for g, w in zip(seqs, wanted) if g != w), None)
            same(wrong, None, f'{path}: the first seq that is another than wanted')
            end = seqs[-1] == (last if order == 'asc' else 1)
            same(page['next_cursor'], None if end else seqs[-1], f'{path}: next_cursor')
        for event in page['events']:
            mid = book.places.get((room, event['seq']))
            expect(mid is None or mid_of(event) == mid,
                   f'{path}: seq {event["seq"]} was acked for {mid}, and is {event}')
        self.answered += 1
        self.events += len(seqs)


class Guests:
    """Join and leave rooms over REST; each remembers what the last answer made it."""

    def __init__(self, run_of, count=3):
        self.run, self.names = run_of, [new_id('guest') for _ in range(count)]
        self.state = {}                              # (name, room) -> True: a member
        self.done, self.refused = 0, 0

    async def live(self, name):
        rng = random.Random(f'{self.run.seed} {self.names.index(name)}')
        while not self.run.over:
            await self.one(name, rng.choice(self.run.load.rooms), rng.choice(('join', 'leave')))
            await asyncio.sleep(rng.uniform(0.02, 0.1))

    async def one(self, name, room, what):
        """True if it was answered."""
        server = self.run.server
        try:
            if server.port is None:
                return False
            answer = await off_loop(self.ask, server, name, f'/v1/rooms/{room}/{what}')
        except (OSError, http.client.HTTPException):
            self.state.pop((name, room), None)       # it may have happened or not
            return False
        if (answer.status, answer.code()) == (503, 'unavailable'):
            self.refused += 1
            return False
        same(answer.status, 200, f'{name} {what} {room}: {answer}')
        self.state[name, room] = what == 'join'
        self.done += 1
        return True

    @staticmethod
    def ask(server, name, path):
        rest = Rest(server, token_for(server, name))
        try:
            return rest.post(path)
        finally:
            rest.close()

    def verdict(self, histories):
        """The last event of a guest in a room says what the last answer said."""
        for (name, room), inside in self.state.items():
            actions = [event['action'] for event in histories[room]
                       if event['type'] == 'member' and event['user_id'] == name]
            expect(actions or not inside, f'{name} joined {room}, and no event says so')
            if actions:
                same(actions[-1], 'joined' if inside else 'left', f'{name} in {room}')
            for one, other in zip(actions, actions[1:]):
                expect(one != other, f'{name} {one} {room} twice')


class Watch:
    """Samples memory and metrics: what damsod itself noticed of the faults."""

    def __init__(self, run_of):
        self.run, self.sizes, self.highest = run_of, [], collections.Counter()
        self.redis_away, self.mongodb_away, self.told, self.life = 0, 0, collections.Counter(), None

    async def look(self):
        while not self.run.over:
            server, process = self.run.server, self.run.server.process
            with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
                if server.port is not None:
                    found = await off_loop(metrics, server)
                    if process is server.process:
                        self.take(found)
            await asyncio.sleep(0.1)

    def take(self, found):
        server = self.run.server
        if server.starts != self.life:
            self.life, self.began, self.sizes = server.starts, time.monotonic(), []
            self.add_up()
        if time.monotonic() - self.began > WARM_SECONDS:
            self.sizes.append(server.rss())
        self.redis_away += found['damso_redis_up'] == 0
        self.mongodb_away += found['damso_mongodb_up'] == 0
        for name in ('persist_resets_total', 'persist_retries_total', 'persist_flushed_total',
                     'persist_quarantined_total', 'journal_failed'):
            self.highest[name] = max(self.highest[name], found[f'damso_{name}'])

    def add_up(self):
        """A counter begins again with each damsod."""
        self.told.update(self.highest)
        self.highest.clear()

    def flat(self):
        third = len(self.sizes) // 3
        expect(third >= 10, f'{len(self.sizes)} samples of memory are too few')
        early, late = (sorted(part)[third // 2]
                       for part in (self.sizes[:third], self.sizes[-third:]))
        expect(late <= early * (1 + RSS_SHARE_MAX) + RSS_SLACK,
               f'resident memory grew from {early} to {late} bytes (medians of a third)')
        return early, late, max(self.sizes)


# The faults.


class Faults:
    """One method a kind: makes the fault, keeps it for `hold` seconds, and ends it."""

    def __init__(self, run_of):
        self.run, self.stores = run_of, run_of.stores
        self.done, self.missed = collections.Counter(), collections.Counter()

    KINDS = {
        'damsod_killed': 'damsod', 'damsod_killed_again': 'damsod',
        'redis_killed_empty': 'redis', 'redis_stalled': 'redis', 'redis_flushed': 'redis',
        'redis_error': 'redis', 'redis_reply_cut': 'redis', 'redis_half_closed': 'redis',
        'redis_dropped': 'redis', 'redis_unreachable': 'redis',
        'postgres_killed': 'mongodb', 'postgres_stalled': 'mongodb', 'gateway_killed': 'mongodb',
        'gateway_stalled': 'mongodb', 'mongodb_error': 'mongodb', 'mongodb_applied_lost': 'mongodb',
        'mongodb_half': 'mongodb', 'mongodb_lost': 'mongodb', 'mongodb_slow': 'mongodb',
        'mongodb_concern': 'mongodb'}

    async def happen(self, kind, hold, draw):
        if await getattr(self, kind)(hold, draw) is False:
            self.missed[kind] += 1
        else:
            self.done[kind] += 1

    # damsod

    async def damsod_killed(self, hold, _draw):
        await self.restart(hold, again=False)

    async def damsod_killed_again(self, hold, draw):
        await self.restart(hold * draw, again=True)

    async def restart(self, hold, again):
        server = self.run.server
        expect(server.process.poll() is None, f'damsod ended by itself: {server.said()}')
        server.kill()
        await asyncio.sleep(hold / 4)
        if again:
            server.spawn()
            await asyncio.sleep(hold / 8)            # into its recovery, or its first sends
            server.kill()
        begin = time.monotonic()
        await server.spawn().ready_soon(READY_SECONDS)
        self.run.start_slowest = max(self.run.start_slowest, time.monotonic() - begin)

    # Redis and what is before it

    async def process(self, name, hold, how):
        if how == 'stall':
            await off_loop(self.stores.stall, name)
            await asyncio.sleep(hold)
            await off_loop(self.stores.proceed, name)
        else:
            await off_loop(self.stores.kill, name)
            await asyncio.sleep(hold)
            await off_loop(bring_back, self.stores, (name,))

    async def redis_killed_empty(self, hold, _draw):
        await self.process('redis', hold, 'kill')

    async def redis_stalled(self, hold, _draw):
        await self.process('redis', hold, 'stall')

    async def redis_flushed(self, _hold, _draw):
        if self.stores.ours:
            await off_loop(self.stores.redis().flushall)
        else:
            for key in self.stores.redis().scan_iter(f'{self.stores.prefix}*'):
                self.stores.redis().delete(key)

    async def met(self, fault, hold):
        """Whether a fault that lies in wait was met; it is taken away after a while."""
        deadline = time.monotonic() + HIT_SECONDS
        while fault.hits == 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if fault.hits:
            await asyncio.sleep(hold / 2)
        return fault.hits > 0

    async def on_redis(self, fault, hold):
        met = await self.met(fault, hold)
        await off_loop(self.run.redis.disarm)
        return met

    async def redis_error(self, hold, draw):
        texts = ("OOM command not allowed when used memory > 'maxmemory'.",
                 'LOADING Redis is loading the dataset in memory', 'ERR by a rule of the test')
        text = texts[int(draw * len(texts))]
        return await self.on_redis(self.run.redis.inject_error(text), hold)

    async def redis_reply_cut(self, hold, draw):
        return await self.on_redis(self.run.redis.cut_replies_after(int(draw * 2000)), hold)

    async def redis_connected(self):
        """After a fault damsod leaves Redis alone for a while."""
        deadline = time.monotonic() + HIT_SECONDS
        while self.run.redis.open == 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def redis_half_closed(self, hold, _draw):
        await self.redis_connected()
        closed = await off_loop(self.run.redis.half_close)
        await asyncio.sleep(hold)
        return closed > 0

    async def redis_dropped(self, _hold, _draw):
        await self.redis_connected()
        return await off_loop(self.run.redis.drop_all) > 0

    async def redis_unreachable(self, hold, _draw):
        await self.redis_connected()
        await off_loop(self.run.redis.refuse)
        dropped = await off_loop(self.run.redis.drop_all)
        await asyncio.sleep(hold)
        await off_loop(self.run.redis.listen)
        return dropped > 0

    # MongoDB and what is before it

    async def postgres_killed(self, hold, _draw):
        await self.process('postgres', hold, 'kill')

    async def postgres_stalled(self, hold, _draw):
        await self.process('postgres', hold, 'stall')

    async def gateway_killed(self, hold, _draw):
        await self.process('mongodb', hold, 'kill')

    async def gateway_stalled(self, hold, _draw):
        await self.process('mongodb', hold, 'stall')

    async def on_mongodb(self, action, hold, name='insert', times=2):
        rule = self.run.mongodb.on(name, action, times=times)
        met = await self.met(rule, hold)
        rule.remove()
        return met

    async def mongodb_error(self, hold, draw):
        return await self.on_mongodb(error(*ERRORS[int(draw * len(ERRORS))]), hold, None, 3)

    async def mongodb_applied_lost(self, hold, _draw):
        return await self.on_mongodb(apply_then_drop(), hold, ('insert', 'update'))

    async def mongodb_half(self, hold, draw):
        return await self.on_mongodb(half_then_drop(int(draw * 3)), hold)

    async def mongodb_lost(self, hold, _draw):
        return await self.on_mongodb(drop_before(), hold, None, 3)

    async def mongodb_slow(self, hold, draw):
        return await self.on_mongodb(delay(draw), hold, None, 4)

    async def mongodb_concern(self, hold, _draw):
        return await self.on_mongodb(write_concern_error(), hold)


def schedule(seed, seconds):
    """[(at, kind, hold, draw)]: decks of all kinds, shuffled, until the time is over. damsod
    itself is killed in the first half only: its memory is looked at in one long life."""
    rng, at, planned = random.Random(seed), 0.5, []
    while at < seconds:
        deck = sorted(Faults.KINDS)
        rng.shuffle(deck)
        for kind in deck:
            hold, draw = rng.uniform(*HOLD_SECONDS), rng.random()
            if at < seconds / 2 or Faults.KINDS[kind] != 'damsod':
                planned.append((at, kind, hold, draw))
            at += rng.uniform(*REST_SECONDS) + (hold if rng.random() < 0.5 else 0)
    return [fault for fault in planned if fault[0] < seconds]


# The run.


class Storm:
    def __init__(self, context, seed, seconds):
        self.seed, self.seconds, self.over, self.start_slowest = seed, seconds, False, 0.0
        self.stores = pair(context)
        self.stores.need_ours()
        ports = {name: state['port'] for name, state in self.stores.status()['servers'].items()
                 if 'port' in state}
        self.redis = RedisWire(target=('127.0.0.1', ports['redis']))
        self.mongodb = MongoWire(target=('127.0.0.1', ports['mongodb']))
        context.cleanup(self.redis.stop)
        context.cleanup(self.mongodb.stop)
        config = self.stores.config(**SETTINGS)
        config['persist']['redis_url'] = self.redis.url()
        config['persist']['mongodb_uri'] = with_database(
            f'mongodb://127.0.0.1:{self.mongodb.port}/', self.stores.database)
        config['rooms'] = {'log_bytes': '256k', 'chunk_bytes': '4m'}
        config['journal'] = {'segment_bytes': '1m', 'bytes_max': '64m'}
        self.server = context.server(config=config)
        self.load = Load(random.Random(seed), senders=3, receivers=2, keyed=0.8, window=4,
                         sizes=(10, 100, 100, 500, 2000), pause=0.03, book=PlacedBook())
        self.readers, self.guests, self.watch = Readers(self), Guests(self), Watch(self)
        self.faults, self.tasks, self.took = Faults(self), [], {}

    async def begin(self):
        await self.server.spawn().ready_soon()
        await off_loop(wait_ready, self.server, 'ready')
        self.load.make_rooms(self.server)
        await self.load.begin(self.server)
        self.tasks = [asyncio.create_task(job) for job in (
            *(self.readers.read(n) for n in range(self.readers.count)),
            *(self.guests.live(name) for name in self.guests.names), self.watch.look())]

    def all_well(self):
        for task in self.tasks + self.load.tasks:
            if task.done() and not task.cancelled() and task.exception():
                raise task.exception()

    async def blow(self):
        """All faults of the schedule, one of each side at a time."""
        begin, under_way = time.monotonic(), {}
        self.began = begin
        for at, kind, hold, draw in schedule(self.seed, self.seconds):
            while time.monotonic() < begin + at:
                self.all_well()
                await asyncio.sleep(0.01)
            side = Faults.KINDS[kind]
            if side in under_way:
                await under_way[side]
            if time.monotonic() > begin + self.seconds:
                break
            under_way[side] = asyncio.create_task(self.faults.happen(kind, hold, draw))
        for task in under_way.values():
            await task

    async def settle(self):
        """The faults are over: everything recovers, is complete, and agrees."""
        ended, server = time.monotonic(), self.server
        self.took['faults'] = ended - self.began
        await off_loop(wait_stores, server, redis=True, mongodb=True, seconds=SETTLE_SECONDS)
        await self.load.more_acks(20, SETTLE_SECONDS, 'sends after the faults')
        recovered = time.monotonic() - ended
        self.over = True
        await asyncio.gather(*self.tasks)
        await self.load.finish()
        self.took['settling'] = time.monotonic() - ended
        for name in self.guests.names:
            for room in self.load.rooms:
                same(await self.guests.one(name, room, 'join'), True, f'{name} joins {room}')
        await off_loop(wait_drained, server, None, SETTLE_SECONDS)
        orphans = [key for key in await off_loop(redis_lists, self.stores) if b':orphan:' in key]
        for key in orphans:                          # kept for people; what they hold is stored
            self.stores.redis().delete(key)
        self.took['drained'] = time.monotonic() - ended
        histories = await self.load.everything(server, self.stores, last_fault=ended,
                                               settle=SETTLE_SECONDS)
        self.guests.verdict(histories)
        resent = await off_loop(check_resends, server, self.load.book)
        await off_loop(wait_ready, server, 'ready')
        self.took['checked'] = time.monotonic() - ended
        return histories, recovered, resent, len(orphans)

    def proved(self):
        """Every kind of fault was there, was felt, and load went on between them."""
        self.watch.add_up()
        told, kinds = self.watch.told, set(Faults.KINDS)
        if self.seconds >= 55:
            same(kinds - set(self.faults.done), set(), 'kinds of faults that never happened')
        expect(self.watch.redis_away and self.watch.mongodb_away,
               'damsod never said that Redis, or that MongoDB, is away')
        for name in ('persist_resets_total', 'persist_retries_total', 'persist_flushed_total'):
            expect(told[name] > 0, f'{name} never rose')
        same((told['persist_quarantined_total'], told['journal_failed']), (0, 0),
             'quarantined, and failed journals')
        expect(self.readers.answered > 5 * self.seconds,
               f'only {self.readers.answered} pages were answered in {self.seconds} s')
        expect(self.load.acked() > 20 * self.seconds, f'only {self.load.acked()} sends were acked')
        expect(self.guests.done > self.seconds, f'only {self.guests.done} joins and leaves')

    async def end(self):
        self.over = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.load.end()


async def random_faults_lose_nothing_and_show_nothing_wrong(context):
    seed = context.args.seed
    seconds = context.args.minutes * 60 or (10 if context.quick else context.args.seconds)
    context.note(f'seed {seed}')
    storm = Storm(context, seed, seconds)
    try:
        await storm.begin()
        await storm.blow()
        histories, recovered, resent, orphans = await storm.settle()
    finally:
        await storm.end()
    storm.proved()
    early, late, peak = (0, 0, 0) if context.quick else storm.watch.flat()
    readers, load, faults = storm.readers, storm.load, storm.faults
    context.note(f'{sum(faults.done.values())} faults in {seconds} s: '
                 + ', '.join(f'{k} {n}' for k, n in sorted(faults.done.items()))
                 + f' (not met: {dict(faults.missed)})')
    context.note(f'{load.acked()} acked, {load.refused()} refused, '
                 f'{sum(map(len, histories.values()))} events, {storm.guests.done} joins and '
                 f'leaves, {resent} sent again, {readers.answered} pages with {readers.events} '
                 f'events answered, {readers.refused} refused, {readers.lost} cut off, slowest '
                 f'{readers.slowest:.2f} s')
    context.note('seconds: ' + ', '.join(f'{k} {s:.1f}' for k, s in storm.took.items()))
    context.note(f'{storm.server.starts} starts, slowest {storm.start_slowest:.2f} s; recovered '
                 f'{recovered:.1f} s after the last fault; resets '
                 f'{storm.watch.told["persist_resets_total"]:.0f}, orphan lists {orphans}; RSS '
                 f'{early / 2**20:.0f} -> {late / 2**20:.0f} MiB, peak {peak / 2**20:.0f} '
                 'in the last life of damsod')


if __name__ == '__main__':
    run([random_faults_lose_nothing_and_show_nothing_wrong], seconds=1200, seconds_quick=60,
        arguments={
            '--seconds': {'type': int, 'default': 60, 'help': 'of random faults'},
            '--minutes': {'type': int, 'default': 0, 'help': 'the long form: 10'},
            '--seed': {'type': int, 'default': random.SystemRandom().randrange(1 << 31),
                       'help': 'repeats the faults of an earlier run'}})
