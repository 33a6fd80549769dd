/* http.c - see http.h for the invariants H1 to H3 named below. */
#include "core/http.h"

#include "core/check.h"
#include "core/utf8.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Where a byte may stand. */
enum { TOKEN = 1, HOST = 2, HEX = 4, TOKEN68 = 8, DIGIT = 16 };
enum { ALNUM = TOKEN | HOST | TOKEN68 };

/* RFC 9110 section 5.6.2 (token) and 11.2 (token68), RFC 3986 section 3.2.2 (reg-name). */
static const uint8_t classes[256] = {
    ['!'] = TOKEN | HOST,
    ['#'] = TOKEN,
    ['$' ... '\''] = TOKEN | HOST,
    ['(' ... ')'] = HOST,
    ['*'] = TOKEN | HOST,
    ['+'] = ALNUM,
    [','] = HOST,
    ['-' ... '.'] = ALNUM,
    ['/'] = TOKEN68,
    ['0' ... '9'] = ALNUM | HEX | DIGIT,
    [';'] = HOST,
    ['='] = HOST,
    ['A' ... 'F'] = ALNUM | HEX,
    ['G' ... 'Z'] = ALNUM,
    ['^'] = TOKEN,
    ['_'] = ALNUM,
    ['`'] = TOKEN,
    ['a' ... 'f'] = ALNUM | HEX,
    ['g' ... 'z'] = ALNUM,
    ['|'] = TOKEN,
    ['~'] = ALNUM,
};

static inline bool is(char c, uint8_t class)
{
    return (classes[(unsigned char)c] & class) != 0;
}

static inline struct slice part(struct slice whole, uint32_t begin, uint32_t end)
{
    return (struct slice){whole.data + begin, end - begin};
}

/* Offset of c in the slice, or its size. */
static uint32_t find(struct slice slice, char c)
{
    const char *found = slice.size > 0 ? memchr(slice.data, c, slice.size) : NULL;
    return found != NULL ? (uint32_t)(found - slice.data) : slice.size;
}

/* What is gathered line by line, and judged when all lines are known. */
struct head {
    struct http_request request;
    struct slice authority; /* of an absolute target */
    struct slice content_length;
    struct slice transfer_encoding; /* the first line of it: there is one */
    uint32_t codings;               /* transfer codings in all lines */
    uint32_t chunked;               /* how many of them are chunked */
    bool chunked_last;              /* the last of them is */
    bool expect_other;              /* Expect asks for what we do not know */
    bool connection_keep_alive;
};

static int find_end(struct slice data, const struct http_limits *limits, uint32_t *ret_begin);
static int read_lines(struct slice text, const struct http_limits *limits, struct head *head);
static int conclude(struct head *head);
static int percent_decode(struct slice encoded, bool segment, char *out, uint32_t capacity);

int http_decode(const char *data, uint32_t size, const struct http_limits *limits,
                struct http_request *ret_request)
{
    struct head head = {0};
    uint32_t begin = 0;
    const int end = find_end((struct slice){data, size}, limits, &begin);

    if (end <= 0) {
        return end;
    }
    CHECK((uint32_t)end <= size);
    int result = read_lines((struct slice){data + begin, (uint32_t)end - begin}, limits, &head);
    result = result == 0 ? conclude(&head) : result;
    if (result < 0) {
        return result;
    }
    *ret_request = head.request;
    return end;
}

