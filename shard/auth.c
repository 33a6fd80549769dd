/*
 * auth.c - see auth.h for the invariants A1 and A2 named below. The only file that knows libjwt.
 *
 * DESIGN  libjwt 1.10 makes and verifies signatures, and decides nothing: it would take the
 *         algorithm from the token, and does not look at exp. So a token is first taken apart here
 *         (its alphabet, its header), then libjwt verifies it, then the claims are read here, by
 *         the strict reader that all of damso uses.
 */
#include "shard/auth.h"

#include "core/check.h"
#include "core/json.h"
#include "core/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <jwt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    KEY_PATH_SIZE = CONFIG_TEXT_SIZE + 16, /* DATA, and a name of ours */
    SIGNATURE_SIZE = 43,                   /* 32 bytes of HMAC-SHA-256 in base64url */
    NAME_CHARACTERS_MIN = 2,
    NAME_CHARACTERS_MAX = 32,
};

/* --- the key file --- */

static bool is_key(const char *text, int64_t size)
{
    if (size != AUTH_KEY_SIZE && !(size == AUTH_KEY_SIZE + 1 && text[AUTH_KEY_SIZE] == '\n')) {
        return false;
    }
    for (uint32_t i = 0; i < AUTH_KEY_SIZE; i++) {
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f'))) {
            return false;
        }
    }
    return true;
}

static int refuse_open(const char *path, int error, char *ret_why, size_t why_size)
{
    const char *mend = "";

    if (error == -ELOOP) {
        (void)snprintf(ret_why, why_size,
                       "%s: is a symbolic link; put the key file itself there, so that nobody can "
                       "point it elsewhere",
                       path);
        return error;
    }
    if (error == -EACCES) {
        mend = "; make it belong to the user that damsod runs as: chown USER ";
    }
    (void)snprintf(ret_why, why_size, "%s: cannot be read: %s%s%s", path, os_error(error), mend,
                   *mend != '\0' ? path : "");
    return error;
}

