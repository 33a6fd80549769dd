/*
 * test_timer.c - timers fire once, in order, never early and at most a tick late.
 *
 * Method: a simulated clock, over days and over the wrap of the wheel. Every firing is held against
 *         what was asked: `due` is ours, the wheel never sees it again. The random walk is repeated
 *         from three seeds.
 */
#include "core/check.h"
#include "core/timer.h"

enum { COUNT = 500, ANY = 1000000 };

#define HOUR_MS UINT64_C(3600000)
#define DAY_MS  (24 * HOUR_MS)

struct probe {
    uint32_t fired;
    struct timer timer;
    uint64_t due;     /* 0: not armed */
    uint64_t next_in; /* re-arms itself in its function */
    struct probe *cancels;
};

static struct timer_wheel wheel;
static struct probe probes[COUNT];
static uint64_t now;
static uint64_t last_seen; /* time of the advance before the current one */
static uint64_t last_due_tick;
static uint64_t seed;

static uint64_t random_below(uint64_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

static uint64_t tick_of(uint64_t due)
{
    return (due + TIMER_TICK_MS - 1) / TIMER_TICK_MS;
}

static void arm(struct probe *probe, uint64_t due)
{
    probe->due = due;
    timer_arm(&wheel, &probe->timer, due);
    CHECK(timer_armed(&probe->timer));
}

static void fire(struct timer *timer)
{
    struct probe *probe = TIMER_OWNER(timer, struct probe, timer);

    CHECK(!timer_armed(timer)); /* T3 */
    CHECK(probe->due != 0);     /* it was armed, and not cancelled since */
    CHECK(probe->due <= now);   /* T1: not early */
    probe->due = 0;
    probe->fired++;
    if (probe->cancels != NULL) {
        timer_cancel(&wheel, &probe->cancels->timer);
        probe->cancels->due = 0;
    }
    if (probe->next_in != 0) {
        arm(probe, now + probe->next_in);
    }
}

static void begin(uint64_t start)
{
    now = start;
    last_seen = start;
    timer_wheel_init(&wheel, now);
    for (uint32_t i = 0; i < COUNT; i++) {
        probes[i] = (struct probe){.fired = 0};
        timer_init(&probes[i].timer, fire);
    }
}

static uint32_t advance_to(uint64_t time)
{
    now = time;
    return timer_advance(&wheel, now, ANY);
}

static void nothing_armed_sleeps_for_ever(void)
{
    begin(12345);
    CHECK(timer_next_ms(&wheel, now) == TIMER_NEVER);
    CHECK(advance_to(now + DAY_MS) == 0);
    CHECK(timer_next_ms(&wheel, now) == TIMER_NEVER);
}

static void each_delay_fires_on_its_tick_from_any_start(void)
{
    for (uint64_t start = 1000000; start < 1000000 + 2 * TIMER_TICK_MS; start++) {
        for (uint64_t delay = 0; delay < 200; delay += 7) {
            begin(start);
            arm(&probes[0], start + delay);
            for (uint64_t ms = 1; probes[0].fired == 0; ms++) {
                CHECK(ms <= delay + TIMER_TICK_MS); /* T1: at most a tick late */
                (void)advance_to(start + ms);
            }
        }
    }
}

static void sleeping_as_told_is_never_late(void)
{
    begin(5);
    for (uint32_t i = 0; i < COUNT; i++) {
        arm(&probes[i], now + 1 + (uint64_t)i * i * 97 % (3 * HOUR_MS));
    }
    uint32_t fired = 0;
    for (uint32_t turn = 0; fired < COUNT; turn++) {
        CHECK(turn < 1000000);
        const uint64_t sleep = timer_next_ms(&wheel, now);
        CHECK(sleep <= (uint64_t)TIMER_SLOTS * TIMER_TICK_MS);
        now += sleep;
        for (uint32_t i = 0; i < COUNT; i++) {
            CHECK(probes[i].due == 0 || now < probes[i].due + TIMER_TICK_MS);
        }
        fired += timer_advance(&wheel, now, ANY);
    }
    CHECK(timer_next_ms(&wheel, now) == TIMER_NEVER);
}

static void later_laps_wait_for_their_tick(void)
{
    const uint64_t lap = (uint64_t)TIMER_SLOTS * TIMER_TICK_MS;

    begin(777);
    for (uint32_t i = 0; i < 10; i++) {
        arm(&probes[i], now + 100 + i * lap); /* all in one slot */
    }
    for (uint32_t i = 0; i < 10; i++) {
        CHECK(advance_to(777 + 99 + i * lap) == 0);
        CHECK(advance_to(777 + 100 + TIMER_TICK_MS + i * lap) == 1);
        CHECK(probes[i].fired == 1);
    }
}

static void a_single_timer_is_found_in_any_slot(void)
{
    for (uint64_t start = 0; start < 130; start++) { /* two words of the bitmap */
        for (uint64_t ticks = TIMER_SLOTS - 130; ticks <= TIMER_SLOTS; ticks++) {
            begin(start * TIMER_TICK_MS);
            arm(&probes[0], now + ticks * TIMER_TICK_MS);
            CHECK(timer_next_ms(&wheel, now) == ticks * TIMER_TICK_MS);
            CHECK(advance_to(now + ticks * TIMER_TICK_MS - 1) == 0);
            CHECK(advance_to(now + 1) == 1);
        }
    }
}

static void a_clock_that_jumps_days_fires_everything_due_and_nothing_else(void)
{
    begin(1);
    for (uint32_t i = 0; i < COUNT; i++) {
        arm(&probes[i], now + i * HOUR_MS);
    }
    CHECK(advance_to(now + 3 * DAY_MS + TIMER_TICK_MS) == 73); /* hours 0 to 72 */
    CHECK(advance_to(now + 1000 * DAY_MS) == COUNT - 73);
    CHECK(advance_to(now + 1000 * DAY_MS) == 0);
}

static void a_clock_that_goes_back_fires_nothing(void)
{
    begin(1000000);
    arm(&probes[0], 1000500);
    CHECK(advance_to(1000400) == 0);
    const uint64_t tick = wheel.tick;
    CHECK(advance_to(900000) == 0);
    CHECK(wheel.tick == tick);
    CHECK(advance_to(1000400) == 0);
    CHECK(advance_to(1000520) == 1);
}

static void one_slot_fires_in_the_order_of_arming(void)
{
    begin(0);
    for (uint32_t i = 0; i < 20; i++) {
        arm(&probes[i], 4000);
        probes[i].cancels = i + 1 < 20 ? NULL : &probes[0];
    }
    arm(&probes[5], 4001); /* re-armed: a later tick */
    now = 4000;
    for (uint32_t i = 0; i < 20; i++) {
        if (i == 5) {
            continue;
        }
        CHECK(timer_advance(&wheel, now, 1) == 1);
        CHECK(probes[i].fired == 1);
    }
    CHECK(timer_next_ms(&wheel, now) == TIMER_TICK_MS);
    CHECK(advance_to(4016) == 1);
    CHECK(probes[5].fired == 1);
}

static void the_maximum_bounds_a_call_and_loses_nothing(void)
{
    begin(0);
    for (uint32_t i = 0; i < 100; i++) {
        arm(&probes[i], 1600 + (i % 2) * 16);
    }
    now = 5000;
    for (uint32_t call = 0; call < 10; call++) {
        CHECK(timer_next_ms(&wheel, now) == 0);
        CHECK(timer_advance(&wheel, now, 10) == 10);
    }
    CHECK(timer_advance(&wheel, now, 10) == 0);
    CHECK(timer_next_ms(&wheel, now) == TIMER_NEVER);
}

static void what_is_left_of_a_slot_can_be_cancelled_and_rearmed(void)
{
    begin(0);
    for (uint32_t i = 0; i < 4; i++) {
        arm(&probes[i], 1600);
    }
    now = 1600;
    CHECK(timer_advance(&wheel, now, 1) == 1); /* three are left */
    timer_cancel(&wheel, &probes[1].timer);
    probes[1].due = 0;
    arm(&probes[2], 1700);
    CHECK(timer_advance(&wheel, now, ANY) == 1);
    CHECK(probes[3].fired == 1);
    CHECK(advance_to(1712) == 1);
    CHECK(probes[1].fired == 0 && probes[2].fired == 1);
    CHECK(wheel.armed == 0);
}

static void rearm_and_cancel_inside_fire(void)
{
    begin(0);
    probes[0].next_in = 1; /* for ever: an advance must end all the same */
    arm(&probes[0], 10);
    CHECK(timer_advance(&wheel, now = 16, ANY) == 1);
    CHECK(timer_advance(&wheel, now = 16, ANY) == 0);
    probes[0].next_in = 0;
    CHECK(timer_advance(&wheel, now = 32, ANY) == 1);

    probes[1].cancels = &probes[2]; /* its neighbour in the slot being worked off */
    arm(&probes[1], 100);
    arm(&probes[2], 100);
    probes[3].cancels = &probes[3]; /* itself, already disarmed */
    arm(&probes[3], 100);
    CHECK(advance_to(112) == 2);
    CHECK(probes[2].fired == 0);
    CHECK(wheel.armed == 0);
    CHECK(timer_next_ms(&wheel, now) == TIMER_NEVER);
}

static void cancel_twice_and_rearm_leave_one_timer(void)
{
    begin(0);
    timer_cancel(&wheel, &probes[0].timer);
    arm(&probes[0], 500);
    arm(&probes[0], 100000);
    arm(&probes[0], 300);
    CHECK(wheel.armed == 1);
    CHECK(advance_to(304) == 1);
    arm(&probes[0], 900);
    timer_cancel(&wheel, &probes[0].timer);
    timer_cancel(&wheel, &probes[0].timer);
    CHECK(!timer_armed(&probes[0].timer));
    CHECK(wheel.armed == 0);
    probes[0].due = 0;
    CHECK(advance_to(2 * HOUR_MS) == 0);
}

static void fire_in_walk(struct timer *timer)
{
    struct probe *probe = TIMER_OWNER(timer, struct probe, timer);

    CHECK(probe->due != 0 && probe->due <= now);
    CHECK(tick_of(probe->due) >= last_due_tick); /* in order */
    last_due_tick = tick_of(probe->due);
    probe->due = 0;
    probe->fired++;
}

/* Nothing that was due a tick before the last advance may still be waiting. */
static void nobody_is_late(void)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK(timer_armed(&probes[i].timer) == (probes[i].due != 0));
        CHECK(probes[i].due == 0 || tick_of(probes[i].due) > now / TIMER_TICK_MS);
    }
}

