/*
 * view_status.js - the state of the connection, in words, and short messages to the user.
 */
import { find, make, setText } from './dom.js';

const TOAST_MS = 8000;
const TOASTS_MAX = 3;

const STOPPED = {
    3500: 'Signed out',
    3501: 'Session ended',
    3503: 'Banned',
};

/* What the lamp and the text say: {state, text}. `state` is one of connected, connecting,
 * reconnecting, offline, stopped. */
function describe(state, now, online) {
    if (state.name === 'connected') {
        return { state: 'connected', text: 'Connected' };
    }
    if (state.name === 'stopped') {
        return { state: 'stopped', text: STOPPED[state.closeCode] || 'Connection refused' };
    }
    if (state.name === 'waiting') {
        if (!online) {
            return { state: 'offline', text: 'Offline' };
        }
        const seconds = Math.max(Math.ceil((state.retryAt - now) / 1000), 1);
        return { state: 'reconnecting', text: `Reconnecting in ${seconds} s` };
    }
    return state.attempt > 0 ? { state: 'reconnecting', text: 'Reconnecting' }
                             : { state: 'connecting', text: 'Connecting' };
}

/* What readers are told: only changes that last, not each second. */
const ANNOUNCED = {
    connected: 'Connected',
    reconnecting: 'Connection lost. Reconnecting.',
    offline: 'Offline',
    stopped: 'Disconnected',
};

export class StatusView {
    /* `retry()` is called if the user wants to connect now. */
    constructor(retry) {
        this.place = find('connection-state');
        this.announced = 'connected';
        this.state = { name: 'connecting', attempt: 0 };
        find('connection-retry').addEventListener('click', retry);
        setInterval(() => this.#draw(), 1000);
    }

    show(state) {
        this.state = state;
        this.#draw();
    }

    /* The same words for the banner over a room; null while there is nothing to say. */
    banner() {
        const { state, text } = describe(this.state, Date.now(), navigator.onLine);
        return state === 'connected' || state === 'connecting' ? null : text;
    }

    #draw() {
        const { state, text } = describe(this.state, Date.now(), navigator.onLine);
        this.place.dataset.state = state;
        setText(find('connection-text'), text);
        find('connection-retry').hidden = state === 'connected' || state === 'connecting';
        const banner = find('banner');
        const words = this.banner();
        banner.hidden = words === null;
        setText(banner, words === null ? '' : `${words}. What you write is kept and sent later.`);
        if (ANNOUNCED[state] !== undefined && this.announced !== state) {
            this.announced = state;
            setText(find('connection-announcer'), ANNOUNCED[state]);
        }
    }
}

/* Says something once, for a while. */
export function toast(text) {
    const place = find('toasts');
    while (place.children.length >= TOASTS_MAX) {
        place.firstElementChild.remove();
    }
    const note = make('p', { class: 'toast' }, text);
    place.append(note);
    setTimeout(() => note.remove(), TOAST_MS);
}
