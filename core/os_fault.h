/*
 * os_fault.h - failures on demand behind os.h, for tests: the n-th write or sync of a ring fails.
 *
 * Only a build with the option test_seams has them; in a product build every function here is
 * empty. Named by the environment: DAMSO_FAULT=write:<n>:<errno number>, or sync:..., counted from
 * 1 a ring; with a + behind the number (write:5+:28) all from the n-th on fail.
 */
#pragma once

#include "core/os.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum os_fault_kind { OS_FAULT_NONE, OS_FAULT_WRITE, OS_FAULT_SYNC };

#ifdef DAMSO_SEAMS

enum { OS_FAULTS_PENDING_MAX = 16 };

struct os_fault {
    enum os_fault_kind kind;
    uint64_t nth;
    uint64_t seen;
    bool lasting;
    int error;
    uint32_t pending_count;
    struct os_event pending[OS_FAULTS_PENDING_MAX]; /* failed operations whose event is due */
};

static inline void os_fault_init(struct os_fault *fault)
{
    char kind[8] = "";
    char plus[2] = "";
    unsigned long long nth = 0;
    int error = 0;
    const char *wish = getenv("DAMSO_FAULT"); /* tidy: allow, before threads start */

    *fault = (struct os_fault){0};
    if (wish == NULL || (sscanf(wish, "%7[a-z]:%llu%1[+]:%d", kind, &nth, plus, &error) != 4 &&
                         sscanf(wish, "%7[a-z]:%llu:%d", kind, &nth, &error) != 3)) {
        return;
    }
    fault->kind = strcmp(kind, "write") == 0  ? OS_FAULT_WRITE
                  : strcmp(kind, "sync") == 0 ? OS_FAULT_SYNC
                                              : OS_FAULT_NONE;
    fault->nth = nth;
    fault->lasting = plus[0] == '+';
    fault->error = error;
}

static inline bool os_fault_hits(struct os_fault *fault, enum os_fault_kind kind, uint64_t tag)
{
    if (fault->kind != kind || ++fault->seen < fault->nth ||
        (fault->seen > fault->nth && !fault->lasting) ||
        fault->pending_count == OS_FAULTS_PENDING_MAX) {
        return false;
    }
    fault->pending[fault->pending_count++] = (struct os_event){.tag = tag, .result = -fault->error};
    return true;
}

static inline uint32_t os_fault_take(struct os_fault *fault, struct os_event *events,
                                     uint32_t maximum)
{
    const uint32_t taken = fault->pending_count < maximum ? fault->pending_count : maximum;
    memcpy(events, fault->pending, taken * sizeof(*events));
    fault->pending_count = 0;
    return taken;
}

#else

struct os_fault {
    char none;
};

static inline void os_fault_init(struct os_fault *fault)
{
    (void)fault;
}

static inline bool os_fault_hits(struct os_fault *fault, enum os_fault_kind kind, uint64_t tag)
{
    (void)fault, (void)kind, (void)tag;
    return false;
}

static inline uint32_t os_fault_take(struct os_fault *fault, struct os_event *events,
                                     uint32_t maximum)
{
    (void)fault, (void)events, (void)maximum;
    return 0;
}

#endif
