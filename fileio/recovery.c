/* recovery.c - see recovery.h for the invariants V1 to V4 named below, fileio/segment.h for the
 * bytes and S1 to S5.
 *
 * The groups of a shard form one row of numbers (S3). Where the next number of the row should
 * stand and no intact group does, the row is broken. What follows decides what that means: a group
 * that was written after the missing one was on disk (S4) makes it damage; groups written without
 * a sync, or nothing, make it a torn tail. So the rest of the segment is looked at, block by block,
 * and so are the later segments. */
#include "fileio/recovery.h"

#include "core/check.h"
#include "core/log.h"
#include "fileio/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILES_MAX = 4096,          /* a shard's; journal_open makes no more */
    WINDOW_BYTES = 512 * 1024, /* one read; a record and two blocks fit */
    SHARDS_MAX = 10000,        /* file names have four digits for it */
    KEPT_MAX = 2,              /* free segments kept a shard: in use, and spare, at once */
    GENERATION_DIGITS = 6,     /* padded with zeros, so that names sort as numbers do */
};
_Static_assert(SEGMENT_RECORD_MAX + 2 * SEGMENT_BLOCK_BYTES <= WINDOW_BYTES, "in one read");

struct source {
    uint64_t name; /* number in the file's name */
    uint64_t size; /* of the file */
    struct segment_header header;
    bool unreadable; /* its header */
};

/* The files of one shard, of one look at the directory. */
struct listing {
    const char *directory;
    uint32_t shard;
    uint32_t shard_next; /* lowest shard above it that has files; SHARDS_MAX: none */
    uint64_t number_max; /* in any name of any shard */
    bool remove_new;     /* files that were never finished */
    uint32_t count;
    struct source files[FILES_MAX];
};

/* One file, read through a window that moves. */
struct reader {
    alignas(SEGMENT_BLOCK_BYTES) uint8_t window[WINDOW_BYTES];
    uint64_t window_at;
    uint64_t window_size;
    uint64_t size;
    int file;
    char path[SEGMENT_PATH_MAX];
};

struct recovery {
    bool salvage;
    recovery_record callback;
    void *context;
    struct recovery_report report;
    char *why;
    size_t why_size;

    uint64_t expected; /* number of the next group of the row; 0: no group was seen yet */
    bool empty_before; /* a segment of the shard had no intact group */
    bool broken;       /* the row is; where: */
    bool torn;         /* something of this life stands there */
    uint64_t broken_at;
    char broken_path[SEGMENT_PATH_MAX];

    struct reader *reader;
    struct listing *listing;
};

/* --- files --- */

static int reader_open(struct reader *reader, const char *directory, uint32_t shard, uint64_t name,
                       int flags)
{
    const int error = segment_path(reader->path, directory, shard, name, SEGMENT_NAME_READY);
    reader->window_size = 0;
    if (error < 0) {
        return error;
    }
    reader->file = os_file_open(reader->path, flags);
    const int64_t size = reader->file < 0 ? reader->file : os_file_size(reader->file);
    if (size < 0) {
        if (reader->file >= 0) {
            os_file_close(reader->file);
        }
        return (int)size;
    }
    reader->size = (uint64_t)size;
    if (reader->size % SEGMENT_BLOCK_BYTES != 0 && (flags & OS_OPEN_DIRECT) != 0) {
        /* A file that was cut: O_DIRECT cannot read its last, partial block. */
        os_file_close(reader->file);
        return reader_open(reader, directory, shard, name, flags & ~OS_OPEN_DIRECT);
    }
    return 0;
}

