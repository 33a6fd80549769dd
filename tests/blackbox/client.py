"""A user of damso: signs tokens, speaks REST by http.client and WebSocket by python3-websockets.

Nothing here shares code with the server, so a misreading of a document shows as a failed test.
"""
import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import time
import urllib.parse
import uuid

import websockets

from harness import Failure, expect

LIFETIME_SECONDS = 900
DIGESTS = {'HS256': hashlib.sha256, 'HS384': hashlib.sha384, 'HS512': hashlib.sha512}


def b64(data):
    """base64url without padding, RFC 7515 section 2."""
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def claims_of(sub, name=None, /, **change):
    """The claims of a good token; a change to None leaves the claim out."""
    now = int(time.time())
    claims = {'iss': 'damso', 'aud': 'damso', 'sub': sub, 'name': name or sub, 'iat': now,
              'nbf': now, 'exp': now + LIFETIME_SECONDS}
    claims.update(change)
    return {key: value for key, value in claims.items() if value is not None}


def sign(key, claims, algorithm='HS256', header=None):
    """A JWT in compact form; `header` replaces the whole header."""
    header = header or {'alg': algorithm, 'typ': 'JWT'}
    body = '.'.join(b64(json.dumps(part, separators=(',', ':')).encode())
                    for part in (header, claims))
    digest = DIGESTS.get(algorithm, hashlib.sha256)
    return f'{body}.{b64(hmac.new(key, body.encode(), digest).digest())}'


def token_for(server, sub, name=None, /, **change):
    return sign(server.key(), claims_of(sub, name, **change))


def new_id(prefix):
    """A name that no other test uses: valid as a user id, user name and room id."""
    return f'{prefix}-{uuid.uuid4().hex[:12]}'


class Answer:
    """One HTTP response."""

    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {key.lower(): value for key, value in headers}

    def json(self):
        return json.loads(self.body)

    def code(self):
        """The `code` of an error in the documented shape, or None."""
        try:
            return self.json()['error']['code']
        except (ValueError, KeyError, TypeError):
            return None

    def __repr__(self):
        return f'{self.status} {self.body[:300]!r}'


class Rest:
    """REST calls of one user over one kept connection; a lost one is opened again for a GET."""

    def __init__(self, server, token=None, seconds=15):
        self.server, self.token, self.seconds = server, token, seconds
        self.connection = None

    def call(self, method, path, body=None, headers=None):
        headers = dict(headers or {})
        if self.token and 'Authorization' not in headers:
            headers['Authorization'] = f'Bearer {self.token}'
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault('Content-Type', 'application/json')
        for attempt in (1, 2):
            used_before = self.connection is not None
            if not used_before:
                self.connection = http.client.HTTPConnection('127.0.0.1', self.server.port,
                                                             timeout=self.seconds)
            try:
                self.connection.request(method, path, body, headers)
                response = self.connection.getresponse()
                answer = Answer(response.status, response.getheaders(), response.read())
                if response.will_close:
                    self.close()
                return answer
            except (http.client.HTTPException, OSError):
                # An idle connection may be closed by the server at any time: RFC 9112 section 9.5.
                self.close()
                if attempt == 2 or not used_before or method not in ('GET', 'HEAD'):
                    raise
        return None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def get(self, path, **headers):
        return self.call('GET', path, headers=headers)

    def post(self, path, body=None, headers=None):
        return self.call('POST', path, body, headers)

    def make_room(self, room, **fields):
        answer = self.post('/v1/rooms', {'room_id': room, 'name': room, 'visibility': 'public',
                                         **fields})
        expect(answer.status == 201, f'POST /v1/rooms: {answer}')
        return answer.json()

    def say(self, room, text, key=None, **fields):
        headers = {'Idempotency-Key': key} if key is not None else {}
        return self.post(f'/v1/rooms/{room}/messages', {'text': text, **fields}, headers)

    def history(self, room, after=0, limit=200, pages_max=10000):
        """Every event after `after`, oldest first, page by page; checks each page's frame."""
        events, cursor = [], after
        for _ in range(pages_max):
            query = urllib.parse.urlencode({'after_seq': cursor, 'limit': limit, 'order': 'asc'})
            answer = self.get(f'/v1/rooms/{room}/messages?{query}')
            expect(answer.status == 200, f'history of {room} after {cursor}: {answer}')
            page = answer.json()
            expect(len(page['events']) <= limit, f'{len(page["events"])} events, limit {limit}')
            events += page['events']
            if page['next_cursor'] is None:
                return events
            expect(page['events'], f'an empty page of {room} after {cursor} has a next_cursor')
            expect(page['next_cursor'] == page['events'][-1]['seq'],
                   f'next_cursor {page["next_cursor"]} is not the last seq of the page')
            cursor = page['next_cursor']
        raise Failure(f'history of {room} did not end within {pages_max} pages')


def user(server, sub=None, seconds=15):
    """A Rest for a user of this name; the token makes the user at the first call."""
    sub = sub or new_id('u')
    return Rest(server, token_for(server, sub), seconds)


class Closed(Exception):
    """The connection ended before what was waited for came."""


