#!/usr/bin/python3
"""The fault proxies themselves (wire.py): each action, seen by a client that nobody here wrote.

Method: pymongo and redis-py through a proxy; what the target really has is read past the proxy.
Redis is a real server of this test. MongoDB is the one of DAMSO_TEST_MONGODB_URI, or a second
MongoWire that keeps documents in a list.
"""
import os
import socket
import ssl
import subprocess
import threading
import time
import uuid

import pymongo
import pymongo.errors as mongo_errors
import redis
from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo.uri_parser import parse_uri

from harness import Skip, expect, run, same
from raw import read_all
from server import die_with_parent
from wire import (MongoWire, RedisWire, applied, apply_then_drop, delay, drop_before, error,
                  half_then_drop, make_certificates, reply, stall, write_concern_error,
                  write_errors)
from wire_bson import (CHECKSUM_PRESENT, EXHAUST_ALLOWED, HEADER, INT32, MORE_TO_COME, crc32c,
                       decode, encode, op_msg, reply_body)
from wire_mongo import read_message
from wire_redis import reply_end

REAL_URI = os.environ.get('DAMSO_TEST_MONGODB_URI')
DOCUMENTS_PER_SECOND_MIN = 20_000
BULKS, BULKS_QUICK, BULK = 200, 40, 1000


class Store:
    """The target of a proxy: stored() is what it has, read past the proxy."""

    def __init__(self, context):
        self.name = f'damso_wire_{uuid.uuid4().hex[:12]}'
        self.kept, self.lock = {}, threading.Lock()
        if REAL_URI:
            parsed = parse_uri(REAL_URI)
            if parsed['options'].get('tls') or parsed['username']:
                raise Skip('DAMSO_TEST_MONGODB_URI asks for TLS or a password')
            self.at = parsed['nodelist'][0]
            self.client = pymongo.MongoClient(REAL_URI)
            context.cleanup(self.client.close)
            context.cleanup(lambda: self.client.drop_database(self.name))
            return
        self.wire = MongoWire()
        context.cleanup(self.wire.stop)
        self.wire.on('insert', reply(self.insert))
        self.wire.on('update', applied())
        self.wire.on('find', reply({'ok': 1, 'cursor': {'id': 0, 'ns': 'a.b', 'firstBatch': []}}))
        self.at = ('127.0.0.1', self.wire.port)

    def insert(self, request):
        answer, refused = {'n': 0, 'ok': 1.0}, []
        with self.lock:
            for index, item in enumerate(map(decode, request.items())):
                if item['_id'] in self.kept:
                    refused.append({'index': index, 'code': 11000, 'errmsg': 'duplicate key'})
                else:
                    self.kept[item['_id']] = item
                    answer['n'] += 1
        return {**answer, 'writeErrors': refused} if refused else answer

    def stored(self, collection='messages'):
        if REAL_URI:
            return sorted(d['_id'] for d in self.client[self.name][collection].find())
        with self.lock:
            return sorted(self.kept)


def proxied(context, **options):
    """(the proxy, a client's database through it, the store behind it)"""
    store = Store(context)
    wire = MongoWire(target=store.at)
    context.cleanup(wire.stop)
    return wire, connect(context, wire, **options)[store.name], store


def connect(context, wire, **options):
    settings = {'serverSelectionTimeoutMS': 4000, 'retryWrites': False, 'retryReads': False,
                **options}
    client = pymongo.MongoClient(wire.uri(), **settings)
    context.cleanup(client.close)
    return client


def numbered(*numbers):
    return [{'_id': number, 'text': 'x' * 20} for number in numbers]


def fails(kind, function, *arguments, **options):
    """The exception that the call must end with."""
    try:
        function(*arguments, **options)
    except kind as fault:
        return fault
    expect(False, f'{function} went well, wanted {kind}')


# MongoDB: a server alone


def alone_it_knows_the_drivers_commands_and_no_others(context):
    wire = MongoWire()
    context.cleanup(wire.stop)
    client = connect(context, wire)
    same(client.admin.command('ping')['ok'], 1, 'ping')
    same(client.server_info()['versionArray'][0], 6, 'buildInfo')
    fault = fails(mongo_errors.OperationFailure, client.x.messages.insert_one, {})
    same(fault.code, 59, 'an unknown command')
    client.close()
    wire.wait_for(lambda: wire.seen('endSessions') or not wire.connections)
    expect(wire.connections_total >= 1, 'no connection was counted')


