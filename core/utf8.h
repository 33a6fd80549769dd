/*
 * utf8.h - is this UTF-8? Over one buffer, or over pieces cut at any byte.
 *
 * Walk:       from core/ws.c (text across fragments) and core/json.c (bodies of strings).
 * Threads:    any; a validator belongs to whoever declared it.
 * Units:      sizes are in bytes.
 *
 * Invariants: (U1) accepted is exactly the table of RFC 3629 section 4: nothing overlong, no
 *                  surrogate, nothing above U+10FFFF.
 *             (U2) refused at the first byte that no continuation could mend, in whatever pieces
 *                  the bytes arrive: a peer learns of its mistake before its message ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Between two pieces. All zero is the state before the first byte and after each whole character.
 */
struct utf8 {
    uint8_t due;  /* continuation bytes that the character begun still needs, 0 to 3 */
    uint8_t low;  /* the next continuation byte lies in [low, high]; read only if due > 0 */
    uint8_t high; /* narrower than [80, BF] after E0, ED, F0 and F4 (RFC 3629 section 4) */
};

/* Takes the next piece. False: refused (U2), and the state is of no more use until it is zeroed. */
__attribute__((warn_unused_result)) bool utf8_feed(struct utf8 *state, const void *data,
                                                   size_t size);

/* Whether the text may end here: no character is left half-way. */
static inline bool utf8_complete(const struct utf8 *state)
{
    return state->due == 0;
}

/* Whether size bytes are UTF-8, whole characters from beginning to end. Empty text is. */
__attribute__((warn_unused_result)) bool utf8_valid(const void *data, size_t size);

/* Size of the one character at data, 1 to 4; 0 if it is none or is cut off after size bytes. */
static inline uint32_t utf8_character(const void *data, size_t size)
{
    const uint8_t *byte = data;

    if (size >= 1 && byte[0] < 0x80) {
        return 1;
    }
    if (size >= 3 && (byte[0] & 0xF0) == 0xE0) {
        const uint32_t wide = (byte[0] & 0xFU) << 12 | (byte[1] & 0x3FU) << 6 | (byte[2] & 0x3FU);
        const bool marked = (byte[1] & 0xC0) == 0x80 && (byte[2] & 0xC0) == 0x80;
        return marked && wide >= 0x800 && (wide & 0xF800) != 0xD800 ? 3 : 0;
    }
    if (size >= 2 && byte[0] >= 0xC2 && byte[0] <= 0xDF) {
        return (byte[1] & 0xC0) == 0x80 ? 2 : 0;
    }
    if (size >= 4 && byte[0] >= 0xF0 && byte[0] <= 0xF4) {
        const uint32_t high = (byte[0] & 0x7U) << 12 | (byte[1] & 0x3FU) << 6 | (byte[2] & 0x3FU);
        const bool marked =
            (byte[1] & 0xC0) == 0x80 && (byte[2] & 0xC0) == 0x80 && (byte[3] & 0xC0) == 0x80;
        /* high is the code point without its last six bits: U+10000 to U+10FFFF. */
        return marked && high >= 0x400 && high <= 0x43FF ? 4 : 0;
    }
    return 0;
}

/* Bytes that a code point takes. */
static inline uint32_t utf8_encoded_size(uint32_t code_point)
{
    return code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
}

/* Writes a code point (at most U+10FFFF, no surrogate) to out, which has room for 4 bytes; returns
 * how many it took. */
uint32_t utf8_encode(uint32_t code_point, char *out);
