/* config.c - see config.h for the invariants F1 and F2 named below. */
#include "core/config.h"

#include "core/check.h"
#include "core/config_row.h"
#include "core/os.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

enum {
    CONFIG_LINE_MAX = 1024,        /* bytes of a line in a file, its newline included */
    CONFIG_FILE_MAX = 1024 * 1024, /* bytes of a file: /dev/zero must come to an end */
    CONFIG_FILES_MAX = 64,         /* in PATH.d */
    CONFIG_PATH_SIZE = 4096,
};

void config_errors_print(const struct config_errors *errors, FILE *file)
{
    const uint32_t kept = errors->count < CONFIG_ERRORS_MAX ? errors->count : CONFIG_ERRORS_MAX;

    for (uint32_t i = 0; i < kept; i++) {
        (void)fprintf(file, "%s\n", errors->text[i]);
    }
    if (errors->count > kept) {
        (void)fprintf(file, "and %" PRIu32 " more\n", errors->count - kept);
    }
}

void config_defaults(struct config *config)
{
    struct config_errors errors = {0};

    memset(config, 0, sizeof(*config));
    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        CHECK(config_row_assign(config, row, row->initial, row->key, &errors) == 0);
    }
}

int config_set(struct config *config, const char *section, const char *key, const char *value,
               const char *where, struct config_errors *errors)
{
    const uint32_t index = config_row_find(section, key);

    if (index < CONFIG_ROW_COUNT) {
        return config_row_assign(config, &config_rows[index], value, where, errors);
    }
    if (config_row_section_known(section)) {
        config_row_unknown_key(where, section, key, errors);
    } else {
        config_row_unknown_section(where, section, errors);
    }
    return -EINVAL;
}

/* --- files --- */

/* What the parser's two callbacks share while one file is read. */
struct config_reader {
    struct config *config;
    struct config_errors *errors;
    FILE *file;
    const char *name;
    uint32_t line;
    uint32_t bytes;
    int error;         /* of reading, as errno has it */
    bool in_section;   /* after a section line that we know */
    bool section_seen; /* after any section line */
    bool expects;      /* the line just given out should be key = value */
    bool ended;
    uint32_t seen[CONFIG_ROW_COUNT]; /* line on which a row was given, 0: not yet */
};

__attribute__((format(printf, 2, 3))) static void config_reader_error(struct config_reader *reader,
                                                                      const char *format, ...)
{
    char text[CONFIG_ERROR_SIZE];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    config_row_error(reader->errors, "%s:%" PRIu32 ": %s", reader->name, reader->line, text);
}

/* One line without its newline and without blanks at its start, so that no line continues another.
 * False: the end, or a file that is no configuration. */
static bool config_read_line(struct config_reader *reader, char *line, size_t capacity)
{
    size_t size = 0;
    bool zero = false;
    bool cut = false;
    int byte = getc(reader->file);

    if (byte == EOF) {
        reader->error = ferror(reader->file) ? errno : 0;
        return false;
    }
    reader->line++;
    for (; byte != EOF && byte != '\n'; byte = getc(reader->file)) {
        if (++reader->bytes > CONFIG_FILE_MAX) {
            config_reader_error(reader, "the file is larger than 1 MiB: is it the right one?");
            return false;
        }
        zero |= byte == '\0';
        cut |= size + 1 >= capacity;
        if (!zero && !cut && (size > 0 || !isspace(byte))) {
            line[size++] = (char)byte;
        }
    }
    line[size] = '\0';
    if (zero) {
        config_reader_error(reader, "contains a zero byte: this is no text");
    }
    if (cut) {
        config_reader_error(reader, "longer than %zu bytes", capacity - 1);
    }
    if (zero || cut) {
        line[0] = '\0';
    }
    return true;
}

/* Notes what a line is for, and what is wrong with one that is neither blank, comment, section nor
 * key = value: the parser tells only of the first such line. */
