/*
 * test_append.c - durable records get into Redis, and what became of each is told truly.
 *
 * Method: the real redis-server of redis_rig.h, and the worker's own thread; what lies in Redis is
 *         looked at, and spoiled, by a connection of the test's own.
 */
#include "persist/append.h"
#include "tests/persist/job_rig.h"
#include "tests/persist/redis_rig.h"

#include <errno.h>

enum { OWNER = 7 };

static struct asker asker;
static struct redis_rig redis;
static struct redis_client client;
static struct mem_plan plan;
static struct appender appender;
static struct append_job job;

static void begin(void)
{
    char why[512] = "";
    const struct worker_options worker = asker_worker(&asker, "append");

    redis_rig_open(&redis, "");
    redis_client_open(&client, redis.url, NULL);
    CHECK(redis_connect(client.redis) == 0);
    const struct cache_options cache = {
        .url = redis.url, .ca_file = "", .prefix = "t:", .connect_ms = 2000, .reply_ms = 1000};
    mem_init(&plan, "test", MEM_MAP);
    CHECK(appender_open(&appender, &cache, &worker, &plan, why, sizeof(why)) == 0);
    CHECK(mem_seal(&plan) == 0);
    CHECK(worker_start(&appender.worker) == 0);
    record_rig_reset();
    job.room_count = 0;
    job.record_count = 0;
}

static void end(void)
{
    worker_stop(&appender.worker);
    appender_close(&appender);
    mem_end(&plan);
    redis_client_close(&client);
    redis_rig_close(&redis);
}

static struct job_answer ask(enum job_op op, void *what)
{
    return asker_ask(&asker, &appender.worker, op, OWNER, what);
}

static struct append_room *add(const char *room, uint64_t from, uint64_t to)
{
    struct append_room *added = &job.rooms[job.room_count++];

    *added =
        (struct append_room){.room_id = rig_slice(room), .first = job.record_count, .result = 4711};
    for (uint64_t seq = from; seq <= to; seq++, added->count++) {
        job.records[job.record_count++] = record_rig_make(room, seq);
    }
    return added;
}

/* The list holds just these records. */
static bool holds(const char *key, const char *room, uint64_t from, uint64_t to)
{
    char command[200];

    (void)snprintf(command, sizeof(command), "LRANGE %s 0 -1", key);
    const struct redis_reply list = redis_client_say(&client, command);
    bool same = list.type == REDIS_ARRAY && list.count == to - from + 1;
    for (uint32_t i = 0; same && i < list.count; i++) {
        same = slice_equal(redis_element(&list, i).text, record_rig_make(room, from + i));
    }
    return same;
}

static void records_get_into_their_lists_in_order(void)
{
    begin();
    CHECK(ask(JOB_CONNECT, NULL).status == 0);
    add("a", 1, 3);
    add("b", 8, 8);
    struct job_answer answer = ask(JOB_APPEND, &job);
    CHECK(answer.status == 0 && answer.where == JOB_WHERE_NONE && answer.redis_ns > 0);
    CHECK(job.rooms[0].result == 0 && job.rooms[1].result == 0);
    job.room_count = 0;
    job.record_count = 0;
    add("a", 4, 1003);
    CHECK(ask(JOB_APPEND, &job).status == 0);
    CHECK(holds("t:{a}:log", "a", 1, 1003) && holds("t:{b}:log", "b", 8, 8));
    CHECK(redis_client_gets(&client, "GET t:{a}:owner", "7"));
    answer = ask(JOB_PING, NULL);
    CHECK(answer.status == 0 && answer.redis_ns > 0);
    end();
}

static void full_job_keeps_every_result_with_its_room(void)
{
    static char names[JOB_APPEND_ROOMS][16];

    begin();
    CHECK(ask(JOB_CONNECT, NULL).status == 0);
    for (uint32_t i = 0; i < JOB_APPEND_ROOMS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "room%u", i);
        add(names[i], 1, i % 2 == 0 ? 8 : 7);
    }
    (void)redis_client_say(&client, "SET t:{room17}:owner 99");
    (void)redis_client_say(&client, "SET t:{room999}:owner 99");
    const struct job_answer answer = ask(JOB_APPEND, &job);
    CHECK(answer.status == -ESTALE && answer.where == JOB_WHERE_REDIS);
    for (uint32_t i = 0; i < JOB_APPEND_ROOMS; i++) {
        CHECK(job.rooms[i].result == (i == 17 || i == 999 ? -ESTALE : 0));
    }
    CHECK(redis_client_gets(&client, "LLEN t:{room998}:log", "8"));
    CHECK(redis_client_gets(&client, "EXISTS t:{room999}:log", "0"));
    end();
}

static void nothing_is_appended_before_a_connection_is_asked_for(void)
{
    begin();
    add("a", 1, 1);
    const struct job_answer answer = ask(JOB_APPEND, &job);
    CHECK(answer.status == -ENOTCONN && answer.where == JOB_WHERE_REDIS && answer.why_bytes > 0);
    CHECK(job.rooms[0].result == -EIO);
    CHECK(ask(JOB_PING, NULL).status == -ENOTCONN);
    CHECK(redis_client_gets(&client, "EXISTS t:{a}:log", "0"));
    end();
}

