/* token.c - see token.h. */
#include "bench/token.h"

#include "core/check.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* Base64 with the URL alphabet and without padding (RFC 4648 section 5, RFC 7515 section 2). */
static size_t encode(const unsigned char *data, size_t size, char *dst)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t written = 0;

    for (size_t i = 0; i < size; i += 3) {
        const size_t rest = size - i < 3 ? size - i : 3;
        const uint32_t bits = (uint32_t)data[i] << 16 |
                              (rest > 1 ? (uint32_t)data[i + 1] << 8 : 0U) |
                              (rest > 2 ? (uint32_t)data[i + 2] : 0U);
        for (size_t digit = 0; digit <= rest; digit++) {
            dst[written++] = alphabet[bits >> (18 - 6 * digit) & 63];
        }
    }
    return written;
}

int token_key_read(const char *path, struct token_key *ret)
{
    char text[TOKEN_KEY_CHARACTERS + 2];
    const int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0) {
        return -errno;
    }
    const ssize_t size = read(file, text, sizeof(text));
    const int error = size < 0 ? -errno : 0;
    (void)close(file);
    if (error < 0) {
        return error;
    }
    const bool whole = size == TOKEN_KEY_CHARACTERS ||
                       (size == TOKEN_KEY_CHARACTERS + 1 && text[TOKEN_KEY_CHARACTERS] == '\n');
    for (int i = 0; whole && i < TOKEN_KEY_CHARACTERS; i++) {
        if (!isxdigit((unsigned char)text[i])) {
            return -EBADMSG;
        }
    }
    if (!whole) {
        return -EBADMSG;
    }
    memcpy(ret->text, text, sizeof(ret->text));
    return 0;
}

int token_sign(const struct token_key *key, uint32_t user, int64_t now_s, char *dst,
               size_t capacity)
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    unsigned char signature[EVP_MAX_MD_SIZE];
    unsigned int signature_size = 0;
    char claims[256];

    if (capacity < TOKEN_BYTES_MAX) {
        return -ENOSPC;
    }
    /* A second early: a server whose clock reads the same second must not find nbf ahead of it. */
    const int64_t from_s = now_s - 1;
    const int claims_size =
        snprintf(claims, sizeof(claims),
                 "{\"iss\":\"damso\",\"aud\":\"damso\",\"sub\":\"bench-%u\",\"name\":\"bench-%u\","
                 "\"iat\":%" PRId64 ",\"nbf\":%" PRId64 ",\"exp\":%" PRId64 "}",
                 user, user, from_s, from_s, now_s + TOKEN_LIFE_S);
    CHECK(claims_size > 0 && (size_t)claims_size < sizeof(claims));

    size_t size = encode((const unsigned char *)header, sizeof(header) - 1, dst);
    dst[size++] = '.';
    size += encode((const unsigned char *)claims, (size_t)claims_size, dst + size);
    if (HMAC(EVP_sha256(), key->text, TOKEN_KEY_CHARACTERS, (const unsigned char *)dst, size,
             signature, &signature_size) == NULL) {
        return -EIO;
    }
    dst[size++] = '.';
    size += encode(signature, signature_size, dst + size);
    dst[size] = '\0';
    return (int)size;
}
