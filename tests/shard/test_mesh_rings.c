/*
 * test_mesh_rings.c - two shards keep their word when the rings between them are full: requests
 *                     are refused, answers come late but in order, replicas catch up (X1, X2).
 *
 * Method: both shards in one thread, the home with journal and store, the asker with the clients;
 * each is turned, or left standing, by the test. The rings are as small as the rules allow.
 */
#include "tests/shard/shard_rig.h"

enum { MESH_RING_BYTES = 1 << 18, SHARDS = 2, ASKER = 1 };

static struct shard asker;
static struct mesh_lane lanes[SHARDS * SHARDS];
static alignas(64) unsigned char ring_bytes[SHARDS * SHARDS * 2][MESH_RING_BYTES];
static char room_name[16]; /* a room whose home is shard 0 */

static void connect(struct shard *from, struct shard *to)
{
    from->mesh.peers[to->index] = (struct mesh_peer){
        .out = &lanes[from->index * SHARDS + to->index],
        .in = &lanes[to->index * SHARDS + from->index],
        .bell = &to->bell,
        .ring = to->ring,
    };
}

static void begin(void)
{
    rig_config();
    rig.config.limits_history_bytes = 16 << 10;
    rig.config.limits_frame_bytes = 8 << 10;
    rig.config.limits_body_bytes = 8 << 10;
    rig.config.limits_text_bytes = 8 << 10;
    rig.config.mesh_ring_bytes = MESH_RING_BYTES;
    rig_begin_of(SHARDS);
    rig_shard_begin(&asker, ASKER, SHARDS);
    CHECK(mem_seal(&asker.plan) == 0);
    rig_read_clock(&asker);
    for (uint32_t i = 0; i < SHARDS * SHARDS; i++) {
        spsc_init(&lanes[i].requests, ring_bytes[2 * i], MESH_RING_BYTES);
        spsc_init(&lanes[i].events, ring_bytes[2 * i + 1], MESH_RING_BYTES);
    }
    connect(&rig.shard, &asker);
    connect(&asker, &rig.shard);
    rig.front = &asker;
    for (uint32_t i = 0; i == 0 || room_home(&asker, rig_slice(room_name)) != 0; i++) {
        (void)snprintf(room_name, sizeof(room_name), "room%u", i);
    }
}

static void end(void)
{
    rig_end();
    plan_end(&asker.plan);
}

/* Only the home turns: the asker stands still. */
static void home_turns(uint32_t turns)
{
    for (uint32_t i = 0; i < turns; i++) {
        store_turn(&rig.store);
        rig.count = loop_turn(&rig.shard, rig.events, rig.count);
        CHECK(rig.count >= 0);
    }
}

static uint32_t ask_send(const char *user, const char *text)
{
    return rig_ask_of(&asker, rig_message(room_name, user, text));
}

static uint32_t joined_client(const char *user)
{
    char text[128];
    const uint32_t slot = rig_join_in(user)->socket.slot;
    (void)snprintf(text, sizeof(text), "{\"type\":\"join\",\"id\":1,\"room_id\":\"%s\"}",
                   room_name);
    rig_say(slot, text);
    rig_settle();
    CHECK(strstr(rig_hear(slot), "\"type\":\"joined\"") != NULL);
    return slot;
}

/* Hears everything: events dense from last on, gaps announced. Returns the last seq. */
static uint64_t hear_all(uint32_t slot, uint64_t last, uint32_t *ret_gaps)
{
    const char *text = rig_hear(slot);
    for (uint32_t i = 0; i < RIG_TICKETS_MAX && text[0] != '\0'; i++, text = rig_hear(slot)) {
        if (strstr(text, "\"type\":\"gap\"") != NULL) {
            CHECK(rig_number(text, "from_seq") == last + 1);
            last = rig_number(text, "to_seq");
            *ret_gaps += 1;
        } else if (strstr(text, "\"type\":\"message\"") != NULL) {
            CHECK(rig_number(text, "seq") == last + 1);
            last++;
        }
    }
    return last;
}

/* --- the usual --- */

