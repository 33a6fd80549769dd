/*
 * mongo_documents.h - documents put into a database of a test's own as store_mongo.h describes
 * them, and asking for what was put.
 *
 * So that a test says which documents it means, damaged ones among them, and needs nothing of the
 * writing half. The validators, which would refuse damaged ones, are switched off first.
 */
#pragma once

#include "core/config.h"
#include "core/record.h"
#include "tests/persist/mongo_rig.h"
#include "tests/persist/store_rig.h"

#include <errno.h>

enum { EPOCH = 77 };

static struct mongo_rig rig;
static struct store_mongo *store;
static struct mongo_client *client;

/* --- the database --- */

static inline void validation_off(const char *collection)
{
    bson_t command = BSON_INITIALIZER;
    struct mongo_error error = {0};

    BCON_APPEND(&command, "collMod", BCON_UTF8(collection), "validationLevel", "off");
    if (mongo_command(client, &command, true, NULL, NULL, &error) < 0) {
        (void)fprintf(stderr, "collMod %s: %s\n", collection, error.text);
        CHECK(error.error == 0);
    }
    bson_destroy(&command);
}

static inline void begin_test(void)
{
    static const char *const collections[] = {"events", "rooms", "members", "users", "quarantine"};

    mongo_rig_store(&rig, 2);
    store = rig.store;
    client = mongo_take(rig.mongo);
    for (int i = 0; i < 5; i++) {
        validation_off(collections[i]);
    }
}

static inline void end_test(void)
{
    mongo_give(rig.mongo, client);
    mongo_rig_close(&rig);
}

static inline void refused(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    (void)context;
    (void)fprintf(stderr, "document %u: %d, code %d: %s\n", index, error, code, text);
    CHECK(error == 0);
}

static inline void put_all(const char *collection, bson_t **documents, uint32_t count)
{
    struct mongo_error error = {0};
    const int result = mongo_insert(client, collection, (const bson_t *const *)documents, count,
                                    refused, NULL, &error);

    CHECK(result == 0);
    for (uint32_t i = 0; i < count; i++) {
        bson_destroy(documents[i]);
    }
}

static inline void put(const char *collection, bson_t *document)
{
    put_all(collection, &document, 1);
}

static inline bson_value_t event_id(const char *room, uint64_t seq,
                                    uint8_t bytes[STORE_MONGO_ID_MAX])
{
    const size_t size = strlen(room);
    const uint64_t swapped = __builtin_bswap64(seq);

    memcpy(bytes, room, size);
    memcpy(bytes + size, &swapped, sizeof(swapped));
    bson_value_t id = {.value_type = BSON_TYPE_BINARY};
    id.value.v_binary.subtype = BSON_SUBTYPE_BINARY;
    id.value.v_binary.data = bytes;
    id.value.v_binary.data_len = (uint32_t)size + 8;
    return id;
}

/* An event whose body tells its room and seq; key > 0: a keyed one. */
static inline bson_t *make_event(const char *room, uint64_t seq, uint64_t key)
{
    uint8_t bytes[STORE_MONGO_ID_MAX];
    char body[64];
    struct record record = rig_message(body, room, EPOCH, seq);
    const bson_value_t id = event_id(room, seq, bytes);
    bson_t *document = bson_new();

    CHECK(bson_append_value(document, "_id", -1, &id));
    BCON_APPEND(document, "room_id", BCON_UTF8(room), "seq", BCON_INT64((int64_t)seq), "epoch",
                BCON_INT64(EPOCH), "mid", BCON_INT64((int64_t)seq), "kind", BCON_INT64(1), "at",
                BCON_INT64((int64_t)record.at_ms), "user_id", "u1", "body", BCON_UTF8(body));
    if (key > 0) {
        rig_key(&record, key);
        BCON_APPEND(document, "key",
                    BCON_BIN(BSON_SUBTYPE_BINARY, record.key_digest, sizeof(record.key_digest)),
                    "digest", BCON_INT64((int64_t)record.content_digest));
    }
    return document;
}

static inline void put_event(const char *room, uint64_t seq)
{
    put("events", make_event(room, seq, 0));
}

