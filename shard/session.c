/* session.c - see session.h. */
#include "shard/session.h"

#include "core/check.h"
#include "shard/command.h"
#include "shard/egress.h"
#include "shard/event.h"
#include "shard/shard.h"

#include <errno.h>

static void session_error(struct conn *conn, struct slice id, enum error_code error,
                          const char *text)
{
    struct shard *shard = conn->shard;
    struct json_writer writer = json_writer_on(shard->scratch, shard->scratch_bytes);
    event_write_error(&writer, id, error,
                      (struct slice){text, text != NULL ? (uint32_t)strlen(text) : 0});
    conn_write_frame(conn, WS_TEXT, json_written(&writer));
}

static void complain(struct conn *conn, const struct command *command)
{
    session_error(conn, command->id, ERROR_BAD_REQUEST, command->complaint);
}

/* --- calls --- */

static struct slice call_id(const struct call *call)
{
    return (struct slice){call->id, call->id_size};
}

static struct slice call_room(const struct call *call)
{
    return (struct slice){call->room_id, call->room_id_size};
}

static struct call *begin_call(struct conn *conn, const struct command *command, call_done done)
{
    struct call *call = call_take(conn->shard, conn, done);
    if (call == NULL) {
        session_error(conn, command->id, ERROR_UNAVAILABLE, NULL);
        return NULL;
    }
    call->id_size = (uint16_t)command->id.size;
    memcpy(call->id, command->id.data != NULL ? command->id.data : "", command->id.size);
    call->room_id_size = (uint8_t)command->room_id.size;
    memcpy(call->room_id, command->room_id.data != NULL ? command->room_id.data : "",
           command->room_id.size);
    return call;
}

static struct room_request request_of(struct conn *conn, const struct call *call, enum room_op op)
{
    const struct user *user = user_at(conn->shard, conn->user);
    return (struct room_request){.op = (uint8_t)op,
                                 .token = call != NULL ? call_token(conn->shard, call) : 0,
                                 .room_id =
                                     call != NULL ? call_room(call) : (struct slice){NULL, 0},
                                 .user_id = user_id(user),
                                 .username = user_name(user),
                                 .bytes_max = (uint32_t)conn->shard->config->limits_history_bytes};
}

static struct json_writer begin_answer(struct shard *shard, const char *type, struct slice id)
{
    struct json_writer writer = json_writer_on(shard->scratch, shard->scratch_bytes);
    JSON_WRITE(&writer, "{\"type\":\"");
    json_write_raw(&writer, (struct slice){type, (uint32_t)strlen(type)});
    JSON_WRITE(&writer, "\"");
    event_write_id(&writer, id);
    return writer;
}

static void write_room_id(struct json_writer *writer, struct slice id)
{
    JSON_WRITE(writer, ",\"room_id\":\"");
    json_write_raw(writer, id);
    JSON_WRITE(writer, "\"");
}

static void end_answer(struct conn *conn, struct json_writer *writer)
{
    JSON_WRITE(writer, "}");
    CHECK(!writer->overflow); /* the scratch buffer is planned for the largest answer */
    conn_write_frame(conn, WS_TEXT, json_written(writer));
}

/* --- connect --- */

bool session_ensure_user(struct conn *conn, const struct user *user, call_done done,
                         struct slice id)
{
    struct shard *shard = conn->shard;
    struct call *call = call_take(shard, conn, done);
    if (call == NULL) {
        return false;
    }
    call->id_size = (uint16_t)id.size;
    memcpy(call->id, id.size > 0 ? id.data : "", id.size);
    const struct persist_user request = {.head = {.op = PERSIST_USER_ENSURE},
                                         .user_bytes = user->id_size,
                                         .username_bytes = user->name_size};
    const struct slice tails[] = {user_id(user), user_name(user)};
    if (!call_store(shard, call_token(shard, call), &request, sizeof(request), tails, 2)) {
        call_give(shard, call);
        return false;
    }
    return true;
}

