/*
 * ws_receiver.h - reads a WebSocket stream as a connection does, and notes down what it got.
 *
 * For test_ws.c and fuzz_ws.c: the same stream, cut in any way, read with or without the fast way,
 * must leave the same notes and the same error (core/ws.h, W2).
 */
#pragma once

#include "core/check.h"
#include "core/ws.h"

#include <string.h>

enum {
    RECEIVER_STREAM_MAX = 4096,  /* bytes of one stream */
    RECEIVER_NOTES_MAX = 8192,   /* more than any such stream can leave */
    RECEIVER_MESSAGE_MAX = 1024, /* the limit of a message */
};

struct receiver {
    struct ws_reader reader;
    struct ws_frame frame;
    bool in_frame;
    bool fast;             /* ws_decode_text is tried first */
    int error;             /* the first one; what comes after it is not read */
    uint32_t fast_count;   /* frames that ws_decode_text took */
    uint32_t at;           /* bytes of data that are read */
    uint32_t size;         /* bytes of data that have arrived */
    uint32_t message_size; /* of the data message under way */
    uint32_t control_size; /* of the control frame under way */
    uint32_t notes_size;
    uint8_t data[RECEIVER_STREAM_MAX];
    uint8_t message[RECEIVER_STREAM_MAX];
    uint8_t control[RECEIVER_STREAM_MAX];
    /* For each message and each control frame: opcode, size in two bytes, payload. */
    uint8_t notes[RECEIVER_NOTES_MAX];
};

static inline void receiver_note(struct receiver *receiver, int opcode, const void *payload,
                                 uint32_t size)
{
    CHECK(receiver->notes_size + 3 + size <= RECEIVER_NOTES_MAX);
    receiver->notes[receiver->notes_size++] = (uint8_t)opcode;
    receiver->notes[receiver->notes_size++] = (uint8_t)(size >> 8);
    receiver->notes[receiver->notes_size++] = (uint8_t)size;
    memcpy(receiver->notes + receiver->notes_size, payload, size);
    receiver->notes_size += size;
}

static inline void receiver_end_frame(struct receiver *receiver)
{
    const int complete = ws_reader_end(&receiver->reader);

    receiver->in_frame = false;
    if (complete < 0) {
        receiver->error = complete;
    } else if (complete == WS_TEXT || complete == WS_BINARY) {
        receiver_note(receiver, complete, receiver->message, receiver->message_size);
        receiver->message_size = 0;
    } else if (complete != WS_CONTINUATION) {
        receiver_note(receiver, complete, receiver->control, receiver->control_size);
    }
}

static inline void receiver_take_payload(struct receiver *receiver, uint32_t size)
{
    const bool control = receiver->frame.opcode >= WS_CLOSE;
    uint8_t *to = control ? receiver->control + receiver->control_size
                          : receiver->message + receiver->message_size;
    const uint64_t offset = receiver->frame.payload_size - ws_reader_left(&receiver->reader);

    memcpy(to, receiver->data + receiver->at, size);
    ws_unmask(to, size, receiver->frame.mask, offset);
    receiver->at += size;
    *(control ? &receiver->control_size : &receiver->message_size) += size;
    receiver->error = ws_reader_payload(&receiver->reader, to, size);
}

/* True if a frame was read whole by the fast way, or was found wrong by it. */
static inline bool receiver_take_fast(struct receiver *receiver)
{
    struct slice text = {NULL, 0};

    if (!receiver->fast || !ws_reader_idle(&receiver->reader)) {
        return false;
    }
    const int taken = ws_decode_text(receiver->data + receiver->at, receiver->size - receiver->at,
                                     RECEIVER_MESSAGE_MAX, &text);
    if (taken > 0) {
        receiver_note(receiver, WS_TEXT, text.data, text.size);
        receiver->at += (uint32_t)taken;
        receiver->fast_count++;
    }
    receiver->error = taken < 0 ? taken : 0;
    return taken != 0;
}

/* One step; false: more bytes are needed, or there was an error. */
static inline bool receiver_step(struct receiver *receiver)
{
    if (!receiver->in_frame) {
        if (receiver_take_fast(receiver)) {
            return receiver->error == 0;
        }
        const int header = ws_decode(receiver->data + receiver->at, receiver->size - receiver->at,
                                     &receiver->frame);
        if (header <= 0) {
            receiver->error = header;
            return false;
        }
        receiver->at += (uint32_t)header;
        receiver->control_size = 0;
        receiver->in_frame = true;
        receiver->error =
            ws_reader_frame(&receiver->reader, &receiver->frame, RECEIVER_MESSAGE_MAX);
    } else {
        const uint32_t arrived = receiver->size - receiver->at;
        const uint32_t left = ws_reader_left(&receiver->reader);
        if (arrived == 0 && left != 0) {
            return false;
        }
        receiver_take_payload(receiver, arrived < left ? arrived : left);
    }
    if (receiver->error == 0 && ws_reader_left(&receiver->reader) == 0) {
        receiver_end_frame(receiver);
    }
    return receiver->error == 0;
}

static inline void receiver_feed(struct receiver *receiver, const uint8_t *bytes, uint32_t size)
{
    if (receiver->error == 0) {
        memcpy(receiver->data + receiver->size, bytes, size);
        receiver->size += size;
        while (receiver->at < receiver->size && receiver_step(receiver)) {
        }
    }
}

/* Wants that two receivers got the same. */
static inline void receiver_expect_same(const struct receiver *one, const struct receiver *other)
{
    CHECK(one->error == other->error);
    CHECK(one->notes_size == other->notes_size);
    CHECK(memcmp(one->notes, other->notes, one->notes_size) == 0);
}
