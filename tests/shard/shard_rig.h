/*
 * shard_rig.h - one whole shard without thread, kernel or store: its real turn on the simulated
 *               disk and clock, with the store, the network and sign-in played by the test.
 *
 * Walk:       rig_begin, then requests without a connection (rig_ask and its kin) or clients over
 *             the fake network (rig_join_in, rig_say, rig_hear), and rig_turn or rig_settle
 * between. Threads:    one; the rig is the program's.
 *
 * loop.c is taken in as source, so that its loop_turn, which is nobody else's business, is the turn
 * that is tested.
 */
#pragma once

#include "core/log.h"
#include "core/ws.h"
#include "shard/event.h"
#include "shard/loop.c"
#include "shard/rest.h"
#include "shard/room_home.h"
#include "shard/session.h"
#include "tests/shard/fake_network.h"
#include "tests/shard/fake_store.h"
#include "tests/shard/plan_end.h"
#include "tests/sim/os_disk.h"

enum {
    RIG_TICKETS_MAX = 32768,
    RIG_DISK_BYTES = 1 << 26,
    RIG_TURNS_MAX = 20000, /* what has not come by then never will */
    RIG_HEARD_MAX = 1 << 17,
};

/* What became of one request. */
struct rig_ticket {
    uint32_t answers; /* R4: never more than 1 */
    uint32_t order;   /* of all answers, from 1 */
    struct room_answer got;
    uint64_t first_seq, last_seq; /* of a page */
};

static struct {
    struct shard shard;
    struct shard *front; /* whose clients the network has: this one, or an asker beside it */
    struct config config;
    struct server server;
    struct auth auth;
    struct web_files web;
    struct fake_store store;
    struct os_event events[EVENTS_MAX];
    int count;
    struct rig_ticket tickets[RIG_TICKETS_MAX];
    uint32_t ticket_count;
    uint32_t answered;
    char heard[RIG_HEARD_MAX];
} rig;

static const struct service rig_service = {.request = rest_request,
                                           .message = session_message,
                                           .closed = session_closed,
                                           .drained = session_drained,
                                           .idle = session_idle};

static inline struct slice rig_slice(const char *text)
{
    return (struct slice){text, (uint32_t)strlen(text)};
}

/* --- sign-in: a token is the user's id, "expired" has run out, "" is none --- */

int auth_open(struct auth *auth, const struct config *config, char *ret_why, size_t why_size)
{
    (void)auth, (void)config, (void)ret_why, (void)why_size;
    return 0;
}

enum auth_result auth_check(const struct auth *auth, struct slice token, uint64_t now_s,
                            struct auth_claims *ret_claims)
{
    (void)auth, (void)now_s;
    if (token.size == 0 || token.size > CLAIM_SUB_MAX || slice_equal(token, SLICE("expired"))) {
        return token.size == 0 ? AUTH_INVALID : AUTH_EXPIRED;
    }
    *ret_claims =
        (struct auth_claims){.sub_size = (uint8_t)token.size, .name_size = (uint8_t)token.size};
    memcpy(ret_claims->sub, token.data, token.size);
    memcpy(ret_claims->name, token.data, token.size);
    return AUTH_OK;
}

int auth_sign(const struct auth *auth, struct slice user_id, struct slice username, uint64_t now_s,
              char *token, uint32_t capacity)
{
    (void)auth, (void)username, (void)now_s;
    CHECK(user_id.size <= capacity);
    memcpy(token, user_id.data, user_id.size);
    return (int)user_id.size;
}

/* --- begin and end --- */

static inline bool rig_silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

/* Small pools; a test changes rig.config further before rig_begin. */
static inline void rig_config(void)
{
    memset(&rig.config, 0, sizeof(rig.config));
    config_defaults(&rig.config);
    rig.config.limits_connections = 256;
    rig.config.limits_rooms = 64;
    rig.config.limits_subscriptions = 1024;
    rig.config.limits_requests = 256;
    rig.config.limits_members = 4096;
    rig.config.limits_keys = 8192;
    rig.config.limits_large_buffers = 8;
    rig.config.rooms_chunk_bytes = 1 << 22;
    rig.config.rooms_log_bytes = 1 << 18;
    rig.config.journal_segment_bytes = 1 << 20;
    rig.config.journal_bytes_max = 8 << 20;
    rig.config.journal_buffer_bytes = 1 << 19;
    rig.config.egress_round_max = 0;
}

