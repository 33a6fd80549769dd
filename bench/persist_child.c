/* persist_child.c - see persist_child.h. */
#include "bench/persist_child.h"

#include "core/os.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_NOT_STARTED = 127, POLL_NS = 5000000, DESCRIPTORS_MAX = 16 };

/* What the child does between fork and exec: only what is safe there. Never returns. */
__attribute__((noreturn)) static void become(const char *const *words, int out, const char *log)
{
    sigset_t none;
    char *arguments[32] = {NULL};

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    (void)setpgid(0, 0);
    (void)sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    const int error =
        log != NULL ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : STDERR_FILENO;
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(error, STDERR_FILENO) < 0) {
        _exit(EXIT_NOT_STARTED);
    }
    for (size_t i = 0; i + 1 < sizeof(arguments) / sizeof(arguments[0]) && words[i] != NULL; i++) {
        memcpy(&arguments[i], &words[i], sizeof(arguments[i])); /* exec leaves them as they are */
    }
    if (words[0] != NULL) {
        (void)execvp(words[0], arguments);
    }
    _exit(EXIT_NOT_STARTED);
}

int persist_child_start(struct persist_child *child, const char *const *words, const char *log)
{
    int ends[2];

    CHECK(words[0] != NULL);
    *child = (struct persist_child){.out = -1};
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    (void)fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        become(words, ends[1], log);
    }
    const int error = -errno;
    (void)close(ends[1]);
    if (pid < 0) {
        (void)close(ends[0]);
        return error;
    }
    *child = (struct persist_child){.pid = pid, .out = ends[0]};
    return 0;
}

/* Waits until the child has something to say, and reads it: a count, 0 at the end, or -errno. */
static int read_some(const struct persist_child *child, uint64_t until_ns, char *dst, size_t size)
{
    const uint64_t now_ns = os_now_ns();
    const int left_ms = until_ns > now_ns ? (int)((until_ns - now_ns) / 1000000) + 1 : 0;
    struct pollfd wait = {.fd = child->out, .events = POLLIN};

    const int ready = poll(&wait, 1, left_ms);
    if (ready <= 0) {
        return ready < 0 && errno != EINTR ? -errno : -ETIMEDOUT;
    }
    const ssize_t got = read(child->out, dst, size);
    return got < 0 ? -errno : (int)got;
}

int persist_child_line(struct persist_child *child, const char *wanted, double timeout_s, char *dst,
                       size_t capacity)
{
    const uint64_t until_ns = os_now_ns() + (uint64_t)(timeout_s * 1e9);
    const size_t prefix = strlen(wanted);
    char line[4096];
    size_t size = 0;

    /* A byte at a time: what follows the line is the next call's. */
    for (int got = 1; got > 0;) {
        char byte;
        got = read_some(child, until_ns, &byte, 1);
        if (got <= 0) {
            return got < 0 ? got : -ESRCH;
        }
        line[size] = byte;
        if (byte == '\n') {
            line[size] = '\0';
        }
        if (byte == '\n' && strncmp(line, wanted, prefix) == 0) {
            (void)snprintf(dst, capacity, "%s", line + prefix);
            return 0;
        }
        size = byte == '\n' ? 0 : size < sizeof(line) - 2 ? size + 1 : size;
    }
    return -ESRCH;
}

static void pause_ns(long ns)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* Waits for the child's end; false: it still runs. */
static bool ended(struct persist_child *child, uint64_t until_ns, int *ret_status)
{
    int status = 0;
    pid_t got = 0;

    while ((got = waitpid(child->pid, &status, WNOHANG)) == 0 && os_now_ns() < until_ns) {
        pause_ns(POLL_NS);
    }
    if (got == 0) {
        return false;
    }
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

/* As persist_child_stop, without a first signal. */
static int wait_or_kill(struct persist_child *child, double timeout_s)
{
    const uint64_t until_ns = os_now_ns() + (uint64_t)(timeout_s * 1e9);
    int status = 0;

    if (!ended(child, until_ns, &status)) {
        (void)kill(child->pid, SIGKILL);
        (void)ended(child, UINT64_MAX, &status);
    }
    (void)close(child->out);
    *child = (struct persist_child){.out = -1};
    return status;
}

int persist_child_stop(struct persist_child *child, double timeout_s)
{
    if (child->pid == 0) {
        return -ECHILD;
    }
    (void)kill(child->pid, SIGTERM);
    return wait_or_kill(child, timeout_s);
}

int persist_child_run(const char *const *words, double timeout_s, char *dst, size_t capacity)
{
    const uint64_t until_ns = os_now_ns() + (uint64_t)(timeout_s * 1e9);
    struct persist_child child;
    size_t size = 0;
    char rest[256];
    int result = persist_child_start(&child, words, NULL);

    if (result < 0) {
        return result;
    }
    for (int got = 1; got > 0;) {
        const bool fits = size + 1 < capacity;
        got = read_some(&child, until_ns, fits ? dst + size : rest,
                        fits ? capacity - 1 - size : sizeof(rest));
        result = got < 0 ? got : 0;
        size += fits && got > 0 ? (size_t)got : 0;
    }
    dst[size] = '\0';
    const int status = result < 0 ? persist_child_stop(&child, 1) : wait_or_kill(&child, timeout_s);
    return result < 0 ? result : status;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path) < 0 ? -errno : 0;
}

int persist_child_remove(const char *directory)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): called by main's thread only. */
    return nftw(directory, remove_entry, DESCRIPTORS_MAX, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
