/* lane.c - see lane.h for the invariants A1 and A2 named below. */
#include "persist/lane.h"

#include "core/check.h"

#include <string.h>

enum { EVENTS_MAX = 16 };

/* Shows the shard what is in its ring; true if its bell was rung. */
static bool publish(struct persist *persist, struct persist_lane *door)
{
    if (!spsc_publish(&door->replies) || !doorbell_should_ring(door->shard_bell)) {
        return false;
    }
    os_doorbell(persist->ring, door->shard_ring, door->shard_tag);
    return true;
}

void lane_reply(struct persist *persist, uint32_t index, const void *reply, uint32_t size)
{
    struct lane *lane = &persist->lanes[index];
    struct os_event events[EVENTS_MAX];

    CHECK(size <= lane->reply_max);
    void *space = spsc_reserve(&lane->door->replies, size);
    while (space == NULL && !thread_is_stopping(persist)) { /* A1 */
        (void)publish(persist, lane->door);
        (void)!os_turn(persist->ring, LANE_WAIT_NS, events, EVENTS_MAX);
        space = spsc_reserve(&lane->door->replies, size);
    }
    if (space != NULL) {
        memcpy(space, reply, size);
        spsc_commit(&lane->door->replies, size);
    }
}

bool lane_tell(struct persist *persist)
{
    bool due = false;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        struct lane *lane = &persist->lanes[i];
        if (lane->stored == lane->told) {
            continue;
        }
        const struct persist_record watermark = {.head = {.op = PERSIST_WATERMARK},
                                                 .position = lane->stored};
        void *space = spsc_reserve(&lane->door->replies, sizeof(watermark));
        if (space == NULL) {
            due = true; /* A2 */
            continue;
        }
        memcpy(space, &watermark, sizeof(watermark));
        spsc_commit(&lane->door->replies, sizeof(watermark));
        lane->told = lane->stored;
    }
    return due;
}

void lane_flush(struct persist *persist)
{
    struct os_event events[EVENTS_MAX];
    bool rung = false;

    for (uint32_t i = 0; i < persist->lane_count; i++) {
        rung = publish(persist, persist->lanes[i].door) || rung;
    }
    if (rung) {
        /* The bells go out with this; an event that comes in says only what the next look at the
         * lanes will find anyway. */
        (void)!os_turn(persist->ring, 0, events, EVENTS_MAX);
    }
}
