#!/usr/bin/python3
"""Guarantee 5: a client that takes nothing and asks for everything costs others nothing lasting.

Method: a server with little room for output, so that a few clients use all of it up; every test
reads from /metrics that what it wanted to provoke did happen. The first two were crashes once: an
answer that found no room ended its connection while its caller went on with it. The first of them
shows such a fault only under AddressSanitizer.
"""
import asyncio
import json
import re
import socket
import threading
import time

from client import Chat, Rest, new_id, off_loop, token_for, user
from harness import Failure, expect, run, same
from raw import RawChat, dial, frame, handshake_bytes, read_head, parse_head

# 16 connections have 32 buffers of 4 KiB between them.
FEW_BUFFERS = {'limits': {'connections': '16', 'send_buffer_bytes': '4k'},
               'timeouts': {'send_stall': '1h'}}
ATTACKERS, REFUSED_WANTED, VICTIMS_MAX = 3, 5, 3000
# Some 60 answers fill it; what is to be recovered lies in the store, not in memory.
SMALL_OUTBOX = {'limits': {'connections': '64', 'send_buffer_bytes': '4k', 'outbox_bytes': '16k',
                           'frame_bytes': '16k', 'text_bytes': '8k', 'body_bytes': '16k',
                           'history_bytes': '16k'},
                'timeouts': {'send_stall': '1h'}, 'rooms': {'log_bytes': '128k'}}
STORED_EVENTS, STORED_TEXT_BYTES = 60, 7500
PINGS, JOINS = range(30, 70), 15
IDLE_ROOMS, IDLE_SECONDS_MAX = 20, 5
FLOOD_SENDS, FLOOD_PAUSE_SECONDS, FLOOD_SENDS_MIN = 16, 0.001, 1000
SMALLEST_RECEIVE_BUFFER = 2048
LONG_ID = 'x' * 240
PING = frame(json.dumps({'type': 'ping', 'id': LONG_ID}))


def metric(server, name):
    """The value of a metric, its labels included in the name."""
    rest = Rest(server)
    text = rest.get('/metrics').body.decode()
    rest.close()
    found = re.search(rf'^{re.escape(name)} (\d+)', text, re.MULTILINE)
    expect(found, f'/metrics has no {name}')
    return int(found[1])


def lives(server):
    expect(not server.has_died(), f'damsod ended with {server.process.poll()}: {server.said()}')


def is_served(server):
    """Whether a client of now gets as far as its handshake: it may be refused, never left alone."""
    with dial(server, 5) as sock:
        try:
            sock.sendall(handshake_bytes(server, token_for(server, 'victim')))
            return parse_head(read_head(sock, 5))[0] == 101
        except (Failure, ConnectionError):
            return False


def wait_until_served(server, seconds=5):
    deadline = time.monotonic() + seconds
    while not is_served(server):
        lives(server)
        expect(time.monotonic() < deadline, f'nobody is served {seconds} s after the attack')
        time.sleep(0.05)


async def a_room_works(server):
    """Two clients talk: nothing that the attack used is lost for good."""
    owner, room = user(server), new_id('room')
    await off_loop(owner.make_room, room)
    chats = [await Chat.open(server, token_for(server, name)) for name in ('one', 'two')]
    for chat in chats:
        await chat.follow(room)
    ack = await chats[0].say(room, 'all is well')
    await chats[1].has(room, ack['seq'])
    for chat in chats:
        await chat.close()


async def clients_that_do_not_read_use_up_the_buffers_and_not_the_server(context):
    server = context.start(config=FEW_BUFFERS)
    attackers = [RawChat(server, token_for(server, f'attacker{n}'), SMALLEST_RECEIVE_BUFFER)
                 for n in range(ATTACKERS)]
    for chat in attackers:
        chat.sock.setblocking(False)
    served = refused = 0
    while refused < REFUSED_WANTED and served + refused < VICTIMS_MAX:
        # One answer at a time, so that the last buffer is taken and those who hold it need no other
        # while somebody new needs one.
        try:
            attackers[served % ATTACKERS].sock.send(PING)
        except (BlockingIOError, ConnectionError):
            pass                                # it was cut off
        good = is_served(server)
        served, refused = served + good, refused + (not good)
        lives(server)
    for chat in attackers:
        chat.close()
    wait_until_served(server)
    await a_room_works(server)
    exhausted = metric(server, 'damso_pool_exhausted_total{pool="buffers"}')
    expect(exhausted > 0 and refused == REFUSED_WANTED,
           f'the buffers lasted, nothing proved: {served} served, {refused} refused')
    context.note(f'{served} served and {refused} refused meanwhile; {exhausted} times no buffer')
    same(server.stop(), 0, 'exit code')


