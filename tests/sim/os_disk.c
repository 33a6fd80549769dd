/* os_disk.c - see os_disk.h. The part of core/os.h that has to do with files, clock, randomness. */
#include "tests/sim/os_disk.h"

#include "core/check.h"
#include "core/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    SECTOR_BYTES = 512,
    INODES_MAX = 512,
    NAMES_MAX = 256,
    CHANGES_MAX = 256,
    DESCRIPTORS_MAX = 256,
    OPERATIONS_MAX = 64,
    PATH_MAX_BYTES = 256,
    FILE_BYTES_MAX = 1 << 27,
};

struct inode {
    uint8_t *now;     /* as the program sees it */
    uint8_t *durable; /* as the disk has it */
    bool *dirty;      /* a sector: written and not synced */
    uint64_t room;    /* bytes of now and durable */
    uint64_t size_now;
    uint64_t size_durable;
    bool failed; /* a write or sync of it failed */
};

struct name {
    char path[PATH_MAX_BYTES]; /* empty: unused */
    uint32_t inode;
};

/* A change of the directory that no directory sync has followed. */
struct change {
    char from[PATH_MAX_BYTES]; /* empty: created */
    char to[PATH_MAX_BYTES];   /* empty: removed */
    uint32_t inode;
};

struct descriptor {
    bool open;
    bool direct;
    uint32_t inode;
};

enum kind { KIND_WRITE, KIND_READ, KIND_SYNC, KIND_NAMES };

/* What os_directory_open gives: there is one directory, and no file has this descriptor. */
enum { DIRECTORY_DESCRIPTOR = 1 << 20 };

struct operation {
    enum kind kind;
    uint32_t inode;
    const uint8_t *data; /* to be written */
    uint8_t *target;     /* of a read */
    uint8_t *copy;       /* of what is to be written, as it was at the start */
    uint32_t size;
    uint64_t offset;
    bool sync;
    uint64_t tag;
    int32_t fault; /* result if it is to fail, else 0 */
};

struct os_ring {
    bool enabled;
};

static struct {
    uint64_t random;
    uint64_t capacity;
    uint64_t clock_ns;
    struct inode inodes[INODES_MAX];
    uint32_t inode_count;
    struct name names[NAMES_MAX];
    struct name durable_names[NAMES_MAX];
    struct change changes[CHANGES_MAX];
    uint32_t change_count;
    struct descriptor descriptors[DESCRIPTORS_MAX];
    struct operation operations[OPERATIONS_MAX];
    uint32_t operation_count;
    uint64_t fail_in; /* calls until the fault; 0: none */
    uint64_t fail_read_in;
    enum disk_fault fault;
    bool failed;
    uint64_t calls;
    uint64_t calls_on_failed_file;
    uint64_t syncs;
    struct os_ring ring;
} disk;

/* --- randomness and clock --- */

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t disk_random(void)
{
    disk.random += 0x9e3779b97f4a7c15U;
    uint64_t mixed = disk.random;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebU;
    return mixed ^ mixed >> 31;
}

static bool happens(uint32_t percent)
{
    return disk_random() % 100 < percent;
}

uint64_t os_now_ns(void)
{
    return disk.clock_ns;
}

uint64_t os_wall_ms(void)
{
    return 1795000000000U + disk.clock_ns / 1000000U;
}

void os_random(void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ((uint8_t *)bytes)[i] = (uint8_t)disk_random();
    }
}

void disk_clock_advance(uint64_t ns)
{
    disk.clock_ns += ns;
}

/* --- the test's side --- */

static void forget_operations(void)
{
    for (uint32_t i = 0; i < disk.operation_count; i++) {
        free(disk.operations[i].copy);
    }
    disk.operation_count = 0;
}

void disk_reset(uint64_t seed, uint64_t capacity)
{
    forget_operations();
    for (uint32_t i = 0; i < disk.inode_count; i++) {
        free(disk.inodes[i].now);
        free(disk.inodes[i].durable);
        free(disk.inodes[i].dirty);
    }
    memset(&disk, 0, sizeof(disk));
    disk.random = seed;
    disk.capacity = capacity;
    disk.clock_ns = 1000000000;
}

void disk_capacity_set(uint64_t capacity)
{
    disk.capacity = capacity;
}

void disk_fail(uint64_t nth, enum disk_fault fault)
{
    disk.fail_in = nth;
    disk.fault = fault;
    disk.failed = false;
}

void disk_fail_read(uint64_t nth)
{
    disk.fail_read_in = nth;
    disk.failed = false;
}

