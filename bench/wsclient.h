/*
 * wsclient.h - the client's half of WebSocket: upgrade request and answer, frames both ways.
 *
 * Threads:    pure functions.
 * Units:      bytes.
 *
 * Narrow on purpose: the server sends unmasked, unfragmented frames, and anything else is an error
 * that the loader reports. Not shared with the server's codec, as in fields.h.
 */
#pragma once

#include "core/slice.h"

#include <stddef.h>

enum {
    WSCLIENT_TEXT = 1,
    WSCLIENT_CLOSE = 8,
    WSCLIENT_PING = 9,
    WSCLIENT_PONG = 10,
    WSCLIENT_HEAD_MAX = 8,        /* of a frame that we send: 2, 2 of length, 4 of mask */
    WSCLIENT_PAYLOAD_MAX = 65535, /* of a frame that we send */
    WSCLIENT_REQUEST_MAX = 1024,  /* upgrade request with its token */
};

struct wsclient_frame {
    uint8_t opcode;
    struct slice payload;
};

/* Writes the upgrade request with the token in the query; host is the value of Host. Returns its
 * size, or -ENOSPC. */
int wsclient_request(char *dst, size_t capacity, const char *host, const char *token);

/* > 0: the answer's size, and it is 101 with the right Sec-WebSocket-Accept. 0: more is needed.
 * -EPROTO: anything else; ret_status is then the status code, or 0 if there was none. */
int wsclient_response(const char *data, size_t size, int *ret_status);

/* > 0: size of the whole frame at data, and ret is set. 0: more is needed; ret_need, once known, is
 * the frame's size. -EPROTO: masked, fragmented, reserved bits or an unknown opcode. */
int wsclient_decode(const uint8_t *data, size_t size, struct wsclient_frame *ret, size_t *ret_need);

/* Writes a masked frame; payload at most WSCLIENT_PAYLOAD_MAX bytes and dst that plus
 * WSCLIENT_HEAD_MAX. Returns its size. */
size_t wsclient_encode(uint8_t *dst, uint8_t opcode, struct slice payload, uint32_t mask);
