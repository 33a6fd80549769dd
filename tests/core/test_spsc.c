/*
 * test_spsc.c - the ring keeps order, tears and loses nothing, and says so when it is full; and a
 *               thread that sleeps behind core/doorbell.h is always woken.
 *
 * Method: small rings against long streams, so that full, empty and wrapped are the usual states
 *         and not the rare ones. Every record's bytes follow from its number, so that a torn or
 *         displaced one is seen. Runs under ThreadSanitizer too; scripts/mutate.sh breaks spsc.c
 *         and doorbell.h to see that this test notices.
 */
#include "core/check.h"
#include "core/doorbell.h"
#include "core/spsc.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    CAPACITY_MAX = 4096,
    STREAM_RECORDS = 300000,
    HAND_OVERS = 200000,
    LOST_AFTER_SECONDS = 20, /* a wake-up that has not come by then will never come */
};

static alignas(64) unsigned char bytes[CAPACITY_MAX];
static alignas(64) unsigned char bytes_back[CAPACITY_MAX];
static struct spsc ring;

/* --- records whose content follows from their number --- */

static uint32_t size_of(uint32_t number, uint32_t size_max)
{
    return 1 + (number * 2654435761U >> 7) % size_max;
}

static void write_record(unsigned char *record, uint32_t number, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        record[i] = (unsigned char)(number + i * 3);
    }
}

static void check_record(const unsigned char *record, uint32_t number, uint32_t size)
{
    CHECK((uintptr_t)record % 8 == 0);
    for (uint32_t i = 0; i < size; i++) {
        CHECK(record[i] == (unsigned char)(number + i * 3));
    }
}

/* False: the ring is full. */
static bool put(uint32_t number, uint32_t size)
{
    unsigned char *record = spsc_reserve(&ring, size);

    if (record == NULL) {
        return false;
    }
    CHECK(record >= ring.bytes && record + size <= ring.bytes + ring.capacity);
    write_record(record, number, size);
    spsc_commit(&ring, size);
    return true;
}

static void take(uint32_t number, uint32_t size)
{
    uint32_t got = 0;
    const unsigned char *record = spsc_peek(&ring, &got);

    CHECK(record != NULL);
    CHECK(got == size);
    check_record(record, number, size);
    spsc_next(&ring);
}

static bool is_empty(void)
{
    uint32_t size = 77;
    const bool empty = spsc_peek(&ring, &size) == NULL;

    CHECK(!empty || size == 77); /* untouched when there is nothing */
    return empty;
}

/* --- one thread --- */

static void full_ring_takes_no_more_until_release(void)
{
    spsc_init(&ring, bytes, 256);
    for (uint32_t lap = 0; lap < 20; lap++) {
        for (uint32_t i = 0; i < 8; i++) {
            CHECK(put(lap + i, 24)); /* 32 bytes each with the header: 8 fill it exactly */
        }
        CHECK(!put(99, 1));
        CHECK(spsc_publish(&ring));
        CHECK(spsc_used(&ring) == 256);
        CHECK(!put(99, 1));
        take(lap, 24);
        CHECK(!put(99, 1)); /* passed, but not given back */
        CHECK(spsc_used(&ring) == 256);
        spsc_release(&ring);
        CHECK(spsc_used(&ring) == 256 - 32);
        CHECK(put(lap + 8, 24));
        CHECK(!put(99, 1));
        CHECK(spsc_publish(&ring));
        for (uint32_t i = 1; i <= 8; i++) {
            take(lap + i, 24);
        }
        CHECK(is_empty());
        spsc_release(&ring);
        CHECK(spsc_used(&ring) == 0);
    }
}

static void nothing_is_seen_before_it_is_published(void)
{
    spsc_init(&ring, bytes, 256);
    CHECK(!spsc_publish(&ring));
    CHECK(spsc_reserve(&ring, 8) != NULL);
    CHECK(!spsc_publish(&ring)); /* reserved is not committed */
    CHECK(is_empty());
    CHECK(put(1, 8)); /* gives up the reservation before it */
    CHECK(is_empty());
    CHECK(put(2, 9));
    CHECK(is_empty());
    CHECK(spsc_reserve(&ring, 60) != NULL);
    CHECK(spsc_publish(&ring));
    CHECK(!spsc_publish(&ring)); /* nothing since the last */
    take(1, 8);
    take(2, 9);
    CHECK(is_empty());
    spsc_commit(&ring, 60); /* a reservation outlives a publish */
    CHECK(is_empty());
    CHECK(spsc_publish(&ring));
    CHECK(!is_empty());
}

static void record_may_be_committed_smaller_than_reserved(void)
{
    spsc_init(&ring, bytes, 256);
    for (uint32_t lap = 0; lap < 100; lap++) {
        const uint32_t size = lap % 65;
        unsigned char *record = spsc_reserve(&ring, 64);
        CHECK(record != NULL);
        write_record(record, lap, size);
        spsc_commit(&ring, size);
        CHECK(put(lap + 1, 5));
        CHECK(spsc_publish(&ring));
        take(lap, size);
        take(lap + 1, 5);
        CHECK(is_empty());
        spsc_release(&ring);
    }
}

