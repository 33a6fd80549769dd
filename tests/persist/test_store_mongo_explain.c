/*
 * test_store_mongo_explain.c - every query of the MongoDB store is a look-up or a range of an
 *                              index.
 *
 * Method: the linker puts this file between the store and persist/mongo.h (--wrap): each find and
 *         each aggregation that it sends is first explained by the server of
 *         DAMSO_TEST_MONGODB_URI (queryPlanner), so that what is checked is what is sent. Plans are
 *         read in MongoDB's words (winningPlan with stages) and in DocumentDB's, which are
 *         PostgreSQL's. The collections are large enough for a wrong index to look worse.
 */
#include "tests/persist/mongo_documents.h"

enum { ROOMS = 1500, EVENTS = 3000, MEMBERS = 1000, USERS = 2000, DEPTH_MAX = 40 };

/* What a plan does to the collection. */
struct plan_seen {
    uint32_t index_ranges; /* by a bounded part of an index, or by _id */
    uint32_t scans;        /* of all documents, or all of an index */
    char what[200];        /* the first scan */
};

static struct {
    bool on;
    uint32_t explained;
} watch;

/* The linker's names: __wrap_x is called for x, __real_x is x. */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
int __real_mongo_find(struct mongo_client *from, const char *collection, const bson_t *filter,
                      const bson_t *options, mongo_row row, void *context,
                      struct mongo_error *ret_error);
int __real_mongo_command(struct mongo_client *from, const bson_t *command, bool write,
                         mongo_row row, void *context, struct mongo_error *ret_error);
int __wrap_mongo_find(struct mongo_client *from, const char *collection, const bson_t *filter,
                      const bson_t *options, mongo_row row, void *context,
                      struct mongo_error *ret_error);
int __wrap_mongo_command(struct mongo_client *from, const bson_t *command, bool write,
                         mongo_row row, void *context, struct mongo_error *ret_error);
/* NOLINTEND(bugprone-reserved-identifier) */

/* --- plans --- */

static void note_scan(struct plan_seen *seen, const char *what)
{
    if (seen->scans == 0) {
        (void)snprintf(seen->what, sizeof(seen->what), "%s", what);
    }
    seen->scans++;
}

/* The bounds of an index's first field leave nothing out. */
static bool is_unbounded(const bson_iter_t *bounds)
{
    bson_iter_t field;
    bson_iter_t range;

    return bson_iter_recurse(bounds, &field) && bson_iter_next(&field) &&
           BSON_ITER_HOLDS_ARRAY(&field) && bson_iter_recurse(&field, &range) &&
           bson_iter_next(&range) && BSON_ITER_HOLDS_UTF8(&range) &&
           strcmp(bson_iter_utf8(&range, NULL), "[MinKey, MaxKey]") == 0;
}

/* A node of MongoDB's: https://www.mongodb.com/docs/manual/reference/explain-results/ */
static void see_stage(const char *stage, const bson_t *node, struct plan_seen *seen)
{
    static const char *const by_index[] = {"IXSCAN", "IDHACK", "EXPRESS_IXSCAN", "CLUSTERED_IXSCAN",
                                           "EXPRESS_CLUSTERED_IXSCAN"};
    bson_iter_t bounds;

    if (strcmp(stage, "COLLSCAN") == 0) {
        note_scan(seen, stage);
    }
    for (size_t i = 0; i < sizeof(by_index) / sizeof(by_index[0]); i++) {
        if (strcmp(stage, by_index[i]) == 0) {
            const bool all = bson_iter_init_find(&bounds, node, "indexBounds") &&
                             BSON_ITER_HOLDS_DOCUMENT(&bounds) && is_unbounded(&bounds);
            if (all) {
                note_scan(seen, "IXSCAN of all of an index");
            } else {
                seen->index_ranges++;
            }
        }
    }
}

