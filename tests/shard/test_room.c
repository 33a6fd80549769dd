/*
 * test_room.c - a home shard answers every request once, in the right order, and after what it
 *               promises has happened (R1 to R4 of room.h), whatever disk and store do.
 *
 * Method: one shard on the simulated disk, its turns stepped by the test; the store answers, waits
 * or fails as the test says. Requests come without a connection, by their tickets.
 */
#include "tests/shard/shard_rig.h"

static uint32_t error_of(uint32_t ticket)
{
    return rig_got(ticket)->error;
}

static uint64_t seq_of(uint32_t ticket)
{
    CHECK(error_of(ticket) == ERROR_NONE);
    return rig_got(ticket)->seq;
}

/* --- publishing --- */

static void a_send_is_answered_only_when_it_is_durable(void)
{
    rig_config();
    rig_begin();
    struct room *room = rig_room("r", "olga");
    const uint64_t syncs = disk_syncs();
    const uint32_t ticket = rig_send("r", "olga", "\"hi\"");
    CHECK(!rig_has_answer(ticket));
    CHECK(room->log.durable.seq == 2 && room->log.next_seq == 3); /* R2: shown up to 1 */
    for (int i = 0; i < 100 && !rig_has_answer(ticket); i++) {
        CHECK(room->log.durable.seq == 2);
        rig_turn();
    }
    CHECK(seq_of(ticket) == 2);
    CHECK(disk_syncs() > syncs);
    CHECK(rig_got(ticket)->durability == DURABILITY_FSYNC && !rig_got(ticket)->duplicate);
    CHECK(room->log.durable.seq == 3);
    rig_end();
}

static void seq_is_dense_and_answers_keep_their_order(void)
{
    enum { SENDS = 200 };
    uint32_t tickets[SENDS];
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    for (uint32_t i = 0; i < SENDS; i++) {
        tickets[i] = rig_send("r", "olga", "\"a\"");
        if (i % 7 == 0) {
            rig_turn();
        }
    }
    rig_settle();
    for (uint32_t i = 0; i < SENDS; i++) {
        CHECK(seq_of(tickets[i]) == i + 2); /* R1 */
        CHECK(i == 0 || rig.tickets[tickets[i]].order == rig.tickets[tickets[i - 1]].order + 1);
    }
    CHECK(metrics_get(&rig.shard.metrics->acks_total) == SENDS);
    CHECK(store_find(&rig.store, SLICE("r"))->last_seq == SENDS + 1);
    rig_end();
}

static void whoever_is_no_member_cannot_send(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t ticket = rig_send("r", "mallory", "\"hi\"");
    struct room_request request = rig_message("r", "olga", "\"hi\"");
    request.reply_to = 99;
    const uint32_t reply = rig_ask(request);
    CHECK(error_of(ticket) == ERROR_NOT_A_MEMBER);
    CHECK(error_of(reply) == ERROR_BAD_REQUEST); /* answers what does not exist */
    CHECK(error_of(rig_send("r", "olga", rig_text(ROOM_EVENT_BYTES_MAX))) == ERROR_TOO_LARGE);
    rig_end();
}

/* --- idempotency --- */

static void a_key_sent_again_in_flight_is_answered_after_the_first(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t first = rig_send_keyed("r", "olga", "\"hi\"", "k");
    const uint32_t again = rig_send_keyed("r", "olga", "\"hi\"", "k");
    const uint32_t other = rig_send_keyed("r", "olga", "\"ho\"", "k");
    CHECK(error_of(other) == ERROR_CONFLICT);
    CHECK(!rig_has_answer(first) && !rig_has_answer(again)); /* not before it is durable */
    rig_settle();
    CHECK(seq_of(first) == 2 && seq_of(again) == 2);
    CHECK(!rig_got(first)->duplicate && rig_got(again)->duplicate);
    CHECK(rig.tickets[again].order > rig.tickets[first].order);
    CHECK(rig_got(again)->at_ms == rig_got(first)->at_ms);
    const uint32_t later = rig_send_keyed("r", "olga", "\"hi\"", "k");
    CHECK(seq_of(later) == 2 && rig_got(later)->duplicate); /* at once */
    CHECK(store_find(&rig.store, SLICE("r"))->last_seq == 2);
    rig_end();
}

static void keys_are_known_again_when_the_room_comes_back(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t first = rig_send_keyed("r", "olga", "\"hi\"", "k");
    rig_wait_ms(rig.config.timeouts_room_idle + 30000);
    CHECK(room_find(&rig.shard, SLICE("r")) == NULL); /* it has left */
    const uint32_t again = rig_send_keyed("r", "olga", "\"hi\"", "k");
    const uint32_t other = rig_send_keyed("r", "olga", "\"ho\"", "k");
    const uint32_t fresh = rig_send("r", "olga", "\"new\"");
    rig_settle();
    CHECK(seq_of(first) == 2 && seq_of(again) == 2 && rig_got(again)->duplicate);
    CHECK(error_of(other) == ERROR_CONFLICT);
    CHECK(seq_of(fresh) == 3); /* R1: goes on where it was */
    rig_end();
}

