#!/usr/bin/python3
"""Guarantee 4: a slow reader costs bounded memory, is told, and does not slow the others.

Method: the same traffic is measured without and with 1,000 readers that take 1 byte a second out
of the smallest receive buffer the kernel gives; they live in a process of their own. In the end
each is drained: what it got must be whole but for announced gaps, or it must have been closed.
"""
import asyncio
import json
import multiprocessing
import os
import pathlib
import random
import re
import selectors
import socket
import time

from client import Chat, new_id, off_loop, token_for, user
from harness import Failure, expect, run
from raw import CLOSE, RawChat, TEXT, parse_frames, read_all

CONFIG = {'rooms': {'chunk_bytes': '4m'}}       # so that the log soon moves past a slow reader
SLOW, SLOW_QUICK = 1000, 100
TEXT_BYTES, MESSAGES_A_SECOND = 8000, 100       # 0.8 MB/s: past every buffer within a few seconds
BYTES_MAX_PER_SLOW_READER = 256 << 10
P99_FACTOR, P99_NOISE_SECONDS = 1.2, 0.005
ROUNDS = 3                                       # a noisy machine may spoil one, not three


def slow_readers(server, room, count, orders):
    """The other process: connects, joins, then reads 1 B/s each until told to drain."""
    chats = []
    for number in range(count):
        chat = RawChat(server, token_for(server, f'slow{number}'), receive_bytes=1)
        chat.send_json(type='join', room_id=room)
        chats.append(chat)
    orders.send('joined')
    kept, ended = [b''] * count, [False] * count
    while not orders.poll(1.0):
        for number, chat in enumerate(chats):
            chat.sock.setblocking(False)
            try:
                part = chat.sock.recv(1)
                kept[number] += part
                ended[number] |= not part
            except BlockingIOError:
                pass
            except ConnectionError:
                ended[number] = True
    orders.recv()
    orders.send(drain(chats, kept, ended))


def drain(chats, kept, ended):
    """Reads what is still coming, all at once: [(bytes, has ended)]."""
    chooser, data = selectors.DefaultSelector(), list(kept)
    for number, chat in enumerate(chats):
        chat.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if not ended[number]:
            chooser.register(chat.sock, selectors.EVENT_READ, number)
    quiet_since = time.monotonic()
    while chooser.get_map() and time.monotonic() - quiet_since < 4.0:
        for key, _ in chooser.select(0.5):
            quiet_since = time.monotonic()
            try:
                part = chats[key.data].sock.recv(1 << 18)
            except BlockingIOError:
                continue
            except ConnectionError:
                part = b''
            data[key.data] += part
            if not part:
                ended[key.data] = True
                chooser.unregister(chats[key.data].sock)
    return [verdict_of(chat, part, end) for chat, part, end in zip(chats, data, ended)]


def verdict_of(chat, data, ended):
    """'gap', 'closed' or 'complete'; or what is wrong with the stream of one slow reader."""
    frames, _ = parse_frames(chat.rest + data)
    expected, gaps, code = None, 0, None
    for opcode, final, payload in frames:
        if opcode == CLOSE:
            code = int.from_bytes(payload[:2], 'big')
        if opcode != TEXT or not final:
            continue
        event = json.loads(payload)
        if event['type'] == 'gap':
            first, last, gaps = event['from_seq'], event['to_seq'], gaps + 1
        elif event['type'] == 'joined':
            expected = event['seq'] + 1
            continue
        elif 'seq' in event:
            first = last = event['seq']
        else:
            continue
        if expected is not None and first != expected:
            return f'silent hole: {first} after {expected - 1}'
        expected = last + 1
    if gaps:
        return 'gap'
    return f'closed {code}' if ended or code else 'complete'


class Slow:
    """Handle on the process of slow readers."""

    def __init__(self, context, server, room, count):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context('fork').Process(
            target=slow_readers, args=(server, room, count, theirs), daemon=True)
        self.process.start()
        context.cleanup(self.process.kill)

    async def joined(self):
        await off_loop(self.answer, 60)

    def answer(self, seconds):
        expect(self.ours.poll(seconds), f'the slow readers said nothing for {seconds} s')
        return self.ours.recv()

    async def drained(self):
        self.ours.send('drain')
        return await off_loop(self.answer, 90)


async def latencies(chat, fast, room, seconds):
    """Open loop: sends at the rate, gives the seconds from intended send to receipt by `fast`."""
    count, seen = int(seconds * MESSAGES_A_SECOND), {}
    run_id = new_id('run')

    def on_frame(frame):
        if frame['type'] == 'message' and frame['text'].startswith(run_id):
            seen[int(frame['text'].split(' ', 2)[1])] = time.monotonic()

    fast.on_frame, started = on_frame, time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / MESSAGES_A_SECOND - time.monotonic()))
        await chat.start('send', room_id=room,
                         text=f'{run_id} {number} '.ljust(TEXT_BYTES, 'x'))
    await fast.until(lambda: len(seen) == count, 30, why='all messages at the fast reader')
    for each in (chat, fast):
        each.arrivals.clear()
        each.pushes.clear()
    return [seen[n] - started - n / MESSAGES_A_SECOND for n in range(count)]


