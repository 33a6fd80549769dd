/*
 * doorbell.h - tells the threads that fill a sleeper's rings whether they must wake it.
 *
 * The bell itself (an eventfd, a ring message, a futex) is the caller's; this is the flag in front
 * of it, which keeps the system call away while the sleeper is awake.
 *
 *   sleeper                                     waker
 *   S1 doorbell_prepare_sleep                   W1 fill the ring and publish
 *   S2 look at every ring once more             W2 doorbell_should_ring
 *   S3 found something: doorbell_cancel_sleep,  W3 true: ring the bell
 *      else wait for the bell
 *   S4 awake for whatever reason: doorbell_cancel_sleep
 *
 * Threads:    one sleeper; any number of wakers.
 *
 * Invariants: (D1) no wake-up is lost: all writes to asleep are exchanges, so they have one order
 *                  and form one release sequence. Either W2 comes after S1 and sees true, and
 *                  rings; or S1 comes after W2 and reads what W2 wrote or what was exchanged
 *                  after it, so its acquire sees W1, and S2 finds the record.
 *             (D2) a bell may ring with nothing to do: the sleeper looks, finds nothing, sleeps.
 */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Two 64-byte lines, as in core/spsc.h: wakers write here and must not disturb its neighbours. */
#define DOORBELL_APART 128

struct doorbell {
    alignas(DOORBELL_APART) _Atomic bool asleep;
};

/* An awake sleeper; before any thread uses it. */
static inline void doorbell_init(struct doorbell *bell)
{
    atomic_init(&bell->asleep, false);
}

/* Sleeper: is about to wait. Afterwards it looks at all of its rings again, and waits only if they
 * are still empty. */
static inline void doorbell_prepare_sleep(struct doorbell *bell)
{
    /* Acquire pairs with the release in doorbell_should_ring: whatever a waker published before it
     * found us awake is seen by the look that follows. Acquire also keeps that look after this. */
    (void)atomic_exchange_explicit(&bell->asleep, true, memory_order_acquire);
}

/* Sleeper: is awake, whether it was rung, timed out, or never went to sleep. */
static inline void doorbell_cancel_sleep(struct doorbell *bell)
{
    /* An exchange and not a store: a store would end the release sequence of a waker that came just
     * before, and the next prepare_sleep would no longer see what it published (D1). Acquire pairs
     * with the release in doorbell_should_ring, as above. */
    (void)atomic_exchange_explicit(&bell->asleep, false, memory_order_acquire);
}

/* Waker: has published; true if it must ring the bell now. Of several wakers one gets true. */
static inline bool doorbell_should_ring(struct doorbell *bell)
{
    /* Release pairs with the acquire in doorbell_prepare_sleep: a sleeper that this exchange finds
     * awake sees our records when it looks again. Not a load first: a load may be answered before
     * the publish above it is visible, and then both sides would wait. */
    return atomic_exchange_explicit(&bell->asleep, false, memory_order_release);
}
