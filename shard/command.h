/*
 * command.h - one message of a client as fields: what damso.v1 lets it say, checked for shape and
 * type.
 *
 * Walk:       from shard/session.c (session_message); values point into the message.
 * Threads:    its shard's.
 * Ownership:  a command is the caller's; its slices live as long as the message's bytes.
 */
#pragma once

#include "core/json.h"
#include "shard/room.h"

#include <stdbool.h>
#include <stdint.h>

enum field {
    FIELD_TYPE,
    FIELD_ID,
    FIELD_ROOM_ID,
    FIELD_TEXT,
    FIELD_DATA,
    FIELD_REPLY_TO,
    FIELD_FILE_IDS,
    FIELD_IDEMPOTENCY_KEY,
    FIELD_AFTER_SEQ,
    FIELD_BEFORE_SEQ,
    FIELD_EPOCH,
    FIELD_LIMIT,
    FIELD_ORDER,
    FIELD_TOKEN,
    FIELDS
};

struct command {
    uint64_t seen; /* bits of enum field */
    struct json_value values[FIELDS];
    struct slice id; /* raw, or empty */
    struct slice room_id;
    const char *complaint; /* what is wrong with it */
    char room_text[ROOM_ID_MAX];
};

/* Whether the field was there (a number that is null counts as absent once it was read). */
static inline bool command_has(const struct command *command, enum field field)
{
    return (command->seen >> field & 1) != 0;
}

/* Reads the whole message, its type and id. These and those below: false, and command->complaint
 * says why. */
bool command_read(struct slice text, struct command *command);

/* room_id, needed. */
bool command_read_room(struct command *command);

/* A seq or a count; absent is fine and leaves *ret. */
bool command_read_number(struct command *command, enum field field, uint64_t *ret,
                         const char *complaint);

/* Notes a complaint; always false. */
bool command_wrong(struct command *command, const char *complaint);
