/*
 * fake_network.h - the part of core/os.h that has to do with sockets, played by a test.
 *
 * Walk:       beside tests/sim/os_disk.c, which has files, clock and the turn; the rig takes
 *             network.events and gives them to the shard in its next turn.
 * Threads:    one; the network is the program's.
 *
 * A sent piece arrives at once in the socket's out, or waits in flight while the socket is slow
 * and is checked to lie where it was until it is released (os.h, Ownership).
 */
#pragma once

#include "core/check.h"
#include "core/os.h"

#include <errno.h>
#include <string.h>

enum {
    SOCKETS_MAX = 300,
    SOCKET_OUT_MAX = 1 << 20,
    RECV_BUFFERS = 16,
    RECV_BUFFER_BYTES = 4096,
    NETWORK_EVENTS_MAX = 1024,
};

struct fake_socket {
    bool open;
    bool slow; /* what is sent stays in flight */
    uint64_t recv_tag, send_tag;
    const void *sending;
    uint32_t sending_size;
    uint64_t sending_sum;
    uint32_t out_size, out_taken;
    uint32_t sends;
    uint8_t *out; /* SOCKET_OUT_MAX bytes */
};

static struct {
    struct fake_socket sockets[SOCKETS_MAX];
    struct os_event events[NETWORK_EVENTS_MAX];
    uint32_t event_count;
    uint32_t free_buffers;
    uint16_t free_list[RECV_BUFFERS];
    uint8_t buffers[RECV_BUFFERS][RECV_BUFFER_BYTES];
    uint32_t closes;
    uint32_t doorbells;
} network;

static inline void network_event(uint64_t tag, int32_t result, uint16_t flags, uint16_t buffer)
{
    CHECK(network.event_count < NETWORK_EVENTS_MAX);
    network.events[network.event_count++] =
        (struct os_event){.tag = tag, .result = result, .flags = flags, .buffer = buffer};
}

static inline void network_begin(void)
{
    for (uint32_t i = 0; i < SOCKETS_MAX; i++) {
        free(network.sockets[i].out);
    }
    memset(&network, 0, sizeof(network));
    for (uint16_t i = 0; i < RECV_BUFFERS; i++) {
        network.free_list[network.free_buffers++] = i;
    }
}

static inline struct fake_socket *socket_at(struct os_socket socket)
{
    CHECK(socket.slot < SOCKETS_MAX);
    return &network.sockets[socket.slot];
}

static inline uint64_t sum_of(const void *data, uint32_t size)
{
    uint64_t sum = size;
    for (uint32_t i = 0; i < size; i++) {
        sum = sum * 31 + ((const uint8_t *)data)[i];
    }
    return sum;
}

/* --- what the shard calls --- */

void os_accept(struct os_ring *ring, int listener, uint64_t tag)
{
    (void)ring, (void)listener, (void)tag;
}

void os_recv(struct os_ring *ring, struct os_socket socket, uint64_t tag)
{
    (void)ring;
    CHECK(socket_at(socket)->open && socket_at(socket)->recv_tag == 0);
    socket_at(socket)->recv_tag = tag;
}

uint8_t *os_buffer(struct os_ring *ring, uint16_t buffer)
{
    (void)ring;
    CHECK(buffer < RECV_BUFFERS);
    return network.buffers[buffer];
}

void os_buffer_give(struct os_ring *ring, uint16_t buffer)
{
    (void)ring;
    CHECK(network.free_buffers < RECV_BUFFERS);
    memset(network.buffers[buffer], 0xee, RECV_BUFFER_BYTES); /* whoever still reads it is wrong */
    network.free_list[network.free_buffers++] = buffer;
}

/* The peer takes what is in flight: part of it only if that is all the connection carries. */
static inline void network_release(uint32_t slot)
{
    struct fake_socket *socket = &network.sockets[slot];
    if (socket->sending == NULL) {
        return;
    }
    CHECK(sum_of(socket->sending, socket->sending_size) == socket->sending_sum);
    CHECK(socket->out_size + socket->sending_size <= SOCKET_OUT_MAX);
    memcpy(socket->out + socket->out_size, socket->sending, socket->sending_size);
    socket->out_size += socket->sending_size;
    socket->sending = NULL;
    network_event(socket->send_tag, (int32_t)socket->sending_size, 0, 0);
}

void os_send(struct os_ring *ring, struct os_socket target, const void *data, uint32_t size,
             uint64_t tag)
{
    struct fake_socket *socket = socket_at(target);
    (void)ring;
    CHECK(socket->open && socket->sending == NULL); /* C1 */
    CHECK(size > 0);
    socket->sending = data;
    socket->sending_size = size;
    socket->sending_sum = sum_of(data, size);
    socket->send_tag = tag;
    socket->sends++;
    if (!socket->slow) {
        network_release(target.slot);
    }
}

