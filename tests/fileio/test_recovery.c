/*
 * test_recovery.c - a damaged journal is never read as a shorter one.
 *
 * Method: segments built here, with 100 records and the leavings of a former life behind them, on
 *         the simulated disk. The file is cut at every byte, and every single bit of it is flipped;
 *         each time all records come back, or the report or the refusal says what does not.
 */
#include "core/check.h"
#include "core/hash.h"
#include "core/log.h"
#include "fileio/recovery.h"
#include "fileio/segment.h"
#include "tests/sim/os_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 100, IMAGE_MAX = 128 * SEGMENT_BLOCK_BYTES, DISK = 1 << 26, ID = 0x51 };

static const char directory[] = "journal";
static uint8_t image[IMAGE_MAX];

static uint64_t block(uint64_t index)
{
    return index * SEGMENT_BLOCK_BYTES;
}

/* --- building --- */

/* One segment of one shard under construction. */
struct build {
    struct segment_header header;
    uint64_t offset;
    uint64_t number; /* of the next group */
    uint64_t synced; /* as the groups will claim; UINT64_MAX: the number before their own */
    uint32_t index;
    uint64_t record; /* of the next one */
};

static struct build begin(uint32_t shard, uint64_t number, uint64_t id, uint32_t segment_blocks_max,
                          uint64_t group, uint64_t record)
{
    struct build build = {
        .header = {.shard = shard,
                   .number = number,
                   .id = id,
                   .segment_bytes = (uint64_t)segment_blocks_max * SEGMENT_BLOCK_BYTES,
                   .state = SEGMENT_LIVE},
        .offset = SEGMENT_BLOCK_BYTES,
        .number = group,
        .synced = UINT64_MAX,
        .record = record,
    };
    CHECK(build.header.segment_bytes <= IMAGE_MAX);
    memset(image, 0, IMAGE_MAX);
    segment_header_write(build.header, image);
    return build;
}

/* Record i: its number and a few bytes that follow from it. */
static uint32_t record_bytes(uint64_t record)
{
    return 8 + (uint32_t)(record * 7 % 19);
}

static void add_group(struct build *build, uint32_t records)
{
    uint8_t *at = image + build->offset + SEGMENT_GROUP_BYTES;
    for (uint32_t i = 0; i < records; i++, build->record++) {
        const struct segment_frame frame = {.size = record_bytes(build->record)};
        memcpy(at, &frame, sizeof(frame));
        memset(at + sizeof(frame), (int)(build->record & 0xff), frame.size);
        memcpy(at + sizeof(frame), &build->record, sizeof(build->record));
        at += segment_span(frame.size);
    }
    const struct segment_group group = {
        .segment_id = build->header.id,
        .segment_number = build->header.number,
        .number = build->number,
        .synced = build->synced == UINT64_MAX ? build->number - 1 : build->synced,
        .position = build->header.segment_bytes * 3 + build->offset,
        .bytes = (uint32_t)(at - (image + build->offset)),
        .records = records,
        .shard = build->header.shard,
        .index = build->index,
    };
    segment_group_write(group, image + build->offset);
    build->offset += segment_blocks(group.bytes);
    build->number++;
    build->index++;
}

static void put_file(const char *name, uint64_t size)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    const int file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_CREATE);
    CHECK(file >= 0);
    CHECK(os_file_write(file, image, size, 0) == 0);
    CHECK(os_file_sync(file) == 0);
    os_file_close(file);
    CHECK(os_directory_sync(directory) == 0);
}

static void put_segment(const struct build *build, const char *name)
{
    put_file(name, build->header.segment_bytes);
}

/* --- reading --- */

struct found {
    uint64_t count;
    uint64_t last;
    bool row; /* without a gap, from 1 */
    uint64_t stop_at;
    int stop_with; /* 0: -ENOSPC */
};

