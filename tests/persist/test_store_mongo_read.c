/*
 * test_store_mongo_read.c - what the MongoDB store reads, makes and refuses to believe.
 *
 * Method: against the server of DAMSO_TEST_MONGODB_URI, a database of its own for each test. What
 * is read is put there as plain documents, as store_mongo.h describes them, so that a test says
 *         which documents it means and damaged ones can be among them. For these the validators,
 *         which would refuse them, are switched off first.
 */
#include "tests/persist/mongo_documents.h"

static int show_entry(void *context, uint64_t seq, struct slice body)
{
    struct shown *shown = context;
    char text[64];

    const struct record expected = rig_message(text, shown->room_id, EPOCH, seq);
    CHECK(slice_equal(body, expected.body));
    (void)snprintf(text, sizeof(text), "%lu", (unsigned long)seq);
    return show(shown, text);
}

static const char *history(const char *room_id, uint64_t from, uint64_t to, uint32_t limit,
                           bool descending)
{
    static struct shown shown;
    const struct store_range range = {.room_id = rig_slice(room_id),
                                      .from_seq = from,
                                      .to_seq = to,
                                      .limit = limit,
                                      .descending = descending};
    shown = (struct shown){.room_id = room_id};
    const int error = store_mongo_history_read(store, &range, show_entry, &shown);
    if (error < 0) {
        (void)fprintf(stderr, "%d: %s\n", error, store_mongo_why(store));
    }
    CHECK(error == 0);
    return shown.text;
}

static int show_member(void *context, const struct store_member *member, uint64_t seq)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%.*s=%.*s:%u@%lu", (int)member->user_id.size,
                   member->user_id.data, (int)member->username.size, member->username.data,
                   member->role, (unsigned long)seq);
    return show(context, text);
}

static const char *members(const char *room_id, bool with_left)
{
    static struct shown shown;
    shown = (struct shown){0};
    CHECK(store_mongo_members_read(store, rig_slice(room_id), with_left, show_member, &shown) == 0);
    return shown.text;
}

static uint64_t last_seq(const char *room_id)
{
    uint64_t seq = 4711;
    CHECK(store_mongo_last_seq(store, rig_slice(room_id), &seq) == 0);
    return seq;
}

/* --- rooms --- */

static void room_is_made_once_and_read_as_it_was_made(void)
{
    struct store_room room = {0};
    uint64_t epoch = 0;

    begin_test();
    CHECK(create_named("r", "Zimmer \xc3\xbc", 1) == 0);
    CHECK(create_named("r", "other", 0) == -EEXIST);
    put_events("r", 1, 3);
    CHECK(store_mongo_room_read(store, SLICE("r"), &room) == 0);
    CHECK(room.epoch == EPOCH && room.last_seq == 3 && room.created_ms == 5);
    CHECK(room.member_count == 1 && room.members_max == 9);
    CHECK(room.visibility == 1 && room.durability == CONFIG_DURABILITY_JOURNAL);
    CHECK(slice_equal(room.room_id, SLICE("r")));
    CHECK(slice_equal(room.name, SLICE("Zimmer \xc3\xbc")));
    CHECK(store_mongo_epoch(store, SLICE("r"), &epoch) == 0);
    CHECK(epoch == EPOCH);
    CHECK(store_mongo_room_read(store, SLICE("R"), &room) == -ENOENT); /* ids know case */
    CHECK(store_mongo_epoch(store, SLICE("R"), &epoch) == -ENOENT);
    end_test();
}

static void numbers_keep_all_64_bits(void)
{
    const struct store_room room = {.epoch = UINT64_MAX - 1,
                                    .created_ms = 1,
                                    .members_max = UINT32_MAX,
                                    .room_id = SLICE("r"),
                                    .name = SLICE("n")};
    struct store_room read = {0};

    begin_test();
    CHECK(store_mongo_room_create(store, &room, SLICE("o"), SLICE("O")) == 0);
    CHECK(store_mongo_room_read(store, SLICE("r"), &read) == 0);
    CHECK(read.epoch == UINT64_MAX - 1 && read.members_max == UINT32_MAX);
    end_test();
}

static void last_seq_is_the_rooms_own(void)
{
    begin_test();
    CHECK(last_seq("b") == 0); /* also when the room is not there */
    put_event("a", 900);
    put_event("c", 901);
    put_event("bb", 902);
    CHECK(last_seq("b") == 0);
    put_events("b", 1, 12);
    CHECK(last_seq("b") == 12);
    put_event("b", INT64_MAX);
    CHECK(last_seq("b") == INT64_MAX);
    end_test();
}

