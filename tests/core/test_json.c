/*
 * test_json.c - every text that RFC 8259 allows is read as it means, every other one is refused
 * with its reason and place, and what is written can be read again.
 *
 * Method: texts lie at the very end of their buffer, so that AddressSanitizer sees a read of one
 *         byte too many. Each good text is also cut at every byte (every piece is refused) and
 *         overwritten at every byte (never a crash, and the error lies inside the text).
 */
#include "core/check.h"
#include "core/json.h"

#include <errno.h>

enum { TEXT_MAX = 70000 };

/* The text at the end of a buffer of its own. One text at a time. */
static char shelf[TEXT_MAX];

static struct slice at_end(const char *text, uint32_t size)
{
    CHECK(size <= sizeof shelf);
    char *place = shelf + sizeof shelf - size;
    memmove(place, text, size);
    return (struct slice){place, size};
}

static struct slice put(const char *text)
{
    return at_end(text, (uint32_t)strlen(text));
}

/* Walks an object or an array to its end; members given, or -EBADMSG. */
static int walk(struct json_reader *reader, struct slice text)
{
    struct json_string key;
    struct json_value value;
    const bool object = json_open_object(reader, text) == 0;
    int count = 0;
    int got = 1;

    if (!object && json_open_array(reader, text) < 0) {
        return -EBADMSG;
    }
    while (got > 0) {
        got = object ? json_next_member(reader, &key, &value) : json_next_element(reader, &value);
        count += got > 0;
        if (got > 0) { /* slices stay inside the text */
            CHECK(value.raw.size > 0);
            CHECK(value.raw.data > text.data);
            CHECK(value.raw.data + value.raw.size <= text.data + text.size);
        }
    }
    return got < 0 ? got : count;
}

static void expect_error(const char *text, enum json_error error, uint32_t at)
{
    struct json_reader reader;
    struct json_value value;

    if (json_read(&reader, put(text), &value) != -EBADMSG || reader.error != error ||
        reader.error_at != at) {
        (void)fprintf(stderr, "%s: %s at %u, not %s at %u\n", text, json_error_text(reader.error),
                      reader.error_at, json_error_text(error), at);
        CHECK(false); /* the line above says which */
    }
    CHECK(walk(&reader, put(text)) == -EBADMSG);
    CHECK(json_error_text(reader.error)[0] != 0);
}

static void a_request_is_read_member_by_member(void)
{
    const struct slice text =
        put(" { \"type\" : \"send\" ,\r\n\t\"id\":4,\"room_id\":\"r\",\"data\":"
            "{\"a\":[1,{},[]],\"b\":\"}\"},\"none\":null,\"yes\":true} \n");
    struct json_reader reader;
    struct json_string key;
    struct json_value value;

    CHECK(json_open_object(&reader, text) == 0);
    CHECK(json_next_member(&reader, &key, &value) == 1);
    CHECK(slice_equal(key.raw, SLICE("type")));
    CHECK(value.type == JSON_STRING);
    CHECK(slice_equal(value.raw, SLICE("\"send\"")));
    CHECK(slice_equal(value.string.raw, SLICE("send")));
    CHECK(value.string.size == 4 && value.string.count == 4 && !value.string.escaped);
    CHECK(json_next_member(&reader, &key, &value) == 1);
    CHECK(value.type == JSON_NUMBER && value.is_integer && value.integer == 4);
    CHECK(json_next_member(&reader, &key, &value) == 1);
    CHECK(json_next_member(&reader, &key, &value) == 1);
    CHECK(value.type == JSON_OBJECT);
    CHECK(slice_equal(value.raw, SLICE("{\"a\":[1,{},[]],\"b\":\"}\"}")));
    CHECK(json_next_member(&reader, &key, &value) == 1);
    CHECK(value.type == JSON_NULL && slice_equal(value.raw, SLICE("null")));
    CHECK(json_next_member(&reader, &key, &value) == 1);
    CHECK(value.type == JSON_TRUE);
    CHECK(json_next_member(&reader, &key, &value) == 0);
    CHECK(json_next_member(&reader, &key, &value) == 0); /* the end stays the end */
}

