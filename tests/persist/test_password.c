/*
 * test_password.c - passwords are hashed off the caller's thread, in bounded number, and each job
 * comes back once; and what a username may be.
 *
 * Method: real workers and a real ring to be woken by; 19 MiB and some 40 ms a hash, so few of
 *         them.
 */
#include "core/check.h"
#include "persist/password.h"
#include "persist/username.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { WORKERS = 2, QUEUE = 3, JOBS = 8, TAG = 42, PATIENCE_NS = 1000000000, ATTEMPTS = 60 };

static struct mem_plan plan;
static struct os_ring *ring;
static struct doorbell bell;
static struct password_pool *pool;
static struct password_job jobs[JOBS];

static void open_pool(uint32_t workers, uint32_t queue)
{
    const struct os_ring_options ring_options = {.entries = 8};
    char why[256] = "";

    CHECK(os_ring_create(&ring_options, &ring, why, sizeof(why)) == 0);
    CHECK(os_ring_enable(ring) == 0);
    doorbell_init(&bell);
    mem_init(&plan, "test", MEM_MAP);
    const struct password_options options = {
        .workers = workers, .queue = queue, .ring = ring, .bell = &bell, .tag = TAG};
    CHECK(password_open(&options, &plan, &pool, why, sizeof(why)) == 0);
    CHECK(mem_seal(&plan) == 0);
    CHECK(password_start(pool) == 0);
}

static void close_pool(void)
{
    password_close(pool);
    os_ring_destroy(ring);
    mem_end(&plan);
}

static void fill_job(struct password_job *job, enum password_task task, const char *password,
                     const char *hash)
{
    memset(job, 0, sizeof(*job));
    job->task = task;
    job->password_size = (uint32_t)strlen(password);
    memcpy(job->password, password, job->password_size);
    (void)snprintf(job->hash, sizeof(job->hash), "%s", hash);
}

/* Sleeps as the persistence thread does, until a job is done. */
static struct password_job *wait_job(void)
{
    struct os_event events[8];
    struct password_job *job = password_take(pool);

    for (int attempt = 0; job == NULL && attempt < ATTEMPTS; attempt++) {
        doorbell_prepare_sleep(&bell);
        job = password_take(pool);
        if (job == NULL) {
            const int count = os_turn(ring, PATIENCE_NS, events, 8);
            CHECK(count >= 0);
            CHECK(count == 0 || events[0].tag == TAG);
            job = password_take(pool);
        }
        doorbell_cancel_sleep(&bell);
    }
    CHECK(job != NULL);
    return job;
}

static int run_job(enum password_task task, const char *password, const char *hash)
{
    fill_job(&jobs[0], task, password, hash);
    CHECK(password_submit(pool, &jobs[0]) == 0);
    CHECK(wait_job() == &jobs[0]);
    for (uint32_t i = 0; i < PASSWORD_BYTES_MAX; i++) {
        CHECK(jobs[0].password[i] == 0); /* wiped */
    }
    return jobs[0].status;
}

static void right_password_is_told_from_a_wrong_one(void)
{
    char hash[PASSWORD_HASH_SIZE];

    open_pool(1, 1);
    CHECK(run_job(PASSWORD_HASH, "correct horse", "") == 0);
    memcpy(hash, jobs[0].hash, sizeof(hash));
    CHECK(strncmp(hash, "$argon2id$v=19$m=19456,t=2,p=1$", 31) == 0);
    CHECK(run_job(PASSWORD_VERIFY, "correct horse", hash) == 0);
    CHECK(run_job(PASSWORD_VERIFY, "correct horsf", hash) == -EACCES);
    CHECK(run_job(PASSWORD_VERIFY, "", hash) == -EACCES);
    CHECK(run_job(PASSWORD_HASH, "correct horse", "") == 0);
    CHECK(memcmp(hash, jobs[0].hash, sizeof(hash)) != 0); /* salted */
    CHECK(run_job(PASSWORD_VERIFY, "anything", "no hash at all") == -EACCES);
    close_pool();
}

static void nobody_takes_as_long_as_a_wrong_password(void)
{
    char hash[PASSWORD_HASH_SIZE];
    uint64_t ns[2] = {UINT64_MAX, UINT64_MAX};

    open_pool(1, 1);
    CHECK(strncmp(password_of_nobody, "$argon2id$v=19$m=19456,t=2,p=1$", 31) == 0);
    CHECK(run_job(PASSWORD_HASH, "x", "") == 0);
    memcpy(hash, jobs[0].hash, sizeof(hash));
    for (int i = 0; i < 10; i++) { /* the least of five each: others may use the processor too */
        const uint64_t begin_ns = os_now_ns();
        CHECK(run_job(PASSWORD_VERIFY, "y", i % 2 == 0 ? hash : password_of_nobody) == -EACCES);
        const uint64_t took_ns = os_now_ns() - begin_ns;
        ns[i % 2] = took_ns < ns[i % 2] ? took_ns : ns[i % 2];
    }
    CHECK(ns[1] > ns[0] / 2 && ns[0] > ns[1] / 2);
    CHECK(ns[1] > UINT64_C(5000000)); /* it was really computed */
    close_pool();
}