static const char *const method_names[] = {
    [HTTP_GET] = "GET",     [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",      [HTTP_PUT] = "PUT",
    [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE", [HTTP_OPTIONS] = "OPTIONS"};
enum { METHODS = sizeof method_names / sizeof method_names[0] };

const char *http_method_name(enum http_method method)
{
    CHECK((uint32_t)method < METHODS);
    return method_names[method];
}

/* Without spaces and tabs at both ends. */
static struct slice trim(struct slice text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t')) {
        text.size--;
    }
    return text;
}

/* Takes what lies before the next separator off text, and the separator. */
static struct slice split(struct slice *text, char separator)
{
    const uint32_t end = find(*text, separator);
    const struct slice first = part(*text, 0, end);

    *text = end < text->size ? part(*text, end + 1, text->size) : part(*text, end, end);
    return first;
}

bool http_list_next(struct slice *list, struct slice *ret_item)
{
    while (list->size > 0) {
        const struct slice item = trim(split(list, ','));
        if (item.size > 0) {
            *ret_item = item;
            return true;
        }
    }
    return false;
}

int http_bearer(struct slice authorization, struct slice *ret_token)
{
    struct slice rest = authorization;

    if (authorization.data == NULL) {
        return -ENOENT;
    }
    const struct slice scheme = split(&rest, ' ');
    const struct slice token = trim(rest);
    uint32_t at = 0;
    while (at < token.size && is(token.data[at], TOKEN68)) {
        at++;
    }
    const bool begun = at > 0;
    while (at < token.size && token.data[at] == '=') {
        at++; /* padding of Base64 */
    }
    if (!http_equal_nocase(scheme, SLICE("Bearer")) || !begun || at < token.size) {
        return -EINVAL;
    }
    *ret_token = token;
    return 0;
}

bool http_query_next(struct slice *query, struct slice *ret_key, struct slice *ret_value)
{
    while (query->size > 0) {
        const struct slice pair = split(query, '&');
        if (pair.size > 0) {
            const uint32_t equals = find(pair, '=');
            *ret_key = part(pair, 0, equals);
            *ret_value =
                equals < pair.size ? part(pair, equals + 1, pair.size) : (struct slice){NULL, 0};
            return true;
        }
    }
    return false;
}

int http_query_decode(struct slice encoded, char *out, uint32_t capacity)
{
    return percent_decode(encoded, false, out, capacity);
}

bool http_path_next(struct slice *path, struct slice *ret_segment)
{
    if (path->size == 0 || path->data[0] != '/') {
        return false;
    }
    const struct slice rest = part(*path, 1, path->size);
    const uint32_t end = find(rest, '/');
    *ret_segment = part(rest, 0, end);
    *path = part(rest, end, rest.size);
    return true;
}

int http_segment_decode(struct slice encoded, char *out, uint32_t capacity)
{
    return percent_decode(encoded, true, out, capacity);
}

void http_write_head(struct json_writer *writer, uint32_t status, struct slice content_type,
                     uint64_t content_length, struct slice extra, bool keep_alive)
{
    const uint32_t begin = writer->size;
    const char *reason = http_reason(status);

    CHECK(status >= 100 && status <= 599);
    JSON_WRITE(writer, "HTTP/1.1 ");
    json_write_u64(writer, status);
    JSON_WRITE(writer, " ");
    json_write_raw(writer, (struct slice){reason, (uint32_t)strlen(reason)});
    JSON_WRITE(writer, "\r\n");
    if (content_type.size > 0) {
        JSON_WRITE(writer, "Content-Type: ");
        json_write_raw(writer, content_type);
        JSON_WRITE(writer, "\r\n");
    }
    if (status >= 200 && status != 204) { /* RFC 9110 section 8.6 */
        JSON_WRITE(writer, "Content-Length: ");
        json_write_u64(writer, content_length);
        JSON_WRITE(writer, "\r\n");
    }
    json_write_raw(writer, extra);
    if (status < 200) {
        JSON_WRITE(writer, "\r\n");
    } else if (keep_alive) { /* said for HTTP/1.0, which closes otherwise */
        JSON_WRITE(writer, "Connection: keep-alive\r\n\r\n");
    } else {
        JSON_WRITE(writer, "Connection: close\r\n\r\n");
    }
    if (writer->overflow) {
        writer->size = begin; /* all or nothing */
    }
}

/* Writes a number in exactly width digits. */
static void put_digits(char *out, uint32_t width, uint64_t number)
{
    for (uint32_t i = width; i > 0; i--) {
        out[i - 1] = (char)('0' + number % 10);
        number /= 10;
    }
}

void http_write_date(struct json_writer *writer, uint64_t unix_seconds)
{
    static const char weekdays[] = "ThuFriSatSunMonTueWed"; /* 1970-01-01 was a Thursday */
    static const char months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    char line[] = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";

    CHECK(unix_seconds < 253402300800); /* year 10000 */
    /* Years begin in March here, so that a leap day is the last day of its year: then day and month
     * follow from the day of the year alone, months of 153 days in five (Hinnant,
     * "chrono-Compatible Low-Level Date Algorithms", civil_from_days). 719468: days from 0000-03-01
     * to 1970-01-01. */
    const uint64_t days = unix_seconds / 86400;
    const uint64_t era_day = (days + 719468) % 146097;
    const uint64_t era_year = (era_day - era_day / 1460 + era_day / 36524 - era_day / 146096) / 365;
    const uint64_t year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    const uint64_t month = (5 * year_day + 2) / 153; /* 0: March */
    const uint64_t year = (days + 719468) / 146097 * 400 + era_year + (month >= 10 ? 1 : 0);

    memcpy(line + 6, weekdays + days % 7 * 3, 3);
    put_digits(line + 11, 2, year_day - (153 * month + 2) / 5 + 1);
    memcpy(line + 14, months + month * 3, 3);
    put_digits(line + 18, 4, year);
    put_digits(line + 23, 2, unix_seconds / 3600 % 24);
    put_digits(line + 26, 2, unix_seconds / 60 % 60);
    put_digits(line + 29, 2, unix_seconds % 60);
    json_write_raw(writer, (struct slice){line, sizeof line - 1});
}

const char *http_reason(uint32_t status)
{
    static const char *const reasons[] = {
        [100] = "Continue",
        [101] = "Switching Protocols",
        [200] = "OK",
        [201] = "Created",
        [204] = "No Content",
        [206] = "Partial Content",
        [304] = "Not Modified",
        [400] = "Bad Request",
        [401] = "Unauthorized",
        [403] = "Forbidden",
        [404] = "Not Found",
        [405] = "Method Not Allowed",
        [408] = "Request Timeout",
        [409] = "Conflict",
        [411] = "Length Required",
        [413] = "Content Too Large",
        [414] = "URI Too Long",
        [415] = "Unsupported Media Type",
        [416] = "Range Not Satisfiable",
        [417] = "Expectation Failed",
        [426] = "Upgrade Required",
        [429] = "Too Many Requests",
        [431] = "Request Header Fields Too Large",
        [500] = "Internal Server Error",
        [501] = "Not Implemented",
        [503] = "Service Unavailable",
        [505] = "HTTP Version Not Supported",
    };
    const bool known = status < sizeof reasons / sizeof reasons[0] && reasons[status] != NULL;

    return known ? reasons[status] : "";
}

/*
 * Where the head ends.
 */

/* The head is not whole yet. Whether it may still become so, given what its limits leave. */
static int find_end_later(struct slice seen, uint32_t begin, uint32_t lines, bool full,
                          const struct http_limits *limits)
{
    if (lines == 0 && seen.size > begin) {
        const bool ending = seen.data[seen.size - 1] == '\r';
        if (seen.size - begin - (ending ? 1 : 0) > limits->line_bytes_max) {
            return -414;
        }
    }
    return full ? -431 : 0;
}

/* Size of the head from the first byte to the empty line; 0: more is needed; or minus a status.
 * *ret_begin: where the request line begins. Looks at line ends only, and at the first byte: what
 * speaks TLS to this port is told so at once. */
static int find_end(struct slice data, const struct http_limits *limits, uint32_t *ret_begin)
{
    const bool full = data.size >= limits->head_bytes_max;
    const struct slice seen = {data.data, full ? limits->head_bytes_max : data.size};
    const uint32_t begin = seen.size > 0 && seen.data[0] == '\r' ? 2 : 0;
    uint32_t at = begin;
    uint32_t lines = 0;

    CHECK(limits->head_bytes_max >= 4 && limits->head_bytes_max <= INT_MAX);
    if (begin == 2 && seen.size > 1 && seen.data[1] != '\n') {
        return -400;
    }
    if (seen.size > begin && !is(seen.data[begin], TOKEN)) {
        return -400;
    }
    while (at < seen.size) {
        const uint32_t size = find(part(seen, at, seen.size), '\n');
        if (at + size == seen.size) {
            break;
        }
        if (seen.data[at + size - 1] != '\r') { /* the first byte of all is no line end */
            return -400;
        }
        if (lines == 0 && size - 1 > limits->line_bytes_max) {
            return -414;
        }
        at += size + 1;
        lines++;
        if (size == 1) {
            *ret_begin = begin;
            return (int)at;
        }
    }
    return find_end_later(seen, begin, lines, full, limits);
}

/*
 * Lines.
 */

static int read_request_line(struct slice line, struct head *head);
static int read_header(struct slice line, struct head *head);

/* Bytes that are control characters, tabs aside. */
static uint32_t count_controls(struct slice text)
{
    uint32_t count = 0;
    uint32_t at = 0;

#ifdef __SSE2__
    const __m128i highest = _mm_set1_epi8(0x1F);
    const __m128i tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7F);
    for (; text.size - at >= 16; at += 16) {
        const __m128i block = _mm_loadu_si128((const __m128i *)(const void *)(text.data + at));
        const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(block, highest), block);
        const __m128i wrong = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(block, tab), low),
                                           _mm_cmpeq_epi8(block, del));
        count += (uint32_t)__builtin_popcount((uint32_t)_mm_movemask_epi8(wrong));
    }
