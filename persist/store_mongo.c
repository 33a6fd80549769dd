/*
 * store_mongo.c - the MongoDB store: opening, schema, owner, run, and the helpers of the other
 *                 files.
 *
 * The schema's version is a document in meta, and is written before anything else of ours, so that
 * a database with our collections but without it is somebody else's: it is refused, not changed.
 */
#include "core/os.h"
#include "persist/store_mongo_own.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    CODE_NAMESPACE_EXISTS = 48,
    CODE_INDEX_OPTIONS_CONFLICT = 85,
    CODE_INDEX_SPECS_CONFLICT = 86,
};

/* --- what went wrong --- */

/* What to do about an error, as the end of a sentence. */
static const char *mend_of(int error, const struct mongo_error *said)
{
    if (error == -EACCES && said->code == 13) {
        return "; give the user of [persist] mongodb_uri the role dbOwner on this database, or "
               "readWrite and dbAdmin";
    }
    if (error == -EACCES) {
        return "; see that [persist] mongodb_uri has the right user, password and authSource";
    }
    if (error == -ENOTSUP) {
        return "; MongoDB 4.4 to 8 is needed";
    }
    return "";
}

int store_mongo_fail(struct store_mongo *store, int error, const char *what)
{
    const bool told = store->error.error == error && store->error.text[0] != '\0';
    char code[32] = "";

    if (told && store->error.code != 0) {
        (void)snprintf(code, sizeof(code), " (code %" PRId32 ")", store->error.code);
    }
    (void)snprintf(store->why, sizeof(store->why), "MongoDB at %s, database %s: cannot %s: %s%s%s",
                   mongo_hosts(store->mongo), mongo_database(store->mongo), what,
                   told ? store->error.text : strerrordesc_np(-error), code,
                   mend_of(error, &store->error));
    return error;
}

const char *store_mongo_why(const struct store_mongo *store)
{
    return store->why;
}

__attribute__((format(printf, 3, 4))) static int refuse(struct store_mongo *store, int error,
                                                        const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(store->error.text, sizeof(store->error.text), format, arguments);
    va_end(arguments);
    store->error.error = error;
    store->error.code = 0;
    return error;
}

/* --- ids --- */

uint32_t store_mongo_event_id(struct slice room_id, uint64_t seq, uint8_t ret[STORE_MONGO_ID_MAX])
{
    CHECK(room_id.size <= STORE_MONGO_ROOM_MAX);
    memcpy(ret, room_id.data, room_id.size);
    for (uint32_t i = 0; i < 8; i++) {
        ret[room_id.size + i] = (uint8_t)(seq >> (56 - 8 * i));
    }
    return room_id.size + 8;
}

uint64_t store_mongo_mid(struct slice record)
{
    const struct hash128 hash = hash128(record.data, record.size);
    uint64_t mid;
    memcpy(&mid, hash.bytes, sizeof(mid));
    return mid;
}

/* --- documents --- */

void store_mongo_put_text(bson_t *document, const char *name, struct slice text)
{
    CHECK(bson_append_utf8(document, name, -1, text.size > 0 ? text.data : "", (int)text.size));
}

void store_mongo_put_number(bson_t *document, const char *name, uint64_t number)
{
    CHECK(bson_append_int64(document, name, -1, (int64_t)number));
}

void store_mongo_put_bytes(bson_t *document, const char *name, struct slice bytes)
{
    CHECK(bson_append_binary(document, name, -1, BSON_SUBTYPE_BINARY,
                             (const uint8_t *)(bytes.size > 0 ? bytes.data : ""), bytes.size));
}

void store_mongo_put_event_id(bson_t *document, const char *name, struct slice room_id,
                              uint64_t seq)
{
    uint8_t id[STORE_MONGO_ID_MAX];
    const uint32_t size = store_mongo_event_id(room_id, seq, id);

    CHECK(bson_append_binary(document, name, -1, BSON_SUBTYPE_BINARY, id, size));
}

