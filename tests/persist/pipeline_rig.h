/*
 * pipeline_rig.h - redis+mongodb behind its door with a redis-server of the test's own, which it
 *                  may empty, spoil and kill, and the MongoDB of DAMSO_TEST_MONGODB_URI.
 *
 * The shard of persist_rig.h keeps what it handed over and hands it over again when it is asked to,
 * as shard/handover.h does. At the end of a test what counts is what MongoDB has: the rooms are
 * read without Redis.
 */
#pragma once

#include "tests/persist/contract_rig.h"

enum {
    JOURNAL_BYTES = 32 * 1024 * 1024,
    NEVER_MS = 3600000,
    QUIET_NS = 300 * 1000 * 1000, /* in which nothing must happen */
};

static struct redis_rig redis;
static struct redis_client orders;
static struct rig_shard *shard;
static struct rig_journal journal;
static const struct contract_mode *const cached = &contract_modes[1];
static const struct contract_mode *const uncached = &contract_modes[2];
static uint64_t random_state; /* begins with the seed */

static inline bool is(const char *shown, const char *expected)
{
    return contract_is(shown, expected);
}

/* A shard with a journal of its own. */
static inline void open_shard(void)
{
    journal.used = 0;
    shard = contract_open();
    shard->journal = &journal;
}

static inline void begin_test(uint64_t flush_interval_ms)
{
    contract.mode = cached;
    contract.adjust = NULL;
    contract.metrics = (struct metrics){0};
    contract.flush_interval_ms = flush_interval_ms;
    (void)redis_client_say(&orders, "FLUSHALL");
    open_shard();
}

static inline void end_test(void)
{
    contract_close();
}

static inline void wait_for(const _Atomic uint64_t *gauge, uint64_t least)
{
    const uint64_t end_ms = rig_now_ms() + CONTRACT_READY_MS;

    while (metrics_get(gauge) < least) {
        CHECK(rig_now_ms() < end_ms);
        CHECK(usleep(1000) == 0);
    }
}

static inline void send_range(const char *room, uint64_t from, uint64_t to)
{
    for (uint64_t seq = from; seq <= to; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
        if (seq % 64 == 0) {
            rig_publish(shard);
        }
    }
    rig_publish(shard);
}

/* Opens anew without Redis: what is read then comes from MongoDB. */
static inline void look_into_mongodb(void)
{
    contract_close();
    contract.mode = uncached;
    open_shard();
}

/* Arguments: a seed for what is random, and the number of a test to run alone. */
static inline int pipeline_run(void (*const *tests)(void), uint32_t total, int count, char **words)
{
    uint64_t seed = rig_now_ms();

    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    seed = count > 1 ? strtoull(words[1], NULL, 10) : seed;
    random_state = seed;
    (void)printf("seed %" PRIu64 "\n", seed);
    journal = (struct rig_journal){.bytes = malloc(JOURNAL_BYTES), .capacity = JOURNAL_BYTES};
    CHECK(journal.bytes != NULL);
    redis_rig_open(&redis, "");
    redis_client_open(&orders, redis.url, NULL);
    CHECK(redis_connect(orders.redis) == 0);
    contract_begin(cached, redis.url);
    for (uint32_t i = 0; i < total; i++) {
        contract.test = i;
        if (count < 3 || strtoul(words[2], NULL, 10) == i) {
            const uint64_t begun_ms = rig_now_ms();
            tests[i]();
            (void)printf("test %u: %.1f s\n", i, (double)(rig_now_ms() - begun_ms) / 1e3);
            (void)fflush(stdout);
        }
    }
    contract.mode = cached;
    contract_end();
    redis_client_close(&orders);
    redis_rig_close(&redis);
    free(journal.bytes);
    (void)printf("%u passed, 0 failed\n", count < 3 ? total : 1);
    return 0;
}
