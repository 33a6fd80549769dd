/* journal.c - see journal.h for the invariants J1 to J5 named below, fileio/segment.h for what a
 * group looks like, fileio/supply.h for where segments come from.
 *
 * The buffer is a ring of whole blocks that holds groups in the order of their numbers:
 *
 *   kept for the handover | in flight | closed, waiting | open | free, or kept from the lap before
 *   ^ first                 ^ durable                   ^ next - 1
 *
 * Groups of the first kind are evicted when their place is needed; the others never. */
#include "fileio/journal.h"

#include "core/check.h"
#include "core/log.h"
#include "fileio/segment.h"
#include "fileio/supply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    WINDOW_BYTES = 256 * 1024, /* one read of what is handed over late */
    BUFFER_BYTES_MAX = 1 << 30,
};
_Static_assert((int)JOURNAL_RECORD_MAX == (int)SEGMENT_RECORD_MAX,
               "recovery takes what the journal takes");
_Static_assert(SEGMENT_RECORD_MAX + 2 * SEGMENT_BLOCK_BYTES <= WINDOW_BYTES, "in one read");

enum operation { OPERATION_WRITE, OPERATION_SYNC, OPERATION_READ, OPERATION_SUPPLY };

struct group {
    uint64_t position; /* of its header */
    uint64_t last;     /* position of its last record */
    uint32_t memory;   /* offset in the buffer */
    uint32_t bytes;    /* header and records */
    uint32_t records;
    uint32_t index; /* in its segment */
    bool sync;      /* a record asked for it */
};

/* Where the handover stands. */
struct cursor {
    uint64_t group;    /* number of the group it is in, or enters next */
    uint64_t position; /* of that group's header; while left is 0, of the one before */
    uint32_t bytes;    /* of the same group */
    uint32_t offset;   /* of the next record in it */
    uint32_t left;     /* records; 0: the next group is to be entered */
    uint32_t size;     /* of the record that was given out; 0: none */
    uint64_t after;    /* records up to this position are passed over: journal_rewind */
};

/* A piece of a segment that was read back. */
struct window {
    uint8_t *bytes;
    uint64_t position;
    uint32_t size; /* 0 while it is being read */
    uint32_t wanted;
    bool reading;
};

struct journal {
    struct journal_options options;
    struct supply supply;

    uint8_t *buffer;
    uint32_t buffer_bytes; /* of the whole ring */
    uint32_t fill;         /* offset behind the newest group */
    struct group *groups;  /* by number % groups_max */
    uint32_t groups_max;
    uint64_t *starts; /* number of the first group of ordinal o at o % starts_max */
    uint32_t starts_max;
    uint64_t first;   /* number of the oldest group in the buffer */
    uint64_t durable; /* of the first that is not durable: in flight, or the next to be */
    uint64_t next;
    bool open;  /* group next - 1 takes records */
    bool begun; /* a segment is in use: ordinal_next - 1 */

    bool writing; /* a commit's write, or the sync before it, is in flight */
    bool failed;  /* J2 */
    bool dirty;   /* groups were written without a sync since the last one */
    bool unreadable;
    uint64_t dirty_ordinal;   /* of the segment with those groups */
    uint64_t synced;          /* number of the last group that is on disk with all before it */
    uint64_t written_ordinal; /* segment and offset behind the last durable group */
    uint32_t written_offset;
    uint32_t offset;           /* where the next group goes, in the segment in use */
    uint32_t index;            /* of that group in the segment */
    uint64_t durable_position; /* J1 */
    uint64_t last_position;    /* of the newest record */
    uint64_t end_position;     /* behind it */
    uint64_t handed_position;
    uint64_t released_position;
    uint64_t commit_at_ns;
    uint32_t refused_bytes; /* size of the last refused append; 0: the last one was taken */

    struct cursor cursor;
    struct window window;
};

/* --- open --- */

