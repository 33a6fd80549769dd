/*
 * redis.c - see redis.h for the invariants R1 to R3 named below.
 *
 * Commands are composed straight into the output: hiredis' redisFormatCommandArgv would allocate
 * each, and they would be copied once more.
 *
 * The output is a line, not a ring: what is added lies at used, what is sent ends at sent. It
 * begins again at 0 when all is sent, at once or, between redis_keep and a full output, not at all.
 *
 *     0 ...... sent ...... used ...... REDIS_OUTPUT_BYTES        position of 0: base
 */
#include "persist/redis.h"

#include "core/os.h"
#include "persist/redis_reader.h"
#include "persist/redis_tls.h"
#include "persist/redis_url.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    INPUT_BYTES = 256 * 1024,
    ADDRESSES_MAX = 8,
    NAME_BYTES = 96,
    SIGN_IN_BYTES = 4096, /* longest user and password, and what stands around them */
};

struct redis {
    struct redis_url url;
    uint32_t connect_ms;
    uint32_t reply_ms;
    char name[NAME_BYTES]; /* for people */
    char why[REDIS_WHY_BYTES];

    int fd;               /* -1: closed */
    struct redis_tls tls; /* of rediss:// */
    bool tls_on;

    struct redis_reader reader;
    uint64_t awaited; /* replies */
    char *input;

    char *output;
    size_t used;
    size_t sent;
    uint64_t base;
    bool keeping;
};

static uint64_t now_ms(void)
{
    return os_now_ns() / 1000000;
}

/* --- what went wrong, in words --- */

__attribute__((format(printf, 3, 4))) static int fail(struct redis *redis, int error,
                                                      const char *format, ...)
{
    char text[REDIS_WHY_BYTES - NAME_BYTES - 2];
    va_list words;

    va_start(words, format);
    (void)vsnprintf(text, sizeof(text), format, words);
    va_end(words);
    (void)snprintf(redis->why, sizeof(redis->why), "%s: %s", redis->name, text);
    redis_disconnect(redis); /* R1 */
    return error;
}

const char *redis_why(const struct redis *redis)
{
    return redis->why;
}

int redis_say(struct redis *redis, int error, const char *what, struct slice text)
{
    const size_t secret = strlen(redis->url.password);
    char clean[REDIS_WHY_BYTES / 2];
    uint32_t size = 0;

    if (secret > 0 && memmem(text.data, text.size, redis->url.password, secret) != NULL) {
        text = SLICE("(the server's words have the password in them)"); /* R2 */
    }
    for (; size < text.size && size + 1 < sizeof(clean); size++) {
        const char c = text.data[size];
        clean[size] = (char)(c < ' ' || c > '~' ? ' ' : c);
    }
    clean[size] = 0;
    (void)snprintf(redis->why, sizeof(redis->why), "%s: %s%s%s", redis->name, what,
                   size > 0 ? ": " : "", clean);
    return error;
}

int redis_error(struct slice text)
{
    static const struct {
        const char *code;
        int error;
        bool anywhere; /* also inside of what 6.2 says of a script */
    } codes[] = {
        {"WRONGPASS", -EACCES, false},     {"NOAUTH", -EACCES, false},
        {"NOPERM", -EACCES, false},        {"DENIED", -EACCES, false},
        {"LOADING", -EAGAIN, false},       {"BUSY ", -EAGAIN, false},
        {"MASTERDOWN", -EAGAIN, false},    {"CLUSTERDOWN", -EAGAIN, false},
        {"NOREPLICAS", -EAGAIN, false},    {"ERR max number of clients", -EAGAIN, false},
        {"READONLY", -EROFS, false},       {"MISCONF", -EROFS, false},
        {"MOVED ", -ENOTSUP, false},       {"CROSSSLOT", -ENOTSUP, false},
        {"NOSCRIPT", -ENOEXEC, false},     {"OOM command not", -ENOSPC, true},
        {"WRONGTYPE", -EMEDIUMTYPE, true}, {"-READONLY", -EROFS, true},
        {"-NOREPLICAS", -EAGAIN, true},    {"-MISCONF", -EROFS, true},
    };

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        const size_t size = strlen(codes[i].code);
        if ((text.size >= size && memcmp(text.data, codes[i].code, size) == 0) ||
            (codes[i].anywhere && memmem(text.data, text.size, codes[i].code, size) != NULL)) {
            return codes[i].error;
        }
    }
    return -EIO;
}

