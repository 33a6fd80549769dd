/* egress.c - see egress.h. */
#include "shard/egress.h"

#include "core/check.h"
#include "shard/shard.h"

#include <stdio.h>

enum {
    SENDS_A_TURN_MAX = 128, /* about half a millisecond: the journal's completions wait no longer */
    GATHER_MAX = 2048,      /* bytes: a piece above this goes straight from the log */
    BUSY_PERCENT = 50,
    QUIET_PERCENT = 30,
    JUDGE_NS = 20 * 1000000, /* how often busy is looked at */
    ROUND_MEMBER_US = 600,   /* a round of a busy room waits at most so long a member */
};

/* --- a connection's own output --- */

void conn_mark_dirty(struct conn *conn)
{
    struct shard *shard = conn->shard;
    if (conn->dirty || conn->state == CONN_SHUT) {
        return;
    }
    conn->dirty = true;
    conn->dirty_next = NULL;
    if (shard->dirty_last == NULL) {
        shard->dirty_first = conn;
    } else {
        shard->dirty_last->dirty_next = conn;
    }
    shard->dirty_last = conn;
}

static struct block *add_block(struct conn *conn)
{
    struct block *block = pool_take(&conn->shard->blocks);
    if (block == NULL) {
        shard_exhausted(&conn->shard->metrics->pool_exhausted_total_buffers);
        return NULL;
    }
    block->next = NULL;
    block->size = 0;
    block->sent = 0;
    if (conn->out_last == NULL) {
        conn->out_first = block;
    } else {
        conn->out_last->next = block;
    }
    conn->out_last = block;
    return block;
}

static void give_first_block(struct conn *conn)
{
    struct block *block = conn->out_first;
    conn->out_first = block->next;
    if (conn->out_first == NULL) {
        conn->out_last = NULL;
    }
    pool_give(&conn->shard->blocks, block);
}

static void doom(struct conn *conn, enum close_reason reason)
{
    conn->doom = (uint8_t)reason;
    conn_mark_dirty(conn);
}

/* Whether size bytes may be added to the output. */
static bool may_write(struct conn *conn, uint32_t size)
{
    if (conn->state == CONN_SHUT || conn->doom != CLOSE_NONE) {
        return false;
    }
    if (conn->state < CONN_CLOSING &&
        conn->out_bytes + size > conn->shard->config->limits_outbox_bytes + BLOCK_BYTES) {
        doom(conn, CLOSE_TOO_SLOW);
        return false;
    }
    return true;
}

static void append(struct conn *conn, const char *at, uint32_t size)
{
    for (uint32_t left = size; left > 0;) {
        struct block *block = conn->out_last;
        if (block == NULL || block->size == sizeof(block->data)) {
            block = add_block(conn);
        }
        if (block == NULL) {
            doom(conn, CLOSE_BUSY);
            return;
        }
        const uint32_t room = (uint32_t)sizeof(block->data) - block->size;
        const uint32_t part = left < room ? left : room;
        memcpy(block->data + block->size, at, part);
        block->size += part;
        conn->out_bytes += part;
        at += part;
        left -= part;
    }
    conn_mark_dirty(conn);
}

void conn_write(struct conn *conn, const void *data, uint32_t size)
{
    if (may_write(conn, size)) {
        append(conn, data, size);
    }
}

void conn_write_frame(struct conn *conn, enum ws_opcode opcode, struct slice payload)
{
    uint8_t header[WS_HEADER_SIZE_MAX];
    const uint32_t size = ws_encode_header(header, opcode, payload.size);
    if (may_write(conn, size + payload.size)) {
        append(conn, (const char *)header, size);
        append(conn, payload.data, payload.size);
    }
}

void conn_output_forget(struct conn *conn)
{
    while (conn->out_first != NULL) {
        give_first_block(conn);
    }
    conn->out_bytes = 0;
}

/* --- events of rooms --- */

void egress_offer(struct sub *sub)
{
    struct conn *conn = sub->conn;
    if (sub->pending) {
        return;
    }
    sub->pending = true;
    sub->pending_next = conn->pending_subs;
    conn->pending_subs = sub;
    conn_mark_dirty(conn);
}

static void pop_pending(struct conn *conn)
{
    conn->pending_subs->pending = false;
    conn->pending_subs = conn->pending_subs->pending_next;
}

void egress_write_gap(struct sub *sub, uint64_t from_seq, uint64_t to_seq)
{
    struct conn *conn = sub->conn;
    char text[192];

    const int size = snprintf(text, sizeof(text),
                              "{\"type\":\"gap\",\"room_id\":\"%.*s\",\"from_seq\":%llu,"
                              "\"to_seq\":%llu}",
                              sub->room->id_size, sub->room->id, (unsigned long long)from_seq,
                              (unsigned long long)to_seq);
    CHECK(size > 0 && (size_t)size < sizeof(text));
    metrics_add(&conn->shard->metrics->gaps_total, 1);
    conn_write_frame(conn, WS_TEXT, (struct slice){text, (uint32_t)size});
}

