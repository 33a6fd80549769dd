/* pipeline_read.c - see pipeline.h: questions of shards, and their way to the readers and back. */
#include "core/check.h"
#include "persist/lane.h"
#include "persist/pipeline.h"

#include <errno.h>
#include <string.h>

void pipe_reads_reserve(struct pipeline *pipeline, struct mem_plan *plan)
{
    pipeline->tickets =
        mem_reserve(plan, "questions to readers", sizeof(struct pipe_ticket), PIPE_TICKETS);
    pipeline->waiters =
        mem_reserve(plan, "who waits for them", sizeof(struct pipe_waiter), PIPE_WAITERS);
}

void pipe_reads_init(struct pipeline *pipeline)
{
    for (uint32_t i = PIPE_TICKETS; i > 0; i--) {
        pipeline->tickets[i - 1].next = pipeline->free_tickets;
        pipeline->free_tickets = &pipeline->tickets[i - 1];
    }
    for (uint32_t i = PIPE_WAITERS; i > 0; i--) {
        pipeline->waiters[i - 1].next = pipeline->free_waiters;
        pipeline->free_waiters = &pipeline->waiters[i - 1];
    }
}

/* --- tickets --- */

/* The lane waits for the ticket's answer; false: as many wait as may. */
static bool add_waiter(struct pipeline *pipeline, struct pipe_ticket *ticket, uint32_t lane,
                       uint64_t token)
{
    struct pipe_waiter *waiter = pipeline->free_waiters;

    if (waiter == NULL) {
        return false;
    }
    pipeline->free_waiters = waiter->next;
    *waiter = (struct pipe_waiter){.next = ticket->waiters, .lane = lane, .token = token};
    ticket->waiters = waiter;
    return true;
}

static struct pipe_ticket *take_ticket(struct pipeline *pipeline, struct pipe_room *room,
                                       uint32_t lane, uint64_t token)
{
    struct pipe_ticket *ticket = pipeline->free_tickets;

    if (ticket == NULL || pipeline->free_waiters == NULL) {
        return NULL;
    }
    pipeline->free_tickets = ticket->next;
    *ticket = (struct pipe_ticket){.room = room};
    (void)add_waiter(pipeline, ticket, lane, token);
    if (room != NULL) {
        ticket->taken_seq = room->taken_seq;
        ticket->next = room->questions;
        room->questions = ticket;
    }
    return ticket;
}

static void give_ticket(struct pipeline *pipeline, struct pipe_ticket *ticket)
{
    struct pipe_room *room = ticket->room;

    while (ticket->waiters != NULL) {
        struct pipe_waiter *waiter = ticket->waiters;
        ticket->waiters = waiter->next;
        waiter->next = pipeline->free_waiters;
        pipeline->free_waiters = waiter;
    }
    if (room != NULL) {
        struct pipe_ticket **link = &room->questions;
        while (*link != ticket) {
            link = &(*link)->next;
        }
        *link = ticket->next;
        pipe_room_release(pipeline, room);
    }
    ticket->next = pipeline->free_tickets;
    pipeline->free_tickets = ticket;
}

/* A ticket for the same page, seen from the same moment: its answer does for both. */
static struct pipe_ticket *find_same(const struct pipe_room *room, const struct persist_page *page)
{
    for (struct pipe_ticket *ticket = room->questions; ticket != NULL; ticket = ticket->next) {
        const struct persist_page *other = &ticket->page;
        if (other->head.op == PERSIST_HISTORY && ticket->taken_seq == room->taken_seq &&
            other->from_seq == page->from_seq && other->to_seq == page->to_seq &&
            other->limit == page->limit && other->bytes_max == page->bytes_max &&
            other->descending == page->descending) {
            return ticket;
        }
    }
    return NULL;
}

/* --- the view --- */

static uint32_t aligned(uint32_t size)
{
    return (size + 7U) & ~7U;
}

/* What of the room's records a request needs to see. */
struct scope {
    uint64_t from_seq, to_seq;
    uint32_t limit;
    bool descending;
};

/* Narrows the scope to the room's staged records in it, at most limit of them from the end that is
 * read first. Returns their number; ret_bytes of the overlay. */
static uint32_t measure(struct pipeline *pipeline, const struct pipe_room *room,
                        struct scope *scope, uint32_t *ret_bytes)
{
    const uint64_t first = staged_where(pipeline, room->first_staged)->seq;
    const uint64_t last = first + room->staged - 1; /* Z2: they are one run of seqs */
    uint64_t low = scope->from_seq > first ? scope->from_seq : first;
    uint64_t high = scope->to_seq < last ? scope->to_seq : last;
    struct pipe_where where = room->first_staged;

