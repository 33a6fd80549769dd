/* fields.c - see fields.h. */
#include "bench/fields.h"

#include <errno.h>

/* A position in the bytes; every step checks against end. */
struct cursor {
    const char *at;
    const char *end;
};

static void skip_space(struct cursor *c)
{
    while (c->at < c->end &&
           (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) {
        c->at++;
    }
}

static bool take(struct cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted) {
        return false;
    }
    c->at++;
    return true;
}

/* Expects the cursor on a quote. Control characters must be escaped (RFC 8259 section 7). */
static bool take_string(struct cursor *c, struct slice *ret)
{
    if (!take(c, '"')) {
        return false;
    }
    const char *const start = c->at;
    for (; c->at < c->end; c->at++) {
        const unsigned char byte = (unsigned char)*c->at;
        if (byte == '"') {
            *ret = (struct slice){start, (uint32_t)(c->at - start)};
            c->at++;
            return true;
        }
        if (byte < 0x20) {
            return false;
        }
        if (byte == '\\' && ++c->at == c->end) {
            return false;
        }
    }
    return false;
}

static bool take_number(struct cursor *c, uint64_t *ret)
{
    uint64_t value = 0;

    skip_space(c);
    const char *const start = c->at;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (c->at - start >= 19) { /* 10^19 - 1 still fits 64 bits */
            return false;
        }
        value = value * 10 + (uint64_t)(*c->at - '0');
    }
    if (c->at == start) {
        return false;
    }
    *ret = value;
    return true;
}

/* Skips an array or object by its depth; brackets inside strings do not count. */
static bool skip_nested(struct cursor *c)
{
    struct slice ignored;
    uint32_t depth = 0;

    while (c->at < c->end) {
        if (*c->at == '"') {
            if (!take_string(c, &ignored)) {
                return false;
            }
            continue;
        }
        const char byte = *c->at++;
        if (byte == '{' || byte == '[') {
            depth++;
        } else if ((byte == '}' || byte == ']') && --depth == 0) {
            return true;
        }
    }
    return false;
}

static bool skip_value(struct cursor *c)
{
    struct slice ignored;

    skip_space(c);
    if (c->at == c->end) {
        return false;
    }
    if (*c->at == '"') {
        return take_string(c, &ignored);
    }
    if (*c->at == '{' || *c->at == '[') {
        return skip_nested(c);
    }
    const char *const start = c->at;
    while (c->at < c->end && *c->at != ',' && *c->at != '}' && *c->at != ']') {
        c->at++;
    }
    return c->at > start;
}

static struct slice *string_of(struct fields *fields, struct slice key)
{
    const struct {
        struct slice name;
        struct slice *value;
    } known[] = {
        {SLICE("type"), &fields->type},
        {SLICE("room_id"), &fields->room_id},
        {SLICE("text"), &fields->text},
        {SLICE("user_id"), &fields->user_id},
        {SLICE("durability"), &fields->durability},
        {SLICE("code"), &fields->code},
        {SLICE("message"), &fields->message},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (slice_equal(key, known[i].name)) {
            return known[i].value;
        }
    }
    return NULL;
}

static uint64_t *number_of(struct fields *fields, struct slice key, uint32_t *ret_bit)
{
    const struct {
        struct slice name;
        uint64_t *value;
        uint32_t bit;
    } known[] = {
        {SLICE("seq"), &fields->seq, FIELDS_SEQ},
        {SLICE("id"), &fields->id, FIELDS_ID},
        {SLICE("from_seq"), &fields->from_seq, FIELDS_FROM_SEQ},
        {SLICE("to_seq"), &fields->to_seq, FIELDS_TO_SEQ},
        {SLICE("last_seq"), &fields->last_seq, FIELDS_LAST_SEQ},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (slice_equal(key, known[i].name)) {
            *ret_bit = known[i].bit;
            return known[i].value;
        }
    }
    return NULL;
}

static bool take_member(struct cursor *c, struct fields *fields)
{
    struct slice key;
    struct slice *string;
    uint64_t *number;
    uint32_t bit = 0;

    if (!take_string(c, &key) || !take(c, ':')) {
        return false;
    }
    skip_space(c);
    if (c->at == c->end) {
        return false;
    }
    if (*c->at == '"' && (string = string_of(fields, key)) != NULL) {
        fields->repeated += string->data != NULL;
        return take_string(c, string);
    }
    if (*c->at >= '0' && *c->at <= '9' && (number = number_of(fields, key, &bit)) != NULL) {
        fields->repeated += (fields->present & bit) != 0;
        fields->present |= bit;
        return take_number(c, number);
    }
    return skip_value(c);
}

int fields_scan(const char *data, size_t size, struct fields *ret)
{
    struct cursor c = {data, data + size};

    *ret = (struct fields){0};
    if (!take(&c, '{')) {
        return -EBADMSG;
    }
    if (!take(&c, '}')) {
        do {
            skip_space(&c);
            if (!take_member(&c, ret)) {
                return -EBADMSG;
            }
        } while (take(&c, ','));
        if (!take(&c, '}')) {
            return -EBADMSG;
        }
    }
    skip_space(&c);
    return c.at == c.end && ret->repeated == 0 ? 0 : -EBADMSG;
}
