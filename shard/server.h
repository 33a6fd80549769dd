/*
 * server.h - all shards of a process, and persistence, from start to stop.
 *
 *   server_open    rings -> lock and key -> store -> recovery -> journals -> listeners
 *   server_start   the persistence thread, then one a shard
 *   server_stop    the same in turn back
 *
 * Walk:       from shard/main.c; to shard/loop.c, a thread each.
 * Threads:    main, but for server_stopping and server_metrics.
 */
#pragma once

#include "core/config.h"
#include "shard/auth.h"
#include "shard/replay.h"
#include "shard/shard.h"
#include "shard/web_files.h"

#include <pthread.h>
#include <stdatomic.h>

struct server {
    const struct config *config;
    const struct service *service;
    bool stores; /* with journal and persistence; ws-echo has none */
    uint32_t count;
    struct shard *shards[SHARDS_MAX];
    pthread_t threads[SHARDS_MAX];
    uint32_t started;
    struct mem_plan plan;
    struct mesh_lane *lanes; /* count * count: from, to */
    struct persist_lane *persist_lanes;
    struct persist *persist;
    struct replay replay; /* of earlier runs, into a store that takes it while this one serves */
    struct metrics *persist_metrics;
    struct metrics *main_metrics;
    struct os_ring *ring; /* main's own: to ring doorbells */
    struct auth auth;
    struct web_files web;
    uint16_t port;
    int lock; /* descriptor of DATA/lock */
    _Atomic bool stopping;
    _Atomic uint32_t enabled; /* shards whose ring is up */
    _Atomic bool failed;      /* a shard ended by itself */
};

/* How a start failed, as an exit code: docs/OPERATIONS.md lists them. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_RUNTIME = 1, /* something failed while running */
    EXIT_USAGE = 2,   /* flags or configuration */
    EXIT_KERNEL = 3,  /* io_uring, limits */
    EXIT_ADDRESS = 4, /* address or port */
    EXIT_DATA = 5,    /* data directory, journal, store, key */
};

/* config and service outlive the server. */
struct server_options {
    const struct config *config;
    const struct service *service;
    uint32_t shards;
    bool stores;  /* with journal and persistence */
    bool salvage; /* as recovery_run has it */
};

/* Prepares everything; on failure the exit code, with ret_why a sentence for people. */
enum exit_code server_open(struct server *server, const struct server_options *options,
                           char *ret_why, size_t why_size);

/* Starts the threads and waits until every one of them serves. */
enum exit_code server_start(struct server *server, char *ret_why, size_t why_size);

/* Asks all shards to stop, waits for them, closes persistence and gives everything back; also after
 * a start that failed half-way. */
void server_stop(struct server *server);

/* Any thread. */
bool server_stopping(struct server *server);

/* The Prometheus text of all threads: size or -ENOSPC. Any shard. */
int64_t server_metrics(struct server *server, char *text, uint32_t capacity);

/* Prints what memory the configuration asks for; maps nothing. */
void server_print_plan(const struct config *config, uint32_t count);
