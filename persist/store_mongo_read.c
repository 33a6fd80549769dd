/*
 * store_mongo_read.c - the MongoDB store: rooms, members, keys and history.
 *
 * Every query is a look-up by _id or one range of one index, and names that index where it is not
 * _id's (hint): a server that guesses wrong about a young collection would read all of it. The
 * table of queries and indexes is in docs/MONGODB.md; a test asks the server how it runs each.
 *
 * While the rows of one query come in, another may be sent over the same client: an event look-up
 * for each room of a list, quarantine for a hole in a history. The rows at hand stay as they are.
 */
#include "core/config.h"
#include "persist/store_mongo_row.h"

enum {
    USER_NAME_MAX = 128, /* bytes, as in a record */
    ROOM_NAME_MAX = 1024,
    BODY_MAX = 16 * 1024 * 1024, /* no document is larger */
    PATTERN_MAX = 4 * ROOM_NAME_MAX,
    ROOMS_PAGE_MAX = 8192, /* rows of a list that fit one reply of 16 MiB, whatever their names */
    BATCH_ROWS_MAX =
        4200, /* rows of one reply to a find, or 16 MiB; more come in further replies */
    KEY_DIGEST_BYTES = 16,
    PUBLIC = 0,           /* visibility; 1 is private */
    SEARCH_MS_MAX = 5000, /* what the server may take for a list; 10,000 rooms take 25 */
};

/* seq goes into ids and numbers as it is, so that its order is theirs up to here. */
#define SEQ_MAX ((uint64_t)INT64_MAX)

/* --- queries --- */

/* A query while it is built. */
struct query {
    const char *collection;
    bson_t filter;
    bson_t options;
};

static void query_begin(struct query *query, const char *collection)
{
    query->collection = collection;
    bson_init(&query->filter);
    bson_init(&query->options);
}

/* Names the index by its key, whose first field rises. */
static void put_hint(struct query *query, const char *first, const char *second, int32_t direction)
{
    BCON_APPEND(&query->options, "hint", "{", first, BCON_INT32(1), second, BCON_INT32(direction),
                "}");
}

static void put_sort(struct query *query, const char *field, int32_t direction)
{
    BCON_APPEND(&query->options, "sort", "{", field, BCON_INT32(direction), "}");
}

/* Only that field of the rows, and _id. */
static void put_only(struct query *query, const char *field)
{
    BCON_APPEND(&query->options, "projection", "{", field, BCON_INT32(1), "}");
}

/* At most limit rows (0: all that match), and how many come in one reply: one more than the limit,
 * so that the server sees the end at once and keeps no cursor. */
static void query_limit(struct query *query, uint32_t limit)
{
    if (limit > 0) {
        store_mongo_put_number(&query->options, "limit", limit);
    }
    const uint32_t rows = limit > 0 && limit < BATCH_ROWS_MAX ? limit + 1 : BATCH_ROWS_MAX;
    CHECK(bson_append_int32(&query->options, "batchSize", -1, (int32_t)rows));
}

/* Runs it and takes it down: 0 or -errno, without the store's words. */
static int query_run(struct query *query, struct store_mongo *store, mongo_row row, void *context)
{
    const int error = mongo_find(store->client, query->collection, &query->filter, &query->options,
                                 row, context, &store->error);
    bson_destroy(&query->options);
    bson_destroy(&query->filter);
    return error;
}

/* {_id: {$gte: the room's event from, $lte: its event to}} */
static void put_event_range(bson_t *filter, struct slice room_id, uint64_t from, uint64_t to)
{
    bson_t range;

    CHECK(bson_append_document_begin(filter, "_id", -1, &range));
    store_mongo_put_event_id(&range, "$gte", room_id, from);
    store_mongo_put_event_id(&range, "$lte", room_id, to);
    CHECK(bson_append_document_end(filter, &range));
}

/* The seq in an event's _id; 0, which no event has, if it is not one of that room. */
static uint64_t event_seq(struct row_fields *fields, struct slice room_id)
{
    const struct slice id = row_bytes(fields, "_id", room_id.size + 8, room_id.size + 8);
    uint64_t seq = 0;

    if (id.size > 0 && memcmp(id.data, room_id.data, room_id.size) == 0) {
        memcpy(&seq, id.data + room_id.size, sizeof(seq));
        seq = __builtin_bswap64(seq);
    }
    if (seq == 0 || seq > SEQ_MAX) {
        fields->wrong = "_id";
        seq = 0;
    }
    return seq;
}

