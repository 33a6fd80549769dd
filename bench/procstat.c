/* procstat.c - see procstat.h. proc(5) names the fields. */
#include "bench/procstat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Reads a small file whole, with a closing 0. Returns its size or -errno. */
static int read_text(pid_t pid, const char *name, char *dst, size_t capacity)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return -errno;
    }
    const ssize_t size = read(file, dst, capacity - 1);
    const int error = -errno;
    (void)close(file);
    if (size < 0) {
        return error;
    }
    dst[size] = '\0';
    return (int)size;
}

double procstat_cpu_s(pid_t pid)
{
    char text[1024];
    unsigned long long user, system;

    if (pid <= 0 || read_text(pid, "stat", text, sizeof(text)) < 0) {
        return -1;
    }
    /* The name in parentheses may hold anything; fields 3 to 13 lie between it and utime. */
    const char *const rest = strrchr(text, ')');
    if (rest == NULL || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                               &user, &system) != 2) {
        return -1;
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static uint64_t kibibytes(const char *text, const char *name)
{
    const char *const at = strstr(text, name);

    return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10) * 1024;
}

int procstat_memory(pid_t pid, struct procstat_memory *ret)
{
    char text[4096];
    const int size = pid <= 0 ? -ESRCH : read_text(pid, "smaps_rollup", text, sizeof(text));

    if (size < 0) {
        return size;
    }
    *ret = (struct procstat_memory){
        .rss_bytes = kibibytes(text, "\nRss:"),
        .pss_bytes = kibibytes(text, "\nPss:"),
        .private_bytes = kibibytes(text, "\nPrivate_Clean:") + kibibytes(text, "\nPrivate_Dirty:"),
    };
    return ret->rss_bytes > 0 ? 0 : -ESRCH;
}

double procstat_own_cpu_s(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}
