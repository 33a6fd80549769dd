/* segment.c - see segment.h for the layout and the invariants S1 to S5 named below. */
#include "fileio/segment.h"

#include "core/check.h"
#include "core/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the layout is little endian");

enum { GROUP_MAGIC = 0x50524744, NUMBER_DIGITS = 16, SHARD_DIGITS_MAX = 4 };

static const char segment_magic[8] = {'D', 'A', 'M', 'S', 'O', 'S', 'E', 'G'};

static uint32_t header_crc(const struct segment_header *header)
{
    return crc32c(0, header, offsetof(struct segment_header, crc));
}

static uint32_t group_crc(const struct segment_group *group)
{
    return crc32c(0, &group->segment_id,
                  sizeof(*group) - offsetof(struct segment_group, segment_id));
}

static uint32_t record_crc(const struct segment_frame *frame, uint64_t segment_id)
{
    const uint32_t seed = (uint32_t)(segment_id ^ segment_id >> 32);
    const uint32_t of_size = crc32c(seed, &frame->size, sizeof(frame->size));
    return crc32c(of_size, frame + 1, frame->size);
}

void segment_header_write(struct segment_header header, void *block)
{
    memcpy(header.magic, segment_magic, sizeof(header.magic));
    header.version = SEGMENT_VERSION;
    header.crc = header_crc(&header);
    memcpy(block, &header, sizeof(header));
}

int segment_header_read(const void *block, struct segment_header *ret)
{
    struct segment_header header;

    memcpy(&header, block, sizeof(header));
    if (memcmp(header.magic, segment_magic, sizeof(segment_magic)) != 0 ||
        header.crc != header_crc(&header)) {
        return -EBADMSG;
    }
    if (header.version != SEGMENT_VERSION) {
        return -EPROTO;
    }
    if (header.segment_bytes % SEGMENT_BLOCK_BYTES != 0 || header.segment_bytes == 0 ||
        header.segment_bytes > UINT32_MAX ||
        (header.state != SEGMENT_LIVE && header.state != SEGMENT_FREE)) {
        return -EBADMSG;
    }
    *ret = header;
    return 0;
}

void segment_group_write(struct segment_group group, void *bytes)
{
    unsigned char *at = (unsigned char *)bytes + sizeof(group);
    unsigned char *end = (unsigned char *)bytes + group.bytes;

    for (uint32_t i = 0; i < group.records; i++) {
        struct segment_frame frame;
        memcpy(&frame, at, sizeof(frame));
        CHECK(frame.size > 0);
        CHECK(segment_span(frame.size) <= end - at);
        /* Zeros behind a record: its padding must not carry bytes of other users' old records. */
        memset(at + sizeof(frame) + frame.size, 0,
               segment_span(frame.size) - sizeof(frame) - frame.size);
        frame.crc = record_crc((const struct segment_frame *)(const void *)at, group.segment_id);
        memcpy(at, &frame, sizeof(frame));
        at += segment_span(frame.size);
    }
    CHECK(at == end);
    memset(end, 0, segment_blocks(group.bytes) - group.bytes);
    group.magic = GROUP_MAGIC;
    group.crc = group_crc(&group);
    memcpy(bytes, &group, sizeof(group));
}

bool segment_group_read(const void *bytes, const struct segment_header *segment, uint64_t offset,
                        struct segment_group *ret)
{
    struct segment_group group;

    memcpy(&group, bytes, sizeof(group));
    if (group.magic != GROUP_MAGIC || group.segment_id != segment->id ||
        group.crc != group_crc(&group)) {
        return false;
    }
    /* Intact, so ours; what follows guards the reader against a header that was made to mislead. */
    const uint64_t space = segment->segment_bytes - offset;
    if (group.segment_number != segment->number || group.shard != segment->shard ||
        group.position % segment->segment_bytes != offset || group.number == 0 ||
        group.synced >= group.number || group.index >= group.number || group.records == 0 ||
        group.bytes > space ||
        group.bytes < sizeof(group) + (uint64_t)group.records * (SEGMENT_FRAME_BYTES + 8)) {
        return false;
    }
    *ret = group;
    return true;
}

bool segment_group_resembles(const void *bytes, const struct segment_header *segment)
{
    struct segment_group group;

    memcpy(&group, bytes, sizeof(group));
    return group.segment_id == segment->id ||
           (group.magic == GROUP_MAGIC && group.segment_number == segment->number);
}

bool segment_header_guess(const void *first_group, uint32_t shard, uint64_t segment_bytes,
                          struct segment_header *ret)
{
    struct segment_group group;

    memcpy(&group, first_group, sizeof(group));
    const struct segment_header guess = {
        .shard = shard,
        .number = group.segment_number,
        .id = group.segment_id,
        .segment_bytes = segment_bytes,
        .state = SEGMENT_LIVE,
    };
    if (!segment_group_read(first_group, &guess, SEGMENT_BLOCK_BYTES, &group)) {
        return false;
    }
    *ret = guess;
    return true;
}

uint32_t segment_record_read(const void *bytes, uint64_t space, uint64_t segment_id)
{
    const struct segment_frame *frame = bytes;

    CHECK((uintptr_t)bytes % 8 == 0);
    if (space < sizeof(*frame) || frame->size == 0 || frame->size > SEGMENT_RECORD_MAX ||
        segment_span(frame->size) > space || frame->crc != record_crc(frame, segment_id)) {
        return 0;
    }
    return frame->size;
}

int segment_path(char ret[SEGMENT_PATH_MAX], const char *directory, uint32_t shard, uint64_t number,
                 enum segment_name kind)
{
    const int length = snprintf(ret, SEGMENT_PATH_MAX, "%s/%" PRIu32 "-%016" PRIx64 ".%s",
                                directory, shard, number, kind == SEGMENT_NAME_NEW ? "new" : "seg");
    return length < 0 || length >= SEGMENT_PATH_MAX ? -ENAMETOOLONG : 0;
}

/* The digit's value, or base or more. */
static uint32_t digit(char character)
{
    if (character >= '0' && character <= '9') {
        return (uint32_t)(character - '0');
    }
    return character >= 'a' && character <= 'f' ? (uint32_t)(character - 'a') + 10 : UINT32_MAX;
}

enum segment_name segment_name_read(const char *name, uint32_t *ret_shard, uint64_t *ret_number)
{
    uint32_t shard = 0;
    uint64_t number = 0;
    int i = 0;

    for (; i < SHARD_DIGITS_MAX && digit(name[i]) < 10; i++) {
        shard = shard * 10 + digit(name[i]);
    }
    if (i == 0 || (i > 1 && name[0] == '0') || name[i] != '-') {
        return SEGMENT_NAME_OTHER;
    }
    const char *hex = name + i + 1;
    for (i = 0; i < NUMBER_DIGITS; i++) {
        if (digit(hex[i]) >= 16) {
            return SEGMENT_NAME_OTHER;
        }
        number = number << 4 | digit(hex[i]);
    }
    const bool is_new = strcmp(hex + NUMBER_DIGITS, ".new") == 0;
    if (!is_new && strcmp(hex + NUMBER_DIGITS, ".seg") != 0) {
        return SEGMENT_NAME_OTHER;
    }
    *ret_shard = shard;
    *ret_number = number;
    return is_new ? SEGMENT_NAME_NEW : SEGMENT_NAME_READY;
}