static int take(void *context, const void *record, uint32_t size)
{
    struct found *found = context;
    uint64_t number = 0;
    CHECK(size >= sizeof(number));
    memcpy(&number, record, sizeof(number));
    CHECK(size == record_bytes(number));
    for (uint32_t i = sizeof(number); i < size; i++) {
        CHECK(((const uint8_t *)record)[i] == (uint8_t)number);
    }
    found->row = found->row && number == found->last + 1;
    found->last = number;
    found->count++;
    if (found->count < found->stop_at || found->stop_at == 0) {
        return 0;
    }
    return found->stop_with != 0 ? found->stop_with : -ENOSPC;
}

struct outcome {
    int error;
    struct found found;
    struct recovery_report report;
    char why[1024];
};

static struct outcome recover(bool salvage)
{
    struct outcome outcome = {.found = {.row = true}};
    outcome.error = recovery_run(directory, salvage, take, &outcome.found, &outcome.report,
                                 outcome.why, sizeof(outcome.why));
    return outcome;
}

/* Nothing is lost without a word. */
static void check_never_silent(const struct outcome *outcome, uint64_t records)
{
    if (outcome->error < 0) {
        CHECK(outcome->error == -EBADMSG);
        CHECK(strstr(outcome->why, "journal/") != NULL);
        CHECK(strstr(outcome->why, ".seg") != NULL);
        CHECK(strstr(outcome->why, "offset") != NULL);
        CHECK(strstr(outcome->why, "--salvage") != NULL);
        return;
    }
    CHECK(outcome->found.row);
    CHECK(outcome->found.count == outcome->report.records);
    CHECK(outcome->found.count == records || outcome->report.torn_bytes > 0);
}

/* --- one file of 100 records --- */

static const char mixed[] = "0-0000000000000007.seg";
static const char mixed_path[] = "journal/0-0000000000000007.seg";

/* Ten groups of different sizes in a reused segment, whose former groups go on behind them. */
static struct build put_mixed(void)
{
    static const uint32_t sizes[] = {1, 19, 3, 30, 1, 14, 8, 2, 17, 5};
    static uint8_t former[IMAGE_MAX];
    struct build build = begin(0, 7, ID - 1, 14, 1, 1);
    while (build.offset < build.header.segment_bytes) {
        add_group(&build, 6);
    }
    memcpy(former, image, sizeof(former));
    build = begin(0, 17, ID, 14, 41, 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        add_group(&build, sizes[i]);
    }
    CHECK(build.record == RECORDS + 1);
    memcpy(image + build.offset, former + build.offset, build.header.segment_bytes - build.offset);
    disk_reset(1, DISK);
    put_segment(&build, mixed);
    return build;
}

static void intact_journal_comes_back_whole(void)
{
    (void)put_mixed();
    const struct outcome outcome = recover(false);
    CHECK(outcome.error == 0);
    CHECK(outcome.found.count == RECORDS && outcome.found.row);
    CHECK(outcome.report.segments == 1);
    CHECK(outcome.report.torn_bytes == 0 && outcome.report.salvaged_gaps == 0);
    CHECK(outcome.report.first_segment == 18);
}

static void cut_at_every_byte_is_never_silent(void)
{
    const struct build build = put_mixed();
    uint64_t least = 0;
    for (uint64_t size = 0; size < build.header.segment_bytes; size++) {
        disk_truncate(mixed_path, size);
        const struct outcome outcome = recover(false);
        check_never_silent(&outcome, RECORDS);
        CHECK((outcome.error < 0) == (size < sizeof(struct segment_header)));
        if (outcome.error == 0) {
            CHECK(outcome.report.torn_bytes > 0);
            CHECK(outcome.found.count >= least); /* every whole record is kept */
            least = outcome.found.count;
        }
    }
    CHECK(least == RECORDS);
}

/* Flips one bit, looks, and flips it back. */
static struct outcome flipped(const char *path, uint64_t bit, bool salvage)
{
    disk_flip(path, bit / 8, (uint8_t)(1U << bit % 8));
    const struct outcome outcome = recover(salvage);
    disk_flip(path, bit / 8, (uint8_t)(1U << bit % 8));
    return outcome;
}

