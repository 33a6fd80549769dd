#!/usr/bin/python3
"""The web client in a real browser, against a real server.

Method: two Chromiums with a profile each; ann speaks to the server directly, bob through a relay
        that can be cut. The tests run in the order below, on the same two pages, because a page
        that has been through one thing must survive the next as well. Prints a line a test; ends
        within RUN_MAX_S + SHOTS_MAX_S and leaves nothing behind but screenshots.

Usage:  tests/web/test_browser.py
        DAMSOD       the server (default build/damsod)
        DAMSO_SHOTS  where screenshots go (default web-shots beside the server)
"""
import os
import pathlib
import re
import signal
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN_MAX_S = 100
SHOTS_MAX_S = 10
PASSWORD = 'correct horse battery'
HISTORY_MESSAGES = 150

try:
    from selenium.webdriver.common.keys import Keys
    import harness
    MISSING = next((path for path in (harness.CHROMIUM, harness.CHROMEDRIVER)
                    if not os.path.exists(path)), None)
except ImportError as error:
    MISSING = str(error)

# What a browser says by itself when a server is not there. Anything else in a console is ours.
NETWORK_DOWN = re.compile(r'net::ERR_|WebSocket connection to')


class World:
    """The two pages, the room they talk in, and what has been said there."""

    def __init__(self, binary, shots):
        self.harness = harness.Harness(binary)
        self.shots = shots
        self.said = []
        self.room = None
        self.ann = self.bob = None

    def open(self):
        self.harness.open()
        self.server = self.harness.server
        self.network = self.harness.network
        self.ann = self.harness.page('ann', self.server.url)
        self.bob = self.harness.page('bob', self.network.url)

    def pages(self):
        return (self.ann, self.bob)

    def quiet(self, allowed=None):
        """Nothing stands in either console but what is allowed."""
        for page in self.pages():
            loud = [line for line in page.console() if allowed is None or not allowed.search(line)]
            assert not loud, f'{page.name}: console says {loud}'

    def log_of(self, room_id):
        """The messages of the room as the server has them: [(seq, text)], oldest first."""
        token, found, after = self.ann.session()['access_token'], [], 0
        while after is not None:
            page = self.server.call(
                'GET', f'/v1/rooms/{room_id}/messages?limit=200&after_seq={after}', token)
            found += page['events']
            after = page['next_cursor']
        seqs = [event['seq'] for event in found]
        assert seqs == list(range(1, len(seqs) + 1)), f'seq of the server is not dense: {seqs}'
        return [(event['seq'], event['text']) for event in found if event['type'] == 'message']

    def agree(self, said, ordered=True):
        """Both pages show the server's log, whole, in its order, each message once; and it holds
        each text of `said` once. Texts of one sender are in the order of sending."""
        def settled():
            rows = [page.messages() for page in self.pages()]
            return all(len(part) == len(said) and all(row['state'] == 'sent' for row in part)
                       for part in rows)
        harness.wait_until(settled, lambda: f'both pages show {len(said)} messages: '
                           f'{[page.messages() for page in self.pages()]}', 40)
        log = self.log_of(self.room)
        texts = [text for _, text in log]
        assert sorted(texts) == sorted(said), f'server has {texts}, sent were {said}'
        for page in self.pages():
            shown = [(row['seq'], row['text']) for row in page.messages()]
            assert shown == log, f'{page.name} shows {shown}, server has {log}'
            assert page.doubles() == [], f'{page.name} showed twice: {page.doubles()}'
        for sender in {text.split()[0] for text in said} if ordered else ():
            mine = [text for text in said if text.startswith(f'{sender} ')]
            assert [text for text in texts if text in mine] == mine, f'{sender} out of order'


def page_is_served_under_its_policy(world):
    for path in ('/', '/app.js', '/style.css', '/favicon.svg'):
        with harness.urllib.request.urlopen(world.server.url + path, timeout=10) as answer:
            policy = answer.headers['Content-Security-Policy'] or ''
            assert "default-src 'none'" in policy, f'{path}: policy {policy!r}'
            assert "'unsafe-" not in policy, f'{path}: policy {policy!r}'
    world.quiet()


def no_module_writes_markup(world):
    banned = re.compile(r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|'
                        r'new Function|DOMParser|createContextualFragment|srcdoc')
    inline = re.compile(r'<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|https?://')
    for path in sorted((ROOT / 'web').iterdir()):
        text = path.read_text()
        assert not banned.search(text), f'{path.name}: {banned.search(text)}'
        assert path.suffix != '.html' or not inline.search(text), \
            f'{path.name}: {inline.search(text)}'
        assert len(text.encode()) < 60 * 1024, f'{path.name} is too large'


