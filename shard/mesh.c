/* mesh.c - see mesh.h for the rings, X1 and X2. */
#include "shard/mesh.h"

#include "core/check.h"
#include "core/log.h"
#include "shard/room.h"
#include "shard/room_home.h"
#include "shard/shard.h"

#include <errno.h>

enum {
    RECORDS_A_TURN_MAX = 1024, /* from one peer */
    ANSWER_RESERVE = 16 * 1024,
};

enum mesh_kind { MESH_ANSWER = 1, MESH_EVENTS, MESH_VOLATILE, MESH_EXPEL };

/* Opens every record of an events ring. */
struct mesh_head {
    uint8_t kind; /* enum mesh_kind */
    uint8_t user_bytes;
    uint16_t zero;
    uint32_t replica;
    uint32_t count;
    uint32_t bytes; /* of frames or text, behind the user */
    uint64_t epoch;
    uint64_t first_seq;
};

/* --- requests as bytes --- */

/* As struct room_request, with sizes for its slices, which follow in this order. */
struct packed {
    uint8_t op, follow, keyed, descending;
    uint8_t room_bytes, user_bytes, name_bytes, wants_event;
    uint64_t token;
    uint32_t replica, limit, bytes_max, text_bytes, data_bytes, zero_2;
    uint64_t from_seq, to_seq, reply_to, content_digest;
    struct hash128 key_digest;
};

uint32_t room_request_bytes(const struct room_request *request)
{
    return (uint32_t)sizeof(struct packed) + request->room_id.size + request->user_id.size +
           request->username.size + request->text.size + request->data.size;
}

static char *put(char *at, struct slice bytes)
{
    if (bytes.size > 0) {
        memcpy(at, bytes.data, bytes.size);
    }
    return at + bytes.size;
}

void room_request_pack(const struct room_request *request, void *bytes)
{
    const struct packed packed = {.op = request->op,
                                  .follow = request->follow,
                                  .keyed = request->keyed,
                                  .descending = request->descending,
                                  .room_bytes = (uint8_t)request->room_id.size,
                                  .user_bytes = (uint8_t)request->user_id.size,
                                  .name_bytes = (uint8_t)request->username.size,
                                  .wants_event = request->wants_event,
                                  .token = request->token,
                                  .replica = request->replica,
                                  .limit = request->limit,
                                  .bytes_max = request->bytes_max,
                                  .text_bytes = request->text.size,
                                  .data_bytes = request->data.size,
                                  .from_seq = request->from_seq,
                                  .to_seq = request->to_seq,
                                  .reply_to = request->reply_to,
                                  .content_digest = request->content_digest,
                                  .key_digest = request->key_digest};
    memcpy(bytes, &packed, sizeof(packed));
    char *at = (char *)bytes + sizeof(packed);
    at = put(at, request->room_id);
    at = put(at, request->user_id);
    at = put(at, request->username);
    at = put(at, request->text);
    (void)put(at, request->data);
}

static struct slice take(const char **at, uint32_t size)
{
    const struct slice taken = {*at, size};
    *at += size;
    return taken;
}

int room_request_unpack(const void *bytes, uint32_t size, struct room_request *ret)
{
    struct packed packed;
    if (size < sizeof(packed)) {
        return -EBADMSG;
    }
    memcpy(&packed, bytes, sizeof(packed));
    const char *at = (const char *)bytes + sizeof(packed);
    *ret = (struct room_request){.op = packed.op,
                                 .follow = packed.follow != 0,
                                 .keyed = packed.keyed != 0,
                                 .descending = packed.descending != 0,
                                 .wants_event = packed.wants_event != 0,
                                 .token = packed.token,
                                 .replica = packed.replica,
                                 .limit = packed.limit,
                                 .bytes_max = packed.bytes_max,
                                 .from_seq = packed.from_seq,
                                 .to_seq = packed.to_seq,
                                 .reply_to = packed.reply_to,
                                 .content_digest = packed.content_digest,
                                 .key_digest = packed.key_digest};
    ret->room_id = take(&at, packed.room_bytes);
    ret->user_id = take(&at, packed.user_bytes);
    ret->username = take(&at, packed.name_bytes);
    ret->text = take(&at, packed.text_bytes);
    ret->data = take(&at, packed.data_bytes);
    return room_request_bytes(ret) == size ? 0 : -EBADMSG;
}

