#!/usr/bin/python3
"""Guarantee 3 of the pipeline: whatever MongoDB does, what was acked is in it once, in order.

Method: senders and receivers run while MongoDB is killed, stopped, slow, or answers as no sane
server does (MongoWire in front of the real one). Each test proves that its fault happened, that
acks went on, and at the end holds clients, API, MongoDB and Redis against each other
(stores_check.py). What MongoDB refuses is looked for in quarantine, document by document.
"""
import asyncio
import random
import signal
import sys
import threading
import time

from bson import Binary

import wire as wires
from client import Chat, Rest, new_id, token_for, user
from harness import Failure, expect, run, same
from mongodb_traffic import (AWAY, RATE, THERE, Bench, Traffic, comes_back, fresh, goes_away,
                             lines, new_room, readiness, reads_all, say_all, settings, with_wire)
from server import ServerDied
from stores import send as send_signal
from stores_check import (backlog, check_mongo_room, event_id, metric, metrics, redis_records,
                          wait_drained, wait_metric, wait_stores, wait_until)
from wire_bson import decode

DOWN_SECONDS, DOWN_SECONDS_FULL = 10, 60
STALL_SECONDS = 10
KILLS, KILLS_FULL = 2, 6        # of each server
BACK_SECONDS_MAX = 5            # from MongoDB's return to the first batch
EXIT_DATA = 5
REFUSED, CONFLICT = 'MongoDB refused an event', 'another message is stored under this one'
OF_BENCH = {'room_id': {'$regex': '^bench-'}}


# The real servers, killed and stopped.


def stored_of_bench(stores):
    """room -> events in MongoDB; each room must be 1..n."""
    tops = {}
    for document in stores.mongo().events.find(OF_BENCH, {'room_id': 1, 'seq': 1, '_id': 0},
                                               batch_size=20_000):
        tops.setdefault(document['room_id'], []).append(document['seq'])
    for room, seqs in tops.items():
        same(sorted(seqs), list(range(1, len(seqs) + 1)), f'seqs of {room} in MongoDB')
    return tops


def away_at_20000_messages_a_second_loses_nothing(context):
    """Down while the rate goes on, back while it still goes on: all is in MongoDB afterwards."""
    stores = fresh(context)
    stores.need_ours()
    down = DOWN_SECONDS_FULL if context.args.full else DOWN_SECONDS
    server = context.start(config=settings(stores, sections={'journal': {'bytes_max': '4g'}},
                                           store_timeout='10s', store_connect='2s',
                                           flush_interval='5s'))
    with Traffic(server, stores, rooms=2, senders=1) as traffic:
        for number in range(20):
            user(server, f'bench-{number}').get('/v1/rooms')     # the first call makes the user
        bench = Bench(server, down + 5)
        context.cleanup(bench.end)
        wait_until(lambda: stores.mongo().events.count_documents(OF_BENCH) > RATE / 10, 20,
                   'messages of the benchmark in MongoDB')
        stores.kill_gateway()
        stores.kill_postgres()
        killed = time.monotonic()
        goes_away(server, traffic)
        time.sleep(max(0.0, down - (time.monotonic() - killed)))
        behind = backlog(server)['damso_journal_backlog_bytes']
        stores.start_postgres()
        stores.start_gateway()
        back = time.monotonic()
        before = metric(server, 'damso_persist_flushed_total')
        records = metric(server, 'damso_persist_batches_total')
        comes_back(server, BACK_SECONDS_MAX)
        wait_until(lambda: stored_since(server, before, records), BACK_SECONDS_MAX,
                   'the first batch after MongoDB came back')
        first = time.monotonic() - back
        expect(first <= BACK_SECONDS_MAX, f'the first batch came {first:.1f} s after the return')
        said = bench.result(down + 60)
        same([said[key] for key in ('lost', 'duplicated', 'reordered', 'gaps', 'errors')], [0] * 5,
             f'lost, duplicated, reordered, gaps, errors: {said}')
        traffic.check(drain_seconds=60 + 4 * down)
        took = time.monotonic() - back
        tops = stored_of_bench(stores)
        same(len(tops), 20, 'rooms of the benchmark in MongoDB')
        same(stores.mongo().events.count_documents({**OF_BENCH, 'kind': 1}), said['sent'],
             'messages of the benchmark in MongoDB')
        expect(said['sent'] >= 0.9 * RATE * (down + 5), f'{said["sent"]} sent: {RATE} a second?')
        room = min(tops)
        same(len(user(server, 'bench-0').history(room)), len(tops[room]), f'history of {room}')
        context.note(f'{said["sent"]} messages, {behind / 1e6:.0f} MB behind after {down} s, first '
                     f'batch after {first:.1f} s, all of it {took:.1f} s after the return, ack p99 '
                     f'{said["ack_p99_ms"]:.0f} ms')


