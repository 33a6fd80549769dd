/*
 * test_checker.c - the loader's checker counts what was lost, duplicated and reordered, truly.
 *
 * Method: a server of forty lines writes real WebSocket frames for three members of one room, and
 *         each test bends what it sends in one way: the counts must name that and nothing else.
 *         Frames go in through client_input, as in the loader. At the end random bends, each of
 *         which must be noticed, and split input, which must change nothing.
 */
#include "bench/client.h"
#include "core/check.h"

#include <errno.h>
#include <inttypes.h>

enum { MEMBERS = 3, MESSAGES = 40, STREAM_BYTES = 1 << 20, SEQ_FIRST = 11 };

static struct clients clients;
static uint8_t streams[MEMBERS][STREAM_BYTES]; /* what the server has sent each, in all */
static size_t stream_sizes[MEMBERS];
static size_t stream_taken[MEMBERS];
static uint64_t now_ns;

/* --- the server --- */

static void emit(uint32_t member, const char *json)
{
    const size_t size = strlen(json);
    const size_t head = size < 126 ? 2 : 4;
    uint8_t *const dst = streams[member] + stream_sizes[member];

    CHECK(size < 65536);
    CHECK(stream_sizes[member] + head + size < STREAM_BYTES);
    dst[0] = 0x81;
    dst[1] = (uint8_t)(size < 126 ? size : 126);
    if (size >= 126) {
        dst[2] = (uint8_t)(size >> 8);
        dst[3] = (uint8_t)size;
    }
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): a frame has no closing 0. */
    memcpy(dst + head, json, size);
    stream_sizes[member] += head + size;
}

/* A message's push; spoiled: with one character of its padding changed. */
static void push(uint32_t member, int32_t message, uint64_t seq, bool spoiled)
{
    const uint32_t sender = clients.checker.messages[message].sender;
    char text[256] = "";
    char json[512];

    checker_text(&clients.checker, message, text);
    text[clients.checker.text_size] = '\0';
    if (spoiled) {
        text[clients.checker.text_size - 1] = 'y';
    }
    (void)snprintf(json, sizeof(json),
                   "{\"type\":\"message\",\"room_id\":\"t-0\",\"seq\":%" PRIu64
                   ",\"user_id\":\"bench-%u\",\"username\":\"bench-%u\",\"text\":\"%s\","
                   "\"created_at\":\"2026-11-21T09:30:00.123Z\"}",
                   seq, sender, sender, text);
    emit(member, json);
}

static void push_all(int32_t message, uint64_t seq)
{
    for (uint32_t member = 0; member < MEMBERS; member++) {
        push(member, message, seq, false);
    }
}

static void ack_as(int32_t message, uint64_t seq, const char *durability)
{
    char json[256];

    (void)snprintf(json, sizeof(json),
                   "{\"type\":\"ack\",\"id\":%d,\"room_id\":\"t-0\",\"seq\":%" PRIu64
                   ",\"created_at\":\"2026-11-21T09:30:00.123Z\",\"durability\":\"%s\","
                   "\"duplicate\":false}",
                   CLIENT_ID_BASE + message, seq, durability);
    emit(clients.checker.messages[message].sender, json);
}

static void ack(int32_t message, uint64_t seq)
{
    ack_as(message, seq, "fsync");
}

/* --- the loader's side --- */

static void take(uint32_t member, size_t most)
{
    const size_t left = stream_sizes[member] - stream_taken[member];
    const int64_t used =
        client_input(&clients, &clients.all[member], streams[member] + stream_taken[member],
                     left < most ? left : most, now_ns += 1000);

    CHECK(used >= 0);
    stream_taken[member] += (size_t)used;
}

static void take_all(void)
{
    for (uint32_t member = 0; member < MEMBERS; member++) {
        take(member, SIZE_MAX);
    }
}

