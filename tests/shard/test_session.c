/*
 * test_session.c - what a client of damso.v1 hears: every event once and in order, whatever is in
 *                  memory; and no client, nor a pool run dry, brings the server down.
 *
 * Method: clients over the fake network, in front of a whole shard; a slow one's sends stay in
 * flight. Pools are emptied by the test itself before the step that needs them.
 */
#include "tests/shard/shard_rig.h"

enum { POOL_ITEMS_MAX = 4096 };

static void *held[POOL_ITEMS_MAX];
static uint32_t held_count;

/* Takes every item of a pool but some. */
static void drain(struct pool *pool, uint32_t left)
{
    held_count = 0;
    while (pool->capacity - pool->used > left) {
        CHECK(held_count < POOL_ITEMS_MAX);
        held[held_count++] = pool_take(pool);
    }
}

static void refill(struct pool *pool)
{
    for (uint32_t i = 0; i < held_count; i++) {
        pool_give(pool, held[i]);
    }
    held_count = 0;
}

/* Hears events until nothing is left: each must be the one after the last. Returns the last. */
static uint64_t hear_events(uint32_t slot, uint64_t last)
{
    for (uint32_t i = 0; i < POOL_ITEMS_MAX; i++) {
        const char *text = rig_hear(slot);
        if (text[0] == '\0') {
            return last;
        }
        const uint64_t seq = rig_number(text, "seq");
        if (strstr(text, "\"type\":\"message\"") != NULL ||
            strstr(text, "\"type\":\"member\"") != NULL) {
            CHECK(seq == last + 1);
            last = seq;
        }
    }
    check_failed(__FILE__, __LINE__, "an end of the events");
}

/* A room of the store with count messages, none of them in memory. */
static void make_history(const char *id, uint32_t count, uint32_t size)
{
    (void)rig_room(id, "olga");
    for (uint32_t i = 0; i < count; i++) {
        (void)rig_send(id, "olga", rig_text(size));
        if (i % 16 == 15) {
            rig_settle();
        }
    }
    rig_settle();
    rig_wait_ms(rig.config.timeouts_room_idle + 30000);
    CHECK(room_find(&rig.shard, rig_slice(id)) == NULL);
}

static void nothing_is_left(void)
{
    rig_settle();
    CHECK(rig.shard.calls.used == 0 && rig.shard.subs.used == 0 && rig.shard.conns.used == 0);
    CHECK(rig.shard.blocks.used == 0 && rig.shard.large.used == 0);
}

static void leave_all(void)
{
    for (uint32_t i = 0; i < SOCKETS_MAX; i++) {
        struct fake_socket *socket = rig_socket(i);
        socket->slow = false;
        network_release(i);
        if (socket->open && socket->recv_tag != 0) {
            network_end(i, 0);
        }
    }
    rig_wait_ms(5000);
    nothing_is_left();
}

/* --- the usual --- */

static void a_client_joins_sends_and_hears(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t anna = rig_join_in("anna")->socket.slot;
    const uint32_t olga = rig_join_in("olga")->socket.slot;
    rig_say(anna, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\"}");
    rig_say(olga, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\"}");
    rig_settle();
    const char *joined = rig_hear(anna);
    CHECK(strstr(joined, "\"type\":\"joined\",\"id\":1") != NULL);
    CHECK(rig_number(joined, "seq") == 2 && rig_number(joined, "member_count") == 2);
    CHECK(strstr(rig_hear(olga), "\"type\":\"joined\"") != NULL);
    (void)hear_events(olga, 1);
    rig_say(anna, "{\"type\":\"send\",\"id\":\"x\",\"room_id\":\"r\",\"text\":\"hi\"}");
    rig_settle();
    uint32_t acks = 0;
    uint32_t events = 0;
    for (int i = 0; i < 2; i++) {
        const char *text = rig_hear(anna);
        CHECK(rig_number(text, "seq") == 3);
        acks += strstr(text, "\"type\":\"ack\",\"id\":\"x\"") != NULL;
        events += strstr(text, "\"text\":\"hi\"") != NULL;
    }
    CHECK(acks == 1 && events == 1);
    CHECK(hear_events(olga, 2) == 3);
    rig_say(olga, "{\"type\":\"leave\",\"id\":2,\"room_id\":\"r\"}");
    rig_say(anna, "{\"type\":\"send\",\"room_id\":\"r\",\"text\":\"ho\"}");
    rig_settle();
    CHECK(strstr(rig_hear(olga), "\"type\":\"left\"") != NULL && rig_hear(olga)[0] == '\0');
    leave_all();
    rig_end();
}

