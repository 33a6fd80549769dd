/*
 * user.h - users that this shard has to do with: each once, by reference count.
 *
 * Threads:    its shard's.
 * Ownership:  user_take adds a reference, user_give drops it. Without references a user stays
 *             until its place is needed, so that one who reconnects need not be looked up in the
 *             store.
 */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct shard;

enum { USER_ID_MAX = 64, USERNAME_MAX = 128 };

struct user {
    uint32_t pool_link;
    uint32_t refs;
    uint32_t hash_next;
    uint32_t idle_next, idle_previous; /* without references, oldest first */
    bool known;                        /* the store has it, and username is the stored one */
    uint8_t id_size, name_size;
    char id[USER_ID_MAX];
    char name[USERNAME_MAX];
};

struct user_table {
    uint32_t *buckets;
    uint32_t mask;
    uint32_t idle_first, idle_last;
};

void user_init(struct shard *shard);

/* The user with that id, made if need be, with one more reference; NULL: the pool is empty, or the
 * id is not 1-64 bytes. name: used when the user is made and not known otherwise. */
struct user *user_take(struct shard *shard, struct slice id, struct slice name);
void user_give(struct shard *shard, struct user *user);
void user_set_name(struct user *user, struct slice name);
uint32_t user_index(const struct shard *shard, const struct user *user);
struct user *user_at(const struct shard *shard, uint32_t index);

static inline struct slice user_id(const struct user *user)
{
    return (struct slice){user->id, user->id_size};
}

static inline struct slice user_name(const struct user *user)
{
    return (struct slice){user->name, user->name_size};
}
