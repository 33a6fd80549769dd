/* flush.c - see flush.h for the invariants F1 to F3. */
#include "core/check.h"
#include "core/failpoint.h"
#include "core/hash.h"
#include "core/os.h"
#include "persist/flush_own.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { OWNER_CHECK_NS = 1000 * 1000 * 1000 };

/* --- what went wrong --- */

int flush_failed(struct flusher *flusher, enum job_where where, int status, const char *format, ...)
{
    struct job_answer *answer = &flusher->answer;
    va_list arguments;

    va_start(arguments, format);
    const int size = vsnprintf(answer->why, sizeof(answer->why), format, arguments);
    va_end(arguments);
    answer->where = (uint8_t)where;
    answer->why_bytes =
        (uint16_t)(size < JOB_WHY_BYTES ? (size > 0 ? size : 0) : JOB_WHY_BYTES - 1);
    return status;
}

/* What the network or a restart mends is worth another attempt; what a person must mend is not
 * made better by one, but keeps its name. */
static int redis_status(int error)
{
    switch (error) {
    case -ESTALE:
    case -EACCES:
    case -EINVAL:
    case -EKEYREJECTED:
    case -ENOTSUP:
        return error;
    default:
        return -EAGAIN;
    }
}

int flush_failed_redis(struct flusher *flusher, int error)
{
    return flush_failed(flusher, JOB_WHERE_REDIS, redis_status(error), "%s",
                        error == -ESTALE ? "another damsod took over" : cache_why(flusher->cache));
}

int flush_failed_mongodb(struct flusher *flusher, int error)
{
    return flush_failed(flusher, JOB_WHERE_MONGODB, error, "%s",
                        error == -ESTALE ? "another damsod took over"
                                         : store_mongo_why(flusher->store));
}

int flush_go_on(struct flusher *flusher)
{
    return worker_is_stopping(&flusher->worker)
               ? flush_failed(flusher, JOB_WHERE_NONE, -EAGAIN, "damsod stops")
               : 0;
}

/* --- who may write --- */

int flush_check_owner(struct flusher *flusher)
{
    const uint64_t now_ns = os_now_ns();

    if (flusher->checked_ns > 0 && now_ns - flusher->checked_ns < OWNER_CHECK_NS) {
        return 0;
    }
    const int error = store_mongo_check_owner(flusher->store, flusher->owner);
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    flusher->checked_ns = os_now_ns();
    flusher->answer.mongodb_ns = flusher->checked_ns - now_ns;
    return 0;
}

int flush_connect(struct flusher *flusher)
{
    if (cache_is_open(flusher->cache) && flusher->cache_owner == flusher->owner) {
        return 0;
    }
    if (flusher->cache_owner != flusher->owner) {
        flusher->owed_count = 0; /* names of another owner: the takeover found them */
    }
    const int error = cache_connect(flusher->cache, flusher->owner);
    if (error < 0) {
        return flush_failed_redis(flusher, error);
    }
    flusher->cache_owner = flusher->owner;
    return 0;
}

/* --- seqs that were seen --- */

void flush_seen_begin(struct flush_seen *seen, uint64_t first)
{
    memset(seen->slots, 0, seen->used * sizeof(seen->slots[0]));
    seen->used = 0;
    seen->first = first;
    seen->next = first;
    seen->top = 0;
}

static uint32_t slot_of(const struct flush_seen *seen, uint64_t seq)
{
    return (uint32_t)((seq - seen->first) % FLUSH_SEEN_MAX);
}

enum flush_sight flush_seen_look(struct flush_seen *seen, uint64_t seq, struct slice record)
{
    const struct hash128 hash = hash128(record.data, record.size);
    const uint32_t index = slot_of(seen, seq);
    struct flush_seen_slot *slot = &seen->slots[index];
    uint64_t digest;

    CHECK(seq >= seen->first);
    memcpy(&digest, hash.bytes, sizeof(digest));
    seen->top = seq > seen->top ? seq : seen->top;
    if (slot->seq == seq) {
        return slot->digest == digest ? FLUSH_SIGHT_AGAIN : FLUSH_SIGHT_OTHER;
    }
    if (seq < seen->next) {
        return FLUSH_SIGHT_NEW; /* its slot is taken by a later one */
    }
    if (seq - seen->next >= FLUSH_SEEN_MAX) {
        return FLUSH_SIGHT_FAR;
    }
    *slot = (struct flush_seen_slot){.seq = seq, .digest = digest};
    seen->used = index >= seen->used ? index + 1 : seen->used;
    while (seen->slots[slot_of(seen, seen->next)].seq == seen->next) {
        seen->next++; /* at most FLUSH_SEEN_MAX steps: slots hold none beyond that */
    }
    return FLUSH_SIGHT_NEW;
}

