/*
 * store_mongo_move.c - the MongoDB store: whole tables, read and written page by page, for
 *                      persist/move.c. See move_store.h for W1 and W2.
 *
 * Events are written by unordered bulks of at most MOVE_ROWS, each acknowledged before the next, so
 * that a copy that was killed lacks none but of the last bulk: it goes on MOVE_ROWS seqs before a
 * room's last one, and passes over what is there. What the server refuses as a document takes the
 * way of store_mongo_insert, into quarantine, and is read from there.
 */
#include "persist/store_mongo_move.h"

#include "core/os.h"

/* --- users --- */

static int take_user(void *context, const bson_t *document)
{
    struct reading *reading = context;
    struct move_rows *rows = reading->rows;
    struct store_user user;
    const int error = page_user(reading->move, document, &user);

    if (error < 0) {
        return error;
    }
    move_cursor_id(reading->cursor, user.user_id);
    rows->users[rows->count++] = (struct store_user){
        .user_id = move_rows_keep(rows, user.user_id),
        .username = move_rows_keep(rows, user.username),
        .folded = move_rows_keep(rows, user.folded),
        .display_name = move_rows_keep(rows, user.display_name),
        .password = move_rows_keep(rows, user.password),
        .created_ms = user.created_ms,
    };
    reading->seen++;
    return 0;
}

static int users_read(struct move_store *base, struct move_cursor *cursor, struct move_rows *rows)
{
    struct mongo_move *move = page_of(base);
    struct reading reading = {.move = move, .cursor = cursor, .rows = rows};
    const uint32_t limit = rows->limit - rows->count;
    bson_t filter = BSON_INITIALIZER;

    page_after(&filter, cursor);
    const int error =
        page_find(move, STORE_MONGO_USERS, &filter, "_id", limit, take_user, &reading);
    bson_destroy(&filter);
    cursor->end = error == 0 && reading.seen < limit;
    return page_fail(move, error, "read users");
}

struct user_search {
    struct mongo_move *move;
    struct store_user *user;
    bool found;
};

static int take_found_user(void *context, const bson_t *document)
{
    struct user_search *search = context;
    struct move_store *base = &search->move->base;
    struct store_user user;
    const int error = page_user(search->move, document, &user);

    if (error < 0) {
        return error;
    }
    base->text_used = 0;
    *search->user = (struct store_user){
        .user_id = move_store_keep(base, user.user_id),
        .username = move_store_keep(base, user.username),
        .folded = move_store_keep(base, user.folded),
        .display_name = move_store_keep(base, user.display_name),
        .password = move_store_keep(base, user.password),
        .created_ms = user.created_ms,
    };
    search->found = true;
    return 1;
}

static int user_find(struct move_store *base, struct slice user_id, struct store_user *ret)
{
    struct mongo_move *move = page_of(base);
    struct user_search search = {.move = move, .user = ret};
    bson_t filter = BSON_INITIALIZER;

    store_mongo_put_text(&filter, "_id", user_id);
    int error = page_find(move, STORE_MONGO_USERS, &filter, "_id", 1, take_found_user, &search);
    bson_destroy(&filter);
    error = error == 0 && !search.found ? -ENOENT : error;
    return page_fail(move, error, "read a user");
}

/* --- writing in bulks --- */

static void keep_refusal(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    struct mongo_move *move = context;

    if (move->refused_count == 0) {
        move->store->error = (struct mongo_error){.error = error, .code = code};
        (void)snprintf(move->store->error.text, sizeof(move->store->error.text), "%s", text);
    }
    move->refused[move->refused_count++ % MOVE_ROWS] = (uint16_t)index;
}

/* The index-th update of a bulk: {_id: id}, and {$set: what the caller puts into values}. */
static bson_t *begin_update(struct mongo_move *move, uint32_t index, struct slice id,
                            bson_t *values)
{
    struct store_mongo_batch *batch = move->store->batch;
    bson_t *filter = store_mongo_blank(batch, 2 * index);
    bson_t *update = store_mongo_blank(batch, 2 * index + 1);

    store_mongo_put_text(filter, "_id", id);
    CHECK(BSON_APPEND_DOCUMENT_BEGIN(update, "$set", values));
    batch->updates[index] =
        (struct mongo_update){.filter = filter, .update = update, .upsert = true};
    return update;
}

