/*
 * flush_takeover_many.h - DRAIN of many small rooms at once, where nothing is out of order; nobody
 *                         but flush_takeover.c includes it.
 *
 * Walk:       from drain_lists in flush_takeover.c, which does what is left here room by room; to
 *             persist/cache.h and persist/store_mongo_ends.h.
 */
#pragma once

#include "persist/flush_own.h"

enum { FLUSH_MANY_LISTS = 512 /* of all rooms of a call, hence rooms too */ };

struct flush_many_room {
    struct flush_list *lists; /* by owner and number, the log last */
    uint32_t count;
    bool left; /* nothing of it was removed: it is for the way that takes one room */
};

/* Claims the rooms that are not left, and brings each wholly into MongoDB and removes its lists, or
 * sets left: what is large, unknown to MongoDB, or not just as it should be. 0, or what
 * flush_failed* returned. */
NODISCARD int flush_takeover_many(struct flusher *flusher, struct flush_many_room *rooms,
                                  uint32_t count);