def member_lines(page):
    return [line.text for line in
            page.driver.find_elements('css selector', '[data-testid=line-member]')]


def two_people_sign_up_and_meet_in_a_room(world):
    world.ann.sign_up(PASSWORD)
    world.bob.sign_up(PASSWORD)
    world.room = world.ann.create_room('Harbour')
    world.bob.open_room(world.room)
    for page in world.pages():
        page.watch_doubles()
    # PROTOCOL does not put his name into the event: known when he has said something.
    harness.wait_until(lambda: {'bob joined', 'Someone joined'} & set(member_lines(world.ann)),
                       lambda: f'ann sees that bob joined: {member_lines(world.ann)}')
    world.quiet()


def both_see_what_either_says(world):
    for index in range(3):
        for page in world.pages():
            text = f'{page.name} says {index}'
            page.say(text)
            world.said.append(text)
            world.ann.wait_texts(world.said)
            world.bob.wait_texts(world.said)
    world.agree(world.said)
    world.quiet()


def enter_sends_and_shift_enter_makes_a_line(world):
    box = world.ann.find('message-input')
    box.send_keys('ann writes' + Keys.SHIFT + Keys.ENTER + Keys.NULL + 'two lines')
    assert world.ann.texts() == world.said, 'Shift+Enter sent the message'
    box.send_keys(Keys.ENTER)
    world.said.append('ann writes\ntwo lines')
    world.bob.wait_texts(world.said)
    assert box.get_property('value') == '', 'the box is not empty after sending'
    world.bob.say('   ')
    assert world.bob.texts() == world.said, 'an empty message was sent'


def typing_is_shown_and_ends(world):
    place = world.bob.js('return document.getElementById("typing")')
    box = world.ann.find('message-input')

    def typed_and_shown():  # what comes within 3 s of the last time is not passed on
        box.send_keys('o')
        return place.text == 'ann is typing'
    harness.wait_until(typed_and_shown, lambda: f'typing: {place.text!r}')
    world.said.append(box.get_property('value'))
    box.send_keys(Keys.ENTER)
    harness.wait_until(lambda: place.text == '', lambda: f'typing ends, but {place.text!r}')
    world.bob.wait_texts(world.said)


def markup_stays_text(world):
    for text in ('<img src=x onerror="window.broken=1">', '<script>window.broken=1</script>',
                 '&lt;b&gt; {{1+1}} [x](javascript:window.broken=1)'):
        world.ann.say(text)
        world.said.append(text)
    world.bob.wait_texts(world.said)
    for page in world.pages():
        made = page.js('return document.querySelectorAll("#messages img, #messages script, '
                       '#messages b, #messages a").length')
        assert made == 0, f'{page.name}: text became {made} elements'
        assert page.js('return window.broken') is None, f'{page.name}: text was run'
    world.quiet()


def unread_messages_are_counted_in_the_list(world):
    world.bob.create_room('Elsewhere')
    for index in range(3):
        text = f'ann calls {index}'
        world.ann.say(text)
        world.said.append(text)
    harness.wait_until(lambda: world.bob.find('unread').text == '3', 'bob has 3 unread')
    assert world.bob.driver.title.startswith('(3)'), world.bob.driver.title
    world.bob.open_room(world.room)
    world.bob.wait_texts(world.said)
    unread = '[data-testid=unread]:not([hidden])'
    harness.wait_until(lambda: not world.bob.driver.find_elements('css selector', unread),
                       'nothing is unread any more')
    world.quiet()


def lost_network_leaves_no_gap(world):
    world.network.cut()
    world.bob.wait_state('reconnecting', 'offline')
    for index in range(20):
        world.ann.say(f'ann goes on {index}')
        world.said.append(f'ann goes on {index}')
    for index in range(3):
        world.bob.say(f'bob waits {index}')
        world.said.append(f'bob waits {index}')
    pending = [row['text'] for row in world.bob.messages() if row['state'] == 'pending']
    assert pending == [f'bob waits {index}' for index in range(3)], f'pending: {pending}'
    assert not world.bob.js('return document.getElementById("banner").hidden'), 'no banner'
    world.network.mend()
    world.bob.wait_state('connected', seconds=40)
    world.agree(world.said)
    world.quiet(NETWORK_DOWN)


# Types and sends like a hand, but fast enough that SIGKILL finds messages on their way.
SEND_MANY = """
const [input, name, count] = arguments;
for (let i = 0; i < count; i++) {
    input.value = `${name} in a hurry ${i}`;
    input.dispatchEvent(new InputEvent('input', { bubbles: true }));
    input.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
}
"""


