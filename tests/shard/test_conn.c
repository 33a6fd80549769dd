/*
 * test_conn.c - a connection from accept to its last completion (C1 to C3 of conn.h): input in any
 *               pieces means the same, limits hold, every end gives everything back.
 *
 * Method: the fake network, which checks that a slot is closed only when nothing is in flight on it
 * and that bytes given to a send stay where they are.
 */
#include "tests/shard/shard_rig.h"

enum { MESSAGE_MAX = 70000 };

static uint8_t frames[4 * MESSAGE_MAX];
static uint32_t frames_size;
static char text[MESSAGE_MAX];

static void begin(void)
{
    rig_config();
    rig_begin();
}

/* Everybody goes; nothing may be left. */
static void end(void)
{
    for (uint32_t i = 0; i < SOCKETS_MAX; i++) {
        rig_socket(i)->slow = false;
        network_release(i);
        if (rig_socket(i)->open && rig_socket(i)->recv_tag != 0) {
            network_end(i, 0);
        }
    }
    rig_wait_ms(5000);
    CHECK(rig.shard.conns.used == 0 && rig.shard.blocks.used == 0 && rig.shard.large.used == 0);
    CHECK(rig.shard.calls.used == 0 && rig.shard.wheel->armed == rig.shard.rooms.used);
    CHECK(network.free_buffers == RECV_BUFFERS);
    for (uint32_t i = 0; i < SOCKETS_MAX; i++) {
        CHECK(!rig_socket(i)->open);
    }
    rig_end();
}

static void add_frame(uint8_t first, const void *payload, uint32_t size)
{
    CHECK(frames_size + size + 14 < sizeof(frames));
    frames_size += rig_frame(frames + frames_size, first, payload, size);
}

static const char *ping_of(uint32_t size)
{
    const int head = snprintf(text, sizeof(text), "{\"type\":\"ping\",\"id\":1,\"x\":\"");
    memset(text + head, 'x', size);
    (void)snprintf(text + head + size, sizeof(text) - (uint32_t)head - size, "\"}");
    return text;
}

static uint32_t pongs_heard(uint32_t slot)
{
    uint32_t pongs = 0;
    for (const char *heard = rig_hear(slot); heard[0] != '\0'; heard = rig_hear(slot)) {
        CHECK(strcmp(heard, "{\"type\":\"pong\",\"id\":1}") == 0);
        pongs++;
    }
    return pongs;
}

/* The code of the close frame that the peer got last, or 0. */
static uint32_t close_code(uint32_t slot)
{
    uint8_t opcode = 0;
    uint32_t code = 0;
    for (uint32_t i = 0; i < RIG_TICKETS_MAX; i++) {
        const uint32_t before = rig_socket(slot)->out_taken;
        const char *heard = rig_hear_frame(slot, &opcode);
        if (rig_socket(slot)->out_taken == before) {
            break;
        }
        code = opcode == WS_CLOSE ? (uint32_t)(uint8_t)heard[0] << 8 | (uint8_t)heard[1] : code;
    }
    return code;
}

/* --- HTTP --- */

static bool answered(uint32_t slot, const char *status)
{
    const struct fake_socket *socket = rig_socket(slot);
    const size_t size = strlen(status);
    return socket->out_size >= size && memcmp(socket->out, status, size) == 0;
}

static void a_request_cut_anywhere_is_the_same_request(void)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    begin();
    for (uint32_t cut = 1; cut < sizeof(request) - 1; cut++) {
        const uint32_t slot = rig_accept()->socket.slot;
        CHECK(network_send(slot, request, cut));
        rig_settle();
        CHECK(rig_socket(slot)->out_size == 0);
        CHECK(network_send(slot, request + cut, (uint32_t)sizeof(request) - 1 - cut));
        rig_settle();
        CHECK(answered(slot, "HTTP/1.1 200 "));
        CHECK(memcmp(rig_socket(slot)->out + rig_socket(slot)->out_size - 3, "ok\n", 3) == 0);
    }
    end();
}

