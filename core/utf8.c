/* utf8.c - see utf8.h for the invariants U1 and U2 named below. */
#include "core/utf8.h"

#include "core/check.h"

#include <string.h>

#define HIGH_BITS 0x8080808080808080ULL

static size_t ascii_prefix(const uint8_t *byte, size_t size);
static bool next_byte(struct utf8 *state, uint8_t byte);
static bool lead_byte(struct utf8 *state, uint8_t lead);

bool utf8_feed(struct utf8 *state, const void *data, size_t size)
{
    const uint8_t *byte = data;
    size_t at = 0;

    while (at < size && state->due > 0) {
        if (!next_byte(state, byte[at++])) {
            return false;
        }
    }
    while (at < size) {
        at += ascii_prefix(byte + at, size - at);
        uint32_t whole = 1;
        while (at < size && byte[at] >= 0x80 && whole > 0) {
            whole = utf8_character(byte + at, size - at);
            at += whole;
        }
        if (whole > 0) {
            continue;
        }
        /* Wrong, or cut off at the end of this piece: byte by byte finds out which. */
        while (at < size) {
            if (!next_byte(state, byte[at++])) {
                return false;
            }
            if (state->due == 0) {
                break;
            }
        }
    }
    return true;
}

bool utf8_valid(const void *data, size_t size)
{
    struct utf8 state = {0};

    return utf8_feed(&state, data, size) && utf8_complete(&state);
}

uint32_t utf8_encode(uint32_t code_point, char *out)
{
    const uint32_t size = utf8_encoded_size(code_point);

    CHECK(code_point <= 0x10FFFF);
    CHECK((code_point & ~0x7FFU) != 0xD800); /* U1 */
    if (size == 1) {
        out[0] = (char)code_point;
        return size;
    }
    for (uint32_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3F));
        code_point >>= 6;
    }
    /* The mark of the first byte: 110 for two bytes, 1110 for three, 11110 for four. */
    out[0] = (char)((0xF00U >> size & 0xFF) | code_point);
    return size;
}

/* Bytes of ASCII at the beginning: whole blocks first, which is nearly all of most text. */
static size_t ascii_prefix(const uint8_t *byte, size_t size)
{
    size_t at = 0;

    while (size - at >= 16) {
        uint64_t block[2];
        memcpy(block, byte + at, sizeof block);
        if (((block[0] | block[1]) & HIGH_BITS) != 0) {
            break;
        }
        at += sizeof block;
    }
    while (at < size && byte[at] < 0x80) {
        at++;
    }
    return at;
}

/* One byte, wherever in a character it stands. */
static bool next_byte(struct utf8 *state, uint8_t byte)
{
    CHECK(state->due <= 3);

    if (state->due == 0) {
        return lead_byte(state, byte);
    }
    if (byte < state->low || byte > state->high) {
        return false; /* U2 */
    }
    state->due--;
    state->low = 0x80;
    state->high = 0xBF;
    return true;
}

/* The first byte of a character. Bounds of the second byte: the table of RFC 3629 section 4. */
static bool lead_byte(struct utf8 *state, uint8_t lead)
{
    state->low = 0x80;
    state->high = 0xBF;
    if (lead < 0x80) {
        return true;
    }
    if (lead < 0xC2 || lead > 0xF4) {
        return false; /* a continuation byte, an overlong pair, or beyond U+13FFFF */
    }
    state->due = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    if (lead == 0xE0) {
        state->low = 0xA0; /* below: overlong */
    } else if (lead == 0xED) {
        state->high = 0x9F; /* above: a surrogate */
    } else if (lead == 0xF0) {
        state->low = 0x90; /* below: overlong */
    } else if (lead == 0xF4) {
        state->high = 0x8F; /* above: beyond U+10FFFF */
    }
    return true;
}
