/*
 * test_store.c - the contract of persist/store.h, which every store behind it must keep.
 *
 * Method: against the interface only, so that the next store runs the same suite; what a store
 *         keeps over a restart is read from one opened anew. Damage and foreign files are made
 *         with plain writes, for they are not in the interface.
 */
#include "core/config.h"
#include "persist/store.h"
#include "tests/persist/store_rig.h"

#include <errno.h>

enum { EPOCH = 77, KEYS_MAX = 100, TABLE_ROOMS = 70000 };

static char directory[RIG_PATH_BYTES];
static struct mem_plan plan;
static struct store *store;
static const struct store_ops *ops;
static char why[512];

/* --- the store under test --- */

static int try_open(void)
{
    mem_init(&plan, "test", MEM_MAP);
    const struct store_options options = {
        .directory = directory, .cache_bytes = 1 << 20, .keys_max = KEYS_MAX, .plan = &plan};
    const int error = store_sqlite_open(&options, &store, why, sizeof(why));
    if (error < 0) {
        mem_end(&plan);
        return error;
    }
    CHECK(mem_seal(&plan) == 0);
    ops = store->ops;
    return 0;
}

static void open_store(void)
{
    CHECK(try_open() == 0);
}

/* What a crash leaves behind, but for what was in the open transaction. */
static void close_store(void)
{
    ops->close(store);
    mem_end(&plan);
}

static void begin_test(void)
{
    rig_make(directory);
    open_store();
    CHECK(ops->run_begin(store, SLICE("boot 1")) == 0);
}

static void end_test(void)
{
    close_store();
    rig_remove(directory);
}

static void reopen(void)
{
    close_store();
    open_store();
}

/* --- doing and asking --- */

static int create(const char *room_id, uint8_t visibility, uint8_t durability)
{
    const struct store_room room = {.epoch = EPOCH,
                                    .created_ms = 5,
                                    .members_max = 9,
                                    .visibility = visibility,
                                    .durability = durability,
                                    .room_id = rig_slice(room_id),
                                    .name = SLICE("The Room")};
    return ops->room_create(store, &room, SLICE("owner"), SLICE("Olga"));
}

