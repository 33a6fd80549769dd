/*
 * test_cache.c - the scheme in Redis: what is appended is read in order, batches are frozen and go,
 *                the older of two damsods is fenced, and nothing is half done when Redis is full,
 * is restarted, has forgotten the scripts, or holds something else at our keys.
 *
 * Method: a real redis-server (redis_rig.h); a second connection looks at the keys and makes the
 *         faults. A record's text is "room/number", so that a list reads as its range.
 */
#include "persist/cache.h"
#include "tests/persist/redis_rig.h"

#define PREFIX "t:"

enum { ROWS_BYTES = 64 * 1024, RESULTS_MAX = 4096 };

static struct redis_rig rig;
static struct redis_client admin;

struct connection {
    struct mem_plan plan;
    struct cache *cache;
};

static struct connection ours;

static void open_cache(struct connection *connection, const char *url, uint32_t reply_ms)
{
    char why[512] = "";

    mem_init(&connection->plan, "test", MEM_MAP);
    const struct cache_options options = {.url = url,
                                          .ca_file = "",
                                          .prefix = PREFIX,
                                          .connect_ms = RIG_CONNECT_MS,
                                          .reply_ms = reply_ms,
                                          .plan = &connection->plan};
    CHECK(cache_open(&options, &connection->cache, why, sizeof(why)) == 0);
    CHECK(mem_seal(&connection->plan) == 0);
}

static void close_cache(struct connection *connection)
{
    cache_close(connection->cache);
    mem_end(&connection->plan);
}

static void begin_test(uint64_t owner)
{
    (void)redis_client_say(&admin, "CONFIG SET maxmemory 0");
    (void)redis_client_say(&admin, "FLUSHALL");
    open_cache(&ours, rig.url, RIG_REPLY_MS);
    CHECK(cache_connect(ours.cache, owner) == 0);
}

static void end_test(void)
{
    close_cache(&ours);
}

/* --- results --- */

static int results[RESULTS_MAX];
static uint32_t result_count;

static void note(void *context, uint32_t index, int result)
{
    CHECK(index == result_count && index < RESULTS_MAX);
    CHECK(context == &results);
    results[result_count++] = result;
}

static int finish(struct connection *connection)
{
    result_count = 0;
    return cache_finish(connection->cache, note, &results);
}

/* The result of the one command that is queued. */
static int finish_one(struct connection *connection)
{
    CHECK(finish(connection) == 0);
    CHECK(result_count == 1);
    return results[0];
}

/* --- records --- */

/* Queues records first to last of the room, filled up to size bytes. */
static int append_sized(struct connection *connection, const char *room, uint32_t first,
                        uint32_t last, uint32_t size)
{
    static struct slice records[CACHE_RECORDS_MAX];
    static char texts[CACHE_RECORDS_MAX * 4096];

    CHECK(last - first < CACHE_RECORDS_MAX && size <= 4096 && size >= 32);
    for (uint32_t i = first; i <= last; i++) {
        char *text = texts + (size_t)(i - first) * size;
        memset(text, 0, size); /* zeros: a record is binary */
        (void)snprintf(text, size, "%s/%u", room, i);
        records[i - first] = (struct slice){text, size};
    }
    return cache_append(connection->cache, rig_slice(room), records, last - first + 1);
}

static void append(const char *room, uint32_t first, uint32_t last)
{
    CHECK(append_sized(&ours, room, first, last, 32) == 0);
}

static void append_now(const char *room, uint32_t first, uint32_t last)
{
    append(room, first, last);
    CHECK(finish_one(&ours) == 0);
}

/* Rows as "0:a1-3,7 1:b1-5 ": range, room, numbers. */
struct rows {
    char text[ROWS_BYTES];
    size_t used;
    uint32_t range;
    char room[64];
    uint32_t last;
    bool open; /* a run that is not written yet */
    uint32_t stop_after;
    uint32_t count;
};

static struct rows rows;

static void write_rows(bool comma, const char *text, uint32_t number)
{
    rows.used += (size_t)snprintf(rows.text + rows.used, ROWS_BYTES - rows.used, "%s%s%u",
                                  comma ? "," : "", text, number);
    CHECK(rows.used < ROWS_BYTES);
}