static void missed_events_come_page_by_page_and_then_live_ones(void)
{
    rig_config();
    rig.config.limits_outbox_bytes = 1 << 15;
    rig_begin();
    make_history("r", 200, 1000);
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\",\"after_seq\":0}");
    for (uint32_t i = 0; i < 50; i++) { /* while it catches up, others go on */
        rig_turn();
        (void)rig_send("r", "olga", "\"live\"");
    }
    rig_settle();
    const char *joined = rig_hear(slot);
    CHECK(strstr(joined, "\"recovered\":true") != NULL && rig_number(joined, "seq") == 201);
    CHECK(hear_events(slot, 0) == 251);
    CHECK(rig.store.pages > 5);
    leave_all();
    rig_end();
}

static void a_slow_reader_is_told_of_the_gap(void)
{
    rig_config();
    rig.config.rooms_log_bytes = 1 << 17;
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\"}");
    rig_settle();
    CHECK(rig_number(rig_hear(slot), "seq") == 1);
    rig_socket(slot)->slow = true;
    for (uint32_t i = 0; i < 400; i++) {
        (void)rig_send("r", "olga", rig_text(1000));
        rig_turns(10);
    }
    rig_socket(slot)->slow = false;
    network_release(slot);
    rig_settle();
    uint64_t last = 1;
    uint32_t gaps = 0;
    for (uint32_t i = 0; i < 1000 && last < 401; i++) {
        const char *text = rig_hear(slot);
        if (strstr(text, "\"type\":\"gap\"") != NULL) {
            CHECK(rig_number(text, "from_seq") == last + 1);
            last = rig_number(text, "to_seq");
            gaps++;
        } else if (strstr(text, "\"type\":\"message\"") != NULL) {
            CHECK(rig_number(text, "seq") == last + 1);
            last++;
        }
    }
    CHECK(last == 401 && gaps == 1);
    CHECK(metrics_get(&rig.shard.metrics->gaps_total) == 1);
    leave_all();
    rig_end();
}

/* --- clients that do what they should not --- */

static void joining_twice_at_once_gives_every_event_once(void)
{
    rig_config();
    rig.config.limits_outbox_bytes = 1 << 15;
    rig_begin();
    make_history("r", 100, 1000);
    (void)rig_room("r", "olga");
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    rig.store.paused = true; /* the first join's page is on its way when the second one comes */
    rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\",\"after_seq\":0}");
    rig_turns(3);
    rig_say(slot, "{\"type\":\"join\",\"id\":2,\"room_id\":\"r\",\"after_seq\":0}");
    rig_turns(3);
    rig.store.paused = false;
    rig_settle();
    (void)rig_send("r", "olga", "\"live\"");
    rig_settle();
    /* What the first join had sent before the second one is begun again; nothing else. */
    uint64_t last = 0;
    uint32_t joined = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        const char *text = rig_hear(slot);
        if (strstr(text, "\"type\":\"joined\"") != NULL) {
            joined++;
            last = 0;
        } else if (text[0] != '\0') {
            CHECK(rig_number(text, "seq") == last + 1);
            last++;
        }
    }
    CHECK(joined == 2 && last == 102);
    leave_all();
    rig_end();
}

static void a_connection_cannot_join_more_rooms_than_it_may_by_asking_at_once(void)
{
    enum { ROOMS = 40, MAY = 10 };
    char text[128];
    rig_config();
    rig.config.limits_rooms_per_connection = MAY;
    rig_begin();
    struct conn *conn = rig_join_in("olga");
    for (uint32_t i = 0; i < ROOMS; i++) {
        (void)snprintf(text, sizeof(text), "room%u", i);
        (void)store_make(&rig.store, text, "olga");
    }
    for (uint32_t i = 0; i < 2 * ROOMS; i++) { /* the second time none has to be loaded */
        (void)snprintf(text, sizeof(text), "{\"type\":\"join\",\"id\":1,\"room_id\":\"room%u\"}",
                       i % ROOMS);
        rig_say(conn->socket.slot, text);
        if (i == ROOMS || i % 8 == 0) {
            rig_turn();
        }
    }
    rig_settle();
    CHECK(conn->sub_count == MAY);
    CHECK(rig.shard.subs.used == MAY);
    leave_all();
    rig_end();
}

