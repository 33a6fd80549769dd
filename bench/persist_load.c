/* persist_load.c - see persist_load.h for the invariants V1 and V2 named below. */
#include "bench/persist_load.h"

#include "bench/persist_child.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    RING_BYTES = 16 << 20, /* persist.ring_bytes of damsod, both ways */
    RING_ENTRIES = 64,
    EVENTS_MAX = 8,
    FEED_AT_A_TIME = 256, /* records before the other side sees them: a busy shard's turn */
    WAIT_NS = 1000000,
    MODE_REDIS_MONGODB = 1, /* of persist.mode, in the order of its names */
    SHARD_TAG_KIND = 9,
};

static const uint64_t start_ns = 20000000000;
static const uint64_t away_ns = 3000000000; /* a store that is not there by then is not there */

/* --- begin and end --- */

void persist_load_config(struct config *config, const struct options *options,
                         const struct persist_stores *stores, const struct persist_space *space)
{
    config_defaults(config);
    (void)snprintf(config->server_data, sizeof(config->server_data), "%s", options->data);
    config->persist_mode = MODE_REDIS_MONGODB;
    (void)snprintf(config->persist_redis_url, sizeof(config->persist_redis_url), "%s",
                   stores->redis_url);
    (void)snprintf(config->persist_redis_prefix, sizeof(config->persist_redis_prefix), "%s",
                   space->prefix);
    (void)snprintf(config->persist_mongodb_uri, sizeof(config->persist_mongodb_uri), "%s",
                   space->mongodb_uri);
}

static int open_lane(struct persist_load *load)
{
    const struct os_ring_options options = {.entries = RING_ENTRIES};
    char why[256] = "";

    mem_init(&load->plan, "persistence load", MEM_MAP);
    void *const requests = mem_reserve(&load->plan, "requests", RING_BYTES, 1);
    void *const replies = mem_reserve(&load->plan, "replies", RING_BYTES, 1);
    int result = mem_seal(&load->plan);
    if (result < 0) {
        return persist_figures_say(load->figures, result, "no memory for the rings");
    }
    spsc_init(&load->lane.requests, requests, RING_BYTES);
    spsc_init(&load->lane.replies, replies, RING_BYTES);
    doorbell_init(&load->bell);
    result = os_ring_create(&options, &load->ring, why, sizeof(why));
    result = result == 0 ? os_ring_enable(load->ring) : result;
    load->lane.shard_bell = &load->bell;
    load->lane.shard_ring = load->ring;
    load->lane.shard_tag = os_tag(SHARD_TAG_KIND, 0, 0);
    return result < 0 ? persist_figures_say(load->figures, result, "no io_uring: %s", why) : 0;
}

static int make_directory(struct persist_load *load)
{
    char path[CONFIG_TEXT_SIZE];
    const char *const parent = load->config.server_data;

    if (snprintf(path, sizeof(path), "%s/damso-persist-XXXXXX", parent) >= (int)sizeof(path)) {
        return persist_figures_say(load->figures, -EINVAL, "--data: the name is too long");
    }
    if (mkdtemp(path) == NULL) {
        const int error = -errno;
        return persist_figures_say(load->figures, error, "%s: %s", parent, strerrordesc_np(-error));
    }
    memcpy(load->directory, path, sizeof(path));
    memcpy(load->config.server_data, path, sizeof(path));
    return 0;
}

