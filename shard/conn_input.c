/* conn_input.c - see conn_input.h. Normally a message is read where it was received; only what is
 * cut off is kept. */
#include "shard/conn_input.h"

#include "core/check.h"
#include "shard/rest.h"
#include "shard/shard.h"

uint32_t conn_input_bytes_max(const struct config *config)
{
    const uint64_t request = config->limits_header_bytes + config->limits_body_bytes;
    const uint64_t frame = config->limits_frame_bytes + WS_CLIENT_HEADER_MAX;
    return (uint32_t)((request > frame ? request : frame) + config->uring_recv_buffer_bytes);
}

/* --- what was cut off --- */

static void give_input(struct conn *conn)
{
    struct shard *shard = conn->shard;
    if (conn->input_kind == INPUT_BLOCK) {
        pool_give(&shard->blocks, conn->input);
    } else if (conn->input_kind == INPUT_LARGE) {
        pool_give(&shard->large, conn->input);
    }
    conn->input_kind = INPUT_NONE;
    conn->input = NULL;
}

static void give_message(struct conn *conn)
{
    if (conn->message != NULL) {
        pool_give(&conn->shard->large, conn->message);
        conn->message = NULL;
        conn->message_size = 0;
    }
}

void conn_input_forget(struct conn *conn)
{
    if (!conn->in_input) {
        give_input(conn);
        give_message(conn);
        conn->input_size = 0;
    }
}

static uint8_t *take_large(struct conn *conn)
{
    uint8_t *large = pool_take(&conn->shard->large);
    if (large == NULL) {
        shard_exhausted(&conn->shard->metrics->pool_exhausted_total_large_buffers);
        conn_close(conn, CLOSE_BUSY);
    }
    return large;
}

/* Makes place for size bytes in all; false: the connection was closed. */
static bool grow_input(struct conn *conn, uint32_t size)
{
    struct shard *shard = conn->shard;
    if (size > shard->large_bytes) {
        conn_close(conn, CLOSE_TOO_LARGE);
        return false;
    }
    if (conn->input_kind == INPUT_NONE && size <= sizeof(struct block)) {
        conn->input = pool_take(&shard->blocks);
        if (conn->input == NULL) {
            shard_exhausted(&shard->metrics->pool_exhausted_total_buffers);
            conn_close(conn, CLOSE_BUSY);
            return false;
        }
        conn->input_kind = INPUT_BLOCK;
    }
    if (conn->input_kind != INPUT_LARGE && size > sizeof(struct block)) {
        uint8_t *large = take_large(conn);
        if (large == NULL) {
            return false;
        }
        if (conn->input_size > 0) {
            memcpy(large, conn->input, conn->input_size);
        }
        give_input(conn);
        conn->input = large;
        conn->input_kind = INPUT_LARGE;
    }
    return true;
}

/* Part of a request is there: from here on it has as long as a handshake. */
static void request_begins(struct conn *conn)
{
    if (conn->state == CONN_HTTP) {
        timer_arm(conn->shard->wheel, &conn->timer,
                  conn->shard->now_ms + conn->shard->config->timeouts_handshake);
    }
}

static bool keep(struct conn *conn, const uint8_t *data, uint32_t size)
{
    if (size == 0) {
        return true;
    }
    if (!grow_input(conn, conn->input_size + size)) {
        return false;
    }
    if (conn->input_size == 0) {
        request_begins(conn);
    }
    memcpy(conn->input + conn->input_size, data, size);
    conn->input_size += size;
    return true;
}

/* --- HTTP --- */

static uint32_t refuse_request(struct conn *conn, uint32_t status)
{
    rest_refuse(conn, status);
    conn->keep_alive = false;
    conn->closing_after_output = true;
    conn->paused = true; /* nothing after it is read */
    return 0;
}