static int options_check(const struct journal_options *options, char *ret_why, size_t why_size)
{
    const char *wrong = NULL;
    if (options->segment_bytes % SEGMENT_BLOCK_BYTES != 0 ||
        options->segment_bytes < 4 * SEGMENT_BLOCK_BYTES || options->segment_bytes > INT32_MAX) {
        wrong = "journal.segment_bytes must be a multiple of 4096, from 16 KiB to below 2 GiB";
    } else if (options->bytes_max / options->segment_bytes < 2) {
        wrong = "journal.bytes_max must allow each shard two segments of journal.segment_bytes";
    } else if (options->bytes_max / options->segment_bytes > SUPPLY_SEGMENTS_MAX) {
        wrong = "journal.bytes_max is more than 4096 segments a shard; raise journal.segment_bytes";
    } else if (options->buffer_bytes < 2 * SEGMENT_BLOCK_BYTES ||
               options->buffer_bytes > BUFFER_BYTES_MAX) {
        wrong = "journal.buffer_bytes must be from 8 KiB to 1 GiB";
    }
    if (wrong != NULL) {
        (void)snprintf(ret_why, why_size, "%s", wrong);
        return -EINVAL;
    }
    return 0;
}

static uint64_t tag(const struct journal_options *options, enum operation operation)
{
    return os_tag(options->tag_kind, 0, operation);
}

static void plan_buffers(struct journal *journal, const struct journal_options *options,
                         struct mem_plan *plan)
{
    const uint32_t buffer_bytes =
        2 * (options->buffer_bytes & ~(uint32_t)(SEGMENT_BLOCK_BYTES - 1));
    const uint32_t groups_max = buffer_bytes / SEGMENT_BLOCK_BYTES; /* a group is a block or more */
    const uint32_t starts_max = (uint32_t)(options->bytes_max / options->segment_bytes);

    *journal = (struct journal){
        .options = *options,
        .buffer = mem_reserve(plan, "journal buffer", SEGMENT_BLOCK_BYTES, groups_max),
        .buffer_bytes = buffer_bytes,
        .groups = mem_reserve(plan, "journal groups", sizeof(struct group), groups_max),
        .groups_max = groups_max,
        .starts = mem_reserve(plan, "journal segment starts", sizeof(uint64_t), starts_max),
        .starts_max = starts_max,
        .first = 1,
        .durable = 1,
        .next = 1,
        /* As if the header block were group 0: then group 1 follows it like any other. */
        .cursor = {.group = 1, .bytes = SEGMENT_BLOCK_BYTES},
        .window.bytes = mem_reserve(plan, "journal read-back", WINDOW_BYTES, 1),
    };
}

static void plan_supply(struct supply *supply, const struct journal_options *options,
                        struct mem_plan *plan)
{
    const struct supply_options supplied = {
        .ring = options->ring,
        .directory = options->directory,
        .shard = options->shard,
        .segment_bytes = options->segment_bytes,
        .bytes_max = options->bytes_max,
        .first_number = options->first_segment,
        .tag = tag(options, OPERATION_SUPPLY),
    };
    supply_plan(supply, &supplied, plan);
}

int journal_open(const struct journal_options *options, struct mem_plan *plan, struct journal **ret,
                 char *ret_why, size_t why_size)
{
    struct journal planned;
    int error = options_check(options, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    struct journal *journal = mem_reserve(plan, "journal", sizeof(*journal), 1);
    plan_buffers(&planned, options, plan);
    plan_supply(&planned.supply, options, plan);
    if (plan->mode == MEM_COUNT) {
        *ret = NULL;
        return 0;
    }
    /* The plan is sealed later; the blocks are needed now, so whether they are there is asked now.
     */
    error = plan->error;
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "not enough memory for the journal's buffers (%s)",
                       os_error(error));
        return error;
    }
    *journal = planned;
    error = supply_open(&journal->supply, ret_why, why_size);
    if (error == 0) {
        *ret = journal;
    }
    return error;
}

/* --- append --- */

static struct group *group_at(const struct journal *journal, uint64_t number)
{
    CHECK(number >= journal->first && number < journal->next);
    return &journal->groups[number % journal->groups_max];
}

static uint32_t blocks(uint32_t bytes)
{
    return (uint32_t)segment_blocks(bytes);
}