static void requests_in_one_piece_are_answered_one_by_one(void)
{
    enum { REQUESTS = 50 };
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    begin();
    const uint32_t slot = rig_accept()->socket.slot;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        memcpy(text + i * (sizeof(request) - 1), request, sizeof(request) - 1);
    }
    CHECK(network_send(slot, text, REQUESTS * (uint32_t)(sizeof(request) - 1)));
    rig_settle();
    uint32_t answers = 0;
    const struct fake_socket *socket = rig_socket(slot);
    for (uint32_t i = 0; i + 9 <= socket->out_size; i++) {
        answers += memcmp(socket->out + i, "HTTP/1.1 ", 9) == 0;
    }
    CHECK(answers == REQUESTS);
    end();
}

static void half_a_request_is_given_up_in_time_even_behind_a_whole_one(void)
{
    static const char *const halves[] = {"GET / HT",
                                         "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /"};
    begin();
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t slot = rig_accept()->socket.slot;
        rig_type(slot, halves[i]);
        rig_settle();
        CHECK(rig_socket(slot)->open);
        rig_wait_ms(rig.config.timeouts_handshake + 1000);
        CHECK(!rig_socket(slot)->open);
    }
    /* The second half comes behind the rest of the first request, in what is kept. */
    const uint32_t slot = rig_accept()->socket.slot;
    rig_type(slot, "GET /healthz HTTP/1.1\r\n");
    rig_settle();
    rig_type(slot, "Host: x\r\n\r\nGET /");
    rig_settle();
    CHECK(answered(slot, "HTTP/1.1 200 "));
    rig_wait_ms(rig.config.timeouts_handshake + 1000);
    CHECK(!rig_socket(slot)->open);
    end();
}

