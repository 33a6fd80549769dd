"""Rules of a MongoWire: which requests they are for, and what happens to those.

An action is a function of an Exchange. It returns the reply message, or raises Dropped for a
connection that ends without one; exchange.proceed() is what would have happened without it: the
rules added after this one, then the target. So rules nest: a delay before an error, a reply made up
by one rule and dropped by another.
"""
import threading

from wire_bson import decode, plus, reply_body

DRIVER_OWN = ('hello', 'saslStart', 'saslContinue', 'endSessions', 'ping', 'buildInfo',
              'killCursors')


class Dropped(Exception):
    """The connection ends here, and the request has no answer."""


class Rule:
    """What to do with some requests. `hits` counts the faults that happened: an action that could
    not be done (the target was gone, no such document) does not count."""

    def __init__(self, wire, name, action, *, collection=None, nth=None, times=None, when=None):
        self.wire, self.action = wire, action
        self.names = (name,) if isinstance(name, str) else name
        self.collection, self.when = collection, when
        self.skip = nth - 1 if nth else 0
        self.left = 1 if nth else times                 # None: all until it is removed
        self.hits = 0

    def fits(self, request):
        if self.names is None and request.name in DRIVER_OWN:
            return False
        return ((self.names is None or request.name in self.names)
                and self.collection in (None, request.collection)
                and (self.when is None or self.when(request)))

    def claim(self, request):
        """True if the request is this rule's, which counts it. The wire's lock is held."""
        if self.left == 0 or not self.fits(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True

    def give_back(self):
        with self.wire.changed:
            self.left = None if self.left is None else self.left + 1

    def hit(self):
        with self.wire.changed:
            self.hits += 1
            self.wire.changed.notify_all()

    def wait_hits(self, count=1, seconds=10):
        """Returns when the rule has done its work so often; Failure if it does not."""
        self.wire.wait_for(lambda: self.hits >= count, seconds,
                           lambda: f'a rule for {self.names} hit {self.hits} times of {count}')

    def remove(self):
        self.wire.remove(self)


class Exchange:
    """One request under one rule."""

    def __init__(self, connection, request, rule, rest):
        self.connection, self.request, self.rule, self.rest = connection, request, rule, rest
        self.counted = False

    def run(self):
        try:
            reply = self.rule.action(self)
        except Dropped:
            self.hit()
            raise
        self.hit()                             # before the reply is out: who reads it may count
        return reply

    def hit(self):
        if not self.counted:
            self.counted = True
            self.rule.hit()

    def proceed(self, request=None):
        """The reply (a message) of the rules after this one and of the target."""
        return self.connection.run_rules(request or self.request, self.rest)

    def pass_on(self):
        """proceed(), when the rule turns out to have nothing to do: no hit, and none used up."""
        self.missed()
        return self.proceed()

    def missed(self):
        self.counted = True
        self.rule.give_back()

    def pause(self, event, seconds=None):
        """Waits for the event; ends early, by Dropped, when the connection is ended meanwhile."""
        if self.connection.wait(event, seconds):
            raise Dropped


def change(reply, request, fields):
    """The reply with these fields in its document."""
    return reply and request.reply(plus(reply_body(reply), fields))


def error_document(code, name, message, labels=()):
    document = {'ok': 0.0, 'errmsg': message, 'code': code, 'codeName': name}
    if labels:
        document['errorLabels'] = list(labels)
    return document


def error(code, name, message='by a rule of the test', labels=()):
    """The command fails as a whole, and the target never sees it."""
    def act(exchange):
        return exchange.request.reply(error_document(code, name, message, labels))
    return act


def write_concern_error(code=64, name='WriteConcernFailed', message='waiting for replication timed '
                        'out', labels=()):
    """The write is applied; the reply says ok and that its write concern was not reached."""
    def act(exchange):
        fields = {'writeConcernError': {'code': code, 'codeName': name, 'errmsg': message,
                                        'errInfo': {'wtimeout': True} if code == 64 else {}}}
        if labels:
            fields['errorLabels'] = list(labels)
        return change(exchange.proceed(), exchange.request, fields)
    return act


def reply(answer):
    """This document, or what a function of the request makes; the target never sees the command."""
    def act(exchange):
        return exchange.request.reply(answer(exchange.request) if callable(answer) else answer)
    return act


def applied():
    """What a server says that wrote every document, for a wire without a target."""
    def answer(request):
        more = {'nModified': request.documents} if request.name == 'update' else {}
        return {'n': request.documents, **more, 'ok': 1.0}
    return reply(answer)


def refusals(errors, items):
    """{index: fields of its error} from a list of them, or from a function of each document."""
    if not callable(errors):
        return {fields['index']: fields for fields in errors if fields['index'] < len(items)}
    picked = {index: errors(decode(item)) for index, item in enumerate(items)}
    return {index: {**fields, 'index': index} for index, fields in picked.items() if fields}


def write_errors(errors):
    """Some documents of a write fail, the others go to the target.

    `errors` is a list like [{'index': 3, 'code': 121, 'errmsg': '...'}], or a function that gets
    each document (update, delete) and returns None or {'code': ..., 'errmsg': ...}. An ordered
    write stops at its first error, as a server does."""
    def act(exchange):
        request = exchange.request
        items = request.items()
        refused = refusals(errors, items)
        if not refused:
            return exchange.pass_on()
        kept = [index for index in range(len(items)) if index not in refused]
        if request.value('ordered', True):
            first = min(refused)
            kept, refused = list(range(first)), {first: refused[first]}
        answer = {'n': 0, 'ok': 1.0} | ({'nModified': 0} if request.name == 'update' else {})
        if kept:
            got = exchange.proceed(request.with_items([items[index] for index in kept]))
            if got is None:
                return None
            answer = decode(reply_body(got))
            if answer.get('ok') != 1:
                return got
            for found in answer.get('writeErrors', []) + answer.get('upserted', []):
                found['index'] = kept[found['index']]
        theirs = answer.get('writeErrors', [])
        if theirs and request.value('ordered', True):
            refused = {}                       # the target stopped before it came to ours
            exchange.missed()
        answer['writeErrors'] = sorted([*theirs, *refused.values()], key=lambda e: e['index'])
        return request.reply(answer)
    return act


def apply_then_drop():
    """The target does it and answers; the client only sees its connection end."""
    def act(exchange):
        exchange.proceed()
        raise Dropped
    return act


def half_then_drop(count):
    """The target does the first `count` documents of a longer write; then the connection ends."""
    def act(exchange):
        items = exchange.request.items()
        if len(items) <= count:
            return exchange.pass_on()
        if count:
            exchange.proceed(exchange.request.with_items(items[:count]))
        raise Dropped
    return act


def drop_before():
    """The connection ends, and the target never sees the command."""
    def act(_exchange):
        raise Dropped
    return act


def delay(seconds):
    """The command goes on after this time."""
    def act(exchange):
        exchange.pause(threading.Event(), seconds)
        return exchange.proceed()
    return act


class stall:
    """The target does it; the reply is held until release(). Counted when the holding begins.

    `before` holds the command instead, so that the target has not done it."""

    def __init__(self, before=False):
        self.before, self.released = before, threading.Event()

    def __call__(self, exchange):
        held = None if self.before else exchange.proceed()
        exchange.hit()
        exchange.pause(self.released)
        return exchange.proceed() if self.before else held

    def release(self):
        self.released.set()