/* Where the next record would go. */
struct place {
    bool fresh;      /* begins a group */
    bool next;       /* in the segment prepared for it */
    uint32_t memory; /* of the group */
    uint32_t bytes;  /* of the group with the record */
};

/* Whether the open group can take span bytes more. */
static bool fits_open_group(const struct journal *journal, uint32_t span)
{
    if (!journal->open) {
        return false;
    }
    const struct group *group = group_at(journal, journal->next - 1);
    const uint32_t hard = group_at(journal, journal->durable)->memory;
    const uint32_t limit = hard > group->memory ? hard : journal->buffer_bytes;
    const uint64_t grown = (uint64_t)group->bytes + span;
    const uint32_t in_segment = (uint32_t)(group->position % journal->options.segment_bytes);
    return grown <= journal->buffer_bytes / 2 && grown <= limit - group->memory &&
           grown <= journal->options.segment_bytes - in_segment;
}

/* Room for a new group of bytes in the ring, as an offset, or buffer_bytes: none. */
static uint32_t room_for_group(const struct journal *journal, uint32_t bytes)
{
    const uint32_t none = journal->buffer_bytes;
    const uint32_t at_end = journal->buffer_bytes - journal->fill;
    if (journal->durable == journal->next) {
        return bytes <= at_end ? journal->fill : 0;
    }
    const uint32_t hard = group_at(journal, journal->durable)->memory;
    if (journal->fill <= hard) { /* equal: the ring is full of what is not durable */
        return bytes <= hard - journal->fill ? journal->fill : none;
    }
    if (bytes <= at_end) {
        return journal->fill;
    }
    return bytes <= hard ? 0 : none;
}

static bool find_place(const struct journal *journal, uint32_t size, struct place *ret)
{
    const uint32_t span = segment_span(size);
    if (fits_open_group(journal, span)) {
        const struct group *group = group_at(journal, journal->next - 1);
        *ret = (struct place){.memory = group->memory, .bytes = group->bytes + span};
        return true;
    }
    struct place place = {.fresh = true, .bytes = SEGMENT_GROUP_BYTES + span};
    if (blocks(place.bytes) > journal->buffer_bytes / 2 ||
        blocks(place.bytes) > journal->options.segment_bytes - SEGMENT_BLOCK_BYTES) {
        return false;
    }
    place.next = !journal->begun || place.bytes > journal->options.segment_bytes - journal->offset;
    place.memory = room_for_group(journal, blocks(place.bytes));
    if ((place.next && !journal->supply.has_spare) || place.memory == journal->buffer_bytes) {
        return false;
    }
    *ret = place;
    return true;
}

/* Groups that lie in [from, to) of the buffer give way; the handover reads them back. */
static void evict(struct journal *journal, uint32_t from, uint32_t to)
{
    while (journal->first < journal->durable) {
        const uint32_t memory = group_at(journal, journal->first)->memory;
        if (memory < from || memory >= to) {
            break;
        }
        journal->first++;
    }
}

/* The spare comes into use; what the one before held is known now. */
static void begin_segment(struct journal *journal)
{
    if (journal->begun) {
        struct supply_segment *full = supply_at(&journal->supply, journal->supply.ordinal_next - 1);
        full->end = journal->offset;
        full->last_position = journal->last_position;
    }
    journal->starts[journal->supply.ordinal_next % journal->starts_max] = journal->next;
    supply_take(&journal->supply);
    journal->offset = SEGMENT_BLOCK_BYTES;
    journal->index = 0;
    journal->begun = true;
}

static void begin_group(struct journal *journal, const struct place *place)
{
    journal->open = false;
    if (place->next) {
        begin_segment(journal);
    }
    if (place->memory < journal->fill) {
        evict(journal, journal->fill, journal->buffer_bytes); /* older than what lies at 0 */
    }
    journal->fill = place->memory;
    const uint64_t ordinal = journal->supply.ordinal_next - 1;
    evict(journal, place->memory, place->memory + blocks(place->bytes));
    CHECK(journal->next - journal->first < journal->groups_max);
    journal->groups[journal->next % journal->groups_max] = (struct group){
        .position = ordinal * journal->options.segment_bytes + journal->offset,
        .memory = place->memory,
        .bytes = SEGMENT_GROUP_BYTES,
        .index = journal->index++,
    };
    journal->next++;
    journal->open = true;
}