/* --- sending --- */

/* Whether the ring takes records of that many bytes, what this turn has already put there and not
 * yet published counted. */
static bool has_room(const struct spsc *ring, uint64_t bytes)
{
    /* Relaxed: only a number here; spsc_reserve looks again. */
    const uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    return ring->capacity - (ring->fill - head) >= bytes;
}

/* For the largest answer: as much again may be lost at the ring's end, where it must lie in one
 * piece. */
static uint64_t answer_room(const struct shard *shard)
{
    return 2 * (shard->config->limits_history_bytes + ANSWER_RESERVE);
}

bool mesh_request(struct shard *shard, uint32_t peer, const struct room_request *request)
{
    struct mesh_peer *to = &shard->mesh.peers[peer];
    const uint32_t size = room_request_bytes(request);
    void *space = spsc_reserve(&to->out->requests, size);
    if (space == NULL) {
        return false;
    }
    struct room_request copy = *request;
    if (request->op == ROOM_UNFOLLOW) {
        copy.limit = shard->index; /* who does not follow any more: it has no token to tell */
    }
    room_request_pack(&copy, space);
    spsc_commit(&to->out->requests, size);
    to->published = true;
    return true;
}

static bool push(struct shard *shard, uint32_t peer, const void *head, uint32_t head_size,
                 struct slice first, struct slice second)
{
    struct mesh_peer *to = &shard->mesh.peers[peer];
    const uint32_t size = head_size + first.size + second.size;
    char *space = spsc_reserve(&to->out->events, size);
    if (space == NULL) {
        metrics_add(&shard->metrics->mesh_full_total, 1);
        return false;
    }
    space = put(space, (struct slice){head, head_size});
    (void)put(put(space, first), second);
    spsc_commit(&to->out->events, size);
    to->published = true;
    return true;
}

struct answer_record {
    struct mesh_head head;
    struct room_answer answer;
};

static struct answer_record answer_record(const struct room_answer *answer)
{
    struct answer_record record = {.head = {.kind = MESH_ANSWER}, .answer = *answer};
    record.answer.payload_bytes = answer->payload.size;
    record.answer.payload.data = NULL;
    return record;
}

static bool push_answer(struct shard *shard, uint32_t peer, const struct room_answer *answer)
{
    const struct answer_record record = answer_record(answer);
    return push(shard, peer, &record, sizeof(record), answer->payload, (struct slice){NULL, 0});
}

struct late_record {
    uint32_t pool_link;
    uint32_t size;
    struct late_record *next;
    char bytes[sizeof(struct block) - 16];
};
_Static_assert(sizeof(struct late_record) <= sizeof(struct block), "a block holds one");

/* Keeps a record until its ring has room again, behind those that wait already (X1). */
static void push_late(struct shard *shard, uint32_t peer, struct slice head, struct slice tail)
{
    struct mesh_peer *to = &shard->mesh.peers[peer];
    struct late_record *late = pool_take(&shard->blocks);
    if (late == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_buffers);
        log_error("a message to shard %u is lost: no buffer", peer);
        return;
    }
    CHECK(head.size + tail.size <= sizeof(late->bytes));
    late->next = NULL;
    late->size = head.size + tail.size;
    (void)put(put(late->bytes, head), tail);
    *(to->late_last != NULL ? &to->late_last->next : &to->late_first) = late;
    to->late_last = late;
}

void mesh_answer_late(struct shard *shard, uint32_t peer, const struct room_answer *answer)
{
    struct answer_record record = answer_record(answer);
    if (answer->payload.size > 0) {
        record.answer.error = ERROR_UNAVAILABLE;
        record.answer.count = 0;
        record.answer.payload_bytes = 0;
    }
    push_late(shard, peer, (struct slice){(const char *)&record, sizeof(record)},
              (struct slice){NULL, 0});
}