static void walk(uint64_t with_seed)
{
    uint64_t fired = 0;

    seed = with_seed;
    begin(random_below(DAY_MS));
    for (uint32_t i = 0; i < COUNT; i++) {
        timer_init(&probes[i].timer, fire_in_walk);
    }
    for (uint32_t step = 0; step < 20000; step++) {
        struct probe *probe = &probes[random_below(COUNT)];
        if (random_below(4) == 0) {
            timer_cancel(&wheel, &probe->timer);
            probe->due = 0;
        } else {
            const uint64_t spans[] = {20, 2000, 70000, HOUR_MS};
            /* After the current tick: what is due before it fires with the next, a test above. */
            arm(probe,
                (now / TIMER_TICK_MS + 1) * TIMER_TICK_MS + random_below(spans[random_below(4)]));
        }
        if (random_below(3) == 0) {
            const uint64_t sleeps[] = {5, 50, 5000, 600000};
            now += random_below(sleeps[random_below(4)]);
            last_due_tick = 0;
            const bool lap = now - last_seen > (uint64_t)TIMER_SLOTS * TIMER_TICK_MS;
            for (uint32_t call = 0; timer_next_ms(&wheel, now) == 0; call++) {
                CHECK(call < ANY);
                last_due_tick = lap ? 0 : last_due_tick; /* after a jump order is not promised */
                fired += timer_advance(&wheel, now, lap ? 1 : 7);
            }
            last_seen = now;
            nobody_is_late();
        }
    }
    CHECK(fired > 1000); /* else the walk went nowhere */
}

static void a_random_walk_over_days_keeps_every_promise(void)
{
    walk(1);
    walk(20261121);
    walk(0x9e3779b97f4a7c15U);
}

int main(void)
{
    nothing_armed_sleeps_for_ever();
    each_delay_fires_on_its_tick_from_any_start();
    sleeping_as_told_is_never_late();
    later_laps_wait_for_their_tick();
    a_single_timer_is_found_in_any_slot();
    a_clock_that_jumps_days_fires_everything_due_and_nothing_else();
    a_clock_that_goes_back_fires_nothing();
    one_slot_fires_in_the_order_of_arming();
    the_maximum_bounds_a_call_and_loses_nothing();
    what_is_left_of_a_slot_can_be_cancelled_and_rearmed();
    rearm_and_cancel_inside_fire();
    cancel_twice_and_rearm_leave_one_timer();
    a_random_walk_over_days_keeps_every_promise();
    puts("13 passed, 0 failed");
    return 0;
}
