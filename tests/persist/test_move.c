/*
 * test_move.c - a move loses and changes nothing, goes on where it ended, and sees every
 * difference.
 *
 * Method: an embedded store with all that is odd (64-bit numbers, bytes that are no text, holes,
 *         owners that left) is filled through its own interface, moved into a MongoDB database of
 *         the test's own, and back into a new directory; both embedded stores are then read by
 *         their interface. Copies are ended at every batch by the tick, and started again.
 *         Redis is left out here (persist.cache = none): tests/blackbox/test_move.py has it.
 */
#include "persist/move_own.h"
#include "tests/persist/mongo_rig.h"
#include "tests/persist/store_rig.h"

#include <errno.h>
#include <stdarg.h>

/* A page of rooms has MOVE_ROOMS. */
enum {
    EVENTS = 2500,
    SMALL_ROOMS = 20,
    MANY_ROOMS = 300,
    ODD_ROW = 700,
    KEYS = 1000,
    DUMP_BYTES = 8 * 1024 * 1024
};

/* What an embedded store has, as text. */
static char dumps[2][DUMP_BYTES];

struct dump {
    char *text;
    size_t used;
};

static struct config config; /* of the move; its directory is the rig's */
static int ticks_left;       /* of copying, until the tick says stop; < 0: never */

static int tick(void *context, const struct move_progress *progress)
{
    (void)context;
    if (progress->phase != MOVE_COPYING || ticks_left < 0) {
        return 0;
    }
    return ticks_left-- == 0 ? -ECANCELED : 0;
}

/* --- the embedded store --- */

struct embedded {
    struct mem_plan plan;
    struct store *store;
};

static void embedded_open(struct embedded *embedded, const char *directory)
{
    char why[512] = "";
    const struct store_options options = {.directory = directory,
                                          .cache_bytes = 4 * 1024 * 1024,
                                          .keys_max = KEYS,
                                          .plan = &embedded->plan};

    mem_init(&embedded->plan, "test", MEM_MAP);
    CHECK(store_sqlite_open(&options, &embedded->store, why, sizeof(why)) == 0);
    CHECK(mem_seal(&embedded->plan) == 0);
}

static void embedded_close(struct embedded *embedded)
{
    embedded->store->ops->close(embedded->store);
    mem_end(&embedded->plan);
}

static void make_user(struct store *store, const char *id, const char *name, const char *password)
{
    const struct store_user user = {.created_ms = 1700000000123,
                                    .user_id = rig_slice(id),
                                    .username = rig_slice(name),
                                    .folded = rig_slice(name),
                                    .display_name = rig_slice("D\xc3\xa9"),
                                    .password = rig_slice(password)};
    CHECK(store->ops->user_create(store, &user) == 0);
}

static void make_room(struct store *store, const char *id, uint64_t epoch)
{
    const struct store_room room = {.epoch = epoch,
                                    .created_ms = 1700000000000,
                                    .members_max = 7,
                                    .visibility = 1,
                                    .durability = 2,
                                    .room_id = rig_slice(id),
                                    .name = rig_slice("n\xc3\xa4me")};
    CHECK(store->ops->room_create(store, &room, SLICE("u1"), SLICE("Ann")) == 0);
}

static void add(struct store *store, const struct record *record)
{
    CHECK(store->ops->append(store, record, true) == STORE_STORED);
}

/* odd: so many are no text, more of them in a row than a page has space for. */
static void fill_long(struct store *store, uint32_t odd)
{
    char text[64];

    make_room(store, "long", UINT64_MAX - 4);
    for (uint64_t seq = 1; seq <= EVENTS; seq++) {
        struct record record = rig_message(text, "long", UINT64_MAX - 4, seq);
        if (seq % 3 == 0) {
            rig_key(&record, UINT64_MAX / seq);
        }
        if (seq == 100 || seq == EVENTS || (seq >= 1000 && seq < 1000 + odd)) {
            record.body = SLICE("no text: \xff\xfe"); /* what MongoDB does not take as an event */
        }
        if (seq == 7 || seq == 8) {
            record.kind = seq == 7 ? RECORD_JOINED : RECORD_LEFT;
            record.role = seq == 7 ? ROLE_MEMBER : ROLE_NONE;
            record.user_id = SLICE("u2");
        }
        if (seq != 50) { /* a hole, as salvage leaves it */
            add(store, &record);
        }
    }
}

