#!/usr/bin/env python3
"""docs/WALK.md tells the truth: each function it names exists, in the file it names.

A function is written `name()` in backticks, a file `room/file.c`. A function belongs to the files
named on its own line; if there are none, to the file named last above it, under the same heading.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
WALK = ROOT / 'docs' / 'WALK.md'
FUNCTION = re.compile(r'`([a-z_][a-z0-9_]*)\(\)`')
FILE = re.compile(r'`((?:[a-z_]+/)+[a-z0-9_]+\.(?:c|h|def|js))(?::\d+)?`')


def defines(path, name):
    """Whether the file holds the body of that function, or of a macro or method of that name."""
    if path.suffix == '.js':
        form = rf'\b{name}\s*\([^)]*\)\s*\{{|function\*?\s+{name}\b|\b{name}\s*=\s*(?:async\s*)?\('
    else:
        form = rf'^(?!\s|#|.*;$)[^\n;=]*\b{name}\([^;{{]*\)\n?\s*\{{|^#define {name}\('
    return re.search(form, path.read_text(), re.MULTILINE) is not None


def faults(lines):
    """(line, fault), and None for every name that is right."""
    last = []
    for number, line in enumerate(lines, 1):
        if line.startswith('#'):
            last = []
        here = FILE.findall(line)
        for name in here:
            yield (None if (ROOT / name).is_file() else (number, f'there is no {name}'))
        here = [name for name in here if (ROOT / name).is_file()]
        for name in FUNCTION.findall(line):
            where = here or last
            if not where:
                yield number, f'{name}(): no file is named for it'
            elif not any(defines(ROOT / file, name) for file in where):
                yield number, f'{name}() is not in {" or ".join(where)}'
            else:
                yield None
        last = here[-1:] or last


def main():
    if not WALK.exists():
        print('docs/WALK.md is missing\n0 passed, 1 failed')
        return 1
    found = list(faults(WALK.read_text().splitlines()))
    wrong = [fault for fault in found if fault]
    for number, fault in wrong:
        print(f'FAIL docs/WALK.md:{number}: {fault}')
    if not any(FUNCTION.search(line) for line in WALK.read_text().splitlines()):
        print('FAIL docs/WALK.md names no function')
        wrong.append(None)
    print(f'{len(found) - len([w for w in wrong if w])} passed, {len(wrong)} failed')
    return 1 if wrong else 0


sys.exit(main())