def stored_since(server, flushed, batches):
    found = metrics(server)
    return (found['damso_persist_flushed_total'] > flushed
            or found['damso_persist_batches_total'] > batches)


def stopped_for_ten_seconds_and_going_on_loses_nothing(context):
    stores = fresh(context)
    stores.need_ours()
    server = context.start(config=settings(stores))
    with Traffic(server, stores) as traffic:
        for round_, name in enumerate(('postgres', 'mongodb'), 1):
            stores.stall(name, STALL_SECONDS)
            stalled = time.monotonic()
            goes_away(server, traffic)
            while time.monotonic() < stalled + STALL_SECONDS - 1:
                traffic.goes_on(1)
            same(metric(server, 'damso_mongodb_up'), 0, f'MongoDB, {name} still stopped')
            comes_back(server)
            same((len(lines(server, AWAY)), len(lines(server, THERE))), (round_, round_ + 1),
                 'lines that say that MongoDB is away and there')
        traffic.check()
        context.note(f'{traffic.acked()} acked')


def killed_in_the_middle_of_bulks_loses_nothing(context):
    """The wire knows when a bulk is at the server: the server is stopped a moment later, and if
    the bulk had no answer by then, killed as it lies there."""
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire, flush_interval='400ms'))
    rng, counted, tries = random.Random(context.args.seed), {'postgres': 0, 'mongodb': 0}, 0
    wanted = KILLS_FULL if context.args.full else KILLS
    context.note(f'seed {context.args.seed}')
    with Traffic(server, stores, pause=0.005) as traffic:
        for name in ('postgres', 'mongodb'):
            while counted[name] < wanted:
                tries += 1
                expect(tries < 8 * wanted, f'only {counted} kills in {tries} tries hit a bulk')
                counted[name] += kill_in_bulk(stores, wire, name, rng)
                comes_back(server, 20)
        traffic.check()
        context.note(f'kills in a bulk: {counted} of {tries} tries; {traffic.acked()} acked')


def kill_in_bulk(stores, wire, name, rng):
    """True if a bulk was without an answer at the kill."""
    begun, answered = threading.Event(), threading.Event()

    def watched(exchange):
        begun.set()
        reply = exchange.proceed()
        answered.set()
        return reply

    pids = stores.status()['servers'][name]['pids']
    rule = wire.on('insert', watched, collection='events', nth=1)
    try:
        expect(begun.wait(20), 'no bulk came')
        time.sleep(rng.uniform(0, 0.006))
        send_signal(pids, signal.SIGSTOP)
        time.sleep(0.02)                    # what was on its way has arrived
        in_bulk = not answered.is_set()
        stores.kill(name)
        stores.revive(name)
    finally:
        wire.remove(rule)
    return in_bulk


# The wire: lost replies, errors, nonsense.


def join_all(server, rooms):
    """A new member in every room: writes to events, members and rooms."""
    rest = user(server)
    for room in rooms:
        answer = rest.post(f'/v1/rooms/{room}/join')
        expect(answer.status == 200, f'join of {room}: {answer}')
    rest.close()


def replies_lost_around_a_write_store_everything_once(context):
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire))
    retries = 0
    with Traffic(server, stores) as traffic:
        for command, collection, times, action in LOST:
            rule = wire.on(command, action, collection=collection, times=times)
            if command == 'update':
                join_all(server, traffic.rooms)
            rule.wait_hits(times, 30)
            wire.remove(rule)
            found = wait_metric(server, 'damso_persist_retries_total', lambda v: v > retries, 10)
            retries = found
            comes_back(server)
        traffic.goes_on()
        traffic.check()
    compared = [s for s in wire.seen('find', 'events') if b'$in' in (s.body or b'')]
    expect(compared, 'nobody asked whose the documents are that were there already')
    context.note(f'{traffic.acked()} acked, {retries:.0f} retries, {len(compared)} comparisons')


LOST = [(*where, action) for where in (('insert', 'events', 3), ('update', 'members', 1))
        for action in (wires.apply_then_drop(), wires.half_then_drop(1), wires.drop_before())]


