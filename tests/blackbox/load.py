"""Senders and receivers that live through crashes and write down what they saw for the checker.

A Sender keeps a window of unanswered sends; what was open when the connection broke and carries an
idempotency key is sent again first, in order, on the next connection. A Receiver resumes every room
with after_seq, and fetches by history what the server says it will not push.
"""
import asyncio
import json
import time
from collections import OrderedDict

import websockets

from checker import Fail, Gap, Info, Invoke, Ok, Recv, Resume
from client import Rest, off_loop, token_for
from harness import Failure, expect

SIZES = (10, 100, 100, 500, 2000)      # bytes of text
REFUSED_PAUSE_SECONDS = 0.02           # a refused sender does not hammer on
CONNECT_OPTIONS = {'ping_interval': None, 'max_queue': None, 'max_size': None,
                   'compression': None, 'open_timeout': 15, 'close_timeout': 2}


def mid_of(event):
    """The sender's own id of a message: the first word of its text."""
    return event['text'].split(' ', 1)[0] if event['type'] == 'message' else None


async def connect(server, name):
    """A WebSocket authenticated by header, after its `connected` frame."""
    socket = await websockets.connect(
        f'ws://127.0.0.1:{server.port}/v1/ws', **CONNECT_OPTIONS,
        extra_headers={'Authorization': f'Bearer {token_for(server, name)}'})
    first = json.loads(await asyncio.wait_for(socket.recv(), 15))
    expect(first['type'] == 'connected', f'{name} got {first} first')
    return socket


class Record:
    """All events of a run in the order in which this process saw them, on one clock."""

    def __init__(self):
        self.events, self.epochs = [], {}

    def add(self, event):
        self.events.append(event)

    def epoch(self, room, epoch):
        """The log is never lost in these runs, so an epoch never changes."""
        known = self.epochs.setdefault(room, epoch)
        expect(known == epoch, f'{room} changed its epoch from {known} to {epoch}')


class Sender:
    def __init__(self, record, name, rooms, *, keyed, window=8, pause=0.002, sizes=SIZES, rng):
        self.record, self.name, self.rooms = record, name, rooms
        self.keyed, self.window, self.pause, self.random = keyed, window, pause, rng
        self.sizes = sizes
        self.pending = OrderedDict()    # mid -> (room, text, key): sent, no outcome yet
        self.open = OrderedDict()       # id on this connection -> mid
        self.number, self.next_id, self.acked, self.repeats, self.refused = 0, 0, 0, 0, 0
        self.duplicates = 0             # acks that said duplicate:true
        self.connected, self.is_member, self.resolved = False, False, asyncio.Event()
        self.only_repeat = False        # true: no new messages, only what is pending

    async def session(self, server):
        """Connects, joins if it never did, sends until the connection breaks or all is done."""
        self.connected = False
        socket = await connect(server, self.name)
        self.connected = True
        answers = asyncio.create_task(self.read(socket))
        try:
            await self.join_once(socket)
            await self.send_all(socket)
        except websockets.ConnectionClosed:
            pass
        finally:
            await socket.close()
            await answers
            self.lose_open()

    async def join_once(self, socket):
        """Membership outlives connections and crashes: joined once, members for good."""
        if self.is_member:
            return
        for room in self.rooms:
            await socket.send(json.dumps({'type': 'join', 'id': f'join {room}', 'room_id': room}))
        self.joins_left = set(self.rooms)
        while self.joins_left:
            self.resolved.clear()
            if socket.closed:
                return
            await asyncio.wait_for(self.resolved.wait(), 15)
        for room in self.rooms:
            await socket.send(json.dumps({'type': 'leave', 'room_id': room}))
        self.is_member = True

    async def send_all(self, socket):
        for mid in list(self.pending):
            await self.room_in_window(socket)
            self.repeats += 1
            await self.send(socket, mid)
        refused = self.refused
        while not self.only_repeat and not socket.closed:
            await self.room_in_window(socket)
            if self.refused > refused:
                refused = self.refused
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)
            self.number += 1
            mid, room = f'{self.name}.{self.number}', self.random.choice(self.rooms)
            key = f'key {mid}' if self.random.random() < self.keyed else None
            size = self.random.choice(self.sizes)
            self.pending[mid] = (room, f'{mid} '.ljust(size, 'x'), key)
            await self.send(socket, mid)
            if self.random.random() < 0.3:
                await asyncio.sleep(self.pause)
        while self.only_repeat and self.open and not socket.closed:
            self.resolved.clear()
            await asyncio.wait_for(self.resolved.wait(), 30)

    async def room_in_window(self, socket):
        while len(self.open) >= self.window and not socket.closed:
            self.resolved.clear()
            await asyncio.wait_for(self.resolved.wait(), 30)

    async def send(self, socket, mid):
        room, text, key = self.pending[mid]
        self.next_id += 1
        request = {'type': 'send', 'id': self.next_id, 'room_id': room, 'text': text}
        if key:
            request['idempotency_key'] = key
        self.open[self.next_id] = mid
        self.record.add(Invoke(mid, room, self.name, time.monotonic()))
        await socket.send(json.dumps(request))

    async def read(self, socket):
        try:
            async for text in socket:
                self.take(json.loads(text), time.monotonic())
                self.resolved.set()
        except websockets.ConnectionClosed:
            pass
        finally:
            await socket.close()         # for the case that take() has failed: ends send_all too
            self.resolved.set()

    def take(self, frame, now):
        if frame['type'] == 'joined':
            self.joins_left.discard(frame['room_id'])
            self.record.epoch(frame['room_id'], frame['epoch'])
        elif frame['type'] == 'ack':
            mid = self.open.pop(frame['id'])
            self.pending.pop(mid, None)
            self.acked += 1
            self.duplicates += frame['duplicate']
            self.record.add(Ok(mid, frame['seq'], now))
        elif frame['type'] == 'error':
            mid = self.open.pop(frame.get('id'), None)
            expect(mid and frame['code'] in ('unavailable', 'rate_limited'), f'refused: {frame}')
            self.pending.pop(mid, None)
            self.refused += 1
            self.record.add(Fail(mid))

    def lose_open(self):
        for mid in self.open.values():
            self.record.add(Info(mid))
            if mid in self.pending and self.pending[mid][2] is None:
                del self.pending[mid]    # a repeat without a key would be a second message
        self.open.clear()


