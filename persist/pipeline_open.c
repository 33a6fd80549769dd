/* pipeline_open.c - see pipeline.h: opening, starting and ending what the pipeline works with. */
#include "core/check.h"
#include "core/log.h"
#include "core/os.h"
#include "persist/embedded.h"
#include "persist/pipeline.h"
#include "persist/secret.h"

#include <errno.h>
#include <stdio.h>

enum {
    END_STEP_NS = 2 * 1000 * 1000,
    PATH_BYTES = 512,
    EVENTS_MAX = 16,
    WORKER_IN_BYTES = 4096, /* jobs are pointers */
    WORKER_OUT_BYTES = 16384,
    READER_RING_BYTES = 4 * 1024 * 1024,
};

static const uint64_t end_within_ns = 20000000000; /* for what is left when the server stops */

_Static_assert(READER_RING_BYTES / 4 >= READ_OVERLAY_BYTES_MAX * 2, "a question fits its ring");

/* --- opening --- */

static void take_config(struct pipeline *pipeline, const struct config *config)
{
    pipeline->has_cache = config->persist_cache == 0;
    pipeline->sync = config->persist_flush_mode == 1;
    pipeline->flush_messages = pipeline->sync ? 1 : config->persist_flush_messages;
    pipeline->flush_interval_ns = config->persist_flush_interval * 1000000;
    pipeline->flush_bytes = config->persist_flush_bytes;
    pipeline->flusher_count = (uint32_t)config->persist_flushers;
    pipeline->reader_count = (uint32_t)config->persist_readers;
    pipeline->bulk_max = pipeline->sync ? 1 : MONGO_BULK_MAX;
    /* A job takes as many as it has commands; the rest is for rooms. */
    pipeline->batch_count =
        (uint32_t)config->persist_pending_rooms + (PIPE_APPENDS + 1) * JOB_APPEND_ROOMS;
    pipeline->room_count = 4 * pipeline->batch_count;
}

static int resolve(struct pipeline *pipeline, const struct config *config, char *ret_why,
                   size_t why_size)
{
    int error =
        secret_resolve("[persist] mongodb_uri", config->persist_mongodb_uri, pipeline->mongodb_uri,
                       sizeof(pipeline->mongodb_uri), ret_why, why_size);
    if (error == 0 && pipeline->has_cache) {
        error = secret_resolve("[persist] redis_url", config->persist_redis_url,
                               pipeline->redis_url, sizeof(pipeline->redis_url), ret_why, why_size);
    }
    pipeline->cache = (struct cache_options){
        .url = pipeline->redis_url,
        .ca_file = config->persist_redis_ca_file,
        .prefix = config->persist_redis_prefix,
        .connect_ms = (uint32_t)config->persist_store_connect,
        .reply_ms = (uint32_t)config->persist_redis_timeout,
    };
    return error;
}

/* Makes the file whole or not at all. */
static int make_server_id(const char *data, const char *path, char id[EMBEDDED_BOOT_ID_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t random[EMBEDDED_BOOT_ID_BYTES];
    char fresh[PATH_BYTES];

    os_random(random, sizeof(random));
    for (int i = 0; i < EMBEDDED_BOOT_ID_BYTES; i++) {
        id[i] = digits[random[i] % 16];
    }
    (void)snprintf(fresh, sizeof(fresh), "%s/id.new", data);
    (void)!os_file_remove(fresh); /* of a start that was cut off */
    const int file = os_file_open(fresh, OS_OPEN_WRITE | OS_OPEN_CREATE);
    if (file < 0) {
        return file;
    }
    int error = os_file_write(file, id, EMBEDDED_BOOT_ID_BYTES, 0);
    error = error < 0 ? error : os_file_sync(file);
    os_file_close(file);
    error = error < 0 ? error : os_file_rename(fresh, path);
    return error < 0 ? error : os_directory_sync(data);
}

/* The data directory's name for itself, made when it is used for the first time: a damsod that
 * finds another one's in MongoDB does not have that one's journal. */
static int read_server_id(const struct config *config, char id[EMBEDDED_BOOT_ID_BYTES],
                          char *ret_why, size_t why_size)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/id", config->server_data);
    const int file = os_file_open(path, 0);
    int64_t size = 0;
    int error = 0;

    if (file >= 0) {
        size = os_file_read(file, id, EMBEDDED_BOOT_ID_BYTES, 0);
        os_file_close(file);
    }
    if (size != EMBEDDED_BOOT_ID_BYTES) {
        error = make_server_id(config->server_data, path, id);
    }
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "%s: %s; the data directory must be writable", path,
                       os_error(error));
    }
    return error;
}

