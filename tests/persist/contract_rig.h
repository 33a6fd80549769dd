/*
 * contract_rig.h - persistence behind its door in each of its modes, for tests that know of it only
 *                  what persist/persist.h says.
 *
 * A mode has one data directory, and a database and a key prefix of its own on the servers of
 * DAMSO_TEST_MONGODB_URI and DAMSO_TEST_REDIS_URL; contract_end drops all three. A test makes room
 * and user names of its own by contract_name, so that many share one database.
 */
#pragma once

#include "tests/persist/mongo_rig.h"
#include "tests/persist/persist_rig.h"
#include "tests/persist/redis_rig.h"

#include <errno.h>
#include <inttypes.h>

enum { CONTRACT_SHARDS = 3, CONTRACT_READY_MS = 60000, CONTRACT_NAME_BYTES = 48 };

struct contract_mode {
    const char *name;
    bool stores; /* redis+mongodb */
    bool cached; /* with Redis */
};

static const struct contract_mode contract_modes[] = {
    {.name = "embedded"},
    {.name = "redis+mongodb, cache = redis", .stores = true, .cached = true},
    {.name = "redis+mongodb, cache = none", .stores = true},
};

static struct {
    const struct contract_mode *mode;
    uint32_t test; /* counts them: part of names */
    uint64_t flush_interval_ms;
    uint64_t keys_max;
    uint64_t batch_records;
    char directory[RIG_PATH_BYTES];
    char prefix[64];
    char uri[256]; /* as long as the configuration takes */
    char redis_url[256];
    void (*adjust)(struct config *config); /* NULL, or the test's own say, last */
    struct config config;
    struct metrics metrics;
    struct persist *persist;
    struct rig_shard shards[CONTRACT_SHARDS];
    struct persist_lane *lanes[CONTRACT_SHARDS];
    uint32_t shard_count; /* of those that are open */
} contract;

/* The Redis to use, or NULL. */
static inline const char *contract_redis(void)
{
    const char *url = getenv("DAMSO_TEST_REDIS_URL"); /* NOLINT(concurrency-mt-unsafe) */
    return url != NULL && url[0] != '\0' ? url : NULL;
}

static inline bool contract_has_stores(void)
{
    return contract_redis() != NULL && mongo_rig_server() != NULL;
}

/* A name that no other test of the mode has: "t7-" and the rest. One of eight buffers in turn. */
static inline const char *contract_name(const char *rest)
{
    static _Thread_local char names[8][CONTRACT_NAME_BYTES];
    static _Thread_local uint32_t next;
    char *name = names[next++ % 8];

    (void)snprintf(name, CONTRACT_NAME_BYTES, "t%u-%s", contract.test, rest);
    return name;
}

static inline void contract_configure(void)
{
    struct config *config = &contract.config;

    config_defaults(config);
    (void)snprintf(config->server_data, sizeof(config->server_data), "%s", contract.directory);
    config->persist_ring_bytes = RIG_RING_BYTES;
    config->persist_cache_bytes = 1 << 20;
    config->persist_batch_records = contract.batch_records;
    config->limits_idempotency_keys = contract.keys_max;
    config->persist_mode = contract.mode->stores ? 1 : 0;
    config->persist_cache = contract.mode->cached ? 0 : 1;
    config->persist_flush_interval = contract.flush_interval_ms;
    config->persist_pending_rooms = 64;
    config->persist_redis_timeout = 20000; /* a busy machine is not what is tested */
    config->persist_store_timeout = 60000;
    config->persist_store_connect = 10000;
    if (contract.mode->stores) {
        (void)snprintf(config->persist_mongodb_uri, sizeof(config->persist_mongodb_uri), "%s",
                       contract.uri);
        (void)snprintf(config->persist_redis_url, sizeof(config->persist_redis_url), "%s",
                       contract.redis_url);
        (void)snprintf(config->persist_redis_prefix, sizeof(config->persist_redis_prefix), "%s",
                       contract.prefix);
    }
    if (contract.adjust != NULL) {
        contract.adjust(config);
    }
}

/* Opens the store, as main does before there are shards. */
static inline void contract_open_store(void)
{
    char why[512] = "";

    contract_configure();
    const int error = persist_open(&contract.config, &contract.persist, why, sizeof(why));
    if (error < 0) {
        (void)fprintf(stderr, "%s: %d %s\n", contract.mode->name, error, why);
    }
    CHECK(error == 0);
}

