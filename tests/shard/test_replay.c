/*
 * test_replay.c - the journals of earlier runs: handed over in their order, again when it is asked
 *                 for, and dropped only when they are stored.
 *
 * Method: real journals on the real file system, and the real thread; the test plays persistence at
 *         the other end of the lane: it takes requests, answers with watermarks and rewinds, or
 * does nothing at all. Records are numbered through all runs, and a position of the lane counts
 *         them, so that each record says where it must come. The last test plays at random.
 */
#include "shard/replay.h"
#include "tests/fileio/journal_rig.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SMALL = 400,
    LARGE = 60000, /* some of these fill the ring of 4 MiB */
    SEGMENT = 1 << 20,
    PATIENCE_MS = 30000,
    QUIET_MS = 300,     /* in which nothing must happen */
    STOP_MS_MAX = 8000, /* it may sleep 5 s before it tries a journal again */
    RANDOM_ROUNDS = 12,
};

static char directory[200];
static struct rig rig;
static struct replay replay;
static struct mem_plan plan;
static uint64_t first_segment;
static uint64_t appended; /* index of the last record, all runs */
static uint32_t size_max;
static char why[1024];

/* What persistence knows. */
static struct os_ring *ring; /* of this thread */
static uint64_t handed;      /* position of the last record taken */
static uint64_t watermark;   /* that was sent last */
static bool recovered;       /* PERSIST_RECOVERED came, and no rewind since */
static bool rewinding;       /* until PERSIST_REWOUND comes, records say nothing */
static uint64_t rewound_to;

/* The thread wakes persistence by this; we look by ourselves. Takes the place of persist.c's. */
void persist_wake(struct persist *persist, struct os_ring *from)
{
    (void)persist, (void)from;
}

static uint64_t now_ms(void)
{
    return os_now_ns() / 1000000;
}

static void path_in(char ret[SEGMENT_PATH_MAX], const char *name)
{
    const int size = snprintf(ret, SEGMENT_PATH_MAX, "%s/%s", directory, name);
    CHECK(size > 0 && size < SEGMENT_PATH_MAX);
}

/* --- what earlier runs left --- */

static void begin(uint32_t record_bytes_max)
{
    const char *parent = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */

    (void)snprintf(directory, sizeof(directory), "%s/test_replay.XXXXXX",
                   parent != NULL ? parent : ".");
    CHECK(mkdtemp(directory) != NULL);
    appended = 0;
    size_max = record_bytes_max;
    why[0] = '\0';
}

