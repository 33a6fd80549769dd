#!/usr/bin/env python3
"""The documents say what the tables of the source say, and their links lead somewhere.

Each table of a document that comes from a .def file (or from enum exit_code) stands row by row as
it would be printed here: a row that is missing, stale or invented fails.

    tests/docs.py                  N passed, N failed
    tests/docs.py --print config   the rows to paste after a change: close error config metrics exit
    tests/docs.py --root DIR       another tree
"""
import argparse
import pathlib
import re
import sys

CALL = re.compile(r'^(\w+)\(', re.MULTILINE)
LINK = re.compile(r'\]\(([^)\s]+)\)')


def without_comments(text):
    return re.sub(r'/\*.*?\*/', '', text, flags=re.DOTALL)


def arguments(text, begin):
    """The arguments of a macro call, from behind its bracket; strings are joined and unquoted."""
    found, word, at = [], '', begin
    while text[at] != ')':
        if text[at] == '"':
            end = at + 1
            while text[end] != '"':
                end += 2 if text[end] == '\\' else 1
            word += text[at + 1:end]
            at = end + 1
        elif text[at] == ',':
            found.append(word)
            word, at = '', at + 1
        else:
            word += '' if text[at].isspace() else text[at]
            at += 1
    return found + [word]


def calls(path):
    """(macro, arguments) of every row of a .def file."""
    text = without_comments(path.read_text())
    return [(call[1], arguments(text, call.end())) for call in CALL.finditer(text)]


# --- rows as the documents have them: (columns that are compared) ---

def close_rows(root):
    return [(code, f'`{text}`' if text else '(none)')
            for _, (_, code, _, text) in calls(root / 'shard/close_reason.def') if code != '0']


def error_rows(root):
    return [(f'`{code}`', status, text)
            for _, (_, code, status, text) in calls(root / 'shard/error_code.def') if code]


def config_rows(root):
    rows = []
    for _, row in calls(root / 'core/config.def'):
        section, key, kind, least, most, initial, when, text = row
        if kind == 'CHOICE':
            bounds = least.replace('|', ', ')
        elif kind == 'BOOL':
            bounds = 'on, off'
        else:
            bounds = f'{least} to {most}' + (' characters' if kind == 'TEXT' else '')
        initial = f'`{initial}`' if initial else '(empty)'
        text += ' Taken over by a reload.' if when == 'RELOAD' else ''
        rows.append((f'`{section}.{key}`', initial, bounds, text))
    return rows


def metric_rows(root):
    kinds = {'COUNTER': 'counter', 'SECONDS': 'counter', 'GAUGE': 'gauge',
             'HISTOGRAM': 'histogram', 'LABELLED': 'counter'}
    rows = []
    for kind, row in calls(root / 'core/metrics.def'):
        name = f'damso_{row[0]}'
        if kind == 'LABELLED':
            name += '{' + f'{row[1]}="{row[2]}"' + '}'
        rows.append((f'`{name}`', kinds[kind], row[-1]))
    return rows


def exit_rows(root):
    text = (root / 'shard/server.h').read_text()
    body = re.search(r'enum exit_code \{(.*?)\};', text, re.DOTALL)[1]
    return [(number,) for number in re.findall(r'=\s*(\d+)', body)]


# name -> (document, heading of the section with the table, rows)
TABLES = {
    'close': ('docs/PROTOCOL.md', 'Close codes', close_rows),
    'error': ('docs/PROTOCOL.md', 'Errors', error_rows),
    'config': ('docs/OPERATIONS.md', 'Every key', config_rows),
    'metrics': ('docs/OPERATIONS.md', 'Metrics', metric_rows),
    'exit': ('docs/OPERATIONS.md', 'Exit codes', exit_rows),
}


def section(path, heading):
    """The lines under a heading of any level, up to the next heading."""
    lines, inside = [], False
    for line in path.read_text().splitlines():
        if line.startswith('#'):
            inside = line.lstrip('#').strip() == heading
        elif inside:
            lines.append(line)
    return lines


def table(lines):
    """The cells of each row of the first table, without its two head lines."""
    rows = []
    for line in lines:
        if line.startswith('|'):
            rows.append([cell.strip() for cell in line.strip().strip('|').split('|')])
        elif rows:
            break
    return rows[2:]


def table_faults(root, name):
    """One fault or None a row that should be there, and one a row that should not."""
    document, heading, make = TABLES[name]
    path = root / document
    if not path.exists():
        return [f'{document} is missing']
    wanted = make(root)
    width = len(wanted[0])
    there = [tuple(row[:width]) for row in table(section(path, heading))]
    results = [None if row in there else f'{document}, {heading}: no row {" | ".join(row)}'
               for row in wanted]
    results += [f'{document}, {heading}: a row too many: {" | ".join(row)}'
                for row in there if row not in wanted]
    results += [f'{document}, {heading}: twice: {row[0]}' for row in set(there)
                if there.count(row) > 1]
    return results


# --- links ---

def documents(root):
    for path in sorted(root.rglob('*.md')):
        parts = path.relative_to(root).parts
        if not any(re.match(r'(build.*|data|\.git|corpus|node_modules)$', part) for part in parts):
            yield path


def anchors(path):
    """The anchors of a document's headings, as the usual viewers make them."""
    found, fenced = set(), False
    for line in path.read_text().splitlines():
        fenced ^= line.startswith('```')
        if not fenced and re.match(r'#{1,6} ', line):
            title = re.sub(r'[^\w\- ]', '', line.lstrip('#').strip().lower())
            found.add(title.replace(' ', '-'))
    return found


def link_faults(root, path):
    """A fault or None a relative link."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fenced ^= line.startswith('```')
        for link in [] if fenced else LINK.findall(re.sub(r'`[^`]*`', '', line)):
            if re.match(r'[a-z]+:', link):
                continue
            name, _, anchor = link.partition('#')
            target = path.parent / name if name else path
            where = f'{path.relative_to(root)}:{number}: link to {link}'
            if not target.exists():
                yield f'{where}: there is no such file'
            elif anchor and target.suffix == '.md' and anchor not in anchors(target):
                yield f'{where}: there is no such heading'
            else:
                yield None


def decision_faults(root):
    """Every decision ends with what would change our mind."""
    for path in sorted((root / 'docs/adr').glob('*.md')):
        headings = re.findall(r'^## (.*)$', path.read_text(), re.MULTILINE)
        good = headings and headings[-1] == 'What would change our mind'
        yield None if good else f'{path.relative_to(root)} does not end with what would change it'


def main():
    parser = argparse.ArgumentParser(description='Checks documents against the tables.')
    parser.add_argument('--print', choices=TABLES, help='print the rows of one table')
    parser.add_argument('--root', type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[1])
    args = parser.parse_args()
    root = args.root.resolve()
    if args.print:
        for row in TABLES[args.print][2](root):
            print('| ' + ' | '.join(row) + ' |')
        return 0
    results = [fault for name in TABLES for fault in table_faults(root, name)]
    for path in documents(root):
        results += link_faults(root, path)
    results += decision_faults(root)
    faults = [fault for fault in results if fault]
    for fault in faults:
        print(f'FAIL {fault}')
    print(f'{len(results) - len(faults)} passed, {len(faults)} failed')
    return 1 if faults or not results else 0


sys.exit(main())
