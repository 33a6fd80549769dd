/* config_row.c - see config_row.h; F1 and F2 are those of config.h. */
#include "core/config_row.h"

#include "core/check.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

const struct config_row config_rows[CONFIG_ROW_COUNT] = {
#define CONFIG(section, key, kind, minimum, maximum, initial, when, text)                          \
    {CONFIG_##kind, CONFIG_##when, #section,                                                       \
     #key,          minimum,       maximum,                                                        \
     initial,       text,          offsetof(struct config, section##_##key)},
#include "core/config.def"
#undef CONFIG
};

__attribute__((format(printf, 2, 3))) void config_row_error(struct config_errors *errors,
                                                            const char *format, ...)
{
    if (errors->count < CONFIG_ERRORS_MAX) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(errors->text[errors->count], CONFIG_ERROR_SIZE, format, arguments);
        va_end(arguments);
    }
    errors->count++;
}

const char *config_row_shown(const char *value, char dst[CONFIG_SHOWN_SIZE])
{
    size_t at = 0;

    for (; value[at] != '\0' && at + 4 < CONFIG_SHOWN_SIZE; at++) {
        const unsigned char byte = (unsigned char)value[at];
        dst[at] = (char)(byte < 0x20 || byte == 0x7f ? '?' : byte);
    }
    (void)snprintf(dst + at, CONFIG_SHOWN_SIZE - at, "%s", value[at] != '\0' ? "..." : "");
    return dst;
}

/* --- fields --- */

uint64_t config_row_number(const struct config *config, const struct config_row *row)
{
    const char *field = (const char *)config + row->offset;
    uint64_t number = 0;
    bool flag = false;

    if (row->kind == CONFIG_BOOL) {
        memcpy(&flag, field, sizeof(flag));
        return flag ? 1 : 0;
    }
    memcpy(&number, field, sizeof(number));
    return number;
}

static void config_row_number_set(struct config *config, const struct config_row *row,
                                  uint64_t number)
{
    char *field = (char *)config + row->offset;
    const bool flag = number != 0;

    if (row->kind == CONFIG_BOOL) {
        memcpy(field, &flag, sizeof(flag));
    } else {
        memcpy(field, &number, sizeof(number));
    }
}

/* --- values --- */

struct config_row_unit {
    const char *word;
    uint64_t factor;
};

static const struct config_row_unit config_row_units_bytes[] = {{"g", UINT64_C(1) << 30},
                                                                {"m", UINT64_C(1) << 20},
                                                                {"k", UINT64_C(1) << 10},
                                                                {"", 1},
                                                                {NULL, 0}};
static const struct config_row_unit config_row_units_duration[] = {
    {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct config_row_unit config_row_units_none[] = {{"", 1}, {NULL, 0}};

static const struct config_row_unit *config_row_units(enum config_row_kind kind)
{
    return kind == CONFIG_BYTES      ? config_row_units_bytes
           : kind == CONFIG_DURATION ? config_row_units_duration
                                     : config_row_units_none;
}

static bool config_row_same_word(const char *a, const char *b)
{
    size_t at = 0;

    for (; a[at] != '\0' && tolower((unsigned char)a[at]) == tolower((unsigned char)b[at]); at++) {
    }
    return a[at] == '\0' && b[at] == '\0';
}

/* A number with a unit of its kind. -EINVAL: it is none. A number that does not fit is UINT64_MAX,
 * and beyond every maximum. */
static int config_row_read_number(enum config_row_kind kind, const char *value, uint64_t *ret)
{
    uint64_t number = 0;
    size_t at = 0;
    bool beyond = false;

    for (; value[at] >= '0' && value[at] <= '9'; at++) {
        const uint64_t digit = (uint64_t)(value[at] - '0');
        beyond |= __builtin_mul_overflow(number, 10, &number) ||
                  __builtin_add_overflow(number, digit, &number);
    }
    if (at == 0) {
        return -EINVAL;
    }
    for (const struct config_row_unit *unit = config_row_units(kind); unit->word != NULL; unit++) {
        if (config_row_same_word(value + at, unit->word)) {
            beyond |= __builtin_mul_overflow(number, unit->factor, &number);
            *ret = beyond ? UINT64_MAX : number;
            return 0;
        }
    }
    if (kind == CONFIG_DURATION && strcmp(value, "0") == 0) {
        *ret = 0; /* the same in every unit */
        return 0;
    }
    return -EINVAL;
}

static int config_row_read_bool(const char *value, uint64_t *ret)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true"};

    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (config_row_same_word(value, words[i])) {
            *ret = i % 2;
            return 0;
        }
    }
    return -EINVAL;
}

/* The index-th of the words between bars, or NULL; ret_size is its size. */
static const char *config_row_word(const char *words, uint64_t index, size_t *ret_size)
{
    for (; index > 0; index--) {
        words = strchr(words, '|');
        if (words == NULL) {
            return NULL;
        }
        words++;
    }
    *ret_size = strcspn(words, "|");
    return words;
}

static int config_row_read_choice(const char *words, const char *value, uint64_t *ret)
{
    size_t size = 0;
    const char *word = config_row_word(words, 0, &size);

    for (uint64_t i = 0; word != NULL; i++) {
        if (strlen(value) == size && strncasecmp(word, value, size) == 0) {
            *ret = i;
            return 0;
        }
        word = config_row_word(words, i + 1, &size);
    }
    return -EINVAL;
}

/* Why a text cannot be a value, or NULL. What a file could not say is refused from flags too (F2):
 * the parser strips blanks, and takes ";" after a blank for a comment. */
static const char *config_row_text_fault(const char *value)
{
    const size_t size = strlen(value);

    if (size > 0 && (isspace((unsigned char)value[0]) || isspace((unsigned char)value[size - 1]))) {
        return "begins or ends with a blank";
    }
    for (size_t i = 0; i < size; i++) {
        if (iscntrl((unsigned char)value[i])) {
            return "contains a control character";
        }
        if (value[i] == ';' && (i == 0 || isspace((unsigned char)value[i - 1]))) {
            return "contains ; after a blank, which begins a comment";
        }
    }
    return NULL;
}

static int config_row_assign_text(struct config *config, const struct config_row *row,
                                  const char *value, const char *where,
                                  struct config_errors *errors)
{
    char shown[CONFIG_SHOWN_SIZE];
    const char *fault = config_row_text_fault(value);
    const size_t size = strlen(value);
    uint64_t minimum = 0;
    uint64_t maximum = 0;

    CHECK(config_row_read_number(CONFIG_COUNT, row->minimum, &minimum) == 0);
    CHECK(config_row_read_number(CONFIG_COUNT, row->maximum, &maximum) == 0);
    CHECK(maximum < CONFIG_TEXT_SIZE);
    if (fault != NULL) {
        config_row_error(errors, "%s: \"%s\" %s", where, config_row_shown(value, shown), fault);
        return -EINVAL;
    }
    if (size < minimum || size > maximum) {
        config_row_error(errors, "%s: \"%s\" has %zu characters, must have %s to %s (%s)", where,
                         config_row_shown(value, shown), size, row->minimum, row->maximum,
                         row->text);
        return -EINVAL;
    }
    memcpy((char *)config + row->offset, value, size + 1);
    return 0;
}

/* How a value of the kind looks, for people; choices are in the row. */
static const char *config_row_form(enum config_row_kind kind)
{
    switch (kind) {
    case CONFIG_BOOL:
        return "on or off";
    case CONFIG_BYTES:
        return "a size such as 4096, 256k, 16m or 1g";
    case CONFIG_DURATION:
        return "a duration such as 500ms, 30s, 5m or 1h";
    default:
        return "a whole number";
    }
}

static int config_row_assign_number(struct config *config, const struct config_row *row,
                                    const char *value, const char *where,
                                    struct config_errors *errors)
{
    char shown[CONFIG_SHOWN_SIZE];
    uint64_t number = 0;
    uint64_t minimum = 0;
    uint64_t maximum = 0;

    if (config_row_read_number(row->kind, value, &number) != 0) {
        config_row_error(errors, "%s: \"%s\" is not %s (%s)", where, config_row_shown(value, shown),
                         config_row_form(row->kind), row->text);
        return -EINVAL;
    }
    CHECK(config_row_read_number(row->kind, row->minimum, &minimum) == 0);
    CHECK(config_row_read_number(row->kind, row->maximum, &maximum) == 0);
    if (number < minimum || number > maximum) {
        const bool less = number < minimum;
        config_row_error(errors, "%s: %s is %s than the %s %s (%s)", where,
                         config_row_shown(value, shown), less ? "less" : "more",
                         less ? "minimum" : "maximum", less ? row->minimum : row->maximum,
                         row->text);
        return -EINVAL;
    }
    config_row_number_set(config, row, number);
    return 0;
}

int config_row_assign(struct config *config, const struct config_row *row, const char *value,
                      const char *where, struct config_errors *errors)
{
    char shown[CONFIG_SHOWN_SIZE];
    uint64_t number = 0;

    switch (row->kind) {
    case CONFIG_TEXT:
        return config_row_assign_text(config, row, value, where, errors);
    case CONFIG_BOOL:
        if (config_row_read_bool(value, &number) == 0) {
            config_row_number_set(config, row, number);
            return 0;
        }
        config_row_error(errors, "%s: \"%s\" is not on or off (%s)", where,
                         config_row_shown(value, shown), row->text);
        return -EINVAL;
    case CONFIG_CHOICE:
        if (config_row_read_choice(row->minimum, value, &number) == 0) {
            config_row_number_set(config, row, number);
            return 0;
        }
        config_row_error(errors, "%s: \"%s\" is not one of %s (%s)", where,
                         config_row_shown(value, shown), row->minimum, row->text);
        return -EINVAL;
    default:
        return config_row_assign_number(config, row, value, where, errors);
    }
}

/* --- names --- */

bool config_row_section_known(const char *section)
{
    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        if (strcmp(config_rows[i].section, section) == 0) {
            return true;
        }
    }
    return false;
}

