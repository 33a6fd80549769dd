/* rest_rooms.c - /v1/rooms: rooms, membership and messages. What WebSocket shows, from the same
 * rooms. */
#include "core/check.h"
#include "shard/event.h"
#include "shard/rest.h"
#include "shard/session.h"
#include "shard/shard.h"

#include <errno.h>

enum { QUERY_BYTES_MAX = 128 };

static bool has(uint64_t seen, uint32_t field)
{
    return (seen >> field & 1) != 0;
}

/* --- asking rooms --- */

static struct slice call_room(const struct call *call)
{
    return (struct slice){call->room_id, call->room_id_size};
}

/* A request to the room in the path; false: answered. */
static bool begin(struct rest *rest, enum room_op op, call_done done, struct room_request *ret,
                  struct call **ret_call)
{
    const struct slice id = rest->segments[2];
    struct shard *shard = rest->conn->shard;

    if (!room_id_valid(id)) {
        rest_error(rest->conn, ERROR_NOT_FOUND, "there is no such room");
        return false;
    }
    struct call *call = rest_call(rest, done);
    if (call == NULL) {
        return false;
    }
    call->room_id_size = (uint8_t)id.size;
    memcpy(call->room_id, id.data, id.size);
    *ret = (struct room_request){.op = (uint8_t)op,
                                 .token = call_token(shard, call),
                                 .room_id = call_room(call),
                                 .user_id = user_id(rest->user),
                                 .username = user_name(rest->user),
                                 .bytes_max = (uint32_t)shard->config->limits_history_bytes};
    *ret_call = call;
    return true;
}

/* The common part of every answer: true if there is somebody to answer and nothing went wrong. */
static bool good(struct conn *conn, const struct room_answer *answer)
{
    if (conn != NULL && answer->error != ERROR_NONE) {
        rest_error(conn, (enum error_code)answer->error,
                   answer->error == ERROR_NOT_FOUND ? "there is no such room" : NULL);
    }
    return conn != NULL && answer->error == ERROR_NONE;
}

static void end(struct shard *shard, struct conn *conn, struct call *call)
{
    call_give(shard, call);
    if (conn != NULL) {
        conn_resume(conn);
    }
}

/* --- one room --- */

struct room_words {
    struct slice id, name;
    uint8_t visibility, durability;
    uint64_t last_seq, epoch, created_ms;
    uint32_t member_count, members_max;
};

static void write_room(struct shard *shard, struct json_writer *writer,
                       const struct room_words *room)
{
    const char *durability = event_durability(room->durability);
    JSON_WRITE(writer, "{\"room_id\":\"");
    json_write_raw(writer, room->id);
    JSON_WRITE(writer, "\",\"name\":");
    json_write_string(writer, room->name);
    json_write_raw(writer, room->visibility == ROOM_PUBLIC ? SLICE(",\"visibility\":\"public\"")
                                                           : SLICE(",\"visibility\":\"private\""));
    JSON_WRITE(writer, ",\"member_count\":");
    json_write_u64(writer, room->member_count);
    JSON_WRITE(writer, ",\"max_members\":");
    json_write_u64(writer, room->members_max);
    JSON_WRITE(writer, ",\"durability\":\"");
    json_write_raw(writer, (struct slice){durability, (uint32_t)strlen(durability)});
    JSON_WRITE(writer, "\",\"last_seq\":");
    json_write_u64(writer, room->last_seq);
    JSON_WRITE(writer, ",\"epoch\":");
    event_write_epoch(writer, room->epoch);
    JSON_WRITE(writer, ",\"created_at\":");
    event_write_time(writer, room->created_ms, &shard->time_cache);
    JSON_WRITE(writer, "}");
}

