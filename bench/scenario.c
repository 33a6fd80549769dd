/* scenario.c - see scenario.h. */
#include "bench/scenario.h"

#include "bench/journal_load.h"
#include "bench/persist_child.h"
#include "bench/procstat.h"
#include "bench/setup.h"
#include "core/check.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    SENDS_A_TURN_MAX = 2048, /* so that receiving is not kept waiting when the pace is behind */
    MESSAGES_OPEN_SPARE = 4096,
    MESSAGES_CLOSED_MAX = 1 << 28, /* address space of the message table; touched as used */
    SEARCH_DOUBLINGS = 12,
    SEARCH_BISECTIONS = 3,
    SEARCH_FROM = 1000, /* messages a second */
};

static const double search_step_s = 3;
static const double search_warmup_s = 0.5;
static const double search_tail_s = 1;
static const double before_timeout_s = 60;
static const double before_settle_s = 0.5;

/* One stretch of load: a warm-up or the measured one. */
struct stretch {
    struct setup *setup;
    uint64_t begin_ns, end_ns; /* nothing is due from end_ns on */
    uint64_t limit_ns;         /* what has not come by then is lost */
    uint64_t next;             /* message that is due next, open loop */
};

static double seconds_since(uint64_t begin_ns)
{
    return (double)(loadgen_now_ns() - begin_ns) / 1e9;
}

static uint64_t due_ns(const struct stretch *stretch, uint64_t message)
{
    return stretch->begin_ns + (uint64_t)((double)message * 1e9 / stretch->setup->options->rate);
}

static bool send_from(struct stretch *stretch, uint32_t index, uint64_t intended_ns)
{
    struct setup *const setup = stretch->setup;
    struct client *const client = &setup->clients.all[index];

    if (!client_send(&setup->clients, client, intended_ns)) {
        return false;
    }
    loadgen_touch(&setup->loadgen, client);
    return true;
}

/* Sends what is due. A sender whose output is full holds up those after it, so that their latency
 * shows it too; a sender that is gone is passed over: its loss has been noted. Returns when the
 * next message is due. */
static uint64_t pace_open(struct stretch *stretch, uint64_t now_ns)
{
    const struct setup *const setup = stretch->setup;

    for (int i = 0; i < SENDS_A_TURN_MAX; i++) {
        const uint64_t due = due_ns(stretch, stretch->next);
        const uint32_t sender = (uint32_t)(stretch->next % setup->options->senders);
        if (due >= stretch->end_ns) {
            return UINT64_MAX;
        }
        if (due > now_ns) {
            return due;
        }
        if (!send_from(stretch, sender, due) && setup->clients.all[sender].state == CLIENT_LIVE) {
            return now_ns + 1000000; /* until the kernel takes more */
        }
        stretch->next++;
    }
    return now_ns;
}

/* Who goes on when a message is through: in a pair the other one, for acks the same. */
static uint32_t next_sender(const struct setup *setup, uint32_t sender)
{
    if (setup->options->kind == SCENARIO_ACKS) {
        return sender;
    }
    return (sender + setup->options->rooms) % setup->options->connections;
}

static void pace_closed(struct stretch *stretch, uint64_t now_ns)
{
    const struct setup *const setup = stretch->setup;
    struct checker *const checker = &stretch->setup->clients.checker;

    for (uint32_t i = 0; i < checker->done_count && now_ns < stretch->end_ns; i++) {
        const uint32_t sender = checker->messages[checker->done[i]].sender;
        (void)send_from(stretch, next_sender(setup, sender), now_ns);
    }
    checker->done_count = 0;
}

static void start_closed(struct stretch *stretch, uint64_t now_ns)
{
    const struct options *const options = stretch->setup->options;
    const uint32_t senders = options->kind == SCENARIO_ACKS ? options->senders : options->rooms;

    for (uint32_t i = 0; i < senders * options->in_flight; i++) {
        (void)send_from(stretch, i % senders, now_ns);
    }
}

static bool stretch_over(const struct stretch *stretch, uint64_t now_ns)
{
    const struct clients *const clients = &stretch->setup->clients;

    return clients->closed == clients->count ||
           (now_ns >= stretch->end_ns &&
            (clients->checker.open == 0 || now_ns >= stretch->limit_ns));
}