#endif
    for (; at < text.size; at++) {
        const unsigned char c = (unsigned char)text.data[at];
        count += (c < 0x20 && c != '\t') || c == 0x7F;
    }
    return count;
}

/* Reads a head that is whole: text ends with the empty line. */
static int read_lines(struct slice text, const struct http_limits *limits, struct head *head)
{
    uint32_t at = 0;
    uint32_t lines = 0;
    int result = 0;

    /* H3: each line ends in CRLF, as find_end has seen. Any more control characters than those are
     * bare CRs, NULs and the like (RFC 9112 section 2.2, RFC 9110 section 5.5). */
    while (at < text.size && result == 0) {
        const uint32_t size = find(part(text, at, text.size), '\n') - 1;
        const struct slice line = part(text, at, at + size);
        CHECK(text.data[at + size] == '\r');
        if (lines == 0) {
            result = read_request_line(line, head);
        } else if (size > 0 && lines > limits->headers_max) {
            return -431;
        } else if (size > 0) {
            result = read_header(line, head);
        }
        at += size + 2;
        lines++;
    }
    if (result == 0 && count_controls(text) != 2 * lines) {
        return -400;
    }
    return result;
}

/* host [ ":" port ], RFC 9110 section 7.2; the host may be empty. */
static bool is_host(struct slice host)
{
    uint32_t at = 0;

    if (host.size > 0 && host.data[0] == '[') {
        at = 1;
        while (at < host.size &&
               (is(host.data[at], HEX) || host.data[at] == ':' || host.data[at] == '.')) {
            at++;
        }
        if (at < 3 || at == host.size || host.data[at] != ']') {
            return false;
        }
        at++;
    } else {
        while (at < host.size && is(host.data[at], HOST)) {
            at++;
        }
    }
    if (at < host.size && host.data[at] == ':') {
        at++;
        while (at < host.size && is(host.data[at], DIGIT)) {
            at++;
        }
    }
    return at == host.size;
}