static void one_who_ends_his_side_still_gets_his_answer(void)
{
    begin();
    const uint32_t slot = rig_accept()->socket.slot;
    rig_socket(slot)->slow = true;
    rig_type(slot, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_turns(3);
    network_end(slot, 0);
    rig_settle();
    CHECK(rig_socket(slot)->open);
    rig_socket(slot)->slow = false;
    network_release(slot);
    rig_settle();
    CHECK(answered(slot, "HTTP/1.1 200 ") && !rig_socket(slot)->open);
    end();
}

static void one_who_leaves_as_soon_as_he_has_his_last_answer_leaves_nothing(void)
{
    begin();
    const uint32_t slot = rig_accept()->socket.slot;
    rig_socket(slot)->slow = true;
    rig_type(slot, "nonsense\r\n\r\n"); /* refused: nothing after it is read */
    rig_settle();
    network_release(slot); /* both in one turn: the answer has gone, and so has he */
    network_end(slot, 0);
    rig_settle();
    CHECK(answered(slot, "HTTP/1.1 400 ") && !rig_socket(slot)->open);
    end();
}

/* --- WebSocket --- */

/* Small and large frames, fragments with a ping between them, cut into pieces of every size. */
static void frames_cut_anywhere_are_the_same_messages(void)
{
    frames_size = 0;
    add_frame(0x81, ping_of(3), (uint32_t)strlen(ping_of(3)));
    add_frame(0x01, text, 5);
    add_frame(0x89, "between", 7);
    add_frame(0x00, text + 5, 1);
    add_frame(0x80, text + 6, (uint32_t)strlen(text) - 6);
    add_frame(0x81, ping_of(300), (uint32_t)strlen(ping_of(300)));
    begin();
    for (uint32_t cut = 1; cut < frames_size; cut++) {
        const uint32_t slot = rig_join_in("olga")->socket.slot;
        for (uint32_t at = 0; at < frames_size; at += cut) {
            CHECK(network_send(slot, frames + at, frames_size - at < cut ? frames_size - at : cut));
            rig_turns(2);
        }
        rig_settle();
        uint32_t pongs = 0;
        uint32_t controls = 0;
        uint8_t opcode = 0;
        for (uint32_t i = 0; i < 4; i++) {
            const char *heard = rig_hear_frame(slot, &opcode);
            pongs += opcode == WS_TEXT && strcmp(heard, "{\"type\":\"pong\",\"id\":1}") == 0;
            controls += opcode == WS_PONG && strcmp(heard, "between") == 0;
        }
        CHECK(pongs == 3 && controls == 1 && rig_hear(slot)[0] == '\0');
        CHECK(rig.shard.large.used == 0 && rig.shard.blocks.used == 0);
        network_end(slot, 0);
        rig_settle();
    }
    end();
}

static void the_largest_message_passes_and_one_byte_more_does_not(void)
{
    begin();
    const uint32_t limit = (uint32_t)rig.config.limits_frame_bytes;
    const uint32_t around = (uint32_t)strlen(ping_of(0));
    for (int pieces = 0; pieces < 2; pieces++) {
        for (uint32_t more = 0; more < 2; more++) {
            const uint32_t slot = rig_join_in("olga")->socket.slot;
            const uint32_t size = limit + more;
            (void)ping_of(size - around);
            frames_size = 0;
            if (pieces == 0) {
                add_frame(0x81, text, size);
            } else {
                add_frame(0x01, text, size - 1);
                add_frame(0x80, text + size - 1, 1);
            }
            for (uint32_t at = 0; at < frames_size && rig_socket(slot)->recv_tag != 0; at += 4096) {
                CHECK(network_send(slot, frames + at,
                                   frames_size - at < 4096 ? frames_size - at : 4096));
                rig_turn();
            }
            rig_settle();
            CHECK(more == 0 ? pongs_heard(slot) == 1 : close_code(slot) == 1009);
        }
    }
    end();
}

static void wrong_frames_close_with_the_right_code(void)
{
    static const struct {
        uint8_t bytes[16];
        uint32_t size, code;
    } rows[] = {
        {{0x81, 0x05, 'h', 'e', 'l', 'l', 'o'}, 7, 1002},             /* no mask */
        {{0xc1, 0x80, 0, 0, 0, 0}, 6, 1002},                          /* a reserved bit */
        {{0x83, 0x80, 0, 0, 0, 0}, 6, 1002},                          /* a reserved opcode */
        {{0x80, 0x80, 0, 0, 0, 0}, 6, 1002},                          /* continues nothing */
        {{0x09, 0x80, 0, 0, 0, 0}, 6, 1002},                          /* a ping in fragments */
        {{0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28}, 8, 1007},              /* not UTF-8 */
        {{0x82, 0x81, 0, 0, 0, 0, 'x'}, 7, 1003},                     /* binary */
        {{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}, 8, 1000},              /* a close is answered */
        {{0x88, 0x81, 0, 0, 0, 0, 0x03}, 7, 1002},                    /* half a code */
        {{0x81, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, 14, 1009}, /* far too long */
    };
    begin();
    for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint32_t slot = rig_join_in("olga")->socket.slot;
        CHECK(network_send(slot, rows[i].bytes, rows[i].size));
        rig_settle();
        CHECK(close_code(slot) == rows[i].code);
        rig_wait_ms(3000);
        CHECK(!rig_socket(slot)->open);
    }
    end();
}

/* --- limits --- */

static void without_receive_buffers_reading_goes_on_when_some_are_back(void)
{
    begin();
    const uint32_t first = rig_join_in("olga")->socket.slot;
    const uint32_t second = rig_join_in("anna")->socket.slot;
    uint32_t sent = 0;
    while (network.free_buffers > 0) {
        rig_say(first, ping_of(10));
        sent++;
    }
    CHECK(sent == RECV_BUFFERS);
    frames_size = rig_frame(frames, 0x81, text, (uint32_t)strlen(text));
    CHECK(!network_send(second, frames, frames_size)); /* -ENOBUFS */
    CHECK(!network_send(first, frames, frames_size));
    rig_turns(3);
    CHECK(metrics_get(&rig.shard.metrics->recv_nobufs_total) == 2);
    CHECK(network_send(second, frames, frames_size)); /* it is armed again */
    CHECK(network_send(first, frames, frames_size));
    rig_settle();
    CHECK(pongs_heard(first) == sent + 1 && pongs_heard(second) == 1);
    end();
}

static void one_who_is_starved_may_go_as_well(void)
{
    begin();
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    struct conn *conn = rig_accept();
    const uint32_t other = conn->socket.slot;
    network_event(rig_socket(slot)->recv_tag, -ENOBUFS, 0, 0);
    network_event(rig_socket(other)->recv_tag, -ENOBUFS, 0, 0);
    rig_socket(slot)->recv_tag = rig_socket(other)->recv_tag = 0;
    rig_turn();
    conn_shut(conn);
    rig_settle();
    CHECK(!rig_socket(other)->open && rig_socket(slot)->recv_tag != 0);
    end();
}

static void a_reader_that_takes_nothing_is_closed_at_its_limit(void)
{
    begin();
    struct conn *conn = rig_join_in("olga");
    const uint32_t slot = conn->socket.slot;
    rig_socket(slot)->slow = true;
    uint32_t pings = 0;
    while (conn->state == CONN_WEBSOCKET && pings < 100000) {
        rig_say(slot, ping_of(10));
        rig_turn();
        pings++;
    }
    CHECK(pings > 1000 && pings < 100000);
    CHECK(conn->out_bytes <= rig.config.limits_outbox_bytes + 2 * BLOCK_BYTES); /* C3 */
    CHECK(rig.shard.blocks.used <= rig.config.limits_outbox_bytes / sizeof(struct block) + 4);
    rig_wait_ms(5000); /* it does not even take its close frame */
    CHECK(!rig_socket(slot)->open);
    end();
}

static void a_send_that_is_stuck_ends_the_connection(void)
{
    begin();
    (void)rig_room("r", "olga");
    const uint32_t slot = rig_join_in("olga")->socket.slot;
    rig_say(slot, "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\"}");
    rig_settle();
    rig_socket(slot)->slow = true;
    (void)rig_send("r", "olga", rig_text(5000)); /* straight from the room's log */
    rig_settle();
    CHECK(rig_socket(slot)->sending != NULL);
    frames_size = rig_frame(frames, 0x8a, "", 0);
    for (uint64_t ms = 0; ms < rig.config.timeouts_send_stall + rig.config.timeouts_ping_interval;
         ms += 1000) { /* it speaks all the time, but takes nothing */
        rig_wait_ms(1000);
        CHECK(rig_socket(slot)->recv_tag == 0 || network_send(slot, frames, frames_size));
    }
    CHECK(!rig_socket(slot)->open);
    CHECK(metrics_get(&rig.shard.closes[CLOSE_TOO_SLOW]) == 1);
    end();
}

static void a_silent_peer_is_pinged_and_then_closed(void)
{
    begin();
    const uint32_t silent = rig_join_in("olga")->socket.slot;
    const uint32_t answers = rig_join_in("anna")->socket.slot;
    const uint32_t nobody = rig_accept()->socket.slot;
    rig_type(nobody, RIG_UPGRADE "\r\n"); /* never says who it is */
    uint32_t pings = 0;
    for (uint32_t i = 0; i < 60; i++) {
        uint8_t opcode = 0;
        rig_wait_ms(1000);
        (void)rig_hear_frame(answers, &opcode);
        if (opcode == WS_PING) {
            frames_size = rig_frame(frames, 0x8a, "", 0);
            CHECK(network_send(answers, frames, frames_size));
            pings++;
        }
    }
    CHECK(pings == 2 && rig_socket(answers)->open);
    CHECK(close_code(silent) == 3010 && !rig_socket(silent)->open);
    CHECK(!rig_socket(nobody)->open);
    end();
}

static void large_buffers_that_run_out_end_only_who_needs_one(void)
{
    enum { LARGE = 8 };
    begin();
    const uint32_t small = rig_join_in("olga")->socket.slot;
    uint32_t slots[LARGE + 1];
    (void)ping_of(20000);
    frames_size = rig_frame(frames, 0x81, text, (uint32_t)strlen(text));
    for (uint32_t i = 0; i <= LARGE; i++) { /* most of a large frame, and no more */
        slots[i] = rig_join_in("anna")->socket.slot;
        for (uint32_t at = 0; at < 12288; at += 4096) {
            CHECK(rig_socket(slots[i])->recv_tag == 0 || network_send(slots[i], frames + at, 4096));
            rig_settle();
        }
    }
    CHECK(rig.shard.large.used == LARGE);
    CHECK(close_code(slots[LARGE]) == 3002);
    CHECK(metrics_get(&rig.shard.metrics->pool_exhausted_total_large_buffers) == 1);
    rig_say(small, ping_of(10));
    rig_settle();
    CHECK(pongs_heard(small) == 1);
    (void)ping_of(20000);
    frames_size = rig_frame(frames, 0x81, text, (uint32_t)strlen(text));
    CHECK(network_send(slots[0], frames + 12288, frames_size - 12288));
    rig_settle();
    CHECK(pongs_heard(slots[0]) == 1 && rig.shard.large.used == LARGE - 1);
    end();
}

/* --- a walk --- */

static void any_mix_of_events_ends_clean(void)
{
    enum { CLIENTS = 20, STEPS = 6000 };
    begin();
    (void)rig_room("r", "olga");
    uint32_t opened = 0;
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint32_t slot = (uint32_t)(disk_random() % CLIENTS);
        struct fake_socket *socket = rig_socket(slot);
        const uint64_t what = disk_random() % 100;
        if (!socket->open) {
            opened += rig_accept() != NULL;
        } else if (socket->recv_tag == 0) {
            network_release(slot);
        } else if (what < 20) {
            (void)network_send(slot, RIG_UPGRADE "Authorization: Bearer olga\r\n\r\n",
                               (uint32_t)strlen(RIG_UPGRADE "Authorization: Bearer olga\r\n\r\n"));
        } else if (what < 55) {
            static const char *const said[] = {
                "{\"type\":\"join\",\"id\":1,\"room_id\":\"r\",\"after_seq\":0}",
                "{\"type\":\"send\",\"id\":1,\"room_id\":\"r\",\"text\":\"hello\"}",
                "{\"type\":\"history\",\"id\":1,\"room_id\":\"r\"}",
                "{\"type\":\"leave\",\"id\":1,\"room_id\":\"r\"}",
                "{\"type\":\"typing\",\"room_id\":\"r\"}",
                "{\"type\":\"nonsense\"}",
            };
            const char *chosen = said[disk_random() % 6];
            frames_size = rig_frame(frames, 0x81, chosen, (uint32_t)strlen(chosen));
            (void)network_send(slot, frames, frames_size);
        } else if (what < 60) {
            (void)network_send(slot, frames, (uint32_t)(disk_random() % 10));
        } else if (what < 66) {
            network_end(slot, what < 63 ? 0 : -ECONNRESET);
        } else if (what < 80) {
            socket->slow = !socket->slow;
        } else {
            network_release(slot);
        }
        if (disk_random() % 3 == 0) {
            rig_turn();
        }
        if (i % 100 == 0) {
            disk_clock_advance(500 * 1000000);
        }
    }
    CHECK(opened > 100);
    end();
}

int main(void)
{
    a_request_cut_anywhere_is_the_same_request();
    requests_in_one_piece_are_answered_one_by_one();
    half_a_request_is_given_up_in_time_even_behind_a_whole_one();
    one_who_ends_his_side_still_gets_his_answer();
    one_who_leaves_as_soon_as_he_has_his_last_answer_leaves_nothing();
    frames_cut_anywhere_are_the_same_messages();
    the_largest_message_passes_and_one_byte_more_does_not();
    wrong_frames_close_with_the_right_code();
    without_receive_buffers_reading_goes_on_when_some_are_back();
    one_who_is_starved_may_go_as_well();
    a_reader_that_takes_nothing_is_closed_at_its_limit();
    a_send_that_is_stuck_ends_the_connection();
    a_silent_peer_is_pinged_and_then_closed();
    large_buffers_that_run_out_end_only_who_needs_one();
    any_mix_of_events_ends_clean();
    puts("15 passed, 0 failed");
    return 0;
}
