/*
 * ws.h - the WebSocket wire format (RFC 6455): frames, messages over frames, masking, handshake.
 *
 * Walk:       from shard/conn.c, which receives bytes; to shard/session.c, which takes messages.
 * Threads:    none of its own: pure functions over the caller's bytes.
 * Ownership:  every slice given out points into the caller's buffer and lives as long as that.
 *             Nothing here allocates, keeps a pointer or makes a system call.
 * Units:      sizes and offsets in bytes. Errors are negated close codes: -WS_PROTOCOL_ERROR,
 *             -WS_INVALID_PAYLOAD or -WS_TOO_LARGE, ready to be sent in a close frame.
 *
 * A frame is read in one of two ways. The usual one, whole and in one buffer: ws_decode_text. Any
 * other, in pieces as they arrive:
 *
 *   ws_decode -> ws_reader_frame -> (ws_unmask, ws_reader_payload) for each piece -> ws_reader_end
 *
 * Invariants: (W1) no more than the announced payload of an accepted frame is asked for, and no
 *                  frame is accepted with which its message would exceed the limit: so a peer
 *                  cannot make us buffer more than the limit.
 *             (W2) splitting the same bytes otherwise changes neither what is read nor the error.
 *             (W3) after an error the reader is not used again: the connection closes.
 */
#pragma once

#include "core/check.h"
#include "core/slice.h"
#include "core/utf8.h"

#include <stdbool.h>
#include <stdint.h>

/* Close codes that this codec itself gives (RFC 6455 section 7.4.1); negated: its errors. */
#define WS_PROTOCOL_ERROR      1002
#define WS_NO_CODE             1005 /* a close frame without a code; never on the wire */
#define WS_INVALID_PAYLOAD     1007
#define WS_TOO_LARGE           1009

#define WS_HEADER_SIZE_MAX     10 /* of a server's frame */
#define WS_CLIENT_HEADER_MAX   14 /* of a client's frame, with its mask */
#define WS_CONTROL_PAYLOAD_MAX 125
#define WS_CLOSE_REASON_MAX    123 /* a control payload without the two bytes of the code */

/* RFC 6455 section 11.8. All others are reserved and never accepted. */
enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10,
};

/* What a frame's header says. */
struct ws_frame {
    uint64_t payload_size;
    uint8_t mask[4]; /* all zero if not masked */
    uint8_t opcode;  /* an enum ws_opcode */
    bool fin;
    bool masked;
};

/* What one connection has received. All zero at its start. */
struct ws_reader {
    uint32_t message_size; /* of the data message under way, all announced frames of it */
    uint32_t frame_left;   /* payload of the current frame that is still to come */
    struct utf8 utf8;      /* of the text message under way */
    uint8_t message;       /* WS_TEXT or WS_BINARY under way; WS_CONTINUATION: none */
    uint8_t opcode;        /* of the current frame */
    bool fin;              /* of the current frame */
};
_Static_assert(sizeof(struct ws_reader) <= 24, "every connection holds one");

/* Reads the header of a client's frame (RFC 6455 section 5.2). > 0: its size in bytes, ret_frame is
 * set; 0: more bytes are needed; -WS_PROTOCOL_ERROR: reserved bits or opcodes, no mask, a length
 * not in its shortest form or of 2^63 and more, a control frame in fragments or above 125 bytes.
 * Wrong bytes are refused as soon as they are there. */
NODISCARD int ws_decode(const uint8_t *data, uint32_t size, struct ws_frame *ret_frame);

/* The same for a server's frame, as a client reads it: a mask is the error (section 5.1). */
NODISCARD int ws_decode_server(const uint8_t *data, uint32_t size, struct ws_frame *ret_frame);

/* The usual case at once: a client's whole, final text frame of at most 65,535 bytes at the start
 * of data. Unmasks it in place and checks its UTF-8.
 * > 0: bytes of the frame, ret_payload is its text; 0: not this case, nothing was changed and
 * nothing is decided: go by ws_decode; -WS_INVALID_PAYLOAD: not UTF-8.
 * Only between messages (ws_reader_idle); the reader needs not be told. */
NODISCARD int ws_decode_text(uint8_t *data, uint32_t size, uint32_t message_bytes_max,
                             struct slice *ret_payload);

