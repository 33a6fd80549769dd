/*
 * os.h - the one door to io_uring, files, clock and randomness.
 *
 * Walk:       every recv, send, write and sync of shard/ and fileio/ passes here. core/os_uring.c
 *             and core/os_system.c are the real machine; a test may link another file with the
 *             same functions (simulated disk, network or clock) instead.
 * Threads:    a ring belongs to the thread that enabled it; others only name it as the peer of
 *             os_doorbell. Files, clock and randomness: any thread.
 * Ownership:  memory handed to os_send, os_write and os_read stays the caller's and must not move
 *             or change until the event with its tag has come back.
 * Units:      sizes in bytes, times in nanoseconds unless the name says otherwise.
 *
 * Invariants: (O1) every start returns exactly one final event (one without OS_MORE) per tag.
 *             (O2) nothing runs between two calls of os_turn: completions, and the work behind
 *                  them, happen inside it (IORING_SETUP_DEFER_TASKRUN).
 *             (O3) a socket's slot is free for reuse only after the event of os_close.
 */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct os_ring;

/* A connection's socket: a slot of its ring's own table, not a file descriptor of the process. */
struct os_socket {
    uint32_t slot;
};

/* A tag travels with an operation and comes back with its events: kind 8 bits, generation 24,
 * index 32. */
static inline uint64_t os_tag(uint8_t kind, uint32_t generation, uint32_t index)
{
    return (uint64_t)kind << 56 | (uint64_t)(generation & 0xffffff) << 32 | index;
}

static inline uint8_t os_tag_kind(uint64_t tag)
{
    return (uint8_t)(tag >> 56);
}

static inline uint32_t os_tag_generation(uint64_t tag)
{
    return (uint32_t)(tag >> 32) & 0xffffff;
}

static inline uint32_t os_tag_index(uint64_t tag)
{
    return (uint32_t)tag;
}

enum os_event_flags {
    OS_MORE = 1,   /* further events with this tag will follow */
    OS_BUFFER = 2, /* a receive buffer came with it: os_event.buffer */
};

struct os_event {
    uint64_t tag;
    int32_t result; /* bytes or slot, or -errno */
    uint16_t flags;
    uint16_t buffer;
};

struct os_ring_options {
    uint32_t entries;      /* submission queue; a power of two */
    uint32_t completions;  /* completion queue; 0: twice the entries */
    uint32_t sockets;      /* slots for direct descriptors; 0: none */
    uint32_t recv_buffers; /* provided receive buffers; a power of two up to 32768; 0: none */
    uint32_t recv_buffer_bytes;
};

/* Makes a ring, not yet usable: the thread that will own it calls os_ring_enable. On failure
 * -errno, with ret_why a sentence for people that says how to mend it (kernel too old, io_uring
 * disabled, memlock). */
NODISCARD int os_ring_create(const struct os_ring_options *options, struct os_ring **ret,
                             char *ret_why, size_t why_size);

/* Makes the calling thread the owner. Other rings may ring this one's doorbell from now on. */
NODISCARD int os_ring_enable(struct os_ring *ring);

/* Frees the ring; operations in flight are cancelled by the kernel. */
void os_ring_destroy(struct os_ring *ring);

/* Submits everything prepared, waits up to wait_ns for an event (0: does not wait, < 0: without
 * end), and gives up to maximum events in order. Returns their number, or -errno for what no retry
 * mends. */
NODISCARD int os_turn(struct os_ring *ring, int64_t wait_ns, struct os_event *events,
                      uint32_t maximum);

/* How often the completion queue overflowed into the kernel's list (a metric; nothing is lost). */
uint64_t os_ring_overflows(const struct os_ring *ring);

/* Takes connections of a listening descriptor into slots: result is the slot. Multishot. */
void os_accept(struct os_ring *ring, int listener, uint64_t tag);

/* Receives into provided buffers until it ends (no OS_MORE): result 0 is end of stream, -ENOBUFS
 * asks for a new os_recv after buffers were given back. */
void os_recv(struct os_ring *ring, struct os_socket socket, uint64_t tag);

/* The bytes of a receive buffer; valid until os_buffer_give. */
uint8_t *os_buffer(struct os_ring *ring, uint16_t buffer);
void os_buffer_give(struct os_ring *ring, uint16_t buffer);

