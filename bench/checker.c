/* checker.c - see checker.h for the invariants C1 to C4 named below. */
#include "bench/checker.h"

#include "bench/reserve.h"
#include "core/check.h"

#include <errno.h>

enum {
    BYTES_ALL_ROOMS = 64 << 20, /* remembered frames of all rooms: some hundred ms of S1 */
    BYTES_ROOM_MIN = 128 << 10,
    BYTES_ROOM_MAX = 16 << 20,
    FRAME_SHARE = 128, /* one frame slot for so many bytes: frames are about 270 bytes */
};

static uint32_t power_of_two_below(uint32_t value)
{
    return 1U << (31 - __builtin_clz(value));
}

static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* One reservation for each table; a table that failed leaves the others to checker_free. */
static int reserve_tables(struct checker *checker)
{
    const size_t rooms = checker->room_count;

    checker->rooms = reserve_zeroed(rooms * sizeof(struct checker_room));
    checker->messages =
        reserve_zeroed((size_t)checker->message_capacity * sizeof(struct checker_message));
    checker->senders = reserve_zeroed(checker->sender_count * sizeof(struct checker_sender));
    checker->ranges = reserve_zeroed(CHECKER_RANGES_MAX * sizeof(struct checker_range));
    checker->done = reserve_zeroed((checker->done_capacity + 1ULL) * sizeof(uint32_t));
    uint8_t *const bytes = reserve_zeroed(rooms * checker->room_bytes);
    struct checker_frame *const frames =
        reserve_zeroed(rooms * checker->room_frames * sizeof(struct checker_frame));
    if (checker->rooms == NULL || checker->messages == NULL || checker->senders == NULL ||
        checker->ranges == NULL || checker->done == NULL || bytes == NULL || frames == NULL) {
        reserve_release(bytes, rooms * checker->room_bytes);
        reserve_release(frames, rooms * checker->room_frames * sizeof(struct checker_frame));
        return -ENOMEM;
    }
    for (size_t i = 0; i < rooms; i++) {
        checker->rooms[i].bytes = bytes + i * checker->room_bytes;
        checker->rooms[i].frames = frames + i * checker->room_frames;
    }
    return 0;
}

int checker_init(struct checker *checker, const struct checker_limits *limits)
{
    CHECK(limits->rooms > 0);
    CHECK(limits->senders > 0);
    CHECK(limits->text_size >= CHECKER_TEXT_MIN);
    CHECK(limits->messages <= INT32_MAX);

    memset(checker, 0, sizeof(*checker));
    histogram_init(&checker->latency);
    histogram_init(&checker->ack_latency);
    checker->durability = limits->durability;
    checker->text_size = limits->text_size;
    checker->room_count = limits->rooms;
    checker->sender_count = limits->senders;
    checker->message_capacity = limits->messages;
    checker->done_capacity = limits->in_flight;
    checker->room_bytes =
        power_of_two_below(clamp(BYTES_ALL_ROOMS / limits->rooms, BYTES_ROOM_MIN, BYTES_ROOM_MAX));
    checker->room_frames = checker->room_bytes / FRAME_SHARE;
    const int result = reserve_tables(checker);
    if (result < 0) {
        checker_free(checker);
        return result;
    }
    for (uint32_t i = 0; i < limits->senders; i++) {
        checker->senders[i].last_message = CHECKER_NONE;
    }
    return 0;
}

void checker_free(struct checker *checker)
{
    const size_t rooms = checker->room_count;

    if (checker->rooms != NULL && checker->rooms[0].bytes != NULL) {
        reserve_release(checker->rooms[0].bytes, rooms * checker->room_bytes);
        reserve_release(checker->rooms[0].frames,
                        rooms * checker->room_frames * sizeof(struct checker_frame));
    }
    reserve_release(checker->rooms, rooms * sizeof(struct checker_room));
    reserve_release(checker->messages,
                    (size_t)checker->message_capacity * sizeof(struct checker_message));
    reserve_release(checker->senders, checker->sender_count * sizeof(struct checker_sender));
    reserve_release(checker->ranges, CHECKER_RANGES_MAX * sizeof(struct checker_range));
    reserve_release(checker->done, (checker->done_capacity + 1ULL) * sizeof(uint32_t));
    memset(checker, 0, sizeof(*checker));
}

