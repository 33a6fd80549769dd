/* store_mongo_ends.c - see store_mongo_ends.h. Both queries are look-ups by _id. */
#include "persist/store_mongo_ends.h"

#include "persist/store_mongo_row.h"

struct ends_reading {
    struct store_mongo *store;
    struct store_mongo_end *ends;
    uint32_t count;
    uint32_t next; /* where the look for the next document's begins */
};

/* An index more than the last is: documents come in nearly our order, and a thousand compares for
 * each that does not are little beside its query. */
static struct store_mongo_end *step(struct ends_reading *reading)
{
    struct store_mongo_end *end = &reading->ends[reading->next];

    reading->next = reading->next + 1 < reading->count ? reading->next + 1 : 0;
    return end;
}

static int take_known(void *context, const bson_t *document)
{
    struct ends_reading *reading = context;
    struct row_fields fields = {.document = document};

    const struct slice room_id = row_text(&fields, "_id", 1, STORE_MONGO_ROOM_MAX);
    (void)row_number(&fields, "epoch", UINT64_MAX); /* as store_mongo_epoch refuses it */
    for (uint32_t i = 0; i < reading->count; i++) {
        struct store_mongo_end *end = step(reading);
        if (slice_equal(end->room_id, room_id)) {
            end->known = true;
            break;
        }
    }
    return row_damaged(reading->store, STORE_MONGO_ROOMS, &fields);
}

static int take_follows(void *context, const bson_t *document)
{
    struct ends_reading *reading = context;
    const struct slice id = store_mongo_bytes(document, "_id");

    for (uint32_t i = 0; i < reading->count; i++) {
        struct store_mongo_end *end = step(reading);
        uint8_t expected[STORE_MONGO_ID_MAX];
        if (end->before_seq > 0 && id.size == end->room_id.size + sizeof(end->before_seq) &&
            store_mongo_event_id(end->room_id, end->before_seq, expected) == id.size &&
            memcmp(expected, id.data, id.size) == 0) {
            end->follows = true;
            break;
        }
    }
    return 0;
}

/* Asks for the documents whose _id is in filter, each with only. */
static int find(struct ends_reading *reading, const char *collection, const bson_t *filter,
                const char *only, mongo_row row)
{
    bson_t options = BSON_INITIALIZER;

    reading->next = 0;
    /* One more than there can be: the server sees the end at once, and keeps no cursor. */
    BCON_APPEND(&options, "projection", "{", only, BCON_INT32(1), "}", "batchSize",
                BCON_INT32((int32_t)reading->count + 1));
    const int error = mongo_find(reading->store->client, collection, filter, &options, row, reading,
                                 &reading->store->error);
    bson_destroy(&options);
    return error;
}

static int find_known(struct ends_reading *reading)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t field;
    bson_t ids;
    char index[12];
    const char *name;

    CHECK(BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &field));
    CHECK(BSON_APPEND_ARRAY_BEGIN(&field, "$in", &ids));
    for (uint32_t i = 0; i < reading->count; i++) {
        reading->ends[i].known = false;
        (void)bson_uint32_to_string(i, &name, index, sizeof(index));
        store_mongo_put_text(&ids, name, reading->ends[i].room_id);
    }
    CHECK(bson_append_array_end(&field, &ids));
    CHECK(bson_append_document_end(&filter, &field));
    const int error = find(reading, STORE_MONGO_ROOMS, &filter, "epoch", take_known);
    bson_destroy(&filter);
    return error;
}

static int find_follows(struct ends_reading *reading)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t field;
    bson_t ids;
    char index[12];
    const char *name;
    uint32_t asked = 0;
    int error = 0;

    CHECK(BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &field));
    CHECK(BSON_APPEND_ARRAY_BEGIN(&field, "$in", &ids));
    for (uint32_t i = 0; i < reading->count; i++) {
        struct store_mongo_end *end = &reading->ends[i];
        end->follows = end->before_seq == 0;
        if (!end->follows) {
            (void)bson_uint32_to_string(asked++, &name, index, sizeof(index));
            store_mongo_put_event_id(&ids, name, end->room_id, end->before_seq);
        }
    }
    CHECK(bson_append_array_end(&field, &ids));
    CHECK(bson_append_document_end(&filter, &field));
    if (asked > 0) {
        error = find(reading, STORE_MONGO_EVENTS, &filter, "_id", take_follows);
    }
    bson_destroy(&filter);
    return error;
}

int store_mongo_ends(struct store_mongo *store, struct store_mongo_end *ends, uint32_t count)
{
    struct ends_reading reading = {.store = store, .ends = ends, .count = count};

    CHECK(count >= 1 && count <= STORE_MONGO_ENDS_MAX);
    int error = find_known(&reading);
    error = error < 0 ? error : find_follows(&reading);
    return error < 0 ? store_mongo_fail(store, error, "look for the ends of rooms") : 0;
}