enum error_code session_ensured(struct shard *shard, const struct call_answer *answer)
{
    const struct persist_user *reply = answer->reply;
    const char *tail = (const char *)(reply + 1);
    if (reply->head.status != 0) {
        return ERROR_UNAVAILABLE;
    }
    const struct slice id = {tail, reply->user_bytes};
    const struct slice name = {tail + id.size, reply->username_bytes};
    struct user *user = user_take(shard, id, name);
    if (user == NULL) {
        return ERROR_UNAVAILABLE;
    }
    user_set_name(user, name);
    user->known = true;
    user_give(shard, user);
    return ERROR_NONE;
}

static void connected(struct conn *conn, struct slice id)
{
    struct shard *shard = conn->shard;
    struct json_writer writer = begin_answer(shard, "connected", id);

    conn->connected = true;
    conn->session_id = ++shard->next_session << 8 | shard->index;
    JSON_WRITE(&writer, ",\"user_id\":");
    json_write_string(&writer, user_id(user_at(shard, conn->user)));
    JSON_WRITE(&writer, ",\"session_id\":");
    event_write_epoch(&writer, conn->session_id);
    JSON_WRITE(&writer, ",\"ping_interval\":");
    json_write_u64(&writer, shard->config->timeouts_ping_interval / 1000);
    end_answer(conn, &writer);
    timer_arm(shard->wheel, &conn->timer, shard->now_ms + shard->config->timeouts_ping_interval);
}

static void connect_done(struct shard *shard, struct conn *conn, struct call *call,
                         const struct call_answer *answer)
{
    const enum error_code error = session_ensured(shard, answer);
    if (conn != NULL && error != ERROR_NONE) {
        session_error(conn, call_id(call), error, NULL);
        conn_close(conn, CLOSE_BUSY);
    } else if (conn != NULL) {
        connected(conn, call_id(call));
        conn_resume(conn);
    }
    call_give(shard, call);
}

void session_connect(struct conn *conn, struct slice token, struct slice id)
{
    struct shard *shard = conn->shard;
    struct auth_claims claims;
    const enum auth_result result = auth_check(shard->auth, token, shard->wall_ms / 1000, &claims);

    if (result != AUTH_OK) {
        const bool expired = result == AUTH_EXPIRED;
        session_error(conn, id, expired ? ERROR_TOKEN_EXPIRED : ERROR_UNAUTHORIZED,
                      expired ? NULL : "this is no token of ours");
        conn_close(conn, expired ? CLOSE_TOKEN_EXPIRED : CLOSE_UNAUTHORIZED);
        return;
    }
    struct user *user = user_take(shard, (struct slice){claims.sub, claims.sub_size},
                                  (struct slice){claims.name, claims.name_size});
    if (user == NULL) {
        conn_close(conn, CLOSE_BUSY);
        return;
    }
    conn->user = user_index(shard, user);
    if (user->known) {
        connected(conn, id);
    } else if (session_ensure_user(conn, user, connect_done, id)) {
        conn_pause(conn);
    } else {
        conn_close(conn, CLOSE_BUSY);
    }
}

static void on_connect(struct conn *conn, struct command *command)
{
    const struct json_value *token = &command->values[FIELD_TOKEN];
    char text[TOKEN_MAX];

    if (conn->connected) {
        command->complaint = "connected already";
        complain(conn, command);
        return;
    }
    const int size = command_has(command, FIELD_TOKEN) && token->type == JSON_STRING
                         ? json_string_decode(&token->string, text, sizeof(text))
                         : -EINVAL;
    session_connect(conn, (struct slice){text, size > 0 ? (uint32_t)size : 0}, command->id);
}

void session_idle(struct conn *conn)
{
    if (conn->user == POOL_NONE) {
        conn_close(conn, CLOSE_UNAUTHORIZED);
    }
}

void session_closed(struct conn *conn)
{
    struct shard *shard = conn->shard;
    while (conn->waiting != NULL) {
        struct call *call = conn->waiting;
        conn->waiting = call->waiting_next;
        call_give(shard, call);
    }
    while (conn->subs != NULL) {
        room_unsubscribe(shard, conn->subs);
    }
    if (conn->user != POOL_NONE) {
        user_give(shard, user_at(shard, conn->user));
        conn->user = POOL_NONE;
    }
}

