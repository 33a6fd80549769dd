/*
 * mongo.h - MongoDB through libmongoc: a pool of connections, commands, bulks, and what an error
 *           means to us. The only file that names libmongoc; documents are libbson's.
 *
 * Walk:       from persist/store_mongo*.c, which know our collections; to the server.
 * Threads:    struct mongo is shared (libmongoc's pool, with its monitor threads: a single client
 *             without them stood still for 16 s in a fault of 4 s, measured). A client belongs to
 *             the thread that took it, until it gives it back. Every call blocks, bounded by the
 *             time-outs of the options.
 * Ownership:  options are copied. Documents handed in are read during the call; those handed out
 *             are good during the callback.
 * Units:      times in milliseconds.
 *
 * Everything is written with {w: "majority", j: true}, and read from the primary with readConcern
 * "majority" where the server has it ("local" otherwise: see mongo_find).
 *
 * Invariants: (G1) a call that returns 0 was acknowledged; one that returns -EAGAIN may have been
 *                  applied, wholly, in part or not at all.
 *             (G2) no text that comes out of here holds a password.
 */
#pragma once

#include "core/check.h"
#include "core/mem.h"

#include <bson/bson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MONGO_URI_BYTES_MAX = 4096, MONGO_WHY_BYTES = 384, MONGO_BULK_MAX = 1000 };

struct mongo;
struct mongo_client;

struct mongo_options {
    const char *uri; /* mongodb://... or mongodb+srv://..., with a database in its path; ours for
                      * time-outs, w, journal and pool size override what it says */
    uint32_t connect_ms;   /* also how long a server is looked for */
    uint32_t socket_ms;    /* silence of a server that has a command */
    uint32_t clients;      /* of the pool: one for each thread that works at the same time */
    struct mem_plan *plan; /* not sealed yet: struct mongo lies in it */
};

/* The last failure of a client's call. */
struct mongo_error {
    int error;    /* see mongo_errno */
    int32_t code; /* the server's, or 0 */
    char text[MONGO_WHY_BYTES];
};

/* Starts libmongoc (once a process), checks the URI and makes the pool; connects to nothing yet,
 * but asks the name server for a mongodb+srv name (one that is not found is asked for again later).
 * 0, or -EINVAL with ret_why a sentence for people (what is wrong with the URI, never its
 * password), -ENOMEM. */
NODISCARD int mongo_open(const struct mongo_options *options, struct mongo **ret, char *ret_why,
                         size_t why_size);

/* Its line in a MEM_COUNT plan. */
void mongo_plan(uint32_t clients, struct mem_plan *plan);

/* All clients were given back. NULL is nothing. */
void mongo_close(struct mongo *mongo);

/* The database of the URI. */
const char *mongo_database(const struct mongo *mongo);

/* Hosts of the URI, for messages: "127.0.0.1:27017,127.0.0.1:27018". */
const char *mongo_hosts(const struct mongo *mongo);

/* A client of the pool: there is one for each thread that was planned for. */
struct mongo_client *mongo_take(struct mongo *mongo);
void mongo_give(struct mongo *mongo, struct mongo_client *client);

/* What the server's code, or libmongoc's domain and code, means: -EAGAIN try again later (network,
 * time-outs, no primary, a write concern that was not met, shutting down, stepping down, conflicts,
 * internal errors, and the label RetryableWriteError), -EEXIST duplicate key (11000, 11001, 12582),
 * -EACCES no right or not signed in (13, 18, 8000), -EBADMSG refused by validation (121), -EMSGSIZE
 * too large (10334, 17280, 17419, 17420), -ENOTSUP the server does not know the command or option
 * (59, 115, 238, 303), -EINVAL otherwise. The whole table is in mongo.c and in the docs. */
int mongo_errno(uint32_t domain, uint32_t code, const bson_t *reply);

/* Runs a command on our database; write: with our write concern; of these the driver retries
 * findAndModify once. An update or insert command that was refused in part is an error. row, if not
 * NULL, is called with the reply. 0, or -errno with ret_error filled in. */
typedef int (*mongo_row)(void *context, const bson_t *document);
NODISCARD int mongo_command(struct mongo_client *client, const bson_t *command, bool write,
                            mongo_row row, void *context, struct mongo_error *ret_error);

/* Documents that match: row is called with each; 0 goes on, > 0 ends the reading (which then
 * returns 0), < 0 ends it with that error. options: sort, limit, projection, hint as in the find
 * command; maxTimeMS is set by us. */
NODISCARD int mongo_find(struct mongo_client *client, const char *collection, const bson_t *filter,
                         const bson_t *options, mongo_row row, void *context,
                         struct mongo_error *ret_error);

/* How many documents match, counted by the server ($group over an index range), or -errno. */
NODISCARD int64_t mongo_count(struct mongo_client *client, const char *collection,
                              const bson_t *filter, struct mongo_error *ret_error);

/* One document of a bulk that was refused: index in the bulk, the server's code and text. */
typedef void (*mongo_refused)(void *context, uint32_t index, int error, int32_t code,
                              const char *text);

/* Inserts 1 to MONGO_BULK_MAX documents, unordered. 0: all but those told to refused are durable
 * (refused is called for per-document errors only, -EEXIST among them). -errno: as G1 says. */
NODISCARD int mongo_insert(struct mongo_client *client, const char *collection,
                           const bson_t *const *documents, uint32_t count, mongo_refused refused,
                           void *context, struct mongo_error *ret_error);

/* One update of a bulk. */
struct mongo_update {
    const bson_t *filter;
    const bson_t *update;
    bool upsert;
};

/* The same for updates of one document each, unordered. */
NODISCARD int mongo_update(struct mongo_client *client, const char *collection,
                           const struct mongo_update *updates, uint32_t count,
                           mongo_refused refused, void *context, struct mongo_error *ret_error);

/* A round trip to the primary: 0 or -errno. */
NODISCARD int mongo_ping(struct mongo_client *client, struct mongo_error *ret_error);