static void fill_small(struct store *store, uint32_t rooms)
{
    char name[32];
    char text[64];

    for (uint32_t i = 0; i < rooms; i++) {
        (void)snprintf(name, sizeof(name), "room-%u", i);
        make_room(store, name, UINT64_MAX - i);
        for (uint64_t seq = 1; seq <= i % 4; seq++) {
            struct record record = rig_message(text, name, UINT64_MAX - i, seq);
            record.kind = i % 8 == 3 && seq == 1 ? RECORD_LEFT : RECORD_JOINED;
            record.role = record.kind == RECORD_LEFT ? ROLE_NONE : ROLE_ADMIN;
            record.user_id = record.kind == RECORD_LEFT ? SLICE("u1") : SLICE("u3");
            add(store, &record);
        }
    }
}

static void fill(const char *directory, uint32_t rooms)
{
    struct embedded embedded;

    embedded_open(&embedded, directory);
    struct store *store = embedded.store;
    CHECK(store->ops->begin(store) == 0);
    make_user(store, "u1", "ann", "$argon2id$secret");
    make_user(store, "u2", "bob", "");
    fill_long(store, rooms == MANY_ROOMS ? ODD_ROW : 0);
    fill_small(store, rooms);
    CHECK(store->ops->commit(store) == 0);
    /* A run after a clean end: the room with the hole has its new epoch. */
    CHECK(store->ops->run_end(store) == 0);
    CHECK(store->ops->run_begin(store, SLICE("boot")) == 0);
    CHECK(store->ops->run_end(store) == 0);
    embedded_close(&embedded);
}

/* --- what it has --- */

__attribute__((format(printf, 2, 3))) static void put(struct dump *dump, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    const int size = vsnprintf(dump->text + dump->used, DUMP_BYTES - dump->used, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && dump->used + (size_t)size < DUMP_BYTES);
    dump->used += (size_t)size;
}

/* Whatever the store's pages of a move give, in their order; it is the store's own reading that
 * test_store.c proves. */
static void dump_rows(struct dump *dump, struct move_store *store, struct move_room *room,
                      struct move_rows *rows)
{
    struct move_cursor cursor = {0};

    while (!cursor.end) {
        move_rows_clear(rows);
        CHECK(store->ops->events_read(store, room, 0, &cursor, rows) == 0);
        for (uint32_t i = 0; i < rows->count; i++) {
            const struct record *event = &rows->events[i];
            put(dump, " event %lu %lu %u %u %lx %02x%02x %.*s %.*s\n", event->seq, event->at_ms,
                event->kind, event->flags, event->content_digest, event->key_digest[0],
                event->key_digest[15], (int)event->user_id.size, event->user_id.data,
                (int)event->body.size, event->body.data);
        }
    }
    cursor = (struct move_cursor){0};
    while (!cursor.end) {
        move_rows_clear(rows);
        CHECK(store->ops->members_read(store, room, 0, &cursor, rows) == 0);
        for (uint32_t i = 0; i < rows->count; i++) {
            const struct move_member *member = &rows->members[i];
            put(dump, " member %.*s %.*s %u %lu\n", (int)member->user_id.size, member->user_id.data,
                (int)member->username.size, member->username.data, member->role, member->joined_ms);
        }
    }
}

static int dump_key(void *context, const struct store_key *key)
{
    uint64_t digest;

    memcpy(&digest, key->key_digest, sizeof(digest));
    put(context, " key %lx %lx %lu %lu\n", digest, key->content_digest, key->seq, key->at_ms);
    return 0;
}

static void dump_users(struct dump *dump, struct move_store *store, struct move_rows *rows)
{
    struct move_cursor cursor = {0};

    while (!cursor.end) {
        move_rows_clear(rows);
        CHECK(store->ops->users_read(store, &cursor, rows) == 0);
        for (uint32_t i = 0; i < rows->count; i++) {
            const struct store_user *user = &rows->users[i];
            put(dump, "user %.*s %.*s %.*s %.*s %.*s %lu\n", (int)user->user_id.size,
                user->user_id.data, (int)user->username.size, user->username.data,
                (int)user->folded.size, user->folded.data, (int)user->display_name.size,
                user->display_name.data, (int)user->password.size, user->password.data,
                user->created_ms);
        }
    }
}

