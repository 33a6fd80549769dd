/* reader.c - see reader.h. */
#include "persist/reader.h"

#include "core/check.h"
#include "core/log.h"
#include "core/os.h"
#include "persist/account.h"
#include "persist/tail.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct read_head) % 8 == 0, "a request begins at a multiple of 8");
_Static_assert(sizeof(struct read_answer) % 8 == 0, "a reply begins at a multiple of 8");

struct reader {
    struct worker worker; /* first */
    struct answerer answerer;
    struct store_mongo *mongo;
    struct cache *cache; /* NULL: there is none */
    struct tail *tail;
    uint32_t reply_max;
    /* Answers are put together here, so that a reply need not be copied to get its head: a reply
     * about one room or user in small, a page behind this struct, where the answerer composes it.
     */
    uint8_t small[sizeof(struct read_answer) + ANSWER_REPLY_MAX] __attribute__((aligned(16)));
};

/* --- the answerer: replies by the ring; what it writes is durable at once --- */

static struct reader *owner(const struct answerer *answerer)
{
    return (struct reader *)(void *)((char *)answerer - offsetof(struct reader, answerer));
}

/* Where the answer begins whose reply is the answerer's page. */
static uint8_t *page_answer(const struct answerer *answerer)
{
    return answerer->page - sizeof(struct read_answer);
}

static void answerer_reply(struct answerer *answerer, uint32_t lane, const void *reply,
                           uint32_t size)
{
    struct reader *reader = owner(answerer);
    const bool is_page = reply == answerer->page;
    uint8_t *space = is_page ? page_answer(answerer) : reader->small;
    struct read_answer answer = {.ticket = lane};
    struct persist_head head;

    CHECK(size >= sizeof(head) && size <= (is_page ? reader->reply_max : ANSWER_REPLY_MAX));
    memcpy(&head, reply, sizeof(head));
    answer.final = head.op != PERSIST_MEMBERS && head.op != PERSIST_KEYS;
    if (answer.final) {
        answer.failed = tail_failed(reader->tail);
        answer.redis_ns = tail_redis_ns(reader->tail);
        answer.mongodb_ns = tail_mongodb_ns(reader->tail);
    }
    if (!is_page) {
        memcpy(space + sizeof(answer), reply, size);
    }
    memcpy(space, &answer, sizeof(answer));
    worker_reply(&reader->worker, space, (uint32_t)sizeof(answer) + size);
    if (answer.final) {
        tail_see(reader->tail, NULL, NULL); /* what went wrong was this question's */
    }
}

static uint32_t answerer_reply_max(const struct answerer *answerer, uint32_t lane)
{
    (void)lane;
    return owner(answerer)->reply_max;
}

static bool answerer_is_readable(struct answerer *answerer)
{
    (void)answerer;
    return true;
}

static void answerer_settle(struct answerer *answerer)
{
    (void)answerer;
}

static int answerer_write(struct answerer *answerer)
{
    (void)answerer;
    return 0;
}

static void answerer_refuse(struct answerer *answerer, int error)
{
    (void)answerer;
    log_debug("a room or user was not made error=\"%s\"", os_error(error));
}

static const struct answerer_ops reader_answerer = {
    .reply = answerer_reply,
    .reply_max = answerer_reply_max,
    .is_readable = answerer_is_readable,
    .settle = answerer_settle,
    .write = answerer_write,
    .refuse = answerer_refuse,
    .written = answerer_reply,
    .reply_behind = answerer_reply,
};

/* --- the thread --- */

static void take(void *context, const void *question, uint32_t size)
{
    struct reader *reader = context;
    const struct read_head *head = question;

    CHECK(size >= sizeof(*head));
    const uint64_t request_end = sizeof(*head) + (((uint64_t)head->request_bytes + 7) & ~7U);
    CHECK(size == request_end + head->overlay_bytes);
    tail_see(reader->tail, head, (const uint8_t *)question + request_end);
    answer_request(&reader->answerer, head->ticket, head + 1, head->request_bytes);
    tail_see(reader->tail, NULL, NULL); /* the question goes; so does the view */
}

static bool tend(void *context)
{
    struct reader *reader = context;
    return reader->answerer.passwords != NULL && account_continue(&reader->answerer);
}

/* --- opening --- */

static int open_stores(const struct reader_options *options, struct mem_plan *plan,
                       struct reader *reader, char *ret_why, size_t why_size)
{
    int error = 0;

    if (plan->mode == MEM_COUNT) {
        store_mongo_plan(options->keys_max, plan);
    } else {
        error = store_mongo_open(options->mongo, options->keys_max, plan, &reader->mongo);
    }
    if (error == 0 && options->cache != NULL) {
        struct cache_options cache = *options->cache;
        cache.plan = plan;
        error = cache_open(&cache, &reader->cache, ret_why, why_size);
        if (error < 0) {
            return error;
        }
    }
    if (error == 0) {
        error = tail_open(reader->mongo, reader->cache, options->keys_max, plan, &reader->tail);
    }
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "no memory for a reader");
    }
    return error;
}

