/*
 * test_ws.c - frames are read as RFC 6455 writes them, however they are cut, and wrong ones are
 *             refused with the right close code.
 *
 * Method: the examples of the RFC byte by byte; tables of wrong input, each with its code; and a
 *         receiver (ws_receiver.h) that reads a stream as a connection does and notes down what it
 *         got, so that the same stream cut in every way must leave the same notes.
 */
#include "core/check.h"
#include "core/ws.h"
#include "tests/core/ws_receiver.h"

#include <errno.h>
#include <string.h>

enum { STREAM_MAX = RECEIVER_STREAM_MAX, LIMIT = RECEIVER_MESSAGE_MAX };

static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d}; /* of RFC 6455 section 5.7 */

/* --- a stream of frames, as a client writes it --- */

struct stream {
    uint8_t data[STREAM_MAX];
    uint32_t size;
};

static void add_frame(struct stream *stream, bool fin, uint8_t opcode, const void *payload,
                      uint32_t size)
{
    struct ws_frame frame = {.payload_size = size, .opcode = opcode, .fin = fin, .masked = true};

    memcpy(frame.mask, mask, sizeof(mask));
    CHECK(stream->size + WS_CLIENT_HEADER_MAX + size <= STREAM_MAX);
    stream->size += ws_encode_frame(stream->data + stream->size, &frame);
    memcpy(stream->data + stream->size, payload, size);
    ws_unmask(stream->data + stream->size, size, mask, 0);
    stream->size += size;
}

static void add_text(struct stream *stream, bool fin, uint8_t opcode, const char *text)
{
    add_frame(stream, fin, opcode, text, (uint32_t)strlen(text));
}

static struct receiver whole, cut;

/* Reads the stream in one piece and by the fast way, into whole. Returns the error or 0. */
static int received(const struct stream *stream)
{
    memset(&whole, 0, sizeof(whole));
    whole.fast = true;
    receiver_feed(&whole, stream->data, stream->size);
    return whole.error;
}

/* Reads the stream cut into two pieces anywhere, and into single bytes: with and without the fast
 * way, the notes must be those of the stream in one piece. */
static void expect_same_however_cut(const struct stream *stream)
{
    (void)received(stream);
    for (uint32_t i = 0; i <= 2 * stream->size; i++) {
        memset(&cut, 0, sizeof(cut));
        cut.fast = i % 2 != 0;
        receiver_feed(&cut, stream->data, i / 2);
        receiver_feed(&cut, stream->data + i / 2, stream->size - i / 2);
        receiver_expect_same(&cut, &whole);
    }
    memset(&cut, 0, sizeof(cut));
    for (uint32_t i = 0; i < stream->size; i++) {
        receiver_feed(&cut, stream->data + i, 1);
    }
    receiver_expect_same(&cut, &whole);
}

/* --- the examples of the RFC --- */

static void server_frames_of_the_rfc_are_read_and_written(void)
{
    static const uint8_t hello[] = {0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f};
    static const uint8_t ping[] = {0x89, 0x05};
    static const uint8_t binary_256[] = {0x82, 0x7e, 0x01, 0x00};
    static const uint8_t binary_64k[] = {0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0};
    struct ws_frame frame;
    uint8_t header[WS_HEADER_SIZE_MAX];

    CHECK(ws_decode_server(hello, sizeof(hello), &frame) == 2);
    CHECK(frame.fin);
    CHECK(!frame.masked);
    CHECK(frame.opcode == WS_TEXT);
    CHECK(frame.payload_size == 5);
    CHECK(ws_decode_server(binary_256, sizeof(binary_256), &frame) == 4);
    CHECK(frame.opcode == WS_BINARY);
    CHECK(frame.payload_size == 256);
    CHECK(ws_decode_server(binary_64k, sizeof(binary_64k), &frame) == 10);
    CHECK(frame.payload_size == 65536);

    CHECK(ws_encode_header(header, WS_TEXT, 5) == 2 && memcmp(header, hello, 2) == 0);
    CHECK(ws_encode_header(header, WS_PING, 5) == 2 && memcmp(header, ping, 2) == 0);
    CHECK(ws_encode_header(header, WS_BINARY, 256) == 4 && memcmp(header, binary_256, 4) == 0);
    CHECK(ws_encode_header(header, WS_BINARY, 65536) == 10 && memcmp(header, binary_64k, 10) == 0);
}