static void quarantined_seq_is_not_given_out_again(void)
{
    begin_test();
    put_events("r", 1, 5);
    put_quarantined("r", 3, "x");
    CHECK(last_seq("r") == 5);
    put_quarantined("r", 6, "x");
    CHECK(last_seq("r") == 6);
    end_test();
}

static int show_room(void *context, const struct store_room *room)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "%.*s:%lu", (int)room->room_id.size, room->room_id.data,
                   (unsigned long)room->last_seq);
    return show(context, text);
}

static const char *rooms(struct slice query, const char *cursor, uint32_t limit)
{
    static struct shown shown;
    shown = (struct shown){0};
    const int error =
        store_mongo_rooms_read(store, query, rig_slice(cursor), limit, show_room, &shown);
    if (error < 0) {
        (void)fprintf(stderr, "%d: %s\n", error, store_mongo_why(store));
    }
    CHECK(error == 0);
    return shown.text;
}

static void public_rooms_are_listed_by_id_after_the_cursor(void)
{
    struct shown shown = {.stop_after = 1};

    begin_test();
    CHECK(create_named("b", "Bee", 0) == 0);
    CHECK(create_named("a", "Ant", 0) == 0);
    CHECK(create_named("p", "private", 1) == 0);
    CHECK(create_named("c", "Cat", 0) == 0);
    CHECK(create_named("C", "Big Cat", 0) == 0);
    put_events("b", 1, 2);
    CHECK(is(rooms(SLICE(""), "", 10), "C:0 a:0 b:2 c:0")); /* bytes, so capitals first */
    CHECK(is(rooms(SLICE(""), "a", 10), "b:2 c:0"));
    CHECK(is(rooms(SLICE(""), "", 2), "C:0 a:0"));
    CHECK(is(rooms(SLICE(""), "", 0), ""));
    CHECK(is(rooms(SLICE(""), "", UINT32_MAX), "C:0 a:0 b:2 c:0"));
    CHECK(is(rooms(SLICE(""), "c", 10), ""));
    CHECK(is(rooms(SLICE("cat"), "C", 10), "c:0"));
    CHECK(store_mongo_rooms_read(store, SLICE(""), SLICE(""), 9, show_room, &shown) == 0);
    CHECK(is(shown.text, "C:0"));
    end_test();
}

static void search_takes_every_letter_for_itself(void)
{
    static char longer[1200];

    begin_test();
    CHECK(create_named("r1", "Stra\303\237e 5 (a|b)", 0) == 0);
    CHECK(create_named("r2", "50% $HOME \\d ^x.*", 0) == 0);
    CHECK(create_named("r3", "\342\204\252elvin \303\204", 0) == 0); /* U+212A, not a K */
    CHECK(create_named("r4", "kelvin [a]", 0) == 0);
    CHECK(is(rooms(SLICE("STRA"), "", 9), "r1:0"));
    CHECK(is(rooms(SLICE("(a|b)"), "", 9), "r1:0"));
    CHECK(is(rooms(SLICE("(A|B)"), "", 9), "r1:0"));
    CHECK(is(rooms(SLICE("\303\237"), "", 9), "r1:0"));
    CHECK(is(rooms(SLICE("a|b"), "", 9), "r1:0"));
    CHECK(is(rooms(SLICE(".*"), "", 9), "r2:0"));
    CHECK(is(rooms(SLICE("\\D"), "", 9), "r2:0"));
    CHECK(is(rooms(SLICE("$home"), "", 9), "r2:0"));
    CHECK(is(rooms(SLICE("^"), "", 9), "r2:0"));
    CHECK(is(rooms(SLICE("kelvin"), "", 9), "r4:0"));
    CHECK(is(rooms(SLICE("[a]"), "", 9), "r4:0"));
    CHECK(is(rooms(SLICE("\303\244"), "", 9), ""));             /* case of A-Z only */
    CHECK(is(rooms(SLICE("R"), "", 9), "r1:0 r2:0 r3:0 r4:0")); /* ids are searched too */
    CHECK(is(rooms(SLICE("\303"), "", 9), ""));                 /* half a letter */
    CHECK(is(rooms(SLICE("\0"), "", 9), ""));
    memset(longer, 'x', sizeof(longer));
    CHECK(is(rooms((struct slice){longer, sizeof(longer)}, "", 9), ""));
    memset(longer, '(', sizeof(longer));
    CHECK(is(rooms((struct slice){longer, 1024}, "", 9), ""));
    end_test();
}

