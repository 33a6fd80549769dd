/*
 * config_row.h - one row of core/config.def at work: reading, checking and writing a value.
 *
 * Walk:       from core/config.c, which knows where values come from; nobody else includes this.
 * Threads:    main.
 */
#pragma once

#include "core/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_row_kind {
    CONFIG_BOOL,
    CONFIG_COUNT,
    CONFIG_PORT,
    CONFIG_BYTES,
    CONFIG_DURATION,
    CONFIG_CHOICE,
    CONFIG_TEXT,
};

enum config_row_when { CONFIG_RESTART, CONFIG_RELOAD };

struct config_row {
    enum config_row_kind kind;
    enum config_row_when when;
    const char *section;
    const char *key;
    const char *minimum; /* of a CHOICE: its words */
    const char *maximum;
    const char *initial;
    const char *text;
    size_t offset; /* of the field in struct config */
};

enum {
#define CONFIG(section, key, kind, minimum, maximum, initial, when, text)                          \
    CONFIG_ROW_##section##_##key,
#include "core/config.def"
#undef CONFIG
    CONFIG_ROW_COUNT,
    CONFIG_NAME_MAX = 64,   /* bytes of "section_key" with its zero */
    CONFIG_SHOWN_SIZE = 64, /* bytes of a value as an error shows it */
};

extern const struct config_row config_rows[CONFIG_ROW_COUNT];

/* Adds a sentence; beyond CONFIG_ERRORS_MAX it is counted only. */
__attribute__((format(printf, 2, 3))) void config_row_error(struct config_errors *errors,
                                                            const char *format, ...);

/* What somebody wrote, short enough and harmless for a terminal. Returns dst. */
const char *config_row_shown(const char *value, char dst[CONFIG_SHOWN_SIZE]);

/* The row with that name; CONFIG_ROW_COUNT: there is none. */
uint32_t config_row_find(const char *section, const char *key);
bool config_row_section_known(const char *section);

/* Sentences about names that are not in the table, with the nearest that is. */
void config_row_unknown_section(const char *where, const char *section,
                                struct config_errors *errors);
void config_row_unknown_key(const char *where, const char *section, const char *key,
                            struct config_errors *errors);

/* Letters to insert, remove or replace to make one word of the other; UINT32_MAX beyond
 * CONFIG_NAME_MAX letters. */
uint32_t config_row_distance(const char *a, const char *b);

/* Reads value into the row's field (F1); where begins the error's sentence. 0 or -EINVAL,
 * which a caller that collects errors may pass over. */
int config_row_assign(struct config *config, const struct config_row *row, const char *value,
                      const char *where, struct config_errors *errors);

/* Writes the row's value as a file has it (F2). Returns dst. */
const char *config_row_format(const struct config *config, const struct config_row *row,
                              char dst[CONFIG_TEXT_SIZE]);

/* The value of a row of any kind but TEXT; of a BOOL 0 or 1. */
uint64_t config_row_number(const struct config *config, const struct config_row *row);

/* Whether two configurations have the same value. */
bool config_row_equal(const struct config *a, const struct config *b, const struct config_row *row);

/* Copies the row's value. */
void config_row_copy(struct config *to, const struct config *from, const struct config_row *row);