static void client_frames_of_the_rfc_are_read_and_written(void)
{
    static const uint8_t hello[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d,
                                    0x7f, 0x9f, 0x4d, 0x51, 0x58};
    static const uint8_t pong[] = {0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d,
                                   0x7f, 0x9f, 0x4d, 0x51, 0x58};
    struct stream stream = {.size = 0};
    struct ws_frame frame;

    CHECK(ws_decode(hello, sizeof(hello), &frame) == 6);
    CHECK(frame.fin);
    CHECK(frame.masked);
    CHECK(frame.opcode == WS_TEXT);
    CHECK(frame.payload_size == 5);
    CHECK(memcmp(frame.mask, mask, 4) == 0);

    add_text(&stream, true, WS_TEXT, "Hello");
    CHECK(stream.size == sizeof(hello) && memcmp(stream.data, hello, sizeof(hello)) == 0);
    add_text(&stream, true, WS_PONG, "Hello");
    CHECK(memcmp(stream.data + sizeof(hello), pong, sizeof(pong)) == 0);

    CHECK(received(&stream) == 0);
    CHECK(whole.notes_size == 16);
    CHECK(memcmp(whole.notes, "\x01\0\x05Hello\x0a\0\x05Hello", 16) == 0);
    CHECK(whole.fast_count == 1);
}

static void fragmented_message_of_the_rfc_is_one_message(void)
{
    struct stream stream = {.size = 0};

    add_text(&stream, false, WS_TEXT, "Hel");
    CHECK(received(&stream) == 0);
    CHECK(whole.notes_size == 0);
    CHECK(!ws_reader_idle(&whole.reader));
    add_text(&stream, true, WS_CONTINUATION, "lo");
    CHECK(received(&stream) == 0);
    CHECK(whole.notes_size == 8 && memcmp(whole.notes, "\x01\0\x05Hello", 8) == 0);
    CHECK(ws_reader_idle(&whole.reader));
}

static void handshake_of_the_rfc_is_accepted(void)
{
    const struct slice key = SLICE("dGhlIHNhbXBsZSBub25jZQ==");
    char accept[WS_ACCEPT_SIZE];

    CHECK(ws_key_valid(key));
    ws_accept(key, accept);
    CHECK(memcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WS_ACCEPT_SIZE) == 0);
}

/* --- headers --- */

static void header_is_read_only_when_it_is_whole(void)
{
    static const uint64_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, INT64_MAX};
    static const uint32_t header[] = {2, 2, 2, 4, 4, 4, 10, 10}; /* unmasked */
    uint8_t data[WS_CLIENT_HEADER_MAX];

    for (uint32_t i = 0; i < 16; i++) {
        struct ws_frame in = {.payload_size = sizes[i / 2], .opcode = WS_BINARY, .fin = true};
        struct ws_frame out = {.opcode = 0xee};
        in.masked = i % 2 != 0;
        memcpy(in.mask, mask, in.masked ? sizeof(mask) : 0);
        int (*decode)(const uint8_t *, uint32_t, struct ws_frame *) =
            in.masked ? ws_decode : ws_decode_server;

        const uint32_t size = ws_encode_frame(data, &in);
        CHECK(size == header[i / 2] + (in.masked ? 4 : 0));
        for (uint32_t have = 0; have < size; have++) {
            CHECK(decode(data, have, &out) == 0);
            CHECK(out.opcode == 0xee); /* untouched */
        }
        CHECK(decode(data, size, &out) == (int)size);
        CHECK(out.payload_size == in.payload_size);
        CHECK(out.opcode == in.opcode);
        CHECK(out.fin && out.masked == in.masked);
        CHECK(memcmp(out.mask, in.mask, sizeof(in.mask)) == 0);
    }
}