bool disk_failed(void)
{
    return disk.failed;
}

uint64_t disk_calls(void)
{
    return disk.calls;
}

uint64_t disk_calls_on_failed_file(void)
{
    return disk.calls_on_failed_file;
}

uint64_t disk_syncs(void)
{
    return disk.syncs;
}

/* Counts a call that changes the disk: 0, or the -errno (or for a short write 1) it is to end
 * with. */
static int32_t counted(struct inode *inode)
{
    disk.calls++;
    if (inode != NULL && inode->failed) {
        disk.calls_on_failed_file++;
    }
    if (disk.fail_in == 0 || --disk.fail_in > 0) {
        return 0;
    }
    disk.failed = true;
    if (inode != NULL) {
        inode->failed = true;
    }
    return disk.fault == DISK_FAULT_SHORT ? 1 : disk.fault == DISK_FAULT_EIO ? -EIO : -ENOSPC;
}

/* --- bytes --- */

static uint64_t bytes_used(void)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        used += disk.names[i].path[0] != '\0' ? disk.inodes[disk.names[i].inode].size_now : 0;
    }
    return used;
}

static void grow(struct inode *inode, uint64_t room)
{
    if (room <= inode->room) {
        return;
    }
    CHECK(room <= FILE_BYTES_MAX);
    const uint64_t sectors = (room + SECTOR_BYTES - 1) / SECTOR_BYTES;
    const uint64_t before = inode->room / SECTOR_BYTES;
    inode->now = realloc(inode->now, sectors * SECTOR_BYTES); /* tidy: allow, a simulated disk */
    inode->durable =
        realloc(inode->durable, sectors * SECTOR_BYTES); /* tidy: allow, a simulated disk */
    inode->dirty =
        realloc(inode->dirty, sectors * sizeof(bool)); /* tidy: allow, a simulated disk */
    CHECK(inode->now != NULL && inode->durable != NULL && inode->dirty != NULL);
    memset(inode->now + before * SECTOR_BYTES, 0, (sectors - before) * SECTOR_BYTES);
    memset(inode->durable + before * SECTOR_BYTES, 0, (sectors - before) * SECTOR_BYTES);
    memset(inode->dirty + before, 0, (sectors - before) * sizeof(bool));
    inode->room = sectors * SECTOR_BYTES;
}

/* Copies the sectors of [offset, offset + size), each with that probability. */
static void put(struct inode *inode, const uint8_t *data, uint64_t size, uint64_t offset,
                uint32_t percent)
{
    grow(inode, offset + size);
    for (uint64_t done = 0; done < size;) {
        const uint64_t at = offset + done;
        const uint64_t rest = SECTOR_BYTES - at % SECTOR_BYTES;
        const uint64_t piece = rest < size - done ? rest : size - done;
        if (percent == 100 || happens(percent)) {
            memcpy(inode->now + at, data + done, piece);
            inode->dirty[at / SECTOR_BYTES] = true;
        }
        done += piece;
    }
    inode->size_now = offset + size > inode->size_now ? offset + size : inode->size_now;
}

/* Dirty sectors of a range reach the disk, each with that probability, and are clean afterwards. */
static void settle(struct inode *inode, uint64_t from, uint64_t to, uint32_t percent)
{
    for (uint64_t sector = from / SECTOR_BYTES; sector * SECTOR_BYTES < to; sector++) {
        if (inode->dirty[sector] && (percent == 100 || happens(percent))) {
            memcpy(inode->durable + sector * SECTOR_BYTES, inode->now + sector * SECTOR_BYTES,
                   SECTOR_BYTES);
        }
        inode->dirty[sector] = false;
    }
}

static void sync_inode(struct inode *inode)
{
    settle(inode, 0, inode->room, 100);
    inode->size_durable = inode->size_now;
}

static bool disk_is_full(const struct inode *inode, uint64_t end)
{
    return end > inode->size_now && bytes_used() + (end - inode->size_now) > disk.capacity;
}

static int32_t do_write(struct inode *inode, const uint8_t *data, uint32_t size, uint64_t offset,
                        bool sync, int32_t fault)
{
    if (fault == 0 && disk_is_full(inode, offset + size)) {
        inode->failed = true;
        return -ENOSPC;
    }
    if (fault > 0) { /* short */
        const uint32_t part = size / SECTOR_BYTES / 2 * SECTOR_BYTES;
        put(inode, data, part, offset, 100);
        return (int32_t)part;
    }
    if (fault < 0) {
        put(inode, data, size, offset, (uint32_t)(disk_random() % 101));
        return fault;
    }
    put(inode, data, size, offset, 100);
    if (sync) {
        settle(inode, offset, offset + size, 100);
        inode->size_durable =
            offset + size > inode->size_durable ? offset + size : inode->size_durable;
    }
    return (int32_t)size;
}