static void info_done(struct shard *shard, struct conn *conn, struct call *call,
                      const struct call_answer *answer)
{
    const struct room_answer *reply = answer->room;
    if (good(conn, reply)) {
        struct json_writer writer = rest_json(shard);
        const struct room_words room = {.id = call_room(call),
                                        .name = reply->payload,
                                        .visibility = reply->visibility,
                                        .durability = reply->durability,
                                        .last_seq = reply->seq,
                                        .epoch = reply->epoch,
                                        .created_ms = reply->at_ms,
                                        .member_count = reply->member_count,
                                        .members_max = reply->members_max};
        write_room(shard, &writer, &room);
        rest_answer_json(conn, 200, &writer);
    }
    end(shard, conn, call);
}

static void get_room(struct rest *rest)
{
    struct room_request request;
    struct call *call;
    if (begin(rest, ROOM_INFO, info_done, &request, &call)) {
        room_ask(rest->conn->shard, &request);
    }
}

static void member_done(struct shard *shard, struct conn *conn, struct call *call,
                        const struct call_answer *answer)
{
    const struct room_answer *reply = answer->room;
    if (good(conn, reply)) {
        struct json_writer writer = rest_json(shard);
        JSON_WRITE(&writer, "{\"room_id\":\"");
        json_write_raw(&writer, call_room(call));
        JSON_WRITE(&writer, "\",\"member_count\":");
        json_write_u64(&writer, reply->member_count);
        JSON_WRITE(&writer, ",\"seq\":");
        json_write_u64(&writer, reply->seq);
        JSON_WRITE(&writer, "}");
        rest_answer_json(conn, 200, &writer);
    }
    end(shard, conn, call);
}

static void change_membership(struct rest *rest, enum room_op op)
{
    struct room_request request;
    struct call *call;
    if (begin(rest, op, member_done, &request, &call)) {
        room_ask(rest->conn->shard, &request);
    }
}

static void post_join(struct rest *rest)
{
    change_membership(rest, ROOM_JOIN);
}

static void post_leave(struct rest *rest)
{
    change_membership(rest, ROOM_LEAVE);
}

/* --- rooms of the store --- */

enum {
    CREATE_ROOM_ID,
    CREATE_NAME,
    CREATE_VISIBILITY,
    CREATE_MEMBERS,
    CREATE_DURABILITY,
    CREATE_FIELDS
};

static const struct slice create_names[CREATE_FIELDS] = {
    {"room_id", 7}, {"name", 4}, {"visibility", 10}, {"max_members", 11}, {"durability", 10}};

static struct room_words words_of(const struct persist_room *reply, const char *tail)
{
    const uint32_t before_name =
        (uint32_t)reply->room_bytes + reply->user_bytes + reply->username_bytes;
    return (struct room_words){.id = {tail, reply->room_bytes},
                               .name = {tail + before_name, reply->name_bytes},
                               .visibility = reply->visibility,
                               .durability = reply->durability,
                               .last_seq = reply->last_seq,
                               .epoch = reply->epoch,
                               .created_ms = reply->created_ms,
                               .member_count = reply->member_count,
                               .members_max = reply->members_max};
}

static void create_done(struct shard *shard, struct conn *conn, struct call *call,
                        const struct call_answer *answer)
{
    const struct persist_room *reply = answer->reply;
    if (conn != NULL && reply->head.status == -EEXIST) {
        rest_error(conn, ERROR_CONFLICT, "a room with this room_id exists");
    } else if (conn != NULL && reply->head.status == -EINVAL) {
        rest_error(conn, ERROR_BAD_REQUEST, "name: text without control characters is needed");
    } else if (conn != NULL && reply->head.status != 0) {
        rest_error(conn, ERROR_UNAVAILABLE, NULL);
    } else if (conn != NULL) {
        struct json_writer writer = rest_json(shard);
        const struct room_words room = words_of(reply, (const char *)(reply + 1));
        write_room(shard, &writer, &room);
        rest_answer_json(conn, 201, &writer);
    }
    end(shard, conn, call);
}

