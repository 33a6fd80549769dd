#!/usr/bin/python3
"""Guarantee 1: what was acked survives kill -9, once, in order, with the seq of the ack.

Method: senders and receivers in several rooms; the server is killed at random moments, often again
during its recovery, and comes back with another number of shards on the same data. A cycle counts
only if it acked something and sends were in flight at the kill. At the end everything is repeated
until it is answered, read back over REST, and given to the checker, twice more after restarts.
"""
import asyncio
import random
import time

from checker import check, summary
from client import new_id, user
from harness import expect, run
from load import Receiver, Record, Sender, read_histories

SHARDS, ROOMS, SENDERS, RECEIVERS = (1, 2, 4), 4, 4, 3
LOAD_SECONDS_MAX = 0.30         # a kill comes at a random moment within this
AGAIN_CHANCE = 0.15             # of a second kill while the server recovers
READY_SECONDS = 10


class Storm:
    """One server, its users, and what happened."""

    def __init__(self, context, seed):
        self.random = random.Random(seed)
        self.server = context.server(shards=self.random.choice(SHARDS))
        self.rooms = [new_id('room') for _ in range(ROOMS)]
        self.record = Record()
        self.senders = [Sender(self.record, f'sender{n}', self.rooms, keyed=n / (SENDERS - 1),
                               rng=self.random) for n in range(SENDERS)]
        self.receivers = [Receiver(self.record, f'receiver{n}', self.rooms)
                          for n in range(RECEIVERS)]
        self.counted, self.killed_again, self.last_kill = 0, 0, 0.0
        self.shards_seen, self.ready_slowest = {}, 0.0

    async def restart(self):
        """Starts the server with another number of shards than last time."""
        self.server.shards = self.random.choice([s for s in SHARDS if s != self.server.shards])
        if self.server.starts and self.random.random() < AGAIN_CHANCE:
            self.server.spawn()
            await asyncio.sleep(self.random.uniform(0.0, 0.03))
            self.server.kill()
            self.killed_again += 1
        begin = time.monotonic()
        await self.server.spawn().ready_soon(READY_SECONDS)
        self.ready_slowest = max(self.ready_slowest, time.monotonic() - begin)

    def sessions(self):
        return [asyncio.create_task(client.session(self.server))
                for client in self.senders + self.receivers]

    async def load_is_on(self, tasks, acked_before, seconds=15):
        """Waits for all clients and the first acks of this cycle; one that fails ends the wait."""
        deadline = time.monotonic() + seconds
        while (self.acked() == acked_before or not all(s.connected for s in self.senders)
               or not all(r.joined for r in self.receivers)):
            for task in tasks:
                if task.done():
                    task.result()
            expect(time.monotonic() < deadline, f'no ack within {seconds} s of the start')
            await asyncio.sleep(0.002)

    def acked(self):
        return sum(sender.acked for sender in self.senders)

    async def cycle(self):
        """Load, then kill -9 at a random moment; counts if sends were in flight."""
        await self.restart()
        acked_before = self.acked()
        tasks = self.sessions()
        await self.load_is_on(tasks, acked_before)
        await asyncio.sleep(self.random.uniform(0.0, LOAD_SECONDS_MAX))
        in_flight = sum(len(sender.open) for sender in self.senders)
        self.server.kill()
        self.last_kill = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)
        if in_flight > 0:
            self.counted += 1
            shards = self.server.shards
            self.shards_seen[shards] = self.shards_seen.get(shards, 0) + 1

    async def settle(self):
        """Repeats what is open, lets every receiver catch up, reads all back: the histories."""
        await self.restart()
        for sender in self.senders:
            sender.only_repeat = True
            await sender.session(self.server)
            expect(not sender.pending, f'{sender.name} still has {len(sender.pending)} open')
        histories = await asyncio.to_thread(read_histories, self.server, 'receiver0', self.rooms)
        tasks = [asyncio.create_task(r.session(self.server)) for r in self.receivers]
        for receiver in self.receivers:
            for room in self.rooms:
                await receiver.complete(room, len(histories[room]))
        return histories, tasks

    def verdict(self, histories):
        members = [(r.name, room) for r in self.receivers for room in self.rooms]
        found = check(self.record.events, histories, members, self.last_kill)
        expect(not found, summary(found))


async def acked_messages_survive_every_kill(context):
    wanted = context.args.cycles or (6 if context.quick else 100)
    storm = Storm(context, context.args.seed)
    context.note(f'seed {context.args.seed}')
    storm.server.start()
    maker = user(storm.server, 'receiver0')
    for room in storm.rooms:
        maker.make_room(room)
    maker.close()
    storm.server.kill()
    for _ in range(wanted + wanted // 3 + 3):
        if storm.counted == wanted:
            break
        await storm.cycle()
    expect(storm.counted == wanted, f'only {storm.counted} of {wanted} kills hit sends in flight')
    histories, tasks = await storm.settle()
    storm.verdict(histories)
    storm.server.kill()
    await asyncio.gather(*tasks)
    await storm.restart()
    again = await asyncio.to_thread(read_histories, storm.server, 'receiver0', storm.rooms)
    expect(again == histories, 'another kill -9 without load changed the history')
    expect(storm.server.stop() == 0, 'SIGTERM ended with an error')
    await storm.restart()
    again = await asyncio.to_thread(read_histories, storm.server, 'receiver0', storm.rooms)
    expect(again == histories, 'a clean stop changed the history')
    repeats = sum(sender.repeats for sender in storm.senders)
    duplicates = sum(sender.duplicates for sender in storm.senders)
    expect(context.quick or duplicates > 0, 'no repeat ever met its first try: nothing was proved')
    context.note(f'{wanted} kills under load, by shards {dict(sorted(storm.shards_seen.items()))}, '
                 f'{storm.killed_again} during recovery, {storm.acked()} acked, '
                 f'{repeats} repeated of which {duplicates} were there already, '
                 f'{sum(r.received for r in storm.receivers)} received, '
                 f'{sum(len(h) for h in histories.values())} stored, '
                 f'slowest start {storm.ready_slowest:.2f} s')


if __name__ == '__main__':
    run([acked_messages_survive_every_kill], seconds=600, seconds_quick=90, arguments={
        '--cycles': {'type': int, 'default': 0, 'help': 'kills under load (100, quick: 6)'},
        '--seed': {'type': int, 'default': random.SystemRandom().randrange(1 << 31),
                   'help': 'repeats the schedule of an earlier run'}})
