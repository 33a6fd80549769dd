/* main.c - damsod: reads the configuration, opens the server, waits for the signal to stop. */
#include "core/log.h"
#include "shard/move.h"
#include "shard/notify.h"
#include "shard/options.h"
#include "shard/rest.h"
#include "shard/server.h"
#include "shard/session.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

extern char **environ;

static const struct service damso = {.request = rest_request,
                                     .message = session_message,
                                     .closed = session_closed,
                                     .drained = session_drained,
                                     .idle = session_idle};

/* What a start was given: a reload reads it all again. */
struct command_line {
    int count;
    char **words;
};

/* SIGHUP: takes over the keys that may change while running, and names those that need a restart.
 */
static void reload(struct config *config, const struct command_line *line)
{
    static struct config next;
    static struct config_errors errors;
    struct options options;

    errors.count = 0;
    if (options_read(line->count, line->words, environ, &next, &options) < 0) {
        log_error("reload refused: the configuration is wrong; everything stays as it was");
        return;
    }
    const uint32_t changed = config_reload(config, &next, &errors);
    log_level_set((enum log_level)config->log_level);
    for (uint32_t i = 0; i < errors.count && i < CONFIG_ERRORS_MAX; i++) {
        log_warning("reload: %s", errors.text[i]);
    }
    log_notice("reloaded keys=%u", changed);
}

/* Until SIGTERM or SIGINT, or until a shard has failed. */
static void wait_for_stop(struct server *server, struct config *config,
                          const struct command_line *line, const sigset_t *signals)
{
    const struct timespec second = {.tv_sec = 1};
    int got = 0;
    while (got != SIGTERM && got != SIGINT && !atomic_load(&server->failed)) {
        got = sigtimedwait(signals, NULL, &second);
        log_flush();
        const struct log_counts counts = log_counts();
        metrics_set(&server->main_metrics->log_suppressed_total, counts.suppressed);
        metrics_set(&server->main_metrics->log_dropped_total, counts.dropped);
        if (got == SIGHUP) {
            notify("RELOADING=1");
            reload(config, line);
            notify("READY=1");
        }
    }
}

static int run(struct config *config, const struct options *options,
               const struct command_line *line)
{
    static struct server server;
    char why[512] = "";
    sigset_t signals;

    /* Blocked before any thread is made, so that only main takes them. */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077); /* what is written here is nobody else's: keys, messages, password hashes */
    log_init((enum log_level)config->log_level, (enum log_prefix)config->log_priority_prefix);

    const struct server_options server_options = {.config = config,
                                                  .service = &damso,
                                                  .shards = options->shards,
                                                  .stores = true,
                                                  .salvage = options->salvage};
    enum exit_code failure = server_open(&server, &server_options, why, sizeof(why));
    if (failure == EXIT_OK) {
        failure = server_start(&server, why, sizeof(why));
    }
    if (failure != EXIT_OK) {
        log_error("cannot start: %s", why);
        server_stop(&server);
        return (int)failure;
    }
    (void)printf("damsod: ready at http://%s:%u\n", config->server_listen, server.port);
    (void)fflush(stdout);
    notify("READY=1\nSTATUS=serving");
    wait_for_stop(&server, config, line, &signals);
    notify("STOPPING=1\nSTATUS=stopping");
    server_stop(&server);
    log_end();
    return atomic_load(&server.failed) ? EXIT_RUNTIME : EXIT_OK;
}

/* libmongoc makes a file of counters in shared memory as soon as it is loaded, before main. Nobody
 * reads it, and a kill -9 would leave it behind: its name goes now, the memory with the process. */
static void forget_counters(void)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "/mongoc-%d", (int)getpid());
    (void)shm_unlink(name);
}

int main(int count, char **words)
{
    static struct config config;
    struct options options;

    forget_counters();
    if (options_read(count, words, environ, &config, &options) < 0) {
        return EXIT_USAGE;
    }
    switch (options.action) {
    case ACTION_CHECK:
        (void)puts("the configuration is fine");
        return EXIT_OK;
    case ACTION_PRINT_DEFAULT:
        config_print_default(stdout);
        return EXIT_OK;
    case ACTION_PLAN:
        server_print_plan(&config, options.shards);
        return EXIT_OK;
    case ACTION_VERSION:
        (void)puts("damsod " DAMSO_VERSION);
        return EXIT_OK;
    case ACTION_HELP:
        options_print_help();
        return EXIT_OK;
    case ACTION_MOVE:
        return move_main(&config, &options);
    default:
        return run(&config, &options, &(struct command_line){count, words});
    }
}