/* --- join, leave --- */

static const char too_many_rooms[] = "too many rooms on one connection";

static struct sub *sub_of(struct conn *conn, struct slice room)
{
    for (struct sub *sub = conn->subs; sub != NULL; sub = sub->conn_next) {
        if (slice_equal(room_id(sub->room), room)) {
            return sub;
        }
    }
    return NULL;
}

/* Answers joined; events follow from the subscription's cursor once it is active. */
static void write_joined(struct conn *conn, const struct call *call, const struct sub *sub,
                         bool recovered)
{
    struct shard *shard = conn->shard;
    struct json_writer writer = begin_answer(shard, "joined", call_id(call));

    write_room_id(&writer, call_room(call));
    JSON_WRITE(&writer, ",\"seq\":");
    json_write_u64(&writer, call->to_seq);
    JSON_WRITE(&writer, ",\"epoch\":");
    event_write_epoch(&writer, sub->room->epoch);
    JSON_WRITE(&writer, ",\"recovered\":");
    json_write_bool(&writer, recovered);
    JSON_WRITE(&writer, ",\"member_count\":");
    json_write_u64(&writer, call->limit);
    end_answer(conn, &writer);
    metrics_add(&shard->metrics->joins_total, 1);
}

static void go_live(struct conn *conn, struct sub *sub)
{
    if (conn->state == CONN_WEBSOCKET) {
        sub->active = true;
        egress_offer(sub);
    }
}

/* --- events that were missed and are no longer in this shard's memory: page by page, as the client
 * reads --- */

static void ask_missed(struct conn *conn, struct call *call)
{
    struct room_request request = request_of(conn, call, ROOM_HISTORY);
    const uint32_t half = (uint32_t)conn->shard->config->limits_outbox_bytes / 2;
    request.from_seq = call->from_seq;
    request.to_seq = call->to_seq;
    request.limit = (uint32_t)(call->to_seq - call->from_seq + 1);
    request.bytes_max = request.bytes_max < half ? request.bytes_max : half;
    room_ask(conn->shard, &request);
}

/* Writes a page's events as frames; call->from_seq is the next one missed afterwards. */
static void write_missed(struct conn *conn, struct call *call, const struct room_answer *page)
{
    const char *at = page->payload.data;
    for (uint32_t i = 0; i < page->count && conn->state == CONN_WEBSOCKET; i++) {
        struct persist_entry entry;
        memcpy(&entry, at, sizeof(entry));
        conn_write_frame(conn, WS_TEXT, (struct slice){at + sizeof(entry), entry.body_bytes});
        at += (sizeof(entry) + entry.body_bytes + 7) & ~7UL;
        call->from_seq = entry.seq + 1;
    }
}

/* The next call that waits for the output to drain, if it has. */
static void go_on(struct conn *conn)
{
    if (conn != NULL && conn->out_first == NULL) {
        session_drained(conn);
    }
}

static void missed_done(struct shard *shard, struct conn *conn, struct call *call,
                        const struct call_answer *answer)
{
    const struct room_answer *page = answer->room;
    struct sub *sub = conn != NULL ? sub_of(conn, call_room(call)) : NULL;

    if (sub == NULL || sub->serial != call->sub_serial) { /* left, or joined again, meanwhile */
        call_give(shard, call);
        go_on(conn);
        return;
    }
    if (page->error == ERROR_NONE && page->count > 0) {
        write_missed(conn, call, page);
    } else {
        egress_write_gap(sub, call->from_seq, call->to_seq);
        call->from_seq = call->to_seq + 1;
    }
    if (call->from_seq > call->to_seq || conn->state != CONN_WEBSOCKET) {
        go_live(conn, sub);
        call_give(shard, call);
        go_on(conn);
        return;
    }
    call->waiting_next = conn->waiting;
    conn->waiting = call;
}

