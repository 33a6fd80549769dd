/*
 * test_store_mongo_write.c - what goes into MongoDB is there once, under its own name, however
 * often it is sent; and who may write is settled.
 *
 * Method: against a real server, in a database of the test's own. A crash between two steps of an
 *         insert is made by doing the first by hand. What is stored is looked at with commands, not
 *         with the store's own reading.
 */
#include "persist/store_mongo_own.h"
#include "tests/persist/mongo_rig.h"
#include "tests/persist/store_rig.h"

#include <errno.h>
#include <pthread.h>

enum { EPOCH = 77, ROOMS = 250 };

static struct mongo_rig rig;
static struct store_mongo *store;
static struct mongo_client *client; /* beside the store's own */
static struct mongo_error error;
static uint8_t results[MONGO_BULK_MAX];

static void begin_test(void)
{
    mongo_rig_store(&rig, 2);
    store = rig.store;
    client = mongo_take(rig.mongo);
}

static void end_test(void)
{
    mongo_give(rig.mongo, client);
    mongo_rig_close(&rig);
}

/* --- records --- */

static char bytes[MONGO_BULK_MAX][512];
static struct slice records[MONGO_BULK_MAX];
static uint32_t records_count;

static void add(const struct record *record)
{
    char *at = bytes[records_count];
    CHECK(record_size(record) <= sizeof(bytes[0]));
    record_encode(record, at);
    records[records_count++] = (struct slice){at, record_size(record)};
}

static void add_message(const char *room, uint64_t seq)
{
    char body[64];
    const struct record record = rig_message(body, room, EPOCH, seq);
    add(&record);
}

static void add_member(const char *room, uint64_t seq, const char *user, uint8_t role)
{
    char body[64];
    struct record record = rig_message(body, room, EPOCH, seq);
    record.kind = role == ROLE_NONE ? RECORD_LEFT : RECORD_JOINED;
    record.role = role == ROLE_NONE ? ROLE_MEMBER : role; /* of no meaning in a leave */
    record.user_id = rig_slice(user);
    record.username = rig_slice(user);
    add(&record);
}

/* Inserts what was added; all of it is stored. */
static int send_records(void)
{
    memset(results, 0xff, sizeof(results));
    const int result = store_mongo_insert(store, records, records_count, results);
    if (result < 0) {
        (void)fprintf(stderr, "%s\n", store_mongo_why(store));
    }
    return result;
}

static void insert_all(void)
{
    CHECK(send_records() == 0);
    for (uint32_t i = 0; i < records_count; i++) {
        CHECK(results[i] == STORE_MONGO_STORED);
    }
    records_count = 0;
}

static void insert_messages(const char *room, uint64_t first, uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++) {
        add_message(room, seq);
    }
    insert_all();
}

/* --- looking --- */

static int64_t count_of(const char *collection)
{
    bson_t all = BSON_INITIALIZER;
    return mongo_count(client, collection, &all, &error);
}

static int copy_row(void *context, const bson_t *document)
{
    bson_t **copy = context;
    bson_destroy(*copy);
    *copy = bson_copy(document);
    return 0;
}

/* The document that matches, to be destroyed; empty if there is none. */
static bson_t *read_document(const char *collection, const bson_t *filter)
{
    bson_t *found = bson_new();
    CHECK(mongo_find(client, collection, filter, NULL, copy_row, &found, &error) == 0);
    return found;
}

static uint64_t read_number(const char *collection, const char *id, const char *field)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    bson_t *found = read_document(collection, filter);
    const uint64_t number = store_mongo_number(found, field);
    bson_destroy(found);
    bson_destroy(filter);
    return number;
}

static bson_t *read_event(const char *room, uint64_t seq)
{
    bson_t filter = BSON_INITIALIZER;
    store_mongo_put_event_id(&filter, "_id", rig_slice(room), seq);
    bson_t *found = read_document(STORE_MONGO_EVENTS, &filter);
    bson_destroy(&filter);
    return found;
}

static void create_room(const char *room_id, uint8_t durability)
{
    const struct store_room room = {.epoch = EPOCH,
                                    .created_ms = 5,
                                    .members_max = 9,
                                    .durability = durability,
                                    .room_id = rig_slice(room_id),
                                    .name = SLICE("The Room")};
    CHECK(store_mongo_room_create(store, &room, SLICE("ann"), SLICE("Ann")) == 0);
}

