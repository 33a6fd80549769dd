/* setup.c - see setup.h. */
#include "bench/setup.h"

#include "bench/scenario.h"
#include "core/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    OPENING_MAX = 128,       /* connections on their way at once: well below any listen backlog */
    CONNECT_TIMEOUT_S = 120, /* for all of them */
    SETTLE_TIMEOUT_S = 20,
    DESCRIPTORS_OTHER = 64, /* beside the clients' sockets */
};

static const uint64_t second_ns = 1000000000;

/* Says it once; the first problem is the cause, what follows is its consequence. */
__attribute__((format(printf, 3, 4))) static int say(char *problem, int result, const char *format,
                                                     ...)
{
    va_list arguments;

    if (problem[0] == '\0') {
        va_start(arguments, format);
        (void)vsnprintf(problem, SCENARIO_PROBLEM_BYTES, format, arguments);
        va_end(arguments);
    }
    return result;
}

static int raise_descriptors(uint32_t connections, char *problem)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return -errno;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (connections + DESCRIPTORS_OTHER > limit.rlim_max) {
        return say(problem, -EMFILE,
                   "%u connections need %u file descriptors, the limit is %" PRIu64
                   "; raise it with ulimit -Hn",
                   connections, connections + DESCRIPTORS_OTHER, (uint64_t)limit.rlim_max);
    }
    return 0;
}

static int sign_tokens(struct setup *setup, char *problem)
{
    const int64_t now_s = (int64_t)time(NULL);
    const char *const path = setup->options->key;
    int result = token_key_read(path, &setup->key);

    if (result == -EBADMSG) {
        return say(problem, result, "%s is not a key file: one line of 64 hex characters", path);
    }
    if (result < 0) {
        return say(problem, result, "cannot read the key %s: %s; give --key DATA/jwt.key", path,
                   strerrordesc_np(-result));
    }
    for (uint32_t i = 0; i < setup->clients.count; i++) {
        result =
            token_sign(&setup->key, i, now_s,
                       setup->clients.tokens + (size_t)i * CLIENT_TOKEN_BYTES, CLIENT_TOKEN_BYTES);
        if (result < 0) {
            return say(problem, result, "cannot sign a token: %s", strerrordesc_np(-result));
        }
    }
    return 0;
}

static const char *token_of(const struct setup *setup, uint32_t client)
{
    return setup->clients.tokens + (size_t)client * CLIENT_TOKEN_BYTES;
}

static int post(const struct setup *setup, uint32_t client, const char *path, const char *body,
                char *dst, size_t capacity)
{
    const int size =
        snprintf(dst, capacity,
                 "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                 path, setup->options->host, token_of(setup, client), strlen(body), body);

    return size > 0 && (size_t)size < capacity ? size : -ENOSPC;
}

struct call_context {
    struct setup *setup;
    char *problem;
};

static int room_request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct call_context *const c = context;
    const struct options *const options = c->setup->options;
    const char *const id = c->setup->clients.checker.rooms[call].id;
    char durability[48] = "";
    char body[256];

    if (options->durability != NULL) {
        (void)snprintf(durability, sizeof(durability), ",\"durability\":\"%s\"",
                       options->durability);
    }
    (void)snprintf(body, sizeof(body),
                   "{\"room_id\":\"%s\",\"name\":\"%s\",\"visibility\":\"public\"%s}", id, id,
                   durability);
    return post(c->setup, 0, "/v1/rooms", body, dst, capacity);
}

static int room_answer(void *context, uint32_t call, int status, struct slice body)
{
    const struct call_context *const c = context;

    if (status == 201 || status == 409) {
        return 0;
    }
    return say(c->problem, -EPROTO, "room %u: the server answered %d %.*s%s", call, status,
               (int)(body.size < 160 ? body.size : 160), body.data,
               status == 401 ? "; is --key this server's key?" : "");
}

static int member_request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct call_context *const c = context;
    char path[CHECKER_ROOM_ID_MAX + 32];

    (void)snprintf(path, sizeof(path), "/v1/rooms/%s/join",
                   c->setup->clients.checker.rooms[c->setup->clients.all[call].room].id);
    return post(c->setup, call, path, "{}", dst, capacity);
}

static int member_answer(void *context, uint32_t call, int status, struct slice body)
{
    const struct call_context *const c = context;

    if (status >= 200 && status < 300) {
        return 0;
    }
    return say(c->problem, -EPROTO, "joining user %u: the server answered %d %.*s", call, status,
               (int)(body.size < 160 ? body.size : 160), body.data);
}

static int run_calls(struct setup *setup, const struct rest_calls *calls, char *problem)
{
    const int result = rest_run(&setup->rest, calls);

    if (result < 0) {
        return say(problem, result, "cannot reach the server at %s: %s", setup->options->url,
                   strerrordesc_np(-result));
    }
    return 0;
}

static int make_rooms(struct setup *setup, char *problem)
{
    struct call_context context = {setup, problem};
    const struct rest_calls calls = {setup->clients.room_count, &context, room_request,
                                     room_answer};

    return run_calls(setup, &calls, problem);
}

int setup_members(struct setup *setup, char *problem)
{
    struct call_context context = {setup, problem};
    const struct rest_calls calls = {setup->clients.count, &context, member_request, member_answer};
    const int result = run_calls(setup, &calls, problem);

    rest_close(&setup->rest);
    return result;
}

struct last_seq_context {
    struct setup *setup;
    char *problem;
    uint32_t room;
    uint64_t seq;
};

