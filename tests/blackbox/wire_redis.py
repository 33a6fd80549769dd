"""A TCP proxy in front of Redis that fails in the ways that networks and servers do.

One thread moves all bytes and does all faults: a call like half_close() has happened when it
returns. Replies are cut at their ends (RESP2), so that one can be replaced or torn; commands pass
as they come.
"""
import os
import queue
import selectors
import socket
import ssl
import threading
import time

from harness import Failure

CHUNK = 1 << 18
WAITING_BYTES_MAX = 4 << 20      # of commands that Redis does not take; replies wait without bound
CALL_SECONDS = 5
AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def reply_end(data, at=0):
    """Where the reply that begins at `at` ends; None if it is not all there."""
    left = 1
    while left:
        stop = data.find(b'\r\n', at)
        if stop < 0:
            return None
        kind = data[at]
        left -= 1
        if kind == 0x24:                                   # $ bulk string: $-1 has no bytes
            size = int(data[at + 1:stop])
            at = stop + 2 + (size + 2 if size >= 0 else 0)
            if at > len(data):
                return None
            continue
        if kind == 0x2A:                                   # * array: *-1 has no elements
            left += max(0, int(data[at + 1:stop]))
        at = stop + 2
    return at


class Fault:
    """One fault that waits for its moment; `hits` counts how often it came."""

    def __init__(self, kind, count, data=b''):
        self.kind, self.left, self.data, self.hits = kind, count, data, 0


class Flow:
    """One client and its connection to Redis."""

    def __init__(self, client, target):
        self.client, self.target = client, target
        self.to_client, self.to_target, self.partial = bytearray(), bytearray(), bytearray()
        self.handshake = isinstance(client, ssl.SSLSocket)
        self.half_closed = self.ending = False