static void command(bson_t *asked)
{
    CHECK(mongo_command(client, asked, true, NULL, NULL, &error) == 0);
    bson_destroy(asked);
}

/* --- events --- */

static void event_is_stored_with_all_it_is(void)
{
    char body[64];
    struct record record = rig_message(body, "lobby", UINT64_MAX - 4, 300);

    begin_test();
    rig_key(&record, 9);
    add(&record);
    const uint64_t mid = store_mongo_mid(records[0]);
    insert_all();
    bson_t *found = read_event("lobby", 300);
    CHECK(slice_equal(store_mongo_text(found, "room_id"), SLICE("lobby")));
    CHECK(store_mongo_number(found, "seq") == 300);
    CHECK(store_mongo_number(found, "epoch") == UINT64_MAX - 4);
    CHECK(store_mongo_number(found, "mid") == mid);
    CHECK(store_mongo_number(found, "kind") == RECORD_MESSAGE);
    CHECK(store_mongo_number(found, "at") == 1300);
    CHECK(slice_equal(store_mongo_text(found, "user_id"), SLICE("u1")));
    CHECK(slice_equal(store_mongo_text(found, "body"), SLICE("lobby/300")));
    CHECK(store_mongo_bytes(found, "key").size == 16);
    CHECK(store_mongo_number(found, "digest") == 9 * 31);
    bson_destroy(found);
    insert_messages("lobby", 301, 301);
    found = read_event("lobby", 301);
    CHECK(!store_mongo_has(found, "key"));
    CHECK(!store_mongo_has(found, "digest"));
    bson_destroy(found);
    end_test();
}

static void ids_sort_as_their_seqs(void)
{
    uint8_t a[STORE_MONGO_ID_MAX];
    uint8_t b[STORE_MONGO_ID_MAX];
    const uint32_t size = store_mongo_event_id(SLICE("lobby"), 255, a);

    CHECK(size == 5 + 8);
    CHECK(store_mongo_event_id(SLICE("lobby"), 256, b) == size);
    CHECK(memcmp(a, b, size) < 0);
    CHECK(b[5 + 6] == 1 && b[5 + 7] == 0);
}

static void replay_stores_nothing_twice(void)
{
    begin_test();
    for (int lap = 0; lap < 3; lap++) {
        insert_messages("lobby", 1, MONGO_BULK_MAX);
    }
    CHECK(count_of(STORE_MONGO_EVENTS) == MONGO_BULK_MAX);
    CHECK(count_of(STORE_MONGO_QUARANTINE) == 0);
    end_test();
}

static void bulk_that_was_applied_in_part_is_completed(void)
{
    begin_test();
    insert_messages("lobby", 3, 7);
    insert_messages("lobby", 1, 10);
    CHECK(count_of(STORE_MONGO_EVENTS) == 10);
    end_test();
}

static void record_that_is_there_twice_in_a_bulk_is_stored_once(void)
{
    begin_test();
    add_message("lobby", 1);
    add_message("lobby", 1);
    insert_all();
    CHECK(count_of(STORE_MONGO_EVENTS) == 1);
    end_test();
}

static void rooms_in_one_bulk_do_not_mix(void)
{
    begin_test();
    add_message("a", 1);
    add_message("ab", 1);
    add_message("b", 1);
    insert_all();
    CHECK(count_of(STORE_MONGO_EVENTS) == 3);
    end_test();
}

static void another_message_in_its_place_is_a_conflict(void)
{
    char body[64];
    struct record other = rig_message(body, "lobby", EPOCH, 2);

    begin_test();
    insert_messages("lobby", 1, 3);
    other.body = SLICE("something else");
    for (int lap = 0; lap < 2; lap++) {
        add_message("lobby", 1);
        add(&other);
        add_message("lobby", 4);
        CHECK(send_records() == 0);
        CHECK(results[0] == STORE_MONGO_STORED);
        CHECK(results[1] == STORE_MONGO_CONFLICT);
        CHECK(results[2] == STORE_MONGO_STORED);
        records_count = 0;
        CHECK(count_of(STORE_MONGO_QUARANTINE) == 1); /* once, however often it is sent */
    }
    bson_t *found = read_event("lobby", 2);
    CHECK(slice_equal(store_mongo_text(found, "body"), SLICE("lobby/2")));
    bson_destroy(found);
    bson_t all = BSON_INITIALIZER;
    found = read_document(STORE_MONGO_QUARANTINE, &all);
    CHECK(slice_equal(store_mongo_text(found, "reason"), SLICE("conflict")));
    CHECK(slice_equal(store_mongo_text(found, "room_id"), SLICE("lobby")));
    CHECK(store_mongo_number(found, "seq") == 2);
    CHECK(store_mongo_bytes(found, "record").size == record_size(&other));
    bson_destroy(found);
    end_test();
}

