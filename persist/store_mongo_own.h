/*
 * store_mongo_own.h - what the files of the MongoDB store share; nobody else includes it.
 *
 * Walk:       from store_mongo.c (opening, schema, owner, run; the helpers below) to
 *             store_mongo_write.c, store_mongo_read.c and store_mongo_user.c.
 * Threads:    as persist/store_mongo.h says: one at a time.
 * Ownership:  what store_mongo_text and its like give points into the document; what
 *             store_mongo_keep gives lies in the store, until store_mongo_keep_begin.
 *
 * A function that calls persist/mongo.h ends with `return store_mongo_fail(store, error, "...")` if
 * that failed: the words behind store_mongo_why are made there and nowhere else.
 */
#pragma once

#include "core/hash.h"
#include "persist/mongo.h"
#include "persist/store_mongo.h"

enum {
    STORE_MONGO_ROOM_MAX = 64,   /* bytes of a room_id, and of a user_id */
    STORE_MONGO_TEXT_MAX = 2048, /* a row's texts when it is handed out: name 1024, ids, username */
    STORE_MONGO_WHY_BYTES = 1024,
};

#define STORE_MONGO_EVENTS     "events"
#define STORE_MONGO_ROOMS      "rooms"
#define STORE_MONGO_MEMBERS    "members"
#define STORE_MONGO_USERS      "users"
#define STORE_MONGO_QUARANTINE "quarantine"
#define STORE_MONGO_META       "meta"

/* What store_mongo_keys_read collects, newest first, to hand it out oldest first. */
struct store_mongo_key {
    uint8_t key_digest[16];
    uint64_t content_digest;
    uint64_t seq;
    uint64_t at_ms;
};

struct store_mongo_batch; /* store_mongo_write.c: documents and lists of one insert */

struct store_mongo {
    struct mongo *mongo;
    struct mongo_client *client;
    struct mongo_error error; /* ret_error of every call to persist/mongo.h */
    struct store_mongo_key *keys;
    uint32_t keys_max;
    struct store_mongo_batch *batch;
    uint32_t text_used;
    char text[STORE_MONGO_TEXT_MAX];
    char why[STORE_MONGO_WHY_BYTES];
};

/* Writes what store_mongo_why says: that what ("read the members of a room") failed with
 * store->error, where, and what to do about it. Returns error, which is what the caller returns. If
 * error is not that of store->error (a callback's), the words are the error's own. */
int store_mongo_fail(struct store_mongo *store, int error, const char *what);

/* --- ids --- */

/* An event's _id: room_id, then seq as 8 bytes big-endian. room_id: at most STORE_MONGO_ROOM_MAX
 * (CHECKed). Returns its size. */
uint32_t store_mongo_event_id(struct slice room_id, uint64_t seq, uint8_t ret[STORE_MONGO_ID_MAX]);

/* A record's identity (its mid). */
uint64_t store_mongo_mid(struct slice record);

/* --- documents, written; every one fits, for our documents are far below INT32_MAX bytes --- */

void store_mongo_put_text(bson_t *document, const char *name, struct slice text);
/* int64 with the same bits. */
void store_mongo_put_number(bson_t *document, const char *name, uint64_t number);
void store_mongo_put_bytes(bson_t *document, const char *name, struct slice bytes);
/* The event's _id under any name ("_id", "$gte"). */
void store_mongo_put_event_id(bson_t *document, const char *name, struct slice room_id,
                              uint64_t seq);
/* {name: {$gte: prefix + "/", $lt: prefix + "0"}}: the members of a room, by _id ('0' follows '/').
 */
void store_mongo_put_member_range(bson_t *document, const char *name, struct slice room_id);

/* --- documents, read; a field that is not there, or of another type, is empty or 0: somebody
 * edited the database, and what cannot be is refused by who needs it --- */

struct slice store_mongo_text(const bson_t *document, const char *name);
/* int64, int32, double or bool. */
uint64_t store_mongo_number(const bson_t *document, const char *name);
struct slice store_mongo_bytes(const bson_t *document, const char *name);
bool store_mongo_has(const bson_t *document, const char *name);

/* A text copied to where it outlives the document: until store_mongo_keep_begin. Cut where
 * STORE_MONGO_TEXT_MAX ends, so that it stays bounded. */
void store_mongo_keep_begin(struct store_mongo *store);
struct slice store_mongo_keep(struct store_mongo *store, struct slice text);

/* --- store_mongo_write.c --- */

/* Bytes of a batch; all zero is one before its first use. */
size_t store_mongo_batch_size(void);
/* Gives libbson's buffers back. */
void store_mongo_batch_end(struct store_mongo_batch *batch);
