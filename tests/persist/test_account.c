/*
 * test_account.c - users: sign-up, sign-in, and those whom a token brings.
 *
 * Method: through the door, with real hashes; 40 ms each, so few of them.
 */
#include "tests/persist/persist_rig.h"

#include <errno.h>

enum { CROWD = 5000, QUEUE = 4 };

static char directory[RIG_PATH_BYTES];
static struct config config;
static struct persist *persist;
static struct metrics metrics;
static struct rig_shard shard;
static struct persist_lane *lanes[1] = {&shard.lane};

/* The user of the last reply. */
static struct {
    char user_id[65];
    char username[129];
    char display_name[257];
    uint64_t created_ms;
} user;

static void open_persist(void)
{
    char why[512] = "";

    config_defaults(&config);
    (void)snprintf(config.server_data, sizeof(config.server_data), "%s", directory);
    config.persist_ring_bytes = RIG_RING_BYTES;
    config.password_queue = QUEUE;
    config.password_workers = 1;
    CHECK(persist_open(&config, &persist, why, sizeof(why)) == 0);
    rig_shard_open(&shard, RIG_RING_BYTES);
    CHECK(persist_start(persist, lanes, 1, &metrics) == 0);
    rig_shard_enable(&shard, persist);
}

static void close_persist(void)
{
    persist_close(persist);
    rig_shard_close(&shard);
}

static void begin_test(void)
{
    rig_make(directory);
    open_persist();
}

static void end_test(void)
{
    close_persist();
    rig_remove(directory);
}

static const char *copy(char *to, size_t capacity, const char *from, uint32_t size)
{
    CHECK(size < capacity);
    memcpy(to, from, size);
    to[size] = '\0';
    return from + size;
}

/* Takes the next reply, about a user: its status; user holds the rest. */
static int take_user(uint64_t token)
{
    uint32_t size;
    const struct persist_user *reply = rig_reply(&shard, &size);
    const char *at = (const char *)(reply + 1);
    const int status = reply->head.status;

    CHECK(reply->head.op == PERSIST_USER && reply->head.token == token);
    CHECK(reply->password_bytes == 0);
    at = copy(user.user_id, sizeof(user.user_id), at, reply->user_bytes);
    at = copy(user.username, sizeof(user.username), at, reply->username_bytes);
    at = copy(user.display_name, sizeof(user.display_name), at, reply->display_bytes);
    CHECK(at == (const char *)reply + size);
    user.created_ms = reply->created_ms;
    rig_next(&shard);
    return status;
}

static int ask(enum persist_op op, const char *user_id, const char *username, const char *password)
{
    rig_ask_user(&shard, op, user_id, username, password,
                 op == PERSIST_REGISTER ? "Ann the First" : "");
    rig_publish(&shard);
    return take_user(shard.token);
}

static void user_signs_up_and_in(void)
{
    char user_id[65];

    begin_test();
    CHECK(ask(PERSIST_REGISTER, "", "Ann", "secret") == 0);
    CHECK(strlen(user.user_id) == 22 && strspn(user.user_id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                             "abcdefghijklmnopqrstuvwxyz"
                                                             "0123456789") == 22);
    CHECK(strcmp(user.username, "Ann") == 0 && strcmp(user.display_name, "Ann the First") == 0);
    CHECK(user.created_ms > UINT64_C(1700000000000));
    memcpy(user_id, user.user_id, sizeof(user_id));

    CHECK(ask(PERSIST_REGISTER, "", "aNN", "other") == -EEXIST); /* whatever the case */
    CHECK(ask(PERSIST_LOGIN, "", "ANN", "secret") == 0);
    CHECK(strcmp(user.user_id, user_id) == 0 && strcmp(user.username, "Ann") == 0);
    CHECK(ask(PERSIST_LOGIN, "", "Ann", "Secret") == -EACCES);
    CHECK(strlen(user.user_id) == 0); /* a refusal tells nothing */
    CHECK(ask(PERSIST_LOGIN, "", "Bea", "secret") == -EACCES);
    CHECK(ask(PERSIST_USER_GET, user_id, "", "") == 0);
    CHECK(strcmp(user.username, "Ann") == 0);
    close_persist();
    open_persist();
    CHECK(ask(PERSIST_LOGIN, "", "ann", "secret") == 0);
    CHECK(strcmp(user.user_id, user_id) == 0);
    end_test();
}

static void misshapen_sign_ups_are_refused(void)
{
    static char longest[1026];

    begin_test();
    CHECK(ask(PERSIST_REGISTER, "", "A", "secret") == -EINVAL);
    CHECK(ask(PERSIST_REGISTER, "",
              "A\xff"
              "B",
              "secret") == -EINVAL);
    CHECK(ask(PERSIST_REGISTER, "", " Ann", "secret") == -EINVAL);
    CHECK(ask(PERSIST_REGISTER, "", "Ann", "") == -EINVAL);
    memset(longest, 'p', 1025);
    CHECK(ask(PERSIST_REGISTER, "", "Ann", longest) == -EINVAL);
    CHECK(ask(PERSIST_LOGIN, "", "Ann", longest) == -EINVAL);
    CHECK(ask(PERSIST_LOGIN, "", longest, "secret") == -EACCES);
    CHECK(ask(PERSIST_USER_ENSURE, "", "Ann", "") == -EINVAL);
    CHECK(ask(PERSIST_USER_ENSURE, "u\n1", "Ann", "") == -EINVAL);
    CHECK(ask(PERSIST_USER_GET, "", "", "") == -ENOENT);
    longest[1024] = '\0';
    CHECK(ask(PERSIST_REGISTER, "", "Ann", longest) == 0);
    CHECK(ask(PERSIST_LOGIN, "", "Ann", longest) == 0);
    end_test();
}