static int remove_file(void *context, const char *name)
{
    char path[2 * SEGMENT_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/%s", (const char *)context, name);
    return os_file_remove(path);
}

static int remove_journal(void *context, const char *name)
{
    char path[SEGMENT_PATH_MAX];

    (void)context;
    path_in(path, name);
    CHECK(os_directory_list(path, remove_file, path) == 0);
    return rmdir(path);
}

static void end(void)
{
    CHECK(os_directory_list(directory, remove_journal, NULL) == 0);
    CHECK(rmdir(directory) == 0);
}

/* A run of the server that journals so many records, of which the store gets none. */
static void live(uint32_t records)
{
    char path[SEGMENT_PATH_MAX];

    path_in(path, "journal");
    rig.metrics = (struct metrics){0};
    rig.options = (struct journal_options){
        .directory = path,
        .segment_bytes = SEGMENT,
        .bytes_max = UINT64_C(64) * SEGMENT,
        .buffer_bytes = SEGMENT,
        .first_segment = first_segment,
    };
    CHECK(rig_open(&rig) == 0);
    for (uint32_t i = 0; i < records; i++) {
        appended++;
        for (int turns = 0; rig_append(&rig, appended, size_max, DURABILITY_FSYNC) == 0; turns++) {
            CHECK(turns < 10000);
            rig_turn(&rig, 1000000);
        }
        rig_turn(&rig, 0);
    }
    rig_settle(&rig);
    rig_close(&rig);
}

/* --- a start, and persistence behind it --- */

static int try_open(bool salvage)
{
    mem_init(&plan, "test", MEM_MAP);
    return replay_open(&replay, directory, salvage, &plan, &first_segment, why, sizeof(why));
}

/* A start that finds so many generations, with what is in them not yet handed over. */
static void open_replay(uint32_t generations, bool salvage)
{
    const struct os_ring_options options = {.entries = 16};
    const int error = try_open(salvage);

    if (error < 0) {
        (void)fprintf(stderr, "%d %s\n", error, why);
    }
    CHECK(error == 0);
    CHECK(mem_seal(&plan) == 0);
    CHECK(replay.count == generations);
    CHECK(replay.lane.recovered && replay.lane.salvage == salvage);
    CHECK(os_ring_create(&options, &ring, why, sizeof(why)) == 0);
    CHECK(os_ring_enable(ring) == 0);
    handed = 0;
    watermark = 0;
    recovered = false;
    rewinding = false;
    rewound_to = 0;
    CHECK(replay_start(&replay, (struct persist *)&plan /* only handed on */) == 0);
}

static void stop_replay(void)
{
    const uint64_t begun_ms = now_ms();

    replay_stop(&replay);
    CHECK(now_ms() - begun_ms < STOP_MS_MAX);
    os_ring_destroy(ring);
    mem_end(&plan);
}

static void send(enum persist_op op, uint64_t position)
{
    const struct persist_record reply = {.head = {.op = (uint16_t)op}, .position = position};
    struct os_event events[4];
    void *space = spsc_reserve(&replay.lane.replies, sizeof(reply));

    CHECK(space != NULL);
    memcpy(space, &reply, sizeof(reply));
    spsc_commit(&replay.lane.replies, sizeof(reply));
    CHECK(spsc_publish(&replay.lane.replies));
    if (doorbell_should_ring(replay.lane.shard_bell)) {
        os_doorbell(ring, replay.lane.shard_ring, replay.lane.shard_tag);
        CHECK(os_turn(ring, 0, events, 4) >= 0);
    }
}

static void send_watermark(uint64_t position)
{
    CHECK(position > watermark && position <= handed);
    watermark = position;
    send(PERSIST_WATERMARK, position);
}

/* Persistence asks for one at a time (persist/persist.h, PERSIST_REWIND). */
static void send_rewind(uint64_t position)
{
    CHECK(position >= watermark && !rewinding);
    rewinding = true;
    recovered = false;
    rewound_to = position;
    send(PERSIST_REWIND, position);
}

/* One record: the next one, whole. */
static void take_record(const struct persist_record *request, uint32_t size)
{
    CHECK(size == sizeof(*request) + request->record_bytes);
    if (rewinding) {
        return;
    }
    CHECK(!recovered);
    CHECK(request->position == handed + 1);
    CHECK(rig_index((const uint8_t *)(request + 1), request->record_bytes, size_max) ==
          request->position);
    handed = request->position;
}

/* Takes one request; false: there is none. */
static bool take_one(void)
{
    uint32_t size;
    const struct persist_head *request = spsc_peek(&replay.lane.requests, &size);

    if (request == NULL) {
        return false;
    }
    switch (request->op) {
    case PERSIST_RECORD:
        take_record((const struct persist_record *)request, size);
        break;
    case PERSIST_REWOUND:
        CHECK(rewinding && size == sizeof(*request));
        rewinding = false;
        handed = rewound_to;
        break;
    default:
        CHECK(request->op == PERSIST_RECOVERED && size == sizeof(*request));
        CHECK(rewinding || (!recovered && handed == appended));
        recovered = !rewinding;
        break;
    }
    spsc_next(&replay.lane.requests);
    spsc_release(&replay.lane.requests);
    return true;
}

static void take_until(uint64_t position)
{
    const uint64_t end_ms = now_ms() + PATIENCE_MS;

    while (handed < position || rewinding) {
        CHECK(now_ms() < end_ms);
        if (!take_one()) {
            CHECK(usleep(500) == 0);
        }
    }
}

static void take_all(void)
{
    const uint64_t end_ms = now_ms() + PATIENCE_MS;

    while (!recovered) {
        CHECK(now_ms() < end_ms);
        if (!take_one()) {
            CHECK(usleep(500) == 0);
        }
    }
    CHECK(handed == appended);
}

/* --- generations on disk --- */

static bool is_there(uint32_t generation)
{
    char path[SEGMENT_PATH_MAX];
    struct stat status;

    CHECK(recovery_directory(directory, generation, path) == 0);
    return stat(path, &status) == 0;
}

static void wait_until_dropped(uint32_t generation)
{
    for (const uint64_t end_ms = now_ms() + PATIENCE_MS; is_there(generation);) {
        CHECK(now_ms() < end_ms);
        CHECK(usleep(1000) == 0);
    }
}

/* So many runs, each with so many records, none of them stored. */
static void leave_generations(uint32_t count, uint32_t records)
{
    for (uint32_t i = 0; i < count; i++) {
        CHECK(try_open(false) == 0);
        replay_stop(&replay);
        mem_end(&plan);
        live(records);
    }
}

/* --- tests --- */

static void first_start_has_nothing_to_hand_over(void)
{
    begin(SMALL);
    for (int lap = 0; lap < 2; lap++) { /* the second finds a journal without records */
        CHECK(try_open(false) == 0);
        CHECK(replay.count == 0 && first_segment >= 1);
        CHECK(replay_start(&replay, NULL) == 0);
        replay_stop(&replay);
        mem_end(&plan);
        live(0);
    }
    end();
}

static void journal_of_the_last_run_is_handed_over_and_dropped(void)
{
    begin(SMALL);
    leave_generations(1, 300);
    open_replay(1, false);
    CHECK(first_segment == 1 && is_there(1) && is_there(0));
    take_all();
    CHECK(is_there(1)); /* handed over is not stored */
    send_watermark(299);
    CHECK(usleep(QUIET_MS * 1000) == 0);
    CHECK(is_there(1)); /* Y1 */
    send_watermark(300);
    wait_until_dropped(1);
    stop_replay();
    CHECK(try_open(false) == 0);
    CHECK(replay.count == 0);
    replay_stop(&replay);
    mem_end(&plan);
    end();
}

static void generations_come_oldest_first_and_go_in_that_order(void)
{
    begin(SMALL);
    leave_generations(4, 100);
    open_replay(4, false);
    take_all();
    CHECK(handed == 400);
    send_watermark(150);
    wait_until_dropped(1);
    CHECK(is_there(2) && is_there(3) && is_there(4));
    send_watermark(300); /* two at once */
    wait_until_dropped(3);
    CHECK(!is_there(2) && is_there(4));
    send_watermark(399);
    CHECK(usleep(QUIET_MS * 1000) == 0);
    CHECK(is_there(4));
    send_watermark(400);
    wait_until_dropped(4);
    stop_replay();
    end();
}

static void what_was_not_stored_is_there_at_the_next_start(void)
{
    begin(SMALL);
    leave_generations(2, 100);
    open_replay(2, false);
    take_until(150);
    send_watermark(120);
    wait_until_dropped(1);
    stop_replay(); /* in the middle of handing over */
    live(50);      /* this run's own journal */
    appended -= 100;

    /* Positions begin anew: generation 2 holds what were 101 to 200. */
    CHECK(try_open(false) == 0);
    CHECK(replay.count == 2 && replay.first == 2);
    CHECK(replay.records[0] == 100 && replay.records[1] == 50);
    replay_stop(&replay);
    mem_end(&plan);
    end();
}

static void rewind_begins_again_behind_its_position(void)
{
    begin(SMALL);
    leave_generations(3, 100);
    open_replay(3, false);
    take_until(130);
    send_rewind(40);
    take_until(250);
    send_watermark(100);
    wait_until_dropped(1);
    send_rewind(100); /* what is dropped is not needed */
    take_all();
    send_rewind(299); /* also when all was handed over: one record more, and the end once more */
    take_all();
    send_rewind(300);
    take_all();
    send_watermark(300);
    wait_until_dropped(3);
    stop_replay();
    end();
}

static void full_ring_waits_and_hears_a_rewind(void)
{
    begin(LARGE);
    leave_generations(2, 250); /* 15 MB: several rings */
    open_replay(2, false);
    CHECK(usleep(QUIET_MS * 1000) == 0); /* it fills up */
    CHECK(spsc_reserve(&replay.lane.replies, 64) != NULL);
    send_rewind(0);
    take_until(100); /* what was in the ring is passed over, then comes again */
    send_rewind(90);
    take_all();
    send_watermark(500);
    wait_until_dropped(2);
    stop_replay();
    end();
}

static void stop_does_not_wait_for_whoever_takes_nothing(void)
{
    begin(LARGE);
    leave_generations(1, 250);
    for (int lap = 0; lap < 3; lap++) {
        open_replay(1, false);
        if (lap > 0) {
            take_until(lap == 1 ? 20 : 1);
        }
        stop_replay(); /* with a full ring, a part of it, or at once */
        CHECK(is_there(1));
    }
    open_replay(1, false);
    take_all();
    stop_replay();
    end();
}

static _Atomic bool complained; /* that a journal cannot be read any more */

static bool listen_to_log(const char *line, uint32_t size)
{
    static const char words[] = "cannot be read any more";

    if (memmem(line, size, words, sizeof(words) - 1) != NULL) {
        complained = true;
    }
    return true;
}

static void generation_that_cannot_be_read_is_tried_again(void)
{
    char path[SEGMENT_PATH_MAX];
    char away[SEGMENT_PATH_MAX];

    begin(LARGE);
    leave_generations(2, 250);
    for (int lap = 0; lap < 2; lap++) {
        open_replay(2, false);
        CHECK(recovery_directory(directory, 2, path) == 0);
        path_in(away, "away");
        take_until(10); /* the thread is in the first one: the ring is full of it */
        CHECK(rename(path, away) == 0);
        complained = false;
        take_until(250);
        for (const uint64_t end_ms = now_ms() + PATIENCE_MS; !complained;) {
            CHECK(now_ms() < end_ms);
            CHECK(!take_one()); /* what cannot be read is not passed over */
            CHECK(usleep(1000) == 0);
        }
        if (lap == 1) {
            stop_replay(); /* while it waits for the next attempt */
        }
        CHECK(rename(away, path) == 0);
        if (lap == 0) {
            send_rewind(0); /* what was handed over comes again anyway: from the beginning */
            take_all();
            stop_replay();
        }
    }
    end();
}

/* --- damage --- */

/* Spoils a byte of the first record in a generation's first segment: its first group begins with
 * block 1, and others follow it. */
static int spoil_file(void *context, const char *name)
{
    char path[2 * SEGMENT_PATH_MAX];
    uint8_t byte = 0;
    const uint64_t offset = SEGMENT_BLOCK_BYTES + SEGMENT_GROUP_BYTES + SEGMENT_FRAME_BYTES + 1;

    (void)snprintf(path, sizeof(path), "%s/%s", (const char *)context, name);
    const int file = os_file_open(path, OS_OPEN_WRITE);
    CHECK(file >= 0);
    CHECK(os_file_read(file, &byte, 1, offset) == 1);
    byte ^= 0x40;
    CHECK(os_file_write(file, &byte, 1, offset) == 0);
    os_file_close(file);
    return 1; /* one is enough */
}

static void spoil_generation(uint32_t generation)
{
    char path[SEGMENT_PATH_MAX];

    CHECK(recovery_directory(directory, generation, path) == 0);
    CHECK(os_directory_list(path, spoil_file, path) == 1);
}

static void damage_is_refused_with_its_place_and_salvage_passes_over_it(void)
{
    begin(SMALL);
    leave_generations(2, 300);
    CHECK(try_open(false) == 0); /* sets the second aside */
    replay_stop(&replay);
    mem_end(&plan);
    spoil_generation(1);
    CHECK(try_open(false) == -EBADMSG);
    CHECK(strstr(why, "journal.000001") != NULL); /* which file, */
    CHECK(strstr(why, ".seg") != NULL);
    CHECK(strpbrk(why, "0123456789") != NULL &&
          strstr(why, "salvage") != NULL); /* and what to do */
    mem_end(&plan);
    CHECK(is_there(1) && is_there(2)); /* nothing was touched */

    open_replay(2, true);
    CHECK(replay.records[0] < 300 && replay.records[1] == 300);
    const uint64_t whole = replay.records[0] + replay.records[1];
    const uint64_t end_ms = now_ms() + PATIENCE_MS;
    uint64_t last_index = 0;
    uint64_t position = 0;
    for (bool ended = false; !ended;) { /* what is intact comes, in its order, counted densely */
        uint32_t size;
        const struct persist_record *request = spsc_peek(&replay.lane.requests, &size);
        CHECK(now_ms() < end_ms);
        if (request == NULL) {
            CHECK(usleep(500) == 0);
            continue;
        }
        ended = request->head.op == PERSIST_RECOVERED;
        if (!ended) {
            const uint64_t index =
                rig_index((const uint8_t *)(request + 1), request->record_bytes, size_max);
            CHECK(index > last_index && request->position == position + 1);
            last_index = index;
            position++;
        }
        spsc_next(&replay.lane.requests);
        spsc_release(&replay.lane.requests);
    }
    CHECK(position == whole && last_index == 600);
    handed = whole;
    send_watermark(whole);
    wait_until_dropped(2);
    CHECK(!is_there(1));
    stop_replay();
    end();
}

static void too_many_generations_say_what_to_do(void)
{
    char path[SEGMENT_PATH_MAX];

    begin(SMALL);
    path_in(path, "journal");
    CHECK(mkdir(path, 0700) == 0);
    for (uint32_t i = 1; i <= REPLAY_GENERATIONS_MAX; i++) {
        CHECK(recovery_directory(directory, i, path) == 0);
        CHECK(mkdir(path, 0700) == 0);
    }
    CHECK(try_open(false) == -EMFILE);
    CHECK(strstr(why, directory) != NULL && strstr(why, "1024") != NULL);
    mem_end(&plan);
    end();
}

/* --- at random --- */

static uint64_t random_state;

static uint64_t random_below(uint64_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 33) % bound;
}

