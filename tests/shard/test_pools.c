/*
 * test_pools.c - every pool of a shard can run out: each has one defined answer and a counter, and
 *                afterwards all is as before.
 *
 * Method: pools of a few items, or emptied by the test, in front of a whole shard. Calls and
 * subscriptions are in test_session.c, followers in test_mesh_rings.c.
 */
#include "tests/shard/shard_rig.h"

enum { HELD_MAX = 20000 };

static void *held[HELD_MAX];
static uint32_t held_count;

static void drain(struct pool *pool)
{
    held_count = 0;
    for (void *item = pool_take(pool); item != NULL; item = pool_take(pool)) {
        CHECK(held_count < HELD_MAX);
        held[held_count++] = item;
    }
}

static void refill(struct pool *pool)
{
    while (held_count > 0) {
        pool_give(pool, held[--held_count]);
    }
}

static uint64_t times(const _Atomic uint64_t *counter)
{
    return metrics_get(counter);
}

static uint32_t error_of(uint32_t ticket)
{
    return rig_got(ticket)->error;
}

/* The room takes messages again. */
static void it_goes_on(const char *room)
{
    const uint32_t ticket = rig_send_keyed(room, "olga", "\"again\"", "it goes on");
    rig_settle();
    CHECK(error_of(ticket) == ERROR_NONE);
    CHECK(rig.shard.calls.used == 0 && rig.shard.blocks.used == 0 && rig.shard.large.used == 0);
}

static void without_a_connection_a_client_is_turned_away(void)
{
    rig_config();
    rig.config.limits_connections = 4;
    rig_begin();
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(rig_accept() != NULL);
    }
    CHECK(rig_accept() == NULL);
    CHECK(network.closes == 1);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_connections) == 1);
    network_end(0, 0);
    rig_settle();
    CHECK(rig_accept() != NULL);
    rig_end();
}

static void without_a_room_a_request_is_unavailable_until_one_leaves(void)
{
    enum { ROOMS = 8 };
    char name[16];
    rig_config();
    rig.config.limits_rooms = ROOMS;
    rig_begin();
    for (uint32_t i = 0; i < ROOMS; i++) {
        (void)snprintf(name, sizeof(name), "room%u", i);
        (void)rig_room(name, "olga");
    }
    (void)store_make(&rig.store, "more", "olga");
    CHECK(error_of(rig_join("more", "olga")) == ERROR_UNAVAILABLE);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_rooms) == 1);
    rig_wait_ms(rig.config.timeouts_room_idle + 45000);
    it_goes_on("more");
    rig_end();
}

static void without_a_member_a_join_and_a_load_are_unavailable(void)
{
    rig_config();
    rig.config.limits_members = 20;
    rig_begin();
    (void)rig_room("r", "olga");
    store_make(&rig.store, "crowded", "olga")->crowd = 25;
    const uint32_t load = rig_join("crowded", "olga");
    rig_settle();
    CHECK(error_of(load) == ERROR_UNAVAILABLE);
    CHECK(rig.shard.members.used == 1 && rig.shard.rooms.used == 1); /* nothing of it stays */
    drain(&rig.shard.members);
    CHECK(error_of(rig_join("r", "anna")) == ERROR_UNAVAILABLE);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_members) >= 2);
    refill(&rig.shard.members);
    const uint32_t join = rig_join("r", "anna");
    rig_settle();
    CHECK(error_of(join) == ERROR_NONE && rig_got(join)->member_count == 2);
    it_goes_on("r");
    rig_end();
}