static void peek_stays_at_its_record_until_next(void)
{
    uint32_t size = 0;

    spsc_init(&ring, bytes, 256);
    CHECK(put(1, 24));
    CHECK(put(2, 20));
    CHECK(spsc_publish(&ring));
    const unsigned char *first = spsc_peek(&ring, &size);
    CHECK(spsc_peek(&ring, &size) == first);
    CHECK(size == 24);
    spsc_release(&ring); /* not passed yet: must not be given back */
    CHECK(spsc_used(&ring) == 32 + 32);
    take(1, 24);
    check_record(first, 1, 24); /* readable until release */
    take(2, 20);
    CHECK(is_empty());
}

static void empty_ring_has_room_for_the_largest_record_anywhere(void)
{
    for (uint32_t capacity = SPSC_CAPACITY_MIN; capacity <= 512; capacity *= 2) {
        for (uint32_t offset = 0; offset < capacity; offset += 8) {
            spsc_init(&ring, bytes, capacity);
            for (uint32_t passed = 0; passed < offset; passed += 16) {
                CHECK(put(passed, offset - passed >= 16 ? 1 : 8));
                CHECK(spsc_publish(&ring));
                take(passed, offset - passed >= 16 ? 1 : 8);
                spsc_release(&ring);
            }
            CHECK(put(offset, capacity / 4));
            CHECK(spsc_publish(&ring));
            take(offset, capacity / 4);
            CHECK(is_empty());
        }
    }
}

static void random_work_leaves_what_a_plain_queue_would(void)
{
    uint32_t dice = 1;
    uint32_t committed = 0;
    uint32_t published = 0;
    uint32_t taken = 0;

    spsc_init(&ring, bytes, 1024);
    for (uint32_t turn = 0; turn < 2000000; turn++) {
        dice = dice * 1664525 + 1013904223;
        switch (dice >> 29) {
        case 0:
        case 1:
        case 2:
            committed += put(committed, size_of(committed, 256)) ? 1 : 0;
            break;
        case 3:
            CHECK(spsc_publish(&ring) == (published != committed));
            published = committed;
            break;
        case 4:
            spsc_release(&ring);
            break;
        default:
            if (taken == published) {
                CHECK(is_empty());
            } else {
                take(taken, size_of(taken, 256));
                taken++;
            }
        }
    }
    CHECK(taken > 200000);
}

/* --- two threads --- */

static void *send_stream(void *unused)
{
    uint32_t number = 0;

    while (number < STREAM_RECORDS) {
        const uint32_t burst = 1 + number % 5;
        for (uint32_t i = 0; i < burst && number < STREAM_RECORDS; i++) {
            number += put(number, size_of(number, 128)) ? 1 : 0;
        }
        if (!spsc_publish(&ring)) {
            sched_yield();
        }
    }
    return unused;
}

static void stream_arrives_whole_and_in_order(void)
{
    pthread_t sender;
    uint32_t number = 0;

    spsc_init(&ring, bytes, 512);
    CHECK(pthread_create(&sender, NULL, send_stream, NULL) == 0);
    while (number < STREAM_RECORDS) {
        uint32_t size;
        const uint32_t before = number;
        const unsigned char *record = spsc_peek(&ring, &size);
        for (; record != NULL && number - before < 3; record = spsc_peek(&ring, &size)) {
            CHECK(size == size_of(number, 128));
            check_record(record, number++, size);
            spsc_next(&ring);
        }
        spsc_release(&ring);
        CHECK(spsc_used(&ring) <= 512);
        if (number == before) {
            sched_yield();
        }
    }
    CHECK(pthread_join(sender, NULL) == 0);
    CHECK(is_empty());
}

/* --- the doorbell --- */

static void bell_is_rung_once_for_one_sleep(void)
{
    static struct doorbell bell;

    doorbell_init(&bell);
    CHECK(!doorbell_should_ring(&bell)); /* awake */
    doorbell_prepare_sleep(&bell);
    CHECK(doorbell_should_ring(&bell));
    CHECK(!doorbell_should_ring(&bell)); /* somebody rings already */
    doorbell_prepare_sleep(&bell);
    doorbell_cancel_sleep(&bell);
    CHECK(!doorbell_should_ring(&bell));
}

/* One side of a hand-over: it sleeps on its own ring, and rings the other's bell. */
struct side {
    struct spsc ring;
    struct doorbell bell;
    _Atomic uint32_t rung; /* the bell: a futex word */
    uint32_t sleeps;
};

static struct side sides[2];

static void ring_bell(struct side *side)
{
    atomic_fetch_add_explicit(&side->rung, 1, memory_order_relaxed);
    CHECK(syscall(SYS_futex, &side->rung, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) >= 0);
}

static void wait_for_bell(struct side *side, uint32_t heard)
{
    const struct timespec limit = {.tv_sec = LOST_AFTER_SECONDS};

    side->sleeps++;
    while (atomic_load_explicit(&side->rung, memory_order_relaxed) == heard) {
        const long result =
            syscall(SYS_futex, &side->rung, FUTEX_WAIT_PRIVATE, heard, &limit, NULL, 0);
        const bool timed_out = result != 0 && errno == ETIMEDOUT;
        CHECK(!timed_out); /* a lost wake-up */
    }
}

