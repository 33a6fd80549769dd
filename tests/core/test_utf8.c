/*
 * test_utf8.c - exactly the UTF-8 of RFC 3629 passes, in whatever pieces it arrives.
 *
 * Method: a second validator, written from the table of RFC 3629 section 4 as plainly as it can be,
 *         judges every sequence of up to three bytes and the interesting ones of four. The module
 * is asked about each one whole, cut at every byte, and behind ASCII of every alignment. Where it
 * refuses must be the first byte after which no continuation is left.
 */
#include "core/check.h"
#include "core/utf8.h"

#include <string.h>

/* The rows of RFC 3629 section 4: bounds of each byte; a row is over at the first zero. */
static const uint8_t rows[][4][2] = {
    {{0x00, 0x7F}},
    {{0xC2, 0xDF}, {0x80, 0xBF}},
    {{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}},
    {{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}},
    {{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}},
    {{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}},
    {{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}},
    {{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}},
    {{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static bool in_row(const uint8_t row[4][2], uint32_t place, uint8_t byte)
{
    return byte >= row[place][0] && byte <= row[place][1];
}

/* Bytes of text that are good, whole characters and then the beginning of one: size if all are.
 * *ret_whole: no character is left half-way. */
static uint32_t good_prefix(const uint8_t *text, uint32_t size, bool *ret_whole)
{
    uint32_t begin = 0;

    *ret_whole = true;
    while (begin < size) {
        uint32_t best = 0;
        bool ended = false;
        for (uint32_t r = 0; r < ROWS; r++) {
            const uint32_t length = r == 0 ? 1 : r == 1 ? 2 : r < 6 ? 3 : 4;
            uint32_t place = 0;
            while (place < length && begin + place < size &&
                   in_row(rows[r], place, text[begin + place])) {
                place++;
            }
            if (place > best) {
                best = place;
                ended = place == length;
            }
        }
        begin += best;
        if (!ended) {
            *ret_whole = best == 0;
            return begin;
        }
    }
    return begin;
}

/* Feeds text byte by byte; the number of bytes that were taken before one was refused. */
static uint32_t taken_one_by_one(const uint8_t *text, uint32_t size, bool *ret_whole)
{
    struct utf8 state = {0};

    for (uint32_t i = 0; i < size; i++) {
        if (!utf8_feed(&state, text + i, 1)) {
            return i;
        }
    }
    *ret_whole = utf8_complete(&state);
    return size;
}

static void judge(const uint8_t *text, uint32_t size)
{
    bool whole = false;
    bool whole_fed = false;
    const uint32_t good = good_prefix(text, size, &whole);
    const bool valid = good == size && whole;

    CHECK(utf8_valid(text, size) == valid);
    CHECK(taken_one_by_one(text, size, &whole_fed) == good); /* U2 */
    CHECK(good < size || whole_fed == whole);
    for (uint32_t cut = 0; cut <= size; cut++) {
        struct utf8 state = {0};
        const bool taken =
            utf8_feed(&state, text, cut) && utf8_feed(&state, text + cut, size - cut);
        CHECK(taken == (good == size));
        CHECK(!taken || utf8_complete(&state) == whole);
    }
}

static void every_sequence_of_up_to_three_bytes_is_judged_as_the_rfc_does(void)
{
    for (uint32_t i = 0; i < 1U << 24; i++) {
        const uint8_t text[3] = {(uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
        bool whole = false;
        const bool valid = good_prefix(text, 3, &whole) == 3 && whole;
        CHECK(utf8_valid(text, 3) == valid);
        if (i % 251 == 0) { /* the costly way for a spread of them */
            judge(text, 3);
        }
    }
    for (uint32_t i = 0; i < 1U << 16; i++) {
        const uint8_t text[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        judge(text, 2);
        judge(text + 1, 1);
    }
}

static void four_byte_sequences_are_judged_as_the_rfc_does(void)
{
    enum { EDGES = 18 };
    static const uint8_t edges[EDGES] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                         0xC0, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xFF};

    for (uint32_t lead = 0xE0; lead <= 0xFF; lead++) {
        for (uint32_t second = 0; second < 256; second++) {
            for (uint32_t i = 0; i < EDGES * EDGES; i++) {
                const uint8_t text[4] = {(uint8_t)lead, (uint8_t)second, edges[i / EDGES],
                                         edges[i % EDGES]};
                judge(text, 4);
            }
        }
    }
}

static void every_code_point_but_surrogates_passes(void)
{
    for (uint32_t code = 0x10000; code <= 0x10FFFF; code++) {
        const uint8_t text[4] = {
            (uint8_t)(0xF0 | code >> 18), (uint8_t)(0x80 | (code >> 12 & 0x3F)),
            (uint8_t)(0x80 | (code >> 6 & 0x3F)), (uint8_t)(0x80 | (code & 0x3F))};
        CHECK(utf8_valid(text, 4));
        CHECK(utf8_character(text, 4) == 4);
        CHECK(utf8_character(text, 3) == 0);
    }
}

static void an_error_is_found_behind_any_amount_of_ascii(void)
{
    static const uint8_t wrong[][4] = {{0xC0, 0xAF, 'a', 'a'},   {0xED, 0xA0, 0x80, 'a'},
                                       {0xF4, 0x90, 0x80, 0x80}, {0x80, 'a', 'a', 'a'},
                                       {0xE2, 0x82, 'a', 'a'},   {0xFF, 'a', 'a', 'a'}};
    uint8_t text[72];

    for (uint32_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
        for (uint32_t at = 0; at + 4 <= sizeof text; at++) {
            memset(text, 'a', sizeof text);
            CHECK(utf8_valid(text, sizeof text));
            memcpy(text + at, wrong[w], 4);
            CHECK(!utf8_valid(text, sizeof text));
            judge(text + at, (uint32_t)(sizeof text - at));
        }
    }
}

static void text_of_many_scripts_passes_whole_and_cut(void)
{
    static const char text[] = "plain, \xEB\x8B\xB4\xEC\x86\x8C \xE8\xAB\x87\xE7\xAC\x91, "
                               "gr\xC3\xBC\xC3\x9F, \xF0\x9F\x98\x80\xF0\x9F\x98\x80 and the end";

    judge((const uint8_t *)text, sizeof text - 1);
    CHECK(utf8_valid(text, sizeof text - 1));
    CHECK(utf8_valid("", 0));
}

int main(void)
{
    every_sequence_of_up_to_three_bytes_is_judged_as_the_rfc_does();
    four_byte_sequences_are_judged_as_the_rfc_does();
    every_code_point_but_surrogates_passes();
    an_error_is_found_behind_any_amount_of_ascii();
    text_of_many_scripts_passes_whole_and_cut();
    puts("5 passed, 0 failed");
    return 0;
}
