/* timer.c - see timer.h for the invariants T1 to T4 named below. */
#include "core/timer.h"

#include "core/check.h"

enum { TIMER_WORD_BITS = 64, TIMER_WORDS = TIMER_SLOTS / TIMER_WORD_BITS };

_Static_assert((TIMER_SLOTS & (TIMER_SLOTS - 1)) == 0, "a slot is the low bits of a tick");
_Static_assert(offsetof(struct timer_list, next) == offsetof(struct timer, next) &&
                   offsetof(struct timer_list, previous) == offsetof(struct timer, previous),
               "a list's head stands in for a timer at both ends");

/* The head of a list as its neighbours see it: they only ever touch next and previous. */
static struct timer *timer_head(struct timer_list *list)
{
    return (struct timer *)(void *)list;
}

static void timer_list_clear(struct timer_list *list)
{
    list->next = timer_head(list);
    list->previous = timer_head(list);
}

static bool timer_list_empty(struct timer_list *list)
{
    return list->next == timer_head(list);
}

/* At the end: timers of one slot fire in the order in which they were armed. */
static void timer_link(struct timer_list *list, struct timer *timer)
{
    timer->next = timer_head(list);
    timer->previous = list->previous;
    list->previous->next = timer;
    list->previous = timer;
}

static void timer_unlink(struct timer *timer)
{
    timer->previous->next = timer->next;
    timer->next->previous = timer->previous;
    timer->next = NULL; /* T2 */
}

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms)
{
    wheel->tick = now_ms / TIMER_TICK_MS;
    wheel->armed = 0;
    timer_list_clear(&wheel->draining);
    for (uint32_t i = 0; i < TIMER_WORDS; i++) {
        wheel->occupied[i] = 0;
    }
    for (uint32_t i = 0; i < TIMER_SLOTS; i++) {
        timer_list_clear(&wheel->slots[i]);
    }
}

void timer_init(struct timer *timer, void (*fire)(struct timer *timer))
{
    *timer = (struct timer){.fire = fire};
}

static uint32_t timer_slot(uint64_t tick)
{
    return (uint32_t)(tick & (TIMER_SLOTS - 1));
}

/* Into the slot of its due tick, which the caller has set. */
static void timer_place(struct timer_wheel *wheel, struct timer *timer)
{
    const uint32_t slot = timer_slot(timer->due_tick);

    timer_link(&wheel->slots[slot], timer);
    wheel->occupied[slot / TIMER_WORD_BITS] |= UINT64_C(1) << (slot % TIMER_WORD_BITS); /* T4 */
}

/* Out of whatever list it is in: its slot, or what is left to drain. */
static void timer_remove(struct timer_wheel *wheel, struct timer *timer)
{
    const uint32_t slot = timer_slot(timer->due_tick);

    timer_unlink(timer);
    if (timer_list_empty(&wheel->slots[slot])) {
        wheel->occupied[slot / TIMER_WORD_BITS] &=
            ~(UINT64_C(1) << (slot % TIMER_WORD_BITS)); /* T4 */
    }
}

void timer_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t due_ms)
{
    /* Rounded up, so that it is never early (T1); and after the tick being drained, so that a timer
     * that re-arms itself for now cannot keep timer_advance from ending. */
    uint64_t due_tick = due_ms / TIMER_TICK_MS + (due_ms % TIMER_TICK_MS != 0 ? 1 : 0);
    if (due_tick <= wheel->tick) {
        due_tick = wheel->tick + 1;
    }

    if (timer_armed(timer)) {
        timer_remove(wheel, timer);
    } else {
        wheel->armed++;
    }
    timer->due_tick = due_tick;
    timer_place(wheel, timer);
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
    if (timer_armed(timer)) {
        timer_remove(wheel, timer);
        CHECK(wheel->armed > 0);
        wheel->armed--;
    }
}

/* Moves a slot's timers to the list that timer_advance works off: what fires meanwhile may arm into
 * the same slot, one lap later, without being looked at twice. */
static void timer_drain(struct timer_wheel *wheel, uint32_t slot)
{
    struct timer_list *from = &wheel->slots[slot];

    if (timer_list_empty(from)) {
        return;
    }
    CHECK(timer_list_empty(&wheel->draining));
    wheel->draining = *from;
    wheel->draining.next->previous = timer_head(&wheel->draining);
    wheel->draining.previous->next = timer_head(&wheel->draining);
    timer_list_clear(from);
    wheel->occupied[slot / TIMER_WORD_BITS] &= ~(UINT64_C(1) << (slot % TIMER_WORD_BITS)); /* T4 */
}

/* Slots from the one after tick on to the next occupied one: 1 to TIMER_SLOTS; 0: none is. */
static uint32_t timer_distance(const struct timer_wheel *wheel)
{
    const uint32_t start = timer_slot(wheel->tick + 1);
    const uint32_t word = start / TIMER_WORD_BITS;
    const uint32_t bit = start % TIMER_WORD_BITS;

    /* The first word is looked at twice: its bits from start on, and at the end those before. */
    uint64_t bits = wheel->occupied[word] & (UINT64_MAX << bit);
    for (uint32_t i = 0; i <= TIMER_WORDS; i++) {
        if (bits != 0) {
            const uint32_t at = ((word + i) % TIMER_WORDS) * TIMER_WORD_BITS;
            const uint32_t found = at + (uint32_t)__builtin_ctzll(bits);
            return timer_slot((uint64_t)found - start) + 1;
        }
        bits = wheel->occupied[(word + i + 1) % TIMER_WORDS];
    }
    return 0;
}

/* Goes on to the next tick with something in its slot, at most to now_tick. False: nothing is due.
 */
static bool timer_next_slot(struct timer_wheel *wheel, uint64_t now_tick)
{
    const uint32_t distance = timer_distance(wheel);

    if (distance == 0 || now_tick - wheel->tick < distance) {
        wheel->tick = now_tick;
        return false;
    }
    wheel->tick += distance;
    timer_drain(wheel, timer_slot(wheel->tick));
    return true;
}

uint32_t timer_advance(struct timer_wheel *wheel, uint64_t now_ms, uint32_t maximum)
{
    const uint64_t now_tick = now_ms / TIMER_TICK_MS;
    uint32_t fired = 0;

    if (now_tick > wheel->tick && now_tick - wheel->tick > TIMER_SLOTS) {
        /* The clock jumped over more than a lap (a suspended machine, a simulated day): one lap
         * meets every timer, and what is due fires there, whichever lap it was for. */
        wheel->tick = now_tick - TIMER_SLOTS;
    }
    for (uint32_t looked = 0; looked < maximum; looked++) {
        if (timer_list_empty(&wheel->draining) &&
            (now_tick <= wheel->tick || !timer_next_slot(wheel, now_tick))) {
            break;
        }
        struct timer *timer = wheel->draining.next;
        timer_unlink(timer);
        if (timer->due_tick > now_tick) {
            timer_place(wheel, timer); /* of a later lap */
            continue;
        }
        CHECK(wheel->armed > 0);
        wheel->armed--; /* T3 */
        fired++;
        timer->fire(timer);
    }
    return fired;
}

uint64_t timer_next_ms(const struct timer_wheel *wheel, uint64_t now_ms)
{
    if (wheel->armed == 0) {
        return TIMER_NEVER;
    }
    if (wheel->draining.next != (const struct timer *)(const void *)&wheel->draining) {
        return 0;
    }

    const uint64_t due_ms = (wheel->tick + timer_distance(wheel)) * TIMER_TICK_MS;
    return due_ms > now_ms ? due_ms - now_ms : 0;
}
