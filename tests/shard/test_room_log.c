/*
 * test_room_log.c - a room's log gives every cursor every event once and in order, or says that it
 *                   lost some (L1 to L4 of room_log.h), also while logs take chunks from each
 * other.
 *
 * Method: small pools, so that stealing is the usual case; a long random walk over several logs
 * whose events name themselves, with readers at every distance, against what was appended.
 */
#include "tests/shard/shard_rig.h"

enum { LOGS = 5, READERS = 4, STEPS = 60000, EVENT_BYTES_MAX = 40000, HOLDS = 6 };

struct reader {
    struct log_cursor cursor;
    uint64_t gaps;
};

static struct room_log logs[LOGS];
static struct reader readers[LOGS][READERS];
static struct log_cursor ends[LOGS][64]; /* of events not durable yet, oldest first */
static uint32_t end_count[LOGS];

struct payload {
    uint64_t log, seq;
};

static void begin(uint64_t chunk_bytes, uint64_t log_bytes)
{
    rig_config();
    rig.config.rooms_chunk_bytes = chunk_bytes;
    rig.config.rooms_log_bytes = log_bytes;
    rig_begin();
}

static char *put_event(struct room_log *log, uint32_t number, uint32_t size)
{
    char *frame = room_log_reserve(&rig.shard, log, size + WS_HEADER_SIZE_MAX);
    if (frame == NULL) {
        return NULL;
    }
    const struct payload payload = {number, log->next_seq};
    uint8_t header[WS_HEADER_SIZE_MAX];
    const uint32_t header_bytes = ws_encode_header(header, WS_TEXT, size);
    memset(frame + header_bytes, (char)payload.seq, size);
    memcpy(frame, header, header_bytes);
    memcpy(frame + header_bytes, &payload, sizeof(payload));
    return frame;
}

static bool append(struct room_log *log, uint32_t number, uint32_t size)
{
    uint8_t header[WS_HEADER_SIZE_MAX];
    if (put_event(log, number, size) == NULL) {
        return false;
    }
    room_log_commit(log, ws_encode_header(header, WS_TEXT, size) + size, 1);
    return true;
}

static void append_durable(struct room_log *log, uint32_t number, uint32_t size)
{
    CHECK(append(log, number, size));
    room_log_set_durable(log, room_log_end(log));
}

/* Checks the events of a piece: from seq on, whole, of that log. Returns the seq behind them. */
static uint64_t check_piece(struct slice piece, uint32_t number, uint64_t seq)
{
    for (uint32_t at = 0; at < piece.size; seq++) {
        struct ws_frame frame;
        struct payload payload;
        const int head =
            ws_decode_server((const uint8_t *)piece.data + at, piece.size - at, &frame);
        CHECK(head > 0 && (uint32_t)head + frame.payload_size <= piece.size - at);
        memcpy(&payload, piece.data + at + head, sizeof(payload));
        CHECK(payload.log == number && payload.seq == seq);
        const char *last = piece.data + at + head + frame.payload_size - 1;
        CHECK(frame.payload_size == sizeof(payload) || *last == (char)seq);
        at += (uint32_t)head + (uint32_t)frame.payload_size;
    }
    return seq;
}

static void read_some(uint32_t number, struct reader *reader)
{
    const struct room_log *log = &logs[number];
    struct chunk *chunk = NULL;
    if (room_log_lost(log, &reader->cursor)) {
        reader->cursor = (struct log_cursor){.seq = log->first_seq};
        reader->gaps++;
    }
    if (!room_log_has_more(log, &reader->cursor)) {
        return;
    }
    const uint64_t from = reader->cursor.seq;
    const struct slice piece = room_log_piece(log, &reader->cursor, &chunk);
    CHECK(piece.size > 0 && chunk != NULL); /* or whoever waits for it waits for ever */
    CHECK(check_piece(piece, number, from) == reader->cursor.seq);
    CHECK(reader->cursor.seq <= log->durable.seq); /* L2 */
}

static void check_log(const struct room_log *log)
{
    uint32_t bytes = 0;
    uint64_t last = log->first_seq - 1;
    CHECK(log->first_seq <= log->durable.seq && log->durable.seq <= log->next_seq); /* L2 */
    for (const struct chunk *chunk = log->first; chunk != NULL; chunk = chunk->next) {
        CHECK(chunk->log == log && chunk->last_seq >= last);
        CHECK((chunk->size == 0) == (chunk->last_seq == last)); /* L1 */
        CHECK(chunk->next != NULL || chunk == log->last);
        last = chunk->last_seq;
        bytes += chunk->capacity;
    }
    CHECK(last == log->next_seq - 1 && bytes == log->bytes);
}

