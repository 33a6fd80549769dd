/*
 * view_room.js - one room: its messages, scrolling, typing, and what the user writes.
 *
 * The log of the room (log.js) decides what is shown and in which order; this file only draws it,
 * and keeps what the reader looks at in its place when something is added above.
 */
import {
    clockTime, coalesce, dayOf, find, fullTime, make, reconcile, setText, tintOf,
} from './dom.js';

const NEAR_END_PX = 48;      /* this near to the end counts as reading along */
const NEAR_START_PX = 400;   /* this near to the start asks for the page before */
const INPUT_HEIGHT_MAX_PX = 160;
const SAME_GROUP_MS = 5 * 60 * 1000;
const ANNOUNCED_LENGTH = 200;
const TYPING_NAMES_MAX = 3;

export class RoomView {
    /* `leave(room)` asks whether the user means it, and leaves. */
    constructor(chat, { leave }) {
        this.chat = chat;
        this.room = null;
        this.atEnd = true;
        this.divider = null;   /* the first seq that was unread when the room was opened */
        this.newBelow = 0;
        this.size = '';
        this.scroller = find('scroller');
        this.list = find('messages');
        this.input = find('message-input');
        this.draw = coalesce(() => this.#draw());
        find('room-leave').addEventListener('click', () => leave(this.room));
        this.#setUpScroller();
        this.#setUpComposer();
    }

    /* Shows a room from its end, or none (null). */
    show(room) {
        if (this.room !== null) {
            this.room.draft = this.input.value;
        }
        this.room = room;
        this.atEnd = true;
        this.newBelow = 0;
        this.list.replaceChildren();
        find('welcome').hidden = room !== null;
        find('room').hidden = room === null;
        if (room === null) {
            this.divider = null;
            return;
        }
        this.divider = this.chat.unread(room).count > 0 ? room.readSeq : null;
        this.input.value = room.draft;
        this.#fitInput();
        this.#draw();
        const touch = matchMedia('(pointer: coarse)').matches;
        (touch ? find('room-title') : this.input).focus({ preventScroll: true });
    }

    /* An event came in while the room is shown. */
    arrived(event) {
        if (event.type !== 'message' || event.user_id === this.chat.me.user_id) {
            return;
        }
        if (!this.#isRead()) {
            this.newBelow++;
            this.divider = this.divider === null ? event.seq - 1 : this.divider;
        }
        const text = String(event.text).slice(0, ANNOUNCED_LENGTH);
        setText(find('announcer'), `${this.#author(event)}: ${text}`);
    }

    #setUpScroller() {
        this.scroller.addEventListener('scroll', () => {
            if (this.#resized()) {
                return; /* by the window, not by the reader */
            }
            const below = this.scroller.scrollHeight - this.scroller.scrollTop -
                this.scroller.clientHeight;
            this.atEnd = below < NEAR_END_PX;
            this.#afterScroll();
        }, { passive: true });
        new ResizeObserver(() => this.#resized()).observe(this.scroller);
        find('latest').addEventListener('click', () => {
            this.#scrollToEnd();
            this.#afterScroll();
            this.input.focus();
        });
        document.addEventListener('visibilitychange', () => this.draw());
    }

    /* A turned phone or its keyboard changes what fits: who was at the end stays there. True if the
     * size is another than last time. */
    #resized() {
        const size = `${this.scroller.clientWidth} ${this.scroller.clientHeight}`;
        if (size === this.size) {
            return false;
        }
        this.size = size;
        if (this.atEnd) {
            this.#scrollToEnd();
        }
        return true;
    }

