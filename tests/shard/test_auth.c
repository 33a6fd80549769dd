/*
 * test_auth.c - a token is good only if our key made it with HS256, for us, now, and for somebody;
 * the key is made once, kept from others, and refused with words that help.
 *
 * Method: tokens come from OpenSSL's HMAC (jwt_maker.h), not from the code that checks them;
 *         each wrong one differs from a good one in one thing. Key files are real ones, in a
 *         directory of their own.
 */
#include "core/check.h"
#include "shard/auth.h"
#include "tests/shard/jwt_maker.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define WHOSE  "\"iss\":\"damso\",\"aud\":\"damso\",\"sub\":\"u1\""
#define GOOD   "{" WHOSE ",\"name\":\"Ann\",\"exp\":1900}"

enum { NOW = 1000, LEEWAY = 30, WHY_SIZE = 512 };

static const char key_text[] = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
static struct config config;
static struct auth auth;
static struct auth_claims claims;
static char room[8 * TOKEN_MAX];
static char why[WHY_SIZE];

static void begin(void)
{
    config_defaults(&config);
    config.auth_leeway = UINT64_C(1000) * LEEWAY;
    auth.config = &config;
    memcpy(auth.key, key_text, sizeof(auth.key));
    memset(&claims, 0xA5, sizeof(claims));
}

static struct slice slice(const char *text)
{
    return (struct slice){text, (uint32_t)strlen(text)};
}

static enum auth_result check_token_at(struct slice token, uint64_t now_s)
{
    uint8_t before[sizeof(claims)];

    memset(&claims, 0xA5, sizeof(claims));
    memset(before, 0xA5, sizeof(before));
    const enum auth_result result = auth_check(&auth, token, now_s, &claims);
    CHECK(result == AUTH_OK || memcmp(before, (const void *)&claims, sizeof(before)) == 0);
    return result;
}

static enum auth_result check_token(struct slice token)
{
    return check_token_at(token, NOW);
}

/* Of a token of ours with those claims. */
static enum auth_result check_claims_at(const char *payload, uint64_t now_s)
{
    const struct slice token =
        jwt_make(room, key_text, EVP_sha256(), SLICE(HEADER), slice(payload));
    return check_token_at(token, now_s);
}

static enum auth_result check_claims(const char *payload)
{
    return check_claims_at(payload, NOW);
}

static enum auth_result check_header(const char *header)
{
    return check_token(jwt_make(room, key_text, EVP_sha256(), slice(header), SLICE(GOOD)));
}

static bool sub_is(const char *text)
{
    return slice_equal((struct slice){claims.sub, claims.sub_size}, slice(text));
}

static bool name_is(const char *text)
{
    return slice_equal((struct slice){claims.name, claims.name_size}, slice(text));
}

/* --- whose signature --- */

static void a_good_token_says_who_and_until_when(void)
{
    begin();
    CHECK(check_claims(GOOD) == AUTH_OK);
    CHECK(sub_is("u1"));
    CHECK(name_is("Ann"));
    CHECK(claims.expires == 1900);
    CHECK(check_claims("{" WHOSE ",\"name\":\"\xec\x95\x88\\u00e9\\ud83d\\ude00\",\"exp\":1900,"
                       "\"role\":{\"a\":[1,2]},\"jti\":null}") == AUTH_OK);
    CHECK(name_is("\xec\x95\x88\xc3\xa9\xf0\x9f\x98\x80"));
}

static void another_algorithm_is_refused_though_the_key_is_ours(void)
{
    static const struct slice payload = SLICE(GOOD);
    begin();
    const char *const headers[] = {"{\"alg\":\"HS384\"}", "{\"alg\":\"HS512\"}",
                                   "{\"alg\":\"RS256\"}", "{\"alg\":\"ES256\"}",
                                   "{\"alg\":\"none\"}",  "{\"alg\":\"None\"}"};
    const EVP_MD *const hashes[] = {NULL, EVP_sha256(), EVP_sha384(), EVP_sha512()};
    for (uint32_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        for (uint32_t j = 0; j < sizeof(hashes) / sizeof(hashes[0]); j++) {
            CHECK(check_token(jwt_make(room, key_text, hashes[j], slice(headers[i]), payload)) ==
                  AUTH_INVALID);
        }
    }
    /* What the header says is HS256, and the signature is another or none. */
    CHECK(check_token(jwt_make(room, key_text, EVP_sha384(), SLICE(HEADER), payload)) ==
          AUTH_INVALID);
    CHECK(check_token(jwt_make(room, key_text, EVP_sha512(), SLICE(HEADER), payload)) ==
          AUTH_INVALID);
    CHECK(check_token(jwt_make(room, key_text, NULL, SLICE(HEADER), payload)) == AUTH_INVALID);
}