static void config_line_begin(struct config_reader *reader, const char *line)
{
    char section[CONFIG_LINE_MAX];
    char where[CONFIG_PATH_SIZE];

    reader->expects = line[0] != '\0' && line[0] != ';' && line[0] != '#' && line[0] != '[';
    if (line[0] != '[') {
        return;
    }
    const size_t size = strcspn(line + 1, "]");
    const char *end = line + 1 + size;
    reader->section_seen = true;
    reader->in_section = false; /* until it is one that we know: its keys are passed over */
    const char *behind = *end == ']' ? end + 1 + strspn(end + 1, " \t\r") : "unfinished";
    if (*behind != '\0' && *behind != ';' && *behind != '#') {
        config_reader_error(reader, "a section is one word in brackets: [server]");
        return;
    }
    memcpy(section, line + 1, size);
    section[size] = '\0';
    reader->in_section = config_row_section_known(section);
    if (!reader->in_section) {
        (void)snprintf(where, sizeof(where), "%s:%" PRIu32, reader->name, reader->line);
        config_row_unknown_section(where, section, reader->errors);
    }
}

/* After the parser has had a line: was it what it should be? */
static void config_line_end(struct config_reader *reader)
{
    if (reader->expects) {
        config_reader_error(reader, "neither [section], key = value, nor a comment");
    }
    reader->expects = false;
}

/* Instead of fgets: gives the parser a line that has been looked at. */
static char *config_line(char *line, int capacity, void *stream)
{
    static const char mark[] = "\xef\xbb\xbf"; /* a byte order mark, as some editors leave it */
    struct config_reader *reader = stream;

    config_line_end(reader);
    if (reader->ended || !config_read_line(reader, line, (size_t)capacity)) {
        reader->ended = true;
        return NULL;
    }
    if (reader->line == 1 && strncmp(line, mark, strlen(mark)) == 0) {
        memmove(line, line + strlen(mark), strlen(line) - strlen(mark) + 1);
    }
    config_line_begin(reader, line);
    return line;
}

/* Called by the parser for each key = value. It goes on whatever we return. */
static int config_pair(void *context, const char *section, const char *key, const char *value)
{
    struct config_reader *reader = context;
    char where[CONFIG_PATH_SIZE];

    reader->expects = false;
    if (!reader->in_section) {
        if (!reader->section_seen) {
            config_reader_error(reader, "a key before the first [section]");
        }
        return 1; /* else the section's own error says it all */
    }
    const uint32_t index = config_row_find(section, key);
    if (index == CONFIG_ROW_COUNT) {
        (void)snprintf(where, sizeof(where), "%s:%" PRIu32, reader->name, reader->line);
        config_row_unknown_key(where, section, key, reader->errors);
        return 1;
    }
    if (reader->seen[index] != 0) {
        config_reader_error(reader, "[%s] %s: given already on line %" PRIu32, section, key,
                            reader->seen[index]);
        return 1;
    }
    reader->seen[index] = reader->line;
    (void)snprintf(where, sizeof(where), "%s:%" PRIu32 ": [%s] %s", reader->name, reader->line,
                   section, key);
    (void)config_row_assign(reader->config, &config_rows[index], value, where, reader->errors);
    return 1;
}

int config_stream(struct config *config, FILE *file, const char *name, struct config_errors *errors)
{
    struct config_reader reader = {.config = config, .errors = errors, .file = file, .name = name};
    const uint32_t before = errors->count;

    ini_max_line = CONFIG_LINE_MAX; /* the library's settings are its globals; 200 is too short */
    const int result = ini_parse_stream(config_line, &reader, config_pair, &reader);
    CHECK(reader.ended || result < 0);
    if (reader.error != 0) {
        config_row_error(errors, "%s: cannot be read: %s", name, os_error(reader.error));
        return -reader.error;
    }
    if (result < 0) {
        config_row_error(errors, "%s: cannot be read: out of memory", name);
        return -ENOMEM;
    }
    if (result > 0 && errors->count == before) {
        config_row_error(errors, "%s:%d: not understood", name, result);
    }
    return errors->count == before ? 0 : -EINVAL;
}

/* What an operator can do about a file that cannot be opened. */
static const char *config_mend(int error)
{
    switch (error) {
    case ENOENT:
        return "; write one with --print-default-config, or name another";
    case EACCES:
        return "; let the user that damsod runs as read it";
    default:
        return "";
    }
}

