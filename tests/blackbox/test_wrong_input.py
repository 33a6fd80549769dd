#!/usr/bin/python3
"""Wrong input gets a typed error or the right close code, changes nothing and costs nothing.

Method: tables of bytes and of what must come back, sent over raw sockets to one server; the last
test sends all tables again and again and looks at memory and descriptors. The half requests are
opened first and looked at later, since they must be closed 5 s after they began.
"""
import json
import selectors
import socket
import threading
import time

from client import Chat, Closed, Rest, b64, claims_of, new_id, off_loop, sign, token_for, user
from harness import Failure, expect, run, same
from raw import (BINARY, CLOSE, CONTINUATION, PING, RawChat, dial, exchange, frame,
                 handshake_bytes, read_answer)

HEADER_BYTES, BODY_BYTES, FRAME_BYTES, TEXT_BYTES = 8 << 10, 64 << 10, 64 << 10, 16 << 10
HALF_REQUESTS, HALF_SECONDS = 200, 5.0
RSS_SLACK_BYTES = 4 << 20       # pages of planned pools that were never touched before
HOST = b'Host: 127.0.0.1\r\n'


def the_server(context):
    return context.shared_server(shards=2)


# HTTP: (name, bytes, statuses allowed, must the connection be closed?)
HTTP = [
    ('header too long', b'GET /healthz HTTP/1.1\r\n' + HOST + b'X: ' + b'x' * HEADER_BYTES
     + b'\r\n\r\n', (431,), True),
    ('header without end', b'GET /healthz HTTP/1.1\r\n' + HOST + b'X: ' + b'x' * 4 * HEADER_BYTES,
     (431,), True),
    ('many headers', b'GET /healthz HTTP/1.1\r\n' + HOST + b'X: y\r\n' * 5000 + b'\r\n',
     (431, 400), True),
    ('target too long', b'GET /' + b'x' * 2 * HEADER_BYTES + b' HTTP/1.1\r\n' + HOST + b'\r\n',
     (414, 431), True),
    ('length and chunked', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: 5\r\n'
     b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n', (400,), True),
    ('chunked and length', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Transfer-Encoding: chunked\r\n'
     b'Content-Length: 5\r\n\r\n0\r\n\r\n', (400,), True),
    ('two lengths', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: 5\r\n'
     b'Content-Length: 6\r\n\r\nhello', (400,), True),
    ('length list', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: 5, 6\r\n\r\nhello',
     (400,), True),
    ('signed length', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: +5\r\n\r\nhello',
     (400,), True),
    ('negative length', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: -5\r\n\r\n',
     (400,), True),
    ('hexadecimal length', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: 0x5\r\n\r\n',
     (400,), True),
    ('empty length', b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Content-Length: \r\n\r\n',
     (400,), True),
    ('length over 64 bits', b'POST /v1/rooms HTTP/1.1\r\n' + HOST
     + b'Content-Length: 99999999999999999999999\r\n\r\n', (400, 413), True),
    ('unknown transfer coding', b'POST /v1/rooms HTTP/1.1\r\n' + HOST
     + b'Transfer-Encoding: gzip\r\n\r\n', (400, 501), True),
    ('chunked twice', b'POST /v1/rooms HTTP/1.1\r\n' + HOST
     + b'Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n', (400, 501), True),
    ('obscured chunked', b'POST /v1/rooms HTTP/1.1\r\n' + HOST
     + b'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n', (400, 501), True),
    ('space before colon', b'POST /v1/rooms HTTP/1.1\r\n' + HOST
     + b'Content-Length : 5\r\n\r\nhello', (400,), True),
    ('folded header', b'GET /healthz HTTP/1.1\r\n' + HOST + b'X: a\r\n b\r\n\r\n', (400,), True),
    ('header without colon', b'GET /healthz HTTP/1.1\r\n' + HOST + b'nonsense\r\n\r\n', (400,),
     True),
    ('empty header name', b'GET /healthz HTTP/1.1\r\n' + HOST + b': x\r\n\r\n', (400,), True),
    ('NUL in a header', b'GET /healthz HTTP/1.1\r\n' + HOST + b'X: a\x00b\r\n\r\n', (400,), True),
    ('bare CR in a header', b'GET /healthz HTTP/1.1\r\n' + HOST + b'X: a\rb\r\n\r\n', (400,),
     True),
    ('version 2.0', b'GET /healthz HTTP/2.0\r\n' + HOST + b'\r\n', (400, 505), True),
    ('version 1.1x', b'GET /healthz HTTP/1.1x\r\n' + HOST + b'\r\n', (400, 505), True),
    ('lower case version', b'GET /healthz http/1.1\r\n' + HOST + b'\r\n', (400, 505), True),
    ('no version', b'GET /healthz\r\n\r\n', (400, 505), True),
    ('missing Host', b'GET /healthz HTTP/1.1\r\n\r\n', (400,), True),
    ('two Hosts', b'GET /healthz HTTP/1.1\r\n' + HOST + HOST + b'\r\n', (400,), True),
    ('garbage', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'\xaa' * 200 + b'\r\n\r\n',
     (400,), True),
    ('no target', b'GET  HTTP/1.1\r\n' + HOST + b'\r\n', (400,), True),
    ('relative target', b'GET healthz HTTP/1.1\r\n' + HOST + b'\r\n', (400, 404), False),
    ('bad percent', b'GET /v1/rooms/%zz HTTP/1.1\r\n' + HOST + b'\r\n', (400, 401, 404), False),
    ('NUL by percent', b'GET /%00 HTTP/1.1\r\n' + HOST + b'\r\n', (400, 404), False),
    ('unknown method', b'BREW / HTTP/1.1\r\n' + HOST + b'\r\n', (400, 405, 501), False),
    ('bad method', b'G<>T / HTTP/1.1\r\n' + HOST + b'\r\n', (400, 405, 501), False),
    ('body too large', b'POST /v1/auth/login HTTP/1.1\r\n' + HOST
     + b'Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n', (413,), True),
]


def send_http(server, only_send=False):
    for name, data, statuses, must_close in HTTP:
        with dial(server) as sock:
            try:
                sock.sendall(data)
            except ConnectionError:
                pass
            if only_send:
                continue
            try:
                answer = read_answer(sock, 8)
            except ConnectionError:
                continue     # reset, since it had more to read; that it ended is enough
            except (Failure, socket.timeout) as error:
                raise Failure(f'{name}: {error or "no answer"}') from None
            expect(answer.status in statuses, f'{name}: {answer}, wanted {statuses}')
            if answer.status not in (405, 501):
                expect(answer.code(), f'{name}: no error in the body of {answer}')
            if must_close:
                sock.settimeout(8)
                try:
                    closed = sock.recv(1) == b''
                except ConnectionError:
                    closed = True
                except socket.timeout:
                    closed = False
                expect(closed, f'{name}: the connection stays open after {answer.status}')


def malformed_http_is_refused(context):
    send_http(the_server(context))
    same(Rest(the_server(context)).get('/healthz').status, 200, 'healthz')
    context.note(f'{len(HTTP)} requests')


def a_smuggled_request_is_never_run(context):
    """The second request would make a room if a length were read another way than chunked."""
    server = the_server(context)
    token, room = token_for(server, new_id('ann')), new_id('smuggled')
    body = json.dumps({'room_id': room, 'name': 'n', 'visibility': 'public'}).encode()
    inner = (b'POST /v1/rooms HTTP/1.1\r\n' + HOST + b'Authorization: Bearer ' + token.encode()
             + b'\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body)
             + body)
    for headers in (b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
                    b'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n',
                    b'Content-Length: 5\r\nContent-Length: 0\r\n',
                    b'Transfer-Encoding : chunked\r\n', b'Content-Length: 0\r\n 5\r\n'):
        exchange(server, b'POST /v1/auth/login HTTP/1.1\r\n' + HOST + headers
                 + b'\r\n0\r\n\r\n' + inner)
        same(Rest(server, token).get(f'/v1/rooms/{room}').status, 404, f'room after {headers}')


# Handshakes: (name, changed headers, other request fields, statuses allowed)
HANDSHAKES = [
    ('version 8', {'Sec-WebSocket-Version': '8'}, {}, (426,)),
    ('no version', {'Sec-WebSocket-Version': None}, {}, (400, 426)),
    ('version x', {'Sec-WebSocket-Version': 'x'}, {}, (400, 426)),
    ('no key', {'Sec-WebSocket-Key': None}, {}, (400,)),
    ('short key', {'Sec-WebSocket-Key': 'c2hvcnQ='}, {}, (400,)),
    ('long key', {'Sec-WebSocket-Key': 'x' * 64}, {}, (400,)),
    ('key not base64', {'Sec-WebSocket-Key': '!' * 22 + '=='}, {}, (400,)),
    ('no Upgrade', {'Upgrade': None}, {}, (400, 426)),
    ('another Upgrade', {'Upgrade': 'h2c'}, {}, (400, 426)),
    ('no Connection', {'Connection': None}, {}, (400, 426)),
    ('another Connection', {'Connection': 'keep-alive'}, {}, (400, 426)),
    ('HTTP/1.0', {}, {'version': 'HTTP/1.0'}, (400, 426, 505)),
    ('POST', {}, {'method': 'POST'}, (400, 405, 426)),
    ('no Host', {'Host': None}, {}, (400,)),
]


def bad_handshakes_are_refused(context):
    server = the_server(context)
    token = token_for(server, new_id('ann'))
    for name, change, fields, statuses in HANDSHAKES:
        with dial(server) as sock:
            sock.sendall(handshake_bytes(server, token, change, **fields))
            answer = read_answer(sock)
            expect(answer.status in statuses, f'{name}: {answer}, wanted {statuses}')
            if answer.status == 426:
                same(answer.headers.get('sec-websocket-version'), '13', f'{name}: version header')


# Frames: (name, bytes, close codes allowed)
BAD_UTF8 = (b'\xff', b'\xc3', b'\xc0\xaf', b'\xed\xa0\x80', b'\xf4\x90\x80\x80', b'\xe2\x82',
            b'ok \xf0\x9f\x98', b'\x80')
FRAMES = [
    ('unmasked', frame('{"type":"ping"}', masked=False), (1002,)),
    *[(f'reserved bit {bit}', frame('{"type":"ping"}', reserved=bit), (1002,))
      for bit in (1, 2, 4)],
    *[(f'opcode {code:#x}', frame('x', code), (1002,)) for code in (3, 4, 5, 6, 7, 11, 12, 15)],
    ('binary', frame(b'\x00\x01', BINARY), (1003,)),
    ('64 KiB and one byte', frame('x' * (FRAME_BYTES + 1)), (1009,)),
    ('announced 1 GiB', frame('x', length=1 << 30), (1009,)),
    ('announced 2^63-1', frame('x', length=(1 << 63) - 1), (1009,)),
    ('announced 2^64-1', frame('x', length=(1 << 64) - 1), (1002, 1009)),
    ('fragments over 64 KiB', frame('x' * 40000, final=False)
     + frame('x' * 40000, CONTINUATION, final=False), (1009,)),
    ('length not minimal 16', b'\x81\xfe\x00\x02abcdxx', (1002,)),
    ('length not minimal 64', b'\x81\xff' + b'\x00' * 7 + b'\x02abcdxx', (1002,)),
    ('ping of 126 bytes', frame('x' * 126, PING), (1002,)),
    ('ping in fragments', frame('x', PING, final=False), (1002,)),
    ('close in fragments', frame(b'\x03\xe8', CLOSE, final=False), (1002,)),
    ('continuation of nothing', frame('x', CONTINUATION), (1002,)),
    ('text within fragments', frame('x', final=False) + frame('y'), (1002,)),
    *[(f'not UTF-8: {data!r}', frame(data), (1007,)) for data in BAD_UTF8],
    ('not UTF-8 in the second fragment', frame(b'{"a":"\xe2\x82', final=False)
     + frame(b'\x28"}', CONTINUATION), (1007,)),
    ('UTF-8 cut off by the end', frame(b'"\xe2\x82', final=False) + frame(b'', CONTINUATION),
     (1007,)),
    ('close of 1 byte', frame(b'\x03', CLOSE), (1002,)),
    *[(f'close code {code}', frame(code.to_bytes(2, 'big'), CLOSE), (1002,))
      for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)],
    ('close reason not UTF-8', frame(b'\x03\xe8\xff', CLOSE), (1002, 1007)),
    ('close 1000', frame(b'\x03\xe8bye', CLOSE), (1000,)),
    ('close 1001', frame(b'\x03\xe9', CLOSE), (1001, 1000)),
    ('close 4000', frame(b'\x0f\xa0', CLOSE), (4000, 1000)),
    ('close without a code', frame(b'', CLOSE), (1000, 1005)),
]


