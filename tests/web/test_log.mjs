/*
 * test_log.mjs - a room's log and outbox: order, no double, holes seen, keys kept.
 *
 * Method: plain values in and out; one test deals a log's events in many orders, from a seed.
 * Run:    node --test tests/web/test_log.mjs
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from './load.mjs';

const { RoomLog } = await load('log.js');
const { Outbox } = await load('outbox.js');

function message(seq, text = `text ${seq}`, userId = 'u1') {
    return { type: 'message', seq, user_id: userId, username: userId, text };
}

function logOf(base, ...seqs) {
    const log = new RoomLog();
    log.start(base, 'e');
    log.addPage(seqs.map((seq) => message(seq)));
    return log;
}

function shownSeqs(log) {
    return log.rows().filter((row) => row.kind === 'message').map((row) => row.seq);
}

test('an event is held once and rows are in order of seq', () => {
    const log = logOf(0, 3, 1, 2, 3, 1);
    assert.deepEqual(shownSeqs(log), [1, 2, 3]);
    assert.equal(log.add(message(2)), false);
    assert.equal(log.size, 3);
});

test('the first copy of an event stays', () => {
    const log = logOf(0, 1);
    log.add(message(1, 'other text'));
    assert.equal(log.rows()[0].text, 'text 1');
});

test('what is no seq is not taken', () => {
    const log = logOf(0);
    for (const seq of [0, -1, 1.5, '2', null, undefined, 2 ** 60]) {
        assert.equal(log.add(message(seq)), false);
    }
    assert.equal(log.size, 0);
    assert.equal(log.head, 0);
});

test('every way of dealing the same events ends in the same log', () => {
    let seed = 7;
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    for (let round = 0; round < 200; round++) {
        const log = logOf(10);
        const deck = [];
        for (let seq = 1; seq <= 30; seq++) {
            deck.push(seq, ...(random() < 0.3 ? [seq] : []));
        }
        while (deck.length > 0) {
            log.add(message(deck.splice(Math.floor(random() * deck.length), 1)[0]));
            const held = shownSeqs(log);
            assert.deepEqual(held, [...new Set(held)].sort((a, b) => a - b));
            assert.equal(log.missing(), log.head - log.base - held.length);
            assert.equal(log.firstHole() === null, log.missing() === 0);
        }
        assert.equal(log.missing(), 0);
        assert.deepEqual([log.base, log.head, log.size], [0, 30, 30]);
    }
});

test('a hole is seen, named and shown', () => {
    const log = logOf(10, 11, 12, 16);
    assert.equal(log.missing(), 3);
    assert.deepEqual(log.firstHole(), { from: 13, to: 15 });
    assert.deepEqual(log.rows().map((row) => row.kind), ['message', 'message', 'hole', 'message']);
    log.addPage([message(13), message(14), message(15)]);
    assert.equal(log.firstHole(), null);
    assert.deepEqual(shownSeqs(log), [11, 12, 13, 14, 15, 16]);
});

test('a rejoin resumes before the hole and not after the newest event', () => {
    assert.equal(logOf(10, 11, 12, 16).resumeSeq(), 12);
    assert.equal(logOf(10).resumeSeq(), 10);
    assert.equal(logOf(10, 12).resumeSeq(), 10);
});

test('a seq that the server has announced is a hole until it comes', () => {
    const log = logOf(10, 11);
    log.noteHead(13);
    log.noteHead(12);
    log.noteHead(undefined);
    assert.deepEqual(log.firstHole(), { from: 12, to: 13 });
});

test('what the server has no more is no hole, and is taken if it comes after all', () => {
    const log = logOf(10, 11, 15);
    log.skip(12, 14);
    assert.equal(log.missing(), 0);
    assert.equal(log.resumeSeq(), 15);
    assert.deepEqual(log.rows().map((row) => row.kind), ['message', 'message']);
    assert.equal(log.add(message(13)), true);
    assert.equal(log.missing(), 0);
    assert.deepEqual(shownSeqs(log), [11, 13, 15]);
    log.skip(1, 1000);
    assert.equal(log.missing(), 0);
});

test('a page before the window widens it', () => {
    const log = logOf(10, 11);
    log.addPage([message(10), message(9), message(8)]);
    assert.equal(log.base, 7);
    assert.equal(log.missing(), 0);
    assert.deepEqual(shownSeqs(log), [8, 9, 10, 11]);
});

test('edits and deletions change their message, also if they come first', () => {
    const log = logOf(0);
    log.add({ type: 'edited', seq: 3, target_seq: 1, text: 'second' });
    log.add({ type: 'edited', seq: 2, target_seq: 1, text: 'first' });
    log.add({ type: 'deleted', seq: 5, target_seq: 4 });
    log.addPage([message(1), message(4)]);
    const [one, four] = log.rows();
    assert.deepEqual([one.text, one.edited, one.deleted], ['second', true, false]);
    assert.equal(four.deleted, true);
    assert.equal(log.missing(), 0);
    assert.equal(log.lastMessage().seq, 1);
});

test('events of an unknown kind hold their place and have no row', () => {
    const log = logOf(0, 1, 3);
    log.add({ type: 'something new', seq: 2 });
    assert.equal(log.missing(), 0);
    assert.deepEqual(shownSeqs(log), [1, 3]);
});

test('unread are the messages of others after what was read', () => {
    const log = logOf(0, 1, 2, 3);
    log.add(message(4, 'mine', 'me'));
    log.add({ type: 'member', seq: 5, user_id: 'u1', action: 'left' });
    assert.equal(log.unread(1, 'me'), 2);
    assert.equal(log.unread(5, 'me'), 0);
});

test('trimming drops the oldest and opens the way back to them', () => {
    const log = logOf(0, 1, 2, 3, 4, 5);
    log.atStart = true;
    log.trim(2);
    assert.deepEqual(shownSeqs(log), [4, 5]);
    assert.deepEqual([log.base, log.head, log.missing(), log.atStart], [3, 5, 0, false]);
    log.addPage([message(3), message(2)]);
    assert.deepEqual(shownSeqs(log), [2, 3, 4, 5]);
});

test('another log forgets everything of the one before', () => {
    const log = logOf(0, 1, 2);
    log.skip(3, 4);
    log.start(7, 'f');
    assert.deepEqual([log.epoch, log.size, log.base, log.head, log.missing()], ['f', 0, 7, 7, 0]);
});

function sendingOne(text = 'hi', headSeq = 5) {
    const outbox = new Outbox();
    outbox.push(text, 'k1', headSeq, '');
    outbox.next();
    return outbox;
}

test('one message is on its way at a time, in the order typed', () => {
    const outbox = sendingOne();
    outbox.push('there', 'k2', 5, '');
    assert.equal(outbox.next(), null);
    outbox.sent('k1', 6);
    assert.equal(outbox.next().key, 'k2');
});

test('what was on its way when the connection went goes first again, with its key', () => {
    const outbox = sendingOne();
    outbox.push('there', 'k2', 5, '');
    outbox.lost();
    const again = outbox.next();
    assert.deepEqual([again.key, again.text, again.tries], ['k1', 'hi', 2]);
});

test('a message leaves the outbox when the log holds its event, and not before', () => {
    const outbox = sendingOne();
    const log = logOf(5);
    outbox.sent('k1', 6);
    outbox.settle(log);
    assert.equal(outbox.visible().length, 1);
    log.add(message(6, 'hi', 'me'));
    assert.equal(outbox.settle(log), 1);
    assert.equal(outbox.size, 0);
});

test('an own event that comes before its ack does not show twice', () => {
    const outbox = sendingOne();
    outbox.claim(message(6, 'hi', 'me'));
    assert.equal(outbox.visible().length, 0);
    assert.equal(outbox.size, 1);
    outbox.lost();
    assert.equal(outbox.next().key, 'k1');
});

test('an event takes one message from view, and only one that can be it', () => {
    const outbox = sendingOne();
    outbox.push('hi', 'k2', 5, '');
    outbox.claim(message(5, 'hi', 'me'));
    outbox.claim(message(6, 'ho', 'me'));
    assert.equal(outbox.visible().length, 2);
    outbox.claim(message(6, 'hi', 'me'));
    outbox.claim(message(6, 'hi', 'me'));
    outbox.claim(message(7, 'hi', 'me'));
    assert.deepEqual(outbox.visible().map((entry) => entry.key), ['k2']);
});

test('the event of an acked message is not taken for the next one with the same text', () => {
    const outbox = sendingOne();
    outbox.push('hi', 'k2', 5, '');
    outbox.sent('k1', 6);
    outbox.next();
    outbox.claim(message(6, 'hi', 'me'));
    assert.deepEqual(outbox.visible().map((entry) => entry.key), ['k1', 'k2']);
});

test('a guess in a log that was reset is forgotten, and new ones are made by its seqs', () => {
    const outbox = sendingOne();
    outbox.push('acked', 'k2', 5, '');
    outbox.claim(message(6, 'hi', 'me'));
    outbox.sent('k2', 7);
    outbox.reset(1);
    assert.deepEqual(outbox.visible().map((entry) => entry.key), ['k1']);
    outbox.claim(message(2, 'hi', 'me'));
    assert.deepEqual(outbox.visible(), []);
});

test('a wrong guess is corrected by the ack', () => {
    const outbox = sendingOne();
    const log = logOf(5);
    log.add(message(6, 'hi', 'me'));
    outbox.claim(message(6, 'hi', 'me'));
    outbox.sent('k1', 7);
    outbox.settle(log);
    assert.deepEqual(outbox.visible().map((entry) => entry.seq), [7]);
});

test('a refused message lets the next one go and keeps its key for another try', () => {
    const outbox = sendingOne();
    outbox.push('there', 'k2', 5, '');
    outbox.refuse('k1', 'muted');
    assert.equal(outbox.next().key, 'k2');
    outbox.sent('k2', 6);
    assert.equal(outbox.next(), null);
    outbox.retry('k1');
    assert.equal(outbox.next().key, 'k1');
    outbox.discard('k1');
    assert.equal(outbox.entries.some((entry) => entry.key === 'k1'), false);
});

test('a reload keeps key and order, and sends again what was on its way', () => {
    const outbox = sendingOne();
    outbox.push('there', 'k2', 5, '');
    const restored = new Outbox(JSON.parse(JSON.stringify(outbox)));
    assert.equal(restored.next().key, 'k1');
    restored.claim(message(6, 'hi', 'me'));
    assert.deepEqual(restored.visible().map((entry) => entry.key), ['k2']);
});
