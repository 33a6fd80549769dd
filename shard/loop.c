/* loop.c - see loop.h, and loop_turn for the order of a turn. */
#include "shard/loop.h"

#include "core/check.h"
#include "core/log.h"
#include "shard/egress.h"
#include "shard/handover.h"
#include "shard/server.h"
#include "shard/shard.h"

#include <errno.h>

enum {
    EVENTS_MAX = 512,
    REPLIES_A_TURN_MAX = 256,
    TIMERS_A_TURN_MAX = 4096,
    WAIT_MS_MAX = 1000,
    HELD_MS = 1
};

static void read_clock(struct shard *shard)
{
    shard->now_ns = os_now_ns();
    shard->now_ms = shard->now_ns / 1000000;
    shard->wall_ms = os_wall_ms();
}

/* --- the turn's steps --- */

static void reap(struct shard *shard, const struct os_event *events, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct os_event *event = &events[i];
        switch (os_tag_kind(event->tag)) {
        case TAG_RECV:
            conn_recv_done(shard, event);
            break;
        case TAG_SEND:
            conn_send_done(shard, event);
            break;
        case TAG_JOURNAL:
            journal_done(shard->journal, event);
            break;
        case TAG_ACCEPT:
            conn_accept_done(shard, event);
            break;
        case TAG_CLOSE:
            conn_close_done(shard, event);
            break;
        case TAG_SHUTDOWN:
            conn_shutdown_done(shard, event);
            break;
        default: /* a doorbell: being awake is all it wants */
            break;
        }
    }
}

/* What persistence says about the journal; false: it is something else. */
static bool take_position(struct shard *shard, const void *reply)
{
    const struct persist_record *said = reply;
    switch (said->head.op) {
    case PERSIST_WATERMARK:
        handover_stored(shard, said->position);
        return true;
    case PERSIST_TAKEN:
        handover_taken(shard, said->position);
        return true;
    case PERSIST_REWIND:
        handover_rewind(shard, said->position);
        return true;
    default:
        return false;
    }
}

static void take_reply(struct shard *shard, const void *reply, uint32_t size)
{
    const struct persist_head *head = reply;
    if (take_position(shard, reply)) {
        return;
    }
    if (os_tag_kind(head->token) == ROOM_LOAD_TOKEN) {
        room_loading(shard, reply, size);
    } else {
        const struct call_answer answer = {.reply = reply, .reply_size = size};
        call_answered(shard, head->token, &answer);
    }
}

/* What persistence has answered. While a ring to another shard is full, answers stay where they
 * are. */
static bool take_replies(struct shard *shard)
{
    uint32_t taken = 0;
    uint32_t size = 0;
    while (taken < REPLIES_A_TURN_MAX && mesh_can_answer(shard)) {
        const void *reply = spsc_peek(&shard->lane->replies, &size);
        if (reply == NULL) {
            break;
        }
        take_reply(shard, reply, size);
        spsc_next(&shard->lane->replies);
        taken++;
    }
    spsc_release(&shard->lane->replies);
    return taken == REPLIES_A_TURN_MAX;
}

static void accept_more(struct shard *shard)
{
    if (!shard->accepting && !shard->stopping && shard->listener >= 0 &&
        shard->conns.used < shard->conns.capacity) {
        shard->accepting = true;
        os_accept(shard->ring, shard->listener, os_tag(TAG_ACCEPT, 0, 0));
    }
}

static bool has_input(struct shard *shard)
{
    uint32_t size;
    return mesh_has_input(shard) ||
           (shard->lane != NULL && spsc_peek(&shard->lane->replies, &size) != NULL);
}

/* Whether something waits for another shard to empty its ring: nobody rings when it has. */
static bool is_held(const struct shard *shard)
{
    const struct pending_table *pending = &shard->pending;
    return shard->replicate_first != NULL || mesh_is_held(shard) ||
           (shard->journal != NULL && pending->first != pending->end &&
            pending->entries[pending->first & pending->mask].position <=
                journal_durable(shard->journal));
}

static int64_t patience_ns(const struct shard *shard)
{
    const uint64_t most_ms = is_held(shard) ? HELD_MS : WAIT_MS_MAX;
    uint64_t wait_ms = timer_next_ms(shard->wheel, shard->now_ms);
    const uint64_t round_ms = egress_next_ms(shard);
    wait_ms = wait_ms < most_ms ? wait_ms : most_ms;
    wait_ms = wait_ms < round_ms ? wait_ms : round_ms;
    return (int64_t)wait_ms * 1000000;
}

