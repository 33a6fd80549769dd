/* persist_server.c - see persist_server.h. */
#include "bench/persist_server.h"

#include "core/os.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    START_TIMEOUT_S = 30,
    STOP_TIMEOUT_S = 60, /* it stores what is left: a backlog of the highest rates too */
    SETTLE_STEP_NS = 20000000,
    TAIL_BYTES = 600, /* of its log, in a problem */
};

/* --- process --- */

/* The end of its log as one line. */
static void read_tail(const char *path, char dst[TAIL_BYTES + 1])
{
    FILE *const file = fopen(path, "re");
    size_t size = 0;

    if (file != NULL) {
        if (fseek(file, -TAIL_BYTES, SEEK_END) < 0) {
            rewind(file);
        }
        size = fread(dst, 1, TAIL_BYTES, file);
        (void)fclose(file);
    }
    dst[size] = '\0';
}

static int fail(struct persist_server *server, int error, struct persist_figures *figures)
{
    char tail[TAIL_BYTES + 1];

    read_tail(server->log, tail);
    (void)persist_server_stop(server);
    return persist_figures_say(figures, error, "damsod did not get ready (%s): %s",
                               error == -ESRCH ? "it ended" : strerrordesc_np(-error), tail);
}

static int write_config(const char *path, const char *text)
{
    FILE *const file = fopen(path, "we");

    if (file == NULL) {
        return -errno;
    }
    const bool written = fputs(text, file) >= 0;
    return fclose(file) == 0 && written ? 0 : -EIO;
}

/* damsod as named, or beside this program. */
static int find_damsod(const struct options *options, char path[PERSIST_SERVER_PATH])
{
    if (options->damsod != NULL) {
        (void)snprintf(path, PERSIST_SERVER_PATH, "%s", options->damsod);
        return 0;
    }
    const ssize_t size = readlink("/proc/self/exe", path, PERSIST_SERVER_PATH - 16);
    if (size < 0) {
        return -errno;
    }
    path[size] = '\0';
    char *const name = strrchr(path, '/') + 1;
    memcpy(name, "damsod", sizeof("damsod"));
    return 0;
}