static void arrays_are_read_element_by_element(void)
{
    struct json_reader reader;
    struct json_value value;

    CHECK(json_open_array(&reader, put("[\"a\", -12 ,[2],false]")) == 0);
    CHECK(json_next_element(&reader, &value) == 1 && value.type == JSON_STRING);
    CHECK(json_next_element(&reader, &value) == 1 && value.integer == -12);
    CHECK(json_next_element(&reader, &value) == 1 && slice_equal(value.raw, SLICE("[2]")));
    CHECK(json_next_element(&reader, &value) == 1 && value.type == JSON_FALSE);
    CHECK(json_next_element(&reader, &value) == 0);
    CHECK(walk(&reader, put("[]")) == 0);
    CHECK(walk(&reader, put("{}")) == 0);
    CHECK(walk(&reader, put(" [ ] ")) == 0);
    CHECK(json_open_object(&reader, put("[]")) == -EBADMSG && reader.error == JSON_ERROR_TYPE);
    CHECK(json_open_array(&reader, put(" 1")) == -EBADMSG && reader.error_at == 1);
    CHECK(json_next_element(&reader, &value) == -EBADMSG); /* an error stays an error */
    CHECK(json_open_object(&reader, put("")) == -EBADMSG && reader.error == JSON_ERROR_END);
}

static void any_value_may_be_the_whole_text(void)
{
    static const char *const good[] = {"null", "true",    "false",   "0",     "-0",     "1e5",
                                       "1E+5", "-1.5e-3", "\"\"",    "[]",    " {}\t",  "1.0",
                                       "0e0",  "0.1",     "[1,[2]]", "\"/\"", "[ [ ] ]"};
    struct json_reader reader;
    struct json_value value;

    for (uint32_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(json_read(&reader, put(good[i]), &value) == 0);
    }
}

/* RFC 8259 section 13 and a request of our own. */
static const char *const examples[] = {
    "{\"Image\":{\"Width\":800,\"Height\":600,\"Title\":\"View from 15th Floor\",\"Thumbnail\":"
    "{\"Url\":\"http://www.example.com/image/481989943\",\"Height\":125,\"Width\":100},"
    "\"Animated\":false,\"IDs\":[116,943,234,38793]}}",
    "[{\"precision\":\"zip\",\"Latitude\":37.7668,\"Longitude\":-122.3959,\"Address\":\"\"},"
    "{\"precision\":\"zip\",\"Latitude\":37.371991,\"Longitude\":-122.026020}]",
    "{\"type\":\"send\",\"id\":\"a\\u00e9\\ud83d\\ude00\\n\",\"text\":\"\xEB\x8B\xB4\xEC\x86\x8C"
    " \xF0\x9F\x98\x80 gr\xC3\xBC\xC3\x9F\",\"data\":{\"n\":[0,-1.5e+10,null,true,{}]}}",
};

static void every_proper_beginning_of_a_text_is_refused(void)
{
    struct json_reader reader;
    struct json_value value;

    for (uint32_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const uint32_t size = (uint32_t)strlen(examples[i]);
        CHECK(json_read(&reader, at_end(examples[i], size), &value) == 0);
        CHECK(walk(&reader, at_end(examples[i], size)) > 0);
        for (uint32_t cut = 0; cut < size; cut++) {
            CHECK(json_read(&reader, at_end(examples[i], cut), &value) == -EBADMSG);
            CHECK(reader.error_at <= cut);
            CHECK(walk(&reader, at_end(examples[i], cut)) == -EBADMSG);
        }
    }
}

static void a_text_with_any_byte_changed_is_read_or_refused_within_its_bounds(void)
{
    struct json_reader reader;
    struct json_value value;
    uint32_t refused = 0;

    for (uint32_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const uint32_t size = (uint32_t)strlen(examples[i]);
        for (uint32_t at = 0; at < size; at++) {
            for (uint32_t byte = 0; byte < 256; byte++) {
                const struct slice text = at_end(examples[i], size);
                shelf[sizeof shelf - size + at] = (char)byte;
                const bool bad = json_read(&reader, text, &value) < 0;
                CHECK(!bad || reader.error_at <= size);
                refused += bad;
                CHECK((walk(&reader, text) < 0) == bad); /* both ways of reading agree */
            }
        }
    }
    CHECK(refused > 10000);
}

