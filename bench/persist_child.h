/*
 * persist_child.h - programs that a persistence scenario starts: damsod, and scripts/servers.
 *
 * Threads:    one.
 * Ownership:  a child is the caller's until persist_child_stop; the kernel ends it with the thread
 *             that started it. It has a process group of its own, so that a Ctrl-C at the terminal
 *             is ours alone to answer.
 * Units:      seconds, bytes.
 */
#pragma once

#include "core/check.h"

#include <stddef.h>
#include <sys/types.h>

struct persist_child {
    pid_t pid; /* 0: none */
    int out;   /* its standard output */
};

/* Starts words[0] (with a slash: that file; without: in PATH). Its standard error goes to the file
 * log, or with NULL where ours goes. 0 or -errno. */
NODISCARD int persist_child_start(struct persist_child *child, const char *const *words,
                                  const char *log);

/* Waits for a line that begins with wanted and writes what follows there, without the newline. 0;
 * -ETIMEDOUT; -ESRCH: its output ended before that. */
NODISCARD int persist_child_line(struct persist_child *child, const char *wanted, double timeout_s,
                                 char *dst, size_t capacity);

/* SIGTERM, and SIGKILL after the time-out. Returns its exit status, 128 + the signal that ended it,
 * or -ECHILD if there is none. */
int persist_child_stop(struct persist_child *child, double timeout_s);

/* Runs a program to its end; what it prints goes to dst, cut off and closed by a 0. Returns its
 * exit status, -ETIMEDOUT (it is killed), or -errno. */
NODISCARD int persist_child_run(const char *const *words, double timeout_s, char *dst,
                                size_t capacity);

/* Removes a directory with all that is in it; follows no link and leaves the file system nowhere. 0
 * or -errno. */
int persist_child_remove(const char *directory);