/* --- loading and leaving --- */

static void requests_wait_for_a_room_that_loads_in_their_order(void)
{
    rig_config();
    rig_begin();
    (void)store_make(&rig.store, "r", "olga");
    rig.store.paused = true;
    const uint32_t join = rig_join("r", "anna");
    const uint32_t send = rig_send("r", "anna", "\"1\"");
    const uint32_t large = rig_send("r", "anna", rig_text(9000)); /* parks in a large buffer */
    const uint32_t leave = rig_leave("r", "anna");
    const uint32_t late = rig_send("r", "anna", "\"2\"");
    rig_turns(20);
    CHECK(rig.answered == 0);
    rig.store.paused = false;
    rig_settle();
    CHECK(seq_of(join) == 2); /* 1 is the owner's */
    CHECK(seq_of(send) == 3 && seq_of(large) == 4 && seq_of(leave) == 5);
    CHECK(error_of(late) == ERROR_NOT_A_MEMBER);
    CHECK(rig.store.loads == 1);
    CHECK(rig.shard.blocks.used == 0 && rig.shard.large.used == 0);
    rig_end();
}

static void a_load_that_fails_is_answered_and_can_be_tried_again(void)
{
    rig_config();
    rig_begin();
    const uint32_t nowhere = rig_join("nowhere", "olga");
    rig_settle();
    CHECK(error_of(nowhere) == ERROR_NOT_FOUND);
    (void)store_make(&rig.store, "r", "olga");
    rig.store.load_status = -EAGAIN;
    const uint32_t refused = rig_join("r", "olga");
    const uint32_t too = rig_send("r", "olga", "\"x\"");
    rig_settle();
    CHECK(error_of(refused) == ERROR_UNAVAILABLE && error_of(too) == ERROR_UNAVAILABLE);
    CHECK(rig.shard.rooms.used == 0 && rig.shard.calls.used == 0 && rig.shard.blocks.used == 0);
    rig.store.load_status = 0;
    const uint32_t fine = rig_send("r", "olga", "\"x\"");
    rig_settle();
    CHECK(seq_of(fine) == 2);
    rig_end();
}

static void a_room_without_an_owner_is_answered_all_the_same(void)
{
    rig_config();
    rig_begin();
    store_make(&rig.store, "r", "olga")->ownerless = true; /* a damaged store */
    const uint32_t ticket = rig_send("r", "olga", "\"x\"");
    rig_settle();
    CHECK(rig_has_answer(ticket)); /* R4 */
    CHECK(rig.shard.calls.used == 0 && rig.shard.blocks.used == 0);
    rig_end();
}

static void an_idle_room_leaves_memory_though_another_is_busy(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("idle", "olga");
    (void)rig_room("busy", "olga");
    for (uint32_t i = 0; i < 4000 && room_find(&rig.shard, SLICE("idle")) != NULL; i++) {
        (void)rig_send("busy", "olga", "\"x\""); /* something is always on its way to the disk */
        disk_clock_advance(200 * 1000000);
        rig_turn();
    }
    CHECK(room_find(&rig.shard, SLICE("idle")) == NULL);
    CHECK(room_find(&rig.shard, SLICE("busy")) != NULL);
    rig_settle();
    rig_end();
}

static void a_room_stays_until_the_store_has_its_events(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    rig.store.paused = true;
    (void)rig_send("r", "olga", "\"x\"");
    /* The ring to the store is full, so that the record cannot be handed over. */
    char *space = NULL;
    const struct persist_head filler = {.op = PERSIST_ROOM_LOAD,
                                        .token = os_tag(ROOM_LOAD_TOKEN, 0, 0)};
    for (uint32_t size = STORE_RING_BYTES / 8; size >= sizeof(filler); size /= 2) {
        while ((space = spsc_reserve(&rig.store.lane.requests, size)) != NULL) {
            memset(space, 0, size);
            memcpy(space, &filler, sizeof(filler));
            spsc_commit(&rig.store.lane.requests, size);
        }
    }
    for (uint32_t i = 0; i < 2 * rig.config.timeouts_room_idle / 1000; i++) {
        disk_clock_advance(1000000000);
        rig_turn();
    }
    CHECK(room_find(&rig.shard, SLICE("r")) != NULL);
    rig_end();
}

/* --- a journal that fails --- */