static void who_leaves_while_events_are_still_due_hears_no_more(void)
{
    rig_config();
    rig.config.limits_outbox_bytes = 1 << 15;
    rig_begin();
    make_history("r", 100, 1000);
    const uint32_t slot = rig_join_in("anna")->socket.slot;
    const uint32_t joined = rig_join("r", "anna");
    rig_settle();
    CHECK(rig_got(joined)->error == ERROR_NONE);
    rig_socket(slot)->slow = true;
    rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\",\"after_seq\":0}");
    rig_settle();
    const uint32_t left = rig_leave("r", "anna"); /* over REST, or from elsewhere */
    rig_settle();
    const uint64_t last = rig_got(left)->seq;
    (void)rig_send("r", "olga", "\"secret\"");
    rig_socket(slot)->slow = false;
    network_release(slot);
    rig_settle();
    for (uint32_t i = 0; i < 1000; i++) {
        const char *text = rig_hear(slot);
        CHECK(strstr(text, "secret") == NULL);
        CHECK(text[0] == '\0' || rig_number(text, "seq") <= last);
    }
    leave_all();
    rig_end();
}

/* The outbox overflows at any of the steps of a join: that ends one client and nothing else. */
static void a_join_that_overflows_the_outbox_ends_only_its_client(void)
{
    uint32_t ended = 0;
    rig_config();
    rig.config.limits_outbox_bytes = 1 << 12;
    rig_begin();
    make_history("r", 20, 300);
    for (uint32_t pings = 0; pings < 700; pings += 3) {
        struct conn *conn = rig_join_in("olga");
        const uint32_t slot = conn->socket.slot;
        rig_socket(slot)->slow = true;
        for (uint32_t i = 0; i < pings; i++) {
            rig_say(slot, "{\"type\":\"ping\"}");
            rig_turn();
        }
        if (conn->state == CONN_WEBSOCKET) {
            rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\",\"after_seq\":0}");
            rig_settle();
        }
        ended += conn->state != CONN_WEBSOCKET;
        leave_all();
    }
    CHECK(ended > 10);
    rig_end();
}

/* --- pools that run dry --- */

static void an_upgrade_without_a_buffer_ends_cleanly(void)
{
    for (int ends = 0; ends < 2; ends++) {
        rig_config();
        rig_begin();
        const struct conn *conn = rig_accept();
        const uint32_t slot = conn->socket.slot;
        drain(&rig.shard.blocks, 0);
        rig_type(slot, RIG_UPGRADE "Authorization: Bearer anna\r\n\r\n");
        if (ends == 1) {
            network_receive_ends(slot);
        }
        rig_settle();
        CHECK(!rig_socket(slot)->open);
        CHECK(metrics_get(&rig.shard.metrics->pool_exhausted_total_buffers) > 0);
        CHECK(rig.shard.wheel->armed == 0);
        refill(&rig.shard.blocks);
        leave_all();
        rig_end();
    }
}

static void a_sign_in_without_a_buffer_leaves_no_timer_behind(void)
{
    rig_config();
    rig_begin();
    struct conn *conn = rig_accept();
    const uint32_t slot = conn->socket.slot;
    rig_type(slot, RIG_UPGRADE "\r\n");
    rig_settle();
    drain(&rig.shard.blocks, 0);
    rig_say(slot, "{\"type\":\"connect\",\"token\":\"anna\"}");
    rig_settle();
    CHECK(!rig_socket(slot)->open);
    CHECK(rig.shard.wheel->armed == 0);
    refill(&rig.shard.blocks);
    leave_all();
    rig_end();
}

static void typing_without_buffers_ends_the_hearers_one_by_one(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    uint32_t slots[3];
    for (uint32_t i = 0; i < 3; i++) {
        slots[i] = rig_join_in("olga")->socket.slot;
        rig_say(slots[i], "{\"type\":\"join\",\"room_id\":\"r\",\"id\":1}");
    }
    (void)rig_join("r", "anna");
    rig_settle();
    drain(&rig.shard.blocks, 0);
    room_ask(&rig.shard, &(struct room_request){.op = ROOM_TYPING, /* no token: no answer (R4) */
                                                .room_id = SLICE("r"),
                                                .user_id = SLICE("anna")});
    rig_turns(10);
    CHECK(rig.shard.subs.used == 0);
    refill(&rig.shard.blocks);
    rig_settle();
    CHECK(rig.shard.conns.used == 0);
    rig_end();
}