static inline void put_events(const char *room, uint64_t from, uint64_t to)
{
    bson_t *documents[MONGO_BULK_MAX];
    uint32_t count = 0;

    for (uint64_t seq = from; seq <= to; seq++) {
        documents[count++] = make_event(room, seq, 0);
        if (count == MONGO_BULK_MAX || seq == to) {
            put_all("events", documents, count);
            count = 0;
        }
    }
}

/* The same message, where refused ones are kept. suffix tells two of one seq from each other. */
static inline void put_quarantined(const char *room, uint64_t seq, const char *suffix)
{
    uint8_t bytes[512];
    char id[160];
    char body[64];
    const struct record record = rig_message(body, room, EPOCH, seq);

    record_encode(&record, bytes);
    const int id_size = snprintf(id, sizeof(id), "%s/%lu/%s", room, (unsigned long)seq, suffix);
    put("quarantine",
        BCON_NEW("_id", BCON_BIN(BSON_SUBTYPE_BINARY, (const uint8_t *)id, (uint32_t)id_size),
                 "reason", "conflict", "text", "a test's", "record",
                 BCON_BIN(BSON_SUBTYPE_BINARY, bytes, record_size(&record)), "room_id",
                 BCON_UTF8(room), "seq", BCON_INT64((int64_t)seq), "at", BCON_INT64(1)));
}

static inline void put_member(const char *room, const char *user, int role, uint64_t seq)
{
    char id[160];
    char name[80];

    (void)snprintf(id, sizeof(id), "%s/%s", room, user);
    (void)snprintf(name, sizeof(name), "name of %s", user);
    put("members", BCON_NEW("_id", BCON_UTF8(id), "room_id", BCON_UTF8(room), "user_id",
                            BCON_UTF8(user), "username", BCON_UTF8(name), "role", BCON_INT64(role),
                            "seq", BCON_INT64((int64_t)seq), "joined_at", BCON_INT64(1)));
}

/* One field of one document becomes what nobody of ours wrote. */
static inline void spoil(const char *collection, const bson_t *filter, bson_t *value)
{
    bson_t update = BSON_INITIALIZER;
    struct mongo_error error = {0};

    BCON_APPEND(&update, "$set", BCON_DOCUMENT(value));
    const struct mongo_update one = {.filter = filter, .update = &update};
    CHECK(mongo_update(client, collection, &one, 1, refused, NULL, &error) == 0);
    bson_destroy(&update);
    bson_destroy(value);
}

/* --- doing and asking --- */

static inline int create_named(const char *room_id, const char *name, uint8_t visibility)
{
    const struct store_room room = {.epoch = EPOCH,
                                    .created_ms = 5,
                                    .members_max = 9,
                                    .visibility = visibility,
                                    .durability = CONFIG_DURABILITY_JOURNAL,
                                    .room_id = rig_slice(room_id),
                                    .name = rig_slice(name)};
    return store_mongo_room_create(store, &room, SLICE("owner"), SLICE("Olga"));
}

static inline void make_room(const char *room_id)
{
    CHECK(create_named(room_id, "The Room", 1) == 0);
}

/* What a reading gave, as text: "1 2 3". */
struct shown {
    char text[4096];
    uint32_t size;
    uint32_t count;
    uint32_t stop_after; /* 0: never */
    int error;           /* 0: none */
    const char *room_id;
};

static inline int show(struct shown *shown, const char *text)
{
    const size_t room = sizeof(shown->text) - shown->size;
    const int size =
        snprintf(shown->text + shown->size, room, "%s%s", shown->count > 0 ? " " : "", text);
    CHECK(size >= 0 && (size_t)size < room);
    shown->size += (uint32_t)size;
    shown->count++;
    return shown->error < 0 ? shown->error : shown->count == shown->stop_after;
}

static inline bool is(const char *shown, const char *expected)
{
    if (strcmp(shown, expected) != 0) {
        (void)fprintf(stderr, "shown \"%s\", expected \"%s\"\n", shown, expected);
    }
    return strcmp(shown, expected) == 0;
}
