/*
 * tail_page.c - history; see tail.h for T1 and T2.
 *
 * A page has two parts: what lies below the tail, which MongoDB has and tells row by row, and what
 * lies in the tail. Of the tail each seq of the page has a slot. Overlay and Redis fill slots; if
 * some are empty then, their batch has moved on, and MongoDB is asked for the seqs from the first
 * to the last of them. Slots and MongoDB's rows are told as they follow each other.
 */
#include "core/check.h"
#include "core/os.h"
#include "persist/tail_own.h"

#include <errno.h>

struct page {
    struct tail *tail;
    const struct store_range *range;
    store_entry_row row;
    void *context;
    uint64_t left;             /* rows that may still be told */
    uint64_t told_seq;         /* the last one told; 0: none */
    uint64_t low, high;        /* seqs of the slots, both inside; high 0: there are none */
    uint64_t next;             /* the slot to be told next */
    uint64_t lost_seq;         /* nobody has it; 0: none */
    enum job_where lost_where; /* who should */
    int row_error;             /* of the caller's callback */
    bool over;                 /* the caller wants no more, or no more fits */
};

/* --- telling --- */

static int tell(struct page *page, uint64_t seq, const char *body, uint32_t size)
{
    const int answer = page->row(page->context, seq, (struct slice){body, size});

    page->told_seq = seq;
    page->left--;
    page->over = answer != 0 || page->left == 0;
    page->row_error = answer < 0 ? answer : 0;
    return answer < 0 ? answer : page->over;
}

static struct tail_slot *slot_of(const struct page *page, uint64_t seq)
{
    return &page->tail->page.slots[seq - page->low];
}

static bool has_slot(const struct page *page, uint64_t seq)
{
    return page->high > 0 && seq >= page->low && seq <= page->high;
}

/* Tells the slots from the next one on, up to that before end. A missing one is lost: 0 goes on, 1
 * the page is over, or -errno. */
static int tell_slots(struct page *page, uint64_t end)
{
    int answer = 0;

    while (answer == 0 && page->next != end && has_slot(page, page->next)) {
        const struct tail_slot *slot = slot_of(page, page->next);
        if (slot->state == TAIL_MISSING) {
            page->lost_seq = page->next;
            page->lost_where = JOB_WHERE_REDIS;
            return -EAGAIN;
        }
        if (slot->state == TAIL_DROPPED) {
            page->over = true;
            return 1;
        }
        answer = tell(page, page->next, slot->body, slot->size);
        page->next = page->range->descending ? page->next - 1 : page->next + 1;
    }
    return answer;
}

/* --- slots --- */

/* Makes room in the buffer for size bytes of that seq. What is told first stays: of a descending
 * page the oldest give way. False: there is none. */
static bool make_space(struct page *page, uint64_t seq, uint32_t size, uint64_t *ret_at)
{
    struct tail_page_memory *memory = &page->tail->page;
    const uint64_t at = memory->bytes_end % TAIL_PAGE_BYTES;
    const uint64_t skipped = at + size > TAIL_PAGE_BYTES ? TAIL_PAGE_BYTES - at : 0;

    if (size > TAIL_PAGE_BYTES) {
        return false;
    }
    *ret_at = memory->bytes_end + skipped;
    while (memory->kept_first != memory->kept_end) {
        struct tail_slot *oldest = &memory->slots[memory->kept[memory->kept_first]];
        if (*ret_at + size - oldest->at <= TAIL_PAGE_BYTES) {
            break;
        }
        if (!page->range->descending || page->low + memory->kept[memory->kept_first] > seq) {
            return false;
        }
        oldest->state = TAIL_DROPPED;
        memory->kept_first++;
    }
    return true;
}

/* Keeps a body out of Redis until the page is told. */
static void keep(struct page *page, uint64_t seq, struct slice body)
{
    struct tail_page_memory *memory = &page->tail->page;
    struct tail_slot *slot = slot_of(page, seq);
    uint64_t at = 0;

    if (!make_space(page, seq, body.size, &at)) {
        slot->state = TAIL_DROPPED;
        return;
    }
    char *copy = memory->bytes + at % TAIL_PAGE_BYTES;
    if (body.size > 0) {
        memcpy(copy, body.data, body.size);
    }
    *slot = (struct tail_slot){.body = copy, .at = at, .size = body.size, .state = TAIL_SEEN};
    memory->bytes_end = at + body.size;
    memory->kept[memory->kept_end++] = (uint32_t)(seq - page->low);
}