static void full_queue_refuses_and_loses_nothing(void)
{
    uint32_t accepted = 0;
    bool seen[JOBS] = {false};

    open_pool(1, QUEUE);
    for (int i = 0; i < JOBS; i++) {
        fill_job(&jobs[i], PASSWORD_VERIFY, "y", password_of_nobody);
        const int status = password_submit(pool, &jobs[i]);
        CHECK(status == 0 || status == -EAGAIN);
        accepted += status == 0;
    }
    /* The first may be in hand already, and then one more fits. */
    CHECK(accepted == QUEUE || accepted == QUEUE + 1);
    for (uint32_t i = 0; i < accepted; i++) {
        struct password_job *job = wait_job();
        CHECK(!seen[job - jobs]);
        seen[job - jobs] = true;
    }
    CHECK(password_take(pool) == NULL);
    CHECK(run_job(PASSWORD_VERIFY, "y", password_of_nobody) == -EACCES); /* takes jobs again */
    close_pool();
}

static void closing_gives_up_what_waits(void)
{
    open_pool(WORKERS, JOBS);
    for (int i = 0; i < JOBS; i++) {
        fill_job(&jobs[i], PASSWORD_VERIFY, "secret", password_of_nobody);
        CHECK(password_submit(pool, &jobs[i]) == 0);
    }
    const uint64_t begin_ns = os_now_ns();
    close_pool();
    /* Not all eight were computed, and no password is left. */
    CHECK(os_now_ns() - begin_ns < UINT64_C(10) * PATIENCE_NS);
    for (int i = 0; i < JOBS; i++) {
        CHECK(memcmp(jobs[i].password, "secret", 6) != 0);
    }
}

/* --- usernames --- */

static bool valid(const char *name)
{
    return username_is_valid((struct slice){name, (uint32_t)strlen(name)});
}

static void username_has_its_rules(void)
{
    CHECK(valid("ab") && valid("Ann Smith") && valid("\xea\xb9\x80\xec\xb2\xa0\xec\x88\x98"));
    CHECK(!valid("") && !valid("a") && !valid(" ab") && !valid("ab "));
    CHECK(!valid("a\nb") && !valid("a\x7f"
                                   "b"));
    CHECK(!valid("a\xc2\x85"
                 "b"));                           /* U+0085, a C1 control */
    CHECK(!valid("a\xff") && !valid("\xc0\x80")); /* not UTF-8 */
    CHECK(!valid("\xea\xb9\x80"));                /* one code point */
    CHECK(valid("12345678901234567890123456789012"));
    CHECK(!valid("123456789012345678901234567890123"));
    CHECK(!username_is_valid((struct slice){"a\0b", 3}));
}

static void username_folds_ascii_only(void)
{
    const struct username folded = username_fold(SLICE("AzZ9 \xc3\x84"));
    CHECK(slice_equal(username_slice(&folded), SLICE("azz9 \xc3\x84")));
}

static bool variant_is(const char *wanted, const char *expected)
{
    const struct slice name = {wanted, (uint32_t)strlen(wanted)};
    const struct username variant = username_variant(name, "k3x9");
    CHECK(username_is_valid(username_slice(&variant)));
    return slice_equal(username_slice(&variant),
                       (struct slice){expected, (uint32_t)strlen(expected)});
}

static void variant_is_valid_and_near(void)
{
    CHECK(variant_is("Ann", "Ann-k3x9"));
    CHECK(variant_is("", "user-k3x9"));
    CHECK(variant_is("  ", "user-k3x9"));
    CHECK(variant_is("a", "a-k3x9"));
    CHECK(variant_is(" a\n\xff\xc2\x85"
                     "b ",
                     "ab -k3x9"));
    CHECK(variant_is("12345678901234567890123456789012345", "123456789012345678901234567-k3x9"));
}

int main(void)
{
    right_password_is_told_from_a_wrong_one();
    nobody_takes_as_long_as_a_wrong_password();
    full_queue_refuses_and_loses_nothing();
    closing_gives_up_what_waits();
    username_has_its_rules();
    username_folds_ascii_only();
    variant_is_valid_and_near();
    puts("7 passed, 0 failed");
    return 0;
}
