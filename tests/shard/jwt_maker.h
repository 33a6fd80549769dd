/*
 * jwt_maker.h - tokens of any kind, right and wrong, made without libjwt: by OpenSSL's HMAC.
 *
 * Use:    for tests, the fuzz target and the micro benchmark of shard/auth.c, so that what checks
 *         tokens is not what made them.
 */
#pragma once

#include "core/check.h"
#include "core/slice.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdint.h>
#include <string.h>

/* Base64 with the URL alphabet, without padding (RFC 7515 section 2). Returns the size. */
static inline uint32_t jwt_digits(const void *data, uint32_t size, char *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *bytes = data;
    uint32_t bits = 0;
    uint32_t held = 0;
    uint32_t written = 0;

    for (uint32_t i = 0; i < size; i++) {
        bits = (bits << 8 | bytes[i]) & 0xFFFF;
        for (held += 8; held >= 6; held -= 6) {
            out[written++] = alphabet[bits >> (held - 6) & 63];
        }
    }
    if (held > 0) {
        out[written++] = alphabet[bits << (6 - held) & 63];
    }
    return written;
}

/* header.payload in room, which has space for them and a signature. Returns their size. */
static inline uint32_t jwt_unsigned(char *room, struct slice header, struct slice payload)
{
    uint32_t size = jwt_digits(header.data, header.size, room);

    room[size++] = '.';
    return size + jwt_digits(payload.data, payload.size, room + size);
}

/* Behind the size bytes in room a point and their signature; hash NULL: an empty one. */
static inline struct slice jwt_sign(char *room, uint32_t size, const char *key, const EVP_MD *hash)
{
    unsigned char signature[EVP_MAX_MD_SIZE];
    unsigned int signature_size = 0;

    if (hash != NULL) {
        CHECK(HMAC(hash, key, (int)strlen(key), (const unsigned char *)room, size, signature,
                   &signature_size) != NULL);
    }
    room[size++] = '.';
    size += jwt_digits(signature, signature_size, room + size);
    return (struct slice){room, size};
}

static inline struct slice jwt_make(char *room, const char *key, const EVP_MD *hash,
                                    struct slice header, struct slice payload)
{
    return jwt_sign(room, jwt_unsigned(room, header, payload), key, hash);
}