/* Runs one stretch; returns its seconds from begin to the last delivery, or -errno. */
static double run_stretch(struct setup *setup, double duration_s)
{
    const bool open = setup->options->kind == SCENARIO_OPEN;
    const uint64_t begin_ns = loadgen_now_ns();
    struct stretch stretch = {.setup = setup, .begin_ns = begin_ns};

    stretch.end_ns = begin_ns + (uint64_t)(duration_s * 1e9);
    stretch.limit_ns = stretch.end_ns + (uint64_t)(setup->options->tail_s * 1e9);
    setup->clients.checker.done_count = 0;
    if (!open) {
        start_closed(&stretch, begin_ns);
    }
    for (uint64_t now_ns = begin_ns; !stretch_over(&stretch, now_ns); now_ns = loadgen_now_ns()) {
        uint64_t until_ns = stretch.end_ns > now_ns ? stretch.end_ns : now_ns + 10000000;
        if (open) {
            const uint64_t due = pace_open(&stretch, now_ns);
            until_ns = due < until_ns ? due : until_ns;
        } else {
            pace_closed(&stretch, now_ns);
        }
        const int result = loadgen_turn(&setup->loadgen, until_ns);
        if (result < 0) {
            return result;
        }
    }
    return seconds_since(begin_ns);
}

/* What stood before the measured stretch. */
struct mark {
    struct checker_counts counts;
    uint64_t bytes, calls;
    double server_cpu_s, loader_cpu_s;
};

static void take_mark(const struct setup *setup, struct mark *ret)
{
    *ret = (struct mark){
        .counts = setup->clients.checker.counts,
        .bytes = setup->loadgen.received_bytes,
        .calls = setup->loadgen.received_calls,
        .server_cpu_s = procstat_cpu_s(setup->options->pid),
        .loader_cpu_s = procstat_own_cpu_s(),
    };
}

static void fill_cpu(const struct mark *before, const struct mark *after, struct report *report)
{
    report->loader_cpu_s = after->loader_cpu_s - before->loader_cpu_s;
    if (before->server_cpu_s >= 0 && after->server_cpu_s > before->server_cpu_s) {
        report->server_cpu_s = after->server_cpu_s - before->server_cpu_s;
    }
}

/* Counts of the measured stretch; what went wrong counts from the first connection on. */
static void fill_counts(const struct setup *setup, const struct mark *before, struct report *report)
{
    const struct clients *const clients = &setup->clients;
    const struct checker_counts *const now = &clients->checker.counts;
    uint64_t missing = 0;

    for (uint32_t i = 0; i < clients->count; i++) {
        missing += checker_missing(&clients->checker, &clients->all[i].member);
    }
    const uint64_t undelivered =
        now->expected > now->delivered ? now->expected - now->delivered : 0;
    report->sent = now->sent - before->counts.sent;
    report->expected = now->expected - before->counts.expected;
    report->delivered = now->delivered - before->counts.delivered;
    report->lost = missing > undelivered ? missing : undelivered;
    report->duplicated = now->duplicated;
    report->reordered = now->reordered;
    report->gaps = now->gaps;
    report->errors =
        now->ack_wrong + now->refused + now->foreign + clients->closed +
        checker_ack_mismatches(&clients->checker, 0, setup->options->kind != SCENARIO_ACKS);
}

/* Without listeners the acks are what must be whole: every seq between the first and the last named
 * once, and the last one in the room's history. */
static void fill_acks(struct setup *setup, const struct mark *before, struct report *report)
{
    const struct checker *const checker = &setup->clients.checker;
    char problem[SCENARIO_PROBLEM_BYTES] = "";
    uint64_t holes = 0, twice = 0, last_seq = 0;
    const int high = checker_ack_density(checker, &holes, &twice);

    report->expected = report->sent;
    report->delivered = checker->counts.acked - before->counts.acked;
    report->lost = checker->counts.sent - checker->counts.acked + holes;
    report->duplicated += twice;
    if (high < 0 || setup_last_seq(setup, 0, &last_seq, problem) < 0) {
        clients_problem(&setup->clients, "%s", problem);
        report->errors++;
    } else if (last_seq < (uint64_t)high) {
        report->lost += (uint64_t)high - last_seq;
    }
    report_latency(report, &checker->ack_latency);
}

