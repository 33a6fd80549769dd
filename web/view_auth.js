/*
 * view_auth.js - signing up, signing in, and signing in again when a session has ended.
 */
import { login, register } from './api.js';
import { find } from './dom.js';

const LAST_USER_KEY = 'damso.username'; /* localStorage: only a name, to fill in the form */

const TEXTS = {
    conflict: 'This username is taken.',
    unauthorized: 'Username or password is wrong.',
    unreachable: 'The server cannot be reached. Try again in a moment.',
};

function textOf(error) {
    if (error.code === 'rate_limited') {
        return 'Too many attempts. Try again in a moment.';
    }
    return TEXTS[error.code] || error.message;
}

/* Runs `action` with what the form holds; shows its error; lets nobody submit twice. */
function onSubmit(form, action) {
    const problem = form.querySelector('.form-error');
    const button = form.querySelector('.primary');
    form.addEventListener('submit', async (event) => {
        event.preventDefault();
        if (button.disabled) {
            return;
        }
        problem.hidden = true;
        button.disabled = true;
        try {
            const fields = new FormData(form);
            await action(fields.get('username').trim(), fields.get('password'));
            form.reset();
        } catch (error) {
            problem.textContent = textOf(error);
            problem.hidden = false;
            form.querySelector('input[type=password]').select();
        } finally {
            button.disabled = false;
        }
    });
}

/* The page before anybody has signed in. `signedIn(answer)` gets the answer of the server. */
export function setUpAuth(signedIn) {
    const forms = { signup: find('signup'), signin: find('signin') };
    const buttons = { signup: find('show-signup'), signin: find('show-signin') };
    const show = (wanted) => {
        for (const name of Object.keys(forms)) {
            forms[name].hidden = name !== wanted;
            buttons[name].setAttribute('aria-pressed', String(name === wanted));
        }
    };
    const remember = (answer) => {
        localStorage.setItem(LAST_USER_KEY, answer.username);
        signedIn(answer);
    };
    for (const name of Object.keys(forms)) {
        buttons[name].addEventListener('click', () => {
            show(name);
            forms[name].querySelector('input').focus();
        });
    }
    onSubmit(forms.signup, async (username, password) =>
        remember(await register(username, password)));
    onSubmit(forms.signin, async (username, password) => remember(await login(username, password)));

    const last = localStorage.getItem(LAST_USER_KEY);
    show(last === null ? 'signup' : 'signin');
    return () => {
        find('auth').hidden = false;
        if (last === null) {
            find('signup-username').focus();
        } else {
            find('signin-username').value = last;
            find('signin-password').focus();
        }
    };
}

/* The dialog over the page. ask(username) opens it, or joins the one that is open, and resolves
 * with the server's answer; it rejects if the user closes it. */
export function setUpReauth(signOut) {
    const dialog = find('reauth');
    let asked = null;
    onSubmit(find('reauth-form'), async (username, password) => {
        const answer = await login(username, password);
        const { resolve } = asked;
        asked = null;
        dialog.close();
        resolve(answer);
    });
    dialog.addEventListener('close', () => {
        if (asked !== null) {
            asked.reject(new Error('You are signed out until you enter your password.'));
            asked = null;
        }
    });
    find('reauth-signout').addEventListener('click', signOut);
    return (username) => {
        if (asked === null) {
            asked = withResolvers();
            find('reauth-username').value = username;
            find('reauth-password').value = '';
            dialog.showModal();
            find('reauth-password').focus();
        }
        return asked.promise;
    };
}

function withResolvers() {
    const parts = {};
    parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
    return parts;
}