void *journal_append(struct journal *journal, uint32_t size, enum journal_durability durability,
                     uint64_t *ret_position)
{
    struct place place;

    CHECK(size > 0 && size <= JOURNAL_RECORD_MAX);
    if (journal->failed || !find_place(journal, size, &place)) {
        journal->refused_bytes = size;
        return NULL;
    }
    journal->refused_bytes = 0;
    if (place.fresh) {
        begin_group(journal, &place);
    }
    struct group *group = group_at(journal, journal->next - 1);
    const uint32_t end = place.memory + blocks(place.bytes);
    evict(journal, journal->fill, end);
    journal->offset += end - (place.fresh ? place.memory : journal->fill);
    journal->fill = end;

    const struct segment_frame frame = {.size = size};
    uint8_t *at = journal->buffer + group->memory + group->bytes;
    memcpy(at, &frame, sizeof(frame));
    group->last = group->position + group->bytes;
    group->bytes = place.bytes;
    group->records++;
    group->sync = group->sync || durability == DURABILITY_FSYNC;
    journal->last_position = group->last;
    journal->end_position = group->position + group->bytes;
    *ret_position = group->last;
    return at + sizeof(frame);
}

/* --- commit --- */

static void fail(struct journal *journal, const char *what, int error)
{
    log_error("journal failed, sends are refused until a restart shard=%u during=%s error=%s",
              journal->options.shard, what, os_error(error));
    journal->failed = true;
    journal->supply.stopped = true;
    metrics_set(&journal->options.metrics->journal_failed, 1);
}

static struct supply_segment *segment_of(const struct journal *journal, uint64_t position)
{
    return supply_at(&journal->supply, position / journal->options.segment_bytes);
}

static void write_group(struct journal *journal)
{
    const struct group *group = group_at(journal, journal->durable);
    const struct supply_segment *segment = segment_of(journal, group->position);
    uint8_t *bytes = journal->buffer + group->memory;

    CHECK(!group->sync || journal->synced == journal->durable - 1); /* S4 */
    segment_group_write(
        (struct segment_group){
            .segment_id = segment->header.id,
            .segment_number = segment->header.number,
            .number = journal->durable,
            .synced = journal->synced,
            .position = group->position,
            .bytes = group->bytes,
            .records = group->records,
            .shard = journal->options.shard,
            .index = group->index,
        },
        bytes);
    os_write(journal->options.ring, segment->file, bytes, blocks(group->bytes),
             group->position % journal->options.segment_bytes, group->sync,
             tag(&journal->options, OPERATION_WRITE));
}

void journal_commit(struct journal *journal)
{
    const uint64_t now_ns = os_now_ns();

    supply_tick(&journal->supply, now_ns);
    metrics_set(&journal->options.metrics->journal_backlog_bytes, journal_backlog_bytes(journal));
    if (journal->failed || journal->writing || journal->durable == journal->next) {
        return;
    }
    if (journal->durable == journal->next - 1) {
        journal->open = false;
    }
    journal->writing = true;
    journal->commit_at_ns = now_ns;
    const struct group *group = group_at(journal, journal->durable);
    const uint64_t ordinal = group->position / journal->options.segment_bytes;
    /* A sync covers its own write only (a disk may be told so block by block), so what was written
     * without one is synced before a group that a promise rests on; and before its file is left. */
    if (journal->dirty && (group->sync || ordinal != journal->dirty_ordinal)) {
        os_sync(journal->options.ring, supply_at(&journal->supply, journal->dirty_ordinal)->file,
                tag(&journal->options, OPERATION_SYNC));
        return;
    }
    write_group(journal);
}

static void sync_done(struct journal *journal, int32_t result)
{
    if (result < 0) {
        journal->writing = false;
        fail(journal, "sync", result);
        return;
    }
    journal->dirty = false;
    journal->synced = journal->durable - 1;
    write_group(journal);
}

