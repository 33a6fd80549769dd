/* options.h - the command line of damsod and ws-echo, into a configuration. */
#pragma once

#include "core/config.h"

#include <stdbool.h>
#include <stdint.h>

enum option_action {
    ACTION_RUN,
    ACTION_CHECK,
    ACTION_PRINT_DEFAULT,
    ACTION_PLAN,
    ACTION_VERSION,
    ACTION_HELP,
    ACTION_MOVE
};

struct options {
    enum option_action action;
    bool salvage;
    uint32_t shards;             /* how many there will be */
    uint32_t move_from, move_to; /* ACTION_MOVE: as persist.mode counts them */
};

/* Defaults, file, environment, flags, checked. 0, or -EINVAL with the mistakes printed to stderr.
 */
NODISCARD int options_read(int count, char *const *words, char *const *environment,
                           struct config *config, struct options *ret);

void options_print_help(void);
