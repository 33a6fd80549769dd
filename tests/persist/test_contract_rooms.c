/*
 * test_contract_rooms.c - what persist/persist.h promises of rooms, members, keys, history and
 *                         users, in every mode.
 *
 * Method: as test_contract.c, which has records, order, stops and crashes.
 */
#include "tests/persist/contract_rig.h"

static struct rig_shard *shard;

static bool is(const char *shown, const char *expected)
{
    return contract_is(shown, expected);
}

/* --- rooms --- */

/* A room as an answer tells it. */
struct shown {
    struct persist_room room;
    char room_id[65];
    char name[80];
    uint32_t bytes; /* of the entry, without what fills it up */
};

static void show(const struct persist_room *room, struct shown *ret)
{
    const char *tail = (const char *)(room + 1);

    CHECK(room->room_bytes < sizeof(ret->room_id) && room->name_bytes < sizeof(ret->name));
    *ret = (struct shown){.room = *room,
                          .bytes = (uint32_t)sizeof(*room) + room->room_bytes + room->name_bytes};
    memcpy(ret->room_id, tail, room->room_bytes);
    memcpy(ret->name, tail + room->room_bytes, room->name_bytes);
}

struct creation {
    const char *room_id, *name, *user_id, *username;
    uint8_t visibility, durability;
    uint64_t epoch, created_ms;
};

static void ask_creation(const struct creation *wanted)
{
    const struct slice tail[] = {rig_slice(wanted->room_id), rig_slice(wanted->name),
                                 rig_slice(wanted->user_id), rig_slice(wanted->username)};
    const struct persist_room request = {
        .head = rig_head(shard, PERSIST_ROOM_CREATE),
        .epoch = wanted->epoch,
        .created_ms = wanted->created_ms,
        .members_max = 9,
        .visibility = wanted->visibility,
        .durability = wanted->durability,
        .room_bytes = (uint8_t)tail[0].size,
        .name_bytes = (uint16_t)tail[1].size,
        .user_bytes = (uint8_t)tail[2].size,
        .username_bytes = (uint8_t)tail[3].size,
    };
    rig_put(shard, &request, sizeof(request), tail, 4);
}

/* Makes it: what the answer says. */
static struct shown make(const struct creation *wanted)
{
    struct shown shown;
    uint32_t size;

    ask_creation(wanted);
    rig_publish(shard);
    const struct persist_room *reply = rig_reply(shard, &size);
    CHECK(reply->head.op == PERSIST_ROOM && reply->head.status == 0);
    CHECK(reply->head.token == shard->token);
    show(reply, &shown);
    CHECK(shown.bytes == size);
    rig_next(shard);
    return shown;
}

static void room_is_made_as_it_was_asked_for(void)
{
    const char *room = contract_name("r");
    const struct creation wanted = {.room_id = room,
                                    .name = "R\xc3\xa4ume \xe2\x98\x83",
                                    .user_id = "owner",
                                    .username = "Olga",
                                    .visibility = ROOM_PRIVATE,
                                    .durability = CONFIG_DURABILITY_JOURNAL,
                                    .epoch = 4711,
                                    .created_ms = 1234567890123};
    const struct shown made = make(&wanted);

    CHECK(is(made.room_id, room) && is(made.name, wanted.name));
    CHECK(made.room.epoch == 4711 && made.room.created_ms == 1234567890123);
    CHECK(made.room.visibility == ROOM_PRIVATE);
    CHECK(made.room.durability == CONFIG_DURABILITY_JOURNAL);
    CHECK(made.room.members_max == 9 && made.room.member_count == 1 && made.room.last_seq == 0);
    ask_creation(&wanted);
    CHECK(contract_refuses_room(shard, -EEXIST));
    CHECK(rig_epoch(shard, room) == 4711);
    CHECK(is(contract_all(shard, room), "")); /* there, and empty */
}

static void room_without_a_name_of_its_own_is_given_one(void)
{
    const struct creation wanted = {
        .room_id = "", .name = "The Room", .user_id = "owner", .username = "Olga"};
    const struct shown first = make(&wanted);
    const struct shown second = make(&wanted);

    CHECK(strlen(first.room_id) == 12 &&
          strspn(first.room_id, "abcdefghijklmnopqrstuvwxyz0123456789") == 12);
    CHECK(strcmp(first.room_id, second.room_id) != 0);
    CHECK(first.room.epoch != 0 && second.room.epoch != 0);
    CHECK(first.room.epoch != second.room.epoch);
    CHECK(first.room.created_ms > UINT64_C(1700000000000));
}

