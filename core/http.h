/*
 * http.h - heads of HTTP/1.1 requests read, heads of responses written (RFC 9110, RFC 9112).
 *
 * DESIGN  http_decode looks at everything received so far. While the head is not whole it does no
 *         more than look for line ends, so that a client that sends one byte at a time costs little
 *         (8 KiB one by one: a few milliseconds in all); the facts are read once, when it is whole.
 *         Where two readers of one message could disagree about where it ends, it is refused:
 *         request smuggling lives from leniency.
 *
 * Bodies:     only with Content-Length. `Transfer-Encoding: chunked` alone is answered 411 (RFC
 *             9112 section 6.3 allows it): every client of ours knows its size beforehand, and one
 *             way of framing is one fewer to get wrong. Other codings before chunked are 501
 *             (section 6.1), a last coding that is not chunked is 400 (section 6.3), as is any
 *             Transfer-Encoding beside Content-Length or in HTTP/1.0. After an error the
 *             connection must be closed.
 * Threads:    any; pure functions.
 * Ownership:  slices point into the caller's bytes and live as long as they stay where they are.
 * Units:      sizes are in bytes.
 *
 * Invariants: (H1) a head that was decoded has the same facts however it was cut on its way.
 *             (H2) where a part is refused, the whole is refused: more bytes never mend an error.
 *             (H3) no slice holds CR, LF, NUL or another control character except a tab: it may
 *                  be written into a log line or a header as it is.
 */
#pragma once

#include "core/json.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
};

struct http_limits {
    uint32_t head_bytes_max; /* from the first byte to the empty line, that included; else 431 */
    uint32_t line_bytes_max; /* the request line without its CRLF; else 414 */
    uint32_t headers_max;    /* header lines; else 431 */
};

/* What an empty configuration gives. */
#define HTTP_LIMITS_DEFAULT                                                                        \
    ((struct http_limits){.head_bytes_max = 8192, .line_bytes_max = 4096, .headers_max = 64})

/* What a head says. A slice with data == NULL: the header is not there; size 0: it is empty. */
struct http_request {
    enum http_method method;
    uint8_t minor;           /* HTTP/1.minor: 0 or 1 (a higher one is 1, RFC 9110 section 2.5) */
    bool keep_alive;         /* the connection may carry another request after this one */
    bool connection_close;   /* Connection has close */
    bool connection_upgrade; /* Connection has upgrade */
    bool upgrade_websocket;  /* Upgrade has websocket; never in HTTP/1.0 */
    bool expect_continue;    /* Expect: 100-continue; never in HTTP/1.0 */
    bool has_content_length;
    uint64_t content_length; /* 0 if there is none: then there is no body */

    struct slice path;  /* as sent, percent-encoded, begins with '/'; "*" only with OPTIONS */
    struct slice query; /* as sent, without the '?'; data == NULL if there was no '?' */
    struct slice host;  /* Host, or the authority of an absolute target, which goes before it */

    /* At most once, else 400. */
    struct slice content_type;
    struct slice authorization;
    struct slice sec_websocket_key;
    struct slice sec_websocket_version;
    struct slice origin;
    struct slice idempotency_key;
    struct slice range;

    /* Lists. They may come in several lines; these hold the first line. All are offers, so that
     * an item not looked at is an offer not taken. See http_list_next. */
    struct slice sec_websocket_protocol;
    struct slice sec_websocket_extensions;
    struct slice if_none_match;
    struct slice accept_encoding;
};

/* Reads the head of one request. > 0: its size, the body begins there, *ret_request is filled;
 * 0: more bytes are needed; < 0: minus the status to answer with before closing (400, 411, 414,
 * 417, 431, 501, 505). One empty line before the request is skipped (RFC 9112 section 2.2). */
__attribute__((warn_unused_result)) int http_decode(const char *data, uint32_t size,
                                                    const struct http_limits *limits,
                                                    struct http_request *ret_request);

/* The method as it is written, for logs and the Allow header. */
const char *http_method_name(enum http_method method);

/* Takes the next item off a comma-separated list, without the white space around it; empty items
 * are passed over (RFC 9110 section 5.6.1). False: there is none left. */
__attribute__((warn_unused_result)) bool http_list_next(struct slice *list, struct slice *ret_item);

static inline char http_lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

/* Equality without regard to the case of ASCII letters: schemes, tokens, media types. */
static inline bool http_equal_nocase(struct slice a, struct slice b)
{
    uint32_t same = 0;

    while (a.size == b.size && same < a.size &&
           http_lower(a.data[same]) == http_lower(b.data[same])) {
        same++;
    }
    return a.size == b.size && same == a.size;
}

/* Whether the list has the token, without regard to the case of ASCII letters. */
static inline bool http_list_has(struct slice list, struct slice token)
{
    struct slice item;

    while (http_list_next(&list, &item)) {
        if (http_equal_nocase(item, token)) {
            return true;
        }
    }
    return false;
}

/* The token of `Authorization: Bearer <token>` (RFC 6750). 0; -ENOENT: the header is not there;
 * -EINVAL: another scheme, or no token68 after it. */
__attribute__((warn_unused_result)) int http_bearer(struct slice authorization,
                                                    struct slice *ret_token);

/* Takes the next key=value off a query, both still encoded; an empty pair is passed over, a key
 * without '=' has a value with data == NULL. False: there is none left. */
__attribute__((warn_unused_result)) bool http_query_next(struct slice *query, struct slice *ret_key,
                                                         struct slice *ret_value);

/* Decodes a key or a value of a query: %XX, and '+' as a space. Returns the size written into out;
 * -EINVAL: a '%' without two hex digits, or %00; -EILSEQ: the result is not UTF-8; -ENOBUFS. */
__attribute__((warn_unused_result)) int http_query_decode(struct slice encoded, char *out,
                                                          uint32_t capacity);

/* Takes the next segment off a path, still encoded: "/v1/rooms/a%20b" is v1, rooms, a%20b. A slash
 * at the end, or two in a row, makes an empty segment. False: there is none left. */
__attribute__((warn_unused_result)) bool http_path_next(struct slice *path,
                                                        struct slice *ret_segment);

/* Decodes a segment: %XX; '+' is itself. Returns as http_query_decode, and -EINVAL for an encoded
 * slash or backslash too: a segment stays one. "." and ".." are segments like others here. */
__attribute__((warn_unused_result)) int http_segment_decode(struct slice encoded, char *out,
                                                            uint32_t capacity);

/* Appends a response's head, empty line included. content_type may be empty (no such header). extra
 * is whole header lines, each with its CRLF, or empty; its text is the caller's to vouch for.
 * 1xx and 204 carry no Content-Length, 1xx no Connection (for 101 it is in extra). For HEAD give
 * the length that GET would have. */
void http_write_head(struct json_writer *writer, uint32_t status, struct slice content_type,
                     uint64_t content_length, struct slice extra, bool keep_alive);

/* Appends "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" for seconds since 1970 UTC, leap seconds not
 * counted, at most year 9999. RFC 9110 section 6.6.1 wants it; one line a second serves a shard. */
void http_write_date(struct json_writer *writer, uint64_t unix_seconds);

/* The reason phrase of a status, or "" for one that damso does not use. */
const char *http_reason(uint32_t status);
