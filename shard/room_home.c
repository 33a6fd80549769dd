/* room_home.c - see room_home.h, and room.h for R1 to R4. */
#include "shard/room_home.h"

#include "core/check.h"
#include "core/log.h"
#include "core/ws.h"
#include "shard/event.h"
#include "shard/shard.h"

#include <errno.h>

enum { PAGE_ENTRIES_MAX = 1000 };

/* --- answers --- */

bool room_answer_try(struct shard *shard, const struct room_answer *answer)
{
    const uint32_t asker = os_tag_kind(answer->token);
    if (answer->token == 0) {
        return true;
    }
    if (asker != shard->index) {
        return mesh_answer(shard, asker, answer);
    }
    const struct call_answer local = {.room = answer};
    call_answered(shard, answer->token, &local);
    return true;
}

void room_answer(struct shard *shard, const struct room_answer *answer)
{
    if (!room_answer_try(shard, answer)) {
        mesh_answer_late(shard, os_tag_kind(answer->token), answer);
    }
}

void room_refuse(struct shard *shard, const struct room_request *request, enum error_code error)
{
    const struct room_answer answer = {
        .token = request->token, .op = request->op, .error = (uint8_t)error};
    room_answer(shard, &answer);
}

static struct room_answer answer_of(const struct room *room, const struct room_request *request)
{
    return (struct room_answer){.token = request->token,
                                .op = request->op,
                                .durability = room->durability,
                                .visibility = room->visibility,
                                .epoch = room->epoch,
                                .member_count = room->member_count,
                                .members_max = room->members_max,
                                .seq = room->log.durable.seq - 1};
}

/* --- publishing --- */

static struct pending *next_pending(struct shard *shard)
{
    struct pending_table *table = &shard->pending;
    if (table->end - table->first > table->mask) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_pending);
        return NULL;
    }
    return &table->entries[table->end & table->mask];
}

/* The encoded frame at the end of the room's log, not yet counted: its JSON, or empty when there is
 * no place. */
static struct slice encode_frame(struct shard *shard, struct room *room, const struct event *event,
                                 uint32_t *ret_frame_bytes)
{
    const uint32_t bytes_max = event_bytes_max(event);
    char *frame = room_log_reserve(shard, &room->log, bytes_max + WS_HEADER_SIZE_MAX);
    if (frame == NULL) {
        return (struct slice){NULL, 0};
    }
    /* Most events have a header of four bytes: the text is written behind those, and moved if not.
     */
    struct json_writer writer = json_writer_on(frame + 4, bytes_max);
    event_write(&writer, event, &shard->time_cache);
    CHECK(!writer.overflow); /* event_bytes_max */
    uint8_t header[WS_HEADER_SIZE_MAX];
    const uint32_t header_bytes = ws_encode_header(header, WS_TEXT, writer.size);
    if (header_bytes != 4) {
        memmove(frame + header_bytes, frame + 4, writer.size);
    }
    memcpy(frame, header, header_bytes);
    *ret_frame_bytes = header_bytes + writer.size;
    return (struct slice){frame + header_bytes, writer.size};
}

static uint64_t journal_record(struct shard *shard, const struct room *room,
                               const struct room_request *request, const struct event *event,
                               struct slice body)
{
    struct record record = {.kind = event->kind,
                            .role = event->role,
                            .flags = request->keyed ? RECORD_KEYED : 0,
                            .epoch = room->epoch,
                            .seq = event->seq,
                            .at_ms = event->at_ms,
                            .content_digest = request->content_digest,
                            .room_id = event->room_id,
                            .user_id = event->user_id,
                            .username = event->username,
                            .body = body};
    uint64_t position = 0;
    memcpy(record.key_digest, request->key_digest.bytes, sizeof(record.key_digest));
    void *space = journal_append(shard->journal, record_size(&record),
                                 (enum journal_durability)room->durability, &position);
    if (space == NULL) {
        return 0;
    }
    record_encode(&record, space);
    return position;
}

