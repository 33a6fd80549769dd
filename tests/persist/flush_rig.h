/*
 * flush_rig.h - a flusher on its own thread with the real redis-server of redis_rig.h and the
 * MongoDB of DAMSO_TEST_MONGODB_URI; and what lies in both, put there and looked at by hand.
 *
 * One database for a test program; every test has rooms of its own, and Redis is emptied before it.
 */
#pragma once

#include "core/config.h"
#include "core/log.h"
#include "persist/flush_own.h"
#include "tests/persist/job_rig.h"
#include "tests/persist/mongo_rig.h"
#include "tests/persist/redis_rig.h"

#include <errno.h>
#include <inttypes.h>

enum { LIST_WORDS = 512, KEYS_MAX = 100 };

static struct asker asker;
static struct redis_rig redis;
static struct redis_client client;
static struct mongo_rig mongo;
static struct store_mongo *store; /* the test's own look at MongoDB */
static struct mem_plan plan;
static struct flusher *flusher;
static uint64_t owner;
static struct flush_job job;

/* --- what operators are told --- */

static char told[16 * 1024];

static inline bool tell(const char *line, uint32_t size)
{
    const size_t used = strlen(told);
    if (used + size + 1 < sizeof(told)) {
        memcpy(told + used, line, size);
        told[used + size] = '\0';
    }
    return true;
}

/* --- the flusher --- */

static inline struct cache_options cache_options(void)
{
    return (struct cache_options){
        .url = redis.url, .ca_file = "", .prefix = "t:", .connect_ms = 2000, .reply_ms = 2000};
}

static inline int open_with(const char *uri, uint32_t bulk_max, bool cached, struct mongo **ret)
{
    char why[512] = "";
    const struct worker_options worker = asker_worker(&asker, "flush");
    const struct cache_options cache = cache_options();

    mem_init(&plan, "test", MEM_MAP);
    const struct mongo_options options = {
        .uri = uri, .connect_ms = 3000, .socket_ms = 30000, .clients = 1, .plan = &plan};
    CHECK(mongo_open(&options, ret, why, sizeof(why)) == 0);
    const struct flush_options flush = {
        .cache = cached ? &cache : NULL,
        .mongo = *ret,
        .bulk_max = bulk_max,
        .keys_max = KEYS_MAX,
        .boot_id = SLICE("01234567-89ab-cdef-0123-456789abcdef"),
    };
    const int error = flusher_open(&flush, &worker, &plan, &flusher, why, sizeof(why));
    if (error == 0) {
        CHECK(mem_seal(&plan) == 0);
        CHECK(worker_start(flusher_worker(flusher)) == 0);
    }
    return error;
}

static struct mongo *flusher_mongo;

static inline void flusher_begin(uint32_t bulk_max, bool cached)
{
    CHECK(open_with(mongo.uri, bulk_max, cached, &flusher_mongo) == 0);
}

static inline void flusher_end(void)
{
    worker_stop(flusher_worker(flusher));
    flusher_close(flusher);
    mongo_close(flusher_mongo);
    mem_end(&plan);
}

static inline struct job_answer ask(enum job_op op, uint64_t number, void *what)
{
    return asker_ask(&asker, flusher_worker(flusher), op, number, what);
}

static inline void take_over(void)
{
    const struct job_answer answer = ask(JOB_START, 0, NULL);
    if (answer.status < 0) {
        (void)fprintf(stderr, "START: %d %s\n", answer.status, answer.why);
    }
    CHECK(answer.status == 0 && answer.number > owner);
    owner = answer.number;
}

/* --- jobs --- */

static inline void begin(void)
{
    record_rig_reset();
    memset(&job, 0, sizeof(job));
    told[0] = '\0';
    (void)redis_client_say(&client, "FLUSHALL");
}

static inline struct flush_room *add(const char *room, uint64_t number, uint64_t first,
                                     uint64_t last)
{
    struct flush_room *added = &job.rooms[job.room_count++];

    *added = (struct flush_room){.room_id = rig_slice(room),
                                 .number = number,
                                 .first_seq = first,
                                 .last_seq = last,
                                 .result = 77};
    return added;
}

static inline struct job_answer flush(void)
{
    return ask(JOB_FLUSH, owner, &job);
}

static inline void add_record(uint16_t room, struct slice record)
{
    job.record_room[job.record_count] = room;
    job.records[job.record_count++] = record;
}

static inline struct job_answer direct(void)
{
    return ask(JOB_DIRECT, owner, &job);
}

/* --- Redis --- */