void session_drained(struct conn *conn)
{
    struct call *call = conn->waiting;
    if (call != NULL) {
        conn->waiting = call->waiting_next;
        ask_missed(conn, call);
    }
}

/* Where the subscription begins, and the answer. */
static void place_cursor(struct shard *shard, struct conn *conn, struct call *call, struct sub *sub)
{
    struct room *room = sub->room;
    const bool same_log = !call->has_epoch || call->epoch == room->epoch;
    const bool recovered = call->has_after && same_log && call->after_seq <= call->to_seq &&
                           call->to_seq - call->after_seq <= shard->config->limits_recover_events;

    sub->cursor = room->log.durable;
    write_joined(conn, call, sub, recovered);
    if (recovered && !room_log_find(&room->log, call->after_seq + 1, &sub->cursor)) {
        call->done = missed_done;
        call->sub_serial = sub->serial;
        call->from_seq = call->after_seq + 1;
        ask_missed(conn, call);
        return;
    }
    go_live(conn, sub);
    call_give(shard, call);
}

static void join_done(struct shard *shard, struct conn *conn, struct call *call,
                      const struct call_answer *answer)
{
    const struct room_answer *reply = answer->room;
    struct room *room = room_find(shard, call_room(call));

    if (reply->error == ERROR_NONE && room != NULL) {
        room_followed(shard, room, reply->epoch, reply->seq);
    } else {
        room_abandon(shard, call_room(call));
    }
    if (conn == NULL || reply->error != ERROR_NONE || room == NULL) {
        if (conn != NULL) {
            session_error(conn, call_id(call),
                          reply->error != ERROR_NONE ? (enum error_code)reply->error
                                                     : ERROR_UNAVAILABLE,
                          NULL);
        }
        call_give(shard, call);
        return;
    }
    struct sub *old = sub_of(conn, call_room(call));
    if (old != NULL) {
        room_unsubscribe(shard, old);
    }
    /* Looked at again: several joins may have been under way at once. */
    const bool many = conn->sub_count >= shard->config->limits_rooms_per_connection;
    struct sub *sub = many ? NULL : room_subscribe(shard, room, conn);
    if (sub == NULL) {
        session_error(conn, call_id(call), many ? ERROR_RATE_LIMITED : ERROR_UNAVAILABLE,
                      many ? too_many_rooms : NULL);
        call_give(shard, call);
        return;
    }
    call->to_seq = room->log.durable.seq - 1;
    call->limit = reply->member_count;
    place_cursor(shard, conn, call, sub);
}

static void on_join(struct conn *conn, struct command *command)
{
    struct shard *shard = conn->shard;
    uint64_t after = 0;
    const struct json_value *epoch = &command->values[FIELD_EPOCH];

    if (!command_read_room(command) || !command_read_number(command, FIELD_AFTER_SEQ, &after,
                                                            "after_seq: a number of 0 or more")) {
        complain(conn, command);
        return;
    }
    if (command_has(command, FIELD_EPOCH) && epoch->type != JSON_STRING &&
        epoch->type != JSON_NULL) {
        command->complaint = "epoch: a string";
        complain(conn, command);
        return;
    }
    if (conn->sub_count >= shard->config->limits_rooms_per_connection &&
        sub_of(conn, command->room_id) == NULL) {
        session_error(conn, command->id, ERROR_RATE_LIMITED, too_many_rooms);
        return;
    }
    struct call *call = begin_call(conn, command, join_done);
    if (call == NULL) {
        return;
    }
    call->has_after = command_has(command, FIELD_AFTER_SEQ);
    call->after_seq = after;
    call->has_epoch = command_has(command, FIELD_EPOCH) && epoch->type == JSON_STRING;
    if (call->has_epoch && !event_parse_epoch(epoch->string.raw, &call->epoch)) {
        call->epoch = 0; /* matches none */
    }
    struct room_request request = request_of(conn, call, ROOM_JOIN);
    const struct room *replica = room_follow(shard, command->room_id);
    request.follow = true;
    request.replica = replica != NULL ? room_index(shard, replica) : 0;
    if (replica == NULL && room_home(shard, command->room_id) != shard->index) {
        session_error(conn, command->id, ERROR_UNAVAILABLE, NULL);
        call_give(shard, call);
        return;
    }
    room_ask(shard, &request);
}

