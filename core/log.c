/* log.c - see log.h for the invariants L1 to L3 named below. */
#include "core/log.h"

#include "core/check.h"
#include "core/rfc3339.h"
#include "core/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* How lines reach stderr without waiting. */
enum log_way {
    LOG_WAY_PLAIN,  /* write(2): a file, and everything before log_init */
    LOG_WAY_OWN,    /* write(2) to a description of our own that does not block: pipe, terminal */
    LOG_WAY_SOCKET, /* send(2) that does not block: the journal */
    LOG_WAY_POLL,   /* ask, then write(2): a pipe that cannot be opened again */
};

/* Process-wide because stderr is; written by main before threads start (log.h). */
static struct {
    enum log_way way;
    int fd;
    bool priority; /* "<6>" before each line */
    bool stamped;  /* the reader adds no time of its own */
    uint64_t (*monotonic_ms)(void);
    uint64_t (*wall_ms)(void);
    bool (*writer)(const char *line, uint32_t size);
} log_sink = {.fd = STDERR_FILENO, .stamped = true};

_Atomic int log_threshold = LOG_LEVEL_INFO;

static _Atomic uint64_t log_written;
static _Atomic uint64_t log_suppressed;
static _Atomic uint64_t log_dropped;
static _Atomic bool log_torn; /* the last write took part of a line */

/* Sites that owe a "suppressed" line: pushed one by one, taken all at once, so without ABA. */
static _Atomic(struct log_site *) log_owing;

static uint64_t log_time_ms(clockid_t clock)
{
    struct timespec now = {0};

    (void)clock_gettime(clock, &now); /* cannot fail for these clocks */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t log_monotonic_ms(void)
{
    return log_sink.monotonic_ms != NULL ? log_sink.monotonic_ms()
                                         : log_time_ms(CLOCK_MONOTONIC_COARSE);
}

static uint64_t log_wall_ms(void)
{
    return log_sink.wall_ms != NULL ? log_sink.wall_ms() : log_time_ms(CLOCK_REALTIME_COARSE);
}

/* systemd.exec(5): JOURNAL_STREAM holds device and inode of the journal's socket; stderr may have
 * been redirected since, so they are compared. */
static bool log_to_journal(const struct stat *status)
{
    const char *stream = getenv("JOURNAL_STREAM"); /* NOLINT(concurrency-mt-unsafe): start-up */
    char expected[64];

    (void)snprintf(expected, sizeof(expected), "%ju:%ju", (uintmax_t)status->st_dev,
                   (uintmax_t)status->st_ino);
    return stream != NULL && strcmp(stream, expected) == 0;
}

/* O_NONBLOCK on descriptor 2 itself would change it for whoever shares it, the shell above all. A
 * file is left alone: it does not block in that sense, and stdout may share its offset. */
static void log_open(const struct stat *status)
{
    log_sink.fd = STDERR_FILENO;
    log_sink.way = LOG_WAY_PLAIN;
    if (S_ISSOCK(status->st_mode)) {
        log_sink.way = LOG_WAY_SOCKET;
    } else if (S_ISFIFO(status->st_mode) || S_ISCHR(status->st_mode)) {
        const int own =
            open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_APPEND | O_NOCTTY | O_CLOEXEC);
        log_sink.way = own >= 0 ? LOG_WAY_OWN : LOG_WAY_POLL;
        log_sink.fd = own >= 0 ? own : STDERR_FILENO;
    }
}

void log_init(enum log_level level, enum log_prefix prefix)
{
    struct stat status = {0};

    log_level_set(level);
    log_end();
    if (fstat(STDERR_FILENO, &status) != 0) {
        return; /* closed: every line will be dropped and counted */
    }
    log_open(&status);
    log_sink.stamped = !log_to_journal(&status);
    log_sink.priority =
        prefix == LOG_PREFIX_AUTO ? isatty(STDERR_FILENO) == 0 : prefix == LOG_PREFIX_ON;
}

void log_end(void)
{
    if (log_sink.way == LOG_WAY_OWN) {
        (void)close(log_sink.fd);
    }
    log_sink.way = LOG_WAY_PLAIN;
    log_sink.fd = STDERR_FILENO;
}

void log_level_set(enum log_level level)
{
    atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
}