def errors_for_a_while_are_tried_again_until_they_end(context):
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire))
    with Traffic(server, stores) as traffic:
        for round_, (code, name, text) in enumerate(ERRORS, 1):
            rule = (wire.on('insert', wires.write_concern_error(), collection='events')
                    if code == 64 else
                    wire.on(('insert', 'update', 'find'), wires.error(code, name)))
            rule.wait_hits(2, 20)
            goes_away(server, traffic)
            wire.remove(rule)
            comes_back(server)
            told = lines(server, AWAY)
            same((len(told), len(lines(server, THERE))), (round_, round_ + 1),
                 f'{code}: lines that say that MongoDB is away and there')
            # Of a lost primary the driver may have found out by itself before.
            wanted = (f'code {code}', text) if text else ('MongoDB at',)
            expect(all(words in told[-1] for words in wanted), f'{code}: {told[-1]}')
        same(metric(server, 'damso_persist_quarantined_total'), 0, 'quarantined by such errors')
        traffic.check()
        context.note(f'{traffic.acked()} acked')


ERRORS = ((10107, 'NotWritablePrimary', ''), (189, 'PrimarySteppedDown', ''),
          (11600, 'InterruptedAtShutdown', ''), (91, 'ShutdownInProgress', ''),
          (64, 'WriteConcernFailed', 'waiting for replication timed out'),
          (13, 'Unauthorized', 'dbOwner'), (18, 'AuthenticationFailed', '[persist] mongodb_uri'))


def no_primary_for_a_while_is_waited_for(context):
    stores, wire = with_wire(context)
    wire.be_primary('rs')
    server = context.start(config=settings(stores, wire, options='replicaSet=rs'))
    with Traffic(server, stores) as traffic:
        for _ in range(2):
            wire.be_secondary('rs')
            rule = wire.on(('insert', 'update', 'find'),
                           wires.error(10107, 'NotWritablePrimary'))
            rule.wait_hits(1, 20)
            goes_away(server, traffic)
            before = wire.documents['insert']
            time.sleep(2)
            same(wire.documents['insert'] - before, 0, 'documents given to a secondary')
            wire.be_primary('rs')
            wire.remove(rule)
            comes_back(server)
        traffic.check()
        told = lines(server, AWAY)
        same(len(told), 2, f'lines that say that MongoDB is away: {told}')


def answers_that_make_no_sense_lose_nothing(context):
    """Of the wrong type, empty, with counts that cannot be, cut off, random."""
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire))
    with Traffic(server, stores) as traffic:
        for what, action in NONSENSE:
            rule = wire.on('insert', action, collection='events', times=2)
            rule.wait_hits(2, 30)
            wire.remove(rule)
            comes_back(server, 20)
            traffic.goes_on(0.1)
        for action in (wires.reply({'ok': 1.0, 'cursor': 5}), wires.reply({'ok': 1.0}), GARBAGE):
            rule = wire.on('find', action, collection='events', times=2)
            lost = wire.on('insert', wires.apply_then_drop(), collection='events', times=1)
            rule.wait_hits(2, 30)
            wire.remove(rule)
            wire.remove(lost)
            comes_back(server, 20)
        same(metric(server, 'damso_persist_quarantined_total'), 0, 'quarantined by nonsense')
        traffic.check()
        context.note(f'{len(NONSENSE)} kinds, {traffic.acked()} acked, '
                     f'{metric(server, "damso_persist_retries_total"):.0f} retries')


def altered(place, data):
    """Any answer, with these bytes at that place of the message."""
    def act(exchange):
        message = bytearray(exchange.request.reply({'ok': 1.0, 'n': 1, 'text': 'x' * 40}))
        message[place:place + len(data)] = data
        return bytes(message)
    return act


# A document of the right length with nonsense in it. (A wrong length of the document within the
# message is not tried: libmongoc 1.23.1 reads beyond the message's end then, see docs/MONGODB.md.)
GARBAGE = altered(26, random.Random(5).randbytes(40))


NONSENSE = (
    ('nothing', wires.reply({})), ('ok of a wrong type', wires.reply({'ok': 'yes', 'n': 1})),
    ('no count', wires.reply({'ok': 1.0})), ('nothing inserted', wires.reply({'ok': 1.0, 'n': 0})),
    ('a count that is text', wires.reply({'ok': 1.0, 'n': 'all'})),
    ('errors that are no list', wires.reply({'ok': 1.0, 'n': 0, 'writeErrors': 'none'})),
    ('errors that are no documents', wires.reply({'ok': 1.0, 'n': 0, 'writeErrors': [5, 'x']})),
    ('an error of no document', wires.reply({'ok': 1.0, 'n': 0, 'writeErrors': [
        {'index': 99_999, 'code': 11000, 'errmsg': 'E11000'}, {'index': -1, 'code': 121}]})),
    ('errors without index and code', wires.reply({'ok': 1.0, 'n': 0, 'writeErrors': [{}]})),
    ('random bytes', GARBAGE), ('another opcode', altered(12, b'\x07\x00\x00\x00')),
    ('a longer length', altered(0, b'\x00\x10\x00\x00')),
    ('a length of two gigabytes', altered(0, b'\xff\xff\xff\x7f')),
    ('a negative length', altered(0, b'\xf0\xff\xff\xff')))


