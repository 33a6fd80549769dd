#!/usr/bin/python3
"""scripts/servers starts what it says, stops exactly that, and leaves nothing behind.

Method: the script is run as a user runs it; its servers are asked through Debian's clients; and
whoever could take care of them is killed: the caller, the supervisor, the servers. Everything is
in directories of the test's own, so that other servers of this machine are neither seen nor hit.
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pymongo
import redis

import stores as stores_module
from harness import Failure, Skip, expect, run, same
from stores import SCRIPT, Stores, gone, servers, with_database

NOBODY = 65534
LINES = ('[persist]', 'mode = redis+mongodb', 'redis_url = redis://127.0.0.1:',
         'mongodb_uri = mongodb://127.0.0.1:')
HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from stores import Stores
stores = Stores().start()
if sys.argv[2] == 'stalled':
    stores.stall_postgres()
    stores.stall_redis()
print(stores.data(), flush=True)
sys.stdin.read()
"""


def pair(context, **options):
    """Stores that end with the test."""
    stores = Stores(**options)
    context.cleanup(stores.stop)
    return stores.start()


def refused(words, *texts, code=1, **options):
    got, out, err = servers(*words, check=False, **options)
    shown = f'{words}: exit {got}, stderr {err.strip()!r}'
    same(got, code, shown)
    same(out, '', f'{shown}, stdout')
    for text in texts:
        expect(text in err, f'{shown}: no {text!r} in it')
    expect('Traceback' not in err, shown)
    expect(err.startswith('scripts/servers: '), shown)


def pids_of(status):
    return [status['pid']] + [p for s in status['servers'].values() for p in s['pids']]


def has_nothing_left(data, pids, temporary=True):
    expect(gone(pids), f'processes that outlived it: {pids}')
    if temporary:
        deadline = time.monotonic() + 10
        while os.path.exists(data) and time.monotonic() < deadline:
            servers('status', '--data', data, check=False)  # clears up for a dead supervisor
        expect(not os.path.exists(data), f'{data} is still there')
    expect(data not in pathlib.Path('/proc/self/mountinfo').read_text(), 'a mount is left')


def start_prints_the_configuration_and_nothing_else(context):
    data = context.directory() / 'servers'
    context.cleanup(lambda: servers('stop', '--data', data, check=False))
    began = time.monotonic()
    _, out, err = servers('start', '--data', data, '--temporary', seconds=900)
    context.note(f'{time.monotonic() - began:.2f} s')
    lines = out.splitlines()
    same(len(lines), len(LINES), f'lines in {out!r}')
    for line, wanted in zip(lines, LINES):
        expect(line.startswith(wanted), f'{line!r} instead of {wanted!r}')
    expect(str(data) in err, f'stderr does not name the directory: {err!r}')
    same(redis.Redis.from_url(lines[2].split()[-1]).ping(), True, 'PING')
    database = pymongo.MongoClient(lines[3].split()[-1]).get_default_database()
    same(database.name, 'damso', 'the database of the URI')
    database.things.insert_one({'_id': 1, 'text': 'kept'})
    same(database.things.find_one(), {'_id': 1, 'text': 'kept'}, 'read back')
    code, out, _ = servers('status', '--data', data)
    same((code, out.count('running on 127.0.0.1:')), (0, 2), f'status: {out}')
    _, out, _ = servers('status', '--json', '--data', data)
    pids = pids_of(json.loads(out))
    servers('stop', '--data', data)
    has_nothing_left(str(data), pids)
    refused(['status', '--data', data], 'no servers of', code=3)


def redis_is_as_production_wants_it(context):
    for keep, appendonly in ((False, 'no'), (True, 'yes')):
        client = pair(context, keep=keep).redis()
        for key, value in (('maxmemory-policy', 'noeviction'), ('save', ''),
                           ('appendonly', appendonly), ('appendfsync', 'everysec'),
                           ('bind', '127.0.0.1'), ('protected-mode', 'yes')):
            same(client.config_get(key)[key], value, f'{key} with keep={keep}')


def the_servers_are_on_loopback_and_postgresql_on_no_port(context):
    stores = pair(context)
    status = stores.status()
    ports = {s['port'] for s in status['servers'].values() if 'port' in s}
    inodes = set()
    for pid in pids_of(status)[1:]:
        for fd in pathlib.Path(f'/proc/{pid}/fd').iterdir():
            target = os.readlink(fd) if os.path.lexists(fd) else ''
            if target.startswith('socket:['):
                inodes.add(target[8:-1])
    listening = []
    for table in ('tcp', 'tcp6'):
        for line in pathlib.Path(f'/proc/net/{table}').read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == '0A' and fields[9] in inodes:
                listening.append(fields[1])
    same(sorted(listening), sorted(f'0100007F:{port:04X}' for port in ports), 'listening sockets')
    low, high = map(int, pathlib.Path('/proc/sys/net/ipv4/ip_local_port_range').read_text().split())
    expect(not any(low <= port <= high for port in ports),
           f'{ports}: outgoing connections use {low}-{high} and could take such a port')