static void on_leave(struct conn *conn, struct command *command)
{
    if (!command_read_room(command)) {
        complain(conn, command);
        return;
    }
    struct sub *sub = sub_of(conn, command->room_id);
    if (sub != NULL) {
        room_unsubscribe(conn->shard, sub);
    }
    if (command->id.size > 0) {
        struct json_writer writer = begin_answer(conn->shard, "left", command->id);
        write_room_id(&writer, command->room_id);
        end_answer(conn, &writer);
    }
}

/* --- send --- */

bool session_key_valid(struct slice key)
{
    for (uint32_t i = 0; i < key.size; i++) {
        if (key.data[i] < 0x20 || key.data[i] > 0x7e) {
            return false;
        }
    }
    return key.size >= 1 && key.size <= 64;
}

void session_digest(struct room_request *request, struct slice key)
{
    const struct slice who[] = {request->user_id, key};
    const struct slice reply_to = {(const char *)&request->reply_to, sizeof(request->reply_to)};
    const struct slice what[] = {request->text, request->data, reply_to};
    const struct hash128 content = hash128_parts(what, 3);

    request->keyed = true;
    request->key_digest = hash128_parts(who, 2);
    memcpy(&request->content_digest, content.bytes, sizeof(request->content_digest));
}

static void send_done(struct shard *shard, struct conn *conn, struct call *call,
                      const struct call_answer *answer)
{
    const struct room_answer *reply = answer->room;
    if (conn != NULL && reply->error != ERROR_NONE) {
        session_error(conn, call_id(call), (enum error_code)reply->error, NULL);
    } else if (conn != NULL && call->id_size > 0) {
        struct json_writer writer = begin_answer(shard, "ack", call_id(call));
        write_room_id(&writer, call_room(call));
        JSON_WRITE(&writer, ",\"seq\":");
        json_write_u64(&writer, reply->seq);
        JSON_WRITE(&writer, ",\"created_at\":");
        event_write_time(&writer, reply->at_ms, &shard->time_cache);
        JSON_WRITE(&writer, ",\"durability\":\"");
        const char *durability = event_durability(reply->durability);
        json_write_raw(&writer, (struct slice){durability, (uint32_t)strlen(durability)});
        JSON_WRITE(&writer, "\",\"duplicate\":");
        json_write_bool(&writer, reply->duplicate);
        end_answer(conn, &writer);
    }
    call_give(shard, call);
}

/* What a message may hold; says in command what is wrong. ERROR_NONE: fine. */
static enum error_code check_message(const struct config *config, struct command *command,
                                     uint64_t *ret_reply_to)
{
    const struct json_value *text = &command->values[FIELD_TEXT];
    const struct json_value *data = &command->values[FIELD_DATA];
    const struct json_value *key = &command->values[FIELD_IDEMPOTENCY_KEY];
    const char *wrong_text = NULL;

    if (!command_read_room(command) ||
        !command_read_number(command, FIELD_REPLY_TO, ret_reply_to, "reply_to: a seq")) {
        return ERROR_BAD_REQUEST;
    }
    if (!command_has(command, FIELD_TEXT) || text->type != JSON_STRING) {
        wrong_text = "text: a string is needed";
    } else if (text->string.size == 0) {
        wrong_text = "text: must not be empty";
    } else if (command_has(command, FIELD_DATA) && data->type != JSON_OBJECT) {
        wrong_text = "data: an object";
    } else if (command_has(command, FIELD_FILE_IDS)) {
        wrong_text = "file_ids: this server takes no files";
    } else if (command_has(command, FIELD_IDEMPOTENCY_KEY) &&
               (key->type != JSON_STRING || key->string.size > 64)) {
        wrong_text = "idempotency_key: 1-64 printable ASCII characters";
    }
    command->complaint = wrong_text;
    if (wrong_text != NULL) {
        return ERROR_BAD_REQUEST;
    }
    command->complaint = "text: longer than limits.text_bytes";
    return text->string.size > config->limits_text_bytes ? ERROR_TOO_LARGE : ERROR_NONE;
}