/* http://authority/path?query: RFC 9112 section 3.2.2. *ret_rest: from the path on. */
static int read_absolute(struct slice target, struct head *head, struct slice *ret_rest)
{
    static const struct slice scheme = {"http://", 7};

    if (target.size <= scheme.size || !http_equal_nocase(part(target, 0, scheme.size), scheme)) {
        return -400;
    }
    const struct slice rest = part(target, scheme.size, target.size);
    const uint32_t slash = find(rest, '/');
    const uint32_t question = find(rest, '?');
    const uint32_t end = slash < question ? slash : question;
    head->authority = part(rest, 0, end);
    /* An http URI without a host is invalid, one with a user in it a trap: RFC 9110 section 4.2. */
    if (end == 0 || rest.data[0] == ':' || !is_host(head->authority)) {
        return -400;
    }
    *ret_rest = part(rest, end, rest.size);
    return 0;
}

/* Splits the target into path and query. */
static int read_target(struct slice target, struct head *head)
{
    struct slice rest = target;

    for (uint32_t i = 0; i < target.size; i++) {
        /* Visible ASCII, and no '#': a fragment is never sent (RFC 9110 section 4.2.5). */
        const unsigned char c = (unsigned char)target.data[i];
        if (c <= ' ' || c >= 0x7F || c == '#') {
            return -400;
        }
    }
    if (target.size == 0) {
        return -400;
    }
    if (slice_equal(target, SLICE("*"))) {
        head->request.path = target;
        return head->request.method == HTTP_OPTIONS ? 0 : -400;
    }
    if (target.data[0] != '/') {
        const int result = read_absolute(target, head, &rest);
        if (result < 0) {
            return result;
        }
    }
    const uint32_t question = find(rest, '?');
    head->request.path = question > 0 ? part(rest, 0, question) : SLICE("/");
    if (question < rest.size) {
        head->request.query = part(rest, question + 1, rest.size);
    }
    return 0;
}