static void a_header_is_json_that_says_hs256_and_nothing_critical(void)
{
    begin();
    CHECK(check_header("{\"alg\":\"HS256\"}") == AUTH_OK);
    CHECK(check_header("{\"typ\":\"JWT\",\"kid\":\"1\",\"alg\":\"HS256\"}") == AUTH_OK);
    CHECK(check_header("{\"alg\":\"HS\\u003256\"}") == AUTH_OK);

    const char *const wrong[] = {"{}",
                                 "",
                                 "HS256",
                                 "[\"alg\",\"HS256\"]",
                                 "{\"typ\":\"JWT\"}",
                                 "{\"alg\":\"hs256\"}",
                                 "{\"alg\":\"HS256 \"}",
                                 "{\"alg\":\"HS256\\u0000\"}",
                                 "{\"alg\":\"\"}",
                                 "{\"alg\":256}",
                                 "{\"alg\":null}",
                                 "{\"alg\":[\"HS256\"]}",
                                 "{\"ALG\":\"HS256\"}",
                                 "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
                                 "{\"alg\":\"none\",\"alg\":\"HS256\"}",
                                 "{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}",
                                 "{\"alg\":\"HS256\",\"crit\":[]}",
                                 "{\"alg\":\"HS256\",\"crit\":null}",
                                 "{\"alg\":\"HS256\"",
                                 "{\"alg\":\"HS256\"}x",
                                 "{\"alg\":\"HS256\",}"};
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_header(wrong[i]) == AUTH_INVALID);
    }
}

static void another_key_is_refused(void)
{
    char other[AUTH_KEY_SIZE + 1];

    begin();
    memcpy(other, key_text, sizeof(other));
    for (uint32_t i = 0; i < AUTH_KEY_SIZE; i++) {
        other[i] = (char)(other[i] ^ 1);
        CHECK(check_token(jwt_make(room, other, EVP_sha256(), SLICE(HEADER), SLICE(GOOD))) ==
              AUTH_INVALID);
        other[i] = (char)(other[i] ^ 1);
    }
    CHECK(check_token(jwt_make(room, "", EVP_sha256(), SLICE(HEADER), SLICE(GOOD))) ==
          AUTH_INVALID);
    CHECK(check_token(jwt_make(room, other, EVP_sha256(), SLICE(HEADER), SLICE(GOOD))) == AUTH_OK);
}

static void a_token_changed_or_cut_at_any_byte_is_refused(void)
{
    begin();
    const struct slice token = jwt_make(room, key_text, EVP_sha256(), SLICE(HEADER), SLICE(GOOD));
    for (uint32_t i = 0; i < token.size; i++) {
        const char old = room[i];
        for (uint32_t to = 0; to < 256; to++) {
            room[i] = (char)to;
            CHECK(check_token(token) == ((char)to == old ? AUTH_OK : AUTH_INVALID));
        }
        room[i] = old;
        CHECK(check_token((struct slice){room, i}) == AUTH_INVALID);
    }
    memcpy(room + token.size, "A.A", 3);
    for (uint32_t more = 1; more <= 3; more++) {
        CHECK(check_token((struct slice){room, token.size + more}) == AUTH_INVALID);
    }
    room[token.size] = '\0'; /* where libjwt would stop */
    CHECK(check_token((struct slice){room, token.size + 3}) == AUTH_INVALID);
    CHECK(check_token((struct slice){NULL, 0}) == AUTH_INVALID);
}

static void what_has_not_three_parts_of_digits_is_refused(void)
{
    begin();
    const char *const wrong[] = {
        ".",    "..",      "...",          "a",      "a.b",    "a.b.",    ".a.b",
        "a..b", "a.b.c.d", "Bearer a.b.c", "a=.b.c", "a .b.c", "a.b+.c/", "\xed\x95\x9c.b.c"};
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_token(slice(wrong[i])) == AUTH_INVALID);
    }
}