/* Gives the event the room's next seq and hands it to log and journal: all of it or, when it
 * returns false, nothing. The answer follows when it is durable (R2). */
static bool publish(struct shard *shard, struct room *room, const struct room_request *request,
                    struct event *event)
{
    struct pending *pending = next_pending(shard);
    uint32_t frame_bytes = 0;

    event->seq = room->log.next_seq; /* R1 */
    event->at_ms = shard->wall_ms > room->last_at_ms ? shard->wall_ms : room->last_at_ms;
    event->room_id = room_id(room);
    event->user_id = request->user_id;
    event->username = request->username;
    if (pending == NULL || persist_is_fenced(shard->persist)) {
        return false;
    }
    const struct slice body = encode_frame(shard, room, event, &frame_bytes);
    const uint64_t position = body.size > 0 ? journal_record(shard, room, request, event, body) : 0;
    if (position == 0) {
        return false;
    }
    room_log_commit(&room->log, frame_bytes, 1);
    room->last_at_ms = event->at_ms;
    room->position = position;

    *pending = (struct pending){.position = position,
                                .answer = answer_of(room, request),
                                .end = room_log_end(&room->log),
                                .room = room_index(shard, room),
                                .follow = request->follow,
                                .wants_event = request->wants_event,
                                .replica = request->replica};
    pending->answer.seq = event->seq;
    pending->answer.at_ms = event->at_ms;
    room->in_flight++;
    shard->pending.end++;
    return true;
}

static void answer_duplicate(struct shard *shard, struct room *room,
                             const struct room_request *request, const struct key *key)
{
    struct room_answer answer = answer_of(room, request);
    answer.duplicate = true;
    answer.seq = key->seq;
    answer.at_ms = key->at_ms;
    metrics_add(&shard->metrics->duplicates_total, 1);
    if (key->content_digest != request->content_digest) {
        room_refuse(shard, request, ERROR_CONFLICT);
        return;
    }
    if (key->seq < room->log.durable.seq) {
        room_answer(shard, &answer);
        return;
    }
    /* The first one is still on its way to the disk: this answer must not overtake it. */
    struct pending *pending = next_pending(shard);
    if (pending == NULL) {
        room_refuse(shard, request, ERROR_UNAVAILABLE);
        return;
    }
    const struct pending *newest =
        &shard->pending.entries[(shard->pending.end - 1) & shard->pending.mask];
    *pending = (struct pending){.position = newest->position,
                                .answer = answer,
                                .end = room_log_end(&room->log),
                                .room = room_index(shard, room)};
    room->in_flight++;
    shard->pending.end++;
}

static void handle_send(struct shard *shard, struct room *room, const struct room_request *request)
{
    struct event event = {.kind = RECORD_MESSAGE,
                          .reply_to = request->reply_to,
                          .text = request->text,
                          .data = request->data};

    if (member_find(shard, room, request->user_id) == NULL) {
        room_refuse(shard, request, ERROR_NOT_A_MEMBER);
        return;
    }
    if (event_bytes_max(&event) + request->username.size * 6 + request->user_id.size * 6 >
        ROOM_EVENT_BYTES_MAX) {
        room_refuse(shard, request, ERROR_TOO_LARGE);
        return;
    }
    if (request->reply_to >= room->log.next_seq) {
        room_refuse(shard, request, ERROR_BAD_REQUEST);
        return;
    }
    if (request->keyed) {
        const struct key *known = key_find(shard, room, request->key_digest);
        if (known != NULL) {
            answer_duplicate(shard, room, request, known);
            return;
        }
    }
    if (request->keyed && shard->keys.used == shard->keys.capacity &&
        room->keys.count < shard->config->limits_idempotency_keys) { /* else it forgets one */
        shard_exhausted(&shard->metrics->pool_exhausted_total_keys);
        room_refuse(shard, request, ERROR_UNAVAILABLE);
        return;
    }
    if (!publish(shard, room, request, &event)) {
        room_refuse(shard, request, ERROR_UNAVAILABLE);
        return;
    }
    if (request->keyed) {
        const struct key *key = key_add(shard, room, request->key_digest, request->content_digest,
                                        event.seq, event.at_ms);
        CHECK(key != NULL); /* looked at above */
    }
}