static void become_durable(uint32_t number, uint32_t count)
{
    CHECK(count <= end_count[number]);
    if (count > 0) {
        room_log_set_durable(&logs[number], ends[number][count - 1]);
        end_count[number] -= count;
        memmove(ends[number], ends[number] + count, end_count[number] * sizeof(ends[number][0]));
    }
}

static uint32_t random_size(void)
{
    const uint64_t kind = disk_random() % 100;
    const uint32_t most = kind < 80 ? 300 : kind < 97 ? 6000 : EVENT_BYTES_MAX;
    return (uint32_t)sizeof(struct payload) + (uint32_t)(disk_random() % most);
}

/* A send in flight keeps its bytes, whatever becomes of the log. */
struct hold {
    struct chunk *chunk;
    struct slice piece;
    uint32_t number;
    uint64_t seq;
};
static struct hold holds[HOLDS];

static void hold_or_let_go(uint32_t number, struct hold *hold)
{
    const struct room_log *log = &logs[number];
    struct log_cursor cursor = {.seq = log->first_seq};
    if (hold->chunk != NULL) {
        (void)check_piece(hold->piece, hold->number, hold->seq);
        chunk_release(&rig.shard, hold->chunk);
        hold->chunk = NULL;
    } else if (room_log_has_more(log, &cursor)) {
        hold->number = number;
        hold->seq = cursor.seq;
        hold->piece = room_log_piece(log, &cursor, &hold->chunk);
        chunk_hold(hold->chunk);
    }
}

static void step(uint32_t number, uint64_t what)
{
    struct room_log *log = &logs[number];
    if (what < 50) {
        if (end_count[number] == 64) {
            become_durable(number, 64);
        } else if (append(log, number, random_size())) {
            ends[number][end_count[number]++] = room_log_end(log);
        }
    } else if (what < 55) {
        (void)put_event(log, number, random_size()); /* the journal refused: it is not committed */
    } else if (what < 70) {
        become_durable(number, (uint32_t)(disk_random() % (end_count[number] + 1)));
    } else if (what < 72) {
        room_log_trim(&rig.shard, log, rig.shard.now_ms);
    } else if (what < 78) {
        hold_or_let_go(number, &holds[disk_random() % HOLDS]);
    } else {
        read_some(number, &readers[number][disk_random() % READERS]);
    }
}

static void a_long_walk_loses_nothing_silently(void)
{
    uint64_t gaps = 0;
    uint64_t events = 0;
    begin(1 << 19, 1 << 17);
    for (uint32_t i = 0; i < LOGS; i++) {
        room_log_init(&logs[i], 1 + i * 1000);
        end_count[i] = 0;
        for (uint32_t r = 0; r < READERS; r++) {
            readers[i][r] = (struct reader){.cursor = logs[i].durable};
        }
    }
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint32_t number = (uint32_t)(disk_random() % LOGS);
        step(number, disk_random() % 100);
        rig.shard.now_ms += disk_random() % 400;
        if (i % 8 == 0) {
            check_log(&logs[number]);
        }
    }
    for (uint32_t i = 0; i < LOGS; i++) {
        become_durable(i, end_count[i]);
        check_log(&logs[i]);
        for (uint32_t r = 0; r < READERS; r++) {
            for (uint32_t n = 0; n < STEPS && readers[i][r].cursor.seq < logs[i].next_seq; n++) {
                read_some(i, &readers[i][r]);
            }
            CHECK(readers[i][r].cursor.seq == logs[i].next_seq);
            gaps += readers[i][r].gaps;
        }
        events += logs[i].next_seq;
        room_log_clear(&rig.shard, &logs[i], 7);
        CHECK(logs[i].first == NULL && logs[i].first_seq == 7 && logs[i].bytes == 0);
    }
    for (uint32_t i = 0; i < HOLDS; i++) {
        if (holds[i].chunk != NULL) {
            hold_or_let_go(0, &holds[i]);
        }
    }
    for (uint32_t i = 0; i < CHUNK_CLASSES; i++) {
        CHECK(rig.shard.chunks.pools[i].used == 0);
    }
    CHECK(gaps > 100 && events > 10000); /* else the walk was too easy */
    CHECK(metrics_get(&rig.shard.metrics->pool_exhausted_total_chunks) > 100);
    rig_end();
}

