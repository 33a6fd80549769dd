/*
 * store_mongo_write.c - the MongoDB store: events, what is refused of them, and the members that
 *                       they change.
 *
 * One insert goes through these steps. Each may be repeated (Y1), and -errno from any of them means
 * that the caller sends all of it again:
 *
 *   1 read      decode; what is no record, or no text where text must be, never gets to the server
 *   2 insert    one unordered bulk. A server, or the driver, that refuses a bulk as a whole for a
 *               document in it is asked with halves, down to the one
 *   3 compare   what has its _id taken: ours by its mid, or another message's
 *   4 set aside what was refused goes into quarantine with its bytes and the reason
 *   5 members   the last join or leave of each member, unless a later one is there (Y2)
 *   6 count     how many members the rooms have now
 *
 * A document of ours that was there already is as safe as one that was inserted: the server
 * answers a bulk with w: majority only after all that it has, that document too, is with the
 * majority.
 */
#include "core/log.h"
#include "core/os.h"
#include "core/utf8.h"
#include "persist/store_mongo_batch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    KEPT_BYTES = 4096, /* a document's buffer is used again if it held no more than this */
    QUARANTINE_ID_MAX = STORE_MONGO_ID_MAX + 8,
};

size_t store_mongo_batch_size(void)
{
    return sizeof(struct store_mongo_batch);
}

void store_mongo_batch_end(struct store_mongo_batch *batch)
{
    for (uint32_t i = 0; i < batch->made; i++) {
        bson_destroy(&batch->documents[i]);
    }
    batch->made = 0;
}

bson_t *store_mongo_blank(struct store_mongo_batch *batch, uint32_t index)
{
    bson_t *document = &batch->documents[index];

    CHECK(index <= batch->made && index < 2 * BATCH);
    if (index == batch->made) {
        bson_init(document);
        batch->made++;
    } else if (document->len > KEPT_BYTES) {
        bson_destroy(document);
        bson_init(document);
    } else {
        bson_reinit(document);
    }
    return document;
}

/* --- 1 read --- */

static void refuse_item(struct item *item, int error, int32_t code, const char *reason)
{
    const size_t size = strnlen(reason, sizeof(item->reason) - 1);

    item->state = REFUSED;
    item->error = error;
    item->code = code;
    for (size_t i = 0; i < size; i++) {
        const bool plain = reason[i] >= ' ' && reason[i] <= '~';
        item->reason[i] = reason[i];
        if (!plain) {
            item->reason[i] = '?'; /* ASCII, so that quarantine takes it wherever it was cut */
        }
    }
    item->reason[size] = '\0';
}

static bool is_text(struct slice text)
{
    return utf8_valid(text.data, text.size);
}

static void read_item(struct item *item, struct slice bytes)
{
    item->state = UNREAD;
    item->error = 0;
    if (bytes.size < RECORD_HEADER_BYTES ||
        record_decode(bytes.data, bytes.size, &item->record) < 0) {
        return;
    }
    const struct record *record = &item->record;
    item->state = SENT;
    item->mid = store_mongo_mid(bytes);
    item->id_size = (uint8_t)store_mongo_event_id(record->room_id, record->seq, item->id);
    item->id_hash = store_mongo_hash(item->id, item->id_size);
    item->text = is_text(record->room_id) && is_text(record->user_id) &&
                 is_text(record->username) && is_text(record->body);
    if (!item->text) {
        refuse_item(item, -EBADMSG, 0, "not UTF-8");
    }
}

/* --- 2 insert --- */

static void put_event(bson_t *document, const struct item *item)
{
    const struct record *record = &item->record;
    const struct slice id = {(const char *)item->id, item->id_size};
    const struct slice key = {(const char *)record->key_digest, sizeof(record->key_digest)};

    store_mongo_put_bytes(document, "_id", id);
    store_mongo_put_text(document, "room_id", record->room_id);
    store_mongo_put_number(document, "seq", record->seq);
    store_mongo_put_number(document, "epoch", record->epoch);
    store_mongo_put_number(document, "mid", item->mid);
    store_mongo_put_number(document, "kind", record->kind);
    store_mongo_put_number(document, "at", record->at_ms);
    store_mongo_put_text(document, "user_id", record->user_id);
    store_mongo_put_text(document, "body", record->body);
    if ((record->flags & RECORD_KEYED) != 0) {
        store_mongo_put_bytes(document, "key", key);
        store_mongo_put_number(document, "digest", record->content_digest);
    }
}

typedef void (*item_refused)(struct item *item, int error, int32_t code, const char *text);

/* A bulk of documents made from batch->chosen. */
struct insertion {
    struct store_mongo *store;
    const char *collection;
    item_refused refused;
    uint32_t first; /* of the part that is sent now, in chosen and list */
};

static void tell_refused(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    const struct insertion *insertion = context;
    struct store_mongo_batch *batch = insertion->store->batch;
    insertion->refused(&batch->items[batch->chosen[insertion->first + index]], error, code, text);
}

/* Whether an error is the server's or the network's, and not that of a document. */
static bool is_state(int error)
{
    return error == -EAGAIN || error == -EACCES || error == -ENOTSUP || error == -ENOMEM;
}