/* Points ret at size bytes of the file; 1, or 0: the file ends before, or -errno. */
static int reader_at(struct reader *reader, uint64_t offset, uint64_t size, const void **ret)
{
    CHECK(size <= WINDOW_BYTES - SEGMENT_BLOCK_BYTES);
    if (offset > reader->size || size > reader->size - offset) {
        return 0;
    }
    if (offset < reader->window_at || offset + size > reader->window_at + reader->window_size) {
        const uint64_t from = offset & ~(uint64_t)(SEGMENT_BLOCK_BYTES - 1);
        const uint64_t rest = reader->size - from;
        const uint64_t wanted = rest < WINDOW_BYTES ? rest : WINDOW_BYTES;
        const int64_t got = os_file_read(reader->file, reader->window, wanted, from);
        reader->window_size = 0;
        if (got != (int64_t)wanted) {
            return got < 0 ? (int)got : -EIO;
        }
        reader->window_at = from;
        reader->window_size = wanted;
    }
    *ret = reader->window + (offset - reader->window_at);
    return 1;
}

static int list_name(void *context, const char *name)
{
    struct listing *listing = context;
    char path[SEGMENT_PATH_MAX];
    uint32_t shard = 0;
    uint64_t number = 0;
    const enum segment_name kind = segment_name_read(name, &shard, &number);

    if (kind == SEGMENT_NAME_OTHER) {
        return 0;
    }
    listing->number_max = number > listing->number_max ? number : listing->number_max;
    if (shard > listing->shard && shard < listing->shard_next) {
        listing->shard_next = shard;
    }
    if (shard != listing->shard) {
        return 0;
    }
    if (kind == SEGMENT_NAME_NEW) {
        const int error = segment_path(path, listing->directory, shard, number, kind);
        return error < 0 || !listing->remove_new ? error : os_file_remove(path);
    }
    if (listing->count == FILES_MAX) {
        return -E2BIG;
    }
    listing->files[listing->count++] = (struct source){.name = number};
    return 0;
}

static int list_shard(struct listing *listing, uint32_t shard)
{
    listing->shard = shard;
    listing->shard_next = SHARDS_MAX;
    listing->count = 0;
    return os_directory_list(listing->directory, list_name, listing);
}

static int compare_sources(const void *left, const void *right)
{
    const struct source *a = left;
    const struct source *b = right;
    return (a->header.number > b->header.number) - (a->header.number < b->header.number);
}

/* The header of a file: 0; with guess, 1 for one made from its first group; -EBADMSG or -EPROTO: it
 * has none; other -errno. */
static int read_header(struct reader *reader, uint32_t shard, bool guess,
                       struct segment_header *ret)
{
    const void *bytes = NULL;
    int result = reader_at(reader, 0, sizeof(*ret), &bytes);
    if (result < 0) {
        return result;
    }
    const int error = result == 0 ? -EBADMSG : segment_header_read(bytes, ret);
    if (error == 0 && ret->shard == shard) {
        return 0;
    }
    result = guess ? reader_at(reader, SEGMENT_BLOCK_BYTES, SEGMENT_GROUP_BYTES, &bytes) : 0;
    if (result < 0) {
        return result;
    }
    if (result > 0 && segment_header_guess(bytes, shard, segment_blocks(reader->size), ret)) {
        return 1;
    }
    return error == 0 ? -EBADMSG : error;
}

/* --- the row of groups --- */

static int refuse(struct recovery *recovery, const char *path, uint64_t offset, const char *what)
{
    (void)snprintf(recovery->why, recovery->why_size,
                   "%s: damaged at offset %" PRIu64 ": %s. Restore the file from a copy; or copy "
                   "the journal directory away and start once with --salvage, which keeps every "
                   "record that is intact and gives up those that are not",
                   path, offset, what);
    return -EBADMSG;
}

static int trouble(struct recovery *recovery, const char *path, int error)
{
    (void)snprintf(recovery->why, recovery->why_size, "%s: cannot be read (%s)", path,
                   os_error(error));
    return error;
}

/* Notes the first place where the row does not go on. */
static void row_breaks(struct recovery *recovery, uint64_t offset, bool torn, uint64_t torn_bytes)
{
    if (recovery->broken) {
        return;
    }
    recovery->broken = true;
    recovery->torn = torn;
    recovery->broken_at = offset;
    recovery->report.torn_bytes += torn_bytes;
    (void)snprintf(recovery->broken_path, sizeof(recovery->broken_path), "%s",
                   recovery->reader->path);
}

