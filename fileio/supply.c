/* supply.c - see supply.h for the invariants U1 to U5 named below. */
#include "fileio/supply.h"

#include "core/check.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    ZEROS_BYTES = 1 << 20, /* one write: 0.5 ms on the disk of facts/stores.md, so a commit that
                              comes meanwhile waits no longer than that */
    RETRY_NS = 1000000000,
};

void supply_plan(struct supply *supply, const struct supply_options *options, struct mem_plan *plan)
{
    *supply = (struct supply){
        .ring = options->ring,
        .tag = options->tag,
        .names = -1,
        .shard = options->shard,
        .segment_bytes = options->segment_bytes,
        .count_max = (uint32_t)(options->bytes_max / options->segment_bytes),
        .number_next = options->first_number,
    };
    /* One that does not fit is too long for every path in it, and supply_open says so. */
    (void)snprintf(supply->directory, sizeof(supply->directory), "%s", options->directory);
    CHECK(supply->count_max >= 1 && supply->count_max <= SUPPLY_SEGMENTS_MAX);
    supply->segments =
        mem_reserve(plan, "journal segments", sizeof(*supply->segments), supply->count_max);
    supply->order =
        mem_reserve(plan, "journal segment order", sizeof(*supply->order), supply->count_max);
    supply->zeros = mem_reserve(plan, "journal zeros (never touched)", 1, ZEROS_BYTES);
    supply->block = mem_reserve(plan, "journal segment header", SEGMENT_BLOCK_BYTES, 1);
}

/* --- the files of earlier runs --- */

/* A free file under its index, or what is wrong with it. */
static int adopt_file(struct supply *supply, const char *path, uint64_t name)
{
    struct segment_header header;
    const int file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_DIRECT);
    if (file < 0) {
        return file;
    }
    const int64_t size = os_file_size(file);
    int64_t result = os_file_read(file, supply->block, SEGMENT_BLOCK_BYTES, 0);
    if (result >= 0) {
        result = result < SEGMENT_BLOCK_BYTES ? -EBADMSG : 0;
    }
    if (result == 0) {
        result = segment_header_read(supply->block, &header);
    }
    if (result == 0 && header.state != SEGMENT_FREE) {
        result = -EEXIST;
    }
    if (result < 0 || size != supply->segment_bytes || supply->count == supply->count_max) {
        os_file_close(file);
        return result < 0 ? (int)result : os_file_remove(path);
    }
    supply->segments[supply->count++] = (struct supply_segment){
        .file = file, .state = SUPPLY_FREE, .marked = true, .name = name, .header = header};
    return 0;
}

struct adoption {
    struct supply *supply;
    char path[SEGMENT_PATH_MAX]; /* of the last file looked at */
};

static int adopt_name(void *context, const char *name)
{
    struct adoption *adoption = context;
    struct supply *supply = adoption->supply;
    uint32_t shard = 0;
    uint64_t number = 0;
    const enum segment_name kind = segment_name_read(name, &shard, &number);

    if (kind == SEGMENT_NAME_OTHER || shard != supply->shard) {
        return 0;
    }
    const int error = segment_path(adoption->path, supply->directory, shard, number, kind);
    if (error < 0) {
        return error;
    }
    return kind == SEGMENT_NAME_NEW ? os_file_remove(adoption->path)
                                    : adopt_file(supply, adoption->path, number);
}

/* --- preparation: its steps, on the ring or blocking --- */

static int path_of(const struct supply *supply, uint64_t name, enum segment_name kind,
                   char ret[SEGMENT_PATH_MAX])
{
    return segment_path(ret, supply->directory, supply->shard, name, kind);
}

/* The index of the FREE segment with the lowest number (U3), or count_max. */
static uint32_t lowest_free(const struct supply *supply)
{
    uint32_t lowest = supply->count_max;
    for (uint32_t i = 0; i < supply->count_max; i++) {
        const struct supply_segment *segment = &supply->segments[i];
        if (segment->state == SUPPLY_FREE &&
            (lowest == supply->count_max ||
             segment->header.number < supply->segments[lowest].header.number)) {
            lowest = i;
        }
    }
    return lowest;
}

