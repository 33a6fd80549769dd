/*
 * connection.js - one WebSocket to the server that comes back by itself.
 *
 * Walk:       from chat.js; to the server's GET /v1/ws (PROTOCOL, WebSocket).
 * Units:      milliseconds, except `ping_interval`, which the server gives in seconds.
 *
 * The life of a connection:
 *
 *     idle -> open() -> connecting -> `connected` -> connected
 *                          ^   |                        |
 *                          |   +-----------+------------+
 *                          |               v  closed, silent or timed out
 *                          +-- timer -- waiting
 *                                          |  closed with 3500-3999
 *                                          v
 *                                       stopped -> open()
 *
 * Invariants: (N1) every request ends once: with its reply, an error, or the loss of the socket.
 *             (N2) events of a socket that was given up reach nobody.
 *             (N3) after 3500-3999 only open() dials again.
 *
 * No DOM: the socket, the clock and chance come in from outside, so that tests can stand in.
 */

const CONNECT_TIMEOUT_MS = 10000;
const REQUEST_TIMEOUT_MS = 15000;
const PONG_TIMEOUT_MS = 8000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30000;
const STABLE_AFTER_MS = 5000; /* a connection that lived this long starts the backoff anew */
const DRAIN_WAIT_MAX_MS = 120000;
const PING_INTERVAL_DEFAULT_S = 25;

export const CLOSE_UNAUTHORIZED = 3500;
export const CLOSE_TOKEN_EXPIRED = 3501;

/* What a request ends with if it fails. `code` is a code of PROTOCOL, or `connection_lost`
 * (`closeCode` says how the socket ended) or `timeout`. `retryAfter` is in seconds or null. */
export class RequestError extends Error {
    constructor(code, message, { retryAfter = null, closeCode = null } = {}) {
        super(message || code);
        this.code = code;
        this.retryAfter = retryAfter;
        this.closeCode = closeCode;
    }
}

function isFinal(code) {
    return code >= 3500 && code <= 3999;
}

/* The object in a text frame, or null. */
function parse(data) {
    try {
        const frame = JSON.parse(data);
        return typeof frame === 'object' ? frame : null;
    } catch {
        return null;
    }
}

const browser = {
    socket: (url) => new WebSocket(url),
    setTimeout: (run, ms) => setTimeout(run, ms),
    clearTimeout: (timer) => clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
};

export class Connection {
    /* `token` is asked anew for each dial. `handlers`: state(state) on every change, ready() when
     * authenticated, push(frame) for everything that is no reply. */
    constructor(url, token, env = browser) {
        this.url = url;
        this.token = token;
        this.env = env;
        this.handlers = { state() {}, ready() {}, push() {} };
        this.state = { name: 'idle', attempt: 0, retryAt: null, closeCode: null };
        this.socket = null;
        this.requests = new Map();
        this.lastId = 0;
        this.timers = new Map();
        this.connectedAt = null;
        this.drainUntil = null;
    }

    /* Dials now, whatever was before. */
    open() {
        this.#giveUp(1000);
        this.state.attempt = 0;
        this.#dial();
    }

    /* Ends for good, until open(). */
    close() {
        this.#giveUp(1000);
        this.#enter('idle', {});
    }

    /* The user or the browser has reason to believe that it works again: does not wait longer. */
    retryNow() {
        if (this.state.name === 'waiting') {
            this.#dial();
        }
    }

    /* The network may have changed: finds out whether the connection still lives. */
    probe() {
        if (this.state.name === 'connected') {
            this.#ping();
        } else {
            this.retryNow();
        }
    }

    get connected() {
        return this.state.name === 'connected';
    }

    /* Sends a request; `done(error, reply)` is called once (N1), before any later frame is looked
     * at: a caller may rely on `joined` coming before the events that follow it. `timeoutMs` 0
     * waits as long as the connection lives. */
    request(frame, done, timeoutMs = REQUEST_TIMEOUT_MS) {
        if (!this.connected && frame.type !== 'connect') {
            done(new RequestError('connection_lost', 'not connected'), null);
            return;
        }
        const id = ++this.lastId;
        this.requests.set(id, done);
        if (timeoutMs > 0) {
            this.#after(`request ${id}`, timeoutMs, () =>
                this.#finish(id, new RequestError('timeout', 'The server did not answer.'), null));
        }
        this.socket.send(JSON.stringify({ ...frame, id }));
    }

    /* request() as a promise. */
    ask(frame) {
        return new Promise((resolve, reject) => {
            this.request(frame, (error, reply) => (error ? reject(error) : resolve(reply)));
        });
    }

    /* Sends what has no reply; drops it if there is no connection. */
    post(frame) {
        if (this.connected) {
            this.socket.send(JSON.stringify(frame));
        }
    }

