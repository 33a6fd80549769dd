"""MongoDB's wire messages as bytes: read, split, cut and joined without decoding documents.

Layouts are those of the MongoDB wire protocol (OP_MSG, OP_QUERY, OP_REPLY) and of bsonspec.org.
A bulk of 1,000 documents costs one walk over 1,000 lengths; what nobody asks for is never decoded.
"""
import struct

import bson
from bson.codec_options import CodecOptions
from bson.son import SON

HEADER, INT32 = struct.Struct('<iiii'), struct.Struct('<i')
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM_PRESENT, MORE_TO_COME, EXHAUST_ALLOWED = 1, 2, 1 << 16
FLAGS_REQUIRED = 0xFFFF          # a receiver must refuse those of them that it does not know
MESSAGE_BYTES_MAX = 48_000_000   # maxMessageSizeBytes of every server since 3.6
SPELLINGS = {'isMaster': 'hello', 'ismaster': 'hello', 'buildinfo': 'buildInfo',
             'findandmodify': 'findAndModify'}     # a server takes either
WRITES = {'insert': 'documents', 'update': 'updates', 'delete': 'deletes'}
STRING, DOCUMENT, ARRAY = 2, 3, 4
SIZE_FIXED = {1: 8, 6: 0, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8, 19: 16, 127: 0, 255: 0}
SIZE_BEFORE = {2: 4, 3: 0, 4: 0, 5: 5, 12: 16, 13: 4, 14: 4, 15: 0}   # and what its int32 says
ORDERED = CodecOptions(document_class=SON)
NO_DOCUMENT = b'\x05\x00\x00\x00\x00'


class Malformed(Exception):
    """Bytes that are no message of this protocol."""


def encode(document):
    return bson.encode(document)


def decode(raw):
    """The document with its fields in order."""
    return bson.decode(bytes(raw), ORDERED)


def elements(raw):
    """(name, type, begin of the element, begin of its value, end) of each element of a document."""
    at, last = 4, INT32.unpack_from(raw)[0] - 1
    while at < last:
        kind, stop = raw[at], raw.index(0, at + 1)
        value = stop + 1
        if kind in SIZE_FIXED:
            end = value + SIZE_FIXED[kind]
        elif kind in SIZE_BEFORE:
            end = value + SIZE_BEFORE[kind] + INT32.unpack_from(raw, value)[0]
        elif kind == 11:                                    # a regular expression: two C strings
            end = raw.index(0, raw.index(0, value) + 1) + 1
        else:
            raise Malformed(f'a BSON element of type {kind}')
        if not value <= end <= last:
            raise Malformed('a BSON element that ends outside its document')
        yield bytes(raw[at + 1:stop]).decode(), kind, at, value, end
        at = end


def documents_of(raw, at, end):
    """(begin, end) of each of the documents that stand one after the other in raw[at:end]."""
    found = []
    while at < end:
        size = INT32.unpack_from(raw, at)[0]
        if size < 5 or at + size > end:
            raise Malformed('a document sequence with a wrong length')
        found.append((at, at + size))
        at += size
    return found


def without(raw, names):
    """The document without the elements of these names."""
    kept = b''.join(raw[begin:end] for name, _, begin, _, end in elements(raw)
                    if name not in names)
    return INT32.pack(len(kept) + 5) + kept + b'\x00'


def plus(raw, fields):
    """The document with these fields, which replace those of their names."""
    return encode(SON([*decode(raw).items(), *fields.items()]))


def make_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC32C = make_table()


