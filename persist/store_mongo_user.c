/*
 * store_mongo_user.c - the MongoDB store: rooms and users made, accounts read.
 *
 * A document that is made is one insert; the unique indexes (_id, and folded of users) say whether
 * it is taken, never a look before it. An insert whose reply was lost is -EAGAIN, and made again
 * then -EEXIST if it had arrived.
 */
#include "persist/store_mongo_row.h"

enum {
    USER_NAME_MAX = 128, /* bytes, as in a record */
    DISPLAY_NAME_MAX = 512,
    PASSWORD_MAX = 512, /* of a hash as text */
};

static void keep_refusal(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    struct store_mongo *store = context;

    (void)index; /* there is one document */
    store->error = (struct mongo_error){.error = error, .code = code};
    (void)snprintf(store->error.text, sizeof(store->error.text), "%s", text);
}

/* Inserts one document: 0, -EEXIST, or another -errno with the store's words. */
static int insert_one(struct store_mongo *store, const char *collection, const bson_t *document,
                      const char *what)
{
    store->error = (struct mongo_error){0};
    int error =
        mongo_insert(store->client, collection, &document, 1, keep_refusal, store, &store->error);
    if (error == 0) {
        error = store->error.error; /* the document's own */
    }
    return error < 0 && error != -EEXIST ? store_mongo_fail(store, error, what) : error;
}

int store_mongo_room_create(struct store_mongo *store, const struct store_room *room,
                            struct slice user_id, struct slice username)
{
    bson_t document = BSON_INITIALIZER;

    store_mongo_put_text(&document, "_id", room->room_id);
    store_mongo_put_number(&document, "epoch", room->epoch);
    store_mongo_put_text(&document, "name", room->name);
    store_mongo_put_number(&document, "visibility", room->visibility);
    store_mongo_put_number(&document, "durability", room->durability);
    store_mongo_put_number(&document, "members_max", room->members_max);
    store_mongo_put_number(&document, "member_count", 1); /* its owner */
    store_mongo_put_number(&document, "created_at", room->created_ms);
    store_mongo_put_text(&document, "owner_id", user_id);
    store_mongo_put_text(&document, "owner_name", username);
    const int error = insert_one(store, STORE_MONGO_ROOMS, &document, "make a room");
    bson_destroy(&document);
    return error;
}

int store_mongo_user_create(struct store_mongo *store, const struct store_user *user)
{
    bson_t document = BSON_INITIALIZER;

    store_mongo_put_text(&document, "_id", user->user_id);
    store_mongo_put_text(&document, "username", user->username);
    store_mongo_put_text(&document, "folded", user->folded);
    store_mongo_put_text(&document, "display_name", user->display_name);
    store_mongo_put_text(&document, "password", user->password);
    store_mongo_put_number(&document, "created_at", user->created_ms);
    const int error = insert_one(store, STORE_MONGO_USERS, &document, "make a user");
    bson_destroy(&document);
    return error;
}

/* --- accounts read --- */

struct user_reading {
    struct store_mongo *store;
    struct store_user user;
    bool found;
};

static int take_user(void *context, const bson_t *document)
{
    struct user_reading *reading = context;
    struct store_mongo *store = reading->store;
    struct row_fields fields = {.document = document};

    const struct slice user_id = row_text(&fields, "_id", 1, STORE_MONGO_ROOM_MAX);
    const struct slice username = row_text(&fields, "username", 1, USER_NAME_MAX);
    const struct slice display_name = row_text(&fields, "display_name", 0, DISPLAY_NAME_MAX);
    const struct slice password = row_text(&fields, "password", 0, PASSWORD_MAX);
    const uint64_t created_ms = row_number(&fields, "created_at", INT64_MAX);
    const int error = row_damaged(store, STORE_MONGO_USERS, &fields);
    if (error < 0) {
        return error;
    }
    store_mongo_keep_begin(store);
    reading->user = (struct store_user){
        .created_ms = created_ms,
        .user_id = store_mongo_keep(store, user_id),
        .username = store_mongo_keep(store, username),
        .display_name = store_mongo_keep(store, display_name),
        .password = store_mongo_keep(store, password),
    };
    reading->found = true;
    return 1;
}

static int find_user(struct store_mongo *store, const char *field, struct slice value,
                     struct store_user *ret)
{
    struct user_reading reading = {.store = store};
    bson_t filter = BSON_INITIALIZER;
    bson_t options = BSON_INITIALIZER;

    store_mongo_put_text(&filter, field, value);
    store_mongo_put_number(&options, "limit", 1);
    BCON_APPEND(&options, "hint", "{", field, BCON_INT32(1), "}");
    const int error = mongo_find(store->client, STORE_MONGO_USERS, &filter, &options, take_user,
                                 &reading, &store->error);
    bson_destroy(&options);
    bson_destroy(&filter);
    if (error < 0) {
        return store_mongo_fail(store, error, "read a user");
    }
    if (!reading.found) {
        return -ENOENT;
    }
    *ret = reading.user;
    return 0;
}

int store_mongo_user_by_id(struct store_mongo *store, struct slice user_id, struct store_user *ret)
{
    return find_user(store, "_id", user_id, ret);
}

int store_mongo_user_by_name(struct store_mongo *store, struct slice folded, struct store_user *ret)
{
    return find_user(store, "folded", folded, ret);
}