def hello_says_what_the_test_wants(context):
    wire = MongoWire()
    context.cleanup(wire.stop)
    wire.cluster_time = True
    wire.be(maxWireVersion=9, logicalSessionTimeoutMinutes=None)
    got = connect(context, wire).admin.command('isMaster')
    same((got['maxWireVersion'], got['ismaster']), (9, True), 'isMaster')
    expect('logicalSessionTimeoutMinutes' not in got, 'a field that was taken away')
    expect('clusterTime' in got['$clusterTime'], 'no cluster time')
    got = connect(context, wire).admin.command('hello')
    expect('ismaster' not in got and got['isWritablePrimary'], 'hello in the words of isMaster')


def scram_lets_the_right_password_in_and_no_other(context):
    wire = MongoWire(users={'damso,=x': 's3cret'})
    context.cleanup(wire.stop)
    wire.on('insert', applied())

    def client(**options):
        return connect(context, wire, **options).x.messages
    client(username='damso,=x', password='s3cret').insert_one({})
    for name, password in (('damso,=x', 'wrong'), ('nobody', 's3cret')):
        fault = fails(mongo_errors.OperationFailure,
                      client(username=name, password=password).insert_one, {})
        same(fault.code, 18, f'{name} with {password}')
    same(fails(mongo_errors.OperationFailure, client().insert_one, {}).code, 13, 'without a login')
    same(len(wire.seen('insert')), 2, 'inserts that came')
    expect(wire.commands['saslContinue'] >= 3, 'nobody logged in')


def scram_works_before_a_target_that_asks_for_nothing(context):
    store = Store(context)
    wire = MongoWire(target=store.at, users={'damso': 's3cret'})
    context.cleanup(wire.stop)
    right = connect(context, wire, username='damso', password='s3cret')
    right[store.name].messages.insert_one({'_id': 1})
    same(store.stored(), [1], 'stored')
    wrong = connect(context, wire, username='damso', password='other')
    same(fails(mongo_errors.OperationFailure, wrong[store.name].messages.insert_one, {}).code, 18,
         'a wrong password')


def tls_is_for_those_who_trust_the_authority(context):
    certificates = make_certificates(context.directory())
    other = make_certificates(context.directory())
    store = Store(context)
    wire = MongoWire(target=store.at, tls=certificates.context())
    context.cleanup(wire.stop)
    client = connect(context, wire, tls=True, tlsCAFile=str(certificates.ca))
    documents = [{'_id': n, 'text': 'x' * 500} for n in range(1000)]   # over many TLS records
    client[store.name].messages.insert_many(documents)
    same(len(store.stored()), 1000, 'stored')
    client = connect(context, wire, tls=True, tlsCAFile=str(other.ca),
                     serverSelectionTimeoutMS=500)
    fails(mongo_errors.ServerSelectionTimeoutError, client.admin.command, 'ping')
    wire.wait_for(lambda: wire.tls_failures)
    second = MongoWire(target=('127.0.0.1', wire.port),
                       target_tls=ssl.create_default_context(cafile=str(certificates.ca)))
    context.cleanup(second.stop)
    same(connect(context, second).admin.command('ping')['ok'], 1, 'ping over TLS to the target')


# MongoDB: a proxy


def without_rules_everything_passes_and_is_written_down(context):
    wire, database, store = proxied(context)
    messages = database.get_collection(
        'messages', write_concern=pymongo.WriteConcern('majority', j=True),
        read_preference=pymongo.ReadPreference.SECONDARY_PREFERRED)
    same(len(messages.insert_many(numbered(*range(5)), ordered=False).inserted_ids), 5, 'inserted')
    list(messages.find({'_id': 3}))
    same(store.stored(), [0, 1, 2, 3, 4], 'stored')
    seen = wire.seen('insert', 'messages')[0]
    same((seen.documents, seen.database), (5, store.name), 'the insert')
    same(dict(seen.write_concern), {'w': 'majority', 'j': True}, 'its write concern')
    seen = wire.seen('find')[0]
    same(seen.command()['filter'], {'_id': 3}, 'the filter')
    same(seen.read_preference['mode'] if seen.read_preference else None, 'secondaryPreferred',
         'the read preference')
    same((wire.documents['insert'], wire.commands['insert']), (5, 1), 'counts')
    same(wire.seen(collection='others'), [], 'commands for another collection')