/* Inserts list[first .. first + count), with halves where it must: at most log2(BATCH) deep. */
static int insert_part(struct insertion *insertion, uint32_t first, uint32_t count)
{
    struct store_mongo *store = insertion->store;
    struct store_mongo_batch *batch = store->batch;
    insertion->first = first;
    int error = mongo_insert(store->client, insertion->collection, batch->list + first, count,
                             tell_refused, insertion, &store->error);

    if (error == 0 || is_state(error)) {
        return error;
    }
    if (count == 1) {
        batch->whole_refusals++;
        tell_refused(insertion, 0, error, store->error.code, store->error.text);
        return 0;
    }
    error = insert_part(insertion, first, count / 2);
    return error < 0 ? error : insert_part(insertion, first + count / 2, count - count / 2);
}

/* The documents made for batch->chosen, count of them. An error that every one of several documents
 * is blamed for is none of theirs. */
static int insert_chosen(struct store_mongo *store, const char *collection, uint32_t count,
                         item_refused refused)
{
    struct insertion insertion = {.store = store, .collection = collection, .refused = refused};
    int error;

    if (count == 0) {
        return 0;
    }
    store->batch->whole_refusals = 0;
    error = insert_part(&insertion, 0, count);
    if (error == 0 && count > 1 && store->batch->whole_refusals == count) {
        error = store->error.error;
    }
    return error;
}

static void event_refused(struct item *item, int error, int32_t code, const char *text)
{
    if (error == -EEXIST) {
        item->state = DUPLICATE;
    } else {
        refuse_item(item, error, code, text);
    }
}

static int insert_events(struct store_mongo *store)
{
    struct store_mongo_batch *batch = store->batch;
    uint32_t count = 0;

    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->items[i].state == SENT) {
            bson_t *document = store_mongo_blank(batch, count);
            put_event(document, &batch->items[i]);
            batch->list[count] = document;
            batch->chosen[count++] = (uint16_t)i;
        }
    }
    const int error = insert_chosen(store, STORE_MONGO_EVENTS, count, event_refused);
    return error < 0 ? store_mongo_fail(store, error, "store events") : 0;
}

/* --- 3 compare --- */

static int compare_item(void *context, const bson_t *document)
{
    struct store_mongo_batch *batch = context;
    const struct slice id = store_mongo_bytes(document, "_id");
    const uint64_t mid = store_mongo_number(document, "mid");
    const uint64_t hash = store_mongo_hash(id.data, id.size);
    uint16_t slot;

    for (uint32_t step = 0; (slot = batch->table.slots[store_mongo_table_slot(hash, step)]) != 0;
         step++) {
        struct item *item = &batch->items[slot - 1];
        const struct slice other = {(const char *)item->id, item->id_size};
        if (item->state == DUPLICATE && slice_equal(id, other)) {
            item->state = mid == item->mid ? SENT : FOREIGN;
        }
    }
    return 0;
}

/* Asks whose the documents are that have the _id of ours. */
static int read_mids(struct store_mongo *store, uint32_t count)
{
    struct store_mongo_batch *batch = store->batch;
    bson_t *filter = store_mongo_blank(batch, 0);
    bson_t options = BSON_INITIALIZER;
    bson_t field;
    bson_t ids;
    char index[12];
    const char *name;

    CHECK(BSON_APPEND_DOCUMENT_BEGIN(filter, "_id", &field));
    CHECK(BSON_APPEND_ARRAY_BEGIN(&field, "$in", &ids));
    for (uint32_t i = 0; i < count; i++) {
        const struct item *item = &batch->items[batch->chosen[i]];
        (void)bson_uint32_to_string(i, &name, index, sizeof(index));
        store_mongo_put_bytes(&ids, name, (struct slice){(const char *)item->id, item->id_size});
    }
    CHECK(bson_append_array_end(&field, &ids));
    CHECK(bson_append_document_end(filter, &field));
    BCON_APPEND(&options, "projection", "{", "mid", BCON_INT32(1), "}", "batchSize",
                BCON_INT32(BATCH));
    const int error = mongo_find(store->client, STORE_MONGO_EVENTS, filter, &options, compare_item,
                                 batch, &store->error);
    bson_destroy(&options);
    return error < 0 ? store_mongo_fail(store, error, "compare events") : 0;
}

static int compare_duplicates(struct store_mongo *store)
{
    struct store_mongo_batch *batch = store->batch;
    uint32_t count = 0;

    memset(&batch->table, 0, sizeof(batch->table));
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->items[i].state == DUPLICATE) {
            store_mongo_table_put(&batch->table, batch->items[i].id_hash, i);
            batch->chosen[count++] = (uint16_t)i;
        }
    }
    const int error = count > 0 ? read_mids(store, count) : 0;
    for (uint32_t i = 0; i < count && error == 0; i++) {
        if (batch->items[batch->chosen[i]].state == DUPLICATE) {
            /* It was there a moment ago; whoever removed it, the next attempt knows. */
            store->error = (struct mongo_error){.error = -EAGAIN};
            (void)snprintf(store->error.text, sizeof(store->error.text),
                           "a document that was there is not there any more");
            return store_mongo_fail(store, -EAGAIN, "compare events");
        }
    }
    return error;
}