/* Our own key has signed these: what must not pass is the way in which they are written. */
static void digits_that_are_not_as_base64url_has_them_are_refused_though_signed(void)
{
    static const struct slice tails[] = {{"=", 1},   {"==", 2}, {"A", 1},   {"\0", 1},
                                         {"\0=", 2}, {"\n", 1}, {".AA", 3}, {"AA", 2}};
    char payload[256];

    begin();
    for (int blanks = 0; blanks < 3; blanks++) { /* each place of an end in a group of four */
        const int length = snprintf(payload, sizeof(payload), "%s%*s", GOOD, blanks, "");
        const uint32_t size =
            jwt_unsigned(room, SLICE(HEADER), (struct slice){payload, (uint32_t)length});
        CHECK(check_token(jwt_sign(room, size, key_text, EVP_sha256())) == AUTH_OK);
        for (uint32_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
            memcpy(room + size, tails[i].data, tails[i].size);
            CHECK(check_token(jwt_sign(room, size + tails[i].size, key_text, EVP_sha256())) ==
                  AUTH_INVALID);
        }
        room[size - 1]++; /* its last bits mean nothing, or it is another payload */
        CHECK(check_token(jwt_sign(room, size, key_text, EVP_sha256())) == AUTH_INVALID);
    }
}

/* --- size --- */

/* A good token of that size: blanks around its claims fill it up. */
static struct slice token_of_size(uint32_t size)
{
    static char payload[TOKEN_MAX];
    struct slice token = {NULL, 0};
    uint32_t blanks = 0;

    for (blanks = 0; token.size < size; blanks++) {
        memset(payload, ' ', blanks);
        memcpy(payload + blanks, GOOD, sizeof(GOOD) - 1);
        token = jwt_make(room, key_text, EVP_sha256(), SLICE(HEADER),
                         (struct slice){payload, blanks + (uint32_t)sizeof(GOOD) - 1});
    }
    CHECK(token.size == size);
    return token;
}

static void a_token_above_the_maximum_is_refused_unread(void)
{
    begin();
    CHECK(check_token(token_of_size(TOKEN_MAX)) == AUTH_OK);
    CHECK(check_token(token_of_size(TOKEN_MAX + 1)) == AUTH_INVALID);

    const uint32_t size = 1 << 20;
    char *unreadable = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(unreadable != MAP_FAILED);
    CHECK(check_token((struct slice){unreadable, size}) == AUTH_INVALID);
    CHECK(munmap(unreadable, size) == 0);
}

/* --- when --- */

static void a_token_ends_at_exp_and_leeway_to_the_second(void)
{
    begin();
    CHECK(check_claims_at(GOOD, 1900) == AUTH_OK);
    CHECK(check_claims_at(GOOD, 1900 + LEEWAY - 1) == AUTH_OK);
    CHECK(check_claims_at(GOOD, 1900 + LEEWAY) == AUTH_EXPIRED);
    CHECK(check_claims_at(GOOD, UINT32_MAX) == AUTH_EXPIRED);
    config.auth_leeway = 0;
    CHECK(check_claims_at(GOOD, 1899) == AUTH_OK);
    CHECK(check_claims_at(GOOD, 1900) == AUTH_EXPIRED);
}

static void a_token_begins_at_nbf_less_leeway_to_the_second(void)
{
    static const char payload[] = "{" WHOSE ",\"nbf\":1500,\"exp\":1900}";

    begin();
    CHECK(check_claims_at(payload, 1500) == AUTH_OK);
    CHECK(check_claims_at(payload, 1500 - LEEWAY) == AUTH_OK);
    CHECK(check_claims_at(payload, 1500 - LEEWAY - 1) == AUTH_INVALID);
    config.auth_leeway = 0;
    CHECK(check_claims_at(payload, 1500) == AUTH_OK);
    CHECK(check_claims_at(payload, 1499) == AUTH_INVALID);
}