/* Which seqs of the tail the page may have, and what the overlay has of them. */
static void make_slots(struct page *page)
{
    struct tail *tail = page->tail;
    const struct store_range *range = page->range;
    uint64_t low = range->from_seq > tail->first_seq ? range->from_seq : tail->first_seq;
    uint64_t high = range->to_seq < tail->last_seq ? range->to_seq : tail->last_seq;
    struct record record;

    if (high - low + 1 > page->left) {
        *(range->descending ? &low : &high) =
            range->descending ? high - page->left + 1 : low + page->left - 1;
    }
    page->low = low;
    page->high = high;
    page->next = range->descending ? high : low;
    CHECK(high - low < TAIL_PAGE_RECORDS);
    memset(tail->page.slots, 0, (high - low + 1) * sizeof(tail->page.slots[0]));
    tail->page.kept_first = 0;
    tail->page.kept_end = 0;
    tail->page.bytes_end = 0;
    for (uint32_t at = 0; tail_overlay_next(tail, &at, &record);) {
        if (has_slot(page, record.seq)) {
            *slot_of(page, record.seq) = (struct tail_slot){
                .body = record.body.data, .size = record.body.size, .state = TAIL_SEEN};
        }
    }
}

/* --- Redis --- */

static int take_element(void *context, uint32_t range, struct slice element)
{
    struct page *page = context;
    struct record record;

    (void)range;
    if (tail_decode(element, page->range->room_id, &record) && has_slot(page, record.seq) &&
        slot_of(page, record.seq)->state == TAIL_MISSING) {
        keep(page, record.seq, record.body);
    }
    return 0;
}

/* The part of a list whose slots are missing, as indices: false: none are. */
static bool missing_part(const struct page *page, const struct read_list *list, uint32_t *ret_first,
                         uint32_t *ret_last)
{
    uint64_t first = list->first_seq > page->low ? list->first_seq : page->low;
    uint64_t last = list->first_seq + list->count - 1;

    last = last < page->high ? last : page->high;
    while (first <= last && slot_of(page, first)->state != TAIL_MISSING) {
        first++;
    }
    while (first < last && slot_of(page, last)->state != TAIL_MISSING) {
        last--;
    }
    if (first > last) {
        return false;
    }
    *ret_first = (uint32_t)(first - list->first_seq);
    *ret_last = (uint32_t)(last - list->first_seq);
    return true;
}

/* A list is frozen, or in the log and then, in case it was frozen meanwhile, under its frozen name.
 */
static uint32_t add_ranges(const struct page *page, struct cache_range *ranges)
{
    const struct read_head *head = page->tail->head;
    struct cache_range range = {.room_id = page->range->room_id};
    uint32_t count = 0;

    for (uint32_t i = 0; i < head->list_count; i++) {
        const struct read_list *list = &head->lists[i];
        if (!missing_part(page, list, &range.first, &range.last)) {
            continue;
        }
        if (list->open) {
            range.number = 0;
            ranges[count++] = range;
        }
        range.number = list->number;
        ranges[count++] = range;
    }
    return count;
}

static int look_in_redis(struct page *page)
{
    struct cache_range ranges[2 * READ_LISTS_MAX];
    const uint32_t count = page->tail->cache != NULL ? add_ranges(page, ranges) : 0;

    return count > 0 ? tail_cache_read(page->tail, ranges, count, take_element, page) : 0;
}

/* --- MongoDB --- */

/* MongoDB is asked for part of the page: what its error means for the caller (0 also if it does not
 * know the room). */
static int ask_mongodb(struct page *page, uint64_t from, uint64_t to, uint64_t limit,
                       store_entry_row row)
{
    const struct store_range part = {.room_id = page->range->room_id,
                                     .from_seq = from,
                                     .to_seq = to,
                                     .limit = limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX,
                                     .descending = page->range->descending};
    struct tail *tail = page->tail;
    const uint64_t begun_ns = os_now_ns();
    const int error = store_mongo_history_read(tail->mongo, &part, row, page);

    if (page->lost_seq > 0) {
        return tail_lost(tail, page->lost_where, page->range->room_id, page->lost_seq);
    }
    return tail_mongodb_done(tail, begun_ns, error, page->row_error);
}

