/* conn.c - see conn.h for the states and C1 to C3. Input is in shard/conn_input.c, output in
 * shard/egress.c. */
#include "shard/conn.h"

#include "core/check.h"
#include "core/log.h"
#include "shard/conn_input.h"
#include "shard/shard.h"

#include <errno.h>

enum { LINGER_MS = 2000 };

static void conn_timeout(struct timer *timer);

static const struct {
    const char *name;
    uint16_t code;
    const char *text;
} reasons[] = {
#define CLOSE(name, code, whose, text) {#name, code, text},
#include "shard/close_reason.def"
#undef CLOSE
};

const char *close_reason_name(enum close_reason reason)
{
    return reasons[reason].name;
}

uint16_t close_reason_code(enum close_reason reason)
{
    return reasons[reason].code;
}

void conn_init(struct shard *shard)
{
    const struct config *config = shard->config;
    const uint32_t connections = shard->connections_max;

    pool_init(&shard->conns, &shard->plan, "connections", sizeof(struct conn), connections);
    pool_init(&shard->blocks, &shard->plan, "buffers", sizeof(struct block), connections * 2);
    shard->large_bytes = conn_input_bytes_max(config);
    pool_init(&shard->large, &shard->plan, "large buffers", shard->large_bytes,
              (uint32_t)config->limits_large_buffers);
}

uint64_t conn_tag(const struct conn *conn, uint8_t kind)
{
    return os_tag(kind, conn->generation, pool_index(&conn->shard->conns, conn));
}

static struct conn *conn_of(struct shard *shard, const struct os_event *event)
{
    struct conn *conn = pool_at(&shard->conns, os_tag_index(event->tag));
    CHECK((conn->generation & 0xffffff) == os_tag_generation(event->tag)); /* C2 */
    return conn;
}

struct conn *conn_find(struct shard *shard, struct conn_ref ref)
{
    if (!pool_taken(&shard->conns, ref.index)) {
        return NULL;
    }
    struct conn *conn = pool_at(&shard->conns, ref.index);
    return conn->generation == ref.generation && conn->state < CONN_CLOSING ? conn : NULL;
}

/* --- accept --- */

static void arm_recv(struct conn *conn)
{
    conn->recv_armed = true;
    os_recv(conn->shard->ring, conn->socket, conn_tag(conn, TAG_RECV));
}

static void begin(struct conn *conn, struct shard *shard, uint32_t slot)
{
    const uint32_t generation = conn->generation;
    memset(conn, 0, sizeof(*conn));
    conn->generation = generation;
    conn->shard = shard;
    conn->socket.slot = slot;
    conn->user = POOL_NONE;
    conn->heard_ms = shard->now_ms;
    timer_init(&conn->timer, conn_timeout);
    timer_arm(shard->wheel, &conn->timer, shard->now_ms + shard->config->timeouts_handshake);
}

void conn_accept_done(struct shard *shard, const struct os_event *event)
{
    if ((event->flags & OS_MORE) == 0) {
        shard->accepting = false; /* the loop arms it again when there is room */
    }
    if (event->result < 0) {
        return;
    }
    struct conn *conn = pool_take(&shard->conns);
    if (conn == NULL || shard->stopping) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_connections);
        os_close(shard->ring, (struct os_socket){(uint32_t)event->result}, 0);
        if (conn != NULL) {
            pool_give(&shard->conns, conn);
        }
        return;
    }
    begin(conn, shard, (uint32_t)event->result);
    metrics_add(&shard->metrics->connections, 1);
    metrics_add(&shard->metrics->connections_accepted_total, 1);
    arm_recv(conn);
}

/* --- receiving --- */

static void peer_ended(struct conn *conn, int32_t result)
{
    if (conn->state == CONN_HTTP && result == 0 && (conn->paused || conn->out_bytes > 0)) {
        /* Half-closed after its request: it may still read our answer. */
        conn->keep_alive = false;
        conn->closing_after_output |= conn->out_bytes > 0; /* what is set already stays */
        return;
    }
    conn_close(conn, result == 0 ? CLOSE_PEER_GONE : CLOSE_NETWORK_ERROR);
    conn_shut(conn);
}