static void requests_answers_and_events_cross_in_order(void)
{
    uint32_t tickets[100];
    uint32_t gaps = 0;
    begin();
    (void)rig_room(room_name, "olga");
    const uint32_t slot = joined_client("olga");
    for (uint32_t i = 0; i < 100; i++) {
        tickets[i] = ask_send("olga", rig_text(i * 20));
        if (i % 9 == 0) {
            rig_turn();
        }
    }
    rig_settle();
    for (uint32_t i = 0; i < 100; i++) {
        CHECK(rig_got(tickets[i])->error == ERROR_NONE && rig_got(tickets[i])->seq == i + 2);
        CHECK(i == 0 || rig.tickets[tickets[i]].order > rig.tickets[tickets[i - 1]].order);
    }
    CHECK(hear_all(slot, 1, &gaps) == 101 && gaps == 0);
    CHECK(asker.calls.used == 0 && rig.shard.calls.used == 0);
    end();
}

/* --- full rings --- */

static void a_full_request_ring_refuses_and_forgets_nothing_it_took(void)
{
    enum { ASKED = 200 };
    uint32_t tickets[ASKED];
    uint32_t refused = 0;
    begin();
    (void)rig_room(room_name, "olga");
    for (uint32_t i = 0; i < ASKED; i++) { /* nobody takes them */
        tickets[i] = ask_send("olga", rig_text(4000));
        refused += rig_has_answer(tickets[i]);
        CHECK(!rig_has_answer(tickets[i]) || rig_got(tickets[i])->error == ERROR_UNAVAILABLE);
    }
    CHECK(refused > 0 && refused < ASKED);
    CHECK(metrics_get(&asker.metrics->mesh_full_total) == refused);
    rig_settle();
    uint64_t seq = 1;
    for (uint32_t i = 0; i < ASKED; i++) {
        if (rig_got(tickets[i])->error == ERROR_NONE) {
            CHECK(rig_got(tickets[i])->seq == ++seq);
        }
    }
    CHECK(seq == 1 + ASKED - refused);
    CHECK(asker.calls.used == 0);
    end();
}

static void pages_fill_the_ring_without_one_being_refused(void)
{
    enum { PAGES = 60 };
    uint32_t tickets[PAGES];
    begin();
    (void)rig_room(room_name, "olga");
    for (uint32_t i = 0; i < 60; i++) {
        (void)rig_send(room_name, "olga", rig_text(1000));
        rig_turns(4);
    }
    rig_settle();
    for (uint32_t i = 0; i < PAGES; i++) { /* 16 KiB each: four times the ring */
        tickets[i] = rig_ask_of(&asker, (struct room_request){.op = ROOM_HISTORY,
                                                              .room_id = rig_slice(room_name),
                                                              .user_id = SLICE("olga"),
                                                              .from_seq = 1 + i % 20,
                                                              .to_seq = 60,
                                                              .limit = 50,
                                                              .bytes_max = 16 << 10});
    }
    mesh_publish(&asker);
    home_turns(50); /* takes only what the ring back has room to answer */
    rig_settle();
    for (uint32_t i = 0; i < PAGES; i++) {
        CHECK(rig_got(tickets[i])->error == ERROR_NONE);
        CHECK(rig.tickets[tickets[i]].first_seq == 1 + i % 20 && rig_got(tickets[i])->count > 10);
        CHECK(i == 0 || rig.tickets[tickets[i]].order > rig.tickets[tickets[i - 1]].order);
    }
    CHECK(rig.shard.blocks.used == 0);
    end();
}

static void a_replica_that_stood_still_catches_up_in_order(void)
{
    uint32_t tickets[200];
    uint32_t gaps = 0;
    begin();
    (void)rig_room(room_name, "olga");
    const uint32_t slot = joined_client("olga");
    for (uint32_t i = 0; i < 200; i++) { /* 160 KiB, and answers among them */
        tickets[i] = i % 4 == 0 ? ask_send("olga", rig_text(800))
                                : rig_send(room_name, "olga", rig_text(800));
        mesh_publish(&asker);
        home_turns(3);
    }
    home_turns(100);
    rig_settle();
    uint64_t seq = 1;
    for (uint32_t i = 0; i < 200; i++) {
        CHECK(rig_got(tickets[i])->error == ERROR_NONE && rig_got(tickets[i])->seq == ++seq);
    }
    CHECK(hear_all(slot, 1, &gaps) == 201 && gaps == 0); /* all of it is in home's log */
    CHECK(rig.shard.pending.first == rig.shard.pending.end);
    end();
}

