/* ws.c - see ws.h for the invariants W1 to W3 named below. Section numbers are RFC 6455's. */
#include "core/ws.h"

#include "core/check.h"

#include <stddef.h>
#include <string.h>

/* Bits of the first two bytes of a frame (section 5.2). */
#define BIT_FIN       0x80
#define BITS_RESERVED 0x70
#define BITS_OPCODE   0x0f
#define BIT_CONTROL   0x08 /* of the opcode */
#define BIT_MASKED    0x80
#define BITS_LENGTH   0x7f

/* What the seven bits of length say if they are not the length itself. */
#define LENGTH_IN_2 126
#define LENGTH_IN_8 127

/* A bit for each opcode that section 11.8 defines. */
#define OPCODES_KNOWN 0x0707U

#define MASK_SIZE     4

/* A payload beyond this goes the slow way: the last one whose length takes two bytes. */
#define FAST_PAYLOAD_MAX 65535

/* Set in a byte that is not ASCII; for eight bytes at once. */
#define HIGH_BITS UINT64_C(0x8080808080808080)

static uint64_t read_big_endian(const uint8_t *data, uint32_t size)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < size; i++) {
        value = value << 8 | data[i];
    }
    return value;
}

static void write_big_endian(uint8_t *dst, uint64_t value, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        dst[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    }
}

static bool first_byte_wrong(uint8_t byte)
{
    const bool control = (byte & BIT_CONTROL) != 0;

    /* Reserved bits belong to extensions, and we agreed to none. */
    return (byte & BITS_RESERVED) != 0 || (OPCODES_KNOWN >> (byte & BITS_OPCODE) & 1) == 0 ||
           (control && (byte & BIT_FIN) == 0); /* section 5.5 */
}

static bool second_byte_wrong(uint8_t first, uint8_t byte, bool from_client)
{
    const bool control = (first & BIT_CONTROL) != 0;

    return ((byte & BIT_MASKED) != 0) != from_client ||
           (control && (byte & BITS_LENGTH) > WS_CONTROL_PAYLOAD_MAX);
}

/* Bytes of the length field after the first two bytes. */
static uint32_t length_size(uint8_t second)
{
    const uint8_t length = second & BITS_LENGTH;

    return length < LENGTH_IN_2 ? 0 : length == LENGTH_IN_2 ? 2 : 8;
}

/* Section 5.2: the shortest form must be used, and the highest bit of eight bytes must be 0. */
static bool length_wrong(uint64_t length, uint32_t size)
{
    return (size == 2 && length < LENGTH_IN_2) ||
           (size == 8 && (length <= UINT16_MAX || length > INT64_MAX));
}

static int decode(const uint8_t *data, uint32_t size, bool from_client, struct ws_frame *ret_frame)
{
    if (size >= 1 && first_byte_wrong(data[0])) {
        return -WS_PROTOCOL_ERROR;
    }
    if (size >= 2 && second_byte_wrong(data[0], data[1], from_client)) {
        return -WS_PROTOCOL_ERROR;
    }
    if (size < 2) {
        return 0;
    }
    const uint32_t extended = length_size(data[1]);
    const uint32_t header = 2 + extended + (from_client ? MASK_SIZE : 0);
    if (size < header) {
        return 0;
    }
    const uint64_t length =
        extended == 0 ? data[1] & BITS_LENGTH : read_big_endian(data + 2, extended);
    if (length_wrong(length, extended)) {
        return -WS_PROTOCOL_ERROR;
    }
    *ret_frame = (struct ws_frame){
        .payload_size = length,
        .opcode = data[0] & BITS_OPCODE,
        .fin = (data[0] & BIT_FIN) != 0,
        .masked = from_client,
    };
    if (from_client) {
        memcpy(ret_frame->mask, data + header - MASK_SIZE, MASK_SIZE);
    }
    return (int)header;
}

int ws_decode(const uint8_t *data, uint32_t size, struct ws_frame *ret_frame)
{
    return decode(data, size, true, ret_frame);
}

