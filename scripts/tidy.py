#!/usr/bin/env python3
"""Checks what no compiler checks: who may include whom, one library in one file, lengths, banned
words, links between documents, and that every test is run by something.

The tables below are the rule; docs/ARCHITECTURE.md explains them. `tidy: allow`, with a reason, in
a comment on the line lets that line through. Run as the test `tidy`; by hand:

    scripts/tidy.py              a line a fault; 1 if there is any
    scripts/tidy.py --report     also how long functions and files are
"""
import pathlib
import re
import statistics
import sys

# room -> rooms whose headers it may include. A name with a file in it allows that one header only.
MAY_INCLUDE = {
    'core': {'core'},
    'fileio': {'core', 'fileio'},
    'persist': {'core', 'persist'},
    'shard': {'core', 'fileio', 'persist/persist.h', 'persist/move.h', 'shard'},
    'bench': {'core', 'fileio', 'persist', 'shard', 'bench'},
    'tests': {'core', 'fileio', 'persist', 'shard', 'bench', 'tests'},
}
# third-party header -> the only files that may include it; a name may have a * in it
ONLY_IN = {
    'liburing.h': ('core/os_uring.c', 'bench/loadgen.c'),
    'sqlite3.h': ('persist/store_sqlite*.[ch]', 'bench/micro/micro_store.c'),
    'sodium.h': ('core/hash.c', 'persist/password.c'),
    'sodium/': ('core/hash.c', 'persist/password.c'),
    'jwt.h': ('shard/auth.c',),
    'mimalloc.h': ('core/mem.c',),
    'ini.h': ('core/config.c',),
    'openssl/': ('core/ws_accept.c', 'persist/redis_tls.c', 'bench/token.c',
                 'bench/micro/micro_auth.c', 'tests/shard/jwt_maker.h'),
    'systemd/': ('shard/notify.c',),
    'hiredis/': ('persist/redis_reader.c',),
    'mongoc/': ('persist/mongo.c', 'bench/micro/micro_mongo.c'),
    'bson/': ('persist/mongo*.[ch]', 'persist/store_mongo*.[ch]', 'bench/micro/micro_mongo.c',
              'tests/persist/*.[ch]'),
}
# word -> what to write instead; everywhere in C
BANNED = {
    r'\bassert\(': 'CHECK(), which no build type turns off',
    r'\b(strcpy|strcat|sprintf|atoi|rand)\(': 'a bounded or simulated equivalent',
    r'\batomic_thread_fence\b': 'an order on the atomic itself: ThreadSanitizer cannot see fences',
    r'\b(while \(1\)|while \(true\)|for \(;;\))': 'a bounded loop',
}
# the same, in what is delivered: not in tests, benchmarks and the loader
BANNED_IN_PRODUCT = {
    r'\b(malloc|calloc|realloc|strdup|strndup)\(': 'a pool planned at start-up (core/mem.h)',
    r'\bsleep\(': 'the timer wheel, or a wait with a bound',
}
BANNED_ANYWHERE = {r'\b(FIX[M]E|TOD[O]|XX[X])\b': 'an issue number'}
PRODUCT = ('core', 'fileio', 'persist', 'shard')
LINE_MAX, FUNCTION_MAX, FILE_MAX = 100, 70, 800
TEXT_SUFFIXES = ('.c', '.h', '.def', '.py', '.md', '.js', '.mjs', '.css', '.html', '.build', '.txt',
                 '.sh')
SKIPPED = re.compile(r'^(build[^/]*|data|\.git|corpus|__pycache__|node_modules|web-shots)$')


def code_of(line):
    """The line without its strings and without comments that end on it."""
    return re.sub(r'"(\\.|[^"\\])*"|/\*.*?\*/|//.*', '', line)


def include_faults(rel, name):
    room = rel.split('/')[0]
    target = name.split('/')[0]
    if target in MAY_INCLUDE and not {target, name} & MAY_INCLUDE[room]:
        yield f'{room} may not include {name}'
    for header, files in ONLY_IN.items():
        if name.startswith(header) and not any(pathlib.PurePath(rel).match(f) for f in files):
            yield f'{name} belongs to {", ".join(files)}'


def word_faults(rel, code):
    words = dict(BANNED)
    if rel.startswith(PRODUCT):
        words |= BANNED_IN_PRODUCT
    for word, instead in words.items():
        found = re.search(word, code)
        if found:
            yield f'{found[0]} is banned: {instead}'


def functions(lines):
    """(line of the opening brace, lines) of every function; clang-format sees to the layout."""
    begin = None
    for number, line in enumerate(lines, 1):
        if line == '{':
            begin = number
        elif line == '}' and begin:
            yield begin, number - begin + 1
            begin = None


def c_faults(rel, lines):
    if not lines or not lines[0].startswith('/*'):
        yield 1, 'does not begin with a comment that says what it is for'
    if rel.endswith('.h') and '#pragma once' not in lines:
        yield 1, 'no #pragma once'
    for number, line in enumerate(lines, 1):
        include = re.match(r'#include [<"]([^>"]+)[>"]', line)
        if 'tidy: allow' in line:
            if not re.search(r'tidy: allow\W+\w+', line):
                yield number, 'tidy: allow wants a reason'
            continue
        if include:
            yield from ((number, fault) for fault in include_faults(rel, include[1]))
        yield from ((number, fault) for fault in word_faults(rel, code_of(line)))
    for number, length in functions(lines):
        if length > FUNCTION_MAX:
            yield number, f'function of {length} lines, at most {FUNCTION_MAX}'
    if len(lines) > FILE_MAX:
        yield len(lines), f'file of {len(lines)} lines, at most {FILE_MAX}'