static void record_that_is_no_text_is_set_aside(void)
{
    char body[64];
    struct record record = rig_message(body, "lobby", EPOCH, 2);

    begin_test();
    record.body = SLICE("\xff\xfe");
    add_message("lobby", 1);
    add(&record);
    const struct slice kept = records[1];
    CHECK(send_records() == 0);
    CHECK(results[0] == STORE_MONGO_STORED);
    CHECK(results[1] == STORE_MONGO_QUARANTINED);
    records_count = 0;
    CHECK(count_of(STORE_MONGO_EVENTS) == 1);
    bson_t all = BSON_INITIALIZER;
    bson_t *found = read_document(STORE_MONGO_QUARANTINE, &all);
    CHECK(slice_equal(store_mongo_bytes(found, "record"), kept));
    CHECK(slice_equal(store_mongo_text(found, "reason"), SLICE("invalid")));
    bson_destroy(found);
    end_test();
}

static void bytes_that_are_no_record_are_not_kept(void)
{
    begin_test();
    records[records_count++] = SLICE("nonsense");
    records[records_count++] = (struct slice){NULL, 0};
    add_message("lobby", 1);
    CHECK(send_records() == 0);
    CHECK(results[0] == STORE_MONGO_UNKEPT);
    CHECK(results[1] == STORE_MONGO_UNKEPT);
    CHECK(results[2] == STORE_MONGO_STORED);
    records_count = 0;
    CHECK(count_of(STORE_MONGO_QUARANTINE) == 0);
    end_test();
}

/* --- members --- */

static void last_change_of_a_member_counts(void)
{
    begin_test();
    add_member("lobby", 1, "bob", ROLE_MEMBER);
    add_member("lobby", 2, "cid", ROLE_MEMBER);
    add_member("lobby", 3, "bob", ROLE_ADMIN);
    add_member("lobby", 4, "cid", ROLE_NONE);
    insert_all();
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "role") == ROLE_ADMIN);
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "seq") == 3);
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "joined_at") == 1003);
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/cid", "role") == ROLE_NONE);
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/cid", "seq") == 4);
    add_member("lobby", 5, "cid", ROLE_MEMBER);
    insert_all();
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/cid", "role") == ROLE_MEMBER);
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/cid", "joined_at") == 1005);
    CHECK(count_of(STORE_MONGO_MEMBERS) == 2);
    end_test();
}

static void older_change_of_a_member_does_not_come_back(void)
{
    begin_test();
    add_member("lobby", 1, "bob", ROLE_MEMBER);
    add_member("lobby", 2, "bob", ROLE_NONE);
    insert_all();
    add_member("lobby", 1, "bob", ROLE_MEMBER); /* the first of them once more */
    insert_all();
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "role") == ROLE_NONE);
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "seq") == 2);
    end_test();
}

static void later_change_counts_wherever_it_stands_in_a_bulk(void)
{
    begin_test();
    add_member("lobby", 2, "bob", ROLE_NONE);
    add_member("lobby", 1, "bob", ROLE_MEMBER);
    insert_all();
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "role") == ROLE_NONE);
    end_test();
}

static void crash_between_events_and_members_is_made_good(void)
{
    bson_t *drop = BCON_NEW("delete", BCON_UTF8(STORE_MONGO_MEMBERS), "deletes", "[", "{", "q", "{",
                            "}", "limit", BCON_INT32(0), "}", "]");

    begin_test();
    add_member("lobby", 1, "bob", ROLE_MEMBER);
    insert_all();
    command(drop); /* as if the members had not been reached */
    add_member("lobby", 1, "bob", ROLE_MEMBER);
    insert_all();
    CHECK(read_number(STORE_MONGO_MEMBERS, "lobby/bob", "role") == ROLE_MEMBER);
    end_test();
}

static uint64_t members_of(const char *room)
{
    return read_number(STORE_MONGO_ROOMS, room, "member_count");
}

