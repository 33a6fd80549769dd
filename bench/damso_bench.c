/*
 * damso_bench.c - main: command line, one scenario, its report.
 *
 * Walk: options.c, scenario.c (what is sent when), loadgen.c (sockets), client.c (frames),
 *       checker.c (what came), report.c. The journal alone: journal_load.c instead of sockets.
 *       Redis and MongoDB: persist_table.c, with servers of its own, and persist_load.c without.
 */
#include "bench/options.h"
#include "bench/persist_figures.h"
#include "bench/persist_history.h"
#include "bench/persist_mongodb.h"
#include "bench/persist_redis.h"
#include "bench/persist_table.h"
#include "bench/report.h"
#include "bench/scenario.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_CLEAN = 0, EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

static int pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) < 0 ? -errno : 0;
}

static void ending_signals(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGHUP);
    (void)sigaddset(ret, SIGINT);
    (void)sigaddset(ret, SIGTERM);
}

/* The persistence scenarios have figures of their own. A signal waits until their servers are gone.
 */
static int run_persist(const struct options *options)
{
    static struct persist_figures figures;
    sigset_t ending, others;
    int result = -EINVAL;

    ending_signals(&ending);
    (void)pthread_sigmask(SIG_BLOCK, &ending, &others);
    persist_figures_init(&figures, options->scenario);
    if (options->kind == SCENARIO_PERSIST) {
        result = persist_table_run(options, &figures);
    } else if (options->kind == SCENARIO_PERSIST_REDIS) {
        result = persist_redis_run(options, &figures);
    } else if (options->kind == SCENARIO_PERSIST_MONGODB) {
        result = persist_mongodb_run(options, &figures);
    } else if (options->kind == SCENARIO_PERSIST_HISTORY) {
        result = persist_history_run(options, &figures);
    }
    (void)pthread_sigmask(SIG_SETMASK, &others, NULL); /* one that waits is taken here */
    if (result < 0) {
        (void)fprintf(stderr, "damso-bench: %s\n",
                      figures.problem[0] != '\0' ? figures.problem : strerrordesc_np(-result));
        return result == -EINVAL ? EXIT_USAGE : EXIT_UNREACHABLE;
    }
    if (!options->json && options->kind != SCENARIO_PERSIST) {
        persist_figures_people(&figures);
    }
    persist_figures_json(&figures);
    return figures.errors == 0 ? EXIT_CLEAN : EXIT_WRONG;
}

int main(int argument_count, char **arguments)
{
    struct options options;
    struct report report;
    char problem[SCENARIO_PROBLEM_BYTES] = "";

    if (options_parse(argument_count, arguments, &options) < 0) {
        const bool help = argument_count > 1 && strcmp(arguments[1], "--help") == 0;
        return help ? EXIT_CLEAN : EXIT_USAGE;
    }
    if (options.cpu >= 0 && pin(options.cpu) < 0) {
        (void)fprintf(stderr, "damso-bench: --cpu %d: %s\n", options.cpu, strerrordesc_np(errno));
        return EXIT_USAGE;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    if (options.kind >= SCENARIO_PERSIST) {
        return run_persist(&options);
    }
    report_init(&report, options.scenario);
    const int result = scenario_run(&options, &report, problem);
    report.problem = problem;
    if (result < 0) {
        (void)fprintf(stderr, "damso-bench: %s\n",
                      problem[0] != '\0' ? problem : strerrordesc_np(-result));
        return result == -EINVAL ? EXIT_USAGE : EXIT_UNREACHABLE;
    }
    if (!options.json) {
        report_people(&report);
    }
    report_json(&report);
    return report_clean(&report) ? EXIT_CLEAN : EXIT_WRONG;
}
