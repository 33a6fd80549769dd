/*
 * os_uring.c - os.h on the real kernel: io_uring through liburing 2.3 (Debian 12), plain calls for
 * files.
 *
 * Set-up flags, each with its reason:
 *     SINGLE_ISSUER | DEFER_TASKRUN   completions run inside our own os_turn and nowhere else (O2)
 *     SUBMIT_ALL                      one bad operation does not hold up those behind it
 *     R_DISABLED                      main makes the ring, its shard's thread enables and owns it
 *     TASKRUN_FLAG                    tells whether another pass would bring more events:
 * since 6.13 the kernel runs at most 20 pieces of work a pass CLAMP | CQSIZE                  sizes
 * are wishes, the kernel's maximum wins The floor is Linux 6.1 (DEFER_TASKRUN).
 */
#include "core/check.h"
#include "core/os.h"
#include "core/os_fault.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BUFFER_GROUP = 1, PASSES_MAX = 64, TAG_IGNORED = 0 };

struct os_ring {
    struct io_uring uring;
    struct io_uring_buf_ring *buffers;
    uint8_t *buffer_bytes;
    uint32_t buffer_size;
    uint32_t buffer_count;
    uint32_t buffers_given; /* added to the buffer ring since it was last published */
    uint64_t overflows;
    struct os_fault fault;
};

static int explain(int error, const char *what, char *ret_why, size_t why_size)
{
    const char *mend = "see the kernel's log";
    if (error == -ENOSYS) {
        mend = "this kernel (or its seccomp profile) has no io_uring: Linux 6.1 or newer is needed";
    } else if (error == -EPERM || error == -EACCES) {
        mend = "io_uring is forbidden here: set sysctl kernel.io_uring_disabled=0, or name the "
               "service's group in kernel.io_uring_group, or allow io_uring in the container's "
               "seccomp profile";
    } else if (error == -ENOMEM) {
        mend = "raise the locked memory limit (systemd: LimitMEMLOCK=64M, shell: ulimit -l 65536)";
    } else if (error == -EINVAL) {
        mend = "the kernel is too old: Linux 6.1 or newer is needed (IORING_SETUP_DEFER_TASKRUN)";
    } else if (error == -EMFILE || error == -ENFILE) {
        mend = "raise the limit of open files (systemd: LimitNOFILE=1048576)";
    }
    (void)snprintf(ret_why, why_size, "io_uring: %s: %s; %s", what, os_error(error), mend);
    return error;
}

static int map_receive_buffers(struct os_ring *ring, const struct os_ring_options *options)
{
    const size_t descriptors = options->recv_buffers * sizeof(struct io_uring_buf);
    const size_t bytes = (size_t)options->recv_buffers * options->recv_buffer_bytes;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;

    CHECK((options->recv_buffers & (options->recv_buffers - 1)) == 0);
    ring->buffers = mmap(NULL, descriptors, PROT_READ | PROT_WRITE, flags, -1, 0);
    ring->buffer_bytes = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (ring->buffers == MAP_FAILED || ring->buffer_bytes == MAP_FAILED) {
        return -ENOMEM;
    }
    ring->buffer_size = options->recv_buffer_bytes;
    ring->buffer_count = options->recv_buffers;

    struct io_uring_buf_reg registration = {.ring_addr = (uintptr_t)ring->buffers,
                                            .ring_entries = options->recv_buffers,
                                            .bgid = BUFFER_GROUP};
    io_uring_buf_ring_init(ring->buffers);
    const int error = io_uring_register_buf_ring(&ring->uring, &registration, 0);
    for (uint32_t i = 0; error == 0 && i < options->recv_buffers; i++) {
        os_buffer_give(ring, (uint16_t)i);
    }
    return error;
}

static int register_all(struct os_ring *ring, const struct os_ring_options *options, char *ret_why,
                        size_t why_size)
{
    if (options->sockets > 0) {
        const int error = io_uring_register_files_sparse(&ring->uring, options->sockets);
        if (error < 0) {
            return explain(error, "table of connections", ret_why, why_size);
        }
    }
    if (options->recv_buffers > 0) {
        const int error = map_receive_buffers(ring, options);
        if (error < 0) {
            return explain(error, "receive buffers", ret_why, why_size);
        }
    }
    return 0;
}