static void without_a_user_idle_ones_make_place_and_then_a_join_is_unavailable(void)
{
    char name[16];
    rig_config();
    rig.config.limits_connections = 16;
    rig.config.limits_members = 256; /* users: 16 + 64 */
    rig_begin();
    (void)rig_room("r", "olga");
    uint32_t joined = 0;
    for (uint32_t i = 0; i < 100; i++) { /* strangers who only look stay without references */
        (void)snprintf(name, sizeof(name), "stranger%u", i);
        CHECK(error_of(rig_send("r", name, "\"x\"")) == ERROR_NOT_A_MEMBER);
    }
    for (uint32_t i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "u%u", i);
        const uint32_t ticket = rig_join("r", name);
        rig_turns(20);
        joined += error_of(ticket) == ERROR_NONE;
        CHECK(error_of(ticket) == (joined == i + 1 ? ERROR_NONE : ERROR_UNAVAILABLE));
        if (joined == STORE_MEMBERS_MAX - 1) {
            break; /* what the test's store can hold */
        }
    }
    drain(&rig.shard.users);
    while (rig.shard.user_table.idle_first != POOL_NONE) { /* idle ones are places too */
        struct user *idle = user_at(&rig.shard, rig.shard.user_table.idle_first);
        CHECK(user_take(&rig.shard, user_id(idle), SLICE("")) == idle);
    }
    CHECK(error_of(rig_join("r", "late")) == ERROR_UNAVAILABLE);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_users) > 0);
    CHECK(error_of(rig_send("r", "late", "\"x\"")) == ERROR_NOT_A_MEMBER);
    refill(&rig.shard.users);
    it_goes_on("r");
    rig_end();
}

static void without_a_key_keyed_messages_are_unavailable_and_others_go_on(void)
{
    char key[16];
    rig_config();
    rig.config.limits_keys = 64;
    rig.config.limits_idempotency_keys = 64;
    rig_begin();
    (void)rig_room("r", "olga");
    (void)rig_room("other", "olga");
    for (uint32_t i = 0; i < 200; i++) { /* one room forgets its own oldest: it never runs out */
        (void)snprintf(key, sizeof(key), "key%u", i);
        const uint32_t ticket = rig_send_keyed("r", "olga", "\"x\"", key);
        rig_turns(20);
        CHECK(error_of(ticket) == ERROR_NONE && !rig_got(ticket)->duplicate);
    }
    CHECK(rig.shard.keys.used == 64);
    CHECK(error_of(rig_send_keyed("other", "olga", "\"x\"", "k")) == ERROR_UNAVAILABLE);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_keys) == 1);
    const uint32_t plain = rig_send("other", "olga", "\"x\"");
    const uint32_t known = rig_send_keyed("r", "olga", "\"x\"", "key199");
    const uint32_t oldest = rig_send_keyed("r", "olga", "\"x\"", "key136");
    rig_settle();
    CHECK(error_of(plain) == ERROR_NONE);
    CHECK(rig_got(known)->duplicate && rig_got(oldest)->duplicate); /* K1: the last 64, exactly */
    CHECK(store_find(&rig.store, SLICE("other"))->last_seq == 2);
    rig_wait_ms(rig.config.timeouts_room_idle + 45000); /* both leave: their keys are free */
    CHECK(rig.shard.keys.used == 0);
    it_goes_on("other");
    rig_end();
}

static void a_room_whose_keys_do_not_fit_cannot_load(void)
{
    char key[16];
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    for (uint32_t i = 0; i < 40; i++) {
        (void)snprintf(key, sizeof(key), "key%u", i);
        (void)rig_send_keyed("r", "olga", "\"x\"", key);
    }
    rig_wait_ms(rig.config.timeouts_room_idle + 45000);
    CHECK(rig.shard.keys.used == 0);
    drain(&rig.shard.keys);
    const uint32_t ticket = rig_join("r", "olga");
    rig_settle();
    CHECK(error_of(ticket) == ERROR_UNAVAILABLE);
    CHECK(rig.shard.rooms.used == 0 && rig.shard.members.used == 0);
    refill(&rig.shard.keys);
    it_goes_on("r");
    rig_end();
}

static void without_a_chunk_a_send_is_unavailable_until_others_are_durable(void)
{
    rig_config();
    rig.config.rooms_chunk_bytes = 1 << 16; /* four large chunks */
    rig_begin();
    (void)rig_room("r", "olga");
    uint32_t tickets[12];
    uint32_t refused = 0;
    for (uint32_t i = 0; i < 12; i++) { /* nothing becomes durable between them */
        tickets[i] = rig_send("r", "olga", rig_text(60000));
        refused += rig_has_answer(tickets[i]);
    }
    CHECK(refused > 0 && refused < 12);
    rig_settle();
    uint64_t seq = 1;
    for (uint32_t i = 0; i < 12; i++) {
        if (error_of(tickets[i]) == ERROR_NONE) {
            CHECK(rig_got(tickets[i])->seq == ++seq);
        } else {
            CHECK(error_of(tickets[i]) == ERROR_UNAVAILABLE);
        }
    }
    CHECK(seq == 13 - refused);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_chunks) > 0);
    it_goes_on("r");
    rig_end();
}