/* Index of a string among words, or -1. */
static int choice(const struct json_value *value, const struct slice *words, int count)
{
    for (int i = 0; i < count && value->type == JSON_STRING; i++) {
        if (json_string_equal(&value->string, words[i])) {
            return i;
        }
    }
    return -1;
}

static const char *read_room(const struct config *config, const struct json_value *values,
                             uint64_t seen, struct persist_room *room)
{
    static const struct slice visibilities[] = {{"public", 6}, {"private", 7}};
    static const struct slice durabilities[] = {{"memory", 6}, {"journal", 7}, {"fsync", 5}};
    const struct json_value *members = &values[CREATE_MEMBERS];
    const struct json_value *name = &values[CREATE_NAME];
    const struct json_value *id = &values[CREATE_ROOM_ID];

    if (has(seen, CREATE_ROOM_ID) &&
        (id->type != JSON_STRING || id->string.escaped || !room_id_valid(id->string.raw))) {
        return "room_id: 1-64 characters of A-Z a-z 0-9 . _ -";
    }
    if (!has(seen, CREATE_NAME) || name->type != JSON_STRING || name->string.size == 0 ||
        name->string.size > ROOM_NAME_MAX) {
        return "name: a string of 1-128 bytes is needed";
    }
    if (has(seen, CREATE_VISIBILITY)) {
        const int which = choice(&values[CREATE_VISIBILITY], visibilities, 2);
        if (which < 0) {
            return "visibility: public or private";
        }
        room->visibility = (uint8_t)which;
    }
    room->durability = (uint8_t)config->journal_durability;
    if (has(seen, CREATE_DURABILITY)) {
        const int which = choice(&values[CREATE_DURABILITY], durabilities, 3);
        if (which < 0) {
            return "durability: memory, journal or fsync";
        }
        room->durability = (uint8_t)which;
    }
    room->members_max = (uint32_t)config->limits_room_members;
    if (has(seen, CREATE_MEMBERS)) {
        if (members->type != JSON_NUMBER || !members->is_integer || members->integer < 1 ||
            (uint64_t)members->integer > config->limits_room_members) {
            return "max_members: a number from 1 to limits.room_members";
        }
        room->members_max = (uint32_t)members->integer;
    }
    return NULL;
}

static void post_room(struct rest *rest)
{
    struct shard *shard = rest->conn->shard;
    struct json_value values[CREATE_FIELDS];
    uint64_t seen = 0;
    char name[ROOM_NAME_MAX];
    struct persist_room request = {.head = {.op = PERSIST_ROOM_CREATE}};

    if (!rest_body(rest, create_names, CREATE_FIELDS, values, &seen)) {
        return;
    }
    const char *complaint = read_room(shard->config, values, seen, &request);
    if (complaint != NULL) {
        rest_error(rest->conn, ERROR_BAD_REQUEST, complaint);
        return;
    }
    struct call *call = rest_call(rest, create_done);
    if (call == NULL) {
        return;
    }
    const int name_size = json_string_decode(&values[CREATE_NAME].string, name, sizeof(name));
    const struct slice tails[] = {has(seen, CREATE_ROOM_ID) ? values[CREATE_ROOM_ID].string.raw
                                                            : (struct slice){"", 0},
                                  {name, name_size > 0 ? (uint32_t)name_size : 0},
                                  user_id(rest->user),
                                  user_name(rest->user)};
    request.room_bytes = (uint8_t)tails[0].size;
    request.name_bytes = (uint16_t)tails[1].size;
    request.user_bytes = (uint8_t)tails[2].size;
    request.username_bytes = (uint8_t)tails[3].size;
    request.created_ms = shard->wall_ms;
    if (!call_store(shard, call_token(shard, call), &request, sizeof(request), tails, 4)) {
        rest_error(rest->conn, ERROR_UNAVAILABLE, NULL);
        end(shard, rest->conn, call);
    }
}