def send_frames(server, token):
    for name, data, codes in FRAMES:
        chat = RawChat(server, token)
        same(chat.next_json()['type'], 'connected', f'{name}: first frame')
        chat.send(data)
        try:
            code = chat.close_code(10)
        except Failure as error:
            raise Failure(f'{name}: {error}') from None
        expect(code in codes, f'{name}: closed with {code}, wanted {codes}')
        chat.close()


def bad_frames_close_with_their_code(context):
    server = the_server(context)
    send_frames(server, token_for(server, new_id('ann')))
    context.note(f'{len(FRAMES)} connections')


def empty_continuations_without_end_cost_nothing(context):
    server = the_server(context)
    chat = RawChat(server, token_for(server, new_id('ann')))
    same(chat.next_json()['type'], 'connected', 'first frame')
    before = server.rss()
    chat.send(frame('{"type":', final=False))
    for _ in range(20 if context.quick else 200):
        chat.send(frame(b'', CONTINUATION, final=False) * 5000)
    chat.send(frame('"ping","id":1}', CONTINUATION))
    got = chat.next(20)
    expect(got is None or got[0] == CLOSE or json.loads(got[2]) == {'type': 'pong', 'id': 1},
           f'{got}')
    expect(server.rss() - before < RSS_SLACK_BYTES, f'RSS grew by {server.rss() - before}')
    chat.close()


