#!/usr/bin/python3
"""Guarantee 2: all who follow a room see the same events in the same order; no silent gap.

Method: 40 connections over 4 shards. SO_REUSEPORT spreads connections by a hash of their ports, so
40 of them miss a given shard with a chance of 1 in 100,000. What was pushed is compared field by
field with what REST shows.
"""
import asyncio
import random

from client import Chat, Rest, new_id, off_loop, token_for, user
from harness import expect, run, same

SHARDS, MEMBERS, SENDERS, RECOVER_EVENTS = 4, 40, 8, 1000


async def members(server, room, count, prefix='m'):
    """`count` users who follow the room, one connection each."""
    chats = []
    for number in range(count):
        chat = await Chat.open(server, token_for(server, new_id(f'{prefix}{number}')))
        await chat.follow(room)
        chats.append(chat)
    return chats


def new_room(server, **fields):
    owner = user(server)
    room = new_id('room')
    owner.make_room(room, **fields)
    return owner, room


async def close_all(chats):
    await asyncio.gather(*(chat.close() for chat in chats))


def expect_dense(seqs, first, last, who):
    same(seqs, list(range(first, last + 1)), f'the seqs that {who} saw')


async def members_on_every_shard_see_one_order(context):
    server = context.shared_server(shards=SHARDS)
    owner, room = new_room(server)
    chats = await members(server, room, MEMBERS)
    last_joined = (await chats[0].ok('history', room_id=room, limit=1))['last_seq']
    count = 50 if context.quick else 250
    acks = await asyncio.gather(*(
        chat.say_many(room, count, lambda n, s=s: f'{s} {n}', window=32)
        for s, chat in enumerate(chats[:SENDERS])))
    last = max(ack['seq'] for some in acks for ack in some)
    same(last, last_joined + SENDERS * count, 'the last seq')
    history = {event['seq']: event for event in await off_loop(owner.history, room)}
    for number, chat in enumerate(chats):
        await chat.has(room, last, 30)
        await chat.settle()
        pushed = [push for push in chat.pushes[room] if push['seq'] > last_joined]
        expect_dense([push['seq'] for push in pushed], last_joined + 1, last, f'member {number}')
        for push in pushed:
            same(push, history[push['seq']], f'member {number}: pushed event against REST')
    for sender, some in enumerate(acks):
        seqs = [ack['seq'] for ack in some]
        expect(seqs == sorted(seqs), f'sender {sender} was stored out of its order')
        for number, ack in enumerate(some):
            same(history[ack['seq']]['text'], f'{sender} {number}', f'the event of ack {ack}')
            same(history[ack['seq']]['created_at'], ack['created_at'], 'created_at of ack, event')
    await close_all(chats)


async def connections_reach_every_shard(context):
    """The test above is only worth its name if the connections are spread."""
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    chats = await members(server, room, MEMBERS)
    text = (await off_loop(Rest(server).get, '/metrics')).body.decode()
    rows = [line for line in text.splitlines()
            if 'connections' in line.split('{')[0] and 'shard="' in line]
    hit = {line.split('shard="')[1].split('"')[0] for line in rows
           if float(line.rsplit(' ', 1)[1]) > 0}
    await close_all(chats)
    expect(rows, '/metrics has no connections by shard')
    same(len(hit), SHARDS, f'shards with connections, {rows}')


async def joins_in_mid_flight_see_neither_gap_nor_duplicate(context):
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    talkers = await members(server, room, 4, 't')
    going, chance = True, random.Random(7)

    async def talk(chat):
        number = 0
        while going:
            number += 1
            await chat.say(room, f'text {number}')

    async def join_somewhere(number):
        chat = await Chat.open(server, token_for(server, f'joiner{number % 5}-{room}'))
        now = talkers[0].seqs(room)[-1]
        after = chance.randint(max(0, now - 900), now)
        joined = await chat.follow(room, after_seq=after)
        expect(joined['recovered'], f'after_seq {after} of {now}: {joined}')
        expect(joined['seq'] >= after, f'{joined} after {after}')
        await chat.has(room, joined['seq'] + 5)
        seqs = chat.seqs(room)
        expect_dense(seqs, after + 1, seqs[-1], f'joiner {number}')
        first = next(i for i, frame in enumerate(chat.arrivals) if frame['type'] == 'joined')
        expect(all(frame['type'] == 'connected' for frame in chat.arrivals[:first]),
               'an event came before joined')
        await chat.close()

    tasks = [asyncio.create_task(talk(chat)) for chat in talkers]
    await talkers[0].until(lambda: len(talkers[0].seqs(room)) > 20, why='traffic')
    rounds = 10 if context.quick else 60
    for start in range(0, rounds * 4, 4):
        await asyncio.gather(*(join_somewhere(start + n) for n in range(4)))
    going = False
    await asyncio.gather(*tasks)
    context.note(f'{rounds * 4} joins during {talkers[0].seqs(room)[-1]} events')
    await close_all(talkers)


