/*
 * test_http.c - a head has one meaning however it arrives, and what could have two is refused.
 *
 * Method: heads lie at the very end of their buffer, so that AddressSanitizer sees a read of one
 *         byte too many. Each good head is also given one byte at a time (0 until it is whole, then
 *         the same facts), with a body behind it, and overwritten at every byte. The list of wrong
 *         heads names the status that each must get; each also gets it with more bytes behind it.
 */
#include "core/check.h"
#include "core/http.h"

#include <errno.h>

enum { TEXT_MAX = 20000 };

static char shelf[TEXT_MAX];
static const struct http_limits limits = {
    .head_bytes_max = 8192, .line_bytes_max = 4096, .headers_max = 64};

/* The text at the end of a buffer of its own. One text at a time. */
static const char *at_end(const char *text, uint32_t size)
{
    CHECK(size <= sizeof shelf);
    memmove(shelf + sizeof shelf - size, text, size);
    return shelf + sizeof shelf - size;
}

static int decode(const char *text, struct http_request *request)
{
    const uint32_t size = (uint32_t)strlen(text);

    return http_decode(at_end(text, size), size, &limits, request);
}

/* Decodes a head that must be good, whole as it is. */
static struct http_request good(const char *text)
{
    struct http_request request;
    const int got = decode(text, &request);

    if (got != (int)strlen(text)) {
        (void)fprintf(stderr, "%s\n: %d\n", text, got);
    }
    CHECK(got == (int)strlen(text));
    return request;
}

static bool is(struct slice slice, const char *text)
{
    return slice.data != NULL && slice_equal(slice, (struct slice){text, (uint32_t)strlen(text)});
}

/* Decodes one header line in a request that is good otherwise; size of the head or minus a status.
 */
static int with_line(const char *line, struct http_request *request)
{
    char text[9000];
    struct json_writer writer = json_writer_on(text, sizeof text);

    JSON_WRITE(&writer, "POST /v1/rooms HTTP/1.1\r\nHost: a\r\n");
    json_write_raw(&writer, (struct slice){line, (uint32_t)strlen(line)});
    JSON_WRITE(&writer, "\r\n\r\n");
    CHECK(!writer.overflow);
    return http_decode(at_end(text, writer.size), writer.size, &limits, request);
}

static const char handshake[] = "GET /chat?room=a%20b HTTP/1.1\r\n"
                                "Host: server.example.com\r\n"
                                "Upgrade: websocket\r\n"
                                "Connection: keep-alive, Upgrade\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                "Origin: http://example.com\r\n"
                                "Sec-WebSocket-Protocol: chat, superchat\r\n"
                                "Sec-WebSocket-Extensions: permessage-deflate\r\n"
                                "Authorization: Bearer a.b-c_d\r\n"
                                "Sec-WebSocket-Version: 13\r\n\r\n";

static void the_handshake_of_rfc_6455_is_read(void)
{
    const struct http_request request = good(handshake);

    CHECK(request.method == HTTP_GET && request.minor == 1);
    CHECK(is(request.path, "/chat") && is(request.query, "room=a%20b"));
    CHECK(is(request.host, "server.example.com"));
    CHECK(request.connection_upgrade && request.upgrade_websocket && !request.connection_close);
    CHECK(request.keep_alive);
    CHECK(is(request.sec_websocket_key, "dGhlIHNhbXBsZSBub25jZQ=="));
    CHECK(is(request.sec_websocket_version, "13"));
    CHECK(is(request.sec_websocket_protocol, "chat, superchat"));
    CHECK(is(request.sec_websocket_extensions, "permessage-deflate"));
    CHECK(is(request.origin, "http://example.com"));
    CHECK(is(request.authorization, "Bearer a.b-c_d"));
    CHECK(!request.has_content_length && request.content_length == 0);
    CHECK(request.range.data == NULL && request.content_type.data == NULL);
}

