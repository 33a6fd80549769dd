/*
 * redis_rig.h - a real redis-server of a test's own, in a directory of the test's own, on free
 *               ports, and a connection to give it orders. It dies with the test.
 */
#pragma once

#include "core/check.h"
#include "core/mem.h"
#include "persist/redis.h"
#include "tests/persist/store_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { RIG_WORDS_MAX = 48, RIG_CONNECT_MS = 2000, RIG_REPLY_MS = 3000, RIG_START_MS = 15000 };

struct redis_rig {
    pid_t pid; /* 0: does not run */
    uint32_t port;
    uint32_t tls_port;
    char directory[PATH_MAX];
    char url[128];
    char socket[PATH_MAX + 16]; /* path of its Unix socket */
};

static inline uint64_t rig_now_ms(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline struct sockaddr_in rig_loopback(uint32_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* A port that was free a moment ago. */
static inline uint32_t rig_free_port(void)
{
    struct sockaddr_in address = rig_loopback(0);
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (const struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    CHECK(close(fd) == 0);
    return ntohs(address.sin_port);
}

/* Runs a program to its end, or leaves it to run: its pid. Its output goes to a file "log" in
 * directory. */
static inline pid_t rig_spawn(const char *directory, char *const *words)
{
    char log[PATH_MAX + 8];
    const pid_t parent = getpid();
    const pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    CHECK(words[0] != NULL);
    (void)snprintf(log, sizeof(log), "%s/log", directory);
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && fd >= 0 &&
        dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0) {
        (void)execvp(words[0], words);
    }
    _exit(127);
}

static inline void rig_run(const char *directory, char *const *words)
{
    int status = 0;
    const pid_t pid = rig_spawn(directory, words);

    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline bool rig_listens(uint32_t port)
{
    const struct sockaddr_in address = rig_loopback(port);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    const bool listens = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
    CHECK(close(fd) == 0);
    return listens;
}

/* Starts a server that keeps nothing on disk; options: more words for its command line, split at
 * blanks. The ports stay the same over restarts. */
static inline void redis_rig_start(struct redis_rig *rig, const char *options)
{
    static char text[8 * PATH_MAX];
    char *words[RIG_WORDS_MAX + 1] = {NULL};
    char *rest = text;
    int count = 0;

    if (rig->port == 0) {
        rig->port = rig_free_port();
    }
    (void)snprintf(rig->url, sizeof(rig->url), "redis://127.0.0.1:%u", rig->port);
    (void)snprintf(rig->socket, sizeof(rig->socket), "%s/socket", rig->directory);
    (void)snprintf(text, sizeof(text),
                   "redis-server --port %u --bind 127.0.0.1 --dir %s --unixsocket %s --save  "
                   "--appendonly no --daemonize no %s",
                   rig->port, rig->directory, rig->socket, options);
    for (char *word = strsep(&rest, " "); word != NULL; word = strsep(&rest, " ")) {
        CHECK(count < RIG_WORDS_MAX);
        words[count++] = word; /* an empty word is the value of --save */
    }
    words[count - (words[count - 1][0] == 0)] = NULL;
    rig->pid = rig_spawn(rig->directory, words);
    for (const uint64_t end = rig_now_ms() + RIG_START_MS; !rig_listens(rig->port);) {
        CHECK(rig_now_ms() < end);
        CHECK(waitpid(rig->pid, NULL, WNOHANG) == 0); /* else see the log in the directory */
        CHECK(usleep(5000) == 0);
    }
}

/* kill -9, and it is gone when this returns. */
static inline void redis_rig_kill(struct redis_rig *rig)
{
    CHECK(kill(rig->pid, SIGKILL) == 0);
    CHECK(waitpid(rig->pid, NULL, 0) == rig->pid);
    rig->pid = 0;
}

static inline void redis_rig_open(struct redis_rig *rig, const char *options)
{
    char directory[RIG_PATH_BYTES];

    *rig = (struct redis_rig){0};
    rig_make(directory);
    CHECK(realpath(directory, rig->directory) != NULL);
    redis_rig_start(rig, options);
}

static inline void redis_rig_close(struct redis_rig *rig)
{
    char name[RIG_PATH_BYTES];

    redis_rig_kill(rig);
    CHECK(strlen(rig->directory) < sizeof(name));
    memcpy(name, rig->directory, strlen(rig->directory) + 1);
    rig_remove(name);
}

/* --- a connection for orders --- */

struct redis_client {
    struct mem_plan plan;
    struct redis *redis;
};

static inline void redis_client_open(struct redis_client *client, const char *url,
                                     const char *ca_file)
{
    char why[512] = "";

    mem_init(&client->plan, "test", MEM_MAP);
    const struct redis_options options = {.url = url,
                                          .ca_file = ca_file,
                                          .connect_ms = RIG_CONNECT_MS,
                                          .reply_ms = RIG_REPLY_MS,
                                          .plan = &client->plan};
    CHECK(redis_open(&options, &client->redis, why, sizeof(why)) == 0);
    CHECK(mem_seal(&client->plan) == 0);
}

static inline void redis_client_close(struct redis_client *client)
{
    redis_close(client->redis);
    mem_end(&client->plan);
}

/* A command, split at blanks; its reply must be no error. */
static inline struct redis_reply redis_client_say(struct redis_client *client, const char *text)
{
    struct slice words[RIG_WORDS_MAX];
    struct redis_reply reply;
    uint32_t count = 0;

    for (const char *at = text; *at != 0;) {
        const size_t size = strcspn(at, " ");
        CHECK(count < RIG_WORDS_MAX);
        words[count++] = (struct slice){at, (uint32_t)size};
        at += size + (at[size] == ' ');
    }
    const int error = redis_command(client->redis, count, words, &reply);
    if (error < 0 || reply.type == REDIS_ERROR) {
        (void)fprintf(stderr, "%s: %d %s %.*s\n", text, error, redis_why(client->redis),
                      error < 0 ? 0 : (int)reply.text.size, error < 0 ? "" : reply.text.data);
    }
    CHECK(error == 0);
    CHECK(reply.type != REDIS_ERROR);
    return reply;
}

/* The reply is this text, or this integer. */
static inline bool redis_client_gets(struct redis_client *client, const char *text,
                                     const char *expected)
{
    const struct redis_reply reply = redis_client_say(client, text);
    char number[24];

    (void)snprintf(number, sizeof(number), "%lld", (long long)reply.integer);
    return slice_equal(reply.type == REDIS_INTEGER ? rig_slice(number) : reply.text,
                       rig_slice(expected));
}