static void list_done(struct shard *shard, struct conn *conn, struct call *call,
                      const struct call_answer *answer)
{
    const struct persist_head *head = answer->reply;
    const char *at = (const char *)(head + 1);
    struct json_writer writer = rest_json(shard);
    struct room_words room = {0};

    if (conn != NULL && head->status < 0) {
        rest_error(conn, ERROR_UNAVAILABLE, NULL);
        end(shard, conn, call);
        return;
    }
    JSON_WRITE(&writer, "{\"rooms\":[");
    for (uint32_t i = 0; i < head->count; i++) {
        struct persist_room entry;
        memcpy(&entry, at, sizeof(entry));
        room = words_of(&entry, at + sizeof(entry));
        json_write_raw(&writer, i > 0 ? SLICE(",") : (struct slice){"", 0});
        write_room(shard, &writer, &room);
        at += (sizeof(entry) + entry.room_bytes + entry.user_bytes + entry.username_bytes +
               entry.name_bytes + 7) &
              ~7UL;
    }
    JSON_WRITE(&writer, "],\"next_cursor\":");
    if (head->count > 0 && (head->status > 0 || head->count == call->limit)) {
        json_write_string(&writer, room.id);
    } else {
        JSON_WRITE(&writer, "null");
    }
    JSON_WRITE(&writer, "}");
    if (conn != NULL) {
        rest_answer_json(conn, 200, &writer);
    }
    end(shard, conn, call);
}

/* --- queries --- */

enum { QUERY_LIMIT, QUERY_BEFORE, QUERY_AFTER, QUERY_ORDER, QUERY_TEXT, QUERY_CURSOR, QUERIES };

struct query {
    uint64_t numbers[QUERIES];
    char text[2][QUERY_BYTES_MAX];
    uint32_t sizes[2];
    bool descending;
    uint64_t seen;
};

static bool read_decimal(struct slice text, uint64_t *ret)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    *ret = number;
    return text.size >= 1 && text.size <= 18;
}

/* NULL, or what is wrong. */
static const char *read_parameter(struct query *query, int which, struct slice value)
{
    char text[QUERY_BYTES_MAX];
    const int size = value.data != NULL ? http_query_decode(value, text, sizeof(text)) : -EINVAL;
    const struct slice plain = {text, size > 0 ? (uint32_t)size : 0};

    if (size < 0) {
        return "the query is malformed";
    }
    query->seen |= 1ULL << which;
    if (which == QUERY_TEXT || which == QUERY_CURSOR) {
        memcpy(query->text[which - QUERY_TEXT], text, plain.size);
        query->sizes[which - QUERY_TEXT] = plain.size;
        return NULL;
    }
    if (which == QUERY_ORDER) {
        query->descending = slice_equal(plain, SLICE("desc"));
        return query->descending || slice_equal(plain, SLICE("asc")) ? NULL : "order: asc or desc";
    }
    return read_decimal(plain, &query->numbers[which]) ? NULL
                                                       : "limit, before_seq, after_seq: numbers";
}

/* False: answered. */
static bool read_query(struct rest *rest, struct query *query)
{
    static const struct slice names[QUERIES] = {{"limit", 5}, {"before_seq", 10}, {"after_seq", 9},
                                                {"order", 5}, {"query", 5},       {"cursor", 6}};
    struct slice left = rest->request->query;
    struct slice key;
    struct slice value;
    const char *complaint = NULL;

    *query = (struct query){.numbers = {[QUERY_LIMIT] = HISTORY_LIMIT_DEFAULT}};
    while (complaint == NULL && http_query_next(&left, &key, &value)) {
        for (int i = 0; i < QUERIES && complaint == NULL; i++) {
            if (slice_equal(key, names[i])) {
                complaint = read_parameter(query, i, value);
            }
        }
    }
    if (complaint == NULL &&
        (query->numbers[QUERY_LIMIT] < 1 || query->numbers[QUERY_LIMIT] > HISTORY_LIMIT_MAX)) {
        complaint = "limit: 1-200";
    }
    if (complaint != NULL) {
        rest_error(rest->conn, ERROR_BAD_REQUEST, complaint);
    }
    return complaint == NULL;
}

