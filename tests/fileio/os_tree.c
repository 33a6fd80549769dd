/* os_tree.c - see os_tree.h. The simulated disk below is taken whole; the calls in which
 * directories matter go through here. */
#include "tests/fileio/os_tree.h"

#include "core/os.h"
#include "tests/sim/os_disk.h"

void flat_reset(uint64_t seed, uint64_t capacity);
void flat_power_cut(void);
void flat_flip(const char *path, uint64_t offset, uint8_t bits);
int flat_open(const char *path, int flags);
int flat_remove(const char *path);
int flat_rename(const char *from, const char *to);
int flat_list(const char *path, int (*entry)(void *context, const char *name), void *context);
int flat_directory_open(const char *path);
int flat_directory_sync(const char *path);
int flat_directory_make(const char *path);

/* NOLINTBEGIN(readability-identifier-naming, bugprone-suspicious-include): other names for calls */
#define disk_reset        flat_reset
#define disk_power_cut    flat_power_cut
#define disk_flip         flat_flip
#define os_file_open      flat_open
#define os_file_remove    flat_remove
#define os_file_rename    flat_rename
#define os_directory_list flat_list
#define os_directory_open flat_directory_open
#define os_directory_sync flat_directory_sync
#define os_directory_make flat_directory_make
#include "tests/sim/os_disk.c"
/* NOLINTEND(readability-identifier-naming, bugprone-suspicious-include) */
#undef disk_reset
#undef disk_power_cut
#undef disk_flip
#undef os_file_open
#undef os_file_remove
#undef os_file_rename
#undef os_directory_list
#undef os_directory_open
#undef os_directory_sync
#undef os_directory_make

/* Entries of the root: a name's inode is the directory's identity. */
static struct {
    struct name now[NAMES_MAX];
    struct name durable[NAMES_MAX];
    struct change changes[CHANGES_MAX];
    uint32_t change_count;
    uint32_t identities;
} tree;

void disk_reset(uint64_t seed, uint64_t capacity)
{
    flat_reset(seed, capacity);
    memset(&tree, 0, sizeof(tree));
}

void disk_power_cut(void)
{
    flat_power_cut();
    for (uint32_t i = 0; i < tree.change_count; i++) {
        if (happens(50)) {
            apply(tree.durable, &tree.changes[i]);
        }
    }
    tree.change_count = 0;
    memcpy(tree.now, tree.durable, sizeof(tree.now));
}

static void tree_change(const char *from, const char *to, uint32_t identity)
{
    struct change change = {.inode = identity};
    (void)snprintf(change.from, sizeof(change.from), "%s", from);
    (void)snprintf(change.to, sizeof(change.to), "%s", to);
    apply(tree.now, &change);
    CHECK(tree.change_count < CHANGES_MAX);
    tree.changes[tree.change_count++] = change;
}

/* The path as the disk below knows it; false: its directory is not there. */
static bool flat_path(char ret[PATH_MAX_BYTES], const char *path)
{
    char directory[PATH_MAX_BYTES];
    const char *slash = strrchr(path, '/');
    CHECK(slash != NULL);
    (void)snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
    const struct name *name = name_find(tree.now, directory);
    if (name != NULL) {
        (void)snprintf(ret, PATH_MAX_BYTES, "#%u%s", name->inode, slash);
    }
    return name != NULL;
}

/* The directory as the disk below knows it. */
static void flat_directory(char ret[PATH_MAX_BYTES], const struct name *name)
{
    (void)snprintf(ret, PATH_MAX_BYTES, "#%u", name->inode);
}

void disk_flip(const char *path, uint64_t offset, uint8_t bits)
{
    char flat[PATH_MAX_BYTES];
    CHECK(flat_path(flat, path));
    flat_flip(flat, offset, bits);
}

int os_file_open(const char *path, int flags)
{
    char flat[PATH_MAX_BYTES];
    return flat_path(flat, path) ? flat_open(flat, flags) : -ENOENT;
}

