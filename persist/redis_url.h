/*
 * redis_url.h - where a Redis is and how to sign in there, out of one line of configuration.
 *
 *   redis://[user[:password]@]host[:port][/db]     plain TCP
 *   rediss://...                                   the same over TLS
 *   unix://[user[:password]@]/path[?db=N]          a Unix socket
 *
 * Pure: text in, fields out. User, password and path are percent-decoded (RFC 3986 2.1); an IPv6
 * address stands in brackets.
 *
 * Walk:       from persist/redis.c.
 *
 * Invariants: (U1) what is said about a wrong URL never repeats a part of it: with a password that
 *                  was not percent-encoded, any part may be one.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REDIS_URL_HOST_BYTES = 256, /* a name of 253 (RFC 1035), or a path */
    REDIS_URL_USER_BYTES = 128,
    REDIS_URL_PASSWORD_BYTES = 1024,
    REDIS_URL_PATH_MAX = 107, /* sun_path without its end */
    REDIS_URL_PORT = 6379,
};

enum redis_scheme { REDIS_SCHEME_TCP, REDIS_SCHEME_TLS, REDIS_SCHEME_UNIX };

struct redis_url {
    enum redis_scheme scheme;
    uint32_t port;
    uint32_t db;
    bool signs_in;                   /* there is a password, which may be empty */
    char host[REDIS_URL_HOST_BYTES]; /* without brackets; or the socket's path */
    char user[REDIS_URL_USER_BYTES]; /* empty: the default user */
    char password[REDIS_URL_PASSWORD_BYTES];
};

/* 0, or -EINVAL with ret_why a sentence for people (U1); ret is then untouched. */
NODISCARD int redis_url_parse(const char *text, struct redis_url *ret, char *ret_why,
                              size_t why_size);
