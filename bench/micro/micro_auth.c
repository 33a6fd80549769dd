/*
 * micro_auth.c - nanoseconds to check a token, to refuse one, and to sign one.
 *
 * Method: each case runs for ROUNDS rounds of REPEATS; the quickest round counts, since whatever
 *         else the machine does only ever adds. The bare HMAC-SHA-256 of the same bytes shows what
 *         of it libjwt and the claims add.
 */
#include "core/check.h"
#include "shard/auth.h"
#include "tests/shard/jwt_maker.h"

#include <inttypes.h>
#include <time.h>

#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define CLAIMS                                                                                     \
    "{\"aud\":\"damso\",\"exp\":1900000000,\"iat\":1899999100,\"iss\":\"damso\","                  \
    "\"name\":\"Ann\",\"sub\":\"u-0123456789abcdef\""

enum { ROUNDS = 200, REPEATS = 500, NOW = 1899999200 };

static const char key_text[] = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
static struct config config;
static struct auth auth;

static uint64_t check(struct slice token)
{
    struct auth_claims claims = {0};
    const enum auth_result result = auth_check(&auth, token, NOW, &claims);

    return (uint64_t)result + claims.sub_size;
}

static uint64_t sign(struct slice name)
{
    char token[TOKEN_MAX];
    const int size = auth_sign(&auth, SLICE("u-0123456789abcdef"), name, NOW, token, sizeof(token));

    CHECK(size > 0);
    return (uint8_t)token[size - 1];
}

static uint64_t bare_hash(struct slice token)
{
    unsigned char signature[EVP_MAX_MD_SIZE];
    unsigned int size = 0;

    CHECK(HMAC(EVP_sha256(), auth.key, AUTH_KEY_SIZE, (const unsigned char *)token.data, token.size,
               signature, &size) != NULL);
    return signature[0];
}

static uint64_t now_ns(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void measure(const char *name, uint64_t (*work)(struct slice), struct slice input)
{
    uint64_t best = UINT64_MAX;
    uint64_t sum = 0;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t begin = now_ns();
        for (uint32_t i = 0; i < REPEATS; i++) {
            sum += work(input);
        }
        const uint64_t spent = now_ns() - begin;
        best = spent < best ? spent : best;
    }
    printf("%-36s %4" PRIu32 " bytes %9.1f ns (sum %" PRIu64 ")\n", name, input.size,
           (double)best / REPEATS, sum);
}

/* What costs libjwt most: it builds the claims in memory before it looks at the signature. */
static struct slice costly(void)
{
    static char room[2 * TOKEN_MAX];
    static char claims[TOKEN_MAX];
    uint32_t size = (uint32_t)snprintf(claims, sizeof(claims), "%s,\"x\":[{}", CLAIMS);

    while (size < 2900) {
        memcpy(claims + size, ",{}", 3);
        size += 3;
    }
    memcpy(claims + size, "]}", 2);
    return jwt_make(room, "another", EVP_sha256(), SLICE(HEADER), (struct slice){claims, size + 2});
}

int main(void)
{
    static char good[TOKEN_MAX];
    static char forged[TOKEN_MAX];
    static char other[TOKEN_MAX];

    config_defaults(&config);
    auth.config = &config;
    memcpy(auth.key, key_text, sizeof(auth.key));
    const struct slice token =
        jwt_make(good, key_text, EVP_sha256(), SLICE(HEADER), SLICE(CLAIMS "}"));
    measure("check: good", check, token);
    measure("check: signed with another key", check,
            jwt_make(forged, "another", EVP_sha256(), SLICE(HEADER), SLICE(CLAIMS "}")));
    measure("check: the same, large, all objects", check, costly());
    measure("check: of another algorithm", check,
            jwt_make(other, key_text, EVP_sha512(), SLICE("{\"alg\":\"HS512\",\"typ\":\"JWT\"}"),
                     SLICE(CLAIMS "}")));
    measure("sign", sign, SLICE("Ann"));
    measure("only HMAC-SHA-256 by OpenSSL", bare_hash, token);
    return 0;
}