def a_flood_of_pings_is_bounded(context):
    """Never reads a pong: the server may drop pongs or close, but not keep them all."""
    server = the_server(context)
    chat = RawChat(server, token_for(server, new_id('ann')), receive_bytes=1)
    before = server.rss()
    chat.sock.settimeout(1.0)
    flood = b''.join(frame('x' * 125, PING) for _ in range(500))
    try:
        for _ in range(200):
            chat.sock.sendall(flood)
    except (ConnectionError, socket.timeout):
        pass
    expect(server.rss() - before < 2 * RSS_SLACK_BYTES, f'RSS grew by {server.rss() - before}')
    same(Rest(server).get('/healthz').status, 200, 'healthz')
    chat.close()


# Text frames that are no request: the answer is bad_request, or close 3507.
BAD_JSON = [
    '', ' ', '{', '}', '[]', '[1,2]', '1', '"x"', 'null', 'true', '{"type":"ping"', '{"type":}',
    '{"type":"ping",}', '{"type" "ping"}', "{'type':'ping'}", '{type:"ping"}', '{"type":"ping"}x',
    '{"type":"ping"}{"type":"ping"}', '\ufeff{"type":"ping"}', '{"type":"ping","id":01}',
    '{"type":"ping","id":1.}', '{"type":"ping","id":.5}', '{"type":"ping","id":+1}',
    '{"type":"ping","id":-}', '{"type":"ping","id":1e}', '{"type":"ping","id":NaN}',
    '{"type":"ping","id":Infinity}', '{"type":"ping","id":0x10}', '{"type":"ping","id":"\\x41"}',
    '{"type":"ping","id":"\\ud800"}', '{"type":"ping","id":"\\udc00\\ud800"}',
    '{"type":"ping","id":"\\ud800x"}', '{"type":"ping","id":"\\u12"}',
    '{"type":"ping","id":"a\nb"}',
    '{"type":"ping","id":"a\x00b"}', '{"type":"ping","id":"\t"}', '{"type":"ping","x":tru}',
    '{"type":"ping","x":nul}', '{"type":"ping" /* c */}', '{"type":"ping","x":' + '[' * 10000
    + ']' * 10000 + '}', '{"type":"ping","x":' + '{"a":' * 8000 + '1' + '}' * 8000 + '}',
    '[' * 60000, '{"a":' * 12000, '{"type":"ping","x":1e999999999999999999999x}',
]
# Well-formed, but not a request that may be done.
BAD_REQUESTS = [
    {}, {'id': 1}, {'type': None}, {'type': 7}, {'type': ''}, {'type': 'no_such'}, {'type': 'PING'},
    {'type': ['ping']}, {'type': 'ping', 'id': 1.5}, {'type': 'ping', 'id': {}},
    {'type': 'ping', 'id': []}, {'type': 'ping', 'id': True}, {'type': 'ping\u0000'},
]
# Fields of the room requests with a wrong value: (request, fields); 'ROOM' stands for a real room.
BAD_FIELDS = [
    ('join', {}), ('join', {'room_id': 7}), ('join', {'room_id': ''}), ('join', {'room_id': None}),
    ('join', {'room_id': 'x' * 65}), ('join', {'room_id': 'a b'}), ('join', {'room_id': 'a/b'}),
    ('join', {'room_id': '\u00e9'}), ('join', {'room_id': ['ROOM']}),
    ('join', {'room_id': 'ROOM', 'after_seq': -1}), ('join', {'room_id': 'ROOM', 'after_seq': '1'}),
    ('join', {'room_id': 'ROOM', 'after_seq': 1.5}), ('join', {'room_id': 'ROOM', 'after_seq': []}),
    ('join', {'room_id': 'ROOM', 'after_seq': 1, 'epoch': 7}),
    ('join', {'room_id': 'ROOM', 'after_seq': 10**30}),
    ('leave', {}), ('leave', {'room_id': 7}), ('typing', {'room_id': 7}), ('typing', {}),
    ('send', {}), ('send', {'room_id': 'ROOM'}), ('send', {'text': 'x'}),
    ('send', {'room_id': 'ROOM', 'text': 7}), ('send', {'room_id': 'ROOM', 'text': None}),
    ('send', {'room_id': 'ROOM', 'text': ['x']}), ('send', {'room_id': 7, 'text': 'x'}),
    ('send', {'room_id': 'ROOM', 'text': 'x', 'reply_to': 'x'}),
    ('send', {'room_id': 'ROOM', 'text': 'x', 'reply_to': -1}),
    ('send', {'room_id': 'ROOM', 'text': 'x', 'reply_to': 1.5}),
    ('send', {'room_id': 'ROOM', 'text': 'x', 'idempotency_key': 7}),
    ('history', {}), ('history', {'room_id': 7}), ('history', {'room_id': 'ROOM', 'limit': 0}),
    ('history', {'room_id': 'ROOM', 'limit': 201}), ('history', {'room_id': 'ROOM', 'limit': '5'}),
    ('history', {'room_id': 'ROOM', 'limit': -1}),
    ('history', {'room_id': 'ROOM', 'before_seq': 'x'}),
    ('history', {'room_id': 'ROOM', 'after_seq': -1}),
    ('history', {'room_id': 'ROOM', 'order': 'up'}), ('history', {'room_id': 'ROOM', 'order': 1}),
]


