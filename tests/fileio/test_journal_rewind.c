/*
 * test_journal_rewind.c - after journal_rewind the handover leaves nothing out, whatever the state.
 *
 * Method: the journal on the simulated disk of tests/sim/os_disk.h, with small segments and
 *         buffers. The test remembers every record's position; a store that is told records and
 *         loses them again rewinds at random, while others are appended, released, evicted and read
 *         back. Each state is counted, so that a run which never met it fails. A failing seed is
 *         printed; run the program with it as argument to repeat it alone.
 */
#include "tests/fileio/journal_rig.h"
#include "tests/sim/os_disk.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SEGMENT = 16 * 4096,
    SEGMENTS = 5,
    BUFFER = 4 * 4096,
    DISK = 1 << 24,
    RECORDS_MAX = 1 << 16,
};

static struct rig rig;
static uint32_t size_max = 700;
static char seed_text[64];

/* What the test knows: indices of records, from 1. */
static struct {
    uint64_t positions[RECORDS_MAX];
    uint64_t appended;
    uint64_t given;     /* last one since the start or the rewind */
    uint64_t given_max; /* of all passes */
    uint64_t released;
    bool waits; /* the last handover gave nothing although a durable record was due */
} model;

/* How often a rewind, or a release, met which state. */
static struct {
    uint64_t rewinds, while_reading, to_the_end, to_released, within_buffer;
    uint64_t released_ahead, released_while_reading;
} met;

static void open_rig(uint64_t seed)
{
    (void)snprintf(seed_text, sizeof(seed_text), "the seed was %" PRIu64 "\n", seed);
    disk_reset(seed, DISK);
    rig.metrics = (struct metrics){0};
    rig.options = (struct journal_options){
        .directory = "journal",
        .segment_bytes = SEGMENT,
        .bytes_max = (uint64_t)SEGMENTS * SEGMENT,
        .buffer_bytes = BUFFER,
        .first_segment = 1,
    };
    memset(&model, 0, sizeof(model));
    CHECK(rig_open(&rig) == 0);
}

static bool append(enum journal_durability durability)
{
    CHECK(model.appended + 1 < RECORDS_MAX);
    const uint64_t position = rig_append(&rig, model.appended + 1, size_max, durability);
    if (position > 0) {
        model.positions[++model.appended] = position;
    }
    return position > 0;
}

static uint64_t segment_of(uint64_t index)
{
    return model.positions[index] / SEGMENT;
}

/* Takes one record and checks that it is the next one: of those that the store has, some may be
 * left out. False: there is none now. */
static bool take(void)
{
    uint64_t position = 0;
    uint32_t size = 0;
    const void *record = journal_handover(rig.journal, &size, &position);

    if (record == NULL) {
        model.waits = model.given < model.appended &&
                      model.positions[model.given + 1] <= journal_durable(rig.journal);
        return false;
    }
    model.waits = false;
    const uint64_t index = rig_index(record, size, size_max);
    CHECK(position == model.positions[index]);
    CHECK(position <= journal_durable(rig.journal)); /* J1 */
    CHECK(index == model.given + 1 ||
          (index > model.given && index <= model.released + 1)); /* J5: nothing above is left out */
    CHECK(journal_handover(rig.journal, &size, &position) == record);
    journal_handover_next(rig.journal);
    model.given = index;
    model.given_max = index > model.given_max ? index : model.given_max;
    return true;
}

static void rewind_to(uint64_t index)
{
    met.rewinds++;
    met.while_reading += model.waits;
    met.to_the_end += index == model.given_max;
    met.to_released += index == model.released;
    met.within_buffer += model.appended - index < 20;
    journal_rewind(rig.journal, model.positions[index]);
    model.given = index;
    if (disk_random() % 2 == 0) {
        journal_rewind(rig.journal, model.positions[index]); /* twice is as once */
    }
}

static void release_to(uint64_t index)
{
    const bool ahead = model.given < index && segment_of(model.given + 1) < segment_of(index);
    met.released_ahead += ahead;
    met.released_while_reading += ahead && model.waits;
    journal_release(rig.journal, model.positions[index]);
    model.released = index;
}

/* An index from low to high, often one of the two. */
static uint64_t somewhere(uint64_t low, uint64_t high)
{
    const uint64_t way = disk_random() % 6;
    return way == 0 ? low : way == 1 ? high : low + disk_random() % (high - low + 1);
}

static void one_step(uint32_t step, uint32_t rewind_one_in)
{
    const uint32_t burst = (uint32_t)(disk_random() % (step / 64 % 2 == 0 ? 4 : 40));
    for (uint32_t i = 0; i < burst && append((enum journal_durability)(disk_random() % 3)); i++) {
    }
    rig_turn(&rig, 0);
    for (uint32_t i = (uint32_t)(disk_random() % 60); i > 0 && take(); i--) {
    }
    if (disk_random() % rewind_one_in == 0) {
        rewind_to(somewhere(model.released, model.given_max));
    }
    if (disk_random() % 16 == 0 || (journal_state(rig.journal) == JOURNAL_FULL && !model.waits)) {
        release_to(somewhere(model.released, model.given_max));
    }
}