int os_file_remove(const char *path)
{
    char flat[PATH_MAX_BYTES];
    return flat_path(flat, path) ? flat_remove(flat) : -ENOENT;
}

static int any_entry(void *context, const char *name)
{
    (void)context, (void)name;
    return -ENOTEMPTY;
}

static int rename_directory(const struct name *name, const char *to)
{
    char from[PATH_MAX_BYTES];
    char flat[PATH_MAX_BYTES];
    const struct name *target = name_find(tree.now, to);
    if (target != NULL) {
        flat_directory(flat, target);
        const int error = flat_list(flat, any_entry, NULL);
        if (error < 0) {
            return error;
        }
    }
    if (counted(NULL) != 0) {
        return -EIO;
    }
    (void)snprintf(from, sizeof(from), "%s", name->path);
    tree_change(from, to, name->inode);
    return 0;
}

int os_file_rename(const char *from, const char *to)
{
    char flat_from[PATH_MAX_BYTES];
    char flat_to[PATH_MAX_BYTES];
    const struct name *name = name_find(tree.now, from);
    if (name != NULL) {
        return rename_directory(name, to);
    }
    return flat_path(flat_from, from) && flat_path(flat_to, to) ? flat_rename(flat_from, flat_to)
                                                                : -ENOENT;
}

int os_directory_open(const char *path)
{
    return name_find(tree.now, path) != NULL ? flat_directory_open(path) : -ENOENT;
}

/* The changes in one directory, and no other's. */
static void sync_directory(const char *flat)
{
    const size_t length = strlen(flat);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < disk.change_count; i++) {
        const struct change *change = &disk.changes[i];
        const char *path = change->to[0] != '\0' ? change->to : change->from;
        if (strncmp(path, flat, length) == 0 && path[length] == '/') {
            apply(disk.durable_names, change);
        } else {
            disk.changes[kept++] = *change;
        }
    }
    disk.change_count = kept;
}

int os_directory_sync(const char *path)
{
    char flat[PATH_MAX_BYTES];
    const struct name *name = name_find(tree.now, path);
    if (name == NULL && strcmp(path, TREE_ROOT) != 0) {
        return -ENOENT;
    }
    if (counted(NULL) != 0) {
        return -EIO;
    }
    if (name != NULL) {
        flat_directory(flat, name);
        sync_directory(flat);
    } else {
        memcpy(tree.durable, tree.now, sizeof(tree.durable));
        tree.change_count = 0;
    }
    return 0;
}

int os_directory_make(const char *path)
{
    if (name_find(tree.now, path) != NULL) {
        return 0;
    }
    if (counted(NULL) != 0) {
        return -EIO;
    }
    tree_change("", path, ++tree.identities);
    return 0;
}

int os_directory_list(const char *path, int (*entry)(void *context, const char *name),
                      void *context)
{
    char flat[PATH_MAX_BYTES];
    int result = 0;
    if (strcmp(path, TREE_ROOT) != 0) {
        const struct name *name = name_find(tree.now, path);
        if (name == NULL) {
            return -ENOENT;
        }
        flat_directory(flat, name);
        return flat_list(flat, entry, context);
    }
    for (uint32_t i = 0; i < NAMES_MAX && result == 0; i++) {
        if (tree.now[i].path[0] != '\0') {
            result = entry(context, tree.now[i].path + sizeof(TREE_ROOT));
        }
    }
    return result;
}

uint32_t tree_count(const char *path)
{
    char flat[PATH_MAX_BYTES];
    uint32_t count = 0;
    const struct name *name = name_find(tree.now, path);
    if (name == NULL) {
        return 0;
    }
    flat_directory(flat, name);
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        const char *file = disk.names[i].path;
        count += strncmp(file, flat, strlen(flat)) == 0 && file[strlen(flat)] == '/';
    }
    return count;
}
