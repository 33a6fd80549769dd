#!/usr/bin/python3
"""Start-up says what is wrong and how to mend it; a clean stop tells the clients and ends with 0.

Method: damsod is run to its end with one thing wrong at a time; its exit code and its words are
looked at. Kernels that refuse io_uring are played by a seccomp filter on io_uring_setup.
"""
import asyncio
import ctypes
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import time

import server as server_module
from client import Chat, Rest, new_id, off_loop, token_for, user
from harness import Skip, expect, run, same
from server import DAMSOD, ServerDied, run_once

USAGE_EXIT, STOP_SECONDS = 2, 5
IO_URING_SETUP, EPERM, ENOSYS = 425, 1, 38
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
NOBODY = 65534


def refused(arguments, words, *, code=None, **options):
    """damsod must end by itself, not with 0 and not by a signal, and say all of these words."""
    got, out, err = run_once(arguments, **options)
    shown = f'{arguments}: exit {got}, stderr {err.strip()!r}'
    expect(got > 0, shown)
    expect(code is None or got == code, f'{shown}; wanted {code}')
    expect('ready at' not in out, f'{shown}: it said that it is ready')
    for word in words:
        expect(re.search(word, err, re.IGNORECASE), f'{shown}: no {word!r} in it')
    return got, err.strip()


def start_arguments(directory, *more):
    return ['--port', '0', '--data', directory / 'data', '--shards', '1', *more]


def with_config(context, text, words, code=USAGE_EXIT, env=None):
    directory = context.directory()
    file = directory / 'damsod.conf'
    file.write_text(text)
    arguments = ['--config', file, *start_arguments(directory)]
    for extra in ([], ['--check-config']):
        refused(arguments + extra, words, code=code, env=env)
    expect(not (directory / 'data').exists(), 'a refused configuration made the data directory')


def an_unknown_key_is_named_with_its_place_and_the_nearest(context):
    with_config(context, '# a comment\n[limits]\ntext_byte = 16k\n',
                [r'damsod\.conf:3\b', r'text_byte\b', r'text_bytes'])
    with_config(context, '[limit]\ntext_bytes = 16k\n', [r'damsod\.conf:[12]\b', 'limits'])
    with_config(context, '[limits]\nzzzzqqq = 1\n', [r'damsod\.conf:2\b', 'zzzzqqq'])


def a_value_out_of_bounds_is_named_with_the_bounds(context):
    for line, words in (('text_bytes = 1g', ['text_bytes', '256k']),
                        ('frame_bytes = 1', ['frame_bytes', '1k']),
                        ('text_bytes = -1', ['text_bytes']), ('text_bytes = lots', ['text_bytes']),
                        ('text_bytes = ', ['text_bytes']), ('connections = 1.5', ['connections']),
                        ('connections = 99999999999999999999999', ['connections'])):
        with_config(context, f'[limits]\n{line}\n', [r'damsod\.conf:2\b', *words])
    with_config(context, '[journal]\ndurability = maybe\n',
                [r'damsod\.conf:2\b', 'durability', 'fsync'])
    with_config(context, '[timeouts]\nhandshake = 5 parsecs\n', [r'damsod\.conf:2\b', 'handshake'])


def a_line_that_is_no_setting_is_named(context):
    with_config(context, '[limits]\ntext_bytes = 16k\nnonsense\n', [r'damsod\.conf:3\b'])
    with_config(context, '[limits\ntext_bytes = 16k\n', [r'damsod\.conf:1\b'])


def the_environment_is_checked_like_the_file(context):
    directory = context.directory()
    refused(start_arguments(directory), ['DAMSO_LIMITS_TEXT_BYTES', '256k'], code=USAGE_EXIT,
            env={'DAMSO_LIMITS_TEXT_BYTES': '1g'})
    refused(start_arguments(directory), ['DAMSO_LIMITS_TEXT_BYTE'], code=USAGE_EXIT,
            env={'DAMSO_LIMITS_TEXT_BYTE': '16k'})


def an_unreadable_file_is_named(context):
    directory = context.directory()
    refused(['--config', directory / 'missing.conf', *start_arguments(directory)],
            [r'missing\.conf', 'no such file'], code=USAGE_EXIT)
    refused(['--config', directory, *start_arguments(directory)], [str(directory)],
            code=USAGE_EXIT)


def wrong_flags_are_usage_errors(context):
    directory = context.directory()
    for flags, words in ((['--no-such-flag'], ['no-such-flag']), (['--port'], ['port']),
                         (['--port', 'x'], ['port']), (['--port', '70000'], ['port', '65535']),
                         (['--shards', '-1'], ['shards']), (['--shards', '65'], ['shards', '64']),
                         (['stray'], ['stray'])):
        refused([*start_arguments(directory), *flags], words, code=USAGE_EXIT)