static int send_updates(struct mongo_move *move, const char *collection, uint32_t count,
                        const char *what)
{
    struct store_mongo *store = move->store;

    if (count == 0) {
        return 0;
    }
    move->refused_count = 0;
    int error = mongo_update(store->client, collection, store->batch->updates, count, keep_refusal,
                             move, &store->error);
    error = error == 0 && move->refused_count > 0 ? store->error.error : error;
    return page_fail(move, error, what);
}

static int users_write(struct move_store *base, const struct move_rows *rows)
{
    struct mongo_move *move = page_of(base);

    for (uint32_t i = 0; i < rows->count; i++) {
        const struct store_user *user = &rows->users[i];
        bson_t values;
        bson_t *update = begin_update(move, i, user->user_id, &values);
        store_mongo_put_text(&values, "username", user->username);
        store_mongo_put_text(&values, "folded", user->folded);
        store_mongo_put_text(&values, "display_name", user->display_name);
        store_mongo_put_text(&values, "password", user->password);
        store_mongo_put_number(&values, "created_at", user->created_ms);
        CHECK(bson_append_document_end(update, &values));
    }
    return send_updates(move, STORE_MONGO_USERS, rows->count, "write users");
}

/* --- rooms --- */

static int take_room(void *context, const bson_t *document)
{
    struct reading *reading = context;
    struct move_rooms *page = reading->page;
    struct move_room *room = &page->rooms[page->count];
    const int error = page_room(reading->move, document, room);

    if (error < 0) {
        return error;
    }
    room->room.room_id = move_rooms_keep(page, room->room.room_id);
    room->room.name = move_rooms_keep(page, room->room.name);
    room->owner_id = move_rooms_keep(page, room->owner_id);
    room->owner_name = move_rooms_keep(page, room->owner_name);
    move_cursor_id(reading->cursor, room->room.room_id);
    page->count++;
    return 0;
}

static int take_any(void *context, const bson_t *document)
{
    (void)document;
    *(bool *)context = true;
    return 1;
}

static int look_for_quarantine(struct mongo_move *move)
{
    bson_t filter = BSON_INITIALIZER;
    bool any = false;

    const int error = page_find(move, STORE_MONGO_QUARANTINE, &filter, "_id", 1, take_any, &any);
    bson_destroy(&filter);
    if (error == 0) {
        move->quarantine = any;
    }
    return page_fail(move, error, "look into quarantine");
}

static int rooms_read(struct move_store *base, struct move_cursor *cursor, struct move_rooms *rooms)
{
    struct mongo_move *move = page_of(base);
    struct reading reading = {.move = move, .cursor = cursor, .page = rooms};
    bson_t filter = BSON_INITIALIZER;

    rooms->count = 0;
    rooms->text_used = 0;
    page_after(&filter, cursor);
    int error = page_find(move, STORE_MONGO_ROOMS, &filter, "_id", MOVE_ROOMS, take_room, &reading);
    bson_destroy(&filter);
    cursor->end = error == 0 && rooms->count < MOVE_ROOMS;
    error = page_fail(move, error, "read rooms");
    return error < 0 ? error : look_for_quarantine(move);
}

struct room_search {
    struct mongo_move *move;
    struct move_room *room;
    bool found;
};

static int take_found_room(void *context, const bson_t *document)
{
    struct room_search *search = context;
    struct move_store *base = &search->move->base;
    struct move_room room;
    const int error = page_room(search->move, document, &room);

    if (error < 0) {
        return error;
    }
    base->text_used = 0;
    room.room.room_id = move_store_keep(base, room.room.room_id);
    room.room.name = move_store_keep(base, room.room.name);
    room.owner_id = move_store_keep(base, room.owner_id);
    room.owner_name = move_store_keep(base, room.owner_name);
    *search->room = room;
    search->found = true;
    return 1;
}

