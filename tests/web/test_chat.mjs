/*
 * test_chat.mjs - connection.js and chat.js against a server of a few lines, on a simulated clock.
 *
 * Method: every frame is passed by hand, so that a loss can be put between any two of them; timers
 *         run only when the test moves the clock. The last test plays random losses from a seed.
 * Run:    node --test tests/web/test_chat.mjs
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { Connection } = await load('connection.js');
const { Chat } = await load('chat.js');

const ME = { user_id: 'me', username: 'Me' };

class Clock {
    constructor() {
        this.time = 0;
        this.timers = new Map();
        this.lastTimer = 0;
    }

    now() {
        return this.time;
    }

    setTimeout(run, ms) {
        this.timers.set(++this.lastTimer, { at: this.time + ms, run });
        return this.lastTimer;
    }

    clearTimeout(timer) {
        this.timers.delete(timer);
    }

    /* Runs what is due within `ms`, in order of time. */
    pass(ms) {
        const end = this.time + ms;
        for (let ran = 0; ran < 100000; ran++) {
            const due = [...this.timers].filter(([, timer]) => timer.at <= end)
                .sort((a, b) => a[1].at - b[1].at)[0];
            if (due === undefined) {
                break;
            }
            this.timers.delete(due[0]);
            this.time = Math.max(this.time, due[1].at);
            due[1].run();
        }
        this.time = end;
    }
}

/* One page: a chat over a connection over sockets that the test holds the other end of. */
function page({ saved = [], random = () => 1 } = {}) {
    const clock = new Clock();
    const sockets = [];
    const env = {
        now: () => clock.now(),
        setTimeout: (run, ms) => clock.setTimeout(run, ms),
        clearTimeout: (timer) => clock.clearTimeout(timer),
        random,
        socket() {
            const socket = {
                sent: [],
                open: true,
                send: (text) => socket.sent.push(JSON.parse(text)),
                close: () => { socket.open = false; },
            };
            sockets.push(socket);
            return socket;
        },
    };
    const connection = new Connection('ws://test', () => 'token', env);
    const world = { clock, sockets, connection, problems: [], states: [], saved: null };
    let keys = 0;
    world.chat = new Chat({
        connection, me: ME, clock, newKey: () => `key ${++keys}`,
        save: (rooms) => { world.saved = rooms; },
        on: { connection: (state) => world.states.push(state.name), changed() {}, arrived() {},
              rooms() {}, problem: (text) => world.problems.push(text) },
    });
    world.chat.restore(saved);
    world.socket = () => sockets[sockets.length - 1];
    world.push = (frame) => world.socket().onmessage({ data: JSON.stringify(frame) });
    world.last = (type) => world.socket().sent.filter((frame) => frame.type === type).at(-1);
    world.count = (type) => world.socket().sent.filter((frame) => frame.type === type).length;
    world.reply = (type, fields) => world.push({ id: world.last(type).id, ...fields });
    world.drop = (code = 1006) => world.socket().onclose({ code });
    world.accept = () => {
        world.socket().onopen();
        world.reply('connect', { type: 'connected', user_id: 'me', ping_interval: 25 });
    };
    world.joined = (seq, more = {}) => world.reply('join', {
        type: 'joined', room_id: 'r', seq, epoch: 'e', recovered: true, member_count: 2, ...more });
    world.history = (events, more = {}) => world.reply('history', {
        type: 'history', room_id: 'r', events, next_cursor: null, epoch: 'e',
        last_seq: 1000, ...more });
    world.refuse = (type, code, more = {}) => world.reply(type, { type: 'error', code, ...more });
    return world;
}

function message(seq, text = `text ${seq}`, userId = 'you') {
    return { type: 'message', room_id: 'r', seq, user_id: userId, username: userId, text,
             created_at: '2026-11-21T09:30:00.000Z' };
}