static void misshapen_rooms_are_refused(void)
{
    static char longest[66];
    const char *room = contract_name("r");
    const struct creation good = {
        .room_id = room, .name = "N", .user_id = "owner", .username = "Olga"};
    struct creation wrong[8] = {good, good, good, good, good, good, good, good};

    memset(longest, 'x', 65);
    wrong[0].room_id = "no room id";
    wrong[1].room_id = "{braces}";
    wrong[2].room_id = longest;
    wrong[3].room_id = "r\xc3\xa4um";
    wrong[4].name = "control\x01";
    wrong[5].user_id = "";
    wrong[6].user_id = "\xff";
    wrong[7].username = "\xc3";
    for (int i = 0; i < 8; i++) {
        ask_creation(&wrong[i]);
        CHECK(contract_refuses_room(shard, -EINVAL));
    }
    rig_ask_load(shard, room);
    CHECK(contract_refuses_room(shard, -ENOENT)); /* nothing of it was made */
    longest[64] = '\0';
    wrong[2].room_id = longest + 1; /* 63, and the longest: */
    CHECK(strlen(make(&wrong[2]).room_id) == 63);
    longest[0] = (char)('a' + contract.test % 26);
    wrong[2].room_id = longest;
    CHECK(strlen(make(&wrong[2]).room_id) == 64);
}

static void two_who_want_one_room_at_once_do_not_both_get_it(void)
{
    const char *room = contract_name("r");
    int made = 0;
    uint32_t size;

    rig_ask_create(shard, room);
    rig_ask_create(shard, room);
    rig_publish(shard);
    for (int i = 0; i < 2; i++) {
        const struct persist_head *reply = rig_reply(shard, &size);
        CHECK(reply->op == PERSIST_ROOM && (reply->status == 0 || reply->status == -EEXIST));
        made += reply->status == 0;
        rig_next(shard);
    }
    CHECK(made == 1);
}

/* --- lists of rooms --- */

/* Asks for a list: the room_ids that come, each with a comma behind it. */
static const char *list(const char *query, const char *cursor, uint32_t limit)
{
    static char names[512];
    const struct slice tail[] = {rig_slice(query), rig_slice(cursor)};
    const struct persist_list request = {.head = rig_head(shard, PERSIST_ROOM_LIST),
                                         .limit = limit,
                                         .query_bytes = (uint16_t)tail[0].size,
                                         .cursor_bytes = (uint16_t)tail[1].size};
    uint32_t size;

    rig_put(shard, &request, sizeof(request), tail, 2);
    rig_publish(shard);
    const struct persist_head *reply = rig_reply(shard, &size);
    CHECK(reply->op == PERSIST_ROOMS && reply->status == 0 && reply->token == shard->token);
    const uint8_t *at = (const uint8_t *)(reply + 1);
    names[0] = '\0';
    for (uint32_t i = 0; i < reply->count; i++) {
        struct shown shown;
        show((const void *)at, &shown);
        CHECK(shown.room.epoch != 0 && shown.room.member_count == 1);
        const size_t used = strlen(names);
        (void)snprintf(names + used, sizeof(names) - used, "%s,", shown.room_id);
        at += (shown.bytes + 7U) & ~7U;
    }
    CHECK(at == (const uint8_t *)reply + size);
    rig_next(shard);
    return names;
}

