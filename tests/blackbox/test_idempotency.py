#!/usr/bin/python3
"""Guarantee 3: the same idempotency_key never makes a second message, whatever way it comes again.

Method: each test sends one key by several ways (same connection, new one, REST, after kill -9) and
counts the messages in the history, not only the answers.
"""
import asyncio
import time

from client import Chat, new_id, off_loop, token_for, user
from harness import run, same

WINDOW = 4096       # keyed messages of a room that are remembered exactly, at least


async def room_with(server, name):
    """A fresh room and a connection of `name` that follows it: (room, rest, chat)."""
    rest, room = user(server, name), new_id('room')
    await off_loop(rest.make_room, room)
    chat = await Chat.open(server, token_for(server, name))
    await chat.follow(room)
    return room, rest, chat


async def texts(rest, room):
    return [e['text'] for e in await off_loop(rest.history, room) if e['type'] == 'message']


async def same_key_on_one_connection_is_one_message(context):
    server = context.shared_server(shards=2)
    room, rest, chat = await room_with(server, new_id('ann'))
    first = await chat.say(room, 'once', idempotency_key='k1')
    same(first['duplicate'], False, 'duplicate of the first')
    for _ in range(3):
        again = await chat.say(room, 'once', idempotency_key='k1')
        same((again['seq'], again['created_at'], again['duplicate']),
             (first['seq'], first['created_at'], True), 'the repeated ack')
    await chat.settle()
    same(await texts(rest, room), ['once'], 'messages')
    same([e['text'] for e in chat.pushes[room] if e['type'] == 'message'], ['once'], 'pushed')
    await chat.close()


async def repeats_in_flight_together_are_one_message(context):
    server = context.shared_server(shards=2)
    name = new_id('ann')
    room, rest, chat = await room_with(server, name)
    chats = [chat] + [await Chat.open(server, token_for(server, name)) for _ in range(7)]
    for number in range(10):
        acks = await asyncio.gather(*(
            c.say(room, f'once {number}', idempotency_key=f'k{number}') for c in chats
            for _ in range(4)))
        same(len({ack['seq'] for ack in acks}), 1, f'seqs of key {number}: {acks[:3]}')
        same(sum(not ack['duplicate'] for ack in acks), 1, 'acks that say duplicate:false')
    same(await texts(rest, room), [f'once {n}' for n in range(10)], 'messages')
    await asyncio.gather(*(c.close() for c in chats))


async def same_key_over_rest_and_websocket_is_one_message(context):
    server = context.shared_server(shards=2)
    name = new_id('ann')
    room, rest, chat = await room_with(server, name)
    made = await off_loop(rest.say, room, 'by rest', 'k1')
    same(made.status, 201, 'the first answer')
    ack = await chat.say(room, 'by rest', idempotency_key='k1')
    same((ack['seq'], ack['duplicate']), (made.json()['seq'], True), 'the ack')
    ack = await chat.say(room, 'by websocket', idempotency_key='k2')
    answer = await off_loop(rest.say, room, 'by websocket', 'k2')
    same((answer.status, answer.json()['seq']), (200, ack['seq']), 'REST after WebSocket')
    again = await off_loop(rest.say, room, 'by rest', 'k1')
    same((again.status, again.json()), (200, made.json()), 'the same event again')
    await chat.close()
    chat = await Chat.open(server, token_for(server, name))
    ack = await chat.say(room, 'by rest', idempotency_key='k1')
    same((ack['seq'], ack['duplicate']), (made.json()['seq'], True), 'ack on a new connection')
    same(await texts(rest, room), ['by rest', 'by websocket'], 'messages')
    await chat.close()


async def same_key_with_another_body_is_a_conflict(context):
    server = context.shared_server(shards=2)
    room, rest, chat = await room_with(server, new_id('ann'))
    await chat.say(room, 'first', idempotency_key='k1')
    await chat.refused('conflict', 'send', room_id=room, text='other', idempotency_key='k1')
    await chat.refused('conflict', 'send', room_id=room, text='first', data={'a': 1},
                       idempotency_key='k1')
    answer = await off_loop(rest.say, room, 'other', 'k1')
    same((answer.status, answer.code()), (409, 'conflict'), 'REST with another text')
    ack = await chat.say(room, 'first', idempotency_key='k1')
    same(ack['duplicate'], True, 'the right body still is a repeat')
    same(await texts(rest, room), ['first'], 'messages')
    await chat.close()


async def keys_belong_to_one_user_and_room(context):
    server = context.shared_server(shards=2)
    room, rest, chat = await room_with(server, new_id('ann'))
    _, _, other = await room_with(server, new_id('bob'))
    await other.follow(room)
    second = new_id('room')
    await off_loop(rest.make_room, second)
    acks = [await chat.say(room, 'hello', idempotency_key='k'),
            await other.say(room, 'hello', idempotency_key='k'),
            await chat.say(second, 'hello', idempotency_key='k'),
            await chat.say(room, 'hello'), await chat.say(room, 'hello')]
    same([ack['duplicate'] for ack in acks], [False] * 5, 'duplicate')
    same(len(await texts(rest, room)), 4, 'messages in the room')
    await asyncio.gather(chat.close(), other.close())


