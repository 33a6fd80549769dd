/*
 * auth.h - access tokens: JWT with HS256 (RFC 7519), made and checked.
 *
 * Threads:    auth_open by main; afterwards read-only, any thread.
 * Ownership:  struct auth is the caller's.
 * Units:      times in seconds since 1970.
 *
 * Invariants: (A1) the algorithm is ours, never the token's: anything but HS256 is refused before
 *                  the signature is looked at; the key is never empty.
 *             (A2) exp, nbf, iss and aud are checked here, with auth.leeway; a token above
 *                  TOKEN_MAX is refused unread.
 */
#pragma once

#include "core/config.h"
#include "core/os.h"
#include "core/slice.h"

#include <stddef.h>
#include <stdint.h>

enum { TOKEN_MAX = 4096, AUTH_KEY_SIZE = 64, CLAIM_SUB_MAX = 64, CLAIM_NAME_MAX = 128 };

struct auth {
    char key[AUTH_KEY_SIZE + 1]; /* 64 hex characters: these themselves are the key */
    const struct config *config;
};

struct auth_claims {
    uint8_t sub_size, name_size;
    char sub[CLAIM_SUB_MAX];
    char name[CLAIM_NAME_MAX]; /* the username; sub if the token has no name */
    uint64_t expires;
};

enum auth_result { AUTH_OK, AUTH_INVALID, AUTH_EXPIRED };

/* Reads DATA/jwt.key, or makes it (mode 0600). 0 or -errno with a sentence for people: unreadable,
 * readable by others, not 64 hex characters. */
NODISCARD int auth_open(struct auth *auth, const struct config *config, char *ret_why,
                        size_t why_size);

/* ret_claims is set with AUTH_OK only. */
NODISCARD enum auth_result auth_check(const struct auth *auth, struct slice token, uint64_t now_s,
                                      struct auth_claims *ret_claims);

/* Writes a token (no terminating zero) that is good for auth.token_ttl: its size, or -ENOSPC. */
NODISCARD int auth_sign(const struct auth *auth, struct slice user_id, struct slice username,
                        uint64_t now_s, char *token, uint32_t capacity);
