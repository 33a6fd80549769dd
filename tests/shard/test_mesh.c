/*
 * test_mesh.c - shards on threads of their own: every request is answered once, every replica sees
 *               its room's events in the order of seq, gaps announced, whoever sends (X1, X2, R1).
 *
 * Method: the real turn on real rings and a real journal, small rings between the shards so that
 * they fill, each shard's store played in its own thread. Also for ThreadSanitizer.
 */
#include "core/log.h"
#include "core/ws.h"
#include "shard/loop.c"
#include "shard/room_home.h"
#include "shard/session.h"
#include "tests/shard/fake_store.h"
#include "tests/shard/plan_end.h"

#include <sched.h>
#include <unistd.h>

enum {
    SHARDS = 2,
    ROOMS = 6,
    SENDS = 4000, /* of each shard */
    WINDOW = 600,
    MESH_RING_BYTES = 1 << 18,
    TEXT_BYTES_MAX = 4000,
    TURNS_MAX = 2000000,
    SECONDS_MAX = 50,
};

/* What a shard follows of one room. */
struct followed {
    bool joined;
    struct log_cursor cursor;
    uint64_t gaps, events;
    uint64_t last_acked; /* seq of this shard's own latest answered send */
};

static struct worker {
    struct shard shard;
    struct fake_store store;
    struct followed rooms[ROOMS];
    uint32_t sent, answered, refused, acked;
    uint32_t joining;
    uint64_t random;
    bool slow; /* sleeps now and then, so that the rings to it fill */
} workers[SHARDS];

static struct config config;
static struct mesh_lane lanes[SHARDS * SHARDS];
static alignas(64) unsigned char ring_bytes[SHARDS * SHARDS * 2][MESH_RING_BYTES];
static char names[ROOMS][16];
static char directory[] = "mesh-XXXXXX"; /* where the test is run */
static char text[TEXT_BYTES_MAX + 3];
static uint64_t began_ns;

static _Atomic uint32_t senders_done; /* shards that have every answer */
static _Atomic uint32_t readers_done; /* shards that have read everything */
static _Atomic uint64_t final_seq[ROOMS];

static struct slice room_slice(uint32_t number)
{
    return (struct slice){names[number], (uint32_t)strlen(names[number])};
}

static uint64_t next_random(struct worker *worker)
{
    worker->random = worker->random * 6364136223846793005U + 1442695040888963407U;
    return worker->random >> 33;
}

/* --- asking --- */

static void join_answered(struct shard *shard, struct conn *conn, struct call *call,
                          const struct call_answer *answer)
{
    struct worker *worker = &workers[shard->index];
    const struct slice id = {call->room_id, call->room_id_size};
    struct room *room = room_find(shard, id);
    struct followed *followed = &worker->rooms[call->limit];
    (void)conn;
    worker->joining--;
    if (answer->room->error != ERROR_NONE) {
        room_abandon(shard, id);
    } else {
        CHECK(room != NULL);
        room_followed(shard, room, answer->room->epoch, answer->room->seq);
        followed->joined = true;
        followed->cursor = room->log.durable;
    }
    call_give(shard, call);
}

static void join(struct worker *worker, uint32_t number)
{
    struct shard *shard = &worker->shard;
    struct call *call = call_take(shard, NULL, join_answered);
    CHECK(call != NULL);
    const struct slice id = room_slice(number);
    const struct room *room = room_follow(shard, id);
    call->limit = number;
    call->room_id_size = (uint8_t)id.size;
    memcpy(call->room_id, id.data, id.size);
    worker->joining++;
    room_ask(shard, &(struct room_request){.op = ROOM_JOIN,
                                           .follow = true,
                                           .token = call_token(shard, call),
                                           .replica = room != NULL ? room_index(shard, room) : 0,
                                           .room_id = id,
                                           .user_id = SLICE("olga"),
                                           .username = SLICE("olga")});
}

static void send_answered(struct shard *shard, struct conn *conn, struct call *call,
                          const struct call_answer *answer)
{
    struct worker *worker = &workers[shard->index];
    struct followed *followed = &worker->rooms[call->limit];
    (void)conn;
    worker->answered++;
    if (answer->room->error == ERROR_NONE) {
        CHECK(answer->room->seq > followed->last_acked); /* X1: in the order of sending */
        followed->last_acked = answer->room->seq;
        worker->acked++;
    } else {
        CHECK(answer->room->error == ERROR_UNAVAILABLE);
        worker->refused++;
    }
    call_give(shard, call);
}

static void send_some(struct worker *worker)
{
    struct shard *shard = &worker->shard;
    uint64_t burst = next_random(worker) % 40;
    while (burst-- > 0 && worker->sent < SENDS && worker->sent - worker->answered < WINDOW) {
        struct call *call = call_take(shard, NULL, send_answered);
        CHECK(call != NULL);
        call->limit = (uint32_t)(next_random(worker) % ROOMS);
        worker->sent++;
        const uint32_t size = (uint32_t)(next_random(worker) % TEXT_BYTES_MAX);
        room_ask(shard, &(struct room_request){.op = ROOM_SEND,
                                               .token = call_token(shard, call),
                                               .room_id = room_slice(call->limit),
                                               .user_id = SLICE("olga"),
                                               .username = SLICE("olga"),
                                               .text = {text, size + 2}});
    }
}