int os_ring_create(const struct os_ring_options *options, struct os_ring **ret, char *ret_why,
                   size_t why_size)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_R_DISABLED | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CLAMP |
                 IORING_SETUP_CQSIZE,
        .cq_entries = options->completions > 0 ? options->completions : options->entries * 2,
    };
    struct os_ring *ring = calloc(1, sizeof(*ring)); /* tidy: allow, one a thread at start */
    if (ring == NULL) {
        return -ENOMEM;
    }
    int error = io_uring_queue_init_params(options->entries, &ring->uring, &params);
    if (error < 0) {
        free(ring);
        return explain(error, "set-up", ret_why, why_size);
    }
    (void)io_uring_ring_dontfork(&ring->uring);
    os_fault_init(&ring->fault);
    error = register_all(ring, options, ret_why, why_size);
    if (error < 0) {
        os_ring_destroy(ring);
        return error;
    }
    *ret = ring;
    return 0;
}

int os_ring_enable(struct os_ring *ring)
{
    /* By hand: Debian's liburing 2.3 declares io_uring_enable_rings but does not export it. */
    const long error =
        syscall(SYS_io_uring_register, ring->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (error < 0) {
        return -errno;
    }
    (void)io_uring_register_ring_fd(&ring->uring); /* saves a look-up a turn; works without */
    return 0;
}

void os_ring_destroy(struct os_ring *ring)
{
    io_uring_queue_exit(&ring->uring);
    if (ring->buffers != NULL && ring->buffers != MAP_FAILED) {
        (void)munmap(ring->buffers, ring->buffer_count * sizeof(struct io_uring_buf));
    }
    if (ring->buffer_bytes != NULL && ring->buffer_bytes != MAP_FAILED) {
        (void)munmap(ring->buffer_bytes, (size_t)ring->buffer_count * ring->buffer_size);
    }
    free(ring);
}

/* --- the turn --- */

static uint32_t take_events(struct os_ring *ring, struct os_event *events, uint32_t maximum)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    uint32_t seen = 0;
    uint32_t taken = 0;

    io_uring_for_each_cqe(&ring->uring, head, cqe)
    {
        if (taken == maximum) {
            break;
        }
        seen++;
        if (cqe->user_data == TAG_IGNORED) {
            continue;
        }
        events[taken++] = (struct os_event){
            .tag = cqe->user_data,
            .result = cqe->res,
            .flags = (uint16_t)((cqe->flags & IORING_CQE_F_MORE ? OS_MORE : 0) |
                                (cqe->flags & IORING_CQE_F_BUFFER ? OS_BUFFER : 0)),
            .buffer = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT),
        };
    }
    io_uring_cq_advance(&ring->uring, seen);
    return taken;
}

static int submit_and_wait(struct os_ring *ring, int64_t wait_ns)
{
    if (wait_ns == 0 || io_uring_cq_ready(&ring->uring) > 0) {
        return io_uring_submit_and_get_events(&ring->uring);
    }
    if (wait_ns < 0) {
        return io_uring_submit_and_wait(&ring->uring, 1);
    }
    struct io_uring_cqe *first;
    struct __kernel_timespec patience = {.tv_sec = wait_ns / 1000000000,
                                         .tv_nsec = wait_ns % 1000000000};
    return io_uring_submit_and_wait_timeout(&ring->uring, &first, 1, &patience, NULL);
}

static bool passes(int error)
{
    return error >= 0 || error == -ETIME || error == -EINTR || error == -EBUSY || error == -EAGAIN;
}

static unsigned ring_flags(const struct os_ring *ring)
{
    return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED);
}

