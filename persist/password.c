/* password.c - see password.h for the invariants W1 and W2 named below. */
#include "persist/password.h"

#include "core/check.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* OWASP Password Storage Cheat Sheet: Argon2id with 19 MiB and two passes. */
enum { PASSES = 2, MEMORY_BYTES = 19 * 1024 * 1024, NICENESS = 10 };

_Static_assert(PASSWORD_HASH_SIZE == crypto_pwhash_STRBYTES, "libsodium's text fits");

/* Of 32 random bytes that nobody kept. The parameters must be those above: it is there for the time
 * that they take. */
const char password_of_nobody[PASSWORD_HASH_SIZE] =
    "$argon2id$v=19$m=19456,t=2,p=1$3zDlgll71MRCUhrxDRxYDg$Q7me7h"
    "zE859dizbh7kCH2CC+CayHNUCjghd9d9ioWKg";

struct list {
    struct password_job *first;
    struct password_job *last;
    uint32_t count;
};

struct worker {
    struct password_pool *pool;
    struct os_ring *ring; /* rings the taker's doorbell, and nothing else */
    pthread_t thread;
};

struct password_pool {
    pthread_mutex_t lock; /* of waiting, done and stopping */
    pthread_cond_t wake;  /* a job waits, or stopping */
    struct list waiting;
    struct list done;
    bool stopping;

    struct password_options options;
    uint32_t rings;   /* workers whose ring exists */
    uint32_t running; /* workers whose thread exists */
    struct worker *workers;
};

static void list_push(struct list *list, struct password_job *job)
{
    job->next = NULL;
    if (list->last != NULL) {
        list->last->next = job;
    } else {
        list->first = job;
    }
    list->last = job;
    list->count++;
}

static struct password_job *list_pop(struct list *list)
{
    struct password_job *job = list->first;
    if (job != NULL) {
        list->first = job->next;
        list->last = list->first == NULL ? NULL : list->last;
        list->count--;
    }
    return job;
}

static int open_rings(struct password_pool *pool, char *ret_why, size_t why_size)
{
    const struct os_ring_options options = {.entries = 4};

    for (uint32_t i = 0; i < pool->options.workers; i++) {
        const int error = os_ring_create(&options, &pool->workers[i].ring, ret_why, why_size);
        if (error < 0) {
            return error;
        }
        pool->workers[i].pool = pool;
        pool->rings++;
    }
    return 0;
}

int password_open(const struct password_options *options, struct mem_plan *plan,
                  struct password_pool **ret, char *ret_why, size_t why_size)
{
    CHECK(options->workers >= 1 && options->queue >= 1);
    if (sodium_init() < 0) {
        (void)snprintf(ret_why, why_size, "libsodium does not start: no source of randomness");
        return -EIO;
    }
    struct password_pool *pool = mem_alloc(plan, "password pool", sizeof(*pool));
    struct worker *workers =
        mem_alloc(plan, "password workers", options->workers * sizeof(*workers));
    if (pool == NULL || workers == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for the password workers");
        return -ENOMEM;
    }
    pool->options = *options;
    pool->workers = workers;
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    const int error = open_rings(pool, ret_why, why_size);
    if (error < 0) {
        password_close(pool);
        return error;
    }
    *ret = pool;
    return 0;
}

static int run(struct password_job *job)
{
    if (job->task == PASSWORD_VERIFY) {
        const int differs = crypto_pwhash_str_verify(job->hash, job->password, job->password_size);
        return differs == 0 ? 0 : -EACCES;
    }
    const int failed =
        crypto_pwhash_str(job->hash, job->password, job->password_size, PASSES, MEMORY_BYTES);
    return failed == 0 ? 0 : -ENOMEM;
}

static void finish(struct worker *worker, struct password_job *job)
{
    struct password_pool *pool = worker->pool;
    struct os_event events[4];

    sodium_memzero(job->password, sizeof(job->password));
    (void)pthread_mutex_lock(&pool->lock);
    list_push(&pool->done, job);
    (void)pthread_mutex_unlock(&pool->lock);
    if (doorbell_should_ring(pool->options.bell)) {
        os_doorbell(worker->ring, pool->options.ring, pool->options.tag);
        /* A bell that fails is made up for by the taker's own bound on its sleep. */
        (void)!os_turn(worker->ring, 0, events, 4);
    }
}

static struct password_job *next_job(struct password_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    while (pool->waiting.count == 0 && !pool->stopping) {
        (void)pthread_cond_wait(&pool->wake, &pool->lock);
    }
    struct password_job *job = pool->stopping ? NULL : list_pop(&pool->waiting);
    (void)pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    /* Hashes give way to shards that share the processor; refused niceness costs only speed. */
    (void)setpriority(PRIO_PROCESS, 0, NICENESS);
    /* Without its ring the worker still works: the taker wakes by itself, only later. */
    (void)!os_ring_enable(worker->ring);
    for (struct password_job *job = next_job(worker->pool); job != NULL;
         job = next_job(worker->pool)) {
        job->status = run(job);
        finish(worker, job);
    }
    return NULL;
}

static void stop_workers(struct password_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->running; i++) {
        (void)pthread_join(pool->workers[i].thread, NULL);
    }
    pool->running = 0;
}

int password_start(struct password_pool *pool)
{
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        struct worker *worker = &pool->workers[i];
        const int error = pthread_create(&worker->thread, NULL, work, worker);
        if (error != 0) {
            stop_workers(pool);
            return -error;
        }
        pool->running++;
    }
    return 0;
}

int password_submit(struct password_pool *pool, struct password_job *job)
{
    int result = -EAGAIN;

    CHECK(job->password_size <= PASSWORD_BYTES_MAX);
    (void)pthread_mutex_lock(&pool->lock);
    if (pool->waiting.count < pool->options.queue) { /* W1 */
        list_push(&pool->waiting, job);
        (void)pthread_cond_signal(&pool->wake);
        result = 0;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return result;
}

struct password_job *password_take(struct password_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    struct password_job *job = list_pop(&pool->done);
    (void)pthread_mutex_unlock(&pool->lock);
    return job;
}

void password_close(struct password_pool *pool)
{
    stop_workers(pool);
    for (struct password_job *job = list_pop(&pool->waiting); job != NULL;
         job = list_pop(&pool->waiting)) {
        sodium_memzero(job->password, sizeof(job->password));
    }
    for (uint32_t i = 0; i < pool->rings; i++) {
        os_ring_destroy(pool->workers[i].ring);
    }
    pool->rings = 0;
    (void)pthread_cond_destroy(&pool->wake);
    (void)pthread_mutex_destroy(&pool->lock);
}
