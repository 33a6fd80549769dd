/*
 * store_mongo_row.h - a document of ours, read strictly: its fields are what damso writes, or it is
 *                     damaged.
 *
 * Walk:       from store_mongo_read.c and store_mongo_user.c, for every document that comes in.
 * Ownership:  slices point into the document.
 *
 * The database has other users (a shell, a restored dump, another program), so a document is as
 * little to be trusted as a peer's bytes. Fields are read one after the other; the first that
 * cannot be is kept in `wrong`, those after it give something harmless, and row_damaged at the end
 * turns it into the store's words and -EUCLEAN.
 */
#pragma once

#include "core/utf8.h"
#include "persist/store_mongo_own.h"

#include <errno.h>
#include <stdio.h>

enum { ROW_ID_TEXT_BYTES = 160 };

struct row_fields {
    const bson_t *document;
    const char *wrong; /* the first field that cannot be; NULL: none so far */
};

/* The field, which must be of that type. */
static inline bool row_find(struct row_fields *fields, const char *name, bson_type_t type,
                            bson_iter_t *ret)
{
    if (bson_iter_init_find(ret, fields->document, name) && bson_iter_type(ret) == type) {
        return true;
    }
    fields->wrong = fields->wrong != NULL ? fields->wrong : name;
    return false;
}

/* A text of size_min to size_max bytes, which is UTF-8 (the server does not look, and clients close
 * what sends them something else); empty if it is none. */
static inline struct slice row_text(struct row_fields *fields, const char *name, uint32_t size_min,
                                    uint32_t size_max)
{
    bson_iter_t iter;
    uint32_t size = 0;

    if (row_find(fields, name, BSON_TYPE_UTF8, &iter)) {
        const char *text = bson_iter_utf8(&iter, &size);
        if (size >= size_min && size <= size_max && utf8_valid(text, size)) {
            return (struct slice){text, size};
        }
        fields->wrong = fields->wrong != NULL ? fields->wrong : name;
    }
    return (struct slice){"", 0};
}

/* Bytes, size_min to size_max of them; empty if there are none. */
static inline struct slice row_bytes(struct row_fields *fields, const char *name, uint32_t size_min,
                                     uint32_t size_max)
{
    bson_iter_t iter;
    bson_subtype_t subtype;
    const uint8_t *bytes = NULL;
    uint32_t size = 0;

    if (row_find(fields, name, BSON_TYPE_BINARY, &iter)) {
        bson_iter_binary(&iter, &subtype, &size, &bytes);
        if (size >= size_min && size <= size_max) {
            return (struct slice){(const char *)bytes, size};
        }
        fields->wrong = fields->wrong != NULL ? fields->wrong : name;
    }
    return (struct slice){"", 0};
}

/* An int64, or an int32 (a shell's), with the same bits, at most max; 0 if it is none. */
static inline uint64_t row_number(struct row_fields *fields, const char *name, uint64_t max)
{
    bson_iter_t iter;
    uint64_t number = 0;
    bool sound = bson_iter_init_find(&iter, fields->document, name) &&
                 (BSON_ITER_HOLDS_INT64(&iter) || BSON_ITER_HOLDS_INT32(&iter));

    if (sound) {
        number = (uint64_t)bson_iter_as_int64(&iter);
        sound = number <= max;
    }
    if (!sound) {
        fields->wrong = fields->wrong != NULL ? fields->wrong : name;
        number = 0;
    }
    return number;
}

/* The document's _id for people, in printable ASCII: a text, or in hex. */
static inline void row_id_text(const bson_t *document, char ret[ROW_ID_TEXT_BYTES])
{
    bson_iter_t iter;
    const uint8_t *bytes = NULL;
    uint32_t size = 0;
    bson_subtype_t subtype;

    (void)snprintf(ret, ROW_ID_TEXT_BYTES, "of another type");
    if (!bson_iter_init_find(&iter, document, "_id")) {
        (void)snprintf(ret, ROW_ID_TEXT_BYTES, "missing");
    } else if (BSON_ITER_HOLDS_UTF8(&iter)) {
        const char *text = bson_iter_utf8(&iter, &size);
        size = size < ROW_ID_TEXT_BYTES - 3 ? size : ROW_ID_TEXT_BYTES - 3;
        (void)snprintf(ret, ROW_ID_TEXT_BYTES, "\"%.*s\"", (int)size, text);
    } else if (BSON_ITER_HOLDS_BINARY(&iter)) {
        bson_iter_binary(&iter, &subtype, &size, &bytes);
        uint32_t at = 0;
        for (uint32_t i = 0; i < size && at + 3 < ROW_ID_TEXT_BYTES; i++, at += 2) {
            (void)snprintf(ret + at, ROW_ID_TEXT_BYTES - at, "%02x", bytes[i]);
        }
    }
    for (char *c = ret; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~') {
            *c = '?';
        }
    }
}

/* 0, or -EUCLEAN with store->error saying which document and field; the caller's caller goes on to
 * store_mongo_fail. */
static inline int row_damaged(struct store_mongo *store, const char *collection,
                              const struct row_fields *fields)
{
    char id[ROW_ID_TEXT_BYTES];

    if (fields->wrong == NULL) {
        return 0;
    }
    row_id_text(fields->document, id);
    store->error = (struct mongo_error){.error = -EUCLEAN};
    (void)snprintf(store->error.text, sizeof(store->error.text),
                   "the document with _id %s in %s is not as damso writes it: field %s; mend or "
                   "remove it",
                   id, collection, fields->wrong);
    return -EUCLEAN;
}