static void write_done(struct journal *journal, int32_t result)
{
    const struct group *group = group_at(journal, journal->durable);
    struct metrics *metrics = journal->options.metrics;

    journal->writing = false;
    if (result != (int32_t)blocks(group->bytes)) {
        fail(journal, "write", result < 0 ? result : -EIO); /* a short write too */
        return;
    }
    journal->written_ordinal = group->position / journal->options.segment_bytes;
    journal->written_offset =
        (uint32_t)(group->position % journal->options.segment_bytes) + blocks(group->bytes);
    if (group->sync) {
        journal->synced = journal->durable;
    } else {
        journal->dirty = true;
        journal->dirty_ordinal = journal->written_ordinal;
    }
    journal->durable_position = group->last;
    journal->durable++;
    metrics_add(&metrics->journal_commits_total, 1);
    metrics_add(&metrics->journal_records_total, group->records);
    metrics_add(&metrics->journal_bytes_total, blocks(group->bytes));
    metrics_observe(&metrics->journal_commit_seconds, os_now_ns() - journal->commit_at_ns);
}

static void read_failed(struct journal *journal, int error)
{
    journal->unreadable = true;
    fail(journal, "read", error);
}

static void read_done(struct journal *journal, int32_t result)
{
    struct window *window = &journal->window;

    /* The cursor, and even the segment, may have been left meanwhile (journal_rewind): a position
     * is never used twice, so nobody asks for these bytes then. */
    window->reading = false;
    if (result != (int32_t)window->wanted) {
        read_failed(journal, result < 0 ? result : -EIO);
        return;
    }
    window->size = window->wanted;
}

void journal_done(struct journal *journal, const struct os_event *event)
{
    switch ((enum operation)os_tag_index(event->tag)) {
    case OPERATION_WRITE:
        CHECK(journal->writing); /* O1 */
        write_done(journal, event->result);
        break;
    case OPERATION_SYNC:
        CHECK(journal->writing);
        sync_done(journal, event->result);
        break;
    case OPERATION_READ:
        CHECK(journal->window.reading);
        read_done(journal, event->result);
        break;
    case OPERATION_SUPPLY:
        supply_done(&journal->supply, event->result, os_now_ns());
        break;
    }
}

/* --- state --- */

uint64_t journal_durable(const struct journal *journal)
{
    return journal->durable_position;
}

enum journal_state journal_state(const struct journal *journal)
{
    if (journal->failed) {
        return JOURNAL_FAILED;
    }
    const uint32_t refused = journal->refused_bytes;
    return refused > 0 && !journal_has_room(journal, refused) ? JOURNAL_FULL : JOURNAL_OK;
}

bool journal_has_room(const struct journal *journal, uint32_t size)
{
    struct place place;

    CHECK(size > 0 && size <= JOURNAL_RECORD_MAX);
    return !journal->failed && find_place(journal, size, &place);
}

uint64_t journal_backlog_bytes(const struct journal *journal)
{
    if (journal->released_position >= journal->last_position) {
        return 0;
    }
    return journal->end_position - journal->released_position;
}

bool journal_is_idle(const struct journal *journal)
{
    const bool waits = journal->durable < journal->next && !journal->failed;
    return !waits && !journal->writing && !journal->window.reading &&
           journal->supply.step == SUPPLY_IDLE;
}

/* --- handover --- */

/* size bytes at a position that is durable, or NULL: they are being read, or cannot be. */
static const void *read_back(struct journal *journal, uint64_t position, uint32_t size)
{
    struct window *window = &journal->window;
    const uint32_t segment_bytes = journal->options.segment_bytes;

    if (window->reading) {
        return NULL;
    }
    if (position >= window->position && position + size <= window->position + window->size) {
        return window->bytes + (position - window->position);
    }
    const uint64_t ordinal = position / segment_bytes;
    const struct supply_segment *segment = supply_at(&journal->supply, ordinal);
    const uint32_t from = (uint32_t)(position % segment_bytes) & ~(SEGMENT_BLOCK_BYTES - 1U);
    const uint32_t end =
        ordinal < journal->written_ordinal ? segment->end : journal->written_offset;
    CHECK(from < end);
    window->position = ordinal * segment_bytes + from;
    window->size = 0;
    window->wanted = end - from < WINDOW_BYTES ? end - from : WINDOW_BYTES;
    window->reading = true;
    os_read(journal->options.ring, segment->file, window->bytes, window->wanted, from,
            tag(&journal->options, OPERATION_READ));
    return NULL;
}