static int config_open(struct config *config, const char *path, struct config_errors *errors)
{
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        const int error = errno;
        config_row_error(errors, "%s: cannot be read: %s%s", path, os_error(error),
                         config_mend(error));
        return -error;
    }
    const int result = config_stream(config, file, path, errors);
    (void)fclose(file); /* nothing was written */
    return result;
}

struct config_names {
    uint32_t count;
    char name[CONFIG_FILES_MAX][NAME_MAX + 1];
};

/* Keeps the names in order; false: there are too many. */
static bool config_names_add(struct config_names *names, const char *name)
{
    uint32_t at = names->count;

    if (at == CONFIG_FILES_MAX) {
        return false;
    }
    for (; at > 0 && strcmp(names->name[at - 1], name) > 0; at--) {
        memcpy(names->name[at], names->name[at - 1], sizeof(names->name[at]));
    }
    (void)snprintf(names->name[at], sizeof(names->name[at]), "%s", name);
    names->count++;
    return true;
}

/* The *.conf of a directory that may be missing; hidden ones are an editor's. */
static int config_directory(const char *path, struct config_names *names,
                            struct config_errors *errors)
{
    DIR *directory = opendir(path);

    if (directory == NULL) {
        const int error = errno;
        if (error == ENOENT) {
            return 0;
        }
        config_row_error(errors, "%s: cannot be read: %s%s", path, os_error(error),
                         config_mend(error));
        return -error;
    }

    int result = 0;
    const struct dirent *entry = readdir(directory); /* NOLINT(concurrency-mt-unsafe): own DIR */
    while (entry != NULL && result == 0) {
        const char *end = strrchr(entry->d_name, '.');
        if (entry->d_name[0] != '.' && end != NULL && strcmp(end, ".conf") == 0 &&
            !config_names_add(names, entry->d_name)) {
            config_row_error(errors, "%s: more than %d files", path, CONFIG_FILES_MAX);
            result = -EINVAL;
        }
        entry = readdir(directory); /* NOLINT(concurrency-mt-unsafe): own DIR */
    }
    (void)closedir(directory);
    return result;
}

int config_file(struct config *config, const char *path, struct config_errors *errors)
{
    char directory[CONFIG_PATH_SIZE];
    char file[CONFIG_PATH_SIZE + NAME_MAX + 2];
    struct config_names names = {0};

    const int size = snprintf(directory, sizeof(directory), "%s.d", path);
    if (size < 0 || size >= (int)sizeof(directory)) {
        config_row_error(errors, "the path of the configuration is too long");
        return -ENAMETOOLONG;
    }
    int result = config_open(config, path, errors);
    const int listed = config_directory(directory, &names, errors);
    result = result != 0 ? result : listed;
    for (uint32_t i = 0; i < names.count; i++) {
        (void)snprintf(file, sizeof(file), "%s/%s", directory, names.name[i]);
        const int read = config_open(config, file, errors);
        result = result != 0 ? result : read;
    }
    return result;
}

/* --- environment --- */

/* SECTION_KEY of a row. */
static void config_environment_name(const struct config_row *row, char dst[CONFIG_NAME_MAX])
{
    const int size = snprintf(dst, CONFIG_NAME_MAX, "%s_%s", row->section, row->key);

    CHECK(size > 0 && size < CONFIG_NAME_MAX);
    for (int i = 0; i < size; i++) {
        dst[i] = (char)toupper((unsigned char)dst[i]);
    }
}

/* A name with a section of ours, or two letters off one of ours, is a mistake; others may be
 * somebody else's. */
static void config_environment_unknown(const char *name, struct config_errors *errors)
{
    char shown[CONFIG_SHOWN_SIZE];
    char candidate[CONFIG_NAME_MAX];
    char best[CONFIG_NAME_MAX] = "";
    uint32_t least = UINT32_MAX;
    bool ours = false;

    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        config_environment_name(&config_rows[i], candidate);
        const uint32_t distance = config_row_distance(name, candidate);
        const size_t prefix = strlen(config_rows[i].section) + 1; /* with the underscore */
        ours |= strncmp(name, candidate, prefix) == 0;
        if (distance < least) {
            least = distance;
            memcpy(best, candidate, sizeof(best));
        }
    }
    if (least <= 2) {
        config_row_error(errors, "DAMSO_%s: unknown variable, did you mean DAMSO_%s?",
                         config_row_shown(name, shown), best);
    } else if (ours) {
        config_row_error(errors, "DAMSO_%s: unknown variable", config_row_shown(name, shown));
    }
}

