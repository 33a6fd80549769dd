/*
 * client.h - one connection's life and what each frame means to it. Bytes in, bytes out, no socket.
 *
 * Walk:       from bench/loadgen.c, which moves the bytes; to bench/checker.c.
 * Threads:    one.
 * Ownership:  `struct clients` owns everything; a client's input and output areas are its own.
 * Units:      bytes; times in nanoseconds of CLOCK_MONOTONIC.
 *
 *   IDLE --start--> UPGRADING --101--> OPEN --connected--> JOINING --joined--> LIVE
 *                                       |                                       |
 *                                       +--connected, nothing to join--> LIVE   +--leave--> LEAVING
 *                                                                                   --left--> LIVE
 *   any state --close, error, end of stream--> CLOSED
 *
 * Invariants: (L1) output[sent, end) has been queued and is not yet with the kernel.
 *             (L2) live counts the clients in LIVE, closed those in CLOSED.
 */
#pragma once

#include "bench/checker.h"
#include "bench/wsclient.h"

enum {
    CLIENT_INPUT_BYTES = 128 << 10, /* an unfinished frame; longer ones are an error */
    CLIENT_OUTPUT_BYTES = 128 << 10,
    CLIENT_ID_BASE = 1000000000, /* ids of sends all have ten digits, so that a template fits all */
    CLIENT_TOKEN_BYTES = 512,
    CLIENT_PROBLEM_BYTES = 256,
};

enum client_state {
    CLIENT_IDLE,
    CLIENT_UPGRADING,
    CLIENT_OPEN,
    CLIENT_JOINING,
    CLIENT_LEAVING,
    CLIENT_LIVE,
    CLIENT_CLOSED,
};

struct client {
    int fd;
    uint32_t index;
    uint32_t room;
    enum client_state state;
    bool dirty;   /* in the loop's list of clients with output */
    bool blocked; /* the kernel takes no more; the loop waits for it */
    uint32_t input_size;
    uint32_t output_sent, output_end;
    uint64_t started_ns; /* when the upgrade began */
    struct checker_member member;
    uint8_t *input;
    uint8_t *output;
};

/* A room's send request, with the places of what differs from message to message. */
struct client_template {
    char *bytes;
    uint32_t size, id_at, text_at;
};

struct clients {
    struct checker checker;
    struct client *all;
    struct client_template *templates; /* one a room */
    char *tokens;                      /* CLIENT_TOKEN_BYTES each */
    uint8_t *areas;                    /* input and output of all */
    uint32_t count;
    uint32_t live, closed;
    uint32_t mask_state; /* of the masks; RFC 6455 section 5.3 asks for fresh ones */
    uint32_t room_count;
    bool join;
    bool leave_after_join; /* stay a member, get nothing */
    uint64_t connected;    /* `connected` frames so far */
    struct histogram connect_latency;
    char host[80];
    char problem[CLIENT_PROBLEM_BYTES]; /* the first one, for people; empty: none */
};

struct clients_plan {
    uint32_t count, rooms;
    bool join, leave_after_join;
    const char *room_prefix; /* room ids are this and a number */
    const char *host;
    struct checker_limits limits;
};

/* Reserves and prepares all clients, IDLE, client i for room i modulo rooms. Tokens are the
 * caller's to fill in. 0, or -ENOMEM. */
int clients_init(struct clients *clients, const struct clients_plan *plan);
void clients_free(struct clients *clients);

/* Queues the upgrade request of an IDLE or CLOSED client with its token. */
void client_start(struct clients *clients, struct client *client, int fd, uint64_t now_ns);

/* Takes what was received. Returns the bytes used, the rest is an unfinished frame to be given
 * again with more behind it; -EPROTO if the connection cannot go on, with clients->problem set. */
int64_t client_input(struct clients *clients, struct client *client, const uint8_t *data,
                     size_t size, uint64_t now_ns);

/* Queues a message that was due at intended_ns. False, with nothing done, if the client cannot take
 * it now: it is not LIVE, its output is full, or the run's messages are used up. */
bool client_send(struct clients *clients, struct client *client, uint64_t intended_ns);

/* Ends the client; the caller closes its socket. */
void client_close(struct clients *clients, struct client *client);

/* Notes the first problem of a run, as printf. */
void clients_problem(struct clients *clients, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline uint32_t client_pending(const struct client *client)
{
    return client->output_end - client->output_sent;
}