/* A node of PostgreSQL's. A condition on the shard key alone is true for every document. */
static void see_node(const char *type, const bson_t *node, struct plan_seen *seen)
{
    bson_iter_t iter;
    const char *condition = "";

    if (strcmp(type, "Seq Scan") == 0) {
        note_scan(seen, type);
    } else if (strstr(type, "Index") != NULL) {
        if (bson_iter_init_find(&iter, node, "Index Cond") && BSON_ITER_HOLDS_UTF8(&iter)) {
            condition = bson_iter_utf8(&iter, NULL);
        }
        if (strstr(condition, "object_id") != NULL || strstr(condition, "document ") != NULL) {
            seen->index_ranges++;
        } else {
            note_scan(seen, "Index Scan of all of an index");
        }
    }
}

static void see_plan(const bson_t *node, struct plan_seen *seen, uint32_t depth)
{
    bson_iter_t iter;
    const uint8_t *bytes;
    uint32_t size;
    bson_t child;

    CHECK(depth < DEPTH_MAX && bson_iter_init(&iter, node));
    while (bson_iter_next(&iter)) {
        const char *key = bson_iter_key(&iter);
        if (BSON_ITER_HOLDS_UTF8(&iter) && strcmp(key, "stage") == 0) {
            see_stage(bson_iter_utf8(&iter, NULL), node, seen);
        } else if (BSON_ITER_HOLDS_UTF8(&iter) && strcmp(key, "Node Type") == 0) {
            see_node(bson_iter_utf8(&iter, NULL), node, seen);
        } else if (BSON_ITER_HOLDS_DOCUMENT(&iter) && strcmp(key, "command") != 0) {
            bson_iter_document(&iter, &size, &bytes);
            CHECK(bson_init_static(&child, bytes, size));
            see_plan(&child, seen, depth + 1);
        } else if (BSON_ITER_HOLDS_ARRAY(&iter) && strcmp(key, "rejectedPlans") != 0) {
            bson_iter_array(&iter, &size, &bytes);
            CHECK(bson_init_static(&child, bytes, size));
            see_plan(&child, seen, depth + 1);
        }
    }
}

static int take_plan(void *context, const bson_t *reply)
{
    see_plan(reply, context, 0);
    return 0;
}

/* Asks how the server would run a command. */
static struct plan_seen explain(const bson_t *command)
{
    struct plan_seen seen = {0};
    struct mongo_error error = {0};
    bson_t asked = BSON_INITIALIZER;

    BCON_APPEND(&asked, "explain", BCON_DOCUMENT(command), "verbosity", "queryPlanner");
    if (__real_mongo_command(client, &asked, false, take_plan, &seen, &error) < 0) {
        (void)fprintf(stderr, "explain: %s\n", error.text);
        CHECK(error.error == 0);
    }
    bson_destroy(&asked);
    return seen;
}

static void expect_index(const bson_t *command)
{
    const struct plan_seen seen = explain(command);

    watch.explained++;
    if (seen.scans > 0 || seen.index_ranges == 0) {
        char *text = bson_as_relaxed_extended_json(command, NULL);
        (void)fprintf(stderr, "%u ranges of indexes, %u scans (%s): %s\n", seen.index_ranges,
                      seen.scans, seen.what, text);
        bson_free(text);
    }
    CHECK(seen.scans == 0);
    CHECK(seen.index_ranges > 0);
}

/* --- between the store and the server --- */

int __wrap_mongo_find(struct mongo_client *from, const char *collection, const bson_t *filter,
                      const bson_t *options, mongo_row row, void *context,
                      struct mongo_error *ret_error)
{
    if (watch.on) {
        bson_t command = BSON_INITIALIZER;
        BCON_APPEND(&command, "find", BCON_UTF8(collection), "filter", BCON_DOCUMENT(filter));
        CHECK(options != NULL && bson_concat(&command, options));
        expect_index(&command);
        bson_destroy(&command);
    }
    return __real_mongo_find(from, collection, filter, options, row, context, ret_error);
}

int __wrap_mongo_command(struct mongo_client *from, const bson_t *command, bool write,
                         mongo_row row, void *context, struct mongo_error *ret_error)
{
    if (watch.on && !write) {
        CHECK(bson_has_field(command, "aggregate"));
        expect_index(command);
    }
    return __real_mongo_command(from, command, write, row, context, ret_error);
}

/* --- documents --- */

