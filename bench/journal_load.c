/* journal_load.c - see journal_load.h for the invariants W1 and W2 named below. */
#include "bench/journal_load.h"

#include "bench/procstat.h"
#include "bench/reserve.h"
#include "bench/scenario.h"
#include "core/check.h"
#include "core/os.h"
#include "fileio/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
    /* The defaults of damsod: journal.segment_bytes, journal.bytes_max, journal.buffer_bytes. */
    SEGMENT_BYTES = 16 << 20,
    BYTES_MAX = 256 << 20,
    BUFFER_BYTES = 4 << 20,
    /* The store's transactions of half a second, at 500,000 records a second, are 60 MB. */
    LAG_BYTES = 32 << 20,
    RING_ENTRIES = 64,
    EVENTS_MAX = 16,
    TAG_KIND = 1,
};

static const int64_t wait_ns = 100000000;
static const uint64_t group_timeout_ns = 30000000000; /* a disk that takes longer is no disk */

/* --- begin --- */

static int say(char *problem, int error, const char *what, const char *why)
{
    if (problem[0] == '\0') {
        (void)snprintf(problem, SCENARIO_PROBLEM_BYTES, "%s: %s", what, why);
    }
    return error;
}

static int make_directory(struct journal_load *load, const char *parent, char *problem)
{
    struct statfs system;
    char path[JOURNAL_LOAD_PATH_BYTES];

    if (statfs(parent, &system) < 0) {
        return say(problem, -errno, parent, strerrordesc_np(errno));
    }
    if (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC) {
        return say(problem, -EINVAL, parent, "is in memory; name a directory on a disk (--data)");
    }
    const int length = snprintf(path, sizeof(path), "%s/damso-journal-XXXXXX", parent);
    if (length >= (int)sizeof(path)) {
        return say(problem, -ENAMETOOLONG, parent, strerrordesc_np(ENAMETOOLONG));
    }
    if (mkdtemp(path) == NULL) {
        return say(problem, -errno, parent, strerrordesc_np(errno));
    }
    memcpy(load->directory, path, sizeof(path));
    return 0;
}

static int open_journal(struct journal_load *load, char *problem)
{
    char why[512] = "";
    const struct os_ring_options ring_options = {.entries = RING_ENTRIES};
    int result = os_ring_create(&ring_options, &load->ring, why, sizeof(why));

    if (result < 0) {
        return say(problem, result, "no io_uring", why);
    }
    result = os_ring_enable(load->ring);
    if (result < 0) {
        return say(problem, result, "no io_uring", strerrordesc_np(-result));
    }
    const struct journal_options options = {
        .ring = load->ring,
        .directory = load->directory,
        .segment_bytes = SEGMENT_BYTES,
        .bytes_max = BYTES_MAX,
        .buffer_bytes = BUFFER_BYTES,
        .first_segment = 1,
        .tag_kind = TAG_KIND,
        .metrics = &load->metrics,
    };
    result = journal_open(&options, &load->plan, &load->journal, why, sizeof(why));
    if (result < 0) {
        return say(problem, result, load->directory, why);
    }
    result = mem_seal(&load->plan);
    return result < 0 ? say(problem, result, "no memory", strerrordesc_np(-result)) : 0;
}

/* options_parse has checked the word. */
static enum journal_durability durability_of(const char *word)
{
    if (word != NULL && strcmp(word, "memory") == 0) {
        return DURABILITY_MEMORY;
    }
    return word != NULL && strcmp(word, "journal") == 0 ? DURABILITY_JOURNAL : DURABILITY_FSYNC;
}

static void ending_signals(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGHUP);
    (void)sigaddset(ret, SIGINT);
    (void)sigaddset(ret, SIGTERM);
}

int journal_load_begin(struct journal_load *load, const struct options *options, char *problem)
{
    sigset_t ending;

    *load = (struct journal_load){
        .size = options->size,
        .group = options->group,
        .durability = durability_of(options->durability),
    };
    histogram_init(&load->latency);
    mem_init(&load->plan, "journal load", MEM_MAP);
    ending_signals(&ending);
    (void)pthread_sigmask(SIG_BLOCK, &ending, &load->signals); /* W2 */
    int result = make_directory(load, options->data, problem);
    result = result == 0 ? open_journal(load, problem) : result;
    if (result < 0) {
        journal_load_end(load);
    }
    return result;
}

