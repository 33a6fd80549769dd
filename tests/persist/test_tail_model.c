/*
 * test_tail_model.c - a page and a room's load are right at every moment of a flush, for every way
 *                     in which a log may lie in MongoDB, frozen, in Redis' log and on its way.
 *
 * Method: over the models of tail_model.h. What is read is compared with what was handed over; a
 *         wrong page is printed with its split, range and step.
 */
#include "core/log.h"
#include "persist/tail_own.h"
#include "tests/persist/tail_model.h"

#include <time.h>

/* --- the question --- */

static struct mem_plan plan;
static struct tail *tail;
static struct read_head head;
static uint64_t overlay[(TOP * (RECORD_MAX + 16)) / 8];

static void open_tail(struct cache *with)
{
    mem_init(&plan, "test", MEM_MAP);
    CHECK(tail_open(NULL, with, KEYS_MAX, &plan, &tail) == 0);
    CHECK(mem_seal(&plan) == 0);
}

static void close_tail(void)
{
    mem_end(&plan);
}

/* The state in which the question is asked. */
static void begin(uint64_t a, uint64_t b, uint64_t c)
{
    const bool open = world.open;

    split = (struct split){a, b, c};
    memset(&world, 0, sizeof(world));
    world.open = open;
    world.room_is_there = true;
    world.move_at = -1;
    insert(1, a, 2);
    change(1, a);
    list_put(&world.lists[FROZEN], a + 1, b);
    list_put(&world.log, b + 1, c);
}

static void put_overlay(uint64_t first, uint64_t last)
{
    uint8_t *at = (uint8_t *)overlay;

    for (uint64_t seq = first; seq <= last; seq++) {
        const uint64_t size = records[seq].size;
        memcpy(at, &size, sizeof(size));
        memcpy(at + 8, records[seq].data, size);
        at += 8 + ((size + 7) & ~UINT64_C(7));
        head.overlay_count++;
    }
    head.overlay_bytes = (uint32_t)(at - (uint8_t *)overlay);
}

/* The view, with the part of the overlay that the range asks for, as pipeline_read.c makes it. */
static void see(const struct store_range *range)
{
    uint64_t first = split.c + 1;
    uint64_t last = TOP;

    memset(&head, 0, sizeof(head));
    head.owner = OWNER;
    if (split.b > split.a) {
        head.lists[head.list_count++] = (struct read_list){
            .number = FROZEN, .first_seq = split.a + 1, .count = (uint32_t)(split.b - split.a)};
    }
    if (split.c > split.b) {
        head.lists[head.list_count++] = (struct read_list){.number = OPEN,
                                                           .first_seq = split.b + 1,
                                                           .count = (uint32_t)(split.c - split.b),
                                                           .open = true};
    }
    if (range != NULL) {
        first = range->from_seq > first ? range->from_seq : first;
        last = range->to_seq < last ? range->to_seq : last;
        if (first <= last && last - first + 1 > range->limit) {
            *(range->descending ? &first : &last) =
                range->descending ? last - range->limit + 1 : first + range->limit - 1;
        }
    }
    put_overlay(first, last);
    tail_see(tail, &head, overlay);
}

struct rows {
    uint64_t seqs[NEWER + 1];
    uint32_t count;
    uint32_t stop_after; /* 0: never */
    int error;
    uint64_t bytes, bytes_max; /* 0: any */
};

static int take_row(void *context, uint64_t seq, struct slice body)
{
    struct rows *rows = context;
    struct record record;

    CHECK(seq >= 1 && seq <= NEWER && rows->count < NEWER);
    CHECK(record_decode(records[seq].data, records[seq].size, &record) == 0);
    CHECK(slice_equal(body, record.body));
    if (rows->bytes_max > 0 && rows->bytes + body.size > rows->bytes_max) {
        return 1;
    }
    rows->bytes += body.size;
    rows->seqs[rows->count++] = seq;
    return rows->error < 0 ? rows->error : rows->count == rows->stop_after;
}

static int history(const struct store_range *range, struct rows *rows)
{
    see(range);
    world.moments = 0;
    return tail_store(tail)->ops->history_read(tail_store(tail), range, take_row, rows);
}

