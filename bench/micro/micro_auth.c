/*
 * micro_auth.c - nanoseconds to check a token, to refuse one, and to sign one.
 *
 * Method: each case runs for ROUNDS rounds of REPEATS; the quickest round counts, since whatever
 *         else the machine does only ever adds. The bare HMAC-SHA-256 of the same bytes shows what
 *         of it libjwt and the claims add.
 */
#include "core/check.h"
#include "core/json.h"
#include "shard/auth.h"

#include <inttypes.h>
#include <openssl/hmac.h>
#include <time.h>

/* {"alg":"HS256","typ":"JWT"} and the same with HS512, in base64url. */
#define HEADER_HS256 "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
#define HEADER_HS512 "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9"

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

/* What costs libjwt most: it builds the claims in memory before it looks at the signature. These
 * are {"x":[{},{},...{}]}. */
static struct slice costly(void)
{
    static char room[TOKEN_MAX];
    struct json_writer writer = json_writer_on(room, sizeof(room));

    JSON_WRITE(&writer, HEADER_HS256 ".eyJ4Ijpb");
    for (uint32_t i = 0; i < 980; i++) {
        JSON_WRITE(&writer, "e30s");
    }
    JSON_WRITE(&writer, "e31dfQ.");
    for (uint32_t i = 0; i < 43; i++) {
        JSON_WRITE(&writer, "A");
    }
    CHECK(!writer.overflow);
    return json_written(&writer);
}

int main(void)
{
    static char good[TOKEN_MAX];
    static char forged[TOKEN_MAX];
    static char other[TOKEN_MAX];

    config_defaults(&config);
    auth.config = &config;
    memcpy(auth.key, key_text, sizeof(auth.key));
    const int size =
        auth_sign(&auth, SLICE("u-0123456789abcdef"), SLICE("Ann"), NOW, good, sizeof(good));
    CHECK(size > 0 && memcmp(good, HEADER_HS256, sizeof(HEADER_HS256) - 1) == 0);
    memcpy(forged, good, sizeof(good));
    forged[size - 2] = forged[size - 2] == 'A' ? 'B' : 'A';
    memcpy(other, good, sizeof(good));
    memcpy(other, HEADER_HS512, sizeof(HEADER_HS512) - 1);

    measure("check: good", check, (struct slice){good, (uint32_t)size});
    measure("check: forged", check, (struct slice){forged, (uint32_t)size});
    measure("check: forged, large, all objects", check, costly());
    measure("check: of another algorithm", check, (struct slice){other, (uint32_t)size});
    measure("sign", sign, SLICE("Ann"));
    measure("only HMAC-SHA-256 by OpenSSL", bare_hash, (struct slice){good, (uint32_t)size});
    return 0;
}
