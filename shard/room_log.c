/* room_log.c - see room_log.h for L1 to L4. */
#include "shard/room_log.h"

#include "core/check.h"
#include "core/ws.h"
#include "shard/shard.h"

/* Bytes of one chunk with its header, and each class's share of rooms.chunk_bytes in percent. A
 * chunk filled within HOT_MS is followed by one of the next class, one that took COLD_MS by a
 * smaller one. */
static const struct {
    uint32_t bytes;
    uint32_t percent;
} classes[CHUNK_CLASSES] = {
    {1024, 15}, {4096, 15}, {16384, 20}, {65536, 40}, {CHUNK_BYTES_MAX, 10}};

enum { HOT_MS = 2000, COLD_MS = 60000, STEAL_TRIES_MAX = 8 };

void chunk_pools_init(struct shard *shard)
{
    static const char *const names[CHUNK_CLASSES] = {"room log 1 KiB", "room log 4 KiB",
                                                     "room log 16 KiB", "room log 64 KiB",
                                                     "room log 128 KiB"};
    for (uint32_t i = 0; i < CHUNK_CLASSES; i++) {
        const uint64_t bytes = shard->config->rooms_chunk_bytes / 100 * classes[i].percent;
        const uint64_t count = bytes / classes[i].bytes;
        pool_init(&shard->chunks.pools[i], &shard->plan, names[i], classes[i].bytes,
                  count > 4 ? (uint32_t)count : 4);
    }
}

void room_log_init(struct room_log *log, uint64_t seq)
{
    *log = (struct room_log){.first_seq = seq, .next_seq = seq, .durable = {.seq = seq}};
}

/* --- chunks --- */

static void unlist(struct chunk_pools *chunks, struct chunk *chunk)
{
    *(chunk->older != NULL ? &chunk->older->newer : &chunks->oldest[chunk->class]) = chunk->newer;
    *(chunk->newer != NULL ? &chunk->newer->older : &chunks->newest[chunk->class]) = chunk->older;
}

void chunk_hold(struct chunk *chunk)
{
    chunk->refs++;
}

void chunk_release(struct shard *shard, struct chunk *chunk)
{
    CHECK(chunk->refs > 0);
    if (--chunk->refs == 0) {
        pool_give(&shard->chunks.pools[chunk->class], chunk);
    }
}

/* L2: only what is durable may go. */
static bool first_may_go(const struct room_log *log)
{
    return log->first != NULL && log->first->last_seq < log->durable.seq;
}

static void drop_first(struct shard *shard, struct room_log *log)
{
    struct chunk *chunk = log->first;
    log->first = chunk->next;
    log->first_seq = chunk->last_seq + 1;
    log->bytes -= chunk->capacity;
    if (log->first == NULL) {
        log->last = NULL;
    }
    if (log->durable.chunk == chunk) {
        log->durable.chunk = NULL; /* L3: its seq is first_seq now, its position the beginning */
    }
    unlist(&shard->chunks, chunk);
    chunk->log = NULL;
    chunk_release(shard, chunk);
}

/* The oldest chunk of the class, whosever it is, makes place. */
static struct chunk *steal(struct shard *shard, uint32_t class)
{
    for (int i = 0; i < STEAL_TRIES_MAX; i++) {
        struct chunk *victim = shard->chunks.oldest[class];
        if (victim == NULL || victim->last_seq >= victim->log->durable.seq) {
            return NULL;
        }
        struct room_log *log = victim->log;
        bool gone = false;
        while (!gone) { /* up to the victim itself, which may be empty and have no seq of its own */
            gone = log->first == victim;
            drop_first(shard, log);
        }
        struct chunk *chunk = pool_take(&shard->chunks.pools[class]);
        if (chunk != NULL) {
            return chunk;
        }
    }
    return NULL;
}

static struct chunk *take_chunk(struct shard *shard, uint32_t class)
{
    struct chunk_pools *chunks = &shard->chunks;
    struct chunk *chunk = pool_take(&chunks->pools[class]);
    if (chunk == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_chunks);
        chunk = steal(shard, class);
    }
    if (chunk == NULL) {
        return NULL;
    }
    *chunk = (struct chunk){.refs = 1,
                            .class = (uint8_t) class,
                            .older = chunks->newest[class],
                            .opened_ms = shard->now_ms,
                            .capacity = classes[class].bytes - (uint32_t)sizeof(struct chunk)};
    *(chunk->older != NULL ? &chunk->older->newer : &chunks->oldest[class]) = chunk;
    chunks->newest[class] = chunk;
    return chunk;
}

/* --- appending --- */

static uint32_t next_class(const struct shard *shard, const struct room_log *log, uint32_t size)
{
    uint32_t class = log->class;
    if (log->last != NULL) {
        const uint64_t took_ms = shard->now_ms - log->last->opened_ms;
        if (took_ms < HOT_MS && class < CHUNK_CLASSES - 2) {
            class ++;
        } else if (took_ms > COLD_MS && class > 0) {
            class --;
        }
    }
    while (class < CHUNK_CLASSES && classes[class].bytes - sizeof(struct chunk) < size) {
        class ++;
    }
    return class;
}

