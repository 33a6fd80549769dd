/* reserve.h - zeroed address space for the loader's tables; a page costs memory once touched. */
#pragma once

#include <stddef.h>
#include <sys/mman.h>

/* NULL if the kernel refuses. Lives as long as the process: a loader ends when its run ends. */
static inline void *reserve_zeroed(size_t bytes)
{
    void *const start = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return start == MAP_FAILED ? NULL : start;
}

/* Gives back what reserve_zeroed gave; NULL is fine. */
static inline void reserve_release(void *start, size_t bytes)
{
    if (start != NULL) {
        (void)munmap(start, bytes);
    }
}