static int32_t do_sync(struct inode *inode, int32_t fault)
{
    if (fault != 0) {
        settle(inode, 0, inode->room, (uint32_t)(disk_random() % 101));
        return fault < 0 ? fault : -EIO;
    }
    sync_inode(inode);
    return 0;
}

static int32_t do_read(const struct inode *inode, uint8_t *data, uint64_t size, uint64_t offset)
{
    if (offset >= inode->size_now) {
        return 0;
    }
    const uint64_t rest = inode->size_now - offset;
    const uint64_t got = rest < size ? rest : size;
    memcpy(data, inode->now + offset, got);
    return (int32_t)got;
}

/* --- the ring --- */

/* NOLINTNEXTLINE(readability-non-const-parameter): the door's */
int os_ring_create(const struct os_ring_options *options, struct os_ring **ret, char *ret_why,
                   size_t why_size)
{
    (void)options, (void)ret_why, (void)why_size;
    *ret = &disk.ring;
    return 0;
}

int os_ring_enable(struct os_ring *ring)
{
    ring->enabled = true;
    return 0;
}

void os_ring_destroy(struct os_ring *ring)
{
    ring->enabled = false;
    forget_operations();
}

static struct inode *inode_of(int file)
{
    CHECK(file >= 0 && file < DESCRIPTORS_MAX);
    CHECK(disk.descriptors[file].open);
    return &disk.inodes[disk.descriptors[file].inode];
}

/* O_DIRECT's demand. */
static bool misaligned(int file, const void *data, uint64_t size, uint64_t offset)
{
    return disk.descriptors[file].direct &&
           ((uintptr_t)data % SECTOR_BYTES != 0 || size % SECTOR_BYTES != 0 ||
            offset % SECTOR_BYTES != 0);
}

static void start(int file, struct operation operation)
{
    CHECK(disk.ring.enabled);
    CHECK(disk.operation_count < OPERATIONS_MAX);
    struct inode *inode = inode_of(file);
    operation.inode = disk.descriptors[file].inode;
    if (operation.kind != KIND_READ) {
        operation.fault = counted(inode);
        disk.syncs += operation.kind == KIND_SYNC || operation.sync;
    } else if (disk.fail_read_in > 0 && --disk.fail_read_in == 0) {
        disk.failed = true;
        operation.fault = -EIO;
    }
    if (misaligned(file, operation.kind == KIND_READ ? operation.target : operation.data,
                   operation.size, operation.offset)) {
        operation.fault = -EINVAL;
    }
    if (operation.kind == KIND_WRITE) {
        operation.copy = malloc(operation.size); /* tidy: allow, a simulated disk */
        CHECK(operation.copy != NULL);
        memcpy(operation.copy, operation.data, operation.size);
    }
    disk.operations[disk.operation_count++] = operation;
}

/* NOLINTNEXTLINE(readability-function-size): the door's */
void os_write(struct os_ring *ring, int file, const void *data, uint32_t size, uint64_t offset,
              bool sync, uint64_t tag)
{
    (void)ring;
    start(file, (struct operation){.kind = KIND_WRITE,
                                   .data = data,
                                   .size = size,
                                   .offset = offset,
                                   .sync = sync,
                                   .tag = tag});
}

void os_read(struct os_ring *ring, int file, void *data, uint32_t size, uint64_t offset,
             uint64_t tag)
{
    (void)ring;
    start(file, (struct operation){
                    .kind = KIND_READ, .target = data, .size = size, .offset = offset, .tag = tag});
}

void os_sync(struct os_ring *ring, int file, uint64_t tag)
{
    (void)ring;
    start(file, (struct operation){.kind = KIND_SYNC, .tag = tag});
}

static int32_t names_are_durable(void)
{
    memcpy(disk.durable_names, disk.names, sizeof(disk.names));
    disk.change_count = 0;
    return 0;
}

void os_directory_sync_start(struct os_ring *ring, int directory, uint64_t tag)
{
    (void)ring;
    CHECK(directory == DIRECTORY_DESCRIPTOR && disk.operation_count < OPERATIONS_MAX);
    disk.operations[disk.operation_count++] =
        (struct operation){.kind = KIND_NAMES, .tag = tag, .fault = counted(NULL)};
}

