/*
 * test_store_mongo_hostile.c - what the MongoDB store does about documents that damso did not
 * write.
 *
 * Method: against the server of DAMSO_TEST_MONGODB_URI. Each field of each document is given values
 *         of other types and sizes; the reading must fail with -EUCLEAN and words that name the
 *         collection, the _id and the field, and go on working once the document is mended.
 */
#include "tests/persist/mongo_documents.h"

/* --- documents of somebody else --- */

static void expect_damaged(int error, const char *collection, const char *id, const char *field)
{
    const char *why = store_mongo_why(store);

    if (error != -EUCLEAN || strstr(why, collection) == NULL || strstr(why, id) == NULL ||
        strstr(why, field) == NULL) {
        (void)fprintf(stderr, "%d: \"%s\", expected %s, %s, %s\n", error, why, collection, id,
                      field);
        CHECK(error == -EUCLEAN);
        CHECK(strstr(why, collection) != NULL && strstr(why, id) != NULL);
        CHECK(strstr(why, field) != NULL);
    }
}

/* Values that no field of ours has: each is tried in each field. */
enum { WRONGS = 6, TOO_LONG = 4 };

static bson_t *make_wrong(const char *field, int which)
{
    static char text[5000];
    bson_t *value = bson_new();

    memset(text, 'x', sizeof(text) - 1);
    if (which == 0) {
        BCON_APPEND(value, field, BCON_NULL);
    } else if (which == 1) {
        BCON_APPEND(value, field, BCON_DOUBLE(1.5));
    } else if (which == 2) {
        BCON_APPEND(value, field, "{", "a", BCON_INT32(1), "}");
    } else if (which == 3) {
        BCON_APPEND(value, field, "[", BCON_INT32(1), "]");
    } else if (which == TOO_LONG) {
        BCON_APPEND(value, field, BCON_UTF8(text));
    } else {
        BCON_APPEND(value, field, BCON_BIN(BSON_SUBTYPE_BINARY, (const uint8_t *)text, 17));
    }
    return value;
}

static int ignore_member(void *context, const struct store_member *member, uint64_t seq)
{
    (void)context;
    (void)member;
    (void)seq;
    return 0;
}

static int ignore_key(void *context, const struct store_key *key)
{
    (void)context;
    (void)key;
    return 0;
}

static int ignore_room(void *context, const struct store_room *room)
{
    (void)context;
    (void)room;
    return 0;
}

static void damaged_room_is_told_by_its_id(void)
{
    static const char *const fields[] = {"epoch",      "created_at", "member_count", "members_max",
                                         "visibility", "durability", "name"};
    bson_t *filter = BCON_NEW("_id", "room-1");
    struct store_room room;

    begin_test();
    CHECK(create_named("room-1", "n", 0) == 0);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        for (int which = 0; which < WRONGS; which++) {
            spoil("rooms", filter, make_wrong(fields[i], which));
            expect_damaged(store_mongo_room_read(store, SLICE("room-1"), &room), "rooms", "room-1",
                           fields[i]);
        }
        spoil("rooms", filter,
              strcmp(fields[i], "name") == 0 ? BCON_NEW("name", "n")
                                             : BCON_NEW(fields[i], BCON_INT32(1)));
    }
    spoil("rooms", filter, BCON_NEW("visibility", BCON_INT32(0)));
    CHECK(store_mongo_room_read(store, SLICE("room-1"), &room) == 0); /* int32 is a number too */
    spoil("rooms", filter, BCON_NEW("owner_id", BCON_INT32(1)));
    expect_damaged(store_mongo_members_read(store, SLICE("room-1"), false, ignore_member, NULL),
                   "rooms", "room-1", "owner_id");
    spoil("rooms", filter, BCON_NEW("name", BCON_INT32(1)));
    expect_damaged(store_mongo_rooms_read(store, SLICE(""), SLICE(""), 9, ignore_room, NULL),
                   "rooms", "room-1", "name");
    spoil("rooms", filter, BCON_NEW("epoch", "one"));
    uint64_t epoch;
    expect_damaged(store_mongo_epoch(store, SLICE("room-1"), &epoch), "rooms", "room-1", "epoch");
    bson_destroy(filter);
    end_test();
}