/* One "NAME=value" behind the prefix. */
static void config_environment_one(struct config *config, const char *variable,
                                   struct config_errors *errors)
{
    char name[CONFIG_NAME_MAX];
    char candidate[CONFIG_NAME_MAX];
    char where[CONFIG_NAME_MAX + sizeof("DAMSO_")];
    const size_t size = strcspn(variable, "=");

    if (variable[size] == '\0' || size >= sizeof(name)) {
        return; /* no name of ours is so long */
    }
    memcpy(name, variable, size);
    name[size] = '\0';
    (void)snprintf(where, sizeof(where), "DAMSO_%s", name);
    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        config_environment_name(&config_rows[i], candidate);
        if (strcmp(name, candidate) == 0) {
            (void)config_row_assign(config, &config_rows[i], variable + size + 1, where, errors);
            return;
        }
    }
    config_environment_unknown(name, errors);
}

int config_environment(struct config *config, char *const *environment,
                       struct config_errors *errors)
{
    const uint32_t before = errors->count;

    for (; *environment != NULL; environment++) {
        if (strncmp(*environment, "DAMSO_", strlen("DAMSO_")) == 0) {
            config_environment_one(config, *environment + strlen("DAMSO_"), errors);
        }
    }
    return errors->count == before ? 0 : -EINVAL;
}

/* --- rules between keys --- */

/* left >= right, or a sentence with both keys and values. */
static void config_rule_least(const struct config *config, uint32_t left, uint32_t right,
                              struct config_errors *errors)
{
    const struct config_row *a = &config_rows[left];
    const struct config_row *b = &config_rows[right];
    char a_value[CONFIG_TEXT_SIZE];
    char b_value[CONFIG_TEXT_SIZE];

    if (config_row_number(config, a) < config_row_number(config, b)) {
        config_row_error(errors, "[%s] %s: %s is less than [%s] %s, which is %s", a->section,
                         a->key, config_row_format(config, a, a_value), b->section, b->key,
                         config_row_format(config, b, b_value));
    }
}

static void config_rule_power(const struct config *config, uint32_t index,
                              struct config_errors *errors)
{
    const struct config_row *row = &config_rows[index];
    const uint64_t value = config_row_number(config, row);

    if ((value & (value - 1)) != 0) {
        config_row_error(errors, "[%s] %s: %" PRIu64 " is not a power of two", row->section,
                         row->key, value);
    }
}

static void config_rule_journal(const struct config *config, uint32_t shards,
                                struct config_errors *errors)
{
    const uint64_t segment = config->journal_segment_bytes;

    if (segment % 4096 != 0) {
        config_row_error(errors, "[journal] segment_bytes: %" PRIu64 " is not a multiple of 4k",
                         segment);
    }
    /* One segment is written while another waits for the store. */
    if (config->journal_bytes_max / 2 / segment < shards) {
        config_row_error(errors,
                         "[journal] bytes_max: %" PRIu64 "m is too little for %" PRIu32
                         " shards, each needs two segments of %" PRIu64 "k: at least %" PRIu64
                         "m, or make segment_bytes smaller",
                         config->journal_bytes_max >> 20, shards, segment >> 10,
                         (2 * segment * shards + (1 << 20) - 1) >> 20);
    }
}

/* A ring takes records of a quarter of its size: a page of history, or two of the largest messages.
 */
static void config_rule_ring(const struct config *config, uint32_t index, uint64_t size,
                             struct config_errors *errors)
{
    const uint64_t message = config->limits_frame_bytes > config->limits_body_bytes
                                 ? config->limits_frame_bytes
                                 : config->limits_body_bytes;
    const uint64_t record = config->limits_history_bytes + 2 * message + 16384;
    const struct config_row *row = &config_rows[index];
    if (size < 4 * record) {
        config_row_error(
            errors,
            "[%s] %s: too small for a page of history ([limits] history_bytes) and two "
            "messages (frame_bytes, body_bytes): at least %" PRIu64 "k",
            row->section, row->key, (4 * record + 1023) / 1024);
    }
}