void checker_join(struct checker_member *member, struct checker_room *room, uint64_t seq)
{
    member->room = room;
    member->next_seq = seq + 1;
    member->missing = 0;
    room->last_seq = room->last_seq > seq ? room->last_seq : seq;
}

int32_t checker_send(struct checker *checker, struct checker_room *room, uint32_t sender,
                     uint64_t intended_ns)
{
    CHECK(sender < checker->sender_count);
    if (checker->message_count == checker->message_capacity) {
        return CHECKER_NONE;
    }
    checker->messages[checker->message_count] = (struct checker_message){
        .intended_ns = intended_ns,
        .sender = sender,
        .due = room->members + 1,
    };
    checker->counts.sent++;
    checker->counts.expected += room->members;
    checker->open++; /* C3 */
    return (int32_t)checker->message_count++;
}

static void put_hex(char *dst, uint64_t value, int digits)
{
    for (int i = digits - 1; i >= 0; i--) {
        dst[i] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

static bool take_hex(const char *text, int digits, uint64_t *ret)
{
    uint64_t value = 0;

    for (int i = 0; i < digits; i++) {
        const unsigned char byte = (unsigned char)text[i];
        if (byte >= '0' && byte <= '9') {
            value = value << 4 | (uint64_t)(byte - '0');
        } else if (byte >= 'a' && byte <= 'f') {
            value = value << 4 | (uint64_t)(byte - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret = value;
    return true;
}

void checker_text(const struct checker *checker, int32_t message, char *dst)
{
    CHECK(message >= 0 && (uint32_t)message < checker->message_count);
    const struct checker_message *const sent = &checker->messages[message];

    put_hex(dst, sent->sender, 8);
    dst[8] = '-';
    put_hex(dst + 9, (uint32_t)message, 8);
    dst[17] = '-';
    put_hex(dst + 18, sent->intended_ns, 16);
    dst[34] = '-';
    memset(dst + CHECKER_TEXT_MIN, 'x', checker->text_size - CHECKER_TEXT_MIN);
}

/* The message that this text was written for, or CHECKER_NONE if nobody sent it as it is. */
static int32_t text_message(const struct checker *checker, const struct fields *fields)
{
    const struct slice text = fields->text;
    uint64_t sender, message, intended_ns;

    if (text.size != checker->text_size || !take_hex(text.data, 8, &sender) ||
        !take_hex(text.data + 9, 8, &message) || !take_hex(text.data + 18, 16, &intended_ns) ||
        text.data[8] != '-' || text.data[17] != '-' || text.data[34] != '-') {
        return CHECKER_NONE;
    }
    if (message >= checker->message_count) {
        return CHECKER_NONE;
    }
    const struct checker_message *const sent = &checker->messages[message];
    for (uint32_t i = CHECKER_TEXT_MIN; i < text.size; i++) {
        if (text.data[i] != 'x') {
            return CHECKER_NONE;
        }
    }
    return sent->sender == sender && sent->intended_ns == intended_ns &&
                   slice_equal(checker->senders[sender].user_id, fields->user_id)
               ? (int32_t)message
               : CHECKER_NONE;
}

/* One of the message's ack and deliveries has come. */
static void message_progress(struct checker *checker, int32_t message)
{
    struct checker_message *const sent = &checker->messages[message];

    if (sent->due == 0 || --sent->due > 0) {
        return; /* 0: a surplus one, which its caller has counted */
    }
    checker->open--; /* C3 */
    if (checker->done_count < checker->done_capacity) {
        checker->done[checker->done_count++] = (uint32_t)message;
    }
}

/* The member has this event now, in its place or late, for the first time. */
static void deliver(struct checker *checker, const struct checker_frame *frame, uint64_t now_ns)
{
    if (frame->message == CHECKER_NONE) {
        return;
    }
    if (frame->duplicate) {
        checker->counts.duplicated++; /* C4 */
        return;
    }
    checker->counts.reordered += frame->disordered;
    checker->counts.delivered++; /* C1 */
    histogram_record(&checker->latency,
                     now_ns > frame->intended_ns ? now_ns - frame->intended_ns : 0, 1);
    message_progress(checker, frame->message);
}

/* The remembered frame of this seq, or NULL; it may be remembered without its bytes. */
static struct checker_frame *frame_of(const struct checker *checker,
                                      const struct checker_room *room, uint64_t seq)
{
    struct checker_frame *const frame = &room->frames[seq & (checker->room_frames - 1)];

    return frame->seq == seq && seq != 0 ? frame : NULL;
}

size_t checker_match(struct checker *checker, struct checker_member *member, const uint8_t *data,
                     size_t size, uint64_t now_ns)
{
    const struct checker_room *const room = member->room;
    size_t used = 0;

    if (member->next_seq == 0) {
        return 0;
    }
    while (used < size) {
        const struct checker_frame *const frame = frame_of(checker, room, member->next_seq);
        if (frame == NULL || frame->at + checker->room_bytes < room->head ||
            frame->size > size - used ||
            memcmp(room->bytes + (frame->at & (checker->room_bytes - 1)), data + used,
                   frame->size) != 0) {
            break;
        }
        deliver(checker, frame, now_ns);
        member->next_seq++;
        used += frame->size;
    }
    return used;
}

/* Remembers where the frame's bytes are. Bytes never wrap: what does not fit before the end of the
 * room's bytes begins at their start. */
static void remember_bytes(const struct checker *checker, struct checker_room *room,
                           struct checker_frame *frame, struct slice bytes)
{
    const uint64_t offset = room->head & (checker->room_bytes - 1);

    if (bytes.size > checker->room_bytes / 2) {
        frame->at = room->head;
        frame->size = UINT32_MAX; /* never matches: each member's copy goes the long way */
        return;
    }
    if (offset + bytes.size > checker->room_bytes) {
        room->head += checker->room_bytes - offset;
    }
    frame->at = room->head;
    frame->size = bytes.size;
    const uint64_t place = frame->at & (checker->room_bytes - 1);
    CHECK(place + bytes.size <= checker->room_bytes);
    memcpy(room->bytes + place, bytes.data, bytes.size);
    room->head += bytes.size;
}

/* A sender's messages must be in the room in the order of their sending. A message may be seen
 * before one of a lower seq if a member has missed that; only messages around it can tell. */
static bool sender_disordered(struct checker_sender *sender, uint32_t seq, int32_t message)
{
    if (seq < sender->last_seq) {
        return message > sender->last_message;
    }
    const bool disordered = message < sender->last_message;

    sender->last_seq = seq;
    sender->last_message = message;
    return disordered;
}

/* What the room holds under this seq, as the first member that got it saw it. */
static void describe(struct checker *checker, const struct fields *fields,
                     struct checker_frame *ret)
{
    *ret = (struct checker_frame){.seq = (uint32_t)fields->seq, .message = CHECKER_NONE};
    if (!FIELDS_IS(fields->type, "message")) {
        return;
    }
    ret->message = text_message(checker, fields);
    if (ret->message == CHECKER_NONE) {
        checker->counts.foreign++;
        return;
    }
    struct checker_message *const sent = &checker->messages[ret->message];
    ret->intended_ns = sent->intended_ns;
    if (sent->pushed_seq == 0) {
        sent->pushed_seq = ret->seq;
        ret->disordered =
            sender_disordered(&checker->senders[sent->sender], ret->seq, ret->message);
    }
    ret->duplicate = sent->pushed_seq != ret->seq;
}

/* Keeps the event for the members that have yet to get it, unless a newer one has its slot. */
static void remember(const struct checker *checker, struct checker_room *room,
                     const struct checker_frame *event, struct slice bytes)
{
    struct checker_frame *const slot = &room->frames[event->seq & (checker->room_frames - 1)];

    if (slot->seq < event->seq) {
        *slot = *event;
        remember_bytes(checker, room, slot, bytes);
    }
}

/* Puts a range into the list before link. With no range left it stays out of the list: it is still
 * counted as missing, but what comes of it late counts as duplicated and not as reordered. Wrong
 * only in a run that has failed already. */
static void range_add(struct checker *checker, uint32_t *link, uint32_t first, uint32_t last)
{
    uint32_t index = checker->range_free;

    if (index != 0) {
        checker->range_free = checker->ranges[index - 1].next;
    } else if (checker->range_used < CHECKER_RANGES_MAX) {
        index = ++checker->range_used;
    } else {
        return;
    }
    checker->ranges[index - 1] = (struct checker_range){first, last, *link};
    *link = index;
}

/* The member has skipped [first, last] (C2). */
static void missing_add(struct checker *checker, struct checker_member *member, uint64_t first,
                        uint64_t last)
{
    checker->counts.missing += last - first + 1;
    range_add(checker, &member->missing, (uint32_t)first, (uint32_t)last);
}

/* Takes seq out of the member's missing ranges (C2); false if it is in none of them. */
static bool missing_take(struct checker *checker, struct checker_member *member, uint32_t seq)
{
    for (uint32_t *link = &member->missing; *link != 0;) {
        struct checker_range *const range = &checker->ranges[*link - 1];
        if (seq < range->first || seq > range->last) {
            link = &range->next;
            continue;
        }
        checker->counts.missing--;
        if (range->first == range->last) {
            const uint32_t freed = *link;
            *link = range->next;
            range->next = checker->range_free;
            checker->range_free = freed;
        } else if (seq == range->first) {
            range->first++;
        } else if (seq == range->last) {
            range->last--;
        } else {
            const uint32_t last = range->last;
            range->last = seq - 1;
            range_add(checker, &range->next, seq + 1, last);
        }
        return true;
    }
    return false;
}

/* Moves the member past seq. False if it has seen seq before: then this is a duplicate. */
static bool place(struct checker *checker, struct checker_member *member, uint64_t seq)
{
    if (seq >= member->next_seq) {
        if (seq > member->next_seq) {
            missing_add(checker, member, member->next_seq, seq - 1);
        }
        member->next_seq = seq + 1;
        return true;
    }
    if (missing_take(checker, member, (uint32_t)seq)) {
        checker->counts.reordered++;
        return true;
    }
    checker->counts.duplicated++; /* C4 */
    return false;
}

void checker_event(struct checker *checker, struct checker_member *member, struct slice frame,
                   const struct fields *fields, uint64_t now_ns)
{
    struct checker_room *const room = member->room;
    struct checker_frame event;

    if (member->next_seq == 0 || (fields->present & FIELDS_SEQ) == 0 || fields->seq == 0 ||
        fields->seq > UINT32_MAX ||
        !slice_equal(fields->room_id, (struct slice){room->id, room->id_size})) {
        checker->counts.foreign++;
        return;
    }
    const struct checker_frame *const known = frame_of(checker, room, fields->seq);
    if (!place(checker, member, fields->seq)) {
        return;
    }
    describe(checker, fields, &event);
    if (known == NULL) {
        remember(checker, room, &event, frame);
    } else if (known->message != event.message) {
        /* Two members saw different events under one seq: they do not share one order. */
        checker->counts.reordered++;
        return;
    }
    room->last_seq = room->last_seq > fields->seq ? room->last_seq : fields->seq;
    deliver(checker, &event, now_ns);
}

void checker_gap(struct checker *checker, struct checker_member *member,
                 const struct fields *fields)
{
    checker->counts.gaps++;
    if (member->next_seq == 0 || (fields->present & FIELDS_TO_SEQ) == 0 ||
        fields->to_seq < member->next_seq || fields->to_seq >= UINT32_MAX) {
        checker->counts.foreign++;
        return;
    }
    missing_add(checker, member, member->next_seq, fields->to_seq);
    member->next_seq = fields->to_seq + 1;
}

void checker_ack(struct checker *checker, int64_t message, const struct fields *fields,
                 uint64_t now_ns)
{
    if (message < 0 || message >= (int64_t)checker->message_count ||
        (fields->present & FIELDS_SEQ) == 0 || fields->seq == 0 || fields->seq > UINT32_MAX) {
        checker->counts.foreign++;
        return;
    }
    struct checker_message *const sent = &checker->messages[message];
    if (sent->acked_seq != 0) {
        checker->counts.ack_wrong++;
        return;
    }
    sent->acked_seq = (uint32_t)fields->seq;
    checker->counts.acked++;
    checker->counts.ack_wrong += !slice_equal(fields->durability, checker->durability);
    histogram_record(&checker->ack_latency,
                     now_ns > sent->intended_ns ? now_ns - sent->intended_ns : 0, 1);
    message_progress(checker, (int32_t)message);
}

void checker_refused(struct checker *checker, int64_t message)
{
    if (message < 0 || message >= (int64_t)checker->message_count) {
        checker->counts.foreign++;
        return;
    }
    struct checker_message *const sent = &checker->messages[message];
    checker->counts.refused++;
    if (sent->due > 1 && sent->acked_seq == 0 && sent->pushed_seq == 0) {
        checker->counts.expected -= sent->due - 1;
        sent->due = 1;
    }
    message_progress(checker, (int32_t)message);
}

uint64_t checker_missing(const struct checker *checker, const struct checker_member *member)
{
    uint64_t missing = 0;

    if (member->next_seq == 0) {
        return 0;
    }
    for (uint32_t link = member->missing; link != 0; link = checker->ranges[link - 1].next) {
        const struct checker_range *const range = &checker->ranges[link - 1];
        missing += (uint64_t)range->last - range->first + 1;
    }
    return missing + (member->room->last_seq + 1 > member->next_seq
                          ? member->room->last_seq + 1 - member->next_seq
                          : 0);
}

int checker_ack_density(const struct checker *checker, uint64_t *ret_holes, uint64_t *ret_twice)
{
    uint32_t low = UINT32_MAX, high = 0;
    uint64_t distinct = 0, acked = 0;

    for (uint32_t i = 0; i < checker->message_count; i++) {
        const uint32_t seq = checker->messages[i].acked_seq;
        if (seq != 0) {
            low = seq < low ? seq : low;
            high = seq > high ? seq : high;
        }
    }
    const uint64_t span = high >= low ? (uint64_t)high - low + 1 : 0;
    uint8_t *const seen = reserve_zeroed(span / 8 + 1);
    if (seen == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < checker->message_count; i++) {
        const uint32_t seq = checker->messages[i].acked_seq;
        if (seq != 0) {
            const uint32_t bit = seq - low;
            acked++;
            distinct += (seen[bit / 8] >> bit % 8 & 1) == 0;
            seen[bit / 8] |= (uint8_t)(1U << bit % 8);
        }
    }
    reserve_release(seen, span / 8 + 1);
    *ret_holes = span - distinct;
    *ret_twice = acked - distinct;
    return (int)high;
}

uint64_t checker_ack_mismatches(const struct checker *checker, uint32_t first, bool pushed)
{
    uint64_t mismatches = 0;

    for (uint32_t i = first; i < checker->message_count; i++) {
        const struct checker_message *const sent = &checker->messages[i];
        mismatches += sent->acked_seq == 0 || (pushed && sent->acked_seq != sent->pushed_seq);
    }
    return mismatches;
}
