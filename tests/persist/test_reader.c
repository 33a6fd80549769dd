/*
 * test_reader.c - a reader answers every question once, with the ticket that it came with, and ends
 *                 when it is told to.
 *
 * Method: the worker's own thread, asked by its rings as persist/pipeline_read.c asks; the real
 *         redis-server of redis_rig.h and the MongoDB of DAMSO_TEST_MONGODB_URI, a database of this
 *         run's own. What a page holds is test_tail.c's to say.
 */
#include "core/log.h"
#include "persist/jobs.h"
#include "persist/reader.h"
#include "tests/persist/job_rig.h"
/* The second one has globals with the names of the first one's parameters. */
/* clang-format off */
#include "tests/persist/redis_rig.h"
#include "tests/persist/mongo_documents.h"
/* clang-format on */

enum {
    OWNER = 5,
    READER_KEYS = 100,
    PAGE_BYTES = 16 * 1024,
    READER_RING = 256 * 1024,
    QUEUE = 4,
};

static struct asker asker;
static struct redis_rig redis;
static struct redis_client orders;
static struct mem_plan plan, mongo_plan_of_readers;
static struct mongo *mongo; /* the readers' */
static struct reader *reader;
static uint32_t tickets;

/* --- opening --- */

static struct cache_options cache_options(void)
{
    return (struct cache_options){
        .url = redis.url, .ca_file = "", .prefix = "t:", .connect_ms = 1000, .reply_ms = 1000};
}

static struct worker_options worker_options(void)
{
    struct worker_options worker = asker_worker(&asker, "read");
    worker.in_bytes = READER_RING;
    worker.out_bytes = READER_RING;
    return worker;
}

static int open_with(struct mongo *from, const struct cache_options *cache, uint32_t page_bytes,
                     uint32_t passwords, char why[512])
{
    const struct worker_options worker = worker_options();
    const struct reader_options options = {.cache = cache,
                                           .mongo = from,
                                           .keys_max = READER_KEYS,
                                           .page_bytes = page_bytes,
                                           .password_workers = passwords,
                                           .password_queue = QUEUE};
    return reader_open(&options, &worker, &plan, &reader, why, 512);
}

static void open_mongo(void)
{
    char why[512] = "";

    mem_init(&mongo_plan_of_readers, "test", MEM_MAP);
    const struct mongo_options options = {.uri = rig.uri,
                                          .connect_ms = 5000,
                                          .socket_ms = 60000,
                                          .clients = 1,
                                          .plan = &mongo_plan_of_readers};
    CHECK(mongo_open(&options, &mongo, why, sizeof(why)) == 0);
    CHECK(mem_seal(&mongo_plan_of_readers) == 0);
}

static void reader_begin(uint32_t passwords)
{
    const struct cache_options cache = cache_options();
    char why[512] = "";

    mem_init(&plan, "test", MEM_MAP);
    CHECK(open_with(mongo, &cache, PAGE_BYTES, passwords, why) == 0);
    CHECK(mem_seal(&plan) == 0);
    CHECK(reader_start(reader) == 0);
    (void)redis_client_say(&orders, "FLUSHALL");
    record_rig_reset();
}

static void reader_end(void)
{
    reader_stop(reader);
    reader_close(reader);
    mem_end(&plan);
}

/* --- asking --- */

static struct read_head view;
static uint8_t overlay[READ_OVERLAY_BYTES_MAX];

static void see_nothing(void)
{
    memset(&view, 0, sizeof(view));
    view.owner = OWNER;
}

static void see_log(uint64_t first, uint32_t count)
{
    view.lists[view.list_count++] =
        (struct read_list){.number = 9, .first_seq = first, .count = count, .open = true};
}

static void see_record(struct slice record)
{
    const uint64_t size = record.size;

    memcpy(overlay + view.overlay_bytes, &size, sizeof(size));
    memcpy(overlay + view.overlay_bytes + 8, record.data, record.size);
    view.overlay_bytes += (uint32_t)(8 + ((size + 7) & ~UINT64_C(7)));
    view.overlay_count++;
}