static void fill_rooms(void)
{
    bson_t *documents[MONGO_BULK_MAX];

    for (int i = 0; i < ROOMS; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "room-%05d", i);
        documents[i % 500] =
            BCON_NEW("_id", BCON_UTF8(id), "epoch", BCON_INT64(EPOCH), "name", BCON_UTF8(id),
                     "visibility", BCON_INT64(i % 3 == 0), "durability", BCON_INT64(2),
                     "members_max", BCON_INT64(9), "member_count", BCON_INT64(1), "created_at",
                     BCON_INT64(1), "owner_id", "owner", "owner_name", "Olga");
        if (i % 500 == 499) {
            put_all("rooms", documents, 500);
        }
    }
}

static void fill_members(const char *room)
{
    bson_t *documents[MONGO_BULK_MAX];

    for (int i = 0; i < MEMBERS; i++) {
        char id[64];
        char user[32];
        (void)snprintf(user, sizeof(user), "user-%05d", i);
        (void)snprintf(id, sizeof(id), "%s/%s", room, user);
        documents[i] =
            BCON_NEW("_id", BCON_UTF8(id), "room_id", BCON_UTF8(room), "user_id", BCON_UTF8(user),
                     "username", BCON_UTF8(user), "role", BCON_INT64(i % 4 != 0), "seq",
                     BCON_INT64(i + 1), "joined_at", BCON_INT64(1));
    }
    put_all("members", documents, MEMBERS);
}

static void fill_users(void)
{
    bson_t *documents[MONGO_BULK_MAX];

    for (int i = 0; i < USERS; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "user-%05d", i);
        documents[i % 1000] =
            BCON_NEW("_id", BCON_UTF8(id), "username", BCON_UTF8(id), "folded", BCON_UTF8(id),
                     "display_name", "", "password", "", "created_at", BCON_INT64(1));
        if (i % 1000 == 999) {
            put_all("users", documents, 1000);
        }
    }
}

static void fill_events(const char *room)
{
    bson_t *documents[MONGO_BULK_MAX];
    uint32_t count = 0;

    for (uint64_t seq = 1; seq <= EVENTS; seq++) {
        if (seq % 100 == 0) {
            put_quarantined(room, seq, "x");
            continue;
        }
        documents[count++] = make_event(room, seq, seq % 3 == 0 ? seq : 0);
        if (count == MONGO_BULK_MAX) {
            put_all("events", documents, count);
            count = 0;
        }
    }
    put_all("events", documents, count);
}

static void fill(void)
{
    fill_rooms();
    fill_members("room-00001");
    fill_members("room-00002");
    fill_users();
    fill_events("room-00001");
    fill_events("room-00002");
}

/* --- asking --- */

static int end_room(void *context, const struct store_room *room)
{
    (void)room;
    return *(int *)context;
}

static int end_member(void *context, const struct store_member *member, uint64_t seq)
{
    (void)member;
    (void)seq;
    return *(int *)context;
}

static int end_key(void *context, const struct store_key *key)
{
    (void)key;
    return *(int *)context;
}

static int end_entry(void *context, uint64_t seq, struct slice body)
{
    (void)seq;
    (void)body;
    return *(int *)context;
}

/* How many queries were explained since the last call. */
static uint32_t explained(void)
{
    const uint32_t count = watch.explained;
    watch.explained = 0;
    return count;
}

static void rooms_are_read_by_index(struct slice room_id)
{
    struct store_room room;
    uint64_t number;
    int goes_on = 0;
    int ends = 1;

    CHECK(store_mongo_room_read(store, room_id, &room) == 0);
    CHECK(explained() == 3); /* rooms, events, quarantine */
    CHECK(store_mongo_last_seq(store, room_id, &number) == 0);
    CHECK(number == EVENTS);
    CHECK(store_mongo_epoch(store, room_id, &number) == 0);
    CHECK(store_mongo_room_read(store, SLICE("nowhere"), &room) == -ENOENT);
    CHECK(explained() == 4);
    CHECK(store_mongo_rooms_read(store, SLICE(""), SLICE(""), 3, end_room, &goes_on) == 0);
    CHECK(explained() == 4); /* the list, and events for each room shown */
    CHECK(store_mongo_rooms_read(store, SLICE("1499"), SLICE("room-01"), 3, end_room, &ends) == 0);
    CHECK(store_mongo_rooms_read(store, SLICE("R"), SLICE("room-01"), 3, end_room, &ends) == 0);
    CHECK(explained() >= 3);
}

