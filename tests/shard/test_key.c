/*
 * test_key.c - a room knows exactly its last keyed messages (K1), and no other room's.
 *
 * Method: a long random walk over rooms of very different pace, against a plain list of what each
 * should know. Digests share their low bits, so that they share buckets.
 */
#include "tests/shard/shard_rig.h"

enum { ROOMS = 4, KEPT = 50, STEPS = 20000, DIGESTS = 400 };

static struct room *rooms[ROOMS];
static uint64_t last_seq[ROOMS];

/* The key of a room's seq: the same digests return in every room. */
static struct hash128 digest_of(uint64_t seq)
{
    struct hash128 digest = {{0}};
    digest.bytes[0] = (uint8_t)(seq % 4); /* four buckets for all */
    memcpy(digest.bytes + 4, &seq, sizeof(seq));
    return digest;
}

static void check_known(uint32_t number)
{
    for (uint64_t seq = 1; seq <= last_seq[number] + 2; seq++) {
        const struct key *key = key_find(&rig.shard, rooms[number], digest_of(seq));
        const bool kept = seq <= last_seq[number] && last_seq[number] - seq < KEPT;
        CHECK((key != NULL) == kept); /* K1 */
        CHECK(key == NULL ||
              (key->seq == seq && key->at_ms == seq * 3 && key->content_digest == seq * 7));
    }
}

static void begin(uint64_t kept)
{
    static const char *const names[ROOMS] = {"a", "b", "c", "d"};
    rig_config();
    rig.config.limits_idempotency_keys = kept;
    rig.config.limits_keys = ROOMS * KEPT;
    rig_begin();
    for (uint32_t i = 0; i < ROOMS; i++) {
        rooms[i] = rig_room(names[i], "olga");
        last_seq[i] = 0;
    }
}

static void the_last_keys_of_each_room_are_known_and_no_others(void)
{
    begin(KEPT);
    for (uint32_t i = 0; i < STEPS; i++) {
        const uint64_t pace = disk_random() % 16;
        const uint32_t number = pace < 12 ? 0 : pace < 14 ? 1 : pace < 15 ? 2 : 3;
        if (last_seq[number] == DIGESTS) {
            continue;
        }
        const uint64_t seq = ++last_seq[number];
        CHECK(key_add(&rig.shard, rooms[number], digest_of(seq), seq * 7, seq, seq * 3) != NULL);
        if (i % 37 == 0) {
            check_known(number);
        }
    }
    for (uint32_t i = 0; i < ROOMS; i++) {
        check_known(i);
        CHECK(rooms[i]->keys.count == KEPT);
    }
    CHECK(rig.shard.keys.used == ROOMS * KEPT);
    for (uint32_t i = 0; i < ROOMS; i++) {
        key_forget_all(&rig.shard, rooms[i]);
        CHECK(rooms[i]->keys.count == 0 && rooms[i]->keys.first == 0 && rooms[i]->keys.last == 0);
        CHECK(key_find(&rig.shard, rooms[i], digest_of(DIGESTS)) == NULL);
        last_seq[i] = 0;
    }
    CHECK(rig.shard.keys.used == 0);
    rig_end();
}

static void one_room_leaves_the_others_keys_alone(void)
{
    begin(KEPT);
    for (uint64_t seq = 1; seq <= 30; seq++) {
        for (uint32_t i = 0; i < ROOMS; i++) {
            last_seq[i] = seq;
            CHECK(key_add(&rig.shard, rooms[i], digest_of(seq), seq * 7, seq, seq * 3) != NULL);
        }
    }
    key_forget_all(&rig.shard, rooms[1]);
    last_seq[1] = 0;
    for (uint32_t i = 0; i < ROOMS; i++) {
        check_known(i);
    }
    rig_end();
}

static void an_empty_pool_says_so_and_changes_nothing(void)
{
    begin(1000); /* more than the pool has */
    uint64_t seq = 0;
    while (key_add(&rig.shard, rooms[0], digest_of(seq + 1), 1, seq + 1, 1) != NULL) {
        seq++;
    }
    CHECK(seq == ROOMS * KEPT && rooms[0]->keys.count == seq);
    CHECK(key_find(&rig.shard, rooms[0], digest_of(1)) != NULL);
    CHECK(key_find(&rig.shard, rooms[0], digest_of(seq + 1)) == NULL);
    rig_end();
}

int main(void)
{
    the_last_keys_of_each_room_are_known_and_no_others();
    one_room_leaves_the_others_keys_alone();
    an_empty_pool_says_so_and_changes_nothing();
    puts("3 passed, 0 failed");
    return 0;
}
