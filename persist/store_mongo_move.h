/*
 * store_mongo_move.h - what store_mongo_move.c reads pages with: queries in order, and documents
 *                      into rows. Nobody else includes it.
 *
 * Ownership:  slices of a decoded row point into the document.
 */
#pragma once

#include "persist/move_store.h"
#include "persist/store_mongo_batch.h"
#include "persist/store_mongo_row.h"

#include <stdlib.h>

enum {
    USER_NAME_MAX = 128,
    ROOM_NAME_MAX = 1024,
    TEXT_MAX = 512,
    KEY_BYTES = 16,
    MEMBER_ID_MAX = 2 * STORE_MONGO_ROOM_MAX + 1,
    QUARANTINED = UINT8_MAX, /* role of a row while pages are merged */
    CHECK_NS = 1000 * 1000 * 1000,
};

#define SEQ_MAX ((uint64_t)INT64_MAX)

struct mongo_move {
    struct move_store base;
    struct store_mongo *store;
    uint64_t owner;
    uint64_t checked_ns;
    bool quarantine; /* there is something in it */
    uint32_t refused_count;
    uint16_t refused[MOVE_ROWS]; /* rows of the bulk at hand */
    char *record;                /* where one is encoded, MOVE_ROW_BYTES_MAX */
};

_Static_assert((int)MOVE_ROWS == (int)MONGO_BULK_MAX && (int)MOVE_ROWS <= (int)BATCH,
               "a page is a bulk");
_Static_assert((int)MOVE_ROOMS <= (int)BATCH, "so is a page of rooms");

static inline struct mongo_move *page_of(struct move_store *base)
{
    return (struct mongo_move *)(void *)base; /* base is its first member */
}

/* --- what went wrong --- */

static inline int page_fail(struct mongo_move *move, int error, const char *what)
{
    if (error < 0 && error != -ENOENT) {
        (void)store_mongo_fail(move->store, error, what);
        (void)snprintf(move->base.why, sizeof(move->base.why), "%s", store_mongo_why(move->store));
    }
    return error;
}

/* The same after a call that has found its words. */
static inline int page_failed(struct mongo_move *move, int error)
{
    if (error < 0) {
        (void)snprintf(move->base.why, sizeof(move->base.why), "%s", store_mongo_why(move->store));
    }
    return error;
}

/* --- queries --- */

/* Rows in the order of field, at most limit. */
/* NOLINTNEXTLINE(readability-function-size): seven parameters, each another thing */
static inline int page_find(struct mongo_move *move, const char *collection, const bson_t *filter,
                            const char *field, uint32_t limit, mongo_row row, void *context)
{
    bson_t options = BSON_INITIALIZER;

    BCON_APPEND(&options, "sort", "{", field, BCON_INT32(1), "}", "limit", BCON_INT64(limit),
                "batchSize", BCON_INT32((int32_t)limit + 1));
    const int error = mongo_find(move->store->client, collection, filter, &options, row, context,
                                 &move->store->error);
    bson_destroy(&options);
    return error;
}

/* {_id: {$gt: the cursor}}, or {} at the first row. */
static inline void page_after(bson_t *filter, const struct move_cursor *cursor)
{
    bson_t range;

    if (cursor->id_bytes > 0) {
        CHECK(bson_append_document_begin(filter, "_id", -1, &range));
        store_mongo_put_text(&range, "$gt", (struct slice){cursor->id, cursor->id_bytes});
        CHECK(bson_append_document_end(filter, &range));
    }
}

static inline struct slice page_member_id(struct slice room_id, struct slice user_id,
                                          char ret[MEMBER_ID_MAX])
{
    CHECK(room_id.size <= STORE_MONGO_ROOM_MAX && user_id.size <= STORE_MONGO_ROOM_MAX);
    memcpy(ret, room_id.data, room_id.size);
    ret[room_id.size] = '/';
    memcpy(ret + room_id.size + 1, user_id.data, user_id.size);
    return (struct slice){ret, room_id.size + 1 + user_id.size};
}

/* What a page is read into. */
struct reading {
    struct mongo_move *move;
    const struct move_room *room;
    uint16_t index;
    struct move_cursor *cursor;
    struct move_rows *rows;
    struct move_rooms *page;
    uint32_t limit;
    uint32_t seen;
    bool full; /* ended by us: there may be more */
    uint64_t last_quarantined;
};

/* --- documents --- */

static inline int page_user(struct mongo_move *move, const bson_t *document, struct store_user *ret)
{
    struct row_fields fields = {.document = document};

    *ret = (struct store_user){
        .user_id = row_text(&fields, "_id", 1, STORE_MONGO_ROOM_MAX),
        .username = row_text(&fields, "username", 1, USER_NAME_MAX),
        .folded = row_text(&fields, "folded", 1, USER_NAME_MAX),
        .display_name = row_text(&fields, "display_name", 0, TEXT_MAX),
        .password = row_text(&fields, "password", 0, TEXT_MAX),
        .created_ms = row_number(&fields, "created_at", INT64_MAX),
    };
    return row_damaged(move->store, STORE_MONGO_USERS, &fields);
}