static const unsigned char *next_record(struct side *side, uint32_t *ret_size)
{
    const unsigned char *record = spsc_peek(&side->ring, ret_size);

    while (record == NULL) {
        const uint32_t heard = atomic_load_explicit(&side->rung, memory_order_relaxed);
        doorbell_prepare_sleep(&side->bell);
        record = spsc_peek(&side->ring, ret_size);
        if (record == NULL) {
            wait_for_bell(side, heard);
            record = spsc_peek(&side->ring, ret_size);
        }
        doorbell_cancel_sleep(&side->bell);
    }
    return record;
}

static void send_number(struct side *to, uint32_t number)
{
    uint32_t *record = spsc_reserve(&to->ring, sizeof(number));

    CHECK(record != NULL);
    *record = number;
    spsc_commit(&to->ring, sizeof(number));
    CHECK(spsc_publish(&to->ring));
    if (doorbell_should_ring(&to->bell)) {
        ring_bell(to);
    }
}

static void expect_number(struct side *side, uint32_t number)
{
    uint32_t size;
    uint32_t got;
    const unsigned char *record = next_record(side, &size);

    CHECK(size == sizeof(got));
    memcpy(&got, record, sizeof(got));
    CHECK(got == number);
    spsc_next(&side->ring);
    spsc_release(&side->ring);
}

static void *answer(void *unused)
{
    for (uint32_t number = 0; number < HAND_OVERS / 2; number++) {
        expect_number(&sides[1], number);
        for (volatile uint32_t pause = 0; pause < number % 64; pause++) {
            /* so that the other side is met at every point of going to sleep */
        }
        send_number(&sides[0], number);
    }
    return unused;
}

static void no_wake_up_is_lost(void)
{
    pthread_t other;

    spsc_init(&sides[0].ring, bytes, CAPACITY_MAX);
    spsc_init(&sides[1].ring, bytes_back, CAPACITY_MAX);
    doorbell_init(&sides[0].bell);
    doorbell_init(&sides[1].bell);
    CHECK(pthread_create(&other, NULL, answer, NULL) == 0);
    for (uint32_t number = 0; number < HAND_OVERS / 2; number++) {
        send_number(&sides[1], number);
        expect_number(&sides[0], number);
    }
    CHECK(pthread_join(other, NULL) == 0);
    CHECK(sides[0].sleeps + sides[1].sleeps > HAND_OVERS / 1000); /* they did go to sleep */
}

/* Both threads meet at the start of every round, so that going to sleep and publishing happen
 * within nanoseconds of each other: a store in place of an exchange, which the machine may delay
 * past the look that follows it, fails here within a second. */
enum { ROUNDS = 100000 };

static _Atomic uint32_t arrived;
static bool rings[ROUNDS]; /* what the waker was told in each round */
static bool saw[ROUNDS];   /* whether the sleeper's second look found the record */

static void meet(uint32_t round)
{
    atomic_fetch_add(&arrived, 1);
    for (uint32_t spins = 1; atomic_load(&arrived) < 2 * (round + 1); spins++) {
        if (spins % 1000 == 0) {
            sched_yield(); /* the other one may not be running at all */
        }
    }
}

static void *wake_in_rounds(void *unused)
{
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t *record = spsc_reserve(&sides[0].ring, sizeof(round));
        CHECK(record != NULL);
        *record = round;
        spsc_commit(&sides[0].ring, sizeof(round));
        meet(2 * round);
        CHECK(spsc_publish(&sides[0].ring));
        rings[round] = doorbell_should_ring(&sides[0].bell);
        meet(2 * round + 1);
    }
    return unused;
}

static void sleeper_sees_the_record_or_waker_rings(void)
{
    pthread_t waker;
    uint32_t size;

    spsc_init(&sides[0].ring, bytes, CAPACITY_MAX);
    doorbell_init(&sides[0].bell);
    CHECK(pthread_create(&waker, NULL, wake_in_rounds, NULL) == 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        meet(2 * round);
        doorbell_prepare_sleep(&sides[0].bell);
        saw[round] = spsc_peek(&sides[0].ring, &size) != NULL;
        meet(2 * round + 1);
        doorbell_cancel_sleep(&sides[0].bell);
        expect_number(&sides[0], round);
    }
    CHECK(pthread_join(waker, NULL) == 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        CHECK(rings[round] || saw[round]);
    }
}

int main(void)
{
    full_ring_takes_no_more_until_release();
    nothing_is_seen_before_it_is_published();
    record_may_be_committed_smaller_than_reserved();
    peek_stays_at_its_record_until_next();
    empty_ring_has_room_for_the_largest_record_anywhere();
    random_work_leaves_what_a_plain_queue_would();
    stream_arrives_whole_and_in_order();
    bell_is_rung_once_for_one_sleep();
    no_wake_up_is_lost();
    sleeper_sees_the_record_or_waker_rings();
    puts("10 passed, 0 failed");
    return 0;
}