# Documents that are refused.


def wants(room, seq):
    """Whether a document, or a request with it, is the one."""
    def fits(document):
        return document.get('room_id') == room and document.get('seq') == seq
    return fits, lambda request: any(fits(decode(item)) for item in request.items())


def refused_document(context, rules, code, reason):
    """One message of a room is refused by MongoDB's own word: it alone is set aside, and is read
    like the others, also by a server that has nothing in memory."""
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire, flush_interval='300ms'))
    room, other = new_id('room'), new_id('room')
    for name in (room, other):
        user(server, 'speaker').make_room(name)
    added = [wire.on('insert', action, collection='events', **which)
             for action, which in rules(*wants(room, 7))]
    said, others = say_all(server, room, 20), say_all(server, other, 20)
    wait_metric(server, 'damso_persist_quarantined_total', lambda v: v == 1, 10)
    wait_drained(server, stores, 20)
    expect(all(rule.hits > 0 for rule in added), f'the rules hit {[r.hits for r in added]} times')
    events = stores.mongo().events
    same(sorted(d['seq'] for d in events.find({'room_id': room})),
         [seq for seq in range(1, 22) if seq != 7], 'seqs stored')
    check_mongo_room(stores, other)
    aside = list(stores.mongo().quarantine.find())
    same([(d['room_id'], d['seq'], d['reason']) for d in aside], [(room, 7, reason)], 'quarantine')
    expect(said[5][1].encode() in aside[0]['record'], f'the record set aside: {aside[0]}')
    told = lines(server, REFUSED)
    expect(len(told) == 1 and f'room_id={room}' in told[0] and 'seq=7' in told[0]
           and f'code={code}' in told[0] and 'in quarantine' in told[0], f'alarm: {told}')
    same(readiness(server), (200, 'ready'), 'GET /readyz: nothing is stuck')
    reads_all(server, room, said)
    same(server.stop(), 0, 'exit code')
    server.start()
    wait_stores(server, mongodb=True)
    reads_all(server, room, said)
    reads_all(server, other, others)
    say_all(server, room, 3)
    wait_drained(server, stores, 20)
    same(events.count_documents({'room_id': room}), 23, 'stored after more was said')


def document_refused_by_validation_alone_is_set_aside(context):
    def rules(fits, _holds):
        says = {'code': 121, 'errmsg': 'Document failed validation', 'errInfo': {'details': {}}}
        return [(wires.write_errors(lambda document: says if fits(document) else None), {})]
    refused_document(context, rules, 121, 'invalid')


def document_that_is_too_large_alone_is_set_aside(context):
    def rules(fits, _holds):
        says = {'code': 17280, 'errmsg': 'key too large to index'}
        return [(wires.write_errors(lambda document: says if fits(document) else None), {})]
    refused_document(context, rules, 17280, 'too large')


def bulk_refused_for_one_document_loses_that_one_alone(context):
    """10334 is said of the whole command; who sends halves finds the one."""
    def rules(_fits, holds):
        return [(wires.error(10334, 'BSONObjectTooLarge', 'object to insert too large'),
                 {'when': holds})]
    refused_document(context, rules, 10334, 'too large')


def document_that_quarantine_refuses_too_stays_in_the_journal(context):
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire, flush_interval='300ms'))
    room = new_id('room')
    user(server, 'speaker').make_room(room)
    fits, _ = wants(room, 7)
    says = {'code': 121, 'errmsg': 'Document failed validation'}
    first = wire.on('insert', wires.write_errors(lambda d: says if fits(d) else None),
                    collection='events')
    second = wire.on('insert', wires.write_errors(lambda d: says), collection='quarantine')
    said = say_all(server, room, 20)
    second.wait_hits(1)
    events = stores.mongo().events
    wait_until(lambda: events.count_documents({'room_id': room}) == 20, 10, '20 of 21 stored')
    wait_until(lambda: readiness(server) == (200, 'degraded'), 5, 'GET /readyz says degraded')
    said += say_all(server, room, 5)
    wait_until(lambda: events.count_documents({'room_id': room}) == 25, 10, '25 of 26 stored')
    time.sleep(1)
    expect(backlog(server).get('damso_journal_backlog_bytes', 0) > 0,
           'the journal freed what nobody has')
    same(stores.mongo().quarantine.count_documents({}), 0, 'documents in quarantine')
    told = lines(server, REFUSED, 'in the journal only', f'room_id={room}', 'seq=7')
    expect(told, f'no alarm in {server.said()}')
    reads_all(server, room, said)
    expect(first.hits and second.hits, 'a rule never hit')
    wire.clear()
    same(server.stop(25), 0, 'exit code')
    server.start()
    wait_drained(server, stores, 20)
    check_mongo_room(stores, room)
    same(events.count_documents({'room_id': room}), 26, 'stored after a restart')
    same(readiness(server), (200, 'ready'), 'GET /readyz after a restart')
    reads_all(server, room, said)


