/* os_system.c - the part of os.h that is no ring: files, listening sockets, clock, randomness,
 * processors. */
#include "core/check.h"
#include "core/os.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LISTEN_BACKLOG = 4096 };

/* --- files --- */

int os_file_open(const char *path, int flags)
{
    int mode = (flags & OS_OPEN_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC;
    mode |= flags & OS_OPEN_CREATE ? O_CREAT | O_EXCL : 0;
    int file = open(path, mode | (flags & OS_OPEN_DIRECT ? O_DIRECT : 0), 0600);
    if (file < 0 && errno == EINVAL && (flags & OS_OPEN_DIRECT) != 0) {
        /* No O_DIRECT on this file system; a created file may be there already. */
        file = open(path, mode & ~O_EXCL, 0600);
    }
    return file < 0 ? -errno : file;
}

void os_file_close(int file)
{
    (void)close(file);
}

int64_t os_file_size(int file)
{
    struct stat facts;
    return fstat(file, &facts) < 0 ? -errno : (int64_t)facts.st_size;
}

int64_t os_file_read(int file, void *data, uint64_t size, uint64_t offset)
{
    uint64_t done = 0;
    while (done < size) {
        const ssize_t got = pread(file, (char *)data + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        done += (uint64_t)got;
    }
    return (int64_t)done;
}

int os_file_write(int file, const void *data, uint64_t size, uint64_t offset)
{
    uint64_t done = 0;
    while (done < size) {
        const ssize_t put =
            pwrite(file, (const char *)data + done, size - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return put < 0 ? -errno : -EIO;
        }
        done += (uint64_t)put;
    }
    return 0;
}

int os_file_sync(int file)
{
    return fdatasync(file) < 0 ? -errno : 0;
}

int os_file_remove(const char *path)
{
    return unlink(path) < 0 ? -errno : 0;
}

int os_file_rename(const char *from, const char *to)
{
    return rename(from, to) < 0 ? -errno : 0;
}

int os_directory_open(const char *path)
{
    const int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory < 0 ? -errno : directory;
}

int os_directory_sync(const char *path)
{
    const int directory = os_directory_open(path);
    if (directory < 0) {
        return directory;
    }
    const int error = fsync(directory) < 0 ? -errno : 0;
    (void)close(directory);
    return error;
}

int os_directory_make(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int os_directory_list(const char *path, int (*entry)(void *context, const char *name),
                      void *context)
{
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return -errno;
    }
    int result = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    for (struct dirent *found = readdir(directory); found != NULL && result == 0;
         found = readdir(directory)) { /* NOLINT(concurrency-mt-unsafe): the same */
        if (found->d_name[0] != '.') {
            result = entry(context, found->d_name);
        }
    }
    (void)closedir(directory);
    return result;
}

/* --- listening --- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static int address_of(const char *text, uint16_t port, union address *ret, socklen_t *ret_size)
{
    *ret = (union address){0};
    if (inet_pton(AF_INET, text, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons(port);
        *ret_size = sizeof(ret->v4);
        return 0;
    }
    if (inet_pton(AF_INET6, text, &ret->v6.sin6_addr) == 1) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons(port);
        *ret_size = sizeof(ret->v6);
        return 0;
    }
    return -EAFNOSUPPORT;
}

static int bound_socket(const char *text, uint16_t port, bool shared, uint16_t *ret_port)
{
    union address address;
    socklen_t size = 0;
    const int on = 1;
    int error = address_of(text, port, &address, &size);
    if (error < 0) {
        return error;
    }
    const int socket_fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_fd < 0) {
        return -errno;
    }
    (void)setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (shared) {
        (void)setsockopt(socket_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    }
    if (bind(socket_fd, &address.any, size) < 0 ||
        getsockname(socket_fd, &address.any, &size) < 0) {
        error = -errno;
        (void)close(socket_fd);
        return error;
    }
    *ret_port =
        ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
    return socket_fd;
}

int os_port_claim(const char *address, uint16_t port, uint16_t *ret_port)
{
    const int socket_fd = bound_socket(address, port, false, ret_port);
    if (socket_fd < 0) {
        return socket_fd;
    }
    /* SO_REUSEADDR lets us bind beside a listener that has it too; only listening tells. */
    const int error = listen(socket_fd, 1) < 0 ? -errno : 0;
    (void)close(socket_fd);
    return error;
}

int os_listen(const char *address, uint16_t port, uint32_t send_buffer_bytes)
{
    uint16_t bound = 0;
    const int on = 1;
    /* The kernel doubles the figure to cover its own bookkeeping; accepted sockets inherit it. */
    const int half = (int)(send_buffer_bytes / 2);
    const int socket_fd = bound_socket(address, port, true, &bound);
    if (socket_fd < 0) {
        return socket_fd;
    }
    (void)setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(socket_fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
    if (listen(socket_fd, LISTEN_BACKLOG) < 0) {
        const int error = -errno;
        (void)close(socket_fd);
        return error;
    }
    return socket_fd;
}

/* --- clock, randomness, processors --- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

uint64_t os_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t os_wall_ms(void)
{
    return clock_ns(CLOCK_REALTIME) / 1000000U;
}

uint64_t os_thread_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void os_random(void *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        const ssize_t got = getrandom((char *)bytes + done, size - done, 0);
        CHECK(got > 0 || errno == EINTR); /* getrandom(2): cannot fail for a valid buffer */
        done += got > 0 ? (size_t)got : 0;
    }
}

uint32_t os_files_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 1024;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)!setrlimit(RLIMIT_NOFILE, &limit);
        (void)!getrlimit(RLIMIT_NOFILE, &limit);
    }
    /* 2^20: the kernel's own maximum for a table of direct descriptors. */
    return limit.rlim_cur < (1U << 20) ? (uint32_t)limit.rlim_cur : 1U << 20;
}

uint32_t os_cpu_count(void)
{
    cpu_set_t mine;
    return sched_getaffinity(0, sizeof(mine), &mine) < 0 ? 1 : (uint32_t)CPU_COUNT(&mine);
}

int os_pin(uint32_t index)
{
    cpu_set_t mine;
    cpu_set_t one;
    if (sched_getaffinity(0, sizeof(mine), &mine) < 0) {
        return -errno;
    }
    uint32_t wanted = index % (uint32_t)CPU_COUNT(&mine);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &mine) && wanted-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            return sched_setaffinity(0, sizeof(one), &one) < 0 ? -errno : 0;
        }
    }
    return -ESRCH;
}