async def too_far_back_is_not_recovered_and_says_so(context):
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    talker = (await members(server, room, 1))[0]
    name = new_id('returning')
    await off_loop(user(server, name).post, f'/v1/rooms/{room}/join')
    acks = await talker.say_many(room, RECOVER_EVENTS + 100)
    last = acks[-1]['seq']
    for due, recovered in ((RECOVER_EVENTS, True), (RECOVER_EVENTS + 1, False), (last, False)):
        chat = await Chat.open(server, token_for(server, name))
        joined = await chat.follow(room, after_seq=last - due)
        same((joined['recovered'], joined['seq']), (recovered, last), f'joined, {due} due')
        await talker.say(room, 'one more')
        await chat.has(room, last + 1)
        await chat.settle()
        first = last - due + 1 if recovered else last + 1
        expect_dense(chat.seqs(room), first, last + 1, f'a client with {due} due')
        history = await chat.ok('history', room_id=room, after_seq=last - due, limit=10)
        same([e['seq'] for e in history['events']],
             list(range(last - due + 1, last - due + 11)), 'the missed part in history')
        await chat.close()
        last += 1
    await talker.close()


async def another_epoch_is_not_recovered(context):
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    talker, chat = await members(server, room, 2)
    acks = await talker.say_many(room, 10)
    epoch = (await talker.follow(room))['epoch']
    expect(isinstance(epoch, str) and epoch, f'epoch {epoch!r}')
    joined = await chat.follow(room, after_seq=acks[0]['seq'], epoch=epoch)
    expect(joined['recovered'] and joined['epoch'] == epoch, f'{joined}')
    other = await Chat.open(server, token_for(server, new_id('late')))
    joined = await other.follow(room, after_seq=acks[0]['seq'], epoch='another')
    expect(joined['recovered'] is False and joined['epoch'] == epoch, f'{joined}')
    ack = await talker.say(room, 'after it')
    await other.has(room, ack['seq'])
    expect_dense([s for s in other.seqs(room) if s > joined['seq']], joined['seq'] + 1, ack['seq'],
                 'a client with another epoch')
    expect(min(other.seqs(room)) >= joined['seq'], 'events before seq came unrecovered')
    await close_all([talker, chat, other])


async def a_position_ahead_of_the_log_is_not_recovered(context):
    """Such a client saw a log that this one is not: it must reload, not wait in silence."""
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    chat, talker = await members(server, room, 2)
    reply = await chat.request('join', room_id=room, after_seq=1000000)
    expect(reply.get('recovered') is False or reply.get('code') == 'bad_request', f'{reply}')
    if reply['type'] == 'joined':
        ack = await talker.say(room, 'live')
        await chat.has(room, ack['seq'])
    await close_all([chat, talker])


async def leaving_stops_events_and_keeps_membership(context):
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    chat, talker = await members(server, room, 2)
    left = await chat.ok('leave', room_id=room)
    same(left, {'type': 'left', 'id': left['id'], 'room_id': room}, 'left')
    before = len(chat.seqs(room))
    acks = await talker.say_many(room, 20)
    ack = await chat.say(room, 'still a member')
    await chat.settle()
    same(len(chat.seqs(room)), before, 'events after leave')
    joined = await chat.follow(room, after_seq=acks[0]['seq'] - 1)
    same(joined['seq'], ack['seq'], 'seq of the second join: no member event came')
    await chat.has(room, ack['seq'])
    expect_dense(chat.seqs(room)[before:], acks[0]['seq'], ack['seq'], 'a client that came back')
    await close_all([chat, talker])