def another_message_in_the_place_of_ours_raises_an_alarm(context):
    """Somebody else's document under our _id: ours is kept in quarantine and in the journal."""
    stores = fresh(context)
    server = context.start(config=settings(stores, flush_interval='300ms'))
    room = new_id('room')
    user(server, 'speaker').make_room(room)
    said = say_all(server, room, 1)
    events = stores.mongo().events
    own = wait_until(lambda: events.find_one({'room_id': room}), 10, 'the first event of the room')
    foreign = {**own, 'seq': 7, 'mid': 12345,
               '_id': Binary(event_id(room, 7)), 'body': '{"type":"message","text":"foreign"}'}
    events.insert_one(foreign)
    said += say_all(server, room, 19)
    wait_until(lambda: events.count_documents({'room_id': room}) == 21, 10, 'the others stored')
    wait_metric(server, 'damso_persist_quarantined_total', lambda v: v == 1, 10)
    for starts in (1, 2):
        aside = list(stores.mongo().quarantine.find())
        same([(d['room_id'], d['seq'], d['reason']) for d in aside], [(room, 7, 'conflict')],
             f'quarantine, start {starts}')
        expect(said[5][1].encode() in aside[0]['record'], f'the record set aside: {aside[0]}')
        same(events.find_one({'_id': foreign['_id']}), {**foreign, '_id': event_id(room, 7)},
             'the foreign document')
        told = wait_until(lambda: lines(server, CONFLICT, f'room_id={room}', 'seq=7'), 10,
                          'an alarm')
        same(len(told), 1, 'alarms')
        wait_until(lambda: readiness(server) == (200, 'degraded'), 5, 'GET /readyz says degraded')
        expect(backlog(server), 'the journal of a conflict was freed')
        if starts == 1:
            reads_all(server, room, said)       # memory has ours
            same(server.stop(25), 0, 'exit code')
            server.start()
    said = say_all(server, room, 3)
    wait_until(lambda: events.count_documents({'room_id': room}) == 24, 10,
               'what is said after the conflict is stored')


# Slow, and away: what users see.


def slow_server_keeps_no_reader_waiting_for_writes(context):
    """Every command takes 300 ms, and then inserts hang: pages come all the same."""
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire, store_timeout='30s',
                                           sections={'rooms': {'log_bytes': '128k'}}))
    old = new_id('room')
    deep_room(server, stores, old)
    reader = user(server, 'reader')
    with Traffic(server, stores, rooms=2) as traffic:
        timed(reader, old, 'limit=1')            # the first call makes the user
        slow = wire.on(None, wires.delay(0.3))
        slow.wait_hits(3)
        memory = [timed(reader, traffic.rooms[0], 'limit=50') for _ in range(10)]
        stored = [timed(reader, old, f'limit=50&order=asc&after_seq={n * 50}') for n in range(4)]
        wire.remove(slow)
        held = wires.stall(before=True)
        rule = wire.on('insert', held, collection='events')
        rule.wait_hits(1, 20)
        say_all(server, new_room(server), 1, 'maker')
        rule.wait_hits(2, 20)                    # both flushers
        hung = [timed(reader, old, f'limit=40&order=asc&after_seq={n * 40}') for n in range(8)]
        own = [timed(reader, room, 'limit=50') for room in traffic.rooms]
        expect(rule.hits >= 2 and not held.released.is_set(), 'the inserts did not hang')
        traffic.goes_on()
        wire.remove(rule)
        held.release()
        expect(max(memory) < 0.25, f'pages in memory took up to {memory} s')
        expect(max(stored) < 6 * 0.3, f'stored pages took up to {max(stored):.3f} s')
        expect(min(stored) > 0.3, f'stored pages took {min(stored):.3f} s: not out of MongoDB')
        expect(max(hung + own) < 1, f'beside hanging inserts: {max(hung + own):.3f} s')
        traffic.check()
    context.note(f'slow by 300 ms a command: memory {max(memory) * 1e3:.0f} ms, stored '
                 f'{max(stored) * 1e3:.0f} ms at most; inserts hang: {max(hung) * 1e3:.0f} ms')


def deep_room(server, stores, room, count=1000):
    """More than memory holds of one room, all of it in MongoDB: the texts."""
    user(server, 'speaker').make_room(room)
    asyncio.run(fill(server, room, count))
    if stores:
        wait_drained(server, stores, 30)