/* --- reading --- */

static void read_room(struct worker *worker, uint32_t number)
{
    struct shard *shard = &worker->shard;
    struct followed *followed = &worker->rooms[number];
    struct room *room = room_find(shard, room_slice(number));
    CHECK(room != NULL);
    room->used_ms = shard->now_ms; /* as with a member here */
    if (room_log_lost(&room->log, &followed->cursor)) {
        followed->cursor = (struct log_cursor){.seq = room->log.first_seq};
        followed->gaps++;
    }
    char wanted[24];
    for (struct slice event = room_log_event(&room->log, &followed->cursor); event.size > 0;
         event = room_log_event(&room->log, &followed->cursor)) {
        const int size = snprintf(wanted, sizeof(wanted), "\"seq\":%lu,",
                                  (unsigned long)(followed->cursor.seq - 1));
        CHECK(memmem(event.data, event.size < 120 ? event.size : 120, wanted, (size_t)size));
        followed->events++;
    }
    CHECK(followed->cursor.seq == room->log.durable.seq);
}

static bool has_read_everything(struct worker *worker)
{
    bool all = atomic_load(&senders_done) == SHARDS;
    for (uint32_t i = 0; i < ROOMS; i++) {
        struct followed *followed = &worker->rooms[i];
        if (followed->joined) {
            read_room(worker, i);
        }
        all = all && followed->cursor.seq == atomic_load(&final_seq[i]) + 1;
    }
    return all;
}

/* The last seq of each room that is at home here, once nobody sends any more. */
static void tell_final_seqs(struct worker *worker)
{
    for (uint32_t i = 0; i < ROOMS; i++) {
        if (room_home(&worker->shard, room_slice(i)) == worker->shard.index) {
            const struct room *room = room_find(&worker->shard, room_slice(i));
            CHECK(room != NULL && room->in_flight == 0);
            atomic_store(&final_seq[i], room->log.durable.seq - 1);
        }
    }
}

/* --- threads --- */

static void *run(void *argument)
{
    struct worker *worker = argument;
    struct shard *shard = &worker->shard;
    struct os_event events[EVENTS_MAX];
    int count = 0;
    bool sending = true;
    bool told = false;
    bool reading = true;

    CHECK(os_ring_enable(shard->ring) == 0);
    read_clock(shard);
    timer_wheel_init(shard->wheel, shard->now_ms);
    atomic_fetch_add(&readers_done, 1);
    for (uint32_t i = 0; i < TURNS_MAX && atomic_load(&readers_done) < SHARDS; i++) {
        (void)sched_yield(); /* a doorbell to a ring that is not enabled is lost */
    }
    for (uint32_t i = 0; i < TURNS_MAX && atomic_load(&readers_done) < 2 * SHARDS; i++) {
        CHECK(os_now_ns() - began_ns < (uint64_t)SECONDS_MAX * 1000000000);
        store_turn(&worker->store);
        for (uint32_t r = 0; r < ROOMS && worker->joining == 0; r++) {
            if (!worker->rooms[r].joined) {
                join(worker, r);
            }
        }
        send_some(worker);
        count = loop_turn(shard, events, count);
        CHECK(count >= 0);
        if (worker->slow && next_random(worker) % 8 == 0) {
            (void)usleep(20000);
        }
        if (sending && worker->answered == SENDS) {
            sending = false;
            atomic_fetch_add(&senders_done, 1);
        }
        if (!told && atomic_load(&senders_done) == SHARDS) {
            told = true;
            tell_final_seqs(worker);
        }
        if (has_read_everything(worker) && told && reading) {
            reading = false;
            atomic_fetch_add(&readers_done, 1);
        }
    }
    CHECK(!reading);
    return NULL;
}

static void open_worker(uint32_t index)
{
    struct worker *worker = &workers[index];
    struct shard *shard = &worker->shard;
    char why[256] = "";
    memset(worker, 0, sizeof(*worker));
    worker->random = index + 1;
    shard_plan(shard, &config, index, SHARDS, MEM_MAP);
    CHECK(shard_open(shard, why, sizeof(why)) == 0);
    const struct journal_options options = {
        .ring = shard->ring,
        .directory = directory,
        .shard = index,
        .segment_bytes = (uint32_t)config.journal_segment_bytes,
        .bytes_max = config.journal_bytes_max / SHARDS,
        .buffer_bytes = (uint32_t)config.journal_buffer_bytes,
        .first_segment = 1,
        .tag_kind = TAG_JOURNAL,
        .metrics = shard->metrics,
    };
    CHECK(journal_open(&options, &shard->plan, &shard->journal, why, sizeof(why)) == 0);
    CHECK(mem_seal(&shard->plan) == 0);
    store_begin(&worker->store, &shard->bell);
    shard->lane = &worker->store.lane;
    for (uint32_t i = 0; i < ROOMS; i++) {
        if (room_home(shard, room_slice(i)) == index) {
            store_make(&worker->store, names[i], "olga")->durability =
                i % 3 == 0 ? CONFIG_DURABILITY_MEMORY : CONFIG_DURABILITY_FSYNC;
        }
    }
}

