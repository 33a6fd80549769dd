/*
 * dom.js - the few things the views do with elements.
 *
 * Invariants: (D1) what users wrote reaches the page by textContent or setAttribute only, never as
 *                  markup. tests/web/test_browser.py looks for anything else in these files.
 */

export function find(id) {
    return document.getElementById(id);
}

/* An element with attributes, and children that are elements or text. */
export function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (value !== null) {
            element.setAttribute(name, value);
        }
    }
    element.append(...children.filter((child) => child !== null));
    return element;
}

/* Sets the text if it differs, so that readers are not told the same again. */
export function setText(element, text) {
    if (element.textContent !== text) {
        element.textContent = text;
    }
}

/* Makes the children of `parent` those of `wanted`, [{key, stamp, build, update}], in that order.
 * An element whose stamp is as before stays what it is, with its focus and selection. Another is
 * built anew, or given to `update` if there is one: then a click or a focus on it is not lost. */
export function reconcile(parent, wanted) {
    const known = new Map();
    for (const child of parent.children) {
        known.set(child.reconcileKey, child);
    }
    let place = parent.firstElementChild;
    for (const { key, stamp, build, update } of wanted) {
        let element = known.get(key);
        known.delete(key);
        if (element !== undefined && element.reconcileStamp !== stamp && update !== undefined) {
            update(element);
            element.reconcileStamp = stamp;
        } else if (element === undefined || element.reconcileStamp !== stamp) {
            const fresh = build();
            fresh.reconcileKey = key;
            fresh.reconcileStamp = stamp;
            if (element !== undefined) {
                place = place === element ? element.nextElementSibling : place;
                element.remove();
            }
            element = fresh;
        }
        if (element === place) {
            place = place.nextElementSibling;
        } else {
            parent.insertBefore(element, place);
        }
    }
    for (const stale of known.values()) {
        stale.remove();
    }
}

/* Calls `run` once for any number of calls before the next frame. A hidden page gets no frames,
 * and is drawn by a timer. */
export function coalesce(run) {
    let pending = false;
    const draw = () => {
        pending = false;
        run();
    };
    return () => {
        if (pending) {
            return;
        }
        pending = true;
        if (document.visibilityState === 'visible') {
            requestAnimationFrame(draw);
        } else {
            setTimeout(draw, 0);
        }
    };
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const dayFormat = new Intl.DateTimeFormat(undefined,
    { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

function format(formatter, time) {
    const date = new Date(time);
    return Number.isNaN(date.getTime()) ? '' : formatter.format(date);
}

export function clockTime(time) {
    return format(clockFormat, time);
}

export function fullTime(time) {
    return format(fullFormat, time);
}

/* The day, as text; equal for times of the same day here. */
export function dayOf(time) {
    return format(dayFormat, time);
}

/* One of 8 tints, the same for a user on every page. */
export function tintOf(userId) {
    let hash = 0;
    for (const character of String(userId)) {
        hash = (hash * 31 + character.codePointAt(0)) >>> 0;
    }
    return String(hash % 8);
}
