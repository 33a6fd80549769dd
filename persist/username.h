/*
 * username.h - what may be a username, when two are the same, and what to offer instead.
 *
 * Walk:       from persist/account.c.
 * Threads:    any; nothing here has state.
 * Units:      sizes in bytes, lengths in code points.
 *
 * A username has 2 to 32 code points of UTF-8, no control characters (C0, DEL, C1), and no space at
 * either end. Two are the same if they are equal after A-Z became a-z; all other characters count
 * as they are, without normalisation: the rule is the same on every machine and in every version.
 */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    USERNAME_LENGTH_MIN = 2,
    USERNAME_LENGTH_MAX = 32,
    USERNAME_BYTES_MAX = 4 * USERNAME_LENGTH_MAX,
    USERNAME_SUFFIX_LENGTH = 4, /* of a variant, behind a hyphen */
};

/* A username with its bytes. */
struct username {
    uint32_t size;
    char bytes[USERNAME_BYTES_MAX];
};

static inline struct slice username_slice(const struct username *name)
{
    return (struct slice){name->bytes, name->size};
}

bool username_is_valid(struct slice name);

/* UTF-8 without control characters, at most size_max bytes: what other names and ids must be. */
bool username_is_text(struct slice text, uint32_t size_max);

/* The form that is unique. name: at most USERNAME_BYTES_MAX. */
struct username username_fold(struct slice name);

/* A valid username near to what was wanted: its characters that may stand in one, cut to fit, a
 * hyphen and the suffix (USERNAME_SUFFIX_LENGTH characters of a-z 0-9). Of nothing usable: user. */
struct username username_variant(struct slice wanted, const char *suffix);