static int give_record(struct recovery *recovery, const void *record, uint32_t size)
{
    const int result = recovery->callback(recovery->context, record, size);
    if (result > 0) {
        recovery->report.stopped = true;
        return -ECANCELED; /* as far as recovery_run */
    }
    if (result < 0) {
        (void)snprintf(recovery->why, recovery->why_size,
                       "%s: a record was not taken by the store (%s)", recovery->reader->path,
                       os_error(result));
        return result;
    }
    recovery->report.records++;
    recovery->report.bytes += size;
    return 0;
}

/* Looks at the record at offset, before end. 1: intact, with ret_size; 0: not, and ret_size is what
 * its frame claims if that is possible, else 0; or -errno. ret points at the record. */
static int look_at_record(struct recovery *recovery, uint64_t offset, uint64_t end, uint64_t id,
                          const void **ret, uint32_t *ret_size)
{
    struct segment_frame frame;
    const void *bytes = NULL;
    int result = reader_at(recovery->reader, offset, sizeof(frame), &bytes);

    *ret_size = 0;
    if (result <= 0) {
        return result;
    }
    memcpy(&frame, bytes, sizeof(frame));
    if (frame.size == 0 || frame.size > SEGMENT_RECORD_MAX ||
        segment_span(frame.size) > end - offset) {
        return 0;
    }
    result = reader_at(recovery->reader, offset, segment_span(frame.size), &bytes);
    if (result <= 0) {
        return result;
    }
    *ret = (const uint8_t *)bytes + sizeof(frame);
    *ret_size = frame.size;
    return segment_record_read(bytes, end - offset, id) > 0 ? 1 : 0;
}

/* Hands over the records of a group up to the first bad one, with salvage those behind it too as
 * far as the sizes lead. 1: all were intact, 0: not, or -errno. */
static int give_group(struct recovery *recovery, const struct segment_group *group,
                      uint64_t group_at)
{
    const uint64_t end = group_at + group->bytes;
    uint64_t offset = group_at + SEGMENT_GROUP_BYTES;
    bool whole = true;

    for (uint32_t i = 0; i < group->records; i++) {
        const void *record = NULL;
        uint32_t size = 0;
        int result = look_at_record(recovery, offset, end, group->segment_id, &record, &size);
        if (result > 0) {
            result = give_record(recovery, record, size);
        } else if (result == 0) {
            whole = false;
            row_breaks(recovery, offset, true, end - offset);
            if (!recovery->salvage || size == 0) {
                return 0;
            }
        }
        if (result < 0) {
            return result;
        }
        offset += segment_span(size);
    }
    return whole ? 1 : 0;
}

/* What the number of an intact group should be: that of the row, or for the first group of all the
 * first number of its segment. If a segment before it had no group, that one's are missing: it
 * cannot be a spare, for segments are used in the order of their numbers. */
static uint64_t number_expected(const struct recovery *recovery, const struct segment_group *group)
{
    if (recovery->expected != 0) {
        return recovery->expected;
    }
    const uint64_t first = group->number - group->index;
    return recovery->empty_before && first > 1 ? first - 1 : first;
}

static int take_group(struct recovery *recovery, const struct segment_group *group, uint64_t offset)
{
    const uint64_t expected = number_expected(recovery, group);

    recovery->expected = expected;
    if (group->number != expected) {
        row_breaks(recovery, offset, true, 0);
        if (group->number > expected && group->synced < expected) {
            recovery->report.torn_bytes += group->bytes; /* V1: nothing was promised of it */
            return 0;
        }
        if (!recovery->salvage) { /* V2 */
            return refuse(recovery, recovery->broken_path, recovery->broken_at,
                          group->number > expected
                              ? "intact records follow that were written after what was there"
                              : "records follow that belong before it");
        }
        recovery->report.salvaged_gaps++;
        log_warning("journal damage passed over file=%s offset=%" PRIu64, recovery->broken_path,
                    recovery->broken_at);
    }
    recovery->broken = false;
    recovery->expected = group->number;
    const int result = give_group(recovery, group, offset);
    if (result > 0) {
        recovery->expected = group->number + 1;
    }
    return result;
}

