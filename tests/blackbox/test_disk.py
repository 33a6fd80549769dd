#!/usr/bin/python3
"""Guarantees 6 and 8: a long journal is recovered quickly; a full disk refuses and heals.

Method: the disk is a small tmpfs that a filler file fills. The store is kept from taking records by
holding SQLite's write lock from outside, so that the journal grows to what a test needs.
"""
import asyncio
import contextlib
import pathlib
import random
import shutil
import sqlite3
import subprocess
import time

from checker import check, summary
from client import Chat, new_id, off_loop, token_for, user
from harness import Failure, Skip, expect, run, same
from load import Receiver, Record, Sender, read_histories
from server import run_once

DISK_BYTES, SEGMENT_BYTES = 64 << 20, 1 << 20
BACK_SECONDS, REFUSE_SECONDS = 5.0, 1.0
JOURNAL_BYTES, RECOVERY_SECONDS, RECOVERY_TRIES = 64 << 20, 2.0, 3
TEXT_BYTES = 8000
ROOMS = ('first', 'second')


def journal(bytes_max, log_bytes='128k'):
    """Small segments, and rooms that keep little in memory, so that reading goes to the store."""
    return {'journal': {'segment_bytes': SEGMENT_BYTES, 'buffer_bytes': SEGMENT_BYTES,
                        'bytes_max': bytes_max}, 'rooms': {'log_bytes': log_bytes}}


def small_disk(context):
    """A tmpfs that goes with the test."""
    path = context.directory() / 'disk'
    path.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={DISK_BYTES}', 'tmpfs', path],
                          capture_output=True, check=False)
    if done.returncode != 0:
        raise Skip(f'cannot mount a tmpfs: {done.stderr.decode().strip()}')
    context.cleanup(lambda: subprocess.run(['umount', '-l', path], check=False))
    return path


def fill(path):
    """Takes every byte that is left; again and again as files of the server are let go."""
    with open(path / 'filler', 'ab', buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1 << 9, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b'\0' * size)


class Talk:
    """Senders and receivers on one server, and the check of what they saw."""

    def __init__(self, server):
        self.server, self.record = server, Record()
        self.senders = [Sender(self.record, f'sender{n}', ROOMS, keyed=0.5, rng=random.Random(n),
                               sizes=(100, TEXT_BYTES)) for n in range(3)]
        self.receivers = [Receiver(self.record, f'receiver{n}', ROOMS) for n in range(2)]
        self.tasks = []

    def start(self):
        self.tasks = [asyncio.create_task(client.session(self.server))
                      for client in self.receivers + self.senders]

    def count(self, what):
        return sum(getattr(sender, what) for sender in self.senders)

    async def until(self, fact, seconds, why):
        deadline = time.monotonic() + seconds
        while not fact():
            for task in self.tasks:
                if task.done():
                    task.result()
                    raise Failure(f'{why}: a client was disconnected')
            expect(time.monotonic() < deadline, f'{why}: not within {seconds} s')
            await asyncio.sleep(0.01)

    async def finish(self):
        """Ends the senders, reads all back, checks, kills and reads again."""
        for sender in self.senders:
            sender.only_repeat = True
        await asyncio.wait_for(asyncio.gather(*self.tasks[len(self.receivers):]), 60)
        end = time.monotonic()
        histories = await off_loop(read_histories, self.server, 'receiver0', ROOMS)
        for receiver in self.receivers:
            for room in ROOMS:
                await receiver.complete(room, len(histories[room]))
        members = [(r.name, room) for r in self.receivers for room in ROOMS]
        found = check(self.record.events, histories, members, end)
        expect(not found, summary(found))
        self.server.kill()
        await asyncio.gather(*self.tasks)
        await self.server.spawn().ready_soon()
        again = await off_loop(read_histories, self.server, 'receiver0', ROOMS)
        expect(again == histories, 'the history is another one after kill -9')


def make_rooms(server):
    """The rooms and all users: while the store takes nothing, no new user can come."""
    rest = user(server, 'receiver0')
    for room in ROOMS:
        rest.make_room(room)
    rest.close()
    for name in ('receiver1', 'sender0', 'sender1', 'sender2'):
        rest = user(server, name)
        for room in ROOMS:
            same(rest.post(f'/v1/rooms/{room}/join').status, 200, f'{name} joins')
        rest.close()