async def fill(server, room, count, text='text'):
    chat = await Chat.open(server, token_for(server, 'speaker'))
    await chat.follow(room)
    await chat.say_many(room, count, lambda n: f'{text} {n} '.ljust(500, 'x'))
    await chat.close()


def timed(rest, room, query):
    began = time.monotonic()
    answer = rest.get(f'/v1/rooms/{room}/messages?{query}')
    expect(answer.status == 200 and answer.json()['events'], f'{room} {query}: {answer}')
    return time.monotonic() - began


def history_without_mongodb_is_right_or_unavailable(context):
    """What memory and Redis have is served, older pages are refused, none is wrong."""
    stores = fresh(context)
    stores.need_ours()
    server = context.start(config=settings(stores, sections={'rooms': {'log_bytes': '128k'}}))
    room = new_id('room')
    deep_room(server, stores, room)
    reader = user(server, 'reader')
    truth = {event['seq']: event for event in reader.history(room)}
    stores.kill_gateway()
    asyncio.run(fill(server, room, 600, 'later'))
    wait_stores(server, mongodb=False)
    wait_until(lambda: redis_records(stores) >= 600, 10, 'all of it in Redis')
    top, pages, refused = 1 + 1000 + 600, [], []
    for before in range(top + 1, 1, -50):
        answer = reader.get(f'/v1/rooms/{room}/messages?limit=50&before_seq={before}')
        if answer.status == 200:
            seqs = [event['seq'] for event in answer.json()['events']]
            same(seqs, list(range(before - 1, max(before - 51, 0), -1)), f'page before {before}')
            expect(all(truth.setdefault(e['seq'], e) == e for e in answer.json()['events']),
                   f'page before {before} is not what it was')
            pages.append(before)
        else:
            same((answer.status, answer.code()), (503, 'unavailable'), f'page before {before}')
            refused.append(before)
    expect(min(pages) <= 1002 + 50, f'pages of Redis were refused: served only from {min(pages)}')
    expect(len(refused) >= 10, f'only {refused} were refused: they were not in MongoDB alone')
    stores.start_gateway()
    comes_back(server)
    wait_drained(server, stores, 30)
    events = reader.history(room)
    same([e['seq'] for e in events], list(range(1, top + 1)), 'history afterwards')
    expect(all(truth[e['seq']] == e for e in events if e['seq'] in truth), 'another history')
    context.note(f'{len(pages)} pages served, {len(refused)} refused')


def accounts_and_rooms_are_unavailable_while_mongodb_is_and_work_after(context):
    stores = fresh(context)
    stores.need_ours()
    server = context.start(config=settings(stores))
    rest, room, cold = user(server, 'maker'), new_id('room'), new_id('room')
    for name in (room, cold):
        rest.make_room(name)
    known, unknown = new_id('u')[:20], new_id('u')[:20]
    same(account(server, 'register', known).status, 201, 'register before')
    wait_drained(server, stores, 20)
    same(server.stop(), 0, 'exit code')     # so that no room is in memory
    server.start()
    wait_stores(server, redis=True, mongodb=True)
    rest = user(server, 'maker')
    say_all(server, room, 1, 'maker')       # which brings the room into memory
    stores.kill_gateway()
    say_all(server, room, 1, 'maker')       # so that damsod has something to find out with
    wait_stores(server, mongodb=False)
    for what, answer in (
            ('room', rest.post('/v1/rooms', {'room_id': 'new-room', 'name': 'n',
                                             'visibility': 'public'})),
            ('cold room', rest.post(f'/v1/rooms/{cold}/join')),
            ('register', account(server, 'register', unknown)),
            ('login', account(server, 'login', known)),
            ('login, wrong', account(server, 'login', known, 'not the password'))):
        same((answer.status, answer.code()), (503, 'unavailable'), f'{what} without MongoDB')
    newcomer = user(server, 'newcomer')
    joins = [newcomer.post(f'/v1/rooms/{room}/{word}').status for word in
             ('join', 'leave', 'join')]
    expect(set(joins) <= {200, 204, 503}, f'join, leave, join in a room that is loaded: {joins}')
    stores.start_gateway()
    comes_back(server)
    same(rest.post('/v1/rooms', {'room_id': 'new-room', 'name': 'n',
                                 'visibility': 'public'}).status, 201, 'room afterwards')
    same(rest.post(f'/v1/rooms/{cold}/join').status, 200, 'join afterwards')
    same(account(server, 'login', known).status, 200, 'login afterwards')
    same(account(server, 'login', known, 'not the password').status, 401, 'wrong password')
    no_half_account(server, unknown)
    wait_drained(server, stores, 20)
    member = stores.mongo().members.find_one({'_id': f'{room}/newcomer'})
    same(bool(member and member['role']), joins[2] != 503, 'the newcomer is a member')
    context.note(f'join, leave, join meanwhile: {joins}')