static void get_rooms(struct rest *rest)
{
    struct shard *shard = rest->conn->shard;
    struct query query;
    if (!read_query(rest, &query)) {
        return;
    }
    struct call *call = rest_call(rest, list_done);
    if (call == NULL) {
        return;
    }
    call->limit = (uint32_t)query.numbers[QUERY_LIMIT];
    const struct slice tails[] = {{query.text[0], query.sizes[0]}, {query.text[1], query.sizes[1]}};
    const struct persist_list request = {.head = {.op = PERSIST_ROOM_LIST},
                                         .limit = (uint32_t)query.numbers[QUERY_LIMIT],
                                         .query_bytes = (uint16_t)query.sizes[0],
                                         .cursor_bytes = (uint16_t)query.sizes[1]};
    if (!call_store(shard, call_token(shard, call), &request, sizeof(request), tails, 2)) {
        rest_error(rest->conn, ERROR_UNAVAILABLE, NULL);
        end(shard, rest->conn, call);
    }
}

/* --- messages --- */

static void page_done(struct shard *shard, struct conn *conn, struct call *call,
                      const struct call_answer *answer)
{
    if (good(conn, answer->room)) {
        struct json_writer writer = rest_json(shard);
        JSON_WRITE(&writer, "{");
        session_write_page(&writer, answer->room);
        JSON_WRITE(&writer, "}");
        rest_answer_json(conn, 200, &writer);
    }
    end(shard, conn, call);
}

static void get_messages(struct rest *rest)
{
    struct room_request request;
    struct call *call;
    struct query query;
    if (!read_query(rest, &query) || !begin(rest, ROOM_HISTORY, page_done, &request, &call)) {
        return;
    }
    const struct history_wish wish = {
        .has_before = has(query.seen, QUERY_BEFORE),
        .has_after = has(query.seen, QUERY_AFTER),
        .before_seq = query.numbers[QUERY_BEFORE],
        .after_seq = query.numbers[QUERY_AFTER],
        .limit = (uint32_t)query.numbers[QUERY_LIMIT],
        .descending =
            has(query.seen, QUERY_ORDER) ? query.descending : !has(query.seen, QUERY_AFTER),
    };
    const uint32_t half = (uint32_t)rest->conn->shard->config->limits_outbox_bytes / 2;
    request.bytes_max = request.bytes_max < half ? request.bytes_max : half;
    session_history_range(&wish, &request);
    room_ask(rest->conn->shard, &request);
}

enum { POST_TEXT, POST_DATA, POST_REPLY_TO, POST_FILE_IDS, POST_FIELDS };

static const struct slice post_names[POST_FIELDS] = {
    {"text", 4}, {"data", 4}, {"reply_to", 8}, {"file_ids", 8}};

/* A duplicate's event, read back by its seq. */
static void posted_event(struct shard *shard, struct conn *conn, struct call *call,
                         const struct call_answer *answer)
{
    struct persist_entry entry;
    if (good(conn, answer->room)) {
        if (answer->room->count != 1) {
            rest_error(conn, ERROR_UNAVAILABLE, NULL);
        } else {
            memcpy(&entry, answer->room->payload.data, sizeof(entry));
            const struct slice body = {answer->room->payload.data + sizeof(entry),
                                       entry.body_bytes};
            rest_answer(conn, call->limit, SLICE("application/json"), body,
                        SLICE("Cache-Control: no-store\r\n"));
        }
    }
    end(shard, conn, call);
}