static void after_a_failed_write_nothing_is_acked_and_reads_go_on(void)
{
    for (uint64_t nth = 1; nth <= 12; nth++) {
        uint32_t tickets[64];
        uint64_t acked = 0;
        rig_config();
        rig_begin();
        (void)rig_room("r", "olga");
        disk_fail(nth, DISK_FAULT_EIO);
        for (uint32_t i = 0; i < 64; i++) {
            tickets[i] = rig_send_keyed("r", "olga", "\"x\"", i % 2 == 0 ? "even" : "odd");
            rig_turn();
        }
        for (uint32_t i = 0; i < 64; i++) {
            tickets[i] = rig_send("r", "olga", "\"x\"");
            rig_turns(2);
        }
        rig_settle();
        CHECK(disk_failed() && journal_state(rig.shard.journal) == JOURNAL_FAILED);
        bool failed = false;
        for (uint32_t i = 0; i < 64; i++) {
            failed |= error_of(tickets[i]) != ERROR_NONE;
            CHECK(!failed || error_of(tickets[i]) == ERROR_UNAVAILABLE);
            acked = failed ? acked : seq_of(tickets[i]);
        }
        const uint32_t page = rig_history("r", "olga", 1, 1000, false);
        rig_settle();
        CHECK(rig_got(page)->error == ERROR_NONE && rig.tickets[page].last_seq >= acked);
        CHECK(rig.tickets[page].last_seq == rig_got(page)->seq);
        CHECK(error_of(rig_send_keyed("r", "olga", "\"x\"", "new")) == ERROR_UNAVAILABLE);
        CHECK(disk_calls_on_failed_file() == 0);
        CHECK(rig.shard.pending.first == rig.shard.pending.end && rig.shard.calls.used == 0);
        rig_end();
    }
}

static void failed_sends_are_no_acks(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    disk_fail(1, DISK_FAULT_EIO);
    const uint32_t ticket = rig_send("r", "olga", "\"x\"");
    rig_settle();
    CHECK(error_of(ticket) == ERROR_UNAVAILABLE);
    CHECK(metrics_get(&rig.shard.metrics->acks_total) == 0);
    rig_end();
}

static void a_room_that_loads_while_the_journal_fails_is_answered(void)
{
    uint32_t refused = 0;
    for (uint64_t nth = 1; nth <= 6; nth++) {
        rig_config();
        rig_begin();
        (void)store_make(&rig.store, "r", "olga");
        disk_fail(nth, DISK_FAULT_EIO); /* for one of them its first event cannot be written */
        const uint32_t first = rig_join("r", "olga");
        rig_settle();
        const uint32_t later = rig_join("r", "olga");
        rig_settle();
        CHECK(rig_has_answer(first) && rig_has_answer(later)); /* R4 */
        CHECK(error_of(later) == error_of(first));
        refused += error_of(first) == ERROR_UNAVAILABLE;
        CHECK(rig.shard.calls.used == 0 && rig.shard.blocks.used == 0);
        rig_end();
    }
    CHECK(refused > 0);
}

/* --- members --- */

static void answers_count_the_member_who_has_just_come_or_gone(void)
{
    rig_config();
    rig_begin();
    (void)rig_room("r", "olga");
    const uint32_t join = rig_join("r", "anna");
    rig_settle();
    CHECK(rig_got(join)->member_count == 2);
    const uint32_t again = rig_join("r", "anna");
    CHECK(rig_got(again)->member_count == 2 && seq_of(again) == 2); /* no second event */
    const uint32_t leave = rig_leave("r", "anna");
    rig_settle();
    CHECK(rig_got(leave)->member_count == 1 && seq_of(leave) == 3);
    CHECK(error_of(rig_send("r", "anna", "\"x\"")) == ERROR_NOT_A_MEMBER);
    CHECK(seq_of(rig_leave("r", "anna")) == 3); /* who has left already has what he wants */
    rig_end();
}

static void a_private_or_full_room_refuses(void)
{
    rig_config();
    rig_begin();
    struct stored_room *stored = store_make(&rig.store, "private", "olga");
    stored->visibility = ROOM_PRIVATE;
    store_make(&rig.store, "full", "olga")->members_max = 2;
    (void)rig_room("private", "olga");
    (void)rig_room("full", "olga");
    CHECK(error_of(rig_join("private", "anna")) == ERROR_FORBIDDEN);
    CHECK(error_of(rig_history("private", "anna", 1, 9, false)) == ERROR_NOT_A_MEMBER);
    CHECK(error_of(rig_history("private", "olga", 1, 9, false)) == ERROR_NONE);
    const uint32_t second = rig_join("full", "anna");
    CHECK(error_of(rig_join("full", "bert")) == ERROR_ROOM_FULL);
    rig_settle();
    CHECK(error_of(second) == ERROR_NONE);
    rig_end();
}

/* --- history --- */