static void every_flipped_bit_is_noticed(void)
{
    const struct build build = put_mixed();
    const uint64_t last_group = build.offset - SEGMENT_BLOCK_BYTES;
    uint64_t refused = 0;
    uint64_t torn = 0;
    for (uint64_t bit = 0; bit < build.header.segment_bytes * 8; bit++) {
        const struct outcome outcome = flipped(mixed_path, bit, false);
        check_never_silent(&outcome, RECORDS);
        CHECK(outcome.error == 0 || bit / 8 < last_group); /* a torn tail stops no start */
        CHECK(outcome.report.torn_bytes == 0 || bit / 8 >= last_group);
        refused += outcome.error < 0;
        torn += outcome.error == 0 && outcome.found.count < RECORDS;
    }
    CHECK(refused >
          UINT64_C(8) * (64 + 9 * 64 + 95 * 16)); /* headers, and records before the last group */
    CHECK(torn > UINT64_C(8) * (64 + 5 * 16));
}

static void salvage_keeps_all_but_what_is_damaged(void)
{
    const struct build build = put_mixed();
    for (uint64_t bit = 0; bit < build.header.segment_bytes * 8; bit += 7) {
        const struct outcome outcome = flipped(mixed_path, bit, true);
        CHECK(outcome.error == 0);
        CHECK(outcome.found.count >= RECORDS - 30); /* the largest group has 30 */
        CHECK(outcome.found.count == RECORDS || outcome.report.salvaged_gaps > 0 ||
              outcome.report.torn_bytes > 0);
    }
}

static void every_flipped_bit_of_a_hundred_groups_is_noticed(void)
{
    struct build build = begin(0, 7, ID, RECORDS + 2, 1, 1);
    for (int i = 0; i < RECORDS; i++) {
        add_group(&build, 1);
    }
    disk_reset(1, DISK);
    put_segment(&build, mixed);
    for (uint64_t at = 0; at < build.header.segment_bytes; at++) {
        /* All bits of what is used, one in 2,048 of the padding. */
        const bool used = at % SEGMENT_BLOCK_BYTES < 64 + 8 + 32;
        if (!used && at % 256 != 0) {
            continue;
        }
        for (uint64_t bit = 0; bit < (used ? 8U : 1U); bit++) {
            const struct outcome outcome = flipped(mixed_path, at * 8 + bit, false);
            check_never_silent(&outcome, RECORDS);
        }
    }
    uint64_t size = 0;
    while (size < build.header.segment_bytes) {
        disk_truncate(mixed_path, size);
        const struct outcome outcome = recover(false);
        check_never_silent(&outcome, RECORDS);
        size += size % SEGMENT_BLOCK_BYTES < 128 ? 1 : 62;
    }
}

/* --- several files --- */

/* Three segments of shard 3 with 30 groups, one record each, and an empty spare. */
static void put_row(void)
{
    disk_reset(1, DISK);
    struct build build = begin(3, 5, ID, 12, 21, 1);
    for (uint64_t segment = 0; segment < 3; segment++) {
        char name[64];
        build = begin(3, 5 + segment, ID + segment, 12, 21 + segment * 10, 1 + segment * 10);
        for (int i = 0; i < 10; i++) {
            add_group(&build, 1);
        }
        (void)snprintf(name, sizeof(name), "3-%016" PRIx64 ".seg", 100 - segment);
        put_segment(&build, name); /* names in another order than numbers */
    }
    build = begin(3, 8, ID + 9, 12, 51, 31);
    put_segment(&build, "3-0000000000000001.seg");
}

static const char row_first[] = "journal/3-0000000000000064.seg";
static const char row_second[] = "journal/3-0000000000000063.seg";
static const char row_third[] = "journal/3-0000000000000062.seg";

static void segments_are_read_in_the_order_of_their_headers(void)
{
    put_row();
    const struct outcome outcome = recover(false);
    CHECK(outcome.error == 0);
    CHECK(outcome.found.count == 30 && outcome.found.row);
    CHECK(outcome.report.torn_bytes == 0);
    CHECK(outcome.report.first_segment == 101);
}

