/*
 * persist_load.h - a shard's end of the persistence lane without a shard: records straight into
 *                  persist_start, for figures of persistence alone.
 *
 * Walk:       from bench/persist_redis.c, persist_mongodb.c and persist_history.c; by the rings of
 *             struct persist_lane to persist/persist.c, with persist.mode = redis+mongodb.
 * Threads:    one, beside those that persistence starts.
 * Ownership:  owns its rings, the persistence room and a directory that it makes and removes; the
 *             stores are the caller's.
 * Units:      sizes in bytes, _ns of the monotonic clock.
 *
 * Records are as shard/room_home.c makes them of a message with a text of `size` bytes: with 100 of
 * them about 310 bytes. There is no journal, so a record is "durable" when it is put; a rewind,
 * which only a failing Redis causes, is an error that ends the run.
 *
 * Invariants: (V1) seqs of a room rise by 1 from 1.
 *             (V2) positions rise by a record's size.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_figures.h"
#include "bench/persist_stores.h"
#include "core/config.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "persist/persist.h"

enum {
    PERSIST_LOAD_ROOMS_MAX = 1000,
    PERSIST_LOAD_RECORD_MAX = 2048,
    PERSIST_LOAD_TEXT_MAX = 1024,
    PERSIST_LOAD_EPOCH = 77,
};

struct persist_load;

/* A reply that is no watermark, credit or rewind. */
typedef void (*persist_load_reply)(void *context, const struct persist_head *reply, uint32_t size);

struct persist_load {
    struct config config;
    struct persist *persist; /* NULL: not open */
    bool started;
    struct persist_lane lane;
    struct doorbell bell;
    struct os_ring *ring;
    struct metrics metrics; /* of the persistence thread */
    struct mem_plan plan;
    char directory[CONFIG_TEXT_SIZE]; /* in config.server_data; empty: not made */
    struct persist_figures *figures;
    char room_name[16]; /* rooms are this and a number */
    uint32_t rooms, size;
    uint64_t seq[PERSIST_LOAD_ROOMS_MAX]; /* of each room's last record */
    uint64_t records, bytes;              /* put so far */
    uint64_t position;                    /* of the last one */
    uint64_t watermark;
    bool rewound;
    persist_load_reply reply;
    void *context;
};

/* The configuration that such a run begins with: defaults, mode, the stores, and where a directory
 * is made that damsod would have. */
void persist_load_config(struct config *config, const struct options *options,
                         const struct persist_stores *stores, const struct persist_space *space);

/* Opens persistence with load->config (set by persist_load_config and changed since), starts it
 * over one lane, and waits until both stores are used. 0, or -errno with the problem said; then
 * nothing is left to end. rooms: at most PERSIST_LOAD_ROOMS_MAX. */
NODISCARD int persist_load_begin(struct persist_load *load, uint32_t rooms, uint32_t size,
                                 struct persist_figures *figures);

/* Takes what is left, stops and closes; with the stores up everything is stored then. */
void persist_load_end(struct persist_load *load);

/* Makes all rooms in MongoDB. 0 or -errno, said. */
NODISCARD int persist_load_make_rooms(struct persist_load *load);

/* The name of a room. Returns it. */
struct slice persist_load_room(const struct persist_load *load, uint32_t room, char ret[32]);

/* Writes the record that comes next in the room; returns its size. */
uint32_t persist_load_record(const struct persist_load *load, uint32_t room, uint64_t seq,
                             uint8_t ret[PERSIST_LOAD_RECORD_MAX]);

/* Puts the room's next record into the ring. False: the ring is full, nothing was put. */
bool persist_load_put(struct persist_load *load, uint32_t room);

/* Says, as a shard does whose journal fills, that all that was put is to be stored soon: room 0's
 * last record once more, which is passed over. False: the ring is full. */
bool persist_load_hurry(struct persist_load *load);

/* Asks for a page of a room. False: the ring is full. */
bool persist_load_ask(struct persist_load *load, uint32_t room, uint64_t from_seq, uint32_t limit,
                      uint64_t token);

/* Shows what was put, and wakes the other side. */
void persist_load_publish(struct persist_load *load);

/* Takes all replies that are there; waits for the first one at most wait_ns. 0, -EPROTO: it was
 * rewound, a store failed. */
NODISCARD int persist_load_take(struct persist_load *load, int64_t wait_ns);

/* Puts count records, room after room in turn, waiting where the ring is full. until_ns bounds it.
 * 0, -ETIMEDOUT, -EPROTO, -EINTR. */
NODISCARD int persist_load_feed(struct persist_load *load, uint64_t count, uint64_t until_ns);

/* Waits until Redis has so many records that MongoDB does not have, and nothing is on its way
 * there.
 */
NODISCARD int persist_load_wait_pending(struct persist_load *load, uint64_t count,
                                        uint64_t until_ns);

/* Waits until all that was put is in MongoDB. */
NODISCARD int persist_load_wait_stored(struct persist_load *load, uint64_t until_ns);