static void what_is_not_json_is_refused_with_reason_and_place(void)
{
    expect_error("", JSON_ERROR_END, 0);
    expect_error("  ", JSON_ERROR_END, 2);
    expect_error("[1,]", JSON_ERROR_SYNTAX, 3);
    expect_error("[,1]", JSON_ERROR_SYNTAX, 1);
    expect_error("[1 2]", JSON_ERROR_SYNTAX, 3);
    expect_error("[1,,2]", JSON_ERROR_SYNTAX, 3);
    expect_error("[1", JSON_ERROR_END, 2);
    expect_error("[1}", JSON_ERROR_SYNTAX, 2);
    expect_error("{\"a\":1]", JSON_ERROR_SYNTAX, 6);
    expect_error("{\"a\":1,}", JSON_ERROR_SYNTAX, 7);
    expect_error("{,}", JSON_ERROR_SYNTAX, 1);
    expect_error("{\"a\"}", JSON_ERROR_SYNTAX, 4);
    expect_error("{\"a\":}", JSON_ERROR_SYNTAX, 5);
    expect_error("{\"a\" 1}", JSON_ERROR_SYNTAX, 5);
    expect_error("{a:1}", JSON_ERROR_SYNTAX, 1);
    expect_error("{'a':1}", JSON_ERROR_SYNTAX, 1);
    expect_error("{1:1}", JSON_ERROR_SYNTAX, 1);
    expect_error("{\"a\":1", JSON_ERROR_END, 6);
    expect_error("[nul]", JSON_ERROR_SYNTAX, 4);
    expect_error("[tru", JSON_ERROR_END, 4);
    expect_error("[True]", JSON_ERROR_SYNTAX, 1);
    expect_error("[NaN]", JSON_ERROR_SYNTAX, 1);
    expect_error("[-Infinity]", JSON_ERROR_NUMBER, 1);
    expect_error("[1]//", JSON_ERROR_TRAILING, 3);
    expect_error("{}{}", JSON_ERROR_TRAILING, 2);
    expect_error("[1]]", JSON_ERROR_TRAILING, 3);
    expect_error("/**/[]", JSON_ERROR_SYNTAX, 0);
    expect_error("\xEF\xBB\xBF{}", JSON_ERROR_SYNTAX,
                 0);                             /* byte order mark: RFC 8259 section 8.1 */
    expect_error("[\f1]", JSON_ERROR_SYNTAX, 1); /* white space only of section 2 */
    expect_error("[\xC2\xA0]", JSON_ERROR_SYNTAX, 1);
    expect_error("[\"a]", JSON_ERROR_END, 4);
    expect_error("{\"a\":{\"b\":[{\"c\":tru}]}}", JSON_ERROR_SYNTAX, 19); /* J2 at any depth */
    CHECK(at_end("[\0]", 3).size == 3);
    struct json_reader reader;
    CHECK(walk(&reader, at_end("[\0]", 3)) == -EBADMSG && reader.error == JSON_ERROR_SYNTAX);
    CHECK(walk(&reader, at_end("[]\0", 3)) == -EBADMSG && reader.error == JSON_ERROR_TRAILING);
}

