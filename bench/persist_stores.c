/* persist_stores.c - see persist_stores.h. */
#include "bench/persist_stores.h"

#include "bench/micro/micro_mongo.h"
#include "bench/persist_child.h"
#include "core/os.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    START_TIMEOUT_S = 900, /* the first start on a machine makes a chroot */
    COMMAND_TIMEOUT_S = 60,
    STATUS_BYTES = 16384,
};

/* --- parts --- */

int persist_stores_uri(const char *uri, const char *database, char *dst, size_t capacity)
{
    const char *const hosts = strstr(uri, "://");

    if (hosts == NULL ||
        (strncmp(uri, "mongodb://", 10) != 0 && strncmp(uri, "mongodb+srv://", 14) != 0)) {
        return -EINVAL;
    }
    const size_t before = (size_t)(hosts + 3 - uri) + strcspn(hosts + 3, "/?");
    const bool path = uri[before] == '/';
    const char *const old = uri + before + path;
    const int old_size = path ? (int)strcspn(old, "?") : 0;
    const char *const question = strchr(uri, '?');
    const char *const rest = question != NULL ? question + 1 : "";
    char source[PERSIST_STORES_URL] = "";
    if (memchr(uri, '@', before) != NULL && strcasestr(rest, "authSource=") == NULL) {
        (void)snprintf(source, sizeof(source), "%sauthSource=%.*s", rest[0] != '\0' ? "&" : "",
                       old_size > 0 ? old_size : 5, old_size > 0 ? old : "admin");
    }
    const bool any = rest[0] != '\0' || source[0] != '\0';
    const int size = snprintf(dst, capacity, "%.*s/%s%s%s%s", (int)before, uri, database,
                              any ? "?" : "", rest, source);
    return size > 0 && (size_t)size < capacity ? 0 : -ENAMETOOLONG;
}

double persist_stores_parse_cpu(const char *status, const char *name)
{
    static const char key[] = "\"cpu_seconds\":";
    char quoted[32];

    (void)snprintf(quoted, sizeof(quoted), "\"%s\":", name);
    const char *const servers = strstr(status, "\"servers\":");
    const char *const server = servers != NULL ? strstr(servers, quoted) : NULL;
    const char *const end = server != NULL ? strchr(server, '}') : NULL;
    const char *const at = server != NULL ? strstr(server, key) : NULL;
    return at != NULL && end != NULL && at < end ? strtod(at + sizeof(key) - 1, NULL) : NAN;
}

/* --- a pair of our own --- */

/* scripts/servers as named, or beside the build directory that this program lies in. */
static int find_program(struct persist_stores *stores, const struct options *options)
{
    char self[PERSIST_STORES_PATH];

    if (options->servers != NULL) {
        (void)snprintf(stores->program, sizeof(stores->program), "%s", options->servers);
        return access(stores->program, X_OK) < 0 ? -errno : 0;
    }
    const ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (size < 0) {
        return -errno;
    }
    self[size] = '\0';
    *strrchr(self, '/') = '\0';
    (void)snprintf(stores->program, sizeof(stores->program), "%.400s/../scripts/servers", self);
    if (access(stores->program, X_OK) < 0) {
        (void)snprintf(stores->program, sizeof(stores->program), "scripts/servers");
    }
    return access(stores->program, X_OK) < 0 ? -errno : 0;
}

/* The value of "name = value" on a line of its own. */
static int take_value(const char *text, const char *name, char *dst, size_t capacity)
{
    char begin[32];

    (void)snprintf(begin, sizeof(begin), "\n%s = ", name);
    const char *const at = strstr(text, begin);
    if (at == NULL) {
        return -EPROTO;
    }
    const char *const value = at + strlen(begin);
    const int size = (int)strcspn(value, "\n");
    return snprintf(dst, capacity, "%.*s", size, value) < (int)capacity ? 0 : -ENAMETOOLONG;
}