static void end_run(void)
{
    if (rows.open) {
        write_rows(false, "-", rows.last);
    }
    rows.open = false;
}

static int see_row(void *context, uint32_t range, struct slice record)
{
    char room[64];
    uint32_t number = 0;

    CHECK(context == &rows);
    CHECK(sscanf(record.data, "%63[^/]/%u", room, &number) == 2);
    if (rows.count > 0 && range == rows.range && strcmp(room, rows.room) == 0 &&
        number == rows.last + 1) {
        rows.open = true;
    } else {
        const bool same = rows.count > 0 && range == rows.range && strcmp(room, rows.room) == 0;
        char begin[96];
        end_run();
        (void)snprintf(begin, sizeof(begin), "%s%u:%s", rows.count > 0 ? " " : "", range, room);
        write_rows(same, same ? "" : begin, number);
    }
    (void)snprintf(rows.room, sizeof(rows.room), "%s", room);
    rows.range = range;
    rows.last = number;
    rows.count++;
    return rows.count == rows.stop_after ? -ECANCELED : 0;
}

static bool rows_are(const char *expected)
{
    end_run();
    if (strcmp(rows.text, expected) != 0) {
        (void)fprintf(stderr, "read \"%s\", expected \"%s\"\n", rows.text, expected);
    }
    return strcmp(rows.text, expected) == 0;
}

static bool reads(struct connection *connection, const struct cache_range *ranges, uint32_t count,
                  const char *expected)
{
    rows = (struct rows){0};
    CHECK(cache_read(connection->cache, ranges, count, see_row, &rows) == 0);
    return rows_are(expected);
}

static bool list_is(const char *room, uint64_t number, const char *expected)
{
    const struct cache_range range = {rig_slice(room), number, 0, UINT32_MAX};

    return reads(&ours, &range, 1, expected);
}

/* --- tests --- */

static void wrong_options_are_refused(void)
{
    static const char *const prefixes[] = {
        "a{b", "a}b", "a*",  "a?",
        "[a]", "a b", "\\a", "123456789_123456789_123456789_123456789_123456789_123456789_12345"};
    struct mem_plan plan;
    struct cache *cache = NULL;
    char why[512];

    mem_init(&plan, "test", MEM_MAP);
    struct cache_options options = {.url = "redis://h", .prefix = "", .plan = &plan};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        options.prefix = prefixes[i];
        CHECK(cache_open(&options, &cache, why, sizeof(why)) == -EINVAL);
        CHECK(strstr(why, "prefix") != NULL);
    }
    options.prefix = "damso:";
    options.url = "redis://:s3cret/@h";
    CHECK(cache_open(&options, &cache, why, sizeof(why)) == -EINVAL);
    CHECK(strstr(why, "s3cret") == NULL);
    CHECK(cache == NULL);
    mem_end(&plan);

    mem_init(&plan, "count", MEM_COUNT);
    CHECK(cache_open(&options, &cache, why, sizeof(why)) == 0);
    CHECK(cache == NULL && plan.total > 0);
    cache_close(cache);
    mem_end(&plan);
}

static void appended_records_are_read_in_order(void)
{
    begin_test(5);
    append("a", 1, 3);
    append("b", 1, 1000);
    append("a", 4, 4);
    CHECK(finish(&ours) == 0);
    CHECK(result_count == 3 && results[0] == 0 && results[1] == 0 && results[2] == 0);
    CHECK(list_is("a", 0, "0:a1-4"));
    CHECK(list_is("b", 0, "0:b1-1000"));
    CHECK(list_is("none", 0, ""));
    CHECK(redis_client_gets(&admin, "LLEN t:{a}:log", "4"));
    CHECK(redis_client_gets(&admin, "GET t:{a}:owner", "5"));
    CHECK(redis_client_say(&admin, "TTL t:{a}:owner").integer > 604000);
    CHECK(redis_client_say(&admin, "LINDEX t:{a}:log 0").text.size == 32); /* zeros and all */
    CHECK(finish(&ours) == 0);
    CHECK(result_count == 0);
    end_test();
}