static void malformed_numbers_are_refused(void)
{
    static const char *const wrong[] = {
        "-",    "01",   "-01",  "00",    "1.",   ".5",    "-.5",  "1.e5", "1e",   "1e+", "1E-",
        "+1",   "0x10", "1_0",  "1.2.3", "1e5.", "1e5e5", "--1",  "1-2",  "12ab", "0e",  "0e+",
        "1.5e", "-a",   "1 .5", "0.",    "2.e3", "1ee5",  "9.+1", "-0.",  "-e5",  "0.e1"};
    struct json_reader reader;
    struct json_value value;
    char text[16];

    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(json_read(&reader, put(wrong[i]), &value) == -EBADMSG);
        struct json_writer writer = json_writer_on(text, sizeof text);
        JSON_WRITE(&writer, "[");
        json_write_raw(&writer, (struct slice){wrong[i], (uint32_t)strlen(wrong[i])});
        JSON_WRITE(&writer, "]");
        CHECK(walk(&reader, at_end(text, writer.size)) == -EBADMSG);
    }
    expect_error("[1e]", JSON_ERROR_NUMBER, 1);
    expect_error("[1,02]", JSON_ERROR_NUMBER, 3);
}

static void integers_are_exact_or_said_not_to_be(void)
{
    static const struct {
        const char *text;
        bool is_integer;
        int64_t integer;
    } rows[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"9007199254740993", true, 9007199254740993},
        {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0},
        {"-9223372036854775808", true, INT64_MIN},
        {"-9223372036854775809", false, 0},
        {"9999999999999999999", false, 0},
        {"10000000000000000000", false, 0},
        {"18446744073709551617", false, 0},
        {"123456789012345678901234567890", false, 0},
        {"1.0", false, 0},
        {"1e2", false, 0},
        {"1e999", false, 0},
        {"-1e-999", false, 0},
    };
    struct json_reader reader;
    struct json_value value;

    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(json_read(&reader, put(rows[i].text), &value) == 0);
        CHECK(value.type == JSON_NUMBER);
        CHECK(value.is_integer == rows[i].is_integer);
        CHECK(value.integer == rows[i].integer);
        CHECK(slice_equal(value.raw, put(rows[i].text)));
    }
}

static void depth_is_limited_and_nothing_recurses(void)
{
    static char text[60000];
    struct json_reader reader;
    struct json_value value;

    for (uint32_t depth = 1; depth <= 40; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        const bool fits = depth <= JSON_DEPTH_MAX;
        CHECK((json_read(&reader, at_end(text, 2 * depth), &value) == 0) == fits);
        CHECK((walk(&reader, at_end(text, 2 * depth)) == (depth > 1)) == fits);
        if (!fits) {
            CHECK(reader.error == JSON_ERROR_DEPTH);
            CHECK(reader.error_at == JSON_DEPTH_MAX);
        }
    }
    memset(text, '[', sizeof text);
    CHECK(walk(&reader, at_end(text, sizeof text)) == -EBADMSG);
    CHECK(reader.error == JSON_ERROR_DEPTH);
    for (uint32_t i = 0; i + 5 <= sizeof text; i += 5) {
        memcpy(text + i, "{\"\":[", 5);
    }
    CHECK(walk(&reader, at_end(text, sizeof text)) == -EBADMSG);
    CHECK(reader.error == JSON_ERROR_DEPTH);
    /* Wide is not deep. */
    for (uint32_t i = 0; i < 30000; i += 3) {
        memcpy(text + i, "[],", 3);
    }
    text[0] = '[';
    text[1] = '0';
    text[29999] = ']';
    CHECK(walk(&reader, at_end(text, 30000)) == 10000);
}

static void objects_and_arrays_inside_each_other_keep_their_kinds(void)
{
    struct json_reader reader;
    struct json_value value;

    CHECK(json_read(&reader, put("[{\"a\":[{}, [], {\"b\":[1,2]}, 3], \"c\" : {}}, [[]], 4]"),
                    &value) == 0);
    expect_error("[{\"a\":[1,2}]]", JSON_ERROR_SYNTAX, 10);
    expect_error("[[{\"a\":1]]]", JSON_ERROR_SYNTAX, 8);
    expect_error("[[1,{\"a\":1},2:3]]", JSON_ERROR_SYNTAX, 13);
    expect_error("[{\"a\":[],1}]", JSON_ERROR_SYNTAX, 9);
    expect_error("[{\"a\":1 \"b\":2}]", JSON_ERROR_SYNTAX, 8);
    expect_error("[[],{},]", JSON_ERROR_SYNTAX, 7);
}