/* --- members --- */

static void owner_is_a_member_until_a_document_says_otherwise(void)
{
    begin_test();
    make_room("r");
    make_room("r2");
    CHECK(is(members("r", false), "owner=Olga:3@0"));
    put_member("r", "zoe", ROLE_MEMBER, 2);
    put_member("r", "ann", ROLE_ADMIN, 1);
    put_member("r2", "bob", ROLE_MEMBER, 1);
    put_member("r", "lea", ROLE_NONE, 3);
    CHECK(is(members("r", false), "ann=name of ann:2@1 owner=Olga:3@0 zoe=name of zoe:1@2"));
    CHECK(is(members("r", true), "ann=name of ann:2@1 lea=name of lea:0@3 owner=Olga:3@0 "
                                 "zoe=name of zoe:1@2"));
    put_member("r", "owner", ROLE_NONE, 4);
    CHECK(is(members("r", false), "ann=name of ann:2@1 zoe=name of zoe:1@2"));
    put_member("r2", "owner", ROLE_MEMBER, 5);
    CHECK(is(members("r2", false), "bob=name of bob:1@1 owner=name of owner:1@5"));
    end_test();
}

static void members_end_where_the_caller_says(void)
{
    struct shown shown = {.stop_after = 1};

    begin_test();
    make_room("r");
    put_member("r", "zoe", ROLE_MEMBER, 2);
    put_member("r", "ann", ROLE_ADMIN, 1);
    CHECK(store_mongo_members_read(store, SLICE("r"), false, show_member, &shown) == 0);
    CHECK(is(shown.text, "ann=name of ann:2@1"));
    shown = (struct shown){.stop_after = 2};
    CHECK(store_mongo_members_read(store, SLICE("r"), false, show_member, &shown) == 0);
    CHECK(is(shown.text, "ann=name of ann:2@1 owner=Olga:3@0"));
    shown = (struct shown){.error = -ENOBUFS};
    CHECK(store_mongo_members_read(store, SLICE("r"), false, show_member, &shown) == -ENOBUFS);
    CHECK(shown.count == 1);
    CHECK(store_mongo_members_read(store, SLICE("x"), false, show_member, &shown) == -ENOENT);
    end_test();
}

/* --- keys --- */

static int show_key(void *context, const struct store_key *key)
{
    struct record expected = {0};
    char text[32];

    rig_key(&expected, key->seq);
    CHECK(memcmp(key->key_digest, expected.key_digest, sizeof(expected.key_digest)) == 0);
    CHECK(key->content_digest == expected.content_digest);
    CHECK(key->at_ms == 1000 + key->seq);
    (void)snprintf(text, sizeof(text), "%lu", (unsigned long)key->seq);
    return show(context, text);
}

static const char *keys(const char *room_id, uint32_t limit)
{
    static struct shown shown;
    shown = (struct shown){0};
    CHECK(store_mongo_keys_read(store, rig_slice(room_id), limit, show_key, &shown) == 0);
    return shown.text;
}

static void newest_keys_are_found_oldest_first(void)
{
    struct shown shown = {.stop_after = 2};

    begin_test();
    make_room("r");
    CHECK(is(keys("r", 100), ""));
    put("events", make_event("a", 1, 1)); /* a neighbour's */
    for (uint64_t seq = 1; seq <= 20; seq++) {
        put("events", make_event("r", seq, seq % 3 == 1 && seq < 17 ? seq : 0));
    }
    CHECK(is(keys("r", 100), "1 4 7 10 13 16"));
    CHECK(is(keys("r", 2), "13 16"));
    CHECK(is(keys("r", 0), ""));
    CHECK(store_mongo_keys_read(store, SLICE("r"), 9, show_key, &shown) == 0);
    CHECK(is(shown.text, "1 4"));
    CHECK(store_mongo_keys_read(store, SLICE("x"), 9, show_key, &shown) == -ENOENT);
    CHECK(store_mongo_keys_read(store, SLICE("x"), 0, show_key, &shown) == -ENOENT);
    end_test();
}