void conn_recv_done(struct shard *shard, const struct os_event *event)
{
    struct conn *conn = conn_of(shard, event);

    if ((event->flags & OS_MORE) == 0) {
        conn->recv_armed = false;
    }
    if ((event->flags & OS_BUFFER) != 0) {
        if (event->result > 0 && conn->state < CONN_SHUT) {
            metrics_add(&shard->metrics->bytes_received_total, (uint64_t)event->result);
            conn->heard_ms = shard->now_ms;
            conn->pinged = false;
            conn_input(conn, os_buffer(shard->ring, event->buffer), (uint32_t)event->result);
        }
        os_buffer_give(shard->ring, event->buffer);
    }
    if (conn->state == CONN_SHUT) {
        conn_shut(conn);
    } else if (event->result == -ENOBUFS) {
        metrics_add(&shard->metrics->recv_nobufs_total, 1);
        conn->recv_starved = true;
        conn->starved_next = shard->starved;
        shard->starved = conn;
    } else if (event->result <= 0) {
        peer_ended(conn, event->result);
    } else if (!conn->recv_armed) {
        arm_recv(conn);
    }
}

void conn_feed_starved(struct shard *shard)
{
    struct conn *conn = shard->starved;
    shard->starved = NULL;
    while (conn != NULL) {
        struct conn *next = conn->starved_next;
        conn->recv_starved = false;
        if (conn->state == CONN_SHUT) {
            conn_shut(conn);
        } else {
            arm_recv(conn);
        }
        conn = next;
    }
}

void conn_pause(struct conn *conn)
{
    conn->paused = true;
}

void conn_resume(struct conn *conn)
{
    if (conn->in_input) {
        conn->paused = false; /* answered at once: the loop in conn_input goes on by itself */
        return;
    }
    if (conn->state == CONN_HTTP && !conn->keep_alive) {
        conn->closing_after_output = true; /* stays paused: nothing after this request is read */
        conn_mark_dirty(conn);
        return;
    }
    conn->paused = false;
    conn_input(conn, NULL, 0);
}

void conn_retry(struct conn *conn)
{
    conn->paused = false;
    if (!conn->in_input) {
        conn_input(conn, NULL, 0);
    }
}

void conn_upgraded(struct conn *conn)
{
    const struct shard *shard = conn->shard;
    if (conn->state != CONN_HTTP) { /* there was no place for the 101 */
        return;
    }
    conn->state = CONN_WEBSOCKET;
    conn->heard_ms = shard->now_ms;
    timer_arm(shard->wheel, &conn->timer, shard->now_ms + shard->config->timeouts_connect);
}

/* --- time --- */

static bool send_is_stuck(const struct conn *conn)
{
    return conn->send_in_flight &&
           conn->shard->now_ms - conn->sending_since_ms >= conn->shard->config->timeouts_send_stall;
}

/* When to look again, or 0: the connection was closed. */
static uint64_t check_websocket(struct conn *conn)
{
    const struct shard *shard = conn->shard;
    const struct config *config = shard->config;
    const uint64_t silent_ms = shard->now_ms - conn->heard_ms;

    if (send_is_stuck(conn)) {
        conn_close(conn, CLOSE_TOO_SLOW);
        conn_shut(conn);
        return 0;
    }
    if (!conn->connected && shard->service->idle != NULL) {
        shard->service->idle(conn);
        return conn->state == CONN_WEBSOCKET ? shard->now_ms + config->timeouts_connect : 0;
    }
    if (silent_ms >= config->timeouts_ping_interval + config->timeouts_pong && conn->pinged) {
        conn_close(conn, CLOSE_NO_PONG);
        return 0;
    }
    if (silent_ms >= config->timeouts_ping_interval) {
        if (!conn->pinged) {
            conn->pinged = true;
            conn_write_frame(conn, WS_PING, SLICE(""));
        }
        return conn->heard_ms + config->timeouts_ping_interval + config->timeouts_pong;
    }
    const uint64_t due = conn->heard_ms + config->timeouts_ping_interval;
    const uint64_t stall = shard->now_ms + config->timeouts_send_stall / 4;
    return conn->send_in_flight && stall < due ? stall : due;
}