static const char *dump_of(const char *directory, uint32_t index)
{
    static struct move_rooms rooms;
    static struct move_rows rows;
    struct dump dump = {.text = dumps[index]};
    struct move_cursor cursor = {0};
    struct move_store *pages = NULL;
    struct embedded embedded;
    struct mem_plan plan;
    char why[512] = "";

    embedded_open(&embedded, directory);
    mem_init(&plan, "test", MEM_MAP);
    CHECK(store_sqlite_move(embedded.store, directory, &plan, &pages, why, sizeof(why)) == 0);
    CHECK(mem_seal(&plan) == 0);
    dump_users(&dump, pages, &rows);
    while (!cursor.end) {
        CHECK(pages->ops->rooms_read(pages, &cursor, &rooms) == 0);
        for (uint32_t i = 0; i < rooms.count; i++) {
            struct move_room *room = &rooms.rooms[i];
            put(&dump, "room %.*s %lx %lu %lu %u %u %u %u %.*s\n", (int)room->room.room_id.size,
                room->room.room_id.data, room->room.epoch, room->room.last_seq,
                room->room.created_ms, room->room.member_count, room->room.members_max,
                room->room.visibility, room->room.durability, (int)room->room.name.size,
                room->room.name.data);
            dump_rows(&dump, pages, room, &rows);
            CHECK(embedded.store->ops->keys_read(embedded.store, room->room.room_id, KEYS, dump_key,
                                                 &dump) == 0);
        }
    }
    pages->ops->close(pages);
    embedded_close(&embedded);
    mem_end(&plan);
    return dump.text;
}

/* --- moving --- */

/* One run of a move: 0 or -errno, with the sentence in why. */
static int move_once(const char *directory, enum move_side from, char why[MOVE_WHY_BYTES])
{
    struct move *move = NULL;
    struct move_progress moved;

    (void)snprintf(config.server_data, sizeof(config.server_data), "%s", directory);
    const struct move_options options = {.config = &config,
                                         .from = from,
                                         .to = from == MOVE_EMBEDDED ? MOVE_REDIS_MONGODB
                                                                     : MOVE_EMBEDDED,
                                         .tick = tick};
    why[0] = '\0';
    int error = move_open(&options, &move, why, MOVE_WHY_BYTES);
    if (error == 0) {
        if (from == MOVE_REDIS_MONGODB) {
            error = move_claim(move);
            error = error < 0 ? error : move_replay_end(move);
        }
        error = error < 0 ? error : move_run(move, &moved);
        (void)snprintf(why, MOVE_WHY_BYTES, "%s", move_why(move));
        move_close(move);
    }
    return error;
}

static void move_whole(const char *directory, enum move_side from)
{
    char why[MOVE_WHY_BYTES];

    ticks_left = -1;
    const int error = move_once(directory, from, why);
    if (error < 0) {
        (void)fprintf(stderr, "%s\n", why);
    }
    CHECK(error == 0);
}

/* Ends at the first tick, then at the second, and so on: how often it was ended. */
static int move_in_steps(const char *directory, enum move_side from)
{
    char why[MOVE_WHY_BYTES];
    int error = -ECANCELED;
    int ended = -1;

    while (error == -ECANCELED) {
        ended++;
        CHECK(ended < 100);
        ticks_left = ended;
        error = move_once(directory, from, why);
    }
    CHECK(error == 0);
    return ended;
}

/* Whatever a command changes in the database. */
static void tamper(struct mongo_rig *rig, const char *json)
{
    bson_t command;
    struct mongo_error error;
    struct mongo_client *client = mongo_take(rig->mongo);

    CHECK(bson_init_from_json(&command, json, -1, NULL));
    CHECK(mongo_command(client, &command, true, NULL, NULL, &error) == 0);
    bson_destroy(&command);
    mongo_give(rig->mongo, client);
}

/* A database of the test's own, and two directories, the first one filled. */
struct scene {
    struct mongo_rig rig;
    char here[RIG_PATH_BYTES];
    char back[RIG_PATH_BYTES];
};