static void times_are_whole_numbers(void)
{
    begin();
    CHECK(check_claims("{" WHOSE ",\"exp\":9223372036854775807}") == AUTH_OK);
    CHECK(claims.expires == INT64_MAX);
    CHECK(check_claims("{" WHOSE ",\"exp\":1900,\"nbf\":-9223372036854775808}") == AUTH_OK);
    CHECK(check_claims("{" WHOSE ",\"exp\":0}") == AUTH_EXPIRED);
    CHECK(check_claims("{" WHOSE ",\"exp\":-1}") == AUTH_EXPIRED);
    CHECK(check_claims_at("{" WHOSE ",\"exp\":-1}", 0) == AUTH_EXPIRED);
    CHECK(check_claims("{" WHOSE ",\"exp\":-9223372036854775808}") == AUTH_EXPIRED);

    const char *const wrong[] = {"{" WHOSE "}",
                                 "{" WHOSE ",\"exp\":1900.0}",
                                 "{" WHOSE ",\"exp\":1.9e3}",
                                 "{" WHOSE ",\"exp\":9223372036854775808}",
                                 "{" WHOSE ",\"exp\":\"1900\"}",
                                 "{" WHOSE ",\"exp\":null}",
                                 "{" WHOSE ",\"exp\":true}",
                                 "{" WHOSE ",\"exp\":[1900]}",
                                 "{" WHOSE ",\"exp\":1,\"exp\":1900}",
                                 "{" WHOSE ",\"exp\":1900,\"nbf\":\"1\"}",
                                 "{" WHOSE ",\"exp\":1900,\"nbf\":1.5}",
                                 "{" WHOSE ",\"exp\":1900,\"nbf\":null}",
                                 "{" WHOSE ",\"exp\":1900,\"nbf\":9223372036854775807}"};
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_claims(wrong[i]) == AUTH_INVALID);
    }
}

static void expired_is_said_only_of_what_was_good(void)
{
    begin();
    const struct slice old =
        jwt_make(room, key_text, EVP_sha256(), SLICE(HEADER), SLICE("{" WHOSE ",\"exp\":1}"));
    CHECK(check_token(old) == AUTH_EXPIRED);
    room[old.size - 2] = room[old.size - 2] == 'A' ? 'B' : 'A';
    CHECK(check_token(old) == AUTH_INVALID);
    CHECK(check_claims("{\"iss\":\"x\",\"aud\":\"damso\",\"sub\":\"u\",\"exp\":1}") ==
          AUTH_INVALID);
    CHECK(check_claims("{\"iss\":\"damso\",\"aud\":\"x\",\"sub\":\"u\",\"exp\":1}") ==
          AUTH_INVALID);
    CHECK(check_claims("{\"iss\":\"damso\",\"aud\":\"damso\",\"sub\":\"\",\"exp\":1}") ==
          AUTH_INVALID);
}

/* --- from whom, for whom --- */

static enum auth_result check_iss_aud(const char *iss, const char *aud)
{
    char payload[256];

    (void)snprintf(payload, sizeof(payload), "{%s%s\"sub\":\"u1\",\"exp\":1900}", iss, aud);
    return check_claims(payload);
}

static void the_issuer_is_the_one_configured(void)
{
    static const char aud[] = "\"aud\":\"damso\",";
    const char *const wrong[] = {"",
                                 "\"iss\":\"dams\",",
                                 "\"iss\":\"damsos\",",
                                 "\"iss\":\"Damso\",",
                                 "\"iss\":\"damso\\u0000\",",
                                 "\"iss\":[\"damso\"],",
                                 "\"iss\":null,",
                                 "\"iss\":\"x\",\"iss\":\"damso\","};
    begin();
    CHECK(check_iss_aud("\"iss\":\"damso\",", aud) == AUTH_OK);
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_iss_aud(wrong[i], aud) == AUTH_INVALID);
    }
    (void)snprintf(config.auth_issuer, sizeof(config.auth_issuer), "https://id.example.org");
    CHECK(check_iss_aud("\"iss\":\"https:\\/\\/id.example.org\",", aud) == AUTH_OK);
    CHECK(check_iss_aud("\"iss\":\"damso\",", aud) == AUTH_INVALID);
}

static void the_audience_is_ours_or_has_us_among_it(void)
{
    static const char iss[] = "\"iss\":\"damso\",";
    const char *const good[] = {"\"aud\":\"damso\",", "\"aud\":[\"damso\"],",
                                "\"aud\":[\"a\",\"damso\",\"b\"],"};
    const char *const wrong[] = {"",
                                 "\"aud\":\"other\",",
                                 "\"aud\":\"damsox\",",
                                 "\"aud\":[],",
                                 "\"aud\":[\"other\"],",
                                 "\"aud\":[\"damso\",1],",
                                 "\"aud\":[1,\"damso\"],",
                                 "\"aud\":[[\"damso\"]],",
                                 "\"aud\":{\"damso\":1},",
                                 "\"aud\":null,",
                                 "\"aud\":\"damso\",\"aud\":\"damso\","};
    begin();
    for (uint32_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        CHECK(check_iss_aud(iss, good[i]) == AUTH_OK);
    }
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_iss_aud(iss, wrong[i]) == AUTH_INVALID);
    }
    (void)snprintf(config.auth_audience, sizeof(config.auth_audience), "chat");
    CHECK(check_iss_aud(iss, "\"aud\":\"damso\",") == AUTH_INVALID);
    CHECK(check_iss_aud(iss, "\"aud\":\"chat\",") == AUTH_OK);
}

