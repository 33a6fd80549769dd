/*
 * config.h - the configuration: defaults, then a file, then the environment, then flags.
 *
 * Walk:       from main; read-only for every shard afterwards. The keys are in core/config.def.
 * Threads:    main. A shard reads the struct it was given; on a reload main makes a new one.
 * Ownership:  struct config and struct config_errors are the caller's; nothing is allocated.
 * Units:      bytes and milliseconds, whatever unit the operator wrote.
 *
 * Later sources win: config_defaults, config_file, config_environment, config_set, config_check.
 * Every mistake is collected, not only the first; a value that is wrong leaves the field as it was.
 *
 * Invariants: (F1) a field is always within its row's bounds.
 *             (F2) what config_print_default and config_print_effective write, config_file reads
 *                  back to the same values.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CONFIG_TEXT_SIZE = 256, /* of a TEXT value, the terminating zero included */
    CONFIG_ERRORS_MAX = 16,
    CONFIG_ERROR_SIZE = 512,
};

/* One field a row: config->limits_text_bytes. */
#define CONFIG_FIELD_BOOL(name)     bool name;
#define CONFIG_FIELD_COUNT(name)    uint64_t name;
#define CONFIG_FIELD_PORT(name)     uint64_t name;
#define CONFIG_FIELD_BYTES(name)    uint64_t name;
#define CONFIG_FIELD_DURATION(name) uint64_t name;
#define CONFIG_FIELD_CHOICE(name)   uint64_t name;
#define CONFIG_FIELD_TEXT(name)     char name[CONFIG_TEXT_SIZE];

struct config {
#define CONFIG(section, key, kind, minimum, maximum, initial, when, text)                          \
    CONFIG_FIELD_##kind(section##_##key)
#include "core/config.def"
#undef CONFIG
};

/* Values of journal_durability, in the order of the words in the table. */
enum config_durability {
    CONFIG_DURABILITY_MEMORY,
    CONFIG_DURABILITY_JOURNAL,
    CONFIG_DURABILITY_FSYNC
};

/* Mistakes as sentences for people. */
struct config_errors {
    uint32_t count; /* all of them; the first CONFIG_ERRORS_MAX are kept */
    char text[CONFIG_ERRORS_MAX][CONFIG_ERROR_SIZE];
};

/* The table's defaults. */
void config_defaults(struct config *config);

/* Reads an INI file, then the *.conf of PATH.d in the order of their names, if that directory
 * exists: a key in a later file wins over one in an earlier.
 * 0, or the -errno why a file could not be read, or -EINVAL; errors says it in words. */
NODISCARD int config_file(struct config *config, const char *path, struct config_errors *errors);

/* The same for one open file called name in errors; does not close it, and knows nothing of .d. */
NODISCARD int config_stream(struct config *config, FILE *file, const char *name,
                            struct config_errors *errors);

/* Reads DAMSO_SECTION_KEY=value of an environment (as main has it). A name that is not ours, or not
 * even nearly, is passed over: 0, or -EINVAL with errors. */
NODISCARD int config_environment(struct config *config, char *const *environment,
                                 struct config_errors *errors);

/* One value from a flag; where is how errors call it ("--port"). 0, or -EINVAL with errors. */
NODISCARD int config_set(struct config *config, const char *section, const char *key,
                         const char *value, const char *where, struct config_errors *errors);

/* The rules between keys; shards is how many there will really be. 0, or -EINVAL with errors. */
NODISCARD int config_check(const struct config *config, uint32_t shards,
                           struct config_errors *errors);

/* Takes the RELOAD keys of next over into config, and names in errors each RESTART key that differs
 * and therefore waits for a restart (not a failure). Returns how many values changed. */
uint32_t config_reload(struct config *config, const struct config *next,
                       struct config_errors *errors);

/* A commented file with every key: of the defaults, or of the values in force. */
void config_print_default(FILE *file);
void config_print_effective(const struct config *config, FILE *file);

/* One line an error, and how many more there were. */
void config_errors_print(const struct config_errors *errors, FILE *file);