static int history_request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct last_seq_context *const c = context;
    const int size = snprintf(dst, capacity,
                              "GET /v1/rooms/%s/messages?limit=1 HTTP/1.1\r\nHost: %s\r\n"
                              "Authorization: Bearer %s\r\n\r\n",
                              c->setup->clients.checker.rooms[c->room].id, c->setup->options->host,
                              token_of(c->setup, call));

    return size > 0 && (size_t)size < capacity ? size : -ENOSPC;
}

static int history_answer(void *context, uint32_t call, int status, struct slice body)
{
    struct last_seq_context *const c = context;
    struct fields fields;

    (void)call;
    if (status != 200 || fields_scan(body.data, body.size, &fields) < 0 ||
        (fields.present & FIELDS_LAST_SEQ) == 0) {
        return say(c->problem, -EPROTO, "history: the server answered %d %.*s", status,
                   (int)(body.size < 160 ? body.size : 160), body.data);
    }
    c->seq = fields.last_seq;
    return 0;
}

int setup_last_seq(struct setup *setup, uint32_t room, uint64_t *ret_seq, char *problem)
{
    struct last_seq_context context = {setup, problem, room, 0};
    const struct rest_calls calls = {1, &context, history_request, history_answer};
    const int result = run_calls(setup, &calls, problem);

    if (result == 0) {
        *ret_seq = context.seq;
    }
    return result;
}

static struct checker_limits limits_of(const struct options *options, uint32_t messages)
{
    const char *const durability = options->durability != NULL ? options->durability : "fsync";
    struct checker_limits limits = {
        .rooms = options->rooms,
        .senders = options->connections,
        .text_size = options->size,
        .messages = messages,
        .durability = {durability, (uint32_t)strlen(durability)},
    };

    if (options->kind == SCENARIO_CLOSED) {
        limits.in_flight = options->rooms;
    } else if (options->kind == SCENARIO_ACKS) {
        limits.in_flight = options->senders * options->in_flight;
    }
    return limits;
}

int setup_begin(struct setup *setup, const struct options *options, uint32_t messages,
                char *problem)
{
    static uint32_t runs; /* of this process: each has rooms of its own */
    const bool join = options->kind != SCENARIO_CONNECT;

    *setup = (struct setup){.options = options};
    (void)snprintf(setup->room_prefix, sizeof(setup->room_prefix), "bench-%d-%" PRIx64 "-%u",
                   (int)getpid(), (uint64_t)time(NULL), runs++);
    const struct clients_plan plan = {
        .count = options->connections,
        .rooms = options->rooms,
        .join = join,
        .leave_after_join = options->kind == SCENARIO_ACKS,
        .room_prefix = setup->room_prefix,
        .host = options->host,
        .limits = limits_of(options, messages),
    };
    int result = raise_descriptors(options->connections, problem);
    if (result == 0 && clients_init(&setup->clients, &plan) < 0) {
        result = say(problem, -ENOMEM, "no memory for %u connections", options->connections);
    }
    if (result < 0) {
        return result;
    }
    rest_init(&setup->rest, &options->server);
    result = loadgen_init(&setup->loadgen, &setup->clients, &options->server);
    result = result == 0 ? sign_tokens(setup, problem) : result;
    result = result == 0 && join ? make_rooms(setup, problem) : result;
    if (result < 0) {
        setup_end(setup);
    }
    return result;
}

void setup_end(struct setup *setup)
{
    rest_close(&setup->rest);
    loadgen_free(&setup->loadgen);
    clients_free(&setup->clients);
}

static int open_some(struct setup *setup, uint32_t *opened, char *problem)
{
    struct clients *const clients = &setup->clients;

    while (*opened < clients->count &&
           *opened - clients->live - clients->closed < (uint32_t)OPENING_MAX) {
        const int result = loadgen_open(&setup->loadgen, &clients->all[*opened]);
        if (result < 0) {
            return say(problem, result, "cannot connect to %s: %s", setup->options->url,
                       strerrordesc_np(-result));
        }
        (*opened)++;
    }
    return 0;
}

/* Member events of the last joins are still on their way when everyone is live. */
static int settle(struct setup *setup, char *problem)
{
    struct clients *const clients = &setup->clients;
    const uint64_t until_ns = loadgen_now_ns() + SETTLE_TIMEOUT_S * second_ns;
    uint64_t missing = 1;

    while (missing > 0 && clients->closed == 0 && loadgen_now_ns() < until_ns) {
        const int result = loadgen_turn(&setup->loadgen, loadgen_now_ns() + second_ns / 50);
        if (result < 0) {
            return result;
        }
        missing = 0;
        for (uint32_t i = 0; i < clients->count && missing == 0; i++) {
            missing += checker_missing(&clients->checker, &clients->all[i].member);
        }
    }
    if (missing > 0 || clients->closed > 0) {
        return say(problem, -ETIMEDOUT,
                   "members did not get the events of each other's joining%s%s",
                   clients->problem[0] != '\0' ? ": " : "", clients->problem);
    }
    return 0;
}

int setup_connect(struct setup *setup, char *problem)
{
    struct clients *const clients = &setup->clients;
    const uint64_t until_ns = loadgen_now_ns() + CONNECT_TIMEOUT_S * second_ns;
    uint32_t opened = 0;
    int result = 0;

    while (result == 0 && clients->live < clients->count) {
        result = open_some(setup, &opened, problem);
        if (result == 0) {
            result = loadgen_turn(&setup->loadgen, loadgen_now_ns() + second_ns / 10);
        }
        if (result == 0 && clients->closed > 0) {
            return say(problem, -ECONNRESET, "%s", clients->problem);
        }
        if (result == 0 && loadgen_now_ns() > until_ns) {
            return say(problem, -ETIMEDOUT, "only %u of %u connections were ready after %d s",
                       clients->live, clients->count, CONNECT_TIMEOUT_S);
        }
    }
    return result == 0 ? settle(setup, problem) : result;
}
