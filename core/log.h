/*
 * log.h - what operators read: one line an event to stderr, which never blocks a shard.
 *
 * Walk:       from anywhere outside the path of a message; to stderr, usually the journal.
 * Threads:    any, except log_init, log_end and log_clock (main, before the threads start).
 * Ownership:  the format and the arguments are read during the call; a call site lives for ever.
 * Units:      lines; LOG_LINE_MAX bytes a line, the newline included; longer ones end in "...".
 *
 * Manner:     log_info("room loaded room_id=%s events=%u", room_id, count): an event in words, then
 *             key=value. A function logs an error or returns it, never both.
 *
 * Invariants: (L1) one event is one line and one write: control characters, which a peer can put
 *                  into an argument, are escaped as \n, \t or \x1b, a backslash as \\.
 *             (L2) a call site writes at most LOG_BURST lines a second; the rest is counted, and
 *                  told by one line when that second is over.
 *             (L3) a line that stderr does not take at once is dropped and counted; so is one to a
 *                  pipe that nobody holds any more, if main ignores SIGPIPE as it must.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { LOG_LINE_MAX = 1024, LOG_BURST = 10 };

/* Numbered as the choices of log.level in core/config.def. */
enum log_level {
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_INFO,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_ERROR
};

/* Numbered as the choices of log.priority_prefix. auto: "<6>" before a line unless stderr is a
 * terminal. */
enum log_prefix { LOG_PREFIX_AUTO, LOG_PREFIX_ON, LOG_PREFIX_OFF };

/* One a place in the source: how much it has written in the current second. */
struct log_site {
    _Atomic uint64_t window; /* second since the clock's start << 32 | lines in it */
    _Atomic(struct log_site *) next;
    _Atomic bool listed; /* on the list of sites that owe a "suppressed" line */
    enum log_level level;
    const char *file;
    int line;
};

/* What became of all lines so far. */
struct log_counts {
    uint64_t written;
    uint64_t suppressed; /* by L2 */
    uint64_t dropped;    /* by L3 */
};

/* Opens stderr for writing without waiting. Before it, and after log_end, lines go to stderr as
 * they are and may wait. */
void log_init(enum log_level level, enum log_prefix prefix);

/* Gives the descriptor back; the level stays. */
void log_end(void);

/* The lowest level that is written, from now on, in every thread (a reload). */
void log_level_set(enum log_level level);
enum log_level log_level_get(void);

/* Writes the "suppressed" lines that are due. main calls it about once a second. */
void log_flush(void);

/* May be read at any time. */
struct log_counts log_counts(void);

/* Replaces the clocks: monotonic milliseconds for L2, milliseconds since 1970 for the line; NULL
 * restores the default (CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME_COARSE). */
void log_clock(uint64_t (*monotonic_ms)(void), uint64_t (*wall_ms)(void));

/* Replaces stderr (a test): called with one finished line; false: it could not be taken. NULL
 * restores stderr. */
void log_writer(bool (*writer)(const char *line, uint32_t size));

extern _Atomic int log_threshold; /* read it by log_level_get */

/* Behind the macros below. */
__attribute__((format(printf, 2, 3), cold)) void log_write(struct log_site *site,
                                                           const char *format, ...);

#define LOG_AT(severity, ...)                                                                      \
    do {                                                                                           \
        if ((int)(severity) >= atomic_load_explicit(&log_threshold, memory_order_relaxed)) {       \
            static struct log_site log_site_here = {                                               \
                .level = (severity), .file = __FILE__, .line = __LINE__};                          \
            log_write(&log_site_here, __VA_ARGS__);                                                \
        }                                                                                          \
    } while (0)

/* NOLINTBEGIN(readability-identifier-naming): they are called like functions */
#define log_debug(...)   LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)    LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_notice(...)  LOG_AT(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_warning(...) LOG_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...)   LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
/* NOLINTEND(readability-identifier-naming) */