static void make_room(const char *room_id)
{
    CHECK(ops->begin(store) == 0);
    CHECK(create(room_id, 0, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(ops->commit(store) == 0);
}

static int append(const char *room_id, uint64_t epoch, uint64_t seq)
{
    char body[64];
    const struct record record = rig_message(body, room_id, epoch, seq);
    return ops->append(store, &record, false);
}

static int append_keyed(const char *room_id, uint64_t seq)
{
    char body[64];
    struct record record = rig_message(body, room_id, EPOCH, seq);
    rig_key(&record, seq);
    return ops->append(store, &record, false);
}

static int append_member(const char *room_id, uint64_t seq, uint8_t kind, const char *user_id)
{
    char body[64];
    struct record record = rig_message(body, room_id, EPOCH, seq);
    record.kind = kind;
    record.role = kind == RECORD_JOINED ? ROLE_MEMBER : ROLE_NONE;
    record.user_id = rig_slice(user_id);
    return ops->append(store, &record, false);
}

static struct store_room read_room(const char *room_id)
{
    struct store_room room = {0};
    CHECK(ops->room_read(store, rig_slice(room_id), &room) == 0);
    return room;
}

/* What a reading gave, as text: "1 2 3". */
struct shown {
    char text[2048];
    uint32_t size;
    uint32_t count;
    uint32_t stop_after; /* 0: never */
    const char *room_id;
};

static int show(struct shown *shown, const char *separator, struct slice text)
{
    const size_t room = sizeof(shown->text) - shown->size;
    const int size = snprintf(shown->text + shown->size, room, "%s%.*s",
                              shown->count > 0 ? separator : "", (int)text.size, text.data);
    CHECK(size >= 0 && (size_t)size < room);
    shown->size += (uint32_t)size;
    shown->count++;
    return shown->count == shown->stop_after;
}

static int show_entry(void *context, uint64_t seq, struct slice body)
{
    struct shown *shown = context;
    char text[64];

    const struct record expected = rig_message(text, shown->room_id, EPOCH, seq);
    CHECK(slice_equal(body, expected.body));
    (void)snprintf(text, sizeof(text), "%lu", (unsigned long)seq);
    return show(shown, " ", rig_slice(text));
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
    CHECK(ops->history_read(store, &range, show_entry, &shown) == 0);
    return shown.text;
}

static bool is(const char *shown, const char *expected)
{
    if (strcmp(shown, expected) != 0) {
        (void)fprintf(stderr, "shown \"%s\", expected \"%s\"\n", shown, expected);
    }
    return strcmp(shown, expected) == 0;
}

/* --- records --- */

static void record_is_stored_once_and_in_order(void)
{
    begin_test();
    make_room("r");
    CHECK(ops->begin(store) == 0);
    CHECK(append("r", EPOCH, 1) == STORE_STORED);
    CHECK(append("r", EPOCH, 1) == STORE_PASSED);     /* there already */
    CHECK(append("r", EPOCH, 3) == STORE_HOLE);       /* 2 is missing */
    CHECK(append("r", EPOCH + 1, 2) == STORE_PASSED); /* of another log */
    CHECK(append("gone", EPOCH, 1) == STORE_PASSED);  /* deleted */
    CHECK(append("r", EPOCH, 2) == STORE_STORED);
    CHECK(append("r", EPOCH, 3) == STORE_STORED);
    CHECK(ops->commit(store) == 0);
    CHECK(is(history("r", 1, 100, 100, false), "1 2 3"));
    CHECK(read_room("r").last_seq == 3);

    reopen();
    CHECK(is(history("r", 1, 100, 100, false), "1 2 3"));
    CHECK(ops->begin(store) == 0);
    CHECK(append("r", EPOCH, 3) == STORE_PASSED);
    CHECK(append("r", EPOCH, 5) == STORE_HOLE);
    CHECK(append("r", EPOCH, 4) == STORE_STORED);
    CHECK(ops->commit(store) == 0);
    end_test();
}

static void rollback_forgets_and_the_same_records_go_in_again(void)
{
    begin_test();
    make_room("r");
    CHECK(ops->begin(store) == 0);
    CHECK(append("r", EPOCH, 1) == STORE_STORED);
    CHECK(append_member("r", 2, RECORD_JOINED, "u9") == STORE_STORED);
    CHECK(read_room("r").last_seq == 2); /* seen before the commit */
    CHECK(read_room("r").member_count == 2);
    ops->rollback(store);
    CHECK(read_room("r").last_seq == 0);
    CHECK(read_room("r").member_count == 1);
    CHECK(is(history("r", 1, 100, 100, false), ""));

    CHECK(ops->begin(store) == 0);
    CHECK(append("r", EPOCH, 2) == STORE_HOLE); /* what is cached was forgotten as well */
    CHECK(append("r", EPOCH, 1) == STORE_STORED);
    CHECK(ops->commit(store) == 0);
    CHECK(is(history("r", 1, 100, 100, false), "1"));
    end_test();
}

static void uncommitted_records_are_not_there_after_a_restart(void)
{
    begin_test();
    make_room("r");
    CHECK(ops->begin(store) == 0);
    CHECK(append("r", EPOCH, 1) == STORE_STORED);
    CHECK(ops->commit(store) == 0);
    CHECK(ops->begin(store) == 0);
    CHECK(append("r", EPOCH, 2) == STORE_STORED);
    reopen();
    CHECK(is(history("r", 1, 100, 100, false), "1"));
    end_test();
}

static void history_is_the_range_asked_for_and_of_that_room_only(void)
{
    begin_test();
    make_room("a");
    make_room("b");
    make_room("c");
    CHECK(ops->begin(store) == 0);
    for (uint64_t seq = 1; seq <= 9; seq++) {
        CHECK(append("a", EPOCH, seq) == STORE_STORED);
        CHECK(append("b", EPOCH, seq) == STORE_STORED);
        CHECK(append("c", EPOCH, seq) == STORE_STORED);
    }
    CHECK(ops->commit(store) == 0);
    CHECK(is(history("b", 3, 6, 100, false), "3 4 5 6"));
    CHECK(is(history("b", 3, 6, 100, true), "6 5 4 3"));
    CHECK(is(history("b", 3, 6, 2, false), "3 4"));
    CHECK(is(history("b", 3, 6, 2, true), "6 5"));
    CHECK(is(history("b", 0, UINT64_MAX, 100, false), "1 2 3 4 5 6 7 8 9"));
    CHECK(is(history("a", 5, UINT64_MAX, 100, true), "9 8 7 6 5"));
    CHECK(is(history("c", 10, 20, 100, false), ""));
    CHECK(is(history("c", 6, 5, 100, false), ""));

    const struct store_range nowhere = {.room_id = SLICE("x"), .to_seq = 9, .limit = 9};
    CHECK(ops->history_read(store, &nowhere, show_entry, NULL) == -ENOENT);
    struct shown shown = {.room_id = "a", .stop_after = 2};
    const struct store_range all = {.room_id = SLICE("a"), .to_seq = 9, .limit = 9};
    CHECK(ops->history_read(store, &all, show_entry, &shown) == 0);
    CHECK(is(shown.text, "1 2"));
    end_test();
}

static void more_rooms_than_the_table_has_slots_keep_their_order(void)
{
    char name[16];

    begin_test();
    CHECK(ops->begin(store) == 0);
    for (uint32_t i = 0; i < TABLE_ROOMS; i++) {
        (void)snprintf(name, sizeof(name), "r%u", i);
        CHECK(create(name, 1, CONFIG_DURABILITY_FSYNC) == 0);
    }
    for (uint64_t seq = 1; seq <= 2; seq++) {
        for (uint32_t i = 0; i < TABLE_ROOMS; i++) {
            (void)snprintf(name, sizeof(name), "r%u", i);
            CHECK(append(name, EPOCH, seq + 1) == STORE_HOLE);
            CHECK(append(name, EPOCH, seq) == STORE_STORED);
        }
    }
    CHECK(ops->commit(store) == 0);
    CHECK(is(history("r123", 1, 9, 9, false), "1 2"));
    end_test();
}

/* --- rooms and members --- */

static void room_is_made_once_with_its_owner(void)
{
    begin_test();
    CHECK(ops->begin(store) == 0);
    CHECK(create("r", 1, CONFIG_DURABILITY_JOURNAL) == 0);
    CHECK(create("r", 0, CONFIG_DURABILITY_FSYNC) == -EEXIST);
    CHECK(ops->commit(store) == 0);
    reopen();
    const struct store_room room = read_room("r");
    CHECK(room.epoch == EPOCH && room.last_seq == 0 && room.created_ms == 5);
    CHECK(room.member_count == 1 && room.members_max == 9);
    CHECK(room.visibility == 1 && room.durability == CONFIG_DURABILITY_JOURNAL);
    CHECK(slice_equal(room.room_id, SLICE("r")) && slice_equal(room.name, SLICE("The Room")));
    struct store_room none;
    CHECK(ops->room_read(store, SLICE("R"), &none) == -ENOENT); /* room ids know case */
    end_test();
}

static int show_member(void *context, const struct store_member *member)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%.*s=%.*s:%u", (int)member->user_id.size,
                   member->user_id.data, (int)member->username.size, member->username.data,
                   member->role);
    return show(context, " ", rig_slice(text));
}

