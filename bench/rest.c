/* rest.c - see rest.h. */
#include "bench/rest.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void rest_init(struct rest *rest, const struct sockaddr_in *server)
{
    rest->server = *server;
    for (int i = 0; i < REST_LANES; i++) {
        rest->fds[i] = -1;
    }
}

void rest_close(struct rest *rest)
{
    for (int i = 0; i < REST_LANES; i++) {
        if (rest->fds[i] >= 0) {
            (void)close(rest->fds[i]);
            rest->fds[i] = -1;
        }
    }
}

static int lane_open(struct rest *rest, uint32_t lane)
{
    const struct timeval limit = {.tv_sec = REST_TIMEOUT_S};
    const int yes = 1;

    if (rest->fds[lane] >= 0) {
        return 0;
    }
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) < 0 ||
        connect(fd, (const struct sockaddr *)&rest->server, sizeof(rest->server)) < 0) {
        const int error = -errno;
        (void)close(fd);
        return error;
    }
    rest->fds[lane] = fd;
    return 0;
}

static int lane_ask(struct rest *rest, uint32_t lane, const struct rest_calls *calls, uint32_t call)
{
    char request[REST_REQUEST_MAX];
    int result = lane_open(rest, lane);

    if (result < 0) {
        return result;
    }
    const int size = calls->request(calls->context, call, request, sizeof(request));
    if (size < 0) {
        return size;
    }
    for (int sent = 0; sent < size; sent += result) {
        result = (int)send(rest->fds[lane], request + sent, (size_t)(size - sent), MSG_NOSIGNAL);
        if (result <= 0) {
            return result < 0 ? -errno : -EPIPE;
        }
    }
    return 0;
}

/* Size of the body by Content-Length, 0 without one, -EPROTO if it makes no sense. */
static int64_t body_size(const char *head, const char *end)
{
    static const char name[] = "\r\nContent-Length:";

    for (const char *at = head; at + sizeof(name) < end; at++) {
        if (strncasecmp(at, name, sizeof(name) - 1) == 0) {
            const long long size = strtoll(at + sizeof(name) - 1, NULL, 10);
            return size >= 0 && size < REST_ANSWER_MAX ? size : -EPROTO;
        }
    }
    return 0;
}

static int lane_answer(struct rest *rest, uint32_t lane, const struct rest_calls *calls,
                       uint32_t call)
{
    static char answer[REST_ANSWER_MAX + 1];
    size_t size = 0;

    while (size < REST_ANSWER_MAX) {
        const ssize_t got = recv(rest->fds[lane], answer + size, REST_ANSWER_MAX - size, 0);
        if (got <= 0) {
            return got == 0 ? -ECONNRESET : errno == EAGAIN ? -ETIMEDOUT : -errno;
        }
        size += (size_t)got;
        answer[size] = '\0';
        char *const blank = strstr(answer, "\r\n\r\n");
        if (blank == NULL) {
            continue;
        }
        int status = 0;
        const size_t head = (size_t)(blank - answer) + 4;
        const int64_t body = body_size(answer, blank + 2);
        if (body < 0 || sscanf(answer, "HTTP/1.1 %d", &status) != 1) {
            return -EPROTO;
        }
        if (size >= head + (size_t)body) {
            return calls->answer(calls->context, call, status,
                                 (struct slice){answer + head, (uint32_t)body});
        }
    }
    return -EPROTO;
}

int rest_run(struct rest *rest, const struct rest_calls *calls)
{
    int result = 0;

    for (uint32_t first = 0; first < calls->count && result == 0; first += REST_LANES) {
        const uint32_t left = calls->count - first;
        const uint32_t lanes = left < REST_LANES ? left : REST_LANES;
        for (uint32_t lane = 0; lane < lanes && result == 0; lane++) {
            result = lane_ask(rest, lane, calls, first + lane);
        }
        for (uint32_t lane = 0; lane < lanes && result == 0; lane++) {
            result = lane_answer(rest, lane, calls, first + lane);
        }
    }
    return result;
}
