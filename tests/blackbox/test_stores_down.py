#!/usr/bin/python3
"""Stores that are away: while damsod runs, when it starts, and taken over by another damsod.

Method: real stores are killed, stalled and brought back under load. What clients saw goes to the
checker; what MongoDB holds is read from MongoDB itself and compared with the API; that a fault
happened, and ended, is read from /readyz, the metrics and the log. damsod is never restarted by a
test that says it needs no restart.
"""
import asyncio
import contextlib
import random
import re
import sys
import time

import websockets

from checker import Fail, Info, Invoke, Ok, Recv, check, summary
from client import Chat, Rest, new_id, off_loop, token_for, user
from harness import Failure, expect, run, same
from load import Receiver, Sender, mid_of
from stores import Stores
from stores_check import (Book, BookSender, Memory, check_everything, check_resends, metric,
                          metrics, read_api, read_mongo, wait_drained, wait_stores, wait_until)

STORES = ('redis', 'mongodb', 'postgres')
MONGODB = ('mongodb', 'postgres')
FAST = {'ring_bytes': '2m', 'flush_messages': 50, 'flush_interval': '300ms',
        'store_connect': '500ms', 'redis_timeout': '1s', 'store_timeout': '3s'}
JOURNAL = {'segment_bytes': '1m', 'bytes_max': '12m'}
JOURNAL_BYTES = 12 << 20
BACK_SECONDS = 20               # generous: two cores, shared with other work
START_SECONDS = 10
ANSWER_SECONDS = 5
EXIT_DATA = 5
RETRY_SECONDS = 0.03
SMALL = {'rooms': {'log_bytes': '1m'}}      # so that a journal held in memory would be seen
RSS_GROWTH_MAX = 24 << 20                   # logs and buffers; as much with a longer journal
SIZES = (100, 2000, 12000)
MID = re.compile(rb'"text":"([\w-]+\.\d+) ')
FENCED = 'these stores are not ours any more'


# The load.


def for_now(failure):
    """Whether a load's step failed by a refusal that PROTOCOL.md allows at any time."""
    return 'unavailable' in str(failure)


class Load:
    """Senders and receivers that go on whatever happens to damsod or to its stores."""

    def __init__(self, rng, *, rooms=3, senders=3, receivers=2, name='', keyed=0.7, window=8,
                 sizes=SIZES, pause=0.002, book=None):
        self.book, self.tasks, self.over, self.retries = book or Book(), [], False, 0
        self.rooms = rooms if isinstance(rooms, list) else [new_id('room') for _ in range(rooms)]
        self.senders = [BookSender(self.book, f'{name}sender{n}', self.rooms, keyed=keyed,
                                   window=window, pause=pause, sizes=sizes, rng=rng)
                        for n in range(senders)]
        self.receivers = [Receiver(self.book, f'{name}receiver{n}', self.rooms)
                          for n in range(receivers)]

    def make_rooms(self, server):
        maker = user(server, 'owner')
        for room in self.rooms:
            maker.make_room(room)
        maker.close()

    async def keep(self, client, server):
        """One client's sessions, one after the other, until there is nothing left to do."""
        while not self.over:
            with contextlib.suppress(OSError, websockets.WebSocketException, asyncio.TimeoutError):
                try:
                    if server.port is not None:
                        await client.session(server)
                except Failure as failure:
                    if not for_now(failure):
                        raise
            if isinstance(client, Sender) and client.only_repeat and not client.pending:
                return
            self.retries += 1
            await asyncio.sleep(RETRY_SECONDS)

    async def begin(self, server, seconds=20):
        """Returns when every sender had an ack, and every receiver joined all rooms."""
        self.tasks = [asyncio.create_task(self.keep(c, server))
                      for c in self.senders + self.receivers]
        await self.until(lambda: all(s.acked for s in self.senders)
                         and all(len(r.joined) == len(self.rooms) for r in self.receivers),
                         seconds, 'the load is on')

    async def until(self, fact, seconds, why):
        """Waits for fact() as long as no client fails: how long it took, in seconds."""
        begin = time.monotonic()
        while not fact():
            for task in self.tasks:
                if task.done() and not task.cancelled() and task.exception():
                    raise task.exception()
            expect(time.monotonic() - begin < seconds,
                   f'not within {seconds} s: {why}; acked {self.acked()}, '
                   f'refused {self.refused()}')
            await asyncio.sleep(0.005)
        return time.monotonic() - begin

    def acked(self):
        return sum(sender.acked for sender in self.senders)

    def refused(self):
        return sum(sender.refused for sender in self.senders)

    async def more_acks(self, count, seconds, why):
        target = self.acked() + count
        return await self.until(lambda: self.acked() >= target, seconds, why)

    async def finish(self, seconds=40):
        """Senders repeat what is open, and end."""
        for sender in self.senders:
            sender.only_repeat = True
        senders = self.tasks[:len(self.senders)]
        await self.until(lambda: all(task.done() for task in senders), seconds, 'senders end')

    def members(self):
        return [(receiver.name, room) for receiver in self.receivers for room in self.rooms]

    async def everything(self, server, stores, *, last_fault=None, settle=60.0, **options):
        """After finish(): receivers have all, and API, MongoDB and Redis agree with the book."""
        stores.redis().delete(f'{stores.prefix}probe')   # of a Redis that came back; expires
        await off_loop(wait_drained, server, stores)
        histories = await off_loop(read_api, server, self.rooms, 'owner')
        for receiver in self.receivers:
            for room in self.rooms:
                await receiver.complete(room, len(histories[room]))
        return await off_loop(check_everything, server, stores, self.book, self.rooms,
                              reader='owner', members=self.members(), last_fault=last_fault,
                              settle=settle, **options)

    async def end(self):
        """Ends what still runs; a failure of a client is the test's."""
        self.over = True
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