/* Where it listens, and a token for its one user. */
static int take_address(struct persist_server *server)
{
    const char *const colon = strrchr(server->url, ':');
    const long port = colon != NULL ? strtol(colon + 1, NULL, 10) : 0;

    if (port <= 0 || port > UINT16_MAX) {
        return -EPROTO;
    }
    server->options.server = (struct sockaddr_in){.sin_family = AF_INET,
                                                  .sin_port = htons((uint16_t)port),
                                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    (void)snprintf(server->options.host, sizeof(server->options.host), "127.0.0.1:%ld", port);
    server->options.url = server->url;
    server->options.key = server->key;
    server->options.pid = (int)server->child.pid;
    rest_init(&server->rest, &server->options.server);

    struct token_key key;
    const int result = token_key_read(server->key, &key);
    if (result < 0) {
        return result;
    }
    const int size = token_sign(&key, 0, (int64_t)time(NULL), server->token, sizeof(server->token));
    return size < 0 ? size : 0;
}

static int warm_up(struct persist_server *server, struct persist_figures *figures);

int persist_server_start(struct persist_server *server, const struct options *options,
                         const char *directory, const char *config, struct persist_figures *figures)
{
    char damsod[PERSIST_SERVER_PATH] = "";
    char conf[PERSIST_SERVER_PATH];
    char data[PERSIST_SERVER_PATH];
    const char *const words[] = {damsod,     "--port", "0",        "--data", data,
                                 "--shards", "1",      "--config", conf,     NULL};

    *server = (struct persist_server){.options = *options};
    (void)snprintf(conf, sizeof(conf), "%.400s/damsod.conf", directory);
    (void)snprintf(data, sizeof(data), "%.400s/data", directory);
    (void)snprintf(server->key, sizeof(server->key), "%.400s/data/jwt.key", directory);
    (void)snprintf(server->log, sizeof(server->log), "%.400s/damsod.log", directory);
    int result = find_damsod(options, damsod);
    if (result == 0 && access(damsod, X_OK) < 0) {
        result = -errno;
    }
    if (result < 0) {
        return persist_figures_say(figures, result, "%s: %s; give --damsod FILE", damsod,
                                   strerrordesc_np(-result));
    }
    result = write_config(conf, config);
    result = result == 0 ? persist_child_start(&server->child, words, server->log) : result;
    if (result == 0) {
        result = persist_child_line(&server->child, "damsod: ready at ", START_TIMEOUT_S,
                                    server->url, sizeof(server->url));
    }
    result = result == 0 ? take_address(server) : result;
    if (result < 0) {
        return fail(server, result, figures);
    }
    result = warm_up(server, figures);
    if (result < 0) {
        (void)persist_server_stop(server);
    }
    return result;
}

int persist_server_stop(struct persist_server *server)
{
    if (server->child.pid == 0) {
        return 0;
    }
    rest_close(&server->rest);
    return persist_child_stop(&server->child, STOP_TIMEOUT_S);
}

int persist_server_metrics(const struct persist_server *server, struct persist_metrics *ret,
                           struct persist_figures *figures)
{
    const int result = persist_metrics_read(&server->options.server, server->options.host, ret);

    return result < 0 ? persist_figures_say(figures, result, "damsod's /metrics: %s",
                                            strerrordesc_np(-result))
                      : 0;
}

/* Nothing in the journal, or in Redis, that the store does not have. A shard counts its own journal
 * when it has something to do, and the reading of the metrics is that. */
static bool is_settled(const struct persist_metrics *metrics)
{
    return !(persist_metrics_value(metrics, "journal_backlog_bytes") > 0) &&
           !(persist_metrics_value(metrics, "persist_pending_messages") > 0);
}

double persist_server_settle(const struct persist_server *server, double timeout_s,
                             struct persist_figures *figures)
{
    static struct persist_metrics metrics;
    const uint64_t begin_ns = os_now_ns();
    double seconds = 0;

    while (seconds < timeout_s && !persist_figures_ending()) {
        const int result = persist_server_metrics(server, &metrics, figures);
        seconds = (double)(os_now_ns() - begin_ns) / 1e9;
        if (result < 0) {
            return result;
        }
        if (is_settled(&metrics)) {
            return seconds;
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = SETTLE_STEP_NS}, NULL);
    }
    return -ETIMEDOUT;
}

/* --- rooms and messages --- */

struct filling {
    struct persist_server *server;
    const char *room;
    struct persist_figures *figures;
    uint32_t size;
};

static int post(const struct persist_server *server, const char *path, const char *body, char *dst,
                size_t capacity)
{
    const int size = snprintf(dst, capacity,
                              "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"
                              "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                              path, server->options.host, server->token, strlen(body), body);

    return size > 0 && (size_t)size < capacity ? size : -ENOSPC;
}

static int room_request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct filling *const filling = context;
    char body[256];

    (void)call;
    (void)snprintf(body, sizeof(body),
                   "{\"room_id\":\"%s\",\"name\":\"%s\",\"visibility\":\"public\"}", filling->room,
                   filling->room);
    return post(filling->server, "/v1/rooms", body, dst, capacity);
}

static int message_request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct filling *const filling = context;
    char path[128];
    char body[1024];

    (void)snprintf(path, sizeof(path), "/v1/rooms/%s/messages", filling->room);
    (void)snprintf(body, sizeof(body), "{\"text\":\"%0*u\"}", (int)filling->size, call);
    return post(filling->server, path, body, dst, capacity);
}

static int made(void *context, uint32_t call, int status, struct slice body)
{
    const struct filling *const filling = context;

    if (status >= 200 && status < 300) {
        return 0;
    }
    return persist_figures_say(filling->figures, -EPROTO,
                               "request %u on %s: damsod answered %d %.*s", call, filling->room,
                               status, (int)(body.size < 160 ? body.size : 160), body.data);
}