/* --- a room's last seq --- */

struct seq_reading {
    struct store_mongo *store;
    struct slice room_id;
    uint64_t seq;
};

static int take_last_event(void *context, const bson_t *document)
{
    struct seq_reading *reading = context;
    struct row_fields fields = {.document = document};

    const uint64_t seq = event_seq(&fields, reading->room_id);
    const int error = row_damaged(reading->store, STORE_MONGO_EVENTS, &fields);
    if (error < 0) {
        return error;
    }
    reading->seq = seq;
    return 1;
}

static int take_last_quarantined(void *context, const bson_t *document)
{
    struct seq_reading *reading = context;
    struct row_fields fields = {.document = document};

    const uint64_t seq = row_number(&fields, "seq", SEQ_MAX);
    const int error = row_damaged(reading->store, STORE_MONGO_QUARANTINE, &fields);
    if (error < 0) {
        return error;
    }
    reading->seq = seq > reading->seq ? seq : reading->seq;
    return 1;
}

/* The highest seq in events, 0 without any; without the store's words. */
static int last_event(struct store_mongo *store, struct slice room_id, uint64_t *ret_seq)
{
    struct seq_reading reading = {.store = store, .room_id = room_id};
    struct query query;

    query_begin(&query, STORE_MONGO_EVENTS);
    put_event_range(&query.filter, room_id, 0, SEQ_MAX);
    put_sort(&query, "_id", -1);
    put_only(&query, "_id");
    query_limit(&query, 1);
    const int error = query_run(&query, store, take_last_event, &reading);
    if (error == 0) {
        *ret_seq = reading.seq;
    }
    return error;
}

/* The same with quarantine, whose messages have their seqs for ever: to give one to another message
 * would show members two for one seq. */
static int last_seq(struct store_mongo *store, struct slice room_id, uint64_t *ret_seq)
{
    struct seq_reading reading = {.store = store, .room_id = room_id};
    struct query query;
    int error = last_event(store, room_id, &reading.seq);

    if (error < 0) {
        return error;
    }
    query_begin(&query, STORE_MONGO_QUARANTINE);
    store_mongo_put_text(&query.filter, "room_id", room_id);
    put_sort(&query, "seq", -1);
    put_only(&query, "seq");
    put_hint(&query, "room_id", "seq", 1);
    query_limit(&query, 1);
    error = query_run(&query, store, take_last_quarantined, &reading);
    if (error == 0) {
        *ret_seq = reading.seq;
    }
    return error;
}

int store_mongo_last_seq(struct store_mongo *store, struct slice room_id, uint64_t *ret_seq)
{
    const int error = last_seq(store, room_id, ret_seq);
    return error < 0 ? store_mongo_fail(store, error, "read a room's last seq") : 0;
}

/* --- one room --- */

struct room_reading {
    struct store_mongo *store;
    struct store_room room;
    struct slice owner_id;
    struct slice owner_name;
    bool found;
};

/* The room of a document, its texts still in it: 0 or -EUCLEAN. */
static int decode_room(struct store_mongo *store, const bson_t *document, struct store_room *ret)
{
    struct row_fields fields = {.document = document};

    const struct store_room room = {
        .epoch = row_number(&fields, "epoch", UINT64_MAX),
        .created_ms = row_number(&fields, "created_at", INT64_MAX),
        .member_count = (uint32_t)row_number(&fields, "member_count", UINT32_MAX),
        .members_max = (uint32_t)row_number(&fields, "members_max", UINT32_MAX),
        .visibility = (uint8_t)row_number(&fields, "visibility", 1),
        .durability = (uint8_t)row_number(&fields, "durability", CONFIG_DURABILITY_FSYNC),
        .room_id = row_text(&fields, "_id", 1, STORE_MONGO_ROOM_MAX),
        .name = row_text(&fields, "name", 0, ROOM_NAME_MAX),
    };
    const int error = row_damaged(store, STORE_MONGO_ROOMS, &fields);
    if (error == 0) {
        *ret = room;
    }
    return error;
}