static inline void push(const char *key, const struct slice *records, uint32_t count)
{
    struct slice words[LIST_WORDS + 2] = {SLICE("RPUSH"), rig_slice(key)};
    struct redis_reply reply;

    for (uint32_t at = 0; at < count;) {
        const uint32_t some = count - at < LIST_WORDS ? count - at : LIST_WORDS;
        memcpy(words + 2, records + at, some * sizeof(*records));
        CHECK(redis_command(client.redis, some + 2, words, &reply) == 0);
        CHECK(reply.type == REDIS_INTEGER);
        at += some;
    }
}

static inline void push_one(const char *key, struct slice record)
{
    push(key, &record, 1);
}

static inline void push_range(const char *key, const char *room, uint64_t from, uint64_t to)
{
    struct slice records[LIST_WORDS];

    while (from <= to) {
        uint32_t count = 0;
        for (; from <= to && count < LIST_WORDS; from++) {
            records[count++] = record_rig_make(room, from);
        }
        push(key, records, count);
    }
}

static inline const char *log_key(const char *room)
{
    static char key[128];
    (void)snprintf(key, sizeof(key), "t:{%s}:log", room);
    return key;
}

static inline const char *frozen_key(const char *room, uint64_t of, uint64_t number)
{
    static char key[128];
    (void)snprintf(key, sizeof(key), "t:{%s}:flush:%" PRIu64 ".%" PRIu64, room, of, number);
    return key;
}

/* Elements of a list, as text for comparison; "0": not there. */
static inline bool has_length(const char *key, const char *length)
{
    char command[200];
    (void)snprintf(command, sizeof(command), "LLEN %s", key);
    return redis_client_gets(&client, command, length);
}

static inline uint32_t count_keys(const char *pattern)
{
    char command[200];
    (void)snprintf(command, sizeof(command), "KEYS %s", pattern);
    return redis_client_say(&client, command).count;
}

/* --- MongoDB --- */

static inline void make_room(const char *room_id)
{
    const struct store_room room = {.epoch = 1,
                                    .created_ms = 5,
                                    .members_max = 9,
                                    .visibility = 1,
                                    .durability = CONFIG_DURABILITY_FSYNC,
                                    .room_id = rig_slice(room_id),
                                    .name = rig_slice("The Room")};
    CHECK(store_mongo_room_create(store, &room, SLICE("owner"), SLICE("Olga")) == 0);
}

static inline void store_range(const char *room, uint64_t from, uint64_t to)
{
    uint8_t results[MONGO_BULK_MAX];

    for (; from <= to; from++) {
        const struct slice record = record_rig_make(room, from);
        CHECK(store_mongo_insert(store, &record, 1, results) == 0);
        CHECK(results[0] == STORE_MONGO_STORED);
    }
}

struct look {
    const char *room;
    uint64_t next;
};

static inline int look_row(void *context, uint64_t seq, struct slice body)
{
    struct look *look = context;
    char text[64];
    const struct record expected = rig_message(text, look->room, 1, seq);

    if (seq != look->next || !slice_equal(body, expected.body)) {
        return -EBADMSG;
    }
    look->next++;
    return 0;
}

/* The room has just these messages; to 0: none. */
static inline bool stored(const char *room, uint64_t from, uint64_t to)
{
    struct look look = {.room = room, .next = from};
    const struct store_range range = {
        .room_id = rig_slice(room), .from_seq = 1, .to_seq = STORE_SEQ_MAX, .limit = 1000000};
    const int error = store_mongo_history_read(store, &range, look_row, &look);

    if ((error != 0 && error != -ENOENT) || (to > 0 && look.next != to + 1) ||
        (to == 0 && look.next != from)) {
        (void)fprintf(stderr, "%s: error %d, next %" PRIu64 "\n", room, error, look.next);
        return false;
    }
    return true;
}

static inline bool is(const struct job_answer *answer, int status, enum job_where where)
{
    if (answer->status != status || answer->where != where) {
        (void)fprintf(stderr, "status %d where %d: %s\n", answer->status, answer->where,
                      answer->why);
    }
    return answer->status == status && answer->where == where &&
           (status == 0 || answer->why_bytes > 0);
}

/* --- all of a test program --- */

static inline void rig_begin(void)
{
    log_writer(tell);
    log_level_set(LOG_LEVEL_ERROR);
    asker_open(&asker);
    mongo_rig_store(&mongo, 2);
    store = mongo.store;
    redis_rig_open(&redis, "");
    redis_client_open(&client, redis.url, NULL);
    CHECK(redis_connect(client.redis) == 0);
    flusher_begin(MONGO_BULK_MAX, true);
    take_over();
}

static inline void rig_end(void)
{
    flusher_end();
    redis_client_close(&client);
    redis_rig_close(&redis);
    mongo_rig_close(&mongo);
    asker_close(&asker);
}