static void scene_open(struct scene *scene, uint32_t rooms)
{
    mongo_rig_open(&scene->rig, 2);
    CHECK(mem_seal(&scene->rig.plan) == 0);
    config_defaults(&config);
    const size_t uri_bytes = strlen(scene->rig.uri) + 1;
    CHECK(uri_bytes <= sizeof(config.persist_mongodb_uri));
    memcpy(config.persist_mongodb_uri, scene->rig.uri, uri_bytes);
    config.persist_cache = 1; /* none */
    rig_make(scene->here);
    rig_make(scene->back);
    fill(scene->here, rooms);
}

static void scene_close(struct scene *scene)
{
    rig_remove(scene->here);
    rig_remove(scene->back);
    mongo_rig_close(&scene->rig);
}

/* --- tests --- */

static void sums_see_every_field_and_events_their_order(void)
{
    char text[2][64];
    struct record a = rig_message(text[0], "r", 1, 1);
    struct record b = rig_message(text[1], "r", 1, 1);
    struct move_sum sums[2] = {0};

    move_sum_event(&sums[0], &a);
    for (int field = 0; field < 7; field++) {
        b = a;
        b.at_ms += field == 0;
        b.kind = field == 1 ? RECORD_LEFT : b.kind;
        b.user_id = field == 2 ? SLICE("u9") : b.user_id;
        b.body = field == 3 ? SLICE("x") : b.body;
        b.flags = field == 4 ? RECORD_KEYED : 0;
        b.key_digest[15] = field == 5;
        b.content_digest = field == 6;
        sums[1] = (struct move_sum){0};
        move_sum_event(&sums[1], &b);
        CHECK(!hash128_equal(sums[0].hash, sums[1].hash));
    }
    b = rig_message(text[1], "r", 1, 2);
    sums[0] = sums[1] = (struct move_sum){0};
    move_sum_event(&sums[0], &a);
    move_sum_event(&sums[0], &b);
    move_sum_event(&sums[1], &b);
    move_sum_event(&sums[1], &a);
    CHECK(!hash128_equal(sums[0].hash, sums[1].hash));

    const struct move_member ann = {.role = 3, .user_id = SLICE("a"), .username = SLICE("A")};
    const struct move_member bob = {.role = 1, .user_id = SLICE("b"), .username = SLICE("B")};
    sums[0] = sums[1] = (struct move_sum){0};
    move_sum_member(&sums[0], &ann);
    move_sum_member(&sums[0], &bob);
    move_sum_member(&sums[1], &bob);
    move_sum_member(&sums[1], &ann);
    CHECK(hash128_equal(sums[0].hash, sums[1].hash));
}

static void there_and_back_is_the_same_to_the_byte(void)
{
    struct scene scene;

    scene_open(&scene, MANY_ROOMS);
    move_whole(scene.here, MOVE_EMBEDDED);
    move_whole(scene.back, MOVE_REDIS_MONGODB);
    CHECK(strcmp(dump_of(scene.here, 0), dump_of(scene.back, 1)) == 0);
    CHECK(strstr(dumps[0], " 2500 1700000000000 1 7 1 2 n\xc3\xa4me\n event 1 ") != NULL);
    CHECK(strstr(dumps[0], "room room-3 fffffffffffffffc 3 1700000000000 1 7 1 2") != NULL);
    CHECK(strstr(dumps[0], " key ") != NULL);
    CHECK(strstr(dumps[0], "user u1 ann ann D\xc3\xa9 $argon2id$secret 1700000000123") != NULL);
    scene_close(&scene);
}

static void a_move_that_is_ended_anywhere_goes_on(void)
{
    struct scene scene;

    scene_open(&scene, SMALL_ROOMS);
    CHECK(move_in_steps(scene.here, MOVE_EMBEDDED) > 3);
    CHECK(move_in_steps(scene.back, MOVE_REDIS_MONGODB) > 3);
    CHECK(strcmp(dump_of(scene.here, 0), dump_of(scene.back, 1)) == 0);
    scene_close(&scene);
}

/* Bulks are unordered: whatever the last one left out is written by the next attempt. */
static void holes_of_the_last_bulk_are_filled(void)
{
    struct scene scene;

    scene_open(&scene, SMALL_ROOMS);
    move_whole(scene.here, MOVE_EMBEDDED);
    tamper(&scene.rig,
           "{\"delete\": \"events\", \"deletes\": [{\"q\": {\"room_id\": \"long\", "
           "\"seq\": {\"$gt\": 1501, \"$lt\": 2490, \"$mod\": [2, 0]}}, \"limit\": 0}]}");
    move_whole(scene.here, MOVE_EMBEDDED);
    move_whole(scene.back, MOVE_REDIS_MONGODB);
    CHECK(strcmp(dump_of(scene.here, 0), dump_of(scene.back, 1)) == 0);
    scene_close(&scene);
}