static void keys_end_at_the_configured_number(void)
{
    bson_t *documents[MONGO_RIG_KEYS_MAX + 50];
    struct shown shown = {0};

    begin_test();
    for (uint64_t seq = 1; seq <= MONGO_RIG_KEYS_MAX + 50; seq++) {
        documents[seq - 1] = make_event("r", seq, seq);
    }
    put_all("events", documents, MONGO_RIG_KEYS_MAX + 50);
    CHECK(store_mongo_keys_read(store, SLICE("r"), UINT32_MAX, show_key, &shown) == 0);
    CHECK(shown.count == MONGO_RIG_KEYS_MAX);
    CHECK(strncmp(shown.text, "51 52 ", 6) == 0);
    end_test();
}

/* --- history --- */

static void history_is_the_range_asked_for_and_of_that_room_only(void)
{
    begin_test();
    make_room("a");
    make_room("b");
    make_room("bb");
    put_events("a", 1, 9);
    put_events("b", 1, 9);
    put_events("bb", 1, 9);
    CHECK(is(history("b", 3, 6, 100, false), "3 4 5 6"));
    CHECK(is(history("b", 3, 6, 100, true), "6 5 4 3"));
    CHECK(is(history("b", 3, 6, 2, false), "3 4"));
    CHECK(is(history("b", 3, 6, 2, true), "6 5"));
    CHECK(is(history("b", 0, UINT64_MAX, 100, false), "1 2 3 4 5 6 7 8 9"));
    CHECK(is(history("b", 0, UINT64_MAX, 100, true), "9 8 7 6 5 4 3 2 1"));
    CHECK(is(history("b", 5, 5, 1, true), "5"));
    CHECK(is(history("b", 10, 20, 100, false), ""));
    CHECK(is(history("b", 6, 5, 100, false), ""));
    CHECK(is(history("b", 1, 5, 0, false), ""));
    const struct store_range nowhere = {.room_id = SLICE("x"), .to_seq = 9, .limit = 9};
    CHECK(store_mongo_history_read(store, &nowhere, show_entry, NULL) == -ENOENT);
    end_test();
}

static void history_ends_where_the_caller_says(void)
{
    const struct store_range all = {.room_id = SLICE("r"), .to_seq = 9, .limit = 9};
    struct shown shown = {.room_id = "r", .stop_after = 2};

    begin_test();
    put_events("r", 1, 2);
    put_event("r", 5);
    put_quarantined("r", 3, "x");
    put_quarantined("r", 4, "x");
    CHECK(store_mongo_history_read(store, &all, show_entry, &shown) == 0);
    CHECK(is(shown.text, "1 2"));
    shown = (struct shown){.room_id = "r", .stop_after = 3}; /* in the middle of a hole */
    CHECK(store_mongo_history_read(store, &all, show_entry, &shown) == 0);
    CHECK(is(shown.text, "1 2 3"));
    shown = (struct shown){.room_id = "r", .error = -ENOBUFS};
    CHECK(store_mongo_history_read(store, &all, show_entry, &shown) == -ENOBUFS);
    CHECK(shown.count == 1);
    end_test();
}

static void seqs_are_ordered_up_to_63_bits(void)
{
    begin_test();
    for (int bit = 0; bit < 63; bit++) {
        put_event("r", UINT64_C(1) << bit);
    }
    put_event("r", INT64_MAX);
    CHECK(is(history("r", 0, 300, 100, false), "1 2 4 8 16 32 64 128 256"));
    CHECK(is(history("r", 0, UINT64_MAX, 2, true), "9223372036854775807 4611686018427387904"));
    CHECK(is(history("r", UINT64_C(1) << 62, INT64_MAX, 9, false),
             "4611686018427387904 9223372036854775807"));
    end_test();
}

static void hole_is_filled_from_quarantine_in_order(void)
{
    begin_test();
    put_events("r", 1, 3);
    put_quarantined("r", 4, "x");
    put_quarantined("r", 4, "y"); /* one of two is enough */
    put_quarantined("r", 5, "x");
    put_events("r", 6, 7);
    put_quarantined("r", 9, "x"); /* 8 is nowhere */
    put_events("r", 10, 11);
    put_quarantined("q", 8, "x");
    put_quarantined("r", 6, "x"); /* lost to the one in events */
    CHECK(is(history("r", 1, 11, 50, false), "1 2 3 4 5 6 7 9 10 11"));
    CHECK(is(history("r", 1, 11, 50, true), "11 10 9 7 6 5 4 3 2 1"));
    CHECK(is(history("r", 1, 11, 4, false), "1 2 3 4"));
    CHECK(is(history("r", 1, 11, 3, true), "11 10 9"));
    CHECK(is(history("r", 2, UINT64_MAX, 50, false), "2 3 4 5 6 7 9 10 11"));
    CHECK(is(history("r", 0, UINT64_MAX, 50, true), "11 10 9 7 6 5 4 3 2 1"));
    end_test();
}