static void open_member(uint32_t member, bool leave)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    client_start(&clients, &clients.all[member], 0, now_ns);
    memcpy(streams[member], answer, sizeof(answer) - 1);
    stream_sizes[member] = sizeof(answer) - 1;
    stream_taken[member] = 0;
    emit(member, "{\"type\":\"connected\",\"user_id\":\"u\",\"session_id\":\"s\"}");
    emit(member, "{\"type\":\"joined\",\"id\":1,\"room_id\":\"t-0\",\"seq\":10,\"epoch\":\"e\"}");
    if (leave) {
        emit(member, "{\"type\":\"left\",\"id\":2,\"room_id\":\"t-0\"}");
    }
    take(member, SIZE_MAX);
    CHECK(clients.all[member].state == CLIENT_LIVE);
}

static void begin_as(bool leave)
{
    const struct clients_plan plan = {
        .count = MEMBERS,
        .rooms = 1,
        .join = true,
        .leave_after_join = leave,
        .room_prefix = "t",
        .host = "localhost",
        .limits = {.rooms = 1,
                   .senders = MEMBERS,
                   .text_size = 100,
                   .messages = 20000,
                   .durability = {"fsync", 5}},
    };

    clients_free(&clients);
    CHECK(clients_init(&clients, &plan) == 0);
    now_ns = 1000000;
    for (uint32_t member = 0; member < MEMBERS; member++) {
        open_member(member, leave);
    }
}

static void begin(void)
{
    begin_as(false);
}

/* Sends count messages, round robin; their indices are 0 to count - 1. */
static void send_messages(int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        struct client *const client = &clients.all[i % MEMBERS];
        client->output_sent = client->output_end; /* as if the kernel had taken it */
        CHECK(client_send(&clients, client, now_ns));
    }
}

/* Acks and pushes messages [first, last) in order, message m under seq SEQ_FIRST + m. */
static void serve(int32_t first, int32_t last)
{
    for (int32_t message = first; message < last; message++) {
        ack(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
        push_all(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
    }
}

static uint64_t missing_of_all(void)
{
    uint64_t missing = 0;

    for (uint32_t i = 0; i < MEMBERS; i++) {
        missing += checker_missing(&clients.checker, &clients.all[i].member);
    }
    return missing;
}

static uint64_t lost(void)
{
    const struct checker_counts *const counts = &clients.checker.counts;
    const uint64_t undelivered = counts->expected - counts->delivered;
    const uint64_t missing = missing_of_all();

    return missing > undelivered ? missing : undelivered;
}

static void expect(uint64_t lost_wanted, uint64_t duplicated, uint64_t reordered)
{
    take_all();
    CHECK(lost() == lost_wanted);
    CHECK(clients.checker.counts.duplicated == duplicated);
    CHECK(clients.checker.counts.reordered == reordered);
}

static uint64_t mismatches(void)
{
    return checker_ack_mismatches(&clients.checker, 0, true);
}

static bool all_well(void)
{
    const struct checker_counts *const c = &clients.checker.counts;

    return lost() == 0 && c->duplicated == 0 && c->reordered == 0 && c->foreign == 0 &&
           c->ack_wrong == 0 && c->gaps == 0 && c->refused == 0 && mismatches() == 0;
}

/* --- tests --- */

static void clean_run_is_clean(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES);
    expect(0, 0, 0);
    CHECK(all_well());
    CHECK(clients.checker.counts.delivered == (uint64_t)MESSAGES * MEMBERS);
    CHECK(clients.checker.counts.acked == MESSAGES);
    CHECK(clients.checker.open == 0);
    CHECK(clients.checker.latency.total == (uint64_t)MESSAGES * MEMBERS);
    CHECK(clients.checker.latency.minimum > 0);
}

static void dropped_event_is_lost_for_that_member(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    ack(20, SEQ_FIRST + 20);
    push(0, 20, SEQ_FIRST + 20, false);
    push(2, 20, SEQ_FIRST + 20, false);
    serve(21, MESSAGES);
    expect(1, 0, 0);
    CHECK(clients.checker.open == 1);
}

static void dropped_last_event_is_lost_too(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES - 1);
    ack(MESSAGES - 1, SEQ_FIRST + MESSAGES - 1);
    push(1, MESSAGES - 1, SEQ_FIRST + MESSAGES - 1, false);
    expect(2, 0, 0);
}

