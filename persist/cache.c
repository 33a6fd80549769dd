/*
 * cache.c - see cache.h for the invariants C1 to C3 named below.
 *
 * Writing is a window of commands without replies. It ends, by taking all their replies, when it is
 * full or cache_finish comes. Until then redis.c keeps the commands' bytes: if the server has
 * forgotten our scripts meanwhile (SCRIPT FLUSH), they are loaded and the commands are sent again.
 *
 * Each script changes nothing, or all that it is for. At maxmemory Redis refuses a command that
 * takes memory only while the script has not written yet (measured, 7.0.15; the same line is in
 * 6.2): so append's first write is one that is refused, and the others begin with one that is not.
 */
#include "persist/cache.h"

#include "persist/cache_own.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    WINDOW_BYTES = 1024 * 1024,
    SEND_BYTES = 64 * 1024, /* pending bytes that are sent at once, so that the server has work */
    WORD_OVERHEAD = 16,     /* of a word in RESP, at most */
    VERSION_MIN = 602,
};
_Static_assert((int)REDIS_OUTPUT_BYTES > 2 * WINDOW_BYTES, "a window, and all of it once more");

/* --- scripts: KEYS[1] is the owner key, ARGV[1] our number --- */

/* Ends with an error if somebody newer owns the room. fresh: the key is to be set. */
#define FENCE                                                                                      \
    "local mine, owner = ARGV[1], redis.pcall('GET', KEYS[1]) "                                    \
    "local fresh = owner ~= mine "                                                                 \
    "if fresh and type(owner) == 'string' and #owner < 17 and string.match(owner, '^%d+$') "       \
    "and tonumber(owner) > tonumber(mine) then "                                                   \
    "return redis.error_reply('FENCED the room has owner ' .. owner) end "

#define OWN "redis.call('SET', KEYS[1], mine, 'EX', 604800) " /* 7 days */

/* KEYS[2] goes out of the way, under a name that was never there: the server's time. */
#define RENAME_BEGIN "local t = redis.call('TIME') redis.call('RENAME', KEYS[2], KEYS[2] .. ':"
#define RENAME_END   ":' .. mine .. '.' .. t[1] .. string.format('%06d', tonumber(t[2]))) "
#define AWAY         RENAME_BEGIN "foreign" RENAME_END
#define PUT_BY       RENAME_BEGIN "orphan" RENAME_END

/* Each script gives one of these. */
enum { DONE, DONE_FOREIGN, NOT_THERE, EXISTS, NOT_THERE_FOREIGN };

static const char *const scripts[CACHE_SCRIPTS] = {
    /* KEYS[2] log, ARGV[2..] records. SET and RPUSH are both refused at maxmemory; whichever comes
     * first decides. A WRONGTYPE leaves nothing. A log that is there under an older owner has what
     * that one appended after we took over: never part of our batch. */
    [CACHE_APPEND] =
        FENCE "if fresh then " OWN
              "if type(owner) == 'string' and #owner < 17 and string.match(owner, '^%d+$') "
              "and redis.call('TYPE', KEYS[2]).ok == 'list' then " PUT_BY "end end "
              "local r = redis.pcall('RPUSH', KEYS[2], unpack(ARGV, 2)) "
              "if type(r) == 'number' then return 0 end "
              "if not string.find(r.err, 'WRONGTYPE', 1, true) then return r end " AWAY
              "redis.call('RPUSH', KEYS[2], unpack(ARGV, 2)) return 1",

    /* KEYS[2] log, KEYS[3] frozen. RENAMENX works at maxmemory, and then SET does. */
    [CACHE_FREEZE] =
        FENCE "local kind = redis.call('TYPE', KEYS[2]).ok "
              "if kind == 'none' then return 2 end "
              "if kind ~= 'list' then " AWAY "return 4 end "
              "if redis.call('RENAMENX', KEYS[2], KEYS[3]) == 0 then return 3 end " OWN "return 0",

    /* KEYS[2] the list. */
    [CACHE_UNLINK] = FENCE "redis.call('UNLINK', KEYS[2]) if fresh then " OWN "end return 0",

    /* UNLINK of the owner key is there for SET to work at maxmemory. */
    [CACHE_CLAIM] = FENCE "redis.call('UNLINK', KEYS[1]) " OWN "return 0",

    /* KEYS[2] the list. */
    [CACHE_ORPHAN] = FENCE "if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end " PUT_BY
                           "if fresh then " OWN "end return 0",
};