/* --- load --- */

/* The consumer: takes what is durable, in order, and releases it late. */
static void consume(struct journal_load *load)
{
    const void *record = NULL;
    struct journal_load_mark *const handed = &load->handed;
    uint32_t size = 0;
    uint64_t position = 0;
    uint64_t number = 0;

    while ((record = journal_handover(load->journal, &size, &position)) != NULL) {
        memcpy(&number, record, sizeof(number));
        load->reordered += number != handed->number + 1;
        *handed = (struct journal_load_mark){handed->number + 1, position};
        journal_handover_next(load->journal);
    }
    if (handed->position - load->leading.position >= LAG_BYTES) {
        if (load->lagging.number > 0) {
            journal_release(load->journal, load->lagging.position);
            load->released = load->lagging.number; /* W1 */
        }
        load->lagging = load->leading;
        load->leading = *handed;
    }
}

/* Commits, waits for the next event, and consumes. 0 or -errno. */
static int turn(struct journal_load *load)
{
    struct os_event events[EVENTS_MAX];

    journal_commit(load->journal);
    const int count = os_turn(load->ring, wait_ns, events, EVENTS_MAX);
    for (int i = 0; i < count; i++) {
        journal_done(load->journal, &events[i]);
    }
    consume(load);
    if (count < 0) {
        return count;
    }
    if (journal_state(load->journal) == JOURNAL_FAILED) {
        return -EIO;
    }
    return os_now_ns() > load->deadline_ns ? -ETIMEDOUT : 0;
}

/* A journal that is full takes more once a segment is ready or a commit has ended. */
static int append(struct journal_load *load, uint64_t *ret_position)
{
    int result = 0;
    uint8_t *record = NULL;

    while (result == 0 && record == NULL) {
        record = journal_append(load->journal, load->size, load->durability, ret_position);
        result = record == NULL ? turn(load) : 0;
    }
    if (record != NULL) {
        const uint64_t number = ++load->appended;
        memcpy(record, &number, sizeof(number));
        memset(record + sizeof(number), (uint8_t)number, load->size - sizeof(number));
    }
    return result;
}

/* One group, until its last record is durable and the consumer has it. */
static int commit_group(struct journal_load *load)
{
    const uint64_t begin_ns = os_now_ns();
    uint64_t position = 0;
    int result = 0;

    load->deadline_ns = begin_ns + group_timeout_ns;
    for (uint32_t i = 0; i < load->group && result == 0; i++) {
        result = append(load, &position);
    }
    while (result == 0 && journal_durable(load->journal) < position) {
        result = turn(load);
    }
    if (result == 0) {
        histogram_record(&load->latency, os_now_ns() - begin_ns, 1);
    }
    while (result == 0 && load->handed.number < load->appended) {
        result = turn(load); /* it is being read back: a group larger than the buffer */
    }
    return result;
}

static bool ending(void)
{
    sigset_t pending;

    (void)sigpending(&pending);
    return sigismember(&pending, SIGHUP) == 1 || sigismember(&pending, SIGINT) == 1 ||
           sigismember(&pending, SIGTERM) == 1;
}

int journal_load_stretch(struct journal_load *load, double seconds, char *problem)
{
    const uint64_t until_ns = os_now_ns() + (uint64_t)(seconds * 1e9);
    int result = 0;

    do {
        result = ending() ? -EINTR : commit_group(load);
    } while (result == 0 && os_now_ns() < until_ns);
    return result < 0 ? say(problem, result, "the journal", strerrordesc_np(-result)) : 0;
}

void journal_load_stop(struct journal_load *load)
{
    load->deadline_ns = os_now_ns() + group_timeout_ns;
    for (int result = 0; load->journal != NULL && result == 0;) {
        result = journal_is_idle(load->journal) ? -EALREADY : turn(load);
    }
    if (load->ring != NULL) {
        os_ring_destroy(load->ring); /* before the memory that it might still write from */
        load->ring = NULL;
    }
    if (load->journal != NULL) {
        journal_close(load->journal);
        load->journal = NULL;
    }
}

/* --- count --- */