static struct store_range range_of(uint64_t from, uint64_t to, uint32_t limit, bool descending)
{
    return (struct store_range){.room_id = SLICE("r"),
                                .from_seq = from,
                                .to_seq = to,
                                .limit = limit,
                                .descending = descending};
}

/* The rows are those of the range, from its first on, without a gap; count of them. */
static bool follow(const struct rows *rows, const struct store_range *range, uint64_t count)
{
    const uint64_t top = range->to_seq < TOP ? range->to_seq : TOP;
    bool right = rows->count == count;

    for (uint32_t i = 0; i < rows->count && right; i++) {
        right = rows->seqs[i] == (range->descending ? top - i : range->from_seq + i);
    }
    if (!right) {
        (void)fprintf(stderr, "split %lu %lu %lu range %lu..%lu limit %u %s steps %d: %u rows:",
                      (unsigned long)split.a, (unsigned long)split.b, (unsigned long)split.c,
                      (unsigned long)range->from_seq, (unsigned long)range->to_seq, range->limit,
                      range->descending ? "desc" : "asc", world.steps, rows->count);
        for (uint32_t i = 0; i < rows->count; i++) {
            (void)fprintf(stderr, " %lu", (unsigned long)rows->seqs[i]);
        }
        (void)fputc('\n', stderr);
    }
    return right;
}

static uint64_t expected_rows(const struct store_range *range)
{
    const uint64_t top = range->to_seq < TOP ? range->to_seq : TOP;
    const uint64_t all = range->from_seq > top ? 0 : top - range->from_seq + 1;
    return all < range->limit ? all : range->limit;
}

static void expect_page(const struct store_range *range)
{
    struct rows rows = {0};
    const int error = history(range, &rows);

    if (error < 0) {
        (void)fprintf(stderr, "error %d: ", error);
        (void)follow(&rows, range, NEWER);
    }
    CHECK(error == 0);
    CHECK(follow(&rows, range, expected_rows(range)));
    CHECK(tail_failed(tail) == JOB_WHERE_NONE);
}

/* --- pages --- */

static void every_page_over_every_split_is_whole(void)
{
    make_records(0);
    open_tail(&cache);
    for (uint64_t a = 0; a <= TOP; a++) {
        for (uint64_t b = a; b <= TOP; b++) {
            for (uint64_t c = b; c <= TOP; c++) {
                begin(a, b, c);
                for (uint32_t limit = 1; limit <= TOP + 1; limit++) {
                    for (int order = 0; order < 2; order++) {
                        const uint64_t from = (uint64_t)limit * 7 % TOP + 1;
                        /* With nothing on its way the top is MongoDB's, which is not this view's.
                         */
                        struct store_range range = range_of(1, UINT64_MAX, limit, order > 0);
                        expect_page(&range);
                        range = range_of(from, TOP, limit, order > 0);
                        expect_page(&range);
                        range = range_of(1, from, limit, order > 0);
                        expect_page(&range);
                    }
                }
            }
        }
    }
    close_tail();
}

/* Each LRANGE and each find may come before or after any step of the flush. */
static void page_is_whole_whenever_a_batch_moves_on(void)
{
    enum { SMALL = TOP - 18 }; /* 18 records are in MongoDB in every split */

    make_records(0);
    open_tail(&cache);
    for (uint64_t a = TOP - SMALL; a <= TOP; a++) {
        for (uint64_t b = a; b <= TOP; b++) {
            for (uint64_t c = b; c <= TOP; c += 1 + (c - b) / 3) {
                for (int moves = 0; moves < (STEPS + 1) * 8 * (STEPS + 1); moves++) {
                    const uint32_t limit = 1 + (uint32_t)(moves * 5) % 14;
                    for (int order = 0; order < 2; order++) {
                        begin(a, b, c);
                        move(moves % (STEPS + 1));
                        world.move_at = moves / (STEPS + 1) % 8;
                        world.move_by = moves / (STEPS + 1) / 8;
                        const struct store_range range =
                            range_of(TOP - SMALL - 2, TOP, limit, order > 0);
                        expect_page(&range);
                    }
                }
            }
        }
    }
    close_tail();
}

