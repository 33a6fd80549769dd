/*
 * token.h - access tokens that the loader signs itself: thousands of users without their passwords.
 *
 * Threads:    any; nothing is shared.
 * Ownership:  the caller's buffers; the key is kept in memory for the run.
 * Units:      seconds since 1970.
 *
 * JWT (RFC 7519) signed with HS256 (RFC 7518 section 3.2). The HMAC key is the text of the key
 * file's one line, 64 hex characters, and not the 32 bytes that they spell.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    TOKEN_KEY_CHARACTERS = 64,
    TOKEN_BYTES_MAX = 512,
    TOKEN_LIFE_S = 900, /* the server's own access tokens live as long */
};

struct token_key {
    char text[TOKEN_KEY_CHARACTERS];
};

/* 0; -errno if the file cannot be read, -EBADMSG if it is not one line of 64 hex characters. */
int token_key_read(const char *path, struct token_key *ret);

/* Signs a token for the user `bench-<user>`; its name is the same. Returns the token's size without
 * its closing 0, or -ENOSPC if capacity is less than TOKEN_BYTES_MAX. */
int token_sign(const struct token_key *key, uint32_t user, int64_t now_s, char *dst,
               size_t capacity);