/* The next piece that some joined room has for the connection. Empty: none, or it is above
 * bytes_max, or a gap had to be written first and stands in the output now. */
static struct slice next_piece(struct conn *conn, uint32_t bytes_max, struct chunk **ret_chunk)
{
    while (conn->pending_subs != NULL) {
        struct sub *sub = conn->pending_subs;
        if (room_log_lost(&sub->room->log, &sub->cursor)) {
            const uint64_t from_seq = sub->cursor.seq;
            sub->cursor = (struct log_cursor){.seq = sub->room->log.first_seq};
            egress_write_gap(sub, from_seq, sub->cursor.seq - 1); /* may end all: sub is no more */
            break;
        }
        struct log_cursor cursor = sub->cursor;
        const struct slice piece = room_log_piece(&sub->room->log, &cursor, ret_chunk);
        if (piece.size > bytes_max) {
            break;
        }
        if (piece.size == 0) {
            pop_pending(conn);
            continue;
        }
        metrics_add(&conn->shard->metrics->messages_sent_total, cursor.seq - sub->cursor.seq);
        sub->cursor = cursor;
        if (!room_log_has_more(&sub->room->log, &cursor)) {
            pop_pending(conn);
        }
        return piece;
    }
    return (struct slice){NULL, 0};
}

/* Small pieces behind the connection's own output, so that one send takes both. */
static void gather(struct conn *conn)
{
    struct block *block = conn->out_last;
    struct chunk *chunk;
    while (conn->pending_subs != NULL) {
        const uint32_t room = (uint32_t)sizeof(block->data) - block->size;
        const struct slice piece = next_piece(conn, room < GATHER_MAX ? room : GATHER_MAX, &chunk);
        if (piece.size == 0) {
            return;
        }
        memcpy(block->data + block->size, piece.data, piece.size);
        block->size += piece.size;
        conn->out_bytes += piece.size;
    }
}

/* --- sends --- */

static void start_send(struct conn *conn, const void *data, uint32_t size)
{
    struct shard *shard = conn->shard;
    conn->send_in_flight = true; /* C1 */
    conn->sending_bytes = size;
    conn->sending_since_ms = shard->now_ms;
    metrics_add(&shard->metrics->sends_total, 1);
    os_send(shard->ring, conn->socket, data, size, conn_tag(conn, TAG_SEND));
}

/* One room, or a piece too large to copy: straight from its log. True if a send was started. */
static bool send_from_log(struct conn *conn)
{
    struct chunk *chunk = NULL;
    const struct slice piece = next_piece(conn, UINT32_MAX, &chunk);
    if (piece.size == 0) {
        return false;
    }
    chunk_hold(chunk);
    conn->sending_chunk = chunk;
    start_send(conn, piece.data, piece.size);
    return true;
}

/* Several rooms with a little each go out together, in a block. */
static bool gather_alone(struct conn *conn)
{
    if (conn->pending_subs->pending_next == NULL) {
        return false;
    }
    if (add_block(conn) == NULL) {
        return false; /* then room by room, straight from their logs */
    }
    gather(conn);
    if (conn->out_first->size == 0) {
        give_first_block(conn);
        return false;
    }
    return true;
}

/* True if a send was started. */
static bool send_next(struct conn *conn)
{
    if (conn->out_first == NULL && conn->pending_subs != NULL && !gather_alone(conn) &&
        send_from_log(conn)) {
        return true;
    }
    if (conn->out_first == NULL) { /* else: gathered, or a gap was written */
        return false;
    }
    gather(conn);
    if (conn->state == CONN_SHUT) {
        return false;
    }
    const struct block *block = conn->out_first;
    start_send(conn, block->data + block->sent, block->size - block->sent);
    return true;
}

/* What was found while writing: the reader is too slow, or there was no block. */
static void close_doomed(struct conn *conn)
{
    const enum close_reason reason = (enum close_reason)conn->doom;
    conn->doom = CLOSE_NONE; /* a last frame may be written */
    conn_close(conn, reason);
    if (reason == CLOSE_BUSY) {
        conn_shut(conn); /* the output may end within a frame: no word can follow it */
    }
}

static bool look_at(struct conn *conn)
{
    if (conn->doom != CLOSE_NONE && conn->state < CONN_SHUT) {
        close_doomed(conn);
    }
    if (conn->state == CONN_SHUT) {
        conn_shut(conn);
        return false;
    }
    if (conn->send_in_flight || send_next(conn)) {
        return true;
    }
    if (conn->closing_after_output && conn->state != CONN_SHUT) {
        conn_output_ended(conn);
    }
    return false;
}