static void page_that_begins_or_ends_in_a_hole_has_it_filled(void)
{
    begin_test();
    put_quarantined("r", 1, "x");
    put_events("r", 2, 3);
    put_quarantined("r", 4, "x");
    put_quarantined("r", 5, "x");
    put_events("r", 6, 7);
    put_quarantined("r", 8, "x");
    CHECK(is(history("r", 1, 4, 50, false), "1 2 3 4"));
    CHECK(is(history("r", 5, 8, 50, false), "5 6 7 8"));
    CHECK(is(history("r", 4, 5, 50, false), "4 5"));
    CHECK(is(history("r", 4, 5, 50, true), "5 4"));
    CHECK(is(history("r", 4, 5, 1, true), "5"));
    CHECK(is(history("r", 5, 8, 50, true), "8 7 6 5"));
    CHECK(is(history("r", 1, 4, 50, true), "4 3 2 1"));
    CHECK(is(history("r", 1, 100, 50, true), "8 7 6 5 4 3 2 1"));
    end_test();
}

struct counted {
    uint64_t expected;
    uint64_t bytes;
};

static int count_entry(void *context, uint64_t seq, struct slice body)
{
    struct counted *counted = context;

    CHECK(seq == counted->expected);
    counted->expected++;
    counted->bytes += body.size;
    return 0;
}

static void history_longer_than_one_reply_comes_whole(void)
{
    const struct store_range all = {.room_id = SLICE("r"), .to_seq = 2500, .limit = 2400};
    struct counted counted = {.expected = 1};

    begin_test();
    put_events("r", 1, 2500);
    CHECK(store_mongo_history_read(store, &all, count_entry, &counted) == 0);
    CHECK(counted.expected == 2401);
    end_test();
}

/* --- users --- */

static int create_user(const char *user_id, const char *username, const char *folded,
                       const char *password)
{
    const struct store_user user = {.created_ms = 7,
                                    .user_id = rig_slice(user_id),
                                    .username = rig_slice(username),
                                    .folded = rig_slice(folded),
                                    .display_name = rig_slice(password[0] != '\0' ? "Dis" : ""),
                                    .password = rig_slice(password)};
    return store_mongo_user_create(store, &user);
}

static void user_is_unique_by_id_and_by_folded_name(void)
{
    struct store_user user;

    begin_test();
    CHECK(create_user("u1", "Ann", "ann", "hash") == 0);
    CHECK(create_user("u1", "Bea", "bea", "hash") == -EEXIST);
    CHECK(create_user("u2", "ANN", "ann", "hash") == -EEXIST);
    CHECK(create_user("u2", "Bea", "bea", "") == 0);
    CHECK(store_mongo_user_by_id(store, SLICE("u1"), &user) == 0);
    CHECK(slice_equal(user.username, SLICE("Ann")) && user.created_ms == 7);
    CHECK(slice_equal(user.display_name, SLICE("Dis")));
    CHECK(slice_equal(user.password, SLICE("hash")));
    CHECK(store_mongo_user_by_name(store, SLICE("bea"), &user) == 0);
    CHECK(slice_equal(user.user_id, SLICE("u2")) && user.password.size == 0);
    CHECK(store_mongo_user_by_name(store, SLICE("Bea"), &user) == -ENOENT); /* folded only */
    CHECK(store_mongo_user_by_id(store, SLICE("u3"), &user) == -ENOENT);
    end_test();
}

/* --- what the writing half wrote --- */

static struct slice encoded(const struct record *record, uint8_t bytes[512])
{
    CHECK(record_size(record) <= 512);
    record_encode(record, bytes);
    return (struct slice){(const char *)bytes, record_size(record)};
}