static void first_byte_is_refused_at_once_if_wrong(void)
{
    static const uint8_t good_bytes[] = {0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a};
    struct ws_frame frame;

    for (uint32_t byte = 0; byte < 256; byte++) {
        const uint8_t first = (uint8_t)byte;
        const bool good = memchr(good_bytes, first, sizeof(good_bytes)) != NULL;
        CHECK(ws_decode(&first, 1, &frame) == (good ? 0 : -WS_PROTOCOL_ERROR));
        CHECK(ws_decode_server(&first, 1, &frame) == (good ? 0 : -WS_PROTOCOL_ERROR));
    }
}

static void second_byte_is_refused_at_once_if_wrong(void)
{
    struct ws_frame frame;

    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool masked = byte >= 128;
        const uint8_t text[] = {0x81, (uint8_t)byte};
        const uint8_t ping[] = {0x89, (uint8_t)byte};
        CHECK((ws_decode(text, 2, &frame) >= 0) == masked);
        CHECK((ws_decode_server(text, 2, &frame) >= 0) == !masked);
        CHECK((ws_decode(ping, 2, &frame) >= 0) == (masked && byte - 128 <= 125));
        CHECK((ws_decode_server(ping, 2, &frame) >= 0) == (byte <= 125));
    }
}

static void length_must_be_in_its_shortest_form(void)
{
    static const struct {
        uint8_t data[14];
        uint32_t size;
        int result;
    } cases[] = {
        {{0x82, 0xfe, 0, 125}, 8, -WS_PROTOCOL_ERROR},
        {{0x82, 0xfe, 0, 126}, 8, 8},
        {{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 14, -WS_PROTOCOL_ERROR},
        {{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0}, 14, 14},
        {{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 14, 14},
        {{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, 14, -WS_PROTOCOL_ERROR},
        {{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 14, -WS_PROTOCOL_ERROR},
    };
    struct ws_frame frame;

    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK(ws_decode(cases[i].data, cases[i].size, &frame) == cases[i].result);
    }
}

/* --- masking --- */

static void pieces_unmask_to_what_the_whole_does(void)
{
    enum { SIZE = 150 };
    uint8_t plain[SIZE + 2];
    uint8_t piece[SIZE + 2];

    for (uint32_t size = 0; size <= SIZE; size++) {
        for (uint32_t offset = 0; offset < 9; offset++) {
            for (uint32_t i = 0; i < SIZE + 2; i++) {
                plain[i] = (uint8_t)(i * 7 + size);
            }
            memcpy(piece, plain, sizeof(piece));
            ws_unmask(piece + 1, size, mask, offset); /* + 1: at odd addresses too */
            CHECK(piece[0] == plain[0]);
            CHECK(piece[size + 1] == plain[size + 1]);
            for (uint32_t i = 0; i < size; i++) {
                CHECK(piece[i + 1] == (plain[i + 1] ^ mask[(offset + i) % 4]));
            }
        }
    }
    /* An offset beyond 32 bits is an offset, too. */
    ws_unmask(piece, 1, mask, (UINT64_C(1) << 40) + 3);
    CHECK(piece[0] == (plain[0] ^ mask[3]));
}

/* --- messages over frames --- */

static void every_cut_reads_the_same(void)
{
    static const uint8_t bytes[] = {0xff, 0xfe, 0x80, 0x00};
    static struct stream stream;
    char long_text[301];

    memset(long_text, 'x', 300);
    memcpy(long_text + 150, "\xeb\x8b\xb4\xec\x86\x8c", 6); /* damso in Korean */
    long_text[300] = '\0';
    stream.size = 0;
    add_text(&stream, true, WS_TEXT, "");
    add_text(&stream, true, WS_TEXT, long_text);
    add_text(&stream, false, WS_TEXT, "\xeb\x8b");
    add_text(&stream, true, WS_PING, "are you there");
    add_text(&stream, false, WS_CONTINUATION, "");
    add_text(&stream, true, WS_PONG, "");
    add_text(&stream, false, WS_CONTINUATION, "\xb4\xec");
    add_frame(&stream, true, WS_PING, bytes, sizeof(bytes)); /* not UTF-8, and need not be */
    add_text(&stream, true, WS_CONTINUATION, "\x86\x8c");
    add_frame(&stream, false, WS_BINARY, bytes, sizeof(bytes));
    add_frame(&stream, true, WS_CONTINUATION, bytes, sizeof(bytes));
    add_text(&stream, true, WS_TEXT, "after");
    add_text(&stream, true, WS_CLOSE, "\x03\xe8");

    CHECK(received(&stream) == 0);
    CHECK(whole.at == stream.size);
    CHECK(whole.fast_count == 3);
    expect_same_however_cut(&stream);
}

/* Reads a stream of up to three frames, however cut, and wants that error. */
static void expect_error(const struct stream *stream, int error)
{
    CHECK(received(stream) == error);
    expect_same_however_cut(stream);
}

static void frames_out_of_place_are_refused(void)
{
    struct stream stream = {.size = 0};

    add_text(&stream, true, WS_CONTINUATION, "of nothing");
    expect_error(&stream, -WS_PROTOCOL_ERROR);

    stream.size = 0;
    add_text(&stream, false, WS_CONTINUATION, "of nothing");
    expect_error(&stream, -WS_PROTOCOL_ERROR);

    stream.size = 0;
    add_text(&stream, false, WS_TEXT, "one");
    add_text(&stream, true, WS_TEXT, "another");
    expect_error(&stream, -WS_PROTOCOL_ERROR);

    stream.size = 0;
    add_text(&stream, false, WS_TEXT, "one");
    add_text(&stream, false, WS_BINARY, "another");
    expect_error(&stream, -WS_PROTOCOL_ERROR);

    stream.size = 0;
    add_text(&stream, true, WS_TEXT, "complete");
    add_text(&stream, true, WS_CONTINUATION, "too late");
    expect_error(&stream, -WS_PROTOCOL_ERROR);
    CHECK(whole.notes_size == 3 + 8); /* what came before the error was read */
}

static void message_up_to_the_limit_is_read(void)
{
    static uint8_t payload[LIMIT];
    struct stream stream = {.size = 0};

    memset(payload, 'x', sizeof(payload));
    add_frame(&stream, true, WS_TEXT, payload, LIMIT);
    add_frame(&stream, false, WS_TEXT, payload, LIMIT - 1);
    add_text(&stream, true, WS_PING, "counts for nothing");
    add_frame(&stream, true, WS_CONTINUATION, payload, 1);
    CHECK(received(&stream) == 0);
    CHECK(whole.notes_size == 3 * 3 + 2 * LIMIT + 18);
}

static void message_over_the_limit_is_refused_by_its_header(void)
{
    static uint8_t payload[LIMIT];
    static const uint64_t too_much[] = {
        2, LIMIT, 65536, (UINT64_C(1) << 32) - 1, UINT64_C(1) << 32, INT64_MAX};
    struct ws_frame frame = {.opcode = WS_BINARY, .fin = true};
    struct ws_reader reader = {0};

    frame.payload_size = LIMIT + 1;
    CHECK(ws_reader_frame(&reader, &frame, LIMIT) == -WS_TOO_LARGE);
    for (uint32_t i = 0; i < sizeof(too_much) / sizeof(too_much[0]); i++) {
        reader = (struct ws_reader){0};
        frame = (struct ws_frame){.opcode = WS_BINARY, .payload_size = LIMIT - 1};
        CHECK(ws_reader_frame(&reader, &frame, LIMIT) == 0);
        CHECK(ws_reader_payload(&reader, payload, LIMIT - 1) == 0);
        CHECK(ws_reader_end(&reader) == WS_CONTINUATION);
        frame = (struct ws_frame){.opcode = WS_CONTINUATION, .payload_size = too_much[i]};
        CHECK(ws_reader_frame(&reader, &frame, LIMIT) == -WS_TOO_LARGE);
    }
    /* A limit that was lowered meanwhile (configuration) counts from the next frame on. */
    reader = (struct ws_reader){0};
    frame = (struct ws_frame){.opcode = WS_TEXT, .payload_size = 10};
    CHECK(ws_reader_frame(&reader, &frame, LIMIT) == 0);
    CHECK(ws_reader_payload(&reader, (const uint8_t *)"0123456789", 10) == 0);
    CHECK(ws_reader_end(&reader) == WS_CONTINUATION);
    frame = (struct ws_frame){.opcode = WS_CONTINUATION, .payload_size = 0};
    CHECK(ws_reader_frame(&reader, &frame, 5) == -WS_TOO_LARGE);
}

static void wrong_text_is_refused_wherever_it_is_cut(void)
{
    static const char *const wrong[] = {
        "\xff",
        "\x80",
        "\xc0\xaf",
        "\xe0\x80\xaf",
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80",
        "\xc3(",
        "\xe2\x82(",
        "\xf0\x9f\x98(",
        "\xc3",
        "\xe2\x82",
        "\xf0\x9f\x98", /* cut off by the end of the message */
    };
    struct stream stream;
    char text[64];

    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        for (uint32_t before = 0; before < 40; before += 13) {
            memset(text, 'a', before);
            memcpy(text + before, wrong[i], strlen(wrong[i]) + 1);
            stream.size = 0;
            add_text(&stream, true, WS_TEXT, text);
            expect_error(&stream, -WS_INVALID_PAYLOAD);

            stream.size = 0; /* and over three fragments with a ping between them */
            add_frame(&stream, false, WS_TEXT, text, before);
            add_frame(&stream, false, WS_CONTINUATION, wrong[i], 1);
            add_text(&stream, true, WS_PING, "\xff");
            add_text(&stream, true, WS_CONTINUATION, wrong[i] + 1);
            expect_error(&stream, -WS_INVALID_PAYLOAD);

            stream.size = 0; /* while bytes are bytes */
            add_text(&stream, true, WS_BINARY, text);
            expect_error(&stream, 0);
        }
    }
}

static void wrong_text_is_refused_at_its_first_wrong_byte(void)
{
    /* Autobahn 6.4.1: F4 may begin a character, F4 90 may not. */
    static const char text[] = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80 end";
    struct stream stream = {.size = 0};

    add_text(&stream, true, WS_TEXT, text);
    memset(&cut, 0, sizeof(cut));
    for (uint32_t i = 0; i < 6 + 12; i++) {
        receiver_feed(&cut, stream.data + i, 1);
        CHECK(cut.error == 0);
    }
    receiver_feed(&cut, stream.data + 6 + 12, 1);
    CHECK(cut.error == -WS_INVALID_PAYLOAD);
}

/* --- the fast way --- */

/* The bytes are put at the very end of an array, so that a sanitizer sees a read beyond them. */
static int decode_text(const struct stream *stream, uint32_t size, uint32_t limit,
                       struct slice *ret_text)
{
    static uint8_t copy[STREAM_MAX];
    uint8_t *data = copy + STREAM_MAX - size;

    memcpy(data, stream->data, size);
    const int taken = ws_decode_text(data, size, limit, ret_text);
    if (taken == 0) {
        CHECK(memcmp(data, stream->data, size) == 0); /* declined: untouched */
    }
    return taken;
}

static void fast_way_takes_whole_final_text_frames(void)
{
    static const uint32_t sizes[] = {0, 1, 7, 8, 15, 16, 31, 32, 33, 125, 126, 127, 300, 1000};
    struct slice text = {NULL, 0};
    static struct stream stream;
    char in[1001];

    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint32_t size = sizes[i];
        memset(in, 'x', size);
        stream.size = 0;
        add_frame(&stream, true, WS_TEXT, in, size);
        for (uint32_t have = 0; have < stream.size; have++) {
            CHECK(decode_text(&stream, have, LIMIT, &text) == 0);
        }
        CHECK(decode_text(&stream, stream.size, size, &text) == (int)stream.size);
        CHECK(text.size == size && memcmp(text.data, in, size) == 0);
        CHECK(decode_text(&stream, stream.size + 5, size, &text) == (int)stream.size);
        if (size > 0) {
            CHECK(decode_text(&stream, stream.size, size - 1, &text) == 0); /* over the limit */
        }
        for (uint32_t at = 0; at < size; at++) { /* a wrong byte is seen wherever it is */
            memset(in, 'x', size);
            in[at] = (char)0x80;
            stream.size = 0;
            add_frame(&stream, true, WS_TEXT, in, size);
            CHECK(decode_text(&stream, stream.size, size, &text) == -WS_INVALID_PAYLOAD);
        }
    }
}

static void fast_way_declines_all_else(void)
{
    static const uint8_t other[] = {0x01, 0x80, 0x82, 0x88, 0x89, 0x8a, 0xc1, 0x91, 0x83};
    struct slice text = {NULL, 0};
    static struct stream stream;

    for (uint32_t i = 0; i < sizeof(other); i++) {
        stream.size = 0;
        add_text(&stream, true, WS_TEXT, "text");
        stream.data[0] = other[i];
        CHECK(decode_text(&stream, stream.size, LIMIT, &text) == 0);
    }
    stream.data[0] = 0x81;
    CHECK(decode_text(&stream, stream.size, LIMIT, &text) == (int)stream.size);
    stream.data[1] &= 0x7f; /* not masked */
    CHECK(decode_text(&stream, stream.size, LIMIT, &text) == 0);
    memcpy(stream.data, "\x81\xfe\x00\x7d", 4); /* 125 in the long form */
    CHECK(decode_text(&stream, 200, LIMIT, &text) == 0);
    memcpy(stream.data, "\x81\xff\x00\x00\x00\x00\x00\x00\x00\x04", 10);
    CHECK(decode_text(&stream, 200, LIMIT, &text) == 0);
    CHECK(text.data != NULL); /* as the one that was taken left it */
}

/* --- closing --- */

static bool code_of_the_table(uint32_t code)
{
    switch (code) {
    case 1004: /* reserved */
    case 1005: /* never on the wire, and the next */
    case 1006:
    case 1015:
        return false;
    default:
        return (code >= 1000 && code <= 1014) || (code >= 3000 && code <= 4999);
    }
}

static void close_codes_are_those_of_the_registry(void)
{
    struct slice reason;
    uint16_t read;

    for (uint32_t code = 0; code <= UINT16_MAX; code++) {
        const uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code, 'o', 'k'};
        const bool valid = code_of_the_table(code);
        CHECK(ws_close_code_valid(code) == valid);
        CHECK(ws_close_decode(payload, 4, &read, &reason) == (valid ? 0 : -WS_PROTOCOL_ERROR));
        if (valid) {
            CHECK(read == code);
            CHECK(slice_equal(reason, SLICE("ok")));
        }
    }
}