static void long_lists_are_read_in_pieces(void)
{
    begin_test(5);
    for (uint32_t i = 0; i < 2600; i += 100) {
        append("a", i + 1, i + 100);
        append("b", i + 1, i + 100);
    }
    append("c", 1, 500);
    append("d", 1, 7);
    CHECK(finish(&ours) == 0);
    const struct cache_range ranges[] = {
        {SLICE("a"), 0, 0, 9},          {SLICE("a"), 0, 100, UINT32_MAX},
        {SLICE("none"), 0, 0, 5},       {SLICE("b"), 0, 7, 1999},
        {SLICE("c"), 0, 0, UINT32_MAX}, {SLICE("d"), 0, 0, UINT32_MAX},
        {SLICE("b"), 0, 2599, 5000},    {SLICE("b"), 0, 2600, UINT32_MAX},
        {SLICE("d"), 0, 3, 3},          {SLICE("d"), 0, 3, 2},
        {SLICE("b"), 0, 0, UINT32_MAX},
    };
    CHECK(reads(&ours, ranges, 11,
                "0:a1-10 1:a101-2600 3:b8-2000 4:c1-500 5:d1-7 6:b2600 8:d4 10:b1-2600"));
    static struct cache_range many[300]; /* more than one window of pieces */
    for (uint32_t i = 0; i < 300; i++) {
        many[i] = (struct cache_range){SLICE("d"), 0, i % 7, i % 7};
    }
    rows = (struct rows){0};
    CHECK(cache_read(ours.cache, many, 300, see_row, &rows) == 0);
    CHECK(rows.count == 300 && rows.range == 299);
    end_test();
}

static void reader_that_stops_leaves_the_connection_in_step(void)
{
    begin_test(5);
    append("a", 1, 1000);
    append("b", 1, 10);
    CHECK(finish(&ours) == 0);
    const struct cache_range ranges[] = {{SLICE("a"), 0, 0, UINT32_MAX},
                                         {SLICE("b"), 0, 0, UINT32_MAX}};
    rows = (struct rows){.stop_after = 3};
    CHECK(cache_read(ours.cache, ranges, 2, see_row, &rows) == -ECANCELED);
    CHECK(rows_are("0:a1-3"));
    CHECK(cache_is_open(ours.cache));
    CHECK(list_is("b", 0, "0:b1-10"));
    end_test();
}

static void frozen_batch_lies_apart_until_it_is_unlinked(void)
{
    begin_test(5);
    append("a", 1, 3);
    CHECK(cache_freeze(ours.cache, SLICE("a"), 1) == 0);
    append("a", 4, 5);
    CHECK(finish(&ours) == 0);
    CHECK(result_count == 3 && results[1] == 0);
    CHECK(redis_client_gets(&admin, "LLEN t:{a}:flush:5.1", "3"));
    const struct cache_range ranges[] = {{SLICE("a"), 1, 0, 199}, {SLICE("a"), 0, 0, UINT32_MAX}};
    CHECK(reads(&ours, ranges, 2, "0:a1-3 1:a4-5"));

    CHECK(cache_freeze(ours.cache, SLICE("a"), 1) == 0); /* the name was used: C2 */
    CHECK(finish_one(&ours) == -EEXIST);
    CHECK(reads(&ours, ranges, 2, "0:a1-3 1:a4-5"));
    CHECK(cache_freeze(ours.cache, SLICE("none"), 2) == 0);
    CHECK(finish_one(&ours) == -ENOENT);

    CHECK(cache_unlink(ours.cache, SLICE("a"), 1) == 0);
    CHECK(cache_unlink(ours.cache, SLICE("a"), 1) == 0); /* repeatable */
    CHECK(finish(&ours) == 0);
    CHECK(results[0] == 0 && results[1] == 0);
    CHECK(reads(&ours, ranges, 2, "1:a4-5"));
    end_test();
}

