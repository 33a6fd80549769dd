/*
 * fuzz_jwt.c - no token makes the check read out of bounds, leak or accept what it must not.
 *
 * Method: the first byte says what the rest is. 'T' a whole token. 'H' a header, a newline and the
 *         claims; 'C' claims only. The last two are signed with our key, so that the claims are
 *         reached at all. Whatever is accepted must be what the headers of shard/auth.h promise,
 *         must be refused when one digit of its signature is another, and by another key.
 */
#include "core/utf8.h"
#include "shard/auth.h"
#include "tests/shard/jwt_maker.h"

#include <stdlib.h>

enum { NOW = 1000, INPUT_MAX = TOKEN_MAX + 64 };

static const char key_text[] = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
static struct config config;
static struct auth auth;
static char room[3 * INPUT_MAX];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void begin(void)
{
    config_defaults(&config);
    auth.config = &config;
    memcpy(auth.key, key_text, sizeof(auth.key));
}

/* The token of an input, in memory of exactly its size: the caller's to free. */
static char *token_of(const char *data, uint32_t size, uint32_t *ret_size)
{
    const char *text = data + 1;
    const char *line = memchr(text, '\n', size - 1);
    struct slice token = {text, size - 1};

    if (data[0] == 'H' && line != NULL) {
        const struct slice header = {text, (uint32_t)(line - text)};
        const struct slice claims = {line + 1, size - 2 - header.size};
        token = jwt_make(room, key_text, EVP_sha256(), header, claims);
    } else if (data[0] == 'C') {
        token = jwt_make(room, key_text, EVP_sha256(), SLICE("{\"alg\":\"HS256\"}"), token);
    }
    char *copy = malloc(token.size > 0 ? token.size : 1); /* tidy: allow, its end is the token's */
    CHECK(copy != NULL);
    memcpy(copy, token.data, token.size);
    *ret_size = token.size;
    return copy;
}

/* C0, DEL and C1 (U+0080 to U+009F, in UTF-8 C2 80 to C2 9F). */
static bool has_control(const char *text, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        const uint8_t byte = (uint8_t)text[i];
        if (byte < 0x20 || byte == 0x7F) {
            return true;
        }
        if (byte == 0xC2 && (uint8_t)text[i + 1] < 0xA0) {
            return true;
        }
    }
    return false;
}

static void check_accepted(struct slice token, const struct auth_claims *claims)
{
    uint32_t points = 0;

    CHECK(token.size <= TOKEN_MAX);
    for (uint32_t i = 0; i < token.size; i++) {
        const char c = token.data[i];
        points += c == '.';
        CHECK((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.');
    }
    CHECK(points == 2);
    CHECK(token.data[token.size - 44] == '.');
    CHECK(claims->sub_size >= 1 && claims->sub_size <= CLAIM_SUB_MAX);
    CHECK(claims->name_size >= 1 && claims->name_size <= CLAIM_NAME_MAX);
    CHECK(utf8_valid(claims->sub, claims->sub_size));
    CHECK(utf8_valid(claims->name, claims->name_size));
    CHECK(!has_control(claims->sub, claims->sub_size));
    CHECK(!has_control(claims->name, claims->name_size));
    CHECK(claims->expires > NOW - config.auth_leeway / 1000);
}

static void check_forged(char *text, uint32_t size)
{
    const struct slice token = {text, size};
    struct auth_claims claims;
    char *last = text + size - 2; /* the one before the last digit: all of its bits count */

    *last = *last == 'A' ? 'B' : 'A';
    CHECK(auth_check(&auth, token, NOW, &claims) == AUTH_INVALID);
    *last = *last == 'A' ? 'B' : 'A';
    auth.key[0] = 'f';
    CHECK(auth_check(&auth, token, NOW, &claims) == AUTH_INVALID);
    auth.key[0] = key_text[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct auth_claims claims;
    uint8_t before[sizeof(claims)];

    if (size < 1 || size > INPUT_MAX) {
        return 0;
    }
    begin();
    memset(&claims, 0xA5, sizeof(claims));
    memset(before, 0xA5, sizeof(before));
    uint32_t token_size = 0;
    char *text = token_of((const char *)data, (uint32_t)size, &token_size);
    const struct slice token = {text, token_size};
    const enum auth_result result = auth_check(&auth, token, NOW, &claims);
    if (result == AUTH_OK) {
        check_accepted(token, &claims);
    } else {
        CHECK(memcmp((const void *)&claims, before, sizeof(before)) == 0);
    }
    if (result != AUTH_INVALID) {
        check_forged(text, token_size);
    }
    free(text);
    return 0;
}
