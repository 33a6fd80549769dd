/*
 * load.mjs - imports a module of web/ into node.
 *
 * The browser is told by the server that web/*.js are modules; node 18 wants a package.json for
 * that, which has no place among files that are served. So each module is read, its imports of its
 * neighbours are loaded in the same way, and all become data: URLs.
 */
import { readFileSync } from 'node:fs';

const folder = new URL('../../web/', import.meta.url);
const urls = new Map();

function urlOf(name) {
    if (!urls.has(name)) {
        const source = readFileSync(new URL(name, folder), 'utf8').replace(
            /from '\.\/([a-z_]+\.js)'/g, (_, neighbour) => `from '${urlOf(neighbour)}'`);
        urls.set(name, `data:text/javascript;base64,${Buffer.from(source).toString('base64')}`);
    }
    return urls.get(name);
}

export function load(name) {
    return import(urlOf(name));
}
