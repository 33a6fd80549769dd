/*
 * loadgen.h - the loader's loop: sockets of all clients, one thread, one receive buffer.
 *
 * Walk:       from bench/scenario.c, which says what to send when; to bench/client.c with the
 *             bytes.
 * Threads:    one.
 * Ownership:  owns the epoll descriptor and the clients' sockets; the clients are the caller's.
 * Units:      nanoseconds of CLOCK_MONOTONIC.
 *
 * epoll and one 256 KiB buffer for every receive: the buffer stays in the second-level cache, where
 * provided buffers of io_uring would go through memory. In the pairs scenario, the hardest one for
 * the loader, nine tenths of its time are the kernel's TCP, which io_uring would not spare it.
 *
 * Invariants: (O1) a client with output that is not in the dirty list is blocked.
 *             (O2) every socket that is open belongs to a client that is neither IDLE nor CLOSED.
 */
#pragma once

#include "bench/client.h"

#include <netinet/in.h>

struct loadgen {
    struct clients *clients;
    struct sockaddr_in server;
    int epoll;
    uint8_t *buffer;
    uint32_t *dirty; /* clients with output to flush at the next turn */
    uint32_t dirty_count;
    uint64_t received_bytes, received_calls;
};

uint64_t loadgen_now_ns(void);

/* 0 or -errno. End with loadgen_free, which closes all sockets. */
int loadgen_init(struct loadgen *loadgen, struct clients *clients,
                 const struct sockaddr_in *server);
void loadgen_free(struct loadgen *loadgen);

/* Connects a client that is IDLE or CLOSED and sends its upgrade request. 0, or -errno with the
 * client as it was. */
int loadgen_open(struct loadgen *loadgen, struct client *client);

/* Closes its socket by a reset: thousands of sockets in TIME_WAIT would eat the next run's ports.
 */
void loadgen_close(struct loadgen *loadgen, struct client *client);

/* To be called after client_send; the bytes go out with the next turn. */
void loadgen_touch(struct loadgen *loadgen, struct client *client);

/* Sends what is queued, then waits until until_ns at most, and takes what has come: from 64 clients
 * at most, so that sends that are due are not kept waiting. 0 or -errno. */
int loadgen_turn(struct loadgen *loadgen, uint64_t until_ns);