enum log_level log_level_get(void)
{
    return (enum log_level)atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

struct log_counts log_counts(void)
{
    return (struct log_counts){
        .written = atomic_load_explicit(&log_written, memory_order_relaxed),
        .suppressed = atomic_load_explicit(&log_suppressed, memory_order_relaxed),
        .dropped = atomic_load_explicit(&log_dropped, memory_order_relaxed),
    };
}

void log_clock(uint64_t (*monotonic_ms)(void), uint64_t (*wall_ms)(void))
{
    log_sink.monotonic_ms = monotonic_ms;
    log_sink.wall_ms = wall_ms;
}

void log_writer(bool (*writer)(const char *line, uint32_t size))
{
    log_sink.writer = writer;
}

/* A line in the making. The byte before it is for the newline that ends a torn one. */
struct log_line {
    uint32_t size;
    char newline;
    char text[LOG_LINE_MAX];
};

_Static_assert(offsetof(struct log_line, text) == offsetof(struct log_line, newline) + 1,
               "newline and text are written as one piece");

/* One system call; how many bytes it took, or < 0. */
static ssize_t log_put(const char *text, size_t size)
{
    if (log_sink.way == LOG_WAY_SOCKET) {
        return send(log_sink.fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (log_sink.way == LOG_WAY_POLL) {
        struct pollfd ready = {.fd = log_sink.fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) {
            return -1;
        }
    }
    return write(log_sink.fd, text, size);
}

static void log_send(struct log_line *line)
{
    bool taken = false;

    line->text[line->size++] = '\n';
    if (log_sink.writer != NULL) {
        taken = log_sink.writer(line->text, line->size);
    } else {
        const bool torn = atomic_exchange_explicit(&log_torn, false, memory_order_relaxed);
        const size_t size = (size_t)line->size + (torn ? 1 : 0);
        line->newline = '\n';
        const ssize_t put = log_put(torn ? &line->newline : line->text, size);
        taken = put == (ssize_t)size;
        if (!taken && (put > 0 || torn)) {
            atomic_store_explicit(&log_torn, true, memory_order_relaxed);
        }
    }
    atomic_fetch_add_explicit(taken ? &log_written : &log_dropped, 1, memory_order_relaxed);
}

/* Room for text: the newline and the dots of a cut line always fit. */
static const uint32_t log_text_max = LOG_LINE_MAX - 1 - 3;

/* Size of the character at the start of text if it may be written as it is; 0 for what must be
 * escaped: no UTF-8, a control character, or one of the upper half (U+0080 to U+009F), which some
 * terminals obey. */
static uint32_t log_character(const char *text, size_t size)
{
    const unsigned char *byte = (const unsigned char *)text;
    const uint32_t count = utf8_character(text, size);
    const bool control = count == 1 && (*byte < 0x20 || *byte == 0x7f || *byte == '\\');
    const bool upper = count == 2 && byte[0] == 0xc2 && byte[1] < 0xa0;

    return control || upper ? 0 : count;
}

/* What stands for a byte that must not be written as it is; returns its size. */
static uint32_t log_escape(unsigned char byte, char *dst)
{
    static const char digits[] = "0123456789abcdef";
    static const struct {
        unsigned char byte;
        char letter;
    } letters[] = {{'\n', 'n'}, {'\t', 't'}, {'\r', 'r'}, {'\\', '\\'}};

    dst[0] = '\\';
    dst[1] = 'x';
    dst[2] = digits[byte >> 4];
    dst[3] = digits[byte & 15];
    for (uint32_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
        if (letters[i].byte == byte) {
            dst[1] = letters[i].letter;
            return 2;
        }
    }
    return 4;
}

/* Appends text with everything escaped that is not printable UTF-8 (L1). cut: there is more. */
static void log_append(struct log_line *line, const char *text, size_t size, bool cut)
{
    size_t at = 0;

    while (at < size) {
        char escaped[4];
        const uint32_t whole = log_character(text + at, size - at);
        const uint32_t put = whole != 0 ? whole : log_escape((unsigned char)text[at], escaped);
        if (line->size + put > log_text_max) {
            cut = true;
            break;
        }
        memcpy(line->text + line->size, whole != 0 ? text + at : escaped, put);
        line->size += put;
        at += whole != 0 ? whole : 1;
    }
    if (cut) {
        memcpy(line->text + line->size, "...", 3);
        line->size += 3;
    }
}

/* "<6>", time and level, as the reader of stderr needs them. */
static void log_begin(struct log_line *line, enum log_level level)
{
    static const char priorities[] = {'7', '6', '5', '4', '3'}; /* syslog(3) */
    static const char *const words[] = {"debug", "info", "notice", "warning", "error"};

    line->size = 0;
    if (log_sink.priority) {
        line->text[0] = '<';
        line->text[1] = priorities[level];
        line->text[2] = '>';
        line->size = 3;
    }
    if (log_sink.stamped) {
        struct rfc3339_cache cache = {0};
        rfc3339_format(&cache, log_wall_ms(), line->text + line->size);
        line->size += RFC3339_SIZE;
        line->text[line->size++] = ' ';
    }
    if (!log_sink.priority) {
        line->size += (uint32_t)snprintf(line->text + line->size, 16, "%s: ", words[level]);
    }
}

__attribute__((format(printf, 2, 0))) static void log_line_send(enum log_level level,
                                                                const char *format,
                                                                va_list arguments)
{
    struct log_line line;
    char text[LOG_LINE_MAX];

    const int size = vsnprintf(text, sizeof(text), format, arguments);
    const bool cut = size >= (int)sizeof(text);
    log_begin(&line, level);
    if (size >= 0) {
        log_append(&line, text, cut ? sizeof(text) - 1 : (size_t)size, cut);
    }
    log_send(&line);
}

__attribute__((format(printf, 2, 3))) static void log_line(enum log_level level, const char *format,
                                                           ...)
{
    va_list arguments;

    va_start(arguments, format);
    log_line_send(level, format, arguments);
    va_end(arguments);
}

static void log_owed(const struct log_site *site, uint32_t lines)
{
    log_line(site->level, "suppressed %" PRIu32 " lines from=%s:%d", lines, site->file, site->line);
}

/* Puts the site on the list that log_flush works off. */
static void log_owe(struct log_site *site)
{
    if (atomic_exchange_explicit(&site->listed, true, memory_order_acq_rel)) {
        return; /* it is there, and log_flush will look at it (see there) */
    }
    struct log_site *first = atomic_load_explicit(&log_owing, memory_order_relaxed);
    do {
        atomic_store_explicit(&site->next, first, memory_order_relaxed);
        /* Release pairs with the acquire in log_flush: next is written. */
    } while (!atomic_compare_exchange_weak_explicit(&log_owing, &first, site, memory_order_release,
                                                    memory_order_relaxed));
}

static uint32_t log_lines(uint64_t window)
{
    return (uint32_t)window;
}

/* Counts one more line of the site in this second. Returns its number, from 1; ret_owed is how many
 * lines of an earlier second were suppressed and are told by nobody yet. */
static uint32_t log_count(struct log_site *site, uint32_t second, uint32_t *ret_owed)
{
    uint64_t window = atomic_load_explicit(&site->window, memory_order_relaxed);
    uint64_t next = 0;
    bool fresh = false;

    do {
        fresh = (uint32_t)(window >> 32) != second;
        next = fresh ? (uint64_t)second << 32 | 1 : window + 1;
    } while (!atomic_compare_exchange_weak_explicit(&site->window, &window, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    *ret_owed = fresh && log_lines(window) > LOG_BURST ? log_lines(window) - LOG_BURST : 0;
    return log_lines(next);
}

void log_write(struct log_site *site, const char *format, ...)
{
    uint32_t owed = 0;
    const uint32_t lines = log_count(site, (uint32_t)(log_monotonic_ms() / 1000), &owed);

    if (owed > 0) {
        log_owed(site, owed);
    }
    if (lines > LOG_BURST) { /* L2 */
        atomic_fetch_add_explicit(&log_suppressed, 1, memory_order_relaxed);
        if (lines == LOG_BURST + 1) {
            log_owe(site);
        }
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    log_line_send(site->level, format, arguments);
    va_end(arguments);
}

/* Tells what a site owes from an earlier second; false: its second is not over. */
static bool log_settle(struct log_site *site, uint32_t second)
{
    uint64_t window = atomic_load_explicit(&site->window, memory_order_relaxed);

    /* A log_write may come in between, and then the window is looked at again. */
    while (log_lines(window) > LOG_BURST && (uint32_t)(window >> 32) != second) {
        if (atomic_compare_exchange_weak_explicit(&site->window, &window, (uint64_t)second << 32,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            log_owed(site, log_lines(window) - LOG_BURST);
            return true;
        }
    }
    return log_lines(window) <= LOG_BURST;
}

void log_flush(void)
{
    const uint32_t second = (uint32_t)(log_monotonic_ms() / 1000);
    struct log_site *site = atomic_exchange_explicit(&log_owing, NULL, memory_order_acquire);

    while (site != NULL) { /* ends: each site is on the list once */
        struct log_site *next = atomic_load_explicit(&site->next, memory_order_relaxed);
        /* Off the list before the look at its window. Acquire and release pair with those of the
         * exchange in log_owe: a line suppressed before that exchange is seen by our look, and one
         * suppressed after ours lists the site again. */
        (void)atomic_exchange_explicit(&site->listed, false, memory_order_acq_rel);
        if (!log_settle(site, second)) {
            log_owe(site);
        }
        site = next;
    }
}