/* Position of the group behind the cursor's, which is durable and not in the buffer. */
static uint64_t following_group(const struct journal *journal)
{
    const uint32_t segment_bytes = journal->options.segment_bytes;
    const struct cursor *cursor = &journal->cursor;
    const uint64_t ordinal = cursor->position / segment_bytes;
    const uint64_t first = journal->supply.ordinal_first;

    if (ordinal < first) { /* its segment was released meanwhile */
        return first * segment_bytes + SEGMENT_BLOCK_BYTES;
    }
    const uint64_t offset = cursor->position % segment_bytes + segment_blocks(cursor->bytes);
    if (offset == supply_at(&journal->supply, ordinal)->end) {
        return (ordinal + 1) * segment_bytes + SEGMENT_BLOCK_BYTES;
    }
    return ordinal * segment_bytes + offset;
}

static bool enter_group_read_back(struct journal *journal)
{
    struct segment_group group;
    struct cursor *cursor = &journal->cursor;
    const uint64_t position = following_group(journal);
    const void *bytes = read_back(journal, position, SEGMENT_GROUP_BYTES);
    if (bytes == NULL) {
        return false;
    }
    const struct supply_segment *segment = segment_of(journal, position);
    if (!segment_group_read(bytes, &segment->header, position % journal->options.segment_bytes,
                            &group) ||
        group.number != cursor->group) {
        read_failed(journal, -EBADMSG);
        return false;
    }
    cursor->position = position;
    cursor->bytes = group.bytes;
    cursor->left = group.records;
    cursor->offset = SEGMENT_GROUP_BYTES;
    return true;
}

static bool enter_group(struct journal *journal)
{
    struct cursor *cursor = &journal->cursor;
    if (cursor->group == journal->durable) {
        return false;
    }
    if (cursor->group < journal->first) {
        return enter_group_read_back(journal);
    }
    const struct group *group = group_at(journal, cursor->group);
    cursor->position = group->position;
    cursor->bytes = group->bytes;
    cursor->left = group->records;
    cursor->offset = SEGMENT_GROUP_BYTES;
    return true;
}

/* The cursor's record with its frame, read back and checked, or NULL. */
static const void *record_read_back(struct journal *journal)
{
    const struct cursor *cursor = &journal->cursor;
    const uint64_t position = cursor->position + cursor->offset;
    const uint32_t space = cursor->bytes - cursor->offset;
    const struct segment_frame *frame = read_back(journal, position, SEGMENT_FRAME_BYTES);
    if (frame == NULL) {
        return NULL;
    }
    if (frame->size > JOURNAL_RECORD_MAX || segment_span(frame->size) > space) {
        read_failed(journal, -EBADMSG);
        return NULL;
    }
    const void *bytes = read_back(journal, position, segment_span(frame->size));
    if (bytes == NULL) {
        return NULL;
    }
    if (segment_record_read(bytes, space, segment_of(journal, position)->header.id) == 0) {
        read_failed(journal, -EBADMSG);
        return NULL;
    }
    return bytes;
}

/* The cursor's record with its frame, or NULL: there is none, or it is being read back. */
static const uint8_t *record_here(struct journal *journal)
{
    struct cursor *cursor = &journal->cursor;
    struct segment_frame frame;

    if (journal->unreadable || (cursor->left == 0 && !enter_group(journal))) {
        return NULL;
    }
    const uint8_t *bytes =
        cursor->group < journal->first
            ? record_read_back(journal)
            : journal->buffer + group_at(journal, cursor->group)->memory + cursor->offset;
    if (bytes != NULL) {
        memcpy(&frame, bytes, sizeof(frame));
        cursor->size = frame.size;
    }
    return bytes;
}

