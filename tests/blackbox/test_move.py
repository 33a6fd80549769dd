#!/usr/bin/python3
"""damsod --move: all of a server's data is in the other store afterwards, or the move says why not.

Method: a damsod makes real data and stops; the move runs as an operator runs it, is killed and
started again; then a damsod in the other mode is asked for everything by REST, and the stores are
read by Debian's clients. What must be found is put there: a changed body, somebody else's room, a
message in Redis.
"""
import asyncio
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time

from client import Chat, Rest, new_id, token_for, user
from harness import expect, run, same
from server import DAMSOD, die_with_parent
from stores import Stores, gone

PASSWORD = 'correct horse battery staple'
THERE, BACK = ('embedded', 'redis+mongodb'), ('redis+mongodb', 'embedded')
MOVE_SECONDS_MAX = 300
KILLS_MAX = 200
ODD_TEXTS = ('한국어 담소', 'a "quoted" \\ line\nand a tab\t', '𝄞' * 50, ' ', '{"a":1}')

shared = {}     # the servers, and the data directory that every test copies


# --- data ---

class Made:
    """What the first damsod was told, so that the second one can be asked for it."""

    def __init__(self):
        self.user, self.histories, self.rooms, self.keys = None, {}, {}, {}


async def talk(server, made, count):
    """Rooms of all kinds: long, short, empty, private, left by some."""
    ann = await Chat.open(server, token_for(server, 'ann'))
    bob = await Chat.open(server, token_for(server, 'bob'))
    rest = user(server, 'ann')
    long, private, empty = new_id('long'), new_id('private'), new_id('empty')
    rest.make_room(long, name='The long one ✓')
    rest.make_room(private, visibility='private', members_max=7)
    rest.make_room(empty, durability='memory')
    small = [new_id('small') for _ in range(20)]
    for room in small:
        rest.make_room(room)
    for room in (long, *small):
        await ann.follow(room)
        await bob.follow(room)
    await ann.say_many(long, count)
    for number, text in enumerate(ODD_TEXTS):
        ack = await bob.say(long, text, idempotency_key=f'k{number}')
        made.keys[f'k{number}'] = (long, text, ack['seq'])
    for number, room in enumerate(small):
        await ann.say_many(room, number)
    await bob.ok('leave', room_id=small[0])
    await ann.close()
    await bob.close()
    return [long, private, empty, *small]


def remember(server, made, rooms):
    rest = user(server, 'ann')
    for room in rooms:
        made.histories[room] = rest.history(room)
        made.rooms[room] = rest.get(f'/v1/rooms/{room}').json()


def template(context):
    """The data directory of an embedded damsod that has stopped, made once; and what is in it."""
    if 'template' not in shared:
        made = Made()
        directory = shared['directory'] = context.directory()
        context.directories.remove(directory)        # it stays for the other tests
        server = context.start(directory=directory, shards=2)
        rooms = asyncio.run(talk(server, made, 3000 if context.quick else 12000))
        made.user = new_id('reg')
        answer = Rest(server).post('/v1/auth/register', {
            'username': made.user, 'password': PASSWORD, 'display_name': 'Ré'})
        same(answer.status, 201, f'register: {answer}')
        remember(server, made, rooms)
        same(server.stop(), 0, 'exit of the first damsod')
        shared['template'] = made
    return shared['template']


def copy_of(context, made):
    """A data directory of this test's own with that data."""
    del made
    path = context.directory()
    shutil.copytree(shared['directory'] / 'data', path / 'data')
    return path


def stores():
    if 'stores' not in shared:
        shared['stores'] = Stores().start()
    shared['stores'].fresh_namespace()
    shared['stores'].mongo_client = None            # it names the database of the last test
    return shared['stores']


# --- the command ---