/* True between messages: no fragment has been read whose message is not complete. */
static inline bool ws_reader_idle(const struct ws_reader *reader)
{
    return reader->message == WS_CONTINUATION;
}

/* A frame begins. 0: its payload may be received; -WS_PROTOCOL_ERROR: a continuation of nothing,
 * or a new message within another; -WS_TOO_LARGE: its message would exceed the limit. */
NODISCARD int ws_reader_frame(struct ws_reader *reader, const struct ws_frame *frame,
                              uint32_t message_bytes_max);

/* The next size bytes of the frame's payload, unmasked; at most what is left of it. Pieces may be
 * of any size, 0 too. 0: fine so far; -WS_INVALID_PAYLOAD: no UTF-8 text can begin so
 * (section 8.1). */
NODISCARD int ws_reader_payload(struct ws_reader *reader, const uint8_t *bytes, uint32_t size);

/* The frame's payload is complete. Returns the opcode of what is complete now: WS_TEXT or WS_BINARY
 * for a message, WS_CLOSE, WS_PING or WS_PONG for a control frame, WS_CONTINUATION (0) for a
 * fragment whose message goes on; -WS_INVALID_PAYLOAD: a text message ends within a character. */
NODISCARD int ws_reader_end(struct ws_reader *reader);

/* Payload bytes of the current frame that are still to come. */
static inline uint32_t ws_reader_left(const struct ws_reader *reader)
{
    return reader->frame_left;
}

/* Unmasks (or masks: it is the same) size bytes in place. offset: where data begins within the
 * frame's payload, so that pieces can be unmasked as they arrive. RFC 6455 section 5.3. */
void ws_unmask(uint8_t *data, uint32_t size, const uint8_t mask[4], uint64_t offset);

/* True for a code that a close frame may carry: 1000-1003, 1007-1014, 3000-4999 (section 7.4). */
bool ws_close_code_valid(uint32_t code);

/* Reads a close frame's unmasked payload (section 5.5.1). 0: ret_code is set, WS_NO_CODE if it is
 * empty, and ret_reason; -WS_PROTOCOL_ERROR: one byte, or a code not allowed on the wire;
 * -WS_INVALID_PAYLOAD: the reason is not UTF-8. */
NODISCARD int ws_close_decode(const uint8_t *payload, uint32_t size, uint16_t *ret_code,
                              struct slice *ret_reason);

/* Writes a close frame's payload, at most WS_CONTROL_PAYLOAD_MAX bytes, and returns its size: 0 for
 * WS_NO_CODE, which has none. reason: UTF-8, at most WS_CLOSE_REASON_MAX bytes. */
uint32_t ws_close_encode(uint8_t *dst, uint16_t code, struct slice reason);

/* Writes the header of a server's unfragmented frame; returns its size: 2, 4 or 10. */
uint32_t ws_encode_header(uint8_t *dst, enum ws_opcode opcode, uint64_t payload_size);

/* Writes the header of any frame as the fields say, at most WS_CLIENT_HEADER_MAX bytes; returns its
 * size. What it is asked for may be wrong on purpose: loaders and tests send bad frames too. The
 * payload of a masked frame is the caller's to mask, by ws_unmask. */
uint32_t ws_encode_frame(uint8_t *dst, const struct ws_frame *frame);

/*
 * The opening handshake (RFC 6455 section 4.2), in core/ws_accept.c.
 */

#define WS_KEY_SIZE    24
#define WS_ACCEPT_SIZE 28

/* True for a Sec-WebSocket-Key: the one base64 form of 16 bytes, and nothing around it. */
bool ws_key_valid(struct slice key);

/* Sec-WebSocket-Accept: base64 of the SHA-1 of key and GUID. Only for a key that ws_key_valid has
 * accepted: another size is a CHECK. */
void ws_accept(struct slice key, char ret_accept[WS_ACCEPT_SIZE]);

/* Chooses among the names in a Sec-WebSocket-Protocol field, a comma-separated list of tokens, the
 * first that we know; the case counts. Returns its index in known; -ENOENT: none of them;
 * -EINVAL: not a list of tokens. */
NODISCARD int ws_subprotocol(struct slice list, const struct slice *known, uint32_t count);
