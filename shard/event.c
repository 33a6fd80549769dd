/* event.c - see event.h. */
#include "shard/event.h"

#include "core/check.h"

static const struct {
    const char *code;
    uint32_t status;
    const char *text;
} errors[] = {
#define ERROR(name, code, status, text) {code, status, text},
#include "shard/error_code.def"
#undef ERROR
};

const char *error_code_text(enum error_code error)
{
    return errors[error].code;
}

const char *error_code_default(enum error_code error)
{
    return errors[error].text;
}

uint32_t error_code_status(enum error_code error)
{
    return errors[error].status;
}

static struct slice text_of(const char *text)
{
    return (struct slice){text, (uint32_t)strlen(text)};
}

const char *event_durability(uint8_t durability)
{
    static const char *const names[] = {"memory", "journal", "fsync"};
    CHECK(durability < 3);
    return names[durability];
}

const char *event_role(uint8_t role)
{
    static const char *const names[] = {"none", "member", "admin", "owner"};
    CHECK(role < 4);
    return names[role];
}

uint32_t event_bytes_max(const struct event *event)
{
    /* A control character of a name becomes six bytes. */
    return EVENT_OVERHEAD_MAX + event->room_id.size + 6 * event->user_id.size +
           6 * event->username.size + event->text.size + event->data.size;
}

void event_write_time(struct json_writer *writer, uint64_t ms, struct rfc3339_cache *cache)
{
    char *room = json_write_room(writer, RFC3339_SIZE + 2);
    if (room != NULL) {
        room[0] = '"';
        rfc3339_format(cache, ms, room + 1);
        room[RFC3339_SIZE + 1] = '"';
    }
}

static void write_message(struct json_writer *writer, const struct event *event)
{
    JSON_WRITE(writer, ",\"username\":");
    json_write_string(writer, event->username);
    JSON_WRITE(writer, ",\"text\":");
    json_write_raw(writer, event->text);
    if (event->data.size > 0) {
        JSON_WRITE(writer, ",\"data\":");
        json_write_raw(writer, event->data);
    }
    if (event->reply_to > 0) {
        JSON_WRITE(writer, ",\"reply_to\":");
        json_write_u64(writer, event->reply_to);
    }
}

static void write_member(struct json_writer *writer, const struct event *event)
{
    JSON_WRITE(writer, ",\"username\":");
    json_write_string(writer, event->username);
    json_write_raw(writer, event->kind == RECORD_JOINED
                               ? SLICE(",\"action\":\"joined\",\"role\":\"")
                               : SLICE(",\"action\":\"left\",\"role\":\""));
    json_write_raw(writer, text_of(event_role(event->role)));
    JSON_WRITE(writer, "\"");
}

void event_write(struct json_writer *writer, const struct event *event, struct rfc3339_cache *cache)
{
    const bool message = event->kind == RECORD_MESSAGE;
    json_write_raw(writer, message ? SLICE("{\"type\":\"message\",\"room_id\":\"")
                                   : SLICE("{\"type\":\"member\",\"room_id\":\""));
    json_write_raw(writer, event->room_id);
    JSON_WRITE(writer, "\",\"seq\":");
    json_write_u64(writer, event->seq);
    JSON_WRITE(writer, ",\"user_id\":");
    json_write_string(writer, event->user_id);
    if (message) {
        write_message(writer, event);
    } else {
        write_member(writer, event);
    }
    JSON_WRITE(writer, ",\"created_at\":");
    event_write_time(writer, event->at_ms, cache);
    JSON_WRITE(writer, "}");
}

void event_write_id(struct json_writer *writer, struct slice id)
{
    if (id.size > 0) {
        JSON_WRITE(writer, ",\"id\":");
        json_write_raw(writer, id);
    }
}

void event_write_epoch(struct json_writer *writer, uint64_t epoch)
{
    char *room = json_write_room(writer, 18);
    for (int i = 0; room != NULL && i < 16; i++) {
        room[1 + i] = "0123456789abcdef"[epoch >> (60 - 4 * i) & 15];
    }
    if (room != NULL) {
        room[0] = '"';
        room[17] = '"';
    }
}

bool event_parse_epoch(struct slice text, uint64_t *ret)
{
    uint64_t epoch = 0;
    for (uint32_t i = 0; i < text.size; i++) {
        const char c = text.data[i];
        const bool digit = c >= '0' && c <= '9';
        if (!digit && !(c >= 'a' && c <= 'f')) {
            return false;
        }
        epoch = epoch << 4 | (uint64_t)(digit ? c - '0' : c - 'a' + 10);
    }
    *ret = epoch;
    return text.size == 16;
}

void event_write_error(struct json_writer *writer, struct slice id, enum error_code error,
                       struct slice text)
{
    JSON_WRITE(writer, "{\"type\":\"error\"");
    event_write_id(writer, id);
    JSON_WRITE(writer, ",\"code\":\"");
    json_write_raw(writer, text_of(error_code_text(error)));
    JSON_WRITE(writer, "\",\"message\":");
    json_write_string(writer, text.size > 0 ? text : text_of(error_code_default(error)));
    if (error == ERROR_RATE_LIMITED || error == ERROR_UNAVAILABLE) {
        JSON_WRITE(writer, ",\"retry_after\":1");
    }
    JSON_WRITE(writer, "}");
}