static void account_block(struct conn *conn, uint32_t sent)
{
    struct block *block = conn->out_first;
    CHECK(block != NULL && block->sent + sent <= block->size);
    block->sent += sent;
    conn->out_bytes -= sent;
    if (block->sent == block->size) {
        give_first_block(conn);
    }
}

void conn_send_done(struct shard *shard, const struct os_event *event)
{
    struct conn *conn = pool_at(&shard->conns, os_tag_index(event->tag));
    CHECK((conn->generation & 0xffffff) == os_tag_generation(event->tag)); /* C2 */
    const uint32_t sent = event->result > 0 ? (uint32_t)event->result : 0;

    conn->send_in_flight = false;
    metrics_add(&shard->metrics->bytes_sent_total, sent);
    if (conn->sending_chunk != NULL) {
        chunk_release(shard, conn->sending_chunk);
        conn->sending_chunk = NULL;
    } else {
        account_block(conn, sent);
    }
    if (conn->state == CONN_SHUT || sent < conn->sending_bytes) {
        conn_shut(conn); /* a send that was cut short is the end of the stream */
        return;
    }
    if (conn->out_first == NULL && conn->waiting != NULL && conn->state == CONN_WEBSOCKET) {
        shard->service->drained(conn);
    }
    if (conn->out_first != NULL || conn->pending_subs != NULL || conn->closing_after_output) {
        conn_mark_dirty(conn);
    }
}

/* --- rounds --- */

static uint64_t round_due_ms(const struct shard *shard, const struct room *room)
{
    const uint64_t fair_ms = (uint64_t)room->sub_count * ROUND_MEMBER_US / 1000;
    return room->round_ms + (fair_ms < shard->round_ms ? fair_ms : shard->round_ms);
}

static void begin_round(struct shard *shard, struct room *room)
{
    room->round_ms = shard->now_ms;
    for (struct sub *sub = room->subs; sub != NULL; sub = sub->room_next) {
        if (sub->active) {
            egress_offer(sub);
        }
    }
}

static void begin_due_rounds(struct shard *shard)
{
    struct room **link = &shard->fanout_first;
    while (*link != NULL) {
        struct room *room = *link;
        if (round_due_ms(shard, room) > shard->now_ms) {
            link = &room->fanout_next;
            continue;
        }
        *link = room->fanout_next;
        room->in_fanout = false;
        begin_round(shard, room);
    }
}

uint64_t egress_next_ms(const struct shard *shard)
{
    uint64_t next = UINT64_MAX;
    for (const struct room *room = shard->fanout_first; room != NULL; room = room->fanout_next) {
        const uint64_t due = round_due_ms(shard, room);
        const uint64_t left = due > shard->now_ms ? due - shard->now_ms : 0;
        next = left < next ? left : next;
    }
    return next;
}

void room_fan_out_later(struct shard *shard, struct room *room)
{
    if (!room->in_fanout) {
        room->in_fanout = true;
        room->fanout_next = shard->fanout_first;
        shard->fanout_first = room;
    }
}

void egress_judge(struct shard *shard)
{
    const uint64_t maximum = shard->config->egress_round_max;
    const uint64_t passed_ns = shard->now_ns - shard->round_judged_ns;

    if (passed_ns < JUDGE_NS) {
        return;
    }
    /* The thread's processor time: most of the work is the kernel's, inside os_turn. */
    const uint64_t cpu_ns = os_thread_cpu_ns();
    const uint64_t percent = (cpu_ns - shard->round_cpu_ns) * 100 / passed_ns;
    if (percent > BUSY_PERCENT && shard->round_ms < maximum) {
        shard->round_ms += 1 + shard->round_ms / 2;
    } else if (percent < QUIET_PERCENT && shard->round_ms > 0) {
        shard->round_ms -= 1 + shard->round_ms / 4;
    }
    shard->round_ms = shard->round_ms < maximum ? shard->round_ms : maximum;
    metrics_add(&shard->metrics->busy_seconds_total, cpu_ns - shard->round_cpu_ns);
    shard->round_judged_ns = shard->now_ns;
    shard->round_cpu_ns = cpu_ns;
}

/* --- the turn's part --- */

bool egress_run(struct shard *shard)
{
    uint32_t sends = 0;

    begin_due_rounds(shard);
    while (shard->dirty_first != NULL && sends < SENDS_A_TURN_MAX) {
        struct conn *conn = shard->dirty_first;
        shard->dirty_first = conn->dirty_next;
        if (shard->dirty_first == NULL) {
            shard->dirty_last = NULL;
        }
        conn->dirty = false;
        sends += look_at(conn) ? 1 : 0;
    }
    return shard->dirty_first != NULL;
}