static void close_payload_is_read_and_written(void)
{
    uint8_t payload[WS_CONTROL_PAYLOAD_MAX];
    char longest[WS_CLOSE_REASON_MAX];
    struct slice reason = SLICE("untouched");
    uint16_t code = 1;

    CHECK(ws_close_decode((const uint8_t *)"\x03\xe8", 1, &code, &reason) == -WS_PROTOCOL_ERROR);
    CHECK(ws_close_decode((const uint8_t *)"\x03\xe8\xe2\x82", 4, &code, &reason) ==
          -WS_INVALID_PAYLOAD);
    CHECK(code == 1 && slice_equal(reason, SLICE("untouched")));
    CHECK(ws_close_decode(NULL, 0, &code, &reason) == 0);
    CHECK(code == WS_NO_CODE && reason.size == 0);
    CHECK(ws_close_decode((const uint8_t *)"\x03\xe8", 2, &code, &reason) == 0);
    CHECK(code == 1000 && reason.size == 0);

    memset(longest, 'r', sizeof(longest));
    CHECK(ws_close_encode(payload, 3008, (struct slice){longest, sizeof(longest)}) == 125);
    CHECK(ws_close_decode(payload, 125, &code, &reason) == 0);
    CHECK(code == 3008);
    CHECK(reason.size == sizeof(longest) && memcmp(reason.data, longest, reason.size) == 0);
    CHECK(ws_close_encode(payload, 1001, (struct slice){NULL, 0}) == 2);
    CHECK(memcmp(payload, "\x03\xe9", 2) == 0);
    CHECK(ws_close_encode(payload, WS_NO_CODE, (struct slice){NULL, 0}) == 0);
}