class Receiver:
    def __init__(self, record, name, rooms):
        self.record, self.name, self.rooms = record, name, rooms
        self.last = {room: 0 for room in rooms}      # everything up to here was seen
        self.behind = set()                          # rooms with a history fetch under way
        self.connections, self.unrecovered, self.gaps, self.received = 0, 0, 0, 0
        self.epoch, self.joined, self.changed = {}, set(), asyncio.Event()

    async def session(self, server):
        """Connects, resumes every room, reads until the connection breaks."""
        socket = await connect(server, self.name)
        self.connections += 1
        self.joined = set()
        asked = {}
        try:
            for room in self.rooms:
                asked[room] = self.last[room]
                request = {'type': 'join', 'id': room, 'room_id': room, 'after_seq': asked[room]}
                if room in self.epoch:
                    request['epoch'] = self.epoch[room]
                await socket.send(json.dumps(request))
            async for text in socket:
                await self.take(server, asked, json.loads(text), time.monotonic())
                self.changed.set()
        except websockets.ConnectionClosed:
            pass
        finally:
            await socket.close()
            self.changed.set()

    def conn(self):
        return f'{self.name}/{self.connections}'

    async def take(self, server, asked, frame, now):
        room = frame.get('room_id')
        if frame['type'] == 'joined':
            self.joined.add(room)
            self.record.epoch(room, frame['epoch'])
            self.epoch[room] = frame['epoch']
            start = asked[room] if frame['recovered'] else frame['seq']
            self.record.add(Resume(self.name, self.conn(), room, start))
            if not frame['recovered']:
                self.unrecovered += 1
                await self.fetch(server, room, asked[room], frame['seq'])
        elif frame['type'] == 'gap':
            self.gaps += 1
            self.record.add(Gap(self.name, self.conn(), room, frame['from_seq'], frame['to_seq']))
            await self.fetch(server, room, frame['from_seq'] - 1, frame['to_seq'])
        elif frame['type'] == 'error':
            raise Failure(f'{self.name} was refused: {frame}')
        elif 'seq' in frame:
            self.received += 1
            self.record.add(Recv(self.name, self.conn(), room, frame['seq'], mid_of(frame), now))
            self.last[room] = frame['seq']

    async def fetch(self, server, room, after, upto):
        """History from after + 1 to upto; nothing is read meanwhile, so `last` has no holes."""
        rest = Rest(server, token_for(server, self.name))
        try:
            events = await off_loop(rest.history, room, after)
        except OSError:
            return                                   # killed meanwhile: asked again on resume
        for event in events:
            if event['seq'] <= upto:
                self.record.add(Recv(self.name, f'{self.conn()}/{room}/history', room,
                                     event['seq'], mid_of(event), time.monotonic()))
        self.last[room] = max(self.last[room], upto)

    async def complete(self, room, seq, seconds=30):
        """Waits until everything up to `seq` of the room was seen."""
        deadline = time.monotonic() + seconds
        while self.last[room] < seq:
            left = deadline - time.monotonic()
            expect(left > 0, f'{self.name} has {self.last[room]} of {seq} of {room} '
                             f'after {seconds} s')
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except asyncio.TimeoutError:
                pass


def read_histories(server, name, rooms):
    """The final read: room -> [(seq, mid)], over REST."""
    rest = Rest(server, token_for(server, name))
    histories = {room: [(event['seq'], mid_of(event)) for event in rest.history(room)]
                 for room in rooms}
    rest.close()
    return histories