    #setUpComposer() {
        this.input.addEventListener('input', () => {
            this.#fitInput();
            if (this.input.value.trim() !== '') {
                this.chat.type(this.room);
            }
        });
        this.input.addEventListener('keydown', (event) => {
            /* 229: Safari ends a composition (Korean, Japanese) before the Enter that ended it. */
            const composing = event.isComposing || event.keyCode === 229;
            if (event.key === 'Enter' && !event.shiftKey && !composing) {
                event.preventDefault();
                this.#send();
            }
        });
        find('composer').addEventListener('submit', (event) => {
            event.preventDefault();
            this.#send();
            this.input.focus();
        });
    }

    #send() {
        const text = this.input.value.trim();
        if (text === '' || this.room === null) {
            return;
        }
        if (this.chat.send(this.room, text)) {
            this.input.value = '';
            this.room.draft = '';
            this.#fitInput();
            this.divider = null;
            this.atEnd = true;
            this.draw();
        }
    }

    #fitInput() {
        this.input.style.height = 'auto';
        const borders = this.input.offsetHeight - this.input.clientHeight;
        const height = this.input.scrollHeight + borders;
        this.input.style.height = `${Math.min(height, INPUT_HEIGHT_MAX_PX)}px`;
        this.input.style.overflowY = height > INPUT_HEIGHT_MAX_PX ? 'auto' : 'hidden';
    }

    #isRead() {
        return this.atEnd && document.visibilityState === 'visible';
    }

    #afterScroll() {
        if (this.room === null) {
            return;
        }
        if (this.#isRead()) {
            this.newBelow = 0;
            this.chat.read(this.room);
        }
        if (this.scroller.scrollTop < NEAR_START_PX) {
            this.chat.older(this.room);
        }
        const latest = find('latest');
        latest.hidden = this.atEnd;
        setText(find('latest-text'), this.newBelow === 0 ? 'Latest'
            : this.newBelow === 1 ? '1 new message' : `${this.newBelow} new messages`);
    }

    #scrollToEnd() {
        this.atEnd = true;
        this.scroller.scrollTop = this.scroller.scrollHeight;
    }

    #draw() {
        const room = this.room;
        if (room === null) {
            return;
        }
        setText(find('room-title'), room.name);
        const count = room.memberCount;
        setText(find('room-members'), count === null ? '' : count === 1 ? '1 member'
            : `${count} members`);
        setText(find('typing'), this.#typingText());
        this.#drawEdge();

        const anchor = this.atEnd ? null : this.#anchor();
        reconcile(this.list, this.#items());
        if (anchor === null) {
            this.#scrollToEnd();
        } else if (anchor.element.isConnected) {
            this.scroller.scrollTop += anchor.element.offsetTop - anchor.top;
        }
        this.#afterScroll();
    }

    /* The first row in view, by which the rest is held in place. */
    #anchor() {
        const top = this.scroller.scrollTop;
        for (const element of this.list.children) {
            if (element.offsetTop + element.offsetHeight > top) {
                return { element, top: element.offsetTop };
            }
        }
        return null;
    }

    #drawEdge() {
        const log = this.room.log;
        const edge = find('edge');
        edge.dataset.state = log.atStart ? 'start' : 'more';
        let text = '';
        if (this.room.wasReset && log.atStart) {
            text = 'The history of this room was begun anew.';
        } else if (log.atStart) {
            text = `This is the beginning of ${this.room.name}.`;
        } else if (!this.room.joined && log.size === 0) {
            text = 'Waiting for the connection.';
        } else if (this.room.paging) {
            text = 'Loading earlier messages.';
        }
        setText(edge, text);
    }

    #typingText() {
        const names = [...this.room.typing.keys()].map((id) => this.chat.nameOf(id) || 'Someone');
        if (names.length === 0) {
            return '';
        }
        if (names.length > TYPING_NAMES_MAX) {
            return 'Several people are typing';
        }
        return `${names.join(', ')} ${names.length === 1 ? 'is' : 'are'} typing`;
    }

    #author(event) {
        return event.username || this.chat.nameOf(event.user_id) || 'Someone';
    }

    /* Everything in the list, for reconcile(). */
    #items() {
        const items = [];
        let day = '';
        let divided = this.divider === null;
        for (const row of this.room.log.rows()) {
            const today = row.kind === 'hole' ? day : dayOf(row.event.created_at);
            if (today !== day && today !== '') {
                day = today;
                items.push(line(`day ${today} ${row.seq}`, 'day', today));
            }
            if (!divided && row.seq > this.divider) {
                divided = true;
                items.push(line('divider', 'divider', 'New messages'));
            }
            items.push(this.#rowItem(row));
        }
        for (const entry of this.room.outbox.visible()) {
            items.push(this.#pendingItem(entry));
        }
        group(items);
        return items.map((item) => (item.shown === undefined ? item : messageItem(item)));
    }

    #rowItem(row) {
        if (row.kind === 'hole') {
            return line(`hole ${row.from}`, 'hole', 'Loading missed messages');
        }
        if (row.kind === 'member') {
            return line(`event ${row.seq}`, 'member', this.#memberText(row.event));
        }
        const event = row.event;
        const shown = {
            seq: row.seq, own: event.user_id === this.chat.me.user_id,
            author: this.#author(event), userId: event.user_id, at: event.created_at, state: 'sent',
            text: row.deleted ? 'This message was deleted.' : row.text,
            note: row.edited && !row.deleted ? 'edited' : '', deleted: row.deleted,
        };
        return { key: `event ${row.seq}`, shown, actions: [] };
    }

    #memberText(event) {
        const self = event.user_id === this.chat.me.user_id;
        const who = self ? 'You' : this.#author(event);
        switch (event.action) {
        case 'joined': return `${who} joined`;
        case 'left': return `${who} left`;
        case 'kicked': return `${who} ${self ? 'were' : 'was'} removed`;
        case 'banned': return `${who} ${self ? 'were' : 'was'} banned`;
        case 'role': return `${who} ${self ? 'are' : 'is'} now ${event.role || 'another role'}`;
        default: return `${who}: ${event.action}`;
        }
    }

    #pendingItem(entry) {
        const notes = {
            queued: entry.reason || 'Waiting to be sent', sending: 'Sending', sent: '',
            failed: `Not sent. ${entry.reason || ''}`,
        };
        const shown = {
            seq: entry.seq, own: true, author: 'You', userId: this.chat.me.user_id, at: entry.at,
            state: { queued: 'pending', sending: 'pending' }[entry.state] || entry.state,
            text: entry.text, note: notes[entry.state], deleted: false,
        };
        const actions = entry.state !== 'failed' ? [] : [
            ['Try again', 'message-retry', () => this.chat.retry(this.room, entry.key)],
            ['Delete', 'message-discard', () => this.chat.discard(this.room, entry.key)],
        ];
        return { key: `entry ${entry.key}`, shown, actions };
    }
}