static void two_who_want_one_name_at_once_do_not_both_get_it(void)
{
    begin_test();
    rig_ask_user(&shard, PERSIST_REGISTER, "", "Ann", "one", "");
    rig_ask_user(&shard, PERSIST_REGISTER, "", "ann", "two", "");
    rig_publish(&shard);
    CHECK(take_user(shard.token - 1) == 0);
    CHECK(take_user(shard.token) == -EEXIST);
    CHECK(ask(PERSIST_LOGIN, "", "Ann", "one") == 0);
    CHECK(ask(PERSIST_LOGIN, "", "Ann", "two") == -EACCES);
    end_test();
}

static void full_hash_queue_refuses_at_once(void)
{
    int refused = 0;

    begin_test();
    for (int i = 0; i < 3 * QUEUE; i++) {
        rig_ask_user(&shard, PERSIST_LOGIN, "", "nobody", "secret", "");
    }
    rig_publish(&shard);
    for (int i = 0; i < 3 * QUEUE; i++) { /* refusals overtake those that are hashed */
        uint32_t size;
        const struct persist_head *reply = rig_reply(&shard, &size);
        CHECK(reply->status == -EAGAIN || reply->status == -EACCES);
        refused += reply->status == -EAGAIN;
        rig_next(&shard);
    }
    CHECK(refused >= 3 * QUEUE - QUEUE - 2 && refused <= 3 * QUEUE - QUEUE);
    CHECK(ask(PERSIST_LOGIN, "", "nobody", "secret") == -EACCES); /* all jobs are free again */
    end_test();
}

static void token_brings_its_user(void)
{
    begin_test();
    CHECK(ask(PERSIST_USER_ENSURE, "sub-1", "Ann", "") == 0);
    CHECK(strcmp(user.user_id, "sub-1") == 0 && strcmp(user.username, "Ann") == 0);
    CHECK(ask(PERSIST_USER_ENSURE, "sub-1", "Other", "") == 0);
    CHECK(strcmp(user.username, "Ann") == 0); /* the stored one */
    CHECK(ask(PERSIST_USER_ENSURE, "sub-2", "ANN", "") == 0);
    CHECK(strlen(user.username) == 8 && memcmp(user.username, "ANN-", 4) == 0);
    CHECK(ask(PERSIST_USER_ENSURE, "sub-3", "", "") == 0);
    CHECK(strlen(user.username) == 9 && memcmp(user.username, "user-", 5) == 0);
    CHECK(ask(PERSIST_LOGIN, "", "Ann", "x") == -EACCES); /* has no password at all */
    CHECK(ask(PERSIST_REGISTER, "", "ann", "x") == -EEXIST);

    /* Twice in one transaction. */
    rig_ask_user(&shard, PERSIST_USER_ENSURE, "sub-4", "Dora", "", "");
    rig_ask_user(&shard, PERSIST_USER_ENSURE, "sub-4", "Dora", "", "");
    rig_publish(&shard);
    CHECK(take_user(shard.token - 1) == 0 && strcmp(user.username, "Dora") == 0);
    CHECK(take_user(shard.token) == 0 && strcmp(user.username, "Dora") == 0);
    end_test();
}

static void crowd_is_let_in_by_few_commits(void)
{
    char user_id[32];
    char name[32];
    uint32_t taken = 0;

    begin_test();
    metrics = (struct metrics){0};
    const uint64_t begin_ns = os_now_ns();
    for (uint32_t i = 0; i < CROWD; i++) {
        (void)snprintf(user_id, sizeof(user_id), "crowd-%u", i);
        (void)snprintf(name, sizeof(name), "name-%u", i);
        rig_ask_user(&shard, PERSIST_USER_ENSURE, user_id, name, "", "");
        if (i % 100 == 99) {
            rig_publish(&shard);
        }
        for (uint32_t size; spsc_peek(&shard.lane.replies, &size) != NULL;) {
            CHECK(take_user(++taken) == 0);
        }
    }
    while (taken < CROWD) {
        CHECK(take_user(++taken) == 0); /* in the order in which they were asked */
    }
    CHECK(metrics_get(&metrics.persist_batches_total) < CROWD / 20);
    printf("%u users in %.2f s\n", CROWD, (double)(os_now_ns() - begin_ns) / 1e9);
    CHECK(ask(PERSIST_USER_GET, "crowd-4711", "", "") == 0);
    CHECK(strcmp(user.username, "name-4711") == 0);
    end_test();
}

int main(void)
{
    user_signs_up_and_in();
    misshapen_sign_ups_are_refused();
    two_who_want_one_name_at_once_do_not_both_get_it();
    full_hash_queue_refuses_at_once();
    token_brings_its_user();
    crowd_is_let_in_by_few_commits();
    puts("6 passed, 0 failed");
    return 0;
}
