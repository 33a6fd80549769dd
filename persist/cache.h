/*
 * cache.h - our scheme in Redis: what is durable in the journal and not yet in MongoDB lies here,
 *           a list a room, so that history can be read and batches can be taken from it.
 *
 *   {prefix}{room}:log               list of records (core/record.h), in the order of their seq
 *   {prefix}{room}:flush:OWNER.N     the same, frozen: a batch that is on its way to MongoDB
 *   {prefix}{room}:owner             number of the damsod that may write here (fence)
 *
 * with the room_id in braces, so that the keys of a room are in one slot of a cluster.
 *
 * Walk:       from persist/append.c (records), persist/flush.c (freeze, read, unlink) and
 *             persist/tail.c (history); to persist/redis.c.
 * Threads:    a cache is one connection and belongs to one thread at a time. Calls block, bounded
 *             by the connection's time-outs.
 * Ownership:  slices handed in are read during the call; those handed out are good during the
 *             callback.
 *
 * OWNER is a number that rises with every start of a damsod (persist/store_mongo.h gives it); N
 * rises within a run. Every script that writes compares {room}:owner: a higher number there means
 * that another damsod has taken over, and nothing is written (-ESTALE). A lower one, or none, is
 * replaced by ours. The owner key expires 7 days after a room's last freeze (or its first append
 * since), long after the fence in MongoDB holds. A key that is in our way becomes
 * {key}:foreign:OWNER.TIME, a list that nobody claims {key}:orphan:OWNER.TIME, with the server's
 * time in microseconds; neither is read or removed by us.
 *
 * Invariants: (C1) nothing in a list is ever changed; a list is only appended to, renamed or
 *                  unlinked as a whole.
 *             (C2) a frozen key's name is used once.
 *             (C3) after any -errno but -ESTALE, -ENOSPC, -EEXIST, -ENOENT the connection is
 * closed: it is unknown what was written.
 */
#pragma once

#include "core/check.h"
#include "core/mem.h"
#include "core/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CACHE_RUN_ID_BYTES = 40,
    CACHE_PREFIX_BYTES_MAX = 64,
    CACHE_RECORDS_MAX = 1000,     /* of one append */
    CACHE_COMMANDS_MAX = 65536,   /* queued between two cache_finish */
    CACHE_READ_RECORDS_MAX = 500, /* of one LRANGE: with the largest records of damso (127 KiB and
                                   * their header) they stay below REDIS_REPLY_BYTES_MAX */
};

/* Owners are compared by Lua, whose numbers are exact up to here. */
#define CACHE_OWNER_MAX ((UINT64_C(1) << 53) - 1)

struct cache;

struct cache_options {
    const char *url; /* as in persist/redis.h */
    const char *ca_file;
    const char *prefix; /* of all our keys: letters, digits and . _ - : / */
    uint32_t connect_ms;
    uint32_t reply_ms;
    struct mem_plan *plan; /* not sealed yet; owns the memory */
};

/* Checks the options. 0 or -EINVAL, -ENOMEM with ret_why a sentence for people. In a MEM_COUNT plan
 * it only counts, checks nothing, and *ret is NULL. cache_close of NULL is nothing. */
NODISCARD int cache_open(const struct cache_options *options, struct cache **ret, char *ret_why,
                         size_t why_size);
void cache_close(struct cache *cache);

/* Connects and prepares: reads run_id, checks the version (6.2 at least) and that maxmemory-policy
 * is noeviction, loads the scripts. 0, or as redis_connect, or -ENOTSUP: the server is there but
 * must not be used as it is; cache_why then names the command that mends it ("CONFIG SET
 * maxmemory-policy noeviction"). A server that refuses CONFIG or INFO (managed Redis, ACL) is used
 * if INFO's maxmemory_policy can be read; else -ENOTSUP says so. owner: see above, at most
 * CACHE_OWNER_MAX (-EINVAL); 0: only reads, of logs and what cache_scan finds. */
NODISCARD int cache_connect(struct cache *cache, uint64_t owner);
bool cache_is_open(const struct cache *cache);
void cache_disconnect(struct cache *cache);
const char *cache_why(const struct cache *cache);

/* The server's run_id at the last connect: another one than before means that it was restarted. */
void cache_run_id(const struct cache *cache, char ret[CACHE_RUN_ID_BYTES]);

/* How often one of our keys was found to be something else and was renamed away. */
uint64_t cache_foreign_keys(const struct cache *cache);

/* --- writing: pipelined; every _begin-less call below may be queued many times, then cache_finish
 * sends the rest and takes the replies --- */