static int room_find(struct move_store *base, struct slice room_id, struct move_room *ret)
{
    struct mongo_move *move = page_of(base);
    struct room_search search = {.move = move, .room = ret};
    bson_t filter = BSON_INITIALIZER;

    store_mongo_put_text(&filter, "_id", room_id);
    int error = page_find(move, STORE_MONGO_ROOMS, &filter, "_id", 1, take_found_room, &search);
    bson_destroy(&filter);
    error = error == 0 && !search.found ? -ENOENT : error;
    return page_fail(move, error, "read a room");
}

/* Up to where every event is there, whatever the last bulk left out. */
static int find_copied(struct mongo_move *move, struct move_room *room)
{
    uint64_t last = 0;
    const int error =
        move->base.fresh ? 0 : store_mongo_last_seq(move->store, room->room.room_id, &last);

    if (error == 0) {
        room->copied = last > MOVE_ROWS ? last - MOVE_ROWS : 0;
    }
    return page_failed(move, error);
}

static int rooms_write(struct move_store *base, struct move_rooms *rooms)
{
    struct mongo_move *move = page_of(base);

    for (uint32_t i = 0; i < rooms->count; i++) {
        const struct move_room *room = &rooms->rooms[i];
        bson_t values;
        bson_t *update = begin_update(move, i, room->room.room_id, &values);
        store_mongo_put_number(&values, "epoch", room->room.epoch);
        store_mongo_put_text(&values, "name", room->room.name);
        store_mongo_put_number(&values, "visibility", room->room.visibility);
        store_mongo_put_number(&values, "durability", room->room.durability);
        store_mongo_put_number(&values, "members_max", room->room.members_max);
        store_mongo_put_number(&values, "member_count", room->room.member_count);
        store_mongo_put_number(&values, "created_at", room->room.created_ms);
        store_mongo_put_text(&values, "owner_id", room->owner_id);
        store_mongo_put_text(&values, "owner_name", room->owner_name);
        CHECK(bson_append_bool(&values, "renew", -1, room->renew));
        CHECK(bson_append_document_end(update, &values));
    }
    int error = send_updates(move, STORE_MONGO_ROOMS, rooms->count, "write rooms");
    for (uint32_t i = 0; i < rooms->count && error == 0; i++) {
        error = find_copied(move, &rooms->rooms[i]);
    }
    return error;
}

/* --- members --- */

static void add_member(struct reading *reading, const struct move_member *member)
{
    struct move_rows *rows = reading->rows;

    rows->rooms[rows->count] = reading->index;
    rows->members[rows->count++] =
        (struct move_member){.role = member->role,
                             .joined_ms = member->joined_ms,
                             .user_id = move_rows_keep(rows, member->user_id),
                             .username = move_rows_keep(rows, member->username)};
}

static int take_member(void *context, const bson_t *document)
{
    struct reading *reading = context;
    struct row_fields fields = {.document = document};

    const struct move_member member = {
        .role = (uint8_t)row_number(&fields, "role", ROLE_OWNER),
        .joined_ms = row_number(&fields, "joined_at", INT64_MAX),
        .user_id = row_text(&fields, "user_id", 1, STORE_MONGO_ROOM_MAX),
        .username = row_text(&fields, "username", 0, USER_NAME_MAX),
    };
    const int error = row_damaged(reading->move->store, STORE_MONGO_MEMBERS, &fields);
    if (error < 0) {
        return error;
    }
    reading->seen++;
    move_cursor_id(reading->cursor, member.user_id);
    if (slice_equal(member.user_id, reading->room->owner_id)) {
        reading->cursor->owner_seen = true;
    }
    if (member.role != ROLE_NONE) {
        add_member(reading, &member);
    }
    return 0;
}

/* {_id: the room's members after the cursor} */
static void put_members_after(bson_t *filter, struct slice room_id,
                              const struct move_cursor *cursor)
{
    char last[MEMBER_ID_MAX];
    char end[MEMBER_ID_MAX];
    struct slice after =
        page_member_id(room_id, (struct slice){cursor->id, cursor->id_bytes}, last);
    struct slice before = page_member_id(room_id, SLICE(""), end);
    bson_t range;

    end[before.size - 1] = '0'; /* follows '/' */
    CHECK(bson_append_document_begin(filter, "_id", -1, &range));
    store_mongo_put_text(&range, "$gt", after);
    store_mongo_put_text(&range, "$lt", before);
    CHECK(bson_append_document_end(filter, &range));
}

