#!/usr/bin/python3
"""The protocol does not tell how damsod stores: the same requests, the same answers in every mode.

Method: one script of requests (accounts, rooms, members, messages, keys, history, WebSocket, what
is refused) goes to a server of each mode, in the same order, over a clean restart and a kill -9,
and so that rooms are read from memory, from what is on its way, and from the store. Each answer is
written down with what is random in it (ids, epochs, tokens, times) replaced by a name that tells
only whether it is one that was seen before. The transcripts must be equal, line for line.
"""
import asyncio
import re
import time
import urllib.parse

from client import Chat, Rest, token_for
from harness import expect, run, same
from stores import Stores

RETRY_SECONDS_MAX = 30          # after a start a room may be `unavailable` until it is read
IDLE_SECONDS = 1
GIVEN_ID = re.compile(r'^[A-Za-z0-9]{22}$')
GIVEN_ROOM = re.compile(r'^[a-z0-9]{12}$')
VARIANT = re.compile(r'^(.+)-[a-z0-9]{4}$')
TIMES = ('created_at',)
RANDOM = ('epoch', 'access_token', 'refresh_token', 'request_id', 'session_id')
UNCHECKED = ('message',)        # for people: it may name what a mode has


class Transcript:
    """What one mode answered: lines of (what was asked, what came)."""

    def __init__(self):
        self.lines, self.seen = [], {}

    def name(self, kind, value):
        """epoch-1 for the first epoch seen, epoch-1 again whenever it comes again."""
        known = self.seen.setdefault(kind, {})
        return known.setdefault(value, f'{kind}-{len(known) + 1}')

    def plain(self, value, key=None):
        """The value without what is random in it."""
        if isinstance(value, dict):
            return {k: self.plain(v, k) for k, v in value.items() if k not in UNCHECKED}
        if isinstance(value, list):
            return [self.plain(entry) for entry in value]
        if key in TIMES:
            return 'a time'
        if key in RANDOM:
            return self.name(key, value) if key == 'epoch' else f'some {key}'
        if key == 'user_id' and GIVEN_ID.match(str(value)):
            return self.name('user', value)
        if key == 'room_id' and GIVEN_ROOM.match(str(value)):
            return self.name('room', value)
        if key == 'username' and VARIANT.match(str(value)):
            return VARIANT.match(value)[1] + '-*'
        return value

    def note(self, what, value):
        self.lines.append((what, self.plain(value)))


def difference(one, other):
    """The first line in which two transcripts differ, or None."""
    for number, (a, b) in enumerate(zip(one.lines, other.lines)):
        if a != b:
            return f'line {number + 1}, {a[0]}: {str(a[1])[:600]} but {str(b[1])[:600]}'
    if len(one.lines) != len(other.lines):
        return f'{len(one.lines)} lines but {len(other.lines)}'
    return None


