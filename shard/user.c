/* user.c - see user.h. */
#include "shard/user.h"

#include "core/check.h"
#include "shard/shard.h"

void user_init(struct shard *shard)
{
    struct user_table *table = &shard->user_table;
    const uint32_t capacity = shard->connections_max + (uint32_t)shard->config->limits_members / 4;
    const uint32_t size = pool_buckets(capacity);

    pool_init(&shard->users, &shard->plan, "users", sizeof(struct user), capacity);
    table->buckets = mem_reserve(&shard->plan, "user table", sizeof(uint32_t), size);
    table->mask = size - 1;
    table->idle_first = table->idle_last = POOL_NONE;
}

/* Buckets hold index + 1, so that fresh memory is an empty table. */
static uint32_t *bucket_of(struct shard *shard, struct slice id)
{
    const uint64_t hash = hash_bytes(&shard->hash_key, id.data, id.size);
    return &shard->user_table.buckets[hash & shard->user_table.mask];
}

uint32_t user_index(const struct shard *shard, const struct user *user)
{
    return pool_index(&shard->users, user);
}

struct user *user_at(const struct shard *shard, uint32_t index)
{
    return pool_at(&shard->users, index);
}

static void idle_remove(struct shard *shard, struct user *user)
{
    struct user_table *table = &shard->user_table;
    *(user->idle_previous != POOL_NONE ? &user_at(shard, user->idle_previous)->idle_next
                                       : &table->idle_first) = user->idle_next;
    *(user->idle_next != POOL_NONE ? &user_at(shard, user->idle_next)->idle_previous
                                   : &table->idle_last) = user->idle_previous;
}

static void idle_append(struct shard *shard, struct user *user)
{
    struct user_table *table = &shard->user_table;
    const uint32_t index = user_index(shard, user);
    user->idle_next = POOL_NONE;
    user->idle_previous = table->idle_last;
    *(table->idle_last != POOL_NONE ? &user_at(shard, table->idle_last)->idle_next
                                    : &table->idle_first) = index;
    table->idle_last = index;
}

static struct user *find(struct shard *shard, struct slice id)
{
    for (uint32_t next = *bucket_of(shard, id); next != 0;) {
        struct user *user = user_at(shard, next - 1);
        if (slice_equal(user_id(user), id)) {
            return user;
        }
        next = user->hash_next;
    }
    return NULL;
}

static void forget_oldest_idle(struct shard *shard)
{
    struct user *user = user_at(shard, shard->user_table.idle_first);
    uint32_t *link = bucket_of(shard, user_id(user));
    const uint32_t self = user_index(shard, user) + 1;
    while (*link != self) {
        link = &user_at(shard, *link - 1)->hash_next;
    }
    *link = user->hash_next;
    idle_remove(shard, user);
    pool_give(&shard->users, user);
}

static struct user *make(struct shard *shard, struct slice id, struct slice name)
{
    struct user *user = pool_take(&shard->users);
    if (user == NULL && shard->user_table.idle_first != POOL_NONE) {
        forget_oldest_idle(shard);
        user = pool_take(&shard->users);
    }
    if (user == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_users);
        return NULL;
    }
    uint32_t *bucket = bucket_of(shard, id);
    user->hash_next = *bucket;
    *bucket = user_index(shard, user) + 1;
    user->refs = 1;
    user->known = false;
    user->id_size = (uint8_t)id.size;
    memcpy(user->id, id.data, id.size);
    user_set_name(user, name);
    return user;
}

struct user *user_take(struct shard *shard, struct slice id, struct slice name)
{
    if (id.size == 0 || id.size > USER_ID_MAX) {
        return NULL;
    }
    struct user *user = find(shard, id);
    if (user == NULL) {
        return make(shard, id, name);
    }
    if (user->refs++ == 0) {
        idle_remove(shard, user);
    }
    return user;
}

void user_give(struct shard *shard, struct user *user)
{
    CHECK(user->refs > 0);
    if (--user->refs == 0) {
        idle_append(shard, user);
    }
}

void user_set_name(struct user *user, struct slice name)
{
    user->name_size = (uint8_t)(name.size < USERNAME_MAX ? name.size : USERNAME_MAX);
    if (user->name_size > 0) {
        memcpy(user->name, name.data, user->name_size);
    }
}