def p99(times):
    return sorted(times)[int(len(times) * 0.99)]


def kernel_tcp_bytes():
    """What the kernel holds for all sockets of the machine: a remark, not a limit of ours."""
    text = pathlib.Path('/proc/net/sockstat').read_text()
    return int(re.search(r'TCP:.* mem (\d+)', text)[1]) * os.sysconf('SC_PAGE_SIZE')


async def one_round(context, slow_count, seconds):
    """(p99 without, p99 with, growth of RSS a slow reader, verdicts)."""
    server = context.start(shards=2, config=CONFIG)
    owner, room = user(server), new_id('room')
    await off_loop(owner.make_room, room)
    chat, fast = [await Chat.open(server, token_for(server, name)) for name in ('chat', 'fast')]
    for each in (chat, fast):
        await each.follow(room)
    await latencies(chat, fast, room, 1.0)                       # warms up
    without = p99(await latencies(chat, fast, room, seconds))
    rss, kernel = server.rss(), kernel_tcp_bytes()
    slow = Slow(context, server, room, slow_count)
    await slow.joined()
    await latencies(chat, fast, room, seconds)                   # fills what can be filled
    with_slow = p99(await latencies(chat, fast, room, seconds))
    growth, kernel = (server.rss() - rss) / slow_count, kernel_tcp_bytes() - kernel
    verdicts = await slow.drained()
    ack = await chat.say(room, 'still here')
    await fast.has(room, ack['seq'])
    expect(not fast.gaps and not chat.gaps, 'a fast reader was told of a gap')
    context.note(f'p99 {without * 1000:.1f} ms without, {with_slow * 1000:.1f} ms with '
                 f'{slow_count} slow readers, {growth / 1024:.0f} KiB of RSS each, '
                 f'{kernel / slow_count / 1024:.0f} KiB of kernel memory each')
    server.kill()
    return without, with_slow, growth, verdicts


async def slow_readers_cost_little_and_slow_nobody(context):
    count, seconds = (SLOW_QUICK, 4) if context.quick else (SLOW, 12)
    for _ in range(ROUNDS):
        without, with_slow, growth, verdicts = await one_round(context, count, seconds)
        kinds = {kind: verdicts.count(kind) for kind in set(verdicts)}
        context.note(str(kinds))
        wrong = [v for v in verdicts if 'hole' in v]
        expect(not wrong, f'{len(wrong)} slow readers had a {wrong[:1]}')
        expect(kinds.get('complete', 0) == 0, f'nothing slowed these down, nothing proved: {kinds}')
        expect(growth <= BYTES_MAX_PER_SLOW_READER,
               f'{growth / 1024:.0f} KiB of RSS for each slow reader')
        if with_slow <= without * P99_FACTOR + P99_NOISE_SECONDS:
            return
    raise Failure(f'p99 rose in {ROUNDS} rounds, last from {without * 1000:.1f} ms '
                  f'to {with_slow * 1000:.1f} ms')


async def a_reader_that_stops_is_told_and_catches_up(context):
    """Stops reading for a while, then reads on: no hole but what is announced."""
    server = context.start(shards=2, config=CONFIG)
    owner, room = user(server), new_id('room')
    await off_loop(owner.make_room, room)
    chat = await Chat.open(server, token_for(server, 'chat'))
    await chat.follow(room)
    stopped = await off_loop(RawChat, server, token_for(server, 'stopped'), 1)
    stopped.send_json(type='join', room_id=room)
    await chat.say_many(room, 300 if context.quick else 3000,
                        lambda n: 'x' * random.Random(n).choice((10, 1000, 15000)), window=64)
    reading = asyncio.create_task(off_loop(read_all, stopped.sock, 8, 1 << 28))
    await asyncio.sleep(1.0)
    last = await chat.say(room, 'the last one')
    data, ended = await reading
    verdict = verdict_of(stopped, data, ended)
    expect('hole' not in verdict, verdict)
    texts = [json.loads(payload) for opcode, _, payload in parse_frames(stopped.rest + data)[0]
             if opcode == TEXT]
    expect(ended or any(t.get('seq') == last['seq'] for t in texts),
           f'verdict {verdict}, but the live events did not go on')
    context.note(verdict)


if __name__ == '__main__':
    run([a_reader_that_stops_is_told_and_catches_up, slow_readers_cost_little_and_slow_nobody],
        seconds=400, seconds_quick=150)