    *ret_bytes = 0;
    if (low > high) {
        return 0;
    }
    if (high - low + 1 > scope->limit) {
        low = scope->descending ? high - scope->limit + 1 : low;
        high = scope->descending ? high : low + scope->limit - 1;
    }
    scope->from_seq = low;
    scope->to_seq = high;
    for (uint64_t seq = first; seq <= high; seq++) {
        const struct staged *entry = staged_where(pipeline, where);
        CHECK(entry->seq == seq);
        *ret_bytes += seq >= low ? 8 + aligned(entry->size) : 0;
        where = entry->next;
    }
    return (uint32_t)(high - low + 1);
}

/* Copies what measure found. */
static void copy_overlay(struct pipeline *pipeline, const struct pipe_room *room,
                         const struct scope *scope, uint8_t *at)
{
    struct pipe_where where = room->first_staged;

    for (bool more = true; more;) {
        const struct staged *entry = staged_where(pipeline, where);
        const uint64_t size = entry->size;
        more = entry->seq < scope->to_seq;
        if (entry->seq >= scope->from_seq) {
            memcpy(at, &size, sizeof(size));
            memset(at + aligned(entry->size), 0, 8); /* what fills up its end */
            memcpy(at + 8, pipeline->stages[where.lane].bytes + entry->offset, entry->size);
            at += 8 + aligned(entry->size);
        }
        where = entry->next;
    }
}

static void see_batch(struct read_head *head, const struct pipe_batch *batch, bool open)
{
    if (batch != NULL) {
        head->lists[head->list_count++] = (struct read_list){.number = batch->number,
                                                             .first_seq = batch->first_seq,
                                                             .count = batch->count,
                                                             .open = open};
    }
}

/* --- asking --- */

static void refuse(struct persist *persist, uint32_t lane, const void *request)
{
    uint8_t reply[ANSWER_REPLY_MAX];
    const uint32_t size = answer_refusal(request, -EAGAIN, reply);

    lane_reply(persist, lane, reply, size);
}

static struct reader *choose_reader(struct pipeline *pipeline, uint16_t op,
                                    const struct pipe_room *room)
{
    if (op == PERSIST_REGISTER || op == PERSIST_LOGIN) {
        return pipeline->readers[0]; /* has the passwords */
    }
    const uint64_t which = room != NULL ? room->hash : pipeline->turns;
    return pipeline->readers[which % pipeline->reader_count];
}

/* Gives the request with its view to a reader: false: it cannot take it now. */
static bool ask(struct persist *persist, uint32_t lane, const void *request, uint32_t size,
                struct pipe_room *room, struct scope scope)
{
    struct pipeline *pipeline = persist->pipeline;
    const struct persist_head *asked = request;
    struct read_head head = {.owner = pipeline->owner, .request_bytes = size};

    if (room != NULL) {
        head.overlay_count =
            room->staged > 0 ? measure(pipeline, room, &scope, &head.overlay_bytes) : 0;
        see_batch(&head, room->flushing, false);
        see_batch(&head, room->open, true);
    }
    struct worker *worker = reader_worker(choose_reader(pipeline, asked->op, room));
    const uint32_t all = (uint32_t)sizeof(head) + aligned(size) + head.overlay_bytes;
    uint8_t *space =
        head.overlay_bytes <= READ_OVERLAY_BYTES_MAX ? worker_reserve(worker, all) : NULL;
    struct pipe_ticket *ticket =
        space != NULL ? take_ticket(pipeline, room, lane, asked->token) : NULL;
    if (ticket == NULL) {
        return false;
    }
    if (asked->op == PERSIST_HISTORY) {
        memcpy(&ticket->page, request, sizeof(ticket->page));
    }
    head.ticket = (uint32_t)(ticket - pipeline->tickets);
    memcpy(space, &head, sizeof(head));
    memcpy(space + sizeof(head), request, size);
    memset(space + sizeof(head) + size, 0, aligned(size) - size);
    if (head.overlay_count > 0) {
        copy_overlay(pipeline, room, &scope, space + sizeof(head) + aligned(size));
    }
    worker_ask(worker, all, persist->ring);
    metrics_add(&persist->metrics->persist_reads_total, 1);
    pipeline->asked = true;
    return true;
}