static void older_owner_is_fenced_from_everything(void)
{
    struct connection newer;

    begin_test(9);
    open_cache(&newer, rig.url, RIG_REPLY_MS);
    CHECK(cache_connect(newer.cache, 10) == 0); /* longer as a text, and larger */
    append("a", 1, 3);
    CHECK(cache_freeze(ours.cache, SLICE("a"), 1) == 0);
    append("a", 4, 4);
    CHECK(finish(&ours) == 0);
    CHECK(append_sized(&newer, "a", 5, 5, 32) == 0); /* takes over by writing */
    CHECK(finish_one(&newer) == 0);
    CHECK(redis_client_gets(&admin, "GET t:{a}:owner", "10"));

    append("a", 6, 6);
    CHECK(cache_freeze(ours.cache, SLICE("a"), 2) == 0);
    CHECK(cache_unlink(ours.cache, SLICE("a"), 1) == 0);
    append("b", 1, 1); /* another room is still ours */
    CHECK(finish(&ours) == 0);
    CHECK(results[0] == -ESTALE && results[1] == -ESTALE && results[2] == -ESTALE);
    CHECK(results[3] == 0);
    CHECK(cache_is_open(ours.cache));
    CHECK(strstr(cache_why(ours.cache), "owner 10") != NULL);
    CHECK(cache_claim(ours.cache, SLICE("a")) == -ESTALE);
    CHECK(cache_remove_found(ours.cache, SLICE("a"), 0, 0, false) == -ESTALE);
    CHECK(cache_remove_found(ours.cache, SLICE("a"), 0, 0, true) == -ESTALE);
    CHECK(list_is("a", 0, "0:a5")); /* nothing was written; a4 of the older owner lies aside */
    CHECK(list_is("a", 1, "0:a1-3"));

    CHECK(cache_claim(newer.cache, SLICE("b")) == 0); /* takes over by a claim */
    append("b", 2, 2);
    CHECK(finish_one(&ours) == -ESTALE);
    CHECK(list_is("b", 0, "0:b1"));
    close_cache(&newer);
    end_test();
}

static void owner_key_that_makes_no_sense_is_replaced(void)
{
    static const char *const values[] = {"inf", "9e15", "-1", "0x7fffffff", "99999999999999999999"};
    char text[128];

    begin_test(9);
    for (uint32_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        (void)snprintf(text, sizeof(text), "SET t:{a}:owner %s", values[i]);
        (void)redis_client_say(&admin, text);
        append_now("a", i + 1, i + 1);
        CHECK(redis_client_gets(&admin, "GET t:{a}:owner", "9"));
    }
    (void)redis_client_say(&admin, "DEL t:{a}:owner");
    (void)redis_client_say(&admin, "RPUSH t:{a}:owner x");
    append_now("a", 6, 6);
    CHECK(redis_client_gets(&admin, "GET t:{a}:owner", "9"));
    CHECK(list_is("a", 0, "0:a1-6"));
    CHECK(cache_connect(ours.cache, CACHE_OWNER_MAX + 1) == -EINVAL);
    CHECK(cache_connect(ours.cache, CACHE_OWNER_MAX) == 0);
    append_now("a", 7, 7);
    CHECK(cache_connect(ours.cache, CACHE_OWNER_MAX - 1) == 0);
    append("a", 8, 8);
    CHECK(finish_one(&ours) == -ESTALE); /* numbers are exact up there */
    end_test();
}

