"""A server of MongoDB's wire protocol that does what a test tells it: in front of a real server, or
alone.

Threads: one that accepts, one a connection. The protocol is request and reply in turn (exhaust is
never granted, compression never offered), so that a connection's thread may simply wait.
Before a target, everything passes through that no rule is for. Only `hello` is changed: clients
must stay on this side, send no compressed message and wait for no streamed reply.
"""
import collections
import datetime
import select
import socket
import ssl
import threading
import time

from bson.int64 import Int64
from bson.timestamp import Timestamp

from harness import Failure
from wire_bson import (HEADER, INT32, MESSAGE_BYTES_MAX, OP_QUERY, Malformed, Request, decode,
                       encode, reply_body)
from wire_rules import Dropped, Exchange, Rule, error_document
from wire_scram import Scram

SEEN_MAX, BODY_KEPT_MAX = 50_000, 4096
TLS_SECONDS = TARGET_CONNECT_SECONDS = 5
POLL_SECONDS = 0.02
STRAY_REPLIES_MAX = 1000
NO_LOGIN_NEEDED = ('hello', 'ping', 'buildInfo', 'endSessions', 'saslStart', 'saslContinue')
GONE = (OSError, EOFError, ssl.SSLError, ValueError)     # ValueError: a closed descriptor
HELLO_TAKEN_OUT = ('topologyVersion', 'compression', 'hosts', 'passives', 'arbiters', 'me',
                   'primary')


class TargetGone(Exception):
    """The server behind us does not answer; the client loses its connection, as it would there."""


class Seen:
    """One command as it came: for assertions. `body` is None if it was too long to keep."""

    def __init__(self, request, connection):
        self.name, self.database = request.name, request.database
        self.collection, self.documents = request.collection, request.documents
        self.write_concern = request.value('writeConcern')
        self.read_preference = request.value('$readPreference')
        self.connection, self.at = connection, time.monotonic()
        self.body = request.body if len(request.body) <= BODY_KEPT_MAX else None

    def command(self):
        return decode(self.body) if self.body is not None else None

    def __repr__(self):
        return f'{self.name} {self.collection} ({self.documents}) on {self.connection}'


def shut(sock):
    """Ends a connection from any thread; the thread that reads it sees the end and closes it."""
    if sock is not None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)     # not TLS's own: it forgets its keys
        except OSError:
            pass


def read_exactly(sock, size):
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        got = sock.recv_into(view[have:])
        if not got:
            raise EOFError
        have += got
    return data


def read_message(sock):
    head = read_exactly(sock, 16)
    size = INT32.unpack_from(head)[0]
    if not 16 <= size <= MESSAGE_BYTES_MAX + 16384:
        raise Malformed(f'a message of {size} bytes')
    return head + read_exactly(sock, size - 16)


class Connection:
    """One client, and its own connection to the target."""

    def __init__(self, wire, sock, number):
        self.wire, self.sock, self.number = wire, sock, number
        self.target, self.over = None, threading.Event()
        self.scram = Scram(wire.users) if wire.users else None

    def serve(self):
        try:
            if self.wire.tls:
                self.sock.settimeout(TLS_SECONDS)
                self.sock = self.wire.tls.wrap_socket(self.sock, server_side=True)
                self.sock.settimeout(None)
            while not self.over.is_set():
                self.await_request()
                self.serve_one(Request(read_message(self.sock)))
        except ssl.SSLError as fault:
            self.wire.count(self.wire.tls_failures, str(fault))
        except Malformed as fault:
            self.wire.count(self.wire.malformed, str(fault))
        except (Dropped, TargetGone, *GONE):
            pass                                   # each of these ends the connection
        finally:
            self.end()
            self.sock.close()
            if self.target:
                self.target.close()
            self.wire.forget(self)

    def end(self):
        """From any thread: the connection's own thread closes it at once."""
        self.over.set()
        shut(self.sock)
        shut(self.target)

    def await_request(self):
        """Waits for bytes of the client, and sees when the target has closed meanwhile."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if self.target and not self.wire.target_tls:
            poll.register(self.target, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll()]
        if self.sock.fileno() not in ready:
            if not self.target.recv(1, socket.MSG_PEEK):
                raise TargetGone
            poll.unregister(self.target)           # a reply that nobody asked for: round_trip()
            poll.poll()

    def wait(self, event, seconds):
        """Waits for the event or the time; True if the connection was ended instead."""
        deadline = time.monotonic() + seconds if seconds is not None else float('inf')
        while not self.over.is_set() and time.monotonic() < deadline:
            if event.wait(min(POLL_SECONDS, max(0, deadline - time.monotonic()))):
                return False
        return self.over.is_set()

    def serve_one(self, request):
        self.wire.note(request, self.number)
        if self.scram and not self.scram.user and request.name not in NO_LOGIN_NEEDED:
            message = request.reply(error_document(
                13, 'Unauthorized', f'command {request.name} requires authentication'))
        else:
            message = self.run_rules(request, self.wire.rules)
        if not request.more_to_come:
            self.sock.sendall(message)

    def run_rules(self, request, rules):
        for position, rule in enumerate(rules):
            with self.wire.changed:
                claimed = rule.claim(request)
            if claimed:
                return Exchange(self, request, rule, rules[position + 1:]).run()
        if self.scram and request.name in ('saslStart', 'saslContinue'):
            step = self.scram.start if request.name == 'saslStart' else self.scram.go_on
            return request.reply(step(request.command()))
        if request.name == 'hello':
            return self.hello(request)
        return self.ask(request) if self.wire.target else self.wire.alone(request)

    def hello(self, request):
        """The target's hello, or our own, with what the test wants it to say."""
        wire = self.wire
        if wire.target:
            ours = ('compression', 'topologyVersion', 'maxAwaitTimeMS')
            if wire.users:
                ours += ('saslSupportedMechs', 'speculativeAuthenticate')
            body = decode(reply_body(self.round_trip(request.without(ours))))
        else:
            body = wire.hello_alone()
        return request.reply(wire.finish_hello(body, request))

    def ask(self, request):
        """Sends the request on: the target's reply, or None if there is to be none."""
        if not self.wire.pretends_set:
            return self.round_trip(request)
        session, number = request.value('lsid'), request.value('txnNumber')
        key = (encode(session), number) if session and number is not None else None
        remembered = self.wire.remembered(key)
        if remembered:
            return request.reply(remembered)
        plain = request.without(('txnNumber', '$clusterTime'))
        plain.is_part = request.is_part
        message = self.round_trip(plain)
        if key and message and not request.is_part:
            self.wire.remember(key, reply_body(message))
        return message

    def round_trip(self, request):
        """One request and its reply. FerretDB also answers writes that want no reply: those answers
        are passed over here, where they would confuse a client."""
        try:
            if self.target is None:
                self.target = self.wire.dial()
                if self.over.is_set():             # end() came before there was one to end
                    raise TargetGone
            self.target.sendall(request.message)
            if request.more_to_come:
                return None
            for _ in range(STRAY_REPLIES_MAX):
                message = read_message(self.target)
                if HEADER.unpack_from(message)[2] == request.request_id:
                    return bytes(message)
            raise TargetGone('replies to everything but what was asked')
        except (*GONE, Malformed) as error:
            raise TargetGone(str(error)) from error


