/* server.c - see server.h. */
#include "shard/server.h"

#include "core/check.h"
#include "core/log.h"
#include "fileio/recovery.h"
#include "shard/loop.h"
#include "shard/move.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    PATH_BYTES = 512,
    MAIN_RING_ENTRIES = 128,
    STORES_WAIT_US = 2000,
    STORES_WAITS_MAX = 30000, /* a minute */
};

static uint32_t power_of_two(uint64_t size)
{
    uint32_t power = 4096;
    while (power < size && power < (1U << 30)) {
        power *= 2;
    }
    return power;
}

static int explain(char *ret_why, size_t why_size, const char *what, const char *where, int error)
{
    (void)snprintf(ret_why, why_size, "%s %s: %s", what, where, os_error(error));
    return error;
}

/* --- data directory --- */

static int lock_data(struct server *server, char *ret_why, size_t why_size)
{
    char path[PATH_BYTES];
    const char *data = server->config->server_data;
    const int error = os_directory_make(data);

    if (error < 0) {
        return explain(ret_why, why_size, "cannot make the data directory", data, error);
    }
    (void)snprintf(path, sizeof(path), "%s/lock", data);
    server->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (server->lock < 0) {
        return explain(ret_why, why_size, "cannot open", path, -errno);
    }
    if (flock(server->lock, LOCK_EX | LOCK_NB) < 0) {
        (void)snprintf(ret_why, why_size,
                       "another damsod uses the data directory %s: stop it, or choose another one "
                       "with --data",
                       data);
        return -EBUSY;
    }
    return 0;
}

/* What a store that takes all at once is given before anybody may ask (embedded). */
struct given {
    struct persist *persist;
    bool salvage;
};

static int give_record(void *context, const void *record, uint32_t size)
{
    const struct given *given = context;
    return persist_replay(given->persist, record, size, given->salvage);
}

static void tell_recovered(const struct recovery_report *report, uint64_t began_ns)
{
    if (report->records > 0 || report->torn_bytes > 0) {
        log_notice("recovered records=%llu bytes=%llu torn_bytes=%llu milliseconds=%llu",
                   (unsigned long long)report->records, (unsigned long long)report->bytes,
                   (unsigned long long)report->torn_bytes,
                   (unsigned long long)((os_now_ns() - began_ns) / 1000000));
    }
    if (report->salvaged_gaps > 0) {
        log_warning("salvage passed over damage places=%llu",
                    (unsigned long long)report->salvaged_gaps);
    }
}

/* One journal directory into the store; generation 0 is `journal`. */
static int give_journal(struct server *server, uint32_t generation, bool salvage,
                        uint64_t *ret_first_segment, char *ret_why, size_t why_size)
{
    char path[SEGMENT_PATH_MAX];
    struct recovery_report report = {0};
    struct given given = {server->persist, salvage};
    const uint64_t began_ns = os_now_ns();
    int error = recovery_directory(server->config->server_data, generation, path);

    error = error < 0
                ? error
                : recovery_run(path, salvage, give_record, &given, &report, ret_why, why_size);
    if (error == 0) {
        *ret_first_segment = report.first_segment;
        tell_recovered(&report, began_ns);
    }
    return error;
}

/* What is in the store is no longer needed in journals. */
static int free_journals(struct server *server, uint32_t first, uint32_t count, char *ret_why,
                         size_t why_size)
{
    char path[SEGMENT_PATH_MAX];
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < count; i++) {
        error = recovery_drop(server->config->server_data, first + i, ret_why, why_size);
    }
    error = error < 0 ? error : recovery_directory(server->config->server_data, 0, path);
    error = error < 0 ? error : recovery_retire(path);
    return error < 0 ? explain(ret_why, why_size, "cannot bring the journal into the store",
                               server->config->server_data, error)
                     : 0;
}