int flush_decode(struct slice record, struct slice room_id, struct record *ret)
{
    if (record.size > JOB_FLUSH_BYTES || record_decode(record.data, record.size, ret) < 0 ||
        !slice_equal(ret->room_id, room_id)) {
        return -EBADMSG;
    }
    return 0;
}

/* --- bulks --- */

void flush_settle(struct flusher *flusher, uint32_t room)
{
    struct flush_mark *mark = &flusher->marks[room];

    if (flusher->job == NULL) {
        return; /* a takeover: it looks at the mark when the room is done */
    }
    CHECK(mark->left > 0);
    mark->left--;
    if (mark->left == 0) {
        flusher->job->rooms[room].result = mark->stuck ? FLUSH_STUCK : FLUSH_STORED;
    }
}

static void bulk_clear(struct flush_bulk *bulk)
{
    bulk->count = 0;
    bulk->bytes = 0;
}

int flush_bulk_store(struct flusher *flusher)
{
    struct flush_bulk *bulk = &flusher->bulk;
    int error = flush_go_on(flusher);

    if (bulk->count == 0) {
        return error;
    }
    error = error < 0 ? error : flush_check_owner(flusher);
    if (error < 0) {
        return error;
    }
    failpoint("insert.before");
    error = store_mongo_insert(flusher->store, bulk->records, bulk->count, bulk->results);
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    failpoint("insert.after");
    for (uint32_t i = 0; i < bulk->count; i++) {
        struct flush_mark *mark = &flusher->marks[bulk->rooms[i]];
        flusher->answer.quarantined +=
            bulk->results[i] == STORE_MONGO_QUARANTINED || bulk->results[i] == STORE_MONGO_CONFLICT;
        mark->unkept = mark->unkept || bulk->results[i] == STORE_MONGO_UNKEPT;
        mark->stuck = mark->stuck || mark->unkept || bulk->results[i] == STORE_MONGO_CONFLICT;
        flush_settle(flusher, bulk->rooms[i]);
    }
    bulk_clear(bulk);
    return 0;
}

int flush_bulk_add(struct flusher *flusher, struct slice record, uint32_t room, bool copy)
{
    struct flush_bulk *bulk = &flusher->bulk;

    if (bulk->count == flusher->bulk_max ||
        (bulk->count > 0 && record.size > JOB_FLUSH_BYTES - bulk->bytes)) {
        const int error = flush_bulk_store(flusher);
        if (error < 0) {
            return error;
        }
    }
    if (copy) {
        CHECK(record.size <= JOB_FLUSH_BYTES - bulk->bytes); /* flush_decode refused larger ones */
        memcpy(flusher->buffer + bulk->bytes, record.data, record.size);
        record.data = (const char *)flusher->buffer + bulk->bytes;
    }
    bulk->records[bulk->count] = record;
    bulk->rooms[bulk->count++] = (uint16_t)room;
    bulk->bytes += record.size;
    return 0;
}

/* --- the run's start and end --- */

static int start(struct flusher *flusher)
{
    const struct slice boot_id = {flusher->boot_id, flusher->boot_id_bytes};
    const struct slice server_id = {flusher->server_id, flusher->server_id_bytes};
    uint64_t owner = 0;

    int error = store_mongo_prepare(flusher->store);
    error = error < 0 ? error : store_mongo_claim(flusher->store, &owner);
    error = error < 0 ? error
                      : store_mongo_run_begin(flusher->store, boot_id, server_id,
                                              &flusher->answer.restarted);
    if (error < 0) {
        return flush_failed_mongodb(flusher, error);
    }
    flusher->owner = owner;
    flusher->answer.number = owner;
    return 0;
}

/* A clean stop is told only by whoever still owns the store. */
static int end(struct flusher *flusher)
{
    int error = flusher->owner > 0 ? flush_check_owner(flusher) : 0;

    if (error == 0) {
        error = store_mongo_run_end(flusher->store);
        error = error < 0 ? flush_failed_mongodb(flusher, error) : 0;
    }
    return error;
}

/* --- jobs --- */

static int run(struct flusher *flusher, const struct job_head *head)
{
    switch (head->op) {
    case JOB_START:
        return start(flusher);
    case JOB_DRAIN:
        return flush_drain_run(flusher);
    case JOB_FLUSH:
        return flush_job_run(flusher, head->job);
    case JOB_DIRECT:
        return flush_direct_run(flusher, head->job);
    case JOB_CHECK:
        return flush_check_owner(flusher);
    default:
        CHECK(head->op == JOB_END);
        return end(flusher);
    }
}