int journal_load_take(void *context, const void *record, uint32_t size)
{
    struct journal_load_found *const found = context;
    const uint8_t *const bytes = record;
    uint64_t number = 0;
    bool intact = size == found->size;

    if (intact) {
        memcpy(&number, bytes, sizeof(number));
    }
    for (uint32_t i = sizeof(number); i < size && intact; i++) {
        intact = bytes[i] == (uint8_t)number;
    }
    if (!intact || number == 0 || number > found->last) {
        found->foreign++;
        return 0;
    }
    uint8_t *const seen = &found->seen[number / 8];
    const uint8_t bit = (uint8_t)(1U << number % 8);
    const bool again = (*seen & bit) != 0;
    found->duplicated += again;
    found->reordered += !again && number < found->newest;
    found->newest = number > found->newest ? number : found->newest;
    *seen |= bit;
    return 0;
}

int journal_load_count(const struct journal_load *load, struct report *report, char *problem)
{
    char why[SCENARIO_PROBLEM_BYTES] = "";
    struct recovery_report recovered = {0};
    struct journal_load_found found = {.size = load->size, .last = load->appended};
    const size_t seen_bytes = load->appended / 8 + 1;

    CHECK(load->journal == NULL);
    found.seen = reserve_zeroed(seen_bytes);
    if (found.seen == NULL) {
        return say(problem, -ENOMEM, "no memory", strerrordesc_np(ENOMEM));
    }
    const int result = recovery_run(load->directory, false, journal_load_take, &found, &recovered,
                                    why, sizeof(why));
    if (result < 0) {
        report->errors++;
        (void)say(problem, result, "recovery", why);
    }
    for (uint64_t number = load->released + 1; number <= load->appended; number++) { /* W1 */
        report->lost += (found.seen[number / 8] & 1U << number % 8) == 0;
    }
    report->duplicated += found.duplicated;
    report->reordered += load->reordered + found.reordered;
    report->errors += found.foreign;
    reserve_release(found.seen, seen_bytes);
    return 0;
}

/* --- end --- */

static int remove_entry(void *context, const char *name)
{
    const struct journal_load *const load = context;
    char path[JOURNAL_LOAD_PATH_BYTES + 256];

    (void)snprintf(path, sizeof(path), "%s/%s", load->directory, name);
    return os_file_remove(path);
}

void journal_load_end(struct journal_load *load)
{
    journal_load_stop(load);
    mem_end(&load->plan);
    if (load->directory[0] != '\0' &&
        (os_directory_list(load->directory, remove_entry, load) != 0 ||
         rmdir(load->directory) < 0)) {
        (void)fprintf(stderr, "damso-bench: %s could not be removed\n", load->directory);
    }
    (void)pthread_sigmask(SIG_SETMASK, &load->signals, NULL); /* W2: one that waits is taken here */
}

/* --- all of it --- */

static int measure(struct journal_load *load, const struct options *options, struct report *report,
                   char *problem)
{
    int result = journal_load_stretch(load, options->warmup_s, problem);

    if (result < 0) {
        return result;
    }
    histogram_init(&load->latency);
    const uint64_t appended = load->appended;
    const uint64_t handed = load->handed.number;
    const double cpu_s = procstat_own_cpu_s();
    const uint64_t begin_ns = os_now_ns();
    result = journal_load_stretch(load, options->duration_s, problem);
    if (result < 0) {
        return result;
    }
    report->seconds = (double)(os_now_ns() - begin_ns) / 1e9;
    report->server_cpu_s = procstat_own_cpu_s() - cpu_s;
    report->sent = load->appended - appended;
    report->expected = report->sent;
    report->delivered = load->handed.number - handed;
    report->messages_per_s = (double)report->sent / report->seconds;
    report->messages_per_server_cpu_s = (double)report->sent / report->server_cpu_s;
    report_latency(report, &load->latency);
    report_memory(report, getpid());
    return 0;
}

int journal_load_run(const struct options *options, struct report *report, char *problem)
{
    struct journal_load load;
    int result = journal_load_begin(&load, options, problem);

    if (result < 0) {
        return result;
    }
    result = measure(&load, options, report, problem);
    journal_load_stop(&load);
    result = result == 0 ? journal_load_count(&load, report, problem) : result;
    journal_load_end(&load);
    return result;
}
