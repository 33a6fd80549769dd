/*
 * shard.h - all that one shard's thread owns, in one place.
 *
 * Walk:       every file of shard/ works on it; shard/loop.c turns it.
 * Threads:    one struct shard, one thread. What others may touch: ring (its doorbell), bell,
 *             metrics and closes (reading), the rings of mesh and lane at their other ends.
 * Ownership:  the shard owns everything reachable from here but config, server, persist, service,
 *             auth and web.
 */
#pragma once

#include "core/config.h"
#include "core/doorbell.h"
#include "core/hash.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "core/os.h"
#include "core/pool.h"
#include "core/rfc3339.h"
#include "core/timer.h"
#include "fileio/journal.h"
#include "persist/persist.h"
#include "shard/auth.h"
#include "shard/call.h"
#include "shard/conn.h"
#include "shard/handover.h"
#include "shard/key.h"
#include "shard/mesh.h"
#include "shard/room.h"
#include "shard/room_log.h"
#include "shard/user.h"

enum { SHARDS_MAX = 64 };

/* What a completion is of. */
enum tag_kind {
    TAG_ACCEPT = 1,
    TAG_RECV,
    TAG_SEND,
    TAG_CLOSE,
    TAG_SHUTDOWN,
    TAG_JOURNAL,
    TAG_DOORBELL,
};

struct web_files;
struct server;

struct shard {
    uint32_t index;
    uint32_t count; /* of all shards */
    const struct config *config;
    struct server *server;
    const struct service *service;
    struct os_ring *ring;
    struct doorbell bell;
    struct metrics *metrics;
    _Atomic uint64_t closes[CLOSE_REASONS]; /* as metrics: written here, read anywhere */
    struct mem_plan plan;
    int listener;
    uint32_t connections_max;

    /* The clock, read once a turn. */
    uint64_t now_ns;
    uint64_t now_ms;
    uint64_t wall_ms;
    struct rfc3339_cache time_cache;
    struct timer_wheel *wheel;

    struct journal *journal; /* NULL without a store (ws-echo) */
    struct persist *persist;
    struct persist_lane *lane;
    struct mesh mesh;
    struct handover handover;

    struct pool conns, blocks, large;
    struct pool calls, subs, rooms, users, members, keys, followers;
    uint32_t large_bytes; /* size of one large buffer */
    struct chunk_pools chunks;
    struct hash_key hash_key;
    struct room_table room_table;
    struct user_table user_table;
    struct key_table key_table;
    struct pending_table pending; /* published, not yet durable */

    struct conn *dirty_first, *dirty_last;
    struct conn *starved;
    struct room *replicate_first; /* rooms whose replicas are behind */
    struct room *fanout_first;    /* rooms with durable events not yet offered to their members */
    uint64_t round_ms; /* how long a busy room's rounds are spaced now (shard/egress.c) */
    uint64_t round_judged_ns;
    uint64_t round_cpu_ns;

    char *scratch; /* for building one answer */
    uint32_t scratch_bytes;
    char *page; /* for a page of history out of memory */
    uint32_t page_bytes;
    struct auth *auth;
    const struct web_files *web;
    bool accepting;
    bool stopping;
    uint64_t stop_by_ms;
    uint64_t next_session;
};

/* Plans everything of a shard but its peers, and makes what needs no ring. */
void shard_plan(struct shard *shard, const struct config *config, uint32_t index, uint32_t count,
                enum mem_mode mode);

/* Makes its ring: 0 or -errno, with a sentence for people in ret_why. */
NODISCARD int shard_open(struct shard *shard, char *ret_why, size_t why_size);

/* The sum of a shard's counters of one pool running dry: the one answer for all is that the caller
 * refuses. */
static inline void shard_exhausted(_Atomic uint64_t *counter)
{
    metrics_add(counter, 1);
}