void store_mongo_put_member_range(bson_t *document, const char *name, struct slice room_id)
{
    char bound[STORE_MONGO_ROOM_MAX + 1];
    const struct slice text = {bound, room_id.size + 1};
    bson_t range;

    CHECK(room_id.size <= STORE_MONGO_ROOM_MAX);
    memcpy(bound, room_id.data, room_id.size);
    CHECK(bson_append_document_begin(document, name, -1, &range));
    bound[room_id.size] = '/';
    store_mongo_put_text(&range, "$gte", text);
    bound[room_id.size] = '0';
    store_mongo_put_text(&range, "$lt", text);
    CHECK(bson_append_document_end(document, &range));
}

struct slice store_mongo_text(const bson_t *document, const char *name)
{
    bson_iter_t iter;
    uint32_t size = 0;

    if (!bson_iter_init_find(&iter, document, name) || !BSON_ITER_HOLDS_UTF8(&iter)) {
        return (struct slice){"", 0};
    }
    const char *text = bson_iter_utf8(&iter, &size);
    return (struct slice){text, size};
}

uint64_t store_mongo_number(const bson_t *document, const char *name)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, document, name) ? (uint64_t)bson_iter_as_int64(&iter) : 0;
}

struct slice store_mongo_bytes(const bson_t *document, const char *name)
{
    bson_iter_t iter;
    bson_subtype_t subtype;
    const uint8_t *bytes = NULL;
    uint32_t size = 0;

    if (!bson_iter_init_find(&iter, document, name) || !BSON_ITER_HOLDS_BINARY(&iter)) {
        return (struct slice){"", 0};
    }
    bson_iter_binary(&iter, &subtype, &size, &bytes);
    return (struct slice){(const char *)bytes, size};
}

bool store_mongo_has(const bson_t *document, const char *name)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, document, name);
}

void store_mongo_keep_begin(struct store_mongo *store)
{
    store->text_used = 0;
}

struct slice store_mongo_keep(struct store_mongo *store, struct slice text)
{
    const uint32_t left = STORE_MONGO_TEXT_MAX - store->text_used;
    const struct slice kept = {store->text + store->text_used, text.size < left ? text.size : left};

    if (kept.size > 0) {
        memcpy(store->text + store->text_used, text.data, kept.size);
    }
    store->text_used += kept.size;
    return kept;
}

/* --- the schema --- */

enum field_type {
    FIELD_TEXT,   /* of min to max characters */
    FIELD_NUMBER, /* from min up */
    FIELD_BITS,   /* 64 bits of ours: any number */
    FIELD_BYTES,
    FIELD_BOOL,
};