static void a_gap_without_a_buffer_ends_its_client(void)
{
    rig_config();
    rig.config.rooms_log_bytes = 1 << 17;
    rig_begin();
    struct room *room = rig_room("r", "olga");
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\"}");
    rig_settle();
    rig_socket(slot)->slow = true;
    for (uint32_t i = 0; i < 400; i++) {
        (void)rig_send("r", "olga", rig_text(1000));
        rig_turns(10);
    }
    rig_settle();
    drain(&rig.shard.blocks, 0);
    rig_socket(slot)->slow = false;
    network_release(slot);
    rig_turns(10);
    CHECK(room->sub_count == 0);
    refill(&rig.shard.blocks);
    leave_all();
    rig_end();
}

static void without_a_call_a_request_is_refused_at_once(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    drain(&rig.shard.calls, 0);
    rig_say(slot, "{\"type\":\"send\",\"id\":7,\"room_id\":\"r\",\"text\":\"x\"}");
    rig_settle();
    const char *text = rig_hear(slot);
    CHECK(rig_number(text, "id") == 7 && strstr(text, "\"code\":\"unavailable\"") != NULL);
    CHECK(metrics_get(&rig.shard.metrics->pool_exhausted_total_requests) == 1);
    refill(&rig.shard.calls);
    leave_all();
    rig_end();
}

static void without_a_subscription_a_join_is_refused(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    drain(&rig.shard.subs, 0);
    rig_say(slot, "{\"type\":\"join\",\"id\":7,\"room_id\":\"r\"}");
    rig_settle();
    CHECK(strstr(rig_hear(slot), "\"code\":\"unavailable\"") != NULL);
    CHECK(metrics_get(&rig.shard.metrics->pool_exhausted_total_subscriptions) == 1);
    refill(&rig.shard.subs);
    leave_all();
    rig_end();
}

/* --- pages --- */

static void a_history_range_is_what_the_cursor_says(void)
{
    struct room_request request = {0};
    session_history_range(&(struct history_wish){.has_after = true, .after_seq = 7, .limit = 5},
                          &request);
    CHECK(request.from_seq == 8 && request.to_seq == UINT64_MAX - 1 && request.limit == 5);
    session_history_range(&(struct history_wish){.has_before = true, .before_seq = 9}, &request);
    CHECK(request.from_seq == 1 && request.to_seq == 8);
    session_history_range(&(struct history_wish){.has_before = true, .before_seq = 0}, &request);
    CHECK(request.to_seq == 0); /* nothing is before the first: no wrap */
}

static void a_page_names_its_next_cursor_only_if_there_is_more(void)
{
    struct {
        struct persist_entry first;
        char first_body[8];
        struct persist_entry second;
        char second_body[8];
    } page = {{.seq = 5, .body_bytes = 3}, "{5}", {.seq = 4, .body_bytes = 7}, "{\"a\":4}"};
    char text[256];
    struct room_answer answer = {
        .seq = 9, .epoch = 0xab, .count = 2, .payload = {(const char *)&page, sizeof(page)}};
    for (int more = 0; more < 2; more++) {
        struct json_writer writer = json_writer_on(text, sizeof(text));
        answer.more = more == 1;
        session_write_page(&writer, &answer);
        char wanted[256];
        const int size = snprintf(wanted, sizeof(wanted),
                                  "\"events\":[{5},{\"a\":4}],\"next_cursor\":%s,"
                                  "\"epoch\":\"00000000000000ab\",\"last_seq\":9",
                                  more == 1 ? "4" : "null");
        CHECK(slice_equal(json_written(&writer), (struct slice){wanted, (uint32_t)size}));
    }
}

int main(void)
{
    a_client_joins_sends_and_hears();
    missed_events_come_page_by_page_and_then_live_ones();
    a_slow_reader_is_told_of_the_gap();
    joining_twice_at_once_gives_every_event_once();
    a_connection_cannot_join_more_rooms_than_it_may_by_asking_at_once();
    who_leaves_while_events_are_still_due_hears_no_more();
    a_join_that_overflows_the_outbox_ends_only_its_client();
    an_upgrade_without_a_buffer_ends_cleanly();
    a_sign_in_without_a_buffer_leaves_no_timer_behind();
    typing_without_buffers_ends_the_hearers_one_by_one();
    a_gap_without_a_buffer_ends_its_client();
    without_a_call_a_request_is_refused_at_once();
    without_a_subscription_a_join_is_refused();
    a_history_range_is_what_the_cursor_says();
    a_page_names_its_next_cursor_only_if_there_is_more();
    puts("15 passed, 0 failed");
    return 0;
}