static const char post[] = "POST /v1/rooms/r/messages HTTP/1.1\r\n"
                           "host:\t localhost:8080 \t\r\n"
                           "CONTENT-TYPE: application/json; charset=utf-8\r\n"
                           "Content-Length: 18446744073709551615\r\n"
                           "Idempotency-Key: \"k 1\"\r\n"
                           "If-None-Match: \"a\", W/\"b\"\r\n"
                           "If-None-Match: \"c\"\r\n"
                           "Accept-Encoding: gzip;q=1.0, *;q=0\r\n"
                           "Range: bytes=0-499\r\n"
                           "Expect: 100-Continue\r\n"
                           "User-Agent: a name of t\xC3\xA9st\r\n"
                           "X-Empty:\r\n"
                           "Origin:\r\n"
                           "Connection: Close\r\n\r\n";

static void a_post_with_a_body_is_read(void)
{
    const struct http_request request = good(post);

    CHECK(request.method == HTTP_POST);
    CHECK(is(request.path, "/v1/rooms/r/messages") && request.query.data == NULL);
    CHECK(is(request.host, "localhost:8080"));
    CHECK(is(request.content_type, "application/json; charset=utf-8"));
    CHECK(request.has_content_length && request.content_length == UINT64_MAX);
    CHECK(is(request.idempotency_key, "\"k 1\""));
    CHECK(is(request.if_none_match, "\"a\", W/\"b\""));
    CHECK(is(request.accept_encoding, "gzip;q=1.0, *;q=0"));
    CHECK(is(request.range, "bytes=0-499"));
    CHECK(is(request.origin, ""));
    CHECK(request.expect_continue);
    CHECK(request.connection_close && !request.keep_alive && !request.connection_upgrade);
}