class Move:
    """One run of damsod --move."""

    def __init__(self, path, pair, words, *arguments):
        config = path / 'move.conf'
        config.write_text(pair.config_lines())
        self.out, self.err = path / 'move.out', path / 'move.err'
        with open(self.out, 'wb') as out, open(self.err, 'wb') as err:
            self.process = subprocess.Popen(
                [DAMSOD, '--config', str(config), '--data', str(path / 'data'), '--move', *words,
                 *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                preexec_fn=die_with_parent, start_new_session=True)

    def end(self):
        return self.process.wait(MOVE_SECONDS_MAX)

    def said(self):
        return self.out.read_text() + self.err.read_text()


def moved(path, pair, words, *arguments):
    move = Move(path, pair, words, *arguments)
    same(move.end(), 0, f'exit of --move {words}: {move.said()[-1500:]}')
    return move


def refused(path, pair, words, *texts, code=5):
    move = Move(path, pair, words)
    same(move.end(), code, f'exit of --move {words}: {move.said()[-1500:]}')
    for text in texts:
        expect(text in move.said(), f'no {text!r} in {move.said()[-1500:]!r}')


def mark(path):
    return (path / 'data' / 'store').read_text()


# --- what must be the same ---

def same_data(server, made, killed=False):
    """killed: a start was, so a room of durability memory may have a new epoch."""
    rest = user(server, 'ann')
    for room, events in made.histories.items():
        same(rest.history(room), events, f'history of {room}')
        got, wanted = rest.get(f'/v1/rooms/{room}').json(), dict(made.rooms[room])
        if killed and wanted['durability'] == 'memory':
            wanted['epoch'] = got['epoch']
        same(got, wanted, f'the room {room}')
    answer = Rest(server).post('/v1/auth/login', {'username': made.user, 'password': PASSWORD})
    same(answer.status, 200, f'login: {answer}')
    bob = user(server, 'bob')
    for key, (room, text, seq) in made.keys.items():
        again = bob.say(room, text, key=key)
        same((again.status, again.json().get('seq')), (200, seq),    # 201: it was stored again
             f'the message sent again with key {key}: {again}')


def rows(path):
    """Every row of damso.db but those that tell of runs."""
    with sqlite3.connect(f'file:{path}/data/damso.db?mode=ro', uri=True) as db:
        return {table: db.execute(f'SELECT * FROM {table} ORDER BY 1, 2').fetchall()
                for table in ('rooms', 'events', 'members', 'users')}


# --- tests ---

def data_moves_and_a_damsod_serves_it_from_there(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    before = rows(path)
    move = moved(path, pair, THERE)
    context.note(move.out.read_text().splitlines()[-1])
    same(mark(path), 'redis+mongodb\n', 'the mark')
    same(rows(path), before, 'the source')
    same(pair.mongo().events.count_documents({}), len(before['events']), 'events in MongoDB')
    server = context.start(directory=path, config=pair.config(), shards=2)
    same_data(server, made)
    same(server.stop(), 0, 'exit of damsod')


def the_other_mode_refuses_and_a_second_move_does_nothing(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    moved(path, pair, THERE)
    expect('already' in moved(path, pair, THERE).said(), 'a second move says that it was done')
    server = context.server(directory=path, shards=1).spawn()
    same(server.wait(), 5, f'exit of damsod in the mode of before: {server.said()}')
    expect('the data of' in server.said() and 'redis+mongodb' in server.said(), server.said())


def kill_a_move_until_it_is_done(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    kills, seconds = killed_until_done(path, pair, THERE, context)
    context.note(f'{kills} kills, last run {seconds:.1f} s')
    expect(kills >= 3, f'only {kills} kills hit')
    server = context.start(directory=path, config=pair.config(), shards=2)
    same_data(server, made, killed=True)
    server.stop()


def killed_until_done(path, pair, words, context):
    rng, kills, wait = random.Random(context.args.seed), 0, 0.05
    for _ in range(KILLS_MAX):
        began = time.monotonic()
        move = Move(path, pair, words)
        try:
            code = move.process.wait(rng.uniform(0, wait))
        except subprocess.TimeoutExpired:
            move.process.send_signal(signal.SIGKILL)
            move.process.wait(10)
            expect(gone([move.process.pid]), 'the killed move is still there')
            kills += 1
            wait *= 1.25         # so that it ends some day
            continue
        same(code, 0, f'exit after {kills} kills: {move.said()[-1500:]}')
        return kills, time.monotonic() - began
    expect(False, f'{KILLS_MAX} kills and no end')
    return 0, 0


def a_stop_ends_it_between_batches_and_it_goes_on(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    move = Move(path, pair, THERE)
    deadline = time.monotonic() + 30
    while pair.mongo().events.count_documents({}) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    move.process.send_signal(signal.SIGTERM)
    same(move.end(), 1, f'exit of a move that was stopped: {move.said()}')
    expect('start the same command again' in move.said(), move.said())
    same(mark(path), 'embedded\n', 'the mark of a move that was stopped')
    moved(path, pair, THERE)
    server = context.start(directory=path, config=pair.config(), shards=2)
    same_data(server, made)
    server.stop()


def data_moves_back_into_a_new_directory(context):
    made, pair = template(context), stores()
    path, back = copy_of(context, made), context.directory()
    moved(path, pair, THERE)
    server = context.start(directory=path, config=pair.config(), shards=2)
    remember(server, made, list(made.histories))
    same(server.stop(), 0, 'exit of damsod')
    kills, _ = killed_until_done(back, pair, BACK, context)
    context.note(f'{kills} kills')
    same(mark(back), 'embedded\n', 'the mark')
    shutil.copy(path / 'data' / 'jwt.key', back / 'data' / 'jwt.key')
    server = context.start(directory=back, shards=2)
    same_data(server, made)
    server.stop()


def what_a_crash_left_in_the_journal_and_in_redis_moves_too(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    moved(path, pair, THERE)
    server = context.start(directory=path, shards=2,
                           config=pair.config(flush_interval='1h', flush_messages=100000))
    made = Made()
    rooms = asyncio.run(talk(server, made, 500))
    remember(server, made, rooms)
    server.kill()
    left = [key for key in pair.redis().scan_iter(f'{pair.prefix}*:log')]
    expect(left, 'nothing was left in Redis: the test proves nothing')
    moved(path, pair, BACK)
    same([key for key in pair.redis().scan_iter(f'{pair.prefix}*:log')], [], 'lists in Redis')
    server = context.start(directory=path, shards=2)
    rest = user(server, 'ann')
    for room, events in made.histories.items():
        same(rest.history(room), events, f'history of {room}')
        if made.rooms[room]['durability'] != 'memory':
            same(rest.get(f'/v1/rooms/{room}').json(), made.rooms[room], f'the room {room}')
    server.stop()


def a_changed_body_is_found_and_its_room_named(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    moved(path, pair, THERE)
    room = next(iter(made.histories))
    for field, value in (('body', '{"text":"changed"}'), ('at', 1), ('user_id', 'mallory')):
        event = pair.mongo().events.find_one({'room_id': room, 'seq': 7})
        pair.mongo().events.update_one({'_id': event['_id']}, {'$set': {field: value}})
        (path / 'data' / 'store').write_text('embedded\n')
        refused(path, pair, THERE, 'the copy is not right', f'events of the room {room} differ')
        same(mark(path), 'embedded\n', 'the mark of a move that found a difference')
        pair.mongo().events.replace_one({'_id': event['_id']}, event)
    moved(path, pair, THERE)


def a_message_that_is_missing_in_the_middle_is_found(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    moved(path, pair, THERE)
    room = next(iter(made.histories))
    same(pair.mongo().events.delete_one({'room_id': room, 'seq': 9}).deleted_count, 1, 'removed')
    (path / 'data' / 'store').write_text('embedded\n')
    refused(path, pair, THERE, f'events of the room {room} differ')


def a_target_with_other_data_is_refused(context):
    made, pair = template(context), stores()
    other = context.start(config=pair.config(), shards=1)
    room = new_id('other')
    user(other, 'eve').make_room(room)
    same(other.stop(), 0, 'exit of the other damsod')
    path = copy_of(context, made)
    before = pair.mongo().events.count_documents({})
    refused(path, pair, THERE, 'empty')
    same(pair.mongo().events.count_documents({}), before, 'events of the others')


def a_target_that_has_gone_on_is_refused(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    moved(path, pair, THERE)
    server = context.start(directory=path, config=pair.config(), shards=2)
    room = next(iter(made.histories))
    same(user(server, 'ann').say(room, 'newer').status, 201, 'status of a message')
    same(server.stop(), 0, 'exit of damsod')
    refused(copy_of(context, made), pair, THERE, room, 'with fewer messages')


def messages_in_the_targets_redis_are_refused(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    pair.redis().rpush(f'{pair.prefix}{{somebody}}:log', b'x')
    refused(path, pair, THERE, 'Redis holds messages of the room somebody')


def a_directory_in_use_is_refused(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    server = context.start(directory=path, shards=1)
    refused(path, pair, THERE, 'another damsod uses the data directory')
    server.stop()


def a_database_whose_damsod_died_wants_its_directory(context):
    pair = stores()
    server = context.start(config=pair.config(), shards=1)
    user(server, 'ann').make_room(new_id('room'))
    server.kill()
    new = context.directory()
    for _ in range(2):
        refused(new, pair, BACK, 'did not stop cleanly', '--data')
    moved(server.directory, pair, BACK)


def what_is_not_there_is_said(context):
    pair = stores()
    refused(context.directory(), pair, BACK, "holds nothing of damso's")
    empty = context.directory()
    (empty / 'data').mkdir()
    refused(empty, pair, THERE, 'has no damso.db')
    for words in (('embedded', 'embedded'), ('embedded',), ('sqlite', 'redis+mongodb')):
        refused(empty, pair, words, '--move: two words are needed', code=2)


def the_next_message_gets_the_next_seq(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    moved(path, pair, THERE)
    server = context.start(directory=path, config=pair.config(), shards=2)
    room = next(iter(made.histories))
    last = made.histories[room][-1]['seq']
    answer = user(server, 'ann').say(room, 'after the move')
    same(answer.json().get('seq'), last + 1, f'the next seq: {answer}')
    server.stop()


def no_secret_is_printed(context):
    made, pair = template(context), stores()
    path = copy_of(context, made)
    move = moved(path, pair, THERE)
    expect(not re.search(r'argon2|mongodb://\S+@', move.said()), 'a secret is printed')


TESTS = [
    data_moves_and_a_damsod_serves_it_from_there,
    the_next_message_gets_the_next_seq,
    the_other_mode_refuses_and_a_second_move_does_nothing,
    kill_a_move_until_it_is_done,
    a_stop_ends_it_between_batches_and_it_goes_on,
    data_moves_back_into_a_new_directory,
    a_changed_body_is_found_and_its_room_named,
    a_message_that_is_missing_in_the_middle_is_found,
    a_target_with_other_data_is_refused,
    a_target_that_has_gone_on_is_refused,
    messages_in_the_targets_redis_are_refused,
    a_directory_in_use_is_refused,
    a_database_whose_damsod_died_wants_its_directory,
    what_is_not_there_is_said,
    no_secret_is_printed,
    what_a_crash_left_in_the_journal_and_in_redis_moves_too,
]

if __name__ == '__main__':
    try:
        run(TESTS, seconds=900, seconds_quick=420,
            arguments={'--seed': {'type': int, 'default': int(time.time())}})
    finally:
        if 'stores' in shared:
            shared['stores'].stop()
        if 'directory' in shared:
            shutil.rmtree(shared['directory'], ignore_errors=True)