static void conn_timeout(struct timer *timer)
{
    struct conn *conn = TIMER_OWNER(timer, struct conn, timer);
    struct shard *shard = conn->shard;
    uint64_t again = 0;

    switch (conn->state) {
    case CONN_HTTP:
        if (send_is_stuck(conn) || !conn->paused) {
            conn_close(conn, CLOSE_HANDSHAKE_TIMEOUT);
            conn_shut(conn);
        } else {
            again = shard->now_ms + shard->config->timeouts_handshake;
        }
        break;
    case CONN_WEBSOCKET:
        again = check_websocket(conn);
        break;
    default:
        conn_shut(conn);
        break;
    }
    if (again > 0 && conn->state < CONN_CLOSING) {
        timer_arm(shard->wheel, &conn->timer, again);
    }
}

/* --- the end --- */

static void write_close_frame(struct conn *conn, enum close_reason reason)
{
    uint8_t payload[WS_CONTROL_PAYLOAD_MAX];
    const struct slice text = {reasons[reason].text, (uint32_t)strlen(reasons[reason].text)};
    const uint32_t size = ws_close_encode(payload, reasons[reason].code, text);
    conn_write_frame(conn, WS_CLOSE, (struct slice){(const char *)payload, size});
}

void conn_close(struct conn *conn, enum close_reason reason)
{
    struct shard *shard = conn->shard;
    if (conn->state >= CONN_CLOSING) {
        return;
    }
    const bool websocket = conn->state == CONN_WEBSOCKET;
    if (reason != CLOSE_PEER_GONE && reason != CLOSE_HTTP_DONE) {
        log_debug("connection closed reason=%s", reasons[reason].name);
    }
    conn->close_reason = (uint8_t)reason;
    metrics_add(&shard->closes[reason], 1);
    conn->state = CONN_CLOSING;
    shard->service->closed(conn);
    if (websocket && reasons[reason].code != 0) {
        write_close_frame(conn, reason);
    }
    conn->closing_after_output = true;
    timer_arm(shard->wheel, &conn->timer, shard->now_ms + LINGER_MS);
    conn_mark_dirty(conn);
}

void conn_output_ended(struct conn *conn)
{
    struct shard *shard = conn->shard;

    if (conn->state == CONN_HTTP) {
        conn_close(conn, CLOSE_HTTP_DONE);
    }
    if (conn->state != CONN_CLOSING || !conn->recv_armed ||
        conn->close_reason == CLOSE_PEER_CLOSED || conn->close_reason == CLOSE_PEER_GONE) {
        conn_shut(conn);
    } else if (!conn->shutdown_sent) {
        /* Closing with unread input would reset the connection and take our last words with it:
         * so only our direction ends, and the peer has LINGER_MS to end its own. */
        conn->shutdown_sent = true;
        conn->shutdown_in_flight = true;
        os_shutdown(shard->ring, conn->socket, conn_tag(conn, TAG_SHUTDOWN));
    }
}

void conn_shutdown_done(struct shard *shard, const struct os_event *event)
{
    struct conn *conn = conn_of(shard, event);
    conn->shutdown_in_flight = false;
    if (conn->state == CONN_SHUT) {
        conn_shut(conn);
    }
}

void conn_shut(struct conn *conn)
{
    struct shard *shard = conn->shard;

    if (conn->state < CONN_CLOSING) {
        conn_close(conn, CLOSE_NETWORK_ERROR);
    }
    if (conn->state == CONN_CLOSING) {
        conn->state = CONN_SHUT;
        timer_cancel(shard->wheel, &conn->timer);
        conn_input_forget(conn);
        if (conn->recv_armed) {
            os_cancel(shard->ring, conn_tag(conn, TAG_RECV));
        }
        if (conn->send_in_flight) {
            os_cancel(shard->ring, conn_tag(conn, TAG_SEND));
        }
    }
    if (!conn->recv_armed && !conn->recv_starved && !conn->send_in_flight &&
        !conn->shutdown_in_flight && !conn->dirty && !conn->close_in_flight) {
        conn_output_forget(conn);
        conn->close_in_flight = true; /* C2 */
        os_close(shard->ring, conn->socket, conn_tag(conn, TAG_CLOSE));
    }
}

void conn_close_done(struct shard *shard, const struct os_event *event)
{
    struct conn *conn = conn_of(shard, event);

    CHECK(conn->state == CONN_SHUT); /* C2 */
    conn->generation = (conn->generation + 1) & 0xffffff;
    metrics_subtract(&shard->metrics->connections, 1);
    pool_give(&shard->conns, conn);
}
