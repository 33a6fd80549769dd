/*
 * event.h - the JSON of what the server says: events, answers, errors; each is built here once.
 *
 * Walk:       from shard/room_home.c (events, into the room's log) and shard/session.c (answers).
 * Threads:    any.
 */
#pragma once

#include "core/json.h"
#include "core/rfc3339.h"
#include "core/slice.h"
#include "shard/call.h"
#include "shard/room.h"

#include <stdint.h>

enum { EVENT_OVERHEAD_MAX = 512 }; /* bytes of an event beside its variable parts */

/* What an event says. text and data are raw JSON values. */
struct event {
    uint8_t kind; /* enum record_kind */
    uint8_t role;
    uint64_t seq;
    uint64_t at_ms;
    uint64_t reply_to; /* 0: none */
    struct slice room_id, user_id, username, text, data;
};

/* Most bytes that event_write may need. */
uint32_t event_bytes_max(const struct event *event);
void event_write(struct json_writer *writer, const struct event *event,
                 struct rfc3339_cache *cache);

/* Appends ,"id":<token> if there is one. */
void event_write_id(struct json_writer *writer, struct slice id);

void event_write_time(struct json_writer *writer, uint64_t ms, struct rfc3339_cache *cache);

/* Appends an epoch as the string that clients see. */
void event_write_epoch(struct json_writer *writer, uint64_t epoch);

/* Reads one back; false: none of ours, which matches no epoch. */
bool event_parse_epoch(struct slice text, uint64_t *ret);

/* {"type":"error",...} of the WebSocket protocol; text may be empty: the code's own. */
void event_write_error(struct json_writer *writer, struct slice id, enum error_code error,
                       struct slice text);

const char *event_durability(uint8_t durability);
const char *event_role(uint8_t role);
