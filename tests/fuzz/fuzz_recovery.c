/*
 * fuzz_recovery.c - recovery of any bytes ends, and stays inside them.
 *
 * Method: the input is the segment files of a directory on the simulated disk: a byte that says
 *         how many (1 to 3) and whether to salvage, then their bytes in equal parts. A checksum
 *         that a mutation broke is made to fit where magic numbers stand, or nothing behind the
 *         checksums would ever be reached.
 */
#include "core/check.h"
#include "core/hash.h"
#include "core/log.h"
#include "fileio/recovery.h"
#include "fileio/segment.h"
#include "tests/sim/os_disk.h"

#include <string.h>

enum { PART_MAX = 32 * SEGMENT_BLOCK_BYTES, DISK = 1 << 22 };

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t part[PART_MAX];

static bool silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}

static int count_bytes(void *context, const void *record, uint32_t size)
{
    uint64_t *sum = context;
    for (uint32_t i = 0; i < size; i++) { /* touches each: a sanitizer sees where they are */
        *sum += ((const uint8_t *)record)[i];
    }
    return 0;
}

/* Makes the checksums of records of a group at that offset fit, as far as their sizes lead. */
static void mend_records(size_t at, size_t size, const struct segment_group *group)
{
    const uint32_t seed = (uint32_t)(group->segment_id ^ group->segment_id >> 32);
    size_t offset = at + sizeof(*group);
    for (uint32_t i = 0; i < group->records && offset + sizeof(struct segment_frame) <= size; i++) {
        struct segment_frame frame;
        memcpy(&frame, part + offset, sizeof(frame));
        if (frame.size > SEGMENT_RECORD_MAX || segment_span(frame.size) > size - offset) {
            return;
        }
        if (frame.crc != 0) { /* zero stays wrong, so that damage can be found too */
            frame.crc = crc32c(crc32c(seed, &frame.size, sizeof(frame.size)),
                               part + offset + sizeof(frame), frame.size);
            memcpy(part + offset, &frame, sizeof(frame));
        }
        offset += segment_span(frame.size);
    }
}

static void mend(size_t size)
{
    struct segment_header header;
    if (size >= sizeof(header)) {
        memcpy(&header, part, sizeof(header));
        header.crc = crc32c(0, &header, offsetof(struct segment_header, crc));
        memcpy(part, &header, sizeof(header));
    }
    for (size_t at = SEGMENT_BLOCK_BYTES; at + sizeof(struct segment_group) <= size;
         at += SEGMENT_BLOCK_BYTES) {
        struct segment_group group;
        memcpy(&group, part + at, sizeof(group));
        if (group.crc == 0) {
            continue;
        }
        group.crc = crc32c(0, &group.segment_id,
                           sizeof(group) - offsetof(struct segment_group, segment_id));
        memcpy(part + at, &group, sizeof(group));
        mend_records(at, size, &group);
    }
}

static void put_part(uint64_t number, const uint8_t *data, size_t size)
{
    char path[SEGMENT_PATH_MAX];
    const size_t kept = size < PART_MAX ? size : PART_MAX;
    CHECK(segment_path(path, "journal", 0, number, SEGMENT_NAME_READY) == 0);
    const int file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_CREATE);
    CHECK(file >= 0);
    memcpy(part, data, kept);
    mend(kept);
    CHECK(os_file_write(file, part, kept, 0) == 0);
    os_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct recovery_report report;
    char why[1024] = "";
    uint64_t sum = 0;

    log_writer(silence);
    if (size < 1) {
        return 0;
    }
    disk_reset(1, DISK);
    const size_t parts = 1 + data[0] % 3;
    const bool salvage = (data[0] & 0x80) != 0;
    const size_t each = (size - 1) / parts;
    for (size_t i = 0; i < parts; i++) {
        put_part(i + 1, data + 1 + i * each, each);
    }
    const int error =
        recovery_run("journal", salvage, count_bytes, &sum, &report, why, sizeof(why));
    CHECK(error <= 0);
    CHECK((error < 0) == (why[0] != '\0'));
    CHECK(recovery_retire("journal") == 0);
    CHECK(recovery_run("journal", false, count_bytes, &sum, &report, why, sizeof(why)) == 0);
    CHECK(report.segments == 0);
    return 0;
}
