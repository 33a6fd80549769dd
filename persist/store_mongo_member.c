/*
 * store_mongo_member.c - the MongoDB store: members, as a batch changes them, and how many a room
 *                        has then.
 *
 * A count is taken from the documents and not kept by adding, so that it is right again after any
 * crash and repetition; rooms are counted COUNT_ROOMS at a time, in four round trips.
 */
#include "core/log.h"
#include "persist/store_mongo_batch.h"

#include <errno.h>
#include <string.h>

enum {
    COUNT_ROOMS = 100, /* rooms that are counted by one command */
    MEMBER_ID_MAX = 2 * STORE_MONGO_ROOM_MAX + 1,
};

/* --- members --- */

static bool changes_members(const struct item *item)
{
    return (item->state == SENT || item->state == REFUSED) && item->text &&
           (item->record.kind == RECORD_JOINED || item->record.kind == RECORD_LEFT);
}

static struct slice member_id(struct slice room_id, struct slice user_id, char ret[MEMBER_ID_MAX])
{
    memcpy(ret, room_id.data, room_id.size);
    ret[room_id.size] = '/';
    memcpy(ret + room_id.size + 1, user_id.data, user_id.size);
    return (struct slice){ret, room_id.size + 1 + user_id.size};
}

static bool same_member(const struct record *a, const struct record *b)
{
    return slice_equal(a->room_id, b->room_id) && slice_equal(a->user_id, b->user_id);
}

/* Puts the last change of each member into chosen, and returns how many there are. */
static uint32_t choose_members(struct store_mongo_batch *batch)
{
    char id[MEMBER_ID_MAX];
    uint32_t count = 0;
    uint16_t slot;

    memset(&batch->table, 0, sizeof(batch->table));
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct record *record = &batch->items[i].record;
        if (!changes_members(&batch->items[i])) {
            continue;
        }
        const struct slice name = member_id(record->room_id, record->user_id, id);
        const uint64_t hash = store_mongo_hash(name.data, name.size);
        uint16_t *last = NULL;
        for (uint32_t step = 0;
             (slot = batch->table.slots[store_mongo_table_slot(hash, step)]) != 0; step++) {
            uint16_t *other = &batch->chosen[slot - 1];
            last = same_member(record, &batch->items[*other].record) ? other : last;
        }
        if (last == NULL) {
            batch->chosen[count] = (uint16_t)i;
            store_mongo_table_put(&batch->table, hash, count++);
        } else if (record->seq > batch->items[*last].record.seq) {
            *last = (uint16_t)i;
        }
    }
    return count;
}

static void put_member(bson_t *filter, bson_t *update, const struct record *record)
{
    char id[MEMBER_ID_MAX];
    bson_t part;
    const bool joined = record->kind == RECORD_JOINED;

    store_mongo_put_text(filter, "_id", member_id(record->room_id, record->user_id, id));
    CHECK(BSON_APPEND_DOCUMENT_BEGIN(filter, "seq", &part));
    store_mongo_put_number(&part, "$lt", record->seq);
    CHECK(bson_append_document_end(filter, &part));

    CHECK(BSON_APPEND_DOCUMENT_BEGIN(update, "$set", &part));
    store_mongo_put_text(&part, "room_id", record->room_id);
    store_mongo_put_text(&part, "user_id", record->user_id);
    store_mongo_put_text(&part, "username", record->username);
    store_mongo_put_number(&part, "role", joined ? record->role : ROLE_NONE);
    store_mongo_put_number(&part, "seq", record->seq);
    if (joined) {
        store_mongo_put_number(&part, "joined_at", record->at_ms);
    }
    CHECK(bson_append_document_end(update, &part));
    if (!joined) {
        CHECK(BSON_APPEND_DOCUMENT_BEGIN(update, "$setOnInsert", &part));
        store_mongo_put_number(&part, "joined_at", record->at_ms);
        CHECK(bson_append_document_end(update, &part));
    }
}

/* -EEXIST: the filter did not match because an equal or later change is there (Y2). Any other: the
 * event is stored, and no repetition would mend its member. */
static void member_refused(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    const struct store_mongo_batch *batch = context;

    if (error != -EEXIST) {
        const struct record *record = &batch->items[batch->chosen[index]].record;
        log_error("MongoDB refused a change of members room_id=%.*s seq=%llu code=%d error=\"%s\"",
                  (int)record->room_id.size, record->room_id.data, (unsigned long long)record->seq,
                  (int)code, text);
    }
}

static int write_members(struct store_mongo *store, uint32_t count)
{
    struct store_mongo_batch *batch = store->batch;

    for (uint32_t i = 0; i < count; i++) {
        bson_t *filter = store_mongo_blank(batch, 2 * i);
        bson_t *update = store_mongo_blank(batch, 2 * i + 1);
        put_member(filter, update, &batch->items[batch->chosen[i]].record);
        batch->updates[i] =
            (struct mongo_update){.filter = filter, .update = update, .upsert = true};
    }
    const int error = mongo_update(store->client, STORE_MONGO_MEMBERS, batch->updates, count,
                                   member_refused, batch, &store->error);
    return error < 0 ? store_mongo_fail(store, error, "store members") : 0;
}

