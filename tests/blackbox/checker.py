"""Decides from what clients saw, and one final read, whether the log kept its promises.

Pure: events and histories in, violations out. `mid` is a message's own id, chosen by the sender
and carried in the text; None stands for events that are not messages (a member joined).

Rules 1 durable      every acked mid is once in the final history; every received one too
      2 no phantom   the history holds only what was invoked and not definitely refused
      3 unique       no mid twice, no (room, seq) twice
      4 agreed       ack seq = history seq = seq seen by every receiver, kind of event too
      5 connection   seq rises by exactly 1 from where a connection resumed, announced gaps aside
      6 sender       a client's messages in a room stand in the order in which it sent them
      7 real time    acked before another was sent: smaller seq
      8 dense        the final history of a room is 1..n without a hole
      9 live         every send has an outcome, every member has everything, both in time

A mid that is sent again under the same idempotency key is one message: its invocation is the first
one since a definite refusal, its ack the first one. Senders repeat what is open, in its order,
before they send anything new to that room; rule 6 relies on it.
"""
from typing import NamedTuple, Optional


class Invoke(NamedTuple):
    """A send left the client. `t` is seconds on one clock for all clients."""
    mid: str
    room: str
    client: str
    t: float


class Ok(NamedTuple):
    """The ack came."""
    mid: str
    seq: int
    t: float


class Fail(NamedTuple):
    """A typed error came: it must not be in the log."""
    mid: str


class Info(NamedTuple):
    """Timed out or disconnected: it may be in the log or not."""
    mid: str


class Recv(NamedTuple):
    """A receiver saw an event; `conn` is unique over the run."""
    client: str
    conn: str
    room: str
    seq: int
    mid: Optional[str]
    t: float


class Resume(NamedTuple):
    """The connection follows the room from after_seq + 1 on."""
    client: str
    conn: str
    room: str
    after_seq: int


class Gap(NamedTuple):
    """The server announced that from_seq..to_seq will not come on this connection."""
    client: str
    conn: str
    room: str
    from_seq: int
    to_seq: int


class Violation(NamedTuple):
    rule: int
    text: str


class Run:
    """The events, indexed once for all rules."""

    def __init__(self, events, history):
        self.history = history                       # room -> [(seq, mid)] as read
        self.invokes, self.order = {}, {}            # mid -> Invoke, mid -> place in the stream
        self.acks, self.fails, self.infos = {}, set(), set()
        self.recvs, self.streams = [], {}            # streams: (conn, room) -> its events
        for place, event in enumerate(events):
            self.take(place, event)
        self.places = {}                             # mid -> [(room, seq)] in the final history
        for room, entries in history.items():
            for seq, mid in entries:
                if mid is not None:
                    self.places.setdefault(mid, []).append((room, seq))

    def take(self, place, event):
        if isinstance(event, Invoke):
            if event.mid not in self.invokes or event.mid in self.fails:
                self.invokes[event.mid], self.order[event.mid] = event, place
                self.fails.discard(event.mid)
        elif isinstance(event, Ok):
            self.acks.setdefault(event.mid, []).append(event)
        elif isinstance(event, Fail):
            # After an unknown outcome a refusal of the repeat says nothing about the first try.
            if event.mid not in self.infos and event.mid not in self.acks:
                self.fails.add(event.mid)
        elif isinstance(event, Info):
            self.infos.add(event.mid)
        else:
            if isinstance(event, Recv):
                self.recvs.append(event)
            self.streams.setdefault((event.conn, event.room), []).append(event)


def durable(run):
    received = {event.mid for event in run.recvs if event.mid is not None}
    for seen, mids in (('acked', run.acks), ('received', received)):
        for mid in mids:
            found = len(run.places.get(mid, ()))
            if found != 1:
                yield f'{mid} was {seen} and is {found} times in the history'


def no_phantom(run):
    for mid, places in run.places.items():
        if mid not in run.invokes:
            yield f'{mid} at {places} was never sent'
        elif mid in run.fails:
            yield f'{mid} at {places} was refused'
        elif any(room != run.invokes[mid].room for room, _ in places):
            yield f'{mid} at {places} was sent to {run.invokes[mid].room}'