/* HTTP/1.0 or HTTP/1.1, RFC 9112 section 2.3. */
static int read_version(struct slice version, struct head *head)
{
    if (version.size != 8 || memcmp(version.data, "HTTP/", 5) != 0 || !is(version.data[5], DIGIT) ||
        version.data[6] != '.' || !is(version.data[7], DIGIT)) {
        return -400;
    }
    if (version.data[5] != '1') {
        return -505;
    }
    head->request.minor = version.data[7] == '0' ? 0 : 1;
    return 0;
}

/* method SP target SP version, RFC 9112 section 3. One space each: others read it otherwise. */
static int read_request_line(struct slice line, struct head *head)
{
    struct slice rest = line;
    const struct slice method = split(&rest, ' ');
    const struct slice target = split(&rest, ' ');
    const int result = read_version(rest, head);

    if (result < 0) {
        return result;
    }
    for (uint32_t i = 0; i < method.size; i++) {
        if (!is(method.data[i], TOKEN)) {
            return -400;
        }
    }
    for (uint32_t i = 0; i < METHODS; i++) {
        if (method.size == strlen(method_names[i]) &&
            memcmp(method.data, method_names[i], method.size) == 0) {
            head->request.method = (enum http_method)i;
            return read_target(target, head);
        }
    }
    return -501; /* a method's name has case: RFC 9110 section 9.1 */
}

/*
 * Headers.
 */

static int read_host(struct slice value, struct head *head)
{
    (void)head;
    return is_host(value) ? 0 : -400;
}

static int read_expect(struct slice value, struct head *head)
{
    const bool known = http_equal_nocase(value, SLICE("100-continue"));

    head->request.expect_continue |= known;
    head->expect_other |= !known;
    return 0;
}

static int read_upgrade(struct slice value, struct head *head)
{
    head->request.upgrade_websocket |= http_list_has(value, SLICE("websocket"));
    return 0;
}

static int read_connection(struct slice value, struct head *head)
{
    head->request.connection_close |= http_list_has(value, SLICE("close"));
    head->request.connection_upgrade |= http_list_has(value, SLICE("upgrade"));
    head->connection_keep_alive |= http_list_has(value, SLICE("keep-alive"));
    return 0;
}