int ws_decode_server(const uint8_t *data, uint32_t size, struct ws_frame *ret_frame)
{
    return decode(data, size, false, ret_frame);
}

/* 16 bytes at any address; the compiler makes one SSE2 or NEON register of it. */
typedef uint64_t block __attribute__((vector_size(16), aligned(1), may_alias));

/* Unmasks size bytes. key: the mask as it lies in memory, turned so that its first byte is for
 * data[0]. Returns the plain bytes or-ed together, in some order: no bit 0x80 in it means that they
 * are ASCII. Learning that here is free; a second pass over the bytes is not. */
static uint64_t unmask(uint8_t *data, uint32_t size, uint32_t key)
{
    const uint64_t wide = (uint64_t)key << 32 | key;
    const block mask = {wide, wide};
    block seen = {0, 0};
    uint32_t done = 0;

    for (; size - done >= 2 * sizeof(block); done += 2 * (uint32_t)sizeof(block)) {
        block *low = (block *)(data + done);
        block *high = (block *)(data + done + sizeof(block));
        *low ^= mask;
        *high ^= mask;
        seen |= *low | *high;
    }
    uint64_t seen_bits = seen[0] | seen[1];
    for (; size - done >= sizeof(wide); done += (uint32_t)sizeof(wide)) {
        uint64_t word;
        memcpy(&word, data + done, sizeof(word));
        word ^= wide;
        memcpy(data + done, &word, sizeof(word));
        seen_bits |= word;
    }
    uint8_t last[sizeof(wide)];
    memcpy(last, &wide, sizeof(wide));
    for (uint32_t i = 0; done < size; done++, i++) {
        data[done] ^= last[i];
        seen_bits |= data[done];
    }
    return seen_bits;
}

static uint32_t turned_key(const uint8_t mask[MASK_SIZE], uint64_t offset)
{
    uint8_t turned[MASK_SIZE];
    uint32_t key;

    for (uint32_t i = 0; i < MASK_SIZE; i++) {
        turned[i] = mask[(offset + i) % MASK_SIZE];
    }
    memcpy(&key, turned, sizeof(key));
    return key;
}

void ws_unmask(uint8_t *data, uint32_t size, const uint8_t mask[4], uint64_t offset)
{
    (void)unmask(data, size, turned_key(mask, offset));
}

int ws_decode_text(uint8_t *data, uint32_t size, uint32_t message_bytes_max,
                   struct slice *ret_payload)
{
    if (size < 2 || data[0] != (BIT_FIN | WS_TEXT) || (data[1] & BIT_MASKED) == 0) {
        return 0;
    }
    const uint32_t extended = length_size(data[1]);
    const uint32_t header = 2 + extended + MASK_SIZE;
    if (extended == 8 || size < header) {
        return 0;
    }
    const uint32_t length =
        extended == 0 ? data[1] & BITS_LENGTH : (uint32_t)read_big_endian(data + 2, 2);
    if (length_wrong(length, extended) || length > message_bytes_max || length > size - header) {
        return 0;
    }
    uint8_t *text = data + header;
    const uint64_t seen = unmask(text, length, turned_key(text - MASK_SIZE, 0));
    if ((seen & HIGH_BITS) != 0 && !utf8_valid(text, length)) {
        return -WS_INVALID_PAYLOAD;
    }
    *ret_payload = (struct slice){(const char *)text, length};
    return (int)(header + length);
}

/* Which frames may follow which (section 5.4), and how many bytes a message may have (W1). */
static int data_frame(struct ws_reader *reader, const struct ws_frame *frame,
                      uint32_t message_bytes_max)
{
    const bool continues = frame->opcode == WS_CONTINUATION;

    if (continues == ws_reader_idle(reader)) {
        return -WS_PROTOCOL_ERROR;
    }
    const uint32_t before = continues ? reader->message_size : 0;
    if (before > message_bytes_max || frame->payload_size > message_bytes_max - before) {
        return -WS_TOO_LARGE;
    }
    if (!continues) {
        reader->message = frame->opcode;
    }
    reader->message_size = before + (uint32_t)frame->payload_size;
    return 0;
}