static void public_rooms_are_listed_in_pages(void)
{
    static const char *const ends[] = {"-b", "-a", "-d", "-C", "-secret"};
    char rooms[5][CONTRACT_NAME_BYTES];
    char mark[CONTRACT_NAME_BYTES];
    char expected[300];

    (void)snprintf(mark, sizeof(mark), "Quartz%u", contract.test);
    for (int i = 0; i < 5; i++) {
        (void)snprintf(rooms[i], sizeof(rooms[i]), "%s%s", contract_name("l"), ends[i]);
        const struct creation wanted = {.room_id = rooms[i],
                                        .name = i == 2 ? "other" : mark,
                                        .user_id = "owner",
                                        .username = "Olga",
                                        .visibility = i == 4 ? ROOM_PRIVATE : ROOM_PUBLIC};
        (void)make(&wanted);
    }
    /* By room_id, bytes compared: C before a, b and d. */
    (void)snprintf(expected, sizeof(expected), "%s,%s,%s,%s,", rooms[3], rooms[1], rooms[0],
                   rooms[2]);
    CHECK(is(list(contract_name("l-"), "", 100), expected)); /* in the id */
    (void)snprintf(expected, sizeof(expected), "%s,%s,%s,", rooms[3], rooms[1], rooms[0]);
    for (char *c = mark; *c != '\0'; c++) {
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c); /* in the name, whatever the case */
    }
    CHECK(is(list(mark, "", 100), expected));
    (void)snprintf(expected, sizeof(expected), "%s,%s,", rooms[1], rooms[0]);
    CHECK(is(list(mark, rooms[3], 2), expected));
    (void)snprintf(expected, sizeof(expected), "%s,", rooms[0]);
    CHECK(is(list(mark, rooms[1], 1), expected));
    CHECK(is(list(mark, rooms[0], 5), ""));
    CHECK(is(list("x.*[", "", 5), "")); /* no pattern: as it is */
}

/* --- members and keys --- */

static void send_change(const char *room, uint64_t seq, uint8_t kind, uint8_t role,
                        const char *user_id, const char *username)
{
    char body[64];
    struct record record = rig_message(body, room, RIG_EPOCH, seq);

    record.kind = kind;
    record.role = role;
    record.user_id = rig_slice(user_id);
    record.username = rig_slice(username);
    rig_record(shard, &record);
}

/* Takes one page of a load: entries as text, "1:u1:Ann," for members, "seq," for keys. */
static void add_entries(const struct persist_head *reply, uint32_t size, char *text, size_t most)
{
    const uint8_t *at = (const uint8_t *)(reply + 1);

    for (uint32_t i = 0; i < reply->count; i++) {
        char *end = text + strlen(text);
        const size_t left = most - (size_t)(end - text);
        if (reply->op == PERSIST_MEMBERS) {
            (void)snprintf(end, left, "%u:%.*s:%.*s,", at[0], at[1], (const char *)at + 3, at[2],
                           (const char *)at + 3 + at[1]);
            at += 3 + at[1] + at[2];
        } else {
            const struct persist_key *key = (const void *)at;
            CHECK(key->content_digest == key->seq * 31 && key->at_ms == key->seq + 1000);
            CHECK(memcmp(key->key_digest, &key->seq, sizeof(key->seq)) == 0);
            (void)snprintf(end, left, "%" PRIu64 ",", key->seq);
            at += sizeof(*key);
        }
        CHECK(strlen(end) + 1 < left);
    }
    CHECK(at == (const uint8_t *)reply + size);
}

/* Loads a room: its members, in any order, its keys, and the room. */
static struct shown load(const char *room, char *members, char *keys, size_t most)
{
    struct shown shown;
    bool any_keys = false;
    uint32_t size;

    members[0] = '\0';
    keys[0] = '\0';
    rig_ask_load(shard, room);
    rig_publish(shard);
    const struct persist_head *reply = rig_reply(shard, &size);
    for (; reply->op != PERSIST_ROOM; reply = rig_reply(shard, &size)) {
        CHECK(reply->op == PERSIST_MEMBERS || reply->op == PERSIST_KEYS);
        CHECK(reply->token == shard->token && reply->status == 0 && reply->count > 0);
        CHECK(reply->op == PERSIST_KEYS || !any_keys); /* members first */
        any_keys = reply->op == PERSIST_KEYS;
        add_entries(reply, size, any_keys ? keys : members, most);
        rig_next(shard);
    }
    CHECK(reply->token == shard->token);
    CHECK(reply->status == 0);
    show((const void *)reply, &shown);
    CHECK(shown.bytes == size);
    rig_next(shard);
    return shown;
}

/* Whether the members are these, in whatever order. */
static bool are_members(const char *shown, const char *const *expected, uint32_t count)
{
    size_t size = 0;
    bool all = true;

    for (uint32_t i = 0; i < count; i++) {
        const char *found = strstr(shown, expected[i]);
        all = all && found != NULL && (found == shown || found[-1] == ',');
        size += strlen(expected[i]);
    }
    if (!all || size != strlen(shown)) {
        (void)fprintf(stderr, "%s: members %s\n", contract.mode->name, shown);
    }
    return all && size == strlen(shown);
}