/* --- counts --- */

/* Rooms that are counted together. */
struct counting {
    const struct store_mongo_batch *batch;
    uint32_t count;
    uint16_t items[COUNT_ROOMS]; /* one of each room */
    uint64_t members[COUNT_ROOMS];
    bool known[COUNT_ROOMS]; /* the room's document is there */
    bool told[COUNT_ROOMS];  /* a member document says what the owner is */
    uint8_t owner_sizes[COUNT_ROOMS];
    char owners[COUNT_ROOMS][STORE_MONGO_ROOM_MAX];
};

static struct slice counted_room(const struct counting *counting, uint32_t index)
{
    return counting->batch->items[counting->items[index]].record.room_id;
}

static struct slice counted_owner(const struct counting *counting, uint32_t index)
{
    return (struct slice){counting->owners[index], counting->owner_sizes[index]};
}

/* The room among those that are counted, or COUNT_ROOMS. */
static uint32_t find_counted(const struct counting *counting, struct slice room_id)
{
    for (uint32_t i = 0; i < counting->count; i++) {
        if (slice_equal(counted_room(counting, i), room_id)) {
            return i;
        }
    }
    return COUNT_ROOMS;
}

static int take_owner(void *context, const bson_t *document)
{
    struct counting *counting = context;
    const uint32_t index = find_counted(counting, store_mongo_text(document, "_id"));
    const struct slice owner = store_mongo_text(document, "owner_id");

    if (index < COUNT_ROOMS && owner.size <= STORE_MONGO_ROOM_MAX) {
        counting->known[index] = true;
        counting->owner_sizes[index] = (uint8_t)owner.size;
        memcpy(counting->owners[index], owner.data, owner.size);
    }
    return 0;
}

static int take_owner_member(void *context, const bson_t *document)
{
    struct counting *counting = context;
    const uint32_t index = find_counted(counting, store_mongo_text(document, "room_id"));

    if (index < COUNT_ROOMS) {
        counting->told[index] = true;
    }
    return 0;
}

/* Finds documents by _id: those of the rooms, or those of their owners as members. */
static int find_owners(struct store_mongo *store, struct counting *counting, bool members)
{
    char id[MEMBER_ID_MAX];
    char key[12];
    const char *name;
    bson_t filter = BSON_INITIALIZER;
    bson_t options = BSON_INITIALIZER;
    bson_t field;
    bson_t ids;

    CHECK(BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &field));
    CHECK(BSON_APPEND_ARRAY_BEGIN(&field, "$in", &ids));
    for (uint32_t i = 0; i < counting->count; i++) {
        const struct slice room_id = counted_room(counting, i);
        (void)bson_uint32_to_string(i, &name, key, sizeof(key));
        store_mongo_put_text(
            &ids, name, members ? member_id(room_id, counted_owner(counting, i), id) : room_id);
    }
    CHECK(bson_append_array_end(&field, &ids));
    CHECK(bson_append_document_end(&filter, &field));
    BCON_APPEND(&options, "projection", "{", members ? "room_id" : "owner_id", BCON_INT32(1), "}");
    const int error =
        mongo_find(store->client, members ? STORE_MONGO_MEMBERS : STORE_MONGO_ROOMS, &filter,
                   &options, members ? take_owner_member : take_owner, counting, &store->error);
    bson_destroy(&options);
    bson_destroy(&filter);
    return error;
}

static int take_counts(void *context, const bson_t *reply)
{
    struct counting *counting = context;
    bson_iter_t iter;
    bson_iter_t batch;
    bson_iter_t row;
    const uint8_t *bytes;
    uint32_t size;
    bson_t document;

    if (!bson_iter_init(&iter, reply) ||
        !bson_iter_find_descendant(&iter, "cursor.firstBatch", &batch) ||
        !BSON_ITER_HOLDS_ARRAY(&batch) || !bson_iter_recurse(&batch, &row)) {
        return 0;
    }
    while (bson_iter_next(&row)) {
        if (!BSON_ITER_HOLDS_DOCUMENT(&row)) {
            continue;
        }
        bson_iter_document(&row, &size, &bytes);
        if (bson_init_static(&document, bytes, size)) {
            const uint32_t index = find_counted(counting, store_mongo_text(&document, "_id"));
            if (index < COUNT_ROOMS) {
                counting->members[index] = store_mongo_number(&document, "n");
            }
        }
    }
    return 0;
}