/* Submits everything and, if nothing is left to do, sleeps until the next event or timer. */
static int wait_for_events(struct shard *shard, bool more, struct os_event *events)
{
    int count = 0;
    if (more) {
        return os_turn(shard->ring, 0, events, EVENTS_MAX);
    }
    doorbell_prepare_sleep(&shard->bell);
    const int64_t wait_ns = has_input(shard) ? 0 : patience_ns(shard);
    count = os_turn(shard->ring, wait_ns, events, EVENTS_MAX);
    doorbell_cancel_sleep(&shard->bell);
    return count;
}

/* --- stopping --- */

static void close_all(struct shard *shard, enum close_reason reason)
{
    for (uint32_t i = 0; i < shard->conns.capacity && i < shard->conns.high_water; i++) {
        if (pool_taken(&shard->conns, i)) {
            struct conn *conn = pool_at(&shard->conns, i);
            conn_close(conn, reason);
        }
    }
}

static void begin_stop(struct shard *shard)
{
    shard->stopping = true;
    shard->stop_by_ms = shard->now_ms + shard->config->timeouts_drain;
    close_all(shard, CLOSE_SHUTTING_DOWN);
}

/* True when the shard may end: what was acked is durable and handed over, and who could be told was
 * told. */
static bool stopped(struct shard *shard)
{
    const bool late = shard->now_ms >= shard->stop_by_ms;
    const bool failed = shard->journal != NULL && journal_state(shard->journal) == JOURNAL_FAILED;
    /* What persistence could not take stays in the journal: the next start brings it to the store.
     */
    const bool quiet = shard->journal == NULL || failed ||
                       (journal_is_idle(shard->journal) && (handover_is_complete(shard) || late));
    return quiet && (shard->conns.used == 0 || late);
}

/* --- the turn --- */

/* One turn. Each step feeds those below it. Every step has a named maximum.
 *  1 mesh     other shards' messages and persistence's answers are older than what was just read
 *  2 reap     recv, send and sync results: frees buffers for what follows
 *  3 commit   one write and one sync for all that 1 and 2 appended
 *  4 fan out  durable records to local logs, answers and replicas: one release a peer
 *  5 egress   one send per connection, however many messages
 *  6 persist  durable records to the persistence ring; if it is full they stay in the journal
 *  7 timers   after I/O, so that a late answer beats its own timeout
 *  8 wait     one system call submits everything and sleeps until the next event or timer
 * Returns the number of events for the next turn, or -errno. */
static int loop_turn(struct shard *shard, struct os_event *events, int count)
{
    bool more = false;

    read_clock(shard);
    more |= mesh_take(shard); /* 1 */
    if (shard->lane != NULL) {
        more |= take_replies(shard);
    }
    reap(shard, events, (uint32_t)count); /* 2 */
    conn_feed_starved(shard);
    accept_more(shard);
    if (shard->journal != NULL) {
        journal_commit(shard->journal); /* 3 */
        rooms_durable(shard);           /* 4 */
        rooms_replicate(shard);
    }
    mesh_publish(shard);
    more |= egress_run(shard); /* 5 */
    if (shard->journal != NULL) {
        handover_run(shard); /* 6 */
    }
    more |=
        timer_advance(shard->wheel, shard->now_ms, TIMERS_A_TURN_MAX) == TIMERS_A_TURN_MAX; /* 7 */
    more |= shard->dirty_first != NULL;

    egress_judge(shard);
    metrics_add(&shard->metrics->turns_total, 1);
    metrics_set(&shard->metrics->ring_overflow_total, os_ring_overflows(shard->ring));
    return wait_for_events(shard, more, events); /* 8 */
}

int loop_run(struct shard *shard)
{
    struct os_event events[EVENTS_MAX];
    int count = 0;

    read_clock(shard);
    timer_wheel_init(shard->wheel, shard->now_ms);
    while (!shard->stopping || !stopped(shard)) {
        count = loop_turn(shard, events, count);
        if (count < 0) {
            log_error("shard %u: io_uring failed error=%s", shard->index, os_error(count));
            return count;
        }
        if (!shard->stopping && server_stopping(shard->server)) {
            begin_stop(shard);
        }
    }
    return 0;
}
