/*
 * os_disk.h - what a test may do to the simulated disk behind core/os.h.
 *
 * Walk:       tests link os_disk.c instead of core/os_uring.c and core/os_system.c.
 * Threads:    one; the disk, its clock and its randomness are the program's.
 * Units:      sizes in bytes, times in nanoseconds.
 *
 * A file has bytes as the running program sees them and bytes that are on the disk. A sync, or a
 * write with sync for its own bytes only, carries the first over to the second. A power cut keeps
 * of all else any subset of 512-byte sectors, of sizes and of directory entries, as a seed
 * decides. An operation on the ring takes effect some turns after it was started, out of order with
 * others, and the disk checks that its memory did not change meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* An empty disk of capacity bytes; everything random follows from the seed. */
void disk_reset(uint64_t seed, uint64_t capacity);

void disk_capacity_set(uint64_t capacity);

/* Power is lost and comes back: descriptors and operations in flight are gone. */
void disk_power_cut(void);

/* The process is killed: the same, but everything written is there. */
void disk_kill(void);

enum disk_fault { DISK_FAULT_EIO, DISK_FAULT_ENOSPC, DISK_FAULT_SHORT };

/* The n-th call from now on (counted from 1) that writes, syncs or changes a name fails; 0: none.
 * A write that fails leaves any subset of its sectors behind; a sync that fails forgets what was
 * to be synced, so that the next one succeeds and saves nothing (as ext4 does). */
void disk_fail(uint64_t nth, enum disk_fault fault);

/* Likewise for reads on the ring. */
void disk_fail_read(uint64_t nth);

/* Changes the file behind everybody's back, on the disk too: its size, or one byte by XOR. */
void disk_truncate(const char *path, uint64_t size);
void disk_flip(const char *path, uint64_t offset, uint8_t bits);

/* Whether the fault has happened. */
bool disk_failed(void);

/* Calls that write or sync, so far. */
uint64_t disk_calls(void);

/* Of these, calls on a file after a write or sync of that very file had failed. */
uint64_t disk_calls_on_failed_file(void);

/* Calls of os_sync and writes with sync. */
uint64_t disk_syncs(void);

void disk_clock_advance(uint64_t ns);

/* The next random number of the disk's own row: for tests that follow the same seed. */
uint64_t disk_random(void);