int config_check(const struct config *config, uint32_t shards, struct config_errors *errors)
{
    const uint32_t before = errors->count;

    config_rule_journal(config, shards, errors);
    config_rule_power(config, CONFIG_ROW_uring_entries, errors);
    config_rule_power(config, CONFIG_ROW_uring_completions, errors);
    config_rule_power(config, CONFIG_ROW_uring_recv_buffers, errors);
    config_rule_least(config, CONFIG_ROW_uring_completions, CONFIG_ROW_uring_entries, errors);

    /* A text must fit into what carries it, and that into what stores or shows it. */
    config_rule_least(config, CONFIG_ROW_limits_body_bytes, CONFIG_ROW_limits_text_bytes, errors);
    config_rule_least(config, CONFIG_ROW_limits_frame_bytes, CONFIG_ROW_limits_text_bytes, errors);
    config_rule_least(config, CONFIG_ROW_limits_history_bytes, CONFIG_ROW_limits_frame_bytes,
                      errors);
    config_rule_least(config, CONFIG_ROW_limits_outbox_bytes, CONFIG_ROW_limits_frame_bytes,
                      errors);
    config_rule_least(config, CONFIG_ROW_journal_buffer_bytes, CONFIG_ROW_limits_frame_bytes,
                      errors);
    config_rule_least(config, CONFIG_ROW_journal_buffer_bytes, CONFIG_ROW_limits_body_bytes,
                      errors);
    config_rule_ring(config, CONFIG_ROW_mesh_ring_bytes, config->mesh_ring_bytes, errors);
    config_rule_ring(config, CONFIG_ROW_persist_ring_bytes, config->persist_ring_bytes, errors);
    config_rule_least(config, CONFIG_ROW_limits_subscriptions,
                      CONFIG_ROW_limits_rooms_per_connection, errors);
    return errors->count == before ? 0 : -EINVAL;
}

uint32_t config_reload(struct config *config, const struct config *next,
                       struct config_errors *errors)
{
    char value[CONFIG_TEXT_SIZE];
    char shown[CONFIG_SHOWN_SIZE];
    uint32_t changed = 0;

    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        if (config_row_equal(config, next, row)) {
            continue;
        }
        if (row->when == CONFIG_RELOAD) {
            config_row_copy(config, next, row);
            changed++;
        } else {
            config_row_error(errors, "[%s] %s: %s takes effect after a restart", row->section,
                             row->key,
                             config_row_shown(config_row_format(next, row, value), shown));
        }
    }
    return changed;
}

/* --- print --- */

/* What a value may be, for the comment above it. */
static void config_print_bounds(const struct config_row *row, FILE *file)
{
    const char *note = row->when == CONFIG_RESTART ? "" : " (taken over by a reload)";

    switch (row->kind) {
    case CONFIG_BOOL:
        (void)fprintf(file, "# on or off%s\n", note);
        break;
    case CONFIG_CHOICE:
        (void)fprintf(file, "# one of %s%s\n", row->minimum, note);
        break;
    case CONFIG_TEXT:
        (void)fprintf(file, "# %s to %s characters%s\n", row->minimum, row->maximum, note);
        break;
    default:
        (void)fprintf(file, "# %s to %s%s\n", row->minimum, row->maximum, note);
        break;
    }
}

void config_print_effective(const struct config *config, FILE *file)
{
    char value[CONFIG_TEXT_SIZE];
    const char *section = "";

    for (uint32_t i = 0; i < CONFIG_ROW_COUNT; i++) {
        const struct config_row *row = &config_rows[i];
        if (strcmp(section, row->section) != 0) {
            (void)fprintf(file, "%s[%s]\n", i == 0 ? "" : "\n", row->section);
            section = row->section;
        }
        (void)fprintf(file, "\n# %s\n", row->text);
        config_print_bounds(row, file);
        (void)fprintf(file, "%s = %s\n", row->key, config_row_format(config, row, value));
    }
}

void config_print_default(FILE *file)
{
    struct config config;

    config_defaults(&config);
    config_print_effective(&config, file);
}
