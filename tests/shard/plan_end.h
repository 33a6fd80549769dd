/*
 * plan_end.h - gives a plan back so that its addresses can serve the next one: a pool's free items
 *              are hidden from AddressSanitizer, and stay so over munmap and mmap.
 */
#pragma once

#include "core/mem.h"

#ifndef __has_feature
#define __has_feature(feature) 0 /* gcc 12 says __SANITIZE_ADDRESS__ instead */
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define PLAN_SHOW(block, size) __asan_unpoison_memory_region((block), (size))
#else
#define PLAN_SHOW(block, size) ((void)(block), (void)(size))
#endif

static inline void plan_end(struct mem_plan *plan)
{
    for (uint32_t i = 0; i < plan->line_count; i++) {
        PLAN_SHOW(plan->lines[i].block, plan->lines[i].total);
    }
    mem_end(plan);
}