void os_cancel(struct os_ring *ring, uint64_t target)
{
    (void)ring;
    for (uint32_t i = 0; i < SOCKETS_MAX; i++) {
        struct fake_socket *socket = &network.sockets[i];
        if (socket->open && socket->recv_tag == target) {
            socket->recv_tag = 0;
            network_event(target, -ECANCELED, 0, 0);
        } else if (socket->open && socket->sending != NULL && socket->send_tag == target) {
            CHECK(sum_of(socket->sending, socket->sending_size) == socket->sending_sum);
            socket->sending = NULL;
            network_event(target, -ECANCELED, 0, 0);
        }
    }
}

void os_shutdown(struct os_ring *ring, struct os_socket target, uint64_t tag)
{
    struct fake_socket *socket = socket_at(target);
    (void)ring;
    CHECK(socket->open);
    network_event(tag, 0, 0, 0);
    if (socket->recv_tag != 0) { /* the peer has read the end and closes too */
        network_event(socket->recv_tag, 0, 0, 0);
        socket->recv_tag = 0;
    }
}

void os_close(struct os_ring *ring, struct os_socket target, uint64_t tag)
{
    struct fake_socket *socket = socket_at(target);
    (void)ring;
    CHECK(socket->open && socket->recv_tag == 0 && socket->sending == NULL); /* C2 */
    socket->open = false;
    network.closes++;
    if (tag != 0) {
        network_event(tag, 0, 0, 0);
    }
}

void os_doorbell(struct os_ring *ring, const struct os_ring *peer, uint64_t tag)
{
    (void)ring, (void)peer, (void)tag;
    network.doorbells++;
}

uint64_t os_ring_overflows(const struct os_ring *ring)
{
    (void)ring;
    return 0;
}

int os_port_claim(const char *address, uint16_t port, uint16_t *ret_port)
{
    (void)address, (void)port, (void)ret_port;
    return -ENOSYS;
}

int os_listen(const char *address, uint16_t port, uint32_t send_buffer_bytes)
{
    (void)address, (void)port, (void)send_buffer_bytes;
    return -ENOSYS;
}

uint64_t os_thread_cpu_ns(void)
{
    return 0;
}

uint32_t os_files_max(void)
{
    return 1 << 20;
}

int os_pin(uint32_t index)
{
    (void)index;
    return 0;
}

uint32_t os_cpu_count(void)
{
    return 1;
}

/* --- what the peer does --- */

/* Opens a socket for an accept: its slot. */
static inline uint32_t network_open(void)
{
    for (uint32_t i = 0; i < SOCKETS_MAX; i++) {
        struct fake_socket *socket = &network.sockets[i];
        if (!socket->open) {
            uint8_t *out = socket->out != NULL ? socket->out : malloc(SOCKET_OUT_MAX);
            CHECK(out != NULL);
            *socket = (struct fake_socket){.open = true, .out = out};
            return i;
        }
    }
    check_failed(__FILE__, __LINE__, "a free socket");
}

/* Bytes for the server, in pieces that fit receive buffers; false: no buffer is left, and the
 * receive has ended with -ENOBUFS, as the kernel's would. */
static inline bool network_send(uint32_t slot, const void *data, uint32_t size)
{
    struct fake_socket *socket = &network.sockets[slot];
    const uint8_t *at = data;
    while (size > 0) {
        CHECK(socket->open && socket->recv_tag != 0);
        if (network.free_buffers == 0) {
            network_event(socket->recv_tag, -ENOBUFS, 0, 0);
            socket->recv_tag = 0;
            return false;
        }
        const uint16_t buffer = network.free_list[--network.free_buffers];
        const uint32_t part = size < RECV_BUFFER_BYTES ? size : RECV_BUFFER_BYTES;
        memcpy(network.buffers[buffer], at, part);
        network_event(socket->recv_tag, (int32_t)part, OS_MORE | OS_BUFFER, buffer);
        at += part;
        size -= part;
    }
    return true;
}

/* The last event given to network_send ends its receive, as the kernel may do at any time. */
static inline void network_receive_ends(uint32_t slot)
{
    CHECK(network.event_count > 0 &&
          network.events[network.event_count - 1].tag == network.sockets[slot].recv_tag);
    network.events[network.event_count - 1].flags &= (uint16_t)~OS_MORE;
    network.sockets[slot].recv_tag = 0;
}

/* The peer ends the stream, or (error < 0) the connection breaks. */
static inline void network_end(uint32_t slot, int32_t error)
{
    struct fake_socket *socket = &network.sockets[slot];
    CHECK(socket->open && socket->recv_tag != 0);
    network_event(socket->recv_tag, error, 0, 0);
    socket->recv_tag = 0;
}