static void expect_damage(const char *path, uint64_t offset, uint64_t salvaged)
{
    char place[32];
    struct outcome outcome = recover(false);
    (void)snprintf(place, sizeof(place), "offset %" PRIu64 ":", offset);
    CHECK(outcome.error == -EBADMSG);
    CHECK(strstr(outcome.why, path) != NULL);
    CHECK(strstr(outcome.why, place) != NULL);
    outcome = recover(true);
    CHECK(outcome.error == 0);
    CHECK(outcome.found.count == salvaged);
    CHECK(outcome.report.salvaged_gaps > 0);
}

static void damage_at_the_end_of_an_earlier_segment_is_refused(void)
{
    put_row();
    disk_flip(row_first, block(10), 1); /* the header of its last group */
    expect_damage(row_first, block(10), 29);
}

static void damage_at_the_very_start_is_refused(void)
{
    put_row();
    disk_flip(row_first, 4096 + 70, 1); /* the record of the first group of all */
    expect_damage(row_first, 4096 + 64, 29);
    put_row();
    disk_flip(row_first, 4096, 1);
    expect_damage(row_first, 4096, 29);
    put_row();
    for (uint64_t group = 1; group <= 10; group++) {
        disk_flip(row_first, block(group), 1);
    }
    expect_damage(row_first, 4096, 20);
}

static void cut_in_an_earlier_segment_is_refused(void)
{
    put_row();
    disk_truncate(row_second, block(7));
    expect_damage(row_second, block(7), 26);
}

static void missing_segment_is_refused(void)
{
    put_row();
    CHECK(os_file_remove(row_second) == 0);
    expect_damage(row_first, block(11), 20);
}

static void damaged_header_is_refused_and_salvaged_from_its_first_group(void)
{
    put_row();
    disk_flip(row_second, 24, 4);
    expect_damage(row_second, 0, 30);
}

static void last_group_of_the_last_segment_is_a_torn_tail(void)
{
    put_row();
    disk_flip(row_third, block(10) + 70, 1);
    const struct outcome outcome = recover(false);
    CHECK(outcome.error == 0);
    CHECK(outcome.found.count == 29 && outcome.found.row);
    CHECK(outcome.report.torn_bytes > 0);
}

static void groups_written_without_a_sync_may_be_lost_in_any_order(void)
{
    struct build build = begin(0, 1, ID, 12, 1, 1);
    for (int i = 0; i < 8; i++) {
        build.synced = i < 3 ? UINT64_MAX : 3; /* the last on disk was the third */
        add_group(&build, 1);
    }
    disk_reset(1, DISK);
    put_segment(&build, mixed);
    disk_flip(mixed_path, block(5), 1); /* the fifth: 6 to 8 lose their place in the row with it */
    struct outcome outcome = recover(false);
    CHECK(outcome.error == 0);
    CHECK(outcome.found.count == 4 && outcome.found.row);
    CHECK(outcome.report.torn_bytes > 0);
    disk_flip(mixed_path, block(5), 1);
    disk_flip(mixed_path, block(3), 1); /* the third was on disk when the others were written */
    outcome = recover(false);
    CHECK(outcome.error == -EBADMSG);
}

static void shards_are_read_whatever_their_number_was(void)
{
    static const uint32_t shards[] = {0, 2, 17, 9999};
    disk_reset(1, DISK);
    for (uint64_t i = 0; i < 4; i++) {
        char name[64];
        struct build build = begin(shards[i], 1 + i, ID, 8, 1, 1 + i * 5);
        add_group(&build, 5);
        (void)snprintf(name, sizeof(name), "%" PRIu32 "-%016" PRIx64 ".seg", shards[i], 1 + i);
        put_segment(&build, name);
    }
    put_file("notes.txt", 100);
    put_file("00-0000000000000001.seg", 100);
    put_file("1-000000000000000a.new", 100);
    struct outcome outcome = recover(false);
    CHECK(outcome.error == 0);
    CHECK(outcome.found.count == 20 && outcome.found.row);
    CHECK(outcome.report.segments == 4);
    CHECK(outcome.report.first_segment == 11); /* above the unfinished one too */
    CHECK(recovery_retire(directory) == 0);
    outcome = recover(false);
    CHECK(outcome.error == 0 && outcome.found.count == 0);
    CHECK(outcome.report.segments == 0);
    CHECK(os_file_open("journal/1-000000000000000a.new", 0) == -ENOENT);
    CHECK(os_file_open("journal/notes.txt", 0) >= 0);
}

