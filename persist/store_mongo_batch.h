/*
 * store_mongo_batch.h - one insert on its way through store_mongo_write.c and store_mongo_member.c;
 *                       nobody else includes it.
 *
 * Ownership:  documents keep libbson's buffers from one insert to the next, so that a batch
 *             allocates nothing once it has seen its largest. Records point into bytes of the
 *             caller's.
 */
#pragma once

#include "persist/store_mongo_own.h"

enum {
    BATCH = MONGO_BULK_MAX,
    TABLE = 2048,      /* slots of a look-up by hash; a power of two above BATCH */
    REASON_BYTES = 96, /* of the server's words that are kept */
    TOLD_ROOMS = 64,   /* whose conflict was told */
};

/* What is known of a record on its way. */
enum state {
    UNREAD,    /* no record */
    SENT,      /* stored, unless told otherwise */
    DUPLICATE, /* its _id is taken: by whom is asked in step 3 */
    REFUSED,
    FOREIGN, /* its _id is another message's */
    UNKEPT,  /* quarantine refused it too */
};

struct item {
    struct record record;
    uint64_t mid;
    uint64_t id_hash;
    uint8_t id[STORE_MONGO_ID_MAX];
    uint8_t id_size;
    uint8_t state; /* enum state */
    bool text;     /* its ids, username and body are UTF-8 */
    int32_t code;
    int error;
    char reason[REASON_BYTES];
};

/* Look-up of an item by 64 bits: open addressing, never more than BATCH of TABLE slots used. */
struct table {
    uint16_t slots[TABLE]; /* index + 1; 0: free */
};

struct store_mongo_batch {
    bson_t documents[2 * BATCH];
    const bson_t *list[BATCH];
    struct mongo_update updates[BATCH];
    struct item items[BATCH];
    struct table table;
    uint16_t chosen[BATCH]; /* items that a step is about */
    uint32_t made;          /* documents that were ever initialised */
    uint32_t count;
    uint32_t whole_refusals; /* items that a server refused not as a document but as a command */
    uint64_t told[TOLD_ROOMS];
    uint32_t told_count;
};

/* An empty document with the buffer of the one before it. Asked for in the order of index. */
bson_t *store_mongo_blank(struct store_mongo_batch *batch, uint32_t index);

static inline uint64_t store_mongo_hash(const void *data, size_t size)
{
    /* Not keyed: whoever finds ids that collide makes a batch cost BATCH * BATCH compares, 1 ms. */
    static const struct hash_key key;
    return hash_bytes(&key, data, size);
}

/* Slot of a hash at the step-th attempt. */
static inline uint32_t store_mongo_table_slot(uint64_t hash, uint32_t step)
{
    return ((uint32_t)hash + step) & (TABLE - 1);
}

static inline void store_mongo_table_put(struct table *table, uint64_t hash, uint32_t index)
{
    uint32_t step = 0;

    CHECK(index < BATCH);
    while (table->slots[store_mongo_table_slot(hash, step)] != 0) {
        step++;
        CHECK(step < TABLE);
    }
    table->slots[store_mongo_table_slot(hash, step)] = (uint16_t)(index + 1);
}

/* Steps 5 and 6 of an insert: 0, or -errno with the store's words. */
int store_mongo_apply_members(struct store_mongo *store);