async def reads_go_on(server):
    """While sends are refused, a member reads all by REST, a page by WebSocket, and joins."""
    rest = user(server, 'receiver1')
    for room in ROOMS:
        seqs = [event['seq'] for event in await off_loop(rest.history, room)]
        same(seqs, list(range(1, len(seqs) + 1)), f'the whole history of {room}')
    answer = await off_loop(rest.get, f'/v1/rooms/{ROOMS[0]}/messages?limit=20')
    same(answer.status, 200, f'history over REST: {answer}')
    expect(answer.json()['events'], 'a page of the newest events is empty')
    chat = await Chat.open(server, token_for(server, 'receiver1'))
    await chat.ok('ping')
    page = await chat.ok('history', room_id=ROOMS[0], after_seq=0, limit=20)
    seqs = [event['seq'] for event in page['events']]
    expect(seqs and seqs == list(range(1, len(seqs) + 1)), f'the oldest events: {seqs}')
    joined = await chat.follow(ROOMS[0], after_seq=page['last_seq'])
    expect(joined['seq'] >= page['last_seq'], f'{joined}')
    await chat.close()
    rest.close()


async def refused_at_once(server):
    """The code of a send, which must come quickly."""
    chat = await Chat.open(server, token_for(server, 'sender0'))
    begin = time.monotonic()
    reply = await chat.request('send', room_id=ROOMS[0], text='probe '.ljust(TEXT_BYTES, '.'),
                               idempotency_key=new_id('k'))
    took = time.monotonic() - begin
    await chat.close()
    expect(reply['type'] == 'error' and reply['code'] == 'unavailable', f'{reply}')
    expect(took < REFUSE_SECONDS, f'refused only after {took:.2f} s')
    rest = user(server, 'sender0')
    answer = await off_loop(rest.say, ROOMS[0], 'probe '.ljust(TEXT_BYTES, '.'))
    rest.close()
    same((answer.status, answer.code()), (503, 'unavailable'), 'a send over REST')


async def stays_refused(talk):
    """The last acks may still use what was set aside; after that there is none."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        acked, refused = talk.count('acked'), talk.count('refused')
        await asyncio.sleep(0.5)
        if talk.count('acked') == acked and talk.count('refused') > refused:
            return
    raise Failure('acks go on for 20 s on a full disk')


async def back_again(talk, context):
    """Sends are acked within BACK_SECONDS of now."""
    acked, begin = talk.count('acked'), time.monotonic()
    await talk.until(lambda: talk.count('acked') > acked, BACK_SECONDS, 'acks after the trouble')
    context.note(f'{talk.count("refused")} refused, acks again after '
                 f'{time.monotonic() - begin:.2f} s')
    await asyncio.sleep(0.5)


async def a_full_disk_refuses_sends_and_heals(context):
    disk = small_disk(context)
    server = context.server(data=disk / 'data', shards=2, config=journal(DISK_BYTES // 2))
    await server.spawn().ready_soon()
    await off_loop(make_rooms, server)
    talk = Talk(server)
    talk.start()
    await talk.until(lambda: talk.count('acked') > 300, 30, 'load')
    expect(talk.count('refused') == 0, 'refused before the disk was full')
    filling = True

    async def keep_full():
        while filling:
            fill(disk)
            await asyncio.sleep(0.05)

    filler = asyncio.create_task(keep_full())
    await talk.until(lambda: talk.count('refused') > 0, 60, 'a refusal')
    await stays_refused(talk)
    await reads_go_on(server)
    filling = False
    await filler
    (disk / 'filler').unlink()
    await back_again(talk, context)
    await talk.finish()


async def refusals_on_a_full_disk_are_quick(context):
    disk = small_disk(context)
    server = context.server(data=disk / 'data', shards=1, config=journal(DISK_BYTES // 2))
    await server.spawn().ready_soon()
    await off_loop(make_rooms, server)
    talk = Talk(server)
    talk.start()
    await talk.until(lambda: talk.count('acked') > 100, 30, 'load')
    fill(disk)
    await talk.until(lambda: talk.count('refused') > 0, 60, 'a refusal')
    fill(disk)
    await stays_refused(talk)
    await refused_at_once(server)
    for task in talk.tasks:
        task.cancel()
    await asyncio.gather(*talk.tasks, return_exceptions=True)


def a_disk_that_is_full_at_the_start_is_named(context):
    disk = small_disk(context)
    fill(disk)
    code, _, err = run_once(['--port', '0', '--data', disk / 'data', '--shards', '1'])
    expect(code > 0 and any(word in err.lower() for word in ('space', 'full')),
           f'exit {code}: {err}')
    context.note(f'exit {code}: {err.strip().splitlines()[-1]}')
    (disk / 'filler').unlink()
    server = context.start(data=disk / 'data', config=journal(DISK_BYTES // 4))
    make_rooms(server)


def lock_store(context, data):
    """Holds SQLite's write lock: the store can be read and takes nothing. Gives the release."""
    for path in sorted(pathlib.Path(data).rglob('*')):
        if path.is_file() and path.open('rb').read(15) == b'SQLite format 3':
            break
    else:
        raise Skip('no SQLite file in the data directory')
    connection = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
    try:
        connection.execute('BEGIN IMMEDIATE')
    except sqlite3.OperationalError as error:
        connection.close()
        raise Skip(f'the store cannot be held from outside: {error}') from None
    context.cleanup(connection.close)
    return connection.close


