/*
 * api.js - the REST calls of PROTOCOL that this page makes.
 *
 * Ownership:  holds nothing; the token is asked for each call.
 */

export class ApiError extends Error {
    /* `code` is a code of PROTOCOL, or `unreachable` if there was no answer. */
    constructor(code, message, status) {
        super(message);
        this.code = code;
        this.status = status;
    }
}

async function call(method, path, { body, token } = {}) {
    const headers = {};
    if (body !== undefined) {
        headers['Content-Type'] = 'application/json';
    }
    if (token !== undefined) {
        headers.Authorization = `Bearer ${token}`;
    }
    let response;
    let answer = null;
    try {
        response = await fetch(path, {
            method, headers, body: body === undefined ? undefined : JSON.stringify(body),
        });
        answer = response.status === 204 ? null : await response.json();
    } catch {
        throw new ApiError('unreachable', 'The server cannot be reached.', 0);
    }
    if (!response.ok) {
        const error = (answer && answer.error) || {};
        throw new ApiError(error.code || 'internal', error.message || 'Something went wrong.',
            response.status);
    }
    return answer;
}

export function register(username, password) {
    return call('POST', '/v1/auth/register', { body: { username, password } });
}

export function login(username, password) {
    return call('POST', '/v1/auth/login', { body: { username, password } });
}

export class Api {
    /* `token()` gives the access token; `renew()` resolves when the user has signed in again, and
     * rejects if they will not. */
    constructor(token, renew) {
        this.token = token;
        this.renew = renew;
    }

    createRoom(name) {
        return this.#call('POST', '/v1/rooms', { name, visibility: 'public' });
    }

    /* One page of the public rooms: {rooms, next_cursor}. */
    listRooms(query, cursor) {
        const parameters = new URLSearchParams({ limit: '50' });
        if (query !== '') {
            parameters.set('query', query);
        }
        if (cursor !== null) {
            parameters.set('cursor', cursor);
        }
        return this.#call('GET', `/v1/rooms?${parameters}`);
    }

    getRoom(roomId) {
        return this.#call('GET', `/v1/rooms/${encodeURIComponent(roomId)}`);
    }

    leaveRoom(roomId) {
        return this.#call('POST', `/v1/rooms/${encodeURIComponent(roomId)}/leave`, {});
    }

    async #call(method, path, body) {
        try {
            return await call(method, path, { body, token: this.token() });
        } catch (error) {
            if (error.status !== 401) {
                throw error;
            }
            await this.renew();
            return call(method, path, { body, token: this.token() });
        }
    }
}
