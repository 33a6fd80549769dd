/*
 * session.js - what outlives a reload of this tab, and nothing outlives the tab.
 *
 * Ownership:  sessionStorage, keys `damso.*`. Rooms and unsent messages are kept per user, so that
 *             another user signing in on the same tab sees none of them.
 */

const SESSION_KEY = 'damso.session';

function read(key) {
    try {
        return JSON.parse(sessionStorage.getItem(key));
    } catch {
        return null;
    }
}

/* A full or forbidden storage costs what a reload would have kept, and nothing else. */
function write(key, value) {
    try {
        sessionStorage.setItem(key, JSON.stringify(value));
    } catch {
        sessionStorage.removeItem(key);
    }
}

/* {user_id, username, access_token, expires_at}, or null. */
export function session() {
    const saved = read(SESSION_KEY);
    return saved && saved.access_token && saved.user_id ? saved : null;
}

/* Keeps the answer of register or login. */
export function saveSession(answer) {
    write(SESSION_KEY, {
        user_id: answer.user_id,
        username: answer.username,
        access_token: answer.access_token,
        expires_at: Date.now() + (answer.expires_in || 0) * 1000,
    });
}

export function clearSession() {
    sessionStorage.removeItem(SESSION_KEY);
}

/* The rooms followed: [{room_id, name, read_seq, epoch, outbox}]. */
export function savedRooms(userId) {
    const saved = read(`damso.rooms.${userId}`);
    return Array.isArray(saved) ? saved : [];
}

export function saveRooms(userId, rooms) {
    write(`damso.rooms.${userId}`, rooms);
}