static int members_read(struct move_store *base, const struct move_room *room, uint16_t index,
                        struct move_cursor *cursor, struct move_rows *rows)
{
    struct mongo_move *move = page_of(base);
    struct reading reading = {
        .move = move, .room = room, .index = index, .cursor = cursor, .rows = rows};
    const uint32_t limit = rows->limit - rows->count;
    bson_t filter = BSON_INITIALIZER;

    put_members_after(&filter, room->room.room_id, cursor);
    const int error =
        page_find(move, STORE_MONGO_MEMBERS, &filter, "_id", limit, take_member, &reading);
    bson_destroy(&filter);
    if (error < 0 || reading.seen == limit) {
        return page_fail(move, error, "read members");
    }
    /* The owner is a member since the room was made, until a document says otherwise. */
    const bool owner = !cursor->owner_seen && room->owner_id.size > 0;
    if (owner && rows->count == rows->limit) {
        return 0; /* no space for them: the next page has it */
    }
    if (owner) {
        add_member(&reading, &(struct move_member){.role = ROLE_OWNER,
                                                   .joined_ms = room->room.created_ms,
                                                   .user_id = room->owner_id,
                                                   .username = room->owner_name});
    }
    cursor->end = true;
    return 0;
}

static int members_clear(struct move_store *base, const struct move_room *room)
{
    struct mongo_move *move = page_of(base);
    bson_t filter = BSON_INITIALIZER;
    bson_t command = BSON_INITIALIZER;

    store_mongo_put_member_range(&filter, "_id", room->room.room_id);
    BCON_APPEND(&filter, "role", "{", "$gt", BCON_INT32(ROLE_NONE), "}");
    BCON_APPEND(&command, "update", BCON_UTF8(STORE_MONGO_MEMBERS), "updates", "[", "{", "q",
                BCON_DOCUMENT(&filter), "u", "{", "$set", "{", "role", BCON_INT64(ROLE_NONE), "}",
                "}", "multi", BCON_BOOL(true), "}", "]");
    const int error =
        mongo_command(move->store->client, &command, true, NULL, NULL, &move->store->error);
    bson_destroy(&command);
    bson_destroy(&filter);
    return page_fail(move, error, "write members");
}

static int members_write(struct move_store *base, const struct move_rooms *rooms,
                         const struct move_rows *rows)
{
    struct mongo_move *move = page_of(base);
    char id[MEMBER_ID_MAX];

    for (uint32_t i = 0; i < rows->count; i++) {
        const struct move_member *member = &rows->members[i];
        const struct store_room *room = &rooms->rooms[rows->rooms[i]].room;
        bson_t values;
        bson_t *update =
            begin_update(move, i, page_member_id(room->room_id, member->user_id, id), &values);
        store_mongo_put_text(&values, "room_id", room->room_id);
        store_mongo_put_text(&values, "user_id", member->user_id);
        store_mongo_put_text(&values, "username", member->username);
        store_mongo_put_number(&values, "role", member->role);
        store_mongo_put_number(&values, "seq", room->last_seq);
        store_mongo_put_number(&values, "joined_at", member->joined_ms);
        CHECK(bson_append_document_end(update, &values));
    }
    return send_updates(move, STORE_MONGO_MEMBERS, rows->count, "write members");
}

/* --- events, read --- */

static void add_event(struct reading *reading, const struct record *event)
{
    struct move_rows *rows = reading->rows;
    struct record *kept = &rows->events[rows->count];

    *kept = *event;
    kept->room_id = reading->room->room.room_id;
    kept->username = SLICE("");
    kept->user_id = move_rows_keep(rows, event->user_id);
    kept->body = move_rows_keep(rows, event->body);
    rows->rooms[rows->count++] = reading->index;
}

/* The page takes no more, or not while something is kept free for quarantine. */
static bool is_full(struct reading *reading)
{
    reading->full = move_rows_full(reading->rows) || reading->seen == reading->limit;
    return reading->full;
}