/* Messages of one person in quick succession stand together: the name is over the first, the time
 * under the last. */
function group(items) {
    let previous = null;
    for (const { shown } of items) {
        if (shown === undefined) {
            previous = null;
            continue;
        }
        shown.first = previous === null || previous.userId !== shown.userId ||
            Date.parse(shown.at) - Date.parse(previous.at) >= SAME_GROUP_MS;
        shown.last = true;
        if (!shown.first) {
            previous.last = false;
        }
        previous = shown;
    }
}

function messageItem({ key, shown, actions }) {
    return { key, stamp: JSON.stringify(shown), build: () => buildMessage(shown, actions) };
}

/* A row that is no message. */
function line(key, kind, text) {
    return {
        key, stamp: text,
        build: () => make('li', { class: `line ${kind}`, 'data-testid': `line-${kind}` },
            make('span', {}, text)),
    };
}

function buildMessage(shown, actions) {
    const classes = ['message', shown.own ? 'own' : 'other', shown.first ? 'first' : 'grouped',
        shown.deleted ? 'deleted' : 'kept'];
    const text = make('p', {
        class: 'text', 'data-testid': 'message-text', title: fullTime(shown.at),
    }, shown.text);
    return make('li', {
        class: classes.join(' '), 'data-testid': 'message', 'data-state': shown.state,
        'data-seq': shown.seq === null ? null : String(shown.seq),
        'data-tint': tintOf(shown.userId),
    },
    shown.own ? null : make('div', { class: 'avatar', 'aria-hidden': 'true' },
        (Array.from(shown.author)[0] || '?').toLocaleUpperCase()),
    make('div', { class: 'message-body' },
        make('span', { class: shown.own || !shown.first ? 'for-readers' : 'author' },
            shown.own ? 'You' : shown.author),
        text, buildFoot(shown, actions)));
}

/* The line under a message, or null if there is nothing to say. */
function buildFoot(shown, actions) {
    if (!shown.last && shown.state !== 'failed' && shown.note !== 'edited') {
        return null;
    }
    const foot = make('div', { class: 'message-foot' },
        make('time', { datetime: shown.at }, clockTime(shown.at)),
        shown.note === '' ? null : make('span', { class: 'note' }, shown.note));
    for (const [label, hook, act] of actions) {
        const button = make('button',
            { type: 'button', class: 'quiet', 'data-testid': hook }, label);
        button.addEventListener('click', act);
        foot.append(button);
    }
    return foot;
}