static void fill_rates(const struct mark *before, const struct mark *after, struct report *report)
{
    const double delivered = (double)report->delivered;
    const double sent = (double)report->sent;
    const double calls = (double)(after->calls - before->calls);

    report->deliveries_per_s = delivered / report->seconds;
    report->messages_per_s = sent / report->seconds;
    if (report->server_cpu_s > 0) {
        report->deliveries_per_server_cpu_s = delivered / report->server_cpu_s;
        report->messages_per_server_cpu_s = sent / report->server_cpu_s;
    }
    if (delivered > 0 && calls > 0) {
        report->bytes_per_delivery = (double)(after->bytes - before->bytes) / delivered;
        report->deliveries_per_receive = delivered / calls;
    }
}

static void fill(struct setup *setup, const struct mark *before, struct report *report)
{
    const struct options *const options = setup->options;
    const struct checker *const checker = &setup->clients.checker;
    struct mark after;

    take_mark(setup, &after);
    fill_cpu(before, &after, report);
    report_memory(report, options->pid);
    fill_counts(setup, before, report);
    report_latency(report, &checker->latency);
    report->ack_p50_ms = report_quantile_ms(&checker->ack_latency, 0.5);
    report->ack_p99_ms = report_quantile_ms(&checker->ack_latency, 0.99);
    report->connections = options->connections;
    report->rooms = options->rooms;
    report->rate = options->kind == SCENARIO_OPEN ? options->rate : NAN;
    if (options->kind == SCENARIO_ACKS) {
        fill_acks(setup, before, report);
    }
    fill_rates(before, &after, report);
}

static uint32_t messages_of(const struct options *options)
{
    const double open = options->rate * (options->duration_s + options->warmup_s);

    if (options->kind == SCENARIO_IDLE || options->kind == SCENARIO_CONNECT) {
        return 1;
    }
    if (options->kind != SCENARIO_OPEN || open + MESSAGES_OPEN_SPARE > MESSAGES_CLOSED_MAX) {
        return MESSAGES_CLOSED_MAX;
    }
    return (uint32_t)open + MESSAGES_OPEN_SPARE;
}

/* Holds the connections, answering pings, and takes what comes. */
static int hold(struct setup *setup, double seconds)
{
    const uint64_t until_ns = loadgen_now_ns() + (uint64_t)(seconds * 1e9);
    int result = 0;

    while (result == 0 && loadgen_now_ns() < until_ns) {
        result = loadgen_turn(&setup->loadgen, until_ns);
    }
    return result;
}

/* The command that is to run between warm-up and load; then a moment for what came meanwhile. */
static int run_before(struct setup *setup, char *problem)
{
    const char *const words[] = {"sh", "-c", setup->options->before, NULL};
    char said[256] = "";

    if (setup->options->before == NULL) {
        return 0;
    }
    const int status = persist_child_run(words, before_timeout_s, said, sizeof(said));
    if (status != 0) {
        (void)snprintf(problem, SCENARIO_PROBLEM_BYTES, "--before ended with %d: %s", status, said);
        return -ECANCELED;
    }
    return hold(setup, before_settle_s);
}

static int measure(struct setup *setup, struct report *report, char *problem)
{
    struct checker *const checker = &setup->clients.checker;
    struct mark before;
    double seconds = 0;
    int result = setup_connect(setup, problem);

    if (result < 0) {
        return result;
    }
    if (setup->options->warmup_s > 0) {
        seconds = run_stretch(setup, setup->options->warmup_s);
    }
    result = seconds >= 0 ? run_before(setup, problem) : 0;
    if (result < 0) {
        return result;
    }
    histogram_init(&checker->latency);
    histogram_init(&checker->ack_latency);
    take_mark(setup, &before);
    if (seconds >= 0) {
        seconds = run_stretch(setup, setup->options->duration_s);
    }
    if (seconds < 0) {
        return (int)seconds;
    }
    report->seconds = seconds;
    fill(setup, &before, report);
    (void)snprintf(problem, SCENARIO_PROBLEM_BYTES, "%s", setup->clients.problem);
    return 0;
}

