/*
 * outbox.js - what the user has sent in one room and the server has not yet shown back.
 *
 * Walk:       from chat.js; to view_room.js, which shows entries below the log as pending.
 * Ownership:  an entry lives from the Enter key until the log holds the event it became.
 *
 * The life of an entry:
 *
 *     push() -> queued -> next() -> sending -> sent()   -> sent, until settle() finds it in the log
 *                 ^                   |  |
 *                 |    lost(), later()|  | refuse()
 *                 +-------------------+  +--> failed -> retry() -> queued
 *                                                    -> discard()
 *
 * Invariants: (O1) an entry keeps its key for life, also over a reload: sent again it makes no
 *                  second message (PROTOCOL, guarantee 3).
 *             (O2) at most one entry is sending, so that the server gets them in the order typed.
 *
 * No DOM, no clock, no I/O.
 */

export class Outbox {
    /* `saved` is what an earlier toJSON() returned. */
    constructor(saved = []) {
        this.entries = saved.map((entry) => ({ ...entry, claimed: null }));
        this.lost();
    }

    /* `headSeq` is the newest seq known when the user pressed Enter: the event will have a higher
     * one. `at` is a time in RFC 3339, only shown. */
    push(text, key, headSeq, at) {
        const entry = {
            key, text, at, after_seq: headSeq,
            state: 'queued', tries: 0, reason: null, seq: null, claimed: null,
        };
        this.entries.push(entry);
        return entry;
    }

    /* The entry to send now, marked as sending; null if one is on its way or none is waiting. */
    next() {
        if (this.entries.some((entry) => entry.state === 'sending')) {
            return null; /* O2 */
        }
        const entry = this.entries.find((candidate) => candidate.state === 'queued');
        if (entry === undefined) {
            return null;
        }
        entry.state = 'sending';
        entry.tries++;
        return entry;
    }

    /* Acked: the event has this seq. */
    sent(key, seq) {
        this.#change(key, { state: 'sent', seq, reason: null });
    }

    /* Refused for now (rate, journal full): to be sent again later. */
    later(key, reason) {
        this.#change(key, { state: 'queued', reason });
    }

    /* Refused for good, unless the user asks for another try. */
    refuse(key, reason) {
        this.#change(key, { state: 'failed', reason, claimed: null });
    }

    retry(key) {
        this.#change(key, { state: 'queued', reason: null });
    }

    discard(key) {
        this.entries = this.entries.filter((entry) => entry.key !== key);
    }

    /* The connection is gone: what was on its way may have arrived or not, so it goes again. */
    lost() {
        for (const entry of this.entries) {
            if (entry.state === 'sending') {
                entry.state = 'queued';
            }
        }
    }

    /* An own event may be pushed before its ack. So that it does not show twice until then, the
     * oldest entry that was sent at least once and has this text is taken for it. The ack decides:
     * a wrong guess (the same user writes the same elsewhere) is corrected by settle(). */
    claim(event) {
        if (this.entries.some((entry) => entry.seq === event.seq || entry.claimed === event.seq)) {
            return;
        }
        const entry = this.entries.find((candidate) =>
            candidate.tries > 0 && candidate.seq === null && candidate.claimed === null &&
            candidate.state !== 'failed' && candidate.text === event.text &&
            event.seq > candidate.after_seq);
        if (entry !== undefined) {
            entry.claimed = event.seq;
        }
    }

    /* Forgets the entries whose events the log holds. Returns how many. */
    settle(log) {
        const before = this.entries.length;
        this.entries = this.entries.filter((entry) =>
            entry.state !== 'sent' || (!log.has(entry.seq) && entry.seq > log.base));
        return before - this.entries.length;
    }

    /* The entries to show below the log. */
    visible() {
        return this.entries.filter((entry) => entry.state === 'sent' || entry.claimed === null);
    }

    /* The room's log was reset: seqs of the old one mean nothing in the new one. */
    reset(headSeq) {
        this.entries = this.entries.filter((entry) => entry.state !== 'sent');
        for (const entry of this.entries) {
            entry.claimed = null;
            entry.after_seq = headSeq;
        }
    }

    get size() {
        return this.entries.length;
    }

    toJSON() {
        return this.entries.map(({ claimed, ...saved }) => saved);
    }

    #change(key, fields) {
        const entry = this.entries.find((candidate) => candidate.key === key);
        if (entry !== undefined) {
            Object.assign(entry, fields);
        }
    }
}