static void on_send(struct conn *conn, struct command *command)
{
    struct shard *shard = conn->shard;
    char key_text[64];
    uint64_t reply_to = 0;
    struct slice key = {key_text, 0};
    enum error_code error = check_message(shard->config, command, &reply_to);

    if (error == ERROR_NONE && command_has(command, FIELD_IDEMPOTENCY_KEY)) {
        const int size = json_string_decode(&command->values[FIELD_IDEMPOTENCY_KEY].string,
                                            key_text, sizeof(key_text));
        key.size = size > 0 ? (uint32_t)size : 0;
        if (!session_key_valid(key)) {
            command->complaint = "idempotency_key: 1-64 printable ASCII characters";
            error = ERROR_BAD_REQUEST;
        }
    }
    if (error != ERROR_NONE) {
        session_error(conn, command->id, error, command->complaint);
        return;
    }
    struct call *call = begin_call(conn, command, send_done);
    if (call == NULL) {
        return;
    }
    struct room_request request = request_of(conn, call, ROOM_SEND);
    request.reply_to = reply_to;
    request.text = command->values[FIELD_TEXT].raw;
    request.data =
        command_has(command, FIELD_DATA) ? command->values[FIELD_DATA].raw : (struct slice){0};
    if (key.size > 0) {
        session_digest(&request, key);
    }
    room_ask(shard, &request);
}

/* --- history --- */

void session_history_range(const struct history_wish *wish, struct room_request *request)
{
    const uint64_t before = wish->has_before ? wish->before_seq : UINT64_MAX;
    request->descending = wish->descending;
    request->from_seq = wish->has_after ? wish->after_seq + 1 : 1;
    request->to_seq = before > 0 ? before - 1 : 0;
    request->limit = wish->limit;
}

void session_write_page(struct json_writer *writer, const struct room_answer *answer)
{
    const char *at = answer->payload.data;
    struct persist_entry entry = {.seq = 0};

    JSON_WRITE(writer, "\"events\":[");
    for (uint32_t i = 0; i < answer->count; i++) {
        memcpy(&entry, at, sizeof(entry));
        if (i > 0) {
            JSON_WRITE(writer, ",");
        }
        json_write_raw(writer, (struct slice){at + sizeof(entry), entry.body_bytes});
        at += (sizeof(entry) + entry.body_bytes + 7) & ~7UL;
    }
    JSON_WRITE(writer, "],\"next_cursor\":");
    if (answer->more && answer->count > 0) {
        json_write_u64(writer, entry.seq);
    } else {
        JSON_WRITE(writer, "null");
    }
    JSON_WRITE(writer, ",\"epoch\":");
    event_write_epoch(writer, answer->epoch);
    JSON_WRITE(writer, ",\"last_seq\":");
    json_write_u64(writer, answer->seq);
}

static void history_done(struct shard *shard, struct conn *conn, struct call *call,
                         const struct call_answer *answer)
{
    if (conn != NULL && answer->room->error != ERROR_NONE) {
        session_error(conn, call_id(call), (enum error_code)answer->room->error, NULL);
    } else if (conn != NULL && conn->out_bytes + answer->room->payload.size >
                                   shard->config->limits_outbox_bytes / 2) {
        session_error(conn, call_id(call), ERROR_RATE_LIMITED, "read first what was sent");
    } else if (conn != NULL) {
        struct json_writer writer = begin_answer(shard, "history", call_id(call));
        write_room_id(&writer, call_room(call));
        JSON_WRITE(&writer, ",");
        session_write_page(&writer, answer->room);
        end_answer(conn, &writer);
    }
    call_give(shard, call);
}