static inline void contract_start(uint32_t count, uint32_t replies_bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        rig_shard_open(&contract.shards[i], replies_bytes);
        contract.lanes[i] = &contract.shards[i].lane;
    }
    contract.shard_count = count;
    CHECK(persist_start(contract.persist, contract.lanes, count, &contract.metrics) == 0);
}

/* Until rooms can be loaded. */
static inline void contract_wait_ready(void)
{
    char why[512] = "";
    const uint64_t end_ms = rig_now_ms() + CONTRACT_READY_MS;

    while (persist_state(contract.persist, why, sizeof(why)) != PERSIST_READY) {
        if (rig_now_ms() > end_ms) {
            (void)fprintf(stderr, "%s does not become ready: %s\n", contract.mode->name, why);
        }
        CHECK(rig_now_ms() <= end_ms);
        CHECK(usleep(1000) == 0);
    }
}

/* One shard of the calling thread. */
static inline struct rig_shard *contract_open(void)
{
    contract_open_store();
    contract_start(1, RIG_RING_BYTES);
    rig_shard_enable(&contract.shards[0], contract.persist);
    contract_wait_ready();
    return &contract.shards[0];
}

/* As a clean stop does. */
static inline void contract_close(void)
{
    persist_close(contract.persist);
    for (uint32_t i = 0; i < contract.shard_count; i++) {
        rig_shard_close(&contract.shards[i]);
    }
    contract.shard_count = 0;
}

static inline struct rig_shard *contract_restart(void)
{
    contract_close();
    return contract_open();
}

/* --- all of a mode --- */

/* redis_url: NULL for a mode without stores. */
static inline void contract_begin(const struct contract_mode *mode, const char *redis_url)
{
    char database[64];
    uint64_t number;

    os_random(&number, sizeof(number));
    contract.mode = mode;
    contract.flush_interval_ms = 50;
    contract.keys_max = 4096;
    contract.batch_records = 4096;
    rig_make(contract.directory);
    (void)snprintf(contract.prefix, sizeof(contract.prefix), "damso-test-%016" PRIx64 ":", number);
    (void)snprintf(database, sizeof(database), "damso_test_%016" PRIx64, number);
    if (mode->stores) {
        CHECK(strlen(redis_url) < sizeof(contract.redis_url));
        (void)snprintf(contract.redis_url, sizeof(contract.redis_url), "%s", redis_url);
        mongo_rig_uri(database, contract.uri, sizeof(contract.uri));
    }
}

/* Removes every key under the prefix. */
static inline void contract_forget_redis(void)
{
    struct redis_client client;
    char cursor[32] = "0";
    char command[256];

    redis_client_open(&client, contract.redis_url, NULL);
    CHECK(redis_connect(client.redis) == 0);
    do {
        char keys[4096] = "UNLINK";
        size_t used = strlen(keys);
        (void)snprintf(command, sizeof(command), "SCAN %s MATCH %s* COUNT 16", cursor,
                       contract.prefix);
        const struct redis_reply reply = redis_client_say(&client, command);
        const struct redis_reply next = redis_element(&reply, 0);
        const struct redis_reply found = redis_element(&reply, 1);
        CHECK(next.text.size < sizeof(cursor));
        memcpy(cursor, next.text.data, next.text.size);
        cursor[next.text.size] = '\0';
        for (uint32_t i = 0; i < found.count && i < RIG_WORDS_MAX - 1; i++) {
            const struct redis_reply key = redis_element(&found, i);
            used += (size_t)snprintf(keys + used, sizeof(keys) - used, " %.*s", (int)key.text.size,
                                     key.text.data);
            CHECK(used < sizeof(keys));
        }
        if (found.count > 0) {
            (void)redis_client_say(&client, keys);
        }
    } while (strcmp(cursor, "0") != 0);
    redis_client_close(&client);
}

static inline void contract_drop_database(void)
{
    bson_t command = BSON_INITIALIZER;
    struct mongo_error error;
    struct mem_plan plan;
    struct mongo *mongo;
    char why[512] = "";

    mem_init(&plan, "test", MEM_MAP);
    const struct mongo_options options = {
        .uri = contract.uri, .connect_ms = 5000, .socket_ms = 60000, .clients = 1, .plan = &plan};
    CHECK(mongo_open(&options, &mongo, why, sizeof(why)) == 0);
    CHECK(mem_seal(&plan) == 0);
    struct mongo_client *client = mongo_take(mongo);
    CHECK(BSON_APPEND_INT32(&command, "dropDatabase", 1));
    CHECK(mongo_command(client, &command, true, NULL, NULL, &error) == 0);
    bson_destroy(&command);
    mongo_give(mongo, client);
    mongo_close(mongo);
    mem_end(&plan);
}