static void members_follow_what_was_handed_over(void)
{
    static const char *const first[] = {"3:owner:Olga,", "1:u1:Ann,", "2:u2:Bea,"};
    static const char *const then[] = {"3:owner:Olga,", "2:u1:Anna,", "1:u3:Cleo,"};
    const char *room = contract_name("r");
    char members[512];
    char keys[64];

    rig_make_room(shard, room);
    send_change(room, 1, RECORD_JOINED, ROLE_MEMBER, "u1", "Ann");
    send_change(room, 2, RECORD_JOINED, ROLE_ADMIN, "u2", "Bea");
    struct shown shown = load(room, members, keys, sizeof(members)); /* behind them (P1) */
    CHECK(are_members(members, first, 3) && is(keys, ""));
    CHECK(shown.room.last_seq == 2 && shown.room.member_count == 3);
    rig_wait_watermark(shard, shard->position);
    send_change(room, 3, RECORD_LEFT, ROLE_NONE, "u2", "Bea");
    send_change(room, 4, RECORD_JOINED, ROLE_ADMIN, "u1", "Anna"); /* another role and name */
    send_change(room, 5, RECORD_JOINED, ROLE_MEMBER, "u3", "Cleo");
    shown = load(room, members, keys, sizeof(members)); /* half stored, half on its way */
    CHECK(are_members(members, then, 3));
    CHECK(shown.room.last_seq == 5 && shown.room.member_count == 3);
    rig_wait_watermark(shard, shard->position);
    shown = load(room, members, keys, sizeof(members));
    CHECK(are_members(members, then, 3) && shown.room.member_count == 3);
    shard = contract_restart();
    shown = load(room, members, keys, sizeof(members));
    CHECK(are_members(members, then, 3));
    CHECK(shown.room.last_seq == 5 && shown.room.member_count == 3);
}

static void send_keyed(const char *room, uint64_t seq)
{
    char body[64];
    struct record record = rig_message(body, room, RIG_EPOCH, seq);

    rig_key(&record, seq);
    rig_record(shard, &record);
}

static void newest_keys_come_oldest_first(void)
{
    const char *room = contract_name("r");
    char members[128];
    char keys[256];

    contract.keys_max = 6;
    shard = contract_restart();
    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 10; seq++) {
        if (seq % 2 == 0) {
            rig_send(shard, room, RIG_EPOCH, seq); /* without a key */
        } else {
            send_keyed(room, seq);
        }
    }
    (void)load(room, members, keys, sizeof(members));
    CHECK(is(keys, "1,3,5,7,9,")); /* all that there are */
    rig_wait_watermark(shard, shard->position);
    for (uint64_t seq = 11; seq <= 14; seq++) {
        send_keyed(room, seq);
    }
    (void)load(room, members, keys, sizeof(members)); /* some stored, some on their way */
    CHECK(is(keys, "7,9,11,12,13,14,"));
    rig_wait_watermark(shard, shard->position);
    (void)load(room, members, keys, sizeof(members));
    CHECK(is(keys, "7,9,11,12,13,14,"));
    shard = contract_restart();
    (void)load(room, members, keys, sizeof(members));
    CHECK(is(keys, "7,9,11,12,13,14,"));
    contract.keys_max = 4096;
}