static void without_a_buffer_a_request_to_a_loading_room_is_unavailable(void)
{
    static const uint32_t sizes[] = {10, 9000};
    for (int large = 0; large < 2; large++) {
        rig_config();
        rig_begin();
        (void)store_make(&rig.store, "r", "olga");
        rig.store.paused = true;
        const uint32_t waits = rig_send("r", "olga", rig_text(sizes[large]));
        struct pool *pool = large == 1 ? &rig.shard.large : &rig.shard.blocks;
        const _Atomic uint64_t *counter =
            large == 1 ? &rig.shard.metrics->pool_exhausted_total_large_buffers
                       : &rig.shard.metrics->pool_exhausted_total_buffers;
        drain(pool);
        const uint32_t refused = rig_send("r", "olga", rig_text(sizes[large]));
        CHECK(error_of(refused) == ERROR_UNAVAILABLE && !rig_has_answer(waits));
        CHECK(times(counter) == 1);
        refill(pool);
        rig.store.paused = false;
        rig_settle();
        CHECK(error_of(waits) == ERROR_NONE);
        it_goes_on("r");
        rig_end();
    }
}

static void without_a_place_to_wait_for_the_disk_a_send_is_unavailable(void)
{
    rig_config();
    rig.config.limits_requests = 64;
    rig_begin();
    struct room *room = rig_room("r", "olga");
    const struct room_request nobodys = rig_message("r", "olga", "\"x\""); /* no token: no call */
    const uint32_t capacity = rig.shard.pending.mask + 1;
    for (uint32_t i = 0; i < capacity; i++) {
        room_ask(&rig.shard, &nobodys);
    }
    CHECK(room->in_flight == capacity);
    struct room_request keyed = nobodys;
    session_digest(&keyed, SLICE("k"));
    CHECK(error_of(rig_ask(keyed)) == ERROR_UNAVAILABLE);
    CHECK(error_of(rig_join("r", "anna")) == ERROR_UNAVAILABLE);
    CHECK(error_of(rig_leave("r", "olga")) == ERROR_UNAVAILABLE);
    CHECK(times(&rig.shard.metrics->pool_exhausted_total_pending) == 3);
    CHECK(room->log.next_seq == 2 + capacity && rig.shard.keys.used == 0); /* no trace (R1) */
    CHECK(room->member_count == 1 && rig.shard.members.used == 1);
    rig_settle();
    it_goes_on("r");
    rig_end();
}

static void when_the_ring_to_the_store_is_full_loads_are_unavailable(void)
{
    char name[80];
    rig_config();
    rig.config.limits_requests = 16384;
    rig.config.limits_rooms = 16384;
    rig.config.limits_connections = 16384;
    rig_begin();
    rig.store.paused = true;
    uint32_t ticket = 0;
    uint32_t asked = 0;
    do {
        (void)snprintf(name, sizeof(name), "a-rather-long-name-of-a-room-for-each-load-%u", asked);
        ticket = rig_join(name, "olga");
        asked++;
    } while (!rig_has_answer(ticket) && asked < 16384);
    CHECK(rig_has_answer(ticket) && error_of(ticket) == ERROR_UNAVAILABLE);
    CHECK(rig.shard.rooms.used == asked - 1); /* the last one has gone again */
    rig.store.paused = false;
    rig_settle();
    CHECK(rig.shard.rooms.used == 0 && rig.shard.calls.used == 0); /* none of them exists */
    rig_end();
}

int main(void)
{
    without_a_connection_a_client_is_turned_away();
    without_a_room_a_request_is_unavailable_until_one_leaves();
    without_a_member_a_join_and_a_load_are_unavailable();
    without_a_user_idle_ones_make_place_and_then_a_join_is_unavailable();
    without_a_key_keyed_messages_are_unavailable_and_others_go_on();
    a_room_whose_keys_do_not_fit_cannot_load();
    without_a_chunk_a_send_is_unavailable_until_others_are_durable();
    without_a_buffer_a_request_to_a_loading_room_is_unavailable();
    without_a_place_to_wait_for_the_disk_a_send_is_unavailable();
    when_the_ring_to_the_store_is_full_loads_are_unavailable();
    puts("10 passed, 0 failed");
    return 0;
}
