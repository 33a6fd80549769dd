/*
 * mongo_rig.h - a database of a test's own on the server of DAMSO_TEST_MONGODB_URI.
 *
 * The URI's own database is never touched: every rig makes a name with a random end, and drops that
 * database when it is closed. Without the variable a test skips what needs a server, says so, and
 * exits with 77 (what meson takes for a skip).
 */
#pragma once

#include "core/check.h"
#include "core/mem.h"
#include "core/os.h"
#include "persist/mongo.h"
#include "persist/store_mongo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MONGO_RIG_SKIP = 77, MONGO_RIG_KEYS_MAX = 100 };

struct mongo_rig {
    struct mem_plan plan;
    struct mongo *mongo;
    struct store_mongo *store; /* of mongo_rig_store, or NULL */
    char uri[MONGO_URI_BYTES_MAX];
};

/* The server's URI, or NULL. */
static inline const char *mongo_rig_server(void)
{
    const char *uri = getenv("DAMSO_TEST_MONGODB_URI"); /* NOLINT(concurrency-mt-unsafe) */
    return uri != NULL && uri[0] != '\0' ? uri : NULL;
}

/* Prints the last line of a test that has no server, and gives its exit code. */
static inline int mongo_rig_skip(int passed)
{
    (void)printf(
        "%d passed, 0 failed, 1 skipped: DAMSO_TEST_MONGODB_URI is not set (scripts/servers "
        "start prints it)\n",
        passed);
    return MONGO_RIG_SKIP;
}

/* The server's URI with another database in its path. */
static inline void mongo_rig_uri(const char *database, char *ret, size_t size)
{
    const char *server = mongo_rig_server();
    CHECK(server != NULL);
    const char *hosts = strstr(server, "://");
    CHECK(hosts != NULL);
    const size_t before = (size_t)(hosts + 3 - server) + strcspn(hosts + 3, "/?");
    const char *options = strchr(server, '?');
    const int length = snprintf(ret, size, "%.*s/%s%s", (int)before, server, database,
                                options != NULL ? options : "");
    CHECK(length > 0 && (size_t)length < size);
}

/* A pool of so many clients on a database that nobody has. */
static inline void mongo_rig_open(struct mongo_rig *rig, uint32_t clients)
{
    char name[64];
    char why[512] = "";
    uint64_t number;

    os_random(&number, sizeof(number));
    (void)snprintf(name, sizeof(name), "damso_test_%016lx", (unsigned long)number);
    mongo_rig_uri(name, rig->uri, sizeof(rig->uri));
    rig->store = NULL;
    mem_init(&rig->plan, "test", MEM_MAP);
    const struct mongo_options options = {.uri = rig->uri,
                                          .connect_ms = 5000,
                                          .socket_ms = 60000,
                                          .clients = clients,
                                          .plan = &rig->plan};
    if (mongo_open(&options, &rig->mongo, why, sizeof(why)) < 0) {
        (void)fprintf(stderr, "DAMSO_TEST_MONGODB_URI %s\n", why);
        CHECK(rig->mongo != NULL);
    }
}

/* The same with a prepared store over it, which takes one of the clients. */
static inline void mongo_rig_store(struct mongo_rig *rig, uint32_t clients)
{
    mongo_rig_open(rig, clients);
    CHECK(store_mongo_open(rig->mongo, MONGO_RIG_KEYS_MAX, &rig->plan, &rig->store) == 0);
    CHECK(mem_seal(&rig->plan) == 0);
    const int error = store_mongo_prepare(rig->store);
    if (error < 0) {
        (void)fprintf(stderr, "%s\n", store_mongo_why(rig->store));
    }
    CHECK(error == 0);
}

/* Drops the database and gives everything back. */
static inline void mongo_rig_close(struct mongo_rig *rig)
{
    bson_t command = BSON_INITIALIZER;
    struct mongo_error error;

    store_mongo_close(rig->store);
    struct mongo_client *client = mongo_take(rig->mongo);
    CHECK(BSON_APPEND_INT32(&command, "dropDatabase", 1));
    CHECK(mongo_command(client, &command, true, NULL, NULL, &error) == 0);
    bson_destroy(&command);
    mongo_give(rig->mongo, client);
    mongo_close(rig->mongo);
    mem_end(&rig->plan);
}