static void room_is_loaded_in_pages_that_fit_the_ring(void)
{
    enum { MEMBERS = 600 };
    const char *room = contract_name("r");
    uint32_t members = 0;
    uint32_t keys = 0;
    uint32_t pages = 0;
    uint32_t size;

    contract_close();
    contract_open_store();
    contract_start(1, 16384); /* the least: pages of 4 KiB, and it waits for us to take them */
    rig_shard_enable(shard, contract.persist);
    contract_wait_ready();
    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= MEMBERS; seq++) {
        char body[64];
        char user_id[16];
        struct record record = rig_message(body, room, RIG_EPOCH, seq);
        (void)snprintf(user_id, sizeof(user_id), "u%05" PRIu64, seq);
        record.kind = RECORD_JOINED;
        record.role = ROLE_MEMBER;
        record.user_id = rig_slice(user_id);
        rig_key(&record, seq);
        rig_record(shard, &record);
    }
    rig_ask_load(shard, room); /* behind records that are not stored yet */
    rig_publish(shard);
    const struct persist_head *reply = rig_reply(shard, &size);
    for (; reply->op != PERSIST_ROOM; reply = rig_reply(shard, &size), pages++) {
        CHECK(reply->token == shard->token && reply->status == 0);
        CHECK(size <= shard->lane.replies.capacity / 4);
        members += reply->op == PERSIST_MEMBERS ? reply->count : 0;
        keys += reply->op == PERSIST_KEYS ? reply->count : 0;
        CHECK(usleep(1000) == 0); /* slower than they come */
        rig_next(shard);
    }
    const struct persist_room *shown = (const void *)reply;
    CHECK(shown->head.status == 0 && shown->last_seq == MEMBERS);
    CHECK(shown->member_count == MEMBERS + 1);
    rig_next(shard);
    CHECK(members == MEMBERS + 1 && keys == MEMBERS && pages > 3);
    rig_wait_watermark(shard, shard->position);
    shard = contract_restart();
}

/* --- history --- */

/* The same pages, wherever the entries lie. */
static void check_pages(const char *room)
{
    const uint32_t many = 1000;
    const uint32_t bytes = 1 << 20;

    CHECK(is(contract_page(shard, room, 1, UINT64_MAX, many, bytes, false), "1-99"));
    CHECK(is(contract_page(shard, room, 1, UINT64_MAX, many, bytes, true), "99-1"));
    CHECK(is(contract_page(shard, room, 10, 20, many, bytes, false), "10-20"));
    CHECK(is(contract_page(shard, room, 10, 20, many, bytes, true), "20-10"));
    CHECK(is(contract_page(shard, room, 42, 42, many, bytes, false), "42-42"));
    CHECK(is(contract_page(shard, room, 10, 90, 7, bytes, false), "10-16"));
    CHECK(is(contract_page(shard, room, 10, 90, 7, bytes, true), "90-84"));
    CHECK(is(contract_page(shard, room, 48, 60, 5, bytes, false), "48-52"));
    CHECK(is(contract_page(shard, room, 40, 53, 6, bytes, true), "53-48"));
    CHECK(is(contract_page(shard, room, 95, 200, many, bytes, false), "95-99"));
    CHECK(is(contract_page(shard, room, 95, 200, many, bytes, true), "99-95"));
    CHECK(is(contract_page(shard, room, 100, 200, many, bytes, false), ""));
    CHECK(is(contract_page(shard, room, 100, UINT64_MAX, many, bytes, true), ""));
    CHECK(is(contract_page(shard, room, 20, 10, many, bytes, false), ""));
}

static void page_of_history_keeps_range_limit_and_order(void)
{
    const char *room = contract_name("r");

    contract.flush_interval_ms = 3600000; /* what is handed over stays on its way */
    shard = contract_restart();
    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 50; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
    }
    rig_publish(shard);
    shard = contract_restart(); /* stored: a clean stop flushes */
    for (uint64_t seq = 51; seq <= 99; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
    }
    check_pages(room); /* half in the store, half before it */
    contract.flush_interval_ms = 50;
    shard = contract_restart();
    check_pages(room);
}

static void page_of_history_keeps_to_its_bytes(void)
{
    static char big[6000];
    const char *room = contract_name("r");
    const size_t longest = strlen(room) + 3; /* "/10" to "/99" */
    const uint32_t entry = 16 + (uint32_t)((longest + 7) & ~(size_t)7);

    rig_make_room(shard, room);
    for (uint64_t seq = 1; seq <= 99; seq++) {
        rig_send(shard, room, RIG_EPOCH, seq);
    }
    for (int stored = 0; stored < 2; stored++) {
        const uint32_t many = 1000;
        CHECK(is(contract_page(shard, room, 10, 99, many, 16 + 5 * entry, false), "10-14"));
        CHECK(is(contract_page(shard, room, 10, 99, many, 16 + 5 * entry - 1, true), "99-96"));
        CHECK(is(contract_page(shard, room, 17, 99, many, 1, false), "17-17")); /* always one */
        CHECK(is(contract_page(shard, room, 100, 200, many, 1000, false), ""));
        rig_wait_watermark(shard, shard->position);
    }
    char body[64];
    struct record record = rig_message(body, room, RIG_EPOCH, 100);
    memset(big, 'b', sizeof(big));
    record.body = (struct slice){big, sizeof(big)};
    rig_record(shard, &record);
    for (int stored = 0; stored < 2; stored++) {
        uint32_t size;
        rig_ask_history(shard, room, 99, 100, 100, true);
        rig_publish(shard);
        const struct persist_head *reply = rig_reply(shard, &size);
        CHECK(reply->op == PERSIST_HISTORY_PAGE && reply->status == 0);
        CHECK(reply->count == 1); /* larger than asked for, but one */
        CHECK(size == sizeof(*reply) + sizeof(struct persist_entry) + sizeof(big));
        CHECK(memcmp((const char *)(reply + 1) + sizeof(struct persist_entry), big, sizeof(big)) ==
              0);
        rig_next(shard);
        rig_wait_watermark(shard, shard->position);
    }
}