static void stores_are_asked_no_more_than_needed(void)
{
    make_records(0);
    open_tail(&cache);
    begin(10, 16, 22);
    struct store_range range = range_of(1, 10, 50, false);
    expect_page(&range);
    CHECK(world.lranges == 0 && world.finds == 1); /* below the tail */
    begin(10, 16, 22);
    range = range_of(1, TOP, 10, false);
    expect_page(&range);
    CHECK(world.lranges == 0 && world.finds == 1); /* full before the tail begins */
    begin(10, 16, 22);
    range = range_of(1, TOP, 8, true);
    expect_page(&range);
    CHECK(world.lranges == 0 && world.finds == 0); /* the overlay is enough */
    begin(10, 16, 22);
    range = range_of(1, TOP, 12, true);
    expect_page(&range);
    CHECK(world.lranges == 2 && world.finds == 0); /* the log, and where it would be frozen */
    begin(10, 16, 22);
    range = range_of(11, 14, 50, false);
    expect_page(&range);
    CHECK(world.lranges == 1 && world.finds == 0); /* a frozen list */
    begin(10, 16, 22);
    range = range_of(1, TOP, 50, true);
    expect_page(&range);
    CHECK(world.finds == 1);
    CHECK(tail_redis_ns(tail) > 0 && tail_mongodb_ns(tail) > 0);
    range = range_of(TOP + 1, UINT64_MAX, 50, true);
    begin(10, 16, 22);
    expect_page(&range);
    CHECK(world.lranges == 0 && world.finds == 0); /* above the tail nothing was handed over */
    close_tail();
}

/* Frozen between two commands, or put there twice by somebody else. */
static void record_that_is_seen_twice_is_kept_once(void)
{
    const struct store_range range = range_of(1, TOP, 50, true);

    make_records(0);
    open_tail(&cache);
    begin(10, 16, 22);
    world.lists[OPEN] = world.log;
    expect_page(&range);
    CHECK(tail->page.kept_end == 12);
    close_tail();
}

static void expect_lost(const struct store_range *range, uint8_t where)
{
    struct rows rows = {0};

    CHECK(history(range, &rows) == -EAGAIN);
    CHECK(tail_failed(tail) == where);
}

static void what_nobody_has_is_tried_again(void)
{
    make_records(0);
    open_tail(&cache);
    for (uint64_t lost = 11; lost <= 22; lost++) {
        for (int order = 0; order < 2; order++) {
            begin(10, 16, 22);
            struct list *list = lost <= 16 ? &world.lists[FROZEN] : &world.log;
            list->seqs[lost - (lost <= 16 ? 11 : 17)] = 1; /* something else */
            struct store_range range = range_of(1, TOP, 50, order > 0);
            expect_lost(&range, JOB_WHERE_REDIS);
            range = range_of(lost, lost, 50, order > 0);
            expect_lost(&range, JOB_WHERE_REDIS);
            insert(lost, lost, 2);
            range = range_of(1, TOP, 50, order > 0);
            expect_page(&range);
        }
    }
    begin(10, 16, 22);
    world.room_is_there = false;
    world.log.count = 0;
    const struct store_range range = range_of(11, TOP, 50, true);
    expect_lost(&range, JOB_WHERE_REDIS);
    close_tail();
}

static void hole_is_shown_only_inside_of_mongodb(void)
{
    make_records(0);
    open_tail(&cache);
    for (int order = 0; order < 2; order++) {
        struct rows rows = {0};
        struct store_range range = range_of(1, TOP, 50, order > 0);
        begin(10, 16, 22);
        world.stored[4] = false; /* a salvaged log */
        world.stored[5] = false;
        CHECK(history(&range, &rows) == 0);
        CHECK(rows.count == TOP - 2);
        CHECK(rows.seqs[order > 0 ? TOP - 6 : 3] == 6 && rows.seqs[order > 0 ? TOP - 5 : 2] == 3);
        begin(10, 16, 22);
        world.stored[10] = false; /* between MongoDB's part and the tail */
        expect_lost(&range, JOB_WHERE_MONGODB);
        range = range_of(1, 10, 50, order > 0);
        rows.count = 0;
        CHECK(history(&range, &rows) == 0);
        CHECK(rows.count == 9);
        begin(10, 16, 22);
        memset(world.stored, 0, sizeof(world.stored));
        range = range_of(1, TOP, 50, order > 0);
        expect_lost(&range, JOB_WHERE_MONGODB);
    }
    close_tail();
}