/* Asks; head_bytes of head, then the parts. Returns the ticket. */
static uint32_t ask(const void *head, uint32_t head_bytes, const struct slice *parts,
                    uint32_t count)
{
    struct worker *worker = reader_worker(reader);
    struct os_event events[8];
    uint32_t size = head_bytes;

    for (uint32_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    view.request_bytes = size;
    view.ticket = ++tickets;
    const uint32_t all = (uint32_t)sizeof(view) + ((size + 7) & ~7U) + view.overlay_bytes;
    uint8_t *at = worker_reserve(worker, all);
    CHECK(at != NULL);
    memset(at, 0, all);
    memcpy(at, &view, sizeof(view));
    memcpy(at + all - view.overlay_bytes, overlay, view.overlay_bytes);
    at += sizeof(view);
    memcpy(at, head, head_bytes);
    at += head_bytes;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(at, parts[i].data, parts[i].size);
        at += parts[i].size;
    }
    worker_ask(worker, all, asker.ring);
    CHECK(os_turn(asker.ring, 0, events, 8) >= 0);
    return view.ticket;
}

/* The next answer, and what came of it. */
static struct read_answer answer;
static uint64_t reply_words[READER_RING / 4 / 8];
static uint8_t *const reply = (uint8_t *)reply_words;
static uint32_t reply_size;

static const struct persist_head *reply_head(void)
{
    return (const struct persist_head *)(const void *)reply_words;
}

static void take(void)
{
    struct worker *worker = reader_worker(reader);
    struct os_event events[8];
    uint32_t size = 0;
    const void *bytes = worker_answer(worker, &size);

    for (int waits = 0; bytes == NULL; waits++) {
        CHECK(waits < JOB_RIG_WAITS);
        doorbell_prepare_sleep(&asker.bell);
        bytes = worker_answer(worker, &size);
        if (bytes == NULL) {
            CHECK(os_turn(asker.ring, JOB_RIG_WAIT_NS, events, 8) >= 0);
            bytes = worker_answer(worker, &size);
        }
        doorbell_cancel_sleep(&asker.bell);
    }
    CHECK(size >= sizeof(answer) + sizeof(struct persist_head));
    memcpy(&answer, bytes, sizeof(answer));
    reply_size = size - (uint32_t)sizeof(answer);
    CHECK(reply_size <= PAGE_BYTES || reply_size <= ANSWER_REPLY_MAX);
    memcpy(reply, (const uint8_t *)bytes + sizeof(answer), reply_size);
    worker_next(worker);
}

/* The one answer to a question: its status. */
static int take_final(uint32_t ticket, enum persist_op op)
{
    take();
    CHECK(answer.ticket == ticket && answer.final == 1);
    CHECK(reply_head()->op == op && reply_head()->token == 4711);
    return reply_head()->status;
}

static struct persist_head head_of(enum persist_op op)
{
    return (struct persist_head){.op = (uint16_t)op, .token = 4711};
}

static uint32_t ask_history(const char *room, uint64_t from, uint64_t to, uint32_t bytes_max,
                            bool descending)
{
    const struct slice id = rig_slice(room);
    const struct persist_page page = {.head = head_of(PERSIST_HISTORY),
                                      .from_seq = from,
                                      .to_seq = to,
                                      .limit = (uint32_t)(to - from + 1),
                                      .bytes_max = bytes_max,
                                      .descending = descending,
                                      .room_bytes = (uint8_t)id.size};
    return ask(&page, sizeof(page), &id, 1);
}

static int history(const char *room, uint64_t from, uint64_t to, bool descending)
{
    return take_final(ask_history(room, from, to, PAGE_BYTES, descending), PERSIST_HISTORY_PAGE);
}

/* The page's rows are those, from first on, each one after the one before. */
static bool page_is(const char *room, uint64_t first, uint32_t count, bool descending)
{
    const uint8_t *at = reply + sizeof(struct persist_head);
    bool right = reply_head()->count == count;

    for (uint32_t i = 0; i < count && right; i++) {
        struct persist_entry entry;
        char text[64];
        memcpy(&entry, at, sizeof(entry));
        const uint64_t seq = descending ? first - i : first + i;
        const struct record expected = rig_message(text, room, 1, seq);
        right = entry.seq == seq && entry.body_bytes == expected.body.size &&
                memcmp(at + sizeof(entry), expected.body.data, expected.body.size) == 0;
        at += sizeof(entry) + ((entry.body_bytes + 7) & ~7U);
    }
    return right && at == reply + reply_size;
}

/* A room with 1-5 in MongoDB, 6-8 in the log and 9 on its way. */
static void make_log(const char *room)
{
    char key[64];

    make_room(room);
    put_events(room, 1, 5);
    (void)snprintf(key, sizeof(key), "t:{%s}:log", room);
    for (uint64_t seq = 6; seq <= 8; seq++) {
        const struct slice words[] = {SLICE("RPUSH"), rig_slice(key), record_rig_make(room, seq)};
        struct redis_reply pushed;
        CHECK(redis_command(orders.redis, 3, words, &pushed) == 0);
    }
    see_nothing();
    see_log(6, 3);
    see_record(record_rig_make(room, 9));
}