def a_good_configuration_passes_the_check(context):
    directory = context.directory()
    file = directory / 'damsod.conf'
    file.write_text('; comment\n[limits]\ntext_bytes = 8k\n\n[timeouts]\nhandshake = 2s\n')
    code, _, err = run_once(['--config', file, '--check-config'])
    same(code, 0, f'--check-config: {err}')


def the_default_configuration_round_trips(context):
    directory = context.directory()
    code, text, err = run_once(['--print-default-config'])
    same(code, 0, f'--print-default-config: {err}')
    for section in ('[server]', '[limits]', '[journal]', '[timeouts]'):
        expect(section in text, f'no {section} in the default configuration')
    file = directory / 'damsod.conf'
    for form in (text, re.sub(r'^[#;]\s*(?=\w+ *= )', '', text, flags=re.MULTILINE)):
        file.write_text(form)
        code, _, err = run_once(['--config', file, '--check-config'])
        same(code, 0, f'the default configuration is refused: {err}')
        code, again, _ = run_once(['--config', file, '--print-default-config'])
        same((code, again), (0, text), 'printed again')


def the_plan_is_printed_and_sums_up(context):
    directory = context.directory()
    code, plan, err = run_once(['--plan', '--data', directory / 'data', '--shards', '2'])
    same(code, 0, f'--plan: {err}')
    expect(len(plan.splitlines()) >= 5, f'a plan of {len(plan.splitlines())} lines: {plan}')
    for word in ('connections', 'rooms', 'sum', '2 shards: at most'):
        expect(word in plan.lower(), f'no {word!r} in the plan: {plan}')
    expect(not (directory / 'data').exists(), '--plan made the data directory')
    small = directory / 'small.conf'
    small.write_text('[limits]\nconnections = 16\n')
    _, other, _ = run_once(['--config', small, '--plan', '--shards', '2'])
    expect(other != plan, 'the plan does not follow the configuration')


def a_taken_port_is_named(context):
    directory = context.directory()
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, err = refused(['--port', port, '--data', directory / 'data', '--shards', '1'],
                            [str(port), 'use'])
    context.note(f'exit {code}: {err.splitlines()[-1]}')


def a_port_taken_by_another_damsod_is_named(context):
    """SO_REUSEPORT must not let two servers share a port in silence."""
    running = context.start()
    directory = context.directory()
    code, err = refused(['--port', running.port, '--data', directory / 'data', '--shards', '1'],
                        [str(running.port), 'use'])
    context.note(f'exit {code}: {err.splitlines()[-1]}')
    same(Rest(running).get('/healthz').status, 200, 'the first server')


def a_data_directory_in_use_is_named(context):
    running = context.start()
    code, err = refused(['--port', '0', '--data', running.data, '--shards', '1'],
                        [re.escape(str(running.data)), 'use|running|lock|another'])
    context.note(f'exit {code}: {err.splitlines()[-1]}')
    same(Rest(running).get('/healthz').status, 200, 'the first server')
    running.kill()
    running.start()


def a_key_that_others_can_read_is_refused(context):
    server = context.start()
    same(server.stop(), 0, 'exit')
    key = server.data / 'jwt.key'
    same(key.stat().st_mode & 0o777, 0o600, 'mode of a new key')
    expect(re.fullmatch(r'[0-9a-f]{64}\n?', key.read_text()), 'the key is 64 hex characters')
    before = key.read_text()
    for mode in (0o644, 0o640, 0o604, 0o666):
        key.chmod(mode)
        code, err = refused(start_arguments(server.directory), [r'jwt\.key', '600|chmod|read'])
    context.note(f'exit {code}: {err.splitlines()[-1]}')
    key.chmod(0o600)
    server.start()
    same(key.read_text(), before, 'the key')
    server.stop()
    for content in ('', 'short\n', 'g' * 64 + '\n', '0' * 63 + '\n', '0' * 65 + '\n'):
        key.write_text(content)
        refused(start_arguments(server.directory), [r'jwt\.key'])


def a_data_directory_that_cannot_be_made_is_named(context):
    directory = context.directory()
    (directory / 'file').write_text('not a directory')
    code, err = refused(['--port', '0', '--data', directory / 'file', '--shards', '1'],
                        [re.escape(str(directory / 'file'))])
    context.note(f'exit {code}: {err.splitlines()[-1]}')
    refused(['--port', '0', '--data', directory / 'file' / 'below', '--shards', '1'],
            [re.escape(str(directory / 'file'))])