static void acked_but_never_pushed_is_lost_for_all(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES - 1);
    ack(MESSAGES - 1, SEQ_FIRST + MESSAGES - 1);
    expect(MEMBERS, 0, 0);
    CHECK(mismatches() == 1);
}

static void pushed_but_never_acked_is_an_error(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES - 1);
    push_all(MESSAGES - 1, SEQ_FIRST + MESSAGES - 1);
    expect(0, 0, 0);
    CHECK(mismatches() == 1);
    CHECK(clients.checker.open == 1);
}

static void repeated_frame_is_duplicated(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    push(1, 19, SEQ_FIRST + 19, false);
    push(1, 3, SEQ_FIRST + 3, false);
    serve(20, MESSAGES);
    expect(0, 2, 0);
}

static void swapped_neighbours_are_reordered(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    ack(20, SEQ_FIRST + 20);
    ack(21, SEQ_FIRST + 21);
    push(0, 20, SEQ_FIRST + 20, false);
    push(0, 21, SEQ_FIRST + 21, false);
    for (uint32_t member = 1; member < MEMBERS; member++) {
        push(member, 21, SEQ_FIRST + 21, false);
        push(member, 20, SEQ_FIRST + 20, false);
    }
    serve(22, MESSAGES);
    expect(0, 0, 2);
    CHECK(clients.checker.open == 0);
}

static void late_ends_of_a_hole_are_reordered_and_its_rest_is_lost(void)
{
    static const int32_t late[] = {23, 20, 25, 21}; /* a middle, both ends, the new end */

    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    for (int32_t message = 20; message < 26; message++) {
        ack(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
        push(0, message, (uint64_t)SEQ_FIRST + (uint64_t)message, false);
        push(2, message, (uint64_t)SEQ_FIRST + (uint64_t)message, false);
    }
    serve(26, MESSAGES);
    for (int i = 0; i < 4; i++) {
        push(1, late[i], (uint64_t)SEQ_FIRST + (uint64_t)late[i], false);
    }
    expect(2, 0, 4);
    CHECK(clients.checker.counts.missing == 2);
    CHECK(missing_of_all() == 2);
    push(1, 23, SEQ_FIRST + 23, false); /* no longer missing: now it is a duplicate */
    expect(2, 1, 4);
}

static void reused_seq_is_duplicated_and_its_message_lost(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES - 1);
    ack(MESSAGES - 1, SEQ_FIRST + MESSAGES - 2);
    push_all(MESSAGES - 1, SEQ_FIRST + MESSAGES - 2);
    expect(MEMBERS, MEMBERS, 0);
    CHECK(mismatches() == 1);
}

static void message_under_two_seqs_is_duplicated(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES);
    push_all(5, SEQ_FIRST + MESSAGES);
    expect(0, MEMBERS, 0);
}

static void members_that_see_different_events_do_not_share_an_order(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    push(0, 20, SEQ_FIRST + 20, false);
    push(0, 21, SEQ_FIRST + 21, false);
    push(1, 21, SEQ_FIRST + 20, false);
    push(1, 20, SEQ_FIRST + 21, false);
    push(2, 20, SEQ_FIRST + 20, false);
    push(2, 21, SEQ_FIRST + 21, false);
    take_all();
    CHECK(clients.checker.counts.reordered == 2);
    CHECK(!all_well());
}