static uint32_t unused_index(const struct supply *supply)
{
    uint32_t index = 0;
    while (index < supply->count_max && supply->segments[index].state != SUPPLY_NONE) {
        index++;
    }
    return index;
}

/* Opens a new file at index: 0 or -errno. */
static int create_file(struct supply *supply, uint32_t index)
{
    char path[SEGMENT_PATH_MAX];
    int error = path_of(supply, supply->number_next, SEGMENT_NAME_NEW, path);
    if (error < 0) {
        return error;
    }
    const int file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_CREATE | OS_OPEN_DIRECT);
    if (file < 0) {
        return file;
    }
    supply->segments[index] = (struct supply_segment){.file = file, .name = supply->number_next};
    supply->count++;
    return 0;
}

/* Chooses the file of the next preparation and writes its header into the block. 1 when there is
 * one, 0 when the bound forbids a new one (U4), or -errno. */
static int choose_file(struct supply *supply)
{
    uint32_t index = lowest_free(supply);
    supply->is_new = index == supply->count_max;
    if (supply->is_new) {
        index = unused_index(supply);
        if (index == supply->count_max) {
            return 0;
        }
        const int error = create_file(supply, index);
        if (error < 0) {
            supply->number_next++; /* U5: the name may be there all the same */
            return error;
        }
    }
    struct supply_segment *segment = &supply->segments[index];
    segment->state = SUPPLY_MAKING;
    segment->marked = false;
    segment->end = 0;
    segment->header = (struct segment_header){
        .shard = supply->shard,
        .number = supply->number_next++,
        .segment_bytes = supply->segment_bytes,
        .created_ms = os_wall_ms(),
        .state = SEGMENT_LIVE,
    };
    os_random(&segment->header.id, sizeof(segment->header.id));
    segment_header_write(segment->header, supply->block);
    supply->making = index;
    supply->zeroed = SEGMENT_BLOCK_BYTES;
    return 1;
}

/* Bytes of the next piece of zeros; 0: all are written. */
static uint32_t zeros_due(const struct supply *supply)
{
    const uint32_t rest = supply->segment_bytes - supply->zeroed;
    return rest < ZEROS_BYTES ? rest : ZEROS_BYTES;
}

/* A new file is whole on disk; it gets its name, durable with the next sync of the directory (U1).
 */
static int name_file(const struct supply *supply)
{
    char from[SEGMENT_PATH_MAX];
    char to[SEGMENT_PATH_MAX];
    const uint64_t name = supply->segments[supply->making].name;
    int error = path_of(supply, name, SEGMENT_NAME_NEW, from);
    error = error < 0 ? error : path_of(supply, name, SEGMENT_NAME_READY, to);
    return error < 0 ? error : os_file_rename(from, to);
}

static void spare_is_ready(struct supply *supply)
{
    supply->segments[supply->making].state = SUPPLY_SPARE;
    supply->spare = supply->making;
    supply->has_spare = true;
    supply->step = SUPPLY_IDLE;
}

/* A file has one of its two names, or none. */
static void remove_file(const struct supply *supply, uint64_t name, enum segment_name kind)
{
    char path[SEGMENT_PATH_MAX];
    int error = path_of(supply, name, kind, path);
    error = error < 0 ? error : os_file_remove(path);
    if (error < 0 && error != -ENOENT) {
        log_warning("journal segment not removed shard=%u error=%s", supply->shard,
                    os_error(error));
    }
}

/* U5. The removal is made durable: a reused file may have its old header or its new one now, and an
 * old one between two that were reused would look like a hole. */
static void abandon(struct supply *supply, int error, uint64_t now_ns)
{
    struct supply_segment *segment = &supply->segments[supply->making];

    log_warning("journal segment not prepared, sends may be refused shard=%u error=%s",
                supply->shard, os_error(error));
    os_file_close(segment->file);
    remove_file(supply, segment->name, SEGMENT_NAME_NEW);
    remove_file(supply, segment->name, SEGMENT_NAME_READY);
    if (os_directory_sync(supply->directory) < 0) {
        log_warning("journal directory not synced shard=%u", supply->shard);
    }
    *segment = (struct supply_segment){.state = SUPPLY_NONE};
    supply->count--;
    supply->step = SUPPLY_IDLE;
    supply->retry_at_ns = now_ns + RETRY_NS;
}

