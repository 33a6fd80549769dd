#!/usr/bin/python3
"""The happy path of every request, field by field, as docs/PROTOCOL.md gives it.

Method: each reply must have exactly the documented fields with the documented types; a new field
is a change of the protocol and shows here first.
"""
import asyncio
import http.client
import json
import re
import time

from client import Chat, Rest, new_id, off_loop, sign, claims_of, token_for, user
from harness import expect, run, same
from raw import PING, PONG, RawChat, dial, frame, handshake_bytes, read_answer

TIME = re.compile(r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$')
SAMPLE = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*'
                    r'(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\.|[^"\\])*",?)*\})?'
                    r' ([-+]?[0-9.eE+-]+|[-+]?Inf|NaN)( \d+)?$')
ROOM_ID = re.compile(r'^[A-Za-z0-9._-]{1,64}$')
CONNECT_SECONDS, TYPING_SECONDS = 10, 3

MESSAGE = {'type': str, 'room_id': str, 'seq': int, 'user_id': str, 'username': str, 'text': str,
           'created_at': TIME}
MEMBER = {'type': str, 'room_id': str, 'seq': int, 'user_id': str, 'action': str, 'role': str,
          'created_at': TIME}
ACK = {'type': str, 'id': int, 'room_id': str, 'seq': int, 'created_at': TIME, 'durability': str,
       'duplicate': bool}
JOINED = {'type': str, 'id': int, 'room_id': str, 'seq': int, 'epoch': str, 'recovered': bool,
          'member_count': int}
CONNECTED = {'type': str, 'id': int, 'user_id': str, 'session_id': str, 'ping_interval': int}
HISTORY = {'events': list, 'next_cursor': (int, type(None)), 'epoch': str, 'last_seq': int}
SESSION = {'user_id': str, 'username': str, 'access_token': str, 'token_type': str,
           'expires_in': int}
SESSION_LATER = ('refresh_token',)     # comes with refresh and revocation


def shape(value, fields, what, optional=()):
    """Exactly these fields, each of its type or form; `optional` ones may be there too."""
    for name, kind in fields.items():
        expect(name in value, f'{what} has no {name}: {value}')
        if isinstance(kind, re.Pattern):
            expect(isinstance(value[name], str) and kind.match(value[name]),
                   f'{name} of {what} is {value[name]!r}')
        else:
            good = isinstance(value[name], kind) and not (
                kind is int and isinstance(value[name], bool))
            expect(good, f'{name} of {what} is {value[name]!r}')
    unknown = set(value) - set(fields) - set(optional)
    expect(not unknown, f'{what} has undocumented fields {sorted(unknown)}: {value}')
    return value


def error_shape(answer, status, code):
    same((answer.status, answer.code()), (status, code), f'{answer}')
    same(set(answer.json()), {'error'}, 'fields of the body')
    shape(answer.json()['error'], {'code': str, 'message': str, 'request_id': str}, 'error',
          optional=('retry_after',))
    expect(answer.headers.get('content-type', '').startswith('application/json'),
           f'content-type of an error: {answer.headers}')


def the_server(context):
    return context.shared_server(shards=2)


async def room_with(server, name):
    rest, room = user(server, name), new_id('room')
    await off_loop(rest.make_room, room)
    return rest, room


