#!/usr/bin/python3
"""Guarantee 7: a write or sync error, at the n-th call for every n: no ack after it, no retry on
that file, sends are refused, the process says so, reads go on; what was acked before is there
after a restart.

Method: a build with the test seams (DAMSOD_SEAMS, default build-asan/damsod) is told by DAMSO_FAULT
which call fails. Small segments, so that the calls of the journal and of what prepares its files
come in turn: which of the two was hit, the log says. The failed write never reaches the disk, so
that after the restart the checker also finds whatever was stored though it was refused.
"""
import asyncio
import os
import time

import server as server_module
from checker import check, summary
from client import Rest, off_loop, user
from harness import expect, run, same
from load import read_histories
from test_disk import ROOMS, Talk, reads_go_on, refused_at_once

server_module.DAMSOD = os.environ.get('DAMSOD_SEAMS',
                                      str(server_module.REPOSITORY / 'build-asan' / 'damsod'))
ERRNO_EIO, ERRNO_ENOSPC = 5, 28
FAILED, NOT_PREPARED = 'journal failed', 'journal segment not'
WRITES, WRITES_QUICK = range(1, 41), (1, 3, 8, 15, 30)
SYNCS, SYNCS_QUICK = range(1, 7), (2, 5)
FAULT_SECONDS, QUIET_SECONDS = 30, 0.4
CONFIG = {'journal': {'segment_bytes': '1m', 'buffer_bytes': '256k', 'bytes_max': '16m'}}


def said(server, text):
    return text in server.said(1 << 20)


def readyz(server):
    rest = Rest(server)
    answer = rest.get('/readyz')
    rest.close()
    return answer.status


def metric(server, name):
    rest = Rest(server)
    text = rest.get('/metrics').body.decode()
    rest.close()
    values = [line.split()[1] for line in text.splitlines() if line.startswith(f'{name} ')]
    expect(len(values) == 1, f'{name} stands {len(values)} times in /metrics')
    return float(values[0])


def make_mixed_rooms(server):
    """One room is acked when written: its groups are what the journal syncs apart from writing."""
    rest = user(server, 'receiver0')
    rest.make_room(ROOMS[0], durability='journal')
    rest.make_room(ROOMS[1])
    rest.close()
    for name in ('receiver1', 'sender0', 'sender1', 'sender2'):
        rest = user(server, name)
        for room in ROOMS:
            same(rest.post(f'/v1/rooms/{room}/join').status, 200, f'{name} joins')
        rest.close()


async def is_refused_for_good(talk):
    """The journal has failed: everything that issue 4 asks for, while the process runs on."""
    server = talk.server
    refused = talk.count('refused')
    await talk.until(lambda: talk.count('refused') > refused, FAULT_SECONDS, 'refusals')
    acked = talk.count('acked')
    await asyncio.sleep(QUIET_SECONDS)
    same(talk.count('acked') - acked, 0, 'acks after the failure')
    same(await off_loop(readyz, server), 503, 'GET /readyz')
    same(await off_loop(metric, server, 'damso_journal_failed'), 1, 'damso_journal_failed')
    commits = await off_loop(metric, server, 'damso_journal_commits_total')
    await refused_at_once(server)
    await reads_go_on(server)
    same(await off_loop(metric, server, 'damso_journal_commits_total') - commits, 0,
         'commits after the failure')
    same(server.said(1 << 20).count(FAILED), 1, 'lines that say so')


async def goes_on(talk):
    """A file could not be prepared: another one is tried, and what is acked is still good."""
    acked = talk.count('acked')
    await talk.until(lambda: talk.count('acked') > acked + 20, FAULT_SECONDS, 'acks')
    same(await off_loop(readyz, talk.server), 200, 'GET /readyz')


async def all_is_there(talk):
    """kill -9, a start without the fault: the checker decides."""
    server = talk.server
    for sender in talk.senders:
        sender.only_repeat = True
    await asyncio.wait_for(asyncio.gather(*talk.tasks[len(talk.receivers):]), 60)
    server.kill()
    end = time.monotonic()
    await asyncio.gather(*talk.tasks)
    server.env = {}
    await server.spawn().ready_soon()
    histories = await off_loop(read_histories, server, 'receiver0', ROOMS)
    for receiver in talk.receivers:
        receiver.joined = set()              # of the run before
    talk.tasks = [asyncio.create_task(receiver.session(server)) for receiver in talk.receivers]
    await talk.until(lambda: all(receiver.joined == set(ROOMS) for receiver in talk.receivers),
                     FAULT_SECONDS, 'receivers that are back')
    for receiver in talk.receivers:
        for room in ROOMS:
            await receiver.complete(room, len(histories[room]))
    members = [(receiver.name, room) for receiver in talk.receivers for room in ROOMS]
    found = check(talk.record.events, histories, members, end)
    expect(not found, summary(found))
    same(await off_loop(readyz, server), 200, 'GET /readyz after the restart')
    server.kill()
    await asyncio.gather(*talk.tasks)


async def one_fault(context, kind, nth, error):
    """True if it hit the journal itself, False if only a file that was being prepared."""
    server = context.start(config=CONFIG)
    make_mixed_rooms(server)
    same(server.stop(), 0, 'a clean stop')
    server.env = {'DAMSO_FAULT': f'{kind}:{nth}:{error}'}
    await server.spawn().ready_soon()
    talk = Talk(server)
    talk.start()
    await talk.until(lambda: said(server, FAILED) or said(server, NOT_PREPARED), FAULT_SECONDS,
                     f'{kind} {nth}')
    failed = said(server, FAILED)
    if failed:
        await is_refused_for_good(talk)
    else:
        await goes_on(talk)
    await all_is_there(talk)
    return failed


async def every(context, kind, numbers, error):
    failed = 0
    for nth in numbers:
        try:
            failed += await one_fault(context, kind, nth, error)
        except Exception:
            context.note(f'at {kind} {nth}')
            raise
        context.servers.pop().kill()
    return failed


async def after_any_failed_write_nothing_is_acked(context):
    numbers = WRITES_QUICK if context.quick else WRITES
    failed = await every(context, 'write', numbers, ERRNO_EIO)
    context.note(f'{failed} of {len(numbers)} hit the journal, the others a file being prepared')
    expect(0 < failed < len(numbers), 'only one kind of call was hit: choose other numbers')


async def a_write_that_finds_no_space_is_no_different(context):
    expect(await every(context, 'write', (8,), ERRNO_ENOSPC) == 1, 'the journal was not hit')


async def a_failed_sync_is_as_final(context):
    numbers = SYNCS_QUICK if context.quick else SYNCS
    failed = await every(context, 'sync', numbers, ERRNO_EIO)
    context.note(f'{failed} of {len(numbers)} hit the journal')
    expect(failed > 0, 'no sync of the journal was hit: choose other numbers')


if __name__ == '__main__':
    run([after_any_failed_write_nothing_is_acked, a_write_that_finds_no_space_is_no_different,
         a_failed_sync_is_as_final], seconds=600, seconds_quick=120)