static void retirement_keeps_two_segments_a_shard(void)
{
    put_row();
    CHECK(recovery_retire(directory) == 0);
    disk_power_cut();
    int kept = 0;
    for (uint64_t number = 0; number < 128; number++) {
        char path[SEGMENT_PATH_MAX];
        CHECK(segment_path(path, directory, 3, number, SEGMENT_NAME_READY) == 0);
        kept += os_file_open(path, 0) >= 0;
    }
    CHECK(kept == 2);
    CHECK(recover(false).report.segments == 0);
}

static void another_version_is_refused(void)
{
    struct segment_header header;
    (void)begin(0, 1, ID, 8, 1, 1);
    memcpy(&header, image, sizeof(header));
    header.version = SEGMENT_VERSION + 1;
    header.crc = crc32c(0, &header, offsetof(struct segment_header, crc));
    memcpy(image, &header, sizeof(header));
    disk_reset(1, DISK);
    put_file(mixed, block(8));
    const struct outcome outcome = recover(false);
    CHECK(outcome.error == -EBADMSG);
    CHECK(strstr(outcome.why, "another version") != NULL);
}

static void store_that_refuses_ends_the_recovery(void)
{
    (void)put_mixed();
    struct found found = {.row = true, .stop_at = 42};
    struct recovery_report report;
    char why[256];
    CHECK(recovery_run(directory, true, take, &found, &report, why, sizeof(why)) == -ENOSPC);
    CHECK(found.count == 42);
    CHECK(strstr(why, mixed_path) != NULL);
}

static void taker_that_wants_to_begin_again_ends_the_recovery_well(void)
{
    put_row();
    struct build build = begin(4, 1, ID, 8, 1, 31); /* another shard's, which is not read then */
    add_group(&build, 5);
    put_segment(&build, "4-0000000000000001.seg");
    for (uint64_t stop_at = 1; stop_at <= 30; stop_at++) {
        struct found found = {.row = true, .stop_at = stop_at, .stop_with = 1};
        struct recovery_report report;
        char why[256];
        CHECK(recovery_run(directory, false, take, &found, &report, why, sizeof(why)) == 0);
        CHECK(found.row && found.count == stop_at);
        CHECK(report.stopped && report.records == stop_at - 1);
        CHECK(why[0] == '\0');
    }
    const struct outcome outcome = recover(false); /* from the first record again */
    CHECK(outcome.error == 0 && outcome.found.count == 35 && outcome.found.row);
    CHECK(!outcome.report.stopped);
}

static bool silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

int main(void)
{
    log_writer(silence);
    intact_journal_comes_back_whole();
    cut_at_every_byte_is_never_silent();
    every_flipped_bit_is_noticed();
    salvage_keeps_all_but_what_is_damaged();
    every_flipped_bit_of_a_hundred_groups_is_noticed();
    segments_are_read_in_the_order_of_their_headers();
    damage_at_the_end_of_an_earlier_segment_is_refused();
    damage_at_the_very_start_is_refused();
    cut_in_an_earlier_segment_is_refused();
    missing_segment_is_refused();
    damaged_header_is_refused_and_salvaged_from_its_first_group();
    last_group_of_the_last_segment_is_a_torn_tail();
    groups_written_without_a_sync_may_be_lost_in_any_order();
    shards_are_read_whatever_their_number_was();
    retirement_keeps_two_segments_a_shard();
    another_version_is_refused();
    store_that_refuses_ends_the_recovery();
    taker_that_wants_to_begin_again_ends_the_recovery_well();
    puts("18 passed, 0 failed");
    return 0;
}