static void take(void *context, const void *request, uint32_t size)
{
    struct flusher *flusher = context;
    struct job_head head;
    const uint64_t begun_ns = os_now_ns();

    CHECK(size == sizeof(head));
    memcpy(&head, request, sizeof(head));
    memset(&flusher->answer, 0, sizeof(flusher->answer));
    flusher->answer.op = head.op;
    flusher->answer.job = head.job;
    if (head.connection != flusher->connection && flusher->cache != NULL) {
        /* The appender had to connect anew: ours may be as dead as its was, and not know it. */
        cache_disconnect(flusher->cache);
        flusher->connection = head.connection;
    }
    if (head.op != JOB_START && head.op != JOB_END) {
        flusher->owner = head.number;
    }
    flusher->checked_ns = 0;
    flusher->row_error = 0;
    flusher->raw_count = 0;
    flusher->buffer_used = 0;
    bulk_clear(&flusher->bulk);
    flusher->answer.status = run(flusher, &head);
    flusher->job = NULL;
    flusher->answer.ns = os_now_ns() - begun_ns;
    worker_reply(&flusher->worker, &flusher->answer, sizeof(flusher->answer));
}

/* --- opening --- */

/* On failure nothing stays open. */
static int open_parts(const struct flush_options *options, const struct worker_options *worker_like,
                      struct mem_plan *plan, struct flusher *flusher, char *ret_why,
                      size_t why_size)
{
    struct worker *worker = &flusher->worker;
    struct worker_options worker_options = *worker_like;

    worker_options.take = take;
    worker_options.tend = NULL;
    worker_options.context = flusher;
    int error = worker_open(worker, &worker_options, plan, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = store_mongo_open(options->mongo, options->keys_max, plan, &flusher->store);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for a flusher's store");
    }
    if (error == 0 && options->cache != NULL) {
        struct cache_options cache = *options->cache;
        cache.plan = plan;
        error = cache_open(&cache, &flusher->cache, ret_why, why_size);
    }
    if (error < 0) {
        flusher_close(flusher);
        worker_stop(worker);
    }
    return error;
}

/* One line of the plan for all that is ours: whole pages, for a worker must begin at a line of its
 * own (core/doorbell.h), and behind it what only Redis needs. */
static struct flusher *reserve(struct mem_plan *plan, bool with_cache)
{
    const size_t slots_at = (sizeof(struct flusher) + 63) / 64 * 64;
    const size_t lists_at = slots_at + FLUSH_SEEN_MAX * sizeof(struct flush_seen_slot);
    const size_t buffer_at = lists_at + FLUSH_TAKEOVER_LISTS * sizeof(struct flush_list);
    const size_t extra = with_cache ? buffer_at + JOB_FLUSH_BYTES - sizeof(struct flusher) : 0;
    char *block = mem_reserve_extra(plan, "flusher", sizeof(struct flusher), 1, extra);
    struct flusher *flusher = (void *)block;

    if (flusher != NULL && with_cache) {
        flusher->seen.slots = (void *)(block + slots_at);
        flusher->lists = (void *)(block + lists_at);
        flusher->buffer = (void *)(block + buffer_at);
    }
    return flusher;
}

static int count_parts(const struct flush_options *options, const struct worker_options *worker,
                       struct mem_plan *plan, char *ret_why, size_t why_size)
{
    struct worker counted_worker;
    struct cache *none = NULL;
    int error = worker_open(&counted_worker, worker, plan, ret_why, why_size);

    store_mongo_plan(options->keys_max, plan);
    if (error == 0 && options->cache != NULL) {
        struct cache_options cache = *options->cache;
        cache.plan = plan;
        error = cache_open(&cache, &none, ret_why, why_size);
    }
    return error;
}

int flusher_open(const struct flush_options *options, const struct worker_options *worker,
                 struct mem_plan *plan, struct flusher **ret, char *ret_why, size_t why_size)
{
    struct flusher *flusher = reserve(plan, options->cache != NULL);

    if (plan->mode == MEM_COUNT) {
        return count_parts(options, worker, plan, ret_why, why_size);
    }
    if (plan->error != 0) {
        (void)snprintf(ret_why, why_size, "no memory for a flusher");
        return plan->error;
    }
    CHECK(options->bulk_max >= 1 && options->bulk_max <= MONGO_BULK_MAX);
    CHECK(options->boot_id.size <= FLUSH_BOOT_ID_MAX);
    flusher->bulk_max = options->bulk_max;
    flusher->boot_id_bytes = options->boot_id.size;
    memcpy(flusher->boot_id, options->boot_id.data, options->boot_id.size);
    CHECK(options->server_id.size <= FLUSH_BOOT_ID_MAX);
    flusher->server_id_bytes = options->server_id.size;
    if (options->server_id.size > 0) {
        memcpy(flusher->server_id, options->server_id.data, options->server_id.size);
    }
    const int error = open_parts(options, worker, plan, flusher, ret_why, why_size);
    if (error == 0) {
        *ret = flusher;
    }
    return error;
}

struct worker *flusher_worker(struct flusher *flusher)
{
    return &flusher->worker;
}

void flusher_close(struct flusher *flusher)
{
    if (flusher == NULL) {
        return;
    }
    cache_close(flusher->cache);
    store_mongo_close(flusher->store);
    flusher->cache = NULL;
    flusher->store = NULL;
}