class Script:
    """The requests, and what becomes of their answers."""

    def __init__(self, server, transcript):
        self.server, self.transcript = server, transcript
        self.users = {}

    def user(self, name):
        """A user by token, who keeps the same token over restarts."""
        token = self.users[name].token if name in self.users else token_for(self.server, name)
        if name not in self.users or self.users[name].server.port != self.server.port:
            self.users[name] = Rest(self.server, token)
        return self.users[name]

    def restarted(self):
        for rest in self.users.values():
            rest.close()

    def ask(self, who, method, path, body=None, note=True, **headers):
        """Asks until it is not `unavailable`; writes the answer down."""
        deadline = time.monotonic() + RETRY_SECONDS_MAX
        while True:
            answer = self.user(who).call(method, path, body, headers)
            if answer.status != 503 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if note:
            text = answer.json() if answer.body[:1] in (b'{', b'[') else answer.body.decode()
            self.transcript.note(f'{who} {method} {path}', [answer.status, text])
        return answer

    def room(self, who, room, **fields):
        return self.ask(who, 'POST', '/v1/rooms', {'room_id': room, 'name': f'Room {room}',
                                                   **fields})

    def say(self, who, room, text, key=None, note=True, **fields):
        headers = {'Idempotency-Key': key} if key else {}
        return self.ask(who, 'POST', f'/v1/rooms/{room}/messages', {'text': text, **fields}, note,
                        **headers)

    # The parts.

    def accounts(self):
        nobody = Rest(self.server)
        for path, body in (
                ('register', {'username': 'Ann', 'password': 'a long password',
                              'display_name': 'Ann the First'}),
                ('register', {'username': 'aNN', 'password': 'another password'}),
                ('register', {'username': 'B', 'password': 'a long password'}),
                ('register', {'username': 'Bea', 'password': 'short'}),
                ('register', {'username': 'Bea'}),
                ('login', {'username': 'ANN', 'password': 'a long password'}),
                ('login', {'username': 'Ann', 'password': 'a wrong password'}),
                ('login', {'username': 'nobody', 'password': 'a long password'})):
            answer = nobody.post(f'/v1/auth/{path}', body)
            self.transcript.note(f'{path} {body}', [answer.status, answer.json()])
        nobody.close()

    def rooms(self):
        self.room('olga', 'alpha', visibility='public')
        self.room('olga', 'alpha', visibility='public')
        self.room('olga', 'beta', visibility='private', max_members=2)
        self.room('paul', 'gamma', visibility='public', durability='memory')
        self.room('paul', 'delta', visibility='public', durability='journal', max_members=2)
        self.room('paul', 'no room id')
        self.room('paul', 'x' * 65)
        self.ask('paul', 'POST', '/v1/rooms', {'name': 'without an id'})
        self.ask('paul', 'POST', '/v1/rooms', {'room_id': 'empty'})
        self.ask('ann', 'POST', '/v1/rooms', {'room_id': 'by-ann', 'name': 'R\u00e4ume \u2603 %_*'})

    def members(self):
        for who, verb, room in (
                ('paul', 'join', 'alpha'), ('paul', 'join', 'alpha'), ('quin', 'join', 'alpha'),
                ('paul', 'join', 'beta'), ('olga', 'join', 'delta'), ('quin', 'join', 'delta'),
                ('quin', 'leave', 'alpha'), ('quin', 'leave', 'alpha'), ('rosa', 'leave', 'alpha'),
                ('quin', 'join', 'none'), ('olga', 'join', 'gamma')):
            self.ask(who, 'POST', f'/v1/rooms/{room}/join'.replace('join', verb))
        for room in ('alpha', 'beta', 'delta', 'gamma', 'none'):
            self.ask('olga', 'GET', f'/v1/rooms/{room}')
        self.ask('paul', 'GET', '/v1/rooms/beta')

    def messages(self):
        self.say('olga', 'alpha', 'first', key='k1')
        self.say('olga', 'alpha', 'first', key='k1')
        self.say('olga', 'alpha', 'other', key='k1')
        self.say('paul', 'alpha', 'first', key='k1')
        self.say('quin', 'alpha', 'not a member')
        self.say('paul', 'beta', 'not a member')
        self.say('olga', 'alpha', '')
        self.say('olga', 'alpha', 'reply', reply_to=1)
        self.say('olga', 'alpha', 'reply to nothing', reply_to=4711)
        self.say('olga', 'alpha', 'with data \u2028 \U0001f600',
                 data={'a': [1, 2.5, None, {'\u00e9': True}]})
        self.say('olga', 'none', 'no room')
        for number in range(60):
            self.say('olga', 'alpha', f'number {number}', key=f'n{number}', note=number % 20 == 0)
        for number in range(30):        # pages that end by their bytes
            self.say('paul', 'delta', f'{number} ' + 'x' * 12000, note=False)
        for room in ('beta', 'gamma'):
            self.say('olga' if room == 'beta' else 'paul', room, f'in {room}')

    def keys_again(self):
        """What was said before the restart is known by its key."""
        self.say('olga', 'alpha', 'first', key='k1')
        self.say('olga', 'alpha', 'other', key='k1')
        self.say('olga', 'alpha', 'number 59', key='n59')
        self.say('paul', 'alpha', 'first', key='k1')

    def lists(self):
        """Rooms as they are listed; last_seq and member_count there may lag (docs/PROTOCOL.md)."""
        for query in ({'limit': 200}, {'limit': 2}, {'query': 'ROOM A'}, {'query': 'amm'},
                      {'query': '%_*'}, {'query': 'r\u00e4ume'}, {'query': 'no such'},
                      {'limit': 2, 'cursor': 'alpha'}, {'limit': 0}, {'cursor': 'zzz'}):
            answer = self.ask('olga', 'GET', f'/v1/rooms?{urllib.parse.urlencode(query)}',
                              note=False)
            body = answer.json()
            rooms = body.get('rooms', [])
            rooms = [r for r in rooms if not GIVEN_ROOM.match(r['room_id'])]    # sorted at random
            for room in rooms:
                del room['last_seq'], room['member_count']
            if answer.status == 200 and 'limit' in query and query['limit'] == 2:
                rooms = len(body['rooms'])
            self.transcript.note(f'list {query}', [answer.status, rooms])

    def history(self):
        for query in ('', 'limit=5', 'after_seq=0&limit=7', 'after_seq=20&before_seq=31',
                      'after_seq=20&before_seq=31&order=desc', 'before_seq=4&limit=200',
                      'before_seq=4&order=asc', 'after_seq=60&limit=200', 'after_seq=4711',
                      'after_seq=0&order=desc&limit=200', 'limit=200', 'limit=0', 'order=up'):
            self.ask('olga', 'GET', f'/v1/rooms/alpha/messages?{query}')
        self.ask('rosa', 'GET', '/v1/rooms/beta/messages')
        self.ask('olga', 'GET', '/v1/rooms/none/messages')
        self.pages('delta', 'after_seq', 'asc')
        self.pages('delta', 'before_seq', 'desc')

    def pages(self, room, word, order):
        """All pages of a room: together they are the room. How many events a page holds that ends
        by its bytes is not promised, so it is not compared."""
        seqs, cursor = [], 0 if order == 'asc' else 1 << 30
        for _ in range(100):
            answer = self.ask('paul', 'GET', f'/v1/rooms/{room}/messages?order={order}&limit=200'
                              f'&{word}={cursor}', note=False)
            same(answer.status, 200, f'a page of {room}')
            expect(len(answer.body) <= 160 * 1024, f'a page of {len(answer.body)} bytes')
            seqs += [event['seq'] for event in answer.json()['events']]
            cursor = answer.json()['next_cursor']
            if cursor is None:
                break
        self.transcript.note(f'pages of {room} {order}', seqs)

    async def chat(self, after_seq):
        """A connection that resumes, and its replies."""
        chat = await Chat.open(self.server, self.user('olga').token)
        epoch = (await chat.ok('join', room_id='alpha'))['epoch']
        for name, fields in (
                ('join', {'room_id': 'alpha', 'after_seq': after_seq, 'epoch': epoch}),
                ('join', {'room_id': 'alpha', 'after_seq': after_seq, 'epoch': 'another'}),
                ('join', {'room_id': 'alpha', 'after_seq': 1 << 30}),
                ('join', {'room_id': 'none'}),
                ('history', {'room_id': 'alpha', 'before_seq': 12, 'limit': 5}),
                ('history', {'room_id': 'alpha', 'limit': 3}),
                ('send', {'room_id': 'alpha', 'text': 'by socket', 'idempotency_key': 's1'}),
                ('send', {'room_id': 'alpha', 'text': 'by socket', 'idempotency_key': 's1'}),
                ('send', {'room_id': 'alpha', 'text': 'other', 'idempotency_key': 's1'}),
                ('send', {'room_id': 'none', 'text': 'no room'}),
                ('leave', {'room_id': 'alpha'})):
            reply = await chat.request(name, **fields)
            reply.pop('id')
            fields.pop('epoch', None)
            self.transcript.note(f'socket {name} {fields}', reply)
            if reply.get('recovered'):      # what was missed comes behind the reply
                await chat.has('alpha', reply['seq'])
                missed = [p for p in chat.pushes['alpha'] if p['seq'] <= reply['seq']]
                self.transcript.note('missed', missed)
            await chat.settle()
        await chat.close()

    def epochs(self):
        """Of each room: by its name one sees whether it is the one of before."""
        for room in ('alpha', 'beta', 'gamma', 'delta'):
            answer = self.ask('paul' if room != 'beta' else 'olga', 'GET', f'/v1/rooms/{room}',
                              note=False)
            self.transcript.note(f'epoch of {room}', {'epoch': answer.json().get('epoch')})

    def reads(self):
        self.epochs()
        self.members()
        self.history()
        self.lists()