static void send_late(struct shard *shard, uint32_t peer)
{
    struct mesh_peer *to = &shard->mesh.peers[peer];
    while (to->late_first != NULL && push(shard, peer, to->late_first->bytes, to->late_first->size,
                                          (struct slice){NULL, 0}, (struct slice){NULL, 0})) {
        struct late_record *late = to->late_first;
        to->late_first = late->next;
        if (to->late_first == NULL) {
            to->late_last = NULL;
        }
        pool_give(&shard->blocks, late);
    }
}

bool mesh_answer(struct shard *shard, uint32_t peer, const struct room_answer *answer)
{
    return shard->mesh.peers[peer].late_first == NULL && push_answer(shard, peer, answer);
}

void mesh_volatile(struct shard *shard, const struct room *room, const struct follower *follower,
                   struct slice from, struct slice text)
{
    const struct mesh_head head = {.kind = MESH_VOLATILE,
                                   .user_bytes = (uint8_t)from.size,
                                   .replica = follower->replica,
                                   .bytes = text.size,
                                   .epoch = room->epoch};
    (void)push(shard, follower->shard, &head, sizeof(head), from, text);
}

void mesh_expel(struct shard *shard, const struct room *room, const struct follower *follower,
                struct slice user_id)
{
    const struct mesh_head head = {.kind = MESH_EXPEL,
                                   .user_bytes = (uint8_t)user_id.size,
                                   .replica = follower->replica,
                                   .epoch = room->epoch};
    if (shard->mesh.peers[follower->shard].late_first != NULL ||
        !push(shard, follower->shard, &head, sizeof(head), user_id, (struct slice){NULL, 0})) {
        push_late(shard, follower->shard, (struct slice){(const char *)&head, sizeof(head)},
                  user_id);
    }
}

/* True when the follower has everything, or the ring must drain first. */
static bool replicate_piece(struct shard *shard, struct room *room, struct follower *follower)
{
    const struct spsc *ring = &shard->mesh.peers[follower->shard].out->events;
    struct log_cursor cursor = follower->cursor;
    struct slice frames = {NULL, 0};
    struct chunk *chunk;

    if (shard->mesh.peers[follower->shard].late_first != NULL) {
        return true;
    }
    if (room_log_lost(&room->log, &cursor)) {
        cursor = (struct log_cursor){.seq = room->log.first_seq};
    }
    const uint64_t first_seq = cursor.seq;
    frames = room_log_piece(&room->log, &cursor, &chunk);
    if (frames.size == 0 || !has_room(ring, answer_room(shard) + 2 * (uint64_t)frames.size)) {
        return true;
    }
    const struct mesh_head head = {.kind = MESH_EVENTS,
                                   .replica = follower->replica,
                                   .count = (uint32_t)(cursor.seq - first_seq),
                                   .bytes = frames.size,
                                   .epoch = room->epoch,
                                   .first_seq = first_seq};
    if (!push(shard, follower->shard, &head, sizeof(head), frames, (struct slice){NULL, 0})) {
        return true;
    }
    follower->cursor = cursor;
    return !room_log_has_more(&room->log, &cursor);
}

void mesh_replicate_room(struct shard *shard, struct room *room)
{
    for (struct follower *follower = room->followers; follower != NULL; follower = follower->next) {
        for (int piece = 0; piece < 8 && !replicate_piece(shard, room, follower); piece++) {
        }
        if (room_log_has_more(&room->log, &follower->cursor)) {
            room_replicate_later(shard, room);
        }
    }
}

void mesh_publish(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->count; i++) {
        struct mesh_peer *to = &shard->mesh.peers[i];
        if (to->late_first != NULL) {
            send_late(shard, i);
        }
        if (!to->published) {
            continue;
        }
        to->published = false;
        (void)spsc_publish(&to->out->requests);
        (void)spsc_publish(&to->out->events);
        if (doorbell_should_ring(to->bell)) {
            os_doorbell(shard->ring, to->ring, os_tag(TAG_DOORBELL, 0, shard->index));
        }
    }
}