/* What the validators ask of our documents, a row a field. */
static const struct field {
    const char *collection;
    const char *name;
    enum field_type type;
    int64_t min, max;
    bool optional;
} fields[] = {
    {STORE_MONGO_EVENTS, "_id", FIELD_BYTES, 0, 0, false},
    {STORE_MONGO_EVENTS, "room_id", FIELD_TEXT, 1, 64, false},
    {STORE_MONGO_EVENTS, "seq", FIELD_NUMBER, 1, 0, false},
    {STORE_MONGO_EVENTS, "epoch", FIELD_BITS, 0, 0, false},
    {STORE_MONGO_EVENTS, "mid", FIELD_BITS, 0, 0, false},
    {STORE_MONGO_EVENTS, "kind", FIELD_NUMBER, 1, 0, false},
    {STORE_MONGO_EVENTS, "at", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_EVENTS, "user_id", FIELD_TEXT, 1, 64, false},
    {STORE_MONGO_EVENTS, "body", FIELD_TEXT, 0, 0, false},
    {STORE_MONGO_EVENTS, "key", FIELD_BYTES, 0, 0, true},
    {STORE_MONGO_EVENTS, "digest", FIELD_BITS, 0, 0, true},

    {STORE_MONGO_ROOMS, "_id", FIELD_TEXT, 1, 64, false},
    {STORE_MONGO_ROOMS, "epoch", FIELD_BITS, 0, 0, false},
    {STORE_MONGO_ROOMS, "name", FIELD_TEXT, 0, 1024, false},
    {STORE_MONGO_ROOMS, "visibility", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_ROOMS, "durability", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_ROOMS, "members_max", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_ROOMS, "member_count", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_ROOMS, "created_at", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_ROOMS, "owner_id", FIELD_TEXT, 0, 64, false},
    {STORE_MONGO_ROOMS, "owner_name", FIELD_TEXT, 0, 128, false},
    {STORE_MONGO_ROOMS, "renew", FIELD_BOOL, 0, 0, true},

    {STORE_MONGO_MEMBERS, "_id", FIELD_TEXT, 3, 129, false},
    {STORE_MONGO_MEMBERS, "room_id", FIELD_TEXT, 1, 64, false},
    {STORE_MONGO_MEMBERS, "user_id", FIELD_TEXT, 1, 64, false},
    {STORE_MONGO_MEMBERS, "username", FIELD_TEXT, 0, 128, false},
    {STORE_MONGO_MEMBERS, "role", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_MEMBERS, "seq", FIELD_NUMBER, 0, 0, false},
    {STORE_MONGO_MEMBERS, "joined_at", FIELD_NUMBER, 0, 0, false},

    {STORE_MONGO_USERS, "_id", FIELD_TEXT, 1, 64, false},
    {STORE_MONGO_USERS, "username", FIELD_TEXT, 1, 128, false},
    {STORE_MONGO_USERS, "folded", FIELD_TEXT, 1, 128, false},
    {STORE_MONGO_USERS, "display_name", FIELD_TEXT, 0, 512, false},
    {STORE_MONGO_USERS, "password", FIELD_TEXT, 0, 512, false},
    {STORE_MONGO_USERS, "created_at", FIELD_NUMBER, 0, 0, false},

    /* The last resort: whatever else is wrong with a record, this must take it. */
    {STORE_MONGO_QUARANTINE, "_id", FIELD_BYTES, 0, 0, false},
    {STORE_MONGO_QUARANTINE, "reason", FIELD_TEXT, 0, 0, false},
    {STORE_MONGO_QUARANTINE, "record", FIELD_BYTES, 0, 0, false},

    {STORE_MONGO_META, "_id", FIELD_TEXT, 1, 64, false},
};

enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

/* Our collections, meta first, and the index that each has beside that of _id. */
static const struct collection {
    const char *name;
    const char *index; /* JSON; NULL: all its queries are by _id */
} collections[] = {
    {STORE_MONGO_META, NULL},
    /* keys_read: the newest keyed messages of a room */
    {STORE_MONGO_EVENTS, "{\"name\": \"keyed\", \"key\": {\"room_id\": 1, \"seq\": -1},"
                         " \"partialFilterExpression\": {\"key\": {\"$exists\": true}}}"},
    /* rooms_read: public rooms by room_id; run_begin and the rest by _id */
    {STORE_MONGO_ROOMS, "{\"name\": \"visible\", \"key\": {\"visibility\": 1, \"_id\": 1}}"},
    {STORE_MONGO_MEMBERS, NULL},
    /* user_by_name */
    {STORE_MONGO_USERS, "{\"name\": \"folded\", \"key\": {\"folded\": 1}, \"unique\": true}"},
    /* history_read: bodies that events does not have */
    {STORE_MONGO_QUARANTINE, "{\"name\": \"place\", \"key\": {\"room_id\": 1, \"seq\": 1}}"},
};

enum { COLLECTIONS = sizeof(collections) / sizeof(collections[0]) };

static void put_field(bson_t *properties, const struct field *field)
{
    /* NULL: a number, which a shell may have written as an int */
    static const char *const types[] = {[FIELD_TEXT] = "string",
                                        [FIELD_NUMBER] = NULL,
                                        [FIELD_BITS] = NULL,
                                        [FIELD_BYTES] = "binData",
                                        [FIELD_BOOL] = "bool"};
    bson_t rule;

    CHECK(bson_append_document_begin(properties, field->name, -1, &rule));
    if (types[field->type] != NULL) {
        CHECK(BSON_APPEND_UTF8(&rule, "bsonType", types[field->type]));
    } else {
        BCON_APPEND(&rule, "bsonType", "[", BCON_UTF8("long"), BCON_UTF8("int"), "]");
    }
    if (field->type == FIELD_NUMBER) {
        CHECK(BSON_APPEND_INT64(&rule, "minimum", field->min));
    }
    if (field->type == FIELD_TEXT && field->max > 0) {
        CHECK(BSON_APPEND_INT64(&rule, "minLength", field->min));
        CHECK(BSON_APPEND_INT64(&rule, "maxLength", field->max));
    }
    CHECK(bson_append_document_end(properties, &rule));
}