static uint32_t take_request(struct conn *conn, uint8_t *data, uint32_t size)
{
    struct shard *shard = conn->shard;
    const struct config *config = shard->config;
    const struct http_limits limits = {.head_bytes_max = (uint32_t)config->limits_header_bytes,
                                       .line_bytes_max = (uint32_t)config->limits_header_bytes / 2,
                                       .headers_max = 64};
    struct http_request request;

    const int head = http_decode((const char *)data, size, &limits, &request);
    if (head <= 0) {
        return head < 0 ? refuse_request(conn, (uint32_t)-head) : 0;
    }
    if (request.content_length > config->limits_body_bytes) {
        return refuse_request(conn, 413);
    }
    const uint32_t body = (uint32_t)request.content_length;
    if (size - (uint32_t)head < body) {
        if (request.expect_continue && !conn->continued) {
            conn->continued = true;
            conn_write(conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        }
        return 0;
    }
    conn->continued = false;
    conn->keep_alive = request.keep_alive;
    conn->head_request = request.method == HTTP_HEAD;
    timer_arm(shard->wheel, &conn->timer, shard->now_ms + config->timeouts_keepalive);
    const struct slice content = {(const char *)data + head, body};
    return shard->service->request(conn, &request, content) ? (uint32_t)head + body : 0;
}

/* --- WebSocket --- */

static uint32_t refuse_frame(struct conn *conn, int error)
{
    conn_close(conn, error == -WS_INVALID_PAYLOAD ? CLOSE_INVALID_UTF8
                     : error == -WS_TOO_LARGE     ? CLOSE_TOO_LARGE
                                                  : CLOSE_PROTOCOL_ERROR);
    return 0;
}

static void deliver(struct conn *conn, enum ws_opcode opcode, char *text, uint32_t size)
{
    metrics_add(&conn->shard->metrics->messages_received_total, 1);
    conn->shard->service->message(conn, opcode, text, size);
}

/* A piece of a message in several frames; false: no buffer, the connection was closed. */
static bool append_fragment(struct conn *conn, const uint8_t *payload, uint32_t size)
{
    if (conn->message == NULL) {
        conn->message = take_large(conn);
        conn->message_size = 0;
    }
    if (conn->message == NULL) {
        return false;
    }
    CHECK(conn->message_size + size <= conn->shard->large_bytes); /* W1 of ws.h */
    memcpy(conn->message + conn->message_size, payload, size);
    conn->message_size += size;
    return true;
}

static void peer_closes(struct conn *conn, const uint8_t *payload, uint32_t size)
{
    struct slice why;
    uint16_t code = WS_NO_CODE;
    const int error = ws_close_decode(payload, size, &code, &why);
    if (error < 0) {
        (void)refuse_frame(conn, error);
        return;
    }
    conn_close(conn, CLOSE_PEER_CLOSED);
}

static void take_payload(struct conn *conn, int opcode, uint8_t *payload, uint32_t size)
{
    switch (opcode) {
    case WS_CONTINUATION:
        (void)append_fragment(conn, payload, size);
        break;
    case WS_TEXT:
    case WS_BINARY:
        if (conn->message == NULL) {
            deliver(conn, (enum ws_opcode)opcode, (char *)payload, size);
        } else if (append_fragment(conn, payload, size)) {
            deliver(conn, (enum ws_opcode)opcode, (char *)conn->message, conn->message_size);
            give_message(conn);
        }
        break;
    case WS_PING:
        conn_write_frame(conn, WS_PONG, (struct slice){(const char *)payload, size});
        break;
    case WS_CLOSE:
        peer_closes(conn, payload, size);
        break;
    default: /* a pong: that something came is all there is to it */
        break;
    }
}

static uint32_t take_frame(struct conn *conn, uint8_t *data, uint32_t size)
{
    const uint32_t bytes_max = (uint32_t)conn->shard->config->limits_frame_bytes;
    struct ws_frame frame;
    struct slice text;

    if (ws_reader_idle(&conn->reader)) {
        const int used = ws_decode_text(data, size, bytes_max, &text);
        if (used > 0) {
            deliver(conn, WS_TEXT, (char *)data + (uint32_t)(text.data - (char *)data), text.size);
            return (uint32_t)used;
        }
        if (used < 0) {
            return refuse_frame(conn, used);
        }
    }
    const int head = ws_decode(data, size, &frame);
    if (head <= 0) {
        return head < 0 ? refuse_frame(conn, head) : 0;
    }
    /* On a copy: the header is read again when the rest has come. */
    struct ws_reader reader = conn->reader;
    int error = ws_reader_frame(&reader, &frame, bytes_max);
    if (error < 0) {
        return refuse_frame(conn, error);
    }
    const uint32_t payload_size = (uint32_t)frame.payload_size;
    if (size - (uint32_t)head < payload_size) {
        return 0;
    }
    uint8_t *payload = data + head;
    ws_unmask(payload, payload_size, frame.mask, 0);
    error = ws_reader_payload(&reader, payload, payload_size);
    const int opcode = error < 0 ? error : ws_reader_end(&reader);
    if (opcode < 0) {
        return refuse_frame(conn, opcode);
    }
    conn->reader = reader;
    take_payload(conn, opcode, payload, payload_size);
    return (uint32_t)head + payload_size;
}

/* --- both --- */

/* Hands over all that is whole; returns the bytes used. */
static uint32_t consume(struct conn *conn, uint8_t *data, uint32_t size)
{
    uint32_t used = 0;
    uint32_t step = 1;
    while (step > 0 && used < size && conn->state < CONN_CLOSING && !conn->paused &&
           conn->doom == CLOSE_NONE) {
        step = conn->state == CONN_HTTP ? take_request(conn, data + used, size - used)
                                        : take_frame(conn, data + used, size - used);
        used += step;
        if (conn->state == CONN_HTTP && step > 0 && !conn->paused && !conn->keep_alive) {
            conn->closing_after_output = true;
            conn->paused = true;
        }
    }
    return used;
}

void conn_input(struct conn *conn, uint8_t *data, uint32_t size)
{
    if (conn->state >= CONN_CLOSING) {
        return;
    }
    CHECK(!conn->in_input);
    conn->in_input = true;
    const bool kept = conn->input_size > 0 || conn->paused;
    if (!kept) {
        const uint32_t used = consume(conn, data, size);
        if (conn->state < CONN_CLOSING) {
            (void)keep(conn, data + used, size - used);
        }
    } else if (keep(conn, data, size) && conn->input_size > 0) {
        const uint32_t used = consume(conn, conn->input, conn->input_size);
        conn->input_size -= used;
        memmove(conn->input, conn->input + used, conn->input_size);
        if (conn->input_size > 0 && !conn->paused && (used > 0 || data == NULL)) {
            request_begins(conn); /* behind one that was answered */
        }
    }
    conn->in_input = false;
    if (conn->state >= CONN_CLOSING) {
        conn_input_forget(conn);
    } else if (conn->input_size == 0) {
        give_input(conn);
    }
    if (conn->closing_after_output) {
        conn_mark_dirty(conn);
    }
}