static void pass_record(struct cursor *cursor)
{
    cursor->offset += segment_span(cursor->size);
    cursor->size = 0;
    cursor->left--;
    if (cursor->left == 0) {
        CHECK(cursor->offset == cursor->bytes);
        cursor->group++;
    }
}

const void *journal_handover(struct journal *journal, uint32_t *ret_size, uint64_t *ret_position)
{
    struct cursor *cursor = &journal->cursor;
    const uint8_t *bytes = record_here(journal);

    /* Bounded: by one group of the buffer (see seek), or by what was read back in one piece. */
    while (bytes != NULL && cursor->position + cursor->offset <= cursor->after) {
        pass_record(cursor);
        bytes = record_here(journal);
    }
    if (bytes == NULL) {
        return NULL;
    }
    *ret_size = cursor->size;
    *ret_position = cursor->position + cursor->offset;
    return bytes + SEGMENT_FRAME_BYTES;
}

void journal_handover_next(struct journal *journal)
{
    struct cursor *cursor = &journal->cursor;
    const uint64_t position = cursor->position + cursor->offset;

    CHECK(cursor->size > 0); /* journal_handover gave a record */
    if (position > journal->handed_position) {
        journal->handed_position = position;
    }
    pass_record(cursor);
}

/* The first group of the oldest segment that is not released. */
static uint64_t oldest_group(const struct journal *journal)
{
    return journal->starts[journal->supply.ordinal_first % journal->starts_max];
}

/* Points the cursor at the last group known by place that leaves out nothing above position: one in
 * the buffer, else the first of the segment. Where it is evicted before it is entered, it is read
 * back from behind a block that stands for the group before it. */
static void seek(struct journal *journal, uint64_t position)
{
    const uint32_t segment_bytes = journal->options.segment_bytes;
    const uint64_t oldest = journal->supply.ordinal_first;
    const uint64_t ordinal = position / segment_bytes > oldest ? position / segment_bytes : oldest;
    const uint64_t number = journal->starts[ordinal % journal->starts_max];
    uint64_t nearer = journal->durable - 1;

    CHECK(ordinal < journal->supply.ordinal_next && number <= journal->durable);
    journal->cursor = (struct cursor){.group = number,
                                      .position = ordinal * segment_bytes,
                                      .bytes = SEGMENT_BLOCK_BYTES,
                                      .after = position};
    while (nearer >= journal->first && group_at(journal, nearer)->position > position) {
        nearer--;
    }
    if (nearer > number && nearer >= journal->first) {
        journal->cursor.group = nearer;
        journal->cursor.position = group_at(journal, nearer)->position - SEGMENT_BLOCK_BYTES;
    }
}

void journal_rewind(struct journal *journal, uint64_t position)
{
    CHECK(position <= journal->handed_position);
    if (journal->begun) {
        seek(journal, position);
    }
}

/* --- release and close --- */

void journal_release(struct journal *journal, uint64_t position)
{
    struct supply *supply = &journal->supply;

    CHECK(position <= journal->handed_position);
    if (position <= journal->released_position) {
        return;
    }
    journal->released_position = position;
    while (supply->ordinal_first + 1 < supply->ordinal_next &&
           supply_at(supply, supply->ordinal_first)->last_position <= position) { /* J3 */
        supply_release(supply);
    }
    if (journal->begun && journal->cursor.group < oldest_group(journal)) {
        seek(journal, 0); /* after a rewind: on with what is left, the newest record included */
    }
    if (journal->dirty && journal->dirty_ordinal < supply->ordinal_first) {
        /* What a sync was owed for is in the store, and its file may be prepared anew. */
        journal->dirty = false;
        journal->synced = journal->durable - 1;
    }
}

void journal_close(struct journal *journal)
{
    const bool all_released = journal->released_position >= journal->last_position;
    if (journal->dirty && !journal->failed &&
        os_file_sync(supply_at(&journal->supply, journal->dirty_ordinal)->file) < 0) {
        log_warning("journal not synced at the end shard=%u", journal->options.shard);
        journal->failed = true;
    }
    supply_close(&journal->supply, !journal->failed, all_released);
}
