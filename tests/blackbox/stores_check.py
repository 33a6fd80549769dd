"""Whether damsod, Redis and MongoDB together kept what was acknowledged: for all tests that run
with persist.mode = redis+mongodb.

    book = Book()                              # what clients saw; a load.Record that keeps texts
    sender = BookSender(book, 'sender0', rooms, keyed=0.5, rng=rng)      # or by hand:
    book.acked('room', 'user', 'mid', 7, text='mid hello', key='k')
    book.unanswered('room', 'user', 'mid2', text='mid2 hello')
    ...
    check_everything(server, stores, book, rooms, reader='receiver0')

A message's first word is its mid, chosen by the sender, as in load.py. The checker's nine rules
decide over what clients saw and what the API says at the end; here the API is held against itself
(forward and backward pages), and MongoDB, read without damsod, against the API: every event once,
1..n without a hole, the same bodies, members as the events say, an empty quarantine, and nothing
of ours left in Redis. Everything is bounded in time; what does not hold raises Failure.
"""
import collections
import json
import pathlib
import random
import re
import time
import urllib.parse

import pymongo

from checker import Fail, Info, Invoke, Ok, check, summary
from client import Rest, token_for
from harness import Failure, expect, same
from load import Record, Sender, mid_of

POLL_SECONDS = 0.02
PAGE = 200
DRAIN_SECONDS_MAX = 60.0
PATIENCE_SECONDS = 15.0
SHOWN_MAX = 5
KINDS = {1: 'message', 2: 'member', 3: 'member'}    # core/record.h; what the API calls them
RECORD_JOINED, RECORD_LEFT, ROLE_OWNER = 2, 3, 3
# What may stand in Redis for as long as it likes: the fence, which expires after a week.
LASTING_KEY = re.compile(rb':owner$')
BACKLOG = ('damso_journal_backlog_bytes', 'damso_persist_pending_messages',
           'damso_persist_pending_bytes')


# What clients saw.


class Book(Record):
    """A Record that also knows texts and keys, so that bodies and resends can be checked."""

    def __init__(self):
        super().__init__()
        self.texts = {}                 # mid -> (room, user, text, key or None)
        self.by_hand = set()            # mids of invoked()

    def invoked(self, room, user, mid, text=None, key=None):
        """A send left; acked(), unanswered() or refused() comes later."""
        if text is not None:
            self.texts[mid] = (room, user, text, key)
        self.by_hand.add(mid)
        self.add(Invoke(mid, room, user, time.monotonic()))

    def acked(self, room, user, mid, seq, text=None, key=None):
        """A whole send at once, or the answer to one that was invoked()."""
        self.ensure_invoked(room, user, mid, text, key)
        self.add(Ok(mid, seq, time.monotonic()))

    def unanswered(self, room, user, mid, text=None, key=None):
        """It may be in the log or not."""
        self.ensure_invoked(room, user, mid, text, key)
        self.add(Info(mid))

    def refused(self, room, user, mid, text=None, key=None):
        """A typed error came: it must not be in the log."""
        self.ensure_invoked(room, user, mid, text, key)
        self.add(Fail(mid))

    def ensure_invoked(self, room, user, mid, text, key):
        if mid not in self.by_hand:
            self.invoked(room, user, mid, text, key)

    def acks(self):
        """mid -> seq of all that was acknowledged."""
        return {event.mid: event.seq for event in self.events if isinstance(event, Ok)}

    def of_rooms(self, rooms):
        """The part of the book that is about these rooms, for a check of those alone."""
        rooms, part = set(rooms), Book()
        mids = {e.mid for e in self.events if isinstance(e, Invoke) and e.room in rooms}
        part.events = [e for e in self.events
                       if (e.room in rooms if hasattr(e, 'room') else e.mid in mids)]
        part.texts = {mid: told for mid, told in self.texts.items() if told[0] in rooms}
        return part


class BookSender(Sender):
    """A load.Sender whose texts and keys go into the Book."""

    async def send(self, socket, mid):
        room, text, key = self.pending[mid]
        self.record.texts[mid] = (room, self.name, text, key)
        await super().send(socket, mid)


# Waiting, and what damsod says of itself.


def wait_until(fact, seconds, what):
    """Polls until fact() is true and returns what it gave; Failure with `what` (a text, or a
    function that makes it) at the bound."""
    deadline = time.monotonic() + seconds
    while True:
        got = fact()
        if got:
            return got
        if time.monotonic() > deadline:
            raise Failure(f'{what() if callable(what) else what}, not within {seconds} s')
        time.sleep(POLL_SECONDS)


