/* slice.h - bytes that somebody else owns: a pointer and a size, good as long as what it points to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *data;
    uint32_t size; /* bytes */
};

/* A string literal as a slice. */
#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}