static void members_keys_and_users_are_read_by_index(struct slice room_id)
{
    struct store_user user;
    int goes_on = 0;

    CHECK(store_mongo_members_read(store, room_id, false, end_member, &goes_on) == 0);
    CHECK(store_mongo_members_read(store, room_id, true, end_member, &goes_on) == 0);
    CHECK(explained() == 4);
    CHECK(store_mongo_keys_read(store, room_id, 50, end_key, &goes_on) == 0);
    CHECK(store_mongo_keys_read(store, SLICE("nowhere"), 50, end_key, &goes_on) == -ENOENT);
    CHECK(explained() == 3);
    CHECK(store_mongo_user_by_id(store, SLICE("user-00077"), &user) == 0);
    CHECK(store_mongo_user_by_name(store, SLICE("user-00077"), &user) == 0);
    CHECK(store_mongo_user_by_id(store, SLICE("nobody"), &user) == -ENOENT);
    CHECK(store_mongo_user_by_name(store, SLICE("nobody"), &user) == -ENOENT);
    CHECK(explained() == 4);
}

static void read_range(struct slice room_id, uint64_t from, uint64_t to, uint32_t limit,
                       bool descending)
{
    const struct store_range range = {.room_id = room_id,
                                      .from_seq = from,
                                      .to_seq = to,
                                      .limit = limit,
                                      .descending = descending};
    int goes_on = 0;

    CHECK(store_mongo_history_read(store, &range, end_entry, &goes_on) == 0);
}

static void history_is_read_by_index(struct slice room_id)
{
    read_range(room_id, 1, UINT64_MAX, 50, true);
    read_range(room_id, 1, UINT64_MAX, 50, false);
    CHECK(explained() == 2); /* nothing is missing in either: one query */
    read_range(room_id, 1501, 1550, 50, false);
    CHECK(explained() == 1);
    read_range(room_id, 1, 1550, 50, true);
    CHECK(explained() == 1);
    read_range(room_id, 1450, 1550, 200, true);
    CHECK(explained() == 2); /* 1500 is looked for */
    read_range(room_id, 1450, 1550, 200, false);
    CHECK(explained() == 2);
    read_range(room_id, EVENTS + 5, EVENTS + 9, 9, false);
    CHECK(explained() == 3); /* events, quarantine, and whether the room is there */
}

static void what_an_insert_asks_is_read_by_index(const char *room)
{
    struct slice records[2];
    uint8_t results[2];
    uint8_t bytes[2][512];
    char bodies[2][64];

    for (uint64_t i = 0; i < 2; i++) {
        struct record record = rig_message(bodies[i], room, EPOCH, EVENTS + 1 + i);
        record.kind = RECORD_JOINED;
        record.role = ROLE_MEMBER;
        record_encode(&record, bytes[i]);
        records[i] = (struct slice){(const char *)bytes[i], record_size(&record)};
    }
    for (int again = 0; again < 2; again++) { /* the second time their _id are taken */
        CHECK(store_mongo_insert(store, records, 2, results) == 0);
        CHECK(results[0] == STORE_MONGO_STORED && results[1] == STORE_MONGO_STORED);
    }
    CHECK(explained() >= 3);
}

/* A checker that finds no fault in what is one would prove nothing. */
static void scan_is_seen_as_one(void)
{
    bson_t command = BSON_INITIALIZER;

    BCON_APPEND(&command, "find", "users", "filter", "{", "username", "user-00077", "}");
    CHECK(explain(&command).scans > 0);
    bson_destroy(&command);
}

int main(void)
{
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    begin_test();
    fill();
    scan_is_seen_as_one();
    watch.on = true;
    rooms_are_read_by_index(SLICE("room-00001"));
    members_keys_and_users_are_read_by_index(SLICE("room-00001"));
    history_is_read_by_index(SLICE("room-00001"));
    what_an_insert_asks_is_read_by_index("room-00001");
    watch.on = false;
    end_test();
    puts("5 passed, 0 failed");
    return 0;
}