/* All that earlier runs had journaled goes into the store before anybody may ask. */
static int recover_first(struct server *server, bool salvage, uint64_t *ret_first_segment,
                         char *ret_why, size_t why_size)
{
    uint32_t first = 0;
    uint32_t count = 0;
    int error = recovery_generations(server->config->server_data, salvage, &first, &count, ret_why,
                                     why_size);

    for (uint32_t i = 0; error == 0 && i < count; i++) {
        error = give_journal(server, first + i, salvage, ret_first_segment, ret_why, why_size);
    }
    error =
        error < 0 ? error : give_journal(server, 0, salvage, ret_first_segment, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = persist_replay_end(server->persist);
    if (error < 0) {
        return explain(ret_why, why_size, "cannot bring the journal into the store",
                       server->config->server_data, error);
    }
    return free_journals(server, first, count, ret_why, why_size);
}

static int recover(struct server *server, bool salvage, uint64_t *ret_first_segment, char *ret_why,
                   size_t why_size)
{
    if (persist_replays_later(server->persist)) {
        return replay_open(&server->replay, server->config->server_data, salvage, &server->plan,
                           ret_first_segment, ret_why, why_size);
    }
    return recover_first(server, salvage, ret_first_segment, ret_why, why_size);
}

/* --- shards --- */

/* A group fits a segment: the smaller of the two wishes. */
static uint32_t journal_buffer_bytes(const struct config *config)
{
    return (uint32_t)(config->journal_buffer_bytes < config->journal_segment_bytes
                          ? config->journal_buffer_bytes
                          : config->journal_segment_bytes);
}

static int open_journal(struct server *server, struct shard *shard, const char *directory,
                        uint64_t first_segment, char *ret_why, size_t why_size)
{
    const struct config *config = server->config;
    const struct journal_options options = {
        .ring = shard->ring,
        .directory = directory,
        .shard = shard->index,
        .segment_bytes = (uint32_t)config->journal_segment_bytes,
        .bytes_max = config->journal_bytes_max / server->count,
        .buffer_bytes = journal_buffer_bytes(config),
        .first_segment = first_segment,
        .tag_kind = TAG_JOURNAL,
        .metrics = shard->metrics,
    };
    return journal_open(&options, &shard->plan, &shard->journal, ret_why, why_size);
}

static void connect_shard(struct server *server, struct shard *shard)
{
    shard->server = server;
    shard->service = server->service;
    shard->auth = &server->auth;
    shard->web = &server->web;
    for (uint32_t i = 0; i < server->count; i++) {
        if (i != shard->index) {
            shard->mesh.peers[i] =
                (struct mesh_peer){.out = &server->lanes[shard->index * server->count + i],
                                   .in = &server->lanes[i * server->count + shard->index],
                                   .bell = &server->shards[i]->bell,
                                   .ring = server->shards[i]->ring};
        }
    }
    if (!server->stores) {
        return;
    }
    struct persist_lane *lane = &server->persist_lanes[shard->index];
    lane->shard_bell = &shard->bell;
    lane->shard_ring = shard->ring;
    lane->shard_tag = os_tag(TAG_DOORBELL, 0, shard->index);
    shard->lane = lane;
    shard->persist = server->persist;
}

/* The rings between threads, of all pairs. */
static void plan_lanes(struct server *server, struct mem_plan *plan)
{
    const uint32_t count = server->count;
    const uint32_t size = power_of_two(server->config->mesh_ring_bytes);
    const uint32_t store = power_of_two(server->config->persist_ring_bytes);

    server->lanes = mem_reserve(plan, "mesh", sizeof(struct mesh_lane), (size_t)count * count);
    char *bytes =
        count > 1 ? mem_reserve(plan, "mesh rings", size, (size_t)count * count * 2) : NULL;
    for (uint32_t i = 0; bytes != NULL && i < count * count; i++, bytes += 2 * (size_t)size) {
        spsc_init(&server->lanes[i].requests, bytes, size);
        spsc_init(&server->lanes[i].events, bytes + size, size);
    }
    server->persist_lanes =
        mem_reserve(plan, "persistence lanes", sizeof(struct persist_lane), count);
    bytes = mem_reserve(plan, "persistence rings", store, (size_t)count * 2);
    for (uint32_t i = 0; bytes != NULL && i < count; i++, bytes += 2 * (size_t)store) {
        spsc_init(&server->persist_lanes[i].requests, bytes, store);
        spsc_init(&server->persist_lanes[i].replies, bytes + store, store);
    }
    server->persist_metrics =
        mem_reserve(plan, "metrics of persistence", sizeof(struct metrics), 1);
    server->main_metrics = mem_reserve(plan, "metrics of main", sizeof(struct metrics), 1);
}

static enum exit_code open_shards(struct server *server, char *ret_why, size_t why_size)
{
    const struct os_ring_options options = {.entries = MAIN_RING_ENTRIES};
    for (uint32_t i = 0; i < server->count; i++) {
        server->shards[i] = mem_alloc(&server->plan, "shard", sizeof(struct shard));
        if (server->shards[i] == NULL) {
            return EXIT_KERNEL;
        }
        shard_plan(server->shards[i], server->config, i, server->count, MEM_MAP);
        if (shard_open(server->shards[i], ret_why, why_size) < 0) {
            return EXIT_KERNEL;
        }
    }
    return os_ring_create(&options, &server->ring, ret_why, why_size) < 0 ? EXIT_KERNEL : EXIT_OK;
}

static enum exit_code open_store(struct server *server, bool salvage, char *ret_why,
                                 size_t why_size)
{
    static char directory[PATH_BYTES]; /* journals keep it */
    uint64_t first_segment = 0;

    if (lock_data(server, ret_why, why_size) < 0 ||
        move_check_mode(server->config->server_data, server->config->persist_mode, ret_why,
                        why_size) < 0 ||
        auth_open(&server->auth, server->config, ret_why, why_size) < 0 ||
        persist_open(server->config, &server->persist, ret_why, why_size) < 0 ||
        recover(server, salvage, &first_segment, ret_why, why_size) < 0) {
        return EXIT_DATA;
    }
    (void)snprintf(directory, sizeof(directory), "%s/journal", server->config->server_data);
    for (uint32_t i = 0; i < server->count; i++) {
        if (open_journal(server, server->shards[i], directory, first_segment, ret_why, why_size) <
            0) {
            return EXIT_DATA;
        }
    }
    return EXIT_OK;
}

static enum exit_code open_address(struct server *server, char *ret_why, size_t why_size)
{
    const struct config *config = server->config;
    const int error =
        os_port_claim(config->server_listen, (uint16_t)config->server_port, &server->port);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "cannot listen on %s port %llu: %s%s",
                       config->server_listen, (unsigned long long)config->server_port,
                       os_error(error),
                       error == -EADDRINUSE ? "; stop what uses it, or choose another with --port"
                                            : "; see [server] listen and port");
        return EXIT_ADDRESS;
    }
    for (uint32_t i = 0; i < server->count; i++) {
        server->shards[i]->listener = os_listen(config->server_listen, server->port,
                                                (uint32_t)config->limits_send_buffer_bytes);
        if (server->shards[i]->listener < 0) {
            (void)explain(ret_why, why_size, "cannot listen on", config->server_listen,
                          server->shards[i]->listener);
            return EXIT_ADDRESS;
        }
    }
    return EXIT_OK;
}