/* Appends validator, validationLevel and validationAction for the collection. */
static void put_validator(bson_t *command, const char *collection)
{
    bson_t required = BSON_INITIALIZER;
    bson_t properties = BSON_INITIALIZER;
    uint32_t count = 0;
    char index[12];

    for (uint32_t i = 0; i < FIELDS; i++) {
        if (strcmp(fields[i].collection, collection) != 0) {
            continue;
        }
        put_field(&properties, &fields[i]);
        if (!fields[i].optional) {
            (void)snprintf(index, sizeof(index), "%" PRIu32, count++);
            CHECK(BSON_APPEND_UTF8(&required, index, fields[i].name));
        }
    }
    BCON_APPEND(command, "validator", "{", "$jsonSchema", "{", "bsonType", BCON_UTF8("object"),
                "required", BCON_ARRAY(&required), "properties", BCON_DOCUMENT(&properties), "}",
                "}", "validationLevel", BCON_UTF8("strict"), "validationAction",
                BCON_UTF8("error"));
    bson_destroy(&properties);
    bson_destroy(&required);
}

/* create or collMod with the validator, or without one. */
static int settle_collection(struct store_mongo *store, const char *command, const char *name,
                             bool validated)
{
    bson_t asked = BSON_INITIALIZER;

    CHECK(BSON_APPEND_UTF8(&asked, command, name));
    if (validated) {
        put_validator(&asked, name);
    }
    const int error = mongo_command(store->client, &asked, true, NULL, NULL, &store->error);
    bson_destroy(&asked);
    return error;
}

static int make_collection(struct store_mongo *store, const char *name)
{
    char what[64];
    int error = settle_collection(store, "create", name, true);

    if (error == -ENOTSUP) {
        error = settle_collection(store, "create", name, false);
    }
    if (error < 0 && store->error.code == CODE_NAMESPACE_EXISTS) {
        error = settle_collection(store, "collMod", name, true);
        error = error == -ENOTSUP ? 0 : error; /* used without, as it is then */
    }
    (void)snprintf(what, sizeof(what), "make or change the collection %s", name);
    return error < 0 ? store_mongo_fail(store, error, what) : 0;
}

static int make_index(struct store_mongo *store, const struct collection *collection)
{
    bson_t index;
    bson_t command = BSON_INITIALIZER;
    char what[64];

    CHECK(bson_init_from_json(&index, collection->index, -1, NULL));
    BCON_APPEND(&command, "createIndexes", BCON_UTF8(collection->name), "indexes", "[",
                BCON_DOCUMENT(&index), "]");
    int error = mongo_command(store->client, &command, true, NULL, NULL, &store->error);
    bson_destroy(&command);
    bson_destroy(&index);
    if (error == 0) {
        return 0;
    }
    (void)snprintf(what, sizeof(what), "make the index of %s", collection->name);
    if (store->error.code == CODE_INDEX_OPTIONS_CONFLICT ||
        store->error.code == CODE_INDEX_SPECS_CONFLICT) {
        error = refuse(store, -EUCLEAN,
                       "it has another index under that name or with that key; drop that one, or "
                       "name another database in [persist] mongodb_uri");
    }
    if (error == -EEXIST) {
        error = refuse(store, -EUCLEAN,
                       "documents in it are not unique as they must be; see "
                       "which have the same folded, and remove all but one");
    }
    return store_mongo_fail(store, error, what);
}

/* --- documents of meta --- */

struct meta {
    uint64_t number; /* version of "schema", owner of "owner" */
    bool clean;      /* of "run", as are the ids */
    bool found;
    struct slice boot_id, server_id; /* in bytes */
    char bytes[2][64];
};

static struct slice keep_id(char bytes[64], struct slice id)
{
    const struct slice kept = {bytes, id.size < 64 ? id.size : 64};

    memcpy(bytes, id.data, kept.size);
    return kept;
}