static void full_redis_refuses_appends_whole_and_drains(void)
{
    char text[64];

    begin_test(5);
    append("a", 1, 500);
    append("b", 1, 3);
    append("d", 1, 3);
    CHECK(finish(&ours) == 0);
    (void)redis_client_say(&admin, "SET t:{d}:owner 4");
    (void)redis_client_say(&admin, "SET t:{e}:owner 4");
    (void)redis_client_say(&admin, "SET t:{f}:log x");
    (void)redis_client_say(&admin, "CONFIG SET maxmemory 100kb");
    append("a", 501, 501);
    append("c", 1, 1); /* has no owner key yet */
    append("d", 4, 4); /* an older owner's */
    append("f", 1, 1); /* no list */
    CHECK(finish(&ours) == 0);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(results[i] == -ENOSPC);
    }
    CHECK(cache_is_open(ours.cache));
    CHECK(strstr(cache_why(ours.cache), "maxmemory") != NULL);
    CHECK(redis_client_gets(&admin, "EXISTS t:{c}:owner t:{c}:log", "0")); /* nothing half done */
    CHECK(redis_client_gets(&admin, "GET t:{d}:owner", "4"));
    CHECK(redis_client_gets(&admin, "GET t:{f}:log", "x"));

    CHECK(cache_freeze(ours.cache, SLICE("a"), 1) == 0);
    CHECK(cache_freeze(ours.cache, SLICE("d"), 2) == 0); /* and becomes ours */
    CHECK(finish(&ours) == 0);
    CHECK(results[0] == 0 && results[1] == 0);
    CHECK(redis_client_gets(&admin, "GET t:{d}:owner", "5"));
    CHECK(list_is("a", 1, "0:a1-500"));
    CHECK(cache_unlink(ours.cache, SLICE("a"), 1) == 0);
    CHECK(cache_unlink(ours.cache, SLICE("e"), 1) == 0);
    CHECK(finish(&ours) == 0);
    CHECK(results[0] == 0 && results[1] == 0);
    CHECK(redis_client_gets(&admin, "GET t:{e}:owner", "5"));
    CHECK(cache_claim(ours.cache, SLICE("b")) == 0);
    CHECK(cache_claim(ours.cache, SLICE("new")) == 0);
    CHECK(cache_remove_found(ours.cache, SLICE("b"), 0, 0, true) == 0);
    (void)snprintf(text, sizeof(text), "CONFIG SET maxmemory 0");
    (void)redis_client_say(&admin, text);
    append_now("a", 501, 502);
    CHECK(list_is("a", 0, "0:a501-502"));
    end_test();
}

static void foreign_key_is_moved_away_and_kept(void)
{
    begin_test(5);
    (void)redis_client_say(&admin, "SET t:{a}:log mine");
    (void)redis_client_say(&admin, "SET t:{b}:log mine");
    CHECK(list_is("a", 0, "")); /* no list: empty */
    append("a", 1, 2);
    append("a", 3, 3);
    CHECK(cache_freeze(ours.cache, SLICE("b"), 1) == 0);
    CHECK(finish(&ours) == 0);
    CHECK(results[0] == 0 && results[1] == 0 && results[2] == -ENOENT);
    CHECK(cache_foreign_keys(ours.cache) == 2);
    CHECK(list_is("a", 0, "0:a1-3"));
    const struct redis_reply keys = redis_client_say(&admin, "KEYS t:{*}:log:foreign:5.*");
    CHECK(keys.count == 2);
    char text[160];
    const struct slice key = redis_element(&keys, 0).text;
    (void)snprintf(text, sizeof(text), "GET %.*s", (int)key.size, key.data);
    CHECK(redis_client_gets(&admin, text, "mine"));
    end_test();
}

static void windows_larger_than_the_bounds_are_told_all(void)
{
    begin_test(5);
    for (uint32_t i = 1; i <= 3500; i++) {
        append("a", i, i);
    }
    CHECK(finish(&ours) == 0);
    CHECK(result_count == 3500);
    CHECK(list_is("a", 0, "0:a1-3500"));
    for (uint32_t i = 1; i <= 40; i++) { /* 40 x 200 KB */
        CHECK(append_sized(&ours, "b", i * 50 - 49, i * 50, 4096) == 0);
    }
    CHECK(append_sized(&ours, "b", 2001, 3000, 4096) == 0); /* 4 MB in one */
    append("b", 3001, 3001);
    CHECK(finish(&ours) == 0);
    CHECK(result_count == 42);
    for (uint32_t i = 0; i < 42; i++) {
        CHECK(results[i] == 0);
    }
    CHECK(list_is("b", 0, "0:b1-3001"));
    end_test();
}

static void forgotten_scripts_are_loaded_and_nothing_is_lost(void)
{
    begin_test(5);
    append_now("a", 1, 1);
    (void)redis_client_say(&admin, "SCRIPT FLUSH");
    for (uint32_t i = 2; i <= 1500; i++) {
        append("a", i, i);
        append("b", i, i);
    }
    CHECK(cache_freeze(ours.cache, SLICE("b"), 1) == 0);
    CHECK(finish(&ours) == 0);
    CHECK(result_count == 2999);
    for (uint32_t i = 0; i < result_count; i++) {
        CHECK(results[i] == 0);
    }
    CHECK(list_is("a", 0, "0:a1-1500"));
    CHECK(list_is("b", 1, "0:b2-1500"));
    (void)redis_client_say(&admin, "SCRIPT FLUSH");
    CHECK(append_sized(&ours, "c", 1, 1000, 4096) == 0); /* larger than what is kept */
    CHECK(finish_one(&ours) == 0);
    CHECK(list_is("c", 0, "0:c1-1000"));
    (void)redis_client_say(&admin, "SCRIPT FLUSH");
    CHECK(cache_claim(ours.cache, SLICE("c")) == 0);
    end_test();
}