static void rewinds_of_seed(uint64_t seed)
{
    static const uint32_t sizes[] = {8, 700, 9000};

    open_rig(seed);
    size_max = sizes[disk_random() % 3];
    const uint32_t rewind_one_in = 4U << disk_random() % 6;
    for (uint32_t step = 0; step < 1200 && model.appended + 64 < RECORDS_MAX; step++) {
        one_step(step, rewind_one_in);
    }
    CHECK(model.given_max > 100);
    rewind_to(model.released);
    for (int turn = 0; turn < 20000 && model.given < model.appended; turn++) {
        rig_turn(&rig, 0);
        for (int i = 0; i < 100 && take(); i++) {
        }
    }
    CHECK(model.given == model.appended);
    CHECK(journal_state(rig.journal) != JOURNAL_FAILED);
    rig_settle(&rig);
    release_to(model.appended);
    CHECK(journal_backlog_bytes(rig.journal) == 0);
    rig_close(&rig);
}

static void rewinds_at_random_leave_nothing_out(uint64_t only)
{
    memset(&met, 0, sizeof(met));
    for (uint64_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : 400); seed++) {
        rewinds_of_seed(seed);
    }
    size_max = 700;
    if (only > 0) {
        return;
    }
    CHECK(met.rewinds > 10000);
    CHECK(met.while_reading > 1000);
    CHECK(met.to_the_end > 1000);
    CHECK(met.to_released > 1000);
    CHECK(met.within_buffer > 1000);
    CHECK(met.released_ahead > 100);
    CHECK(met.released_while_reading > 20);
}

/* The journal's answer to a read that fails stays: it is final, and no rewind revives it. */
static void failing_read_is_final_between_rewinds_too(void)
{
    uint64_t failed = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        open_rig(seed);
        disk_fail_read(1 + disk_random() % 40);
        for (uint32_t step = 0; step < 400 && journal_state(rig.journal) != JOURNAL_FAILED;
             step++) {
            one_step(step, 8);
        }
        if (journal_state(rig.journal) == JOURNAL_FAILED) {
            failed++;
            CHECK(disk_failed());
            for (int turn = 0; turn < 20; turn++) {
                rewind_to(model.released);
                CHECK(!take());
                rig_turn(&rig, 0);
            }
        }
        rig_settle(&rig);
        rig_close(&rig);
    }
    CHECK(failed > 100);
}

static void take_all(void)
{
    for (int turn = 0; turn < 2000 && model.given < model.appended; turn++) {
        while (take()) {
        }
        rig_turn(&rig, 0);
    }
}

static void take_one(void)
{
    for (int turn = 0; turn < 2000 && !take(); turn++) {
        rig_turn(&rig, 0);
    }
}

static void rewind_before_anything_was_handed_over_changes_nothing(void)
{
    open_rig(1);
    rewind_to(0);
    CHECK(!take());
    CHECK(append(DURABILITY_FSYNC));
    rewind_to(0);
    CHECK(!take()); /* in memory, not durable */
    journal_commit(rig.journal);
    rewind_to(0);
    CHECK(!take()); /* in flight */
    rig_settle(&rig);
    rewind_to(0);
    CHECK(take() && model.given == 1);
    CHECK(!take());
    rig_close(&rig);
}

static void rewind_starts_right_behind_its_position(void)
{
    open_rig(2);
    while (append(DURABILITY_FSYNC)) {
        rig_turn(&rig, 0);
        rig_settle(&rig);
    }
    CHECK(segment_of(model.appended) >= 3);
    take_all();
    for (uint64_t index = 0; index <= model.appended;
         index += index < model.appended - 40 ? 7 : 1) {
        rewind_to(index);
        take_all(); /* take checks that the first is index + 1, and the rest */
        CHECK(model.given == model.appended);
    }
    rig_close(&rig);
}

static void rewind_to_a_segment_that_was_given_back_starts_behind_it(void)
{
    open_rig(3);
    while (append(DURABILITY_FSYNC)) {
        rig_turn(&rig, 0);
        rig_settle(&rig);
    }
    take_all();
    uint64_t last = 1; /* of its segment */
    while (segment_of(last + 1) == segment_of(1)) {
        last++;
    }
    release_to(last);
    rewind_to(last);
    take_one();
    CHECK(model.given == last + 1);
    rewind_to(1); /* its bytes are gone: what is left comes */
    take_one();
    CHECK(model.given == last + 1);
    take_all();
    CHECK(model.given == model.appended);
    release_to(model.appended);
    rewind_to(model.appended); /* all is stored */
    for (int turn = 0; turn < 100; turn++) {
        CHECK(!take());
        rig_turn(&rig, 0);
    }
    CHECK(append(DURABILITY_FSYNC));
    rig_turn(&rig, 0);
    rig_settle(&rig);
    take_all();
    CHECK(model.given == model.appended);
    rig_close(&rig);
}

