#!/usr/bin/python3
"""The checker finds what it must: each mutant of a clean history is caught by its rule.

Method: a model of the server makes histories from a seed, with crashes, repeats, resumes and gaps;
the clean one must pass, then one thing is broken, in events and history alike where the fault would
show in both, so that only the rule under test can see it.
"""
import random

from checker import (Fail, Gap, Info, Invoke, Ok, Recv, Resume, check, summary)
from harness import Failure, expect, run

ROOMS, CLIENTS, STEPS, SEEDS = ('a', 'b'), ('ann', 'bob', 'cyd'), 240, 40


class Model:
    """A server that is right, and its clients: events, history and members for the checker."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.events, self.time, self.number = [], 0.0, 0
        self.history = {room: [(1, None)] for room in ROOMS}
        self.read = {(client, room): 0 for client in CLIENTS for room in ROOMS}
        self.generation = 0
        self.members = list(self.read)
        self.resume_all()

    def now(self):
        self.time += 0.001
        return self.time

    def resume_all(self):
        self.generation += 1
        for (client, room), seq in self.read.items():
            self.events.append(Resume(client, self.conn(client), room, seq))
        self.deliver(4)

    def conn(self, client):
        return f'{client}/{self.generation}'

    def deliver(self, most):
        """Each follower gets up to `most` of what is due; at times a stretch is a gap."""
        for (client, room), seq in self.read.items():
            due = self.history[room][seq:seq + self.random.randint(0, most)]
            if len(due) > 2 and self.random.random() < 0.1:
                self.events.append(Gap(client, self.conn(client), room, due[0][0], due[1][0]))
                for number, mid in due[:2]:          # the client fetches them by history
                    self.events.append(Recv(client, f'history/{self.number}/{client}/{number}',
                                            room, number, mid, self.now()))
                self.number += 1
                due, self.read[client, room] = due[2:], due[1][0]
            for number, mid in due:
                self.events.append(Recv(client, self.conn(client), room, number, mid, self.now()))
                self.read[client, room] = number

    def append(self, room, mid):
        seq = len(self.history[room]) + 1
        self.history[room].append((seq, mid))
        return seq

    def send(self):
        self.number += 1
        mid, room, client = (f'm{self.number}', self.random.choice(ROOMS),
                             self.random.choice(CLIENTS))
        self.events.append(Invoke(mid, room, client, self.now()))
        chance = self.random.random()
        if chance < 0.05:
            self.events.append(Fail(mid))
        elif chance < 0.12:                          # lost with the connection, then repeated
            seq = self.append(room, mid) if self.random.random() < 0.5 else None
            self.events += [Info(mid), Invoke(mid, room, client, self.now())]
            self.events.append(Ok(mid, seq or self.append(room, mid), self.now()))
        elif chance < 0.16:                          # unknown for ever
            if self.random.random() < 0.5:
                self.append(room, mid)
            self.events.append(Info(mid))
        else:
            self.events.append(Ok(mid, self.append(room, mid), self.now()))

    def run(self):
        for _ in range(STEPS):
            self.send()
            self.deliver(3)
            if self.random.random() < 0.03:
                self.resume_all()
        for _ in range(STEPS):
            self.deliver(5)
        self.deliver_rest()
        return self

    def deliver_rest(self):
        for (client, room), seq in self.read.items():
            for number, mid in self.history[room][seq:]:
                self.events.append(Recv(client, self.conn(client), room, number, mid, self.now()))
                self.read[client, room] = number

    def verdict(self):
        return check(self.events, self.history, self.members, last_fault=0.0)

    # What the mutants below are made of.

    def an_acked(self):
        """A random acked message that stands in the history: (mid, room, seq)."""
        places = {mid: (mid, room, seq) for room in ROOMS for seq, mid in self.history[room]}
        return places[self.random.choice([e.mid for e in self.events if isinstance(e, Ok)])]

    def places(self, fact):
        return [i for i, event in enumerate(self.events) if fact(event)]

    def erase(self, mid):
        """The message is in no history and nobody saw it; later ones close the gap."""
        room, at = next((room, seq) for room in ROOMS for seq, m in self.history[room] if m == mid)
        self.history[room] = [(seq if seq < at else seq - 1, m)
                              for seq, m in self.history[room] if m != mid]
        shift = {m: seq for seq, m in self.history[room] if m is not None}
        kept = []
        for event in self.events:
            if isinstance(event, Recv) and event.room == room:
                if event.seq == at:
                    continue
                event = event._replace(seq=event.seq - (event.seq > at))
            elif isinstance(event, Resume) and event.room == room:
                event = event._replace(after_seq=event.after_seq - (event.after_seq >= at))
            elif isinstance(event, Gap) and event.room == room:
                event = event._replace(from_seq=event.from_seq - (event.from_seq > at),
                                       to_seq=event.to_seq - (event.to_seq >= at))
                if event.from_seq > event.to_seq:
                    continue
            elif isinstance(event, Ok) and event.mid in shift:
                event = event._replace(seq=shift[event.mid])
            kept.append(event)
        self.events = kept

    def swap(self, room, first, second):
        """Two mids change places everywhere: history, acks and what receivers saw."""
        seqs = {mid: seq for seq, mid in self.history[room]}
        other = {first: second, second: first}
        self.history[room] = [(seq, other.get(mid, mid)) for seq, mid in self.history[room]]
        for place, event in enumerate(self.events):
            if isinstance(event, Ok) and event.mid in other:
                self.events[place] = event._replace(seq=seqs[other[event.mid]])
            elif isinstance(event, Recv) and event.mid in other:
                self.events[place] = event._replace(mid=other[event.mid])


def drop_one_from_history(model):
    mid, room, seq = model.an_acked()
    model.history[room].remove((seq, mid))


def drop_unacked_leaving_a_hole(model):
    room = model.random.choice(ROOMS)
    model.history[room].append((len(model.history[room]) + 2, None))


def duplicate_one(model):
    mid, room, _ = model.an_acked()
    model.append(room, mid)


def swap_neighbours_in_history(model):
    _, room, _ = model.an_acked()
    log = model.history[room]
    at = model.random.randrange(1, len(log) - 1)
    log[at], log[at + 1] = (log[at][0], log[at + 1][1]), (log[at + 1][0], log[at][1])


def reuse_a_seq(model):
    mid, room, seq = model.an_acked()
    model.events.append(Invoke('reused', room, 'ann', model.now()))
    model.history[room].insert(seq, (seq, 'reused'))


def ack_then_lose(model):
    model.erase(model.an_acked()[0])


def receive_then_lose(model):
    mid = model.an_acked()[0]
    keep = [e for e in model.events if isinstance(e, Recv) and e.mid == mid][0]
    model.erase(mid)
    model.events = [e for e in model.events if not (isinstance(e, Ok) and e.mid == mid)]
    model.events.append(Info(mid))
    model.events.append(keep._replace(conn='alone', seq=100000))


def invent_a_message(model):
    model.append(model.random.choice(ROOMS), 'phantom')


def store_a_refused_one(model):
    mid = next(e.mid for e in model.events if isinstance(e, Fail))
    model.append('a', mid)


def store_in_another_room(model):
    model.events.append(Invoke('astray', 'a', 'ann', model.now()))
    model.events.append(Info('astray'))
    model.append('b', 'astray')


def ack_another_seq(model):
    place = model.random.choice(model.places(lambda e: isinstance(e, Ok)))
    model.events[place] = model.events[place]._replace(seq=model.events[place].seq + 1)


def push_another_message(model):
    seen = model.places(lambda e: isinstance(e, Recv) and e.mid is not None)
    place = model.random.choice(seen)
    model.events[place] = model.events[place]._replace(mid='m1' if model.events[place].mid != 'm1'
                                                       else 'm2')


def live_recv_places(model):
    """Receptions that are neither first nor last of their connection and room."""
    streams = {}
    for place in model.places(lambda e: isinstance(e, Recv)):
        event = model.events[place]
        streams.setdefault((event.conn, event.room), []).append(place)
    return [p for places in streams.values() for p in places[1:-1]]


def hole_on_a_connection(model):
    del model.events[model.random.choice(live_recv_places(model))]


def hole_after_resume(model):
    used = {(e.conn, e.room) for e in model.events if isinstance(e, Recv)}
    place = model.random.choice(model.places(
        lambda e: isinstance(e, Resume) and e.after_seq > 0 and (e.conn, e.room) in used))
    event = model.events[place]
    model.events[place] = event._replace(after_seq=event.after_seq - 1)


def repeat_after_resume(model):
    place = model.random.choice(live_recv_places(model))
    model.events.insert(place + 1, model.events[place])


def swap_on_a_connection(model):
    place = model.random.choice(live_recv_places(model))
    event = model.events[place]
    after = next(i for i in range(place + 1, len(model.events))
                 if isinstance(model.events[i], Recv) and model.events[i].conn == event.conn
                 and model.events[i].room == event.room)
    model.events[place], model.events[after] = model.events[after], model.events[place]


def acked_pairs(model, alike):
    """Neighbours in a room's log, both acked once and sent one after the other's ack."""
    sent = {e.mid: e for e in model.events if isinstance(e, Invoke)}
    acked = {e.mid for e in model.events if isinstance(e, Ok)}
    return [(room, a, b) for room in ROOMS
            for (_, a), (_, b) in zip(model.history[room], model.history[room][1:])
            if a in acked and b in acked and alike(sent[a].client, sent[b].client)]


def break_sender_order(model):
    model.swap(*model.random.choice(acked_pairs(model, lambda a, b: a == b)))


def break_real_time(model):
    model.swap(*model.random.choice(acked_pairs(model, lambda a, b: a != b)))


def leave_a_send_open(model):
    model.events.append(Invoke('open', 'a', 'ann', model.now()))


def leave_a_member_behind(model):
    client, room = model.random.choice(model.members)
    last = len(model.history[room])
    model.events = [e for e in model.events
                    if not (isinstance(e, Recv)
                            and (e.client, e.room, e.seq) == (client, room, last))]


def finish_too_late(model):
    place = model.places(lambda e: isinstance(e, Recv))[-1]
    model.events[place] = model.events[place]._replace(t=31.0)


# mutant -> the rule that must see it; `alone` means that no other rule may be needed
MUTANTS = {
    drop_one_from_history: 1, ack_then_lose: 1, receive_then_lose: 1, invent_a_message: 2,
    store_a_refused_one: 2, store_in_another_room: 2, duplicate_one: 3, reuse_a_seq: 3,
    swap_neighbours_in_history: 4, ack_another_seq: 4, push_another_message: 4,
    hole_on_a_connection: 5, hole_after_resume: 5, repeat_after_resume: 5, swap_on_a_connection: 5,
    break_sender_order: 6, break_real_time: 7, drop_unacked_leaving_a_hole: 8,
    leave_a_send_open: 9, leave_a_member_behind: 9, finish_too_late: 9,
}
# These change everything alike, so that no other rule sees them.
ALONE = {ack_then_lose: 1, break_real_time: 7}


def clean_histories_pass(context):
    for seed in range(SEEDS if context.quick else 5 * SEEDS):
        found = Model(seed).run().verdict()
        expect(not found, f'seed {seed}: {summary(found)}')


def every_mutant_is_caught_by_its_rule(context):
    for mutant, rule in MUTANTS.items():
        for seed in range(SEEDS // 4 if context.quick else SEEDS):
            model = Model(seed).run()
            mutant(model)
            rules = {violation.rule for violation in model.verdict()}
            if rule not in rules:
                raise Failure(f'{mutant.__name__} with seed {seed} violated {sorted(rules)}, '
                              f'not rule {rule}')
            if mutant in ALONE:
                expect(rules == {rule}, f'{mutant.__name__} with seed {seed}: {sorted(rules)}')
    context.note(f'{len(MUTANTS)} mutants')


def every_rule_has_a_mutant(_context):
    expect(set(MUTANTS.values()) == set(range(1, 10)), f'{set(MUTANTS.values())}')


def one_in_a_hundred_thousand_is_found(_context):
    count = 100000
    history = {'r': [(n, f'm{n}') for n in range(1, count + 1)]}
    events = []
    for n in range(1, count + 1):
        events += [Invoke(f'm{n}', 'r', 'ann', float(n)), Ok(f'm{n}', n, n + 0.5)]
    expect(not check(events, history), 'the whole history passes')
    lost = history['r'].pop(77777)
    found = {violation.rule for violation in check(events, history)}
    expect(found == {1, 8}, f'without {lost}: {found}')


def nothing_at_all_is_clean_but_a_bare_hole_is_not(_context):
    expect(not check([], {}), 'no events, no rooms')
    expect(not check([], {'r': []}), 'an empty room')
    expect([v.rule for v in check([], {'r': [(2, None)]})] == [8], 'starts at 2')


def a_refused_repeat_of_an_unknown_send_proves_nothing(_context):
    events = [Invoke('m', 'r', 'ann', 1.0), Info('m'), Invoke('m', 'r', 'ann', 2.0), Fail('m')]
    expect(not check(events, {'r': [(1, 'm')]}), 'the first try may have been stored')
    refused = [Invoke('m', 'r', 'ann', 1.0), Fail('m'), Invoke('n', 'r', 'ann', 2.0),
               Ok('n', 1, 3.0), Invoke('m', 'r', 'ann', 4.0), Ok('m', 2, 5.0)]
    expect(not check(refused, {'r': [(1, 'n'), (2, 'm')]}), 'a refused one takes its place anew')


if __name__ == '__main__':
    run([clean_histories_pass, every_mutant_is_caught_by_its_rule, every_rule_has_a_mutant,
         one_in_a_hundred_thousand_is_found, nothing_at_all_is_clean_but_a_bare_hole_is_not,
         a_refused_repeat_of_an_unknown_send_proves_nothing], seconds=120, needs_server=False)