static int32_t carry_out(struct operation *operation)
{
    struct inode *inode = &disk.inodes[operation->inode];
    switch (operation->kind) {
    case KIND_WRITE:
        CHECK(memcmp(operation->copy, operation->data, operation->size) == 0); /* os.h, Ownership */
        return do_write(inode, operation->copy, operation->size, operation->offset, operation->sync,
                        operation->fault);
    case KIND_READ:
        return operation->fault < 0
                   ? operation->fault
                   : do_read(inode, operation->target, operation->size, operation->offset);
    case KIND_SYNC:
        return do_sync(inode, operation->fault);
    case KIND_NAMES:
        return operation->fault != 0 ? -EIO : names_are_durable();
    }
    return -EINVAL;
}

int os_turn(struct os_ring *ring, int64_t wait_ns, struct os_event *events, uint32_t maximum)
{
    uint32_t count = 0;
    (void)ring;
    disk.clock_ns += 50000;
    for (uint32_t tries = disk.operation_count * 2;
         tries > 0 && disk.operation_count > 0 && count < maximum; tries--) {
        if (happens(50) && (wait_ns == 0 || count > 0)) {
            continue;
        }
        const uint32_t index = (uint32_t)(disk_random() % disk.operation_count);
        struct operation operation = disk.operations[index];
        disk.operations[index] = disk.operations[--disk.operation_count];
        const int32_t result = carry_out(&operation);
        free(operation.copy);
        events[count++] = (struct os_event){.tag = operation.tag, .result = result};
    }
    return (int)count;
}

/* --- names --- */