static void the_examples_of_rfc_9112_are_read(void)
{
    struct http_request request =
        good("GET /hello.txt HTTP/1.1\r\nUser-Agent: curl/7.64.1\r\nHost: www.example.com\r\n"
             "Accept-Language: en, mi\r\n\r\n");
    CHECK(is(request.path, "/hello.txt") && request.query.data == NULL && request.keep_alive);
    request = good("GET /where?q=now HTTP/1.1\r\nHost: www.example.org\r\n\r\n");
    CHECK(is(request.path, "/where") && is(request.query, "q=now"));
    request = good("GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1\r\n"
                   "Host: other\r\n\r\n");
    CHECK(is(request.path, "/pub/WWW/TheProject.html"));
    CHECK(is(request.host, "www.example.org")); /* section 3.2.2: before Host */
    request = good("OPTIONS * HTTP/1.1\r\nHost: www.example.org\r\n\r\n");
    CHECK(request.method == HTTP_OPTIONS && is(request.path, "*"));
    request = good("GET HTTP://Example.org:80?x HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(is(request.path, "/") && is(request.query, "x") && is(request.host, "Example.org:80"));
    request = good("GET http://a?b/c HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(is(request.path, "/") && is(request.query, "b/c") && is(request.host, "a"));
    request = good("GET /? HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(is(request.path, "/") && is(request.query, ""));
    request = good("GET /a?b?c=/&d HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
    CHECK(is(request.query, "b?c=/&d") && is(request.host, "[::1]:8080"));
}

static void every_method_that_is_served_is_known_and_no_other(void)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    static const char *const others[] = {"get",     "GETS", "GE",      "TRACE",
                                         "CONNECT", "PRI",  "M-SEARCH"};
    struct http_request request;
    char text[100];

    for (uint32_t i = 0; i < 7; i++) {
        CHECK(strcmp(http_method_name((enum http_method)i), names[i]) == 0);
        (void)snprintf(text, sizeof text, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", names[i]);
        CHECK(good(text).method == (enum http_method)i);
        (void)snprintf(text, sizeof text, "%s / HTTP/1.1\r\nHost: a\r\n\r\n", others[i]);
        CHECK(decode(text, &request) == -501);
    }
}

static void old_versions_close_unless_they_ask_not_to(void)
{
    CHECK(!good("GET / HTTP/1.0\r\n\r\n").keep_alive);
    CHECK(good("GET / HTTP/1.0\r\n\r\n").minor == 0);
    CHECK(good("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    CHECK(!good("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n").keep_alive);
    CHECK(good("GET / HTTP/1.9\r\nHost: a\r\n\r\n").minor == 1);
    CHECK(good("GET / HTTP/1.9\r\nHost: a\r\n\r\n").keep_alive);
    const struct http_request request = good("GET / HTTP/1.0\r\nUpgrade: websocket\r\n"
                                             "Connection: upgrade\r\nExpect: 100-continue\r\n\r\n");
    CHECK(!request.upgrade_websocket && !request.expect_continue);
    CHECK(!good("GET / HTTP/1.0\r\nExpect: x\r\n\r\n").expect_continue);
}

static void lists_over_several_lines_are_one_list(void)
{
    struct http_request request;

    CHECK(with_line("Connection: foo\r\nConnection: bar,Upgrade ,,\r\nUpgrade: h2c\r\n"
                    "Upgrade: a, WebSocket",
                    &request) > 0);
    CHECK(request.connection_upgrade && request.upgrade_websocket && request.keep_alive);
    CHECK(with_line("Upgrade: websockets, web socket, xwebsocket\r\nConnection: upgraded",
                    &request) > 0);
    CHECK(!request.connection_upgrade && !request.upgrade_websocket);
    CHECK(with_line("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b", &request) > 0);
    CHECK(is(request.sec_websocket_protocol, "a"));
}

/* Everything that a caller can see of a request, with offsets instead of pointers. */
static void same_facts(const struct http_request *a, const char *a_base,
                       const struct http_request *b, const char *b_base)
{
    const struct slice *from = &a->path;
    const struct slice *to = &b->path;
    const struct slice *last = &a->accept_encoding;

    CHECK(a->method == b->method && a->minor == b->minor && a->keep_alive == b->keep_alive);
    CHECK(a->connection_close == b->connection_close);
    CHECK(a->connection_upgrade == b->connection_upgrade);
    CHECK(a->upgrade_websocket == b->upgrade_websocket);
    CHECK(a->expect_continue == b->expect_continue);
    CHECK(a->has_content_length == b->has_content_length);
    CHECK(a->content_length == b->content_length);
    for (; from <= last; from++, to++) {
        CHECK((from->data == NULL) == (to->data == NULL));
        CHECK(from->size == to->size);
        CHECK(from->data == NULL || from->data - a_base == to->data - b_base);
    }
}

static void a_head_in_pieces_has_the_same_facts(void)
{
    static const char *const heads[] = {
        handshake, post, "\r\nGET /a?b HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: www.example.org\r\nContent-Length: 5\r\n\r\n"};
    static const struct slice next = SLICE("GET /next HTTP/1.1\r\n");
    static char whole[2000];

    for (uint32_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        const uint32_t size = (uint32_t)strlen(heads[i]);
        struct http_request expected;
        struct http_request request;
        memcpy(whole, heads[i], size);
        memcpy(whole + size, next.data, next.size); /* pipelined: not looked at */
        CHECK(http_decode(whole, size + next.size, &limits, &expected) == (int)size);
        for (uint32_t cut = 0; cut < size; cut++) {
            CHECK(http_decode(at_end(heads[i], cut), cut, &limits, &request) == 0); /* H1 */
        }
        const char *base = at_end(heads[i], size);
        CHECK(http_decode(base, size, &limits, &request) == (int)size);
        same_facts(&expected, whole, &request, base);
    }
}

static void a_head_with_any_byte_changed_is_read_or_refused(void)
{
    static const char *const heads[] = {handshake, post};
    struct http_request request;
    uint32_t refused = 0;

    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t size = (uint32_t)strlen(heads[i]);
        for (uint32_t at = 0; at < size; at++) {
            for (uint32_t byte = 0; byte < 256; byte++) {
                const char *text = at_end(heads[i], size);
                shelf[sizeof shelf - size + at] = (char)byte;
                const int got = http_decode(text, size, &limits, &request);
                const bool control = (byte < 0x20 && byte != '\t') || byte == 0x7F;
                CHECK(got <= (int)size);
                CHECK(!control || got <= 0 || heads[i][at] == (char)byte); /* H3 */
                refused += got < 0;
            }
        }
    }
    CHECK(refused > 10000);
}

/* Heads that are wrong, and what they must get. */
static const struct {
    int status;
    const char *text;
} wrong[] = {
    /* the request line */
    {400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"},
    {400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /\r\nHost: a\r\n\r\n"},
    {400, "GET\r\nHost: a\r\n\r\n"},
    {400, "GET HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET / http/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/11.1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1,1\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1.x\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTPS/1.1\r\nHost: a\r\n\r\n"},
    {505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"},
    {505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"},
    {505, "PRI * HTTP/2.0\r\n\r\n"},
    {501, "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n"},
    {501, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET http://a/b HTTP/1.1\r\n\r\n"},
    {400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /\xC3\xA9 HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n"},
    {400, "GET /a\x7F HTTP/1.1\r\nHost: a\r\n\r\n"},
    /* line ends */
    {400, "GET / HTTP/1.1\nHost: a\n\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"},
    {400, "GET / HTTP/1.1\rHost: a\r\n\r\n"},
    /* headers */
    {400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n\tfolded: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX\xC3\xA9: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x1F value of more than sixteen bytes\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x7F\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: \f\r\n\r\n"},
    /* Host */
    {400, "GET / HTTP/1.1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n"},
    {400, "GET / HTTP/1.0\r\nHost: a\r\nHost:\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: []\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"},
    /* where the body ends: the smuggling list */
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5;\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nContent-Length: 0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
          "Transfer-Encoding: identity\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\n chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0B"
          "chunked\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {411, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {411, "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: , Chunked\t,\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n"
          "Transfer-Encoding: chunked\r\n\r\n"},
    /* others that must come at most once */
    {400,
     "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Key: a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n"
          "Sec-WebSocket-Version: 8\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nOrigin: a\r\nOrigin: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nRange: a\r\nRange: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nIdempotency-Key:\r\nIdempotency-Key: b\r\n\r\n"},
    {417, "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n"},
    {417, "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\n\r\n"},
};

static void every_wrong_head_gets_its_status(void)
{
    struct http_request request;
    char text[600];

    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const uint32_t size = (uint32_t)strlen(wrong[i].text);
        const int got = decode(wrong[i].text, &request);
        if (got != -wrong[i].status) {
            (void)fprintf(stderr, "%s: %d, not %d\n", wrong[i].text, -got, wrong[i].status);
        }
        CHECK(got == -wrong[i].status);
        CHECK(http_reason((uint32_t)wrong[i].status)[0] != 0);
        memcpy(text, wrong[i].text, size);
        memcpy(text + size, "GET / HTTP/1.1\r\nHost: b\r\n\r\n", 27);
        for (uint32_t more = 0; more <= 27; more++) { /* H2 */
            CHECK(http_decode(at_end(text, size + more), size + more, &limits, &request) < 0);
        }
        for (uint32_t cut = 0; cut < size; cut++) { /* never taken for good on the way */
            CHECK(http_decode(at_end(text, cut), cut, &limits, &request) <= 0);
        }
    }
    memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 36);
    CHECK(http_decode(at_end(text, 36), 36, &limits, &request) == -400);
}

static void a_refused_head_leaves_the_request_alone(void)
{
    struct http_request request;
    struct http_request before;

    memset(&request, 0x5A, sizeof request);
    memcpy(&before, &request, sizeof request);
    CHECK(decode("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", &request) == -400);
    CHECK(decode("POST /x HTTP/1.1\r\nHost: a\r\n", &request) == 0);
    CHECK(memcmp((const char *)&before, (const char *)&request, sizeof request) == 0);
}

static void the_request_line_is_limited(void)
{
    const struct http_limits small = {
        .head_bytes_max = 200, .line_bytes_max = 40, .headers_max = 64};
    struct http_request request;
    char text[300];

    for (uint32_t target = 1; target < 100; target++) {
        struct json_writer writer = json_writer_on(text, sizeof text);
        JSON_WRITE(&writer, "GET /");
        for (uint32_t i = 1; i < target; i++) {
            JSON_WRITE(&writer, "a");
        }
        JSON_WRITE(&writer, " HTTP/1.1\r\nHost: a\r\n\r\n");
        const bool fits = 4 + target + 9 <= 40;
        const char *place = at_end(text, writer.size);
        int got = 0;
        for (uint32_t size = 0; size <= writer.size && got == 0; size++) {
            got = http_decode(place, size, &small, &request);
            CHECK(got != -414 || size >= 41); /* not before it is too long, and at once then */
            CHECK(got != 0 || fits || size <= 41);
        }
        CHECK(got == (fits ? (int)writer.size : -414));
        CHECK(http_decode(place, writer.size, &small, &request) == got);
    }
}

static void the_head_is_limited(void)
{
    const struct http_limits small = {
        .head_bytes_max = 100, .line_bytes_max = 40, .headers_max = 64};
    struct http_request request;
    char text[300];

    for (uint32_t value = 0; value < 150; value++) {
        struct json_writer writer = json_writer_on(text, sizeof text);
        JSON_WRITE(&writer, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
        for (uint32_t i = 0; i < value; i++) {
            JSON_WRITE(&writer, "a");
        }
        JSON_WRITE(&writer, "\r\n\r\n");
        const char *place = at_end(text, writer.size);
        const int expected = writer.size <= 100 ? (int)writer.size : -431;
        int got = 0;
        for (uint32_t size = 0; size <= writer.size && got == 0; size++) {
            got = http_decode(place, size, &small, &request);
            CHECK(got != -431 || size == 100);
        }
        CHECK(got == expected);
        CHECK(http_decode(place, writer.size, &small, &request) == expected);
    }
}

static void the_number_of_headers_is_limited(void)
{
    struct http_request request;
    char text[2000];

    for (uint32_t count = 60; count < 70; count++) {
        struct json_writer writer = json_writer_on(text, sizeof text);
        JSON_WRITE(&writer, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (uint32_t i = 1; i < count; i++) {
            JSON_WRITE(&writer, "X: y\r\n");
        }
        JSON_WRITE(&writer, "\r\n");
        const int got = http_decode(at_end(text, writer.size), writer.size, &limits, &request);
        CHECK(got == (count <= 64 ? (int)writer.size : -431));
    }
}

static void bearer_tokens_are_told_from_other_credentials(void)
{
    struct slice token = {NULL, 0};

    CHECK(http_bearer((struct slice){NULL, 0}, &token) == -ENOENT);
    CHECK(http_bearer(SLICE("Bearer eyJ.a-b_c~+/=="), &token) == 0);
    CHECK(is(token, "eyJ.a-b_c~+/=="));
    CHECK(http_bearer(SLICE("bEARER  x"), &token) == 0 && is(token, "x"));
    CHECK(http_bearer(SLICE(""), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Bearer"), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Bearer "), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Bearer =="), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Bearer a=b"), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Bearer a b"), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Bearer\ta"), &token) == -EINVAL);
    CHECK(http_bearer(SLICE("Basic dTpw"), &token) == -EINVAL);
    CHECK(is(token, "x")); /* untouched by failures */
}

static void queries_are_split_and_decoded(void)
{
    struct slice query = SLICE("&limit=50&&q=a%20b+c%2B%ED%95%9C&flag&=x&empty=&a=b=c");
    struct slice key;
    struct slice value;
    char out[32];

    CHECK(http_query_next(&query, &key, &value) && is(key, "limit") && is(value, "50"));
    CHECK(http_query_next(&query, &key, &value) && is(key, "q"));
    CHECK(http_query_decode(value, out, sizeof out) == 9);
    CHECK(memcmp(out, "a b c+\xED\x95\x9C", 9) == 0);
    CHECK(http_query_decode(value, out, 9) == 9);
    CHECK(http_query_decode(value, out, 8) == -ENOBUFS);
    CHECK(http_query_next(&query, &key, &value) && is(key, "flag") && value.data == NULL);
    CHECK(http_query_decode(value, out, 0) == 0);
    CHECK(http_query_next(&query, &key, &value) && is(key, "") && is(value, "x"));
    CHECK(http_query_next(&query, &key, &value) && is(key, "empty") && is(value, ""));
    CHECK(http_query_next(&query, &key, &value) && is(key, "a") && is(value, "b=c"));
    CHECK(!http_query_next(&query, &key, &value));
    query = (struct slice){NULL, 0};
    CHECK(!http_query_next(&query, &key, &value));
}

static void malformed_percent_encoding_is_refused(void)
{
    char out[32];

    CHECK(http_query_decode(SLICE("%"), out, sizeof out) == -EINVAL);
    CHECK(http_query_decode((struct slice){"%41", 2}, out, sizeof out) == -EINVAL);
    CHECK(http_query_decode(SLICE("%4"), out, sizeof out) == -EINVAL);
    CHECK(http_query_decode(SLICE("a%4g"), out, sizeof out) == -EINVAL);
    CHECK(http_query_decode(SLICE("%%41"), out, sizeof out) == -EINVAL);
    CHECK(http_query_decode(SLICE("%00"), out, sizeof out) == -EINVAL);
    CHECK(http_query_decode(SLICE("%c0%af"), out, sizeof out) == -EILSEQ);
    CHECK(http_query_decode(SLICE("%FF"), out, sizeof out) == -EILSEQ);
    CHECK(http_query_decode(SLICE("%2f%5C%41"), out, sizeof out) == 3);
    CHECK(memcmp(out, "/\\A", 3) == 0);
}

static void paths_are_split_and_decoded_segment_by_segment(void)
{
    struct slice path = SLICE("/v1/rooms/a%2Eb+c//");
    struct slice segment;
    char out[32];

    CHECK(http_path_next(&path, &segment) && is(segment, "v1"));
    CHECK(http_path_next(&path, &segment) && is(segment, "rooms"));
    CHECK(http_path_next(&path, &segment) && is(segment, "a%2Eb+c"));
    CHECK(http_segment_decode(segment, out, sizeof out) == 5);
    CHECK(memcmp(out, "a.b+c", 5) == 0);
    CHECK(http_path_next(&path, &segment) && is(segment, ""));
    CHECK(http_path_next(&path, &segment) && is(segment, ""));
    CHECK(!http_path_next(&path, &segment));
    path = SLICE("*");
    CHECK(!http_path_next(&path, &segment));
    CHECK(http_segment_decode(SLICE("a%2fb"), out, sizeof out) == -EINVAL);
    CHECK(http_segment_decode(SLICE("a%2Fb"), out, sizeof out) == -EINVAL);
    CHECK(http_segment_decode(SLICE("a%5cb"), out, sizeof out) == -EINVAL);
    CHECK(http_segment_decode(SLICE("a%00b"), out, sizeof out) == -EINVAL);
    CHECK(http_segment_decode(SLICE("%E"), out, sizeof out) == -EINVAL);
    CHECK(http_segment_decode(SLICE("%80"), out, sizeof out) == -EILSEQ);
    CHECK(http_segment_decode(SLICE("abc"), out, 2) == -ENOBUFS);
}

static void list_items_come_without_white_space_or_gaps(void)
{
    struct slice list = SLICE(" \t, a ,\tb;q=1,,c d,");
    struct slice item;

    CHECK(http_list_next(&list, &item) && is(item, "a"));
    CHECK(http_list_next(&list, &item) && is(item, "b;q=1"));
    CHECK(http_list_next(&list, &item) && is(item, "c d"));
    CHECK(!http_list_next(&list, &item));
    CHECK(http_list_has(SLICE("x, DAMSO.v1"), SLICE("damso.v1")));
    CHECK(!http_list_has(SLICE("x, damso.v12"), SLICE("damso.v1")));
    CHECK(!http_equal_nocase(SLICE(""), SLICE("a")));
    CHECK(!http_equal_nocase(SLICE("@"), SLICE("`"))); /* 0x20 apart, and no letters */
}

static void responses_are_written_as_the_rfc_has_them(void)
{
    char out[400];
    struct json_writer writer = json_writer_on(out, sizeof out);

    http_write_head(&writer, 200, SLICE("application/json"), 12,
                    SLICE("X-Content-Type-Options: nosniff\r\n"), true);
    CHECK(is(json_written(&writer),
             "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n"
             "X-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n\r\n"));
    writer = json_writer_on(out, sizeof out);
    http_write_head(&writer, 204, SLICE(""), 0, SLICE(""), false);
    CHECK(is(json_written(&writer), "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"));
    writer = json_writer_on(out, sizeof out);
    http_write_head(&writer, 101, SLICE(""), 0,
                    SLICE("Upgrade: websocket\r\nConnection: Upgrade\r\n"), true);
    CHECK(is(json_written(&writer), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\n\r\n"));
    writer = json_writer_on(out, sizeof out);
    http_write_head(&writer, 299, SLICE(""), 0, SLICE(""), true); /* without a phrase */
    CHECK(is(json_written(&writer),
             "HTTP/1.1 299 \r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
    for (uint32_t capacity = 0; capacity <= 90; capacity++) {
        writer = json_writer_on(out + sizeof out - capacity, capacity);
        http_write_head(&writer, 404, SLICE("a/b"), 5, SLICE(""), false); /* 83 bytes */
        CHECK(writer.overflow == (capacity < 83));
        CHECK(writer.size == 0 || !writer.overflow);
    }
    CHECK(http_reason(999)[0] == 0 && http_reason(299)[0] == 0);
}

static void dates_are_written_as_the_rfc_has_them(void)
{
    static const struct {
        uint64_t seconds;
        const char *line;
    } rows[] = {
        {784111777, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"}, /* RFC 9110 section 5.6.7 */
        {0, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"},
        {951782399, "Date: Mon, 28 Feb 2000 23:59:59 GMT\r\n"},
        {951782400, "Date: Tue, 29 Feb 2000 00:00:00 GMT\r\n"},
        {951868800, "Date: Wed, 01 Mar 2000 00:00:00 GMT\r\n"},
        {1735689599, "Date: Tue, 31 Dec 2024 23:59:59 GMT\r\n"},
        {1735689600, "Date: Wed, 01 Jan 2025 00:00:00 GMT\r\n"},
        {4107542400, "Date: Mon, 01 Mar 2100 00:00:00 GMT\r\n"}, /* 2100 has no leap day */
        {253402300799, "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n"},
    };
    char out[64];

    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct json_writer writer = json_writer_on(out, sizeof out);
        http_write_date(&writer, rows[i].seconds);
        CHECK(is(json_written(&writer), rows[i].line));
    }
}

int main(void)
{
    the_handshake_of_rfc_6455_is_read();
    a_post_with_a_body_is_read();
    the_examples_of_rfc_9112_are_read();
    every_method_that_is_served_is_known_and_no_other();
    old_versions_close_unless_they_ask_not_to();
    lists_over_several_lines_are_one_list();
    a_head_in_pieces_has_the_same_facts();
    a_head_with_any_byte_changed_is_read_or_refused();
    every_wrong_head_gets_its_status();
    a_refused_head_leaves_the_request_alone();
    the_request_line_is_limited();
    the_head_is_limited();
    the_number_of_headers_is_limited();
    bearer_tokens_are_told_from_other_credentials();
    queries_are_split_and_decoded();
    malformed_percent_encoding_is_refused();
    paths_are_split_and_decoded_segment_by_segment();
    list_items_come_without_white_space_or_gaps();
    responses_are_written_as_the_rfc_has_them();
    dates_are_written_as_the_rfc_has_them();
    puts("20 passed, 0 failed");
    return 0;
}
