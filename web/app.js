/*
 * app.js - puts the page together: who is signed in, which room is open, who is told of what.
 *
 * Walk:       from index.html; to chat.js (rooms), connection.js (the WebSocket), view_*.js.
 * Invariants: (A1) the token is read from session.js for each use, so that a new sign-in serves
 *                  the connection and the calls that were waiting for it.
 */
import { Api, ApiError } from './api.js';
import { Chat, reasonOf } from './chat.js';
import { CLOSE_TOKEN_EXPIRED, CLOSE_UNAUTHORIZED, Connection } from './connection.js';
import { clearSession, saveRooms, saveSession, savedRooms, session } from './session.js';
import { find } from './dom.js';
import { setUpAuth, setUpReauth } from './view_auth.js';
import { RoomView } from './view_room.js';
import { RoomsView, hashOf } from './view_rooms.js';
import { StatusView, toast } from './view_status.js';

const ROOMS_REFRESH_MS = 15000;
const KEY_BYTES = 16;
const ROOM_HASH = /^#\/room\/(.+)$/;

const clock = {
    now: () => Date.now(),
    setTimeout: (run, ms) => setTimeout(run, ms),
    clearTimeout: (timer) => clearTimeout(timer),
};

function token() {
    const saved = session();
    return saved === null ? '' : saved.access_token;
}

/* Not crypto.randomUUID: browsers have that only on https and on the machine itself. */
function newKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function socketUrl() {
    return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/ws`;
}

function signOut() {
    clearSession();
    location.replace('/');
}

class App {
    constructor(me) {
        this.me = me;
        this.connection = new Connection(socketUrl(), token);
        this.api = new Api(token, () => this.#reauthenticate());
        this.askPassword = setUpReauth(signOut);
        this.chat = new Chat({
            connection: this.connection, me, newKey, clock,
            save: (rooms) => saveRooms(me.user_id, rooms),
            on: {
                connection: (state) => this.#connection(state),
                changed: (room) => this.#changed(room),
                arrived: (room, event) => this.#arrived(room, event),
                rooms: () => this.#roomsChanged(),
                problem: toast,
            },
        });
        this.chat.restore(savedRooms(me.user_id));
        this.status = new StatusView(() => this.#connectNow());
        this.roomView = new RoomView(this.chat, { leave: (room) => this.#leave(room) });
        this.roomsView = new RoomsView(this.chat, {
            create: (name) => this.#create(name),
            load: (query, cursor) => this.#loadRooms(query, cursor),
        });
    }

    start() {
        find('account-name').textContent = this.me.username;
        find('app').hidden = false;
        find('signout').addEventListener('click', signOut);
        find('skip').addEventListener('click', (event) => {
            event.preventDefault();
            find('message-input').focus();
        });
        addEventListener('hashchange', () => this.#route());
        addEventListener('online', () => this.connection.probe());
        addEventListener('offline', () => this.connection.probe());
        document.addEventListener('visibilitychange', () => {
            if (document.visibilityState === 'visible') {
                this.connection.probe();
            }
        });
        setInterval(() => this.#refreshRooms(), ROOMS_REFRESH_MS);
        this.connection.open();
        this.roomsView.refresh();
        this.#route();
    }

    /* The address says which room is open, so that Back works and a room can be bookmarked. */
    async #route() {
        const hash = location.hash;
        const match = ROOM_HASH.exec(hash);
        const roomId = match === null ? null : decode(match[1]);
        document.body.dataset.view = roomId === null ? 'list' : 'room';
        let room = null;
        if (roomId !== null) {
            room = this.chat.rooms.get(roomId) || await this.#follow(roomId);
            if (hash !== location.hash) {
                return; /* the user went on meanwhile, and another call takes them there */
            }
            if (room === null) {
                location.hash = '#/';
                return;
            }
        }
        if (this.chat.open !== room || this.roomView.room !== room) {
            this.chat.show(room);
            this.roomView.show(room);
        }
        this.#roomsChanged();
    }

    async #follow(roomId) {
        let name = this.roomsView.nameOf(roomId);
        if (name === null) {
            try {
                name = (await this.api.getRoom(roomId)).name;
            } catch (error) {
                toast(reasonOf(error));
                return null;
            }
        }
        return this.chat.follow(roomId, name);
    }

    async #create(name) {
        try {
            const made = await this.api.createRoom(name);
            this.chat.follow(made.room_id, made.name || name);
            location.hash = hashOf(made.room_id);
            this.roomsView.refresh();
            return true;
        } catch (error) {
            toast(reasonOf(error));
            return false;
        }
    }

    async #loadRooms(query, cursor) {
        try {
            return await this.api.listRooms(query, cursor);
        } catch (error) {
            /* While there is no server the state of the connection says so already. */
            if (error instanceof ApiError && error.code !== 'unreachable') {
                toast(reasonOf(error));
            }
            return null;
        }
    }

    /* By the clock, not by the user: must neither ask for a password nor be heard failing. */
    #refreshRooms() {
        const saved = session();
        const fresh = saved !== null && saved.expires_at > Date.now();
        if (fresh && this.connection.connected && document.visibilityState === 'visible') {
            this.roomsView.refresh();
        }
    }

    #leave(room) {
        const dialog = find('leave');
        find('leave-title').textContent = `Leave ${room.name}?`;
        dialog.returnValue = '';
        dialog.showModal();
        dialog.addEventListener('close', async () => {
            if (dialog.returnValue !== 'leave') {
                return;
            }
            try {
                await this.api.leaveRoom(room.id);
                this.chat.unfollow(room);
                this.roomsView.refresh();
            } catch (error) {
                toast(reasonOf(error));
            }
        }, { once: true });
    }

    #connection(state) {
        this.status.show(state);
        if (state.name === 'connected') {
            this.#refreshRooms();
        }
        if (state.name === 'stopped' &&
            (state.closeCode === CLOSE_TOKEN_EXPIRED || state.closeCode === CLOSE_UNAUTHORIZED)) {
            this.#reauthenticate().catch((error) => toast(error.message));
        }
    }

    #connectNow() {
        if (this.connection.state.name === 'stopped') {
            this.connection.open();
        } else {
            this.connection.retryNow();
        }
    }

    async #reauthenticate() {
        saveSession(await this.askPassword(this.me.username));
        if (!this.connection.connected) {
            this.connection.open();
        }
    }

    #changed(room) {
        if (this.roomView.room === room) {
            this.roomView.draw();
        }
    }

    #arrived(room, event) {
        if (this.roomView.room === room) {
            this.roomView.arrived(event);
        }
        this.#roomsChanged();
    }

    #roomsChanged() {
        let unread = 0;
        for (const room of this.chat.rooms.values()) {
            unread += this.chat.unread(room).count;
        }
        const open = this.chat.open;
        const place = open === null ? 'damso' : `${open.name} - damso`;
        document.title = unread > 0 ? `(${unread}) ${place}` : place;
        this.roomsView.draw();
        if (this.roomView.room !== null && !this.chat.rooms.has(this.roomView.room.id)) {
            location.hash = '#/';
        }
    }
}

/* A hash is typed by anybody: one that is not well-formed names no room. */
function decode(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}

function enter(me) {
    new App(me).start();
}

const saved = session();
const showAuth = setUpAuth((answer) => {
    saveSession(answer);
    find('auth').hidden = true;
    enter(session());
});
if (saved === null) {
    showAuth();
} else {
    enter(saved);
}
