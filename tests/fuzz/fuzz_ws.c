/*
 * fuzz_ws.c - any bytes, cut in any way, are read the same by core/ws.h, and nothing is overrun.
 *
 * Input: one byte that seeds how the rest is cut into pieces, then what a client sends.
 * Method: the stream in one piece by the fast way is the reference. A second receiver gets it in
 *         pieces, without the fast way and with it. Beside them the single decoders get the same
 *         bytes, and what they accept must be what the encoders write.
 */
#include "core/check.h"
#include "core/ws.h"
#include "tests/core/ws_receiver.h"

#include <stddef.h>

/* NOLINTNEXTLINE(readability-identifier-naming): the name is libFuzzer's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct receiver whole, cut;

static void read_in_pieces(const uint8_t *data, uint32_t size, uint8_t seed, bool fast)
{
    uint32_t dice = seed;

    memset(&cut, 0, sizeof(cut));
    cut.fast = fast;
    for (uint32_t at = 0; at < size;) {
        dice = dice * 1664525 + 1013904223;
        const uint32_t wanted = 1 + (dice >> 24) % (1 + seed % 32);
        const uint32_t piece = wanted < size - at ? wanted : size - at;
        receiver_feed(&cut, data + at, piece);
        at += piece;
    }
}

/* A header that is accepted has one form only: encoding what it says gives its bytes. */
static void check_headers(const uint8_t *data, uint32_t size)
{
    struct ws_frame frame;
    uint8_t again[WS_CLIENT_HEADER_MAX];

    const int client = ws_decode(data, size, &frame);
    if (client > 0) {
        CHECK(frame.masked);
        CHECK(ws_encode_frame(again, &frame) == (uint32_t)client);
        CHECK(memcmp(again, data, (uint32_t)client) == 0);
    }
    const int server = ws_decode_server(data, size, &frame);
    if (server > 0) {
        CHECK(!frame.masked);
        CHECK(ws_encode_frame(again, &frame) == (uint32_t)server);
        CHECK(memcmp(again, data, (uint32_t)server) == 0);
    }
}

static void check_close(const uint8_t *data, uint32_t size)
{
    uint8_t again[WS_CONTROL_PAYLOAD_MAX];
    struct slice reason;
    uint16_t code;
    const uint32_t payload = size < sizeof(again) ? size : (uint32_t)sizeof(again);

    if (ws_close_decode(data, payload, &code, &reason) == 0) {
        CHECK(ws_close_encode(again, code, reason) == payload);
        CHECK(memcmp(again, data, payload) == 0);
    }
}

static void check_handshake(const uint8_t *data, uint32_t size)
{
    const struct slice known[] = {SLICE("damso.v1"), SLICE("v12.stomp")};
    const struct slice text = {(const char *)data, size};
    const struct slice key = {text.data, size < WS_KEY_SIZE ? size : WS_KEY_SIZE};
    char accept[WS_ACCEPT_SIZE];

    CHECK(ws_subprotocol(text, known, 2) < 2);
    if (ws_key_valid(key)) {
        ws_accept(key, accept);
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > RECEIVER_STREAM_MAX) {
        return 0;
    }
    const uint8_t seed = data[0];
    const uint8_t *stream = data + 1;
    const uint32_t stream_size = (uint32_t)size - 1;

    memset(&whole, 0, sizeof(whole));
    whole.fast = true;
    receiver_feed(&whole, stream, stream_size);
    read_in_pieces(stream, stream_size, seed, false);
    receiver_expect_same(&cut, &whole);
    read_in_pieces(stream, stream_size, seed, true);
    receiver_expect_same(&cut, &whole);

    check_headers(stream, stream_size);
    check_close(stream, stream_size);
    check_handshake(stream, stream_size);
    return 0;
}
