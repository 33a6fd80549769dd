/*
 * password.h - hashes and checks passwords on threads of its own: Argon2id, 19 MiB, two passes.
 *
 * Walk:       from persist/account.c (register, login); back to it by password_take.
 * Threads:    password_submit and password_take belong to one thread, the persistence thread, whose
 *             bell is rung when a job is done. Opening and closing: main, while it does not run.
 * Ownership:  a job is the caller's; between submit and take it is the pool's. The password in
 *             it is wiped before it comes back.
 * Units:      sizes in bytes.
 *
 * One hash takes about 41 ms of a processor and 19 MiB (RFC 9106 section 4 asks for more memory;
 * OWASP names 19 MiB with two passes as its equal floor), so workers and queue are bounded and what
 * does not fit is refused at once.
 *
 * Invariants: (W1) at most queue jobs wait, and workers more are in hand.
 *             (W2) a job comes back exactly once, or never if the pool is closed before.
 */
#pragma once

#include "core/doorbell.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/slice.h"

#include <stdint.h>

enum {
    PASSWORD_BYTES_MAX = 1024,
    PASSWORD_HASH_SIZE = 128, /* text with its terminating zero: crypto_pwhash_STRBYTES */
};

enum password_task { PASSWORD_HASH, PASSWORD_VERIFY };

struct password_job {
    struct password_job *next; /* the pool's */
    enum password_task task;
    int status; /* 0; -EACCES: not this password; -ENOMEM: no memory for the hash */
    uint32_t password_size;
    char password[PASSWORD_BYTES_MAX];
    char hash[PASSWORD_HASH_SIZE]; /* PASSWORD_HASH fills it in, PASSWORD_VERIFY reads it */
};

/* A hash that no password has: checking against it takes as long as against a real one. */
extern const char password_of_nobody[PASSWORD_HASH_SIZE];

struct password_pool;

struct password_options {
    uint32_t workers;
    uint32_t queue;
    const struct os_ring *ring; /* of the thread that takes: enabled before its first submit */
    struct doorbell *bell;
    uint64_t tag; /* of the event there */
};

/* Reserves the pool in the plan; password_start needs it sealed. 0 or -errno with a sentence. */
NODISCARD int password_open(const struct password_options *options, struct mem_plan *plan,
                            struct password_pool **ret, char *ret_why, size_t why_size);

/* Starts the workers: 0 or -errno, and then none runs. */
NODISCARD int password_start(struct password_pool *pool);

/* 0, or -EAGAIN: the queue is full, the job stays the caller's. */
NODISCARD int password_submit(struct password_pool *pool, struct password_job *job);

/* A job that is done, oldest first, or NULL. */
struct password_job *password_take(struct password_pool *pool);

/* Ends the workers after the job in hand; what waits is given up and wiped. */
void password_close(struct password_pool *pool);