/* --- opening, connecting --- */

bool cache_is_room_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

static bool is_prefix(const char *prefix)
{
    const size_t size = strlen(prefix);

    for (size_t i = 0; i < size; i++) {
        if (!cache_is_room_char(prefix[i]) && prefix[i] != ':' && prefix[i] != '/') {
            return false; /* braces would move the slot, * ? [ ] \ mean something to SCAN */
        }
    }
    return size <= CACHE_PREFIX_BYTES_MAX;
}

int cache_open(const struct cache_options *options, struct cache **ret, char *ret_why,
               size_t why_size)
{
    const bool counting = options->plan->mode == MEM_COUNT;
    const struct redis_options redis = {.url = options->url,
                                        .ca_file = options->ca_file,
                                        .connect_ms = options->connect_ms,
                                        .reply_ms = options->reply_ms,
                                        .plan = options->plan};
    struct redis *connection = NULL;

    if (!counting && !is_prefix(options->prefix)) {
        (void)snprintf(ret_why, why_size,
                       "the prefix of the keys in Redis may have at most %d characters of "
                       "A-Z a-z 0-9 . _ - : /",
                       CACHE_PREFIX_BYTES_MAX);
        return -EINVAL;
    }
    const int error = redis_open(&redis, &connection, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    struct cache *cache = mem_alloc(options->plan, "redis cache", sizeof(*cache));
    if (cache == NULL && !counting) {
        redis_close(connection);
        (void)snprintf(ret_why, why_size, "no memory for a connection to Redis");
        return -ENOMEM;
    }
    if (cache != NULL) {
        cache->redis = connection;
        (void)snprintf(cache->prefix, sizeof(cache->prefix), "%s", options->prefix);
    }
    *ret = cache;
    return 0;
}

void cache_close(struct cache *cache)
{
    if (cache != NULL) {
        redis_close(cache->redis);
    }
}

bool cache_is_open(const struct cache *cache)
{
    return redis_is_open(cache->redis);
}

void cache_disconnect(struct cache *cache)
{
    redis_disconnect(cache->redis);
}

const char *cache_why(const struct cache *cache)
{
    return redis_why(cache->redis);
}

void cache_run_id(const struct cache *cache, char ret[CACHE_RUN_ID_BYTES])
{
    memcpy(ret, cache->run_id, CACHE_RUN_ID_BYTES);
}

uint64_t cache_foreign_keys(const struct cache *cache)
{
    return cache->foreign_keys;
}

/* Closes with words: C3. */
int cache_give_up(struct cache *cache, int error, const char *what, struct slice text)
{
    (void)redis_say(cache->redis, error, what, text);
    redis_disconnect(cache->redis);
    return error;
}

/* The value behind "name:" at the beginning of a line of INFO; empty if there is none. */
static struct slice info_field(struct slice info, const char *name)
{
    const size_t size = strlen(name);
    const char *end = info.data + info.size;
    struct slice value = SLICE("");

    for (const char *line = info.data; line < end && value.size == 0;) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        const char *next = line_end == NULL ? end : line_end + 1;
        const size_t length = (size_t)((line_end == NULL ? end : line_end) - line);
        if (length > size && memcmp(line, name, size) == 0 && line[size] == ':') {
            value = (struct slice){line + size + 1, (uint32_t)(length - size - 1)};
            value.size -= value.size > 0 && value.data[value.size - 1] == '\r';
        }
        line = next;
    }
    return value;
}

/* Major times 100 and minor of "7.0.15". */
static uint32_t version_of(struct slice text)
{
    uint32_t parts[2] = {0, 0};
    uint32_t part = 0;

    for (uint32_t i = 0; i < text.size && part < 2; i++) {
        const char c = text.data[i];
        if (c >= '0' && c <= '9' && parts[part] < 1000) {
            parts[part] = parts[part] * 10 + (uint32_t)(c - '0');
        } else {
            part++;
        }
    }
    return parts[0] * 100 + (parts[1] < 100 ? parts[1] : 99);
}

