/*
 * timer.h - a hashed timer wheel: arm, re-arm and cancel cost the same however many are armed.
 *
 * Walk:       from shard/loop.c, step 7 of a turn (timer_advance), and step 8 (timer_next_ms).
 * Threads:    one wheel a shard; all calls from its thread.
 * Ownership:  the caller owns the timers and keeps an armed one where it is until it fired or was
 *             cancelled. Nothing here allocates or asks for the time: now_ms is passed in.
 * Units:      milliseconds of one monotonic clock; ticks of TIMER_TICK_MS.
 *
 *   slot = due tick % TIMER_SLOTS      a timer due later than one lap (65 s) stays in its slot and
 *   [0] [1] [2] ... [4095]             is looked at once a lap until its tick has come
 *
 * Invariants: (T1) a timer never fires before its due time, and fires in the first timer_advance
 *                  at least one tick after it, unless the maximum ends that call before.
 *             (T2) an armed timer is in exactly one list; next is NULL exactly when not armed.
 *             (T3) a timer is disarmed before its function is called, which may arm or cancel
 *                  any timer, itself too.
 *             (T4) the bit of a slot in occupied is set exactly when its list is not empty.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TIMER_SLOTS = 4096, TIMER_TICK_MS = 16 };

/* timer_next_ms: nothing is armed. */
#define TIMER_NEVER UINT64_MAX

struct timer {
    struct timer *next;
    struct timer *previous;
    uint64_t due_tick;
    void (*fire)(struct timer *timer); /* finds its owner by TIMER_OWNER */
};

struct timer_list {
    struct timer *next; /* the list ends where it begins: these two stand in for a timer's */
    struct timer *previous;
};

struct timer_wheel {
    uint64_t tick;              /* the slots of all ticks up to this one have been looked at */
    uint64_t armed;             /* timers */
    struct timer_list draining; /* what is left of the slot of tick when maximum ended an advance */
    uint64_t occupied[TIMER_SLOTS / 64];
    struct timer_list slots[TIMER_SLOTS];
};

/* The structure whose member a timer is. */
#define TIMER_OWNER(pointer, type, member)                                                         \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* An empty wheel that counts from now_ms. 66 KiB: reserve it, do not put it on a stack. */
void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ms);

/* A timer that is not armed; fire will be called on the wheel's thread. */
void timer_init(struct timer *timer, void (*fire)(struct timer *timer));

static inline bool timer_armed(const struct timer *timer)
{
    return timer->next != NULL;
}

/* Arms or re-arms. A time in the past fires at the next tick, never inside this call. */
void timer_arm(struct timer_wheel *wheel, struct timer *timer, uint64_t due_ms);

/* Disarms; a timer that is not armed stays so. */
void timer_cancel(struct timer_wheel *wheel, struct timer *timer);

/* Fires what is due at now_ms, looking at no more than maximum timers. Returns how many it fired;
 * timer_next_ms is 0 afterwards if some are left. */
uint32_t timer_advance(struct timer_wheel *wheel, uint64_t now_ms, uint32_t maximum);

/* How long the loop may sleep: milliseconds to the next slot with a timer in it, 0 if something is
 * due or left, TIMER_NEVER if nothing is armed. May be too short (a timer of a later lap), never
 * too long by more than it takes to fire within T1. */
uint64_t timer_next_ms(const struct timer_wheel *wheel, uint64_t now_ms);