static int seal(struct server *server, char *ret_why, size_t why_size)
{
    int error = mem_seal(&server->plan);
    for (uint32_t i = 0; error == 0 && i < server->count; i++) {
        error = mem_seal(&server->shards[i]->plan);
    }
    return error < 0 ? explain(ret_why, why_size, "cannot reserve the memory that is planned",
                               "(see damsod --plan)", error)
                     : 0;
}

enum exit_code server_open(struct server *server, const struct server_options *options,
                           char *ret_why, size_t why_size)
{
    *server = (struct server){.config = options->config,
                              .service = options->service,
                              .stores = options->stores,
                              .count = options->shards,
                              .lock = -1};
    mem_init(&server->plan, "server", MEM_MAP);

    enum exit_code failure = open_shards(server, ret_why, why_size);
    if (failure == EXIT_OK && server->stores) {
        failure = open_store(server, options->salvage, ret_why, why_size);
    }
    if (failure == EXIT_OK &&
        web_files_open(&server->web, server->config, &server->plan, ret_why, why_size) < 0) {
        failure = EXIT_USAGE;
    }
    if (failure != EXIT_OK) {
        return failure;
    }
    plan_lanes(server, &server->plan);
    if (seal(server, ret_why, why_size) < 0) {
        return EXIT_KERNEL;
    }
    for (uint32_t i = 0; i < server->count; i++) {
        connect_shard(server, server->shards[i]);
    }
    return open_address(server, ret_why, why_size);
}

