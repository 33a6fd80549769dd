/* json.c - see json.h for the invariants J1 to J4 named below. */
#include "core/json.h"

#include "core/check.h"
#include "core/utf8.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static int fail(struct json_reader *reader, enum json_error error, uint32_t at)
{
    CHECK(error != JSON_ERROR_NONE);
    CHECK(at <= reader->size);

    reader->error = error;
    reader->error_at = at;
    return -EBADMSG;
}

/* Something else was due at the reader's place: the end of the text is said as such. */
static int fail_here(struct json_reader *reader)
{
    return fail(reader, reader->at == reader->size ? JSON_ERROR_END : JSON_ERROR_SYNTAX,
                reader->at);
}

static inline void skip_space(struct json_reader *reader)
{
    uint32_t at = reader->at;

    while (at < reader->size && (unsigned char)reader->data[at] <= ' ' &&
           (reader->data[at] == ' ' || reader->data[at] == '\n' || reader->data[at] == '\r' ||
            reader->data[at] == '\t')) {
        at++;
    }
    reader->at = at;
}

/* Steps over c if it is next. */
static inline bool take(struct json_reader *reader, char c)
{
    if (reader->at < reader->size && reader->data[reader->at] == c) {
        reader->at++;
        return true;
    }
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A byte that needs a second look: quote, backslash, control character and, if wide, any that is
 * not ASCII. Reading stops at wide bytes to validate them; writing passes over them. */
static inline bool is_special(char c, bool wide)
{
    return c == '"' || c == '\\' || (unsigned char)c < 0x20 || (wide && (unsigned char)c >= 0x80);
}

/* Offset of the first special byte in [at, size), or size. */
__attribute__((always_inline)) static inline uint32_t find_special(const char *data, uint32_t at,
                                                                   uint32_t size, bool wide)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i control = _mm_set1_epi8(0x1F);

    while (at < size && size >= 16) {
        /* The last block overlaps what lies before it, and never reads past the text's end. */
        const uint32_t begin = size - at >= 16 ? at : size - 16;
        const __m128i block = _mm_loadu_si128((const __m128i *)(const void *)(data + begin));
        /* Signed: bytes from 0x80 are negative, hence below a space, as control characters are. */
        const __m128i low = wide ? _mm_cmplt_epi8(block, _mm_set1_epi8(' '))
                                 : _mm_cmpeq_epi8(_mm_min_epu8(block, control), block);
        const __m128i marks =
            _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, backslash));
        const uint32_t found =
            (uint32_t)_mm_movemask_epi8(_mm_or_si128(low, marks)) >> (at - begin);
        if (found != 0) {
            return at + (uint32_t)__builtin_ctz(found);
        }
        at = begin + 16;
    }
#endif
    while (at < size && !is_special(data[at], wide)) {
        at++;
    }
    return at;
}

static void begin_text(struct json_reader *reader, struct slice text);
static int end_text(struct json_reader *reader);
static int open_container(struct json_reader *reader, struct slice text, char open, char close);
static int advance(struct json_reader *reader);
static int read_key(struct json_reader *reader, struct json_string *ret_key);
static int read_value(struct json_reader *reader, uint32_t levels, struct json_value *ret_value);
static void next_piece(struct slice *raw, char scratch[4], struct slice *ret_piece);
static char *digits_before(char *end, uint64_t number);
static uint32_t write_escape(char c, char out[6]);

int json_open_object(struct json_reader *reader, struct slice text)
{
    return open_container(reader, text, '{', '}');
}

int json_open_array(struct json_reader *reader, struct slice text)
{
    return open_container(reader, text, '[', ']');
}

int json_next_member(struct json_reader *reader, struct json_string *ret_key,
                     struct json_value *ret_value)
{
    struct json_string key;

    CHECK(reader->close == '}'); /* opened by json_open_object */
    int result = advance(reader);
    if (result <= 0) {
        return result;
    }
    result = read_key(reader, &key);
    result = result == 0 ? read_value(reader, JSON_DEPTH_MAX - 1, ret_value) : result;
    if (result < 0) {
        return result;
    }
    *ret_key = key;
    return 1;
}