def killed_server_loses_and_repeats_nothing(world):
    for turn in range(2):
        for page in world.pages():
            page.js(SEND_MANY, page.find('message-input'), f'{page.name} {turn}', 10)
            world.said += [f'{page.name} {turn} in a hurry {i}' for i in range(10)]
        world.server.kill()
        for page in world.pages():
            page.wait_state('reconnecting', 'offline')
            page.say(f'{page.name} {turn} into the void')
            world.said.append(f'{page.name} {turn} into the void')
        assert any(row['state'] == 'pending' for row in world.ann.messages()), 'nothing is pending'
        if turn == 0:
            world.ann.screenshot(world.shots / 'desktop-server-gone.png')
        world.server.start()
        for page in world.pages():
            page.wait_state('connected', seconds=40)
        world.agree(world.said)
    world.quiet(NETWORK_DOWN)


def unsent_messages_survive_a_reload(world):
    # The page must not be reloaded from a server that is gone: cut and mended around the reload.
    world.network.cut()
    world.bob.wait_state('reconnecting', 'offline')
    world.bob.say('bob reloads')
    world.said.append('bob reloads')
    world.network.mend()
    world.bob.driver.refresh()
    world.bob.wait_state('connected')
    world.bob.watch_doubles()
    scroll_to_start(world.bob, lambda: len(world.bob.messages()) == len(world.said))
    world.agree(world.said)
    world.quiet(NETWORK_DOWN)


SPOIL_TOKEN = """
const session = JSON.parse(sessionStorage.getItem('damso.session'));
session.access_token = 'none';
sessionStorage.setItem('damso.session', JSON.stringify(session));
"""


def ended_session_asks_for_the_password_and_keeps_the_page(world):
    world.bob.find('message-input').send_keys('half a thought')
    world.bob.js(SPOIL_TOKEN)
    world.network.cut()
    world.bob.wait_state('reconnecting', 'offline')
    world.network.mend()
    world.bob.find('reauth-password').send_keys('quite another one' + Keys.ENTER)
    world.bob.find('reauth-error')
    assert world.bob.state == 'stopped', world.bob.state
    world.bob.find('reauth-password').send_keys(PASSWORD + Keys.ENTER)
    world.bob.wait_state('connected')
    assert world.bob.find('message-input').get_property('value') == 'half a thought'
    world.bob.find('message-input').send_keys(Keys.ENTER)
    world.said.append('half a thought')
    world.agree(world.said, ordered=False)
    world.quiet(re.compile(NETWORK_DOWN.pattern + '|401'))


def scroll_to_start(page, enough):
    """Scrolls up page by page until enough() is true."""
    def scrolled():
        page.js('const s = document.getElementById("scroller"); s.scrollTop = 0;'
                's.dispatchEvent(new Event("scroll"))')
        return enough()
    harness.wait_until(scrolled,
                       lambda: f'{page.name}: the beginning, {len(page.messages())} shown')


# In one script with FIRST_IN_VIEW, so that the page cannot come between the two.
SCROLL_UP = "document.getElementById('scroller').scrollTop = 300;"

# Where the first message in view stands: its text, its distance to the top of the list; and how
# many messages there are.
FIRST_IN_VIEW = """
const rows = document.querySelectorAll('[data-testid=message]');
const box = document.getElementById('scroller').getBoundingClientRect();
for (const row of rows) {
    const place = row.getBoundingClientRect();
    if (place.bottom > box.top + 1) {
        const text = row.querySelector('[data-testid=message-text]').textContent;
        return [text, place.top - box.top, rows.length];
    }
}
"""


def history_comes_by_pages_and_holds_its_place(world):
    token = world.ann.session()['access_token']
    room = world.ann.create_room('Archive')
    texts = [f'page of the archive {index}' for index in range(HISTORY_MESSAGES)]
    for index, text in enumerate(texts):
        world.server.call('POST', f'/v1/rooms/{room}/messages', token, {'text': text},
                          {'Idempotency-Key': f'archive-{index}'})
    world.bob.open_room(room)
    harness.wait_until(lambda: world.bob.texts()[-1:] == texts[-1:], 'the newest message is shown')
    assert len(world.bob.texts()) < HISTORY_MESSAGES, 'all of the history came at once'
    text, place, count = world.bob.js(SCROLL_UP + FIRST_IN_VIEW)
    harness.wait_until(lambda: len(world.bob.texts()) > count, 'a page comes on scrolling up')
    after = world.bob.js(FIRST_IN_VIEW)
    assert after[0] == text and abs(after[1] - place) < 2, f'{text} was at {place}, now {after}'
    scroll_to_start(world.bob, lambda: world.bob.texts() == texts)
    seqs = [row['seq'] for row in world.bob.messages()]
    assert seqs == sorted(set(seqs)), f'seqs {seqs}'
    harness.wait_until(lambda: 'beginning' in world.bob.find('edge').text, 'beginning is marked')
    world.ann.say('one more')
    harness.wait_until(lambda: '1 new message' in world.bob.find('latest').text, 'told of it')
    world.bob.find('latest').click()
    world.bob.wait_texts(texts + ['one more'])
    world.quiet()


