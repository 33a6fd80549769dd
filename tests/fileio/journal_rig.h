/*
 * journal_rig.h - what the tests of the journal share: records that say who they are, a journal
 * on whatever disk was linked, and a recovery that checks every record.
 *
 * A record is its index (8 bytes) and bytes that follow from it, its size too; so any record can be
 * checked alone, and a row of them for gaps.
 */
#pragma once

#include "core/check.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/metrics.h"
#include "core/os.h"
#include "fileio/journal.h"
#include "fileio/recovery.h"

#include <errno.h>
#include <string.h>

enum { RIG_KIND = 7, RIG_EVENTS = 8 };

struct rig {
    struct metrics metrics;
    struct os_ring *ring;
    struct journal *journal;
    struct mem_plan plan;
    struct journal_options options;
    uint64_t reads; /* operations that read back */
};

/* Size of the record with that index. */
static inline uint32_t rig_size(uint64_t index, uint32_t size_max)
{
    return 8 + (uint32_t)(index * 2654435761U % (size_max - 7));
}

static inline void rig_fill(uint8_t *bytes, uint32_t size, uint64_t index)
{
    memcpy(bytes, &index, sizeof(index));
    for (uint32_t i = sizeof(index); i < size; i++) {
        bytes[i] = (uint8_t)(index * 31 + i);
    }
}

/* Checks all bytes of a record and returns its index. */
static inline uint64_t rig_index(const uint8_t *bytes, uint32_t size, uint32_t size_max)
{
    uint64_t index = 0;
    CHECK(size >= sizeof(index));
    memcpy(&index, bytes, sizeof(index));
    CHECK(size == rig_size(index, size_max));
    for (uint32_t i = sizeof(index); i < size; i++) {
        CHECK(bytes[i] == (uint8_t)(index * 31 + i));
    }
    return index;
}

static inline int rig_open(struct rig *rig)
{
    char why[256] = "";
    const struct os_ring_options ring_options = {.entries = 64};
    CHECK(os_ring_create(&ring_options, &rig->ring, why, sizeof(why)) == 0);
    CHECK(os_ring_enable(rig->ring) == 0);
    rig->options.ring = rig->ring;
    rig->options.tag_kind = RIG_KIND;
    rig->options.metrics = &rig->metrics;
    rig->reads = 0;
    mem_init(&rig->plan, "test", MEM_MAP);
    /* The path is the journal's own copy: this one is gone after the open. */
    char path[128];
    struct journal_options options = rig->options;
    (void)snprintf(path, sizeof(path), "%s", rig->options.directory);
    options.directory = path;
    const int error = journal_open(&options, &rig->plan, &rig->journal, why, sizeof(why));
    memset(path, 'x', sizeof(path) - 1);
    return error;
}

static inline void rig_close(struct rig *rig)
{
    journal_close(rig->journal);
    os_ring_destroy(rig->ring);
    mem_end(&rig->plan);
}

/* One turn of the loop: events, then a commit. */
static inline void rig_turn(struct rig *rig, int64_t wait_ns)
{
    struct os_event events[RIG_EVENTS];
    const int count = os_turn(rig->ring, wait_ns, events, RIG_EVENTS);
    CHECK(count >= 0);
    for (int i = 0; i < count; i++) {
        CHECK(os_tag_kind(events[i].tag) == RIG_KIND);
        rig->reads += os_tag_index(events[i].tag) == 2;
        journal_done(rig->journal, &events[i]);
    }
    journal_commit(rig->journal);
}

static inline void rig_settle(struct rig *rig)
{
    for (int turn = 0; turn < 10000 && !journal_is_idle(rig->journal); turn++) {
        rig_turn(rig, 1000000);
    }
    CHECK(journal_is_idle(rig->journal));
}

/* Appends the record with that index: its position, or 0: refused. */
static inline uint64_t rig_append(struct rig *rig, uint64_t index, uint32_t size_max,
                                  enum journal_durability durability)
{
    uint64_t position = 0;
    const uint32_t size = rig_size(index, size_max);
    const bool has_room = journal_has_room(rig->journal, size);
    void *bytes = journal_append(rig->journal, size, durability, &position);
    CHECK((bytes != NULL) == has_room);
    if (bytes == NULL) {
        CHECK(journal_state(rig->journal) != JOURNAL_OK);
        return 0;
    }
    CHECK((uintptr_t)bytes % 8 == 0);
    CHECK(position > 0);
    rig_fill(bytes, size, index);
    return position;
}

/* What a recovery found: an unbroken row of indices. */
struct found {
    uint32_t size_max;
    uint64_t count;
    uint64_t first;
    uint64_t last;
};

static inline int found_record(void *context, const void *record, uint32_t size)
{
    struct found *found = context;
    const uint64_t index = rig_index(record, size, found->size_max);
    CHECK(found->count == 0 || index == found->last + 1);
    found->first = found->count == 0 ? index : found->first;
    found->last = index;
    found->count++;
    return 0;
}

static inline bool rig_silence(const char *line, uint32_t size)
{
    (void)line, (void)size;
    return true;
}