static int take_meta(void *context, const bson_t *document)
{
    struct meta *meta = context;
    const uint64_t version = store_mongo_number(document, "version");

    meta->found = true;
    meta->number = version != 0 ? version : store_mongo_number(document, "owner");
    meta->clean = store_mongo_number(document, "clean") != 0;
    meta->boot_id = keep_id(meta->bytes[0], store_mongo_text(document, "boot_id"));
    meta->server_id = keep_id(meta->bytes[1], store_mongo_text(document, "server_id"));
    return 1;
}

static int read_meta(struct store_mongo *store, const char *name, struct meta *ret)
{
    bson_t filter = BSON_INITIALIZER;

    *ret = (struct meta){0};
    CHECK(BSON_APPEND_UTF8(&filter, "_id", name));
    const int error =
        mongo_find(store->client, STORE_MONGO_META, &filter, NULL, take_meta, ret, &store->error);
    bson_destroy(&filter);
    return error;
}

/* Updates one document by a command, so that the reply says all there is to say. */
static int update(struct store_mongo *store, const char *collection, const bson_t *filter,
                  const bson_t *change, bool upsert, bool many)
{
    bson_t command = BSON_INITIALIZER;

    BCON_APPEND(&command, "update", BCON_UTF8(collection), "updates", "[", "{", "q",
                BCON_DOCUMENT(filter), "u", BCON_DOCUMENT(change), "upsert", BCON_BOOL(upsert),
                "multi", BCON_BOOL(many), "}", "]");
    const int error = mongo_command(store->client, &command, true, NULL, NULL, &store->error);
    bson_destroy(&command);
    return error;
}

static int refuse_version(struct store_mongo *store, uint64_t version)
{
    return refuse(store, -EUCLEAN,
                  "the database has schema %" PRIu64 ", this damsod knows schema %d; start the "
                  "damsod that fits, or name another database in [persist] mongodb_uri",
                  version, STORE_MONGO_SCHEMA);
}

/* Whether the database has collections with names of ours: 1, 0 or -errno. */
static int take_collections(void *context, const bson_t *reply)
{
    bson_iter_t iter;
    bson_iter_t found;

    *(bool *)context = bson_iter_init(&iter, reply) &&
                       bson_iter_find_descendant(&iter, "cursor.firstBatch.0", &found);
    return 0;
}

static int has_collections(struct store_mongo *store)
{
    bson_t command = BSON_INITIALIZER;
    bool has = false;

    BCON_APPEND(&command, "listCollections", BCON_INT32(1), "filter", "{", "name", "{", "$in", "[",
                BCON_UTF8(STORE_MONGO_EVENTS), BCON_UTF8(STORE_MONGO_ROOMS),
                BCON_UTF8(STORE_MONGO_MEMBERS), BCON_UTF8(STORE_MONGO_USERS),
                BCON_UTF8(STORE_MONGO_QUARANTINE), "]", "}", "}", "nameOnly", BCON_BOOL(true));
    const int error =
        mongo_command(store->client, &command, false, take_collections, &has, &store->error);
    bson_destroy(&command);
    return error < 0 ? error : has;
}

/* Writes the schema's version where there is none. Whoever is first has written ours or theirs. */
static int claim_schema(struct store_mongo *store)
{
    struct meta meta;
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;

    BCON_APPEND(&filter, "_id", BCON_UTF8("schema"));
    BCON_APPEND(&change, "$setOnInsert", "{", "version", BCON_INT64(STORE_MONGO_SCHEMA), "}");
    int error = update(store, STORE_MONGO_META, &filter, &change, true, false);
    bson_destroy(&change);
    bson_destroy(&filter);
    error = error == -EEXIST ? 0 : error; /* another one at the same time */
    error = error == 0 ? read_meta(store, "schema", &meta) : error;
    if (error == 0 && meta.number != STORE_MONGO_SCHEMA) {
        return meta.found ? refuse_version(store, meta.number) : -EAGAIN;
    }
    return error;
}