/* A page that has joined room r at `seq` and holds nothing of it yet. */
function inRoom(seq, options) {
    const world = page(options);
    world.connection.open();
    world.accept();
    world.room = world.chat.follow('r', 'Room');
    world.joined(seq);
    return world;
}

function seqs(room) {
    return room.log.rows().filter((row) => row.kind === 'message').map((row) => row.seq);
}

function lastSent(world) {
    const { text, idempotency_key: key } = world.last('send');
    return [text, key];
}

test('the token goes in the first frame and nothing before the server has taken it', () => {
    const world = page();
    world.connection.open();
    world.chat.follow('r', 'Room');
    world.socket().onopen();
    assert.deepEqual(world.socket().sent.map((frame) => [frame.type, frame.token]),
        [['connect', 'token']]);
    world.reply('connect', { type: 'connected', user_id: 'me' });
    assert.equal(world.last('join').room_id, 'r');
    assert.equal(world.last('join').after_seq, undefined);
});

test('a lost connection comes back after growing waits, with jitter', () => {
    for (const [chance, waits] of [[1, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]],
                                   [0, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]]]) {
        const world = page({ random: () => chance });
        world.connection.open();
        for (const wait of waits) {
            world.drop();
            const dialled = world.sockets.length;
            world.clock.pass(wait - 1);
            assert.equal(world.sockets.length, dialled, `dialled before ${wait}`);
            world.clock.pass(1);
            assert.equal(world.sockets.length, dialled + 1, `dialled after ${wait}`);
        }
    }
});

test('only a connection that lived a while starts the waits anew', () => {
    const world = page();
    world.connection.open();
    world.accept();
    world.drop();
    world.clock.pass(500);
    world.accept();
    world.drop();
    assert.equal(world.connection.state.retryAt - world.clock.now(), 1000);
    world.clock.pass(1000);
    world.accept();
    world.clock.pass(5000);
    world.drop();
    assert.equal(world.connection.state.retryAt - world.clock.now(), 500);
});

test('closes from 3500 to 3999 end it and all others do not', () => {
    for (const [code, ends] of [[1000, false], [1001, false], [1006, false], [1009, false],
        [3000, false], [3001, false], [3008, false], [3010, false], [3499, false], [3500, true],
        [3501, true], [3503, true], [3507, true], [3999, true], [4000, false]]) {
        const world = page();
        world.connection.open();
        world.accept();
        world.drop(code);
        world.clock.pass(3600000);
        assert.equal(world.sockets.length === 1, ends, `close ${code}`);
        assert.equal(world.states.at(-1) === 'stopped', ends, `close ${code}`);
        if (ends) {
            world.connection.open();
            assert.equal(world.sockets.length, 2, 'a new sign-in opens it again');
        }
    }
});

test('a refused token ends it like its close would', () => {
    for (const [code, close] of [['unauthorized', 3500], ['token_expired', 3501]]) {
        const world = page();
        world.connection.open();
        world.socket().onopen();
        world.refuse('connect', code);
        assert.deepEqual([world.connection.state.name, world.connection.state.closeCode],
            ['stopped', close]);
    }
});

test('draining is honoured: back after the time the server names', () => {
    const world = page();
    world.connection.open();
    world.accept();
    world.push({ type: 'draining', reconnect_in: 7000 });
    world.clock.pass(100);
    world.drop(3001);
    world.clock.pass(6899);
    assert.equal(world.sockets.length, 1);
    world.clock.pass(1);
    assert.equal(world.sockets.length, 2);
});

test('a silent connection is given up, and its late events reach nobody', () => {
    const world = inRoom(5);
    const old = world.socket();
    world.clock.pass(25000);
    assert.equal(world.count('ping'), 1);
    world.clock.pass(8000);
    assert.equal(world.connection.connected, false);
    assert.equal(old.open, false);
    old.onmessage({ data: JSON.stringify(message(6)) });
    old.onclose({ code: 3500 });
    assert.deepEqual(seqs(world.room), []);
    assert.equal(world.connection.state.name, 'waiting');
});