static void posted(struct shard *shard, struct conn *conn, struct call *call,
                   const struct call_answer *answer)
{
    const struct room_answer *reply = answer->room;
    if (!good(conn, reply)) {
        end(shard, conn, call);
        return;
    }
    call->limit = reply->duplicate ? 200 : 201;
    if (reply->payload.size > 0) {
        rest_answer(conn, call->limit, SLICE("application/json"), reply->payload,
                    SLICE("Cache-Control: no-store\r\n"));
        end(shard, conn, call);
        return;
    }
    call->done = posted_event;
    const struct room_request request = {.op = ROOM_HISTORY,
                                         .token = call_token(shard, call),
                                         .room_id = call_room(call),
                                         .user_id = {call->id, call->id_size},
                                         .from_seq = reply->seq,
                                         .to_seq = reply->seq,
                                         .limit = 1,
                                         .bytes_max =
                                             (uint32_t)shard->config->limits_history_bytes};
    room_ask(shard, &request);
}

static const char *read_post(const struct json_value *values, uint64_t seen)
{
    const struct json_value *text = &values[POST_TEXT];
    const struct json_value *reply_to = &values[POST_REPLY_TO];

    if (!has(seen, POST_TEXT) || text->type != JSON_STRING || text->string.size == 0) {
        return "text: a string that is not empty is needed";
    }
    if (has(seen, POST_DATA) && values[POST_DATA].type != JSON_OBJECT) {
        return "data: an object";
    }
    if (has(seen, POST_FILE_IDS)) {
        return "file_ids: this server takes no files";
    }
    if (has(seen, POST_REPLY_TO) &&
        (reply_to->type != JSON_NUMBER || !reply_to->is_integer || reply_to->integer < 1)) {
        return "reply_to: a seq";
    }
    return NULL;
}

static void post_message(struct rest *rest)
{
    struct shard *shard = rest->conn->shard;
    const struct slice key = rest->request->idempotency_key;
    struct json_value values[POST_FIELDS];
    uint64_t seen = 0;
    struct room_request request;
    struct call *call;

    if (!rest_body(rest, post_names, POST_FIELDS, values, &seen)) {
        return;
    }
    const char *complaint = read_post(values, seen);
    if (complaint == NULL && key.data != NULL && !session_key_valid(key)) {
        complaint = "Idempotency-Key: 1-64 printable ASCII characters";
    }
    if (complaint != NULL) {
        rest_error(rest->conn, ERROR_BAD_REQUEST, complaint);
        return;
    }
    if (values[POST_TEXT].string.size > shard->config->limits_text_bytes) {
        rest_error(rest->conn, ERROR_TOO_LARGE, "text: longer than limits.text_bytes");
        return;
    }
    if (!begin(rest, ROOM_SEND, posted, &request, &call)) {
        return;
    }
    request.wants_event = true;
    request.text = values[POST_TEXT].raw;
    request.data = has(seen, POST_DATA) ? values[POST_DATA].raw : (struct slice){0};
    request.reply_to = has(seen, POST_REPLY_TO) ? (uint64_t)values[POST_REPLY_TO].integer : 0;
    if (key.data != NULL) {
        session_digest(&request, key);
    }
    call->id_size = rest->user->id_size; /* who reads the event back */
    memcpy(call->id, rest->user->id, rest->user->id_size);
    room_ask(shard, &request);
}

const struct route rest_room_routes[] = {
    {HTTP_POST, "/v1/rooms", false, post_room},
    {HTTP_GET, "/v1/rooms", false, get_rooms},
    {HTTP_GET, "/v1/rooms/:", false, get_room},
    {HTTP_POST, "/v1/rooms/:/join", false, post_join},
    {HTTP_POST, "/v1/rooms/:/leave", false, post_leave},
    {HTTP_GET, "/v1/rooms/:/messages", false, get_messages},
    {HTTP_POST, "/v1/rooms/:/messages", false, post_message},
};
const uint32_t rest_room_route_count = sizeof(rest_room_routes) / sizeof(rest_room_routes[0]);