def text_faults(rel, lines):
    """What holds for every text: no leftovers, no tabs, no blanks at the end, no endless lines."""
    markdown = rel.endswith('.md')
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_MAX and not markdown and 'tidy: allow' not in line:
            yield number, f'{len(line)} columns, at most {LINE_MAX}'
        if line != line.rstrip() or '\t' in line:
            yield number, 'a tab, or blanks at the end'
        for word, instead in BANNED_ANYWHERE.items():
            if re.search(word, line):
                yield number, f'{re.search(word, line)[0]} is banned: {instead}'


def anchors(path):
    """The anchors of a document's headings, as the usual viewers make them."""
    found = set()
    for line in path.read_text().splitlines():
        if re.match(r'#{1,6} ', line):
            title = re.sub(r'[^\w\- ]', '', line.lstrip('#').strip().lower())
            found.add(title.replace(' ', '-'))
    return found


def link_faults(path, lines):
    """Links of a document that lead to nothing in this tree."""
    fenced = False
    for number, line in enumerate(lines, 1):
        if line.startswith('```'):
            fenced = not fenced
        if fenced:
            continue
        for link in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`]*`', '', line)):
            if re.match(r'[a-z]+:', link):
                continue
            name, _, anchor = link.partition('#')
            target = path.parent / name if name else path
            if not target.exists():
                yield number, f'link to {link}: there is no such file'
            elif anchor and target.suffix == '.md' and anchor not in anchors(target):
                yield number, f'link to {link}: there is no such heading'


def wiring_faults(root):
    """Tests that nothing runs: C tests by a meson.build, others by tests/run.py's patterns."""
    for path in sorted(root.glob('tests/**/*.c')):
        build = path.parent / 'meson.build'
        name = re.sub(r'^(test|fuzz)_', '', path.stem)
        wired = build.exists() and re.search(rf"'{name}'", build.read_text())
        if path.stem.startswith(('test_', 'fuzz_')) and not wired:
            yield path, f"no '{name}' in {build.relative_to(root)}"
        if path.stem.startswith('fuzz_') and not any((path.parent / 'corpus' / name).glob('*')):
            yield path, f'no corpus in {path.parent.relative_to(root)}/corpus/{name}'
    runner = (root / 'tests/run.py').read_text()
    for pattern in ('tests/**/test_*.py', 'tests/**/test_*.mjs', 'tests/**/test_*.sh'):
        for path in sorted(root.glob(pattern)):
            rel = path.relative_to(root)
            if f'{rel.parent}/test_*{rel.suffix}' not in runner and str(rel) not in runner:
                yield path, 'tests/run.py does not run it'
    for path in sorted(root.glob('*/**/*.c')):
        room = path.relative_to(root).parts[0]
        if room in MAY_INCLUDE and room != 'tests' and path.parent == root / room:
            if f"'{path.name}'" not in (root / room / 'meson.build').read_text():
                yield path, f'{room}/meson.build does not name it'


def texts(root):
    """Every text of the tree that is not generated; no git, so that any copy of it will do."""
    for path in sorted(root.iterdir()):
        if SKIPPED.match(path.name):
            continue
        if path.is_dir():
            yield from texts(path)
        elif path.suffix in TEXT_SUFFIXES or path.parent.name in ('scripts', '.ci'):
            yield path


def report(root):
    for rooms in (PRODUCT, ('bench',), ('tests',)):
        files = [p for room in rooms for p in root.glob(f'{room}/**/*.[ch]')]
        texts_of = [p.read_text().splitlines() for p in files]
        lengths = sorted(length for text in texts_of for _, length in functions(text))
        if lengths:
            tenth = lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)]
            print(f'{", ".join(rooms)}: {len(files)} files, {sum(map(len, texts_of))} lines, the '
                  f'longest {max(map(len, texts_of))}; {len(lengths)} functions, median '
                  f'{statistics.median_low(lengths)} lines, 90th percentile {tenth}, '
                  f'longest {lengths[-1]}')


def main():
    words = [word for word in sys.argv[1:] if not word.startswith('--')]
    root = pathlib.Path(words[0] if words else pathlib.Path(__file__).parents[1]).resolve()
    found, looked_at = [], 0
    for path in texts(root):
        rel, looked_at = path.relative_to(root).as_posix(), looked_at + 1
        lines = path.read_text().splitlines()
        faults = list(text_faults(rel, lines))
        if path.suffix in ('.c', '.h') and rel.split('/')[0] in MAY_INCLUDE:
            faults += c_faults(rel, lines)
        if path.suffix == '.md':
            faults += link_faults(path, lines)
        found += [f'{rel}:{number}: {fault}' for number, fault in faults]
    found += [f'{path.relative_to(root)}: {fault}' for path, fault in wiring_faults(root)]
    print('\n'.join(found), end='\n' if found else '')
    if '--report' in sys.argv:
        report(root)
    print(f'{looked_at} texts, {len(found)} faults')
    sys.exit(1 if found else 0)


main()
