/* tail.c - see tail.h for T1 and T2: opening, the view, Redis, rooms and users. */
#include "core/check.h"
#include "core/log.h"
#include "core/os.h"
#include "core/utf8.h"
#include "persist/tail_own.h"

#include <errno.h>
#include <inttypes.h>

enum { RETRY_NS = 500 * 1000 * 1000 };

/* --- the view --- */

bool tail_overlay_next(const struct tail *tail, uint32_t *at, struct record *ret)
{
    const uint32_t end = tail->head != NULL ? tail->head->overlay_bytes : 0;
    uint64_t size;

    while (end - *at > sizeof(size)) {
        memcpy(&size, tail->overlay + *at, sizeof(size));
        const uint8_t *bytes = tail->overlay + *at + sizeof(size);
        CHECK(size <= end - *at - sizeof(size)); /* the persistence thread wrote it */
        *at += (uint32_t)(sizeof(size) + ((size + 7) & ~UINT64_C(7)));
        if (record_decode(bytes, (uint32_t)size, ret) == 0) {
            return true;
        }
    }
    return false;
}

static void see_seq(struct tail *tail, uint64_t first, uint64_t last)
{
    tail->first_seq = tail->last_seq == 0 || first < tail->first_seq ? first : tail->first_seq;
    tail->last_seq = last > tail->last_seq ? last : tail->last_seq;
}

void tail_see(struct tail *tail, const struct read_head *head, const void *overlay)
{
    struct record record;

    tail->head = head;
    tail->overlay = overlay;
    tail->first_seq = 0;
    tail->last_seq = 0;
    tail->failed = JOB_WHERE_NONE;
    tail->connected = false;
    tail->redis_ns = 0;
    tail->mongodb_ns = 0;
    tail->room.looked = false;
    tail->room.counted = false;
    if (head == NULL) {
        return;
    }
    CHECK(head->list_count <= READ_LISTS_MAX);
    for (uint32_t i = 0; i < head->list_count; i++) {
        const struct read_list *list = &head->lists[i];
        CHECK(list->count > 0);
        see_seq(tail, list->first_seq, list->first_seq + list->count - 1);
    }
    for (uint32_t at = 0; tail_overlay_next(tail, &at, &record);) {
        see_seq(tail, record.seq, record.seq);
    }
}

uint8_t tail_failed(const struct tail *tail)
{
    return tail->failed;
}

uint64_t tail_redis_ns(const struct tail *tail)
{
    return tail->redis_ns;
}

uint64_t tail_mongodb_ns(const struct tail *tail)
{
    return tail->mongodb_ns;
}

/* --- Redis --- */

/* Somebody else may have written there: what would be no text for a client is no record. */
bool tail_decode(struct slice element, struct slice room_id, struct record *ret)
{
    return record_decode(element.data, element.size, ret) == 0 &&
           slice_equal(ret->room_id, room_id) && utf8_valid(ret->user_id.data, ret->user_id.size) &&
           utf8_valid(ret->username.data, ret->username.size) &&
           utf8_valid(ret->body.data, ret->body.size);
}

/* Redis did not answer: it is left alone for a while. */
static int redis_failed(struct tail *tail, uint64_t now_ns, const char *why)
{
    log_debug("a read has no answer from Redis reason=\"%s\"", why);
    tail->retry_at_ns = now_ns + RETRY_NS;
    tail->failed = JOB_WHERE_REDIS;
    return -EAGAIN;
}

static int connect_cache(struct tail *tail)
{
    const uint64_t owner = tail->head->owner;

    if (cache_is_open(tail->cache) && tail->cache_owner == owner) {
        return 0;
    }
    cache_disconnect(tail->cache);
    tail->connected = true;
    tail->cache_owner = owner;
    return cache_connect(tail->cache, owner);
}

int tail_cache_read(struct tail *tail, const struct cache_range *ranges, uint32_t count,
                    cache_row row, void *context)
{
    const uint64_t begun_ns = os_now_ns();
    int error = -ENOTCONN;

    if (!cache_is_open(tail->cache) && begun_ns < tail->retry_at_ns) {
        tail->failed = JOB_WHERE_REDIS;
        return -EAGAIN;
    }
    for (int attempt = 0; attempt < 2 && error < 0; attempt++) {
        const bool fresh = !cache_is_open(tail->cache);
        error = connect_cache(tail);
        const uint64_t asked_ns = os_now_ns();
        error = error == 0 ? cache_read(tail->cache, ranges, count, row, context) : error;
        tail->redis_ns = os_now_ns() - asked_ns;
        if (error == 0) {
            return 0;
        }
        cache_disconnect(tail->cache);
        if (fresh || error == -ETIMEDOUT) {
            break; /* it is not the connection that was broken, but the server */
        }
    }
    tail->redis_ns = 0;
    return redis_failed(tail, os_now_ns(), cache_why(tail->cache));
}