static void messages_of_one_sender_out_of_order_are_reordered(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    /* 20 and 23 are of one sender: 23 goes before 20, with seqs that look right. */
    ack(20, SEQ_FIRST + 23);
    ack(23, SEQ_FIRST + 20);
    push_all(23, SEQ_FIRST + 20);
    for (int32_t message = 21; message < 23; message++) {
        ack(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
        push_all(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
    }
    push_all(20, SEQ_FIRST + 23);
    serve(24, MESSAGES);
    expect(0, 0, MEMBERS);
}

static void other_senders_may_overtake(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    ack(21, SEQ_FIRST + 20);
    ack(20, SEQ_FIRST + 21);
    push_all(21, SEQ_FIRST + 20);
    push_all(20, SEQ_FIRST + 21);
    serve(22, MESSAGES);
    expect(0, 0, 0);
    CHECK(all_well());
}

static void ack_must_name_the_seq_that_was_pushed(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, MESSAGES - 1);
    ack(MESSAGES - 1, SEQ_FIRST + MESSAGES);
    push_all(MESSAGES - 1, SEQ_FIRST + MESSAGES - 1);
    expect(0, 0, 0);
    CHECK(mismatches() == 1);
}

static void ack_must_name_the_durability_and_come_once(void)
{
    begin();
    send_messages(2);
    ack_as(0, SEQ_FIRST, "memory");
    push_all(0, SEQ_FIRST);
    serve(1, 2);
    expect(0, 0, 0);
    CHECK(clients.checker.counts.ack_wrong == 1);
    ack(1, SEQ_FIRST + 1);
    take_all();
    CHECK(clients.checker.counts.ack_wrong == 2);
    CHECK(clients.checker.counts.acked == 2);
}

static void announced_gap_is_lost_and_named(void)
{
    begin();
    send_messages(MESSAGES);
    serve(0, 20);
    for (int32_t message = 20; message < 25; message++) {
        ack(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
        push(0, message, (uint64_t)SEQ_FIRST + (uint64_t)message, false);
        push(1, message, (uint64_t)SEQ_FIRST + (uint64_t)message, false);
    }
    emit(2, "{\"type\":\"gap\",\"room_id\":\"t-0\",\"from_seq\":31,\"to_seq\":35}");
    serve(25, MESSAGES);
    expect(5, 0, 0);
    CHECK(clients.checker.counts.gaps == 1);
    CHECK(missing_of_all() == 5);
}

static void refused_message_is_not_expected(void)
{
    begin();
    send_messages(2);
    serve(0, 1);
    emit(1, "{\"type\":\"error\",\"id\":1000000001,\"code\":\"rate_limited\",\"message\":\"m\"}");
    expect(0, 0, 0);
    CHECK(clients.checker.counts.refused == 1);
    CHECK(clients.checker.counts.expected == MEMBERS);
    CHECK(clients.checker.open == 0);
}

static void spoiled_text_is_foreign_and_its_message_lost(void)
{
    begin();
    send_messages(1);
    ack(0, SEQ_FIRST);
    push(0, 0, SEQ_FIRST, true);
    push(1, 0, SEQ_FIRST, true);
    push(2, 0, SEQ_FIRST, true);
    expect(3, 0, 0);
    CHECK(clients.checker.counts.foreign >= 1);
}

static void what_belongs_elsewhere_is_foreign(void)
{
    begin();
    send_messages(1);
    serve(0, 1);
    emit(0, "{\"type\":\"member\",\"room_id\":\"t-1\",\"seq\":12,\"user_id\":\"u\"}");
    emit(0, "{\"type\":\"member\",\"room_id\":\"t-0\",\"user_id\":\"u\"}");
    emit(0, "{\"type\":\"ack\",\"id\":1000000001,\"room_id\":\"t-0\",\"seq\":12}");
    emit(0, "{\"type\":\"ack\",\"id\":7,\"room_id\":\"t-0\",\"seq\":12}");
    emit(0, "not json");
    expect(0, 0, 0);
    CHECK(clients.checker.counts.foreign == 5);
}

static void events_of_every_kind_have_a_seq(void)
{
    begin();
    send_messages(2);
    serve(0, 1);
    for (uint32_t member = 0; member < MEMBERS; member++) {
        emit(member, "{\"type\":\"member\",\"room_id\":\"t-0\",\"seq\":12,\"user_id\":\"u\"}");
        emit(member, "{\"type\":\"presence\",\"room_id\":\"t-0\",\"online\":[\"u\"],\"count\":3}");
        emit(member, "{\"type\":\"edited\",\"room_id\":\"t-0\",\"seq\":13,\"target_seq\":11}");
    }
    emit(1, "{\"type\":\"deleted\",\"room_id\":\"t-0\",\"seq\":14,\"target_seq\":11}");
    emit(2, "{\"type\":\"deleted\",\"room_id\":\"t-0\",\"seq\":14,\"target_seq\":11}");
    ack(1, 15);
    push_all(1, 15);
    expect(1, 0, 0); /* member 0 has not got the deletion */
    CHECK(mismatches() == 0);
    emit(2, "{\"type\":\"deleted\",\"room_id\":\"t-0\",\"seq\":16,\"target_seq\":15}");
    expect(3, 0, 0); /* and only member 2 the last one */
}

/* More than a room remembers, for a member that lags by all of it: every event goes the long way.
 */
static void member_far_behind_is_checked_as_well(void)
{
    enum { MANY = 3000 };

    begin();
    CHECK(clients.checker.room_bytes / MANY < 8000);
    clients.checker.room_bytes = 1 << 16; /* as for a room among many */
    clients.checker.room_frames = 1 << 9;
    send_messages(MANY);
    for (int32_t message = 0; message < MANY; message++) {
        const uint64_t seq = (uint64_t)SEQ_FIRST + (uint64_t)message;
        ack(message, seq);
        push(0, message, seq, false);
        push(1, message, seq, false);
        if (message != 1234) {
            push(2, message, seq, false);
        }
    }
    expect(1, 0, 0);
    CHECK(clients.checker.counts.delivered == (uint64_t)MANY * MEMBERS - 1);
    CHECK(mismatches() == 0);
}

/* Frames of one size lie at the same places each time the room's bytes have gone round. A frame
 * from one round later than expected must not pass for the one whose bytes it has replaced. */
static void forgotten_bytes_prove_nothing(void)
{
    begin();
    clients.checker.room_bytes = 1 << 15;
    clients.checker.room_frames = 1 << 10;
    send_messages(200);
    serve(0, 199);
    const size_t before = stream_sizes[1];
    push_all(199, SEQ_FIRST + 199);
    const int32_t round = (int32_t)((1 << 15) / (stream_sizes[1] - before));
    ack(199, SEQ_FIRST + 199);
    take_all();
    const int32_t last = 200 + round + 20;
    send_messages(last - 200);
    for (int32_t message = 200; message < last; message++) {
        const uint64_t seq = (uint64_t)SEQ_FIRST + (uint64_t)message;
        ack(message, seq);
        push(0, message, seq, false);
        push(1, message, seq, false);
        if (message >= 200 + round) {
            push(2, message, seq, false);
        }
    }
    expect((uint64_t)round, 0, 0);
    CHECK(missing_of_all() == (uint64_t)round);
    CHECK(clients.checker.messages[200].due == 1);
    CHECK(clients.checker.messages[200 + round].due == 0);
}

static void split_input_changes_nothing(void)
{
    for (size_t at = 1; at < 1200; at++) {
        begin();
        send_messages(4);
        serve(0, 4);
        for (uint32_t member = 0; member < MEMBERS; member++) {
            take(member, at);
        }
        expect(0, 0, 0);
        CHECK(all_well());
        CHECK(clients.checker.counts.delivered == 4UL * MEMBERS);
    }
}

static void acks_alone_show_holes_and_repeats(void)
{
    uint64_t holes = 99, twice = 99;

    begin_as(true);
    send_messages(6);
    CHECK(clients.checker.counts.expected == 0);
    for (int32_t message = 0; message < 4; message++) {
        ack(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
    }
    take_all();
    CHECK(checker_ack_density(&clients.checker, &holes, &twice) == SEQ_FIRST + 3);
    CHECK(holes == 0);
    CHECK(twice == 0);
    CHECK(clients.checker.open == 2);
    ack(4, SEQ_FIRST + 3);
    ack(5, SEQ_FIRST + 5);
    take_all();
    CHECK(checker_ack_density(&clients.checker, &holes, &twice) == SEQ_FIRST + 5);
    CHECK(holes == 1);
    CHECK(twice == 1);
}

static uint64_t random_state = 88172645463325252ULL;

static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % bound;
}

/* Each member's list of (message, seq) is bent in one random way, or not at all. */
static void bend(uint32_t kind, struct checker_range *list, uint32_t *count)
{
    const uint32_t at = random_below(*count - 1);
    const struct checker_range entry = list[at];

    switch (kind) {
    case 1: /* drop */
        memmove(list + at, list + at + 1, (*count - at - 1) * sizeof(*list));
        (*count)--;
        break;
    case 2: /* duplicate */
        memmove(list + at + 1, list + at, (*count - at) * sizeof(*list));
        (*count)++;
        break;
    case 3: /* swap neighbours */
        list[at] = list[at + 1];
        list[at + 1] = entry;
        break;
    case 4: /* another message under this seq */
        list[at].first = list[at + 1].first;
        break;
    case 5: /* this message's seq is used before */
        list[at + 1].last = list[at].last;
        break;
    default:
        break;
    }
}

static void random_bends_are_noticed(void)
{
    for (int round = 0; round < 600; round++) {
        const uint32_t kind = random_below(6);
        const uint32_t victim = random_below(MEMBERS);
        struct checker_range list[MESSAGES + 1];

        begin();
        send_messages(MESSAGES);
        for (uint32_t member = 0; member < MEMBERS; member++) {
            uint32_t count = MESSAGES;
            for (uint32_t i = 0; i < MESSAGES; i++) {
                list[i] = (struct checker_range){.first = i, .last = SEQ_FIRST + i};
            }
            if (member == victim) {
                bend(kind, list, &count);
            }
            for (uint32_t i = 0; i < count; i++) {
                push(member, (int32_t)list[i].first, list[i].last, false);
            }
        }
        for (int32_t message = 0; message < MESSAGES; message++) {
            ack(message, (uint64_t)SEQ_FIRST + (uint64_t)message);
        }
        take_all();
        CHECK(all_well() == (kind == 0));
    }
}

/* The server's bytes are not to be trusted: whatever they are, the loader reports and goes on, or
 * ends the connection. */
static void damaged_bytes_do_no_harm(void)
{
    for (int round = 0; round < 2000; round++) {
        const uint32_t damages = 1 + random_below(4);

        begin();
        send_messages(6);
        serve(0, 3);
        emit(0, "{\"type\":\"gap\",\"room_id\":\"t-0\",\"from_seq\":14,\"to_seq\":15}");
        emit(0, "{\"type\":\"error\",\"id\":1000000000,\"code\":\"muted\"}");
        serve(3, 6);
        const size_t begin_at = stream_taken[0];
        for (uint32_t i = 0; i < damages; i++) {
            const size_t size = stream_sizes[0] - begin_at;
            streams[0][begin_at + random_below((uint32_t)size)] = (uint8_t)random_below(256);
        }
        const size_t size = stream_sizes[0] - begin_at;
        const int64_t used =
            client_input(&clients, &clients.all[0], streams[0] + begin_at, size, now_ns);
        CHECK(used == -EPROTO || (used >= 0 && (size_t)used <= size));
    }
}

int main(void)
{
    clean_run_is_clean();
    dropped_event_is_lost_for_that_member();
    dropped_last_event_is_lost_too();
    acked_but_never_pushed_is_lost_for_all();
    pushed_but_never_acked_is_an_error();
    repeated_frame_is_duplicated();
    swapped_neighbours_are_reordered();
    late_ends_of_a_hole_are_reordered_and_its_rest_is_lost();
    reused_seq_is_duplicated_and_its_message_lost();
    message_under_two_seqs_is_duplicated();
    members_that_see_different_events_do_not_share_an_order();
    messages_of_one_sender_out_of_order_are_reordered();
    other_senders_may_overtake();
    ack_must_name_the_seq_that_was_pushed();
    ack_must_name_the_durability_and_come_once();
    announced_gap_is_lost_and_named();
    refused_message_is_not_expected();
    spoiled_text_is_foreign_and_its_message_lost();
    what_belongs_elsewhere_is_foreign();
    events_of_every_kind_have_a_seq();
    member_far_behind_is_checked_as_well();
    forgotten_bytes_prove_nothing();
    split_input_changes_nothing();
    acks_alone_show_holes_and_repeats();
    random_bends_are_noticed();
    damaged_bytes_do_no_harm();
    clients_free(&clients);
    puts("26 passed, 0 failed");
    return 0;
}