/* Whether this server may be used at all, and which run of it this is. */
static int look_at(struct cache *cache)
{
    struct redis_reply reply;
    const int error = redis_command(cache->redis, 1, (struct slice[]){SLICE("INFO")}, &reply);

    if (error < 0) {
        return error;
    }
    if (reply.type == REDIS_ERROR) {
        const int why = redis_error(reply.text);
        return cache_give_up(cache, why == -EAGAIN ? why : -ENOTSUP,
                             "it does not answer INFO, which must show maxmemory_policy",
                             reply.text);
    }
    if (reply.type != REDIS_STRING) {
        return cache_give_up(cache, -EPROTO, "INFO gives no text", SLICE(""));
    }
    const struct slice run_id = info_field(reply.text, "run_id");
    const struct slice version = info_field(reply.text, "redis_version");
    const struct slice policy = info_field(reply.text, "maxmemory_policy");
    if (run_id.size != CACHE_RUN_ID_BYTES || policy.size == 0) {
        return cache_give_up(cache, -ENOTSUP, "its INFO has no run_id or no maxmemory_policy",
                             SLICE(""));
    }
    if (version_of(version) < VERSION_MIN) {
        return cache_give_up(cache, -ENOTSUP, "it is older than 6.2", version);
    }
    if (!slice_equal(policy, SLICE("noeviction"))) {
        return cache_give_up(cache, -ENOTSUP,
                             "its maxmemory-policy would delete messages; mend it with CONFIG SET "
                             "maxmemory-policy noeviction, and in redis.conf; it is now",
                             policy);
    }
    memcpy(cache->run_id, run_id.data, CACHE_RUN_ID_BYTES);
    return 0;
}

int cache_load_scripts(struct cache *cache)
{
    struct redis_reply reply;

    for (int i = 0; i < CACHE_SCRIPTS; i++) {
        const struct slice script = {scripts[i], (uint32_t)strlen(scripts[i])};
        const int error =
            redis_add(cache->redis, 3, (struct slice[]){SLICE("SCRIPT"), SLICE("LOAD"), script});
        if (error < 0) {
            return error;
        }
    }
    for (int i = 0; i < CACHE_SCRIPTS; i++) {
        const int error = redis_reply(cache->redis, &reply);
        if (error < 0) {
            return error;
        }
        if (reply.type != REDIS_STRING || reply.text.size != CACHE_SHA_BYTES) {
            const int why = reply.type == REDIS_ERROR ? redis_error(reply.text) : -EPROTO;
            return cache_give_up(cache, why, "it does not take our scripts", reply.text);
        }
        memcpy(cache->sha[i], reply.text.data, CACHE_SHA_BYTES);
    }
    return 0;
}

int cache_connect(struct cache *cache, uint64_t owner)
{
    cache->queued = 0;
    cache->in_flight = 0;
    cache->owner = owner;
    (void)snprintf(cache->owner_text, sizeof(cache->owner_text), "%" PRIu64, owner);
    if (owner > CACHE_OWNER_MAX) {
        return cache_give_up(cache, -EINVAL, "our owner number is above 2^53", SLICE(""));
    }
    int error = redis_connect(cache->redis);
    if (error == 0) {
        error = look_at(cache);
    }
    return error == 0 && owner > 0 ? cache_load_scripts(cache) : error;
}

/* --- commands and their results --- */

static struct slice key_of(struct cache *cache, int index, struct slice room_id, const char *tail)
{
    CHECK(room_id.size >= 1 && room_id.size <= CACHE_ROOM_BYTES_MAX); /* as core/record.h has it */
    const int size = snprintf(cache->keys[index], CACHE_KEY_BYTES, "%s{%.*s}%s", cache->prefix,
                              (int)room_id.size, room_id.data, tail);
    CHECK(size > 0 && size < CACHE_KEY_BYTES);
    return (struct slice){cache->keys[index], (uint32_t)size};
}

/* The log, or a frozen key. */
struct slice cache_list_key(struct cache *cache, int index, struct slice room_id, uint64_t owner,
                            uint64_t number)
{
    char tail[2 * CACHE_NUMBER_BYTES + 8];

    CHECK(number == 0 || owner > 0);
    (void)snprintf(tail, sizeof(tail), ":flush:%" PRIu64 ".%" PRIu64, owner, number);
    return key_of(cache, index, room_id, number == 0 ? ":log" : tail);
}

