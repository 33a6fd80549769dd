/*
 * fields.h - the fields of one JSON object from the server, found in one pass and in any order.
 *
 * Threads:    pure functions.
 * Ownership:  slices point into the bytes that were scanned.
 * Units:      none; numbers are the server's.
 *
 * This is not the server's JSON codec on purpose: a loader that shared it would share its
 * misreadings. It reads flat objects of the protocol and skips whatever it does not know.
 */
#pragma once

#include "core/slice.h"

#include <stddef.h>

enum {
    FIELDS_SEQ = 1 << 0,
    FIELDS_ID = 1 << 1,
    FIELDS_FROM_SEQ = 1 << 2,
    FIELDS_TO_SEQ = 1 << 3,
    FIELDS_LAST_SEQ = 1 << 4,
};

struct fields {
    struct slice type, room_id, text, user_id, durability, code, message;
    uint64_t seq, id, from_seq, to_seq, last_seq;
    uint32_t present;  /* FIELDS_ bits of the numbers that were there */
    uint32_t repeated; /* known keys that came twice */
};

/* Strings come raw, without their quotes and with their escapes. 0, or -EBADMSG if the bytes are
 * not one object; ret is then undefined in part. */
int fields_scan(const char *data, size_t size, struct fields *ret);

static inline bool fields_is(struct slice value, const char *literal, uint32_t size)
{
    return value.size == size && memcmp(value.data, literal, size) == 0;
}

#define FIELDS_IS(value, literal) fields_is((value), (literal), sizeof(literal) - 1)
