/*
 * rfc3339.h - time as the protocol shows it: "2026-11-21T09:30:00.123Z" (RFC 3339, UTC,
 * milliseconds).
 *
 * Threads:    any; the cache belongs to its caller.
 * Units:      milliseconds since 1970, without leap seconds, in years 1970 to 9999.
 */
#pragma once

#include "core/check.h"

#include <stddef.h>
#include <stdint.h>

enum { RFC3339_SIZE = 24 }; /* bytes; no terminating zero */

/* 9999-12-31T23:59:59.999Z */
#define RFC3339_MAX_MS UINT64_C(253402300799999)

/* The last second that was written: messages of one second share all but the milliseconds. Begins
 * as zeros. */
struct rfc3339_cache {
    uint64_t second; /* plus 1; 0: empty */
    char text[20];   /* "2026-11-21T09:30:00." */
};

/* Writes RFC3339_SIZE bytes. A time after RFC3339_MAX_MS is written as that. */
void rfc3339_format(struct rfc3339_cache *cache, uint64_t ms, char *dst);

/* Reads a date-time of RFC 3339 section 5.6, the whole of size: any offset, any number of decimals
 * up to 9 (cut to milliseconds); second 60 counts as the second after 59. 0, or -EINVAL for what is
 * no date-time, or -ERANGE for one outside the years. */
NODISCARD int rfc3339_parse(const char *text, size_t size, uint64_t *ret_ms);
