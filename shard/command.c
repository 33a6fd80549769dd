/* command.c - see command.h. */
#include "shard/command.h"

#include "core/check.h"
#include "shard/call.h"

#include <errno.h>

static const struct slice field_names[FIELDS] = {
    [FIELD_TYPE] = {"type", 4},           [FIELD_ID] = {"id", 2},
    [FIELD_ROOM_ID] = {"room_id", 7},     [FIELD_TEXT] = {"text", 4},
    [FIELD_DATA] = {"data", 4},           [FIELD_REPLY_TO] = {"reply_to", 8},
    [FIELD_FILE_IDS] = {"file_ids", 8},   [FIELD_IDEMPOTENCY_KEY] = {"idempotency_key", 15},
    [FIELD_AFTER_SEQ] = {"after_seq", 9}, [FIELD_BEFORE_SEQ] = {"before_seq", 10},
    [FIELD_EPOCH] = {"epoch", 5},         [FIELD_LIMIT] = {"limit", 5},
    [FIELD_ORDER] = {"order", 5},         [FIELD_TOKEN] = {"token", 5},
};

bool command_wrong(struct command *command, const char *complaint)
{
    command->complaint = complaint;
    return false;
}

_Static_assert(CALL_ID_MAX == 272, "what read_id and docs/PROTOCOL.md say");

/* id: an integer, or a string of at most CALL_ID_MAX bytes as it came, with its quotes. */
static bool read_id(struct command *command)
{
    const struct json_value *id = &command->values[FIELD_ID];
    if (!command_has(command, FIELD_ID)) {
        return true;
    }
    const bool number = id->type == JSON_NUMBER && id->is_integer;
    if ((!number && id->type != JSON_STRING) || id->raw.size > CALL_ID_MAX) {
        return command_wrong(command, "id: an integer or a string of at most 272 bytes");
    }
    command->id = id->raw;
    return true;
}

bool command_read(struct slice text, struct command *command)
{
    struct json_reader reader;
    struct json_string key;
    struct json_value value;
    int got = json_open_object(&reader, text);

    for (got = got < 0 ? got : json_next_member(&reader, &key, &value); got > 0;
         got = json_next_member(&reader, &key, &value)) {
        const int field = json_key_take(&key, field_names, FIELDS, &command->seen);
        if (field == -EEXIST) {
            return command_wrong(command, "a key stands there twice");
        }
        if (field >= 0 && field < FIELDS) {
            command->values[field] = value;
        }
    }
    if (got < 0) {
        command->seen = 0;
        return command_wrong(command, json_error_text(reader.error));
    }
    if (!read_id(command)) {
        return false;
    }
    if (!command_has(command, FIELD_TYPE) || command->values[FIELD_TYPE].type != JSON_STRING) {
        return command_wrong(command, "type: a string is needed");
    }
    return true;
}

bool command_read_room(struct command *command)
{
    const struct json_value *room = &command->values[FIELD_ROOM_ID];
    if (!command_has(command, FIELD_ROOM_ID) || room->type != JSON_STRING) {
        return command_wrong(command, "room_id: a string is needed");
    }
    const int size = json_string_decode(&room->string, command->room_text, ROOM_ID_MAX);
    command->room_id = (struct slice){command->room_text, size > 0 ? (uint32_t)size : 0};
    return room_id_valid(command->room_id)
               ? true
               : command_wrong(command, "room_id: 1-64 characters of A-Z a-z 0-9 . _ -");
}

/* A seq or a count; absent is fine. */
bool command_read_number(struct command *command, enum field field, uint64_t *ret,
                         const char *complaint)
{
    CHECK(field < FIELDS);
    const struct json_value *value = &command->values[field];
    if (!command_has(command, field) || value->type == JSON_NULL) {
        command->seen &= ~(1ULL << field);
        return true;
    }
    if (value->type != JSON_NUMBER || !value->is_integer || value->integer < 0) {
        return command_wrong(command, complaint);
    }
    *ret = (uint64_t)value->integer;
    return true;
}