def send_json_tables(server, token):
    """Every entry must be answered by one bad_request or close 3507, and nothing else."""
    chat = None
    for text in BAD_JSON + [json.dumps(request) for request in BAD_REQUESTS]:
        if chat is None:
            chat = RawChat(server, token)
            same(chat.next_json()['type'], 'connected', 'first frame')
        chat.send(frame(text))
        got = chat.next(10)
        what = f'{text[:80]!r} of {len(text)}'
        expect(got is not None, f'{what}: closed without a close frame')
        if got[0] == CLOSE:
            code = int.from_bytes(got[2][:2], 'big')
            expect(code == 3507, f'{what}: closed with {code}')
            chat.close()
            chat = None
            continue
        reply = json.loads(got[2])
        expect(reply['type'] == 'error' and reply['code'] == 'bad_request', f'{what}: {reply}')
    if chat:
        chat.send_json(type='ping', id='the end')
        same(chat.next_json(), {'type': 'pong', 'id': 'the end'}, 'exactly one answer each')
        chat.close()


def malformed_json_is_a_bad_request(context):
    server = the_server(context)
    send_json_tables(server, token_for(server, new_id('ann')))
    context.note(f'{len(BAD_JSON) + len(BAD_REQUESTS)} texts')


def json_that_is_only_odd_is_taken(context):
    server = the_server(context)
    chat = RawChat(server, token_for(server, new_id('ann')))
    same(chat.next_json()['type'], 'connected', 'first frame')
    for text, wanted in (
            (' \t\r\n{ "type" : "ping" , "id" : 1 } \n', 1),
            ('{"\\u0074ype":"\\u0070ing","id":2}', 2),
            ('{"type":"ping","id":"\\ud83d\\ude00"}', '\U0001f600'), ('{"type":"ping","id":-0}', 0),
            ('{"type":"ping","id":3,"x":[1e5,-0.5E-3,null,{"a":[]}]}', 3),
            ('{"type":"ping","id":"","unknown":"' + 'x' * 60000 + '"}', '')):
        chat.send(frame(text))
        same(chat.next_json(), {'type': 'pong', 'id': wanted}, text[:60])
    chat.send(frame('{"type":"ping","id":1,"id":2}'))
    reply = chat.next_json()
    expect(reply.get('id') == 2 and reply['type'] == 'pong' or reply.get('code') == 'bad_request',
           f'duplicate keys: the last wins or it is refused, got {reply}')
    context.note('duplicate keys: ' + ('last wins' if reply['type'] == 'pong' else 'refused'))
    chat.close()