/* A generation is there just as long as its last record is not stored. */
static void check_generations(const uint64_t *ends, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        CHECK(watermark >= ends[i] || is_there(i + 1));
    }
}

static void any_row_of_watermarks_and_rewinds_is_followed(void)
{
    uint64_t ends[4];

    for (uint32_t round = 0; round < RANDOM_ROUNDS; round++) {
        const uint32_t count = 1 + (uint32_t)random_below(4);
        begin(random_below(3) == 0 ? 20000 : SMALL);
        for (uint32_t i = 0; i < count; i++) {
            leave_generations(1, 1 + (uint32_t)random_below(200));
            ends[i] = appended;
        }
        open_replay(count, false);
        for (uint32_t step = 0; step < 40; step++) {
            take_until(handed + random_below(appended - handed + 1));
            if (random_below(3) == 0 && handed > watermark) {
                send_watermark(watermark + 1 + random_below(handed - watermark));
            }
            check_generations(ends, count);
            if (random_below(4) == 0) {
                send_rewind(watermark + random_below(handed - watermark + 1));
            }
        }
        take_all();
        if (appended > watermark) {
            send_watermark(appended);
        }
        for (uint32_t i = 0; i < count; i++) {
            wait_until_dropped(i + 1);
        }
        stop_replay();
        end();
    }
}

static void (*const tests[])(void) = {
    first_start_has_nothing_to_hand_over,
    journal_of_the_last_run_is_handed_over_and_dropped,
    generations_come_oldest_first_and_go_in_that_order,
    what_was_not_stored_is_there_at_the_next_start,
    rewind_begins_again_behind_its_position,
    full_ring_waits_and_hears_a_rewind,
    stop_does_not_wait_for_whoever_takes_nothing,
    generation_that_cannot_be_read_is_tried_again,
    damage_is_refused_with_its_place_and_salvage_passes_over_it,
    too_many_generations_say_what_to_do,
    any_row_of_watermarks_and_rewinds_is_followed,
};

enum { TESTS = sizeof(tests) / sizeof(tests[0]) };

/* Argument: a seed for the last test. */
int main(int count, char **words)
{
    random_state = count > 1 ? strtoull(words[1], NULL, 10) : now_ms();
    (void)printf("seed %" PRIu64 "\n", random_state);
    (void)fflush(stdout);
    log_writer(listen_to_log);
    for (uint32_t i = 0; i < TESTS; i++) {
        tests[i]();
    }
    (void)printf("%d passed, 0 failed\n", TESTS);
    return 0;
}