/* The same steps as on the ring, one after the other. */
static int make_spare(struct supply *supply)
{
    int error = choose_file(supply);
    if (error <= 0) {
        return error < 0 ? error : -ENOSPC;
    }
    const int file = supply->segments[supply->making].file;
    error = os_file_write(file, supply->block, SEGMENT_BLOCK_BYTES, 0);
    while (error == 0 && supply->is_new && zeros_due(supply) > 0) {
        error = os_file_write(file, supply->zeros, zeros_due(supply), supply->zeroed);
        supply->zeroed += zeros_due(supply);
    }
    error = error < 0 ? error : os_file_sync(file);
    if (error == 0 && supply->is_new) {
        error = name_file(supply);
        error = error < 0 ? error : os_directory_sync(supply->directory);
    }
    if (error < 0) {
        abandon(supply, error, os_now_ns());
        return error;
    }
    spare_is_ready(supply);
    return 0;
}

static void close_files(struct supply *supply)
{
    for (uint32_t i = 0; i < supply->count_max; i++) {
        if (supply->segments[i].state != SUPPLY_NONE) {
            os_file_close(supply->segments[i].file);
            supply->segments[i].state = SUPPLY_NONE;
        }
    }
    supply->count = 0;
    if (supply->names >= 0) {
        os_file_close(supply->names);
        supply->names = -1;
    }
}

int supply_open(struct supply *supply, char *ret_why, size_t why_size)
{
    struct adoption adoption = {.supply = supply};
    const char *text = "the first segment cannot be prepared";
    int error = os_directory_list(supply->directory, adopt_name, &adoption);
    if (error < 0) {
        text = error == -EEXIST ? "it still holds records that were not recovered"
                                : "it cannot be reused; look at it, then move it away";
    } else {
        (void)snprintf(adoption.path, sizeof(adoption.path), "%s", supply->directory);
        supply->names = os_directory_open(supply->directory);
        error = supply->names < 0 ? supply->names : make_spare(supply);
    }
    if (error < 0) {
        close_files(supply);
        (void)snprintf(ret_why, why_size, "journal %s: %s (%s)",
                       adoption.path[0] != '\0' ? adoption.path : supply->directory, text,
                       os_error(error));
    }
    return error;
}

/* --- the same on the ring --- */

static void begin_zeros(struct supply *supply)
{
    const int file = supply->segments[supply->making].file;
    if (zeros_due(supply) > 0) {
        supply->step = SUPPLY_ZEROS;
        os_write(supply->ring, file, supply->zeros, zeros_due(supply), supply->zeroed, false,
                 supply->tag);
    } else {
        supply->step = SUPPLY_SYNC;
        os_sync(supply->ring, file, supply->tag);
    }
}

/* The directory is synced on the ring: on a busy disk that takes long, and nothing here may block.
 */
static void begin_names(struct supply *supply, uint64_t now_ns)
{
    const int error = name_file(supply);
    if (error < 0) {
        abandon(supply, error, now_ns);
        return;
    }
    supply->step = SUPPLY_NAMES;
    os_directory_sync_start(supply->ring, supply->names, supply->tag);
}

void supply_tick(struct supply *supply, uint64_t now_ns)
{
    if (supply->has_spare || supply->step != SUPPLY_IDLE || supply->stopped ||
        now_ns < supply->retry_at_ns) {
        return;
    }
    const int chosen = choose_file(supply);
    if (chosen < 0) {
        log_warning("journal segment not created, sends may be refused shard=%u error=%s",
                    supply->shard, os_error(chosen));
        supply->retry_at_ns = now_ns + RETRY_NS;
    }
    if (chosen > 0) {
        supply->step = SUPPLY_HEADER;
        /* A reused file needs nothing but its header; a new one is synced after its zeros. */
        os_write(supply->ring, supply->segments[supply->making].file, supply->block,
                 SEGMENT_BLOCK_BYTES, 0, !supply->is_new, supply->tag);
    }
}