static inline void rig_open_journal(struct shard *shard)
{
    char why[256] = "";
    const struct journal_options options = {
        .ring = shard->ring,
        .directory = "/journal",
        .shard = shard->index,
        .segment_bytes = (uint32_t)rig.config.journal_segment_bytes,
        .bytes_max = rig.config.journal_bytes_max,
        .buffer_bytes = (uint32_t)rig.config.journal_buffer_bytes,
        .first_segment = 1,
        .tag_kind = TAG_JOURNAL,
        .metrics = shard->metrics,
    };
    CHECK(os_directory_make("/journal") == 0);
    CHECK(journal_open(&options, &shard->plan, &shard->journal, why, sizeof(why)) == 0);
}

/* A shard with a ring, without journal and store: what every rig begins with. */
static inline void rig_shard_begin(struct shard *shard, uint32_t index, uint32_t count)
{
    char why[256] = "";
    shard_plan(shard, &rig.config, index, count, MEM_MAP);
    CHECK(shard_open(shard, why, sizeof(why)) == 0);
    CHECK(os_ring_enable(shard->ring) == 0);
    shard->server = &rig.server;
    shard->service = &rig_service;
    shard->auth = &rig.auth;
    shard->web = &rig.web;
}

static inline void rig_read_clock(struct shard *shard)
{
    read_clock(shard);
    timer_wheel_init(shard->wheel, shard->now_ms);
}

/* count: shards that there are to be; this one is home of what room_home says. */
static inline void rig_begin_of(uint32_t count)
{
    log_writer(rig_silence);
    disk_reset(1, RIG_DISK_BYTES);
    network_begin();
    memset(&rig.tickets, 0, sizeof(rig.tickets));
    memset(&rig.server, 0, sizeof(rig.server));
    rig.ticket_count = rig.answered = 0;
    rig.count = 0;
    rig_shard_begin(&rig.shard, 0, count);
    rig.front = &rig.shard;
    rig_open_journal(&rig.shard);
    CHECK(mem_seal(&rig.shard.plan) == 0);
    store_begin(&rig.store, &rig.shard.bell);
    rig.shard.lane = &rig.store.lane;
    rig_read_clock(&rig.shard);
}

static inline void rig_begin(void)
{
    rig_begin_of(1);
}

static inline void rig_end(void)
{
    store_end(&rig.store);
    journal_close(rig.shard.journal);
    os_ring_destroy(rig.shard.ring);
    plan_end(&rig.shard.plan);
}

/* --- turns --- */

static inline uint32_t rig_take_network(struct os_event *events, uint32_t count)
{
    uint32_t taken = 0;
    while (taken < network.event_count && count < EVENTS_MAX) {
        events[count++] = network.events[taken++];
    }
    network.event_count -= taken;
    memmove(network.events, network.events + taken, network.event_count * sizeof(struct os_event));
    return count;
}

/* The turn of a shard that has neither journal nor store: the steps of loop_turn that are left.
 * The simulated ring's own turn is the other shard's. */
static inline void rig_front_turn(struct shard *shard)
{
    struct os_event events[EVENTS_MAX];
    read_clock(shard);
    (void)mesh_take(shard);
    reap(shard, events, rig_take_network(events, 0));
    conn_feed_starved(shard);
    mesh_publish(shard);
    (void)egress_run(shard);
    (void)timer_advance(shard->wheel, shard->now_ms, TIMERS_A_TURN_MAX);
}

static inline void rig_turn(void)
{
    store_turn(&rig.store);
    rig.count = loop_turn(&rig.shard, rig.events, rig.count);
    CHECK(rig.count >= 0);
    if (rig.front == &rig.shard) {
        rig.count = (int)rig_take_network(rig.events, (uint32_t)rig.count);
    } else {
        rig_front_turn(rig.front);
    }
}

static inline void rig_turns(uint32_t turns)
{
    for (uint32_t i = 0; i < turns; i++) {
        rig_turn();
    }
}

/* Until nothing is on its way; the store must not be paused. */
static inline void rig_settle(void)
{
    uint32_t quiet = 0;
    for (uint32_t i = 0; i < RIG_TURNS_MAX && quiet < 6; i++) {
        rig_turn();
        const bool still = rig.count == 0 && network.event_count == 0 &&
                           rig.shard.pending.first == rig.shard.pending.end &&
                           rig.front->dirty_first == NULL && rig.shard.dirty_first == NULL &&
                           rig.shard.replicate_first == NULL &&
                           journal_is_idle(rig.shard.journal) && !mesh_has_input(&rig.shard) &&
                           !mesh_has_input(rig.front) && spsc_used(&rig.store.lane.requests) == 0 &&
                           spsc_used(&rig.store.lane.replies) == 0;
        quiet = still ? quiet + 1 : 0;
    }
    CHECK(quiet >= 6);
}

