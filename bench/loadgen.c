/* loadgen.c - see loadgen.h for the invariants O1 and O2 named below. */
#include "bench/loadgen.h"

#include "bench/reserve.h"
#include "core/check.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 256 << 10,  /* one receive, behind an unfinished frame */
    EVENTS_MAX = 64,           /* of one turn */
    PORTS_PER_ADDRESS = 20000, /* of the 28,232 ephemeral ones of one source address */
    RECEIVES_MAX = 1024,       /* of one client and turn: 256 MiB, more than a socket holds */
    TURN_NS_MAX = 1000000000,  /* a turn ends after a second even if nothing happens */
};

/* Linux 4.2, linux/in.h: the port is chosen at connect, when the whole 4-tuple is known. */
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

uint64_t loadgen_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

int loadgen_init(struct loadgen *loadgen, struct clients *clients, const struct sockaddr_in *server)
{
    *loadgen = (struct loadgen){.clients = clients, .server = *server};
    loadgen->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loadgen->epoll < 0) {
        return -errno;
    }
    loadgen->buffer = reserve_zeroed(CLIENT_INPUT_BYTES + BUFFER_BYTES);
    loadgen->dirty = reserve_zeroed(clients->count * sizeof(uint32_t));
    return loadgen->buffer == NULL || loadgen->dirty == NULL ? -ENOMEM : 0;
}

void loadgen_free(struct loadgen *loadgen)
{
    struct clients *const clients = loadgen->clients;

    for (uint32_t i = 0; i < clients->count; i++) {
        loadgen_close(loadgen, &clients->all[i]);
    }
    reserve_release(loadgen->buffer, CLIENT_INPUT_BYTES + BUFFER_BYTES);
    reserve_release(loadgen->dirty, clients->count * sizeof(uint32_t));
    if (loadgen->epoll >= 0) {
        (void)close(loadgen->epoll);
    }
}

/* Beyond one address's ports the next loopback address is the source. */
static int bind_source(const struct loadgen *loadgen, const struct client *client, int fd)
{
    const uint32_t block = client->index / PORTS_PER_ADDRESS;
    const int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};

    if (block == 0 || ntohl(loadgen->server.sin_addr.s_addr) >> 24 != 127) {
        return 0;
    }
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + block % 250);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof(yes)) < 0 ||
        bind(fd, (const struct sockaddr *)&source, sizeof(source)) < 0) {
        return -errno;
    }
    return 0;
}

static int open_socket(const struct loadgen *loadgen, const struct client *client)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    const int yes = 1;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    int result = bind_source(loadgen, client, fd);
    if (result == 0 &&
        (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0 ||
         setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) < 0 ||
         (connect(fd, (const struct sockaddr *)&loadgen->server, sizeof(loadgen->server)) < 0 &&
          errno != EINPROGRESS))) {
        result = -errno;
    }
    if (result < 0) {
        (void)close(fd);
        return result;
    }
    return fd;
}

int loadgen_open(struct loadgen *loadgen, struct client *client)
{
    /* Edge-triggered: the level-triggered kind polls every socket once more after each receive,
     * which was a tenth of the loader's time. A receive that did not fill the buffer has emptied
     * the socket, and whatever comes after it is a new edge. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u32 = client->index};
    const int fd = open_socket(loadgen, client);

    if (fd < 0) {
        return fd;
    }
    if (epoll_ctl(loadgen->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        const int error = -errno;
        (void)close(fd);
        return error;
    }
    client_start(loadgen->clients, client, fd, loadgen_now_ns());
    loadgen_touch(loadgen, client);
    return 0;
}

void loadgen_close(struct loadgen *loadgen, struct client *client)
{
    if (client->fd >= 0) {
        (void)close(client->fd);
        client->fd = -1;
        client_close(loadgen->clients, client); /* O2 */
    }
}

void loadgen_touch(struct loadgen *loadgen, struct client *client)
{
    if (!client->dirty && !client->blocked && client_pending(client) > 0) {
        client->dirty = true; /* O1 */
        CHECK(loadgen->dirty_count < loadgen->clients->count);
        loadgen->dirty[loadgen->dirty_count++] = client->index;
    }
}