static void find_gives_any_event_in_memory_and_no_other(void)
{
    struct room_log log;
    struct log_cursor cursor;
    begin(1 << 22, 1 << 20);
    room_log_init(&log, 5);
    CHECK(room_log_find(&log, 5, &cursor) && cursor.seq == 5); /* the end of an empty log */
    CHECK(!room_log_find(&log, 4, &cursor) && !room_log_find(&log, 6, &cursor));
    for (uint32_t i = 0; i < 500; i++) {
        append_durable(&log, 9, 100 + i % 50);
    }
    CHECK(append(&log, 9, 100)); /* seq 505 is not durable */
    for (uint64_t seq = 5; seq < 505; seq++) {
        CHECK(room_log_find(&log, seq, &cursor) && cursor.seq == seq);
        const struct slice event = room_log_event(&log, &cursor);
        struct payload payload;
        memcpy(&payload, event.data, sizeof(payload));
        CHECK(payload.seq == seq && event.size == 100 + (seq - 5) % 50 && cursor.seq == seq + 1);
    }
    CHECK(room_log_find(&log, 505, &cursor) && room_log_event(&log, &cursor).size == 0);
    CHECK(!room_log_find(&log, 506, &cursor));
    room_log_clear(&rig.shard, &log, 1);
    rig_end();
}

static void a_log_stays_below_its_bytes_and_a_quiet_one_shrinks(void)
{
    struct room_log log;
    begin(1 << 23, 1 << 18);
    room_log_init(&log, 1);
    for (uint32_t i = 0; i < 5000; i++) {
        append_durable(&log, 1, 200);
        rig.shard.now_ms += 1;
        CHECK(log.bytes <= 1 << 18); /* L4 */
    }
    CHECK(log.first_seq > 1 && log.next_seq == 5001);
    rig.shard.now_ms += 100000;
    append_durable(&log, 1, CHUNK_BYTES_MAX / 2);
    room_log_trim(&rig.shard, &log, rig.shard.now_ms - 1000);
    CHECK(log.first != log.last); /* the last chunk was opened since: the one before may be young */
    room_log_trim(&rig.shard, &log, rig.shard.now_ms + 1);
    CHECK(log.first == log.last && log.next_seq == 5002); /* down to one */
    room_log_clear(&rig.shard, &log, 1);
    rig_end();
}

static void what_is_not_durable_is_never_taken(void)
{
    struct room_log first;
    struct room_log second;
    begin(1 << 16, 1 << 20); /* four chunks of the larger classes */
    room_log_init(&first, 1);
    room_log_init(&second, 1);
    uint64_t count = 0;
    while (append(&first, 1, 50000) && count < 100) {
        count++;
    }
    CHECK(count > 1 && count < 100);
    CHECK(!append(&second, 2, 50000)); /* nothing may go for it */
    CHECK(first.first_seq == 1 && first.next_seq == count + 1);
    room_log_set_durable(&first, room_log_end(&first));
    CHECK(append(&second, 2, 50000)); /* now the oldest may */
    CHECK(first.first_seq > 1);
    room_log_clear(&rig.shard, &first, 1);
    room_log_clear(&rig.shard, &second, 1);
    rig_end();
}

/* A refused event leaves an empty chunk: when all others need chunks of its class, it goes. */
static void an_empty_chunk_can_be_taken_too(void)
{
    struct room_log empty;
    struct room_log busy;
    begin(1 << 16, 1 << 24);
    room_log_init(&empty, 1);
    room_log_init(&busy, 1);
    append_durable(&empty, 1, 20);
    CHECK(put_event(&empty, 1, 60000) != NULL); /* the oldest chunk of its class, never filled */
    for (uint32_t i = 0; i < 20; i++) {
        append_durable(&busy, 2, 60000);
    }
    CHECK(empty.next_seq == 2 && busy.next_seq == 21);
    room_log_clear(&rig.shard, &empty, 1);
    room_log_clear(&rig.shard, &busy, 1);
    rig_end();
}

static void an_event_above_all_chunks_is_refused(void)
{
    struct room_log log;
    begin(1 << 22, 1 << 20);
    room_log_init(&log, 1);
    CHECK(!append(&log, 1, CHUNK_BYTES_MAX));
    append_durable(&log, 1, ROOM_EVENT_BYTES_MAX); /* the largest that handle_send lets through */
    room_log_clear(&rig.shard, &log, 1);
    rig_end();
}

int main(void)
{
    a_long_walk_loses_nothing_silently();
    find_gives_any_event_in_memory_and_no_other();
    a_log_stays_below_its_bytes_and_a_quiet_one_shrinks();
    what_is_not_durable_is_never_taken();
    an_empty_chunk_can_be_taken_too();
    an_event_above_all_chunks_is_refused();
    puts("6 passed, 0 failed");
    return 0;
}