/* The first words of a script's command: the owner key, others, our number. Their count. */
uint32_t cache_head(struct cache *cache, enum cache_script script, struct slice room_id,
                    const struct slice *others, uint32_t count)
{
    static const struct slice counts[] = {{"1", 1}, {"2", 1}, {"3", 1}};
    struct slice *word = cache->words;

    CHECK(cache->owner > 0); /* else this cache only reads */
    CHECK(count <= 2);
    *word++ = SLICE("EVALSHA");
    *word++ = (struct slice){cache->sha[script], CACHE_SHA_BYTES};
    *word++ = counts[count];
    *word++ = key_of(cache, 0, room_id, ":owner");
    for (uint32_t i = 0; i < count; i++) {
        *word++ = others[i];
    }
    *word++ = (struct slice){cache->owner_text, (uint32_t)strlen(cache->owner_text)};
    return (uint32_t)(word - cache->words);
}

/* What a script's reply means. */
int cache_result_of(struct cache *cache, const struct redis_reply *reply)
{
    if (reply->type == REDIS_INTEGER) {
        cache->foreign_keys +=
            reply->integer == DONE_FOREIGN || reply->integer == NOT_THERE_FOREIGN;
        switch (reply->integer) {
        case DONE:
        case DONE_FOREIGN:
            return 0;
        case NOT_THERE:
        case NOT_THERE_FOREIGN:
            return -ENOENT;
        case EXISTS:
            return -EEXIST;
        default:
            return redis_say(cache->redis, -EIO, "a script gives what it never should", SLICE(""));
        }
    }
    if (reply->type != REDIS_ERROR) {
        return redis_say(cache->redis, -EIO, "a script gives no number", SLICE(""));
    }
    const bool fenced = reply->text.size >= 6 && memcmp(reply->text.data, "FENCED", 6) == 0;
    const int error = fenced ? -ESTALE : redis_error(reply->text);
    return redis_say(cache->redis, error == -EMEDIUMTYPE ? -EIO : error, "a script", reply->text);
}

/* Errors after which nothing else will work either. */
bool cache_concerns_all(int error)
{
    return error == -EACCES || error == -EAGAIN || error == -EROFS || error == -ENOTSUP;
}

/* Takes the results of those in flight that are still CACHE_UNKNOWN, in order. ret_lost: some met
 * no script; ret_later: one behind them did. */
static int take_results(struct cache *cache, bool *ret_lost, bool *ret_later)
{
    struct redis_reply reply;

    *ret_lost = false;
    *ret_later = false;
    for (uint32_t i = cache->queued - cache->in_flight; i < cache->queued; i++) {
        if (cache->results[i] != CACHE_UNKNOWN) {
            continue;
        }
        const int error = redis_reply(cache->redis, &reply);
        if (error < 0) {
            return error;
        }
        const int result = cache_result_of(cache, &reply);
        if (cache_concerns_all(result)) {
            redis_disconnect(cache->redis); /* C3 */
            return result;
        }
        *ret_later = *ret_later || (*ret_lost && result != CACHE_LOST);
        *ret_lost = *ret_lost || result == CACHE_LOST;
        cache->results[i] = (int16_t)result;
    }
    return 0;
}

/* Loads the scripts and gives the lost commands again. If a later one was done, somebody else has
 * loaded them in between: then the order of a room's records could not be kept, and the lost ones
 * are refused. */
static int repeat_lost(struct cache *cache, bool later)
{
    const uint32_t first = cache->queued - cache->in_flight;
    int error = cache_load_scripts(cache);

    for (uint32_t i = 0; i < cache->in_flight && error == 0; i++) {
        int16_t *result = &cache->results[first + i];
        if (*result == CACHE_LOST && later) {
            *result = -EIO;
        } else if (*result == CACHE_LOST &&
                   redis_repeat(cache->redis, cache->position[i], cache->position[i + 1]) == 0) {
            *result = CACHE_UNKNOWN;
        }
    }
    bool lost = false;
    return error == 0 ? take_results(cache, &lost, &later) : error;
}

/* Ends the window: nothing is in flight afterwards. */
int cache_settle(struct cache *cache)
{
    bool lost = false;
    bool later = false;
    int error = cache->in_flight == 0 ? 0 : take_results(cache, &lost, &later);

    if (error == 0 && lost) {
        error = repeat_lost(cache, later);
    }
    cache->in_flight = 0;
    cache->in_flight_bytes = 0;
    return error;
}