int os_turn(struct os_ring *ring, int64_t wait_ns, struct os_event *events, uint32_t maximum)
{
    if (ring->buffers_given > 0) {
        io_uring_buf_ring_advance(ring->buffers, (int)ring->buffers_given);
        ring->buffers_given = 0;
    }
    uint32_t taken = os_fault_take(&ring->fault, events, maximum);
    const int error = submit_and_wait(ring, taken > 0 ? 0 : wait_ns);
    if (!passes(error)) {
        return error;
    }
    taken += take_events(ring, events + taken, maximum - taken);
    for (int pass = 0; pass < PASSES_MAX && taken < maximum; pass++) {
        const unsigned flags = ring_flags(ring);
        ring->overflows += (flags & IORING_SQ_CQ_OVERFLOW) != 0;
        if ((flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) == 0) {
            break;
        }
        (void)io_uring_get_events(&ring->uring);
        taken += take_events(ring, events + taken, maximum - taken);
    }
    return (int)taken;
}

uint64_t os_ring_overflows(const struct os_ring *ring)
{
    return ring->overflows;
}

/* --- operations --- */

static struct io_uring_sqe *next_sqe(struct os_ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (sqe == NULL) {
        /* The queue is full: the kernel takes all of it, so there is room afterwards. */
        (void)io_uring_submit(&ring->uring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    CHECK(sqe != NULL);
    return sqe;
}

void os_accept(struct os_ring *ring, int listener, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_multishot_accept_direct(sqe, listener, NULL, NULL, 0);
    io_uring_sqe_set_data64(sqe, tag);
}

void os_recv(struct os_ring *ring, struct os_socket socket, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_recv_multishot(sqe, (int)socket.slot, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    /* Without POLL_FIRST, arming while no buffer is free fails at once though there is no data yet.
     */
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    sqe->buf_group = BUFFER_GROUP;
    io_uring_sqe_set_data64(sqe, tag);
}

uint8_t *os_buffer(struct os_ring *ring, uint16_t buffer)
{
    CHECK(buffer < ring->buffer_count);
    return ring->buffer_bytes + (size_t)buffer * ring->buffer_size;
}

void os_buffer_give(struct os_ring *ring, uint16_t buffer)
{
    io_uring_buf_ring_add(ring->buffers, os_buffer(ring, buffer), ring->buffer_size, buffer,
                          io_uring_buf_ring_mask(ring->buffer_count), (int)ring->buffers_given++);
}

void os_send(struct os_ring *ring, struct os_socket socket, const void *data, uint32_t size,
             uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    /* WAITALL: the kernel goes on after a short send by itself. */
    io_uring_prep_send(sqe, (int)socket.slot, data, size, MSG_WAITALL | MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, tag);
}

void os_cancel(struct os_ring *ring, uint64_t target)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_cancel64(sqe, target, 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORED);
}

void os_shutdown(struct os_ring *ring, struct os_socket socket, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_shutdown(sqe, (int)socket.slot, SHUT_WR);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, tag);
}

void os_close(struct os_ring *ring, struct os_socket socket, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_close_direct(sqe, socket.slot);
    io_uring_sqe_set_data64(sqe, tag);
}

void os_doorbell(struct os_ring *ring, const struct os_ring *peer, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_msg_ring(sqe, peer->uring.ring_fd, 0, tag, 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORED);
}

/* NOLINTNEXTLINE(readability-function-size): what a write takes, its tag and its durability */
void os_write(struct os_ring *ring, int file, const void *data, uint32_t size, uint64_t offset,
              bool sync, uint64_t tag)
{
    if (os_fault_hits(&ring->fault, OS_FAULT_WRITE, tag)) {
        return;
    }
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_write(sqe, file, data, size, offset);
    sqe->rw_flags = sync ? RWF_DSYNC : 0;
    io_uring_sqe_set_data64(sqe, tag);
}

void os_read(struct os_ring *ring, int file, void *data, uint32_t size, uint64_t offset,
             uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_read(sqe, file, data, size, offset);
    io_uring_sqe_set_data64(sqe, tag);
}

void os_directory_sync_start(struct os_ring *ring, int directory, uint64_t tag)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_fsync(sqe, directory, 0);
    io_uring_sqe_set_data64(sqe, tag);
}

void os_sync(struct os_ring *ring, int file, uint64_t tag)
{
    if (os_fault_hits(&ring->fault, OS_FAULT_SYNC, tag)) {
        return;
    }
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data64(sqe, tag);
}