    #dial() {
        this.#stop('retry');
        this.#enter('connecting', {});
        const socket = this.env.socket(this.url);
        this.socket = socket;
        const mine = (handle) => (event) => {
            if (this.socket === socket) { /* N2 */
                handle(event);
            }
        };
        socket.onopen = mine(() => this.#authenticate());
        socket.onmessage = mine((event) => this.#receive(event.data));
        socket.onclose = mine((event) => this.#lost(event.code));
        this.#after('connect', CONNECT_TIMEOUT_MS, () => this.#lost(1006));
    }

    #authenticate() {
        this.request({ type: 'connect', token: this.token() }, (error, reply) => {
            if (error !== null) {
                this.#refused(error);
                return;
            }
            this.#stop('connect');
            this.connectedAt = this.env.now();
            this.pingIntervalMs = (reply.ping_interval || PING_INTERVAL_DEFAULT_S) * 1000;
            this.#after('ping', this.pingIntervalMs, () => this.#ping());
            this.#enter('connected', {});
            this.handlers.ready();
        }, 0);
    }

    #refused(error) {
        if (error.code === 'token_expired') {
            this.#lost(CLOSE_TOKEN_EXPIRED);
        } else if (error.code === 'unauthorized') {
            this.#lost(CLOSE_UNAUTHORIZED);
        } else if (error.code !== 'connection_lost') {
            this.#lost(1006);
        }
    }

    #receive(data) {
        this.#stop('pong');
        const frame = parse(data);
        if (frame === null) {
            this.#lost(1002);
            return;
        }
        if (frame.id !== undefined && frame.id !== null && this.requests.has(frame.id)) {
            this.#reply(frame);
        } else if (frame.type === 'draining') {
            this.#drain(frame.reconnect_in);
        } else if (frame.type === 'error' && frame.code === 'token_expired') {
            this.#lost(CLOSE_TOKEN_EXPIRED);
        } else {
            this.handlers.push(frame);
        }
    }

    #reply(frame) {
        if (frame.type !== 'error') {
            this.#finish(frame.id, null, frame);
            return;
        }
        const retryAfter = frame.retry_after === undefined ? null : frame.retry_after;
        const error = new RequestError(frame.code, frame.message, { retryAfter });
        this.#finish(frame.id, error, null);
        if (frame.code === 'token_expired' && this.connected) {
            this.#lost(CLOSE_TOKEN_EXPIRED);
        }
    }

    #finish(id, error, reply) {
        const done = this.requests.get(id);
        if (done !== undefined) {
            this.requests.delete(id);
            this.#stop(`request ${id}`);
            done(error, reply);
        }
    }

    /* The server goes away soon and says when to come back. Its close follows; a server that
     * forgets to close is left then as well. */
    #drain(reconnectInMs) {
        const wait = Math.min(Math.max(Number(reconnectInMs) || 0, 0), DRAIN_WAIT_MAX_MS);
        this.drainUntil = this.env.now() + wait;
        this.#after('drain', wait + CONNECT_TIMEOUT_MS, () => this.#lost(3001));
    }

    #ping() {
        this.#after('ping', this.pingIntervalMs, () => this.#ping());
        this.#after('pong', PONG_TIMEOUT_MS, () => this.#lost(1006));
        this.request({ type: 'ping' }, () => {}, 0);
    }

    /* The socket is gone, or as good as: waits and dials again, unless that is forbidden (N3). */
    #lost(code) {
        const lived = this.connectedAt === null ? 0 : this.env.now() - this.connectedAt;
        const attempt = lived >= STABLE_AFTER_MS ? 0 : this.state.attempt;
        const drainUntil = this.drainUntil;
        this.#giveUp(code);
        if (isFinal(code)) {
            this.#enter('stopped', { closeCode: code, attempt: 0 });
            return;
        }
        const wait = drainUntil === null ? this.#backoff(attempt)
                                         : Math.max(drainUntil - this.env.now(), 0);
        const retryAt = this.env.now() + wait;
        this.#after('retry', wait, () => this.#dial());
        this.#enter('waiting', { closeCode: code, retryAt, attempt: attempt + 1 });
    }

    /* Between half of the step and the whole of it, so that the clients of a server that died do
     * not all come back at once. */
    #backoff(attempt) {
        const step = Math.min(BACKOFF_FIRST_MS * 2 ** attempt, BACKOFF_MAX_MS);
        return Math.round(step * (0.5 + 0.5 * this.env.random()));
    }

    /* Lets go of the socket without waiting for its close handshake, which a dead peer never
     * finishes, and ends every request (N1). */
    #giveUp(code) {
        const socket = this.socket;
        this.state = { ...this.state, name: 'idle' };
        this.socket = null;
        this.connectedAt = null;
        this.drainUntil = null;
        if (socket !== null) {
            socket.close();
        }
        const ended = [...this.requests.values()];
        this.requests.clear();
        for (const name of [...this.timers.keys()]) {
            this.#stop(name);
        }
        for (const done of ended) {
            done(new RequestError('connection_lost', '', { closeCode: code }), null);
        }
    }

    #enter(name, fields) {
        this.state = { ...this.state, retryAt: null, closeCode: null, ...fields, name };
        this.handlers.state(this.state);
    }

    #after(name, ms, run) {
        this.#stop(name);
        this.timers.set(name, this.env.setTimeout(() => {
            this.timers.delete(name);
            run();
        }, ms));
    }

    #stop(name) {
        if (this.timers.has(name)) {
            this.env.clearTimeout(this.timers.get(name));
            this.timers.delete(name);
        }
    }
}