def controls_have_names_for_screen_readers(world):
    for page in world.pages():
        for element in page.driver.find_elements('css selector', 'button, input, textarea, a'):
            if element.is_displayed():
                assert element.accessible_name, f'no name: {element.get_attribute("outerHTML")}'


def page_fits_a_phone(world):
    page = world.bob
    page.open_room(world.room)
    page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True})
    page.find('room-back')
    width = page.js('return document.scrollingElement.scrollWidth')
    assert width <= 360, f'the page is {width} px wide'
    place = page.find('message-send').rect
    assert place['x'] + place['width'] <= 360 and place['y'] + place['height'] <= 740, place
    assert place['height'] >= 44 and place['width'] >= 44, f'too small for a thumb: {place}'
    page.say('bob on the road')
    world.said.append('bob on the road')
    harness.wait_until(lambda: page.messages()[-1]['state'] == 'sent', 'sent from the phone')
    page.screenshot(world.shots / 'phone-room.png')
    page.find('room-back').click()
    page.find('room-name')
    assert page.js('return document.scrollingElement.scrollWidth') <= 360
    page.screenshot(world.shots / 'phone-list.png')
    page.driver.back()
    page.find('message-input')
    page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    world.ann.open_room(world.room)
    harness.wait_until(lambda: world.ann.texts()[-1:] == ['bob on the road'], 'ann sees it')
    world.ann.screenshot(world.shots / 'desktop-room.png')
    world.quiet()


def leaving_a_room_takes_it_from_the_list(world):
    def own_rooms():
        return world.bob.driver.find_elements('css selector', '#own-rooms [data-testid=room-item]')
    before = len(own_rooms())
    world.bob.find('room-leave').click()
    world.bob.find('leave-confirm').click()
    harness.wait_until(lambda: len(own_rooms()) == before - 1, 'the room is gone')
    harness.wait_until(lambda: 'bob left' in member_lines(world.ann), 'ann sees that bob left')
    world.quiet()


TESTS = [
    page_is_served_under_its_policy,
    no_module_writes_markup,
    two_people_sign_up_and_meet_in_a_room,
    both_see_what_either_says,
    enter_sends_and_shift_enter_makes_a_line,
    typing_is_shown_and_ends,
    markup_stays_text,
    unread_messages_are_counted_in_the_list,
    lost_network_leaves_no_gap,
    killed_server_loses_and_repeats_nothing,
    unsent_messages_survive_a_reload,
    ended_session_asks_for_the_password_and_keeps_the_page,
    history_comes_by_pages_and_holds_its_place,
    controls_have_names_for_screen_readers,
    page_fits_a_phone,
    leaving_a_room_takes_it_from_the_list,
]


def too_long(_signal, _frame):
    raise TimeoutError('this took too long')


def keep_last_sight(world):
    """What the pages showed when a test failed, if they still answer."""
    signal.alarm(SHOTS_MAX_S)
    try:
        for page in world.harness.pages:
            page.screenshot(world.shots / f'failed-{page.name}.png')
    except Exception as error:
        print(f'no screenshot: {error}')


def run(world):
    """Runs the tests in order. They build on each other: after a failure the rest is skipped."""
    passed, failed = 0, 0
    for number, test in enumerate(TESTS):
        began = time.monotonic()
        try:
            if number == 0:
                world.open()
            test(world)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f'FAIL {test.__name__}')
            print(f'server log:\n{world.harness.server.tail()}')
            keep_last_sight(world)
            failed += 1
            break
        print(f'ok   {test.__name__} ({time.monotonic() - began:.1f} s)', flush=True)
        passed += 1
    skipped = len(TESTS) - passed - failed
    for test in TESTS[passed + failed:]:
        print(f'skip {test.__name__}: it builds on the one that failed')
    return passed, failed, skipped


def main():
    if MISSING is not None:
        print(f'skip all: no {MISSING}')
        print(f'0 passed, 0 failed, {len(TESTS)} skipped')
        return 0
    binary = pathlib.Path(os.environ.get('DAMSOD', ROOT / 'build' / 'damsod')).resolve()
    shots = pathlib.Path(os.environ.get('DAMSO_SHOTS', binary.parent / 'web-shots'))
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.alarm(RUN_MAX_S)
    world = World(str(binary), shots)
    try:
        passed, failed, skipped = run(world)
    finally:
        signal.alarm(0)
        world.harness.close()
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
