/*
 * micro_ws.c - nanoseconds to read a typical frame, gigabytes a second to unmask.
 *
 * Method: each case runs for ROUNDS rounds of REPEATS; the quickest round counts, since whatever
 *         else the machine does only ever adds. Reading unmasks in place, so each repeat begins
 *         with a copy of the masked frame: the case "copy" says what that alone takes. A result
 *         is folded into a sum that is printed, so that the compiler cannot leave the work out.
 */
#include "core/check.h"
#include "core/ws.h"

#include <inttypes.h>
#include <time.h>

enum { REPEATS = 200, ROUNDS = 1000, FRAME_BYTES_MAX = 65536 + WS_CLIENT_HEADER_MAX };

static uint8_t frame[FRAME_BYTES_MAX]; /* as the client sent it */
static uint8_t arrived[FRAME_BYTES_MAX];
static uint32_t frame_size;

static uint64_t copy_frame(void)
{
    memcpy(arrived, frame, frame_size);
    return arrived[frame_size / 2];
}

static uint64_t read_fast(void)
{
    struct slice text;

    (void)copy_frame();
    CHECK(ws_decode_text(arrived, frame_size, FRAME_BYTES_MAX, &text) == (int)frame_size);
    return text.size;
}

/* The same frame by the general way, in one piece. */
static uint64_t read_slowly(void)
{
    struct ws_reader reader = {0};
    struct ws_frame header;

    (void)copy_frame();
    const int begin = ws_decode(arrived, frame_size, &header);
    CHECK(begin > 0);
    CHECK(ws_reader_frame(&reader, &header, FRAME_BYTES_MAX) == 0);
    const uint32_t size = ws_reader_left(&reader);
    ws_unmask(arrived + begin, size, header.mask, 0);
    CHECK(ws_reader_payload(&reader, arrived + begin, size) == 0);
    return (uint64_t)ws_reader_end(&reader);
}

static uint64_t unmask_whole(void)
{
    ws_unmask(arrived, frame_size, frame, 0);
    return arrived[0];
}

static uint64_t unmask_bytewise(void)
{
    for (uint32_t i = 0; i < frame_size; i++) {
        arrived[i] ^= frame[i % 4];
        __asm__ volatile("" ::: "memory"); /* or it would be made into vectors */
    }
    return arrived[0];
}

static uint64_t encode_header(void)
{
    return ws_encode_header(arrived, WS_TEXT, frame_size) + arrived[1];
}

static uint64_t accept_key(void)
{
    char accept[WS_ACCEPT_SIZE];

    ws_accept(SLICE("dGhlIHNhbXBsZSBub25jZQ=="), accept);
    return (uint64_t)accept[0];
}

static uint64_t now_ns(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void measure(const char *name, uint64_t (*work)(void))
{
    uint64_t best = UINT64_MAX;
    uint64_t sum = 0;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t begin = now_ns();
        for (uint32_t i = 0; i < REPEATS; i++) {
            sum += work();
        }
        const uint64_t spent = now_ns() - begin;
        best = spent < best ? spent : best;
    }
    const double ns = (double)best / REPEATS;
    printf("%-24s %6" PRIu32 " bytes %9.1f ns %7.2f GB/s (sum %" PRIu64 ")\n", name, frame_size, ns,
           frame_size / ns, sum);
}

/* A masked text frame that repeats text up to size bytes of payload. */
static void make_frame(const char *text, uint32_t size)
{
    const uint32_t period = (uint32_t)strlen(text);
    const struct ws_frame header = {
        .payload_size = size,
        .mask = {0x37, 0xfa, 0x21, 0x3d},
        .opcode = WS_TEXT,
        .fin = true,
        .masked = true,
    };

    const uint32_t begin = ws_encode_frame(frame, &header);
    CHECK(begin + size <= sizeof(frame));
    for (uint32_t i = 0; i < size; i++) {
        frame[begin + i] = (uint8_t)text[i % period];
    }
    ws_unmask(frame + begin, size, header.mask, 0);
    frame_size = begin + size;
}

int main(void)
{
    static const uint32_t sizes[] = {30, 102, 150, 300, 1020, 16380, 65532};
    static const char korean[] = "\xeb\x8b\xb4\xec\x86\x8c"; /* 6 divides every size */

    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        make_frame("pleasant talk ", sizes[i]);
        measure("copy", copy_frame);
        measure("read fast, ASCII", read_fast);
        measure("read slowly, ASCII", read_slowly);
        make_frame(korean, sizes[i]);
        measure("read fast, Korean", read_fast);
        measure("read slowly, Korean", read_slowly);
        measure("unmask", unmask_whole);
        measure("unmask bytewise", unmask_bytewise);
    }
    frame_size = 0;
    measure("encode header", encode_header);
    measure("accept value", accept_key);
    return 0;
}