static void scripts_that_come_back_in_the_middle_keep_the_order(void)
{
    begin_test(5);
    (void)redis_client_say(&admin, "SCRIPT FLUSH");
    append("a", 1, 1);
    CHECK(append_sized(&ours, "b", 1, 20, 4096) == 0); /* is sent at once: the first ones fail */
    CHECK(usleep(100000) == 0);
    struct connection other;
    open_cache(&other, rig.url, RIG_REPLY_MS);
    CHECK(cache_connect(other.cache, 6) == 0); /* loads them for all */
    append("a", 2, 2);
    CHECK(finish(&ours) == 0);
    CHECK(results[0] == -EIO && results[1] == -EIO && results[2] == 0);
    CHECK(list_is("a", 0, "0:a2"));
    close_cache(&other);
    end_test();
}

/* --- scan and take-over --- */

static char found_text[4096];

static int see_list(void *context, struct slice room_id, uint64_t owner, uint64_t number)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "%.*s %lu.%lu;", (int)room_id.size, room_id.data,
                   (unsigned long)owner, (unsigned long)number);
    if (strstr(found_text, text) == NULL) { /* may be told twice */
        (void)strncat(found_text, text, sizeof(found_text) - strlen(found_text) - 1);
    }
    return context == NULL ? 0 : -ECANCELED;
}

static void every_list_is_found_whoever_left_it(void)
{
    begin_test(5);
    append("a", 1, 3);
    CHECK(cache_freeze(ours.cache, SLICE("a"), 7) == 0);
    append("a", 4, 4);
    append("Room-1_x.y", 1, 1);
    CHECK(finish(&ours) == 0);
    (void)redis_client_say(&admin, "RPUSH t:{b}:flush:3.12 b/1 b/2");
    (void)redis_client_say(&admin, "RPUSH t:{b}:flush:18446744073709551615.1 b/9");
    static const char *const others[] = {
        "x:{a}:log",
        "t:{a}:logs",
        "t:{a}:flush:5",
        "t:{a}:flush:0.1",
        "t:{a}:flush:5.0",
        "t:{a}:flush:05.1",
        "t:{a}:flush:5.1x",
        "t:{}:log",
        "t:{a:log",
        "t:a}:log",
        "t:{a}:log:foreign:5.1",
        "t:{a}:flush:5.99999999999999999999",
        "t:{a*b}:log",
        "t:{a}:flush:5.-1",
        "t:{12345678901234567890123456789012345678901234567890123456789012345}:log"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        char text[160];
        (void)snprintf(text, sizeof(text), "RPUSH %s x", others[i]);
        (void)redis_client_say(&admin, text);
    }
    (void)redis_client_say(&admin, "SET t:{s}:log x");
    for (uint32_t i = 0; i < 5000; i++) { /* several steps */
        char text[64];
        (void)snprintf(text, sizeof(text), "SET other:%u x", i);
        (void)redis_client_say(&admin, text);
    }
    found_text[0] = 0;
    CHECK(cache_scan(ours.cache, see_list, NULL) == 0);
    static const char *const expected[] = {"a 0.0;", "a 5.7;", "b 3.12;", "Room-1_x.y 0.0;",
                                           "b 18446744073709551615.1;"};
    size_t size = 0;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        CHECK(strstr(found_text, expected[i]) != NULL);
        size += strlen(expected[i]);
    }
    CHECK(strlen(found_text) == size); /* and nothing else */
    CHECK(cache_scan(ours.cache, see_list, &rows) == -ECANCELED);
    CHECK(cache_ping(ours.cache) == 0);
    end_test();
}