/* --- users --- */

static struct {
    char user_id[65];
    char username[129];
    char display_name[257];
} user;

static const char *copy(char *to, size_t capacity, const char *from, uint32_t size)
{
    CHECK(size < capacity);
    memcpy(to, from, size);
    to[size] = '\0';
    return from + size;
}

/* The status of the next reply, about a user; user holds the rest. */
static int take_user(void)
{
    uint32_t size;
    const struct persist_user *reply = rig_reply(shard, &size);
    const char *at = (const char *)(reply + 1);
    const int status = reply->head.status;

    CHECK(reply->head.op == PERSIST_USER && reply->password_bytes == 0);
    CHECK(reply->created_ms > 0 || status != 0);
    at = copy(user.user_id, sizeof(user.user_id), at, reply->user_bytes);
    at = copy(user.username, sizeof(user.username), at, reply->username_bytes);
    at = copy(user.display_name, sizeof(user.display_name), at, reply->display_bytes);
    CHECK(at == (const char *)reply + size);
    rig_next(shard);
    return status;
}

static int ask_user(enum persist_op op, const char *user_id, const char *username,
                    const char *password)
{
    rig_ask_user(shard, op, user_id, username, password,
                 op == PERSIST_REGISTER ? "Ann the First" : "");
    rig_publish(shard);
    return take_user();
}

static void user_signs_up_and_in(void)
{
    const char *name = contract_name("Ann");
    const char *loud = contract_name("aNN");
    char user_id[65];

    CHECK(ask_user(PERSIST_REGISTER, "", name, "secret") == 0);
    CHECK(strlen(user.user_id) == 22 && is(user.username, name));
    CHECK(is(user.display_name, "Ann the First"));
    memcpy(user_id, user.user_id, sizeof(user_id));
    CHECK(ask_user(PERSIST_REGISTER, "", loud, "other") == -EEXIST); /* whatever the case */
    CHECK(ask_user(PERSIST_LOGIN, "", loud, "secret") == 0);
    CHECK(is(user.user_id, user_id) && is(user.username, name));
    CHECK(is(user.display_name, "Ann the First"));
    CHECK(ask_user(PERSIST_LOGIN, "", name, "Secret") == -EACCES);
    CHECK(strlen(user.user_id) == 0); /* a refusal tells nothing */
    CHECK(ask_user(PERSIST_LOGIN, "", contract_name("Bea"), "secret") == -EACCES);
    CHECK(ask_user(PERSIST_USER_GET, user_id, "", "") == 0);
    CHECK(is(user.username, name));
    shard = contract_restart();
    CHECK(ask_user(PERSIST_LOGIN, "", name, "secret") == 0);
    CHECK(is(user.user_id, user_id));
}

