/* cache_read.c - the cache's reading and taking over; see cache.h for C1 to C3. */
#include "persist/cache_own.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { READ_WINDOW = 64, SCAN_STEPS_MAX = 1 << 24 };

/* --- reading --- */

/* One call of cache_read. */
struct reading {
    const struct cache_range *ranges;
    uint32_t count;
    uint64_t owner; /* of frozen keys */
    cache_row row;
    void *context;
    int row_error;          /* the callback's */
    const uint64_t *owners; /* each range's; NULL: owner */
};

/* Up to CACHE_READ_RECORDS_MAX records of a range. */
struct piece {
    uint32_t range;
    uint64_t first;
    bool open; /* the range has no end: if this piece is full there may be more */
};

/* The piece behind this one, if this one is not the list's last. */
static struct piece next_piece(const struct reading *reading, struct piece piece)
{
    const uint64_t next = piece.first + CACHE_READ_RECORDS_MAX;
    const struct cache_range *ranges = reading->ranges;

    if (!piece.open && next <= ranges[piece.range].last) {
        piece.first = next;
        return piece;
    }
    piece.range++;
    if (piece.range < reading->count) {
        piece.first = ranges[piece.range].first;
        piece.open = ranges[piece.range].last == UINT32_MAX;
    }
    return piece;
}

static int ask_piece(struct cache *cache, const struct reading *reading, struct piece piece)
{
    const struct cache_range *range = &reading->ranges[piece.range];
    const uint64_t owner = reading->owners != NULL ? reading->owners[piece.range] : reading->owner;
    const struct slice key = cache_list_key(cache, 0, range->room_id, owner, range->number);
    uint64_t last = piece.first + CACHE_READ_RECORDS_MAX - 1;
    char numbers[2][CACHE_NUMBER_BYTES];

    last = last < range->last ? last : range->last;
    const int sizes[] = {
        snprintf(numbers[0], CACHE_NUMBER_BYTES, "%" PRIu64, piece.first),
        snprintf(numbers[1], CACHE_NUMBER_BYTES, "%" PRIu64, last),
    };
    return redis_add(cache->redis, 4,
                     (struct slice[]){SLICE("LRANGE"),
                                      key,
                                      {numbers[0], (uint32_t)sizes[0]},
                                      {numbers[1], (uint32_t)sizes[1]}});
}

/* Takes the reply for a piece, and gives its rows if they are wanted: their number, 0 also if the
 * key is no list, or -errno with the connection closed. */
static int take_piece(struct cache *cache, struct reading *reading, uint32_t range, bool wanted)
{
    struct redis_reply reply;
    const int error = redis_reply(cache->redis, &reply);

    if (error < 0) {
        return error;
    }
    if (reply.type == REDIS_ERROR) {
        const int why = redis_error(reply.text);
        return why == -EMEDIUMTYPE ? 0 : cache_give_up(cache, why, "LRANGE", reply.text);
    }
    if (reply.type != REDIS_ARRAY) {
        return cache_give_up(cache, -EPROTO, "LRANGE gives no list", SLICE(""));
    }
    for (uint32_t i = 0; i < reply.count && wanted && reading->row_error == 0; i++) {
        const struct redis_reply record = redis_element(&reply, i);
        if (record.type != REDIS_STRING) {
            return cache_give_up(cache, -EPROTO, "LRANGE gives no texts", SLICE(""));
        }
        const int answer = reading->row(reading->context, range, record.text);
        reading->row_error = answer < 0 ? answer : 0;
    }
    return (int)reply.count;
}

/* Asks for up to READ_WINDOW pieces from *at on and gives them; *at is where to go on. A range
 * without an end that has more than its first piece makes the answers behind it useless: they are
 * asked for again. */
static int read_window(struct cache *cache, struct reading *reading, struct piece *at)
{
    struct piece pieces[READ_WINDOW + 1] = {*at};
    uint32_t asked = 0;
    bool useless = false;

    while (asked < READ_WINDOW && pieces[asked].range < reading->count) {
        const int error = ask_piece(cache, reading, pieces[asked]);
        if (error < 0) {
            return error;
        }
        pieces[asked + 1] = next_piece(reading, pieces[asked]);
        asked++;
    }
    for (uint32_t i = 0; i < asked; i++) {
        const bool wanted = !useless && reading->row_error == 0;
        const int got = take_piece(cache, reading, pieces[i].range, wanted);
        if (got < 0) {
            return got;
        }
        if (wanted) {
            useless = pieces[i].open && got >= CACHE_READ_RECORDS_MAX;
            *at = useless ? pieces[i] : pieces[i + 1];
            at->first += useless ? CACHE_READ_RECORDS_MAX : 0;
        }
    }
    return reading->row_error;
}