static int take_event(void *context, const bson_t *document)
{
    struct reading *reading = context;

    if (is_full(reading)) {
        return 1;
    }
    struct record event;
    const int error = page_event(reading->move, document, reading->cursor->seq, &event);
    if (error < 0) {
        return error;
    }
    reading->cursor->seq = event.seq;
    reading->seen++;
    add_event(reading, &event);
    return 0;
}

static int take_quarantined(void *context, const bson_t *document)
{
    struct reading *reading = context;
    struct record record = {0};

    if (is_full(reading)) {
        return 1;
    }
    const int error =
        page_quarantined(reading->move, document, reading->room->room.room_id, &record);
    if (error < 0) {
        return error;
    }
    reading->last_quarantined = record.seq;
    reading->seen++;
    record.role = QUARANTINED;
    record.flags &= RECORD_KEYED;
    add_event(reading, &record); /* no text too, which history does not show */
    return 0;
}

/* Whether a seq is missing among the rows from first on, or may be behind them. */
static bool has_holes(const struct reading *reading, uint32_t first, uint64_t after)
{
    const struct move_rows *rows = reading->rows;
    return reading->cursor->end || reading->cursor->seq - after != rows->count - first;
}

/* Adds what quarantine has among the rows from first on, which begin above after. */
static int fill_holes(struct reading *reading, uint32_t first, uint64_t after)
{
    struct mongo_move *move = reading->move;
    struct move_cursor *cursor = reading->cursor;
    uint64_t to = cursor->end ? SEQ_MAX : cursor->seq;
    bson_t filter = BSON_INITIALIZER;

    reading->seen = 0;
    reading->full = false;
    reading->limit = MOVE_ROWS;
    store_mongo_put_text(&filter, "room_id", reading->room->room.room_id);
    BCON_APPEND(&filter, "seq", "{", "$gt", BCON_INT64((int64_t)after), "$lte",
                BCON_INT64((int64_t)to), "}");
    const int error = page_find(move, STORE_MONGO_QUARANTINE, &filter, "seq", MOVE_ROWS,
                                take_quarantined, reading);
    bson_destroy(&filter);
    if (error < 0) {
        return error;
    }
    if (reading->full || reading->seen == MOVE_ROWS) {
        to = reading->last_quarantined; /* the next page goes on there */
        cursor->seq = to;
        cursor->end = false;
    }
    page_merge(reading->rows, first, to);
    cursor->seq = cursor->end && reading->rows->count > first
                      ? reading->rows->events[reading->rows->count - 1].seq
                      : cursor->seq;
    return 0;
}

static int events_read(struct move_store *base, const struct move_room *room, uint16_t index,
                       struct move_cursor *cursor, struct move_rows *rows)
{
    struct mongo_move *move = page_of(base);
    struct reading reading = {
        .move = move, .room = room, .index = index, .cursor = cursor, .rows = rows};
    const uint32_t first = rows->count;
    const uint32_t space = rows->limit - first;
    const uint64_t after = cursor->seq;
    bson_t filter = BSON_INITIALIZER;
    bson_t range;

    if (move->quarantine && space < 2) {
        return 0; /* the caller makes space: one for an event, one for what quarantine has */
    }
    reading.limit = move->quarantine ? space / 2 : space;
    CHECK(bson_append_document_begin(&filter, "_id", -1, &range));
    store_mongo_put_event_id(&range, "$gt", room->room.room_id, after);
    store_mongo_put_event_id(&range, "$lte", room->room.room_id, SEQ_MAX);
    CHECK(bson_append_document_end(&filter, &range));
    int error =
        page_find(move, STORE_MONGO_EVENTS, &filter, "_id", reading.limit, take_event, &reading);
    bson_destroy(&filter);
    if (error == 0) {
        cursor->end = !reading.full && reading.seen < reading.limit;
        error = move->quarantine && has_holes(&reading, first, after)
                    ? fill_holes(&reading, first, after)
                    : 0;
    }
    return page_fail(move, error, "read events");
}

/* --- events, written --- */