/* What became of one queued command, in the order of queueing: 0, -ESTALE fenced, -ENOSPC Redis is
 * at maxmemory (nothing was written; only appends can have it), -EEXIST the frozen key is there
 * already, -ENOENT nothing to freeze, -EIO any other error reply (nothing was written). An error
 * reply that concerns all of us (no right, a replica, its disk is broken, still loading) closes the
 * connection instead: -EACCES, -EROFS, -EAGAIN, -ENOTSUP of the call that saw it. */
typedef void (*cache_result)(void *context, uint32_t index, int result);

/* Queues an append of 1 to CACHE_RECORDS_MAX records to a room's log: one script, one variadic
 * RPUSH. Whenever 1,000 commands or 1 MiB are queued without replies, waits for those first. A key
 * of ours that is no list (somebody else wrote there) is renamed away and counted. Between two
 * cache_finish at most CACHE_COMMANDS_MAX calls of these five. 0 or -errno (C3). */
NODISCARD int cache_append(struct cache *cache, struct slice room_id, const struct slice *records,
                           uint32_t count);

/* Queues: log becomes flush:OWNER.number (RENAMENX), fenced. */
NODISCARD int cache_freeze(struct cache *cache, struct slice room_id, uint64_t number);

/* Queues: the frozen key goes (UNLINK), fenced. */
NODISCARD int cache_unlink(struct cache *cache, struct slice room_id, uint64_t number);

/* Queue what cache_claim does, and cache_remove_found without keep. */
NODISCARD int cache_queue_claim(struct cache *cache, struct slice room_id);
NODISCARD int cache_queue_remove(struct cache *cache, struct slice room_id, uint64_t owner,
                                 uint64_t number);

/* Sends what is queued, waits for all replies and tells each result (also those that the calls
 * above had to wait for), then starts counting from 0. 0 or -errno (C3): then nothing was told that
 * is not true, and the rest is unknown. */
NODISCARD int cache_finish(struct cache *cache, cache_result result, void *context);

/* --- reading --- */

/* A part of a list: number 0: the log, else the frozen key OWNER.number. */
struct cache_range {
    struct slice room_id;
    uint64_t number;
    uint32_t first, last; /* indices of list elements, both inside; UINT32_MAX: the end */
};

/* A record's bytes, as they were appended. 0 goes on, < 0 ends the reading with that error. range:
 * index of the range asked for. */
typedef int (*cache_row)(void *context, uint32_t range, struct slice record);

/* Reads ranges in the order given, pipelined; a key that is not there is an empty range, one that
 * is no list is too. A range of more than CACHE_READ_RECORDS_MAX records is read in pieces of so
 * many, between which the list may grow or, if it is a log, be frozen: then what follows is
 * missing, or of the new log. The callback must not call this cache. 0 or -errno (C3; the
 * callback's own error leaves the connection open). */
NODISCARD int cache_read(struct cache *cache, const struct cache_range *ranges, uint32_t count,
                         cache_row row, void *context);

/* --- taking over --- */

/* A list that was found: number and owner 0: a log. 0 goes on, < 0 ends it. */
typedef int (*cache_found)(void *context, struct slice room_id, uint64_t owner, uint64_t number);

/* Every list under our prefix, whoever left it, by SCAN (a list may be told twice). The callback
 * must not call this cache. */
NODISCARD int cache_scan(struct cache *cache, cache_found found, void *context);

/* Makes the room ours (the owner key), so that nobody older writes to it any more; at maxmemory
 * too. -ESTALE: somebody newer has it. */
NODISCARD int cache_claim(struct cache *cache, struct slice room_id);

/* Reads a found list whole, in pieces. A list found under another owner's number is read by it. */
NODISCARD int cache_read_found(struct cache *cache, struct slice room_id, uint64_t owner,
                               uint64_t number, cache_row row, void *context);

/* As cache_read, of found lists: the one of ranges[i] was found under owners[i]. */
NODISCARD int cache_read_owned(struct cache *cache, const struct cache_range *ranges,
                               const uint64_t *owners, uint32_t count, cache_row row,
                               void *context);

/* Removes a found list, or with keep renames it to {key}:orphan:OWNER.TIME, where it does no harm
 * and is found by people. 0 also if it is not there; -ESTALE: somebody newer has the room. */
NODISCARD int cache_remove_found(struct cache *cache, struct slice room_id, uint64_t owner,
                                 uint64_t number, bool keep);

/* Whether Redis takes what an append does (on a key of ours that goes again): 0, or -ENOSPC
 * (maxmemory), -EROFS, -EACCES and others (C3): then it is closed. */
NODISCARD int cache_probe(struct cache *cache);

/* A round trip (PING): 0 or -errno (C3). */
NODISCARD int cache_ping(struct cache *cache);