/* --- membership --- */

/* A replica's stream: from where it stands, or from the end of what is durable. */
static struct follower *follow(struct shard *shard, struct room *room, uint32_t asker,
                               uint32_t replica)
{
    struct follower *follower = room->followers;
    while (follower != NULL && follower->shard != asker) {
        follower = follower->next;
    }
    if (follower == NULL) {
        follower = pool_take(&shard->followers);
        if (follower == NULL) {
            shard_exhausted(&shard->metrics->pool_exhausted_total_followers);
            return NULL;
        }
        *follower = (struct follower){.shard = asker,
                                      .replica = replica,
                                      .next = room->followers,
                                      .cursor = room->log.durable};
        room->followers = follower;
    }
    if (follower->replica != replica) {
        follower->replica = replica;
        follower->cursor = room->log.durable;
    }
    return follower;
}

/* Answers a join: what follows begins after answer.seq (X1: on the mesh too). */
static bool answer_join(struct shard *shard, struct room *room, struct room_answer *answer,
                        bool wants_events, uint32_t replica)
{
    const uint32_t asker = os_tag_kind(answer->token);
    answer->seq = room->log.durable.seq - 1;
    if (wants_events && asker != shard->index) {
        const struct follower *follower = follow(shard, room, asker, replica);
        if (follower == NULL) {
            answer->error = ERROR_UNAVAILABLE;
        } else {
            answer->seq = follower->cursor.seq - 1;
        }
    }
    return room_answer_try(shard, answer);
}

static void handle_join(struct shard *shard, struct room *room, const struct room_request *request)
{
    struct event event = {.kind = RECORD_JOINED, .role = ROLE_MEMBER};
    struct room_answer answer = answer_of(room, request);
    enum error_code error = ERROR_NONE;

    if (member_find(shard, room, request->user_id) != NULL) {
        if (!answer_join(shard, room, &answer, request->follow, request->replica)) {
            mesh_answer_late(shard, os_tag_kind(answer.token), &answer);
        }
        return;
    }
    if (room->visibility != ROOM_PUBLIC) {
        error = ERROR_FORBIDDEN;
    } else if (room->member_count >= room->members_max) {
        error = ERROR_ROOM_FULL;
    } else {
        struct member *member =
            member_add(shard, room, request->user_id, request->username, ROLE_MEMBER);
        room->member_count += member != NULL; /* the answer counts him too */
        if (member == NULL) {
            error = ERROR_UNAVAILABLE;
        } else if (!publish(shard, room, request, &event)) {
            member_remove(shard, room, member);
            room->member_count--;
            error = ERROR_UNAVAILABLE;
        }
    }
    if (error != ERROR_NONE) {
        room_refuse(shard, request, error);
    }
}

static void handle_leave(struct shard *shard, struct room *room, const struct room_request *request)
{
    struct member *member = member_find(shard, room, request->user_id);
    struct event event = {.kind = RECORD_LEFT};

    if (member == NULL) { /* who has left already has what he wants */
        const struct room_answer answer = answer_of(room, request);
        room_answer(shard, &answer);
        return;
    }
    event.role = member->role;
    room->member_count--;
    if (!publish(shard, room, request, &event)) {
        room->member_count++;
        room_refuse(shard, request, ERROR_UNAVAILABLE);
        return;
    }
    member_remove(shard, room, member);
    room_expel(shard, room, request->user_id);
    for (const struct follower *follower = room->followers; follower != NULL;
         follower = follower->next) {
        mesh_expel(shard, room, follower, request->user_id);
    }
}

