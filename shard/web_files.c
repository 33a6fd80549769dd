/* web_files.c - see web_files.h. Read twice: sizes for the plan, then contents into its block. */
#include "shard/web_files.h"

#include "core/check.h"
#include "core/hash.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ETAG_BYTES = 10 }; /* of the content's hash: 20 hex characters between two quotes */

_Static_assert(2 * ETAG_BYTES + 3 <= sizeof(((struct web_file *)NULL)->etag), "it fits");

/* What is served, and as what; other files are left out. */
static const struct {
    const char *suffix;
    struct slice type;
} web_types[] = {
    {".html", {"text/html; charset=utf-8", 24}},
    {".css", {"text/css; charset=utf-8", 23}},
    {".js", {"text/javascript; charset=utf-8", 30}},
    {".svg", {"image/svg+xml", 13}},
    {".png", {"image/png", 9}},
    {".ico", {"image/x-icon", 12}},
    {".webmanifest", {"application/manifest+json", 25}},
    {".json", {"application/json", 16}},
    {".txt", {"text/plain; charset=utf-8", 25}},
};

/* What the walk over a directory fills. */
struct web_walk {
    struct web_files *web;
    const char *directory;
    char *ret_why;
    size_t why_size;
    bool refused; /* ret_why says what */
};

/* The type of a file of that name; NULL: it is not served. */
static const struct slice *type_of(const char *name)
{
    const char *suffix = strrchr(name, '.');

    for (const char *at = name; *at != '\0'; at++) {
        const bool letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z');
        if (!letter && !(*at >= '0' && *at <= '9') && strchr("._-", *at) == NULL) {
            return NULL;
        }
    }
    for (uint32_t i = 0; suffix != NULL && i < sizeof(web_types) / sizeof(web_types[0]); i++) {
        if (strcmp(suffix, web_types[i].suffix) == 0) {
            return &web_types[i].type;
        }
    }
    return NULL;
}

static int refuse(struct web_walk *walk, const char *name, int error, const char *what)
{
    (void)snprintf(walk->ret_why, walk->why_size, "%s%s%s: %s", walk->directory,
                   *name != '\0' ? "/" : "", name, what);
    walk->refused = true;
    return error;
}

static int refuse_unreadable(struct web_walk *walk, const char *name, int error)
{
    char what[192];

    (void)snprintf(what, sizeof(what),
                   "cannot be read: %s; let the user that damsod runs as read "
                   "it, or name another directory in [server] web",
                   os_error(error));
    return refuse(walk, name, error, what);
}

/* Puts a file in its place by name: what is served does not hang on a directory's order. */
static int insert(struct web_walk *walk, const char *name, const struct slice *type, uint32_t size)
{
    struct web_files *web = walk->web;
    struct web_file file = {.type = *type, .content = {NULL, size}};
    char what[96];

    if (web->count == WEB_FILES_MAX) {
        (void)snprintf(what, sizeof(what), "more than %d names to serve; is it the web client?",
                       WEB_FILES_MAX);
        return refuse(walk, "", -E2BIG, what);
    }
    (void)snprintf(file.name, sizeof(file.name), "/%s", name);
    uint32_t at = web->count++;
    for (; at > 0 && strcmp(web->files[at - 1].name, file.name) > 0; at--) {
        web->files[at] = web->files[at - 1];
    }
    web->files[at] = file;
    return 0;
}

/* Called for each name in the directory: notes it with its size if it is to be served. */
static int visit(void *context, const char *name)
{
    struct web_walk *walk = context;
    char path[PATH_MAX];
    char what[96];
    struct stat facts;
    const struct slice *type = type_of(name);
    const int length = snprintf(path, sizeof(path), "%s/%s", walk->directory, name);

    if (length < 0 || length >= (int)sizeof(path)) {
        return refuse(walk, "", -ENAMETOOLONG, "the path is too long");
    }
    if (type != NULL && stat(path, &facts) < 0) {
        return refuse_unreadable(walk, name, -errno);
    }
    if (type == NULL || !S_ISREG(facts.st_mode) || strlen(name) > WEB_NAME_MAX) {
        log_notice("not served, its name or kind is not one of a web client's path=%s", path);
        return 0;
    }
    if (facts.st_size > WEB_FILE_BYTES_MAX) {
        (void)snprintf(what, sizeof(what), "%" PRId64 " bytes, at most %d are served from memory",
                       (int64_t)facts.st_size, WEB_FILE_BYTES_MAX);
        return refuse(walk, name, -EFBIG, what);
    }
    return insert(walk, name, type, (uint32_t)facts.st_size);
}

static void set_etag(struct web_file *file)
{
    static const char digits[] = "0123456789abcdef";
    const struct hash128 hash = hash128(file->content.data, file->content.size);
    char *at = file->etag;

    *at++ = '"';
    for (uint32_t i = 0; i < ETAG_BYTES; i++) {
        *at++ = digits[hash.bytes[i] >> 4];
        *at++ = digits[hash.bytes[i] & 15];
    }
    *at++ = '"';
    *at = '\0';
}