static int take_room(void *context, const bson_t *document)
{
    struct room_reading *reading = context;
    const int error = decode_room(reading->store, document, &reading->room);

    if (error < 0) {
        return error;
    }
    store_mongo_keep_begin(reading->store);
    reading->room.room_id = store_mongo_keep(reading->store, reading->room.room_id);
    reading->room.name = store_mongo_keep(reading->store, reading->room.name);
    reading->found = true;
    return 1;
}

static int take_epoch(void *context, const bson_t *document)
{
    struct room_reading *reading = context;
    struct row_fields fields = {.document = document};

    reading->room.epoch = row_number(&fields, "epoch", UINT64_MAX);
    reading->found = true;
    const int error = row_damaged(reading->store, STORE_MONGO_ROOMS, &fields);
    return error < 0 ? error : 1;
}

static int take_owner(void *context, const bson_t *document)
{
    struct room_reading *reading = context;
    struct row_fields fields = {.document = document};

    const struct slice owner_id = row_text(&fields, "owner_id", 0, STORE_MONGO_ROOM_MAX);
    const struct slice owner_name = row_text(&fields, "owner_name", 0, USER_NAME_MAX);
    const int error = row_damaged(reading->store, STORE_MONGO_ROOMS, &fields);
    if (error < 0) {
        return error;
    }
    store_mongo_keep_begin(reading->store);
    reading->owner_id = store_mongo_keep(reading->store, owner_id);
    reading->owner_name = store_mongo_keep(reading->store, owner_name);
    reading->found = true;
    return 1;
}

/* Looks a room up, and hands its document to row, which sets found: 0, -ENOENT or -errno, without
 * the store's words. */
static int find_room(struct room_reading *reading, struct slice room_id, mongo_row row)
{
    struct query query;

    query_begin(&query, STORE_MONGO_ROOMS);
    store_mongo_put_text(&query.filter, "_id", room_id);
    query_limit(&query, 1);
    const int error = query_run(&query, reading->store, row, reading);
    return error == 0 && !reading->found ? -ENOENT : error;
}

/* For what found no rows: 0 the room is there, -ENOENT it is not, or -errno. */
static int room_exists(struct store_mongo *store, struct slice room_id)
{
    struct room_reading reading = {.store = store};
    return find_room(&reading, room_id, take_epoch);
}

/* What a reading that is over returns: -ENOENT is an answer, not a failure. */
static int finish(struct store_mongo *store, int error, const char *what)
{
    return error < 0 && error != -ENOENT ? store_mongo_fail(store, error, what) : error;
}

int store_mongo_epoch(struct store_mongo *store, struct slice room_id, uint64_t *ret_epoch)
{
    struct room_reading reading = {.store = store};
    const int error = find_room(&reading, room_id, take_epoch);

    if (error == 0) {
        *ret_epoch = reading.room.epoch;
    }
    return finish(store, error, "read a room's epoch");
}

int store_mongo_room_read(struct store_mongo *store, struct slice room_id, struct store_room *ret)
{
    struct room_reading reading = {.store = store};
    int error = find_room(&reading, room_id, take_room);

    if (error == 0) {
        error = last_seq(store, room_id, &reading.room.last_seq);
    }
    if (error == 0) {
        *ret = reading.room;
    }
    return finish(store, error, "read a room");
}

/* --- members --- */

struct members_reading {
    struct store_mongo *store;
    struct store_member owner; /* user_id empty: told, or a document speaks for them */
    bool with_left;
    store_mongo_member_row row;
    void *context;
    bool over; /* the caller wants no more */
};

static int tell_member(struct members_reading *reading, const struct store_member *member,
                       uint64_t seq)
{
    const int answer = reading->row(reading->context, member, seq);
    reading->over = answer > 0;
    return answer;
}

/* Tells the owner, whom no document speaks of. */
static int tell_owner(struct members_reading *reading)
{
    const struct store_member owner = reading->owner;

    reading->owner.user_id.size = 0;
    return tell_member(reading, &owner, 0);
}