static struct name *name_find(struct name *names, const char *path)
{
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        if (strcmp(names[i].path, path) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

static void name_set(struct name *names, const char *path, uint32_t inode)
{
    struct name *name = name_find(names, path);
    name = name != NULL ? name : name_find(names, "");
    CHECK(name != NULL);
    (void)snprintf(name->path, sizeof(name->path), "%s", path);
    name->inode = inode;
}

static void name_clear(struct name *names, const char *path)
{
    struct name *name = name_find(names, path);
    if (name != NULL) {
        name->path[0] = '\0';
    }
}

static void apply(struct name *names, const struct change *change)
{
    if (change->from[0] != '\0') {
        name_clear(names, change->from);
    }
    if (change->to[0] != '\0') {
        name_set(names, change->to, change->inode);
    }
}

static void change_names(const char *from, const char *to, uint32_t inode)
{
    struct change change = {.inode = inode};
    (void)snprintf(change.from, sizeof(change.from), "%s", from);
    (void)snprintf(change.to, sizeof(change.to), "%s", to);
    apply(disk.names, &change);
    CHECK(disk.change_count < CHANGES_MAX);
    disk.changes[disk.change_count++] = change;
}

int os_file_open(const char *path, int flags)
{
    const struct name *name = name_find(disk.names, path);
    const bool create = (flags & OS_OPEN_CREATE) != 0;
    if ((name != NULL) == create) {
        return create ? -EEXIST : -ENOENT;
    }
    const int32_t fault = create ? counted(NULL) : 0;
    if (fault != 0) {
        return fault < 0 ? fault : -EIO;
    }
    if (create) {
        CHECK(disk.inode_count < INODES_MAX);
        change_names("", path, disk.inode_count++);
        name = name_find(disk.names, path);
    }
    for (int file = 0; file < DESCRIPTORS_MAX; file++) {
        if (!disk.descriptors[file].open) {
            disk.descriptors[file] = (struct descriptor){
                .open = true, .direct = (flags & OS_OPEN_DIRECT) != 0, .inode = name->inode};
            return file;
        }
    }
    return -EMFILE;
}

void os_file_close(int file)
{
    if (file == DIRECTORY_DESCRIPTOR) {
        return;
    }
    CHECK(inode_of(file) != NULL);
    disk.descriptors[file].open = false;
}

int64_t os_file_size(int file)
{
    return (int64_t)inode_of(file)->size_now;
}

int64_t os_file_read(int file, void *data, uint64_t size, uint64_t offset)
{
    const struct inode *inode = inode_of(file);
    return misaligned(file, data, size, offset) ? -EINVAL : do_read(inode, data, size, offset);
}

int os_file_write(int file, const void *data, uint64_t size, uint64_t offset)
{
    struct inode *inode = inode_of(file);
    const int32_t fault = counted(inode);
    if (misaligned(file, data, size, offset)) {
        return -EINVAL;
    }
    const int32_t result = do_write(inode, data, (uint32_t)size, offset, false, fault);
    return result == (int32_t)size ? 0 : result < 0 ? result : -EIO;
}

int os_file_sync(int file)
{
    struct inode *inode = inode_of(file);
    return do_sync(inode, counted(inode));
}

int os_file_remove(const char *path)
{
    const struct name *name = name_find(disk.names, path);
    if (name == NULL || path[0] == '\0') {
        return -ENOENT;
    }
    const int32_t fault = counted(NULL);
    if (fault != 0) {
        return -EIO;
    }
    change_names(path, "", name->inode);
    return 0;
}

int os_file_rename(const char *from, const char *to)
{
    const struct name *name = name_find(disk.names, from);
    if (name == NULL) {
        return -ENOENT;
    }
    const int32_t fault = counted(NULL);
    if (fault != 0) {
        return -EIO;
    }
    change_names(from, to, name->inode);
    return 0;
}

int os_directory_open(const char *path)
{
    (void)path;
    return DIRECTORY_DESCRIPTOR;
}

int os_directory_sync(const char *path)
{
    (void)path;
    return counted(NULL) != 0 ? -EIO : names_are_durable();
}

int os_directory_make(const char *path)
{
    (void)path;
    return 0;
}

int os_directory_list(const char *path, int (*entry)(void *context, const char *name),
                      void *context)
{
    const size_t length = strlen(path);
    static struct name seen[NAMES_MAX]; /* an entry may be removed while it is listed */
    int result = 0;
    memcpy(seen, disk.names, sizeof(seen));
    for (uint32_t i = 0; i < NAMES_MAX && result == 0; i++) {
        if (strncmp(seen[i].path, path, length) == 0 && seen[i].path[length] == '/') {
            result = entry(context, seen[i].path + length + 1);
        }
    }
    return result;
}

void disk_truncate(const char *path, uint64_t size)
{
    const struct name *name = name_find(disk.names, path);
    CHECK(name != NULL);
    disk.inodes[name->inode].size_now = size;
    disk.inodes[name->inode].size_durable = size;
}

void disk_flip(const char *path, uint64_t offset, uint8_t bits)
{
    const struct name *name = name_find(disk.names, path);
    CHECK(name != NULL);
    CHECK(offset < disk.inodes[name->inode].room);
    disk.inodes[name->inode].now[offset] ^= bits;
    disk.inodes[name->inode].durable[offset] ^= bits;
}

/* --- the end of the process, and of power --- */

static void leave(void)
{
    forget_operations();
    memset(disk.descriptors, 0, sizeof(disk.descriptors));
    disk.fail_in = 0;
    disk.fail_read_in = 0;
    disk.ring.enabled = false;
    for (uint32_t i = 0; i < disk.inode_count; i++) {
        disk.inodes[i].failed = false;
    }
}

void disk_kill(void)
{
    for (uint32_t i = 0; i < disk.operation_count; i++) {
        struct operation *operation = &disk.operations[i];
        if (operation->kind == KIND_WRITE && operation->fault == 0 && happens(50)) {
            put(&disk.inodes[operation->inode], operation->copy, operation->size, operation->offset,
                (uint32_t)(disk_random() % 101));
        }
    }
    leave();
}

static void cut_inode(struct inode *inode, uint32_t percent)
{
    settle(inode, 0, inode->room, percent);
    if (inode->size_durable < inode->size_now && happens(percent)) {
        inode->size_durable = inode->size_now;
    }
    inode->size_now = inode->size_durable;
    if (inode->room > 0) {
        /* What lies behind the size that survived reads as zeros if the file grows again. */
        memset(inode->durable + inode->size_durable, 0, inode->room - inode->size_durable);
        memcpy(inode->now, inode->durable, inode->room);
    }
}

void disk_power_cut(void)
{
    static const uint32_t percents[] = {0, 10, 50, 90, 100};
    for (uint32_t i = 0; i < disk.operation_count; i++) {
        struct operation *operation = &disk.operations[i];
        if (operation->kind == KIND_WRITE && operation->fault == 0) {
            put(&disk.inodes[operation->inode], operation->copy, operation->size, operation->offset,
                100);
        }
    }
    for (uint32_t i = 0; i < disk.inode_count; i++) {
        cut_inode(&disk.inodes[i], percents[disk_random() % 5]);
    }
    const uint32_t percent = percents[disk_random() % 5];
    for (uint32_t i = 0; i < disk.change_count; i++) {
        if (happens(percent)) {
            apply(disk.durable_names, &disk.changes[i]);
        }
    }
    disk.change_count = 0;
    memcpy(disk.names, disk.durable_names, sizeof(disk.names));
    leave();
}
