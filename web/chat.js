/*
 * chat.js - the rooms this page follows, kept complete over lost connections.
 *
 * Walk:       from app.js (what the user does) and connection.js (what the server pushes); to
 *             log.js and outbox.js, and by `on` to the views.
 * Ownership:  owns the rooms; a room owns its log and its outbox.
 * Units:      milliseconds; seq as the server counts it.
 *
 * How a room stays complete: a (re)join passes the last seq before any hole, and the server sends
 * what came after it. Where it will not (recovered:false, gap) or does not, log.js shows a hole,
 * and heal() fetches it by history. A window that would grow beyond WINDOW_MAX by that is begun
 * anew at the newest page, and the rest comes by scrolling up: either way nothing is left out.
 *
 * Invariants: (C1) a room's events reach its log only after `joined` has said where it stands.
 *             (C2) a message is sent again with the key of its first time, in the order typed.
 *             (C3) an event counts as read only while its room is open and its end in view.
 *
 * No DOM: tests/web/test_chat.mjs runs it under node.
 */
import { Outbox } from './outbox.js';
import { RoomLog } from './log.js';

const PAGE_EVENTS = 50;      /* a page on scrolling up */
const HEAL_PAGE_EVENTS = 200; /* what PROTOCOL allows at most */
const WINDOW_MAX = 2000;     /* events a room that was away fetches before it begins anew */
const WINDOW_KEPT = 1000;    /* events kept of a room whose end is in view, or that is not open */
const WINDOW_OPEN_MAX = 5000; /* events kept while the user reads further up */
const HEAL_TRIES_MAX = 10;
const HEAL_DELAY_MS = 400;   /* for what is still in flight to arrive by itself */
const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 30000;
const TYPING_EVERY_MS = 3200; /* the server drops what comes within 3 s of the one before */
const TYPING_SHOWN_MS = 5000;
const UNSENT_MAX = 100;
const ROOMS_MAX = 200;
const NAMES_MAX = 10000;
const FRAME_BYTES_MAX = 60000; /* PROTOCOL allows 65536 by default, all of the frame */

/* Closes that the frame just sent has caused: to send it again would cause them again. */
const CLOSED_BY_FRAME = new Set([1002, 1003, 1007, 1009, 3507]);
const REFUSED_FOR_NOW = new Set(['rate_limited', 'unavailable', 'internal', 'timeout']);

/* The connection is over, or about to be: what failed by it is done again on the next one. */
const ENDED = new Set(['connection_lost', 'token_expired', 'unauthorized']);

const REASONS = {
    muted: 'You are muted in this room.',
    banned: 'You are banned from this room.',
    not_a_member: 'You are not a member of this room.',
    forbidden: 'You may not do this here.',
    not_found: 'This room does not exist any more.',
    room_full: 'This room is full.',
    too_large: 'The message is too long.',
};