/* Adds the command in words to the window. */
static int add(struct cache *cache, uint32_t count, size_t size)
{
    if (cache->in_flight == 0) {
        redis_keep(cache->redis);
    }
    cache->position[cache->in_flight] = redis_position(cache->redis);
    const int error = redis_add(cache->redis, count, cache->words);
    if (error < 0) {
        return error;
    }
    cache->results[cache->queued++] = CACHE_UNKNOWN;
    cache->in_flight++;
    cache->in_flight_bytes += size;
    cache->position[cache->in_flight] = redis_position(cache->redis);
    return 0;
}

/* A command that redis.c cannot keep: alone in its window, and repeated from the words. */
static int add_large(struct cache *cache, uint32_t count, size_t size)
{
    int error = add(cache, count, size);

    if (error == 0) {
        error = cache_settle(cache);
    }
    if (error == 0 && cache->results[cache->queued - 1] == CACHE_LOST) {
        cache->queued--;
        error = add(cache, count, size);
        error = error == 0 ? cache_settle(cache) : error;
    }
    return error;
}

/* Queues the command in words. */
static int queue(struct cache *cache, uint32_t count)
{
    size_t size = 0;
    int error = 0;

    CHECK(cache->queued < CACHE_COMMANDS_MAX);
    if (!redis_is_open(cache->redis)) {
        return -ENOTCONN;
    }
    for (uint32_t i = 0; i < count; i++) {
        size += cache->words[i].size + WORD_OVERHEAD;
    }
    if (cache->in_flight == CACHE_WINDOW_COMMANDS || cache->in_flight_bytes + size > WINDOW_BYTES) {
        error = cache_settle(cache);
    }
    if (error < 0 || size > WINDOW_BYTES) {
        return error < 0 ? error : add_large(cache, count, size);
    }
    error = add(cache, count, size);
    if (error == 0 && redis_pending_bytes(cache->redis) >= SEND_BYTES) {
        error = redis_send(cache->redis);
    }
    return error;
}

int cache_append(struct cache *cache, struct slice room_id, const struct slice *records,
                 uint32_t count)
{
    CHECK(count >= 1 && count <= CACHE_RECORDS_MAX);
    const struct slice log = cache_list_key(cache, 1, room_id, 0, 0);
    const uint32_t before = cache_head(cache, CACHE_APPEND, room_id, &log, 1);

    memcpy(cache->words + before, records, count * sizeof(*records));
    return queue(cache, before + count);
}

int cache_freeze(struct cache *cache, struct slice room_id, uint64_t number)
{
    CHECK(number > 0);
    const struct slice keys[] = {cache_list_key(cache, 1, room_id, 0, 0),
                                 cache_list_key(cache, 2, room_id, cache->owner, number)};

    return queue(cache, cache_head(cache, CACHE_FREEZE, room_id, keys, 2));
}

int cache_unlink(struct cache *cache, struct slice room_id, uint64_t number)
{
    CHECK(number > 0);
    const struct slice frozen = cache_list_key(cache, 1, room_id, cache->owner, number);

    return queue(cache, cache_head(cache, CACHE_UNLINK, room_id, &frozen, 1));
}

int cache_queue_claim(struct cache *cache, struct slice room_id)
{
    return queue(cache, cache_head(cache, CACHE_CLAIM, room_id, NULL, 0));
}

int cache_queue_remove(struct cache *cache, struct slice room_id, uint64_t owner, uint64_t number)
{
    const struct slice key = cache_list_key(cache, 1, room_id, owner, number);

    return queue(cache, cache_head(cache, CACHE_UNLINK, room_id, &key, 1));
}

int cache_finish(struct cache *cache, cache_result result, void *context)
{
    const int error = redis_is_open(cache->redis) ? cache_settle(cache) : -ENOTCONN;
    const uint32_t count = cache->queued;

    cache->queued = 0;
    cache->in_flight = 0;
    cache->in_flight_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int known = cache->results[i];
        if (error < 0 && (known == CACHE_UNKNOWN || known == CACHE_LOST)) {
            break;
        }
        result(context, i, known == CACHE_LOST ? -EIO : known);
    }
    return error;
}