static int pipeline_open(struct persist *persist, char *ret_why, size_t why_size)
{
    const struct config *config = persist->config;
    struct pipeline *pipeline = mem_alloc(&persist->plan, "pipeline", sizeof(*pipeline));

    if (pipeline == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for the pipeline");
        return -ENOMEM;
    }
    persist->pipeline = pipeline;
    take_config(pipeline, config);
    int error = resolve(pipeline, config, ret_why, why_size);
    error = error < 0 ? error : read_server_id(config, pipeline->server_id, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    const struct mongo_options options = {
        .uri = pipeline->mongodb_uri,
        .connect_ms = (uint32_t)config->persist_store_connect,
        .socket_ms = (uint32_t)config->persist_store_timeout,
        .clients = pipeline->flusher_count + pipeline->reader_count,
        .plan = &persist->plan,
    };
    return mongo_open(&options, &pipeline->mongo, ret_why, why_size);
}

static struct worker_options worker_options(struct persist *persist, const char *name,
                                            uint32_t in_bytes, uint32_t out_bytes)
{
    return (struct worker_options){
        .name = name,
        .in_bytes = in_bytes,
        .out_bytes = out_bytes,
        .asker_bell = &persist->bell,
        .asker_ring = persist->ring,
        .asker_tag = os_tag(1, 0, 0),
    };
}

static struct slice boot_id(char bytes[EMBEDDED_BOOT_ID_BYTES])
{
    embedded_boot_id(bytes);
    return (struct slice){bytes, EMBEDDED_BOOT_ID_BYTES};
}

static int open_flushers(struct persist *persist, struct mem_plan *plan, char *why, size_t size)
{
    struct pipeline *pipeline = persist->pipeline;
    char id[EMBEDDED_BOOT_ID_BYTES];
    const struct flush_options options = {
        .cache = pipeline->has_cache ? &pipeline->cache : NULL,
        .mongo = pipeline->mongo,
        .bulk_max = pipeline->bulk_max,
        .keys_max = persist->keys_max,
        .boot_id = boot_id(id),
        .server_id = {pipeline->server_id, sizeof(pipeline->server_id)},
    };
    const struct worker_options worker =
        worker_options(persist, "damso-flush", WORKER_IN_BYTES, WORKER_OUT_BYTES);
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < pipeline->flusher_count; i++) {
        struct flusher *flusher = NULL;
        error = flusher_open(&options, &worker, plan, &flusher, why, size);
        if (plan->mode == MEM_MAP && error == 0) {
            pipeline->opened_flushers[i] = flusher;
        }
    }
    return error;
}

static int open_readers(struct persist *persist, struct mem_plan *plan, char *why, size_t size)
{
    struct pipeline *pipeline = persist->pipeline;
    struct reader_options options = {
        .cache = pipeline->has_cache ? &pipeline->cache : NULL,
        .mongo = pipeline->mongo,
        .keys_max = persist->keys_max,
        .page_bytes = persist->page_bytes,
        .password_workers = persist->password_workers,
        .password_queue = persist->password_queue,
    };
    const struct worker_options worker = worker_options(
        persist, "damso-read", READER_RING_BYTES,
        persist->page_bytes > READER_RING_BYTES / 8 ? 8 * persist->page_bytes : READER_RING_BYTES);
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < pipeline->reader_count; i++) {
        error = reader_open(&options, &worker, plan, &pipeline->readers[i], why, size);
        options.password_workers = 0; /* the first one has them all */
    }
    return error;
}

static void pipeline_reserve(struct persist *persist, struct mem_plan *plan)
{
    static struct pipeline counted; /* for damsod --plan */
    const bool counts = plan->mode == MEM_COUNT;

    if (counts) {
        counted = (struct pipeline){.cache.url = ""};
        persist->pipeline = &counted;
        take_config(&counted, persist->config);
    }
    struct pipeline *pipeline = persist->pipeline;
    pipe_rooms_reserve(pipeline, plan);
    pipe_stages_reserve(persist, plan);
    pipe_reads_reserve(pipeline, plan);
    pipeline->flushers =
        mem_reserve(plan, "flushers", sizeof(struct pipe_flusher), pipeline->flusher_count);
    const struct worker_options worker =
        worker_options(persist, "damso-append", WORKER_IN_BYTES, WORKER_OUT_BYTES);
    int error = 0;
    if (pipeline->has_cache) {
        error = appender_open(&pipeline->appender, &pipeline->cache, &worker, plan,
                              pipeline->open_why, sizeof(pipeline->open_why));
    }
    error = error == 0
                ? open_flushers(persist, plan, pipeline->open_why, sizeof(pipeline->open_why))
                : error;
    pipeline->open_error =
        error == 0 ? open_readers(persist, plan, pipeline->open_why, sizeof(pipeline->open_why))
                   : error;
}

static int start_workers(struct pipeline *pipeline)
{
    int error = pipeline->has_cache ? worker_start(&pipeline->appender.worker) : 0;

    for (uint32_t i = 0; error == 0 && i < pipeline->flusher_count; i++) {
        pipeline->flushers[i].flusher = pipeline->opened_flushers[i];
        error = worker_start(flusher_worker(pipeline->flushers[i].flusher));
    }
    for (uint32_t i = 0; error == 0 && i < pipeline->reader_count; i++) {
        error = reader_start(pipeline->readers[i]);
    }
    return error;
}