async def wrong_types_and_values_are_named(context):
    server = the_server(context)
    rest, room = user(server, new_id('ann')), new_id('room')
    await off_loop(rest.make_room, room)
    chat = await Chat.open(server, rest.token)
    await chat.follow(room)
    for request, fields in BAD_FIELDS:
        fields = {k: room if v == 'ROOM' else v for k, v in fields.items()}
        reply = await chat.request(request, **fields)
        expect(reply['type'] == 'error' and reply['code'] == 'bad_request',
               f'{request} {fields}: {str(reply)[:200]}')
    path = f'/v1/rooms/{room}/messages'
    for body in (b'', b'{', b'[]', b'7', b'{"text":7}', b'{}', b'{"text":null}', b'\xff',
                 b'{"text":"\xff"}', b'{"text":"\\ud800"}', b'{"text":"x"}trailing',
                 b'{"text":"x","reply_to":"y"}'):
        answer = await off_loop(rest.call, 'POST', path, body)
        same((answer.status, answer.code()), (400, 'bad_request'), f'POST {body}')
    answer = await off_loop(rest.call, 'POST', path, b'text=x',
                            {'Content-Type': 'application/x-www-form-urlencoded'})
    expect(answer.status in (400, 415), f'a form as a message: {answer}')
    for body in ({'room_id': 'a b'}, {'room_id': 'x' * 65, 'name': 'n'}, {'name': 7},
                 {'name': 'n', 'visibility': 'secret'}, {'name': 'n', 'visibility': 7},
                 {'name': 'n', 'visibility': 'public', 'max_members': 'x'},
                 {'name': 'n', 'visibility': 'public', 'durability': 'maybe'}, []):
        answer = await off_loop(rest.post, '/v1/rooms', body)
        same((answer.status, answer.code()), (400, 'bad_request'), f'POST /v1/rooms {body}')
    events = await off_loop(rest.history, room)
    expect(all(event['type'] == 'member' for event in events), f'events of the room: {events}')
    await chat.close()