/* --- threads --- */

static void *shard_thread(void *argument)
{
    struct shard *shard = argument;
    struct server *server = shard->server;

    if (server->config->server_pin && server->count > 1) {
        (void)!os_pin(shard->index); /* a wish: the shard works unpinned too */
    }
    int error = os_ring_enable(shard->ring);
    atomic_fetch_add(&server->enabled, 1);
    /* A doorbell to a ring that is not enabled is lost: nobody serves before all are. */
    for (int i = 0; i < 10000 && atomic_load(&server->enabled) < server->count; i++) {
        (void)usleep(1000);
    }
    error = error < 0 ? error : loop_run(shard);
    if (error < 0) {
        log_error("shard %u ended: %s", shard->index, os_error(error));
        atomic_store(&server->failed, true);
    }
    return NULL;
}

/* Persistence with a lane for each shard, and one for what earlier runs left. */
static int start_persist(struct server *server)
{
    struct persist_lane *lanes[SHARDS_MAX + 1];
    uint32_t count = server->count;

    for (uint32_t i = 0; i < count; i++) {
        lanes[i] = &server->persist_lanes[i];
    }
    if (server->replay.count > 0) {
        lanes[count++] = &server->replay.lane;
    }
    const int error = persist_start(server->persist, lanes, count, server->persist_metrics);
    return error < 0 ? error : replay_start(&server->replay, server->persist);
}

/* Clients are let in when rooms can be loaded, or when it is clear that a store is away: 0, or
 * -errno if the configuration asks for the stores. */
static int wait_for_stores(struct server *server, char *ret_why, size_t why_size)
{
    char why[384] = "they did not answer in time";
    enum persist_state state = PERSIST_STARTING;

    for (int i = 0; i < STORES_WAITS_MAX && state == PERSIST_STARTING; i++) {
        state = persist_state(server->persist, why, sizeof(why));
        if (state == PERSIST_STARTING) {
            (void)usleep(STORES_WAIT_US);
        }
    }
    const bool all = state == PERSIST_READY && persist_is_well(server->persist);
    if (all || !server->config->persist_require_stores) {
        return 0;
    }
    (void)snprintf(ret_why, why_size,
                   "%s; [persist] require_stores is on, so damsod does not start without its "
                   "stores",
                   why);
    return -EAGAIN;
}

enum exit_code server_start(struct server *server, char *ret_why, size_t why_size)
{
    int error = os_ring_enable(server->ring);

    if (server->stores && error == 0) {
        error = start_persist(server);
        if (error == 0 && wait_for_stores(server, ret_why, why_size) < 0) {
            return EXIT_DATA;
        }
    }
    for (uint32_t i = 0; error == 0 && i < server->count; i++) {
        error = -pthread_create(&server->threads[i], NULL, shard_thread, server->shards[i]);
        server->started += error == 0;
    }
    if (error < 0) {
        (void)explain(ret_why, why_size, "cannot start", "threads", error);
        return EXIT_KERNEL;
    }
    for (int i = 0; i < 10000 && atomic_load(&server->enabled) < server->count; i++) {
        (void)usleep(1000);
    }
    return EXIT_OK;
}

bool server_stopping(struct server *server)
{
    return atomic_load_explicit(&server->stopping, memory_order_acquire);
}

static void close_shard(struct shard *shard)
{
    if (shard->journal != NULL) {
        journal_close(shard->journal);
    }
    if (shard->listener >= 0) {
        os_file_close(shard->listener);
    }
    if (shard->ring != NULL) {
        os_ring_destroy(shard->ring);
    }
    mem_end(&shard->plan);
}

