/* procstat.h - the server's CPU time and memory as /proc/PID tells, and the loader's CPU time. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct procstat_memory {
    uint64_t rss_bytes;
    uint64_t pss_bytes;
    uint64_t private_bytes; /* clean and dirty */
};

/* CPU seconds of all threads of the process, user and system, in steps of 10 ms; < 0 if /proc/PID
 * cannot be read. Includes the kernel's receive work on the way of the process's own sends. */
double procstat_cpu_s(pid_t pid);

/* 0, or -errno. */
int procstat_memory(pid_t pid, struct procstat_memory *ret);

/* CPU seconds of this process. */
double procstat_own_cpu_s(void);
