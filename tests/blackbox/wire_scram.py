"""The server's side of SCRAM-SHA-256 (RFC 7677) in MongoDB's saslStart and saslContinue.

Passwords are used as they are: those of tests are ASCII, which SASLprep leaves alone.
"""
import base64
import hashlib
import hmac
import os

from wire_rules import error_document

ITERATIONS = 4096                # the least that drivers accept
FAILED = error_document(18, 'AuthenticationFailed', 'Authentication failed.')


def digest(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


def parts_of(text):
    return dict(part.split('=', 1) for part in text.split(',') if '=' in part)


class Scram:
    """The log-in of one connection: start() and go_on() give the documents to answer with."""

    def __init__(self, users):
        self.users, self.user, self.stage = users, None, 'new'
        self.skip_empty = False

    def answer(self, payload, done):
        return {'conversationId': 1, 'done': done, 'payload': payload.encode(), 'ok': 1.0}

    def start(self, command):
        self.stage = 'new'
        if command.get('mechanism') != 'SCRAM-SHA-256':
            return error_document(334, 'MechanismUnavailable', 'only SCRAM-SHA-256 is spoken here')
        try:
            self.bare = bytes(command['payload']).decode().split(',', 2)[2]
            parts = parts_of(self.bare)
            self.name = parts['n'].replace('=2C', ',').replace('=3D', '=')
            self.nonce = parts['r'] + base64.b64encode(os.urandom(18)).decode()
        except (KeyError, IndexError, ValueError):
            return FAILED
        self.skip_empty = command.get('options', {}).get('skipEmptyExchange', False)
        salt = os.urandom(28)
        self.first = f'r={self.nonce},s={base64.b64encode(salt).decode()},i={ITERATIONS}'
        password = self.users.get(self.name, os.urandom(16).hex())   # an unknown name fails later
        self.salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, ITERATIONS)
        self.stage = 'challenged'
        return self.answer(self.first, False)

    def go_on(self, command):
        if self.stage == 'proved':
            self.stage, self.user = 'done', self.name
            return self.answer('', True)
        if self.stage != 'challenged':
            return FAILED
        self.stage = 'new'
        text = bytes(command.get('payload', b'')).decode('utf-8', 'replace')
        client_key = digest(self.salted, b'Client Key')
        signed = f'{self.bare},{self.first},{text.rpartition(",p=")[0]}'.encode()
        signature = digest(hashlib.sha256(client_key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        parts = parts_of(text)
        wanted = (self.nonce, base64.b64encode(proof).decode())
        if (parts.get('r'), parts.get('p')) != wanted:
            return FAILED
        verifier = digest(digest(self.salted, b'Server Key'), signed)
        self.stage = 'done' if self.skip_empty else 'proved'
        self.user = self.name if self.skip_empty else None
        return self.answer(f'v={base64.b64encode(verifier).decode()}', self.skip_empty)