/* Sets up, runs what was given, and takes everything down again. */
static int with_setup(const struct options *options, struct report *report, char *problem,
                      int (*measured)(struct setup *, struct report *, char *))
{
    struct setup setup;
    int result = setup_begin(&setup, options, messages_of(options), problem);

    if (result == 0) {
        result = measured(&setup, report, problem);
        setup_end(&setup);
    }
    return result;
}

/* One try at a rate, with connections and a room of its own, so that a rate that was too high
 * leaves nothing to the next. 1: all delivered within the bound; 0: not; < 0: could not be tried.
 */
static int try_rate(const struct options *options, double rate)
{
    struct options step = *options;
    struct report report;
    char problem[SCENARIO_PROBLEM_BYTES] = "";

    step.rate = rate;
    step.duration_s = search_step_s < options->duration_s ? search_step_s : options->duration_s;
    step.warmup_s = search_warmup_s;
    step.tail_s = search_tail_s;
    report_init(&report, options->scenario);
    const int result = with_setup(&step, &report, problem, measure);
    if (result < 0) {
        (void)fprintf(stderr, "damso-bench: %s\n", problem);
        return result;
    }
    const bool good = report_clean(&report) && report.p99_ms <= options->p99_ms;
    if (!options->json) {
        (void)printf("  tried %.0f messages/s: lost %llu, p99 %.1f ms: %s\n", rate,
                     (unsigned long long)report.lost, report.p99_ms, good ? "good" : "too much");
        (void)fflush(stdout);
    }
    return good;
}

/* What fails once is tried once more: another process on the machine can spoil a p99, but it cannot
 * improve one. */
static int try_rate_twice(const struct options *options, double rate)
{
    const int result = try_rate(options, rate);

    return result == 0 ? try_rate(options, rate) : result;
}

/* Doubles until a rate is too much, then halves the distance three times. */
static int search(const struct options *options, double *ret_rate)
{
    double good = 0, bad = 0, rate = SEARCH_FROM;
    int result = 0;

    for (int i = 0; i < SEARCH_DOUBLINGS && bad == 0; i++) {
        result = try_rate_twice(options, rate);
        if (result < 0) {
            return result;
        }
        *(result > 0 ? &good : &bad) = rate;
        rate *= 2;
    }
    for (int i = 0; i < SEARCH_BISECTIONS && bad > 0; i++) {
        rate = (good + bad) / 2;
        result = try_rate_twice(options, rate);
        if (result < 0) {
            return result;
        }
        *(result > 0 ? &good : &bad) = rate;
    }
    *ret_rate = good;
    return 0;
}

static int search_or_load(const struct options *options, struct report *report, char *problem)
{
    struct options found = *options;

    if (options->kind == SCENARIO_OPEN && options->rate == 0) {
        const int result = search(options, &found.rate);
        if (result < 0) {
            return result;
        }
        if (found.rate == 0) {
            (void)snprintf(problem, SCENARIO_PROBLEM_BYTES,
                           "no rate was low enough for p99 <= %g ms; try --rate or --p99-ms",
                           options->p99_ms);
            return -ETIMEDOUT;
        }
    }
    return with_setup(&found, report, problem, measure);
}

static int measure_idle(struct setup *setup, struct report *report, char *problem)
{
    const struct options *const options = setup->options;
    struct procstat_memory before = {0}, after = {0};
    struct mark mark;
    int result = setup_members(setup, problem);

    result = result == 0 ? hold(setup, options->duration_s) : result; /* the store catches up */
    if (result < 0) {
        return result;
    }
    const bool known = procstat_memory(options->pid, &before) == 0;
    result = setup_connect(setup, problem);
    if (result < 0) {
        return result;
    }
    const uint64_t begin_ns = loadgen_now_ns();
    take_mark(setup, &mark);
    result = hold(setup, options->duration_s);
    if (result < 0) {
        return result;
    }
    report->seconds = seconds_since(begin_ns);
    fill(setup, &mark, report);
    report->deliveries_per_s = NAN;
    report->messages_per_s = NAN;
    report->rate = NAN;
    if (known && procstat_memory(options->pid, &after) == 0) {
        const double connections = options->connections;
        report->bytes_per_connection =
            ((double)after.rss_bytes - (double)before.rss_bytes) / connections;
        report->private_bytes_per_connection =
            ((double)after.private_bytes - (double)before.private_bytes) / connections;
    }
    (void)snprintf(problem, SCENARIO_PROBLEM_BYTES, "%s", setup->clients.problem);
    return 0;
}