/* --- tests --- */

static void page_comes_with_its_ticket_and_times(void)
{
    reader_begin(0);
    make_log("page");
    CHECK(history("page", 1, 9, false) == 0);
    CHECK(page_is("page", 1, 9, false));
    CHECK(answer.failed == JOB_WHERE_NONE && answer.redis_ns > 0 && answer.mongodb_ns > 0);
    CHECK(history("page", 1, 9, true) == 0);
    CHECK(page_is("page", 9, 9, true));
    CHECK(history("page", 9, 9, true) == 0);
    CHECK(page_is("page", 9, 1, true));
    CHECK(answer.redis_ns == 0 && answer.mongodb_ns == 0);
    see_nothing();
    CHECK(history("nobody", 1, 9, true) == -ENOENT);
    CHECK(reply_head()->count == 0 && answer.failed == JOB_WHERE_NONE);
    reader_end();
}

static void many_questions_are_answered_in_order(void)
{
    uint32_t first = 0;

    reader_begin(0);
    make_log("many");
    for (int i = 0; i < 200; i++) {
        const uint32_t ticket = ask_history("many", 6, 9, PAGE_BYTES, i % 2 == 0);
        first = first == 0 ? ticket : first;
    }
    for (int i = 0; i < 200; i++) {
        CHECK(take_final(first++, PERSIST_HISTORY_PAGE) == 0);
        CHECK(page_is("many", i % 2 == 0 ? 9 : 6, 4, i % 2 == 0));
    }
    reader_end();
}

static void page_keeps_the_bytes_that_were_asked_for(void)
{
    reader_begin(0);
    make_log("bytes");
    CHECK(take_final(ask_history("bytes", 1, 9, 100, false), PERSIST_HISTORY_PAGE) == 0);
    CHECK(reply_size <= 100 && reply_head()->count == 3);
    CHECK(take_final(ask_history("bytes", 1, 9, 1, true), PERSIST_HISTORY_PAGE) == 0);
    CHECK(page_is("bytes", 9, 1, true)); /* one at least */
    reader_end();
}

/* A body that fits no reply is the caller's own error, and no store's. */
static void body_that_is_too_large_is_told(void)
{
    static char body[PAGE_BYTES];

    reader_begin(0);
    make_room("large");
    memset(body, 'x', sizeof(body));
    see_nothing();
    see_record(record_rig_body("large", 1, (struct slice){body, sizeof(body)}));
    CHECK(history("large", 1, 1, true) == -EMSGSIZE);
    CHECK(answer.failed == JOB_WHERE_NONE && reply_head()->count == 0);
    reader_end();
}

/* Counts what comes before the final answer. */
static void take_load(uint32_t ticket, uint32_t *ret_members, uint32_t *ret_keys)
{
    uint32_t pages = 0;

    *ret_members = 0;
    *ret_keys = 0;
    for (take(); answer.final == 0; take(), pages++) {
        CHECK(answer.ticket == ticket && reply_head()->token == 4711 && pages < 100);
        CHECK(reply_head()->op == PERSIST_MEMBERS || reply_head()->op == PERSIST_KEYS);
        CHECK(answer.redis_ns == 0 && answer.mongodb_ns == 0 && answer.failed == JOB_WHERE_NONE);
        *(reply_head()->op == PERSIST_MEMBERS ? ret_members : ret_keys) += reply_head()->count;
    }
    CHECK(answer.ticket == ticket && reply_head()->op == PERSIST_ROOM);
}

static uint32_t ask_load(const char *room)
{
    const struct persist_head head = head_of(PERSIST_ROOM_LOAD);
    const struct slice id = rig_slice(room);
    return ask(&head, sizeof(head), &id, 1);
}