int ws_reader_frame(struct ws_reader *reader, const struct ws_frame *frame,
                    uint32_t message_bytes_max)
{
    CHECK(reader->frame_left == 0); /* the frame before was read to its end */

    if ((frame->opcode & BIT_CONTROL) == 0) {
        const int error = data_frame(reader, frame, message_bytes_max);
        if (error != 0) {
            return error;
        }
    }
    reader->frame_left = (uint32_t)frame->payload_size;
    reader->opcode = frame->opcode;
    reader->fin = frame->fin;
    return 0;
}

/* True if the current frame carries text whose UTF-8 counts: control frames may come between. */
static bool is_text(const struct ws_reader *reader)
{
    return reader->message == WS_TEXT && (reader->opcode & BIT_CONTROL) == 0;
}

int ws_reader_payload(struct ws_reader *reader, const uint8_t *bytes, uint32_t size)
{
    CHECK(size <= reader->frame_left);

    reader->frame_left -= size;
    if (is_text(reader) && !utf8_feed(&reader->utf8, bytes, size)) {
        return -WS_INVALID_PAYLOAD;
    }
    return 0;
}

int ws_reader_end(struct ws_reader *reader)
{
    CHECK(reader->frame_left == 0);

    if ((reader->opcode & BIT_CONTROL) != 0) {
        return reader->opcode;
    }
    if (!reader->fin) {
        return WS_CONTINUATION;
    }
    if (is_text(reader) && !utf8_complete(&reader->utf8)) {
        return -WS_INVALID_PAYLOAD;
    }
    const int complete = reader->message;
    *reader = (struct ws_reader){0};
    return complete;
}

bool ws_close_code_valid(uint32_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

int ws_close_decode(const uint8_t *payload, uint32_t size, uint16_t *ret_code,
                    struct slice *ret_reason)
{
    if (size == 0) {
        *ret_code = WS_NO_CODE;
        *ret_reason = (struct slice){(const char *)payload, 0};
        return 0;
    }
    if (size == 1) {
        return -WS_PROTOCOL_ERROR;
    }
    const uint16_t code = (uint16_t)read_big_endian(payload, 2);
    if (!ws_close_code_valid(code)) {
        return -WS_PROTOCOL_ERROR;
    }
    if (!utf8_valid(payload + 2, size - 2)) {
        return -WS_INVALID_PAYLOAD;
    }
    *ret_code = code;
    *ret_reason = (struct slice){(const char *)payload + 2, size - 2};
    return 0;
}

uint32_t ws_close_encode(uint8_t *dst, uint16_t code, struct slice reason)
{
    CHECK(reason.size <= WS_CLOSE_REASON_MAX);

    if (code == WS_NO_CODE) {
        return 0;
    }
    CHECK(ws_close_code_valid(code));
    write_big_endian(dst, code, 2);
    if (reason.size != 0) {
        memcpy(dst + 2, reason.data, reason.size);
    }
    return 2 + reason.size;
}

uint32_t ws_encode_header(uint8_t *dst, enum ws_opcode opcode, uint64_t payload_size)
{
    return ws_encode_frame(dst, &(struct ws_frame){
                                    .payload_size = payload_size,
                                    .opcode = (uint8_t)opcode,
                                    .fin = true,
                                });
}

uint32_t ws_encode_frame(uint8_t *dst, const struct ws_frame *frame)
{
    const uint64_t length = frame->payload_size;
    const uint8_t first = length < LENGTH_IN_2   ? (uint8_t)length
                          : length <= UINT16_MAX ? LENGTH_IN_2
                                                 : LENGTH_IN_8;
    const uint32_t extended = length_size(first);

    dst[0] = (uint8_t)((frame->fin ? BIT_FIN : 0) | frame->opcode);
    dst[1] = (uint8_t)((frame->masked ? BIT_MASKED : 0) | first);
    write_big_endian(dst + 2, length, extended);
    if (!frame->masked) {
        return 2 + extended;
    }
    memcpy(dst + 2 + extended, frame->mask, MASK_SIZE);
    return 2 + extended + MASK_SIZE;
}
