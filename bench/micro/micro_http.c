/*
 * micro_http.c - nanoseconds to read a typical head, whole and byte by byte, and to write one.
 *
 * Method: each case runs for ROUNDS rounds of its repeats; the quickest round counts, since
 *         whatever else the machine does only ever adds. A result is folded into a sum that is
 *         printed, so that the compiler cannot leave the work out.
 */
#include "core/check.h"
#include "core/http.h"

#include <inttypes.h>
#include <time.h>

enum { ROUNDS = 300, OUT_BYTES = 512 };

static const struct http_limits limits = {
    .head_bytes_max = 8192, .line_bytes_max = 4096, .headers_max = 64};

static uint64_t read_whole(struct slice text)
{
    struct http_request request;
    const int got = http_decode(text.data, text.size, &limits, &request);

    CHECK(got == (int)text.size);
    return request.path.size + request.content_length;
}

/* A client that sends one byte at a time: the head is looked at again for each. */
static uint64_t read_byte_by_byte(struct slice text)
{
    struct http_request request;
    uint64_t sum = 0;

    for (uint32_t size = 1; size <= text.size; size++) {
        sum += (uint64_t)(int64_t)http_decode(text.data, size, &limits, &request);
    }
    return sum;
}

static uint64_t write_response(struct slice text)
{
    char out[OUT_BYTES];
    struct json_writer writer = json_writer_on(out, sizeof out);

    http_write_head(&writer, 200, SLICE("application/json"), text.size,
                    SLICE("X-Content-Type-Options: nosniff\r\n"), true);
    CHECK(!writer.overflow);
    return writer.size + (uint8_t)out[writer.size / 2];
}

static uint64_t now_ns(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void measure(const char *name, uint64_t (*work)(struct slice), struct slice input,
                    uint32_t repeats)
{
    uint64_t best = UINT64_MAX;
    uint64_t sum = 0;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t begin = now_ns();
        for (uint32_t i = 0; i < repeats; i++) {
            sum += work(input);
        }
        const uint64_t spent = now_ns() - begin;
        best = spent < best ? spent : best;
    }
    printf("%-36s %4" PRIu32 " bytes %9.1f ns (sum %" PRIu64 ")\n", name, input.size,
           (double)best / repeats, sum);
}

/* A head as long as the limit allows, in 60 lines. */
static struct slice longest_head(char *text)
{
    struct json_writer writer = json_writer_on(text, limits.head_bytes_max);

    JSON_WRITE(&writer, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (uint32_t line = 0; line < 60; line++) {
        JSON_WRITE(&writer, "X-Header-Of-A-Client: ");
        for (uint32_t i = 0; i < 11; i++) {
            JSON_WRITE(&writer, "0123456789");
        }
        JSON_WRITE(&writer, "\r\n");
    }
    JSON_WRITE(&writer, "\r\n");
    CHECK(!writer.overflow);
    return json_written(&writer);
}

int main(void)
{
    static const struct slice handshake = SLICE(
        "GET /v1/ws HTTP/1.1\r\nHost: chat.example.org:8080\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: damso.v1\r\n"
        "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkEifQ."
        "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U\r\n\r\n");
    static const struct slice browser = SLICE(
        "GET /v1/rooms/general/messages?limit=50&before_seq=1200 HTTP/1.1\r\n"
        "Host: chat.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) "
        "Gecko/20100101 Firefox/128.0\r\nAccept: application/json, text/plain, */*\r\n"
        "Accept-Language: ko-KR,ko;q=0.8,en-US;q=0.5,en;q=0.3\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkEifQ."
        "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U\r\nReferer: http://chat.example.org/\r\n"
        "Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\n"
        "Sec-Fetch-Site: same-origin\r\n\r\n");
    static char text[8192];

    measure("read: WebSocket handshake", read_whole, handshake, 1000);
    measure("read: request of a browser", read_whole, browser, 1000);
    measure("read: long head", read_whole, longest_head(text), 100);
    measure("read: long head, byte by byte", read_byte_by_byte, longest_head(text), 1);
    measure("write: head of an answer", write_response, SLICE("{}"), 1000);
    return 0;
}