/* --- 4 set aside --- */

static const char *reason_of(const struct item *item)
{
    if (item->state == FOREIGN) {
        return "conflict";
    }
    return item->error == -EMSGSIZE ? "too large" : item->error == -EBADMSG ? "invalid" : "refused";
}

static void put_quarantined(bson_t *document, const struct item *item, struct slice bytes)
{
    uint8_t id[QUARANTINE_ID_MAX];
    const struct slice text = {item->reason, (uint32_t)strlen(item->reason)};
    const char *reason = reason_of(item);

    memcpy(id, item->id, item->id_size);
    memcpy(id + item->id_size, &item->mid, sizeof(item->mid));
    store_mongo_put_bytes(
        document, "_id",
        (struct slice){(const char *)id, item->id_size + (uint32_t)sizeof(item->mid)});
    store_mongo_put_text(document, "reason", (struct slice){reason, (uint32_t)strlen(reason)});
    store_mongo_put_text(document, "text", text);
    store_mongo_put_bytes(document, "record", bytes);
    if (is_text(item->record.room_id)) {
        store_mongo_put_text(document, "room_id", item->record.room_id);
    }
    store_mongo_put_number(document, "seq", item->record.seq);
    store_mongo_put_number(document, "at", os_wall_ms());
}

/* Whether a room's conflict is told for the first time. The oldest of many is forgotten. */
static bool first_told(struct store_mongo_batch *batch, struct slice room_id)
{
    const uint64_t hash = store_mongo_hash(room_id.data, room_id.size);

    for (uint32_t i = 0; i < TOLD_ROOMS && i < batch->told_count; i++) {
        if (batch->told[i] == hash) {
            return false;
        }
    }
    batch->told[batch->told_count++ % TOLD_ROOMS] = hash;
    return true;
}

static void tell_item(struct store_mongo_batch *batch, const struct item *item)
{
    const struct slice room_id = item->record.room_id;

    if (item->state == FOREIGN) {
        if (first_told(batch, room_id)) {
            log_error("another message is stored under this one's place; it is kept in quarantine, "
                      "and its journal too: do two damsods use one database? room_id=%.*s "
                      "seq=%llu",
                      (int)room_id.size, room_id.data, (unsigned long long)item->record.seq);
        }
        return;
    }
    log_error("MongoDB refused an event, which is kept %s room_id=%.*s seq=%llu code=%d "
              "error=\"%s\"",
              item->state == UNKEPT ? "in the journal only" : "in quarantine", (int)room_id.size,
              room_id.data, (unsigned long long)item->record.seq, (int)item->code, item->reason);
}

static void quarantine_refused(struct item *item, int error, int32_t code, const char *text)
{
    if (error != -EEXIST) { /* it lies there from an earlier attempt */
        refuse_item(item, error, code, text);
        item->state = UNKEPT;
    }
}

static int set_aside(struct store_mongo *store, const struct slice *records)
{
    struct store_mongo_batch *batch = store->batch;
    uint32_t count = 0;

    for (uint32_t i = 0; i < batch->count; i++) {
        const struct item *item = &batch->items[i];
        if (item->state == REFUSED || item->state == FOREIGN) {
            bson_t *document = store_mongo_blank(batch, count);
            put_quarantined(document, item, records[i]);
            batch->list[count] = document;
            batch->chosen[count++] = (uint16_t)i;
        }
    }
    const int error = insert_chosen(store, STORE_MONGO_QUARANTINE, count, quarantine_refused);
    if (error < 0) {
        return store_mongo_fail(store, error, "set events aside in quarantine");
    }
    for (uint32_t i = 0; i < count; i++) {
        tell_item(batch, &batch->items[batch->chosen[i]]);
    }
    return 0;
}

/* --- all of it --- */

static uint8_t result_of(const struct item *item)
{
    switch ((enum state)item->state) {
    case SENT:
        return STORE_MONGO_STORED;
    case REFUSED:
        return STORE_MONGO_QUARANTINED;
    case FOREIGN:
        return STORE_MONGO_CONFLICT;
    case UNREAD:
    case DUPLICATE:
    case UNKEPT:
        break;
    }
    return STORE_MONGO_UNKEPT;
}

int store_mongo_insert(struct store_mongo *store, const struct slice *records, uint32_t count,
                       uint8_t *ret_results)
{
    struct store_mongo_batch *batch = store->batch;

    CHECK(count >= 1 && count <= BATCH);
    batch->count = count;
    for (uint32_t i = 0; i < count; i++) {
        read_item(&batch->items[i], records[i]);
    }
    int error = insert_events(store);
    error = error == 0 ? compare_duplicates(store) : error;
    error = error == 0 ? set_aside(store, records) : error;
    error = error == 0 ? store_mongo_apply_members(store) : error;
    for (uint32_t i = 0; i < count && error == 0; i++) {
        ret_results[i] = result_of(&batch->items[i]);
    }
    return error;
}