def registering_logs_in_and_takes_the_name(context):
    rest = Rest(the_server(context))
    name = new_id('Ann')[:20]
    made = rest.post('/v1/auth/register', {'username': name, 'password': 'a long password',
                                           'display_name': 'Ann'})
    same(made.status, 201, f'register: {made}')
    session = shape(made.json(), SESSION, 'register', SESSION_LATER)
    same((session['username'], session['token_type']), (name, 'Bearer'), 'register')
    expect(0 < session['expires_in'] <= 900, f'expires_in {session["expires_in"]}')
    for taken in (name, name.upper(), name.lower()):
        error_shape(rest.post('/v1/auth/register', {'username': taken, 'password': 'p' * 12}),
                    409, 'conflict')
    again = rest.post('/v1/auth/login', {'username': name, 'password': 'a long password'})
    same(again.status, 200, f'login: {again}')
    shape(again.json(), SESSION, 'login', SESSION_LATER)
    same(again.json()['user_id'], session['user_id'], 'user_id of login')
    wrong = rest.post('/v1/auth/login', {'username': name, 'password': 'another one'})
    unknown = rest.post('/v1/auth/login', {'username': new_id('no'), 'password': 'another one'})
    error_shape(wrong, 401, 'unauthorized')
    error_shape(unknown, 401, 'unauthorized')
    same(wrong.json()['error']['message'], unknown.json()['error']['message'],
         'messages for a wrong password and an unknown user')
    rest.token = session['access_token']
    expect(rest.post('/v1/rooms', {'name': 'n', 'visibility': 'public'}).status == 201,
           'the access token works')


def names_and_passwords_are_checked(context):
    rest = Rest(the_server(context))
    for name in ('', 'x', 'x' * 33, 7, None, ['ann']):
        error_shape(rest.post('/v1/auth/register', {'username': name, 'password': 'p' * 12}),
                    400, 'bad_request')
    for password in ('', 7, None):
        error_shape(rest.post('/v1/auth/register',
                              {'username': new_id('u')[:20], 'password': password}),
                    400, 'bad_request')


def rooms_are_made_listed_and_read(context):
    server = the_server(context)
    rest, room = user(server), new_id('room')
    made = rest.make_room(room, max_members=100)
    same((made['room_id'], made['name'], made['visibility']), (room, room, 'public'), 'the room')
    named = rest.post('/v1/rooms', {'name': 'without an id', 'visibility': 'public'})
    same(named.status, 201, f'{named}')
    expect(ROOM_ID.match(named.json()['room_id']), f'{named}')
    error_shape(rest.post('/v1/rooms', {'room_id': room, 'name': 'n', 'visibility': 'public'}),
                409, 'conflict')
    read = rest.get(f'/v1/rooms/{room}')
    same(read.status, 200, f'{read}')
    same((read.json()['room_id'], read.json()['name']), (room, room), 'the room read')
    listed, cursor = [], None
    for _ in range(200):
        page = rest.get('/v1/rooms?limit=5' + (f'&cursor={cursor}' if cursor else ''))
        same(page.status, 200, f'{page}')
        shape(page.json(), {'rooms': list, 'next_cursor': (str, int, type(None))}, 'rooms')
        expect(len(page.json()['rooms']) <= 5, 'a page is longer than its limit')
        listed += [entry['room_id'] for entry in page.json()['rooms']]
        cursor = page.json()['next_cursor']
        if cursor is None:
            break
    expect(room in listed and named.json()['room_id'] in listed, f'{room} is not in the list')
    same(len(listed), len(set(listed)), 'distinct rooms over all pages')
    error_shape(rest.get('/v1/rooms/no-such-room'), 404, 'not_found')
    anonymous = Rest(server)
    error_shape(anonymous.post('/v1/rooms', {'name': 'n', 'visibility': 'public'}),
                401, 'unauthorized')


def private_rooms_are_closed_to_others(context):
    server = the_server(context)
    owner, other, room = user(server), user(server), new_id('room')
    owner.make_room(room, visibility='private')
    owner.say(room, 'among us')
    listed = other.get(f'/v1/rooms?limit=200&query={room}').json()['rooms']
    expect(room not in [entry['room_id'] for entry in listed], 'a private room is listed')
    for answer in (other.post(f'/v1/rooms/{room}/join'), other.get(f'/v1/rooms/{room}/messages'),
                   other.say(room, 'let me in')):
        expect(answer.status in (403, 404) and answer.code() in (
            'forbidden', 'not_found', 'not_a_member'), f'{answer}')
    same(owner.get(f'/v1/rooms/{room}/messages').status, 200, 'the owner reads it')