static struct chunk *add_chunk(struct shard *shard, struct room_log *log, uint32_t size)
{
    const uint32_t class = next_class(shard, log, size);
    if (class == CHUNK_CLASSES) {
        return NULL;
    }
    while (log->bytes + classes[class].bytes > shard->config->rooms_log_bytes &&
           first_may_go(log)) {
        drop_first(shard, log); /* L4 */
    }
    struct chunk *chunk = take_chunk(shard, class);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->log = log;
    chunk->last_seq = log->next_seq - 1;
    *(log->last != NULL ? &log->last->next : &log->first) = chunk;
    log->last = chunk;
    log->bytes += chunk->capacity;
    log->class = class < CHUNK_CLASSES - 1 ? class : class - 1;
    return chunk;
}

char *room_log_reserve(struct shard *shard, struct room_log *log, uint32_t size)
{
    struct chunk *chunk = log->last;
    if (chunk == NULL || chunk->capacity - chunk->size < size) {
        chunk = add_chunk(shard, log, size);
    }
    return chunk != NULL ? chunk->data + chunk->size : NULL;
}

void room_log_commit(struct room_log *log, uint32_t size, uint32_t count)
{
    struct chunk *chunk = log->last;
    CHECK(chunk->capacity - chunk->size >= size);
    chunk->size += size;
    log->next_seq += count;
    chunk->last_seq = log->next_seq - 1; /* L1 */
}

struct log_cursor room_log_end(const struct room_log *log)
{
    return (struct log_cursor){.chunk = log->last,
                               .offset = log->last != NULL ? log->last->size : 0,
                               .seq = log->next_seq};
}

void room_log_set_durable(struct room_log *log, struct log_cursor position)
{
    CHECK(position.seq >= log->durable.seq && position.seq <= log->next_seq);
    log->durable = position;
}

void room_log_clear(struct shard *shard, struct room_log *log, uint64_t seq)
{
    while (log->first != NULL) {
        log->durable.seq = log->next_seq; /* the caller gives up whatever is there */
        drop_first(shard, log);
    }
    const uint32_t class = log->class;
    room_log_init(log, seq);
    log->class = class;
}

void room_log_trim(struct shard *shard, struct room_log *log, uint64_t before_ms)
{
    while (log->first != log->last && log->first->next->opened_ms < before_ms &&
           first_may_go(log)) {
        drop_first(shard, log);
    }
}

/* --- reading --- */

/* Puts the cursor where its next frame lies (L3); false: nothing durable is left for it. */
static bool settle(const struct room_log *log, struct log_cursor *cursor)
{
    if (cursor->seq >= log->durable.seq) {
        return false;
    }
    CHECK(cursor->seq >= log->first_seq);
    if (cursor->seq == log->first_seq) {
        cursor->chunk = log->first;
        cursor->offset = 0;
    }
    while (cursor->offset == cursor->chunk->size) { /* an event that was refused leaves one empty */
        cursor->chunk = cursor->chunk->next;
        cursor->offset = 0;
    }
    return true;
}

struct slice room_log_piece(const struct room_log *log, struct log_cursor *cursor,
                            struct chunk **ret_chunk)
{
    if (!settle(log, cursor)) {
        return (struct slice){NULL, 0};
    }
    struct chunk *chunk = cursor->chunk;
    const bool to_durable = log->durable.chunk == chunk;
    const uint32_t end = to_durable ? log->durable.offset : chunk->size;
    const struct slice piece = {chunk->data + cursor->offset, end - cursor->offset};
    cursor->offset = end;
    cursor->seq = to_durable ? log->durable.seq : chunk->last_seq + 1;
    *ret_chunk = chunk;
    return piece;
}

struct slice room_log_event(const struct room_log *log, struct log_cursor *cursor)
{
    struct ws_frame frame;
    if (!settle(log, cursor)) {
        return (struct slice){NULL, 0};
    }
    const char *at = cursor->chunk->data + cursor->offset;
    const int head =
        ws_decode_server((const uint8_t *)at, cursor->chunk->size - cursor->offset, &frame);
    CHECK(head > 0); /* our own frame */
    cursor->offset += (uint32_t)head + (uint32_t)frame.payload_size;
    cursor->seq++;
    return (struct slice){at + head, (uint32_t)frame.payload_size};
}

bool room_log_find(const struct room_log *log, uint64_t seq, struct log_cursor *ret)
{
    struct log_cursor cursor = {.seq = log->first_seq};
    if (seq < log->first_seq || seq > log->durable.seq) {
        return false;
    }
    if (seq == log->durable.seq) {
        *ret = log->durable;
        return true;
    }
    /* Whole chunks first: their last seq says what is behind them. */
    for (struct chunk *chunk = log->first; chunk->last_seq < seq; chunk = chunk->next) {
        cursor = (struct log_cursor){chunk, chunk->size, chunk->last_seq + 1};
    }
    while (cursor.seq < seq) {
        (void)room_log_event(log, &cursor);
    }
    *ret = cursor;
    return true;
}