class Chat:
    """One WebSocket. A task reads everything into `arrivals` (all frames in order), `pushes`
    (room -> events with a seq) and `gaps`; request() waits for the reply with its id."""

    def __init__(self, socket):
        self.socket, self.next_id = socket, 0
        self.arrivals, self.pushes, self.gaps, self.replies = [], {}, {}, {}
        self.connected, self.over = None, False
        self.on_frame = None             # called with each frame as it arrives
        self.changed = asyncio.Event()
        self.reader = asyncio.create_task(self.read())

    @classmethod
    async def open(cls, server, token=None, how='frame', **options):
        """Connects and authenticates by 'frame', 'header', 'query' or not at all (None)."""
        uri = f'ws://127.0.0.1:{server.port}/v1/ws'
        if how == 'query':
            uri += f'?access_token={token}'
        headers = {'Authorization': f'Bearer {token}'} if how == 'header' else {}
        options = {'ping_interval': None, 'max_queue': None, 'max_size': None,
                   'compression': None, 'open_timeout': 15, 'close_timeout': 5, **options}
        chat = cls(await websockets.connect(uri, extra_headers=headers, **options))
        if how == 'frame':
            chat.connected = await chat.ok('connect', token=token)
        elif how in ('header', 'query'):
            await chat.until(lambda: chat.arrivals, why='connected')
            chat.connected = chat.arrivals[0]
        expect(how is None or chat.connected['type'] == 'connected',
               f'the first frame is {chat.connected}')
        return chat

    async def read(self):
        try:
            async for text in self.socket:
                self.take(json.loads(text))
        except (websockets.ConnectionClosed, OSError):
            pass
        finally:
            self.over = True
            self.changed.set()

    def take(self, frame):
        self.arrivals.append(frame)
        if self.on_frame:
            self.on_frame(frame)
        reply = self.replies.pop(frame.get('id'), None) if 'id' in frame else None
        if reply is not None:
            reply.set_result(frame) if not reply.done() else None
        elif frame['type'] == 'gap':
            self.gaps.setdefault(frame['room_id'], []).append((frame['from_seq'], frame['to_seq']))
        elif 'seq' in frame:
            self.pushes.setdefault(frame['room_id'], []).append(frame)
        self.changed.set()

    async def until(self, fact, seconds=15, why='what was waited for'):
        """Waits until fact() is true, looking again at every arrival."""
        deadline = time.monotonic() + seconds
        while not fact():
            if self.over:
                raise Closed(f'{why}: closed with {self.close_code()}')
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failure(f'{why}: did not come within {seconds} s')
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def start(self, type_, **fields):
        """Sends a request and returns the future of its reply."""
        self.next_id += 1
        reply = asyncio.get_running_loop().create_future()
        self.replies[self.next_id] = reply
        await self.socket.send(json.dumps({'type': type_, 'id': self.next_id, **fields}))
        return reply

    async def request(self, type_, seconds=15, **fields):
        """The reply, whatever it is; Closed if the connection ends first."""
        reply = await self.start(type_, **fields)
        await self.until(reply.done, seconds, why=f'the reply to {type_}')
        return reply.result()

    async def ok(self, type_, seconds=15, **fields):
        """The reply, which must not be an error."""
        reply = await self.request(type_, seconds, **fields)
        expect(reply['type'] != 'error', f'{type_} was refused: {reply}')
        return reply

    async def refused(self, code, type_, seconds=15, **fields):
        """The request must fail with this code (or one of these)."""
        reply = await self.request(type_, seconds, **fields)
        codes = (code,) if isinstance(code, str) else code
        expect(reply['type'] == 'error' and reply['code'] in codes,
               f'{type_} {str(fields)[:200]}: wanted error {codes}, got {str(reply)[:300]}')
        expect(isinstance(reply['message'], str) and reply['message'], f'no message in {reply}')
        return reply

    async def follow(self, room, **fields):
        return await self.ok('join', room_id=room, **fields)

    async def say(self, room, text, **fields):
        return await self.ok('send', room_id=room, text=text, **fields)

    async def say_many(self, room, count, text=lambda n: f'text {n}', window=256, **fields):
        """`count` sends with at most `window` unanswered: the acks, in order of sending."""
        replies = []
        for number in range(count):
            if number >= window:
                await self.until(replies[number - window].done, why='acks')
            extra = {name: make(number) for name, make in fields.items()}
            replies.append(await self.start('send', room_id=room, text=text(number), **extra))
        await self.until(lambda: not replies or replies[-1].done(), 60, why='the last ack')
        for reply in replies:
            await self.until(reply.done, why='acks')
        acks = [reply.result() for reply in replies]
        wrong = [ack for ack in acks if ack['type'] != 'ack']
        expect(not wrong, f'{len(wrong)} of {count} sends were refused, first: {wrong[:1]}')
        return acks

    def seqs(self, room):
        return [push['seq'] for push in self.pushes.get(room, [])]

    async def has(self, room, seq, seconds=15):
        """Waits until the event `seq` of the room was pushed."""
        await self.until(lambda: self.pushes.get(room) and self.pushes[room][-1]['seq'] >= seq,
                         seconds, why=f'seq {seq} of {room}')

    async def settle(self):
        """After this, all that the server sent before has arrived: a ping answers in order."""
        await self.ok('ping')

    def close_code(self):
        return self.socket.close_code

    async def closed(self, seconds=15):
        """Waits for the end of the connection: the close code."""
        await asyncio.wait_for(self.socket.wait_closed(), seconds)
        return self.socket.close_code

    async def close(self):
        await self.socket.close()
        await self.reader


async def off_loop(function, *args, **named):
    """Runs a blocking REST call beside the event loop."""
    return await asyncio.to_thread(function, *args, **named)
