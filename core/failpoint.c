/* failpoint.c - see failpoint.h. */
#include "core/failpoint.h"

#ifdef DAMSO_SEAMS

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 48, PLACES_MAX = 64 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[NAME_BYTES];
static _Atomic int64_t left = -1;
static const char *log_path;
static const char *passed[PLACES_MAX];
static uint32_t passed_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void read_wish(void)
{
    unsigned long long n = 0;
    const char *wish = getenv("DAMSO_KILL"); /* tidy: allow, a seam of test builds */

    log_path = getenv("DAMSO_KILL_LOG"); /* tidy: allow, the same */
    if (wish != NULL && sscanf(wish, "%47[a-z_.]:%llu", wanted, &n) == 2) {
        atomic_store(&left, (int64_t)n);
    }
}

/* Tells the test that this place exists, once. */
static void note(const char *name)
{
    (void)pthread_mutex_lock(&lock);
    bool known = passed_count == PLACES_MAX;
    for (uint32_t i = 0; i < passed_count; i++) {
        known = known || strcmp(passed[i], name) == 0;
    }
    if (!known) {
        passed[passed_count++] = name;
        const int file = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (file >= 0) {
            (void)!dprintf(file, "%s\n", name);
            (void)close(file);
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

void failpoint(const char *name)
{
    (void)pthread_once(&once, read_wish);
    if (log_path != NULL) {
        note(name);
    }
    if (wanted[0] != '\0' && strcmp(wanted, name) == 0 && atomic_fetch_sub(&left, 1) == 1) {
        (void)raise(SIGKILL);
    }
}

#else
typedef int failpoint_is_empty; /* ISO C wants something in a file */
#endif
