/*
 * move.h - `damsod --move FROM TO`: the command, and the mark in the data directory that says where
 *          its data lives.
 *
 * DATA/store holds the name of a mode, "embedded" or "redis+mongodb", and a newline. It is written
 * when a mode is first used with the directory, and by a move as its last step. A directory without
 * it is an embedded one if it has a damso.db, and belongs to nobody yet if it has not.
 *
 * Walk:       from shard/main.c; to persist/move.h and fileio/recovery.h.
 * Threads:    main's, while no shard runs.
 */
#pragma once

#include "core/check.h"
#include "shard/options.h"

#include <stddef.h>
#include <stdint.h>

/* Whether damsod may start in a mode (as persist.mode counts them) with this directory, which
 * exists and is locked; before the store is opened. Writes the mark where there is none. 0, or
 * -errno with ret_why a sentence for people; -EBADF: its data lives in the other mode. */
NODISCARD int move_check_mode(const char *data, uint64_t mode, char *ret_why, size_t why_size);

/* The two words behind --move. 0, or -EINVAL with the mistake printed to stderr. */
NODISCARD int move_words(const char *from, const char *to, struct options *options);

/* Moves, and prints what it does. The exit code, as docs/OPERATIONS.md has them; 1 also if it was
 * stopped by SIGTERM or SIGINT. */
int move_main(const struct config *config, const struct options *options);