def metrics(server):
    """name, with its labels as in /metrics -> value."""
    rest = Rest(server)
    try:
        answer = rest.get('/metrics')
        same(answer.status, 200, 'GET /metrics')
        return parse_metrics(answer.body.decode())
    finally:
        rest.close()


def parse_metrics(text):
    lines = (line.rpartition(' ') for line in text.splitlines() if line and line[0] != '#')
    return {name: float(value) for name, _, value in lines}


def metric(server, name):
    found = metrics(server)
    expect(name in found, f'{name} is not in /metrics')
    return found[name]


def wait_metric(server, name, fact, seconds, what=None):
    """Waits until fact(value) is true of a metric; returns the value."""
    value = [None]

    def look():
        value[0] = metric(server, name)
        return fact(value[0])

    wait_until(look, seconds, lambda: f'{what or name}: {name} is {value[0]}')
    return value[0]


def wait_stores(server, *, redis=None, mongodb=None, seconds=30):
    """Waits until damsod says of the stores what is wanted (True: up, False: away)."""
    for name, wanted in (('redis', redis), ('mongodb', mongodb)):
        if wanted is not None:
            wait_metric(server, f'damso_{name}_up', lambda v, w=wanted: v == float(w), seconds)


def generations(server):
    """Journals of earlier runs that MongoDB does not have yet, by name."""
    return sorted(p.name for p in pathlib.Path(server.data).glob('journal.[0-9]*'))


def backlog(server):
    """What is not in MongoDB yet: name -> figure, only what is not zero. Empty: drained."""
    found = metrics(server)
    left = {name: found[name] for name in BACKLOG if found[name] != 0}
    waiting = generations(server)
    return {**left, 'generations': len(waiting)} if waiting else left


def wait_drained(server, stores=None, seconds=DRAIN_SECONDS_MAX):
    """Waits until everything acknowledged is in MongoDB by damsod's own account, journals of
    earlier runs included, and with `stores` until no list of ours is in Redis. Returns seconds.
    Generations are dropped a moment after the watermark, which is why they are looked at too."""
    began, seen = time.monotonic(), [None]

    def look():
        seen[0] = backlog(server)
        if not seen[0] and stores is not None:
            keys = redis_lists(stores)
            seen[0] = {'keys': keys[:SHOWN_MAX]} if keys else {}
        return not seen[0]

    wait_until(look, seconds, lambda: f'drained; still there: {seen[0]}')
    return time.monotonic() - began


# The API.


def page(rest, room, **query):
    path = f'/v1/rooms/{room}/messages?{urllib.parse.urlencode(query)}'
    answer = rest.get(path)
    expect(answer.status == 200, f'GET {path}: {answer}')
    return answer.json()


def history_backward(rest, room, limit=PAGE, pages_max=10000):
    """Every event of a room, oldest first, read from the newest page to the oldest."""
    pages, query = [], {}
    for _ in range(pages_max):
        answer = page(rest, room, limit=limit, order='desc', **query)
        expect(len(answer['events']) <= limit, f'{len(answer["events"])} events, limit {limit}')
        pages.append(answer['events'])
        if answer['next_cursor'] is None:
            return [event for events in pages for event in events][::-1]
        expect(answer['events'] and answer['next_cursor'] == answer['events'][-1]['seq'],
               f'{room}: next_cursor {answer["next_cursor"]} is not the last seq of the page')
        query = {'before_seq': answer['next_cursor']}
    raise Failure(f'history of {room} did not end within {pages_max} pages')


def read_room(rest, room):
    """A room's events, pages forward and backward alike."""
    forward = rest.history(room, limit=PAGE)
    backward = history_backward(rest, room, limit=PAGE - 13)
    same_events(backward, forward, f'{room}: pages backward against pages forward')
    is_dense([event['seq'] for event in forward], f'the API, {room}')
    if forward:
        same(page(rest, room, limit=1)['last_seq'], forward[-1]['seq'], f'last_seq of {room}')
    return forward


def read_api(server, rooms, reader, patience=PATIENCE_SECONDS):
    """room -> events as the API shows them, to be called when nobody sends. A room that is
    refused with 503 (it is not known yet what Redis has of it) is asked again for so long."""
    rest, found = Rest(server, token_for(server, reader), seconds=60), {}
    deadline = time.monotonic() + patience
    try:
        for room in rooms:
            while room not in found:
                try:
                    found[room] = read_room(rest, room)
                except Failure as failure:
                    if ': 503 ' not in str(failure) or time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_SECONDS)
    finally:
        rest.close()
    return found


