/*
 * damso_bench.c - main: command line, one scenario, its report.
 *
 * Walk: options.c, scenario.c (what is sent when), loadgen.c (sockets), client.c (frames),
 *       checker.c (what came), report.c. The journal alone: journal_load.c instead of sockets.
 */
#include "bench/options.h"
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