/* Time passes, timers fire. */
static inline void rig_wait_ms(uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += 1000) {
        disk_clock_advance((ms - passed < 1000 ? ms - passed : 1000) * 1000000);
        rig_turn();
    }
    rig_settle();
}

/* --- requests without a connection --- */

static inline void rig_answered(struct shard *shard, struct conn *conn, struct call *call,
                                const struct call_answer *answer)
{
    struct rig_ticket *ticket = &rig.tickets[call->limit];
    (void)conn;
    CHECK(++ticket->answers == 1); /* R4 */
    ticket->got = *answer->room;
    ticket->order = ++rig.answered;
    const char *at = answer->room->payload.data;
    for (uint32_t i = 0; ticket->got.op == ROOM_HISTORY && i < ticket->got.count; i++) {
        struct persist_entry entry;
        memcpy(&entry, at, sizeof(entry));
        ticket->first_seq = i == 0 ? entry.seq : ticket->first_seq;
        ticket->last_seq = entry.seq;
        at += (sizeof(entry) + entry.body_bytes + 7) & ~7UL;
    }
    ticket->got.payload = (struct slice){NULL, 0};
    call_give(shard, call);
}

/* A request of a shard's own: its ticket, or UINT32_MAX if no call is left. */
static inline uint32_t rig_ask_of(struct shard *shard, struct room_request request)
{
    struct call *call = call_take(shard, NULL, rig_answered);
    if (call == NULL) {
        return UINT32_MAX;
    }
    CHECK(rig.ticket_count < RIG_TICKETS_MAX);
    call->limit = rig.ticket_count++;
    const uint32_t ticket = call->limit;
    request.token = call_token(shard, call);
    if (request.username.size == 0) {
        request.username = request.user_id;
    }
    room_ask(shard, &request);
    return ticket;
}

static inline uint32_t rig_ask(struct room_request request)
{
    return rig_ask_of(&rig.shard, request);
}

static inline uint32_t rig_join(const char *room, const char *user)
{
    return rig_ask((struct room_request){
        .op = ROOM_JOIN, .room_id = rig_slice(room), .user_id = rig_slice(user)});
}

static inline uint32_t rig_leave(const char *room, const char *user)
{
    return rig_ask((struct room_request){
        .op = ROOM_LEAVE, .room_id = rig_slice(room), .user_id = rig_slice(user)});
}

static inline struct room_request rig_message(const char *room, const char *user, const char *text)
{
    return (struct room_request){.op = ROOM_SEND,
                                 .room_id = rig_slice(room),
                                 .user_id = rig_slice(user),
                                 .username = rig_slice(user),
                                 .text = rig_slice(text)};
}

static inline uint32_t rig_send(const char *room, const char *user, const char *text)
{
    return rig_ask(rig_message(room, user, text));
}

static inline uint32_t rig_send_keyed(const char *room, const char *user, const char *text,
                                      const char *key)
{
    struct room_request request = rig_message(room, user, text);
    session_digest(&request, rig_slice(key));
    return rig_ask(request);
}

static inline uint32_t rig_history(const char *room, const char *user, uint64_t from, uint64_t to,
                                   bool descending)
{
    return rig_ask((struct room_request){.op = ROOM_HISTORY,
                                         .room_id = rig_slice(room),
                                         .user_id = rig_slice(user),
                                         .from_seq = from,
                                         .to_seq = to,
                                         .limit = 1000,
                                         .bytes_max = 1 << 18,
                                         .descending = descending});
}

static inline const struct room_answer *rig_got(uint32_t ticket)
{
    CHECK(ticket < rig.ticket_count);
    CHECK(rig.tickets[ticket].answers == 1);
    return &rig.tickets[ticket].got;
}

static inline bool rig_has_answer(uint32_t ticket)
{
    return rig.tickets[ticket].answers > 0;
}

/* A message of size bytes of text, as raw JSON; good until the next call. */
static inline const char *rig_text(uint32_t size)
{
    static char text[1 << 18];
    CHECK(size + 3 < sizeof(text));
    memset(text, 'x', size + 2);
    text[0] = text[size + 1] = '"';
    text[size + 2] = '\0';
    return text;
}

/* A room in the store, loaded here, with the owner's event as seq 1. */
static inline struct room *rig_room(const char *id, const char *owner)
{
    if (store_find(&rig.store, rig_slice(id)) == NULL) {
        (void)store_make(&rig.store, id, owner);
    }
    const uint32_t ticket = rig_join(id, owner);
    rig_settle();
    CHECK(rig_got(ticket)->error == ERROR_NONE);
    return room_find(&rig.shard, rig_slice(id));
}