static void strings_are_checked_at_every_alignment(void)
{
    char text[64];
    struct json_reader reader;
    struct json_value value;

    for (uint32_t size = 2; size <= sizeof text; size++) {
        for (uint32_t at = 1; at + 1 < size; at++) {
            for (uint32_t byte = 0; byte < 256; byte++) {
                memset(text, 'a', size);
                text[0] = text[size - 1] = '"';
                text[at] = (char)byte;
                const bool good = byte >= 0x20 && byte < 0x80 && byte != '"' &&
                                  (byte != '\\' || at + 1 == size - 1);
                const int got = json_read(&reader, at_end(text, size), &value);
                if (byte == '\\') { /* \a, or the closing quote escaped */
                    CHECK(got == -EBADMSG);
                    continue;
                }
                CHECK((got == 0) == good);
                CHECK(good ? value.string.size == size - 2 : reader.error_at >= at);
            }
        }
    }
    expect_error("[\"a\x1F\"]", JSON_ERROR_CONTROL, 3);
    expect_error("[\"tab\there\"]", JSON_ERROR_CONTROL, 5);
    expect_error("[\"\xC0\xAF\"]", JSON_ERROR_UTF8, 2);
    expect_error("[\"a\xED\xA0\x80\"]", JSON_ERROR_UTF8, 3);
    expect_error("[\"\xEB\x8B\xB4\xEC\x86\"]", JSON_ERROR_UTF8, 5);
    expect_error("{\"\xFF\":1}", JSON_ERROR_UTF8, 2);
    expect_error("[{\"a\":\"\x80\"}]", JSON_ERROR_UTF8, 7);
}

static void malformed_escapes_are_refused(void)
{
    expect_error("[\"\\x\"]", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"\\'\"]", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"ab\\U0041\"]", JSON_ERROR_ESCAPE, 4);
    expect_error("[\"\\u12g4\"]", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"\\u 123\"]", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"\\u00\"]", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"\\", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"\\u123", JSON_ERROR_ESCAPE, 2);
    expect_error("[\"\\ud800\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\udc00\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\uDBFFabcdef\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ud800\\ud800\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ud800\\u0041\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ude00\\ud83d\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ud83d\\nabcdef\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ud83d\\ndc00\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ud83d\\ndc00abc\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\udc00\\udc00\"]", JSON_ERROR_SURROGATE, 2);
    expect_error("[\"\\ud800\\uzzzz\"]", JSON_ERROR_ESCAPE, 2);
    expect_error("{\"\\q\":1}", JSON_ERROR_ESCAPE, 2);
}

/* Reads text as one string. */
static struct json_string read_string(const char *text)
{
    struct json_reader reader;
    struct json_value value;

    CHECK(json_read(&reader, put(text), &value) == 0);
    CHECK(value.type == JSON_STRING);
    return value.string;
}

static void strings_decode_to_what_their_escapes_say(void)
{
    static const struct {
        const char *text;
        struct slice plain;
        uint32_t count;
    } rows[] = {
        {"\"\"", {"", 0}, 0},
        {"\"plain\"", {"plain", 5}, 5},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", {"\"\\/\b\f\n\r\t", 8}, 8},
        {"\"\\u0000\"", {"\0", 1}, 1},
        {"\"a\\u0041\\u00e9\\u20AC!\"", {"aA\xC3\xA9\xE2\x82\xAC!", 8}, 5},
        {"\"\\ud83d\\ude00\"", {"\xF0\x9F\x98\x80", 4}, 1},
        {"\"\\uDBFF\\uDFFF\\ud800\\udc00\"", {"\xF4\x8F\xBF\xBF\xF0\x90\x80\x80", 8}, 2},
        {"\"\xEB\x8B\xB4\\n\xF0\x9F\x98\x80\"", {"\xEB\x8B\xB4\n\xF0\x9F\x98\x80", 8}, 3},
        {"\"\\u07ff\\u0800\\u007f\\uffff\"", {"\xDF\xBF\xE0\xA0\x80\x7F\xEF\xBF\xBF", 9}, 4},
    };
    char out[16];

    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct json_string string = read_string(rows[i].text);
        CHECK(string.size == rows[i].plain.size);
        CHECK(string.count == rows[i].count);
        CHECK(json_string_decode(&string, out, sizeof out) == (int)string.size);
        CHECK(memcmp(out, rows[i].plain.data, string.size) == 0);
        CHECK(json_string_decode(&string, out, string.size) == (int)string.size);
        CHECK(json_string_equal(&string, rows[i].plain));
        if (string.size > 0) {
            memset(out, 'x', sizeof out);
            CHECK(json_string_decode(&string, out, string.size - 1) == -ENOBUFS);
            CHECK(out[0] == 'x');
            memcpy(out, rows[i].plain.data, string.size);
            out[string.size - 1] ^= 1;
            CHECK(!json_string_equal(&string, (struct slice){out, string.size}));
            CHECK(!json_string_equal(&string, (struct slice){out, string.size - 1}));
        }
    }
}