int json_next_element(struct json_reader *reader, struct json_value *ret_value)
{
    CHECK(reader->close == ']'); /* opened by json_open_array */
    int result = advance(reader);
    if (result > 0) {
        result = read_value(reader, JSON_DEPTH_MAX - 1, ret_value);
        result = result == 0 ? 1 : result;
    }
    return result;
}

int json_read(struct json_reader *reader, struct slice text, struct json_value *ret_value)
{
    struct json_value value;

    begin_text(reader, text);
    int result = read_value(reader, JSON_DEPTH_MAX, &value);
    result = result == 0 ? end_text(reader) : result;
    if (result == 0) {
        *ret_value = value;
    }
    return result;
}

const char *json_error_text(enum json_error error)
{
    static const char *const text[] = {
        [JSON_ERROR_NONE] = "no error",
        [JSON_ERROR_SYNTAX] = "unexpected character",
        [JSON_ERROR_END] = "text ends too early",
        [JSON_ERROR_TYPE] = "not of the expected type",
        [JSON_ERROR_DEPTH] = "nested too deeply",
        [JSON_ERROR_UTF8] = "string is not UTF-8",
        [JSON_ERROR_CONTROL] = "control character in a string",
        [JSON_ERROR_ESCAPE] = "unknown escape sequence",
        [JSON_ERROR_SURROGATE] = "half of a surrogate pair",
        [JSON_ERROR_NUMBER] = "malformed number",
        [JSON_ERROR_TRAILING] = "more text after the value",
    };

    CHECK((size_t)error < sizeof text / sizeof text[0]);
    return text[error];
}

bool json_string_equal(const struct json_string *string, struct slice plain)
{
    struct slice raw = string->raw;
    struct slice piece;
    char scratch[4];

    if (string->size != plain.size) {
        return false;
    }
    if (!string->escaped) {
        return slice_equal(raw, plain);
    }
    while (raw.size > 0) {
        next_piece(&raw, scratch, &piece);
        CHECK(piece.size <= plain.size); /* the sizes agreed */
        if (memcmp(piece.data, plain.data, piece.size) != 0) {
            return false;
        }
        plain.data += piece.size;
        plain.size -= piece.size;
    }
    return true;
}

int json_string_decode(const struct json_string *string, char *out, uint32_t capacity)
{
    struct slice raw = string->raw;
    struct slice piece;
    char scratch[4];
    uint32_t size = 0;

    if (string->size > capacity || string->size > INT_MAX) {
        return -ENOBUFS;
    }
    while (raw.size > 0) {
        if (string->escaped) {
            next_piece(&raw, scratch, &piece);
        } else {
            piece = raw;
            raw.size = 0;
        }
        CHECK(size + piece.size <= string->size); /* J4 */
        memcpy(out + size, piece.data, piece.size);
        size += piece.size;
    }
    return (int)size;
}

int json_key_take(const struct json_string *key, const struct slice *names, uint32_t count,
                  uint64_t *seen)
{
    CHECK(count <= 64); /* bits of *seen */
    for (uint32_t i = 0; i < count; i++) {
        /* The size rules nearly all of them out without a call. */
        if (key->size != names[i].size || !json_string_equal(key, names[i])) {
            continue;
        }
        if ((*seen >> i & 1) != 0) {
            return -EEXIST;
        }
        *seen |= 1ULL << i;
        return (int)i;
    }
    return -ENOENT;
}

void json_write_u64(struct json_writer *writer, uint64_t number)
{
    char digits[20]; /* of 18446744073709551615 */
    char *end = digits + sizeof digits;
    const char *begin = digits_before(end, number);

    json_write_raw(writer, (struct slice){begin, (uint32_t)(end - begin)});
}

void json_write_i64(struct json_writer *writer, int64_t number)
{
    char digits[21]; /* the same and a sign */
    char *end = digits + sizeof digits;
    char *begin = digits_before(end, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);

    if (number < 0) {
        *--begin = '-';
    }
    json_write_raw(writer, (struct slice){begin, (uint32_t)(end - begin)});
}