/* Reads all groups of the open file. */
static int read_groups(struct recovery *recovery, const struct segment_header *header)
{
    uint64_t offset = SEGMENT_BLOCK_BYTES;
    bool found = false;

    while (offset < header->segment_bytes) {
        struct segment_group group;
        const void *bytes = NULL;
        int result = reader_at(recovery->reader, offset, SEGMENT_GROUP_BYTES, &bytes);
        if (result < 0) {
            return trouble(recovery, recovery->reader->path, result);
        }
        if (result == 0) {
            row_breaks(recovery, offset, false, 0);
            break;
        }
        if (!segment_group_read(bytes, header, offset, &group)) {
            const bool torn = segment_group_resembles(bytes, header);
            row_breaks(recovery, offset, torn, torn ? SEGMENT_BLOCK_BYTES : 0);
            offset += SEGMENT_BLOCK_BYTES;
            continue;
        }
        result = take_group(recovery, &group, offset);
        if (result < 0) {
            return recovery->why[0] != '\0' || recovery->report.stopped
                       ? result
                       : trouble(recovery, recovery->reader->path, result);
        }
        found = true;
        offset += segment_blocks(group.bytes);
    }
    recovery->empty_before = recovery->empty_before || !found;
    return 0;
}

static int read_segment(struct recovery *recovery, const struct source *source)
{
    struct reader *reader = recovery->reader;
    const struct listing *listing = recovery->listing;
    int error =
        reader_open(reader, listing->directory, listing->shard, source->name, OS_OPEN_DIRECT);
    if (error < 0) {
        return trouble(recovery, reader->path, error);
    }
    recovery->report.segments++;
    error = read_groups(recovery, &source->header);
    if (error == 0 && reader->size < source->header.segment_bytes) {
        const uint64_t missing = source->header.segment_bytes - reader->size;
        recovery->report.torn_bytes += missing;
        log_warning("journal segment is shorter than it was made file=%s missing_bytes=%" PRIu64,
                    reader->path, missing);
    }
    os_file_close(reader->file);
    return error;
}

/* --- run --- */

/* Reads the headers of the listed files; those that count stay in the listing, in order. */
static int sort_segments(struct recovery *recovery)
{
    struct listing *listing = recovery->listing;
    struct reader *reader = recovery->reader;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < listing->count; i++) {
        struct source source = listing->files[i];
        int error =
            reader_open(reader, listing->directory, listing->shard, source.name, OS_OPEN_DIRECT);
        if (error == 0) {
            error = read_header(reader, listing->shard, recovery->salvage, &source.header);
            os_file_close(reader->file);
        }
        if (recovery->salvage && (error == 1 || error == -EBADMSG || error == -EPROTO)) {
            recovery->report.salvaged_gaps++;
            log_warning("journal segment header not intact file=%s outcome=%s", reader->path,
                        error == 1 ? "guessed" : "passed over");
            if (error < 0) {
                continue;
            }
        }
        if (error == -EBADMSG) {
            return refuse(recovery, reader->path, 0, "its header is not intact");
        }
        if (error == -EPROTO) {
            return refuse(recovery, reader->path, 0, "another version of damso wrote it");
        }
        if (error < 0) {
            return trouble(recovery, reader->path, error);
        }
        listing->number_max =
            source.header.number > listing->number_max ? source.header.number : listing->number_max;
        if (source.header.state == SEGMENT_LIVE) {
            listing->files[kept++] = source;
        }
    }
    listing->count = kept;
    qsort(listing->files, kept, sizeof(listing->files[0]), compare_sources);
    return 0;
}

