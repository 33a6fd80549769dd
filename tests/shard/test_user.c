/*
 * test_user.c - a user is one item however many hold it, stays after the last has let go, and makes
 *               place when another needs it; never while somebody holds it.
 *
 * Method: a small pool under a random walk of takes and gives, against plain counts.
 */
#include "tests/shard/shard_rig.h"

enum { USERS = 32, IDS = 100, STEPS = 40000 };

static void begin(void)
{
    rig_config();
    rig.config.limits_connections = USERS - 4; /* and a quarter of 16 members */
    rig.config.limits_members = 16;
    rig_begin();
    CHECK(rig.shard.users.capacity == USERS);
}

static struct slice id_of(uint32_t number, char text[16])
{
    return (struct slice){text, (uint32_t)snprintf(text, 16, "user%u", number)};
}

static void a_walk_of_takes_and_gives_keeps_who_is_held(void)
{
    static struct user *users[IDS];
    static uint32_t refs[IDS];
    char text[16];
    uint32_t held = 0;
    uint32_t refused = 0;
    begin();
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint32_t number = (uint32_t)(disk_random() % IDS);
        const struct slice id = id_of(number, text);
        if (refs[number] > 0 && disk_random() % 5 < 3) {
            user_give(&rig.shard, users[number]);
            held -= --refs[number] == 0;
            continue;
        }
        struct user *user = user_take(&rig.shard, id, id);
        CHECK((user != NULL) == (refs[number] > 0 || held < USERS));
        if (user == NULL) {
            refused++;
            continue;
        }
        CHECK(slice_equal(user_id(user), id) && slice_equal(user_name(user), id));
        CHECK(refs[number] == 0 || user == users[number]);
        users[number] = user;
        held += refs[number]++ == 0;
        CHECK(user->refs == refs[number]);
        CHECK(user_at(&rig.shard, user_index(&rig.shard, user)) == user);
    }
    CHECK(refused > 0 && refused == metrics_get(&rig.shard.metrics->pool_exhausted_total_users));
    rig_end();
}

static void one_who_comes_back_is_still_known_unless_his_place_was_needed(void)
{
    char text[16];
    begin();
    struct user *first = user_take(&rig.shard, SLICE("first"), SLICE("First"));
    user_set_name(first, SLICE("The First"));
    first->known = true;
    user_give(&rig.shard, first);
    first = user_take(&rig.shard, SLICE("first"), SLICE("other"));
    CHECK(first->known && slice_equal(user_name(first), SLICE("The First")));
    user_give(&rig.shard, first);
    for (uint32_t i = 0; i < USERS - 1; i++) { /* the pool is full now, all idle */
        user_give(&rig.shard, user_take(&rig.shard, id_of(i, text), SLICE("")));
    }
    CHECK(rig.shard.users.used == USERS);
    user_give(&rig.shard, user_take(&rig.shard, SLICE("new"), SLICE("")));
    CHECK(rig.shard.users.used == USERS);
    first = user_take(&rig.shard, SLICE("first"), SLICE("again")); /* it was the oldest */
    CHECK(!first->known && slice_equal(user_name(first), SLICE("again")));
    rig_end();
}

static void an_id_out_of_bounds_is_nobody(void)
{
    char text[USER_ID_MAX + 1];
    memset(text, 'x', sizeof(text));
    begin();
    CHECK(user_take(&rig.shard, SLICE(""), SLICE("x")) == NULL);
    CHECK(user_take(&rig.shard, (struct slice){text, USER_ID_MAX + 1}, SLICE("x")) == NULL);
    CHECK(user_take(&rig.shard, (struct slice){text, USER_ID_MAX}, SLICE("x")) != NULL);
    CHECK(rig.shard.users.used == 1);
    rig_end();
}

int main(void)
{
    a_walk_of_takes_and_gives_keeps_who_is_held();
    one_who_comes_back_is_still_known_unless_his_place_was_needed();
    an_id_out_of_bounds_is_nobody();
    puts("3 passed, 0 failed");
    return 0;
}
