/*
 * record.h - one durable event as bytes: what the journal stores and persistence takes.
 *
 * Walk:       from shard/room_home.c (publish) into fileio/journal.c; to persist/persist.c.
 * Ownership:  slices of a decoded record point into the bytes it was decoded from.
 * Units:      sizes in bytes, time in milliseconds since 1970.
 *
 * Layout, little endian: 64 bytes, then room_id, user_id, username and body without separators.
 *
 *     version 1 | kind 1 | role 1 | flags 1 | room_id size 1 | user_id size 1 | username size 1
 *     0 1 | body size 4 | 0 4 | epoch 8 | seq 8 | at_ms 8 | key_digest 16 | content_digest 8
 */
#pragma once

#include "core/slice.h"

#include <stdint.h>

enum record_kind {
    RECORD_MESSAGE = 1,
    RECORD_JOINED = 2, /* user_id became a member with role */
    RECORD_LEFT = 3,   /* user_id is no longer a member */
};

enum record_role { ROLE_NONE = 0, ROLE_MEMBER = 1, ROLE_ADMIN = 2, ROLE_OWNER = 3 };

enum { RECORD_HEADER_BYTES = 64, RECORD_KEYED = 1 /* flag: key_digest is set */ };

struct record {
    uint8_t kind; /* enum record_kind */
    uint8_t role; /* enum record_role */
    uint8_t flags;
    uint64_t epoch; /* of the room's log */
    uint64_t seq;
    uint64_t at_ms;
    uint8_t key_digest[16]; /* of (user_id, idempotency_key); all zero without RECORD_KEYED */
    uint64_t content_digest;
    struct slice room_id;  /* 1-64 bytes */
    struct slice user_id;  /* 1-64 bytes */
    struct slice username; /* 0-128 bytes */
    struct slice body;     /* the event as pushed: one JSON object */
};

static inline uint32_t record_size(const struct record *record)
{
    return RECORD_HEADER_BYTES + record->room_id.size + record->user_id.size +
           record->username.size + record->body.size;
}

/* Writes exactly record_size bytes. The record must keep the bounds above (CHECKed). */
void record_encode(const struct record *record, void *bytes);

/* 0, or -EBADMSG when the bytes are no record: wrong version, kind, or sizes that do not add up. */
__attribute__((warn_unused_result)) int record_decode(const void *bytes, uint32_t size,
                                                      struct record *ret);