def play(server, transcript, stores):
    """The whole script, over a clean restart and a kill; stores: Redis and MongoDB are there."""
    script = Script(server, transcript)
    server.start()
    script.accounts()
    script.rooms()
    script.members()
    script.messages()
    script.reads()
    asyncio.run(script.chat(after_seq=50))
    time.sleep(2.5 * IDLE_SECONDS)      # rooms leave memory: they are read from the store
    script.reads()
    script.keys_again()
    same(server.stop(30), 0, 'exit code of a clean stop')
    script.restarted()
    server.start()
    transcript.note('restarted', None)
    script.keys_again()
    script.reads()
    asyncio.run(script.chat(after_seq=60))
    script.say('olga', 'alpha', 'before the kill', key='k9')
    script.say('paul', 'gamma', 'before the kill')
    server.kill()
    script.restarted()
    server.start()
    transcript.note('killed', None)
    script.say('olga', 'alpha', 'before the kill', key='k9')
    script.keys_again()
    script.reads()
    if stores:
        text = script.user('olga').get('/metrics').body.decode()
        reads = re.search(r'^damso_persist_reads_total (\d+)$', text, re.MULTILINE)
        expect(reads and int(reads[1]) > 0, 'nothing of this was read from the stores')
    same(server.stop(30), 0, 'exit code of the last stop')