static int read_transfer_encoding(struct slice value, struct head *head)
{
    struct slice item;

    while (http_list_next(&value, &item)) {
        head->chunked_last = http_equal_nocase(item, SLICE("chunked"));
        head->chunked += head->chunked_last;
        head->codings++;
    }
    return 0;
}

/* A header that is looked at. */
struct header_row {
    const char *name; /* in lower case; its size is its place in the table */
    uint16_t offset;  /* of its slice in struct head; 0: not kept */
    bool once;        /* a second one makes the request ambiguous: 400 */
    int (*read)(struct slice value, struct head *head); /* NULL: kept for the session, no more */
};

#define KEPT(field) offsetof(struct head, field)
_Static_assert(sizeof(struct head) <= UINT16_MAX, "header_row.offset");
_Static_assert(KEPT(request.method) == 0, "offset 0 is no slice");

enum { NAME_MAX_KNOWN = 24, NAMES_A_SIZE = 2 };

/* By the size of the name: at most two names to compare with. */
static const struct header_row headers[NAME_MAX_KNOWN + 1][NAMES_A_SIZE] = {
    [4] = {{"host", KEPT(request.host), true, read_host}},
    [5] = {{"range", KEPT(request.range), true, NULL}},
    [6] = {{"origin", KEPT(request.origin), true, NULL}, {"expect", 0, false, read_expect}},
    [7] = {{"upgrade", 0, false, read_upgrade}},
    [10] = {{"connection", 0, false, read_connection}},
    [12] = {{"content-type", KEPT(request.content_type), true, NULL}},
    [13] = {{"authorization", KEPT(request.authorization), true, NULL},
            {"if-none-match", KEPT(request.if_none_match), false, NULL}},
    [14] = {{"content-length", KEPT(content_length), true, NULL}},
    [15] = {{"accept-encoding", KEPT(request.accept_encoding), false, NULL},
            {"idempotency-key", KEPT(request.idempotency_key), true, NULL}},
    [17] = {{"transfer-encoding", KEPT(transfer_encoding), false, read_transfer_encoding},
            {"sec-websocket-key", KEPT(request.sec_websocket_key), true, NULL}},
    [21] = {{"sec-websocket-version", KEPT(request.sec_websocket_version), true, NULL}},
    [22] = {{"sec-websocket-protocol", KEPT(request.sec_websocket_protocol), false, NULL}},
    [24] = {{"sec-websocket-extensions", KEPT(request.sec_websocket_extensions), false, NULL}},
};

/* The row of a name in lower case, or NULL if it is not looked at. */
static const struct header_row *find_header(const char *name, uint32_t size)
{
    for (uint32_t i = 0; i < NAMES_A_SIZE && size <= NAME_MAX_KNOWN; i++) {
        const struct header_row *row = &headers[size][i];
        if (row->name != NULL && memcmp(row->name, name, size) == 0) {
            return row;
        }
    }
    return NULL;
}

/* Reads the name in front of the colon, RFC 9112 section 5: a token, and no space anywhere. A line
 * that begins with white space (obs-fold) fails here as well. *ret_size: of the name. */
static int read_name(struct slice line, const struct header_row **ret_row, uint32_t *ret_size)
{
    char name[NAME_MAX_KNOWN];
    uint32_t size = 0;

    while (size < line.size && is(line.data[size], TOKEN)) {
        if (size < sizeof name) {
            name[size] = http_lower(line.data[size]);
        }
        size++;
    }
    if (size == 0 || size == line.size || line.data[size] != ':') {
        return -400;
    }
    *ret_row = find_header(name, size);
    *ret_size = size;
    return 0;
}