def crc32c(data):
    """The checksum at the end of an OP_MSG: CRC-32C (RFC 3720 appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def op_msg(request_id, response_to, body, sequences=(), flags=0):
    """An OP_MSG; sequences are (identifier, [raw documents])."""
    parts = [INT32.pack(flags), b'\x00', body]
    for identifier, items in sequences:
        name = identifier.encode() + b'\x00'
        parts += [b'\x01', INT32.pack(4 + len(name) + sum(map(len, items))), name, *items]
    return HEADER.pack(16 + sum(map(len, parts)), request_id, response_to, OP_MSG) + b''.join(parts)


def op_reply(request_id, response_to, body):
    head = HEADER.pack(36 + len(body), request_id, response_to, OP_REPLY)
    return head + struct.pack('<iqii', 8, 0, 0, 1) + body    # 8 = AwaitCapable, as servers set it


def reply_body(message):
    """The document of a reply, either kind."""
    opcode = HEADER.unpack_from(message)[3]
    at = {OP_MSG: 21, OP_REPLY: 36}.get(opcode)
    if at is None or len(message) < at + 5:
        raise Malformed(f'a reply with opcode {opcode}')
    return bytes(message[at:at + INT32.unpack_from(message, at)[0]])


class Request:
    """One request as it lies in its bytes. The checksum is checked and taken off, the exhaust flag
    is cleared: who gets `message` sees neither, and answers once."""

    is_part = False          # made by with_items(): not the whole of what the client sent

    def __init__(self, message):
        try:
            self.parse(message)
        except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
            raise Malformed(f'a message that ends within itself: {error}') from error

    def parse(self, message):
        self.message = message
        _, self.request_id, _, self.opcode = HEADER.unpack_from(message)
        self.sequences = {}                             # identifier -> [(begin, end)]
        if self.opcode == OP_MSG:
            self.parse_msg()
        elif self.opcode == OP_QUERY:
            self.parse_query()
        else:
            raise Malformed(f'opcode {self.opcode}, which was not offered')
        if len(self.body) != INT32.unpack_from(self.body)[0]:
            raise Malformed('no body, or one with a wrong length')
        self.fields = {name: (kind, value, end)
                       for name, kind, _, value, end in elements(self.body)}
        if not self.fields:
            raise Malformed('a command without a name')
        self.spelling = next(iter(self.fields))
        self.name = SPELLINGS.get(self.spelling, self.spelling)
        self.database = self.database or self.text('$db')
        self.collection = self.text('collection' if self.name == 'getMore' else self.spelling)

    def parse_msg(self):
        message = self.message
        flags = INT32.unpack_from(message, 16)[0]
        if flags & FLAGS_REQUIRED & ~(CHECKSUM_PRESENT | MORE_TO_COME):
            raise Malformed(f'unknown flags {flags:#x}')
        if flags & CHECKSUM_PRESENT:
            if int.from_bytes(message[-4:], 'little') != crc32c(message[:-4]):
                raise Malformed('a wrong checksum')
            del message[-4:]
            INT32.pack_into(message, 0, len(message))
        self.more_to_come = bool(flags & MORE_TO_COME)
        self.was_exhaust = bool(flags & EXHAUST_ALLOWED)
        INT32.pack_into(message, 16, flags & ~(CHECKSUM_PRESENT | EXHAUST_ALLOWED))
        self.body, self.database, at = b'', '', 20
        while at < len(message):
            kind, size = message[at], INT32.unpack_from(message, at + 1)[0]
            end = at + 1 + size
            if kind not in (0, 1) or size < 5 or end > len(message) or (kind == 0 and self.body):
                raise Malformed('a section of an unknown kind or with a wrong length')
            if kind == 0:
                self.body = bytes(message[at + 1:end])
            else:
                stop = message.index(0, at + 5)
                self.sequences[message[at + 5:stop].decode()] = documents_of(message, stop + 1, end)
            at = end

    def parse_query(self):
        message = self.message
        self.more_to_come = self.was_exhaust = False
        stop = message.index(0, 20)
        self.database, _, collection = message[20:stop].decode().partition('.')
        if collection != '$cmd':
            raise Malformed('OP_QUERY for something other than a command')
        self.body = bytes(message[stop + 9:])
        _, kind, _, value, end = next(elements(self.body), ('', 0, 0, 0, 0))
        if self.body[5:12] == b'$query\x00' and kind == DOCUMENT:
            self.body = self.body[value:end]

    def text(self, name):
        """The string of this field; empty if there is none."""
        kind, value, end = self.fields.get(name, (0, 0, 0))
        return self.body[value + 4:end - 1].decode() if kind == STRING else ''

    def value(self, name, default=None):
        """One field, decoded."""
        if name not in self.fields:
            return default
        kind, value, end = self.fields[name]
        element = bytes([kind]) + b'v\x00' + self.body[value:end]
        return decode(INT32.pack(len(element) + 5) + element + b'\x00')['v']

    def command(self):
        """The body, decoded; documents in a sequence are not in it: see items()."""
        return decode(self.body)

    def array(self):
        """(begin, end) in the body of each item of a write's array; most clients send none."""
        kind, value, end = self.fields.get(WRITES.get(self.name), (0, 0, 0))
        if kind != ARRAY:
            return []
        return [(value + begin, value + stop)
                for _, _, _, begin, stop in elements(self.body[value:end])]

    @property
    def documents(self):
        """How many documents, updates or deletes the write has; 0 if it is no write."""
        return len(self.sequences.get(WRITES.get(self.name), ())) + len(self.array())

    def items(self):
        """The raw documents, updates or deletes of a write."""
        found = [self.body[begin:end] for begin, end in self.array()]
        return found + [bytes(self.message[begin:end])
                        for begin, end in self.sequences.get(WRITES.get(self.name), ())]

    def with_items(self, items):
        """The same write of these raw documents only."""
        identifier = WRITES[self.name]
        body = without(self.body, (identifier,))
        part = Request(bytearray(op_msg(self.request_id, 0, body, [(identifier, items)],
                                        MORE_TO_COME if self.more_to_come else 0)))
        part.is_part = True
        return part

    def without(self, names):
        """The same request without these fields of its body."""
        if not any(name in self.fields for name in names):
            return self
        body = without(self.body, names)
        if self.opcode == OP_QUERY:
            start = self.message.index(0, 20) + 9
            message = self.message[:start] + body
        else:
            rest = [(identifier, [bytes(self.message[b:e]) for b, e in found])
                    for identifier, found in self.sequences.items()]
            message = op_msg(self.request_id, 0, body, rest,
                             MORE_TO_COME if self.more_to_come else 0)
        message = bytearray(message)
        INT32.pack_into(message, 0, len(message))
        return Request(message)

    def reply(self, body):
        """The message that answers this request; a document is encoded."""
        raw = body if isinstance(body, bytes) else encode(body)
        if self.opcode == OP_QUERY:
            return op_reply(0, self.request_id, raw)
        return op_msg(0, self.request_id, raw)