static void room_knows_how_many_members_it_has(void)
{
    begin_test();
    create_room("lobby", 2);
    create_room("lobby-2", 2);
    CHECK(members_of("lobby") == 1); /* its owner */
    add_member("lobby", 1, "bob", ROLE_MEMBER);
    add_member("lobby", 2, "cid", ROLE_MEMBER);
    add_member("lobby-2", 1, "dan", ROLE_MEMBER);
    insert_all();
    CHECK(members_of("lobby") == 3);
    CHECK(members_of("lobby-2") == 2);
    add_member("lobby", 3, "bob", ROLE_NONE);
    insert_all();
    CHECK(members_of("lobby") == 2);
    add_member("lobby", 4, "ann", ROLE_NONE); /* the owner, who had no document so far */
    insert_all();
    CHECK(members_of("lobby") == 1);
    add_member("lobby", 5, "ann", ROLE_ADMIN);
    add_member("lobby", 3, "bob", ROLE_NONE);
    insert_all();
    CHECK(members_of("lobby") == 2);
    CHECK(members_of("lobby-2") == 2);
    end_test();
}

static void members_of_a_room_that_is_not_there_are_kept(void)
{
    begin_test();
    add_member("gone", 1, "bob", ROLE_MEMBER);
    insert_all();
    CHECK(count_of(STORE_MONGO_MEMBERS) == 1);
    CHECK(count_of(STORE_MONGO_ROOMS) == 0);
    end_test();
}

static void many_rooms_are_counted_in_one_bulk(void)
{
    char name[16];

    begin_test();
    for (int i = 0; i < ROOMS; i++) {
        (void)snprintf(name, sizeof(name), "room%d", i);
        create_room(name, 2);
        add_member(name, 1, "bob", ROLE_MEMBER);
        if (i % 2 == 0) {
            add_member(name, 2, "cid", ROLE_MEMBER);
        }
    }
    insert_all();
    for (int i = 0; i < ROOMS; i++) {
        (void)snprintf(name, sizeof(name), "room%d", i);
        CHECK(members_of(name) == (i % 2 == 0 ? 3 : 2));
    }
    end_test();
}

/* --- start --- */

static void owner_that_was_followed_is_fenced(void)
{
    uint64_t first = 0;
    uint64_t second = 0;
    bson_t *drop = BCON_NEW("drop", BCON_UTF8(STORE_MONGO_META));

    begin_test();
    CHECK(store_mongo_claim(store, &first) == 0);
    CHECK(first >= 1);
    CHECK(store_mongo_check_owner(store, first) == 0);
    CHECK(store_mongo_claim(store, &second) == 0);
    CHECK(second > first);
    CHECK(store_mongo_check_owner(store, first) == -ESTALE);
    CHECK(strstr(store_mongo_why(store), "another damsod") != NULL);
    CHECK(store_mongo_check_owner(store, second) == 0);
    command(drop);
    CHECK(store_mongo_check_owner(store, second) == -ESTALE);
    CHECK(strstr(store_mongo_why(store), "emptied") != NULL);
    end_test();
}

static int count_batch(void *context, const bson_t *reply)
{
    bson_iter_t iter;
    bson_iter_t found;
    bson_iter_t row;
    uint32_t *count = context;

    CHECK(bson_iter_init(&iter, reply));
    CHECK(bson_iter_find_descendant(&iter, "cursor.firstBatch", &found));
    CHECK(bson_iter_recurse(&found, &row));
    while (bson_iter_next(&row)) {
        *count += 1;
    }
    return 0;
}

static uint32_t count_reply(bson_t *asked)
{
    uint32_t count = 0;
    CHECK(mongo_command(client, asked, false, count_batch, &count, &error) == 0);
    bson_destroy(asked);
    return count;
}

static void preparing_again_changes_nothing(void)
{
    static const char *const indexed[] = {STORE_MONGO_EVENTS, STORE_MONGO_ROOMS, STORE_MONGO_USERS,
                                          STORE_MONGO_QUARANTINE};

    begin_test();
    insert_messages("lobby", 1, 10);
    CHECK(store_mongo_prepare(store) == 0);
    CHECK(store_mongo_prepare(store) == 0);
    CHECK(count_of(STORE_MONGO_EVENTS) == 10);
    CHECK(read_number(STORE_MONGO_META, "schema", "version") == STORE_MONGO_SCHEMA);
    for (size_t i = 0; i < sizeof(indexed) / sizeof(indexed[0]); i++) {
        CHECK(count_reply(BCON_NEW("listIndexes", BCON_UTF8(indexed[i]))) == 2);
    }
    CHECK(count_reply(BCON_NEW("listCollections", BCON_INT32(1))) == 6);
    const uint32_t validated = count_reply(BCON_NEW("listCollections", BCON_INT32(1), "filter", "{",
                                                    "options.validator.$jsonSchema.required", "{",
                                                    "$exists", BCON_BOOL(true), "}", "}"));
    CHECK(validated == 6 ||
          validated == 0); /* DocumentDB takes validators and does not show them */
    end_test();
}