static void fail(struct loadgen *loadgen, struct client *client, const char *what, int error)
{
    clients_problem(loadgen->clients, "client %u: %s: %s", client->index, what,
                    error == 0 ? "the server ended the connection" : strerrordesc_np(error));
    loadgen_close(loadgen, client);
}

static void flush(struct loadgen *loadgen, struct client *client)
{
    const uint32_t pending = client_pending(client);

    if (pending == 0) {
        return;
    }
    const ssize_t sent =
        send(client->fd, client->output + client->output_sent, pending, MSG_NOSIGNAL);
    /* ENOTCONN: the connection is not through yet; EPOLLOUT will tell. */
    if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOTCONN) {
        fail(loadgen, client, client->state == CLIENT_UPGRADING ? "connect" : "send", errno);
        return;
    }
    client->output_sent += sent < 0 ? 0 : (uint32_t)sent;
    client->blocked = client_pending(client) > 0; /* O1 */
}

static void flush_dirty(struct loadgen *loadgen)
{
    for (uint32_t i = 0; i < loadgen->dirty_count; i++) {
        struct client *const client = &loadgen->clients->all[loadgen->dirty[i]];
        client->dirty = false;
        if (client->fd >= 0) {
            flush(loadgen, client);
        }
    }
    loadgen->dirty_count = 0;
}

/* One receive. An unfinished frame of the last one is put before it, so that frames are whole. True
 * if there may be more. */
static bool receive(struct loadgen *loadgen, struct client *client)
{
    uint8_t *const buffer = loadgen->buffer;
    const uint32_t before = client->input_size;

    memcpy(buffer, client->input, before);
    const ssize_t size = recv(client->fd, buffer + before, BUFFER_BYTES, 0);
    if (size <= 0) {
        if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
            fail(loadgen, client, "receive", size == 0 ? 0 : errno);
        }
        return size < 0 && errno == EINTR;
    }
    loadgen->received_bytes += (uint64_t)size;
    loadgen->received_calls++;
    const size_t whole = before + (size_t)size;
    const int64_t used = client_input(loadgen->clients, client, buffer, whole, loadgen_now_ns());
    if (used < 0 || whole - (size_t)used > CLIENT_INPUT_BYTES) {
        clients_problem(loadgen->clients, "client %u: a frame of more than %d bytes", client->index,
                        CLIENT_INPUT_BYTES);
        loadgen_close(loadgen, client);
        return false;
    }
    client->input_size = (uint32_t)(whole - (size_t)used);
    memcpy(client->input, buffer + used, client->input_size);
    loadgen_touch(loadgen, client);
    return size == BUFFER_BYTES;
}

/* Receives until the socket is empty, or is at its end if the event says that there is one. At most
 * RECEIVES_MAX times, which no socket buffer exceeds. */
static void receive_all(struct loadgen *loadgen, struct client *client, bool ended)
{
    bool more = true;

    for (int i = 0; i < RECEIVES_MAX && client->fd >= 0 && more; i++) {
        more = receive(loadgen, client) || ended;
    }
}

int loadgen_turn(struct loadgen *loadgen, uint64_t until_ns)
{
    struct epoll_event events[EVENTS_MAX];

    flush_dirty(loadgen);
    const uint64_t now_ns = loadgen_now_ns();
    uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    wait_ns = wait_ns < TURN_NS_MAX ? wait_ns : TURN_NS_MAX;
    const struct timespec timeout = {(time_t)(wait_ns / 1000000000), (long)(wait_ns % 1000000000)};
    const int count = epoll_pwait2(loadgen->epoll, events, EVENTS_MAX, &timeout, NULL);
    if (count < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    for (int i = 0; i < count; i++) {
        struct client *const client = &loadgen->clients->all[events[i].data.u32];
        const uint32_t what = events[i].events;
        if (client->fd >= 0 && client->blocked && (what & EPOLLOUT) != 0) {
            flush(loadgen, client);
        }
        if (client->fd >= 0 && (what & (EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0) {
            receive_all(loadgen, client, (what & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0);
        }
    }
    return 0;
}