static void a_replica_behind_the_log_tells_of_the_gap(void)
{
    uint32_t gaps = 0;
    begin();
    (void)rig_room(room_name, "olga");
    const uint32_t slot = joined_client("olga");
    for (uint32_t i = 0; i < 1000; i++) { /* 1 MB: the ring and home's log hold 256 KiB each */
        (void)rig_send(room_name, "olga", rig_text(1000));
        home_turns(3);
    }
    home_turns(100);
    rig_settle();
    CHECK(hear_all(slot, 1, &gaps) == 1001);
    CHECK(gaps >= 1 && gaps <= 3); /* it may fall behind again while it catches up */
    end();
}

static void answers_come_late_but_all_of_them_when_the_ring_back_is_full(void)
{
    enum { ASKED = 1200 };
    static uint32_t tickets[ASKED];
    begin();
    asker.config = &rig.config;
    (void)rig_room(room_name, "olga");
    uint32_t asked = 0;
    /* Joins of a member: answered at once, and small; the ring back fills up with them. */
    for (uint32_t round = 0; round < 40 && asked < ASKED; round++) {
        for (uint32_t i = 0; i < 200 && asked < ASKED; i++) {
            const uint32_t ticket =
                rig_ask_of(&asker, (struct room_request){.op = ROOM_JOIN,
                                                         .room_id = rig_slice(room_name),
                                                         .user_id = SLICE("olga")});
            if (ticket == UINT32_MAX) {
                break; /* every call waits for an answer */
            }
            tickets[asked++] = ticket;
        }
        mesh_publish(&asker);
        home_turns(4);
    }
    CHECK(asked == rig.config.limits_requests);
    rig_settle();
    for (uint32_t i = 0; i < asked; i++) {
        CHECK(rig_got(tickets[i])->error == ERROR_NONE);
        CHECK(i == 0 || rig.tickets[tickets[i]].order > rig.tickets[tickets[i - 1]].order);
    }
    CHECK(asker.calls.used == 0 && rig.shard.blocks.used == 0);
    end();
}

/* What waits for a ring to drain must not sleep: nobody rings when it has. */
static void a_shard_that_waits_for_a_full_ring_does_not_sleep_long(void)
{
    begin();
    (void)rig_room(room_name, "olga");
    (void)joined_client("olga");
    CHECK(patience_ns(&rig.shard) > 10 * 1000000);
    for (uint32_t i = 0; i < 600; i++) {
        (void)rig_send(room_name, "olga", rig_text(1000));
        home_turns(3);
    }
    home_turns(50);
    CHECK(rig.shard.replicate_first != NULL); /* it still has something for the asker */
    CHECK(patience_ns(&rig.shard) <= 2 * 1000000);
    rig_settle();
    CHECK(rig.shard.replicate_first == NULL);
    CHECK(patience_ns(&rig.shard) > 10 * 1000000);
    end();
}

/* --- members and replicas --- */

static void who_leaves_is_expelled_though_the_ring_is_full(void)
{
    uint32_t gaps = 0;
    begin();
    (void)rig_room(room_name, "olga");
    const uint32_t slot = joined_client("anna");
    for (uint32_t i = 0; i < 600; i++) {
        (void)rig_send(room_name, "olga", rig_text(1000));
        home_turns(3);
    }
    const struct room_request typing = {
        .op = ROOM_TYPING, .room_id = rig_slice(room_name), .user_id = SLICE("olga")};
    const uint64_t full = metrics_get(&rig.shard.metrics->mesh_full_total);
    for (uint32_t i = 0; i < 5000; i++) { /* small words fill the ring to its last byte */
        room_ask(&rig.shard, &typing);
    }
    CHECK(metrics_get(&rig.shard.metrics->mesh_full_total) > full);
    const uint32_t left = rig_leave(room_name, "anna");
    home_turns(50);
    CHECK(rig_got(left)->error == ERROR_NONE);
    rig_settle();
    (void)rig_send(room_name, "olga", "\"secret\"");
    rig_settle();
    CHECK(asker.subs.used == 0);
    const uint64_t last = hear_all(slot, 2, &gaps);
    CHECK(last < rig_got(left)->seq + 1);
    end();
}