static int recover_shard(struct recovery *recovery, uint32_t shard)
{
    struct listing *listing = recovery->listing;
    int error = list_shard(listing, shard);
    if (error < 0) {
        return trouble(recovery, listing->directory, error);
    }
    error = sort_segments(recovery);
    recovery->expected = 0;
    recovery->empty_before = false;
    recovery->broken = false;
    for (uint32_t i = 0; i < listing->count && error == 0; i++) {
        error = read_segment(recovery, &listing->files[i]);
    }
    if (error == 0 && recovery->broken && recovery->torn) {
        log_warning("journal torn tail dropped, none of it was acked as synced file=%s "
                    "offset=%" PRIu64,
                    recovery->broken_path, recovery->broken_at);
    }
    return error;
}

/* NOLINTNEXTLINE(readability-function-size): seven parameters, called once */
int recovery_run(const char *directory, bool salvage, recovery_record callback, void *context,
                 struct recovery_report *ret, char *ret_why, size_t why_size)
{
    struct reader reader;
    struct listing listing;
    struct recovery recovery = {
        .salvage = salvage,
        .callback = callback,
        .context = context,
        .why = ret_why,
        .why_size = why_size,
        .reader = &reader,
        .listing = &listing,
    };

    CHECK(why_size > 0);
    ret_why[0] = '\0';
    listing.directory = directory; /* the buffers beside these need no zeros */
    listing.number_max = 0;
    listing.remove_new = false;

    uint32_t shard = 0;
    while (shard < SHARDS_MAX && !recovery.report.stopped) {
        const int error = recover_shard(&recovery, shard);
        if (error < 0 && !recovery.report.stopped) {
            return error;
        }
        shard = listing.shard_next;
    }
    recovery.report.first_segment = listing.number_max + 1;
    *ret = recovery.report;
    return 0;
}

/* --- retire --- */

static int retire_source(struct reader *reader, const struct listing *listing,
                         struct source *source)
{
    int error = reader_open(reader, listing->directory, listing->shard, source->name,
                            OS_OPEN_WRITE | OS_OPEN_DIRECT);
    if (error < 0) {
        return error;
    }
    source->header.state = SEGMENT_FREE;
    memset(reader->window, 0, SEGMENT_BLOCK_BYTES);
    segment_header_write(source->header, reader->window);
    error = os_file_write(reader->file, reader->window, SEGMENT_BLOCK_BYTES, 0);
    error = error < 0 ? error : os_file_sync(reader->file);
    os_file_close(reader->file);
    return error;
}

static int read_headers(struct listing *listing, struct reader *reader)
{
    for (uint32_t i = 0; i < listing->count; i++) {
        struct source *source = &listing->files[i];
        int error =
            reader_open(reader, listing->directory, listing->shard, source->name, OS_OPEN_DIRECT);
        if (error == 0) {
            source->size = reader->size;
            error = read_header(reader, listing->shard, false, &source->header);
            os_file_close(reader->file);
        }
        source->unreadable = error == -EBADMSG || error == -EPROTO;
        if (error < 0 && !source->unreadable) {
            return error;
        }
    }
    qsort(listing->files, listing->count, sizeof(listing->files[0]), compare_sources);
    return 0;
}

static int remove_source(const struct listing *listing, const struct source *source)
{
    char path[SEGMENT_PATH_MAX];
    const int error =
        segment_path(path, listing->directory, listing->shard, source->name, SEGMENT_NAME_READY);
    return error < 0 ? error : os_file_remove(path);
}

/* Frees one after the other, the oldest first, each durably: a crash in between leaves a row that
 * recovery finds unbroken. Names go only after that, for a lost name is a hole in the row. */