/* One record by the way that knows quarantine. */
static int insert_record(struct mongo_move *move, const struct record *event)
{
    const uint32_t size = record_size(event);
    const struct slice record = {move->record, size};
    uint8_t result = STORE_MONGO_UNKEPT;

    record_encode(event, move->record);
    const int error = store_mongo_insert(move->store, &record, 1, &result);
    if (error < 0) {
        return page_failed(move, error);
    }
    if (result != STORE_MONGO_STORED && result != STORE_MONGO_QUARANTINED) {
        (void)snprintf(move->base.why, sizeof(move->base.why),
                       "%s: the room %.*s has another message than the source with seq %llu, or "
                       "refuses it in quarantine too",
                       move->base.name, (int)event->room_id.size, event->room_id.data,
                       (unsigned long long)event->seq);
        return -EUCLEAN;
    }
    move->quarantine = move->quarantine || result == STORE_MONGO_QUARANTINED;
    return 0;
}

static void note_refused(void *context, uint32_t index, int error, int32_t code, const char *text)
{
    struct mongo_move *move = context;

    (void)code, (void)text;
    if (error != -EEXIST && move->refused_count < MOVE_ROWS) { /* else it is there already */
        move->refused[move->refused_count++] = (uint16_t)index;
    }
}

/* As store_mongo_write.c has it. */
static bool is_document_error(int error)
{
    return error < 0 && error != -EAGAIN && error != -EACCES && error != -ENOTSUP &&
           error != -ENOMEM;
}

static void put_event(struct mongo_move *move, bson_t *document, const struct record *event)
{
    const struct slice key = {(const char *)event->key_digest, sizeof(event->key_digest)};

    record_encode(event, move->record);
    store_mongo_put_event_id(document, "_id", event->room_id, event->seq);
    store_mongo_put_text(document, "room_id", event->room_id);
    store_mongo_put_number(document, "seq", event->seq);
    store_mongo_put_number(document, "epoch", event->epoch);
    store_mongo_put_number(document, "mid",
                           store_mongo_mid((struct slice){move->record, record_size(event)}));
    store_mongo_put_number(document, "kind", event->kind);
    store_mongo_put_number(document, "at", event->at_ms);
    store_mongo_put_text(document, "user_id", event->user_id);
    store_mongo_put_text(document, "body", event->body);
    if ((event->flags & RECORD_KEYED) != 0) {
        store_mongo_put_bytes(document, "key", key);
        store_mongo_put_number(document, "digest", event->content_digest);
    }
}

static bool is_text(const struct record *event)
{
    return utf8_valid(event->body.data, event->body.size) &&
           utf8_valid(event->user_id.data, event->user_id.size);
}

static int insert_refused(struct mongo_move *move, const struct move_rows *rows)
{
    int error = 0;

    for (uint32_t i = 0; i < move->refused_count && error == 0; i++) {
        error = insert_record(move, &rows->events[move->refused[i]]);
    }
    return error;
}

static int events_write(struct move_store *base, struct move_rooms *rooms,
                        const struct move_rows *rows)
{
    struct mongo_move *move = page_of(base);
    struct store_mongo *store = move->store;
    struct store_mongo_batch *batch = store->batch;
    uint16_t rows_of[MOVE_ROWS];
    uint16_t odd[MOVE_ROWS];
    uint32_t odd_count = 0;
    uint32_t count = 0;
    int error = 0;

    (void)rooms;
    for (uint32_t i = 0; i < rows->count; i++) {
        if (!is_text(&rows->events[i])) {
            odd[odd_count++] = (uint16_t)i;
            continue;
        }
        bson_t *document = store_mongo_blank(batch, count);
        put_event(move, document, &rows->events[i]);
        rows_of[count] = (uint16_t)i;
        batch->list[count++] = document;
    }
    move->refused_count = 0;
    if (count > 0) {
        error = mongo_insert(store->client, STORE_MONGO_EVENTS, batch->list, count, note_refused,
                             move, &store->error);
    }
    if (error < 0 && !is_document_error(error)) {
        return page_fail(move, error, "write events");
    }
    const bool all = error < 0; /* refused as a whole, for one of them */
    const uint32_t refused = all ? count : move->refused_count;
    for (uint32_t i = 0; i < refused; i++) {
        move->refused[i] = rows_of[all ? i : move->refused[i]];
    }
    memcpy(move->refused + refused, odd, odd_count * sizeof(odd[0]));
    move->refused_count = refused + odd_count;
    return insert_refused(move, rows);
}