static int pipeline_start(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    if (pipeline->open_error < 0) {
        log_error("persistence cannot start reason=\"%s\"", pipeline->open_why);
        return pipeline->open_error;
    }
    pipe_rooms_init(pipeline);
    pipe_stages_init(persist);
    pipe_reads_init(pipeline);
    pipeline->backoff_ns = PIPE_BACKOFF_MIN_NS;
    pipeline->mongodb_backoff_ns = PIPE_BACKOFF_MIN_NS;
    return start_workers(pipeline);
}

/* --- the end --- */

/* What was given up is handed over again only to the next run: shards are gone. */
static bool is_given_up(const struct persist *persist)
{
    bool any = persist->pipeline->resetting;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        any = any || persist->pipeline->stages[i].rewinding;
    }
    return any;
}

/* Whether nothing is on its way any more. */
static bool is_through(const struct persist *persist)
{
    bool through = !is_given_up(persist) && !pipe_is_recovering(persist);

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        const struct pipe_stage *stage = &persist->pipeline->stages[i];
        through = through && stage->first == stage->end && stage->oldest == NULL;
    }
    return through && !pipe_in_flight(persist->pipeline);
}

static bool is_stuck(const struct persist *persist)
{
    bool any = false;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        any = any || persist->lanes[i].stuck;
    }
    return any;
}

/* What the run before left comes no more: its thread has ended. */
static bool is_cut_short(const struct persist *persist)
{
    const struct pipeline *pipeline = persist->pipeline;
    bool cut = false;
    bool staged = false;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        cut = cut || !pipeline->stages[i].recovered;
        staged = staged || pipeline->stages[i].first != pipeline->stages[i].end ||
                 pipeline->stages[i].oldest != NULL;
    }
    return cut && !staged && !pipe_in_flight(pipeline);
}

/* Whether waiting longer stores nothing more. */
static bool is_hopeless(const struct persist *persist, bool through)
{
    const struct pipeline *pipeline = persist->pipeline;

    return pipeline->fenced || !pipeline->served || is_given_up(persist) || is_cut_short(persist) ||
           (through && is_stuck(persist)) || (!through && pipeline->mongodb_retry_ns > 0);
}

/* Flushes what is left as long as MongoDB takes it; the journal has the rest. */
static bool pipeline_drain(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    struct os_event events[EVENTS_MAX];
    const uint64_t now_ns = os_now_ns();

    if (!pipeline->ending) {
        pipeline->ending = true;
        pipeline->end_by_ns = now_ns + end_within_ns;
    }
    (void)pipe_turn(persist);
    const bool through = is_through(persist);
    if (is_hopeless(persist, through)) {
        return false;
    }
    if (through && !pipeline->end_asked) {
        pipeline->end_asked = true;
        pipe_ask_flusher(persist, JOB_END);
    }
    (void)!os_turn(persist->ring, END_STEP_NS, events, EVENTS_MAX);
    return !pipeline->end_answered && now_ns < pipeline->end_by_ns;
}

static void pipeline_stop(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;

    worker_end(&pipeline->appender.worker);
    for (uint32_t i = 0; i < pipeline->flusher_count && pipeline->opened_flushers[i] != NULL; i++) {
        worker_end(flusher_worker(pipeline->opened_flushers[i]));
    }
    for (uint32_t i = 0; i < pipeline->reader_count && pipeline->readers[i] != NULL; i++) {
        worker_end(reader_worker(pipeline->readers[i]));
    }
    worker_stop(&pipeline->appender.worker);
    for (uint32_t i = 0; i < pipeline->flusher_count; i++) {
        if (pipeline->opened_flushers[i] != NULL) {
            worker_stop(flusher_worker(pipeline->opened_flushers[i]));
            flusher_close(pipeline->opened_flushers[i]);
        }
    }
    for (uint32_t i = 0; i < pipeline->reader_count; i++) {
        if (pipeline->readers[i] != NULL) {
            reader_stop(pipeline->readers[i]);
            reader_close(pipeline->readers[i]);
        }
    }
    appender_close(&pipeline->appender);
}

static void pipeline_close(struct persist *persist)
{
    if (persist->pipeline != NULL) {
        mongo_close(persist->pipeline->mongo);
    }
}

static bool pipeline_is_full(const struct persist *persist)
{
    (void)persist;
    return false; /* pipe_take says it of each lane */
}

const struct persist_engine pipeline_engine = {
    .open = pipeline_open,
    .reserve = pipeline_reserve,
    .start = pipeline_start,
    .take = pipe_take,
    .is_full = pipeline_is_full,
    .request = pipe_request,
    .turn = pipe_turn,
    .wait_ns = pipe_wait_ns,
    .drain = pipeline_drain,
    .stop = pipeline_stop,
    .close = pipeline_close,
};