static int retire_shard(struct listing *listing, struct reader *reader, uint32_t shard)
{
    uint32_t kept = 0;
    int error = list_shard(listing, shard);
    error = error < 0 ? error : read_headers(listing, reader);
    for (uint32_t i = 0; i < listing->count && error == 0; i++) {
        if (!listing->files[i].unreadable && listing->files[i].header.state == SEGMENT_LIVE) {
            error = retire_source(reader, listing, &listing->files[i]);
        }
    }
    for (uint32_t i = 0; i < listing->count && error == 0; i++) {
        const struct source *source = &listing->files[i];
        if (!source->unreadable && source->size == source->header.segment_bytes &&
            kept < KEPT_MAX) {
            kept++;
        } else {
            error = remove_source(listing, source);
        }
    }
    return error;
}

int recovery_retire(const char *directory)
{
    struct reader reader;
    struct listing listing;
    uint32_t shard = 0;

    listing.directory = directory;
    listing.number_max = 0;
    listing.remove_new = true;
    while (shard < SHARDS_MAX) {
        const int error = retire_shard(&listing, &reader, shard);
        if (error < 0) {
            return error;
        }
        shard = listing.shard_next;
    }
    return os_directory_sync(directory);
}

/* --- generations --- */

/* The directories of one look at the data directory. */
struct generations {
    uint32_t first; /* 0: there is none */
    uint32_t last;
    uint32_t count;
};

static const char journal_name[] = "journal";
static const char generation_prefix[] = "journal.";
static const char dropped_name[] = "journal.dropped";

/* The number in a directory's name, or 0: it is no generation. */
static uint32_t generation_of(const char *name)
{
    const size_t prefix = sizeof(generation_prefix) - 1;
    uint32_t number = 0;

    if (strncmp(name, generation_prefix, prefix) != 0) {
        return 0;
    }
    for (size_t i = prefix; i < prefix + GENERATION_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return 0;
        }
        number = number * 10 + (uint32_t)(name[i] - '0');
    }
    return name[prefix + GENERATION_DIGITS] == '\0' ? number : 0;
}

static int count_generation(void *context, const char *name)
{
    struct generations *generations = context;
    const uint32_t number = generation_of(name);

    if (number > 0) {
        const bool lowest = generations->first == 0 || number < generations->first;
        generations->first = lowest ? number : generations->first;
        generations->last = number > generations->last ? number : generations->last;
        generations->count++;
    }
    return 0;
}

static int path_in(char ret[SEGMENT_PATH_MAX], const char *data, const char *name)
{
    const int length = snprintf(ret, SEGMENT_PATH_MAX, "%s/%s", data, name);
    return length < 0 || length >= SEGMENT_PATH_MAX ? -ENAMETOOLONG : 0;
}

int recovery_directory(const char *data, uint32_t generation, char ret[SEGMENT_PATH_MAX])
{
    char name[32];
    CHECK(generation <= RECOVERY_GENERATION_MAX);
    (void)snprintf(name, sizeof(name), "%s%0*" PRIu32, generation_prefix, GENERATION_DIGITS,
                   generation);
    return path_in(ret, data, generation > 0 ? name : journal_name);
}

static int explain(const char *path, const char *what, int error, char *ret_why, size_t why_size)
{
    (void)snprintf(ret_why, why_size, "%s: %s (%s)", path, what, os_error(error));
    return error;
}

/* Makes `journal` if a set-aside ended before it did. What was renamed is on disk before, else a
 * power cut might keep the new name of two directories that claim it. */
static int settle_names(const char *data)
{
    char path[SEGMENT_PATH_MAX];
    int error = recovery_directory(data, 0, path);
    error = error < 0 ? error : os_directory_sync(data);
    error = error < 0 ? error : os_directory_make(path);
    return error < 0 ? error : os_directory_sync(data);
}

static int remove_entry(void *context, const char *name)
{
    char path[SEGMENT_PATH_MAX];
    const int error = path_in(path, context, name);
    return error < 0 ? error : os_file_remove(path);
}

/* Empties the directory of what was dropped, after its name is on disk: under its old name it would
 * be a generation with holes. */
static int empty_dropped(const char *data)
{
    char path[SEGMENT_PATH_MAX];
    int error = path_in(path, data, dropped_name);
    error = error < 0 ? error : os_directory_sync(data);
    error = error < 0 ? error : os_directory_list(path, remove_entry, path);
    return error == -ENOENT ? 0 : error;
}

