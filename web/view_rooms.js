/*
 * view_rooms.js - the list of rooms: those followed, with what is unread, and the public ones.
 */
import { coalesce, find, make, reconcile, setText } from './dom.js';

const FILTER_DELAY_MS = 250;
const PREVIEW_LENGTH = 120; /* characters; CSS cuts what does not fit */

export function hashOf(roomId) {
    return `#/room/${encodeURIComponent(roomId)}`;
}

function countText({ count, more }) {
    if (count === 0 && !more) {
        return '';
    }
    return more || count > 99 ? `${Math.min(count, 99)}+` : String(count);
}

function members(count) {
    if (!Number.isSafeInteger(count)) {
        return '';
    }
    return count === 1 ? '1 member' : `${count} members`;
}

export class RoomsView {
    /* `create(name)` and `load(query, cursor)` return promises; `load` resolves with a page of
     * public rooms, and with null if there is nothing to be had now. */
    constructor(chat, { create, load }) {
        this.chat = chat;
        this.load = load;
        this.publicRooms = [];
        this.cursor = null;
        this.query = '';
        this.loads = 0;
        this.loaded = false;
        this.draw = coalesce(() => this.#draw());
        this.#setUpCreate(create);
        this.#setUpFilter();
        find('room-refresh').addEventListener('click', () => this.refresh());
        find('rooms-more').addEventListener('click', () => this.#more());
    }

    /* Reads the first page anew. */
    async refresh() {
        const turn = ++this.loads;
        const page = await this.load(this.query, null);
        if (page !== null && turn === this.loads) { /* else a later one has been asked for */
            this.publicRooms = page.rooms;
            this.cursor = page.next_cursor || null;
            this.loaded = true;
            this.draw();
        }
    }

    /* The name of a public room, or null if it is not in the list. */
    nameOf(roomId) {
        const info = this.publicRooms.find((room) => room.room_id === roomId);
        return info === undefined ? null : info.name;
    }

    async #more() {
        const turn = ++this.loads;
        const page = await this.load(this.query, this.cursor);
        if (page !== null && turn === this.loads) {
            const known = new Set(this.publicRooms.map((room) => room.room_id));
            this.publicRooms.push(...page.rooms.filter((room) => !known.has(room.room_id)));
            this.cursor = page.next_cursor || null;
            this.draw();
        }
    }

    #setUpCreate(create) {
        const form = find('room-form');
        const input = find('room-name');
        const button = form.querySelector('button');
        form.addEventListener('submit', async (event) => {
            event.preventDefault();
            const name = input.value.trim();
            if (name === '' || button.disabled) {
                return;
            }
            button.disabled = true;
            if (await create(name)) {
                input.value = '';
            }
            button.disabled = false;
        });
    }

    #setUpFilter() {
        let timer = null;
        find('room-search').addEventListener('submit', (event) => event.preventDefault());
        find('room-filter').addEventListener('input', (event) => {
            this.query = event.target.value.trim();
            this.draw();
            clearTimeout(timer);
            timer = setTimeout(() => this.refresh(), FILTER_DELAY_MS);
        });
    }

    #matches(name) {
        return name.toLocaleLowerCase().includes(this.query.toLocaleLowerCase());
    }

    #draw() {
        const own = [...this.chat.rooms.values()].filter((room) => this.#matches(room.name));
        const others = this.publicRooms.filter((info) =>
            !this.chat.rooms.has(info.room_id) && this.#matches(info.name || info.room_id));
        find('own-rooms-section').hidden = own.length === 0;
        reconcile(find('own-rooms'), own.map((room) => this.#ownItem(room)));
        reconcile(find('public-rooms'), others.map((info) => this.#publicItem(info)));
        find('rooms-more').hidden = this.cursor === null;
        const empty = find('rooms-empty');
        empty.hidden = others.length > 0 || !this.loaded || this.cursor !== null;
        empty.textContent = this.query !== '' ? 'No other room has this name.'
                          : own.length > 0 ? 'You are in all of them.'
                          : 'No rooms yet. Create the first one.';
    }

    #ownItem(room) {
        const last = room.log.lastMessage();
        const author = last === null ? null
            : last.event.user_id === this.chat.me.user_id ? 'You'
            : last.event.username || this.chat.nameOf(last.event.user_id);
        const preview = last === null ? members(room.memberCount)
            : `${author === null ? '' : `${author}: `}${last.text.slice(0, PREVIEW_LENGTH)}`;
        return this.#item({
            id: room.id, name: room.name, preview,
            current: this.chat.open === room,
            badge: countText(this.chat.unread(room)),
        });
    }

    #publicItem(info) {
        return this.#item({
            id: info.room_id, name: info.name || info.room_id, preview: members(info.member_count),
            current: false, badge: '',
        });
    }

    #item({ id, name, preview, current, badge }) {
        const update = (item) => {
            const link = item.firstElementChild;
            const [nameHolder, badgeHolder, previewHolder] = link.children;
            setText(nameHolder, name);
            setText(previewHolder, preview);
            setText(badgeHolder, badge);
            badgeHolder.hidden = badge === '';
            badgeHolder.setAttribute('aria-label', `${badge} unread`);
            if (current) {
                link.setAttribute('aria-current', 'page');
            } else {
                link.removeAttribute('aria-current');
            }
        };
        const build = () => {
            const item = make('li', {}, make('a',
                {
                    class: 'room-item', href: hashOf(id), 'data-testid': 'room-item',
                    'data-room-id': id,
                },
                make('span', { class: 'room-item-name' }),
                make('span', { class: 'badge', role: 'img', 'data-testid': 'unread' }),
                make('span', { class: 'room-item-preview' })));
            update(item);
            return item;
        };
        return { key: id, stamp: JSON.stringify([name, preview, current, badge]), build, update };
    }
}