# damsod and its stores as an operator sees them.


def readyz(server):
    rest = Rest(server, None, ANSWER_SECONDS)
    answer = rest.get('/readyz')
    rest.close()
    return answer.status, answer.body.decode().strip()


def wait_ready(server, wanted, seconds=BACK_SECONDS):
    return wait_until(lambda: readyz(server) == (200, wanted), seconds,
                      lambda: f'/readyz {wanted}, is {readyz(server)}; log: {server.said(600)}')


def lines(server, text):
    """The lines of this start with the text in them."""
    said = server.stderr.read_text(errors='replace').splitlines()
    return [line for line in said if text in line]


def once(server, *texts):
    for text in texts:
        found = lines(server, text)
        same(len(found), 1, f'lines that say {text!r} in {server.said()}')


def section(stores, *, journal=None, **more):
    config = stores.config(**{**FAST, **more})
    return {**config, **SMALL, 'journal': journal} if journal else config


def bring_back(stores, names):
    for name in reversed(names):
        stores.revive(name, *(['--empty'] if name == 'redis' else []))


def take_away(stores, names):
    for name in names:
        stores.kill(name)


def pair(context):
    """The file's stores, all running, with a name space of this test's own."""
    if getattr(context, 'stores', None) is None:
        context.stores = Stores().start()
    stores = context.stores
    if stores.ours:
        for name, state in reversed(stores.status()['servers'].items()):
            if not state['running']:
                stores.revive(name)
            else:
                stores.proceed(name)
    stores.fresh_namespace()
    return stores


# 1. Both away: acks until the journal is full.