def unique(run):
    for mid, places in run.places.items():
        if len(places) > 1:
            yield f'{mid} stands at {places}'
    for room, entries in run.history.items():
        seen = {}
        for seq, mid in entries:
            if seq in seen:
                yield f'{room} has seq {seq} twice: {seen[seq]} and {mid}'
            seen[seq] = mid


def agreed(run):
    for mid, acks in run.acks.items():
        seqs = {ack.seq for ack in acks}
        seqs.update(seq for _, seq in run.places.get(mid, ()))
        if len(seqs) > 1:
            yield f'{mid} has several seqs: acks {[a.seq for a in acks]}, {run.places.get(mid)}'
    logs = {room: dict(entries) for room, entries in run.history.items()}
    for event in run.recvs:
        log = logs.get(event.room, {})
        if event.seq in log and log[event.seq] != event.mid:
            yield (f'{event.room} {event.seq} is {log[event.seq]} in the history, '
                   f'{event.client} saw {event.mid}')


def connection(run):
    for (conn, room), events in run.streams.items():
        expected = None
        for event in events:
            if isinstance(event, Resume):
                expected = event.after_seq + 1
                continue
            first = event.from_seq if isinstance(event, Gap) else event.seq
            last = event.to_seq if isinstance(event, Gap) else event.seq
            if expected is not None and first != expected:
                yield f'{event.client} on {conn} in {room}: seq {first} after {expected - 1}'
            expected = last + 1


def sender(run):
    last = {}                                        # (client, room) -> (seq, mid) stored so far
    for mid in sorted(run.order, key=run.order.get):
        if mid not in run.places:
            continue
        room, seq = run.places[mid][0]
        key = (run.invokes[mid].client, room)
        if key in last and seq < last[key][0]:
            yield f'{key[0]} sent {last[key][1]} before {mid}, {room} has {last[key][0]} > {seq}'
        last[key] = max(last.get(key, (0, '')), (seq, mid))


def real_time(run):
    for room, entries in run.history.items():
        earliest, by = float('inf'), None            # ack time among the entries behind this one
        for seq, mid in reversed(entries):
            if mid is None or mid not in run.invokes:
                continue
            if run.invokes[mid].t > earliest:
                yield f'{room}: {by} was acked before {mid} was sent, yet stands behind it at {seq}'
            acked = min((ack.t for ack in run.acks.get(mid, ())), default=float('inf'))
            if acked < earliest:
                earliest, by = acked, mid


def dense(run):
    for room, entries in run.history.items():
        for wanted, (seq, _) in enumerate(entries, 1):
            if seq != wanted:
                yield f'{room} has seq {seq} where {wanted} belongs'
                break


def live(run, members, last_fault, settle):
    for mid in run.invokes:
        if not (mid in run.acks or mid in run.fails or mid in run.infos):
            yield f'{mid} was sent and never resolved'
    seen, latest = {}, {}
    for event in run.recvs:
        seen.setdefault((event.client, event.room), set()).add(event.seq)
        latest[event.client] = max(latest.get(event.client, 0.0), event.t)
    for client, room in members:
        entries = run.history.get(room, [])
        got = seen.get((client, room), set())
        missing = [seq for seq, _ in entries if seq not in got and seq >= min(got, default=0)]
        if missing:
            yield f'{client} never got {len(missing)} events of {room}, first {missing[0]}'
        if last_fault is not None and latest.get(client, 0.0) > last_fault + settle:
            yield f'{client} was complete {latest[client] - last_fault:.1f} s after the last fault'


RULES = {1: durable, 2: no_phantom, 3: unique, 4: agreed, 5: connection, 6: sender, 7: real_time,
         8: dense}


def check(events, history, members=(), last_fault=None, settle=30.0):
    """All violations of all rules. `members` are (client, room) pairs that must be complete."""
    run = Run(events, history)
    found = [Violation(number, text) for number, rule in RULES.items() for text in rule(run)]
    return found + [Violation(9, text) for text in live(run, members, last_fault, settle)]


def summary(violations, most=8):
    """A few lines for a failed test."""
    lines = [f'rule {v.rule}: {v.text}' for v in violations[:most]]
    return f'{len(violations)} violations\n    ' + '\n    '.join(lines)