async def text_over_its_limit_is_too_large(context):
    server = the_server(context)
    rest, room = user(server, new_id('ann')), new_id('room')
    await off_loop(rest.make_room, room)
    chat = await Chat.open(server, rest.token)
    await chat.follow(room)
    for text in ('x' * (TEXT_BYTES + 1), '\u20ac' * (TEXT_BYTES // 3 + 1), 'x' * 60000):
        await chat.refused('too_large', 'send', room_id=room, text=text)
        answer = await off_loop(rest.say, room, text)
        same((answer.status, answer.code()), (413, 'too_large'), f'REST with {len(text)}')
    for text in ('x' * TEXT_BYTES, '\u20ac' * (TEXT_BYTES // 3), '"' * TEXT_BYTES):
        ack = await chat.say(room, text)
        await chat.has(room, ack['seq'])
        same(chat.pushes[room][-1]['text'], text, f'{len(text)} characters')
    answer = await off_loop(rest.call, 'POST', f'/v1/rooms/{room}/messages', 'x' * BODY_BYTES * 2)
    same(answer.status, 413, f'{answer}')
    await chat.close()


def bad_tokens(server):
    """(name, token, is it only expired?)"""
    key, sub, now = server.key(), new_id('mallory'), int(time.time())

    def good(**change):
        return sign(key, claims_of(sub, **change))

    def by(algorithm, **header):
        return sign(key, claims_of(sub), algorithm, header or None)

    right = good()
    head, body, signature = right.split('.')
    none = b64(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())
    other = b64(json.dumps(claims_of('owner')).encode())
    return [
        ('expired', good(exp=now - 600), True), ('exp 0', good(exp=0), True),
        ('HS512', by('HS512'), False), ('HS384', by('HS384'), False),
        ('RS256 by HMAC', by('HS256', alg='RS256', typ='JWT'), False),
        ('alg none', f'{none}.{body}.', False),
        ('alg none, signed', f'{none}.{body}.{signature}', False),
        ('alg None', sign(key, claims_of(sub), header={'alg': 'None'}), False),
        ('alg hs256', sign(key, claims_of(sub), header={'alg': 'hs256'}), False),
        ('no alg', sign(key, claims_of(sub), header={'typ': 'JWT'}), False),
        ('header no JSON', f'{b64(b"alg")}.{body}.{signature}', False),
        ('another key', sign(b'0' * 64, claims_of(sub)), False),
        ('empty key', sign(b'', claims_of(sub)), False),
        ('key as bytes', sign(bytes.fromhex(key.decode()), claims_of(sub)), False),
        ('another iss', good(iss='other'), False), ('no iss', good(iss=None), False),
        ('another aud', good(aud='other'), False), ('no aud', good(aud=None), False),
        ('iss a number', good(iss=7), False), ('nbf in the future', good(nbf=now + 600), False),
        ('no exp', good(exp=None), False), ('exp a string', good(exp='soon'), False),
        ('exp negative', good(exp=-1), None), ('no sub', good(sub=None), False),
        ('sub empty', good(sub=''), False), ('sub a number', good(sub=7), False),
        ('sub too long', good(sub='x' * 5000), False),
        ('body of another', f'{head}.{other}.{signature}', False),
        ('signature cut', right[:-1], False), ('no signature', f'{head}.{body}', False),
        ('empty signature', f'{head}.{body}.', False), ('two dots more', right + '..', False),
        ('empty', '', False), ('dots', '..', False), ('a word', 'token', False),
        ('a letter changed', right[:40] + ('A' if right[40] != 'A' else 'B') + right[41:], False),
        ('claims no object', sign(key, [1, 2]), False), ('60 KB', right + 'x' * 60000, False),
    ]


def bad_tokens_open_nothing_over_rest(context):
    server = the_server(context)
    for name, token, expired in bad_tokens(server):
        answer = Rest(server, token).get('/v1/rooms/x')
        statuses = (401,) if len(token) < 4096 else (401, 431)
        expect(answer.status in statuses, f'{name}: {answer}')
        if expired is not None and answer.status == 401:
            same(answer.code(), 'token_expired' if expired else 'unauthorized', f'{name}')
    for header in ('Basic YTpi', 'Bearer', 'bearer', '', 'Token x'):
        answer = Rest(server).call('GET', '/v1/rooms/x', headers={'Authorization': header})
        same((answer.status, answer.code()), (401, 'unauthorized'), f'Authorization: {header}')
    answer = exchange(server, b'GET /v1/rooms HTTP/1.1\r\n' + HOST + b'Authorization: Bearer '
                      + b'x' * (1 << 20) + b'\r\n\r\n')
    expect(answer is None or answer.status == 431, f'1 MiB in the header: {answer}')


async def bad_tokens_open_nothing_over_websocket(context):
    server = the_server(context)
    for name, token, expired in bad_tokens(server):
        chat = await Chat.open(server, how=None)
        reply = await chat.start('connect', token=token)
        code = await chat.closed()
        codes = (3500, 3501) if expired is None else (3501,) if expired else (3500,)
        expect(code in codes, f'{name}: closed with {code}, wanted {codes}')
        if reply.done():
            wanted = ('unauthorized', 'token_expired')
            expect(reply.result()['type'] == 'error' and reply.result()['code'] in wanted,
                   f'{name}: {reply.result()}')
    chat = await Chat.open(server, how=None)
    await chat.start('connect', token='x' * (1 << 20))
    same(await chat.closed(), 1009, '1 MiB in a frame')
    for token in (7, None, {}, ['x']):
        chat = await Chat.open(server, how=None)
        await chat.start('connect', token=token)
        expect(await chat.closed() in (3500, 3507), f'token {token!r}: {chat.close_code()}')


def bad_tokens_in_the_upgrade_open_nothing(context):
    server = the_server(context)
    for name, token, expired in bad_tokens(server):
        if not token or len(token) > 4096 or '.' not in token:
            continue
        for fields in ({'token': token}, {'token': None, 'target': f'/v1/ws?access_token={token}'}):
            with dial(server) as sock:
                sock.sendall(handshake_bytes(server, **fields))
                answer = read_answer(sock)
                if answer.status == 101:
                    codes = (3500, 3501) if expired is None else (3501,) if expired else (3500,)
                    code = RawChat.over(sock).close_code()
                    expect(code in codes, f'{name}: closed with {code}, wanted {codes}')
                else:
                    same(answer.status, 401, f'{name}: {answer}')


async def requests_before_connect_and_a_second_connect_are_refused(context):
    server = the_server(context)
    for request in ('join', 'send', 'history', 'typing', 'leave'):
        chat = await Chat.open(server, how=None)
        try:
            reply = await chat.request(request, room_id='r', text='t')
            same((reply['type'], reply.get('code')), ('error', 'unauthorized'), request)
        except Closed:
            same(chat.close_code(), 3500, f'close code after {request}')
        await chat.close()
    chat = await Chat.open(server, token_for(server, new_id('ann')))
    await chat.refused('bad_request', 'connect', token=token_for(server, new_id('bob')))
    await chat.ok('ping')
    await chat.close()


class HalfRequests:
    """Sockets that begin a request and never end it; a thread notes when each is closed."""

    KINDS = [b'G', b'GET /healthz HTTP/1.1\r\n', b'GET /healthz HTTP/1.1\r\nHost: a\r\nX: y',
             b'POST /v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"username"',
             b'GET /v1/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n']

    def __init__(self, server, count):
        self.chooser, self.closed, self.sockets = selectors.DefaultSelector(), {}, []
        for number in range(count):
            sock = dial(server)
            sock.sendall(self.KINDS[number % len(self.KINDS)])
            sock.setblocking(False)
            self.sockets.append((sock, time.monotonic()))
            self.chooser.register(sock, selectors.EVENT_READ, number)
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        """Every second socket also drips a byte a second, which must not buy it time."""
        end, next_drip = time.monotonic() + 3 * HALF_SECONDS, time.monotonic() + 1.0
        while len(self.closed) < len(self.sockets) and time.monotonic() < end:
            for key, _ in self.chooser.select(0.1):
                try:
                    ended = not key.fileobj.recv(4096)
                except ConnectionError:
                    ended = True
                if ended:
                    self.closed[key.data] = time.monotonic() - self.sockets[key.data][1]
                    self.chooser.unregister(key.fileobj)
            if time.monotonic() >= next_drip:
                next_drip += 1.0
                for number, (sock, _) in enumerate(self.sockets):
                    if number % 2 and number not in self.closed:
                        try:
                            sock.send(b'x')
                        except OSError:
                            pass

    def verdict(self):
        self.thread.join(4 * HALF_SECONDS)
        for sock, _ in self.sockets:
            sock.close()
        expect(len(self.closed) == len(self.sockets),
               f'{len(self.sockets) - len(self.closed)} of {len(self.sockets)} half requests are '
               f'still open')
        return min(self.closed.values()), max(self.closed.values())


half_requests = []


def half_requests_are_opened(context):
    """Looked at by half_requests_were_closed_at_five_seconds."""
    half_requests.append(HalfRequests(the_server(context), HALF_REQUESTS))
    same(Rest(the_server(context)).get('/healthz').status, 200, 'healthz beside them')


def half_requests_were_closed_at_five_seconds(context):
    first, last = half_requests.pop().verdict()
    expect(first >= HALF_SECONDS - 0.5, f'one was closed after {first:.1f} s')
    expect(last <= HALF_SECONDS + 2.5, f'one was closed only after {last:.1f} s')
    context.note(f'{HALF_REQUESTS} closed between {first:.2f} and {last:.2f} s')


def after_all_this_it_serves_and_has_not_grown(context):
    server = the_server(context)
    token = token_for(server, new_id('ann'))

    def everything():
        send_http(server, only_send=True)
        send_frames(server, token)
        send_json_tables(server, token)

    everything()
    rss, descriptors = server.rss(), server.descriptors()
    for _ in range(3 if context.quick else 20):
        everything()
    deadline = time.monotonic() + 10
    while server.descriptors() > descriptors + 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    context.note(f'RSS {server.rss() - rss:+d} bytes, descriptors '
                 f'{server.descriptors() - descriptors:+d}')
    expect(server.rss() - rss <= RSS_SLACK_BYTES, f'RSS grew by {server.rss() - rss} bytes')
    expect(server.descriptors() <= descriptors + 5, 'descriptors are left open')
    rest, room = user(server), new_id('room')
    rest.make_room(room)
    same(rest.say(room, 'still here').status, 201, 'a message')


if __name__ == '__main__':
    run([half_requests_are_opened, malformed_http_is_refused, a_smuggled_request_is_never_run,
         bad_handshakes_are_refused, bad_frames_close_with_their_code,
         empty_continuations_without_end_cost_nothing, a_flood_of_pings_is_bounded,
         malformed_json_is_a_bad_request, json_that_is_only_odd_is_taken,
         wrong_types_and_values_are_named, text_over_its_limit_is_too_large,
         bad_tokens_open_nothing_over_rest, bad_tokens_open_nothing_over_websocket,
         bad_tokens_in_the_upgrade_open_nothing,
         requests_before_connect_and_a_second_connect_are_refused,
         half_requests_were_closed_at_five_seconds, after_all_this_it_serves_and_has_not_grown],
        seconds=240, seconds_quick=120)