void json_write_string(struct json_writer *writer, struct slice text)
{
    const uint32_t begin = writer->size;
    char escape[6];
    uint32_t at = 0;

    JSON_WRITE(writer, "\"");
    while (at < text.size && !writer->overflow) {
        const uint32_t end = find_special(text.data, at, text.size, false);
        json_write_raw(writer, (struct slice){text.data + at, end - at});
        at = end;
        if (at < text.size) {
            json_write_raw(writer, (struct slice){escape, write_escape(text.data[at], escape)});
            at++;
        }
    }
    JSON_WRITE(writer, "\"");
    if (writer->overflow) {
        writer->size = begin; /* all or nothing */
    }
}

/*
 * The walk.
 */

static void begin_text(struct json_reader *reader, struct slice text)
{
    *reader = (struct json_reader){.data = text.data, .size = text.size};
    skip_space(reader);
}

/* White space and then nothing: RFC 8259 section 2. */
static int end_text(struct json_reader *reader)
{
    skip_space(reader);
    return reader->at == reader->size ? 0 : fail(reader, JSON_ERROR_TRAILING, reader->at);
}

static int open_container(struct json_reader *reader, struct slice text, char open, char close)
{
    begin_text(reader, text);
    reader->close = close;
    if (reader->at == reader->size) {
        return fail(reader, JSON_ERROR_END, reader->at);
    }
    return take(reader, open) ? 0 : fail(reader, JSON_ERROR_TYPE, reader->at);
}

/* Goes to the next member or element. 1: it begins here; 0: the end, all is good; or an error. */
static int advance(struct json_reader *reader)
{
    if (reader->error != JSON_ERROR_NONE) {
        return -EBADMSG; /* an error stays: what follows it means nothing */
    }
    if (reader->done) {
        return 0;
    }
    skip_space(reader);
    if (take(reader, reader->close)) {
        reader->done = true;
        return end_text(reader);
    }
    if (reader->begun) {
        if (!take(reader, ',')) {
            return fail_here(reader);
        }
        skip_space(reader);
    }
    reader->begun = true;
    return 1;
}

/*
 * Strings.
 */

/* One escape sequence: what it takes in the text, and what it stands for. */
struct escape {
    uint32_t code_point;
    uint32_t raw_size; /* 2, 6, or 12 for a surrogate pair */
};

/* Value of four hex digits at data, or -1. */
static int32_t hex_quad(const char *data)
{
    int32_t value = 0;

    for (uint32_t i = 0; i < 4; i++) {
        const char c = data[i];
        const char lower = (char)(c | 0x20);
        if (!is_digit(c) && (lower < 'a' || lower > 'f')) {
            return -1;
        }
        value = value << 4 | (is_digit(c) ? c - '0' : lower - 'a' + 10);
    }
    return value;
}

/* Reads \uXXXX, or a pair of them, with size bytes to look at. */
static enum json_error unicode_escape(const char *data, uint32_t size, struct escape *ret_escape)
{
    if (size < 6) {
        return JSON_ERROR_ESCAPE;
    }
    const int32_t high = hex_quad(data + 2);
    if (high < 0) {
        return JSON_ERROR_ESCAPE;
    }
    if ((high & 0xF800) != 0xD800) {
        *ret_escape = (struct escape){(uint32_t)high, 6};
        return JSON_ERROR_NONE;
    }
    if (high >= 0xDC00 || size < 12 || data[6] != '\\' || data[7] != 'u') {
        return JSON_ERROR_SURROGATE;
    }
    const int32_t low = hex_quad(data + 8);
    if (low < 0) {
        return JSON_ERROR_ESCAPE;
    }
    if ((low & 0xFC00) != 0xDC00) {
        return JSON_ERROR_SURROGATE;
    }
    const int32_t beyond = (high - 0xD800) * 0x400 + (low - 0xDC00);
    *ret_escape = (struct escape){0x10000 + (uint32_t)beyond, 12};
    return JSON_ERROR_NONE;
}

