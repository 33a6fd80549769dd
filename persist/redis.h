/*
 * redis.h - one connection to Redis: bytes out, replies in, within bounded time.
 *
 * Walk:       from persist/cache.c, which knows our keys; to the socket. Replies are read by
 *             persist/redis_reader.c (hiredis), rediss:// is persist/redis_tls.c (OpenSSL), the URL
 *             persist/redis_url.c.
 * Threads:    a connection belongs to one thread at a time. Every call may block, none longer than
 *             the time-outs of its options allow: connect_ms for redis_connect, and REDIS_PATIENCE
 *             times reply_ms for a send or a reply that does go on. What is not ours to bound is
 *             the look-up of a host's name (resolv.conf); an address needs none.
 * Ownership:  options are copied. A reply and everything in it is good until the next call on its
 *             connection. The memory lies in the plan; hiredis and OpenSSL allocate for themselves.
 * Units:      sizes in bytes, times in milliseconds.
 *
 * Protocol: RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/).
 *
 *     closed --redis_connect--> open --any error but a reply's own--> closed
 *
 * Invariants: (R1) after an error that is not a reply (a time-out, a reset, garbage) the connection
 *                  is closed: what became of commands without a reply is unknown.
 *             (R2) redis_why never holds a password.
 *             (R3) a server that sends without end, or nests without end, is cut off at
 *                  REDIS_REPLY_BYTES_MAX.
 */
#pragma once

#include "core/check.h"
#include "core/mem.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REDIS_URL_BYTES_MAX = 4096,
    REDIS_WHY_BYTES = 256,
    REDIS_REPLY_BYTES_MAX = 64 * 1024 * 1024,
    REDIS_ELEMENTS_MAX = 65536, /* of an array */
    REDIS_OUTPUT_BYTES = 2 * 1024 * 1024 + 64 * 1024,
    REDIS_PATIENCE = 10,
};

struct redis;

struct redis_options {
    const char *url;     /* redis://[user[:password]@]host[:port][/db], rediss:// the same over TLS,
                          * unix:///path; percent-encoded where needed; IPv6 in brackets */
    const char *ca_file; /* PEM for rediss://; empty: the system's */
    uint32_t connect_ms;
    uint32_t reply_ms;     /* silence while replies are due, or a send that does not go on */
    struct mem_plan *plan; /* not sealed yet */
};

enum redis_type {
    REDIS_STRING,
    REDIS_STATUS,
    REDIS_ERROR,
    REDIS_INTEGER,
    REDIS_NIL,
    REDIS_ARRAY,
};

/* A reply, or one element of an array. */
struct redis_reply {
    enum redis_type type;
    int64_t integer;
    struct slice text;   /* of a string, status or error */
    uint32_t count;      /* elements of an array */
    const void *element; /* opaque: redis_element */
};

/* Checks the URL and makes a closed connection. 0, or -EINVAL with ret_why a sentence for people
 * that names what is wrong with the URL (never its password) or with ca_file, or -ENOMEM. In a
 * MEM_COUNT plan it only counts, checks nothing, and *ret is NULL. */
NODISCARD int redis_open(const struct redis_options *options, struct redis **ret, char *ret_why,
                         size_t why_size);

/* Closes it; NULL is nothing. The memory stays the plan's. */
void redis_close(struct redis *redis);

/* Connects, TLS included (the certificate must be valid for the host), signs in (AUTH) and selects
 * the database. 0, or: -EACCES wrong user or password, or no right; -EKEYREJECTED the certificate
 * is not to be trusted; -EAGAIN it is still loading; -EPROTO it is no Redis; -ETIMEDOUT,
 * -ECONNREFUSED and other -errno of the network. redis_why says it in words. Gives up an open
 * connection first. */
NODISCARD int redis_connect(struct redis *redis);

bool redis_is_open(const struct redis *redis);

/* Closes the connection, keeps the object. */
void redis_disconnect(struct redis *redis);

/* The last error as a sentence part for people, e.g. "127.0.0.1:6379: connection refused". */
const char *redis_why(const struct redis *redis);

/* Puts one command into the buffer of what is to be sent; when that is full, sends. 0, -ENOTCONN,
 * or -errno (R1). */
NODISCARD int redis_add(struct redis *redis, uint32_t count, const struct slice *words);

/* From here on, what is added is also kept after it was sent, for redis_repeat, as long as all of
 * it fits REDIS_OUTPUT_BYTES. */
void redis_keep(struct redis *redis);

/* How many bytes were added since the connection was made: where the next command will begin. */
uint64_t redis_position(const struct redis *redis);

/* Adds the one command again that was added from position on, up to end. 0, or -ENOENT: it is not
 * kept any more, or there is no place for it. */
NODISCARD int redis_repeat(struct redis *redis, uint64_t position, uint64_t end);

/* Bytes added and not yet sent. */
size_t redis_pending_bytes(const struct redis *redis);

/* Sends what was added, and reads nothing. Replies that pile up meanwhile are taken from the socket
 * into the reader's memory so that the two sides cannot block each other. 0 or -errno (R1). */
NODISCARD int redis_send(struct redis *redis);

/* The reply to the oldest command without one; sends first what is still to be sent. A reply of
 * type REDIS_ERROR is a success here. 0 or -errno (R1). */
NODISCARD int redis_reply(struct redis *redis, struct redis_reply *ret);

/* What the text of an error reply means, wherever the code stands in it (6.2 puts a script's error
 * into another): -EACCES wrong password or no right; -EAGAIN not now (loading, a script that runs
 * too long, no primary); -EROFS it takes no writes (a replica, or its disk is broken); -ENOSPC
 * maxmemory; -ENOEXEC NOSCRIPT; -EMEDIUMTYPE WRONGTYPE; -ENOTSUP the key belongs to another server
 * of a cluster; -EIO any other. */
int redis_error(struct slice text);

/* Makes what redis_why gives: "127.0.0.1:6379: " what ": " and the text of the reply, without
 * control characters; a text that holds the password is left out (R2). Returns error. */
int redis_say(struct redis *redis, int error, const char *what, struct slice text);

/* Element index of an array reply. */
struct redis_reply redis_element(const struct redis_reply *reply, uint32_t index);

/* One command and its reply: redis_add, redis_send, redis_reply. */
NODISCARD int redis_command(struct redis *redis, uint32_t count, const struct slice *words,
                            struct redis_reply *ret);