/* Until Redis and MongoDB are both used. */
static int wait_ready(struct persist_load *load)
{
    const uint64_t begin_ns = os_now_ns();
    char why[512] = "";
    enum persist_state state = PERSIST_STARTING;

    while (state != PERSIST_READY || metrics_get(&load->metrics.redis_up) == 0) {
        const uint64_t waited_ns = os_now_ns() - begin_ns;
        if (waited_ns > start_ns || (state == PERSIST_DOWN && waited_ns > away_ns) ||
            persist_figures_ending()) {
            return persist_figures_say(load->figures, -ECONNREFUSED,
                                       "the stores cannot be used: %s",
                                       why[0] != '\0' ? why : "they did not answer in time");
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
        state = persist_state(load->persist, why, sizeof(why));
    }
    return 0;
}

int persist_load_begin(struct persist_load *load, uint32_t rooms, uint32_t size,
                       struct persist_figures *figures)
{
    const struct config config = load->config;
    struct persist_lane *const lanes[] = {&load->lane};
    char why[512] = "";

    CHECK(rooms >= 1 && rooms <= PERSIST_LOAD_ROOMS_MAX);
    CHECK(size <= PERSIST_LOAD_TEXT_MAX);
    memset(load, 0, sizeof(*load));
    load->config = config;
    load->figures = figures;
    load->rooms = rooms;
    load->size = size;
    (void)snprintf(load->room_name, sizeof(load->room_name), "bench-room-");
    log_level_set(LOG_LEVEL_WARNING);
    int result = open_lane(load);
    result = result == 0 ? make_directory(load) : result;
    if (result == 0) {
        result = persist_open(&load->config, &load->persist, why, sizeof(why));
        result = result < 0 ? persist_figures_say(figures, result, "%s", why) : 0;
    }
    if (result == 0) {
        result = persist_start(load->persist, lanes, 1, &load->metrics);
        load->started = result == 0;
        result = result < 0 ? persist_figures_say(figures, result, "persistence cannot start") : 0;
    }
    result = result == 0 ? wait_ready(load) : result;
    if (result < 0) {
        persist_load_end(load);
    }
    return result;
}

void persist_load_end(struct persist_load *load)
{
    if (load->persist != NULL) {
        persist_close(load->persist);
    }
    if (load->ring != NULL) {
        os_ring_destroy(load->ring);
    }
    mem_end(&load->plan);
    if (load->directory[0] != '\0') {
        (void)persist_child_remove(load->directory);
    }
    load->directory[0] = '\0';
    load->persist = NULL;
    load->ring = NULL;
}

/* --- records --- */

struct slice persist_load_room(const struct persist_load *load, uint32_t room, char ret[32])
{
    const int size = snprintf(ret, 32, "%s%u", load->room_name, room);

    return (struct slice){ret, (uint32_t)size};
}

uint32_t persist_load_record(const struct persist_load *load, uint32_t room, uint64_t seq,
                             uint8_t ret[PERSIST_LOAD_RECORD_MAX])
{
    char name[32];
    char body[PERSIST_LOAD_TEXT_MAX + 512];
    const struct slice room_id = persist_load_room(load, room, name);
    const int size =
        snprintf(body, sizeof(body),
                 "{\"type\":\"message\",\"room_id\":\"%.*s\",\"seq\":%" PRIu64
                 ",\"user_id\":\"bench-%u\",\"username\":\"bench-%u\",\"text\":\"%0*" PRIu64
                 "\",\"created_at\":\"2026-11-21T12:00:00.000Z\"}",
                 (int)room_id.size, room_id.data, seq, room, room, (int)load->size, seq);
    char user[32];
    const int user_size = snprintf(user, sizeof(user), "bench-%u", room);
    const struct slice user_id = {user, (uint32_t)user_size};
    const struct record record = {
        .kind = RECORD_MESSAGE,
        .epoch = PERSIST_LOAD_EPOCH,
        .seq = seq,
        .at_ms = 1795262400000 + seq,
        .room_id = room_id,
        .user_id = user_id,
        .username = user_id,
        .body = {body, (uint32_t)size},
    };
    CHECK(record_size(&record) <= PERSIST_LOAD_RECORD_MAX);
    record_encode(&record, ret);
    return record_size(&record);
}

/* Puts a record into the ring; its size, or 0: the ring is full. */
static uint32_t put(struct persist_load *load, uint32_t room, uint64_t seq, bool hurry)
{
    uint8_t record[PERSIST_LOAD_RECORD_MAX];
    const uint32_t size = persist_load_record(load, room, seq, record);
    const struct persist_record head = {.head = {.op = PERSIST_RECORD, .count = hurry},
                                        .position = load->position + size,
                                        .record_bytes = size};
    uint8_t *const space = spsc_reserve(&load->lane.requests, (uint32_t)sizeof(head) + size);

    if (space == NULL) {
        return 0;
    }
    memcpy(space, &head, sizeof(head));
    memcpy(space + sizeof(head), record, size);
    spsc_commit(&load->lane.requests, (uint32_t)sizeof(head) + size);
    load->position += size; /* V2 */
    return size;
}

bool persist_load_put(struct persist_load *load, uint32_t room)
{
    const uint32_t size = put(load, room, load->seq[room] + 1, false);

    load->seq[room] += size > 0; /* V1 */
    load->records += size > 0;
    load->bytes += size;
    return size > 0;
}

bool persist_load_hurry(struct persist_load *load)
{
    return put(load, 0, load->seq[0], true) > 0;
}

bool persist_load_ask(struct persist_load *load, uint32_t room, uint64_t from_seq, uint32_t limit,
                      uint64_t token)
{
    char name[32];
    const struct slice room_id = persist_load_room(load, room, name);
    const struct persist_page page = {.head = {.op = PERSIST_HISTORY, .token = token},
                                      .from_seq = from_seq,
                                      .to_seq = from_seq + limit - 1,
                                      .limit = limit,
                                      .bytes_max = 256 << 10,
                                      .room_bytes = (uint8_t)room_id.size};
    uint8_t *const space =
        spsc_reserve(&load->lane.requests, (uint32_t)sizeof(page) + room_id.size);

    if (space == NULL) {
        return false;
    }
    memcpy(space, &page, sizeof(page));
    memcpy(space + sizeof(page), room_id.data, room_id.size);
    spsc_commit(&load->lane.requests, (uint32_t)sizeof(page) + room_id.size);
    return true;
}

void persist_load_publish(struct persist_load *load)
{
    struct os_event events[EVENTS_MAX];

    if (spsc_publish(&load->lane.requests)) {
        persist_wake(load->persist, load->ring);
        (void)!os_turn(load->ring, 0, events, EVENTS_MAX); /* the bell goes out with this */
    }
}

/* --- replies --- */

static void take_one(struct persist_load *load, const struct persist_head *reply, uint32_t size)
{
    switch (reply->op) {
    case PERSIST_WATERMARK:
        load->watermark = ((const struct persist_record *)reply)->position;
        break;
    case PERSIST_TAKEN:
        break; /* the ring is bound enough */
    case PERSIST_REWIND:
        load->rewound = true;
        break;
    default:
        if (load->reply != NULL) {
            load->reply(load->context, reply, size);
        }
    }
}

int persist_load_take(struct persist_load *load, int64_t wait_ns)
{
    struct os_event events[EVENTS_MAX];
    uint32_t size;

    if (wait_ns > 0) {
        doorbell_prepare_sleep(&load->bell);
        const bool any = spsc_peek(&load->lane.replies, &size) != NULL;
        (void)!os_turn(load->ring, any ? 0 : wait_ns, events, EVENTS_MAX);
        doorbell_cancel_sleep(&load->bell);
    }
    for (const struct persist_head *reply = spsc_peek(&load->lane.replies, &size); reply != NULL;
         reply = spsc_peek(&load->lane.replies, &size)) {
        take_one(load, reply, size);
        spsc_next(&load->lane.replies);
    }
    spsc_release(&load->lane.replies);
    return load->rewound ? persist_figures_say(load->figures, -EPROTO,
                                               "Redis or MongoDB failed during the run")
                         : 0;
}

/* --- doing --- */

struct making {
    uint32_t answered;
    int error;
};

static void take_room(void *context, const struct persist_head *reply, uint32_t size)
{
    struct making *const making = context;

    (void)size;
    making->answered++;
    making->error = reply->op == PERSIST_ROOM ? reply->status : -EPROTO;
}

static void put_room(struct persist_load *load, uint32_t room)
{
    char name[32];
    const struct slice room_id = persist_load_room(load, room, name);
    const struct slice tail[] = {room_id, room_id, SLICE("owner"), SLICE("Bench")};
    const struct persist_room request = {.head = {.op = PERSIST_ROOM_CREATE, .token = room},
                                         .epoch = PERSIST_LOAD_EPOCH,
                                         .members_max = 9,
                                         .durability = CONFIG_DURABILITY_FSYNC,
                                         .room_bytes = (uint8_t)tail[0].size,
                                         .name_bytes = (uint16_t)tail[1].size,
                                         .user_bytes = (uint8_t)tail[2].size,
                                         .username_bytes = (uint8_t)tail[3].size};
    const uint32_t size =
        (uint32_t)sizeof(request) + 2 * room_id.size + tail[2].size + tail[3].size;
    char *at = spsc_reserve(&load->lane.requests, size);

    CHECK(at != NULL); /* one at a time */
    memcpy(at, &request, sizeof(request));
    at += sizeof(request);
    for (uint32_t i = 0; i < 4; i++) {
        memcpy(at, tail[i].data, tail[i].size);
        at += tail[i].size;
    }
    spsc_commit(&load->lane.requests, size);
    persist_load_publish(load);
}

int persist_load_make_rooms(struct persist_load *load)
{
    struct making making = {0};
    int result = 0;

    load->reply = take_room;
    load->context = &making;
    for (uint32_t room = 0; room < load->rooms && result == 0; room++) {
        const uint64_t until_ns = os_now_ns() + start_ns;
        put_room(load, room);
        while (result == 0 && making.answered <= room) {
            result = os_now_ns() > until_ns ? -ETIMEDOUT : persist_load_take(load, WAIT_NS);
        }
        result = result == 0 ? making.error : result;
    }
    load->reply = NULL;
    return result < 0 ? persist_figures_say(load->figures, result, "making rooms: %s",
                                            strerrordesc_np(-result))
                      : 0;
}

/* How a wait may end. */
static int check_time(struct persist_load *load, uint64_t until_ns, const char *what)
{
    if (persist_figures_ending()) {
        return persist_figures_say(load->figures, -EINTR, "interrupted");
    }
    return os_now_ns() > until_ns
               ? persist_figures_say(load->figures, -ETIMEDOUT, "%s took too long", what)
               : 0;
}

int persist_load_feed(struct persist_load *load, uint64_t count, uint64_t until_ns)
{
    int result = 0;

    for (uint64_t i = 0; i < count && result == 0;) {
        const bool put = persist_load_put(load, (uint32_t)(i % load->rooms));
        i += put;
        if (!put || i % FEED_AT_A_TIME == 0) {
            persist_load_publish(load);
            result = persist_load_take(load, put ? 0 : WAIT_NS);
            result = result == 0 ? check_time(load, until_ns, "feeding") : result;
        }
    }
    persist_load_publish(load);
    return result;
}

int persist_load_wait_pending(struct persist_load *load, uint64_t count, uint64_t until_ns)
{
    int result = 0;

    while (result == 0 && (metrics_get(&load->metrics.persist_pending_messages) != count ||
                           spsc_used(&load->lane.requests) > 0)) {
        result = persist_load_take(load, WAIT_NS);
        result = result == 0 ? check_time(load, until_ns, "Redis") : result;
    }
    return result;
}

int persist_load_wait_stored(struct persist_load *load, uint64_t until_ns)
{
    int result = 0;

    while (result == 0 && load->watermark < load->position) {
        result = persist_load_take(load, WAIT_NS);
        result = result == 0 ? check_time(load, until_ns, "MongoDB") : result;
    }
    return result;
}