async def fill(context, load, server, memory, acked):
    """Goes on sending until damsod refuses, and proves that it was for the journal's bound."""
    await load.until(lambda: load.refused() > 0, 60, 'sends are refused')
    backlog = await off_loop(metric, server, 'damso_journal_backlog_bytes')
    during = load.acked() - acked
    expect(during > 300, f'only {during} acks while stores were away')
    expect(backlog > JOURNAL_BYTES // 2,
           f'refused with {backlog:.0f} bytes in a journal of {JOURNAL_BYTES}')
    refused, late = load.refused(), load.acked()
    for _ in range(30):
        await asyncio.sleep(0.05)
        memory.sample()
    expect(load.refused() > refused, 'nothing is refused any more, though the stores are away')
    expect(load.acked() - late < during // 4 + 20, 'the bound of the journal binds nothing')
    backlog = await off_loop(metric, server, 'damso_journal_backlog_bytes')
    expect(backlog <= JOURNAL_BYTES, f'a journal of {backlog:.0f} bytes, bound {JOURNAL_BYTES}')
    same(await off_loop(readyz, server), (200, 'degraded'), '/readyz while the journal is full')
    memory.expect_growth_below(RSS_GROWTH_MAX)
    context.note(f'{during} acked until {backlog / 2**20:.1f} MiB, RSS '
                 f'+{(memory.peak() - memory.samples[0][1]) / 2**20:.0f} MiB')


async def journal_holds(context, names, *, redis_after, **more):
    """`names` go away under load until the journal is full, and come back."""
    stores = pair(context)
    server = context.server(config=section(stores, journal=JOURNAL, **more))
    await server.spawn().ready_soon()
    load, cached = Load(random.Random(5)), more.get('cache') != 'none'
    await off_loop(wait_stores, server, redis=cached, mongodb=True)
    load.make_rooms(server)
    try:
        await load.begin(server)
        await load.more_acks(200, 20, 'acks with all stores up')
        flushed = 'damso_persist_flushed_total' if cached else 'damso_persist_records_total'
        await off_loop(wait_until, lambda: metric(server, flushed) > 0, 10, 'a flush')
        same(load.refused(), 0, 'refused with all stores up')
        memory, acked = Memory(server), load.acked()
        await off_loop(take_away, stores, names)
        await off_loop(wait_stores, server, redis=redis_after, mongodb=False)
        await fill(context, load, server, memory, acked)
        await off_loop(bring_back, stores, names)
        back = time.monotonic()
        sends = await load.more_acks(50, BACK_SECONDS, 'sends work again')
        await off_loop(wait_stores, server, redis=cached, mongodb=True, seconds=BACK_SECONDS)
        await load.finish()
        await off_loop(wait_ready, server, 'ready')
        histories = await load.everything(server, stores, last_fault=back)
        drained = time.monotonic() - back
        resent = await off_loop(check_resends, server, load.book)
    finally:
        await load.end()
    same(server.starts, 1, 'starts of damsod')
    once(server, 'MongoDB is away', *(['Redis is away'] if 'redis' in names else []))
    context.note(f'back: sends after {sends:.1f} s, all stored and checked after {drained:.1f} s, '
                 f'{sum(map(len, histories.values()))} events, {resent} sent again')


async def with_both_stores_down_the_journal_holds_until_its_bound(context):
    await journal_holds(context, STORES, redis_after=False)


async def with_mongodb_down_the_journal_holds_until_its_bound(context):
    await journal_holds(context, MONGODB, redis_after=True)


async def without_a_cache_the_journal_holds_until_its_bound(context):
    await journal_holds(context, MONGODB, redis_after=None, cache='none')


# 2. Stores that are away at the start.


def bounded(call):
    begin = time.monotonic()
    answer = call()
    took = time.monotonic() - begin
    expect(took < ANSWER_SECONDS, f'{answer} took {took:.1f} s')
    return answer


async def errors_are_typed(server):
    """Everything that needs MongoDB is answered, soon, with `unavailable`."""
    rest = user(server, 'early')
    account = {'username': new_id('user'), 'password': 'a good password'}
    calls = [('GET', '/v1/rooms'), ('POST', '/v1/rooms', {'room_id': new_id('r'), 'name': 'r'}),
             ('GET', '/v1/rooms/r'), ('GET', '/v1/rooms/r/messages'),
             ('POST', '/v1/rooms/r/messages', {'text': 'hello'}), ('POST', '/v1/rooms/r/join'),
             ('POST', '/v1/auth/register', account), ('POST', '/v1/auth/login', account)]
    for call in calls:
        answer = await off_loop(bounded, lambda call=call: rest.call(*call))
        same((answer.status, answer.code()), (503, 'unavailable'), f'{call[:2]}')
    rest.close()
    chat = await Chat.open(server, how=None)
    reply = await chat.refused('unavailable', 'connect', token=token_for(server, 'early'))
    expect(reply['retry_after'] >= 1, f'no time to wait in {reply}')
    await chat.close()


async def all_works(server, stores):
    """A user's first minute, and then everything agrees."""
    load = Load(random.Random(6), rooms=2, senders=2, receivers=1, sizes=(100,))
    rest, account = user(server, 'late'), {'username': new_id('u')[:30], 'password': 'password 1'}
    for path, status in (('register', 201), ('login', 200)):
        answer = await off_loop(rest.post, f'/v1/auth/{path}', account)
        same(answer.status, status, f'{path}: {answer}')
    rest.close()
    load.make_rooms(server)
    try:
        await load.begin(server)
        await load.more_acks(100, 20, 'acks')
        await load.finish()
        await load.everything(server, stores)
    finally:
        await load.end()


async def started_without(context, names, *, redis, mongodb, stall=False):
    stores = pair(context)
    away, back = (((lambda: [stores.stall(n) for n in names]),
                   (lambda: [stores.proceed(n) for n in names])) if stall else
                  ((lambda: take_away(stores, names)), (lambda: bring_back(stores, names))))
    await off_loop(away)
    server = context.server(config=section(stores))
    begin = time.monotonic()
    await server.spawn().ready_soon(START_SECONDS)
    ready = time.monotonic() - begin
    try:
        same(await off_loop(readyz, server), (200, 'degraded'), '/readyz')
        if not mongodb:
            await errors_are_typed(server)
        await off_loop(wait_stores, server, redis=redis, mongodb=mongodb)
        if mongodb:
            rest = user(server, 'early')
            await off_loop(rest.make_room, 'early')
            same((await off_loop(rest.say, 'early', 'without Redis')).status, 201, 'a send')
            rest.close()
        said = [f'{name} is away' for name, up in (('Redis', redis), ('MongoDB', mongodb))
                if up is False]
        await asyncio.sleep(2)                       # several attempts; still a line each
    finally:
        await off_loop(back)
    begin = time.monotonic()
    await off_loop(wait_ready, server, 'ready')
    connected = time.monotonic() - begin
    await all_works(server, stores)
    same(server.starts, 1, 'starts of damsod')
    context.note(f'{"stalled" if stall else "down"}: listens after {ready:.1f} s, ready '
                 f'{connected:.1f} s after they are back')
    once(server, *said, 'Redis is there', 'MongoDB is there')


async def a_start_without_stores_serves_and_connects_later(context):
    await started_without(context, STORES, redis=False, mongodb=False)


async def a_start_without_redis_stores_all_the_same(context):
    await started_without(context, ('redis',), redis=False, mongodb=True)


async def a_start_without_mongodb_serves_and_connects_later(context):
    await started_without(context, MONGODB, redis=None, mongodb=False)


async def a_start_with_stores_that_never_answer_is_bounded(context):
    await started_without(context, ('redis', 'mongodb'), redis=False, mongodb=False, stall=True)


def require_stores_is_an_exit_with_a_message(context):
    stores = pair(context)
    cases = [(STORES, False, 'MongoDB'), (('redis',), False, 'Redis'),
             (MONGODB, False, 'MongoDB'), (('redis',), True, 'Redis'),
             (('mongodb',), True, 'MongoDB')]
    slowest = 0.0
    for names, stall, word in cases:
        what = f'require_stores, {names} {"stalled" if stall else "down"}'
        for name in names:
            (stores.stall if stall else stores.kill)(name)
        server = context.server(config=section(stores, require_stores='on'))
        begin = time.monotonic()
        same(server.spawn().wait(START_SECONDS), EXIT_DATA, f'exit code, {what}')
        slowest = max(slowest, time.monotonic() - begin)
        last = server.said().splitlines()[-1]
        for text in ('cannot start', word, 'require_stores'):
            expect(text in last, f'{what}: no {text!r} in {last!r}')
        expect('ready at' not in server.stdout.read_text(), f'{what}: it said that it is ready')
        for name in names:
            stores.proceed(name) if stall else bring_back(stores, (name,))
    server = context.start(config=section(stores, require_stores='on'))
    wait_ready(server, 'ready')
    context.note(f'{len(cases)} refusals, slowest {slowest:.1f} s')


async def a_journal_is_replayed_when_mongodb_comes_up(context):
    """kill -9 with a backlog, start without MongoDB: nothing is served wrongly, nothing is lost."""
    stores = pair(context)
    server = context.server(config=section(stores))
    await server.spawn().ready_soon()
    await off_loop(wait_stores, server, redis=True, mongodb=True)
    load = Load(random.Random(7))
    load.make_rooms(server)
    try:
        await load.begin(server)
        await off_loop(take_away, stores, MONGODB)
        await off_loop(wait_stores, server, mongodb=False)
        await load.more_acks(300, 20, 'acks without MongoDB')
        expect(load.refused() == 0, 'refused with room in the journal')
        server.kill()
        await off_loop(take_away, stores, ('redis',))
        acked = load.acked()
        await server.spawn().ready_soon(START_SECONDS)
        once(server, 'recovered records=')
        await errors_are_typed(server)
        await asyncio.sleep(1)
        expect(load.acked() == acked, 'sends to rooms that cannot be loaded were acked')
        await off_loop(bring_back, stores, STORES)
        back = time.monotonic()
        seconds = await load.more_acks(100, BACK_SECONDS, 'sends work again')
        await load.finish()
        histories = await load.everything(server, stores, last_fault=back)
        await off_loop(check_resends, server, load.book)
    finally:
        await load.end()
    context.note(f'{acked} acked before, sends work {seconds:.1f} s after the stores are back, '
                 f'{sum(map(len, histories.values()))} events')


# 3. Two damsods by mistake.


class Mistake:
    """Two damsods with a data directory each on one Redis and one MongoDB, both under load."""

    def __init__(self, context, **more):
        self.context, self.stores = context, pair(context)
        config = section(self.stores, flush_interval='1s', **more)
        self.servers = [context.server(config=config) for _ in range(2)]
        rng = random.Random(8)
        self.loads = [Load(rng, name='first-', receivers=0, sizes=(100, 500))]
        self.loads.append(Load(rng, name='second-', rooms=self.loads[0].rooms, sizes=(100, 500)))
        self.rooms, self.past = self.loads[0].rooms, []
        self.unflushed = 0

    async def begin(self):
        """The first one serves, then the second one starts while the first is under load."""
        await self.servers[0].spawn().ready_soon()
        await off_loop(wait_ready, self.servers[0], 'ready')
        self.loads[0].make_rooms(self.servers[0])
        await self.loads[0].begin(self.servers[0])
        await self.loads[0].more_acks(300, 20, 'acks of the first')
        await self.takes_over(1)

    async def takes_over(self, newer):
        """Starts one while the other serves: that one is fenced, once, and refuses."""
        older = 1 - newer
        server, load = self.servers[older], self.loads[older]
        before = load.acked()
        await self.servers[newer].spawn().ready_soon(START_SECONDS)
        await self.loads[newer].begin(self.servers[newer])
        await off_loop(wait_until, lambda: lines(server, FENCED), 10, 'the older one is fenced')
        at_fence, refused = load.acked(), load.refused()
        await load.until(lambda: load.refused() >= refused + 20, 10, 'the older one refuses')
        expect(at_fence > before, 'the older one had no load while the newer one started')
        expect(load.acked() - at_fence <= 64, f'{load.acked() - at_fence} acks after the fence')
        late = load.acked()
        await self.loads[newer].more_acks(300, 20, 'the newer one serves')
        same(load.acked(), late, 'acks of the older one')
        same(await off_loop(readyz, server), (200, 'degraded'), '/readyz of the older one')
        once(server, FENCED)
        same(lines(self.servers[newer], FENCED), [], 'the newer one is fenced')
        kept = [room for room, epoch in self.loads[newer].book.epochs.items()
                if epoch == load.book.epochs[room]]
        same(kept, [], 'rooms that lost acked messages to a journal elsewhere, and their epoch not')
        held = await off_loop(self.held)
        self.unflushed += sum(mid not in held for mid in load.book.acks())

    def serves(self, index):
        """What is sent now follows in its room, and is stored."""
        rest, sent = user(self.servers[index], 'owner'), {}
        for room in self.rooms:
            answer = rest.say(room, 'served again')
            same(answer.status, 201, f'a send to {room}: {answer}')
            sent[room] = answer.json()['seq']
        rest.close()
        wait_until(lambda: all(read_mongo(self.stores, room)[-1]['seq'] == seq
                               for room, seq in sent.items()), BACK_SECONDS,
                   lambda: f'new messages are stored: {self.servers[index].said(600)}')

    def held(self):
        """mid -> [(place, room, seq)] of all messages in events and in quarantine."""
        found = {}
        for room in self.rooms:
            for document in read_mongo(self.stores, room):
                self.place(found, 'events', document, document['body'].encode())
            for document in self.stores.mongo().quarantine.find({'room_id': room}):
                self.place(found, 'quarantine', document, bytes(document['record']))
        return found

    @staticmethod
    def place(found, where, document, body):
        mid = MID.search(body)
        if mid:
            found.setdefault(mid[1].decode(), []).append(
                (where, document['room_id'], document['seq']))

    async def older_returns(self, index):
        """Starts one that was fenced on its own journal; returns when that is in MongoDB."""
        server = self.servers[index]
        await server.spawn().ready_soon(START_SECONDS)
        await off_loop(wait_until, lambda: metrics(server)['damso_mongodb_up'] == 1, 10, 'MongoDB')
        acks = {mid for load in self.loads + self.past for mid in load.book.acks()}

        def complete():
            held = self.held()
            return all(mid in held for mid in acks)
        await off_loop(wait_until, complete, BACK_SECONDS,
                       lambda: f'{server.said(500)}: the fenced journal is stored; missing '
                               f'{[m for m in acks if m not in self.held()][:3]}')

    async def finish(self, index):
        """Senders of one end; what a fenced server refuses for good is given up."""
        for sender in self.loads[index].senders:
            sender.only_repeat = True
        senders = self.loads[index].senders
        await self.loads[index].until(lambda: all(not sender.open for sender in senders), 20,
                                      'no send is open')

    def verdict(self, last):
        """Every ack of both is kept once, under its seq; the API shows MongoDB's events."""
        held, wrong = self.held(), []
        refused, unknown, sent = set(), set(), set()
        for load in self.loads + self.past:
            for event in load.book.events:
                if isinstance(event, Invoke):
                    sent.add(event.mid)
                elif isinstance(event, Fail):
                    refused.add(event.mid)
                elif isinstance(event, (Info, Ok)):
                    unknown.add(event.mid)
            for mid, seq in load.book.acks().items():
                places = held.get(mid, [])
                if len(places) != 1 or places[0][2] != seq:
                    wrong.append(f'{mid} was acked as {seq} and lies at {places}')
        wrong += [f'{mid} is kept {held[mid]}' for mid in held if len(held[mid]) != 1]
        wrong += [f'{mid} was never sent' for mid in held if mid not in sent]
        wrong += [f'{mid} was refused' for mid in refused - unknown if mid in held]
        expect(not wrong, f'{len(wrong)}: {wrong[:5]}')
        shown = read_api(self.servers[last], self.rooms, 'owner')
        for room, events in shown.items():
            same([e['seq'] for e in events], [d['seq'] for d in read_mongo(self.stores, room)],
                 f'{room}: seqs of the API and of MongoDB')
        return shown, sum(p[0][0] == 'quarantine' for p in held.values())

    def second_saw_right(self, shown):
        """The checker over the second one's clients; the first one's messages are only places."""
        def ours(mid):
            return mid if mid and mid.startswith('second-') else None
        events = [e._replace(mid=ours(e.mid)) if isinstance(e, Recv) else e
                  for e in self.loads[1].book.events]
        histories = {room: [(e['seq'], ours(mid_of(e))) for e in log]
                     for room, log in shown.items()}
        found = check(events, histories, ())
        expect(not found, summary(found))

    async def end(self):
        for load in self.loads + self.past:
            await load.end()

    def tell(self, quarantined):
        acked = ', '.join(str(load.acked()) for load in self.past + self.loads)
        self.context.note(f'{acked} acked, {self.unflushed} of the fenced not in MongoDB then, '
                          f'{quarantined} in quarantine in the end')


async def the_older_damsod_is_fenced_and_its_journal_kept(context, **more):
    """The newer one stops, the older one starts again and brings what it had."""
    two = Mistake(context, **more)
    try:
        await two.begin()
        await two.finish(0)
        await two.loads[1].finish()
        same(await off_loop(two.servers[0].stop, 20), 0, 'exit code of the fenced one')
        same(await off_loop(two.servers[1].stop, 20), 0, 'exit code of the newer one')
        await two.loads[0].end()
        await two.loads[1].end()
        await two.older_returns(0)
        once(two.servers[0], 'recovered records=')
    finally:
        await two.end()
    expect(two.unflushed > 0, 'all was flushed when the older one was fenced: nothing was proved')
    await off_loop(two.serves, 0)
    shown, quarantined = await off_loop(two.verdict, 0)
    two.second_saw_right(shown)
    two.tell(quarantined)


async def the_older_damsod_comes_back_while_the_newer_serves(context, **more):
    """kill -9 of the fenced one and a start on its journal: now the other one is fenced; then that
    one comes back in the same way."""
    two = Mistake(context, **more)
    try:
        await two.begin()
        await two.finish(0)
        two.servers[0].kill()
        await two.loads[0].end()
        again = Load(random.Random(9), name='third-', rooms=two.rooms, sizes=(100,), receivers=0)
        two.past, two.loads[0] = [two.loads[0]], again
        await two.takes_over(0)
        await off_loop(wait_until, lambda: 'recovered records=' in two.servers[0].said(5000), 5,
                       'its journal was read')
        await two.finish(1)
        await again.finish()
        two.servers[1].kill()
        await two.loads[1].end()
        same(await off_loop(two.servers[0].stop, 20), 0, 'exit code of the one that took over')
        await two.older_returns(1)
    finally:
        await two.end()
    expect(two.unflushed > 0, 'all was flushed when the older one was fenced: nothing was proved')
    await off_loop(two.serves, 1)
    _, quarantined = await off_loop(two.verdict, 1)
    two.tell(quarantined)


async def without_a_cache_the_older_damsod_is_fenced(context):
    await the_older_damsod_is_fenced_and_its_journal_kept(context, cache='none')


async def without_a_cache_the_older_damsod_comes_back(context):
    await the_older_damsod_comes_back_while_the_newer_serves(context, cache='none')


QUICK = [with_both_stores_down_the_journal_holds_until_its_bound,
         a_start_without_stores_serves_and_connects_later,
         the_older_damsod_is_fenced_and_its_journal_kept]
TESTS = [with_both_stores_down_the_journal_holds_until_its_bound,
         with_mongodb_down_the_journal_holds_until_its_bound,
         without_a_cache_the_journal_holds_until_its_bound,
         a_start_without_stores_serves_and_connects_later,
         a_start_without_redis_stores_all_the_same,
         a_start_without_mongodb_serves_and_connects_later,
         a_start_with_stores_that_never_answer_is_bounded,
         require_stores_is_an_exit_with_a_message,
         a_journal_is_replayed_when_mongodb_comes_up,
         the_older_damsod_is_fenced_and_its_journal_kept,
         the_older_damsod_comes_back_while_the_newer_serves,
         without_a_cache_the_older_damsod_is_fenced,
         without_a_cache_the_older_damsod_comes_back]


if __name__ == '__main__':
    run(QUICK if '--quick' in sys.argv else TESTS, seconds=400, seconds_quick=60)