static int start(struct persist_stores *stores, struct persist_figures *figures)
{
    char pid[16];
    char said[STATUS_BYTES] = "";
    const uint64_t begin_ns = os_now_ns();
    const char *const words[] = {stores->program, "start",   "--data", stores->directory,
                                 "--temporary",   "--until", pid,      NULL};

    (void)snprintf(stores->made, sizeof(stores->made), "/tmp/damso-bench-XXXXXX");
    if (mkdtemp(stores->made) == NULL) {
        const int error = -errno;
        stores->made[0] = '\0';
        return persist_figures_say(figures, error, "no directory in /tmp: %s",
                                   strerrordesc_np(-error));
    }
    (void)snprintf(stores->directory, sizeof(stores->directory), "%.100s/servers", stores->made);
    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    const int status = persist_child_run(words, START_TIMEOUT_S, said, sizeof(said));
    if (status != 0 ||
        take_value(said, "redis_url", stores->redis_url, sizeof(stores->redis_url)) < 0 ||
        take_value(said, "mongodb_uri", stores->mongodb_uri, sizeof(stores->mongodb_uri)) < 0) {
        return persist_figures_say(
            figures, -ECONNREFUSED,
            "%s could not start Redis and MongoDB; name servers with --redis-url and --mongodb-uri",
            stores->program);
    }
    stores->started_s = (double)(os_now_ns() - begin_ns) / 1e9;
    return 0;
}

static int take_named(struct persist_stores *stores, const struct options *options,
                      struct persist_figures *figures)
{
    if (strlen(options->redis_url) >= sizeof(stores->redis_url) ||
        strlen(options->mongodb_uri) >= sizeof(stores->mongodb_uri)) {
        return persist_figures_say(figures, -EINVAL,
                                   "--redis-url and --mongodb-uri: at most %d characters",
                                   PERSIST_STORES_URL - 1);
    }
    (void)snprintf(stores->redis_url, sizeof(stores->redis_url), "%s", options->redis_url);
    (void)snprintf(stores->mongodb_uri, sizeof(stores->mongodb_uri), "%s", options->mongodb_uri);
    (void)snprintf(stores->directory, sizeof(stores->directory), "%s",
                   options->stores != NULL ? options->stores : "");
    return 0;
}

int persist_stores_begin(struct persist_stores *stores, const struct options *options,
                         struct persist_figures *figures)
{
    const bool named = options->redis_url != NULL;
    const int found = (memset(stores, 0, sizeof(*stores)), find_program(stores, options));

    if (named) {
        return take_named(stores, options, figures);
    }
    if (found < 0) {
        return persist_figures_say(figures, -EINVAL,
                                   "%s: %s; give --servers, or --redis-url and --mongodb-uri",
                                   stores->program, strerrordesc_np(-found));
    }
    const int result = start(stores, figures);
    if (result < 0) {
        persist_stores_end(stores);
    }
    return result;
}

void persist_stores_end(struct persist_stores *stores)
{
    char said[STATUS_BYTES];
    const char *const words[] = {stores->program, "stop", "--data", stores->directory, NULL};

    if (stores->made[0] == '\0') {
        return;
    }
    (void)!persist_child_run(words, COMMAND_TIMEOUT_S, said, sizeof(said));
    (void)persist_child_remove(stores->made);
    stores->made[0] = '\0';
}

int persist_stores_space(struct persist_stores *stores, struct persist_space *ret,
                         struct persist_figures *figures)
{
    uint32_t number;

    os_random(&number, sizeof(number));
    const int run = (int)stores->names++;
    (void)snprintf(ret->prefix, sizeof(ret->prefix), "damso-bench-%08" PRIx32 "-%d:", number, run);
    (void)snprintf(ret->database, sizeof(ret->database), "damso_bench_%08" PRIx32 "_%d", number,
                   run);
    const int result = persist_stores_uri(stores->mongodb_uri, ret->database, ret->mongodb_uri,
                                          sizeof(ret->mongodb_uri));
    if (result < 0) {
        return persist_figures_say(figures, -EINVAL,
                                   "--mongodb-uri: expected mongodb:// or mongodb+srv://, with "
                                   "room for a database name in %d characters",
                                   PERSIST_STORES_URL - 1);
    }
    return 0;
}

void persist_stores_drop(const struct persist_space *space)
{
    char why[MICRO_MONGO_WHY] = "";

    if (micro_mongo_drop(space->mongodb_uri, why) < 0) {
        (void)fprintf(stderr, "damso-bench: database %s could not be dropped: %s\n",
                      space->database, why);
    }
}

void persist_stores_cpu(const struct persist_stores *stores, struct persist_stores_cpu *ret)
{
    char status[STATUS_BYTES] = "";
    const char *const words[] = {stores->program, "status",          "--json",
                                 "--data",        stores->directory, NULL};

    *ret = (struct persist_stores_cpu){NAN, NAN};
    if (stores->directory[0] != '\0' &&
        persist_child_run(words, COMMAND_TIMEOUT_S, status, sizeof(status)) == 0) {
        ret->redis_s = persist_stores_parse_cpu(status, "redis");
        ret->mongodb_s = persist_stores_parse_cpu(status, "mongodb") +
                         persist_stores_parse_cpu(status, "postgres");
    }
}