async def joining_twice_on_a_connection_sends_no_event_twice(context):
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    chat, talker = await members(server, room, 2)
    await chat.follow(room)
    acks = await talker.say_many(room, 20)
    await chat.has(room, acks[-1]['seq'])
    await chat.settle()
    seqs = chat.seqs(room)
    same(len(seqs), len(set(seqs)), 'distinct events')
    await close_all([chat, talker])


async def membership_makes_one_event_each_way(context):
    server = context.shared_server(shards=SHARDS)
    owner, room = new_room(server)
    watcher = (await members(server, room, 1))[0]
    name = new_id('guest')
    guest = user(server, name)
    for call, codes in (('join', (200,)), ('join', (200,)), ('leave', (200, 204)),
                        ('leave', (200, 204, 403)), ('join', (200,))):
        answer = await off_loop(guest.post, f'/v1/rooms/{room}/{call}')
        expect(answer.status in codes, f'{call}: {answer}')
    chat = await Chat.open(server, token_for(server, name))
    await chat.follow(room)
    ack = await chat.say(room, 'a member by REST')
    await watcher.has(room, ack['seq'])
    events = await off_loop(owner.history, room)
    mine = [(e['action'], e['role']) for e in events
            if e['type'] == 'member' and e['user_id'] == chat.connected['user_id']]
    same(mine, [('joined', 'member'), ('left', 'member'), ('joined', 'member')], 'member events')
    pushed = [e for e in watcher.pushes[room] if e['type'] == 'member'
              and e['user_id'] == chat.connected['user_id']]
    same([e['action'] for e in pushed], ['joined', 'left', 'joined'], 'pushed member events')
    await off_loop(guest.post, f'/v1/rooms/{room}/leave')
    await chat.refused('not_a_member', 'send', room_id=room, text='not any more')
    await close_all([chat, watcher])


async def two_connections_of_one_user_both_see_everything(context):
    server = context.shared_server(shards=SHARDS)
    _, room = new_room(server)
    name = new_id('twice')
    chats = [await Chat.open(server, token_for(server, name)) for _ in range(6)]
    for chat in chats:
        await chat.follow(room)
    start = (await chats[0].ok('history', room_id=room, limit=1))['last_seq']
    acks = await asyncio.gather(*(chat.say_many(room, 20) for chat in chats))
    last = max(ack['seq'] for some in acks for ack in some)
    for chat in chats:
        await chat.has(room, last)
        expect_dense([s for s in chat.seqs(room) if s > start], start + 1, last, 'each connection')
    joined = await chats[0].follow(room)
    same(joined['member_count'], 2, 'members: the owner and this user')
    await close_all(chats)


async def many_rooms_do_not_mix(context):
    server = context.shared_server(shards=SHARDS)
    rooms = [new_room(server)[1] for _ in range(20)]
    chats = [await Chat.open(server, token_for(server, new_id('all'))) for _ in range(4)]
    for chat in chats:
        for room in rooms:
            await chat.follow(room)
    await asyncio.gather(*(chat.say_many(room, 10, lambda n, r=room: f'{r} {n}')
                           for chat in chats for room in rooms))
    for room in rooms:
        last = (await chats[0].ok('history', room_id=room, limit=1))['last_seq']
        for chat in chats:
            await chat.has(room, last)
            seqs = chat.seqs(room)
            expect_dense(seqs, seqs[0], last, f'a follower of {room}')
            expect(all(e['text'].startswith(room + ' ') for e in chat.pushes[room]
                       if e['type'] == 'message'), f'a text of another room in {room}')
    await close_all(chats)


if __name__ == '__main__':
    run([connections_reach_every_shard, members_on_every_shard_see_one_order,
         joins_in_mid_flight_see_neither_gap_nor_duplicate,
         too_far_back_is_not_recovered_and_says_so, another_epoch_is_not_recovered,
         a_position_ahead_of_the_log_is_not_recovered, leaving_stops_events_and_keeps_membership,
         joining_twice_on_a_connection_sends_no_event_twice, membership_makes_one_event_each_way,
         two_connections_of_one_user_both_see_everything, many_rooms_do_not_mix],
        seconds=240, seconds_quick=120)