uint32_t config_row_find(const char *section, const char *key)
{
    uint32_t i = 0;

    while (i < CONFIG_ROW_COUNT &&
           (strcmp(config_rows[i].section, section) != 0 || strcmp(config_rows[i].key, key) != 0)) {
        i++;
    }
    return i;
}

static uint32_t config_row_least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Levenshtein, in one row. */
uint32_t config_row_distance(const char *a, const char *b)
{
    uint32_t row[CONFIG_NAME_MAX + 1];
    const size_t a_size = strnlen(a, CONFIG_NAME_MAX + 1);
    const size_t b_size = strnlen(b, CONFIG_NAME_MAX + 1);

    if (a_size > CONFIG_NAME_MAX || b_size > CONFIG_NAME_MAX) {
        return UINT32_MAX;
    }
    for (uint32_t j = 0; j <= b_size; j++) {
        row[j] = j;
    }
    for (uint32_t i = 1; i <= a_size; i++) {
        uint32_t corner = row[0];
        row[0] = i;
        for (uint32_t j = 1; j <= b_size; j++) {
            const uint32_t replaced = corner + (a[i - 1] != b[j - 1] ? 1 : 0);
            corner = row[j];
            row[j] = config_row_least(replaced, config_row_least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_size];
}

/* Keeps the nearer of two names; more than a third of the letters wrong is not near. */
static void config_row_nearer(const char *wrong, const char *name, const char **best,
                              uint32_t *least)
{
    const uint32_t distance = config_row_distance(wrong, name);

    if (distance < *least && distance <= 1 + strlen(name) / 3) {
        *least = distance;
        *best = name;
    }
}

void config_row_unknown_section(const char *where, const char *section,
                                struct config_errors *errors)
{
    char shown[CONFIG_SHOWN_SIZE];
    const char *best = NULL;
    uint32_t least = UINT32_MAX;

    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        config_row_nearer(section, config_rows[i].section, &best, &least);
    }
    config_row_error(errors, "%s: [%s]: unknown section%s%s%s", where,
                     config_row_shown(section, shown), best != NULL ? ", did you mean [" : "",
                     best != NULL ? best : "", best != NULL ? "]?" : "");
}

void config_row_unknown_key(const char *where, const char *section, const char *key,
                            struct config_errors *errors)
{
    char shown[CONFIG_SHOWN_SIZE];
    const char *best = NULL;
    const char *elsewhere = NULL;
    uint32_t least = UINT32_MAX;

    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        if (strcmp(config_rows[i].section, section) == 0) {
            config_row_nearer(key, config_rows[i].key, &best, &least);
        } else if (strcmp(config_rows[i].key, key) == 0) {
            elsewhere = config_rows[i].section;
        }
    }
    if (elsewhere != NULL) {
        config_row_error(errors, "%s: [%s] %s: unknown key here, it belongs to [%s]", where,
                         section, config_row_shown(key, shown), elsewhere);
        return;
    }
    config_row_error(errors, "%s: [%s] %s: unknown key%s%s%s", where, section,
                     config_row_shown(key, shown), best != NULL ? ", did you mean " : "",
                     best != NULL ? best : "", best != NULL ? "?" : "");
}