static void token_brings_its_user(void)
{
    const char *id = contract_name("sub-1");
    const char *other = contract_name("sub-2");
    const char *name = contract_name("Dora");
    const char *loud = contract_name("DORA");

    CHECK(ask_user(PERSIST_USER_ENSURE, id, name, "") == 0);
    CHECK(is(user.user_id, id) && is(user.username, name));
    CHECK(ask_user(PERSIST_USER_ENSURE, id, "Other", "") == 0);
    CHECK(is(user.username, name)); /* the stored one */
    CHECK(ask_user(PERSIST_USER_ENSURE, other, loud, "") == 0);
    CHECK(is(user.user_id, other)); /* the name is taken: one near to it */
    CHECK(strlen(user.username) == strlen(loud) + 5);
    CHECK(memcmp(user.username, loud, strlen(loud)) == 0 && user.username[strlen(loud)] == '-');
    CHECK(ask_user(PERSIST_USER_ENSURE, contract_name("sub-3"), "", "") == 0);
    CHECK(strlen(user.username) == 9 && memcmp(user.username, "user-", 5) == 0);
    CHECK(ask_user(PERSIST_LOGIN, "", name, "x") == -EACCES); /* has no password at all */
    CHECK(ask_user(PERSIST_REGISTER, "", loud, "x") == -EEXIST);
}

static void two_first_requests_of_one_user_are_one_user(void)
{
    const char *id = contract_name("twice");
    const char *name = contract_name("Emil");

    for (int i = 0; i < 8; i++) {
        rig_ask_user(shard, PERSIST_USER_ENSURE, id, name, "", "");
    }
    rig_publish(shard);
    for (int i = 0; i < 8; i++) {
        CHECK(take_user() == 0);
        CHECK(is(user.user_id, id) && is(user.username, name));
    }
}

static void two_who_want_one_name_at_once_do_not_both_get_it(void)
{
    const char *name = contract_name("Finn");
    int made = 0;

    rig_ask_user(shard, PERSIST_REGISTER, "", name, "secret", "");
    rig_ask_user(shard, PERSIST_REGISTER, "", name, "secret", "");
    rig_publish(shard);
    for (int i = 0; i < 2; i++) {
        const int status = take_user();
        CHECK(status == 0 || status == -EEXIST);
        made += status == 0;
    }
    CHECK(made == 1);
    CHECK(ask_user(PERSIST_LOGIN, "", name, "secret") == 0);
}

/* --- and all of it over a stop --- */

static void restart_keeps_everything(void)
{
    const char *room = contract_name("r");
    const char *empty = contract_name("empty");
    const char *id = contract_name("u");
    char members[2][128];
    char keys[2][64];

    rig_make_room(shard, room);
    rig_make_room(shard, empty);
    CHECK(ask_user(PERSIST_USER_ENSURE, id, contract_name("Gus"), "") == 0);
    send_change(room, 1, RECORD_JOINED, ROLE_MEMBER, "u1", "Ann");
    send_keyed(room, 2);
    rig_send(shard, room, RIG_EPOCH, 3);
    const struct shown before = load(room, members[0], keys[0], sizeof(members[0]));
    for (int lap = 0; lap < 2; lap++) {
        shard = contract_restart();
        const struct shown after = load(room, members[1], keys[1], sizeof(members[1]));
        CHECK(is(members[1], members[0]) && is(keys[1], keys[0]) && is(keys[1], "2,"));
        CHECK(is(after.room_id, before.room_id) && is(after.name, before.name));
        CHECK(after.room.last_seq == 3 && after.room.epoch == before.room.epoch);
        CHECK(after.room.created_ms == before.room.created_ms);
        CHECK(after.room.members_max == 9 && after.room.member_count == before.room.member_count);
        CHECK(is(contract_all(shard, room), "1-3"));
        CHECK(is(contract_all(shard, empty), ""));
        CHECK(ask_user(PERSIST_USER_GET, id, "", "") == 0);
        CHECK(is(user.username, contract_name("Gus")));
    }
}

static void (*const tests[])(void) = {
    room_is_made_as_it_was_asked_for,
    room_without_a_name_of_its_own_is_given_one,
    misshapen_rooms_are_refused,
    two_who_want_one_room_at_once_do_not_both_get_it,
    public_rooms_are_listed_in_pages,
    members_follow_what_was_handed_over,
    newest_keys_come_oldest_first,
    room_is_loaded_in_pages_that_fit_the_ring,
    page_of_history_keeps_range_limit_and_order,
    page_of_history_keeps_to_its_bytes,
    user_signs_up_and_in,
    token_brings_its_user,
    two_first_requests_of_one_user_are_one_user,
    two_who_want_one_name_at_once_do_not_both_get_it,
    restart_keeps_everything,
};

int main(void)
{
    return contract_run(tests, sizeof(tests) / sizeof(tests[0]), &shard);
}
