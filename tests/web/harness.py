"""What the browser test stands on: the server as a process, a network that can be cut, a page.

Everything started here is ended by Harness.close(): browsers, drivers and the server, by their own
process ids, and the folders they wrote to.
"""
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

READY_WAIT_S = 20
WAIT_S = 15
QUIT_WAIT_S = 5
CHROMIUM = '/usr/bin/chromium'
CHROMEDRIVER = '/usr/bin/chromedriver'
BROWSER_FLAGS = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--disable-dev-shm-usage', '--lang=en-GB', '--window-size=1200,800',
]


def wait_until(fact, what, seconds=WAIT_S):
    """Polls until fact() is true and returns its value; fails with `what` after `seconds`. The page
    may replace an element between the look for it and the look at it: then fact() is asked anew."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = fact()
        except StaleElementReferenceException:
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f'not within {seconds} s: {what() if callable(what) else what}')
        time.sleep(0.05)


class Server:
    """damsod on its own data; kill() is SIGKILL, start() again takes the same data and port."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.data = folder / 'data'
        self.log = folder / 'damsod.log'
        self.port = 0
        self.process = None

    def start(self):
        command = [self.binary, '--port', str(self.port), '--data', str(self.data), '--shards', '2']
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self.port = int(self._ready_line().rsplit(':', 1)[1].rstrip('/\n '))

    def _ready_line(self):
        deadline = time.monotonic() + READY_WAIT_S
        seen = b''
        while time.monotonic() < deadline:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                piece = os.read(self.process.stdout.fileno(), 4096)
                seen += piece
                for line in seen.decode(errors='replace').splitlines(keepends=True):
                    if line.startswith('damsod: ready at ') and line.endswith('\n'):
                        return line
                if piece == b'':
                    break
        raise AssertionError(f'damsod did not become ready: {seen!r}\n{self.tail()}')

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def tail(self):
        text = self.log.read_text(errors='replace') if self.log.exists() else ''
        return '\n'.join(text.splitlines()[-20:])

    @property
    def url(self):
        return f'http://127.0.0.1:{self.port}'

    def call(self, method, path, token=None, body=None, headers=None):
        """One REST call beside the browsers; returns the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header('Content-Type', 'application/json')
        if token is not None:
            request.add_header('Authorization', f'Bearer {token}')
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b'null')


class Network:
    """A TCP relay in front of the server. cut() breaks every connection and refuses new ones;
    mend() lets them through again on the same port."""

    def __init__(self, server):
        self.server = server
        self.lock = threading.Lock()
        self.sockets = set()
        self.listener = None
        self.port = 0
        self.mend()

    @property
    def url(self):
        return f'http://127.0.0.1:{self.port}'

    def mend(self):
        self.listener = socket.create_server(('127.0.0.1', self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            for end in self.sockets:
                _shut(end)

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(('127.0.0.1', self.server.port), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.sockets |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source, sink):
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
        except OSError:
            pass
        _shut(sink)
        with self.lock:
            self.sockets.discard(source)
        # The socket itself is closed when the last reference goes: the other thread may use it.


def _shut(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


# Texts of messages must never stand twice on the page, not even between push and ack: counted
# after every change of the list, because a look from outside would miss it.
WATCH_DOUBLES = """
window.doubles = [];
new MutationObserver(() => {
    const seen = new Set();
    for (const text of document.querySelectorAll('[data-testid=message-text]')) {
        if (seen.has(text.textContent)) { window.doubles.push(text.textContent); }
        seen.add(text.textContent);
    }
}).observe(document.getElementById('messages'), { childList: true, subtree: true });
"""

MESSAGES = """
return Array.from(document.querySelectorAll('[data-testid=message]'), (row) => ({
    seq: Number(row.dataset.seq), state: row.dataset.state,
    text: row.querySelector('[data-testid=message-text]').textContent,
}));
"""


class Page:
    """One person's browser."""

    def __init__(self, name, url, folder):
        self.name = name
        self.url = url
        self.profile = folder / f'profile-{name}'
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in BROWSER_FLAGS + [f'--user-data-dir={self.profile}']:
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        self.service = Service(CHROMEDRIVER, log_path=os.devnull)
        self.driver = webdriver.Chrome(service=self.service, options=options)
        self.driver.set_script_timeout(10)
        self.driver.set_page_load_timeout(20)
        self.driver.get(url)

    def find(self, hook):
        """The shown element with this data-testid, waited for."""
        def shown():
            for element in self.driver.find_elements(By.CSS_SELECTOR, f'[data-testid={hook}]'):
                if element.is_displayed():
                    return element
            return None
        return wait_until(shown, f'{self.name}: element {hook}')

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def sign_up(self, password):
        self.find('signup-username').send_keys(self.name)
        self.find('signup-password').send_keys(password)
        self.find('signup-submit').click()
        self.wait_state('connected')

    @property
    def state(self):
        return self.js('return document.querySelector("[data-testid=connection-state]")'
                       '.dataset.state')

    def wait_state(self, *states, seconds=WAIT_S):
        wait_until(lambda: self.state in states,
                   lambda: f'{self.name}: connection {states}, but is {self.state}', seconds)

    def create_room(self, name):
        self.find('room-name').send_keys(name + Keys.ENTER)
        wait_until(lambda: self.find('room-title').text == name, f'{self.name}: {name} opens')
        return self.js('return decodeURIComponent(location.hash.split("/").pop())')

    def open_room(self, room_id):
        def clicked():
            items = self.driver.find_elements(By.CSS_SELECTOR, f'[data-room-id="{room_id}"]')
            if items:
                items[0].click()
            else:
                self.find('room-refresh').click()
                time.sleep(0.3)
            return items
        wait_until(clicked, f'{self.name}: room {room_id} in the list')
        wait_until(lambda: self.js('return location.hash').endswith(room_id), 'room opens')
        self.find('message-input')

    def say(self, *texts):
        box = self.find('message-input')
        for text in texts:
            box.send_keys(text + Keys.ENTER)

    def messages(self):
        return self.js(MESSAGES)

    def texts(self):
        return [message['text'] for message in self.messages()]

    def wait_texts(self, wanted, seconds=WAIT_S):
        """Waits until the page shows exactly these texts, in this order, all of them confirmed."""
        def as_wanted():
            rows = self.messages()
            return [row['text'] for row in rows] == list(wanted) and \
                all(row['state'] == 'sent' for row in rows)
        wait_until(as_wanted, lambda: f'{self.name}: {list(wanted)}, but {self.messages()}',
                   seconds)

    def session(self):
        return json.loads(self.js('return sessionStorage.getItem("damso.session")'))

    def watch_doubles(self):
        self.js(WATCH_DOUBLES)

    def doubles(self):
        return self.js('return window.doubles')

    def console(self):
        """What the console has said at level SEVERE since the last call."""
        return [entry['message'] for entry in self.driver.get_log('browser')
                if entry['level'] == 'SEVERE']

    def screenshot(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))

    def close(self):
        """Asks the browser to end, and ends it: one that hangs must not hold up the run."""
        family = _family(self.service.process.pid)
        quitting = threading.Thread(target=self.driver.quit, daemon=True)
        quitting.start()
        quitting.join(QUIT_WAIT_S)
        for pid, started in family:
            if _start_time(pid) == started:  # not another process that got the number since
                os.kill(pid, signal.SIGKILL)


def _start_time(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[19]
    except OSError:
        return None


def _family(root):
    """(pid, start time) of `root` and of all processes below it."""
    parents = {}
    for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(')', 1)[1].split()[1])
        except OSError:
            continue  # ended while we looked
    found = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return [(pid, _start_time(pid)) for pid in found]


class Harness:
    """The world of one run."""

    def __init__(self, binary):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='damso-web-'))
        self.server = Server(binary, self.folder)
        self.pages = []
        self.network = None

    def open(self):
        self.server.start()
        self.network = Network(self.server)

    def page(self, name, url):
        page = Page(name, url, self.folder)
        self.pages.append(page)
        return page

    def close(self):
        for page in self.pages:
            page.close()
        if self.network is not None:
            self.network.cut()
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
