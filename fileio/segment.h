/*
 * segment.h - the bytes of a journal segment: its header, its groups, its records.
 *
 *   | header, one block | group | group | ... | zeros, or groups of a former life |
 *                         group = header, records, padding to a whole block
 *                         record = size, checksum, bytes, padding to 8
 *
 * Walk:       from fileio/journal.c (write, read back), fileio/supply.c (headers), and
 *             fileio/recovery.c (read). docs/JOURNAL.md says the same with offsets.
 * Threads:    any; nothing here has state or does I/O.
 * Units:      sizes in bytes; offsets from the start of the file; a block is 4096 bytes, what
 *             O_DIRECT can write whatever the disk.
 *
 * Invariants: (S1) every life of a segment has its own random id, which is in its header, in each
 *                  group header and in the seed of each record's checksum: what an earlier life
 *                  left behind never passes for what this one wrote.
 *             (S2) within one life each block is written at most once.
 *             (S3) the numbers of a shard's groups rise by exactly 1, across segments too.
 *             (S4) a group says which group was the last on disk when it was written; so a later
 *                  group tells whether the loss of an earlier one breaks a promise.
 *             (S5) the fields of a header lie in one sector of 512 bytes, which a disk writes
 *                  whole or not at all.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SEGMENT_BLOCK_BYTES = 4096,
    SEGMENT_GROUP_BYTES = 64, /* a group's header */
    SEGMENT_FRAME_BYTES = 8,  /* before each record */
    SEGMENT_RECORD_MAX = 240 * 1024,
    SEGMENT_PATH_MAX = 512,
    SEGMENT_VERSION = 1,
};

enum segment_state {
    SEGMENT_LIVE = 1, /* its groups count */
    SEGMENT_FREE = 2, /* the store has all of it: nothing in it counts */
};

/* Block 0; the rest of the block is zeros. */
struct segment_header {
    char magic[8];
    uint32_t version;
    uint32_t shard;
    uint64_t number; /* order among the shard's segments; not the number in the file's name */
    uint64_t id;     /* random: S1 */
    uint64_t segment_bytes;
    uint64_t created_ms; /* since 1970, for people */
    uint32_t state;      /* enum segment_state */
    uint32_t zero[2];
    uint32_t crc; /* CRC-32C of all before it */
};
_Static_assert(sizeof(struct segment_header) == 64, "the layout is on disk");

struct segment_group {
    uint32_t magic;
    uint32_t crc; /* CRC-32C of all behind it, to the end of this header */
    uint64_t segment_id;
    uint64_t segment_number;
    uint64_t number;   /* S3; a run begins with 1 */
    uint64_t synced;   /* S4 */
    uint64_t position; /* of this header, counted as in journal.h */
    uint32_t bytes;    /* header and records, without the padding to a block */
    uint32_t records;
    uint32_t shard;
    uint32_t index; /* of this group in its segment, so that number - index is its first one's */
};
_Static_assert(sizeof(struct segment_group) == SEGMENT_GROUP_BYTES, "the layout is on disk");

struct segment_frame {
    uint32_t size; /* of the record behind it, without the padding to 8 */
    uint32_t crc;  /* CRC-32C of size and record, seeded with the segment's id */
};
_Static_assert(sizeof(struct segment_frame) == SEGMENT_FRAME_BYTES, "the layout is on disk");

/* bytes rounded up to whole blocks. */
static inline uint64_t segment_blocks(uint64_t bytes)
{
    return (bytes + SEGMENT_BLOCK_BYTES - 1) & ~(uint64_t)(SEGMENT_BLOCK_BYTES - 1);
}

/* What a record of size bytes takes with frame and padding. */
static inline uint32_t segment_span(uint32_t size)
{
    return (SEGMENT_FRAME_BYTES + size + 7) & ~7U;
}

/* Sets magic, version and checksum of a header whose other fields are set, into a zeroed block. */
void segment_header_write(struct segment_header header, void *block);

/* 0, or -EBADMSG: no header or a damaged one; -EPROTO: of another version. */
NODISCARD int segment_header_read(const void *block, struct segment_header *ret);

/* Finishes a group in memory: checksums of its records, its header, zeros up to the block's end.
 * The sizes in the frames are set; group has all fields but magic and checksum. */
void segment_group_write(struct segment_group group, void *bytes);

/* Whether these are 64 bytes of an intact group header at offset of that segment. */
bool segment_group_read(const void *bytes, const struct segment_header *segment, uint64_t offset,
                        struct segment_group *ret);

/* Whether bytes that are no intact header of that segment once were one: how a header with a few
 * damaged bits is told from a place where nothing was written in this life. */
bool segment_group_resembles(const void *bytes, const struct segment_header *segment);

/* A segment's header made anew from its first group, for salvage: whether that group is intact. */
bool segment_header_guess(const void *first_group, uint32_t shard, uint64_t segment_bytes,
                          struct segment_header *ret);

/* Size of the record that an intact frame at bytes stands before, or 0: it does not fit into space
 * bytes or is damaged. */
uint32_t segment_record_read(const void *bytes, uint64_t space, uint64_t segment_id);

/* Kinds of file names: SHARD-NUMBER.seg, and .new while it is being prepared for the first time. */
enum segment_name { SEGMENT_NAME_OTHER, SEGMENT_NAME_READY, SEGMENT_NAME_NEW };

/* Path of a file; 0, or -ENAMETOOLONG. */
NODISCARD int segment_path(char ret[SEGMENT_PATH_MAX], const char *directory, uint32_t shard,
                           uint64_t number, enum segment_name kind);

/* What a name in the directory means; shard and number are set unless it is SEGMENT_NAME_OTHER. */
enum segment_name segment_name_read(const char *name, uint32_t *ret_shard, uint64_t *ret_number);