static void restart_of_redis_is_told_once(void)
{
    begin();
    CHECK(!ask(JOB_CONNECT, NULL).restarted);
    CHECK(!ask(JOB_CONNECT, NULL).restarted);
    redis_rig_kill(&redis);
    add("a", 1, 5);
    struct job_answer answer = ask(JOB_APPEND, &job);
    CHECK(answer.status < 0 && answer.status != -ESTALE && answer.status != -ENOSPC);
    CHECK(answer.where == JOB_WHERE_REDIS && answer.why_bytes > 0);
    CHECK(job.rooms[0].result == -EIO);
    CHECK(ask(JOB_APPEND, &job).status == -ENOTCONN); /* it does not connect by itself */
    answer = ask(JOB_CONNECT, NULL);
    CHECK(answer.status < 0 && !answer.restarted && answer.where == JOB_WHERE_REDIS);
    redis_rig_start(&redis, "");
    answer = ask(JOB_CONNECT, NULL);
    CHECK(answer.status == 0 && answer.restarted);
    answer = ask(JOB_CONNECT, NULL);
    CHECK(answer.status == 0 && !answer.restarted);
    CHECK(ask(JOB_APPEND, &job).status == 0);
    CHECK(redis_connect(client.redis) == 0);
    CHECK(holds("t:{a}:log", "a", 1, 5));
    end();
}

static void redis_that_stands_still_is_given_up_in_time(void)
{
    begin();
    CHECK(ask(JOB_CONNECT, NULL).status == 0);
    CHECK(kill(redis.pid, SIGSTOP) == 0);
    add("a", 1, 5);
    const uint64_t begun_ns = os_now_ns();
    const struct job_answer answer = ask(JOB_APPEND, &job);
    CHECK(os_now_ns() - begun_ns < UINT64_C(4000) * 1000 * 1000);
    CHECK(kill(redis.pid, SIGCONT) == 0);
    CHECK(answer.status == -ETIMEDOUT && answer.where == JOB_WHERE_REDIS);
    end();
}

static void full_redis_is_told_apart(void)
{
    begin();
    CHECK(ask(JOB_CONNECT, NULL).status == 0);
    (void)redis_client_say(&client, "CONFIG SET maxmemory 1");
    add("a", 1, 5);
    add("b", 1, 5);
    struct job_answer answer = ask(JOB_APPEND, &job);
    CHECK(answer.status == -ENOSPC && answer.where == JOB_WHERE_REDIS && answer.why_bytes > 0);
    CHECK(job.rooms[0].result == -ENOSPC && job.rooms[1].result == -ENOSPC);
    (void)redis_client_say(&client, "CONFIG SET maxmemory 0");
    CHECK(ask(JOB_APPEND, &job).status == 0);
    CHECK(holds("t:{a}:log", "a", 1, 5)); /* the connection went on */
    end();
}

/* Being fenced is final, so it is told before anything else. */
static void fence_is_told_before_a_full_redis(void)
{
    begin();
    CHECK(ask(JOB_CONNECT, NULL).status == 0);
    (void)redis_client_say(&client, "SET t:{b}:owner 99");
    (void)redis_client_say(&client, "CONFIG SET maxmemory 1");
    add("a", 1, 5);
    add("b", 1, 5);
    add("c", 1, 5);
    CHECK(ask(JOB_APPEND, &job).status == -ESTALE);
    CHECK(job.rooms[0].result == -ENOSPC && job.rooms[1].result == -ESTALE);
    end();
}

static void foreign_key_goes_out_of_the_way(void)
{
    begin();
    CHECK(ask(JOB_CONNECT, NULL).status == 0);
    (void)redis_client_say(&client, "SET t:{a}:log hello");
    add("a", 1, 5);
    CHECK(ask(JOB_APPEND, &job).status == 0);
    CHECK(holds("t:{a}:log", "a", 1, 5));
    end();
}

static void wrong_options_are_told_when_it_opens(void)
{
    char why[512] = "";
    const struct worker_options worker = asker_worker(&asker, "append");
    struct cache_options cache = {
        .url = "redis:/nonsense", .ca_file = "", .prefix = "", .connect_ms = 1, .reply_ms = 1};

    mem_init(&plan, "test", MEM_MAP);
    CHECK(appender_open(&appender, &cache, &worker, &plan, why, sizeof(why)) == -EINVAL);
    CHECK(why[0] != '\0' && appender.worker.ring == NULL);
    mem_end(&plan);

    mem_init(&plan, "test", MEM_COUNT);
    cache.url = "redis://127.0.0.1";
    CHECK(appender_open(&appender, &cache, &worker, &plan, why, sizeof(why)) == 0);
    CHECK(plan.total > 2 * (size_t)JOB_RIG_RING && appender.worker.ring == NULL);
    appender_close(&appender);
    mem_end(&plan);
}

int main(void)
{
    asker_open(&asker);
    records_get_into_their_lists_in_order();
    full_job_keeps_every_result_with_its_room();
    nothing_is_appended_before_a_connection_is_asked_for();
    restart_of_redis_is_told_once();
    redis_that_stands_still_is_given_up_in_time();
    full_redis_is_told_apart();
    fence_is_told_before_a_full_redis();
    foreign_key_goes_out_of_the_way();
    wrong_options_are_told_when_it_opens();
    asker_close(&asker);
    puts("9 passed, 0 failed");
    return 0;
}