static void room_is_unknown_only_without_a_tail(void)
{
    struct rows rows = {0};
    struct store_range range = range_of(1, TOP, 50, true);

    make_records(0);
    open_tail(&cache);
    begin(TOP, TOP, TOP);
    memset(world.stored, 0, sizeof(world.stored));
    world.room_is_there = false;
    CHECK(history(&range, &rows) == -ENOENT && tail_failed(tail) == JOB_WHERE_NONE);
    begin(0, 16, 22);
    world.room_is_there = false;
    expect_page(&range);
    begin(10, 16, 22);
    world.room_is_there = false;
    range = range_of(1, 10, 50, true);
    CHECK(history(&range, &rows) == 0 && rows.count == 0);
    range = range_of(1, TOP, 50, true);
    memset(world.stored, 0, sizeof(world.stored));
    expect_lost(&range, JOB_WHERE_MONGODB);
    close_tail();
}

static void caller_ends_a_page_where_it_likes(void)
{
    make_records(0);
    open_tail(&cache);
    for (uint32_t stop = 1; stop <= TOP; stop++) {
        for (int order = 0; order < 2; order++) {
            for (int steps = 0; steps <= STEPS; steps++) {
                struct rows rows = {.stop_after = stop};
                const struct store_range range = range_of(1, TOP, 50, order > 0);
                begin(10, 16, 22);
                move(steps);
                CHECK(history(&range, &rows) == 0);
                CHECK(follow(&rows, &range, stop));
                rows = (struct rows){.error = -EMSGSIZE};
                CHECK(history(&range, &rows) == -EMSGSIZE);
                CHECK(rows.count == 1 && tail_failed(tail) == JOB_WHERE_NONE);
            }
        }
    }
    close_tail();
}

/* 4 MiB of bodies are kept; of more, those that are told first. */
static void large_bodies_end_a_page_early(void)
{
    make_records(300 * 1024);
    open_tail(&cache);
    for (int order = 0; order < 2; order++) {
        for (int steps = 0; steps <= STEPS; steps++) {
            for (uint64_t c = 0; c <= TOP; c += 6) {
                struct rows rows = {.bytes_max = 1024 * 1024};
                const struct store_range range = range_of(1, TOP, 50, order > 0);
                begin(0, c / 2, c);
                move(steps);
                CHECK(history(&range, &rows) == 0);
                CHECK(follow(&rows, &range, 3));
                rows = (struct rows){0};
                CHECK(history(&range, &rows) == 0);
                CHECK(rows.count >= 12);
                /* Nothing was written behind the buffer. */
                CHECK(tail->room.change_count == 0 && tail->room.key_count == 0);
                CHECK(follow(&rows, &range, rows.count));
            }
        }
    }
    close_tail();
    make_records(0);
}

static void nothing_is_asked_of_redis_without_one(void)
{
    make_records(0);
    open_tail(NULL);
    begin(20, 20, 20);
    struct store_range range = range_of(1, TOP, 50, true);
    expect_page(&range);
    begin(10, 16, 22);
    expect_lost(&range, JOB_WHERE_REDIS);
    insert(11, 22, 2);
    expect_page(&range);
    close_tail();
}

/* --- Redis and MongoDB that fail --- */

static void broken_connection_is_made_anew_once(void)
{
    struct rows rows = {0};
    const struct store_range range = range_of(5, TOP, 50, true);

    make_records(0);
    open_tail(&cache);
    begin(10, 16, 22);
    expect_page(&range);
    world.connects = 0;
    world.cache_errors = 1;
    world.cache_error = -ECONNRESET;
    expect_page(&range);
    CHECK(world.connects == 1);
    world.connects = 0;
    world.cache_errors = 2;
    CHECK(history(&range, &rows) == -EAGAIN && rows.count == 0);
    CHECK(tail_failed(tail) == JOB_WHERE_REDIS && world.connects == 1);
    /* Not again before half a second is over. */
    expect_lost(&range, JOB_WHERE_REDIS);
    CHECK(world.connects == 1);
    const struct store_range below = range_of(1, 10, 50, true);
    expect_page(&below);
    CHECK(nanosleep(&(struct timespec){.tv_nsec = 510 * 1000 * 1000}, NULL) == 0);
    world.connect_error = -ECONNREFUSED;
    expect_lost(&range, JOB_WHERE_REDIS);
    CHECK(world.connects == 2);
    expect_lost(&range, JOB_WHERE_REDIS);
    CHECK(world.connects == 2);
    world.connect_error = 0;
    CHECK(nanosleep(&(struct timespec){.tv_nsec = 510 * 1000 * 1000}, NULL) == 0);
    expect_page(&range);
    /* One that does not answer in time is not waited for twice. */
    world.connects = 0;
    world.cache_errors = 1;
    world.cache_error = -ETIMEDOUT;
    expect_lost(&range, JOB_WHERE_REDIS);
    CHECK(world.connects == 0);
    close_tail();
    world.open = false;
}

