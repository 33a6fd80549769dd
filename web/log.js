/*
 * log.js - the events of one room as far as this page holds them: in order, each once.
 *
 * Walk:       from chat.js, for every pushed event and every page of history; to view_room.js.
 * Units:      seq as the server counts it (PROTOCOL: starts at 1, rises by exactly 1 a room).
 *
 * The log is a window (base, head] over the room's log. Everything below it is still on the
 * server and comes in by pages; what is missing inside it is a hole, and since seq is dense, holes
 * need no announcement to be seen.
 *
 * Invariants: (L1) a seq is held at most once, and rows() is in order of seq.
 *             (L2) base < every seq held or skipped <= head.
 *             (L3) missing() is 0 exactly if nothing between base and head is absent.
 *
 * No DOM, no clock, no I/O: tests/web/test_log.mjs runs it under node.
 */

export class RoomLog {
    constructor() {
        this.epoch = null;
        this.#clear(0);
    }

    /* Empties the log; the window stands after `seq`, in the log that `epoch` names. */
    start(seq, epoch) {
        this.epoch = epoch;
        this.#clear(seq);
    }

    /* Takes one event; false if it is held already or is no event at all. An event below the
     * window widens it downwards, one above it upwards. */
    add(event) {
        const seq = event.seq;
        if (!Number.isSafeInteger(seq) || seq < 1 || this.events.has(seq)) {
            return false;
        }
        this.skipped.delete(seq);
        this.events.set(seq, event);
        this.#insert(seq);
        this.base = Math.min(this.base, seq - 1);
        this.head = Math.max(this.head, seq);
        if (event.type === 'edited') {
            const known = this.edits.get(event.target_seq);
            if (known === undefined || known.seq < seq) {
                this.edits.set(event.target_seq, event);
            }
        } else if (event.type === 'deleted') {
            this.deleted.add(event.target_seq);
        }
        return true;
    }

    /* Takes a page in any order; returns how many of its events were new. */
    addPage(events) {
        let fresh = 0;
        for (const event of events) {
            fresh += this.add(event) ? 1 : 0;
        }
        return fresh;
    }

    /* The server said that `seq` exists: whatever is absent up to it is now a hole. */
    noteHead(seq) {
        if (Number.isSafeInteger(seq)) {
            this.head = Math.max(this.head, seq);
        }
    }

    /* The server has nothing in from..to (retention may drop events): no longer a hole. An event
     * that comes after all is still taken. */
    skip(from, to) {
        for (let seq = Math.max(from, this.base + 1); seq <= Math.min(to, this.head); seq++) {
            if (!this.events.has(seq)) {
                this.skipped.add(seq);
            }
        }
    }

    /* Drops the oldest events beyond `max`; they come back by scrolling up. */
    trim(max) {
        const excess = this.order.length - max;
        if (excess <= 0) {
            return;
        }
        for (const seq of this.order.splice(0, excess)) {
            this.events.delete(seq);
            this.edits.delete(seq);
            this.deleted.delete(seq);
        }
        this.base = this.order.length > 0 ? this.order[0] - 1 : this.head;
        this.atStart = false;
        for (const seq of this.skipped) {
            if (seq <= this.base) {
                this.skipped.delete(seq);
            }
        }
    }

    /* How many events of the window are absent. */
    missing() {
        return this.head - this.base - this.events.size - this.skipped.size;
    }

    /* The lowest hole as {from, to}, both inclusive, or null. */
    firstHole() {
        if (this.missing() === 0) {
            return null;
        }
        const from = this.resumeSeq() + 1;
        let to = from;
        while (to < this.head && !this.#covers(to + 1)) {
            to++;
        }
        return { from, to };
    }

    /* The last seq before the lowest hole: what a rejoin passes as after_seq. Not the highest seq
     * held, or the hole would never be filled. */
    resumeSeq() {
        let seq = this.base;
        while (this.#covers(seq + 1)) {
            seq++;
        }
        return seq;
    }

    has(seq) {
        return this.events.has(seq);
    }

    get size() {
        return this.order.length;
    }

    /* Messages of others after `readSeq`. */
    unread(readSeq, userId) {
        let count = 0;
        for (let i = this.order.length - 1; i >= 0 && this.order[i] > readSeq; i--) {
            const event = this.events.get(this.order[i]);
            count += event.type === 'message' && event.user_id !== userId ? 1 : 0;
        }
        return count;
    }

    /* The newest message, or null. */
    lastMessage() {
        for (let i = this.order.length - 1; i >= 0; i--) {
            const event = this.events.get(this.order[i]);
            if (event.type === 'message' && !this.deleted.has(event.seq)) {
                return this.#messageRow(event);
            }
        }
        return null;
    }

    /* What to show, in order of seq: messages with their edits and deletions applied, changes of
     * membership, and a row for each hole. Kinds of event that this page does not know (and edits
     * and deletions themselves) have no row. */
    rows() {
        const rows = [];
        let previous = this.base;
        for (const seq of this.order) {
            const event = this.events.get(seq);
            if (seq !== previous + 1 && !this.#skippedBetween(previous, seq)) {
                rows.push({ kind: 'hole', seq, from: previous + 1, to: seq - 1 });
            }
            previous = seq;
            if (event.type === 'message') {
                rows.push(this.#messageRow(event));
            } else if (event.type === 'member') {
                rows.push({ kind: 'member', seq, event });
            }
        }
        return rows;
    }

    #messageRow(event) {
        const edit = this.edits.get(event.seq);
        return {
            kind: 'message',
            seq: event.seq,
            event,
            text: edit === undefined ? event.text : edit.text,
            edited: edit !== undefined,
            deleted: this.deleted.has(event.seq),
        };
    }

    #skippedBetween(after, before) {
        for (let seq = after + 1; seq < before; seq++) {
            if (!this.skipped.has(seq)) {
                return false;
            }
        }
        return true;
    }

    #covers(seq) {
        return this.events.has(seq) || this.skipped.has(seq);
    }

    /* Live events belong at the end: looked at first. */
    #insert(seq) {
        let low = 0;
        let high = this.order.length;
        if (high === 0 || this.order[high - 1] < seq) {
            this.order.push(seq);
            return;
        }
        while (low < high) {
            const middle = (low + high) >> 1;
            if (this.order[middle] < seq) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        this.order.splice(low, 0, seq);
    }

    #clear(seq) {
        this.base = seq;
        this.head = seq;
        this.atStart = seq === 0;
        this.events = new Map();
        this.order = [];
        this.skipped = new Set();
        this.edits = new Map();
        this.deleted = new Set();
    }
}