def account(server, what, name, password='a good password'):
    rest = Rest(server, seconds=40)
    try:
        return rest.post(f'/v1/auth/{what}', {'username': name, 'password': password})
    finally:
        rest.close()


def no_half_account(server, name):
    """Registered again: made now or there already, never between; and the password is good."""
    again = account(server, 'register', name).status
    expect(again in (201, 409), f'register {name} again: {again}')
    same(account(server, 'login', name).status, 200, f'login of {name} after {again}')
    same(account(server, 'register', name).status, 409, f'register {name} once more')
    return again


def registration_that_got_no_answer_is_whole_or_not_there(context):
    stores, wire = with_wire(context)
    server = context.start(config=settings(stores, wire))
    outcomes = []
    for action in (wires.apply_then_drop(), wires.drop_before(), wires.write_concern_error(),
                   wires.error(189, 'PrimarySteppedDown')):
        name = new_id('u')[:20]
        rule = wire.on('insert', action, collection='users')
        answer = account(server, 'register', name)
        same((answer.status, answer.code()), (503, 'unavailable'), 'register')
        expect(rule.hits > 0, 'no user was inserted')
        wire.remove(rule)
        outcomes.append(no_half_account(server, name))
        same(stores.mongo().users.count_documents({'username': name}), 1, 'accounts of that name')
    room = new_id('room')
    rule = wire.on('insert', wires.apply_then_drop(), collection='rooms')
    maker = user(server, 'maker')
    answer = maker.post('/v1/rooms', {'room_id': room, 'name': 'n', 'visibility': 'public'})
    expect(rule.hits > 0 or answer.status == 201, f'no room was inserted: {answer}')
    wire.remove(rule)
    again = maker.post('/v1/rooms', {'room_id': room, 'name': 'n', 'visibility': 'public'})
    expect(again.status in (201, 409), f'the room again: {again}')
    said = say_all(server, room, 3, 'maker')
    reads_all(server, room, said)
    wait_drained(server, stores, 20)
    check_mongo_room(stores, room)
    context.note(f'registered again: {outcomes}, room {answer.status} then {again.status}')