async def private_rooms_are_closed_over_websocket_too(context):
    server = the_server(context)
    owner, room = user(server), new_id('room')
    await off_loop(owner.make_room, room, visibility='private')
    chat = await Chat.open(server, token_for(server, new_id('other')))
    for request, fields in (('join', {}), ('send', {'text': 't'}), ('history', {})):
        await chat.refused(('forbidden', 'not_found', 'not_a_member'), request, room_id=room,
                           **fields)
    await chat.close()


def a_posted_message_is_the_event(context):
    server = the_server(context)
    name = new_id('ann')
    rest, room = user(server, name), new_id('room')
    rest.make_room(room)
    first = rest.say(room, 'hello', key='k')
    same(first.status, 201, f'{first}')
    event = shape(first.json(), MESSAGE, 'event')
    same((event['type'], event['text'], event['username'], event['room_id']),
         ('message', 'hello', name, room), 'event')
    again = rest.say(room, 'hello', key='k')
    same((again.status, again.json()), (200, event), 'the same key')
    data = {'a': [1, 2.5, 'x', None, True, {'\u00e9': '\U0001f600'}]}
    rich = rest.say(room, 'text \u2028 \U0001f600 <b>', data=data, reply_to=event['seq'])
    same(rich.status, 201, f'{rich}')
    shape(rich.json(), {**MESSAGE, 'data': dict, 'reply_to': int}, 'event')
    same((rich.json()['text'], rich.json()['data'], rich.json()['reply_to'], rich.json()['seq']),
         ('text \u2028 \U0001f600 <b>', data, event['seq'], event['seq'] + 1), 'event')
    same(rest.history(room)[-2:], [event, rich.json()], 'the history')