static void handle_unfollow(struct shard *shard, struct room *room,
                            const struct room_request *request)
{
    for (struct follower **link = &room->followers; *link != NULL; link = &(*link)->next) {
        struct follower *follower = *link;
        if (follower->replica == request->replica && follower->shard == request->limit) {
            *link = follower->next;
            pool_give(&shard->followers, follower);
            return;
        }
    }
}

bool room_home_begin(struct shard *shard, struct room *room)
{
    for (uint32_t next = room->members; next != POOL_NONE;) {
        const struct member *member = pool_at(&shard->members, next);
        const struct user *user = user_at(shard, member->user);
        if (member->role == ROLE_OWNER) {
            struct event event = {.kind = RECORD_JOINED, .role = ROLE_OWNER};
            const struct room_request request = {
                .op = ROOM_JOIN, .user_id = user_id(user), .username = user_name(user)};
            return publish(shard, room, &request, &event);
        }
        next = member->room_next;
    }
    return false; /* a store without its owner */
}

/* --- reading --- */

static uint32_t aligned(uint32_t size)
{
    return (size + 7) & ~7U;
}

/* The events of a range out of memory, in the order asked for, as (struct persist_entry, body). */
static void page_from_log(struct shard *shard, const struct room *room,
                          const struct room_request *request, uint64_t from, uint64_t to,
                          struct room_answer *answer)
{
    struct slice events[PAGE_ENTRIES_MAX];
    struct log_cursor cursor;
    const uint32_t count = (uint32_t)(to - from + 1);
    const bool found = room_log_find(&room->log, from, &cursor);

    CHECK(found && count <= PAGE_ENTRIES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        events[i] = room_log_event(&room->log, &cursor);
    }
    uint32_t bytes = 0;
    answer->payload.data = shard->page;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t which = request->descending ? count - 1 - i : i;
        const struct persist_entry entry = {.seq = from + which, .body_bytes = events[which].size};
        const uint32_t size = aligned((uint32_t)sizeof(entry) + entry.body_bytes);
        if ((bytes + size > request->bytes_max && i > 0) || bytes + size > shard->page_bytes) {
            answer->more = true;
            break;
        }
        memcpy(shard->page + bytes, &entry, sizeof(entry));
        memcpy(shard->page + bytes + sizeof(entry), events[which].data, entry.body_bytes);
        bytes += size;
        answer->count++;
    }
    answer->payload.size = bytes;
}

/* The store's page has come: on to whoever asked for it. */
static void page_from_store(struct shard *shard, struct conn *conn, struct call *call,
                            const struct call_answer *answer)
{
    const struct persist_head *head = answer->reply;
    const struct room *room = room_find(shard, (struct slice){call->room_id, call->room_id_size});
    const uint64_t wanted = call->ascending ? call->from_seq : call->to_seq;
    struct room_answer page = {
        .token = call->epoch, /* the asker's: see handle_history */
        .op = ROOM_HISTORY,
        .count = head->count,
        .payload = {(const char *)(head + 1), answer->reply_size - (uint32_t)sizeof(*head)}};
    (void)conn;
    if (room == NULL || head->status != 0) {
        page.error = ERROR_UNAVAILABLE;
    } else {
        const struct persist_entry *first = (const struct persist_entry *)(const void *)(head + 1);
        page.seq = call->after_seq;
        page.epoch = room->epoch;
        /* A store that lags behind would leave a hole between its page and what is live. */
        page.error = head->count == 0 || first->seq != wanted ? ERROR_UNAVAILABLE : ERROR_NONE;
        page.more = call->more || head->count < call->to_seq - call->from_seq + 1;
    }
    if (page.error != ERROR_NONE) {
        page.count = 0;
        page.payload = (struct slice){NULL, 0};
    }
    call_give(shard, call);
    room_answer(shard, &page);
}