def first_calls_of_a_new_user_at_the_same_time_are_all_answered(context):
    """Two readers, one new user: who loses the race finds what the other one has made."""
    stores = fresh(context)
    server = context.start(config=settings(stores))
    for _ in range(10):
        who, answers = new_id('u'), []
        threads = [threading.Thread(target=lambda w=who, a=answers: a.append(
            user(server, w).get('/v1/rooms').status)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        same(answers, [200] * 6, f'first calls of {who}')
        same(stores.mongo().users.count_documents({'_id': who}), 1, f'accounts of {who}')


# Starts.


def start_without(context, config, *texts, secret=None, prepare=None):
    """Starts and serves, with one line that holds the texts; with require_stores it ends instead,
    with the same words. The running server is returned."""
    strict = {**config, 'persist': {**config['persist'], 'require_stores': 'on'}}
    refused = context.server(config=strict)
    try:
        refused.start(25)
        raise Failure('it started, though require_stores is on')
    except ServerDied:
        pass
    same(refused.process.returncode, EXIT_DATA, f'exit code; {refused.said()}')
    server = context.start(config=config)
    told = wait_until(lambda: lines(server, AWAY), 15, 'a line that says that MongoDB is away')
    same(len(told), 1, 'lines that say so')
    same(readiness(server), (200, 'degraded'), 'GET /readyz')
    same(metric(server, 'damso_mongodb_up'), 0, 'damso_mongodb_up')
    for which, text in ((server, told[0]), (refused, refused.said(20_000))):
        for wanted in texts:
            expect(wanted in text, f'no {wanted!r} in {text!r}')
        everything = which.stderr.read_text() + which.stdout.read_text()
        expect(not secret or secret not in everything, f'the secret is in {everything}')
        expect('.c:' not in text and ' at 0x' not in text, f'a stack: {text!r}')
    expect('require_stores' in refused.said(20_000), f'no require_stores in {refused.said()}')
    return server


def works(server, stores):
    """After the mend: rooms and messages, all the way."""
    comes_back(server, 20)
    room = new_id('room')
    wait_until(lambda: user(server, 'maker').post(
        '/v1/rooms', {'room_id': room, 'name': 'n', 'visibility': 'public'}).status == 201, 10,
        'a room is made')
    said = say_all(server, room, 5, 'maker')
    wait_drained(server, stores, 20)
    check_mongo_room(stores, room)
    reads_all(server, room, said)


def wrong_password_is_told_without_it(context):
    stores, wire = with_wire(context, users={'damso': 'the right one'})
    bad = settings(stores, wire)
    bad['persist']['mongodb_uri'] = f'mongodb://damso:wrongsecret1@{wire.address}/{stores.database}'
    start_without(context, bad, 'mongodb_uri', 'user, password', secret='wrongsecret1')
    good = settings(stores, wire)
    good['persist']['mongodb_uri'] = (f'mongodb://damso:the%20right%20one@{wire.address}/'
                                      f'{stores.database}')
    works(context.start(config=good), stores)


def database_without_rights_is_told_with_the_role_that_has_them(context):
    stores, wire = with_wire(context)
    for command in ('create', 'createIndexes'):
        rule = wire.on(command, wires.error(13, 'Unauthorized', 'not authorized on x to execute'))
        server = start_without(context, settings(stores, wire), 'mongodb_uri', 'dbOwner', 'code 13')
        expect(rule.hits > 1, f'{command} was asked {rule.hits} times')
        wire.remove(rule)
        works(server, stores)
        server.kill()
        stores.fresh_namespace()


def schema_of_another_version_is_refused_and_left_alone(context):
    stores = fresh(context)
    stores.mongo().meta.insert_one({'_id': 'schema', 'version': 99})
    server = start_without(context, settings(stores), 'schema 99', 'mongodb_uri', 'schema 1')
    same(stores.mongo().list_collection_names(), ['meta'], 'collections in a foreign database')
    same(stores.mongo().meta.find_one(), {'_id': 'schema', 'version': 99}, 'its version')
    stores.mongo().meta.delete_one({'_id': 'schema'})
    works(server, stores)


def collections_of_another_program_are_left_alone(context):
    stores = fresh(context)
    stores.mongo().users.insert_one({'_id': 1, 'whose': 'not ours'})
    start_without(context, settings(stores), 'mongodb_uri', 'another program')
    same(stores.mongo().list_collection_names(), ['users'], 'collections in a foreign database')


def tls_takes_the_right_authority_and_no_other(context):
    here, there = context.directory(), context.directory()
    right, wrong = wires.make_certificates(here), wires.make_certificates(there)
    stores, wire = with_wire(context, tls=right.context())
    start_without(context, settings(stores, wire, options=f'tls=true&tlsCAFile={wrong.ca}'),
                  wire.address).kill()
    expect(wire.tls_failures, 'no handshake failed')
    start_without(context, settings(stores, wire), wire.address).kill()     # without TLS
    options = f'tls=true&tlsCAFile={right.ca}'
    works(context.start(config=settings(stores, wire, options=options)), stores)


QUICK = [replies_lost_around_a_write_store_everything_once,
         document_refused_by_validation_alone_is_set_aside]
ALL = [replies_lost_around_a_write_store_everything_once,
       errors_for_a_while_are_tried_again_until_they_end,
       no_primary_for_a_while_is_waited_for,
       answers_that_make_no_sense_lose_nothing,
       document_refused_by_validation_alone_is_set_aside,
       document_that_is_too_large_alone_is_set_aside,
       bulk_refused_for_one_document_loses_that_one_alone,
       document_that_quarantine_refuses_too_stays_in_the_journal,
       another_message_in_the_place_of_ours_raises_an_alarm,
       slow_server_keeps_no_reader_waiting_for_writes,
       history_without_mongodb_is_right_or_unavailable,
       accounts_and_rooms_are_unavailable_while_mongodb_is_and_work_after,
       registration_that_got_no_answer_is_whole_or_not_there,
       first_calls_of_a_new_user_at_the_same_time_are_all_answered,
       wrong_password_is_told_without_it,
       database_without_rights_is_told_with_the_role_that_has_them,
       schema_of_another_version_is_refused_and_left_alone,
       collections_of_another_program_are_left_alone,
       tls_takes_the_right_authority_and_no_other,
       killed_in_the_middle_of_bulks_loses_nothing,
       stopped_for_ten_seconds_and_going_on_loses_nothing,
       away_at_20000_messages_a_second_loses_nothing]

if __name__ == '__main__':
    run(QUICK if '--quick' in sys.argv else ALL, seconds=900, seconds_quick=120, arguments={
        '--full': {'action': 'store_true',
                   'help': f'MongoDB is down for {DOWN_SECONDS_FULL} s, and killed more often'},
        '--seed': {'type': int, 'default': random.SystemRandom().randrange(1 << 31),
                   'help': 'repeats the moments of the kills'}})