async def a_key_is_1_to_64_printable_ascii_characters(context):
    server = context.shared_server(shards=2)
    room, rest, chat = await room_with(server, new_id('ann'))
    for key in ('', 'x' * 65, 'caf\u00e9', 'line\nbreak', 7, ['k'], {}):
        await chat.refused('bad_request', 'send', room_id=room, text='t', idempotency_key=key)
    answer = await off_loop(rest.say, room, 't', 'x' * 65)
    same((answer.status, answer.code()), (400, 'bad_request'), 'REST with 65 characters')
    for key in ('x', 'x' * 64, 'a b~!"\\/'):
        ack = await chat.say(room, 't', idempotency_key=key)
        same((await chat.say(room, 't', idempotency_key=key))['seq'], ack['seq'], f'key {key!r}')
    same(len(await texts(rest, room)), 3, 'messages')
    await chat.close()


async def keys_survive_kill_and_another_number_of_shards(context):
    server = context.start(shards=4)
    name = new_id('ann')
    room, rest, chat = await room_with(server, name)
    acks = await chat.say_many(room, 200, idempotency_key=lambda n: f'k{n}')
    rest.close()
    for shards in (1, 2, 4):
        server.kill()
        server.shards = shards
        await server.spawn().ready_soon()
        chat = await Chat.open(server, token_for(server, name))
        again = await chat.say_many(room, 200, idempotency_key=lambda n: f'k{n}')
        same([(a['seq'], a['duplicate'], a['created_at']) for a in again],
             [(a['seq'], True, a['created_at']) for a in acks], f'acks after kill, {shards} shards')
        await chat.refused('conflict', 'send', room_id=room, text='other', idempotency_key='k7')
        answer = await off_loop(rest.say, room, 'text 8', 'k8')
        same((answer.status, answer.json()['seq']), (200, acks[8]['seq']), 'REST after kill')
        rest.close()
        await chat.close()
    rest = user(server, name)
    same(len(await texts(rest, room)), 200, 'messages')


async def the_oldest_of_4096_keys_is_still_known(context):
    server = context.start(shards=2)
    name = new_id('ann')
    room, rest, chat = await room_with(server, name)
    acks = await chat.say_many(room, WINDOW, idempotency_key=lambda n: f'k{n}')
    for number in (0, 1, WINDOW // 2, WINDOW - 1):
        ack = await chat.say(room, f'text {number}', idempotency_key=f'k{number}')
        same((ack['seq'], ack['duplicate']), (acks[number]['seq'], True), f'key {number}')
    rest.close()
    for how in ('kill', 'stop'):
        getattr(server, how)()
        await server.spawn().ready_soon()
        chat = await Chat.open(server, token_for(server, name))
        for number in (0, 1, WINDOW // 2, WINDOW - 1):
            ack = await chat.say(room, f'text {number}', idempotency_key=f'k{number}')
            same((ack['seq'], ack['duplicate']), (acks[number]['seq'], True),
                 f'key {number} after {how}')
        await chat.close()
    same(len(await texts(user(server, name), room)), WINDOW, 'messages')


async def a_room_that_left_memory_still_knows_its_keys(context):
    """Nobody follows the room for longer than timeouts.room_idle; others are made meanwhile."""
    server = context.start(shards=2, config={'timeouts': {'room_idle': '1s'}})
    room, rest, chat = await room_with(server, new_id('ann'))
    acks = await chat.say_many(room, 50, idempotency_key=lambda n: f'k{n}')
    await chat.close()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        other = new_id('filler')
        await off_loop(rest.make_room, other)
        await off_loop(rest.say, other, 'filler', 'k1')
    chat = await Chat.open(server, rest.token)
    again = await chat.say_many(room, 50, idempotency_key=lambda n: f'k{n}')
    same([(a['seq'], a['duplicate']) for a in again], [(a['seq'], True) for a in acks], 'the acks')
    ack = await chat.say(room, 'a new one', idempotency_key='k50')
    same((ack['seq'], ack['duplicate']), (acks[-1]['seq'] + 1, False), 'the next message')
    same(len(await texts(rest, room)), 51, 'messages')
    await chat.close()


if __name__ == '__main__':
    run([same_key_on_one_connection_is_one_message, repeats_in_flight_together_are_one_message,
         same_key_over_rest_and_websocket_is_one_message, same_key_with_another_body_is_a_conflict,
         keys_belong_to_one_user_and_room, a_key_is_1_to_64_printable_ascii_characters,
         keys_survive_kill_and_another_number_of_shards, the_oldest_of_4096_keys_is_still_known,
         a_room_that_left_memory_still_knows_its_keys], seconds=240, seconds_quick=120)