def is_dense(seqs, where):
    """1..n: no hole, nothing twice, in order."""
    if seqs == list(range(1, len(seqs) + 1)):
        return
    counts = collections.Counter(seqs)
    twice = [seq for seq, count in counts.items() if count > 1]
    missing = sorted(set(range(1, max(seqs, default=0) + 1)) - set(seqs))
    wrong = next((i for i, seq in enumerate(seqs, 1) if seq != i), 0)
    raise Failure(f'{where}: {len(seqs)} events up to seq {max(seqs, default=0)}, twice: '
                  f'{twice[:SHOWN_MAX]}, missing: {len(missing)} from {missing[:SHOWN_MAX]}, '
                  f'first wrong place: {wrong}')


def same_events(got, wanted, what):
    if got == wanted:
        return
    same(len(got), len(wanted), f'{what}: events')
    for one, other in zip(got, wanted):
        expect(one == other, f'{what}: {str(one)[:200]} instead of {str(other)[:200]}')


def same_texts(histories, book):
    """What stands in the log is byte for byte what its sender sent, by whom it sent it."""
    for room, events in histories.items():
        for event in events:
            told = book.texts.get(mid_of(event))
            if told is None:
                continue
            same((room, event['user_id'], event['text']), told[:3],
                 f'{room} {event["seq"]}: room, sender and text')


def check_clients(book, histories, members=(), last_fault=None, settle=30.0):
    """The checker's rules over what clients saw and these histories."""
    mids = {room: [(event['seq'], mid_of(event)) for event in events]
            for room, events in histories.items()}
    found = check(book.events, mids, members, last_fault, settle)
    expect(not found, summary(found))
    same_texts(histories, book)


def check_resends(server, book, *, count=50, seed=1):
    """Acked messages with a key, sent again under it: answered 200 with the same seq, and nothing
    new in the log. The latest are taken, whose keys the server must still know. Returns how many
    were sent, of which there must be at least one."""
    acks = book.acks()
    keyed = [mid for mid in acks if mid in book.texts and book.texts[mid][3] is not None]
    chosen = random.Random(seed).sample(keyed[-2000:], min(count, len(keyed)))
    expect(chosen, 'no acked message had a key: resends prove nothing')
    users = {}
    for mid in chosen:
        room, user, text, key = book.texts[mid]
        if user not in users:
            users[user] = Rest(server, token_for(server, user))
        answer = users[user].say(room, text, key)
        expect(answer.status == 200, f'{mid} sent again under its key: {answer}')
        same(answer.json()['seq'], acks[mid], f'seq of {mid}, sent again')
    for rest in users.values():
        rest.close()
    return len(chosen)


# MongoDB, without damsod.


def read_mongo(stores, room):
    """The room's documents in the order of their _id, which is that of seq."""
    return list(stores.mongo().events.find({'room_id': room}).sort('_id', pymongo.ASCENDING))


def event_id(room, seq):
    """The _id of an event: persist/store_mongo.h."""
    return room.encode() + seq.to_bytes(8, 'big')


def check_mongo_room(stores, room, events=None):
    """One room straight in MongoDB; with `events` (read_api) it holds exactly those. Returns the
    documents."""
    documents = read_mongo(stores, room)
    is_dense([document['seq'] for document in documents], f'MongoDB, {room}')
    mids = collections.Counter(document['mid'] for document in documents)
    expect(len(mids) == len(documents), f'MongoDB, {room}: a mid twice: {mids.most_common(2)}')
    for document in documents:
        body = json.loads(document['body'])
        same((bytes(document['_id']), body['seq'], body['room_id'], body['type']),
             (event_id(room, document['seq']), document['seq'], room, KINDS[document['kind']]),
             f'MongoDB, {room} {document["seq"]}: _id, seq, room and type of the body')
    if events is not None:
        same_events([json.loads(document['body']) for document in documents], events,
                    f'MongoDB, {room}, bodies against the API')
    return documents


def check_mongo_members(stores, room, documents):
    """Who is a member follows from the events: the last one of each user."""
    wanted = {}
    for document in documents:
        if document['kind'] in (RECORD_JOINED, RECORD_LEFT):
            wanted[document['user_id']] = (document['seq'], document['kind'] == RECORD_JOINED)
    members = list(stores.mongo().members.find({'room_id': room}))
    found = {member['user_id']: (member['seq'], member['role'] != 0) for member in members}
    same({user: found.get(user) for user in wanted}, wanted, f'MongoDB, members of {room}')
    count = stores.mongo().rooms.find_one({'_id': room})['member_count']
    owners = [m['user_id'] for m in members if m['role'] == ROLE_OWNER]
    inside = sum(is_in for _, is_in in found.values())
    expect(count in (inside, inside + (not owners)),
           f'MongoDB, {room}: member_count {count}, member documents of {inside}')