/* --- receiving --- */

bool mesh_can_answer(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->count; i++) {
        if (i != shard->index && !has_room(&shard->mesh.peers[i].out->events, answer_room(shard))) {
            return false;
        }
    }
    return true;
}

bool mesh_is_held(const struct shard *shard)
{
    for (uint32_t i = 0; i < shard->count; i++) {
        if (shard->mesh.peers[i].late_first != NULL) {
            return true;
        }
    }
    return false;
}

/* The replica that a record is for; the epoch tells whether the place is another room's by now. */
static struct room *replica_of(struct shard *shard, const struct mesh_head *head)
{
    const uint32_t index = head->replica;
    struct room *room = pool_taken(&shard->rooms, index) ? pool_at(&shard->rooms, index) : NULL;
    return room != NULL && room->state == ROOM_REPLICA && room->epoch == head->epoch ? room : NULL;
}

static void take_event(struct shard *shard, const void *record, uint32_t size)
{
    const struct mesh_head *head = record;
    const char *tail = (const char *)(head + 1);
    const struct slice user = {tail, head->user_bytes};
    const struct slice bytes = {tail + user.size, head->bytes};
    struct room *room = NULL;

    CHECK(size >= sizeof(*head));
    switch (head->kind) {
    case MESH_ANSWER: {
        struct room_answer answer;
        memcpy(&answer, tail, sizeof(answer));
        answer.payload = (struct slice){tail + sizeof(answer), answer.payload_bytes};
        const struct call_answer local = {.room = &answer};
        call_answered(shard, answer.token, &local);
        break;
    }
    case MESH_EVENTS:
        room_replicate(shard, head->replica, head->epoch, head->first_seq, head->count, bytes);
        break;
    case MESH_VOLATILE:
        room = replica_of(shard, head);
        if (room != NULL) {
            room_show_volatile(shard, room, user, bytes);
        }
        break;
    default:
        room = replica_of(shard, head);
        if (room != NULL) {
            room_expel(shard, room, user);
        }
        break;
    }
}

static uint32_t take_events(struct shard *shard, struct spsc *ring)
{
    uint32_t taken = 0;
    uint32_t size = 0;
    for (const void *record = spsc_peek(ring, &size); record != NULL && taken < RECORDS_A_TURN_MAX;
         record = spsc_peek(ring, &size)) {
        take_event(shard, record, size);
        spsc_next(ring);
        taken++;
    }
    spsc_release(ring);
    return taken;
}

static uint32_t take_requests(struct shard *shard, struct spsc *ring)
{
    uint32_t taken = 0;
    uint32_t size = 0;
    while (taken < RECORDS_A_TURN_MAX && mesh_can_answer(shard)) {
        const void *record = spsc_peek(ring, &size);
        struct room_request request;
        if (record == NULL) {
            break;
        }
        const int broken = room_request_unpack(record, size, &request);
        CHECK(broken == 0); /* another shard of ours packed it */
        room_handle(shard, &request);
        spsc_next(ring);
        taken++;
    }
    spsc_release(ring);
    return taken;
}

bool mesh_take(struct shard *shard)
{
    bool more = false;
    for (uint32_t i = 0; i < shard->count; i++) {
        const struct mesh_peer *from = &shard->mesh.peers[i];
        if (i == shard->index) {
            continue;
        }
        more |= take_events(shard, &from->in->events) == RECORDS_A_TURN_MAX;
        more |= take_requests(shard, &from->in->requests) == RECORDS_A_TURN_MAX;
    }
    return more;
}

bool mesh_has_input(struct shard *shard)
{
    uint32_t size;
    for (uint32_t i = 0; i < shard->count; i++) {
        const struct mesh_peer *from = &shard->mesh.peers[i];
        if (i != shard->index && (spsc_peek(&from->in->events, &size) != NULL ||
                                  spsc_peek(&from->in->requests, &size) != NULL)) {
            return true;
        }
    }
    return false;
}