/* --- opening --- */

static void name_it(struct redis *redis)
{
    const struct redis_url *url = &redis->url;

    if (url->scheme == REDIS_SCHEME_UNIX) {
        (void)snprintf(redis->name, sizeof(redis->name), "%.80s", url->host);
    } else {
        const bool six = strchr(url->host, ':') != NULL;
        (void)snprintf(redis->name, sizeof(redis->name), six ? "[%.80s]:%u" : "%.80s:%u", url->host,
                       url->port);
    }
}

/* Takes the memory, or NULL. In a MEM_COUNT plan it is counted only. */
static struct redis *reserve(struct mem_plan *plan)
{
    struct redis *redis = mem_alloc(plan, "redis connection", sizeof(*redis));
    char *output = mem_reserve(plan, "redis output", 1, REDIS_OUTPUT_BYTES);
    char *input = mem_reserve(plan, "redis input", 1, INPUT_BYTES);
    char *arena = mem_reserve(plan, "redis replies", 1, REDIS_ARENA_BYTES);

    if (redis == NULL || output == NULL || input == NULL || arena == NULL) {
        return NULL;
    }
    redis->output = output;
    redis->input = input;
    redis->reader.arena = arena;
    return redis;
}

int redis_open(const struct redis_options *options, struct redis **ret, char *ret_why,
               size_t why_size)
{
    struct redis_url url;

    if (options->plan->mode == MEM_COUNT) {
        *ret = reserve(options->plan);
        return 0;
    }
    if (redis_url_parse(options->url, &url, ret_why, why_size) < 0) {
        return -EINVAL;
    }
    struct redis *redis = reserve(options->plan);
    if (redis == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for a connection to Redis");
        return -ENOMEM;
    }
    redis->url = url;
    explicit_bzero(&url, sizeof(url));
    redis->connect_ms = options->connect_ms;
    redis->reply_ms = options->reply_ms;
    redis->fd = -1;
    name_it(redis);
    if (redis->url.scheme == REDIS_SCHEME_TLS) {
        const int error = redis_tls_open(&redis->tls, options->ca_file, ret_why, why_size);
        if (error < 0) {
            redis_close(redis);
            return error;
        }
    }
    *ret = redis;
    return 0;
}

void redis_close(struct redis *redis)
{
    if (redis == NULL) {
        return;
    }
    redis_disconnect(redis);
    redis_tls_close(&redis->tls);
    explicit_bzero(&redis->url, sizeof(redis->url));
}

bool redis_is_open(const struct redis *redis)
{
    return redis->fd >= 0;
}

void redis_disconnect(struct redis *redis)
{
    redis_tls_end(&redis->tls);
    redis->tls_on = false;
    redis_reader_end(&redis->reader);
    if (redis->fd >= 0) {
        (void)close(redis->fd);
        redis->fd = -1;
    }
    redis->used = 0;
    redis->sent = 0;
    redis->awaited = 0;
}

/* --- bytes --- */