/* Counts the documents with a role over the rooms' ranges of members' _id. */
static int count_documents(struct store_mongo *store, struct counting *counting)
{
    bson_t command = BSON_INITIALIZER;
    bson_t ranges = BSON_INITIALIZER;
    bson_t range;
    char key[12];
    const char *name;

    for (uint32_t i = 0; i < counting->count; i++) {
        (void)bson_uint32_to_string(i, &name, key, sizeof(key));
        CHECK(BSON_APPEND_DOCUMENT_BEGIN(&ranges, name, &range));
        store_mongo_put_member_range(&range, "_id", counted_room(counting, i));
        CHECK(bson_append_document_end(&ranges, &range));
    }
    BCON_APPEND(&command, "aggregate", BCON_UTF8(STORE_MONGO_MEMBERS), "pipeline", "[", "{",
                "$match", "{", "$or", BCON_ARRAY(&ranges), "role", "{", "$gt", BCON_INT32(0), "}",
                "}", "}", "{", "$group", "{", "_id", BCON_UTF8("$room_id"), "n", "{", "$sum",
                BCON_INT32(1), "}", "}", "}", "]", "cursor", "{", "batchSize",
                BCON_INT32(COUNT_ROOMS), "}");
    const int error =
        mongo_command(store->client, &command, false, take_counts, counting, &store->error);
    bson_destroy(&ranges);
    bson_destroy(&command);
    return error;
}

static void ignore_refused(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    (void)context, (void)index, (void)error;
    log_error("MongoDB refused a room's member_count code=%d error=\"%s\"", (int)code, text);
}

static int write_counts(struct store_mongo *store, const struct counting *counting)
{
    struct store_mongo_batch *batch = store->batch;
    uint32_t count = 0;
    bson_t part;

    for (uint32_t i = 0; i < counting->count; i++) {
        if (!counting->known[i]) {
            continue; /* deleted, or made by a damsod whose write we do not see yet */
        }
        const bool owner = counting->owner_sizes[i] > 0 && !counting->told[i];
        bson_t *filter = store_mongo_blank(batch, 2 * count);
        bson_t *update = store_mongo_blank(batch, 2 * count + 1);
        store_mongo_put_text(filter, "_id", counted_room(counting, i));
        CHECK(BSON_APPEND_DOCUMENT_BEGIN(update, "$set", &part));
        store_mongo_put_number(&part, "member_count", counting->members[i] + (owner ? 1 : 0));
        CHECK(bson_append_document_end(update, &part));
        batch->updates[count++] = (struct mongo_update){.filter = filter, .update = update};
    }
    return count == 0 ? 0
                      : mongo_update(store->client, STORE_MONGO_ROOMS, batch->updates, count,
                                     ignore_refused, NULL, &store->error);
}

static int count_rooms(struct store_mongo *store, struct counting *counting)
{
    int error = find_owners(store, counting, false);

    error = error == 0 ? find_owners(store, counting, true) : error;
    error = error == 0 ? count_documents(store, counting) : error;
    error = error == 0 ? write_counts(store, counting) : error;
    return error < 0 ? store_mongo_fail(store, error, "count members") : 0;
}

/* The rooms of the chosen members, each once, COUNT_ROOMS at a time. */
static int write_members_counts(struct store_mongo *store, uint32_t count)
{
    struct store_mongo_batch *batch = store->batch;
    struct counting counting = {.batch = batch};
    uint32_t rooms = 0;
    int error = 0;

    /* Rooms to the front of chosen: the one of an item is known already if one before it has it. */
    memset(&batch->table, 0, sizeof(batch->table));
    for (uint32_t i = 0; i < count; i++) {
        const struct slice room_id = batch->items[batch->chosen[i]].record.room_id;
        const uint64_t hash = store_mongo_hash(room_id.data, room_id.size);
        bool known = false;
        uint16_t slot;
        for (uint32_t step = 0;
             (slot = batch->table.slots[store_mongo_table_slot(hash, step)]) != 0; step++) {
            const struct item *other = &batch->items[batch->chosen[slot - 1]];
            known = known || slice_equal(other->record.room_id, room_id);
        }
        if (!known) {
            batch->chosen[rooms] = batch->chosen[i];
            store_mongo_table_put(&batch->table, hash, rooms++);
        }
    }
    for (uint32_t from = 0; from < rooms && error == 0; from += COUNT_ROOMS) {
        counting = (struct counting){.batch = batch};
        counting.count = rooms - from < COUNT_ROOMS ? rooms - from : COUNT_ROOMS;
        memcpy(counting.items, batch->chosen + from, counting.count * sizeof(counting.items[0]));
        error = count_rooms(store, &counting);
    }
    return error;
}

/* --- both --- */

int store_mongo_apply_members(struct store_mongo *store)
{
    const uint32_t count = choose_members(store->batch);

    if (count == 0) {
        return 0;
    }
    const int error = write_members(store, count);
    return error < 0 ? error : write_members_counts(store, count);
}