def what_would_lead_a_client_past_the_proxy_is_taken_out(context):
    middle = MongoWire()
    wire = MongoWire(target=('127.0.0.1', middle.port), users={'damso': 's3cret'})
    context.cleanup(middle.stop)
    context.cleanup(wire.stop)
    middle.be_primary('rs0', hosts=['10.0.0.1:27017'], compression=['zlib'],
                      topologyVersion={'processId': ObjectId(), 'counter': Int64(1)})
    client = connect(context, wire, replicaSet='rs0', compressors='zlib', username='damso',
                     password='s3cret', heartbeatFrequencyMS=500)
    same(client.admin.command('ping')['ok'], 1, 'ping')
    got = client.admin.command('isMaster')
    same((got['setName'], got['hosts'], got['primary'], got['me']),
         ('rs0', [wire.address], wire.address, wire.address), 'the set')
    expect(not {'compression', 'topologyVersion'} & set(got), f'isMaster said {got}')
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        sock.sendall(message(EXHAUST_ALLOWED, maxAwaitTimeMS=10_000, name='hello'))
        same(decode(reply_body(read_message(sock)))['isWritablePrimary'], True, 'hello')
        sock.sendall(message(EXHAUST_ALLOWED))
        read_message(sock)
    same((wire.exhaust_asked >= 2, middle.exhaust_asked), (True, 0), 'exhaust allowed')
    expect(any('saslSupportedMechs' in seen.command() for seen in wire.seen('hello')), 'no log-in')
    for seen in middle.seen('hello'):
        expect(not {'saslSupportedMechs', 'compression', 'maxAwaitTimeMS'} & set(seen.command()),
               f'the target was asked {seen.command()}')


def a_rule_takes_the_requests_that_it_names(context):
    wire, database, store = proxied(context)
    fault = error(11600, 'InterruptedAtShutdown')
    nth = wire.on('insert', fault, collection='messages', nth=3)
    some = wire.on(('update', 'insert'), fault, collection='rooms', times=2)
    when = wire.on(None, fault, when=lambda r: r.name == 'find'
                   and r.value('filter', {}).get('_id') == 7)
    refused = []
    for number in range(4):
        try:
            database.messages.insert_one({'_id': number})
        except mongo_errors.PyMongoError as problem:
            refused.append((number, problem.details['code']))
    same(refused, [(2, 11600)], 'what the rule for the third refused')
    fails(mongo_errors.PyMongoError, database.rooms.update_one, {'_id': 1}, {'$set': {'a': 1}})
    fails(mongo_errors.PyMongoError, database.rooms.insert_one, {'_id': 100})
    database.rooms.insert_one({'_id': 101})
    same(len(list(database.messages.find({'_id': 70}))), 0, 'a find that passes')
    for _ in range(2):
        fails(mongo_errors.PyMongoError, list, database.messages.find({'_id': 7}))
    same((nth.hits, some.hits, when.hits), (1, 2, 2), 'hits')
    when.remove()
    list(database.messages.find({'_id': 7}))
    same(when.hits, 2, 'hits of a rule that was removed')
    expect(2 not in store.stored(), 'a refused insert was stored')


def each_error_arrives_as_it_was_written(context):
    wire, database, store = proxied(context)
    codes = [(10107, 'NotWritablePrimary'), (189, 'PrimarySteppedDown'), (13, 'Unauthorized'),
             (11600, 'InterruptedAtShutdown'), (91, 'ShutdownInProgress'), (8000, 'AtlasError'),
             (11602, 'InterruptedDueToReplStateChange'), (18, 'AuthenticationFailed')]
    for code, name in codes:
        rule = wire.on('insert', error(code, name, 'a text', ['RetryableWriteError']), times=1)
        fault = fails(mongo_errors.PyMongoError, database.messages.insert_one, {'_id': code})
        same((fault.details['code'], fault.details['codeName'], rule.hits), (code, name, 1), name)
        expect(fault.has_error_label('RetryableWriteError'), f'{name} lost its label')
    same(store.stored(), [], 'stored')


def a_write_concern_error_comes_with_what_was_applied(context):
    wire, database, store = proxied(context)
    rule = wire.on('insert', write_concern_error(), times=1)
    fault = fails(mongo_errors.BulkWriteError, database.messages.insert_many, numbered(1, 2))
    same(fault.details['writeConcernErrors'][0]['code'], 64, 'the code')
    same((fault.details['nInserted'], store.stored(), rule.hits), (2, [1, 2], 1), 'applied')


