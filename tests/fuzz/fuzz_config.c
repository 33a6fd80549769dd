/*
 * fuzz_config.c - whatever a configuration file holds, the result is within bounds and prints a
 *                 file that reads back to the same values (F1, F2 of core/config.h).
 *
 * Input:      the bytes of the file.
 */
#include "core/check.h"
#include "core/config.h"

#include <string.h>

enum { TEXT_MAX = 64 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config config;
static struct config again;
static struct config_errors errors;
static char text[TEXT_MAX];

static int parse(struct config *into, const void *bytes, size_t size)
{
    static char copy[TEXT_MAX]; /* fmemopen wants a buffer that it might write */

    memcpy(copy, bytes, size);
    FILE *file = fmemopen(copy, size, "r");
    CHECK(file != NULL);
    memset(&errors, 0, sizeof(errors));
    config_defaults(into);
    const int result = config_stream(into, file, "fuzz.conf", &errors);
    CHECK(fclose(file) == 0);
    CHECK((result == 0) == (errors.count == 0));
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > TEXT_MAX) {
        return 0; /* fmemopen takes no empty buffer; more is more of the same */
    }
    (void)(parse(&config, data, size) + config_check(&config, 2, &errors));
    const uint32_t kept = errors.count < CONFIG_ERRORS_MAX ? errors.count : CONFIG_ERRORS_MAX;
    for (uint32_t i = 0; i < kept; i++) {
        CHECK(strlen(errors.text[i]) > 0);
        CHECK(strchr(errors.text[i], '\n') == NULL); /* one sentence a line */
    }

    FILE *file = fmemopen(text, sizeof(text), "w");
    CHECK(file != NULL);
    config_print_effective(&config, file);
    const long printed = ftell(file);
    CHECK(printed > 0 && printed < TEXT_MAX);
    CHECK(fclose(file) == 0);
    CHECK(parse(&again, text, (size_t)printed) == 0); /* F1: all in bounds; F2 */

    char back[TEXT_MAX];
    memcpy(back, text, sizeof(back));
    file = fmemopen(text, sizeof(text), "w");
    CHECK(file != NULL);
    config_print_effective(&again, file);
    CHECK(ftell(file) == printed);
    CHECK(fclose(file) == 0);
    CHECK(memcmp(back, text, (size_t)printed) == 0);
    return 0;
}