static void errors_of_mongodb_are_tried_again(void)
{
    static const int errors[] = {-EAGAIN, -EACCES, -EINVAL, -EUCLEAN, -EPROTO, -ENOTSUP};
    struct store *store;
    struct store_user user;
    struct store_room room = {0};
    const struct store_range range = range_of(1, TOP, 50, true);

    make_records(0);
    open_tail(&cache);
    store = tail_store(tail);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct rows rows = {0};
        begin(10, 16, 22);
        world.mongodb_error = errors[i];
        CHECK(history(&range, &rows) == -EAGAIN && tail_failed(tail) == JOB_WHERE_MONGODB);
        tail_see(tail, NULL, NULL);
        CHECK(tail_failed(tail) == JOB_WHERE_NONE);
        CHECK(store->ops->user_by_id(store, SLICE("u"), &user) == -EAGAIN);
        CHECK(tail_failed(tail) == JOB_WHERE_MONGODB);
        CHECK(store->ops->user_by_name(store, SLICE("u"), &user) == -EAGAIN);
        CHECK(store->ops->user_create(store, &user) == -EAGAIN);
        CHECK(store->ops->room_create(store, &room, SLICE("u"), SLICE("u")) == -EAGAIN);
        CHECK(store->ops->room_read(store, SLICE("r"), &room) == -EAGAIN);
    }
    world.mongodb_error = -EEXIST;
    tail_see(tail, NULL, NULL);
    CHECK(store->ops->user_create(store, &user) == -EEXIST);
    CHECK(store->ops->room_create(store, &room, SLICE("u"), SLICE("u")) == -EEXIST);
    world.mongodb_error = -ENOENT;
    CHECK(store->ops->user_by_id(store, SLICE("u"), &user) == -ENOENT);
    CHECK(tail_failed(tail) == JOB_WHERE_NONE);
    close_tail();
}

/* --- a room's load --- */

static int take_member(void *context, const struct store_member *member)
{
    uint32_t *members = context;
    const uint32_t user = (uint32_t)(member->user_id.data[1] - '0');

    CHECK(member->user_id.size == 2 && user < USERS && member->role == ROLE_MEMBER);
    CHECK(slice_equal(member->username, SLICE("Ann")));
    CHECK((*members & 1U << user) == 0);
    *members |= 1U << user;
    return 0;
}

static int take_key(void *context, const struct store_key *key)
{
    struct rows *rows = context;
    struct record record;

    CHECK(key->seq <= NEWER && rows->count < NEWER);
    CHECK(record_decode(records[key->seq].data, records[key->seq].size, &record) == 0);
    CHECK(memcmp(record.key_digest, key->key_digest, 16) == 0);
    CHECK(record.content_digest == key->content_digest && record.at_ms == key->at_ms);
    rows->seqs[rows->count++] = key->seq;
    return 0;
}

static uint32_t expected_members(void)
{
    static bool all[NEWER + 1];
    uint32_t members = 0;

    memset(all, true, sizeof(all));
    for (uint64_t user = 0; user < USERS; user++) {
        const uint64_t seq = last_change(all, user, TOP);
        members |= seq > 0 && joins(seq) ? 1U << user : 0;
    }
    return members;
}

static void expect_keys(const struct rows *rows, uint32_t limit)
{
    uint32_t at = rows->count;

    CHECK(rows->count <= limit);
    for (uint64_t seq = TOP; seq > 0 && at > 0; seq--) {
        if (is_keyed(seq)) {
            CHECK(rows->seqs[--at] == seq);
        }
    }
    CHECK(at == 0);
    CHECK(rows->count == limit || rows->count == TOP / 3);
}