def write_errors_refuse_some_and_let_the_others_through(context):
    wire, database, store = proxied(context)
    database.messages.insert_one({'_id': 4})
    rule = wire.on('insert', write_errors([
        {'index': 1, 'code': 121, 'errmsg': 'Document failed validation'},
        {'index': 3, 'code': 17280, 'errmsg': 'too large'}]), times=1)
    fault = fails(mongo_errors.BulkWriteError, database.messages.insert_many,
                  numbered(0, 1, 2, 3, 4, 5), ordered=False)
    same([(e['index'], e['code']) for e in fault.details['writeErrors']],
         [(1, 121), (3, 17280), (4, 11000)], 'errors: the target\'s own at its place in the whole')
    same((fault.details['nInserted'], store.stored()), (3, [0, 2, 4, 5]), 'the others')
    same(wire.seen('insert')[-1].documents, 6, 'documents that came')
    same(rule.hits, 1, 'hits')


def write_errors_may_look_at_each_document(context):
    wire, database, store = proxied(context)
    rule = wire.on('insert', write_errors(
        lambda d: {'code': 121, 'errmsg': 'no'} if d['_id'] == 12 else None), times=1)
    database.messages.insert_many(numbered(1, 2))
    same(rule.hits, 0, 'hits of a bulk without such a document')
    fault = fails(mongo_errors.BulkWriteError, database.messages.insert_many,
                  numbered(11, 12, 13), ordered=True)
    same([(e['index'], e['code']) for e in fault.details['writeErrors']], [(1, 121)], 'errors')
    same(store.stored(), [1, 2, 11], 'an ordered write stops there')
    database.messages.insert_one({'_id': 12})
    same(rule.hits, 1, 'hits')


def a_dropped_connection_leaves_what_was_applied(context):
    wire, database, store = proxied(context)
    for action, numbers in ((drop_before(), []), (apply_then_drop(), [1, 2, 3, 4]),
                            (half_then_drop(2), [1, 2, 3, 4, 11, 12])):
        rule = wire.on('insert', action, times=1)
        first = 11 if numbers[4:] else 1
        fails(mongo_errors.AutoReconnect, database.messages.insert_many,
              numbered(*range(first, first + 4)), ordered=False)
        same((store.stored(), rule.hits), (numbers, 1), 'stored')
    rule = wire.on('insert', half_then_drop(2))
    database.messages.insert_one({'_id': 20})
    same(rule.hits, 0, 'hits where there is no half')


def replies_are_delayed_and_held(context):
    wire, database, store = proxied(context)
    wire.on('insert', delay(0.3), nth=1)
    begin = time.monotonic()
    database.messages.insert_one({'_id': 0})
    expect(0.3 <= time.monotonic() - begin < 2, 'the delay was not kept')
    for before, number in ((False, 1), (True, 2)):
        held = stall(before)
        rule = wire.on('insert', held, times=1)
        thread = threading.Thread(target=database.messages.insert_one, args=({'_id': number},))
        thread.start()
        rule.wait_hits()
        same(number in store.stored(), not before, 'applied while it is held')
        database.messages.insert_one({'_id': 10 + number})       # another connection goes on
        expect(thread.is_alive(), 'the reply was not held')
        held.release()
        thread.join(5)
        expect(not thread.is_alive() and number in store.stored(), 'the release changed nothing')


def actions_nest(context):
    wire, database, _ = proxied(context)
    slow = wire.on('insert', delay(0.2))
    late = wire.on('insert', error(91, 'ShutdownInProgress'), times=1)
    begin = time.monotonic()
    fails(mongo_errors.PyMongoError, database.messages.insert_one, {'_id': 1})
    expect(time.monotonic() - begin >= 0.2, 'the delay was passed over')
    same((slow.hits, late.hits), (1, 1), 'hits')


def a_primary_becomes_a_secondary_and_back(context):
    store = Store(context)
    wire = MongoWire(target=store.at)
    context.cleanup(wire.stop)
    wire.be_primary('rs0')
    client = connect(context, wire, replicaSet='rs0', heartbeatFrequencyMS=500,
                     serverSelectionTimeoutMS=1500)
    database = client[store.name]
    database.messages.insert_one({'_id': 1})
    same(client.primary, ('127.0.0.1', wire.port), 'the primary')
    wire.be_secondary('rs0')
    wire.drop_all()
    fails(mongo_errors.AutoReconnect, database.messages.insert_one, {'_id': 2})
    fails(mongo_errors.ServerSelectionTimeoutError, database.messages.insert_one, {'_id': 3})
    list(database.get_collection('messages', read_preference=pymongo.ReadPreference.SECONDARY)
         .find({'_id': 1}))
    wire.be_primary('rs0')
    database.messages.insert_one({'_id': 4})
    same(len(wire.seen('insert')), 2, 'inserts that were sent')