test('a connection that answers its pings stays', () => {
    const world = inRoom(5);
    for (let i = 1; i <= 10; i++) {
        world.clock.pass(25000);
        assert.equal(world.count('ping'), i);
        world.reply('ping', { type: 'pong' });
    }
    assert.equal(world.sockets.length, 1);
});

test('a dial that never opens is given up', () => {
    const world = page();
    world.connection.open();
    world.clock.pass(10000);
    assert.equal(world.states.at(-1), 'waiting');
});

test('events that follow joined in the same breath are all taken', () => {
    const world = page();
    world.connection.open();
    world.accept();
    world.room = world.chat.follow('r', 'Room');
    world.joined(5);
    world.push(message(6));
    world.push(message(7));
    assert.deepEqual(seqs(world.room), [6, 7]);
});

test('a rejoin names the last seq before any hole, and the epoch', () => {
    const world = inRoom(5);
    world.push(message(6));
    world.push(message(9));
    world.drop();
    world.clock.pass(500);
    world.accept();
    const join = world.last('join');
    assert.deepEqual([join.after_seq, join.epoch], [6, 'e']);
    world.joined(9);
    for (const seq of [7, 8, 9]) {
        world.push(message(seq));
    }
    assert.deepEqual(seqs(world.room), [6, 7, 8, 9]);
    world.clock.pass(5000);
    assert.equal(world.count('history'), 0);
});

test('what the server did not recover is fetched by history, page by page', () => {
    const world = inRoom(5);
    world.push(message(6));
    world.drop();
    world.clock.pass(500);
    world.accept();
    world.joined(306, { recovered: false });
    world.push(message(307));
    world.clock.pass(0);
    let ask = world.last('history');
    assert.deepEqual([ask.after_seq, ask.before_seq, ask.limit], [6, undefined, 200]);
    world.history(Array.from({ length: 200 }, (_, i) => message(7 + i)),
        { next_cursor: 206, last_seq: 307 });
    ask = world.last('history');
    assert.deepEqual([ask.after_seq, ask.limit], [206, 100]);
    world.history(Array.from({ length: 100 }, (_, i) => message(207 + i)),
        { next_cursor: 306, last_seq: 307 });
    assert.deepEqual(seqs(world.room), Array.from({ length: 302 }, (_, i) => 6 + i));
    assert.equal(world.count('history'), 2);
});

test('a room that is too far behind begins anew at its end, with the rest by scrolling', () => {
    const world = inRoom(5);
    world.push(message(6));
    world.drop();
    world.clock.pass(500);
    world.accept();
    world.joined(50000, { recovered: false });
    world.clock.pass(0);
    assert.deepEqual([world.last('history').before_seq, world.last('history').limit], [50001, 50]);
    world.history(Array.from({ length: 50 }, (_, i) => message(50000 - i)), { next_cursor: 49951 });
    assert.equal(world.room.log.missing(), 0);
    assert.deepEqual([seqs(world.room)[0], seqs(world.room).at(-1)], [49951, 50000]);
    world.chat.older(world.room);
    assert.equal(world.last('history').before_seq, 49951);
});

test('gap is fetched while live events go on', () => {
    const world = inRoom(5);
    world.push({ type: 'gap', room_id: 'r', from_seq: 6, to_seq: 8 });
    world.push(message(9));
    world.clock.pass(0);
    assert.deepEqual([world.last('history').after_seq, world.last('history').limit], [5, 3]);
    world.history([message(6), message(7), message(8)], { next_cursor: 8, last_seq: 9 });
    assert.deepEqual(seqs(world.room), [6, 7, 8, 9]);
});