static int open_passwords(const struct reader_options *options, struct mem_plan *plan,
                          struct reader *reader, char *ret_why, size_t why_size)
{
    if (options->password_workers == 0) {
        return 0;
    }
    const struct password_options passwords = {
        .workers = options->password_workers,
        .queue = options->password_queue,
        .ring = reader->worker.ring,
        .bell = &reader->worker.bell,
        .tag = os_tag(1, 0, 0), /* any: the event says only that it is time to look */
    };
    reader->answerer.job_count = options->password_queue + options->password_workers;
    account_reserve(&reader->answerer, plan);
    /* In a MEM_COUNT plan there is no pool, as in the embedded mode. */
    return plan->mode == MEM_COUNT
               ? 0
               : password_open(&passwords, plan, &reader->answerer.passwords, ret_why, why_size);
}

/* On failure nothing stays open. */
static int open_parts(const struct reader_options *options,
                      const struct worker_options *worker_like, struct mem_plan *plan,
                      struct reader *reader, char *ret_why, size_t why_size)
{
    struct worker_options worker = *worker_like;

    worker.take = take;
    worker.tend = tend;
    worker.context = reader;
    int error = worker_open(&reader->worker, &worker, plan, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    error = open_stores(options, plan, reader, ret_why, why_size);
    error = error == 0 ? open_passwords(options, plan, reader, ret_why, why_size) : error;
    if (error < 0) {
        reader_close(reader);
        worker_stop(&reader->worker);
        return error;
    }
    if (plan->mode == MEM_MAP) {
        reader->answerer.store = tail_store(reader->tail);
    }
    return 0;
}

/* A reply must fit a record of the ring with its head. */
static uint32_t largest_reply(const struct reader_options *options,
                              const struct worker_options *worker)
{
    const uint32_t most = worker->out_bytes / 4 - (uint32_t)sizeof(struct read_answer);
    return options->page_bytes < most ? options->page_bytes : most;
}

int reader_open(const struct reader_options *options, const struct worker_options *worker,
                struct mem_plan *plan, struct reader **ret, char *ret_why, size_t why_size)
{
    static struct reader counted; /* stands for one in a MEM_COUNT plan, which opens nothing */
    struct reader *reader = mem_reserve_extra(plan, "reader", sizeof(*reader), 1,
                                              sizeof(struct read_answer) + options->page_bytes);

    if (plan->mode == MEM_COUNT) {
        counted = (struct reader){0};
        return open_parts(options, worker, plan, &counted, ret_why, why_size);
    }
    if (plan->error != 0) {
        (void)snprintf(ret_why, why_size, "no memory for a reader");
        return plan->error;
    }
    reader->reply_max = largest_reply(options, worker);
    CHECK(reader->reply_max >= ANSWER_REPLY_MAX);
    reader->answerer = (struct answerer){
        .ops = &reader_answerer,
        .page = (uint8_t *)(reader + 1) + sizeof(struct read_answer),
        .page_bytes = options->page_bytes,
        .keys_max = options->keys_max,
    };
    const int error = open_parts(options, worker, plan, reader, ret_why, why_size);
    if (error == 0) {
        *ret = reader;
    }
    return error;
}

struct worker *reader_worker(struct reader *reader)
{
    return &reader->worker;
}

int reader_start(struct reader *reader)
{
    account_init(&reader->answerer);
    int error = worker_start(&reader->worker);
    if (error == 0 && reader->answerer.passwords != NULL) {
        error = password_start(reader->answerer.passwords);
    }
    return error;
}

/* --- the end --- */

static void close_passwords(struct reader *reader)
{
    if (reader->answerer.passwords != NULL) {
        password_close(reader->answerer.passwords);
        reader->answerer.passwords = NULL;
    }
}

void reader_stop(struct reader *reader)
{
    struct worker *worker = &reader->worker;

    /* Release pairs with the acquire in worker_is_stopping. The thread ends first, for it gives
     * jobs to the pool; its ring goes last, for the pool rings there. */
    atomic_store_explicit(&worker->stopping, true, memory_order_release);
    if (worker->started) {
        (void)pthread_join(worker->thread, NULL);
        worker->started = false;
    }
    close_passwords(reader);
    worker_stop(worker);
}

void reader_close(struct reader *reader)
{
    close_passwords(reader);
    cache_close(reader->cache);
    store_mongo_close(reader->mongo);
    reader->cache = NULL;
    reader->mongo = NULL;
}