static int check_schema(struct store_mongo *store)
{
    struct meta meta;
    int error = read_meta(store, "schema", &meta);

    if (error == 0 && !meta.found) {
        const int has = has_collections(store);
        /* Another damsod may have begun between the two looks: it wrote the version first. */
        error = has <= 0 ? has : read_meta(store, "schema", &meta);
        if (error == 0 && has > 0 && !meta.found) {
            error = refuse(store, -EUCLEAN,
                           "it has collections of another program under names of ours; name "
                           "another database in [persist] mongodb_uri");
        }
    }
    if (error == 0 && meta.found && meta.number != STORE_MONGO_SCHEMA) {
        error = refuse_version(store, meta.number);
    }
    if (error == 0 && !meta.found) {
        error = claim_schema(store);
    }
    return error < 0 ? store_mongo_fail(store, error, "use it") : 0;
}

int store_mongo_prepare(struct store_mongo *store)
{
    int error = check_schema(store);

    for (uint32_t i = 0; i < COLLECTIONS && error == 0; i++) {
        error = make_collection(store, collections[i].name);
        if (error == 0 && collections[i].index != NULL) {
            error = make_index(store, &collections[i]);
        }
    }
    return error;
}

/* --- the owner --- */

static int take_owner(void *context, const bson_t *reply)
{
    bson_iter_t iter;
    bson_iter_t found;

    *(uint64_t *)context =
        bson_iter_init(&iter, reply) && bson_iter_find_descendant(&iter, "value.owner", &found)
            ? (uint64_t)bson_iter_as_int64(&found)
            : 0;
    return 0;
}

int store_mongo_claim(struct store_mongo *store, uint64_t *ret_owner)
{
    bson_t command = BSON_INITIALIZER;
    uint64_t owner = 0;

    BCON_APPEND(&command, "findAndModify", BCON_UTF8(STORE_MONGO_META), "query", "{", "_id",
                BCON_UTF8("owner"), "}", "update", "{", "$inc", "{", "owner", BCON_INT64(1), "}",
                "$set", "{", "since", BCON_INT64((int64_t)os_wall_ms()), "}", "}", "upsert",
                BCON_BOOL(true), "new", BCON_BOOL(true));
    int error = mongo_command(store->client, &command, true, take_owner, &owner, &store->error);
    bson_destroy(&command);
    if (error == -EEXIST || (error == 0 && owner == 0)) {
        error = refuse(store, -EAGAIN, "another damsod takes over at the same moment");
    }
    if (error < 0) {
        return store_mongo_fail(store, error, "take over");
    }
    *ret_owner = owner;
    return 0;
}

int store_mongo_check_owner(struct store_mongo *store, uint64_t owner)
{
    struct meta meta;
    int error = read_meta(store, "owner", &meta);

    if (error == 0 && meta.number > owner) {
        error = refuse(store, -ESTALE,
                       "another damsod took over as %" PRIu64 ", this one is %" PRIu64
                       "; only one may use a database",
                       meta.number, owner);
    } else if (error == 0 && meta.number < owner) {
        error = refuse(store, -ESTALE,
                       "the database was emptied or put back to an older state under this damsod; "
                       "start it anew");
    }
    return error < 0 ? store_mongo_fail(store, error, "go on as its owner") : 0;
}

/* --- the run --- */

/* Gives a new epoch to the rooms whose log may have lost its tail. One number for all: an epoch is
 * only ever compared with another one of the same room. */
static int renew_epochs(struct store_mongo *store, bool memory, bool journal, bool fsync)
{
    const bool lost[] = {memory, journal, fsync}; /* by enum journal_durability */
    uint64_t epoch;
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;
    bson_t any;
    bson_t term;

    os_random(&epoch, sizeof(epoch));
    CHECK(BSON_APPEND_ARRAY_BEGIN(&filter, "$or", &any));
    BSON_APPEND_DOCUMENT_BEGIN(&any, "0", &term);
    CHECK(BSON_APPEND_BOOL(&term, "renew", true));
    CHECK(bson_append_document_end(&any, &term));
    for (uint32_t durability = 0; durability < 3; durability++) {
        static const char *const keys[] = {"1", "2", "3"};
        if (lost[durability]) {
            BSON_APPEND_DOCUMENT_BEGIN(&any, keys[durability], &term);
            store_mongo_put_number(&term, "durability", durability);
            CHECK(bson_append_document_end(&any, &term));
        }
    }
    CHECK(bson_append_array_end(&filter, &any));
    BCON_APPEND(&change, "$set", "{", "epoch", BCON_INT64((int64_t)(epoch | 1)), "renew",
                BCON_BOOL(false), "}");
    const int error = update(store, STORE_MONGO_ROOMS, &filter, &change, false, true);
    bson_destroy(&change);
    bson_destroy(&filter);
    return error;
}

