/*
 * rest.h - a plain HTTP client for set-up: many calls over a few connections, blocking.
 *
 * Threads:    one.
 * Ownership:  owns its sockets; requests and answers are in the caller's hands during the
 *             callbacks.
 * Units:      bytes, seconds.
 *
 * Understands what damsod answers: a status, Content-Length or nothing, keep-alive.
 */
#pragma once

#include "core/slice.h"

#include <netinet/in.h>
#include <stddef.h>

enum {
    REST_LANES = 16,            /* connections; requests are in flight on all of them */
    REST_REQUEST_MAX = 2048,    /* bytes, with its token */
    REST_ANSWER_MAX = 64 << 10, /* bytes, with its head */
    REST_TIMEOUT_S = 30,
};

struct rest {
    int fds[REST_LANES];
    struct sockaddr_in server;
};

/* What to ask and what to make of the answer; both get the call's number. */
struct rest_calls {
    uint32_t count;
    void *context;
    /* Writes a whole request into dst; returns its size or -errno. */
    int (*request)(void *context, uint32_t call, char *dst, size_t capacity);
    /* 0 to go on, -errno to stop. */
    int (*answer)(void *context, uint32_t call, int status, struct slice body);
};

/* Connects nothing yet. */
void rest_init(struct rest *rest, const struct sockaddr_in *server);
void rest_close(struct rest *rest);

/* Makes all calls, in no order. 0; -errno of the first that failed: -ECONNREFUSED and the like if
 * the server cannot be reached, -EPROTO for an answer that is not HTTP, or what answer returned. */
int rest_run(struct rest *rest, const struct rest_calls *calls);
