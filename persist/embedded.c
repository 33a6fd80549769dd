/*
 * embedded.c - see embedded.h; batch.h has the invariants of its transactions, persist.h P1 to P4.
 */
#include "persist/embedded.h"

#include "core/check.h"
#include "core/log.h"
#include "persist/account.h"
#include "persist/batch.h"
#include "persist/lane.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

enum { REPLAY_BYTES = 64 * 1024 * 1024 }; /* of records in a transaction of the replay */

/* --- opening --- */

static struct store_options store_options(const struct config *config, struct mem_plan *plan)
{
    return (struct store_options){.directory = config->server_data,
                                  .cache_bytes = config->persist_cache_bytes,
                                  .keys_max = (uint32_t)config->limits_idempotency_keys,
                                  .plan = plan};
}

static int embedded_open(struct persist *persist, char *ret_why, size_t why_size)
{
    const struct config *config = persist->config;
    const struct store_options options = store_options(config, &persist->plan);
    const int error = os_directory_make(config->server_data);

    if (error < 0 && error != -EEXIST) {
        (void)snprintf(ret_why, why_size,
                       "%s: %s; name a directory that can be made in server.data",
                       config->server_data, os_error(error));
        return error;
    }
    return store_sqlite_open(&options, &persist->store, ret_why, why_size);
}

/* --- replay --- */

static int replay_commit(struct persist *persist)
{
    const struct store_ops *ops = persist->store->ops;

    if (persist->replayed == 0) {
        return 0;
    }
    const int error = ops->commit(persist->store);
    if (error < 0) {
        ops->rollback(persist->store);
        return error;
    }
    persist->replayed = 0;
    ops->tend(persist->store, false);
    return 0;
}

/* Opens the transaction that the next record goes into. */
static int replay_begin(struct persist *persist)
{
    const struct store_ops *ops = persist->store->ops;
    int error = 0;

    if (!persist->replaying) {
        error = ops->replay_begin(persist->store);
        persist->replaying = error == 0;
    }
    return error == 0 && persist->replayed == 0 ? ops->begin(persist->store) : error;
}

static int embedded_replay(struct persist *persist, const void *record, uint32_t size, bool salvage)
{
    struct record decoded;
    int error = record_decode(record, size, &decoded);

    if (error < 0) {
        return salvage ? 0 : error;
    }
    error = replay_begin(persist);
    if (error < 0) {
        return error;
    }
    persist->replayed += size;
    const int result = persist->store->ops->append(persist->store, &decoded, salvage);
    if (result < 0 || result == STORE_HOLE) {
        return result < 0 ? result : -EBADMSG;
    }
    return persist->replayed >= REPLAY_BYTES ? replay_commit(persist) : 0;
}

void embedded_boot_id(char bytes[EMBEDDED_BOOT_ID_BYTES])
{
    const int file = os_file_open("/proc/sys/kernel/random/boot_id", 0);
    int64_t size = -1;

    if (file >= 0) {
        size = os_file_read(file, bytes, EMBEDDED_BOOT_ID_BYTES, 0);
        os_file_close(file);
    }
    if (size != EMBEDDED_BOOT_ID_BYTES) {
        static const char digits[] = "0123456789abcdef";
        uint8_t random[EMBEDDED_BOOT_ID_BYTES];
        os_random(random, sizeof(random));
        for (int i = 0; i < EMBEDDED_BOOT_ID_BYTES; i++) {
            bytes[i] = digits[random[i] % 16];
        }
    }
}

static int embedded_replay_end(struct persist *persist)
{
    char id[EMBEDDED_BOOT_ID_BYTES];
    const int error = replay_commit(persist);

    embedded_boot_id(id);
    return error == 0
               ? persist->store->ops->run_begin(persist->store, (struct slice){id, sizeof(id)})
               : error;
}

/* --- the answerer: replies by the lane, writes into the open transaction --- */

static struct persist *owner(const struct answerer *answerer)
{
    return (struct persist *)(void *)((char *)answerer - offsetof(struct persist, answerer));
}

static void answerer_reply(struct answerer *answerer, uint32_t lane, const void *reply,
                           uint32_t size)
{
    lane_reply(owner(answerer), lane, reply, size);
}

static uint32_t answerer_reply_max(const struct answerer *answerer, uint32_t lane)
{
    return owner(answerer)->lanes[lane].reply_max;
}

static bool answerer_is_readable(struct answerer *answerer)
{
    return batch_is_readable(owner(answerer));
}

static void answerer_settle(struct answerer *answerer)
{
    batch_settle(owner(answerer));
}

static int answerer_write(struct answerer *answerer)
{
    return batch_write(owner(answerer));
}

static void answerer_refuse(struct answerer *answerer, int error)
{
    batch_refuse(owner(answerer), error);
}

static void answerer_written(struct answerer *answerer, uint32_t lane, const void *reply,
                             uint32_t size)
{
    batch_written(owner(answerer), lane, reply, size);
}

static void answerer_reply_behind(struct answerer *answerer, uint32_t lane, const void *reply,
                                  uint32_t size)
{
    batch_reply(owner(answerer), lane, reply, size);
}

static const struct answerer_ops embedded_answerer = {
    .reply = answerer_reply,
    .reply_max = answerer_reply_max,
    .is_readable = answerer_is_readable,
    .settle = answerer_settle,
    .write = answerer_write,
    .refuse = answerer_refuse,
    .written = answerer_written,
    .reply_behind = answerer_reply_behind,
};