/* --- begin and end --- */

static int write_begin(struct move_store *base)
{
    struct mongo_move *move = page_of(base);
    int error = page_failed(move, store_mongo_prepare(move->store));

    error = error < 0 ? error : page_failed(move, store_mongo_claim(move->store, &move->owner));
    return error < 0 ? error : look_for_quarantine(move);
}

static int check(struct move_store *base)
{
    struct mongo_move *move = page_of(base);
    const uint64_t now_ns = os_now_ns();

    if (move->owner == 0 || (move->checked_ns > 0 && now_ns - move->checked_ns < CHECK_NS)) {
        return 0;
    }
    move->checked_ns = now_ns;
    return page_failed(move, store_mongo_check_owner(move->store, move->owner));
}

static int write_end(struct move_store *base)
{
    struct mongo_move *move = page_of(base);

    move->checked_ns = 0;
    const int error = check(base);
    return error < 0 ? error : page_failed(move, store_mongo_run_end(move->store));
}

static void close_move(struct move_store *base)
{
    (void)base; /* all of it is the plan's */
}

static const struct move_store_ops ops = {
    .users_read = users_read,
    .members_read = members_read,
    .events_read = events_read,
    .rooms_read = rooms_read,
    .user_find = user_find,
    .room_find = room_find,
    .write_begin = write_begin,
    .users_write = users_write,
    .rooms_write = rooms_write,
    .events_write = events_write,
    .members_clear = members_clear,
    .members_write = members_write,
    .write_end = write_end,
    .check = check,
    .close = close_move,
};

int store_mongo_move(struct store_mongo *mongo, struct mem_plan *plan, struct move_store **ret,
                     char *ret_why, size_t why_size)
{
    struct mongo_move *move = mem_alloc(plan, "move MongoDB", sizeof(*move));
    char *record = mem_reserve(plan, "move record", MOVE_ROW_BYTES_MAX, 1);

    if (move == NULL || record == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for moving");
        return -ENOMEM;
    }
    move->base.ops = &ops;
    move->store = mongo;
    move->record = record;
    (void)snprintf(move->base.name, sizeof(move->base.name), "MongoDB at %.150s, database %.60s",
                   mongo_hosts(mongo->mongo), mongo_database(mongo->mongo));
    *ret = &move->base;
    return 0;
}

void store_mongo_move_owner(struct move_store *store, uint64_t owner)
{
    page_of(store)->owner = owner;
}

/* --- a source, before anything of it is touched --- */

struct look {
    struct move_store *base; /* keeps server_id */
    struct slice server_id;
    bool schema;
    bool run;
    bool clean;
};

static int take_look(void *context, const bson_t *document)
{
    struct look *look = context;
    const struct slice id = store_mongo_text(document, "_id");

    look->schema = look->schema || slice_equal(id, SLICE("schema"));
    if (slice_equal(id, SLICE("run"))) {
        look->run = true;
        look->base->text_used = 0;
        look->server_id = move_store_keep(look->base, store_mongo_text(document, "server_id"));
        look->clean = store_mongo_number(document, "clean") != 0;
    }
    return 0;
}

int store_mongo_move_look(struct move_store *base, bool *ret_clean, struct slice *ret_server_id)
{
    struct mongo_move *move = page_of(base);
    struct look look = {.base = base};
    bson_t filter = BSON_INITIALIZER;

    int error = page_find(move, STORE_MONGO_META, &filter, "_id", MOVE_ROWS, take_look, &look);
    bson_destroy(&filter);
    if (error < 0) {
        return page_fail(move, error, "look what it holds");
    }
    if (!look.schema) {
        (void)snprintf(base->why, sizeof(base->why),
                       "%s holds nothing of damso's; see [persist] mongodb_uri", base->name);
        return -ENOENT;
    }
    *ret_clean = look.clean || !look.run;
    *ret_server_id = look.server_id;
    return 0;
}