static void a_refused_join_takes_no_other_with_it(void)
{
    char text[128];
    begin();
    store_make(&rig.store, room_name, "olga")->visibility = ROOM_PRIVATE;
    (void)rig_room(room_name, "olga");
    const uint32_t stranger = rig_join_in("mallory")->socket.slot;
    const uint32_t member = rig_join_in("olga")->socket.slot;
    (void)snprintf(text, sizeof(text), "{\"type\":\"join\",\"id\":1,\"room_id\":\"%s\"}",
                   room_name);
    rig_say(stranger, text);
    rig_say(member, text);
    rig_settle();
    CHECK(strstr(rig_hear(stranger), "\"code\":\"forbidden\"") != NULL);
    CHECK(strstr(rig_hear(member), "\"type\":\"joined\"") != NULL);
    (void)rig_send(room_name, "olga", "\"x\"");
    rig_settle();
    CHECK(rig_number(rig_hear(member), "seq") == 2);
    CHECK(rig_hear(stranger)[0] == '\0');
    CHECK(rig.shard.followers.used == 1);
    end();
}

static void an_idle_replica_goes_and_home_forgets_it(void)
{
    char text[128];
    begin();
    (void)rig_room(room_name, "olga");
    const uint32_t slot = joined_client("olga");
    CHECK(rig.shard.followers.used == 1 && asker.rooms.used == 1);
    (void)snprintf(text, sizeof(text), "{\"type\":\"leave\",\"room_id\":\"%s\"}", room_name);
    rig_say(slot, text);
    rig_settle();
    rig_wait_ms(rig.config.timeouts_room_idle + 45000);
    CHECK(asker.rooms.used == 0 && rig.shard.followers.used == 0);
    rig_wait_ms(rig.config.timeouts_room_idle + 45000);
    CHECK(rig.shard.rooms.used == 0);
    const uint32_t again = joined_client("olga"); /* and all comes back */
    (void)rig_send(room_name, "olga", "\"x\"");
    rig_settle();
    CHECK(rig_number(rig_hear(again), "seq") == 2);
    end();
}

static void without_a_follower_a_join_is_refused(void)
{
    char text[128];
    begin();
    (void)rig_room(room_name, "olga");
    while (pool_take(&rig.shard.followers) != NULL) {
    }
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    (void)snprintf(text, sizeof(text), "{\"type\":\"join\",\"id\":1,\"room_id\":\"%s\"}",
                   room_name);
    rig_say(slot, text);
    rig_settle();
    CHECK(strstr(rig_hear(slot), "\"code\":\"unavailable\"") != NULL);
    CHECK(asker.rooms.used == 0 && asker.calls.used == 0); /* the replica has gone with it */
    CHECK(metrics_get(&rig.shard.metrics->pool_exhausted_total_followers) == 1);
    rig.shard.followers.used = 0;
    end();
}

static void typing_crosses_and_is_dropped_when_the_ring_is_full(void)
{
    const struct room_request typing = {
        .op = ROOM_TYPING, .room_id = rig_slice(room_name), .user_id = SLICE("olga")};
    begin();
    (void)rig_room(room_name, "olga");
    const uint32_t slot = joined_client("anna");
    struct room_request request = typing;
    request.room_id = rig_slice(room_name);
    room_ask(&rig.shard, &request);
    rig_settle();
    CHECK(strstr(rig_hear(slot), "\"type\":\"typing\"") != NULL);
    for (uint32_t i = 0; i < 5000; i++) {
        room_ask(&rig.shard, &request); /* the asker takes none of them */
    }
    rig_settle();
    CHECK(metrics_get(&rig.shard.metrics->mesh_full_total) > 0);
    CHECK(rig.shard.blocks.used == 0);
    end();
}

int main(void)
{
    requests_answers_and_events_cross_in_order();
    a_full_request_ring_refuses_and_forgets_nothing_it_took();
    pages_fill_the_ring_without_one_being_refused();
    a_replica_that_stood_still_catches_up_in_order();
    a_replica_behind_the_log_tells_of_the_gap();
    answers_come_late_but_all_of_them_when_the_ring_back_is_full();
    a_shard_that_waits_for_a_full_ring_does_not_sleep_long();
    who_leaves_is_expelled_though_the_ring_is_full();
    a_refused_join_takes_no_other_with_it();
    an_idle_replica_goes_and_home_forgets_it();
    without_a_follower_a_join_is_refused();
    typing_crosses_and_is_dropped_when_the_ring_is_full();
    puts("12 passed, 0 failed");
    return 0;
}