/* --- start --- */

static void reserve_passwords(struct persist *persist, struct mem_plan *plan)
{
    const struct password_options options = {
        .workers = persist->password_workers,
        .queue = persist->password_queue,
        .ring = persist->ring,
        .bell = &persist->bell,
        .tag = thread_wake_tag(),
    };
    char why[256] = "";

    persist->reserve_error =
        password_open(&options, plan, &persist->answerer.passwords, why, sizeof(why));
    if (persist->reserve_error < 0) {
        log_error("the password workers cannot start reason=\"%s\"", why);
    }
}

static void embedded_reserve(struct persist *persist, struct mem_plan *plan)
{
    struct answerer *answerer = &persist->answerer;

    *answerer = (struct answerer){
        .ops = &embedded_answerer,
        .store = persist->store,
        .page = persist->page,
        .page_bytes = persist->page_bytes,
        .keys_max = persist->keys_max,
        .job_count = persist->password_queue + persist->password_workers,
    };
    batch_init(&persist->batch, plan, persist->lane_count, persist->ring_bytes,
               persist->batch_records);
    persist->batch.interval_ns = persist->config->persist_commit_interval * 1000000;
    account_reserve(answerer, plan);
    if (plan->mode == MEM_COUNT) {
        const struct store_options options = store_options(persist->config, plan);
        store_sqlite_plan(&options); /* what open reserves otherwise */
    } else {
        reserve_passwords(persist, plan);
    }
}

static int embedded_start(struct persist *persist)
{
    if (persist->reserve_error < 0) {
        return persist->reserve_error;
    }
    account_init(&persist->answerer);
    atomic_store_explicit(&persist->state, PERSIST_READY, memory_order_release);
    return password_start(persist->answerer.passwords);
}

/* --- the thread --- */

static bool embedded_take(struct persist *persist, uint32_t lane,
                          const struct persist_record *request)
{
    if (!batch_takes(persist, lane, request->record_bytes)) {
        return false;
    }
    persist->batch.hurry |= request->head.count > 0;
    batch_add(persist, lane, request->position, request + 1, request->record_bytes);
    return true;
}

static void embedded_request(struct persist *persist, uint32_t lane, const void *request,
                             uint32_t size)
{
    const struct persist_head *head = request;

    CHECK(head->op != PERSIST_REWOUND);   /* we never rewind */
    CHECK(head->op != PERSIST_RECOVERED); /* they were replayed */
    answer_request(&persist->answerer, lane, request, size);
}

static bool embedded_turn(struct persist *persist)
{
    const bool any = account_continue(&persist->answerer);

    if (batch_is_due(persist) || thread_is_stopping(persist)) {
        batch_commit(persist);
    }
    return any;
}

static void embedded_tend(struct persist *persist, bool idle)
{
    persist->store->ops->tend(persist->store, idle);
}

/* Until the open transaction is due, or a refused one may be tried again. */
static int64_t embedded_wait_ns(const struct persist *persist)
{
    const struct batch *batch = &persist->batch;
    int64_t wait_ns = IDLE_WAIT_NS;

    if (batch->open) {
        const uint64_t age_ns = os_now_ns() - batch->begun_ns;
        wait_ns = batch->interval_ns > age_ns + LANE_WAIT_NS
                      ? (int64_t)(batch->interval_ns - age_ns)
                      : LANE_WAIT_NS;
    }
    if (batch->refusing) {
        const int64_t due_ns = (int64_t)(batch->retry_at_ns - os_now_ns());
        wait_ns = due_ns > LANE_WAIT_NS ? due_ns : LANE_WAIT_NS;
    }
    return wait_ns < IDLE_WAIT_NS ? wait_ns : IDLE_WAIT_NS;
}

/* The turn that follows commits; what was refused is tried once, without its backoff. */
static bool embedded_drain(struct persist *persist)
{
    persist->batch.retry_at_ns = 0;
    return false;
}

/* --- the end --- */

static void embedded_stop(struct persist *persist)
{
    if (persist->answerer.passwords != NULL) {
        password_close(persist->answerer.passwords);
    }
    persist->answerer.passwords = NULL;
}

/* Whether everything that was handed over is in the store. */
static bool is_complete(const struct persist *persist)
{
    return persist_is_well(persist) && persist->batch.count == 0 && !persist->batch.refusing;
}

static void embedded_close(struct persist *persist)
{
    struct store *store = persist->store;

    if (persist->run_begun && is_complete(persist)) {
        const int error = store->ops->run_end(store);
        if (error < 0) {
            log_error("the store could not be marked as stopped cleanly error=\"%s\"",
                      os_error(error));
        }
    }
    store->ops->close(store);
}

const struct persist_engine embedded_engine = {
    .open = embedded_open,
    .replay = embedded_replay,
    .replay_end = embedded_replay_end,
    .reserve = embedded_reserve,
    .start = embedded_start,
    .take = embedded_take,
    .is_full = batch_is_full,
    .request = embedded_request,
    .turn = embedded_turn,
    .tend = embedded_tend,
    .wait_ns = embedded_wait_ns,
    .drain = embedded_drain,
    .stop = embedded_stop,
    .close = embedded_close,
};