/* Bytes read, 0 at the end, -EAGAIN none yet, or -errno. */
static ssize_t input_read(struct redis *redis)
{
    if (redis->tls_on) {
        return redis_tls_read(&redis->tls, redis->input, INPUT_BYTES);
    }
    const ssize_t got = recv(redis->fd, redis->input, INPUT_BYTES, 0);
    return got >= 0 ? got : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t output_write(struct redis *redis)
{
    const char *bytes = redis->output + redis->sent;
    const size_t size = redis->used - redis->sent;

    if (redis->tls_on) {
        return redis_tls_write(&redis->tls, bytes, size);
    }
    const ssize_t sent = send(redis->fd, bytes, size, MSG_NOSIGNAL);
    return sent >= 0 ? sent : errno == EINTR ? -EAGAIN : -errno;
}

/* Waits for events until the deadline: those that came, or -ETIMEDOUT. */
static int wait_for(struct redis *redis, short events, uint64_t deadline)
{
    const uint64_t now = now_ms();
    struct pollfd poll_fd = {.fd = redis->fd, .events = (short)(events | redis->tls.wants)};

    if (now >= deadline) {
        return -ETIMEDOUT;
    }
    const uint64_t left = deadline - now < INT32_MAX ? deadline - now : INT32_MAX;
    const int ready = poll(&poll_fd, 1, (int)left);
    if (ready < 0 && errno != EINTR) {
        return -errno;
    }
    return ready > 0 ? poll_fd.revents : 0; /* 0: the caller comes again, and then it is too late */
}

static int broken(struct redis *redis, ssize_t error)
{
    if (error == 0) {
        return fail(redis, -ECONNRESET, "the server closed the connection");
    }
    return fail(redis, (int)error, "%s", os_error((int)error));
}

static int unreadable(struct redis *redis, int error)
{
    if (error == -EMSGSIZE) {
        return fail(redis, error, "a reply of more than %d MiB or %d elements",
                    REDIS_REPLY_BYTES_MAX >> 20, REDIS_ELEMENTS_MAX);
    }
    return fail(redis, error,
                error == -EPROTO ? "what it answers is not Redis' protocol"
                                 : "no memory for a reply");
}

/* Takes what is there into the reader: its bytes, or 0 if there is nothing. */
static int fill(struct redis *redis)
{
    const ssize_t got = input_read(redis);

    if (got == -EAGAIN) {
        return 0;
    }
    if (got <= 0) {
        return broken(redis, got);
    }
    const int error = redis_reader_feed(&redis->reader, redis->input, (size_t)got);
    if (error < 0) {
        return unreadable(redis, error);
    }
    return (int)got;
}

int redis_send(struct redis *redis)
{
    const uint64_t end = now_ms() + (uint64_t)REDIS_PATIENCE * redis->reply_ms;
    uint64_t silence_end = now_ms() + redis->reply_ms;

    if (redis->fd < 0) {
        return -ENOTCONN;
    }
    while (redis->sent < redis->used) { /* until end at the latest */
        const ssize_t sent = output_write(redis);
        if (sent > 0) {
            redis->sent += (size_t)sent;
            silence_end = now_ms() + redis->reply_ms;
            continue;
        }
        if (sent != -EAGAIN) {
            return broken(redis, sent);
        }
        const int ready = wait_for(redis, POLLIN | POLLOUT, end < silence_end ? end : silence_end);
        if (ready < 0) {
            return fail(redis, ready, "the server takes no more commands");
        }
        if ((ready & POLLIN) != 0) {
            const int got = fill(redis);
            if (got < 0) {
                return got;
            }
        }
    }
    return 0;
}

int redis_reply(struct redis *redis, struct redis_reply *ret)
{
    if (redis->fd < 0) {
        return -ENOTCONN;
    }
    CHECK(redis->awaited > 0);
    const int error = redis->sent < redis->used ? redis_send(redis) : 0;
    if (error < 0) {
        return error;
    }
    const uint64_t end = now_ms() + (uint64_t)REDIS_PATIENCE * redis->reply_ms;
    uint64_t silence_end = now_ms() + redis->reply_ms;
    int taken = 0;

    while ((taken = redis_reader_take(&redis->reader, ret)) == 0) { /* until end at the latest */
        const int got = fill(redis);
        if (got < 0) {
            return got;
        }
        if (got > 0) {
            silence_end = now_ms() + redis->reply_ms;
        }
        const int ready = got > 0 && now_ms() < end
                              ? 0
                              : wait_for(redis, POLLIN, end < silence_end ? end : silence_end);
        if (ready < 0) {
            return fail(redis, ready, "no reply within %u ms", redis->reply_ms);
        }
    }
    if (taken < 0) {
        return unreadable(redis, taken);
    }
    redis->awaited--;
    return 0;
}

/* --- commands --- */

/* Adds bytes to the output; sends when it is full. */
static int put(struct redis *redis, const char *bytes, size_t size)
{
    while (size > 0) {
        const size_t room = REDIS_OUTPUT_BYTES - redis->used;
        const size_t part = size < room ? size : room;
        memcpy(redis->output + redis->used, bytes, part);
        redis->used += part;
        bytes += part;
        size -= part;
        if (size > 0) {
            const int error = redis_send(redis);
            if (error < 0) {
                return error;
            }
            redis->base += redis->used;
            redis->used = 0;
            redis->sent = 0;
            redis->keeping = false;
        }
    }
    return 0;
}

/* A line of RESP: a type, a number, CR LF. */
static int put_number(struct redis *redis, char type, uint32_t number)
{
    char line[16];
    size_t begin = sizeof(line);

    line[--begin] = '\n';
    line[--begin] = '\r';
    do {
        line[--begin] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    line[--begin] = type;
    return put(redis, line + begin, sizeof(line) - begin);
}

static int put_word(struct redis *redis, struct slice word)
{
    int error = put_number(redis, '$', word.size);

    if (error == 0) {
        error = put(redis, word.data, word.size);
    }
    return error == 0 ? put(redis, "\r\n", 2) : error;
}

int redis_add(struct redis *redis, uint32_t count, const struct slice *words)
{
    if (redis->fd < 0) {
        return -ENOTCONN;
    }
    if (!redis->keeping && redis->sent == redis->used) {
        redis->base += redis->used;
        redis->used = 0;
        redis->sent = 0;
    }
    int error = put_number(redis, '*', count);
    for (uint32_t i = 0; i < count && error == 0; i++) {
        error = put_word(redis, words[i]);
    }
    redis->awaited += error == 0;
    return error;
}

size_t redis_pending_bytes(const struct redis *redis)
{
    return redis->used - redis->sent;
}

void redis_keep(struct redis *redis)
{
    if (redis->sent == redis->used) {
        redis->base += redis->used;
        redis->used = 0;
        redis->sent = 0;
    }
    redis->keeping = true;
}

uint64_t redis_position(const struct redis *redis)
{
    return redis->base + redis->used;
}

int redis_repeat(struct redis *redis, uint64_t position, uint64_t end)
{
    CHECK(position < end);
    CHECK(end <= redis_position(redis));
    const size_t size = (size_t)(end - position);

    if (position < redis->base || size > REDIS_OUTPUT_BYTES - redis->used) {
        return -ENOENT;
    }
    memcpy(redis->output + redis->used, redis->output + (position - redis->base), size);
    redis->used += size;
    redis->awaited++;
    return 0;
}

int redis_command(struct redis *redis, uint32_t count, const struct slice *words,
                  struct redis_reply *ret)
{
    const int error = redis_add(redis, count, words);
    return error < 0 ? error : redis_reply(redis, ret);
}

/* --- connecting --- */

/* Makes the socket ours and the connection open. */
static int adopt(struct redis *redis, int socket)
{
    const int on = 1;

    redis_disconnect(redis);
    if (redis_reader_begin(&redis->reader) < 0) {
        (void)close(socket);
        return fail(redis, -ENOMEM, "no memory for replies");
    }
    (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* not on a Unix socket */
    redis->fd = socket;
    redis->base = 0;
    redis->keeping = false;
    return 0;
}

/* The error of a connect that is under way, once it has ended or deadline is past. */
static int connect_end(int fd, uint64_t deadline)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    socklen_t size = sizeof(int);
    int error = 0;

    for (uint64_t now = now_ms(); poll_fd.revents == 0; now = now_ms()) {
        if (now >= deadline) {
            return -ETIMEDOUT;
        }
        if (poll(&poll_fd, 1, (int)(deadline - now)) < 0 && errno != EINTR) {
            return -errno;
        }
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        return -errno;
    }
    return -error;
}

static int connect_to(struct redis *redis, const void *address, socklen_t size, uint64_t deadline)
{
    const int family = ((const struct sockaddr *)address)->sa_family;
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    int error = connect(fd, address, size) == 0 ? 0 : -errno;
    if (error == -EINPROGRESS || error == -EINTR) {
        error = connect_end(fd, deadline);
    }
    if (error < 0) {
        (void)close(fd);
        return error;
    }
    return adopt(redis, fd);
}

static int connect_unix(struct redis *redis, uint64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, redis->url.host, strlen(redis->url.host));
    const int error = connect_to(redis, &address, sizeof(address), deadline);
    /* A Unix socket whose queue is full says so at once. */
    return error == -EAGAIN ? -ETIMEDOUT : error;
}

static int connect_tcp(struct redis *redis, uint64_t deadline)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    uint32_t left = 0;
    char port[8];
    int error = -ENOENT;

    (void)snprintf(port, sizeof(port), "%u", redis->url.port);
    int unknown = getaddrinfo(redis->url.host, port, &hints, &found);
    if (unknown == EAI_NONAME) {
        hints.ai_flags = AI_NUMERICSERV;
        unknown = getaddrinfo(redis->url.host, port, &hints, &found);
    }
    if (unknown != 0) {
        return fail(redis, -EHOSTUNREACH, "no address of this name: %s", gai_strerror(unknown));
    }
    for (const struct addrinfo *at = found; at != NULL && left < ADDRESSES_MAX; at = at->ai_next) {
        left++;
    }
    for (const struct addrinfo *at = found; left > 0 && error < 0; at = at->ai_next, left--) {
        const uint64_t now = now_ms(); /* each has its share: the first may be a black hole */
        const uint64_t share = now < deadline ? (deadline - now) / left : 0;
        error = connect_to(redis, at->ai_addr, at->ai_addrlen, now + share);
    }
    freeaddrinfo(found);
    return error;
}