def check_quarantine(stores, wanted=0):
    """Nothing was set aside, or exactly as many as the test has caused."""
    documents = list(stores.mongo().quarantine.find())
    same(len(documents), wanted, f'documents in quarantine (first: {str(documents[:1])[:300]})')
    return documents


def check_mongo(stores, histories, *, quarantined=0):
    """MongoDB holds the histories (read_api), exactly; members too. Returns the events in it."""
    total = 0
    for room, events in histories.items():
        documents = check_mongo_room(stores, room, events)
        check_mongo_members(stores, room, documents)
        total += len(documents)
    check_quarantine(stores, quarantined)
    return total


def mongo_prefix(stores, room, book):
    """For a log whose end may be gone (the journal was lost with its disk): what is in MongoDB is
    1..n without a hole, and what clients were told of it is true. Returns n."""
    documents = check_mongo_room(stores, room)
    at = {mid_of(body): body['seq'] for body in (json.loads(d['body']) for d in documents)
          if body['type'] == 'message'}
    for mid, seq in book.acks().items():
        if mid in at:
            same(at[mid], seq, f'MongoDB, {room}: seq of {mid} against its ack')
    return len(documents)


# Redis, without damsod.


def redis_keys(stores):
    """All keys under our prefix."""
    return sorted(stores.redis().scan_iter(f'{stores.prefix}*', count=1000))


def redis_lists(stores):
    """What is not meant to stay: logs, frozen batches, and what was set aside as not ours."""
    return [key for key in redis_keys(stores) if not LASTING_KEY.search(key)]


def redis_records(stores):
    """How many records lie in our lists."""
    return sum(stores.redis().llen(key) for key in redis_lists(stores)
               if b'{' in key and stores.redis().type(key) == b'list')


def check_redis_empty(stores):
    left = redis_lists(stores)
    expect(not left, f'{len(left)} keys are left in Redis: {left[:SHOWN_MAX]}')


# All of it.


def check_everything(server, stores, book, rooms, *, reader, members=(), last_fault=None,
                     settle=30.0, drain_seconds=DRAIN_SECONDS_MAX, redis=True, quarantined=0):
    """Waits until all is drained, then reads the API, MongoDB and Redis and holds each against the
    others and against the book. `reader` is a user who may read the rooms; redis=False where
    there is none. Returns room -> events."""
    wait_drained(server, stores if redis else None, drain_seconds)
    histories = read_api(server, rooms, reader)
    check_clients(book.of_rooms(rooms), histories, members, last_fault, settle)
    check_mongo(stores, histories, quarantined=quarantined)
    if redis:
        check_redis_empty(stores)
    expect(not backlog(server), 'there is a backlog again, though nobody sends')
    return histories


class Memory:
    """Resident memory of a server over a test. ASan's own bookkeeping grows, so bounds are for
    release builds, or generous."""

    def __init__(self, server):
        self.server, self.samples = server, [(time.monotonic(), server.rss())]

    def sample(self):
        self.samples.append((time.monotonic(), self.server.rss()))
        return self.samples[-1][1]

    def peak(self):
        return max(size for _, size in self.samples)

    def expect_below(self, bytes_max, what='resident memory'):
        self.sample()
        expect(self.peak() <= bytes_max, f'{what} was {self.peak()} bytes, bound {bytes_max}')

    def expect_growth_below(self, bytes_max, what='growth of resident memory'):
        """From the first sample to the highest one."""
        self.sample()
        grown = self.peak() - self.samples[0][1]
        expect(grown <= bytes_max, f'{what} was {grown} bytes, bound {bytes_max}')

    def expect_flat(self, share_max=0.10, slack_bytes=8 << 20, warm=0.25):
        """The last quarter of the samples lies at most share_max and slack above the quarter that
        follows the warming up."""
        self.sample()
        expect(len(self.samples) >= 16, f'{len(self.samples)} samples are too few to call it flat')
        sizes = [size for _, size in self.samples]
        quarter = len(sizes) // 4
        start = int(len(sizes) * warm)
        early = sorted(sizes[start:start + quarter])[quarter // 2]
        late = sorted(sizes[-quarter:])[quarter // 2]
        expect(late <= early * (1 + share_max) + slack_bytes,
               f'resident memory grew from {early} to {late} bytes (medians of a quarter)')
