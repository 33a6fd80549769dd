/*
 * conn.h - a client's connection from accept to its last completion.
 *
 *   accept -> HTTP requests -> (upgrade) WebSocket messages -> closing -> closed -> free
 *
 * Walk:       from shard/loop.c (events); received requests and messages go to the shard's service
 *             (shard/session.c and shard/rest.c, or the echo of ws-echo); bytes leave through
 *             shard/egress.c.
 * Threads:    its shard's.
 * Ownership:  a conn is an item of shard->conns. Others hold a struct conn_ref and ask conn_find.
 * Units:      sizes in bytes, times in monotonic ms.
 *
 * Invariants: (C1) at most one send is in flight.
 *             (C2) a slot is closed only when neither recv nor send is in flight, and the conn is
 *                  freed only by the event of that close: a late completion never meets a
 *                  stranger.
 *             (C3) input and output of a conn are bounded: input by one buffer of pool large,
 *                  output by limits.outbox_bytes.
 */
#pragma once

#include "core/http.h"
#include "core/os.h"
#include "core/timer.h"
#include "core/ws.h"

#include <stdbool.h>
#include <stdint.h>

struct shard;
struct sub;
struct chunk;

enum close_reason {
#define CLOSE(name, code, whose, text) CLOSE_##name,
#include "shard/close_reason.def"
#undef CLOSE
    CLOSE_REASONS
};

/* Output and small input live in blocks: what a connection holds only while it is talking. */
enum { BLOCK_BYTES = 4096 };

struct block {
    struct block *next;
    uint32_t size;
    uint32_t sent; /* of size, handed to a send that has completed */
    char data[BLOCK_BYTES - 16];
};

/* Names a connection for somebody who may outlive it. */
struct conn_ref {
    uint32_t index;
    uint32_t generation;
};

enum conn_state { CONN_HTTP, CONN_WEBSOCKET, CONN_CLOSING, CONN_SHUT };

enum conn_input { INPUT_NONE, INPUT_BLOCK, INPUT_LARGE };

struct conn {
    uint32_t pool_link; /* the pool's while the item is free */
    uint32_t generation;
    struct shard *shard;
    struct os_socket socket;

    uint8_t state; /* enum conn_state */
    uint8_t close_reason;
    uint8_t doom;       /* enum close_reason: egress closes it for that; nothing more is written */
    uint8_t input_kind; /* enum conn_input */
    bool recv_armed;
    bool recv_starved; /* waits for receive buffers in shard->starved */
    bool send_in_flight;
    bool dirty;  /* stands in shard->dirty */
    bool paused; /* a call is under way: input waits */
    bool closing_after_output;
    bool continued;    /* 100 Continue was sent for the request under way */
    bool head_request; /* the HTTP request under way is a HEAD */
    bool keep_alive;
    bool pinged;
    bool connected; /* the session knows the user */
    bool shutdown_sent;
    bool shutdown_in_flight;
    bool close_in_flight;
    bool in_input; /* conn_input is on the stack: its bytes must stay */

    uint8_t *input; /* bytes that no whole request or message could be made of yet */
    uint32_t input_size;
    struct ws_reader reader;
    uint8_t *message; /* unmasked fragments of a message in pieces: a large buffer */
    uint32_t message_size;

    struct block *out_first, *out_last;
    uint32_t out_bytes;          /* in all blocks, not yet sent */
    struct chunk *sending_chunk; /* held by the send in flight, if it is from a room's log */
    uint32_t sending_bytes;
    uint64_t sending_since_ms;

    struct conn *dirty_next;
    struct conn *starved_next;
    struct sub *subs;         /* rooms joined */
    struct sub *pending_subs; /* those of them that have something to send */
    uint32_t sub_count;
    uint32_t calls;       /* in flight: at most a share of limits.requests (shard/call.c) */
    struct call *waiting; /* calls that go on when output has drained (session.c) */
    uint32_t user;        /* index in shard->users, POOL_NONE before connect */
    uint64_t heard_ms;
    uint64_t typing_ms;
    uint64_t session_id;
    struct timer timer;
};

/* What a shard does with requests and messages. */
struct service {
    /* False: not now, the connection is paused; the same request comes again when it is resumed. */
    bool (*request)(struct conn *conn, const struct http_request *request, struct slice body);
    void (*message)(struct conn *conn, enum ws_opcode opcode, const char *text, uint32_t size);
    void (*closed)(struct conn *conn); /* no more output is possible; forget it */
    void (*drained)(
        struct conn *conn);          /* its output is sent, but for events of rooms; may be NULL */
    void (*idle)(struct conn *conn); /* the WebSocket session's connect timeout has passed */
};

void conn_init(struct shard *shard);

/* A slot was accepted (or accepting failed: result < 0). */
void conn_accept_done(struct shard *shard, const struct os_event *event);
void conn_recv_done(struct shard *shard, const struct os_event *event);
void conn_send_done(struct shard *shard, const struct os_event *event);
void conn_shutdown_done(struct shard *shard, const struct os_event *event);
void conn_close_done(struct shard *shard, const struct os_event *event);

/* Arms again those whose recv ended for want of receive buffers. Once a turn, after buffers went
 * back. */
void conn_feed_starved(struct shard *shard);

static inline struct conn_ref conn_ref_of(struct conn *conn, uint32_t index)
{
    return (struct conn_ref){index, conn->generation};
}

/* The connection, or NULL if it is gone or going. */
struct conn *conn_find(struct shard *shard, struct conn_ref ref);

/* Appends to the output; egress sends it. Too much output, or no block left, dooms the connection:
 * egress closes it this turn, so that nothing vanishes under the caller's hands. */
void conn_write(struct conn *conn, const void *data, uint32_t size);

/* One whole WebSocket frame. */
void conn_write_frame(struct conn *conn, enum ws_opcode opcode, struct slice payload);

/* Input waits (conn_pause) until the answer of a call is there (conn_resume). */
void conn_pause(struct conn *conn);
void conn_resume(struct conn *conn);

/* The request that was not taken (struct service) is to be looked at again. */
void conn_retry(struct conn *conn);

/* Ends the connection: a WebSocket gets a close frame with the reason's code, what was written
 * before goes out first. */
void conn_close(struct conn *conn, enum close_reason reason);

/* Ends it at once: what is in flight is cancelled, what was not sent is dropped. */
void conn_shut(struct conn *conn);

/* The last byte of output is sent and conn->closing_after_output is set (shard/egress.c). */
void conn_output_ended(struct conn *conn);

/* Drops all output (shard/egress.c). */
void conn_output_forget(struct conn *conn);

/* The connection speaks WebSocket from now on (the 101 is written), unless writing that ended it.
 */
void conn_upgraded(struct conn *conn);

/* Has something to send: egress looks at it this turn. */
void conn_mark_dirty(struct conn *conn);

uint64_t conn_tag(const struct conn *conn, uint8_t kind);

const char *close_reason_name(enum close_reason reason);
uint16_t close_reason_code(enum close_reason reason);