static void history_is_one_log_out_of_memory_and_store(void)
{
    enum { SENDS = 300 };
    rig_config();
    rig.config.rooms_log_bytes = 1 << 17;
    rig_begin();
    struct room *room = rig_room("r", "olga");
    for (uint32_t i = 0; i < SENDS; i++) {
        (void)rig_send("r", "olga", rig_text(1000));
        if (i % 16 == 0) {
            rig_settle();
        }
    }
    rig_settle();
    CHECK(room->log.first_seq > 10 && room->log.first_seq < SENDS); /* part of it is gone */
    const uint64_t first = room->log.first_seq;
    for (uint64_t from = first - 5; from <= first + 5; from++) {
        const uint32_t rising = rig_history("r", "olga", from, from + 3, false);
        const uint32_t falling = rig_history("r", "olga", from, from + 3, true);
        rig_settle();
        CHECK(error_of(rising) == ERROR_NONE && error_of(falling) == ERROR_NONE);
        CHECK(rig.tickets[rising].first_seq == from && rig.tickets[rising].last_seq == from + 3);
        CHECK(rig.tickets[falling].first_seq == from + 3 && rig.tickets[falling].last_seq == from);
        CHECK(rig_got(rising)->count == 4 && !rig_got(rising)->more);
    }
    CHECK(rig.store.pages > 0);
    const uint32_t beyond = rig_history("r", "olga", SENDS + 2, UINT64_MAX, false);
    CHECK(error_of(beyond) == ERROR_NONE && rig_got(beyond)->count == 0);
    rig.store.page_status = -EAGAIN;
    const uint32_t refused = rig_history("r", "olga", 1, 3, false);
    rig_settle();
    CHECK(error_of(refused) == ERROR_UNAVAILABLE && rig_got(refused)->count == 0);
    rig_end();
}

static void a_refused_event_leaves_no_trace_in_the_log(void)
{
    rig_config();
    rig.config.journal_bytes_max = 2 << 20;
    rig_begin();
    struct room *room = rig_room("r", "olga");
    rig.store.paused = true; /* segments are not released: the journal fills */
    /* Of rising sizes, slowly: each refused one leaves a chunk empty that the next does not fit. */
    static const uint32_t sizes[] = {9000, 30000, 100000};
    uint32_t refused = 0;
    uint64_t acked = 1;
    for (uint32_t i = 0; i < 400 && refused < 3; i++) {
        disk_clock_advance(3000UL * 1000000);
        const uint32_t ticket = rig_send("r", "olga", rig_text(sizes[refused]));
        rig_turns(40);
        refused += error_of(ticket) == ERROR_UNAVAILABLE;
        acked += error_of(ticket) == ERROR_NONE;
    }
    CHECK(refused == 3);
    rig.store.paused = false;
    rig_settle();
    const uint32_t small = rig_send("r", "olga", "\"after\"");
    const uint32_t large = rig_send("r", "olga", rig_text(100000));
    rig_settle();
    CHECK(seq_of(small) == acked + 1 && seq_of(large) == acked + 2);
    const uint32_t page = rig_history("r", "olga", acked - 2, acked + 2, false);
    rig_settle();
    CHECK(error_of(page) == ERROR_NONE && rig.tickets[page].last_seq == acked + 2);
    struct log_cursor cursor;
    CHECK(room_log_find(&room->log, acked, &cursor));
    uint64_t seen = 0;
    struct chunk *chunk = NULL;
    for (uint32_t i = 0; i < 10 && room_log_has_more(&room->log, &cursor); i++) {
        const uint64_t before = cursor.seq;
        const struct slice piece = room_log_piece(&room->log, &cursor, &chunk);
        CHECK(piece.size > 0 && cursor.seq > before); /* else a member would wait for ever */
        seen += cursor.seq - before;
    }
    CHECK(seen == 3);
    rig_end();
}

int main(void)
{
    a_send_is_answered_only_when_it_is_durable();
    seq_is_dense_and_answers_keep_their_order();
    whoever_is_no_member_cannot_send();
    a_key_sent_again_in_flight_is_answered_after_the_first();
    keys_are_known_again_when_the_room_comes_back();
    requests_wait_for_a_room_that_loads_in_their_order();
    a_load_that_fails_is_answered_and_can_be_tried_again();
    a_room_without_an_owner_is_answered_all_the_same();
    an_idle_room_leaves_memory_though_another_is_busy();
    a_room_stays_until_the_store_has_its_events();
    after_a_failed_write_nothing_is_acked_and_reads_go_on();
    failed_sends_are_no_acks();
    a_room_that_loads_while_the_journal_fails_is_answered();
    answers_count_the_member_who_has_just_come_or_gone();
    a_private_or_full_room_refuses();
    history_is_one_log_out_of_memory_and_store();
    a_refused_event_leaves_no_trace_in_the_log();
    puts("17 passed, 0 failed");
    return 0;
}