/* A row between the slots. */
static int take_moved(void *context, uint64_t seq, struct slice body)
{
    struct page *page = context;
    const bool descending = page->range->descending;

    if (!has_slot(page, seq) || (descending ? seq > page->next : seq < page->next)) {
        return 0;
    }
    int answer = tell_slots(page, seq);
    if (answer == 0 && slot_of(page, seq)->state == TAIL_MISSING) {
        answer = tell(page, seq, body.data, body.size);
        page->next = descending ? seq - 1 : seq + 1;
    }
    return answer;
}

/* The seqs that MongoDB must have, from the first to the last one missing before the page's end.
 * False: none. */
static bool moved_part(const struct page *page, uint64_t *ret_from, uint64_t *ret_to)
{
    const bool descending = page->range->descending;
    uint64_t from = 0;
    uint64_t to = 0;

    for (uint64_t i = 0; i <= page->high - page->low; i++) {
        const uint64_t seq = descending ? page->high - i : page->low + i;
        const uint32_t state = slot_of(page, seq)->state;
        if (state == TAIL_DROPPED) {
            break;
        }
        if (state == TAIL_MISSING) {
            from = from == 0 || seq < from ? seq : from;
            to = seq > to ? seq : to;
        }
    }
    *ret_from = from;
    *ret_to = to;
    return to > 0;
}

static int read_tail(struct page *page)
{
    uint64_t from;
    uint64_t to;

    make_slots(page);
    int error = look_in_redis(page);
    if (error == 0 && moved_part(page, &from, &to)) {
        error = ask_mongodb(page, from, to, to - from + 1, take_moved);
        error = error == -ENOENT ? 0 : error;
    }
    if (error < 0 || page->over) {
        return error;
    }
    const int answer = tell_slots(page, 0);
    if (page->lost_seq > 0) {
        return tail_lost(page->tail, page->lost_where, page->range->room_id, page->lost_seq);
    }
    if (answer > 0 && page->told_seq == 0) {
        return -EAGAIN; /* nothing fitted before what came first: an empty page would be a lie */
    }
    return answer < 0 ? answer : 0;
}

static int take_below(void *context, uint64_t seq, struct slice body)
{
    struct page *page = context;

    if (page->high > 0 && page->told_seq == page->low && seq != page->told_seq - 1) {
        page->lost_seq = page->told_seq - 1; /* T1: between the tail and MongoDB's first one */
        page->lost_where = JOB_WHERE_MONGODB;
        return -EAGAIN;
    }
    return tell(page, seq, body.data, body.size);
}

/* --- the page --- */

/* What is below the tail, or all if there is no tail. */
static int read_below(struct page *page, uint64_t to)
{
    return ask_mongodb(page, page->range->from_seq, to, page->left, take_below);
}

/* The page touches the tail: what is told of MongoDB's part must end, or begin, at its border. */
static int read_both(struct page *page)
{
    const uint64_t border = page->tail->first_seq - 1;
    const bool below = page->range->from_seq <= border && border > 0;
    const bool descending = page->range->descending;
    int error = descending ? read_tail(page) : 0;

    if (error < 0 || page->over || (!below && descending)) {
        return error;
    }
    if (below) {
        error = read_below(page, border);
        error = error == -ENOENT ? 0 : error;
    }
    const bool short_of =
        descending ? page->told_seq == page->tail->first_seq : below && page->told_seq != border;
    if (error == 0 && !page->over && short_of) {
        return tail_lost(page->tail, JOB_WHERE_MONGODB, page->range->room_id, border);
    }
    return error < 0 || page->over || descending ? error : read_tail(page);
}

int tail_history_read(struct store *store, const struct store_range *range, store_entry_row row,
                      void *context)
{
    struct tail *tail = (struct tail *)store; /* its first member */
    const uint32_t limit = range->limit < TAIL_PAGE_RECORDS ? range->limit : TAIL_PAGE_RECORDS;
    struct page page = {
        .tail = tail, .range = range, .row = row, .context = context, .left = limit};

    if (tail->last_seq == 0) {
        return read_below(&page, range->to_seq);
    }
    if (limit == 0 || range->from_seq > range->to_seq || range->from_seq > tail->last_seq) {
        return 0; /* nothing above the tail was handed over before this question */
    }
    if (range->to_seq < tail->first_seq) {
        const int error = read_below(&page, range->to_seq);
        return error == -ENOENT ? 0 : error;
    }
    return read_both(&page);
}