/* The code point as an escape or a pair of them. */
static void write_escapes(struct json_writer *writer, uint32_t code)
{
    const uint32_t units[2] = {code < 0x10000 ? code : 0xD7C0 + (code >> 10),
                               0xDC00 + (code & 0x3FF)};

    for (uint32_t i = 0; i < (code < 0x10000 ? 1U : 2U); i++) {
        JSON_WRITE(writer, "\\u");
        for (uint32_t shift = 16; shift > 0; shift -= 4) {
            const char digit = "0123456789abcdefABCDEF"[units[i] >> (shift - 4) & 0xF];
            json_write_raw(writer, (struct slice){&digit, 1});
        }
    }
}

static void every_code_point_decodes_from_its_escape(void)
{
    char text[16];
    char out[4];
    struct json_reader reader;
    struct json_value value;

    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        struct json_writer writer = json_writer_on(text, sizeof text);
        JSON_WRITE(&writer, "\"");
        write_escapes(&writer, code);
        JSON_WRITE(&writer, "\"");
        const int got = json_read(&reader, json_written(&writer), &value);
        if (code >= 0xD800 && code <= 0xDFFF) {
            CHECK(got == -EBADMSG && reader.error == JSON_ERROR_SURROGATE);
            continue;
        }
        CHECK(got == 0 && value.string.count == 1);
        const int size = json_string_decode(&value.string, out, sizeof out);
        /* Read back by bits: every byte but the first gives six. */
        uint32_t back = (uint8_t)out[0] & (size == 1 ? 0x7FU : 0x7FU >> size);
        for (int i = 1; i < size; i++) {
            back = back << 6 | ((uint8_t)out[i] & 0x3FU);
        }
        CHECK(back == code);
        CHECK((uint32_t)size == value.string.size);
    }
}

static void a_known_key_that_comes_twice_is_noticed(void)
{
    static const struct slice names[] = {{"type", 4}, {"id", 2}, {"text", 4}};
    const struct slice text =
        put("{\"type\":1,\"other\":2,\"other\":3,\"id\":4,\"ty\\u0070e\":5,\"text\":6}");
    static const int expected[] = {0, -ENOENT, -ENOENT, 1, -EEXIST, 2};
    struct json_reader reader;
    struct json_string key;
    struct json_value value;
    uint64_t seen = 0;

    CHECK(json_open_object(&reader, text) == 0);
    for (uint32_t i = 0; i < 6; i++) {
        CHECK(json_next_member(&reader, &key, &value) == 1);
        CHECK(json_key_take(&key, names, 3, &seen) == expected[i]);
    }
    CHECK(json_next_member(&reader, &key, &value) == 0);
    CHECK(seen == 7);
}