/* The character that a backslash and c stand for, or 0. */
static char short_escape(char c)
{
    static const char plain[0x80] = {['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
                                     ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};

    return (char)((unsigned char)c < sizeof plain ? plain[(unsigned char)c] : 0);
}

/* Reads the escape that begins with the backslash at data, with size bytes to look at. */
static enum json_error read_escape(const char *data, uint32_t size, struct escape *ret_escape)
{
    if (size < 2) {
        return JSON_ERROR_ESCAPE;
    }
    if (data[1] == 'u') {
        return unicode_escape(data, size, ret_escape);
    }
    const char plain = short_escape(data[1]);
    if (plain == 0) {
        return JSON_ERROR_ESCAPE;
    }
    *ret_escape = (struct escape){(uint32_t)plain, 2};
    return JSON_ERROR_NONE;
}

/* Decodes the next piece of a string that was read: one escape, or all up to the next one. Moves
 * *raw behind it; *ret_piece is the decoded text, in the raw text or in the four bytes of scratch.
 */
static void next_piece(struct slice *raw, char scratch[4], struct slice *ret_piece)
{
    if (raw->data[0] == '\\') {
        struct escape escape = {0};
        const enum json_error error = read_escape(raw->data, raw->size, &escape);
        CHECK(error == JSON_ERROR_NONE); /* json_next_member has validated it */
        *ret_piece = (struct slice){scratch, utf8_encode(escape.code_point, scratch)};
        raw->data += escape.raw_size;
        raw->size -= escape.raw_size;
        return;
    }
    const char *backslash = memchr(raw->data, '\\', raw->size);
    const uint32_t size = backslash != NULL ? (uint32_t)(backslash - raw->data) : raw->size;
    *ret_piece = (struct slice){raw->data, size};
    raw->data += size;
    raw->size -= size;
}

/* What a string's bytes amount to, found while its end is looked for. */
struct tally {
    uint32_t surplus; /* raw bytes that decoding takes away */
    uint32_t extra;   /* raw bytes beyond one a code point */
    bool escaped;
};

/* Steps over an escape. */
static int step_escape(struct json_reader *reader, struct tally *tally)
{
    const uint32_t left = reader->size - reader->at;
    struct escape escape;
    const enum json_error error = read_escape(reader->data + reader->at, left, &escape);

    if (error != JSON_ERROR_NONE) {
        return fail(reader, error, reader->at);
    }
    tally->escaped = true;
    tally->surplus += escape.raw_size - utf8_encoded_size(escape.code_point);
    tally->extra += escape.raw_size - 1;
    reader->at += escape.raw_size;
    return 0;
}

/* Steps over characters that are not ASCII: in most of the world's languages, one after another. */
static int step_wide(struct json_reader *reader, struct tally *tally)
{
    while (reader->at < reader->size && (unsigned char)reader->data[reader->at] >= 0x80) {
        const uint32_t size = utf8_character(reader->data + reader->at, reader->size - reader->at);
        if (size == 0) {
            return fail(reader, JSON_ERROR_UTF8, reader->at);
        }
        tally->extra += size - 1;
        reader->at += size;
    }
    return 0;
}

/* Reads the string that begins with the quote at the reader's place. */
static int read_string(struct json_reader *reader, struct json_string *ret_string)
{
    const uint32_t begin = reader->at + 1;
    struct tally tally = {0};
    int result = 0;

    reader->at = begin;
    while (result == 0) {
        reader->at = find_special(reader->data, reader->at, reader->size, true);
        if (reader->at == reader->size) {
            return fail(reader, JSON_ERROR_END, reader->at);
        }
        const char c = reader->data[reader->at];
        if (c == '"') {
            break;
        }
        if (c == '\\') {
            result = step_escape(reader, &tally);
        } else if ((unsigned char)c >= 0x80) {
            result = step_wide(reader, &tally);
        } else {
            return fail(reader, JSON_ERROR_CONTROL, reader->at);
        }
    }
    if (result < 0) {
        return result;
    }
    const uint32_t raw_size = reader->at - begin;
    CHECK(tally.surplus <= raw_size); /* J4 */
    *ret_string = (struct json_string){
        .raw = {reader->data + begin, raw_size},
        .size = raw_size - tally.surplus,
        .count = raw_size - tally.extra,
        .escaped = tally.escaped,
    };
    reader->at++;
    return 0;
}

/*
 * Numbers and words.
 */

/* Steps over digits; whether there was one. */
static bool take_digits(struct json_reader *reader)
{
    const uint32_t begin = reader->at;

    while (reader->at < reader->size && is_digit(reader->data[reader->at])) {
        reader->at++;
    }
    return reader->at > begin;
}

/* Whether the text goes on as if the number were longer: 01, 1.2.3, 0x10, 12abc, 1e5e5. */
static bool number_goes_on(const struct json_reader *reader)
{
    if (reader->at == reader->size) {
        return false;
    }
    const char c = reader->data[reader->at];
    return is_digit(c) || c == '.' || c == '+' || c == '-' ||
           ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* Fills integer if the digits at data fit: 64 bits hold any number of up to 19 digits. */
static void read_integer(const char *data, uint32_t size, bool negative,
                         struct json_value *ret_value)
{
    const uint64_t most = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    uint64_t magnitude = 0;

    if (size > 19) {
        return;
    }
    for (uint32_t i = 0; i < size; i++) {
        magnitude = magnitude * 10 + (uint64_t)(data[i] - '0');
    }
    if (magnitude <= most) {
        ret_value->is_integer = true;
        /* Negated as unsigned: the magnitude of INT64_MIN is no int64_t. */
        ret_value->integer = (int64_t)(negative ? 0 - magnitude : magnitude);
    }
}

/* Reads a number: RFC 8259 section 6. Its size is as it likes; only integers are evaluated. */
static int read_number(struct json_reader *reader, struct json_value *ret_value)
{
    const uint32_t begin = reader->at;
    const bool negative = take(reader, '-');
    const uint32_t digits = reader->at;
    bool good = take(reader, '0') || take_digits(reader);
    const uint32_t digits_end = reader->at;

    if (good && take(reader, '.')) {
        good = take_digits(reader);
    }
    if (good && (take(reader, 'e') || take(reader, 'E'))) {
        (void)(take(reader, '+') || take(reader, '-'));
        good = take_digits(reader);
    }
    if (!good || number_goes_on(reader)) {
        return fail(reader, JSON_ERROR_NUMBER, begin);
    }
    *ret_value = (struct json_value){.type = JSON_NUMBER};
    if (reader->at == digits_end) {
        read_integer(reader->data + digits, digits_end - digits, negative, ret_value);
    }
    return 0;
}

/* Reads true, false or null. */
static int read_word(struct json_reader *reader, struct slice word, enum json_type type,
                     struct json_value *ret_value)
{
    for (uint32_t i = 0; i < word.size; i++) {
        if (!take(reader, word.data[i])) {
            return fail_here(reader);
        }
    }
    *ret_value = (struct json_value){.type = type};
    return 0;
}

/* Reads a string as a value. Written where it will stay: copying what was just written in smaller
 * pieces would wait for them to leave the processor's store buffer. */
static int read_text(struct json_reader *reader, struct json_value *ret_value)
{
    const int result = read_string(reader, &ret_value->string);

    if (result == 0) {
        ret_value->type = JSON_STRING;
        ret_value->is_integer = false;
        ret_value->integer = 0;
    }
    return result;
}

/* Reads any value but an object or an array, at the reader's place. */
static int read_scalar(struct json_reader *reader, struct json_value *ret_value)
{
    const char c = (char)(reader->at < reader->size ? reader->data[reader->at] : 0);

    switch (c) {
    case '"':
        return read_text(reader, ret_value);
    case 't':
        return read_word(reader, SLICE("true"), JSON_TRUE, ret_value);
    case 'f':
        return read_word(reader, SLICE("false"), JSON_FALSE, ret_value);
    case 'n':
        return read_word(reader, SLICE("null"), JSON_NULL, ret_value);
    default:
        return c == '-' || is_digit(c) ? read_number(reader, ret_value) : fail_here(reader);
    }
}

/*
 * Objects and arrays inside the one that is walked.
 */

/* Where the validation of a nested value stands: one bit a level instead of a stack of calls. */
struct nest {
    uint64_t objects; /* bit d: level d is an object, else an array */
    uint32_t depth;   /* levels open inside the value, 0: it is over */
    uint32_t max;
};
_Static_assert(JSON_DEPTH_MAX < 64, "one bit of nest.objects a level");

static bool in_object(const struct nest *nest)
{
    return (nest->objects >> nest->depth & 1) != 0;
}

/* Reads a key and its colon, up to where its value begins. */
static int read_key(struct json_reader *reader, struct json_string *ret_key)
{
    struct json_string key;

    if (reader->at == reader->size || reader->data[reader->at] != '"') {
        return fail_here(reader);
    }
    const int result = read_string(reader, &key);
    if (result < 0) {
        return result;
    }
    skip_space(reader);
    if (!take(reader, ':')) {
        return fail_here(reader);
    }
    skip_space(reader);
    *ret_key = key;
    return 0;
}

/* Enters the object or array at the reader's place, up to its first value; leaves it at once if it
 * is empty. */
static int nest_enter(struct json_reader *reader, struct nest *nest, bool *ret_empty)
{
    const bool object = reader->data[reader->at] == '{';
    struct json_string key;

    if (nest->depth == nest->max) {
        return fail(reader, JSON_ERROR_DEPTH, reader->at);
    }
    reader->at++;
    skip_space(reader);
    *ret_empty = take(reader, object ? '}' : ']');
    if (*ret_empty) {
        return 0;
    }
    nest->depth++;
    nest->objects &= ~(1ULL << nest->depth);
    nest->objects |= (uint64_t)object << nest->depth;
    return object ? read_key(reader, &key) : 0;
}

/* After a value: leaves every level that ends here, up to the next value. */
static int nest_leave(struct json_reader *reader, struct nest *nest)
{
    struct json_string key;

    while (nest->depth > 0) {
        skip_space(reader);
        if (take(reader, ',')) {
            skip_space(reader);
            return in_object(nest) ? read_key(reader, &key) : 0;
        }
        if (!take(reader, in_object(nest) ? '}' : ']')) {
            return fail_here(reader);
        }
        nest->depth--;
    }
    return 0;
}

/* Validates the object or array at the reader's place, whole. levels: how many may be open. */
static int skip_nested(struct json_reader *reader, uint32_t levels)
{
    struct nest nest = {.max = levels};
    struct json_value ignored;
    int result = 0;

    do {
        const char c = (char)(reader->at < reader->size ? reader->data[reader->at] : 0);
        bool whole = true;
        if (c == '{' || c == '[') {
            result = nest_enter(reader, &nest, &whole);
        } else {
            result = read_scalar(reader, &ignored);
        }
        if (result == 0 && whole) {
            result = nest_leave(reader, &nest);
        }
    } while (result == 0 && nest.depth > 0);
    CHECK(nest.depth <= JSON_DEPTH_MAX); /* J3 */
    return result;
}

/* Reads any value at the reader's place. levels: how many objects and arrays it may open. */
static int read_value(struct json_reader *reader, uint32_t levels, struct json_value *ret_value)
{
    const uint32_t begin = reader->at;
    const char c = (char)(begin < reader->size ? reader->data[begin] : 0);
    int result = 0;

    if (c == '{' || c == '[') {
        result = skip_nested(reader, levels);
        if (result == 0) {
            *ret_value = (struct json_value){.type = c == '{' ? JSON_OBJECT : JSON_ARRAY};
        }
    } else {
        result = read_scalar(reader, ret_value);
    }
    if (result == 0) {
        ret_value->raw = (struct slice){reader->data + begin, reader->at - begin};
    }
    return result;
}

/*
 * Writing.
 */

/* Writes the decimal digits of number so that they end before end; returns where they begin. */
static char *digits_before(char *end, uint64_t number)
{
    do {
        *--end = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return end;
}

/* The escape of a quote, a backslash or a control character, into six bytes; returns its size. */
static uint32_t write_escape(char c, char out[6])
{
    static const char hex[] = "0123456789abcdef";
    static const char short_names[0x20] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

    out[0] = '\\';
    if (c == '"' || c == '\\') {
        out[1] = c;
        return 2;
    }
    CHECK((unsigned char)c < 0x20);
    if (short_names[(unsigned char)c] != 0) {
        out[1] = short_names[(unsigned char)c];
        return 2;
    }
    out[1] = 'u';
    out[2] = out[3] = '0';
    out[4] = hex[(unsigned char)c >> 4];
    out[5] = hex[c & 0xF];
    return 6;
}