static void rewind_within_the_buffer_reads_nothing(void)
{
    open_rig(4);
    while (append(DURABILITY_FSYNC)) {
        rig_turn(&rig, 0);
        rig_settle(&rig);
    }
    take_all();
    for (uint64_t index = model.appended - 5; index <= model.appended; index++) {
        rewind_to(0);
        take_one(); /* what was read back last is of the first segment */
        const uint64_t reads = rig.reads;
        rewind_to(index);
        take_all();
        CHECK(model.given == model.appended);
        CHECK(rig.reads == reads);
    }
    rig_close(&rig);
}

/* A flush that was under way succeeds after the rewind: the taker still sees where the row ends. */
static void release_past_a_rewound_handover_goes_on_with_what_is_left(void)
{
    open_rig(6);
    while (append(DURABILITY_FSYNC)) {
        rig_turn(&rig, 0);
        rig_settle(&rig);
    }
    take_all();
    rewind_to(0);
    take_one();
    release_to(model.appended);
    take_all();
    CHECK(model.given == model.appended);
    rewind_to(model.appended - 1);
    release_to(model.appended); /* twice is as once */
    take_all();
    CHECK(model.given == model.appended);
    rig_close(&rig);
}

/* The read back of a place that was left by a rewind comes after its segment was given back and
 * taken into use again. */
static void late_read_of_a_segment_in_its_next_life_is_nobodys(void)
{
    uint64_t late = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        open_rig(seed);
        while (append(DURABILITY_FSYNC)) {
            rig_turn(&rig, 0);
            rig_settle(&rig);
        }
        take_all();
        rewind_to(0);
        CHECK(!take() && model.waits); /* the read of the first segment has begun */
        const uint64_t reads = rig.reads;
        const uint64_t former = model.appended;
        release_to(former);
        bool again = false; /* a group was written into that file while the read went on */
        for (int turn = 0; turn < 400; turn++) {
            (void)!append(DURABILITY_JOURNAL);
            rig_turn(&rig, 0);
            again = again || (rig.reads == reads && model.appended > former &&
                              journal_durable(rig.journal) > model.positions[former]);
            (void)take();
        }
        late += again;
        take_all();
        CHECK(model.given == model.appended);
        rig_settle(&rig);
        rig_close(&rig);
    }
    CHECK(late > 0);
}

static void failed_journal_gives_what_is_durable_again(void)
{
    open_rig(5);
    while (model.appended < 55 && append(DURABILITY_FSYNC)) {
        rig_turn(&rig, 0);
        rig_settle(&rig);
    }
    const uint64_t durable = model.appended;
    take_all();
    release_to(20);
    rig_turn(&rig, 0);
    rig_settle(&rig); /* the next call is the write of a group */
    disk_fail(1, DISK_FAULT_EIO);
    CHECK(append(DURABILITY_FSYNC));
    rig_turn(&rig, 0);
    rig_settle(&rig);
    CHECK(journal_state(rig.journal) == JOURNAL_FAILED);
    rewind_to(20);
    take_all();
    CHECK(model.given == durable); /* not the one whose write failed */
    disk_fail_read(1);
    rewind_to(20);
    for (int turn = 0; turn < 100; turn++) {
        CHECK(!take());
        rig_turn(&rig, 0);
    }
    CHECK(disk_failed());
    rewind_to(durable);
    CHECK(!take());
    rig_close(&rig);
}

static void tell_seed(int signal_number)
{
    (void)signal_number;
    (void)!write(STDERR_FILENO, seed_text, strlen(seed_text));
}

int main(int count, char **arguments)
{
    const uint64_t only = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    log_writer(rig_silence);
    (void)signal(SIGABRT, tell_seed);
    if (only > 0) {
        rewinds_at_random_leave_nothing_out(only);
        return 0;
    }
    rewind_before_anything_was_handed_over_changes_nothing();
    rewind_starts_right_behind_its_position();
    rewind_to_a_segment_that_was_given_back_starts_behind_it();
    rewind_within_the_buffer_reads_nothing();
    release_past_a_rewound_handover_goes_on_with_what_is_left();
    late_read_of_a_segment_in_its_next_life_is_nobodys();
    failed_journal_gives_what_is_durable_again();
    failing_read_is_final_between_rewinds_too();
    rewinds_at_random_leave_nothing_out(0);
    puts("9 passed, 0 failed");
    return 0;
}
