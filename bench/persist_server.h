/*
 * persist_server.h - a damsod of a persistence scenario: started with a configuration, filled, read
 *                    by REST, stopped.
 *
 * Threads:    one.
 * Ownership:  owns the process and its sockets; the directory is the caller's, so that another one
 *             can be started on it.
 * Units:      milliseconds where the name says so.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_child.h"
#include "bench/persist_figures.h"
#include "bench/persist_metrics.h"
#include "bench/rest.h"
#include "bench/token.h"

enum { PERSIST_SERVER_PATH = 512, PERSIST_SERVER_PAGE = 50 };

struct persist_server {
    struct persist_child child; /* pid 0: it does not run */
    struct options options;     /* for a load on it: where it is, and its key */
    char url[64];
    char key[PERSIST_SERVER_PATH];
    char token[TOKEN_BYTES_MAX];
    char log[PERSIST_SERVER_PATH];
    struct rest rest;
};

/* Starts damsod on DIRECTORY/data with that text as its configuration. 0, or -errno with the
 * problem said, the end of its log included; then it does not run. */
NODISCARD int persist_server_start(struct persist_server *server, const struct options *options,
                                   const char *directory, const char *config,
                                   struct persist_figures *figures);

/* Stops it and waits: with its stores up everything is stored then. Its exit status; 0 if it does
 * not run. */
int persist_server_stop(struct persist_server *server);

NODISCARD int persist_server_metrics(const struct persist_server *server,
                                     struct persist_metrics *ret, struct persist_figures *figures);

/* Waits until the store has everything that was acknowledged, at most timeout_s. The seconds that
 * it took, or -ETIMEDOUT and other -errno. */
double persist_server_settle(const struct persist_server *server, double timeout_s,
                             struct persist_figures *figures);

/* Makes a public room, and sends count messages of size bytes to it. 0 or -errno, said. */
NODISCARD int persist_server_fill(struct persist_server *server, const char *room, uint32_t count,
                                  uint32_t size, struct persist_figures *figures);

/* Reads the page of PERSIST_SERVER_PAGE events before that seq. 0 or -errno, said: -EBADMSG: it was
 * not all of them. */
NODISCARD int persist_server_page(struct persist_server *server, const char *room,
                                  uint64_t before_seq, double *ret_ms,
                                  struct persist_figures *figures);
