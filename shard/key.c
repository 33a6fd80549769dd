/* key.c - see key.h. */
#include "shard/key.h"

#include "core/check.h"
#include "shard/shard.h"

void key_init(struct shard *shard)
{
    const uint32_t capacity = (uint32_t)shard->config->limits_keys;
    const uint32_t size = pool_buckets(capacity);
    pool_init(&shard->keys, &shard->plan, "idempotency keys", sizeof(struct key), capacity);
    shard->key_table.buckets = mem_reserve(&shard->plan, "key table", sizeof(uint32_t), size);
    shard->key_table.mask = size - 1;
}

/* The digest is of a cryptographic hash already: any of its bits do. Buckets hold index + 1. */
static uint32_t *bucket_of(struct shard *shard, struct hash128 digest)
{
    uint32_t bits;
    memcpy(&bits, digest.bytes, sizeof(bits));
    return &shard->key_table.buckets[bits & shard->key_table.mask];
}

struct key *key_find(struct shard *shard, const struct room *room, struct hash128 digest)
{
    const uint32_t index = room_index(shard, room);
    for (uint32_t next = *bucket_of(shard, digest); next != 0;) {
        struct key *key = pool_at(&shard->keys, next - 1);
        if (key->room == index && hash128_equal(key->digest, digest)) {
            return key;
        }
        next = key->hash_next;
    }
    return NULL;
}

static void forget_oldest(struct shard *shard, struct room *room)
{
    struct key *key = pool_at(&shard->keys, room->keys.first - 1);
    const uint32_t self = room->keys.first;
    uint32_t *link = bucket_of(shard, key->digest);
    while (*link != self) {
        link = &((struct key *)pool_at(&shard->keys, *link - 1))->hash_next;
    }
    *link = key->hash_next;
    room->keys.first = key->room_next;
    room->keys.last = room->keys.first == 0 ? 0 : room->keys.last;
    room->keys.count--;
    pool_give(&shard->keys, key);
}

struct key *key_add(struct shard *shard, struct room *room, struct hash128 digest,
                    uint64_t content_digest, uint64_t seq, uint64_t at_ms)
{
    if (room->keys.count >= shard->config->limits_idempotency_keys) { /* K1 */
        forget_oldest(shard, room);
    }
    struct key *key = pool_take(&shard->keys);
    if (key == NULL) {
        return NULL;
    }
    uint32_t *bucket = bucket_of(shard, digest);
    const uint32_t self = pool_index(&shard->keys, key) + 1;
    *key = (struct key){.hash_next = *bucket,
                        .room = room_index(shard, room),
                        .digest = digest,
                        .content_digest = content_digest,
                        .seq = seq,
                        .at_ms = at_ms};
    *bucket = self;
    if (room->keys.last != 0) {
        ((struct key *)pool_at(&shard->keys, room->keys.last - 1))->room_next = self;
    } else {
        room->keys.first = self;
    }
    room->keys.last = self;
    room->keys.count++;
    return key;
}

void key_forget_all(struct shard *shard, struct room *room)
{
    while (room->keys.count > 0) {
        forget_oldest(shard, room);
    }
}