static void damaged_member_is_told_by_its_id(void)
{
    static const char *const fields[] = {"user_id", "username", "role", "seq"};
    bson_t *filter = BCON_NEW("_id", "r/ann");

    begin_test();
    make_room("r");
    put_member("r", "ann", ROLE_MEMBER, 1);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        for (int which = 0; which < WRONGS; which++) {
            spoil("members", filter, make_wrong(fields[i], which));
            expect_damaged(store_mongo_members_read(store, SLICE("r"), true, ignore_member, NULL),
                           "members", "r/ann", fields[i]);
        }
        spoil("members", filter,
              i < 2 ? BCON_NEW(fields[i], "ann") : BCON_NEW(fields[i], BCON_INT32(1)));
    }
    CHECK(store_mongo_members_read(store, SLICE("r"), true, ignore_member, NULL) == 0);
    spoil("members", filter, BCON_NEW("role", BCON_INT32(ROLE_OWNER + 1)));
    expect_damaged(store_mongo_members_read(store, SLICE("r"), true, ignore_member, NULL),
                   "members", "r/ann", "role");
    spoil("members", filter, BCON_NEW("role", BCON_INT32(1), "seq", BCON_INT32(-1)));
    expect_damaged(store_mongo_members_read(store, SLICE("r"), true, ignore_member, NULL),
                   "members", "r/ann", "seq");
    bson_destroy(filter);
    end_test();
}

static int ignore_entry(void *context, uint64_t seq, struct slice body)
{
    (void)seq;
    (void)body;
    if (context != NULL) {
        *(uint32_t *)context += 1;
    }
    return 0;
}

static void damaged_event_is_told_by_its_id(void)
{
    const struct store_range all = {.room_id = SLICE("r"), .to_seq = 9, .limit = 9};
    const char *id = "720000000000000002"; /* "r", 2 */
    uint8_t bytes[STORE_MONGO_ID_MAX];
    const bson_value_t value = event_id("r", 2, bytes);
    bson_t filter = BSON_INITIALIZER;

    begin_test();
    CHECK(bson_append_value(&filter, "_id", -1, &value));
    put_event("r", 1);
    put("events", make_event("r", 2, 2));
    spoil("events", &filter, BCON_NEW("body", BCON_UTF8("half a letter: \303")));
    expect_damaged(store_mongo_history_read(store, &all, ignore_entry, NULL), "events", id, "body");
    for (int which = 0; which < WRONGS; which++) {
        if (which != TOO_LONG) { /* which a body may be */
            spoil("events", &filter, make_wrong("body", which));
            expect_damaged(store_mongo_history_read(store, &all, ignore_entry, NULL), "events", id,
                           "body");
        }
        spoil("events", &filter, make_wrong("key", which));
        expect_damaged(store_mongo_keys_read(store, SLICE("r"), 9, ignore_key, NULL), "events", id,
                       "key");
    }
    bson_destroy(&filter);
    end_test();
}

static void event_with_an_id_of_another_kind_is_not_seen_or_told(void)
{
    const struct store_range all = {.room_id = SLICE("r"), .to_seq = UINT64_MAX, .limit = 9};
    uint8_t zero[9] = {'r'};
    uint32_t count = 0;
    uint64_t seq = 0;

    begin_test();
    put("events", BCON_NEW("_id", "r", "body", "text")); /* outside of every range */
    put("events", BCON_NEW("_id", BCON_INT64(1), "body", "text"));
    put("events", BCON_NEW("_id", BCON_BIN(BSON_SUBTYPE_BINARY, (const uint8_t *)"r", 1)));
    make_room("r");
    put_events("r", 1, 2);
    CHECK(store_mongo_history_read(store, &all, ignore_entry, &count) == 0);
    CHECK(count == 2);
    zero[1] = 0xff; /* a seq of 64 bits */
    put("events", BCON_NEW("_id", BCON_BIN(BSON_SUBTYPE_BINARY, zero, 9), "body", "text"));
    zero[1] = 0; /* seq 0 */
    put("events", BCON_NEW("_id", BCON_BIN(BSON_SUBTYPE_BINARY, zero, 9), "body", "text"));
    CHECK(store_mongo_history_read(store, &all, ignore_entry, &count) == 0);
    CHECK(count == 4);
    CHECK(store_mongo_last_seq(store, SLICE("r"), &seq) == 0);
    CHECK(seq == 2);
    zero[0] = 'z'; /* and nothing else in the room */
    put("events", BCON_NEW("_id", BCON_BIN(BSON_SUBTYPE_BINARY, zero, 9), "body", "text"));
    expect_damaged(store_mongo_last_seq(store, SLICE("z"), &seq), "events", "7a0000000000000000",
                   "_id");
    end_test();
}