def syscall_filter(number, errno):
    """Runs in the child: the system call `number` fails with `errno` from here on (classic BPF)."""
    def prepare():
        code = b''.join(struct.pack('<HBBI', *row) for row in (
            (0x20, 0, 0, 0),                         # load seccomp_data.nr
            (0x15, 0, 1, number),                    # is it the one?
            (0x06, 0, 0, 0x00050000 | errno),        # SECCOMP_RET_ERRNO
            (0x06, 0, 0, 0x7FFF0000)))               # SECCOMP_RET_ALLOW
        rows = ctypes.create_string_buffer(code, len(code))
        program = ctypes.create_string_buffer(struct.pack('<HxxxxxxQ', 4, ctypes.addressof(rows)))
        libc = server_module.libc
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
                PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
            os._exit(99)
    return prepare


def a_kernel_without_io_uring_is_named(context):
    directory = context.directory()
    code, err = refused(start_arguments(directory), ['io_uring', 'kernel'],
                        before_exec=syscall_filter(IO_URING_SETUP, ENOSYS))
    expect(code != 99, 'the filter could not be set')
    context.note(f'exit {code}: {err.splitlines()[-1]}')


def io_uring_switched_off_is_named(context):
    directory = context.directory()
    code, err = refused(start_arguments(directory), ['io_uring_disabled'],
                        before_exec=syscall_filter(IO_URING_SETUP, EPERM))
    context.note(f'exit {code}: {err.splitlines()[-1]}')