static void found_list_is_read_and_removed(void)
{
    char text[256];

    begin_test(5);
    for (uint32_t i = 0; i < 1200; i += 10) {
        size_t used = (size_t)snprintf(text, sizeof(text), "RPUSH t:{b}:flush:3.12");
        for (uint32_t j = i + 1; j <= i + 10; j++) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, " b/%u", j);
        }
        (void)redis_client_say(&admin, text);
    }
    rows = (struct rows){0};
    CHECK(cache_read_found(ours.cache, SLICE("b"), 3, 12, see_row, &rows) == 0);
    CHECK(rows_are("0:b1-1200"));
    CHECK(cache_remove_found(ours.cache, SLICE("b"), 3, 12, true) == 0);
    CHECK(cache_remove_found(ours.cache, SLICE("b"), 3, 12, true) == 0); /* gone: repeatable */
    CHECK(redis_client_gets(&admin, "EXISTS t:{b}:flush:3.12", "0"));
    CHECK(redis_client_say(&admin, "KEYS t:{b}:flush:3.12:orphan:5.*").count == 1);
    append_now("b", 1, 1);
    CHECK(cache_remove_found(ours.cache, SLICE("b"), 0, 0, false) == 0);
    CHECK(redis_client_gets(&admin, "EXISTS t:{b}:log", "0"));
    end_test();
}

/* --- the server --- */

static void server_that_would_delete_messages_is_refused(void)
{
    struct connection other;

    begin_test(5);
    open_cache(&other, rig.url, RIG_REPLY_MS);
    (void)redis_client_say(&admin, "CONFIG SET maxmemory-policy allkeys-lru");
    CHECK(cache_connect(other.cache, 6) == -ENOTSUP);
    CHECK(strstr(cache_why(other.cache), "CONFIG SET maxmemory-policy noeviction") != NULL);
    CHECK(strstr(cache_why(other.cache), "allkeys-lru") != NULL);
    CHECK(!cache_is_open(other.cache));
    (void)redis_client_say(&admin, "CONFIG SET maxmemory-policy noeviction");
    CHECK(cache_connect(other.cache, 6) == 0);
    close_cache(&other);
    end_test();
}

static void user_with_few_rights_is_enough_or_told(void)
{
    struct connection other;
    char url[128];

    begin_test(5);
    (void)redis_client_say(
        &admin, "ACL SETUSER damso reset on >pw ~t:* +@list +@scripting +@keyspace +@string +ping "
                "+info +time +select");
    (void)redis_client_say(&admin, "ACL SETUSER blind reset on >pw ~t:* +ping");
    (void)redis_client_say(&admin, "ACL SETUSER reader reset on >pw ~t:* +ping +info +lrange");
    (void)snprintf(url, sizeof(url), "redis://damso:pw@127.0.0.1:%u", rig.port);
    open_cache(&other, url, RIG_REPLY_MS);
    CHECK(cache_connect(other.cache, 6) == 0);
    CHECK(append_sized(&other, "a", 1, 2, 32) == 0);
    CHECK(cache_freeze(other.cache, SLICE("a"), 1) == 0);
    CHECK(cache_unlink(other.cache, SLICE("a"), 1) == 0);
    CHECK(finish(&other) == 0);
    CHECK(results[0] == 0 && results[1] == 0 && results[2] == 0);
    CHECK(cache_scan(other.cache, see_list, NULL) == 0);
    (void)redis_client_say(&admin, "ACL SETUSER damso -@all"); /* rights are taken away */
    CHECK(append_sized(&other, "a", 3, 3, 32) == 0);
    CHECK(finish(&other) == -EACCES);
    CHECK(result_count == 0 && !cache_is_open(other.cache));
    close_cache(&other);

    (void)snprintf(url, sizeof(url), "redis://blind:pw@127.0.0.1:%u", rig.port);
    open_cache(&other, url, RIG_REPLY_MS);
    CHECK(cache_connect(other.cache, 6) == -ENOTSUP);
    CHECK(strstr(cache_why(other.cache), "INFO") != NULL);
    close_cache(&other);

    append_now("z", 1, 2);
    (void)snprintf(url, sizeof(url), "redis://reader:pw@127.0.0.1:%u", rig.port);
    open_cache(&other, url, RIG_REPLY_MS);
    CHECK(cache_connect(other.cache, 0) == 0); /* only reads */
    const struct cache_range range = {SLICE("z"), 0, 0, UINT32_MAX};
    CHECK(reads(&other, &range, 1, "0:z1-2"));
    close_cache(&other);
    end_test();
}

