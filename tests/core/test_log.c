/*
 * test_log.c - one event is one line, floods are counted, and nobody waits for a reader.
 *
 * Method: a simulated clock and a writer that keeps what it is given; for the real descriptor
 *         stderr is replaced by pipes and sockets that nobody reads.
 */
#include "core/check.h"
#include "core/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS = 4, FLOOD = 50000 };

static _Atomic uint64_t now_ms = 1000000;
static char last[2 * LOG_LINE_MAX];
static uint32_t last_size;
static _Atomic uint32_t lines;
static _Atomic uint64_t told; /* sum of all "suppressed" lines */
static bool takes = true;

static uint64_t monotonic(void)
{
    return now_ms;
}

static uint64_t wall(void)
{
    return 1795253400123;
}

static bool keep(const char *line, uint32_t size)
{
    CHECK(size > 0 && size <= LOG_LINE_MAX);
    CHECK(line[size - 1] == '\n');
    CHECK(memchr(line, '\n', size) == line + size - 1); /* L1: one line */
    memcpy(last, line, size);
    last[size] = '\0';
    last_size = size;
    lines++;
    return takes;
}

static bool count(const char *line, uint32_t size)
{
    char text[LOG_LINE_MAX + 1];

    memcpy(text, line, size);
    text[size] = '\0';
    const char *owed = strstr(text, "suppressed ");
    lines++;
    told += owed != NULL ? strtoull(owed + 11, NULL, 10) : 0;
    return true;
}

static void begin(enum log_prefix prefix)
{
    log_clock(monotonic, wall);
    log_writer(keep);
    log_init(LOG_LEVEL_DEBUG, prefix);
    now_ms += 10000; /* a new second for every site */
    log_flush();     /* what the test before left untold */
    lines = 0;
    takes = true;
}

static void ends_with(const char *expected)
{
    const size_t size = strlen(expected);

    CHECK(last_size >= size);
    CHECK(strcmp(last + last_size - size, expected) == 0);
}

static void a_line_has_priority_or_level_and_time(void)
{
    begin(LOG_PREFIX_ON);
    log_info("room loaded room_id=%s events=%u", "lobby", 7U);
    CHECK(strcmp(last, "<6>2026-11-21T09:30:00.123Z room loaded room_id=lobby events=7\n") == 0);
    log_debug("d");
    CHECK(strncmp(last, "<7>", 3) == 0);
    log_notice("n");
    CHECK(strncmp(last, "<5>", 3) == 0);
    log_warning("w");
    CHECK(strncmp(last, "<4>", 3) == 0);
    log_error("e");
    CHECK(strncmp(last, "<3>", 3) == 0);

    begin(LOG_PREFIX_OFF);
    log_warning("disk is slow");
    CHECK(strcmp(last, "2026-11-21T09:30:00.123Z warning: disk is slow\n") == 0);
}

static void lines_below_the_level_are_not_even_formatted(void)
{
    uint32_t evaluated = 0;

    begin(LOG_PREFIX_OFF);
    log_level_set(LOG_LEVEL_WARNING);
    CHECK(log_level_get() == LOG_LEVEL_WARNING);
    log_info("no %u", ++evaluated);
    CHECK(lines == 0 && evaluated == 0);
    log_warning("yes %u", ++evaluated);
    CHECK(lines == 1 && evaluated == 1);
}

static void what_a_peer_sends_cannot_forge_a_line(void)
{
    begin(LOG_PREFIX_OFF);
    log_info("user=%s", "eve\n<0>kernel panic\r\t\x1b[31m\x7f");
    ends_with("user=eve\\n<0>kernel panic\\r\\t\\x1b[31m\\x7f\n");
    log_info("user=%s", "a\\nb"); /* not to be taken for an escaped newline */
    ends_with("user=a\\\\nb\n");
    log_info("user=%s", "\xeb\x8b\xb4\xec\x86\x8c \xf0\x9f\x99\x82"); /* Korean, emoji */
    ends_with("user=\xeb\x8b\xb4\xec\x86\x8c \xf0\x9f\x99\x82\n");
    log_info("user=%s", "\xff\xc3(\xed\xa0\x80\xc2\x9b"); /* no UTF-8; then U+009B, CSI */
    ends_with("user=\\xff\\xc3(\\xed\\xa0\\x80\\xc2\\x9b\n");
}