static void written_text_reads_back_the_same(void)
{
    char text[300];
    char out[300];
    char back[300];
    struct json_reader reader;
    struct json_value value;

    for (uint32_t size = 0; size <= 40; size++) {
        for (uint32_t byte = 0; byte < 128; byte++) {
            for (uint32_t at = 0; at <= size; at++) {
                memset(text, 'a', size + 1);
                text[at] = (char)byte;
                struct json_writer writer = json_writer_on(out, sizeof out);
                json_write_string(&writer, at_end(text, size + 1));
                CHECK(json_read(&reader, json_written(&writer), &value) == 0);
                CHECK(value.string.escaped == (byte < 0x20 || byte == '"' || byte == '\\'));
                CHECK(json_string_decode(&value.string, back, sizeof back) == (int)size + 1);
                CHECK(memcmp(back, text, size + 1) == 0);
            }
        }
    }
}

static void strings_are_written_with_the_shortest_escapes(void)
{
    char out[80];
    struct json_writer writer = json_writer_on(out, sizeof out);

    json_write_string(&writer, SLICE("\"\\/\b\f\n\r\t\x01\x1f\x7f \xEB\x8B\xB4<>&'"));
    CHECK(slice_equal(json_written(&writer),
                      SLICE("\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f \xEB\x8B\xB4<>&'\"")));
    writer = json_writer_on(out, sizeof out);
    json_write_string(&writer, (struct slice){NULL, 0});
    CHECK(slice_equal(json_written(&writer), SLICE("\"\"")));
}

static void numbers_and_literals_are_written_in_decimal(void)
{
    char out[200];
    struct json_writer writer = json_writer_on(out, sizeof out);

    JSON_WRITE(&writer, "[");
    json_write_u64(&writer, 0);
    JSON_WRITE(&writer, ",");
    json_write_u64(&writer, UINT64_MAX);
    JSON_WRITE(&writer, ",");
    json_write_i64(&writer, INT64_MIN);
    JSON_WRITE(&writer, ",");
    json_write_i64(&writer, INT64_MAX);
    JSON_WRITE(&writer, ",");
    json_write_i64(&writer, -7);
    JSON_WRITE(&writer, ",");
    json_write_bool(&writer, true);
    json_write_bool(&writer, false);
    JSON_WRITE(&writer, "]");
    CHECK(slice_equal(json_written(&writer),
                      SLICE("[0,18446744073709551615,-9223372036854775808,9223372036854775807,-7,"
                            "truefalse]")));
}

static void a_full_writer_says_so_and_writes_nothing_more(void)
{
    const struct slice text = SLICE("a\nb");
    char out[16];

    for (uint32_t capacity = 0; capacity <= 12; capacity++) {
        struct json_writer writer = json_writer_on(out + sizeof out - capacity, capacity);
        JSON_WRITE(&writer, "xy");
        const uint32_t before = writer.size;
        json_write_string(&writer, text); /* 6 bytes or none */
        CHECK(writer.overflow == (capacity < 8));
        CHECK(writer.size == before + (capacity < 8 ? 0 : 6));
        json_write_u64(&writer, 12345);
        CHECK(writer.overflow);
        const uint32_t end = writer.size;
        JSON_WRITE(&writer, "z"); /* would fit, but something is missing before it */
        CHECK(writer.overflow && writer.size == end);
    }
}

int main(void)
{
    a_request_is_read_member_by_member();
    arrays_are_read_element_by_element();
    any_value_may_be_the_whole_text();
    every_proper_beginning_of_a_text_is_refused();
    a_text_with_any_byte_changed_is_read_or_refused_within_its_bounds();
    what_is_not_json_is_refused_with_reason_and_place();
    malformed_numbers_are_refused();
    integers_are_exact_or_said_not_to_be();
    depth_is_limited_and_nothing_recurses();
    objects_and_arrays_inside_each_other_keep_their_kinds();
    strings_are_checked_at_every_alignment();
    malformed_escapes_are_refused();
    strings_decode_to_what_their_escapes_say();
    every_code_point_decodes_from_its_escape();
    a_known_key_that_comes_twice_is_noticed();
    written_text_reads_back_the_same();
    strings_are_written_with_the_shortest_escapes();
    numbers_and_literals_are_written_in_decimal();
    a_full_writer_says_so_and_writes_nothing_more();
    puts("19 passed, 0 failed");
    return 0;
}