test('a hole without announcement is fetched too, in a room that never rests', () => {
    const world = inRoom(5);
    world.push(message(7));
    for (let seq = 8; seq < 18; seq++) {
        world.clock.pass(100);
        world.push(message(seq));
    }
    assert.equal(world.last('history').after_seq, 5);
});

test('what the store has dropped is not asked for again and again', () => {
    const world = inRoom(5);
    world.push({ type: 'gap', room_id: 'r', from_seq: 6, to_seq: 8 });
    world.clock.pass(0);
    world.history([message(8)], { next_cursor: null, last_seq: 8 });
    world.clock.pass(20000);
    assert.equal(world.count('history'), 1);
    assert.equal(world.room.log.missing(), 0);
});

test('an event that exists but is not there yet is asked for again', () => {
    const world = inRoom(5);
    world.chat.send(world.room, 'hi');
    world.reply('send', { type: 'ack', room_id: 'r', seq: 6 });
    world.clock.pass(400);
    world.history([], { last_seq: 5 });
    assert.equal(world.room.log.missing(), 1);
    world.clock.pass(1000);
    assert.equal(world.count('history'), 2);
    world.history([message(6, 'hi', 'me')], { last_seq: 6 });
    assert.deepEqual(seqs(world.room), [6]);
    assert.equal(world.room.outbox.size, 0);
});

test('another epoch empties the room, and keeps what is unsent', () => {
    const world = inRoom(5);
    world.push(message(6));
    world.chat.send(world.room, 'hi');
    world.drop();
    world.clock.pass(500);
    world.accept();
    world.joined(2, { epoch: 'f', recovered: false });
    assert.deepEqual(seqs(world.room), []);
    assert.equal(world.room.wasReset, true);
    assert.equal(world.last('send').idempotency_key, 'key 1');
    world.push(message(3, 'hi', 'me'));
    assert.deepEqual(world.room.outbox.visible(), []);
    world.reply('send', { type: 'ack', room_id: 'r', seq: 3 });
    assert.deepEqual(seqs(world.room), [3]);
    assert.equal(world.room.outbox.size, 0);
});

test('a message is sent again with the same key, whether or not it had arrived', () => {
    const world = inRoom(5);
    world.chat.send(world.room, 'one');
    world.chat.send(world.room, 'two');
    assert.equal(world.count('send'), 1);
    world.drop();
    world.clock.pass(500);
    world.accept();
    world.joined(6);
    world.push(message(6, 'one', 'me'));
    assert.deepEqual(world.room.outbox.visible().map((entry) => entry.text), ['two']);
    assert.deepEqual(lastSent(world), ['one', 'key 1']);
    world.reply('send', { type: 'ack', room_id: 'r', seq: 6, duplicate: true });
    assert.deepEqual(lastSent(world), ['two', 'key 2']);
    world.reply('send', { type: 'ack', room_id: 'r', seq: 7 });
    world.push(message(7, 'two', 'me'));
    assert.equal(world.room.outbox.size, 0);
    assert.deepEqual(seqs(world.room), [6, 7]);
});

test('a message refused for now is sent later, and keeps its place', () => {
    const world = inRoom(5);
    world.chat.send(world.room, 'one');
    world.chat.send(world.room, 'two');
    world.refuse('send', 'rate_limited', { retry_after: 3 });
    world.clock.pass(2999);
    assert.equal(world.count('send'), 1);
    world.clock.pass(1);
    assert.deepEqual([world.count('send'), world.last('send').text], [2, 'one']);
});

test('a message refused for good says why, and the next one goes', () => {
    const world = inRoom(5);
    world.chat.send(world.room, 'one');
    world.chat.send(world.room, 'two');
    world.refuse('send', 'muted');
    assert.equal(world.last('send').text, 'two');
    const [entry] = world.room.outbox.entries;
    assert.deepEqual([entry.state, entry.reason], ['failed', 'You are muted in this room.']);
});