def two_pairs_run_side_by_side_and_stop_ends_only_its_own(context):
    one, two = pair(context), pair(context)
    for stores, text in ((one, b'one'), (two, b'two')):
        stores.redis().set('whose', text)
        stores.mongo().client.damso.whose.insert_one({'_id': text.decode()})
    pids_one, pids_two = pids_of(one.status()), pids_of(two.status())
    same(set(pids_one) & set(pids_two), set(), 'processes of both')
    data_one = one.data()
    one.stop()
    has_nothing_left(data_one, pids_one)
    expect(not gone(pids_two, 0.2), 'the other pair went too')
    same(two.redis().get('whose'), b'two', 'Redis of the other')
    same([d['_id'] for d in two.mongo().client.damso.whose.find()], ['two'], 'its MongoDB')
    same(two.status()['pid'], pids_two[0], 'its supervisor')


def hold(context, how):
    """A program that has started a pair and waits: (process, directory, pids)."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, pathlib.Path(__file__).parent, how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    context.cleanup(process.kill)
    data = process.stdout.readline().strip()
    expect(data, 'the program that holds the servers did not start them')
    _, out, _ = servers('status', '--json', '--data', data, check=False)
    return process, data, pids_of(json.loads(out))


def kill_9_of_the_caller_ends_its_servers(context):
    for how in ('running', 'stalled'):
        process, data, pids = hold(context, how)
        expect(len(pids) > 10, f'{how}: only {pids} were running')
        process.kill()
        process.wait()
        began = time.monotonic()
        has_nothing_left(data, pids)
        context.note(f'{how}: {time.monotonic() - began:.2f} s')


def kill_9_of_the_supervisor_ends_its_servers(context):
    stores = pair(context)
    stores.stall_postgres()
    pids = pids_of(stores.status())
    stores_module.send([pids[0]], signal.SIGKILL)
    has_nothing_left(stores.data(), pids)
    stores.start()
    same(stores.redis().ping(), True, 'a new pair in the same directory')


def data_survive_kill_9_of_each_server_in_a_named_directory(context):
    stores = pair(context, keep=True)
    things, client = stores.mongo().things, stores.redis()
    ports = {n: s.get('port') for n, s in stores.status()['servers'].items()}
    number = 0
    for name in ('postgres', 'redis', 'mongodb'):
        for _ in range(500):
            number += 1
            client.rpush('numbers', number)
            things.insert_one({'_id': number})
        stores.kill(name)
        same(servers('status', '--data', stores.data(), check=False)[0], 1, f'status, no {name}')
        same(stores.status()['servers'][name]['pids'], [], f'{name} after kill -9')
        began = time.monotonic()
        stores.revive(name)
        context.note(f'{name} answers after {time.monotonic() - began:.2f} s')
        stores.forget_clients()
        things, client = stores.mongo().things, stores.redis()
        same(things.count_documents({}), number, f'documents after kill -9 of {name}')
        same(client.llen('numbers'), number, f'entries after kill -9 of {name}')
    same({n: s.get('port') for n, s in stores.status()['servers'].items()}, ports, 'the ports')


def data_survive_stop_and_start_in_a_named_directory(context):
    stores = pair(context, keep=True)
    stores.redis().set('key', 'kept')
    stores.mongo().things.insert_one({'_id': 'kept'})
    stores.stop(remove=False)
    stores.start()
    same(stores.redis().get('key'), b'kept', 'in Redis')
    same(stores.mongo().things.find_one(), {'_id': 'kept'}, 'in MongoDB')


def redis_comes_back_empty_on_request(context):
    stores = pair(context, keep=True)
    client = stores.redis()
    client.set('key', 'value')
    before = client.info()['run_id']
    stores.kill_redis()
    stores.start_redis(empty=True)
    same(client.dbsize(), 0, 'keys after an empty start')
    expect(client.info()['run_id'] != before, 'the same run_id after a restart')


def a_stalled_server_is_silent_and_then_goes_on(context):
    stores = pair(context)
    client = redis.Redis.from_url(stores.redis_url, socket_timeout=0.3)
    client.set('key', 'value')
    stores.stall_redis()
    try:
        client.get('key')
        raise Failure('a stalled Redis answered')
    except redis.exceptions.TimeoutError:
        stores.proceed('redis')
    same(client.get('key'), b'value', 'afterwards')
    stores.mongo().things.insert_one({'_id': 1})
    began = time.monotonic()
    stores.stall_postgres(2)
    same(stores.mongo().things.count_documents({}), 1, 'behind a stalled PostgreSQL')
    took = time.monotonic() - began
    expect(2 <= took < 8, f'a count took {took:.2f} s around a stall of 2 s')


def processor_time_is_counted_for_each(context):
    stores = pair(context)
    before = {which: stores.cpu_seconds(which) for which in ('redis', 'postgres', 'gateway')}
    things = stores.mongo().things
    for start in range(0, 20000, 1000):
        things.insert_many([{'_id': start + n, 'text': 'x' * 100} for n in range(1000)])
        pipe = stores.redis().pipeline(transaction=False)
        for n in range(2000):
            pipe.rpush('list', 'x' * 100)
        pipe.execute()
    for which, seconds in before.items():
        spent = stores.cpu_seconds(which) - seconds
        expect(0 < spent < 60, f'{which}: {spent} s of CPU')
        context.note(f'{which} {spent:.2f} s')


def name_spaces_are_apart_and_drop_leaves_nothing(context):
    stores = pair(context)
    first = stores.fresh_namespace()
    stores.redis().set(f'{stores.prefix}key', 1)
    stores.mongo().things.insert_one({'_id': 1})
    lines = stores.config_lines(flush_messages=1)
    for text in (first[0], f'/{first[1]}', 'flush_messages = 1'):
        expect(text in lines, f'no {text!r} in {lines!r}')
    second = stores.fresh_namespace()
    expect(first[0] != second[0] and first[1] != second[1], f'{first} and {second}')
    same(stores.mongo().things.count_documents({}), 0, 'documents in a fresh name space')
    stores.redis().set(f'{stores.prefix}key', 2)
    stores.drop_namespace(*first)
    same(stores.redis().keys(), [f'{second[0]}key'.encode()], 'keys left')
    expect(first[1] not in stores.mongo().client.list_database_names(), 'the database is left')


def servers_of_the_user_are_used_and_left_clean(context):
    own = pair(context)
    own.redis().set('damso:theirs', 1)
    own.mongo().client.damso.theirs.insert_one({'_id': 1})
    names = ('DAMSO_TEST_REDIS_URL', 'DAMSO_TEST_MONGODB_URI')
    os.environ.update(zip(names, (own.redis_url, own.mongodb_uri)))
    try:
        stores = Stores().start()
        stores.redis().set(f'{stores.prefix}mine', 1)
        stores.mongo().mine.insert_one({'_id': 1})
        expect(stores.prefix != 'damso:' and stores.database != 'damso', 'their name space')
        try:
            stores.kill_redis()
            raise Failure('a server of the user was killed')
        except Skip as skip:
            expect('DAMSO_TEST' in str(skip), str(skip))
        stores.stop()
    finally:
        for name in names:
            del os.environ[name]
    same(own.redis().keys(), [b'damso:theirs'], 'keys in the end')
    same(own.mongo().client.damso.theirs.count_documents({}), 1, 'their documents')
    expect(not [n for n in own.mongo().client.list_database_names() if n.startswith('damso_test')],
           'a database of the tests is left')


def a_database_in_a_uri_is_replaced_and_its_account_is_not(_context):
    for uri, wanted in (
            ('mongodb://h:1', 'mongodb://h:1/t'), ('mongodb://h:1/', 'mongodb://h:1/t'),
            ('mongodb://h:1/x?tls=true', 'mongodb://h:1/t?tls=true'),
            ('mongodb://u:p@h,i/x', 'mongodb://u:p@h,i/t?authSource=x'),
            ('mongodb://u:p@h/?w=1', 'mongodb://u:p@h/t?w=1&authSource=admin'),
            ('mongodb+srv://u:p@h/x?authSource=y', 'mongodb+srv://u:p@h/t?authSource=y')):
        same(with_database(uri, 't'), wanted, uri)


def what_cannot_be_is_refused_in_a_sentence(context):
    directory = context.directory()
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        for flag in ('--redis-port', '--mongodb-port'):
            refused(['start', '--data', directory / 'new', flag, port], str(port), 'taken', flag)
    (directory / 'full').mkdir()
    (directory / 'full' / 'diary').write_text('dear')
    refused(['start', '--data', directory / 'full', '--temporary'], 'not empty', code=2)
    same((directory / 'full' / 'diary').read_text(), 'dear', 'a file of the user')
    refused(['start', '--data', directory / 'full' / 'diary'], 'diary')
    refused(['start', '--data', ''], '--data', code=2)
    refused(['start', '--temporary'], '--data', code=2)
    refused(['start', '--redis-port', '0'], 'no port', code=2)
    refused(['start', '--until', '99999999'], 'no such process', code=2)
    refused(['stop', '--data', directory], 'no servers of', code=3)
    refused(['kill', 'mysql', '--data', directory], 'mysql', code=2)
    refused(['dance'], 'dance', '--help', code=2)


def a_running_pair_is_not_started_twice_and_the_dead_not_killed_twice(context):
    stores = pair(context, keep=True)
    refused(['start', '--data', stores.data()], 'running already', 'stop')
    refused(['revive', 'redis', '--data', stores.data()], 'redis is running', code=2)
    refused(['start', '--data', stores.data(), '--temporary'], 'not empty', code=2)
    stores.kill_postgres()
    refused(['kill', 'postgres', '--data', stores.data()], 'not running')
    refused(['revive', 'postgres', '--empty', '--data', stores.data()], '--empty', code=2)
    stores.start_postgres()
    same(stores.redis().ping(), True, 'after all these refusals')


def without_root_and_sudo_it_says_what_it_needs(context):
    if os.geteuid() != 0:
        raise Skip('only root can become somebody without sudo')
    directory = context.directory()
    directory.chmod(0o755)
    (directory / 'scripts').mkdir()
    script = directory / 'scripts' / 'servers'
    shutil.copy(SCRIPT, script)
    done = subprocess.run(
        ['/usr/bin/setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups',
         '/usr/bin/python3', script, 'start'], cwd='/', env={'PATH': str(directory)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    same((done.returncode, done.stdout), (1, ''), f'stderr {done.stderr!r}')
    for word in ('needs root', 'no sudo', 'DAMSO_TEST_REDIS_URL'):
        expect(word in done.stderr, done.stderr)
    same(len(done.stderr.splitlines()), 1, f'lines of {done.stderr!r}')


def run_refuses_other_stores(_context):
    for value in ('mysql', '', 'redis'):
        done = subprocess.run([SCRIPT.parent / 'run', f'--with={value}'], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                              check=False)
        same((done.returncode, done.stdout), (2, ''), f'--with={value}: {done.stderr!r}')
        expect('redis+mongodb' in done.stderr, done.stderr)


def scratch_tree(directory):
    """A tree whose scripts/run finds nothing to install or build, and a damsod that only says
    what it was told and waits."""
    (directory / 'scripts').mkdir()
    (directory / 'build').mkdir()
    shutil.copy(SCRIPT.parent / 'run', directory / 'scripts' / 'run')
    (directory / 'scripts' / 'servers').symlink_to(SCRIPT)
    for path, text in (('scripts/packages', 'exit 0'), ('scripts/build', 'exit 0'), (
            'build/damsod', 'while [ "$1" != --config ]; do shift; done; cat "$2"; exec sleep 99')):
        (directory / path).write_text(f'#!/bin/sh\n{text}\n')
        (directory / path).chmod(0o755)
    return directory / 'scripts' / 'run'


def run_with_the_servers_ends_them_with_damsod(context):
    script, data = scratch_tree(context.directory()), context.directory() / 'data'
    context.cleanup(lambda: servers('stop', '--data', data / 'servers', check=False))
    for number, kept in ((signal.SIGINT, b''), (signal.SIGKILL, b'kept')):
        process = subprocess.Popen([script, '--data', data, '--with', 'redis+mongodb'], text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        context.cleanup(process.kill)
        lines = [process.stdout.readline().strip() for _ in LINES]
        same([line[:len(start)] for line, start in zip(lines, LINES)], list(LINES), 'told')
        client = redis.Redis.from_url(lines[2].split()[-1])
        same(client.get('key') or b'', kept, f'before {number.name}')
        client.set('key', 'kept')
        _, out, _ = servers('status', '--json', '--data', data / 'servers')
        process.send_signal(number)
        process.wait(10)
        # The second start comes at once: it waits for the first servers to end.
        if number == signal.SIGKILL:
            has_nothing_left(str(data / 'servers'), pids_of(json.loads(out)), temporary=False)


if __name__ == '__main__':
    run([start_prints_the_configuration_and_nothing_else, redis_is_as_production_wants_it,
         the_servers_are_on_loopback_and_postgresql_on_no_port,
         two_pairs_run_side_by_side_and_stop_ends_only_its_own,
         kill_9_of_the_caller_ends_its_servers, kill_9_of_the_supervisor_ends_its_servers,
         data_survive_kill_9_of_each_server_in_a_named_directory,
         data_survive_stop_and_start_in_a_named_directory, redis_comes_back_empty_on_request,
         a_stalled_server_is_silent_and_then_goes_on, processor_time_is_counted_for_each,
         name_spaces_are_apart_and_drop_leaves_nothing,
         servers_of_the_user_are_used_and_left_clean,
         a_database_in_a_uri_is_replaced_and_its_account_is_not,
         what_cannot_be_is_refused_in_a_sentence,
         a_running_pair_is_not_started_twice_and_the_dead_not_killed_twice,
         without_root_and_sudo_it_says_what_it_needs, run_refuses_other_stores,
         run_with_the_servers_ends_them_with_damsod],
        seconds=600, seconds_quick=600, needs_server=False)