def a_retry_in_a_replica_set_is_answered_as_the_first_time(context):
    store = Store(context)
    wire = MongoWire(target=store.at)
    context.cleanup(wire.stop)
    wire.be_primary('rs0')
    rule = wire.on('insert', apply_then_drop(), times=1)
    client = connect(context, wire, replicaSet='rs0', retryWrites=True)
    client[store.name].messages.insert_many(numbered(1, 2))
    same((store.stored(), rule.hits), ([1, 2], 1), 'stored')
    first, second = wire.seen('insert')
    same(first.command()['txnNumber'], second.command()['txnNumber'], 'the transaction number')
    if not REAL_URI:
        expect(not any('txnNumber' in seen.command() for seen in store.wire.seen('insert')),
               'a target that is no replica set saw a transaction number')


def a_target_that_is_gone_ends_the_clients_connection(context):
    store = Store(context)
    middle = MongoWire(target=store.at)
    wire = MongoWire(target=('127.0.0.1', middle.port))
    context.cleanup(wire.stop)
    context.cleanup(middle.stop)
    database = connect(context, wire, serverSelectionTimeoutMS=2000)[store.name]
    database.messages.insert_one({'_id': 1})
    rule = wire.on('insert', apply_then_drop())
    middle.refuse()
    expect(middle.drop_all() >= 1, 'nobody was connected')
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        middle.accept()
        sock.sendall(message())
        read_message(sock)
        middle.refuse()
        middle.drop_all()
        same(read_all(sock, 5), (b'', True), 'an idle client sees the end too')
    fails(mongo_errors.ConnectionFailure, database.messages.insert_one, {'_id': 2})
    same(rule.hits, 0, 'hits of a rule whose target was gone')
    wire.clear()
    middle.accept()
    database.messages.insert_one({'_id': 3})


def new_connections_can_be_refused(context):
    wire, database, _ = proxied(context, serverSelectionTimeoutMS=1500)
    database.messages.insert_one({'_id': 1})
    wire.refuse()
    database.messages.insert_one({'_id': 2})
    expect(wire.drop_all() >= 1, 'nobody was connected')
    fails(mongo_errors.ConnectionFailure, database.messages.insert_one, {'_id': 3})
    fails(mongo_errors.ConnectionFailure, database.messages.insert_one, {'_id': 4})
    fails(ConnectionRefusedError, socket.create_connection, ('127.0.0.1', wire.port))
    wire.accept()
    database.messages.insert_one({'_id': 5})


def message(flags=0, checksum=None, opcode=None, name='ping', **more):
    data = bytearray(op_msg(7, 0, encode({name: 1, **more, '$db': 'admin'}), flags=flags))
    if opcode:
        INT32.pack_into(data, 12, opcode)
    if checksum is not None:
        INT32.pack_into(data, 0, len(data) + 4)
        data += (crc32c(data) ^ checksum).to_bytes(4, 'little')
    return data


def flags_and_checksums_are_what_the_protocol_says(context):
    same(crc32c(b'123456789'), 0xE3069283, 'the check value of CRC-32C')
    wire, _, _ = proxied(context)

    def ask(data):
        with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
            sock.sendall(data)
            try:
                return read_message(sock)
            except (EOFError, ConnectionError):
                return None
    for data in (message(), message(CHECKSUM_PRESENT, checksum=0), message(EXHAUST_ALLOWED)):
        answer = ask(data)
        same(HEADER.unpack_from(answer)[2], 7, 'responseTo')
        same((INT32.unpack_from(answer, 16)[0], decode(reply_body(answer))['ok']), (0, 1), 'reply')
    same(wire.exhaust_asked, 1, 'requests that allowed exhaust')
    wrong = (message(CHECKSUM_PRESENT, checksum=1), message(1 << 5), message(opcode=2012),
             message()[:20] + b'\x02' + message()[21:], b'GET / HTTP/1.1\r\n\r\n')
    for data in wrong:
        same(ask(data), None, f'the answer to {bytes(data[:24])}')
    wire.wait_for(lambda: len(wire.malformed) == len(wrong))