static int compare(struct slice a, struct slice b)
{
    const int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static int take_member(void *context, const bson_t *document)
{
    struct members_reading *reading = context;
    struct row_fields fields = {.document = document};

    const struct store_member member = {
        .role = (uint8_t)row_number(&fields, "role", ROLE_OWNER),
        .user_id = row_text(&fields, "user_id", 1, STORE_MONGO_ROOM_MAX),
        .username = row_text(&fields, "username", 0, USER_NAME_MAX),
    };
    const uint64_t seq = row_number(&fields, "seq", SEQ_MAX);
    int error = row_damaged(reading->store, STORE_MONGO_MEMBERS, &fields);
    if (error == 0 && reading->owner.user_id.size > 0) {
        const int order = compare(member.user_id, reading->owner.user_id);
        if (order == 0) {
            reading->owner.user_id.size = 0; /* this document says what they are */
        } else if (order > 0) {
            error = tell_owner(reading);
        }
    }
    if (error != 0) {
        return error;
    }
    const bool shown = member.role != ROLE_NONE || reading->with_left;
    return shown ? tell_member(reading, &member, seq) : 0;
}

/* {$or: [{role: {$gt: 0}}, {user_id: the owner}]}: those who left stay in the range for ever, and
 * are not sent if nobody wants them; the owner's document is, for it may say that they left. */
static void put_without_left(bson_t *filter, struct slice owner_id)
{
    char owner[STORE_MONGO_ROOM_MAX + 1] = "";

    memcpy(owner, owner_id.data, owner_id.size);
    BCON_APPEND(filter, "$or", "[", "{", "role", "{", "$gt", BCON_INT32(ROLE_NONE), "}", "}", "{",
                "user_id", BCON_UTF8(owner), "}", "]");
}

static int read_members(struct members_reading *reading, struct slice room_id)
{
    struct room_reading room = {.store = reading->store};
    struct query query;
    int error = find_room(&room, room_id, take_owner);

    if (error < 0) {
        return error;
    }
    reading->owner = (struct store_member){
        .role = ROLE_OWNER, .user_id = room.owner_id, .username = room.owner_name};
    query_begin(&query, STORE_MONGO_MEMBERS);
    store_mongo_put_member_range(&query.filter, "_id", room_id);
    if (!reading->with_left) {
        put_without_left(&query.filter, room.owner_id);
    }
    put_sort(&query, "_id", 1);
    query_limit(&query, 0);
    error = query_run(&query, reading->store, take_member, reading);
    if (error == 0 && !reading->over && reading->owner.user_id.size > 0) {
        error = tell_owner(reading);
    }
    return error < 0 ? error : 0;
}

int store_mongo_members_read(struct store_mongo *store, struct slice room_id, bool with_left,
                             store_mongo_member_row row, void *context)
{
    struct members_reading reading = {
        .store = store, .with_left = with_left, .row = row, .context = context};
    return finish(store, read_members(&reading, room_id), "read the members of a room");
}

/* --- keys --- */

struct keys_reading {
    struct store_mongo *store;
    uint32_t count;
    uint32_t limit;
};

static int take_key(void *context, const bson_t *document)
{
    struct keys_reading *reading = context;
    struct row_fields fields = {.document = document};

    CHECK(reading->count < reading->limit);
    const struct slice digest = row_bytes(&fields, "key", KEY_DIGEST_BYTES, KEY_DIGEST_BYTES);
    struct store_mongo_key *key = &reading->store->keys[reading->count];
    key->content_digest = row_number(&fields, "digest", UINT64_MAX);
    key->seq = row_number(&fields, "seq", SEQ_MAX);
    key->at_ms = row_number(&fields, "at", INT64_MAX);
    const int error = row_damaged(reading->store, STORE_MONGO_EVENTS, &fields);
    if (error < 0) {
        return error;
    }
    memcpy(key->key_digest, digest.data, sizeof(key->key_digest));
    reading->count++;
    return reading->count == reading->limit;
}

/* The newest keyed messages, newest first, into store->keys. */
static int collect_keys(struct keys_reading *reading, struct slice room_id)
{
    struct query query;

    query_begin(&query, STORE_MONGO_EVENTS);
    store_mongo_put_text(&query.filter, "room_id", room_id);
    BCON_APPEND(&query.filter, "key", "{", "$exists", BCON_BOOL(true), "}");
    put_sort(&query, "seq", -1);
    BCON_APPEND(&query.options, "projection", "{", "_id", BCON_INT32(1), "key", BCON_INT32(1),
                "digest", BCON_INT32(1), "seq", BCON_INT32(1), "at", BCON_INT32(1), "}");
    put_hint(&query, "room_id", "seq", -1);
    query_limit(&query, reading->limit);
    return query_run(&query, reading->store, take_key, reading);
}

int store_mongo_keys_read(struct store_mongo *store, struct slice room_id, uint32_t limit,
                          store_key_row row, void *context)
{
    struct keys_reading reading = {.store = store,
                                   .limit = limit < store->keys_max ? limit : store->keys_max};
    int answer = reading.limit > 0 ? collect_keys(&reading, room_id) : 0;

    if (answer == 0 && reading.count == 0) {
        answer = room_exists(store, room_id);
    }
    for (uint32_t left = answer == 0 ? reading.count : 0; left > 0 && answer == 0; left--) {
        const struct store_mongo_key *key = &store->keys[left - 1];
        const struct store_key shown = {.key_digest = key->key_digest,
                                        .content_digest = key->content_digest,
                                        .seq = key->seq,
                                        .at_ms = key->at_ms};
        answer = row(context, &shown);
    }
    return finish(store, answer < 0 ? answer : 0, "read the keys of a room");
}

/* --- public rooms --- */

struct rooms_reading {
    struct store_mongo *store;
    store_room_row row;
    void *context;
};

static int show_room(struct rooms_reading *reading, const bson_t *document)
{
    struct store_room room;
    int error = decode_room(reading->store, document, &room);

    if (error == 0) {
        error = last_event(reading->store, room.room_id, &room.last_seq);
    }
    return error < 0 ? error : reading->row(reading->context, &room);
}

/* Each document of a reply {cursor: {firstBatch: [...]}}. */
static int take_rooms(void *context, const bson_t *reply)
{
    bson_iter_t top;
    bson_iter_t batch;
    bson_iter_t rows;
    const uint8_t *bytes = NULL;
    uint32_t size = 0;
    bson_t document;
    int answer = 0;

    if (!bson_iter_init(&top, reply) ||
        !bson_iter_find_descendant(&top, "cursor.firstBatch", &batch) ||
        !BSON_ITER_HOLDS_ARRAY(&batch) || !bson_iter_recurse(&batch, &rows)) {
        return -EPROTO;
    }
    for (uint32_t i = 0; i < ROOMS_PAGE_MAX && answer == 0 && bson_iter_next(&rows); i++) {
        if (!BSON_ITER_HOLDS_DOCUMENT(&rows)) {
            return -EPROTO;
        }
        bson_iter_document(&rows, &size, &bytes);
        if (!bson_init_static(&document, bytes, size)) {
            return -EPROTO;
        }
        answer = show_room(context, &document);
    }
    return answer;
}

/* What finds query in a text without regard to the case of ASCII letters: [xX] for each letter, an
 * escape for all of ASCII that might mean something. The option "i" would fold more: to it the
 * Kelvin sign is a k. Bytes of UTF-8 stand for themselves. */
static void make_pattern(struct slice query, char ret[PATTERN_MAX + 1])
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < query.size; i++) {
        const uint8_t c = (uint8_t)query.data[i];
        const uint8_t letter = c | 0x20;
        const size_t room = PATTERN_MAX + 1 - at;
        int size;
        if (letter >= 'a' && letter <= 'z') {
            size = snprintf(ret + at, room, "[%c%c]", letter, letter - 0x20);
        } else if (c < 0x80) {
            size = snprintf(ret + at, room, "\\x%02x", c);
        } else {
            size = snprintf(ret + at, room, "%c", c);
        }
        at += (uint32_t)size;
    }
    ret[at] = '\0';
}