static inline void contract_end(void)
{
    if (contract.mode->stores) {
        contract_forget_redis();
        contract_drop_database();
    }
    rig_remove(contract.directory);
}

/* Prints what was expected where it is not what is shown. */
static inline bool contract_is(const char *shown, const char *expected)
{
    if (strcmp(shown, expected) != 0) {
        (void)fprintf(stderr, "%s: shown \"%s\", expected \"%s\"\n", contract.mode->name, shown,
                      expected);
    }
    return strcmp(shown, expected) == 0;
}

/* A page of the room, as rig_history tells it. */
static inline const char *contract_page(struct rig_shard *shard, const char *room, uint64_t from,
                                        uint64_t to, uint32_t limit, uint32_t bytes_max,
                                        bool descending)
{
    const struct slice tail = rig_slice(room);
    const struct persist_page request = {
        .head = rig_head(shard, PERSIST_HISTORY),
        .from_seq = from,
        .to_seq = to,
        .limit = limit,
        .bytes_max = bytes_max,
        .descending = descending,
        .room_bytes = (uint8_t)tail.size,
    };
    rig_put(shard, &request, sizeof(request), &tail, 1);
    return rig_history(shard, room);
}

/* All of the room. */
static inline const char *contract_all(struct rig_shard *shard, const char *room)
{
    return contract_page(shard, room, 1, UINT64_MAX, 100000, 1 << 20, false);
}

/* Whether the answer to the last question is a refusal with that status: its struct and no more,
 * zeroed behind the head. */
static inline bool contract_refuses(struct rig_shard *shard, enum persist_op op,
                                    size_t struct_bytes, int status)
{
    static const uint8_t zeroes[sizeof(struct persist_room)];
    struct persist_head head;
    uint32_t size;

    rig_publish(shard);
    const uint8_t *reply = rig_reply(shard, &size);
    memcpy(&head, reply, sizeof(head));
    const bool same = size == struct_bytes && head.op == op && head.status == status &&
                      head.count == 0 && head.token == shard->token &&
                      memcmp(reply + sizeof(head), zeroes, size - sizeof(head)) == 0;
    if (!same) {
        (void)fprintf(stderr, "%s: op %u status %d size %u\n", contract.mode->name, head.op,
                      head.status, size);
    }
    rig_next(shard);
    return same;
}

static inline bool contract_refuses_room(struct rig_shard *shard, int status)
{
    return contract_refuses(shard, PERSIST_ROOM, sizeof(struct persist_room), status);
}

static inline bool contract_refuses_page(struct rig_shard *shard, int status)
{
    return contract_refuses(shard, PERSIST_HISTORY_PAGE, sizeof(struct persist_head), status);
}

static inline bool contract_refuses_user(struct rig_shard *shard, int status)
{
    return contract_refuses(shard, PERSIST_USER, sizeof(struct persist_user), status);
}

/* --- a suite over all modes --- */

/* Runs every test in each mode, with *shard the one that is open, and prints the closing line: the
 * program's exit code. */
static inline int contract_run(void (*const *tests)(void), uint32_t count, struct rig_shard **shard)
{
    const uint32_t modes = contract_has_stores() ? 3 : 1;

    for (uint32_t m = 0; m < modes; m++) {
        const uint64_t begun_ms = rig_now_ms();
        contract_begin(&contract_modes[m], contract_redis());
        for (uint32_t i = 0; i < count; i++) {
            contract.test = i;
            *shard = contract_open();
            tests[i]();
            contract_close();
        }
        contract_end();
        (void)printf("%s: %u tests in %.1f s\n", contract_modes[m].name, count,
                     (double)(rig_now_ms() - begun_ms) / 1e3);
    }
    if (modes == 1) {
        (void)puts("the modes with stores are skipped: DAMSO_TEST_MONGODB_URI and "
                   "DAMSO_TEST_REDIS_URL are not set (scripts/servers start prints them)");
    }
    (void)printf("%u passed, 0 failed, %u skipped\n", modes * count, (3 - modes) * count);
    return 0;
}