class RedisWire:
    """Listens from the start; `target` is (host, port). `tls` is an ssl.SSLContext.

    bytes_in: taken from clients; bytes_out: given to clients; bytes_lost: replies nobody got."""

    def __init__(self, listen_port=0, target=('127.0.0.1', 6379), *, tls=None):
        self.target, self.tls, self.port = target, tls, listen_port
        self.connections_total = self.connections_dropped = 0
        self.bytes_in = self.bytes_out = self.bytes_lost = self.replies = 0
        self.half_closes = self.tls_failures = self.target_failures = 0
        self.flows, self.faults = {}, []                   # flows by both of their sockets
        self.stalled = self.stopping = False
        self.selector, self.calls = selectors.DefaultSelector(), queue.SimpleQueue()
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.selector.register(self.bell, selectors.EVENT_READ)
        self.listener = None
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.listen()
        self.thread.start()

    @property
    def open(self):
        return len(self.flows) // 2

    def url(self, database=0, secret=''):
        scheme = 'rediss' if self.tls else 'redis'
        return f'{scheme}://{secret}127.0.0.1:{self.port}/{database}'

    # Faults

    def half_close(self):
        """Ends our sending side to every client; their commands still go to Redis. How many."""
        return self.call(self.half_close_now)

    def half_close_now(self):
        done = 0
        for flow in self.each():
            if not flow.half_closed:
                flow.half_closed, done = True, done + 1
                self.lose(flow)
                socket.socket.shutdown(flow.client, socket.SHUT_WR)   # TCP's: no goodbye of TLS
        self.half_closes += done
        return done

    def stall(self):
        """Nothing moves either way, and connections stay open, until go()."""
        self.call(lambda: self.set_stalled(True))

    def go(self):
        self.call(lambda: self.set_stalled(False))

    def set_stalled(self, stalled):
        self.stalled = stalled
        for flow in self.each():
            self.watch(flow)

    def cut_replies_after(self, count):
        """After so many more bytes of replies the connection that got the last one ends."""
        return self.arm(Fault('cut', count))

    def inject(self, data, times=1):
        """These bytes instead of the next reply (or the next n). Redis has done the command."""
        return self.arm(Fault('inject', times, data))

    def inject_error(self, text, times=1):
        """inject() of an error like 'OOM command not allowed when used memory > maxmemory'."""
        return self.inject(f'-{text}\r\n'.encode(), times)

    def truncate_reply(self):
        """Half of the next reply, then the connection ends."""
        return self.arm(Fault('truncate', 1))

    def arm(self, fault):
        self.call(lambda: self.faults.append(fault))
        return fault

    def disarm(self):
        """Faults that have not come yet never will."""
        self.call(self.faults.clear)

    def drop_all(self):
        """Ends every connection at once; how many there were."""
        return self.call(self.drop_all_now)

    def drop_all_now(self):
        flows = self.each()
        for flow in flows:
            self.end(flow)
        self.connections_dropped += len(flows)
        return len(flows)

    def refuse(self):
        """New connections are refused by the kernel until listen(); open ones stay."""
        self.call(self.refuse_now)

    def refuse_now(self):
        if self.listener:
            self.selector.unregister(self.listener)
            self.listener.close()
            self.listener = None

    def listen(self):
        """Listens (again) at the same port."""
        if self.thread.is_alive():
            self.call(self.listen_now)
        else:
            self.listen_now()                              # the loop has not begun

    def listen_now(self):
        if self.listener is None:
            listener = socket.create_server(('127.0.0.1', self.port), backlog=512)
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self.listener = listener
            self.selector.register(listener, selectors.EVENT_READ)

    def stop(self):
        def all_of_it():
            self.refuse_now()
            self.drop_all_now()
            self.stopping = True
        if self.thread.is_alive():
            self.call(all_of_it)
            self.thread.join(CALL_SECONDS)

    def wait_for(self, predicate, seconds=10, what='what the test waits for'):
        deadline = time.monotonic() + seconds
        while not predicate():
            if time.monotonic() > deadline:
                raise Failure(f'not within {seconds} s: {what}')
            time.sleep(0.005)

    # The loop

    def call(self, function):
        """Runs the function between two turns of the loop, and gives back what it returned."""
        done = queue.SimpleQueue()
        self.calls.put((function, done))
        os.eventfd_write(self.bell, 1)
        try:
            result, error = done.get(timeout=CALL_SECONDS)
        except queue.Empty:
            raise Failure('the proxy has ended, or hangs') from None
        if error:
            raise error
        return result

    def loop(self):
        while not self.stopping:
            for key, events in self.selector.select():
                if key.fileobj == self.bell:
                    self.take_calls()
                elif key.fileobj is self.listener:
                    self.take_connection()
                elif key.fileobj in self.flows:
                    self.turn(self.flows[key.fileobj])
        self.selector.close()
        os.close(self.bell)

    def take_calls(self):
        os.eventfd_read(self.bell)
        while not self.calls.empty():
            function, done = self.calls.get()
            try:
                done.put((function(), None))
            except Exception as error:
                done.put((None, error))

    def take_connection(self):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        self.connections_total += 1
        target = socket.socket()
        try:
            target.settimeout(1)                           # loopback: at once, or refused
            target.connect(self.target)
        except OSError:
            self.target_failures += 1
            client.close()
            target.close()
            return
        for sock in (client, target):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            client = self.tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        flow = Flow(client, target)
        self.flows[client] = self.flows[target] = flow
        self.watch(flow)

    def each(self):
        return list({id(flow): flow for flow in self.flows.values()}.values())

    def watch(self, flow):
        """Asks for just the events that this flow can use now."""
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        takes = flow.handshake or len(flow.to_target) < WAITING_BYTES_MAX
        client = (read if takes else 0) | (write if flow.to_client else 0)
        target = read | (write if flow.to_target else 0)
        for sock, events in ((flow.client, client), (flow.target, target)):
            self.watch_one(sock, 0 if self.stalled else events)

    def watch_one(self, sock, events):
        known = sock in self.selector.get_map()
        if known and not events:
            self.selector.unregister(sock)
        elif known:
            self.selector.modify(sock, events)
        elif events:
            self.selector.register(sock, events)

    def turn(self, flow):
        if self.stalled:
            return
        try:
            if flow.handshake:
                flow.client.do_handshake()
                flow.handshake = False
            alive = self.take_commands(flow) and self.take_replies(flow)
            self.give(flow.target, flow.to_target)
            if not flow.half_closed:
                self.bytes_out += self.give(flow.client, flow.to_client)
            if not alive or (flow.ending and not flow.to_client):
                return self.end(flow)
        except AGAIN:
            pass
        except (OSError, ValueError):
            self.tls_failures += flow.handshake
            return self.end(flow)
        self.watch(flow)

    def read_some(self, sock):
        """Bytes, b'' at the end, or None if there is nothing now."""
        try:
            return sock.recv(CHUNK)
        except AGAIN:
            return None

    def take_commands(self, flow):
        while len(flow.to_target) < WAITING_BYTES_MAX:
            data = self.read_some(flow.client)
            if not data:
                return data is None
            self.bytes_in += len(data)
            flow.to_target += data
        return True

    def take_replies(self, flow):
        data = self.read_some(flow.target)
        if not data:
            return data is None
        flow.partial += data
        at = 0
        while at < len(flow.partial) and not flow.ending:
            end = reply_end(flow.partial, at)
            if end is None:
                break
            self.replies += 1
            self.put_reply(flow, bytes(flow.partial[at:end]))
            at = end
        del flow.partial[:at]
        if flow.half_closed:
            self.lose(flow)
        return True

    def put_reply(self, flow, reply):
        """One reply on its way to the client, through the fault that is due, if any."""
        fault = self.faults[0] if self.faults else None
        if fault is None:
            flow.to_client += reply
        elif fault.kind == 'inject':
            flow.to_client += fault.data
            self.came(fault, 1)
        elif fault.kind == 'truncate':
            flow.to_client += reply[:len(reply) // 2]
            flow.ending = True
            self.came(fault, 1)
        elif fault.left >= len(reply):
            flow.to_client += reply
            fault.left -= len(reply)
        else:
            flow.to_client += reply[:fault.left]
            flow.ending = True
            self.came(fault, fault.left)

    def came(self, fault, used):
        fault.hits += 1
        fault.left -= used
        if fault.left <= 0:
            self.faults.remove(fault)

    def give(self, sock, data):
        """Sends what the socket takes; how much that was."""
        if not data:
            return 0
        try:
            sent = sock.send(data)
        except AGAIN:
            return 0
        del data[:sent]
        return sent

    def lose(self, flow):
        self.bytes_lost += len(flow.to_client)
        flow.to_client.clear()

    def end(self, flow):
        for sock in (flow.client, flow.target):
            self.watch_one(sock, 0)
            self.flows.pop(sock, None)
            sock.close()