test('a message that made the server hang up is not sent again by itself', () => {
    const world = inRoom(5);
    world.chat.send(world.room, 'poison');
    world.drop(1009);
    world.clock.pass(500);
    world.accept();
    world.joined(5);
    assert.equal(world.count('send'), 0);
    assert.equal(world.room.outbox.entries[0].state, 'failed');
});

test('a message that cannot be a frame is not taken', () => {
    const world = inRoom(5);
    assert.equal(world.chat.send(world.room, 'x'.repeat(70000)), false);
    assert.equal(world.chat.send(world.room, '\u0001'.repeat(20000)), false);
    assert.equal(world.chat.send(world.room, 'half a pair \ud83d'), true);
    assert.equal(world.last('send').text, 'half a pair \ufffd');
});

test('a reload resumes where it was read, and sends what was unsent', () => {
    const before = inRoom(5);
    before.push(message(6));
    before.chat.read(before.room);
    before.chat.send(before.room, 'unsent');
    const world = page({ saved: JSON.parse(JSON.stringify(before.saved)) });
    world.connection.open();
    world.accept();
    assert.deepEqual([world.last('join').after_seq, world.last('join').epoch], [6, 'e']);
    world.joined(7);
    world.push(message(7));
    const room = world.chat.rooms.get('r');
    assert.deepEqual(world.chat.unread(room), { count: 1, more: false });
    assert.equal(world.last('send').idempotency_key, 'key 1');
});

test('a join refused for good leaves the room, and one refused for now does not', () => {
    const world = page();
    world.connection.open();
    world.accept();
    world.chat.follow('r', 'Room');
    world.refuse('join', 'unavailable');
    world.clock.pass(2000);
    assert.equal(world.count('join'), 2);
    world.refuse('join', 'banned');
    assert.equal(world.chat.rooms.size, 0);
    assert.deepEqual(world.problems, ['Room: You are banned from this room.']);
});

test('an old kick in the history does not throw anybody out, a new one does', () => {
    const world = inRoom(5);
    const kick = (seq) => ({ type: 'member', room_id: 'r', seq, user_id: 'me', action: 'kicked' });
    world.drop();
    world.clock.pass(500);
    world.accept();
    world.joined(6);
    world.push(kick(6));
    assert.equal(world.chat.rooms.size, 1);
    world.push(kick(7));
    assert.equal(world.chat.rooms.size, 0);
});

test('typing ends with the message, with time, and with the connection', () => {
    const world = inRoom(5);
    const typing = { type: 'typing', room_id: 'r', user_id: 'you' };
    world.push({ ...typing, user_id: 'me' });
    assert.equal(world.room.typing.size, 0);
    world.push(typing);
    world.push(message(6));
    assert.equal(world.room.typing.size, 0);
    world.push(typing);
    world.clock.pass(5000);
    assert.equal(world.room.typing.size, 0);
    world.push(typing);
    world.drop();
    assert.equal(world.room.typing.size, 0);
});

test('typing goes out at most every three seconds', () => {
    const world = inRoom(5);
    for (let i = 0; i < 70; i++) {
        world.chat.type(world.room);
        world.clock.pass(100);
        if (i % 5 === 0) {
            world.chat.send(world.room, 'a short one'); /* must not make the next one too early */
        }
    }
    assert.equal(world.count('typing'), 3);
});

test('a room in the background keeps a bounded part of its log', () => {
    const world = inRoom(0);
    for (let seq = 1; seq <= 3000; seq++) {
        world.push(message(seq));
    }
    assert.ok(world.room.log.size <= 1050, `${world.room.log.size} events`);
    assert.equal(world.room.log.missing(), 0);
    assert.equal(world.chat.unread(world.room).more, true);
});

/* A server with one room, as PROTOCOL has it, that may lose the connection after any frame. */
class TinyServer {
    constructor(random) {
        this.random = random;
        this.events = [];
        this.keys = new Map();
        this.live = false;
    }