static void expect_load(uint32_t limit)
{
    struct store *store = tail_store(tail);
    struct store_room room;
    struct rows keys = {0};
    uint32_t members = 0;

    see(NULL);
    world.moments = 0;
    CHECK(store->ops->members_read(store, SLICE("r"), take_member, &members) == 0);
    CHECK(store->ops->keys_read(store, SLICE("r"), limit, take_key, &keys) == 0);
    CHECK(store->ops->room_read(store, SLICE("r"), &room) == 0);
    CHECK(members == expected_members());
    CHECK(room.member_count == (uint32_t)__builtin_popcount(members));
    CHECK(room.last_seq == TOP);
    expect_keys(&keys, limit < KEYS_MAX ? limit : KEYS_MAX);
}

static void every_load_over_every_split_is_whole(void)
{
    make_records(0);
    open_tail(&cache);
    world.open = true;
    cache.owner = OWNER;
    begin(10, 16, 22);
    expect_load(3); /* makes the connection */
    for (uint64_t a = 0; a <= TOP; a++) {
        for (uint64_t b = a; b <= TOP; b++) {
            for (uint64_t c = b; c <= TOP; c++) {
                for (uint32_t limit = 1; limit <= KEYS_MAX + 1; limit += 2) {
                    begin(a, b, c);
                    expect_load(limit);
                }
            }
        }
    }
    close_tail();
}

static void load_is_whole_whenever_a_batch_moves_on(void)
{
    make_records(0);
    open_tail(&cache);
    begin(10, 16, 22);
    expect_load(3);
    for (uint64_t a = 12; a <= TOP; a += 2) {
        for (uint64_t b = a; b <= TOP; b += 2) {
            for (uint64_t c = b; c <= TOP; c += 3) {
                for (int moves = 0; moves < (STEPS + 1) * 12 * (STEPS + 1); moves++) {
                    begin(a, b, c);
                    move(moves % (STEPS + 1));
                    world.move_at = moves / (STEPS + 1) % 12;
                    world.move_by = moves / (STEPS + 1) / 12;
                    expect_load(4);
                }
            }
        }
    }
    close_tail();
}

static void load_of_what_nobody_has_is_tried_again(void)
{
    struct store *store;
    uint32_t members = 0;

    make_records(0);
    open_tail(&cache);
    store = tail_store(tail);
    begin(10, 16, 22);
    expect_load(3);
    for (uint64_t lost = 11; lost <= 22; lost++) {
        begin(10, 16, 22);
        struct list *list = lost <= 16 ? &world.lists[FROZEN] : &world.log;
        list->seqs[lost - (lost <= 16 ? 11 : 17)] = 1;
        see(NULL);
        CHECK(store->ops->members_read(store, SLICE("r"), take_member, &members) == -EAGAIN);
        CHECK(tail_failed(tail) == JOB_WHERE_REDIS && members == 0);
    }
    /* All events are there, but their server may have gone before their members were. */
    begin(10, 16, 22);
    move(UNLINK_1 + 1);
    world.open = false;
    see(NULL);
    CHECK(store->ops->members_read(store, SLICE("r"), take_member, &members) == -EAGAIN);
    expect_load(3);
    begin(TOP, TOP, TOP);
    world.room_is_there = false;
    see(NULL);
    CHECK(store->ops->members_read(store, SLICE("r"), take_member, &members) == -ENOENT);
    close_tail();
}

int main(void)
{
    log_level_set(LOG_LEVEL_ERROR); /* each failing read is told otherwise */
    every_page_over_every_split_is_whole();
    page_is_whole_whenever_a_batch_moves_on();
    stores_are_asked_no_more_than_needed();
    record_that_is_seen_twice_is_kept_once();
    what_nobody_has_is_tried_again();
    hole_is_shown_only_inside_of_mongodb();
    room_is_unknown_only_without_a_tail();
    caller_ends_a_page_where_it_likes();
    large_bodies_end_a_page_early();
    nothing_is_asked_of_redis_without_one();
    broken_connection_is_made_anew_once();
    errors_of_mongodb_are_tried_again();
    every_load_over_every_split_is_whole();
    load_is_whole_whenever_a_batch_moves_on();
    load_of_what_nobody_has_is_tried_again();
    puts("15 passed, 0 failed");
    return 0;
}