static void what_is_inserted_is_read_back(void)
{
    static const uint8_t kinds[] = {RECORD_MESSAGE, RECORD_JOINED, RECORD_JOINED, RECORD_LEFT,
                                    RECORD_MESSAGE};
    static const char *const users[] = {"u1", "ann", "zoe", "ann", "u1"};
    struct slice records[5];
    uint8_t results[5];
    uint8_t bytes[5][512];
    char bodies[5][64];
    struct store_room room = {0};

    begin_test();
    make_room("r");
    for (uint64_t i = 0; i < 5; i++) {
        struct record record = rig_message(bodies[i], "r", EPOCH, i + 1);
        record.kind = kinds[i];
        record.role = kinds[i] == RECORD_JOINED ? ROLE_MEMBER : ROLE_NONE;
        record.user_id = rig_slice(users[i]);
        if (i == 4) {
            rig_key(&record, 5);
        }
        records[i] = encoded(&record, bytes[i]);
    }
    CHECK(store_mongo_insert(store, records, 5, results) == 0);
    CHECK(is(history("r", 1, 9, 9, false), "1 2 3 4 5"));
    CHECK(is(keys("r", 9), "5"));
    CHECK(is(members("r", false), "owner=Olga:3@0 zoe=Ann:1@3"));
    CHECK(is(members("r", true), "ann=Ann:0@4 owner=Olga:3@0 zoe=Ann:1@3"));
    CHECK(store_mongo_room_read(store, SLICE("r"), &room) == 0);
    CHECK(room.member_count == 2 && room.last_seq == 5);
    end_test();
}

/* --- no server --- */

static void server_that_is_away_means_try_again_later(void)
{
    const struct store_range all = {.room_id = SLICE("r"), .to_seq = 9, .limit = 9};
    const struct store_room room = {.room_id = SLICE("r"), .name = SLICE("n")};
    const struct store_user user = {.user_id = SLICE("u"), .folded = SLICE("u")};
    struct mem_plan plan;
    struct mongo *mongo;
    struct store_room read;
    struct store_user known;
    char why[512];

    mem_init(&plan, "test", MEM_MAP);
    const struct mongo_options options = {.uri = "mongodb://ann:s3cret@127.0.0.1:1/damso",
                                          .connect_ms = 100,
                                          .socket_ms = 100,
                                          .clients = 1,
                                          .plan = &plan};
    CHECK(mongo_open(&options, &mongo, why, sizeof(why)) == 0);
    CHECK(store_mongo_open(mongo, 10, &plan, &store) == 0);
    CHECK(mem_seal(&plan) == 0);
    CHECK(store_mongo_room_read(store, SLICE("r"), &read) == -EAGAIN);
    CHECK(strstr(store_mongo_why(store), "127.0.0.1:1") != NULL);
    CHECK(strstr(store_mongo_why(store), "s3cret") == NULL);
    CHECK(store_mongo_members_read(store, SLICE("r"), true, show_member, NULL) == -EAGAIN);
    CHECK(store_mongo_keys_read(store, SLICE("r"), 9, show_key, NULL) == -EAGAIN);
    CHECK(store_mongo_rooms_read(store, SLICE("q"), SLICE(""), 9, show_room, NULL) == -EAGAIN);
    CHECK(store_mongo_history_read(store, &all, show_entry, NULL) == -EAGAIN);
    CHECK(store_mongo_room_create(store, &room, SLICE("o"), SLICE("O")) == -EAGAIN);
    CHECK(strstr(store_mongo_why(store), "make a room") != NULL);
    CHECK(store_mongo_user_create(store, &user) == -EAGAIN);
    CHECK(store_mongo_user_by_id(store, SLICE("u"), &known) == -EAGAIN);
    store_mongo_close(store);
    mongo_close(mongo);
    mem_end(&plan);
}

int main(void)
{
    server_that_is_away_means_try_again_later();
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(1);
    }
    room_is_made_once_and_read_as_it_was_made();
    numbers_keep_all_64_bits();
    last_seq_is_the_rooms_own();
    quarantined_seq_is_not_given_out_again();
    public_rooms_are_listed_by_id_after_the_cursor();
    search_takes_every_letter_for_itself();
    owner_is_a_member_until_a_document_says_otherwise();
    members_end_where_the_caller_says();
    newest_keys_are_found_oldest_first();
    keys_end_at_the_configured_number();
    history_is_the_range_asked_for_and_of_that_room_only();
    history_ends_where_the_caller_says();
    seqs_are_ordered_up_to_63_bits();
    hole_is_filled_from_quarantine_in_order();
    page_that_begins_or_ends_in_a_hole_has_it_filled();
    history_longer_than_one_reply_comes_whole();
    user_is_unique_by_id_and_by_folded_name();
    what_is_inserted_is_read_back();
    puts("19 passed, 0 failed");
    return 0;
}