/* What the operation in flight had to return. */
static int32_t result_wanted(const struct supply *supply)
{
    switch ((enum supply_step)supply->step) {
    case SUPPLY_HEADER:
        return SEGMENT_BLOCK_BYTES;
    case SUPPLY_ZEROS:
        return (int32_t)zeros_due(supply);
    case SUPPLY_SYNC:
    case SUPPLY_NAMES:
    case SUPPLY_IDLE:
        break;
    }
    return 0;
}

void supply_done(struct supply *supply, int32_t result, uint64_t now_ns)
{
    CHECK(supply->step != SUPPLY_IDLE); /* O1 */
    if (supply->stopped) {
        supply->step = SUPPLY_IDLE;
        return;
    }
    if (result != result_wanted(supply)) {
        abandon(supply, result < 0 ? result : -EIO, now_ns);
        return;
    }
    if (supply->step == SUPPLY_ZEROS) {
        supply->zeroed += zeros_due(supply);
    }
    if (!supply->is_new || supply->step == SUPPLY_NAMES) {
        spare_is_ready(supply);
    } else if (supply->step != SUPPLY_SYNC) {
        begin_zeros(supply);
    } else {
        begin_names(supply, now_ns);
    }
}

/* --- use --- */

void supply_take(struct supply *supply)
{
    CHECK(supply->has_spare);
    CHECK(supply->ordinal_next - supply->ordinal_first < supply->count_max);
    supply->segments[supply->spare].state = SUPPLY_LIVE;
    supply->order[supply->ordinal_next % supply->count_max] = supply->spare;
    supply->ordinal_next++;
    supply->has_spare = false;
}

struct supply_segment *supply_at(const struct supply *supply, uint64_t ordinal)
{
    CHECK(ordinal >= supply->ordinal_first && ordinal < supply->ordinal_next);
    return &supply->segments[supply->order[ordinal % supply->count_max]];
}

void supply_release(struct supply *supply)
{
    supply_at(supply, supply->ordinal_first)->state = SUPPLY_FREE;
    supply->ordinal_first++;
}

/* --- the end --- */

/* Which of the segments whose header may say FREE has the lowest number, or count_max. Lowest
 * first for the reason of U3: a crash in between must leave an unbroken row. */
static uint32_t next_to_mark(const struct supply *supply, bool live_too)
{
    uint32_t lowest = supply->count_max;
    for (uint32_t i = 0; i < supply->count_max; i++) {
        const struct supply_segment *segment = &supply->segments[i];
        const bool may = segment->state == SUPPLY_FREE || segment->state == SUPPLY_SPARE ||
                         (live_too && segment->state == SUPPLY_LIVE);
        if (may && !segment->marked &&
            (lowest == supply->count_max ||
             segment->header.number < supply->segments[lowest].header.number)) {
            lowest = i;
        }
    }
    return lowest;
}

static void mark_free(struct supply *supply, bool live_too)
{
    int error = 0;
    uint32_t next = next_to_mark(supply, live_too);
    while (error == 0 && next < supply->count_max) {
        struct supply_segment *segment = &supply->segments[next];
        segment->header.state = SEGMENT_FREE;
        segment_header_write(segment->header, supply->block);
        error = os_file_write(segment->file, supply->block, SEGMENT_BLOCK_BYTES, 0);
        error = error < 0 ? error : os_file_sync(segment->file);
        segment->marked = true;
        next = next_to_mark(supply, live_too);
    }
    if (error < 0) {
        log_warning("journal segments not marked as free, the next start reads them shard=%u "
                    "error=%s",
                    supply->shard, os_error(error));
    }
}

void supply_close(struct supply *supply, bool clean, bool live_too)
{
    if (clean) {
        mark_free(supply, live_too);
    }
    close_files(supply);
}