static int read_ranges(struct cache *cache, struct reading reading)
{
    int error = cache_settle(cache);
    struct piece at = {
        .first = reading.count > 0 ? reading.ranges[0].first : 0,
        .open = reading.count > 0 && reading.ranges[0].last == UINT32_MAX,
    };

    /* Each window moves at by a piece at least; a range has at most UINT32_MAX records. */
    while (error == 0 && at.range < reading.count && at.first <= UINT32_MAX) {
        error = read_window(cache, &reading, &at);
    }
    return error;
}

int cache_read(struct cache *cache, const struct cache_range *ranges, uint32_t count, cache_row row,
               void *context)
{
    return read_ranges(cache, (struct reading){.ranges = ranges,
                                               .count = count,
                                               .owner = cache->owner,
                                               .row = row,
                                               .context = context});
}

int cache_read_found(struct cache *cache, struct slice room_id, uint64_t owner, uint64_t number,
                     cache_row row, void *context)
{
    const struct cache_range whole = {room_id, number, 0, UINT32_MAX};

    return cache_read_owned(cache, &whole, &owner, 1, row, context);
}

int cache_read_owned(struct cache *cache, const struct cache_range *ranges, const uint64_t *owners,
                     uint32_t count, cache_row row, void *context)
{
    return read_ranges(
        cache,
        (struct reading){
            .ranges = ranges, .count = count, .owners = owners, .row = row, .context = context});
}

/* --- taking over --- */

/* A number as we write it, at the beginning of text, which moves behind it. 0: there is none. */
static uint64_t take_number(struct slice *text)
{
    uint64_t value = 0;
    uint32_t size = 0;

    while (size < text->size && text->data[size] >= '0' && text->data[size] <= '9') {
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text->data[size] - '0'), &value) ||
            value == 0) {
            return 0; /* also a 0 in front */
        }
        size++;
    }
    *text = (struct slice){text->data + size, text->size - size};
    return value;
}

static bool take_text(struct slice *text, const char *expected)
{
    const uint32_t size = (uint32_t)strlen(expected);

    if (text->size < size || memcmp(text->data, expected, size) != 0) {
        return false;
    }
    *text = (struct slice){text->data + size, text->size - size};
    return true;
}

/* The parts of a list's key; false if it is no list of ours. */
static bool parse_key(const struct cache *cache, struct slice key, struct slice *ret_room,
                      uint64_t *ret_owner, uint64_t *ret_number)
{
    uint32_t size = 0;

    if (!take_text(&key, cache->prefix) || !take_text(&key, "{")) {
        return false;
    }
    while (size < key.size && cache_is_room_char(key.data[size])) {
        size++;
    }
    *ret_room = (struct slice){key.data, size};
    key = (struct slice){key.data + size, key.size - size};
    *ret_owner = 0;
    *ret_number = 0;
    if (size == 0 || size > CACHE_ROOM_BYTES_MAX || !take_text(&key, "}:")) {
        return false;
    }
    if (slice_equal(key, SLICE("log"))) {
        return true;
    }
    if (!take_text(&key, "flush:") || (*ret_owner = take_number(&key)) == 0 ||
        !take_text(&key, ".")) {
        return false;
    }
    *ret_number = take_number(&key);
    return *ret_number > 0 && key.size == 0;
}