static void load_comes_in_pages_and_ends_with_the_room(void)
{
    uint32_t members;
    uint32_t keys;
    bson_t *documents[900];

    reader_begin(0);
    make_log("load");
    for (int i = 0; i < 900; i++) {
        char id[64];
        char name[64];
        (void)snprintf(id, sizeof(id), "load/member%d", i);
        (void)snprintf(name, sizeof(name), "the name of member %d", i);
        documents[i] =
            BCON_NEW("_id", BCON_UTF8(id), "room_id", "load", "user_id", BCON_UTF8(id + 5),
                     "username", BCON_UTF8(name), "role", BCON_INT32(ROLE_MEMBER), "seq",
                     BCON_INT64(2), "joined_at", BCON_INT64(1));
    }
    put_all("members", documents, 900);
    struct record record = rig_message((char[64]){0}, "load", 1, 10);
    char bytes[512];
    rig_key(&record, 10);
    record.kind = RECORD_JOINED;
    record.role = ROLE_MEMBER;
    record_encode(&record, bytes);
    see_record((struct slice){bytes, record_size(&record)});
    take_load(ask_load("load"), &members, &keys);
    CHECK(reply_head()->status == 0 && members == 902 && keys == 1);
    const struct persist_room *room = (const struct persist_room *)(const void *)reply_words;
    CHECK(room->last_seq == 10 && room->member_count == 902 && room->epoch == EPOCH);
    CHECK(answer.mongodb_ns > 0 && answer.redis_ns > 0);
    see_nothing();
    take_load(ask_load("nobody"), &members, &keys);
    CHECK(reply_head()->status == -ENOENT && members == 0 && keys == 0);
    reader_end();
}

static int create_room(const char *room)
{
    const struct persist_room request = {.head = head_of(PERSIST_ROOM_CREATE),
                                         .members_max = 9,
                                         .room_bytes = (uint8_t)strlen(room),
                                         .user_bytes = 3,
                                         .username_bytes = 4,
                                         .name_bytes = 4};
    const struct slice parts[] = {rig_slice(room), SLICE("Room"), SLICE("own"), SLICE("Olga")};

    see_nothing();
    return take_final(ask(&request, sizeof(request), parts, 4), PERSIST_ROOM);
}

static void room_that_is_made_is_there_at_once(void)
{
    uint32_t members;
    uint32_t keys;

    reader_begin(0);
    CHECK(create_room("made") == 0);
    CHECK(create_room("made") == -EEXIST);
    CHECK(create_room("no room") == -EINVAL);
    take_load(ask_load("made"), &members, &keys);
    CHECK(reply_head()->status == 0 && members == 1 && keys == 0);
    const struct persist_list list = {
        .head = head_of(PERSIST_ROOM_LIST), .limit = 10, .query_bytes = 3};
    const struct slice query = SLICE("MAD");
    CHECK(take_final(ask(&list, sizeof(list), &query, 1), PERSIST_ROOMS) == 0);
    CHECK(reply_head()->count == 1);
    reader_end();
}

static uint32_t ask_user(enum persist_op op, const char *user_id, const char *username,
                         const char *password)
{
    const struct slice parts[] = {rig_slice(user_id), rig_slice(username), rig_slice(password)};
    const struct persist_user request = {.head = head_of(op),
                                         .user_bytes = (uint16_t)parts[0].size,
                                         .username_bytes = (uint16_t)parts[1].size,
                                         .password_bytes = (uint16_t)parts[2].size};
    see_nothing();
    return ask(&request, sizeof(request), parts, 3);
}

static void users_are_made_and_found(void)
{
    reader_begin(1);
    CHECK(take_final(ask_user(PERSIST_USER_GET, "u77", "", ""), PERSIST_USER) == -ENOENT);
    CHECK(take_final(ask_user(PERSIST_USER_ENSURE, "u77", "Ann", ""), PERSIST_USER) == 0);
    CHECK(take_final(ask_user(PERSIST_USER_GET, "u77", "", ""), PERSIST_USER) == 0);
    CHECK(take_final(ask_user(PERSIST_REGISTER, "", "ANN", "secret word"), PERSIST_USER) ==
          -EEXIST);
    CHECK(take_final(ask_user(PERSIST_REGISTER, "", "Bob", "secret word"), PERSIST_USER) == 0);
    CHECK(take_final(ask_user(PERSIST_LOGIN, "", "bob", "secret word"), PERSIST_USER) == 0);
    CHECK(take_final(ask_user(PERSIST_LOGIN, "", "bob", "another"), PERSIST_USER) == -EACCES);
    CHECK(take_final(ask_user(PERSIST_LOGIN, "", "nobody", "another"), PERSIST_USER) == -EACCES);
    reader_end();
}

/* A hash takes 40 ms; who asks for something else meanwhile does not wait for it. */
static void page_does_not_wait_for_a_password(void)
{
    reader_begin(1);
    make_log("busy");
    const struct read_head seen = view;
    uint32_t logins[3];
    for (int i = 0; i < 3; i++) {
        logins[i] = ask_user(PERSIST_LOGIN, "", "nobody", "password");
    }
    view = seen;
    const uint32_t page = ask_history("busy", 8, 9, PAGE_BYTES, true);
    uint32_t before = 0;
    for (take(); answer.ticket != page; take()) {
        before++;
    }
    CHECK(before < 3 && page_is("busy", 9, 2, true));
    for (; before < 3; before++) {
        CHECK(take_final(logins[before], PERSIST_USER) == -EACCES);
    }
    reader_end();
}