/* One pass over the connections: those that are through are reset, and free ones begin again.
 * Returns how many are under way, or -errno. */
static int connect_pass(struct setup *setup, bool more, uint64_t *tried)
{
    struct clients *const clients = &setup->clients;
    int busy = 0;

    for (uint32_t i = 0; i < clients->count; i++) {
        struct client *const client = &clients->all[i];
        if (client->state == CLIENT_LIVE) {
            loadgen_close(&setup->loadgen, client);
        }
        if (client->fd < 0 && more) {
            const int result = loadgen_open(&setup->loadgen, client);
            if (result < 0) {
                return result;
            }
            (*tried)++;
        }
        busy += client->fd >= 0;
    }
    return busy;
}

static int connect_for(struct setup *setup, double seconds, uint64_t *tried)
{
    const uint64_t end_ns = loadgen_now_ns() + (uint64_t)(seconds * 1e9);
    const uint64_t limit_ns = end_ns + (uint64_t)(setup->options->tail_s * 1e9);
    int busy = 1;

    for (uint64_t now_ns = 0; busy > 0 && now_ns < limit_ns;) {
        now_ns = loadgen_now_ns();
        busy = connect_pass(setup, now_ns < end_ns, tried);
        const int result = busy < 0 ? busy : loadgen_turn(&setup->loadgen, now_ns + 10000000);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

static void fill_connect(const struct setup *setup, const struct mark *before, uint64_t tried,
                         uint64_t connected, struct report *report)
{
    struct mark after;

    take_mark(setup, &after);
    fill_cpu(before, &after, report);
    report_memory(report, setup->options->pid);
    report_latency(report, &setup->clients.connect_latency);
    report->connections = setup->options->connections;
    report->sent = tried;
    report->expected = tried;
    report->delivered = connected;
    report->lost = tried - connected;
    report->errors = setup->clients.checker.counts.foreign;
    report->connects_per_s = (double)connected / report->seconds;
    if (report->server_cpu_s > 0) {
        report->connects_per_server_cpu_s = (double)connected / report->server_cpu_s;
    }
}

static int measure_connect(struct setup *setup, struct report *report, char *problem)
{
    const struct options *const options = setup->options;
    struct clients *const clients = &setup->clients;
    struct mark before;
    uint64_t tried = 0;
    /* At least a moment: it makes the users known, and tells whether there is a server at all. */
    int result = connect_for(setup, options->warmup_s > 0.1 ? options->warmup_s : 0.1, &tried);

    if (result == 0 && clients->connected == 0) {
        result = -ECONNREFUSED;
    }
    if (result < 0) {
        (void)snprintf(problem, SCENARIO_PROBLEM_BYTES, "cannot connect to %s: %s", options->url,
                       clients->problem[0] != '\0' ? clients->problem : strerrordesc_np(-result));
        return result;
    }
    histogram_init(&clients->connect_latency);
    take_mark(setup, &before);
    const uint64_t connected_before = clients->connected;
    const uint64_t begin_ns = loadgen_now_ns();
    tried = 0;
    result = connect_for(setup, options->duration_s, &tried);
    if (result < 0) {
        return result;
    }
    report->seconds = seconds_since(begin_ns);
    fill_connect(setup, &before, tried, clients->connected - connected_before, report);
    (void)snprintf(problem, SCENARIO_PROBLEM_BYTES, "%s", clients->problem);
    return 0;
}

int scenario_run(const struct options *options, struct report *report, char *problem)
{
    switch (options->kind) {
    case SCENARIO_IDLE:
        return with_setup(options, report, problem, measure_idle);
    case SCENARIO_CONNECT:
        return with_setup(options, report, problem, measure_connect);
    case SCENARIO_OPEN:
    case SCENARIO_CLOSED:
    case SCENARIO_ACKS:
        return search_or_load(options, report, problem);
    case SCENARIO_JOURNAL:
        return journal_load_run(options, report, problem);
    case SCENARIO_PERSIST:
    case SCENARIO_PERSIST_REDIS:
    case SCENARIO_PERSIST_MONGODB:
    case SCENARIO_PERSIST_HISTORY:
        break; /* persist_runs.h */
    }
    return -EINVAL;
}
