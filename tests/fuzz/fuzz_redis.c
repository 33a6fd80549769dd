/*
 * fuzz_redis.c - no URL makes the parser write out of bounds or repeat what it was given, and no
 *                bytes of a server make the reader of replies do either, or take more than its
 *                memory.
 *
 * Method: the first byte chooses. 'u': the rest is a URL. Else the rest is what a server says; it
 * is fed whole, and once more in pieces of as many bytes as the first byte says: the same replies
 * must come, in the same order, each with all its bytes.
 */
#include "core/check.h"
#include "persist/redis_reader.h"
#include "persist/redis_url.h"

#include <errno.h>
#include <stdlib.h>

enum { TEXT_MAX = 8192, DEPTH_MAX = 9 /* eight arrays in each other, and what is in the last */ };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *arena;
static uint64_t digest; /* of all replies of a run */

static void try_url(const uint8_t *data, size_t size)
{
    struct redis_url url;
    char text[TEXT_MAX + 1];
    char why[512] = "";

    memcpy(text, data, size);
    text[size] = 0;
    const int error = redis_url_parse(text, &url, why, sizeof(why));
    if (error < 0) {
        CHECK(error == -EINVAL && why[0] != 0);
        return;
    }
    CHECK(strnlen(url.host, sizeof(url.host)) < sizeof(url.host) && url.host[0] != 0);
    CHECK(strnlen(url.user, sizeof(url.user)) < sizeof(url.user));
    CHECK(strnlen(url.password, sizeof(url.password)) < sizeof(url.password));
    CHECK(url.signs_in || (url.user[0] == 0 && url.password[0] == 0));
    CHECK(url.scheme == REDIS_SCHEME_UNIX || (url.port >= 1 && url.port <= UINT16_MAX));
    CHECK(url.scheme != REDIS_SCHEME_UNIX || strlen(url.host) <= REDIS_URL_PATH_MAX);
}

static void mix(uint64_t value)
{
    digest = (digest ^ value) * UINT64_C(0x100000001b3);
}

static void use_reply(const struct redis_reply *reply, int depth)
{
    CHECK(depth < DEPTH_MAX);
    mix(reply->type);
    switch (reply->type) {
    case REDIS_ARRAY:
        CHECK(reply->count <= REDIS_ELEMENTS_MAX);
        mix(reply->count);
        for (uint32_t i = 0; i < reply->count; i++) {
            const struct redis_reply element = redis_element(reply, i);
            use_reply(&element, depth + 1);
        }
        break;
    case REDIS_INTEGER:
        mix((uint64_t)reply->integer);
        break;
    case REDIS_NIL:
        break;
    case REDIS_STRING:
    case REDIS_STATUS:
    case REDIS_ERROR:
        for (uint32_t i = 0; i < reply->text.size; i++) {
            mix((unsigned char)reply->text.data[i]);
        }
        (void)redis_error(reply->text);
        break;
    }
}

/* Feeds data in pieces; the digest of what came, and how the last take ended. */
static uint64_t read_replies(const uint8_t *data, size_t size, size_t piece, int *ret_end)
{
    struct redis_reader reader = {.arena = arena};
    struct redis_reply reply;
    int got = 0;

    digest = UINT64_C(0xcbf29ce484222325);
    CHECK(redis_reader_begin(&reader) == 0);
    for (size_t at = 0; at < size && got >= 0; at += piece) {
        const size_t part = piece < size - at ? piece : size - at;
        CHECK(redis_reader_feed(&reader, (const char *)data + at, part) == 0);
        for (size_t i = 0; i <= size && (got = redis_reader_take(&reader, &reply)) > 0; i++) {
            use_reply(&reply, 0);
        }
        CHECK(got <= 0); /* a reply has a byte at least */
        CHECK(reader.used <= REDIS_ARENA_BYTES);
    }
    CHECK(got == 0 || got == -EPROTO || got == -EMSGSIZE);
    redis_reader_end(&reader);
    *ret_end = got;
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];

    if (size == 0 || size > TEXT_MAX) {
        return 0;
    }
    if (data[0] == 'u') {
        try_url(data + 1, size - 1);
        return 0;
    }
    if (arena == NULL) {
        arena = malloc(REDIS_ARENA_BYTES); /* once; only what is touched is there */
        CHECK(arena != NULL);
    }
    const size_t piece = data[0] > 0 ? data[0] : 1;
    const uint64_t whole = read_replies(data + 1, size - 1, size, &ends[0]);
    const uint64_t pieces = read_replies(data + 1, size - 1, piece, &ends[1]);
    CHECK(whole == pieces);
    CHECK(ends[0] == ends[1]);
    return 0;
}