def an_unacknowledged_write_has_no_reply(context):
    wire, database, store = proxied(context)
    quiet = database.get_collection('messages', write_concern=pymongo.WriteConcern(0))
    quiet.insert_one({'_id': 1})
    wire.wait_for(lambda: wire.seen('insert'))
    rule = wire.on('insert', error(91, 'ShutdownInProgress'), times=1)
    quiet.insert_one({'_id': 2})
    rule.wait_hits()
    database.messages.insert_one({'_id': 3})
    same(store.stored(), [1, 3], 'stored')
    body = encode({'insert': 'messages', '$db': store.name, 'writeConcern': {'w': 0}})
    one = op_msg(4, 0, body, [('documents', [encode({'_id': 4})])], MORE_TO_COME)
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        sock.sendall(one + message())
        same(HEADER.unpack_from(read_message(sock))[2], 7, 'the first reply is that to the ping')
    same(store.stored(), [1, 3, 4], 'stored')


def a_reply_that_nobody_asked_for_is_passed_over(context):
    listener = socket.create_server(('127.0.0.1', 0))
    context.cleanup(listener.close)

    def answer_twice():
        with listener.accept()[0] as sock:
            number = HEADER.unpack_from(read_message(sock))[1]
            for to in (number + 1, number):
                sock.sendall(op_msg(0, to, encode({'ok': 1, 'to': to})))
            sock.recv(1)
    threading.Thread(target=answer_twice, daemon=True).start()
    wire = MongoWire(target=listener.getsockname())
    context.cleanup(wire.stop)
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        sock.sendall(message())
        same(decode(reply_body(read_message(sock)))['to'], 7, 'the reply')


def documents_may_stand_in_the_body_too(context):
    wire, _, store = proxied(context)
    rule = wire.on('insert', half_then_drop(2), times=1)
    body = encode({'insert': 'messages', 'documents': numbered(1, 2, 3), '$db': store.name})
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        sock.sendall(op_msg(1, 0, body))
        same(read_all(sock), (b'', True), 'the end')
    same((rule.hits, store.stored(), wire.documents['insert']), (1, [1, 2], 3), 'stored')


def bulks_pass_at_speed(context):
    sink = MongoWire()
    context.cleanup(sink.stop)
    sink.on('insert', applied())
    wire = MongoWire(target=('127.0.0.1', sink.port))
    context.cleanup(wire.stop)
    wire.on('insert', error(1, 'Never'), collection='others')
    document = encode({'_id': b'0123456789abcdef', 'room_id': 1, 'seq': 1, 'body': 'x' * 100})
    body = encode({'insert': 'messages', '$db': 'x', 'ordered': False})
    bulk = op_msg(1, 0, body, [('documents', [document] * BULK)])
    bulks = BULKS_QUICK if context.quick else BULKS
    with socket.create_connection(('127.0.0.1', wire.port)) as sock:
        begin = time.monotonic()
        for _ in range(bulks):
            sock.sendall(bulk)
            same(decode(reply_body(read_message(sock)))['n'], BULK, 'n')
        rate = bulks * BULK / (time.monotonic() - begin)
    same((wire.documents['insert'], sink.documents['insert']), (bulks * BULK,) * 2, 'documents')
    context.note(f'{rate:,.0f} documents/s through a proxy and its target in one process')
    expect(rate >= DOCUMENTS_PER_SECOND_MIN, f'only {rate:,.0f} documents/s')


# Redis


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as sock:
        return sock.getsockname()[1]


