/*
 * os_tree.h - the simulated disk of tests/sim/os_disk.h with directories in one data directory.
 *
 * Walk:       tests link os_tree.c instead of tests/sim/os_disk.c, and use os_disk.h too.
 * Threads:    one.
 *
 * A directory is an entry of TREE_ROOT with an identity of its own; the disk below knows a file by
 * that identity and its name, so that a renamed directory takes its files along. Entries of the
 * root and the names in each directory become durable by a sync of that very directory; a power cut
 * keeps any subset of the changes since. A rename onto a directory wants it empty and replaces it,
 * as rename(2) does.
 */
#pragma once

#include <stdint.h>

#define TREE_ROOT "data"

/* How many names are in a directory of the root; 0 too if it is not there. */
uint32_t tree_count(const char *path);