/* V4. With salvage an empty directory takes the place of one that is missing. */
static int mend_row(const char *data, const struct generations *found, bool salvage, char *ret_why,
                    size_t why_size)
{
    char path[SEGMENT_PATH_MAX];

    for (uint32_t i = found->first; i < found->last; i++) {
        int error = recovery_directory(data, i, path);
        const int directory = error < 0 ? error : os_directory_open(path);
        if (directory >= 0) {
            os_file_close(directory);
            continue;
        }
        if (directory != -ENOENT) {
            return explain(path, "cannot be read", directory, ret_why, why_size);
        }
        if (!salvage) {
            (void)snprintf(ret_why, why_size,
                           "%s is missing, with records that the store does not have. Restore the "
                           "directory from a copy; or start once with --salvage, which gives them "
                           "up",
                           path);
            return -EBADMSG;
        }
        log_warning("journal generation missing, passed over directory=%s", path);
        error = os_directory_make(path);
        if (error < 0) {
            return explain(path, "cannot be made", error, ret_why, why_size);
        }
    }
    return 0;
}

/* NOLINTNEXTLINE(readability-function-size): six parameters, called once */
int recovery_generations(const char *data, bool salvage, uint32_t *ret_first, uint32_t *ret_count,
                         char *ret_why, size_t why_size)
{
    struct generations found = {0};
    int error = os_directory_list(data, count_generation, &found);
    error = error < 0 ? error : settle_names(data);
    if (error < 0) {
        return explain(data, "the journal's directories cannot be read or made", error, ret_why,
                       why_size);
    }
    const uint32_t range = found.count > 0 ? found.last - found.first + 1 : 0;
    if (found.count < range) {
        error = mend_row(data, &found, salvage, ret_why, why_size);
        if (error < 0) {
            return error;
        }
    }
    error = empty_dropped(data);
    if (error < 0) {
        log_warning("journal files that the store has were not removed directory=%s/%s error=%s",
                    data, dropped_name, os_error(error));
    }
    *ret_first = range > 0 ? found.first : 1;
    *ret_count = range;
    return 0;
}

int recovery_set_aside(const char *data, uint32_t *ret_generation, char *ret_why, size_t why_size)
{
    char from[SEGMENT_PATH_MAX];
    char to[SEGMENT_PATH_MAX];
    struct generations found = {0};
    int error = recovery_directory(data, 0, from);
    error = error < 0 ? error : os_directory_list(data, count_generation, &found);
    if (error == 0 && found.last == RECOVERY_GENERATION_MAX) {
        error = -EOVERFLOW;
    }
    error = error < 0 ? error : recovery_directory(data, found.last + 1, to);
    error = error < 0 ? error : os_file_rename(from, to);
    error = error < 0 ? error : settle_names(data);
    if (error < 0) {
        return explain(from, "cannot be set aside", error, ret_why, why_size);
    }
    *ret_generation = found.last + 1;
    return 0;
}

int recovery_drop(const char *data, uint32_t generation, char *ret_why, size_t why_size)
{
    char from[SEGMENT_PATH_MAX];
    char to[SEGMENT_PATH_MAX];

    CHECK(generation > 0);
    int error = recovery_directory(data, generation, from);
    error = error < 0 ? error : path_in(to, data, dropped_name);
    if (error < 0) {
        return explain(data, "is too long a path", error, ret_why, why_size);
    }
    int emptied = empty_dropped(data);
    if (emptied == 0) {
        error = os_file_rename(from, to);
        if (error < 0 && error != -ENOENT) { /* ENOENT: dropped before */
            return explain(from, "cannot be renamed to journal.dropped", error, ret_why, why_size);
        }
        emptied = empty_dropped(data);
    }
    return emptied == 0 ? 0 : explain(to, "cannot be emptied", emptied, ret_why, why_size);
}
