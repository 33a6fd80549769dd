/*
 * json.h - JSON text (RFC 8259) read in place, and written into a bounded buffer.
 *
 * DESIGN  The reader pulls: it walks one object (or array) member by member over one complete
 *         buffer, copies nothing and allocates nothing. A nested object or array is validated whole
 *         and handed out as the slice of its text, so that `data` can be passed on as it came; to
 *         look inside, open another reader on that slice.
 *
 *             json_open_object(&reader, text);
 *             while ((got = json_next_member(&reader, &key, &value)) > 0) {
 *                 switch (json_key_take(&key, names, NAMES, &seen)) { ... }
 *             }
 *             if (got < 0) { refuse: json_error_text(reader.error), reader.error_at }
 *
 * Walk:       from shard sessions and REST; writing: events, answers, and core/http.c's heads.
 * Threads:    any; a reader or a writer belongs to whoever declared it.
 * Ownership:  slices point into the caller's text and live as long as it does.
 * Units:      sizes and offsets are in bytes, counts of text in code points.
 *
 * Invariants: (J1) a text is good only when the reader has returned 0: act on nothing before. What
 *                  follows the members already seen may be wrong.
 *             (J2) strict: no trailing comma, comment, leading zero, NaN, byte order mark, raw
 *                  control character, invalid UTF-8 or lone surrogate escape passes, at any depth.
 *             (J3) at most JSON_DEPTH_MAX objects and arrays inside each other, the outermost
 *                  included; work and stack are bounded by the size of the text, never recursive.
 *             (J4) a string's decoded text is valid UTF-8, never longer than its raw text. It may
 *                  hold U+0000 (from \u0000): sizes say where text ends, never a NUL.
 */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum { JSON_DEPTH_MAX = 32 };

enum json_error {
    JSON_ERROR_NONE,
    JSON_ERROR_SYNTAX,    /* something else was due here */
    JSON_ERROR_END,       /* the text stops before the value does */
    JSON_ERROR_TYPE,      /* good so far, but not the object or array that the caller opened */
    JSON_ERROR_DEPTH,     /* more than JSON_DEPTH_MAX deep */
    JSON_ERROR_UTF8,      /* a string holds what is not UTF-8 */
    JSON_ERROR_CONTROL,   /* U+0000 to U+001F in a string without escape */
    JSON_ERROR_ESCAPE,    /* a backslash and then none of "\/bfnrtu, or not four hex digits */
    JSON_ERROR_SURROGATE, /* an escape of half a surrogate pair */
    JSON_ERROR_NUMBER,    /* leading zero, bare minus, no digit after a point or an e, ... */
    JSON_ERROR_TRAILING,  /* more than white space after the value */
};

