/*
 * micro_store.c - what the embedded store takes: records a second in batches, with a sync each, and
 *                 the replay of a 64 MiB journal, which start-up after a crash waits for.
 *
 * Use:    micro_store [DIRECTORY]     a temporary directory is made there (default: here)
 * Method: records of about 300 bytes, all with an idempotency key, round robin over the rooms, so
 *         that no room's records are neighbours; the store is new each time.
 */
#include "core/check.h"
#include "core/config.h"
#include "core/mem.h"
#include "core/os.h"
#include "persist/persist.h"
#include "persist/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    REPLAY_BYTES = 64 * 1024 * 1024,
    RECORD_BYTES = 300,
    BATCHED_RECORDS = 200000,
    CACHE_BYTES = 64 * 1024 * 1024,
    EPOCH = 77,
    PATH_BYTES = CONFIG_TEXT_SIZE,
};

static char directory[PATH_BYTES];

static void make_directory(const char *parent)
{
    (void)snprintf(directory, sizeof(directory), "%s/micro_store.XXXXXX", parent);
    CHECK(mkdtemp(directory) != NULL);
}

static int remove_file(void *context, const char *name)
{
    char path[PATH_BYTES + 256];

    (void)context;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return os_file_remove(path);
}

static void remove_directory(void)
{
    CHECK(os_directory_list(directory, remove_file, NULL) == 0);
    CHECK(rmdir(directory) == 0);
}

static struct store *open_store(struct mem_plan *plan)
{
    char why[256] = "";
    struct store *store = NULL;

    mem_init(plan, "micro", MEM_MAP);
    const struct store_options options = {
        .directory = directory, .cache_bytes = CACHE_BYTES, .keys_max = 4096, .plan = plan};
    CHECK(store_sqlite_open(&options, &store, why, sizeof(why)) == 0);
    CHECK(mem_seal(plan) == 0);
    CHECK(store->ops->run_begin(store, SLICE("boot")) == 0);
    return store;
}

static void make_rooms(struct store *store, uint32_t rooms)
{
    CHECK(store->ops->begin(store) == 0);
    for (uint32_t i = 0; i < rooms; i++) {
        char name[16];
        const int size = snprintf(name, sizeof(name), "room-%u", i);
        const struct store_room room = {.epoch = EPOCH,
                                        .durability = CONFIG_DURABILITY_FSYNC,
                                        .room_id = {name, (uint32_t)size},
                                        .name = SLICE("a room")};
        CHECK(store->ops->room_create(store, &room, SLICE("owner"), SLICE("owner")) == 0);
    }
    CHECK(store->ops->commit(store) == 0);
}

/* The number-th record of the stream; returns its size. */
static uint32_t make_record(uint8_t bytes[1024], uint64_t number, uint32_t rooms)
{
    char room[16];
    char body[200];
    const int room_size = snprintf(room, sizeof(room), "room-%u", (uint32_t)(number % rooms));
    struct record record = {
        .kind = RECORD_MESSAGE,
        .flags = RECORD_KEYED,
        .epoch = EPOCH,
        .seq = number / rooms + 1,
        .at_ms = 1795000000000 + number,
        .content_digest = number * UINT64_C(0x9e3779b97f4a7c15),
        .room_id = {room, (uint32_t)room_size},
        .user_id = SLICE("0123456789abcdefghijkl"),
        .username = SLICE("somebody"),
        .body = {body, sizeof(body)},
    };
    memset(body, 'x', sizeof(body));
    memcpy(record.key_digest, &record.content_digest, sizeof(record.content_digest));
    CHECK(record_size(&record) >= RECORD_BYTES - 10 && record_size(&record) <= 1024);
    record_encode(&record, bytes);
    return record_size(&record);
}

static double seconds_since(uint64_t begin_ns)
{
    return (double)(os_now_ns() - begin_ns) / 1e9;
}

static void measure_batches(uint32_t rooms, uint32_t batch_records)
{
    struct mem_plan plan;
    struct store *store = open_store(&plan);
    uint8_t bytes[1024];

    make_rooms(store, rooms);
    const uint64_t begin_ns = os_now_ns();
    const uint64_t cpu_ns = os_thread_cpu_ns();
    for (uint64_t i = 0; i < BATCHED_RECORDS;) {
        CHECK(store->ops->begin(store) == 0);
        for (uint32_t j = 0; j < batch_records && i < BATCHED_RECORDS; j++, i++) {
            struct record record;
            const uint32_t size = make_record(bytes, i, rooms);
            CHECK(record_decode(bytes, size, &record) == 0);
            CHECK(store->ops->append(store, &record, false) == STORE_STORED);
        }
        CHECK(store->ops->commit(store) == 0);
        store->ops->tend(store, false);
    }
    const double seconds = seconds_since(begin_ns);
    printf("batches   rooms %-6u records a batch %-6u %9.0f records/s  %5.2f us CPU a record\n",
           rooms, batch_records, BATCHED_RECORDS / seconds,
           (double)(os_thread_cpu_ns() - cpu_ns) / 1e3 / BATCHED_RECORDS);
    store->ops->close(store);
    mem_end(&plan);
}

static void measure_replay(uint32_t rooms)
{
    static struct config config;
    struct mem_plan plan;
    struct persist *persist = NULL;
    uint8_t bytes[1024];
    char why[256] = "";
    uint64_t total = 0;
    uint64_t count = 0;

    struct store *store = open_store(&plan);
    make_rooms(store, rooms);
    store->ops->close(store);
    mem_end(&plan);
    config_defaults(&config);
    (void)snprintf(config.server_data, sizeof(config.server_data), "%s", directory);
    CHECK(persist_open(&config, &persist, why, sizeof(why)) == 0);
    const uint64_t begin_ns = os_now_ns();
    for (; total < REPLAY_BYTES; count++) {
        const uint32_t size = make_record(bytes, count, rooms);
        CHECK(persist_replay(persist, bytes, size, false) == 0);
        total += size;
    }
    CHECK(persist_replay_end(persist) == 0);
    printf("replay    rooms %-6u 64 MiB, %lu records   %6.2f s until durable\n", rooms,
           (unsigned long)count, seconds_since(begin_ns));
    persist_close(persist);
}

int main(int argc, char **argv)
{
    static const uint32_t rooms[] = {1, 50, 5000};
    const char *parent = argc > 1 ? argv[1] : ".";

    for (int i = 0; i < 3; i++) {
        make_directory(parent);
        measure_batches(rooms[i], 4096);
        remove_directory();
        make_directory(parent);
        measure_batches(rooms[i], 100);
        remove_directory();
        make_directory(parent);
        measure_batches(rooms[i], 16384);
        remove_directory();
        make_directory(parent);
        measure_replay(rooms[i]);
        remove_directory();
    }
    return 0;
}