/* An aggregation and not a find, for a find cannot end after STORE_SCAN_MAX rooms looked at. The
 * server searches: over 10,000 rooms in 2 to 25 ms, where to search here took 28 to 110. */
static void make_rooms_command(bson_t *command, struct slice query, struct slice cursor,
                               uint32_t limit)
{
    const int32_t rows = (int32_t)limit;
    char after[STORE_MONGO_ROOM_MAX + 1] = "";
    char pattern[PATTERN_MAX + 1];
    bson_t stages;

    /* A cursor cut to the size of an id is before the same ids. */
    memcpy(after, cursor.data, cursor.size < sizeof(after) - 1 ? cursor.size : sizeof(after) - 1);
    BCON_APPEND(command, "aggregate", STORE_MONGO_ROOMS);
    CHECK(bson_append_array_begin(command, "pipeline", -1, &stages));
    BCON_APPEND(&stages, "0", "{", "$match", "{", "visibility", BCON_INT32(PUBLIC), "_id", "{",
                "$gt", BCON_UTF8(after), "}", "}", "}");
    BCON_APPEND(&stages, "1", "{", "$sort", "{", "_id", BCON_INT32(1), "}", "}");
    if (query.size > 0) {
        make_pattern(query, pattern);
        BCON_APPEND(&stages, "2", "{", "$limit", BCON_INT32(STORE_SCAN_MAX), "}");
        BCON_APPEND(&stages, "3", "{", "$match", "{", "$or", "[", "{", "_id",
                    BCON_REGEX(pattern, ""), "}", "{", "name", BCON_REGEX(pattern, ""), "}", "]",
                    "}", "}");
    }
    BCON_APPEND(&stages, query.size > 0 ? "4" : "2", "{", "$limit", BCON_INT32(rows), "}");
    CHECK(bson_append_array_end(command, &stages));
    BCON_APPEND(command, "cursor", "{", "batchSize", BCON_INT32(rows + 1), "}");
    BCON_APPEND(command, "maxTimeMS", BCON_INT32(SEARCH_MS_MAX), "hint", "{", "visibility",
                BCON_INT32(1), "_id", BCON_INT32(1), "}");
}