/* --- clients --- */

/* An accepted connection: its slot. The conn is the item taken last. */
static inline struct conn *rig_accept(void)
{
    struct shard *shard = rig.front;
    const struct os_event event = {
        .tag = os_tag(TAG_ACCEPT, 0, 0), .result = (int32_t)network_open(), .flags = OS_MORE};
    conn_accept_done(shard, &event);
    for (uint32_t i = 0; i < shard->conns.high_water; i++) {
        struct conn *conn = pool_at(&shard->conns, i);
        if (pool_taken(&shard->conns, i) && conn->state != CONN_SHUT &&
            conn->socket.slot == (uint32_t)event.result) {
            return conn;
        }
    }
    return NULL;
}

static inline struct fake_socket *rig_socket(uint32_t slot)
{
    return &network.sockets[slot];
}

static inline void rig_type(uint32_t slot, const char *bytes)
{
    CHECK(network_send(slot, bytes, (uint32_t)strlen(bytes)));
}

/* One frame with an all-zero mask, which leaves the text as it is (RFC 6455 section 5.3). */
static inline uint32_t rig_frame(uint8_t *frame, uint8_t first, const void *payload, uint32_t size)
{
    uint32_t at = 2;
    frame[0] = first;
    if (size < 126) {
        frame[1] = (uint8_t)(0x80 | size);
    } else if (size < 65536) {
        frame[1] = 0x80 | 126;
        frame[at++] = (uint8_t)(size >> 8);
        frame[at++] = (uint8_t)size;
    } else {
        frame[1] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8) {
            frame[at++] = (uint8_t)((uint64_t)size >> shift);
        }
    }
    memset(frame + at, 0, 4);
    memcpy(frame + at + 4, payload, size);
    return at + 4 + size;
}

static inline void rig_say(uint32_t slot, const char *text)
{
    static uint8_t frame[RIG_HEARD_MAX + 16];
    const uint32_t size = (uint32_t)strlen(text);
    CHECK(size <= RIG_HEARD_MAX);
    CHECK(network_send(slot, frame, rig_frame(frame, 0x81, text, size)));
}

/* The next frame that has arrived at the peer, "" if there is none; *ret_opcode may be NULL. */
static inline const char *rig_hear_frame(uint32_t slot, uint8_t *ret_opcode)
{
    struct fake_socket *socket = &network.sockets[slot];
    struct ws_frame frame;
    rig.heard[0] = '\0';
    const uint32_t left = socket->out_size - socket->out_taken;
    const int head = ws_decode_server(socket->out + socket->out_taken, left, &frame);
    CHECK(head >= 0);
    if (head == 0 || left - (uint32_t)head < frame.payload_size) {
        return rig.heard;
    }
    CHECK(frame.payload_size < RIG_HEARD_MAX);
    memcpy(rig.heard, socket->out + socket->out_taken + head, frame.payload_size);
    rig.heard[frame.payload_size] = '\0';
    socket->out_taken += (uint32_t)head + (uint32_t)frame.payload_size;
    if (ret_opcode != NULL) {
        *ret_opcode = frame.opcode;
    }
    return rig.heard;
}

static inline const char *rig_hear(uint32_t slot)
{
    return rig_hear_frame(slot, NULL);
}

static inline void rig_forget_heard(uint32_t slot)
{
    network.sockets[slot].out_taken = network.sockets[slot].out_size;
}

/* The number behind "name": in a text, or UINT64_MAX. */
static inline uint64_t rig_number(const char *text, const char *name)
{
    char key[32];
    (void)snprintf(key, sizeof(key), "\"%s\":", name);
    const char *at = strstr(text, key);
    return at != NULL ? strtoull(at + strlen(key), NULL, 10) : UINT64_MAX;
}

#define RIG_UPGRADE                                                                                \
    "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"              \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

/* A client that has upgraded and signed in as user; what it was told so far is passed over. */
static inline struct conn *rig_join_in(const char *user)
{
    char head[512];
    struct conn *conn = rig_accept();
    CHECK(conn != NULL);
    if (rig.front->lane == NULL) { /* nobody to ask who it is */
        struct user *known = user_take(rig.front, rig_slice(user), rig_slice(user));
        known->known = true;
        user_give(rig.front, known);
    }
    (void)snprintf(head, sizeof(head), RIG_UPGRADE "Authorization: Bearer %s\r\n\r\n", user);
    rig_type(conn->socket.slot, head);
    rig_settle();
    CHECK(conn->state == CONN_WEBSOCKET && conn->connected);
    rig_forget_heard(conn->socket.slot);
    return conn;
}