def redis_server(context):
    """A real server of this test: (a client past the proxy, its port)."""
    port = free_port()
    process = subprocess.Popen(
        ['redis-server', '--port', str(port), '--bind', '127.0.0.1', '--save', '', '--appendonly',
         'no', '--dir', str(context.directory())], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def end():
        process.kill()
        process.wait(10)
    context.cleanup(end)
    client = redis.Redis(port=port)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            return client, port
        except redis.exceptions.ConnectionError:
            expect(time.monotonic() < deadline and process.poll() is None, 'no redis-server')
            time.sleep(0.02)


def redis_proxied(context, **options):
    """(the proxy, a client through it, a client past it)"""
    direct, port = redis_server(context)
    wire = RedisWire(target=('127.0.0.1', port), **options)
    context.cleanup(wire.stop)
    client = redis.Redis(port=wire.port, socket_timeout=5)
    context.cleanup(client.close)
    return wire, client, direct


def replies_are_found_whole_at_every_split(_context):
    replies = [b'+OK\r\n', b':-12\r\n', b'$-1\r\n', b'$0\r\n\r\n', b'$4\r\n\r\n$\r\r\n', b'*-1\r\n',
               b'*0\r\n', b'-ERR no\r\n', b'*3\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n+x\r\n']
    for data in replies:
        for size in range(len(data)):
            same(reply_end(bytearray(data[:size])), None, f'{data[:size]}')
        same(reply_end(bytearray(data + b'+next\r\n')), len(data), f'{data}')


def redis_passes_everything_and_counts(context):
    wire, client, direct = redis_proxied(context)
    value = bytes(range(256)) * 4000
    client.set('key', value)
    same(client.get('key') == value == direct.get('key'), True, 'a value of a megabyte')
    pipe = client.pipeline(transaction=False)
    for number in range(3000):
        pipe.rpush('list', f'{number}\r\n$5')
    same(pipe.execute(), list(range(1, 3001)), 'replies of a pipeline')
    same(len(client.lrange('list', 0, -1)), 3000, 'elements')
    same((wire.connections_total, wire.open), (1, 1), 'connections')
    same(wire.replies, 3003, 'replies')
    expect(wire.bytes_in > len(value) < wire.bytes_out, 'bytes')


def a_client_may_write_long_before_it_reads(context):
    wire, _, direct = redis_proxied(context)
    with socket.create_connection(('127.0.0.1', wire.port), 20) as sock:
        command = b'*2\r\n$4\r\nECHO\r\n$1000\r\n' + b'x' * 1000 + b'\r\n'
        sock.sendall(command * 20_000)             # more than the buffers of both sockets hold
        left = 20_000 * 1009
        while left:
            part = sock.recv(1 << 20)
            expect(part, 'closed')
            left -= len(part)
    same(direct.ping(), True, 'ping')


def a_redis_that_reads_nothing_stops_its_clients(context):
    listener = socket.create_server(('127.0.0.1', 0))
    context.cleanup(listener.close)
    wire = RedisWire(target=listener.getsockname())
    context.cleanup(wire.stop)
    with socket.create_connection(('127.0.0.1', wire.port), 0.5) as sock:
        fails(TimeoutError, sock.sendall, b'x' * (64 << 20))
    expect(4 << 20 <= wire.bytes_in < 32 << 20, f'{wire.bytes_in} bytes were taken')


def half_closed_means_commands_go_and_replies_do_not(context):
    wire, client, direct = redis_proxied(context)
    client.ping()
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        sock.sendall(b'PING\r\n')
        same(sock.recv(100), b'+PONG\r\n', 'before')
        same(wire.half_close(), 2, 'connections')
        same(read_all(sock), (b'', True), 'the end')
        sock.sendall(b'*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n')
        wire.wait_for(lambda: wire.bytes_lost >= 5)
        same(direct.get('a'), b'b', 'the command was done')
        expect(wire.open >= 1, 'the socket was closed')
    same((wire.half_closes, client.ping()), (2, True), 'a new connection')


def a_stall_keeps_everything_for_later(context):
    wire, client, direct = redis_proxied(context)
    client.ping()
    wire.stall()
    impatient = redis.Redis(port=wire.port, socket_timeout=0.2)
    fails(redis.exceptions.TimeoutError, impatient.ping)
    thread = threading.Thread(target=client.set, args=('a', 'b'))
    thread.start()
    thread.join(0.2)
    expect(thread.is_alive() and direct.get('a') is None, 'it was not stalled')
    wire.go()
    thread.join(5)
    same((thread.is_alive(), direct.get('a')), (False, b'b'), 'after go')
    impatient.close()


def replies_are_cut_and_torn(context):
    wire, client, direct = redis_proxied(context)
    direct.set('key', 'x' * 1000)
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        fault = wire.cut_replies_after(1500)
        sock.sendall(b'GET key\r\n' * 3)
        same(len(read_all(sock)[0]), 1500, 'bytes until the cut')
        same(fault.hits, 1, 'hits')
    with socket.create_connection(('127.0.0.1', wire.port), 5) as sock:
        fault = wire.truncate_reply()
        sock.sendall(b'PING\r\n')
        same(read_all(sock), (b'+PO', True), 'half a reply')
        same(fault.hits, 1, 'hits')
    fault = wire.truncate_reply()
    fails(redis.exceptions.ConnectionError, client.get, 'key')
    same((fault.hits, client.get('key')), (1, b'x' * 1000), 'the next one')


def an_injected_reply_takes_the_place_of_one(context):
    wire, client, direct = redis_proxied(context)
    fault = wire.inject_error("OOM command not allowed when used memory > 'maxmemory'.", times=2)
    pipe = client.pipeline(transaction=False)
    for number in range(4):
        pipe.rpush('list', number)
    got = pipe.execute(raise_on_error=False)
    same([str(reply)[:8] for reply in got], ['OOM comm', 'OOM comm', '3', '4'], 'replies in step')
    same((fault.hits, direct.llen('list')), (2, 4), 'hits, and what Redis did')
    fault = wire.inject(b'\x00\xff garbage\r\n')
    fails(redis.exceptions.InvalidResponse, client.ping)
    same((fault.hits, client.ping()), (1, True), 'a new connection')
    fault = wire.inject(b'never')
    wire.disarm()
    same((client.ping(), fault.hits), (True, 0), 'after disarm')


def redis_connections_end_and_are_refused(context):
    wire, client, _ = redis_proxied(context)
    client.ping()
    wire.refuse()
    client.ping()
    same(wire.drop_all(), 1, 'connections')
    same(wire.connections_dropped, 1, 'connections dropped')
    fails(redis.exceptions.ConnectionError, client.ping)
    fails(ConnectionRefusedError, socket.create_connection, ('127.0.0.1', wire.port))
    wire.listen()
    same(client.ping(), True, 'ping')


def a_redis_that_is_gone_is_gone_through_the_proxy(context):
    wire, client, direct = redis_proxied(context)
    client.ping()
    direct.shutdown(nosave=True)
    fails(redis.exceptions.ConnectionError, client.ping)
    fails(redis.exceptions.ConnectionError, client.ping)
    expect(wire.target_failures >= 1, 'no failure was counted')


def rediss_is_for_those_who_trust_the_authority(context):
    certificates = make_certificates(context.directory())
    other = make_certificates(context.directory())
    wire, _, direct = redis_proxied(context, tls=certificates.context())
    expect(wire.url(2, ':x@') == f'rediss://:x@127.0.0.1:{wire.port}/2', 'the URL')

    def client(authority):
        return redis.Redis(port=wire.port, ssl=True, ssl_ca_certs=str(authority), socket_timeout=5)
    trusting = client(certificates.ca)
    value = os.urandom(3 << 20)
    trusting.set('key', value)
    expect(trusting.get('key') == value == direct.get('key'), 'a large value was changed')
    fails(redis.exceptions.ConnectionError, client(other.ca).ping)
    wire.wait_for(lambda: wire.tls_failures == 1)
    same(wire.half_close(), 1, 'connections')
    connections = wire.connections_total
    same(trusting.ping(), True, 'a new connection, which the pool makes by itself')
    same(wire.connections_total - connections, 1, 'connections made')
    trusting.close()


if __name__ == '__main__':
    run([alone_it_knows_the_drivers_commands_and_no_others, hello_says_what_the_test_wants,
         scram_lets_the_right_password_in_and_no_other,
         scram_works_before_a_target_that_asks_for_nothing,
         tls_is_for_those_who_trust_the_authority,
         without_rules_everything_passes_and_is_written_down,
         what_would_lead_a_client_past_the_proxy_is_taken_out,
         a_rule_takes_the_requests_that_it_names, each_error_arrives_as_it_was_written,
         a_write_concern_error_comes_with_what_was_applied,
         write_errors_refuse_some_and_let_the_others_through,
         write_errors_may_look_at_each_document, a_dropped_connection_leaves_what_was_applied,
         replies_are_delayed_and_held, actions_nest, a_primary_becomes_a_secondary_and_back,
         a_retry_in_a_replica_set_is_answered_as_the_first_time,
         a_target_that_is_gone_ends_the_clients_connection, new_connections_can_be_refused,
         flags_and_checksums_are_what_the_protocol_says, an_unacknowledged_write_has_no_reply,
         a_reply_that_nobody_asked_for_is_passed_over, documents_may_stand_in_the_body_too,
         bulks_pass_at_speed, replies_are_found_whole_at_every_split,
         redis_passes_everything_and_counts, a_client_may_write_long_before_it_reads,
         a_redis_that_reads_nothing_stops_its_clients,
         half_closed_means_commands_go_and_replies_do_not, a_stall_keeps_everything_for_later,
         replies_are_cut_and_torn, an_injected_reply_takes_the_place_of_one,
         redis_connections_end_and_are_refused, a_redis_that_is_gone_is_gone_through_the_proxy,
         rediss_is_for_those_who_trust_the_authority],
        seconds=120, seconds_quick=60, needs_server=False)