static bool ask_store_for_page(struct shard *shard, const struct room *room,
                               const struct room_request *request, uint64_t from, uint64_t to,
                               bool more)
{
    struct call *call = call_take(shard, NULL, page_from_store);
    if (call == NULL) {
        return false;
    }
    call->epoch = request->token;
    call->after_seq = room->log.durable.seq - 1;
    call->from_seq = from;
    call->to_seq = to;
    call->ascending = !request->descending;
    call->more = more;
    call->room_id_size = room->id_size;
    memcpy(call->room_id, room->id, room->id_size);
    const struct slice id = room_id(room);
    const struct persist_page page = {.head = {.op = PERSIST_HISTORY},
                                      .from_seq = from,
                                      .to_seq = to,
                                      .limit = (uint32_t)(to - from + 1),
                                      .bytes_max = request->bytes_max,
                                      .descending = request->descending,
                                      .room_bytes = room->id_size};
    if (!call_store(shard, call_token(shard, call), &page, sizeof(page), &id, 1)) {
        call_give(shard, call);
        return false;
    }
    return true;
}

static void handle_history(struct shard *shard, struct room *room,
                           const struct room_request *request)
{
    struct room_answer answer = answer_of(room, request);
    const uint64_t last = room->log.durable.seq - 1;
    const uint32_t limit = request->limit < PAGE_ENTRIES_MAX ? request->limit : PAGE_ENTRIES_MAX;
    uint64_t from = request->from_seq > 1 ? request->from_seq : 1;
    uint64_t to = request->to_seq < last ? request->to_seq : last;

    if (room->visibility != ROOM_PUBLIC && member_find(shard, room, request->user_id) == NULL) {
        room_refuse(shard, request, ERROR_NOT_A_MEMBER);
        return;
    }
    if (from > to || limit == 0) {
        room_answer(shard, &answer);
        return;
    }
    if (to - from + 1 > limit) {
        answer.more = true;
        *(request->descending ? &from : &to) =
            request->descending ? to - limit + 1 : from + limit - 1;
    }
    if (from < room->log.first_seq && request->descending && to >= room->log.first_seq &&
        !handover_has(shard, room->position)) {
        from = room->log.first_seq; /* what the store may not have yet is in memory */
        answer.more = true;
    }
    if (from >= room->log.first_seq) {
        page_from_log(shard, room, request, from, to, &answer);
        room_answer(shard, &answer);
    } else if (!ask_store_for_page(shard, room, request, from, to, answer.more)) {
        room_refuse(shard, request, ERROR_UNAVAILABLE);
    }
}

static void handle_info(struct shard *shard, const struct room *room,
                        const struct room_request *request)
{
    struct room_answer answer = answer_of(room, request);
    if (room->visibility != ROOM_PUBLIC && member_find(shard, room, request->user_id) == NULL) {
        room_refuse(shard, request, ERROR_FORBIDDEN);
        return;
    }
    answer.at_ms = room->created_ms;
    answer.payload = (struct slice){room->name, room->name_size};
    room_answer(shard, &answer);
}

/* --- typing --- */

static void handle_typing(struct shard *shard, struct room *room,
                          const struct room_request *request)
{
    char text[ROOM_ID_MAX + 6 * USER_ID_MAX + 6 * USERNAME_MAX + 128];
    struct json_writer writer = json_writer_on(text, sizeof(text));

    if (member_find(shard, room, request->user_id) == NULL) {
        return;
    }
    JSON_WRITE(&writer, "{\"type\":\"typing\",\"room_id\":\"");
    json_write_raw(&writer, room_id(room));
    JSON_WRITE(&writer, "\",\"user_id\":");
    json_write_string(&writer, request->user_id);
    JSON_WRITE(&writer, ",\"username\":");
    json_write_string(&writer, request->username);
    JSON_WRITE(&writer, "}");
    room_show_volatile(shard, room, request->user_id, json_written(&writer));
    for (const struct follower *follower = room->followers; follower != NULL;
         follower = follower->next) {
        mesh_volatile(shard, room, follower, request->user_id, json_written(&writer));
    }
}