class MongoWire:
    """Listens from the start. `target` is (host, port) of the server behind, or None to be one.

    `tls` and `target_tls` are ssl.SSLContexts; `users` {name: password} asks for SCRAM-SHA-256 here
    (a target then must ask for none)."""

    def __init__(self, listen_port=0, target=None, *, tls=None, target_tls=None, users=None):
        self.target, self.tls, self.target_tls = target, tls, target_tls
        self.users = users or {}
        self.changed = threading.Condition(threading.RLock())
        self.rules, self.log, self.connections = (), collections.deque(maxlen=SEEN_MAX), set()
        self.commands, self.documents = collections.Counter(), collections.Counter()
        self.malformed, self.tls_failures = [], []
        self.connections_total = self.exhaust_asked = 0
        self.hello_fields, self.pretends_set, self.cluster_time = {}, False, False
        self.retries = collections.OrderedDict()
        self.listener, self.port = None, listen_port
        self.accept()

    @property
    def address(self):
        return f'127.0.0.1:{self.port}'

    def uri(self, database='', options=''):
        return f'mongodb://{self.address}/{database}' + (f'?{options}' if options else '')

    # Rules

    def on(self, name, action, **which):
        """Adds a rule behind the others and returns it. `name` is a command, a tuple of them, or
        None for all but the driver's own; further: collection, nth (only the n-th), times (the
        next n), when (a function of the Request)."""
        with self.changed:
            rule = Rule(self, name, action, **which)
            self.rules = (*self.rules, rule)
        return rule

    def remove(self, rule):
        with self.changed:
            self.rules = tuple(other for other in self.rules if other is not rule)

    def clear(self):
        with self.changed:
            self.rules = ()

    # What it says of itself

    def be(self, **fields):
        """hello says these fields from now on; None takes one away."""
        self.hello_fields = {**self.hello_fields, **fields}

    def be_primary(self, set_name, hosts=None, **fields):
        self.be_member(set_name, True, hosts, primary=self.address, **fields)

    def be_secondary(self, set_name, primary=None, hosts=None, **fields):
        self.be_member(set_name, False, hosts or [self.address, *([primary] if primary else [])],
                       primary=primary, **fields)

    def be_member(self, set_name, is_primary, hosts, **fields):
        """A member of a replica set. A target that is none never sees transaction numbers: a retry
        is answered with what the write was answered, as a set does."""
        self.pretends_set = True
        self.be(setName=set_name, setVersion=1, isWritablePrimary=is_primary,
                secondary=not is_primary, hosts=hosts or [self.address], me=self.address, **fields)

    def be_plain(self):
        """What the target says, or a stand-alone server, again."""
        self.hello_fields, self.pretends_set = {}, False

    def hello_alone(self):
        return {'isWritablePrimary': True, 'maxBsonObjectSize': 16 << 20,
                'maxMessageSizeBytes': MESSAGE_BYTES_MAX, 'maxWriteBatchSize': 100_000,
                'localTime': datetime.datetime.utcnow(), 'logicalSessionTimeoutMinutes': 30,
                'connectionId': 1, 'minWireVersion': 0, 'maxWireVersion': 17, 'readOnly': False,
                'ok': 1.0}

    def finish_hello(self, body, request):
        """The fields that keep a client here, and those that the test asked for."""
        primary = body.pop('isWritablePrimary', None) or body.pop('ismaster', False)
        is_member = 'setName' in body
        body = {name: value for name, value in body.items()
                if name not in HELLO_TAKEN_OUT and name != 'ismaster'}
        if is_member:
            body |= {'hosts': [self.address], 'me': self.address}
            body |= {'primary': self.address} if primary else {}
        said = {'isWritablePrimary': primary, **self.hello_fields}
        primary = said.pop('isWritablePrimary')
        body |= said
        body['isWritablePrimary' if request.spelling == 'hello' else 'ismaster'] = primary
        if request.value('helloOk'):
            body['helloOk'] = True
        if self.users and request.value('saslSupportedMechs'):
            body['saslSupportedMechs'] = ['SCRAM-SHA-256']
        body = {name: value for name, value in body.items() if value is not None}
        return {**body, **self.time_fields()}

    def time_fields(self):
        """$clusterTime and operationTime, if the test wants them."""
        if not self.cluster_time:
            return {}
        now = Timestamp(int(time.time()), 1)
        signature = {'hash': bytes(20), 'keyId': Int64(0)}
        return {'$clusterTime': {'clusterTime': now, 'signature': signature}, 'operationTime': now}

    def alone(self, request):
        """The few commands that need no store; the rest is for rules."""
        known = {'ping': {}, 'endSessions': {}, 'killCursors': {},
                 'buildInfo': {'version': '6.0.0', 'versionArray': [6, 0, 0, 0],
                               'maxBsonObjectSize': 16 << 20}}
        if request.opcode == OP_QUERY:
            answer = error_document(352, 'UnsupportedOpQueryCommand',
                                    f'Unsupported OP_QUERY command: {request.name}')
        elif request.name in known:
            answer = {**known[request.name], 'ok': 1.0}
        else:
            answer = error_document(59, 'CommandNotFound', f"no such command: '{request.name}'")
        return request.reply({**answer, **self.time_fields()})

    def remembered(self, key):
        with self.changed:
            return self.retries.get(key) if key else None

    def remember(self, key, body):
        answer = decode(body)
        if answer.get('ok') == 1 and not answer.get('writeErrors'):
            with self.changed:
                self.retries[key] = body
                if len(self.retries) > 1000:
                    self.retries.popitem(last=False)

    # What it saw

    def note(self, request, connection):
        seen = Seen(request, connection)
        with self.changed:
            self.log.append(seen)
            self.commands[seen.name] += 1
            self.documents[seen.name] += seen.documents
            self.exhaust_asked += request.was_exhaust
            self.changed.notify_all()

    def count(self, where, text):
        with self.changed:
            where.append(text)
            self.changed.notify_all()

    def seen(self, name=None, collection=None, database=None):
        """Commands in the order in which they came (the last 50,000 of all)."""
        with self.changed:
            return [seen for seen in self.log
                    if name in (None, seen.name) and collection in (None, seen.collection)
                    and database in (None, seen.database)]

    def wait_for(self, predicate, seconds=10, what=lambda: 'what the test waits for'):
        """What the predicate returns, once it is true; it is asked after each command and hit."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                got = predicate()
                if got:
                    return got
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(f'not within {seconds} s: {what()}')
                self.changed.wait(left)

    # Connections

    def dial(self):
        sock = socket.create_connection(self.target, TARGET_CONNECT_SECONDS)
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.target_tls:
            sock = self.target_tls.wrap_socket(sock, server_hostname=self.target[0])
        return sock

    def accept(self):
        """Listens (again) at the same port."""
        if self.listener is None:
            self.listener = socket.create_server(('127.0.0.1', self.port), backlog=512)
            self.port = self.listener.getsockname()[1]
            threading.Thread(target=self.accept_all, args=(self.listener,), daemon=True).start()

    def accept_all(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return listener.close()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self.connections_total += 1
                connection = Connection(self, sock, self.connections_total)
                self.connections.add(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def forget(self, connection):
        with self.changed:
            self.connections.discard(connection)
            self.changed.notify_all()

    def refuse(self):
        """New connections are refused by the kernel until accept(); open ones stay."""
        listener, self.listener = self.listener, None
        if listener:
            shut(listener)
            self.wait_closed(listener)

    def wait_closed(self, listener):
        deadline = time.monotonic() + 5
        while listener.fileno() >= 0 and time.monotonic() < deadline:
            time.sleep(0.001)

    def drop_all(self):
        """Ends every open connection; how many there were."""
        with self.changed:
            connections = list(self.connections)
        for connection in connections:
            connection.end()
        return len(connections)

    def stop(self):
        self.refuse()
        self.drop_all()
        self.wait_for(lambda: not self.connections, 10, lambda: 'the connections to end')
