/*
 * micro_mongo.c - see micro_mongo.h. Names libmongoc itself, so that nothing of persist/mongo.c is
 *                 in what persistence is compared with; documents as persist/store_mongo_write.c
 *                 makes them.
 */
#include "bench/micro/micro_mongo.h"

#include "core/hash.h"
#include "core/os.h"
#include "core/record.h"

#include <errno.h>
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <string.h>

enum { ID_MAX = 64 + 8, SOCKET_MS = 60000, CONNECT_MS = 5000 };

struct session {
    mongoc_uri_t *uri;
    mongoc_client_t *client;
    mongoc_collection_t *collection;
    bson_t *documents[MICRO_MONGO_BULK];
};

static int fail(const bson_error_t *error, char why[MICRO_MONGO_WHY])
{
    (void)snprintf(why, MICRO_MONGO_WHY, "%.400s", error->message);
    return -EIO;
}

static void end(struct session *session)
{
    for (int i = 0; i < MICRO_MONGO_BULK; i++) {
        bson_destroy(session->documents[i]); /* of NULL it is nothing */
    }
    if (session->collection != NULL) {
        mongoc_collection_destroy(session->collection);
    }
    if (session->client != NULL) {
        mongoc_client_destroy(session->client);
    }
    mongoc_uri_destroy(session->uri);
}

static int begin(struct session *session, const char *text, char why[MICRO_MONGO_WHY])
{
    bson_error_t error;

    memset(session, 0, sizeof(*session));
    mongoc_init(); /* again does nothing */
    session->uri = mongoc_uri_new_with_error(text, &error);
    if (session->uri == NULL) {
        return fail(&error, why);
    }
    mongoc_write_concern_t *const concern = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(concern, SOCKET_MS / 2);
    mongoc_write_concern_set_journal(concern, true);
    mongoc_uri_set_write_concern(session->uri, concern);
    mongoc_write_concern_destroy(concern);
    (void)mongoc_uri_set_option_as_int32(session->uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_MS);
    (void)mongoc_uri_set_option_as_int32(session->uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS,
                                         CONNECT_MS);
    session->client = mongoc_client_new_from_uri_with_error(session->uri, &error);
    const char *const database = mongoc_uri_get_database(session->uri);
    if (session->client == NULL || database == NULL) {
        (void)snprintf(why, MICRO_MONGO_WHY, "the URI names no database, or cannot be used");
        end(session);
        return -EINVAL;
    }
    session->collection = mongoc_client_get_collection(session->client, database, "events");
    return 0;
}

static void put_text(bson_t *document, const char *name, struct slice text)
{
    CHECK(bson_append_utf8(document, name, -1, text.data, (int)text.size));
}

static void put_number(bson_t *document, const char *name, uint64_t number)
{
    CHECK(bson_append_int64(document, name, -1, (int64_t)number));
}

/* A message without a key, as put_event in persist/store_mongo_write.c. */
static bson_t *make_document(const uint8_t *bytes, uint32_t size)
{
    struct record record;
    uint8_t id[ID_MAX];
    uint64_t mid;

    CHECK(record_decode(bytes, size, &record) == 0);
    const struct hash128 hash = hash128(bytes, size);
    const uint64_t swapped = __builtin_bswap64(record.seq);
    bson_t *const document = bson_sized_new(512);
    memcpy(&mid, hash.bytes, sizeof(mid));
    memcpy(id, record.room_id.data, record.room_id.size);
    memcpy(id + record.room_id.size, &swapped, sizeof(swapped));
    CHECK(bson_append_binary(document, "_id", -1, BSON_SUBTYPE_BINARY, id,
                             record.room_id.size + (uint32_t)sizeof(swapped)));
    put_text(document, "room_id", record.room_id);
    put_number(document, "seq", record.seq);
    put_number(document, "epoch", record.epoch);
    put_number(document, "mid", mid);
    put_number(document, "kind", record.kind);
    put_number(document, "at", record.at_ms);
    put_text(document, "user_id", record.user_id);
    put_text(document, "body", record.body);
    return document;
}

/* One bulk of the documents made. */
static int insert(struct session *session, uint32_t count, char why[MICRO_MONGO_WHY])
{
    bson_t options = BSON_INITIALIZER;
    bson_t unvalidated = BSON_INITIALIZER;
    bson_t reply;
    bson_error_t error = {0};

    BSON_APPEND_BOOL(&options, "ordered", false);
    BSON_APPEND_BOOL(&unvalidated, "validate", false); /* as persist/mongo.c has it */
    mongoc_bulk_operation_t *const bulk =
        mongoc_collection_create_bulk_operation_with_opts(session->collection, &options);
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++) {
        good = mongoc_bulk_operation_insert_with_opts(bulk, session->documents[i], &unvalidated,
                                                      &error);
    }
    if (good) {
        good = mongoc_bulk_operation_execute(bulk, &reply, &error) != 0;
        bson_destroy(&reply);
    }
    mongoc_bulk_operation_destroy(bulk);
    bson_destroy(&unvalidated);
    bson_destroy(&options);
    return good ? 0 : fail(&error, why);
}

int micro_mongo_insert(const char *uri, uint64_t count, micro_mongo_record record, void *context,
                       double *ret_s, char why[MICRO_MONGO_WHY])
{
    uint8_t bytes[MICRO_MONGO_RECORD_MAX];
    struct session session;
    uint64_t ns = 0;
    int result = begin(&session, uri, why);

    if (result < 0) {
        return result;
    }
    for (uint64_t done = 0; done < count && result == 0;) {
        const uint64_t left = count - done;
        const uint32_t now = left < MICRO_MONGO_BULK ? (uint32_t)left : MICRO_MONGO_BULK;
        for (uint32_t i = 0; i < now; i++) {
            const uint32_t size = record(context, done + i, bytes);
            bson_destroy(session.documents[i]);
            session.documents[i] = make_document(bytes, size);
        }
        const uint64_t begin_ns = os_now_ns();
        result = insert(&session, now, why);
        ns += os_now_ns() - begin_ns;
        done += now;
    }
    *ret_s = (double)ns / 1e9;
    end(&session);
    return result;
}

int micro_mongo_drop(const char *uri, char why[MICRO_MONGO_WHY])
{
    bson_error_t error = {0};
    struct session session;
    const int result = begin(&session, uri, why);

    if (result < 0) {
        return result;
    }
    mongoc_database_t *const database =
        mongoc_client_get_database(session.client, mongoc_uri_get_database(session.uri));
    const bool dropped = mongoc_database_drop(database, &error);
    mongoc_database_destroy(database);
    end(&session);
    return dropped ? 0 : fail(&error, why);
}