static const char *members(const char *room_id)
{
    static struct shown shown;
    shown = (struct shown){0};
    CHECK(ops->members_read(store, rig_slice(room_id), show_member, &shown) == 0);
    return shown.text;
}

static void members_follow_the_log(void)
{
    begin_test();
    make_room("r");
    make_room("s");
    CHECK(ops->begin(store) == 0);
    CHECK(append_member("r", 1, RECORD_JOINED, "b") == STORE_STORED);
    CHECK(append_member("r", 2, RECORD_JOINED, "a") == STORE_STORED);
    CHECK(append_member("r", 3, RECORD_JOINED, "a") == STORE_STORED); /* again: no second one */
    CHECK(append_member("r", 3, RECORD_LEFT, "a") == STORE_PASSED); /* replayed: changes nothing */
    CHECK(append_member("r", 4, RECORD_LEFT, "b") == STORE_STORED);
    CHECK(append_member("r", 5, RECORD_LEFT, "b") == STORE_STORED); /* again: no second time */
    CHECK(append_member("s", 1, RECORD_JOINED, "z") == STORE_STORED);
    CHECK(ops->commit(store) == 0);
    CHECK(is(members("r"), "a=Ann:1 owner=Olga:3"));
    CHECK(is(members("s"), "owner=Olga:3 z=Ann:1"));
    CHECK(read_room("r").member_count == 2);
    CHECK(read_room("s").member_count == 2);
    end_test();
}

