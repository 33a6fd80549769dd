/* wsclient.c - see wsclient.h. */
#include "bench/wsclient.h"

#include "core/check.h"

#include <errno.h>
#include <strings.h>

/* RFC 6455 section 1.3 gives this key and its answer; one key for all connections is enough, as
 * nothing here caches. */
#define KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

int wsclient_request(char *dst, size_t capacity, const char *host, const char *token)
{
    const int size = snprintf(dst, capacity,
                              "GET /v1/ws?access_token=%s HTTP/1.1\r\n"
                              "Host: %s\r\n"
                              "Upgrade: websocket\r\n"
                              "Connection: Upgrade\r\n"
                              "Sec-WebSocket-Key: " KEY "\r\n"
                              "Sec-WebSocket-Version: 13\r\n"
                              "\r\n",
                              token, host);

    return size > 0 && (size_t)size < capacity ? size : -ENOSPC;
}

/* The value of a header in a whole head, without surrounding spaces; empty if it is not there. */
static struct slice header_value(const char *head, size_t size, struct slice name)
{
    const char *const end = head + size;

    for (const char *line = head; line < end;) {
        const char *const stop = memchr(line, '\n', (size_t)(end - line));
        const char *const next = stop == NULL ? end : stop + 1;
        if ((size_t)(next - line) > name.size && strncasecmp(line, name.data, name.size) == 0 &&
            line[name.size] == ':') {
            const char *from = line + name.size + 1;
            const char *to = next;
            while (from < to && *from == ' ') {
                from++;
            }
            while (to > from && (to[-1] == '\n' || to[-1] == '\r' || to[-1] == ' ')) {
                to--;
            }
            return (struct slice){from, (uint32_t)(to - from)};
        }
        line = next;
    }
    return (struct slice){head, 0};
}

int wsclient_response(const char *data, size_t size, int *ret_status)
{
    const char *const blank = memmem(data, size, "\r\n\r\n", 4);

    if (blank == NULL) {
        return size < 8192 ? 0 : -EPROTO;
    }
    const size_t head = (size_t)(blank - data) + 4;
    if (head < 16 || memcmp(data, "HTTP/1.1 ", 9) != 0) {
        *ret_status = 0;
        return -EPROTO;
    }
    *ret_status = (data[9] - '0') * 100 + (data[10] - '0') * 10 + (data[11] - '0');
    const struct slice accept = header_value(data, head, SLICE("Sec-WebSocket-Accept"));
    return *ret_status == 101 && slice_equal(accept, SLICE(ACCEPT)) ? (int)head : -EPROTO;
}

static bool opcode_known(uint8_t opcode)
{
    return opcode == WSCLIENT_TEXT || opcode == WSCLIENT_CLOSE || opcode == WSCLIENT_PING ||
           opcode == WSCLIENT_PONG;
}

int wsclient_decode(const uint8_t *data, size_t size, struct wsclient_frame *ret, size_t *ret_need)
{
    if (size < 2) {
        return 0;
    }
    size_t payload = data[1] & 0x7f;
    const size_t head = payload == 126 ? 4 : payload == 127 ? 10 : 2;
    if ((data[0] & 0xf0) != 0x80 || (data[1] & 0x80) != 0 || !opcode_known(data[0] & 0x0f)) {
        return -EPROTO;
    }
    if (size < head) {
        return 0;
    }
    if (payload >= 126) {
        payload = 0;
        for (size_t i = 2; i < head; i++) {
            payload = payload << 8 | data[i];
        }
    }
    if (payload > 0x3fffffff) { /* no frame of the protocol comes near; and int holds the size */
        return -EPROTO;
    }
    *ret_need = head + payload;
    if (size < head + payload) {
        return 0;
    }
    ret->opcode = data[0] & 0x0f;
    ret->payload = (struct slice){(const char *)data + head, (uint32_t)payload};
    return (int)(head + payload);
}

/* Eight bytes at a time: half a million sends a second go through here. */
static void mask_copy(uint8_t *dst, struct slice payload, uint32_t mask)
{
    const uint64_t wide = (uint64_t)mask << 32 | mask;
    uint32_t i = 0;

    for (; i + 8 <= payload.size; i += 8) {
        uint64_t word;
        memcpy(&word, payload.data + i, 8);
        word ^= wide;
        memcpy(dst + i, &word, 8);
    }
    for (; i < payload.size; i++) {
        dst[i] = (uint8_t)((uint8_t)payload.data[i] ^ (uint8_t)(mask >> (i % 4 * 8)));
    }
}

size_t wsclient_encode(uint8_t *dst, uint8_t opcode, struct slice payload, uint32_t mask)
{
    size_t head = 0;

    CHECK(payload.size <= WSCLIENT_PAYLOAD_MAX);
    dst[head++] = (uint8_t)(0x80 | opcode);
    if (payload.size < 126) {
        dst[head++] = (uint8_t)(0x80 | payload.size);
    } else {
        dst[head++] = 0x80 | 126;
        dst[head++] = (uint8_t)(payload.size >> 8);
        dst[head++] = (uint8_t)payload.size;
    }
    memcpy(dst + head, &mask, sizeof(mask)); /* little endian, as mask_copy reads it */
    head += sizeof(mask);
    mask_copy(dst + head, payload, mask);
    return head + payload.size;
}