void server_stop(struct server *server)
{
    struct os_event event;
    atomic_store_explicit(&server->stopping, true, memory_order_release);
    for (uint32_t i = 0; i < server->started; i++) {
        os_doorbell(server->ring, server->shards[i]->ring, os_tag(TAG_DOORBELL, 0, 0));
    }
    if (server->started > 0) {
        (void)!os_turn(server->ring, 0, &event, 1);
    }
    for (uint32_t i = 0; i < server->started; i++) {
        (void)pthread_join(server->threads[i], NULL);
    }
    replay_stop(&server->replay);
    if (server->persist != NULL) {
        persist_close(server->persist);
    }
    for (uint32_t i = 0; i < server->count && server->shards[i] != NULL; i++) {
        close_shard(server->shards[i]);
    }
    if (server->ring != NULL) {
        os_ring_destroy(server->ring);
    }
    mem_end(&server->plan);
}

static void write_closes(struct server *server, struct json_writer *writer)
{
    JSON_WRITE(writer, "# HELP damso_closes_total Connections ended, by reason.\n"
                       "# TYPE damso_closes_total counter\n");
    for (int reason = CLOSE_NONE + 1; reason < CLOSE_REASONS; reason++) {
        const char *name = close_reason_name((enum close_reason)reason);
        uint64_t count = 0;
        for (uint32_t i = 0; i < server->count; i++) {
            count += metrics_get(&server->shards[i]->closes[reason]);
        }
        JSON_WRITE(writer, "damso_closes_total{reason=\"");
        json_write_raw(writer, (struct slice){name, (uint32_t)strlen(name)});
        JSON_WRITE(writer, "\"} ");
        json_write_u64(writer, count);
        JSON_WRITE(writer, "\n");
    }
}

int64_t server_metrics(struct server *server, char *text, uint32_t capacity)
{
    struct metrics *all[SHARDS_MAX + 2];
    uint32_t count = 0;
    for (; count < server->count; count++) {
        all[count] = server->shards[count]->metrics;
    }
    all[count++] = server->persist_metrics;
    all[count++] = server->main_metrics;
    const int64_t size = metrics_render(all, count, text, capacity);
    if (size < 0) {
        return size;
    }
    struct json_writer writer = json_writer_on(text + size, capacity - (uint32_t)size);
    JSON_WRITE(&writer, "# HELP damso_shard_connections Connections open now, by shard.\n"
                        "# TYPE damso_shard_connections gauge\n");
    for (uint32_t i = 0; i < server->count; i++) {
        JSON_WRITE(&writer, "damso_shard_connections{shard=\"");
        json_write_u64(&writer, i);
        JSON_WRITE(&writer, "\"} ");
        json_write_u64(&writer, metrics_get(&all[i]->connections));
        JSON_WRITE(&writer, "\n");
    }
    write_closes(server, &writer);
    return writer.overflow ? -ENOSPC : size + writer.size;
}

void server_print_plan(const struct config *config, uint32_t count)
{
    static struct shard shard;
    static struct server server;
    char why[256];
    struct journal *none = NULL;

    shard_plan(&shard, config, 0, count, MEM_COUNT);
    const struct journal_options options = {.directory = "",
                                            .segment_bytes =
                                                (uint32_t)config->journal_segment_bytes,
                                            .bytes_max = config->journal_bytes_max / count,
                                            .buffer_bytes = journal_buffer_bytes(config)};
    (void)!journal_open(&options, &shard.plan, &none, why, sizeof(why));
    mem_print(&shard.plan, stdout);
    server = (struct server){.config = config, .count = count};
    mem_init(&server.plan, "all shards together", MEM_COUNT);
    plan_lanes(&server, &server.plan);
    persist_plan(config, count, &server.plan);
    mem_print(&server.plan, stdout);
    (void)printf("%u shards: at most %.1f MiB, touched as it is needed\n", count,
                 ((double)shard.plan.total * count + (double)server.plan.total) / 1048576.0);
}