static void username_is_taken_once(void)
{
    const struct store_user ann = {
        .user_id = SLICE("u1"), .username = SLICE("Ann"), .folded = SLICE("ann")};
    const struct store_user other = {
        .user_id = SLICE("u2"), .username = SLICE("ANN"), .folded = SLICE("ann")};
    begin_test();
    CHECK(store_mongo_user_create(store, &ann) == 0);
    CHECK(store_mongo_user_create(store, &other) == -EEXIST);
    CHECK(count_of(STORE_MONGO_USERS) == 1);
    end_test();
}

static void *prepare_in_parallel(void *context)
{
    struct store_mongo *own = context;
    int result = -EAGAIN;

    for (int attempt = 0; attempt < 20 && result == -EAGAIN; attempt++) {
        result = store_mongo_prepare(own);
    }
    if (result < 0) {
        (void)fprintf(stderr, "%s\n", store_mongo_why(own));
    }
    CHECK(result == 0);
    return NULL;
}

static void stores_prepared_at_the_same_time_agree(void)
{
    enum { THREADS = 4 };
    struct store_mongo *stores[THREADS];
    pthread_t threads[THREADS];

    mongo_rig_open(&rig, THREADS);
    for (int i = 0; i < THREADS; i++) {
        CHECK(store_mongo_open(rig.mongo, MONGO_RIG_KEYS_MAX, &rig.plan, &stores[i]) == 0);
    }
    CHECK(mem_seal(&rig.plan) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, prepare_in_parallel, stores[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (int i = 1; i < THREADS; i++) {
        store_mongo_close(stores[i]);
    }
    rig.store = stores[0];
    CHECK(store_mongo_prepare(rig.store) == 0);
    mongo_rig_close(&rig);
}

static void database_of_another_schema_is_refused(void)
{
    bson_t *newer = BCON_NEW("update", BCON_UTF8(STORE_MONGO_META), "updates", "[", "{", "q", "{",
                             "_id", BCON_UTF8("schema"), "}", "u", "{", "$set", "{", "version",
                             BCON_INT64(7), "}", "}", "}", "]");
    begin_test();
    command(newer);
    CHECK(store_mongo_prepare(store) == -EUCLEAN);
    CHECK(strstr(store_mongo_why(store), "schema 7") != NULL);
    CHECK(strstr(store_mongo_why(store), "schema 1") != NULL);
    CHECK(strstr(store_mongo_why(store), "[persist] mongodb_uri") != NULL);
    end_test();
}

static void database_of_another_program_is_refused(void)
{
    bson_t *document = BCON_NEW("name", BCON_UTF8("not ours"));
    const bson_t *list[] = {document};

    mongo_rig_open(&rig, 2);
    CHECK(store_mongo_open(rig.mongo, MONGO_RIG_KEYS_MAX, &rig.plan, &rig.store) == 0);
    CHECK(mem_seal(&rig.plan) == 0);
    client = mongo_take(rig.mongo);
    CHECK(mongo_insert(client, "users", list, 1, NULL, NULL, &error) == 0);
    CHECK(store_mongo_prepare(rig.store) == -EUCLEAN);
    CHECK(strstr(store_mongo_why(rig.store), "another program") != NULL);
    CHECK(count_of(STORE_MONGO_META) == 0); /* left as it was */
    end_test();
    bson_destroy(document);
}

/* --- runs --- */

/* Which of the three rooms have another epoch than before, a bit each. */
static int renewed(uint64_t epochs[3])
{
    static const char *const rooms[] = {"memory", "journal", "fsync"};
    int changed = 0;

    for (int i = 0; i < 3; i++) {
        const uint64_t epoch = read_number(STORE_MONGO_ROOMS, rooms[i], "epoch");
        changed |= (epoch != epochs[i]) << i;
        CHECK(epoch == epochs[i] || epoch % 2 == 1);
        epochs[i] = epoch;
    }
    return changed;
}

/* Whether another damsod may still be at work. */
static int begin_run(const char *boot_id, const char *server_id)
{
    bool other = false;

    CHECK(store_mongo_run_begin(store, (struct slice){boot_id, (uint32_t)strlen(boot_id)},
                                (struct slice){server_id, (uint32_t)strlen(server_id)},
                                &other) == 0);
    return other;
}

static void rooms_that_may_have_lost_their_tail_get_a_new_epoch(void)
{
    uint64_t epochs[3] = {EPOCH, EPOCH, EPOCH};

    begin_test();
    create_room("memory", 0);
    create_room("journal", 1);
    create_room("fsync", 2);
    CHECK(begin_run("boot 1", "id") == 0); /* never ran before: not clean */
    CHECK(renewed(epochs) == 3);
    CHECK(store_mongo_run_end(store) == 0);
    CHECK(begin_run("boot 1", "id") == 0); /* after a clean stop */
    CHECK(renewed(epochs) == 0);
    CHECK(begin_run("boot 1", "id") == 0); /* the process died */
    CHECK(renewed(epochs) == 1);
    CHECK(begin_run("boot 2", "id") == 0); /* the machine did */
    CHECK(renewed(epochs) == 3);
    CHECK(store_mongo_renew(store, SLICE("fsync")) == 0);
    CHECK(renewed(epochs) == 4);
    CHECK(begin_run("boot 2", "other") == 1); /* without the journal of the one that died */
    CHECK(renewed(epochs) == 7);
    CHECK(store_mongo_run_end(store) == 0);
    CHECK(begin_run("boot 3", "third") == 0); /* moved, after a clean stop */
    CHECK(renewed(epochs) == 0);
    end_test();
}

/* --- failures --- */

static void unreachable_server_stores_nothing_and_says_where(void)
{
    struct mem_plan plan;
    struct mongo *mongo = NULL;
    struct store_mongo *lost = NULL;
    uint64_t owner;
    char why[256];

    mem_init(&plan, "test", MEM_MAP);
    const struct mongo_options options = {.uri = "mongodb://ann:hunter22@127.0.0.1:1/lost",
                                          .connect_ms = 200,
                                          .socket_ms = 1000,
                                          .clients = 1,
                                          .plan = &plan};
    CHECK(mongo_open(&options, &mongo, why, sizeof(why)) == 0);
    CHECK(store_mongo_open(mongo, 10, &plan, &lost) == 0);
    CHECK(mem_seal(&plan) == 0);
    records_count = 0;
    add_message("lobby", 1);
    memset(results, 0xff, sizeof(results));
    CHECK(store_mongo_insert(lost, records, records_count, results) == -EAGAIN);
    CHECK(results[0] == 0xff);
    CHECK(strstr(store_mongo_why(lost), "127.0.0.1:1") != NULL);
    CHECK(strstr(store_mongo_why(lost), "lost") != NULL);
    CHECK(strstr(store_mongo_why(lost), "hunter22") == NULL);
    CHECK(store_mongo_prepare(lost) == -EAGAIN);
    CHECK(store_mongo_claim(lost, &owner) == -EAGAIN);
    records_count = 0;
    store_mongo_close(lost);
    mongo_close(mongo);
    mem_end(&plan);
}

static void test_events(void)
{
    event_is_stored_with_all_it_is();
    ids_sort_as_their_seqs();
    replay_stores_nothing_twice();
    bulk_that_was_applied_in_part_is_completed();
    record_that_is_there_twice_in_a_bulk_is_stored_once();
    rooms_in_one_bulk_do_not_mix();
    another_message_in_its_place_is_a_conflict();
    record_that_is_no_text_is_set_aside();
    bytes_that_are_no_record_are_not_kept();
}

static void test_members(void)
{
    last_change_of_a_member_counts();
    older_change_of_a_member_does_not_come_back();
    later_change_counts_wherever_it_stands_in_a_bulk();
    crash_between_events_and_members_is_made_good();
    room_knows_how_many_members_it_has();
    members_of_a_room_that_is_not_there_are_kept();
    many_rooms_are_counted_in_one_bulk();
}

int main(void)
{
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    test_events();
    test_members();
    owner_that_was_followed_is_fenced();
    preparing_again_changes_nothing();
    username_is_taken_once();
    stores_prepared_at_the_same_time_agree();
    database_of_another_schema_is_refused();
    database_of_another_program_is_refused();
    rooms_that_may_have_lost_their_tail_get_a_new_epoch();
    unreachable_server_stores_nothing_and_says_where();
    puts("24 passed, 0 failed");
    return 0;
}