/* The open file must be a plain one that its owner alone may use. */
static int check_file(int file, const char *path, char *ret_why, size_t why_size)
{
    struct stat facts;

    if (fstat(file, &facts) < 0) {
        return refuse_open(path, -errno, ret_why, why_size);
    }
    if (!S_ISREG(facts.st_mode)) {
        (void)snprintf(ret_why, why_size, "%s: is not a file; move it away, a key is made then",
                       path);
        return -EBADMSG;
    }
    if ((facts.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        (void)snprintf(ret_why, why_size,
                       "%s: mode %04o lets other users at the key that signs all tokens; "
                       "chmod 600 %s, or remove it if somebody may have read it",
                       path, (unsigned int)(facts.st_mode & 07777), path);
        return -EPERM;
    }
    return 0;
}

/* 0, -ENOENT without a sentence, or another -errno with one. Not by os_file_open, which follows
 * links; without waiting, should it be a pipe. */
static int read_key(struct auth *auth, const char *path, char *ret_why, size_t why_size)
{
    char text[AUTH_KEY_SIZE + 2];
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (file < 0) {
        return errno == ENOENT ? -ENOENT : refuse_open(path, -errno, ret_why, why_size);
    }
    int error = check_file(file, path, ret_why, why_size);
    if (error == 0) {
        const int64_t size = os_file_read(file, text, sizeof(text), 0);
        if (size < 0) {
            error = refuse_open(path, (int)size, ret_why, why_size);
        } else if (!is_key(text, size)) {
            (void)snprintf(ret_why, why_size,
                           "%s: is not one line of 64 lower-case hex characters; put it back from "
                           "a backup, or remove it: a new key is made then, and all sign in again",
                           path);
            error = -EBADMSG;
        }
    }
    os_file_close(file);
    if (error == 0) {
        memcpy(auth->key, text, AUTH_KEY_SIZE);
        auth->key[AUTH_KEY_SIZE] = '\0';
    }
    return error;
}

/* A line of 64 hex characters: 32 unpredictable bytes, the size of the hash (RFC 7518 section 3.2
 * wants at least that of a key). */
static void make_line(char line[AUTH_KEY_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[AUTH_KEY_SIZE / 2];

    os_random(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        line[2 * i] = digits[bytes[i] >> 4];
        line[2 * i + 1] = digits[bytes[i] & 15];
    }
    line[AUTH_KEY_SIZE] = '\n';
}

/* The line in a new file of that name, on disk. One left behind by a failed start was never used.
 */
static int write_line(const char *path, const char line[AUTH_KEY_SIZE + 1])
{
    int error = os_file_remove(path);

    if (error < 0 && error != -ENOENT) {
        return error;
    }
    const int file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_CREATE); /* mode 0600 */
    if (file < 0) {
        return file;
    }
    error = os_file_write(file, line, AUTH_KEY_SIZE + 1, 0);
    if (error == 0) {
        error = os_file_sync(file);
    }
    os_file_close(file);
    return error;
}

/* Under its own name only when it is whole and on disk: a token signed with it must be good after
 * the next start too. Two servers do not get here at once: main holds the data directory. */
static int make_key(const struct config *config, const char *path, char *ret_why, size_t why_size)
{
    char line[AUTH_KEY_SIZE + 1];
    char fresh[KEY_PATH_SIZE];

    (void)snprintf(fresh, sizeof(fresh), "%s/jwt.key.new", config->server_data);
    make_line(line);
    int error = write_line(fresh, line);
    if (error == 0) {
        error = os_file_rename(fresh, path);
    }
    if (error == 0) {
        error = os_directory_sync(config->server_data);
    }
    if (error < 0) {
        (void)snprintf(ret_why, why_size,
                       "%s: cannot be made: %s; the user that damsod runs as must be able to "
                       "write in %s, and there must be room",
                       path, os_error(error), config->server_data);
    }
    return error;
}

int auth_open(struct auth *auth, const struct config *config, char *ret_why, size_t why_size)
{
    char path[KEY_PATH_SIZE];

    CHECK(why_size > 0);
    (void)snprintf(path, sizeof(path), "%s/jwt.key", config->server_data);
    auth->config = config;
    int error = read_key(auth, path, ret_why, why_size);
    if (error != -ENOENT) {
        return error;
    }
    error = make_key(config, path, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = read_key(auth, path, ret_why, why_size);
    if (error == -ENOENT) {
        (void)snprintf(ret_why, why_size, "%s: somebody removed it just after it was made", path);
    }
    return error;
}

/* --- the parts of a token --- */

/* The value of each byte as a base64url digit (RFC 4648 section 5) plus 1; 0: not one. */
static const uint8_t digit_of[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64,
};

struct token_parts {
    struct slice header, payload, signature;
};

/* Header, payload and signature of base64url digits only (RFC 7515 section 7.1): so neither padding
 * nor a zero byte, at which libjwt would stop, gets further. */
static bool split(struct slice token, struct token_parts *ret)
{
    struct slice parts[3];
    uint32_t count = 0;
    uint32_t begin = 0;

    for (uint32_t i = 0; i <= token.size; i++) {
        if (i < token.size && token.data[i] != '.') {
            if (digit_of[(uint8_t)token.data[i]] == 0) {
                return false;
            }
            continue;
        }
        if (count == 3) {
            return false;
        }
        parts[count++] = (struct slice){token.data + begin, i - begin};
        begin = i + 1;
    }
    *ret = (struct token_parts){parts[0], parts[1], parts[2]};
    return count == 3 && ret->signature.size == SIGNATURE_SIZE;
}

/* Decodes digits into out, which has room for three bytes for each four of them. Returns the size,
 * or -EBADMSG: a digit alone at the end, or one with bits that mean nothing. */
static int decode(struct slice digits, char *out)
{
    uint32_t bits = 0;
    uint32_t held = 0; /* how many of bits are yet to be written */
    int size = 0;

    for (uint32_t i = 0; i < digits.size; i++) {
        bits = (bits << 6 | (digit_of[(uint8_t)digits.data[i]] - 1U)) & 0xFFFF;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[size++] = (char)(bits >> held & 0xFF);
        }
    }
    return held < 6 && (bits & ((1U << held) - 1)) == 0 ? size : -EBADMSG;
}

/* The members of an object that have one of the names; *ret_seen has a bit for each. The text must
 * be good to its end, and none of the names may come twice. */
static bool read_members(struct slice text, const struct slice *names, uint32_t count,
                         struct json_value *values, uint64_t *ret_seen)
{
    struct json_reader reader;
    struct json_string key;
    struct json_value value;
    int got = json_open_object(&reader, text);

    *ret_seen = 0;
    for (got = got < 0 ? got : 1; got > 0;) {
        got = json_next_member(&reader, &key, &value);
        const int index = got > 0 ? json_key_take(&key, names, count, ret_seen) : -ENOENT;
        if (index >= 0) {
            values[index] = value;
        } else if (index == -EEXIST) {
            return false;
        }
    }
    return got == 0;
}

/* A1. A header with crit names an extension that must be understood (RFC 7515 section 4.1.11), and
 * we know none. */
static bool header_is_ours(struct slice header)
{
    static const struct slice names[] = {{"alg", 3}, {"crit", 4}};
    enum { ALG, CRIT, NAMES };
    char text[TOKEN_MAX];
    struct json_value values[NAMES] = {0};
    uint64_t seen = 0;
    const int size = decode(header, text);

    return size >= 0 &&
           read_members((struct slice){text, (uint32_t)size}, names, NAMES, values, &seen) &&
           seen == 1U << ALG && values[ALG].type == JSON_STRING &&
           json_string_equal(&values[ALG].string, SLICE("HS256"));
}

/* Whether the key made the signature. libjwt compares without telling by its time how much of it
 * was right. */
static bool is_signed(const struct auth *auth, struct slice token)
{
    char text[TOKEN_MAX + 1];
    jwt_t *jwt = NULL;

    CHECK(auth->key[0] != '\0'); /* A1: without a key libjwt would verify nothing */
    CHECK(token.size <= TOKEN_MAX);
    memcpy(text, token.data, token.size);
    text[token.size] = '\0';
    if (jwt_decode(&jwt, text, (const unsigned char *)auth->key, AUTH_KEY_SIZE) != 0) {
        return false;
    }
    const bool good = jwt_get_alg(jwt) == JWT_ALG_HS256; /* A1, by what libjwt itself went by */
    jwt_free(jwt);
    return good;
}

/* --- claims --- */

enum { CLAIM_ISS, CLAIM_AUD, CLAIM_EXP, CLAIM_NBF, CLAIM_SUB, CLAIM_NAME, CLAIMS };

static const struct slice claim_names[CLAIMS] = {{"iss", 3}, {"aud", 3}, {"exp", 3},
                                                 {"nbf", 3}, {"sub", 3}, {"name", 4}};

static bool is_text(const struct json_value *value, const char *text)
{
    return value->type == JSON_STRING &&
           json_string_equal(&value->string, (struct slice){text, (uint32_t)strlen(text)});
}

/* One string, or an array of strings with ours among them (RFC 7519 section 4.1.3). */
static bool audience_is_ours(const struct json_value *aud, const char *ours)
{
    struct json_reader reader;
    struct json_value element;
    bool found = false;
    int got = 1;

    if (aud->type != JSON_ARRAY) {
        return is_text(aud, ours);
    }
    if (json_open_array(&reader, aud->raw) < 0) {
        return false;
    }
    while (got > 0) {
        got = json_next_element(&reader, &element);
        if (got > 0 && element.type != JSON_STRING) {
            return false;
        }
        found |= got > 0 && is_text(&element, ours);
    }
    return got == 0 && found;
}

/* Copies whole characters, at most characters_max and capacity bytes, and says how many characters
 * there were; 0: a control character (C0, DEL, C1), or no text. */
static uint32_t copy_text(struct slice text, char *out, uint32_t capacity, uint32_t characters_max,
                          uint8_t *ret_size)
{
    uint32_t characters = 0;
    uint32_t kept = 0;

    for (uint32_t at = 0; at < text.size; characters++) {
        const uint32_t size = utf8_character(text.data + at, text.size - at);
        const uint8_t first = (uint8_t)text.data[at];
        if (size == 0 || first < 0x20 || first == 0x7F ||
            (first == 0xC2 && (uint8_t)text.data[at + 1] <= 0x9F)) {
            return 0;
        }
        at += size;
        if (characters < characters_max && at <= capacity) {
            kept = at;
        }
    }
    memcpy(out, text.data, kept);
    *ret_size = (uint8_t)kept;
    return characters;
}

_Static_assert((int)CLAIM_NAME_MAX == 4 * NAME_CHARACTERS_MAX, "a name of four-byte characters");
_Static_assert(CLAIM_NAME_MAX <= UINT8_MAX && CLAIM_SUB_MAX <= UINT8_MAX, "sizes are uint8_t");

/* The decoded text of a string claim; size 0 if it is none, or longer than a name or sub may be. */
static struct slice claim_text(const struct json_value *value, char *room, uint32_t capacity)
{
    if (value->type != JSON_STRING || value->string.size > capacity) {
        return (struct slice){room, 0};
    }
    const int size = json_string_decode(&value->string, room, capacity);
    return (struct slice){room, size > 0 ? (uint32_t)size : 0};
}

/* sub as it is; the name as it is if it may be a username, else the beginning of sub. */
static bool read_who(const struct json_value *values, uint64_t seen, struct auth_claims *ret)
{
    char room[CLAIM_NAME_MAX];
    const struct slice sub = claim_text(&values[CLAIM_SUB], room, CLAIM_SUB_MAX);

    if (copy_text(sub, ret->sub, sizeof(ret->sub), CLAIM_SUB_MAX, &ret->sub_size) == 0) {
        return false;
    }
    if ((seen >> CLAIM_NAME & 1) != 0) {
        const struct slice name = claim_text(&values[CLAIM_NAME], room, sizeof(room));
        const uint32_t characters =
            copy_text(name, ret->name, sizeof(ret->name), NAME_CHARACTERS_MAX, &ret->name_size);
        if (characters >= NAME_CHARACTERS_MIN && characters <= NAME_CHARACTERS_MAX) {
            return true;
        }
    }
    const struct slice fallback = {ret->sub, ret->sub_size};
    return copy_text(fallback, ret->name, sizeof(ret->name), NAME_CHARACTERS_MAX, &ret->name_size) >
           0;
}

/* A2: whose, for whom and when. Expired is said only of what is good in all else. */
static enum auth_result check_claims(const struct config *config, struct slice text, uint64_t now_s,
                                     struct auth_claims *ret)
{
    const uint64_t needed = 1U << CLAIM_ISS | 1U << CLAIM_AUD | 1U << CLAIM_EXP | 1U << CLAIM_SUB;
    const int64_t now = (int64_t)now_s;
    const int64_t leeway = (int64_t)(config->auth_leeway / 1000);
    struct json_value values[CLAIMS] = {0};
    uint64_t seen = 0;

    if (!read_members(text, claim_names, CLAIMS, values, &seen) || (seen & needed) != needed) {
        return AUTH_INVALID;
    }
    const bool has_nbf = (seen >> CLAIM_NBF & 1) != 0;
    if (!is_text(&values[CLAIM_ISS], config->auth_issuer) ||
        !audience_is_ours(&values[CLAIM_AUD], config->auth_audience) ||
        !values[CLAIM_EXP].is_integer || (has_nbf && !values[CLAIM_NBF].is_integer) ||
        (has_nbf && values[CLAIM_NBF].integer > now + leeway) || !read_who(values, seen, ret)) {
        return AUTH_INVALID;
    }
    /* The moment named in exp is already too late (RFC 7519 section 4.1.4). */
    if (values[CLAIM_EXP].integer < 0 || values[CLAIM_EXP].integer <= now - leeway) {
        return AUTH_EXPIRED;
    }
    ret->expires = (uint64_t)values[CLAIM_EXP].integer;
    return AUTH_OK;
}

enum auth_result auth_check(const struct auth *auth, struct slice token, uint64_t now_s,
                            struct auth_claims *ret_claims)
{
    char payload[TOKEN_MAX];
    struct auth_claims claims = {0};
    struct token_parts parts;

    CHECK(now_s <= INT64_MAX / 2);
    if (token.size > TOKEN_MAX || !split(token, &parts) || !header_is_ours(parts.header) ||
        !is_signed(auth, token)) {
        return AUTH_INVALID;
    }
    const int size = decode(parts.payload, payload);
    if (size < 0) {
        return AUTH_INVALID;
    }
    const struct slice text = {payload, (uint32_t)size};
    const enum auth_result result = check_claims(auth->config, text, now_s, &claims);
    if (result == AUTH_OK) {
        *ret_claims = claims;
    }
    return result;
}

/* --- signing --- */

/* A text claim from a slice of at most CLAIM_NAME_MAX bytes. */
static int add_text(jwt_t *jwt, const char *claim, struct slice text)
{
    char terminated[CLAIM_NAME_MAX + 1];

    if (text.size >= sizeof(terminated) || memchr(text.data, '\0', text.size) != NULL) {
        return -EINVAL;
    }
    memcpy(terminated, text.data, text.size);
    terminated[text.size] = '\0';
    return -jwt_add_grant(jwt, claim, terminated);
}

/* No nbf: shards read the clock at different moments, and one may be a second behind the signer. */
static int add_claims(const struct auth *auth, jwt_t *jwt, struct slice user_id,
                      struct slice username, uint64_t now_s)
{
    const uint64_t ttl_s = auth->config->auth_token_ttl / 1000;
    int error = add_text(jwt, "sub", user_id);

    error = error != 0 ? error : add_text(jwt, "name", username);
    error = error != 0 ? error : -jwt_add_grant(jwt, "iss", auth->config->auth_issuer);
    error = error != 0 ? error : -jwt_add_grant(jwt, "aud", auth->config->auth_audience);
    error = error != 0 ? error : -jwt_add_grant_int(jwt, "iat", (long)now_s);
    return error != 0 ? error : -jwt_add_grant_int(jwt, "exp", (long)(now_s + ttl_s));
}

int auth_sign(const struct auth *auth, struct slice user_id, struct slice username, uint64_t now_s,
              char *token, uint32_t capacity)
{
    jwt_t *jwt = NULL;
    char *text = NULL;

    CHECK(auth->key[0] != '\0'); /* A1 */
    CHECK(now_s <= INT64_MAX / 2);
    int error = -jwt_new(&jwt);
    error = error != 0 ? error : add_claims(auth, jwt, user_id, username, now_s);
    error = error != 0
                ? error
                : -jwt_set_alg(jwt, JWT_ALG_HS256, (const unsigned char *)auth->key, AUTH_KEY_SIZE);
    if (error == 0) {
        text = jwt_encode_str(jwt);
        error = text == NULL ? -ENOMEM : 0;
    }
    jwt_free(jwt);
    const size_t size = text != NULL ? strlen(text) : 0;
    if (error == 0 && size > (capacity < TOKEN_MAX ? capacity : TOKEN_MAX)) {
        error = -ENOSPC;
    }
    if (error == 0) {
        memcpy(token, text, size); /* NOLINT(bugprone-not-null-terminated-result): as said */
    }
    free(text);
    return error != 0 ? error : (int)size;
}