async def a_journal_at_its_bound_refuses_sends_and_heals(context):
    # What was handed to the store and is not in it yet must still be in memory: 8m is the default.
    server = context.server(shards=2, config=journal(16 << 20, log_bytes='8m'))
    await server.spawn().ready_soon()
    await off_loop(make_rooms, server)
    release = lock_store(context, server.data)
    talk = Talk(server)
    talk.start()
    await talk.until(lambda: talk.count('acked') > 100, 30, 'load')
    await talk.until(lambda: talk.count('refused') > 0, 60, 'a refusal at the bound')
    await stays_refused(talk)
    await reads_go_on(server)
    await refused_at_once(server)
    size = sum(p.stat().st_size for p in server.data.rglob('*')
                  if p.is_file() and 'journal' in str(p.relative_to(server.data)))
    context.note(f'journal of {size >> 20} MiB')
    release()
    await back_again(talk, context)
    await talk.finish()


async def a_journal_of_64_mib_is_recovered_within_two_seconds(context):
    server = context.server(shards=2, config={'journal': {'bytes_max': 4 * JOURNAL_BYTES}})
    await server.spawn().ready_soon()
    await off_loop(make_rooms, server)
    release = lock_store(context, server.data)
    chat = await Chat.open(server, token_for(server, 'sender0'))
    for room in ROOMS:
        await chat.follow(room)
        await chat.ok('leave', room_id=room)
    text_bytes = 16000
    count = JOURNAL_BYTES // text_bytes // len(ROOMS) + 1
    for room in ROOMS:
        await chat.say_many(room, count, lambda n: f'{n} '.ljust(text_bytes, 'z'), window=32)
    server.kill()
    release()
    times, copies = [], []
    for number in range(RECOVERY_TRIES):
        copies.append(context.directory() / 'data')
        shutil.copytree(server.data, copies[number], copy_function=shutil.copy)
    for copy in copies:
        again = context.server(data=copy, shards=(1, 2, 4)[len(times)], config={'journal': {
            'bytes_max': 4 * JOURNAL_BYTES}})
        begin = time.monotonic()
        await again.spawn().ready_soon(30)
        times.append(time.monotonic() - begin)
        histories = await off_loop(read_histories, again, 'receiver0', ROOMS)
        for room in ROOMS:
            texts = [mid for _, mid in histories[room] if mid is not None]
            same(texts, [str(n) for n in range(count)], f'messages of {room}')
        again.kill()
    context.note('ready after ' + ', '.join(f'{t:.2f} s' for t in times) + ' on 1, 2, 4 shards')
    expect(min(times) <= RECOVERY_SECONDS, f'the quickest of {times} is over {RECOVERY_SECONDS} s')


if __name__ == '__main__':
    run([a_full_disk_refuses_sends_and_heals, refusals_on_a_full_disk_are_quick,
         a_disk_that_is_full_at_the_start_is_named,
         a_journal_at_its_bound_refuses_sends_and_heals,
         a_journal_of_64_mib_is_recovered_within_two_seconds], seconds=360, seconds_quick=240)