def modes(context):
    """Each mode's name and its sections of the configuration."""
    stores = Stores().start()
    context.cleanup(stores.stop)
    yield 'embedded', {}
    for name, keys in (('redis', {}), ('no cache', {'cache': 'none'}),
                       ('sync', {'flush_mode': 'sync'}), ('soon', {'flush_interval': '20ms'})):
        if context.quick and name not in ('redis', 'no cache'):
            continue
        stores.fresh_namespace()
        yield name, stores.config(**keys)


def the_same_requests_get_the_same_answers(context):
    first = None
    for name, config in modes(context):
        began = time.monotonic()
        transcript = Transcript()
        server = context.server(shards=2, persist='embedded', config={
            'timeouts': {'room_idle': f'{IDLE_SECONDS}s'}, **config})
        play(server, transcript, bool(config))
        context.note(f'{name}: {len(transcript.lines)} answers in {time.monotonic() - began:.1f} s')
        expect(len(transcript.lines) > 200, f'{name}: only {len(transcript.lines)} answers')
        if first is None:
            first = transcript
        else:
            found = difference(first, transcript)
            expect(found is None, f'embedded and {name} differ: {found}')


def the_same_metrics_are_there_in_every_mode(context):
    """A dashboard made for one mode finds its lines in the other."""
    first = None
    for name, config in modes(context):
        server = context.server(persist='embedded', config=config).start()
        rest = Rest(server)
        same(rest.get('/readyz').status, 200, f'{name}: /readyz')
        names = set(re.findall(r'^# TYPE (\S+ \S+)$', rest.get('/metrics').body.decode(),
                               re.MULTILINE))
        rest.close()
        first = first or names
        same(names ^ first, set(), f'{name}: metrics that only one mode has')
        server.kill()


def the_comparison_sees_a_difference(_context):
    """The transcripts above would be no proof if difference() could not see one."""
    one, other = Transcript(), Transcript()
    for transcript, epochs in ((one, ('e', 'f', 'e')), (other, ('x', 'y', 'y'))):
        for epoch in epochs:
            transcript.note('room', {'epoch': epoch, 'created_at': epoch, 'room_id': 'r'})
    expect('line 3' in difference(one, other), 'an epoch that changed is seen')
    other.lines[2] = one.lines[2]
    same(difference(one, other), None, 'equal transcripts')
    other.note('more', 1)
    expect(difference(one, other), 'a line more is seen')


if __name__ == '__main__':
    run([the_comparison_sees_a_difference, the_same_requests_get_the_same_answers,
         the_same_metrics_are_there_in_every_mode], seconds=400, seconds_quick=200)