/* What to tell the user of an error, from its code where the server's text would not help. */
export function reasonOf(error) {
    return REASONS[error.code] || error.message || 'Something went wrong.';
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

class Room {
    constructor(saved) {
        this.id = saved.room_id;
        this.name = saved.name || saved.room_id;
        this.readSeq = Number.isSafeInteger(saved.read_seq) ? saved.read_seq : null;
        this.log = new RoomLog();
        this.outbox = new Outbox(saved.outbox);
        this.memberCount = null;
        this.joined = false;
        this.joining = false;
        this.liveAfter = null; /* events above it happen now, those up to it have happened */
        this.typing = new Map(); /* user_id -> timer */
        this.typedAt = null;
        this.healing = false;
        this.healTries = 0;
        this.paging = false;
        this.draft = '';
        this.wasReset = false;
        this.timers = new Map();
        if (saved.epoch && this.readSeq !== null) {
            this.log.start(this.readSeq, saved.epoch);
        }
    }

    /* For sessionStorage. */
    toJSON() {
        return {
            room_id: this.id, name: this.name, read_seq: this.readSeq,
            epoch: this.log.epoch, outbox: this.outbox.toJSON(),
        };
    }
}

export class Chat {
    /* `me` is {user_id, username}; `newKey()` gives an unguessable idempotency key; `save(rooms)`
     * keeps them over a reload. `on`: connection(state), changed(room), arrived(room, event),
     * rooms(), problem(text). */
    constructor({ connection, me, newKey, save, on, clock }) {
        this.connection = connection;
        this.me = me;
        this.newKey = newKey;
        this.save = save;
        this.on = on;
        this.clock = clock;
        this.rooms = new Map();
        this.names = new Map([[me.user_id, me.username]]);
        this.open = null;
        connection.handlers.state = (state) => this.#state(state);
        connection.handlers.ready = () => this.#ready();
        connection.handlers.push = (frame) => this.#pushed(frame);
    }

    restore(savedRooms) {
        for (const saved of savedRooms.slice(0, ROOMS_MAX)) {
            this.rooms.set(saved.room_id, new Room(saved));
        }
    }

    /* Follows the room from now on; returns it, or null if there are too many. */
    follow(roomId, name) {
        let room = this.rooms.get(roomId);
        if (room !== undefined) {
            room.name = name || room.name;
            return room;
        }
        if (this.rooms.size >= ROOMS_MAX) {
            this.on.problem(`You can follow at most ${ROOMS_MAX} rooms here.`);
            return null;
        }
        room = new Room({ room_id: roomId, name });
        this.rooms.set(roomId, room);
        this.#join(room);
        this.#save();
        this.on.rooms();
        return room;
    }

    unfollow(room) {
        if (this.rooms.get(room.id) !== room) {
            return;
        }
        this.connection.post({ type: 'leave', room_id: room.id });
        for (const timer of [...room.timers.values(), ...room.typing.values()]) {
            this.clock.clearTimeout(timer);
        }
        room.timers.clear();
        room.typing.clear();
        room.joined = false;
        this.rooms.delete(room.id);
        this.open = this.open === room ? null : this.open;
        this.#save();
        this.on.rooms();
    }

    /* The room is what the user looks at now; null for none. */
    show(room) {
        this.open = room;
        if (room !== null) {
            this.#firstPage(room);
        }
    }

    /* The end of the room is in view (C3). */
    read(room) {
        if (room.log.epoch === null) {
            return;
        }
        room.log.trim(WINDOW_KEPT);
        if (room.readSeq !== room.log.head) {
            room.readSeq = room.log.head;
            this.#save();
            this.on.rooms();
        }
    }

    /* {count, more}: unread messages; `more` if there are others that this page does not hold. */
    unread(room) {
        if (room.readSeq === null) {
            return { count: 0, more: false };
        }
        return {
            count: room.log.unread(room.readSeq, this.me.user_id),
            more: room.log.base > room.readSeq || room.log.missing() > 0,
        };
    }

    /* Takes a message from the user. False if it cannot be taken; the user is told why. */
    send(room, typed) {
        const bytes = encoder.encode(typed);
        if (room.outbox.size >= UNSENT_MAX) {
            this.on.problem('Too many messages are waiting to be sent.');
            return false;
        }
        const text = decoder.decode(bytes); /* a lone surrogate is not UTF-8, and becomes U+FFFD */
        if (encoder.encode(JSON.stringify(text)).length > FRAME_BYTES_MAX) {
            this.on.problem('The message is too long.');
            return false;
        }
        const at = new Date(this.clock.now()).toISOString();
        room.outbox.push(text, this.newKey(), room.log.head, at);
        this.#save();
        this.#pump(room);
        this.on.changed(room);
        return true;
    }

    retry(room, key) {
        room.outbox.retry(key);
        this.#save();
        this.#pump(room);
        this.on.changed(room);
    }

    discard(room, key) {
        room.outbox.discard(key);
        this.#save();
        this.on.changed(room);
    }

    /* The user is typing: says so, not oftener than the server would pass it on. */
    type(room) {
        const now = this.clock.now();
        if (room.joined && (room.typedAt === null || now - room.typedAt >= TYPING_EVERY_MS)) {
            room.typedAt = now;
            this.connection.post({ type: 'typing', room_id: room.id });
        }
    }

    /* One more page of what lies before the window. */
    older(room) {
        const log = room.log;
        if (room.paging || !room.joined || log.atStart || log.epoch === null) {
            return;
        }
        if (log.base < 1) {
            log.atStart = true;
            this.on.changed(room);
            return;
        }
        room.paging = true;
        this.on.changed(room);
        this.connection.request({
            type: 'history', room_id: room.id, before_seq: log.base + 1, limit: PAGE_EVENTS,
        }, (error, page) => {
            room.paging = false;
            if (error === null && page.epoch === log.epoch) {
                this.#take(room, page.events);
                log.atStart = page.next_cursor === null || page.events.length === 0;
            }
            this.on.changed(room);
        });
    }

    /* The name of a user, or null as long as nothing of theirs has been seen. */
    nameOf(userId) {
        return this.names.get(userId) || null;
    }

    #state(state) {
        if (state.name !== 'connected') {
            this.#lost();
        }
        this.on.connection(state);
    }

    /* The connection is gone; ready() follows when it is back. */
    #lost() {
        for (const room of this.rooms.values()) {
            room.joined = false;
            room.joining = false;
            room.outbox.lost();
            for (const userId of [...room.typing.keys()]) {
                this.#stopTyping(room, userId);
            }
            this.on.changed(room);
        }
    }

    #ready() {
        for (const room of this.rooms.values()) {
            this.#join(room);
        }
    }

    #join(room) {
        if (!this.connection.connected || room.joining || room.joined) {
            return;
        }
        const log = room.log;
        const resume = log.epoch === null ? {} : { after_seq: log.resumeSeq(), epoch: log.epoch };
        room.joining = true;
        this.connection.request({ type: 'join', room_id: room.id, ...resume }, (error, reply) => {
            room.joining = false;
            if (this.rooms.get(room.id) !== room) {
                return;
            }
            if (error !== null) {
                this.#joinFailed(room, error);
            } else {
                this.#joined(room, reply);
            }
        });
    }

    #joined(room, reply) {
        const log = room.log;
        const known = log.epoch === reply.epoch;
        room.joined = true;
        room.liveAfter = reply.seq;
        room.memberCount = reply.member_count === undefined ? null : reply.member_count;
        if (known) {
            log.noteHead(reply.seq);
            this.#healSoon(room, reply.recovered === false ? 0 : HEAL_DELAY_MS);
        } else {
            this.#restart(room, reply.seq, reply.epoch);
        }
        this.#save();
        this.#pump(room);
        if (this.open === room) {
            this.#firstPage(room);
        }
        this.on.changed(room);
        this.on.rooms();
    }

    #joinFailed(room, error) {
        if (ENDED.has(error.code)) {
            return; /* ready() joins again */
        }
        if (REFUSED_FOR_NOW.has(error.code)) {
            const wait = error.retryAfter === null ? RETRY_FIRST_MS * 2 : error.retryAfter * 1000;
            this.#after(room, 'join', wait, () => this.#join(room));
            return;
        }
        this.on.problem(`${room.name}: ${reasonOf(error)}`);
        this.unfollow(room);
    }

    /* Another log than the one held (or none was held): begins after `seq`. */
    #restart(room, seq, epoch) {
        room.wasReset = room.log.epoch !== null && room.log.epoch !== epoch;
        if (room.wasReset || room.readSeq === null) {
            room.readSeq = seq;
        }
        if (room.wasReset) {
            room.outbox.reset(seq);
        }
        room.log.start(seq, epoch);
    }

    #firstPage(room) {
        if (room.log.size < PAGE_EVENTS) {
            this.older(room);
        }
    }

    #pushed(frame) {
        const room = this.rooms.get(frame.room_id);
        if (room === undefined || !room.joined) {
            return; /* C1; of a room that was just left */
        }
        if (frame.type === 'typing') {
            this.#typing(room, frame);
        } else if (frame.type === 'gap') {
            room.log.noteHead(frame.to_seq);
            this.#healSoon(room, 0);
        } else if (frame.seq !== undefined) {
            this.#event(room, frame);
        }
    }

    #event(room, event) {
        if (this.#take(room, [event]) === 0) {
            return;
        }
        this.#stopTyping(room, event.user_id);
        if (event.type === 'member') {
            this.#membership(room, event);
        }
        this.#healSoon(room, HEAL_DELAY_MS);
        const kept = this.open === room ? WINDOW_OPEN_MAX : WINDOW_KEPT;
        if (room.log.size > kept + PAGE_EVENTS) {
            room.log.trim(kept);
        }
        this.on.changed(room);
        this.on.arrived(room, event);
    }

    /* Puts events into the log, learns names from them, and matches own ones with the outbox. */
    #take(room, events) {
        const fresh = room.log.addPage(events);
        for (const event of events) {
            if (typeof event.username === 'string' && this.names.size < NAMES_MAX) {
                this.names.set(event.user_id, event.username);
            }
            if (event.type === 'message' && event.user_id === this.me.user_id) {
                room.outbox.claim(event);
            }
        }
        if (room.outbox.settle(room.log) > 0) {
            this.#save();
        }
        return fresh;
    }

    #membership(room, event) {
        if (event.seq <= room.liveAfter) {
            return;
        }
        const gone = event.action === 'left' || event.action === 'kicked' ||
            event.action === 'banned';
        if (room.memberCount !== null) {
            room.memberCount += gone ? -1 : Number(event.action === 'joined');
        }
        if (gone && event.user_id === this.me.user_id) {
            if (event.action !== 'left') {
                const how = event.action === 'banned' ? 'banned' : 'removed';
                this.on.problem(`You were ${how} from ${room.name}.`);
            }
            this.unfollow(room);
        }
    }

    #typing(room, frame) {
        if (frame.user_id === this.me.user_id) {
            return;
        }
        if (typeof frame.username === 'string' && this.names.size < NAMES_MAX) {
            this.names.set(frame.user_id, frame.username);
        }
        if (room.typing.has(frame.user_id)) {
            this.clock.clearTimeout(room.typing.get(frame.user_id));
        }
        room.typing.set(frame.user_id, this.clock.setTimeout(() => {
            this.#stopTyping(room, frame.user_id);
            this.on.changed(room);
        }, TYPING_SHOWN_MS));
        this.on.changed(room);
    }

    #stopTyping(room, userId) {
        if (room.typing.has(userId)) {
            this.clock.clearTimeout(room.typing.get(userId));
            room.typing.delete(userId);
        }
    }

    /* Sends the next message of the outbox, if none is on its way (C2). */
    #pump(room) {
        if (!room.joined || room.timers.has('send')) {
            return;
        }
        const entry = room.outbox.next();
        if (entry === null) {
            return;
        }
        this.#save();
        this.connection.request({
            type: 'send', room_id: room.id, text: entry.text, idempotency_key: entry.key,
        }, (error, ack) => {
            if (error === null) {
                room.outbox.sent(entry.key, ack.seq);
                room.outbox.settle(room.log);
                room.log.noteHead(ack.seq);
                this.#healSoon(room, HEAL_DELAY_MS); /* its push may be lost with a slow reader's */
            } else {
                this.#sendFailed(room, entry, error);
            }
            this.#save();
            this.#pump(room);
            this.on.changed(room);
        }, 0);
    }

    #sendFailed(room, entry, error) {
        if (error.code === 'connection_lost') {
            if (CLOSED_BY_FRAME.has(error.closeCode)) {
                room.outbox.refuse(entry.key, 'The server does not accept this message.');
            }
            return; /* else lost() queues it again */
        }
        if (ENDED.has(error.code)) {
            room.outbox.later(entry.key, null);
        } else if (REFUSED_FOR_NOW.has(error.code)) {
            const step = Math.min(RETRY_FIRST_MS * 2 ** (entry.tries - 1), RETRY_MAX_MS);
            const wait = error.retryAfter === null ? step : error.retryAfter * 1000;
            room.outbox.later(entry.key, 'Waiting for the server.');
            this.#after(room, 'send', wait, () => this.#pump(room));
        } else {
            room.outbox.refuse(entry.key, reasonOf(error));
        }
    }

    #healSoon(room, delayMs) {
        if (room.log.missing() === 0 || room.healing) {
            return;
        }
        if (delayMs === 0 || !room.timers.has('heal')) { /* a busy room must not put it off */
            room.healTries = 0;
            this.#after(room, 'heal', delayMs, () => this.#heal(room));
        }
    }

    /* Fetches the lowest hole, one page at a time, until there is none. */
    #heal(room) {
        const log = room.log;
        if (log.missing() > WINDOW_MAX) {
            this.#restart(room, log.head, log.epoch);
            this.#firstPage(room);
            this.on.changed(room);
            return;
        }
        const hole = log.firstHole();
        if (hole === null || !room.joined || room.healing) {
            return;
        }
        room.healing = true;
        this.connection.request({
            type: 'history', room_id: room.id, after_seq: hole.from - 1,
            limit: Math.min(hole.to - hole.from + 1, HEAL_PAGE_EVENTS),
        }, (error, page) => {
            room.healing = false;
            if (error === null && page.epoch === log.epoch) {
                this.#healed(room, hole, page);
            } else if (error === null || error.code !== 'connection_lost') {
                this.#healLater(room);
            }
            this.on.changed(room);
        });
    }

    /* What the page leaves out below its own end is not on the server any more. What lies above
     * `last_seq` is there (it was acked or announced) but has not come to where we asked. */
    #healed(room, hole, page) {
        const log = room.log;
        const before = log.missing();
        this.#take(room, page.events);
        const last = page.events.reduce((highest, event) => Math.max(highest, event.seq), 0);
        const end = page.events.length > 0 && page.next_cursor !== null ? last : page.last_seq;
        log.skip(hole.from, Math.min(hole.to, end));
        if (log.missing() < before) {
            room.healTries = 0;
            this.#heal(room);
        } else {
            this.#healLater(room);
        }
    }

    #healLater(room) {
        room.healTries++;
        if (room.healTries < HEAL_TRIES_MAX) {
            this.#after(room, 'heal', RETRY_FIRST_MS, () => this.#heal(room));
        }
    }

    #after(room, name, ms, run) {
        if (room.timers.has(name)) {
            this.clock.clearTimeout(room.timers.get(name));
        }
        room.timers.set(name, this.clock.setTimeout(() => {
            room.timers.delete(name);
            run();
        }, ms));
    }

    #save() {
        this.save([...this.rooms.values()].map((room) => room.toJSON()));
    }
}
