/*
 * store_mongo_ends.h - whether the rooms of a takeover are there, and whether their messages follow
 *                      what MongoDB has: two queries for many rooms, where store_mongo_epoch and
 *                      store_mongo_last_seq are three for each.
 *
 * Walk:       from persist/flush_takeover_many.c; to persist/mongo.h.
 * Threads:    as persist/store_mongo.h says: a store belongs to one thread.
 *
 * A room's last seq in events cannot be had of many rooms at once without reading all that they
 * have. Whether one event is there can: by _id. If it is, the last seq is not below it.
 */
#pragma once

#include "persist/store_mongo.h"

enum { STORE_MONGO_ENDS_MAX = 1000 };

struct store_mongo_end {
    struct slice room_id; /* no other has the same */
    uint64_t before_seq;  /* of the event that is looked for; 0: none is */
    bool known;           /* set by us: the room is there */
    bool follows;         /* set by us: the event is there, or none was looked for */
};

/* Up to STORE_MONGO_ENDS_MAX rooms. 0, or -errno as store_mongo.h says: then known and follows say
 * nothing. */
NODISCARD int store_mongo_ends(struct store_mongo *store, struct store_mongo_end *ends,
                               uint32_t count);