int tail_lost(struct tail *tail, enum job_where where, struct slice room_id, uint64_t seq)
{
    log_debug("neither Redis nor MongoDB has a record that was handed over room_id=%.*s "
              "seq=%" PRIu64,
              (int)room_id.size, room_id.data, seq);
    tail->failed = (uint8_t)where;
    return -EAGAIN;
}

/* --- MongoDB --- */

int tail_mongodb_done(struct tail *tail, uint64_t begun_ns, int error, int row_error)
{
    if (row_error < 0) {
        return row_error;
    }
    if (error == -EAGAIN) {
        /* That MongoDB is away is told once, by whoever writes there. */
        log_debug("a read has no answer reason=\"%s\"", store_mongo_why(tail->mongo));
    } else if (error < 0 && error != -ENOENT && error != -EEXIST) {
        log_warning("a read fails until somebody mends it reason=\"%s\"",
                    store_mongo_why(tail->mongo));
    } else {
        tail->mongodb_ns = os_now_ns() - begun_ns;
        return error;
    }
    tail->failed = JOB_WHERE_MONGODB;
    return -EAGAIN;
}

/* --- rooms and users: MongoDB alone knows them --- */

static struct tail *tail_of(struct store *store)
{
    return (struct tail *)store; /* store is its first member */
}

static int room_create(struct store *store, const struct store_room *room, struct slice user_id,
                       struct slice username)
{
    struct tail *tail = tail_of(store);
    const uint64_t begun_ns = os_now_ns();
    const int error = store_mongo_room_create(tail->mongo, room, user_id, username);
    return tail_mongodb_done(tail, begun_ns, error, 0);
}

struct room_rows {
    store_room_row row;
    void *context;
    int row_error;
};

static int show_room(void *context, const struct store_room *room)
{
    struct room_rows *rows = context;
    const int answer = rows->row(rows->context, room);

    rows->row_error = answer < 0 ? answer : 0;
    return answer;
}

/* A row's last_seq is MongoDB's: it may lag by the room's tail, which a list is not worth a look
 * at. */
static int rooms_read(struct store *store, struct slice query, struct slice cursor, uint32_t limit,
                      store_room_row row, void *context)
{
    struct tail *tail = tail_of(store);
    struct room_rows rows = {.row = row, .context = context};
    const uint64_t begun_ns = os_now_ns();
    const int error = store_mongo_rooms_read(tail->mongo, query, cursor, limit, show_room, &rows);
    return tail_mongodb_done(tail, begun_ns, error, rows.row_error);
}

static int user_create(struct store *store, const struct store_user *user)
{
    struct tail *tail = tail_of(store);
    const uint64_t begun_ns = os_now_ns();
    return tail_mongodb_done(tail, begun_ns, store_mongo_user_create(tail->mongo, user), 0);
}

static int user_by_id(struct store *store, struct slice user_id, struct store_user *ret)
{
    struct tail *tail = tail_of(store);
    const uint64_t begun_ns = os_now_ns();
    return tail_mongodb_done(tail, begun_ns, store_mongo_user_by_id(tail->mongo, user_id, ret), 0);
}

static int user_by_name(struct store *store, struct slice folded, struct store_user *ret)
{
    struct tail *tail = tail_of(store);
    const uint64_t begun_ns = os_now_ns();
    return tail_mongodb_done(tail, begun_ns, store_mongo_user_by_name(tail->mongo, folded, ret), 0);
}

static const struct store_ops tail_ops = {
    .room_create = room_create,
    .room_read = tail_room_read,
    .members_read = tail_members_read,
    .keys_read = tail_keys_read,
    .rooms_read = rooms_read,
    .history_read = tail_history_read,
    .user_create = user_create,
    .user_by_id = user_by_id,
    .user_by_name = user_by_name,
};

/* --- opening --- */

int tail_open(struct store_mongo *mongo, struct cache *cache, uint32_t keys_max,
              struct mem_plan *plan, struct tail **ret)
{
    struct tail *tail = mem_reserve_extra(plan, "reader's pages and rooms", sizeof(*tail), 1,
                                          2 * (size_t)keys_max * sizeof(struct tail_key));

    if (plan->mode == MEM_COUNT) {
        return 0;
    }
    if (tail == NULL) {
        return -ENOMEM;
    }
    tail->store.ops = &tail_ops;
    tail->mongo = mongo;
    tail->cache = cache;
    tail->keys_max = keys_max;
    os_random(&tail->room.hash_key, sizeof(tail->room.hash_key));
    *ret = tail;
    return 0;
}

struct store *tail_store(struct tail *tail)
{
    return &tail->store;
}