static void claims_that_are_no_json_object_are_refused(void)
{
    const char *const wrong[] = {"null",
                                 "[]",
                                 "1",
                                 "{",
                                 GOOD "x",
                                 GOOD GOOD,
                                 "{" WHOSE ",}",
                                 "{" WHOSE ",\"exp\":1900,\"x\":\"\xff\"}"};
    begin();
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_claims(wrong[i]) == AUTH_INVALID);
    }
}

/* --- who --- */

/* Of a token with that sub and name, both as JSON, "" for none. */
static enum auth_result check_who(const char *sub, const char *name)
{
    char payload[2048];

    (void)snprintf(payload, sizeof(payload),
                   "{\"iss\":\"damso\",\"aud\":\"damso\",\"exp\":1900%s%s%s%s}",
                   *sub != '\0' ? ",\"sub\":" : "", sub, *name != '\0' ? ",\"name\":" : "", name);
    return check_claims(payload);
}

/* count times the text, in quotes; one at a time. */
static const char *times(uint32_t count, const char *text)
{
    static char quoted[1024];
    uint32_t size = 0;

    quoted[size++] = '"';
    for (uint32_t i = 0; i < count; i++) {
        memcpy(quoted + size, text, strlen(text));
        size += (uint32_t)strlen(text);
    }
    quoted[size++] = '"';
    quoted[size] = '\0';
    return quoted;
}

static void a_sub_is_1_to_64_bytes_without_control_characters(void)
{
    const char *const wrong[] = {"",
                                 "\"\"",
                                 "1",
                                 "null",
                                 "[\"u\"]",
                                 "\"a\\u0000b\"",
                                 "\"a\\nb\"",
                                 "\"\\u007f\"",
                                 "\"a\\u0080\"",
                                 "\"\\u009f\"",
                                 "\"u\",\"sub\":\"v\""};
    begin();
    CHECK(check_who("\"a\"", "") == AUTH_OK);
    CHECK(sub_is("a"));
    CHECK(check_who("\"\\u00a0 b\"", "") == AUTH_OK);
    CHECK(check_who(times(64, "x"), "") == AUTH_OK);
    CHECK(claims.sub_size == 64);
    CHECK(check_who(times(65, "x"), "") == AUTH_INVALID);
    CHECK(check_who(times(32, "\\u00e9"), "") == AUTH_OK);
    CHECK(claims.sub_size == 64);
    CHECK(check_who(times(33, "\\u00e9"), "") == AUTH_INVALID);
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_who(wrong[i], "\"Ann\"") == AUTH_INVALID);
    }
}

static void a_name_that_may_be_a_username_is_taken(void)
{
    char widest[CLAIM_NAME_MAX + 1] = "";

    begin();
    CHECK(check_who("\"u1\"", "\"ab\"") == AUTH_OK && name_is("ab"));
    CHECK(check_who("\"u1\"", times(32, "y")) == AUTH_OK && claims.name_size == 32);
    CHECK(check_who("\"u1\"", times(32, "\\ud83d\\ude00")) == AUTH_OK);
    for (size_t i = 0; i < 32; i++) {
        memcpy(widest + 4 * i, "\xf0\x9f\x98\x80", 5);
    }
    CHECK(name_is(widest));
    CHECK(sub_is("u1"));
}

static void without_such_a_name_the_sub_is_the_name(void)
{
    const char *const wrong[] = {"",          "\"\"",         "\"x\"",
                                 "1",         "null",         "[\"Ann\"]",
                                 "\"a\\tb\"", "\"a\\u007f\"", "\"\\u0085bc\""};
    begin();
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(check_who("\"u1\"", wrong[i]) == AUTH_OK);
        CHECK(name_is("u1"));
    }
    CHECK(check_who("\"u1\"", times(33, "y")) == AUTH_OK && name_is("u1"));
    CHECK(check_who("\"u1\"", times(33, "\\ud83d\\ude00")) == AUTH_OK && name_is("u1"));
    CHECK(check_who("\"u1\"", "\"A\",\"name\":\"Ann\"") == AUTH_INVALID); /* which one? */
    CHECK(check_who("\"u1\"", "\"a\\u0000b\"") == AUTH_INVALID); /* libjwt reads no further */
}