/* One SCAN: tells what it found and moves cursor. 0 or an error. */
static int scan_step(struct cache *cache, struct slice pattern, char cursor[CACHE_NUMBER_BYTES],
                     cache_found found, void *context)
{
    const struct slice words[] = {SLICE("SCAN"),  {cursor, (uint32_t)strlen(cursor)},
                                  SLICE("MATCH"), pattern,
                                  SLICE("COUNT"), SLICE("1000"),
                                  SLICE("TYPE"),  SLICE("list")};
    struct redis_reply reply;
    int error = redis_command(cache->redis, 8, words, &reply);

    if (error < 0) {
        return error;
    }
    if (reply.type == REDIS_ERROR) {
        return cache_give_up(cache, redis_error(reply.text), "SCAN", reply.text);
    }
    const bool pair = reply.type == REDIS_ARRAY && reply.count == 2;
    const struct redis_reply next = pair ? redis_element(&reply, 0) : reply;
    const struct redis_reply keys = pair ? redis_element(&reply, 1) : reply;
    if (!pair || next.type != REDIS_STRING || next.text.size == 0 ||
        next.text.size >= CACHE_NUMBER_BYTES || keys.type != REDIS_ARRAY) {
        return cache_give_up(cache, -EPROTO, "SCAN gives no cursor and keys", SLICE(""));
    }
    memcpy(cursor, next.text.data, next.text.size);
    cursor[next.text.size] = 0;
    for (uint32_t i = 0; i < keys.count && error == 0; i++) {
        const struct redis_reply key = redis_element(&keys, i);
        struct slice room_id;
        uint64_t owner = 0;
        uint64_t number = 0;
        if (key.type == REDIS_STRING && parse_key(cache, key.text, &room_id, &owner, &number)) {
            const int answer = found(context, room_id, owner, number);
            error = answer < 0 ? answer : 0;
        }
    }
    return error;
}

int cache_scan(struct cache *cache, cache_found found, void *context)
{
    char pattern[CACHE_PREFIX_BYTES_MAX + 8];
    char cursor[CACHE_NUMBER_BYTES] = "0";
    const int size = snprintf(pattern, sizeof(pattern), "%s{*}:*", cache->prefix);
    int error = cache_settle(cache);

    for (int steps = 0; error == 0; steps++) {
        error = scan_step(cache, (struct slice){pattern, (uint32_t)size}, cursor, found, context);
        if (strcmp(cursor, "0") == 0) {
            return error;
        }
        if (error == 0 && steps == SCAN_STEPS_MAX) {
            return cache_give_up(cache, -EPROTO, "SCAN has no end", SLICE(""));
        }
    }
    return error;
}

/* A script and its result, now. */
static int run(struct cache *cache, uint32_t count)
{
    struct redis_reply reply;
    int result = cache_settle(cache);

    for (int attempt = 0; attempt < 2 && (result == 0 || result == CACHE_LOST); attempt++) {
        result = result == CACHE_LOST ? cache_load_scripts(cache) : 0;
        if (result == 0) {
            result = redis_command(cache->redis, count, cache->words, &reply);
        }
        if (result < 0) {
            return result;
        }
        result = cache_result_of(cache, &reply);
        if (cache_concerns_all(result)) {
            redis_disconnect(cache->redis); /* C3 */
        }
        if (result != CACHE_LOST) {
            return result;
        }
    }
    return result == CACHE_LOST ? -EIO : result;
}

int cache_claim(struct cache *cache, struct slice room_id)
{
    return run(cache, cache_head(cache, CACHE_CLAIM, room_id, NULL, 0));
}

int cache_remove_found(struct cache *cache, struct slice room_id, uint64_t owner, uint64_t number,
                       bool keep)
{
    const struct slice key = cache_list_key(cache, 1, room_id, owner, number);

    return run(cache, cache_head(cache, keep ? CACHE_ORPHAN : CACHE_UNLINK, room_id, &key, 1));
}

int cache_probe(struct cache *cache)
{
    char name[CACHE_PREFIX_BYTES_MAX + 8];
    const int size = snprintf(name, sizeof(name), "%sprobe", cache->prefix);
    const struct slice key = {name, (uint32_t)size};
    /* What an append does, and the key goes again. */
    const struct slice commands[][3] = {{SLICE("SET"), key, SLICE("1")},
                                        {SLICE("UNLINK"), key},
                                        {SLICE("RPUSH"), key, SLICE("1")},
                                        {SLICE("UNLINK"), key}};
    int error = cache_settle(cache);

    for (int i = 0; error == 0 && i < 4; i++) {
        struct redis_reply reply;
        error = redis_command(cache->redis, commands[i][2].size > 0 ? 3 : 2, commands[i], &reply);
        if (error == 0 && reply.type == REDIS_ERROR) {
            error = cache_give_up(cache, redis_error(reply.text), "it takes no writes", reply.text);
        }
    }
    return error;
}

int cache_ping(struct cache *cache)
{
    struct redis_reply reply;
    int error = cache_settle(cache);

    if (error == 0) {
        error = redis_command(cache->redis, 1, (struct slice[]){SLICE("PING")}, &reply);
    }
    if (error == 0 && reply.type == REDIS_ERROR) {
        error = cache_give_up(cache, redis_error(reply.text), "PING", reply.text);
    }
    return error;
}