static inline int page_room(struct mongo_move *move, const bson_t *document, struct move_room *ret)
{
    struct row_fields fields = {.document = document};

    *ret = (struct move_room){
        .room = {.epoch = row_number(&fields, "epoch", UINT64_MAX),
                 .created_ms = row_number(&fields, "created_at", INT64_MAX),
                 .member_count = (uint32_t)row_number(&fields, "member_count", UINT32_MAX),
                 .members_max = (uint32_t)row_number(&fields, "members_max", UINT32_MAX),
                 .visibility = (uint8_t)row_number(&fields, "visibility", 1),
                 .durability = (uint8_t)row_number(&fields, "durability", UINT8_MAX),
                 .room_id = row_text(&fields, "_id", 1, STORE_MONGO_ROOM_MAX),
                 .name = row_text(&fields, "name", 0, ROOM_NAME_MAX)},
        .owner_id = row_text(&fields, "owner_id", 0, STORE_MONGO_ROOM_MAX),
        .owner_name = row_text(&fields, "owner_name", 0, USER_NAME_MAX),
        .renew = store_mongo_number(document, "renew") != 0,
    };
    return row_damaged(move->store, STORE_MONGO_ROOMS, &fields);
}

/* An event, which must have a seq above after: it has that of its _id. */
static inline int page_event(struct mongo_move *move, const bson_t *document, uint64_t after,
                             struct record *ret)
{
    struct row_fields fields = {.document = document};
    const bool keyed = store_mongo_has(document, "key");

    *ret = (struct record){
        .kind = (uint8_t)row_number(&fields, "kind", RECORD_LEFT),
        .flags = keyed ? RECORD_KEYED : 0,
        .epoch = row_number(&fields, "epoch", UINT64_MAX),
        .seq = row_number(&fields, "seq", SEQ_MAX),
        .at_ms = row_number(&fields, "at", INT64_MAX),
        .user_id = row_text(&fields, "user_id", 1, STORE_MONGO_ROOM_MAX),
        .body = row_text(&fields, "body", 0, MOVE_ROW_BYTES_MAX - 1024),
    };
    if (keyed) {
        const struct slice key = row_bytes(&fields, "key", KEY_BYTES, KEY_BYTES);
        ret->content_digest = row_number(&fields, "digest", UINT64_MAX);
        memcpy(ret->key_digest, key.data, key.size);
    }
    if (ret->kind < RECORD_MESSAGE) {
        fields.wrong = fields.wrong != NULL ? fields.wrong : "kind";
    }
    if (ret->seq <= after) {
        fields.wrong = fields.wrong != NULL ? fields.wrong : "seq"; /* it is not that of its _id */
    }
    return row_damaged(move->store, STORE_MONGO_EVENTS, &fields);
}

/* The record of a message in quarantine; its texts lie in the document. */
static inline int page_quarantined(struct mongo_move *move, const bson_t *document,
                                   struct slice room_id, struct record *ret)
{
    struct row_fields fields = {.document = document};

    const uint64_t seq = row_number(&fields, "seq", SEQ_MAX);
    const struct slice bytes =
        row_bytes(&fields, "record", RECORD_HEADER_BYTES, MOVE_ROW_BYTES_MAX - 1024);
    if (fields.wrong == NULL && (record_decode(bytes.data, bytes.size, ret) < 0 ||
                                 ret->seq != seq || !slice_equal(ret->room_id, room_id))) {
        fields.wrong = "record";
    }
    return row_damaged(move->store, STORE_MONGO_QUARANTINE, &fields);
}

/* --- pages of events --- */

/* By seq; what is in events before what is in quarantine. */
static inline int page_compare(const void *left, const void *right)
{
    const struct record *a = left;
    const struct record *b = right;

    return a->seq != b->seq ? (a->seq > b->seq) - (a->seq < b->seq)
                            : (a->role > b->role) - (a->role < b->role);
}

/* Puts the rows from first on into order, one for each seq, none beyond to. */
static inline void page_merge(struct move_rows *rows, uint32_t first, uint64_t to)
{
    uint32_t kept = first;

    qsort(rows->events + first, rows->count - first, sizeof(rows->events[0]), page_compare);
    for (uint32_t i = first; i < rows->count; i++) {
        const struct record *event = &rows->events[i];
        if (event->seq <= to && (kept == first || rows->events[kept - 1].seq != event->seq)) {
            rows->events[kept] = *event;
            rows->events[kept++].role = ROLE_NONE;
        }
    }
    rows->count = kept;
}