void room_show_volatile(struct shard *shard, struct room *room, struct slice from,
                        struct slice text)
{
    for (struct sub *sub = room->subs, *next = NULL; sub != NULL; sub = next) {
        next = sub->room_next; /* without a buffer for it the connection ends, and its sub goes */
        /* Whoever is behind gets no volatile words on top: output is for events. */
        if (sub->active && sub->conn->out_bytes < BLOCK_BYTES &&
            !slice_equal(user_id(user_at(shard, sub->conn->user)), from)) {
            conn_write_frame(sub->conn, WS_TEXT, text);
        }
    }
}

void room_home_handle(struct shard *shard, struct room *room, const struct room_request *request)
{
    switch (request->op) {
    case ROOM_SEND:
        handle_send(shard, room, request);
        break;
    case ROOM_JOIN:
        handle_join(shard, room, request);
        break;
    case ROOM_LEAVE:
        handle_leave(shard, room, request);
        break;
    case ROOM_HISTORY:
        handle_history(shard, room, request);
        break;
    case ROOM_INFO:
        handle_info(shard, room, request);
        break;
    case ROOM_TYPING:
        handle_typing(shard, room, request);
        break;
    default:
        handle_unfollow(shard, room, request);
        break;
    }
}

/* --- durable --- */

static void show(struct shard *shard, struct room *room, struct log_cursor end)
{
    if (end.seq > room->log.durable.seq) {
        room_log_set_durable(&room->log, end);
        room_fan_out_later(shard, room);
        room_replicate_later(shard, room);
    }
}

/* The event, if it is in memory. */
static struct slice event_of(const struct room_log *log, uint64_t seq)
{
    struct log_cursor cursor;
    return room_log_find(log, seq, &cursor) ? room_log_event(log, &cursor)
                                            : (struct slice){NULL, 0};
}

/* False: the asker's ring is full; the entry waits. */
static bool finish(struct shard *shard, struct pending *pending, bool failed)
{
    struct room *room = pool_at(&shard->rooms, pending->room);
    bool done = false;

    if (failed) {
        pending->answer.error = ERROR_UNAVAILABLE;
    } else {
        show(shard, room, pending->end);
    }
    pending->answer.payload = pending->wants_event && !failed
                                  ? event_of(&room->log, pending->answer.seq)
                                  : (struct slice){NULL, 0};
    if (pending->answer.op == ROOM_JOIN && !failed) {
        done = answer_join(shard, room, &pending->answer, pending->follow, pending->replica);
    } else {
        done = room_answer_try(shard, &pending->answer);
    }
    if (done) {
        room->in_flight--;
        room->used_ms = shard->now_ms;
        metrics_add(&shard->metrics->acks_total, pending->answer.op == ROOM_SEND && !failed);
        if (room->state == ROOM_LOADING) { /* last: a room that cannot begin goes */
            room_loaded(shard, room, failed ? ERROR_UNAVAILABLE : ERROR_NONE);
        }
    }
    return done;
}

void rooms_durable(struct shard *shard)
{
    struct pending_table *table = &shard->pending;
    const uint64_t durable = journal_durable(shard->journal);
    const bool failed = journal_state(shard->journal) == JOURNAL_FAILED;

    /* Answers may publish again (a page of history does not, a service might): a bounded look. */
    for (uint32_t left = table->end - table->first; left > 0; left--) {
        struct pending *pending = &table->entries[table->first & table->mask];
        const bool is_durable = pending->position <= durable;
        if (!is_durable && !failed) {
            break;
        }
        if (!finish(shard, pending, !is_durable)) {
            break;
        }
        table->first++;
    }
}