static bool read_history(struct command *command, struct history_wish *history)
{
    const struct json_value *order = &command->values[FIELD_ORDER];
    uint64_t limit = HISTORY_LIMIT_DEFAULT;

    if (!command_read_room(command) ||
        !command_read_number(command, FIELD_BEFORE_SEQ, &history->before_seq,
                             "before_seq: a seq") ||
        !command_read_number(command, FIELD_AFTER_SEQ, &history->after_seq, "after_seq: a seq") ||
        !command_read_number(command, FIELD_LIMIT, &limit, "limit: 1-200")) {
        return false;
    }
    if (limit < 1 || limit > HISTORY_LIMIT_MAX) {
        return command_wrong(command, "limit: 1-200");
    }
    history->has_before = command_has(command, FIELD_BEFORE_SEQ);
    history->has_after = command_has(command, FIELD_AFTER_SEQ);
    history->descending = !history->has_after;
    history->limit = (uint32_t)limit;
    if (command_has(command, FIELD_ORDER)) {
        const bool text = order->type == JSON_STRING;
        const bool ascending = text && json_string_equal(&order->string, SLICE("asc"));
        if (!ascending && !(text && json_string_equal(&order->string, SLICE("desc")))) {
            return command_wrong(command, "order: asc or desc");
        }
        history->descending = !ascending;
    }
    return true;
}

static void on_history(struct conn *conn, struct command *command)
{
    struct history_wish history = {0};
    if (!read_history(command, &history)) {
        complain(conn, command);
        return;
    }
    struct call *call = begin_call(conn, command, history_done);
    if (call == NULL) {
        return;
    }
    struct room_request request = request_of(conn, call, ROOM_HISTORY);
    const uint32_t part = (uint32_t)conn->shard->config->limits_outbox_bytes / 4;
    request.bytes_max = request.bytes_max < part ? request.bytes_max : part;
    session_history_range(&history, &request);
    room_ask(conn->shard, &request);
}

/* --- small talk --- */

static void on_ping(struct conn *conn, struct command *command)
{
    struct json_writer writer = begin_answer(conn->shard, "pong", command->id);
    end_answer(conn, &writer);
}

static void on_typing(struct conn *conn, struct command *command)
{
    enum { TYPING_EVERY_MS = 3000 };
    struct shard *shard = conn->shard;
    if (!command_read_room(command)) {
        complain(conn, command);
        return;
    }
    if (conn->typing_ms != 0 && shard->now_ms - conn->typing_ms < TYPING_EVERY_MS) {
        return;
    }
    conn->typing_ms = shard->now_ms;
    struct room_request request = request_of(conn, NULL, ROOM_TYPING);
    request.room_id = command->room_id;
    room_ask(shard, &request);
}

static const struct {
    struct slice type;
    void (*handle)(struct conn *conn, struct command *command);
} types[] = {
    {{"send", 4}, on_send},       {{"join", 4}, on_join},     {{"leave", 5}, on_leave},
    {{"history", 7}, on_history}, {{"typing", 6}, on_typing}, {{"ping", 4}, on_ping},
    {{"connect", 7}, on_connect},
};

void session_message(struct conn *conn, enum ws_opcode opcode, const char *text, uint32_t size)
{
    struct command command;
    const uint32_t count = sizeof(types) / sizeof(types[0]);

    if (opcode != WS_TEXT) {
        conn_close(conn, CLOSE_BINARY);
        return;
    }
    command.seen = 0;
    command.id = command.room_id = (struct slice){NULL, 0};
    if (!command_read((struct slice){text, size}, &command)) {
        complain(conn, &command);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!json_string_equal(&command.values[FIELD_TYPE].string, types[i].type)) {
            continue;
        }
        if (!conn->connected && types[i].handle != on_connect && types[i].handle != on_ping) {
            session_error(conn, command.id, ERROR_UNAUTHORIZED, "connect first");
            conn_close(conn, CLOSE_UNAUTHORIZED);
            return;
        }
        types[i].handle(conn, &command);
        return;
    }
    session_error(conn, command.id, ERROR_BAD_REQUEST, "type: unknown");
}
