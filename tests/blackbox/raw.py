"""Bytes on a socket, for what no honest client library would send: half requests, bad frames.

Frame layout is RFC 6455 section 5.2; a client's frames are masked, the server's are not.
"""
import base64
import json
import os
import socket
import struct
import time

from client import Answer
from harness import Failure

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def dial(server, seconds=15, receive_bytes=None):
    """A TCP connection; `receive_bytes` asks the kernel for a small receive buffer."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)   # before connect
    sock.settimeout(seconds)
    sock.connect(('127.0.0.1', server.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(sock, seconds=10, bytes_max=1 << 24):
    """Everything until the other side closes: (bytes, True), or (bytes, False) at the time-out."""
    data, deadline = b'', time.monotonic() + seconds
    while len(data) < bytes_max:
        left = deadline - time.monotonic()
        if left <= 0:
            return data, False
        sock.settimeout(left)
        try:
            part = sock.recv(65536)
        except socket.timeout:
            return data, False
        except ConnectionError:
            return data, True
        if not part:
            return data, True
        data += part
    return data, False


def read_head(sock, seconds=10):
    """One response head, read byte by byte so that nothing behind it is taken."""
    head = b''
    sock.settimeout(seconds)
    while not head.endswith(b'\r\n\r\n'):
        part = sock.recv(1)
        if not part:
            raise Failure(f'closed within the head: {head[:200]!r}')
        head += part
    return head


def parse_head(head):
    """(status, [(name, value)]) of a response head."""
    lines = head.decode('latin-1').split('\r\n')
    return int(lines[0].split(' ', 2)[1]), [tuple(part.strip() for part in line.split(':', 1))
                                            for line in lines[1:] if line]


def read_answer(sock, seconds=10, has_body=True):
    """One response with a Content-Length, as an Answer."""
    status, headers = parse_head(read_head(sock, seconds))
    answer = Answer(status, headers, b'')
    left = int(answer.headers.get('content-length', 0)) if has_body else 0
    while left > 0:
        part = sock.recv(left)
        if not part:
            raise Failure(f'closed within the body of {status}')
        answer.body += part
        left -= len(part)
    return answer


def exchange(server, data, seconds=10):
    """Sends bytes on a connection of their own: the first answer, or None if it just closed."""
    with dial(server) as sock:
        try:
            sock.sendall(data)
        except ConnectionError:
            pass                                     # refused while we were sending: read why
        try:
            return read_answer(sock, seconds)
        except (Failure, ConnectionError, socket.timeout, ValueError, IndexError):
            return None


def handshake_bytes(server, token=None, change=None, method='GET', target='/v1/ws',
                    version='HTTP/1.1'):
    """An opening handshake; `change` sets headers, or removes those set to None."""
    headers = {'Host': f'127.0.0.1:{server.port}', 'Upgrade': 'websocket',
               'Connection': 'Upgrade', 'Sec-WebSocket-Version': '13',
               'Sec-WebSocket-Key': base64.b64encode(os.urandom(16)).decode()}
    if token:
        headers['Authorization'] = f'Bearer {token}'
    headers.update(change or {})
    lines = [f'{method} {target} {version}']
    lines += [f'{name}: {value}' for name, value in headers.items() if value is not None]
    return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')


def frame(payload, opcode=TEXT, *, final=True, masked=True, reserved=0, length=None):
    """A client's frame; `length` lies about the payload, `reserved` sets RSV bits (0-7)."""
    payload = payload.encode() if isinstance(payload, str) else bytes(payload)
    size = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    flag = 0x80 if masked else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + struct.pack('>H', size)
    else:
        head += bytes([flag | 127]) + struct.pack('>Q', size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    whole = mask * (len(payload) // 4 + 1)
    mixed = int.from_bytes(payload, 'big') ^ int.from_bytes(whole[:len(payload)], 'big')
    return head + mask + mixed.to_bytes(len(payload), 'big')


def parse_frames(data):
    """The server's whole frames in `data`: ([(opcode, final, payload)], bytes left over)."""
    frames, at = [], 0
    while len(data) - at >= 2:
        size, start = data[at + 1] & 0x7F, at + 2
        if data[at + 1] & 0x80:
            raise Failure('a masked frame from the server')
        if size == 126:
            if len(data) - at < 4:
                break
            size, start = struct.unpack_from('>H', data, at + 2)[0], at + 4
        elif size == 127:
            if len(data) - at < 10:
                break
            size, start = struct.unpack_from('>Q', data, at + 2)[0], at + 10
        if len(data) - start < size:
            break
        frames.append((data[at] & 0x0F, bool(data[at] & 0x80), data[start:start + size]))
        at = start + size
    return frames, data[at:]


class RawChat:
    """A WebSocket that sends whatever bytes it is told to."""

    def __init__(self, server, token, receive_bytes=None):
        self.sock = dial(server, receive_bytes=receive_bytes)
        self.rest, self.frames = b'', []
        self.sock.sendall(handshake_bytes(server, token))
        self.status, _ = parse_head(read_head(self.sock))
        if self.status != 101:
            raise Failure(f'the handshake was answered with {self.status}')

    @classmethod
    def over(cls, sock):
        """On a socket that has its handshake behind it."""
        chat = cls.__new__(cls)
        chat.sock, chat.rest, chat.frames, chat.status = sock, b'', [], 101
        return chat

    def send(self, data):
        try:
            self.sock.sendall(data)
        except ConnectionError:
            pass                                     # closed on us: what it said is read next

    def send_json(self, **fields):
        self.send(frame(json.dumps(fields)))

    def next(self, seconds=10):
        """The next frame (opcode, final, payload), or None when the connection has ended."""
        deadline = time.monotonic() + seconds
        while not self.frames:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failure(f'no frame within {seconds} s')
            self.sock.settimeout(left)
            try:
                part = self.sock.recv(65536)
            except socket.timeout:
                continue
            except ConnectionError:
                return None
            if not part:
                return None
            self.frames, self.rest = parse_frames(self.rest + part)
        return self.frames.pop(0)

    def next_json(self, seconds=10):
        got = self.next(seconds)
        if got is None or got[0] != TEXT:
            raise Failure(f'wanted a text frame, got {got}')
        return json.loads(got[2])

    def close_code(self, seconds=10):
        """The code of the server's close frame, skipping what comes before; None if there is none.

        Answers the close and then expects the server to end the TCP connection."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            got = self.next(deadline - time.monotonic())
            if got is None:
                return None
            if got[0] == CLOSE:
                self.send(frame(got[2][:2], CLOSE))
                if not read_all(self.sock, seconds)[1]:
                    raise Failure('the server left the connection open after the close frames')
                return struct.unpack('>H', got[2][:2])[0] if len(got[2]) >= 2 else 1005
        raise Failure(f'no close frame within {seconds} s')

    def close(self):
        self.sock.close()