static int made_or_there(void *context, uint32_t call, int status, struct slice body)
{
    return status == 409 ? 0 : made(context, call, status, body);
}

/* A room made before any load: the first writes to an empty database are refused for a moment when
 * several come at once, as clients are told (503), and the loader takes that for an error. */
static int warm_up(struct persist_server *server, struct persist_figures *figures)
{
    static struct persist_figures attempt;
    const uint64_t until_ns = os_now_ns() + (uint64_t)START_TIMEOUT_S * 1000000000;
    struct filling filling = {.server = server, .room = "first", .figures = &attempt};
    const struct rest_calls calls = {1, &filling, room_request, made_or_there};
    int result = -EAGAIN;

    while (result < 0 && os_now_ns() < until_ns && !persist_figures_ending()) {
        persist_figures_init(&attempt, "");
        result = rest_run(&server->rest, &calls);
        if (result < 0) {
            (void)nanosleep(&(struct timespec){.tv_nsec = SETTLE_STEP_NS}, NULL);
        }
    }
    return result < 0 ? persist_figures_say(figures, result, "%s", attempt.problem) : 0;
}

int persist_server_fill(struct persist_server *server, const char *room, uint32_t count,
                        uint32_t size, struct persist_figures *figures)
{
    struct filling filling = {server, room, figures, size < 512 ? size : 512};
    const struct rest_calls room_calls = {1, &filling, room_request, made};
    const struct rest_calls calls = {count, &filling, message_request, made};
    int result = rest_run(&server->rest, &room_calls);

    result = result == 0 ? rest_run(&server->rest, &calls) : result;
    return result < 0 ? persist_figures_say(figures, result, "filling %s: %s", room,
                                            strerrordesc_np(-result))
                      : 0;
}

/* --- pages --- */

struct paging {
    const struct persist_server *server;
    const char *room;
    uint64_t before_seq;
    uint32_t events;
    int status;
};

static int page_request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct paging *const paging = context;

    (void)call;
    return snprintf(dst, capacity,
                    "GET /v1/rooms/%s/messages?limit=%d&before_seq=%" PRIu64 " HTTP/1.1\r\n"
                    "Host: %s\r\nAuthorization: Bearer %s\r\n\r\n",
                    paging->room, PERSIST_SERVER_PAGE, paging->before_seq,
                    paging->server->options.host, paging->server->token);
}

static int page_answer(void *context, uint32_t call, int status, struct slice body)
{
    static const char key[] = "\"seq\":";
    struct paging *const paging = context;
    const char *at = body.data;

    (void)call;
    paging->status = status;
    while ((at = memmem(at, body.size - (size_t)(at - body.data), key, sizeof(key) - 1)) != NULL) {
        paging->events++;
        at += sizeof(key) - 1;
    }
    return 0;
}

int persist_server_page(struct persist_server *server, const char *room, uint64_t before_seq,
                        double *ret_ms, struct persist_figures *figures)
{
    struct paging paging = {.server = server, .room = room, .before_seq = before_seq};
    const struct rest_calls calls = {1, &paging, page_request, page_answer};
    const uint64_t begin_ns = os_now_ns();
    const int result = rest_run(&server->rest, &calls);

    if (result < 0) {
        return persist_figures_say(figures, result, "reading %s: %s", room,
                                   strerrordesc_np(-result));
    }
    if (paging.status != 200 || paging.events != PERSIST_SERVER_PAGE) {
        return persist_figures_say(
            figures, -EBADMSG, "reading %s before %" PRIu64 ": damsod answered %d, %u events of %d",
            room, before_seq, paging.status, paging.events, PERSIST_SERVER_PAGE);
    }
    *ret_ms = (double)(os_now_ns() - begin_ns) / 1e6;
    return 0;
}