static void a_long_line_is_cut_between_characters(void)
{
    char text[3000];

    begin(LOG_PREFIX_ON);
    for (uint32_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (uint32_t at = shift; at + 3 < sizeof(text); at += 3) {
            memcpy(text + at, "\xeb\x8b\xb4", 4);
        }
        log_info("%s", text);
        CHECK(last_size <= LOG_LINE_MAX && last_size > LOG_LINE_MAX - 8);
        CHECK(strcmp(last + last_size - 7, "\xeb\x8b\xb4...\n") == 0 ||
              strncmp(last + last_size - 8, "\\x", 2) == 0);
    }
    memset(text, '\x01', sizeof(text) - 1); /* each byte needs four */
    text[sizeof(text) - 1] = '\0';
    log_info("%s", text);
    CHECK(last_size <= LOG_LINE_MAX);
    ends_with("\\x01...\n");
}

static void chatter(void)
{
    log_warning("pool empty");
}

static void a_flood_is_ten_lines_and_a_count(void)
{
    begin(LOG_PREFIX_OFF);
    const uint64_t before = log_counts().suppressed;
    for (uint32_t i = 0; i < 1000; i++) {
        chatter();
    }
    CHECK(lines == LOG_BURST);
    CHECK(log_counts().suppressed == before + 990);
    log_flush(); /* the second is not over */
    CHECK(lines == LOG_BURST);
    now_ms += 1000;
    chatter(); /* whoever comes first tells */
    CHECK(lines == LOG_BURST + 2);
    ends_with("pool empty\n");
    log_flush();
    CHECK(lines == LOG_BURST + 2); /* once only */
}

static void a_flood_that_ended_is_told_by_the_flush(void)
{
    begin(LOG_PREFIX_OFF);
    for (uint32_t i = 0; i < 25; i++) {
        chatter();
    }
    now_ms += 999;
    log_flush(); /* may or may not be over yet; the next one is */
    now_ms += 1000;
    log_flush();
    CHECK(lines == LOG_BURST + 1);
    CHECK(strstr(last, "suppressed 15 lines from=") != NULL);
    CHECK(strstr(last, "warning: ") != NULL);
    CHECK(strstr(last, "test_log.c:") != NULL);
    for (uint32_t i = 0; i < 25; i++) {
        chatter(); /* the site floods again, and is listed again */
    }
    now_ms += 1000;
    log_flush();
    CHECK(strstr(last, "suppressed 15 lines from=") != NULL);
    CHECK(lines == 2 * (LOG_BURST + 1));
}

static void one_loud_site_does_not_silence_another(void)
{
    begin(LOG_PREFIX_OFF);
    for (uint32_t i = 0; i < 100; i++) {
        chatter();
    }
    log_error("disk failed");
    ends_with("disk failed\n");
    CHECK(lines == LOG_BURST + 1);
}

static void *flood(void *unused)
{
    for (uint32_t i = 0; i < FLOOD; i++) {
        chatter();
        if (i % 1000 == 0) {
            now_ms += 400;
            log_flush();
        }
    }
    return unused;
}

static void threads_lose_no_line_from_the_count(void)
{
    pthread_t threads[THREADS];

    begin(LOG_PREFIX_OFF);
    const struct log_counts before = log_counts();
    told = 0;
    log_writer(count);
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, flood, NULL) == 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    now_ms += 5000;
    log_flush();
    const struct log_counts after = log_counts();
    CHECK(told == after.suppressed - before.suppressed); /* every one was told, once */
    CHECK(told > 0);
    CHECK(after.written - before.written == lines);
    CHECK(after.dropped == before.dropped);
}

static void what_the_writer_refuses_is_counted(void)
{
    begin(LOG_PREFIX_OFF);
    const struct log_counts before = log_counts();
    takes = false;
    log_info("lost");
    takes = true;
    log_info("kept");
    CHECK(log_counts().dropped == before.dropped + 1);
    CHECK(log_counts().written == before.written + 1);
}

/* Puts descriptor in stderr's place; returns the old one. */
static int replace_stderr(int descriptor)
{
    const int old = dup(STDERR_FILENO);

    CHECK(old >= 0);
    CHECK(dup2(descriptor, STDERR_FILENO) == STDERR_FILENO);
    return old;
}

static void restore_stderr(int old)
{
    log_end();
    CHECK(dup2(old, STDERR_FILENO) == STDERR_FILENO);
    CHECK(close(old) == 0);
}

/* Floods stderr, which nobody reads, from changing seconds: if one write waited, so would the test
 * for ever. Then reads everything and looks at every line. */