static void every_difference_is_found(void)
{
    static const struct {
        const char *command;
        const char *says;
    } cases[] = {
        {"{\"update\": \"events\", \"updates\": [{\"q\": {\"room_id\": \"long\", \"seq\": 60}, "
         "\"u\": "
         "{\"$set\": {\"digest\": 1}}}]}",
         "the events of the room long differ"},
        {"{\"delete\": \"events\", \"deletes\": [{\"q\": {\"room_id\": \"long\", \"seq\": 61}, "
         "\"limit\": "
         "1}]}",
         "the events of the room long differ"},
        {"{\"delete\": \"quarantine\", \"deletes\": [{\"q\": {\"seq\": 100}, \"limit\": 1}]}",
         "the events of the room long differ"},
    };
    struct scene scene;
    char why[MOVE_WHY_BYTES];

    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        scene_open(&scene, SMALL_ROOMS);
        move_whole(scene.here, MOVE_EMBEDDED);
        tamper(&scene.rig, cases[i].command);
        CHECK(move_once(scene.here, MOVE_EMBEDDED, why) == -EUCLEAN);
        CHECK(strstr(why, cases[i].says) != NULL);
        scene_close(&scene);
    }
}

static void other_data_in_the_target_is_refused_and_left(void)
{
    static const struct {
        const char *command;
        const char *says;
    } cases[] = {
        {"{\"update\": \"rooms\", \"updates\": [{\"q\": {\"_id\": \"room-5\"}, \"u\": {\"$set\": "
         "{\"created_at\": 5}}}]}",
         "the room room-5, which"},
        {"{\"update\": \"users\", \"updates\": [{\"q\": {\"_id\": \"u2\"}, \"u\": {\"$set\": "
         "{\"folded\": \"eve\"}}}]}",
         "the user u2, which"},
        {"{\"update\": \"events\", \"updates\": [{\"q\": {\"room_id\": \"long\", \"seq\": 1}, "
         "\"u\": "
         "{\"$set\": {\"body\": \"{}\"}}}]}",
         "with other messages"},
    };
    struct scene scene;
    char why[MOVE_WHY_BYTES];

    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        scene_open(&scene, SMALL_ROOMS);
        move_whole(scene.here, MOVE_EMBEDDED);
        tamper(&scene.rig, cases[i].command);
        CHECK(move_once(scene.here, MOVE_EMBEDDED, why) == -EEXIST);
        CHECK(strstr(why, cases[i].says) != NULL);
        scene_close(&scene);
    }
}

/* What is derived is made as the source has it: members, epochs, settings. */
static void a_resumed_copy_takes_over_what_has_changed(void)
{
    struct scene scene;

    scene_open(&scene, SMALL_ROOMS);
    move_whole(scene.here, MOVE_EMBEDDED);
    tamper(&scene.rig, "{\"update\": \"rooms\", \"updates\": [{\"q\": {\"_id\": \"long\"}, \"u\": "
                       "{\"$set\": {\"epoch\": 5, \"name\": \"x\"}}}]}");
    tamper(&scene.rig,
           "{\"update\": \"members\", \"updates\": [{\"q\": {\"_id\": \"long/u9\"}, \"u\": "
           "{\"$set\": {\"room_id\": \"long\", \"user_id\": \"u9\", \"username\": \"\", "
           "\"role\": 1, \"seq\": 3, \"joined_at\": 3}}, \"upsert\": true}]}");
    move_whole(scene.here, MOVE_EMBEDDED);
    scene_close(&scene);
}

int main(void)
{
    sums_see_every_field_and_events_their_order();
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(1);
    }
    there_and_back_is_the_same_to_the_byte();
    a_move_that_is_ended_anywhere_goes_on();
    holes_of_the_last_bulk_are_filled();
    every_difference_is_found();
    other_data_in_the_target_is_refused_and_left();
    a_resumed_copy_takes_over_what_has_changed();
    (void)puts("7 passed, 0 failed");
    return 0;
}