int store_mongo_rooms_read(struct store_mongo *store, struct slice query, struct slice cursor,
                           uint32_t limit, store_room_row row, void *context)
{
    struct rooms_reading reading = {.store = store, .row = row, .context = context};
    bson_t command = BSON_INITIALIZER;

    if (limit == 0 || query.size > ROOM_NAME_MAX ||
        !bson_utf8_validate(query.data, query.size, false) ||
        !bson_utf8_validate(cursor.data, cursor.size, false)) {
        bson_destroy(&command);
        return 0; /* no name is longer, or is no text */
    }
    make_rooms_command(&command, query, cursor, limit < ROOMS_PAGE_MAX ? limit : ROOMS_PAGE_MAX);
    const int error =
        mongo_command(store->client, &command, false, take_rooms, &reading, &store->error);
    bson_destroy(&command);
    return finish(store, error < 0 ? error : 0, "list the public rooms");
}

/* --- history --- */

/* What is told goes from begin to end, which is below begin in a descending range. */
struct history_reading {
    struct store_mongo *store;
    const struct store_range *range;
    store_entry_row row;
    void *context;
    uint64_t next; /* the seq that would follow what was told; 0: none is expected */
    uint64_t left; /* rows */
    bool told;
    bool over; /* the caller wants no more */
};

static int tell_entry(struct history_reading *reading, uint64_t seq, struct slice body)
{
    const int answer = reading->row(reading->context, seq, body);

    reading->told = true;
    reading->next = reading->range->descending ? seq - 1 : seq + 1;
    reading->left--;
    reading->over = answer > 0 || reading->left == 0;
    return answer < 0 ? answer : reading->over;
}

