/* handover.c - see handover.h for H1 and H2. */
#include "shard/handover.h"

#include "core/failpoint.h"
#include "shard/shard.h"

#include <string.h>

static void set_mark(struct handover *handover, uint64_t every)
{
    const struct handover_mark *newest = &handover->marks[(handover->end - 1) % HANDOVER_MARKS];
    if (handover->end - handover->first == HANDOVER_MARKS ||
        (handover->end != handover->first && handover->bytes - newest->bytes < every)) {
        return;
    }
    handover->marks[handover->end++ % HANDOVER_MARKS] =
        (struct handover_mark){.position = handover->position, .bytes = handover->bytes};
}

/* The journal is a quarter full: the store's next transaction should not wait. */
static bool is_pressed(const struct shard *shard)
{
    return journal_backlog_bytes(shard->journal) >
           shard->config->journal_bytes_max / shard->count / 4;
}

/* False: the ring is full. */
static bool push(struct shard *shard, const void *record, uint32_t size, uint64_t position,
                 bool pressed)
{
    struct handover *handover = &shard->handover;
    struct spsc *ring = &shard->lane->requests;
    const struct persist_record head = {.head = {.op = PERSIST_RECORD, .count = pressed ? 1 : 0},
                                        .position = position,
                                        .record_bytes = size};
    char *space = spsc_reserve(ring, (uint32_t)sizeof(head) + size);
    if (space == NULL) {
        return false;
    }
    memcpy(space, &head, sizeof(head));
    memcpy(space + sizeof(head), record, size);
    spsc_commit(ring, (uint32_t)sizeof(head) + size);
    handover->position = position;
    handover->bytes += size;
    return true;
}

/* False: the ring is full. */
static bool push_rewound(struct shard *shard)
{
    const struct persist_head head = {.op = PERSIST_REWOUND};
    void *space = spsc_reserve(&shard->lane->requests, sizeof(head));

    if (space == NULL) {
        return false;
    }
    memcpy(space, &head, sizeof(head));
    spsc_commit(&shard->lane->requests, sizeof(head));
    shard->handover.rewound = false;
    shard->handover.asked = true;
    return true;
}

void handover_run(struct shard *shard)
{
    struct handover *handover = &shard->handover;
    if (handover->rewound && !push_rewound(shard)) {
        return;
    }
    const uint64_t unstored_max = persist_unstored_max(shard->persist);
    const bool pressed = is_pressed(shard);
    uint32_t size = 0;
    uint64_t position = 0;
    const void *record = journal_handover(shard->journal, &size, &position);

    while (record != NULL && handover->bytes - handover->taken + size <= unstored_max && /* H1 */
           push(shard, record, size, position, pressed)) {
        journal_handover_next(shard->journal);
        set_mark(handover, unstored_max / (HANDOVER_MARKS / 2));
        record = journal_handover(shard->journal, &size, &position);
    }
    const bool many = handover->bytes - handover->waked_bytes > unstored_max / 4;
    const bool held = record != NULL && persist_is_well(shard->persist);
    if (spsc_publish(&shard->lane->requests) || held) {
        if (handover->asked || many || pressed || held) { /* H2 */
            handover->asked = false;
            handover->waked_bytes = handover->bytes;
            persist_wake(shard->persist, shard->ring);
        }
    }
    metrics_set(&shard->metrics->journal_backlog_bytes, journal_backlog_bytes(shard->journal));
}

void handover_taken(struct shard *shard, uint64_t position)
{
    struct handover *handover = &shard->handover;
    while (handover->first != handover->end &&
           handover->marks[handover->first % HANDOVER_MARKS].position <= position) {
        handover->taken = handover->marks[handover->first % HANDOVER_MARKS].bytes;
        handover->first++;
    }
    if (position == handover->position) {
        handover->taken = handover->bytes;
    }
}

void handover_stored(struct shard *shard, uint64_t position)
{
    journal_release(shard->journal, position);
    failpoint("segment.free");
    handover_taken(shard, position);
}

void handover_rewind(struct shard *shard, uint64_t position)
{
    struct handover *handover = &shard->handover;
    journal_rewind(shard->journal, position);
    handover->position = position;
    handover->taken = handover->bytes;
    handover->first = handover->end;
    handover->rewound = true;
}

bool handover_has(const struct shard *shard, uint64_t position)
{
    return position <= shard->handover.position;
}

bool handover_is_complete(const struct shard *shard)
{
    return shard->handover.position == journal_durable(shard->journal) &&
           shard->pending.first == shard->pending.end;
}