static int connect_tls(struct redis *redis, uint64_t deadline)
{
    int error = redis_tls_begin(&redis->tls, redis->fd, redis->url.host);

    for (error = error < 0 ? error : -EAGAIN;
         error == -EAGAIN;) { /* until deadline at the latest */
        error = redis_tls_step(&redis->tls);
        const int ready = error == -EAGAIN ? wait_for(redis, 0, deadline) : 0;
        error = ready < 0 ? ready : error;
    }
    redis->tls_on = error == 0;
    switch (error) {
    case 0:
        return 0;
    case -EKEYREJECTED:
        return fail(redis, error, "its certificate: %s", redis->tls.why);
    case -EPROTO:
        return fail(redis, error, "TLS: %s", redis->tls.why);
    default:
        return fail(redis, error, "TLS: %s", os_error(error));
    }
}

/* Signs in, selects the database, and says hello, in one round trip. */
static int sign_in(struct redis *redis)
{
    const struct redis_url *url = &redis->url;
    const struct slice user = {url->user, (uint32_t)strlen(url->user)};
    const struct slice password = {url->password, (uint32_t)strlen(url->password)};
    const struct slice named[] = {SLICE("AUTH"), user, password};
    const struct slice unnamed[] = {SLICE("AUTH"), password};
    struct redis_reply reply;
    char db[12];
    int error = 0;

    if (url->signs_in) {
        error = user.size > 0 ? redis_add(redis, 3, named) : redis_add(redis, 2, unnamed);
    }
    if (error == 0 && url->db > 0) {
        const int size = snprintf(db, sizeof(db), "%u", url->db);
        error = redis_add(redis, 2, (struct slice[]){SLICE("SELECT"), {db, (uint32_t)size}});
    }
    if (error == 0) {
        error = redis_add(redis, 1, (struct slice[]){SLICE("PING")});
    }
    for (bool auth = url->signs_in; error == 0 && redis->awaited > 0; auth = false) {
        error = redis_reply(redis, &reply);
        if (error == 0 && reply.type == REDIS_ERROR) {
            error = redis_error(reply.text);
            error = auth && error != -EAGAIN ? -EACCES : error;
            (void)redis_say(redis, error, auth ? "it refuses user or password" : "it refuses us",
                            reply.text);
        } else if (error == 0 && reply.type != REDIS_STATUS) {
            error = redis_say(redis, -EPROTO, "this is no Redis", SLICE(""));
        }
    }
    explicit_bzero(redis->output, SIGN_IN_BYTES); /* also if we were cut off */
    return error;
}

int redis_connect(struct redis *redis)
{
    const uint64_t deadline = now_ms() + redis->connect_ms;
    const bool is_unix = redis->url.scheme == REDIS_SCHEME_UNIX;

    redis_disconnect(redis);
    redis->why[0] = 0;
    int error = is_unix ? connect_unix(redis, deadline) : connect_tcp(redis, deadline);
    if (error < 0) {
        return redis->why[0] != 0 ? error : fail(redis, error, "%s", os_error(error));
    }
    if (redis->url.scheme == REDIS_SCHEME_TLS) {
        error = connect_tls(redis, deadline);
    }
    if (error == 0) {
        error = sign_in(redis);
    }
    if (error < 0) {
        redis_disconnect(redis);
    }
    return error;
}