static int take_quarantined(void *context, const bson_t *document)
{
    struct history_reading *reading = context;
    struct row_fields fields = {.document = document};
    struct record record = {0};

    const uint64_t seq = row_number(&fields, "seq", SEQ_MAX);
    const struct slice bytes = row_bytes(&fields, "record", RECORD_HEADER_BYTES, BODY_MAX);
    if (fields.wrong == NULL &&
        (record_decode(bytes.data, bytes.size, &record) < 0 || record.seq != seq ||
         !slice_equal(record.room_id, reading->range->room_id))) {
        fields.wrong = "record";
    }
    const int error = row_damaged(reading->store, STORE_MONGO_QUARANTINE, &fields);
    if (error < 0) {
        return error;
    }
    /* One of two with that seq is enough; what was refused for not being UTF-8 stays a hole. */
    const bool again = reading->range->descending ? seq > reading->next : seq < reading->next;
    const bool text = utf8_valid(record.body.data, record.body.size);
    return again || !text ? 0 : tell_entry(reading, seq, record.body);
}

/* Tells what quarantine has between two seqs, both inside. */
static int fill_hole(struct history_reading *reading, uint64_t from, uint64_t to)
{
    const bool descending = reading->range->descending;
    struct query query;

    reading->next = descending ? to : from;
    query_begin(&query, STORE_MONGO_QUARANTINE);
    store_mongo_put_text(&query.filter, "room_id", reading->range->room_id);
    BCON_APPEND(&query.filter, "seq", "{", "$gte", BCON_INT64((int64_t)from), "$lte",
                BCON_INT64((int64_t)to), "}");
    put_sort(&query, "seq", descending ? -1 : 1);
    put_hint(&query, "room_id", "seq", 1);
    query_limit(&query, (uint32_t)reading->left);
    const int error = query_run(&query, reading->store, take_quarantined, reading);
    return error < 0 ? error : reading->over;
}

static int take_event(void *context, const bson_t *document)
{
    struct history_reading *reading = context;
    struct row_fields fields = {.document = document};
    const uint64_t next = reading->next;
    int answer = 0;

    const uint64_t seq = event_seq(&fields, reading->range->room_id);
    const struct slice body = row_text(&fields, "body", 0, BODY_MAX);
    const int error = row_damaged(reading->store, STORE_MONGO_EVENTS, &fields);
    if (error < 0) {
        return error;
    }
    if (next != 0 && !reading->range->descending && seq > next) {
        answer = fill_hole(reading, next, seq - 1);
    } else if (next != 0 && reading->range->descending && seq < next) {
        answer = fill_hole(reading, seq + 1, next);
    }
    return answer != 0 ? answer : tell_entry(reading, seq, body);
}

/* The part of the range behind the last event, if its end was given: a page that ends at a
 * quarantined message would otherwise miss it, and so would the next one. */
static int fill_end(struct history_reading *reading, uint64_t from, uint64_t to)
{
    const uint64_t next = reading->next;

    if (next == 0) {
        return reading->told ? 0 : fill_hole(reading, from, to); /* told: down to seq 1 */
    }
    if (reading->range->descending) {
        return next >= from ? fill_hole(reading, from, next) : 0;
    }
    return to < SEQ_MAX && next <= to ? fill_hole(reading, next, to) : 0;
}

static int read_history(struct history_reading *reading)
{
    const struct store_range *range = reading->range;
    const uint64_t from = range->from_seq > 1 ? range->from_seq : 1;
    const uint64_t to = range->to_seq < SEQ_MAX ? range->to_seq : SEQ_MAX;
    struct query query;

    if (from > to || range->limit == 0) {
        return 0;
    }
    /* From an open end on nothing is known to be missing. */
    const uint64_t begin = range->descending ? to : from;
    reading->next = begin < SEQ_MAX ? begin : 0;
    query_begin(&query, STORE_MONGO_EVENTS);
    put_event_range(&query.filter, range->room_id, from, to);
    put_sort(&query, "_id", range->descending ? -1 : 1);
    put_only(&query, "body");
    query_limit(&query, range->limit);
    const int error = query_run(&query, reading->store, take_event, reading);
    return error < 0 || reading->over ? error : fill_end(reading, from, to);
}

int store_mongo_history_read(struct store_mongo *store, const struct store_range *range,
                             store_entry_row row, void *context)
{
    struct history_reading reading = {
        .store = store, .range = range, .row = row, .context = context, .left = range->limit};
    int error = read_history(&reading);

    if (error >= 0 && !reading.told) {
        error = room_exists(store, range->room_id);
    }
    return finish(store, error < 0 ? error : 0, "read the history of a room");
}
