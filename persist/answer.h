/*
 * answer.h - answers what shards ask about rooms and history, and makes rooms, out of a store.
 *
 * Walk:       from embedded.c on the persistence thread, or from reader.c on a reader's; to the
 *             store, and back by the answerer's own way of replying.
 * Threads:    an answerer belongs to one thread.
 * Ownership:  its memory is planned by whoever has it; requests are read during the call.
 */
#pragma once

#include "core/mem.h"
#include "persist/password.h"
#include "persist/persist.h"
#include "persist/store.h"

#include <stdbool.h>
#include <stdint.h>

struct answerer;
struct account_job;

/* How replies go, and what it means to write: in the embedded mode into the open transaction, with
 * replies held until its commit (persist/batch.h has the meaning of each); in front of MongoDB
 * everything written is durable at once. */
struct answerer_ops {
    /* A reply that tells nothing that was written by this answerer and is not durable. */
    void (*reply)(struct answerer *answerer, uint32_t lane, const void *reply, uint32_t size);
    /* Size of the largest one that the lane can take. */
    uint32_t (*reply_max)(const struct answerer *answerer, uint32_t lane);
    /* Before a read: whether it sees all records handed over before it. */
    bool (*is_readable)(struct answerer *answerer);
    /* Before a read that could show an account or room that is not durable. */
    void (*settle)(struct answerer *answerer);
    /* Before an account or room is written: 0, or -EAGAIN. */
    int (*write)(struct answerer *answerer);
    /* It could not be written, by an error of the store. */
    void (*refuse)(struct answerer *answerer, int error);
    /* The reply to what was written, once that is durable. */
    void (*written)(struct answerer *answerer, uint32_t lane, const void *reply, uint32_t size);
    /* Any other reply about an account or room: not before what it could tell of is durable. */
    void (*reply_behind)(struct answerer *answerer, uint32_t lane, const void *reply,
                         uint32_t size);
};

struct answerer {
    const struct answerer_ops *ops;
    struct store *store;
    uint8_t *page; /* where an answer is composed, of page_bytes */
    uint32_t page_bytes;
    uint32_t keys_max;
    struct password_pool *passwords; /* NULL: accounts with passwords are another one's */
    struct account_job *jobs;        /* free ones */
    uint32_t job_count;
};

/* A reply about one account or room is at most this long. */
enum { ANSWER_REPLY_MAX = 4096 };

/* Answers one request of size bytes but PERSIST_RECORD. A request is our own shard's: that its
 * sizes add up is CHECKed; what a client may have put into it is answered with -EINVAL. */
void answer_request(struct answerer *answerer, uint32_t lane, const void *request, uint32_t size);

/* The final reply to a request that is not even looked at, with that status (-EAGAIN, mostly).
 * request: its head is enough; or the final reply that it was to have, about a user or room.
 * Returns the size written; reply holds ANSWER_REPLY_MAX. */
uint32_t answer_refusal(const void *request, int status, void *reply);

/* A random name of 12 characters of a-z 0-9 (62 bits), for a room that was given none. */
void answer_room_name(char name[12]);
