/*
 * fuzz_json.c - no text makes the JSON codec read out of bounds, loop or contradict itself.
 *
 * Method: the whole text is read as one value and, if it is one, walked down to its last string.
 *         Both ways of reading must agree, each string must decode to the size and count that were
 *         said, be valid UTF-8, and read back the same when it is written again.
 */
#include "core/check.h"
#include "core/json.h"
#include "core/utf8.h"

#include <stddef.h>

enum { TEXT_MAX = 4096, WRITTEN_MAX = 6 * TEXT_MAX + 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_string(const struct json_string *string)
{
    static char plain[TEXT_MAX];
    static char written[WRITTEN_MAX];
    struct json_writer writer = json_writer_on(written, sizeof written);
    struct json_reader reader;
    struct json_value again;
    uint32_t count = 0;

    CHECK(string->size <= string->raw.size);
    CHECK(json_string_decode(string, plain, sizeof plain) == (int)string->size);
    CHECK(utf8_valid(plain, string->size));
    for (uint32_t i = 0; i < string->size; i++) {
        count += (plain[i] & 0xC0) != 0x80;
    }
    CHECK(count == string->count);
    CHECK(json_string_equal(string, (struct slice){plain, string->size}));
    json_write_string(&writer, (struct slice){plain, string->size});
    CHECK(json_read(&reader, json_written(&writer), &again) == 0);
    CHECK(json_string_equal(&again.string, (struct slice){plain, string->size}));
}

/* Walks a value that was read as good, down to depth. */
static void check_value(const struct json_value *value, uint32_t depth)
{
    struct json_reader reader;
    struct json_string key;
    struct json_value inner;
    const bool object = value->type == JSON_OBJECT;
    int got = 0;

    CHECK(depth <= JSON_DEPTH_MAX);
    if (value->type == JSON_STRING) {
        check_string(&value->string);
    }
    if (!object && value->type != JSON_ARRAY) {
        return;
    }
    got = object ? json_open_object(&reader, value->raw) : json_open_array(&reader, value->raw);
    CHECK(got == 0);
    do {
        got = object ? json_next_member(&reader, &key, &inner) : json_next_element(&reader, &inner);
        CHECK(got >= 0);
        if (got > 0) {
            check_value(&inner, depth + 1);
        }
        if (got > 0 && object) {
            check_string(&key);
        }
    } while (got > 0);
}

/* Members or elements of the text, whether it is good or not; negative if it is not. */
static int walk(struct slice text, bool object)
{
    struct json_reader reader;
    struct json_string key;
    struct json_value value;
    int got = object ? json_open_object(&reader, text) : json_open_array(&reader, text);

    if (got < 0) {
        return got;
    }
    do {
        got = object ? json_next_member(&reader, &key, &value) : json_next_element(&reader, &value);
    } while (got > 0);
    CHECK(got == 0 || (reader.error != JSON_ERROR_NONE && reader.error_at <= text.size));
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct slice text = {(const char *)data, (uint32_t)size};
    struct json_reader reader;
    struct json_value value;

    if (size > TEXT_MAX) {
        return 0;
    }
    const bool good = json_read(&reader, text, &value) == 0;
    CHECK(good == (reader.error == JSON_ERROR_NONE));
    CHECK(reader.error_at <= size);
    CHECK((walk(text, true) == 0) == (good && value.type == JSON_OBJECT));
    CHECK((walk(text, false) == 0) == (good && value.type == JSON_ARRAY));
    if (good) {
        CHECK(utf8_valid(data, size)); /* white space, ASCII and checked strings */
        check_value(&value, 0);
    }
    return 0;
}