/* Sends all of size bytes; a smaller result than size means that the connection is broken. */
void os_send(struct os_ring *ring, struct os_socket socket, const void *data, uint32_t size,
             uint64_t tag);

/* Asks the operation with that tag to end; its own final event tells how it ended. */
void os_cancel(struct os_ring *ring, uint64_t target);

/* Ends our direction: the peer sees the end of the stream, and may still send. */
void os_shutdown(struct os_ring *ring, struct os_socket socket, uint64_t tag);

/* Gives the slot back. Call it when nothing else is in flight on it. */
void os_close(struct os_ring *ring, struct os_socket socket, uint64_t tag);

/* Wakes the owner of another ring: an event with that tag and result 0 appears there, none here. */
void os_doorbell(struct os_ring *ring, const struct os_ring *peer, uint64_t tag);

/* One write at offset; with sync, the event comes after the data is on disk (RWF_DSYNC). */
void os_write(struct os_ring *ring, int file, const void *data, uint32_t size, uint64_t offset,
              bool sync, uint64_t tag);
void os_read(struct os_ring *ring, int file, void *data, uint32_t size, uint64_t offset,
             uint64_t tag);

/* Data and what is needed to read it back, to disk (fdatasync). */
void os_sync(struct os_ring *ring, int file, uint64_t tag);

/* What the number of an error means, for people: errno, or -errno. Static. Any thread. */
const char *os_error(int error);

/* The names in a directory, opened by os_directory_open, to disk. */
void os_directory_sync_start(struct os_ring *ring, int directory, uint64_t tag);

/* --- plain calls for start-up and shutdown; they block --- */

enum os_open_flags {
    OS_OPEN_WRITE = 1,
    OS_OPEN_CREATE = 2, /* must not exist */
    OS_OPEN_DIRECT = 4, /* O_DIRECT where the file system has it, else without */
};

/* A descriptor or -errno. */
NODISCARD int os_file_open(const char *path, int flags);
void os_file_close(int file);
NODISCARD int64_t os_file_size(int file);

/* All of size bytes, or how many there were before the end of the file, or -errno. */
NODISCARD int64_t os_file_read(int file, void *data, uint64_t size, uint64_t offset);

/* All of size bytes and 0, or -errno. */
NODISCARD int os_file_write(int file, const void *data, uint64_t size, uint64_t offset);
NODISCARD int os_file_sync(int file);
NODISCARD int os_file_remove(const char *path);
NODISCARD int os_file_rename(const char *from, const char *to);

/* A descriptor of a directory for os_directory_sync_start, or -errno; ends with os_file_close. */
NODISCARD int os_directory_open(const char *path);

/* Makes the names in a directory durable (fsync of the directory). */
NODISCARD int os_directory_sync(const char *path);

/* Makes the directory with mode 0700 if it is not there: 0 or -errno. */
NODISCARD int os_directory_make(const char *path);

/* Calls entry for each name in the directory that is not hidden; stops at its first non-zero
 * return. */
NODISCARD int os_directory_list(const char *path, int (*entry)(void *context, const char *name),
                                void *context);

/* Makes sure that nobody listens there yet (SO_REUSEPORT alone would share the port with another
 * process) and names the port; port 0 finds a free one. 0 or -errno. */
NODISCARD int os_port_claim(const char *address, uint16_t port, uint16_t *ret_port);

/* Listening TCP socket with SO_REUSEPORT, TCP_NODELAY and the given send buffer: descriptor or
 * -errno. */
NODISCARD int os_listen(const char *address, uint16_t port, uint32_t send_buffer_bytes);

/* Monotonic nanoseconds, and wall-clock milliseconds since 1970. */
uint64_t os_now_ns(void);
uint64_t os_wall_ms(void);

/* CPU time of the calling thread. */
uint64_t os_thread_cpu_ns(void);

/* Unpredictable bytes. */
void os_random(void *bytes, size_t size);

/* How many descriptors the process may have, and slots each ring; raises the soft limit to the hard
 * one. */
uint32_t os_files_max(void);

/* Binds the calling thread to the index-th processor that this process may use: 0 or -errno. */
NODISCARD int os_pin(uint32_t index);
uint32_t os_cpu_count(void);