/* --- the handshake --- */

static void key_must_be_sixteen_bytes_in_base64(void)
{
    const struct slice good[] = {SLICE("AAAAAAAAAAAAAAAAAAAAAA=="),
                                 SLICE("/+azAZ09+/+azAZ09+/azw==")};
    const struct slice wrong[] = {
        SLICE(""),
        SLICE("dGhlIHNhbXBsZSBub25jZQ="),   /* one short */
        SLICE("dGhlIHNhbXBsZSBub25jZQ== "), /* a blank */
        SLICE(" dGhlIHNhbXBsZSBub25jZQ="),  /* the right size with a blank */
        SLICE("dGhlIHNhbXBsZSBub25jZQ==="), /* one more */
        SLICE("dGhlIHNhbXBsZSBub25jZQAA"),  /* 18 bytes */
        SLICE("dGhlIHNhbXBsZSBub25jZQA="),  /* 17 bytes */
        SLICE("dGhlIHNhbXBsZSBub25jZQ=A"),  /* padding cut short */
        SLICE("dGhlIHNhbXBsZSBub25j=Q=="),  /* padding within */
        SLICE("dGhlIHNhbXBsZSBub25jZR=="),  /* bits beyond the sixteenth byte */
        SLICE("dGhlIHNhbXBsZSBub25j\0Q=="), /* a NUL */
        SLICE("dGhlIHNhbXBsZSBub25jZ\0=="), /* a NUL at the last character */
        SLICE("dGhl-HNhbXBsZSBub25jZQ=="),  /* the alphabet of URLs */
        SLICE("dGhl_HNhbXBsZSBub25jZQ=="),
        SLICE("dGhl\xc3HNhbXBsZSBub25jZQ=="),
    };

    for (uint32_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        CHECK(ws_key_valid(good[i]));
    }
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(!ws_key_valid(wrong[i]));
    }
}