/* Sets fields of the run's document. boot_id NULL leaves both ids. */
static int set_run(struct store_mongo *store, bool clean, const struct slice *boot_id,
                   const struct slice *server_id)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;
    bson_t values;

    BCON_APPEND(&filter, "_id", BCON_UTF8("run"));
    CHECK(BSON_APPEND_DOCUMENT_BEGIN(&change, "$set", &values));
    CHECK(BSON_APPEND_BOOL(&values, "clean", clean));
    if (boot_id != NULL) {
        store_mongo_put_text(&values, "boot_id", *boot_id);
        store_mongo_put_text(&values, "server_id", *server_id);
    }
    CHECK(bson_append_document_end(&change, &values));
    const int error = update(store, STORE_MONGO_META, &filter, &change, true, false);
    bson_destroy(&change);
    bson_destroy(&filter);
    return error;
}

/* The epochs first: whoever dies between the two finds the last run's mark as it was, and gives the
 * same rooms another epoch. */
int store_mongo_run_begin(struct store_mongo *store, struct slice boot_id, struct slice server_id,
                          bool *ret_other)
{
    struct meta run;
    int error = read_meta(store, "run", &run);
    bool other = false;

    if (error == 0) {
        const bool same_boot = slice_equal(run.boot_id, boot_id);
        other = run.found && !run.clean && !slice_equal(run.server_id, server_id);
        error = renew_epochs(store, !run.clean, !run.clean && (!same_boot || other), other);
    }
    error = error == 0 ? set_run(store, false, &boot_id, &server_id) : error;
    if (error == 0 && ret_other != NULL) {
        *ret_other = other;
    }
    return error < 0 ? store_mongo_fail(store, error, "begin a run") : 0;
}

int store_mongo_run_end(struct store_mongo *store)
{
    const int error = set_run(store, true, NULL, NULL);
    return error < 0 ? store_mongo_fail(store, error, "mark a clean stop") : 0;
}

int store_mongo_renew(struct store_mongo *store, struct slice room_id)
{
    uint64_t epoch;
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;

    os_random(&epoch, sizeof(epoch));
    store_mongo_put_text(&filter, "_id", room_id);
    BCON_APPEND(&change, "$set", "{", "epoch", BCON_INT64((int64_t)(epoch | 1)), "renew",
                BCON_BOOL(false), "}");
    const int error = update(store, STORE_MONGO_ROOMS, &filter, &change, false, false);
    bson_destroy(&change);
    bson_destroy(&filter);
    return error < 0 ? store_mongo_fail(store, error, "give a room a new epoch") : 0;
}

/* --- opening --- */

/* One block: the store, the keys behind it, then the batch, which is aligned by itself. */
static size_t keys_at(void)
{
    return (sizeof(struct store_mongo) + 127) & ~(size_t)127;
}

static size_t batch_at(uint32_t keys_max)
{
    return keys_at() + ((keys_max * sizeof(struct store_mongo_key) + 127) & ~(size_t)127);
}

void store_mongo_plan(uint32_t keys_max, struct mem_plan *plan)
{
    (void)mem_reserve(plan, "MongoDB store", batch_at(keys_max) + store_mongo_batch_size(), 1);
}

int store_mongo_open(struct mongo *mongo, uint32_t keys_max, struct mem_plan *plan,
                     struct store_mongo **ret)
{
    char *block =
        mem_reserve(plan, "MongoDB store", batch_at(keys_max) + store_mongo_batch_size(), 1);

    if (block == NULL) {
        return -ENOMEM;
    }
    struct store_mongo *store = (void *)block;
    store->mongo = mongo;
    store->client = mongo_take(mongo);
    store->keys = (void *)(block + keys_at());
    store->keys_max = keys_max;
    store->batch = (void *)(block + batch_at(keys_max));
    *ret = store;
    return 0;
}

void store_mongo_close(struct store_mongo *store)
{
    if (store != NULL) {
        store_mongo_batch_end(store->batch);
        mongo_give(store->mongo, store->client);
    }
}