static int show_room(void *context, const struct store_room *room)
{
    return show(context, " ", room->room_id);
}

static const char *rooms(const char *query, const char *cursor, uint32_t limit)
{
    static struct shown shown;
    shown = (struct shown){0};
    CHECK(ops->rooms_read(store, rig_slice(query), rig_slice(cursor), limit, show_room, &shown) ==
          0);
    return shown.text;
}

static void public_rooms_are_listed_by_name_and_cursor(void)
{
    begin_test();
    CHECK(ops->begin(store) == 0);
    CHECK(create("delta", 0, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(create("alpha", 0, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(create("hidden-alpha", 1, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(create("Charlie", 0, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(create("beta", 0, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(ops->commit(store) == 0);
    CHECK(is(rooms("", "", 100), "Charlie alpha beta delta"));
    CHECK(is(rooms("", "", 2), "Charlie alpha"));
    CHECK(is(rooms("", "alpha", 2), "beta delta"));
    CHECK(is(rooms("", "delta", 2), ""));
    CHECK(is(rooms("LPH", "", 100), "alpha"));
    CHECK(is(rooms("charLIE", "", 100), "Charlie"));
    CHECK(is(rooms("the room", "", 100), "Charlie alpha beta delta")); /* their name */
    CHECK(is(rooms("%", "", 100), ""));                                /* no pattern */
    CHECK(is(rooms("zz", "", 100), ""));
    end_test();
}

/* --- keys --- */

static int show_key(void *context, const struct store_key *key)
{
    struct shown *shown = context;
    char text[64];
    char unused[64];

    struct record expected = rig_message(unused, "r", EPOCH, key->seq);
    rig_key(&expected, key->seq);
    CHECK(memcmp(key->key_digest, expected.key_digest, sizeof(expected.key_digest)) == 0);
    CHECK(key->content_digest == expected.content_digest && key->at_ms == expected.at_ms);
    (void)snprintf(text, sizeof(text), "%lu", (unsigned long)key->seq);
    return show(shown, " ", rig_slice(text));
}

static const char *keys(const char *room_id, uint32_t limit)
{
    static struct shown shown;
    shown = (struct shown){0};
    CHECK(ops->keys_read(store, rig_slice(room_id), limit, show_key, &shown) == 0);
    return shown.text;
}

static void newest_keys_are_found_oldest_first(void)
{
    begin_test();
    make_room("a");
    make_room("r");
    CHECK(is(keys("r", 100), ""));
    CHECK(ops->begin(store) == 0);
    CHECK(append_keyed("a", 1) == STORE_STORED); /* a neighbour's keys are not ours */
    for (uint64_t seq = 1; seq <= 20; seq++) {
        const bool keyed = seq % 3 == 1 && seq < 17; /* 1 4 7 10 13 16 */
        CHECK((keyed ? append_keyed("r", seq) : append("r", EPOCH, seq)) == STORE_STORED);
    }
    CHECK(is(keys("r", 100), "1 4 7 10 13 16")); /* before the commit */
    CHECK(ops->commit(store) == 0);
    CHECK(is(keys("r", 100), "1 4 7 10 13 16"));
    CHECK(is(keys("r", 2), "13 16"));
    reopen();
    CHECK(is(keys("r", 4), "7 10 13 16"));
    CHECK(ops->begin(store) == 0);
    CHECK(append_keyed("r", 21) == STORE_STORED);
    CHECK(append_keyed("r", 22) == STORE_STORED);
    CHECK(ops->commit(store) == 0);
    CHECK(is(keys("r", 4), "13 16 21 22"));
    CHECK(is(keys("a", 4), "1"));
    end_test();
}

static int count_key(void *context, const struct store_key *key)
{
    uint64_t *expected = context;
    CHECK(key->seq == (*expected)++);
    return 0;
}

static void keys_end_at_the_configured_number(void)
{
    uint64_t expected = 901;

    begin_test();
    make_room("r");
    CHECK(ops->begin(store) == 0);
    for (uint64_t seq = 1; seq <= 1000; seq++) {
        CHECK(append_keyed("r", seq) == STORE_STORED);
    }
    CHECK(ops->commit(store) == 0);
    CHECK(ops->keys_read(store, SLICE("r"), UINT32_MAX, count_key, &expected) == 0);
    CHECK(expected == 1001);
    end_test();
}

/* --- users --- */

static int create_user(const char *user_id, const char *username, const char *folded)
{
    const struct store_user user = {.created_ms = 7,
                                    .user_id = rig_slice(user_id),
                                    .username = rig_slice(username),
                                    .folded = rig_slice(folded),
                                    .display_name = SLICE("Dis Play"),
                                    .password = SLICE("hash")};
    return ops->user_create(store, &user);
}

static void user_is_unique_by_id_and_by_folded_name(void)
{
    struct store_user user;

    begin_test();
    CHECK(ops->begin(store) == 0);
    CHECK(create_user("u1", "Ann", "ann") == 0);
    CHECK(create_user("u1", "Bea", "bea") == -EEXIST);
    CHECK(create_user("u2", "ANN", "ann") == -EEXIST);
    CHECK(create_user("u2", "Bea", "bea") == 0); /* the transaction goes on after a refusal */
    CHECK(ops->commit(store) == 0);
    reopen();
    CHECK(ops->user_by_id(store, SLICE("u1"), &user) == 0);
    CHECK(slice_equal(user.username, SLICE("Ann")) && user.created_ms == 7);
    CHECK(slice_equal(user.display_name, SLICE("Dis Play")));
    CHECK(slice_equal(user.password, SLICE("hash")));
    CHECK(ops->user_by_name(store, SLICE("bea"), &user) == 0);
    CHECK(slice_equal(user.user_id, SLICE("u2")));
    CHECK(ops->user_by_name(store, SLICE("Bea"), &user) == -ENOENT); /* folded names only */
    CHECK(ops->user_by_id(store, SLICE("u3"), &user) == -ENOENT);
    end_test();
}

/* --- runs --- */

static void make_three_rooms(void)
{
    CHECK(ops->begin(store) == 0);
    CHECK(create("m", 0, CONFIG_DURABILITY_MEMORY) == 0);
    CHECK(create("j", 0, CONFIG_DURABILITY_JOURNAL) == 0);
    CHECK(create("f", 0, CONFIG_DURABILITY_FSYNC) == 0);
    CHECK(append("m", EPOCH, 1) == STORE_STORED);
    CHECK(ops->commit(store) == 0);
}

/* Which of the three have another epoch now, and gives them the old one back for the next time. */
static bool renewed(const char *expected)
{
    char text[4] = "";
    const char *const names[] = {"m", "j", "f"};

    for (int i = 0; i < 3; i++) {
        const uint64_t epoch = read_room(names[i]).epoch;
        CHECK(epoch != 0);
        if (epoch != EPOCH) {
            (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s", names[i]);
        }
    }
    return is(text, expected);
}

static void epochs_change_where_a_tail_may_be_lost(void)
{
    static const struct {
        bool clean;
        const char *boot;
        const char *renewed;
    } cases[] = {
        {true, "boot 1", ""},    /* stopped cleanly */
        {true, "boot 2", ""},    /* and the machine started anew */
        {false, "boot 1", "m"},  /* the process was killed */
        {false, "boot 2", "mj"}, /* power was lost */
    };

    for (int i = 0; i < 4; i++) {
        begin_test();
        make_three_rooms();
        CHECK(!cases[i].clean || ops->run_end(store) == 0);
        reopen();
        CHECK(ops->replay_begin(store) == 0);
        CHECK(ops->begin(store) == 0);
        CHECK(append("m", EPOCH, 2) == STORE_STORED); /* the journal still speaks of the old one */
        CHECK(ops->commit(store) == 0);
        CHECK(ops->run_begin(store, rig_slice(cases[i].boot)) == 0);
        CHECK(renewed(cases[i].renewed));
        CHECK(read_room("m").last_seq == 2); /* seq goes on */
        CHECK(ops->begin(store) == 0);
        CHECK(append("m", read_room("m").epoch, 3) == STORE_STORED);
        CHECK(ops->commit(store) == 0);
        end_test();
    }
}

static void clean_stop_counts_for_one_start_only(void)
{
    begin_test();
    make_three_rooms();
    CHECK(ops->run_end(store) == 0);
    reopen();
    CHECK(ops->run_begin(store, SLICE("boot 1")) == 0);
    CHECK(renewed(""));
    reopen(); /* this time without run_end */
    CHECK(ops->run_begin(store, SLICE("boot 1")) == 0);
    CHECK(renewed("m"));
    end_test();
}

static void hole_that_is_taken_gives_the_room_a_new_epoch(void)
{
    char body[64];

    begin_test();
    make_three_rooms();
    CHECK(ops->run_end(store) == 0);
    reopen();
    CHECK(ops->begin(store) == 0);
    const struct record record = rig_message(body, "f", EPOCH, 5);
    CHECK(ops->append(store, &record, true) == STORE_STORED);
    CHECK(append("f", EPOCH, 6) == STORE_STORED); /* the old epoch holds until the replay is over */
    CHECK(ops->commit(store) == 0);
    CHECK(ops->run_begin(store, SLICE("boot 1")) == 0);
    CHECK(renewed("f"));
    CHECK(is(history("f", 1, 9, 9, false), "5 6"));
    end_test();
}

/* --- what may be found in the directory --- */

static void write_file(const char *name, uint64_t offset, const char *bytes, uint64_t size)
{
    char path[RIG_PATH_BYTES + 32];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int file = os_file_open(path, OS_OPEN_WRITE);
    if (file < 0) {
        file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_CREATE);
    }
    CHECK(file >= 0);
    CHECK(os_file_write(file, bytes, size, offset) == 0);
    os_file_close(file);
}

static void file_that_is_no_database_is_refused(void)
{
    char noise[8192];

    memset(noise, 'n', sizeof(noise));
    rig_make(directory);
    write_file("damso.db", 0, noise, sizeof(noise));
    CHECK(try_open() == -EUCLEAN);
    CHECK(strstr(why, "damso.db") != NULL && strstr(why, "damaged") != NULL);
    CHECK(strstr(why, "backup") != NULL); /* says what to do */
    rig_remove(directory);
}

static void damaged_schema_is_refused(void)
{
    char noise[3000];

    memset(noise, 'n', sizeof(noise));
    begin_test();
    make_room("r");
    close_store();
    write_file("damso.db", 100, noise, sizeof(noise));
    CHECK(try_open() == -EUCLEAN);
    CHECK(strstr(why, "backup") != NULL);
    rig_remove(directory);
}

static void newer_schema_is_refused(void)
{
    const char version[4] = {0, 0, 0, 2};

    begin_test();
    close_store();
    write_file("damso.db", 60, version, 4); /* user_version: sqlite.org/fileformat.html 1.3.12 */
    CHECK(try_open() == -EPROTO);
    CHECK(strstr(why, "schema 2") != NULL && strstr(why, "newer damsod") != NULL);
    rig_remove(directory);
}

static void database_of_another_program_is_refused(void)
{
    const char application[4] = {0, 0, 0, 1};

    begin_test();
    close_store();
    write_file("damso.db", 68, application, 4); /* application_id: the same, 1.3.14 */
    CHECK(try_open() == -EMEDIUMTYPE);
    CHECK(strstr(why, "another program") != NULL);
    rig_remove(directory);
}

static void directory_that_is_not_there_is_refused(void)
{
    (void)snprintf(directory, sizeof(directory), "./no-such-directory");
    CHECK(try_open() == -EACCES);
    CHECK(strstr(why, "no-such-directory") != NULL);
}

int main(void)
{
    record_is_stored_once_and_in_order();
    rollback_forgets_and_the_same_records_go_in_again();
    uncommitted_records_are_not_there_after_a_restart();
    history_is_the_range_asked_for_and_of_that_room_only();
    more_rooms_than_the_table_has_slots_keep_their_order();
    room_is_made_once_with_its_owner();
    members_follow_the_log();
    public_rooms_are_listed_by_name_and_cursor();
    newest_keys_are_found_oldest_first();
    keys_end_at_the_configured_number();
    user_is_unique_by_id_and_by_folded_name();
    epochs_change_where_a_tail_may_be_lost();
    clean_stop_counts_for_one_start_only();
    hole_that_is_taken_gives_the_room_a_new_epoch();
    file_that_is_no_database_is_refused();
    damaged_schema_is_refused();
    newer_schema_is_refused();
    database_of_another_program_is_refused();
    directory_that_is_not_there_is_refused();
    puts("19 passed, 0 failed");
    return 0;
}