/* --- values for a file --- */

static void config_row_format_number(const struct config_row *row, uint64_t number, char *dst)
{
    const struct config_row_unit *unit = config_row_units(row->kind);

    /* The largest unit that says it whole; 0 is whole in all of them, and plain in the smallest. */
    while (unit[1].word != NULL && (number == 0 || number % unit->factor != 0)) {
        unit++;
    }
    (void)snprintf(dst, CONFIG_TEXT_SIZE, "%" PRIu64 "%s", number / unit->factor, unit->word);
}

const char *config_row_format(const struct config *config, const struct config_row *row,
                              char dst[CONFIG_TEXT_SIZE])
{
    size_t size = 0;
    const char *word = NULL;

    switch (row->kind) {
    case CONFIG_TEXT:
        memcpy(dst, (const char *)config + row->offset, CONFIG_TEXT_SIZE);
        break;
    case CONFIG_BOOL:
        (void)snprintf(dst, CONFIG_TEXT_SIZE, "%s", config_row_number(config, row) ? "on" : "off");
        break;
    case CONFIG_CHOICE:
        word = config_row_word(row->minimum, config_row_number(config, row), &size);
        CHECK(word != NULL && size < CONFIG_TEXT_SIZE); /* F1 */
        memcpy(dst, word, size);
        dst[size] = '\0';
        break;
    default:
        config_row_format_number(row, config_row_number(config, row), dst);
        break;
    }
    return dst;
}

bool config_row_equal(const struct config *a, const struct config *b, const struct config_row *row)
{
    if (row->kind == CONFIG_TEXT) {
        return strcmp((const char *)a + row->offset, (const char *)b + row->offset) == 0;
    }
    return config_row_number(a, row) == config_row_number(b, row);
}

void config_row_copy(struct config *to, const struct config *from, const struct config_row *row)
{
    if (row->kind == CONFIG_TEXT) {
        memcpy((char *)to + row->offset, (const char *)from + row->offset, CONFIG_TEXT_SIZE);
    } else {
        config_row_number_set(to, row, config_row_number(from, row));
    }
}