static void damaged_quarantine_is_told_by_its_id(void)
{
    const struct store_range all = {.room_id = SLICE("r"), .to_seq = 9, .limit = 9};
    const char *id = "722f322f78"; /* "r/2/x" */
    bson_t *filter = BCON_NEW("room_id", "r");
    uint8_t record[512];
    char body[64];
    struct record other = rig_message(body, "other", EPOCH, 2);
    uint32_t count = 0;

    begin_test();
    put_event("r", 1);
    put_quarantined("r", 2, "x");
    put_event("r", 3);
    for (int which = 0; which < WRONGS; which++) {
        spoil("quarantine", filter, make_wrong("record", which));
        expect_damaged(store_mongo_history_read(store, &all, ignore_entry, NULL), "quarantine", id,
                       "record");
    }
    other.room_id = SLICE("r"); /* what was refused for its text is not shown */
    other.body = SLICE("half a letter: \303");
    record_encode(&other, record);
    spoil("quarantine", filter,
          BCON_NEW("record", BCON_BIN(BSON_SUBTYPE_BINARY, record, record_size(&other))));
    CHECK(store_mongo_history_read(store, &all, ignore_entry, &count) == 0);
    CHECK(count == 2);
    other.body = SLICE("{}");
    other.seq = 7;
    record_encode(&other, record); /* sound, and of another seq */
    spoil("quarantine", filter,
          BCON_NEW("record", BCON_BIN(BSON_SUBTYPE_BINARY, record, record_size(&other))));
    expect_damaged(store_mongo_history_read(store, &all, ignore_entry, NULL), "quarantine", id,
                   "record");
    other.seq = 2;
    other.room_id = SLICE("other");
    record_encode(&other, record); /* sound, and of another room */
    spoil("quarantine", filter,
          BCON_NEW("record", BCON_BIN(BSON_SUBTYPE_BINARY, record, record_size(&other))));
    expect_damaged(store_mongo_history_read(store, &all, ignore_entry, NULL), "quarantine", id,
                   "record");
    bson_destroy(filter);
    end_test();
}

static void damaged_user_is_told_by_its_id(void)
{
    static const char *const fields[] = {"username", "display_name", "password", "created_at"};
    bson_t *filter = BCON_NEW("_id", "u1");
    struct store_user user;

    begin_test();
    put("users", BCON_NEW("_id", "u1", "folded", "ann"));
    expect_damaged(store_mongo_user_by_id(store, SLICE("u1"), &user), "users", "u1", "username");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        for (int which = 0; which < WRONGS; which++) {
            spoil("users", filter, make_wrong(fields[i], which));
            expect_damaged(store_mongo_user_by_name(store, SLICE("ann"), &user), "users", "u1",
                           fields[i]);
        }
        spoil("users", filter,
              i < 3 ? BCON_NEW(fields[i], "ann") : BCON_NEW(fields[i], BCON_INT32(1)));
    }
    CHECK(store_mongo_user_by_name(store, SLICE("ann"), &user) == 0);
    bson_destroy(filter);
    end_test();
}

int main(void)
{
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    damaged_room_is_told_by_its_id();
    damaged_member_is_told_by_its_id();
    damaged_event_is_told_by_its_id();
    event_with_an_id_of_another_kind_is_not_seen_or_told();
    damaged_quarantine_is_told_by_its_id();
    damaged_user_is_told_by_its_id();
    puts("6 passed, 0 failed");
    return 0;
}