/* Reads one header line without its CRLF. */
static int read_header(struct slice line, struct head *head)
{
    const struct header_row *row = NULL;
    uint32_t size = 0;
    const int result = read_name(line, &row, &size);

    if (result < 0 || row == NULL) {
        return result;
    }
    const struct slice value = trim(part(line, size + 1, line.size));
    if (row->offset != 0) {
        struct slice *kept = (struct slice *)(void *)((char *)head + row->offset);
        if (kept->data != NULL && row->once) {
            return -400;
        }
        *kept = kept->data != NULL ? *kept : value;
    }
    return row->read != NULL ? row->read(value, head) : 0;
}

/*
 * What the lines amount to.
 */

/* Digits and nothing else: "+5", "5, 5" and "" have been read as different sizes by others. */
static int read_content_length(struct slice text, struct http_request *request)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < text.size; i++) {
        if (!is(text.data[i], DIGIT) || __builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, (uint64_t)(text.data[i] - '0'), &length)) {
            return -400;
        }
    }
    if (text.size == 0) {
        return -400;
    }
    request->has_content_length = true;
    request->content_length = length;
    return 0;
}

/* Where the body ends, RFC 9112 section 6.3; see http.h, "Bodies". */
static int conclude_body(struct head *head)
{
    if (head->transfer_encoding.data != NULL) {
        if (head->content_length.data != NULL || head->request.minor == 0 || !head->chunked_last ||
            head->chunked > 1) {
            return -400;
        }
        return head->codings == 1 ? -411 : -501;
    }
    if (head->content_length.data != NULL) {
        return read_content_length(head->content_length, &head->request);
    }
    return 0;
}

/* Judges what only all lines together can tell. */
static int conclude(struct head *head)
{
    struct http_request *request = &head->request;
    const bool old = request->minor == 0;
    const int result = conclude_body(head);

    if (result < 0) {
        return result;
    }
    if (!old && request->host.data == NULL) {
        return -400; /* RFC 9112 section 3.2, beside an absolute target too */
    }
    if (!old && head->expect_other) {
        return -417; /* RFC 9110 section 10.1.1 */
    }
    if (head->authority.data != NULL) {
        request->host = head->authority; /* RFC 9112 section 3.2.2 */
    }
    /* HTTP/1.0 knows neither: RFC 9110 sections 7.8 and 10.1.1. */
    request->upgrade_websocket &= !old;
    request->expect_continue &= !old;
    request->keep_alive = !request->connection_close && (!old || head->connection_keep_alive);
    return 0;
}

/*
 * Percent-encoding, RFC 3986 section 2.1.
 */

static uint32_t hex_value(char c)
{
    return is(c, DIGIT) ? (uint32_t)(c - '0') : (uint32_t)(http_lower(c) - 'a') + 10;
}

/* Decodes the byte at the beginning of encoded; returns what it takes there, or -EINVAL. */
static int decode_byte(struct slice encoded, bool segment, char *ret_byte)
{
    const char c = encoded.data[0];

    if (c != '%') {
        *ret_byte = (char)(c == '+' && !segment ? ' ' : c);
        return 1;
    }
    if (encoded.size < 3 || !is(encoded.data[1], HEX) || !is(encoded.data[2], HEX)) {
        return -EINVAL;
    }
    const char byte = (char)(hex_value(encoded.data[1]) << 4 | hex_value(encoded.data[2]));
    if (byte == 0 || (segment && (byte == '/' || byte == '\\'))) {
        return -EINVAL;
    }
    *ret_byte = byte;
    return 3;
}

static int percent_decode(struct slice encoded, bool segment, char *out, uint32_t capacity)
{
    uint32_t size = 0;

    while (encoded.size > 0) {
        char byte = 0;
        const int taken = decode_byte(encoded, segment, &byte);
        if (taken < 0) {
            return taken;
        }
        if (size == capacity || size == INT_MAX) {
            return -ENOBUFS;
        }
        out[size++] = byte;
        encoded = part(encoded, (uint32_t)taken, encoded.size);
    }
    return utf8_valid(out, size) ? (int)size : -EILSEQ;
}