static void subprotocol_is_the_clients_first_that_we_know(void)
{
    const struct slice known[] = {SLICE("damso.v1"), SLICE("v12.stomp")};
    const struct {
        struct slice list;
        int result;
    } cases[] = {
        {SLICE("damso.v1"), 0},
        {SLICE("v12.stomp, damso.v1"), 1},
        {SLICE("other,damso.v1"), 0},
        {SLICE(" \tother , v12.stomp\t"), 1},
        {SLICE(",, damso.v1 ,"), 0},
        {SLICE("damso.v11"), -ENOENT},
        {SLICE("damso.v"), -ENOENT},
        {SLICE("Damso.v1"), -ENOENT},
        {SLICE("xdamso.v1"), -ENOENT},
        {SLICE(""), -ENOENT},
        {SLICE(" , "), -ENOENT},
        {SLICE("damso.v1 v12.stomp"), -EINVAL},
        {SLICE("damso.v1, a/b"), -EINVAL},
        {SLICE("damso.v1, \"x\""), -EINVAL},
        {SLICE("damso.v1\0"), -EINVAL},
        {SLICE("damso.v1;q=1"), -EINVAL},
        {SLICE("\xeb\x8b\xb4"), -EINVAL},
    };

    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK(ws_subprotocol(cases[i].list, known, 2) == cases[i].result);
    }
    CHECK(ws_subprotocol(SLICE("damso.v1"), known, 0) == -ENOENT);
}

int main(void)
{
    server_frames_of_the_rfc_are_read_and_written();
    client_frames_of_the_rfc_are_read_and_written();
    fragmented_message_of_the_rfc_is_one_message();
    handshake_of_the_rfc_is_accepted();
    header_is_read_only_when_it_is_whole();
    first_byte_is_refused_at_once_if_wrong();
    second_byte_is_refused_at_once_if_wrong();
    length_must_be_in_its_shortest_form();
    pieces_unmask_to_what_the_whole_does();
    every_cut_reads_the_same();
    frames_out_of_place_are_refused();
    message_up_to_the_limit_is_read();
    message_over_the_limit_is_refused_by_its_header();
    wrong_text_is_refused_wherever_it_is_cut();
    wrong_text_is_refused_at_its_first_wrong_byte();
    fast_way_takes_whole_final_text_frames();
    fast_way_declines_all_else();
    close_codes_are_those_of_the_registry();
    close_payload_is_read_and_written();
    key_must_be_sixteen_bytes_in_base64();
    subprotocol_is_the_clients_first_that_we_know();
    puts("21 passed, 0 failed");
    return 0;
}