/* A question about a room's log: only if all that was handed over can be seen (Z4). */
static void ask_about_room(struct persist *persist, uint32_t lane, const void *request,
                           uint32_t size, struct slice room_id, const struct persist_page *page)
{
    struct pipeline *pipeline = persist->pipeline;
    const bool starting = !pipeline->served || pipe_is_recovering(persist);
    struct pipe_room *room = starting ? NULL : pipe_room_get(pipeline, room_id);
    const struct scope scope = {.from_seq = page != NULL ? page->from_seq : 1,
                                .to_seq = page != NULL ? page->to_seq : UINT64_MAX,
                                .limit = page != NULL ? page->limit : UINT32_MAX,
                                .descending = page != NULL && page->descending != 0};
    bool asked = false;

    if (room != NULL && page == NULL) {
        room->absent = false; /* it may have been made since */
    }
    bool dark = room == NULL || room->dark_seq > room->taken_seq;
    for (uint32_t i = 0; i < persist->lane_count; i++) {
        dark = dark || persist->lanes[i].taken < pipeline->stages[i].dark_position;
    }
    if (!dark) {
        struct pipe_ticket *same = page != NULL ? find_same(room, page) : NULL;
        const struct persist_head *head = request;
        asked = same != NULL && add_waiter(pipeline, same, lane, head->token);
        metrics_add(&persist->metrics->persist_reads_joined_total, asked);
        asked = asked || ask(persist, lane, request, size, room, scope);
    }
    if (room != NULL) {
        pipe_room_release(pipeline, room);
    }
    if (!asked) {
        refuse(persist, lane, request);
    }
}

static bool writes(uint16_t op)
{
    return op == PERSIST_ROOM_CREATE || op == PERSIST_REGISTER || op == PERSIST_USER_ENSURE;
}

void pipe_request(struct persist *persist, uint32_t lane, const void *request, uint32_t size)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_stage *stage = &pipeline->stages[lane];
    const struct persist_head *head = request;
    const struct persist_page *page = request;

    switch (head->op) {
    case PERSIST_REWOUND:
        stage->rewinding = false;
        break;
    case PERSIST_RECOVERED:
        stage->recovered = stage->recovered || !stage->rewinding;
        break;
    case PERSIST_ROOM_LOAD:
        ask_about_room(persist, lane, request, size,
                       (struct slice){(const char *)(head + 1), size - (uint32_t)sizeof(*head)},
                       NULL);
        break;
    case PERSIST_HISTORY:
        ask_about_room(persist, lane, request, size,
                       (struct slice){(const char *)(page + 1), page->room_bytes}, page);
        break;
    default:
        if (pipeline->mode == PIPE_OFFLINE || (pipeline->fenced && writes(head->op)) ||
            !ask(persist, lane, request, size, NULL, (struct scope){0})) {
            refuse(persist, lane, request);
        }
    }
}

/* --- answering --- */

/* Sends a reader's reply to all who wait for it, each with its own token. */
static void pass(struct persist *persist, const struct pipe_ticket *ticket, const uint8_t *reply,
                 uint32_t size)
{
    for (struct pipe_waiter *waiter = ticket->waiters; waiter != NULL; waiter = waiter->next) {
        struct persist_head head;
        memcpy(&head, reply, sizeof(head));
        head.token = waiter->token;
        memcpy(persist->page, &head, sizeof(head));
        memcpy(persist->page + sizeof(head), reply + sizeof(head), size - sizeof(head));
        lane_reply(persist, waiter->lane, persist->page, size);
    }
}

static void pass_answer(struct persist *persist, const struct read_answer *answer, uint32_t size)
{
    struct pipeline *pipeline = persist->pipeline;
    struct pipe_ticket *ticket = &pipeline->tickets[answer->ticket];

    CHECK(answer->ticket < PIPE_TICKETS && ticket->waiters != NULL);
    pass(persist, ticket, (const uint8_t *)(answer + 1), size - (uint32_t)sizeof(*answer));
    if (answer->redis_ns > 0) {
        metrics_observe(&persist->metrics->redis_round_trip_seconds, answer->redis_ns);
    }
    if (answer->mongodb_ns > 0) {
        metrics_observe(&persist->metrics->mongodb_round_trip_seconds, answer->mongodb_ns);
    }
    if (answer->final) {
        give_ticket(pipeline, ticket);
    }
}

bool pipe_reads_pass(struct persist *persist)
{
    struct pipeline *pipeline = persist->pipeline;
    bool any = false;

    for (uint32_t i = 0; i < pipeline->reader_count; i++) {
        struct worker *worker = reader_worker(pipeline->readers[i]);
        uint32_t size;
        const struct read_answer *answer = worker_answer(worker, &size);
        for (; answer != NULL; answer = worker_answer(worker, &size)) {
            pass_answer(persist, answer, size);
            worker_next(worker);
            any = true;
        }
    }
    return any;
}