def joins_without_reading(server, token, room, pings):
    """Some pings, then joins and leaves by turns, all in one write, from a client that does not
    read: as good as every second time it is an answer to a join that finds the outbox full."""
    chat = RawChat(server, token, SMALLEST_RECEIVE_BUFFER)
    same(chat.next_json()['type'], 'connected', 'the first frame')
    chat.sock.settimeout(2)
    join = frame(json.dumps({'type': 'join', 'id': LONG_ID, 'room_id': room, 'after_seq': 0}))
    leave = frame(json.dumps({'type': 'leave', 'id': LONG_ID, 'room_id': room}))
    try:
        chat.send(PING * pings + (join + leave) * JOINS)
    except socket.timeout:
        pass                                    # what the server does not read need not be sent
    time.sleep(0.02)
    chat.close()


async def a_join_whose_answer_finds_the_outbox_full_ends_that_client_alone(context):
    server = context.start(config=SMALL_OUTBOX)
    owner, room = user(server), new_id('room')
    owner.make_room(room)
    for _ in range(STORED_EVENTS):
        same(owner.say(room, 'x' * STORED_TEXT_BYTES).status, 201, 'a message')
    token = token_for(server, 'joiner')
    for pings in PINGS:
        joins_without_reading(server, token, room, pings)
        lives(server)
    slow = metric(server, 'damso_closes_total{reason="TOO_SLOW"}')
    expect(0 < slow, 'no outbox was full, nothing proved')
    await a_room_works(server)
    context.note(f'{slow} of {len(PINGS)} found the outbox full')
    same(server.stop(), 0, 'exit code')


def flood(server, token, room, over):
    """Sends all the time, and asks for no answer: at every moment something waits for the disk."""
    chat = RawChat(server, token)
    same(chat.next_json()['type'], 'connected', 'the first frame')
    words = frame(json.dumps({'type': 'send', 'room_id': room, 'text': 'without end'}))
    while not over.is_set():
        chat.send(words * FLOOD_SENDS)
        time.sleep(FLOOD_PAUSE_SECONDS)
    chat.close()


async def idle_rooms_leave_memory_while_another_is_busy(context):
    server = context.start(config={'timeouts': {'room_idle': '1s'}})
    owner, busy = user(server, 'owner'), new_id('busy')
    idle = [f'idle-{number}' for number in range(IDLE_ROOMS)]
    for room in [busy] + idle:
        await off_loop(owner.make_room, room)
    guest = await Chat.open(server, token_for(server, 'guest'))
    for room in idle:
        await guest.follow(room)                # its first: an event of the room
    loaded = await off_loop(metric, server, 'damso_rooms_loaded')
    expect(loaded >= IDLE_ROOMS, f'{loaded} rooms are in memory at first: nothing to prove')
    over = threading.Event()
    context.cleanup(over.set)
    flooding = asyncio.create_task(off_loop(flood, server, token_for(server, 'owner'), busy, over))
    await asyncio.sleep(0.2)
    await guest.close()
    deadline = time.monotonic() + IDLE_SECONDS_MAX
    while loaded > 1 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        loaded = await off_loop(metric, server, 'damso_rooms_loaded')
    over.set()
    await flooding
    same(loaded, 1, 'rooms in memory while only one was in use')
    acks = await off_loop(metric, server, 'damso_acks_total')
    expect(acks > FLOOD_SENDS_MIN, f'only {acks} messages: nothing was busy')
    # What left comes back whole, and its order goes on.
    answer = await off_loop(owner.say, idle[0], 'back again')
    same([event['seq'] for event in await off_loop(owner.history, idle[0])],
         list(range(1, answer.json()['seq'] + 1)), 'seqs of a room that was out of memory')
    context.note(f'{acks} messages meanwhile')


if __name__ == '__main__':
    run([clients_that_do_not_read_use_up_the_buffers_and_not_the_server,
         a_join_whose_answer_finds_the_outbox_full_ends_that_client_alone,
         idle_rooms_leave_memory_while_another_is_busy], seconds=120)