/* Reads one file to where its content is to lie. */
static int read_file(struct web_walk *walk, struct web_file *file, char *content)
{
    char path[PATH_MAX];
    char beyond;

    (void)snprintf(path, sizeof(path), "%s%s", walk->directory, file->name);
    const int opened = os_file_open(path, 0);
    if (opened < 0) {
        return refuse_unreadable(walk, file->name + 1, opened);
    }
    const int64_t size = os_file_read(opened, content, file->content.size, 0);
    const int64_t more = os_file_read(opened, &beyond, 1, file->content.size);
    os_file_close(opened);
    if (size < 0 || more < 0) {
        return refuse_unreadable(walk, file->name + 1, (int)(size < 0 ? size : more));
    }
    if (size != (int64_t)file->content.size || more != 0) {
        return refuse(walk, file->name + 1, -EAGAIN, "changed while it was read; start again");
    }
    file->content.data = content;
    set_etag(file);
    return 0;
}

/* Reads all contents into one block of the plan. Without one (a plan that only counts) there is
 * nothing to serve. */
static int read_all(struct web_walk *walk, struct mem_plan *plan)
{
    struct web_files *web = walk->web;
    size_t total = 0;

    for (uint32_t i = 0; i < web->count; i++) {
        total += web->files[i].content.size;
    }
    char *block = mem_reserve(plan, "web client", 1, total > 0 ? total : 1);
    if (block == NULL) {
        web->count = 0;
        return plan->mode == MEM_COUNT ? 0
                                       : refuse(walk, "", plan->error, "no memory for its files");
    }
    for (uint32_t i = 0; i < web->count; i++) {
        const int error = read_file(walk, &web->files[i], block);
        if (error < 0) {
            return error;
        }
        block += web->files[i].content.size;
    }
    return 0;
}

/* 1: the directory's files are listed; 0: there is no such directory. */
static int list(struct web_walk *walk)
{
    const int error = os_directory_list(walk->directory, visit, walk);

    if (error >= 0) {
        return 1;
    }
    if (walk->refused) {
        return error;
    }
    return error == -ENOENT || error == -ENOTDIR ? 0 : refuse_unreadable(walk, "", error);
}

/* The directory ../web of the running binary's, or "" if that cannot be told. */
static void beside_binary(char *directory, size_t capacity)
{
    char binary[PATH_MAX];
    const ssize_t size = readlink("/proc/self/exe", binary, sizeof(binary) - 1);

    directory[0] = '\0';
    if (size <= 0) {
        return;
    }
    binary[size] = '\0';
    char *slash = strrchr(binary, '/');
    const int length =
        slash == NULL ? -1
                      : snprintf(directory, capacity, "%.*s/../web", (int)(slash - binary), binary);
    if (length < 0 || length >= (int)capacity) {
        directory[0] = '\0';
    }
}

/* index.html under the name that browsers ask for first, too. */
static int add_root(struct web_walk *walk)
{
    const struct web_file *index = web_files_find(walk->web, SLICE("/index.html"));

    if (index == NULL) {
        return 0;
    }
    const struct web_file copy = *index;
    const int error = insert(walk, "", &copy.type, copy.content.size);
    if (error < 0) {
        return error;
    }
    CHECK(strcmp(walk->web->files[0].name, "/") == 0); /* before all other names */
    walk->web->files[0].content = copy.content;
    memcpy(walk->web->files[0].etag, copy.etag, sizeof(copy.etag));
    return 0;
}

int web_files_open(struct web_files *web, const struct config *config, struct mem_plan *plan,
                   char *ret_why, /* NOLINT(readability-non-const-parameter): by walk */
                   size_t why_size)
{
    char beside[PATH_MAX];
    const char *const usual[] = {beside, "/usr/local/share/damso/web", "/usr/share/damso/web"};
    struct web_walk walk = {
        .web = web, .directory = config->server_web, .ret_why = ret_why, .why_size = why_size};
    int listed = 0;

    CHECK(why_size > 0);
    web->count = 0;
    beside_binary(beside, sizeof(beside));
    if (config->server_web[0] != '\0') {
        listed = list(&walk);
        if (listed == 0) {
            log_warning("no web client, the directory is missing server.web=%s", walk.directory);
        }
    }
    for (uint32_t i = 0; config->server_web[0] == '\0' && listed == 0 && i < 3; i++) {
        walk.directory = usual[i];
        listed = usual[i][0] != '\0' ? list(&walk) : 0;
    }
    int error = listed > 0 ? read_all(&walk, plan) : listed;
    error = error < 0 ? error : add_root(&walk);
    if (error < 0) {
        web->count = 0;
    }
    return error < 0 ? error : 0;
}

const struct web_file *web_files_find(const struct web_files *web, struct slice path)
{
    for (uint32_t i = 0; i < web->count; i++) {
        const struct slice name = {web->files[i].name, (uint32_t)strlen(web->files[i].name)};
        if (slice_equal(name, path)) {
            return &web->files[i];
        }
    }
    return NULL;
}