static void a_long_sub_is_cut_to_32_characters_for_the_name(void)
{
    begin();
    CHECK(check_who(times(64, "x"), "") == AUTH_OK);
    CHECK(name_is("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
    CHECK(check_who(times(21, "\\uac00"), "") == AUTH_OK);
    CHECK(claims.name_size == 63); /* 21 characters of three bytes stay whole */
    CHECK(check_who("\"\\u00e9xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"", "") == AUTH_OK);
    CHECK(name_is("\xc3\xa9xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
}

/* --- signing --- */

static void what_we_sign_we_accept_for_token_ttl(void)
{
    char token[TOKEN_MAX];
    static const struct slice name = SLICE("\xec\x95\x88 \"\\/");

    begin();
    config.auth_leeway = 0;
    config.auth_token_ttl = 900000;
    const int size = auth_sign(&auth, SLICE("u-7"), name, NOW, token, sizeof(token));
    CHECK(size > 0);
    const struct slice whole = {token, (uint32_t)size};
    CHECK(check_token_at(whole, NOW) == AUTH_OK);
    CHECK(sub_is("u-7"));
    CHECK(slice_equal((struct slice){claims.name, claims.name_size}, name));
    CHECK(claims.expires == NOW + 900);
    CHECK(check_token_at(whole, NOW - 1) == AUTH_OK); /* a shard whose clock is behind */
    CHECK(check_token_at(whole, NOW + 899) == AUTH_OK);
    CHECK(check_token_at(whole, NOW + 900) == AUTH_EXPIRED);
    (void)snprintf(config.auth_audience, sizeof(config.auth_audience), "other");
    CHECK(check_token_at(whole, NOW) == AUTH_INVALID);
}

static void the_longest_names_are_signed(void)
{
    char token[TOKEN_MAX];
    char name[CLAIM_NAME_MAX];
    char id[CLAIM_SUB_MAX];

    begin();
    memset(id, '\\', sizeof(id));
    for (uint32_t i = 0; i < sizeof(name); i += 4) {
        memcpy(name + i, "\xf0\x9f\x98\x80", 4);
    }
    memset(config.auth_issuer, '"', sizeof(config.auth_issuer) - 1);
    memset(config.auth_audience, '"', sizeof(config.auth_audience) - 1);
    const int size = auth_sign(&auth, (struct slice){id, sizeof(id)},
                               (struct slice){name, sizeof(name)}, NOW, token, sizeof(token));
    CHECK(size > 0);
    CHECK(check_token((struct slice){token, (uint32_t)size}) == AUTH_OK);
    CHECK(claims.sub_size == sizeof(id));
    CHECK(memcmp(claims.name, name, sizeof(name)) == 0);
}

static void a_token_that_does_not_fit_is_not_written(void)
{
    char token[TOKEN_MAX];

    begin();
    const int size = auth_sign(&auth, SLICE("u1"), SLICE("Ann"), NOW, token, sizeof(token));
    CHECK(size > 0);
    memset(token, 'x', sizeof(token));
    CHECK(auth_sign(&auth, SLICE("u1"), SLICE("Ann"), NOW, token, (uint32_t)size - 1) == -ENOSPC);
    CHECK(token[0] == 'x');
    CHECK(auth_sign(&auth, SLICE("u1"), SLICE("Ann"), NOW, token, 0) == -ENOSPC);
    CHECK(auth_sign(&auth, SLICE("u1"), SLICE("Ann"), NOW, token, (uint32_t)size) == size);
    CHECK(token[size] == 'x'); /* no terminating zero */
    CHECK(auth_sign(&auth, SLICE("u\0001"), SLICE("Ann"), NOW, token, sizeof(token)) == -EINVAL);
    CHECK(auth_sign(&auth, SLICE("u1"), (struct slice){room, CLAIM_NAME_MAX + 1}, NOW, token,
                    sizeof(token)) == -EINVAL);
}

/* --- the key file --- */

static char directory[CONFIG_TEXT_SIZE];

static const char *path_of(const char *name)
{
    static char path[CONFIG_TEXT_SIZE + 32];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static int open_key(void)
{
    config_defaults(&config);
    memcpy(config.server_data, directory, sizeof(directory));
    memset(&auth, 0, sizeof(auth));
    (void)snprintf(why, sizeof(why), "untouched");
    return auth_open(&auth, &config, why, sizeof(why));
}

static void put_file(const char *name, const char *text, mode_t mode)
{
    (void)unlink(path_of(name));
    FILE *file = fopen(path_of(name), "we");
    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK(fclose(file) == 0);
    CHECK(chmod(path_of(name), mode) == 0);
}

/* The key is refused with that error, in words that name the file and have all the others. */
static void refused(int error, const char *words, const char *mend)
{
    CHECK(open_key() == error);
    CHECK(strstr(why, path_of("jwt.key")) != NULL);
    CHECK(strstr(why, words) != NULL);
    CHECK(strstr(why, mend) != NULL);
}

static void a_key_is_made_once_for_its_owner_alone(void)
{
    char first[AUTH_KEY_SIZE + 1];
    struct stat facts;

    (void)unlink(path_of("jwt.key"));
    const mode_t mask = umask(0);
    CHECK(open_key() == 0);
    (void)umask(mask);
    CHECK(strcmp(why, "untouched") == 0);
    CHECK(stat(path_of("jwt.key"), &facts) == 0);
    CHECK((facts.st_mode & 07777) == 0600);
    CHECK(facts.st_size == AUTH_KEY_SIZE + 1);
    CHECK(strlen(auth.key) == AUTH_KEY_SIZE);
    CHECK(strspn(auth.key, "0123456789abcdef") == AUTH_KEY_SIZE);
    CHECK(access(path_of("jwt.key.new"), F_OK) < 0);

    memcpy(first, auth.key, sizeof(first));
    CHECK(open_key() == 0);
    CHECK(memcmp(first, auth.key, sizeof(first)) == 0); /* kept */
    CHECK(unlink(path_of("jwt.key")) == 0);
    CHECK(open_key() == 0);
    CHECK(memcmp(first, auth.key, sizeof(first)) != 0); /* another one */
}

static void the_characters_in_the_file_are_the_key(void)
{
    char line[AUTH_KEY_SIZE + 1];

    CHECK(open_key() == 0);
    FILE *file = fopen(path_of("jwt.key"), "re"); /* as a loader does, or a team's own sign-in */
    CHECK(file != NULL);
    CHECK(fgets(line, sizeof(line), file) == line);
    CHECK(fclose(file) == 0);
    CHECK(check_token(jwt_make(room, line, EVP_sha256(), SLICE(HEADER), SLICE(GOOD))) == AUTH_OK);
}

static void a_key_of_64_hex_characters_is_read(void)
{
    char line[AUTH_KEY_SIZE + 2];

    (void)snprintf(line, sizeof(line), "%s\n", key_text);
    put_file("jwt.key", line, 0600);
    CHECK(open_key() == 0);
    CHECK(strcmp(auth.key, key_text) == 0);
    put_file("jwt.key", key_text, 0400);
    CHECK(open_key() == 0);
    CHECK(strcmp(auth.key, key_text) == 0);
}

static void a_file_that_holds_no_key_is_refused(void)
{
    const char *const wrong[] = {
        "",
        "\n",
        "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcde\n",
        "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef0",
        "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef\n\n",
        "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef\r\n",
        "00112233445566778899AABBCCDDEEFF0123456789abcdef0123456789abcdef\n",
        "00112233445566778899aabbccddeefg0123456789abcdef0123456789abcdef\n",
        " 0112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef\n"};
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        put_file("jwt.key", wrong[i], 0600);
        refused(-EBADMSG, "64 lower-case hex", "remove it");
        CHECK(auth.key[0] == '\0');
    }
}

static void a_key_that_others_may_touch_is_refused(void)
{
    const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0601, 0644, 0666};
    char mend[CONFIG_TEXT_SIZE + 64];

    (void)snprintf(mend, sizeof(mend), "chmod 600 %s", path_of("jwt.key"));
    for (uint32_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        put_file("jwt.key", key_text, modes[i]);
        refused(-EPERM, "lets other users", mend);
        CHECK(auth.key[0] == '\0');
    }
    CHECK(strstr(why, "mode 0666") != NULL);
}

static void what_is_no_plain_file_is_refused_at_once(void)
{
    char target[CONFIG_TEXT_SIZE + 32];

    put_file("elsewhere", key_text, 0600);
    (void)snprintf(target, sizeof(target), "%s", path_of("elsewhere"));
    CHECK(unlink(path_of("jwt.key")) == 0);
    CHECK(symlink(target, path_of("jwt.key")) == 0);
    refused(-ELOOP, "symbolic link", "put the key file itself there");
    CHECK(unlink(path_of("jwt.key")) == 0);
    CHECK(symlink("nothing", path_of("jwt.key")) == 0); /* and no key is made through it */
    refused(-ELOOP, "symbolic link", "put the key file itself there");
    CHECK(unlink(path_of("jwt.key")) == 0);
    CHECK(mkfifo(path_of("jwt.key"), 0600) == 0); /* nobody writes: reading would wait */
    refused(-EBADMSG, "not a file", "move it away");
    CHECK(unlink(path_of("jwt.key")) == 0);
    CHECK(mkdir(path_of("jwt.key"), 0700) == 0);
    refused(-EBADMSG, "not a file", "move it away");
    CHECK(rmdir(path_of("jwt.key")) == 0);
    CHECK(unlink(path_of("elsewhere")) == 0);
}

static void what_a_failed_start_left_behind_is_replaced(void)
{
    put_file("jwt.key.new", "half", 0644);
    CHECK(open_key() == 0);
    CHECK(access(path_of("jwt.key.new"), F_OK) < 0);
    CHECK(strlen(auth.key) == AUTH_KEY_SIZE);
    CHECK(open_key() == 0);
    CHECK(unlink(path_of("jwt.key")) == 0);
}

static void a_key_that_cannot_be_made_or_read_is_told(void)
{
    char parent[CONFIG_TEXT_SIZE];

    memcpy(parent, directory, sizeof(parent));
    (void)snprintf(directory, sizeof(directory), "%.200s/missing", parent);
    refused(-ENOENT, "cannot be made", "write in");
    memcpy(directory, parent, sizeof(directory));

    if (geteuid() == 0) { /* else the directory is ours, and nothing is kept from us */
        put_file("jwt.key", key_text, 0600);
        CHECK(chmod(directory, 0755) == 0);
        CHECK(seteuid(65534) == 0);
        refused(-EACCES, "cannot be read", "chown");
        CHECK(seteuid(0) == 0);
        CHECK(unlink(path_of("jwt.key")) == 0);
        CHECK(seteuid(65534) == 0);
        refused(-EACCES, "cannot be made", "write in");
        CHECK(seteuid(0) == 0);
    }
}

static void with_a_directory(void)
{
    const char *parent = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): one thread */

    (void)snprintf(directory, sizeof(directory), "%.200s/test_auth.XXXXXX",
                   parent != NULL ? parent : P_tmpdir);
    CHECK(mkdtemp(directory) != NULL);
    a_key_is_made_once_for_its_owner_alone();
    the_characters_in_the_file_are_the_key();
    a_key_of_64_hex_characters_is_read();
    a_file_that_holds_no_key_is_refused();
    a_key_that_others_may_touch_is_refused();
    what_is_no_plain_file_is_refused_at_once();
    what_a_failed_start_left_behind_is_replaced();
    a_key_that_cannot_be_made_or_read_is_told();
    CHECK(rmdir(directory) == 0); /* nothing else was left in it */
}

int main(void)
{
    a_good_token_says_who_and_until_when();
    another_algorithm_is_refused_though_the_key_is_ours();
    a_header_is_json_that_says_hs256_and_nothing_critical();
    another_key_is_refused();
    a_token_changed_or_cut_at_any_byte_is_refused();
    what_has_not_three_parts_of_digits_is_refused();
    digits_that_are_not_as_base64url_has_them_are_refused_though_signed();
    a_token_above_the_maximum_is_refused_unread();
    a_token_ends_at_exp_and_leeway_to_the_second();
    a_token_begins_at_nbf_less_leeway_to_the_second();
    times_are_whole_numbers();
    expired_is_said_only_of_what_was_good();
    the_issuer_is_the_one_configured();
    the_audience_is_ours_or_has_us_among_it();
    claims_that_are_no_json_object_are_refused();
    a_sub_is_1_to_64_bytes_without_control_characters();
    a_name_that_may_be_a_username_is_taken();
    without_such_a_name_the_sub_is_the_name();
    a_long_sub_is_cut_to_32_characters_for_the_name();
    what_we_sign_we_accept_for_token_ttl();
    the_longest_names_are_signed();
    a_token_that_does_not_fit_is_not_written();
    with_a_directory();
    puts("30 passed, 0 failed");
    return 0;
}