    append(text, userId) {
        const event = message(this.events.length + 1, text, userId);
        this.events.push(event);
        return event;
    }

    /* The frames that answer `frame`, in order. */
    answer(frame) {
        const head = this.events.length;
        const base = { id: frame.id, room_id: 'r', epoch: 'e' };
        if (frame.type === 'connect') {
            return [{ ...base, type: 'connected', user_id: 'me' }];
        }
        if (frame.type === 'join') {
            this.live = true;
            const recovered = frame.after_seq !== undefined && head - frame.after_seq <= 10;
            return [{ ...base, type: 'joined', seq: head, recovered, member_count: 2 },
                    ...(recovered ? this.events.slice(frame.after_seq) : [])];
        }
        if (frame.type === 'history') {
            const events = frame.after_seq !== undefined
                ? this.events.slice(frame.after_seq, frame.after_seq + frame.limit)
                : this.events.slice(0, frame.before_seq - 1).slice(-frame.limit).reverse();
            const last = events.length === 0 ? null : events.at(-1).seq;
            const end = frame.after_seq !== undefined ? head : 1;
            return [{ ...base, type: 'history', events, next_cursor: last === end ? null : last,
                      last_seq: head }];
        }
        if (frame.type === 'send') {
            const known = this.keys.get(frame.idempotency_key);
            if (known !== undefined) {
                return [{ ...base, type: 'ack', seq: known, duplicate: true }];
            }
            const event = this.append(frame.text, 'me');
            this.keys.set(frame.idempotency_key, event.seq);
            const ack = { ...base, type: 'ack', seq: event.seq };
            return this.random() < 0.5 ? [ack, event] : [event, ack];
        }
        return [];
    }
}

test('random losses between any two frames leave neither gap nor double', () => {
    for (let seed = 1; seed <= 150; seed++) {
        let state = seed * 7919;
        const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
        const server = new TinyServer(random);
        const world = page({ random });
        for (let i = 0; i < 5; i++) {
            server.append(`before ${i}`, 'you');
        }
        let handled = 0;
        let socket = null;
        const run = (lossy) => {
            for (let turn = 0; turn < 300; turn++) {
                if (socket !== world.socket()) {
                    socket = world.socket();
                    handled = 0;
                    server.live = false;
                    socket.onopen();
                }
                if (handled < socket.sent.length && socket === world.socket()) {
                    for (const frame of server.answer(socket.sent[handled++])) {
                        if (lossy && random() < 0.04) {
                            socket.onclose({ code: 1006 });
                            break;
                        }
                        socket.onmessage({ data: JSON.stringify(frame) });
                    }
                } else {
                    world.clock.pass(50);
                }
                if (lossy && random() < 0.1) {
                    const event = server.append(`theirs ${server.events.length}`, 'you');
                    if (server.live && world.connection.connected && random() < 0.8) {
                        world.push(event); /* else it is lost with a slow reader's */
                    }
                }
                if (lossy && random() < 0.1 && world.room.outbox.size < 50) {
                    world.chat.send(world.room, `mine ${turn}`);
                }
                const shown = world.room.log.rows().filter((row) => row.kind === 'message')
                    .map((row) => row.text)
                    .concat(world.room.outbox.visible().map((entry) => entry.text));
                assert.equal(new Set(shown).size, shown.length, `seed ${seed}: shown twice`);
            }
        };
        world.connection.open();
        world.room = world.chat.follow('r', 'Room');
        world.chat.show(world.room);
        run(true);
        server.append('the end', 'you');
        world.connection.retryNow();
        run(false);
        world.drop();
        world.connection.retryNow();
        run(false);
        assert.deepEqual(world.room.log.rows().map((row) => [row.seq, row.text]),
            server.events.map((event) => [event.seq, event.text]), `seed ${seed}`);
        assert.equal(world.room.outbox.size, 0, `seed ${seed}: unsent left`);
    }
});