static void stopped_server_is_noticed_and_nothing_untrue_is_told(void)
{
    struct connection other;

    begin_test(5);
    open_cache(&other, rig.url, 300);
    CHECK(cache_connect(other.cache, 5) == 0);
    CHECK(kill(rig.pid, SIGSTOP) == 0);
    const uint64_t begin = rig_now_ms();
    CHECK(append_sized(&other, "a", 1, 3, 32) == 0);
    CHECK(finish(&other) == -ETIMEDOUT);
    CHECK(rig_now_ms() - begin < 2000);
    CHECK(result_count == 0 && !cache_is_open(other.cache)); /* C3 */
    CHECK(append_sized(&other, "a", 1, 3, 32) == -ENOTCONN);
    CHECK(finish(&other) == -ENOTCONN);
    CHECK(kill(rig.pid, SIGCONT) == 0);
    CHECK(cache_connect(other.cache, 5) == 0);
    CHECK(cache_ping(other.cache) == 0);
    close_cache(&other);
    end_test();
}

static void restarted_server_is_another_run(void)
{
    char run_id[3][CACHE_RUN_ID_BYTES];

    begin_test(5);
    cache_run_id(ours.cache, run_id[0]);
    append("a", 1, 3);
    CHECK(finish(&ours) == 0);
    CHECK(cache_connect(ours.cache, 5) == 0);
    cache_run_id(ours.cache, run_id[1]);
    CHECK(memcmp(run_id[0], run_id[1], CACHE_RUN_ID_BYTES) == 0);
    append("a", 4, 4);
    redis_rig_kill(&rig);
    const int error = finish(&ours);
    CHECK(error == -ECONNRESET || error == -EPIPE);
    CHECK(result_count == 0);
    CHECK(cache_connect(ours.cache, 5) == -ECONNREFUSED);
    redis_rig_start(&rig, "");
    CHECK(cache_connect(ours.cache, 5) == 0);
    cache_run_id(ours.cache, run_id[2]);
    CHECK(memcmp(run_id[0], run_id[2], CACHE_RUN_ID_BYTES) != 0);
    CHECK(list_is("a", 0, ""));
    append_now("a", 1, 4); /* the scripts were loaded at the connect */
    CHECK(list_is("a", 0, "0:a1-4"));
    end_test();
    CHECK(redis_connect(admin.redis) == 0);
}

static void replica_takes_no_writes(void)
{
    char text[64];

    begin_test(5);
    (void)snprintf(text, sizeof(text), "REPLICAOF 127.0.0.1 %u", rig_free_port());
    (void)redis_client_say(&admin, text);
    append("a", 1, 1);
    CHECK(finish(&ours) == -EROFS);
    CHECK(result_count == 0 && !cache_is_open(ours.cache));
    (void)redis_client_say(&admin, "REPLICAOF NO ONE");
    end_test();
}

int main(void)
{
    wrong_options_are_refused();
    redis_rig_open(&rig, "");
    redis_client_open(&admin, rig.url, "");
    CHECK(redis_connect(admin.redis) == 0);
    appended_records_are_read_in_order();
    long_lists_are_read_in_pieces();
    reader_that_stops_leaves_the_connection_in_step();
    frozen_batch_lies_apart_until_it_is_unlinked();
    older_owner_is_fenced_from_everything();
    owner_key_that_makes_no_sense_is_replaced();
    full_redis_refuses_appends_whole_and_drains();
    foreign_key_is_moved_away_and_kept();
    windows_larger_than_the_bounds_are_told_all();
    forgotten_scripts_are_loaded_and_nothing_is_lost();
    scripts_that_come_back_in_the_middle_keep_the_order();
    every_list_is_found_whoever_left_it();
    found_list_is_read_and_removed();
    server_that_would_delete_messages_is_refused();
    user_with_few_rights_is_enough_or_told();
    stopped_server_is_noticed_and_nothing_untrue_is_told();
    restarted_server_is_another_run();
    replica_takes_no_writes();
    redis_client_close(&admin);
    redis_rig_close(&rig);
    puts("19 passed, 0 failed");
    return 0;
}