def joining_makes_a_member_event(context):
    server = the_server(context)
    owner, guest, room = user(server), user(server), new_id('room')
    owner.make_room(room)
    same(guest.post(f'/v1/rooms/{room}/join').status // 100, 2, 'join')
    event = shape(owner.history(room)[-1], MEMBER, 'member event', optional=('username',))
    same((event['type'], event['action'], event['role']), ('member', 'joined', 'member'), 'event')


def history_pages_both_ways(context):
    server = the_server(context)
    rest, room = user(server), new_id('room')
    rest.make_room(room)
    for number in range(25):
        rest.say(room, f'text {number}')
    ascending = rest.history(room, limit=7)
    last = ascending[-1]['seq']
    same([e['seq'] for e in ascending], list(range(1, last + 1)), 'asc')
    path, descending, cursor = f'/v1/rooms/{room}/messages?limit=7', [], None
    for _ in range(10):
        page = rest.get(path + (f'&before_seq={cursor}' if cursor else '')).json()
        shape(page, HISTORY, 'page')
        same(page['last_seq'], last, 'last_seq')
        descending += page['events']
        cursor = page['next_cursor']
        if cursor is None:
            break
        same(cursor, page['events'][-1]['seq'], 'next_cursor')
    same(descending, ascending[::-1], 'desc')
    for query, wanted in (('after_seq=3&limit=2', [4, 5]), ('before_seq=4&limit=2', [3, 2]),
                          ('after_seq=3&order=desc&limit=200', list(range(last, 3, -1))),
                          ('before_seq=4&order=asc&limit=200', [1, 2, 3]),
                          ('after_seq=3&before_seq=6', [4, 5]), (f'after_seq={last}', []),
                          ('limit=1', [last]), ('', list(range(last, 0, -1)))):
        answer = rest.get(f'/v1/rooms/{room}/messages?{query}')
        same(answer.status, 200, f'{query}: {answer}')
        same([e['seq'] for e in answer.json()['events']], wanted, query or 'no query')
    for query in ('limit=0', 'limit=201', 'limit=x', 'limit=-1', 'after_seq=-1', 'after_seq=x',
                  'before_seq=1.5', 'order=up', 'limit='):
        error_shape(rest.get(f'/v1/rooms/{room}/messages?{query}'), 400, 'bad_request')


def unknown_paths_and_methods_are_named(context):
    server = the_server(context)
    rest, room = user(server), new_id('room')
    rest.make_room(room)
    for path in ('/v1/nothing', '/v1/', '/v2/rooms', '/v1/rooms/a/b/c/d', f'/v1/rooms/{room}/x'):
        error_shape(rest.get(path), 404, 'not_found')
    for method, path in (('DELETE', '/v1/auth/login'), ('GET', '/v1/auth/login'),
                         ('PUT', '/v1/rooms'), ('POST', '/healthz'), ('POST', '/metrics'),
                         ('PUT', f'/v1/rooms/{room}/messages')):
        answer = rest.call(method, path, {} if method != 'GET' else None)
        same(answer.status, 405, f'{method} {path}: {answer}')
        allowed = {name.strip() for name in answer.headers.get('allow', '').split(',')}
        expect(allowed and method not in allowed and '' not in allowed,
               f'{method} {path}: Allow {answer.headers.get("allow")!r}')


def head_works_where_get_does(context):
    server = the_server(context)
    rest, room = user(server), new_id('room')
    rest.make_room(room)
    for path in ('/healthz', '/readyz', '/metrics', '/', '/v1/rooms', f'/v1/rooms/{room}',
                 f'/v1/rooms/{room}/messages', '/v1/nothing'):
        get, head = rest.get(path), rest.call('HEAD', path)
        same(head.status, get.status, f'HEAD {path}')
        same(head.body, b'', f'the body of HEAD {path}')
        same(head.headers.get('content-type'), get.headers.get('content-type'),
             f'content-type of HEAD {path}')
        same(rest.get('/healthz').status, 200, f'the connection after HEAD {path}')


def health_and_metrics_speak(context):
    rest = Rest(the_server(context))
    for path in ('/healthz', '/readyz'):
        same(rest.get(path).status, 200, path)
    metrics = rest.get('/metrics')
    same(metrics.status, 200, '/metrics')
    expect(metrics.headers['content-type'].startswith('text/plain'), f'{metrics.headers}')
    typed, samples = {}, 0
    text = metrics.body.decode()
    expect(text.endswith('\n'), 'the last line of /metrics has no line feed')
    for line in text.splitlines():
        if line.startswith('# TYPE '):
            _, _, name, kind = line.split(' ')
            expect(name not in typed, f'{name} is typed twice')
            expect(kind in ('counter', 'gauge', 'histogram', 'summary', 'untyped'), line)
            typed[name] = kind
        elif line and not line.startswith('#'):
            expect(SAMPLE.match(line), f'not a sample: {line!r}')
            samples += 1
            name = re.split(r'[{ ]', line)[0]
            family = re.sub(r'_(bucket|sum|count)$', '', name)
            expect(name in typed or typed.get(family) == 'histogram', f'{name} has no TYPE')
            expect(typed.get(name) != 'counter' or name.endswith('_total'),
                   f'the counter {name} does not end in _total')
    expect(samples > 5, f'{samples} samples')


def the_web_client_is_served(context):
    rest = Rest(the_server(context))
    page = rest.get('/')
    same(page.status, 200, f'{page.status}')
    expect(page.headers['content-type'].startswith('text/html'), f'{page.headers}')
    expect('content-security-policy' in page.headers, f'no CSP: {page.headers}')
    expect(page.headers.get('x-content-type-options') == 'nosniff', f'{page.headers}')
    for path in ('/../core/check.h', '/%2e%2e/core/check.h', '/..%2fcore/check.h',
                 '/.git/config', '//etc/passwd', '/web/../../etc/passwd'):
        expect(rest.get(path).status in (400, 404), f'{path}: {rest.get(path)}')


async def all_three_ways_to_connect_work(context):
    server = the_server(context)
    for how in ('frame', 'header', 'query'):
        name = new_id('ann')
        chat = await Chat.open(server, token_for(server, name), how)
        fields = dict(CONNECTED)
        if how != 'frame':
            del fields['id']
        shape(chat.connected, fields, f'connected by {how}')
        same(len(chat.arrivals), 1, 'frames until connected')
        await chat.close()
        same(chat.close_code(), 1000, 'close code')


async def the_subprotocol_is_named_when_offered(context):
    server = the_server(context)
    token = token_for(server, new_id('ann'))
    chat = await Chat.open(server, token, subprotocols=['other.v7', 'damso.v1'])
    same(chat.socket.subprotocol, 'damso.v1', 'subprotocol')
    await chat.close()
    chat = await Chat.open(server, token)
    same(chat.socket.subprotocol, None, 'subprotocol without an offer')
    await chat.close()


async def a_client_that_offers_compression_is_served(context):
    server = the_server(context)
    rest, room = await room_with(server, new_id('ann'))
    chat = await Chat.open(server, rest.token, compression='deflate')
    await chat.follow(room)
    ack = await chat.say(room, 'x' * 5000)
    await chat.has(room, ack['seq'])
    same(chat.pushes[room][-1]['text'], 'x' * 5000, 'text')
    await chat.close()


async def every_request_answers_in_its_shape(context):
    server = the_server(context)
    name = new_id('ann')
    rest, room = await room_with(server, name)
    chat = await Chat.open(server, rest.token)
    joined = shape(await chat.follow(room), JOINED, 'joined')
    same((joined['type'], joined['room_id'], joined['member_count']), ('joined', room, 1),
         'joined')
    first = shape(await chat.say(room, 'hello'), ACK, 'ack')
    same((first['type'], first['room_id'], first['durability'], first['duplicate']),
         ('ack', room, 'fsync', False), 'ack')
    ack = shape(await chat.say(room, 'hello', data={'a': 1}, reply_to=first['seq']), ACK, 'ack')
    same(ack['seq'], first['seq'] + 1, 'seq')
    await chat.has(room, ack['seq'])
    push = shape(chat.pushes[room][-1], {**MESSAGE, 'data': dict, 'reply_to': int}, 'message')
    same(push['user_id'], chat.connected['user_id'], 'user_id')
    history = await chat.ok('history', room_id=room, limit=50)
    shape(history, {**HISTORY, 'type': str, 'id': int, 'room_id': str}, 'history')
    same((history['type'], history['room_id'], history['last_seq'], history['epoch']),
         ('history', room, ack['seq'], joined['epoch']), 'history')
    answer = (await off_loop(rest.get, f'/v1/rooms/{room}/messages')).json()
    same(history['events'], answer['events'], 'events over WebSocket and REST')
    same([e for e in history['events'] if e['seq'] == ack['seq']], [push],
         'event in history, pushed')
    pong = await chat.ok('ping')
    same(pong, {'type': 'pong', 'id': pong['id']}, 'pong')
    left = await chat.ok('leave', room_id=room)
    same(left, {'type': 'left', 'id': left['id'], 'room_id': room}, 'left')
    await chat.close()


async def ids_come_back_as_they_were(context):
    server = the_server(context)
    chat = await Chat.open(server, token_for(server, new_id('ann')))
    for value in (0, -1, 2**53, -2**63, 2**63 - 1, '', 'a', '\u00e9 "quoted" \\ \n',
                  'x' * 64):
        before = len(chat.arrivals)
        await chat.socket.send(json.dumps({'type': 'ping', 'id': value}))
        await chat.until(lambda n=before: len(chat.arrivals) > n, why=f'pong {value!r}')
        same(chat.arrivals[-1], {'type': 'pong', 'id': value}, 'pong')
    await chat.close()


async def without_an_id_only_errors_answer(context):
    server = the_server(context)
    rest, room = await room_with(server, new_id('ann'))
    chat = await Chat.open(server, rest.token)
    await chat.follow(room)
    ack = await chat.say(room, 'first')
    await chat.has(room, ack['seq'])
    before = len(chat.arrivals)
    await chat.socket.send(json.dumps({'type': 'send', 'room_id': room, 'text': 'quiet'}))
    await chat.has(room, ack['seq'] + 1)
    await chat.socket.send(json.dumps({'type': 'send', 'room_id': 'no-such-room', 'text': 'x'}))
    await chat.until(lambda: len(chat.arrivals) > before + 1, why='the error')
    await chat.settle()
    same([f['type'] for f in chat.arrivals[before:]], ['message', 'error', 'pong'], 'frames')
    error = shape(chat.arrivals[before + 1], {'type': str, 'code': str, 'message': str}, 'error',
                  optional=('id',))
    same((error['code'], error.get('id')), ('not_found', None), 'error')
    await chat.close()


async def errors_name_their_request(context):
    server = the_server(context)
    _, room = await room_with(server, new_id('ann'))
    chat = await Chat.open(server, token_for(server, new_id('bob')))
    for code, request, fields in (
            ('not_found', 'join', {'room_id': 'no-such-room'}),
            ('not_found', 'send', {'room_id': 'no-such-room', 'text': 't'}),
            ('not_found', 'history', {'room_id': 'no-such-room'}),
            ('not_a_member', 'send', {'room_id': room, 'text': 't'}),
            ('bad_request', 'no_such_type', {}), ('bad_request', 'send', {'room_id': room}),
            ('bad_request', 'join', {})):
        error = await chat.refused(code, request, **fields)
        shape(error, {'type': str, 'id': int, 'code': str, 'message': str}, 'error')
    await chat.close()


async def typing_goes_out_once_in_three_seconds(context):
    server = the_server(context)
    rest, room = await room_with(server, new_id('ann'))
    chat = await Chat.open(server, rest.token)
    other = await Chat.open(server, token_for(server, new_id('bob')))
    for each in (chat, other):
        await each.follow(room)

    def typings():
        return [f for f in other.arrivals if f['type'] == 'typing']

    begin = time.monotonic()
    for _ in range(10):
        await chat.socket.send(json.dumps({'type': 'typing', 'room_id': room}))
    await other.until(typings, why='typing')
    await chat.settle()
    await asyncio.sleep(0.3)
    same(typings(), [{'type': 'typing', 'room_id': room, 'user_id': chat.connected['user_id'],
                      'username': chat.connected['user_id']}], 'typing')
    while len(typings()) < 2:
        expect(time.monotonic() - begin < 10, 'no second typing within 10 s')
        await chat.socket.send(json.dumps({'type': 'typing', 'room_id': room}))
        await asyncio.sleep(0.2)
    expect(time.monotonic() - begin >= TYPING_SECONDS - 0.2,
           f'the second typing came after {time.monotonic() - begin:.1f} s')
    await asyncio.gather(chat.close(), other.close())


async def ping_frames_are_answered_and_order_is_kept(context):
    server = the_server(context)
    chat = await Chat.open(server, token_for(server, new_id('ann')))
    for data in (b'', b'x', b'y' * 125):
        await asyncio.wait_for(await chat.socket.ping(data), 10)
    replies = [await chat.start('ping') for _ in range(500)]
    await chat.until(replies[-1].done)
    ids = [f['id'] for f in chat.arrivals if f['type'] == 'pong']
    same(ids, sorted(ids), 'pongs in order of the pings')
    await chat.close()


def fragments_and_controls_between_them_are_one_message(context):
    server = the_server(context)
    chat = RawChat(server, token_for(server, new_id('ann')))
    same(chat.next_json()['type'], 'connected', 'first frame')
    text = '{"type":"ping","id":"\u20ac\U0001f600"}'.encode()
    for size in (1, 2, 3, 7):
        parts = [text[i:i + size] for i in range(0, len(text), size)]
        for number, part in enumerate(parts):
            chat.send(frame(part, 0x1 if number == 0 else 0x0, final=number == len(parts) - 1))
            if number == 2:
                chat.send(frame(b'between', PING))
        same(chat.next(), (PONG, True, b'between'), 'the pong between fragments')
        same(chat.next_json(), {'type': 'pong', 'id': '\u20ac\U0001f600'}, f'parts of {size}')
    chat.close()


def requests_split_at_every_byte_are_whole(context):
    server = the_server(context)
    sock = dial(server)
    data = handshake_bytes(server, token_for(server, new_id('ann')))
    for at in range(0, len(data), 16):
        sock.sendall(data[at:at + 16])
        time.sleep(0.0005)
    same(read_answer(sock, has_body=False).status, 101, 'handshake in parts')
    sock.close()
    get = f'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n'.encode()
    sock = dial(server)
    for byte in get:
        sock.sendall(bytes([byte]))
    same(read_answer(sock).status, 200, 'request byte by byte')
    sock.sendall(get * 5)
    for _ in range(5):
        same(read_answer(sock).status, 200, 'pipelined requests')
    sock.close()


def a_frame_behind_the_handshake_is_not_lost(context):
    server = the_server(context)
    token = token_for(server, new_id('ann'))
    sock = dial(server)
    connect = json.dumps({'type': 'connect', 'id': 1, 'token': token})
    sock.sendall(handshake_bytes(server) + frame(connect) + frame('{"type":"ping","id":2}'))
    same(read_answer(sock, has_body=False).status, 101, 'handshake')
    chat = RawChat.over(sock)
    same([chat.next_json()['type'] for _ in range(2)], ['connected', 'pong'], 'frames')
    chat.close()


async def a_tokenless_connection_is_closed_after_ten_seconds(context):
    server = the_server(context)
    begin = time.monotonic()
    idle = await Chat.open(server, how=None)
    same(await idle.closed(CONNECT_SECONDS + 10), 3500, 'close code of an idle one')
    took = time.monotonic() - begin
    expect(CONNECT_SECONDS - 1 <= took <= CONNECT_SECONDS + 5, f'closed after {took:.1f} s')


async def an_expired_session_is_closed_with_its_code(context):
    server = the_server(context)
    token = sign(server.key(), claims_of(new_id('ann'), exp=int(time.time()) - 60))
    chat = await Chat.open(server, how=None)
    reply = await chat.start('connect', token=token)
    same(await chat.closed(), 3501, 'close code')
    expect(not reply.done() or reply.result()['code'] == 'token_expired', f'{reply}')


def keep_alive_and_connection_close_are_kept(context):
    server = the_server(context)
    connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=10)
    for _ in range(20):
        connection.request('GET', '/healthz')
        response = connection.getresponse()
        response.read()
        expect(not response.will_close, 'HTTP/1.1 is kept alive')
    connection.request('GET', '/healthz', headers={'Connection': 'close'})
    response = connection.getresponse()
    response.read()
    expect(response.will_close, 'Connection: close is answered alike')
    connection.close()


if __name__ == '__main__':
    run([registering_logs_in_and_takes_the_name, names_and_passwords_are_checked,
         rooms_are_made_listed_and_read, private_rooms_are_closed_to_others,
         private_rooms_are_closed_over_websocket_too,
         a_posted_message_is_the_event, joining_makes_a_member_event,
         history_pages_both_ways, unknown_paths_and_methods_are_named, head_works_where_get_does,
         health_and_metrics_speak, the_web_client_is_served, all_three_ways_to_connect_work,
         the_subprotocol_is_named_when_offered, a_client_that_offers_compression_is_served,
         every_request_answers_in_its_shape, ids_come_back_as_they_were,
         without_an_id_only_errors_answer, errors_name_their_request,
         typing_goes_out_once_in_three_seconds, ping_frames_are_answered_and_order_is_kept,
         fragments_and_controls_between_them_are_one_message,
         requests_split_at_every_byte_are_whole, a_frame_behind_the_handshake_is_not_lost,
         a_tokenless_connection_is_closed_after_ten_seconds,
         an_expired_session_is_closed_with_its_code, keep_alive_and_connection_close_are_kept],
        seconds=180, seconds_quick=120)