static void flood_descriptor(int reader)
{
    char text[65536];
    char line[LOG_LINE_MAX];
    uint32_t whole = 0;
    uint32_t filled = 0;
    ssize_t got = 0;

    log_writer(NULL);
    const struct log_counts before = log_counts();
    for (uint32_t i = 0; i < 20000; i++) {
        now_ms += 1000;
        log_info("flood number=%u and some more text to make it longer and longer", i);
    }
    const struct log_counts after = log_counts();
    CHECK(after.dropped > before.dropped);
    CHECK(after.written > before.written);
    CHECK(after.written + after.dropped - before.written - before.dropped == 20000);

    CHECK(fcntl(reader, F_SETFL, O_NONBLOCK) == 0);
    while ((got = read(reader, text, sizeof(text))) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            CHECK(filled < sizeof(line));
            line[filled++] = text[i];
            if (text[i] == '\n') {
                CHECK(strncmp(line, "<6>2026-", 8) == 0); /* every line begins as one */
                whole += strncmp(line + filled - 7, "longer\n", 7) == 0 ? 1 : 0;
                filled = 0;
            }
        }
    }
    CHECK(whole == after.written - before.written);
}

static void a_blocked_pipe_drops_and_does_not_block(void)
{
    int ends[2];

    CHECK(pipe(ends) == 0);
    const int old = replace_stderr(ends[1]);
    begin(LOG_PREFIX_ON);
    flood_descriptor(ends[0]);
    CHECK((fcntl(ends[1], F_GETFL) & O_NONBLOCK) == 0); /* the pipe of others is as it was */
    restore_stderr(old);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
}

static void a_blocked_socket_drops_and_does_not_block(void)
{
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const int old = replace_stderr(ends[1]);
    begin(LOG_PREFIX_ON);
    flood_descriptor(ends[0]);
    restore_stderr(old);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
}

static void a_torn_line_does_not_spoil_the_next(void)
{
    char where[] = "test_log_XXXXXX";
    char text[512] = {0};
    struct rlimit limit;

    const int file = mkstemp(where);
    CHECK(file >= 0);
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    const int old = replace_stderr(file);
    begin(LOG_PREFIX_ON);
    log_writer(NULL);
    const struct log_counts before = log_counts();
    log_info("first");
    const struct rlimit tight = {.rlim_cur = 60, .rlim_max = limit.rlim_max};
    CHECK(setrlimit(RLIMIT_FSIZE, &tight) == 0);
    log_info("second, of which a part fits");
    log_info("third, of which nothing fits");
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    log_info("fourth");
    log_info("fifth");
    const struct log_counts after = log_counts();
    restore_stderr(old);
    CHECK(after.written - before.written == 3 && after.dropped - before.dropped == 2);
    CHECK(pread(file, text, sizeof(text) - 1, 0) > 0);
    CHECK(strcmp(text, "<6>2026-11-21T09:30:00.123Z first\n"
                       "<6>2026-11-21T09:30:00.123\n"
                       "<6>2026-11-21T09:30:00.123Z fourth\n"
                       "<6>2026-11-21T09:30:00.123Z fifth\n") == 0);
    CHECK(unlink(where) == 0 && close(file) == 0);
}

static void the_journal_gets_priorities_and_no_time(void)
{
    struct stat status;
    char stream[64];
    char text[256] = {0};
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(fstat(ends[1], &status) == 0);
    (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)status.st_dev,
                   (uintmax_t)status.st_ino);
    CHECK(setenv("JOURNAL_STREAM", stream, 1) == 0); /* NOLINT(concurrency-mt-unsafe): alone */
    const int old = replace_stderr(ends[1]);
    begin(LOG_PREFIX_AUTO);
    log_writer(NULL);
    log_error("journal full");
    restore_stderr(old);
    CHECK(unsetenv("JOURNAL_STREAM") == 0); /* NOLINT(concurrency-mt-unsafe): alone */
    CHECK(read(ends[0], text, sizeof(text) - 1) > 0);
    CHECK(strcmp(text, "<3>journal full\n") == 0);
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
}

int main(void)
{
    a_line_has_priority_or_level_and_time();
    lines_below_the_level_are_not_even_formatted();
    what_a_peer_sends_cannot_forge_a_line();
    a_long_line_is_cut_between_characters();
    a_flood_is_ten_lines_and_a_count();
    a_flood_that_ended_is_told_by_the_flush();
    one_loud_site_does_not_silence_another();
    threads_lose_no_line_from_the_count();
    what_the_writer_refuses_is_counted();
    a_blocked_pipe_drops_and_does_not_block();
    a_blocked_socket_drops_and_does_not_block();
    a_torn_line_does_not_spoil_the_next();
    the_journal_gets_priorities_and_no_time();
    puts("13 passed, 0 failed");
    return 0;
}