static void failure_names_its_store_and_only_once(void)
{
    reader_begin(0);
    make_log("failure");
    CHECK(history("failure", 1, 9, true) == 0);
    redis_rig_kill(&redis);
    CHECK(history("failure", 1, 9, true) == -EAGAIN);
    CHECK(answer.failed == JOB_WHERE_REDIS && reply_head()->count == 0);
    CHECK(history("failure", 1, 5, true) == 0 && page_is("failure", 5, 5, true));
    CHECK(answer.failed == JOB_WHERE_NONE);
    redis_client_close(&orders);
    redis_rig_start(&redis, "");
    redis_client_open(&orders, redis.url, "");
    CHECK(redis_connect(orders.redis) == 0);
    reader_end();
}

static void reader_without_a_cache_reads_mongodb(void)
{
    char why[512] = "";

    (void)redis_client_say(&orders, "FLUSHALL");
    record_rig_reset();
    mem_init(&plan, "test", MEM_MAP);
    CHECK(open_with(mongo, NULL, PAGE_BYTES, 0, why) == 0);
    CHECK(mem_seal(&plan) == 0);
    CHECK(reader_start(reader) == 0);
    make_room("bare");
    put_events("bare", 1, 5);
    see_nothing();
    see_record(record_rig_make("bare", 6));
    CHECK(history("bare", 1, 6, true) == 0 && page_is("bare", 6, 6, true));
    reader_end();
}

static void reader_ends_with_questions_and_passwords_in_hand(void)
{
    for (int round = 0; round < 10; round++) {
        char room[32];
        (void)snprintf(room, sizeof(room), "end%d", round);
        reader_begin(1);
        make_log(room);
        const struct read_head seen = view;
        for (int i = 0; i < 3; i++) {
            (void)ask_user(PERSIST_LOGIN, "", "nobody", "password");
        }
        view = seen;
        for (int i = 0; i < 20; i++) {
            (void)ask_history(room, 1, 9, PAGE_BYTES, true);
        }
        CHECK(usleep((useconds_t)round * 7000) == 0);
        reader_end();
    }
}

static void wrong_options_are_told_when_it_opens(void)
{
    struct cache_options cache = cache_options();
    struct mem_plan counted;
    char why[512] = "";

    cache.url = "redis:/nonsense";
    mem_init(&plan, "test", MEM_MAP);
    CHECK(open_with(mongo, &cache, PAGE_BYTES, 1, why) == -EINVAL);
    CHECK(why[0] != '\0');
    mem_end(&plan);

    cache = cache_options();
    mem_init(&plan, "test", MEM_COUNT);
    CHECK(open_with(NULL, &cache, PAGE_BYTES, 1, why) == 0);
    counted = plan;
    mem_end(&plan);
    mem_init(&plan, "test", MEM_MAP);
    CHECK(open_with(mongo, &cache, PAGE_BYTES, 0, why) == 0);
    CHECK(plan.total > 0 && counted.total >= plan.total); /* and the jobs of passwords */
    CHECK(mem_seal(&plan) == 0);
    reader_end();
}

int main(void)
{
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(0);
    }
    asker_open(&asker);
    redis_rig_open(&redis, "");
    redis_client_open(&orders, redis.url, "");
    CHECK(redis_connect(orders.redis) == 0);
    begin_test();
    open_mongo();
    page_comes_with_its_ticket_and_times();
    many_questions_are_answered_in_order();
    page_keeps_the_bytes_that_were_asked_for();
    body_that_is_too_large_is_told();
    load_comes_in_pages_and_ends_with_the_room();
    room_that_is_made_is_there_at_once();
    users_are_made_and_found();
    page_does_not_wait_for_a_password();
    failure_names_its_store_and_only_once();
    reader_without_a_cache_reads_mongodb();
    reader_ends_with_questions_and_passwords_in_hand();
    wrong_options_are_told_when_it_opens();
    mongo_close(mongo);
    mem_end(&mongo_plan_of_readers);
    end_test();
    redis_client_close(&orders);
    redis_rig_close(&redis);
    asker_close(&asker);
    puts("12 passed, 0 failed");
    return 0;
}