def as_nobody(directory):
    """A copy of damsod and a directory that user nobody may use: (command prefix, binary)."""
    if os.getuid() != 0 or not (shutil.which('setpriv') and shutil.which('prlimit')):
        raise Skip('needs root, setpriv and prlimit')
    binary = directory / 'damsod'
    shutil.copy(DAMSOD, binary)
    binary.chmod(0o755)
    directory.chmod(0o755)
    os.chown(directory, NOBODY, NOBODY)
    user_flags = [f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups']
    return ['setpriv', *user_flags, '--inh-caps=-all', '--bounding-set=-all'], binary


def limited(directory, limit):
    prefix, binary = as_nobody(directory)
    command = ['prlimit', limit, *prefix, str(binary), *map(str, start_arguments(directory))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=server_module.die_with_parent, cwd='/')
    try:
        out, err = process.communicate(timeout=4)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return None, out.decode(), err.decode()
    return process.returncode, out.decode(), err.decode()


def too_little_locked_memory_is_named_or_enough(context):
    code, out, err = limited(context.directory(), '--memlock=65536')
    if code is None:
        expect('ready at' in out, f'neither ready nor ended: {err}')
        context.note('runs with 64 KiB of locked memory')
        return
    expect(code > 0 and re.search('memlock', err, re.IGNORECASE), f'exit {code}: {err}')
    context.note(f'exit {code}: {err.strip().splitlines()[-1]}')


def too_few_descriptors_are_named(context):
    code, out, err = limited(context.directory(), '--nofile=64:64')
    if code is None:
        expect('ready at' in out, f'neither ready nor ended: {err}')
        expect(re.search('nofile|descriptor|file', err, re.IGNORECASE),
               f'64 descriptors for 20,000 connections and not a word: {err!r}')
        context.note('runs, and warns: ' + err.strip().splitlines()[-1])
        return
    expect(code > 0 and re.search('nofile|descriptor', err, re.IGNORECASE), f'exit {code}: {err}')
    context.note(f'exit {code}: {err.strip().splitlines()[-1]}')


def the_environment_overrides_the_file_and_flags_override_both(context):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    config = {'server': {'port': 1}}
    server = context.start(port=None, config=config, env={'DAMSO_SERVER_PORT': str(port)})
    same(server.port, port, 'the port of the environment')
    server.kill()
    server = context.start(port=0, config=config, env={'DAMSO_SERVER_PORT': '1'})
    expect(server.port > 1, f'port {server.port}, --port 0 was given')


def limits_of_the_configuration_are_in_force(context):
    server = context.start(config={'limits': {'text_bytes': '100'}},
                           env={'DAMSO_LIMITS_HEADER_BYTES': '2k'})
    rest, room = user(server), new_id('room')
    rest.make_room(room)
    same(rest.say(room, 'x' * 100).status, 201, '100 bytes')
    same(rest.say(room, 'x' * 101).status, 413, '101 bytes')
    same(Rest(server).get('/healthz', X='x' * 3000).status, 431, '3000 bytes of header')


async def a_clean_stop_tells_clients_and_ends_with_zero(context):
    server = context.server(shards=2)
    await server.spawn().ready_soon()
    rest, room = user(server), new_id('room')
    await off_loop(rest.make_room, room)
    chats = [await Chat.open(server, token_for(server, new_id('u'))) for _ in range(20)]
    for chat in chats:
        await chat.follow(room)
    ack = await chats[0].say(room, 'before the end')
    begin = time.monotonic()
    server.terminate()
    codes = await asyncio.gather(*(chat.closed(STOP_SECONDS + 5) for chat in chats))
    expect(set(codes) <= {3000, 3001, 1001}, f'close codes {sorted(set(codes), key=str)}')
    code = await off_loop(server.wait, STOP_SECONDS + 5)
    took = time.monotonic() - begin
    same(code, 0, f'exit code, stderr {server.said()}')
    expect(took <= STOP_SECONDS + 0.5, f'the stop took {took:.1f} s')
    context.note(f'{took:.2f} s, close {sorted(set(codes))}')
    await server.spawn().ready_soon()
    rest.close()
    events = await off_loop(rest.history, room)
    same(events[-1]['seq'], ack['seq'], 'the last event after the stop')


def an_idle_server_stops_at_once_on_either_signal(context):
    server = context.start(shards=4)
    begin = time.monotonic()
    same(server.stop(), 0, 'exit code after SIGTERM')
    expect(time.monotonic() - begin < 2, f'{time.monotonic() - begin:.1f} s without any client')
    server.start()
    server.expected_to_run = False
    server.process.send_signal(2)
    same(server.wait(), 0, 'exit code after SIGINT')


def a_second_start_on_the_same_data_is_quick(context):
    server = context.start(shards=2)
    slowest = 0.0
    for _ in range(3):
        server.kill()
        begin = time.monotonic()
        server.start()
        slowest = max(slowest, time.monotonic() - begin)
    expect(slowest < 2.0, f'{slowest:.2f} s from start to ready')
    context.note(f'ready within {slowest:.2f} s')


def damage_in_the_journal_is_not_passed_over(context):
    """The journal's own tests flip every bit; this is the whole server, refusing."""
    server = context.start(shards=1)
    rest, room = user(server), new_id('room')
    rest.make_room(room)
    for number in range(200):
        rest.say(room, f'text {number} ' + 'y' * 500)
    server.kill()
    journals = sorted((p for p in server.data.rglob('*') if p.is_file() and b'text 7 yyy' in
                       p.read_bytes() and 'journal' in str(p.relative_to(server.data))), key=str)
    if not journals:
        raise Skip(f'no journal file holds the text: {sorted(server.data.rglob("*"))}')
    data = bytearray(journals[0].read_bytes())
    data[data.index(b'text 7 yyy')] ^= 0x01
    journals[0].write_bytes(data)
    try:
        server.start()
    except ServerDied:
        said = server.said()
        expect(re.search('journal', said) and server.process.returncode > 0, said)
        expect(str(pathlib.Path(journals[0]).name) in said, f'the file is not named: {said}')
        context.note(f'exit {server.process.returncode}: {said.splitlines()[-1]}')
        return
    rest.close()
    texts = [e.get('text', '') for e in rest.history(room)]
    expect(sum(t.startswith('text 7 yyy') for t in texts) == 1 and len(texts) == 201,
           'a damaged journal lost messages in silence')
    context.note('starts: the store had it all')


if __name__ == '__main__':
    run([an_unknown_key_is_named_with_its_place_and_the_nearest,
         a_value_out_of_bounds_is_named_with_the_bounds, a_line_that_is_no_setting_is_named,
         the_environment_is_checked_like_the_file, an_unreadable_file_is_named,
         wrong_flags_are_usage_errors, a_good_configuration_passes_the_check,
         the_default_configuration_round_trips, the_plan_is_printed_and_sums_up,
         a_taken_port_is_named, a_port_taken_by_another_damsod_is_named,
         a_data_directory_in_use_is_named, a_key_that_others_can_read_is_refused,
         a_data_directory_that_cannot_be_made_is_named, a_kernel_without_io_uring_is_named,
         io_uring_switched_off_is_named, too_little_locked_memory_is_named_or_enough,
         too_few_descriptors_are_named, the_environment_overrides_the_file_and_flags_override_both,
         limits_of_the_configuration_are_in_force, a_clean_stop_tells_clients_and_ends_with_zero,
         an_idle_server_stops_at_once_on_either_signal, a_second_start_on_the_same_data_is_quick,
         damage_in_the_journal_is_not_passed_over],
        seconds=240, seconds_quick=150)