static void connect_workers(void)
{
    for (uint32_t i = 0; i < SHARDS * SHARDS; i++) {
        spsc_init(&lanes[i].requests, ring_bytes[2 * i], MESH_RING_BYTES);
        spsc_init(&lanes[i].events, ring_bytes[2 * i + 1], MESH_RING_BYTES);
    }
    for (uint32_t from = 0; from < SHARDS; from++) {
        const uint32_t to = 1 - from;
        workers[from].shard.mesh.peers[to] = (struct mesh_peer){
            .out = &lanes[from * SHARDS + to],
            .in = &lanes[to * SHARDS + from],
            .bell = &workers[to].shard.bell,
            .ring = workers[to].shard.ring,
        };
    }
}

static int remove_entry(void *context, const char *name)
{
    char path[512];
    (void)context;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return unlink(path);
}

static void close_worker(struct worker *worker)
{
    CHECK(worker->shard.calls.used == 0 && worker->shard.blocks.used == 0);
    CHECK(worker->shard.pending.first == worker->shard.pending.end);
    journal_close(worker->shard.journal);
    os_ring_destroy(worker->shard.ring);
    store_end(&worker->store);
    plan_end(&worker->shard.plan);
}

static void check_outcome(bool slow)
{
    uint64_t acked = 0;
    uint64_t stored = 0;
    uint64_t gaps = 0;
    for (uint32_t i = 0; i < SHARDS; i++) {
        acked += workers[i].acked;
        CHECK(workers[i].acked + workers[i].refused == SENDS);
        for (uint32_t r = 0; r < ROOMS; r++) {
            gaps += workers[i].rooms[r].gaps;
        }
    }
    for (uint32_t r = 0; r < ROOMS; r++) {
        stored += atomic_load(&final_seq[r]) - 1; /* the first is the owner's joining */
    }
    CHECK(stored == acked); /* once each: what was refused is not there */
    CHECK(acked > SENDS);
    const uint64_t full = metrics_get(&workers[0].shard.metrics->mesh_full_total) +
                          metrics_get(&workers[1].shard.metrics->mesh_full_total);
    CHECK(!slow || full > 0); /* else it was too easy */
    (void)printf("%s: acked %lu of %u, gaps %lu, ring full %lu times\n",
                 slow ? "one slow" : "both quick", (unsigned long)acked, SHARDS * SENDS,
                 (unsigned long)gaps, (unsigned long)full);
}

static void run_all(bool slow)
{
    pthread_t threads[SHARDS];
    atomic_store(&senders_done, 0);
    atomic_store(&readers_done, 0);
    for (uint32_t i = 0; i < ROOMS; i++) {
        atomic_store(&final_seq[i], UINT64_MAX - 1);
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        open_worker(i);
    }
    connect_workers();
    workers[1].slow = slow;
    began_ns = os_now_ns();
    for (uint32_t i = 0; i < SHARDS; i++) {
        CHECK(pthread_create(&threads[i], NULL, run, &workers[i]) == 0);
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    check_outcome(slow);
    for (uint32_t i = 0; i < SHARDS; i++) {
        close_worker(&workers[i]);
    }
    CHECK(os_directory_list(directory, remove_entry, NULL) == 0);
}

static void every_request_is_answered_once_and_every_replica_sees_the_log(void)
{
    run_all(false);
}

static void a_shard_that_lags_slows_nobody_down_for_good(void)
{
    run_all(true);
}

static bool silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

int main(void)
{
    log_writer(silence);
    config_defaults(&config);
    config.limits_connections = 64;
    config.limits_rooms = 64;
    config.limits_requests = 1024;
    config.limits_members = 256;
    config.limits_subscriptions = 64;
    config.limits_history_bytes = 16 << 10;
    config.rooms_chunk_bytes = 1 << 23;
    config.rooms_log_bytes = 1 << 19;
    config.journal_segment_bytes = 1 << 20;
    config.journal_bytes_max = 32 << 20;
    config.journal_buffer_bytes = 1 << 20;
    memset(text, 'x', sizeof(text));
    text[0] = '"';
    CHECK(mkdtemp(directory) != NULL);
    for (uint32_t i = 0; i < ROOMS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "room%u", i);
    }
    every_request_is_answered_once_and_every_replica_sees_the_log();
    a_shard_that_lags_slows_nobody_down_for_good();
    CHECK(rmdir(directory) == 0);
    puts("2 passed, 0 failed");
    return 0;
}