enum json_type {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

struct json_string {
    struct slice raw; /* as it came, between the quotes */
    uint32_t size;    /* bytes once decoded; raw.size if not escaped */
    uint32_t count;   /* code points once decoded */
    bool escaped;     /* holds a backslash: use json_string_decode; else raw is the text itself */
};

struct json_value {
    enum json_type type;
    bool is_integer;           /* JSON_NUMBER: no fraction, no exponent, and it fits integer */
    struct slice raw;          /* the whole token as it came, quotes and brackets included */
    int64_t integer;           /* JSON_NUMBER with is_integer; -0 is 0 */
    struct json_string string; /* JSON_STRING only */
};

/* A walk over one object or array. All but the two error fields is the reader's own business. */
struct json_reader {
    const char *data;
    uint32_t size;
    uint32_t at;
    char close;            /* } or ], what ends the container that is being walked */
    bool begun;            /* a member was given: a comma must come before the next */
    bool done;             /* the end was given: so is every further answer */
    enum json_error error; /* set when a call has returned -EBADMSG */
    uint32_t error_at;     /* offset into the text of what is wrong */
};

/* Begins to walk the text of one object. 0, or -EBADMSG: it does not begin as one. */
__attribute__((warn_unused_result)) int json_open_object(struct json_reader *reader,
                                                         struct slice text);

/* Begins to walk the text of one array. 0, or -EBADMSG: it does not begin as one. */
__attribute__((warn_unused_result)) int json_open_array(struct json_reader *reader,
                                                        struct slice text);

/* The next member of the object. 1: given; 0: there are no more and the whole text is good (J1);
 * -EBADMSG: see reader->error. Members come in their order, duplicates too: see json_key_take. */
__attribute__((warn_unused_result)) int json_next_member(struct json_reader *reader,
                                                         struct json_string *ret_key,
                                                         struct json_value *ret_value);

/* The next element of the array; returns as json_next_member. */
__attribute__((warn_unused_result)) int json_next_element(struct json_reader *reader,
                                                          struct json_value *ret_value);

/* Reads a text that is one value of any type. 0, or -EBADMSG: see reader->error. */
__attribute__((warn_unused_result)) int json_read(struct json_reader *reader, struct slice text,
                                                  struct json_value *ret_value);

/* A few plain words for a person; never text of the peer's. */
const char *json_error_text(enum json_error error);

/* Whether the string's decoded text equals plain. */
bool json_string_equal(const struct json_string *string, struct slice plain);

/* Decodes into out and returns the size written, string->size; -ENOBUFS if that exceeds capacity
 * (nothing is written then). No NUL is added. */
__attribute__((warn_unused_result)) int json_string_decode(const struct json_string *string,
                                                           char *out, uint32_t capacity);

/* Which of the names (at most 64) the key spells: its index, noted as a bit of *seen. -ENOENT: none
 * of them, to be ignored. -EEXIST: it was seen before. RFC 8259 section 4 leaves duplicates open;
 * damso refuses those of keys it knows, so that no other reader of the same text (a proxy, a log, a
 * filter) can have acted on the other value. *seen begins as 0. */
__attribute__((warn_unused_result)) int json_key_take(const struct json_string *key,
                                                      const struct slice *names, uint32_t count,
                                                      uint64_t *seen);

/*
 * Writing. Each call appends all of its bytes or none; once one did not fit, overflow is set and
 * nothing is appended any more, so that only the end needs a look. Text given must be UTF-8.
 * Commas, colons and brackets are the caller's, as literals: an event is a few literals and values.
 */
struct json_writer {
    char *data;
    uint32_t size; /* bytes written, at most capacity */
    uint32_t capacity;
    bool overflow;
};

static inline struct json_writer json_writer_on(char *data, uint32_t capacity)
{
    return (struct json_writer){.data = data, .capacity = capacity};
}

static inline struct slice json_written(const struct json_writer *writer)
{
    return (struct slice){writer->data, writer->size};
}

/* Room for size more bytes, which the caller then writes, or NULL and overflow. */
static inline char *json_write_room(struct json_writer *writer, uint32_t size)
{
    if (writer->overflow || size > writer->capacity - writer->size) {
        writer->overflow = true;
        return NULL;
    }
    char *room = writer->data + writer->size;
    writer->size += size;
    return room;
}

/* Appends bytes as they are: a literal, or a value's raw text. */
static inline void json_write_raw(struct json_writer *writer, struct slice text)
{
    char *room = json_write_room(writer, text.size);
    if (room != NULL && text.size > 0) {
        memcpy(room, text.data, text.size);
    }
}

/* Appends a string literal of C. Of constant size, it becomes a few moves. */
#define JSON_WRITE(writer, literal) json_write_raw((writer), SLICE(literal))

/* Appends a whole number in decimal. */
void json_write_u64(struct json_writer *writer, uint64_t number);
void json_write_i64(struct json_writer *writer, int64_t number);

/* Appends text as a JSON string: quotes around it; quote, backslash and U+0000-U+001F escaped. */
void json_write_string(struct json_writer *writer, struct slice text);

/* Appends true or false. */
static inline void json_write_bool(struct json_writer *writer, bool truth)
{
    json_write_raw(writer, truth ? SLICE("true") : SLICE("false"));
}
